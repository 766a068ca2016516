//! The image tower: patches in, one feature row per patch out.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use omniburn_kernels::{Activation, Segments};
use serde::{Deserialize, Serialize};

use super::grid;
use crate::batch::{Grid, PatchRows, upload};
use crate::blocks::attention::self_attention;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{Linear, Norm, RotaryTable};
use crate::builder::{Builder, FusedPart};
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
    /// Rows of the position table, a square number; 0 where there is none.
    pub positions: usize,
    /// Side of a patch in pixels.
    pub patch_px: usize,
    /// Patches merged along each side.
    pub merge: usize,
    /// Frames in a patch.
    pub temporal_patch: usize,
    /// Colour channels.
    pub channels: usize,
    /// Epsilon of every norm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Blocks whose output is also returned (DeepStack), ascending; empty in the omni family.
    pub taps: Vec<usize>,
    /// What sets the towers of several generations apart.
    #[serde(default, skip_serializing_if = "VisionKind::is_table")]
    pub kind: VisionKind,
}

/// The generations of image towers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VisionKind {
    /// A table of positions beside rotary ones, LayerNorms, tanh GELU (Qwen3-VL).
    #[default]
    Table,
    /// Rotary positions alone, LayerNorms, quick GELU (Qwen2-VL).
    Rotary,
    /// Rotary positions alone, RMSNorms, gated MLPs, and windows of attention in most blocks (Qwen2.5-VL, Qwen2.5-Omni).
    Windows {
        /// Side of a window in merged patches.
        side: usize,
        /// Blocks in which every patch of a temporal group sees every other, ascending.
        full: Vec<usize>,
    },
}

impl VisionKind {
    /// Whether there is a table of positions.
    pub fn is_table(&self) -> bool {
        *self == Self::Table
    }
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
            kind: VisionKind::Table,
        }
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        layer_count("vision.layers", self.layers)?;
        nonzero(&[("vision.hidden", self.hidden), ("vision.heads", self.heads), ("vision.inner", self.inner)])?;
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
        let out_of_range = |field: &str, found: String, expected: &str| {
            Err(ConfigError::OutOfRange { field: field.into(), found, expected: expected.into() })
        };
        match &self.kind {
            VisionKind::Table => {
                nonzero(&[("vision.positions", self.positions)])?;
                if self.position_side() * self.position_side() != self.positions {
                    return out_of_range("vision.positions", self.positions.to_string(), "a square number");
                }
            }
            VisionKind::Rotary | VisionKind::Windows { .. } if self.positions > 0 => {
                return out_of_range("vision.positions", self.positions.to_string(), "0: this tower has no table");
            }
            VisionKind::Rotary => {}
            VisionKind::Windows { side, full } => {
                small(&[("vision.kind.windows.side", *side)])?;
                if !full.is_sorted_by(|one, next| one < next) {
                    let expected = "ascending blocks, each once";
                    return out_of_range("vision.kind.windows.full", format!("{full:?}"), expected);
                }
            }
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
    /// Where most blocks see windows; rows lie in their order then.
    windows: Option<Windows>,
    taps: Vec<Tensor<2>>,
    next: usize,
}

/// Windows of the patches of a pass.
#[derive(Debug)]
struct Windows {
    segments: Segments,
    /// Where each merged patch lies among those in the order of windows, `[merged]`.
    places: Tensor<1, Int>,
}

/// Pre-norm blocks over patches, each temporal group of each item attending to itself alone, in most blocks of some towers
/// window by window.
///
/// # Source
/// transformers, `Qwen3VLVisionModel`, `Qwen2VisionTransformerPretrainedModel`, `Qwen2_5OmniVisionEncoder`, revision 5.23.0,
/// without their mergers; omni clears the DeepStack list of the first.
#[derive(Module, Debug)]
pub struct VisionTower {
    patch_embed: Linear,
    pos_embed: Option<Param<Tensor<2>>>,
    blocks: Vec<VisionBlock>,
    #[module(skip)]
    config: VisionConfig,
}

#[derive(Module, Debug)]
struct VisionBlock {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    first: Linear,
    second: Linear,
    #[module(skip)]
    act: Activation,
    heads: usize,
}

