//! How published folders of a family are read: names of tensors, fields of `config.json`, and what other files say.
//!
//! Plain data and functions over JSON: no file is opened here. `omniburn-convert` reads files, hands them over, and writes
//! what comes out.

mod fields;
mod keys;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::blocks::VectorHeadConfig;
use crate::family::Architecture;

pub use fields::{Faults, FieldFault, Fields, FileFaults, listed, shown};
pub use keys::{KeyMap, Pattern, source_name};

/// How folders of a family are recognised and read.
#[derive(Debug)]
pub struct CheckpointRules {
    /// `model_type` of `config.json`.
    pub model_types: &'static [&'static str],
    /// Whether a class of transformers is of this family, with whatever head.
    pub is_architecture: fn(&str) -> bool,
    /// What the report calls such a model.
    pub known_as: &'static str,
    /// From published names to one spelling, and tensors that are known to be unused.
    pub keys: KeyMap,
    /// Pieces of this family's tensor names, and what stands in a checkpoint in place of each; applied in this order.
    pub names: &'static [(&'static str, &'static str)],
    /// From `config.json` and what the other files say to a configuration. Faults are added to the fields' own list.
    pub read: fn(&CheckpointFolder<'_>) -> Box<dyn Architecture>,
}

/// What is known of a folder before its tensors are looked at.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointFolder<'a> {
    /// Fields of `config.json`.
    pub config: Fields<'a>,
    /// Faults of the same file.
    pub faults: &'a Faults,
    /// Number of tensors.
    pub tensors: usize,
    /// Shapes of the tensors, by their names in one spelling.
    pub shapes: &'a BTreeMap<String, Vec<usize>>,
    /// What the other files say of texts.
    pub text: &'a TextSettings,
}

impl<'a> CheckpointFolder<'a> {
    /// A number of layers, of which there cannot be more than tensors: a lie is refused before names are made from it.
    pub fn layers(&self, name: &str) -> usize {
        layers(self.config, name, self.tensors)
    }

    /// Fields of an object inside the configuration; `at` is its name with a dot.
    pub fn inner(&self, name: &str, at: &'a str) -> Fields<'a> {
        Fields::new(at, self.config.get(name), self.faults)
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
    pub head: VectorHeadConfig,
    /// Where texts are cut, where a file says so.
    pub max_tokens: Option<usize>,
    /// Id that the tokenizer gives to what it does not know, where the family is a static table.
    pub unknown: Option<u32>,
}

impl TextSettings {
    /// Rows of a text at most, of a model that has this many positions.
    pub fn limit(&self, positions: usize) -> usize {
        self.max_tokens.map_or(positions, |said| said.min(positions))
    }
}

/// Tensors of a checkpoint that make one table of token rows: `rows[mapping[id]] * weights[id]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticTable {
    /// The rows.
    pub rows: &'static str,
    /// Which row each id takes; one each, in their order, where there is no such tensor.
    pub mapping: &'static str,
    /// What each id's row is multiplied by; nothing, where there is no such tensor.
    pub weights: &'static str,
}

/// The rules for a folder whose `config.json` has this `model_type`.
pub fn rules_for(config: &Value) -> Option<&'static CheckpointRules> {
    let model_type = config.get("model_type")?.as_str()?;
    let rules = crate::family::known().into_iter().filter_map(|family| family.checkpoint);
    rules.into_iter().find(|rules| rules.model_types.contains(&model_type))
}
