//! Images, one target a format so that each gets its time. The content decides which decoder is reached.

use omniburn_media::{MAX_IMAGE_PIXELS, MediaError, decode_image};

use crate::places::{golden, samples, with_endings};

/// Decodes; what comes out is an image within the limit or one of the errors that images have.
pub fn body(data: &[u8]) {
    match decode_image(data, "hostile") {
        Ok(image) => {
            let pixels = u64::from(image.width().0) * u64::from(image.height().0);
            assert!(pixels > 0 && pixels <= MAX_IMAGE_PIXELS, "{image:?} is beyond the limit");
            assert_eq!(image.pixels().len() as u64, pixels * 3, "{image:?} has three bytes a pixel");
        }
        Err(error) => check(&error),
    }
}

/// A kind that images have, in a sentence with the name.
pub fn check(error: &MediaError) {
    let kind = error.kind();
    let known = ["unknown_format", "unsupported_codec", "corrupt", "too_large", "too_short", "not_finite", "empty"];
    assert!(known.contains(&kind), "{kind} is no kind of bad bytes: {error}");
    assert!(error.to_string().contains("hostile"), "an error names its input: {error}");
}

/// [`body`] with the bytes as they are and, where sums of chunks are wrong, with those mended: else nearly every change
/// would end at the first sum.
pub fn png(data: &[u8]) {
    body(data);
    if let Some(mended) = with_png_sums(data) {
        body(&mended);
    }
}

/// The same PNG with right sums; `None` if they are right or it is no PNG.
pub fn with_png_sums(data: &[u8]) -> Option<Vec<u8>> {
    if !data.starts_with(b"\x89PNG\r\n\x1a\n") {
        return None;
    }
    let mut mended = data.to_vec();
    let mut at = 8;
    while let Some(length) = mended.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= mended.len()) else { break };
        let sum = crc32fast::hash(&mended[at + 4..end]).to_be_bytes();
        mended[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
    (mended != data).then_some(mended)
}

fn of(endings: &[&str]) -> Vec<Vec<u8>> {
    with_endings(&golden().join("media/images"), endings, 4000)
}

pub fn png_seeds() -> Vec<Vec<u8>> {
    of(&["png"])
}

pub fn jpeg_seeds() -> Vec<Vec<u8>> {
    of(&["jpg"])
}

pub fn webp_seeds() -> Vec<Vec<u8>> {
    let mut seeds = of(&["webp"]);
    seeds.extend(with_endings(&golden().join("media/animations"), &["webp"], 4000));
    seeds
}

pub fn gif_seeds() -> Vec<Vec<u8>> {
    let mut seeds = of(&["gif"]);
    seeds.extend(with_endings(&samples(), &["gif"], 4000));
    seeds
}

pub fn bmp_seeds() -> Vec<Vec<u8>> {
    let mut seeds = of(&["bmp"]);
    seeds.extend([run_length_bmp(8), run_length_bmp(4)]);
    seeds
}

pub fn tiff_seeds() -> Vec<Vec<u8>> {
    let mut seeds = of(&["tif"]);
    seeds.extend(with_endings(&golden().join("media/tiffs"), &["tif"], 4000));
    seeds
}

/// A BMP of 8 x 4 pixels in runs, a way of storing that no golden has.
fn run_length_bmp(bits: u16) -> Vec<u8> {
    let colours: u32 = 1 << bits;
    // Four rows of one run of eight pixels, a skip, and the end.
    let mut runs = vec![8, 1, 0, 0, 8, 2, 0, 0, 4, 1, 0, 2, 2, 0, 0, 0, 0, 4];
    // Four pixels as they are: a byte or half a byte each.
    runs.extend([0x12, 0x21, 0x12, 0x21].into_iter().take(bits as usize / 2));
    runs.extend([0, 1]);
    let start = 14 + 40 + 4 * colours;
    let mut bmp = b"BM".to_vec();
    bmp.extend((start + runs.len() as u32).to_le_bytes());
    bmp.extend(0u32.to_le_bytes());
    bmp.extend(start.to_le_bytes());
    bmp.extend([40u32, 8, 4].into_iter().flat_map(u32::to_le_bytes));
    bmp.extend(1u16.to_le_bytes());
    bmp.extend(bits.to_le_bytes());
    let kind = if bits == 8 { 1 } else { 2 };
    bmp.extend([kind, runs.len() as u32, 2835, 2835, colours, 0].into_iter().flat_map(u32::to_le_bytes));
    bmp.extend((0..colours).flat_map(|colour| [colour as u8, (colour * 3) as u8, (colour * 7) as u8, 0]));
    bmp.extend(runs);
    bmp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_bitmaps_are_valid() {
        for bits in [4, 8] {
            let image = decode_image(&run_length_bmp(bits), "made").unwrap();
            assert_eq!((image.width().0, image.height().0), (8, 4));
        }
    }

    #[test]
    fn mended_sums_are_accepted() {
        let mut png = png_seeds().swap_remove(0);
        assert_eq!(with_png_sums(&png), None);
        let end = png.len() - 1;
        png[end] ^= 1;
        assert!(with_png_sums(&png).is_some_and(|mended| mended != png && decode_image(&mended, "mended").is_ok()));
    }
}
