//! All of an index as lines, and an equal index from them; and the lines as JSON.
//!
//! The first line says what the index is of; then each content with its chunks, their words and their vectors comes before the
//! files that have it, and last the files that have none, because they failed or were passed over. Vectors are written so that
//! they read back to the same f16. The order is that of the database, and says nothing.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use crate::embedder::EmbedderProfile;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, Modality};
use crate::lines::{
    ChunkLine, ContentLine, FORMAT, FaultLine, FileLine, IndexLine, Line, PathText, RootLine, Sink, Source, hex, of_hex,
};
use crate::locator::Locator;
use crate::store::{
    Batch, Begin, FileStat, Moment, NewChunk, NewContent, Put, StandingContent, State, Store, bytes_of_path,
    import_apart, path_of_bytes,
};

/// Chunks of a transaction of an import.
const BATCH_CHUNKS: usize = 2048;

/// Writes lines of JSON.
pub(crate) struct JsonSink<'a>(pub &'a mut dyn Write);

impl Sink for JsonSink<'_> {
    fn put(&mut self, line: Line) -> Result<(), IndexError> {
        let mut bytes = serde_json::to_vec(&line).expect("plain data with string keys always serialises");
        bytes.push(b'\n');
        self.0.write_all(&bytes).map_err(|source| IndexError::Io { path: "the export".into(), source })
    }

    fn finish(&mut self) -> Result<(), IndexError> {
        self.0.flush().map_err(|source| IndexError::Io { path: "the export".into(), source })
    }
}

/// Writes an index.
pub(crate) fn export(db: &dyn Store, to: &mut dyn Sink) -> Result<(), IndexError> {
    let _moment = Moment::begin(db)?;
    export_within(db, to)
}

/// All of it is of one moment.
fn export_within(db: &dyn Store, to: &mut dyn Sink) -> Result<(), IndexError> {
    let meta = db.meta()?;
    let root = |(path, rules): (PathBuf, String)| {
        let rules = serde_json::from_str(&rules).map_err(|e| db.corrupt(format!("rules of a folder: {e}")))?;
        Ok(RootLine { path: PathText::of(bytes_of_path(&path)), rules })
    };
    to.put(Line::Index(IndexLine {
        format: FORMAT,
        identity: meta.identity,
        model: meta.model,
        dim: meta.dim,
        roots: db.roots()?.into_iter().map(root).collect::<Result<_, IndexError>>()?,
        updated_ns: db.updated_ns(),
    }))?;
    db.each_content(&mut |content| {
        let StandingContent { digest, kind, title, taken_ns, coordinates, chunks, files } = content;
        let chunks = chunks.into_iter().map(|(chunk, vector)| {
            let (vector, modality) = vector.map_or((None, None), |(values, modality)| (Some(values), Some(modality)));
            let modality = modality.map(|modality| modality.name().to_string());
            ChunkLine { place: chunk.locator.to_row(), text: chunk.text, modality, vector }
        });
        let (kind, chunks) = (kind.name().to_string(), chunks.collect());
        to.put(Line::Content(ContentLine { digest: hex(&digest), kind, title, taken_ns, coordinates, chunks }))?;
        files.into_iter().try_for_each(|file| to.put(Line::File(file_line((file, None), Some(hex(&digest))))))
    })?;
    for file in db.files_without_content()? {
        to.put(Line::File(file_line(file, None)))?;
    }
    to.finish()
}

fn file_line((file, fault): (FileStat, Option<Fault>), digest: Option<String>) -> FileLine {
    let FileStat { path, size, mtime_ns, seen_ns } = file;
    let fault = fault.map(|Fault { kind, message }| FaultLine { kind, message });
    FileLine { path: PathText::of(path), size, mtime_ns, seen_ns, digest, fault }
}

/// Makes an index from an export; gives its files.
pub(crate) fn import(place: &Path, from: &mut dyn Source) -> Result<u64, IndexError> {
    import_apart(place, &mut |begin| import_into(begin, from))
}

/// Reads lines of JSON with their numbers.
pub(crate) struct JsonSource<'a> {
    from: &'a mut dyn BufRead,
    line: u64,
}

impl<'a> JsonSource<'a> {
    pub fn of(from: &'a mut dyn BufRead) -> Self {
        Self { from, line: 0 }
    }
}

impl Source for JsonSource<'_> {
    fn next(&mut self) -> Result<Option<Line>, IndexError> {
        let mut text = Vec::new();
        let read = self.from.read_until(b'\n', &mut text);
        read.map_err(|source| IndexError::Io { path: "the export".into(), source })?;
        self.line += 1;
        if text.is_empty() {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') {
            return Err(self.wrong("it has no end".into()));
        }
        serde_json::from_slice(&text).map(Some).map_err(|e| self.wrong(e.to_string()))
    }

    fn wrong(&self, what: String) -> IndexError {
        IndexError::Import { line: self.line, what }
    }
}

