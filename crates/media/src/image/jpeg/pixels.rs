//! Coefficients into samples, samples to full size, and components to red, green and blue.
//!
//! # Numerics
//! Integers as libjpeg-turbo's: the transform of Loeffler, Ligtenberg and Moschytz with 13 bits of fraction, triangle
//! upsampling where a side is halved, repetition elsewhere, colours with 16 bits of fraction. Equal to the bit.

use super::frame::{Block, Frame, extent};

/// The samples of one component, in whole blocks and, where scans are interleaved, whole units.
pub(super) struct Plane {
    /// Blocks that a scan of this component alone has.
    pub(super) blocks: (usize, usize),
    /// Blocks of one unit.
    pub(super) factors: (usize, usize),
    pub(super) quantiser: Option<[u16; 64]>,
    pub(super) seen: bool,
    /// Blocks of a row with those that fill the last unit.
    blocks_wide: usize,
    samples: Vec<u8>,
    /// Of progressive images, until all scans are read.
    coefficients: Vec<i16>,
    /// Sides in samples that belong to the image.
    width: usize,
    height: usize,
    /// How much longer the sides of the image are.
    scale: (usize, usize),
}

impl Plane {
    pub(super) fn new(frame: &Frame, index: usize) -> Self {
        let component = &frame.components[index];
        let factors = (usize::from(component.across), usize::from(component.down));
        let (width, height) = extent(frame, index);
        let units = frame.units();
        let (blocks_wide, blocks_high) = (units.0 * factors.0, units.1 * factors.1);
        let sum = blocks_wide * blocks_high * 64;
        let most = frame.most();
        Self {
            blocks: (width.div_ceil(8), height.div_ceil(8)),
            factors,
            quantiser: None,
            seen: false,
            blocks_wide,
            samples: if frame.progressive { Vec::new() } else { vec![0; sum] },
            coefficients: if frame.progressive { vec![0; sum] } else { Vec::new() },
            width,
            height,
            scale: (usize::from(most.0) / factors.0, usize::from(most.1) / factors.1),
        }
    }

    /// The coefficients of a block of a progressive image.
    pub(super) fn block(&mut self, column: usize, row: usize) -> &mut Block {
        let at = (row * self.blocks_wide + column) * 64;
        self.coefficients[at..at + 64].as_mut_array().expect("a block has 64 coefficients")
    }

    /// Samples of one block from its coefficients.
    pub(super) fn put(&mut self, column: usize, row: usize, block: &Block) {
        let quantiser = self.quantiser.as_ref().expect("a scan begins with a quantisation table");
        put(&mut self.samples, self.blocks_wide, column, row, block, quantiser);
    }

    /// Samples of a progressive image, when all scans are read.
    fn finish(&mut self) {
        let coefficients = std::mem::take(&mut self.coefficients);
        if coefficients.is_empty() {
            return;
        }
        self.samples = vec![0; coefficients.len()];
        let quantiser = self.quantiser.as_ref().expect("every component had a scan");
        for (index, block) in coefficients.as_chunks::<64>().0.iter().enumerate() {
            let (column, row) = (index % self.blocks_wide, index / self.blocks_wide);
            put(&mut self.samples, self.blocks_wide, column, row, block, quantiser);
        }
    }

    /// The samples of a row that belong to the image.
    fn row(&self, row: usize) -> &[u8] {
        let at = row * self.blocks_wide * 8;
        &self.samples[at..at + self.width]
    }

    /// A row of the image at full size. `out` is as wide as the image.
    fn full_row(&self, y: usize, sums: &mut Vec<u16>, out: &mut [u8]) {
        let near = self.row((y / self.scale.1).min(self.height - 1));
        // The next row on the side that this one is nearer to; the outermost rows stand for those beyond.
        let far = || {
            let row = y / 2;
            let next = if y.is_multiple_of(2) { row.saturating_sub(1) } else { row + 1 };
            self.row(next.min(self.height - 1))
        };
        let three_to_one = |sums: &mut Vec<u16>| {
            sums.clear();
            sums.extend(near.iter().zip(far()).map(|(near, far)| u16::from(*near) * 3 + u16::from(*far)));
        };
        match self.scale {
            (1, 1) => out.copy_from_slice(near),
            (2, 1) if self.width > 2 => {
                sums.clear();
                sums.extend(near.iter().map(|sample| u16::from(*sample)));
                widened(sums, [1, 2], 2, out);
            }
            (2, 2) if self.width > 2 => {
                three_to_one(sums);
                widened(sums, [8, 7], 4, out);
            }
            (1, 2) => {
                three_to_one(sums);
                let half = if y.is_multiple_of(2) { 1 } else { 2 };
                for (out, sum) in out.iter_mut().zip(&*sums) {
                    *out = ((sum + half) >> 2) as u8;
                }
            }
            (across, _) => {
                for (out, sample) in out.chunks_mut(across).zip(near) {
                    out.fill(*sample);
                }
            }
        }
    }
}

