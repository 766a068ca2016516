//! `ships`: the released program and the same one with what the tests add to it give the same bits.
//!
//! The tests run on crates with the feature `capture`. Here the program of `cargo build --release` writes journals of
//! what it embeds, and one built with that feature replays them, which compares to the bit.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{self, Scratch, cargo, shown};

/// What the tests add to the features of the released program.
const ADDED: &str = "omniburn/capture";

const TEXTS: [&str; 2] = ["a red bicycle", "the harbour wall at dusk"];
const MEDIA: [&str; 3] = ["cat.jpg", "boat-sailing.mp4", "speech-where-is-the-guitar.wav"];

/// A record to convert, the type it is computed in, and whether it takes media; none is the model that ships.
const CASES: [(Option<&str>, &str, bool); 6] = [
    (None, "f32", true),
    (None, "int8", true),
    (Some("omni-small-tiny"), "bf16", true),
    (Some("omni-nano-tiny"), "f32", true),
    (Some("mini-tiny"), "bf16", true),
    (Some("bert-tiny"), "bf16", false),
];

/// Runs every case; gives the command that failed.
///
/// # Errors
/// When no folder can be made or Cargo cannot be started.
pub fn run(root: &Path) -> Result<Option<String>> {
    let scratch = Scratch::new("ships")?;
    let at = |name: String| scratch.path().join(name).display().to_string();
    let inputs = |media: bool| {
        let texts = TEXTS.map(String::from).into_iter();
        let samples = MEDIA.iter().filter(move |_| media).map(|name| format!("models/mini/samples/{name}"));
        texts.chain(samples).collect::<Vec<_>>()
    };
    let (mut released, mut tested) = (Vec::new(), Vec::new());
    for (number, (record, dtype, media)) in CASES.into_iter().enumerate() {
        let mut settings = vec!["--dtype".to_string(), dtype.into()];
        if let Some(name) = record {
            let folder = at(format!("{number}-{name}"));
            released.push(["convert".to_string(), format!("tests/golden/checkpoints/{name}"), folder.clone()].to_vec());
            settings.extend(["--model".to_string(), folder]);
        }
        settings.extend(inputs(media));
        let journal = at(format!("{number}.journal"));
        let embed =
            ["embed", "--quiet", "--out", &at(format!("{number}.jsonl")), "--journal", &journal].map(String::from);
        released.push([&embed[..], &settings].concat());
        tested.push([&["replay".to_string(), journal][..], &settings].concat());
    }
    for (features, words) in released.iter().map(|words| ("", words)).chain(tested.iter().map(|words| (ADDED, words))) {
        let mut command = program(root, features);
        command.args(words);
        println!("$ {}", shown(&command));
        if !workspace::status(&mut command)?.success() {
            return Ok(Some(shown(&command)));
        }
    }
    Ok(None)
}

/// The program with its own features and some added.
fn program(root: &Path, added: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "omniburn-cli"]).current_dir(root);
    if !added.is_empty() {
        command.args(["--features", added]);
    }
    command.arg("--");
    command
}
