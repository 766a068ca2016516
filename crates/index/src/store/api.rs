//! What a store does, whichever it is.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::condition::Condition;
use super::path::FileStat;
use super::rows::{
    Batch, ChunkRow, FailedFile, FileRow, FoundRow, KnownFile, Match, Meta, Place, StandingContent, Status, Which,
};
use crate::embedder::EmbedderProfile;
use crate::error::{Fault, IndexError};
use crate::kind::Modality;

/// Held while a process writes to an index; who drops it lets others write.
pub(crate) trait WriterLock: Send {}

/// One of the ways in which text is split for the search by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordIndex {
    /// Unicode's words, without accents.
    Words,
    /// Runs of three characters.
    Parts,
}

/// An index as it is kept. Errors name its place.
pub(crate) trait Store: Send {
    /// Where it is, for people.
    fn place(&self) -> &Path;

    /// The folder of this machine that it writes to.
    fn folder(&self) -> Option<&Path>;

    /// What the index was made by.
    fn meta(&self) -> Result<Meta, IndexError>;

    /// Refuses to go on where the index was deleted or replaced since it was opened.
    ///
    /// # Errors
    /// [`IndexError::Gone`].
    fn still_there(&self) -> Result<(), IndexError>;

    /// Takes the lock of writers, or waits for it that long.
    ///
    /// # Errors
    /// [`IndexError::Locked`] naming who holds it.
    fn lock(&self, patience: Duration) -> Result<Box<dyn WriterLock>, IndexError>;

    /// From here on everything that is read is of one moment, until [`Store::end_moment`]. See [`Moment`].
    fn begin_moment(&self) -> Result<(), IndexError>;

    /// Ends [`Store::begin_moment`].
    fn end_moment(&self);

    /// Reads everything for damage.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`], [`IndexError::PageDigest`].
    fn verify(&self) -> Result<(), IndexError>;

    /// What the index holds.
    fn status(&self) -> Result<Status, IndexError>;

    /// What changes whenever files or vectors do.
    fn version(&self) -> Result<[u8; 32], IndexError>;

    /// When the last update was complete, in nanoseconds since 1970.
    fn updated_ns(&self) -> Option<i64>;

    /// Every file that is known, by the bytes of its path.
    fn known_files(&self) -> Result<HashMap<Vec<u8>, KnownFile>, IndexError>;

    /// Digests of contents that are there.
    fn known_digests(&self) -> Result<HashSet<[u8; 32]>, IndexError>;

    /// Files that could not be indexed, by path.
    fn failed_files(&self) -> Result<Vec<FailedFile>, IndexError>;

    /// The folders that are kept true, by path, with their rules as they were given.
    fn roots(&self) -> Result<Vec<(PathBuf, String)>, IndexError>;

