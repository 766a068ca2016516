//! Matrices in int8: symmetric, one f16 scale for each row of the checkpoint's own axis order.
//!
//! `value = code * scale`, codes -127 to 127, the scale the largest value of the row divided by 127 and rounded up to
//! f16, so that no code overflows; a row of zeros has the scale 0. Scales lie beside their tensor under the name
//! [`scale_name`] gives.

use burn::tensor::f16;

/// Largest code.
const TOP: f32 = 127.0;
const SCALE_SUFFIX: &str = ".scale";

/// Name of the scales of a tensor.
pub fn scale_name(tensor: &str) -> String {
    format!("{tensor}{SCALE_SUFFIX}")
}

/// Whether a tensor of this name holds another's scales.
pub fn is_scale(name: &str) -> bool {
    name.ends_with(SCALE_SUFFIX)
}

/// Rows as int8 with their scales, both as bytes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Int8Rows {
    /// Codes in the order of the values, two's complement.
    pub codes: Vec<u8>,
    /// One little-endian f16 a row; infinite where a row is beyond what f16 can scale.
    pub scales: Vec<u8>,
}

/// Rows of `width` values to int8.
///
/// # Numerics
/// To the nearest code, ties to even: no value is further than half a step from its own.
/// # Panics
/// If the values are not whole rows.
pub fn quantize(values: &[f32], width: usize) -> Int8Rows {
    assert!(width > 0 && values.len().is_multiple_of(width), "a whole number of rows");
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(2 * (values.len() / width));
    for row in values.chunks_exact(width) {
        let largest = row.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        let scale = rounded_up(largest / TOP);
        let wide = scale.to_f32();
        let code = |v: &f32| if wide == 0.0 { 0 } else { (v / wide).round_ties_even().clamp(-TOP, TOP) as i8 as u8 };
        codes.extend(row.iter().map(code));
        scales.extend(scale.to_le_bytes());
    }
    Int8Rows { codes, scales }
}

/// The least f16 that is not below a value that is not negative.
fn rounded_up(value: f32) -> f16 {
    let near = f16::from_f32(value);
    if near.to_f32() < value { f16::from_bits(near.to_bits() + 1) } else { near }
}

/// The scale of a row.
pub(crate) fn scale_of(scales: &[u8], row: usize) -> f32 {
    f16::from_le_bytes([scales[2 * row], scales[2 * row + 1]]).to_f32()
}

/// All scales.
pub(crate) fn scales(scales: &[u8]) -> Vec<f32> {
    (0..scales.len() / 2).map(|row| scale_of(scales, row)).collect()
}

/// Codes back to values; the scales are of the first axis, or of the last where a matrix lies `[inputs, outputs]`.
pub(crate) fn expand(codes: &[u8], scales: &[u8], of_last_axis: bool) -> Vec<f32> {
    let wide = self::scales(scales);
    let value = |(code, scale): (&u8, &f32)| f32::from(*code as i8) * scale;
    if of_last_axis {
        codes.chunks_exact(wide.len()).flat_map(|row| row.iter().zip(&wide).map(value)).collect()
    } else {
        let width = codes.len() / wide.len();
        codes.iter().enumerate().map(|(i, code)| value((code, &wide[i / width]))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_within_half_a_step_of_their_row() {
        let wave = |i: usize| (i as f32 * 0.731).sin() * 10f32.powi(i as i32 / 60 - 5);
        let values: Vec<f32> = (0..600).map(wave).collect();
        let Int8Rows { codes, scales } = quantize(&values, 60);
        let back = expand(&codes, &scales, false);
        for (i, (value, back)) in values.iter().zip(&back).enumerate() {
            let step = scale_of(&scales, i / 60);
            assert!((value - back).abs() <= step * 0.5001, "{i}: {value} came back as {back}, step {step}");
        }
        assert!(codes.iter().all(|&code| code as i8 != i8::MIN));
    }

    #[test]
    fn zeros_stay_zeros_and_the_largest_value_does_not_overflow() {
        let Int8Rows { codes, scales } = quantize(&[0.0, -0.0, 1.0, -1.0], 2);
        assert_eq!(codes, [0, 0, 127, 129]);
        assert_eq!(scale_of(&scales, 0), 0.0);
        assert!(scale_of(&scales, 1) >= 1.0 / 127.0);
        assert!(scale_of(&quantize(&[1e9], 1).scales, 0).is_infinite());
    }

    #[test]
    fn scales_are_of_either_axis() {
        let scales = [f16::from_f32(1.0), f16::from_f32(2.0)].map(f16::to_le_bytes).concat();
        let codes = [1u8, 2, 3, 255];
        assert_eq!(expand(&codes, &scales, false), [1.0, 2.0, 6.0, -2.0]);
        assert_eq!(expand(&codes, &scales, true), [1.0, 4.0, 3.0, -2.0]);
    }
}
