//! Where a video comes from.

use std::path::PathBuf;
use std::sync::Arc;

/// Where a video comes from.
#[derive(Clone, Debug)]
pub enum VideoSource {
    /// A file.
    File(PathBuf),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
}
