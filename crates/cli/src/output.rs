//! Results as they leave: JSON lines or one array, to standard output or to a file that appears when it is complete.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use omniburn::{Embedded, Features};
use omniburn_output::destination::standard_file;
use omniburn_output::{Destination, FileId, Leftover, OutputError, WholeFile};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::{Failure, SOME_FAILED};
use crate::progress::say;
use omniburn_cli::inputs::Fault;

/// The line of an input that has a vector; the order of the fields is the order on the line.
#[derive(Serialize)]
struct VectorLine<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    modality: &'static str,
    tokens: usize,
    truncated: bool,
    /// How many segments a long audio or video was cut into.
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<usize>,
    /// Where the segment of this line begins and ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_s: Option<f64>,
    /// Which chunk of a text this line is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk: Option<usize>,
    /// Where it begins and ends, in bytes of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<SparseBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi: Option<Vec<&'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<FeaturesBody<'a>>,
}

/// The rows that media became, and what is added to them behind the first layers of a decoder.
#[derive(Serialize)]
struct FeaturesBody<'a> {
    rows: Vec<&'a [f32]>,
    deepstack: Vec<Vec<&'a [f32]>>,
}

impl<'a> From<&'a Features> for FeaturesBody<'a> {
    fn from(features: &'a Features) -> Self {
        let rows = |values: &'a [f32]| values.chunks_exact(features.width.max(1)).collect();
        Self { rows: rows(&features.rows), deepstack: features.deepstack.iter().map(|set| rows(set)).collect() }
    }
}

/// Weights of tokens by their ids.
#[derive(Serialize)]
struct SparseBody<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}

/// The line of an input that failed.
#[derive(Serialize)]
struct ErrorLine<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    error: ErrorBody<'a>,
}

/// What went wrong, as every verb writes it.
#[derive(Serialize)]
pub struct ErrorBody<'a> {
    kind: &'static str,
    message: &'a str,
}

impl<'a> From<&'a Fault> for ErrorBody<'a> {
    fn from(fault: &'a Fault) -> Self {
        Self { kind: fault.kind.name(), message: &fault.message }
    }
}

/// Writes one line of JSON.
///
/// # Errors
/// As [`write_stdout`].
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    write_stdout(&line_of(value))
}

/// A value as a line of JSON.
pub fn line_of(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("plain data with string keys always serialises");
    line.push(b'\n');
    line
}

/// Writes to standard output at once.
///
/// # Errors
/// [`Failure::ClosedPipe`] when nobody reads it any more; whatever else writing gives.
pub fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::with_code(SOME_FAILED, anyhow::anyhow!("standard output: {e}")),
    })
}

/// What a file of this run may be written to.
///
/// # Errors
/// A usage failure that names what was found there.
pub fn destination(path: &Path) -> Result<Destination, Failure> {
    Destination::of(path).map_err(Failure::usage)
}

/// A file as [`WholeFile`] writes it, with the failures of this program.
pub struct OutFile(WholeFile);

impl OutFile {
    /// Starts a file; what a run that was killed left of it is removed, and said.
    ///
    /// # Errors
    /// A usage failure when nothing can be written there.
    pub fn create(to: &Destination) -> Result<Self, Failure> {
        Self::started(WholeFile::create(to))
    }

    /// The same, for a file whose beginning is written last.
    ///
    /// # Errors
    /// As [`OutFile::create`].
    pub fn create_patched(to: &Destination) -> Result<Self, Failure> {
        Self::started(WholeFile::create_patched(to, &std::env::temp_dir()))
    }

