//! The image tower: patches in, one feature row per patch out.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::{Activation, Segments};
use serde::{Deserialize, Serialize};

use super::grid;
use crate::batch::{Grid, PatchRows, upload};
use crate::blocks::attention::self_attention;
use crate::blocks::filler::{with_filler, without_filler};
use crate::blocks::{LayerNorm, Linear, RotaryTable};
use crate::builder::Builder;
use crate::capture;
use crate::checkpoint::{Fields, VisionCard, layers};
use crate::checks::{layer_count, multiple, nonzero, positive, small};
use crate::error::ConfigError;
use crate::flops;
use crate::record::{PixelPreprocess, SourceAxes};

/// Shape and constants of a [`VisionTower`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Rows of the position table, a square number.
    pub positions: usize,
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Patches merged along each side.
    pub merge: usize,
    /// Frames in a patch.
    pub temporal_patch: usize,
    /// Colour channels.
    pub channels: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Blocks whose output is also returned (DeepStack), ascending; empty in the omni family.
    pub taps: Vec<usize>,
}

impl VisionConfig {
    /// The tower in words, with how images are prepared for it.
    pub fn words(&self, image: &PixelPreprocess) -> String {
        let Self { layers, hidden, heads, merge, patch_px, .. } = *self;
        let patches = format!("patches of {patch_px} merged {merge}x{merge}");
        let pixels = format!("{} to {} pixels", image.min_pixels, image.max_pixels);
        format!("{layers} blocks of {hidden}, {heads} heads, {patches}, {pixels}")
    }

    /// Values of one patch row: channels x frames x patch x patch.
    pub fn patch_values(&self) -> usize {
        self.channels * self.temporal_patch * self.patch_px * self.patch_px
    }

    /// Side of the square position table.
    pub fn position_side(&self) -> usize {
        self.positions.isqrt()
    }

    /// The tower of a published `vision_config` of a checkpoint with this many tensors, with nothing tapped; `otherwise` is what
    /// holds where it says nothing.
    pub fn published(fields: Fields<'_>, tensors: usize, otherwise: &VisionCard) -> Self {
        fields.only_text("hidden_act", "gelu_pytorch_tanh");
        Self {
            hidden: fields.needed_size("hidden_size"),
            layers: layers(fields, "depth", tensors),
            heads: fields.needed_size("num_heads"),
            inner: fields.needed_size("intermediate_size"),
            positions: fields.needed_size("num_position_embeddings"),
            patch_px: fields.size("patch_size").unwrap_or(otherwise.patch_px),
            merge: fields.size("spatial_merge_size").unwrap_or(otherwise.merge),
            temporal_patch: fields.size("temporal_patch_size").unwrap_or(otherwise.temporal_patch),
            channels: fields.size("in_channels").unwrap_or(otherwise.channels),
            norm_eps: fields.number("layer_norm_eps").or(fields.number("norm_eps")).unwrap_or(otherwise.norm_eps),
            rope_theta: otherwise.rope_theta,
            taps: Vec::new(),
        }
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        layer_count("vision.layers", self.layers)?;
        nonzero(&[
            ("vision.hidden", self.hidden),
            ("vision.heads", self.heads),
            ("vision.inner", self.inner),
            ("vision.positions", self.positions),
        ])?;
        // Four of them are multiplied into the width of a patch, one twice.
        small(&[
            ("vision.patch_px", self.patch_px),
            ("vision.merge", self.merge),
            ("vision.temporal_patch", self.temporal_patch),
            ("vision.channels", self.channels),
        ])?;
        multiple("vision.hidden", self.hidden, "vision.heads", self.heads)?;
        // Two coordinates share a head, and each needs pairs.
        multiple("vision head width", self.hidden / self.heads, "rotary quarter", 4)?;
        positive("vision.norm_eps", self.norm_eps)?;
        positive("vision.rope_theta", self.rope_theta)?;
        if self.position_side() * self.position_side() != self.positions {
            return Err(ConfigError::OutOfRange {
                field: "vision.positions".into(),
                found: self.positions.to_string(),
                expected: "a square number".into(),
            });
        }
        if let Some(&tap) = self.taps.iter().find(|&&t| t >= self.layers) {
            return Err(ConfigError::OutOfRange {
                field: "vision.taps".into(),
                found: tap.to_string(),
                expected: format!("less than {}", self.layers),
            });
        }
        if !self.taps.is_sorted_by(|one, next| one < next) {
            return Err(ConfigError::OutOfRange {
                field: "vision.taps".into(),
                found: format!("{:?}", self.taps),
                expected: "ascending blocks, each once".into(),
            });
        }
        Ok(())
    }
}