impl VisionTower {
    /// The tower, without a merger.
    pub fn build(config: &VisionConfig, b: &Builder<'_>) -> Self {
        let VisionConfig { hidden, channels, temporal_patch, patch_px, .. } = *config;
        let axes = SourceAxes::Patches { channels, frames: temporal_patch, side: patch_px };
        let block = |i| b.at(format!("blocks.{i}"), |b| VisionBlock::build(config, b));
        let values = config.patch_values();
        let table = config.kind.is_table();
        Self {
            patch_embed: match table {
                true => b.convolution("patch_embed", values, hidden, axes),
                false => b.convolution_unbiased("patch_embed", values, hidden, axes),
            },
            pos_embed: table.then(|| b.exact("pos_embed.weight", [config.positions, hidden])),
            blocks: (0..config.layers).map(block).collect(),
            config: config.clone(),
        }
    }

    /// Operations on `groups` temporal groups of `patches` patches each, which see each other within a group; in blocks with
    /// windows within one, none of which is counted as smaller than the others.
    pub fn flops(&self, groups: usize, patches: usize) -> u64 {
        let all = groups * patches;
        let seen = |block: usize| match &self.config.kind {
            VisionKind::Windows { side, full } if !full.contains(&block) => {
                patches.min((side * self.config.merge).pow(2))
            }
            _ => patches,
        };
        let blocks = self.blocks.iter().enumerate();
        self.patch_embed.flops(all) + blocks.map(|(i, block)| block.flops(all, all * seen(i))).sum::<u64>()
    }

    /// f32 values alive a patch in the widest step, with the patch itself.
    pub fn patch_values_alive(&self) -> usize {
        let VisionConfig { hidden, inner, ref kind, .. } = self.config;
        let of_mlp = if matches!(kind, VisionKind::Windows { .. }) { 5 * inner } else { 4 * inner };
        self.config.patch_values() + 5 * hidden + (9 * hidden).max(of_mlp)
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
        let device = rows.device();
        let embedded = self.patch_embed.forward(rows); // [patches, hidden]
        let embedded = capture::pass(|| "vision.patch_embed".into(), embedded);
        let embedded = match &self.pos_embed {
            Some(table) => {
                let positions = self.positions(table, &grids);
                embedded + capture::pass(|| "vision.positions".into(), positions)
            }
            None => embedded,
        };
        let mut coordinates = grid::coordinates(&grids, self.config.merge);
        let order = match self.config.kind {
            VisionKind::Windows { side, .. } => Some(grid::window_order(&grids, self.config.merge, side)),
            VisionKind::Table | VisionKind::Rotary => None,
        };
        let embedded = match &order {
            Some((order, _)) => {
                let block = self.config.merge * self.config.merge;
                coordinates =
                    order.iter().flat_map(|&at| &coordinates[at * block..(at + 1) * block]).copied().collect();
                self.select_merged(embedded, index(order, &device))
            }
            None => embedded,
        };
        let head_dim = self.config.hidden / self.config.heads;
        let rotary = RotaryTable::plane(&coordinates, head_dim, self.config.rope_theta, &device);
        let segments = Segments::from_lengths(grid::windows(&grids));
        let (hidden, segments) = with_padding(embedded, segments);
        let rotary = rotary.with_padding(segments.padding());
        let windows = order.map(|(order, lengths)| {
            let mut places = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, &at)| places[at] = place);
            let segments = Segments::from_lengths(lengths).with_padding(segments.padding());
            Windows { segments, places: index(&places, &device) }
        });
        VisionPass { hidden, segments, rotary, windows, taps: Vec::new(), next: 0 }
    }

    /// Runs one more block.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: VisionPass) -> VisionPass {
        let VisionPass { hidden, segments, rotary, windows, mut taps, next } = pass;
        let seen = match (&windows, &self.config.kind) {
            (Some(windows), VisionKind::Windows { full, .. }) if !full.contains(&next) => &windows.segments,
            _ => &segments,
        };
        let hidden = self.blocks[next].forward(hidden, seen, &rotary, next);
        let hidden = capture::pass(|| format!("vision.blocks.{next}"), hidden);
        if self.config.taps.contains(&next) {
            taps.push(self.in_order(without_padding(hidden.clone(), &segments), windows.as_ref()));
        }
        VisionPass { hidden, segments, rotary, windows, taps, next: next + 1 }
    }

    /// Whether every block has run.
    pub fn is_done(&self, pass: &VisionPass) -> bool {
        pass.next == self.blocks.len()
    }

    /// The features of a pass whose blocks have all run.
    pub fn finish(&self, pass: VisionPass) -> VisionFeatures {
        let last = without_padding(pass.hidden, &pass.segments);
        VisionFeatures { last: self.in_order(last, pass.windows.as_ref()), taps: pass.taps }
    }

    /// Rows in the order in which patches came, `[patches, hidden]`.
    fn in_order(&self, rows: Tensor<2>, windows: Option<&Windows>) -> Tensor<2> {
        match windows {
            Some(windows) => self.select_merged(rows, windows.places.clone()),
            None => rows,
        }
    }

    /// The rows of these merged patches, all rows of each together.
    ///
    /// # Shapes
    /// - `rows`: `[patches, hidden]`; `merged`: `[patches / merge^2]`; returns: as `rows`
    fn select_merged(&self, rows: Tensor<2>, merged: Tensor<1, Int>) -> Tensor<2> {
        let ([patches, hidden], block) = (rows.dims(), self.config.merge * self.config.merge);
        let selected = rows.reshape([patches / block, block * hidden]).select(0, merged);
        selected.reshape([patches, hidden])
    }

    /// Rows of the position table, blended for each grid and in block order, `[patches, hidden]`.
    fn positions(&self, table: &Param<Tensor<2>>, grids: &[Grid]) -> Tensor<2> {
        let device = table.device();
        let corners = grid::blend(grids, self.config.position_side(), self.config.merge);
        let patches = corners[0].rows.len();
        let corners = corners.into_iter().map(|corner| {
            let rows = Tensor::<1, Int>::from_data(TensorData::new(corner.rows, [patches]), &device);
            let weights: Tensor<2> = upload(corner.weights, [patches, 1], &device);
            table.val().select(0, rows) * weights
        });
        corners.reduce(|sum, corner| sum + corner).expect("a blend has four corners")
    }
}

