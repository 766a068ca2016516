//! What a part of a record must hold: name, shape and role of every tensor, computed from a configuration.
//!
//! One list serves the converter (what to write), the reader (what to refuse) and `inspect` (what to count).

use serde::{Deserialize, Serialize};

use omniburn_kernels::cpu::affine::AffineFormat;
use omniburn_kernels::cpu::pack::{ColumnOrder, PanelFormat, PanelLayout};

use super::int8::scale_name;
use super::types::Dtype;

/// What a tensor is for, which decides the type it is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorRole {
    /// Right-hand side of a matrix product, `[in, out]`: stored in the record's dtype.
    Linear,
    /// Biases, norm gains and small tables: always stored as f32, because they are small and feed f32 arithmetic.
    Exact,
    /// Tables and convolutions, outputs or rows first as in the checkpoint: stored in the record's dtype, computed in
    /// f32.
    Rows,
    /// The token table `[vocab, hidden]`: stored as the checkpoint has it, because its rows are gathered on the host;
    /// in an int8 record, int8.
    Tokens,
    /// Scales of an int8 tensor, one for each of its rows: f16.
    Scale,
}

/// One tensor a part must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Path in the record, which is the module path: `backbone.layers.3.mlp.down_proj.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: TensorRole,
    /// Which columns lie in which panel, where a matrix is stored in panels.
    pub columns: ColumnOrder,
    /// What a checkpoint keeps apart and the record side by side; empty where they are the same tensor.
    pub parts: Vec<SourcePart>,
    /// Whether a checkpoint may have the parts side by side already, under this tensor's own name.
    pub packed: bool,
    /// How the axes lie in a checkpoint.
    pub axes: SourceAxes,
}

/// One of several matrices of a checkpoint that lie side by side in a record: `q_proj` of `qkv_proj`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePart {
    /// Its name in place of the fused one's.
    pub name: String,
    /// Its outputs.
    pub outputs: usize,
    /// Whether the checkpoint has this tensor; zeros where it has not, such as the bias of Whisper's keys.
    pub stored: bool,
}

/// How the axes of a tensor lie in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceAxes {
    /// As PyTorch has them: outputs first for a matrix, and as in the record for anything else.
    #[default]
    Torch,
    /// A matrix as in the record: inputs first.
    InputsFirst,
    /// A one-dimensional convolution `[outputs, channels, taps]`, in the record a matrix over `(tap, channel)`.
    Convolution {
        /// Taps of the convolution.
        taps: usize,
    },
    /// A two-dimensional convolution `[outputs, channels, taps, taps]`, in the record a matrix over `(tap, tap, channel)`.
    Plane {
        /// Taps of the convolution along each axis.
        taps: usize,
    },
    /// A convolution over patches `[outputs, channels, frames, height, width]`, in the record a matrix over all of these.
    Patches {
        /// Channels of a pixel.
        channels: usize,
        /// Frames of a patch.
        frames: usize,
        /// Side of a patch in pixels.
        side: usize,
    },
    /// A convolution over patches of an image `[outputs, channels, height, width]`, in the record a matrix over all of these.
    Image {
        /// Channels of a pixel.
        channels: usize,
        /// Side of a patch in pixels.
        side: usize,
    },
    /// A table `[rows, width]`, of which the record has one row less another: `[width]`.
    RowDifference {
        /// Rows of the table.
        rows: usize,
        /// The row that counts as it is.
        plus: u32,
        /// The row that is taken from it.
        minus: u32,
    },
}

impl TensorSpec {
    /// A matrix of a product, `[inputs, outputs]`.
    pub fn linear(name: impl Into<String>, inputs: usize, outputs: usize) -> Self {
        Self::new(name.into(), vec![inputs, outputs], TensorRole::Linear)
    }

    /// A matrix of a product that is two side by side, gate and up of a gated MLP: `[inputs, 2 * inner]`.
    pub fn gate_up(name: impl Into<String>, inputs: usize, inner: usize) -> Self {
        Self { columns: ColumnOrder::GateUp, ..Self::linear(name, inputs, 2 * inner) }
    }

    fn new(name: String, shape: Vec<usize>, role: TensorRole) -> Self {
        Self {
            name,
            shape,
            role,
            columns: ColumnOrder::Plain,
            parts: Vec::new(),
            packed: false,
            axes: SourceAxes::Torch,
        }
    }

