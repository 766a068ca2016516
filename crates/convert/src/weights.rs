//! A file of weights, whatever its format, and what a file's writer did to a tensor that is undone as it is read.

use std::collections::BTreeMap;
use std::path::Path;

use omniburn_models::record::Dtype;

use crate::error::ConvertError;
use crate::gguf::reader::GgufFile;
use crate::layout;
use crate::safefile::{SafeFile, StoredTensor};

/// A file of weights.
#[derive(Debug)]
pub(crate) enum WeightFile {
    /// Safetensors.
    Safe(SafeFile),
    /// GGUF.
    Gguf(GgufFile),
}

impl WeightFile {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            WeightFile::Safe(file) => file.path(),
            WeightFile::Gguf(file) => file.path(),
        }
    }

    /// Tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        match self {
            WeightFile::Safe(file) => &file.tensors,
            WeightFile::Gguf(file) => &file.tensors,
        }
    }

    /// The same to be changed.
    pub fn tensors_mut(&mut self) -> &mut BTreeMap<String, StoredTensor> {
        match self {
            WeightFile::Safe(file) => &mut file.tensors,
            WeightFile::Gguf(file) => &mut file.tensors,
        }
    }

    /// The file as safetensors.
    ///
    /// # Panics
    /// If it is none: what asks for it was made of safetensors.
    pub fn safe(&self) -> &SafeFile {
        match self {
            WeightFile::Safe(file) => file,
            WeightFile::Gguf(file) => panic!("{}: not safetensors", file.path().display()),
        }
    }

    /// Bytes of a tensor with their type; NaN and infinite values are an error.
    ///
    /// # Panics
    /// If the tensor is not in the file or its type is not read.
    pub fn read(&self, own: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        match self {
            WeightFile::Safe(file) => file.read(own),
            WeightFile::Gguf(file) => file.read(own),
        }
    }

    /// Number of NaN and infinite values in a tensor.
    ///
    /// # Panics
    /// As [`WeightFile::read`].
    pub fn non_finite(&self, own: &str) -> Result<usize, ConvertError> {
        match self {
            WeightFile::Safe(file) => file.non_finite(own),
            WeightFile::Gguf(file) => file.non_finite(own),
        }
    }
}

/// How the 8 bits of a value are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eight {
    /// A float of four bits of exponent and three of mantissa, without infinity.
    E4m3,
    /// A whole number.
    Int8,
}

impl Eight {
    /// The name safetensors has for it.
    pub fn name(self) -> &'static str {
        match self {
            Eight::E4m3 => "F8_E4M3",
            Eight::Int8 => "I8",
        }
    }

    /// Of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Eight::E4m3, Eight::Int8].into_iter().find(|eight| eight.name() == name)
    }

    /// The number a byte stands for.
    pub fn value(self, byte: u8) -> f32 {
        match self {
            Eight::Int8 => f32::from(byte as i8),
            Eight::E4m3 => {
                let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
                let size = match (exponent, byte & 7) {
                    (15, 7) => f32::NAN,
                    (0, _) => mantissa * 2f32.powi(-6),
                    _ => (1.0 + mantissa) * 2f32.powi(exponent - 7),
                };
                if byte & 0x80 == 0 { size } else { -size }
            }
        }
    }
}

/// What a file's writer did to a tensor, and is undone as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowChange {
    /// The rows of each head lie in pairs of what is rotated together: halves of a head follow each other again.
    FromPairs {
        /// Heads.
        heads: usize,
    },
    /// 1 was added to each value.
    LessOne,
    /// Values of 8 bits with scales beside them.
    Scaled(Scaled),
}

/// Values of 8 bits: each less a zero point, times a scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// How the 8 bits are read.
    pub eight: Eight,
    /// Rows and columns that share a scale.
    pub block: [usize; 2],
    /// The tensor of scales, by canonical name.
    pub scale: String,
    /// The tensor of zero points, of the same shape.
    pub zero: Option<String>,
}

impl RowChange {
    /// Why a tensor of this shape cannot be so changed.
    pub fn fault(&self, shape: &[usize]) -> Option<String> {
        match (self, shape.first()) {
            (RowChange::FromPairs { heads }, Some(&rows)) if rows > 0 && rows % (2 * heads) == 0 => None,
            (RowChange::FromPairs { heads }, _) => {
                Some(format!("{shape:?}, which are not the rows of {heads} heads in pairs"))
            }
            (RowChange::LessOne | RowChange::Scaled(_), _) => None,
        }
    }
}

/// Rows of heads whose halves follow each other, of rows that lie in pairs.
///
/// # Shapes
/// - `values`: `[rows, …]`; `rows` is a multiple of twice the heads
pub(crate) fn from_pairs(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    layout::permute(values, &[heads, rows / heads / 2, 2, values.len() / rows], &[0, 2, 1, 3])
}

impl Scaled {
    /// The values, in f32.
    ///
    /// # Shapes
    /// - `bytes`: `[rows, columns]`; `scales`, `zeros`: one a block
    pub fn values(&self, bytes: &[u8], columns: usize, scales: &[f32], zeros: Option<&[f32]>) -> Vec<f32> {
        let [block_rows, block_columns] = self.block;
        let across = columns.div_ceil(block_columns);
        let table: Vec<f32> = (0..=255).map(|byte| self.eight.value(byte)).collect();
        let value = |(at, byte): (usize, &u8)| {
            let block = at / columns / block_rows * across + at % columns / block_columns;
            (table[usize::from(*byte)] - zeros.map_or(0.0, |zeros| zeros[block])) * scales[block]
        };
        bytes.iter().enumerate().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_is_read_as_its_specification_has_it() {
        let cases = [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 0.875 * 2f32.powi(-6)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x3C, 1.5),
            (0x7E, 448.0),
            (0xFE, -448.0),
            (0xB8, -1.0),
        ];
        for (byte, value) in cases {
            assert_eq!(Eight::E4m3.value(byte), value, "{byte:#x}");
        }
        assert!(Eight::E4m3.value(0x7F).is_nan() && Eight::E4m3.value(0xFF).is_nan());
        assert_eq!(Eight::E4m3.value(0x80).to_bits(), (-0.0f32).to_bits());
        assert_eq!([0x80, 0x7F, 0xFF].map(|byte| Eight::Int8.value(byte)), [-128.0, 127.0, -1.0]);
    }

    #[test]
    fn blocks_at_the_edge_are_smaller_and_zero_points_come_first() {
        let change = Scaled { eight: Eight::Int8, block: [2, 2], scale: String::new(), zero: None };
        let bytes: Vec<u8> = (0..9).collect();
        let values = change.values(&bytes, 3, &[1.0, 10.0, 100.0, 1000.0], Some(&[0.0, 1.0, 0.0, 8.0]));
        assert_eq!(values, [0.0, 1.0, 10.0, 3.0, 4.0, 40.0, 600.0, 700.0, 0.0]);
    }

    #[test]
    fn pairs_become_halves_again() {
        // Two heads of four rows: 0 and 2 were halves' firsts.
        let values: Vec<f32> = [0, 2, 1, 3, 4, 6, 5, 7].map(|n| n as f32).to_vec();
        assert_eq!(from_pairs(&values, 8, 2), [0, 1, 2, 3, 4, 5, 6, 7].map(|n| n as f32));
    }
}
