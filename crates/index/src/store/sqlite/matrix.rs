//! All vectors as one file that is searched: a cache of what the database has, made anew on any mismatch.
//!
//! The file has what it was made from (the digests of all pages), a checksum a block of codes, the blocks, and every row as the
//! pages have it with a checksum of its own. It is mapped; where it cannot be, or a mapped file could not be replaced, it is
//! read. A block is checked once while the file is open, a row whenever it is read: where a checksum differs the cache is thrown
//! away and made from the pages, whose own digests are checked then. Where the cache cannot be written, all of it is in memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use half::f16;
use half::slice::HalfFloatSliceExt;
use omniburn_kernels::MappedFile;
use omniburn_kernels::cpu::nearest::{BLOCK_ROWS, CodedRows, block_bytes, encode};

use crate::error::IndexError;

const MAGIC: &[u8; 8] = b"OMNIMTX2";
/// Magic, digest, rows, values of a row.
const MADE_FROM: usize = 8 + 32 + 8 + 8;
/// And the largest length of a row.
const FIXED: usize = MADE_FROM + 8;
/// What a block begins on.
const LINE: usize = 64;

/// What a matrix is made from.
pub(super) struct Pages<'a> {
    /// Of all pages.
    pub digest: [u8; 32],
    /// Rows in all.
    pub rows: usize,
    /// Values of a row.
    pub dim: usize,
    /// How many there are.
    pub count: usize,
    /// The rows of one: `[rows, dim]` f16, little-endian; a whole number of blocks in each but the last.
    pub read: &'a dyn Fn(usize) -> Result<Vec<u8>, IndexError>,
}

impl Pages<'_> {
    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }

    /// Bytes before the first block.
    fn head(&self) -> usize {
        (FIXED + 4 * self.blocks() + 4).next_multiple_of(LINE)
    }

    /// What the file begins with.
    fn made_from(&self) -> [u8; MADE_FROM] {
        let mut head = [0; MADE_FROM];
        head[..8].copy_from_slice(MAGIC);
        head[8..40].copy_from_slice(&self.digest);
        head[40..48].copy_from_slice(&(self.rows as u64).to_le_bytes());
        head[48..].copy_from_slice(&(self.dim as u64).to_le_bytes());
        head
    }

    /// The head with its checksum in the last four bytes.
    fn whole_head(&self, made: &Made) -> Vec<u8> {
        let mut head = self.made_from().to_vec();
        head.extend(made.longest.to_le_bytes());
        head.resize(FIXED, 0);
        head.extend(made.checksums.iter().flat_map(|sum| sum.to_le_bytes()));
        head.resize(self.head() - 4, 0);
        head.extend(crc32fast::hash(&head).to_le_bytes());
        head
    }

    fn layout(&self) -> Layout {
        Layout { rows: self.rows, dim: self.dim }
    }
}

/// Where things are behind the head.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: usize,
    dim: usize,
}

impl Layout {
    fn block(self, block: usize) -> Range<usize> {
        let rows = (self.rows - block * BLOCK_ROWS).min(BLOCK_ROWS);
        let start = block * block_bytes(BLOCK_ROWS, self.dim);
        start..start + block_bytes(rows, self.dim)
    }

    /// Bytes of a row and its checksum.
    fn row_bytes(self) -> usize {
        2 * self.dim + 4
    }

    fn row(self, row: usize) -> Range<usize> {
        let start = block_bytes(self.rows, self.dim) + row * self.row_bytes();
        start..start + self.row_bytes()
    }

    fn all(self) -> usize {
        block_bytes(self.rows, self.dim) + self.rows * self.row_bytes()
    }
}

/// What is known once everything was read.
struct Made {
    checksums: Vec<u32>,
    longest: f32,
}

/// The rows of an index as they are searched.
pub(super) struct Matrix {
    path: PathBuf,
    layout: Layout,
    digest: [u8; 32],
    made: Made,
    /// Blocks whose checksum was seen to be right.
    checked: Vec<AtomicBool>,
    place: Place,
}

enum Place {
    /// With the bytes before the first block.
    Mapped(MappedFile, usize),
    Read(File, usize),
    /// Without a head.
    Memory(Vec<u8>),
}

