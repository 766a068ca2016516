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
    /// No square: both sides are brought to whole patches; see [`patch_sides`].
    Patches {
        /// Side of a patch in pixels.
        patch: u32,
        /// Patches at most.
        most: u32,
        /// The filter of the resize.
        filter: ResizeFilter,
    },
}

/// A square and how images come into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SquareTarget {
    /// Side in pixels; of no meaning where images are no squares.
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
/// - returns: `side` x `side` pixels, or whole patches of [`SquareFit::Patches`]
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
        SquareFit::Patches { patch, most, filter } => {
            let (height, width) = patch_sides((image.height(), image.width()), patch, most);
            resize(image, height, width, filter)
        }
    }
}

/// Sides of an image brought to whole patches: as large as it can be scaled with at most so many, each side rounded up to whole
/// patches.
///
/// # Numerics
/// The scale is searched for by halving from 1e-6 to 100 until the rest is less than 1e-5, in f64.
/// # Source
/// transformers 5.23, `image_processing_siglip2.py`, `get_image_size_for_max_num_patches`.
/// # Panics
/// If a patch has no pixels.
#[must_use]
pub fn patch_sides((height, width): (Height, Width), patch: u32, most: u32) -> (Height, Width) {
    const LEAST: f64 = 1e-5;
    assert!(patch > 0, "a patch has pixels");
    let patches = |scale: f64, side: u32| (scale * f64::from(side) / f64::from(patch)).ceil().max(1.0);
    let (mut low, mut high) = (LEAST / 10.0, 100.0);
    while high - low >= LEAST {
        let scale = (low + high) / 2.0;
        if patches(scale, height.0) * patches(scale, width.0) <= f64::from(most) {
            low = scale;
        } else {
            high = scale;
        }
    }
    let side = |of: u32| (patches(low, of) as u32).saturating_mul(patch);
    (Height(side(height.0)), Width(side(width.0)))
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

/// Bytes of the pixels of a square, or of the largest image in whole patches.
pub(crate) fn square_bytes(target: SquareTarget) -> u64 {
    match target.fit {
        SquareFit::Patches { patch, most, .. } => 3 * u64::from(most) * u64::from(patch) * u64::from(patch),
        _ => 3 * u64::from(target.side) * u64::from(target.side),
    }
}

/// Bytes that [`square_image`] takes beside the image, result included.
pub(crate) fn preparing_bytes(old: (Height, Width), target: SquareTarget) -> u64 {
    let side = target.side.max(1);
    match target.fit {
        SquareFit::Letterbox => {
            let (width, height) = fitted(old.1.0, old.0.0, side);
            let inner = (Height(height), Width(width));
            let resized = 3 * u64::from(width) * u64::from(height);
            resized + resize_bytes(old, inner).max(square_bytes(target))
        }
        SquareFit::Stretch(_) => square_bytes(target) + resize_bytes(old, (Height(side), Width(side))),
        SquareFit::Crop { shorter, .. } => {
            square_bytes(target) + part_bytes(old, &middle(old, side, shorter.max(side)))
        }
        SquareFit::Patches { patch, most, .. } => {
            square_bytes(target) + resize_bytes(old, patch_sides(old, patch.max(1), most))
        }
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
    fn an_image_in_patches_keeps_its_shape_and_has_as_many_as_it_may() {
        // `get_image_size_for_max_num_patches` of transformers 5.23.0.
        let sides = |height, width, most| patch_sides((Height(height), Width(width)), 16, most);
        for ((height, width, most), want) in [
            ((50, 50, 20), (64, 64)),
            ((480, 640, 256), (224, 288)),
            ((1, 1000, 256), (16, 4096)),
            ((1000, 1, 256), (4096, 16)),
            ((37, 61, 20), (64, 80)),
            ((3, 2, 20), (80, 64)),
            ((4000, 3000, 1024), (576, 432)),
        ] {
            assert_eq!(sides(height, width, most), (Height(want.0), Width(want.1)), "{height} x {width}, {most}");
        }
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
