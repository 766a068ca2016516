//! `index`, `search` and `get` as their users run them, with the model that ships.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::small;
use crate::support::{Run, copy_folder, golden, omniburn, run};

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

    for search in searches.iter().filter(|search| search["text"].is_string()) {
        let found = user.names(&[search["text"].as_str().unwrap(), "-n", "3", "--no-refresh"]);
        assert!(expected(search).contains(&found[0]), "{}: {found:?}", search["text"]);
    }
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
        (vec!["index", "files", "--watch"], 2, "--watch"),
        (vec!["index", "export"], 2, "export"),
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
fn two_processes_at_once_make_one_whole_index() {
    let user = User::with_samples();
    let start =
        || user.command(&["index", "files", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children = [start(), start()];
    let reports: Vec<Value> = children
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .into();
    let new: u64 = reports.iter().map(|report| report["new"].as_u64().unwrap()).sum();
    assert_eq!(new, 69);
    assert_eq!(
        user.json(&["index", "status", "--json", "--verify"])["files"],
        json!({"text": 8, "image": 43, "audio": 12, "video": 6})
    );
}

/// What an index holds, whatever the order in which it came: files with their chunks' places and cosines to a query.
fn contents(user: &User) -> (Value, BTreeSet<String>) {
    let mut status = user.json(&["index", "status", "--json", "--verify"]);
    for changing in ["bytes", "updated"] {
        status.as_object_mut().unwrap().remove(changing);
    }
    let mut all = BTreeSet::new();
    for query in ["a ship under sail", "music"] {
        for hit in user.hits(&[query, "-n", "1000", "--per-file", "all", "--no-refresh"]) {
            all.insert(format!("{query} {} {} {} {}", hit["path"], hit["locator"], hit["scores"], hit["snippet"]));
        }
    }
    (status, all)
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_an_index_is_whole_and_the_next_run_completes_it() {
    let user = User::with_samples();
    let begun = Instant::now();
    user.json(&["index", "files", "--json"]);
    let took = begun.elapsed();
    let undisturbed = contents(&user);
    let data = user.folder.path().join("data");
    let mut random = 0x9E37_79B9u64;
    let mut killed = 0;
    for round in 0..4 {
        fs::remove_dir_all(&data).unwrap();
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (random >> 11) as f64 / (1u64 << 53) as f64;
            let mut child = user
                .command(&["index", "files", "--json"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(took.mul_f64(share).max(Duration::from_millis(20)));
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
            // Whatever is there can be searched.
            if data.join("omniburn/indexes/default/index.db").exists() {
                user.hits(&["a ship under sail", "--no-refresh"]);
            }
        }
        user.json(&["index", "files", "--json"]);
        let found = contents(&user);
        assert_eq!(found.0, undisturbed.0, "round {round}");
        assert_eq!(found.1, undisturbed.1, "round {round}");
    }
    assert!(killed >= 6, "{killed}");
    let _ = golden();
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
