//! Where results go: through links, into pipes and descriptors, over inputs, to read-only and full places, and under a kill.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Run, copy_folder, golden, media, omniburn, run, run_with};

/// A folder with the record of a small text model in `record`.
fn small() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/bert-tiny");
    assert_eq!(run(omniburn().arg("convert").arg(checkpoint).arg(folder.path().join("record"))).code, 0);
    folder
}

fn command(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = omniburn();
    command.current_dir(folder).args(["embed", "--model", "record", "--quiet"]).args(args);
    command
}

fn embed(folder: &TempDir, args: &[&str]) -> Run {
    run(&mut command(folder, args))
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// Says past the test harness, which keeps what a passing test prints to itself, that something was not tried.
fn not_run(why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {why}");
}

/// Refused as a usage mistake, with nothing said on standard output.
fn assert_refused(found: &Run, said: &str) {
    assert_eq!((found.code, found.stdout.as_str()), (2, ""), "{}", found.stderr);
    assert!(found.stderr.contains(said), "{said}: {}", found.stderr);
}

// ---- links, pipes and descriptors

#[test]
fn every_file_that_is_written_is_written_through_links_and_the_links_stay() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    let right = embed(&folder, &["a red bicycle"]).stdout;
    fs::create_dir(at("far")).unwrap();
    for (name, target) in [("link", "far/target"), ("chain", "link"), ("new", "far/fresh"), ("journal", "far/log")] {
        symlink(target, at(name)).unwrap();
    }
    for (link, target) in [("link", "far/target"), ("chain", "far/target"), ("new", "far/fresh")] {
        if link != "new" {
            fs::write(at(target), "old").unwrap();
            fs::set_permissions(at(target), fs::Permissions::from_mode(0o640)).unwrap();
        }
        let found = embed(&folder, &["a red bicycle", "--out", link, "--journal", "journal"]);
        assert_eq!((found.code, found.stdout.as_str()), (0, ""), "{link}: {}", found.stderr);
        assert_eq!(fs::read_to_string(at(target)).unwrap(), right, "{link}");
        assert!(at(link).is_symlink() && at("journal").is_symlink() && !at(target).is_symlink(), "{link}");
    }
    assert_eq!(fs::metadata(at("far/target")).unwrap().mode() & 0o777, 0o640);
    assert!(fs::read_to_string(at("far/log")).unwrap().contains("\"digest\""));
    let array = embed(&folder, &["a red bicycle", "--format", "npy", "--out", "link"]);
    assert!(array.code == 0 && at("link").is_symlink());
    assert_eq!(&fs::read(at("far/target")).unwrap()[..6], b"\x93NUMPY");
    // The record and the report of a conversion.
    symlink("far/record", at("out")).unwrap();
    symlink("far/report", at("said")).unwrap();
    let checkpoint = golden().join("checkpoints/bert-tiny");
    let convert = |dtype: &str, more: &[&str]| {
        let mut convert = omniburn();
        convert
            .current_dir(&folder)
            .arg("convert")
            .arg(&checkpoint)
            .args(["out", "--report", "said", "--dtype", dtype]);
        run(convert.args(more))
    };
    assert_eq!(convert("f32", &[]).code, 0);
    let digest = || fs::read(at("far/record/model.json")).unwrap();
    let first = digest();
    fs::set_permissions(at("far/record"), fs::Permissions::from_mode(0o750)).unwrap();
    assert_refused(&convert("bf16", &[]), "already exists");
    assert_eq!(convert("bf16", &["--force"]).code, 0);
    assert!(at("out").is_symlink() && at("said").is_symlink() && digest() != first);
    assert_eq!(fs::metadata(at("far/record")).unwrap().mode() & 0o777, 0o750);
    assert!(serde_json::from_slice::<Value>(&fs::read(at("far/report")).unwrap()).unwrap()["digest"].is_string());
    assert_eq!(names(&at("far")), ["fresh", "log", "record", "report", "target"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_link_to_an_open_descriptor_is_standard_output_or_that_file_and_is_never_replaced() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    let right = embed(&folder, &["a red bicycle"]).stdout;
    // Links of this folder's own: a mistake must not cost the machine its /dev/stdout.
    for fd in 1..4 {
        symlink(format!("/proc/self/fd/{fd}"), at(&format!("fd{fd}"))).unwrap();
    }
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.current_dir(&folder).env("OB", env!("CARGO_BIN_EXE_omniburn")).arg("-c").arg(script);
        run(&mut shell)
    };
    let ob = "\"$OB\" embed --model record --quiet 'a red bicycle'";
    // To a pipe, to a file that others write before and after, and to one that is only appended to.
    assert_eq!(shell(&format!("{ob} --out fd1 | cat")).stdout, right);
    assert_eq!(shell(&format!("{{ echo before; {ob} --out fd1; echo after; }} > mixed")).code, 0);
    assert_eq!(fs::read_to_string(at("mixed")).unwrap(), format!("before\n{right}after\n"));
    assert_eq!(shell(&format!("echo before > more; {ob} --out fd1 >> more")).code, 0);
    assert_eq!(fs::read_to_string(at("more")).unwrap(), format!("before\n{right}"));
    assert_eq!(shell(&format!("{ob} --out fd2 2> errors")).code, 0);
    assert_eq!(fs::read_to_string(at("errors")).unwrap(), right);
    assert_eq!(shell(&format!("exec 3> three; echo before >&3; {ob} --out fd3")).code, 0);
    assert_eq!(fs::read_to_string(at("three")).unwrap(), format!("before\n{right}"));
    // An array, whose beginning is written last, through a pipe.
    let found = shell(&format!("{ob} --format npy --out fd1 | head -c 6 | od -An -c"));
    assert_eq!(found.stdout.split_whitespace().skip(1).collect::<String>(), "NUMPY");
    assert_eq!(shell(&format!("{ob} --format npy --out o.npy; {ob} --format npy --out fd1 | cmp - o.npy")).code, 0);
    // A reader that has gone away is no mistake.
    assert_eq!(shell(&format!("{ob} --out fd1 | true")).stderr, "");
    // The report of a conversion is JSON alone then.
    let checkpoint = golden().join("checkpoints/bert-tiny");
    let convert = shell(&format!("\"$OB\" convert '{}' made --report fd1", checkpoint.display()));
    assert!(serde_json::from_str::<Value>(&convert.stdout).unwrap()["digest"].is_string(), "{}", convert.stdout);
    assert!(convert.stderr.contains("digest"), "{}", convert.stderr);
    assert!((1..4).all(|fd| at(&format!("fd{fd}")).is_symlink()));
}

#[test]
fn links_in_a_circle_folders_sockets_and_names_in_nothing_are_refused_by_name() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    symlink("record", at("to-folder")).unwrap();
    symlink("none/out", at("lost")).unwrap();
    fs::write(at("file"), "").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let before = names(folder.path());
    for (name, said) in [
        ("a", "a: a symbolic link in a circle"),
        ("to-folder", "to-folder: is a folder"),
        ("lost", "lost: its folder none is not there"),
        ("socket", "socket: is a socket"),
        ("none/out", "none/out: its folder none is not there"),
        ("file/out", "file/out: "),
        ("new/", "new/: is a folder"),
    ] {
        for option in ["--out", "--journal"] {
            assert_refused(&embed(&folder, &["a", option, name]), said);
        }
        let checkpoint = golden().join("checkpoints/bert-tiny");
        let mut convert = omniburn();
        convert.current_dir(&folder).arg("convert").arg(checkpoint).args(["made", "--report", name]);
        assert_refused(&run(&mut convert), said);
    }
    let checkpoint = golden().join("checkpoints/bert-tiny");
    assert_refused(&run(omniburn().current_dir(&folder).arg("convert").arg(checkpoint).arg("a")), "in a circle");
    assert_eq!(names(folder.path()), before);
}

