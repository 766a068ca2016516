//! The engine: one concrete struct, cheap to clone, shared between threads.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use omniburn_media::TextTokenizer;
use omniburn_models::family::TextModel;
use omniburn_models::record::{Dtype, Modality, RecordFolder, RecordHeader};

use crate::backend::{BackendKind, BackendSpec, Capabilities};
use crate::cost::{Costs, Load, Stage};
use crate::embedding::Embedding;
use crate::error::{EngineError, ItemError};
use crate::key::InputDigest;
use crate::memory::{Pool, Reservation};
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::need::ItemNeed;
use crate::options::{Budget, EngineOptions};
use crate::parts::Parts;
use crate::request::{Asked, Embedded, Input, Request, Role};
use crate::scheduler::{Priority, SchedulerPolicy};
use crate::shared::{Flights, ResultCache};
use crate::stream::{EmbedIter, Stream};
use crate::worker::{Pace, Worker};

/// A record on a device, ready to embed. `Clone + Send + Sync`; every method takes `&self` and blocks.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) worker: Worker,
    pub(crate) costs: Arc<Costs>,
    pub(crate) time_slice: Duration,
    pub(crate) budget: Budget,
    pub(crate) pool: Arc<Pool>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) cache: Option<Arc<ResultCache>>,
    task: String,
    pub(crate) threads: Option<usize>,
    /// Calls with a journal so far.
    pub(crate) calls: AtomicU64,
    pub(crate) spec: BackendSpec,
    capabilities: Capabilities,
    /// Of the header, which is long: hashed once.
    content_digest: String,
    /// Held while parts are opened.
    opening: Mutex<()>,
    /// Held while a short text is cut into tokens without room in the budget.
    pub(crate) short_text: Mutex<()>,
    pub(crate) modalities: Option<Vec<Modality>>,
    pub(crate) ffmpeg: Option<PathBuf>,
}

/// What an engine is, for people and for indexes.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name of the checkpoint.
    pub name: String,
    /// Version, record digest and task: what an index must keep beside its vectors.
    pub identity: String,
    /// The task embedded for unless a request names another.
    pub task: String,
    /// The tasks held.
    pub tasks: Vec<String>,
    /// The dimensions a request may ask for; the last is the full width.
    pub dims: Vec<usize>,
    /// The dimension of a request that asks for none.
    pub default_dim: usize,
    /// What goes in.
    pub modalities: Vec<Modality>,
    /// Rows of a sequence at most.
    pub max_tokens: usize,
    /// Where it computes.
    pub device: String,
    /// The type it computes products in.
    pub dtype: Dtype,
}

/// Settings of an engine to be opened; see [`Engine::builder`].
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    place: Place,
    options: EngineOptions,
}

/// Where a record lies.
#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    #[cfg(feature = "mini")]
    Program,
}

impl EngineBuilder {
    /// Where to compute; flex unless said otherwise.
    #[must_use]
    pub fn device(mut self, device: BackendSpec) -> Self {
        self.options.device = device;
        self
    }

