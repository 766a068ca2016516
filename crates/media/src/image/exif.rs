//! The way an image is held: read from its metadata, applied to its pixels.

use std::io::{self, Cursor, Read, SeekFrom};

use image::metadata::Orientation;
use memchr::{memchr, memmem};

use super::rgb::{ReadSeek, RgbImage};
use super::size::{Height, Width};

/// What the metadata of a file says of the way its image is held.
#[derive(Default)]
pub(crate) struct Metadata {
    /// The tag of its Exif data: `None` where there is no such tag, and a number that may stand for nothing.
    tag: Option<f64>,
    /// An XMP packet.
    xmp: Vec<u8>,
}

impl Metadata {
    /// From the Exif data behind the header of their segment and an XMP packet, either of which may be empty.
    pub(crate) fn new(exif: &[u8], xmp: Vec<u8>) -> Self {
        Self { tag: exif_tag(&mut Cursor::new(exif), 0, exif.len() as u64, 1), xmp }
    }

    /// The orientation: that of the Exif tag, else the same tag written as XMP.
    ///
    /// A tag that is there but names no orientation (0, 9, text) turns nothing, and XMP is not asked then. Metadata that
    /// cannot be read turns nothing; the pixels are there all the same.
    ///
    /// # Source
    /// Pillow 13, `Image.getexif` and `ImageOps.exif_transpose`.
    pub(crate) fn orientation(&self) -> Orientation {
        let found = match self.tag {
            // Fractions and floats count where they are one of the eight numbers, as they do for Pillow.
            Some(tag) => (1..=8).find(|number| f64::from(*number) == tag).and_then(Orientation::from_exif),
            None => from_xmp(&self.xmp),
        };
        found.unwrap_or(Orientation::NoTransforms)
    }
}

/// The metadata of a PNG, WebP or TIFF file, by its own parts; other formats have none that Pillow goes by. Leaves the
/// source anywhere.
///
/// JPEG is not read here, but with its markers.
pub(crate) fn metadata(source: &mut dyn ReadSeek, bytes: u64, format: &str) -> Metadata {
    let found = match format {
        "png" => png_metadata(source, bytes),
        "webp" => webp_metadata(source, bytes),
        "tiff" => tiff_metadata(source, bytes),
        _ => return Metadata::default(),
    };
    // A file that ends early fails where its pixels are read.
    found.unwrap_or_default()
}

/// The most that is unpacked or kept of a text: Pillow's limit.
const MOST_TEXT: u64 = 1 << 20;