    /// A small tensor kept in f32.
    pub fn exact(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self::new(name.into(), shape.into(), TensorRole::Exact)
    }

    /// A table or convolution, rows or outputs first.
    pub fn rows(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self::new(name.into(), shape.into(), TensorRole::Rows)
    }

    /// A token table.
    pub fn tokens(name: impl Into<String>, vocab: usize, hidden: usize) -> Self {
        Self::new(name.into(), vec![vocab, hidden], TensorRole::Tokens)
    }

    /// Rows of the checkpoint's axis order: outputs of a matrix, first axis of anything else.
    pub fn row_count(&self) -> usize {
        let axis = if self.role == TensorRole::Linear { self.shape.last() } else { self.shape.first() };
        axis.copied().unwrap_or(1)
    }

    /// The type that a record of `dtype` stores it in unless something else is said; a token table of floats stays in the
    /// checkpoint's own.
    ///
    /// Affine groups are for matrices of products. Tables and convolutions of such a record are in int8: token rows are
    /// looked up one by one, and convolutions are few and lose most. With 4 bits, matrices over pixels and frames (convolutions
    /// of a checkpoint, the first that an input meets) are in 8, as are those of fewer than 64 inputs, which a group would pad.
    pub fn stored(&self, dtype: Dtype) -> Dtype {
        match (self.role, dtype) {
            (TensorRole::Exact, _) => Dtype::F32,
            (TensorRole::Scale, _) => Dtype::F16,
            (TensorRole::Rows | TensorRole::Tokens, Dtype::Affine8 | Dtype::Affine4) => Dtype::Int8,
            (TensorRole::Linear, Dtype::Affine4) if !self.fits_four_bits() => Dtype::Affine8,
            (TensorRole::Linear | TensorRole::Rows | TensorRole::Tokens, dtype) => dtype,
        }
    }

    fn fits_four_bits(&self) -> bool {
        let plain = matches!(self.axes, SourceAxes::Torch | SourceAxes::InputsFirst);
        plain && self.shape.first().is_some_and(|inputs| *inputs >= 64)
    }

    /// Whether a record of `dtype` may store it in `stored`.
    pub fn may_be(&self, stored: Dtype, dtype: Dtype) -> bool {
        match self.role {
            TensorRole::Exact | TensorRole::Scale => stored == self.stored(dtype),
            TensorRole::Linear if dtype.is_affine() => stored.is_affine() || Self::WIDER.contains(&stored),
            TensorRole::Rows if dtype.is_affine() => stored == Dtype::Int8 || Self::WIDER.contains(&stored),
            TensorRole::Linear | TensorRole::Rows => stored == dtype,
            TensorRole::Tokens if dtype.is_affine() => !stored.is_affine(),
            TensorRole::Tokens => (stored == Dtype::Int8) == (dtype == Dtype::Int8) && !stored.is_affine(),
        }
    }

    /// Types that a tensor of an affine record may be kept in.
    const WIDER: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

    /// Whether an int8 record stores it in int8.
    pub fn is_quantizable(&self) -> bool {
        matches!(self.role, TensorRole::Linear | TensorRole::Rows | TensorRole::Tokens)
    }

    /// The scales that lie beside it where it is stored in int8.
    pub fn scale(&self) -> Self {
        Self::new(scale_name(&self.name), vec![self.row_count()], TensorRole::Scale)
    }

    /// How the matrix lies in a record that stores it in panels: as its type says, and none where that has none.
    pub fn panels(&self, dtype: Dtype) -> Option<PanelLayout> {
        let format = match dtype {
            Dtype::Bf16 => PanelFormat::Bf16,
            Dtype::Int8 => PanelFormat::Int8,
            Dtype::Affine8 => PanelFormat::Affine(AffineFormat::Eight64),
            Dtype::Affine4 => PanelFormat::Affine(AffineFormat::Four64),
            Dtype::F32 => PanelFormat::F32,
            // For GPUs.
            Dtype::F16 => return None,
        };
        match (self.role, self.shape.as_slice()) {
            (TensorRole::Linear, &[inputs, outputs]) => Some(PanelLayout::new(format, inputs, outputs, self.columns)),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product, &side| product.saturating_mul(side))
    }
}
