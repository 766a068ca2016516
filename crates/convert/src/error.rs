//! Why a checkpoint was not converted. Every list is whole: all names, not the first.

use std::fmt;
use std::io;
use std::path::PathBuf;

use omniburn_models::record::{Dtype, Modality, TemplateKind};
use omniburn_models::{ConfigError, RecordError};

pub use omniburn_models::checkpoint::FieldFault;

/// A tensor of another shape than the configuration gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeFault {
    /// Name in the file.
    pub tensor: String,
    /// The shapes that would do: one, or two where axis orders differ between layouts.
    pub expected: Vec<Vec<usize>>,
    /// The shape found.
    pub found: Vec<usize>,
}

impl fmt::Display for ShapeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected: Vec<String> = self.expected.iter().map(|s| format!("{s:?}")).collect();
        write!(f, "{}: shape {:?}, expected {}", self.tensor, self.found, expected.join(" or "))
    }
}

/// A tensor whose elements are not f32, bf16 or f16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DtypeFault {
    /// Name in the file.
    pub tensor: String,
    /// Element type found.
    pub found: String,
}

impl fmt::Display for DtypeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: stored as {}, expected F32, BF16 or F16", self.tensor, self.found)
    }
}

/// Everything wrong with the names, shapes and types of a checkpoint's tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorFaults {
    /// Needed by the model and in no file.
    pub missing: Vec<String>,
    /// In a file, and neither taken nor known to be unused.
    pub unmapped: Vec<String>,
    /// Of another shape.
    pub mis_shaped: Vec<ShapeFault>,
    /// Of a type that is not a float of ours.
    pub wrong_dtype: Vec<DtypeFault>,
}

impl TensorFaults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unmapped.is_empty() && self.mis_shaped.is_empty() && self.wrong_dtype.is_empty()
    }
}

impl fmt::Display for TensorFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        if !self.missing.is_empty() {
            said.push(format!("missing tensors: {}", self.missing.join(", ")));
        }
        if !self.unmapped.is_empty() {
            said.push(format!("tensors that nothing takes: {}", self.unmapped.join(", ")));
        }
        if !self.mis_shaped.is_empty() {
            said.push(format!("mis-shaped tensors: {}", joined(&self.mis_shaped)));
        }
        if !self.wrong_dtype.is_empty() {
            said.push(format!("tensors of a wrong type: {}", joined(&self.wrong_dtype)));
        }
        f.write_str(&said.join("; "))
    }
}

/// A tensor that holds NaN or infinite values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFiniteFault {
    /// Name in the file.
    pub tensor: String,
    /// How many of its values.
    pub count: usize,
}

impl fmt::Display for NonFiniteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.tensor, self.count)
    }
}

/// An id that names no row of the token table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdFault {
    /// Where the id stands.
    pub name: String,
    /// The id.
    pub id: u64,
}

impl fmt::Display for IdFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.id)
    }
}

/// What an adapter was made for, behind a sentence that says what does not fit.
fn made_for(base: &Option<String>) -> String {
    base.as_ref().map(|base| format!("; the adapter was made for {base}")).unwrap_or_default()
}

