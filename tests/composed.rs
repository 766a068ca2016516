//! The omni family composed of single operations, so that one of them can be another: the mistakes that neither a
//! configuration nor weights nor inputs can express. Each composition without a mistake equals the model within its
//! tolerance, which `controls` asserts.

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_kernels as kernels;
use omniburn_kernels::Segments;
use omniburn_media::PatchGrid;
use omniburn_models::batch::{Grid, TokenRows};
use omniburn_models::blocks::{Pooling, RotaryTable};
use omniburn_models::capture;
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::grid;

use crate::altered::Tensors;
use crate::direct::{Model, grids, values};

pub type Gelu = fn(Tensor<2>) -> Tensor<2>;

pub fn gelu_erf(x: Tensor<2>) -> Tensor<2> {
    kernels::gelu_erf(x)
}

pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    kernels::gelu_tanh(x)
}

fn matrix(values: Vec<f32>, width: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.clone(), [values.len() / width, width]), &Device::flex())
}

/// A product with its bias, where the record has one.
fn linear(tensors: &Tensors, x: Tensor<2>, path: &str) -> Tensor<2> {
    kernels::linear(x, tensors.tensor(&format!("{path}.weight")), Some(tensors.tensor(&format!("{path}.bias"))))
}

fn layer_norm(tensors: &Tensors, x: Tensor<2>, path: &str, eps: f64) -> Tensor<2> {
    kernels::layer_norm(x, tensors.tensor(&format!("{path}.weight")), tensors.tensor(&format!("{path}.bias")), eps)
}

/// Heads `from..from + count` of fused rows, `[rows, count, head_dim]`.
fn heads(fused: &Tensor<2>, from: usize, count: usize, head_dim: usize) -> Tensor<3> {
    let rows = fused.dims()[0];
    fused.clone().slice([0..rows, from * head_dim..(from + count) * head_dim]).reshape([rows, count, head_dim])
}

fn rotated(x: Tensor<3>, rotary: &RotaryTable) -> Tensor<3> {
    let (cos, sin) = rotary.tables();
    kernels::rotary(x, cos, sin)
}

/// The pre-norm blocks of a tower.
struct Blocks<'a> {
    prefix: &'a str,
    layers: usize,
    /// First norm, fused projection, output, second norm, both products of the MLP.
    names: [&'a str; 6],
    heads: usize,
    norm_eps: f64,
    gelu: Gelu,
}

impl Blocks<'_> {
    fn forward(
        &self,
        tensors: &Tensors,
        mut hidden: Tensor<2>,
        segments: &Segments,
        rotary: Option<&RotaryTable>,
    ) -> Tensor<2> {
        let [rows, width] = hidden.dims();
        let head_dim = width / self.heads;
        for layer in 0..self.layers {
            let [norm1, qkv, proj, norm2, fc1, fc2] = self.names.map(|name| format!("{}.{layer}.{name}", self.prefix));
            let fused = linear(tensors, layer_norm(tensors, hidden.clone(), &norm1, self.norm_eps), &qkv);
            let [query, key, value] = [0, 1, 2].map(|i| heads(&fused, i * self.heads, self.heads, head_dim));
            let [query, key] = [query, key].map(|x| rotary.map_or(x.clone(), |rotary| rotated(x, rotary)));
            let context = kernels::attention(query, key, value, segments, 1.0 / (head_dim as f64).sqrt(), false);
            hidden = hidden + linear(tensors, context.reshape([rows, width]), &proj);
            let normed = layer_norm(tensors, hidden.clone(), &norm2, self.norm_eps);
            hidden = hidden + linear(tensors, (self.gelu)(linear(tensors, normed, &fc1)), &fc2);
        }
        hidden
    }
}

/// Packed images on their way through the tower and the merger; a field changed is a mistake.
pub struct Images {
    embedded: Tensor<2>,
    grids: Vec<Grid>,
    pub positions: Tensor<2>,
    pub segments: Segments,
    pub rotary: Option<RotaryTable>,
    pub gelu: Gelu,
    pub merger_gelu: Gelu,
}

