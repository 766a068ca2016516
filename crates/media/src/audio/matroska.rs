//! The audio tracks of Matroska and WebM, and how the samples of the plain ones are stored.
//!
//! symphonia 0.6.1 takes 8-bit integers as no track at all and leaves `A_MS/ACM`, whose description is that of WAV, unread.
//!
//! # Source
//! The Matroska codec specifications: `A_PCM/INT/LIT`, `A_PCM/INT/BIG` (8 bits are unsigned), `A_PCM/FLOAT/IEEE`
//! (little-endian) and `A_MS/ACM`.

use crate::container::matroska::{AUDIO, Headers, TrackEntry};
use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::TrackInfo;

use super::samples::{Coding, Sample, wav_coding};

/// A track of audio.
pub(super) struct AudioTrack {
    pub(super) number: u64,
    pub(super) info: TrackInfo,
    codec: String,
    pub(super) rate_hz: u32,
    pub(super) channels: usize,
    bits: u32,
    private: Vec<u8>,
}

impl AudioTrack {
    /// `None` for an entry without a number.
    fn new(entry: TrackEntry<'_>) -> Option<Self> {
        let audio = entry.parts.inside(0xe1);
        let number = |id| audio.as_ref().and_then(|audio| audio.unsigned(id));
        Some(Self {
            number: entry.number()?,
            codec: String::from_utf8_lossy(entry.codec()).into_owned(),
            rate_hz: audio.as_ref().and_then(|audio| audio.float(0xb5)).map_or(8000, |rate| rate.round() as u32),
            channels: number(0x9f).map_or(1, |channels| channels as usize),
            bits: number(0x6264).map_or(0, |bits| bits as u32),
            private: entry.configuration().to_vec(),
            info: entry.info,
        })
    }

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
        format!("an audio track of the codec {}", self.codec.escape_debug())
    }
}

/// The audio tracks of a file in their order; none where the description is not found. Leaves the source anywhere.
///
/// # Errors
/// Corrupt where the file ends before its own length, which it states except where it was streamed; unsupported where files
/// were joined, since what reads the tracks ends with the first of them.
pub(super) fn audio_tracks(source: &mut Source) -> Result<Vec<AudioTrack>, MediaError> {
    let headers = Headers::read(source)?;
    if let Some((body, Some(size))) = headers.segment {
        let there = source.length().saturating_sub(body);
        if size > there {
            return Err(source.label.cut_short(there, size, "bytes"));
        }
    }
    if headers.joined {
        return Err(source.label.unsupported("found several Matroska files that were joined"));
    }
    Ok(headers.tracks(AUDIO).into_iter().filter_map(AudioTrack::new).collect())
}
