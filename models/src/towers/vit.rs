//! The image tower of a model of two towers: a square of pixels in, one vector out.

use burn::module::Param;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use super::grid;
use crate::batch::upload;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{HiddenAct, LayerNorm, Linear, PreNormLayer, PreNormMlp, PreNormSizes, unit_rows};
use crate::builder::Builder;
use crate::capture;
use crate::checks::{layer_count, multiple, nonzero, positive, small};
use crate::error::ConfigError;
use crate::flops;
use crate::record::SourceAxes;

/// Red, green, blue.
const CHANNELS: usize = 3;
/// Scores are held whole up to this many a head (flex's own threshold); beyond it they go tile by tile.
const WHOLE_SCORES: usize = 512 * 512;

/// Shape and constants of a [`VitTower`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square of pixels it reads.
    pub image_size: usize,
    /// Side of a patch in pixels. What lies beyond the last whole patch is not read.
    pub patch_px: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Activation of the MLPs.
    pub act: HiddenAct,
    /// How rows become the vector.
    pub head: VitHead,
    /// Whether images keep their shape, each of as many patches as it has: `image_size` is what the position table lays out
    /// then, and its rows are blended for the patches of an image (NaFlex). Patches are cut with their channels last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flexible: bool,
}

/// How the rows of a [`VitTower`] become its vector, with what else differs between the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VitHead {
    /// A learned row stands in front of the patches, and its result is projected, as in CLIP. There is a norm before the first
    /// layer, and patches are embedded without a bias.
    Class {
        /// Numbers of the vector.
        vector: usize,
    },
    /// A learned query attends to all rows, and an MLP is added to what it finds, as in SigLIP.
    Probe,
}

impl VitConfig {
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
            ("vision.head.vector", self.vector()),
        ])?;
        // Both are multiplied by themselves, and by the width.
        small(&[("vision.image_size", self.image_size), ("vision.patch_px", self.patch_px)])?;
        multiple("vision.hidden", self.hidden, "vision.heads", self.heads)?;
        if self.patch_px > self.image_size {
            return Err(ConfigError::OutOfRange {
                field: "vision.patch_px".into(),
                found: self.patch_px.to_string(),
                expected: format!("at most vision.image_size, {}", self.image_size),
            });
        }
        if self.flexible && self.head != VitHead::Probe {
            return Err(ConfigError::OutOfRange {
                field: "vision.flexible".into(),
                found: "true".into(),
                expected: "false beside a class row".into(),
            });
        }
        positive("vision.norm_eps", self.norm_eps)
    }

    /// Side of a patch, where images keep their shape.
    pub fn flexible_patch(&self) -> Option<usize> {
        self.flexible.then_some(self.patch_px)
    }

    /// Numbers of its vector.
    pub fn vector(&self) -> usize {
        match self.head {
            VitHead::Class { vector } => vector,
            VitHead::Probe => self.hidden,
        }
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_px
    }

    /// Rows that go through the layers.
    pub fn rows(&self) -> usize {
        let class = usize::from(matches!(self.head, VitHead::Class { .. }));
        self.grid() * self.grid() + class
    }

    /// The tower for people.
    pub fn words(&self) -> String {
        let Self { layers, hidden, heads, patch_px, image_size, .. } = self;
        let head = match self.head {
            VitHead::Class { .. } => "a class row",
            VitHead::Probe => "a learned query over all rows",
        };
        let images = match self.flexible {
            true => format!("images of any shape over a table of {0} x {0} positions", self.grid()),
            false => format!("squares of {image_size}"),
        };
        format!("{layers} layers of {hidden}, {heads} heads, patches of {patch_px} in {images}, pooled by {head}")
    }

    fn patch_values(&self) -> usize {
        CHANNELS * self.patch_px * self.patch_px
    }
}

/// Pre-norm layers over the patches of a square, and what makes one vector of them.
///
/// # Source
/// transformers, `CLIPVisionTransformer` with `visual_projection`, and `SiglipVisionTransformer`, revision 5.23.0.
#[derive(Debug)]
pub struct VitTower {
    patch_embedding: Linear,
    /// Positions of the patches, `[patches, hidden]`.
    positions: Param<Tensor<2>>,
    front: Option<Front>,
    layers: Vec<PreNormLayer>,
    post_layernorm: LayerNorm,
    head: Head,
    config: VitConfig,
}

