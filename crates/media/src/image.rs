//! Files and bytes into packed RGB pixels: decoding, transparency over white, the way the picture is held.
//!
//! The result is what Pillow gives for the same file, except where a sentence here says otherwise. Formats that are read:
//! PNG, JPEG, WebP, GIF (first frame), BMP and TIFF; the content decides, not the ending of the name.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::{bmp, gif, png, webp};
use image::error::{LimitErrorKind, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use crate::error::MediaError;
use crate::exif::{self, Metadata};
use crate::gif::screen_colour;
use crate::jpeg::{self, Refusal, Walk, shape};
use crate::kind::{SNIFF_BYTES, picture_not_read, sniff};
use crate::size::{Height, Width};
use crate::tiff;
use crate::webp::{Unflagged, chunks_end};

/// Pictures with more pixels are refused from their header: Pillow's own limit against decompression bombs, doubled.
pub const MAX_IMAGE_PIXELS: u64 = 178_956_970;

/// A JPEG is held in memory as a whole while it is decoded. A picture within the pixel limit does not reach this size.
const MAX_JPEG_BYTES: u64 = 1 << 30;

/// Working memory that a decoder may take beside its pixels: row buffers, tables, metadata.
pub(crate) const DECODER_BYTES: u64 = 64 << 20;

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
pub(crate) trait Source: BufRead + Seek {}
impl<T: BufRead + Seek> Source for T {}

/// Finds the format and decodes. A panic of a decoder is an error of its input.
fn decode(source: &mut dyn Source, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
    let (head, format) = find_format(source, name)?;
    // The decoders are large and not ours. Nothing that the closure writes to is used after a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_format(source, bytes, &head, format, name)));
    decoded.unwrap_or_else(|_| {
        Err(MediaError::Corrupt { name: name.to_owned(), format, source: "the decoder gave up on it".into() })
    })
}

/// The first bytes, and the format that they name, which is one that is read. Leaves the source at its start.
fn find_format(source: &mut dyn Source, name: &str) -> Result<(Vec<u8>, &'static str), MediaError> {
    let io_failed =
        |format| move |error: io::Error| MediaError::Corrupt { name: name.to_owned(), format, source: error.into() };
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    source.take(SNIFF_BYTES as u64).read_to_end(&mut head).map_err(io_failed("file"))?;
    source.seek(SeekFrom::Start(0)).map_err(io_failed("file"))?;
    if head.is_empty() {
        return Err(MediaError::Empty { name: name.to_owned(), expected: "byte" });
    }
    match sniff(&head) {
        Some(format @ ("png" | "jpeg" | "webp" | "gif" | "bmp" | "tiff")) => Ok((head, format)),
        Some(format) if picture_not_read(format) => Err(MediaError::UnsupportedCodec {
            name: name.to_owned(),
            format,
            detail: format!("found a picture in {} format", format.to_uppercase()),
        }),
        found => Err(MediaError::UnknownFormat {
            name: name.to_owned(),
            found,
            expected: "a picture (PNG, JPEG, WebP, GIF, BMP or TIFF)",
        }),
    }
}

/// Picks the decoder of a format that is read, and decodes.
fn decode_format(
    source: &mut dyn Source,
    bytes: u64,
    head: &[u8],
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    match format {
        "tiff" => return tiff::decode(source, bytes, name),
        "jpeg" => return decode_jpeg(source, bytes, name),
        _ => {}
    }
    let orientation = orientation_of(source, bytes, format, name)?;
    let (decoder, backdrop) = open_decoder(source, bytes, head, format, name)?;
    read_pixels_over(decoder, backdrop, orientation, format, name)
}

/// What the metadata of a file that is no JPEG says of the way its image is held. Leaves the source at its start.
fn orientation_of(
    source: &mut dyn Source,
    bytes: u64,
    format: &'static str,
    name: &str,
) -> Result<Orientation, MediaError> {
    let metadata = exif::metadata(source, bytes, format);
    source.seek(SeekFrom::Start(0)).map_err(|error| from_image_error(error.into(), format, name))?;
    Ok(metadata.orientation())
}

/// Decodes a JPEG: by the fast decoder if that reads its form rightly, else by our own.
fn decode_jpeg(source: &mut dyn Source, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
    const FORMAT: &str = "jpeg";
    let corrupt =
        |what: &'static str| MediaError::Corrupt { name: name.to_owned(), format: FORMAT, source: what.into() };
    if bytes > MAX_JPEG_BYTES {
        return Err(MediaError::TooManyBytes { name: name.to_owned(), bytes, limit: MAX_JPEG_BYTES });
    }
    let mut file = Vec::new();
    file.reserve_exact(bytes as usize);
    let read = source.take(MAX_JPEG_BYTES).read_to_end(&mut file);
    read.map_err(|error| from_image_error(error.into(), FORMAT, name))?;
    let walk = Walk::new(&file);
    let frame = jpeg_frame(&walk, name)?.cloned();
    if !walk.ends {
        return Err(corrupt("the end of the picture is missing"));
    }
    let (Some(frame), Some(colours)) = (frame, walk.colours()) else {
        return Err(corrupt("the end comes before the first scan"));
    };
    let orientation = Metadata::new(&walk.exif, walk.xmp.clone()).orientation();
    if walk.usual() {
        drop(walk);
        let decoder = JpegDecoder::new(Whole(file)).map_err(|error| from_image_error(error, FORMAT, name))?;
        return read_pixels_over(Box::new(decoder), WHITE, orientation, FORMAT, name);
    }
    let pixels = jpeg::decode(&file, &frame, colours).map_err(corrupt)?;
    drop(file);
    let image = RgbImage::from_parts(Width(frame.width), Height(frame.height), pixels);
    Ok(exif::upright(image, orientation))
}

/// The header of a JPEG, with sides that are checked. `None` where the file ends before it.
fn jpeg_frame<'a>(walk: &'a Walk, name: &str) -> Result<Option<&'a jpeg::Frame>, MediaError> {
    match walk.frame() {
        Ok(frame) => {
            if let Some(frame) = frame {
                check_pixels(name, frame.width, frame.height)?;
            }
            Ok(frame)
        }
        Err(Refusal::Form(form)) => {
            Err(MediaError::UnsupportedCodec { name: name.to_owned(), format: "jpeg", detail: format!("found {form}") })
        }
        Err(Refusal::Damaged(damage)) => {
            Err(MediaError::Corrupt { name: name.to_owned(), format: "jpeg", source: damage.into() })
        }
    }
}

