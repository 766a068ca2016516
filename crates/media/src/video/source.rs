//! Where a video comes from.

use std::path::PathBuf;
use std::sync::Arc;

use crate::file::MediaFile;

/// Where a video comes from.
#[derive(Clone, Debug)]
pub enum VideoSource {
    /// A file.
    File(MediaFile),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
}

impl VideoSource {
    /// A file, opened at each reading.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(MediaFile::new(path))
    }
}
