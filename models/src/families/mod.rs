//! Families: one file each, with its configuration, its forward pass, its names in published checkpoints and how such a
//! folder is read. [`crate::family::FAMILIES`] lists them.

use crate::error::ConfigError;

pub mod bert;
pub mod gemma3;
pub mod llama;
pub mod mini;
pub mod model2vec;
pub mod modernbert;
pub mod omni;
pub mod qwen3;
pub mod xlm_roberta;

pub use bert::BertConfig;
pub use gemma3::Gemma3Config;
pub use llama::LlamaConfig;
pub use mini::MiniConfig;
pub use model2vec::Model2VecConfig;
pub use modernbert::ModernBertConfig;
pub use omni::OmniConfig;
pub use qwen3::Qwen3Config;
pub use xlm_roberta::XlmRobertaConfig;

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
