//! A Hugging Face checkpoint and its LoRA adapters into a record folder, ahead of time.
//!
//! `config.json`, weights, tokenizer and adapters go in; a folder that `omniburn-models` opens comes out. Every tensor of
//! the checkpoint is taken or left aside for a reason that the report gives; every fault is refused with all names
//! concerned, and the destination is then as it was. Nothing here reads the environment, no network is used but by `hub`
//! (feature `hub`, off unless asked for), and no model is run: after writing, the record is opened and every tensor compared
//! with its digest.
//!
//! | where | what |
//! |---|---|
//! | `plan` | the one way from a folder to a record: everything that is decided without data |
//! | `checkpoint` | the folder opened and read by its family's rules, which stand in `omniburn-models` |
//! | [`card`] | which family's rules; what no file of a supported checkpoint states |
//! | `source`, `weights` | tensors by canonical name; files of them, and what is undone as they are read |
//! | `safefile`, `files` | checked headers, tensors read one at a time; JSON files |
//! | `folded` | a table of token rows that is kept in several tensors |
//! | `quantized` | weights of 8 bits with scales beside them |
//! | `recipes` | names and axis orders to recipes for the record's tensors |
//! | `rerank`, `row_heads` | whether a folder gives vectors or scores pairs; heads over rows in files of their own |
//! | `tasks`, `templates` | which tasks and which media layouts |
//! | `sentence_transformers` | modules, pooling, prompts and lengths of such folders |
//! | `side_files`, `processor_files`, `square_files` | prompts; the preprocessor files of transformers 4 and 5 |
//! | `tokenizer_settings`, `tokenizer_classes`, `tokenizer_tokens` | the tokenizer as transformers makes it of all its files |
//! | `gguf` | a GGUF file in the place of a folder: header, packed types, tokenizer, names |
//! | `lora_config`, `lora` | what PEFT says of an adapter; the change it makes |
//! | `layout` | transposing, fusing, rounding |
//! | `assemble` | the data |
//! | `hub` | a checkpoint from a hub into the cache of this machine |
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

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use omniburn_models::RecordError;
use omniburn_models::record::RecordWriter;
use omniburn_output::folder;
use omniburn_output::identity::resolved;

mod assemble;
pub mod card;
mod chat;
mod checkpoint;
mod clip_files;
mod colbert;
pub mod error;
mod fields;
mod files;
mod folded;
mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
mod keep;
mod late;
mod layout;
mod lora;
mod lora_config;
mod options;
mod plan;
mod processor_files;
mod quantized;
mod recipes;
pub mod report;
mod rerank;
mod row_heads;
mod safefile;
mod sentence_transformers;
mod side_files;
mod source;
mod square_files;
mod tasks;
mod templates;
mod tokenizer_classes;
mod tokenizer_settings;
mod tokenizer_tokens;
mod weights;

pub use error::ConvertError;
pub use gguf::{GgufSummary, GgufType, gguf_summary, is_gguf};
pub use options::{ConvertOptions, KeepRule, Progress};
pub use recipes::Layout;
pub use report::ConvertReport;
pub use source::find_in_hf_cache;
pub use tasks::{BASE_TASK, EMBED_TASK, GivenAdapter, RERANK_TASK, TaskChoice};

/// Converts a checkpoint, or with [`ConvertOptions::check`] says what a conversion would do.
///
/// # Numerics
/// Weights are widened to f32 exactly; an adapter's change is added in f32; each value of the record is rounded once, to
/// the nearest and ties to even. Norm gains, biases and small tables stay f32; the token table keeps the checkpoint's
/// own type and bytes. In int8 every matrix, table and convolution has one f16 scale a row instead, the token table too. In
/// affine8 and affine4 matrices of products have an f16 scale and offset for each 64 values of a row, and no value is further
/// than half a scale from its own; what is in int8 otherwise, or in affine8 in a record of affine4, the report says by type.
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

/// Whether some family takes a checkpoint, as its configuration alone tells: for those who have no weights yet.
///
/// # Errors
/// As [`convert`] refuses the folder for its `model_type` and `architectures`, or for files that are not JSON.
pub fn check_family(folder: &Path) -> Result<(), ConvertError> {
    checkpoint::check_family(folder)
}

/// Refuses a record in the place of what it is made from, links resolved: the whole folder at `out` is replaced by force. A
/// new folder inside the checkpoint is nobody's, except among its adapters, each of which is one.
fn check_overlap(options: &ConvertOptions) -> Result<(), ConvertError> {
    let out = resolved(&folder::destination(&options.out).map_err(RecordError::from)?);
    let overlap =
        |how, read: &Path| Err(ConvertError::Overlap { out: options.out.clone(), how, read: read.to_path_buf() });
    for read in std::iter::once(&options.source).chain(options.adapters.iter().map(|given| &given.folder)) {
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
