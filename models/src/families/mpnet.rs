//! MPNet (all-mpnet-base-v2, multi-qa-mpnet, paraphrase-mpnet): the encoder of BERT without kinds of rows, with positions that
//! begin behind the padding's and a bias of the scores by distance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::{HiddenAct, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps, hidden_act};
use crate::encoder::EncoderShape;
use crate::error::ConfigError;
use crate::families::bert::{BertText, check_encoder, encoder_words, refuse_decoder};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "mpnet",
    about: "MPNet (all-mpnet-base-v2, multi-qa-mpnet): text",
    read: config::<MpnetConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["mpnet"],
    is_architecture: |name| name.strip_prefix("MPNet").is_some_and(|rest| rest == "Model" || rest.starts_with("For")),
    known_as: "an MPNet encoder",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", ""), ("mpnet.", "")],
        endings: &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")],
        drops: &[
            (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "embeddings.word_embeddings."),
        ("backbone.positions.", "embeddings.position_embeddings."),
        ("backbone.norm.", "embeddings.LayerNorm."),
        ("backbone.relative.", "encoder.relative_attention_bias."),
        ("backbone.layers.", "encoder.layer."),
        (".attention.query.", ".attention.attn.q."),
        (".attention.key.", ".attention.attn.k."),
        (".attention.value.", ".attention.attn.v."),
        (".attention.out.", ".attention.attn.o."),
        (".attention.norm.", ".attention.LayerNorm."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
        (".mlp.norm.", ".output.LayerNorm."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps::TEXT,
};

/// Id of the padding, whose row of the position table the padding takes, whatever `pad_token_id` says.
///
/// # Source
/// transformers, `MPNetEmbeddings`, revision 5.23.0.
const PADDING: u32 = 1;
/// Buckets of distances; `compute_position_bias` counts with this many whatever the table has.
///
/// # Source
/// transformers, `MPNetEncoder`, revision 5.23.0.
const BUCKETS: usize = 32;

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MpnetConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Rows of the learned position table, the two before the first word's included.
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

impl MpnetConfig {
    fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, positions, act, .. } = *self;
        EncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps,
            positions,
            first_position: PADDING as usize + 1,
            token_types: 0,
            used_types: 1,
            act,
            buckets: Some(BUCKETS),
        }
    }
}

impl Architecture for MpnetConfig {
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
        Arc::new(BertText::embedder(&self.shape(), self.vocab, &self.vector_head, Some(PADDING), b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", encoder_words(&self.shape(), self.max_tokens, self.vocab))]
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> MpnetConfig {
    folder.refuse_common();
    let text = folder.config;
    refuse_decoder(text);
    if text.count("relative_attention_num_buckets").is_some_and(|found| found != BUCKETS as u64) {
        text.fault("relative_attention_num_buckets", BUCKETS.to_string());
    }
    let positions = text.needed_size("max_position_embeddings");
    let most = positions.saturating_sub(PADDING as usize + 1);
    if most == 0 && positions > 0 {
        text.fault("max_position_embeddings", "rows behind the padding's");
    }
    MpnetConfig {
        hidden: text.needed_size("hidden_size"),
        layers: folder.layers("num_hidden_layers"),
        heads: text.needed_size("num_attention_heads"),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        max_tokens: folder.text.limit(most),
        vocab: text.needed_size("vocab_size"),
        act: hidden_act(text, "hidden_act"),
        vector_head: folder.text.vector_head.clone(),
    }
}
