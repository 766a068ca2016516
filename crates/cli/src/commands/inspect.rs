//! `omniburn inspect`: what a record or a checkpoint holds, and what it needs.

use std::fmt::Write;
use std::path::Path;

use omniburn::kernels::Isa;
use omniburn::record::{LargestInput, PairForm, RecordHeader, copied_weights, default_dtype, is_scale, largest_inputs};
use omniburn::{DEFAULT_BUDGET_BYTES, Dtype, Modality, RecordFolder};
use omniburn_convert::{ConvertOptions, ConvertReport, GgufSummary, TaskChoice, convert, gguf_summary, is_gguf};
use serde::Serialize;

use super::{checkpoint_folder, is_checkpoint, kernels, mebibytes, table};
use crate::args::InspectArgs;
use crate::failure::{DONE, Failure, Outcome, REFUSED};
use crate::output::{json_line, write_stdout};
use crate::progress::bytes_bar;

/// Parameters and bytes of one module of one file.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ModuleRow {
    file: String,
    module: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// What one input of the largest kind needs beside the weights.
#[derive(Debug, Serialize)]
struct NeedRow {
    input: &'static str,
    /// Rows that enter the backbone.
    rows: usize,
    bytes: u64,
    fits: bool,
}

#[derive(Serialize)]
struct RecordView {
    kind: &'static str,
    /// `model.json` without its lists of tensors.
    header: serde_json::Value,
    modalities: Vec<Modality>,
    /// What comes out.
    outputs: &'static [&'static str],
    modules: Vec<ModuleRow>,
    parameters_for_one_task: u64,
    bytes: u64,
    budget: u64,
    needs: Vec<NeedRow>,
    /// Bytes copied where products are computed in f32.
    copies_f32: Copies,
    /// What the CPU of this machine computes with unless asked otherwise.
    computes: Computes,
    verified: bool,
}

/// The type and the instructions that products are computed in.
#[derive(Debug, Serialize)]
struct Computes {
    dtype: Dtype,
    instructions: Isa,
}

/// Weights in memory that do not lie mapped as they are stored.
#[derive(Debug, Serialize)]
struct Copies {
    /// When a record is opened, and so not part of the budget.
    opened: u64,
    /// When the first image or video comes; part of the budget from then on.
    image: u64,
    /// When the first audio comes; part of the budget from then on.
    audio: u64,
}

/// Inspects a record or a checkpoint.
///
/// # Errors
/// A usage failure where nothing is at the path, a refusal of what is there.
pub fn run(args: &InspectArgs) -> Outcome {
    let path = checkpoint_folder(&args.path)?;
    if path.is_file() && is_gguf(&path) {
        return gguf(args, &path);
    }
    if !is_checkpoint(&path) {
        if path.is_dir() && !path.join("model.json").is_file() {
            let message = "neither a record (no model.json) nor a checkpoint (no config.json)";
            return Err(Failure::with_code(REFUSED, anyhow::anyhow!("{}: {message}", path.display())));
        }
        return record(args, &RecordFolder::open(&path)?);
    }
    refuse_verify(args, &path)?;
    let mut options = ConvertOptions::new(path, "");
    options.tasks = TaskChoice::All;
    options.check = true;
    let report = convert(&options)?;
    if args.json {
        json_line(&report)?;
    } else {
        write_stdout(format!("{report}\n").as_bytes())?;
    }
    Ok(DONE)
}

fn refuse_verify(args: &InspectArgs, path: &Path) -> Result<(), Failure> {
    if !args.verify {
        return Ok(());
    }
    let message = "a checkpoint has no digests: --verify is for a record; convert reads and checks every value";
    Err(Failure::usage(format!("{}: {message}", path.display())))
}

/// A GGUF file, and what a conversion would make of it.
#[derive(Serialize)]
struct GgufView<'a> {
    kind: &'static str,
    #[serde(flatten)]
    summary: &'a GgufSummary,
    /// What `convert --check` finds; absent where it refuses the file.
    convert: Option<&'a ConvertReport>,
    /// Why it does.
    refused: Option<String>,
}

/// Inspects a GGUF file: what its header says comes out also where a conversion refuses it.
fn gguf(args: &InspectArgs, path: &Path) -> Outcome {
    refuse_verify(args, path)?;
    let summary = gguf_summary(path)?;
    let mut options = ConvertOptions::new(path, "");
    options.check = true;
    let report = convert(&options);
    if args.json {
        let (convert, refused) = (report.as_ref().ok(), report.as_ref().err().map(ToString::to_string));
        json_line(&GgufView { kind: "gguf", summary: &summary, convert, refused })?;
    } else {
        let found = report.as_ref().map(|report| format!("\n{report}\n")).unwrap_or_default();
        write_stdout(format!("{summary}\n{found}").as_bytes())?;
    }
    report?;
    Ok(DONE)
}

fn record(args: &InspectArgs, record: &RecordFolder) -> Outcome {
    let header = record.header();
    let bytes = header.files.values().map(|file| file.bytes).sum();
    if args.verify {
        let bar = bytes_bar(bytes, "verifying");
        let verified = record.verify(|done| bar.inc(done));
        bar.finish_and_clear();
        verified?;
    }
    let budget = args.budget.unwrap_or(DEFAULT_BUDGET_BYTES);
    let copies_f32 = Copies {
        opened: copied_weights(record, Some(&header.default_task), None, Dtype::F32),
        image: copied_weights(record, None, Some(Modality::Image), Dtype::F32),
        audio: copied_weights(record, None, Some(Modality::Audio), Dtype::F32),
    };
    let modules = modules(header);
    let one_task = |row: &&ModuleRow| !row.file.starts_with("text.") || row.file == text_file(&header.default_task);
    let view = RecordView {
        kind: "record",
        header: bare(header),
        modalities: Modality::ALL
            .into_iter()
            .filter(|m| header.family.takes(*m) && (*m == Modality::Text || header.templates.contains_key(m)))
            .collect(),
        outputs: header.family.spec().outputs.names(),
        parameters_for_one_task: modules.iter().filter(one_task).map(|row| row.parameters).sum(),
        modules,
        bytes,
        budget,
        needs: needs(record, budget),
        copies_f32,
        computes: computes(header),
        verified: args.verify,
    };
    if args.json {
        json_line(&view)?;
    } else {
        write_stdout(for_people(header, &view).as_bytes())?;
    }
    Ok(DONE)
}

