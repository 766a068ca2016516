//! Packets of any codec into mono samples.

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::*;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::error::MediaError;
use crate::label::Label;

use super::decoder::mix;
use super::opus::{OpusHead, OpusPackets, RATE_HZ};
use super::samples::{Coding, Sample};
use super::vorbis::with_couplings_reversed;

/// Packets of one codec into mono samples.
pub(super) struct PacketDecoder {
    pub(super) label: Label,
    kind: Kind,
    pub(super) rate_hz: u32,
    pub(super) channels: usize,
    samples: Vec<f64>,
}

enum Kind {
    Plain {
        sample: Sample,
        big_endian: bool,
    },
    /// Packets of several blocks, as WAV has them.
    Blocks {
        decoder: Box<PacketDecoder>,
        bytes: usize,
        frames: u64,
    },
    Codec(Box<dyn AudioDecoder>),
    Opus(Box<OpusPackets>),
}

impl PacketDecoder {
    /// A decoder for what symphonia or the Opus decoder reads.
    pub(super) fn new(parameters: &AudioCodecParameters, label: &Label) -> Result<Self, MediaError> {
        if parameters.codec == CODEC_ID_OPUS {
            let head = parameters.extra_data.as_deref().unwrap_or_default();
            return Self::opus(&OpusHead::read(head, label)?, label);
        }
        // Matroska may state a rate and channels that are not those of the codec; those of the first packet count.
        let channels = parameters.channels.as_ref().map_or(1, |channels| channels.count());
        label.check_channels(channels)?;
        let options = AudioDecoderOptions::default().gapless(true).verify(parameters.codec == CODEC_ID_FLAC);
        let mut parameters = parameters.clone();
        if parameters.codec == CODEC_ID_VORBIS
            && let Some(headers) = &mut parameters.extra_data
        {
            *headers = with_couplings_reversed(headers).into();
        }
        let parameters = &parameters;
        let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options);
        let decoder = decoder.map_err(|error| match error {
            Error::Unsupported(why) => label.unsupported(format!("found {} ({why})", codec_words(parameters))),
            other => failure(other, label),
        })?;
        let parameters = decoder.codec_params();
        let rate_hz = parameters.sample_rate.unwrap_or(0);
        let channels = parameters.channels.as_ref().map_or(channels, |channels| channels.count());
        Ok(Self { label: label.clone(), kind: Kind::Codec(decoder), rate_hz, channels, samples: Vec::new() })
    }

    /// A decoder of Opus.
    pub(super) fn opus(head: &OpusHead, label: &Label) -> Result<Self, MediaError> {
        let packets = OpusPackets::new(head, label)?;
        let (kind, channels) = (Kind::Opus(Box::new(packets)), head.channels);
        Ok(Self { label: label.clone(), kind, rate_hz: RATE_HZ, channels, samples: Vec::new() })
    }

    /// A decoder for packets of plain samples, or of blocks as WAV has them.
    pub(super) fn coded(coding: &Coding, rate_hz: u32, channels: usize, label: &Label) -> Result<Self, MediaError> {
        match *coding {
            Coding::Plain { sample, big_endian } => {
                let kind = Kind::Plain { sample, big_endian };
                Ok(Self { label: label.clone(), kind, rate_hz, channels, samples: Vec::new() })
            }
            Coding::Blocks { codec, block_bytes, block_frames } => {
                let mut parameters = AudioCodecParameters::new();
                parameters.for_codec(codec).with_sample_rate(rate_hz).with_max_frames_per_packet(block_frames);
                parameters.with_frames_per_block(block_frames);
                if let Some(positions) = Position::from_count(channels as u32) {
                    parameters.with_channels(Channels::Positioned(positions));
                }
                let decoder = Box::new(Self::new(&parameters, label)?);
                let kind = Kind::Blocks { decoder, bytes: block_bytes as usize, frames: block_frames };
                Ok(Self { label: label.clone(), kind, rate_hz, channels, samples: Vec::new() })
            }
            Coding::Packets { .. } => Err(label.unsupported("found packets without a table")),
        }
    }

    /// Bytes that it holds where packets have so many frames: samples as decoded and in f64, and what codecs keep: the
    /// books of Vorbis and the transforms of AAC are the largest, measured at up to 1.5 MB.
    pub(super) fn bytes(&self, packet_frames: u64) -> u64 {
        let streams = if let Kind::Opus(packets) = &self.kind { packets.bytes() } else { 0 };
        (2 << 20) + streams + 16 * packet_frames * self.channels as u64
    }

    /// Appends the frames of a packet.
    pub(super) fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> Result<(), MediaError> {
        let decoder = match &mut self.kind {
            Kind::Opus(packets) => return packets.decode(&packet.data, &self.label, mono),
            Kind::Plain { sample, big_endian } => {
                let frame_bytes = sample.bytes() * self.channels;
                if !packet.data.len().is_multiple_of(frame_bytes) {
                    let found = packet.data.len();
                    return Err(self.label.corrupt(format!("a packet has {found} bytes, {frame_bytes} bytes a frame")));
                }
                sample.mix(&packet.data, *big_endian, self.channels, mono);
                return Ok(());
            }
            Kind::Blocks { decoder, bytes, frames } => {
                for block in packet.data.chunks(*bytes) {
                    if block.len() < *bytes {
                        return Err(self.label.cut_short(block.len() as u64, *bytes as u64, "bytes of a block"));
                    }
                    decoder.decode(&Packet::new(0, Timestamp::from(0), Duration::from(*frames), block), mono)?;
                }
                return Ok(());
            }
            Kind::Codec(decoder) => decoder,
        };
        let decoded = decoder.decode(packet).map_err(|error| failure(error, &self.label))?;
        if decoded.frames() == 0 {
            return Ok(());
        }
        let (rate_hz, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        if rate_hz != self.rate_hz || channels != self.channels {
            let was = format!("{} Hz and {} channels", self.rate_hz, self.channels);
            return Err(self.label.corrupt(format!("{was} become {rate_hz} Hz and {channels} channels")));
        }
        decoded.copy_to_vec_interleaved(&mut self.samples);
        mix(self.samples.iter().copied(), channels, mono);
        Ok(())
    }

    /// Called after the last packet: what the codec can check over the whole.
    pub(super) fn finish(&mut self) -> Result<(), MediaError> {
        if let Kind::Codec(decoder) = &mut self.kind
            && decoder.finalize().verify_ok == Some(false)
        {
            return Err(self.label.corrupt("the checksum of the samples does not fit"));
        }
        Ok(())
    }
}