    /// The type products are computed in; by default the best the record and the device allow.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.options.dtype = Some(dtype);
        self
    }

    /// The task to embed for; by default the record's.
    #[must_use]
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.options.task = Some(task.into());
        self
    }

    /// Bytes of anonymous memory the engine may take above what it has when it is opened, as the operating system counts
    /// them; 4 GiB by default. Decoded media, work in progress, and towers opened later whose weights are not computed as
    /// they are stored, are inside it; mapped weights are not.
    #[must_use]
    pub fn budget(mut self, bytes: u64) -> Self {
        self.options.budget_bytes = bytes;
        self
    }

    /// The modalities whose towers may load; by default all the record has.
    #[must_use]
    pub fn modalities(mut self, modalities: impl Into<Vec<Modality>>) -> Self {
        self.options.modalities = Some(modalities.into());
        self
    }

    /// How the scheduler treats its classes of priority.
    #[must_use]
    pub fn scheduler(mut self, policy: SchedulerPolicy) -> Self {
        self.options.scheduler = policy;
        self
    }

    /// [`EngineBuilder::scheduler`] by its older name.
    #[must_use]
    pub fn gate(self, policy: SchedulerPolicy) -> Self {
        self.scheduler(policy)
    }

    /// How long background work has the device at a time, where it can be cut that fine: 25 ms by default. It is cut
    /// between layers, images and windows, by what these took so far on this machine; a query waits for one slice.
    #[must_use]
    pub fn time_slice(mut self, target: Duration) -> Self {
        self.options.time_slice = target;
        self
    }

    /// Results to keep for inputs that come again; none by default. Files are then told apart by their content.
    #[must_use]
    pub fn cache(mut self, cache: Arc<ResultCache>) -> Self {
        self.options.cache = Some(cache);
        self
    }

    /// Threads the CPU backend computes with; one a core by default.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Reads every byte of a part against its digest when it is opened. Small parts (64 MiB) of a folder always are, those
    /// of the model inside the program only then.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.options.verify = verify;
        self
    }

    /// A folder in which a device other than flex keeps what tuning found, and compiled kernels where its runtime can, so that
    /// the next process does not look for it again; by default nothing is written anywhere. It counts for the whole process:
    /// the first engine on such a device decides. A folder that cannot be written to, and a damaged file in it, are no errors:
    /// tuning is then done anew. On flex nothing is tuned and the folder is not touched.
    #[must_use]
    pub fn tuning(mut self, folder: impl Into<PathBuf>) -> Self {
        self.options.tuning = Some(folder.into());
        self
    }

    /// The program asked to decode videos whose codec nothing here decodes (HEVC, VP9): by default `ffmpeg`, where there
    /// is one; `None` never starts a program.
    #[must_use]
    pub fn ffmpeg(mut self, program: Option<PathBuf>) -> Self {
        self.options.ffmpeg = program;
        self
    }

    /// Opens the record. Its task is complete afterwards; towers load when first used.
    ///
    /// # Errors
    /// [`EngineError`] naming what was refused: the record, the task, the device or the type.
    pub fn open(self) -> Result<Engine, EngineError> {
        let record = match &self.place {
            Place::Folder(path) => RecordFolder::open(path)?,
            #[cfg(feature = "mini")]
            Place::Program => RecordFolder::inside(omniburn_models::shipped::MINI)?,
        };
        let options = self.options;
        let header = record.header();
        let task = options.task.unwrap_or_else(|| header.default_task.clone());
        check_task(header, &task)?;
        let (device, capabilities) = options.device.device(options.tuning.as_deref())?;
        let compute = capabilities.choose(options.dtype, header.dtype, &options.device.to_string())?;
        let parts = Arc::new(Parts::open(record, device, compute, options.verify)?);
        let (costs, metrics) = (Arc::<Costs>::default(), Arc::<Metrics>::default());
        let pace = Pace {
            device: parts.device().clone(),
            eager: options.device.kind == BackendKind::Flex,
            costs: Arc::clone(&costs),
            metrics: Arc::clone(&metrics),
            time_slice: options.time_slice,
        };
        let worker = Worker::start(options.threads, options.scheduler, pace).map_err(EngineError::Thread)?;
        // The weights on the device's thread and the tokenizer on this one: each takes about as long as the other.
        let opening = {
            let (parts, task) = (Arc::clone(&parts), task.clone());
            worker.begin(move || parts.text(&task).map(|_| ()))
        };
        let tokenizer = parts.tokenizer();
        let content_digest = parts.record().header().content_digest();
        let opened = opening.wait();
        let tokenizer = tokenizer?;
        let rows = parts.record().header().family.vocab();
        if tokenizer.vocab_size() > rows {
            return Err(EngineError::TokenizerTable { highest: tokenizer.vocab_size() - 1, rows });
        }
        let pool = Pool::new(options.budget_bytes);
        if let Some(cache) = &options.cache {
            let whole = pool.reserve(Priority::Interactive, cache.most_bytes(), None, None);
            whole.map_err(|source| EngineError::Cache { bytes: cache.most_bytes(), source })?.keep();
        }
        match opened {
            Ok(opened) => opened?,
            Err(error) => {
                let reason = error.to_string();
                return Err(EngineError::DeviceUnavailable { asked: options.device.to_string(), reason });
            }
        }
        let engine = Engine {
            inner: Arc::new(Inner {
                budget: Budget::new(options.budget_bytes, &parts.record().header().family),
                pool,
                costs,
                time_slice: options.time_slice,
                flights: Arc::default(),
                cache: options.cache,
                parts,
                tokenizer,
                metrics,
                worker,
                task,
                threads: options.threads,
                calls: AtomicU64::default(),
                spec: options.device,
                capabilities,
                content_digest,
                opening: Mutex::default(),
                short_text: Mutex::default(),
                modalities: options.modalities,
                ffmpeg: options.ffmpeg,
            }),
        };
        // What opening left behind goes back now: the budget counts from here, and nothing should hide in it.
        omniburn_models::trim_memory();
        Ok(engine)
    }
}

