//! The audio tower of CLAP: a window of decibels as a square image, a transformer over shifted windows of it (HTSAT, a Swin
//! transformer), one vector.

use burn::module::Param;
use burn::tensor::activation::{relu, sigmoid, softmax};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::batch::upload;
use crate::blocks::{HiddenAct, LayerNorm, Linear, unit_rows};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::checks::{layer_count, multiple, nonzero, positive, small};
use crate::error::ConfigError;
use crate::flops;
use crate::record::SourceAxes;

/// Epsilon of norms whose class has it and no file names it: the batch norm's, and those of layer norms outside of blocks.
const DEFAULT_EPS: f64 = 1e-5;
/// Stages that a configuration may ask for; each halves the sides of the map. Published models have 4.
const MOST_STAGES: usize = 8;
/// What is added to scores of rows that came beside each other by the shift alone.
const APART: f32 = -100.0;

/// Shape and constants of a [`SwinTower`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinConfig {
    /// Mel bands.
    pub mels: usize,
    /// Side of the image that a window is laid into; a multiple of `mels`.
    pub image_size: usize,
    /// Side of a patch of it.
    pub patch: usize,
    /// Width of the first stage; every further one is twice as wide.
    pub hidden: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub heads: Vec<usize>,
    /// Side of an attention window in rows of the map.
    pub window: usize,
    /// Width of an MLP over that of its stage.
    pub mlp_ratio: f64,
    /// Epsilon of the norms inside of blocks.
    pub norm_eps: f64,
    /// Activation of the MLPs.
    pub act: HiddenAct,
    /// Whether queries, keys and values have a bias each.
    pub qkv_bias: bool,
    /// Numbers of the vector.
    pub vector: usize,
    /// Activation between the two products behind the pooling.
    pub projection_act: HiddenAct,
    /// Of a tower that reads four looks at longer audio, the width in which their shares are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<usize>,
}

impl SwinConfig {
    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { mels, image_size, patch, hidden, window, .. } = *self;
        let fault = |field: &str, found: String, expected: String| {
            Err(ConfigError::OutOfRange { field: field.into(), found, expected })
        };
        small(&[
            ("audio.mels", mels),
            ("audio.image_size", image_size),
            ("audio.patch", patch),
            ("audio.window", window),
        ])?;
        nonzero(&[("audio.hidden", hidden), ("audio.vector", self.vector)])?;
        let stages = self.depths.len();
        if !(1..=MOST_STAGES).contains(&stages) || self.heads.len() != stages {
            let found = format!("{stages}, beside {} numbers of heads", self.heads.len());
            return fault("audio.depths", found, format!("1 to {MOST_STAGES}, and as many numbers of heads"));
        }
        multiple("audio.image_size", image_size, "audio.mels", mels)?;
        multiple("audio.image_size", image_size, "audio.patch", patch)?;
        if let Some(inner) = self.fusion {
            nonzero(&[("audio.fusion", inner), ("audio columns of three patches", image_size / (3 * patch))])?;
            if inner > hidden {
                return fault("audio.fusion", inner.to_string(), format!("at most {hidden}, audio.hidden"));
            }
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 64.0) {
            return fault("audio.mlp_ratio", self.mlp_ratio.to_string(), "a number above 0, at most 64".into());
        }
        multiple("audio rows of the map", self.grid(), "halvings", 1 << (stages - 1))?;
        for stage in 0..stages {
            layer_count("audio.depths", self.depths[stage])?;
            nonzero(&[("audio.heads", self.heads[stage]), ("audio inner width", self.inner(stage))])?;
            multiple("audio stage width", self.width(stage), "audio.heads", self.heads[stage])?;
            multiple("audio stage side", self.side(stage), "audio.window", window)?;
        }
        nonzero(&[("audio last width", self.width(stages - 1))])?;
        positive("audio.norm_eps", self.norm_eps)
    }

    /// Rows of the first map along a side.
    fn grid(&self) -> usize {
        self.image_size / self.patch
    }

    /// Quarters of a window that lie below each other in the image.
    fn folds(&self) -> usize {
        self.image_size / self.mels
    }

    /// Frames that a window is spread to, so many at most.
    pub fn spread_frames(&self) -> usize {
        self.image_size * self.folds()
    }

    fn side(&self, stage: usize) -> usize {
        self.grid() >> stage
    }

    fn width(&self, stage: usize) -> usize {
        self.hidden << stage
    }

    fn inner(&self, stage: usize) -> usize {
        (self.mlp_ratio * self.width(stage) as f64) as usize
    }

    /// The tower for people.
    pub fn words(&self) -> String {
        let Self { depths, heads, hidden, window, mels, .. } = self;
        format!(
            "stages of {depths:?} blocks from {hidden} wide, {heads:?} heads, windows of {window} x {window}, {mels} bands"
        )
    }
}

