//! Files and bytes into packed RGB pixels: decoding, transparency over white, the way the picture is held.
//!
//! The result is what Pillow gives for the same file, except where a sentence here says otherwise. Formats that are read:
//! PNG, JPEG, WebP, GIF (first frame), BMP and TIFF; the content decides, not the ending of the name.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::{bmp, gif, jpeg, png, tiff, webp};
use image::error::{LimitErrorKind, UnsupportedErrorKind};
use image::{ColorType, ImageDecoder, ImageError, Limits};

use crate::error::MediaError;
use crate::exif;
use crate::gif::screen_colour;
use crate::jpeg::has_end;
use crate::kind::{SNIFF_BYTES, picture_not_read, sniff};
use crate::size::{Height, Width};
use crate::webp::chunks_end;

/// Pictures with more pixels are refused from their header: Pillow's own limit against decompression bombs, doubled.
pub const MAX_IMAGE_PIXELS: u64 = 178_956_970;

/// A JPEG is held in memory as a whole while it is decoded. A picture within the pixel limit does not reach this size.
const MAX_JPEG_BYTES: u64 = 1 << 30;

/// Working memory that a decoder may take beside its pixels: row buffers, tables, metadata.
const DECODER_BYTES: u64 = 64 << 20;

/// A decoded picture: packed rows of eight-bit red, green and blue.
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
    /// A picture from pixels that are decoded already.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, 3]`, rows packed
    /// # Errors
    /// [`MediaError::Empty`] for a side of zero, [`MediaError::TooManyPixels`] above [`MAX_IMAGE_PIXELS`],
    /// [`MediaError::PixelBytes`] if the number of bytes is not three times that of the pixels.
    pub fn new(width: Width, height: Height, pixels: Vec<u8>) -> Result<Self, MediaError> {
        let (w, h) = (width.0, height.0);
        check_pixels(&format!("picture of {w} x {h} pixels"), w, h)?;
        let expected = u64::from(w) * u64::from(h) * 3;
        if pixels.len() as u64 != expected {
            return Err(MediaError::PixelBytes { width: w, height: h, found: pixels.len(), expected });
        }
        Ok(Self { width, height, pixels })
    }

    /// The same from parts that this crate made itself.
    pub(crate) fn from_parts(width: Width, height: Height, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), width.0 as usize * height.0 as usize * 3, "a picture has three bytes a pixel");
        assert!(!pixels.is_empty(), "a picture has at least one pixel");
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

    /// The bytes without a copy: `[height, width, 3]`, rows packed.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Decodes a picture file.
///
/// # Errors
/// [`MediaError::NotFound`], [`MediaError::NotAFile`] or [`MediaError::Unreadable`] for the path, otherwise as
/// [`decode_image`].
pub fn decode_image_file(path: &Path) -> Result<RgbImage, MediaError> {
    let (file, bytes) = open_file(path)?;
    let name = path.display().to_string();
    decode(&mut BufReader::new(file), bytes, &name)
}

/// Decodes the bytes of a picture file; `name` is what messages call them.
///
/// Transparent pixels are laid over white. Samples of 16 bits give their high byte. The orientation in the metadata is
/// applied. Colour profiles are not.
///
/// # Errors
/// - [`MediaError::Empty`]: no bytes, or a side of zero
/// - [`MediaError::UnknownFormat`]: not a picture; what it is instead is named
/// - [`MediaError::UnsupportedCodec`]: a picture of a format, or a variant of one, that is not read
/// - [`MediaError::TooManyPixels`]: above [`MAX_IMAGE_PIXELS`], decided from the header
/// - [`MediaError::TooManyBytes`], [`MediaError::DecoderMemory`]: out of proportion to the pixels
/// - [`MediaError::Corrupt`]: damaged or cut short
pub fn decode_image(bytes: &[u8], name: &str) -> Result<RgbImage, MediaError> {
    decode(&mut Cursor::new(bytes), bytes.len() as u64, name)
}

/// Opens a regular file and gives its size in bytes. Pipes are refused because opening one can wait for ever.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), MediaError> {
    let failed = |source: std::io::Error| {
        let path = path.to_owned();
        match source.kind() {
            // A file used as a folder ("a.png/b") is as absent as a missing one.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => MediaError::NotFound { path, source },
            _ => MediaError::Unreadable { path, source },
        }
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(MediaError::NotAFile {
            path: path.to_owned(),
            found: if metadata.is_dir() { "a folder" } else { "a pipe, socket or device" },
        });
    }
    Ok((File::open(path).map_err(failed)?, metadata.len()))
}