impl Engine {
    /// Opens a record folder with default settings.
    ///
    /// # Errors
    /// As [`EngineBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EngineError> {
        Self::builder(path).open()
    }

    /// Settings for opening a record folder.
    pub fn builder(path: impl AsRef<Path>) -> EngineBuilder {
        EngineBuilder { place: Place::Folder(path.as_ref().to_path_buf()), options: EngineOptions::default() }
    }

    /// Opens the model that ships inside the program with default settings: English text, images, short speech and
    /// video, 384 numbers (`models/mini/CARD.md`).
    ///
    /// # Errors
    /// As [`EngineBuilder::open`].
    #[cfg(feature = "mini")]
    pub fn mini() -> Result<Self, EngineError> {
        Self::mini_builder().open()
    }

    /// Settings for opening the model that ships.
    #[cfg(feature = "mini")]
    pub fn mini_builder() -> EngineBuilder {
        EngineBuilder { place: Place::Program, options: EngineOptions::default() }
    }

    /// One vector an input, in order.
    ///
    /// # Errors
    /// [`EngineError::Item`] for the first input that failed; [`Engine::embed_with`] gives each its own result.
    pub fn embed(&self, inputs: &[Input], role: Role) -> Result<Vec<Embedding>, EngineError> {
        let results = self.embed_with(inputs, &Request::new(role))?;
        let vectors = results.into_iter().enumerate().map(|(index, result)| match result {
            Ok(embedded) => Ok(embedded.embedding),
            Err(source) => Err(EngineError::Item { index, source }),
        });
        vectors.collect()
    }

    /// The vector of one input.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub fn embed_one(&self, input: Input, role: Role) -> Result<Embedding, EngineError> {
        self.embed(&[input], role).map(|mut vectors| vectors.swap_remove(0))
    }

    /// One result an input, in order; a failed input leaves the others as they would be without it.
    ///
    /// # Errors
    /// [`EngineError::UnknownTask`] or [`EngineError::UnknownDim`]; nothing is computed then.
    pub fn embed_with(
        &self,
        inputs: &[Input],
        request: &Request,
    ) -> Result<Vec<Result<Embedded, ItemError>>, EngineError> {
        self.check(request)?;
        Ok(self.results(inputs.iter().cloned(), request.clone()))
    }

    /// As [`Engine::embed_with`], each input with its own request; those whose requests are equal are computed
    /// together. For progress or a journal of such a call there is [`Engine::embed_iter`].
    ///
    /// # Errors
    /// [`ItemError::Request`] at an input whose request names a task or dimension that the record does not have.
    pub fn embed_each(&self, inputs: &[(Input, Request)]) -> Vec<Result<Embedded, ItemError>> {
        self.results(inputs.iter().cloned(), Request::default())
    }

    fn results<I: Into<Asked>>(
        &self,
        inputs: impl ExactSizeIterator<Item = I>,
        request: Request,
    ) -> Vec<Result<Embedded, ItemError>> {
        let count = inputs.len();
        let mut stream = Stream::new(self.clone(), inputs, request);
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            results.extend(stream.window());
        }
        results
    }

    /// Results of a long job as they come, in input order, with bounded memory. An item is an [`Input`], which is treated
    /// as `request` says, or `(Input, Request)`, which has its own ([`Asked`]).
    ///
    /// # Errors
    /// As [`Engine::embed_with`]; what is wrong with an input's own request is [`ItemError::Request`] at its place.
    pub fn embed_iter<I: IntoIterator<Item: Into<Asked>>>(
        &self,
        inputs: I,
        request: Request,
    ) -> Result<EmbedIter<I::IntoIter>, EngineError> {
        self.check(&request)?;
        Ok(EmbedIter::new(self.clone(), inputs.into_iter(), request))
    }

    /// What this engine is.
    pub fn profile(&self) -> Profile {
        let header = self.header();
        let has = |m: &Modality| *m == Modality::Text || self.refusal(*m).is_none();
        Profile {
            name: header.name.clone(),
            identity: self.identity(&self.inner.task),
            task: self.inner.task.clone(),
            tasks: header.tasks.clone(),
            dims: header.dims.clone(),
            default_dim: header.default_dim.unwrap_or_else(|| header.family.vector()),
            modalities: Modality::ALL.into_iter().filter(has).collect(),
            max_tokens: header.family.max_tokens(),
            device: self.inner.spec.to_string(),
            dtype: self.inner.parts.compute(),
        }
    }

    pub(crate) fn spec(&self) -> BackendSpec {
        self.inner.spec
    }

    /// The record's header.
    pub fn header(&self) -> &RecordHeader {
        self.inner.parts.record().header()
    }

    /// What the device computes in.
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// Waits, time slices and compute times so far, by class.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.inner.metrics.snapshot()
    }

    /// Bytes of the memory budget: kept for good beside the opened engine, and spoken for at this moment.
    pub fn memory_in_use(&self) -> (u64, u64) {
        self.inner.pool.in_use()
    }

    /// Forgets the waits and slices counted so far, such as those of opening parts, so that a measurement begins at zero.
    pub fn reset_metrics(&self) {
        self.inner.metrics.reset();
    }

    /// The embedding identity for a task.
    pub(crate) fn identity(&self, task: &str) -> String {
        let header = self.header();
        format!("omniburn/{}/{}/{task}", header.format, self.inner.content_digest)
    }

    pub(crate) fn check(&self, request: &Request) -> Result<(), EngineError> {
        let header = self.header();
        check_task(header, request.task.as_deref().unwrap_or(&self.inner.task))?;
        match request.dim {
            Some(asked) if !header.dims.contains(&asked) => {
                Err(EngineError::UnknownDim { asked, allowed: header.dims.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The dimension of a request's vectors; `None` is the full width.
    pub(crate) fn dim_of(&self, request: &Request) -> Option<usize> {
        request.dim.or(self.header().default_dim)
    }

    pub(crate) fn task_of<'a>(&'a self, request: &'a Request) -> &'a str {
        request.task.as_deref().unwrap_or(&self.inner.task)
    }

    pub(crate) fn text_part(&self, request: &Request) -> Result<Arc<dyn TextModel>, ItemError> {
        let task = self.task_of(request);
        if let Some(text) = self.inner.parts.opened_text(task) {
            return Ok(text);
        }
        let (parts, task) = (Arc::clone(&self.inner.parts), task.to_string());
        Ok(self.unit(request, move || parts.text(&task))??)
    }

    /// What results of a request are results of: the record, the task, and where and in what type they are computed.
    pub(crate) fn result_identity(&self, request: &Request) -> String {
        let header = self.header();
        let (task, digest) = (self.task_of(request), &self.inner.content_digest);
        let (device, dtype) = (self.inner.spec, self.inner.parts.compute());
        format!("omniburn/{}/{digest}/{task}/{device}/{dtype}", header.format)
    }

    /// The kept result of an input, where there is a cache and it has one.
    pub(crate) fn cached(&self, key: &InputDigest) -> Option<Embedded> {
        self.inner.cache.as_ref()?.find(key)
    }

    /// What a step should take; `None` while none of its kind has run.
    pub(crate) fn expected(&self, stage: Stage, load: Load) -> Option<Duration> {
        self.inner.costs.expect(stage, load)
    }

    /// Memory for an item, with everything open that reads it. `None` where there is none free and the caller must not
    /// `wait`, because it holds some.
    pub(crate) fn make_room(
        &self,
        modality: Modality,
        need: &ItemNeed,
        request: &Request,
        wait: bool,
    ) -> Result<Option<Reservation>, ItemError> {
        let (pool, bytes) = (&self.inner.pool, need.bytes());
        if !self.inner.parts.is_open(modality, self.task_of(request)) {
            if !wait {
                return Ok(None);
            }
            self.open_parts(modality, bytes, request)?;
        }
        if let Some(refusal) = pool.refusal(bytes) {
            return Err(refusal);
        }
        let priority = request.resolved_priority();
        match pool.try_reserve(priority, bytes) {
            Some(reserved) => Ok(Some(reserved)),
            None if wait => pool.reserve(priority, bytes, request.cancel.as_ref(), request.deadline).map(Some),
            None => Ok(None),
        }
    }

    /// Opens what reads a kind of input. What is copied by it stays in memory as long as the engine, so the budget pays
    /// for it once and for good; `bytes` are what the first item needs beside it.
    pub(crate) fn open_parts(&self, modality: Modality, bytes: u64, request: &Request) -> Result<(), ItemError> {
        let (parts, pool, task) = (&self.inner.parts, &self.inner.pool, self.task_of(request).to_string());
        // One at a time, or two callers would pay for one tower twice.
        let _one = self.inner.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.is_open(modality, &task) {
            return Ok(());
        }
        let copies = parts.copies(modality, &task);
        if let Some(refusal) = pool.refusal(copies + bytes) {
            return Err(refusal);
        }
        let reserved = pool.reserve(request.resolved_priority(), copies, request.cancel.as_ref(), request.deadline)?;
        let parts = Arc::clone(parts);
        self.unit(request, move || parts.open_for(modality, &task))??;
        reserved.keep();
        Ok(())
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("record", &self.inner.parts.record().path()).finish_non_exhaustive()
    }
}

fn check_task(header: &RecordHeader, task: &str) -> Result<(), EngineError> {
    if header.tasks.iter().any(|t| t == task) {
        Ok(())
    } else {
        Err(EngineError::UnknownTask { asked: task.into(), held: header.tasks.clone() })
    }
}