// ---- an output that is an input

#[test]
fn an_output_that_is_an_input_is_refused_by_every_name_it_has_and_keeps_its_bytes() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("notes.txt"), "a red bicycle\n").unwrap();
    fs::copy(media("images/odd.png"), at("photo.png")).unwrap();
    symlink("notes.txt", at("soft.txt")).unwrap();
    fs::hard_link(at("notes.txt"), at("hard.txt")).unwrap();
    fs::write(at("items.jsonl"), "{\"text\":\"x\"}\n{\"video\":[\"none.png\",\"photo.png\"]}\n").unwrap();
    fs::write(at("sub/items.jsonl"), "{\"image\":\"../photo.png\"}\n").unwrap();
    let absolute = at("notes.txt");
    let absolute = absolute.to_str().unwrap();
    let kept: Vec<Vec<u8>> =
        ["notes.txt", "photo.png", "items.jsonl"].iter().map(|name| fs::read(at(name)).unwrap()).collect();
    let before = names(folder.path());
    let record = fs::read(at("record/model.json")).unwrap();
    let cases: &[&[&str]] = &[
        &["notes.txt", "--out", "notes.txt"],
        &["notes.txt", "--out", "./sub/../notes.txt"],
        &["notes.txt", "--out", absolute],
        &["notes.txt", "--out", "soft.txt"],
        &["soft.txt", "--out", "notes.txt"],
        &["notes.txt", "--out", "hard.txt"],
        &["notes.txt", "--journal", "notes.txt"],
        &["notes.txt", "--out", "new", "--journal", "hard.txt"],
        &["a text", "notes.txt", "--out", "notes.txt", "--format", "npy"],
        &["--image", "photo.png", "--out", "photo.png"],
        &["--audio", "photo.png", "--out", "photo.png"],
        &["--video", "photo.png", "--out", "photo.png"],
        &["--items", "items.jsonl", "--out", "items.jsonl"],
        &["--items", "items.jsonl", "--out", "photo.png"],
        &["--items", "sub/items.jsonl", "--out", "photo.png"],
        &["a text", "--out", "record/model.json"],
        &["a text", "--out", "record/new.jsonl"],
        &["a text", "--journal", "record/new.jsonl"],
        &["a text", "--out", "new", "--journal", "new"],
        &["a text", "--out", "new", "--journal", "./new"],
        &["a text", "--out", "notes.txt", "--journal", "soft.txt"],
    ];
    for args in cases {
        let found = embed(&folder, args);
        assert_eq!((found.code, found.stdout.as_str()), (2, ""), "{args:?}: {}", found.stderr);
        let last = args.iter().skip_while(|arg| !["--out", "--journal"].contains(arg)).nth(1).unwrap();
        assert!(found.stderr.contains(*last) || found.stderr.contains("name another"), "{args:?}: {}", found.stderr);
        assert_eq!(names(folder.path()), before, "{args:?}");
    }
    // A stream of items is known only as it comes; files of standard streams are files, too.
    let found =
        run_with(&mut command(&folder, &["--items", "-", "--out", "photo.png"]), b"{\"image\":\"photo.png\"}\n");
    assert_refused(&found, "photo.png: the file is read");
    let mut lines = command(&folder, &["--lines", "--out", "notes.txt"]);
    let lines = lines.stdin(fs::File::open(at("notes.txt")).unwrap()).output().unwrap();
    assert_eq!(lines.status.code(), Some(2));
    if cfg!(target_os = "linux") {
        let mut onto = command(&folder, &["notes.txt"]);
        let appended = fs::OpenOptions::new().append(true).open(at("notes.txt")).unwrap();
        let onto = onto.stdout(appended).output().unwrap();
        assert_eq!(onto.status.code(), Some(2), "{}", String::from_utf8_lossy(&onto.stderr));
    }
    for (name, content) in ["notes.txt", "photo.png", "items.jsonl"].iter().zip(&kept) {
        assert_eq!(&fs::read(at(name)).unwrap(), content, "{name}");
    }
    assert_eq!(fs::read(at("record/model.json")).unwrap(), record);
    assert_eq!(names(folder.path()), before);
    // What is there and is no input is replaced as ever.
    fs::write(at("old.jsonl"), "old").unwrap();
    assert_eq!(embed(&folder, &["notes.txt", "--items", "items.jsonl", "--out", "old.jsonl"]).code, 1);
    assert!(fs::read_to_string(at("old.jsonl")).unwrap().contains("embedding"));
}

