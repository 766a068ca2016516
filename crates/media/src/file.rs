//! A file that is read more than once, opened once: its header is read before there is room for its content.
//!
//! What lives here: handles that are kept between two readings, and what tells whether a file is still the one that was
//! read first. What does not: the bytes themselves (`source`), and what is read of them.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::MediaError;

/// Handles that all files of the process keep between two readings: a fraction of the 1,024 descriptors that a process has by
/// default, 256 on macOS. A file beyond them is opened again, and compared with what it was.
const KEPT_HANDLES: usize = 64;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// An image, audio or video file.
///
/// Clones are one file. [`MediaFile::new`] opens it at each reading; [`MediaFile::kept`] opens it at the first, and gives every
/// later reading the same handle, or an error where the file is not what it was.
#[derive(Debug, Clone)]
pub struct MediaFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// `None`: opened at each reading.
    first: Option<Mutex<First>>,
}

/// What the first reading left.
#[derive(Debug, Default)]
struct First {
    state: Option<State>,
    handle: Option<Handle>,
}

/// What tells a file from another one, and from itself after it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and number on it, where the operating system has them.
    node: Option<(u64, u64)>,
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let node = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let node = None;
        Self { bytes: metadata.len(), modified: metadata.modified().ok(), node }
    }
}

/// A handle that is counted while it is kept.
#[derive(Debug)]
struct Handle(Arc<File>);

impl Handle {
    /// `None` where as many as may be are kept.
    fn keep(file: &Arc<File>) -> Option<Self> {
        let more = |kept| (kept < KEPT_HANDLES).then_some(kept + 1);
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(file)))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MediaFile {
    /// The file at a path, opened at each reading.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Inner { path: path.into(), first: None }))
    }

    /// The same path, opened at the first reading and kept open until the last clone is gone. Where 64 handles are kept in the
    /// process already, the file is opened again at a later reading instead.
    ///
    /// A reading after the first one fails with [`MediaError::Changed`] where the file was written to or replaced since.
    #[must_use]
    pub fn kept(&self) -> Self {
        Self(Arc::new(Inner { path: self.0.path.clone(), first: Some(Mutex::default()) }))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The path as messages show it.
    pub(crate) fn name(&self) -> String {
        self.0.path.display().to_string()
    }

    /// The file from its first byte on.
    ///
    /// # Errors
    /// [`MediaError::NotFound`], [`MediaError::NotAFile`] or [`MediaError::Unreadable`] for the path; [`MediaError::Changed`] of a
    /// kept file that is not what it was at the first reading.
    pub fn open(&self) -> Result<FileReader, MediaError> {
        let path = self.path();
        let Some(first) = &self.0.first else {
            let (file, bytes) = open_file(path)?;
            return Ok(FileReader { file: Arc::new(file), at: 0, bytes });
        };
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &first.handle {
            Some(Handle(file)) => Arc::clone(file),
            None => Arc::new(open_file(path)?.0),
        };
        let metadata = file.metadata().map_err(|error| failed(path, error))?;
        let state = State::of(&metadata);
        if *first.state.get_or_insert(state) != state {
            return Err(MediaError::Changed { path: path.to_owned() });
        }
        if first.handle.is_none() {
            first.handle = Handle::keep(&file);
        }
        Ok(FileReader { file, at: 0, bytes: state.bytes })
    }
}

fn failed(path: &Path, source: io::Error) -> MediaError {
    let path = path.to_owned();
    match source.kind() {
        // A file used as a folder ("a.png/b") is as absent as a missing one.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => MediaError::NotFound { path, source },
        _ => MediaError::Unreadable { path, source },
    }
}

/// Opens a regular file and gives its size in bytes. Pipes are refused because opening one can wait for ever.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), MediaError> {
    let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    if !metadata.is_file() {
        return Err(MediaError::NotAFile {
            path: path.to_owned(),
            found: if metadata.is_dir() { "a folder" } else { "a pipe, socket or device" },
        });
    }
    Ok((File::open(path).map_err(|error| failed(path, error))?, metadata.len()))
}

