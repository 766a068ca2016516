//! LFM2: a causal backbone most of whose layers mix rows by a short gated convolution and the others by attention; text
//! embedders of it, which mostly give a vector a row (LFM2-ColBERT).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText, ShortConvolutions};
use crate::blocks::{RowHeads, RowHeadsConfig, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, Steps};
use crate::error::ConfigError;
use crate::families::bert::{check_row_heads, outputs};
use crate::families::qwen3::{KEYS, rope_or};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "lfm2",
    about: "LFM2 text embedders, a vector a token (LFM2-ColBERT): text",
    read: config::<Lfm2Config>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["lfm2"],
    is_architecture: |name| name == "Lfm2Model" || name == "Lfm2ForCausalLM",
    known_as: "an LFM2 text embedder",
    keys: KEYS,
    names: &[
        ("head.rows.", "dense."),
        ("backbone.norm.", "embedding_norm."),
        ("backbone.", ""),
        (".input_layernorm.", ".operator_norm."),
        (".post_attention_layernorm.", ".ffn_norm."),
        (".self_attn.q_norm.", ".self_attn.q_layernorm."),
        (".self_attn.k_norm.", ".self_attn.k_layernorm."),
        (".self_attn.o_proj.", ".self_attn.out_proj."),
        (".mlp.gate_proj.", ".feed_forward.w1."),
        (".mlp.up_proj.", ".feed_forward.w3."),
        (".mlp.down_proj.", ".feed_forward.w2."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Rows of a convolution's window at most; published models have 3.
const MOST_TAPS: usize = 64;

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lfm2Config {
    /// The backbone.
    pub text: BackboneConfig,
    /// One entry a layer: whether its rows are mixed by a convolution, and not by attention.
    pub convolutions: Vec<bool>,
    /// Rows that a convolution makes a row of: itself and those before it.
    pub taps: usize,
    /// Whether convolutions and the products around them have a bias each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conv_bias: bool,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
    /// What rows give beside the vector; absent where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_heads: Option<RowHeadsConfig>,
}

impl Architecture for Lfm2Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self { text, convolutions, taps, .. } = self;
        text.check()?;
        let fault = |field: &str, found: usize, expected: String| {
            Err(ConfigError::OutOfRange { field: field.into(), found: found.to_string(), expected })
        };
        if convolutions.len() != text.layers {
            return fault("text.convolutions", convolutions.len(), format!("{}, one a layer", text.layers));
        }
        if !(1..=MOST_TAPS).contains(taps) {
            return fault("text.taps", *taps, format!("1 to {MOST_TAPS}"));
        }
        self.vector_head.check(text.hidden)?;
        check_row_heads(self.row_heads.as_ref(), None, [text.hidden, text.vocab, text.max_tokens])
    }

    fn spec(&self) -> ModelSpec {
        let spec = BackboneText::spec(&self.text, &self.vector_head);
        ModelSpec { outputs: outputs(None, self.row_heads.as_ref()), ..spec }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let convolutions = ShortConvolutions { layers: &self.convolutions, taps: self.taps, biased: self.conv_bias };
        let options = BackboneOptions { convolutions: Some(convolutions), ..BackboneOptions::default() };
        let text = BackboneText::build(&self.text, options, &self.vector_head, b, tokens);
        let row_heads = RowHeads::build_some(self.row_heads.as_ref(), b, self.text.hidden);
        Arc::new(text.with_row_heads(row_heads))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let (layers, mixed) = (self.convolutions.len(), self.convolutions.iter().filter(|has| **has).count());
        let words = self.text.words();
        vec![("text", format!("{words}; {mixed} of {layers} layers a convolution over {} rows", self.taps))]
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Lfm2Config {
    folder.refuse_common();
    let text = folder.config;
    text.only_text("hidden_act", "silu");
    text.only_flag("block_use_swiglu", true);
    text.only_flag("is_causal", true);
    let layers = folder.layers("num_hidden_layers");
    let convolutions = convolutions(text, layers);
    let taps = text.size("conv_L_cache").unwrap_or(3);
    let (hidden, heads) = (text.needed_size("hidden_size"), text.needed_size("num_attention_heads"));
    let positions = text.needed_size("max_position_embeddings");
    let row_heads = folder.text.late_heads();
    if row_heads.as_ref().and_then(|heads| heads.late.as_ref()?.expansion).is_some_and(|behind| !behind.attended) {
        text.fault("attend_to_expansion_tokens", "true: a causal model sees what stands behind a query, or has none");
    }
    Lfm2Config {
        text: BackboneConfig {
            hidden,
            layers,
            heads,
            kv_heads: text.size("num_key_value_heads").unwrap_or(heads),
            head_dim: text.size("head_dim").unwrap_or_else(|| hidden.checked_div(heads).unwrap_or(0)),
            inner: inner(text),
            norm_eps: norm_eps(folder),
            // Older configurations call it theta.
            rope_theta: rope_or(folder, text.number("theta").unwrap_or(1e6)),
            causal: true,
            qk_norm: true,
            max_tokens: folder.text.limit(positions),
            vocab: text.needed_size("vocab_size"),
        },
        convolutions,
        taps,
        conv_bias: text.flag("conv_bias").unwrap_or(false),
        vector_head: folder.text.vector_head.clone(),
        row_heads,
    }
}

/// Which layers have a convolution.
///
/// # Source
/// transformers, `Lfm2Config.__post_init__`, revision 5.23.0.
fn convolutions(text: Fields<'_>, layers: usize) -> Vec<bool> {
    let known = ["full_attention", "conv"];
    let kinds = text.list("layer_types", "a list of strings", Value::as_str);
    let full = text.list("full_attn_idxs", "a list of layers", Value::as_u64);
    let of_full = full.map(|full| (0..layers as u64).map(|layer| !full.contains(&layer)).collect::<Vec<bool>>());
    let Some(kinds) = kinds else { return of_full.unwrap_or_else(|| vec![false; layers]) };
    if kinds.len() != layers || kinds.iter().any(|kind| !known.contains(kind)) {
        text.fault("layer_types", format!("{} or {} for each of {layers} layers", known[0], known[1]));
        return vec![false; layers];
    }
    let found: Vec<bool> = kinds.iter().map(|kind| *kind == known[1]).collect();
    if of_full.is_some_and(|of_full| of_full != found) {
        text.fault("full_attn_idxs", "the layers of layer_types that are full_attention");
    }
    found
}

/// Width of the gated MLP: by default two thirds of the width that is written, rounded up.
///
/// # Source
/// transformers, `Lfm2MLP` and `Lfm2Config.__post_init__`, revision 5.23.0.
fn inner(text: Fields<'_>) -> usize {
    let written = match text.size("block_ff_dim") {
        // It wins where both are there.
        Some(written) => written,
        None => text.needed_size("intermediate_size"),
    };
    if text.flag("block_auto_adjust_ff_dim") == Some(false) {
        return written;
    }
    let (factor, step) = (text.number("block_ffn_dim_multiplier").unwrap_or(1.0), text.size("block_multiple_of"));
    if !(factor > 0.0 && factor <= 1024.0) {
        text.fault("block_ffn_dim_multiplier", "a number above 0, at most 1024");
        return 0;
    }
    let scaled = (factor * (2 * written / 3) as f64) as usize;
    scaled.next_multiple_of(step.unwrap_or(256))
}

/// Epsilon of every norm. The library reads one of its two names.
fn norm_eps(folder: &CheckpointFolder<'_>) -> f64 {
    let text = folder.config;
    let own = text.number("norm_eps").unwrap_or(1e-5);
    if text.number("block_norm_eps").is_some_and(|block| block != own) {
        folder.note(format!("block_norm_eps is not read: every norm has the epsilon {own:e} of norm_eps"));
    }
    own
}
