//! BERT and sentence-transformers models: text alone, one vector from the mean of the rows or from the first of them.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::filler::{with_filler, without_filler};
use crate::blocks::{EncoderLayer, LayerNorm, Pooling, TokenTable, Weights};
use crate::capture;
use crate::error::{ConfigError, RecordError};
use crate::families::{layer_count, multiple, nonzero, positive};
use crate::record::{Dtype, RecordFolder, TensorSpec, layer_norm, text_file};

/// Kinds of rows a checkpoint distinguishes; only the first kind is used.
const TOKEN_TYPES: usize = 2;
/// Poolings side by side that a configuration may ask for: each there is, twice. Published models have one or two.
const MOST_POOLINGS: usize = 12;

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
    /// Which rows make the vector.
    pub pooling: Pooling,
    /// Poolings whose vectors stand behind the first one's, in this order; mostly none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_poolings: Vec<Pooling>,
    /// Whether the rows up to the end of a prompt are left out of the poolings; the last row never is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_prompt: bool,
}

impl BertConfig {
    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        layer_count("text.layers", self.layers)?;
        nonzero(&[
            ("text.hidden", self.hidden),
            ("text.heads", self.heads),
            ("text.inner", self.inner),
            ("text.positions", self.positions),
            ("text.max_tokens", self.max_tokens),
            ("text.vocab", self.vocab),
        ])?;
        multiple("text.hidden", self.hidden, "text.heads", self.heads)?;
        if self.max_tokens > self.positions {
            return Err(ConfigError::OutOfRange {
                field: "text.max_tokens".into(),
                found: self.max_tokens.to_string(),
                expected: format!("at most text.positions, {}", self.positions),
            });
        }
        if self.more_poolings.len() >= MOST_POOLINGS {
            return Err(ConfigError::OutOfRange {
                field: "text.more_poolings".into(),
                found: self.more_poolings.len().to_string(),
                expected: format!("at most {}", MOST_POOLINGS - 1),
            });
        }
        positive("text.norm_eps", self.norm_eps)
    }

    /// Numbers of a whole vector: as many times `hidden` as there are poolings.
    pub fn vector(&self) -> usize {
        self.hidden * (1 + self.more_poolings.len())
    }

    /// Tensors of `tokens.bpk`: the word embeddings.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        vec![TokenTable::spec(self.vocab, self.hidden)]
    }

    /// Tensors of `text.<task>.bpk`: the encoder.
    pub fn text_tensors(&self) -> Vec<TensorSpec> {
        self.encoder_tensors("backbone")
    }

    /// Every tensor of the encoder under `prefix`, without the word embeddings.
    pub fn encoder_tensors(&self, prefix: &str) -> Vec<TensorSpec> {
        let mut specs = vec![
            TensorSpec::rows(format!("{prefix}.positions.weight"), [self.positions, self.hidden]),
            TensorSpec::rows(format!("{prefix}.token_types.weight"), [TOKEN_TYPES, self.hidden]),
        ];
        specs.extend(layer_norm(&format!("{prefix}.norm"), self.hidden));
        let layers = 0..self.layers;
        specs.extend(
            layers.flat_map(|i| EncoderLayer::tensors(&format!("{prefix}.layers.{i}"), self.hidden, self.inner)),
        );
        specs
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
        record.check_task(task)?;
        let part = record.part(&text_file(task), &self.text_tensors())?;
        Ok(BertText { tokens, encoder: BertEncoder::load(self, &Weights::new(&part, compute, device), "backbone") })
    }
}

/// The family opened: word embeddings on the host, the encoder on its device.
#[derive(Debug)]
pub struct BertText {
    /// The word embeddings.
    pub tokens: TokenTable,
    /// The encoder.
    pub encoder: BertEncoder,
}

