//! No room: on the disk, in a file, in memory. A full disk is an error that names the file and the cause, a process without
//! memory may die of it; either way what was there before stays whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{copy_folder, golden, omniburn, run, run_with, write_bmp};

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn checkpoint() -> PathBuf {
    golden().join("checkpoints/omni-nano-tiny")
}

/// `omniburn convert` of the checkpoint to `record`, run in `folder`.
fn convert(folder: &Path, dtype: &str) -> Command {
    let mut command = omniburn();
    command.current_dir(folder).arg("convert").arg(checkpoint()).args(["record", "--dtype", dtype]);
    command
}

/// A folder with an f16 record in `record`.
fn with_old() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&mut convert(folder.path(), "f16")).code, 0);
    folder
}

/// The same command under a limit of the shell: `f` for the length of files in blocks of 512 bytes, `v` for the address
/// space in KiB. A file that grows too long is an error of the write then, and no signal.
fn limited(command: &Command, limit: char, value: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("trap '' XFSZ; ulimit -c 0; ulimit -{limit} {value}; exec \"$0\" \"$@\""));
    limited.arg(command.get_program()).args(command.get_args());
    limited.current_dir(command.get_current_dir().expect("every command here has a folder"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// What a limited run gave: how it ended, and what it said.
fn end(command: &mut Command, input: &[u8]) -> (ExitStatus, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the shell starts");
    // One that has died does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned()).unwrap()
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    (status, said.join().unwrap())
}

// ---- no room in a file or on the disk

#[test]
fn a_file_that_cannot_grow_is_an_error_with_path_and_cause_and_leaves_the_old_record() {
    let folder = with_old();
    let out = folder.path().join("record");
    let old = files(&out);
    let lengths: BTreeMap<u64, PathBuf> = old.iter().map(|(name, bytes)| (bytes.len() as u64, name.clone())).collect();
    let mut refused = Vec::new();
    // Below the shortest file, then between one length and the next: another file is the first that has no room.
    for limit in [4096, 30_000, 200_000, 400_000] {
        let mut command = convert(folder.path(), "f32");
        command.arg("--force");
        let (status, said) = end(&mut limited(&command, 'f', limit / 512), b"");
        assert_eq!(status.code(), Some(3), "{limit}: {said}");
        assert!(said.starts_with("error: ") && said.contains("File too large (os error 27)"), "{limit}: {said}");
        let named = old.keys().find(|name| said.contains(&format!("new/{}", name.display())));
        refused.push(named.unwrap_or_else(|| panic!("{limit}: no file is named: {said}")).clone());
        assert!(files(&out) == old, "{limit}: the old record changed");
        assert_eq!(names(folder.path()), ["record"], "{limit}");
    }
    refused.dedup();
    println!("first without room: {refused:?}; lengths of the old record: {lengths:?}");
    assert!(refused.len() > 1, "one and the same file each time");
}

#[test]
fn results_that_find_no_room_are_an_error_that_names_the_file_and_leave_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let bert = golden().join("checkpoints/bert-tiny");
    assert_eq!(run(omniburn().arg("convert").arg(&bert).arg(folder.path().join("record"))).code, 0);
    let lines = "a red bicycle\n".repeat(50);
    for (name, more) in [("vectors.jsonl", &[][..]), ("vectors.npy", &["--format", "npy"][..])] {
        let mut embed = omniburn();
        embed.current_dir(&folder).args(["embed", "--model", "record", "--lines", "--out", name]).args(more);
        assert_eq!(run_with(&mut embed, b"something else\n").code, 0);
        let old = fs::read(folder.path().join(name)).unwrap();
        let (status, said) = end(&mut limited(&embed, 'f', 8), lines.as_bytes());
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(name) && said.contains("File too large (os error 27)"), "{said}");
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), old);
    }
    assert_eq!(names(folder.path()), ["record", "vectors.jsonl", "vectors.npy"]);
}

/// How this machine lets a test mount a file system of its own, if it does; else that is said.
pub(crate) fn own_mounts() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["-m"], &["-r", "-m"]];
    let works = |flags: &&&[&str]| {
        let mut try_it = Command::new("unshare");
        try_it.args(**flags).args(["sh", "-c", "mount -t tmpfs none /mnt"]);
        try_it.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let found = WAYS.iter().find(works).copied();
    if found.is_none() {
        // Past the test harness, which keeps what a passing test prints to itself.
        let said = "NOT RUN: a full disk; this machine lets nobody mount a file system (`unshare -m`, `unshare -rm`)";
        let _ = writeln!(std::io::stderr(), "{said}");
    }
    found
}

