//! The engine: one concrete struct, cheap to clone, shared between threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use omniburn_media::{MediaError, RgbImage, TextTokenizer, VisionPreprocess};
use omniburn_media::{decode_image, decode_image_file, image_patches, video_patches};
use omniburn_models::batch::Grid;
use omniburn_models::families::omni::OmniText;
use omniburn_models::record::{Dtype, Modality, PixelPreprocess, RecordFolder, RecordHeader};
use rayon::prelude::*;

use crate::backend::{BackendSpec, Capabilities};
use crate::embedding::{Embedding, EmbeddingError};
use crate::error::{EngineError, ItemError};
use crate::forward;
use crate::gate::{Cancel, Gate, GatePolicy, Priority};
use crate::meter::{Meter, MeterSnapshot};
use crate::options::{Budget, EngineOptions};
use crate::parts::Parts;
use crate::plan::{Plan, plan_patches, plan_text};
use crate::prompt::{self, Frame};
use crate::request::{Embedded, Input, Progress, Request, Role, Source};
use crate::stream::EmbedIter;
use crate::worker::{Worker, panic_message};

/// Items of a window at most, so that results keep flowing in a long job.
const WINDOW_ITEMS: usize = 256;
/// Items prepared side by side.
const PREPARE_TOGETHER: usize = 8;