impl Matrix {
    /// The matrix of an index: its cache where that is of these pages, else one made anew.
    ///
    /// # Errors
    /// Whatever reading a page gives; a cache that cannot be written is none.
    pub fn open(path: &Path, pages: &Pages<'_>) -> Result<Self, IndexError> {
        match Self::read(path, pages) {
            Ok(Some(matrix)) => return Ok(matrix),
            Ok(None) => {}
            Err(error) => tracing::debug!("{}: {error}", path.display()),
        }
        Self::make(path, pages)
    }

    fn read(path: &Path, pages: &Pages<'_>) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if file.metadata()?.len() != (pages.head() + pages.layout().all()) as u64 {
            return Ok(None);
        }
        let mut head = vec![0; pages.head()];
        file.read_exact(&mut head)?;
        let (body, checksum) = head.split_at(head.len() - 4);
        if body[..MADE_FROM] != pages.made_from() || crc32fast::hash(body).to_le_bytes() != checksum {
            return Ok(None);
        }
        let numbers = body[MADE_FROM..].as_chunks::<4>().0;
        let checksums = numbers[2..2 + pages.blocks()].iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let made = Made { checksums, longest: f32::from_le_bytes(numbers[0]) };
        // Windows lets nobody replace a file that is mapped.
        let mapped = if cfg!(windows) { None } else { MappedFile::of(&file).ok() };
        let place = match mapped.filter(|mapped| mapped.len() == pages.head() + pages.layout().all()) {
            Some(mapped) => Place::Mapped(mapped, pages.head()),
            None => Place::Read(file, pages.head()),
        };
        Ok(Some(Self::of(path, pages, made, place)))
    }

    fn of(path: &Path, pages: &Pages<'_>, made: Made, place: Place) -> Self {
        let checked = (0..pages.blocks()).map(|_| AtomicBool::new(false)).collect();
        Self { path: path.into(), layout: pages.layout(), digest: pages.digest, made, checked, place }
    }

    /// Makes the matrix anew, whatever lies there.
    ///
    /// # Errors
    /// As [`Matrix::open`].
    pub fn make(path: &Path, pages: &Pages<'_>) -> Result<Self, IndexError> {
        remove_left(path);
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let written = match Self::write(&part, pages) {
            Ok(written) => written.and_then(|()| std::fs::rename(&part, path)),
            Err(error) => {
                let _ = std::fs::remove_file(&part);
                return Err(error);
            }
        };
        match written.and_then(|()| Self::read(path, pages)) {
            Ok(Some(matrix)) => return Ok(matrix),
            // Another process has put its own there.
            Ok(None) => {}
            Err(error) => tracing::debug!("{}: kept in memory: {error}", path.display()),
        }
        let _ = std::fs::remove_file(&part);
        let mut memory = vec![0; pages.layout().all()];
        let made = fill(pages, &mut |at, bytes| {
            memory[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        let made = made.map_err(|source| IndexError::Io { path: path.into(), source })?;
        Ok(Self::of(path, pages, made, Place::Memory(memory)))
    }

    /// Writes the cache; the inner error is that of the file.
    fn write(part: &Path, pages: &Pages<'_>) -> Result<io::Result<()>, IndexError> {
        // Locked while somebody writes it. One that loses it between the two calls finds it gone and keeps the matrix in memory.
        let begun = File::create(part).and_then(|file| file.lock().map(|()| file));
        let mut file = match begun {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut place = None;
        let made = fill(pages, &mut |at, bytes| {
            if place != Some(at) {
                file.seek(SeekFrom::Start((pages.head() + at) as u64))?;
            }
            place = Some(at + bytes.len());
            file.write_all(bytes)
        })?;
        // What stands in the head is known last.
        Ok(made.and_then(|made| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&pages.whole_head(&made))
        }))
    }

    /// Whether it is of these pages.
    pub fn is_of(&self, pages: &Pages<'_>) -> bool {
        self.digest == pages.digest
    }

    /// True where it is in a file, which may be damaged.
    pub fn is_cached(&self) -> bool {
        !matches!(self.place, Place::Memory(_))
    }

    fn bytes<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], IndexError> {
        match &self.place {
            Place::Memory(memory) => Ok(&memory[range]),
            Place::Mapped(mapped, head) => Ok(&mapped[head + range.start..head + range.end]),
            Place::Read(file, head) => {
                buffer.resize(range.len(), 0);
                read_at(file, buffer, (head + range.start) as u64)
                    .map_err(|source| IndexError::Io { path: self.path.clone(), source })?;
                Ok(buffer)
            }
        }
    }

    fn damaged(&self, what: &str) -> IndexError {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("{what} of the cache is damaged"));
        IndexError::Io { path: self.path.clone(), source }
    }
}

