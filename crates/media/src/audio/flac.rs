//! FLAC files: the stream in them, or one after the other where files were joined, and the tags between.
//!
//! symphonia 0.6.1 takes a file as one stream: what stands behind its last frame, a tag or another file, makes it report an
//! early end, or, where the header states no length, ends the audio without a word. So it is given one stream at a time.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};

use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;

use super::decoder::{Decoder, Held};
use super::demux::{self, Demuxed};

/// How a stream begins: its name, and the first block, which is of a fixed kind and length.
const BEGIN: &[u8; 8] = b"fLaC\0\0\0\x22";

/// Bytes that are read at once.
const STEP: usize = 1 << 16;

/// Bytes that are kept back until it is known that no tag is among them.
const HOLD: usize = 1 << 16;

/// Opens the streams from `begin` on.
pub(super) fn open(input: Source, begin: u64, label: &Label) -> Result<Box<dyn Decoder>, MediaError> {
    let joint = Joint { input, read_to: begin, bytes: Vec::new(), given: 0, end: None, next: None };
    let joint = Arc::new(Mutex::new(joint));
    let part = open_part(&joint, label)?;
    let rate_hz = part.rate_hz();
    Ok(Box::new(Flac { joint, part, rate_hz, label: label.clone() }))
}

fn open_part(joint: &Arc<Mutex<Joint>>, label: &Label) -> Result<Demuxed, MediaError> {
    let bytes = Box::new(StreamBytes(joint.clone()));
    demux::open_flac(MediaSourceStream::new(bytes, MediaSourceStreamOptions::default()), label)
}

/// Streams of one file.
struct Flac {
    joint: Arc<Mutex<Joint>>,
    part: Demuxed,
    rate_hz: u32,
    label: Label,
}

impl Decoder for Flac {
    /// Of the first stream only, where files were joined: the headers of the others were not read yet.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        self.part.frames_left()
    }

    fn held(&self) -> Held {
        let Held { bytes, call_frames } = self.part.held();
        Held { bytes: bytes + (STEP + 2 * HOLD) as u64, call_frames }
    }

    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        self.rate_hz = self.part.rate_hz();
        if self.part.decode(mono)? {
            return Ok(true);
        }
        // A decoder that gave up leaves the lock behind, and nothing is read after that.
        let more = self.joint.lock().unwrap_or_else(PoisonError::into_inner).go_on();
        if more {
            self.part = open_part(&self.joint, &self.label)?;
        }
        Ok(more)
    }
}

/// A file of streams, read from its start to its end.
struct Joint {
    input: Source,
    /// Where the bytes that are held end in the file.
    read_to: u64,
    bytes: Vec<u8>,
    /// How many of them were given to the reader of the stream.
    given: usize,
    /// Where the stream ends, once that is known.
    end: Option<u64>,
    /// Where the next one begins.
    next: Option<u64>,
}

impl Joint {
    /// Goes to the next stream, if there is one.
    fn go_on(&mut self) -> bool {
        // The reader may have stopped before it was given all.
        while self.end.is_none() {
            self.given = self.bytes.len();
            if self.refill().is_err() {
                return false;
            }
        }
        let Some(next) = self.next else { return false };
        self.bytes.clear();
        (self.read_to, self.given, self.end, self.next) = (next, 0, None, None);
        true
    }

    /// Reads on, and looks for the end of the stream.
    fn refill(&mut self) -> io::Result<()> {
        // The begin of the next stream may be cut between two readings.
        self.bytes.drain(..self.given.saturating_sub(BEGIN.len()));
        self.given = self.given.min(BEGIN.len());
        let before = self.bytes.len();
        let first = before == 0;
        self.input.seek(SeekFrom::Start(self.read_to))?;
        let read = (&mut self.input).take(STEP as u64).read_to_end(&mut self.bytes)?;
        self.read_to += read as u64;
        // The stream's own begin does not count.
        let from = if first { 1 } else { before.saturating_sub(BEGIN.len() - 1) };
        let start = self.read_to - self.bytes.len() as u64;
        if let Some(place) = find(self.bytes.get(from..).unwrap_or_default()) {
            let next = start + (from + place) as u64;
            self.next = Some(next);
            self.end = Some(self.without_tags(next)?);
        } else if read == 0 {
            self.end = Some(self.without_tags(self.read_to)?);
        }
        Ok(())
    }