#[test]
fn a_full_disk_is_an_error_with_path_and_cause_and_leaves_the_old_record() {
    let Some(flags) = own_mounts() else { return };
    let folder = with_old();
    let old = files(&folder.path().join("record"));
    let bytes: usize = old.values().map(Vec::len).sum();
    // The mount is seen by the shell and its children only, so what is there afterwards is copied out of it.
    const SCRIPT: &str = "set -e; mount -t tmpfs -o \"$1\" none disk; cp -r record disk/record; code=0; \
         \"$2\" convert \"$3\" disk/record --dtype f32 --force 2>said >/dev/null || code=$?; \
         rm -rf after; mkdir after; cp -r disk/. after/; echo $code";
    fs::create_dir(folder.path().join("disk")).unwrap();
    let (mut refused, mut done) = (Vec::new(), 0);
    // From hardly more than the old one takes to enough for both; then enough, but for few files.
    let room = |kib: usize| format!("size={kib}k");
    let mut disks: Vec<String> = [64, 128, 384, 768, 1024].map(|more| room(bytes / 1024 + more)).into();
    disks.extend([11, 12, 14].map(|nodes| format!("size=16m,nr_inodes={nodes}")));
    disks.push(room(4096 + bytes / 1024));
    for disk in &disks {
        let mut shell = Command::new("unshare");
        shell.current_dir(&folder).args(flags).args(["sh", "-c", SCRIPT, "sh", disk]);
        shell.arg(env!("CARGO_BIN_EXE_omniburn")).arg(checkpoint());
        let ran = shell.output().unwrap();
        let code = String::from_utf8(ran.stdout).unwrap();
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        let after = folder.path().join("after");
        assert!(ran.status.success(), "{disk}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(names(&after), ["record"], "{disk}: {said}");
        if code.trim() == "0" {
            done += 1;
            assert!(files(&after.join("record")) != old, "{disk}: the new record is not there");
            assert_eq!(run(omniburn().arg("inspect").arg(after.join("record")).arg("--verify")).code, 0);
            continue;
        }
        assert_eq!(code.trim(), "3", "{disk}: {said}");
        let cause = "No space left on device (os error 28)";
        assert!(said.starts_with("error: disk/") && said.contains(cause), "{disk}: {said}");
        assert!(files(&after.join("record")) == old, "{disk}: the old record changed");
        println!("{disk}: {}", said.trim());
        refused.push(said.split(": ").nth(1).unwrap().rsplit('/').next().unwrap().to_string());
    }
    refused.sort();
    refused.dedup();
    println!("first without room: {refused:?}; {done} of {} disks had room", disks.len());
    assert!(refused.len() > 2 && done > 0);
}

// ---- no memory

/// A checkpoint like the golden one with a token table of `rows` rows, which lies in a hole of the file.
fn with_large_table(folder: &Path, rows: u64) -> PathBuf {
    let large = folder.join("large");
    copy_folder(&checkpoint(), &large);
    let path = large.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let table = header.iter().find(|(name, _)| name.ends_with("embed_tokens.weight")).unwrap().0.clone();
    // The first tensor of the file, or any: all others keep their bytes, and the old rows stay as a tensor nobody reads.
    let data = (bytes.len() - 8 - length) as u64;
    let width = header[&table]["shape"][1].as_u64().unwrap();
    let element = if header[&table]["dtype"] == "F32" { 4 } else { 2 };
    let [begin, end] = [0, 1].map(|i| header[&table]["data_offsets"][i].as_u64().unwrap());
    let added = rows * width * element;
    // The others close up over its old place.
    for (name, entry) in header.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let offsets = entry["data_offsets"].as_array_mut().unwrap();
        for offset in offsets {
            let at = offset.as_u64().unwrap();
            *offset = json!(if at >= end { at - (end - begin) } else { at });
        }
        if *name == table {
            entry["shape"][0] = json!(rows);
            entry["data_offsets"] = json!([data - (end - begin), data - (end - begin) + added]);
        }
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let start = 8 + length;
    file.write_all(&bytes[start..start + begin as usize]).unwrap();
    file.write_all(&bytes[start + end as usize..]).unwrap();
    file.set_len(8 + header.len() as u64 + data - (end - begin) + added).unwrap();
    let path = large.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let text = if config["text_config"].is_object() { &mut config["text_config"] } else { &mut config };
    text["vocab_size"] = json!(rows);
    fs::write(&path, config.to_string()).unwrap();
    large
}

/// How a run under a limit ended, in words for the test's own report.
fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit code {}", status.code().unwrap()),
    }
}

