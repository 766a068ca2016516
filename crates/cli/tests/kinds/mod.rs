//! What a file is: text in other encodings, links that lead nowhere, pipes, names that look like words.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Run, golden, media, omniburn, run, run_with, values};

const SENTENCE: &str = "A red bicycle leans against the wall.\nIt is r\u{e9}d \u{1f6b2}.";

/// A folder with the record of a small text model in `record`.
fn small() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/bert-tiny");
    assert_eq!(run(omniburn().arg("convert").arg(checkpoint).arg(folder.path().join("record"))).code, 0);
    folder
}

fn command(folder: &TempDir) -> Command {
    let mut command = omniburn();
    command.current_dir(folder).args(["embed", "--model", "record", "--quiet"]);
    command
}

fn embed(folder: &TempDir, args: &[&str]) -> Run {
    run(command(folder).args(args))
}

/// Kind and message of a line that failed.
fn fault(line: &Value) -> (&str, &str) {
    let error = &line["error"];
    (error["kind"].as_str().unwrap_or_else(|| panic!("{line}")), error["message"].as_str().unwrap())
}

fn utf16(text: &str, little: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
}

fn utf32(text: &str, little: bool) -> Vec<u8> {
    let unit = |c: char| if little { u32::from(c).to_le_bytes() } else { u32::from(c).to_be_bytes() };
    text.chars().flat_map(unit).collect()
}

/// The same text in every encoding that is read, with and without its byte order mark.
fn encoded(text: &str, mark: bool) -> Vec<(&'static str, Vec<u8>)> {
    let text = if mark { format!("\u{feff}{text}") } else { text.to_string() };
    vec![
        ("UTF-8", text.clone().into_bytes()),
        ("UTF-16LE", utf16(&text, true)),
        ("UTF-16BE", utf16(&text, false)),
        ("UTF-32LE", utf32(&text, true)),
        ("UTF-32BE", utf32(&text, false)),
    ]
}

#[test]
fn text_in_every_encoding_of_unicode_is_the_same_text_in_files_lines_and_items() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    let right = values(&embed(&folder, &["--text", SENTENCE]).lines()[0]);
    for ending in ["", ".txt", ".md"] {
        let all = [true, false].map(|mark| encoded(&format!("{SENTENCE}\r\n"), mark)).concat();
        let files: Vec<String> = (0..all.len()).map(|n| format!("notes{n}{ending}")).collect();
        for (file, (_, bytes)) in files.iter().zip(&all) {
            fs::write(at(file), bytes).unwrap();
        }
        let found = run(command(&folder).args(&files));
        assert_eq!(found.code, 0, "{ending}: {}", found.stdout);
        for (line, (name, _)) in found.lines().iter().zip(&all) {
            assert_eq!(values(line), right, "{name}{ending}");
        }
    }
    let texts = ["one", "", "zwei \u{1f6b2}", "drei"];
    let right: Vec<_> =
        embed(&folder, &texts.map(|text| ["--text", text]).concat()).lines().iter().map(values).collect();
    let items: Vec<String> = texts.iter().map(|text| json!({ "text": text }).to_string()).collect();
    // Without a mark only a file says what it is: of a stream the first line is answered before there is a second.
    for (name, bytes) in encoded(&texts.join("\r\n"), true) {
        let found = run_with(command(&folder).arg("--lines"), &bytes);
        assert_eq!((found.code, found.lines().iter().map(values).collect::<Vec<_>>()), (0, right.clone()), "{name}");
    }
    for (name, bytes) in encoded(&items.join("\n"), true) {
        fs::write(at("items.jsonl"), &bytes).unwrap();
        for found in
            [embed(&folder, &["--items", "items.jsonl"]), run_with(command(&folder).args(["--items", "-"]), &bytes)]
        {
            assert_eq!(
                (found.code, found.lines().iter().map(values).collect::<Vec<_>>()),
                (0, right.clone()),
                "{name}"
            );
        }
    }
}

