//! Matrices of affine groups: whole numbers of 8 or 4 bits, with a scale and an offset for 64 or 32 of them along an output.
//!
//! `value = code * scale + offset`. Scale and offset are f16: four bytes for 64 values are half a bit a value, and f16 is what
//! MLX and GGUF keep there, so that their groups come over as they are. bf16 would not do: an offset of 128 steps with eight
//! bits of mantissa is off by a quarter of a step.
//!
//! The offset is the group's least value rounded down, the scale the least f16 whose largest code reaches the group's
//! largest value: no value lies outside the grid, so that none is further than half a step from its own.

use rayon::prelude::*;

/// Bits of a code, and how many share a scale and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AffineFormat {
    /// 8 bits, groups of 64.
    Eight64,
    /// 4 bits, groups of 64.
    Four64,
    /// 8 bits, groups of 32.
    Eight32,
    /// 4 bits, groups of 32.
    Four32,
}

impl AffineFormat {
    /// Every format.
    pub const ALL: [AffineFormat; 4] =
        [AffineFormat::Eight64, AffineFormat::Four64, AffineFormat::Eight32, AffineFormat::Four32];

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            AffineFormat::Eight64 | AffineFormat::Eight32 => 8,
            AffineFormat::Four64 | AffineFormat::Four32 => 4,
        }
    }

    /// Values of a group.
    pub const fn group(self) -> usize {
        match self {
            AffineFormat::Eight64 | AffineFormat::Four64 => 64,
            AffineFormat::Eight32 | AffineFormat::Four32 => 32,
        }
    }

    /// The largest code.
    pub const fn largest(self) -> u8 {
        match self.bits() {
            8 => 255,
            _ => 15,
        }
    }

    /// The code that products take as zero: half of all codes lie below it.
    pub const fn middle(self) -> i32 {
        1 << (self.bits() - 1)
    }
}

/// A matrix in affine groups, outputs first as a checkpoint has it. The last group of an output may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffineRows {
    /// `[outputs, inputs]`, one byte a code.
    pub codes: Vec<u8>,
    /// `[outputs, groups]`, bits of f16; infinite where a group is beyond what f16 can scale.
    pub scales: Vec<u16>,
    /// `[outputs, groups]`, bits of f16; infinite where a value is beyond f16.
    pub offsets: Vec<u16>,
}

impl AffineRows {
    /// Rounds rows of `width` values to codes.
    ///
    /// # Numerics
    /// To the nearest code of the group's grid, in f64: `|value - (code * scale + offset)| <= scale / 2`.
    /// # Panics
    /// If the values are not whole rows.
    pub fn quantize(values: &[f32], width: usize, format: AffineFormat) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "a whole number of rows");
        let groups = width.div_ceil(format.group());
        let mut codes = vec![0; values.len()];
        let mut heads = vec![(0, 0); values.len() / width * groups];
        let rows = codes.par_chunks_mut(width).zip(values.par_chunks(width)).zip(heads.par_chunks_mut(groups));
        rows.for_each(|((codes, values), heads)| {
            let parts = codes.chunks_mut(format.group()).zip(values.chunks(format.group()));
            for ((codes, values), head) in parts.zip(heads) {
                *head = group(values, codes, format);
            }
        });
        let (scales, offsets) = heads.into_iter().unzip();
        Self { codes, scales, offsets }
    }

    /// The values again, `[outputs, inputs]`.
    ///
    /// # Panics
    /// If the lengths are not those of rows of `width` values.
    pub fn to_f32(&self, width: usize, format: AffineFormat) -> Vec<f32> {
        let groups = width.div_ceil(format.group());
        let value = |(at, code): (usize, &u8)| {
            let head = at / width * groups + at % width / format.group();
            f32::from(*code) * from_f16(self.scales[head]) + from_f16(self.offsets[head])
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    /// Groups whose scale or offset is not finite.
    pub fn non_finite(&self) -> usize {
        let beyond = |bits: &u16| bits & 0x7c00 == 0x7c00;
        self.scales.iter().zip(&self.offsets).filter(|(scale, offset)| beyond(scale) || beyond(offset)).count()
    }
}

/// Codes of a group, and its scale and offset.
fn group(values: &[f32], codes: &mut [u8], format: AffineFormat) -> (u16, u16) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let offset_bits = f16_not_above(least);
    let offset = f64::from(from_f16(offset_bits));
    let top = f64::from(format.largest());
    let reach = f64::from(most) - offset;
    let mut scale_bits = f16_not_below((reach / top) as f32);
    // The quotient was rounded to f32.
    while f64::from(from_f16(scale_bits)) * top < reach {
        scale_bits += 1;
    }
    let scale = f64::from(from_f16(scale_bits));
    if scale == 0.0 || !scale.is_finite() || !offset.is_finite() {
        codes.fill(0);
        return (scale_bits, offset_bits);
    }
    for (code, value) in codes.iter_mut().zip(values) {
        let value = f64::from(*value);
        let far = |code: f64| (value - (code * scale + offset)).abs();
        let mut best = ((value - offset) / scale).round_ties_even().clamp(0.0, top);
        for other in [best - 1.0, best + 1.0] {
            // The quotient was rounded: beside a tie the neighbour may be nearer.
            if far(best) > scale / 2.0 && (0.0..=top).contains(&other) && far(other) < far(best) {
                best = other;
            }
        }
        *code = best as u8;
    }
    (scale_bits, offset_bits)
}

