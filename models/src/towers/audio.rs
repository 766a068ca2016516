//! The audio tower: mel frames in, one row for each four of them out.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use omniburn_kernels::{Activation, Segments};
use serde::{Deserialize, Serialize};

use crate::batch::{MelRows, upload};
use crate::blocks::attention::self_attention;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::taps::Taps;
use crate::blocks::{LayerNorm, Linear};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::error::ConfigError;
use crate::flops;
use crate::record::SourceAxes;

/// Taps of a stem convolution.
pub const CONV_TAPS: usize = 3;

/// The towers' activation everywhere.
pub(super) const GELU: Activation = Activation::GeluErf;

/// Longest wavelength of the position table over the shortest, as published.
const POSITION_TIMESCALE: f64 = 10_000.0;

/// Shape and constants of the audio tower; plain data without defaults.
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
    /// Mel frames of a window; the last window of a clip may be shorter.
    pub fn window_frames(&self) -> usize {
        2 * self.n_window
    }

    /// Lengths in frames of the windows of a clip.
    pub fn windows(&self, frames: usize) -> Vec<usize> {
        let window = self.window_frames();
        let tail = frames % window;
        let mut windows = vec![window; frames / window];
        windows.extend((tail > 0).then_some(tail));
        windows
    }

    /// Rows that the tower makes of a window: the second convolution has stride 2.
    pub fn window_rows(frames: usize) -> usize {
        frames.div_ceil(2)
    }

    /// Rows of the backbone that a clip gives: pairs of tower rows, an odd last one left out. No row comes of fewer
    /// than three frames.
    pub fn features(&self, frames: usize) -> usize {
        self.windows(frames).into_iter().map(Self::window_rows).sum::<usize>() / 2
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        layer_count("audio.layers", self.layers)?;
        nonzero(&[
            ("audio.hidden", self.hidden),
            ("audio.heads", self.heads),
            ("audio.inner", self.inner),
            ("audio.n_window", self.n_window),
            ("audio.mels", self.mels),
            ("audio.max_positions", self.max_positions),
        ])?;
        multiple("audio.hidden", self.hidden, "audio.heads", self.heads)?;
        multiple("audio.hidden", self.hidden, "sine and cosine halves", 2)?;
        if self.hidden < 4 {
            // The frequencies are spread over one less than half the width.
            return Err(ConfigError::OutOfRange {
                field: "audio.hidden".into(),
                found: self.hidden.to_string(),
                expected: "4 or more".into(),
            });
        }
        if self.n_window > self.max_positions {
            return Err(ConfigError::OutOfRange {
                field: "audio.n_window".into(),
                found: self.n_window.to_string(),
                expected: format!("at most audio.max_positions, {}", self.max_positions),
            });
        }
        positive("audio.norm_eps", self.norm_eps)
    }
}

/// A pass of an [`AudioTower`] between two of its layers.
#[derive(Debug)]
pub struct AudioPass {
    hidden: Tensor<2>,
    segments: Segments,
    next: usize,
}

/// Two convolutions and pre-norm blocks over windows of frames, each window attending to itself alone.
///
/// A Whisper encoder is the same with one window a clip: `n_window` of 1500 takes 30 s whole, and [`AudioTower::normed`]
/// stands in place of [`AudioTower::pool`].
///
/// # Source
/// transformers, `Qwen2_5OmniAudioEncoder`, revision 5.23.0, without its output projection; Radford et al. 2022
/// (arXiv 2212.04356) for the stem and the positions.
#[derive(Module, Debug)]
pub struct AudioTower {
    conv1: Linear,
    conv2: Linear,
    layers: Vec<AudioLayer>,
    ln_post: LayerNorm,
    positions: Param<Tensor<2>>,
    #[module(skip)]
    config: AudioConfig,
}