pub(crate) fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a checkpoint was not converted. Whatever the reason, the destination is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// There is no such folder.
    #[error("{}: no such folder", path.display())]
    SourceMissing {
        /// The folder asked for.
        path: PathBuf,
    },
    /// Weights in a format that is not read.
    #[error("{}: not read: {}; {way}", path.display(), found.join(", "))]
    OtherWeights {
        /// The folder, or the file that was given for one.
        path: PathBuf,
        /// The files found, each with its format.
        found: Vec<String>,
        /// What would do.
        way: String,
    },
    /// Nothing tells whether a folder gives vectors or scores pairs of texts.
    #[error("{}: {found}: say --task embed for vectors, or --task rerank for scores of pairs", path.display())]
    TwoReadings {
        /// The checkpoint.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A reranker was asked for, and the family makes none.
    #[error("the family `{family}` scores no pairs here: --task embed makes vectors")]
    NoReranker {
        /// The family.
        family: &'static str,
    },
    /// The checkpoint does not hold this task.
    #[error("no task `{asked}` in this checkpoint; it holds {}", known.join(", "))]
    UnknownTask {
        /// The task asked for.
        asked: String,
        /// The tasks it holds.
        known: Vec<String>,
    },
    /// A task's name becomes part of a file name, and this one cannot.
    #[error("`{name}` cannot name a task: letters, digits, `-`, `_` and `.` can, the first a letter or digit")]
    TaskName {
        /// The name.
        name: String,
    },
    /// An adapter was given for more or fewer tasks than one.
    #[error("an adapter folder is for one task; it cannot go with the choice of {choice}")]
    AdapterChoice {
        /// What was chosen.
        choice: &'static str,
    },
    /// Two adapters were given for one task.
    #[error("two adapters for task `{task}`: name the tasks, as NAME=FOLDER")]
    AdapterTwice {
        /// The task.
        task: String,
    },
    /// An adapter of several tasks changes what all of them read.
    #[error(
        "{}: changes tensors that all tasks of a record share: {}; convert this task alone",
        adapter.display(), tensors.join(", ")
    )]
    AdapterShared {
        /// The adapter file.
        adapter: PathBuf,
        /// Canonical names of the tensors.
        tensors: Vec<String>,
    },
    /// An adapter changes a table that is also the output table of the model.
    #[error(
        "{}: changes {}, which is the output table too: whether that changes with it is stated by no file; \
         `merge_and_unload` of PEFT decides, and saves what is read here",
        adapter.display(), tensors.join(", ")
    )]
    AdapterTied {
        /// The adapter file.
        adapter: PathBuf,
        /// Canonical names of the tensors.
        tensors: Vec<String>,
    },
    /// A template was given for a medium the checkpoint has no tower for.
    #[error("a template was given for {modality}, but this checkpoint takes {}", joined(takes))]
    TemplateModality {
        /// The medium.
        modality: Modality,
        /// The media that have a template.
        takes: Vec<Modality>,
    },
    /// A template needs ids that the configuration does not name.
    #[error(
        "the template `{}` for {modality} needs {}, which config.json does not name; `bare` does without",
        template.name(), missing.join(" and ")
    )]
    TemplateIds {
        /// The medium.
        modality: Modality,
        /// The template.
        template: TemplateKind,
        /// The fields that are missing.
        missing: Vec<String>,
        /// Whether the caller asked for it, or it is the default.
        asked: bool,
    },
    /// A template was given and the family knows one only.
    #[error("the family `{family}` lays {modality} out as `{}` and no other way", template.name())]
    TemplateFixed {
        /// The family.
        family: &'static str,
        /// The medium.
        modality: Modality,
        /// The template it has.
        template: TemplateKind,
    },
    /// Files the checkpoint needs, or that one of its files names, are not there.
    #[error("missing files: {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    MissingFiles {
        /// All of them.
        paths: Vec<PathBuf>,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not well-formed JSON of the kind expected.
    #[error("{}: malformed: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A safetensors file contradicts itself or its own length.
    #[error("{}: corrupt: {}{reason}", path.display(), tensor.as_ref().map(|t| format!("{t}: ")).unwrap_or_default())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The tensor, where one is concerned.
        tensor: Option<String>,
        /// What was found and expected.
        reason: String,
    },
    /// The index of a sharded checkpoint and its shards do not agree.
    #[error(
        "{}: not in the shard the index names: [{}]; in a shard but not in the index: [{}]",
        path.display(), missing.join(", "), extra.join(", ")
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// Tensors, each with its shard, that the shard lacks.
        missing: Vec<String>,
        /// Tensors, each with its shard, that the index lacks or puts elsewhere.
        extra: Vec<String>,
    },
    /// Two tensors of a checkpoint mean the same.
    #[error("the same tensor twice: {}", names.join(", "))]
    Duplicates {
        /// Both names of each.
        names: Vec<String>,
    },
    /// Fields of a configuration that cannot be used.
    #[error("{}: {}", path.display(), joined(faults))]
    Fields {
        /// The file.
        path: PathBuf,
        /// All of them.
        faults: Vec<FieldFault>,
    },
    /// The configuration contradicts itself.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// Names, shapes and types do not fit the configuration.
    #[error("{}: {faults}", path.display())]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// All that is wrong.
        faults: TensorFaults,
    },
    /// NaN or infinite values in tensors.
    #[error("{}: NaN or infinite values in {}", path.display(), joined(faults))]
    NonFinite {
        /// The checkpoint.
        path: PathBuf,
        /// Every such tensor with the number of such values.
        faults: Vec<NonFiniteFault>,
    },
    /// Finite values that the record's type cannot hold.
    #[error("{tensor}: {count} values are beyond the range of {dtype}; convert to f32 or bf16")]
    BeyondRange {
        /// The tensor, as the record names it.
        tensor: String,
        /// The type asked for.
        dtype: Dtype,
        /// How many values.
        count: usize,
    },
    /// A type that tensors cannot be kept in.
    #[error("--keep {pattern}={dtype}: {why}")]
    Keep {
        /// The pattern.
        pattern: String,
        /// The type.
        dtype: Dtype,
        /// Why.
        why: String,
    },
    /// Ids beyond the rows of the token table.
    #[error("ids beyond the {rows} rows of the token table: {}", joined(ids))]
    TokenIdOutOfTable {
        /// All of them.
        ids: Vec<IdFault>,
        /// Rows of the table.
        rows: usize,
    },
    /// A task whose connectors are there and whose adapter is not.
    #[error("{}: no adapter for task `{task}`; give one, or choose `none` for the base weights", path.display())]
    AdapterMissing {
        /// The task.
        task: String,
        /// The folder it would be in.
        path: PathBuf,
    },
    /// Adapters lie beside weights that look merged already, so merging may add them twice.
    #[error(
        "{}: the weights are laid out as a merged checkpoint, yet adapters lie beside them: {}; choose `none` to take \
         the weights as they are, or give the one adapter folder to merge",
        path.display(), tasks.join(", ")
    )]
    AdaptersBesideMerged {
        /// The checkpoint.
        path: PathBuf,
        /// The adapters found.
        tasks: Vec<String>,
    },
    /// Adapter tensors without a weight they could change.
    #[error("{}: adapter tensors without a target: {}{}", adapter.display(), keys.join(", "), made_for(base))]
    LoraTargetMissing {
        /// The adapter file.
        adapter: PathBuf,
        /// All their names.
        keys: Vec<String>,
        /// The checkpoint that the adapter says it was made for.
        base: Option<String>,
    },
    /// Adapter tensors of modules that the adapter's configuration does not name.
    #[error("{}: adapter tensors of modules that target_modules does not name: {}", adapter.display(), keys.join(", "))]
    LoraNotTargeted {
        /// The adapter file.
        adapter: PathBuf,
        /// All their names.
        keys: Vec<String>,
    },
    /// Tensors that the adapter's configuration names and its file does not hold.
    #[error("{}: the adapter's configuration names tensors that it does not hold: {}", adapter.display(), missing.join(", "))]
    LoraFactorsMissing {
        /// The adapter file.
        adapter: PathBuf,
        /// What would change, each with the field that names it.
        missing: Vec<String>,
    },
    /// Adapter tensors whose other half is missing.
    #[error("{}: adapter tensors without their other half: {}", adapter.display(), keys.join(", "))]
    LoraOrphans {
        /// The adapter file.
        adapter: PathBuf,
        /// All their names.
        keys: Vec<String>,
    },
    /// Adapter tensors of another shape than rank and target give.
    #[error("{}: mis-shaped adapter tensors: {}{}", adapter.display(), joined(faults), made_for(base))]
    LoraShape {
        /// The adapter file.
        adapter: PathBuf,
        /// All of them.
        faults: Vec<ShapeFault>,
        /// The checkpoint that the adapter says it was made for.
        base: Option<String>,
    },
    /// Adapter tensors whose elements are not f32, bf16 or f16.
    #[error("{}: adapter tensors of a wrong type: {}", adapter.display(), joined(faults))]
    LoraDtype {
        /// The adapter file.
        adapter: PathBuf,
        /// All of them.
        faults: Vec<DtypeFault>,
    },
    /// The record would be written over what it is made from.
    #[error("{}: {how} {}, which is read: name another folder", out.display(), read.display())]
    Overlap {
        /// Where the record was to go.
        out: PathBuf,
        /// How the two lie to each other.
        how: &'static str,
        /// What is read.
        read: PathBuf,
    },
    /// The record could not be written, or did not read back as it was written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No thread could be started, mostly for want of memory.
    #[error("no thread could be started: {0}")]
    Thread(#[source] io::Error),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl ConvertError {
    /// Exit code of the command line: 2 for what the caller asked, 130 for a cancellation, 3 for what was refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            ConvertError::SourceMissing { .. }
            | ConvertError::UnknownTask { .. }
            | ConvertError::TaskName { .. }
            | ConvertError::AdapterChoice { .. }
            | ConvertError::TemplateModality { .. }
            | ConvertError::TemplateFixed { .. }
            | ConvertError::AdapterTwice { .. }
            | ConvertError::TwoReadings { .. }
            | ConvertError::NoReranker { .. }
            | ConvertError::TemplateIds { asked: true, .. }
            | ConvertError::Overlap { .. }
            | ConvertError::Record(
                RecordError::Exists { .. } | RecordError::NotReplaceable { .. } | RecordError::Output(_),
            ) => 2,
            ConvertError::Cancelled => 130,
            _ => 3,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| ConvertError::Io { path, source }
    }

    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| ConvertError::Json { path, source }
    }
}

impl From<omniburn_models::checkpoint::FileFaults> for ConvertError {
    fn from(found: omniburn_models::checkpoint::FileFaults) -> Self {
        ConvertError::Fields { path: found.path, faults: found.faults }
    }
}