fn import_into(begin: Begin<'_>, lines: &mut dyn Source) -> Result<u64, IndexError> {
    let Some(Line::Index(head)) = lines.next()? else {
        return Err(lines.wrong("expected the line that says what the index is of".into()));
    };
    if head.format != FORMAT {
        return Err(lines.wrong(format!("format {}, this release reads {FORMAT}", head.format)));
    }
    if !(1..=65_536).contains(&head.dim) {
        return Err(lines.wrong(format!("{} values of a vector", head.dim)));
    }
    let profile = EmbedderProfile {
        identity: head.identity,
        model: head.model,
        dim: head.dim,
        max_tokens: 0,
        modalities: Vec::new(),
    };
    let mut db = begin(&profile)?;
    for RootLine { path, rules } in head.roots {
        let path = path.into_bytes().ok_or_else(|| lines.wrong("a path that is none".into()))?;
        let rules = serde_json::to_string(&rules).expect("plain data with string keys always serialises");
        db.put_root(&path_of_bytes(path), &rules)?;
    }
    let mut batch = Batch::default();
    let mut files = 0;
    // Contents that are written or in the batch, and one that waits for its first file.
    let mut known: HashSet<[u8; 32]> = HashSet::new();
    let mut waiting: Option<([u8; 32], NewContent)> = None;
    while let Some(line) = lines.next()? {
        match line {
            Line::Index(_) => return Err(lines.wrong("a second line that says what the index is of".into())),
            Line::Content(content) => {
                let (digest, content) = content_of(content, head.dim, lines)?;
                if known.contains(&digest) {
                    return Err(lines.wrong("a content that was there before".into()));
                }
                waiting = Some((digest, content));
            }
            Line::File(file) => {
                let path = file.path.into_bytes().ok_or_else(|| lines.wrong("a path that is none".into()))?;
                let stat = FileStat { path, size: file.size, mtime_ns: file.mtime_ns, seen_ns: file.seen_ns };
                let state = match (file.digest, file.fault) {
                    (Some(digest), None) => {
                        let digest = digest_of(&digest, lines)?;
                        let new = waiting.take_if(|(there, _)| *there == digest).map(|(_, content)| content);
                        if new.is_some() {
                            known.insert(digest);
                        } else if !known.contains(&digest) {
                            return Err(lines.wrong("a file whose content did not come before it".into()));
                        }
                        State::Indexed { digest, new }
                    }
                    (None, Some(FaultLine { kind, message })) => State::Failed(Fault { kind, message }),
                    (None, None) => State::PassedOver,
                    (Some(_), Some(_)) => return Err(lines.wrong("a file with a content and a fault".into())),
                };
                batch.puts.push(Put { file: stat, state });
                files += 1;
            }
        }
        if batch.chunks() >= BATCH_CHUNKS || batch.puts.len() >= BATCH_CHUNKS {
            db.apply(&std::mem::take(&mut batch))?;
        }
    }
    db.apply(&batch)?;
    if let Some(updated) = head.updated_ns {
        db.put_updated(updated)?;
    }
    db.settle()?;
    Ok(files)
}

fn digest_of(text: &str, lines: &dyn Source) -> Result<[u8; 32], IndexError> {
    let digest = of_hex(text).and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| lines.wrong("a digest is not 64 hexadecimal digits".into()))
}

/// A content, checked for what an index could not hold.
fn content_of(line: ContentLine, dim: usize, lines: &dyn Source) -> Result<([u8; 32], NewContent), IndexError> {
    let digest = digest_of(&line.digest, lines)?;
    let kind = Kind::named(&line.kind).ok_or_else(|| lines.wrong(format!("`{}` is no kind of files", line.kind)))?;
    let on_earth = |(latitude, longitude): &(f64, f64)| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
    if let Some((latitude, longitude)) = line.coordinates.filter(|degrees| !on_earth(degrees)) {
        return Err(lines.wrong(format!("latitude {latitude} and longitude {longitude} are nowhere")));
    }
    let mut chunks = Vec::with_capacity(line.chunks.len());
    for chunk in line.chunks {
        let (place, low, high) = chunk.place;
        let locator =
            Locator::of_row(place, low, high).ok_or_else(|| lines.wrong("a chunk is at no place of a file".into()))?;
        let modality = match &chunk.modality {
            None => kind.modality(),
            Some(name) => {
                let named = Modality::ALL.into_iter().find(|modality| modality.name() == name);
                named.ok_or_else(|| lines.wrong(format!("`{name}` is no modality")))?
            }
        };
        if let Some(values) = &chunk.vector {
            let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            if values.len() != dim || !(0.9..1.1).contains(&length) {
                let found = format!("a vector of {} values and length {length:.3}", values.len());
                return Err(lines.wrong(format!("{found}, expected {dim} and 1")));
            }
        }
        chunks.push(NewChunk { locator, text: chunk.text, modality, vector: chunk.vector });
    }
    Ok((digest, NewContent { kind, title: line.title, taken_ns: line.taken_ns, coordinates: line.coordinates, chunks }))
}