#[test]
fn lines_that_are_no_text_fail_alone_and_say_why() {
    let folder = small();
    let found = run_with(command(&folder).arg("--lines"), b"one\ncaf\xe9\n\xff\xfe\nt\0w\0o\0\nfour");
    let lines = found.lines();
    assert_eq!((found.code, lines.len()), (1, 5));
    assert!(lines[0]["embedding"].is_array() && lines[4]["embedding"].is_array());
    for (n, said) in [(1, "byte 3 on: found 0xE9"), (2, "byte 0 on"), (3, "a NUL at byte 1: is this UTF-16")] {
        let (kind, message) = fault(&lines[n]);
        assert!(
            kind == "bad_item" && message.contains(said) && message.contains(&format!("line {}", n + 1)),
            "{message}"
        );
    }
    // Half a surrogate pair costs its line, and no other.
    let mut bytes = utf16("\u{feff}one\ntwo ", true);
    bytes.extend(b"\x3d\xd8\n\0");
    bytes.extend(utf16("three", true));
    let found = run_with(command(&folder).arg("--lines"), &bytes);
    let lines = found.lines();
    assert_eq!((found.code, lines.len()), (1, 3));
    assert!(fault(&lines[1]).1.contains("half of a surrogate pair"), "{}", lines[1]);
    assert!(lines[2]["embedding"].is_array());
    let items = utf16("{\"text\":\"one\"}\n{\"text\":\"two\"}\n", true);
    let found = run_with(command(&folder).args(["--items", "-"]), &items);
    assert_eq!(found.code, 1);
    assert!(found.lines().iter().all(|line| fault(line).1.contains("UTF-16")), "{}", found.stdout);
}

#[test]
fn files_are_what_they_hold_and_are_named_when_they_are_not_read() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    let zip =
        |first: &[u8]| [&b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x13\0\0\0"[..], first].concat();
    let cases: &[(&str, Vec<u8>, &str, &str)] = &[
        ("latin.txt", b"caf\xe9 au lait\n".to_vec(), "unknown_format", "other than UTF-8: byte 3 is 0xE9"),
        ("latin", b"Gr\xfc\xdfe aus M\xfcnchen".to_vec(), "unknown_format", "other than UTF-8: byte 2 is 0xFC"),
        ("windows.txt", b"\x93quoted\x94 \x80 5".to_vec(), "unknown_format", "other than UTF-8: byte 0 is 0x93"),
        (
            "cyrillic",
            b"\xff\xf1\xed\xee, \xf7\xf2\xee \xfd\xf2\xee \xf2\xe5\xea\xf1\xf2".to_vec(),
            "unknown_format",
            "other than UTF-8",
        ),
        ("sjis.txt", b"\x93\xfa\x96\x7b\x8c\xea".to_vec(), "unknown_format", "other than UTF-8"),
        ("iso2022.txt", b"\x1b$BF|K\\\x1b(B".to_vec(), "unknown_format", "other than UTF-8"),
        ("late.txt", [&b"word ".repeat(300)[..], b"\xe9"].concat(), "corrupt", "not UTF-8 from byte 1500 on"),
        ("nul.txt", b"one\0two".to_vec(), "unknown_format", "a NUL at byte 3"),
        ("late-nul.txt", [&b"word ".repeat(300)[..], b"\0"].concat(), "corrupt", "a NUL after 1500 characters"),
        ("half.txt", b"\xff\xfea\0\x3d\xd8b\0".to_vec(), "corrupt", "UTF-16 (little-endian) from byte 4 on"),
        ("odd.txt", b"\xfe\xff\0a\0".to_vec(), "corrupt", "UTF-16 (big-endian) from byte 4 on"),
        ("empty", Vec::new(), "empty", "found nothing"),
        ("page.jpg", b"<!DOCTYPE html><html>404</html>".to_vec(), "unknown_format", "html"),
        ("answer.png", b"{\"error\": \"gone\"}".to_vec(), "unknown_format", "text"),
        ("answer16.png", utf16("\u{feff}not found, sorry", true), "unknown_format", "utf-16 text"),
        ("drawing.png", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), "unsupported_codec", "svg"),
        ("report.pdf", b"%PDF-1.7\n".to_vec(), "unknown_format", "pdf"),
        ("photo.jpg", b"%PDF-1.7\n".to_vec(), "unknown_format", "pdf"),
        ("letter.docx", zip(b"[Content_Types].xml"), "unknown_format", "office document (docx"),
        ("letter.jpg", zip(b"[Content_Types].xml"), "unknown_format", "office document (docx"),
        ("book.epub", zip(b"mimetypeapplication/epub+zip"), "unknown_format", "epub"),
        ("all.zip", zip(b"a.txt"), "unknown_format", "zip"),
        ("letter.rtf", b"{\\rtf1\\ansi words}".to_vec(), "unknown_format", "rtf"),
        ("talk.mp3", utf16("\u{feff}a red bicycle", true), "unknown_format", "utf-16 text"),
    ];
    for (name, bytes, _, _) in cases {
        fs::write(at(name), bytes).unwrap();
    }
    // The model that ships takes every kind.
    let mut command = omniburn();
    let found = run(command.current_dir(&folder).args(["embed", "--quiet"]).args(cases.iter().map(|case| case.0)));
    let lines = found.lines();
    assert_eq!((found.code, lines.len()), (1, cases.len()));
    for (line, (name, _, kind, said)) in lines.iter().zip(cases) {
        let (found, message) = fault(line);
        assert_eq!(found, *kind, "{name}: {message}");
        assert!(message.starts_with(&format!("{name}: ")) && message.contains(said), "{name}: {message}");
    }
    // A log of a terminal and a text with white space only are text as they are.
    for text in ["\x1b[32mok\x1b[0m built in 3 s, no warning\n", " \t\n\n", "a\r\nb\r\n", "page\x0cbreak"] {
        fs::write(at("log.txt"), text).unwrap();
        let shown = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(text);
        let both = embed(&folder, &["log.txt", "--text", shown]).lines();
        assert_eq!(values(&both[0]), values(&both[1]), "{text:?}");
    }
    // An image by another name.
    fs::copy(media("images/odd.png"), at("really-png.jpg")).unwrap();
    let found =
        run(omniburn().current_dir(&folder).args(["embed", "--quiet", "really-png.jpg", &media("images/odd.png")]));
    assert_eq!(values(&found.lines()[0]), values(&found.lines()[1]));
}

