//! Decoding and resizing against Pillow 13. Inputs and expected bytes: `tests/golden/make/images.py`.

use std::collections::BTreeMap;

use omniburn_media::{Height, MAX_IMAGE_PIXELS, RgbImage, Width, decode_image, decode_image_file, resize_bicubic};
use safetensors::SafeTensors;

use crate::support::{assert_same, difference, golden, stored_image};

fn input(name: &str) -> RgbImage {
    decode_image_file(&golden().join("images").join(name)).unwrap()
}

fn expected_bytes() -> Vec<u8> {
    std::fs::read(golden().join("images.safetensors")).unwrap()
}

/// Largest and mean difference allowed for decoders of lossy formats, whose rounding is their own. Measured with image
/// 0.25.10 against Pillow 13 (libjpeg-turbo) on these files: 4:2:0 max 4 mean 0.43, 4:2:2 max 3 mean 0.22, 4:4:4 max 2
/// mean 0.03, CMYK and grey max 1 mean 0.01. A wrong upsampling or colour matrix is ten times as far off.
fn lossy_bound(name: &str) -> Option<(u8, f64)> {
    if !name.ends_with(".jpg") {
        return None;
    }
    Some(if name.starts_with("420") {
        (5, 0.6)
    } else if name.starts_with("422") {
        (4, 0.35)
    } else {
        (3, 0.05)
    })
}

#[test]
fn every_stored_image_decodes_as_pillow_does() {
    let bytes = expected_bytes();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // A palette is compared in `tiffs.rs`: it has no expected bytes here, because it was refused when these were made.
    let refused = ["float.tif", "palette.tif"];
    let mut by_format: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(golden().join("images")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if refused.contains(&name.as_str()) {
            continue;
        }
        let want = stored_image(&tensors, &name);
        let got = decode_image_file(&path).unwrap();
        match lossy_bound(&name) {
            None => assert_same(&name, &got, &want),
            Some((max, mean)) => {
                let apart = difference(&name, &got, &want);
                assert!(apart.max <= max && apart.mean <= mean, "{name}: {apart:?}");
            }
        }
        let ending = name.rsplit('.').next().unwrap().to_owned();
        *by_format.entry(ending).or_default() += 1;
    }
    // A golden folder that lost its files must not pass.
    let counts: Vec<usize> = by_format.values().copied().collect();
    assert_eq!(by_format.keys().map(String::as_str).collect::<Vec<_>>(), ["bmp", "gif", "jpg", "png", "tif", "webp"]);
    assert_eq!(counts, [5, 5, 15, 32, 16, 11], "{by_format:?}");
}

#[test]
fn all_eight_orientations_show_the_same_scene_in_each_format() {
    let upright = input("exif-1.png");
    for turn in 1..=8 {
        let png = input(&format!("exif-{turn}.png"));
        assert_same("webp", &input(&format!("exif-{turn}.webp")), &png);
        assert_same("tif", &input(&format!("exif-{turn}.tif")), &png);
        // Orientations 5 to 8 swap the sides.
        let swapped = png.width().0 == upright.height().0;
        assert_eq!(swapped, turn >= 5, "orientation {turn}");
        assert_eq!(png == upright, turn == 1, "orientation {turn} turns");
    }
}

#[test]
fn orientation_written_as_xmp_is_obeyed() {
    assert_same("xmp", &input("xmp-6.jpg"), &input("exif-6.jpg"));
}

#[test]
fn noise_resizes_to_the_bit_in_every_direction() {
    let bytes = expected_bytes();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut checked = 0;
    for key in tensors.names() {
        let Some((file, size)) = key.strip_prefix("resize").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let file = file.strip_prefix('-').unwrap_or("noise.png");
        let (height, width) = size.split_once('x').unwrap();
        let got = resize_bicubic(&input(file), Height(height.parse().unwrap()), Width(width.parse().unwrap()));
        assert_same(key, &got, &stored_image(&tensors, key));
        checked += 1;
    }
    assert_eq!(checked, 26);
}

#[test]
fn the_order_of_the_passes_changes_the_result() {
    // 37 x 23 to 30 x 5: the height loses 18 pixels, more than twice the 7 of the width, so it is filtered first.
    let noise = input("noise.png");
    let (height, width) = (Height(5), Width(30));
    let right = resize_bicubic(&noise, height, width);
    let rows_first = resize_bicubic(&resize_bicubic(&noise, height, noise.width()), height, width);
    let columns_first = resize_bicubic(&resize_bicubic(&noise, noise.height(), width), height, width);
    assert_same("height first", &right, &rows_first);
    assert!(difference("width first", &right, &columns_first).max > 0);
}

#[test]
fn a_flat_image_stays_flat_at_every_size() {
    for level in [0, 1, 127, 254, 255] {
        let flat = RgbImage::new(Width(7), Height(5), vec![level; 7 * 5 * 3]).unwrap();
        for (height, width) in [(1, 1), (3, 90), (64, 2), (50, 70), (5, 7)] {
            let out = resize_bicubic(&flat, Height(height), Width(width));
            assert!(out.pixels().iter().all(|byte| *byte == level));
            assert_eq!((out.height(), out.width()), (Height(height), Width(width)));
        }
    }
}

#[test]
fn a_file_is_read_by_its_content_and_not_by_its_ending() {
    let folder = tempfile::tempdir().unwrap();
    let lie = folder.path().join("really-a-png.jpg");
    std::fs::copy(golden().join("images/rgba.png"), &lie).unwrap();
    assert_same("renamed", &decode_image_file(&lie).unwrap(), &input("rgba.png"));
}

#[test]
fn bytes_and_file_give_the_same_image() {
    for name in ["rgba.png", "420-q90.jpg", "lossy.webp", "part-of-screen.gif"] {
        let bytes = std::fs::read(golden().join("images").join(name)).unwrap();
        assert_same(name, &decode_image(&bytes, name).unwrap(), &input(name));
    }
}

#[test]
fn decoded_pixels_must_fit_their_sides() {
    let new = |w, h, bytes| RgbImage::new(Width(w), Height(h), vec![0; bytes]);
    assert_eq!(new(2, 3, 18).unwrap().pixels().len(), 18);
    let error = new(2, 3, 17).unwrap_err();
    assert_eq!(error.kind(), "corrupt");
    assert_eq!(error.to_string(), "found 17 bytes for 2 x 3 pixels, expected 18 (three bytes a pixel)");
    assert_eq!(new(0, 3, 0).unwrap_err().kind(), "empty");
    let error = new(u32::MAX, u32::MAX, 0).unwrap_err();
    assert_eq!(error.kind(), "too_large");
    assert!(error.to_string().contains(&MAX_IMAGE_PIXELS.to_string()));
}
