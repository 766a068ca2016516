//! BERT and sentence-transformers of its kind: text alone, one vector from the mean of the rows, from the first of them, or
//! from whatever the pooling file says; and cross encoders, which score a pair of texts.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::{
    HeadActivation, HiddenAct, Pooling, RowHeads, RowHeadsConfig, ScoreHead, ScoreHeadConfig, TokenTable, VectorHead,
    VectorHeadConfig,
};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, GgufRules, KeyMap, Pattern, Steps, hidden_act, layers};
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::encoder::{Encoder, EncoderShape, EncoderState};
use crate::error::{ConfigError, RecordError};
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Output, Outputs, PairForm, Pass, PassInput, RowActivations,
    RowOutputs, StepKind, TextModel, Tokens, config,
};
use crate::flops::Shape;
use crate::open::open_text;
use crate::pass::{Ending, Layered, LayeredPass};
use crate::record::{Dtype, Preprocess, RecordFolder};

/// The family.
pub static FAMILY: Family = Family {
    name: "bert",
    about: "BERT and sentence-transformers of its kind, cross encoders: text",
    read: config::<BertConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["bert"],
    is_architecture,
    known_as: "a BERT encoder",
    keys: KEYS,
    names: NAMES,
    read: |folder| Box::new(read(folder)),
    steps: Steps { gguf: GGUF, ..Steps::TEXT },
};

/// As llama.cpp writes it.
const GGUF: &[GgufRules] = &[GgufRules {
    architectures: &["bert"],
    model_type: "bert",
    names: &[
        ("token_embd.", "embeddings.word_embeddings."),
        ("position_embd.", "embeddings.position_embeddings."),
        ("token_types.", "embeddings.token_type_embeddings."),
        ("token_embd_norm.", "embeddings.LayerNorm."),
        ("blk.", "encoder.layer."),
        (".attn_q.", ".attention.self.query."),
        (".attn_k.", ".attention.self.key."),
        (".attn_v.", ".attention.self.value."),
        (".attn_output.", ".attention.output.dense."),
        (".attn_output_norm.", ".attention.output.LayerNorm."),
        (".ffn_up.", ".intermediate.dense."),
        (".ffn_down.", ".output.dense."),
        (".layer_output_norm.", ".output.LayerNorm."),
    ],
    fields: &[
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ("attention.causal", "is_decoder"),
    ],
    constants: &[("hidden_act", "\"gelu\"")],
    rotary_pairs: false,
    norms_from_zero: false,
    dense: &[],
}];

/// Whether a class of transformers is this family with whatever head.
fn is_architecture(name: &str) -> bool {
    name.strip_prefix("Bert").is_some_and(|rest| rest == "Model" || rest == "LMHeadModel" || rest.starts_with("For"))
        || name == "HF_ColBERT"
}