/// Twice as wide: each sample three parts, the one on its other side one part. `halves` are added for the left and the
/// right one before the shift.
pub(super) fn widened(sums: &[u16], halves: [u16; 2], shift: u32, out: &mut [u8]) {
    let last = sums.len() - 1;
    for (x, pair) in out.chunks_mut(2).enumerate() {
        let (this, before, after) = (sums[x], sums[x.saturating_sub(1)], sums[(x + 1).min(last)]);
        pair[0] = ((this * 3 + before + halves[0]) >> shift) as u8;
        if let Some(right) = pair.get_mut(1) {
            *right = ((this * 3 + after + halves[1]) >> shift) as u8;
        }
    }
}

/// Writes the samples of one block.
fn put(samples: &mut [u8], blocks_wide: usize, column: usize, row: usize, block: &Block, quantiser: &[u16; 64]) {
    let stride = blocks_wide * 8;
    let at = row * 8 * stride + column * 8;
    let rows = samples[at..].chunks_mut(stride);
    for (values, out) in transformed(block, quantiser).iter().zip(rows) {
        out[..8].copy_from_slice(values);
    }
}

/// Bits of fraction of the factors.
const FRACTION: u32 = 13;
/// Bits of fraction between columns and rows.
const BETWEEN: u32 = 2;

/// The inverse transform: columns, then rows.
pub(super) fn transformed(block: &Block, quantiser: &[u16; 64]) -> [[u8; 8]; 8] {
    let mut out = [[0; 8]; 8];
    // Products are cut to 16 bits; those of an image that a coder made fit.
    let value = |at: usize| i32::from(block[at].wrapping_mul(quantiser[at] as i16));
    let level = |sum: i32, shift: u32| (sum.wrapping_add(1 << (shift - 1))) >> shift;
    if block[1..].iter().all(|coefficient| *coefficient == 0) {
        let mean = level(value(0) << BETWEEN, BETWEEN + 3) + 128;
        return [[mean.clamp(0, 255) as u8; 8]; 8];
    }
    let mut columns = [[0; 8]; 8];
    for x in 0..8 {
        let sums = line(std::array::from_fn(|y| value(y * 8 + x)));
        for (row, sum) in columns.iter_mut().zip(sums) {
            row[x] = level(sum, FRACTION - BETWEEN);
        }
    }
    for (out, row) in out.iter_mut().zip(columns) {
        *out = line(row).map(|sum| (level(sum, FRACTION + BETWEEN + 3) + 128).clamp(0, 255) as u8);
    }
    out
}

/// The transform of one row or column, [`FRACTION`] bits up and times the root of 8.
///
/// # Source
/// C. Loeffler, A. Ligtenberg, G. Moschytz, Practical fast 1-D DCT algorithms with 11 multiplications, 1989, Figure 1.
fn line(input: [i32; 8]) -> [i32; 8] {
    let times = |value: i32, factor: i32| value.wrapping_mul(factor);
    let sum = |a: i32, b: i32| a.wrapping_add(b);
    let less = |a: i32, b: i32| a.wrapping_sub(b);
    let [i0, i1, i2, i3, i4, i5, i6, i7] = input;
    // Factors are cosines and their sums, times 2^13.
    let turn = times(sum(i2, i6), 4433);
    let (e2, e3) = (sum(turn, times(i6, -15137)), sum(turn, times(i2, 6270)));
    let (e0, e1) = (times(sum(i0, i4), 1 << FRACTION), times(less(i0, i4), 1 << FRACTION));
    let even = [sum(e0, e3), sum(e1, e2), less(e1, e2), less(e0, e3)];

    let (outer, inner) = (times(sum(i7, i1), -7373), times(sum(i5, i3), -20995));
    let turn = times(sum(sum(i7, i3), sum(i5, i1)), 9633);
    let (left, right) = (sum(times(sum(i7, i3), -16069), turn), sum(times(sum(i5, i1), -3196), turn));
    let odd = [
        sum(times(i1, 12299), sum(outer, right)),
        sum(times(i3, 25172), sum(inner, left)),
        sum(times(i5, 16819), sum(inner, right)),
        sum(times(i7, 2446), sum(outer, left)),
    ];
    std::array::from_fn(|x| if x < 4 { sum(even[x], odd[x]) } else { less(even[7 - x], odd[7 - x]) })
}

