//! `omniburn embed`: inputs in, one line an input out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use omniburn::{Cancel, Engine, ItemError, Request};
use serde_json::value::RawValue;

use super::{open_engine, request};
use crate::args::{EmbedArgs, FormatArg, TypedInput};
use crate::failure::{DONE, Failure, Outcome, REFUSED, SOME_FAILED};
use crate::inputs::{Fault, Feed, Sources};
use crate::interrupt::on_interrupt;
use crate::output::{Sink, WholeFile};
use crate::progress::{items_bar, say};

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
    let from_stdin = args.items.as_deref() == Some(Path::new("-"));
    if from_stdin && args.lines {
        return Err(Failure::usage("--items - and --lines both read standard input: give one of them"));
    }
    if typed.is_empty() && args.items.is_none() && !args.lines {
        return Err(Failure::usage("nothing to embed: give an INPUT, --items or --lines; see omniburn embed --help"));
    }
    let total = (args.items.is_none() && !args.lines).then_some(typed.len() as u64);
    let sources = Sources {
        typed,
        items: args.items.as_deref().map(open_items).transpose()?,
        lines: args.lines.then(|| Box::new(io::stdin()) as Box<dyn Read + Send>),
        live: from_stdin || args.lines,
    };
    let file = args.out.as_deref().map(WholeFile::create).transpose()?;

    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let engine = open_engine(&args.model)?;
    let request = request(&engine, &args.model, args.role.into())?.cancel(cancel.clone());
    let full = || engine.profile().dims.last().copied().unwrap_or_default();
    let sink = match (file, args.format) {
        (None, _) => Sink::Lines,
        (Some(file), FormatArg::Json) => Sink::LinesFile(file),
        (Some(file), FormatArg::Npy) => Sink::array(file, args.model.dim.unwrap_or_else(full))?,
    };
    let feed = Feed::start(sources).map_err(|e| Failure::with_code(SOME_FAILED, e))?;
    let bar = items_bar(total, "embedding", args.quiet);
    let mut job = Job { engine, request, cancel, feed, sink, bar, next_index: 0, failed: false, refused: None };
    let done = job.run();
    job.bar.finish_and_clear();
    done?;
    job.sink.finish()?;
    if let Some(refusal) = job.refused {
        return Err(Failure::with_code(REFUSED, anyhow::anyhow!(refusal)));
    }
    Ok(if job.failed { SOME_FAILED } else { DONE })
}

/// The stream of `--items`, its name in messages, and the folder relative paths begin at.
fn open_items(path: &Path) -> Result<(Box<dyn Read + Send>, String, PathBuf), Failure> {
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
    sink: Sink,
    bar: ProgressBar,
    next_index: u64,
    failed: bool,
    /// What was said of a part of the record that an input needed.
    refused: Option<String>,
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
        let Some(first) = self.feed.next(&self.cancel).map_err(unreadable)? else { return Ok(false) };
        let Self { engine, request, cancel, feed, sink, bar, next_index, failed, refused } = self;
        let waiting = RefCell::new(VecDeque::new());
        let (broken, over, faults) = (Cell::new(None), Cell::new(false), Cell::new(0usize));
        let mut first = Some(first);
        let inputs = std::iter::from_fn(|| {
            while !over.get() && faults.get() < MOST_WAITING_FAULTS {
                let next = first.take().map_or_else(|| feed.next_of_batch(cancel), |first| Ok(Some(first)));
                let entry = match next {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(e) => {
                        broken.set(Some(e));
                        break;
                    }
                };
                let (input, fault) = match entry.input {
                    Ok(input) => (Some(input), None),
                    Err(fault) => (None, Some(fault)),
                };
                faults.set(faults.get() + usize::from(fault.is_some()));
                waiting.borrow_mut().push_back(Waiting { index: *next_index, id: entry.id, fault });
                *next_index += 1;
                if input.is_some() {
                    return input;
                }
            }
            over.set(true);
            None
        });

        let mut write = |until_vector: Option<Result<omniburn::Embedded, ItemError>>| {
            loop {
                let mut line = waiting.borrow_mut();
                match (line.front().map(|w| w.fault.is_some()), until_vector.is_some()) {
                    (None, _) | (Some(false), false) => return Ok(()),
                    _ => {}
                }
                let Some(Waiting { index, id, fault }) = line.pop_front() else { return Ok(()) };
                drop(line);
                let result = match (fault, &until_vector) {
                    (Some(fault), _) => Err((fault, false)),
                    (None, Some(Ok(embedded))) => Ok(embedded),
                    (None, Some(Err(e))) => {
                        if let ItemError::Record(_) = e {
                            refused.get_or_insert_with(|| e.to_string());
                        }
                        Err((Fault::from(e), true))
                    }
                    (None, None) => return Ok(()),
                };
                bar.inc(1);
                let (written, last) = bar.suspend(|| match &result {
                    Ok(embedded) => (sink.vector(index, id.as_deref(), embedded), true),
                    Err((fault, last)) => (sink.fault(index, id.as_deref(), fault), *last),
                });
                *failed |= result.is_err();
                written?;
                if last {
                    return Ok(());
                }
            }
        };
        for result in engine.embed_iter(inputs, request.clone())? {
            if cancel.is_cancelled() && matches!(result, Err(ItemError::Cancelled)) {
                return Err(Failure::Interrupted);
            }
            write(Some(result))?;
        }
        write(None)?;
        match broken.take() {
            Some(e) => Err(unreadable(e)),
            None => Ok(true),
        }
    }
}

fn unreadable(e: io::Error) -> Failure {
    say("the inputs before this have their lines");
    Failure::with_code(SOME_FAILED, e)
}
