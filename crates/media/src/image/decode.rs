//! Files and bytes into packed RGB pixels: decoding, transparency over white, the way the image is held.
//!
//! The result is what Pillow gives for the same file, except where a sentence here says otherwise. Formats that are read:
//! PNG, JPEG, WebP, GIF (first frame), BMP and TIFF; the content decides, not the ending of the name.

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::{bmp, gif, png, webp};
use image::error::{LimitErrorKind, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use crate::error::MediaError;
use crate::file::MediaFile;
use crate::kind::{SNIFF_BYTES, image_not_read, sniff};

use super::bmp::words;
use super::exif::{self, Metadata};
use super::gif::first_frame;
use super::jpeg::{self, Refusal, Walk, shape};
use super::rgb::{DECODER_BYTES, Header, ReadSeek, RgbImage, check_pixels, laid_over};
use super::size::{Height, Width};
use super::tiff;
use super::webp::{Changed, chunks_end, unflagged};

/// A JPEG is held in memory as a whole while it is decoded. An image within the pixel limit does not reach this size.
const MAX_JPEG_BYTES: u64 = 1 << 30;

/// Decodes an image file.
///
/// # Errors
/// [`MediaError::NotFound`], [`MediaError::NotAFile`] or [`MediaError::Unreadable`] for the path, otherwise as
/// [`decode_image`].
pub fn decode_image_file(path: &Path) -> Result<RgbImage, MediaError> {
    decode_media_file(&MediaFile::new(path))
}

/// As [`decode_image_file`], of a file that may have been opened already.
///
/// # Errors
/// As [`decode_image_file`], and [`MediaError::Changed`] of a [kept](MediaFile::kept) file.
pub fn decode_media_file(file: &MediaFile) -> Result<RgbImage, MediaError> {
    let reader = file.open()?;
    let bytes = reader.length();
    decode(&mut BufReader::new(reader), bytes, &file.name())
}

/// Decodes the bytes of an image file; `name` is what messages call them.
///
/// Transparent pixels are laid over white. Samples of 16 bits give their high byte. The orientation in the metadata is
/// applied. Colour profiles are not.
///
/// # Errors
/// - [`MediaError::Empty`]: no bytes, or a side of zero
/// - [`MediaError::UnknownFormat`]: not an image; what it is instead is named
/// - [`MediaError::UnsupportedCodec`]: an image of a format, or a variant of one, that is not read
/// - [`MediaError::TooManyPixels`]: above [`MAX_IMAGE_PIXELS`](crate::MAX_IMAGE_PIXELS), decided from the header
/// - [`MediaError::TooManyBytes`], [`MediaError::DecoderMemory`]: out of proportion to the pixels
/// - [`MediaError::Corrupt`]: damaged or cut short
pub fn decode_image(bytes: &[u8], name: &str) -> Result<RgbImage, MediaError> {
    decode(&mut Cursor::new(bytes), bytes.len() as u64, name)
}

/// Finds the format and decodes. A panic of a decoder is an error of its input.
fn decode(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
    let (head, format) = find_format(source, name)?;
    // The decoders are large and not ours. Nothing that the closure writes to is used after a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_format(source, bytes, &head, format, name)));
    decoded.unwrap_or_else(|_| {
        Err(MediaError::Corrupt { name: name.to_owned(), format, source: "the decoder gave up on it".into() })
    })
}

/// The first bytes, and the format that they name, which is one that is read. Leaves the source at its start.
fn find_format(source: &mut dyn ReadSeek, name: &str) -> Result<(Vec<u8>, &'static str), MediaError> {
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
        Some(format) if image_not_read(format) => Err(MediaError::UnsupportedCodec {
            name: name.to_owned(),
            format,
            detail: format!("found an image in {} format", format.to_uppercase()),
        }),
        found => Err(MediaError::UnknownFormat {
            name: name.to_owned(),
            found,
            expected: "an image (PNG, JPEG, WebP, GIF, BMP or TIFF)",
        }),
    }
}

/// Picks the decoder of a format that is read, and decodes.
fn decode_format(
    source: &mut dyn ReadSeek,
    bytes: u64,
    head: &[u8],
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    match format {
        "jpeg" => return decode_jpeg(source, bytes, name),
        "tiff" => return tiff::decode(source, bytes, name),
        _ => {}
    }
    if format == "bmp"
        && let Some(words) = words(source).map_err(|error| from_image_error(error.into(), format, name))?
    {
        check_pixels(name, words.width, words.height)?;
        let pixels = words.pixels(source).map_err(|error| from_image_error(error.into(), format, name))?;
        return Ok(RgbImage::from_parts(Width(words.width), Height(words.height), pixels));
    }
    let orientation = orientation_of(source, bytes, format, name)?;
    let (decoder, backdrop) = open_decoder(source, bytes, head, format, name)?;
    Ok(exif::upright(read_rgb(decoder, backdrop, format, name)?, orientation))
}

/// What the metadata of a file that is no JPEG says of the way its image is held. Leaves the source at its start.
fn orientation_of(
    source: &mut dyn ReadSeek,
    bytes: u64,
    format: &'static str,
    name: &str,
) -> Result<Orientation, MediaError> {
    let metadata = exif::metadata(source, bytes, format);
    source.seek(SeekFrom::Start(0)).map_err(|error| from_image_error(error.into(), format, name))?;
    Ok(metadata.orientation())
}

