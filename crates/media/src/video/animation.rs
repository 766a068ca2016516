//! Animated GIF, WebP and PNG as videos: header walk, canvas, disposal. Images of one frame are videos of one frame.
//!
//! Two passes: the first walks over the headers and keeps delays and rectangles, the second decodes frames in order and
//! keeps the canvas and one frame. An animation plays once. What does not live here: still images (`image/`) and the
//! choice of frames.

mod canvas;
mod gif;
mod png;
mod webp;

use std::io::{self, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use canvas::{Canvas, DEFAULT_DELAY_S, Headers, Play, Source, corrupt};

use super::packets::{ShownImages, VideoEstimate};
use super::source::VideoSource;
use crate::error::MediaError;
use crate::estimate::{ImageSource, decoding_estimate};
use crate::image::decode::{decode_image, decode_media_file};
use crate::image::rgb::RgbImage;
use crate::image::size::{Height, Width};
use crate::kind::{SNIFF_BYTES, sniff};

/// Says whether a file is a GIF, WebP or PNG with a second frame. Reads headers up to the second frame and no pixel.
///
/// A file that ends before its second frame is none: the reader of images says what is wrong with it.
///
/// # Errors
/// [`MediaError::NotFound`], [`MediaError::NotAFile`] or [`MediaError::Unreadable`] for the path;
/// [`MediaError::Corrupt`] where a header before the second frame breaks the format's rules, and the limits of videos
/// there ([`MediaError::TooManyPixels`], [`MediaError::AnimationTooLong`]).
pub fn is_animation(source: &VideoSource) -> Result<bool, MediaError> {
    let name = name_of(source);
    let mut reader = open_source(source)?;
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    reader.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut head).map_err(|error| unreadable(source, error))?;
    reader.rewind().map_err(|error| unreadable(source, error))?;
    Ok(match sniff(&head) {
        Some("gif") => gif::walk(&mut *reader, 2, &name)?.frames.len() > 1,
        Some("webp") => webp::walk(&mut *reader, 2, &name)?.frames.len() > 1,
        Some("png") => png::walk(&mut *reader, 2, &name)?.frames.len() > 1,
        _ => false,
    })
}

/// Opens an image file as a video; `format` is what [`sniff`] says of it.
///
/// # Numerics
/// A frame is what Pillow 13 gives when it is sought, as RGBA over white; frames that stick out of the canvas are cut
/// (Pillow makes the canvas larger in the middle of the video). The first frame is what [`decode_image`] gives.
/// Delays are FFmpeg 9's as measured: see the walk of each format.
/// # Errors
/// As [`decode_image`], and [`MediaError::AnimationTooLong`].
pub(crate) fn open(source: &VideoSource, format: &'static str) -> Result<Box<dyn ShownImages>, MediaError> {
    let name = name_of(source);
    let mut reader = open_source(source)?;
    let mut one_frame_s = DEFAULT_DELAY_S;
    match format {
        "gif" => {
            let headers = gif::walk(&mut *reader, usize::MAX, &name)?;
            check_complete(&name, format, headers.complete)?;
            if headers.frames.len() > 1 {
                return Ok(Box::new(Animation::new(source, &name, format, headers, gif::Player::new)));
            }
            one_frame_s = headers.delays_s.first().copied().unwrap_or(one_frame_s);
        }
        "webp" => {
            let headers = webp::walk(&mut *reader, usize::MAX, &name)?;
            check_complete(&name, format, headers.complete)?;
            if headers.frames.len() > 1 {
                return Ok(Box::new(Animation::new(source, &name, format, headers, webp::Player::new)));
            }
            one_frame_s = headers.delays_s.first().copied().unwrap_or(one_frame_s);
        }
        "png" => {
            let headers = png::walk(&mut *reader, usize::MAX, &name)?;
            check_complete(&name, format, headers.complete)?;
            if headers.frames.len() > 1 {
                return Ok(Box::new(Animation::new(source, &name, format, headers, png::Player::new)));
            }
        }
        _ => {}
    }
    Ok(Box::new(Still { source: source.clone(), starts_s: [0.0], end_s: one_frame_s }))
}

/// What messages call a source.
fn name_of(source: &VideoSource) -> String {
    match source {
        VideoSource::File(file) => file.name(),
        VideoSource::Bytes(_, name) => name.clone(),
    }
}

fn open_source(source: &VideoSource) -> Result<Box<dyn Source>, MediaError> {
    Ok(match source {
        VideoSource::File(file) => Box::new(BufReader::with_capacity(1 << 16, file.open()?)) as Box<dyn Source>,
        VideoSource::Bytes(bytes, _) => Box::new(Cursor::new(Arc::clone(bytes))),
    })
}

