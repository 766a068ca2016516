//! Families: closed enums, so that adding one makes the compiler list every place to fill.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::blocks::Weights;
use crate::error::{ConfigError, RecordError};
use crate::record::{Dtype, Modality, RecordFolder, TOWERS_FILE, TensorSpec};

pub mod bert;
pub mod mini;
pub mod omni;

pub use bert::BertConfig;
pub use mini::MiniConfig;
pub use omni::OmniConfig;

/// A family with its configuration, as `model.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "config", rename_all = "snake_case", deny_unknown_fields)]
pub enum Family {
    /// One text backbone, a picture tower, a sound tower, and connectors per task (jina-embeddings-v5-omni).
    Omni(OmniConfig),
    /// One text encoder with small towers and trained connectors (the model that ships).
    Mini(MiniConfig),
    /// One text encoder (BERT, sentence-transformers).
    Bert(BertConfig),
}

impl Family {
    /// Names of every family this build knows, with a sentence each.
    pub const ALL: [(&'static str, &'static str); 3] = [
        ("omni", "jina-embeddings-v5-omni: Qwen3 or EuroBERT text, Qwen3-VL pictures and film, Qwen2.5-Omni sound"),
        ("mini", "omniburn-mini: MiniLM text, EfficientNet-Lite pictures and film, Whisper speech"),
        ("bert", "BERT and sentence-transformers of its kind: text"),
    ];

    /// The family's name.
    pub fn name(&self) -> &'static str {
        match self {
            Family::Omni(_) => "omni",
            Family::Mini(_) => "mini",
            Family::Bert(_) => "bert",
        }
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Family::Omni(config) => config.check(),
            Family::Mini(config) => config.check(),
            Family::Bert(config) => config.check(),
        }
    }

    /// Numbers of a whole vector.
    pub fn hidden(&self) -> usize {
        match self {
            Family::Omni(config) => config.text.hidden,
            Family::Mini(config) => config.text.hidden,
            Family::Bert(config) => config.vector(),
        }
    }

    /// Rows of the token table.
    pub fn vocab(&self) -> usize {
        match self {
            Family::Omni(config) => config.text.vocab,
            Family::Mini(config) => config.text.vocab,
            Family::Bert(config) => config.vocab,
        }
    }

    /// Rows of a text at most, special tokens included.
    pub fn max_tokens(&self) -> usize {
        match self {
            Family::Omni(config) => config.text.max_tokens,
            Family::Mini(config) => config.text.max_tokens,
            Family::Bert(config) => config.max_tokens,
        }
    }

    /// Whether there is a way in for a kind of input.
    pub fn takes(&self, modality: Modality) -> bool {
        let (pictures, sound) = match self {
            Family::Omni(config) => (config.vision.is_some(), config.audio.is_some()),
            Family::Mini(config) => (config.picture.is_some(), config.speech.is_some()),
            Family::Bert(_) => (false, false),
        };
        match modality {
            Modality::Text => true,
            Modality::Image | Modality::Video => pictures,
            Modality::Audio => sound,
        }
    }

    /// Tensors of `tokens.bpk`.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        match self {
            Family::Omni(config) => config.token_tensors(),
            Family::Mini(config) => config.token_tensors(),
            Family::Bert(config) => config.token_tensors(),
        }
    }

    /// Tensors of `towers.bpk`; none where the family has no tower.
    pub fn tower_tensors(&self) -> Vec<TensorSpec> {
        match self {
            Family::Omni(config) => config.tower_tensors(),
            Family::Mini(config) => config.tower_tensors(),
            Family::Bert(_) => Vec::new(),
        }
    }

    /// Tensors of `text.<task>.bpk`, with so many special rows where the family has such.
    pub fn text_tensors(&self, special_rows: usize) -> Vec<TensorSpec> {
        match self {
            Family::Omni(config) => config.text_tensors(special_rows),
            Family::Mini(config) => config.text_tensors(),
            Family::Bert(config) => config.text_tensors(),
        }
    }
}

/// No width, count or length of a model comes near it, and products of two of them, thrice, fit 64 bits: a size from a
/// damaged header can be multiplied before a file is found not to hold it.
const MOST: usize = 1 << 24;

/// Sizes, none of them zero or beyond what any model has.
pub(crate) fn nonzero(fields: &[(&str, usize)]) -> Result<(), ConfigError> {
    for &(field, value) in fields {
        if value == 0 {
            return Err(ConfigError::Zero { field: field.into() });
        }
        at_most(field, value, MOST)?;
    }
    Ok(())
}

fn at_most(field: &str, value: usize, most: usize) -> Result<(), ConfigError> {
    if value <= most {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange {
            field: field.into(),
            found: value.to_string(),
            expected: format!("at most {most}"),
        })
    }
}

pub(crate) fn multiple(field: &str, value: usize, of: &str, divisor: usize) -> Result<(), ConfigError> {
    if value.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(ConfigError::NotMultiple { field: field.into(), value, of: of.into(), divisor })
    }
}

/// Layers of a stack, or blocks of a stage, that a configuration may ask for: the largest published model of any family
/// has 126. Each has a dozen tensors with names of their own, made before any file is looked at: a header of 35 KB that
/// asked for a million filled the memory (found by the `record` target of the hostile bytes).
const MOST_LAYERS: usize = 1024;

/// A count of layers: neither zero nor beyond what any model has.
pub(crate) fn layer_count(field: &str, value: usize) -> Result<(), ConfigError> {
    nonzero(&[(field, value)])?;
    at_most(field, value, MOST_LAYERS)
}

/// Sizes that are multiplied by each other more than twice: neither zero nor above 1,024.
pub(crate) fn small(fields: &[(&str, usize)]) -> Result<(), ConfigError> {
    nonzero(fields)?;
    fields.iter().try_for_each(|(field, value)| at_most(field, *value, 1024))
}

pub(crate) fn positive(field: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange {
            field: field.into(),
            found: value.to_string(),
            expected: "a positive number".into(),
        })
    }
}

/// A tower from the shared part of a record, whose tensors are `specs`; `None` where the checkpoint has none.
pub(crate) fn open_tower<C, T>(
    config: Option<&C>,
    record: &RecordFolder,
    specs: &[TensorSpec],
    compute: Dtype,
    device: &Device,
    load: impl FnOnce(&C, &Weights) -> T,
) -> Result<Option<T>, RecordError> {
    let Some(config) = config else { return Ok(None) };
    let part = record.part(TOWERS_FILE, specs)?;
    Ok(Some(load(config, &Weights::new(&part, compute, device))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_layers_than_any_model_has_are_refused_by_name() {
        assert_eq!(layer_count("text.layers", 0), Err(ConfigError::Zero { field: "text.layers".into() }));
        assert!(layer_count("text.layers", 1).is_ok() && layer_count("text.layers", MOST_LAYERS).is_ok());
        let error = layer_count("text.layers", 1 << 20).unwrap_err().to_string();
        assert_eq!(error, "text.layers = 1048576, expected at most 1024");
        let error = nonzero(&[("text.hidden", 32), ("speech.inner", 1 << 63)]).unwrap_err().to_string();
        assert_eq!(error, "speech.inner = 9223372036854775808, expected at most 16777216");
    }
}
