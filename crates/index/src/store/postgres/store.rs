//! The schema of a server as a store.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::begin::LOCK;
use super::nearest::Nearest;
use super::read::ContentVectors;
use super::session::{Server, Session};
use super::words::Values;
use super::write::key_of;
use crate::error::{Fault, IndexError};
use crate::store::path::{FileStat, bytes_of_path};
use crate::store::rows::{
    Batch, ChunkRow, FailedFile, FileRow, KnownFile, Match, Meta, StandingContent, Status, Which,
};
use crate::store::{Condition, Store, VectorRows, VectorSearch, WordIndex, WriterLock};

/// Between two tries to take the lock.
const AGAIN: Duration = Duration::from_millis(20);
/// What everybody waits: a connection that ends lets go of its lock a moment later.
const LEAST: Duration = Duration::from_millis(200);

/// An advisory lock of the session that writes: both end together.
struct ServerLock {
    session: Arc<Mutex<Session>>,
    schema: String,
}

impl WriterLock for ServerLock {}

impl Drop for ServerLock {
    fn drop(&mut self) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = session.query("SELECT pg_advisory_unlock($1, hashtext($2))", &[&LOCK, &self.schema]) {
            tracing::debug!("the lock of an index ends with its session: {error}");
        }
    }
}

impl Server {
    /// Who holds the lock of writers, as far as the server says.
    fn holder(&self) -> Result<String, IndexError> {
        let sql = "SELECT a.application_name, a.pid, host(a.client_addr) FROM pg_locks l
                   JOIN pg_stat_activity a ON a.pid = l.pid
                   WHERE l.locktype = 'advisory' AND l.granted AND l.database = (
                             SELECT oid FROM pg_database WHERE datname = current_database())
                         AND l.classid = $1::integer::oid AND l.objid = (hashtext($2)::bigint & 4294967295)::oid";
        let rows = self.query(sql, &[&LOCK, &self.schema])?;
        let Some(row) = rows.first() else { return Ok("another process".into()) };
        let (name, pid): (String, i32) = (self.value(row, 0)?, self.value(row, 1)?);
        let holder = match name.strip_prefix("omniburn ").filter(|id| id.chars().all(|c| c.is_ascii_digit())) {
            Some(id) => format!("process {id}"),
            None => format!("process {pid} of the server"),
        };
        let address: Option<String> = self.value(row, 2)?;
        Ok(address.map_or(holder.clone(), |address| format!("{holder} at {address}")))
    }
}

impl Store for Server {
    fn place(&self) -> &Path {
        self.path()
    }

    fn folder(&self) -> Option<&Path> {
        None
    }

    fn meta(&self) -> Result<Meta, IndexError> {
        Ok(self.meta.clone())
    }

    fn still_there(&self) -> Result<(), IndexError> {
        self.check_born(&mut self.session())
    }

