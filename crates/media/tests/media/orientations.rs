//! Which way an image is held, in every way that its metadata can say so. Inputs and expected turns:
//! `tests/golden/make/orientations.py`.

use std::collections::BTreeMap;

use omniburn_media::{RgbImage, decode_image};
use safetensors::SafeTensors;

use crate::support::{golden, json};

/// Which pixel (x, y) of an image of these sides does the turned one show at (x, y)? Exif 2.32, 4.6.4, Orientation.
fn turned(image: &RgbImage, turn: u64) -> (usize, usize, Vec<u8>) {
    let (w, h) = (image.width().0 as usize, image.height().0 as usize);
    let (out_w, out_h) = if turn >= 5 { (h, w) } else { (w, h) };
    let mut out = Vec::new();
    for y in 0..out_h {
        for x in 0..out_w {
            let (x, y) = match turn {
                1 => (x, y),
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                8 => (w - 1 - y, x),
                _ => panic!("there are eight ways, not {turn}"),
            };
            out.extend(&image.pixels()[(y * w + x) * 3..][..3]);
        }
    }
    (out_w, out_h, out)
}

#[test]
fn images_are_turned_as_pillow_turns_them() {
    let bytes = std::fs::read(golden().join("orientations.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let turns = json(&golden().join("orientations.json"));
    let decode = |name: &str| decode_image(tensors.tensor(name).unwrap().data(), name);
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for (name, turn) in turns.as_object().unwrap() {
        let format = name.split('/').next().unwrap();
        let stored = decode(&if format == "tiff" { "tiff/none-little".to_owned() } else { format!("{format}/none") });
        let (stored, turn) = (stored.unwrap(), turn.as_u64().unwrap());
        // A JPEG may be read by another decoder because of its segments, and that one rounds in its own way.
        let apart = if format == "jpeg" { 3 } else { 0 };
        let as_turned = |got: &RgbImage, turn: u64| {
            let (width, height, pixels) = turned(&stored, turn);
            (got.width().0 as usize, got.height().0 as usize) == (width, height)
                && got.pixels().iter().zip(&pixels).all(|(a, b)| a.abs_diff(*b) <= apart)
        };
        match decode(name) {
            // Pillow raises an error over the metadata; the pixels are there all the same, in one way or another.
            Ok(got) if turn == 0 && (1..=8).any(|turn| as_turned(&got, turn)) => {}
            Ok(got) if turn > 0 && as_turned(&got, turn) => {}
            Ok(got) => {
                let found = (1..=8).find(|turn| as_turned(&got, *turn));
                wrong.push(format!("{name}: turned as {found:?}, expected {turn}"));
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        *counts.entry(format.to_owned()).or_insert(0) += 1;
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    let counts: Vec<(&str, i32)> = counts.iter().map(|(format, count)| (format.as_str(), *count)).collect();
    assert_eq!(counts, [("bmp", 1), ("gif", 2), ("jpeg", 118), ("png", 151), ("tiff", 68), ("webp", 93)]);
}
