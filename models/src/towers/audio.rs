//! The sound tower's configuration and the tensors a record holds for it.
//!
//! Records carry the sound tower from the first day; the forward pass over mel frames is not built yet, and the
//! engine refuses sound by name until it is.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::families::{multiple, nonzero, positive};
use crate::record::{TensorSpec, layer_norm, linear_bias};

/// Taps of a stem convolution.
pub const CONV_TAPS: usize = 3;

/// Shape and constants of the sound tower; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Half the frames of a window: a window is `2 * n_window` mel frames.
    pub n_window: usize,
    /// Mel bands.
    pub mels: usize,
    /// Rows of the computed position table.
    pub max_positions: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
}

impl AudioConfig {
    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        nonzero(&[
            ("audio.hidden", self.hidden),
            ("audio.layers", self.layers),
            ("audio.heads", self.heads),
            ("audio.inner", self.inner),
            ("audio.n_window", self.n_window),
            ("audio.mels", self.mels),
            ("audio.max_positions", self.max_positions),
        ])?;
        multiple("audio.hidden", self.hidden, "audio.heads", self.heads)?;
        multiple("audio.hidden", self.hidden, "sine and cosine halves", 2)?;
        positive("audio.norm_eps", self.norm_eps)
    }

    /// Every tensor of the tower under `prefix`. Convolutions lie as products over rows `(tap, channel)`; the fused
    /// bias of q, k, v has zeros for k, which the checkpoints do not bias.
    pub fn tensors(&self, prefix: &str) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        specs.extend(linear_bias(&format!("{prefix}.conv1"), CONV_TAPS * self.mels, self.hidden));
        specs.extend(linear_bias(&format!("{prefix}.conv2"), CONV_TAPS * self.hidden, self.hidden));
        for i in 0..self.layers {
            let layer = format!("{prefix}.layers.{i}");
            specs.extend(layer_norm(&format!("{layer}.self_attn_layer_norm"), self.hidden));
            specs.extend(linear_bias(&format!("{layer}.self_attn.qkv_proj"), self.hidden, 3 * self.hidden));
            specs.extend(linear_bias(&format!("{layer}.self_attn.out_proj"), self.hidden, self.hidden));
            specs.extend(layer_norm(&format!("{layer}.final_layer_norm"), self.hidden));
            specs.extend(linear_bias(&format!("{layer}.fc1"), self.hidden, self.inner));
            specs.extend(linear_bias(&format!("{layer}.fc2"), self.inner, self.hidden));
        }
        specs.extend(layer_norm(&format!("{prefix}.ln_post"), self.hidden));
        specs
    }
}
