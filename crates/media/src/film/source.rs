//! Bytes of a film by their place, from a file or from memory. Nothing is kept.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use crate::error::MediaError;
use crate::film::FilmSource;
use crate::image::open_file;

/// A film's bytes.
#[derive(Debug)]
pub(crate) struct Source {
    from: From,
    len: u64,
    name: String,
    /// The format that errors name; known once the first bytes are read.
    pub format: &'static str,
}

#[derive(Debug)]
enum From {
    File(File),
    Bytes(Arc<[u8]>),
}

impl Source {
    pub(crate) fn open(source: &FilmSource) -> Result<Self, MediaError> {
        let (from, len, name) = match source {
            FilmSource::File(path) => {
                let (file, len) = open_file(path)?;
                (From::File(file), len, path.display().to_string())
            }
            FilmSource::Bytes(bytes, name) => (From::Bytes(bytes.clone()), bytes.len() as u64, name.clone()),
        };
        if len == 0 {
            return Err(MediaError::Empty { name, expected: "byte" });
        }
        Ok(Self { from, len, name, format: "film" })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `len` bytes from `at`; room is made only for bytes that are there.
    ///
    /// # Errors
    /// [`MediaError::Corrupt`] if they go beyond the end or cannot be read.
    pub(crate) fn read(&mut self, at: u64, len: u64) -> Result<Vec<u8>, MediaError> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            let end = at.saturating_add(len);
            return Err(self.corrupt(format!("bytes {at} to {end} are wanted, and the film ends at {}", self.len)));
        }
        match &mut self.from {
            From::Bytes(bytes) => Ok(bytes[at as usize..(at + len) as usize].to_vec()),
            From::File(file) => {
                let mut bytes = vec![0; len as usize];
                let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes));
                match read {
                    Ok(()) => Ok(bytes),
                    Err(error) => {
                        Err(MediaError::Corrupt { name: self.name.clone(), format: self.format, source: error.into() })
                    }
                }
            }
        }
    }

    /// At most `len` bytes from `at`: fewer at the end.
    pub(crate) fn read_up_to(&mut self, at: u64, len: u64) -> Result<Vec<u8>, MediaError> {
        self.read(at, len.min(self.len.saturating_sub(at)))
    }

    pub(crate) fn corrupt(&self, words: impl Into<String>) -> MediaError {
        MediaError::Corrupt { name: self.name.clone(), format: self.format, source: words.into().into() }
    }

    pub(crate) fn unsupported(&self, detail: impl Into<String>) -> MediaError {
        MediaError::UnsupportedCodec { name: self.name.clone(), format: self.format, detail: detail.into() }
    }
}

/// Packets that lie in the film as one run of bytes each, all behind the same few bytes (none in most films).
#[derive(Debug)]
pub(crate) struct Placed {
    pub source: Source,
    /// Offset and length.
    pub places: Vec<(u64, u32)>,
    /// What the container took off the beginning of every packet.
    pub stripped: Vec<u8>,
}

impl super::packets::PacketData for Placed {
    fn longest(&self) -> u64 {
        let longest = self.places.iter().map(|(_, len)| u64::from(*len)).max().unwrap_or(0);
        longest + self.stripped.len() as u64
    }

    fn read(&mut self, index: usize) -> Result<Vec<u8>, MediaError> {
        let (at, len) = self.places[index];
        let bytes = self.source.read(at, u64::from(len))?;
        Ok(if self.stripped.is_empty() { bytes } else { [self.stripped.as_slice(), &bytes].concat() })
    }
}
