//! Gemma 3 text embedders (EmbeddingGemma): pre- and post-norms around each half of a layer, norms of queries and keys, layers
//! that see a window beside those that see all, each kind with its own rotary base, in both directions.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::{Before, HeadSizes, Segments};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::TokenRows;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{Linear, RmsNorm, RotaryTable, TokenTable, VectorHead, VectorHeadConfig};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::checkpoint::{CheckpointFolder, GgufRules, Steps};
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::error::ConfigError;
use crate::families::qwen3::KEYS;
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens,
    config,
};
use crate::flops;
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "gemma3_text",
    about: "Gemma 3 text embedders (EmbeddingGemma): text",
    read: config::<Gemma3Config>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["gemma3_text"],
    is_architecture: |name| name == "Gemma3TextModel" || name == "Gemma3ForCausalLM",
    known_as: "a Gemma 3 text embedder",
    keys: KEYS,
    names: &[("backbone.", "")],
    read: |folder| Box::new(read(folder)),
    steps: Steps { gguf: GGUF, ..Steps::TEXT },
};

/// As llama.cpp writes EmbeddingGemma.
const GGUF: &[GgufRules] = &[GgufRules {
    architectures: &["gemma-embedding"],
    model_type: "gemma3_text",
    names: &[
        ("token_embd.", "embed_tokens."),
        ("output_norm.", "norm."),
        ("blk.", "layers."),
        (".attn_q_norm.", ".self_attn.q_norm."),
        (".attn_k_norm.", ".self_attn.k_norm."),
        (".attn_norm.", ".input_layernorm."),
        (".attn_q.", ".self_attn.q_proj."),
        (".attn_k.", ".self_attn.k_proj."),
        (".attn_v.", ".self_attn.v_proj."),
        (".attn_output.", ".self_attn.o_proj."),
        (".post_attention_norm.", ".post_attention_layernorm."),
        (".ffn_norm.", ".pre_feedforward_layernorm."),
        (".post_ffw_norm.", ".post_feedforward_layernorm."),
        (".ffn_gate.", ".mlp.gate_proj."),
        (".ffn_up.", ".mlp.up_proj."),
        (".ffn_down.", ".mlp.down_proj."),
    ],
    fields: &[
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        // Scores are divided by the square root of a head's numbers there.
        ("attention.key_length", "query_pre_attn_scalar"),
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("attention.sliding_window", "sliding_window"),
        ("attention.sliding_window_pattern", "sliding_window_pattern"),
        ("rope.freq_base", "rope_theta"),
        ("rope.freq_base_swa", "rope_local_base_freq"),
    ],
    constants: &[("hidden_activation", "\"gelu_pytorch_tanh\""), ("use_bidirectional_attention", "true")],
    rotary_pairs: false,
    norms_from_zero: true,
    dense: &["dense_2", "dense_3"],
}];

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemma3Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub inner: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f64,
    /// Scores are divided by its square root.
    pub query_scalar: f64,
    /// One entry a layer: whether its rows see all rows, or only those of a window.
    pub sees_all: Vec<bool>,
    /// Rows on each side that a row of a window layer sees.
    pub window: usize,
    /// Base of the rotary frequencies of layers that see all.
    pub rope_theta: f64,
    /// Base of the rotary frequencies of window layers.
    pub window_rope_theta: f64,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
}

impl Architecture for Gemma3Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        layer_count("text.sees_all", self.sees_all.len())?;
        nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.kv_heads", self.kv_heads),
            ("text.head_dim", self.head_dim),
            ("text.inner", self.inner),
            ("text.window", self.window),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        multiple("text.heads", self.heads, "text.kv_heads", self.kv_heads)?;
        multiple("text.head_dim", self.head_dim, "rotary pairs", 2)?;
        self.vector_head.check(self.hidden)?;
        positive("text.norm_eps", self.norm_eps)?;
        positive("text.query_scalar", self.query_scalar)?;
        positive("text.rope_theta", self.rope_theta)?;
        positive("text.window_rope_theta", self.window_rope_theta)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let tokens = tokens.table(self.vocab, self.hidden);
        let layers = b.at("backbone", |b| Gemma3Layers::build(self, b));
        let head = VectorHead::build(&self.vector_head, b);
        Arc::new(Gemma3Text { tokens, layers, head, config: self.clone() })
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let (layers, all) = (self.sees_all.len(), self.sees_all.iter().filter(|all| **all).count());
        let Self { hidden, heads, kv_heads, head_dim, window, max_tokens, vocab, .. } = self;
        let sight = format!("{all} of them over all rows, the others over {window} on each side");
        let words = format!("{layers} layers of {hidden}, {heads} heads over {kv_heads} of {head_dim}, {sight}");
        vec![("text", format!("{words}, {max_tokens} tokens at most, table of {vocab} rows"))]
    }
}

