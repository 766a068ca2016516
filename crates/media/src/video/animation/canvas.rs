//! What the three formats share: the walk over headers and its limits, frames on a canvas, and reading.

use std::io::{self, BufRead, Seek};

use crate::error::MediaError;
use crate::image::rgb::{MAX_IMAGE_PIXELS, check_pixels, laid_over};

/// Frames of one animation that are walked over: 73 minutes at 60 a second. A frame costs 13 bytes of a file and 40 bytes
/// of memory here, so without a limit a small file could take a hundred times its size in decoder starts.
const MAX_FRAMES: usize = 1 << 18;

/// Pixels of all frames of one animation: 1,035 full HD frames. A lossless WebP frame of a single colour has 169 million
/// pixels in 30 bytes, so neither the size of the file nor the number of frames bounds the time. Measured on such frames
/// in a development build: 54 million pixels a second of WebP, 94 of GIF, so at most 40 s.
const MAX_FRAME_PIXELS: u64 = 1 << 31;

/// How long a still image is shown as a video, and a frame whose delay says nothing: what browsers do.
pub(super) const DEFAULT_DELAY_S: f64 = 0.1;

/// Bytes that a decoder can walk through, on any thread.
pub(super) trait Source: BufRead + Seek + Send {}
impl<T: BufRead + Seek + Send> Source for T {}

/// Where a frame lies on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Rectangle {
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The part that lies on the canvas, perhaps without a pixel.
    pub(super) fn on(self, width: u32, height: u32) -> Self {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Self { x, y, width: self.width.min(width - x), height: self.height.min(height - y) }
    }

    pub(super) fn contains(self, x: u32, y: u32) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }

    /// Ranges of RGBA bytes of its rows on a canvas of this width.
    pub(super) fn rows(self, canvas_width: u32) -> impl Iterator<Item = std::ops::Range<usize>> {
        (self.y as usize..(self.y + self.height) as usize).map(move |y| {
            let start = (y * canvas_width as usize + self.x as usize) * 4;
            start..start + self.width as usize * 4
        })
    }
}

/// What the first pass keeps of a frame, whatever the format.
pub(super) struct Headers<F> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frames: Vec<F>,
    /// Delay of each frame in seconds, as the file says and the format's rule mends it.
    pub(super) delays_s: Vec<f64>,
    /// Bytes for the frame that takes the most, where they do not follow from the canvas: packed bytes that are read
    /// whole, or pixels outside of the canvas.
    pub(super) longest: u64,
    /// False where the file ends before the walk was done.
    pub(super) complete: bool,
}

/// Checks that bound memory and time of the second pass.
pub(super) struct Budget<'a> {
    pub(super) name: &'a str,
    pub(super) frames: usize,
    pub(super) pixels: u64,
}

impl<'a> Budget<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, frames: 0, pixels: 0 }
    }

    pub(super) fn frame(&mut self, rectangle: Rectangle) -> Result<(), MediaError> {
        if rectangle.pixels() > MAX_IMAGE_PIXELS {
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

/// Draws the frames of one format.
pub(super) trait Play: Send {
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
pub(super) struct Canvas {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn fill(&mut self, rectangle: Rectangle, colour: [u8; 4]) {
        for row in rectangle.rows(self.width) {
            for pixel in self.pixels[row].chunks_exact_mut(4) {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    pub(super) fn copy(&self, rectangle: Rectangle) -> Vec<u8> {
        rectangle.rows(self.width).flat_map(|row| self.pixels[row].iter().copied()).collect()
    }

    /// Puts back what [`Self::copy`] gave.
    pub(super) fn put(&mut self, rectangle: Rectangle, pixels: &[u8]) {
        for (row, saved) in rectangle.rows(self.width).zip(pixels.chunks_exact(rectangle.width.max(1) as usize * 4)) {
            self.pixels[row].copy_from_slice(saved);
        }
    }

    /// RGB with the alpha left out.
    pub(super) fn without_alpha(&self) -> Vec<u8> {
        self.pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    }

    /// RGB over white.
    pub(super) fn over_white(&self) -> Vec<u8> {
        let over = |pixel: &[u8]| match pixel[3] {
            255 => [pixel[0], pixel[1], pixel[2]],
            0 => [255; 3],
            alpha => std::array::from_fn(|i| laid_over(pixel[i], alpha, 255)),
        };
        self.pixels.chunks_exact(4).flat_map(over).collect()
    }
}

pub(super) fn corrupt(
    name: &str,
    format: &'static str,
    what: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> MediaError {
    MediaError::Corrupt { name: name.to_owned(), format, source: what.into() }
}

/// The next bytes; `None` at the end of the file.
pub(super) fn read<const N: usize>(source: &mut (impl BufRead + ?Sized)) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes from here to the end.
pub(super) fn bytes_left(source: &mut dyn Source) -> io::Result<u64> {
    let here = source.stream_position()?;
    let end = source.seek(io::SeekFrom::End(0))?;
    source.seek(io::SeekFrom::Start(here))?;
    Ok(end.saturating_sub(here))
}
