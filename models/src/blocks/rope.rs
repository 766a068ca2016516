//! Rotary tables: cosines and sines for given positions, computed on the host and never stored.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::upload;
use crate::error::ConfigError;

/// Cosines and sines of one row a token, `[tokens, head_dim]`, both halves alike.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// `base^(-2i/dim)` for `i` in `0..dim/2`, rounded to f32 where torch rounds: the exponent, the power, the quotient.
pub fn inverse_frequencies(base: f64, dim: usize) -> Vec<f32> {
    (0..dim / 2).map(|i| 1.0 / (base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32)).collect()
}

/// The same with fixed NTK scaling: of the base times `factor`, and divided by `factor^(2/dim)`. A factor of one scales
/// nothing.
///
/// # Source
/// Su, "transformers and long texts" (kexue.fm/archives/9706), equation 6, as `NTKScalingRotaryEmbedding` of
/// Alibaba-NLP/new-impl has it.
pub fn ntk_frequencies(base: f64, dim: usize, factor: f64) -> Vec<f32> {
    let shrink = factor.powf(2.0 / dim as f64) as f32;
    inverse_frequencies(base * factor, dim).into_iter().map(|frequency| frequency / shrink).collect()
}

/// How Llama 3.1 stretches rotary positions to longer texts: slow pairs turn `factor` times slower, fast ones as before, those
/// between them in between.
///
/// # Source
/// transformers, `_compute_llama3_parameters` of `modeling_rope_utils`, revision 5.24.0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3Scaling {
    /// How many times slower.
    pub factor: f64,
    /// Pairs that turn less often than this in `original_max_tokens` positions are slow.
    pub low_freq_factor: f64,
    /// Pairs that turn more often than this are fast.
    pub high_freq_factor: f64,
    /// Longest sequence before the stretching.
    pub original_max_tokens: usize,
}

impl Llama3Scaling {
    /// Checks numbers against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        crate::checks::positive("rope_scaling.factor", self.factor)?;
        crate::checks::positive("rope_scaling.low_freq_factor", self.low_freq_factor)?;
        crate::checks::nonzero(&[("rope_scaling.original_max_tokens", self.original_max_tokens)])?;
        if self.high_freq_factor.is_finite() && self.high_freq_factor > self.low_freq_factor {
            return Ok(());
        }
        Err(ConfigError::OutOfRange {
            field: "rope_scaling.high_freq_factor".into(),
            found: self.high_freq_factor.to_string(),
            expected: format!("more than low_freq_factor, {}", self.low_freq_factor),
        })
    }

    /// The stretched form of inverse frequencies.
    ///
    /// # Numerics
    /// f32, rounded after each operation as torch does: what it divides a number by, it takes the reciprocal of.
    pub fn stretched(&self, frequencies: &[f32]) -> Vec<f32> {
        let [factor, low, high] = [self.factor, self.low_freq_factor, self.high_freq_factor].map(|x| x as f32);
        let original = self.original_max_tokens as f32;
        let lengths =
            [self.low_freq_factor, self.high_freq_factor].map(|turns| self.original_max_tokens as f64 / turns);
        let [slow, fast] = lengths.map(|length| length as f32);
        let one = |&frequency: &f32| {
            let wavelength = (1.0 / frequency) * (2.0 * std::f64::consts::PI) as f32;
            if wavelength > slow {
                frequency / factor
            } else if wavelength < fast {
                frequency
            } else {
                let smooth = ((1.0 / wavelength) * original - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        };
        frequencies.iter().map(one).collect()
    }
}

impl RotaryTable {
    /// A table for rows with the given angles: `angles[token]` holds `head_dim / 2` values, used by both halves.
    ///
    /// # Numerics
    /// Cosines and sines are taken in f64 of the f32 angle and rounded once, which is at least as close as any f32
    /// library function.
    pub(super) fn from_angles(
        angles: impl ExactSizeIterator<Item = Vec<f32>>,
        head_dim: usize,
        device: &Device,
    ) -> Self {
        let tokens = angles.len();
        let (mut cos, mut sin) = (Vec::with_capacity(tokens * head_dim), Vec::with_capacity(tokens * head_dim));
        for row in angles {
            debug_assert_eq!(row.len() * 2, head_dim);
            let from = cos.len();
            for angle in row {
                let (s, c) = f64::from(angle).sin_cos();
                sin.push(s as f32);
                cos.push(c as f32);
            }
            // Both halves are alike.
            cos.extend_from_within(from..);
            sin.extend_from_within(from..);
        }
        Self { cos: upload(cos, [tokens, head_dim], device), sin: upload(sin, [tokens, head_dim], device) }
    }

    /// One position a row over the whole head: text, and media rows in the backbone.
    ///
    /// # Shapes
    /// - returns: `[positions, head_dim]`
    /// # Source
    /// transformers, `Qwen3RotaryEmbedding`; positions are plain and consecutive for media too, which equals M-RoPE
    /// with three equal axes.
    pub fn sequence(positions: &[usize], head_dim: usize, base: f64, device: &Device) -> Self {
        Self::with_frequencies(positions, &inverse_frequencies(base, head_dim), device)
    }

    /// The same with the frequency of each pair of a head.
    ///
    /// # Shapes
    /// - `frequencies`: `[head_dim / 2]`; returns: `[positions, head_dim]`
    pub fn with_frequencies(positions: &[usize], frequencies: &[f32], device: &Device) -> Self {
        let angles = positions.iter().map(|&p| frequencies.iter().map(|f| p as f32 * f).collect());
        Self::from_angles(angles, 2 * frequencies.len(), device)
    }

    /// Two coordinates a row, each over a quarter of the head's pairs: `[row * f, column * f]`.
    ///
    /// # Shapes
    /// - returns: `[coordinates, head_dim]`
    /// # Source
    /// transformers, `Qwen3VLVisionRotaryEmbedding`: frequencies for `head_dim / 2`.
    pub fn plane(coordinates: &[(usize, usize)], head_dim: usize, base: f64, device: &Device) -> Self {
        let frequencies = inverse_frequencies(base, head_dim / 2);
        let angles = coordinates.iter().map(|&(row, column)| {
            [row, column].iter().flat_map(|&c| frequencies.iter().map(move |f| c as f32 * f)).collect()
        });
        Self::from_angles(angles, head_dim, device)
    }

    /// The same with rows behind it for padding.
    ///
    /// # Shapes
    /// - returns: `[tokens + padding, head_dim]`
    pub(crate) fn with_padding(self, padding: usize) -> Self {
        if padding == 0 {
            return self;
        }
        let [_, head_dim] = self.cos.dims();
        let zeros = Tensor::zeros([padding, head_dim], (&self.cos.device(), burn::tensor::DType::F32));
        Self { cos: Tensor::cat(vec![self.cos, zeros.clone()], 0), sin: Tensor::cat(vec![self.sin, zeros], 0) }
    }

    /// Cosines and sines, `[tokens, head_dim]` each.
    pub fn tables(&self) -> (Tensor<2>, Tensor<2>) {
        (self.cos.clone(), self.sin.clone())
    }
}