/// Layers and the final norm.
///
/// # Numerics
/// The gain of every norm is one plus what is stored, added when a record is opened. The gain of the queries' norm has the
/// factor between the kernels' scale of the scores and this family's in it, `sqrt(head_dim / query_scalar)`.
/// # Source
/// transformers, `Gemma3TextModel` with `use_bidirectional_attention`, revision 5.24.0; Vera et al. 2025 (arXiv 2509.20354).
#[derive(Module, Debug)]
struct Gemma3Layers {
    layers: Vec<Gemma3Layer>,
    norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Gemma3Layer {
    input_layernorm: RmsNorm,
    qkv_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    gate_up_proj: Linear,
    down_proj: Linear,
    post_feedforward_layernorm: RmsNorm,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
}

/// An RMSNorm with the gain `(1 + weight) * factor`.
fn norm(b: &Builder<'_>, name: &str, width: usize, eps: f64, factor: f64) -> RmsNorm {
    let weight = b.exact(&format!("{name}.weight"), [width]);
    RmsNorm::new(b.computed([width], |_| (weight.val() + 1.0) * factor), eps)
}

impl Gemma3Layers {
    fn build(config: &Gemma3Config, b: &Builder<'_>) -> Self {
        let layer = |i| b.at(format!("layers.{i}"), |b| Gemma3Layer::build(config, i, b));
        Self {
            layers: (0..config.sees_all.len()).map(layer).collect(),
            norm: norm(b, "norm", config.hidden, config.norm_eps, 1.0),
        }
    }
}

impl Gemma3Layer {
    fn build(config: &Gemma3Config, index: usize, b: &Builder<'_>) -> Self {
        let Gemma3Config { hidden, heads, kv_heads, head_dim, inner, norm_eps, query_scalar, window, .. } = *config;
        let wide = |name: &str| norm(b, name, hidden, norm_eps, 1.0);
        let scale = (head_dim as f64 / query_scalar).sqrt();
        let (query, kv) = (heads * head_dim, kv_heads * head_dim);
        let qkv = [("q_proj", query), ("k_proj", kv), ("v_proj", kv)].map(|(name, n)| FusedPart::plain(name, n));
        let gate_up = ["gate_proj", "up_proj"].map(|name| FusedPart::plain(name, inner));
        Self {
            input_layernorm: wide("input_layernorm"),
            qkv_proj: b.fused("self_attn.qkv_proj", hidden, &qkv),
            q_norm: norm(b, "self_attn.q_norm", head_dim, norm_eps, scale),
            k_norm: norm(b, "self_attn.k_norm", head_dim, norm_eps, 1.0),
            o_proj: b.linear("self_attn.o_proj", query, hidden),
            post_attention_layernorm: wide("post_attention_layernorm"),
            pre_feedforward_layernorm: wide("pre_feedforward_layernorm"),
            gate_up_proj: b.fused("mlp.gate_up_proj", hidden, &gate_up),
            down_proj: b.linear("mlp.down_proj", inner, hidden),
            post_feedforward_layernorm: wide("post_feedforward_layernorm"),
            heads,
            kv_heads,
            head_dim,
            window: (!config.sees_all[index]).then_some(window),
        }
    }