/// Bytes that a decoder can walk through.
trait Source: BufRead + Seek {}
impl<T: BufRead + Seek> Source for T {}

/// Finds the format and decodes. A panic of a decoder is an error of its input.
fn decode(source: &mut dyn Source, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
    let io_failed = |format| {
        move |error: std::io::Error| MediaError::Corrupt { name: name.to_owned(), format, source: error.into() }
    };
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    source.take(SNIFF_BYTES as u64).read_to_end(&mut head).map_err(io_failed("file"))?;
    source.seek(SeekFrom::Start(0)).map_err(io_failed("file"))?;
    if head.is_empty() {
        return Err(MediaError::Empty { name: name.to_owned(), expected: "byte" });
    }
    let found = sniff(&head);
    let Some(format @ ("png" | "jpeg" | "webp" | "gif" | "bmp" | "tiff")) = found else {
        return Err(match found {
            Some(format) if picture_not_read(format) => MediaError::UnsupportedCodec {
                name: name.to_owned(),
                format,
                detail: format!("found a picture in {} format", format.to_uppercase()),
            },
            found => MediaError::UnknownFormat {
                name: name.to_owned(),
                found,
                expected: "a picture (PNG, JPEG, WebP, GIF, BMP or TIFF)",
            },
        });
    };
    // The decoders are large and not ours. Nothing that the closure writes to is used after a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_format(source, bytes, &head, format, name)));
    decoded.unwrap_or_else(|_| {
        Err(MediaError::Corrupt { name: name.to_owned(), format, source: "the decoder gave up on it".into() })
    })
}

/// Picks the decoder of a format that is read.
fn decode_format(
    source: &mut dyn Source,
    bytes: u64,
    head: &[u8],
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    let failed = |error| from_image_error(error, format, name);
    match format {
        "png" => {
            // The decoder makes room for a row when it is opened, so the sides are read here first.
            let mut row_bytes = 0;
            if let Some([b'I', b'H', b'D', b'R', w0, w1, w2, w3, h0, h1, h2, h3]) = head.get(12..24) {
                let width = u32::from_be_bytes([*w0, *w1, *w2, *w3]);
                check_pixels(name, width, u32::from_be_bytes([*h0, *h1, *h2, *h3]))?;
                row_bytes = u64::from(width) * 8;
            }
            let mut limits = Limits::no_limits();
            // Two rows at most eight bytes a pixel wide, and metadata, which may be packed to a thousandth of its size.
            limits.max_alloc = Some(DECODER_BYTES + 2 * row_bytes);
            let decoder = png::PngDecoder::with_limits(source, limits).map_err(failed)?;
            read_pixels(decoder, format, name)
        }
        "jpeg" => {
            if bytes > MAX_JPEG_BYTES {
                return Err(MediaError::TooManyBytes { name: name.to_owned(), bytes, limit: MAX_JPEG_BYTES });
            }
            let mut data = Vec::with_capacity(bytes as usize);
            source.take(MAX_JPEG_BYTES).read_to_end(&mut data).map_err(|error| failed(error.into()))?;
            let ends = has_end(&data);
            let decoder = jpeg::JpegDecoder::new(Cursor::new(data)).map_err(failed)?;
            let (width, height) = decoder.dimensions();
            check_pixels(name, width, height)?;
            if !ends {
                return Err(MediaError::Corrupt {
                    name: name.to_owned(),
                    format,
                    source: "the end of the picture is missing".into(),
                });
            }
            read_pixels(decoder, format, name)
        }
        "webp" => {
            if !chunks_end(&mut *source, bytes).map_err(|error| failed(error.into()))? {
                return Err(MediaError::Corrupt {
                    name: name.to_owned(),
                    format,
                    source: "a chunk goes on behind the end of the file".into(),
                });
            }
            source.seek(SeekFrom::Start(0)).map_err(|error| failed(error.into()))?;
            read_pixels(webp::WebPDecoder::new(source).map_err(failed)?, format, name)
        }
        "gif" => {
            let screen = screen_colour(&mut *source);
            source.seek(SeekFrom::Start(0)).map_err(|error| failed(error.into()))?;
            let decoder = gif::GifDecoder::new(source).map_err(failed)?;
            read_pixels_over(decoder, screen.unwrap_or(WHITE), format, name)
        }
        "bmp" => read_pixels(bmp::BmpDecoder::new(source).map_err(failed)?, format, name),
        "tiff" => read_pixels(tiff::TiffDecoder::new(source).map_err(failed)?, format, name),
        _ => unreachable!("decode passes only formats that are read"),
    }
}

/// What transparent pixels are laid over.
const WHITE: [u8; 3] = [255; 3];