/// A record on a device, ready to embed. `Clone + Send + Sync`; every method takes `&self` and blocks.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    tokenizer: TextTokenizer,
    gate: Gate,
    meter: Meter,
    worker: Worker,
    budget: Budget,
    task: String,
    spec: BackendSpec,
    capabilities: Capabilities,
    modalities: Option<Vec<Modality>>,
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
    path: PathBuf,
    options: EngineOptions,
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

    /// Opens the record. Its task is complete afterwards; towers load when first used.
    ///
    /// # Errors
    /// [`EngineError`] naming what was refused: the record, the task, the device or the type.
    pub fn open(self) -> Result<Engine, EngineError> {
        let record = RecordFolder::open(&self.path)?;
        let options = self.options;
        let header = record.header();
        let task = options.task.unwrap_or_else(|| header.default_task.clone());
        check_task(header, &task)?;
        let tokenizer = record
            .verify_file(omniburn_models::record::TOKENIZER_FILE)
            .map_err(EngineError::Record)
            .and_then(|()| TextTokenizer::from_file(&record.tokenizer_path()).map_err(EngineError::Tokenizer))?;
        let (device, capabilities) = options.device.device()?;
        let compute = capabilities.choose(options.dtype, header.dtype, &options.device.to_string())?;
        let parts = Parts::open(record, device, compute, options.verify)?;
        let rows = parts.config().text.vocab;
        if tokenizer.vocab_size() > rows {
            return Err(EngineError::TokenizerTable { highest: tokenizer.vocab_size() - 1, rows });
        }
        let engine = Engine {
            inner: Arc::new(Inner {
                budget: Budget::new(options.budget_bytes, parts.config()),
                parts: Arc::new(parts),
                tokenizer,
                gate: Gate::new(options.gate),
                meter: Meter::new(),
                worker: Worker::start(options.threads).map_err(EngineError::Thread)?,
                task: task.clone(),
                spec: options.device,
                capabilities,
                modalities: options.modalities,
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
        EngineBuilder { path: path.as_ref().to_path_buf(), options: EngineOptions::default() }
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
            identity: format!("omniburn/{}/{}/{}", header.format, header.digest, self.inner.task),
            task: self.inner.task.clone(),
            tasks: header.tasks.clone(),
            dims: header.dims.clone(),
            modalities: Modality::ALL.into_iter().filter(has).collect(),
            max_tokens: self.inner.parts.config().text.max_tokens,
            device: self.inner.spec.to_string(),
            dtype: self.inner.parts.compute(),
        }
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

    /// Opens whatever is not open yet, so that no later call pays for it.
    ///
    /// # Errors
    /// [`EngineError`] if a part is refused.
    pub fn warm_up(&self) -> Result<(), EngineError> {
        let parts = Arc::clone(&self.inner.parts);
        let open = move || parts.vision().map(|_| ());
        match self.unit(Priority::Background, None, open) {
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
        let (mut prepared, mut bytes) = (Vec::new(), 0u64);
        while prepared.len() < WINDOW_ITEMS && bytes <= most_bytes {
            let together: Vec<Input> = inputs.take(PREPARE_TOGETHER).collect();
            if together.is_empty() {
                break;
            }
            let results: Vec<_> = match together.len() {
                1 => together.into_iter().map(|input| self.prepare(input, request)).collect(),
                _ => together.into_par_iter().map(|input| self.prepare(input, request)).collect(),
            };
            bytes += results.iter().flatten().map(Prepared::bytes).sum::<u64>();
            prepared.extend(results);
        }
        self.compute(prepared, request)
    }

    /// Everything that needs no device: reading, decoding, tokenising. A decoder that panics costs only its item.
    fn prepare(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        if request.cancelled() {
            return Err(ItemError::Cancelled);
        }
        let work = std::panic::AssertUnwindSafe(|| self.prepare_unguarded(input, request));
        std::panic::catch_unwind(work)
            .unwrap_or_else(|panic| Err(ItemError::Panicked { message: panic_message(panic.as_ref()) }))
    }

    fn prepare_unguarded(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        let modality = input.modality();
        for path in input.files() {
            check_file(path)?;
        }
        if let Some(reason) = self.refusal(modality) {
            return Err(ItemError::ModalityAbsent { modality, reason });
        }
        let limit = self.inner.parts.config().text.max_tokens;
        let prompts = &self.header().prompts;
        let patches = match input.0 {
            Source::Text(text) => {
                let prefix = prompt::prefix(prompts, request.role);
                let ids = self.inner.tokenizer.text_ids(prefix, &text, limit, request.truncation)?;
                if ids.ids.is_empty() {
                    return Err(ItemError::Empty { modality });
                }
                return Ok(Prepared::Text { ids: ids.ids, truncated: ids.truncated });
            }
            Source::ImageFile(path) => image_patches(&decode_image_file(&path)?, &self.pixels(modality))?,
            Source::ImageBytes(bytes) => image_patches(&decode_image(&bytes, "picture")?, &self.pixels(modality))?,
            Source::ImagePixels(image) => image_patches(&image, &self.pixels(modality))?,
            Source::VideoFrames(frames) => video_patches(&frames, &self.pixels(modality))?,
            Source::VideoFrameFiles(paths) => {
                let frames = paths.iter().map(|p| decode_image_file(p)).collect::<Result<Vec<RgbImage>, _>>()?;
                video_patches(&frames, &self.pixels(modality))?
            }
            Source::VideoFile(path) => return Err(unread(&path.display().to_string(), &std::fs::read(&path).ok())),
            Source::VideoBytes(bytes) => return Err(unread("film", &Some(bytes.to_vec()))),
            Source::AudioFile(_) | Source::AudioBytes(_) | Source::AudioSamples(..) => {
                unreachable!("sound is refused above")
            }
        };
        let frame = prompt::frame(self.header(), &self.inner.tokenizer, request.role, modality)?;
        let grid = patches.grid();
        let grid = Grid { t: grid.t, h: grid.h, w: grid.w };
        let merge = self.inner.parts.config().vision.as_ref().map_or(1, |v| v.merge);
        let tokens = frame.tokens(grid.patches() / (merge * merge));
        if tokens > limit {
            return Err(ItemError::TooLong { tokens, limit });
        }
        Ok(Prepared::Media { modality, values: patches.into_rows(), grid, frame, tokens })
    }

    /// Why a modality is not taken; `None` where it is.
    fn refusal(&self, modality: Modality) -> Option<String> {
        let allowed = self.inner.modalities.as_ref().is_none_or(|m| m.contains(&modality));
        let config = self.inner.parts.config();
        match modality {
            _ if !allowed => Some("its tower was not allowed to load".into()),
            Modality::Text => None,
            Modality::Image | Modality::Video if config.vision.is_none() => {
                Some("the record has no picture tower".into())
            }
            Modality::Image | Modality::Video => None,
            Modality::Audio if config.audio.is_none() => Some("the record has no sound tower".into()),
            Modality::Audio => Some("this version does not read sound yet".into()),
        }
    }

    fn pixels(&self, modality: Modality) -> VisionPreprocess {
        let preprocess = &self.header().preprocess;
        let pixels = if modality == Modality::Video { &preprocess.video } else { &preprocess.image };
        vision_preprocess(pixels.as_ref().expect("a record with a picture tower says how pictures are prepared"))
    }

    fn compute(
        &self,
        prepared: Vec<Result<Prepared, ItemError>>,
        request: &Request,
    ) -> Vec<Result<Embedded, ItemError>> {
        let mut run = Run { engine: self, request, results: prepared.iter().map(|_| None).collect() };
        let (mut texts, mut media) = (Vec::new(), Vec::new());
        for (index, item) in prepared.into_iter().enumerate() {
            match item {
                Ok(Prepared::Text { ids, truncated }) => texts.push(TextItem { index, ids, truncated }),
                Ok(Prepared::Media { modality, values, grid, frame, tokens }) => {
                    media.push(MediaItem { index, modality, values, grid, frame, tokens });
                }
                Err(e) => run.fail(index, e),
            }
        }
        if !texts.is_empty() || !media.is_empty() {
            match self.text_part(request) {
                Ok(text) => {
                    run.texts(&text, texts);
                    run.media(&text, media);
                }
                Err(e) => {
                    let e = Failure::of(e);
                    let indices = texts.iter().map(|t| t.index).chain(media.iter().map(|m| m.index));
                    indices.for_each(|index| run.fail(index, e.again()));
                }
            }
        }
        run.results.into_iter().map(|r| r.expect("every item was computed or failed")).collect()
    }

    fn text_part(&self, request: &Request) -> Result<Arc<OmniText>, ItemError> {
        let task = request.task.as_deref().unwrap_or(&self.inner.task);
        if let Some(text) = self.inner.parts.opened_text(task) {
            return Ok(text);
        }
        let (parts, task) = (Arc::clone(&self.inner.parts), task.to_string());
        self.unit(request.resolved_priority(), request.cancel.as_ref(), move || parts.text(&task))?
            .map_err(|e| ItemError::Record(Arc::new(e)))
    }

    /// Runs one unit under one permit, and frees it whatever happens.
    fn unit<T: Send + 'static>(
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

impl Input {
    fn files(&self) -> &[PathBuf] {
        match &self.0 {
            Source::ImageFile(path) | Source::VideoFile(path) | Source::AudioFile(path) => std::slice::from_ref(path),
            Source::VideoFrameFiles(paths) => paths,
            _ => &[],
        }
    }
}

/// An input as numbers.
enum Prepared {
    Text { ids: Vec<u32>, truncated: bool },
    Media { modality: Modality, values: Vec<f32>, grid: Grid, frame: Frame, tokens: usize },
}

impl Prepared {
    fn bytes(&self) -> u64 {
        match self {
            Prepared::Text { ids, .. } => 4 * ids.len() as u64,
            Prepared::Media { values, .. } => 4 * values.len() as u64,
        }
    }
}

struct TextItem {
    index: usize,
    ids: Vec<u32>,
    truncated: bool,
}

struct MediaItem {
    index: usize,
    modality: Modality,
    values: Vec<f32>,
    grid: Grid,
    frame: Frame,
    tokens: usize,
}

/// A failure that several items share.
enum Failure {
    Cancelled,
    Panicked(String),
    Device(String),
    Record(Arc<omniburn_models::RecordError>),
    Other(String),
}

impl Failure {
    fn of(error: ItemError) -> Self {
        match error {
            ItemError::Cancelled => Failure::Cancelled,
            ItemError::Panicked { message } => Failure::Panicked(message),
            ItemError::Device { message } => Failure::Device(message),
            ItemError::Record(e) => Failure::Record(e),
            other => Failure::Other(other.to_string()),
        }
    }

    fn again(&self) -> ItemError {
        match self {
            Failure::Cancelled => ItemError::Cancelled,
            Failure::Panicked(message) => ItemError::Panicked { message: message.clone() },
            Failure::Device(message) => ItemError::Device { message: message.clone() },
            Failure::Record(e) => ItemError::Record(Arc::clone(e)),
            Failure::Other(message) => ItemError::Device { message: message.clone() },
        }
    }
}

/// The units of one window.
struct Run<'a> {
    engine: &'a Engine,
    request: &'a Request,
    results: Vec<Option<Result<Embedded, ItemError>>>,
}

impl Run<'_> {
    fn fail(&mut self, index: usize, error: ItemError) {
        self.results[index] = Some(Err(error));
    }

    fn finish(&mut self, index: usize, values: Vec<f32>, modality: Modality, tokens: usize, truncated: bool) {
        let result = embedding(values, self.request.dim)
            .map(|embedding| Embedded { embedding, modality, tokens, truncated })
            .map_err(ItemError::from);
        self.results[index] = Some(result);
    }

    fn unit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ItemError> + Send + 'static,
    ) -> Result<T, ItemError> {
        self.engine.unit(self.request.resolved_priority(), self.request.cancel.as_ref(), work)?
    }

    fn refuse(&mut self, plan: &Plan, index_of: impl Fn(usize) -> usize) {
        let budget = self.engine.inner.budget.bytes();
        for &(item, needed) in &plan.refused {
            self.fail(index_of(item), ItemError::OverBudget { needed, budget });
        }
    }

    fn texts(&mut self, text: &Arc<OmniText>, items: Vec<TextItem>) {
        let lengths: Vec<usize> = items.iter().map(|t| t.ids.len()).collect();
        let plan = plan_text(&lengths, &self.engine.inner.budget);
        self.refuse(&plan, |i| items[i].index);
        for unit in plan.units {
            self.text_unit(text, &unit.iter().map(|&i| &items[i]).collect::<Vec<_>>());
        }
    }

    fn text_unit(&mut self, text: &Arc<OmniText>, items: &[&TextItem]) {
        let sequences: Vec<Vec<u32>> = items.iter().map(|t| t.ids.clone()).collect();
        let (model, device) = (Arc::clone(text), self.engine.inner.parts.device().clone());
        match self.unit(move || forward::text_unit(&model, &sequences, &device)) {
            Ok(rows) => {
                for (item, values) in items.iter().zip(rows) {
                    self.finish(item.index, values, Modality::Text, item.ids.len(), item.truncated);
                }
            }
            Err(e) if items.len() == 1 => self.fail(items[0].index, e),
            // Somebody in this unit is the culprit: alone, each shows its own result.
            Err(_) => items.iter().for_each(|item| self.text_unit(text, &[item])),
        }
    }

    fn media(&mut self, text: &Arc<OmniText>, items: Vec<MediaItem>) {
        // The backbone's need is known beforehand: refuse before the tower has worked for nothing.
        let budget = &self.engine.inner.budget;
        let (fits, refused): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|m| budget.text_unit(&[m.tokens]) <= budget.bytes());
        for item in refused {
            let (needed, budget) = (budget.text_unit(&[item.tokens]), budget.bytes());
            self.fail(item.index, ItemError::OverBudget { needed, budget });
        }
        let grids: Vec<Grid> = fits.iter().map(|m| m.grid).collect();
        let plan = plan_patches(&grids, &self.engine.inner.budget);
        self.refuse(&plan, |i| fits[i].index);
        let mut items: Vec<Option<MediaItem>> = fits.into_iter().map(Some).collect();
        for unit in plan.units {
            let unit: Vec<MediaItem> = unit.into_iter().filter_map(|i| items[i].take()).collect();
            self.media_unit(text, unit);
        }
    }

    fn media_unit(&mut self, text: &Arc<OmniText>, mut items: Vec<MediaItem>) {
        let parts = Arc::clone(&self.engine.inner.parts);
        if !parts.vision_is_open() {
            let opening = Arc::clone(&parts);
            let opened = self.unit(move || opening.vision().map(|_| ()).map_err(|e| ItemError::Record(Arc::new(e))));
            if let Err(e) = opened {
                let e = Failure::of(e);
                return items.iter().for_each(|item| self.fail(item.index, e.again()));
            }
        }
        match self.tower(items.iter_mut().map(|m| (std::mem::take(&mut m.values), m.grid)).collect()) {
            Ok(features) => {
                for (item, features) in items.into_iter().zip(features) {
                    self.media_item(text, &item, features);
                }
            }
            Err((e, _)) if items.len() == 1 => self.fail(items[0].index, e),
            Err((_, values)) => {
                for (mut item, values) in items.into_iter().zip(values) {
                    item.values = values;
                    self.media_unit(text, vec![item]);
                }
            }
        }
    }

    /// Features of each item; on failure the values come back, so that each can be tried alone.
    #[allow(clippy::type_complexity)] // the two halves of one result
    fn tower(&self, packed: Vec<(Vec<f32>, Grid)>) -> Result<Vec<Tensor<2>>, (ItemError, Vec<Vec<f32>>)> {
        let parts = Arc::clone(&self.engine.inner.parts);
        let kept = if packed.len() > 1 { packed.iter().map(|(v, _)| v.clone()).collect() } else { Vec::new() };
        let work = move || {
            let tower = parts.vision().map_err(|e| ItemError::Record(Arc::new(e)))?;
            let tower = tower.expect("a modality without a tower is refused before");
            forward::tower_unit(&tower, packed, parts.device())
        };
        self.unit(work).map_err(|e| (e, kept))
    }

    fn media_item(&mut self, text: &Arc<OmniText>, item: &MediaItem, features: Tensor<2>) {
        let (model, device) = (Arc::clone(text), self.engine.inner.parts.device().clone());
        let frame = item.frame.clone();
        match self.unit(move || forward::media_unit(&model, features, &frame, &device)) {
            Ok(values) => self.finish(item.index, values, item.modality, item.tokens, false),
            Err(e) => self.fail(item.index, e),
        }
    }
}

