//! `embed --journal` and `replay` as their users run them, with the model that ships and with a tiny checkpoint.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Run, golden, media, omniburn, run};

/// A folder with an image, and the inputs that name it and two texts.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(media("images/odd.png"), folder.path().join("photo.png")).unwrap();
    folder
}

const INPUTS: [&str; 4] = ["photo.png", "a red bicycle", "something to ride", "a red bicycle"];

fn embed(folder: &Path, args: &[&str]) -> Run {
    run(omniburn().current_dir(folder).arg("embed").args(args))
}

fn replay(folder: &Path, args: &[&str]) -> Run {
    run(omniburn().current_dir(folder).arg("replay").args(args))
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_journal_of_the_model_that_ships_replays_to_the_bit_and_names_what_does_not() {
    let folder = folder();
    let at = folder.path();
    let journal = [&["--journal", "journal.jsonl", "--role", "query"][..], &INPUTS, &["nowhere/at.png"]].concat();
    let first = embed(at, &journal);
    assert_eq!((first.code, first.stderr.as_str()), (1, ""), "the last input is not there");
    assert_eq!(first.lines().len(), 5);

    let entries = lines(at, "journal.jsonl");
    let of = |event: &str| entries.iter().filter(|entry| entry["event"] == event).collect::<Vec<_>>();
    assert_eq!(entries[0]["event"], "open");
    assert!(entries[0]["identity"].as_str().unwrap().starts_with("omniburn/"));
    let answered: Vec<&Value> = of("item").iter().map(|item| &item["answered"]).collect();
    assert_eq!(answered, [&json!("computed"), &json!("computed"), &json!("computed"), &json!({"equal_to": 1})]);
    let two = of("unit").into_iter().find(|unit| unit["stage"] == "text").unwrap();
    assert_eq!(two["items"].as_array().unwrap().len(), 2);
    // Neither what was said nor where it lay.
    let text = fs::read_to_string(at.join("journal.jsonl")).unwrap();
    assert!(!text.contains("bicycle") && !text.contains("photo") && !text.contains("nowhere"), "{text}");

    let again = replay(at, &[&["journal.jsonl"][..], &INPUTS].concat());
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{}", again.stderr);
    let summary = "4 equal, 0 different, 0 missing, 0 not compared\n\
                   units of several: 1 done again, 1 of them in one piece; 0 lack an input\n";
    assert_eq!(again.stderr, summary);

    // Another text in place of one, and a vector that was tampered with.
    let vector = of("item")[0]["result"]["vector"].as_str().unwrap();
    let forged = if vector.starts_with('0') { vector.replacen('0', "1", 1) } else { format!("0{}", &vector[1..]) };
    fs::write(at.join("forged.jsonl"), text.replace(vector, &forged)).unwrap();
    let found = replay(at, &["forged.jsonl", "photo.png", "a red bicycle", "something to eat"]);
    assert_eq!(found.code, 1);
    let found_lines = found.lines();
    let (different, missing) = (&found_lines[0], &found_lines[1]);
    assert_eq!(
        (&different["state"], &different["index"], &different["how"]),
        (&json!("different"), &json!(0), &json!("alone"))
    );
    assert_eq!(different["logged"], json!({ "vector": forged }));
    assert_eq!(different["found"], json!({ "vector": vector }));
    assert_eq!((&missing["state"], &missing["index"]), (&json!("missing"), &json!(2)));
    assert_eq!(found_lines.len(), 2);
    assert!(found.stderr.contains("1 of the inputs given are not in the journal"), "{}", found.stderr);
    assert!(found.stderr.contains("2 equal, 1 different, 1 missing, 0 not compared"), "{}", found.stderr);
}

#[test]
fn a_journal_has_the_places_of_the_lines_and_replays_from_items() {
    let folder = folder();
    let at = folder.path();
    let items =
        "{\"id\": \"p\", \"image\": \"photo.png\"}\nno item\n{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"a\"}\n";
    fs::write(at.join("items.jsonl"), items).unwrap();
    let first = embed(at, &["--items", "items.jsonl", "--journal", "j.jsonl", "--out", "v.jsonl", "--dim", "384"]);
    assert_eq!((first.code, first.stderr.as_str()), (1, ""));
    let entries = lines(at, "j.jsonl");
    let items: Vec<&Value> = entries.iter().filter(|entry| entry["event"] == "item").collect();
    let places: Vec<&Value> = items.iter().map(|item| &item["index"]).collect();
    assert_eq!(places, [0, 2, 3, 4].map(|n| json!(n)).iter().collect::<Vec<_>>());
    assert_eq!(items[3]["answered"], json!({"equal_to": 2}));
    let again = replay(at, &["j.jsonl", "--items", "items.jsonl"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{}", again.stderr);
    assert!(
        again.stderr.contains("bad_item: items.jsonl line 2") && again.stderr.contains("4 equal"),
        "{}",
        again.stderr
    );
}

#[test]
fn another_record_is_refused_and_another_type_is_told() {
    let folder = folder();
    let at = folder.path();
    for (checkpoint, record) in [("omni-small-tiny", "one"), ("omni-nano-tiny", "two")] {
        let source = golden().join("checkpoints").join(checkpoint);
        let made = run(omniburn().arg("convert").arg(source).arg(at.join(record)).args(["--dtype", "f32"]));
        assert_eq!(made.code, 0, "{}", made.stderr);
    }
    let first = embed(at, &[&["--model", "one", "--journal", "j.jsonl", "--threads", "2"][..], &INPUTS].concat());
    assert_eq!((first.code, first.stderr.as_str()), (0, ""));
    let same = replay(at, &[&["j.jsonl", "--model", "one", "--threads", "1"][..], &INPUTS].concat());
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{}", same.stderr);
    assert!(same.stderr.starts_with("threads: logged with 2, here 1\n4 equal, "), "{}", same.stderr);
    let other = replay(at, &[&["j.jsonl", "--model", "two"][..], &INPUTS].concat());
    assert_eq!((other.code, other.stdout.as_str()), (3, ""));
    let identity = lines(at, "j.jsonl")[0]["identity"].as_str().unwrap().to_string();
    assert!(other.stderr.contains(&identity) && other.stderr.matches("omniburn/").count() == 2, "{}", other.stderr);
}

#[test]
fn a_journal_is_whole_or_not_there_and_what_is_none_is_a_usage_error() {
    let folder = folder();
    let at = folder.path();
    let usage = |found: &Run, said: &str| {
        assert_eq!((found.code, found.stdout.as_str()), (2, ""), "{}", found.stderr);
        assert!(found.stderr.contains(said), "{}", found.stderr);
    };
    usage(&embed(at, &["--journal", "x", "--out", "x", "a text"]), "one file");
    usage(&embed(at, &["--journal", "no/folder/j", "a text"]), "no/folder/j");
    usage(&embed(at, &["--journal", "j", "--task", "none-such", "a text"]), "none-such");
    assert!(!at.join("j").exists(), "nothing was computed");

    usage(&replay(at, &["j"]), "give the inputs again");
    usage(&replay(at, &["j", "a text"]), "j: ");
    usage(&replay(at, &[".", "a text"]), "folder");
    let wrong = [
        ("", "without an item"),
        ("{\"event\": \"page\"}\n", "line 1"),
        ("{\"event\": \"open\", \"format\": 1}\n", "line 1"),
        ("\u{0}\u{1}", "line 1"),
    ];
    for (content, said) in wrong {
        fs::write(at.join("wrong"), content).unwrap();
        usage(&replay(at, &["wrong", "a text"]), said);
    }
    assert_eq!(embed(at, &["--journal", "j", "a text"]).code, 0);
    let text = fs::read_to_string(at.join("j")).unwrap();
    fs::write(at.join("newer"), text.replace("\"format\":1", "\"format\":2")).unwrap();
    usage(&replay(at, &["newer", "a text"]), "newer: the journal is of format 2");
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(at.join("headless"), rest).unwrap();
    usage(&replay(at, &["headless", "a text"]), "entry 0");
    fs::write(at.join("long"), format!("{}{}\n", text, "x".repeat(2 << 20))).unwrap();
    usage(&replay(at, &["long", "a text"]), "not a line of a journal");
    // As with --out, a new journal takes the place of the old one.
    assert_eq!(embed(at, &["--journal", "j", "another text"]).code, 0);
    assert_eq!(replay(at, &["j", "another text"]).code, 0);
    assert_eq!(replay(at, &["j", "a text"]).code, 1);
}

#[test]
fn a_stream_with_a_pause_is_several_calls_in_one_journal() {
    let folder = folder();
    let at = folder.path();
    let mut command = omniburn();
    command.current_dir(at).args(["embed", "--lines", "--journal", "j", "first of all"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    to.write_all(b"a\n").unwrap();
    // What is typed after the results of what was typed before is another call.
    assert!(from.by_ref().take(2).all(|line| line.is_ok()));
    to.write_all(b"b\n\na\n").unwrap();
    drop(to);
    assert_eq!(from.count(), 3);
    assert!(child.wait().unwrap().success());
    let entries = lines(at, "j");
    let of = |event: &str| entries.iter().filter(|entry| entry["event"] == event).collect::<Vec<_>>();
    assert!(of("open").len() >= 2, "{entries:?}");
    assert_eq!(of("item").iter().map(|item| item["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let again = replay(at, &["j", "first of all", "a", "b", "--text", ""]);
    assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);
    assert!(again.stderr.contains("5 equal, 0 different, 0 missing"), "{}", again.stderr);
}
