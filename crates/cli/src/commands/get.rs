//! `omniburn get`: one hit opened.

use std::io::IsTerminal;
use std::path::Path;

use omniburn_index::{Index, IndexError, Kind, Locator, Opened};

use super::index::nothing_yet;
use super::place::{folder_of, shown};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::find_args::GetArgs;
use crate::output::{OutFile, Outputs, destination, write_stdout};

/// Refuses to write what is no text to a terminal.
fn refuse_terminal(path: &Path, kind: Kind, to_stdout: bool) -> Result<(), Failure> {
    if to_stdout && std::io::stdout().is_terminal() {
        let what = format!("{}: {kind} is not shown on a terminal: name a file with --out", shown(path));
        return Err(Failure::usage(what));
    }
    Ok(())
}

/// Prints a place of a file.
///
/// # Errors
/// A usage failure for an id or a place that is not there; a file that cannot be read.
pub fn run(args: &GetArgs) -> Outcome {
    let (id, locator) = match args.hit.split_once(':') {
        Some((id, locator)) => (id, Locator::parse(locator).map_err(IndexError::from)?),
        None => (args.hit.as_str(), Locator::Whole),
    };
    let index = Index::open(&folder_of(args.index.as_deref())?).map_err(nothing_yet)?;
    let to = args.out.as_deref().map(destination).transpose()?;
    let (path, bytes) = match index.get(id, locator)? {
        Opened::Text { path, mut text } => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            (path, text.into_bytes())
        }
        Opened::Part { path, kind, bytes } => {
            refuse_terminal(&path, kind, to.is_none())?;
            (path, bytes)
        }
        Opened::File { path, kind } => {
            refuse_terminal(&path, kind, to.is_none())?;
            let unread = |e| Failure::with_code(SOME_FAILED, anyhow::anyhow!("{}: {e}", shown(&path)));
            let bytes = std::fs::read(&path).map_err(unread)?;
            (path, bytes)
        }
    };
    match to {
        None => write_stdout(&bytes)?,
        Some(to) => {
            Outputs::of([("--out", &to)]).refuse(&path)?;
            let mut out = OutFile::create(&to)?;
            out.write(&bytes)?;
            out.finish()?;
        }
    }
    Ok(DONE)
}
