//! What is handed to a store and what it hands back.

use std::path::{Path, PathBuf};

use super::condition::Condition;
use super::path::FileStat;
use crate::embedder::EmbedderProfile;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, Modality};
use crate::locator::Locator;

/// What an index was made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub identity: String,
    pub model: String,
    pub dim: usize,
}

impl Meta {
    /// Refuses what embeds with another identity.
    ///
    /// # Errors
    /// [`IndexError::IdentityMismatch`].
    pub fn agree(self, profile: &EmbedderProfile) -> Result<(), IndexError> {
        if self.identity == profile.identity && self.dim == profile.dim {
            return Ok(());
        }
        Err(IndexError::IdentityMismatch {
            stored: self.identity,
            stored_model: self.model,
            given: profile.identity.clone(),
            given_model: profile.model.clone(),
        })
    }
}

/// What is remembered of a file, so that it need not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownFile {
    pub size: i64,
    pub mtime_ns: i64,
    /// When it was read.
    pub seen_ns: i64,
    pub content: Option<i64>,
}

impl KnownFile {
    /// True where a look without opening finds the file as it was.
    pub fn is_as(&self, file: &FileStat) -> bool {
        (self.size, self.mtime_ns) == (file.size, file.mtime_ns)
    }
}

/// A file with its content, as searches need it.
#[derive(Debug, Clone)]
pub(crate) struct FileRow {
    pub id: i64,
    pub path: PathBuf,
    pub short: Vec<u8>,
    pub size: i64,
    pub mtime_ns: i64,
    pub content: i64,
    pub kind: Kind,
    pub title: Option<String>,
}

/// Which files with a content are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    Id(i64),
    Path(&'a Path),
    /// Those whose ids begin from one on and below another, the first twenty.
    Short(&'a [u8], Option<&'a [u8]>),
    /// Those with a content that a condition allows, by path.
    Content(i64, &'a Condition),
}

/// A chunk without its vector.
#[derive(Debug, Clone)]
pub(crate) struct ChunkRow {
    pub content: i64,
    pub locator: Locator,
    pub text: String,
}

/// A row of the vectors and its product with a query.
pub(crate) use omniburn_kernels::cpu::nearest::Scored as FoundRow;

/// Where a row of the vectors belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub chunk: i64,
    pub content: i64,
}

/// A chunk, or a file, and how well it matches: higher is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Match {
    pub id: i64,
    pub bm25: f64,
}

/// A chunk with its vector, where it has one, and the modality that the vector is of.
pub(crate) type EmbeddedChunk = (ChunkRow, Option<(Vec<f32>, Modality)>);

/// A content as it stands in an index, with all that belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct StandingContent {
    pub digest: [u8; 32],
    pub kind: Kind,
    pub title: Option<String>,
    pub taken_ns: Option<i64>,
    pub coordinates: Option<(f64, f64)>,
    pub chunks: Vec<EmbeddedChunk>,
    /// By path.
    pub files: Vec<FileStat>,
}

/// A file that could not be indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedFile {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub fault: Fault,
}

/// What an index holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Folders that are kept true.
    pub folders: Vec<PathBuf>,
    /// Files by kind, kinds without files left out.
    pub files: Vec<(Kind, u64)>,
    /// Files that could not be indexed.
    pub failed: Vec<FailedFile>,
    /// Chunks with their words.
    pub chunks: u64,
    /// Vectors.
    pub vectors: u64,
    /// Bytes of the database: the SQLite file with its log, or the tables of the schema with their indexes.
    pub bytes: u64,
    /// Name of the model.
    pub model: String,
    /// Its embedding identity.
    pub identity: String,
    /// When the last update was complete, in nanoseconds since 1970.
    pub updated_ns: Option<i64>,
}

/// A part of a content with its words and its vector.
#[derive(Debug, Clone)]
pub(crate) struct NewChunk {
    pub locator: Locator,
    pub text: String,
    /// What the vector was made from.
    pub modality: Modality,
    pub vector: Option<Vec<f32>>,
}

/// A content that is not there yet.
#[derive(Debug, Clone)]
pub(crate) struct NewContent {
    pub kind: Kind,
    pub title: Option<String>,
    /// When a photograph was taken, in nanoseconds since 1970.
    pub taken_ns: Option<i64>,
    /// Where it was taken: latitude and longitude in degrees. No [`FileRow`] has it, so that no hit can show it.
    pub coordinates: Option<(f64, f64)>,
    pub chunks: Vec<NewChunk>,
}

/// What a file came to.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Its content is new, or stands in the index under this digest.
    Indexed { digest: [u8; 32], new: Option<NewContent> },
    /// It could not be read.
    Failed(Fault),
    /// It is of no kind that is indexed.
    PassedOver,
}

/// A file that is put into the index.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub file: FileStat,
    pub state: State,
}

/// Changes that are made together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub puts: Vec<Put>,
    /// Paths of files that are gone.
    pub removes: Vec<Vec<u8>>,
}

impl Batch {
    /// Chunks in it.
    pub fn chunks(&self) -> usize {
        let of = |put: &Put| match &put.state {
            State::Indexed { new: Some(new), .. } => new.chunks.len(),
            _ => 0,
        };
        self.puts.iter().map(of).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }
}

/// What the search by words knows a file by: its name and its title.
pub(crate) fn name_of(path: &Path, title: Option<&str>) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{} {}", name.replace('_', " "), title.unwrap_or_default())
}

/// The ending of a file as qualifiers name it.
pub(crate) fn ending_of(path: &Path) -> String {
    path.extension().map(|ext| ext.to_string_lossy().to_lowercase()).unwrap_or_default()
}