impl BertText {
    /// One vector a sequence, not normalised; see [`BertEncoder::embed`].
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, vector]`
    pub fn embed(&self, rows: TokenRows) -> Tensor<2> {
        self.encoder.embed(rows)
    }

    /// The same without the first rows of each sequence; see [`BertEncoder::embed_after`].
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; `skipped`: `[segments]` or empty; returns: `[segments, vector]`
    pub fn embed_after(&self, rows: TokenRows, skipped: &[usize]) -> Tensor<2> {
        self.encoder.embed_after(rows, skipped)
    }
}

/// Post-norm encoder over rows: word embeddings, or whatever stands where word embeddings would stand.
///
/// # Source
/// transformers, `BertModel` without its pooler, revision 5.23.0.
#[derive(Module, Debug)]
pub struct BertEncoder {
    positions: Param<Tensor<2>>,
    norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    #[module(skip)]
    config: BertConfig,
}

impl BertEncoder {
    /// Builds the encoder from `{prefix}.…` of a part that was opened with [`BertConfig::encoder_tensors`]. The row of
    /// token type 0 is added to every position once, here.
    pub fn load(config: &BertConfig, weights: &Weights, prefix: &str) -> Self {
        let positions = weights.rows::<2>(&format!("{prefix}.positions.weight")).val();
        let types = weights.rows::<2>(&format!("{prefix}.token_types.weight")).val();
        let layer = |i| EncoderLayer::load(weights, &format!("{prefix}.layers.{i}"), config.heads, config.norm_eps);
        Self {
            positions: Param::from_tensor(positions + types.slice_dim(0, 0..1)),
            norm: LayerNorm::load(weights, &format!("{prefix}.norm"), config.norm_eps),
            layers: (0..config.layers).map(layer).collect(),
            config: config.clone(),
        }
    }

    /// Hidden rows after the last layer. Positions count from zero in every segment, and every row sees all rows of its
    /// own segment. Rows need not be words: position, type row and the first norm are applied to them alike.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; returns: `[tokens, hidden]`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    /// # Panics
    /// If a segment is longer than the position table.
    pub fn forward(&self, input: TokenRows) -> Tensor<2> {
        let (rows, segments) = with_filler(input.rows, input.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let mut hidden = self.norm.forward(rows + self.positions_of(&segments));
        hidden = capture::pass(|| "backbone.norm".into(), hidden);
        for (i, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden, &segments, &format!("backbone.layers.{i}"));
        }
        without_filler(hidden, &segments)
    }

    /// One vector a sequence, pooled as the configuration says and not normalised.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; returns: `[segments, vector]`
    /// # Panics
    /// As [`BertEncoder::forward`].
    pub fn embed(&self, input: TokenRows) -> Tensor<2> {
        self.embed_after(input, &[])
    }

    /// One vector a sequence, not normalised, pooled without the first `skipped` rows of each sequence. They are rows of
    /// the encoder like all others.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; `skipped`: `[segments]` or empty; returns: `[segments, vector]`
    /// # Panics
    /// As [`BertEncoder::forward`], and if nothing is left of a sequence.
    pub fn embed_after(&self, input: TokenRows, skipped: &[usize]) -> Tensor<2> {
        let segments = input.segments.clone();
        let hidden = self.forward(input);
        let more = &self.config.more_poolings;
        if more.is_empty() {
            return self.config.pooling.apply_after(hidden, &segments, skipped);
        }
        let poolings = std::iter::once(&self.config.pooling).chain(more);
        Tensor::cat(poolings.map(|p| p.apply_after(hidden.clone(), &segments, skipped)).collect(), 1)
    }

    fn positions_of(&self, segments: &Segments) -> Tensor<2> {
        let longest = segments.iter().map(|(_, len)| len).max().unwrap_or(0);
        assert!(longest <= self.config.positions, "{longest} rows, {} positions", self.config.positions);
        let index: Vec<i32> = segments.positions().map(|position| position as i32).collect();
        let shape = [index.len()];
        let device = self.positions.device();
        self.positions.val().select(0, Tensor::<1, Int>::from_data(TensorData::new(index, shape), &device))
    }
}
