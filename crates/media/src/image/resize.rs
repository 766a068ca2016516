//! The bicubic resize of the reference, to the bit.
//!
//! Libraries that keep floats between the passes or round their weights to 16 bits differ by up to 7 levels, which is
//! enough to move an embedding; hence this one.

use multiversion::multiversion;

use super::rgb::RgbImage;
use super::size::{Height, Width};

/// Fraction bits of a weight.
const WEIGHT_BITS: u32 = 22;

/// The kernel is zero from here on, in source pixels when enlarging.
const SUPPORT: f64 = 2.0;

/// Resizes an image with the antialiased bicubic filter of Pillow.
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
    assert!(height.0 > 0 && width.0 > 0, "a resized image has at least one pixel");
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

/// Bytes that [`resize_bicubic`] takes beside the image and its result: the one between the passes, rows and weights.
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
    between + weights(old_h, new_h).max(weights(old_w, new_w)) + 16 * (old_w + new_w)
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

/// Rows that the pass along rows filters together: their fifteen samples of one column fill a vector of sixteen.
const ROWS: usize = 5;

/// One column of [`ROWS`] rows: red, green and blue of each in turn, and one byte that is not used.
type Column = [u8; 16];

/// The pass along rows, five rows at a time: the columns of their rows are laid side by side first, so that one product
/// of vectors moves the sums of all five.
fn resize_width(image: &RgbImage, width: Width) -> RgbImage {
    let taps = Taps::new(image.width().0, width.0);
    let old_row = image.width().0 as usize * 3;
    let new_row = width.0 as usize * 3;
    let mut pixels = vec![0; new_row * image.height().0 as usize];
    let mut columns: Vec<Column> = vec![[0; 16]; image.width().0 as usize];
    let mut filtered: Vec<Column> = vec![[0; 16]; width.0 as usize];
    for (rows, out) in image.pixels().chunks(old_row * ROWS).zip(pixels.chunks_mut(new_row * ROWS)) {
        for (i, row) in rows.chunks_exact(old_row).enumerate() {
            for (column, pixel) in columns.iter_mut().zip(row.chunks_exact(3)) {
                column[3 * i..][..3].copy_from_slice(pixel);
            }
        }
        filter_columns(&columns, &taps, &mut filtered);
        for (i, row) in out.chunks_exact_mut(new_row).enumerate() {
            for (column, pixel) in filtered.iter().zip(row.chunks_exact_mut(3)) {
                pixel.copy_from_slice(&column[3 * i..][..3]);
            }
        }
    }
    RgbImage::from_parts(width, image.height(), pixels)
}

/// The columns of the result from those of the source.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn filter_columns(columns: &[Column], taps: &Taps, out: &mut [Column]) {
    for ((first, weights), out) in taps.iter().zip(out) {
        let mut sums = [HALF; 16];
        for (column, weight) in columns[first..first + weights.len()].iter().zip(weights) {
            for (sum, level) in sums.iter_mut().zip(column) {
                *sum += i32::from(*level) * weight;
            }
        }
        *out = sums.map(to_level);
    }
}

/// Samples of a row that are summed at a time, so that their sums stay in registers.
const SAMPLES: usize = 64;

/// The pass along columns, a whole row at a time.
fn resize_height(image: &RgbImage, height: Height) -> RgbImage {
    let taps = Taps::new(image.height().0, height.0);
    let row_bytes = image.width().0 as usize * 3;
    let mut pixels = vec![0; row_bytes * height.0 as usize];
    for ((first, weights), out) in taps.iter().zip(pixels.chunks_exact_mut(row_bytes)) {
        filter_rows(&image.pixels()[first * row_bytes..], weights, out);
    }
    RgbImage::from_parts(image.width(), height, pixels)
}

/// A row of the result from as many rows of the source as there are weights.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn filter_rows(rows: &[u8], weights: &[i32], out: &mut [u8]) {
    let row_bytes = out.len();
    let (pieces, rest) = out.as_chunks_mut::<SAMPLES>();
    for (i, piece) in pieces.iter_mut().enumerate() {
        let mut sums = [HALF; SAMPLES];
        for (row, weight) in rows.chunks_exact(row_bytes).zip(weights) {
            let levels: &[u8; SAMPLES] = row[i * SAMPLES..][..SAMPLES].try_into().expect("as long as it was cut");
            for (sum, level) in sums.iter_mut().zip(levels) {
                *sum += i32::from(*level) * weight;
            }
        }
        *piece = sums.map(to_level);
    }
    let at = row_bytes - rest.len();
    for (i, level) in rest.iter_mut().enumerate() {
        let samples = rows.chunks_exact(row_bytes).map(|row| i32::from(row[at + i]));
        *level = to_level(samples.zip(weights).fold(HALF, |sum, (sample, weight)| sum + sample * weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sample of a pass, by the formula: the source samples under a window, each with its weight.
    fn sample(at: usize, taps: &Taps, source: impl Fn(usize) -> u8) -> u8 {
        let (first, weights) = taps.iter().nth(at).unwrap();
        to_level(weights.iter().enumerate().fold(HALF, |sum, (i, weight)| sum + i32::from(source(first + i)) * weight))
    }

    /// Whatever instructions this machine has: rows beyond a group of five, samples beyond a piece of 64, images of one
    /// row or column.
    #[test]
    fn both_passes_are_the_formula_at_odd_sizes() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let [old_w, old_h, new_w, new_h] = std::array::from_fn(|_| random.u32(1..90));
            let (wide, high) = (old_w as usize, old_h as usize);
            // Mostly black and white: the sums reach furthest below and above.
            let pixels = std::iter::repeat_with(|| *random.choice(&[0, 255, 255, 0, 91]).unwrap());
            let image = RgbImage::from_parts(Width(old_w), Height(old_h), pixels.take(3 * wide * high).collect());
            let (along, down) = (Taps::new(old_w, new_w), Taps::new(old_h, new_h));
            let narrow = resize_width(&image, Width(new_w));
            let want = (0..high).flat_map(|y| (0..new_w as usize * 3).map(move |at| (y, at / 3, at % 3)));
            let want = want.map(|(y, x, c)| sample(x, &along, |x| image.pixels()[(y * wide + x) * 3 + c]));
            assert!(narrow.pixels().iter().copied().eq(want), "{old_w} x {old_h} to {new_w} wide");
            let low = resize_height(&image, Height(new_h));
            let want = (0..new_h as usize).flat_map(|y| (0..wide * 3).map(move |at| (y, at)));
            let want = want.map(|(y, at)| sample(y, &down, |y| image.pixels()[y * wide * 3 + at]));
            assert!(low.pixels().iter().copied().eq(want), "{old_w} x {old_h} to {new_h} high");
        }
    }
}
