//! The resize of the reference, to the bit.
//!
//! Libraries that keep floats between the passes or round their weights to 16 bits differ by up to 7 levels, which is
//! enough to move an embedding; hence this one.

use std::ops::Range;

use multiversion::multiversion;

use super::rgb::RgbImage;
use super::size::{Height, Width};

/// Fraction bits of a weight.
const WEIGHT_BITS: u32 = 22;

/// A filter that images are resized with, antialiased where they shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeFilter {
    /// A triangle over two pixels.
    Bilinear,
    /// A cubic convolution over four pixels, a = -1/2.
    Bicubic,
}

impl ResizeFilter {
    /// From here on the kernel is zero, in source pixels when enlarging.
    fn support(self) -> f64 {
        match self {
            ResizeFilter::Bilinear => 1.0,
            ResizeFilter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            ResizeFilter::Bilinear => (1.0 - x.abs()).max(0.0),
            ResizeFilter::Bicubic => bicubic(x),
        }
    }
}

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
    resize(image, height, width, ResizeFilter::Bicubic)
}

/// The same with a filter of choice.
///
/// # Panics
/// If a side of the result is zero.
/// # Source
/// Pillow 13, `Resample.c`, `ImagingResample` with `BILINEAR` or `BICUBIC`.
#[must_use]
pub fn resize(image: &RgbImage, height: Height, width: Width, filter: ResizeFilter) -> RgbImage {
    let (height, width) = (u64::from(height.0), u64::from(width.0));
    resize_part(image, &Part { height, width, rows: 0..height, columns: 0..width }, filter)
}

/// A part of a resized image: the sides of the whole, and which of its rows and columns are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) height: u64,
    pub(crate) width: u64,
    pub(crate) rows: Range<u64>,
    pub(crate) columns: Range<u64>,
}

/// A part of the image that [`resize`] gives, made without the rest of it: each pixel depends on those under its own
/// window alone.
///
/// # Panics
/// If a side of the whole or of the part is zero, or the part goes beyond the whole.
pub(crate) fn resize_part(image: &RgbImage, part: &Part, filter: ResizeFilter) -> RgbImage {
    let Part { height, width, rows, columns } = part.clone();
    assert!(rows.end <= height && columns.end <= width, "a part lies in the whole");
    assert!(!rows.is_empty() && !columns.is_empty(), "a resized image has at least one pixel");
    let (old_h, old_w) = (image.height().0, image.width().0);
    let taps = |old: u32, new: u64, part: &Range<u64>| {
        (u64::from(old) != new).then(|| Taps::new(filter, old, new, part.clone()))
    };
    let (down, along) = (taps(old_h, height, &rows), taps(old_w, width, &columns));
    // Of an axis that keeps its length.
    let kept = |part: &Range<u64>| part.start as usize..part.end as usize;
    match (down, along) {
        (None, None) => image.part(kept(&rows), kept(&columns)),
        (None, Some(along)) => along_rows(image, kept(&rows), &along),
        (Some(down), None) => down_columns(image, kept(&columns), &down),
        (Some(down), Some(mut along)) if vertical_first((old_h, old_w), (height, width)) => {
            let reach = along.reach();
            let between = down_columns(image, reach.clone(), &down);
            along.count_from(reach.start);
            along_rows(&between, 0..between.height().0 as usize, &along)
        }
        (Some(mut down), Some(along)) => {
            let reach = down.reach();
            let between = along_rows(image, reach.clone(), &along);
            down.count_from(reach.start);
            down_columns(&between, 0..between.width().0 as usize, &down)
        }
    }
}

/// Whether the height is filtered first. Pillow 13 spares the pass along rows when the height loses more than twice the
/// pixels that the width loses; a width that grows loses a negative number.
fn vertical_first(old: (u32, u32), new: (u64, u64)) -> bool {
    let lost = |old: u32, new: u64| i128::from(old) - i128::from(new);
    let (lost_h, lost_w) = (lost(old.0, new.0), lost(old.1, new.1));
    lost_h > 0 && lost_h > lost_w * 2
}

/// Bytes that [`resize`] takes beside the image and its result: the one between the passes, rows and weights.
pub(crate) fn resize_bytes(old: (Height, Width), new: (Height, Width)) -> u64 {
    let (height, width) = (u64::from(new.0.0), u64::from(new.1.0));
    part_bytes(old, &Part { height, width, rows: 0..height, columns: 0..width })
}