/// An error of symphonia as one of ours.
pub(super) fn failure(error: Error, label: &Label) -> MediaError {
    match error {
        Error::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            label.corrupt("the file ends too early")
        }
        Error::Unsupported(why) => label.unsupported(format!("found an unsupported feature ({why})")),
        Error::ResetRequired => label.corrupt("the tracks change in the middle"),
        other => label.corrupt(other.to_string()),
    }
}

/// A codec in words, as messages name it.
fn codec_words(parameters: &AudioCodecParameters) -> String {
    const NAMES: &[(AudioCodecId, &str)] = &[
        (CODEC_ID_AC3, "AC-3"),
        (CODEC_ID_EAC3, "E-AC-3"),
        (CODEC_ID_AC4, "AC-4"),
        (CODEC_ID_DCA, "DTS"),
        (CODEC_ID_TRUEHD, "TrueHD"),
        (CODEC_ID_SPEEX, "Speex"),
        (CODEC_ID_MUSEPACK, "Musepack"),
        (CODEC_ID_WMA, "Windows Media Audio"),
        (CODEC_ID_WAVPACK, "WavPack"),
        (CODEC_ID_TTA, "True Audio"),
        (CODEC_ID_MONKEYS_AUDIO, "Monkey's Audio"),
        (CODEC_ID_ATRAC3, "ATRAC3"),
        (CODEC_ID_RA10, "RealAudio"),
        (CODEC_ID_RA20, "RealAudio"),
        (CODEC_ID_COOK, "RealAudio"),
        (CODEC_ID_FLAC, "FLAC of an unusual kind"),
        (CODEC_ID_VORBIS, "Vorbis of an unusual kind"),
        (CODEC_ID_ALAC, "ALAC of an unusual kind"),
    ];
    if parameters.codec == CODEC_ID_AAC {
        return aac_words(parameters.extra_data.as_deref().unwrap_or_default()).to_owned();
    }
    let known = NAMES.iter().find(|(id, _)| *id == parameters.codec);
    known.map_or_else(|| format!("a codec that is not read ({})", parameters.codec), |(_, name)| (*name).to_owned())
}

/// Which AAC a decoder configuration asks for.
fn aac_words(configuration: &[u8]) -> &'static str {
    let Some([first, second]) = configuration.get(..2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()) else {
        return "AAC of an unusual kind";
    };
    let kind = match first >> 3 {
        31 => 32 + u32::from((first & 7) << 3 | second >> 5),
        kind => u32::from(kind),
    };
    match kind {
        1 => "AAC Main",
        2 => "AAC-LC with more than two channels, or HE-AAC",
        3 => "AAC SSR",
        4 => "AAC LTP",
        5 => "HE-AAC",
        29 => "HE-AAC v2",
        23 | 39 => "AAC-LD or AAC-ELD",
        42 => "xHE-AAC",
        _ => "AAC of an unusual kind",
    }
}