impl Images {
    pub fn new(model: &Model, items: &[PatchGrid]) -> Self {
        let config = model.config.vision.as_ref().unwrap();
        let (_, captured) = capture::collect(|| model.tower(items));
        let at = |name: &str| {
            let found = captured.iter().find(|c| c.name == name).unwrap();
            matrix(found.values.clone(), config.hidden)
        };
        let (grids, head_dim) = (grids(items), config.hidden / config.heads);
        let coordinates = grid::coordinates(&grids, config.merge);
        Self {
            embedded: at("vision.patch_embed"),
            positions: at("vision.positions"),
            segments: Segments::from_lengths(grid::windows(&grids)),
            rotary: Some(RotaryTable::plane(&coordinates, head_dim, config.rope_theta, &model.device)),
            gelu: gelu_tanh,
            merger_gelu: gelu_erf,
            grids,
        }
    }

    /// The position table blended over a grid: `at` says where patch `index` of `size` lies on an axis of `side` rows.
    pub fn blend(&mut self, model: &Model, tensors: &Tensors, merge: usize, at: fn(usize, usize, usize) -> f32) {
        let config = model.config.vision.as_ref().unwrap();
        let (side, hidden, grid) = (config.position_side(), config.hidden, self.grids[0]);
        let table = tensors.values("vision.pos_embed.weight");
        let mut positions = Vec::new();
        for (row, column) in grid::coordinates(&[grid], merge) {
            let axis = |at: f32| {
                let low = at.floor();
                [(low as usize, 1.0 - (at - low)), ((low as usize + 1).min(side - 1), at - low)]
            };
            let corners = axis(at(row, grid.h, side)).map(|(row, down)| {
                axis(at(column, grid.w, side)).map(|(column, across)| (row * side + column, down * across))
            });
            let value = |i: usize| {
                corners.as_flattened().iter().map(|(row, share)| table[row * hidden + i] * share).sum::<f32>()
            };
            positions.extend((0..hidden).map(value));
        }
        self.positions = matrix(positions, hidden);
    }

    pub fn features(self, model: &Model, tensors: &Tensors) -> Vec<f32> {
        let config = model.config.vision.as_ref().unwrap();
        let blocks = Blocks {
            prefix: "vision.blocks",
            layers: config.layers,
            names: ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.linear_fc1", "mlp.linear_fc2"],
            heads: config.heads,
            norm_eps: config.norm_eps,
            gelu: self.gelu,
        };
        let rows = blocks.forward(tensors, self.embedded + self.positions, &self.segments, self.rotary.as_ref());
        let normed = layer_norm(tensors, rows, "merger.norm", config.norm_eps);
        let ([patches, width], block) = (normed.dims(), config.merge * config.merge);
        let merged = normed.reshape([patches / block, width * block]);
        let inner = (self.merger_gelu)(linear(tensors, merged, "merger.linear_fc1"));
        values(linear(tensors, inner, "merger.linear_fc2"))
    }
}

/// An audio clip on its way through the tower and the projector; a field changed is a mistake.
pub struct Audio<'a> {
    mel: &'a [f32],
    windows: Vec<usize>,
    pub segments: Segments,
    /// The place of each row in the position table.
    pub places: Vec<usize>,
    pub gelu: Gelu,
}

impl<'a> Audio<'a> {
    pub fn new(model: &Model, mel: &'a [f32]) -> Self {
        let config = model.config.audio.as_ref().unwrap();
        let windows = config.windows(mel.len() / config.mels);
        let lengths: Vec<usize> = windows.iter().map(|&frames| AudioConfig::window_rows(frames)).collect();
        let places = lengths.iter().flat_map(|&rows| 0..rows).collect();
        Self { mel, windows, segments: Segments::from_lengths(lengths), places, gelu: gelu_erf }
    }

    pub fn features(self, model: &Model, tensors: &Tensors) -> Vec<f32> {
        let config = model.config.audio.as_ref().unwrap();
        let first = self.convolved(tensors, matrix(self.mel.to_vec(), config.mels), "audio.conv1", 1);
        let second = self.convolved(tensors, first, "audio.conv2", 2);
        let positions = self.places.iter().flat_map(|&place| sinusoid(place, config.hidden)).collect();
        let blocks = Blocks {
            prefix: "audio.layers",
            layers: config.layers,
            names: [
                "self_attn_layer_norm",
                "self_attn.qkv_proj",
                "self_attn.out_proj",
                "final_layer_norm",
                "fc1",
                "fc2",
            ],
            heads: config.heads,
            norm_eps: config.norm_eps,
            gelu: self.gelu,
        };
        let rows = blocks.forward(tensors, second + matrix(positions, config.hidden), &self.segments, None);
        values(model.text.project(model.sound.as_ref().unwrap().pool(rows)))
    }