/// [`read_pixels_over`] white.
fn read_pixels(decoder: impl ImageDecoder, format: &'static str, name: &str) -> Result<RgbImage, MediaError> {
    read_pixels_over(decoder, WHITE, format, name)
}

/// Checks the sides, makes room, decodes, and brings the samples to upright RGB.
fn read_pixels_over(
    mut decoder: impl ImageDecoder,
    backdrop: [u8; 3],
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    let (width, height) = decoder.dimensions();
    check_pixels(name, width, height)?;
    let color = decoder.color_type();
    if !is_read(color) {
        return Err(MediaError::UnsupportedCodec {
            name: name.to_owned(),
            format,
            detail: format!("found samples of type {color:?}, expected 8 or 16 bit integers"),
        });
    }
    let failed = |error| from_image_error(error, format, name);
    let orientation = exif::orientation(&mut decoder);
    let bytes = decoder.total_bytes();
    let mut limits = Limits::no_limits();
    // A decoder holds the picture once more at most, and a CMYK one four samples for three.
    limits.max_alloc = Some(bytes * 3 + DECODER_BYTES);
    decoder.set_limits(limits).map_err(failed)?;
    // 178,956,970 pixels of at most 8 bytes fit every usize of 32 bits or more.
    let mut samples = vec![0; bytes as usize];
    decoder.read_image(&mut samples).map_err(failed)?;
    let pixels = to_rgb(color, samples, backdrop);
    let image = RgbImage::from_parts(Width(width), Height(height), pixels);
    Ok(exif::upright(image, orientation))
}

/// Refuses pictures without pixels and pictures with too many.
pub(crate) fn check_pixels(name: &str, width: u32, height: u32) -> Result<(), MediaError> {
    if width == 0 || height == 0 {
        return Err(MediaError::Empty { name: name.to_owned(), expected: "pixel" });
    }
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
        return Err(MediaError::TooManyPixels { name: name.to_owned(), width, height, limit: MAX_IMAGE_PIXELS });
    }
    Ok(())
}

/// True for the sample types that [`to_rgb`] knows. Floats have no fixed white, so they are refused rather than guessed.
fn is_read(color: ColorType) -> bool {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    matches!(color, L8 | La8 | Rgb8 | Rgba8 | L16 | La16 | Rgb16 | Rgba16)
}

/// Samples as decoded to packed RGB: high bytes, grey repeated, transparency over the backdrop.
fn to_rgb(color: ColorType, mut samples: Vec<u8>, backdrop: [u8; 3]) -> Vec<u8> {
    if matches!(color, ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16) {
        samples = samples.chunks_exact(2).map(|pair| (u16::from_ne_bytes([pair[0], pair[1]]) >> 8) as u8).collect();
    }
    // Room is made once and exactly: a vector that grows holds the picture up to three times.
    let pixels = samples.len() / usize::from(color.channel_count());
    let mut rgb = Vec::with_capacity(if color.channel_count() < 3 { pixels * 3 } else { 0 });
    match color.channel_count() {
        1 => samples.iter().for_each(|grey| rgb.extend_from_slice(&[*grey; 3])),
        2 => {
            for pair in samples.chunks_exact(2) {
                rgb.extend_from_slice(&backdrop.map(|below| laid_over(pair[0], pair[1], below)));
            }
        }
        3 => rgb = samples,
        _ => {
            // In place: a pixel is written before the one that it was read from.
            for pixel in 0..pixels {
                let alpha = samples[4 * pixel + 3];
                for i in 0..3 {
                    samples[3 * pixel + i] = laid_over(samples[4 * pixel + i], alpha, backdrop[i]);
                }
            }
            samples.truncate(pixels * 3);
            samples.shrink_to_fit();
            rgb = samples;
        }
    }
    rgb
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

/// An error of a decoder as one of ours.
fn from_image_error(error: ImageError, format: &'static str, name: &str) -> MediaError {
    let name = name.to_owned();
    match error {
        ImageError::Unsupported(unsupported) => MediaError::UnsupportedCodec {
            name,
            format,
            detail: match unsupported.kind() {
                UnsupportedErrorKind::Color(color) => format!("found samples of type {color:?}"),
                UnsupportedErrorKind::GenericFeature(what) => format!("found {what}"),
                _ => unsupported.to_string(),
            },
        },
        ImageError::Limits(limit) if limit.kind() == LimitErrorKind::InsufficientMemory => {
            MediaError::DecoderMemory { name, format, limit: DECODER_BYTES }
        }
        other => MediaError::Corrupt { name, format, source: other.into() },
    }
}
