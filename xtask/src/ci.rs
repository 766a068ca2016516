//! `ci`: everything that has to be green, cheapest first. The README's test command and the build server's are this one.
//!
//! Every step builds in the release profile, so that all of them share one build of the dependencies; the crates of the
//! workspace are tested with the checks of a debug build (`.ci/checked.toml`).
//!
//! Nothing can switch a step off from outside. `--quick`, `--only` and `--from` leave steps out and say which, and a tool
//! that is missing leaves its step out on a developer's machine but fails on a build server. A step with a list of inputs
//! is left out, and named, where it was green on this machine with the same inputs (see [`crate::green`]).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo, shown, tools_dir};
use crate::{golden, green, readme, ships};

/// Which steps to run.
#[derive(Debug, Default, Clone)]
pub struct Choice {
    /// Leave the slow ones out.
    pub quick: bool,
    /// These and no others.
    pub only: Vec<String>,
    /// From this one on.
    pub from: Option<String>,
    /// Also the steps that were green on the same inputs.
    pub again: bool,
}

/// One step.
struct Step {
    name: &'static str,
    proves: &'static str,
    /// Needs another build of the whole tree, a tool that not every machine has, or minutes of load.
    slow: bool,
    /// Files and folders that decide its result, from the root; empty where it is run each time.
    inputs: &'static [&'static str],
    work: Work,
}

/// The steps that share no build with the others, as their features change those of shared dependencies: some 15 to 25 minutes
/// each where none of it is built yet, on two cores.
const OWN_BUILD: [&str; 2] = ["options", "wgpu"];
/// A run that has taken this long began on a machine with nothing built: it leaves [`OWN_BUILD`] out, so that it ends within an
/// hour. The next run on the machine, or `cargo xtask ci --only options,wgpu`, makes up for it.
const LATEST_OWN_BUILD: Duration = Duration::from_secs(40 * 60);