/// The unit vector of a pooled row: finite in every value, then cut, then normalised.
fn embedding(mut values: Vec<f32>, dim: Option<usize>) -> Result<Embedding, EmbeddingError> {
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(EmbeddingError::NotFinite { index });
    }
    values.truncate(dim.unwrap_or(values.len()));
    Embedding::from_raw(values)
}

fn check_task(header: &RecordHeader, task: &str) -> Result<(), EngineError> {
    if header.tasks.iter().any(|t| t == task) {
        Ok(())
    } else {
        Err(EngineError::UnknownTask { asked: task.into(), held: header.tasks.clone() })
    }
}

/// Whether a file is there and is a file, for media that nothing here reads further.
fn check_file(path: &Path) -> Result<(), MediaError> {
    let meta = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => MediaError::NotFound { path: path.into(), source },
        _ => MediaError::Unreadable { path: path.into(), source },
    })?;
    if meta.is_dir() {
        return Err(MediaError::NotAFile { path: path.into(), found: "a folder" });
    }
    Ok(())
}

/// Film files are not read yet: the format is named.
fn unread(name: &str, bytes: &Option<Vec<u8>>) -> ItemError {
    let found = bytes.as_deref().and_then(omniburn_media::sniff);
    ItemError::Media(match found {
        Some(format) => MediaError::UnsupportedCodec {
            name: name.into(),
            format,
            detail: "film files are not read by this version; a list of frames is".into(),
        },
        None => MediaError::UnknownFormat { name: name.into(), found },
    })
}

