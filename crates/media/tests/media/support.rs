//! Where the goldens lie and how an image is compared.

use std::path::{Path, PathBuf};

use omniburn_media::{Height, RgbImage, VisionPreprocess, Width};
use safetensors::SafeTensors;

/// The folder of this crate's goldens.
pub fn golden() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../tests/golden/media")
}

/// The full reference set, where a developer has put one beside the workspace.
pub fn full_set() -> Option<PathBuf> {
    let folder =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../../shared/fixtures");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("not run on the full reference set: it is not on this machine");
    None
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A stored image: the bytes of a plain RGB PNG as a tensor. Decoded here without the code under test.
pub fn stored_image(tensors: &SafeTensors<'_>, key: &str) -> RgbImage {
    let tensor = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    plain_png(tensor.data())
}

/// A plain RGB (or, where the maker kept one channel of equal ones, grey) PNG.
pub fn plain_png(bytes: &[u8]) -> RgbImage {
    let image = image::load_from_memory_with_format(bytes, image::ImageFormat::Png)
        .expect("a stored image is a PNG")
        .into_rgb8();
    let (width, height) = image.dimensions();
    RgbImage::new(Width(width), Height(height), image.into_raw()).expect("the sides fit")
}

/// How far two images are apart.
#[derive(Debug)]
pub struct Difference {
    pub max: u8,
    pub mean: f64,
}

/// Compares sides and then bytes.
pub fn difference(name: &str, got: &RgbImage, want: &RgbImage) -> Difference {
    assert_eq!((got.height(), got.width()), (want.height(), want.width()), "{name}: sides");
    let steps = || got.pixels().iter().zip(want.pixels()).map(|(a, b)| a.abs_diff(*b));
    Difference {
        max: steps().max().unwrap_or(0),
        mean: steps().map(f64::from).sum::<f64>() / got.pixels().len() as f64,
    }
}

/// Equal to the bit, or the test fails with the place of the first difference.
pub fn assert_same(name: &str, got: &RgbImage, want: &RgbImage) {
    let apart = difference(name, got, want);
    if apart.max > 0 {
        let at = got.pixels().iter().zip(want.pixels()).position(|(a, b)| a != b).expect("some byte differs");
        let width = got.width().0 as usize;
        panic!(
            "{name}: {apart:?}; first at row {}, column {}, channel {}: {} for {}",
            at / 3 / width,
            at / 3 % width,
            at % 3,
            got.pixels()[at],
            want.pixels()[at]
        );
    }
}

/// The settings of every published checkpoint with the given limits.
pub fn preprocess(min_pixels: u64, max_pixels: u64) -> VisionPreprocess {
    VisionPreprocess {
        patch: 16,
        merge: 2,
        temporal_patch: 2,
        min_pixels,
        max_pixels,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
        per_frame: false,
    }
}
