//! `index`, `search` and `get` as their users run them, with the model that ships.

use std::collections::BTreeSet;
use std::fs;
#[cfg(unix)]
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Child;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

#[cfg(feature = "parquet")]
use crate::support::run_with;
use crate::support::{Run, copy_folder, omniburn, run};
use crate::{small, with_record};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/samples")
}

/// A user with a folder of files and a data folder of their own.
struct User {
    folder: TempDir,
}

impl User {
    fn new() -> Self {
        let user = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(user.files()).unwrap();
        user
    }

    /// With a copy of the samples.
    fn with_samples() -> Self {
        let user = Self { folder: tempfile::tempdir().unwrap() };
        copy_folder(&samples(), &user.files());
        for extra in ["make.py", "LICENCES.md", "SHA256SUMS", "searches.json"] {
            fs::remove_file(user.files().join(extra)).unwrap();
        }
        user
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = omniburn();
        command.current_dir(&self.folder).env("XDG_DATA_HOME", self.folder.path().join("data")).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        run(&mut self.command(args))
    }

    /// One JSON object of standard output.
    fn json(&self, args: &[&str]) -> Value {
        let run = self.run(args);
        assert!(run.code < 2, "{args:?}: {}", run.stderr);
        run.lines().remove(0)
    }

    fn hits(&self, args: &[&str]) -> Vec<Value> {
        let run = self.run(&[&["search", "--json"], args].concat());
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.lines()
    }

    fn names(&self, args: &[&str]) -> Vec<String> {
        self.hits(args).iter().map(|hit| name(&hit["path"])).collect()
    }
}

fn name(path: &Value) -> String {
    Path::new(path.as_str().unwrap()).file_name().unwrap().to_string_lossy().into_owned()
}

/// Counts of a report.
fn counts(report: &Value) -> [u64; 5] {
    ["new", "changed", "unchanged", "removed", "renamed"].map(|key| report[key].as_u64().unwrap())
}

