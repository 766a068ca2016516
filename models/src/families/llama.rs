//! Text embedders whose body is a Llama, a Mistral or a Qwen2: the backbone without norms of queries and keys, causal or not
//! (llama-embed-nemotron, e5-mistral, gte-Qwen2).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText};
use crate::blocks::{Llama3Scaling, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, GgufRules, Steps};
use crate::error::ConfigError;
use crate::families::qwen3::{Decoder, KEYS, read_backbone, rope};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "llama",
    about: "Llama, Mistral and Qwen2 text embedders (llama-embed-nemotron, e5-mistral, gte-Qwen2): text",
    read: config::<LlamaConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["llama_bidirec", "llama", "mistral", "qwen2"],
    is_architecture: |name| {
        ["LlamaBidirectional", "Llama", "Mistral", "Qwen2"]
            .iter()
            .any(|class| name.strip_prefix(class).is_some_and(|rest| rest == "Model" || rest == "ForCausalLM"))
    },
    known_as: "a Llama, Mistral or Qwen2 text embedder",
    keys: KEYS,
    names: &[("backbone.", "")],
    read: |folder| Box::new(read(folder)),
    steps: Steps { gguf: GGUF, ..Steps::TEXT },
};

/// As llama.cpp writes them: it turns the rows of a Llama's queries and keys, Mistral's with them.
const GGUF: &[GgufRules] = &[
    GgufRules { architectures: &["llama"], model_type: "llama", rotary_pairs: true, ..GgufRules::DECODER },
    GgufRules { architectures: &["qwen2"], model_type: "qwen2", ..GgufRules::DECODER },
];

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// The backbone.
    pub text: BackboneConfig,
    /// Whether queries, keys and values have a bias each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub qkv_bias: bool,
    /// How rotary positions are stretched, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Llama3Scaling>,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
}

impl LlamaConfig {
    fn options(&self) -> BackboneOptions<'static> {
        BackboneOptions { qkv_bias: self.qkv_bias, rope_scaling: self.rope_scaling, ..BackboneOptions::default() }
    }
}

impl Architecture for LlamaConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        if let Some(scaling) = &self.rope_scaling {
            scaling.check()?;
        }
        self.vector_head.check(self.text.hidden)
    }

    fn spec(&self) -> ModelSpec {
        BackboneText::spec(&self.text, &self.vector_head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(BackboneText::build(&self.text, self.options(), &self.vector_head, b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", self.text.words())]
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> LlamaConfig {
    folder.refuse_common();
    let fields = folder.config;
    let model_type = fields.text("model_type").unwrap_or_default();
    // Qwen2 has biases of its own, which no field names; a Llama with any has one of its output product, too.
    let qkv_bias = model_type == "qwen2";
    fields.only_flag("attention_bias", false);
    fields.only_flag("use_sliding_window", false);
    // What a bidirectional Llama's own code pools by where sentence-transformers does not: the mean.
    fields.only_text("pooling", "avg");
    let (rope_theta, rope_scaling) = rope(folder, true);
    let own = Decoder { head_dim: None, causal: model_type != "llama_bidirec", qk_norm: false, rope_theta };
    let mut text = read_backbone(folder, &own);
    // Every layer of a Mistral sees a window. A text that fits in it sees itself whole; a longer one is not read.
    if let ("mistral", Some(window)) = (model_type, fields.size("sliding_window")) {
        text.max_tokens = text.max_tokens.min(window);
    }
    LlamaConfig { text, qkv_bias, rope_scaling, vector_head: folder.text.vector_head.clone() }
}