/// What stands before the first layer of a tower with a class row.
#[derive(Debug)]
struct Front {
    /// With its position, `[1, 1, hidden]`.
    class_row: Param<Tensor<3>>,
    pre_norm: LayerNorm,
}

#[expect(clippy::large_enum_variant, reason = "a tower has one")]
#[derive(Debug)]
enum Head {
    Class(Linear),
    Probe(Box<ProbeHead>),
}

/// A pass of a [`VitTower`] between two of its layers.
#[derive(Debug)]
pub struct VitPass {
    hidden: Tensor<2>,
    segments: Segments,
    next: usize,
}

impl VitTower {
    /// The tower with its head.
    pub fn build(config: &VitConfig, b: &Builder<'_>) -> Self {
        let VitConfig { hidden, inner, heads, norm_eps, act, patch_px, .. } = *config;
        let sizes = PreNormSizes { hidden, inner, heads, norm_eps, act, causal: false };
        let (patches, values) = (config.grid() * config.grid(), config.patch_values());
        let axes = SourceAxes::Image { channels: CHANNELS, side: patch_px };
        let table = b.exact("position_embedding.weight", [config.rows(), hidden]);
        // The first position is the class row's, where there is one.
        let first = config.rows() - patches;
        let positions = b.computed([patches, hidden], |_| table.val().slice_dim(0, first..first + patches));
        let (patch_embedding, front) = match config.head {
            VitHead::Probe if config.flexible => (b.linear_biased("patch_embedding", values, hidden), None),
            VitHead::Probe => (b.convolution("patch_embedding", values, hidden, axes), None),
            VitHead::Class { .. } => {
                let class = b.exact("class_embedding", [hidden]);
                let class_row = b.computed([1, 1, hidden], |_| {
                    (class.val().reshape([1, hidden]) + table.val().slice_dim(0, 0..1)).reshape([1, 1, hidden])
                });
                let front = Front { class_row, pre_norm: b.layer_norm("pre_layrnorm", hidden, norm_eps) };
                (b.convolution_unbiased("patch_embedding", values, hidden, axes), Some(front))
            }
        };
        Self {
            patch_embedding,
            positions,
            front,
            layers: (0..config.layers)
                .map(|i| b.at(format!("layers.{i}"), |b| PreNormLayer::build(b, sizes)))
                .collect(),
            post_layernorm: b.layer_norm("post_layernorm", hidden, norm_eps),
            head: match config.head {
                VitHead::Class { vector } => Head::Class(b.linear("projection", hidden, vector)),
                VitHead::Probe => Head::Probe(Box::new(b.at("head", |b| ProbeHead::build(config, b)))),
            },
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Operations of one image; of one that fills the position table, where images keep their shape.
    pub fn flops(&self) -> u64 {
        self.flops_of(self.config.grid() * self.config.grid())
    }

    /// Operations of one image of this many patches.
    pub fn flops_of(&self, patches: usize) -> u64 {
        let rows = patches + usize::from(self.front.is_some());
        let layers: u64 = self.layers.iter().map(|layer| layer.flops(rows, rows * rows)).sum();
        let head = match &self.head {
            Head::Class(projection) => projection.flops(1),
            Head::Probe(head) => head.flops(rows),
        };
        self.patch_embedding.flops(patches) + layers + head
    }

    /// f32 values alive for one image in the widest step.
    pub fn values_alive(&self) -> usize {
        let (rows, pixels) = (self.config.rows(), CHANNELS * self.config.image_size * self.config.image_size);
        let layer = self.layers.first().map_or(0, PreNormLayer::row_values);
        let scores = self.config.heads * (rows * rows).min(WHOLE_SCORES);
        // Pixels as they come, cut to whole patches, and patch by patch.
        3 * pixels + rows * layer + scores
    }

    /// f32 values alive a patch in the widest step, where images keep their shape.
    pub fn patch_values_alive(&self) -> usize {
        let layer = self.layers.first().map_or(0, PreNormLayer::row_values);
        3 * self.config.patch_values() + layer + self.config.grid().pow(2)
    }

    /// Vectors of images; images never see each other.
    ///
    /// # Shapes
    /// - `pixels`: `[images, 3, image_size, image_size]`, red, green, blue, brought to the tower's range; where images keep
    ///   their shape, `[images, 3, height, width]` in whole patches
    /// - returns: `[images, vector, 1, 1]`: maps of one cell, each of unit length
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut pass = self.begin(pixels);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two layers; [`VitTower::forward`] is all of its steps.
    ///
    /// # Shapes
    /// As [`VitTower::forward`].
    pub fn begin(&self, pixels: Tensor<4>) -> VitPass {
        let [images, _, height, width] = pixels.dims();
        let (hidden, grid, patch_px) = (self.config.hidden, self.config.grid(), self.config.patch_px);
        let (down, across) = if self.config.flexible { (height / patch_px, width / patch_px) } else { (grid, grid) };
        let patches = down * across;
        let rows = patches + usize::from(self.front.is_some());
        let embedded = self.patch_embedding.forward(self.patches(pixels, down, across)); // [images * patches, hidden]
        let embedded = capture::pass(|| "vision.patch_embedding".into(), embedded);
        let positions = match (down, across) == (grid, grid) {
            true => self.positions.val(),
            false => {
                let shares = upload(grid::resized(grid, [down, across]), [patches, grid * grid], &embedded.device());
                shares.matmul(self.positions.val())
            }
        };
        let positions = capture::pass(|| "vision.positions".into(), positions).reshape([1, patches, hidden]);
        let placed = embedded.reshape([images, patches, hidden]) + positions; // [images, patches, hidden]
        let stream = match &self.front {
            None => placed.reshape([images * rows, hidden]),
            Some(front) => {
                let class = front.class_row.val().repeat_dim(0, images);
                front.pre_norm.forward(Tensor::cat(vec![class, placed], 1).reshape([images * rows, hidden]))
            }
        };
        let (hidden, segments) = with_padding(stream, Segments::from_lengths(vec![rows; images]));
        VitPass { hidden, segments, next: 0 }
    }

    /// Runs one more layer.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: VitPass) -> VitPass {
        let VitPass { hidden, segments, next } = pass;
        let hidden = self.layers[next].forward(hidden, &segments, &format!("vision.layers.{next}"));
        VitPass { hidden, segments, next: next + 1 }
    }

    /// Whether every layer has run.
    pub fn is_done(&self, pass: &VitPass) -> bool {
        pass.next == self.layers.len()
    }

    /// The vectors of a pass whose layers have all run.
    ///
    /// # Shapes
    /// As [`VitTower::forward`].
    pub fn finish(&self, pass: VitPass) -> Tensor<4> {
        let rows = without_padding(pass.hidden, &pass.segments);
        let segments = pass.segments.with_padding(0);
        let vectors = match &self.head {
            Head::Class(projection) => {
                let first: Vec<i32> = segments.iter().map(|(start, _)| start as i32).collect();
                let count = first.len();
                let first = Tensor::<1, Int>::from_data(TensorData::new(first, [count]), &rows.device());
                // A norm goes row by row: the others need none.
                projection.forward(self.post_layernorm.forward(rows.select(0, first)))
            }
            Head::Probe(head) => head.forward(self.post_layernorm.forward(rows), &segments),
        };
        let vectors = unit_rows(capture::pass(|| "vision.vectors".into(), vectors));
        let [images, width] = vectors.dims();
        vectors.reshape([images, width, 1, 1])
    }

    /// Images cut into patches, row by row, each as (channel, row, column), or as (row, column, channel) where images keep their
    /// shape.
    ///
    /// # Shapes
    /// - `pixels`: `[images, 3, height, width]`; returns: `[images * patches, 3 * patch * patch]`
    fn patches(&self, pixels: Tensor<4>, down: usize, across: usize) -> Tensor<2> {
        let [images, channels, ..] = pixels.dims();
        let side = self.config.patch_px;
        let pixels = pixels.slice([0..images, 0..channels, 0..down * side, 0..across * side]);
        let cut: Tensor<6> = pixels.reshape([images, channels, down, side, across, side]);
        let order = if self.config.flexible { [0, 2, 4, 3, 5, 1] } else { [0, 2, 4, 1, 3, 5] };
        cut.permute(order).reshape([images * down * across, channels * side * side])
    }
}

/// A learned query over all rows of an image, and an MLP onto what it finds.
///
/// # Source
/// transformers, `SiglipMultiheadAttentionPoolingHead`, revision 5.23.0; Zhai et al. 2021 (arXiv 2106.04560), section 3.3.
#[derive(Debug)]
struct ProbeHead {
    /// The learned query behind its product, scaled: it is the same for every image. `[heads, head_dim, 1]`
    query: Param<Tensor<3>>,
    in_proj: Linear,
    out_proj: Linear,
    layernorm: LayerNorm,
    mlp: PreNormMlp,
    heads: usize,
}

impl ProbeHead {
    fn build(config: &VitConfig, b: &Builder<'_>) -> Self {
        let VitConfig { hidden, heads, inner, norm_eps, act, .. } = *config;
        let head_dim = hidden / heads;
        let probe = b.exact("probe", [1, 1, hidden]);
        let in_proj = b.linear_biased("attention.in_proj", hidden, 3 * hidden);
        let query = b.computed([heads, head_dim, 1], |_| {
            let projected = in_proj.forward(probe.val().reshape([1, hidden])); // [1, 3 * hidden]
            let query = projected.slice([0..1, 0..hidden]).reshape([heads, head_dim, 1]);
            query / (head_dim as f64).sqrt()
        });
        Self {
            query,
            in_proj,
            out_proj: b.linear_biased("attention.out_proj", hidden, hidden),
            layernorm: b.layer_norm("layernorm", hidden, norm_eps),
            mlp: PreNormMlp::build(b, hidden, inner, act),
            heads,
        }
    }

