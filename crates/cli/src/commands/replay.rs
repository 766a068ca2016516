//! `omniburn replay`: what a journal says, done again and compared to the bit.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use omniburn::{BackendSpec, Cancel, Engine, EngineError, ErrorKind, Input, Isa, Progress};
use omniburn_diagnostics::{ItemOutcome, JournalEntry, JournalItem, ReplayError, ReplayOptions, Replayed, replay};
use serde::Serialize;

use super::embed::{open_items, unreadable};
use super::open_engine;
use crate::args::{ComputeArgs, ModelArgs, ReplayArgs, TruncateArg};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{Outputs, json_line};
use crate::progress::{items_bar, say};
use omniburn_cli::inputs::{Feed, Sources, TypedInput};

/// Longest line of a journal: a unit of a few hundred items takes 20 kB.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The line of an item that is not what it was.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    digest: Option<String>,
    modality: &'static str,
    /// `different` or `missing`.
    state: &'static str,
    /// `alone`, or beside how many others.
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<String>,
    logged: &'a ItemOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a ItemOutcome>,
}

impl<'a> Line<'a> {
    fn missing(item: &'a JournalItem) -> Self {
        let digest = item.digest.map(|digest| digest.to_string());
        let (index, modality, logged) = (item.index, item.modality.name(), &item.result);
        Self { index, digest, modality, state: "missing", how: None, logged, found: None }
    }

    fn different(item: &'a JournalItem, how: &Replayed, found: &'a ItemOutcome) -> Self {
        Self { state: "different", how: Some(how.to_string()), found: Some(found), ..Self::missing(item) }
    }
}

/// Embeds again and compares.
///
/// # Errors
/// A usage failure, a journal of another record, or a device that cannot be used; an item that differs is a line and no
/// error.
pub fn run(args: &ReplayArgs, typed: Vec<TypedInput>) -> Outcome {
    if typed.is_empty() && args.items.is_none() {
        let why = "a journal holds digests, no content: give the inputs again, as INPUT or --items";
        return Err(Failure::usage(why));
    }
    let outputs = Outputs::default().and_stdout();
    outputs.refuse(&args.journal)?;
    typed.iter().filter_map(TypedInput::file).try_for_each(|file| outputs.refuse(file))?;
    let entries = read_journal(&args.journal)?;
    let live = args.items.as_deref() == Some(Path::new("-"));
    let items = args.items.as_deref().map(open_items).transpose()?;
    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let engine = open_engine(&model(args, &entries)?)?;
    let inputs = inputs(Sources { typed, items, lines: None, live, tracks: args.inputs.tracks() }, &cancel)?;
    if cancel.is_cancelled() {
        return Err(Failure::Interrupted);
    }
    report(&engine, &entries, &inputs, cancel, args)
}

fn report(engine: &Engine, entries: &[JournalEntry], inputs: &[Input], cancel: Cancel, args: &ReplayArgs) -> Outcome {
    let bar = items_bar(Some(0), "replaying", args.quiet);
    let shown = bar.clone();
    let progress = Arc::new(move |progress: Progress| {
        shown.set_length(progress.total as u64);
        shown.set_position(progress.done as u64);
    });
    let options = ReplayOptions { cancel: Some(cancel), progress: Some(progress), ..ReplayOptions::default() };
    let report = replay(engine, entries, inputs, &options);
    bar.finish_and_clear();
    let report = report.map_err(|e| match e {
        ReplayError::Engine(EngineError::Item { source, .. }) if source.kind() == ErrorKind::Cancelled => {
            Failure::Interrupted
        }
        ReplayError::JournalFormat { .. } | ReplayError::JournalCall { .. } => {
            Failure::usage(format!("{}: {e}", args.journal.display()))
        }
        e => Failure::from(e),
    })?;
    for different in &report.different {
        json_line(&Line::different(&different.item, &different.how, &different.found))?;
    }
    for item in &report.missing {
        json_line(&Line::missing(item))?;
    }
    for change in &report.environment_changes {
        say(change);
    }
    if report.not_logged > 0 {
        say(format_args!("{} of the inputs given are not in the journal", report.not_logged));
    }
    let (equal, different, missing) = (report.equal, report.different.len(), report.missing.len());
    say(format_args!("{equal} equal, {different} different, {missing} missing, {} not compared", report.not_compared));
    let (all, whole, gone) = (report.batches, report.whole_batches, report.missing_batches);
    say(format_args!("units of several: {all} done again, {whole} of them in one piece; {gone} lack an input"));
    Ok(if report.all_equal() { DONE } else { SOME_FAILED })
}

/// The lines of a journal.
fn read_journal(path: &Path) -> Result<Vec<JournalEntry>, Failure> {
    let name = path.display();
    let wrong = |e: io::Error| Failure::usage(format!("{name}: {e}"));
    if path.is_dir() {
        return Err(Failure::usage(format!(
            "{name}: found a folder, expected a journal of `omniburn embed --journal`"
        )));
    }
    let mut file = BufReader::new(File::open(path).map_err(wrong)?);
    let (mut entries, mut line) = (Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(wrong)? == 0 {
            break;
        }
        let entry = serde_json::from_slice(&line).map_err(|e| {
            let e = e.to_string().replace("line 1 column", "column");
            Failure::usage(format!("{name} line {number}: not a line of a journal: {e}"))
        });
        entries.push(entry?);
    }
    if !entries.iter().any(|entry| matches!(entry, JournalEntry::Item(_))) {
        return Err(Failure::usage(format!("{name}: a journal without an item, nothing to compare")));
    }
    Ok(entries)
}

/// Which model, and where it computes: as the journal says where nothing else was.
fn model(args: &ReplayArgs, entries: &[JournalEntry]) -> Result<ModelArgs, Failure> {
    let logged = entries.iter().find_map(|entry| match entry {
        JournalEntry::Open(open) => Some(open),
        _ => None,
    });
    let device = match (args.device, logged) {
        (Some(device), _) => device,
        (None, Some(open)) => open.device.parse()?,
        (None, None) => BackendSpec::default(),
    };
    let compute = ComputeArgs {
        device,
        dtype: args.dtype.or(logged.map(|open| open.dtype)),
        budget: args.budget,
        threads: args.threads,
        // Its bits are those of its instructions; where they are not there, the report says so.
        isa: logged.and_then(|open| open.instructions.or_else(richest)).filter(|isa| isa.is_available()),
    };
    let (model, truncate) = (args.model.clone(), TruncateArg::Error);
    Ok(ModelArgs { model, task: None, dim: None, compute, truncate, frames: None })
}

/// What journals from before instructions were noted were computed with.
fn richest() -> Option<Isa> {
    Isa::available().last()
}

/// The inputs given; one that is none is said, and its item will be missing.
fn inputs(sources: Sources, cancel: &Cancel) -> Result<Vec<Input>, Failure> {
    let mut feed = Feed::start(sources).map_err(|e| Failure::with_code(SOME_FAILED, e))?;
    let mut inputs = Vec::new();
    while let Some(entry) = feed.next(cancel).map_err(unreadable)? {
        match entry.input {
            Ok(input) => inputs.push(input),
            Err(fault) => say(format_args!("{}: {}", fault.kind, fault.message)),
        }
    }
    Ok(inputs)
}