/// Blocks over shifted windows of a map that shrinks from stage to stage, the mean of its last rows, and what brings it into the
/// common space.
///
/// # Source
/// transformers, `ClapAudioEncoder` and `ClapProjectionLayer`, revision 5.23.0; Liu et al. 2021 (arXiv 2103.14030); Chen et al.
/// 2022 (arXiv 2202.00874).
#[derive(Debug)]
pub struct SwinTower {
    batch_norm: BandNorm,
    patch_embedding: Linear,
    patch_norm: LayerNorm,
    fusion: Option<Fusion>,
    blocks: Vec<SwinBlock>,
    /// What stands behind the last block of each stage but the last.
    merges: Vec<Merge>,
    norm: LayerNorm,
    projection: [Linear; 2],
    config: SwinConfig,
}

/// Statistics of each mel band, `[mels]` each.
#[derive(Debug)]
struct BandNorm {
    mean: Param<Tensor<1>>,
    scale: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

/// Brings the patches of a whole audio and those of three parts of it together (attentional feature fusion).
///
/// # Source
/// transformers 5.23.0, `ClapAudioPatchEmbed` and `ClapAudioAFFBlock`.
#[derive(Debug)]
struct Fusion {
    /// Of patches three times as wide, `[patch * 3 patch, hidden]`.
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    /// Shares by the patch itself, and by the mean of all.
    local: Shares,
    global: Shares,
}

/// Two products, each with the statistics of its columns behind it.
#[derive(Debug)]
struct Shares {
    products: [Linear; 2],
    norms: [BandNorm; 2],
}

/// Which four frames each frame of the image is made of, and their shares: `[frames of the image]` each.
#[derive(Debug)]
struct Spread {
    taps: [(Vec<i32>, Vec<f32>); 4],
}

#[derive(Debug)]
struct SwinBlock {
    layernorm_before: LayerNorm,
    qkv: Linear,
    out: Linear,
    /// By place of query and key in their window, `[heads, rows, rows]`.
    bias: Param<Tensor<3>>,
    layernorm_after: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: HiddenAct,
    heads: usize,
    layout: WindowLayout,
    stage: usize,
}

/// How the windows of a map lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowLayout {
    /// Rows of the map along a side.
    side: usize,
    /// Rows of a window along a side.
    window: usize,
    /// Rows by which the windows are moved down and to the right.
    shift: usize,
}

/// Four rows that make a square into one of twice the width.
#[derive(Debug)]
struct Merge {
    norm: LayerNorm,
    reduction: Linear,
    side: usize,
}

/// A pass of a [`SwinTower`] between two of its blocks.
#[derive(Debug)]
pub struct SwinPass {
    /// `[rows of the map, width]`
    hidden: Tensor<2>,
    next: usize,
}