#[test]
fn a_conversion_that_dies_for_want_of_memory_leaves_the_old_record_and_the_next_one_cleans_up() {
    let folder = with_old();
    let out = folder.path().join("record");
    let old = files(&out);
    // The least that is enough, roughly; then finer steps below it, where it dies at work and not at its start.
    let force = || {
        let mut command = convert(folder.path(), "f32");
        command.arg("--force");
        command
    };
    let mut enough = 20_000;
    while !end(&mut limited(&force(), 'v', enough), b"").0.success() {
        enough += enough / 8;
        assert!(enough < 16_000_000, "it never has enough");
    }
    let new = files(&out);
    assert!(new != old, "the new record is not there");
    let (mut deaths, mut left, mut last) = (BTreeMap::<String, usize>::new(), 0, String::new());
    for step in 0..40 {
        let before = files(&out);
        let (status, said) = end(&mut limited(&force(), 'v', enough * (800 + 5 * step) / 1000), b"");
        assert!(files(&out) == if status.success() { new.clone() } else { before }, "{}: {said}", ended(status));
        if !status.success() {
            *deaths.entry(ended(status)).or_default() += 1;
            left += usize::from(names(folder.path()).iter().any(|name| name.ends_with(".part")));
            last = said;
        }
    }
    println!("of 40 limits up to {enough} KiB: {deaths:?}, {left} with a folder left; the last said: {}", last.trim());
    assert!(deaths.values().sum::<usize>() > 4);
    assert_eq!(run(&mut force()).code, 0);
    assert!(files(&out) == new);
    assert_eq!(run(omniburn().arg("inspect").arg(&out).arg("--verify")).code, 0);
    assert_eq!(names(folder.path()), ["record"]);

    // A token table of 256 MiB where all the rest has room: it dies with its folder half written.
    let old = files(&out);
    let large = with_large_table(folder.path(), 1 << 20);
    let mut command = omniburn();
    command.current_dir(&folder).arg("convert").arg(&large).args(["record", "--force"]);
    let (status, said) = end(&mut limited(&command, 'v', enough + (100 << 10)), b"");
    println!("a table of 2^20 rows under 100 MiB more than the checkpoint needs: {}: {}", ended(status), said.trim());
    assert!(!status.success() && said.contains("memory"), "{said}");
    assert!(files(&out) == old, "the old record changed");
    let left: Vec<String> = names(folder.path()).into_iter().filter(|name| name.ends_with(".part")).collect();
    assert_eq!(left.len(), 1, "it died before or after the work this test is about");
    let next = run(convert(folder.path(), "f16").arg("--force"));
    assert!(next.code == 0 && next.stderr.contains(&left[0]), "{}", next.stderr);
    assert_eq!(names(folder.path()), ["large", "record"]);
}

#[test]
fn an_embedding_run_that_dies_for_want_of_memory_leaves_the_old_results() {
    let folder = with_old();
    let embed = |items: &str| {
        fs::write(folder.path().join("items.jsonl"), items).unwrap();
        let mut command = omniburn();
        command.current_dir(&folder).args(["embed", "--model", "record", "--items", "items.jsonl", "--threads", "1"]);
        command.args(["--out", "vectors.jsonl"]);
        command
    };
    let texts = "{\"text\": \"a red bicycle\"}\n".repeat(20);
    // 12,000 x 12,000 pixels, 432 MB of them once decoded.
    write_bmp(&folder.path().join("large.bmp"), 12_000, 12_000);
    let both = format!("{texts}{{\"image\": \"large.bmp\"}}\n");
    assert_eq!(run(&mut embed(&texts)).code, 0);
    let out = folder.path().join("vectors.jsonl");
    fs::write(&out, "the old results").unwrap();

    let (mut kib, mut deaths) = (64_000, BTreeMap::<String, usize>::new());
    let enough = loop {
        let (status, said) = end(&mut limited(&embed(&texts), 'v', kib), b"");
        if status.success() {
            break kib;
        }
        *deaths.entry(ended(status)).or_default() += 1;
        assert_eq!(fs::read(&out).unwrap(), b"the old results", "{kib} KiB: {said}");
        kib += kib / 8;
        assert!(kib < 16_000_000, "{}: {said}", ended(status));
    };
    assert!(!deaths.is_empty());
    fs::write(&out, "the old results").unwrap();
    let (status, said) = end(&mut limited(&embed(&both), 'v', enough + (100 << 10)), b"");
    println!(
        "deaths below {enough} KiB: {deaths:?}; with the picture and 100 MiB more: {}: {}",
        ended(status),
        said.trim()
    );
    assert!(!status.success(), "{said}");
    let found = fs::read_to_string(&out).unwrap();
    if found != "the old results" {
        // It lived: then the image has its error, and the rest their vectors.
        assert_eq!((status.code(), found.lines().count()), (Some(1), 21), "{found}");
    }
    let next = run(&mut embed(&both));
    assert_eq!((next.code, fs::read_to_string(&out).unwrap().lines().count()), (0, 21), "{}", next.stderr);
    assert!(!names(folder.path()).iter().any(|name| name.ends_with(".part")));
}
