//! What to convert, to where, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use omniburn_models::record::{Dtype, Modality, TemplateKind};

use crate::tasks::{GivenAdapter, TaskChoice};

/// Hears bytes done and bytes in all. Every tensor of the record counts when it is written and again when it is checked.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// `PATTERN=TYPE`: tensors of the record by name, `*` standing for any letters, and the type they are kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepRule {
    /// The pattern.
    pub pattern: String,
    /// The type.
    pub dtype: Dtype,
}

impl FromStr for KeepRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, dtype) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("`{text}`: expected PATTERN=TYPE, as in *.o_proj.weight=bf16"))?;
        Ok(Self { pattern: pattern.into(), dtype: dtype.parse()? })
    }
}

/// What to convert, to where, and how.
#[derive(Clone)]
pub struct ConvertOptions {
    /// Folder of the checkpoint; see [`find_in_hf_cache`](crate::find_in_hf_cache) for one that was downloaded by name.
    pub source: PathBuf,
    /// Folder of the record.
    pub out: PathBuf,
    /// Which tasks.
    pub tasks: TaskChoice,
    /// Adapters merged in place of the checkpoint's own: one for the task chosen, or each for a task of its own.
    pub adapters: Vec<GivenAdapter>,
    /// Type of the matrices.
    pub dtype: Dtype,
    /// Tensors of a record in affine8 or affine4 that are kept in another type; the last that names a tensor counts.
    pub keep: Vec<KeepRule>,
    /// Templates instead of the defaults.
    pub templates: BTreeMap<Modality, TemplateKind>,
    /// Only map names and shapes: no data is read but tensors of one number, nothing is written, and what is at `out` does
    /// not matter.
    pub check: bool,
    /// Replace a record at `out`, once the new one is complete.
    pub force: bool,
    /// Set from another thread to stop; the call then gives [`ConvertError::Cancelled`](crate::ConvertError::Cancelled).
    pub cancel: Arc<AtomicBool>,
    /// Called with how far the work is, from any thread that works on it.
    pub progress: Option<Progress>,
}

impl ConvertOptions {
    /// The default task in bf16, without overrides.
    pub fn new(source: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: out.into(),
            tasks: TaskChoice::Default,
            adapters: Vec::new(),
            dtype: Dtype::Bf16,
            keep: Vec::new(),
            templates: BTreeMap::new(),
            check: false,
            force: false,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_users_write_them() {
        let rule: KeepRule = "*.o_proj.weight=bf16".parse().unwrap();
        assert_eq!((rule.pattern.as_str(), rule.dtype), ("*.o_proj.weight", Dtype::Bf16));
        for wrong in ["x", "x=", "x=int4"] {
            assert!(wrong.parse::<KeepRule>().is_err(), "{wrong}");
        }
    }
}
