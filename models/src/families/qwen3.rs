//! Plain Qwen3 text embedders (Qwen3-Embedding): the causal backbone, one vector from the last row or from whatever the
//! pooling file says.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::Tensor;
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{Backbone, BackboneConfig, BackbonePass, Extras};
use crate::batch::TokenRows;
use crate::blocks::pool::pooled;
use crate::blocks::{Pooling, TokenTable};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps};
use crate::error::ConfigError;
use crate::families::bert::check_poolings;
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens,
    config,
};
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen3",
    about: "Qwen3 text embedders (Qwen3-Embedding): text",
    read: config::<Qwen3Config>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen3"],
    is_architecture: |name| name == "Qwen3Model" || name == "Qwen3ForCausalLM",
    known_as: "a Qwen3 text embedder",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
            (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[("backbone.", "")],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen3Config {
    /// The backbone.
    pub text: BackboneConfig,
    /// Which rows make the vector.
    pub pooling: Pooling,
    /// Poolings whose vectors stand behind the first one's, in this order; mostly none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_poolings: Vec<Pooling>,
    /// Whether the rows up to the end of a prompt are left out of the poolings; the last row never is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_prompt: bool,
}

impl Architecture for Qwen3Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        check_poolings(&self.more_poolings)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.text.hidden * (1 + self.more_poolings.len()),
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image: None,
            audio: None,
            ends: None,
            skips_prompt: self.skips_prompt,
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let backbone = b.at("backbone", |b| Backbone::build(&self.text, b));
        let tokens = tokens.table(self.text.vocab, self.text.hidden);
        Arc::new(Qwen3Text { tokens, backbone, config: self.clone() })
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", self.text.words())]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The family opened: token rows on the host, the backbone on its device.
#[derive(Debug)]
struct Qwen3Text {
    tokens: TokenTable,
    backbone: Backbone,
    config: Qwen3Config,
}

/// A [`Qwen3Text`] between two of its layers.
struct State {
    layers: BackbonePass,
    segments: Segments,
}

impl Layered for Qwen3Text {
    type State = State;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> State {
        let segments = rows.segments.clone();
        State { layers: self.backbone.begin(rows, Extras::default()), segments }
    }

    fn layers(&self) -> usize {
        self.backbone.layers()
    }

    fn layer(&self, _: usize, state: State) -> State {
        State { layers: self.backbone.advance(state.layers), ..state }
    }

    fn leave(&self, state: State, skipped: &[usize]) -> Tensor<2> {
        let rows = self.backbone.finish(state.layers);
        pooled(self.config.pooling, &self.config.more_poolings, rows, &state.segments, skipped)
    }
}

impl TextModel for Qwen3Text {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.backbone.flops(*tokens)),
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.backbone.activations()
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Qwen3Config {
    folder.refuse_common();
    let text = folder.config;
    text.only_text("hidden_act", "silu");
    text.only_flag("attention_bias", false);
    text.only_flag("mlp_bias", false);
    text.only_flag("use_sliding_window", false);
    if let Some(kinds) = text.list("layer_types", "a list of strings", Value::as_str)
        && kinds.iter().any(|kind| *kind != "full_attention")
    {
        text.fault("layer_types", "\"full_attention\" in every layer");
    }
    let (hidden, heads) = (text.needed_size("hidden_size"), text.needed_size("num_attention_heads"));
    let positions = text.needed_size("max_position_embeddings");
    let backbone = BackboneConfig {
        hidden,
        layers: folder.layers("num_hidden_layers"),
        heads,
        kv_heads: text.size("num_key_value_heads").unwrap_or(heads),
        head_dim: text.size("head_dim").unwrap_or(128),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("rms_norm_eps").unwrap_or(1e-6),
        rope_theta: rope_theta(folder),
        causal: text.flag("is_causal").unwrap_or(true),
        qk_norm: true,
        max_tokens: folder.text.limit(positions),
        vocab: text.needed_size("vocab_size"),
    };
    Qwen3Config {
        text: backbone,
        pooling: folder.text.pooling,
        more_poolings: folder.text.more_poolings.clone(),
        skips_prompt: folder.text.skips_prompt,
    }
}

/// The base of plain rotary positions; any scaling is refused.
fn rope_theta(folder: &CheckpointFolder<'_>) -> f64 {
    let text = folder.config;
    let plain = |rope: Fields<'_>| {
        for kind in ["rope_type", "type"] {
            rope.only_text(kind, "default");
        }
        if rope.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
            rope.fault("partial_rotary_factor", "1.0");
        }
    };
    let nested = ["rope_parameters", "rope_scaling"].into_iter().filter_map(|block| {
        let at = if block == "rope_parameters" { "rope_parameters." } else { "rope_scaling." };
        let rope = folder.inner(block, at);
        plain(rope);
        rope.number("rope_theta")
    });
    let nested: Vec<f64> = nested.collect();
    let flat = text.number("rope_theta");
    if let (Some(flat), Some(nested)) = (flat, nested.first())
        && flat != *nested
    {
        text.fault("rope_theta", format!("{nested}, as rope_parameters says"));
    }
    // The default of transformers' Qwen3Config.
    nested.first().copied().or(flat).unwrap_or(10_000.0)
}