#[test]
fn a_record_is_never_written_over_its_checkpoint_nor_over_what_is_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    copy_folder(&golden().join("checkpoints/bert-tiny"), &at("home/checkpoint"));
    symlink("checkpoint", at("home/soft")).unwrap();
    let convert = |args: &[&str]| run(omniburn().current_dir(&folder).arg("convert").args(args));
    fs::write(at("home/model.json"), "{\"format\": 1, \"files\": {}}").unwrap();
    for (args, said) in [
        (["home/checkpoint", "home/checkpoint", "--force"], "is the same folder as"),
        (["home/checkpoint", "home/soft", "--force"], "is the same folder as"),
        (["home/soft", "home/checkpoint", "--force"], "is the same folder as"),
        (["home/soft", "home", "--force"], "holds home/soft"),
        (["home/checkpoint", "home/checkpoint/..", "--force"], "holds"),
        (["home/checkpoint", ".", "--force"], "holds"),
        (["home/checkpoint", "home/checkpoint/adapters/new", "--force"], "lies in"),
    ] {
        assert_refused(&convert(&args), said);
    }
    // Whatever is in it: somebody's files, beside a header of somebody else or beside a whole record.
    fs::create_dir(at("documents")).unwrap();
    fs::write(at("documents/thesis.txt"), "years of work").unwrap();
    assert_refused(&convert(&["home/checkpoint", "documents", "--force"]), "thesis.txt");
    fs::write(at("documents/model.json"), "{\"modelTopology\": {}}").unwrap();
    assert_refused(&convert(&["home/checkpoint", "documents", "--force"]), "model.json is not a record's");
    fs::remove_file(at("documents/model.json")).unwrap();
    assert_eq!(convert(&["home/checkpoint", "record"]).code, 0);
    fs::write(at("record/notes.txt"), "years of notes").unwrap();
    assert_refused(&convert(&["home/checkpoint", "record", "--force"]), "notes.txt, which would be lost");
    fs::create_dir(at("record/sub")).unwrap();
    fs::remove_file(at("record/notes.txt")).unwrap();
    assert_refused(&convert(&["home/checkpoint", "record", "--force"]), "sub");
    fs::remove_dir(at("record/sub")).unwrap();
    // A damaged record is one.
    fs::write(at("record/model.json"), "{").unwrap();
    assert_eq!(convert(&["home/checkpoint", "record", "--force"]).code, 0);
    fs::write(at("plain"), "a file").unwrap();
    assert_refused(&convert(&["home/checkpoint", "plain"]), "already exists");
    assert_refused(&convert(&["home/checkpoint", "plain", "--force"]), "it is no folder");
    // The report over what is read, or in what is replaced.
    for report in ["home/checkpoint/config.json", "home/soft/config.json", "record/report.json", "record"] {
        let found = convert(&["home/checkpoint", "record", "--force", "--report", report]);
        assert_eq!((found.code, found.stdout.as_str()), (2, ""), "{report}: {}", found.stderr);
    }
    assert_eq!(fs::read_to_string(at("plain")).unwrap(), "a file");
    assert_eq!(names(&at("documents")), ["thesis.txt"]);
    assert_eq!(names(folder.path()), ["documents", "home", "plain", "record"]);
    let source = golden().join("checkpoints/bert-tiny");
    for name in names(&source).iter().filter(|name| source.join(name).is_file()) {
        let (ours, theirs) = (fs::read(at("home/checkpoint").join(name)), fs::read(source.join(name)));
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{name}");
    }
    // In a folder of its own beside the weights, as other converters put it.
    assert_eq!(convert(&["home/checkpoint", "home/checkpoint/record"]).code, 0);
}

