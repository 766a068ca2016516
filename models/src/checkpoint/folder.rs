//! What is known of a published folder while its configuration is read, and what the reader says of it.

use std::cell::RefCell;
use std::fmt;

use super::card::Card;
use super::fields::{Faults, Fields};
use crate::blocks::{HeadActivation, RowHeadsConfig, ScoreHeadConfig, VectorHeadConfig};
use crate::record::{Modality, Preprocess, TemplateKind};

/// What is known of a folder before its tensors are looked at.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointFolder<'a> {
    /// Fields of `config.json`.
    pub config: Fields<'a>,
    /// Faults of the same file.
    pub faults: &'a Faults,
    /// Number of tensors.
    pub tensors: usize,
    /// Their names and shapes.
    pub index: &'a dyn TensorIndex,
    /// What the other files say of texts.
    pub text: &'a TextSettings,
    /// Ids of the tokens that the family's steps name, in that order.
    pub token_ids: &'a [u32],
    /// What is known of the checkpoint and stands in none of its files.
    pub card: Option<&'a Card>,
    /// What the configuration says beside sizes, gathered while it is read.
    pub details: &'a RefCell<FolderDetails>,
}

/// Names and shapes of a checkpoint's tensors, by canonical name.
pub trait TensorIndex: fmt::Debug {
    /// Shape of a tensor.
    fn shape_of(&self, name: &str) -> Option<&[usize]>;

    /// Whether some name begins so.
    fn begins(&self, prefix: &str) -> bool;

    /// Whether some name has this in it.
    fn contains(&self, part: &str) -> bool;

    /// The value of a tensor of one finite number; `None` where there is none of the kind.
    fn number(&self, name: &str) -> Option<f32>;
}

/// What `config.json` says beside the sizes of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FolderDetails {
    /// Matryoshka dimensions, ascending, the whole vector last; none where nothing is said.
    pub dims: Vec<usize>,
    /// Tasks it names.
    pub task_names: Vec<String>,
    /// Ids it names, each with its field.
    pub ids: Vec<(&'static str, u32)>,
    /// Ids whose rows a task may replace.
    pub special_token_ids: Vec<u32>,
    /// How media lie in a sequence, one rule a medium that the model takes.
    pub templates: Vec<TemplateRule>,
    /// How media are preprocessed, where no file of a preprocessor says otherwise. Without `video`, its frames are images.
    pub preprocess: Preprocess,
    /// Beginnings of the names of tensors that this configuration leaves aside, each with the reason.
    pub unused: Vec<(String, String)>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

/// How the rows of a medium lie in a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRule {
    /// The medium.
    pub modality: Modality,
    /// The layout unless another is asked for.
    pub kind: TemplateKind,
    /// Whether the family knows this layout alone.
    pub fixed: bool,
    /// Field and id of what stands in front of the rows.
    pub start: (&'static str, Option<u32>),
    /// Field and id of what stands behind them.
    pub end: (&'static str, Option<u32>),
}

impl<'a> CheckpointFolder<'a> {
    /// A number of layers, of which there cannot be more than tensors: a lie is refused before names are made from it.
    pub fn layers(&self, name: &str) -> usize {
        layers(self.config, name, self.tensors)
    }

    /// The value of a tensor of one number, which must be there; 0 after a fault.
    pub fn number(&self, name: &str) -> f64 {
        let value = self.index.number(name);
        if value.is_none() {
            self.faults.add(name, "no such tensor", "a tensor of one finite number");
        }
        f64::from(value.unwrap_or(0.0))
    }

    /// Says something in the report.
    pub fn note(&self, text: impl Into<String>) {
        self.details.borrow_mut().notes.push(text.into());
    }

    /// Fields of an object inside the configuration; `at` is its name with a dot.
    pub fn inner(&self, name: &str, at: &'a str) -> Fields<'a> {
        Fields::new(at, self.config.get(name), self.faults)
    }

    /// The head of a cross encoder without a norm, of a model that tells so many token types apart; `None` where the folder
    /// gives vectors.
    pub fn classifier(&self, activation: HeadActivation, token_types: usize) -> Option<ScoreHeadConfig> {
        let rerank = self.text.rerank.as_ref()?;
        if rerank.answers.is_some() {
            self.config.fault("architectures", "a classifier of one label: a reranker of this family has a head");
            return None;
        }
        let token_types = if rerank.token_types { token_types.clamp(1, 2) as u8 } else { 1 };
        Some(ScoreHeadConfig { activation, dense_bias: true, norm: false, token_types })
    }

    /// Refuses what no family here computes: quantised weights, and the encoder as part of a decoder.
    pub fn refuse_common(&self) {
        for field in ["quantization", "quantization_config"] {
            if self.config.get(field).is_some() {
                self.config.fault(field, "nothing: quantised weights are not read");
            }
        }
    }
}

/// A number of layers, of which there cannot be more than tensors: a lie is refused before names are made from it.
pub fn layers(fields: Fields<'_>, name: &str, tensors: usize) -> usize {
    let layers = fields.needed_size(name);
    if layers > tensors {
        fields.fault(name, format!("at most {tensors}, the number of tensors"));
        return 0;
    }
    layers
}

/// What the files of sentence-transformers and of the tokenizer say of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSettings {
    /// From rows to the vector.
    pub vector_head: VectorHeadConfig,
    /// Where texts are cut, where a file says so.
    pub max_tokens: Option<usize>,
    /// Id that the tokenizer gives to what it does not know, where the family is a static table.
    pub unknown: Option<u32>,
    /// Id of the token that the tokenizer pads with, where its files name one.
    pub padding: Option<u32>,
    /// Of a model that scores pairs of texts; `None` of one that gives vectors.
    pub rerank: Option<RerankSettings>,
    /// Heads over rows that lie beside the weights ([`HEAD_FILES`]), or that modules make.
    pub row_heads: Option<RowHeadsConfig>,
    /// What files say of how an item is written, where the family asks for it.
    pub chat: Option<ChatFiles>,
}

/// What files say of how an item is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatFiles {
    /// The chat template, where a file has one.
    pub template: Option<String>,
    /// Whether some role has a prompt.
    pub prompts: bool,
    /// Whether the tokenizer puts tokens behind every text.
    pub ends_texts: bool,
}

/// Files of heads over rows, without their ending; the tensors inside are called `weight` and `bias`.
pub const HEAD_FILES: [&str; 2] = ["sparse_linear", "colbert_linear"];

/// How a folder scores pairs of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankSettings {
    /// Whether the token types that the tokenizer gives reach the model.
    pub token_types: bool,
    /// Ids of the answers yes and no, of a language model that is asked; `None` of one with a head.
    pub answers: Option<[u32; 2]>,
    /// The instruction of a language model, where a file says another than the model card.
    pub instruction: Option<String>,
    /// Tokens behind a query and behind a document, with their ids, of a model that reads a list of documents at once.
    pub list: Option<[(String, u32); 2]>,
}

impl TextSettings {
    /// Heads over rows that modules make: every family of texts with heads over rows has those.
    pub fn late_heads(&self) -> Option<RowHeadsConfig> {
        self.row_heads.clone().filter(|heads| heads.late.is_some())
    }

    /// Rows of a text at most, of a model that has this many positions.
    pub fn limit(&self, positions: usize) -> usize {
        self.max_tokens.map_or(positions, |said| said.min(positions))
    }
}
