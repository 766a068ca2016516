//! The engine: one concrete struct, cheap to clone, shared between threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use omniburn_media::TextToken;
use omniburn_models::family::PairForm;
use omniburn_models::record::{Dtype, Modality, RecordFolder, RecordHeader};
use omniburn_models::{Isa, KernelChoice};
use omniburn_scheduler::SchedulerPolicy;

use crate::backend::{BackendSpec, Capabilities};
use crate::cache::ResultCache;
use crate::call::{Asked, Embedded, Input, Ranked, Request, Role};
use crate::device::DeviceProbe;
use crate::embedding::Embedding;
use crate::error::{EngineError, ItemError};
use crate::options::EngineOptions;
use crate::prepare::Work;
use crate::session::{EmbedIter, Session, Wanted, WarmPass, list_scores, results, scores, warm_up};
use crate::worker::MetricsSnapshot;

/// A record on a device, ready to embed. `Clone + Send + Sync`; every method takes `&self` and blocks.
#[derive(Clone)]
pub struct Engine {
    session: Arc<Session>,
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
    /// What comes out, by the names that people type: `dense`, `sparse` and `multi` ([`OutputKind`](crate::OutputKind)), or
    /// the `score` of a query and a document.
    pub outputs: &'static [&'static str],
    /// What goes in.
    pub modalities: Vec<Modality>,
    /// Rows of a sequence at most.
    pub max_tokens: usize,
    /// Where it computes.
    pub device: String,
    /// The type it computes products in.
    pub dtype: Dtype,
    /// Threads the CPU backend computes with; `None` where it is one a core.
    pub threads: Option<usize>,
    /// The processor's instructions it computes with; none on a device that is no CPU.
    pub instructions: Option<Isa>,
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

    /// Results to keep for inputs that come again; none by default. Files are then distinguished by their content.
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

    /// The processor's instructions that the CPU backend computes with, chosen by measurement ([`KernelChoice::measure`], or one
    /// that was kept); by default what the processor's flags say ([`Isa::by_flags`]). It counts for this engine alone: each
    /// of two engines of a process keeps its own, and results kept for both ([`EngineBuilder::cache`]) do not mix. What
    /// [`Isa::force`] says wins over it. Vectors have the bits of the same instructions when they are forced.
    #[must_use]
    pub fn kernels(mut self, choice: KernelChoice) -> Self {
        self.options.kernels = Some(choice);
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
        Ok(Engine { session: Arc::new(Session::open(record, self.options)?) })
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
    /// [`EngineError::UnknownTask`], [`EngineError::UnknownDim`], [`EngineError::NoInstruction`], or
    /// [`EngineError::OutputAbsent`] of a reranker; nothing is computed then.
    pub fn embed_with(
        &self,
        inputs: &[Input],
        request: &Request,
    ) -> Result<Vec<Result<Embedded, ItemError>>, EngineError> {
        self.session.check(request, Wanted::Vectors)?;
        Ok(results(&self.session, inputs.iter().cloned(), request.clone()))
    }

    /// As [`Engine::embed_with`], each input with its own request; those whose requests are equal are computed
    /// together. For progress or events of such a call there is [`Engine::embed_iter`].
    ///
    /// # Errors
    /// [`ItemError::Request`] at an input whose request names a task or dimension that the record does not have.
    pub fn embed_each(&self, inputs: &[(Input, Request)]) -> Vec<Result<Embedded, ItemError>> {
        results(&self.session, inputs.iter().cloned(), Request::default())
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
        self.session.check(&request, Wanted::Vectors)?;
        Ok(EmbedIter::new(Arc::clone(&self.session), inputs.into_iter(), request))
    }

    /// Documents by how well they meet a query, the best first; documents with equal logits keep their order.
    ///
    /// Query and documents are what a model's pairs are made of, texts mostly; a text may be given as it is.
    ///
    /// # Errors
    /// [`EngineError::OutputAbsent`] of a model that gives vectors; [`EngineError::Item`] for the first document that failed:
    /// [`Engine::rerank_with`] gives each its own result.
    pub fn rerank<D: Into<Input> + Clone>(
        &self,
        query: impl Into<Input>,
        documents: &[D],
    ) -> Result<Vec<Ranked>, EngineError> {
        let results = self.rerank_with(query, documents, &Request::new(Role::Query))?;
        let each = results.into_iter().enumerate();
        let ranked = each.map(|(index, result)| result.map_err(|source| EngineError::Item { index, source }));
        let mut ranked = ranked.collect::<Result<Vec<_>, _>>()?;
        Ranked::sort(&mut ranked);
        Ok(ranked)
    }

    /// One result a document, in the order they were given; a failed document leaves the others as they would be without
    /// it. [`Ranked::sort`] puts the best first. A model that reads documents beside each other gives a document other scores among
    /// others.
    ///
    /// The request's truncation says what happens to a pair longer than the model reads: `Right` cuts ends, of the longer
    /// text first; what was cut stands in the result. Its role, dimension and frames are of no effect.
    ///
    /// # Errors
    /// [`EngineError::OutputAbsent`] of a model that gives vectors, [`EngineError::NoInstruction`],
    /// [`EngineError::UnknownTask`]; nothing is computed then.
    pub fn rerank_with<D: Into<Input> + Clone>(
        &self,
        query: impl Into<Input>,
        documents: &[D],
        request: &Request,
    ) -> Result<Vec<Result<Ranked, ItemError>>, EngineError> {
        self.session.check(request, Wanted::Scores)?;
        let query = query.into();
        if let Some(PairForm::List(prompt)) = self.header().family.spec().outputs.pairs() {
            let documents: Vec<Input> = documents.iter().map(|document| document.clone().into()).collect();
            let results = list_scores(&self.session, prompt, &query, &documents, request).into_iter().enumerate();
            return Ok(results.map(|(index, result)| result.map(|scored| scored.ranked(index))).collect());
        }
        let pairs = documents.iter().map(|document| Input::pair(query.clone(), document.clone().into()));
        let results = scores(&self.session, pairs, request.clone()).into_iter().enumerate();
        Ok(results.map(|(index, result)| result.map(|scored| scored.ranked(index))).collect())
    }

    /// Opens whatever is not open yet, so that no later call pays for it. On flex that is all; elsewhere every number of rows
    /// that a pass is brought to is computed once for each kind of input, so that later calls of these sizes find kernels
    /// compiled and tuned; a layout of several inputs that none of these passes had may still tune. That takes minutes where
    /// nothing of it was kept ([`EngineBuilder::tuning`]).
    ///
    /// # Errors
    /// [`EngineError`] if a part is refused, if its copied weights do not fit into the budget, or if the device fails.
    pub fn warm_up(&self) -> Result<(), EngineError> {
        self.warm_up_to(usize::MAX, |_| {})
    }

    /// As [`Engine::warm_up`], with passes of `most` rows at most, though one for each kind of input at least; each is reported
    /// before it begins.
    ///
    /// # Errors
    /// As [`Engine::warm_up`].
    pub fn warm_up_to(&self, most: usize, tell: impl FnMut(WarmPass)) -> Result<(), EngineError> {
        warm_up(&self.session, most, tell)
    }

    /// What this engine is.
    pub fn profile(&self) -> Profile {
        let (session, header) = (&self.session, self.header());
        let has = |m: &Modality| match m {
            Modality::Text => header.family.takes(*m),
            medium => session.preparer.refusal(*medium).is_none(),
        };
        Profile {
            name: header.name.clone(),
            identity: session.identity(&session.task),
            task: session.task.clone(),
            tasks: header.tasks.clone(),
            dims: header.dims.clone(),
            default_dim: header.default_dim.unwrap_or_else(|| header.family.vector()),
            outputs: header.family.spec().outputs.names(),
            modalities: Modality::ALL.into_iter().filter(has).collect(),
            max_tokens: header.family.max_tokens(),
            device: session.spec.to_string(),
            dtype: session.compute(),
            threads: session.threads,
            instructions: session.instructions(),
        }
    }

    /// The embedding identity for a task: what an index of its vectors must keep beside them. That of the engine's own
    /// task stands in its [`Profile`].
    pub fn identity(&self, task: &str) -> String {
        self.session.identity(task)
    }

    /// The record.
    pub fn record(&self) -> &RecordFolder {
        self.session.record()
    }

    /// The record's header.
    pub fn header(&self) -> &RecordHeader {
        self.session.header()
    }

    /// What the device computes in.
    pub fn capabilities(&self) -> &Capabilities {
        &self.session.capabilities
    }

    /// Waits, time slices and compute times so far, by class.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.session.metrics.snapshot()
    }

    /// Forgets the waits and slices counted so far, such as those of opening parts, so that a measurement begins at zero.
    pub fn reset_metrics(&self) {
        self.session.metrics.reset();
    }

    /// Bytes of the memory budget: kept for good beside the opened engine, and spoken for at this moment.
    pub fn memory_in_use(&self) -> (u64, u64) {
        self.session.pool.in_use()
    }

    /// What an input would cost, without computing anything: it is read and decoded, outside the memory budget.
    ///
    /// # Errors
    /// [`ItemError`] as embedding it would give before the device is asked.
    pub fn work(&self, input: &Input, request: &Request) -> Result<Work, ItemError> {
        self.session.preparer.work(input, request)
    }

    /// Tokens that a text has for this model, with the request's prefix and what stands around every text, whatever its
    /// length: what a text is cut by before it is embedded.
    ///
    /// # Errors
    /// [`ItemError::Media`] where the tokenizer refuses the text.
    pub fn count_tokens(&self, text: &str, request: &Request) -> Result<usize, ItemError> {
        self.session.preparer.count_tokens(text, request)
    }

    /// The tokens of a text as the tokenizer of the record gives them, behind the prefix of the request's role and, where
    /// `specials` is set, between its special tokens: `[tokens]`, with the characters of prefix and text that each stands for.
    /// What a model lays in beside them, such as markers of late interaction, is not among them, and nothing is cut.
    ///
    /// # Errors
    /// [`ItemError::Media`] where the tokenizer refuses the text; [`ItemError::OverBudget`] for one that is too long for the
    /// memory budget; [`ItemError::Cancelled`], [`ItemError::DeadlinePassed`].
    pub fn tokens(&self, text: &str, request: &Request, specials: bool) -> Result<Vec<TextToken>, ItemError> {
        let session = &self.session;
        let (bytes, priority) = (session.preparer.tokens_bytes(text), request.resolved_priority());
        let _reserved = session.pool.reserve(priority, bytes, request.cancel.as_ref(), request.deadline)?;
        session.preparer.tokens(text, request, specials)
    }

    /// The prefix that a text gets under a request; often empty.
    pub fn prefix(&self, request: &Request) -> &str {
        self.session.preparer.prefix(request.role)
    }

    /// Runs work of a tool's own on the device's thread and in its compute threads, when its turn comes, as one time slice of
    /// the request's class: everything else waits for its end.
    ///
    /// # Errors
    /// [`ItemError::Cancelled`], [`ItemError::DeadlinePassed`] or [`ItemError::Overloaded`] where it has not run;
    /// [`ItemError::Panicked`] where it panicked.
    pub fn on_device<T: Send + 'static>(
        &self,
        request: &Request,
        work: impl FnOnce(&DeviceProbe) -> T + Send + 'static,
    ) -> Result<T, ItemError> {
        let probe = DeviceProbe::new(self.session.worker.device().clone());
        self.session.worker.unit(request, move || work(&probe))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("record", &self.record().path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use omniburn_media::{Height, RgbImage, Width};
    use omniburn_scheduler::{Cancel, Priority};

    use super::*;
    use crate::call::CallEvent;
    use crate::tests::record;
    use crate::worker::{Stage, TextSet};

    fn engine() -> (tempfile::TempDir, Engine) {
        let (folder, path) = record();
        (folder, Engine::open(path).unwrap())
    }

    #[test]
    fn a_unit_that_panics_becomes_a_typed_error_and_frees_the_device() {
        let (_folder, engine) = engine();
        let want = engine.embed_one(Input::text("a"), Role::Query).unwrap();
        let failed: Result<(), ItemError> =
            engine.session.worker.unit(&Request::default(), || panic!("shapes disagree"));
        let error = failed.unwrap_err();
        assert_eq!(error.kind().name(), "panicked");
        assert!(error.to_string().contains("shapes disagree"));
        assert_eq!(engine.session.worker.waiting(), (0, 0));
        assert_eq!(engine.embed_one(Input::text("a"), Role::Query).unwrap(), want);
    }

    /// Has the device busy until the result is dropped.
    fn occupied<'scope>(scope: &'scope std::thread::Scope<'scope, '_>, engine: &'scope Engine) -> Sender<()> {
        let (busy, until) = channel();
        let (begun, begins) = channel();
        scope.spawn(move || {
            let work = move || {
                begun.send(()).unwrap();
                // Ended by the other end's drop.
                let _ = until.recv();
            };
            engine.session.worker.unit(&Request::new(Role::Query), work).unwrap();
        });
        begins.recv().unwrap();
        busy
    }

    /// Texts of one call each, all waiting for the device at once.
    fn at_once(engine: &Engine, requests: Vec<(Input, Request)>) -> Vec<Result<Embedded, ItemError>> {
        std::thread::scope(|scope| {
            let busy = occupied(scope, engine);
            let count = requests.len();
            let callers: Vec<_> = requests
                .into_iter()
                .map(|(input, request)| scope.spawn(move || engine.embed_with(&[input], &request).unwrap().remove(0)))
                .collect();
            while engine.session.worker.waiting().0 + engine.session.worker.waiting().1 < count {
                std::thread::yield_now();
            }
            drop(busy);
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        })
    }

    #[test]
    fn texts_of_sixteen_callers_of_both_roles_are_one_pass_a_class_and_keep_their_bits() {
        let (_folder, engine) = engine();
        let asked = |n: usize| {
            let role = [Role::Query, Role::Document, Role::None][n % 3];
            let priority = if n.is_multiple_of(2) { Priority::Interactive } else { Priority::Background };
            (Input::text(format!("text {n} {}", "word ".repeat(n % 5))), Request::new(role).priority(priority))
        };
        let want: Vec<Embedded> =
            (0..16).map(asked).map(|(i, r)| engine.embed_with(&[i], &r).unwrap().remove(0).unwrap()).collect();
        engine.reset_metrics();
        let got = at_once(&engine, (0..16).map(asked).collect());
        let metrics = engine.metrics();
        // One of the interactive units had the device busy.
        assert_eq!((metrics.interactive.computes.count, metrics.background.computes.count), (2, 1));
        for (got, want) in got.into_iter().zip(want) {
            let got = got.unwrap();
            assert_eq!(got, want);
            assert!(got.timings.queue > Duration::ZERO && got.timings.compute > Duration::ZERO);
            assert!(got.timings.tokenise > Duration::ZERO);
        }
        assert_eq!(engine.memory_in_use(), (0, 0));
    }

    #[test]
    fn a_call_that_is_full_is_refused_at_once_and_the_others_are_served() {
        let (folder, _) = engine();
        let policy = SchedulerPolicy { max_queue: 2, ..SchedulerPolicy::default() };
        let engine = Engine::builder(folder.path().join("record")).scheduler(policy).open().unwrap();
        let text = |n: usize| Input::text(format!("text {n}"));
        std::thread::scope(|scope| {
            let busy = occupied(scope, &engine);
            let callers: Vec<_> = (0..2)
                .map(|n| {
                    scope.spawn({
                        let engine = &engine;
                        move || engine.embed_one(text(n), Role::Query)
                    })
                })
                .collect();
            while engine.session.worker.waiting().0 < 2 {
                std::thread::yield_now();
            }
            let refused = engine.embed_with(&[text(7), text(8)], &Request::new(Role::Query)).unwrap();
            for error in refused.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind().name(), "overloaded");
                assert_eq!(error.to_string(), "2 interactive calls wait for the device already");
            }
            drop(busy);
            callers.into_iter().for_each(|caller| assert!(caller.join().unwrap().is_ok()));
        });
        assert!(engine.embed_one(text(7), Role::Query).is_ok());
        assert_eq!(engine.memory_in_use(), (0, 0));
    }

    #[test]
    fn a_caller_that_leaves_while_it_waits_is_not_computed() {
        let (_folder, engine) = engine();
        let cancel = Cancel::new();
        let request = Request::new(Role::Query).cancel(cancel.clone());
        std::thread::scope(|scope| {
            let busy = occupied(scope, &engine);
            let caller = scope.spawn(|| engine.embed_with(&[Input::text("a")], &request).unwrap().remove(0));
            while engine.session.worker.waiting().0 < 1 {
                std::thread::yield_now();
            }
            cancel.cancel();
            assert!(matches!(caller.join().unwrap(), Err(ItemError::Cancelled)));
            assert_eq!(engine.memory_in_use(), (0, 0));
            drop(busy);
        });
        // That which had the device busy, and no other.
        assert_eq!(engine.metrics().interactive.computes.count, 1);
    }

    #[test]
    fn one_culprit_among_callers_fails_alone_and_each_call_notes_what_was_its_own() {
        let (_folder, engine) = engine();
        let text = engine.session.text_part(&Request::default()).unwrap();
        let alone = engine.embed_one(Input::text("fine"), Role::Query).unwrap();
        let units = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&units);
        let request = Request::new(Role::Query).on_event(move |event| {
            if let CallEvent::Unit(unit) = event {
                seen.lock().unwrap().push((unit.items.to_vec(), unit.rows, unit.error.is_some()));
            }
        });
        std::thread::scope(|scope| {
            let busy = occupied(scope, &engine);
            let fine = scope.spawn(|| engine.embed_with(&[Input::text("fine")], &request).unwrap().remove(0));
            let bad = scope.spawn(|| {
                let reserved = Arc::new(engine.session.pool.try_reserve(Priority::Interactive, 1).unwrap());
                let sequences = vec![vec![999_999].into()];
                let (wanted, stage) = (Default::default(), Stage::TextLayer);
                let set = TextSet { text, sequences, wanted, stage, reserved: vec![reserved] };
                engine.session.worker.texts(&Request::new(Role::Query), set, true)
            });
            while engine.session.worker.waiting().0 < 2 {
                std::thread::yield_now();
            }
            drop(busy);
            assert_eq!(fine.join().unwrap().unwrap().embedding, alone);
            let bad = bad.join().unwrap();
            assert!(bad.shared && matches!(bad.rows, Err(ItemError::TokenIdOutOfTable { id: 999_999, .. })));
        });
        let units = units.lock().unwrap();
        let (own, rows) = (vec![Input::text("fine").digest().unwrap()], units[0].1);
        assert_eq!(*units, [(own.clone(), rows, true), (own, rows, false)]);
    }

    #[test]
    fn callers_of_one_input_at_one_time_compute_it_once() {
        let (_folder, engine) = engine();
        let computed = |engine: &Engine| engine.metrics().background.computes.count;
        let before = computed(&engine);
        std::thread::scope(|scope| {
            let busy = occupied(scope, &engine);
            let call = || engine.embed_one(Input::text("the same"), Role::Document).unwrap();
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
            while engine.session.flights.followers() < 7 {
                std::thread::yield_now();
            }
            drop(busy);
            let vectors: Vec<Embedding> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
            assert!(vectors.windows(2).all(|two| two[0] == two[1]));
        });
        assert_eq!(computed(&engine) - before, 1);
        assert_eq!(engine.memory_in_use(), (0, 0));
    }

    #[test]
    fn a_record_without_towers_reads_text_and_names_what_it_does_not_read() {
        let (_folder, engine) = engine();
        assert_eq!(engine.profile().modalities, [Modality::Text]);
        let image = RgbImage::new(Width(8), Height(8), vec![7; 192]).unwrap();
        let result = engine.embed_with(&[Input::image_pixels(image)], &Request::default()).unwrap().swap_remove(0);
        assert_eq!(result.unwrap_err().to_string(), "image is not taken: the record has no image tower");
        let empty = engine.embed_with(&[Input::text("")], &Request::new(Role::None)).unwrap().swap_remove(0);
        assert_eq!(empty.unwrap_err().kind().name(), "empty");
    }

    #[test]
    #[cfg(feature = "mini")]
    fn work_is_what_embedding_reports_and_grows_with_the_input() {
        let engine = Engine::mini().unwrap();
        let request = Request::new(Role::None);
        let image = || RgbImage::new(Width(20), Height(10), vec![7; 600]).unwrap();
        let inputs = [
            Input::text("a red bicycle"),
            Input::text("a red bicycle and a blue one beside it"),
            Input::image_pixels(image()),
            Input::video_frames(vec![image(), image(), image()]),
            Input::audio_samples(vec![0.1f32; 16_000], 16_000),
            Input::audio_samples(vec![0.1f32; 8 * 16_000], 16_000),
        ];
        let work: Vec<Work> = inputs.iter().map(|input| engine.work(input, &request).unwrap()).collect();
        for (found, work) in engine.embed_with(&inputs, &request).unwrap().into_iter().zip(&work) {
            assert_eq!(found.unwrap().tokens, work.tokens);
        }
        println!("{work:?}");
        assert!(
            work[1].flops > work[0].flops && work[3].flops > 2 * work[2].flops && work[5].flops > 3 * work[4].flops
        );
        assert!(engine.work(&Input::text("word ".repeat(400)), &request).is_err());
    }
}
