//! XLM-RoBERTa and RoBERTa: the encoder of BERT with positions that begin behind the padding's (multilingual-e5, bge-m3,
//! all-distilroberta's teachers), and cross encoders of it (bge-reranker).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::{
    HeadActivation, HiddenAct, Pooling, RowHeads, RowHeadsConfig, ScoreHeadConfig, VectorHead, VectorHeadConfig,
};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps, hidden_act};
use crate::checks::nonzero;
use crate::encoder::{Encoder, EncoderShape};
use crate::error::ConfigError;
use crate::families::bert::{
    BertText, NAMES, check_encoder, check_head, check_row_heads, encoder_words, outputs, refuse_decoder, score_head,
    used_types,
};
use crate::family::{Architecture, CheckpointRules, Family, ModelSpec, TextModel, Tokens, config};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "xlm_roberta",
    about: "XLM-RoBERTa and RoBERTa (multilingual-e5, bge-m3, bge-reranker): text",
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
    steps: Steps::TEXT,
};

/// Dense layer, nothing, last layer: what a cross encoder makes its score with.
const HEAD_NAMES: [&str; 3] = ["classifier.dense", "", "classifier.out_proj"];

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
    /// Token types; the rows of a single text are of the first.
    pub token_types: usize,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// What is between the products of the MLP; mostly GELU by erf.
    #[serde(default, skip_serializing_if = "HiddenAct::is_gelu")]
    pub act: HiddenAct,
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

impl XlmRobertaConfig {
    /// Row of the position table that the first row of a sequence takes.
    fn first_position(&self) -> usize {
        self.padding as usize + 1
    }

    fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, positions, token_types, act, .. } = *self;
        let (first_position, used_types) = (self.first_position(), used_types(self.head.as_ref()));
        EncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps,
            positions,
            first_position,
            token_types,
            used_types,
            act,
            buckets: None,
        }
    }
}

impl Architecture for XlmRobertaConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        nonzero(&[("text.token_types", self.token_types)])?;
        check_encoder(&self.shape(), self.max_tokens, self.vocab)?;
        self.vector_head.check(self.hidden)?;
        check_head(self.head.as_ref(), &self.vector_head, self.token_types)?;
        check_row_heads(self.row_heads.as_ref(), self.head.as_ref(), [self.hidden, self.vocab, self.max_tokens])
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: if self.head.is_some() { 1 } else { self.vector_head.vector(self.hidden) },
            hidden: self.hidden,
            vocab: self.vocab,
            max_tokens: self.max_tokens,
            image: None,
            audio: None,
            ends: None,
            skips_prompt: self.vector_head.skips_prompt,
            outputs: outputs(self.head.as_ref(), self.row_heads.as_ref()),
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(BertText {
            tokens: tokens.table(self.vocab, self.hidden),
            encoder: b.at("backbone", |b| Encoder::build(&self.shape(), b)),
            vector_head: VectorHead::build(&self.vector_head, b),
            padding: Some(self.padding),
            head: score_head(self.head.as_ref(), HEAD_NAMES, b, self.hidden, self.norm_eps),
            row_heads: RowHeads::build_some(self.row_heads.as_ref(), b, self.hidden),
        })
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", encoder_words(&self.shape(), self.max_tokens, self.vocab))]
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
    let token_types = fields.size("type_vocab_size").unwrap_or(2);
    let head = folder.classifier(HeadActivation::Tanh, token_types);
    XlmRobertaConfig {
        hidden: fields.needed_size("hidden_size"),
        layers: folder.layers("num_hidden_layers"),
        heads: fields.needed_size("num_attention_heads"),
        inner: fields.needed_size("intermediate_size"),
        norm_eps: fields.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        padding,
        token_types,
        max_tokens: folder.text.limit(most),
        vocab: fields.needed_size("vocab_size"),
        act: hidden_act(fields, "hidden_act"),
        vector_head: match &head {
            Some(_) => VectorHeadConfig::of(Pooling::Cls),
            None => folder.text.vector_head.clone(),
        },
        row_heads: if head.is_some() { None } else { folder.text.row_heads.clone() },
        head,
    }
}
