//! What can be wrong with a configuration or a record, with the names of everything concerned.

use std::io;
use std::path::PathBuf;

use omniburn_output::OutputError;

/// A configuration that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size must not be zero.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: String,
    },
    /// One number must divide another.
    #[error("{field} = {value} is not a multiple of {of} = {divisor}")]
    NotMultiple {
        /// The field that should be a multiple.
        field: String,
        /// Its value.
        value: usize,
        /// The field that should divide it.
        of: String,
        /// Its value.
        divisor: usize,
    },
    /// A value out of its range.
    #[error("{field} = {found}, expected {expected}")]
    OutOfRange {
        /// The field.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
}

/// Why a record folder was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no header: not a record folder.
    #[error("{}: not a record folder: it holds no {}", path.display(), crate::record::HEADER_FILE)]
    NotARecord {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The header is not what this build understands.
    #[error("{}: the header is malformed: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Written in a format this build does not read.
    #[error("{}: record format {found}, this build reads format {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The number found.
        found: u64,
        /// The number expected.
        expected: u32,
    },
    /// The header was altered after it was written.
    #[error("{}: the header's digest is {found}, its content gives {expected}", path.display())]
    HeaderDigest {
        /// The file.
        path: PathBuf,
        /// Digest written in the header.
        found: String,
        /// Digest of the content.
        expected: String,
    },
    /// The configuration contradicts itself.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A field of the header contradicts another.
    #[error("{}: {field}: found {found}, expected {expected}", path.display())]
    Field {
        /// The header file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file listed by the header is missing.
    #[error("{}: the record lists this file, but it is not there", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file has another length than the header says.
    #[error("{}: {found} bytes, the header says {expected}", path.display())]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Length found.
        found: u64,
        /// Length expected.
        expected: u64,
    },
    /// A tensor file could not be parsed.
    #[error("{}: not a readable tensor file: {reason}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// A tensor file could not be written.
    #[error("{}: could not be written: {reason}", path.display())]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// The writer's reason, or why a tensor could not be made.
        reason: String,
    },
    /// Tensors the model needs and the file lacks.
    #[error("{}: missing tensors: {}", path.display(), names.join(", "))]
    MissingTensors {
        /// The file.
        path: PathBuf,
        /// All their names.
        names: Vec<String>,
    },
    /// Tensors in the file that nothing takes.
    #[error("{}: unused tensors: {}", path.display(), names.join(", "))]
    UnusedTensors {
        /// The file.
        path: PathBuf,
        /// All their names.
        names: Vec<String>,
    },
    /// A tensor of another shape.
    #[error("{}: {tensor}: shape {found:?}, expected {expected:?}", path.display())]
    ShapeMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape found.
        found: Vec<usize>,
        /// Shape expected.
        expected: Vec<usize>,
    },
    /// A tensor of another element type.
    #[error("{}: {tensor}: stored as {found}, the header says {expected}", path.display())]
    DtypeMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Type found.
        found: String,
        /// Type expected.
        expected: String,
    },
    /// A matrix in a packed layout that this build does not read.
    #[error("{}: {tensor}: packed as {found}, expected {expected}; convert the checkpoint again", path.display())]
    PackedLayout {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Id of the layout.
        found: String,
        /// What would do.
        expected: String,
    },
    /// Bytes that do not give the digest written beside them.
    #[error("{}: {tensor}: SHA-256 is {found}, the header says {expected}", path.display())]
    DigestMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor, or the file itself.
        tensor: String,
        /// Digest found.
        found: String,
        /// Digest expected.
        expected: String,
    },
    /// The record does not hold this task.
    #[error("no task `{asked}` in this record; it holds {}", held.join(", "))]
    UnknownTask {
        /// The task asked for.
        asked: String,
        /// The tasks held.
        held: Vec<String>,
    },
    /// The place to write to is taken.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// The place to write to is taken by something that is not a record, which is never replaced.
    #[error("{}: exists and is not a record folder and nothing else, so it is not replaced: {why}", path.display())]
    NotReplaceable {
        /// The place.
        path: PathBuf,
        /// What shows it.
        why: String,
    },
    /// Nothing can be written there, whatever it is.
    #[error(transparent)]
    Output(OutputError),
}

impl From<OutputError> for RecordError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Exists { path } => RecordError::Exists { path },
            OutputError::Io { path, source } => RecordError::Io { path, source },
            error => RecordError::Output(error),
        }
    }
}

impl RecordError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| RecordError::Io { path, source }
    }
}