impl SwinTower {
    /// The tower with what makes its vector.
    pub fn build(config: &SwinConfig, b: &Builder<'_>) -> Self {
        let SwinConfig { hidden, patch, vector, .. } = *config;
        let stages = config.depths.len();
        let axes = SourceAxes::Image { channels: 1, side: patch };
        let block = |stage: usize| {
            move |i: usize| b.at(format!("layers.{stage}.blocks.{i}"), |b| SwinBlock::build(config, stage, i, b))
        };
        let merge = |stage: usize| b.at(format!("layers.{stage}.downsample"), |b| Merge::build(config, stage, b));
        let width = config.width(stages - 1);
        Self {
            batch_norm: b.at("batch_norm", |b| BandNorm::build(config.mels, b)),
            patch_embedding: b.convolution("patch_embed.proj", patch * patch, hidden, axes),
            patch_norm: b.layer_norm("patch_embed.norm", hidden, DEFAULT_EPS),
            fusion: config.fusion.map(|inner| b.at("patch_embed", |b| Fusion::build(patch, hidden, inner, b))),
            blocks: (0..stages).flat_map(|stage| (0..config.depths[stage]).map(block(stage))).collect(),
            merges: (0..stages - 1).map(merge).collect(),
            norm: b.layer_norm("norm", width, DEFAULT_EPS),
            projection: [
                b.linear_biased("projection.linear1", width, vector),
                b.linear_biased("projection.linear2", vector, vector),
            ],
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// Operations of one window.
    pub fn flops(&self) -> u64 {
        let patches = self.config.grid().pow(2);
        let blocks: u64 = self.blocks.iter().map(SwinBlock::flops).sum();
        let merges: u64 = self.merges.iter().map(|merge| merge.reduction.flops((merge.side / 2).pow(2))).sum();
        let projection: u64 = self.projection.iter().map(|linear| linear.flops(1)).sum();
        self.patch_embedding.flops(patches) + blocks + merges + projection
    }

    /// f32 values alive for one window in the widest step.
    pub fn values_alive(&self) -> usize {
        // Frames as they come and spread, and the image as patches.
        let image = if self.fusion.is_some() { 32 } else { 8 } * self.config.image_size.pow(2);
        self.blocks.iter().map(SwinBlock::values_alive).max().unwrap_or(0).max(image)
    }

    /// The vector of a window of frames.
    ///
    /// # Shapes
    /// - `frames`: `[frames, mels]`, decibels, or `[4 * frames, mels]` of a tower that reads four looks; returns: `[1, vector, 1, 1]`: a
    ///   map of one cell, of unit length
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    /// # Panics
    /// If there is no frame, or there are more than the image holds.
    pub fn forward(&self, frames: Tensor<2>) -> Tensor<4> {
        let mut pass = self.begin(frames);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two blocks; [`SwinTower::forward`] is all of its steps.
    ///
    /// # Shapes
    /// As [`SwinTower::forward`].
    pub fn begin(&self, frames: Tensor<2>) -> SwinPass {
        let ([all, _], most) = (frames.dims(), self.config.spread_frames());
        let looks = if self.fusion.is_some() && all > most { 4 } else { 1 };
        let count = all / looks;
        assert!((1..=most).contains(&count) && count * looks == all, "{all} frames, {most} in the image");
        let normed = self.batch_norm.forward(frames);
        // [frames of the image, mels]
        let look =
            |at: usize| Spread::of(count, most).forward(normed.clone().slice_dim(0, at * count..(at + 1) * count));
        let embedded = self.patch_embedding.forward(self.patches(look(0), 1)); // [patches, hidden]
        let embedded = match &self.fusion {
            Some(fusion) if looks > 1 => {
                let parts = (1..looks).map(|at| self.patches(look(at), 3)).collect();
                fusion.forward(embedded, parts, self.config.grid())
            }
            _ => embedded,
        };
        let hidden = self.patch_norm.forward(embedded);
        SwinPass { hidden: capture::pass(|| "audio.patch_embed".into(), hidden), next: 0 }
    }

    /// Runs one more block, with what brings rows together behind the last of a stage.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: SwinPass) -> SwinPass {
        let SwinPass { hidden, next } = pass;
        let block = &self.blocks[next];
        let hidden = block.forward(hidden);
        let ends = self.blocks.get(next + 1).is_some_and(|after| after.stage > block.stage);
        let hidden = if ends { self.merges[block.stage].forward(hidden) } else { hidden };
        SwinPass { hidden: capture::pass(|| format!("audio.blocks.{next}"), hidden), next: next + 1 }
    }

    /// Whether every block has run.
    pub fn is_done(&self, pass: &SwinPass) -> bool {
        pass.next == self.blocks.len()
    }

    /// The vector of a pass whose blocks have all run.
    ///
    /// # Shapes
    /// As [`SwinTower::forward`].
    pub fn finish(&self, pass: SwinPass) -> Tensor<4> {
        let pooled = self.norm.forward(pass.hidden).mean_dim(0); // [1, width]
        let [first, last] = &self.projection;
        let inner = first.activated(pooled, self.config.projection_act.activation());
        let vector = unit_rows(capture::pass(|| "audio.vector".into(), last.forward(inner)));
        vector.reshape([1, self.config.vector, 1, 1])
    }

    /// The image that a spread window makes, cut into patches row by row, so many times as wide as high: its quarters below each other,
    /// bands down and time across. Columns that make no whole patch are left out.
    ///
    /// # Shapes
    /// - `frames`: `[frames of the image, mels]`; returns: `[patches, patch * wide * patch]`
    fn patches(&self, frames: Tensor<2>, wide: usize) -> Tensor<2> {
        let SwinConfig { mels, image_size, patch, .. } = self.config;
        let (folds, grid) = (self.config.folds(), self.config.grid());
        let image = frames.reshape([folds, image_size, mels]).swap_dims(1, 2); // [folds, mels, time]
        let (across, width) = (image_size / (wide * patch), wide * patch);
        let image: Tensor<2> = image.reshape([image_size, image_size]);
        let cut: Tensor<4> = image.slice([0..image_size, 0..across * width]).reshape([grid, patch, across, width]);
        cut.permute([0, 2, 1, 3]).reshape([grid * across, patch * width])
    }
}

impl Fusion {
    fn build(patch: usize, hidden: usize, inner: usize, b: &Builder<'_>) -> Self {
        let taps = patch * 3 * patch;
        let weight = b.host("mel_conv2d.weight", [hidden, 1, patch, 3 * patch]);
        Self {
            weight: b.computed([taps, hidden], |device| upload::<2>(weight, [hidden, taps], device).transpose()),
            bias: b.exact("mel_conv2d.bias", [hidden]),
            local: b.at("fusion_model.local_att", |b| Shares::build([0, 1, 3, 4], hidden, inner, b)),
            global: b.at("fusion_model.global_att", |b| Shares::build([1, 2, 4, 5], hidden, inner, b)),
        }
    }

    /// # Shapes
    /// - `whole`: `[grid * grid, hidden]`; `parts`: `[grid * columns, patch * 3 patch]` each; returns: as `whole`
    /// # Numerics
    /// f32.
    fn forward(&self, whole: Tensor<2>, parts: Vec<Tensor<2>>, grid: usize) -> Tensor<2> {
        let ([all, hidden], device) = (whole.dims(), whole.device());
        let part = |patches: Tensor<2>| -> Tensor<3> {
            let rows = patches.matmul(self.weight.val()) + self.bias.val().unsqueeze::<2>();
            let columns = rows.dims()[0] / grid;
            rows.reshape([grid, columns, hidden])
        };
        let mut beside: Vec<Tensor<3>> = parts.into_iter().map(part).collect();
        let columns: usize = beside.iter().map(|part| part.dims()[1]).sum();
        if columns < grid {
            beside.push(Tensor::zeros([grid, grid - columns, hidden], (&device, DType::F32)));
        }
        let local: Tensor<2> = Tensor::cat(beside, 1).reshape([all, hidden]);
        let both = whole.clone() + local.clone();
        let share = sigmoid(self.local.forward(both.clone()) + self.global.forward(both.mean_dim(0)));
        let rest = share.clone().neg() + 1.0;
        whole * share * 2.0 + local * rest * 2.0
    }
}

impl Shares {
    fn build([first, first_norm, last, last_norm]: [usize; 4], width: usize, inner: usize, b: &Builder<'_>) -> Self {
        let product = |at: usize, inputs: usize, outputs: usize| {
            b.convolution(&at.to_string(), inputs, outputs, SourceAxes::Plane { taps: 1 })
        };
        let norm = |at: usize, width: usize| b.at(at.to_string(), |b| BandNorm::build(width, b));
        Self {
            products: [product(first, width, inner), product(last, inner, width)],
            norms: [norm(first_norm, inner), norm(last_norm, width)],
        }
    }

    /// # Shapes
    /// - `rows`: `[rows, width]`; returns: as `rows`
    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let [first, last] = &self.products;
        let [inner, outer] = &self.norms;
        outer.forward(last.forward(relu(inner.forward(first.forward(rows)))))
    }
}

impl BandNorm {
    fn build(mels: usize, b: &Builder<'_>) -> Self {
        let (weight, bias) = (b.exact("weight", [mels]), b.exact("bias", [mels]));
        let (mean, variance) = (b.exact("running_mean", [mels]), b.exact("running_var", [mels]));
        let scale = b.computed([mels], |_| weight.val() / (variance.val() + DEFAULT_EPS).sqrt());
        Self { mean, scale, bias }
    }