/// The same of [`resize_part`].
pub(crate) fn part_bytes(old: (Height, Width), part: &Part) -> u64 {
    let [old_h, old_w] = [old.0.0, old.1.0].map(u64::from);
    let count = |range: &Range<u64>| range.end - range.start;
    let (new_h, new_w) = (count(&part.rows), count(&part.columns));
    let between = match (old_h == part.height, old_w == part.width) {
        (false, false) if vertical_first((old.0.0, old.1.0), (part.height, part.width)) => {
            3 * new_h * reach_of(old_w, part.width, new_w)
        }
        (false, false) => 3 * reach_of(old_h, part.height, new_h) * new_w,
        _ => 0,
    };
    let weights = |old: u64, new: u64, part: u64| 16 * part + 4 * (4 * old.max(new) * part / new.max(1) + 6 * part);
    let both = weights(old_h, part.height, new_h) + weights(old_w, part.width, new_w);
    between + both + 16 * (old_w + new_w)
}

/// Source pixels under the windows of `part` of `new` pixels, at most.
fn reach_of(old: u64, new: u64, part: u64) -> u64 {
    // A window reaches two source pixels beyond its own on either side, or as many result pixels where the image shrinks.
    (old * (part + 4) / new.max(1) + 6).min(old)
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
    /// For some of the `new` pixels that `old` become.
    fn new(filter: ResizeFilter, old: u32, new: u64, part: Range<u64>) -> Self {
        let scale = f64::from(old) / new as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let inverse = 1.0 / filter_scale;
        let count = (part.end - part.start) as usize;
        let mut windows = Vec::with_capacity(count);
        let mut weights = vec![0; stride * count];
        let mut exact = vec![0.0; stride];
        for (i, fixed) in part.zip(weights.chunks_exact_mut(stride)) {
            let center = (i as f64 + 0.5) * scale;
            // Casts cut towards zero and below it, as the conversions to int and the clamps there do.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(old as usize);
            let count = end - first;
            let mut sum = 0.0;
            for (k, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((k + first) as f64 - center + 0.5) * inverse);
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

    /// Result pixels.
    fn count(&self) -> usize {
        self.windows.len()
    }

    /// The source pixels that all of them look at.
    fn reach(&self) -> Range<usize> {
        let (first, (last, count)) = (self.windows[0].0, self.windows[self.windows.len() - 1]);
        first..last + count
    }

    /// Counts source pixels from this one on.
    fn count_from(&mut self, start: usize) {
        self.windows.iter_mut().for_each(|(first, _)| *first -= start);
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

/// The pass along some rows, five of them at a time: their columns are laid side by side first, so that one product of
/// vectors moves the sums of all five.
fn along_rows(image: &RgbImage, rows: Range<usize>, taps: &Taps) -> RgbImage {
    let (old_row, new_row) = (image.width().0 as usize * 3, taps.count() * 3);
    let mut pixels = vec![0; new_row * rows.len()];
    let mut columns: Vec<Column> = vec![[0; 16]; image.width().0 as usize];
    let mut filtered: Vec<Column> = vec![[0; 16]; taps.count()];
    let (height, source) = (rows.len() as u32, &image.pixels()[rows.start * old_row..rows.end * old_row]);
    for (rows, out) in source.chunks(old_row * ROWS).zip(pixels.chunks_mut(new_row * ROWS)) {
        for (i, row) in rows.chunks_exact(old_row).enumerate() {
            for (column, pixel) in columns.iter_mut().zip(row.chunks_exact(3)) {
                column[3 * i..][..3].copy_from_slice(pixel);
            }
        }
        filter_columns(&columns, taps, &mut filtered);
        for (i, row) in out.chunks_exact_mut(new_row).enumerate() {
            for (column, pixel) in filtered.iter().zip(row.chunks_exact_mut(3)) {
                pixel.copy_from_slice(&column[3 * i..][..3]);
            }
        }
    }
    RgbImage::from_parts(Width(taps.count() as u32), Height(height), pixels)
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

/// The pass down some columns, a whole row at a time.
fn down_columns(image: &RgbImage, columns: Range<usize>, taps: &Taps) -> RgbImage {
    let (old_row, new_row) = (image.width().0 as usize * 3, columns.len() * 3);
    let mut pixels = vec![0; new_row * taps.count()];
    for ((first, weights), out) in taps.iter().zip(pixels.chunks_exact_mut(new_row)) {
        filter_rows(&image.pixels()[first * old_row + columns.start * 3..], old_row, weights, out);
    }
    RgbImage::from_parts(Width(columns.len() as u32), Height(taps.count() as u32), pixels)
}

/// A row of the result from as many rows of the source as there are weights, each `row_bytes` behind the one before.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn filter_rows(rows: &[u8], row_bytes: usize, weights: &[i32], out: &mut [u8]) {
    let new_bytes = out.len();
    let (pieces, rest) = out.as_chunks_mut::<SAMPLES>();
    for (i, piece) in pieces.iter_mut().enumerate() {
        let mut sums = [HALF; SAMPLES];
        for (row, weight) in rows.chunks(row_bytes).zip(weights) {
            let levels: &[u8; SAMPLES] = row[i * SAMPLES..][..SAMPLES].try_into().expect("as long as it was cut");
            for (sum, level) in sums.iter_mut().zip(levels) {
                *sum += i32::from(*level) * weight;
            }
        }
        *piece = sums.map(to_level);
    }
    let at = new_bytes - rest.len();
    for (i, level) in rest.iter_mut().enumerate() {
        let samples = rows.chunks(row_bytes).map(|row| i32::from(row[at + i]));
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
            let filter = *random.choice(&[ResizeFilter::Bilinear, ResizeFilter::Bicubic]).unwrap();
            let whole = |old: u32, new: u32| Taps::new(filter, old, u64::from(new), 0..u64::from(new));
            let (along, down) = (whole(old_w, new_w), whole(old_h, new_h));
            let narrow = along_rows(&image, 0..high, &along);
            let want = (0..high).flat_map(|y| (0..new_w as usize * 3).map(move |at| (y, at / 3, at % 3)));
            let want = want.map(|(y, x, c)| sample(x, &along, |x| image.pixels()[(y * wide + x) * 3 + c]));
            assert!(narrow.pixels().iter().copied().eq(want), "{old_w} x {old_h} to {new_w} wide");
            let low = down_columns(&image, 0..wide, &down);
            let want = (0..new_h as usize).flat_map(|y| (0..wide * 3).map(move |at| (y, at)));
            let want = want.map(|(y, at)| sample(y, &down, |y| image.pixels()[y * wide * 3 + at]));
            assert!(low.pixels().iter().copied().eq(want), "{old_w} x {old_h} to {new_h} high");
        }
    }

    #[test]
    fn a_part_is_cut_out_of_the_whole_whatever_its_sides() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let mut side = || if random.bool() { random.u32(1..90) } else { 40 };
            let [old_w, old_h, new_w, new_h] = [side(), side(), side(), side()];
            let mut of = |new: u32| {
                let start = random.u64(0..u64::from(new));
                start..random.u64(start + 1..=u64::from(new))
            };
            let (columns, rows) = (of(new_w), of(new_h));
            let pixels = std::iter::repeat_with(|| random.u8(..)).take(3 * (old_w * old_h) as usize).collect();
            let image = RgbImage::from_parts(Width(old_w), Height(old_h), pixels);
            for filter in [ResizeFilter::Bilinear, ResizeFilter::Bicubic] {
                let whole = resize(&image, Height(new_h), Width(new_w), filter);
                let cut = |part: &Range<u64>| part.start as usize..part.end as usize;
                let (height, width) = (u64::from(new_h), u64::from(new_w));
                let part = Part { height, width, rows: rows.clone(), columns: columns.clone() };
                let got = resize_part(&image, &part, filter);
                assert!(got == whole.part(cut(&rows), cut(&columns)), "{part:?} of {old_w} x {old_h}");
            }
        }
    }

    /// A strip of one pixel whose whole enlargement would be 40 GB, of which the middle is cut.
    #[test]
    fn the_middle_of_a_needle_is_made_without_its_ends() {
        let image = RgbImage::from_parts(Width(1), Height(60_000), vec![9; 180_000]);
        let part = Part { height: 60_000 * 224, width: 224, rows: 6_720_000..6_720_224, columns: 0..224 };
        let middle = resize_part(&image, &part, ResizeFilter::Bicubic);
        assert_eq!((middle.height(), middle.width()), (Height(224), Width(224)));
        assert!(middle.pixels().iter().all(|level| *level == 9));
        assert!(part_bytes((Height(60_000), Width(1)), &part) < 2 << 20);
    }
}
