//! The SQLite file as a store.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ToSql;
use rusqlite::types::Value;

use super::Database;
use super::lock::FolderLock;
use super::nearest::Nearest;
use super::read::ContentRows;
use super::words::Where;
use super::write::compact;
use crate::error::{Fault, IndexError};
use crate::store::path::{FileStat, bytes_of_path};
use crate::store::rows::{
    Batch, ChunkRow, FailedFile, FileRow, KnownFile, Match, Meta, StandingContent, Status, Which,
};
use crate::store::{Condition, Store, VectorRows, VectorSearch, WordIndex, WriterLock};

impl Store for Database {
    fn place(&self) -> &Path {
        self.path()
    }

    fn folder(&self) -> Option<&Path> {
        Some(Database::folder(self))
    }

    fn meta(&self) -> Result<Meta, IndexError> {
        self.meta()
    }

    fn still_there(&self) -> Result<(), IndexError> {
        self.still_there()
    }

    fn lock(&self, patience: Duration) -> Result<Box<dyn WriterLock>, IndexError> {
        Ok(Box::new(FolderLock::take(Database::folder(self), patience)?))
    }

    fn begin_moment(&self) -> Result<(), IndexError> {
        self.connection().execute_batch("BEGIN DEFERRED").map_err(|e| self.error(e))
    }

    fn end_moment(&self) {
        if let Err(error) = self.connection().execute_batch("ROLLBACK") {
            tracing::debug!("{}: the end of a reading: {error}", self.path().display());
        }
    }

    fn verify(&self) -> Result<(), IndexError> {
        self.verify()
    }

    fn status(&self) -> Result<Status, IndexError> {
        self.status()
    }

    fn version(&self) -> Result<[u8; 32], IndexError> {
        self.version()
    }

    fn updated_ns(&self) -> Option<i64> {
        self.meta_value("updated_ns").ok()
    }

    fn known_files(&self) -> Result<HashMap<Vec<u8>, KnownFile>, IndexError> {
        self.known_files()
    }

    fn known_digests(&self) -> Result<HashSet<[u8; 32]>, IndexError> {
        self.known_digests()
    }

    fn failed_files(&self) -> Result<Vec<FailedFile>, IndexError> {
        self.failed_files()
    }

    fn roots(&self) -> Result<Vec<(PathBuf, String)>, IndexError> {
        self.roots()
    }

    fn files(&self, which: Which<'_>) -> Result<Vec<FileRow>, IndexError> {
        match which {
            Which::Id(id) => self.files_where("f.id = ?1", &[&id]),
            Which::Path(path) => self.files_where("f.path = ?1", &[&bytes_of_path(path)]),
            Which::Short(from, to) => {
                let sql = "f.short >= ?1 AND (?2 IS NULL OR f.short < ?2) ORDER BY f.short LIMIT 20";
                self.files_where(sql, &[&from, &to])
            }
            Which::Content(content, condition) => {
                let allowed = Where::of(condition);
                let sql = format!("c.id = ? AND {} ORDER BY f.path", allowed.sql);
                let id = Value::from(content);
                let values: Vec<&dyn ToSql> =
                    std::iter::once(&id).chain(&allowed.values).map(|value| value as &dyn ToSql).collect();
                self.files_where(&sql, &values)
            }
        }
    }

    fn file_ids(&self) -> Result<Vec<i64>, IndexError> {
        self.file_ids()
    }

    fn count_short(&self, from: &[u8], to: Option<&[u8]>) -> Result<usize, IndexError> {
        self.count_short(from, to)
    }

    fn chunks(&self, ids: &[i64]) -> Result<Vec<ChunkRow>, IndexError> {
        ids.iter().map(|id| self.chunk(*id)).collect()
    }

    fn each_content(&self, tell: &mut dyn FnMut(StandingContent) -> Result<(), IndexError>) -> Result<(), IndexError> {
        self.each_content(tell)
    }

    fn files_without_content(&self) -> Result<Vec<(FileStat, Option<Fault>)>, IndexError> {
        self.files_with(None)
    }

    fn content_of_digest(&self, digest: &[u8; 32]) -> Result<Option<i64>, IndexError> {
        self.content_of_digest(digest)
    }

    fn content_of_path(&self, path: &[u8]) -> Result<Option<i64>, IndexError> {
        self.content_of_path(path)
    }

    fn coordinates_of(&self, content: i64) -> Result<Option<(f64, f64)>, IndexError> {
        self.coordinates_of(content)
    }

    fn count_contents(&self) -> Result<usize, IndexError> {
        self.count_rows("contents")
    }

    fn vector_rows(&self) -> Result<Box<dyn VectorRows + '_>, IndexError> {
        Ok(Box::new(ContentRows::of(self)?))
    }

    fn vector_search(&self, condition: &Condition) -> Result<Box<dyn VectorSearch + '_>, IndexError> {
        Ok(Box::new(Nearest::of(self, condition)?))
    }

    fn count_chunks(&self) -> Result<usize, IndexError> {
        self.count_rows("chunks")
    }

    fn match_chunks(
        &self,
        index: WordIndex,
        terms: &[String],
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        self.match_chunks(index, terms, condition, most)
    }

    fn containing(&self, run: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
        self.containing(run, condition, most)
    }

    fn match_names(
        &self,
        terms: &[String],
        every: bool,
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        self.match_names(terms, every, condition, most)
    }

    fn chunks_with(&self, index: WordIndex, term: &str, ids: &[i64]) -> Result<(usize, HashSet<i64>), IndexError> {
        self.chunks_with(index, term, ids)
    }

    fn chunks_containing(&self, run: &str, ids: &[i64]) -> Result<HashSet<i64>, IndexError> {
        self.chunks_containing(run, ids)
    }

    fn names_with(&self, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError> {
        self.names_with(ids, term)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError> {
        self.apply(batch)
    }

    fn remove_unused(&mut self) -> Result<(), IndexError> {
        self.remove_unused()
    }

    fn paths_below(&self, folder: &Path) -> Result<Vec<Vec<u8>>, IndexError> {
        self.paths_below(folder)
    }

    fn forget_times(&mut self, folder: &Path) -> Result<(), IndexError> {
        self.forget_times(folder)
    }

    fn put_root(&mut self, path: &Path, rules: &str) -> Result<(), IndexError> {
        self.put_root(path, rules)
    }

    fn remove_root(&mut self, path: &Path) -> Result<bool, IndexError> {
        self.remove_root(path)
    }

    fn put_updated(&mut self, now_ns: i64) -> Result<(), IndexError> {
        self.put_updated(now_ns)
    }

    fn compact(&mut self) -> Result<(), IndexError> {
        compact(self)
    }

    fn settle(&self) -> Result<(), IndexError> {
        self.settle_log()
    }
}
