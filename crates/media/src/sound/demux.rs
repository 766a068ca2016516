//! Containers that symphonia takes apart (one stream of FLAC, MP4, Matroska), and packets of any codec into mono samples.

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::*;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions, CODEC_ID_NULL_AUDIO,
};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, TimeBase, Timestamp};

use crate::error::MediaError;
use crate::film::matroska_audio_tracks;
use crate::tracks::{self, TrackChoice, TrackInfo};

use super::input::Input;
use super::mp4::{self, SoundTrack};
use super::opus::{OpusHead, OpusPackets, RATE_HZ};
use super::pcm::{Coding, Sample};
use super::{Decoder, Held, Label, matroska, mix, pcm, quicktime};

/// The most frames that a packet of a usual file holds; a FLAC file of unusual blocks has up to 65,535.
const MOST_PACKET_FRAMES: u64 = 16_384;

/// Bytes of text and of pictures in tags that symphonia may keep.
const MAX_TAG_BYTES: usize = 1 << 16;

/// Packets of one codec into mono samples.
pub(super) struct PacketDecoder {
    label: Label,
    kind: Kind,
    rate_hz: u32,
    channels: usize,
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
    fn coded(coding: &Coding, rate_hz: u32, channels: usize, label: &Label) -> Result<Self, MediaError> {
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
    fn finish(&mut self) -> Result<(), MediaError> {
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

/// Opens one stream of FLAC.
pub(super) fn open_flac(stream: MediaSourceStream<'static>, label: &Label) -> Result<Demuxed, MediaError> {
    let limits = MetadataOptions::default()
        .limit_tag_bytes(Limit::Maximum(MAX_TAG_BYTES))
        .limit_visual_bytes(Limit::Maximum(MAX_TAG_BYTES));
    let format = symphonia::default::get_probe().probe(&Hint::new(), stream, FormatOptions::default(), limits);
    let format = format.map_err(|error| failure(error, label))?;
    let track = format.tracks().first().ok_or_else(|| no_track(label, "no track of sound that is known"))?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(no_track(label, "no track of sound that is known"));
    };
    let decoder = PacketDecoder::new(parameters, label)?;
    label.check_channels(decoder.channels)?;
    label.check_rate(decoder.rate_hz, true)?;
    let window = Window::new(track, None, parameters, &decoder, label)?;
    Ok(Demuxed {
        track: track.id,
        format,
        decoder,
        window,
        vorbis: false,
        fragmented: false,
        tables: 1 << 20,
        packed_frames: None,
        decoded: 0,
        clock: Some(None),
    })
}

/// Opens MP4 and Matroska: the track that is meant, or an error that names what it holds. Never another one, which
/// may be another language.
pub(super) fn open(mut input: Input, label: &Label, choice: &TrackChoice) -> Result<Box<dyn Decoder>, MediaError> {
    let length = input.length();
    // The boxes of an MP4 that list packets are kept as lists of at most four times their bytes; cues of Matroska and seek
    // tables of FLAC are small.
    let tables = if matches!(label.format, "mp4" | "m4a" | "mov") {
        4 * mp4::table_bytes(&mut input)
    } else {
        length.min(1 << 20)
    };
    let isom = matches!(label.format, "mp4" | "m4a" | "mov");
    let sounds = if isom { mp4::sound_tracks(&mut input, label)? } else { Vec::new() };
    let mut named = Vec::new();
    if label.format == "mkv" {
        check_matroska_length(&mut input, length, label)?;
        named = matroska::sound_tracks(&mut input, label)?;
    }
    if isom && sounds.is_empty() {
        return Err(no_track(label, "a film without sound"));
    }
    // Numbers of the tracks, and what is known of them.
    let described: Vec<(u64, TrackInfo)> = match label.format {
        "mkv" => {
            use std::io::{Seek, SeekFrom};
            let found = matroska_audio_tracks(&mut input).map_err(|error| label.corrupt(error))?;
            input.seek(SeekFrom::Start(0)).map_err(|error| label.corrupt(error))?;
            found
        }
        _ => sounds.iter().zip(0..).map(|(sound, at)| (u64::from(sound.id), sound.info(at))).collect(),
    };
    let infos: Vec<TrackInfo> = described.iter().map(|(_, info)| info.clone()).collect();
    let chosen = match infos.as_slice() {
        [] => None,
        infos => Some(tracks::find(&label.name, "audio track", infos, choice)?),
    };
    let among = |error: MediaError| match error {
        MediaError::UnsupportedCodec { name, format, detail } if infos.len() > 1 => {
            let at = chosen.unwrap_or(0);
            let detail =
                format!("{detail} in audio track {at}; another one can be asked for: {}", tracks::list(&infos));
            MediaError::UnsupportedCodec { name, format, detail }
        }
        other => other,
    };
    if let Some(coded) = chosen.and_then(|at| sounds.get(at)).filter(|track| track.encrypted()) {
        return Err(among(label.unsupported(format!("found an encrypted track ({})", coded.codec_words()))));
    }
    if let Some(track) = chosen.and_then(|at| sounds.get(at)).filter(|track| track.plain()) {
        let header = quicktime::header(&mut input, track, label)?;
        return pcm::open_described(input, label, header);
    }
    let stream = MediaSourceStream::new(Box::new(input), MediaSourceStreamOptions::default());
    let limits = MetadataOptions::default()
        .limit_tag_bytes(Limit::Maximum(MAX_TAG_BYTES))
        .limit_visual_bytes(Limit::Maximum(MAX_TAG_BYTES));
    let format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), limits)
        .map_err(|error| match (&error, chosen.and_then(|at| sounds.get(at))) {
            // A film that symphonia does not open at all: its sound track may be what it stumbles over.
            (Error::Unsupported(why), Some(track)) => {
                label.unsupported(format!("found {} ({why})", track.codec_words()))
            }
            _ => failure(error, label),
        })?;
    let mut refused: Option<MediaError> = None;
    for track in format.tracks() {
        if chosen.is_some_and(|at| described[at].0 != u64::from(track.id)) {
            continue;
        }
        let listed = named.iter().find(|named| named.number == u64::from(track.id));
        let coding = listed.and_then(|track| Some((track, track.coding(label)?)));
        let unknown = AudioCodecParameters::new();
        let parameters = match &track.codec_params {
            Some(CodecParameters::Audio(parameters)) => parameters,
            _ if coding.is_some() => &unknown,
            _ => {
                if let Some(track) = listed {
                    refused = refused.or_else(|| Some(label.unsupported(format!("found {}", track.codec_words()))));
                }
                continue;
            }
        };
        let sound = sounds.iter().find(|sound| sound.id == track.id);
        if sound.is_some_and(|sound| sound.changes) {
            let changes = label.unsupported("found a sound track whose description changes");
            refused = refused.or(Some(changes));
            continue;
        }
        let opened = match coding {
            Some((track, coding)) => coding.and_then(|coding| {
                label.check_channels(track.channels)?;
                let decoder = PacketDecoder::coded(&coding, track.rate_hz, track.channels, label)?;
                Ok((decoder, parameters.clone()))
            }),
            None => fix_parameters(parameters, sound, label)
                .and_then(|parameters| Ok((PacketDecoder::new(&parameters, label)?, parameters))),
        };
        match opened {
            Ok((decoder, parameters)) => {
                label.check_channels(decoder.channels)?;
                label.check_rate(decoder.rate_hz, true)?;
                let window = Window::new(track, sound, &parameters, &decoder, label)?;
                return Ok(Box::new(Demuxed {
                    track: track.id,
                    format,
                    decoder,
                    window,
                    vorbis: parameters.codec == CODEC_ID_VORBIS,
                    fragmented: sound.is_some_and(|sound| sound.fragmented),
                    tables,
                    packed_frames: match parameters.codec {
                        // A silent channel takes six bytes.
                        CODEC_ID_AAC => Some((length / 6 + 1) * 1024),
                        // The lowest rate is 8 kbit/s at 24 kHz.
                        CODEC_ID_MP3 => Some((length / 24 + 1) * 1152),
                        _ => None,
                    },
                    decoded: 0,
                    clock: None,
                }));
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(among(match (refused, chosen) {
        (Some(error), _) => error,
        (None, Some(at)) => match sounds.get(at) {
            Some(track) => label.unsupported(format!("found {}", track.codec_words())),
            None => label.unsupported(format!("found {}", infos[at].codec)),
        },
        (None, None) => no_track(label, "no track of sound that is known"),
    }))
}

fn no_track(label: &Label, found: &str) -> MediaError {
    MediaError::NoTrack { name: label.name.clone(), found: found.to_owned(), expected: "a sound track" }
}

/// What symphonia leaves out or leaves as it is: ALAC in old films, and the header of Opus in MP4, whose numbers are stored
/// the other way round than in Ogg.
fn fix_parameters(
    parameters: &AudioCodecParameters,
    sound: Option<&SoundTrack>,
    label: &Label,
) -> Result<AudioCodecParameters, MediaError> {
    let mut parameters = parameters.clone();
    if let Some(cookie) = sound.and_then(|sound| sound.alac.as_deref()) {
        parameters.for_codec(CODEC_ID_ALAC).with_extra_data(cookie.into());
    }
    if parameters.codec == CODEC_ID_NULL_AUDIO {
        let words = sound.map_or_else(|| "a sound track of an unknown codec".to_owned(), SoundTrack::codec_words);
        return Err(label.unsupported(format!("found {words}")));
    }
    if parameters.codec == CODEC_ID_OPUS
        && sound.is_some()
        && let Some(head) = parameters.extra_data.as_deref_mut()
        && head.len() >= 19
    {
        head[10..12].reverse();
        head[12..16].reverse();
        head[16..18].reverse();
    }
    Ok(parameters)
}

/// A Matroska file says how long it is, except where it was streamed.
fn check_matroska_length(input: &mut Input, length: u64, label: &Label) -> Result<(), MediaError> {
    use std::io::{Read, Seek, SeekFrom};
    let failed = |error: std::io::Error| label.corrupt(error);
    let mut head = Vec::new();
    input.take(4096).read_to_end(&mut head).map_err(failed)?;
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    // An element: identifier, length, body. The first one is the header of the file, the second one all the rest.
    let element = |at: usize| -> Option<(usize, Option<u64>)> {
        let id_bytes = head.get(at)?.leading_zeros() as usize + 1;
        let size_at = at + id_bytes;
        let size_bytes = head.get(size_at)?.leading_zeros() as usize + 1;
        let stored = head.get(size_at..size_at + size_bytes).filter(|_| size_bytes <= 8)?;
        let mask = (1u64 << (7 * size_bytes)) - 1;
        let value = stored.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)) & mask;
        Some((size_at + size_bytes, (value != mask).then_some(value)))
    };
    let Some((body, Some(size))) = element(0) else { return Ok(()) };
    let Some((body, Some(size))) = usize::try_from(size).ok().and_then(|size| element(body.saturating_add(size)))
    else {
        return Ok(());
    };
    let there = length.saturating_sub(body as u64);
    if size > there { Err(label.cut_short(there, size, "bytes")) } else { Ok(()) }
}

/// Which of the decoded frames are the sound.
struct Window {
    /// Frames to cut off at the start.
    skip: u64,
    /// Frames to give after that.
    most: u64,
    /// Frames that there must be.
    least: u64,
}

impl Window {
    fn new(
        track: &Track,
        sound: Option<&SoundTrack>,
        parameters: &AudioCodecParameters,
        decoder: &PacketDecoder,
        label: &Label,
    ) -> Result<Self, MediaError> {
        let rate_hz = decoder.rate_hz;
        let everything = Self { skip: 0, most: u64::MAX, least: 0 };
        let pre_skip = || -> Result<u64, MediaError> {
            let head = parameters.extra_data.as_deref().unwrap_or_default();
            Ok(if parameters.codec == CODEC_ID_OPUS { OpusHead::read(head, label)?.pre_skip } else { 0 })
        };
        if label.format == "flac" {
            let frames = track.num_frames.filter(|frames| *frames > 0);
            return Ok(Self { least: frames.unwrap_or(0), ..everything });
        }
        if sound.is_some_and(|sound| sound.in_parts) {
            // Versions of FFmpeg give different samples of these, and none of them those of the standard.
            return Err(label.unsupported("found an edit list that plays several parts of its audio track"));
        }
        if let Some(sound) = sound {
            let frames = |ticks: u64, of: u32| (u128::from(ticks) * u128::from(rate_hz) / u128::from(of.max(1))) as u64;
            let skip = match sound.start {
                Some(start) => frames(start, sound.timescale),
                None => pre_skip()?,
            };
            // The table of durations counts every frame that is no padding; the edit list may count fewer.
            let mut most = u64::MAX;
            if let Some(duration) = track.duration.map(|duration| duration.get()).filter(|ticks| *ticks > 0)
                && !sound.fragmented
            {
                most = frames(duration, sound.timescale).saturating_sub(skip);
            }
            if let Some(length) = sound.length.filter(|_| sound.movie_timescale >= rate_hz) {
                most = most.min(frames(length, sound.movie_timescale));
            }
            return Ok(Self { skip, most, ..everything });
        }
        Ok(Self { skip: pre_skip()?, ..everything })
    }
}

/// A track of a container.
pub(super) struct Demuxed {
    format: Box<dyn FormatReader>,
    track: u32,
    decoder: PacketDecoder,
    window: Window,
    vorbis: bool,
    /// An MP4 in pieces, whose header does not tell its length.
    fragmented: bool,
    /// Bytes of the container's tables in memory.
    tables: u64,
    /// Frames that a file of this length can hold in the codec, where its shortest packet is known.
    packed_frames: Option<u64>,
    /// Frames decoded, with those that are cut off.
    decoded: u64,
    /// In FLAC, whose frames are counted and whose reader passes over what it cannot read: the number that the next packet
    /// must have, once the first is known.
    clock: Option<Option<i64>>,
}

impl Decoder for Demuxed {
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let window = &self.window;
        let left = |all: u64| all.saturating_sub(self.decoded.saturating_sub(window.skip));
        if window.most < u64::MAX {
            return Ok(Some(left(window.most)));
        }
        if window.least > 0 {
            return Ok(Some(left(window.least)));
        }
        let info = self.format.media_info();
        let seconds = info
            .time_base
            .zip(info.duration)
            .map(|(base, duration)| duration.get() as f64 * f64::from(base.numer.get()) / f64::from(base.denom.get()));
        // Rounded up, with the packet that it ends in.
        let stated = seconds.filter(|seconds| *seconds > 0.0).map(|seconds| {
            ((seconds * f64::from(self.decoder.rate_hz)).ceil() as u64).saturating_add(MOST_PACKET_FRAMES)
        });
        let all = if self.fragmented { self.packed_frames } else { stated.or(self.packed_frames) };
        Ok(all.map(left))
    }

