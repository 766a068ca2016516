//! The bytes of a medium, from a file or from memory. Nothing is kept of them.

use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use symphonia::core::io::MediaSource;

use crate::error::MediaError;
use crate::file::{FileReader, MediaFile};
use crate::kind::SNIFF_BYTES;
use crate::label::Label;

/// A file or bytes in memory, with their number and what messages call them.
#[derive(Debug)]
pub(crate) struct Source {
    bytes: Bytes,
    length: u64,
    pub(crate) label: Label,
}

#[derive(Debug)]
enum Bytes {
    File(FileReader),
    Memory(Cursor<Arc<[u8]>>),
}

impl Source {
    /// A file; until its format is known, errors call it `kind`.
    ///
    /// # Errors
    /// [`MediaError::NotFound`], [`MediaError::NotAFile`], [`MediaError::Unreadable`] of the path, [`MediaError::Changed`] of a
    /// kept file, and [`MediaError::Empty`] without a byte.
    pub(crate) fn from_file(file: &MediaFile, kind: &'static str) -> Result<Self, MediaError> {
        let reader = file.open()?;
        let length = reader.length();
        Self::new(Bytes::File(reader), length, file.name(), kind)
    }

    /// Bytes in memory, as [`Self::from_file`].
    pub(crate) fn from_bytes(bytes: Arc<[u8]>, name: &str, kind: &'static str) -> Result<Self, MediaError> {
        let length = bytes.len() as u64;
        Self::new(Bytes::Memory(Cursor::new(bytes)), length, name.to_owned(), kind)
    }

    fn new(bytes: Bytes, length: u64, name: String, format: &'static str) -> Result<Self, MediaError> {
        if length == 0 {
            return Err(MediaError::Empty { name, expected: "byte" });
        }
        Ok(Self { bytes, length, label: Label { name, format } })
    }

    /// Number of bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The first bytes, which tell the format. Leaves the next byte to be read at the start.
    pub(crate) fn head(&mut self) -> Result<Vec<u8>, MediaError> {
        let head = self.read_up_to(0, SNIFF_BYTES as u64)?;
        self.rewind().map_err(|error| self.label.corrupt(error))?;
        Ok(head)
    }

    /// `length` bytes from `at`; room is made only for bytes that are there.
    ///
    /// # Errors
    /// [`MediaError::Corrupt`] if they go beyond the end or cannot be read.
    pub(crate) fn read_at(&mut self, at: u64, length: u64) -> Result<Vec<u8>, MediaError> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            let end = at.saturating_add(length);
            let found = format!("bytes {at} to {end} are wanted, and the file ends at {}", self.length);
            return Err(self.label.corrupt(found));
        }
        let mut bytes = vec![0; length as usize];
        let read = self.seek(SeekFrom::Start(at)).and_then(|_| self.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|error| self.label.corrupt(error))
    }

    /// At most `length` bytes from `at`: fewer at the end.
    pub(crate) fn read_up_to(&mut self, at: u64, length: u64) -> Result<Vec<u8>, MediaError> {
        self.read_at(at.min(self.length), length.min(self.length.saturating_sub(at)))
    }

    /// With a buffer in front.
    pub(crate) fn buffered(self) -> Buffered {
        Buffered { length: self.length, reader: BufReader::with_capacity(1 << 16, self) }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::File(file) => file.read(buffer),
            Bytes::Memory(cursor) => cursor.read(buffer),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.bytes {
            Bytes::File(file) => file.seek(to),
            Bytes::Memory(cursor) => cursor.seek(to),
        }
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// A source that is read in small steps.
pub(crate) struct Buffered {
    reader: BufReader<Source>,
    length: u64,
}

impl Buffered {
    /// Number of bytes in all.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Without the buffer, at its start.
    pub(crate) fn into_source(self) -> Source {
        let mut source = self.reader.into_inner();
        // The next reader seeks before it reads; a failure shows there.
        let _ = source.rewind();
        source
    }

    /// Where the next byte stands.
    pub(crate) fn at(&mut self) -> io::Result<u64> {
        self.reader.stream_position()
    }

    /// Goes to a byte. A step within the buffer keeps it.
    pub(crate) fn go(&mut self, to: u64) -> io::Result<()> {
        let step = i128::from(to) - i128::from(self.at()?);
        match i64::try_from(step) {
            Ok(step) => self.reader.seek_relative(step),
            Err(_) => self.reader.seek(SeekFrom::Start(to)).map(drop),
        }
    }

    /// The next `N` bytes, or `None` where fewer are left.
    pub(crate) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut out = [0; N];
        match self.reader.read_exact(&mut out) {
            Ok(()) => Ok(Some(out)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to `length` bytes, in place of what the buffer held; fewer at the end.
    pub(crate) fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
        buffer.clear();
        (&mut self.reader).take(length as u64).read_to_end(buffer).map(drop)
    }
}
