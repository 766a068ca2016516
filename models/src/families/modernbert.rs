//! ModernBERT: a pre-norm encoder with rotary positions, gated MLPs, and layers that see a window beside those that see all
//! (gte-modernbert, granite-embedding, Ettin), and cross encoders of it (gte-reranker-modernbert).

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::{Before, HeadSizes, Segments};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::TokenRows;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{
    HeadActivation, LayerNorm, Linear, Pooling, RotaryTable, RowHeads, RowHeadsConfig, ScoreHead, ScoreHeadConfig,
    TokenTable, VectorHead, VectorHeadConfig,
};
use crate::builder::Builder;
use crate::capture;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps};
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::error::ConfigError;
use crate::families::bert::{check_head, check_row_heads, outputs, score_head};
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Output, Pass, PassInput, RowActivations, StepKind, TextModel,
    Tokens, config,
};
use crate::flops;
use crate::flops::Shape;
use crate::pass::{Ending, Layered, LayeredPass};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "modernbert",
    about: "ModernBERT (gte-modernbert, granite-embedding, gte-reranker-modernbert): text",
    read: config::<ModernBertConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["modernbert"],
    is_architecture: |name| {
        name.strip_prefix("ModernBert").is_some_and(|rest| rest == "Model" || rest.starts_with("For"))
    },
    known_as: "a ModernBERT encoder",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Prefix("head."), "an embedding takes no head: this one guesses masked words or classes"),
            (Pattern::Prefix("decoder."), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Contains("inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[
        ("embed_tokens.", "embeddings.tok_embeddings."),
        ("backbone.norm.", "embeddings.norm."),
        ("head.rows.", "dense."),
        ("head.classifier.", "classifier."),
        ("backbone.", ""),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Dense layer, norm, last layer: what a cross encoder makes its score with.
const HEAD_NAMES: [&str; 3] = ["dense", "norm", "classifier"];

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModernBertConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the gated MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
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
    /// What makes a score of the pooled row; absent in a model that gives vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<ScoreHeadConfig>,
    /// What rows give beside the vector; absent where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_heads: Option<RowHeadsConfig>,
}

impl ModernBertConfig {
    /// Refuses an expansion of queries whose last row may see nothing through a window.
    fn check_expansion(&self) -> Result<(), ConfigError> {
        let expansion = self.row_heads.as_ref().and_then(|heads| heads.late.as_ref()?.expansion);
        match expansion {
            Some(behind) if !behind.attended && behind.length > self.window && self.sees_all.contains(&false) => {
                Err(ConfigError::OutOfRange {
                    field: "text.row_heads.late.expansion.length".into(),
                    found: behind.length.to_string(),
                    expected: format!("at most {}, what a row of a window layer sees on each side", self.window),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Architecture for ModernBertConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        layer_count("text.sees_all", self.sees_all.len())?;
        nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.inner", self.inner),
            ("text.window", self.window),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        multiple("text.hidden", self.hidden, "text.heads", self.heads)?;
        multiple("text head width", self.hidden / self.heads, "rotary pairs", 2)?;
        self.vector_head.check(self.hidden)?;
        check_head(self.head.as_ref(), &self.vector_head, 1)?;
        check_row_heads(self.row_heads.as_ref(), self.head.as_ref(), [self.hidden, self.vocab, self.max_tokens])?;
        self.check_expansion()?;
        positive("text.norm_eps", self.norm_eps)?;
        positive("text.rope_theta", self.rope_theta)?;
        positive("text.window_rope_theta", self.window_rope_theta)
    }

    fn spec(&self) -> ModelSpec {
        let spec = ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head);
        ModelSpec {
            vector: if self.head.is_some() { 1 } else { spec.vector },
            outputs: outputs(self.head.as_ref(), self.row_heads.as_ref()),
            ..spec
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let tokens = tokens.table(self.vocab, self.hidden);
        let encoder = b.at("backbone", |b| ModernBertEncoder::build(self, b));
        let vector_head = VectorHead::build(&self.vector_head, b);
        let head = score_head(self.head.as_ref(), HEAD_NAMES, b, self.hidden, self.norm_eps);
        let row_heads = RowHeads::build_some(self.row_heads.as_ref(), b, self.hidden);
        Arc::new(ModernBertText { tokens, encoder, vector_head, head, row_heads, config: self.clone() })
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let (layers, all) = (self.sees_all.len(), self.sees_all.iter().filter(|all| **all).count());
        let Self { hidden, heads, window, max_tokens, vocab, .. } = self;
        let sight = format!("{all} of them over all rows, the others over {window} on each side");
        let words = format!("{layers} encoder layers of {hidden}, {heads} heads, {sight}");
        vec![("text", format!("{words}, {max_tokens} tokens at most, table of {vocab} rows"))]
    }
}

/// Pre-norm layers over token rows.
///
/// # Source
/// transformers, `ModernBertModel`, revision 5.24.0; Warner et al. 2024 (arXiv 2412.13663).
#[derive(Module, Debug)]
struct ModernBertEncoder {
    norm: LayerNorm,
    layers: Vec<ModernBertLayer>,
    final_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct ModernBertLayer {
    /// Absent in the first layer, whose rows are normalised already.
    attn_norm: Option<LayerNorm>,
    qkv: Linear,
    attn_out: Linear,
    mlp_norm: LayerNorm,
    /// Gate and up side by side.
    mlp_in: Linear,
    mlp_out: Linear,
    heads: usize,
    window: Option<usize>,
}

impl ModernBertEncoder {
    fn build(config: &ModernBertConfig, b: &Builder<'_>) -> Self {
        let ModernBertConfig { hidden, norm_eps, .. } = *config;
        let layer = |i| b.at(format!("layers.{i}"), |b| ModernBertLayer::build(config, i, b));
        Self {
            norm: b.layer_norm_unbiased("norm", hidden, norm_eps),
            layers: (0..config.sees_all.len()).map(layer).collect(),
            final_norm: b.layer_norm_unbiased("final_norm", hidden, norm_eps),
        }
    }
}

impl ModernBertLayer {
    fn build(config: &ModernBertConfig, index: usize, b: &Builder<'_>) -> Self {
        let ModernBertConfig { hidden, heads, inner, norm_eps, window, .. } = *config;
        Self {
            attn_norm: (index > 0).then(|| b.layer_norm_unbiased("attn_norm", hidden, norm_eps)),
            qkv: b.linear("attn.Wqkv", hidden, 3 * hidden),
            attn_out: b.linear("attn.Wo", hidden, hidden),
            mlp_norm: b.layer_norm_unbiased("mlp_norm", hidden, norm_eps),
            mlp_in: b.linear("mlp.Wi", hidden, 2 * inner),
            mlp_out: b.linear("mlp.Wo", inner, hidden),
            heads,
            window: (!config.sees_all[index]).then_some(window),
        }
    }

    fn forward(&self, hidden: Tensor<2>, segments: &Segments, rotary: &RotaryTable, name: &str) -> Tensor<2> {
        let [_, width] = hidden.dims();
        let normed = match &self.attn_norm {
            Some(norm) => norm.forward_for(hidden.clone(), &self.qkv),
            None => hidden.clone(),
        };
        let low = self.qkv.weight().is_low();
        let before = Before { rotary: Some(rotary.tables()), window: self.window, low, ..Before::default() };
        let sizes = HeadSizes { heads: self.heads, kv_heads: self.heads, head_dim: width / self.heads };
        let context = kernels::attend(self.qkv.forward(normed), sizes, segments, before); // [tokens, hidden]
        let context = capture::pass(|| format!("{name}.context"), context);
        let hidden = self.attn_out.forward_onto(context, hidden);
        let normed = self.mlp_norm.forward_for(hidden.clone(), &self.mlp_in);
        let gated = self.mlp_in.forward(normed); // [tokens, 2 * inner]
        let [tokens, both] = gated.dims();
        let cut = |from: usize| gated.clone().slice([0..tokens, from..from + both / 2]);
        let inner = kernels::gelu_erf(cut(0)) * cut(both / 2); // [tokens, inner]
        let hidden = self.mlp_out.forward_onto(inner, hidden);
        capture::pass(|| name.into(), hidden)
    }

    fn flops(&self, tokens: usize) -> u64 {
        let pairs = flops::pairs(tokens, self.window);
        let products = [&self.qkv, &self.attn_out, &self.mlp_in, &self.mlp_out];
        products.iter().map(|linear| linear.flops(tokens)).sum::<u64>()
            + flops::attention(pairs, self.attn_out.inputs())
    }

    fn row_values(&self) -> usize {
        let (hidden, inner) = (self.attn_out.outputs(), self.mlp_out.inputs());
        // Both halves of the MLP, the activated half, and their product.
        4 * hidden + (9 * hidden).max(6 * inner)
    }

    fn parameters(&self) -> usize {
        let products = [&self.qkv, &self.attn_out, &self.mlp_in, &self.mlp_out];
        products.iter().map(|linear| linear.inputs() * linear.outputs()).sum()
    }
}

/// The family opened: token rows on the host, the encoder on its device.
#[derive(Debug)]
struct ModernBertText {
    tokens: TokenTable,
    encoder: ModernBertEncoder,
    vector_head: VectorHead,
    head: Option<ScoreHead>,
    row_heads: RowHeads,
    config: ModernBertConfig,
}

/// A [`ModernBertText`] between two of its layers.
struct State {
    hidden: Tensor<2>,
    segments: Segments,
    /// Of layers that see all, and of window layers.
    rotary: [RotaryTable; 2],
}

impl ModernBertText {
    /// Rows behind the last norm, `[tokens, hidden]`, and their segments.
    fn rows(&self, state: State) -> (Tensor<2>, Segments) {
        let rows = self.encoder.final_norm.forward(without_padding(state.hidden, &state.segments));
        (rows, state.segments.with_padding(0))
    }
}

impl Layered for ModernBertText {
    type State = State;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> State {
        let (rows, segments) = with_padding(rows.rows, rows.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let ModernBertConfig { hidden, heads, rope_theta, window_rope_theta, .. } = self.config;
        let positions: Vec<usize> = segments.positions().collect();
        let table = |base| RotaryTable::sequence(&positions, hidden / heads, base, &rows.device());
        let rotary = [table(rope_theta), table(window_rope_theta)];
        let hidden = capture::pass(|| "backbone.norm".into(), self.encoder.norm.forward(rows));
        State { hidden, segments, rotary }
    }

    fn layers(&self) -> usize {
        self.encoder.layers.len()
    }

    fn layer(&self, index: usize, state: State) -> State {
        let State { hidden, segments, rotary } = state;
        let layer = &self.encoder.layers[index];
        let table = &rotary[usize::from(layer.window.is_some())];
        let hidden = layer.forward(hidden, &segments, table, &format!("backbone.layers.{index}"));
        State { hidden, segments, rotary }
    }

    fn leave(&self, state: State, skipped: &[usize]) -> Tensor<2> {
        let (rows, segments) = self.rows(state);
        self.vector_head.forward(rows, &segments, skipped)
    }

    fn end(&self, state: State, ending: &Ending) -> Output {
        let (rows, segments) = self.rows(state);
        let pooled = self.vector_head.forward(rows.clone(), &segments, &ending.skipped);
        match &self.head {
            Some(head) => Output::Scores(head.forward(pooled)),
            None => Output::with_rows(pooled, &rows, &self.row_heads, ending.wanted),
        }
    }

    fn grouped(&self) -> Option<usize> {
        self.encoder.layers.first().map(ModernBertLayer::parameters)
    }
}

impl TextModel for ModernBertText {
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
                let head = self.head.as_ref().map_or(0, ScoreHead::flops);
                Some(layers + self.vector_head.flops() + head)
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        let values = self.encoder.layers.first().map_or(0, ModernBertLayer::row_values);
        RowActivations { values, heads: self.config.heads }
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> ModernBertConfig {
    folder.refuse_common();
    let text = folder.config;
    text.only_text("hidden_activation", "gelu");
    for flag in ["norm_bias", "attention_bias", "mlp_bias"] {
        text.only_flag(flag, false);
    }
    let layers = folder.layers("num_hidden_layers");
    let local = text.size("local_attention").unwrap_or(128);
    let kinds = text.list("layer_types", "a list of strings", Value::as_str);
    let sees_all = match kinds {
        Some(kinds) => {
            let known = ["full_attention", "sliding_attention"];
            if kinds.len() != layers || kinds.iter().any(|kind| !known.contains(kind)) {
                text.fault("layer_types", format!("{} or {} for each of {layers} layers", known[0], known[1]));
            }
            kinds.iter().map(|kind| *kind == known[0]).collect()
        }
        None => {
            let every = text.size("global_attn_every_n_layers").unwrap_or(3);
            (0..layers).map(|layer| layer % every == 0).collect()
        }
    };
    let (rope_theta, window_rope_theta) = rope_thetas(folder);
    let head = head(folder);
    ModernBertConfig {
        hidden: text.needed_size("hidden_size"),
        heads: text.needed_size("num_attention_heads"),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("norm_eps").unwrap_or(1e-5),
        sees_all,
        window: (local / 2).max(1),
        rope_theta,
        window_rope_theta,
        max_tokens: folder.text.limit(text.needed_size("max_position_embeddings")),
        vocab: text.needed_size("vocab_size"),
        vector_head: match head {
            Some((_, pooling)) => VectorHeadConfig::of(pooling),
            None => folder.text.vector_head.clone(),
        },
        row_heads: if head.is_some() { None } else { folder.text.late_heads() },
        head: head.map(|(head, _)| head),
    }
}

/// The head of a cross encoder, and which rows it reads.
fn head(folder: &CheckpointFolder<'_>) -> Option<(ScoreHeadConfig, Pooling)> {
    let head = folder.classifier(HeadActivation::Gelu, 1)?;
    let text = folder.config;
    text.only_text("classifier_activation", "gelu");
    let pooling = match text.text("classifier_pooling") {
        Some("mean") => Pooling::Mean,
        Some("cls") | None => Pooling::Cls,
        Some(_) => {
            text.fault("classifier_pooling", "\"cls\" or \"mean\"");
            Pooling::Cls
        }
    };
    let dense_bias = text.flag("classifier_bias").unwrap_or(false);
    Some((ScoreHeadConfig { dense_bias, norm: true, ..head }, pooling))
}

/// Bases of the rotary frequencies, of layers that see all and of window layers: as transformers 4 and 5 write them.
fn rope_thetas(folder: &CheckpointFolder<'_>) -> (f64, f64) {
    let text = folder.config;
    if text.get("rope_scaling").is_some() {
        text.fault("rope_scaling", "nothing: positions are plain");
    }
    let nested = text.get("rope_parameters");
    let of = |kind: &str, at: &'static str, flat: &str, default: f64| {
        let rope = crate::checkpoint::Fields::new(at, nested.and_then(|nested| nested.get(kind)), folder.faults);
        rope.only_text("rope_type", "default");
        rope.number("rope_theta").or(text.number(flat)).unwrap_or(default)
    };
    (
        of("full_attention", "rope_parameters.full_attention.", "global_rope_theta", 160_000.0),
        of("sliding_attention", "rope_parameters.sliding_attention.", "local_rope_theta", 10_000.0),
    )
}