/// The names of published checkpoints.
const KEYS: KeyMap = KeyMap {
    // As wrappers save it: DataParallel, sentence-transformers' own state, a head around the encoder, colbert-ai's product.
    renames: &[
        ("module.", ""),
        ("0.", ""),
        ("auto_model.", ""),
        ("model.", ""),
        ("bert.", ""),
        ("linear.", "dense.0.linear."),
    ],
    // As TensorFlow called them, and so the first published checkpoints do.
    endings: &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")],
    drops: &[
        (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
        (Pattern::Prefix("cls.predictions."), "an embedding takes no head: this one guesses masked words"),
        (Pattern::Prefix("cls.seq_relationship."), "an embedding takes no head: this one guesses the next sentence"),
        (Pattern::Prefix("cls."), "an embedding takes no head"),
        (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
        (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
        (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
        (Pattern::Exact("embeddings.token_type_ids"), "every row of a text is of the first kind"),
    ],
};

/// From the names of a record to those of a checkpoint.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("head.rows.", "dense."),
    ("head.", ""),
    ("embed_tokens.", "embeddings.word_embeddings."),
    ("backbone.positions.", "embeddings.position_embeddings."),
    ("backbone.token_types.", "embeddings.token_type_embeddings."),
    ("backbone.norm.", "embeddings.LayerNorm."),
    ("backbone.layers.", "encoder.layer."),
    (".attention.query.", ".attention.self.query."),
    (".attention.key.", ".attention.self.key."),
    (".attention.value.", ".attention.self.value."),
    (".attention.out.", ".attention.output.dense."),
    (".attention.norm.", ".attention.output.LayerNorm."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".mlp.norm.", ".output.LayerNorm."),
];

/// Token types a checkpoint distinguishes; the rows of a single text are of the first.
const TOKEN_TYPES: usize = 2;
/// Pooler, nothing, classifier: what a cross encoder makes its score with.
const HEAD_NAMES: [&str; 3] = ["pooler.dense", "", "classifier"];

/// Configuration of the family, and of the text half of the mini family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
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
    /// Longest sequence the model was made for, both ends included.
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

impl BertConfig {
    /// Sizes of the encoder.
    pub fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, positions, act, .. } = *self;
        let (first_position, token_types, used_types) = (0, TOKEN_TYPES, used_types(self.head.as_ref()));
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

    /// One task's encoder, `backbone.…`.
    pub fn build(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> BertText {
        BertText {
            tokens: tokens.table(self.vocab, self.hidden),
            encoder: b.at("backbone", |b| Encoder::build(&self.shape(), b)),
            vector_head: VectorHead::build(&self.vector_head, b),
            padding: None,
            head: score_head(self.head.as_ref(), HEAD_NAMES, b, self.hidden, self.norm_eps),
            row_heads: RowHeads::build_some(self.row_heads.as_ref(), b, self.hidden),
        }
    }

    /// Opens the word embeddings.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        TokenTable::open(record, self.vocab, self.hidden)
    }

    /// Opens one task's encoder.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_text(
        &self,
        record: &RecordFolder,
        task: &str,
        tokens: TokenTable,
        compute: Dtype,
        device: &Device,
    ) -> Result<BertText, RecordError> {
        open_text(record, task, &tokens, compute, device, |b, tokens| self.build(b, tokens))
    }
}

impl Architecture for BertConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_encoder(&self.shape(), self.max_tokens, self.vocab)?;
        self.vector_head.check(self.hidden)?;
        check_head(self.head.as_ref(), &self.vector_head, TOKEN_TYPES)?;
        check_row_heads(self.row_heads.as_ref(), self.head.as_ref(), [self.hidden, self.vocab, self.max_tokens])
    }

    fn spec(&self) -> ModelSpec {
        let spec = ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head);
        ModelSpec {
            vector: if self.head.is_some() { 1 } else { spec.vector },
            outputs: outputs(self.head.as_ref(), self.row_heads.as_ref()),
            ..spec
        }
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(self.build(b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        vec![("text", encoder_words(&self.shape(), self.max_tokens, self.vocab))]
    }
}

/// Checks sizes of an encoder with learned positions against each other.
pub(crate) fn check_encoder(shape: &EncoderShape, max_tokens: usize, vocab: usize) -> Result<(), ConfigError> {
    layer_count("text.layers", shape.layers)?;
    nonzero(&[
        ("text.hidden", shape.hidden),
        ("text.heads", shape.heads),
        ("text.inner", shape.inner),
        ("text.positions", shape.positions),
        ("text.max_tokens", max_tokens),
        ("text.vocab", vocab),
    ])?;
    multiple("text.hidden", shape.hidden, "text.heads", shape.heads)?;
    let most = shape.positions.saturating_sub(shape.first_position);
    if max_tokens > most {
        let behind = if shape.first_position > 0 { " behind the padding's" } else { "" };
        return Err(ConfigError::OutOfRange {
            field: "text.max_tokens".into(),
            found: max_tokens.to_string(),
            expected: format!("at most {most}: text.positions{behind}"),
        });
    }
    positive("text.norm_eps", shape.norm_eps)
}

/// Refuses a head that does not fit what it stands behind.
pub(crate) fn check_head(
    head: Option<&ScoreHeadConfig>,
    rows: &VectorHeadConfig,
    types: usize,
) -> Result<(), ConfigError> {
    let Some(head) = head else { return Ok(()) };
    rows.check_alone()?;
    if head.token_types == 0 || usize::from(head.token_types) > types {
        return Err(ConfigError::OutOfRange {
            field: "text.head.token_types".into(),
            found: head.token_types.to_string(),
            expected: format!("1 to {types}"),
        });
    }
    Ok(())
}

