//! `omniburn embed`: inputs in, one line an input out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use omniburn::probe::Answered;
use omniburn::{Asked, Cancel, Embedded, Engine, ItemError, OutputKind, Request, Role};
use omniburn_diagnostics::JournalEntry;
use serde_json::value::RawValue;

use super::{first_output, kernels, open_engine_with, request};
use crate::args::{EmbedArgs, FormatArg, OutputArg};
use crate::failure::{DONE, Failure, Outcome, REFUSED, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{OutFile, Outputs, Sink, destination, line_of};
use crate::progress::items_bar;
use omniburn_cli::inputs::{Fault, Feed, Sources, Tracks, TypedInput};
use omniburn_output::identity::resolved;

/// Why an array is not written.
const NOT_IN_ARRAYS: &str =
    "--format npy holds one vector an input: --output sparse, multi and features are written as lines";

/// Failed inputs that may wait for a vector before them.
const MOST_WAITING_FAULTS: usize = 256;

/// Embeds every input.
///
/// # Errors
/// A usage failure, a refused record, or a device that cannot be used; an input that fails is a line and no error.
pub fn run(args: &EmbedArgs, typed: Vec<TypedInput>) -> Outcome {
    if args.format == FormatArg::Npy && args.out.is_none() {
        return Err(Failure::usage("--format npy writes a file: name it with --out FILE"));
    }
    if args.format == FormatArg::Npy && args.segments {
        return Err(Failure::usage("--segments writes lines: in an array nobody could tell which row is whose"));
    }
    let array = args.format == FormatArg::Npy;
    if array && args.output.iter().any(|output| *output != OutputArg::Dense) {
        return Err(Failure::usage(NOT_IN_ARRAYS));
    }
    if args.late_chunks.is_some()
        && (args.format == FormatArg::Npy || args.output.iter().any(|o| *o != OutputArg::Dense))
    {
        return Err(Failure::usage("--late-chunks writes lines with the vector of each chunk, and no other output"));
    }
    let from_stdin = args.items.as_deref() == Some(Path::new("-"));
    if from_stdin && args.lines {
        return Err(Failure::usage("--items - and --lines both read standard input: give one of them"));
    }
    if typed.is_empty() && args.items.is_none() && !args.lines {
        return Err(Failure::usage("nothing to embed: give an INPUT, --items or --lines; see omniburn embed --help"));
    }
    let (out, journal) = (args.out.as_deref(), args.journal.as_deref());
    let (out, journal) = (out.map(destination).transpose()?, journal.map(destination).transpose()?);
    if let (Some(out), Some(journal)) = (&out, &journal)
        && out.is_same(journal)
    {
        let file = journal.named().display();
        return Err(Failure::usage(format!("{file}: --journal and --out are one file: name another for one of them")));
    }
    if journal.as_ref().is_some_and(|journal| out.is_none() && journal.is_stdout()) {
        return Err(Failure::usage("--journal is standard output, where the results go: name a file, or --out"));
    }
    let files = [("--out", &out), ("--journal", &journal)];
    let files: Vec<_> = files.into_iter().filter_map(|(option, to)| Some((option, to.as_ref()?))).collect();
    let mut outputs = Outputs::of(files.iter().copied());
    if out.is_none() {
        outputs = outputs.and_stdout();
    }
    refuse_inputs(&outputs, args, &typed)?;
    if let Some(model) = &args.model.model {
        for (option, to) in &files {
            if to.folder().is_some_and(|folder| folder.starts_with(resolved(model))) {
                let (file, model) = (to.named().display(), model.display());
                return Err(Failure::usage(format!("{option} {file}: lies in the record {model}: name another place")));
            }
        }
        outputs.refuse_folder(model)?;
    }
    let typed_inputs = typed.len();
    let total = (args.items.is_none() && !args.lines).then_some(typed.len() as u64);
    let sources = Sources {
        typed,
        items: args.items.as_deref().map(open_items).transpose()?,
        lines: args.lines.then(|| Box::new(io::stdin()) as Box<dyn Read + Send>),
        live: from_stdin || args.lines,
        tracks: args.inputs.tracks(),
    };
    let create = if args.format == FormatArg::Npy { OutFile::create_patched } else { OutFile::create };
    let file = out.as_ref().map(create).transpose()?;
    let journal = journal.as_ref().map(OutFile::create).transpose()?.map(Journal::new);

    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let many = args.items.is_some() || args.lines || typed_inputs >= kernels::MANY_INPUTS;
    let engine = open_engine_with(&args.model, if many { kernels::kept_or_measured } else { kernels::kept })?;
    let mut request = request(&engine, &args.model, args.role.into())?.cancel(cancel.clone());
    let wanted: Vec<OutputKind> = match args.output.is_empty() {
        true if args.late_chunks.is_some() => vec![OutputKind::Dense],
        // An array holds one vector an input: of a model that has one beside its rows, that one.
        true if array && engine.profile().outputs.contains(&OutputKind::Dense.name()) => vec![OutputKind::Dense],
        true => vec![first_output(&engine)],
        false => args.output.iter().map(|output| (*output).into()).collect(),
    };
    let dense = wanted.contains(&OutputKind::Dense);
    if array && !dense {
        return Err(Failure::usage(NOT_IN_ARRAYS));
    }
    if args.segments && wanted.contains(&OutputKind::Features) {
        return Err(Failure::usage(
            "--segments writes vectors: features of all segments stand on the line of their input",
        ));
    }
    if journal.is_some()
        && wanted == [OutputKind::Features]
        && engine.profile().outputs != [OutputKind::Features.name()]
    {
        let way = "--output dense,features gives both";
        return Err(Failure::usage(format!("--journal notes vectors, and --output features computes none: {way}")));
    }
    request = request.outputs(wanted);
    if let Some(instruction) = &args.instruction {
        request = request.instruction(instruction);
    }
    if let Some(tokens) = args.late_chunks {
        request = request.late_chunks(tokens);
    }
    // Before any input is read.
    engine.embed_with(&[], &request)?;
    if let Some(journal) = &journal {
        let journal = journal.clone();
        request = omniburn_diagnostics::journal(request, move |entry| journal.lock().note(entry));
    }
    let full = || engine.profile().default_dim;
    let sink = match (file, args.format) {
        (None, _) => Sink::Lines,
        (Some(file), FormatArg::Json) => Sink::LinesFile(file),
        (Some(file), FormatArg::Npy) => Sink::array(file, args.model.dim.unwrap_or_else(full))?,
    };
    let feed = Feed::start(sources).map_err(|e| Failure::with_code(SOME_FAILED, e))?;
    let bar = items_bar(total, "embedding", args.quiet);
    let writer = Writer { sink, bar, by_segment: args.segments, dense, failed: false, refused: None };
    let mut job = Job { engine, request, cancel, feed, outputs, writer, journal, next_index: 0 };
    let done = job.run();
    let Writer { sink, bar, failed, refused, .. } = job.writer;
    bar.finish_and_clear();
    done?;
    sink.finish()?;
    if let Some(journal) = job.journal {
        journal.lock().finish()?;
    }
    if let Some(refusal) = refused {
        return Err(Failure::with_code(REFUSED, anyhow::anyhow!(refusal)));
    }
    Ok(if failed { SOME_FAILED } else { DONE })
}

/// Refuses an output that is one of the inputs: what was typed, standard input, the file of items and what it lists.
fn refuse_inputs(outputs: &Outputs, args: &EmbedArgs, typed: &[TypedInput]) -> Result<(), Failure> {
    if outputs.is_empty() {
        return Ok(());
    }
    for file in typed.iter().filter_map(TypedInput::file) {
        outputs.refuse(file)?;
    }
    let Some(items) = args.items.as_deref().filter(|items| *items != Path::new("-")) else {
        return if args.lines || args.items.is_some() { outputs.refuse_stdin() } else { Ok(()) };
    };
    if args.lines {
        outputs.refuse_stdin()?;
    }
    outputs.refuse(items)?;
    // A pipe can be read once; what it lists is seen when its turn comes.
    if !items.is_file() {
        return Ok(());
    }
    let listed = Sources {
        typed: Vec::new(),
        items: Some(open_items(items)?),
        lines: None,
        live: false,
        tracks: Tracks::default(),
    };
    let mut listed = Feed::start(listed).map_err(|e| Failure::with_code(SOME_FAILED, e))?;
    let never = Cancel::new();
    while let Some(entry) = listed.next(&never).map_err(unreadable)? {
        entry.files.iter().try_for_each(|file| outputs.refuse(file))?;
    }
    Ok(())
}

/// The stream of `--items`, its name in messages, and the folder relative paths begin at.
pub(super) fn open_items(path: &Path) -> Result<(Box<dyn Read + Send>, String, PathBuf), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), "standard input".into(), PathBuf::new()));
    }
    let wrong = |e: String| Failure::usage(format!("--items {}: {e}", path.display()));
    if path.is_dir() {
        return Err(wrong("found a folder, expected a file of JSON lines".into()));
    }
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok((Box::new(file), path.display().to_string(), folder))
}

