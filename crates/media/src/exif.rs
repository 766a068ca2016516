//! The way a picture is held: read from its metadata, applied to its pixels.

use image::ImageDecoder;
use image::metadata::Orientation;

use crate::image::RgbImage;
use crate::size::{Height, Width};

/// The orientation that the metadata of a picture asks for: its Exif tag, else the same tag written as XMP.
///
/// Metadata that cannot be read turns nothing; the pixels are there all the same.
///
/// # Source
/// Pillow 13, `Image.getexif` and `ImageOps.exif_transpose`.
pub(crate) fn orientation(decoder: &mut dyn ImageDecoder) -> Orientation {
    let tagged = match decoder.exif_metadata() {
        Ok(Some(chunk)) => from_exif(&chunk),
        // TIFF keeps the tag among its own and has no Exif chunk to show.
        _ => decoder.orientation().ok().filter(|found| *found != Orientation::NoTransforms),
    };
    tagged.or_else(|| from_xmp(&decoder.xmp_metadata().ok()??)).unwrap_or(Orientation::NoTransforms)
}

/// The tag of an Exif chunk; some writers leave the header of the JPEG segment before it.
fn from_exif(mut chunk: &[u8]) -> Option<Orientation> {
    while let Some(rest) = chunk.strip_prefix(b"Exif\0\0") {
        chunk = rest;
    }
    Orientation::from_exif_chunk(chunk)
}

/// `tiff:Orientation` as an attribute or an element of an XMP packet.
pub(crate) fn from_xmp(packet: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let mut rest = packet;
    loop {
        let at = rest.windows(KEY.len()).position(|window| window == KEY)?;
        rest = &rest[at + KEY.len()..];
        let value = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"));
        if let Some([digit @ b'0'..=b'9', ..]) = value {
            return Orientation::from_exif(digit - b'0');
        }
    }
}

/// Turns and mirrors a picture so that it stands as it was taken.
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

    #[test]
    fn the_segment_header_before_exif_is_skipped() {
        let mut chunk = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0".to_vec();
        assert_eq!(from_exif(&chunk), Some(Orientation::Rotate270));
        chunk.truncate(12);
        assert_eq!(from_exif(&chunk), None);
    }
}
