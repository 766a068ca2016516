//! What can go wrong, with the names of everything concerned.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use omniburn_media::MediaError;
use omniburn_models::record::{Dtype, Modality};
use omniburn_models::{IsaUnavailable, RecordError};
use omniburn_scheduler::{GaveUp, Priority, Refused};
use serde::{Deserialize, Serialize};

use crate::embedding::EmbeddingError;

/// The kinds of failure an item can have, as every surface names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)] // the names are the documentation: they are the words of the JSON surface
pub enum ErrorKind {
    NotFound,
    NotAFile,
    UnknownFormat,
    UnsupportedCodec,
    Corrupt,
    TooLarge,
    TooShort,
    TooLong,
    NotFinite,
    Empty,
    BadItem,
    ModalityAbsent,
    OverBudget,
    Cancelled,
    Overloaded,
    Panicked,
    Device,
}

impl ErrorKind {
    const NAMES: [(ErrorKind, &'static str); 17] = [
        (ErrorKind::NotFound, "not_found"),
        (ErrorKind::NotAFile, "not_a_file"),
        (ErrorKind::UnknownFormat, "unknown_format"),
        (ErrorKind::UnsupportedCodec, "unsupported_codec"),
        (ErrorKind::Corrupt, "corrupt"),
        (ErrorKind::TooLarge, "too_large"),
        (ErrorKind::TooShort, "too_short"),
        (ErrorKind::TooLong, "too_long"),
        (ErrorKind::NotFinite, "not_finite"),
        (ErrorKind::Empty, "empty"),
        (ErrorKind::BadItem, "bad_item"),
        (ErrorKind::ModalityAbsent, "modality_absent"),
        (ErrorKind::OverBudget, "over_budget"),
        (ErrorKind::Cancelled, "cancelled"),
        (ErrorKind::Overloaded, "overloaded"),
        (ErrorKind::Panicked, "panicked"),
        (ErrorKind::Device, "device"),
    ];

    /// The word every surface uses.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("bad_item", |(_, name)| name)
    }

    fn from_name(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, n)| *n == name).map_or(ErrorKind::BadItem, |(kind, _)| *kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why one input has no vector. The others are unaffected.
///
/// It can be copied: inputs that are the same fail the same way.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The text, image or frames could not be turned into rows.
    #[error(transparent)]
    Media(Arc<MediaError>),
    /// The model, or this build, does not take this kind of input.
    #[error("{modality} is not taken: {reason}")]
    ModalityAbsent {
        /// The kind of input.
        modality: Modality,
        /// What is missing.
        reason: String,
    },
    /// The input's own request names a task or dimension that the record does not have.
    #[error("{reason}")]
    Request {
        /// What was named, and what there is.
        reason: String,
    },
    /// The sequence would have no row.
    #[error("the {modality} gives a sequence without a token")]
    Empty {
        /// The kind of input.
        modality: Modality,
    },
    /// More rows than the model was made for.
    #[error("{tokens} rows enter the backbone, the model reads at most {limit}")]
    TooLong {
        /// Rows found.
        tokens: usize,
        /// Rows at most.
        limit: usize,
    },
    /// A token the table has no row for.
    #[error("token id {id} is outside the token table of {rows} rows")]
    TokenIdOutOfTable {
        /// The id.
        id: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// The item alone needs more memory than the budget allows.
    #[error("needs about {needed} bytes, the budget is {budget}; the smallest budget that would do is {needed}")]
    OverBudget {
        /// Bytes needed.
        needed: u64,
        /// The budget.
        budget: u64,
    },
    /// The model gave something that is not a finite vector of some length.
    #[error("the model's output is not a vector: {0}")]
    NotFinite(#[from] EmbeddingError),
    /// The caller gave up before this item was done.
    #[error("cancelled before this input was done")]
    Cancelled,
    /// The request's deadline passed before this item was done.
    #[error("the deadline passed before this input was done")]
    DeadlinePassed,
    /// As many callers of its class wait for the device as may ([`SchedulerPolicy::max_queue`](crate::SchedulerPolicy)); to
    /// be tried again later. A server answers with status 429.
    #[error("{limit} {} calls wait for the device already", priority.name())]
    Overloaded {
        /// The class.
        priority: Priority,
        /// Calls of the class that may wait.
        limit: usize,
    },
    /// A part of the record that this input needs was refused.
    #[error("the record was refused: {0}")]
    Record(#[source] Arc<RecordError>),
    /// The unit that computed this item panicked; the engine goes on.
    #[error("the computation panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The device failed while computing or reading back.
    #[error("the device failed: {message}")]
    Device {
        /// What the device said.
        message: String,
    },
}

impl From<MediaError> for ItemError {
    fn from(error: MediaError) -> Self {
        ItemError::Media(Arc::new(error))
    }
}

impl From<RecordError> for ItemError {
    fn from(error: RecordError) -> Self {
        ItemError::Record(Arc::new(error))
    }
}

impl From<GaveUp> for ItemError {
    fn from(why: GaveUp) -> Self {
        match why {
            GaveUp::Cancelled => ItemError::Cancelled,
            GaveUp::Deadline => ItemError::DeadlinePassed,
            GaveUp::Unanswered => ItemError::Device { message: why.to_string() },
        }
    }
}

impl From<Refused> for ItemError {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Full { priority, limit } => ItemError::Overloaded { priority, limit },
            Refused::GaveUp(why) => why.into(),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// A panic of a decoder as the error of its item.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, ItemError>) -> Result<T, ItemError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(ItemError::panicked(panic.as_ref())))
}

impl ItemError {
    /// A panic as the error of whatever it stopped.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        ItemError::Panicked { message: panic_message(panic) }
    }

    /// The kind, as every surface names it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ItemError::Media(e) => ErrorKind::from_name(e.kind()),
            ItemError::ModalityAbsent { .. } => ErrorKind::ModalityAbsent,
            ItemError::Empty { .. } => ErrorKind::Empty,
            ItemError::TooLong { .. } => ErrorKind::TooLong,
            ItemError::Request { .. } | ItemError::TokenIdOutOfTable { .. } => ErrorKind::BadItem,
            ItemError::OverBudget { .. } => ErrorKind::OverBudget,
            ItemError::NotFinite(_) => ErrorKind::NotFinite,
            ItemError::Cancelled | ItemError::DeadlinePassed => ErrorKind::Cancelled,
            ItemError::Overloaded { .. } => ErrorKind::Overloaded,
            ItemError::Record(_) => ErrorKind::Corrupt,
            ItemError::Panicked { .. } => ErrorKind::Panicked,
            ItemError::Device { .. } => ErrorKind::Device,
        }
    }
}