    /// Files with a content.
    fn files(&self, which: Which<'_>) -> Result<Vec<FileRow>, IndexError>;

    /// Ids of files with a content, in the order in which they were indexed.
    fn file_ids(&self) -> Result<Vec<i64>, IndexError>;

    /// How many files have an id from one on and below another, where there is another.
    fn count_short(&self, from: &[u8], to: Option<&[u8]>) -> Result<usize, IndexError>;

    /// Chunks, in the order of their ids as given.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for one that is missing or differs from its checksum.
    fn chunks(&self, ids: &[i64]) -> Result<Vec<ChunkRow>, IndexError>;

    /// Every content with its chunks, vectors and files, in the order in which they were indexed.
    fn each_content(&self, tell: &mut dyn FnMut(StandingContent) -> Result<(), IndexError>) -> Result<(), IndexError>;

    /// Files without a content, by path, and why they have none where they failed.
    fn files_without_content(&self) -> Result<Vec<(FileStat, Option<Fault>)>, IndexError>;

    /// The content with a digest.
    fn content_of_digest(&self, digest: &[u8; 32]) -> Result<Option<i64>, IndexError>;

    /// The content of the file at a path.
    fn content_of_path(&self, path: &[u8]) -> Result<Option<i64>, IndexError>;

    /// Where the photograph that a content is was taken: latitude and longitude in degrees.
    fn coordinates_of(&self, content: i64) -> Result<Option<(f64, f64)>, IndexError>;

    /// How many contents there are.
    fn count_contents(&self) -> Result<usize, IndexError>;

    /// The stored vectors, by content.
    fn vector_rows(&self) -> Result<Box<dyn VectorRows + '_>, IndexError>;

    /// The exact search over the vectors that a condition allows.
    fn vector_search(&self, condition: &Condition) -> Result<Box<dyn VectorSearch + '_>, IndexError>;

    /// How many chunks there are.
    fn count_chunks(&self) -> Result<usize, IndexError>;

    /// Chunks that have some of the terms, by bm25, best first, those with equal ones in the order of their ids.
    fn match_chunks(
        &self,
        index: WordIndex,
        terms: &[String],
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError>;

    /// Chunks whose text contains some characters as they are, in the order of their ids. Every allowed one is looked through.
    fn containing(&self, run: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError>;

    /// Files whose names have some of the terms, or every one of them, by bm25, best first.
    fn match_names(
        &self,
        terms: &[String],
        every: bool,
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError>;

    /// How many chunks have a term, and which of these do.
    fn chunks_with(&self, index: WordIndex, term: &str, ids: &[i64]) -> Result<(usize, HashSet<i64>), IndexError>;

    /// Which of these chunks have a text that contains some characters as they are.
    fn chunks_containing(&self, run: &str, ids: &[i64]) -> Result<HashSet<i64>, IndexError>;

    /// Which of these files have a term in their names.
    fn names_with(&self, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError>;

    /// Applies a batch in one transaction. Contents that no file has any more stay until [`Store::remove_unused`]: a file that is
    /// yet to come may have them.
    ///
    /// # Errors
    /// Whatever the database gives; nothing of the batch is there then.
    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError>;

    /// Removes contents that no file has, with their chunks, words and vectors.
    ///
    /// # Errors
    /// Whatever the database gives; nothing is removed then.
    fn remove_unused(&mut self) -> Result<(), IndexError>;

    /// Paths of files below a folder.
    fn paths_below(&self, folder: &Path) -> Result<Vec<Vec<u8>>, IndexError>;

    /// Lets every file below a folder be read again: its rules changed.
    fn forget_times(&mut self, folder: &Path) -> Result<(), IndexError>;

    /// Notes a folder with its rules.
    fn put_root(&mut self, path: &Path, rules: &str) -> Result<(), IndexError>;

    /// Forgets a folder; its files are removed by the caller. True where it was known.
    fn remove_root(&mut self, path: &Path) -> Result<bool, IndexError>;

    /// Notes when an update was complete.
    fn put_updated(&mut self, now_ns: i64) -> Result<(), IndexError>;

    /// Gives back the room of what was removed.
    fn compact(&mut self) -> Result<(), IndexError>;

    /// Brings what was written to where it lasts.
    fn settle(&self) -> Result<(), IndexError>;
}

impl dyn Store + '_ {
    /// Refuses what embeds with another identity.
    ///
    /// # Errors
    /// [`IndexError::IdentityMismatch`].
    pub fn agree(&self, profile: &EmbedderProfile) -> Result<(), IndexError> {
        self.meta()?.agree(profile)
    }

    pub fn corrupt(&self, what: impl Into<String>) -> IndexError {
        IndexError::Corrupt { path: self.place().into(), what: what.into() }
    }

    /// Removes every file below a folder.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn remove_below(&mut self, folder: &Path) -> Result<u64, IndexError> {
        let removes = self.paths_below(folder)?;
        let count = removes.len() as u64;
        self.apply(&Batch { puts: Vec::new(), removes })?;
        self.remove_unused()?;
        Ok(count)
    }
}

/// As long as it lives, everything that is read is of one moment.
pub(crate) struct Moment<'a>(&'a dyn Store);

impl<'a> Moment<'a> {
    pub fn begin(store: &'a dyn Store) -> Result<Self, IndexError> {
        store.begin_moment()?;
        Ok(Self(store))
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        self.0.end_moment();
    }
}

/// Begins an index of what embeds.
pub(crate) type Begin<'a> = &'a mut dyn FnMut(&EmbedderProfile) -> Result<Box<dyn Store>, IndexError>;
/// Fills an index that it begins; gives its files.
pub(crate) type Fill<'a> = &'a mut dyn FnMut(Begin<'_>) -> Result<u64, IndexError>;

/// The stored vectors, by content.
pub(crate) trait VectorRows {
    /// The vectors of a content in the order of its chunks, `[dim]` each, and what each was made from.
    fn of_content(&mut self, content: i64) -> Result<Vec<(Vec<f32>, Modality)>, IndexError>;
}

/// The exact search over the vectors that a condition allows.
pub(crate) trait VectorSearch {
    /// How many vectors may be found.
    fn allowed(&self) -> Result<usize, IndexError>;

    /// The best rows of each modality, best first; rows with equal scores in their order.
    ///
    /// # Shapes
    /// - `vector`: `[dim]`
    /// - returns: at most `most` rows of each modality
    /// # Numerics
    /// Scores are those of [`omniburn_kernels::cpu::nearest::dot`], to the bit.
    fn best(&mut self, vector: &[f32], most: usize) -> Result<[Vec<FoundRow>; 4], IndexError>;

    /// The chunks and contents of rows that [`VectorSearch::best`] gave.
    fn places(&mut self, rows: &[FoundRow]) -> Result<Vec<Place>, IndexError>;

    /// From here on the vectors of these contents are not found.
    fn leave_out(&mut self, contents: &HashSet<i64>) -> Result<(), IndexError>;
}
