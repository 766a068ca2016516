//! What a conversion did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use omniburn_models::record::{Dtype, Modality, TemplateKind};
use serde::Serialize;

use crate::recipes::Layout;

/// A tensor of the checkpoint that no record tensor is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedTensor {
    /// Name in the file.
    pub name: String,
    /// Why it is not needed.
    pub reason: String,
}

/// What one adapter did to the weights of one kind of module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleDelta {
    /// Weights changed.
    pub count: usize,
    /// Smallest and largest scale among them; equal unless the adapter has patterns.
    pub scale: (f64, f64),
    /// Mean over the weights of the Frobenius norm of the change divided by that of the weight; absent in a check.
    pub mean_relative_norm: Option<f64>,
}

/// One task's adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraReport {
    /// The task.
    pub task: String,
    /// Rank of the adapter's configuration.
    pub rank: usize,
    /// Alpha of the adapter's configuration.
    pub alpha: f64,
    /// Whether the scale is alpha divided by the square root of the rank.
    pub rank_stabilised: bool,
    /// Whether rows have lengths of the adapter's own (DoRA).
    pub magnitudes: bool,
    /// By kind of module, such as `q_proj`.
    pub modules: BTreeMap<String, ModuleDelta>,
    /// Tensors of the checkpoint that the adapter brings whole.
    pub replaced: Vec<String>,
    /// Tensors of the adapter left aside, as no vector depends on what they change.
    pub dropped: Vec<DroppedTensor>,
}

/// Parameters of the model for one task, as the checkpoint counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Parameters {
    /// Text backbone with the token table.
    pub text: u64,
    /// Image tower.
    pub vision: u64,
    /// Connector of the image tower.
    pub merger: u64,
    /// Audio tower.
    pub audio: u64,
    /// Connector of the audio tower.
    pub projector: u64,
}

impl Parameters {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.text + self.vision + self.merger + self.audio + self.projector
    }
}

/// One tensor file of the record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartReport {
    /// The file.
    pub file: String,
    /// Tensors inside.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    /// Their bytes, without the container's own.
    pub bytes: u64,
    /// Matrices, tables and convolutions by the type they are stored in.
    pub types: Vec<TypeReport>,
    /// How far its matrices lie from f32; absent in a check.
    pub rounding: Option<Rounding>,
}

/// Tensors of a file in one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeReport {
    /// The type.
    pub dtype: Dtype,
    /// How many.
    pub tensors: usize,
    /// Their bytes, scales and offsets among them.
    pub bytes: u64,
}

/// How far the stored matrices lie from the f32 they were rounded from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rounding {
    /// Frobenius norm of all differences divided by that of all values.
    pub relative: f64,
    /// The matrix with the largest such quotient of its own.
    pub worst_tensor: String,
    /// That quotient.
    pub worst: f64,
}

/// What a conversion did, or in a check what it would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertReport {
    /// The checkpoint's name.
    pub source: String,
    /// Where the record is; absent in a check.
    pub out: Option<PathBuf>,
    /// Whether only names and shapes were looked at.
    pub check: bool,
    /// Layout recognised.
    pub layout: Layout,
    /// The card it is known by.
    pub card: String,
    /// Licence of the weights, as the card has it.
    pub licence: String,
    /// Family.
    pub family: String,
    /// Tasks of the record.
    pub tasks: Vec<String>,
    /// The task used unless another is asked for.
    pub default_task: String,
    /// Type of the matrices.
    pub dtype: Dtype,
    /// Matryoshka dimensions.
    pub dims: Vec<usize>,
    /// Template by medium.
    pub templates: BTreeMap<Modality, TemplateKind>,
    /// Tensors of the checkpoint that go into the record.
    pub mapped: usize,
    /// Weights an adapter changed, over all tasks.
    pub merged: usize,
    /// Tensors of the checkpoint left aside.
    pub dropped: Vec<DroppedTensor>,
    /// Adapters, one a task that has one.
    pub lora: Vec<LoraReport>,
    /// Parameters of the model for one task.
    pub parameters: Parameters,
    /// Tensor files.
    pub parts: Vec<PartReport>,
    /// What storing the matrices in the record's type cost; absent in a check.
    pub rounding: Option<Rounding>,
    /// Length of every file of the record but its header; 0 in a check.
    pub bytes_written: u64,
    /// Digest of the record; absent in a check.
    pub digest: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Peak resident memory of the process, filled in by whoever measures it.
    pub peak_memory_bytes: Option<u64>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

fn millions(n: u64) -> String {
    format!("{:.1} M", n as f64 / 1e6)
}

