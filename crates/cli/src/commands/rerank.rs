//! `omniburn rerank`: documents ordered by a reranker's score.

use std::path::Path;

use omniburn::{Cancel, ErrorKind, Input, ItemError, PairCut, Ranked, Request, Role};
use omniburn_cli::inputs::{Entry, Fault, Feed, Sources, Tracks, TypedInput};
use serde::Serialize;
use serde_json::value::RawValue;

use super::embed::{open_items, unreadable};
use super::open_engine;
use crate::args::{ModelArgs, RerankArgs};
use crate::failure::{DONE, Failure, Outcome, REFUSED, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{ErrorBody, Outputs, json_line};
use crate::progress::{items_bar, say};

/// The line of a document; the order of the fields is the order on the line.
#[derive(Serialize)]
struct ScoreLine<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    score: f32,
    logit: f32,
    /// What was cut of the pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

/// The line of a document that failed.
#[derive(Serialize)]
struct FailedLine<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    error: ErrorBody<'a>,
}

/// Orders documents by their scores.
///
/// # Errors
/// A usage failure, a refused record, or a device that cannot be used; a document that fails is a line and no error.
pub fn run(args: &RerankArgs) -> Outcome {
    if args.documents.is_empty() && args.items.is_none() {
        return Err(Failure::usage("nothing to order: give a DOC or --items; see omniburn rerank --help"));
    }
    let query = TypedInput::Either(args.query.clone());
    let typed: Vec<TypedInput> = args.documents.iter().cloned().map(TypedInput::Either).collect();
    let outputs = Outputs::default().and_stdout();
    [&query].into_iter().chain(&typed).filter_map(TypedInput::file).try_for_each(|file| outputs.refuse(file))?;
    let from_stdin = args.items.as_deref() == Some(Path::new("-"));
    match &args.items {
        Some(_) if from_stdin => outputs.refuse_stdin()?,
        Some(items) => outputs.refuse(items)?,
        None => {}
    }
    let items = args.items.as_deref().map(open_items).transpose()?;
    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let engine = open_engine(&model(args))?;
    let mut request = Request::new(Role::Query).truncation(args.truncate.into()).cancel(cancel.clone());
    if let Some(instruction) = &args.instruction {
        request = request.instruction(instruction);
    }
    // What the model gives is known before any document is read.
    engine.rerank_with("", &[] as &[Input], &request)?;
    let query = match Entry::of(&query, &Tracks::default()).input {
        Ok(query) => query,
        Err(fault) => {
            say(format_args!("error: the query: {}: {}", fault.kind, fault.message));
            return Ok(SOME_FAILED);
        }
    };
    let sources = Sources { typed, items, lines: None, live: false, tracks: Tracks::default() };
    let mut entries = read(sources, &outputs, &cancel)?;
    let good = entries.iter().filter_map(|entry| entry.input.as_ref().ok().cloned()).collect::<Vec<Input>>();
    let bar = items_bar(Some(good.len() as u64), "ranking", args.quiet);
    let shown = bar.clone();
    let request = request.on_progress(move |progress| shown.set_position(progress.done as u64));
    let results = engine.rerank_with(query, &good, &request);
    bar.finish_and_clear();
    let mut results = results?.into_iter();
    let (mut ranked, mut failed) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter_mut().enumerate() {
        // The fault is taken from where it stands: the input is of no use any more.
        let fault = match std::mem::replace(&mut entry.input, Ok(Input::text(""))) {
            Err(fault) => fault,
            Ok(_) => match results.next().expect("one result a document") {
                Ok(result) => {
                    ranked.push(Ranked { index, ..result });
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(Failure::Interrupted),
                Err(e @ ItemError::Record(_)) => return Err(Failure::with_code(REFUSED, e)),
                Err(e) => Fault::from(&e),
            },
        };
        failed.push((index, fault));
    }
    Ranked::sort(&mut ranked);
    for one in ranked.iter().take(args.top.map_or(usize::MAX, std::num::NonZeroUsize::get)) {
        let entry = &entries[one.index];
        json_line(&ScoreLine {
            index: one.index,
            id: entry.id.as_deref(),
            score: one.score,
            logit: one.logit,
            truncated: truncated(one.cut),
            document: (!args.quiet).then_some(&*entry.label),
        })?;
    }
    for (index, fault) in &failed {
        json_line(&FailedLine { index: *index, id: entries[*index].id.as_deref(), error: fault.into() })?;
    }
    Ok(if failed.is_empty() { DONE } else { SOME_FAILED })
}

/// Every document in the order given. What a line says beside its document and an id is refused there.
fn read(sources: Sources, outputs: &Outputs, cancel: &Cancel) -> Result<Vec<Entry>, Failure> {
    let mut feed = Feed::start(sources).map_err(|e| Failure::with_code(SOME_FAILED, e))?;
    let mut entries = Vec::new();
    while let Some(mut entry) = feed.next(cancel).map_err(unreadable)? {
        entry.files.iter().try_for_each(|file| outputs.refuse(file))?;
        let own = [
            ("role", entry.role.is_some()),
            ("task", entry.task.is_some()),
            ("instruction", entry.instruction.is_some()),
        ];
        if let (Some((key, _)), true) = (own.into_iter().find(|(_, there)| *there), entry.input.is_ok()) {
            let message = format!("{key}: a document to be ranked has none of its own");
            entry.input = Err(Fault { kind: ErrorKind::BadItem, message });
        }
        entries.push(entry);
    }
    if cancel.is_cancelled() { Err(Failure::Interrupted) } else { Ok(entries) }
}

/// Which model, and how it computes, as other verbs say it.
fn model(args: &RerankArgs) -> ModelArgs {
    ModelArgs {
        model: Some(args.model.clone()),
        task: None,
        dim: None,
        compute: args.compute,
        truncate: args.truncate,
        frames: None,
    }
}

/// What was cut of a pair; `None` where nothing was.
fn truncated(cut: PairCut) -> Option<&'static str> {
    match (cut.query, cut.document) {
        (false, false) => None,
        (true, false) => Some("query"),
        (false, true) => Some("document"),
        (true, true) => Some("both"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_it_is_promised_and_says_what_was_cut() {
        let line =
            |truncated, document| ScoreLine { index: 2, id: None, score: 0.9312, logit: 2.606, truncated, document };
        let text = |line: &ScoreLine<'_>| serde_json::to_string(line).unwrap();
        assert_eq!(
            text(&line(None, Some("a bear"))),
            r#"{"index":2,"score":0.9312,"logit":2.606,"document":"a bear"}"#
        );
        assert_eq!(text(&line(Some("query"), None)), r#"{"index":2,"score":0.9312,"logit":2.606,"truncated":"query"}"#);
        let cut = |query, document| truncated(PairCut { query, document });
        assert_eq!([cut(false, false), cut(false, true), cut(true, true)], [None, Some("document"), Some("both")]);
    }
}