    /// # Shapes
    /// - `frames`: `[frames, mels]`; returns: as `frames`
    fn forward(&self, frames: Tensor<2>) -> Tensor<2> {
        let row = |band: &Param<Tensor<1>>| band.val().unsqueeze::<2>();
        (frames - row(&self.mean)) * row(&self.scale) + row(&self.bias)
    }
}

impl Spread {
    /// From so many frames to so many, first onto first and last onto last.
    ///
    /// # Source
    /// torch 2.15.0, `interpolate` with `mode="bicubic"` and `align_corners=True`: a cubic convolution with the constant -0.75;
    /// frames beyond the ends are those at the ends.
    fn of(from: usize, to: usize) -> Self {
        const A: f32 = -0.75;
        let step = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
        let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
        let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
        let mut taps: [(Vec<i32>, Vec<f32>); 4] = Default::default();
        for at in 0..to {
            let place = if from == to { at as f32 } else { step * at as f32 };
            let t = place - place.floor();
            let shares = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            for (tap, ((frames, weights), share)) in taps.iter_mut().zip(shares).enumerate() {
                let frame = place.floor() as i64 + tap as i64 - 1;
                frames.push(frame.clamp(0, from as i64 - 1) as i32);
                weights.push(share);
            }
        }
        Self { taps }
    }