/// An input whose line is not written yet; failed ones wait for those before them.
struct Waiting {
    index: u64,
    id: Option<Box<RawValue>>,
    fault: Option<Fault>,
}

struct Job {
    engine: Engine,
    request: Request,
    cancel: Cancel,
    feed: Feed,
    outputs: Outputs,
    writer: Writer,
    journal: Option<Journal>,
    next_index: u64,
}

impl Job {
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            let more = self.batch()?;
            if self.cancel.is_cancelled() {
                return Err(Failure::Interrupted);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Embeds what comes without a pause, and says whether anything came.
    fn batch(&mut self) -> Result<bool, Failure> {
        let mut first = self.feed.next(&self.cancel).map_err(unreadable)?;
        if first.is_none() {
            return Ok(false);
        }
        let Self { engine, request, cancel, feed, outputs, writer, journal, next_index } = self;
        let journal = journal.as_ref();
        if let Some(journal) = journal {
            journal.lock().places.clear();
        }
        // The engine takes inputs while it gives results: what is known of an input waits here for its result.
        let waiting = RefCell::new(VecDeque::new());
        let broken = Cell::new(None);
        let refused = Cell::new(None);
        let (mut faults, mut over) = (0, false);
        let inputs = std::iter::from_fn(|| {
            while !over && faults < MOST_WAITING_FAULTS {
                let next = match first.take() {
                    Some(first) => Ok(Some(first)),
                    None => feed.next_of_batch(cancel),
                };
                let entry = match next {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(e) => {
                        broken.set(Some(e));
                        break;
                    }
                };
                // Of a stream of items nothing is known before.
                if let Some(failure) = entry.files.iter().find_map(|file| outputs.refuse(file).err()) {
                    refused.set(Some(failure));
                    cancel.cancel();
                    break;
                }
                let own = of_line(request, entry.role, entry.task, entry.instruction);
                let (index, id) = (*next_index, entry.id);
                *next_index += 1;
                match entry.input {
                    Ok(input) => {
                        waiting.borrow_mut().push_back(Waiting { index, id, fault: None });
                        if let Some(journal) = journal {
                            journal.lock().places.push(index);
                        }
                        return Some(match own {
                            Some(own) => Asked::from((input, own)),
                            None => input.into(),
                        });
                    }
                    Err(fault) => {
                        faults += 1;
                        waiting.borrow_mut().push_back(Waiting { index, id, fault: Some(fault) });
                    }
                }
            }
            over = true;
            None
        });
        for result in engine.embed_iter(inputs, request.clone())? {
            if let Some(failure) = refused.take() {
                return Err(failure);
            }
            if cancel.is_cancelled() && matches!(result, Err(ItemError::Cancelled)) {
                return Err(Failure::Interrupted);
            }
            let mut waiting = waiting.borrow_mut();
            writer.faults(&mut waiting)?;
            let input = waiting.pop_front().expect("there are as many results as inputs were taken");
            writer.result(&input, result)?;
            if let Some(failure) = journal.and_then(|journal| journal.lock().failure.take()) {
                return Err(failure);
            }
        }
        if let Some(failure) = refused.take() {
            return Err(failure);
        }
        writer.faults(&mut waiting.borrow_mut())?;
        broken.take().map_or(Ok(true), |e| Err(unreadable(e)))
    }
}

/// The request of a line that says a role, a task or an instruction of its own.
fn of_line(
    request: &Request,
    role: Option<Role>,
    task: Option<String>,
    instruction: Option<String>,
) -> Option<Request> {
    if role.is_none() && task.is_none() && instruction.is_none() {
        return None;
    }
    let request = role.into_iter().fold(request.clone(), Request::role);
    let request = task.into_iter().fold(request, Request::task);
    Some(instruction.into_iter().fold(request, Request::instruction))
}

/// The file of `--journal`, written while the engine computes.
#[derive(Clone)]
struct Journal(Arc<Mutex<JournalFile>>);

struct JournalFile {
    file: Option<OutFile>,
    /// The place in the results of each input that the engine took since its call began.
    places: Vec<u64>,
    failure: Option<Failure>,
}

impl Journal {
    fn new(file: OutFile) -> Self {
        Self(Arc::new(Mutex::new(JournalFile { file: Some(file), places: Vec::new(), failure: None })))
    }

