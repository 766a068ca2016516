//! Read-only files as bytes.

use std::fs::File;
use std::io;
use std::ops::Deref;
#[cfg(feature = "tensors")]
use std::path::Path;

#[cfg(feature = "tensors")]
use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;

/// A whole file, mapped; pages are read when touched and shared between processes.
///
/// The bytes stand for the file: whoever truncates it while it is mapped ends the process with a bus error, as with
/// every memory map, so what is mapped is replaced by renaming and never edited in place.
#[derive(Debug)]
pub struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps a file that may be closed afterwards.
    ///
    /// # Errors
    /// Whatever mapping gives; an empty file gives empty bytes.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private and read-only, and outlives every view because those borrow from it. What is mapped is
        // replaced by renaming, so the mapped inode keeps its content while it is mapped.
        Ok(Self(Some(unsafe { Mmap::map(file)? })))
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// As [`MappedFile`], as Burn bytes.
///
/// # Errors
/// Whatever opening or mapping gives.
#[cfg(feature = "tensors")]
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let map = MappedFile::of(&File::open(path)?)?;
    if map.is_empty() {
        return Ok(Bytes::from_bytes_vec(Vec::new()));
    }
    Ok(Bytes::from_shared(bytes::Bytes::from_owner(map), AllocationProperty::File))
}

/// Bytes that are part of the program, shared and not copied.
#[cfg(feature = "tensors")]
pub fn static_bytes(bytes: &'static [u8]) -> Bytes {
    Bytes::from_shared(bytes::Bytes::from_static(bytes), AllocationProperty::File)
}