    /// # Shapes
    /// - `frames`: `[frames, mels]`; returns: `[frames of the image, mels]`
    fn forward(&self, frames: Tensor<2>) -> Tensor<2> {
        let device = frames.device();
        let tap = |(rows, shares): &(Vec<i32>, Vec<f32>)| {
            let count = rows.len();
            let rows = frames.clone().select(0, places(rows.clone(), &device));
            rows * upload::<2>(shares.clone(), [count, 1], &device)
        };
        let [first, second, third, last] = &self.taps;
        tap(first) + tap(second) + tap(third) + tap(last)
    }
}

impl SwinBlock {
    fn build(config: &SwinConfig, stage: usize, index: usize, b: &Builder<'_>) -> Self {
        let (width, inner, heads) = (config.width(stage), config.inner(stage), config.heads[stage]);
        let (side, window) = (config.side(stage), config.window);
        // A map that one window covers is not shifted.
        let shift = if index.is_multiple_of(2) || side <= window { 0 } else { window / 2 };
        let part = |name| FusedPart { name, outputs: width, biased: config.qkv_bias };
        let rows = window * window;
        let table = b.host("attention.self.relative_position_bias_table", [(2 * window - 1).pow(2), heads]);
        let bias = b.computed([heads, rows, rows], |device| {
            upload(by_distance(&table, window, heads), [heads, rows, rows], device)
        });
        Self {
            layernorm_before: b.layer_norm("layernorm_before", width, config.norm_eps),
            qkv: b.fused("attention.self.qkv", width, &["query", "key", "value"].map(part)),
            out: b.linear_biased("attention.output.dense", width, width),
            bias,
            layernorm_after: b.layer_norm("layernorm_after", width, config.norm_eps),
            fc1: b.linear_biased("intermediate.dense", width, inner),
            fc2: b.linear_biased("output.dense", inner, width),
            act: config.act,
            heads,
            layout: WindowLayout { side, window, shift },
            stage,
        }
    }

