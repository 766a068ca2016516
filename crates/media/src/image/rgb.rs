//! A decoded image, its limits, and what decoders share.

use std::fmt;
use std::io::{BufRead, Seek};
use std::ops::Range;

use image::metadata::Orientation;

use crate::error::MediaError;

use super::size::{Height, Width};

/// Images with more pixels are refused from their header: Pillow's own limit against decompression bombs, doubled.
pub const MAX_IMAGE_PIXELS: u64 = 178_956_970;

/// Working memory that a decoder may take beside its pixels: row buffers, tables, metadata.
pub(crate) const DECODER_BYTES: u64 = 64 << 20;

/// A decoded image: packed rows of eight-bit red, green and blue.
///
/// It has at least one pixel, and exactly three bytes a pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: Width,
    height: Height,
    pixels: Vec<u8>,
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({} x {})", self.width.0, self.height.0)
    }
}

impl RgbImage {
    /// An image from pixels that are decoded already.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, 3]`, rows packed
    /// # Errors
    /// [`MediaError::Empty`] for a side of zero, [`MediaError::TooManyPixels`] above [`MAX_IMAGE_PIXELS`],
    /// [`MediaError::PixelBytes`] if the number of bytes is not three times that of the pixels.
    pub fn new(width: Width, height: Height, pixels: Vec<u8>) -> Result<Self, MediaError> {
        let (w, h) = (width.0, height.0);
        check_pixels(&format!("image of {w} x {h} pixels"), w, h)?;
        let expected = u64::from(w) * u64::from(h) * 3;
        if pixels.len() as u64 != expected {
            return Err(MediaError::PixelBytes { width: w, height: h, found: pixels.len(), expected });
        }
        Ok(Self { width, height, pixels })
    }

    /// The same from parts that this crate made itself.
    pub(crate) fn from_parts(width: Width, height: Height, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), width.0 as usize * height.0 as usize * 3, "an image has three bytes a pixel");
        assert!(!pixels.is_empty(), "an image has at least one pixel");
        Self { width, height, pixels }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> Width {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// The bytes: `[height, width, 3]`, rows packed.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Some rows and columns of it.
    ///
    /// # Panics
    /// If there are none, or they go beyond the image.
    pub(crate) fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let (width, height) = (Width(columns.len() as u32), Height(rows.len() as u32));
        let row_bytes = 3 * self.width.0 as usize;
        let mut pixels = Vec::with_capacity(3 * columns.len() * rows.len());
        for row in self.pixels.chunks_exact(row_bytes).take(rows.end).skip(rows.start) {
            pixels.extend_from_slice(&row[3 * columns.start..3 * columns.end]);
        }
        Self::from_parts(width, height, pixels)
    }

    /// As [`Self::pixels`], to be changed.
    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The bytes without a copy: `[height, width, 3]`, rows packed.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Bytes that a decoder can walk through.
pub(crate) trait ReadSeek: BufRead + Seek {}
impl<T: BufRead + Seek> ReadSeek for T {}

/// What the header of an image says of the memory that decoding takes.
pub(crate) struct Header {
    /// Sides as they are stored.
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) orientation: Orientation,
    /// Bytes of the samples as they are decoded.
    pub(crate) samples: u64,
    /// Bytes held beside the samples until they are all decoded.
    pub(crate) beside: u64,
}

impl Header {
    /// Whether the image is turned or mirrored.
    pub(crate) fn turns(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// Sides of the image as it stands.
    pub(crate) fn upright_sides(&self) -> (u32, u32) {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        match self.orientation {
            Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        }
    }
}

/// Refuses images without pixels and images with too many.
pub(crate) fn check_pixels(name: &str, width: u32, height: u32) -> Result<(), MediaError> {
    if width == 0 || height == 0 {
        return Err(MediaError::Empty { name: name.to_owned(), expected: "pixel" });
    }
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
        return Err(MediaError::TooManyPixels { name: name.to_owned(), width, height, limit: MAX_IMAGE_PIXELS });
    }
    Ok(())
}

/// One sample laid over an opaque one.
///
/// # Numerics
/// Integers with seven extra bits and a rounded division by 255, so the result is Pillow's for all 65,536 pairs of sample
/// and alpha over white.
/// # Source
/// Pillow 13, `AlphaComposite.c`, for a backdrop with full alpha.
pub(crate) fn laid_over(value: u8, alpha: u8, below: u8) -> u8 {
    const EXTRA_BITS: u32 = 7;
    let front = u32::from(alpha) << EXTRA_BITS;
    let back = (255 << EXTRA_BITS) - front;
    let sum = u32::from(value) * front + u32::from(below) * back + (0x80 << EXTRA_BITS);
    ((((sum >> 8) + sum) >> 8) >> EXTRA_BITS) as u8
}