// ---- places that cannot be written

/// Runs as somebody who is not root, so that permissions count; `None` where the program is out of that one's reach.
fn as_nobody(folder: &TempDir, args: &[&str]) -> Option<Run> {
    let mut command = command(folder, args);
    if is_root() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let mut try_it = omniburn();
        try_it.arg("--version").uid(65_534).gid(65_534).stdout(Stdio::null());
        if !try_it.status().is_ok_and(|status| status.success()) {
            not_run("permissions; the program lies where nobody but root may start it");
            return None;
        }
        command.uid(65_534).gid(65_534);
    }
    Some(run(&mut command))
}

#[test]
fn read_only_files_and_folders_are_refused_before_anything_is_read_and_stay() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("kept"), "kept").unwrap();
    fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o444)).unwrap();
    symlink("kept", at("link")).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/file"), "kept").unwrap();
    fs::set_permissions(at("closed/file"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    // Root, too, means a read-only file to stay.
    for name in ["kept", "link"] {
        assert_refused(&embed(&folder, &["a", "--out", name]), "read-only (mode 0444)");
    }
    for (name, said) in [("closed/new", "closed"), ("closed/file", "closed"), ("kept", "read-only")] {
        // It does not get to the model, which is not there.
        let Some(found) = as_nobody(&folder, &["a", "--out", name]) else { break };
        assert_refused(&found, said);
        assert!(found.stderr.contains(name), "{}", found.stderr);
    }
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");
    assert_eq!(
        (names(&at("closed")), fs::read_to_string(at("closed/file")).unwrap()),
        (vec!["file".into()], "kept".into())
    );
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// How this machine lets a test mount a file system of its own, if it does.
fn own_mounts() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["-m"], &["-r", "-m"]];
    let works = |flags: &&&[&str]| {
        let mut try_it = Command::new("unshare");
        try_it.args(**flags).args(["sh", "-c", "mount -t tmpfs none /mnt"]);
        try_it.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    WAYS.iter().find(works).copied()
}

#[test]
fn a_read_only_disk_a_full_one_and_a_file_mounted_of_its_own() {
    let Some(flags) = own_mounts() else {
        return not_run("disks; this machine lets nobody mount a file system (`unshare -m`, `unshare -rm`)");
    };
    let folder = small();
    fs::create_dir(folder.path().join("disk")).unwrap();
    // The mounts are seen by the shell and its children only.
    let script = |script: &str| {
        let mut shell = Command::new("unshare");
        shell.current_dir(&folder).args(flags).args(["sh", "-c", script]);
        shell.env("OB", env!("CARGO_BIN_EXE_omniburn"));
        run(&mut shell)
    };
    let ob = "\"$OB\" embed --model record --quiet";
    let found = script(&format!(
        "mount -t tmpfs none disk; echo old > disk/file; mount -o remount,ro disk; {ob} a --out disk/file; echo $?; \
         {ob} a --out disk/new; echo $?; {ob} a --journal disk/new; echo $?; cat disk/file; ls -A disk"
    ));
    assert_eq!(found.stdout, "2\n2\n2\nold\nfile\n", "{}", found.stderr);
    assert_eq!(found.stderr.matches("Read-only file system").count(), 3, "{}", found.stderr);
    // Room for the old file and some of the new one.
    for (format, file) in [("json", "file.jsonl"), ("npy", "file.npy")] {
        let found = script(&format!(
            "mount -t tmpfs -o size=32k none disk; echo old > disk/{file}; \
             for i in 1 2 3 4 5 6 7 8 9 10; do for j in 1 2 3 4 5 6 7 8 9 10; do for k in 1 2 3 4 5; do echo \"$i $j $k\"; \
             done; done; done > lines; {ob} --lines --format {format} --out disk/{file} < lines; echo $?; \
             {ob} --lines --out other --journal disk/journal < lines; echo $?; cat disk/{file}; ls -A disk"
        ));
        assert_eq!(found.stdout, format!("1\n1\nold\n{file}\n"), "{}", found.stderr);
        let said = [format!("disk/{file}: No space left on device"), "disk/journal: No space left on device".into()];
        assert!(said.iter().all(|said| found.stderr.contains(said)), "{}", found.stderr);
    }
    assert!(!folder.path().join("other").exists());
    // A mount point cannot be renamed over, as containers have them; it gets the content in place.
    let found = script(&format!(
        "echo old > inner; touch point; mount --bind inner point; {ob} a --out point; echo $?; cmp inner point; ls -A"
    ));
    assert!(found.stdout.starts_with("0\n") && !found.stdout.contains(".part"), "{} {}", found.stdout, found.stderr);
    assert!(fs::read_to_string(folder.path().join("inner")).unwrap().starts_with("{\"index\":0"));
}

// ---- kills

#[test]
fn killed_at_any_moment_the_results_behind_a_link_are_the_old_ones_or_the_new_ones() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("far")).unwrap();
    symlink("far/vectors", at("link")).unwrap();
    fs::write(at("lines"), "a red bicycle\n".repeat(40)).unwrap();
    let start = || {
        let mut command = command(&folder, &["--lines", "--out", "link"]);
        command.stdin(fs::File::open(at("lines")).unwrap()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let started = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let took = started.elapsed();
    let new = fs::read(at("far/vectors")).unwrap();
    let (mut killed, mut left) = (0, 0);
    for step in 0..40 {
        fs::write(at("far/vectors"), "old").unwrap();
        let mut child = start();
        std::thread::sleep(took.mul_f64(f64::from(step) / 36.0));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let now = fs::read(at("far/vectors")).unwrap();
        assert!(now == b"old" || now == new, "step {step}: {} bytes", now.len());
        let parts: Vec<String> = names(&at("far")).into_iter().filter(|name| name != "vectors").collect();
        assert!(parts.len() <= 1 && at("link").is_symlink(), "step {step}: {parts:?}");
        left += parts.len();
        if let [part] = &parts[..] {
            let mut next = start();
            let mut said = String::new();
            next.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(next.wait().unwrap().success() && said.contains(part.as_str()), "step {step}: {said}");
        }
        assert_eq!(names(&at("far")), ["vectors"], "step {step}");
    }
    println!("{killed} kills of 40 came before the end, {left} left a part");
    assert!(killed > 5);
    assert_eq!(names(folder.path()), ["far", "lines", "link", "record"]);
}

#[test]
fn two_runs_that_write_one_file_leave_one_whole_result() {
    let folder = small();
    let out = folder.path().join("out.jsonl");
    let runs: Vec<_> = ["one", "two two"]
        .map(|text| command(&folder, &["--text", text, "--out", "out.jsonl"]).stdout(Stdio::null()).spawn().unwrap())
        .into_iter()
        .collect();
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 1);
    assert_eq!(names(folder.path()), ["out.jsonl", "record"]);
}

