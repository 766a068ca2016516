//! One open record on one device: what every call shares, and what it asks of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use omniburn_models::blocks::Pooling;
use omniburn_models::family::TextRule;
use omniburn_models::family::{PairForm, RowOutputs, RowsWanted, TextModel};
use omniburn_models::items::InstructionPlace;
use omniburn_models::record::{Dtype, Modality, RecordFolder, RecordHeader};
use omniburn_models::{Isa, IsaUnavailable};
use omniburn_scheduler::Priority;

use super::parts::Parts;
use crate::backend::{BackendKind, BackendSpec, Capabilities};
use crate::cache::{Flights, ResultCache};
use crate::call::{Answer, CallBegun, CallEvent, InputDigest, OutputKind, Request};
use crate::error::{EngineError, ItemError};
use crate::memory::{Budget, Pool, Reservation};
use crate::options::EngineOptions;
use crate::prepare::{Estimator, ItemEstimate, Preparer};
use crate::worker::{Costs, Load, Metrics, Pace, Stage, Worker};

/// A record on a device with everything that its calls share.
#[derive(Debug)]
pub(crate) struct Session {
    pub parts: Arc<Parts>,
    pub preparer: Arc<Preparer>,
    pub estimator: Estimator,
    pub worker: Worker,
    pub metrics: Arc<Metrics>,
    costs: Arc<Costs>,
    pub time_slice: Duration,
    pub pool: Arc<Pool>,
    pub flights: Arc<Flights>,
    pub cache: Option<Arc<ResultCache>>,
    /// The task embedded for unless a request names another.
    pub task: String,
    /// Threads the CPU backend computes with; `None`: one a core.
    pub threads: Option<usize>,
    /// Observed calls so far.
    calls: AtomicU64,
    pub spec: BackendSpec,
    pub capabilities: Capabilities,
    /// The chosen instructions of a CPU.
    isa: Option<Isa>,
    /// Of the header, which is long: hashed once.
    content_digest: String,
    /// Held while parts are opened.
    opening: Mutex<()>,
}

/// What a caller wants of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Vectors,
    Scores,
}

impl Session {
    /// Opens a record. Its task is complete afterwards; towers load when first used.
    pub(crate) fn open(record: RecordFolder, options: EngineOptions) -> Result<Self, EngineError> {
        let record = Arc::new(record);
        let header = record.header();
        let task = options.task.unwrap_or_else(|| header.default_task.clone());
        check_task(header, &task)?;
        let chosen = options.kernels.map(|choice| choice.isa);
        if let Some(isa) = chosen.filter(|isa| !isa.is_available()) {
            return Err(EngineError::Instructions(IsaUnavailable(isa)));
        }
        let isa = Isa::resolved(chosen);
        let (device, capabilities) = options.device.device(options.tuning.as_deref(), isa)?;
        let compute = capabilities.choose(options.dtype, header.dtype, &options.device.to_string())?;
        let parts = Arc::new(Parts::open(Arc::clone(&record), device, compute, options.verify)?);
        let (costs, metrics) = (Arc::<Costs>::default(), Arc::<Metrics>::default());
        let pace = Pace {
            device: parts.device().clone(),
            eager: options.device.kind == BackendKind::Flex,
            costs: Arc::clone(&costs),
            metrics: Arc::clone(&metrics),
            time_slice: options.time_slice,
            isa: chosen,
        };
        let worker = Worker::start(options.threads, options.scheduler, pace).map_err(EngineError::Thread)?;
        // The weights on the device's thread and the tokenizer on this one: each takes about as long as the other.
        let opening = {
            let (parts, task) = (Arc::clone(&parts), task.clone());
            worker.begin(move || parts.text(&task).map(|_| ()))
        };
        let tokenizer = parts.tokenizer();
        let content_digest = record.header().content_digest();
        let opened = opening.wait();
        let tokenizer = tokenizer?;
        let rows = record.header().family.vocab();
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
        let budget = Budget::new(&record.header().family);
        let (modalities, ffmpeg) = (options.modalities, options.ffmpeg);
        let preparer = Arc::new(Preparer { record, tokenizer, modalities, ffmpeg });
        let session = Self {
            estimator: Estimator::new(Arc::clone(&preparer), Arc::clone(&pool), budget),
            preparer,
            pool,
            costs,
            time_slice: options.time_slice,
            flights: Arc::default(),
            cache: options.cache,
            parts,
            metrics,
            worker,
            task,
            threads: options.threads,
            calls: AtomicU64::default(),
            spec: options.device,
            capabilities,
            isa: chosen,
            content_digest,
            opening: Mutex::default(),
        };
        // What opening left behind goes back now: the budget counts from here, and nothing should hide in it.
        omniburn_models::trim_memory();
        Ok(session)
    }