/// A decoder that has read its header, and what transparent pixels are laid over.
fn open_decoder<'a>(
    source: &'a mut (dyn Source + 'a),
    bytes: u64,
    head: &[u8],
    format: &'static str,
    name: &str,
) -> Result<(Box<dyn ImageDecoder + 'a>, [u8; 3]), MediaError> {
    let failed = |error| from_image_error(error, format, name);
    let decoder: Box<dyn ImageDecoder + 'a> = match format {
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
            Box::new(png::PngDecoder::with_limits(source, limits).map_err(failed)?)
        }
        "webp" => {
            if !chunks_end(&mut *source, bytes).map_err(|error| failed(error.into()))? {
                return Err(MediaError::Corrupt {
                    name: name.to_owned(),
                    format,
                    source: "a chunk goes on behind the end of the file".into(),
                });
            }
            let unflagged = Unflagged::new(source).map_err(|error| failed(error.into()))?;
            Box::new(webp::WebPDecoder::new(unflagged).map_err(failed)?)
        }
        "gif" => {
            let screen = screen_colour(&mut *source);
            source.seek(SeekFrom::Start(0)).map_err(|error| failed(error.into()))?;
            let decoder = gif::GifDecoder::new(source).map_err(failed)?;
            return Ok((Box::new(decoder), screen.unwrap_or(WHITE)));
        }
        "bmp" => Box::new(bmp::BmpDecoder::new(source).map_err(failed)?),
        _ => unreachable!("decode passes only formats that are read here"),
    };
    Ok((decoder, WHITE))
}