/// Places on the device.
fn index(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i32> = places.iter().map(|&at| i32::try_from(at).expect("fewer than 2^31 patches")).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

impl VisionBlock {
    fn build(config: &VisionConfig, b: &Builder<'_>) -> Self {
        let VisionConfig { hidden, inner, norm_eps, heads, ref kind, .. } = *config;
        let windowed = matches!(kind, VisionKind::Windows { .. });
        let norm = |name: &str| match windowed {
            true => Norm::Rms(b.rms_norm(name, hidden, norm_eps)),
            false => Norm::Layer(b.layer_norm(name, hidden, norm_eps)),
        };
        let norm1 = norm("norm1");
        // Some checkpoints keep the three of a windowed tower apart.
        let parts = ["q", "k", "v"].map(|name| FusedPart::biased(name, hidden));
        let qkv = match windowed {
            true => b.packed("attn.qkv", hidden, &parts),
            false => b.linear_biased("attn.qkv", hidden, 3 * hidden),
        };
        let proj = b.linear_biased("attn.proj", hidden, hidden);
        let norm2 = norm("norm2");
        let plain = |[first, second]: [&str; 2]| {
            [b.linear_biased(first, hidden, inner), b.linear_biased(second, inner, hidden)]
        };
        let ([first, second], act) = match kind {
            VisionKind::Table => (plain(["mlp.linear_fc1", "mlp.linear_fc2"]), Activation::GeluTanh),
            VisionKind::Rotary => (plain(["mlp.fc1", "mlp.fc2"]), Activation::GeluQuick),
            VisionKind::Windows { .. } => {
                let gate_up = b.gate_up_biased("mlp.gate_up_proj", hidden, inner, ["gate_proj", "up_proj"]);
                ([gate_up, b.linear_biased("mlp.down_proj", inner, hidden)], Activation::SwiGlu)
            }
        };
        Self { norm1, qkv, proj, norm2, first, second, act, heads }
    }

    fn flops(&self, rows: usize, pairs: usize) -> u64 {
        let products = [&self.qkv, &self.proj, &self.first, &self.second];
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + flops::attention(pairs, self.proj.inputs())
    }

    fn forward(&self, hidden: Tensor<2>, segments: &Segments, rotary: &RotaryTable, index: usize) -> Tensor<2> {
        let normed = self.norm1.forward_for(hidden.clone(), &self.qkv);
        let context = self_attention(&self.qkv, normed, self.heads, segments, Some(rotary), &self.proj);
        let context = capture::pass(|| format!("vision.blocks.{index}.context"), context);
        let hidden = self.proj.forward_onto(context, hidden);
        let normed = self.norm2.forward_for(hidden.clone(), &self.first);
        let inner = self.first.forward_into(normed, self.act, &self.second);
        self.second.forward_onto(inner, hidden)
    }
}