    /// The record.
    pub(crate) fn record(&self) -> &RecordFolder {
        &self.preparer.record
    }

    /// Of the record.
    pub(crate) fn header(&self) -> &RecordHeader {
        self.record().header()
    }

    /// The type products are computed in.
    pub(crate) fn compute(&self) -> Dtype {
        self.parts.compute()
    }

    /// What a CPU computes with now; none elsewhere.
    pub(crate) fn instructions(&self) -> Option<Isa> {
        (self.spec.kind == BackendKind::Flex).then(|| Isa::resolved(self.isa))
    }

    /// The embedding identity for a task.
    pub(crate) fn identity(&self, task: &str) -> String {
        format!("omniburn/{}/{}/{task}", self.header().format, self.content_digest)
    }

    /// What results of a request are results of: the record, the task, and where, in what type and with which of a CPU's
    /// instructions they are computed.
    pub(crate) fn result_identity(&self, request: &Request) -> String {
        let (device, dtype) = (self.spec, self.compute());
        let instructions = self.instructions().map_or("", Isa::name);
        format!("{}/{device}/{dtype}/{instructions}", self.identity(self.task_of(request)))
    }

    /// Whether the record has what a request names, and gives what is wanted of it.
    pub(crate) fn check(&self, request: &Request, wanted: Wanted) -> Result<(), EngineError> {
        let header = self.header();
        let pairs = header.family.spec().outputs.pairs();
        let model = || header.name.clone();
        match (wanted, pairs) {
            (Wanted::Vectors, Some(_)) => {
                let gives = "scores of a query and a document, by `rerank`";
                return Err(EngineError::OutputAbsent { model: model(), asked: "vectors", gives });
            }
            (Wanted::Scores, None) => {
                let gives = "vectors, by `embed`";
                return Err(EngineError::OutputAbsent { model: model(), asked: "scores of pairs", gives });
            }
            (Wanted::Vectors, None) | (Wanted::Scores, Some(_)) => {}
        }
        let gives = header.family.spec().outputs.names();
        let asked = [
            (request.dense && wanted == Wanted::Vectors, OutputKind::Dense),
            (request.rows.sparse, OutputKind::Sparse),
            (request.rows.multi, OutputKind::Multi),
            (request.features, OutputKind::Features),
        ];
        for (wanted, kind) in asked {
            if wanted && !gives.contains(&kind.name()) {
                return Err(EngineError::UnknownOutput { asked: kind.name(), gives });
            }
        }
        if request.late_chunks.is_some()
            && let Some(reason) = chunked(header)
        {
            return Err(EngineError::NoLateChunks { reason });
        }
        let prompt = header.family.item_prompt();
        let asked = prompt.is_some_and(|prompt| prompt.instruction != InstructionPlace::Nowhere);
        let instructed = matches!(pairs, Some(PairForm::Prompt(_) | PairForm::List(_))) || asked;
        if request.instruction.is_some() && !instructed {
            return Err(EngineError::NoInstruction { family: header.family.name() });
        }
        check_task(header, request.task.as_deref().unwrap_or(&self.task))?;
        match request.dim {
            Some(asked) if !header.dims.contains(&asked) => {
                Err(EngineError::UnknownDim { asked, allowed: header.dims.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What a request wants of each row; of a model that gives nothing else, their vectors unless the pass ends before them.
    pub(crate) fn rows_of(&self, request: &Request) -> RowsWanted {
        let forms = self.header().family.spec().outputs.rows();
        let alone = forms.is_some_and(|forms| forms.alone && forms.multi.is_some());
        RowsWanted { multi: request.rows.multi || (alone && !self.stops_at_features(request)), ..request.rows }
    }

    /// Whether a request wants what media become; of a model that gives nothing else, in any case.
    pub(crate) fn features_of(&self, request: &Request) -> bool {
        let forms = self.header().family.spec().outputs.rows();
        request.features || forms.is_some_and(RowOutputs::only_features)
    }

    /// Whether towers and connectors do all that a request wants. Of a model that gives nothing else the pass ends there anyway.
    pub(crate) fn stops_at_features(&self, request: &Request) -> bool {
        let forms = self.header().family.spec().outputs.rows();
        request.only_features() && !forms.is_some_and(RowOutputs::only_features)
    }

    /// The dimension of a request's vectors; `None` is the full width.
    pub(crate) fn dim_of(&self, request: &Request) -> Option<usize> {
        request.dim.or(self.header().default_dim)
    }

    pub(crate) fn task_of<'a>(&'a self, request: &'a Request) -> &'a str {
        request.task.as_deref().unwrap_or(&self.task)
    }

    /// Numbers a call of an observed request, and says that it has begun.
    pub(crate) fn begin_call(&self, request: &mut Request) {
        let Some(mut observer) = request.observer.take() else { return };
        observer.call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (identity, device) = (self.identity(self.task_of(request)), self.spec.to_string());
        observer.tell(&CallEvent::Begun(CallBegun {
            call: observer.call,
            identity: &identity,
            device: &device,
            dtype: self.compute(),
            threads: self.threads,
            instructions: self.instructions(),
        }));
        request.observer = Some(observer);
    }

    pub(crate) fn text_part(&self, request: &Request) -> Result<Arc<dyn TextModel>, ItemError> {
        let task = self.task_of(request);
        if let Some(text) = self.parts.opened_text(task) {
            return Ok(text);
        }
        let (parts, task) = (Arc::clone(&self.parts), task.to_string());
        Ok(self.worker.unit(request, move || parts.text(&task))??)
    }

    /// The kept result of an input, where there is a cache and it has one.
    pub(crate) fn cached(&self, key: &InputDigest) -> Option<Answer> {
        self.cache.as_ref()?.find(key)
    }

    /// What a step of so many layers should take; `None` while none of its kind has run.
    pub(crate) fn expected(&self, stage: Stage, load: Load, layers: usize) -> Option<Duration> {
        self.costs.expect_of(stage, load, layers)
    }

    /// Memory for an item, with everything open that reads it. `None` where there is none free and the caller must not
    /// `wait`, because it holds some.
    pub(crate) fn make_room(
        &self,
        modalities: &[Modality],
        estimate: &ItemEstimate,
        request: &Request,
        wait: bool,
    ) -> Result<Option<Reservation>, ItemError> {
        let (pool, bytes) = (&self.pool, estimate.bytes());
        for modality in modalities {
            if !self.parts.is_open(*modality, self.task_of(request)) {
                if !wait {
                    return Ok(None);
                }
                self.open_parts(*modality, bytes, request)?;
            }
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
    fn open_parts(&self, modality: Modality, bytes: u64, request: &Request) -> Result<(), ItemError> {
        let (parts, pool, task) = (&self.parts, &self.pool, self.task_of(request).to_string());
        // One at a time, or two callers would pay for one tower twice.
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.is_open(modality, &task) {
            return Ok(());
        }
        let copies = parts.copies(modality, &task);
        if let Some(refusal) = pool.refusal(copies + bytes) {
            return Err(refusal);
        }
        let reserved = pool.reserve(request.resolved_priority(), copies, request.cancel.as_ref(), request.deadline)?;
        let parts = Arc::clone(parts);
        self.worker.unit(request, move || parts.open_for(modality, &task))??;
        reserved.keep();
        Ok(())
    }

    /// Opens every part that may be.
    pub(crate) fn open_all(&self) -> Result<(), EngineError> {
        let request = Request::default();
        for modality in self.modalities() {
            self.open_parts(modality, 0, &request).map_err(|source| match source {
                ItemError::OverBudget { .. } => EngineError::WarmUp { modality, source },
                source => EngineError::Item { index: 0, source },
            })?;
        }
        Ok(())
    }

    /// The modalities that are taken and allowed.
    pub(crate) fn modalities(&self) -> impl Iterator<Item = Modality> {
        Modality::ALL.into_iter().filter(|modality| self.preparer.refusal(*modality).is_none())
    }
}

fn check_task(header: &RecordHeader, task: &str) -> Result<(), EngineError> {
    if header.tasks.iter().any(|t| t == task) {
        Ok(())
    } else {
        Err(EngineError::UnknownTask { asked: task.into(), held: header.tasks.clone() })
    }
}

/// Why a model's rows cannot be pooled chunk by chunk; `None` where they can.
fn chunked(header: &RecordHeader) -> Option<&'static str> {
    let Some(head) = header.family.config().vector_head() else {
        return Some("its family makes the vector of a text itself");
    };
    match head.pooling {
        Pooling::Mean if !head.more_poolings.is_empty() => Some("several poolings lie side by side in its vector"),
        Pooling::Mean if head.skips_prompt => Some("its pooling leaves out the rows of a prompt"),
        Pooling::Mean if header.family.item_prompt().is_some() => Some("a text stands in a prompt with its parts"),
        Pooling::Mean if header.family.text_rule() != TextRule::AsTheyAre => {
            Some("its texts are padded or cut at an end token")
        }
        Pooling::Mean => None,
        Pooling::LastToken => Some("its vector is the row of the last token, which a text has once"),
        Pooling::Cls => Some("its vector is the row of the first token, which a text has once"),
        Pooling::Max | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
            Some("its vector is no plain mean of the rows, and was not trained on parts of a text")
        }
    }
}
