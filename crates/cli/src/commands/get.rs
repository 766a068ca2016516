//! `omniburn get`: one hit opened.

use std::io::IsTerminal;
use std::path::Path;

use omniburn_index::{About, Index, IndexError, Kind, Locator, Opened, uri_of};
use serde::Serialize;

use super::index::nothing_yet;
use super::place::{folder_of, shown};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::find_args::GetArgs;
use crate::output::{OutFile, Outputs, destination, line_of, write_stdout};

/// Refuses to write what is no text to a terminal.
fn refuse_terminal(path: &Path, kind: Kind, to_stdout: bool) -> Result<(), Failure> {
    if to_stdout && std::io::stdout().is_terminal() {
        let what = format!("{}: {kind} is not shown on a terminal: name a file with --out", shown(path));
        return Err(Failure::usage(what));
    }
    Ok(())
}

#[derive(Serialize)]
struct AboutBody {
    path: String,
    uri: String,
    kind: &'static str,
    size: i64,
    /// Seconds since 1970.
    mtime: f64,
    title: Option<String>,
    /// When a photograph was taken, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<TagBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<PlaceBody>,
}

#[derive(Serialize)]
struct TagBody {
    name: &'static str,
    value: String,
}

/// In degrees, north and east positive.
#[derive(Serialize)]
struct PlaceBody {
    latitude: f64,
    longitude: f64,
}

fn about_body(about: About) -> AboutBody {
    let About { path, kind, size, mtime_ns, title, taken_ns, tags, place } = about;
    AboutBody {
        path: path.to_string_lossy().into_owned(),
        uri: uri_of(&path),
        kind: kind.name(),
        size,
        mtime: mtime_ns as f64 / 1e9,
        title,
        taken: taken_ns.map(|ns| ns as f64 / 1e9),
        tags: tags.into_iter().map(|tag| TagBody { name: tag.name, value: tag.value }).collect(),
        place: place.map(|(latitude, longitude)| PlaceBody { latitude, longitude }),
    }
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
    let opened = match (args.image, locator) {
        (true, Locator::Page(page)) => index.page_image(id, page)?,
        (true, _) => return Err(Failure::usage("--image is for a page: say ID:page=3")),
        (false, _) if args.about && locator != Locator::Whole => {
            return Err(Failure::usage("--about is of a file as a whole: give its id alone"));
        }
        (false, _) if args.about => {
            let about = index.about(id, args.place)?;
            Opened::Text {
                path: about.path.clone(),
                text: String::from_utf8_lossy(&line_of(&about_body(about))).into_owned(),
            }
        }
        (false, _) => index.get(id, locator)?,
    };
    let (path, bytes) = match opened {
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