    /// Where the tags that end at a place begin: ID3v1, its enhanced form, APE, Lyrics3 v2 and ID3v2.
    fn without_tags(&mut self, mut end: u64) -> io::Result<u64> {
        // What was given is audio already.
        let lowest = self.read_to - (self.bytes.len() - self.given) as u64;
        let window = end - lowest.min(end);
        let mut bytes = Vec::new();
        self.input.seek(SeekFrom::Start(end - window))?;
        (&mut self.input).take(window).read_to_end(&mut bytes)?;
        loop {
            let back = |count: usize| bytes.len().checked_sub(count).map(|at| &bytes[at..]);
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let tag = if back(128).is_some_and(|tag| tag.starts_with(b"TAG")) {
                128
            } else if back(227).is_some_and(|tag| tag.starts_with(b"TAG+")) {
                227
            } else if let Some(foot) = back(32).filter(|foot| foot.starts_with(b"APETAGEX")) {
                // The highest bit says that a head stands before it, which the size leaves out.
                word(&foot[12..]) + if foot[23] & 0x80 != 0 { 32 } else { 0 }
            } else if let Some(foot) = back(15).filter(|foot| foot.ends_with(b"LYRICS200")) {
                std::str::from_utf8(&foot[..6])
                    .ok()
                    .and_then(|size| size.parse().ok())
                    .map_or(0, |size: usize| size + 15)
            } else {
                // ID3v2 tells its length at its begin.
                let id3 = |at: &usize| {
                    let head = &bytes[*at..];
                    let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = head.get(..10) else { return false };
                    let size = size.iter().fold(0, |sum, byte| sum << 7 | usize::from(*byte & 0x7f));
                    10 + size + if flags & 0x10 != 0 { 10 } else { 0 } == head.len()
                };
                (0..bytes.len()).find(id3).map_or(0, |at| bytes.len() - at)
            };
            if tag == 0 || tag > bytes.len() {
                return Ok(end);
            }
            bytes.truncate(bytes.len() - tag);
            end -= tag as u64;
        }
    }
}

/// Where [`BEGIN`] stands. Most bytes are passed over: one look at every eighth tells whether it can be near.
fn find(bytes: &[u8]) -> Option<usize> {
    let mut at = BEGIN.len() - 1;
    while let Some(last) = bytes.get(at) {
        match BEGIN.iter().rposition(|byte| byte == last) {
            Some(7) if bytes[at - 7..=at] == *BEGIN => return Some(at - 7),
            Some(7) => at += 1,
            Some(place) => at += 7 - place,
            None => at += 8,
        }
    }
    None
}

/// What the reader of a stream reads from.
struct StreamBytes(Arc<Mutex<Joint>>);

impl Read for StreamBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let start = joint.read_to - joint.bytes.len() as u64;
            let most = match joint.end {
                Some(end) => end.saturating_sub(start) as usize,
                None => joint.bytes.len().saturating_sub(HOLD),
            };
            if joint.given < most {
                let count = buffer.len().min(most - joint.given);
                buffer[..count].copy_from_slice(&joint.bytes[joint.given..joint.given + count]);
                joint.given += count;
                return Ok(count);
            }
            if joint.end.is_some() {
                return Ok(0);
            }
            joint.refill()?;
        }
    }
}

impl Seek for StreamBytes {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl MediaSource for StreamBytes {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_begin_of_a_stream_is_found_wherever_it_stands() {
        for before in 0..20 {
            for filler in [0, b'f', 0x22, b'x'] {
                let bytes = [&vec![filler; before][..], BEGIN, &[filler; 3]].concat();
                assert_eq!(find(&bytes), Some(before), "{before} bytes {filler:02x}");
                assert_eq!(find(&bytes[..before + 7]), None);
            }
        }
    }
}
