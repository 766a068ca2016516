//! Plain Qwen3 text embedders (Qwen3-Embedding): the causal backbone, one vector from the last row or from whatever the
//! pooling file says.

use std::any::Any;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText};
use crate::blocks::{Llama3Scaling, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, CheckpointRules, Fields, KeyMap, Pattern};
use crate::error::ConfigError;
use crate::family::{Architecture, Family, ModelSpec, TextModel, Tokens, config};
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
    keys: KEYS,
    names: &[("backbone.", "")],
    read: |folder| Box::new(read(folder)),
};

/// The names of published decoders.
pub(crate) const KEYS: KeyMap = KeyMap {
    renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", "")],
    endings: &[],
    drops: &[
        (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
        (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
    ],
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen3Config {
    /// The backbone.
    pub text: BackboneConfig,
    /// From rows to the vector.
    #[serde(flatten)]
    pub head: VectorHeadConfig,
}

impl Architecture for Qwen3Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.head.check(self.text.hidden)
    }

    fn spec(&self) -> ModelSpec {
        BackboneText::spec(&self.text, &self.head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(BackboneText::build(&self.text, BackboneOptions::default(), &self.head, b, tokens))
    }

    fn head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", self.text.words())]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Qwen3Config {
    folder.refuse_common();
    folder.config.only_flag("attention_bias", false);
    folder.config.only_flag("use_sliding_window", false);
    let (rope_theta, _) = rope(folder, false);
    let own = Decoder { head_dim: Some(128), causal: true, qk_norm: true, rope_theta };
    Qwen3Config { text: read_backbone(folder, &own), head: folder.text.head.clone() }
}

/// What decoders do not have in common.
pub(crate) struct Decoder {
    /// Width of a head where the configuration has none; `hidden / heads` where absent.
    pub head_dim: Option<usize>,
    /// Whether rows see only earlier ones, where the configuration does not say.
    pub causal: bool,
    /// Whether queries and keys are normalised per head.
    pub qk_norm: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// The backbone of a decoder with SwiGLU MLPs in which every layer sees all there is to see.
pub(crate) fn read_backbone(folder: &CheckpointFolder<'_>, own: &Decoder) -> BackboneConfig {
    let text = folder.config;
    text.only_text("hidden_act", "silu");
    text.only_flag("mlp_bias", false);
    if let Some(kinds) = text.list("layer_types", "a list of strings", Value::as_str)
        && kinds.iter().any(|kind| *kind != "full_attention")
    {
        text.fault("layer_types", "\"full_attention\" in every layer");
    }
    let (hidden, heads) = (text.needed_size("hidden_size"), text.needed_size("num_attention_heads"));
    let positions = text.needed_size("max_position_embeddings");
    BackboneConfig {
        hidden,
        layers: folder.layers("num_hidden_layers"),
        heads,
        kv_heads: text.size("num_key_value_heads").unwrap_or(heads),
        head_dim: text.size("head_dim").or(own.head_dim).unwrap_or_else(|| hidden.checked_div(heads).unwrap_or(0)),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("rms_norm_eps").unwrap_or(1e-6),
        rope_theta: own.rope_theta,
        causal: text.flag("is_causal").unwrap_or(own.causal),
        qk_norm: own.qk_norm,
        max_tokens: folder.text.limit(positions),
        vocab: text.needed_size("vocab_size"),
    }
}

/// The base of the rotary positions, and how they are stretched: as Llama 3.1 does it, where the family takes that. Any other
/// scaling is refused.
pub(crate) fn rope(folder: &CheckpointFolder<'_>, takes_llama3: bool) -> (f64, Option<Llama3Scaling>) {
    let text = folder.config;
    let (mut theta, mut scaling) = (None, None);
    for (block, at) in [("rope_parameters", "rope_parameters."), ("rope_scaling", "rope_scaling.")] {
        let rope = folder.inner(block, at);
        let kinds: Vec<(&str, &str)> =
            ["rope_type", "type"].into_iter().filter_map(|field| Some((field, rope.text(field)?))).collect();
        let stretched = takes_llama3 && kinds.iter().any(|(_, kind)| *kind == "llama3");
        for (field, kind) in kinds {
            if kind != "default" && !(stretched && kind == "llama3") {
                let expected = if takes_llama3 { "\"default\" or \"llama3\"" } else { "\"default\"" };
                rope.fault(field, expected);
            }
        }
        if stretched {
            scaling = scaling.or(Some(llama3(text, rope)));
        }
        theta = theta.or(rope.number("rope_theta"));
    }
    for fields in
        [text, folder.inner("rope_parameters", "rope_parameters."), folder.inner("rope_scaling", "rope_scaling.")]
    {
        if fields.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
            fields.fault("partial_rotary_factor", "1.0");
        }
    }
    let flat = text.number("rope_theta");
    if let (Some(flat), Some(nested)) = (flat, theta)
        && flat != nested
    {
        text.fault("rope_theta", format!("{nested}, as rope_parameters says"));
    }
    // The default of transformers' configurations.
    (theta.or(flat).unwrap_or(10_000.0), scaling)
}

/// Llama 3.1's stretching.
fn llama3(text: Fields<'_>, rope: Fields<'_>) -> Llama3Scaling {
    let outer = text.size("original_max_position_embeddings");
    let original = outer.or(rope.size("original_max_position_embeddings")).or(text.size("max_position_embeddings"));
    Llama3Scaling {
        factor: rope.needed_number("factor"),
        low_freq_factor: rope.needed_number("low_freq_factor"),
        high_freq_factor: rope.needed_number("high_freq_factor"),
        original_max_tokens: original.unwrap_or(0),
    }
}
