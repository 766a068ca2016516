//! Plain samples in Matroska: how the description of a track says they are stored.
//!
//! symphonia 0.6.1 takes 8-bit integers as no track at all and leaves `A_MS/ACM`, whose description is that of WAV, unread.
//!
//! # Source
//! The Matroska codec specifications: `A_PCM/INT/LIT`, `A_PCM/INT/BIG` (8 bits are unsigned), `A_PCM/FLOAT/IEEE`
//! (little-endian) and `A_MS/ACM`.

use std::io::{Read, Seek, SeekFrom};

use crate::error::MediaError;

use super::Label;
use super::input::Input;
use super::pcm::{Coding, Sample, wav_coding};

const SEGMENT: u64 = 0x1853_8067;
const TRACKS: u64 = 0x1654_ae6b;
const CLUSTER: u64 = 0x1f43_b675;
const EBML: u64 = 0x1a45_dfa3;

/// Descriptions are no longer; the configuration of a codec is what takes most.
const MAX_TRACKS_BYTES: u64 = 16 << 20;

/// Elements at the top before the description of the tracks.
const MAX_ELEMENTS: usize = 1 << 16;

/// A track of sound.
pub(super) struct SoundTrack {
    pub(super) number: u64,
    codec: String,
    pub(super) rate_hz: u32,
    pub(super) channels: usize,
    bits: u32,
    private: Vec<u8>,
}

impl SoundTrack {
    /// How the samples are stored, if they are plain or of a format of WAV; `None` for other codecs.
    pub(super) fn coding(&self, label: &Label) -> Option<Result<Coding, MediaError>> {
        let (sample, big_endian, kind) = match self.codec.as_str() {
            "A_PCM/INT/LIT" | "A_PCM/INT/BIG" if self.bits == 8 => (Some(Sample::Unsigned(1)), false, "integer"),
            "A_PCM/INT/LIT" => (Sample::signed(self.bits), false, "integer"),
            "A_PCM/INT/BIG" => (Sample::signed(self.bits), true, "integer"),
            "A_PCM/FLOAT/IEEE" => (Sample::float(self.bits), false, "float"),
            "A_MS/ACM" => return Some(wav_coding(&self.private, false, label).map(|found| found.2)),
            _ => return None,
        };
        let refused = || label.unsupported(format!("found {kind} samples of {} bits ({})", self.bits, self.codec));
        Some(sample.map(|sample| Coding::Plain { sample, big_endian }).ok_or_else(refused))
    }

    /// The codec as the file names it.
    pub(super) fn codec_words(&self) -> String {
        format!("a sound track of the codec {}", self.codec.escape_debug())
    }
}

/// The head of an element: its name, the length of the head, and of the body (`None`: not known).
fn element(bytes: &[u8]) -> Option<(u64, usize, Option<u64>)> {
    let number = |bytes: &[u8]| {
        let length = bytes.first()?.leading_zeros() as usize + 1;
        let stored = bytes.get(..length).filter(|_| length <= 8)?;
        Some((stored.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)), length))
    };
    let (name, name_bytes) = number(bytes)?;
    let (size, size_bytes) = number(&bytes[name_bytes..])?;
    let mask = (1u64 << (7 * size_bytes)) - 1;
    Some((name, name_bytes + size_bytes, Some(size & mask).filter(|size| *size != mask)))
}

/// The elements of a body, as far as they are whole.
fn elements(body: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (name, head, size) = element(rest)?;
        let end = head.checked_add(usize::try_from(size?).ok()?)?;
        let inner = rest.get(head..end)?;
        rest = &rest[end..];
        Some((name, inner))
    })
}

/// The sound tracks of a file; none where the description is not found. Leaves the input at its start.
///
/// # Errors
/// Unsupported where files were joined: what reads the tracks ends with the first of them.
pub(super) fn sound_tracks(input: &mut Input, label: &Label) -> Result<Vec<SoundTrack>, MediaError> {
    let length = input.length();
    let mut tracks = Vec::new();
    let mut bytes = |at: u64, count: u64| {
        let mut out = Vec::new();
        let read = input.seek(SeekFrom::Start(at)).and_then(|_| (&mut *input).take(count).read_to_end(&mut out));
        read.map(|_| out).map_err(|error| label.corrupt(error))
    };
    let (mut at, mut segment_end) = (0u64, None);
    for _ in 0..MAX_ELEMENTS {
        let Some((name, head, size)) = element(&bytes(at, 16)?) else { break };
        let body = at + head as u64;
        match name {
            SEGMENT => {
                segment_end = size.map(|size| body.saturating_add(size));
                at = body;
                continue;
            }
            CLUSTER => break,
            TRACKS => {
                let size = size.unwrap_or(0).min(MAX_TRACKS_BYTES);
                tracks = read_tracks(&bytes(body, size)?);
                break;
            }
            _ => {}
        }
        match size.and_then(|size| body.checked_add(size)).filter(|next| *next < length) {
            Some(next) => at = next,
            None => break,
        }
    }
    if let Some(end) = segment_end.filter(|end| *end < length)
        && let Some((EBML | SEGMENT, ..)) = element(&bytes(end, 16)?)
    {
        return Err(label.unsupported("found several Matroska files that were joined"));
    }
    input.seek(SeekFrom::Start(0)).map_err(|error| label.corrupt(error))?;
    Ok(tracks)
}

fn read_tracks(body: &[u8]) -> Vec<SoundTrack> {
    let unsigned = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let float = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 0.0,
    };
    let mut tracks = Vec::new();
    for (_, entry) in elements(body).filter(|(name, _)| *name == 0xae) {
        let mut track =
            SoundTrack { number: 0, codec: String::new(), rate_hz: 8000, channels: 1, bits: 0, private: Vec::new() };
        let mut sound = false;
        for (name, body) in elements(entry) {
            match name {
                0xd7 => track.number = unsigned(body),
                0x83 => sound = unsigned(body) == 2,
                0x86 => track.codec = String::from_utf8_lossy(body).trim_end_matches('\0').to_owned(),
                0x63a2 => track.private = body.to_vec(),
                0xe1 => {
                    for (name, body) in elements(body) {
                        match name {
                            0xb5 => track.rate_hz = float(body).round() as u32,
                            0x9f => track.channels = unsigned(body) as usize,
                            0x6264 => track.bits = unsigned(body) as u32,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if sound {
            tracks.push(track);
        }
    }
    tracks
}
