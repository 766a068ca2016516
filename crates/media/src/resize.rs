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
    assert!(height.0 > 0 && width.0 > 0, "a resized picture has at least one pixel");
    let (old_h, old_w) = (image.height(), image.width());
    // Pillow 13 spares the pass along rows when the height loses more than twice the pixels that the width loses; a width
    // that grows loses a negative number.
    let (lost_h, lost_w) = (i64::from(old_h.0) - i64::from(height.0), i64::from(old_w.0) - i64::from(width.0));
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

/// Bytes that [`resize_bicubic`] takes beside the picture and its result: the one between the passes, rows and weights.
pub(crate) fn resize_bytes(old: (Height, Width), new: (Height, Width)) -> u64 {
    let sides = |size: (Height, Width)| [u64::from(size.0.0), u64::from(size.1.0)];
    let ([old_h, old_w], [new_h, new_w]) = (sides(old), sides(new));
    let vertical_first = old_h > new_h && i128::from(old_h - new_h) > (i128::from(old_w) - i128::from(new_w)) * 2;
    let between = match (old_h == new_h, old_w == new_w) {
        (false, false) if vertical_first => 3 * new_h * old_w,
        (false, false) => 3 * old_h * new_w,
        _ => 0,
    };
    let weights = |old: u64, new: u64| 16 * new + 4 * (4 * old.max(new) + 5 * new);
    between + weights(old_h, new_h).max(weights(old_w, new_w)) + 24 * old_w.max(new_w)
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
        Self { windows, weights, stride }
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

/// The pass along rows, two rows at a time.
///
/// Two levels lie in one 64-bit word, 32 bits apart, so that one product with a weight moves two sums: six sums of a pixel
/// pair take three products. A sum fits 32 bits with its sign; what a negative lower one borrows is given back at the end.
fn resize_width(image: &RgbImage, width: Width) -> RgbImage {
    const HALVES: i64 = HALF as i64 | (HALF as i64) << 32;
    let pair = |low: u8, high: u8| i64::from(low) | i64::from(high) << 32;
    let levels = |sums: i64| {
        let low = sums as i32;
        let high = ((sums - i64::from(low)) >> 32) as i32;
        [to_level(low), to_level(high)]
    };
    let taps = Taps::new(image.width().0, width.0);
    let old_row = image.width().0 as usize * 3;
    let new_row = width.0 as usize * 3;
    let mut pixels = vec![0; new_row * image.height().0 as usize];
    let mut words = Vec::with_capacity(image.width().0 as usize);
    for (rows, out) in image.pixels().chunks(old_row * 2).zip(pixels.chunks_mut(new_row * 2)) {
        let (upper, lower) = rows.split_at(old_row);
        // The last row of an odd height goes with itself.
        let lower = if lower.is_empty() { upper } else { lower };
        words.clear();
        words.extend(
            upper
                .chunks_exact(3)
                .zip(lower.chunks_exact(3))
                .map(|(a, b)| [pair(a[0], a[1]), pair(b[0], b[1]), pair(a[2], b[2])]),
        );
        let (out_upper, out_lower) = out.split_at_mut(new_row);
        for (column, (first, weights)) in taps.iter().enumerate() {
            let (mut above, mut below, mut blues) = (HALVES, HALVES, HALVES);
            for (word, weight) in words[first..first + weights.len()].iter().zip(weights) {
                let weight = i64::from(*weight);
                above += word[0] * weight;
                below += word[1] * weight;
                blues += word[2] * weight;
            }
            let ([r0, g0], [r1, g1], [b0, b1]) = (levels(above), levels(below), levels(blues));
            out_upper[column * 3..][..3].copy_from_slice(&[r0, g0, b0]);
            if let Some(out) = out_lower.get_mut(column * 3..column * 3 + 3) {
                out.copy_from_slice(&[r1, g1, b1]);
            }
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
