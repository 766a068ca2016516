//! `bench`: ours beside PyTorch, ONNX Runtime, llama.cpp and candle on the same shapes, in one interleaved run, as one table;
//! and how our times grow with the input (`growth`).
//!
//! Arms are programs (`arm`) that hold their model and wait; a round runs each of them in turn, forth and back, so that
//! what the machine does meanwhile falls on all of them alike. Only ratios of one run count. Arms on one checkpoint give their
//! vectors first, and one whose vectors are not ours is not timed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

mod arm;
mod growth;

use crate::golden::venv;
use crate::workspace::{cargo, scrub, shown, target_dir};
use arm::{Arm, Found};

/// Where the peers' programs are.
const PEERS: &str = "benches/peers";
/// Time that an arm runs in a round, in milliseconds, where a run is shorter.
const ROUND_MS: f64 = 400.0;
/// Runs of an arm in a round at most.
const MOST_RUNS: usize = 25;
/// Share of the free memory that the arms of a group may take together.
const MEMORY_SHARE: f64 = 0.75;

/// What to compare.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Families with commas between: small and nano at full size with random weights, mini, the model that ships, and
    /// published checkpoints with random weights: bge-small, e5-small, qwen3-0.6b, embeddinggemma, siglip
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["small", "nano", "mini"])]
    family: Vec<String>,
    /// Cases with commas between, such as text:16x128,image:512,audio:10s [default: the family's]
    #[arg(long, value_name = "CASES", value_delimiter = ',')]
    cases: Vec<String>,
    /// Arms with commas between, such as ours-bf16,torch-bf16; the beginning of a name is enough [default: all]
    #[arg(long, value_name = "ARMS", value_delimiter = ',')]
    arms: Vec<String>,
    /// Rounds, in each of which every arm has its turn
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads of every arm; several with commas between are a table each [default: one a core]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Three rounds, one case a kind or two, nothing compiled by PyTorch; of growth the small sizes
    #[arg(long)]
    quick: bool,
    /// A Python that has the packages of benches/peers/requirements.txt, in place of one made for it
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Ours alone, from small inputs to large ones: a plot and a table in benches/
    #[arg(long)]
    growth: bool,
    /// The record that --growth measures
    #[arg(long, value_name = "DTYPE", default_value = "bf16", requires = "growth")]
    dtype: String,
}

/// Which arms a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kindred {
    /// The published sizes of jina-embeddings-v5-omni, built in each program.
    Sizes,
    /// The model that ships.
    Mini,
    /// A checkpoint that every program reads.
    Checkpoint,
}

/// A family with its cases.
struct Family {
    name: &'static str,
    kindred: Kindred,
    /// Of a checkpoint: its file in tests/golden/fullsize.
    published: &'static str,
    cases: &'static [&'static str],
    /// Cases of `--quick`.
    quick: &'static [&'static str],
    /// Millions of parameters: text, what images need beside it, what audio needs beside it.
    parameters: [f64; 3],
}

const FULL: &[&str] = &["text:1x16", "text:1x128", "text:1x512", "text:16x128", "image:512", "image:1024", "audio:10s"];
const FULL_QUICK: &[&str] = &["text:1x16", "text:16x128", "image:512", "audio:10s"];
const MINI: &[&str] = &["text:1x16", "text:16x128", "image:512", "audio:2s"];

impl Family {
    /// Whether a GGUF file holds it.
    fn packs(&self) -> bool {
        self.parameters[1] == 0.0
    }
}

const TEXTS: &[&str] = &["text:1x16", "text:1x128", "text:16x128"];
const TEXTS_QUICK: &[&str] = &["text:1x16", "text:16x128"];
/// Its texts are filled up to 64 tokens.
const SIGLIP: &[&str] = &["text:1x64", "text:16x64", "image:224", "images:8x224"];

const fn built(
    name: &'static str,
    kindred: Kindred,
    cases: &'static [&'static str],
    quick: &'static [&'static str],
    parameters: [f64; 3],
) -> Family {
    Family { name, kindred, published: "", cases, quick, parameters }
}

const fn checkpoint(
    name: &'static str,
    published: &'static str,
    cases: &'static [&'static str],
    parameters: [f64; 3],
) -> Family {
    let quick = if parameters[1] > 0.0 { cases } else { TEXTS_QUICK };
    Family { name, kindred: Kindred::Checkpoint, published, cases, quick, parameters }
}

