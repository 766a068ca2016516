//! All vectors as one file that is read in order: a cache of what the database has, made anew on any mismatch.
//!
//! The file begins with what it was made from, the digests of all pages, and a checksum a block. A block whose checksum differs
//! is not searched: the cache is thrown away and made from the pages, whose own digests are checked then. Where the cache
//! cannot be written, the matrix stays in memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use half::f16;
use sha2::{Digest, Sha256};

use super::Database;
use super::pages::{PAGE_ROWS, PageHead, bytes_of};
use crate::error::IndexError;
use crate::scan::{BLOCK_ROWS, Blocks};

const MAGIC: &[u8; 8] = b"OMNIMTX1";
/// The cache's name in the folder of an index.
const CACHE: &str = "matrix.cache";
/// Magic, digest, rows, dim.
const FIXED_BYTES: usize = 8 + 32 + 8 + 8;

/// The rows of an index as they lie in its cache.
pub(super) struct Matrix {
    dim: usize,
    rows: usize,
    checksums: Vec<u32>,
    place: Place,
}

enum Place {
    File { file: File, path: PathBuf, data: u64 },
    Memory(Vec<u8>),
}

/// What the cache must have been made from.
fn digest_of(heads: &[PageHead], dim: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update((dim as u64).to_le_bytes());
    for head in heads {
        digest.update((head.count as u64).to_le_bytes());
        digest.update(head.digest);
    }
    digest.finalize().into()
}

impl Matrix {
    /// The matrix of an index: its cache where that is of these pages, else one made anew.
    ///
    /// # Errors
    /// [`IndexError::PageDigest`] and whatever else the database gives; a cache that cannot be written is none.
    pub fn open(db: &Database, heads: &[PageHead], dim: usize) -> Result<Self, IndexError> {
        let path = db.folder().join(CACHE);
        let (rows, digest) = (heads.iter().map(|head| head.count).sum(), digest_of(heads, dim));
        match Self::read(&path, &digest, rows, dim) {
            Ok(Some(matrix)) => return Ok(matrix),
            Ok(None) => {}
            Err(error) => tracing::debug!("{}: {error}", path.display()),
        }
        Self::make(db, heads, &path, &digest, rows, dim)
    }

    /// Makes the matrix anew, whatever lies there.
    ///
    /// # Errors
    /// As [`Matrix::open`].
    pub fn again(db: &Database, heads: &[PageHead], dim: usize) -> Result<Self, IndexError> {
        let path = db.folder().join(CACHE);
        let (rows, digest) = (heads.iter().map(|head| head.count).sum(), digest_of(heads, dim));
        Self::make(db, heads, &path, &digest, rows, dim)
    }

    fn read(path: &Path, digest: &[u8; 32], rows: usize, dim: usize) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let data = (FIXED_BYTES + 4 * blocks + 4) as u64;
        if file.metadata()?.len() != data + (rows * dim * 2) as u64 {
            return Ok(None);
        }
        let mut head = vec![0; data as usize];
        file.read_exact(&mut head)?;
        let (body, checksum) = head.split_at(head.len() - 4);
        let expected = header(digest, rows, dim);
        if body[..FIXED_BYTES] != expected || crc32fast::hash(body).to_le_bytes() != checksum {
            return Ok(None);
        }
        let checksums = body[FIXED_BYTES..].as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(Some(Self { dim, rows, checksums, place: Place::File { file, path: path.into(), data } }))
    }

    fn make(
        db: &Database,
        heads: &[PageHead],
        path: &Path,
        digest: &[u8; 32],
        rows: usize,
        dim: usize,
    ) -> Result<Self, IndexError> {
        const { assert!(PAGE_ROWS.is_multiple_of(BLOCK_ROWS)) };
        let part = path.with_extension(format!("{}.part", std::process::id()));
        // The checksums come first and are known last: room is left for them.
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let mut writing = File::create(&part).and_then(|mut file| {
            file.write_all(&vec![0; FIXED_BYTES + 4 * blocks + 4])?;
            Ok(file)
        });
        let mut memory = Vec::new();
        let mut checksums = Vec::with_capacity(blocks);
        for (at, page) in heads.iter().enumerate() {
            let bytes = bytes_of(db, page, dim)?;
            checksums.extend(bytes.chunks(BLOCK_ROWS * dim * 2).map(crc32fast::hash));
            match writing.as_mut().map(|file| file.write_all(&bytes)) {
                Ok(Ok(())) => {}
                // Into memory from the beginning, where the file fails in the middle.
                Ok(Err(error)) => {
                    writing = Err(error);
                    for page in &heads[..at] {
                        memory.extend(bytes_of(db, page, dim)?);
                    }
                    memory.extend(bytes);
                }
                Err(_) => memory.extend(bytes),
            }
        }
        let mut head = header(digest, rows, dim).to_vec();
        head.extend(checksums.iter().flat_map(|sum| sum.to_le_bytes()));
        head.extend(crc32fast::hash(&head).to_le_bytes());
        let placed = writing.and_then(|mut file| {
            io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
            file.write_all(&head)?;
            drop(file);
            std::fs::rename(&part, path)
        });
        let reopened = placed.and_then(|()| Self::read(path, digest, rows, dim));
        match reopened {
            Ok(Some(matrix)) => Ok(matrix),
            // Another process has put its own there, or nothing can be written.
            other => {
                let _ = std::fs::remove_file(&part);
                if let Err(error) = other {
                    tracing::debug!("{}: kept in memory: {error}", path.display());
                }
                if memory.len() != rows * dim * 2 {
                    memory.clear();
                    for page in heads {
                        memory.extend(bytes_of(db, page, dim)?);
                    }
                }
                Ok(Self { dim, rows, checksums, place: Place::Memory(memory) })
            }
        }
    }

    /// True where it is read from a file, which may be damaged.
    pub fn is_cached(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }
}

fn header(digest: &[u8; 32], rows: usize, dim: usize) -> [u8; FIXED_BYTES] {
    let mut head = [0; FIXED_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..40].copy_from_slice(digest);
    head[40..48].copy_from_slice(&(rows as u64).to_le_bytes());
    head[48..].copy_from_slice(&(dim as u64).to_le_bytes());
    head
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                into = &mut into[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

impl Blocks for Matrix {
    fn rows(&self) -> usize {
        self.rows
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, block: usize, into: &mut Vec<f16>) -> Result<(), IndexError> {
        let rows = (self.rows - block * BLOCK_ROWS).min(BLOCK_ROWS);
        into.resize(rows * self.dim, f16::ZERO);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(into);
        let start = block * BLOCK_ROWS * self.dim * 2;
        match &self.place {
            Place::Memory(memory) => bytes.copy_from_slice(&memory[start..start + bytes.len()]),
            Place::File { file, path, data } => {
                read_at(file, bytes, data + start as u64)
                    .map_err(|source| IndexError::Io { path: path.clone(), source })?;
                if crc32fast::hash(bytes) != self.checksums[block] {
                    let source = io::Error::new(io::ErrorKind::InvalidData, "a block of the cache is damaged");
                    return Err(IndexError::Io { path: path.clone(), source });
                }
            }
        }
        if cfg!(target_endian = "big") {
            into.iter_mut().for_each(|value| *value = f16::from_bits(value.to_bits().swap_bytes()));
        }
        Ok(())
    }
}
