//! DistilBERT (multi-qa-distilbert, msmarco-distilbert): the encoder of BERT without kinds of rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::{HiddenAct, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps, hidden_act, spelling};
use crate::encoder::EncoderShape;
use crate::error::ConfigError;
use crate::families::bert::{BertText, check_encoder, encoder_words};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "distilbert",
    about: "DistilBERT (multi-qa-distilbert, msmarco-distilbert): text",
    read: config::<DistilBertConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["distilbert"],
    is_architecture: |name| {
        name.strip_prefix("DistilBert").is_some_and(|rest| rest == "Model" || rest.starts_with("For"))
    },
    known_as: "a DistilBERT encoder",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", ""), ("distilbert.", "")],
        endings: &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")],
        drops: &[
            (Pattern::Prefix("vocab_"), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("pre_classifier."), "an embedding takes no head: this one sorts texts into classes"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "embeddings.word_embeddings."),
        ("backbone.positions.", "embeddings.position_embeddings."),
        ("backbone.norm.", "embeddings.LayerNorm."),
        ("backbone.layers.", "transformer.layer."),
        (".attention.query.", ".attention.q_lin."),
        (".attention.key.", ".attention.k_lin."),
        (".attention.value.", ".attention.v_lin."),
        (".attention.out.", ".attention.out_lin."),
        (".attention.norm.", ".sa_layer_norm."),
        (".mlp.fc1.", ".ffn.lin1."),
        (".mlp.fc2.", ".ffn.lin2."),
        (".mlp.norm.", ".output_layer_norm."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Epsilon of every LayerNorm, which no configuration has.
///
/// # Source
/// transformers, `modeling_distilbert`, revision 5.23.0.
const NORM_EPS: f64 = 1e-12;

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistilBertConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Rows of the learned position table.
    pub positions: usize,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// What is between the products of the MLP.
    pub act: HiddenAct,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
}

impl DistilBertConfig {
    fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, positions, act, .. } = *self;
        EncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps: NORM_EPS,
            positions,
            first_position: 0,
            token_types: 0,
            used_types: 1,
            act,
            buckets: None,
        }
    }
}

impl Architecture for DistilBertConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_encoder(&self.shape(), self.max_tokens, self.vocab)?;
        self.vector_head.check(self.hidden)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(BertText::embedder(&self.shape(), self.vocab, &self.vector_head, None, b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", encoder_words(&self.shape(), self.max_tokens, self.vocab))]
    }
}

/// From a published folder to a configuration. `sinusoidal_pos_embds` says what the position table began as, and nothing of
/// what it is.
fn read(folder: &CheckpointFolder<'_>) -> DistilBertConfig {
    folder.refuse_common();
    let text = folder.config;
    text.only_flag("is_decoder", false);
    text.only_flag("add_cross_attention", false);
    // A field that is no flag is a fault, though both flags mean the same here.
    let _ = text.flag("sinusoidal_pos_embds");
    let positions = text.needed_size("max_position_embeddings");
    DistilBertConfig {
        hidden: text.needed_size(spelling(text, ["dim", "hidden_size"])),
        layers: folder.layers(spelling(text, ["n_layers", "num_hidden_layers"])),
        heads: text.needed_size(spelling(text, ["n_heads", "num_attention_heads"])),
        inner: text.needed_size("hidden_dim"),
        positions,
        max_tokens: folder.text.limit(positions),
        vocab: text.needed_size("vocab_size"),
        act: hidden_act(text, "activation"),
        vector_head: folder.text.vector_head.clone(),
    }
}