/// What every build reads, besides sources.
macro_rules! inputs {
    ($($path:literal),*) => { &["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".ci", ".cargo", "xtask/src/ci.rs", $($path),*] };
}

enum Work {
    /// A command whose exit code says it all.
    Run(fn() -> Command),
    /// A run of tests, which are counted; it fails when there are none.
    Test(fn() -> Command),
    /// As [`Work::Run`], where a tool is there.
    RunWith(fn() -> Option<Command>, &'static str),
    /// As [`Work::Test`], where a tool is there.
    TestWith(fn() -> Option<Command>, &'static str),
    Golden,
    Readme,
    Ships,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        proves: "every file is formatted",
        slow: false,
        inputs: &[],
        work: Work::Run(|| args(cargo(), "fmt --all --check")),
    },
    Step {
        name: "rooms",
        proves: "arrows between crates and between files, rules of the house, the developer verbs",
        slow: false,
        inputs: &[],
        work: Work::Test(|| args(cargo(), "test --release --package xtask")),
    },
    Step {
        name: "golden",
        proves: "stored expectations are the listed ones",
        slow: false,
        inputs: &[],
        work: Work::Golden,
    },
    Step {
        name: "licences",
        proves: "licences, sources and banned crates of every dependency, all features on",
        slow: true,
        inputs: inputs!("deny.toml", "*Cargo.toml"),
        work: Work::RunWith(deny, "cargo-deny is not installed; `bash .ci/run` installs it"),
    },
    Step {
        name: "clippy",
        proves: "no lint, no missing documentation; with the features that are off by default, on Linux CUDA too, which so type-check",
        slow: false,
        inputs: &[],
        work: Work::Run(|| {
            args(with_options(args(cargo(), "clippy --release --workspace --all-targets")), "-- -D warnings")
        }),
    },
    Step {
        name: "doc",
        proves: "documentation builds and every link in it leads somewhere",
        slow: false,
        inputs: &[],
        work: Work::Run(|| {
            // With the features of `clippy`, whose reading of the dependencies it shares.
            let mut command = with_options(args(cargo(), "doc --release --workspace --no-deps"));
            command.env("RUSTDOCFLAGS", "-D warnings");
            command
        }),
    },
    Step {
        name: "readme",
        proves: "the README's main command, in release",
        slow: true,
        inputs: &[],
        work: Work::Readme,
    },
    Step {
        name: "ships",
        proves: "the released program and the one that is tested give the same bits",
        slow: true,
        inputs: inputs!("crates", "models", "tests/golden/checkpoints", "xtask/src/ships.rs"),
        work: Work::Ships,
    },
    Step {
        name: "test",
        proves: "every other test and documentation example",
        slow: false,
        inputs: &[],
        work: Work::Test(|| tests("--no-fail-fast")),
    },
    Step {
        name: "scheduler",
        proves: "the scheduler in every order of its threads, and on a clock of its own",
        slow: true,
        inputs: inputs!("crates/scheduler"),
        work: Work::Test(|| {
            let words = "test --package omniburn-scheduler --features loom --test model --test simulation --release";
            args(cargo(), words)
        }),
    },
    Step {
        name: "fuzz",
        proves: "no panic, hang or flood of memory in 5 s of hostile bytes for each thing that reads what others wrote",
        slow: true,
        inputs: &[],
        work: Work::Run(|| tests("--test hostile -- --seconds 5")),
    },
    Step {
        name: "soak",
        proves: "2,000 requests ratchet nothing, 100 jobs stay in their memory budget",
        slow: true,
        inputs: &[],
        work: Work::Run(|| tests("--test soak")),
    },
    Step {
        name: "av1",
        proves: "films in AV1, with the decoder that is off by default",
        slow: true,
        inputs: inputs!("crates/media", "tests/golden/media"),
        work: Work::Test(|| tests("--features omniburn-media/av1 --test media -- codecs::")),
    },
    Step {
        name: "postgres",
        proves: "an index on a Postgres server gives what one SQLite file gives, and so does one from a Parquet file; features that are off by default",
        slow: true,
        inputs: inputs!("crates/index", "crates/kernels", "crates/media", "crates/output", "tests/postgres"),
        work: Work::Test(|| {
            args(
                cargo(),
                "test --release --config .ci/checked.toml --package omniburn-index --features postgres,parquet --test index",
            )
        }),
    },
    Step {
        name: "mini",
        proves: "the model that ships finds drawings and heard speech at its floors or above",
        slow: true,
        inputs: inputs!("crates", "models", "tests/eval", "tests/golden/make"),
        work: Work::RunWith(eval_mini, "the sets are not there; `sh tests/golden/make/fetch_mini_sets.sh` gets them"),
    },
    Step {
        name: "find",
        proves: "an index finds what is asked for at its floors or above",
        slow: true,
        inputs: inputs!("crates", "models", "tests/eval"),
        work: Work::Run(|| args(cargo(), "run --release --package omniburn-eval --bin find")),
    },
    Step {
        name: "options",
        proves: "the command line with features that are off by default: spans of requests reach a collector, a server holds an index, an export is a Parquet file",
        slow: true,
        inputs: inputs!("crates", "models", "tests/postgres"),
        work: Work::Test(|| {
            let features = "--features omniburn-cli/otel,omniburn-cli/postgres,omniburn-cli/parquet";
            tests(&format!("{features} --test cli -- spans_of_requests postgres parquet"))
        }),
    },
    Step {
        name: "wgpu",
        proves: "the backend tests on software Vulkan",
        slow: true,
        inputs: inputs!("crates", "models", "tests"),
        work: Work::TestWith(wgpu, "no Vulkan loader with Mesa's software driver; `bash .ci/run` installs them"),
    },
];

fn args(mut command: Command, words: &str) -> Command {
    command.args(words.split(' '));
    command
}

/// The features that are off by default; on Linux, where its dependencies can be read without CUDA, the CUDA backend.
///
/// `DOCS_RS` keeps Burn's compiler bundle from being fetched; it is needed to link, not to check. Only that bundle's build
/// scripts read the variable, so the folder is shared with the other builds.
fn with_options(command: Command) -> Command {
    let mut command = args(command, "--features omniburn-cli/otel,omniburn-cli/postgres,omniburn-cli/parquet");
    if !cfg!(target_os = "linux") {
        return command;
    }
    command.args(["--features", "omniburn/cuda"]);
    command.env("DOCS_RS", "1");
    command
}

/// The tests on the build that the steps share: see the alias in `.cargo/config.toml`.
pub fn tests(words: &str) -> Command {
    args(args(cargo(), "checked"), words)
}

fn deny() -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // `.ci/run` keeps the program in the cache, where only it has a path to.
    let folders = std::env::split_paths(&path).chain(tools_dir());
    let program = folders.map(|folder| folder.join("cargo-deny")).find(|program| program.is_file())?;
    // Doubled versions are shown by a plain `cargo deny check`; here they would bury what matters.
    Some(args(Command::new(program), "--locked check --hide-inclusion-graph -A duplicate bans licenses sources"))
}

/// The fast part of `cargo xtask eval-mini`.
fn eval_mini() -> Option<Command> {
    let named = std::env::var_os("OMNIBURN_MINI_SETS").map(PathBuf::from);
    let sets = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/omniburn/mini-sets")))?;
    sets.join("complete").is_file().then(|| {
        let words = "run --release --package omniburn-eval -- --quick --sets";
        let mut command = args(cargo(), words);
        command.arg(sets);
        command
    })
}

const WGPU: &str = "--package omniburn-tests --features wgpu --test integration -- backends:: tuning::";

fn wgpu() -> Option<Command> {
    let driver = software_vulkan(Path::new("/"))?;
    let mut command = args(args(cargo(), "test --release --config .ci/checked.toml --config .ci/wgpu.toml"), WGPU);
    // The first name is the loader's present one, the second its older one. Named so that a machine with a graphics
    // card proves the same thing as one without.
    command.env("VK_DRIVER_FILES", &driver).env("VK_ICD_FILENAMES", &driver);
    Some(command)
}

/// The driver file of Mesa's software Vulkan, where the loader is there too.
fn software_vulkan(root: &Path) -> Option<PathBuf> {
    let entries = |folder: PathBuf| {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        found.sort();
        found
    };
    let loader = ["lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib"].iter().any(|folder| {
        let folder = root.join(folder);
        // Debian keeps libraries one folder lower, by architecture.
        folder.join("libvulkan.so.1").exists()
            || entries(folder).iter().any(|lower| lower.join("libvulkan.so.1").exists())
    });
    let is_software = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("lvp_icd") && name.ends_with(".json")
    };
    let folders = ["usr/share", "usr/local/share", "etc"].map(|folder| root.join(folder).join("vulkan/icd.d"));
    let driver = folders.into_iter().flat_map(entries).find(is_software);
    driver.filter(|_| loader)
}

/// How a step ended.
enum End {
    Passed,
    Failed(String),
    NotRun(&'static str),
}

/// Tests that passed, failed, and were not run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs the chosen steps and gives the exit code: 0 when all passed, 1 at the first that did not.
///
/// # Errors
/// When a step's name is unknown, or no step is left to run.
pub fn run(root: &Path, choice: &Choice) -> Result<u8> {
    let (steps, left_out) = chosen(choice)?;
    let begun = Instant::now();
    let (mut count, mut times, mut not_run, mut unchanged) = (Count::default(), Vec::new(), Vec::new(), Vec::new());
    for (i, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", i + 1, steps.len(), step.name, step.proves);
        let step_begun = Instant::now();
        let mark = green::Mark::of(root, step.name, step.inputs);
        if let Some(when) = mark.as_ref().and_then(green::Mark::last).filter(|_| !choice.again) {
            println!("== {} left out: green on this machine with the same inputs, {when}", step.name);
            unchanged.push(step.name);
            continue;
        }
        if OWN_BUILD.contains(&step.name) && choice.only.is_empty() && begun.elapsed() > LATEST_OWN_BUILD {
            let minutes = LATEST_OWN_BUILD.as_secs() / 60;
            println!(
                "== {} not run: more than {minutes} minutes have passed; cargo xtask ci --only {}",
                step.name, step.name
            );
            not_run.push(step.name);
            continue;
        }
        let end = perform(root, step, &mut count).unwrap_or_else(|error| {
            println!("error: {error:#}");
            End::Failed("see the error above".into())
        });
        let time = shown_time(step_begun.elapsed());
        match end {
            End::Passed => {
                println!("== {} passed in {time}", step.name);
                if let Some(mark) = mark {
                    mark.keep();
                }
                times.push((step.name, time));
            }
            End::Failed(command) => {
                println!("\n== {} FAILED after {time}", step.name);
                println!("   the step again:     cargo xtask ci --only {}", step.name);
                println!("   the command alone:  {command}");
                print_count(count);
                return Ok(1);
            }
            End::NotRun(reason) => {
                println!("== {} not run: {reason}", step.name);
                not_run.push(step.name);
            }
        }
    }
    println!();
    for (name, time) in times {
        println!("{name:<10} {time:>8}");
    }
    println!("{:<10} {:>8}", "total", shown_time(begun.elapsed()));
    let reasons = [("not run", not_run), ("unchanged since green", unchanged), ("left out", left_out)];
    for (why, names) in reasons {
        if !names.is_empty() {
            println!("{why}: {}", names.join(", "));
        }
    }
    print_count(count);
    Ok(0)
}

/// The closing line, alone on its line, for people and for programs that read the log.
fn print_count(Count { passed, failed, skipped }: Count) {
    match (passed + failed, skipped) {
        (0, _) => {}
        (_, 0) => println!("\n{passed} passed, {failed} failed"),
        (_, n) => println!("\n{passed} passed, {failed} failed, {n} skipped"),
    }
}

/// Prints the steps in order, each with its command.
pub fn list() {
    for Step { name, proves, slow, inputs, work } in STEPS {
        let command = match work {
            Work::Run(make) | Work::Test(make) => shown(&make()),
            Work::RunWith(make, missing) | Work::TestWith(make, missing) => {
                make().map_or_else(|| format!("({missing})"), |command| shown(&command))
            }
            Work::Golden => "cargo xtask golden --check".into(),
            Work::Readme => "(the first `sh` block of README.md that begins with `cargo run --release`)".into(),
            Work::Ships => "(embed with the released program, replay with the tested one)".into(),
        };
        let marks =
            [(*slow, " [not with --quick]"), (!inputs.is_empty(), " [left out where its inputs are unchanged]")];
        let marks: String = marks.iter().filter(|(holds, _)| *holds).map(|(_, mark)| *mark).collect();
        println!("{name:<10} {proves}{marks}\n           {command}");
    }
}

/// The steps to run, and the names of those left out.
fn chosen(choice: &Choice) -> Result<(Vec<&'static Step>, Vec<&'static str>)> {
    let known = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    for name in choice.only.iter().chain(&choice.from) {
        if STEPS.iter().all(|step| step.name != name) {
            bail!("no step is called {name}; there are: {}", known());
        }
    }
    let first = choice.from.as_ref().and_then(|from| STEPS.iter().position(|step| step.name == from)).unwrap_or(0);
    let (mut steps, mut left_out) = (Vec::new(), Vec::new());
    for (i, step) in STEPS.iter().enumerate() {
        let named = choice.only.is_empty() || choice.only.iter().any(|name| name == step.name);
        if named && i >= first && !(choice.quick && step.slow) {
            steps.push(step);
        } else {
            left_out.push(step.name);
        }
    }
    if steps.is_empty() {
        bail!("no step is left to run");
    }
    Ok((steps, left_out))
}

fn perform(root: &Path, step: &Step, count: &mut Count) -> Result<End> {
    match &step.work {
        Work::Run(make) => run_plain(root, make()),
        Work::Test(make) => run_tests(root, make(), count),
        Work::RunWith(make, missing) => make().map_or_else(|| without(missing), |command| run_plain(root, command)),
        Work::TestWith(make, missing) => {
            make().map_or_else(|| without(missing), |command| run_tests(root, command, count))
        }
        Work::Golden => Ok(match golden::check(root)? {
            0 => End::Passed,
            _ => End::Failed("cargo xtask golden --check".into()),
        }),
        Work::Readme => Ok(readme::run(root)?.map_or(End::Passed, End::Failed)),
        Work::Ships => Ok(ships::run(root)?.map_or(End::Passed, End::Failed)),
    }
}

fn without(missing: &'static str) -> Result<End> {
    Ok(if workspace::is_ci() { End::Failed(format!("none: {missing}")) } else { End::NotRun(missing) })
}

fn run_plain(root: &Path, mut command: Command) -> Result<End> {
    let text = shown(&command);
    println!("$ {text}");
    let status = workspace::status(command.current_dir(root))?;
    Ok(if status.success() { End::Passed } else { End::Failed(text) })
}

fn run_tests(root: &Path, mut command: Command, count: &mut Count) -> Result<End> {
    let text = shown(&command);
    println!("$ {text}");
    let (status, output) = workspace::tee(command.current_dir(root)).context("running tests")?;
    let found = counted(&output);
    count.add(found);
    if status.success() && found.passed == 0 {
        println!("no test was run, which proves nothing");
        return Ok(End::Failed(text));
    }
    Ok(if status.success() { End::Passed } else { End::Failed(text) })
}

/// Adds up lines like `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.1s`.
fn counted(output: &str) -> Count {
    let mut count = Count::default();
    for line in output.lines() {
        let Some(parts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { continue };
        let number = |label| {
            let part = parts.1.split("; ").find_map(|part| part.strip_suffix(label));
            part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        count.add(Count { passed: number(" passed"), failed: number(" failed"), skipped: number(" ignored") });
    }
    count
}

fn shown_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        seconds => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;

    fn names(choice: &Choice) -> Vec<&'static str> {
        chosen(choice).unwrap().0.iter().map(|step| step.name).collect()
    }

    #[test]
    fn quick_leaves_out_what_needs_another_build_or_another_tool() {
        let quick = Choice { quick: true, ..Choice::default() };
        assert_eq!(names(&quick), ["format", "rooms", "golden", "clippy", "doc", "test"]);
        let slow = [
            "licences",
            "readme",
            "ships",
            "scheduler",
            "fuzz",
            "soak",
            "av1",
            "postgres",
            "mini",
            "find",
            "options",
            "wgpu",
        ];
        assert_eq!(chosen(&quick).unwrap().1, slow);
    }

    #[test]
    fn steps_are_chosen_by_name_and_run_in_their_own_order() {
        let only = Choice { only: vec!["test".into(), "format".into()], ..Choice::default() };
        assert_eq!(names(&only), ["format", "test"]);
        let from = Choice { from: Some("av1".into()), ..Choice::default() };
        assert_eq!(names(&from), ["av1", "postgres", "mini", "find", "options", "wgpu"]);
    }

    #[test]
    fn an_unknown_step_or_an_empty_choice_is_an_error() {
        let unknown = Choice { only: vec!["lint".into()], ..Choice::default() };
        let error = chosen(&unknown).err().unwrap().to_string();
        assert!(error.contains("lint") && error.contains("clippy"), "{error}");
        assert!(chosen(&Choice { from: Some("end".into()), ..Choice::default() }).is_err());
        let nothing = Choice { quick: true, only: vec!["wgpu".into()], ..Choice::default() };
        assert!(chosen(&nothing).is_err(), "a run of no steps would be green for nothing");
    }

    #[test]
    fn test_results_of_several_binaries_add_up() {
        let output = "
running 2 tests
test a ... ok
test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s
test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
a line that says 7 passed; 7 failed
";
        assert_eq!(counted(output), Count { passed: 17, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_test_run_without_a_test_fails() {
        let silent = || args(Command::new("true"), "anything");
        let mut count = Count::default();
        assert!(matches!(run_tests(Path::new("."), silent(), &mut count).unwrap(), End::Failed(_)));
    }

    #[test]
    fn software_vulkan_needs_both_the_loader_and_the_driver() {
        let scratch = Scratch::new("vulkan").unwrap();
        let root = scratch.path();
        let drivers = root.join("usr/share/vulkan/icd.d");
        std::fs::create_dir_all(&drivers).unwrap();
        std::fs::write(drivers.join("intel_icd.x86_64.json"), "").unwrap();
        std::fs::write(drivers.join("lvp_icd.x86_64.json"), "").unwrap();
        assert_eq!(software_vulkan(root), None, "a driver without a loader");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        std::fs::create_dir_all(&libraries).unwrap();
        std::fs::write(libraries.join("libvulkan.so.1"), "").unwrap();
        assert_eq!(software_vulkan(root), Some(drivers.join("lvp_icd.x86_64.json")));
        std::fs::remove_file(drivers.join("lvp_icd.x86_64.json")).unwrap();
        assert_eq!(software_vulkan(root), None, "a loader with another driver");
    }

    #[test]
    fn an_error_inside_a_step_fails_that_step() {
        let scratch = Scratch::new("ci").unwrap();
        let readme = Choice { only: vec!["readme".into()], ..Choice::default() };
        assert_eq!(run(scratch.path(), &readme).unwrap(), 1, "there is no README there");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(shown_time(Duration::from_millis(4_260)), "4.2 s");
        assert_eq!(shown_time(Duration::from_secs(605)), "10 m 05 s");
    }
}