/// Removes what processes that were killed had written of a cache: nobody holds the lock of such a file.
fn remove_left(path: &Path) {
    // `matrix.123.part` of `matrix.cache`.
    let of_it = |part: &PathBuf| {
        let name = Path::new(part.file_stem().unwrap_or_default());
        part.extension() == Some(OsStr::new("part"))
            && name.extension().is_some()
            && name.file_stem() == path.file_stem()
    };
    let entries = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    for part in entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(of_it) {
        if File::open(&part).is_ok_and(|file| file.try_lock().is_ok())
            && let Err(error) = std::fs::remove_file(&part)
        {
            tracing::debug!("{}: {error}", part.display());
        }
    }
}

/// Hands over everything behind the head with its place there, a page at a time; the inner error is that of `put`.
fn fill(
    pages: &Pages<'_>,
    put: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
) -> Result<io::Result<Made>, IndexError> {
    let (layout, dim) = (pages.layout(), pages.dim);
    let mut made = Made { checksums: Vec::with_capacity(pages.blocks()), longest: 0.0 };
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    let mut first = 0;
    for page in 0..pages.count {
        let bytes = (pages.read)(page)?;
        let halves: Vec<f16> = bytes.as_chunks::<2>().0.iter().map(|bits| f16::from_le_bytes(*bits)).collect();
        values.resize(halves.len(), 0f32);
        halves.convert_to_f32_slice(&mut values);
        let blocks: Vec<&[f32]> = values.chunks(BLOCK_ROWS * dim).collect();
        let begin = first / BLOCK_ROWS;
        for (at, (block, longest)) in encoded(&blocks, dim).into_iter().enumerate() {
            made.checksums.push(crc32fast::hash(&block));
            made.longest = made.longest.max(longest);
            if let Err(error) = put(layout.block(begin + at).start, &block) {
                return Ok(Err(error));
            }
        }
        rows.clear();
        for row in bytes.chunks_exact(2 * dim) {
            rows.extend_from_slice(row);
            rows.extend(crc32fast::hash(row).to_le_bytes());
        }
        if let Err(error) = put(layout.row(first).start, &rows) {
            return Ok(Err(error));
        }
        first += values.len() / dim;
    }
    Ok(Ok(made))
}

