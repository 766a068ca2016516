//! Packed types of GGUF, widened to f32 in the order of operations that the format's own library takes.
//!
//! Source: `ggml-quants.c` of ggml, `dequantize_row_*`, and the package `gguf` 0.19, `quants.py`, which is the oracle of the
//! tests.

use half::f16;
use omniburn_models::record::affine::{AffineFormat, AffineRows};
use rayon::prelude::*;

/// Widens one block.
type Widen = fn(&[u8], &mut [f32]);

/// The types that are read: name, bytes of a block, values of a block, and how it is widened.
const READ: [(&str, usize, usize, Widen); 8] = [
    ("Q4_0", 18, 32, q4_0),
    ("Q4_1", 20, 32, q4_1),
    ("Q5_0", 22, 32, q5_0),
    ("Q5_1", 24, 32, q5_1),
    ("Q8_0", 34, 32, q8_0),
    ("Q4_K", 144, 256, q4_k),
    ("Q5_K", 176, 256, q5_k),
    ("Q6_K", 210, 256, q6_k),
];

/// Whether a type is read.
pub(super) fn is_read(kind: &str) -> bool {
    READ.iter().any(|(name, ..)| *name == kind)
}

/// Values of whole blocks.
///
/// # Panics
/// If the type is not one of those that are read.
pub(super) fn widen(kind: &str, bytes: &[u8]) -> Vec<f32> {
    let found = READ.iter().find(|(name, ..)| *name == kind);
    let &(_, size, count, block) = found.unwrap_or_else(|| panic!("{kind} is not read"));
    let mut values = vec![0.0; bytes.len() / size * count];
    values.par_chunks_exact_mut(count).zip(bytes.par_chunks_exact(size)).for_each(|(to, from)| block(from, to));
    values
}

/// The affine groups that a type's blocks are to the bit; `None` for a type that is none.
pub(super) fn affine_format(kind: &str) -> Option<AffineFormat> {
    match kind {
        "Q8_0" => Some(AffineFormat::Eight32),
        "Q4_0" | "Q4_1" => Some(AffineFormat::Four32),
        _ => None,
    }
}

/// Whole blocks as affine groups, whose values are those of [`widen`] to the bit. Signed codes become such from 0 on, and the
/// offset is the scale times a power of two, which f16 holds exactly.
///
/// # Panics
/// If the type has no [`affine_format`].
pub(super) fn affine(kind: &str, bytes: &[u8]) -> AffineRows {
    let word = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let times = |bits: u16, factor: f32| f16::from_f32(f16::from_bits(bits).to_f32() * factor).to_bits();
    let (mut codes, mut scales, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    let size = READ.iter().find(|(name, ..)| *name == kind).map_or(1, |(_, size, ..)| *size);
    for block in bytes.chunks_exact(size) {
        let scale = word(block, 0);
        scales.push(scale);
        match kind {
            "Q8_0" => {
                offsets.push(times(scale, -128.0));
                codes.extend(block[2..].iter().map(|code| code ^ 0x80));
            }
            "Q4_0" => {
                offsets.push(times(scale, -8.0));
                codes.extend((0..32).map(|index| nibble(&block[2..], index)));
            }
            "Q4_1" => {
                offsets.push(word(block, 2));
                codes.extend((0..32).map(|index| nibble(&block[4..], index)));
            }
            _ => panic!("{kind} is no affine type"),
        }
    }
    AffineRows { codes, scales, offsets }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low halves of 16 bytes, then their high halves.
fn nibble(codes: &[u8], index: usize) -> u8 {
    let half = codes.len();
    if index < half { codes[index] & 0x0F } else { codes[index - half] >> 4 }
}

fn q4_0(block: &[u8], to: &mut [f32]) {
    let scale = half(block, 0);
    for (index, value) in to.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[2..], index) as i8 - 8);
    }
}

fn q4_1(block: &[u8], to: &mut [f32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (index, value) in to.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[4..], index)) + least;
    }
}

