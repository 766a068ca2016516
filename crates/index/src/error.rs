//! What can go wrong with an index as a whole, and with one file of it.

use std::path::PathBuf;

/// Why an index could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There is no index at this place.
    #[error("{}: no index is there", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The file is a SQLite database of another program.
    #[error("{}: a SQLite file of another program (application id {found:#010x}), not an index", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: i64,
    },
    /// A release with another layout wrote the index.
    #[error("{}: layout {found} of an index, this release reads {expected}: `omniburn index` into another --index makes a new one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The layout that is read.
        expected: i64,
    },
    /// The database, or what lies in it, is damaged.
    #[error("{}: the index is damaged: {what}; delete it and index again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The database was deleted, or another one put in its place, while it was open.
    #[error("{}: the index was deleted or replaced while it was open; index again", path.display())]
    Gone {
        /// The folder.
        path: PathBuf,
    },
    /// What is imported is no export, or is damaged.
    #[error("line {line} of the export: {what}")]
    Import {
        /// The line, from 1.
        line: u64,
        /// What was found and what was expected.
        what: String,
    },
    /// A Parquet file that is imported is no export, or is damaged.
    #[error("the Parquet export: {what}")]
    ImportTable {
        /// The row, from 1, where it is one of a row; what was found and what was expected.
        what: String,
    },
    /// An index is there, and an import makes a new one.
    #[error("{}: an index is there already, and an import makes a new one: name another with --index", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The system cannot be asked for changes of files.
    #[error("the system does not report changes of files: {why}")]
    NoEvents {
        /// Why.
        why: String,
    },
    /// The vectors of a page are not those that were written.
    #[error("{}: the index is damaged: the vectors of page {page} differ from their digest; delete it and index again", path.display())]
    PageDigest {
        /// The file.
        path: PathBuf,
        /// The page.
        page: i64,
    },
    /// The index holds vectors of another model, version or task.
    #[error(
        "the index holds vectors of {stored_model} ({stored}), and {given_model} ({given}) was asked for: name its model with --model, or another index with --index"
    )]
    IdentityMismatch {
        /// Embedding identity of the index.
        stored: String,
        /// Name of its model.
        stored_model: String,
        /// Embedding identity of what embeds now.
        given: String,
        /// Name of that model.
        given_model: String,
    },
    /// Another process writes to the index.
    #[error("{}: {holder} is at work on this index; wait for it, or stop it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who it is, as far as known.
        holder: String,
    },
    /// The query cannot be read.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// A score was to be judged by a calibration that the model has not.
    #[error("--min-score auto needs a calibration of {model}, and there is none: give a number from 0 to 1")]
    NotCalibrated {
        /// Name of the model.
        model: String,
    },
    /// A calibration of the index's model that cannot be of it.
    #[error("the calibration: `centre` has {found} values, expected {expected}")]
    Calibration {
        /// Values of its centre.
        found: usize,
        /// The dimension of the index.
        expected: usize,
    },
    /// Nothing is found under an id.
    #[error("no file of the index has the id `{id}`")]
    UnknownId {
        /// What was asked for.
        id: String,
    },
    /// Several files have this beginning of an id.
    #[error("`{id}` is the beginning of several ids: {}", ids.join(", "))]
    AmbiguousId {
        /// What was asked for.
        id: String,
        /// Ids that begin so.
        ids: Vec<String>,
    },
    /// What embeds refused to go on.
    #[error("{0}")]
    Embedder(Fault),
    /// One file of the index, or the query's file, cannot be read.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: Fault,
    },
    /// A pattern of `--include` or `--exclude`.
    #[error("{0}")]
    Pattern(String),
    /// Reading or writing beside the database.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What was asked for is behind a feature that this build is without.
    #[error("{what} needs a program that was built for it: `cargo build --release --features {feature}`")]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
        /// The cargo feature.
        feature: &'static str,
    },
    /// A server cannot be used as it is.
    #[error("{}: {what}", place.display())]
    Unsuitable {
        /// Its address, without a password.
        place: PathBuf,
        /// What it is or has, and what is needed.
        what: String,
    },
    /// A server refused, or cannot be reached.
    #[error("{}: {why}", place.display())]
    Server {
        /// Its address, without a password.
        place: PathBuf,
        /// What it said.
        why: String,
        /// The error itself.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The user interrupted; what was finished is kept.
    #[error("interrupted")]
    Interrupted,
}

/// What is wrong with a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A quotation mark has no other one behind it.
    #[error("the quotation mark at character {at} of the query is never closed")]
    UnclosedQuote {
        /// Its place, from 1.
        at: usize,
    },
    /// A kind that no file has.
    #[error("no kind is called `{found}`; there are {}", crate::Kind::names().join(", "))]
    UnknownKind {
        /// What was typed.
        found: String,
    },
    /// Not a day.
    #[error("`{found}` is not a day: expected one such as 2026-01-31, or 7d, 3w, 2m, 1y for that long ago")]
    BadDate {
        /// What was typed.
        found: String,
    },
    /// Nothing is left to search for.
    #[error("the query says which files, and not what to search for: add words, or --like FILE")]
    OnlyFilters,
    /// Nothing at all.
    #[error("nothing to search for: give a query, or --like FILE")]
    Empty,
    /// A locator that a file cannot have.
    #[error("`{found}` is no place in a file: expected line=12, line=12-40, page=3 or t=12.5-20")]
    BadLocator {
        /// What was typed.
        found: String,
    },
}

/// Why one file, or one query, could not be dealt with. The others are unaffected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of the fixed list of kinds of errors, such as `corrupt`.
    pub kind: String,
    /// What was found and what was expected.
    pub message: String,
}

impl Fault {
    /// A fault of a kind.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    /// Why a file could not be read.
    pub fn of_io(error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => "not_found",
            _ => "corrupt",
        };
        Self::new(kind, error.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}