/// The chunks before and after the pixels. Of several with one name, the last one counts.
///
/// # Source
/// Pillow 13, `PngImagePlugin.py`: `chunk_eXIf`, `chunk_tEXt`, `chunk_zTXt`, `chunk_iTXt`, `load_end`. A profile named
/// `Raw profile type APP1` or `Raw profile type xmp` is not asked there.
fn png_metadata(source: &mut dyn ReadSeek, bytes: u64) -> io::Result<Metadata> {
    const EXIF_TEXT: &[u8] = b"Raw profile type exif";
    const XMP_TEXT: &[u8] = b"XML:com.adobe.xmp";
    let mut at = 8;
    // Where an Exif chunk lies, and the texts of both names.
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    let (mut animated, mut pixels) = (false, false);
    while at + 12 <= bytes {
        source.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        source.read_exact(&mut head)?;
        let [a, b, c, d, kind @ ..] = head;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        let begin = at + 8;
        at = begin + length + 4;
        match &kind {
            b"IEND" => break,
            // The frames after the first one have their own.
            b"fcTL" if animated && pixels => break,
            b"IDAT" => pixels = true,
            b"acTL" => {
                let mut frames = [0; 4];
                source.read_exact(&mut frames)?;
                animated = u32::from_be_bytes(frames) > 1;
            }
            b"eXIf" => exif = Some((begin, length, 1)),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                let mut text = Vec::new();
                source.take(length.min(2 * MOST_TEXT)).read_to_end(&mut text)?;
                let Some(end) = memchr(0, &text).filter(|end| *end < 80) else { continue };
                let (name, value) = (&text[..end], &text[end + 1..]);
                match name {
                    b"exif" if &kind == b"tEXt" => exif = Some((begin + end as u64 + 1, value.len() as u64, 2)),
                    EXIF_TEXT => profile = png_text(&kind, value).or(profile),
                    XMP_TEXT => xmp = png_text(&kind, value).or(xmp),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let tag = match (exif, profile) {
        (Some((begin, length, headers)), _) => exif_tag(source, begin, length, headers),
        (None, Some(profile)) => {
            let profile = from_hexadecimal(&profile).unwrap_or_default();
            exif_tag(&mut Cursor::new(&profile), 0, profile.len() as u64, 2)
        }
        (None, None) => None,
    };
    Ok(Metadata { tag, xmp: xmp.unwrap_or_default() })
}

/// The text of a chunk, unpacked; what follows the name is given.
fn png_text(kind: &[u8; 4], value: &[u8]) -> Option<Vec<u8>> {
    let (packed, text) = match (kind, value) {
        (b"tEXt", text) => (false, text),
        (b"zTXt", [0, packed @ ..]) => (true, packed),
        (b"iTXt", [flag, method, rest @ ..]) => {
            // Two names more, of the language and translated.
            let first = memchr(0, rest)? + 1;
            let second = first + memchr(0, &rest[first..])? + 1;
            if *flag != 0 && *method != 0 {
                return None;
            }
            (*flag != 0, &rest[second..])
        }
        _ => return None,
    };
    if !packed {
        return Some(text.to_vec());
    }
    let mut unpacked = Vec::new();
    flate2::read::ZlibDecoder::new(text).take(MOST_TEXT + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 <= MOST_TEXT).then_some(unpacked)
}

/// The bytes of a raw profile as ImageMagick writes it: a line break, the name, the length, and hexadecimal digits in lines.
fn from_hexadecimal(profile: &[u8]) -> Option<Vec<u8>> {
    let digits = profile.splitn(4, |byte| *byte == b'\n').nth(3)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let digits: Vec<u8> = digits.iter().filter(|byte| !byte.is_ascii_whitespace()).map(digit).collect::<Option<_>>()?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect())
}

/// The chunks that the header of an extended file says are there. Of several, the first one counts.
///
/// # Source
/// libwebp 1.6, `demux.c`: a chunk whose flag is not set is not kept.
fn webp_metadata(source: &mut dyn ReadSeek, bytes: u64) -> io::Result<Metadata> {
    const EXIF_FLAG: u8 = 8;
    const XMP_FLAG: u8 = 4;
    let mut at = 12;
    let (mut flags, mut exif, mut xmp) = (0, None, None);
    while at + 8 <= bytes {
        source.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        source.read_exact(&mut head)?;
        let [kind @ .., a, b, c, d] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let begin = at + 8;
        at = begin + length + (length & 1);
        match &kind {
            b"VP8X" => {
                let mut first = [0];
                source.read_exact(&mut first)?;
                [flags] = first;
            }
            b"EXIF" if flags & EXIF_FLAG != 0 && exif.is_none() => exif = Some((begin, length)),
            b"XMP " if flags & XMP_FLAG != 0 && xmp.is_none() => {
                let mut packet = Vec::new();
                source.take(length.min(MOST_TEXT)).read_to_end(&mut packet)?;
                xmp = Some(packet);
            }
            _ => {}
        }
    }
    let tag = exif.and_then(|(begin, length)| exif_tag(source, begin, length, 2));
    Ok(Metadata { tag, xmp: xmp.unwrap_or_default() })
}

/// A value of a TIFF directory.
struct Entry {
    kind: u64,
    /// Where it lies, from the beginning of the file, and its bytes.
    place: u64,
    size: u64,
    big_endian: bool,
}

/// Bytes of one value of a type of TIFF 6.0, section 2, and of BigTIFF; `None` for what is no type.
fn unit(kind: u64) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
    }
}

/// A number in the byte order of its file.
fn number(bytes: &[u8], big_endian: bool) -> u64 {
    let join = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
}