    fn forward(&self, hidden: Tensor<2>, segments: &Segments, rotary: &RotaryTable, name: &str) -> Tensor<2> {
        let normed = self.input_layernorm.forward_for(hidden.clone(), &self.qkv_proj);
        let ((query, eps), (key, _)) = (self.q_norm.parts(), self.k_norm.parts());
        let before = Before {
            norms: Some((query, key, eps)),
            rotary: Some(rotary.tables()),
            window: self.window,
            low: self.qkv_proj.weight().is_low(),
            low_result: self.o_proj.weight().takes_bf16(),
            ..Before::default()
        };
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let qkv = self.qkv_proj.forward(normed); // [tokens, (heads + 2 kv_heads) * head_dim]
        let context = kernels::attend(qkv, HeadSizes { heads, kv_heads, head_dim }, segments, before);
        let context = capture::pass(|| format!("{name}.context"), context);
        let attended = self.post_attention_layernorm.forward(self.o_proj.forward(context));
        let hidden = hidden + attended; // [tokens, hidden]
        let normed = self.pre_feedforward_layernorm.forward_for(hidden.clone(), &self.gate_up_proj);
        let gated = self.gate_up_proj.forward(normed); // [tokens, 2 * inner]
        let [tokens, both] = gated.dims();
        let cut = |from: usize| gated.clone().slice([0..tokens, from..from + both / 2]);
        let inner = kernels::gelu_tanh(cut(0)) * cut(both / 2); // [tokens, inner]
        let hidden = hidden + self.post_feedforward_layernorm.forward(self.down_proj.forward(inner));
        capture::pass(|| name.into(), hidden)
    }

    fn products(&self) -> [&Linear; 4] {
        [&self.qkv_proj, &self.o_proj, &self.gate_up_proj, &self.down_proj]
    }

    fn flops(&self, tokens: usize) -> u64 {
        let products = self.products().iter().map(|linear| linear.flops(tokens)).sum::<u64>();
        products + flops::attention(flops::pairs(tokens, self.window), self.o_proj.inputs())
    }

    fn row_values(&self) -> usize {
        let (qkv, hidden, inner) = (self.qkv_proj.outputs(), self.o_proj.outputs(), self.down_proj.inputs());
        // Both halves of the MLP, the activated half, and their product.
        4 * hidden + (3 * qkv).max(6 * inner)
    }
}

/// The family opened: token rows on the host, the layers on their device.
#[derive(Debug)]
struct Gemma3Text {
    tokens: TokenTable,
    layers: Gemma3Layers,
    head: VectorHead,
    config: Gemma3Config,
}

/// A [`Gemma3Text`] between two of its layers.
struct State {
    hidden: Tensor<2>,
    segments: Segments,
    /// Of layers that see all, and of window layers.
    rotary: [RotaryTable; 2],
}

impl Layered for Gemma3Text {
    type State = State;

    /// Token rows are multiplied by the square root of their width, rounded to f32.
    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> State {
        let Gemma3Config { hidden, head_dim, rope_theta, window_rope_theta, .. } = self.config;
        let (rows, segments) = with_padding(rows.rows, rows.segments);
        let hidden = capture::pass(|| "backbone.rows".into(), rows * (hidden as f64).sqrt() as f32);
        let positions: Vec<usize> = segments.positions().collect();
        let table = |base| RotaryTable::sequence(&positions, head_dim, base, &hidden.device());
        let rotary = [table(rope_theta), table(window_rope_theta)];
        State { hidden, segments, rotary }
    }

    fn layers(&self) -> usize {
        self.layers.layers.len()
    }

    fn layer(&self, index: usize, state: State) -> State {
        let State { hidden, segments, rotary } = state;
        let layer = &self.layers.layers[index];
        let table = &rotary[usize::from(layer.window.is_some())];
        let hidden = layer.forward(hidden, &segments, table, &format!("backbone.layers.{index}"));
        State { hidden, segments, rotary }
    }

    fn leave(&self, state: State, skipped: &[usize]) -> Tensor<2> {
        let rows = self.layers.norm.forward(without_padding(state.hidden, &state.segments));
        let rows = capture::pass(|| "backbone.norm".into(), rows);
        self.head.forward(rows, &state.segments.with_padding(0), skipped)
    }