fn vision_preprocess(p: &PixelPreprocess) -> VisionPreprocess {
    VisionPreprocess {
        patch: p.patch_px,
        merge: p.merge,
        temporal_patch: p.temporal_patch,
        min_pixels: p.min_pixels,
        max_pixels: p.max_pixels,
        mean: p.mean,
        std: p.std,
        rescale: p.rescale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use omniburn_models::backbone::BackboneConfig;
    use omniburn_models::families::OmniConfig;
    use omniburn_models::record::write_random;

    /// An engine on a text-only record of random weights.
    fn engine() -> (tempfile::TempDir, Engine) {
        let text = BackboneConfig {
            hidden: 32,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            inner: 48,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            causal: true,
            qk_norm: true,
            max_tokens: 128,
            vocab: 500,
        };
        let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
        let tokenizer = Path::new(&manifest).join("../../tests/golden/twins/omni-small-tiny/tokenizer.json");
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("record");
        let config = OmniConfig { text, vision: None, audio: None };
        write_random(&out, &config, Dtype::F32, (1, 1), &tokenizer, 3).unwrap();
        let engine = Engine::open(out).unwrap();
        (folder, engine)
    }

    #[test]
    fn a_unit_that_panics_becomes_a_typed_error_and_frees_the_gate() {
        let (_folder, engine) = engine();
        let want = engine.embed_one(Input::text("a"), Role::Query).unwrap();
        let failed: Result<(), ItemError> = engine.unit(Priority::Background, None, || panic!("shapes disagree"));
        let error = failed.unwrap_err();
        assert_eq!(error.kind().name(), "panicked");
        assert!(error.to_string().contains("shapes disagree"));
        assert_eq!(engine.inner.gate.waiting(), (0, 0));
        assert_eq!(engine.embed_one(Input::text("a"), Role::Query).unwrap(), want);
    }

    #[test]
    fn one_culprit_in_a_unit_fails_alone_and_its_neighbours_keep_their_bits() {
        let (_folder, engine) = engine();
        let text = engine.text_part(&Request::default()).unwrap();
        let item = |index, ids: &[u32]| TextItem { index, ids: ids.to_vec(), truncated: false };
        let request = Request::new(Role::None);
        let run = |items: Vec<TextItem>, count: usize| {
            let mut run = Run { engine: &engine, request: &request, results: (0..count).map(|_| None).collect() };
            run.texts(&text, items);
            run.results.into_iter().map(Option::unwrap).collect::<Vec<_>>()
        };
        let alone = run(vec![item(0, &[5, 6, 7])], 1).swap_remove(0).unwrap();
        let mut together = run(vec![item(0, &[5, 6, 7]), item(1, &[9, 999_999]), item(2, &[8])], 3);
        assert_eq!(
            together[1].as_ref().unwrap_err().to_string(),
            "token id 999999 is outside the token table of 500 rows"
        );
        assert!(together[2].is_ok());
        assert_eq!(together.swap_remove(0).unwrap(), alone);
    }

    #[test]
    fn a_row_that_is_not_finite_is_an_error_even_where_it_is_cut_off() {
        let cut = embedding(vec![1.0, 2.0, f32::NAN], Some(2));
        assert_eq!(cut, Err(EmbeddingError::NotFinite { index: 2 }));
        assert_eq!(embedding(vec![0.0, 0.0, 1.0], Some(2)), Err(EmbeddingError::ZeroLength));
        assert_eq!(embedding(vec![3.0, 4.0, 9.0], Some(2)).unwrap().as_slice(), [0.6, 0.8]);
    }

    #[test]
    fn a_record_without_towers_reads_text_and_names_what_it_does_not_read() {
        let (_folder, engine) = engine();
        assert_eq!(engine.profile().modalities, [Modality::Text]);
        let picture = RgbImage::new(omniburn_media::Width(8), omniburn_media::Height(8), vec![7; 192]).unwrap();
        let result = engine.embed_with(&[Input::image_pixels(picture)], &Request::default()).unwrap().swap_remove(0);
        assert_eq!(result.unwrap_err().to_string(), "image is not taken: the record has no picture tower");
        let empty = engine.embed_with(&[Input::text("")], &Request::new(Role::None)).unwrap().swap_remove(0);
        assert_eq!(empty.unwrap_err().kind().name(), "empty");
    }
}