/// Feature rows of a tower's pass, one a patch, before any connector.
#[derive(Debug, Clone)]
pub struct VisionFeatures {
    /// After the last block, `[patches, hidden]`.
    pub last: Tensor<2>,
    /// After each tapped block, `[patches, hidden]` each; empty unless the configuration taps.
    pub taps: Vec<Tensor<2>>,
}

/// A pass of a [`VisionTower`] between two of its blocks.
#[derive(Debug)]
pub struct VisionPass {
    hidden: Tensor<2>,
    segments: Segments,
    rotary: RotaryTable,
    taps: Vec<Tensor<2>>,
    next: usize,
}

/// Pre-norm blocks over patches, each temporal group of each item attending to itself alone.
///
/// # Source
/// transformers, `Qwen3VLVisionModel`, revision 5.23.0, without its mergers; omni clears its DeepStack list.
#[derive(Module, Debug)]
pub struct VisionTower {
    patch_embed: Linear,
    pos_embed: Param<Tensor<2>>,
    blocks: Vec<VisionBlock>,
    #[module(skip)]
    config: VisionConfig,
}

#[derive(Module, Debug)]
struct VisionBlock {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    heads: usize,
}

impl VisionTower {
    /// The tower, without a merger.
    pub fn build(config: &VisionConfig, b: &Builder<'_>) -> Self {
        let VisionConfig { hidden, channels, temporal_patch, patch_px, .. } = *config;
        let axes = SourceAxes::Patches { channels, frames: temporal_patch, side: patch_px };
        let block = |i| b.at(format!("blocks.{i}"), |b| VisionBlock::build(config, b));
        Self {
            patch_embed: b.convolution("patch_embed", config.patch_values(), hidden, axes),
            pos_embed: b.exact("pos_embed.weight", [config.positions, hidden]),
            blocks: (0..config.layers).map(block).collect(),
            config: config.clone(),
        }
    }

    /// Operations on `groups` temporal groups of `patches` patches each, which see each other within a group.
    pub fn flops(&self, groups: usize, patches: usize) -> u64 {
        let (all, pairs) = (groups * patches, groups * patches * patches);
        self.patch_embed.flops(all) + self.blocks.iter().map(|block| block.flops(all, pairs)).sum::<u64>()
    }

    /// f32 values alive a patch in the widest step, with the patch itself.
    pub fn patch_values_alive(&self) -> usize {
        let VisionConfig { hidden, inner, .. } = self.config;
        self.config.patch_values() + 5 * hidden + (9 * hidden).max(4 * inner)
    }

    /// Its configuration.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Features of packed images and clips; items never see each other.
    ///
    /// # Shapes
    /// - `input.rows`: `[patches, channels * frames * patch * patch]`; returns: `[patches, hidden]`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(&self, input: PatchRows) -> VisionFeatures {
        let mut pass = self.begin(input);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two blocks; [`VisionTower::forward`] is all of its steps.
    ///
    /// # Shapes
    /// As [`VisionTower::forward`].
    pub fn begin(&self, input: PatchRows) -> VisionPass {
        let PatchRows { rows, grids } = input;
        let embedded = self.patch_embed.forward(rows); // [patches, hidden]
        let embedded = capture::pass(|| "vision.patch_embed".into(), embedded);
        let positions = self.positions(&grids);
        let positions = capture::pass(|| "vision.positions".into(), positions);
        let rotary = self.rotary(&grids);
        let segments = Segments::from_lengths(grid::windows(&grids));
        let (hidden, segments) = with_filler(embedded + positions, segments);
        let rotary = rotary.with_filler(segments.filler());
        VisionPass { hidden, segments, rotary, taps: Vec::new(), next: 0 }
    }

