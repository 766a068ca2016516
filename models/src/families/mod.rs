//! Families: closed enums, so that adding one makes the compiler list every place to fill.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

pub mod omni;

pub use omni::OmniConfig;

/// A family with its configuration, as `model.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "config", rename_all = "snake_case", deny_unknown_fields)]
pub enum Family {
    /// One text backbone, a picture tower, a sound tower, and connectors per task (jina-embeddings-v5-omni).
    Omni(OmniConfig),
}

impl Family {
    /// Names of every family this build knows, with a sentence each.
    pub const ALL: [(&'static str, &'static str); 1] =
        [("omni", "jina-embeddings-v5-omni: Qwen3 or EuroBERT text, Qwen3-VL pictures and film, Qwen2.5-Omni sound")];

    /// The family's name.
    pub fn name(&self) -> &'static str {
        match self {
            Family::Omni(_) => "omni",
        }
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Family::Omni(config) => config.check(),
        }
    }
}

pub(crate) fn nonzero(fields: &[(&str, usize)]) -> Result<(), ConfigError> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(ConfigError::Zero { field: (*field).into() }),
        None => Ok(()),
    }
}

pub(crate) fn multiple(field: &str, value: usize, of: &str, divisor: usize) -> Result<(), ConfigError> {
    if value.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(ConfigError::NotMultiple { field: field.into(), value, of: of.into(), divisor })
    }
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
