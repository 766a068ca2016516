//! The program killed at any moment: what is at `OUT` is the old record or the new one, whole, and the next run names and
//! removes what is left.
//!
//! `OMNIBURN_KILLS` is how many kills (50 unless it says otherwise; `cargo xtask soak` runs 1,000).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{copy_folder, golden, omniburn, run, run_with};

/// Files more in the old record. They make its removal last long enough that a kill can meet it.
const NOTES: usize = 200;

/// Every file of a folder with its bytes.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

/// Names in `folder` other than those a whole run leaves.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "record" && name != "report.json").collect();
    names.sort();
    names
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// A share from 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// When a kill comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Somewhere in the time that a run takes.
    Anywhere,
    /// From when the new record is sealed until a little later.
    Sealed,
    /// From when something else is at `OUT` until a little later.
    Placed,
}

const MOMENTS: [Moment; 4] = [Moment::Anywhere, Moment::Sealed, Moment::Anywhere, Moment::Placed];

/// Waits for a moment and kills; true when the kill came before the end.
fn kill_at(child: &mut Child, moment: Moment, folder: &Path, before: Option<u64>, run: Duration, share: f64) -> bool {
    let started = Instant::now();
    let out = folder.join("record");
    let sealed = folder.join(format!(".record.{}.part/new/model.json", child.id()));
    let now = || fs::symlink_metadata(&out).ok().map(|about| about.ino());
    let reached = || match moment {
        Moment::Anywhere => started.elapsed() > run.mul_f64(1.1 * share),
        Moment::Sealed => sealed.exists() || now() != before,
        Moment::Placed => now() != before,
    };
    while !reached() && child.try_wait().unwrap().is_none() {
        // A system call of its own each time, so that the run gets its share of the cores.
        std::thread::yield_now();
    }
    let more = match moment {
        Moment::Anywhere => Duration::ZERO,
        Moment::Sealed => run.mul_f64(0.3 * share * share),
        Moment::Placed => Duration::from_micros((2000.0 * share * share * share) as u64),
    };
    let until = Instant::now() + more;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(9) || status.success(), "{status}");
    status.signal() == Some(9)
}

#[test]
fn killed_at_any_moment_the_output_is_the_old_one_or_the_new_one_and_the_next_run_cleans_up() {
    let kills: usize = match std::env::var("OMNIBURN_KILLS") {
        Ok(number) => number.parse().expect("OMNIBURN_KILLS is a number"),
        Err(_) => 50,
    };
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/omni-nano-tiny");
    let convert = |out: &Path, dtype: &str, force: bool| {
        let mut command = omniburn();
        command.arg("convert").arg(&checkpoint).arg(out).args(["--dtype", dtype]);
        command.args(force.then_some("--force"));
        command
    };

    // What is old and what is new, each checked against its own digests once.
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    for (out, dtype) in [(&old, "f16"), (&new, "f32")] {
        let made = run(&mut convert(out, dtype, false));
        assert_eq!(made.code, 0, "{}", made.stderr);
        assert_eq!(run(omniburn().arg("inspect").arg(out).arg("--verify")).code, 0);
    }
    // A record that holds anything else is not replaced, so its header lists them.
    let mut header: serde_json::Value = serde_json::from_slice(&fs::read(old.join("model.json")).unwrap()).unwrap();
    for i in 0..NOTES {
        let name = format!("note-{i}.txt");
        fs::write(old.join(&name), format!("note {i}")).unwrap();
        header["files"][name] = serde_json::json!({});
    }
    fs::write(old.join("model.json"), header.to_string()).unwrap();
    let (old_files, new_files) = (files(&old), files(&new));
    assert_ne!(old_files["model.json".as_ref() as &Path], new_files["model.json".as_ref() as &Path]);

    let place = folder.path().join("place");
    fs::create_dir(&place).unwrap();
    let out = place.join("record");
    // The longest of three, as the least says how fast it can be, and the kills must reach the end.
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(run(&mut convert(&out, "f32", true)).code, 0);
        took = took.max(started.elapsed());
    }
    fs::remove_dir_all(&out).unwrap();

    let mut numbers = Numbers(5);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: &str| *seen.entry(what.into()).or_default() += 1;
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        runs += 1;
        assert!(runs <= 4 * kills + 100, "only {killed} of {runs} runs could be killed before their end");
        let (force, moment) = (runs % 2 == 0, MOMENTS[runs / 2 % MOMENTS.len()]);
        if force {
            copy_folder(&old, &out);
        }
        let before = fs::symlink_metadata(&out).ok().map(|about| about.ino());
        let mut command = convert(&out, "f32", force);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mode = if force { "--force" } else { "new place" };
        if kill_at(&mut child, moment, &place, before, took, numbers.share()) {
            killed += 1;
            let found = out.exists().then(|| files(&out));
            let state = match &found {
                None if !force => "nothing there",
                Some(found) if *found == new_files => "the new one there",
                Some(found) if force && *found == old_files => "the old one there",
                None => panic!("{mode}, {moment:?}: neither the old one nor the new one"),
                Some(found) => panic!("{mode}, {moment:?}: {:?} at OUT", found.keys().collect::<Vec<_>>()),
            };
            let left = leftovers(&place);
            assert!(left.len() <= 1, "{left:?}");
            count(&format!("{mode}, {state}, {}", if left.is_empty() { "nothing left" } else { "a folder left" }));

            // The next run: with --force always, else only where nothing came of the killed one.
            let again = force || found.is_none();
            let next = run(&mut convert(&out, "f32", force));
            assert_eq!(next.code, if again { 0 } else { 2 }, "{}", next.stderr);
            for name in &left {
                assert!(next.stderr.contains(name.as_str()), "{name} is not named: {}", next.stderr);
                assert!(!again || next.stdout.contains(name.as_str()), "{name} is not named: {}", next.stdout);
            }
            assert_eq!(leftovers(&place), [""; 0]);
            assert!(files(&out) == new_files, "{mode}, {moment:?}: the next run's record differs");
        }
        fs::remove_dir_all(&out).unwrap();
    }
    println!("{kills} kills in {runs} runs of {} ms:", took.as_millis());
    for (what, n) in &seen {
        println!("  {n:5}  {what}");
    }
    // A kill that never meets these would prove nothing.
    if kills >= 50 {
        for class in [
            "new place, nothing there, a folder left",
            "new place, the new one there",
            "--force, the old one there, a folder left",
            "--force, the new one there, a folder left",
        ] {
            assert!(seen.keys().any(|key| key.starts_with(class)), "no kill met: {class}");
        }
    }
}