    fn lock(&self, patience: Duration) -> Result<Box<dyn WriterLock>, IndexError> {
        let until = Instant::now() + patience.max(LEAST);
        loop {
            let row = self.session().one("SELECT pg_try_advisory_lock($1, hashtext($2))", &[&LOCK, &self.schema])?;
            if self.value(&row, 0)? {
                return Ok(Box::new(ServerLock { session: Arc::clone(&self.session), schema: self.schema.clone() }));
            }
            if Instant::now() >= until {
                return Err(IndexError::Locked { path: self.place.clone(), holder: self.holder()? });
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn begin_moment(&self) -> Result<(), IndexError> {
        self.session().run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    }

    fn end_moment(&self) {
        if let Err(error) = self.session().run("ROLLBACK") {
            tracing::debug!("the end of a reading: {error}");
        }
    }

    fn verify(&self) -> Result<(), IndexError> {
        self.read_all()
    }

    fn status(&self) -> Result<Status, IndexError> {
        self.read_status()
    }

    fn version(&self) -> Result<[u8; 32], IndexError> {
        self.read_version()
    }

    fn updated_ns(&self) -> Option<i64> {
        self.read_meta("updated_ns").ok().flatten()?.parse().ok()
    }

    fn known_files(&self) -> Result<HashMap<Vec<u8>, KnownFile>, IndexError> {
        self.read_known_files()
    }

    fn known_digests(&self) -> Result<HashSet<[u8; 32]>, IndexError> {
        self.read_known_digests()
    }

    fn failed_files(&self) -> Result<Vec<FailedFile>, IndexError> {
        self.read_failed()
    }

    fn roots(&self) -> Result<Vec<(PathBuf, String)>, IndexError> {
        self.read_roots()
    }

    fn files(&self, which: Which<'_>) -> Result<Vec<FileRow>, IndexError> {
        match which {
            Which::Id(id) => self.files_where("f.id = $1", &[&id]),
            Which::Path(path) => self.files_where("f.key = $1", &[&key_of(&bytes_of_path(path))]),
            Which::Short(from, to) => {
                let sql = "f.short >= $1 AND ($2::bytea IS NULL OR f.short < $2) ORDER BY f.short LIMIT 20";
                self.files_where(sql, &[&from, &to])
            }
            Which::Content(content, condition) => {
                let mut values = Values::default();
                let id = values.add(content);
                let allowed = self.condition(condition, &mut values)?;
                self.files_where(&format!("c.id = {id} AND {allowed} ORDER BY f.path"), &values.all())
            }
        }
    }

    fn file_ids(&self) -> Result<Vec<i64>, IndexError> {
        let rows = self.query("SELECT id FROM files WHERE content IS NOT NULL ORDER BY id", &[])?;
        rows.iter().map(|row| self.value(row, 0)).collect()
    }

    fn count_short(&self, from: &[u8], to: Option<&[u8]>) -> Result<usize, IndexError> {
        let sql = "SELECT count(*) FROM files WHERE short >= $1 AND ($2::bytea IS NULL OR short < $2)";
        self.count(sql, &[&from, &to])
    }

    fn chunks(&self, ids: &[i64]) -> Result<Vec<ChunkRow>, IndexError> {
        self.read_chunks(ids)
    }

    fn each_content(&self, tell: &mut dyn FnMut(StandingContent) -> Result<(), IndexError>) -> Result<(), IndexError> {
        self.read_each_content(tell)
    }

    fn files_without_content(&self) -> Result<Vec<(FileStat, Option<Fault>)>, IndexError> {
        self.read_files_without_content()
    }

    fn content_of_digest(&self, digest: &[u8; 32]) -> Result<Option<i64>, IndexError> {
        let rows = self.query("SELECT id FROM contents WHERE digest = $1", &[&digest.as_slice()])?;
        rows.first().map(|row| self.value(row, 0)).transpose()
    }

    fn content_of_path(&self, path: &[u8]) -> Result<Option<i64>, IndexError> {
        let rows = self.query("SELECT content FROM files WHERE key = $1", &[&key_of(path)])?;
        rows.first().map_or(Ok(None), |row| self.value(row, 0))
    }

    fn coordinates_of(&self, content: i64) -> Result<Option<(f64, f64)>, IndexError> {
        Ok(self.coordinates_within(content, content)?.remove(&content))
    }

    fn count_contents(&self) -> Result<usize, IndexError> {
        self.count("SELECT count(*) FROM contents", &[])
    }

    fn vector_rows(&self) -> Result<Box<dyn VectorRows + '_>, IndexError> {
        Ok(Box::new(ContentVectors(self)))
    }

    fn vector_search(&self, condition: &Condition) -> Result<Box<dyn VectorSearch + '_>, IndexError> {
        Ok(Box::new(Nearest::of(self, condition)))
    }

    fn count_chunks(&self) -> Result<usize, IndexError> {
        self.count("SELECT count(*) FROM chunks", &[])
    }

    fn match_chunks(
        &self,
        index: WordIndex,
        terms: &[String],
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        self.find_chunks(index, terms, condition, most)
    }

    fn containing(&self, run: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
        self.find_containing(run, condition, most)
    }

    fn match_names(
        &self,
        terms: &[String],
        every: bool,
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        self.find_names(terms, every, condition, most)
    }

    fn chunks_with(&self, index: WordIndex, term: &str, ids: &[i64]) -> Result<(usize, HashSet<i64>), IndexError> {
        self.which_chunks(index, term, ids)
    }

    fn chunks_containing(&self, run: &str, ids: &[i64]) -> Result<HashSet<i64>, IndexError> {
        self.which_containing(run, ids)
    }

    fn names_with(&self, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError> {
        self.which_names(ids, term)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError> {
        self.write_batch(batch)
    }

    fn remove_unused(&mut self) -> Result<(), IndexError> {
        self.drop_unused()
    }

    fn paths_below(&self, folder: &Path) -> Result<Vec<Vec<u8>>, IndexError> {
        self.read_paths_below(folder)
    }

    fn forget_times(&mut self, folder: &Path) -> Result<(), IndexError> {
        self.write_forgotten(folder)
    }

    fn put_root(&mut self, path: &Path, rules: &str) -> Result<(), IndexError> {
        self.write_root(path, rules)
    }

    fn remove_root(&mut self, path: &Path) -> Result<bool, IndexError> {
        self.drop_root(path)
    }

    fn put_updated(&mut self, now_ns: i64) -> Result<(), IndexError> {
        self.write_updated(now_ns)
    }

    fn compact(&mut self) -> Result<(), IndexError> {
        self.write_compact()
    }

    fn settle(&self) -> Result<(), IndexError> {
        // What was committed lasts; the planner gets its statistics.
        self.session().run("ANALYZE files, contents, chunks, vectors")
    }
}
