//! `omniburn inspect`: what a record or a checkpoint holds, and what it needs.

use std::fmt::Write;

use omniburn::{
    AudioForm, Budget, DEFAULT_BUDGET_BYTES, Dtype, ImageForm, Modality, RecordFolder, RecordHeader, SEGMENT_SECONDS,
    copied_weights, is_scale,
};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use serde::Serialize;

use super::{checkpoint_folder, is_checkpoint, mebibytes, table};
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
    modules: Vec<ModuleRow>,
    parameters_for_one_task: u64,
    bytes: u64,
    budget: u64,
    needs: Vec<NeedRow>,
    /// Bytes copied where products are computed in f32, which is what flex does unless told otherwise.
    copies_f32: Copies,
    verified: bool,
}

/// Weights in memory that do not lie mapped as they are stored.
#[derive(Debug, Serialize)]
struct Copies {
    /// When a record is opened, and so not part of the budget.
    opened: u64,
    /// When the first image or video comes; part of the budget from then on.
    pictures: u64,
    /// When the first audio comes; part of the budget from then on.
    sound: u64,
}

/// Inspects a record or a checkpoint.
///
/// # Errors
/// A usage failure where nothing is at the path, a refusal of what is there.
pub fn run(args: &InspectArgs) -> Outcome {
    let path = checkpoint_folder(&args.path)?;
    if !is_checkpoint(&path) {
        if path.is_dir() && !path.join("model.json").is_file() {
            let message = "neither a record (no model.json) nor a checkpoint (no config.json)";
            return Err(Failure::with_code(REFUSED, anyhow::anyhow!("{}: {message}", path.display())));
        }
        return record(args, &RecordFolder::open(&path)?);
    }
    if args.verify {
        let message = "a checkpoint has no digests: --verify is for a record; convert reads and checks every value";
        return Err(Failure::usage(format!("{}: {message}", path.display())));
    }
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
        pictures: copied_weights(record, None, Some(Modality::Image), Dtype::F32),
        sound: copied_weights(record, None, Some(Modality::Audio), Dtype::F32),
    };
    let modules = modules(header);
    let one_task = |row: &&ModuleRow| !row.file.starts_with("text.") || row.file == text_file(&header.default_task);
    let view = RecordView {
        kind: "record",
        header: bare(header),
        modalities: Modality::ALL
            .into_iter()
            .filter(|m| *m == Modality::Text || header.templates.contains_key(m))
            .collect(),
        parameters_for_one_task: modules.iter().filter(one_task).map(|row| row.parameters).sum(),
        modules,
        bytes,
        budget,
        needs: needs(header, budget, &copies_f32),
        copies_f32,
        verified: args.verify,
    };
    if args.json {
        json_line(&view)?;
    } else {
        write_stdout(for_people(header, &view).as_bytes())?;
    }
    Ok(DONE)
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
            let bytes = elements * tensor.dtype.bytes() as u64;
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

/// What the longest text, the largest image and video and the longest segment of audio need beside what their decoders
/// take: the smallest budget under which each is embedded, copied weights of its tower included.
fn needs(header: &RecordHeader, budget: u64, copies: &Copies) -> Vec<NeedRow> {
    let estimate = Budget::new(budget, &header.family);
    let row = |input, rows, bytes| {
        let bytes = Budget::least_for(bytes);
        NeedRow { input, rows, bytes, fits: bytes <= budget }
    };
    let longest = header.family.max_tokens();
    let mut found = vec![row("longest text", longest, estimate.text_item(longest))];
    let (spec, preprocess) = (header.family.spec(), &header.preprocess);
    let ends = estimate.text_unit(&[64]);
    match spec.image {
        Some(ImageForm::Pixels { image_size, .. }) => {
            let frames = preprocess.video_frames.unwrap_or(8) as usize;
            let square = 3 * (image_size as u64).pow(2);
            found.push(row("image", 1, estimate.square_unit(1) + ends + square + copies.pictures));
            let film = estimate.square_unit(1) + ends + frames as u64 * square;
            found.push(row("video, frames", frames, film + copies.pictures));
        }
        Some(ImageForm::Patches { patch_px, merge, patch_values, .. }) => {
            if let Some(image) = &preprocess.image {
                let patches = (image.max_pixels / (patch_px * patch_px).max(1) as u64) as usize;
                let rows = patches / (merge * merge).max(1);
                let kept = (patches * patch_values) as u64;
                let share = estimate.patches_item(patches, 1, rows);
                found.push(row("largest image", rows, kept + share + copies.pictures));
            }
            if let Some(film) = &preprocess.video {
                // The tower takes a video a group of frames at a time; the backbone takes it whole.
                let groups = preprocess.video_frames.unwrap_or(32).div_ceil(film.temporal_patch.max(1)).max(1) as usize;
                let pixels = u64::from(film.patch_px).pow(2).max(1) * u64::from(film.temporal_patch).max(1);
                let patches = (film.max_pixels / pixels) as usize;
                let rows = patches / (merge * merge).max(1);
                let kept = (patches * patch_values) as u64;
                let film = estimate.patches_item(patches / groups, groups, rows);
                found.push(row("largest video", rows, kept + film + copies.pictures));
            }
        }
        None => {}
    }
    match (&spec.audio, &preprocess.audio) {
        (Some(AudioForm::Windows { .. }), Some(sound)) => {
            let frames = 4 * (sound.sample_rate_hz / sound.hop_samples.max(1)) as usize;
            found.push(row("speech, frames", frames, estimate.audio_unit(&[frames]) + ends + copies.sound));
        }
        (Some(AudioForm::Mel(audio)), Some(sound)) => {
            let frames = SEGMENT_SECONDS * f64::from(sound.sample_rate_hz) / f64::from(sound.hop_samples.max(1));
            let rows = audio.features(frames as usize);
            let kept = 4 * frames as u64 * u64::from(sound.mels);
            let share = estimate.frames_item(audio.window_frames(), frames as usize, rows);
            found.push(row("longest segment of audio", rows, kept + share + copies.sound));
        }
        _ => {}
    }
    found
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
    line("dimensions", format!("{:?}{default}", header.dims));
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
    let Copies { opened, pictures, sound } = view.copies_f32;
    line(
        "copies",
        format!(
            "computing in f32 copies {} of weights when opened (beside the budget), {} for images and {} for audio when \
             the first comes (within it)",
            mebibytes(opened),
            mebibytes(pictures),
            mebibytes(sound)
        ),
    );
    for source in &header.sources {
        line("source", format!("{} ({}, sha256 {})", source.file, mebibytes(source.bytes), source.sha256));
    }
    line("digest", header.digest.clone());
    if view.verified {
        line("verified", format!("every byte of {} files has its digest", header.files.len()));
    }
    text
}