    /// Runs one more block.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: VisionPass) -> VisionPass {
        let VisionPass { hidden, segments, rotary, mut taps, next } = pass;
        let hidden = self.blocks[next].forward(hidden, &segments, &rotary, next);
        let hidden = capture::pass(|| format!("vision.blocks.{next}"), hidden);
        if self.config.taps.contains(&next) {
            taps.push(without_filler(hidden.clone(), &segments));
        }
        VisionPass { hidden, segments, rotary, taps, next: next + 1 }
    }

    /// Whether every block has run.
    pub fn is_done(&self, pass: &VisionPass) -> bool {
        pass.next == self.blocks.len()
    }

    /// The features of a pass whose blocks have all run.
    pub fn finish(&self, pass: VisionPass) -> VisionFeatures {
        VisionFeatures { last: without_filler(pass.hidden, &pass.segments), taps: pass.taps }
    }

    /// Rows of the position table, blended for each grid and in block order, `[patches, hidden]`.
    fn positions(&self, grids: &[Grid]) -> Tensor<2> {
        let device = self.pos_embed.device();
        let corners = grid::blend(grids, self.config.position_side(), self.config.merge);
        let patches = corners[0].rows.len();
        let corners = corners.into_iter().map(|corner| {
            let rows = Tensor::<1, Int>::from_data(TensorData::new(corner.rows, [patches]), &device);
            let weights: Tensor<2> = upload(corner.weights, [patches, 1], &device);
            self.pos_embed.val().select(0, rows) * weights
        });
        corners.reduce(|sum, corner| sum + corner).expect("a blend has four corners")
    }

    fn rotary(&self, grids: &[Grid]) -> RotaryTable {
        let coordinates = grid::coordinates(grids, self.config.merge);
        let head_dim = self.config.hidden / self.config.heads;
        RotaryTable::plane(&coordinates, head_dim, self.config.rope_theta, &self.pos_embed.device())
    }
}

impl VisionBlock {
    fn build(config: &VisionConfig, b: &Builder<'_>) -> Self {
        let VisionConfig { hidden, inner, norm_eps, heads, .. } = *config;
        Self {
            norm1: b.layer_norm("norm1", hidden, norm_eps),
            qkv: b.linear_biased("attn.qkv", hidden, 3 * hidden),
            proj: b.linear_biased("attn.proj", hidden, hidden),
            norm2: b.layer_norm("norm2", hidden, norm_eps),
            linear_fc1: b.linear_biased("mlp.linear_fc1", hidden, inner),
            linear_fc2: b.linear_biased("mlp.linear_fc2", inner, hidden),
            heads,
        }
    }

    fn flops(&self, rows: usize, pairs: usize) -> u64 {
        let products = [&self.qkv, &self.proj, &self.linear_fc1, &self.linear_fc2];
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + flops::attention(pairs, self.proj.inputs())
    }

    fn forward(&self, hidden: Tensor<2>, segments: &Segments, rotary: &RotaryTable, index: usize) -> Tensor<2> {
        let normed = self.norm1.forward_for(hidden.clone(), &self.qkv);
        let context = self_attention(&self.qkv, normed, self.heads, segments, Some(rotary), &self.proj);
        let context = capture::pass(|| format!("vision.blocks.{index}.context"), context);
        let hidden = self.proj.forward_onto(context, hidden);
        let normed = self.norm2.forward_for(hidden.clone(), &self.linear_fc1);
        let inner = self.linear_fc1.forward_into(normed, Activation::GeluTanh, &self.linear_fc2);
        self.linear_fc2.forward_onto(inner, hidden)
    }
}
