//! All of an index as lines of JSON, and an equal index from them.
//!
//! The first line says what the index is of; then each content with its chunks, their words and their vectors comes before the
//! files that have it, and last the files that have none, because they failed or were passed over. Vectors are written so that
//! they read back to the same f16. The order is that of the database, and says nothing.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::crawl::Rules;
use crate::embedder::EmbedderProfile;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, Modality};
use crate::locator::Locator;
use crate::store::{
    Batch, Begin, FileStat, Moment, NewChunk, NewContent, Put, StandingContent, State, Store, bytes_of_path,
    import_apart, path_of_bytes,
};

/// Of the lines below.
const FORMAT: u32 = 1;
/// Chunks of a transaction of an import.
const BATCH_CHUNKS: usize = 2048;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Index(IndexLine),
    Content(ContentLine),
    File(FileLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexLine {
    format: u32,
    identity: String,
    model: String,
    dim: usize,
    roots: Vec<RootLine>,
    /// When the last update was complete, in nanoseconds since 1970.
    updated_ns: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootLine {
    path: PathText,
    rules: Rules,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentLine {
    /// Of its bytes, in hexadecimal digits.
    digest: String,
    kind: String,
    title: Option<String>,
    taken_ns: Option<i64>,
    chunks: Vec<ChunkLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkLine {
    /// Which kind of place, and its two numbers, as the database keeps them.
    place: (i64, f64, f64),
    text: String,
    modality: Option<String>,
    vector: Option<Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    path: PathText,
    size: i64,
    mtime_ns: i64,
    seen_ns: i64,
    /// The content that it has.
    digest: Option<String>,
    fault: Option<FaultLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultLine {
    kind: String,
    message: String,
}

/// A path, as text where it is some.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathText {
    Text(String),
    Bytes {
        /// In hexadecimal digits.
        bytes: String,
    },
}

impl PathText {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => PathText::Text(text),
            Err(error) => PathText::Bytes { bytes: hex(error.as_bytes()) },
        }
    }

    fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            PathText::Text(text) => Some(text.into_bytes()),
            PathText::Bytes { bytes } => of_hex(&bytes),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Writes an index.
pub(crate) fn export(db: &dyn Store, to: &mut dyn Write) -> Result<(), IndexError> {
    let _moment = Moment::begin(db)?;
    export_within(db, to)
}

/// All of it is of one moment.
fn export_within(db: &dyn Store, to: &mut dyn Write) -> Result<(), IndexError> {
    let mut put = |line: &Line| {
        let mut bytes = serde_json::to_vec(line).expect("plain data with string keys always serialises");
        bytes.push(b'\n');
        to.write_all(&bytes).map_err(|source| IndexError::Io { path: "the export".into(), source })
    };
    let meta = db.meta()?;
    let root = |(path, rules): (PathBuf, String)| {
        let rules = serde_json::from_str(&rules).map_err(|e| db.corrupt(format!("rules of a folder: {e}")))?;
        Ok(RootLine { path: PathText::of(bytes_of_path(&path)), rules })
    };
    put(&Line::Index(IndexLine {
        format: FORMAT,
        identity: meta.identity,
        model: meta.model,
        dim: meta.dim,
        roots: db.roots()?.into_iter().map(root).collect::<Result<_, IndexError>>()?,
        updated_ns: db.updated_ns(),
    }))?;
    db.each_content(&mut |content| {
        let StandingContent { digest, kind, title, taken_ns, chunks, files } = content;
        let chunks = chunks.into_iter().map(|(chunk, vector)| {
            let (vector, modality) = vector.map_or((None, None), |(values, modality)| (Some(values), Some(modality)));
            let modality = modality.map(|modality| modality.name().to_string());
            ChunkLine { place: chunk.locator.to_row(), text: chunk.text, modality, vector }
        });
        let (kind, chunks) = (kind.name().to_string(), chunks.collect());
        put(&Line::Content(ContentLine { digest: hex(&digest), kind, title, taken_ns, chunks }))?;
        files.into_iter().try_for_each(|file| put(&Line::File(file_line((file, None), Some(hex(&digest))))))
    })?;
    for file in db.files_without_content()? {
        put(&Line::File(file_line(file, None)))?;
    }
    to.flush().map_err(|source| IndexError::Io { path: "the export".into(), source })
}

fn file_line((file, fault): (FileStat, Option<Fault>), digest: Option<String>) -> FileLine {
    let FileStat { path, size, mtime_ns, seen_ns } = file;
    let fault = fault.map(|Fault { kind, message }| FaultLine { kind, message });
    FileLine { path: PathText::of(path), size, mtime_ns, seen_ns, digest, fault }
}

/// Makes an index from an export; gives its files.
pub(crate) fn import(place: &Path, from: &mut dyn BufRead) -> Result<u64, IndexError> {
    import_apart(place, &mut |begin| import_into(begin, from))
}

/// Reads lines with their numbers.
struct Lines<'a> {
    from: &'a mut dyn BufRead,
    line: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Line>, IndexError> {
        let mut text = Vec::new();
        let read = self.from.read_until(b'\n', &mut text);
        read.map_err(|source| IndexError::Io { path: "the export".into(), source })?;
        self.line += 1;
        if text.is_empty() {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') {
            return Err(self.wrong("it has no end"));
        }
        serde_json::from_slice(&text).map(Some).map_err(|e| self.wrong(e.to_string()))
    }

    fn wrong(&self, what: impl Into<String>) -> IndexError {
        IndexError::Import { line: self.line, what: what.into() }
    }
}

fn import_into(begin: Begin<'_>, from: &mut dyn BufRead) -> Result<u64, IndexError> {
    let mut lines = Lines { from, line: 0 };
    let Some(Line::Index(head)) = lines.next()? else {
        return Err(lines.wrong("expected the line that says what the index is of"));
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
        let path = path.into_bytes().ok_or_else(|| lines.wrong("a path that is none"))?;
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
            Line::Index(_) => return Err(lines.wrong("a second line that says what the index is of")),
            Line::Content(content) => {
                let (digest, content) = content_of(content, head.dim, &lines)?;
                if known.contains(&digest) {
                    return Err(lines.wrong("a content that was there before"));
                }
                waiting = Some((digest, content));
            }
            Line::File(file) => {
                let path = file.path.into_bytes().ok_or_else(|| lines.wrong("a path that is none"))?;
                let stat = FileStat { path, size: file.size, mtime_ns: file.mtime_ns, seen_ns: file.seen_ns };
                let state = match (file.digest, file.fault) {
                    (Some(digest), None) => {
                        let digest = digest_of(&digest, &lines)?;
                        let new = waiting.take_if(|(there, _)| *there == digest).map(|(_, content)| content);
                        if new.is_some() {
                            known.insert(digest);
                        } else if !known.contains(&digest) {
                            return Err(lines.wrong("a file whose content did not come before it"));
                        }
                        State::Indexed { digest, new }
                    }
                    (None, Some(FaultLine { kind, message })) => State::Failed(Fault { kind, message }),
                    (None, None) => State::PassedOver,
                    (Some(_), Some(_)) => return Err(lines.wrong("a file with a content and a fault")),
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

fn digest_of(text: &str, lines: &Lines<'_>) -> Result<[u8; 32], IndexError> {
    let digest = of_hex(text).and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| lines.wrong("a digest is not 64 hexadecimal digits"))
}

/// A content, checked for what an index could not hold.
fn content_of(line: ContentLine, dim: usize, lines: &Lines<'_>) -> Result<([u8; 32], NewContent), IndexError> {
    let digest = digest_of(&line.digest, lines)?;
    let kind = Kind::named(&line.kind).ok_or_else(|| lines.wrong(format!("`{}` is no kind of files", line.kind)))?;
    let mut chunks = Vec::with_capacity(line.chunks.len());
    for chunk in line.chunks {
        let (place, low, high) = chunk.place;
        let locator =
            Locator::of_row(place, low, high).ok_or_else(|| lines.wrong("a chunk is at no place of a file"))?;
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
    Ok((digest, NewContent { kind, title: line.title, taken_ns: line.taken_ns, chunks }))
}
