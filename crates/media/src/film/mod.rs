//! Film files into the frames that are shown at given times.
//!
//! What lives here: containers ([MP4 and MOV](mp4), [Matroska and WebM](mkv)) into packets with their times, H.264 into
//! planes, planes into RGB, and the choice of frames. What does not: sound, and the resize and cut of frames. Nothing is
//! decoded before a frame is asked for, and of a file only headers and the packets that are needed are read.

mod animation;
#[cfg(feature = "av1")]
mod av1;
mod ffmpeg;
mod h264;
mod mkv;
mod mp4;
mod packets;
mod source;
mod yuv;

use std::fmt;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::film::animation::is_animation;

use crate::error::MediaError;
use crate::film::packets::{Codec, PictureTrack, Pictures};
use crate::film::source::Source;
use crate::image::RgbImage;
use crate::kind::{SNIFF_BYTES, sniff};
use crate::need::{ClipNeed, Need, PictureTarget, SMALL_BYTES};
use crate::patches::{ClipCutter, PatchGrid};
use crate::size::VisionPreprocess;
use crate::tracks::{TrackChoice, TrackInfo, only_track};

/// The audio tracks that a Matroska file describes, with their numbers. Leaves the reader anywhere.
pub(crate) fn matroska_audio_tracks(reader: &mut (impl Read + Seek)) -> io::Result<Vec<(u64, TrackInfo)>> {
    mkv::described(reader, mkv::AUDIO)
}

/// How much of an Ogg file is searched for the header of a picture track.
const OGG_HEADERS: u64 = 4096;

/// Whether `bytes` hold `what`.
fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Where a film comes from.
#[derive(Clone, Debug)]
pub enum FilmSource {
    /// A file.
    File(PathBuf),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
}

/// How films are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmOptions {
    /// The program that decodes codecs which nothing here decodes; `None`: they are refused by name.
    pub ffmpeg: Option<PathBuf>,
    /// Which of several video tracks.
    pub track: TrackChoice,
}

impl Default for FilmOptions {
    /// The program that is called `ffmpeg` where programs are looked for.
    fn default() -> Self {
        Self { ffmpeg: Some(PathBuf::from("ffmpeg")), track: TrackChoice::Default }
    }
}

/// A film that is open: its pictures' times are known, and its pictures are decoded as they are asked for.
///
/// Its clock begins at zero where its first shown image does, whatever the container's clock says by then: a video cut out
/// of a longer one, or recorded while a clock ran, is the same as from zero.
pub struct Film {
    pictures: Box<dyn Pictures>,
    name: String,
}

impl fmt::Debug for Film {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Film({}, {} pictures)", self.name, self.pictures.starts_s().len())
    }
}

impl Film {
    /// Opens a film: reads its headers and the times of its pictures. The content decides the format, not the name.
    ///
    /// # Errors
    /// - [`MediaError::NotFound`], [`MediaError::NotAFile`], [`MediaError::Unreadable`]: of a path
    /// - [`MediaError::Empty`]: no bytes, or no picture that is shown
    /// - [`MediaError::UnknownFormat`]: not a film; what it is instead is named
    /// - [`MediaError::NoTrack`]: a film without pictures
    /// - [`MediaError::NoSuchTrack`]: without the track that was asked for; those that are there are listed
    /// - [`MediaError::UnsupportedCodec`]: a container or a codec, or a part of one, that is not read
    /// - [`MediaError::TooManyPixels`]: frames larger than the codec allows
    /// - [`MediaError::Corrupt`]: damaged or cut short
    pub fn open(source: &FilmSource, options: &FilmOptions) -> Result<Self, MediaError> {
        let given = source;
        let mut source = Source::open(given)?;
        let head = source.read_up_to(0, SNIFF_BYTES as u64)?;
        let name = source.name().to_owned();
        let found = sniff(&head);
        let track = match found {
            Some(format @ ("mp4" | "mov" | "m4a")) => {
                source.format = format;
                mp4::open(source, &options.track)?
            }
            Some("mkv") => {
                source.format = "mkv";
                mkv::open(source, &options.track)?
            }
            Some(format @ ("avi" | "flv" | "mpeg" | "mpeg-ts" | "asf")) => {
                return Err(MediaError::UnsupportedCodec {
                    name,
                    format,
                    detail: format!("found a film in a container of type {}", format.to_uppercase()),
                });
            }
            // The headers of all tracks come before any data.
            Some("ogg") if holds(&source.read_up_to(0, OGG_HEADERS)?, b"\x80theora") => {
                return Err(MediaError::UnsupportedCodec {
                    name,
                    format: "ogg",
                    detail: "found pictures coded as Theora".to_owned(),
                });
            }
            Some(format @ ("gif" | "webp" | "png")) => {
                only_track(&name, format, "video track", &options.track)?;
                return Ok(Self { pictures: animation::open(given, format)?, name });
            }
            found => {
                return Err(MediaError::UnknownFormat {
                    name,
                    found,
                    expected: "film (MP4, MOV, MKV, WebM, animated GIF, WebP or PNG)",
                });
            }
        };
        let pictures = open_codec(track, given, options)?;
        Ok(Self { pictures, name })
    }

