//! Video files into the frames that are shown at given times.
//!
//! What lives here: containers ([MP4 and MOV](mp4), [Matroska and WebM](mkv)) into packets with their times, H.264 into
//! planes, planes into RGB, and the choice of frames. What does not: audio, and the resize and cut of frames. Nothing is
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
use std::ops::Range;
use std::path::PathBuf;

pub use crate::video::animation::is_animation;
pub use crate::video::source::VideoSource;

use crate::container::tracks::only_track;
use crate::error::MediaError;
use crate::estimate::{ClipEstimate, ImageTarget, MemoryEstimate, SMALL_BYTES};
use crate::image::patches::{ClipCutter, PatchGrid};
use crate::image::rgb::RgbImage;
use crate::image::size::VisionPreprocess;
use crate::kind::sniff;
use crate::source::Source;
use crate::tracks::TrackChoice;
use crate::video::packets::{Codec, ShownImages, VideoTrack};

/// How much of an Ogg file is searched for the header of a video track.
const OGG_HEADERS: u64 = 4096;

/// Whether `bytes` hold `what`.
fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// How videos are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoOptions {
    /// The program that decodes codecs which nothing here decodes; `None`: they are refused by name.
    pub ffmpeg: Option<PathBuf>,
    /// Which of several video tracks.
    pub track: TrackChoice,
}

impl Default for VideoOptions {
    /// The program that is called `ffmpeg` where programs are looked for.
    fn default() -> Self {
        Self { ffmpeg: Some(PathBuf::from("ffmpeg")), track: TrackChoice::Default }
    }
}

/// A video that is open: its images' times are known, and its images are decoded as they are asked for.
///
/// Its clock begins at zero where its first shown image does, whatever the container's clock says by then: a video cut out
/// of a longer one, or recorded while a clock ran, is the same as from zero.
pub struct Video {
    images: Box<dyn ShownImages>,
    name: String,
}

impl fmt::Debug for Video {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Video({}, {} images)", self.name, self.images.starts_s().len())
    }
}

impl Video {
    /// Opens a video: reads its headers and the times of its images. The content decides the format, not the name.
    ///
    /// # Errors
    /// - [`MediaError::NotFound`], [`MediaError::NotAFile`], [`MediaError::Unreadable`]: of a path
    /// - [`MediaError::Empty`]: no bytes, or no image that is shown
    /// - [`MediaError::UnknownFormat`]: not a video; what it is instead is named
    /// - [`MediaError::NoTrack`]: a video without images
    /// - [`MediaError::NoSuchTrack`]: without the track that was asked for; those that are there are listed
    /// - [`MediaError::UnsupportedCodec`]: a container or a codec, or a part of one, that is not read
    /// - [`MediaError::TooManyPixels`]: frames larger than the codec allows
    /// - [`MediaError::Corrupt`]: damaged or cut short
    pub fn open(source: &VideoSource, options: &VideoOptions) -> Result<Self, MediaError> {
        let given = source;
        let mut source = match given {
            VideoSource::File(file) => Source::from_file(file, "video")?,
            VideoSource::Bytes(bytes, name) => Source::from_bytes(bytes.clone(), name, "video")?,
        };
        let found = sniff(&source.head()?);
        let name = source.label.name.clone();
        let track = match found {
            Some(format @ ("mp4" | "mov" | "m4a")) => {
                source.label.format = format;
                mp4::open(source, &options.track)?
            }
            Some("mkv") => {
                source.label.format = "mkv";
                mkv::open(source, &options.track)?
            }
            Some(format @ ("avi" | "flv" | "mpeg" | "mpeg-ts" | "asf")) => {
                return Err(MediaError::UnsupportedCodec {
                    name,
                    format,
                    detail: format!("found a video in a container of type {}", format.to_uppercase()),
                });
            }
            // The headers of all tracks come before any data.
            Some("ogg") if holds(&source.read_up_to(0, OGG_HEADERS)?, b"\x80theora") => {
                return Err(MediaError::UnsupportedCodec {
                    name,
                    format: "ogg",
                    detail: "found images coded as Theora".to_owned(),
                });
            }
            Some(format @ ("gif" | "webp" | "png")) => {
                only_track(&name, format, "video track", &options.track)?;
                return Ok(Self { images: animation::open(given, format)?, name });
            }
            found => {
                return Err(MediaError::UnknownFormat {
                    name,
                    found,
                    expected: "video (MP4, MOV, MKV, WebM, animated GIF, WebP or PNG)",
                });
            }
        };
        let images = open_codec(track, given, options)?;
        Ok(Self { images, name })
    }

