//! What lasts: files, contents, chunks, words and vectors, in one SQLite file or in a schema of a Postgres server.
//!
//! [`Store`] is all that the rest of the crate knows of either. Crawling, reading, calibration, fusion and snippets are above it and
//! shared; below it are rows, words and vectors, written in one transaction, so that a chunk is there with its words and its vector
//! or not at all. Both stores give the same hits in the same order with the same scores: cosines are computed by `dot`
//! from the same f16 values, and words are split and ranked as FTS5 does it.

mod api;
mod condition;
mod open;
mod path;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
mod sqlite;
mod sums;

pub(crate) use api::{Begin, Moment, Store, VectorRows, VectorSearch, WordIndex, WriterLock};
pub(crate) use condition::Condition;
pub use open::shown_place;
pub(crate) use open::{import_apart, open, open_or_begin};
pub(crate) use path::{FileStat, below, bytes_of_path, path_of_bytes};
pub(crate) use rows::{
    Batch, ChunkRow, FileRow, FoundRow, KnownFile, Match, NewChunk, NewContent, Place, Put, StandingContent, State,
    Which,
};
pub use rows::{FailedFile, Status};
