//! A whole image as a square of pixels, by whichever rule a tower was trained with.

use super::letterbox::{fitted, letterbox};
use super::resize::{Part, ResizeFilter, part_bytes, resize, resize_bytes, resize_part};
use super::rgb::RgbImage;
use super::size::{Height, Width};

/// How an image comes into a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SquareFit {
    /// The longer side fills the square, the rest is white; see [`letterbox`].
    Letterbox,
    /// Both sides are brought to the square's, whatever the shape was.
    Stretch(ResizeFilter),
    /// The shorter side is brought to a length, and the middle is cut out.
    Crop {
        /// Pixels of the shorter side after resizing; not less than the square's side.
        shorter: u32,
        /// The filter of the resize.
        filter: ResizeFilter,
    },
}

/// A square and how images come into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SquareTarget {
    /// Side in pixels.
    pub side: u32,
    /// How images come into it.
    pub fit: SquareFit,
}

/// An image as a square of pixels.
///
/// Of a crop, the longer side is scaled with the shorter one and cut to a whole number; what is cut off at the top and left
/// is half of the rest, rounded down.
///
/// # Shapes
/// - returns: `side` x `side` pixels
/// # Source
/// transformers 5.23, `image_transforms.py`: `get_resize_output_image_size`, `resize`, `center_crop`, as the processors on
/// Pillow call them (`image_processing_backends.py`, `PilBackend`).
/// # Panics
/// If the side is zero, or a crop's shorter side is less than it.
#[must_use]
pub fn square_image(image: &RgbImage, target: SquareTarget) -> RgbImage {
    let SquareTarget { side, fit } = target;
    match fit {
        SquareFit::Letterbox => letterbox(image, side),
        SquareFit::Stretch(filter) => resize(image, Height(side), Width(side), filter),
        SquareFit::Crop { shorter, filter } => {
            let part = middle((image.height(), image.width()), side, shorter);
            resize_part(image, &part, filter)
        }
    }
}

/// The part of a resized image that a crop keeps.
fn middle(old: (Height, Width), side: u32, shorter: u32) -> Part {
    assert!(0 < side && side <= shorter, "a square of {side} pixels in {shorter}");
    let (old_h, old_w) = (old.0.0, old.1.0);
    // The quotient of two whole numbers in f64, cut, as Python has it.
    let longer = |short: u32, long: u32| ((u64::from(shorter) * u64::from(long)) as f64 / f64::from(short)) as u64;
    let (height, width) = match old_w <= old_h {
        true => (longer(old_w, old_h), u64::from(shorter)),
        false => (u64::from(shorter), longer(old_h, old_w)),
    };
    let of = |whole: u64| {
        let start = (whole - u64::from(side)) / 2;
        start..start + u64::from(side)
    };
    Part { height, width, rows: of(height), columns: of(width) }
}

/// Bytes of a square's pixels.
pub(crate) fn square_bytes(side: u32) -> u64 {
    3 * u64::from(side) * u64::from(side)
}

/// Bytes that [`square_image`] takes beside the image, result included.
pub(crate) fn preparing_bytes(old: (Height, Width), target: SquareTarget) -> u64 {
    let side = target.side.max(1);
    match target.fit {
        SquareFit::Letterbox => {
            let (width, height) = fitted(old.1.0, old.0.0, side);
            let inner = (Height(height), Width(width));
            let resized = 3 * u64::from(width) * u64::from(height);
            resized + resize_bytes(old, inner).max(square_bytes(side))
        }
        SquareFit::Stretch(_) => square_bytes(side) + resize_bytes(old, (Height(side), Width(side))),
        SquareFit::Crop { shorter, .. } => square_bytes(side) + part_bytes(old, &middle(old, side, shorter.max(side))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_cut_to_whole_pixels_and_the_middle_is_kept() {
        // 48 * 77 / 50 = 73.92; 25 rows of the rest, 12 of them above.
        let part = middle((Height(77), Width(50)), 48, 48);
        assert_eq!((part.height, part.width), (73, 48));
        assert_eq!((part.rows, part.columns), (12..60, 0..48));
        let part = middle((Height(50), Width(77)), 48, 56);
        assert_eq!((part.height, part.width), (56, 86));
        assert_eq!((part.rows, part.columns), (4..52, 19..67));
        let part = middle((Height(1), Width(178_956_970)), 224, 224);
        assert_eq!((part.height, part.width), (224, 224 * 178_956_970));
    }

    #[test]
    fn every_fit_fills_its_square() {
        let image = RgbImage::new(Width(9), Height(5), (0..135).collect()).unwrap();
        let filter = ResizeFilter::Bicubic;
        let crop = SquareFit::Crop { shorter: 8, filter };
        for fit in [SquareFit::Letterbox, SquareFit::Stretch(filter), crop] {
            let square = square_image(&image, SquareTarget { side: 7, fit });
            assert_eq!((square.height(), square.width()), (Height(7), Width(7)), "{fit:?}");
        }
        // A square of the image's own sides is the image.
        let image = RgbImage::new(Width(4), Height(4), (0..48).collect()).unwrap();
        for fit in [SquareFit::Letterbox, SquareFit::Stretch(filter), SquareFit::Crop { shorter: 4, filter }] {
            assert!(square_image(&image, SquareTarget { side: 4, fit }) == image, "{fit:?}");
        }
    }
}