/// What transparent pixels are laid over.
const WHITE: [u8; 3] = [255; 3];

/// A JPEG file on its way into its decoder, which reads all of it at once and keeps it: given away as it is, so that the
/// bytes are held once and not twice.
struct Whole(Vec<u8>);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = buffer.len().min(self.0.len());
        buffer[..taken].copy_from_slice(&self.0[..taken]);
        self.0.drain(..taken);
        Ok(taken)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let file = std::mem::take(&mut self.0);
        let found = file.len();
        if buffer.is_empty() {
            *buffer = file;
        } else {
            buffer.extend(file);
        }
        Ok(found)
    }
}

impl BufRead for Whole {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.0)
    }

    fn consume(&mut self, bytes: usize) {
        self.0.drain(..bytes);
    }
}

impl Seek for Whole {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What the header of a picture says of the memory that decoding takes.
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
    /// Whether the picture is turned or mirrored.
    pub(crate) fn turns(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// Sides of the picture as it stands.
    pub(crate) fn upright_sides(&self) -> (u32, u32) {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        match self.orientation {
            Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        }
    }
}

/// Reads the header of a picture file; fails as decoding would where that fails by the header.
pub(crate) fn header(source: &mut dyn Source, bytes: u64, name: &str) -> Result<Header, MediaError> {
    let (head, format) = find_format(source, name)?;
    let found = catch_unwind(AssertUnwindSafe(|| header_of(source, bytes, &head, format, name)));
    found.unwrap_or_else(|_| {
        Err(MediaError::Corrupt { name: name.to_owned(), format, source: "the decoder gave up on it".into() })
    })
}

fn header_of(
    source: &mut dyn Source,
    bytes: u64,
    head: &[u8],
    format: &'static str,
    name: &str,
) -> Result<Header, MediaError> {
    let io_failed = |error: io::Error| from_image_error(error.into(), format, name);
    if format == "tiff" {
        return tiff::header(source, bytes, name);
    }
    if format == "jpeg" {
        if bytes > MAX_JPEG_BYTES {
            return Err(MediaError::TooManyBytes { name: name.to_owned(), bytes, limit: MAX_JPEG_BYTES });
        }
        let shape = shape(source).map_err(io_failed)?;
        let walk = Walk::new(&shape.head);
        let frame = jpeg_frame(&walk, name)?;
        let orientation = Metadata::new(&walk.exif, walk.xmp.clone()).orientation();
        let corrupt =
            |source: &'static str| MediaError::Corrupt { name: name.to_owned(), format, source: source.into() };
        let frame = frame.ok_or_else(|| corrupt("the end of the picture is missing"))?;
        let (width, height) = (frame.width, frame.height);
        // Scans behind the first one may ask for the other decoder, so a progressive image is told as either would take it.
        let grey = frame.components.len() == 1 && walk.usual() && !frame.progressive;
        let samples = u64::from(width) * u64::from(height) * if grey { 1 } else { 3 };
        let beside = match (walk.usual(), frame.progressive) {
            (true, false) => shape.beside(),
            (true, true) => shape.beside().max(walk.beside()),
            (false, _) => walk.beside(),
        };
        let beside = bytes + beside;
        return Ok(Header { width, height, orientation, samples, beside });
    }
    let orientation = orientation_of(source, bytes, format, name)?;
    let mut found = {
        let (mut decoder, _) = open_decoder(&mut *source, bytes, head, format, name)?;
        described(&mut *decoder, orientation, format, name)?
    };
    source.seek(SeekFrom::Start(0)).map_err(io_failed)?;
    found.beside = beside(source, bytes, format, &found).map_err(io_failed)?;
    Ok(found)
}

/// The part of a header that every decoder tells.
fn described(
    decoder: &mut dyn ImageDecoder,
    orientation: Orientation,
    format: &'static str,
    name: &str,
) -> Result<Header, MediaError> {
    let (width, height) = decoder.dimensions();
    check_pixels(name, width, height)?;
    check_samples(decoder.color_type(), format, name)?;
    let samples = decoder.total_bytes();
    Ok(Header { width, height, orientation, samples, beside: 0 })
}

/// Bytes that the decoder of a format but JPEG and TIFF holds beside the samples.
///
/// Read in `image` 0.25.10, `png` 0.18.1, `image-webp` 0.2.4 and `gif` 0.14.2, and measured in `tests/need.rs`.
fn beside(source: &mut dyn Source, bytes: u64, format: &str, header: &Header) -> io::Result<u64> {
    let pixels = u64::from(header.width) * u64::from(header.height);
    Ok(match format {
        // Four rows of eight bytes a pixel, the window of the inflater, and what is not pixels, unpacked.
        "png" => 32 * u64::from(header.width) + (512 << 10) + png_metadata(source)?,
        "webp" => {
            // The codes of 2,600 groups, which is libwebp's own limit, of about 6 kB; a group takes 48 bytes of a file.
            let codes = (2600 * 6144).min(bytes * 128);
            // Two maps of a quarter of the samples each, one of groups, and the codes.
            let lossless = pixels + codes;
            // Planes of 4:2:0 in whole blocks, and the packed bytes.
            let lossy = pixels * 7 / 4 + 64 * u64::from(header.width + header.height) + bytes;
            // Alpha is a lossless picture of its own: four bytes a pixel, one of them kept.
            let alpha = 5 * pixels + lossless;
            let unflagged = Unflagged::new(source)?;
            let Ok(mut decoder) = image_webp::WebPDecoder::new(unflagged) else { return Ok(lossy + alpha) };
            match (decoder.is_animated(), decoder.is_lossy(), decoder.has_alpha()) {
                // A canvas and the frame, whatever it is.
                (true, ..) => 8 * pixels + lossy + alpha,
                (_, true, true) => lossy + alpha,
                (_, true, false) => lossy,
                (_, false, true) => lossless,
                (_, false, false) => lossless + 4 * pixels,
            }
        }
        // The indices of a frame, and one that is not as large as the screen is decoded beside it.
        "gif" => match ::gif::DecodeOptions::new().read_info(source) {
            Ok(mut decoder) => {
                let screen = (decoder.width(), decoder.height());
                match decoder.next_frame_info() {
                    Ok(Some(frame)) if (frame.width, frame.height) != screen => {
                        5 * u64::from(frame.width) * u64::from(frame.height)
                    }
                    _ => pixels,
                }
            }
            Err(_) => 0,
        },
        "bmp" => 16 * u64::from(header.width),
        _ => unreachable!("decode passes only formats that are read"),
    })
}

/// Bytes of a PNG's chunks before its pixels, as they are kept: copied, and profiles unpacked.
fn png_metadata(source: &mut dyn Source) -> io::Result<u64> {
    let mut at = source.seek(SeekFrom::Start(8))?;
    let mut sum = 0u64;
    loop {
        let mut head = Vec::new();
        source.take(8).read_to_end(&mut head)?;
        let [a, b, c, d, kind @ ..] = head.as_slice() else { return Ok(sum.min(DECODER_BYTES)) };
        let length = u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
        match kind {
            b"IDAT" | b"IEND" => return Ok(sum.min(DECODER_BYTES)),
            // Deflate packs to a 1,032nd at most.
            b"iCCP" => sum += length * 1032,
            b"iTXt" => sum += length * 4,
            _ => sum += length * 2,
        }
        at += 12 + length;
        source.seek(SeekFrom::Start(at))?;
    }
}

/// Checks the sides, makes room, decodes, and brings the samples to upright RGB.
fn read_pixels_over(
    mut decoder: Box<dyn ImageDecoder + '_>,
    backdrop: [u8; 3],
    orientation: Orientation,
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    let Header { width, height, samples: bytes, .. } = described(&mut *decoder, orientation, format, name)?;
    let color = decoder.color_type();
    let failed = |error| from_image_error(error, format, name);
    let mut limits = Limits::no_limits();
    // A decoder holds the picture once more at most, and a CMYK one four samples for three.
    limits.max_alloc = Some(bytes * 3 + DECODER_BYTES);
    decoder.set_limits(limits).map_err(failed)?;
    // 178,956,970 pixels of at most 8 bytes fit every usize of 32 bits or more.
    let mut samples = vec![0; bytes as usize];
    decoder.read_image_boxed(&mut samples).map_err(failed)?;
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

/// Refuses sample types that [`to_rgb`] does not know. Floats have no fixed white, so they are refused rather than guessed.
fn check_samples(color: ColorType, format: &'static str, name: &str) -> Result<(), MediaError> {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    if matches!(color, L8 | La8 | Rgb8 | Rgba8 | L16 | La16 | Rgb16 | Rgba16) {
        return Ok(());
    }
    Err(MediaError::UnsupportedCodec {
        name: name.to_owned(),
        format,
        detail: format!("found samples of type {color:?}, expected 8 or 16 bit integers"),
    })
}

/// Samples as decoded to packed RGB: high bytes, grey repeated, transparency over the backdrop. In place, because a picture
/// in two forms at once is the most memory that its decoding takes: 12 bytes a pixel of 16 bits with alpha, now 8.
fn to_rgb(color: ColorType, mut samples: Vec<u8>, backdrop: [u8; 3]) -> Vec<u8> {
    let high = |sample: &[u8]| (u16::from_ne_bytes([sample[0], sample[1]]) >> 8) as u8;
    let over = |colour: [u8; 3], alpha: u8| std::array::from_fn(|i| laid_over(colour[i], alpha, backdrop[i]));
    match color {
        ColorType::L8 => each_pixel(&mut samples, |[grey]| [grey; 3]),
        ColorType::La8 => each_pixel(&mut samples, |[grey, alpha]| over([grey; 3], alpha)),
        ColorType::Rgba8 => each_pixel(&mut samples, |[r, g, b, alpha]| over([r, g, b], alpha)),
        ColorType::L16 => each_pixel(&mut samples, |pixel: [u8; 2]| [high(&pixel); 3]),
        ColorType::La16 => {
            each_pixel(&mut samples, |pixel: [u8; 4]| over([high(&pixel[..2]); 3], high(&pixel[2..])));
        }
        ColorType::Rgb16 => {
            each_pixel(&mut samples, |pixel: [u8; 6]| [0, 2, 4].map(|at| high(&pixel[at..at + 2])));
        }
        ColorType::Rgba16 => {
            let colour = |pixel: &[u8; 8]| [0, 2, 4].map(|at| high(&pixel[at..at + 2]));
            each_pixel(&mut samples, |pixel: [u8; 8]| over(colour(&pixel), high(&pixel[6..])));
        }
        _ => {}
    }
    samples
}

/// Turns pixels of `N` bytes into pixels of three, in their place.
fn each_pixel<const N: usize>(samples: &mut Vec<u8>, rgb: impl Fn([u8; N]) -> [u8; 3]) {
    let pixels = samples.len() / N;
    let one = |samples: &mut [u8], at: usize| {
        let pixel: [u8; N] = samples[at * N..at * N + N].try_into().expect("a pixel has N bytes");
        samples[at * 3..at * 3 + 3].copy_from_slice(&rgb(pixel));
    };
    if N < 3 {
        // From the end, so that no pixel is written over before it was read.
        samples.reserve_exact(pixels * (3 - N));
        samples.resize(pixels * 3, 0);
        (0..pixels).rev().for_each(|at| one(samples, at));
    } else {
        (0..pixels).for_each(|at| one(samples, at));
        samples.truncate(pixels * 3);
        samples.shrink_to_fit();
    }
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
