//! Plain Qwen3 text models: embedders (Qwen3-Embedding), the causal backbone with one vector from the last row or from
//! whatever the pooling file says; and rerankers (Qwen3-Reranker), which answer whether a document meets a query.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::Tensor;
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{Backbone, BackboneConfig, BackbonePass, Extras};
use crate::batch::TokenRows;
use crate::blocks::pool::pooled;
use crate::blocks::{AnswerHead, Pooling, TokenTable};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps};
use crate::error::ConfigError;
use crate::families::bert::check_poolings;
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Output, Outputs, PairForm, PairPrompt, Pass, PassInput,
    RowActivations, StepKind, TextModel, Tokens, config,
};
use crate::flops::Shape;
use crate::pass::{Ending, Layered, LayeredPass};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen3",
    about: "Qwen3 text embedders and rerankers (Qwen3-Embedding, Qwen3-Reranker): text",
    read: config::<Qwen3Config>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen3"],
    is_architecture: |name| name == "Qwen3Model" || name == "Qwen3ForCausalLM",
    known_as: "a Qwen3 text model",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
            (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[("head.", ""), ("backbone.", "")],
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
    /// What makes a score of the pooled row; absent in a model that gives vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AnswerHeadConfig>,
}

/// How a language model scores a pair: by how much likelier one answer is than another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerHeadConfig {
    /// Ids of the answers yes and no.
    pub answers: [u32; 2],
    /// Whether the token table is the output table.
    pub tied: bool,
    /// What stands around a query and a document.
    pub prompt: PairPrompt,
}

impl AnswerHeadConfig {
    /// The output table by its name in a checkpoint.
    fn table(&self) -> &'static str {
        if self.tied { "embed_tokens" } else { "lm_head" }
    }
}

impl Architecture for Qwen3Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        check_poolings(&self.more_poolings)?;
        let Some(head) = &self.head else { return Ok(()) };
        let fault = |field: &str, found: String, expected: String| {
            Err(ConfigError::OutOfRange { field: field.into(), found, expected })
        };
        let [yes, no] = head.answers;
        if yes == no || yes.max(no) as usize >= self.text.vocab {
            let expected = format!("two ids less than text.vocab, {}", self.text.vocab);
            return fault("head.answers", format!("{:?}", head.answers), expected);
        }
        if !self.more_poolings.is_empty() || self.skips_prompt {
            return fault(
                "pooling",
                "several, or without the prompt".into(),
                "one pooling: a head reads one row".into(),
            );
        }
        Ok(())
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: if self.head.is_some() { 1 } else { self.text.hidden * (1 + self.more_poolings.len()) },
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image: None,
            audio: None,
            ends: None,
            skips_prompt: self.skips_prompt,
            outputs: match &self.head {
                Some(head) => Outputs::Scores(PairForm::Prompt(head.prompt.clone())),
                None => Outputs::default(),
            },
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let backbone = b.at("backbone", |b| Backbone::build(&self.text, b));
        let tokens = tokens.table(self.text.vocab, self.text.hidden);
        let head = self.head.as_ref().map(|head| {
            b.at("head", |b| AnswerHead::build(b, head.table(), [self.text.vocab, self.text.hidden], head.answers))
        });
        Arc::new(Qwen3Text { tokens, backbone, head, config: self.clone() })
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
    head: Option<AnswerHead>,
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

    fn end(&self, state: State, ending: &Ending) -> Output {
        let pooled = self.leave(state, &ending.skipped);
        match &self.head {
            Some(head) => Output::Scores(head.forward(pooled)),
            None => Output::Vectors(pooled),
        }
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
            Shape::Text { tokens } => {
                Some(self.backbone.flops(*tokens) + self.head.as_ref().map_or(0, AnswerHead::flops))
            }
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
    let head = head(folder);
    let limit = folder.text.limit(positions);
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
        max_tokens: if head.is_some() { limit.min(PAIR_TOKENS) } else { limit },
        vocab: text.needed_size("vocab_size"),
    };
    Qwen3Config {
        text: backbone,
        pooling: if head.is_some() { Pooling::LastToken } else { folder.text.pooling },
        more_poolings: folder.text.more_poolings.clone(),
        skips_prompt: folder.text.skips_prompt,
        head,
    }
}

/// Where a pair is cut.
///
/// # Source
/// Model card of Qwen3-Reranker: `max_length`.
const PAIR_TOKENS: usize = 8192;

/// The head of a reranker with its prompt.
///
/// # Source
/// Model card of Qwen3-Reranker: `prefix`, `format_instruction`, `suffix`, and the score, the softmax over the logits of
/// `no` and `yes`.
fn head(folder: &CheckpointFolder<'_>) -> Option<AnswerHeadConfig> {
    let rerank = folder.text.rerank.as_ref()?;
    let Some(answers) = rerank.answers else {
        folder.config.fault("architectures", "Qwen3ForCausalLM: a reranker of this family answers yes or no");
        return None;
    };
    // The default of transformers' Qwen3Config.
    let tied = folder.config.flag("tie_word_embeddings").unwrap_or(false);
    let system = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that \
                  the answer can only be \"yes\" or \"no\".";
    let prompt = PairPrompt {
        before: format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"),
        labels: ["<Instruct>: ", "\n<Query>: ", "\n<Document>: "].map(String::from),
        behind: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n".into(),
        instruction: rerank
            .instruction
            .clone()
            .unwrap_or_else(|| "Given a web search query, retrieve relevant passages that answer the query".into()),
    };
    Some(AnswerHeadConfig { answers, tied, prompt })
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