    fn grouped(&self) -> Option<usize> {
        let parameters = |layer: &Gemma3Layer| layer.products().iter().map(|l| l.inputs() * l.outputs()).sum();
        self.layers.layers.first().map(parameters)
    }
}

impl TextModel for Gemma3Text {
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
                let layers = self.layers.layers.iter().map(|layer| layer.flops(*tokens));
                Some(layers.sum::<u64>() + self.head.flops())
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        let values = self.layers.layers.first().map_or(0, Gemma3Layer::row_values);
        RowActivations { values, heads: self.config.heads }
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Gemma3Config {
    folder.refuse_common();
    let text = folder.config;
    text.only_text("hidden_activation", "gelu_pytorch_tanh");
    text.only_flag("attention_bias", false);
    if text.flag("use_bidirectional_attention") != Some(true) {
        text.fault(
            "use_bidirectional_attention",
            "true: rows that see only earlier ones are not computed in this family",
        );
    }
    if text.get("attn_logit_softcapping").is_some() {
        text.fault("attn_logit_softcapping", "nothing: scores are not capped");
    }
    let sees_all = sees_all(folder);
    let (rope_theta, window_rope_theta) = rope_thetas(folder);
    // Both ways: half of the configuration's number on each side, itself not counted.
    let window = text.size("sliding_window").unwrap_or(4096) / 2;
    if window == 0 {
        text.fault("sliding_window", "at least 2");
    }
    let heads = text.needed_size("num_attention_heads");
    let scalar = text.number("query_pre_attn_scalar").unwrap_or(256.0);
    if scalar.is_nan() || scalar <= 0.0 {
        text.fault("query_pre_attn_scalar", "a positive number");
    }
    Gemma3Config {
        hidden: text.needed_size("hidden_size"),
        heads,
        kv_heads: text.size("num_key_value_heads").unwrap_or(4),
        head_dim: text.size("head_dim").unwrap_or(256),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("rms_norm_eps").unwrap_or(1e-6),
        query_scalar: scalar,
        sees_all,
        window,
        rope_theta,
        window_rope_theta,
        max_tokens: folder.text.limit(text.needed_size("max_position_embeddings")),
        vocab: text.needed_size("vocab_size"),
        vector_head: folder.text.vector_head.clone(),
    }
}

/// Which layers see all rows: as listed, or every sixth unless another number is said.
fn sees_all(folder: &CheckpointFolder<'_>) -> Vec<bool> {
    let text = folder.config;
    let layers = folder.layers("num_hidden_layers");
    let Some(kinds) = text.list("layer_types", "a list of strings", Value::as_str) else {
        let every = text.size("sliding_window_pattern").unwrap_or(6);
        return (1..=layers).map(|layer| layer % every == 0).collect();
    };
    let known = ["full_attention", "sliding_attention"];
    if kinds.len() != layers || kinds.iter().any(|kind| !known.contains(kind)) {
        text.fault("layer_types", format!("{} or {} for each of {layers} layers", known[0], known[1]));
    }
    kinds.iter().map(|kind| *kind == known[0]).collect()
}

/// Bases of the rotary frequencies, of layers that see all and of window layers: as transformers 4 and 5 write them.
fn rope_thetas(folder: &CheckpointFolder<'_>) -> (f64, f64) {
    let text = folder.config;
    for (name, _) in folder.inner("rope_parameters", "rope_parameters.").present() {
        if name != "full_attention" && name != "sliding_attention" {
            folder.inner("rope_parameters", "rope_parameters.").fault(name, "parameters by kind of layer");
        }
    }
    let scaling = folder.inner("rope_scaling", "rope_scaling.");
    if scaling.present().next().is_some() {
        text.fault("rope_scaling", "nothing: positions are plain");
    }
    if text.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
        text.fault("partial_rotary_factor", "1.0");
    }
    let nested = text.get("rope_parameters");
    let of = |kind: &str, at: &'static str, flat: &str, default: f64| {
        let rope = crate::checkpoint::Fields::new(at, nested.and_then(|nested| nested.get(kind)), folder.faults);
        for field in ["rope_type", "type"] {
            rope.only_text(field, "default");
        }
        if rope.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
            rope.fault("partial_rotary_factor", "1.0");
        }
        rope.number("rope_theta").or(text.number(flat)).unwrap_or(default)
    };
    (
        of("full_attention", "rope_parameters.full_attention.", "rope_theta", 1_000_000.0),
        of("sliding_attention", "rope_parameters.sliding_attention.", "rope_local_base_freq", 10_000.0),
    )
}