/// The first entry with a tag in the first directory of a TIFF structure that lies at `begin`; some writers leave the
/// header of the JPEG segment before it, of which so many are passed.
///
/// Entries of no type and entries without values are passed. One whose value lies behind the end ends the directory.
///
/// # Source
/// Pillow 13, `TiffImagePlugin.py`, `ImageFileDirectory_v2.load`.
fn first_entry(
    source: &mut dyn ReadSeek,
    mut begin: u64,
    mut length: u64,
    headers: usize,
    wanted: u16,
) -> Option<Entry> {
    let mut head = [0; 16];
    for _ in 0..=headers {
        head = [0; 16];
        source.seek(SeekFrom::Start(begin)).ok()?;
        source.read_exact(&mut head[..length.min(8) as usize]).ok()?;
        if !head.starts_with(b"Exif\0\0") {
            break;
        }
        (begin, length) = (begin + 6, length.saturating_sub(6));
    }
    let big_endian = match &head[..4] {
        b"MM\0*" | b"MM*\0" | b"MM\0+" => true,
        b"II*\0" | b"II\0*" | b"II+\0" => false,
        _ => return None,
    };
    let number = |bytes: &[u8]| number(bytes, big_endian);
    // BigTIFF has 43 where TIFF has 42.
    let wide = head[2..4].contains(&43);
    let (count_bytes, entry_bytes, inline) = if wide { (8, 20, 8) } else { (2, 12, 4) };
    let first = if wide {
        source.read_exact(&mut head[8..]).ok()?;
        number(&head[8..])
    } else {
        number(&head[4..8])
    };
    source.seek(SeekFrom::Start(begin.checked_add(first)?)).ok()?;
    let mut entry = [0; 20];
    source.read_exact(&mut entry[..count_bytes]).ok()?;
    let (mut outside, mut at) = (0u64, first.checked_add(count_bytes as u64)?);
    // No file of a camera or a program has as many.
    for _ in 0..number(&entry[..count_bytes]).min(1 << 16) {
        let value_at = at.checked_add((entry_bytes - inline) as u64)?;
        at = value_at.checked_add(inline as u64).filter(|end| *end <= length)?;
        source.read_exact(&mut entry[..entry_bytes]).ok()?;
        let (tag, kind) = (number(&entry[..2]), number(&entry[2..4]));
        let Some(unit) = unit(kind) else { continue };
        let size = number(&entry[4..entry_bytes - inline]).saturating_mul(unit);
        let mut place = value_at;
        if size > inline as u64 {
            outside = outside.saturating_add(size);
            if outside > length {
                continue;
            }
            place = number(&entry[entry_bytes - inline..entry_bytes]);
            place.checked_add(size).filter(|end| *end <= length)?;
        }
        if size > 0 && tag == u64::from(wanted) {
            return Some(Entry { kind, place: begin.checked_add(place)?, size, big_endian });
        }
    }
    None
}

/// The number of the orientation tag of a TIFF structure; of several values the first.
///
/// Text and bytes without a sign are NaN: Pillow does not take them for numbers.
fn exif_tag(source: &mut dyn ReadSeek, begin: u64, length: u64, headers: usize) -> Option<f64> {
    const ORIENTATION: u16 = 0x0112;
    let Entry { kind, place, big_endian, .. } = first_entry(source, begin, length, headers, ORIENTATION)?;
    let mut bytes = [0; 8];
    let bytes = &mut bytes[..unit(kind)? as usize];
    source.seek(SeekFrom::Start(place)).ok()?;
    source.read_exact(bytes).ok()?;
    let whole = number(bytes, big_endian);
    let halves = || [&bytes[..4], &bytes[4..]].map(|half| number(half, big_endian));
    Some(match kind {
        3 | 4 | 13 | 16 => whole as f64,
        6 => f64::from(whole as i8),
        8 => f64::from(whole as i16),
        9 => f64::from(whole as i32),
        5 => halves()[0] as f64 / halves()[1] as f64,
        10 => f64::from(halves()[0] as i32) / f64::from(halves()[1] as i32),
        11 => f64::from(f32::from_bits(whole as u32)),
        12 => f64::from_bits(whole),
        _ => f64::NAN,
    })
}

/// The tags of a TIFF file itself.
fn tiff_metadata(source: &mut dyn ReadSeek, bytes: u64) -> io::Result<Metadata> {
    const XMP: u16 = 700;
    let tag = exif_tag(source, 0, bytes, 0);
    let mut xmp = Vec::new();
    if let Some(entry) = first_entry(source, 0, bytes, 0, XMP).filter(|_| tag.is_none()) {
        source.seek(SeekFrom::Start(entry.place))?;
        source.take(entry.size.min(MOST_TEXT)).read_to_end(&mut xmp)?;
    }
    Ok(Metadata { tag, xmp })
}

/// `tiff:Orientation` as an attribute or an element of an XMP packet.
pub(crate) fn from_xmp(packet: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let mut rest = packet;
    loop {
        let at = memmem::find(rest, KEY)?;
        rest = &rest[at + KEY.len()..];
        let value = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"));
        if let Some([digit @ b'0'..=b'9', ..]) = value {
            return Orientation::from_exif(digit - b'0');
        }
    }
}