    /// Operations on one image of this many rows.
    fn flops(&self, rows: usize) -> u64 {
        let width = self.out_proj.inputs();
        self.in_proj.flops(rows) + flops::attention(rows, width) + self.out_proj.flops(1) + self.mlp.flops(1)
    }

    /// # Shapes
    /// - `rows`: `[rows, hidden]`, one segment an image; returns: `[images, hidden]`
    /// # Numerics
    /// Scores and softmax are f32. Each image is pooled by itself, so that its bits do not depend on others.
    fn forward(&self, rows: Tensor<2>, segments: &Segments) -> Tensor<2> {
        let [_, width] = rows.dims();
        let projected = self.in_proj.forward(rows); // [rows, 3 * hidden]
        let pooled = segments.iter().map(|(start, len)| {
            let part = |at: usize| {
                let columns = projected.clone().slice([start..start + len, at * width..(at + 1) * width]);
                columns.reshape([len, self.heads, width / self.heads]).swap_dims(0, 1) // [heads, rows, head_dim]
            };
            let scores = part(1).matmul(self.query.val()); // [heads, rows, 1]
            let weights = softmax(scores, 1).swap_dims(1, 2); // [heads, 1, rows]
            weights.matmul(part(2)).reshape([1, width])
        });
        let context = Tensor::cat(pooled.collect(), 0); // [images, hidden]
        self.mlp.forward_onto(&self.layernorm, self.out_proj.forward(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(head: VitHead) -> VitConfig {
        VitConfig {
            image_size: 30,
            patch_px: 7,
            hidden: 24,
            layers: 2,
            heads: 4,
            inner: 40,
            norm_eps: 1e-6,
            act: HiddenAct::GeluTanh,
            head,
            flexible: false,
        }
    }

    #[test]
    fn a_square_has_as_many_rows_as_whole_patches_and_a_class() {
        let probe = config(VitHead::Probe);
        assert_eq!((probe.grid(), probe.rows(), probe.vector()), (4, 16, 24));
        let class = config(VitHead::Class { vector: 9 });
        assert_eq!((class.grid(), class.rows(), class.vector()), (4, 17, 9));
        let names = |config: &VitConfig| -> Vec<String> {
            let (_, specs) = Builder::describe("vision", |b| VitTower::build(config, b));
            specs.into_iter().map(|spec| spec.name).collect()
        };
        let of_class = names(&class);
        assert!(of_class.contains(&"vision.class_embedding".to_string()));
        assert!(!of_class.contains(&"vision.patch_embedding.bias".to_string()));
        let of_probe = names(&probe);
        assert!(of_probe.contains(&"vision.head.probe".to_string()));
        assert!(of_probe.contains(&"vision.patch_embedding.bias".to_string()));
        assert!(of_probe.iter().all(|name| !name.contains("pre_layrnorm")));
    }

    #[test]
    fn patches_wider_than_the_square_and_empty_sizes_are_refused_by_name() {
        let mut wide = config(VitHead::Probe);
        wide.patch_px = 31;
        assert!(wide.check().unwrap_err().to_string().starts_with("vision.patch_px = 31"));
        let empty = config(VitHead::Class { vector: 0 });
        assert_eq!(empty.check(), Err(ConfigError::Zero { field: "vision.head.vector".into() }));
        assert!(config(VitHead::Probe).check().is_ok());
    }
}