fn mebibytes(n: u64) -> String {
    format!("{:.1} MiB", n as f64 / (1 << 20) as f64)
}

/// One line a reason, each between two strings.
fn write_dropped(f: &mut fmt::Formatter<'_>, before: &str, dropped: &[DroppedTensor], behind: &str) -> fmt::Result {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for dropped in dropped {
        by_reason.entry(&dropped.reason).or_default().push(&dropped.name);
    }
    by_reason
        .into_iter()
        .try_for_each(|(reason, names)| write!(f, "{before}dropped, as {reason}: {}{behind}", names.join(", ")))
}

impl fmt::Display for LoraReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.rank_stabilised { ", rank-stabilised" } else { "" };
        let magnitudes = if self.magnitudes { ", with magnitudes (DoRA)" } else { "" };
        write!(f, "{}: rank {}, alpha {}{kind}{magnitudes}", self.task, self.rank, self.alpha)?;
        for (module, delta) in &self.modules {
            let (low, high) = delta.scale;
            let scale = if low == high { format!("{low}") } else { format!("{low} to {high}") };
            write!(f, "\n    {module:<12} {:>4} weights, scale {scale}", delta.count)?;
            if let Some(norm) = delta.mean_relative_norm {
                write!(f, ", |delta|/|W| {norm:.4} on average")?;
            }
        }
        if !self.replaced.is_empty() {
            write!(f, "\n    brings whole: {}", self.replaced.join(", "))?;
        }
        write_dropped(f, "\n    ", &self.dropped, "")
    }
}

impl fmt::Display for ConvertReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is known as {} ({})", self.source, self.card, self.licence)?;
        writeln!(f, "layout      {}", self.layout)?;
        writeln!(f, "family      {}, matrices in {}", self.family, self.dtype)?;
        writeln!(f, "tasks       {} (default {})", self.tasks.join(", "), self.default_task)?;
        writeln!(f, "dimensions  {:?}", self.dims)?;
        let templates: Vec<String> = self.templates.iter().map(|(m, t)| format!("{m} {}", t.name())).collect();
        writeln!(f, "templates   {}", if templates.is_empty() { "none".into() } else { templates.join(", ") })?;
        let counts = (self.mapped, self.merged, self.dropped.len());
        writeln!(f, "tensors     {} mapped, {} merged, {} dropped", counts.0, counts.1, counts.2)?;
        write_dropped(f, "  ", &self.dropped, "\n")?;
        for lora in &self.lora {
            writeln!(f, "  adapter {lora}")?;
        }
        let p = &self.parameters;
        let modules = [
            ("text", p.text),
            ("vision", p.vision),
            ("merger", p.merger),
            ("audio", p.audio),
            ("projector", p.projector),
        ];
        let modules: Vec<String> =
            modules.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {}", millions(*n))).collect();
        writeln!(f, "parameters  {} for one task: {}", millions(p.total()), modules.join(", "))?;
        for part in &self.parts {
            writeln!(f, "  {:<28} {:>5} tensors, {}", part.file, part.tensors, mebibytes(part.bytes))?;
            // What is in several types, and how far each part is from f32, is news of affine records alone.
            if self.dtype.is_affine() {
                for TypeReport { dtype, tensors, bytes } in &part.types {
                    writeln!(f, "    {:<26} {tensors:>5} tensors, {}", dtype.name(), mebibytes(*bytes))?;
                }
                if let Some(Rounding { relative, worst_tensor, worst }) = &part.rounding {
                    writeln!(
                        f,
                        "    differs from f32 by {relative:.2e} of its length, most in {worst_tensor}: {worst:.2e}"
                    )?;
                }
            }
        }
        if let Some(Rounding { relative, worst_tensor, worst }) = &self.rounding {
            writeln!(
                f,
                "rounding    {} differs from f32 by {relative:.2e} of its length, most in {worst_tensor}: {worst:.2e}",
                self.dtype
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note        {note}")?;
        }
        if let Some(digest) = &self.digest {
            writeln!(f, "digest      {digest}")?;
        }
        write!(f, "time        {:.1} s", self.seconds)?;
        if let Some(peak) = self.peak_memory_bytes {
            write!(f, ", peak memory {}", mebibytes(peak))?;
        }
        match (&self.out, self.check) {
            (Some(out), false) => write!(f, "\nwritten to  {}, {}", out.display(), mebibytes(self.bytes_written)),
            _ => write!(f, "\nchecked: names and shapes fit; no data was read and nothing was written"),
        }
    }
}