const FAMILIES: [Family; 8] = [
    built("small", Kindred::Sizes, FULL, FULL_QUICK, [440.0, 325.0, 635.0]),
    built("nano", Kindred::Sizes, FULL, FULL_QUICK, [115.0, 100.0, 635.0]),
    built("mini", Kindred::Mini, MINI, MINI, [44.0, 0.0, 0.0]),
    checkpoint("bge-small", "bge-small-en-v1.5", TEXTS, [25.0, 0.0, 0.0]),
    checkpoint("e5-small", "multilingual-e5-small", TEXTS, [25.0, 0.0, 0.0]),
    checkpoint("qwen3-0.6b", "Qwen3-Embedding-0.6B", TEXTS, [450.0, 0.0, 0.0]),
    checkpoint("embeddinggemma", "embeddinggemma-300m", TEXTS, [113.0, 0.0, 0.0]),
    checkpoint("siglip", "siglip2-base-patch16-224", SIGLIP, [92.0, 93.0, 0.0]),
];

/// A kind of arm: what it computes with, and what it is compared in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kind {
    name: &'static str,
    program: Program,
    /// Those of one precision share a group, and the first of ours in it is what they are divided by.
    precision: &'static str,
    dtype: &'static str,
    /// Bytes of memory a parameter.
    bytes: f64,
    of: Kindred,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Program {
    Ours,
    /// Ours on a GGUF file of this type.
    OursPacked(&'static str),
    Torch {
        mode: &'static str,
    },
    Onnx,
    Llama,
    Candle,
}

impl Program {
    fn ours(self) -> bool {
        matches!(self, Program::Ours | Program::OursPacked(_))
    }
}

const fn kind(
    name: &'static str,
    program: Program,
    precision: &'static str,
    dtype: &'static str,
    bytes: f64,
    of: Kindred,
) -> Kind {
    Kind { name, program, precision, dtype, bytes, of }
}

const EAGER: Program = Program::Torch { mode: "eager" };
const COMPILED: Program = Program::Torch { mode: "compile" };

/// Every arm. torch.compile holds its weights twice, as they were and packed.
const KINDS: [Kind; 26] = [
    kind("ours-f32", Program::Ours, "f32", "f32", 4.0, Kindred::Sizes),
    kind("torch-f32", EAGER, "f32", "f32", 4.0, Kindred::Sizes),
    kind("torch-compile-f32", COMPILED, "f32", "f32", 8.0, Kindred::Sizes),
    kind("candle-f32", Program::Candle, "f32", "f32", 4.0, Kindred::Sizes),
    kind("ours-bf16", Program::Ours, "low", "bf16", 4.0, Kindred::Sizes),
    kind("ours-int8", Program::Ours, "low", "int8", 4.0, Kindred::Sizes),
    kind("torch-bf16", EAGER, "low", "bf16", 2.0, Kindred::Sizes),
    kind("torch-compile-bf16", COMPILED, "low", "bf16", 4.0, Kindred::Sizes),
    kind("candle-bf16", Program::Candle, "low", "bf16", 2.0, Kindred::Sizes),
    kind("ours", Program::Ours, "shipped", "f32", 4.0, Kindred::Mini),
    kind("ours-in-bf16", Program::Ours, "shipped", "bf16", 4.0, Kindred::Mini),
    kind("ours-in-int8", Program::Ours, "shipped", "int8", 4.0, Kindred::Mini),
    kind("onnx-f32", Program::Onnx, "shipped", "f32", 4.0, Kindred::Mini),
    kind("onnx-int8", Program::Onnx, "shipped", "int8", 4.0, Kindred::Mini),
    kind("ours-f32", Program::Ours, "f32", "f32", 8.0, Kindred::Checkpoint),
    kind("ours-bf16", Program::Ours, "f32", "bf16", 8.0, Kindred::Checkpoint),
    kind("torch-f32", EAGER, "f32", "f32", 4.0, Kindred::Checkpoint),
    kind("torch-compile-f32", COMPILED, "f32", "f32", 8.0, Kindred::Checkpoint),
    kind("onnx-f32", Program::Onnx, "f32", "f32", 8.0, Kindred::Checkpoint),
    kind("llama-f32", Program::Llama, "f32", "f32", 4.0, Kindred::Checkpoint),
    kind("ours-affine8", Program::OursPacked("q8_0"), "8 bits", "affine8", 2.0, Kindred::Checkpoint),
    kind("ours-int8", Program::Ours, "8 bits", "int8", 2.0, Kindred::Checkpoint),
    kind("onnx-int8", Program::Onnx, "8 bits", "int8", 4.0, Kindred::Checkpoint),
    kind("llama-q8_0", Program::Llama, "8 bits", "q8_0", 2.0, Kindred::Checkpoint),
    kind("ours-affine4", Program::OursPacked("q4_0"), "4 bits", "affine4", 2.0, Kindred::Checkpoint),
    kind("llama-q4_0", Program::Llama, "4 bits", "q4_0", 2.0, Kindred::Checkpoint),
];

/// Least cosine of an arm's vectors with those of ours in f32 (or of the first of ours that runs), by the bits of its weights.
/// Weights are random, so that rounding them moves vectors further than it does those of a trained model, and the rows of a text
/// are alike: of bge-small the mean and the first row have a cosine of 0.9999, so that only f32 tells one from the other.
fn least_cosine(kind: &Kind) -> f64 {
    match kind.precision {
        "f32" if kind.dtype == "f32" => 0.99999,
        "f32" => 0.999,
        "8 bits" => 0.99,
        _ => 0.8,
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    family: &'static str,
    case: String,
    arm: &'static str,
    threads: usize,
    outcome: Result<Times, String>,
}

/// Times of an arm on a case, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
struct Times {
    runs: usize,
    median: f64,
    p10: f64,
    p90: f64,
    /// Of the first of ours in the same group.
    ours: Option<f64>,
    /// Share of the machine's peak in the arm's precision.
    share: Option<f64>,
    /// The least cosine with the vectors of ours, where both gave them.
    cosine: Option<f64>,
    what: String,
}

/// Compares, prints and keeps the table. The code is 1 where one of ours failed.
///
/// # Errors
/// When ours cannot be built, or the table cannot be written.
pub fn run(root: &Path, args: &BenchArgs) -> Result<u8> {
    let families = chosen(&args.family)?;
    let place = Place::new(root, args, &families)?;
    if args.growth {
        let sizes = families.iter().filter(|family| family.kindred == Kindred::Sizes).map(|family| family.name);
        return growth::run(root, &place, &sizes.collect::<Vec<_>>(), args);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.threads.is_empty() { vec![cores] } else { args.threads.clone() };
    ensure!(!threads.contains(&0), "--threads is at least 1");
    let rounds = if args.quick { args.rounds.min(3) } else { args.rounds }.max(1);
    let kinds: Vec<Kind> = KINDS
        .into_iter()
        .filter(|kind| args.arms.is_empty() || args.arms.iter().any(|asked| kind.name.starts_with(asked.as_str())))
        .filter(|kind| !(args.quick && kind.program == COMPILED))
        .collect();
    ensure!(
        !kinds.is_empty(),
        "no arm is called {}: there are {}",
        args.arms.join(", "),
        KINDS.map(|k| k.name).join(", ")
    );
    let (mut rows, mut peaks) = (Vec::new(), Vec::new());
    for &threads in &threads {
        let how = Setting { threads, rounds, peak: place.peak(threads) };
        eprintln!("{}", how.peak.sentence(threads));
        for family in &families {
            // What ours computed of a case, in f32 where that runs: groups of fewer bits come after it.
            let mut reference = BTreeMap::new();
            let cases = match (args.cases.is_empty(), args.quick) {
                (false, _) => args.cases.clone(),
                (true, false) => family.cases.iter().map(ToString::to_string).collect(),
                (true, true) => family.quick.iter().map(ToString::to_string).collect(),
            };
            for (modality, cases) in by_modality(&cases) {
                for group in groups(family, &modality, &kinds, available_gb()) {
                    rows.extend(place.group(family, &modality, &cases, &group, &how, &mut reference));
                }
            }
        }
        peaks.push((threads, how.peak));
    }
    let heading = heading(&peaks, rounds);
    let table = format!("{heading}\n{}", markdown(&rows));
    let folder = target_dir(root).join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lines: String = rows.iter().map(|row| format!("{}\n", row.json())).collect();
    for (name, text) in [("table.md", &table), ("table.jsonl", &lines)] {
        std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    println!("{table}");
    println!("Kept as table.md and table.jsonl in {}", folder.display());
    let broken = rows.iter().any(|row| row.arm.starts_with("ours") && row.outcome.is_err());
    Ok(u8::from(broken))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Family>> {
    let found = |name: &String| {
        let family = FAMILIES.iter().find(|family| family.name == name);
        family.with_context(|| format!("no family is called {name}: there are {}", FAMILIES.map(|f| f.name).join(", ")))
    };
    names.iter().map(found).collect()
}

/// Cases by their kind, in the order they came in.
fn by_modality(cases: &[String]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for case in cases {
        let modality = case.split(':').next().unwrap_or_default();
        match groups.iter_mut().find(|(name, _)| name == modality) {
            Some((_, cases)) => cases.push(case.clone()),
            None => groups.push((modality.into(), vec![case.clone()])),
        }
    }
    groups
}

/// Arms that run together: of one precision, ours first, and no more than memory holds; of those that do not fit beside the
/// others, another group with ours again.
fn groups(family: &Family, modality: &str, kinds: &[Kind], free_gb: f64) -> Vec<Vec<Kind>> {
    let parameters = match modality {
        "image" | "images" | "video" => family.parameters[0] + family.parameters[1],
        "audio" => family.parameters[0] + family.parameters[2],
        _ => family.parameters[0],
    };
    // Half a gigabyte for the program itself.
    let gb = |kind: &Kind| parameters * kind.bytes / 1000.0 + 0.5;
    let mut all = Vec::new();
    for precision in ["f32", "low", "shipped", "8 bits", "4 bits"] {
        let of = kinds.iter().filter(|kind| kind.precision == precision && kind.of == family.kindred);
        // What a GGUF file does not hold here.
        let of = of.filter(|kind| family.packs() || !matches!(kind.program, Program::OursPacked(_) | Program::Llama));
        let (ours, others): (Vec<&Kind>, Vec<&Kind>) = of.partition(|kind| kind.program.ours());
        let fixed: f64 = ours.iter().map(|kind| gb(kind)).sum();
        let mut group: Vec<Kind> = ours.iter().map(|kind| **kind).collect();
        let mut taken = fixed;
        for kind in others {
            if taken + gb(kind) > free_gb * MEMORY_SHARE && group.len() > ours.len() {
                all.push(std::mem::replace(&mut group, ours.iter().map(|kind| **kind).collect()));
                taken = fixed;
            }
            taken += gb(kind);
            group.push(*kind);
        }
        if !group.is_empty() {
            all.push(group);
        }
    }
    all
}

/// Gigabytes of memory that the system could give, where it tells.
fn available_gb() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.map_or(16.0, |kib| kib / 1e6)
}

/// How a table is measured.
struct Setting {
    threads: usize,
    rounds: usize,
    peak: Peak,
}

/// The largest figures that any arm measured.
#[derive(Debug, Clone, Default, PartialEq)]
struct Peak {
    f32_gflops: Option<f64>,
    bf16_gflops: Option<f64>,
    read_gb_per_s: Option<f64>,
}

impl Peak {
    fn take(&mut self, said: &Value) {
        let larger = |kept: &mut Option<f64>, name: &str| {
            if let Some(found) = said[name].as_f64() {
                *kept = Some(kept.map_or(found, |kept| kept.max(found)));
            }
        };
        larger(&mut self.f32_gflops, "matmul_f32_gflops");
        larger(&mut self.bf16_gflops, "matmul_bf16_gflops");
        larger(&mut self.read_gb_per_s, "memory_read_gb_per_s");
    }

    fn of(&self, precision: &str) -> Option<f64> {
        if precision == "low" { self.bf16_gflops.or(self.f32_gflops) } else { self.f32_gflops }
    }

    fn sentence(&self, threads: usize) -> String {
        let figure = |value: Option<f64>| value.map_or("not measured".into(), |value| format!("{value:.0}"));
        format!(
            "Peaks of this machine with {threads} threads: products in f32 {} GFLOP/s, in bf16 {} GFLOP/s, memory read \
             {} GB/s.",
            figure(self.f32_gflops),
            figure(self.bf16_gflops),
            figure(self.read_gb_per_s)
        )
    }
}

/// Programs that were built or found, or why not.
struct Place {
    root: PathBuf,
    ours: PathBuf,
    python: Result<PathBuf, String>,
    candle: Result<PathBuf, String>,
}

impl Place {
    fn new(root: &Path, args: &BenchArgs, families: &[&Family]) -> Result<Self> {
        // Only records of sizes are drawn here: without them ours is built of the crates that the command line is built of.
        let drawn = families.iter().any(|family| family.kindred == Kindred::Sizes);
        let ours = ours(root, drawn)?;
        let wants = |program: &str| {
            let asked = args.arms.is_empty() || args.arms.iter().any(|arm| arm.starts_with(program));
            asked && !args.growth
        };
        let checkpoints = families.iter().any(|family| family.kindred == Kindred::Checkpoint);
        let python = match &args.python {
            _ if !(checkpoints || wants("torch") || wants("onnx")) => Err("no arm of Python was asked for".into()),
            Some(python) => Ok(python.clone()),
            None => venv(root, &format!("{PEERS}/requirements.txt"), "bench-venv").map_err(|e| format!("{e:#}")),
        };
        let candle = if wants("candle") && drawn { candle(root) } else { Err("it was not asked for".into()) };
        for (name, found) in [("Python", &python), ("candle", &candle)] {
            if let Err(why) = found {
                eprintln!("{name}: {why}");
            }
        }
        Ok(Self { root: root.to_path_buf(), ours, python, candle })
    }

    /// The command of an arm.
    fn command(&self, kind: &Kind, family: &Family, modality: &str, threads: usize) -> Result<Command, String> {
        let python = |program: &str| {
            let mut command = Command::new(self.python.as_ref()?);
            command.arg(self.root.join(PEERS).join(program));
            Ok::<_, &String>(command)
        };
        let folder = match kind.of {
            Kindred::Checkpoint => Some(self.checkpoint(family)?),
            Kindred::Sizes | Kindred::Mini => None,
        };
        let mut command = match (&folder, kind.program) {
            (folder, Program::Ours | Program::OursPacked(_)) => {
                let mut command = Command::new(&self.ours);
                if let Some(folder) = folder {
                    command.arg("--checkpoint").arg(match kind.program {
                        Program::OursPacked(packed) => folder.join(format!("{packed}.gguf")),
                        _ => folder.join("checkpoint"),
                    });
                }
                command
            }
            (Some(folder), program) => {
                let mut command = python("published_arm.py")?;
                let (program, mode) = match program {
                    Program::Torch { mode } => ("torch", mode),
                    Program::Onnx => ("onnx", "eager"),
                    _ => ("llama", "eager"),
                };
                command.arg("--checkpoint").arg(folder.join("checkpoint"));
                command.args(["--program", program, "--mode", mode, "--modality", modality]);
                command
            }
            (None, Program::Torch { mode }) => {
                let mut command = python("torch_arm.py")?;
                command.args(["--mode", mode, "--modality", modality]);
                command
            }
            (None, Program::Onnx) => {
                let mut command = python("onnx_arm.py")?;
                command.arg("--record").arg(self.root.join("models/mini/record"));
                command
            }
            (None, Program::Llama) => return Err("it has no such model".into()),
            (None, Program::Candle) => {
                let mut command = Command::new(self.candle.as_ref()?);
                command.args(["--modality", modality]);
                command
            }
        };
        scrub(&mut command);
        command.args(["--family", family.name, "--dtype", kind.dtype, "--threads", &threads.to_string()]);
        // What does not ask for its threads takes them from here.
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        command.env("HF_HUB_OFFLINE", "1");
        Ok(command)
    }

    /// The folder of a checkpoint with random weights, made at first use: it and the GGUF files of the same weights.
    fn checkpoint(&self, family: &Family) -> Result<PathBuf, String> {
        let folder = target_dir(&self.root).join("bench-checkpoints").join(family.published);
        // No GGUF file holds a pair of encoders.
        let packed: &[&str] = if family.packs() { &["f32", "q8_0", "q4_0"] } else { &[] };
        let whole = folder.join("checkpoint").exists()
            && packed.iter().all(|packed| folder.join(format!("{packed}.gguf")).exists());
        if !whole {
            let mut command = Command::new(self.python.as_ref()?);
            command.arg(self.root.join(PEERS).join("published_make.py")).args(["--name", family.published]);
            command.arg("--out").arg(&folder).args(["--gguf", &packed.join(",")]);
            let status = crate::workspace::status(&mut command).map_err(|e| format!("{e:#}"))?;
            if !status.success() {
                return Err(format!("its checkpoint was not made: `{}` ended with {status}", shown(&command)));
            }
        }
        Ok(folder)
    }

    fn start(&self, kind: &Kind, family: &Family, modality: &str, threads: usize) -> Result<Arm, String> {
        Arm::start(self.command(kind, family, modality, threads)?)
    }

    /// The peaks, measured by ours and by PyTorch.
    fn peak(&self, threads: usize) -> Peak {
        let mut peak = Peak::default();
        for (name, family) in [("ours", "mini"), ("torch-f32", "nano")] {
            let kind = KINDS.iter().find(|kind| kind.name == name).expect("it is listed above");
            let family = FAMILIES.iter().find(|other| other.name == family).expect("it is listed above");
            match self.start(kind, family, "text", threads).and_then(|mut arm| arm.peak()) {
                Ok(said) => peak.take(&said),
                Err(why) => eprintln!("peaks by {name} not measured: {why}"),
            }
        }
        peak
    }

    /// The rows of a group of arms on cases of one kind.
    fn group(
        &self,
        family: &Family,
        modality: &str,
        cases: &[String],
        kinds: &[Kind],
        how: &Setting,
        reference: &mut BTreeMap<String, Found>,
    ) -> Vec<Row> {
        let Setting { threads, rounds, peak } = how;
        let threads = *threads;
        eprintln!("{} {modality}: {}", family.name, kinds.iter().map(|k| k.name).collect::<Vec<_>>().join(", "));
        let mut arms: Vec<(Kind, Result<Arm, String>)> =
            kinds.iter().map(|kind| (*kind, self.start(kind, family, modality, threads))).collect();
        let mut rows = Vec::new();
        for case in cases {
            // Which arms answer, how often each runs in a round, and what they said.
            let (mut runs, mut found, mut flops) = (BTreeMap::new(), BTreeMap::<usize, Vec<f64>>::new(), None);
            let (mut failed, mut cosines) = (BTreeMap::new(), BTreeMap::<usize, f64>::new());
            for (i, (kind, arm)) in arms.iter_mut().enumerate() {
                let ours = reference.get(case);
                let texts = ours.map(|ours| ours.texts.as_slice()).filter(|texts| !texts.is_empty());
                let tried = match arm {
                    Ok(arm) => arm.first(case, texts),
                    Err(why) => Err(why.clone()),
                };
                let tried = tried.and_then(|answer| Ok((compared(kind, answer.found.as_ref(), ours)?, answer)));
                match tried {
                    Ok((cosine, answer)) => {
                        cosines.extend(cosine.map(|cosine| (i, cosine)));
                        if kind.program.ours() && ours.is_none() {
                            reference.extend(answer.found.map(|found| (case.clone(), found)));
                        }
                        let once = answer.ms.first().copied().unwrap_or(ROUND_MS).max(1e-3);
                        runs.insert(i, ((ROUND_MS / once) as usize).clamp(1, MOST_RUNS));
                        flops = flops.or(answer.flops);
                    }
                    Err(why) => {
                        failed.insert(i, why);
                    }
                }
            }
            for round in 0..*rounds {
                let mut order: Vec<usize> = runs.keys().copied().collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for i in order {
                    let Ok(arm) = &mut arms[i].1 else { continue };
                    match arm.run(case, 0, runs[&i]) {
                        Ok(answer) => found.entry(i).or_default().extend(answer.ms),
                        Err(why) => {
                            runs.remove(&i);
                            found.remove(&i);
                            failed.insert(i, why);
                        }
                    }
                }
            }
            let ours = kinds.iter().position(|kind| kind.program.ours());
            let ours = ours.and_then(|i| found.get(&i)).map(|ms| at(ms, 0.5));
            for (i, (kind, arm)) in arms.iter().enumerate() {
                let outcome = match (found.get(&i), arm) {
                    (Some(ms), Ok(arm)) if !ms.is_empty() => {
                        let median = at(ms, 0.5);
                        let share =
                            flops.zip(peak.of(kind.precision)).map(|(flops, peak)| flops / (median * 1e6) / peak);
                        let what = arm.ready.clone();
                        let (p10, p90, cosine) = (at(ms, 0.1), at(ms, 0.9), cosines.get(&i).copied());
                        Ok(Times { runs: ms.len(), median, p10, p90, ours, share, cosine, what })
                    }
                    _ => Err(failed.get(&i).cloned().unwrap_or_else(|| "it gave no time".into())),
                };
                let row = Row { family: family.name, case: case.clone(), arm: kind.name, threads, outcome };
                eprintln!("  {}", row.cells().join("  "));
                rows.push(row);
            }
        }
        rows
    }
}

/// The cosine of an arm's vectors with ours, where there are any of ours.
///
/// # Errors
/// What is wrong with them: an arm that computes something else is not timed.
fn compared(kind: &Kind, found: Option<&Found>, ours: Option<&Found>) -> Result<Option<f64>, String> {
    // Each program draws its own weights and inputs.
    if kind.of != Kindred::Checkpoint {
        return Ok(None);
    }
    let found = found.ok_or("it gave no vectors")?;
    match ours {
        Some(ours) => {
            let cosine = ours.cosine(found).ok_or("its vectors are not as many or as long as ours")?;
            let least = least_cosine(kind);
            if cosine < least {
                return Err(format!("its vectors have a cosine of {cosine:.6} with ours, and {least} is the least"));
            }
            Ok(Some(cosine))
        }
        None if kind.program.ours() => Ok(None),
        None => Err("ours gave no vectors to compare with".into()),
    }
}

/// The value below which a share of the times lies, by rank.
fn at(ms: &[f64], share: f64) -> f64 {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() - 1) as f64 * share;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.family.into(), self.case.clone(), self.arm.into(), self.threads.to_string()];
        match &self.outcome {
            Ok(times) => cells.extend([
                milliseconds(times.median),
                format!("{} to {}", milliseconds(times.p10), milliseconds(times.p90)),
                times.ours.map_or("-".into(), |ours| format!("{:.2}", times.median / ours)),
                times.share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
                times.cosine.map_or("-".into(), |cosine| format!("{cosine:.4}")),
            ]),
            Err(why) => cells.extend([
                format!("not run: {}", why.replace('|', "/")),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ]),
        }
        cells
    }

    fn json(&self) -> Value {
        let mut line = json!({ "family": self.family, "case": self.case, "arm": self.arm, "threads": self.threads });
        let more = match &self.outcome {
            Ok(t) => json!({
                "runs": t.runs, "ms_median": t.median, "ms_p10": t.p10, "ms_p90": t.p90,
                "ratio_to_ours": t.ours.map(|ours| t.median / ours), "share_of_peak": t.share, "cosine": t.cosine,
                "what": t.what,
            }),
            Err(why) => json!({ "not_run": why }),
        };
        let (Value::Object(line), Value::Object(more)) = (&mut line, more) else { unreachable!("both are objects") };
        line.extend(more);
        Value::Object(line.clone())
    }
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

fn heading(peaks: &[(usize, Peak)], rounds: usize) -> String {
    let mut text = String::from("# Ours beside others\n\n");
    for (threads, peak) in peaks {
        writeln!(text, "{}", peak.sentence(*threads)).expect("a string takes what is written");
    }
    writeln!(
        text,
        "\nMilliseconds from an input to its vector: the middle and the tenth to the ninetieth of a hundred of {rounds} \
         interleaved rounds. The ratio is to the first of ours above it; over 1, ours is faster. The share is of the peak in \
         bf16 for bf16 and int8, else in f32. The cosine is the least of an arm's vectors with those of ours in f32."
    )
    .expect("a string takes what is written");
    text
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| family | case | arm | threads | median | spread | ratio | share of peak | cosine |\n|---|---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        writeln!(text, "| {} |", row.cells().join(" | ")).expect("a string takes what is written");
    }
    let mut what: Vec<String> = Vec::new();
    for row in rows {
        if let Ok(times) = &row.outcome {
            let line = format!("- {}: {}", row.arm, times.what);
            if !what.contains(&line) {
                what.push(line);
            }
        }
    }
    format!("{text}\n{}\n", what.join("\n"))
}

/// Builds our arm with the features of the released program, and gives the program; `drawn` with what draws records. Not with
/// the workspace: then the features of the tests would be among them.
fn ours(root: &Path, drawn: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "omniburn-benches", "--bin", "omniburn-arm"]);
    command.args(["--no-default-features", "--features", if drawn { "flex,random" } else { "flex" }]);
    command.args(["--message-format", "json-render-diagnostics"]);
    command.current_dir(root).stderr(Stdio::inherit());
    let built = command.output().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    ensure!(built.status.success(), "`{}` failed", shown(&command));
    let text = String::from_utf8_lossy(&built.stdout);
    let artifacts = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = artifacts.filter(|line| line["target"]["name"] == "omniburn-arm").filter_map(|line| {
        let program = line["executable"].as_str()?;
        Some(PathBuf::from(program))
    });
    match programs.next_back() {
        Some(program) => Ok(program),
        None => bail!("`{}` named no program", shown(&command)),
    }
}