/// A place in a file whose handle others read, too.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<File>,
    at: u64,
    bytes: u64,
}

impl FileReader {
    /// Number of bytes when it was opened.
    pub fn length(&self) -> u64 {
        self.bytes
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, step) = match to {
            SeekFrom::Start(at) => {
                self.at = at;
                return Ok(at);
            }
            SeekFrom::End(step) => (self.file.metadata()?.len(), step),
            SeekFrom::Current(step) => (self.at, step),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the first byte");
        self.at = from.checked_add_signed(step).ok_or_else(before)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The file's bytes, or its error.
    fn read(file: &MediaFile) -> Result<Vec<u8>, MediaError> {
        let mut bytes = Vec::new();
        file.open()?.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn a_kept_file_is_opened_once_and_read_again_from_its_first_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, b"first").unwrap();
        let (anew, kept) = (MediaFile::new(&path), MediaFile::new(&path).kept());
        let mut half = kept.open().unwrap();
        half.read_exact(&mut [0; 2]).unwrap();
        // Another file takes its name: whoever opened the first reads on in it.
        std::fs::write(folder.path().join("b.bin"), b"second").unwrap();
        std::fs::rename(folder.path().join("b.bin"), &path).unwrap();
        assert_eq!(read(&kept).unwrap(), b"first");
        assert_eq!(read(&kept.clone()).unwrap(), b"first");
        assert_eq!(read(&anew).unwrap(), b"second");
        let mut rest = Vec::new();
        half.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"rst");
        assert_eq!((half.seek(SeekFrom::End(-1)).unwrap(), half.seek(SeekFrom::Current(-4)).unwrap()), (4, 0));
        assert!(half.seek(SeekFrom::Current(-1)).is_err());
        // One that was kept afresh sees the new file.
        assert_eq!(read(&kept.kept()).unwrap(), b"second");
    }

    #[test]
    fn a_file_that_grows_between_two_readings_is_refused_by_name() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"half").unwrap();
        let (anew, kept) = (MediaFile::new(file.path()), MediaFile::new(file.path()).kept());
        assert_eq!(read(&kept).unwrap(), b"half");
        file.write_all(b" and whole").unwrap();
        let refused = read(&kept).unwrap_err();
        assert!(matches!(&refused, MediaError::Changed { path } if path == file.path()), "{refused}");
        assert_eq!(read(&anew).unwrap(), b"half and whole");
    }

    #[test]
    fn beyond_the_handles_that_are_kept_a_file_is_opened_again_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<MediaFile> = (0..2 * KEPT_HANDLES)
            .map(|n| {
                let path = folder.path().join(n.to_string());
                std::fs::write(&path, n.to_string()).unwrap();
                MediaFile::new(path).kept()
            })
            .collect();
        files.iter().for_each(|file| drop(file.open().unwrap()));
        let holds = |file: &&MediaFile| file.0.first.as_ref().unwrap().lock().unwrap().handle.is_some();
        let (holding, others): (Vec<_>, Vec<_>) = files.iter().partition(holds);
        // Other tests keep some, too.
        assert!(!holding.is_empty() && holding.len() <= KEPT_HANDLES, "{}", holding.len());
        for (n, file) in files.iter().enumerate() {
            assert_eq!(read(file).unwrap(), n.to_string().into_bytes());
        }
        let replaced = others[others.len() - 1];
        std::fs::write(folder.path().join("new"), b"something else").unwrap();
        std::fs::rename(folder.path().join("new"), replaced.path()).unwrap();
        assert!(matches!(read(replaced), Err(MediaError::Changed { .. })));
        drop(files);
        // What was kept is free again.
        let more: Vec<MediaFile> = (0..2).map(|n| MediaFile::new(folder.path().join(n.to_string())).kept()).collect();
        more.iter().for_each(|file| drop(file.open().unwrap()));
        assert!(more.iter().any(|file| holds(&file)));
    }
}