#[test]
fn a_folder_named_by_a_search_is_indexed_first_and_the_right_file_comes_first() {
    let user = User::with_samples();
    let searches: Vec<Value> = serde_json::from_slice(&fs::read(samples().join("searches.json")).unwrap()).unwrap();
    let expected = |search: &Value| -> Vec<String> {
        search["expect"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
    };
    // Without an index: two mistakes that are named, and then one command.
    let nothing = user.run(&["search", "a castle"]);
    assert_eq!(nothing.code, 2);
    assert!(nothing.stderr.contains("omniburn index FOLDER"), "{}", nothing.stderr);
    let first = user.hits(&["a drink for breakfast", "--in", "files", "--no-refresh"]);
    assert_eq!(name(&first[0]["path"]), "coffee.jpg");

    // Two files may be as near as the last bits of a type (bf16 here, f32 there): which of them is first may then differ.
    let mut second = Vec::new();
    for search in searches.iter().filter(|search| search["text"].is_string()) {
        let found = user.names(&[search["text"].as_str().unwrap(), "-n", "3", "--no-refresh"]);
        match found.iter().position(|found| expected(search).contains(found)) {
            Some(0) => {}
            Some(1) => second.push(search["text"].clone()),
            _ => panic!("{}: {found:?}", search["text"]),
        }
    }
    assert!(second.len() <= 1, "{second:?}");
    for search in searches.iter().filter(|search| search["file"].is_string()) {
        let file = user.files().join(search["file"].as_str().unwrap());
        let found = user.names(&["--like", file.to_str().unwrap(), "--kind", "image,video", "-n", "3", "--no-refresh"]);
        assert!(found.iter().any(|found| expected(search).contains(found)), "{}: {found:?}", search["file"]);
    }
    let status = user.json(&["index", "status", "--json"]);
    assert_eq!(status["files"], json!({"text": 8, "image": 43, "audio": 12, "video": 6}));
    assert_eq!(status["failed"], json!([]));
    assert_eq!(user.json(&["index", "--json"])["embedded"], 0);
}

#[test]
fn a_hit_has_what_was_promised_and_is_opened_by_its_id() {
    let user = User::with_samples();
    user.json(&["index", "files", "--json"]);
    let hit = user.hits(&["two eggs and flour in a bowl type:text"]).remove(0);
    let keys: Vec<&String> = hit.as_object().unwrap().keys().collect();
    let promised =
        ["rank", "score", "kind", "path", "uri", "locator", "title", "snippet", "mtime", "size", "id", "scores"];
    assert_eq!(keys.iter().map(|key| key.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(promised));
    assert_eq!((name(&hit["path"]).as_str(), &hit["rank"]), ("pancakes.txt", &json!(1)));
    assert!(hit["uri"].as_str().unwrap().starts_with("file:///") && hit["locator"]["line"].as_u64() >= Some(1));
    let id = hit["id"].as_str().unwrap();
    let text = fs::read_to_string(user.files().join("pancakes.txt")).unwrap();
    assert_eq!(user.run(&["get", id]).stdout.trim_end(), text.trim_end());
    let line = user.run(&["get", &format!("{id}:line=1")]).stdout;
    assert_eq!(line.trim_end(), text.lines().next().unwrap().trim_end());
    assert_eq!(user.run(&["get", &format!("{id}:page=1")]).code, 1);
    for wrong in [format!("{id}:row=1"), "ffffffffffffffff".into()] {
        assert_eq!(user.run(&["get", &wrong]).code, 2, "{wrong}");
    }
    // A file that is no text goes to a file as it is.
    let cat = user.hits(&["cat", "--kind", "image", "--mode", "words"]).remove(0);
    let out = user.folder.path().join("out.jpg");
    assert_eq!(user.run(&["get", cat["id"].as_str().unwrap(), "--out", out.to_str().unwrap()]).code, 0);
    assert_eq!(fs::read(out).unwrap(), fs::read(user.files().join("cat.jpg")).unwrap());
    let spoken = user.hits(&["--like", "files/speech-show-me-a-castle.wav", "type:audio"]).remove(0);
    assert_eq!(spoken["locator"]["start_s"], 0.0);
    // For people and for pipes.
    let plain = user.run(&["search", "pancakes", "--mode", "words", "--explain"]).stdout;
    assert!(plain.contains("pancakes.txt:") && plain.contains("by words #1") && !plain.contains('\x1b'), "{plain}");
    let paths = user.run(&["search", "cat", "--mode", "words", "--files", "-0"]).stdout;
    assert!(paths.split_terminator('\0').all(|path| Path::new(path).is_file()), "{paths:?}");
}

#[test]
fn renamed_copied_changed_and_removed_files_are_followed() {
    let user = User::new();
    let file = |name: &str| user.files().join(name);
    fs::copy(samples().join("cat.jpg"), file("cat.jpg")).unwrap();
    fs::write(file("note.txt"), "The bicycle shop repaired the brakes.").unwrap();
    fs::write(file("tool.bin"), [0, 1, 2, 3, 0, 255]).unwrap();
    fs::write(file("broken.png"), "no image").unwrap();
    let first = user.run(&["index", "files", "--json"]);
    assert_eq!(first.code, 1, "a broken file was read");
    assert!(first.stderr.contains("broken.png"), "{}", first.stderr);
    let report = &first.lines()[0];
    assert_eq!((counts(report), &report["passed_over"]), ([2, 0, 0, 0, 0], &json!(1)));
    assert_eq!(name(&report["failed"][0]["path"]), "broken.png");
    fs::remove_file(file("broken.png")).unwrap();

    fs::rename(file("cat.jpg"), file("pet.jpg")).unwrap();
    fs::create_dir(file("copies")).unwrap();
    fs::copy(file("pet.jpg"), file("copies/again.jpg")).unwrap();
    let report = user.json(&["index", "--json"]);
    assert_eq!((counts(&report), &report["embedded"]), ([1, 0, 1, 0, 1], &json!(0)));
    let found: BTreeSet<String> = user.names(&["a cat", "--kind", "image"]).into_iter().collect();
    assert_eq!(found, BTreeSet::from(["pet.jpg".into(), "again.jpg".into()]));

    fs::write(file("note.txt"), "A recipe for rhubarb cake.").unwrap();
    fs::remove_dir_all(file("copies")).unwrap();
    // A search brings the index up to date by itself.
    assert_eq!(user.names(&["rhubarb", "--mode", "words"]), ["note.txt"]);
    assert_eq!(user.names(&["a cat", "--kind", "image"]), ["pet.jpg"]);
    let text = user.run(&["index"]).stdout;
    assert!(text.starts_with("0 new, 0 changed, 2 unchanged, 0 removed, 0 renamed, 0 failed, 1 passed over"), "{text}");
    assert_eq!(user.run(&["index", "remove", "files"]).stdout.split(' ').next(), Some("3"));
    assert_eq!(user.run(&["index", "remove", "files"]).code, 2);
    assert_eq!(user.run(&["index", "clean"]).code, 0);
    assert_eq!(user.json(&["index", "status", "--json", "--verify"])["vectors"], 0);
}

#[test]
fn documents_of_offices_are_found_with_their_places() {
    let user = User::new();
    fs::write(user.files().join("letter.rtf"), r"{\rtf1\ansi Dear aunt, the caf\'e9 is closed.\par Yours}").unwrap();
    fs::write(
        user.files().join("mail.eml"),
        "From: a@example.org\r\nSubject: The invoice\r\n\r\nPlease pay the violin teacher.\r\n",
    )
    .unwrap();
    fs::write(
        user.files().join("page.html"),
        "<title>Gardens</title><p>How to prune roses.</p><script>alert(1)</script>",
    )
    .unwrap();
    fs::write(user.files().join("latin.txt"), b"Gr\xfc\xdfe aus M\xfcnchen").unwrap();
    fs::write(user.files().join("code.rs"), "fn main() {\n    let answer = compute_answer();\n}\n").unwrap();
    assert_eq!(counts(&user.json(&["index", "files", "--json"])), [5, 0, 0, 0, 0]);
    for (query, file, kind) in [
        ("cafe is closed", "letter.rtf", "document"),
        ("pay the violin teacher", "mail.eml", "mail"),
        ("prune roses", "page.html", "html"),
        ("Grüße aus München", "latin.txt", "text"),
        ("compute_answer", "code.rs", "code"),
    ] {
        let hit = user.hits(&[query, "--no-refresh"]).remove(0);
        assert_eq!((name(&hit["path"]).as_str(), hit["kind"].as_str().unwrap()), (file, kind), "{query}");
    }
    let hit = user.hits(&["compute_answer", "--mode", "words", "--no-refresh"]).remove(0);
    assert_eq!(hit["locator"], json!({"line": 2}));
    assert!(user.names(&["alert", "--mode", "words", "--no-refresh"]).is_empty());
}

#[test]
fn mistakes_are_named_with_the_exit_code_of_their_kind() {
    let user = User::new();
    fs::write(user.files().join("a.txt"), "Something to find").unwrap();
    user.json(&["index", "files", "--json"]);
    for (args, code, says) in [
        (vec!["search", "type:picture x"], 2, "picture"),
        (vec!["search", "an \"open phrase"], 2, "never closed"),
        (vec!["search", "type:text"], 2, "which files, and not what to search for"),
        (vec!["search"], 2, "nothing to search for"),
        (vec!["search", "x", "--in", "nowhere"], 2, "nowhere"),
        (vec!["search", "x", "--kind", "film"], 2, "film"),
        (vec!["search", "x", "--after", "yesterday"], 2, "yesterday"),
        (vec!["search", "x", "--min-score", "2"], 2, "min-score"),
        (vec!["search", "x", "--like", "files/a.txt"], 2, "--like"),
        (vec!["search", "x", "--rerank"], 2, "--rerank"),
        (vec!["index", "files", "--watch", "--dry-run"], 2, "--dry-run"),
        #[cfg(not(feature = "parquet"))]
        (vec!["index", "export", "--format", "parquet"], 2, "--features parquet"),
        (vec!["index", "export", "--format", "csv"], 2, "csv"),
        (vec!["index", "import", "nowhere.jsonl", "--index", "./copy"], 2, "nowhere.jsonl"),
        (vec!["index", "import", "files/a.txt"], 2, "an index is there already"),
        (vec!["index", "import", "files/a.txt", "--index", "./copy"], 3, "line 1 of the export"),
        (vec!["index", "files/a.txt"], 2, "not a folder"),
        (vec!["index", "--kind", "text"], 2, "name one"),
        (vec!["index", "files", "--include", "a{b"], 2, "a{b"),
        (vec!["search", "x", "--index", "./nothing"], 2, "nothing is indexed yet"),
    ] {
        let run = user.run(&args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
    }
    let none = user.run(&["search", "zebra", "--mode", "words"]);
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.trim()), (0, "", "nothing found"));
    // Another model: refused with both named.
    let record = small();
    let other = user.run(&["search", "x", "--model", record.path().join("record").to_str().unwrap()]);
    assert_eq!(other.code, 3, "{}", other.stderr);
    assert!(other.stderr.contains("omniburn-mini") && other.stderr.contains("--index"), "{}", other.stderr);
    // Damage and foreign files.
    let database = user.folder.path().join("data/omniburn/indexes/default/index.db");
    let bytes = fs::read(&database).unwrap();
    for damaged in [
        &b"SQLite format 3\0 and then nothing more of it, although a header has a hundred bytes"[..],
        &bytes[..bytes.len() / 2],
    ] {
        fs::write(&database, damaged).unwrap();
        for rest in ["index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(database.with_file_name(rest));
        }
        let run = user.run(&["search", "something", "--no-refresh"]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("damaged"), "{}", run.stderr);
    }
}

#[test]
fn a_reranker_reads_the_best_hits_again_and_its_scores_are_shown() {
    let user = User::new();
    let texts = [
        ("bear.txt", "The giant panda is a bear of China."),
        ("shop.txt", "The bicycle shop repaired the brakes."),
        ("cake.txt", "A recipe for rhubarb cake with a bear on it."),
    ];
    texts.iter().for_each(|(name, text)| fs::write(user.files().join(name), text).unwrap());
    fs::copy(samples().join("cat.jpg"), user.files().join("cat.jpg")).unwrap();
    user.json(&["index", "files", "--json"]);
    let query = "what is a panda?";
    let search = |args: &[&str]| user.run(&[&["search", query, "--no-refresh"], args].concat());
    let refused = |args: &[&str], says: &[&str]| {
        let run = user.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}: {}", run.stderr);
        assert!(says.iter().all(|says| run.stderr.contains(says)), "{args:?}: {}", run.stderr);
    };
    refused(&["search", query, "--rerank"], &["--rerank MODEL", "omniburn pull"]);

    let records = user.folder.path().join("data/omniburn/records/tests");
    let record = |name: &str| {
        let made = with_record(name, &["--dtype", "f32"]);
        copy_folder(&made.path().join("record"), &records.join(name));
        records.join(name).to_str().unwrap().to_string()
    };
    let vectors = record("bert-tiny");
    refused(&["search", query, "--rerank", &vectors], &["bert-tiny", "gives no scores"]);
    let reranker = record("bge-reranker-tiny");
    // The only one that is there: its scores, as the verb of rerankers gives them.
    let mut expected: Vec<(String, f64)> = Vec::new();
    for line in run(omniburn().args(["rerank", "--model", &reranker, query]).args(texts.map(|(_, text)| text))).lines()
    {
        let name = texts[line["index"].as_u64().unwrap() as usize].0;
        expected.push((name.into(), line["score"].as_f64().unwrap()));
    }
    let hits = search(&["--rerank", "--json"]).lines();
    let found: Vec<(String, f64)> =
        hits[..3].iter().map(|hit| (name(&hit["path"]), hit["score"].as_f64().unwrap())).collect();
    assert_eq!(found, expected);
    assert!(hits[..3].iter().all(|hit| hit["scores"]["rerank"] == hit["score"]));
    // What it does not read stands behind, and keeps the score of the search.
    assert_eq!((hits.len(), name(&hits[3]["path"]).as_str()), (4, "cat.jpg"));
    let before = search(&["--json"]).lines();
    let cat = before.iter().find(|hit| name(&hit["path"]) == "cat.jpg").unwrap();
    assert_eq!((&hits[3]["score"], &hits[3]["scores"]), (&cat["score"], &cat["scores"]));
    let explained = search(&["--rerank", "--explain"]).stdout;
    assert!(explained.contains("    reranked 0.") && explained.contains("not reranked (an image, and"), "{explained}");
    assert_eq!(search(&["--rerank", "tests/bge-reranker-tiny", "--json", "-n", "2"]).lines(), hits[..2]);

    let of_images = record("qwen3-vl-rerank-tiny");
    refused(&["search", query, "--rerank"], &["several rerankers", "bge-reranker-tiny", "qwen3-vl-rerank-tiny"]);
    refused(&["search", "--rerank", query], &["the query comes before it"]);
    refused(&["search", "--like", "files/cat.jpg", "--rerank"], &["--like"]);
    refused(&["search", query, "--rerank", "nowhere"], &["nowhere"]);
    let hits = search(&["--rerank", &of_images, "--json"]).lines();
    assert!(hits.len() == 4 && hits.iter().all(|hit| hit["scores"]["rerank"].is_number()), "{hits:?}");
    let scores: Vec<f64> = hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn two_processes_at_once_make_one_whole_index() {
    let user = User::with_samples();
    let start =
        || user.command(&["index", "files", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    // On a busy machine the first one may take longer than the second one waits, which says so then.
    let (done, waited): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    for output in &waited {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(done.len() == 1 && said.contains("is at work on this index; wait for it, or stop it"), "{said}");
    }
    let reports: Vec<Value> = done.iter().map(|output| serde_json::from_slice(&output.stdout).unwrap()).collect();
    let new: u64 = reports.iter().map(|report| report["new"].as_u64().unwrap()).sum();
    assert_eq!(new, 69);
    assert_eq!(
        user.json(&["index", "status", "--json", "--verify"])["files"],
        json!({"text": 8, "image": 43, "audio": 12, "video": 6})
    );
}

/// What an index holds, whatever the order in which it came and the time at which it was looked at: every row.
fn rows(user: &User, index: &[&str]) -> BTreeSet<String> {
    let export = user.run(&[&["index", "export"], index].concat());
    assert_eq!(export.code, 0, "{}", export.stderr);
    let status = user.json(&[&["index", "status", "--verify", "--json"], index].concat());
    let lines = export.lines();
    let mut contents = 0;
    let mut rows = BTreeSet::new();
    for mut line in lines {
        for (what, keys) in [("file", &["seen_ns"][..]), ("index", &["updated_ns"])] {
            if let Some(fields) = line.get_mut(what).and_then(Value::as_object_mut) {
                keys.iter().for_each(|key| drop(fields.remove(*key)));
            }
        }
        contents += line.pointer("/content/chunks").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        assert!(rows.insert(line.to_string()), "{line}");
    }
    assert_eq!((status["chunks"].as_u64(), status["vectors"].as_u64()), (Some(contents), Some(contents)));
    rows
}

/// Panics with what is in one of two sets alone.
#[cfg(unix)]
fn same(found: &BTreeSet<String>, expected: &BTreeSet<String>, when: &str) {
    let cut = |line: &String| line.chars().take(400).collect::<String>();
    let odd: Vec<String> = found.symmetric_difference(expected).map(cut).collect();
    assert!(odd.is_empty(), "{when}: {odd:#?}");
}

/// What a search by words finds, whatever the order.
fn found_by_words(user: &User) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for query in ["a ship under sail", "music", "the", "number"] {
        for hit in user.hits(&[query, "--mode", "words", "-n", "1000", "--per-file", "all", "--no-refresh"]) {
            all.insert(format!("{query} {} {} {}", hit["path"], hit["locator"], hit["snippet"]));
        }
    }
    all
}

/// Numbers that look random and are the same in every run.
#[cfg(unix)]
struct Numbers(u64);

#[cfg(unix)]
impl Numbers {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Kills of each of the tests below; `cargo xtask soak` sets another number.
#[cfg(unix)]
fn kills(otherwise: usize) -> usize {
    match std::env::var("OMNIBURN_KILLS") {
        Ok(number) => number.parse().expect("OMNIBURN_KILLS is a number"),
        Err(_) => otherwise,
    }
}

/// Ends a process by a signal; true where it had not ended before.
#[cfg(unix)]
fn end(mut child: Child, signal: &str) -> bool {
    let signalled = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    // Asked to stop, it stops in order, unless it has not come to where it listens.
    let by_the_signal = std::os::unix::process::ExitStatusExt::signal(&status).is_some();
    assert!(signal == "-KILL" || by_the_signal || matches!(status.code(), Some(0 | 130)), "{status}");
    signalled.success() && !status.success()
}

#[cfg(unix)]
mod kills {
    use super::*;

    #[test]
    fn ended_at_any_moment_an_index_is_whole_and_the_next_run_makes_it_equal_to_an_undisturbed_one() {
        let user = User::with_samples();
        let begun = Instant::now();
        user.json(&["index", "files", "--json"]);
        let took = begun.elapsed();
        let (undisturbed, words) = (rows(&user, &[]), found_by_words(&user));
        assert!(undisturbed.len() > 130 && words.len() > 10, "{} {}", undisturbed.len(), words.len());
        let data = user.folder.path().join("data");
        let mut numbers = Numbers(0x9E37_79B9);
        let (kills, mut ended) = (kills(12), 0);
        for at in 0..kills {
            let child = user.command(&["index", "files", "--json"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            // Whoever measures and whoever kills may be on a busy machine at other times.
            std::thread::sleep(took.mul_f64(0.6 * numbers.share()).max(Duration::from_millis(20)));
            ended += usize::from(end(child.unwrap(), if at % 4 == 3 { "-TERM" } else { "-KILL" }));
            // Whatever is there can be searched.
            if data.join("omniburn/indexes/default/index.db").exists() {
                user.hits(&["a ship under sail", "--no-refresh"]);
            }
            if at % 3 == 2 || at + 1 == kills {
                println!("{} of {kills} kills", at + 1);
                user.json(&["index", "files", "--json"]);
                same(&rows(&user, &[]), &undisturbed, &format!("after kill {at}"));
                same(&found_by_words(&user), &words, &format!("after kill {at}"));
                fs::remove_dir_all(&data).unwrap();
            }
        }
        assert!(ended * 3 >= kills, "{ended} of {kills}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_with_room_the_next_run_makes_the_index_equal_to_an_undisturbed_one() {
        let Some(flags) = crate::exhaustion::own_mounts() else { return };
        let user = User::new();
        for file in 0..120 {
            let text = format!("Letter number {file} about the lighthouse. ").repeat(1 + file % 5);
            fs::write(user.files().join(format!("{file}.txt")), text).unwrap();
        }
        assert_eq!(user.run(&["index", "files", "--index", "whole"]).code, 0);
        let whole = rows(&user, &["--index", "whole"]);
        // The mount is seen by the shell and its children only, so what is there afterwards is copied out of it.
        const SCRIPT: &str = "set -e; mount -t tmpfs -o size=\"$1\" none disk; code=0; \
             \"$2\" index files --index disk/index 2>said >/dev/null || code=$?; \
             rm -rf after; mkdir after; cp -r disk/. after/; echo $code";
        fs::create_dir(user.folder.path().join("disk")).unwrap();
        let (mut refused, mut done) = (0, 0);
        for kib in [16, 150, 250, 350, 64 << 10] {
            let mut shell = Command::new("unshare");
            let program = user.command(&[]).get_program().to_owned();
            shell.envs(user.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell.current_dir(user.folder.path()).args(flags);
            shell.args(["sh", "-c", SCRIPT, "sh", &format!("{kib}k")]).arg(program);
            let ran = shell.output().unwrap();
            assert!(ran.status.success(), "{kib}: {}", String::from_utf8_lossy(&ran.stderr));
            let said = fs::read_to_string(user.folder.path().join("said")).unwrap();
            let code = String::from_utf8(ran.stdout).unwrap();
            if code.trim() == "0" {
                done += 1;
            } else {
                refused += 1;
                let cause =
                    ["database or disk is full", "No space left on device"].iter().any(|why| said.contains(why));
                assert!(code.trim() == "1" && cause && said.contains("disk/index"), "{kib}: {code} {said}");
            }
            // What is there is whole, and the rest comes.
            let next = user.run(&["index", "files", "--index", "after/index"]);
            assert_eq!(next.code, 0, "{kib}: {}", next.stderr);
            same(&rows(&user, &["--index", "after/index"]), &whole, &format!("{kib} KiB, {said}"));
        }
        assert!(refused > 1 && done > 0, "{refused} refused, {done} done");
    }

    #[test]
    fn ended_while_it_watches_an_index_is_whole_and_the_next_run_makes_it_equal_to_an_undisturbed_one() {
        let user = User::new();
        let (mut numbers, mut made) = (Numbers(77), 0);
        let change = |numbers: &mut Numbers, made: &mut usize| {
            let there: Vec<PathBuf> = fs::read_dir(user.files()).unwrap().map(|entry| entry.unwrap().path()).collect();
            let pick = |share: f64| there.get((share * there.len() as f64) as usize);
            *made += 1;
            match (numbers.share(), pick(numbers.share())) {
                (0.0..0.2, Some(path)) => fs::remove_file(path).unwrap(),
                (0.2..0.4, Some(path)) => fs::rename(path, user.files().join(format!("moved{made}.txt"))).unwrap(),
                (0.4..0.6, Some(path)) => fs::write(path, format!("Changed text number {made} of a ship")).unwrap(),
                (0.6..0.7, Some(path)) => {
                    fs::copy(path, user.files().join(format!("copy{made}.txt"))).map(drop).unwrap();
                }
                _ => {
                    let text = format!("File number {made} is about the sea.\n").repeat(1 + *made % 40);
                    fs::write(user.files().join(format!("new{made}.txt")), text).unwrap();
                }
            }
        };
        (0..30).for_each(|_| change(&mut numbers, &mut made));
        let kills = kills(10);
        for at in 0..kills {
            let child = user
                .command(&["index", "files", "--watch", "--quiet"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let until = Instant::now() + Duration::from_millis(400 + (2200.0 * numbers.share()) as u64);
            while Instant::now() < until {
                change(&mut numbers, &mut made);
                std::thread::sleep(Duration::from_millis((250.0 * numbers.share()) as u64));
            }
            assert!(end(child, if at % 3 == 2 { "-TERM" } else { "-KILL" }), "it had ended before");
        }
        user.run(&["index", "files", "--json"]);
        assert_eq!(user.run(&["index", "files", "--json", "--index", "fresh"]).code, 0);
        same(&rows(&user, &[]), &rows(&user, &["--index", "fresh"]), "in the end");
        assert!(made > 60, "{made}");
    }
}

/// A process that watches, and the lines that it prints.
#[cfg(unix)]
struct Watching {
    child: Child,
    lines: std::sync::mpsc::Receiver<Value>,
}

#[cfg(unix)]
impl Watching {
    fn start(user: &User, args: &[&str]) -> Self {
        let args = [&["index", "--watch", "--json"], args].concat();
        let mut child = user.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next report.
    fn next(&self) -> Value {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("an update is reported")
    }
}

#[cfg(unix)]
#[test]
fn what_changes_while_it_watches_is_followed_until_the_index_goes() {
    let user = User::new();
    let file = |name: &str| user.files().join(name);
    fs::write(file("note.txt"), "The bicycle shop repaired the brakes.").unwrap();
    fs::create_dir(file("node_modules")).unwrap();
    let mut watching = Watching::start(&user, &["files"]);
    assert_eq!(counts(&watching.next()), [1, 0, 0, 0, 0]);
    let names = |query: &str| user.names(&[query, "--mode", "words", "--no-refresh"]);

    fs::create_dir_all(file("a/b")).unwrap();
    for i in 0..20 {
        fs::write(file(&format!("a/b/{i}.txt")), format!("Letter number {i} to the lighthouse")).unwrap();
    }
    // What comes together is one update.
    assert_eq!(counts(&watching.next()), [20, 0, 1, 0, 0]);
    assert_eq!(names("lighthouse").len(), 10);
    // What is left out makes none; the next one is of the renamed file.
    fs::write(file("node_modules/x.js"), "let x;").unwrap();
    std::thread::sleep(Duration::from_millis(700));
    fs::rename(file("note.txt"), file("renamed.txt")).unwrap();
    assert_eq!(counts(&watching.next()), [0, 0, 20, 0, 1]);
    assert_eq!(names("bicycle"), ["renamed.txt"]);
    fs::write(file("renamed.txt"), "Rhubarb cake with ginger and cream").unwrap();
    assert_eq!(counts(&watching.next()), [0, 1, 20, 0, 0]);
    assert_eq!((names("rhubarb"), names("bicycle")), (vec!["renamed.txt".into()], Vec::<String>::new()));
    fs::remove_dir_all(file("a")).unwrap();
    assert_eq!(counts(&watching.next()), [0, 0, 1, 20, 0]);
    // A search meanwhile is no trouble to either.
    assert_eq!(user.names(&["rhubarb", "--mode", "words"]), ["renamed.txt"]);

    // The index is deleted: what would be written is lost, so it says so and ends.
    fs::remove_dir_all(user.folder.path().join("data/omniburn/indexes/default")).unwrap();
    let status = watching.child.wait().unwrap();
    let mut said = String::new();
    watching.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("deleted or replaced"), "{said}");
    // Interrupted, it ends with the code of that.
    let watching = Watching::start(&user, &["files"]);
    assert_eq!(counts(&watching.next()), [1, 0, 0, 0, 0]);
    assert!(end(watching.child, "-INT"));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let user = User::new();
    let file = |name: &str| user.files().join(name);
    fs::write(file("note.txt"), "The bicycle shop repaired the brakes.").unwrap();
    fs::write(file("code.rs"), "fn main() {}").unwrap();
    fs::write(file("tool.bin"), [0, 1, 2, 3, 0, 255]).unwrap();
    let data = user.folder.path().join("data");
    let plan = user.json(&["index", "files", "--dry-run", "--json"]);
    let named = |plan: &Value, key: &str| -> Vec<String> { plan[key].as_array().unwrap().iter().map(name).collect() };
    assert_eq!((named(&plan, "new"), &plan["passed_over"]), (vec!["code.rs".into(), "note.txt".into()], &json!(1)));
    assert!(!data.exists(), "nothing is written");
    user.json(&["index", "files", "--json"]);
    let before = rows(&user, &[]);

    std::thread::sleep(Duration::from_millis(20));
    fs::write(file("note.txt"), "A recipe for rhubarb cake.").unwrap();
    fs::rename(file("code.rs"), file("main.rs")).unwrap();
    let plan = user.json(&["index", "--dry-run", "--json"]);
    assert_eq!(["new", "changed", "removed"].map(|key| named(&plan, key)), [["main.rs"], ["note.txt"], ["code.rs"]]);
    let text = user.run(&["index", "--dry-run"]).stdout;
    assert!(text.contains("changed  ") && text.contains("1 new, 1 changed, 0 unchanged, 1 removed"), "{text}");
    // Under other rules than it keeps.
    let plan = user.json(&["index", "files", "--kind", "text", "--dry-run", "--json"]);
    assert_eq!(["new", "changed", "removed"].map(|key| named(&plan, key).len()), [0, 1, 1]);
    assert_eq!(rows(&user, &[]), before);
    // What it said is what is done, a renamed file reported as renamed.
    assert_eq!(counts(&user.json(&["index", "--json"])), [0, 1, 0, 0, 1]);
}

#[test]
fn an_export_makes_an_equal_index() {
    let user = User::with_samples();
    fs::write(user.files().join("broken.png"), "no image").unwrap();
    // A file that was just written is read again, whatever came of it.
    let broken = fs::File::options().write(true).open(user.files().join("broken.png")).unwrap();
    broken.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    fs::write(user.files().join("tool.bin"), [0, 1, 2, 3, 0, 255]).unwrap();
    fs::copy(user.files().join("cat.jpg"), user.files().join("again.jpg")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let odd = user.files().join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
        fs::write(odd, "An odd name of a file").unwrap();
    }
    assert_eq!(user.run(&["index", "files"]).code, 1);
    assert_eq!(user.run(&["index", "export", "--out", "all.jsonl"]).code, 0);
    let imported = user.run(&["index", "import", "all.jsonl", "--index", "copy"]);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert_eq!(user.run(&["index", "export", "--index", "copy", "--out", "again.jsonl"]).code, 0);
    let lines = |name: &str| fs::read_to_string(user.folder.path().join(name)).unwrap();
    assert_eq!(lines("all.jsonl"), lines("again.jsonl"));
    for query in [vec!["a castle"], vec!["boat", "--mode", "words"], vec!["--like", "files/cat.jpg"]] {
        let hits =
            |index: &str| user.run(&[&["search", "--json", "--no-refresh", "--index", index], &query[..]].concat());
        let (one, other) = (hits("default"), hits("copy"));
        assert!(!one.stdout.is_empty() && one.stdout == other.stdout, "{query:?}");
    }
    // Nothing is read again, and nothing was lost.
    let report = user.run(&["index", "--index", "copy", "--json"]).lines().remove(0);
    assert_eq!((&report["embedded"], &report["failed"][0]["kind"]), (&json!(0), &json!("unknown_format")));
    // Damaged in the middle: refused by the line, and nothing is left.
    let whole = lines("all.jsonl");
    let damaged: Vec<String> = whole.lines().map(|line| line.replacen("\"vector\":[", "\"vector\":[7,", 1)).collect();
    fs::write(user.folder.path().join("bad.jsonl"), damaged.join("\n") + "\n").unwrap();
    for (file, says) in [("bad.jsonl", "vector of 385 values"), ("all.jsonl", "already")] {
        let index = if file == "bad.jsonl" { "broken" } else { "copy" };
        let refused = user.run(&["index", "import", file, "--index", index]);
        assert!(refused.code > 1 && refused.stderr.contains(says), "{}", refused.stderr);
    }
    assert!(!user.folder.path().join("data/omniburn/indexes/broken").exists());
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_export_makes_an_equal_index_and_is_recognised_by_its_first_bytes() {
    let user = User::with_samples();
    fs::write(user.files().join("broken.png"), "no image").unwrap();
    assert_eq!(user.run(&["index", "files"]).code, 1);
    let export = |args: &[&str]| assert_eq!(user.run(&[&["index", "export"], args].concat()).code, 0);
    export(&["--format", "parquet", "--out", "all.bin"]);
    let imported = user.run(&["index", "import", "all.bin", "--index", "copy"]);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    export(&["--out", "one.jsonl"]);
    export(&["--index", "copy", "--out", "other.jsonl"]);
    let bytes = |name: &str| fs::read(user.folder.path().join(name)).unwrap();
    assert!(bytes("one.jsonl") == bytes("other.jsonl"));
    let whole = bytes("all.bin");
    fs::write(user.folder.path().join("cut.bin"), &whole[..whole.len() / 2]).unwrap();
    let refused = user.run(&["index", "import", "cut.bin", "--index", "broken"]);
    assert!(refused.code == 3 && refused.stderr.contains("the Parquet export"), "{}", refused.stderr);
    assert!(!user.folder.path().join("data/omniburn/indexes/broken").exists());
    let piped = run_with(&mut user.command(&["index", "import", "-", "--index", "broken"]), &whole);
    assert!(piped.code == 2 && piped.stderr.contains("name the file"), "{}", piped.stderr);
}

#[test]
fn parts_of_audio_and_video_come_as_files_of_their_own() {
    let user = User::with_samples();
    user.json(&["index", "files", "--json"]);
    let id = |name: &str, kind: &str| {
        let stem = name.split('.').next().unwrap().replace('-', " ");
        let hits = user.hits(&[&stem, "--kind", kind, "--mode", "words", "--no-refresh"]);
        let hit = hits.iter().find(|hit| hit["path"].as_str().unwrap().ends_with(name)).unwrap();
        hit["id"].as_str().unwrap().to_string()
    };
    let get = |what: String, out: &str| user.run(&["get", &what, "--out", out]);
    let bytes = |out: &str| fs::read(user.folder.path().join(out)).unwrap();
    let spoken = id("speech-show-me-a-castle.wav", "audio");
    assert_eq!(get(format!("{spoken}:t=0.5-1"), "part.wav").code, 0);
    let wav = bytes("part.wav");
    assert!(wav.starts_with(b"RIFF") && wav[8..16] == *b"WAVEfmt ");
    let rate = u32::from_le_bytes(wav[24..28].try_into().unwrap());
    assert_eq!(wav.len() as u32, 44 + rate, "half a second of two bytes a sample");
    let boat = id("boat-sailing.mp4", "video");
    assert_eq!(get(format!("{boat}:t=1"), "frame.png").code, 0);
    assert!(bytes("frame.png").starts_with(b"\x89PNG\r\n\x1a\n"));
    // Frame and seconds are inputs like any other.
    assert_eq!(user.run(&["compare", "a boat", "frame.png", "part.wav"]).code, 0);
    for (what, code) in
        [(format!("{boat}:t=900"), 1), (format!("{spoken}:t=900-901"), 1), (format!("{spoken}:line=1"), 1)]
    {
        let run = get(what.clone(), "none");
        assert_eq!(run.code, code, "{what}: {}", run.stderr);
    }
    assert!(!user.folder.path().join("none").exists());
}

/// A photograph says when it was taken, and that counts, whenever the file was written.
#[test]
fn photographs_are_of_the_time_at_which_they_were_taken() {
    let user = User::new();
    let jpeg = fs::read(samples().join("cat.jpg")).unwrap();
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0".to_vec();
    tiff.extend(b"\0\x01\x90\x03\0\x02\0\0\0\x14\0\0\0\x2c\0\0\0\x002011:07:30 12:00:00\0");
    let mut taken = jpeg[..2].to_vec();
    taken.extend(b"\xff\xe1");
    taken.extend((tiff.len() as u16 + 8).to_be_bytes());
    taken.extend(b"Exif\0\0");
    taken.extend(&tiff);
    taken.extend(&jpeg[2..]);
    fs::write(user.files().join("dated.jpg"), taken).unwrap();
    fs::write(user.files().join("undated.jpg"), &jpeg).unwrap();
    user.json(&["index", "files", "--json"]);
    let names = |flags: &[&str]| user.names(&[&["a cat", "--no-refresh"], flags].concat());
    assert_eq!(names(&["--before", "2012-01-01"]), ["dated.jpg"]);
    assert_eq!(names(&["--after", "2011-07-30", "--before", "2011-07-31"]), ["dated.jpg"]);
    assert_eq!(names(&["--after", "2012-01-01"]), ["undated.jpg"]);
}

/// A photograph that says where it was taken: shown by `get --about --place`, and by nothing else.
#[cfg(all(unix, feature = "serve"))]
#[test]
fn where_a_photograph_was_taken_is_shown_to_who_asks_for_it_alone() {
    let user = User::new();
    let jpeg = fs::read(samples().join("cat.jpg")).unwrap();
    // 53 degrees 30 minutes 17 seconds south, 9 degrees 36 seconds east.
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x88\x25\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\x04".to_vec();
    tiff.extend(b"\0\x01\0\x02\0\0\0\x02S\0\0\0\0\x02\0\x05\0\0\0\x03\0\0\0\x50");
    tiff.extend(b"\0\x03\0\x02\0\0\0\x02E\0\0\0\0\x04\0\x05\0\0\0\x03\0\0\0\x68\0\0\0\0");
    tiff.extend([53u32, 1, 30, 1, 17, 1, 9, 1, 0, 1, 36, 1].map(u32::to_be_bytes).concat());
    let mut taken = jpeg[..2].to_vec();
    taken.extend(b"\xff\xe1");
    taken.extend((tiff.len() as u16 + 8).to_be_bytes());
    taken.extend(b"Exif\0\0");
    taken.extend(&tiff);
    taken.extend(&jpeg[2..]);
    fs::write(user.files().join("cat.jpg"), taken).unwrap();
    user.json(&["index", "files", "--json"]);
    let id = user.hits(&["a cat", "--no-refresh"])[0]["id"].as_str().unwrap().to_string();
    let about = user.run(&["get", &id, "--about", "--place"]).lines().remove(0);
    let place = ["latitude", "longitude"].map(|key| about["place"][key].as_f64().unwrap());
    assert!((place[0] + 53.504_722_222).abs() < 1e-6 && (place[1] - 9.01).abs() < 1e-6, "{about}");
    assert!(user.run(&["index", "export"]).stdout.contains("\"coordinates\":[-53.5047"));
    let mut said = Vec::new();
    for args in [
        &["search", "a cat", "--json"][..],
        &["search", "a cat", "--explain"],
        &["search", "cat", "--mode", "words", "--per-file", "all", "--json"],
        &["search", "--like", "files/cat.jpg", "--json"],
        &["index", "status", "--json"],
        &["get", &id, "--about"],
    ] {
        let run = user.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        said.push(run.stdout);
    }
    let server = crate::serve::Server::start(user.folder.path(), &[]);
    for path in ["/v1/search?q=a+cat", "/v1/index", "/v1/map", "/", "/openapi.json"] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        said.push(reply.body);
    }
    let call = |id: u32, name: &str, arguments: Value| {
        let params = json!({"name": name, "arguments": arguments});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let client = json!({"name": "test", "version": "1"});
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let lines = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        call(2, "search", json!({"query": "a cat"})),
        call(3, "status", json!({})),
    ];
    let mut child =
        user.command(&["mcp"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    lines.iter().for_each(|line| std::io::Write::write_all(&mut input, format!("{line}\n").as_bytes()).unwrap());
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let told: Vec<String> = answers.by_ref().take(3).map(Result::unwrap).collect();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(told.iter().any(|line| line.contains("cat.jpg")), "{told:?}");
    said.extend(told);
    for text in said {
        assert!(!text.contains("53.5047") && !text.contains("latitude"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_stops_soon_and_keeps_what_was_finished() {
    let user = User::with_samples();
    let mut child = user.command(&["index", "files"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    let stopped = Instant::now();
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let status = child.wait().unwrap();
    // A run that was done before the signal has nothing to interrupt.
    assert!(matches!(status.code(), Some(130 | 0)), "{status}");
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    let report = user.json(&["index", "files", "--json"]);
    assert_eq!(report["new"].as_u64().unwrap() + report["unchanged"].as_u64().unwrap(), 69);
}
