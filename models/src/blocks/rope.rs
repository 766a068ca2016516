//! Rotary tables: cosines and sines for given positions, computed on the host and never stored.

use burn::tensor::{Device, Tensor};

use crate::batch::upload;

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

impl RotaryTable {
    /// A table for rows with the given angles: `angles[token]` holds `head_dim / 2` values, used by both halves.
    ///
    /// # Numerics
    /// Cosines and sines are taken in f64 of the f32 angle and rounded once, which is at least as close as any f32
    /// library function.
    fn from_angles(angles: impl ExactSizeIterator<Item = Vec<f32>>, head_dim: usize, device: &Device) -> Self {
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
        let head_dim = 2 * frequencies.len();
        let angles = positions.iter().map(|&p| frequencies.iter().map(|f| p as f32 * f).collect());
        Self::from_angles(angles, head_dim, device)
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

    /// The same with rows behind it for filler.
    ///
    /// # Shapes
    /// - returns: `[tokens + filler, head_dim]`
    pub(crate) fn with_filler(self, filler: usize) -> Self {
        if filler == 0 {
            return self;
        }
        let [_, head_dim] = self.cos.dims();
        let zeros = Tensor::zeros([filler, head_dim], (&self.cos.device(), burn::tensor::DType::F32));
        Self { cos: Tensor::cat(vec![self.cos, zeros.clone()], 0), sin: Tensor::cat(vec![self.sin, zeros], 0) }
    }

    /// Cosines and sines, `[tokens, head_dim]` each.
    pub fn tables(&self) -> (Tensor<2>, Tensor<2>) {
        (self.cos.clone(), self.sin.clone())
    }
}
