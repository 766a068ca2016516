//! The text backbone: pre-norm decoder layers, used causally (Qwen3, Mistral) or bidirectionally (EuroBERT, Llama), and text
//! embedders that are such a backbone and nothing else.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use omniburn_kernels as kernels;
use omniburn_kernels::{Activation, Before, HeadSizes, Segments};
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::padding::{padded, with_padding, without_padding};
use crate::blocks::rope::inverse_frequencies;
use crate::blocks::{
    AnswerHead, Linear, Llama3Scaling, RmsNorm, RotaryTable, RowHeads, TokenTable, VectorHead, VectorHeadConfig,
};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::error::ConfigError;
use crate::family::{ModelSpec, Output, Pass, PassInput, StepKind, TextModel, Tokens};
use crate::flops::{self, RowActivations, Shape};
use crate::pass::{Ending, Layered, LayeredPass};

/// Shape and constants of a [`Backbone`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even, and not always `hidden / heads`.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub inner: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether a row sees only itself and earlier rows.
    pub causal: bool,
    /// Whether queries and keys are normalised per head before rotary.
    pub qk_norm: bool,
    /// Longest sequence the model was made for.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
}

impl BackboneConfig {
    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        crate::checks::layer_count("text.layers", self.layers)?;
        crate::checks::nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.kv_heads", self.kv_heads),
            ("text.head_dim", self.head_dim),
            ("text.inner", self.inner),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        crate::checks::multiple("text.heads", self.heads, "text.kv_heads", self.kv_heads)?;
        crate::checks::multiple("text.head_dim", self.head_dim, "rotary pairs", 2)?;
        crate::checks::positive("text.norm_eps", self.norm_eps)?;
        crate::checks::positive("text.rope_theta", self.rope_theta)
    }

    /// The backbone in words.
    pub fn words(&self) -> String {
        let Self { layers, hidden, heads, kv_heads, head_dim, max_tokens, vocab, .. } = *self;
        let direction = if self.causal { "causal" } else { "bidirectional" };
        format!(
            "{layers} layers of {hidden}, {heads} heads over {kv_heads} of {head_dim}, {direction}, {max_tokens} tokens at \
             most, table of {vocab} rows"
        )
    }
}

/// What some decoders have beside a [`BackboneConfig`]; the default has none of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BackboneOptions<'a> {
    /// Whether queries, keys and values have a bias each (Qwen2).
    pub qkv_bias: bool,
    /// How rotary positions are stretched, where they are (Llama 3.1).
    pub rope_scaling: Option<Llama3Scaling>,
    /// Convolutions in place of the attention of some layers (LFM2).
    pub convolutions: Option<ShortConvolutions<'a>>,
}

/// Which layers mix rows by a short convolution, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvolutions<'a> {
    /// One entry a layer: whether it has a convolution and no attention.
    pub layers: &'a [bool],
    /// Rows that a row is made of: itself and those before it.
    pub taps: usize,
    /// Whether products and convolution have a bias each.
    pub biased: bool,
}

/// What a forward may be given beside its rows; all of it is optional.
#[derive(Debug, Default)]
pub struct Extras {
    /// Rows added to the residual stream after layer `i`, `[tokens, hidden]` each (DeepStack).
    pub add_after_layer: Vec<Tensor<2>>,
    /// Rotary table in place of consecutive positions (three-axis positions, restarts).
    pub rotary: Option<RotaryTable>,
}

/// A pass of a [`Backbone`] between two of its layers: all that is kept while somebody else uses the device.
#[derive(Debug)]
pub struct BackbonePass {
    hidden: Tensor<2>,
    segments: Segments,
    rotary: RotaryTable,
    /// Of convolutions, where each earlier row of a window lies ([`earlier_rows`]).
    earlier: Vec<Tensor<1, Int>>,
    add_after_layer: Vec<Tensor<2>>,
    next: usize,
}

/// Decoder layers and a final norm.
///
/// # Source
/// transformers, `Qwen3Model` (causal, q/k norm), `EuroBertModel` (bidirectional, none), `Qwen2Model` (with biases),
/// `LlamaModel` (stretched positions) and `Lfm2Model` (convolutions), revision 5.23.0.
#[derive(Module, Debug)]
pub struct Backbone {
    layers: Vec<BackboneLayer>,
    norm: RmsNorm,
    head_dim: usize,
    rope_theta: f64,
    #[module(skip)]
    rope_scaling: Option<Llama3Scaling>,
    /// Rows of a convolution's window; 1 where no layer has one.
    taps: usize,
}

