//! Which family's rules a folder is read by, and cards: what is known of each supported checkpoint and stands in none of its
//! files.
//!
//! Cards are TOML, one file a checkpoint, which a family's rules carry. Epsilons, prefixes and pixel limits are data in them,
//! not constants of the code.

use std::path::Path;

use omniburn_models::family::CheckpointRules;
use omniburn_models::record::Modality;
use omniburn_models::registry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, shown};

pub use omniburn_models::checkpoint::{AudioCard, Card, PixelLimits, PreprocessCard, TextCard, VisionCard};

/// Every card this build holds.
///
/// # Panics
/// If a card compiled in is malformed, which a test excludes.
pub fn all() -> Vec<Card> {
    registry::rules().into_iter().flat_map(of).collect()
}

/// A family with checkpoints of it that are published, for people who choose one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFamily {
    /// Name of the family, as in a record's header.
    pub name: String,
    /// How far the family is known to be right.
    pub status: Status,
    /// Kinds of input.
    pub kinds: Vec<Modality>,
    /// Outputs that checkpoints of it have, as `--output` names them; scores are those of `rerank`.
    pub outputs: Vec<String>,
    /// Its checkpoints, at least one.
    pub checkpoints: Vec<Published>,
}

/// A published checkpoint. Nothing is computed from these facts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Its name where it is published.
    pub id: String,
    /// Licence of its weights.
    pub licence: String,
    /// Numbers of a vector, where it is cut to several; none of a reranker.
    #[serde(default)]
    pub dims: Vec<usize>,
    /// Roles that have a prompt.
    #[serde(default)]
    pub prompts: String,
    /// Its outputs, where they are others than dense vectors alone.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// How far a family is known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A tiny checkpoint of its layout equals its reference library in the tests.
    Parity,
    /// Its layout is read, and no reference has been compared.
    Written,
}

impl Status {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Status::Parity => "in parity",
            Status::Written => "written",
        }
    }
}

/// Published checkpoints of every family.
///
/// # Panics
/// If the list compiled in is malformed, which a test excludes.
pub fn published() -> Vec<PublishedFamily> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        family: Vec<PublishedFamily>,
    }
    toml::from_str::<List>(omniburn_models::registry::PUBLISHED).expect("the list compiled in is well formed").family
}

fn of(rules: &CheckpointRules) -> Vec<Card> {
    let parse = |text: &&str| toml::from_str(text).expect("the cards compiled in are well formed");
    rules.steps.cards.iter().map(parse).collect()
}

fn is_of(card: &Card, model_type: &str) -> bool {
    card.text.model_types.iter().any(|known| known == model_type)
}

/// The rules for a folder with this `config.json`: as its `model_type` tells, or that of its `text_config` by a card.
///
/// # Errors
/// [`ConvertError::Fields`] naming the model types and architectures found and those known.
pub(crate) fn rules_of(path: &Path, root: &Value) -> Result<(&'static CheckpointRules, Option<Card>), ConvertError> {
    if let Some(rules) = registry::rules_for(root) {
        return Ok((rules, None));
    }
    let model_type = root.get("text_config").and_then(|text| text.get("model_type"));
    if let Some(name) = model_type.and_then(Value::as_str) {
        let mut cards = registry::rules().into_iter().flat_map(|rules| of(rules).into_iter().map(move |c| (rules, c)));
        if let Some((rules, card)) = cards.find(|(_, card)| is_of(card, name)) {
            return Ok((rules, Some(card)));
        }
    }
    Err(unknown(path, root, model_type))
}

/// The refusal of a folder that no family takes.
fn unknown(path: &Path, root: &Value, of_text: Option<&Value>) -> ConvertError {
    let faults = Faults::of(path);
    let of_cards: Vec<String> = all().into_iter().flat_map(|card| card.text.model_types).collect();
    let known = of_cards.join(", ");
    let (own, architectures) = (root.get("model_type"), root.get("architectures"));
    let rules = registry::rules();
    let types: Vec<String> =
        rules.iter().flat_map(|rules| rules.model_types).map(|name| format!("\"{name}\"")).collect();
    let mut expected = format!("{}, or a text_config whose model_type is one of {known}", types.join(", "));
    let names: Vec<&str> =
        architectures.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if own.is_none_or(Value::is_null)
        && let Some(rules) = rules.iter().find(|rules| names.iter().any(|name| (rules.is_architecture)(name)))
        && let Some(name) = rules.model_types.first()
    {
        let known_as = rules.known_as;
        expected += &format!(
            "; its architectures are those of {known_as}, so `\"model_type\": \"{name}\"` in this file would do"
        );
    }
    let found = format!("{}, with architectures {}", shown(own), shown(architectures));
    let near = own.and_then(Value::as_str).and_then(|own| nearest(own, &rules));
    let near = near.map_or(String::new(), |name| format!("; the nearest that is read is \"{name}\""));
    expected += &near;
    if root.get("text_config").is_some() {
        let found = format!("{}, in a checkpoint of model_type {found}", shown(of_text));
        faults.add("text_config.model_type", found, format!("one of {known}{near}"));
    } else {
        faults.add("model_type", found, expected);
    }
    faults.refusal().into()
}