/// What the components are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    Grey,
    /// Luma and two differences.
    Differences,
    Rgb,
    /// Four inks, stored as 255 for none, as Adobe's programs do and as Pillow reads every file.
    Inks,
    /// The first three inks as luma and differences.
    InksAsDifferences,
    /// Whatever they are: all components of a pixel as they are stored, one after the other.
    Stored,
}

impl Colours {
    /// Packed red, green and blue of the image; of [`Self::Stored`], its components.
    pub(super) fn pixels(self, frame: &Frame, mut planes: Vec<Plane>) -> Vec<u8> {
        planes.iter_mut().for_each(Plane::finish);
        let (width, height) = (frame.width as usize, frame.height as usize);
        let samples = if self == Self::Stored { planes.len() } else { 3 };
        let mut pixels = vec![0; width * height * samples];
        let mut rows = vec![vec![0; width]; planes.len()];
        let mut sums = Vec::new();
        for (y, out) in pixels.chunks_exact_mut(width * samples).enumerate() {
            for (plane, row) in planes.iter().zip(&mut rows) {
                plane.full_row(y, &mut sums, row);
            }
            let rgb = out.as_chunks_mut::<3>().0.iter_mut();
            match (self, rows.as_slice()) {
                (Self::Grey, [grey]) => rgb.zip(grey).for_each(|(rgb, grey)| *rgb = [*grey; 3]),
                (Self::Rgb, [red, green, blue]) => {
                    for (((rgb, red), green), blue) in rgb.zip(red).zip(green).zip(blue) {
                        *rgb = [*red, *green, *blue];
                    }
                }
                (Self::Differences, [luma, blue, red]) => {
                    for (((rgb, luma), blue), red) in rgb.zip(luma).zip(blue).zip(red) {
                        *rgb = from_differences(*luma, *blue, *red);
                    }
                }
                (Self::Inks, [cyan, magenta, yellow, black]) => {
                    for (x, rgb) in rgb.enumerate() {
                        *rgb = on_black([cyan[x], magenta[x], yellow[x]], black[x]);
                    }
                }
                (Self::InksAsDifferences, [luma, blue, red, black]) => {
                    for (x, rgb) in rgb.enumerate() {
                        // The inks are 255 less these values, and stored inverted: two turns that cancel out.
                        let inks = from_differences(luma[x], blue[x], red[x]).map(|value| 255 - value);
                        *rgb = on_black(inks, black[x]);
                    }
                }
                (Self::Stored, rows) => {
                    for (x, pixel) in out.chunks_exact_mut(samples).enumerate() {
                        pixel.iter_mut().zip(rows).for_each(|(out, row)| *out = row[x]);
                    }
                }
                _ => unreachable!("the walk matches colours to the number of components"),
            }
        }
        pixels
    }
}

/// JFIF 1.02, "Conversion to and from RGB".
pub(super) fn from_differences(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    const HALF: i32 = 1 << 15;
    let parts =
        [(91_881 * red + HALF) >> 16, (HALF - 22_554 * blue - 46_802 * red) >> 16, (116_130 * blue + HALF) >> 16];
    parts.map(|part| (luma + part).clamp(0, 255) as u8)
}

/// Inks, stored as 255 for none, over black: what is left of the light of white paper.
///
/// # Source
/// Pillow 13, `Convert.c`, CMYK to RGB after the inversion of `CMYK;I`: the product with a rounded division by 255.
fn on_black(inks: [u8; 3], black: u8) -> [u8; 3] {
    let light = i32::from(black);
    inks.map(|ink| {
        let product = (255 - i32::from(ink)) * light + 128;
        (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}