    /// # Shapes
    /// - `hidden`: `[rows of the map, width]`; returns: as `hidden`
    fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let device = hidden.device();
        let order = self.layout.order();
        let normed = self.layernorm_before.forward(hidden.clone()).select(0, places(order.clone(), &device));
        let context = self.attend(self.qkv.forward(normed)); // [rows in the order of windows, width]
        let mut back = vec![0i32; order.len()];
        order.iter().enumerate().for_each(|(at, row)| back[*row as usize] = at as i32);
        let context = context.select(0, places(back, &device));
        let hidden = self.out.forward_onto(context, hidden);
        let normed = self.layernorm_after.forward_for(hidden.clone(), &self.fc1);
        let inner = self.fc1.forward_into(normed, self.act.activation(), &self.fc2);
        self.fc2.forward_onto(inner, hidden)
    }

    /// Attention inside of each window.
    ///
    /// # Shapes
    /// - `qkv`: `[windows * rows, 3 * width]`; returns: `[windows * rows, width]`
    /// # Numerics
    /// f32.
    fn attend(&self, qkv: Tensor<2>) -> Tensor<2> {
        let [all, width] = qkv.dims();
        let (width, rows, heads) = (width / 3, self.layout.rows(), self.heads);
        let (windows, head_dim) = (all / rows, width / heads);
        let part = |at: usize| {
            let columns = qkv.clone().slice([0..all, at * width..(at + 1) * width]);
            columns.reshape([windows, rows, heads, head_dim]).swap_dims(1, 2) // [windows, heads, rows, head_dim]
        };
        let scores = part(0).matmul(part(1).swap_dims(2, 3)) / (head_dim as f64).sqrt();
        let scores = scores + self.bias.val().unsqueeze::<4>(); // [windows, heads, rows, rows]
        let scores = match self.layout.apart() {
            Some(apart) => scores + upload::<4>(apart, [windows, 1, rows, rows], &qkv.device()),
            None => scores,
        };
        softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([all, width])
    }

    fn flops(&self) -> u64 {
        let WindowLayout { side, .. } = self.layout;
        let rows = side * side;
        let products = [&self.qkv, &self.out, &self.fc1, &self.fc2];
        let pairs = rows * self.layout.rows();
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + flops::attention(pairs, self.out.inputs())
    }

    fn values_alive(&self) -> usize {
        let WindowLayout { side, .. } = self.layout;
        let (rows, width, inner) = (side * side, self.out.inputs(), self.fc2.inputs());
        // Scores, with the mask, before and behind the softmax.
        rows * (2 * width + (9 * width).max(3 * inner)) + 3 * rows * self.heads * self.layout.rows()
    }
}

impl WindowLayout {
    /// Rows of a window.
    fn rows(self) -> usize {
        self.window * self.window
    }

    /// Rows of the map, window after window.
    fn order(self) -> Vec<i32> {
        let Self { side, window, shift } = self;
        let at = |row: usize, column: usize| ((row + shift) % side * side + (column + shift) % side) as i32;
        let across = side / window;
        let of = |index: usize| {
            let (down, right) = (index / across * window, index % across * window);
            (0..window).flat_map(move |row| (0..window).map(move |column| at(down + row, right + column)))
        };
        (0..across * across).flat_map(of).collect()
    }

