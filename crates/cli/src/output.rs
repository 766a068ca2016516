//! Results as they leave: JSON lines or one array, to standard output or to a file that appears when it is complete.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use omniburn::Embedded;
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
    /// How many segments a long sound or film was cut into.
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<usize>,
    /// Where the segment of this line begins and ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_s: Option<f64>,
    dim: usize,
    embedding: &'a [f32],
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

/// A file that takes its place when it is complete, and leaves nothing behind otherwise. Killed, it leaves
/// `.NAME.<pid>.part`, which the next one of that name removes, and says so. A pipe or a device is written as it is.
pub struct WholeFile {
    path: PathBuf,
    /// Where the bytes are until they are complete; the same as `path` for a pipe or a device.
    work: PathBuf,
    /// Locked while this process lives, where the file system knows locks.
    file: Option<BufWriter<File>>,
}

impl WholeFile {
    /// Starts a file that will appear at `path`.
    ///
    /// # Errors
    /// A usage failure when nothing can be written there.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let wrong = |e: io::Error| Failure::usage(format!("{}: {e}", path.display()));
        let name = path.file_name().ok_or_else(|| Failure::usage(format!("{}: not a file name", path.display())))?;
        if path.is_dir() {
            return Err(Failure::usage(format!("{}: is a folder", path.display())));
        }
        // A file renamed over `/dev/null` would take its place for the whole machine.
        if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            let file = File::options().write(true).open(path).map_err(wrong)?;
            return Ok(Self { path: path.into(), work: path.into(), file: Some(BufWriter::new(file)) });
        }
        remove_leftovers(path, name);
        // Taken are the names of other files of this process, and of a dead process of the same number.
        for n in 0..1000 {
            let again = if n == 0 { String::new() } else { format!("-{n}") };
            let mut part = OsStr::new(".").to_os_string();
            part.push(name);
            part.push(format!(".{}{again}.part", std::process::id()));
            let work = path.with_file_name(part);
            let file = match File::create_new(&work) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(wrong(e)),
            };
            let held = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            // Another process that looked for leftovers before the lock was there has removed it.
            if held && work.exists() {
                return Ok(Self { path: path.into(), work, file: Some(BufWriter::new(file)) });
            }
        }
        Err(wrong(io::ErrorKind::AlreadyExists.into()))
    }

    fn writer(&mut self) -> &mut BufWriter<File> {
        self.file.as_mut().expect("the file is open until it is finished")
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer().write_all(bytes).map_err(|e| self.failure(&e))
    }

    /// Writes bytes over the beginning of the file.
    fn write_at_start(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let writer = self.writer();
        writer.seek(SeekFrom::Start(0)).and_then(|_| writer.write_all(bytes)).map_err(|e| self.failure(&e))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Whatever the operating system says; then nothing is left.
    pub fn finish(mut self) -> Result<(), Failure> {
        let file = self.file.take().expect("the file is open until it is finished");
        let flushed = file.into_inner().map_err(io::IntoInnerError::into_error);
        // The file stays open, and so locked, until it has its name: until then it could be taken for a leftover.
        let placed = flushed.and_then(|file| {
            if self.is_direct() {
                return Ok(());
            }
            file.sync_all()?;
            fs::rename(&self.work, &self.path)
        });
        placed.map_err(|e| {
            self.remove_part();
            self.failure(&e)
        })
    }

    fn is_direct(&self) -> bool {
        self.work == self.path
    }

    fn remove_part(&self) {
        if !self.is_direct() {
            let _ = fs::remove_file(&self.work);
        }
    }

    fn failure(&self, e: &io::Error) -> Failure {
        Failure::with_code(SOME_FAILED, anyhow::anyhow!("{}: {e}", self.path.display()))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.remove_part();
        }
    }
}