/// Turns and mirrors an image so that it stands as it was taken.
pub(crate) fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let (w, h) = (image.width().0 as usize, image.height().0 as usize);
    // For each orientation: are the sides swapped, and which source pixel (x, y) does the result show at (x, y)?
    let pixel: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        Orientation::NoTransforms => return image,
        Orientation::FlipHorizontal => |x, y, w, _| (w - 1 - x, y),
        Orientation::Rotate180 => |x, y, w, h| (w - 1 - x, h - 1 - y),
        Orientation::FlipVertical => |x, y, _, h| (x, h - 1 - y),
        Orientation::Rotate90FlipH => |x, y, _, _| (y, x),
        Orientation::Rotate90 => |x, y, _, h| (y, h - 1 - x),
        Orientation::Rotate270FlipH => |x, y, w, h| (w - 1 - y, h - 1 - x),
        Orientation::Rotate270 => |x, y, w, _| (w - 1 - y, x),
    };
    let swapped = matches!(
        orientation,
        Orientation::Rotate90FlipH | Orientation::Rotate90 | Orientation::Rotate270FlipH | Orientation::Rotate270
    );
    let (out_w, out_h) = if swapped { (h, w) } else { (w, h) };
    let source = image.pixels();
    let mut pixels = Vec::with_capacity(source.len());
    for y in 0..out_h {
        for x in 0..out_w {
            let (from_x, from_y) = pixel(x, y, w, h);
            let at = (from_y * w + from_x) * 3;
            pixels.extend_from_slice(&source[at..at + 3]);
        }
    }
    RgbImage::from_parts(Width(out_w as u32), Height(out_h as u32), pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_orientation_is_read_as_attribute_and_as_element() {
        let turned = Some(Orientation::Rotate90);
        assert_eq!(from_xmp(b"<rdf:Description tiff:Orientation=\"6\"/>"), turned);
        assert_eq!(from_xmp(b"<tiff:Orientation>6</tiff:Orientation>"), turned);
        assert_eq!(
            from_xmp(b"tiff:OrientationX tiff:Orientation=\"6\""),
            turned,
            "the first match that has a digit counts"
        );
        assert_eq!(from_xmp(b"<tiff:Orientation>9<"), None);
        assert_eq!(from_xmp(b"tiff:Orientation"), None);
        assert_eq!(from_xmp(b""), None);
    }

    fn exif(kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let mut chunk = b"II*\0\x08\0\0\0\x01\0\x12\x01".to_vec();
        chunk.extend(kind.to_le_bytes());
        chunk.extend(count.to_le_bytes());
        chunk.extend(value);
        chunk.extend([0; 4]);
        chunk
    }

    fn turned(chunk: &[u8]) -> Orientation {
        Metadata::new(chunk, Vec::new()).orientation()
    }

    #[test]
    fn the_segment_header_before_exif_is_skipped() {
        let plain = exif(3, 1, [8, 0, 0, 0]);
        assert_eq!(turned(&plain), Orientation::Rotate270);
        let mut chunk = [b"Exif\0\0".as_slice(), &plain].concat();
        assert_eq!(turned(&chunk), Orientation::Rotate270);
        for cut in 0..chunk.len() - 4 {
            assert_eq!(turned(&chunk[..cut]), Orientation::NoTransforms, "cut at {cut}");
        }
        chunk = [b"Exif\0\0".as_slice(), &chunk].concat();
        assert_eq!(turned(&chunk), Orientation::NoTransforms);
    }

    #[test]
    fn a_tag_that_names_no_orientation_keeps_xmp_from_being_asked() {
        let xmp = b"tiff:Orientation=\"6\"".to_vec();
        let both = |chunk: &[u8]| Metadata::new(chunk, xmp.clone()).orientation();
        assert_eq!(both(b""), Orientation::Rotate90);
        assert_eq!(both(b"no Exif"), Orientation::Rotate90);
        assert_eq!(both(&exif(3, 1, [3, 0, 0, 0])), Orientation::Rotate180);
        assert_eq!(both(&exif(3, 1, [0, 0, 0, 0])), Orientation::NoTransforms);
        assert_eq!(both(&exif(3, 1, [9, 0, 0, 0])), Orientation::NoTransforms);
        // A number in a byte is text for Pillow; an entry without values and one of no type are not there.
        assert_eq!(both(&exif(1, 1, [3, 0, 0, 0])), Orientation::NoTransforms);
        assert_eq!(both(&exif(3, 0, [3, 0, 0, 0])), Orientation::Rotate90);
        assert_eq!(both(&exif(99, 1, [3, 0, 0, 0])), Orientation::Rotate90);
    }
}