/// A child that is stopped, and killed whatever happens.
struct Stopped(Child);

impl Stopped {
    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.0.id())]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_that_lives_keeps_its_folder_while_another_writes_the_same_record() {
    for force in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = golden().join("checkpoints/omni-nano-tiny");
        let out = folder.path().join("record");
        let convert = |dtype: &str, force: bool| {
            let mut command = omniburn();
            command.arg("convert").arg(&checkpoint).arg(&out).args(["--dtype", dtype]).args(force.then_some("--force"));
            command
        };
        let slow = convert("f32", force).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut slow = Stopped(slow);
        let work = folder.path().join(format!(".record.{}.part", slow.0.id()));
        while !work.join("new/tokens.bpk").exists() {
            assert!(slow.0.try_wait().unwrap().is_none(), "it ended before it could be stopped");
            std::thread::yield_now();
        }
        slow.signal("STOP");
        assert!(work.exists(), "it ended before it could be stopped");
        let quick = run(&mut convert("f16", false));
        assert_eq!((quick.code, quick.stderr.as_str()), (0, ""));
        let between = files(&out);
        assert!(work.join("new").exists(), "the folder of a run that lives was removed");
        slow.signal("CONT");
        let mut said = String::new();
        slow.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = slow.0.wait().unwrap().code();
        assert_eq!(code, Some(if force { 0 } else { 2 }), "{said}");
        assert_eq!(said.contains("already exists"), !force, "{said}");
        assert_eq!(files(&out) == between, !force);
        assert_eq!(leftovers(folder.path()), [""; 0]);
        assert_eq!(run(omniburn().arg("inspect").arg(&out).arg("--verify")).code, 0);
    }
}

#[test]
fn what_a_killed_run_left_of_a_file_of_results_is_named_and_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/bert-tiny");
    assert_eq!(run(omniburn().arg("convert").arg(&checkpoint).arg(folder.path().join("record"))).code, 0);
    let out = folder.path().join("vectors.jsonl");
    fs::write(&out, "the old one").unwrap();
    let embed = || {
        let mut command = omniburn();
        command.current_dir(&folder).args(["embed", "--model", "record", "--lines", "--out", "vectors.jsonl"]);
        command
    };
    // It waits for a line that never comes.
    let mut child = embed().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = format!(".vectors.jsonl.{}.part", child.id());
    while !folder.path().join(&part).exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::yield_now();
    }
    // Another run leaves the file of one that lives alone.
    assert!(run_with(&mut embed(), b"a red bicycle\n").stderr.is_empty());
    let old = fs::read(&out).unwrap();
    assert!(folder.path().join(&part).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read(&out).unwrap(), old);
    let next = run_with(&mut embed(), b"a red bicycle\n");
    assert!(next.code == 0 && next.stderr.contains(&part), "{}", next.stderr);
    assert_eq!(fs::read(&out).unwrap(), old);
    assert!(!folder.path().join(&part).exists());
}

#[test]
fn results_go_into_a_pipe_that_stays_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/bert-tiny");
    assert_eq!(run(omniburn().arg("convert").arg(&checkpoint).arg(folder.path().join("record"))).code, 0);
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read_to_string(pipe).unwrap())
    };
    let mut command = omniburn();
    command.current_dir(&folder).args(["embed", "--model", "record", "--out", "pipe", "--text", "a red bicycle"]);
    assert_eq!(run(&mut command).code, 0);
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file(), "a file took the place of the pipe");
    assert!(reader.join().unwrap().starts_with("{\"index\":0,"));
    assert_eq!(leftovers(folder.path()), ["pipe"]);
}