/// Token types that rows may have.
pub(crate) fn used_types(head: Option<&ScoreHeadConfig>) -> usize {
    head.map_or(1, |head| usize::from(head.token_types))
}

/// Refuses heads over rows that do not fit, and any beside a head that makes scores; sizes are the numbers of a row, the rows of
/// the token table and those of a text.
pub(crate) fn check_row_heads(
    rows: Option<&RowHeadsConfig>,
    head: Option<&ScoreHeadConfig>,
    [hidden, vocab, max_tokens]: [usize; 3],
) -> Result<(), ConfigError> {
    let Some(heads) = rows else { return Ok(()) };
    let fault = |expected: &str| {
        let (field, found) = ("text.row_heads".into(), format!("{heads:?}"));
        Err(ConfigError::OutOfRange { field, found, expected: expected.into() })
    };
    if head.is_some() {
        return fault("none beside a head: a model that scores pairs gives nothing else");
    }
    match &heads.late {
        Some(_) if heads.sparse || !heads.multi => fault("vectors of rows alone where there is late interaction"),
        Some(late) => late.check(hidden, vocab, max_tokens),
        None => Ok(()),
    }
}

/// What comes out with a head that makes scores, with heads over rows, or with neither.
pub(crate) fn outputs(head: Option<&ScoreHeadConfig>, rows: Option<&RowHeadsConfig>) -> Outputs {
    match (head, rows) {
        (Some(head), _) => Outputs::Scores(PairForm::Template { types: head.token_types }),
        (None, Some(rows)) => Outputs::Vectors(RowOutputs::of(rows)),
        (None, None) => Outputs::default(),
    }
}

/// The head, under `head`; its names there are those of a checkpoint.
pub(crate) fn score_head(
    config: Option<&ScoreHeadConfig>,
    names: [&str; 3],
    b: &Builder<'_>,
    hidden: usize,
    norm_eps: f64,
) -> Option<ScoreHead> {
    config.map(|config| b.at("head", |b| ScoreHead::build(config, names, b, hidden, norm_eps)))
}

/// An encoder in words.
pub(crate) fn encoder_words(shape: &EncoderShape, max_tokens: usize, vocab: usize) -> String {
    let EncoderShape { layers, hidden, heads, .. } = shape;
    format!("{layers} encoder layers of {hidden}, {heads} heads, {max_tokens} tokens at most, table of {vocab} rows")
}

/// An encoder with learned positions opened (BERT, RoBERTa, DistilBERT, MPNet): word embeddings on the host, the encoder on
/// its device.
#[derive(Debug)]
pub struct BertText {
    /// The word embeddings.
    pub tokens: TokenTable,
    /// The encoder.
    pub encoder: Encoder,
    /// From rows to the vector.
    pub(crate) vector_head: VectorHead,
    /// Of RoBERTa and MPNet, the id of padding, whose position it takes; the positions of texts begin behind it.
    pub(crate) padding: Option<u32>,
    /// Of a reranker, what makes a score of the pooled row.
    pub(crate) head: Option<ScoreHead>,
    /// What rows give beside the vector.
    pub(crate) row_heads: RowHeads,
}

impl BertText {
    /// The encoder, `backbone.…`, between a token table of `vocab` rows and what makes vectors; without heads for anything else.
    pub(crate) fn embedder(
        shape: &EncoderShape,
        vocab: usize,
        vector_head: &VectorHeadConfig,
        padding: Option<u32>,
        b: &Builder<'_>,
        tokens: Tokens<'_>,
    ) -> Self {
        Self {
            tokens: tokens.table(vocab, shape.hidden),
            encoder: b.at("backbone", |b| Encoder::build(shape, b)),
            vector_head: VectorHead::build(vector_head, b),
            padding,
            head: None,
            row_heads: RowHeads::default(),
        }
    }

    /// One vector a sequence, pooled as the configuration says and not normalised.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, vector]`
    pub fn embed(&self, rows: TokenRows) -> Tensor<2> {
        self.run(rows.into())
    }
}