// ---- what a model gives first, and chunks

/// A folder with the record of a golden model in `record`.
fn of(checkpoint: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints").join(checkpoint);
    let mut convert = omniburn();
    let made = run(convert.arg("convert").arg(checkpoint).arg(folder.path().join("record")).args(["--dtype", "f32"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    folder
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_made_for_vectors_of_tokens_gives_those_unless_another_output_is_asked_for() {
    let folder = of("lfm2-tiny");
    let found = embed(&folder, &["--role", "query", "a red bicycle"]);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let [line] = &lines(&found.stdout)[..] else { panic!("{}", found.stdout) };
    let rows = line["multi"].as_array().unwrap();
    assert_eq!((rows.len() as u64, rows[0].as_array().unwrap().len()), (line["tokens"].as_u64().unwrap(), 128));
    assert!(line["embedding"].is_null() && line["dim"].is_null());
    let dense = embed(&folder, &["--output", "dense", "a red bicycle"]);
    let [line] = &lines(&dense.stdout)[..] else { panic!("{}", dense.stdout) };
    assert_eq!((line["dim"].as_u64(), line["multi"].is_null()), (Some(64), true));
    let array = embed(&folder, &["a red bicycle", "--format", "npy", "--out", "o.npy"]);
    assert_eq!(array.code, 0, "{}", array.stderr);
    let compare = |more: &[&str]| {
        let mut compare = omniburn();
        compare.current_dir(&folder).args(["compare", "--model", "record", "--json", "one text", "another"]).args(more);
        let found = run(&mut compare);
        assert_eq!(found.code, 0, "{}", found.stderr);
        lines(&found.stdout).remove(0)
    };
    assert!(compare(&[])["multi"].is_number() && compare(&["--output", "dense"])["cosine"].is_number());
    assert_refused(&embed(&folder, &["--output", "sparse", "a"]), "it gives multi, dense");
}

#[test]
fn late_chunks_are_a_line_each_and_are_refused_where_there_are_none() {
    let folder = of("modernbert-tiny");
    let text = "Berlin is a city. It lies on a river. Museums stand on an island in it.";
    let found = embed(&folder, &["--role", "none", "--late-chunks=24", text, "short"]);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let found = lines(&found.stdout);
    let of_text: Vec<&Value> = found.iter().filter(|line| line["index"] == 0).collect();
    assert!(of_text.len() > 1 && found.len() == of_text.len() + 1);
    let mut end = 0;
    for (at, line) in of_text.iter().enumerate() {
        assert_eq!((line["chunk"].as_u64(), line["start"].as_u64()), (Some(at as u64), Some(end)), "{line}");
        assert_eq!(line["embedding"].as_array().unwrap().len() as u64, line["dim"].as_u64().unwrap());
        assert!(line["tokens"].as_u64().unwrap() <= 26, "{line}");
        end = line["end"].as_u64().unwrap();
    }
    assert_eq!(end as usize, text.len());
    // Without a number there is one, and a text that fits has one chunk.
    assert_eq!(lines(&embed(&folder, &["--late-chunks", "short"]).stdout).len(), 1);
    assert_refused(&embed(&folder, &["--late-chunks=0", "a"]), "--late-chunks");
    assert_refused(&embed(&folder, &["--late-chunks", "--output", "multi", "a"]), "no other output");
    let last = of("qwen3-embedding-tiny");
    assert_refused(&embed(&last, &["--late-chunks", "a"]), "the row of the last token");
}
