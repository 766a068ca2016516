//! Why something cannot be written.

use std::io;
use std::path::PathBuf;

/// Why something cannot be written. `path` is the path as it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A path that ends in no name, such as `..`.
    #[error("{}: not a file name", path.display())]
    NotAName {
        /// The path.
        path: PathBuf,
    },
    /// A folder where a file was expected.
    #[error("{}: is a folder, expected a file", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// Symbolic links that lead to no file.
    #[error("{}: a symbolic link in a circle", path.display())]
    Circle {
        /// The path.
        path: PathBuf,
    },
    /// Something that is neither a file nor a stream.
    #[error("{}: is {found}, expected a file, a pipe or a character device", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file that nobody may write.
    #[error("{}: the file is read-only (mode {mode:04o}); it is not replaced", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder of the file is not there.
    #[error("{}: its folder {} is not there", path.display(), folder.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of the file takes no new file.
    #[error(
        "{}: no file can be made in the folder {}, and results are written there until they are complete: {source}",
        path.display(),
        folder.display()
    )]
    ClosedFolder {
        /// The path.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The place to write to is taken.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Whatever else the operating system says.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OutputError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| OutputError::Io { path, source }
    }

    /// Whether whoever reads a pipe has gone away.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, OutputError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