impl Layered for BertText {
    type State = EncoderState;

    fn enter(&self, rows: TokenRows, positions: Option<Vec<usize>>) -> EncoderState {
        self.encoder.enter(rows, positions, &[])
    }

    fn enter_typed(&self, rows: TokenRows, positions: Option<Vec<usize>>, types: &[u8]) -> EncoderState {
        self.encoder.enter(rows, positions, types)
    }

    fn layers(&self) -> usize {
        self.encoder.layers()
    }

    fn layer(&self, index: usize, state: EncoderState) -> EncoderState {
        self.encoder.layer(index, state)
    }

    fn leave(&self, state: EncoderState, skipped: &[usize]) -> Tensor<2> {
        let (rows, segments) = Encoder::leave(state);
        self.vector_head.forward(rows, &segments, skipped)
    }

    fn end(&self, state: EncoderState, ending: &Ending) -> Output {
        let (rows, segments) = Encoder::leave(state);
        let pooled = self.vector_head.forward(rows.clone(), &segments, &ending.skipped);
        match &self.head {
            Some(head) => Output::Scores(head.forward(pooled)),
            None => Output::with_rows(pooled, &rows, &self.row_heads, ending.wanted),
        }
    }

    fn grouped(&self) -> Option<usize> {
        Some(self.encoder.layer_parameters())
    }
}

impl TextModel for BertText {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn step_layers(&self, rows: usize) -> usize {
        Layered::step_layers(self, rows)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    /// The padding's id inside a text takes the padding's position and is not counted.
    ///
    /// # Source
    /// transformers, `create_position_ids_from_input_ids` of `modeling_xlm_roberta`, revision 5.23.0.
    fn positions(&self, sequences: &[Vec<u32>]) -> Option<Vec<usize>> {
        let padding = self.padding?;
        if !sequences.iter().flatten().any(|&id| id == padding) {
            return None;
        }
        let of = |ids: &Vec<u32>| {
            let mut next = padding as usize + 1;
            let position = |&id: &u32| {
                let counted = id != padding;
                let position = if counted { next } else { padding as usize };
                next += usize::from(counted);
                position
            };
            ids.iter().map(position).collect::<Vec<usize>>()
        };
        Some(sequences.iter().flat_map(of).collect())
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => {
                let head = self.head.as_ref().map_or(0, ScoreHead::flops);
                Some(self.encoder.flops(*tokens) + self.vector_head.flops() + head)
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.encoder.activations()
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> BertConfig {
    folder.refuse_common();
    let text = read_encoder(folder.config, folder.tensors, folder.text.vector_head.clone());
    let head = folder.classifier(HeadActivation::Tanh, TOKEN_TYPES);
    BertConfig {
        vector_head: if head.is_some() { VectorHeadConfig::of(Pooling::Cls) } else { text.vector_head },
        row_heads: if head.is_some() { None } else { folder.text.late_heads() },
        head,
        max_tokens: folder.text.limit(text.positions),
        ..text
    }
}

/// The encoder's configuration, as long as its positions; zeros where a fault was added.
pub fn read_encoder(text: Fields<'_>, tensors: usize, vector_head: VectorHeadConfig) -> BertConfig {
    refuse_decoder(text);
    if text.count("type_vocab_size").is_some_and(|n| n != 2) {
        text.fault("type_vocab_size", "2");
    }
    let positions = text.needed_size("max_position_embeddings");
    BertConfig {
        hidden: text.needed_size("hidden_size"),
        layers: layers(text, "num_hidden_layers", tensors),
        heads: text.needed_size("num_attention_heads"),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        max_tokens: text.size("max_seq_length").map_or(positions, |n| n.min(positions)),
        vocab: text.needed_size("vocab_size"),
        act: hidden_act(text, "hidden_act"),
        vector_head,
        head: None,
        row_heads: None,
    }
}

/// Refuses what an encoder of this kind does not compute.
pub(crate) fn refuse_decoder(text: Fields<'_>) {
    text.only_text("position_embedding_type", "absolute");
    text.only_flag("is_decoder", false);
    text.only_flag("add_cross_attention", false);
}