/// Sizes of an [`AudioLayer`].
#[derive(Debug, Clone, Copy)]
pub(super) struct AudioLayerSizes {
    pub hidden: usize,
    pub heads: usize,
    pub inner: usize,
    pub norm_eps: f64,
    /// Whether keys have a bias, which Whisper's do not.
    pub key_bias: bool,
}

/// A pre-norm block of audio towers.
#[derive(Module, Debug)]
pub(super) struct AudioLayer {
    self_attn_layer_norm: LayerNorm,
    qkv_proj: Linear,
    out_proj: Linear,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl AudioTower {
    /// The tower. Convolutions lie as products over rows `(tap, channel)`; the fused bias of q, k, v has zeros for k, which
    /// checkpoints do not bias.
    pub fn build(config: &AudioConfig, b: &Builder<'_>) -> Self {
        let (hidden, axes) = (config.hidden, SourceAxes::Convolution { taps: CONV_TAPS });
        let AudioConfig { heads, inner, norm_eps, .. } = *config;
        let sizes = AudioLayerSizes { hidden, heads, inner, norm_eps, key_bias: false };
        let layer = |i| b.at(format!("layers.{i}"), |b| AudioLayer::build(sizes, b));
        Self {
            conv1: b.convolution("conv1", CONV_TAPS * config.mels, hidden, axes),
            conv2: b.convolution("conv2", CONV_TAPS * hidden, hidden, axes),
            layers: (0..config.layers).map(layer).collect(),
            ln_post: b.layer_norm("ln_post", hidden, config.norm_eps),
            positions: b.computed([config.n_window, hidden], |device| positions(config.n_window, hidden, device)),
            config: config.clone(),
        }
    }

    /// Operations on one clip of this many mel frames.
    pub fn flops(&self, frames: usize) -> u64 {
        let windows: Vec<usize> = self.config.windows(frames).into_iter().map(AudioConfig::window_rows).collect();
        let rows = windows.iter().sum();
        let pairs = windows.iter().map(|&rows| rows * rows).sum();
        let layers = self.layers.iter().map(|layer| layer.flops(rows, pairs)).sum::<u64>();
        self.conv1.flops(frames) + self.conv2.flops(rows) + layers
    }

    /// f32 values alive a mel frame in the widest step: both gathers of the stem, its two results, and half a row of a block.
    pub fn frame_values(&self) -> usize {
        let AudioConfig { mels, hidden, inner, .. } = self.config;
        5 * mels + 4 * hidden + (5 * hidden + (9 * hidden).max(4 * inner)).div_ceil(2)
    }

    /// Its configuration.
    pub fn config(&self) -> &AudioConfig {
        &self.config
    }

    /// Rows of packed windows, of one clip or of many; windows never see each other, so a long clip may come in pieces.
    ///
    /// # Shapes
    /// - `input.rows`: `[frames, mels]`; returns: `[rows, hidden]`, half the frames of each window, rounded up
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type. A window has zeros on both
    /// sides in both convolutions: a short last window is not the beginning of a full one.
    pub fn forward(&self, input: MelRows) -> Tensor<2> {
        let mut pass = self.begin(input);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two layers; [`AudioTower::forward`] is all of its steps.
    ///
    /// # Shapes
    /// As [`AudioTower::forward`].
    pub fn begin(&self, input: MelRows) -> AudioPass {
        let MelRows { rows, windows } = input;
        let (stemmed, lengths) = self.stem(rows, &windows);
        let hidden = stemmed + self.positions_of(&lengths);
        let hidden = capture::pass(|| "audio.stem".into(), hidden);
        let (hidden, segments) = with_padding(hidden, Segments::from_lengths(lengths));
        AudioPass { hidden, segments, next: 0 }
    }

    /// Runs one more layer.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: AudioPass) -> AudioPass {
        let AudioPass { hidden, segments, next } = pass;
        let hidden = self.layers[next].forward(hidden, &segments, next);
        let hidden = capture::pass(|| format!("audio.layers.{next}"), hidden);
        AudioPass { hidden, segments, next: next + 1 }
    }

    /// Whether every layer has run.
    pub fn is_done(&self, pass: &AudioPass) -> bool {
        pass.next == self.layers.len()
    }

    /// The rows of a pass whose layers have all run, `[rows, hidden]`.
    pub fn finish(&self, pass: AudioPass) -> Tensor<2> {
        without_padding(pass.hidden, &pass.segments)
    }

    /// The rows of one clip, brought to what the connector reads: means of pairs, then the last norm.
    ///
    /// # Shapes
    /// - `rows`: `[rows, hidden]`, all windows of the clip in order; returns: `[rows / 2, hidden]`
    /// # Panics
    /// At fewer than two rows, of which no pair can be made.
    pub fn pool(&self, rows: Tensor<2>) -> Tensor<2> {
        let pooled = self.ln_post.forward(pair_means(rows));
        capture::pass(|| "audio.ln_post".into(), pooled)
    }

    /// The rows after the last norm, without means of pairs: what an encoder of the plain Whisper kind gives.
    ///
    /// # Shapes
    /// - `rows`: `[rows, hidden]`; returns: as `rows`
    pub fn normed(&self, rows: Tensor<2>) -> Tensor<2> {
        let normed = self.ln_post.forward(rows);
        capture::pass(|| "audio.ln_post".into(), normed)
    }

    /// Both convolutions as products over gathered rows, and the rows of each window afterwards.
    fn stem(&self, rows: Tensor<2>, windows: &[usize]) -> (Tensor<2>, Vec<usize>) {
        let [frames, _] = rows.dims();
        assert_eq!(windows.iter().sum::<usize>(), frames, "windows must cover the frames");
        let (mut first, mut second, mut lengths) = (Taps::new(CONV_TAPS), Taps::new(CONV_TAPS), Vec::new());
        let mut start = 0;
        for &len in windows {
            assert!(
                len > 0 && len <= self.config.window_frames(),
                "a window has 1 to {} frames",
                2 * self.config.n_window
            );
            first.window(start, len, len, 1);
            let rows = AudioConfig::window_rows(len);
            second.window(start, len, rows, 2);
            lengths.push(rows);
            start += len;
        }
        let hidden = self.conv1.activated(first.gather(rows), GELU);
        let hidden = capture::pass(|| "audio.conv1".into(), hidden);
        let hidden = self.conv2.activated(second.gather(hidden), GELU);
        let hidden = capture::pass(|| "audio.conv2".into(), hidden);
        (hidden, lengths)
    }

    /// Position rows, from the first one on in every window.
    fn positions_of(&self, lengths: &[usize]) -> Tensor<2> {
        let table = self.positions.val();
        let pieces = lengths.iter().map(|&len| table.clone().slice_dim(0, 0..len)).collect();
        Tensor::cat(pieces, 0)
    }
}

/// Means of neighbouring rows; an odd last row is left out.
fn pair_means(rows: Tensor<2>) -> Tensor<2> {
    let [count, width] = rows.dims();
    let pairs = count / 2;
    assert!(pairs > 0, "no pair can be made of {count} rows");
    let pairs = rows.slice_dim(0, 0..2 * pairs).reshape([pairs, 2 * width]);
    (pairs.clone().slice_dim(1, 0..width) + pairs.slice_dim(1, width..2 * width)) * 0.5
}

/// Rows of the sinusoid table: sines, then cosines, `[rows, hidden]`.
///
/// # Numerics
/// Frequencies and angles are rounded to f32 as torch does; sine and cosine of the rounded angle in f64, rounded once.
/// # Source
/// transformers, `SinusoidsPositionEmbedding`, revision 5.23.0.
pub(super) fn positions(rows: usize, hidden: usize, device: &Device) -> Tensor<2> {
    let half = hidden / 2;
    let step = (POSITION_TIMESCALE.ln() / (half as f64 - 1.0)) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (-step * i as f32).exp()).collect();
    let mut values = Vec::with_capacity(rows * hidden);
    for row in 0..rows {
        let angles = || frequencies.iter().map(|f| f64::from(row as f32 * f));
        values.extend(angles().map(|a| a.sin() as f32));
        values.extend(angles().map(|a| a.cos() as f32));
    }
    upload(values, [rows, hidden], device)
}