/// Blocks as codes, in their order, on every core.
fn encoded(blocks: &[&[f32]], dim: usize) -> Vec<(Vec<u8>, f32)> {
    let encode = |values: &[f32]| {
        let mut block = Vec::new();
        let longest = encode(values, dim, &mut block);
        (block, longest)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(blocks.len());
    if threads <= 1 {
        return blocks.iter().map(|values| encode(values)).collect();
    }
    let all_of = |some: &[&[f32]]| -> Vec<_> { some.iter().map(|values| encode(values)).collect() };
    std::thread::scope(|scope| {
        let parts = blocks.chunks(blocks.len().div_ceil(threads));
        let parts: Vec<_> = parts.map(|some| scope.spawn(move || all_of(some))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("codes are made without panics")).collect()
    })
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

impl CodedRows for Matrix {
    type Error = IndexError;

    fn rows(&self) -> usize {
        self.layout.rows
    }

    fn dim(&self) -> usize {
        self.layout.dim
    }

    fn longest(&self) -> f32 {
        self.made.longest
    }

    fn block<'a>(&'a self, block: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], IndexError> {
        let bytes = self.bytes(self.layout.block(block), buffer)?;
        // What is read comes from the file each time.
        let once = matches!(self.place, Place::Mapped(..));
        let known = matches!(self.place, Place::Memory(_)) || (once && self.checked[block].load(Relaxed));
        if !known {
            if crc32fast::hash(bytes) != self.made.checksums[block] {
                return Err(self.damaged("a block"));
            }
            self.checked[block].store(true, Relaxed);
        }
        Ok(bytes)
    }

    fn row(&self, row: usize, values: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), IndexError> {
        let bytes = self.bytes(self.layout.row(row), buffer)?;
        let (row, checksum) = bytes.split_at(2 * self.layout.dim);
        if crc32fast::hash(row).to_le_bytes() != checksum {
            return Err(self.damaged("a row"));
        }
        match bytemuck::try_cast_slice::<u8, f16>(row) {
            Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(values),
            _ => {
                let halves: Vec<f16> = row.as_chunks::<2>().0.iter().map(|bits| f16::from_le_bytes(*bits)).collect();
                halves.convert_to_f32_slice(values);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use omniburn_kernels::cpu::nearest::nearest;

    use super::*;

    /// A cache in a folder, of some rows.
    fn with_pages(rows: usize, dim: usize, use_it: impl FnOnce(&Path, &Pages<'_>)) {
        let mut random = fastrand::Rng::with_seed(rows as u64);
        let all: Vec<u8> = (0..rows * dim).flat_map(|_| f16::from_f32(random.f32() - 0.5).to_le_bytes()).collect();
        let page = 2 * BLOCK_ROWS * dim * 2;
        let read = |at: usize| Ok(all[at * page..all.len().min((at + 1) * page)].to_vec());
        let pages = Pages { digest: [7; 32], rows, dim, count: all.len().div_ceil(page), read: &read };
        let folder = tempfile::tempdir().unwrap();
        use_it(&folder.path().join("matrix.cache"), &pages);
    }

    fn best(matrix: &Matrix) -> Result<Vec<(usize, f32)>, IndexError> {
        let query: Vec<f32> = (0..matrix.dim()).map(|at| (at as f32).sin()).collect();
        let all = vec![u64::MAX; matrix.rows().div_ceil(64)];
        let found = nearest(matrix, &query, &[&all], 7)?.remove(0);
        Ok(found.into_iter().map(|one| (one.row, one.score)).collect())
    }

    #[test]
    fn what_is_mapped_read_and_held_in_memory_is_the_same() {
        for (rows, dim) in [(1, 1), (511, 33), (1024, 64), (2100, 100)] {
            with_pages(rows, dim, |path, pages| {
                let mapped = Matrix::open(path, pages).unwrap();
                assert!(mapped.is_cached());
                let found = best(&mapped).unwrap();
                let file = File::open(path).unwrap();
                let made = || Made { checksums: mapped.made.checksums.clone(), longest: mapped.made.longest };
                let read = Matrix::of(path, pages, made(), Place::Read(file, pages.head()));
                assert_eq!(best(&read).unwrap(), found);
                // A folder lies where the cache would.
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
                let memory = Matrix::open(path, pages).unwrap();
                assert!(!memory.is_cached());
                assert_eq!(best(&memory).unwrap(), found);
                assert_eq!(best(&mapped).unwrap(), found, "a file that is gone stays mapped");
            });
        }
    }

    #[test]
    fn what_a_killed_process_left_of_a_cache_is_removed_and_what_another_one_writes_stays() {
        with_pages(100, 8, |path, pages| {
            let beside = |name: &str| path.with_file_name(name);
            let names = ["matrix.1.part", "matrix.2.part", "other.3.part", "matrix.part", "matrix.4"];
            names.iter().for_each(|name| std::fs::write(beside(name), "begun").unwrap());
            let held = File::open(beside("matrix.2.part")).unwrap();
            held.lock().unwrap();
            Matrix::make(path, pages).unwrap();
            assert_eq!(names.map(|name| beside(name).exists()), [false, true, true, true, true]);
        });
    }

    #[test]
    fn every_flipped_bit_is_noticed_where_it_is_read() {
        with_pages(2100, 100, |path, pages| {
            let whole = best(&Matrix::open(path, pages).unwrap()).unwrap();
            let bytes = std::fs::read(path).unwrap();
            let (head, layout) = (pages.head(), pages.layout());
            let best_row = head + layout.row(whole[0].0).start;
            let mut random = fastrand::Rng::with_seed(5);
            let mut flipped = |within: Range<usize>| {
                let mut damaged = bytes.clone();
                damaged[random.usize(within)] ^= 1 << random.u8(..8);
                std::fs::write(path, damaged).unwrap();
                Matrix::read(path, pages).unwrap().map(|matrix| best(&matrix))
            };
            for round in 0..40 {
                assert!(flipped(0..head).is_none(), "the head");
                let block = layout.block(round % pages.blocks());
                let scales = head + block.start..head + block.start + 8 * (block.len() / block_bytes(1, 100));
                assert!(flipped(scales).unwrap().is_err(), "scales and lengths");
                assert!(flipped(head + block.start..head + block.end).unwrap().is_err(), "a block");
                assert!(flipped(best_row..best_row + layout.row_bytes()).unwrap().is_err(), "a row");
                // A row that is not among the best is not read.
                if let Ok(found) = flipped(head + layout.row(0).start..bytes.len()).unwrap() {
                    assert_eq!(found, whole);
                }
            }
        });
    }
}