    /// What is added to the scores of each window, `[windows, rows, rows]`, so that rows from opposite edges of the map do not see
    /// each other; `None` where windows are not shifted.
    fn apart(self) -> Option<Vec<f32>> {
        let Self { side, window, shift } = self;
        if shift == 0 {
            return None;
        }
        let region = |at: usize| usize::from(at >= side - window) + usize::from(at >= side - shift);
        let (across, rows) = (side / window, self.rows());
        let regions = |index: usize| -> Vec<usize> {
            let (down, right) = (index / across * window, index % across * window);
            let one = |place: usize| 3 * region(down + place / window) + region(right + place % window);
            (0..rows).map(one).collect()
        };
        let mut added = Vec::with_capacity(across * across * rows * rows);
        for index in 0..across * across {
            let of = regions(index);
            added.extend(of.iter().flat_map(|a| of.iter().map(move |b| if a == b { 0.0 } else { APART })));
        }
        Some(added)
    }
}

impl Merge {
    fn build(config: &SwinConfig, stage: usize, b: &Builder<'_>) -> Self {
        let width = config.width(stage);
        Self {
            norm: b.layer_norm("norm", 4 * width, DEFAULT_EPS),
            reduction: b.linear("reduction", 4 * width, 2 * width),
            side: config.side(stage),
        }
    }

    /// # Shapes
    /// - `hidden`: `[rows of the map, width]`; returns: `[rows / 4, 2 * width]`
    fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (device, half) = (hidden.device(), self.side / 2);
        let corner = |(right, down): (usize, usize)| {
            let at = |row: usize, column: usize| ((2 * row + down) * self.side + 2 * column + right) as i32;
            let rows = (0..half).flat_map(|row| (0..half).map(move |column| at(row, column))).collect();
            hidden.clone().select(0, places(rows, &device))
        };
        let corners = [(0, 0), (0, 1), (1, 0), (1, 1)].map(corner);
        self.reduction.forward(self.norm.forward_for(Tensor::cat(corners.to_vec(), 1), &self.reduction))
    }
}

/// `[heads, rows, rows]` of `[distances, heads]`: the bias of each query and key of a window.
fn by_distance(table: &[f32], window: usize, heads: usize) -> Vec<f32> {
    let rows = window * window;
    let row_of = |query: usize, key: usize| {
        let down = query / window + window - 1 - key / window;
        let right = query % window + window - 1 - key % window;
        down * (2 * window - 1) + right
    };
    let of = |head: usize, query: usize, key: usize| table[row_of(query, key) * heads + head];
    (0..heads)
        .flat_map(|head| (0..rows).flat_map(move |query| (0..rows).map(move |key| of(head, query, key))))
        .collect()
}

fn places(rows: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), (device, DType::I32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_windows_hold_every_row_once_and_keep_edges_apart() {
        let layout = WindowLayout { side: 8, window: 4, shift: 2 };
        let order = layout.order();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..64).collect::<Vec<i32>>());
        assert_eq!(&order[..4], [18, 19, 20, 21]);
        let apart = layout.apart().unwrap();
        assert!(apart[..16 * 16].iter().all(|added| *added == 0.0), "the first window lies whole in the map");
        // The last window: rows 6, 7, 0 and 1.
        let last = &apart[3 * 16 * 16..];
        assert_eq!((last[1], last[2]), (0.0, APART));
        assert!(WindowLayout { shift: 0, ..layout }.apart().is_none());
    }

    #[test]
    fn a_window_is_spread_with_its_ends_on_the_ends() {
        let Spread { taps } = Spread::of(3, 5);
        let total: Vec<f32> = (0..5).map(|at| taps.iter().map(|(_, shares)| shares[at]).sum()).collect();
        assert!(total.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{total:?}");
        assert_eq!((taps[1].0[0], taps[1].1[0]), (0, 1.0));
        assert_eq!((taps[1].0[4], taps[1].1[4]), (2, 1.0));
        // Half way between two frames.
        assert_eq!((taps[1].1[1], taps[2].1[1]), (0.59375, 0.59375));
        let same = Spread::of(4, 4);
        assert!(same.taps[1].1.iter().all(|share| *share == 1.0));
    }
}