#[derive(Module, Debug)]
struct BackboneLayer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGluMlp,
}

#[derive(Module, Debug)]
struct Attention {
    qkv_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    o_proj: Linear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    causal: bool,
}

/// What brings rows of a sequence together.
#[derive(Module, Debug)]
enum Mixer {
    Attention(Attention),
    Convolution(ShortConvolution),
}

/// Depthwise convolution over the rows of a sequence, each of itself and the rows before it, between two gates.
#[derive(Module, Debug)]
struct ShortConvolution {
    /// Gate in front, gate behind, values: side by side.
    in_proj: Linear,
    /// `[hidden, 1, taps]`, the row itself last.
    taps: Param<Tensor<3>>,
    bias: Option<Param<Tensor<1>>>,
    out_proj: Linear,
}

/// Dense gated MLP. A mixture of experts will be a second type with the same `forward`, chosen by configuration.
#[derive(Module, Debug)]
struct SwiGluMlp {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Backbone {
    /// Layers and the final norm, without the token table.
    pub fn build(config: &BackboneConfig, b: &Builder<'_>) -> Self {
        Self::build_with(config, BackboneOptions::default(), b)
    }

    /// [`Backbone::build`] of a decoder that has some of these options.
    ///
    /// # Panics
    /// If convolutions are given for fewer layers than there are.
    pub fn build_with(config: &BackboneConfig, options: BackboneOptions<'_>, b: &Builder<'_>) -> Self {
        let layer = |i| b.at(format!("layers.{i}"), |b| BackboneLayer::build(config, options, i, b));
        Self {
            layers: (0..config.layers).map(layer).collect(),
            norm: b.rms_norm("norm", config.hidden, config.norm_eps),
            head_dim: config.head_dim,
            rope_theta: config.rope_theta,
            rope_scaling: options.rope_scaling,
            taps: options.convolutions.map_or(1, |convolutions| convolutions.taps),
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Values alive a row.
    pub fn activations(&self) -> RowActivations {
        let values = self.layers.iter().map(BackboneLayer::row_values).max().unwrap_or(0);
        RowActivations { values, heads: self.layers.iter().map(BackboneLayer::heads).max().unwrap_or(0) }
    }

    /// Operations on one sequence of this many rows.
    pub fn flops(&self, tokens: usize) -> u64 {
        self.layers.iter().map(|layer| layer.flops(tokens)).sum()
    }

    /// Hidden rows after the final norm.
    ///
    /// Positions count from zero in every segment; a causal row sees itself and earlier rows of its segment.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; returns: `[tokens, hidden]`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(&self, input: TokenRows) -> Tensor<2> {
        self.forward_with(input, Extras::default())
    }

    /// [`Backbone::forward`] with extras.
    ///
    /// # Shapes
    /// As [`Backbone::forward`].
    pub fn forward_with(&self, input: TokenRows, extras: Extras) -> Tensor<2> {
        let mut pass = self.begin(input, extras);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two layers; [`Backbone::forward_with`] is all of its steps.
    ///
    /// # Shapes
    /// As [`Backbone::forward`].
    pub fn begin(&self, input: TokenRows, extras: Extras) -> BackbonePass {
        let TokenRows { rows, segments } = input;
        let (rows, segments) = with_padding(rows, segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let rotary = match extras.rotary {
            Some(rotary) => rotary.with_padding(segments.padding()),
            None => self.rotary(&segments, &rows.device()),
        };
        let earlier = earlier_rows(&segments, self.taps, &rows.device());
        let added = extras.add_after_layer.into_iter();
        let add_after_layer = added.map(|added| padded(added, segments.padding())).collect();
        BackbonePass { hidden: rows, segments, rotary, earlier, add_after_layer, next: 0 }
    }

    /// Runs one more layer.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: BackbonePass) -> BackbonePass {
        let BackbonePass { hidden, segments, rotary, earlier, add_after_layer, next } = pass;
        let mut hidden = self.layers[next].forward(hidden, &segments, &rotary, &earlier, next); // [tokens, hidden]
        if let Some(added) = add_after_layer.get(next) {
            hidden = hidden + added.clone();
        }
        let hidden = capture::pass(|| format!("backbone.layers.{next}"), hidden);
        BackbonePass { hidden, segments, rotary, earlier, add_after_layer, next: next + 1 }
    }

    /// Whether every layer has run.
    pub fn is_done(&self, pass: &BackbonePass) -> bool {
        pass.next == self.layers.len()
    }

    /// Hidden rows after the final norm.
    ///
    /// # Shapes
    /// As [`Backbone::forward`].
    pub fn finish(&self, pass: BackbonePass) -> Tensor<2> {
        let hidden = without_padding(pass.hidden, &pass.segments);
        let hidden = self.norm.forward(hidden);
        capture::pass(|| "backbone.norm".into(), hidden)
    }

    /// The table of consecutive positions from zero in every segment.
    pub fn rotary(&self, segments: &Segments, device: &Device) -> RotaryTable {
        let positions: Vec<usize> = segments.positions().collect();
        self.rotary_at(&positions, device)
    }

    /// The table of given positions, one a row.
    pub fn rotary_at(&self, positions: &[usize], device: &Device) -> RotaryTable {
        let plain = inverse_frequencies(self.rope_theta, self.head_dim);
        let frequencies = match &self.rope_scaling {
            Some(scaling) => scaling.stretched(&plain),
            None => plain,
        };
        RotaryTable::with_frequencies(positions, &frequencies, device)
    }
}

/// For each distance from 1 to `taps - 1`, where each row finds the row so far before it in its segment: its place counted from
/// 1, and 0 where there is none.
fn earlier_rows(segments: &Segments, taps: usize, device: &Device) -> Vec<Tensor<1, Int>> {
    let rows = segments.rows();
    let place = |(row, position): (usize, usize), back: usize| if position < back { 0 } else { row - back + 1 };
    let of = |back: usize| {
        let index: Vec<i32> = segments.positions().enumerate().map(|row| place(row, back) as i32).collect();
        Tensor::from_data(TensorData::new(index, [rows]), device)
    };
    (1..taps).map(of).collect()
}

impl BackboneLayer {
    fn build(config: &BackboneConfig, options: BackboneOptions<'_>, index: usize, b: &Builder<'_>) -> Self {
        let BackboneConfig { hidden, inner, norm_eps, .. } = *config;
        let convolution = options.convolutions.filter(|convolutions| convolutions.layers[index]);
        Self {
            input_layernorm: b.rms_norm("input_layernorm", hidden, norm_eps),
            mixer: match convolution {
                Some(sizes) => Mixer::Convolution(b.at("conv", |b| ShortConvolution::build(hidden, sizes, b))),
                None => Mixer::Attention(b.at("self_attn", |b| Attention::build(config, options.qkv_bias, b))),
            },
            post_attention_layernorm: b.rms_norm("post_attention_layernorm", hidden, norm_eps),
            mlp: SwiGluMlp {
                gate_up_proj: b.gate_up("mlp.gate_up_proj", hidden, inner, ["gate_proj", "up_proj"]),
                down_proj: b.linear("mlp.down_proj", inner, hidden),
            },
        }
    }

    /// Operations of the products and of attention; the few taps of a convolution are none of them.
    fn flops(&self, tokens: usize) -> u64 {
        let [first, last] = self.mixer.products();
        let products = [first, last, &self.mlp.gate_up_proj, &self.mlp.down_proj];
        let mixed = match &self.mixer {
            Mixer::Attention(Attention { o_proj, causal, .. }) => {
                let pairs = if *causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
                flops::attention(pairs, o_proj.inputs())
            }
            Mixer::Convolution(_) => 0,
        };
        products.iter().map(|linear| linear.flops(tokens)).sum::<u64>() + mixed
    }

    fn heads(&self) -> usize {
        match &self.mixer {
            Mixer::Attention(attention) => attention.heads,
            Mixer::Convolution(_) => 0,
        }
    }

    fn row_values(&self) -> usize {
        let (mixed, inner) = (self.mixer.products()[0].outputs(), self.mlp.down_proj.inputs());
        4 * self.mlp.down_proj.outputs() + (3 * mixed).max(5 * inner)
    }

    fn forward(
        &self,
        hidden: Tensor<2>,
        segments: &Segments,
        rotary: &RotaryTable,
        earlier: &[Tensor<1, Int>],
        index: usize,
    ) -> Tensor<2> {
        let [first, last] = self.mixer.products();
        let normed = self.input_layernorm.forward_for(hidden.clone(), first);
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(normed, segments, rotary),
            Mixer::Convolution(convolution) => convolution.forward(normed, earlier),
        };
        let mixed = capture::pass(|| format!("backbone.layers.{index}.context"), mixed);
        let hidden = last.forward_onto(mixed, hidden);
        let normed = self.post_attention_layernorm.forward_for(hidden.clone(), &self.mlp.gate_up_proj);
        self.mlp.forward_onto(normed, hidden)
    }
}

impl Mixer {
    /// What its rows go through first and last.
    fn products(&self) -> [&Linear; 2] {
        match self {
            Mixer::Attention(attention) => [&attention.qkv_proj, &attention.o_proj],
            Mixer::Convolution(convolution) => [&convolution.in_proj, &convolution.out_proj],
        }
    }
}

impl ShortConvolution {
    fn build(hidden: usize, sizes: ShortConvolutions<'_>, b: &Builder<'_>) -> Self {
        let product = |name, outputs| match sizes.biased {
            true => b.linear_biased(name, hidden, outputs),
            false => b.linear(name, hidden, outputs),
        };
        Self {
            in_proj: product("in_proj", 3 * hidden),
            taps: b.exact("conv.weight", [hidden, 1, sizes.taps]),
            bias: sizes.biased.then(|| b.exact("conv.bias", [hidden])),
            out_proj: product("out_proj", hidden),
        }
    }

