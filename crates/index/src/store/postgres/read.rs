//! What is read of a server outside of searches.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use half::f16;
use pgvector::HalfVector;
use postgres::Row;
use sha2::{Digest, Sha256};

use super::schema::LAYOUT;
use super::session::Server;
use super::split::of_text;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, Modality};
use crate::locator::Locator;
use crate::store::path::{FileStat, below, path_of_bytes};
use crate::store::rows::{ChunkRow, EmbeddedChunk, FailedFile, FileRow, KnownFile, StandingContent, Status};
use crate::store::{VectorRows, sums};

/// Contents that are read together.
const PAGE: i64 = 256;

/// What a file's row is read from: `files f` and `contents c`.
const FILE: &str = "SELECT f.id, f.path, f.short, f.size, f.mtime_ns, c.id, c.kind, c.title, f.sum, c.sum, c.taken_ns
                    FROM files f JOIN contents c ON c.id = f.content WHERE";
/// What a chunk's row is read from.
const CHUNK: &str = "SELECT id, content, place, low, high, vector, text, sum FROM chunks WHERE";

/// A vector with its place.
pub(super) struct VectorRow {
    pub id: i64,
    pub chunk: i64,
    pub content: i64,
    pub modality: Modality,
    pub values: Vec<f16>,
}

