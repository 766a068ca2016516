//! What a device tunes, kept for the next process: each run below is a process of its own, because where tuning is kept counts
//! for a whole process.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use omniburn::{BackendKind, BackendSpec, Dtype, Engine, Input, Modality, Role};
use omniburn_kernels::tuned;
use serde_json::{Value, json};

use crate::backends::compiled;
use crate::support::*;

/// Says to a process of these tests what to do: the backend, and the folder, empty for none.
const JOB: &str = "OMNIBURN_TEST_TUNING";

const MARK: &str = "tuning says ";

/// The smallest number of rows that a pass has: every shape takes a software driver seconds to tune.
const LEAST: usize = 16;

/// The work of one process: warm up to so many rows, then texts of all lengths within them.
fn work(device: &str, most: usize, folder: &str) -> Value {
    let spec: BackendSpec = device.parse().unwrap();
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let mut builder = Engine::builder(checkpoint.record(Dtype::F32)).device(spec).dtype(Dtype::F32);
    builder = builder.modalities([Modality::Text]);
    if !folder.is_empty() {
        builder = builder.tuning(folder);
    }
    let engine = builder.open().unwrap();
    let (found, begun) = (tuned(), Instant::now());
    engine.warm_up_to(most, |_| {}).unwrap();
    let (warm, warm_s) = (tuned(), begun.elapsed().as_secs_f64());
    let texts: Vec<Input> = (0..20).map(|i| Input::text("word ".repeat(1 + (i * 29) % (most / 2)))).collect();
    let begun = Instant::now();
    for text in texts {
        engine.embed_one(text, Role::Document).unwrap();
    }
    let texts_s = begun.elapsed().as_secs_f64();
    json!({ "found": found, "warm": warm, "after": tuned(), "warm_s": warm_s, "texts_s": texts_s })
}

/// The same in a process with an empty home, where it begins, and what it wrote there.
fn process(test: &str, device: &str, most: usize, folder: &str) -> (Value, Vec<String>) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("tuning::{test}"), "--exact", "--nocapture"]).current_dir(home.path());
    command.env(JOB, format!("{device} {most} {folder}")).env("HOME", home.path());
    command.env("XDG_CACHE_HOME", home.path().join("cache")).env("MESA_SHADER_CACHE_DISABLE", "true");
    let output = command.output().unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{device} with {folder:?}: {said}\n{failed}");
    let line = said.lines().find_map(|line| Some(line.split_once(MARK)?.1)).unwrap_or_else(|| panic!("{said}"));
    (serde_json::from_str(line).unwrap(), files_below(home.path()))
}

/// Names of files; a driver may make a folder for what it does not keep.
fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            names.extend(files_below(&entry.path()));
        } else {
            names.push(entry.path().display().to_string());
        }
    }
    names
}

/// In a process of these tests, its work.
fn is_process() -> bool {
    let Ok(job) = std::env::var(JOB) else { return false };
    let mut job = job.splitn(3, ' ');
    let mut next = || job.next().expect("a device, a number of rows, a folder");
    println!("{MARK}{}", work(next(), next().parse().unwrap(), next()));
    true
}

fn tuning_backends() -> impl Iterator<Item = String> {
    compiled().into_iter().filter(|spec| spec.kind != BackendKind::Flex).map(|spec| spec.to_string())
}

#[test]
fn a_second_process_finds_what_the_first_tuned() {
    if is_process() {
        return;
    }
    let name = "a_second_process_finds_what_the_first_tuned";
    for device in tuning_backends() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let (first, _) = process(name, &device, LEAST, place);
        println!("{device}, first process: {first}");
        assert!(folder.path().join("tuning.db").is_file());
        assert!(first["found"] == 0 && first["warm"].as_u64() > Some(0), "{first}");
        let (second, _) = process(name, &device, LEAST, place);
        println!("{device}, second process: {second}");
        assert_eq!((&second["found"], &second["after"]), (&first["after"], &first["after"]));
        assert!(second["warm_s"].as_f64() < first["warm_s"].as_f64(), "{first} {second}");
    }
}

#[test]
fn a_damaged_or_unwritable_place_is_no_error_and_without_one_nothing_is_written() {
    if is_process() {
        return;
    }
    let name = "a_damaged_or_unwritable_place_is_no_error_and_without_one_nothing_is_written";
    for device in tuning_backends() {
        let folder = tempfile::tempdir().unwrap();
        let (file, place) = (folder.path().join("tuning.db"), folder.path().to_str().unwrap());
        std::fs::write(&file, b"no database").unwrap();
        let (damaged, _) = process(name, &device, LEAST, place);
        assert!(damaged["after"].as_u64() > Some(0), "a damaged file is replaced: {damaged}");
        spoil(&file);
        process(name, &device, LEAST, place);
        let (unwritable, _) = process(name, &device, LEAST, &format!("{}/below", file.display()));
        assert_eq!(unwritable["after"], 0);
        let (none, written) = process(name, &device, LEAST, "");
        assert_eq!((&none["after"], written), (&json!(0), Vec::new()), "{device}");
    }
}

/// Leaves a database its first page and makes noise of the rest.
fn spoil(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let from = bytes.len().min(4096);
    bytes[from..].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 31) as u8);
    std::fs::write(file, bytes).unwrap();
}