    /// What goes into the output product, `[tokens, hidden]`.
    ///
    /// # Numerics
    /// Gates, taps and their sum are f32; a row before the first of a sequence is zero.
    fn forward(&self, normed: Tensor<2>, earlier: &[Tensor<1, Int>]) -> Tensor<2> {
        let both = self.in_proj.forward(normed); // [tokens, 3 * hidden]
        let [tokens, width] = both.dims();
        let hidden = width / 3;
        let cut = |part: usize| both.clone().slice([0..tokens, part * hidden..(part + 1) * hidden]);
        let rows = cut(0) * cut(2); // [tokens, hidden]
        let taps = self.taps.val().reshape([hidden, earlier.len() + 1]).swap_dims(0, 1); // [taps, hidden]
        let tap = |back: usize| taps.clone().slice_dim(0, earlier.len() - back..earlier.len() - back + 1);
        let nothing = Tensor::zeros([1, hidden], (&rows.device(), DType::F32));
        // A row that is missing is the one of zeros in front.
        let found = Tensor::cat(vec![nothing, rows.clone()], 0);
        let mut sum = rows * tap(0);
        for (back, index) in earlier.iter().enumerate() {
            sum = sum + found.clone().select(0, index.clone()) * tap(back + 1);
        }
        if let Some(bias) = &self.bias {
            sum = sum + bias.val().unsqueeze::<2>();
        }
        sum * cut(1)
    }
}

impl Attention {
    fn build(config: &BackboneConfig, biased: bool, b: &Builder<'_>) -> Self {
        let (query, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let parts = [("q_proj", query), ("k_proj", kv), ("v_proj", kv)];
        let parts = parts.map(|(name, outputs)| FusedPart { name, outputs, biased });
        let head_norm = |name: &str| config.qk_norm.then(|| b.rms_norm(name, config.head_dim, config.norm_eps));
        Self {
            qkv_proj: b.fused("qkv_proj", config.hidden, &parts),
            q_norm: head_norm("q_norm"),
            k_norm: head_norm("k_norm"),
            o_proj: b.linear("o_proj", query, config.hidden),
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            causal: config.causal,
        }
    }

    /// What goes into the output product, `[tokens, heads * head_dim]`.
    fn forward(&self, normed: Tensor<2>, segments: &Segments, rotary: &RotaryTable) -> Tensor<2> {
        let qkv = self.qkv_proj.forward(normed); // [tokens, (heads + 2 kv_heads) * head_dim]
        let norms = self.q_norm.as_ref().zip(self.k_norm.as_ref()).map(|(query, key)| {
            let ((query, eps), (key, _)) = (query.parts(), key.parts());
            (query, key, eps)
        });
        let before = Before {
            norms,
            rotary: Some(rotary.tables()),
            causal: self.causal,
            low: self.qkv_proj.weight().is_low(),
            low_result: self.o_proj.weight().takes_bf16(),
            ..Before::default()
        };
        let Attention { heads, kv_heads, head_dim, .. } = *self;
        kernels::attend(qkv, HeadSizes { heads, kv_heads, head_dim }, segments, before)
    }
}

impl SwiGluMlp {
    fn forward_onto(&self, normed: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let inner = self.gate_up_proj.forward_into(normed, Activation::SwiGlu, &self.down_proj);
        self.down_proj.forward_onto(inner, residual)
    }
}

/// A text embedder that is a backbone between a token table and a head, opened.
#[derive(Debug)]
pub(crate) struct BackboneText {
    tokens: TokenTable,
    backbone: Backbone,
    head: VectorHead,
    /// Of a reranker, what makes a score of the pooled row.
    answers: Option<AnswerHead>,
    /// What rows give beside the vector.
    row_heads: RowHeads,
}

impl BackboneText {
    /// The embedder: `backbone.…` and `dense.…`.
    pub fn build(
        text: &BackboneConfig,
        options: BackboneOptions<'_>,
        head: &VectorHeadConfig,
        b: &Builder<'_>,
        tokens: Tokens<'_>,
    ) -> Self {
        let tokens = tokens.table(text.vocab, text.hidden);
        let backbone = b.at("backbone", |b| Backbone::build_with(text, options, b));
        Self::of(tokens, backbone, VectorHead::build(head, b))
    }