    fn held(&self) -> Held {
        Held { bytes: self.tables + self.decoder.bytes(MOST_PACKET_FRAMES), call_frames: MOST_PACKET_FRAMES }
    }

    fn rate_hz(&self) -> u32 {
        self.decoder.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let label = &self.decoder.label;
        let packet = self.format.next_packet().map_err(|error| failure(error, label))?;
        let Some(packet) = packet else {
            self.decoder.finish()?;
            if self.decoded < self.window.least {
                return Err(self.decoder.label.cut_short(self.decoded, self.window.least, "frames"));
            }
            return Ok(false);
        };
        if packet.track_id != self.track || packet.data.is_empty() {
            return Ok(true);
        }
        let before = mono.len();
        self.decoder.decode(&packet, mono)?;
        let fresh = (mono.len() - before) as u64;
        if let Some(clock) = &mut self.clock {
            let at = packet.pts.get();
            if let Some(expected) = clock.filter(|expected| *expected != at) {
                let found = format!("found frame {at} where {expected} was expected");
                return Err(self.decoder.label.corrupt(found));
            }
            *clock = Some(at.saturating_add_unsigned(fresh));
        }
        // Matroska has no count of frames to cut off but gives the first packets times below zero. The decoder of Vorbis
        // leaves out the first packet by itself.
        if self.decoded == 0 && !self.vorbis && self.window.skip == 0 && packet.pts.get() < 0 {
            self.window.skip = self.delay(packet.pts.get());
        }
        let skip = self.window.skip.saturating_sub(self.decoded).min(fresh);
        mono.drain(before..before + skip as usize);
        let given = self.decoded.saturating_sub(self.window.skip);
        let kept = (fresh - skip).min(self.window.most.saturating_sub(given));
        mono.truncate(before + kept as usize);
        self.decoded += fresh;
        Ok(true)
    }
}

impl Demuxed {
    /// Frames before time zero. Times are in milliseconds, so a delay that every encoder has is recognised.
    fn delay(&self, ticks: i64) -> u64 {
        let track = self.format.tracks().iter().find(|track| track.id == self.track);
        let Some(base) = track.and_then(|track| track.time_base) else { return 0 };
        let tick = |base: TimeBase| f64::from(base.numer.get()) / f64::from(base.denom.get());
        let rate = f64::from(self.decoder.rate_hz);
        let frames = -(ticks as f64) * tick(base) * rate;
        let usual = [1024.0, 2112.0, 576.0, 1105.0, 529.0]
            .into_iter()
            .find(|usual| (usual - frames).abs() <= tick(base) * rate);
        usual.unwrap_or(frames.round()) as u64
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
