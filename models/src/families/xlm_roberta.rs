//! XLM-RoBERTa and RoBERTa: the encoder of BERT with positions that begin behind the padding's (multilingual-e5, bge-m3's
//! dense vectors, all-distilroberta's teachers).

use std::any::Any;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::{VectorHead, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, CheckpointRules, KeyMap, Pattern};
use crate::encoder::{Encoder, EncoderShape};
use crate::error::ConfigError;
use crate::families::bert::{BertText, NAMES, encoder_words, refuse_decoder};
use crate::families::{layer_count, multiple, nonzero, positive};
use crate::family::{Architecture, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "xlm_roberta",
    about: "XLM-RoBERTa and RoBERTa (multilingual-e5, bge-m3 dense): text",
    read: config::<XlmRobertaConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["xlm-roberta", "roberta", "camembert"],
    is_architecture: |name| {
        ["XLMRoberta", "Roberta", "Camembert"]
            .iter()
            .any(|class| name.strip_prefix(class).is_some_and(|rest| rest == "Model" || rest.starts_with("For")))
    },
    known_as: "an XLM-RoBERTa encoder",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", ""), ("roberta.", "")],
        endings: &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")],
        drops: &[
            (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses masked words"),
            (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
            (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
            (Pattern::Exact("embeddings.token_type_ids"), "every row of a text is of the first kind"),
        ],
    },
    names: NAMES,
    read: |folder| Box::new(read(folder)),
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XlmRobertaConfig {
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
    /// Rows of the learned position table.
    pub positions: usize,
    /// Id of the padding, whose row of the position table the padding takes: a sequence begins behind it.
    pub padding: u32,
    /// Kinds of rows; only the first is used.
    pub token_types: usize,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// From rows to the vector.
    #[serde(flatten)]
    pub head: VectorHeadConfig,
}

impl XlmRobertaConfig {
    /// Row of the position table that the first row of a sequence takes.
    fn first_position(&self) -> usize {
        self.padding as usize + 1
    }

    fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, positions, token_types, .. } = *self;
        let first_position = self.first_position();
        EncoderShape { hidden, layers, heads, inner, norm_eps, positions, first_position, token_types }
    }
}

impl Architecture for XlmRobertaConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        layer_count("text.layers", self.layers)?;
        nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.inner", self.inner),
            ("text.positions", self.positions),
            ("text.token_types", self.token_types),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        multiple("text.hidden", self.hidden, "text.heads", self.heads)?;
        let most = self.positions.saturating_sub(self.first_position());
        if self.max_tokens > most {
            return Err(ConfigError::OutOfRange {
                field: "text.max_tokens".into(),
                found: self.max_tokens.to_string(),
                expected: format!("at most {most}: text.positions behind the padding's"),
            });
        }
        self.head.check(self.hidden)?;
        positive("text.norm_eps", self.norm_eps)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.head.vector(self.hidden),
            hidden: self.hidden,
            vocab: self.vocab,
            max_tokens: self.max_tokens,
            image: None,
            audio: None,
            ends: None,
            skips_prompt: self.head.skips_prompt,
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(BertText {
            tokens: tokens.table(self.vocab, self.hidden),
            encoder: b.at("backbone", |b| Encoder::build(&self.shape(), b)),
            head: VectorHead::build(&self.head, b),
            padding: Some(self.padding),
        })
    }

    fn head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", encoder_words(&self.shape(), self.max_tokens, self.vocab))]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> XlmRobertaConfig {
    folder.refuse_common();
    let fields = folder.config;
    refuse_decoder(fields);
    let positions = fields.needed_size("max_position_embeddings");
    let padding = fields.id("pad_token_id").unwrap_or(1);
    if padding as usize + 1 >= positions.max(1) {
        fields.fault("pad_token_id", "an id whose position leaves others behind it");
    }
    let most = positions.saturating_sub(padding as usize + 1);
    XlmRobertaConfig {
        hidden: fields.needed_size("hidden_size"),
        layers: folder.layers("num_hidden_layers"),
        heads: fields.needed_size("num_attention_heads"),
        inner: fields.needed_size("intermediate_size"),
        norm_eps: fields.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        padding,
        token_types: fields.size("type_vocab_size").unwrap_or(2),
        max_tokens: folder.text.limit(most),
        vocab: fields.needed_size("vocab_size"),
        head: folder.text.head.clone(),
    }
}