/// A failing read of the file itself.
fn unreadable(source: &VideoSource, error: io::Error) -> MediaError {
    match source {
        VideoSource::File(file) => MediaError::Unreadable { path: file.path().to_owned(), source: error },
        VideoSource::Bytes(_, name) => {
            MediaError::Corrupt { name: name.clone(), format: "video", source: error.into() }
        }
    }
}

fn check_complete(name: &str, format: &'static str, complete: bool) -> Result<(), MediaError> {
    if complete { Ok(()) } else { Err(corrupt(name, format, "the end of the animation is missing")) }
}

/// An image of one frame.
struct Still {
    source: VideoSource,
    starts_s: [f64; 1],
    end_s: f64,
}

impl ShownImages for Still {
    fn estimate(&self) -> Result<VideoEstimate, MediaError> {
        let found = match &self.source {
            VideoSource::File(file) => decoding_estimate(ImageSource::File(file)),
            VideoSource::Bytes(bytes, _) => decoding_estimate(ImageSource::Bytes(bytes)),
        };
        let decoding = found.map_err(|error| error.of(name_of(&self.source)))?;
        let (width, height) = (decoding.width, decoding.height);
        Ok(VideoEstimate { width, height, opening: 0, held: 0, decoding: decoding.peak })
    }

    fn starts_s(&self) -> &[f64] {
        &self.starts_s
    }

    fn end_s(&self) -> f64 {
        self.end_s
    }

    fn image(&mut self, _place: usize) -> Result<RgbImage, MediaError> {
        match &self.source {
            VideoSource::File(file) => decode_media_file(file),
            VideoSource::Bytes(bytes, name) => decode_image(bytes, name),
        }
    }
}

/// How the player of a format is made, at its first frame.
type Start<P> = fn(Box<dyn Source>, &str, &Canvas) -> Result<P, MediaError>;

/// An animation of a format.
struct Animation<P: Play> {
    source: VideoSource,
    name: String,
    format: &'static str,
    width: u32,
    height: u32,
    frames: Vec<P::Frame>,
    starts_s: Vec<f64>,
    end_s: f64,
    start: Start<P>,
    /// Bytes for the frame that takes the most beside the canvas.
    longest: u64,
    /// The player with its canvas and the number of frames drawn.
    playing: Option<(P, Canvas, usize)>,
}

impl<P: Play> Animation<P> {
    fn new(
        source: &VideoSource,
        name: &str,
        format: &'static str,
        headers: Headers<P::Frame>,
        start: Start<P>,
    ) -> Self {
        let mut end_s = 0.0;
        let mut starts_s = Vec::with_capacity(headers.delays_s.len());
        for delay in headers.delays_s {
            starts_s.push(end_s);
            end_s += delay;
        }
        Self {
            source: source.clone(),
            name: name.to_owned(),
            format,
            width: headers.width,
            height: headers.height,
            frames: headers.frames,
            starts_s,
            end_s,
            start,
            longest: headers.longest,
            playing: None,
        }
    }

    fn decode(&mut self, place: usize) -> Result<RgbImage, MediaError> {
        let (mut player, mut canvas, mut drawn) = match self.playing.take() {
            Some(playing) if playing.2 <= place + 1 => playing,
            _ => {
                let pixels = vec![0; self.width as usize * self.height as usize * 4];
                let canvas = Canvas { width: self.width, height: self.height, pixels };
                ((self.start)(open_source(&self.source)?, &self.name, &canvas)?, canvas, 0)
            }
        };
        for (at, frame) in self.frames.iter().enumerate().take(place + 1).skip(drawn) {
            player.draw(at, *frame, &mut canvas)?;
            drawn = at + 1;
        }
        let pixels = player.shown(&canvas);
        self.playing = Some((player, canvas, drawn));
        Ok(RgbImage::from_parts(Width(self.width), Height(self.height), pixels))
    }
}

impl<P: Play> ShownImages for Animation<P> {
    fn estimate(&self) -> Result<VideoEstimate, MediaError> {
        let (width, height) = (self.width, self.height);
        let pixels = u64::from(width) * u64::from(height);
        let tables = (size_of::<P::Frame>() as u64 + 8) * self.frames.len() as u64;
        // The canvas, a frame, and the rectangle that is put back; the codes and windows of the decoder.
        let held = tables + 4 * pixels + P::HELD_BYTES * pixels + self.longest + (1 << 20);
        let decoding = held + (P::DECODING_BYTES * pixels).max(3 * pixels);
        Ok(VideoEstimate { width, height, opening: 3 * tables, held, decoding })
    }

    fn starts_s(&self) -> &[f64] {
        &self.starts_s
    }

    fn end_s(&self) -> f64 {
        self.end_s
    }

    fn image(&mut self, place: usize) -> Result<RgbImage, MediaError> {
        // The decoders are large and not ours. The player is taken out before it is used and is gone after a panic.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(place)));
        decoded.unwrap_or_else(|_| Err(corrupt(&self.name, self.format, "the decoder gave up on it")))
    }
}
