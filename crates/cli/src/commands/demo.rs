//! `omniburn demo`: the sample folder in one space, with the model that ships. Everything it needs is in the program.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Instant;

use include_dir::{Dir, File, include_dir};
use omniburn::media::{VideoSource, is_animation};
use omniburn::{Cancel, Embedding, Engine, ErrorKind, Input, Request, Role};
use serde::Deserialize;

use super::{kernels, with_kernels};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::write_stdout;
use crate::progress::say;

static SAMPLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../models/mini/samples");

/// Results shown for each search.
const SHOWN: usize = 4;
/// Characters of a thumbnail's row; each shows two pixels, one above the other.
const THUMBNAIL_COLUMNS: u32 = 16;

/// What a sample is, and what several of them are called.
const KINDS: [(&str, &str); 4] =
    [("image", "photos and drawings"), ("speech", "spoken sentences"), ("video", "videos"), ("text", "texts")];

struct Sample {
    name: &'static str,
    kind: &'static str,
    file: &'static File<'static>,
    vector: Embedding,
}

/// One line of `searches.json`.
#[derive(Deserialize)]
struct Search {
    /// What is searched for, in words…
    text: Option<String>,
    /// …or by a sample.
    file: Option<String>,
    /// What the line says beside the query.
    #[serde(default)]
    about: String,
}

/// Indexes the samples, searches, and prints what was found.
///
/// # Errors
/// Whatever opening the model that ships gives, an interruption, or a closed pipe.
pub fn run() -> Outcome {
    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let started = Instant::now();
    let engine = with_kernels(Engine::mini_builder(), kernels::kept()).open()?;
    let opened = started.elapsed();

    let files = files();
    let request = Request::new(Role::Document).cancel(cancel);
    let inputs: Vec<Input> = files.iter().map(|(kind, file)| input(kind, file)).collect();
    let embedding = Instant::now();
    let results = engine.embed_with(&inputs, &request)?;
    let embedded = embedding.elapsed();

    let mut code = DONE;
    let mut samples = Vec::new();
    for ((kind, file), result) in files.iter().copied().zip(results) {
        let name = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match result {
            Ok(found) => samples.push(Sample { name, kind, file, vector: found.embedding }),
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(Failure::Interrupted),
            Err(e) => {
                code = SOME_FAILED;
                say(format_args!("error: {name}: {e}"));
            }
        }
    }
    let counts: Vec<String> = KINDS
        .into_iter()
        .map(|(kind, plural)| format!("{} {plural}", samples.iter().filter(|sample| sample.kind == kind).count()))
        .collect();
    write_stdout(
        format!(
            "{} files in {:.1} s, the model opened in {:.1} s: {}.\n",
            samples.len(),
            embedded.as_secs_f64(),
            opened.as_secs_f64(),
            counts.join(", ")
        )
        .as_bytes(),
    )?;

    let images = thumbnails();
    for search in searches() {
        if let Some(shown) = shown(&engine, &search, &samples, images)? {
            write_stdout(shown.as_bytes())?;
        }
    }
    let took = started.elapsed().as_secs_f64();
    write_stdout(format!("\nAll of it in {took:.1} s, on this machine alone. Now with your own files:\n  omniburn compare \"a red bicycle\" photo.jpg\n").as_bytes())?;
    Ok(code)
}

/// Every sample with its kind; what only tells of the samples is left out.
fn files() -> Vec<(&'static str, &'static File<'static>)> {
    let files = SAMPLES.files().filter_map(|file| Some((kind(file)?, file)));
    files.collect()
}