#[test]
fn links_that_lead_nowhere_and_what_is_no_file_are_no_text() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    symlink("gone", at("photo")).unwrap();
    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    symlink("bicycle.txt", at("word")).unwrap();
    fs::write(at("bicycle.txt"), "a red bicycle").unwrap();
    fs::create_dir(at("photos")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let cases = [
        ("photo", "not_found", "a symbolic link to gone, and no such file is there"),
        ("a", "not_found", "a symbolic link to b, which cannot be followed"),
        ("photos", "not_a_file", "index"),
        ("pipe", "not_a_file", "a pipe, socket or device"),
        ("socket", "not_a_file", "a pipe, socket or device"),
        ("/dev/null", "not_a_file", "a pipe, socket or device"),
        ("missing.png", "not_found", "no such file"),
        ("-", "bad_item", "--lines"),
    ];
    let started = Instant::now();
    let names: Vec<&str> = cases.iter().map(|case| case.0).collect();
    let typed = embed(&folder, &[&names[..], &["word"]].concat());
    let items: String = names[..7].iter().map(|name| json!({ "image": name }).to_string() + "\n").collect();
    let items = run_with(command(&folder).args(["--items", "-"]), items.as_bytes());
    let said: Vec<String> = names[..7].iter().flat_map(|name| ["--image".into(), (*name).to_string()]).collect();
    let said = run(command(&folder).args(&said));
    for (how, found) in [("typed", &typed), ("items", &items), ("--image", &said)] {
        assert_eq!(found.code, 1, "{how}");
        for (line, (name, kind, message)) in found.lines().iter().zip(cases) {
            let found = fault(line);
            assert!(found.0 == kind && found.1.contains(message) && found.1.contains(name), "{how} {name}: {found:?}");
        }
    }
    assert!(typed.lines()[8]["embedding"].is_array());
    assert!(started.elapsed() < Duration::from_secs(60), "something hung");
    let compare = run(omniburn().current_dir(&folder).args(["compare", "--model", "record", "photo", "a red bicycle"]));
    assert!(compare.code == 1 && compare.stderr.contains("a symbolic link to gone"), "{}", compare.stderr);
    let frames = run_with(command(&folder).args(["--items", "-"]), b"{\"video\":[\"photo\",\"pipe\"]}\n");
    assert_eq!(fault(&frames.lines()[0]).0, "not_found");
}

#[test]
fn names_of_every_kind_are_files_and_long_arguments_are_text() {
    let folder = small();
    let at = |name: &OsStr| folder.path().join(name);
    let right = values(&embed(&folder, &["--text", "a red bicycle"]).lines()[0]);
    for name in
        [&b"two words"[..], b"caf\xe9", b"-x.txt", b"--out", b"new\nline", b"photo.jpg.txt", "f\u{fc}r".as_bytes()]
    {
        let name = OsStr::from_bytes(name);
        fs::write(at(name), "a red bicycle").unwrap();
        let found = run(command(&folder).arg("--").arg(name));
        assert_eq!((found.code, values(&found.lines()[0])), (0, right.clone()), "{name:?}");
    }
    // No name is as long; neither a space nor the lack of one makes it a path.
    for text in ["word ".repeat(2000), "w".repeat(5000), "either/or".repeat(1000)] {
        let both = embed(&folder, &["--truncate", "right", &text, "--text", &text]).lines();
        assert_eq!(values(&both[0]), values(&both[1]));
    }
    // Standard input by its name: a file is read, a pipe is named.
    if cfg!(target_os = "linux") {
        let open = fs::File::open(at(OsStr::new("-x.txt"))).unwrap();
        let found = command(&folder).arg("/dev/stdin").stdin(open).output().unwrap();
        let line: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(values(&line), right);
        let mut child =
            command(&folder).arg("/dev/stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"words").unwrap();
        let line: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(fault(&line).0, "not_a_file");
    }
}
