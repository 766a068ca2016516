//! The bytes of a sound, and which decoder takes them.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::MediaError;
use crate::kind::{SNIFF_BYTES, sniff};
use crate::tracks::{TrackChoice, only_track};

use super::{Decoder, Label, demux, flac, mpeg, ogg, pcm};

/// What is expected where no sound was found.
const EXPECTED: &str = "sound (WAV, FLAC, MP3, OGG, Opus, M4A, AAC, AIFF or CAF)";

/// Formats of sound that are known by name and not read.
const NOT_READ: &[(&str, &str)] = &[
    ("asf", "Windows Media"),
    ("avi", "AVI"),
    ("flv", "Flash Video"),
    ("mpeg", "an MPEG program stream"),
    ("midi", "MIDI, which is notes and not sound"),
    ("amr", "AMR"),
    ("ac3", "AC-3"),
    ("dts", "DTS"),
    ("ape", "Monkey's Audio"),
    ("musepack", "Musepack"),
    ("wavpack", "WavPack"),
    ("tta", "True Audio"),
    ("w64", "Sony Wave64"),
    ("dsf", "DSD"),
    ("realmedia", "RealMedia"),
];

/// A file or bytes in memory, with their number.
pub(super) struct Input {
    bytes: Bytes,
    length: u64,
}

enum Bytes {
    File(File),
    Memory(Cursor<Arc<[u8]>>),
}

impl Input {
    pub(super) fn from_file(file: File, length: u64) -> Self {
        Self { bytes: Bytes::File(file), length }
    }

    pub(super) fn from_bytes(bytes: Arc<[u8]>) -> Self {
        let length = bytes.len() as u64;
        Self { bytes: Bytes::Memory(Cursor::new(bytes)), length }
    }

    /// Number of bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// With a buffer in front.
    pub(super) fn buffered(self) -> Buffered {
        Buffered { length: self.length, reader: BufReader::with_capacity(1 << 16, self) }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::File(file) => file.read(buffer),
            Bytes::Memory(cursor) => cursor.read(buffer),
        }
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.bytes {
            Bytes::File(file) => file.seek(to),
            Bytes::Memory(cursor) => cursor.seek(to),
        }
    }
}

impl symphonia::core::io::MediaSource for Input {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// An input that is read in small steps.
pub(super) struct Buffered {
    reader: BufReader<Input>,
    length: u64,
}

impl Buffered {
    /// Number of bytes in all.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Without the buffer, at its start.
    pub(super) fn into_input(self) -> Input {
        let mut input = self.reader.into_inner();
        if let Bytes::Memory(cursor) = &mut input.bytes {
            cursor.set_position(0);
        } else {
            // The next reader seeks before it reads; a failure shows there.
            let _ = input.seek(SeekFrom::Start(0));
        }
        input
    }

    /// Where the next byte stands.
    pub(super) fn at(&mut self) -> io::Result<u64> {
        self.reader.stream_position()
    }

    /// Goes to a byte. A step within the buffer keeps it.
    pub(super) fn go(&mut self, to: u64) -> io::Result<()> {
        let step = i128::from(to) - i128::from(self.at()?);
        match i64::try_from(step) {
            Ok(step) => self.reader.seek_relative(step),
            Err(_) => self.reader.seek(SeekFrom::Start(to)).map(drop),
        }
    }

    /// The next `N` bytes, or `None` where fewer are left.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut out = [0; N];
        match self.reader.read_exact(&mut out) {
            Ok(()) => Ok(Some(out)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to `length` bytes, in place of what the buffer held; fewer at the end.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
        buffer.clear();
        (&mut self.reader).take(length as u64).read_to_end(buffer).map(drop)
    }
}

/// Whether frames of MPEG audio follow each other in the first bytes. Leaves the input at its start.
fn begins_late(input: &mut Input) -> io::Result<bool> {
    let mut head = Vec::new();
    input.take(mpeg::LEAD_BYTES).read_to_end(&mut head)?;
    input.seek(SeekFrom::Start(0))?;
    Ok(mpeg::begins_late(&head))
}

/// Finds the format and opens its decoder. A panic of a decoder is an error of its input.
pub(super) fn open(
    mut input: Input,
    name: &str,
    choice: &TrackChoice,
) -> Result<(Label, Box<dyn Decoder>), MediaError> {
    let failed = |error: io::Error| MediaError::Corrupt { name: name.to_owned(), format: "file", source: error.into() };
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    (&mut input).take(SNIFF_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    if head.is_empty() {
        return Err(MediaError::Empty { name: name.to_owned(), expected: "byte" });
    }
    let found = sniff(&head);
    let unknown = || MediaError::UnknownFormat { name: name.to_owned(), found, expected: EXPECTED };
    // MPEG audio may begin with the rest of a frame, or with padding, where a recording or a stream was cut.
    let format = match found {
        Some(format) => format,
        None if begins_late(&mut input).map_err(failed)? => "mp3",
        None => return Err(unknown()),
    };
    let label = Label { name: name.to_owned(), format };
    if let Some((_, words)) = NOT_READ.iter().find(|(known, _)| *known == format) {
        return Err(label.unsupported(format!("found {words}")));
    }
    if matches!(format, "wav" | "aiff" | "caf" | "au" | "flac" | "ogg" | "mp3" | "aac") {
        only_track(name, format, "audio track", choice)?;
    }
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Box<dyn Decoder>, MediaError> {
        match format {
            "wav" | "aiff" | "caf" | "au" => pcm::open(input, &label),
            "ogg" => ogg::open(input, &label),
            "mp3" | "aac" => mpeg::open(input, &label),
            "flac" => flac::open(input, 0, &label),
            "mp4" | "m4a" | "mov" | "mkv" => demux::open(input, &label, choice),
            _ => Err(unknown()),
        }
    }));
    let decoder = opened.unwrap_or_else(|_| Err(label.corrupt("the decoder gave up on it")))?;
    Ok((label, decoder))
}
