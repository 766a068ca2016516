//! `omniburn compare`: the cosine of A with each B.

use omniburn::{Cancel, Embedded, Engine, ErrorKind, Input, ItemError, OutputKind, Request, Role, max_sim};
use serde::Serialize;

use super::{first_output, open_engine, request};
use crate::args::{CompareArgs, RoleArg};
use crate::failure::{DONE, Failure, Outcome, REFUSED, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{ErrorBody, Outputs, json_line, write_stdout};
use crate::progress::say;
use omniburn_cli::inputs::{Entry, Fault, TypedInput};

/// One of the three figures.
#[derive(Serialize, Default)]
struct ScoreLine<'a> {
    a: &'a str,
    b: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine: Option<f32>,
    /// The sum of the products of weights that both have.
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<f32>,
    /// The mean over the rows of A of the largest cosine with a row of B.
    #[serde(skip_serializing_if = "Option::is_none")]
    multi: Option<f32>,
}

impl<'a> ScoreLine<'a> {
    fn of(output: OutputKind, a: &'a str, b: &'a str, score: f32) -> Self {
        let line = Self { a, b, ..Self::default() };
        match output {
            OutputKind::Dense => Self { cosine: Some(score), ..line },
            OutputKind::Sparse => Self { sparse: Some(score), ..line },
            OutputKind::Multi => Self { multi: Some(score), ..line },
            OutputKind::Features => line,
        }
    }
}

/// How like two inputs are by one of their outputs.
fn score(output: OutputKind, a: &Embedded, b: &Embedded) -> f32 {
    let found = match output {
        OutputKind::Dense => Some(a.embedding.cosine(&b.embedding)),
        OutputKind::Sparse => a.sparse.as_ref().zip(b.sparse.as_ref()).map(|(a, b)| a.dot(b)),
        OutputKind::Multi => a.multi.as_deref().zip(b.multi.as_deref()).map(|(a, b)| max_sim(a, b)),
        // Refused before.
        OutputKind::Features => None,
    };
    found.expect("what was asked for was given, or refused before")
}

#[derive(Serialize)]
struct FailedLine<'a> {
    a: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<&'a str>,
    error: ErrorBody<'a>,
}

/// Compares the first input with every other one.
///
/// # Errors
/// A usage failure, a refused record, or a device that cannot be used; an input that fails is a line and no error.
pub fn run(args: &CompareArgs, typed: &[TypedInput]) -> Outcome {
    if typed.len() < 2 {
        return Err(Failure::usage(format!("give A and at least one B: found {} inputs", typed.len())));
    }
    let outputs = Outputs::default().and_stdout();
    typed.iter().filter_map(TypedInput::file).try_for_each(|file| outputs.refuse(file))?;
    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let engine = open_engine(&args.model)?;
    let mut entries: Vec<Entry> = typed.iter().map(|typed| Entry::of(typed, &args.inputs.tracks())).collect();
    let others = entries.split_off(1);
    let a = entries.remove(0);
    let role_of_b = if args.role == RoleArg::None { Role::None } else { Role::Document };
    let output = args.output.map_or_else(|| first_output(&engine), OutputKind::from);
    if output == OutputKind::Features {
        return Err(Failure::usage(
            "--output features are rows for a decoder and no vectors: compare by dense, sparse or multi",
        ));
    }
    let [for_a, for_b] = [args.role.into(), role_of_b].map(|role| {
        let request = request(&engine, &args.model, role)?.outputs([output]);
        engine.embed_with(&[], &request)?;
        Ok::<_, Failure>(request)
    });

    let found = embed(&engine, vec![a.input], &for_a?.cancel(cancel.clone()))?.remove(0);
    let found = match found {
        Ok(found) => found,
        Err(fault) => {
            if args.json {
                json_line(&FailedLine { a: &a.label, b: None, error: (&fault).into() })?;
            }
            say(format_args!("error: A, {}: {}: {}", a.label, fault.kind, fault.message));
            return Ok(SOME_FAILED);
        }
    };
    let (labels, inputs): (Vec<_>, Vec<_>) = others.into_iter().map(|b| (b.label, b.input)).unzip();
    let results = embed(&engine, inputs, &for_b?.cancel(cancel))?;
    let mut code = DONE;
    for (label, result) in labels.iter().zip(results) {
        match (result, args.json) {
            (Ok(b), true) => json_line(&ScoreLine::of(output, &a.label, label, score(output, &found, &b)))?,
            (Ok(b), false) => write_stdout(for_people(score(output, &found, &b), label).as_bytes())?,
            (Err(fault), true) => {
                code = SOME_FAILED;
                json_line(&FailedLine { a: &a.label, b: Some(label), error: (&fault).into() })?;
            }
            (Err(fault), false) => {
                code = SOME_FAILED;
                // Most messages begin with the name of the file.
                let name =
                    if fault.message.starts_with(label.as_str()) { "" } else { &format!("{}: ", one_line(label)) };
                write_stdout(format!(" failed  {name}{} ({})\n", fault.message, fault.kind).as_bytes())?;
            }
        }
    }
    Ok(code)
}

/// One result an input, failed ones in their places.
fn embed(
    engine: &Engine,
    inputs: Vec<Result<Input, Fault>>,
    request: &Request,
) -> Result<Vec<Result<Embedded, Fault>>, Failure> {
    let good: Vec<Input> = inputs.iter().flatten().cloned().collect();
    let mut computed = engine.embed_with(&good, request)?.into_iter();
    let mut results = Vec::new();
    for input in inputs {
        results.push(match input.map(|_| computed.next().expect("one result an input")) {
            Ok(Ok(embedded)) => Ok(embedded),
            Ok(Err(e)) if e.kind() == ErrorKind::Cancelled => return Err(Failure::Interrupted),
            Ok(Err(e @ ItemError::Record(_))) => return Err(Failure::with_code(REFUSED, e)),
            Ok(Err(e)) => Err(Fault::from(&e)),
            Err(fault) => Err(fault),
        });
    }
    Ok(results)
}

fn for_people(cosine: f32, label: &str) -> String {
    // Rounded first, so that nothing is shown as a negative zero.
    let rounded = (f64::from(cosine) * 1e4).round() / 1e4 + 0.0;
    format!("{rounded:>7.4}  {}\n", one_line(label))
}

/// The beginning of a text, without line breaks.
fn one_line(label: &str) -> String {
    const MOST: usize = 100;
    let flat: String = label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if flat.chars().count() <= MOST { flat } else { flat.chars().take(MOST - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_four_decimals_and_one_line() {
        assert_eq!(for_people(0.123_46, "a\nb"), " 0.1235  a b\n");
        assert_eq!(for_people(-0.000_01, "a"), " 0.0000  a\n");
        assert_eq!(for_people(-1.0, "a"), "-1.0000  a\n");
        assert_eq!(one_line(&"x".repeat(200)).chars().count(), 100);
    }
}
