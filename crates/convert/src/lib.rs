//! A Hugging Face checkpoint and its LoRA adapters into a record folder, ahead of time.
//!
//! `config.json`, weights, tokenizer and adapters go in; a folder that `omniburn-models` opens comes out. Every tensor of
//! the checkpoint is taken or left aside for a reason that the report gives; every fault is refused with all names
//! concerned, and the destination is then as it was. There is no network here, nothing reads the environment, and
//! no model is run: after writing, the record is opened and every tensor compared with its digest.
//!
//! | where | what |
//! |---|---|
//! | [`card`] | what no file of a supported checkpoint states |
//! | `source`, `safefile` | folder, shards and index; checked headers, tensors read one at a time |
//! | `hf_config`, `side_files`, `fields` | published JSON to strict configuration |
//! | `sentence_transformers` | modules, pooling, prompts and lengths of such folders |
//! | `keymap`, `maps` | names and axis orders to recipes for the record's tensors |
//! | `processor_files` | the preprocessor files of transformers 4 and 5 |
//! | `single` | families published one way, without adapters |
//! | `folded` | a table of token rows that is kept in several tensors |
//! | `tokenizer_settings`, `tokenizer_classes` | the tokenizer as transformers makes it of all its files |
//! | `tasks`, `templates` | which tasks and which media layouts |
//! | `lora`, `layout` | the change of an adapter; transposing, fusing, rounding |
//! | `plan`, `assemble` | everything that is decided without data; then the data |
//! | [`report`], [`error`] | what was done, and why not |
//!
//! The peak of memory is a few tensors: each is read, merged in f32, rounded once, transposed, hashed and written before
//! the next one is read.
//!
//! ```no_run
//! use omniburn_convert::{ConvertOptions, TaskChoice, convert};
//!
//! let mut options = ConvertOptions::new("checkpoints/jina-embeddings-v5-omni-small", "records/small");
//! options.tasks = TaskChoice::All;
//! println!("{}", convert(&options)?);
//! # Ok::<(), omniburn_convert::ConvertError>(())
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use omniburn_models::RecordError;
use omniburn_models::record::{Dtype, Modality, RecordWriter, TemplateKind};
use omniburn_output::folder;
use omniburn_output::identity::resolved;

mod assemble;
pub mod card;
pub mod error;
mod fields;
mod folded;
mod hf_config;
mod keymap;
mod layout;
mod lora;
mod maps;
mod plan;
mod processor_files;
pub mod report;
mod safefile;
mod sentence_transformers;
mod side_files;
mod single;
mod source;
mod tasks;
mod templates;
mod tokenizer_classes;
mod tokenizer_settings;

pub use error::ConvertError;
pub use maps::omni::Layout;
pub use report::ConvertReport;
pub use source::find_in_hf_cache;
pub use tasks::{BASE_TASK, TaskChoice};

/// Hears bytes done and bytes in all. Every tensor of the record counts when it is written and again when it is checked.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What to convert, to where, and how.
#[derive(Clone)]
pub struct ConvertOptions {
    /// Folder of the checkpoint; see [`find_in_hf_cache`] for one that was downloaded by name.
    pub source: PathBuf,
    /// Folder of the record.
    pub out: PathBuf,
    /// Which tasks.
    pub tasks: TaskChoice,
    /// An adapter folder for the one task chosen, instead of the checkpoint's own.
    pub adapter: Option<PathBuf>,
    /// Type of the matrices.
    pub dtype: Dtype,
    /// Templates instead of the defaults.
    pub templates: BTreeMap<Modality, TemplateKind>,
    /// Only map names and shapes: no data is read, nothing is written, and what is at `out` does not matter.
    pub check: bool,
    /// Replace a record at `out`, once the new one is complete.
    pub force: bool,
    /// Set from another thread to stop; the call then gives [`ConvertError::Cancelled`].
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
            adapter: None,
            dtype: Dtype::Bf16,
            templates: BTreeMap::new(),
            check: false,
            force: false,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

/// Converts a checkpoint, or with [`ConvertOptions::check`] says what a conversion would do.
///
/// # Numerics
/// Weights are widened to f32 exactly; an adapter's change is added in f32; each value of the record is rounded once, to
/// the nearest and ties to even. Norm gains, biases and small tables stay f32; the token table keeps the checkpoint's
/// own type and bytes. In int8 every matrix, table and convolution has one f16 scale a row instead, the token table too.
///
/// # Errors
/// [`ConvertError`], with every name concerned; `out` is then as it was and nothing is left beside it. Killed, it leaves
/// `out` as it was or the whole new record, and a folder beside it that the next conversion to `out` names and removes.
pub fn convert(options: &ConvertOptions) -> Result<ConvertReport, ConvertError> {
    let started = Instant::now();
    let mut leftovers = Vec::new();
    if !options.check {
        check_overlap(options)?;
        leftovers = RecordWriter::recover(&options.out)?;
        for leftover in &leftovers {
            tracing::warn!("{leftover}");
        }
        RecordWriter::check_destination(&options.out, options.force)?;
    }
    let mut plan = plan::Plan::make(options)?;
    plan.report.notes.extend(source::snapshot_note(&options.source));
    plan.report.notes.extend(leftovers.iter().map(ToString::to_string));
    if options.cancel.load(Ordering::Relaxed) {
        return Err(ConvertError::Cancelled);
    }
    let mut report = if options.check { plan.report } else { assemble::write(plan, options)? };
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Refuses a record in the place of what it is made from, links resolved: the whole folder at `out` is replaced by force. A
/// new folder inside the checkpoint is nobody's, except among its adapters, each of which is one.
fn check_overlap(options: &ConvertOptions) -> Result<(), ConvertError> {
    let out = resolved(&folder::destination(&options.out).map_err(RecordError::from)?);
    let overlap =
        |how, read: &Path| Err(ConvertError::Overlap { out: options.out.clone(), how, read: read.to_path_buf() });
    for read in std::iter::once(&options.source).chain(&options.adapter) {
        let real = resolved(read);
        if out == real {
            return overlap("is the same folder as", read);
        }
        if real.starts_with(&out) {
            return overlap("holds", read);
        }
    }
    let adapters = options.source.join(tasks::ADAPTERS_FOLDER);
    if out.starts_with(resolved(&adapters)) {
        return overlap("lies in", &adapters);
    }
    Ok(())
}
