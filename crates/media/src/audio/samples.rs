//! How plain samples are stored, and how the headers of several formats say it.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS};

use crate::error::MediaError;
use crate::label::Label;

use super::decoder::mix;

/// How one sample is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// A signed integer of so many bytes, at full scale.
    Signed(usize),
    /// An integer of so many bytes around the middle of their range.
    Unsigned(usize),
    Float32,
    Float64,
    ALaw,
    MuLaw,
}

impl Sample {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Signed(bytes) | Self::Unsigned(bytes) => bytes,
            Self::ALaw | Self::MuLaw => 1,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// A signed integer of so many bits, where whole bytes hold it.
    pub(super) fn signed(bits: u32) -> Option<Self> {
        matches!(bits, 8 | 16 | 24 | 32 | 64).then_some(Self::Signed(bits as usize / 8))
    }

    /// As [`Sample::signed`], around the middle of the range.
    pub(super) fn unsigned(bits: u32) -> Option<Self> {
        Self::signed(bits).map(|sample| Self::Unsigned(sample.bytes()))
    }

    /// A float of so many bits.
    pub(super) fn float(bits: u32) -> Option<Self> {
        match bits {
            32 => Some(Self::Float32),
            64 => Some(Self::Float64),
            _ => None,
        }
    }

    /// The value of stored bytes, whose number is [`Sample::bytes`]. Integers become -1 to 1.
    fn value(self, stored: &[u8], big_endian: bool) -> f64 {
        let mut bytes = [0; 8];
        let used = &mut bytes[8 - stored.len()..];
        used.copy_from_slice(stored);
        if !big_endian {
            used.reverse();
        }
        // The number stands at the low end, most significant byte first.
        let number = u64::from_be_bytes(bytes);
        match self {
            // Shifted to the top so that the sign is where it belongs.
            Self::Signed(n) => (number << (64 - 8 * n)) as i64 as f64 / -(i64::MIN as f64),
            Self::Unsigned(n) => ((number << (64 - 8 * n)) ^ (1 << 63)) as i64 as f64 / -(i64::MIN as f64),
            Self::Float32 => f64::from(f32::from_bits(number as u32)),
            Self::Float64 => f64::from_bits(number),
            Self::ALaw => f64::from(a_law(number as u8)) / 32768.0,
            Self::MuLaw => f64::from(mu_law(number as u8)) / 32768.0,
        }
    }

    /// Appends the means of the frames in stored bytes.
    pub(super) fn mix(self, stored: &[u8], big_endian: bool, channels: usize, mono: &mut Vec<f32>) {
        let values = stored.chunks_exact(self.bytes()).map(|stored| self.value(stored, big_endian));
        mix(values, channels, mono);
    }
}

/// ITU-T G.711, A-law, as 16 bits.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i16::from(byte & 15));
    let size = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -size } else { size }
}

/// ITU-T G.711, mu-law, as 16 bits.
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let size = (((i16::from(byte & 15) << 3) + 0x84) << ((byte >> 4) & 7)) - 0x84;
    if byte & 0x80 == 0 { size } else { -size }
}

/// What a header says about the audio.
pub(super) struct Header {
    pub(super) rate_hz: u32,
    pub(super) channels: usize,
    pub(super) coding: Coding,
    /// Where the audio lies, in order.
    pub(super) places: Vec<Place>,
    /// Frames to cut off at the start.
    pub(super) skip: u64,
    /// Frames after those, where they are stated.
    pub(super) frames: Option<u64>,
}

/// Bytes of audio that lie together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// How the frames are stored.
#[derive(Clone)]
pub(super) enum Coding {
    Plain { sample: Sample, big_endian: bool },
    Blocks { codec: AudioCodecId, block_bytes: u32, block_frames: u64 },
    Packets { codec: AudioCodecId, cookie: Vec<u8>, sizes: Vec<u32>, packet_frames: u64 },
}

