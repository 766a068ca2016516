//! The text tower of a model of two towers: learned positions, pre-norm layers, one last norm.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{HiddenAct, LayerNorm, Pooling, PreNormLayer, PreNormSizes};
use crate::builder::Builder;
use crate::capture;
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::error::ConfigError;
use crate::flops::RowActivations;

/// Shape and constants of a [`TextTower`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTowerConfig {
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
    /// Activation of the MLPs.
    pub act: HiddenAct,
    /// Rows of the learned position table.
    pub positions: usize,
    /// Longest sequence, special tokens included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
}

impl TextTowerConfig {
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
        positive("text.norm_eps", self.norm_eps)
    }

    /// The tower for people.
    pub fn words(&self) -> String {
        let Self { layers, hidden, heads, max_tokens, vocab, .. } = self;
        format!("{layers} layers of {hidden}, {heads} heads, {max_tokens} tokens at most, table of {vocab} rows")
    }
}

/// Pre-norm layers over token rows.
///
/// # Source
/// transformers, `CLIPTextTransformer` and `SiglipTextTransformer` without their heads, revision 5.23.0.
#[derive(Module, Debug)]
pub struct TextTower {
    position_embedding: Param<Tensor<2>>,
    layers: Vec<PreNormLayer>,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    config: TextTowerConfig,
}

/// Rows of a [`TextTower`] between two of its layers.
#[derive(Debug)]
pub struct TextTowerState {
    hidden: Tensor<2>,
    segments: Segments,
}

impl TextTower {
    /// The tower, without its token table; `causal` says whether a row sees only earlier ones.
    pub fn build(config: &TextTowerConfig, causal: bool, b: &Builder<'_>) -> Self {
        let TextTowerConfig { hidden, inner, heads, norm_eps, act, .. } = *config;
        let sizes = PreNormSizes { hidden, inner, heads, norm_eps, act, causal };
        Self {
            position_embedding: b.exact("position_embedding.weight", [config.positions, hidden]),
            layers: (0..config.layers)
                .map(|i| b.at(format!("layers.{i}"), |b| PreNormLayer::build(b, sizes)))
                .collect(),
            final_layer_norm: b.layer_norm("final_layer_norm", hidden, norm_eps),
            config: config.clone(),
        }
    }

    /// Positions, from zero in every segment.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`
    /// # Panics
    /// If a segment is longer than the position table.
    pub fn enter(&self, input: TokenRows) -> TextTowerState {
        let (rows, segments) = with_padding(input.rows, input.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let longest = segments.iter().map(|(_, len)| len).max().unwrap_or(0);
        assert!(longest <= self.config.positions, "{longest} rows, {} positions", self.config.positions);
        let places: Vec<i32> = segments.positions().map(|position| position as i32).collect();
        let shape = [places.len()];
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, shape), &rows.device());
        TextTowerState { hidden: rows + self.position_embedding.val().select(0, places), segments }
    }

    /// Runs one layer.
    pub fn layer(&self, index: usize, state: TextTowerState) -> TextTowerState {
        let TextTowerState { hidden, segments } = state;
        let hidden = self.layers[index].forward(hidden, &segments, &format!("backbone.layers.{index}"));
        TextTowerState { hidden, segments }
    }

    /// The last row of each segment, behind the last norm.
    ///
    /// # Shapes
    /// - returns: `[segments, hidden]`
    pub fn last_rows(&self, state: TextTowerState) -> Tensor<2> {
        let rows = without_padding(state.hidden, &state.segments);
        let last = Pooling::LastToken.apply(rows, &state.segments.with_padding(0));
        // A norm goes row by row: the others need none.
        self.final_layer_norm.forward(last)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Operations on one sequence of this many rows.
    pub fn flops(&self, tokens: usize) -> u64 {
        self.layers.iter().map(|layer| layer.flops(tokens, tokens * tokens)).sum()
    }

    /// Values of one layer's matrices.
    pub fn layer_parameters(&self) -> usize {
        self.layers.first().map_or(0, PreNormLayer::parameters)
    }

    /// Values alive a row.
    pub fn activations(&self) -> RowActivations {
        let values = self.layers.first().map_or(0, PreNormLayer::row_values);
        RowActivations { values, heads: self.config.heads }
    }
}
