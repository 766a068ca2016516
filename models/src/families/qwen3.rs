//! Plain Qwen3 text models: embedders (Qwen3-Embedding), the causal backbone with one vector from the last row or from
//! whatever the pooling file says; and rerankers, which answer whether a document meets a query (Qwen3-Reranker) or read a list of
//! documents at once (jina-reranker-v3).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText};
use crate::blocks::{AnswerHead, DenseActivation, DenseConfig, Llama3Scaling, Pooling, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, GgufRules, KeyMap, Pattern, Steps};
use crate::error::ConfigError;
use crate::family::{
    Architecture, CheckpointRules, Family, ListPrompt, ModelSpec, Outputs, PairForm, PairPrompt, TextModel, Tokens,
    config,
};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen3",
    about: "Qwen3 text embedders and rerankers (Qwen3-Embedding, Qwen3-Reranker, jina-reranker-v3): text",
    read: config::<Qwen3Config>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen3"],
    is_architecture: |name| ["Qwen3Model", "Qwen3ForCausalLM", "JinaForRanking"].contains(&name),
    known_as: "a Qwen3 text model",
    keys: KEYS,
    names: &[("head.", ""), ("backbone.", "")],
    read: |folder| Box::new(read(folder)),
    steps: Steps { gguf: GGUF, ..Steps::TEXT },
};

/// As llama.cpp writes it.
const GGUF: &[GgufRules] = &[GgufRules { architectures: &["qwen3"], model_type: "qwen3", ..GgufRules::DECODER }];

/// The names of published decoders.
pub(crate) const KEYS: KeyMap = KeyMap {
    // As wrappers save it, and the two products of a model that reads lists.
    renames: &[
        ("module.", ""),
        ("0.", ""),
        ("auto_model.", ""),
        ("model.", ""),
        ("projector.0.", "dense.0.linear."),
        ("projector.2.", "dense.1.linear."),
    ],
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
    pub vector_head: VectorHeadConfig,
    /// What makes a score of the pooled row; absent in a model that gives vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AnswerHeadConfig>,
    /// How a query and a list of documents are written; absent in a model that reads none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListPrompt>,
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
    /// Checks the answers against the rows of the table.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field.
    pub fn check(&self, vocab: usize) -> Result<(), ConfigError> {
        let [yes, no] = self.answers;
        if yes != no && (yes.max(no) as usize) < vocab {
            return Ok(());
        }
        Err(ConfigError::OutOfRange {
            field: "head.answers".into(),
            found: format!("{:?}", self.answers),
            expected: format!("two ids less than text.vocab, {vocab}"),
        })
    }

    /// The head, as `head.…`.
    pub(crate) fn build(&self, b: &Builder<'_>, text: &BackboneConfig) -> AnswerHead {
        b.at("head", |b| AnswerHead::build(b, self.table(), [text.vocab, text.hidden], self.answers))
    }

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
        self.vector_head.check(self.text.hidden)?;
        if let Some(list) = &self.list {
            check_list(list, self)?;
        }
        let Some(head) = &self.head else { return Ok(()) };
        self.vector_head.check_alone()?;
        head.check(self.text.vocab)
    }

    fn spec(&self) -> ModelSpec {
        let spec = BackboneText::spec(&self.text, &self.vector_head);
        match &self.head {
            Some(head) => {
                ModelSpec { vector: 1, outputs: Outputs::Scores(PairForm::Prompt(head.prompt.clone())), ..spec }
            }
            None => match &self.list {
                Some(list) => ModelSpec { outputs: Outputs::Scores(PairForm::List(list.clone())), ..spec },
                None => spec,
            },
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let head = self.head.as_ref().map(|head| head.build(b, &self.text));
        let text = BackboneText::build(&self.text, BackboneOptions::default(), &self.vector_head, b, tokens);
        Arc::new(text.with_answers(head))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", self.text.words())]
    }
}

