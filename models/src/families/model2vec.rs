//! Static tables of token rows: a text's vector is the mean of the rows of its tokens (model2vec's potion models, StaticEmbedding
//! of sentence-transformers).

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::{TokenTable, VectorHead, VectorHeadConfig};
use crate::builder::Builder;
use crate::capture;
use crate::checkpoint::{CheckpointFolder, KeyMap, StaticTable, Steps};
use crate::checks::nonzero;
use crate::error::ConfigError;
use crate::family::{
    Architecture, CheckpointRules, Family, ModelSpec, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens,
    config,
};
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::Preprocess;

/// The family.
pub static FAMILY: Family = Family {
    name: "model2vec",
    about: "Static tables of token rows (model2vec, StaticEmbedding): text",
    read: config::<Model2VecConfig>,
    checkpoint: Some(&RULES),
};

/// `model_type` of a folder of model2vec.
const MODEL2VEC: &str = "model2vec";
/// The module that a folder of sentence-transformers without a configuration begins with stands in for its `model_type`.
const STATIC_EMBEDDING: &str = "StaticEmbedding";
/// The tensor that holds the rows.
const TABLE: &str = "embeddings";
/// The tensor that says which row each id takes, where they are not one each.
const MAPPING: &str = "mapping";
/// Where a text of a folder of model2vec is cut that says nothing.
const USUAL_TOKENS: usize = 512;
/// Where a text is cut that no file cuts.
const MOST_TOKENS: usize = 1 << 20;

const STATIC_TABLE: StaticTable = StaticTable { rows: TABLE, mapping: MAPPING, weights: "weights" };

static RULES: CheckpointRules = CheckpointRules {
    model_types: &[MODEL2VEC, STATIC_EMBEDDING],
    is_architecture: |name| name == "StaticModel",
    known_as: "a static table of token rows",
    keys: KeyMap { renames: &[("embedding.weight", TABLE)], endings: &[], drops: &[] },
    names: &[("embed_tokens.weight", TABLE)],
    read: |folder| Box::new(read(folder)),
    steps: Steps { static_table: Some(STATIC_TABLE), ..Steps::TEXT },
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model2VecConfig {
    /// Width of a row.
    pub hidden: usize,
    /// Longest text, in tokens.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Id of unknown pieces of a text, where their row is left out of the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<u32>,
    /// From rows to the vector.
    #[serde(flatten)]
    pub vector_head: VectorHeadConfig,
}

impl Architecture for Model2VecConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        nonzero(&[("text.hidden", self.hidden), ("text.max_tokens", self.max_tokens), ("text.vocab", self.vocab)])?;
        if let Some(id) = self.unknown.filter(|&id| id as usize >= self.vocab) {
            return Err(ConfigError::OutOfRange {
                field: "text.unknown".into(),
                found: id.to_string(),
                expected: format!("an id of the table, which has {} rows", self.vocab),
            });
        }
        self.vector_head.check(self.hidden)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec::of_texts(self.hidden, self.vocab, self.max_tokens, &self.vector_head)
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let tokens = tokens.table(self.vocab, self.hidden);
        Arc::new(StaticText { tokens, unknown: self.unknown, head: VectorHead::build(&self.vector_head, b) })
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let Self { hidden, max_tokens, vocab, .. } = self;
        vec![("text", format!("a table of {vocab} rows of {hidden} and nothing else, {max_tokens} tokens at most"))]
    }
}

/// The family opened: the table on the host.
#[derive(Debug)]
struct StaticText {
    tokens: TokenTable,
    unknown: Option<u32>,
    head: VectorHead,
}

/// Rows of a [`StaticText`] before their mean.
struct State {
    rows: Tensor<2>,
    segments: Segments,
}

impl Layered for StaticText {
    type State = State;

    /// `counts` is 0 for rows that are left out, 1 for the others. What is left in is made as much more as there are fewer, so
    /// that the mean over all rows is theirs; a text of which nothing is left gets zeros.
    fn enter(&self, rows: TokenRows, counts: Option<Vec<usize>>) -> State {
        let TokenRows { rows, segments } = rows;
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let Some(counts) = counts else { return State { rows, segments } };
        let factors = segments.iter().flat_map(|(start, len)| {
            let counts = &counts[start..start + len];
            let left = counts.iter().sum::<usize>().max(1);
            counts.iter().map(move |&count| count as f32 * (len as f32 / left as f32))
        });
        let factors: Vec<f32> = factors.collect();
        let shape = [factors.len(), 1];
        let factors = Tensor::<2>::from_data(TensorData::new(factors, shape), &rows.device());
        State { rows: rows * factors, segments }
    }

    fn layers(&self) -> usize {
        0
    }

    fn layer(&self, _: usize, state: State) -> State {
        state
    }

    fn leave(&self, state: State, skipped: &[usize]) -> Tensor<2> {
        self.head.forward(state.rows, &state.segments, skipped)
    }

    fn grouped(&self) -> Option<usize> {
        Some(0)
    }
}

impl TextModel for StaticText {
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

    /// Rows have no place in a text; each has how often it counts, 0 where it is an unknown piece and 1 elsewhere.
    ///
    /// # Source
    /// model2vec 0.10.0, `StaticModel.tokenize`.
    fn positions(&self, sequences: &[Vec<u32>]) -> Option<Vec<usize>> {
        let unknown = self.unknown?;
        let ids = || sequences.iter().flatten();
        ids().any(|&id| id == unknown).then(|| ids().map(|&id| usize::from(id != unknown)).collect())
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            // There is nothing but the sum of the rows.
            Shape::Text { tokens } => Some((tokens * self.tokens.hidden()) as u64 + self.head.flops()),
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        RowActivations { values: 2 * self.tokens.hidden(), heads: 0 }
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Model2VecConfig {
    folder.refuse_common();
    let fields = folder.config;
    // What is no table is refused with its name and shape when the tensors are looked at.
    let (rows, hidden) = match folder.index.shape_of(TABLE) {
        Some(&[rows, hidden]) => (rows, hidden),
        _ => (1, 1),
    };
    let vocab = match folder.index.shape_of(MAPPING) {
        Some(&[ids]) => ids,
        _ => rows,
    };
    let own = fields.text("model_type") == Some(MODEL2VEC);
    let max_tokens = match own {
        true => fields.size("max_length").unwrap_or(USUAL_TOKENS),
        false => folder.text.limit(MOST_TOKENS),
    };
    // The vectors of model2vec leave unknown pieces out, those of sentence-transformers do not.
    let unknown = folder.text.unknown.filter(|_| own);
    Model2VecConfig { hidden, max_tokens, vocab, unknown, vector_head: folder.text.vector_head.clone() }
}