/// Decodes a JPEG: by the fast decoder if that reads its form rightly, else by our own.
fn decode_jpeg(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
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
        return Err(corrupt("the end of the image is missing"));
    }
    let (Some(frame), Some(colours)) = (frame, walk.colours()) else {
        return Err(corrupt("the end comes before the first scan"));
    };
    let orientation = Metadata::new(&walk.exif, walk.xmp.clone()).orientation();
    // Progressive images are ours: the fast decoder is no faster there, and looks into the padding of the file.
    if walk.usual() && !frame.progressive {
        drop(walk);
        // Damage in the middle of the codes is read as the fast decoder reads it.
        let border = jpeg::Border::read(&file, &frame, colours).ok();
        let decoder = JpegDecoder::new(Whole(file)).map_err(|error| from_image_error(error, FORMAT, name))?;
        let mut image = read_rgb(Box::new(decoder), WHITE, FORMAT, name)?;
        if let Some(border) = border {
            border.put(image.pixels_mut(), frame.width as usize);
        }
        return Ok(exif::upright(image, orientation));
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
    source: &'a mut (dyn ReadSeek + 'a),
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
            let source = unflagged(source).map_err(|error| failed(error.into()))?;
            Box::new(webp::WebPDecoder::new(source).map_err(failed)?)
        }
        "gif" => {
            let (source, colour) = grown_gif(source, name)?;
            let decoder = gif::GifDecoder::new(source).map_err(failed)?;
            return Ok((Box::new(decoder), colour.unwrap_or(WHITE)));
        }
        "bmp" => Box::new(bmp::BmpDecoder::new(source).map_err(failed)?),
        _ => unreachable!("decode passes only formats that are read here"),
    };
    Ok((decoder, WHITE))
}

/// A GIF with a screen that its first frame fits in, and the colour of the screen beside an opaque frame.
fn grown_gif<'a>(
    source: &'a mut (dyn ReadSeek + 'a),
    name: &str,
) -> Result<(Changed<'a>, Option<[u8; 3]>), MediaError> {
    let failed = |error: io::Error| from_image_error(error.into(), "gif", name);
    source.seek(SeekFrom::Start(0)).map_err(failed)?;
    let frame = first_frame(&mut *source);
    if frame.reach.iter().any(|side| *side > u32::from(u16::MAX)) {
        return Err(MediaError::UnsupportedCodec {
            name: name.to_owned(),
            format: "gif",
            detail: format!("found a frame that reaches to {} x {} pixels", frame.reach[0], frame.reach[1]),
        });
    }
    // The sides of the screen are the four bytes behind the signature.
    let grow = |head: &mut [u8]| {
        for (side, reach) in head.as_chunks_mut::<2>().0.iter_mut().skip(3).zip(frame.reach) {
            *side = (u32::from(u16::from_le_bytes(*side)).max(reach) as u16).to_le_bytes();
        }
    };
    Ok((Changed::new(source, 10, grow).map_err(failed)?, frame.colour))
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

/// Reads the header of an image file; fails as decoding would where that fails by the header.
pub(crate) fn header(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<Header, MediaError> {
    let (head, format) = find_format(source, name)?;
    let found = catch_unwind(AssertUnwindSafe(|| header_of(source, bytes, &head, format, name)));
    found.unwrap_or_else(|_| {
        Err(MediaError::Corrupt { name: name.to_owned(), format, source: "the decoder gave up on it".into() })
    })
}

fn header_of(
    source: &mut dyn ReadSeek,
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
        let frame = frame.ok_or_else(|| corrupt("the end of the image is missing"))?;
        let (width, height) = (frame.width, frame.height);
        // Scans behind the first one may ask for the other decoder, so a progressive image is estimated as either would take it.
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
/// Read in `image` 0.25.10, `png` 0.18.1, `image-webp` 0.2.4 and `gif` 0.14.2, and measured in `tests/estimate.rs`.
fn beside(source: &mut dyn ReadSeek, bytes: u64, format: &str, header: &Header) -> io::Result<u64> {
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
            // Alpha is a lossless image of its own: four bytes a pixel, one of them kept.
            let alpha = 5 * pixels + lossless;
            let source = unflagged(source)?;
            let Ok(mut decoder) = image_webp::WebPDecoder::new(source) else { return Ok(lossy + alpha) };
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
                let screen = [header.width, header.height];
                match decoder.next_frame_info() {
                    Ok(Some(frame)) if [u32::from(frame.width), u32::from(frame.height)] != screen => {
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
fn png_metadata(source: &mut dyn ReadSeek) -> io::Result<u64> {
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

/// Checks the sides, makes room, decodes, and brings the samples to RGB.
fn read_rgb(
    mut decoder: Box<dyn ImageDecoder + '_>,
    backdrop: [u8; 3],
    format: &'static str,
    name: &str,
) -> Result<RgbImage, MediaError> {
    let upright = Orientation::NoTransforms;
    let Header { width, height, samples: bytes, .. } = described(&mut *decoder, upright, format, name)?;
    let color = decoder.color_type();
    let failed = |error| from_image_error(error, format, name);
    let mut limits = Limits::no_limits();
    // A decoder holds the image once more at most, and a CMYK one four samples for three.
    limits.max_alloc = Some(bytes * 3 + DECODER_BYTES);
    decoder.set_limits(limits).map_err(failed)?;
    // 178,956,970 pixels of at most 8 bytes fit every usize of 32 bits or more.
    let mut samples = vec![0; bytes as usize];
    decoder.read_image_boxed(&mut samples).map_err(failed)?;
    Ok(RgbImage::from_parts(Width(width), Height(height), to_rgb(color, samples, backdrop)))
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

/// Samples as decoded to packed RGB: high bytes, grey repeated, transparency over the backdrop. In place, because an image
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