fn kind(file: &File<'static>) -> Option<&'static str> {
    let ending = file.path().extension()?.to_str()?;
    let moves = || is_animation(&VideoSource::Bytes(file.contents().into(), "sample".into())).unwrap_or(false);
    Some(match ending {
        "txt" => "text",
        "wav" | "flac" | "mp3" | "ogg" | "opus" | "m4a" => "speech",
        "mp4" | "mkv" => "video",
        "gif" | "webp" if moves() => "video",
        "png" | "jpg" | "gif" | "webp" | "bmp" => "image",
        _ => return None,
    })
}

fn searches() -> Vec<Search> {
    let file = SAMPLES.get_file("searches.json").expect("the samples have their searches");
    serde_json::from_slice(file.contents()).expect("a test reads the searches")
}

fn input(kind: &str, file: &'static File<'static>) -> Input {
    let bytes = file.contents();
    match kind {
        "text" => Input::text(String::from_utf8_lossy(bytes).trim()),
        "speech" => Input::audio_bytes(bytes),
        "video" => Input::video_bytes(bytes),
        _ => Input::image_bytes(bytes),
    }
}

/// A search with the best samples, as people read it; nothing for a search by a sample that is not there.
fn shown(engine: &Engine, search: &Search, samples: &[Sample], images: bool) -> Result<Option<String>, Failure> {
    let (title, query, own) = match (&search.text, &search.file) {
        (Some(text), _) => (format!("\"{text}\""), engine.embed_one(Input::text(text), Role::Query)?, None),
        (None, Some(name)) => {
            let Some(at) = samples.iter().position(|sample| sample.name == name) else { return Ok(None) };
            (format!("{} {name}", samples[at].kind), samples[at].vector.clone(), Some(at))
        }
        (None, None) => return Ok(None),
    };
    let mut ranked: Vec<(f32, &Sample)> = samples
        .iter()
        .enumerate()
        .filter(|(at, _)| Some(*at) != own)
        .map(|(_, sample)| (query.cosine(&sample.vector), sample))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.truncate(SHOWN);

    let about = if search.about.is_empty() { String::new() } else { format!("   {}", search.about) };
    let mut text = format!("\n{title}{about}\n");
    for (score, sample) in &ranked {
        let _ = write!(text, "  {score:.3}  {:<8} {}", sample.kind, sample.name);
        if sample.kind == "text" {
            let words = String::from_utf8_lossy(sample.file.contents());
            let _ = write!(text, "  \"{}\"", beginning(&words, 60));
        }
        text.push('\n');
    }
    if images && let Some(thumbnail) = ranked.first().and_then(|(_, sample)| thumbnail(sample)) {
        text.push_str(&thumbnail);
    }
    Ok(Some(text))
}

/// The beginning of a text on one line.
fn beginning(text: &str, most: usize) -> String {
    let flat: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if flat.chars().count() <= most { flat } else { flat.chars().take(most - 1).chain(['…']).collect() }
}

/// Whether the terminal says that it shows every colour.
fn thumbnails() -> bool {
    let colours = std::env::var("COLORTERM").is_ok_and(|value| value == "truecolor" || value == "24bit");
    colours && std::io::stdout().is_terminal()
}

/// An image in half blocks, or nothing where the sample is no still image.
fn thumbnail(sample: &Sample) -> Option<String> {
    if sample.kind != "image" {
        return None;
    }
    let image = omniburn::media::decode_image(sample.file.contents(), sample.name).ok()?;
    let columns = THUMBNAIL_COLUMNS;
    // A cell is twice as high as it is wide, and shows two pixels.
    let rows = (columns * image.height().0 / image.width().0.max(1)).clamp(2, columns) & !1;
    let small = omniburn::media::resize_bicubic(&image, omniburn::Height(rows), omniburn::Width(columns));
    let row_bytes = 3 * columns as usize;
    let mut text = String::new();
    for two in small.pixels().chunks_exact(2 * row_bytes) {
        text.push_str("  ");
        for (above, below) in two[..row_bytes].chunks_exact(3).zip(two[row_bytes..].chunks_exact(3)) {
            let _ = write!(
                text,
                "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀",
                above[0], above[1], above[2], below[0], below[1], below[2]
            );
        }
        text.push_str("\x1b[0m\n");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_search_by_a_sample_names_one_that_is_there() {
        let names: Vec<&str> = files().iter().filter_map(|(_, file)| file.path().file_name()?.to_str()).collect();
        assert!(names.len() >= 50, "{}", names.len());
        let searches = searches();
        assert!(searches.len() >= 10);
        for search in searches {
            assert!(search.text.is_some() != search.file.is_some());
            assert!(search.file.is_none_or(|file| names.contains(&file.as_str())));
        }
    }

    #[test]
    fn long_texts_are_cut_to_a_line() {
        assert_eq!(beginning(" a\nb ", 60), "a b");
        assert_eq!(beginning(&"x".repeat(100), 60).chars().count(), 60);
    }
}
