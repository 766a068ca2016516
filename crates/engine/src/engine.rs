//! The engine: one concrete struct, cheap to clone, shared between threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use omniburn_media::TextTokenizer;
use omniburn_models::record::{Dtype, Modality, RecordFolder, RecordHeader, TOKENIZER_FILE};
use rayon::prelude::*;

use crate::backend::{BackendSpec, Capabilities};
use crate::embedding::Embedding;
use crate::error::{EngineError, ItemError};
use crate::gate::{Cancel, Gate, GatePolicy, Priority};
use crate::meter::{Meter, MeterSnapshot};
use crate::options::{Budget, EngineOptions, MAX_UNIT_TOKENS};
use crate::parts::{Parts, TextPart};
use crate::prepare::Prepared;
use crate::request::{Embedded, Input, Progress, Request, Role};
use crate::run;
use crate::stream::EmbedIter;
use crate::worker::Worker;

/// Items of a window at most, and rows (tokens, patches or mel frames) after which it takes no more: enough to pack units well, few
/// enough that results keep flowing in a long job.
const WINDOW_ITEMS: usize = 256;
const WINDOW_ROWS: usize = 2 * MAX_UNIT_TOKENS;
/// Items prepared side by side.
const PREPARE_TOGETHER: usize = 8;

/// A record on a device, ready to embed. `Clone + Send + Sync`; every method takes `&self` and blocks.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) gate: Gate,
    meter: Meter,
    worker: Worker,
    pub(crate) budget: Budget,
    task: String,
    spec: BackendSpec,
    capabilities: Capabilities,
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

    /// Bytes of memory a unit of work may need beside the weights; 4 GiB by default.
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

    /// How the gate treats its classes.
    #[must_use]
    pub fn gate(mut self, policy: GatePolicy) -> Self {
        self.options.gate = policy;
        self
    }

    /// Threads the CPU backend computes with; one a core by default.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Reads every byte of a part against its digest when it is opened. Small parts (64 MiB) always are.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.options.verify = verify;
        self
    }

    /// The program asked to decode films whose codec nothing here decodes (HEVC, VP9): by default `ffmpeg`, where there
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
        let tokenizer =
            record.verify_file(TOKENIZER_FILE).map_err(EngineError::Record).and_then(|()| open_tokenizer(&record))?;
        let (device, capabilities) = options.device.device()?;
        let compute = capabilities.choose(options.dtype, header.dtype, &options.device.to_string())?;
        let parts = Parts::open(record, device, compute, options.verify)?;
        let rows = parts.record().header().family.vocab();
        if tokenizer.vocab_size() > rows {
            return Err(EngineError::TokenizerTable { highest: tokenizer.vocab_size() - 1, rows });
        }
        let engine = Engine {
            inner: Arc::new(Inner {
                budget: Budget::new(options.budget_bytes, &parts.record().header().family),
                parts: Arc::new(parts),
                tokenizer,
                gate: Gate::new(options.gate),
                meter: Meter::new(),
                worker: Worker::start(options.threads).map_err(EngineError::Thread)?,
                task: task.clone(),
                spec: options.device,
                capabilities,
                modalities: options.modalities,
                ffmpeg: options.ffmpeg,
            }),
        };
        let parts = Arc::clone(&engine.inner.parts);
        match engine.unit(Priority::Interactive, None, move || parts.text(&task).map(|_| ())) {
            Ok(opened) => opened?,
            Err(e) => {
                let (asked, reason) = (engine.inner.spec.to_string(), e.to_string());
                return Err(EngineError::DeviceUnavailable { asked, reason });
            }
        }
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

    /// Opens the model that ships inside the program with default settings: English text, pictures, short speech and
    /// film, 384 numbers (`models/mini/CARD.md`).
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
        let mut waiting = inputs.iter().cloned();
        let mut results = Vec::with_capacity(inputs.len());
        while results.len() < inputs.len() {
            results.extend(self.window(&mut waiting, request));
            if let Some(progress) = &request.progress {
                progress(Progress { done: results.len(), total: inputs.len() });
            }
        }
        Ok(results)
    }

    /// Results of a long job as they come, in input order, with bounded memory.
    ///
    /// # Errors
    /// As [`Engine::embed_with`].
    pub fn embed_iter<I: IntoIterator<Item = Input>>(
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
            identity: format!("omniburn/{}/{}/{}", header.format, header.content_digest(), self.inner.task),
            task: self.inner.task.clone(),
            tasks: header.tasks.clone(),
            dims: header.dims.clone(),
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

    /// Waits and holds so far, by class.
    pub fn meter(&self) -> MeterSnapshot {
        self.inner.meter.snapshot()
    }

    /// Forgets the waits and holds counted so far, such as those of opening parts, so that a measurement begins at zero.
    pub fn reset_meter(&self) {
        self.inner.meter.reset();
    }

    /// Opens whatever is not open yet, so that no later call pays for it.
    ///
    /// # Errors
    /// [`EngineError`] if a part is refused.
    pub fn warm_up(&self) -> Result<(), EngineError> {
        let parts = Arc::clone(&self.inner.parts);
        match self.unit(Priority::Background, None, move || parts.towers()) {
            Ok(opened) => Ok(opened?),
            Err(source) => Err(EngineError::Item { index: 0, source }),
        }
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        let header = self.header();
        check_task(header, request.task.as_deref().unwrap_or(&self.inner.task))?;
        match request.dim {
            Some(asked) if !header.dims.contains(&asked) => {
                Err(EngineError::UnknownDim { asked, allowed: header.dims.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Takes inputs until as much waits as the budget likes to see together, and computes them.
    pub(crate) fn window(
        &self,
        inputs: &mut impl Iterator<Item = Input>,
        request: &Request,
    ) -> Vec<Result<Embedded, ItemError>> {
        let most_bytes = self.inner.budget.bytes() / 4;
        let (mut prepared, mut bytes, mut rows) = (Vec::new(), 0u64, 0);
        while prepared.len() < WINDOW_ITEMS && rows < WINDOW_ROWS && bytes <= most_bytes {
            let together: Vec<Input> = inputs.take(PREPARE_TOGETHER).collect();
            if together.is_empty() {
                break;
            }
            let results: Vec<_> = match together.len() {
                1 => together.into_iter().map(|input| self.prepare(input, request)).collect(),
                _ => together.into_par_iter().map(|input| self.prepare(input, request)).collect(),
            };
            bytes += results.iter().flatten().map(Prepared::bytes).sum::<u64>();
            rows += results.iter().flatten().map(Prepared::rows).sum::<usize>();
            prepared.extend(results);
        }
        run::compute(self, prepared, request)
    }

    pub(crate) fn text_part(&self, request: &Request) -> Result<Arc<TextPart>, ItemError> {
        let task = request.task.as_deref().unwrap_or(&self.inner.task);
        if let Some(text) = self.inner.parts.opened_text(task) {
            return Ok(text);
        }
        let (parts, task) = (Arc::clone(&self.inner.parts), task.to_string());
        self.unit(request.resolved_priority(), request.cancel.as_ref(), move || parts.text(&task))?
            .map_err(|e| ItemError::Record(Arc::new(e)))
    }

    /// Runs one unit under one permit, and frees it whatever happens.
    pub(crate) fn unit<T: Send + 'static>(
        &self,
        priority: Priority,
        cancel: Option<&Cancel>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ItemError> {
        let arrived = Instant::now();
        let permit = match cancel {
            Some(cancel) => self.inner.gate.enter_cancellable(priority, cancel).ok_or(ItemError::Cancelled)?,
            None => self.inner.gate.enter(priority),
        };
        let started = Instant::now();
        self.inner.meter.record_wait(priority, started - arrived);
        let result = self.inner.worker.run(work);
        drop(permit);
        self.inner.meter.record_hold(priority, started.elapsed());
        result.map_err(|message| ItemError::Panicked { message })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("record", &self.inner.parts.record().path()).finish_non_exhaustive()
    }
}

fn open_tokenizer(record: &RecordFolder) -> Result<TextTokenizer, EngineError> {
    if !record.is_inside() {
        return TextTokenizer::from_file(&record.tokenizer_path()).map_err(EngineError::Tokenizer);
    }
    TextTokenizer::from_bytes(&record.bytes(TOKENIZER_FILE)?).map_err(EngineError::Tokenizer)
}

fn check_task(header: &RecordHeader, task: &str) -> Result<(), EngineError> {
    if header.tasks.iter().any(|t| t == task) {
        Ok(())
    } else {
        Err(EngineError::UnknownTask { asked: task.into(), held: header.tasks.clone() })
    }
}