/// The model type that is read and most like this one, where one is much like it.
fn nearest(own: &str, rules: &[&'static CheckpointRules]) -> Option<&'static str> {
    let likeness = |name: &str| strsim::jaro_winkler(own, name);
    let types = rules.iter().flat_map(|rules| rules.model_types).copied().filter(|name| likeness(name) > 0.8);
    types.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_card_is_well_formed_and_found_by_each_of_its_model_types() {
        let mut types = Vec::new();
        for card in all() {
            assert!(card.tasks.contains(&card.default_task), "{}", card.id);
            assert!(card.dims.is_sorted(), "{}", card.id);
            assert_eq!(card.preprocess.rescale, 1.0 / 255.0, "{}", card.id);
            for model_type in &card.text.model_types {
                let root = json!({"text_config": {"model_type": model_type}});
                let (rules, found) = rules_of(Path::new("config.json"), &root).unwrap();
                assert_eq!(found.as_ref(), Some(&card));
                let family = registry::known().into_iter().find(|family| family.name == card.family).unwrap();
                assert!(std::ptr::eq(rules, family.checkpoint.unwrap()), "{}", card.id);
                types.push(model_type.clone());
            }
        }
        assert_eq!(types, ["qwen3", "qwen3_vl_text", "eurobert", "llama"]);
        let root = json!({"text_config": {"model_type": "bert"}});
        let error = rules_of(Path::new("config.json"), &root).unwrap_err().to_string();
        assert!(error.contains("text_config.model_type") && error.contains("qwen3_vl_text"), "{error}");
        let refused =
            |own: &str| rules_of(Path::new("config.json"), &json!({"model_type": own})).unwrap_err().to_string();
        for (own, near) in
            [("xlm-roberta-xl", "xlm-roberta"), ("clipseg", "clip"), ("modernbert-decoder", "modernbert")]
        {
            let error = refused(own);
            assert!(error.contains(&format!("the nearest that is read is \"{near}\"")), "{error}");
        }
        assert!(!refused("a_new_kind").contains("the nearest"), "{}", refused("a_new_kind"));
    }
    #[test]
    fn every_family_has_published_checkpoints_and_every_entry_a_family() {
        let list = published();
        let known: Vec<&str> = registry::FAMILIES.iter().map(|family| family.name).collect();
        let mut named: Vec<&str> = list.iter().map(|family| family.name.as_str()).collect();
        named.sort_unstable();
        let mut wanted = known.clone();
        wanted.sort_unstable();
        assert_eq!(named, wanted);
        let mut ids = Vec::new();
        for family in &list {
            assert!(!family.kinds.is_empty() && !family.checkpoints.is_empty(), "{}", family.name);
            for Published { id, dims, outputs, .. } in &family.checkpoints {
                let dense = ["dense".to_string()];
                let own = if outputs.is_empty() { dense.as_slice() } else { outputs };
                assert!(own.iter().all(|output| family.outputs.contains(output)), "{id}");
                assert_eq!(dims.is_empty(), *own == ["scores"], "{id}");
                assert!(dims.is_sorted() && !ids.contains(id), "{id}");
                ids.push(id.clone());
            }
            let outputs = ["dense", "sparse", "multi", "scores", "features"];
            assert!(family.outputs.iter().all(|output| outputs.contains(&output.as_str())), "{}", family.name);
        }
        // What a conversion knows of a checkpoint stands in the list, too.
        for card in all() {
            let family = list.iter().find(|family| family.name == card.family).unwrap();
            let own = family.checkpoints.iter().find(|own| own.id == card.id).unwrap_or_else(|| panic!("{}", card.id));
            assert_eq!(own.dims, card.dims);
        }
    }
}
