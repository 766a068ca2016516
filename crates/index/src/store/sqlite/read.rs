//! What is read of the database outside of searches.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::Database;
use super::pages::{Rows, bytes_of, heads};
use super::schema::LAYOUT;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, Modality};
use crate::locator::Locator;
use crate::store::path::{FileStat, below, path_of_bytes};
use crate::store::rows::{ChunkRow, FailedFile, FileRow, KnownFile, StandingContent, Status};
use crate::store::{VectorRows, sums};

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

    /// Every content with all that belongs to it.
    pub fn each_content(
        &self,
        tell: &mut dyn FnMut(StandingContent) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut rows = Rows::of(self)?;
        let mut contents = self.prepare("SELECT id, digest, kind, title, taken_ns FROM contents ORDER BY id")?;
        let mut contents = contents.query([]).map_err(|e| self.error(e))?;
        while let Some(row) = contents.next().map_err(|e| self.error(e))? {
            let wrong = |e| self.error(e);
            let (id, digest): (i64, Vec<u8>) = (row.get(0).map_err(wrong)?, row.get(1).map_err(wrong)?);
            let (kind, title) = (row.get::<_, String>(2).map_err(wrong)?, row.get(3).map_err(wrong)?);
            let taken_ns = row.get(4).map_err(wrong)?;
            let mut chunks = Vec::new();
            for (chunk, vector) in self.chunks_of(id)? {
                chunks.push((self.chunk(chunk)?, vector.map(|row| rows.get(row)).transpose()?));
            }
            tell(StandingContent {
                digest: digest.try_into().map_err(|_| self.corrupt("a digest is not 32 bytes"))?,
                kind: Kind::named(&kind).ok_or_else(|| self.corrupt(format!("`{kind}` is no kind of files")))?,
                title,
                taken_ns,
                coordinates: self.coordinates_of(id)?,
                chunks,
                files: self.files_with(Some(id))?.into_iter().map(|(file, _)| file).collect(),
            })?;
        }
        Ok(())
    }

    /// What changes whenever files or vectors do.
    pub fn version(&self) -> Result<[u8; 32], IndexError> {
        let mut digest = Sha256::new();
        for head in heads(self)? {
            digest.update(head.digest);
            head.alive.iter().for_each(|bits| digest.update(bits.to_bytes()));
        }
        // The checksum of a file's row holds its path, size and content.
        let sql = "SELECT count(*), total(sum & 0xffffffff), total((sum >> 32) & 0xffffffff),
                          total(mtime_ns & 0xffffffff) FROM files";
        let row = self
            .connection()
            .query_row(sql, [], |row| Ok([row.get::<_, i64>(0)? as f64, row.get(1)?, row.get(2)?, row.get(3)?]));
        row.map_err(|e| self.error(e))?.iter().for_each(|value: &f64| digest.update(value.to_le_bytes()));
        Ok(digest.finalize().into())
    }

    /// Ids of files with a content.
    pub fn file_ids(&self) -> Result<Vec<i64>, IndexError> {
        let mut statement = self.prepare("SELECT id FROM files WHERE content IS NOT NULL ORDER BY id")?;
        let ids = statement.query_map([], |row| row.get::<_, i64>(0));
        ids.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// How many files have an id within bounds.
    pub fn count_short(&self, from: &[u8], to: Option<&[u8]>) -> Result<usize, IndexError> {
        let sql = "SELECT count(*) FROM files WHERE short >= ?1 AND (?2 IS NULL OR short < ?2)";
        let count = self.prepare(sql)?.query_row((from, to), |row| row.get::<_, i64>(0));
        count.map(|count| count.max(0) as usize).map_err(|e| self.error(e))
    }

    /// How many rows a table has.
    pub fn count_rows(&self, table: &str) -> Result<usize, IndexError> {
        let count = self.prepare(&format!("SELECT count(*) FROM {table}"))?.query_row([], |row| row.get::<_, i64>(0));
        count.map(|count| count.max(0) as usize).map_err(|e| self.error(e))
    }

    /// The content with a digest.
    pub fn content_of_digest(&self, digest: &[u8; 32]) -> Result<Option<i64>, IndexError> {
        let mut statement = self.prepare("SELECT id FROM contents WHERE digest = ?1")?;
        statement.query_row([digest.as_slice()], |row| row.get(0)).optional().map_err(|e| self.error(e))
    }

    /// The content of the file at a path.
    pub fn content_of_path(&self, path: &[u8]) -> Result<Option<i64>, IndexError> {
        let mut statement = self.prepare("SELECT content FROM files WHERE path = ?1")?;
        let found = statement.query_row([path], |row| row.get::<_, Option<i64>>(0)).optional();
        found.map(Option::flatten).map_err(|e| self.error(e))
    }

    /// Where the photograph that a content is was taken.
    pub fn coordinates_of(&self, content: i64) -> Result<Option<(f64, f64)>, IndexError> {
        if self.layout < LAYOUT {
            return Ok(None);
        }
        let mut statement = self.prepare("SELECT latitude, longitude, sum FROM coordinates WHERE content = ?1")?;
        let found = statement.query_row([content], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?)));
        match found.optional().map_err(|e| self.error(e))? {
            Some((coordinates, sum)) if sum != sums::coordinates(content, coordinates) => {
                Err(self.corrupt(format!("the coordinates of content {content} differ from their checksum")))
            }
            found => Ok(found.map(|(coordinates, _)| coordinates)),
        }
    }

    /// Paths of files below a folder.
    pub fn paths_below(&self, folder: &Path) -> Result<Vec<Vec<u8>>, IndexError> {
        let (from, to) = below(folder);
        let mut statement = self.prepare("SELECT path FROM files WHERE path >= ?1 AND path < ?2")?;
        let rows = statement.query_map(params![from, to], |row| row.get(0));
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }

    /// Reads the whole database for damage.
    pub fn verify(&self) -> Result<(), IndexError> {
        let found: Option<String> = self
            .connection()
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .optional()
            .map_err(|e| self.error(e))?;
        if found.as_deref() != Some("ok") {
            return Err(self.corrupt(found.unwrap_or_default()));
        }
        let dim = self.meta()?.dim;
        heads(self)?.iter().try_for_each(|head| bytes_of(self, head, dim).map(drop))
    }
}

/// The stored vectors, by content.
pub(super) struct ContentRows<'a> {
    db: &'a Database,
    rows: Rows<'a>,
}

impl<'a> ContentRows<'a> {
    pub fn of(db: &'a Database) -> Result<Self, IndexError> {
        Ok(Self { db, rows: Rows::of(db)? })
    }
}

impl VectorRows for ContentRows<'_> {
    fn of_content(&mut self, content: i64) -> Result<Vec<(Vec<f32>, Modality)>, IndexError> {
        let rows = self.db.chunks_of(content)?.into_iter().filter_map(|(_, row)| row);
        rows.map(|row| self.rows.get(row)).collect()
    }
}
