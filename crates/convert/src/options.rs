//! What to convert, to where, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use omniburn_models::record::{Dtype, Modality, TemplateKind};

use crate::tasks::{GivenAdapter, TaskChoice};

/// Hears bytes done and bytes in all. Every tensor of the record counts when it is written and again when it is checked.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

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
    /// Templates instead of the defaults.
    pub templates: BTreeMap<Modality, TemplateKind>,
    /// Only map names and shapes: no data is read but tensors of one number, nothing is written, and what is at `out` does
    /// not matter.
    pub check: bool,
    /// Replace a record at `out`, once the new one is complete.
    pub force: bool,
    /// Set from another thread to stop; the call then gives [`ConvertError::Cancelled`](crate::ConvertError::Cancelled).
    pub cancel: Arc<AtomicBool>,
    /// Told how far the work is, from any thread that works on it.
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
            templates: BTreeMap::new(),
            check: false,
            force: false,
            cancel: Arc::default(),
            progress: None,
        }
    }
}
