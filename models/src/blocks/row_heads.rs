//! Heads over the rows of the last layer: the weight of each row's token in a sparse vector, and a vector of each row; and how
//! texts are laid out for the latter (late interaction).

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use super::head::{Dense, check_dense};
use super::score::RowProduct;
use super::{DenseConfig, Linear};
use crate::builder::Builder;
use crate::error::ConfigError;

/// What the rows of a model give beside the vector of their item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowHeadsConfig {
    /// Whether each row gives its token's weight in a sparse vector.
    pub sparse: bool,
    /// Whether rows give vectors of their own: each but the first, or each where [`RowHeadsConfig::late`] is there.
    pub multi: bool,
    /// Ids that have no weight in a sparse vector: the ends of a sequence, the padding, the unknown.
    pub unweighted: Vec<u32>,
    /// Of a model that is made for the vectors of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<LateInteraction>,
}

/// How a model of late interaction reads texts and makes the vectors of their rows.
///
/// # Source
/// lightonai/pylate, `ColBERT.tokenize`, `ColBERT.encode`, `Dense`, revision 1f1f47c.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateInteraction {
    /// Dense modules over each row, in this order.
    pub dense: Vec<DenseConfig>,
    /// Id that stands in the second place of a query, and of a document; where a marker is no token, it is a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_marker: Option<u32>,
    /// The same of a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_marker: Option<u32>,
    /// Ids whose rows in a document have no vector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skiplist: Vec<u32>,
    /// Tokens of a document at most, where that is less than what the model reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_tokens: Option<usize>,
    /// What stands behind a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<QueryExpansion>,
}

/// One id behind a query, until it has its full length. Its rows have vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryExpansion {
    /// The id.
    pub id: u32,
    /// Rows of a query with its expansion.
    pub length: usize,
    /// Whether rows see those of the expansion.
    pub attended: bool,
    /// Whether a query is at most so long; a longer one stands without an expansion otherwise.
    pub fixed: bool,
}

impl LateInteraction {
    /// Checks sizes against the model's: numbers of a row, rows of the token table, rows of a text.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self, hidden: usize, vocab: usize, max_tokens: usize) -> Result<(), ConfigError> {
        check_dense("text.row_heads.late.dense", &self.dense, hidden)?;
        let ids = self.skiplist.iter().chain(&self.query_marker).chain(&self.document_marker);
        let ids = ids.copied().chain(self.expansion.map(|expansion| expansion.id));
        if let Some(id) = ids.max().filter(|id| *id as usize >= vocab) {
            return Err(ConfigError::OutOfRange {
                field: "text.row_heads.late".into(),
                found: format!("the id {id}"),
                expected: format!("ids less than text.vocab, {vocab}"),
            });
        }
        if let Some(tokens) = self.document_tokens.filter(|tokens| !(1..=max_tokens).contains(tokens)) {
            return Err(ConfigError::OutOfRange {
                field: "text.row_heads.late.document_tokens".into(),
                found: tokens.to_string(),
                expected: format!("1 to {max_tokens}, the rows of a text"),
            });
        }
        match self.expansion {
            Some(QueryExpansion { length, .. }) if !(2..=max_tokens).contains(&length) => {
                Err(ConfigError::OutOfRange {
                    field: "text.row_heads.late.expansion.length".into(),
                    found: length.to_string(),
                    expected: format!("2 to {max_tokens}, the rows of a text"),
                })
            }
            _ => Ok(()),
        }
    }

    /// Numbers of a row's vector, of a model with rows of this width.
    pub fn width(&self, hidden: usize) -> usize {
        self.dense.last().map_or(hidden, |dense| dense.outputs)
    }

    /// The ids with a marker in the second place.
    pub fn marked(marker: Option<u32>, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(marker) = marker {
            ids.insert(ids.len().min(1), marker);
        }
        ids
    }
}

/// Heads over rows.
///
/// # Source
/// FlagEmbedding, `BGEM3Model`: `sparse_linear` with a ReLU, `colbert_linear`; pylate, `Dense`.
#[derive(Debug, Default)]
pub struct RowHeads {
    sparse: Option<RowProduct>,
    multi: Option<Multi>,
}

/// What makes the vector of a row.
#[derive(Debug)]
enum Multi {
    Linear(Box<Linear>),
    Dense(Vec<Dense>),
}

impl RowHeads {
    /// The heads over rows of this width; Dense modules are `rows.{index}`.
    pub fn build(config: &RowHeadsConfig, b: &Builder<'_>, hidden: usize) -> Self {
        let dense = |(i, dense): (usize, &DenseConfig)| b.at(format!("rows.{i}"), |b| Dense::build(dense, b));
        Self {
            sparse: config.sparse.then(|| RowProduct::build(b, "sparse_linear", hidden)),
            multi: config.multi.then(|| match &config.late {
                Some(late) => Multi::Dense(late.dense.iter().enumerate().map(dense).collect()),
                None => Multi::Linear(Box::new(b.linear_biased("colbert_linear", hidden, hidden))),
            }),
        }
    }

    /// The heads of a configuration that may have none, under `head`.
    pub(crate) fn build_some(config: Option<&RowHeadsConfig>, b: &Builder<'_>, hidden: usize) -> Self {
        match config {
            Some(heads) => b.at("head", |b| Self::build(heads, b, hidden)),
            None => Self::default(),
        }
    }

    /// The weight of each row's token; `None` without such a head.
    ///
    /// # Shapes
    /// - `rows`: `[tokens, hidden]`; returns: `[tokens, 1]`
    /// # Numerics
    /// f32.
    pub fn weights(&self, rows: &Tensor<2>) -> Option<Tensor<2>> {
        self.sparse.as_ref().map(|head| relu(head.forward(rows.clone())))
    }

    /// The vector of each row, not normalised; `None` without such a head.
    ///
    /// # Shapes
    /// - `rows`: `[tokens, hidden]`; returns: `[tokens, width]`
    pub fn vectors(&self, rows: &Tensor<2>) -> Option<Tensor<2>> {
        self.multi.as_ref().map(|head| match head {
            Multi::Linear(head) => head.forward(rows.clone()),
            Multi::Dense(modules) => modules.iter().fold(rows.clone(), |rows, dense| dense.forward(rows)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_stands_in_the_second_place_of_whatever_there_is() {
        assert_eq!(LateInteraction::marked(Some(9), vec![1, 2, 3]), [1, 9, 2, 3]);
        assert_eq!(LateInteraction::marked(Some(9), vec![1]), [1, 9]);
        assert_eq!(LateInteraction::marked(Some(9), Vec::new()), [9]);
        assert_eq!(LateInteraction::marked(None, vec![1, 2]), [1, 2]);
    }

    #[test]
    fn ids_beyond_the_table_and_lengths_beyond_the_model_are_refused_by_name() {
        let late = |expansion| LateInteraction { skiplist: vec![4], expansion, ..LateInteraction::default() };
        let refused = |late: LateInteraction, vocab| late.check(8, vocab, 32).unwrap_err().to_string();
        assert!(late(None).check(8, 5, 32).is_ok());
        assert!(refused(late(None), 4).contains("the id 4"));
        let expansion = |length| Some(QueryExpansion { id: 0, length, attended: true, fixed: true });
        assert!(late(expansion(32)).check(8, 5, 32).is_ok());
        assert!(refused(late(expansion(33)), 5).contains("expansion.length = 33"));
    }
}