/// Removes what processes that were killed left of a file of this name, and says so. What cannot be removed is no reason to
/// stop.
fn remove_leftovers(path: &Path, name: &OsStr) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_part_of(&entry.file_name(), name) {
            continue;
        }
        let part = entry.path();
        // A lock that is free is that of a dead process.
        let Ok(file) = File::options().write(true).open(&part) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        match fs::remove_file(&part) {
            Ok(()) => say(format_args!("removed {}, left by a run that was killed", part.display())),
            Err(e) => say(format_args!("{} is left over and could not be removed: {e}", part.display())),
        }
    }
}

/// Whether `part` is `.NAME.<pid>.part` or `.NAME.<pid>-<n>.part`.
fn is_part_of(part: &OsStr, name: &OsStr) -> bool {
    let part = part.as_encoded_bytes().strip_prefix(b".").and_then(|rest| rest.strip_prefix(name.as_encoded_bytes()));
    let middle = part.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".part"));
    middle.is_some_and(|middle| {
        let mut numbers = middle.splitn(2, |&b| b == b'-');
        numbers.all(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    })
}

/// Where the results of `embed` go.
pub enum Sink {
    /// JSON lines to standard output.
    Lines,
    /// JSON lines to a file.
    LinesFile(WholeFile),
    /// One array to a file; failed rows are listed on standard error.
    Array {
        /// The file.
        file: WholeFile,
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
    /// As [`WholeFile::write`].
    pub fn array(mut file: WholeFile, dim: usize) -> Result<Self, Failure> {
        file.write(&npy_header(0, dim))?;
        Ok(Sink::Array { file, dim, rows: 0 })
    }

    /// Writes the vector of an input.
    ///
    /// # Errors
    /// As [`write_stdout`] and [`WholeFile::write`].
    pub fn vector(&mut self, index: u64, id: Option<&RawValue>, embedded: &Embedded) -> Result<(), Failure> {
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
            dim: values.len(),
            embedding: values,
        })
    }

    /// Writes the vector of each segment of an input; that of the input where it has no time.
    ///
    /// # Errors
    /// As [`Sink::vector`].
    pub fn segments(&mut self, index: u64, id: Option<&RawValue>, embedded: &Embedded) -> Result<(), Failure> {
        if embedded.segments.is_empty() {
            return self.vector(index, id, embedded);
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
                dim: values.len(),
                embedding: values,
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
    /// As [`WholeFile::finish`].
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Sink::Lines => Ok(()),
            Sink::LinesFile(file) => file.finish(),
            Sink::Array { mut file, dim, rows } => {
                file.write_at_start(&npy_header(rows, dim))?;
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
            dim: 3,
            embedding: &[0.1, -1e-9, 0.33333334],
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
    fn a_file_appears_when_it_is_complete_and_leaves_nothing_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npy");
        drop(WholeFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut sink = Sink::array(WholeFile::create(&path).unwrap(), 2).unwrap();
        let fault = Fault { kind: ErrorKind::Empty, message: "nothing".into() };
        sink.fault(0, None, &fault).unwrap();
        assert!(!path.exists());
        sink.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 8);
        assert!(String::from_utf8_lossy(&bytes).contains("(1, 2)"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(WholeFile::create(folder.path()).err().map(|e| e.code()), Some(2));
    }

    #[test]
    fn what_a_killed_run_left_of_a_file_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let others = [".out.12.part", ".out.npy.12x.part", "out.npy.12.part", ".out.npy.part"];
        let dead = [".out.npy.12.part", ".out.npy.7-1.part"];
        for name in others.iter().chain(&dead) {
            fs::write(at(name), "half").unwrap();
        }
        let first = WholeFile::create(&at("out.npy")).unwrap();
        let second = WholeFile::create(&at("out.npy")).unwrap();
        assert!(others.iter().all(|name| at(name).exists()) && !dead.iter().any(|name| at(name).exists()));
        assert!(first.work.exists() && second.work.exists() && first.work != second.work);
        first.finish().unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len() + 1);
    }
}