    /// Length in seconds: where the last shown picture ends, on the film's clock.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.pictures.end_s()
    }

    /// Coded pictures decoded so far, with those that were only needed by others; `None` where a program decodes, and for
    /// animations and AV1.
    #[must_use]
    pub fn pictures_decoded(&self) -> Option<usize> {
        self.pictures.decoded()
    }

    /// Bytes of memory that so many frames of one segment take, with the tables of the film, as `target` keeps them; the
    /// frames are asked for in one call of [`Film::frames_at`] or [`film_patches`].
    ///
    /// # Errors
    /// As [`crate::film_need`] after opening.
    pub fn need(&self, frames: usize, target: &PictureTarget<'_>) -> Result<Need, MediaError> {
        let pictures = self.pictures.need()?;
        let clip = ClipNeed::new(frames, pictures.width, pictures.height, target);
        let clip = clip.map_err(|error| error.of(self.name.as_str()))?;
        let picture = 3 * u64::from(pictures.width) * u64::from(pictures.height);
        let preparing = pictures.held + picture + clip.preparing(pictures.width, pictures.height);
        let peak = (clip.kept + clip.held + pictures.decoding).max(clip.kept + preparing).max(pictures.opening);
        Ok(Need { peak: peak + SMALL_BYTES, kept: clip.kept })
    }

    /// Gives the frame that is shown at each time to `each`, with the place of the time in the list.
    ///
    /// That is the last picture which begins at or before the time. Before the first picture it is the first one, and
    /// from the end on the last one. A frame that is shown at several times in a row is decoded once.
    ///
    /// # Shapes
    /// - `times_s`: seconds on the film's clock, ascending
    /// # Numerics
    /// Starts are compared as they are, in f64: a time computed in another way than `ticks / ticks a second` may fall on
    /// the other side of a start by its last bit.
    /// # Errors
    /// [`MediaError::Corrupt`] or [`MediaError::UnsupportedCodec`] for pictures that cannot be decoded, and what `each`
    /// gives.
    /// # Panics
    /// If a time is not a number, or less than the one before it.
    pub fn frames_at(
        &mut self,
        times_s: &[f64],
        each: &mut dyn FnMut(usize, &RgbImage) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        assert!(times_s.iter().all(|time| !time.is_nan()) && times_s.is_sorted(), "times are numbers and ascend");
        let mut last: Option<(usize, RgbImage)> = None;
        for (index, time) in times_s.iter().enumerate() {
            let place = self.place_at(*time);
            let frame = match last.take() {
                Some((held, frame)) if held == place => frame,
                // The picture before is given up first, so that one is held and not two.
                before => {
                    drop(before);
                    self.pictures.picture(place)?
                }
            };
            each(index, &frame)?;
            last = Some((place, frame));
        }
        Ok(())
    }

    /// The picture that is shown at a time.
    fn place_at(&self, time_s: f64) -> usize {
        self.pictures.starts_s().partition_point(|start| *start <= time_s).saturating_sub(1)
    }
}

/// Whether a file of a film's container holds pictures; false for sound in such a container.
///
/// # Errors
/// As [`Film::open`], except that a codec which is not decoded here counts as pictures.
pub fn has_pictures(source: &FilmSource) -> Result<bool, MediaError> {
    match Film::open(source, &FilmOptions { ffmpeg: None, track: TrackChoice::Default }) {
        Ok(_) | Err(MediaError::UnsupportedCodec { .. }) => Ok(true),
        Err(MediaError::NoTrack { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Picks the decoder of a track.
fn open_codec(
    mut track: PictureTrack,
    source: &FilmSource,
    options: &FilmOptions,
) -> Result<Box<dyn Pictures>, MediaError> {
    // H.264 tells by itself where decoding can begin.
    if track.codec != Codec::H264 {
        track.hide_before_sync();
    }
    if track.codec == Codec::Hevc {
        ffmpeg::hide_skipped(&mut track)?;
    }
    match (&track.codec, &options.ffmpeg) {
        (Codec::H264, _) => Ok(Box::new(h264::H264::open(track)?)),
        #[cfg(feature = "av1")]
        (Codec::Av1, _) => av1::open(track),
        (_, Some(program)) => ffmpeg::open(&track, source, program),
        (codec, None) => {
            let detail = format!("found pictures in codec {}", ffmpeg::codec_name(codec));
            Err(track.unsupported(detail))
        }
    }
}

/// `count` times at `lo + (hi - lo) (i + 0.5) / count`.
///
/// # Numerics
/// f64, in the order that the formula is written in.
#[must_use]
pub fn sample_times(range_s: Range<f64>, count: usize) -> Vec<f64> {
    let width = range_s.end - range_s.start;
    (0..count).map(|i| range_s.start + width * (i as f64 + 0.5) / count as f64).collect()
}

/// Patch rows of frames sampled from a part of a film, at [`sample_times`].
///
/// Frames are resized and dropped one by one; the first one sets the size.
///
/// # Shapes
/// - `range_s`: seconds on the film's clock
/// - returns: as [`crate::video_patches`] of `frames` frames
/// # Errors
/// As [`Film::frames_at`] and [`crate::video_size`]; [`MediaError::Empty`] for no frames.
pub fn film_patches(
    film: &mut Film,
    range_s: Range<f64>,
    frames: usize,
    preprocess: &VisionPreprocess,
) -> Result<PatchGrid, MediaError> {
    let mut clip = ClipCutter::new(frames, preprocess)?;
    let times = sample_times(range_s, frames);
    let places: Vec<usize> = times.iter().map(|time| film.place_at(*time)).collect();
    let read = film.frames_at(&times, &mut |index, frame| {
        if index > 0 && places[index - 1] == places[index] {
            clip.push_again();
            Ok(())
        } else {
            clip.push(frame)
        }
    });
    read.map_err(|error| error.of(film.name.as_str()))?;
    Ok(clip.finish())
}
