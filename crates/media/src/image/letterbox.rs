//! A whole image inside a square: the longer side resized to the square's, the rest white.

use super::resize::resize_bicubic;
use super::rgb::RgbImage;
use super::size::{Height, Width};

/// The image resized so that its longer side is `side` pixels, centred on a white square of `side` x `side`.
///
/// The shorter side is rounded, halves up, and is at least one pixel; an odd pixel of white goes to the right or bottom.
///
/// # Shapes
/// - returns: `side` x `side` pixels
/// # Source
/// the preparation that the image tower of the small model was trained with (`models/mini/train`).
/// # Panics
/// If `side` is zero.
#[must_use]
pub fn letterbox(image: &RgbImage, side: u32) -> RgbImage {
    assert!(side > 0, "a square has pixels");
    let (width, height) = fitted(image.width().0, image.height().0, side);
    let inner = resize_bicubic(image, Height(height), Width(width));
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    let row_bytes = 3 * side as usize;
    let mut pixels = vec![255; row_bytes * side as usize];
    let rows = pixels.chunks_exact_mut(row_bytes).skip(top as usize);
    for (to, from) in rows.zip(inner.pixels().chunks_exact(3 * width as usize)) {
        to[3 * left as usize..][..from.len()].copy_from_slice(from);
    }
    RgbImage::from_parts(Width(side), Height(side), pixels)
}

/// Sides that fit a square, the longer one filling it.
pub(crate) fn fitted(width: u32, height: u32, side: u32) -> (u32, u32) {
    let longer = u64::from(width.max(height));
    let scaled = |length: u32| {
        let doubled = 2 * u64::from(length) * u64::from(side);
        // Within `side`, because the length is within `longer`.
        ((doubled + longer) / (2 * longer)).max(1) as u32
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_fills_the_square_and_no_side_vanishes() {
        for (sides, want) in [
            ((448, 224), (224, 112)),
            ((224, 449), (112, 224)),
            ((3, 3), (224, 224)),
            ((10_000, 1), (224, 1)),
            // 224 * 5 / 64 = 17.5
            ((64, 5), (224, 18)),
        ] {
            assert_eq!(fitted(sides.0, sides.1, 224), want, "{sides:?}");
        }
    }

    #[test]
    fn what_is_left_of_the_square_is_white_and_the_odd_row_is_below() {
        let image = RgbImage::new(Width(8), Height(5), vec![7; 120]).unwrap();
        let square = letterbox(&image, 8);
        let rows: Vec<bool> = square.pixels().chunks(24).map(|row| row.iter().all(|v| *v == 7)).collect();
        assert_eq!(rows, [false, true, true, true, true, true, false, false]);
        assert!(square.pixels().chunks(24).zip(rows).all(|(row, inner)| inner || row.iter().all(|v| *v == 255)));
    }
}
