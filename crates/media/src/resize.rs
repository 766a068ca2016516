//! The bicubic resize of the reference, to the bit.
//!
//! Libraries that keep floats between the passes or round their weights to 16 bits differ by up to 7 levels, which is
//! enough to move an embedding; hence this one.

use crate::image::RgbImage;
use crate::size::{Height, Width};

/// Fraction bits of a weight.
const WEIGHT_BITS: u32 = 22;

/// The kernel is zero from here on, in source pixels when enlarging.
const SUPPORT: f64 = 2.0;

/// Resizes a picture with the antialiased bicubic filter of Pillow.
///
/// # Numerics
/// Weights are computed in f64 and rounded to 22 fraction bits; sums are 32-bit integers; each pass rounds to eight bits.
/// A side that keeps its length is not filtered. The height is filtered first when it loses more than twice the pixels
/// that the width loses, otherwise the width is: the result depends on it by up to 15 levels.
/// # Panics
/// If a side of the result is zero.
/// # Source
/// Pillow 13, `Resample.c`, `ImagingResample` with `BICUBIC`.
#[must_use]
pub fn resize_bicubic(image: &RgbImage, height: Height, width: Width) -> RgbImage {
    assert!(
        height.0 > 0 && width.0 > 0,
        "a resized picture has at least one pixel"
    );
    let (old_h, old_w) = (image.height(), image.width());
    // Pillow 13 spares the pass along rows when the height loses more than twice the pixels that the width loses; a width
    // that grows loses a negative number.
    let (lost_h, lost_w) = (
        i64::from(old_h.0) - i64::from(height.0),
        i64::from(old_w.0) - i64::from(width.0),
    );
    let vertical_first = lost_h > 0 && lost_h > lost_w * 2;
    if height == old_h && width == old_w {
        image.clone()
    } else if height == old_h {
        resize_width(image, width)
    } else if width == old_w {
        resize_height(image, height)
    } else if vertical_first {
        resize_width(&resize_height(image, height), width)
    } else {
        resize_height(&resize_width(image, width), height)
    }
}

/// Where each result pixel looks, and with which weights.
struct Taps {
    /// First source pixel of each result pixel, and how many follow.
    windows: Vec<(usize, usize)>,
    /// Weights of all result pixels, `stride` apart.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    fn new(old: u32, new: u32) -> Self {
        let scale = f64::from(old) / f64::from(new);
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let inverse = 1.0 / filter_scale;
        let mut windows = Vec::with_capacity(new as usize);
        let mut weights = vec![0; stride * new as usize];
        let mut exact = vec![0.0; stride];
        for (i, fixed) in weights.chunks_exact_mut(stride).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            // Casts cut towards zero and below it, as the conversions to int and the clamps there do.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(old as usize);
            let count = end - first;
            let mut sum = 0.0;
            for (k, weight) in exact[..count].iter_mut().enumerate() {
                *weight = bicubic(((k + first) as f64 - center + 0.5) * inverse);
                sum += *weight;
            }
            for (fixed, weight) in fixed.iter_mut().zip(&exact[..count]) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1 << WEIGHT_BITS);
                *fixed = (scaled + 0.5_f64.copysign(scaled)) as i32;
            }
            windows.push((first, count));
        }
        Self {
            windows,
            weights,
            stride,
        }
    }

    /// Each result pixel: its first source pixel and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.windows
            .iter()
            .zip(self.weights.chunks_exact(self.stride))
            .map(|((first, count), weights)| (*first, &weights[..*count]))
    }
}

/// The cubic convolution kernel with a = -1/2.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A sum with fraction bits, half already added, to the nearest level.
fn to_level(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// What a sum begins with: one half, for rounding.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// The pass along rows.
fn resize_width(image: &RgbImage, width: Width) -> RgbImage {
    let taps = Taps::new(image.width().0, width.0);
    let old_row = image.width().0 as usize * 3;
    let mut pixels = Vec::with_capacity(width.0 as usize * 3 * image.height().0 as usize);
    for row in image.pixels().chunks_exact(old_row) {
        for (first, weights) in taps.iter() {
            let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
            let window = &row[first * 3..(first + weights.len()) * 3];
            for (pixel, weight) in window.chunks_exact(3).zip(weights) {
                red += i32::from(pixel[0]) * weight;
                green += i32::from(pixel[1]) * weight;
                blue += i32::from(pixel[2]) * weight;
            }
            pixels.extend_from_slice(&[to_level(red), to_level(green), to_level(blue)]);
        }
    }
    RgbImage::from_parts(width, image.height(), pixels)
}

/// The pass along columns, a whole row at a time.
fn resize_height(image: &RgbImage, height: Height) -> RgbImage {
    let taps = Taps::new(image.height().0, height.0);
    let row_bytes = image.width().0 as usize * 3;
    let mut pixels = Vec::with_capacity(row_bytes * height.0 as usize);
    let mut sums = vec![0_i32; row_bytes];
    for (first, weights) in taps.iter() {
        sums.fill(HALF);
        let rows = image.pixels()[first * row_bytes..].chunks_exact(row_bytes);
        for (row, weight) in rows.zip(weights) {
            for (sum, level) in sums.iter_mut().zip(row) {
                *sum += i32::from(*level) * weight;
            }
        }
        pixels.extend(sums.iter().map(|sum| to_level(*sum)));
    }
    RgbImage::from_parts(image.width(), height, pixels)
}
