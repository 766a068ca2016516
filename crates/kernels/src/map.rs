//! Mapping a read-only file as Burn bytes.

use std::fs::File;
use std::io;
use std::path::Path;

use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;

/// Maps a whole file; pages are read when touched and shared between processes.
///
/// The bytes stand for the file: whoever truncates it while it is mapped ends the process with a bus error, as with
/// every memory map, so records are replaced by renaming and never edited in place.
///
/// # Errors
/// Whatever opening or mapping gives; an empty file gives empty bytes.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::from_bytes_vec(Vec::new()));
    }
    // SAFETY: the map is private and read-only, and outlives every view because `from_owner` keeps it. Records are
    // replaced by renaming, so the mapped inode keeps its content while it is mapped.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_shared(bytes::Bytes::from_owner(map), AllocationProperty::File))
}

/// Bytes that are part of the program, shared and not copied.
pub fn static_bytes(bytes: &'static [u8]) -> Bytes {
    Bytes::from_shared(bytes::Bytes::from_static(bytes), AllocationProperty::File)
}