    /// Length in seconds: where the last shown image ends, on the video's clock.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.images.end_s()
    }

    /// Coded images decoded so far, with those that were only needed by others; `None` where a program decodes, and for
    /// animations and AV1.
    #[must_use]
    pub fn images_decoded(&self) -> Option<usize> {
        self.images.decoded()
    }

    /// Bytes of memory that so many frames of one segment take, with the tables of the video, as `target` keeps them; the
    /// frames are asked for in one call of [`Video::frames_at`] or [`sampled_patches`].
    ///
    /// # Errors
    /// As [`crate::video_estimate`] after opening.
    pub fn estimate(&self, frames: usize, target: &ImageTarget<'_>) -> Result<MemoryEstimate, MediaError> {
        let images = self.images.estimate()?;
        let clip = ClipEstimate::new(frames, images.width, images.height, target);
        let clip = clip.map_err(|error| error.of(self.name.as_str()))?;
        let image = 3 * u64::from(images.width) * u64::from(images.height);
        let preparing = images.held + image + clip.preparing(images.width, images.height);
        let peak = (clip.kept + clip.held + images.decoding).max(clip.kept + preparing).max(images.opening);
        Ok(MemoryEstimate { peak: peak + SMALL_BYTES, kept: clip.kept })
    }

    /// Gives the frame that is shown at each time to `each`, with the place of the time in the list.
    ///
    /// That is the last image which begins at or before the time. Before the first image it is the first one, and
    /// from the end on the last one. A frame that is shown at several times in a row is decoded once.
    ///
    /// # Shapes
    /// - `times_s`: seconds on the video's clock, ascending
    /// # Numerics
    /// Starts are compared as they are, in f64: a time computed in another way than `ticks / ticks a second` may fall on
    /// the other side of a start by its last bit.
    /// # Errors
    /// [`MediaError::Corrupt`] or [`MediaError::UnsupportedCodec`] for images that cannot be decoded, and what `each`
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
                // The image before is given up first, so that one is held and not two.
                before => {
                    drop(before);
                    self.images.image(place)?
                }
            };
            each(index, &frame)?;
            last = Some((place, frame));
        }
        Ok(())
    }

    /// The image that is shown at a time.
    fn place_at(&self, time_s: f64) -> usize {
        self.images.starts_s().partition_point(|start| *start <= time_s).saturating_sub(1)
    }
}

/// Whether a file of a video's container holds images; false for audio in such a container.
///
/// # Errors
/// As [`Video::open`], except that a codec which is not decoded here counts as images.
pub fn has_images(source: &VideoSource) -> Result<bool, MediaError> {
    match Video::open(source, &VideoOptions { ffmpeg: None, track: TrackChoice::Default }) {
        Ok(_) | Err(MediaError::UnsupportedCodec { .. }) => Ok(true),
        Err(MediaError::NoTrack { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Picks the decoder of a track.
fn open_codec(
    mut track: VideoTrack,
    source: &VideoSource,
    options: &VideoOptions,
) -> Result<Box<dyn ShownImages>, MediaError> {
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
            let detail = format!("found images in codec {}", ffmpeg::codec_name(codec));
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

/// Patch rows of frames sampled from a part of a video, at [`sample_times`].
///
/// Frames are resized and dropped one by one; the first one sets the size.
///
/// # Shapes
/// - `range_s`: seconds on the video's clock
/// - returns: as [`crate::video_patches`] of `frames` frames
/// # Errors
/// As [`Video::frames_at`] and [`crate::video_size`]; [`MediaError::Empty`] for no frames.
pub fn sampled_patches(
    video: &mut Video,
    range_s: Range<f64>,
    frames: usize,
    preprocess: &VisionPreprocess,
) -> Result<PatchGrid, MediaError> {
    let mut clip = ClipCutter::new(frames, preprocess)?;
    let times = sample_times(range_s, frames);
    let places: Vec<usize> = times.iter().map(|time| video.place_at(*time)).collect();
    let read = video.frames_at(&times, &mut |index, frame| {
        if index > 0 && places[index - 1] == places[index] {
            clip.push_again();
            Ok(())
        } else {
            clip.push(frame)
        }
    });
    read.map_err(|error| error.of(video.name.as_str()))?;
    Ok(clip.finish())
}

/// Bytes that one segment of a video takes, in so many frames. The tables of its container are read for it.
///
/// # Errors
/// As [`Video::open`] and, for what is kept, as [`crate::video_size`].
pub fn video_estimate(
    source: &VideoSource,
    options: &VideoOptions,
    frames: usize,
    target: &ImageTarget<'_>,
) -> Result<MemoryEstimate, MediaError> {
    Video::open(source, options)?.estimate(frames, target)
}