    /// Of parts that are opened.
    pub fn of(tokens: TokenTable, backbone: Backbone, head: VectorHead) -> Self {
        Self { tokens, backbone, head, answers: None, row_heads: RowHeads::default() }
    }

    /// What is before the first layer, with what a layer takes beside its rows.
    pub fn enter_with(&self, rows: TokenRows, extras: Extras) -> BackboneTextState {
        let segments = rows.segments.clone();
        BackboneTextState { layers: self.backbone.begin(rows, extras), segments }
    }

    /// The same with a head that makes scores.
    pub fn with_answers(self, answers: Option<AnswerHead>) -> Self {
        Self { answers, ..self }
    }

    /// The same with heads over rows.
    pub fn with_row_heads(self, row_heads: RowHeads) -> Self {
        Self { row_heads, ..self }
    }

    /// The rows behind the last layer and its norm, `[tokens, hidden]`, and where each sequence of them begins.
    pub fn finish(&self, state: BackboneTextState) -> (Tensor<2>, Segments) {
        (self.backbone.finish(state.layers), state.segments)
    }

    /// Sizes that other crates read.
    pub fn spec(text: &BackboneConfig, head: &VectorHeadConfig) -> ModelSpec {
        ModelSpec::of_texts(text.hidden, text.vocab, text.max_tokens, head)
    }
}

/// A [`BackboneText`] between two of its layers.
pub(crate) struct BackboneTextState {
    layers: BackbonePass,
    segments: Segments,
}

impl Layered for BackboneText {
    type State = BackboneTextState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> BackboneTextState {
        self.enter_with(rows, Extras::default())
    }

    fn layers(&self) -> usize {
        self.backbone.layers()
    }

    fn layer(&self, _: usize, state: BackboneTextState) -> BackboneTextState {
        BackboneTextState { layers: self.backbone.advance(state.layers), ..state }
    }

    fn leave(&self, state: BackboneTextState, skipped: &[usize]) -> Tensor<2> {
        self.head.forward(self.backbone.finish(state.layers), &state.segments, skipped)
    }

    fn end(&self, state: BackboneTextState, ending: &Ending) -> Output {
        let rows = self.backbone.finish(state.layers);
        let pooled = self.head.forward(rows.clone(), &state.segments, &ending.skipped);
        match &self.answers {
            Some(head) => Output::Scores(head.forward(pooled)),
            None => Output::with_rows(pooled, &rows, &self.row_heads, ending.wanted),
        }
    }
}

impl TextModel for BackboneText {
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
                let answers = self.answers.as_ref().map_or(0, AnswerHead::flops);
                Some(self.backbone.flops(*tokens) + self.head.flops() + answers)
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.backbone.activations()
    }
}