/// The bytes of a vector that its checksum is of.
pub(super) fn bytes_of(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Server {
    /// A text of a row.
    fn text(&self, row: &Row, at: usize) -> Result<String, IndexError> {
        of_text(self.value(row, at)?, &self.place)
    }

    fn text_or_none(&self, row: &Row, at: usize) -> Result<Option<String>, IndexError> {
        self.value::<Option<String>>(row, at)?.map(|text| of_text(text, &self.place)).transpose()
    }

    fn kind(&self, name: &str) -> Result<Kind, IndexError> {
        Kind::named(name).ok_or_else(|| self.corrupt(format!("`{name}` is no kind of files")))
    }

    pub fn read_meta(&self, key: &str) -> Result<Option<String>, IndexError> {
        let rows = self.query("SELECT value FROM meta WHERE key = $1", &[&key])?;
        rows.first().map(|row| self.text(row, 0)).transpose()
    }

    pub fn read_known_files(&self) -> Result<HashMap<Vec<u8>, KnownFile>, IndexError> {
        let known = |row: &Row| {
            let known = KnownFile {
                size: self.value(row, 1)?,
                mtime_ns: self.value(row, 2)?,
                seen_ns: self.value(row, 3)?,
                content: self.value(row, 4)?,
            };
            Ok((self.value(row, 0)?, known))
        };
        self.query("SELECT path, size, mtime_ns, seen_ns, content FROM files", &[])?.iter().map(known).collect()
    }

    pub fn read_known_digests(&self) -> Result<HashSet<[u8; 32]>, IndexError> {
        let rows = self.query("SELECT digest FROM contents", &[])?;
        rows.iter().map(|row| self.digest(row, 0)).collect()
    }

    fn digest(&self, row: &Row, at: usize) -> Result<[u8; 32], IndexError> {
        let bytes: &[u8] = self.value(row, at)?;
        bytes.try_into().map_err(|_| self.corrupt("a digest is not 32 bytes"))
    }

    pub fn read_failed(&self) -> Result<Vec<FailedFile>, IndexError> {
        let sql = "SELECT path, fault_kind, fault FROM files WHERE fault_kind IS NOT NULL ORDER BY path";
        let failed = |row: &Row| {
            let message = self.text_or_none(row, 2)?.unwrap_or_default();
            Ok(FailedFile {
                path: path_of_bytes(self.value(row, 0)?),
                fault: Fault { kind: self.text(row, 1)?, message },
            })
        };
        self.query(sql, &[])?.iter().map(failed).collect()
    }

    pub fn read_roots(&self) -> Result<Vec<(PathBuf, String)>, IndexError> {
        let root = |row: &Row| Ok((path_of_bytes(self.value(row, 0)?), self.text(row, 1)?));
        self.query("SELECT path, rules FROM roots ORDER BY path", &[])?.iter().map(root).collect()
    }

    /// Files that a condition over `files f` and `contents c` chooses.
    pub fn files_where(
        &self,
        condition: &str,
        values: &[super::session::Value<'_>],
    ) -> Result<Vec<FileRow>, IndexError> {
        let rows = self.query(&format!("{FILE} {condition}"), values)?;
        rows.iter().map(|row| self.file(row)).collect()
    }

    fn file(&self, row: &Row) -> Result<FileRow, IndexError> {
        let (id, path): (i64, Vec<u8>) = (self.value(row, 0)?, self.value(row, 1)?);
        let (size, content): (i64, i64) = (self.value(row, 3)?, self.value(row, 5)?);
        let (kind, title) = (self.text(row, 6)?, self.text_or_none(row, 7)?);
        let whole = self.value::<i64>(row, 8)? == sums::file(&path, size, Some(content))
            && self.value::<i64>(row, 9)? == sums::content(content, &kind, title.as_deref(), self.value(row, 10)?);
        if !whole {
            return Err(self.corrupt(format!("the row of file {id} differs from its checksum")));
        }
        Ok(FileRow {
            id,
            path: path_of_bytes(path),
            short: self.value(row, 2)?,
            size,
            mtime_ns: self.value(row, 4)?,
            content,
            kind: self.kind(&kind)?,
            title,
        })
    }

    /// A chunk with its id and the number of its vector.
    fn chunk(&self, row: &Row) -> Result<(i64, Option<i64>, ChunkRow), IndexError> {
        let (id, content): (i64, i64) = (self.value(row, 0)?, self.value(row, 1)?);
        let place: (i64, f64, f64) = (self.value(row, 2)?, self.value(row, 3)?, self.value(row, 4)?);
        let (vector, text): (Option<i64>, String) = (self.value(row, 5)?, self.text(row, 6)?);
        if self.value::<i64>(row, 7)? != sums::chunk(content, place, vector, &text) {
            return Err(self.corrupt(format!("chunk {id} differs from its checksum")));
        }
        let locator = Locator::of_row(place.0, place.1, place.2);
        let locator = locator.ok_or_else(|| self.corrupt(format!("chunk {id} is at no place of a file")))?;
        Ok((id, vector, ChunkRow { content, locator, text }))
    }

    pub fn read_chunks(&self, ids: &[i64]) -> Result<Vec<ChunkRow>, IndexError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.query(&format!("{CHUNK} id = ANY($1)"), &[&ids])?;
        let mut found: HashMap<i64, ChunkRow> = HashMap::new();
        for row in &rows {
            let (id, _, chunk) = self.chunk(row)?;
            found.insert(id, chunk);
        }
        let missing = |id: &i64| self.corrupt(format!("chunk {id} is missing"));
        ids.iter().map(|id| found.get(id).cloned().ok_or_else(|| missing(id))).collect()
    }

    /// A vector out of `id, chunk, content, modality, sum, vector`, checked.
    pub fn vector(&self, row: &Row) -> Result<VectorRow, IndexError> {
        let (id, modality): (i64, i16) = (self.value(row, 0)?, self.value(row, 3)?);
        let values: Vec<f16> = self.value::<HalfVector>(row, 5)?.into();
        if self.value::<i64>(row, 4)? != sums::vector(id, modality, &bytes_of(&values)) {
            return Err(self.corrupt(format!("vector {id} differs from its checksum")));
        }
        let of = usize::try_from(modality).ok().and_then(|modality| Modality::ALL.get(modality).copied());
        Ok(VectorRow {
            id,
            chunk: self.value(row, 1)?,
            content: self.value(row, 2)?,
            modality: of.ok_or_else(|| self.corrupt(format!("vector {id} is of no modality")))?,
            values,
        })
    }

    /// The vectors of contents within bounds, by their numbers.
    fn vectors_within(&self, first: i64, last: i64) -> Result<HashMap<i64, VectorRow>, IndexError> {
        let sql = "SELECT id, chunk, content, modality, sum, vector FROM vectors WHERE content BETWEEN $1 AND $2";
        let rows = self.query(sql, &[&first, &last])?;
        rows.iter().map(|row| self.vector(row).map(|vector| (vector.id, vector))).collect()
    }

    pub fn read_each_content(
        &self,
        tell: &mut dyn FnMut(StandingContent) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut after = i64::MIN;
        loop {
            let sql = "SELECT id, digest, kind, title, taken_ns, sum FROM contents WHERE id > $1 ORDER BY id LIMIT $2";
            let contents = self.query(sql, &[&after, &PAGE])?;
            let (Some(first), Some(last)) = (contents.first(), contents.last()) else { return Ok(()) };
            let (first, last) = (self.value::<i64>(first, 0)?, self.value::<i64>(last, 0)?);
            let mut vectors = self.vectors_within(first, last)?;
            let mut chunks: HashMap<i64, Vec<EmbeddedChunk>> = HashMap::new();
            let sql = format!("{CHUNK} content BETWEEN $1 AND $2 ORDER BY id");
            for row in &self.query(&sql, &[&first, &last])? {
                let (id, vector, chunk) = self.chunk(row)?;
                let vector = match vector {
                    None => None,
                    Some(number) => {
                        let row = vectors.remove(&number).filter(|row| row.chunk == id);
                        let row = row.ok_or_else(|| self.corrupt(format!("the vector of chunk {id} is missing")))?;
                        Some((row.values.iter().map(|value| value.to_f32()).collect(), row.modality))
                    }
                };
                chunks.entry(chunk.content).or_default().push((chunk, vector));
            }
            let mut files: HashMap<i64, Vec<FileStat>> = HashMap::new();
            let sql = "SELECT path, size, mtime_ns, seen_ns, content FROM files WHERE content BETWEEN $1 AND $2
                       ORDER BY path";
            for row in &self.query(sql, &[&first, &last])? {
                files.entry(self.value(row, 4)?).or_default().push(self.stat(row)?);
            }
            let mut coordinates = self.coordinates_within(first, last)?;
            for row in &contents {
                let id: i64 = self.value(row, 0)?;
                let (kind, title, taken_ns) = (self.text(row, 2)?, self.text_or_none(row, 3)?, self.value(row, 4)?);
                if self.value::<i64>(row, 5)? != sums::content(id, &kind, title.as_deref(), taken_ns) {
                    return Err(self.corrupt(format!("content {id} differs from its checksum")));
                }
                tell(StandingContent {
                    digest: self.digest(row, 1)?,
                    kind: self.kind(&kind)?,
                    title,
                    taken_ns,
                    coordinates: coordinates.remove(&id),
                    chunks: chunks.remove(&id).unwrap_or_default(),
                    files: files.remove(&id).unwrap_or_default(),
                })?;
            }
            after = last;
        }
    }

    /// Where the photographs of contents within bounds were taken.
    pub fn coordinates_within(&self, first: i64, last: i64) -> Result<HashMap<i64, (f64, f64)>, IndexError> {
        if self.layout.load(Ordering::Relaxed) < LAYOUT {
            return Ok(HashMap::new());
        }
        let sql = "SELECT content, latitude, longitude, sum FROM coordinates WHERE content BETWEEN $1 AND $2";
        let degrees = |row: &Row| {
            let (content, degrees): (i64, (f64, f64)) =
                (self.value(row, 0)?, (self.value(row, 1)?, self.value(row, 2)?));
            if self.value::<i64>(row, 3)? != sums::coordinates(content, degrees) {
                return Err(self.corrupt(format!("the coordinates of content {content} differ from their checksum")));
            }
            Ok((content, degrees))
        };
        self.query(sql, &[&first, &last])?.iter().map(degrees).collect()
    }

    fn stat(&self, row: &Row) -> Result<FileStat, IndexError> {
        Ok(FileStat {
            path: self.value(row, 0)?,
            size: self.value(row, 1)?,
            mtime_ns: self.value(row, 2)?,
            seen_ns: self.value(row, 3)?,
        })
    }

    pub fn read_files_without_content(&self) -> Result<Vec<(FileStat, Option<Fault>)>, IndexError> {
        let sql =
            "SELECT path, size, mtime_ns, seen_ns, fault_kind, fault FROM files WHERE content IS NULL ORDER BY path";
        let file = |row: &Row| {
            let message = self.text_or_none(row, 5)?.unwrap_or_default();
            Ok((self.stat(row)?, self.text_or_none(row, 4)?.map(|kind| Fault { kind, message })))
        };
        self.query(sql, &[])?.iter().map(file).collect()
    }

    pub fn read_paths_below(&self, folder: &Path) -> Result<Vec<Vec<u8>>, IndexError> {
        let (from, to) = below(folder);
        let rows = self.query("SELECT path FROM files WHERE path >= $1 AND path < $2", &[&from, &to])?;
        rows.iter().map(|row| self.value(row, 0)).collect()
    }

    pub fn read_status(&self) -> Result<Status, IndexError> {
        let sql = "SELECT c.kind, count(*) FROM files f JOIN contents c ON c.id = f.content GROUP BY c.kind";
        let rows = self.query(sql, &[])?;
        let by_name: HashMap<String, i64> =
            rows.iter().map(|row| Ok((self.text(row, 0)?, self.value(row, 1)?))).collect::<Result<_, IndexError>>()?;
        let of = |kind: Kind| by_name.get(kind.name()).map(|count| (kind, (*count).max(0) as u64));
        let size = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'";
        let updated = self.read_meta("updated_ns")?;
        Ok(Status {
            folders: self.read_roots()?.into_iter().map(|(path, _)| path).collect(),
            files: Kind::ALL.into_iter().filter_map(of).collect(),
            failed: self.read_failed()?,
            chunks: self.count("SELECT count(*) FROM chunks", &[])? as u64,
            vectors: self.count("SELECT count(*) FROM vectors", &[])? as u64,
            bytes: self.count(size, &[&self.schema])? as u64,
            model: self.meta.model.clone(),
            identity: self.meta.identity.clone(),
            updated_ns: updated.and_then(|text| text.parse().ok()),
        })
    }

    pub fn read_version(&self) -> Result<[u8; 32], IndexError> {
        let generation: i64 = self.count("SELECT generation FROM counters", &[])? as i64;
        Ok(Sha256::new().chain_update(&self.born).chain_update(generation.to_le_bytes()).finalize().into())
    }

    /// Reads every row, and counts what the counters say.
    pub fn read_all(&self) -> Result<(), IndexError> {
        let (mut chunks, mut vectors) = (0, 0);
        self.read_each_content(&mut |content| {
            chunks += content.chunks.len();
            vectors += content.chunks.iter().filter(|(_, vector)| vector.is_some()).count();
            Ok(())
        })?;
        self.files_where("true", &[])?;
        let counted = [("chunks", chunks), ("vectors", vectors)];
        for (table, count) in counted {
            let there = self.count(&format!("SELECT count(*) FROM {table}"), &[])?;
            if there != count {
                return Err(self.corrupt(format!("{there} {table}, and {count} of them belong to a content")));
            }
        }
        let sums = "SELECT (texts, text_words, text_runs, clipped_texts) = (
                        SELECT count(*), coalesce(sum(length), 0)::bigint, coalesce(sum(runs), 0)::bigint,
                               count(*) FILTER (WHERE clipped)
                        FROM chunks WHERE text <> '')
                    AND (names, name_words, clipped_names) = (
                        SELECT count(*), coalesce(sum(length), 0)::bigint, count(*) FILTER (WHERE clipped)
                        FROM files WHERE content IS NOT NULL)
                    FROM counters";
        let row = self.session().one(sums, &[])?;
        if !self.value::<bool>(&row, 0)? {
            return Err(self.corrupt("the counters of words are not those of the rows"));
        }
        Ok(())
    }
}

/// The stored vectors, by content.
pub(super) struct ContentVectors<'a>(pub &'a Server);

impl VectorRows for ContentVectors<'_> {
    fn of_content(&mut self, content: i64) -> Result<Vec<(Vec<f32>, Modality)>, IndexError> {
        let mut rows: Vec<VectorRow> = self.0.vectors_within(content, content)?.into_values().collect();
        rows.sort_by_key(|row| row.chunk);
        let values = |row: VectorRow| (row.values.iter().map(|value| value.to_f32()).collect(), row.modality);
        Ok(rows.into_iter().map(values).collect())
    }
}