/// Why a call as a whole failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The record was refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record's tokenizer was refused.
    #[error("the record's tokenizer: {0}")]
    Tokenizer(#[source] MediaError),
    /// The record's tokenizer knows more tokens than the table has rows.
    #[error("the tokenizer's highest id is {highest}, the token table has {rows} rows")]
    TokenizerTable {
        /// Highest id.
        highest: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// The record holds no such task.
    #[error("no task `{asked}` in this record; it holds {}", held.join(", "))]
    UnknownTask {
        /// The task asked for.
        asked: String,
        /// The tasks held.
        held: Vec<String>,
    },
    /// The record allows no such dimension.
    #[error("dimension {asked} is not one of this record's: {}", allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))]
    UnknownDim {
        /// The dimension asked for.
        asked: usize,
        /// The dimensions allowed.
        allowed: Vec<usize>,
    },
    /// The model gives something else than what was asked for.
    #[error("`{model}` gives no {asked}: it gives {gives}")]
    OutputAbsent {
        /// Name of the checkpoint.
        model: String,
        /// What was asked for.
        asked: &'static str,
        /// What it gives, and how that is asked for.
        gives: &'static str,
    },
    /// The model gives no such output.
    #[error("no output `{asked}` of this model; it gives {}", gives.join(", "))]
    UnknownOutput {
        /// The output asked for.
        asked: &'static str,
        /// Those it gives.
        gives: &'static [&'static str],
    },
    /// Vectors of chunks were asked of a model whose vector is not the mean of a text's rows.
    #[error("no late chunks of this model: {reason}; cut the text before, and embed each chunk by itself")]
    NoLateChunks {
        /// Why its rows cannot be pooled chunk by chunk.
        reason: &'static str,
    },
    /// An instruction was given to a model that takes none.
    #[error("the family `{family}` takes no instruction")]
    NoInstruction {
        /// The family.
        family: &'static str,
    },
    /// No device of this name is known.
    #[error("unknown device `{asked}`: expected flex, wgpu, vulkan, metal, webgpu or cuda, with :N for the Nth")]
    UnknownDevice {
        /// What was asked for.
        asked: String,
    },
    /// The device is known but not compiled into this build.
    #[error("device `{asked}` is not in this build, which has {}; build with --features {asked}", compiled.join(", "))]
    BackendMissing {
        /// What was asked for.
        asked: String,
        /// What this build has.
        compiled: Vec<&'static str>,
    },
    /// The device could not be started.
    #[error("device `{asked}` could not be used: {reason}")]
    DeviceUnavailable {
        /// What was asked for.
        asked: String,
        /// Why.
        reason: String,
    },
    /// The device does not compute in this type.
    #[error("device `{device}` does not compute in {dtype}{}", match dtype {
        Dtype::Int8 => ", or not here: the CPU does, with a record stored in int8, affine8 or affine4",
        Dtype::Affine8 | Dtype::Affine4 => ": records in affine groups are for the CPU, a record in bf16 or f16 for this",
        _ => "",
    })]
    DtypeUnsupported {
        /// The device.
        device: String,
        /// The type.
        dtype: Dtype,
    },
    /// A record in affine groups is not computed in this type.
    #[error("a record in {stored} is computed in int8, its rows as whole numbers, or in f32, and not in {asked}")]
    AffineComputed {
        /// The type that was asked for.
        asked: Dtype,
        /// The record's.
        stored: Dtype,
    },
    /// One input of a call that answers for all of them failed.
    #[error("input {index}: {source}")]
    Item {
        /// Its place in the call.
        index: usize,
        /// Why.
        source: ItemError,
    },
    /// The result cache is larger than the memory budget.
    #[error("a result cache of {bytes} bytes does not fit: {source}")]
    Cache {
        /// Its size.
        bytes: u64,
        /// The budget's answer.
        source: ItemError,
    },
    /// The parts that read a kind of input do not fit into the memory budget.
    #[error("what reads {modality} cannot be opened: {source}")]
    WarmUp {
        /// The kind of input.
        modality: Modality,
        /// The budget's answer.
        source: ItemError,
    },
    /// The engine was given a choice of kernels for another processor.
    #[error("the choice of kernels is of another processor: {0}")]
    Instructions(#[source] IsaUnavailable),
    /// A worker thread could not be started.
    #[error("no thread for the device: {0}")]
    Thread(#[source] std::io::Error),
}