/// The rate, the channels, and how the samples are stored, as the format chunk of a WAV says.
pub(super) fn wav_coding(format: &[u8], big_endian: bool, label: &Label) -> Result<(u32, usize, Coding), MediaError> {
    let number = |bytes: &[u8]| {
        let mut out = [0; 8];
        out[..bytes.len()].copy_from_slice(bytes);
        if big_endian {
            out[..bytes.len()].reverse();
        }
        u64::from_le_bytes(out)
    };
    let field = |range: std::ops::Range<usize>| format.get(range).map(number);
    let (Some(mut tag), Some(channels), Some(rate), Some(block), Some(bits)) =
        (field(0..2), field(2..4), field(4..8), field(12..14), field(14..16))
    else {
        return Err(label.corrupt("the format of the samples is cut short"));
    };
    label.check_channels(channels as usize)?;
    if tag == 0xfffe {
        const REST: &[u8] = &[0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
        let id = format.get(24..40).ok_or_else(|| label.corrupt("the format of the samples is cut short"))?;
        // The identifier begins with a number of four bytes and one of two; sox writes only the number's low half in the
        // order of RIFX, and the rest as in RIFF.
        tag = if id[2..] == *REST {
            number(&id[..2])
        } else if big_endian && id[..2] == [0, 0] && id[4..] == [0, 0, 0, 0x10, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71] {
            number(&id[2..4])
        } else {
            return Err(label.unsupported("found samples in a format without a number"));
        };
    }
    let container = if block == 0 { bits.div_ceil(8) } else { block / channels };
    let whole = block == 0 || block % channels == 0;
    let fits = whole && bits >= 1 && bits <= 8 * container;
    let plain = |sample| Coding::Plain { sample, big_endian };
    let coding = match tag {
        1 if fits && container == 1 => plain(Sample::Unsigned(1)),
        1 if fits && matches!(container, 2 | 3 | 4 | 8) => plain(Sample::Signed(container as usize)),
        3 if whole && bits == 32 && container == 4 => plain(Sample::Float32),
        3 if whole && bits == 64 && container == 8 => plain(Sample::Float64),
        6 if whole && container == 1 => plain(Sample::ALaw),
        7 if whole && container == 1 => plain(Sample::MuLaw),
        1 | 3 | 6 | 7 => {
            let kind = if tag == 3 { "float" } else { "integer" };
            return Err(label.unsupported(format!(
                "found {kind} samples of {bits} bits in frames of {block} bytes for {channels} channels"
            )));
        }
        2 | 0x11 if !big_endian && channels <= 2 && bits == 4 => {
            // A block begins with a few whole samples, and then has one in each half byte.
            let (codec, head, first) =
                if tag == 2 { (CODEC_ID_ADPCM_MS, 7, 2) } else { (CODEC_ID_ADPCM_IMA_WAV, 4, 1) };
            let Some(packed) = block.checked_sub(head * channels) else {
                return Err(label.corrupt("the blocks are shorter than their own heads"));
            };
            Coding::Blocks { codec, block_bytes: block as u32, block_frames: packed * 2 / channels + first }
        }
        _ => return Err(label.unsupported(format!("found {}", wav_codec(tag)))),
    };
    Ok((rate as u32, channels as usize, coding))
}

/// The letters of a codec, as far as they are letters.
pub(super) fn four_letters(code: &[u8; 4]) -> String {
    format!("\"{}\"", code.escape_ascii())
}

/// A codec of AIFF, CAF and QuickTime by its letters.
pub(super) fn coded_as(code: &[u8; 4]) -> String {
    let name = match code {
        b"ima4" => "IMA ADPCM samples",
        b"MAC3" | b"MAC6" => "MACE samples",
        b"GSM " | b"agsm" => "GSM 6.10 samples",
        b"QDM2" | b"QDMC" => "QDesign samples",
        b"Qclp" => "QCELP samples",
        b"G722" => "G.722 samples",
        b"ms\0\x02" => "Microsoft ADPCM samples",
        b"ms\0\x11" => "IMA ADPCM samples of WAV",
        b"ms\0\x31" => "GSM 6.10 samples",
        b"dvi4" | b"DVI4" => "DVI ADPCM samples",
        b"aac " | b"aach" | b"aacl" | b"aace" | b"paac" => "AAC in a container of plain samples",
        b".mp1" | b".mp2" | b".mp3" | b"ms\0U" => "MPEG audio in a container of plain samples",
        b"opus" => "Opus in a container of plain samples",
        b"flac" => "FLAC in a container of plain samples",
        b"fl16" => "float samples of 16 bits",
        b"samr" | b"sawb" => "AMR",
        b"ilbc" => "iLBC",
        other => return format!("samples coded as {}", four_letters(other)),
    };
    format!("{name} ({})", four_letters(code))
}

/// A codec of WAV by its number.
fn wav_codec(tag: u64) -> String {
    let name = match tag {
        0x02 | 0x11 => "ADPCM samples of an unusual layout",
        0x31 => "GSM 6.10",
        0x45 | 0x64 | 0x65 => "G.726 ADPCM",
        0x50 => "MPEG layer 1 or 2 in a WAV",
        0x55 => "MP3 in a WAV",
        0x92 | 0x2000 => "AC-3",
        0xff | 0x1600 | 0x1602 | 0x706d => "AAC in a WAV",
        0x160 => "Windows Media Audio 1",
        0x161 => "Windows Media Audio 2",
        0x162 => "Windows Media Audio Pro",
        0x163 => "Windows Media Audio Lossless",
        0x270 => "ATRAC3",
        0x2001 => "DTS",
        0x566f | 0x674f..=0x6771 => "Vorbis in a WAV",
        0xa109 => "Speex",
        _ => return format!("samples coded as number {tag:#06x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_samples_have_their_value() {
        let cases: &[(Sample, &[u8], bool, f64)] = &[
            (Sample::Unsigned(1), &[0], false, -1.0),
            (Sample::Unsigned(1), &[192], false, 0.5),
            (Sample::Unsigned(2), &[0xc0, 0], true, 0.5),
            (Sample::Unsigned(3), &[0, 0, 0x40], false, -0.5),
            (Sample::Unsigned(4), &[0, 0, 0, 0], true, -1.0),
            (Sample::Signed(1), &[0x80], false, -1.0),
            (Sample::Signed(2), &[0, 0x40], false, 0.5),
            (Sample::Signed(2), &[0x40, 0], true, 0.5),
            (Sample::Signed(3), &[0, 0, 0x80], false, -1.0),
            (Sample::Signed(3), &[0xff, 0xff, 0xff], false, -1.0 / 8_388_608.0),
            (Sample::Signed(4), &[0xc0, 0, 0, 0], true, -0.5),
            (Sample::Signed(8), &[0, 0, 0, 0, 0, 0, 0, 0x20], false, 0.25),
            (Sample::Float32, &[0, 0, 0, 0x40], false, 2.0),
            (Sample::Float64, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0], true, 1.5),
            (Sample::ALaw, &[0xd5], false, 8.0 / 32768.0),
            (Sample::ALaw, &[0x2a], false, -32256.0 / 32768.0),
            (Sample::MuLaw, &[0xff], false, 0.0),
            (Sample::MuLaw, &[0x00], false, -32124.0 / 32768.0),
        ];
        for (sample, stored, big_endian, want) in cases {
            assert_eq!(sample.value(stored, *big_endian), *want, "{sample:?} {stored:02x?}");
        }
    }
}