/// Refuses tokens and lengths that no list can be read with.
fn check_list(list: &ListPrompt, config: &Qwen3Config) -> Result<(), ConfigError> {
    let fault = |field: &str, found: String, expected: String| {
        Err(ConfigError::OutOfRange { field: format!("list.{field}"), found, expected })
    };
    let BackboneConfig { vocab, max_tokens, .. } = config.text;
    let [query, document] = list.ids;
    if config.head.is_some() {
        return fault("ids", "a head that answers".into(), "one of both".into());
    }
    if config.vector_head.pooling != Pooling::LastToken || !config.vector_head.more_poolings.is_empty() {
        return fault("ids", format!("{:?}", config.vector_head.pooling), "the row of a token".into());
    }
    if query == document || query.max(document) as usize >= vocab {
        return fault("ids", format!("{:?}", list.ids), format!("two ids less than text.vocab, {vocab}"));
    }
    if list.tokens[0] == list.tokens[1] || list.tokens.iter().any(String::is_empty) {
        return fault("tokens", format!("{:?}", list.tokens), "two tokens".into());
    }
    let lengths = list.most_tokens;
    if lengths.contains(&0) || lengths.iter().any(|most| *most > max_tokens) {
        return fault("most_tokens", format!("{lengths:?}"), format!("1 to {max_tokens}, the rows of a text"));
    }
    match list.most_documents {
        0 => fault("most_documents", "0".into(), "1 at least".into()),
        _ => Ok(()),
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Qwen3Config {
    folder.refuse_common();
    folder.config.only_flag("attention_bias", false);
    folder.config.only_flag("use_sliding_window", false);
    let (rope_theta, _) = rope(folder, false);
    let own = Decoder { head_dim: Some(128), causal: true, qk_norm: true, rope_theta };
    let mut text = read_backbone(folder, &own);
    if let Some(list) = folder.text.rerank.as_ref().and_then(|rerank| rerank.list.clone()) {
        let (list, vector_head) = read_list(folder, list, &text);
        return Qwen3Config { text, vector_head, head: None, list: Some(list) };
    }
    let head = head(folder);
    if head.is_some() {
        text.max_tokens = text.max_tokens.min(PAIR_TOKENS);
    }
    let vector_head = match &head {
        Some(_) => VectorHeadConfig::of(Pooling::LastToken),
        None => folder.text.vector_head.clone(),
    };
    Qwen3Config { text, vector_head, head, list: None }
}

/// What a model that reads lists writes and makes vectors with.
///
/// # Source
/// jinaai/jina-reranker-v3, `modeling.py`.
fn read_list(
    folder: &CheckpointFolder<'_>,
    tokens: [(String, u32); 2],
    text: &BackboneConfig,
) -> (ListPrompt, VectorHeadConfig) {
    let system = "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to the \
                  query. If the query is a question, how relevant a passage is depends on how well it answers the question. If not, try \
                  to analyze the intent of the query and assess how well each passage satisfies the intent. If an instruction is \
                  provided, you should follow the instruction when determining the ranking.";
    let (ids, names) = (tokens.each_ref().map(|(_, id)| *id), tokens.map(|(name, _)| name));
    let list = ListPrompt {
        before: format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"),
        behind: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n".into(),
        tokens: names,
        ids,
        most_tokens: [512, 2048].map(|most: usize| most.min(text.max_tokens)),
        most_documents: 125,
    };
    let outputs = |at: usize, otherwise: usize| {
        let shape = folder.index.shape_of(&format!("dense.{at}.linear.weight"));
        shape.and_then(|shape| shape.first().copied()).unwrap_or(otherwise)
    };
    let inner = outputs(0, text.hidden / 2);
    let dense = |inputs, outputs, activation| DenseConfig {
        inputs,
        outputs,
        bias: false,
        activation,
        residual: false,
        normalized: false,
    };
    let first = dense(text.hidden, inner, DenseActivation::Relu);
    let dense = vec![first, dense(inner, outputs(1, 512), DenseActivation::Identity)];
    (list, VectorHeadConfig { dense, ..VectorHeadConfig::of(Pooling::LastToken) })
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
    let prompt = PairPrompt {
        before: judge(),
        labels: ["<Instruct>: ", "\n<Query>: ", "\n<Document>: "].map(String::from),
        behind: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n".into(),
        instruction: rerank
            .instruction
            .clone()
            .unwrap_or_else(|| "Given a web search query, retrieve relevant passages that answer the query".into()),
    };
    Some(AnswerHeadConfig { answers, tied, prompt })
}

/// What stands in front of the instruction of Qwen3 rerankers.
pub(crate) fn judge() -> String {
    let system = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that \
                  the answer can only be \"yes\" or \"no\".";
    format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
}

/// The base of the rotary positions, and how they are stretched: as Llama 3.1 does it, where the family takes that. Any other
/// scaling is refused.
pub(crate) fn rope(folder: &CheckpointFolder<'_>, takes_llama3: bool) -> (f64, Option<Llama3Scaling>) {
    let (theta, scaling) = rope_said(folder, takes_llama3);
    // The default of transformers' configurations.
    (theta.unwrap_or(10_000.0), scaling)
}

/// The base of rotary positions that are not scaled; `otherwise` where nothing says it.
pub(crate) fn rope_or(folder: &CheckpointFolder<'_>, otherwise: f64) -> f64 {
    rope_said(folder, false).0.unwrap_or(otherwise)
}

fn rope_said(folder: &CheckpointFolder<'_>, takes_llama3: bool) -> (Option<f64>, Option<Llama3Scaling>) {
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
    (theta.or(flat), scaling)
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
