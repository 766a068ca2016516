//! Animated GIF, WebP and PNG as videos: header walk, canvas, disposal. Images of one frame are videos of one frame.
//!
//! Two passes: the first walks over the headers and keeps delays and rectangles, the second decodes frames in order and
//! keeps the canvas and one frame. An animation plays once. What does not live here: still images (`image/`) and the
//! choice of frames.

mod gif;
mod png;
mod webp;

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::packets::{ShownImages, VideoEstimate};
use super::source::VideoSource;
use crate::error::MediaError;
use crate::estimate::{ImageSource, decoding_estimate};
use crate::image::decode::{decode_image, decode_image_file};
use crate::image::rgb::{RgbImage, check_pixels, laid_over};
use crate::image::size::{Height, Width};
use crate::kind::{SNIFF_BYTES, sniff};
use crate::source::open_file;

/// Frames of one animation that are walked over: 73 minutes at 60 a second. A frame costs 13 bytes of a file and 40 bytes
/// of memory here, so without a limit a small file could take a hundred times its size in decoder starts.
const MAX_FRAMES: usize = 1 << 18;

/// Pixels of all frames of one animation: 1,035 full HD frames. A lossless WebP frame of a single colour has 169 million
/// pixels in 30 bytes, so neither the size of the file nor the number of frames bounds the time. Measured on such frames
/// in a development build: 54 million pixels a second of WebP, 94 of GIF, so at most 40 s.
const MAX_FRAME_PIXELS: u64 = 1 << 31;

/// How long a still image is shown as a video, and a frame whose delay says nothing: what browsers do.
const DEFAULT_DELAY_S: f64 = 0.1;

/// Bytes that a decoder can walk through, on any thread.
trait Source: BufRead + Seek + Send {}
impl<T: BufRead + Seek + Send> Source for T {}

/// Where a frame lies on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rectangle {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Rectangle {
    fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The part that lies on the canvas, perhaps without a pixel.
    fn on(self, width: u32, height: u32) -> Self {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Self { x, y, width: self.width.min(width - x), height: self.height.min(height - y) }
    }

    fn contains(self, x: u32, y: u32) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }

    /// Ranges of RGBA bytes of its rows on a canvas of this width.
    fn rows(self, canvas_width: u32) -> impl Iterator<Item = std::ops::Range<usize>> {
        (self.y as usize..(self.y + self.height) as usize).map(move |y| {
            let start = (y * canvas_width as usize + self.x as usize) * 4;
            start..start + self.width as usize * 4
        })
    }
}

/// What the first pass keeps of a frame, whatever the format.
struct Headers<F> {
    width: u32,
    height: u32,
    frames: Vec<F>,
    /// Delay of each frame in seconds, as the file says and the format's rule mends it.
    delays_s: Vec<f64>,
    /// Bytes for the frame that takes the most, where they do not follow from the canvas: packed bytes that are read
    /// whole, or pixels outside of the canvas.
    longest: u64,
    /// False where the file ends before the walk was done.
    complete: bool,
}

/// Checks that bound memory and time of the second pass.
struct Budget<'a> {
    name: &'a str,
    frames: usize,
    pixels: u64,
}

impl<'a> Budget<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, frames: 0, pixels: 0 }
    }

    fn frame(&mut self, rectangle: Rectangle) -> Result<(), MediaError> {
        if rectangle.pixels() > crate::MAX_IMAGE_PIXELS {
            check_pixels(self.name, rectangle.width, rectangle.height)?;
        }
        self.frames += 1;
        self.pixels += rectangle.pixels();
        let too_long = |unit, limit| MediaError::AnimationTooLong { name: self.name.to_owned(), unit, limit };
        if self.frames > MAX_FRAMES {
            return Err(too_long("frames", MAX_FRAMES as u64));
        }
        if self.pixels > MAX_FRAME_PIXELS {
            return Err(too_long("pixels in all frames", MAX_FRAME_PIXELS));
        }
        Ok(())
    }
}

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
        VideoSource::File(path) => path.display().to_string(),
        VideoSource::Bytes(_, name) => name.clone(),
    }
}

fn open_source(source: &VideoSource) -> Result<Box<dyn Source>, MediaError> {
    Ok(match source {
        VideoSource::File(path) => Box::new(BufReader::with_capacity(1 << 16, open_file(path)?.0)) as Box<dyn Source>,
        VideoSource::Bytes(bytes, _) => Box::new(Cursor::new(Arc::clone(bytes))),
    })
}

/// A failing read of the file itself.
fn unreadable(source: &VideoSource, error: io::Error) -> MediaError {
    match source {
        VideoSource::File(path) => MediaError::Unreadable { path: path.clone(), source: error },
        VideoSource::Bytes(_, name) => {
            MediaError::Corrupt { name: name.clone(), format: "video", source: error.into() }
        }
    }
}

fn corrupt(
    name: &str,
    format: &'static str,
    what: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> MediaError {
    MediaError::Corrupt { name: name.to_owned(), format, source: what.into() }
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
            VideoSource::File(path) => decoding_estimate(ImageSource::File(path)),
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
            VideoSource::File(path) => decode_image_file(path),
            VideoSource::Bytes(bytes, name) => decode_image(bytes, name),
        }
    }
}

/// Draws the frames of one format.
trait Play: Send {
    /// Bytes a pixel of the canvas held from frame to frame, beside the canvas.
    const HELD_BYTES: u64;

    /// Bytes a pixel of the canvas that decoding a frame takes beside those.
    const DECODING_BYTES: u64;

    /// What the walk keeps of a frame.
    type Frame: Copy + Send;

    /// Draws the next frame on the canvas, RGBA. The first call is for the first frame.
    fn draw(&mut self, place: usize, frame: Self::Frame, canvas: &mut Canvas) -> Result<(), MediaError>;

    /// The canvas as it is shown.
    fn shown(&self, canvas: &Canvas) -> Vec<u8>;
}

/// Pixels of the video as they stand, RGBA.
struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn fill(&mut self, rectangle: Rectangle, colour: [u8; 4]) {
        for row in rectangle.rows(self.width) {
            for pixel in self.pixels[row].chunks_exact_mut(4) {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    fn copy(&self, rectangle: Rectangle) -> Vec<u8> {
        rectangle.rows(self.width).flat_map(|row| self.pixels[row].iter().copied()).collect()
    }

    /// Puts back what [`Self::copy`] gave.
    fn put(&mut self, rectangle: Rectangle, pixels: &[u8]) {
        for (row, saved) in rectangle.rows(self.width).zip(pixels.chunks_exact(rectangle.width.max(1) as usize * 4)) {
            self.pixels[row].copy_from_slice(saved);
        }
    }

    /// RGB with the alpha left out.
    fn without_alpha(&self) -> Vec<u8> {
        self.pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    }

    /// RGB over white.
    fn over_white(&self) -> Vec<u8> {
        let over = |pixel: &[u8]| match pixel[3] {
            255 => [pixel[0], pixel[1], pixel[2]],
            0 => [255; 3],
            alpha => std::array::from_fn(|i| laid_over(pixel[i], alpha, 255)),
        };
        self.pixels.chunks_exact(4).flat_map(over).collect()
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

/// The next bytes; `None` at the end of the file.
fn read<const N: usize>(source: &mut (impl BufRead + ?Sized)) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes from here to the end.
fn bytes_left(source: &mut dyn Source) -> io::Result<u64> {
    let here = source.stream_position()?;
    let end = source.seek(io::SeekFrom::End(0))?;
    source.seek(io::SeekFrom::Start(here))?;
    Ok(end.saturating_sub(here))
}