/// Bits of an f16 as f32, exactly.
#[inline(always)]
pub fn from_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    if bits & 0x7c00 == 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | u32::from(bits & 0x03ff) << 13);
    }
    // The exponent's bias is 112 less than that of f32; numbers below 2^-14 come out right, too.
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(239 << 23);
    f32::from_bits(size.to_bits() | sign)
}

/// The size cut to an f16.
fn f16_cut(size: f32) -> u16 {
    if size < 2f32.powi(-14) {
        return (size * 16_777_216.0) as u16;
    }
    ((size.to_bits() >> 13).saturating_sub(112 << 10)).min(0x7bff) as u16
}

/// The size as the least f16 that is not below it; infinite beyond the largest.
fn f16_not_below(size: f32) -> u16 {
    let size = size.max(0.0);
    let cut = f16_cut(size);
    if from_f16(cut) < size { cut + 1 } else { cut }
}

/// The largest f16 that is not above a value.
fn f16_not_above(value: f32) -> u16 {
    if value < 0.0 { f16_not_below(-value) | 0x8000 } else { f16_cut(value) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::f16;

    use super::*;

    #[test]
    fn halves_are_read_as_the_crate_reads_them() {
        for bits in 0..=u16::MAX {
            let (own, crates) = (from_f16(bits), f16::from_bits(bits).to_f32());
            assert!(own.to_bits() == crates.to_bits() || own.is_nan() && crates.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn halves_are_rounded_to_the_side_that_is_asked_for() {
        for i in 0..200_000_u32 {
            let value = f32::from_bits(i.wrapping_mul(2_654_435_761));
            if !value.is_finite() {
                continue;
            }
            let below = f16::from_bits(f16_not_above(value)).to_f32();
            assert!(below <= value, "{value}: {below}");
            let above = f16::from_bits(f16_not_below(value.abs())).to_f32();
            assert!(above >= value.abs(), "{value}: {above}");
            // The next one on the other side.
            if (0.0..65_504.0).contains(&value) {
                assert!(f16::from_bits(f16_not_above(value) + 1).to_f32() > value, "{value}");
            }
            if f16_not_below(value.abs()) > 0 {
                assert!(f16::from_bits(f16_not_below(value.abs()) - 1).to_f32() < value.abs(), "{value}");
            }
        }
        assert_eq!((f16_not_above(0.0), f16_not_above(-0.0), f16_not_below(0.0)), (0, 0, 0));
        assert!(f16::from_bits(f16_not_above(-70_000.0)).is_infinite());
    }
}