/// The fifth bit of a value, of 32 in four bytes.
fn fifth(bits: &[u8], index: usize) -> u8 {
    (bits[index / 8] >> (index % 8) & 1) << 4
}

fn q5_0(block: &[u8], to: &mut [f32]) {
    let scale = half(block, 0);
    for (index, value) in to.iter_mut().enumerate() {
        let code = nibble(&block[6..], index) | fifth(&block[2..6], index);
        *value = scale * f32::from(code as i8 - 16);
    }
}

fn q5_1(block: &[u8], to: &mut [f32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (index, value) in to.iter_mut().enumerate() {
        let code = nibble(&block[8..], index) | fifth(&block[4..8], index);
        *value = scale * f32::from(code) + least;
    }
}

fn q8_0(block: &[u8], to: &mut [f32]) {
    let scale = half(block, 0);
    for (value, &code) in to.iter_mut().zip(&block[2..]) {
        *value = f32::from(code as i8) * scale;
    }
}

/// Scale and minimum, six bits each, of one of the eight groups of a block.
fn scale_and_least(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let shared = packed[group + 4];
        (shared & 0x0F | packed[group - 4] >> 6 << 4, shared >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

fn q4_k(block: &[u8], to: &mut [f32]) {
    k_groups(block, to, &block[16..], |_, _| 0);
}

fn q5_k(block: &[u8], to: &mut [f32]) {
    let high = &block[16..48];
    k_groups(block, to, &block[48..], |group, index| (high[index] >> group & 1) << 4);
}

/// Eight groups of 32 values; two groups share the bytes of their codes.
fn k_groups(block: &[u8], to: &mut [f32], codes: &[u8], fifth: impl Fn(usize, usize) -> u8) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (group, values) in to.chunks_exact_mut(32).enumerate() {
        let (own_scale, own_least) = scale_and_least(&block[4..16], group);
        let (scale, least) = (scale * own_scale, least * own_least);
        let codes = &codes[group / 2 * 32..][..32];
        for (index, value) in values.iter_mut().enumerate() {
            let code = codes[index] >> (group % 2 * 4) & 0x0F | fifth(group, index);
            *value = scale * f32::from(code) - least;
        }
    }
}

fn q6_k(block: &[u8], to: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half(block, 208);
    for (index, value) in to.iter_mut().enumerate() {
        // Halves of 128 values, each in four groups of 32.
        let (part, group, at) = (index / 128, index % 128 / 32, index % 32);
        let low = low[part * 64 + group % 2 * 32 + at] >> (group / 2 * 4) & 0x0F;
        let high = high[part * 32 + at] >> (group * 2) & 3;
        let code = (low | high << 4) as i8 - 32;
        *value = scale * f32::from(scales[index / 16] as i8) * f32::from(code);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Block {
        kind: String,
        bytes: String,
        bits: Vec<u32>,
    }

    /// Two random blocks of each type, and their values as the package `gguf` reads them, bit for bit.
    #[test]
    fn every_type_is_widened_as_its_own_library_does() {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let golden = std::fs::read(Path::new(&folder).join("../../tests/golden/refs/gguf-blocks.json")).unwrap();
        let blocks: Vec<Block> = serde_json::from_slice(&golden).unwrap();
        assert_eq!(blocks.len(), READ.len());
        for Block { kind, bytes, bits } in blocks {
            let digits = |at: usize| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..bytes.len()).step_by(2).map(digits).collect();
            let values = widen(&kind, &bytes);
            assert_eq!(values.len(), bits.len(), "{kind}");
            for (at, (value, bits)) in values.iter().zip(bits).enumerate() {
                assert_eq!(value.to_bits(), bits, "{kind}[{at}]: {value} and {}", f32::from_bits(bits));
            }
            if let Some(format) = affine_format(&kind) {
                assert_eq!(affine(&kind, &bytes).to_f32(values.len(), format), values, "{kind} as affine groups");
            }
        }
    }
}
