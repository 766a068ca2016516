//! Containers that symphonia takes apart: one stream of FLAC, MP4, Matroska.

use std::io::Seek;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::*;
use symphonia::core::codecs::audio::{AudioCodecParameters, CODEC_ID_NULL_AUDIO};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::units::TimeBase;

use crate::container::tracks::find;
use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::{self, TrackChoice, TrackInfo};

use super::decoder::{Decoder, Held};
use super::mp4::{AudioTrack, Movie};
use super::opus::OpusHead;
use super::packets::{PacketDecoder, failure};
use super::{matroska, pcm, quicktime};

/// The most frames that a packet of a usual file holds; a FLAC file of unusual blocks has up to 65,535.
const MOST_PACKET_FRAMES: u64 = 16_384;

/// Bytes of text and of images in tags that symphonia may keep.
const MAX_TAG_BYTES: usize = 1 << 16;

/// What symphonia makes of a file, with limits to what it keeps of tags.
pub(super) fn probe(stream: MediaSourceStream<'static>) -> Result<Box<dyn FormatReader>, Error> {
    let limits = MetadataOptions::default()
        .limit_tag_bytes(Limit::Maximum(MAX_TAG_BYTES))
        .limit_visual_bytes(Limit::Maximum(MAX_TAG_BYTES));
    symphonia::default::get_probe().probe(&Hint::new(), stream, FormatOptions::default(), limits)
}

/// Opens one stream of FLAC.
pub(super) fn open_flac(stream: MediaSourceStream<'static>, label: &Label) -> Result<Demuxed, MediaError> {
    let format = probe(stream).map_err(|error| failure(error, label))?;
    let track = format.tracks().first().ok_or_else(|| no_track(label, "no track of audio that is known"))?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(no_track(label, "no track of audio that is known"));
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
pub(super) fn open(mut source: Source, label: &Label, choice: &TrackChoice) -> Result<Box<dyn Decoder>, MediaError> {
    let length = source.length();
    // Tracks of one of the two containers; cues of Matroska are small.
    let (mut sounds, mut named, mut moov, mut tables) = (Vec::new(), Vec::new(), Vec::new(), length.min(1 << 20));
    // Numbers of the tracks, and what is known of them.
    let described: Vec<(u64, TrackInfo)> = if label.format == "mkv" {
        named = matroska::audio_tracks(&mut source)?;
        named.iter().map(|track| (track.number, track.info.clone())).collect()
    } else {
        let movie = Movie::read(&mut source)?;
        if movie.tracks.is_empty() {
            return Err(no_track(label, "a video without audio"));
        }
        // Boxes that list packets are kept as lists of at most four times their bytes.
        (sounds, moov, tables) = (movie.tracks, movie.moov, 4 * movie.table_bytes);
        sounds.iter().zip(0..).map(|(sound, at)| (u64::from(sound.id), sound.info(at))).collect()
    };
    let infos: Vec<TrackInfo> = described.iter().map(|(_, info)| info.clone()).collect();
    let chosen = match infos.as_slice() {
        [] => None,
        infos => Some(find(&label.name, "audio track", infos, choice)?),
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
        let header = quicktime::header(&mut source, &moov, track)?;
        return pcm::open_described(source, label, header);
    }
    drop(moov);
    source.rewind().map_err(|error| label.corrupt(error))?;
    let stream = MediaSourceStream::new(Box::new(source), MediaSourceStreamOptions::default());
    let format = probe(stream).map_err(|error| match (&error, chosen.and_then(|at| sounds.get(at))) {
        // A video that symphonia does not open at all: its audio track may be what it stumbles over.
        (Error::Unsupported(why), Some(track)) => label.unsupported(format!("found {} ({why})", track.codec_words())),
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
            let changes = label.unsupported("found an audio track whose description changes");
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
        (None, None) => no_track(label, "no track of audio that is known"),
    }))
}

fn no_track(label: &Label, found: &str) -> MediaError {
    label.no_track(found, "an audio track")
}

/// What symphonia leaves out or leaves as it is: ALAC in old videos, and the header of Opus in MP4, whose numbers are stored
/// the other way round than in Ogg.
fn fix_parameters(
    parameters: &AudioCodecParameters,
    sound: Option<&AudioTrack>,
    label: &Label,
) -> Result<AudioCodecParameters, MediaError> {
    let mut parameters = parameters.clone();
    if let Some(cookie) = sound.and_then(|sound| sound.alac.as_deref()) {
        parameters.for_codec(CODEC_ID_ALAC).with_extra_data(cookie.into());
    }
    if parameters.codec == CODEC_ID_NULL_AUDIO {
        let words = sound.map_or_else(|| "an audio track of an unknown codec".to_owned(), AudioTrack::codec_words);
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

/// Which of the decoded frames are the audio.
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
        sound: Option<&AudioTrack>,
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