    /// A convolution of three rows as a product, with zeros outside each window.
    fn convolved(&self, tensors: &Tensors, rows: Tensor<2>, path: &str, stride: usize) -> Tensor<2> {
        let width = rows.dims()[1];
        let rows = values(rows);
        let (mut gathered, mut start) = (Vec::new(), 0);
        for &frames in &self.windows {
            for (center, offset) in
                (0..frames).step_by(stride).flat_map(|center| [0, 1, 2].map(|offset| (center, offset)))
            {
                match (center + offset).checked_sub(1).filter(|&frame| frame < frames) {
                    Some(frame) => gathered.extend(&rows[(start + frame) * width..][..width]),
                    None => gathered.extend(std::iter::repeat_n(0.0, width)),
                }
            }
            start += frames;
        }
        (self.gelu)(linear(tensors, matrix(gathered, 3 * width), path))
    }
}

/// A row of the sinusoid table, as `SinusoidsPositionEmbedding` of transformers makes it.
fn sinusoid(place: usize, hidden: usize) -> Vec<f32> {
    let half = hidden / 2;
    let step = (10_000f64.ln() / (half as f64 - 1.0)) as f32;
    let angles = (0..half).map(|i| f64::from(place as f32 * (-step * i as f32).exp()));
    angles.clone().map(|a| a.sin() as f32).chain(angles.map(|a| a.cos() as f32)).collect()
}

/// One pooled row of a text; the q/k norm before the rotary, as it should be, or after it.
pub fn text(model: &Model, tensors: &Tensors, ids: &[u32], norm_first: bool) -> Vec<f32> {
    let config = &model.config.text;
    let TokenRows { rows: mut hidden, segments } = model.text_rows(&[ids.to_vec()]);
    let (tokens, head_dim) = (ids.len(), config.head_dim);
    let rotary = model.text.backbone.rotary(&segments, &model.device);
    let norm =
        |x: Tensor<2>, path: &str| kernels::rms_norm(x, tensors.tensor(&format!("{path}.weight")), config.norm_eps);
    let product = |x: Tensor<2>, path: &str| kernels::linear(x, tensors.tensor(&format!("{path}.weight")), None);
    for layer in 0..config.layers {
        let path = |name: &str| format!("backbone.layers.{layer}.{name}");
        let fused = product(norm(hidden.clone(), &path("input_layernorm")), &path("self_attn.qkv_proj"));
        let head_norm = |x: Tensor<3>, name: &str| match config.qk_norm {
            true => kernels::rms_norm(x, tensors.tensor(&path(&format!("self_attn.{name}.weight"))), config.norm_eps),
            false => x,
        };
        let place = |x: Tensor<3>, name: &str| match norm_first {
            true => rotated(head_norm(x, name), &rotary),
            false => head_norm(rotated(x, &rotary), name),
        };
        let query = place(heads(&fused, 0, config.heads, head_dim), "q_norm");
        let key = place(heads(&fused, config.heads, config.kv_heads, head_dim), "k_norm");
        let value = heads(&fused, config.heads + config.kv_heads, config.kv_heads, head_dim);
        let scale = 1.0 / (head_dim as f64).sqrt();
        let context = kernels::attention(query, key, value, &segments, scale, config.causal);
        hidden = hidden + product(context.reshape([tokens, config.heads * head_dim]), &path("self_attn.o_proj"));
        let inner = product(norm(hidden.clone(), &path("post_attention_layernorm")), &path("mlp.gate_up_proj"));
        hidden = hidden + product(kernels::swiglu(inner), &path("mlp.down_proj"));
    }
    values(Pooling::LastToken.apply(norm(hidden, "backbone.norm"), &segments))
}