/// Builds candle's arm for this very processor, as its documentation says.
fn candle(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join(PEERS).join("candle");
    let target = target_dir(root).join("peers/candle");
    let mut command = cargo();
    command.args(["build", "--release", "--locked"]).current_dir(&folder);
    command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "-C target-cpu=native");
    match crate::workspace::status(&mut command) {
        Ok(status) if status.success() => Ok(target.join("release/omniburn-peer-candle")),
        Ok(status) => Err(format!("its build ended with {status}")),
        Err(e) => Err(format!("{e:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(groups: Vec<Vec<Kind>>) -> Vec<String> {
        groups.iter().map(|group| group.iter().map(|kind| kind.name).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn arms_share_a_group_where_memory_holds_them_and_ours_is_in_each() {
        let small = &FAMILIES[0];
        let all = names(groups(small, "text", &KINDS, 64.0));
        assert_eq!(
            all,
            [
                "ours-f32 torch-f32 torch-compile-f32 candle-f32",
                "ours-bf16 ours-int8 torch-bf16 torch-compile-bf16 candle-bf16"
            ]
        );
        for free in [1.0, 8.0, 16.0, 23.0] {
            let tight = groups(small, "audio", &KINDS, free);
            assert!(tight.iter().all(|group| group[0].program.ours()), "{tight:?}");
            for kind in KINDS.iter().filter(|kind| kind.of == Kindred::Sizes && !kind.program.ours()) {
                assert_eq!(tight.iter().flatten().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
            }
        }
        assert_eq!(
            names(groups(&FAMILIES[2], "image", &KINDS, 8.0)),
            ["ours ours-in-bf16 ours-in-int8 onnx-f32 onnx-int8"]
        );
        let bge = FAMILIES.iter().find(|family| family.name == "bge-small").unwrap();
        assert_eq!(
            names(groups(bge, "text", &KINDS, 16.0)),
            [
                "ours-f32 ours-bf16 torch-f32 torch-compile-f32 onnx-f32 llama-f32",
                "ours-affine8 ours-int8 onnx-int8 llama-q8_0",
                "ours-affine4 llama-q4_0"
            ]
        );
        let siglip = FAMILIES.iter().find(|family| family.name == "siglip").unwrap();
        assert_eq!(names(groups(siglip, "images", &KINDS, 16.0))[1..], ["ours-int8 onnx-int8"]);
    }

    #[test]
    fn an_arm_on_a_checkpoint_is_timed_where_its_vectors_are_ours() {
        let kind = |name| KINDS.iter().find(|kind| kind.name == name && kind.of == Kindred::Checkpoint).unwrap();
        let found = |vector: [f64; 2]| Found { texts: Vec::new(), vectors: vec![vector.to_vec()] };
        let (ours, near, far) = (found([1.0, 0.0]), found([1.0, 0.1]), found([1.0, 0.5]));
        assert_eq!(compared(kind("ours-f32"), Some(&ours), None), Ok(None));
        assert!(compared(kind("llama-q8_0"), Some(&near), Some(&ours)).unwrap().is_some_and(|cosine| cosine > 0.99));
        assert!(compared(kind("llama-q4_0"), Some(&far), Some(&ours)).unwrap().is_some());
        for (name, found, ours) in [
            ("onnx-f32", Some(&near), Some(&ours)),
            ("llama-f32", Some(&found([1.0, 0.0157])), Some(&ours)),
            ("onnx-int8", Some(&far), Some(&ours)),
            ("torch-f32", None, Some(&ours)),
            ("torch-f32", Some(&ours), None),
        ] {
            assert!(compared(kind(name), found, ours).is_err(), "{name}");
        }
        let other = KINDS.iter().find(|kind| kind.name == "torch-bf16").unwrap();
        assert_eq!(compared(other, None, Some(&ours)), Ok(None));
    }

    #[test]
    fn cases_of_one_kind_run_with_the_same_arms() {
        let cases = ["text:1x16", "image:512", "text:1x128"].map(String::from);
        let found = by_modality(&cases);
        assert_eq!(found[0], ("text".into(), vec!["text:1x16".into(), "text:1x128".into()]));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_row_says_its_ratio_and_its_share_or_why_it_was_not_run() {
        let times = Times {
            runs: 5,
            median: 30.0,
            p10: 29.0,
            p90: 131.0,
            ours: Some(20.0),
            share: Some(0.456),
            cosine: Some(0.99987),
            what: "PyTorch".into(),
        };
        let row = |outcome| Row { family: "small", case: "text:1x16".into(), arm: "torch-f32", threads: 2, outcome };
        let table = markdown(&[row(Ok(times)), row(Err("no | module".into()))]);
        assert!(
            table.contains("| small | text:1x16 | torch-f32 | 2 | 30.0 | 29.0 to 131 | 1.50 | 46 % | 0.9999 |"),
            "{table}"
        );
        assert!(table.contains("| not run: no / module |") && table.contains("- torch-f32: PyTorch"), "{table}");
    }

    #[test]
    fn places_in_times_are_between_neighbours() {
        assert_eq!((at(&[3.0, 1.0], 0.5), at(&[5.0], 0.9), at(&[1.0, 2.0, 3.0], 0.5)), (2.0, 5.0, 2.0));
    }

    #[test]
    fn a_peak_is_the_largest_that_was_found() {
        let mut peak = Peak::default();
        peak.take(&json!({ "matmul_f32_gflops": 300.0, "matmul_bf16_gflops": null, "memory_read_gb_per_s": 40.0 }));
        peak.take(&json!({ "matmul_f32_gflops": 200.0, "matmul_bf16_gflops": 800.0 }));
        assert_eq!((peak.of("f32"), peak.of("low"), peak.read_gb_per_s), (Some(300.0), Some(800.0), Some(40.0)));
    }
}