/// As `embed` would choose on a CPU.
fn computes(header: &RecordHeader) -> Computes {
    let choice = kernels::kept();
    let instructions = Isa::resolved(choice.as_ref().map(|choice| choice.isa));
    Computes { dtype: default_dtype(header, choice.as_ref()), instructions }
}

fn text_file(task: &str) -> String {
    format!("text.{task}.bpk")
}

fn bare(header: &RecordHeader) -> serde_json::Value {
    let mut header = header.clone();
    header.files.values_mut().for_each(|file| file.tensors.clear());
    serde_json::to_value(header).expect("a header is plain data and always serialises")
}

/// Modules of every file, by the first part of the tensors' names.
fn modules(header: &RecordHeader) -> Vec<ModuleRow> {
    let mut rows: Vec<ModuleRow> = Vec::new();
    for (file, entry) in &header.files {
        for (name, tensor) in &entry.tensors {
            let module = name.split('.').next().unwrap_or(name);
            let elements = tensor.shape.iter().product::<usize>() as u64;
            let bytes = tensor.bytes();
            // Scales are bytes of the tensor they belong to, and no parameters.
            let (count, parameters) = if is_scale(name) { (0, 0) } else { (1, elements) };
            match rows.iter_mut().find(|row| row.file == *file && row.module == module) {
                Some(row) => {
                    row.tensors += count;
                    row.parameters += parameters;
                    row.bytes += bytes;
                }
                None => {
                    rows.push(ModuleRow {
                        file: file.clone(),
                        module: module.into(),
                        tensors: count,
                        parameters,
                        bytes,
                    });
                }
            }
        }
    }
    rows
}

/// What the largest inputs that the record takes need, in f32.
fn needs(record: &RecordFolder, budget: u64) -> Vec<NeedRow> {
    let row = |LargestInput { input, rows, bytes }| NeedRow { input, rows, bytes, fits: bytes <= budget };
    largest_inputs(record, Dtype::F32).into_iter().map(row).collect()
}

fn for_people(header: &RecordHeader, view: &RecordView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("record of", format!("{} (format {}, written by {})", header.name, header.format, header.tool));
    line("family", format!("{}, matrices in {}", header.family.name(), header.dtype));
    for (name, words) in header.family.words(&header.preprocess) {
        line(name, words);
    }
    line("tasks", format!("{} (default {})", header.tasks.join(", "), header.default_task));
    let default = header.default_dim.map_or_else(String::new, |dim| format!(", {dim} unless another is asked for"));
    match header.family.spec().outputs.pairs() {
        None => {
            line("dimensions", format!("{:?}{default}", header.dims));
            if let more @ [_, _, ..] = view.outputs {
                line("outputs", more.join(", "));
            }
        }
        Some(form) => {
            line("outputs", "the score of a query and a document, by omniburn rerank".into());
            if let PairForm::Prompt(prompt) = form {
                line("instruction", format!("{:?} unless another is given", prompt.instruction));
            }
        }
    }
    line("modalities", view.modalities.iter().map(|m| m.name()).collect::<Vec<_>>().join(", "));
    let templates = header.templates.iter().map(|(m, t)| format!("{m} {}", t.kind.name()));
    line("templates", templates.collect::<Vec<_>>().join(", "));
    let prompts = &header.prompts;
    let neither = if prompts.none.is_empty() { String::new() } else { format!(", none {:?}", prompts.none) };
    line("prompts", format!("query {:?}, document {:?}{neither}", prompts.query, prompts.document));
    line("parameters", format!("{:.1} M for one task", view.parameters_for_one_task as f64 / 1e6));
    let mut rows = vec![["file", "module", "tensors", "parameters", "bytes"].map(String::from).to_vec()];
    for m in &view.modules {
        let numbers = [m.tensors.to_string(), m.parameters.to_string(), mebibytes(m.bytes)];
        rows.push([vec![m.file.clone(), m.module.clone()], numbers.to_vec()].concat());
    }
    text += &table(&rows);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("size", format!("{} in {} files", mebibytes(view.bytes), header.files.len()));
    for need in &view.needs {
        let fits = if need.fits { "within" } else { "over" };
        let (bytes, budget) = (mebibytes(need.bytes), mebibytes(view.budget));
        line("memory", format!("{}, {} rows: {bytes}, {fits} the budget of {budget}", need.input, need.rows));
    }
    let Copies { opened, image, audio } = view.copies_f32;
    line(
        "copies",
        format!(
            "computing in f32 copies {} of weights when opened (beside the budget), {} for images and {} for audio when \
             the first comes (within it)",
            mebibytes(opened),
            mebibytes(image),
            mebibytes(audio)
        ),
    );
    let Computes { dtype, instructions } = &view.computes;
    line("computes", format!("in {dtype} with {instructions} on the CPU of this machine, unless asked otherwise"));
    for source in &header.sources {
        line("source", format!("{} ({}, sha256 {})", source.file, mebibytes(source.bytes), source.sha256));
    }
    line("digest", header.digest.clone());
    if view.verified {
        line("verified", format!("every byte of {} files has its digest", header.files.len()));
    }
    text
}
