//! What is read of the database outside of searches.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::path::{FileStat, path_of_bytes};
use super::{Database, WriterLock, heads, sums};
use crate::error::{Fault, IndexError};
use crate::kind::Kind;
use crate::locator::Locator;

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

/// A chunk without its vector.
#[derive(Debug, Clone)]
pub(crate) struct ChunkRow {
    pub content: i64,
    pub locator: Locator,
    pub text: String,
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
    /// Bytes of the database, its log included.
    pub bytes: u64,
    /// Name of the model.
    pub model: String,
    /// Its embedding identity.
    pub identity: String,
    /// When the last update was complete, in nanoseconds since 1970.
    pub updated_ns: Option<i64>,
}

impl Database {
    /// Every file that is known, by the bytes of its path.
    pub fn known_files(&self) -> Result<HashMap<Vec<u8>, KnownFile>, IndexError> {
        let mut statement = self.prepare("SELECT path, size, mtime_ns, seen_ns, content FROM files")?;
        let rows = statement.query_map([], |row| {
            let known =
                KnownFile { size: row.get(1)?, mtime_ns: row.get(2)?, seen_ns: row.get(3)?, content: row.get(4)? };
            Ok((row.get(0)?, known))
        });
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// Digests of contents that are there.
    pub fn known_digests(&self) -> Result<HashSet<[u8; 32]>, IndexError> {
        let mut statement = self.prepare("SELECT digest FROM contents")?;
        let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0));
        let rows: Vec<Vec<u8>> = rows.and_then(Iterator::collect).map_err(|e| self.error(e))?;
        let digest = |bytes: Vec<u8>| bytes.try_into().map_err(|_| self.corrupt("a digest is not 32 bytes"));
        rows.into_iter().map(digest).collect()
    }

    /// The folders that are kept true, with their rules as they were given.
    pub fn roots(&self) -> Result<Vec<(PathBuf, String)>, IndexError> {
        let mut statement = self.prepare("SELECT path, rules FROM roots ORDER BY path")?;
        let rows = statement.query_map([], |row| Ok((path_of_bytes(row.get(0)?), row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// Files that a condition over `files f` and `contents c` chooses.
    pub fn files_where(&self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<FileRow>, IndexError> {
        let sql = format!(
            "SELECT f.id, f.path, f.short, f.size, f.mtime_ns, c.id, c.kind, c.title, f.sum, c.sum, c.taken_ns
             FROM files f JOIN contents c ON c.id = f.content WHERE {condition}"
        );
        let mut statement = self.prepare(&sql)?;
        let rows = statement.query_map(values, |row| {
            let (kind, path) = (row.get::<_, String>(6)?, row.get::<_, Vec<u8>>(1)?);
            let (size, content, title) = (row.get(3)?, row.get(5)?, row.get::<_, Option<String>>(7)?);
            let whole = row.get::<_, i64>(8)? == sums::file(&path, size, Some(content))
                && row.get::<_, i64>(9)? == sums::content(content, &kind, title.as_deref(), row.get(10)?);
            let file = FileRow {
                id: row.get(0)?,
                path: path_of_bytes(path),
                short: row.get(2)?,
                size,
                mtime_ns: row.get(4)?,
                content,
                kind: Kind::Text,
                title,
            };
            Ok((file, kind, whole))
        });
        let rows: Vec<(FileRow, String, bool)> = rows.and_then(Iterator::collect).map_err(|e| self.error(e))?;
        let kind = |name: &str| Kind::named(name).ok_or_else(|| self.corrupt(format!("`{name}` is no kind of files")));
        let checked = |(file, name, whole): (FileRow, String, bool)| match whole {
            true => Ok(FileRow { kind: kind(&name)?, ..file }),
            false => Err(self.corrupt(format!("the row of file {} differs from its checksum", file.id))),
        };
        rows.into_iter().map(checked).collect()
    }

    /// A chunk.
    pub fn chunk(&self, id: i64) -> Result<ChunkRow, IndexError> {
        let mut statement =
            self.prepare("SELECT content, place, low, high, vector, text, sum FROM chunks WHERE id = ?1")?;
        let row = statement.query_row([id], |row| {
            let place = (row.get::<_, i64>(1)?, row.get::<_, f64>(2)?, row.get::<_, f64>(3)?);
            Ok((row.get(0)?, place, row.get(4)?, row.get::<_, String>(5)?, row.get::<_, i64>(6)?))
        });
        let (content, place, vector, text, sum) = row.map_err(|e| match e {
            rusqlite::Error::QueryReturnedNoRows => self.corrupt(format!("chunk {id} is missing")),
            e => self.error(e),
        })?;
        if sum != sums::chunk(content, place, vector, &text) {
            return Err(self.corrupt(format!("chunk {id} differs from its checksum")));
        }
        let locator = Locator::of_row(place.0, place.1, place.2);
        let locator = locator.ok_or_else(|| self.corrupt(format!("chunk {id} is at no place of a file")))?;
        Ok(ChunkRow { content, locator, text })
    }

    /// Chunks of a content with the rows of their vectors, in the order in which they were read.
    pub fn chunks_of(&self, content: i64) -> Result<Vec<(i64, Option<i64>)>, IndexError> {
        let mut statement = self.prepare("SELECT id, vector FROM chunks WHERE content = ?1 ORDER BY id")?;
        let rows = statement.query_map([content], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// Files with a content, or those that have none and why, by path.
    pub fn files_with(&self, content: Option<i64>) -> Result<Vec<(FileStat, Option<Fault>)>, IndexError> {
        let sql =
            "SELECT path, size, mtime_ns, seen_ns, fault_kind, fault FROM files WHERE content IS ?1 ORDER BY path";
        let mut statement = self.prepare(sql)?;
        let rows = statement.query_map([content], |row| {
            let file = FileStat { path: row.get(0)?, size: row.get(1)?, mtime_ns: row.get(2)?, seen_ns: row.get(3)? };
            let kind: Option<String> = row.get(4)?;
            let message = row.get::<_, Option<String>>(5)?.unwrap_or_default();
            Ok((file, kind.map(|kind| Fault { kind, message })))
        });
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// Files that could not be indexed, by path.
    pub fn failed_files(&self) -> Result<Vec<FailedFile>, IndexError> {
        let sql = "SELECT path, fault_kind, fault FROM files WHERE fault_kind IS NOT NULL ORDER BY path";
        let mut statement = self.prepare(sql)?;
        let failed = statement.query_map([], |row| {
            let fault = Fault { kind: row.get(1)?, message: row.get::<_, Option<String>>(2)?.unwrap_or_default() };
            Ok(FailedFile { path: path_of_bytes(row.get(0)?), fault })
        });
        failed.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// What the index holds.
    pub fn status(&self) -> Result<Status, IndexError> {
        let meta = self.meta()?;
        let count = |sql: &str| {
            let found = self.connection().query_row(sql, [], |row| row.get::<_, i64>(0));
            found.map(|count| count.max(0) as u64).map_err(|e| self.error(e))
        };
        let mut statement =
            self.prepare("SELECT c.kind, count(*) FROM files f JOIN contents c ON c.id = f.content GROUP BY c.kind")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)));
        let by_name: HashMap<String, i64> = rows.and_then(Iterator::collect).map_err(|e| self.error(e))?;
        let of = |kind: Kind| by_name.get(kind.name()).map(|count| (kind, (*count).max(0) as u64));
        let vectors = heads(self)?.iter().flat_map(|head| &head.alive).map(|bits| bits.count() as u64).sum();
        Ok(Status {
            folders: self.roots()?.into_iter().map(|(path, _)| path).collect(),
            files: Kind::ALL.into_iter().filter_map(of).collect(),
            failed: self.failed_files()?,
            chunks: count("SELECT count(*) FROM chunks")?,
            vectors,
            bytes: ["", "-wal"].map(|end| self.bytes_of(end)).iter().sum(),
            model: meta.model,
            identity: meta.identity,
            updated_ns: self.meta_value::<i64>("updated_ns").ok(),
        })
    }

    fn bytes_of(&self, end: &str) -> u64 {
        let mut path = self.path().as_os_str().to_owned();
        path.push(end);
        std::fs::metadata(path).map_or(0, |about| about.len())
    }

    /// Takes the lock of writers.
    pub fn lock(&self, patience: std::time::Duration) -> Result<WriterLock, IndexError> {
        WriterLock::take(self.folder(), patience)
    }
}
