//! Post-norm text encoders with rotary positions and a gated MLP: NomicBERT and the encoder of GTE.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use omniburn_kernels::{self as kernels, Activation, Segments};

use crate::batch::TokenRows;
use crate::blocks::attention::self_attention;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{LayerNorm, Linear, RotaryTable, TokenTable, VectorHead, VectorHeadConfig};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::family::{Pass, PassInput, RowActivations, StepKind, TextModel, Tokens};
use crate::flops::{self, Shape};
use crate::pass::{Layered, LayeredPass};
use crate::record::SourceAxes;

/// The MLP of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryMlp {
    /// `down(silu(gate) * up)`; gate and up are two matrices of a checkpoint.
    SwiGlu,
    /// `down(gelu(gate) * up)` by erf; a checkpoint has one matrix, up in front, or two.
    GeGlu,
    /// `down(gelu(up))` by erf.
    Gelu,
}

/// A mixture of experts in place of the MLP of some layers, each expert an MLP of [`RotaryMlp::Gelu`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a row goes to: those it is likeliest to go to.
    pub used: usize,
    /// A layer whose number leaves one over this is a mixture.
    pub every: usize,
}

/// Sizes of a [`RotaryEncoder`].
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryEncoderShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden` into even widths.
    pub heads: usize,
    /// Width of the gated MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Rotary frequency of each pair of a head, `[hidden / heads / 2]`.
    pub frequencies: Vec<f32>,
    /// Kinds of rows a checkpoint distinguishes, possibly none; only the first kind is used.
    pub token_types: usize,
    /// The MLP.
    pub mlp: RotaryMlp,
    /// The mixture of experts, where there is one.
    pub experts: Option<Experts>,
    /// Whether the products have biases, but for the one of gate and up, which never has.
    pub biased: bool,
}

/// Post-norm encoder over token rows.
///
/// # Source
/// transformers, `NomicBertModel`, revision 5.23.0; nomic-ai/nomic-bert-2048, `modeling_hf_nomic_bert.py`;
/// transformers, `GteModel`, revision 5.23.0; Alibaba-NLP/new-impl, `NewModel`.
#[derive(Module, Debug)]
pub struct RotaryEncoder {
    /// Row of the first kind, `[1, hidden]`.
    kind: Option<Param<Tensor<2>>>,
    norm: LayerNorm,
    layers: Vec<RotaryLayer>,
    #[module(skip)]
    frequencies: Vec<f32>,
}

#[derive(Module, Debug)]
struct RotaryLayer {
    qkv: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    /// Gate and up side by side, in the order of [`RotaryMlp`]; of a mixture, all experts side by side.
    mlp_in: Linear,
    mlp_out: Linear,
    mlp_norm: LayerNorm,
    /// What sends rows to experts, and how many they go to.
    router: Option<Linear>,
    experts_used: usize,
    heads: usize,
    #[module(skip)]
    mlp: RotaryMlp,
}

impl RotaryEncoder {
    /// The encoder, without the word embeddings.
    pub fn build(shape: &RotaryEncoderShape, b: &Builder<'_>) -> Self {
        let kind = |kinds| {
            let rows = b.rows("token_types.weight", [kinds, shape.hidden]);
            b.computed([1, shape.hidden], |_| rows.val().slice_dim(0, 0..1))
        };
        Self {
            kind: (shape.token_types > 0).then(|| kind(shape.token_types)),
            norm: b.layer_norm("norm", shape.hidden, shape.norm_eps),
            layers: (0..shape.layers)
                .map(|i| b.at(format!("layers.{i}"), |b| RotaryLayer::build(shape, i, b)))
                .collect(),
            frequencies: shape.frequencies.clone(),
        }
    }
}

impl RotaryLayer {
    fn build(shape: &RotaryEncoderShape, index: usize, b: &Builder<'_>) -> Self {
        let RotaryEncoderShape { hidden, heads, inner, norm_eps, mlp, biased, .. } = *shape;
        let experts = shape.experts.filter(|experts| index % experts.every == 1);
        let product = |name, inputs, outputs| {
            if biased { b.linear_biased(name, inputs, outputs) } else { b.linear(name, inputs, outputs) }
        };
        let part = |name| FusedPart { name, outputs: hidden, biased };
        Self {
            qkv: b.packed("attention.qkv", hidden, &["query", "key", "value"].map(part)),
            out: product("attention.out", hidden, hidden),
            attention_norm: b.layer_norm("attention.norm", hidden, norm_eps),
            mlp_in: match (&experts, mlp) {
                (Some(experts), _) => b.linear("mlp.experts.up", hidden, experts.count * inner),
                (None, RotaryMlp::SwiGlu) => b.gate_up("mlp.gate_up", hidden, inner, ["gate", "up"]),
                (None, RotaryMlp::GeGlu) => {
                    b.packed("mlp.up_gate", hidden, &["up", "gate"].map(|name| FusedPart::plain(name, inner)))
                }
                (None, RotaryMlp::Gelu) => product("mlp.fc1", hidden, inner),
            },
            mlp_out: match &experts {
                Some(experts) => {
                    b.convolution("mlp.experts.down", experts.count * inner, hidden, SourceAxes::InputsFirst)
                }
                None => product("mlp.down", inner, hidden),
            },
            mlp_norm: b.layer_norm("mlp.norm", hidden, norm_eps),
            router: experts.map(|experts| b.narrow("mlp.router", hidden, experts.count)),
            experts_used: experts.map_or(0, |experts| experts.used),
            heads,
            mlp,
        }
    }

    fn forward(&self, hidden: Tensor<2>, segments: &Segments, rotary: &RotaryTable, name: &str) -> Tensor<2> {
        let context = self_attention(&self.qkv, hidden.clone(), self.heads, segments, Some(rotary), &self.out);
        let context = capture::pass(|| format!("{name}.context"), context);
        let hidden = self.attention_norm.forward(self.out.forward_onto(context, hidden));
        let inner = match (&self.router, self.mlp) {
            (Some(router), _) => {
                let inner = self.mlp_in.activated(hidden.clone(), Activation::GeluErf); // [tokens, experts * inner]
                inner * self.shares(router, hidden.clone())
            }
            (None, RotaryMlp::Gelu) => self.mlp_in.forward_into(hidden.clone(), Activation::GeluErf, &self.mlp_out),
            (None, RotaryMlp::SwiGlu) => self.mlp_in.forward_into(hidden.clone(), Activation::SwiGlu, &self.mlp_out),
            (None, RotaryMlp::GeGlu) => {
                let both = self.mlp_in.forward(hidden.clone()); // [tokens, 2 * inner]
                let [tokens, width] = both.dims();
                let cut = |from: usize| both.clone().slice([0..tokens, from..from + width / 2]);
                kernels::gelu_erf(cut(width / 2)) * cut(0) // [tokens, inner]
            }
        };
        let hidden = self.mlp_norm.forward(self.mlp_out.forward_onto(inner, hidden));
        capture::pass(|| name.into(), hidden)
    }

    /// Share of each expert in a row, once for each inner value of it; zero but for the likeliest. Shares are not brought to
    /// a sum of one.
    ///
    /// # Shapes
    /// - `router`: hidden to experts; `hidden`: `[tokens, hidden]`; returns: `[tokens, experts * inner]`
    /// # Numerics
    /// f32, the router too, whatever the record's type: a share that is rounded sends a row elsewhere. Every expert is
    /// computed for every row, and most of it multiplied by zero: so no shape depends on values, and no device waits for
    /// the host.
    fn shares(&self, router: &Linear, hidden: Tensor<2>) -> Tensor<2> {
        let shares = softmax(router.forward(hidden), 1); // [tokens, experts]
        let [tokens, experts] = shares.dims();
        let used = self.experts_used;
        let least = shares.clone().topk(used, 1).slice([0..tokens, used - 1..used]).repeat_dim(1, experts);
        let kept = shares.clone().mask_fill(shares.lower(least), 0.0);
        let inner = self.mlp_in.outputs() / experts;
        kept.reshape([tokens, experts, 1]).repeat_dim(2, inner).reshape([tokens, experts * inner])
    }

    fn products(&self) -> [&Linear; 4] {
        [&self.qkv, &self.out, &self.mlp_in, &self.mlp_out]
    }

    fn flops(&self, tokens: usize) -> u64 {
        self.products().iter().map(|linear| linear.flops(tokens)).sum::<u64>()
            + flops::attention(tokens * tokens, self.out.inputs())
    }

    fn row_values(&self) -> usize {
        let (hidden, inner) = (self.out.outputs(), self.mlp_out.inputs());
        // Both halves of the MLP, the activated half, and their product; or inner rows, shares and their product.
        4 * hidden + (9 * hidden).max(6 * inner)
    }

    fn parameters(&self) -> usize {
        self.products().iter().map(|linear| linear.inputs() * linear.outputs()).sum()
    }
}

/// A [`RotaryEncoder`] opened: token rows on the host, the encoder on its device.
#[derive(Debug)]
pub struct RotaryText {
    /// The word embeddings.
    pub tokens: TokenTable,
    /// The encoder.
    pub encoder: RotaryEncoder,
    /// From rows to the vector.
    pub vector_head: VectorHead,
}

impl RotaryText {
    /// The encoder, `backbone.…`, between a token table of `vocab` rows and what makes vectors.
    pub fn build(
        shape: &RotaryEncoderShape,
        vocab: usize,
        vector_head: &VectorHeadConfig,
        b: &Builder<'_>,
        tokens: Tokens<'_>,
    ) -> Self {
        Self {
            tokens: tokens.table(vocab, shape.hidden),
            encoder: b.at("backbone", |b| RotaryEncoder::build(shape, b)),
            vector_head: VectorHead::build(vector_head, b),
        }
    }
}

/// A [`RotaryText`] between two of its layers.
pub struct RotaryState {
    hidden: Tensor<2>,
    segments: Segments,
    rotary: RotaryTable,
}

impl Layered for RotaryText {
    type State = RotaryState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> RotaryState {
        let (rows, segments) = with_padding(rows.rows, rows.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let positions: Vec<usize> = segments.positions().collect();
        let rotary = RotaryTable::with_frequencies(&positions, &self.encoder.frequencies, &rows.device());
        let rows = match &self.encoder.kind {
            Some(kind) => rows + kind.val(),
            None => rows,
        };
        let hidden = capture::pass(|| "backbone.norm".into(), self.encoder.norm.forward(rows));
        RotaryState { hidden, segments, rotary }
    }

    fn layers(&self) -> usize {
        self.encoder.layers.len()
    }

    fn layer(&self, index: usize, state: RotaryState) -> RotaryState {
        let RotaryState { hidden, segments, rotary } = state;
        let layer = &self.encoder.layers[index];
        let hidden = layer.forward(hidden, &segments, &rotary, &format!("backbone.layers.{index}"));
        RotaryState { hidden, segments, rotary }
    }

    fn leave(&self, state: RotaryState, skipped: &[usize]) -> Tensor<2> {
        let rows = without_padding(state.hidden, &state.segments);
        let segments = state.segments.with_padding(0);
        self.vector_head.forward(rows, &segments, skipped)
    }

    fn grouped(&self) -> Option<usize> {
        self.encoder.layers.iter().map(RotaryLayer::parameters).max()
    }
}

impl TextModel for RotaryText {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn step_layers(&self, rows: usize) -> usize {
        Layered::step_layers(self, rows)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => {
                let layers = self.encoder.layers.iter().map(|layer| layer.flops(*tokens)).sum::<u64>();
                Some(layers + self.vector_head.flops())
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        let layers = &self.encoder.layers;
        RowActivations {
            values: layers.iter().map(RotaryLayer::row_values).max().unwrap_or(0),
            heads: layers.first().map_or(0, |layer| layer.heads),
        }
    }
}