    fn lock(&self) -> MutexGuard<'_, JournalFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalFile {
    /// Writes an entry, with the places that the lines of the results have: inputs that failed before the engine saw them
    /// count there.
    fn note(&mut self, entry: &JournalEntry) {
        let mut entry = entry.clone();
        if let JournalEntry::Item(item) = &mut entry {
            item.index = self.places[item.index as usize];
            if let Answered::EqualTo(first) = &mut item.answered {
                *first = self.places[*first as usize];
            }
        }
        if let (Some(file), None) = (&mut self.file, &self.failure) {
            self.failure = file.write(&line_of(&entry)).err();
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)?;
        self.file.take().map_or(Ok(()), OutFile::finish)
    }
}

/// Writes lines and remembers what failed.
struct Writer {
    sink: Sink,
    bar: ProgressBar,
    /// Whether each segment has its line.
    by_segment: bool,
    /// Whether a line has the vector.
    dense: bool,
    failed: bool,
    /// What was said of a part of the record that an input needed.
    refused: Option<String>,
}

impl Writer {
    /// Writes the failed inputs at the front of the line.
    fn faults(&mut self, waiting: &mut VecDeque<Waiting>) -> Result<(), Failure> {
        while let Some(Waiting { index, id, fault: Some(fault) }) = waiting.pop_front_if(|w| w.fault.is_some()) {
            self.fault(index, id.as_deref(), &fault)?;
        }
        Ok(())
    }

    fn result(&mut self, input: &Waiting, result: Result<Embedded, ItemError>) -> Result<(), Failure> {
        match result {
            Ok(embedded) => {
                self.bar.inc(1);
                let id = input.id.as_deref();
                self.bar.suspend(|| match self.by_segment {
                    _ if !embedded.chunks.is_empty() => self.sink.chunks(input.index, id, &embedded),
                    true => self.sink.segments(input.index, id, &embedded, self.dense),
                    false => self.sink.vector(input.index, id, &embedded, self.dense),
                })
            }
            Err(e) => {
                if let ItemError::Record(_) = e {
                    self.refused.get_or_insert_with(|| e.to_string());
                }
                self.fault(input.index, input.id.as_deref(), &Fault::from(&e))
            }
        }
    }

    fn fault(&mut self, index: u64, id: Option<&RawValue>, fault: &Fault) -> Result<(), Failure> {
        self.failed = true;
        self.bar.inc(1);
        self.bar.suspend(|| self.sink.fault(index, id, fault))
    }
}

pub(super) fn unreadable(e: io::Error) -> Failure {
    Failure::with_code(SOME_FAILED, e)
}