    fn started(file: Result<(WholeFile, Vec<Leftover>), OutputError>) -> Result<Self, Failure> {
        let (file, leftovers) = file.map_err(Failure::usage)?;
        for leftover in leftovers {
            say(leftover);
        }
        Ok(Self(file))
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Failure::ClosedPipe`] when nobody reads it any more; whatever else writing gives.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write(bytes).map_err(unwritten)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// As [`OutFile::write`]; then nothing is left, and what was there before still is.
    pub fn finish(self) -> Result<(), Failure> {
        self.0.finish().map_err(unwritten)
    }
}

fn unwritten(e: OutputError) -> Failure {
    if e.is_closed_pipe() { Failure::ClosedPipe } else { Failure::with_code(SOME_FAILED, e) }
}

/// The plain files that this run writes: none of them may be one that it reads.
#[derive(Default)]
pub struct Outputs(Vec<(FileId, String)>);

impl Outputs {
    /// Of files, by their options.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a Destination)>) -> Self {
        let known = files.into_iter().filter_map(|(option, to)| Some((to.id()?, option.to_string())));
        Self(known.collect())
    }

    /// With standard output, where it goes to a plain file.
    pub fn and_stdout(mut self) -> Self {
        self.0.extend(standard_file(&io::stdout()).map(|id| (id, "standard output".to_string())));
        self
    }

    /// Whether nothing is written that is there already: then nothing that is read can be it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a file that is read.
    ///
    /// # Errors
    /// A usage failure that names both.
    pub fn refuse(&self, read: &Path) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        self.refuse_id(FileId::of(read), &read.display())
    }

    /// Refuses standard input.
    ///
    /// # Errors
    /// As [`Outputs::refuse`].
    pub fn refuse_stdin(&self) -> Result<(), Failure> {
        self.refuse_id(standard_file(&io::stdin()), &"standard input")
    }

    /// Refuses every file of a folder, and of the folders in it.
    ///
    /// # Errors
    /// As [`Outputs::refuse`].
    pub fn refuse_folder(&self, folder: &Path) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.refuse_folder(&entry.path())?,
                _ => self.refuse(&entry.path())?,
            }
        }
        Ok(())
    }

    fn refuse_id(&self, read: Option<FileId>, name: &dyn std::fmt::Display) -> Result<(), Failure> {
        match self.0.iter().find(|(id, _)| read.as_ref() == Some(id)) {
            Some((_, option)) => {
                Err(Failure::usage(format!("{name}: the file is read, and {option} would write over it: name another")))
            }
            None => Ok(()),
        }
    }
}

/// Where the results of `embed` go.
pub enum Sink {
    /// JSON lines to standard output.
    Lines,
    /// JSON lines to a file.
    LinesFile(OutFile),
    /// One array to a file; failed rows are listed on standard error.
    Array {
        /// The file.
        file: OutFile,
        /// Values of a row.
        dim: usize,
        /// Rows so far.
        rows: u64,
    },
}

impl Sink {
    /// An array of rows of `dim` values; how many rows is filled in at the end.
    ///
    /// # Errors
    /// As [`OutFile::write`].
    pub fn array(mut file: OutFile, dim: usize) -> Result<Self, Failure> {
        file.write(&npy_header(0, dim))?;
        Ok(Sink::Array { file, dim, rows: 0 })
    }

    /// Writes what an input came to; without its vector, where that is not `dense`ly wanted.
    ///
    /// # Errors
    /// As [`write_stdout`] and [`OutFile::write`].
    pub fn vector(
        &mut self,
        index: u64,
        id: Option<&RawValue>,
        embedded: &Embedded,
        dense: bool,
    ) -> Result<(), Failure> {
        let values = embedded.embedding.as_slice();
        if let Sink::Array { file, rows, .. } = self {
            *rows += 1;
            return file.write(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
        let count = embedded.segments.len();
        self.line(&VectorLine {
            index,
            id,
            modality: embedded.modality.name(),
            tokens: embedded.tokens,
            truncated: embedded.truncated,
            segments: (count > 1).then_some(count),
            start_s: None,
            end_s: None,
            chunk: None,
            start: None,
            end: None,
            dim: dense.then_some(values.len()),
            embedding: dense.then_some(values),
            sparse: embedded
                .sparse
                .as_ref()
                .map(|sparse| SparseBody { indices: &sparse.indices, values: &sparse.values }),
            multi: embedded.multi.as_ref().map(|rows| rows.iter().map(|row| row.as_slice()).collect()),
            features: embedded.features.as_ref().map(FeaturesBody::from),
        })
    }

    /// Writes the vector of each segment of an input; that of the input where it has no time.
    ///
    /// # Errors
    /// As [`Sink::vector`].
    pub fn segments(
        &mut self,
        index: u64,
        id: Option<&RawValue>,
        embedded: &Embedded,
        dense: bool,
    ) -> Result<(), Failure> {
        if embedded.segments.is_empty() {
            return self.vector(index, id, embedded, dense);
        }
        for segment in &embedded.segments {
            let values = segment.embedding.as_slice();
            self.line(&VectorLine {
                index,
                id,
                modality: embedded.modality.name(),
                tokens: segment.tokens,
                truncated: false,
                segments: None,
                start_s: Some(segment.span.start_s),
                end_s: Some(segment.span.end_s),
                chunk: None,
                start: None,
                end: None,
                dim: dense.then_some(values.len()),
                embedding: dense.then_some(values),
                sparse: None,
                multi: None,
                features: None,
            })?;
        }
        Ok(())
    }

    /// Writes the vector of each chunk of a text.
    ///
    /// # Errors
    /// As [`Sink::vector`].
    pub fn chunks(&mut self, index: u64, id: Option<&RawValue>, embedded: &Embedded) -> Result<(), Failure> {
        for (at, chunk) in embedded.chunks.iter().enumerate() {
            let values = chunk.embedding.as_slice();
            self.line(&VectorLine {
                index,
                id,
                modality: embedded.modality.name(),
                tokens: chunk.tokens,
                truncated: embedded.truncated,
                segments: None,
                start_s: None,
                end_s: None,
                chunk: Some(at),
                start: Some(chunk.bytes.start),
                end: Some(chunk.bytes.end),
                dim: Some(values.len()),
                embedding: Some(values),
                sparse: None,
                multi: None,
                features: None,
            })?;
        }
        Ok(())
    }

    /// Writes why an input has no vector.
    ///
    /// # Errors
    /// As [`Sink::vector`].
    pub fn fault(&mut self, index: u64, id: Option<&RawValue>, fault: &Fault) -> Result<(), Failure> {
        if let Sink::Array { file, dim, rows } = self {
            *rows += 1;
            let id = id.map_or_else(String::new, |id| format!(" (id {id})"));
            say(format_args!("input {index}{id}: {}: {}", fault.kind, fault.message));
            return file.write(&f32::NAN.to_le_bytes().repeat(*dim));
        }
        self.line(&ErrorLine { index, id, error: fault.into() })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        match self {
            Sink::Lines => json_line(line),
            Sink::LinesFile(file) => file.write(&line_of(line)),
            Sink::Array { .. } => unreachable!("an array has no lines"),
        }
    }

    /// Completes what was written.
    ///
    /// # Errors
    /// As [`OutFile::finish`].
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Sink::Lines => Ok(()),
            Sink::LinesFile(file) => file.finish(),
            Sink::Array { mut file, dim, rows } => {
                file.0.write_at_start(&npy_header(rows, dim)).map_err(unwritten)?;
                file.finish()
            }
        }
    }
}

/// The header of an array of `[rows, dim]` little-endian f32, always 128 bytes, so that it can be written again.
///
/// # Source
/// `numpy.lib.format`, version 1.0.
fn npy_header(rows: u64, dim: usize) -> Vec<u8> {
    const LENGTH: usize = 128;
    let about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((LENGTH - 10) as u16).to_le_bytes());
    header.extend(about.as_bytes());
    header.resize(LENGTH - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use omniburn::ErrorKind;

    use super::*;

    #[test]
    fn the_array_header_is_of_one_length_whatever_the_numbers() {
        for (rows, dim) in [(0, 1), (7, 64), (u64::MAX, usize::MAX)] {
            let header = npy_header(rows, dim);
            assert_eq!(header.len(), 128);
            assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
            assert!(header.ends_with(b" \n"));
            assert!(String::from_utf8_lossy(&header).contains(&format!("'shape': ({rows}, {dim}), }}")));
        }
    }

    #[test]
    fn numbers_are_written_as_the_shortest_f32_and_fields_in_the_promised_order() {
        let id = RawValue::from_string("1.50".into()).unwrap();
        let line = VectorLine {
            index: 0,
            id: Some(&id),
            modality: "text",
            tokens: 3,
            truncated: false,
            segments: None,
            start_s: None,
            end_s: None,
            chunk: None,
            start: None,
            end: None,
            dim: Some(3),
            embedding: Some(&[0.1, -1e-9, 0.33333334]),
            sparse: None,
            multi: None,
            features: None,
        };
        assert_eq!(
            String::from_utf8(line_of(&line)).unwrap(),
            "{\"index\":0,\"id\":1.50,\"modality\":\"text\",\"tokens\":3,\"truncated\":false,\"dim\":3,\
             \"embedding\":[0.1,-1e-9,0.33333334]}\n"
        );
    }

    #[test]
    fn a_failed_input_names_kind_and_message() {
        let fault = Fault { kind: ErrorKind::BadItem, message: "no".into() };
        let line = ErrorLine { index: 3, id: None, error: (&fault).into() };
        assert_eq!(
            String::from_utf8(line_of(&line)).unwrap(),
            "{\"index\":3,\"error\":{\"kind\":\"bad_item\",\"message\":\"no\"}}\n"
        );
    }

    #[test]
    fn an_array_appears_when_it_is_complete_with_the_number_of_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npy");
        let to = destination(&path).unwrap();
        let mut sink = Sink::array(OutFile::create_patched(&to).unwrap(), 2).unwrap();
        let fault = Fault { kind: ErrorKind::Empty, message: "nothing".into() };
        sink.fault(0, None, &fault).unwrap();
        assert!(!path.exists());
        sink.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 8);
        assert!(String::from_utf8_lossy(&bytes).contains("(1, 2)"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(destination(folder.path()).err().map(|e| e.code()), Some(2));
    }
}