impl AudioLayer {
    pub(super) fn build(sizes: AudioLayerSizes, b: &Builder<'_>) -> Self {
        let AudioLayerSizes { hidden, inner, norm_eps, heads, key_bias } = sizes;
        let part = |name, biased| FusedPart { name, outputs: hidden, biased };
        let qkv = [part("q_proj", true), part("k_proj", key_bias), part("v_proj", true)];
        Self {
            self_attn_layer_norm: b.layer_norm("self_attn_layer_norm", hidden, norm_eps),
            qkv_proj: b.fused("self_attn.qkv_proj", hidden, &qkv),
            out_proj: b.linear_biased("self_attn.out_proj", hidden, hidden),
            final_layer_norm: b.layer_norm("final_layer_norm", hidden, norm_eps),
            fc1: b.linear_biased("fc1", hidden, inner),
            fc2: b.linear_biased("fc2", inner, hidden),
            heads,
        }
    }

    pub(super) fn flops(&self, rows: usize, pairs: usize) -> u64 {
        let products = [&self.qkv_proj, &self.out_proj, &self.fc1, &self.fc2];
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + flops::attention(pairs, self.out_proj.inputs())
    }

    pub(super) fn forward(&self, hidden: Tensor<2>, segments: &Segments, index: usize) -> Tensor<2> {
        let normed = self.self_attn_layer_norm.forward_for(hidden.clone(), &self.qkv_proj);
        let context = self_attention(&self.qkv_proj, normed, self.heads, segments, None, &self.out_proj);
        let context = capture::pass(|| format!("audio.layers.{index}.context"), context);
        let hidden = self.out_proj.forward_onto(context, hidden);
        let normed = self.final_layer_norm.forward_for(hidden.clone(), &self.fc1);
        let inner = self.fc1.forward_into(normed, GELU, &self.fc2);
        self.fc2.forward_onto(inner, hidden)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn a_clip_is_cut_into_whole_windows_and_a_rest() {
        let config = AudioConfig {
            hidden: 8,
            layers: 1,
            heads: 2,
            inner: 8,
            n_window: 25,
            mels: 4,
            max_positions: 100,
            norm_eps: 1e-5,
        };
        assert_eq!(config.windows(50), [50]);
        assert_eq!(config.windows(101), [50, 50, 1]);
        assert_eq!(config.windows(49), [49]);
        assert_eq!([1, 2, 3, 4, 5, 100, 103].map(|f| config.features(f)), [0, 0, 1, 1, 1, 25, 26]);
    }

    #[test]
    fn pairs_are_averaged_and_an_odd_row_is_left_out() {
        let device = Device::flex();
        let rows = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 2.0, 3.0, 6.0, 9.0, 9.0], [3, 2]), &device);
        let means: Vec<f32> = pair_means(rows).into_data().try_to_vec().unwrap();
        assert_eq!(means, [2.0, 4.0]);
    }

    #[test]
    fn positions_are_sines_then_cosines() {
        let values: Vec<f32> = positions(2, 4, &Device::flex()).into_data().try_to_vec().unwrap();
        assert_eq!(values[..4], [0.0, 0.0, 1.0, 1.0]);
        let (low, high) = (1e-4f64, 1.0f64);
        let want = [high.sin(), low.sin(), high.cos(), low.cos()].map(|v| v as f32);
        for (got, want) in values[4..].iter().zip(want) {
            assert!((got - want).abs() < 1e-8, "{got} for {want}");
        }
    }
}
