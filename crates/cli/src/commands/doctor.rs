//! `omniburn doctor`: one page about this machine, this build and a model on it, to paste into a bug report. It holds no
//! path, no name of a user and nothing of any input.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use omniburn::kernels::{Isa, KernelChoice};
use omniburn::probe::KernelRow;
use omniburn::{BackendKind, BackendSpec, DurationStats, Engine, EngineError, Modality};
use omniburn_diagnostics::{ItemRow, LoadReport, SelfTest, Stored, load_test, self_test};
use serde::Serialize;

use super::{bench, checked, kernels, mebibytes, shipped, table, tuning_folder, with_kernels, with_tuning};
use crate::args::DoctorArgs;
use crate::failure::{DONE, Failure, INTERRUPTED, Outcome, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{json_line, write_stdout};
use crate::progress::items_bar;

/// How long queries are asked beside background work.
const LOAD: Duration = Duration::from_secs(2);
/// Steps of the progress bar: machine, devices, instructions, model, operations, vectors, load, times of instructions.
const STEPS: u64 = 8;
/// What is timed with each set of instructions: few rows, many rows, and a convolution where the model has one.
const CASES: [(&str, Modality); 3] =
    [("text:1x16", Modality::Text), ("text:16x128", Modality::Text), ("image:224", Modality::Image)];
/// Rounds of a case at most, and how long they may take; three are run anyway.
const ROUNDS: usize = 15;
const ROUNDS_TIME: Duration = Duration::from_millis(1500);
/// A set that takes so many times as long as another in the first round of a case runs no second one.
const HOPELESS: f64 = 3.0;
/// A set that would take longer than this, by its first case, does not run the next ones.
const LONGEST: Duration = Duration::from_secs(10);
/// How much longer than the fastest the chosen set may take without a word.
const WITHIN: f64 = 1.05;

/// Instruction sets as users call them, with the names Linux gives them on x86 and on ARM.
const INSTRUCTIONS: [(&str, &[&str]); 8] = [
    ("AMX", &["amx_tile"]),
    ("AMX-BF16", &["amx_bf16"]),
    ("AMX-INT8", &["amx_int8"]),
    ("AVX512-BF16", &["avx512_bf16"]),
    ("AVX512-VNNI", &["avx512_vnni"]),
    ("AVX-512", &["avx512f"]),
    ("AVX2", &["avx2"]),
    ("NEON", &["asimd", "neon"]),
];

/// Everything that was found; the page and the JSON object are two views of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    omniburn: &'static str,
    features: Vec<&'static str>,
    machine: Machine,
    /// First word of what FFmpeg calls its version.
    ffmpeg: Option<String>,
    backends: Vec<Backend>,
    model: Option<Model>,
    kernels: Vec<Kernel>,
    items: Vec<Item>,
    stored_vectors: Option<String>,
    load: Option<Load>,
    /// The processor's instructions, where a CPU computes.
    instructions: Option<Instructions>,
    /// What is not well, a sentence each.
    failures: Vec<String>,
    ok: bool,
}

#[derive(Debug, Default, Serialize)]
struct Machine {
    system: String,
    architecture: &'static str,
    processor: String,
    cores: Option<usize>,
    threads: usize,
    instructions: Vec<&'static str>,
    /// `None` where this system does not tell.
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    /// What the operating system lets this process have, where that is less.
    limit_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    compiled: bool,
    starts: bool,
    /// Why it does not start.
    reason: Option<String>,
    dtypes: Vec<&'static str>,
    fast_low_precision: bool,
}

#[derive(Debug, Serialize)]
struct Model {
    name: String,
    identity: String,
    device: String,
    dtype: &'static str,
    modalities: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    kernel: &'static str,
    shape: String,
    against: &'static str,
    /// `null` where it is infinite.
    largest: f32,
    bound: f32,
    ok: bool,
    ms: f64,
    failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct Item {
    item: &'static str,
    modality: &'static str,
    tokens: usize,
    unit: f32,
    batched: f32,
    batched_bound: f32,
    stored_largest: Option<f32>,
    stored_cosine: Option<f32>,
    ok: bool,
    ms: f64,
    failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct Load {
    seconds: f64,
    background_items: u64,
    query_idle: Times,
    query_loaded: Times,
    query_wait: Times,
    query_hold: Times,
    background_wait: Times,
    background_hold: Times,
}

#[derive(Debug, Serialize)]
struct Instructions {
    /// What the engine computes with.
    chosen: Isa,
    /// `measured now` or `measured before`.
    by: &'static str,
    /// Whether later runs find it.
    kept: bool,
    /// What the measurement took, where it was made now.
    measured_ms: Option<f64>,
    /// Every set that is there, the richest first.
    sets: Vec<SetTimes>,
    /// How many times as long as the fastest set the chosen one takes, in the case where that is most.
    behind: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SetTimes {
    instructions: Isa,
    /// The best of one or several runs of each case, in the order of the cases; `null` where one would have taken too long.
    ms: Vec<Option<f64>>,
    cases: Vec<&'static str>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Times {
    count: u64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Examines and prints.
///
/// # Errors
/// A device that was asked for and cannot be used, a model that was refused, an interruption, or a closed pipe; what was
/// found until then is printed before.
pub fn run(args: &DoctorArgs) -> Outcome {
    on_interrupt(|| std::process::exit(i32::from(INTERRUPTED)));
    let bar = items_bar(Some(STEPS), "examining", false);
    let mut report = Report { omniburn: env!("CARGO_PKG_VERSION"), features: features(), ..Report::default() };
    report.machine = machine();
    report.ffmpeg = ffmpeg();
    bar.inc(1);
    report.backends =
        BackendKind::ALL.into_iter().map(|(kind, ..)| backend(BackendSpec { kind, index: None })).collect();
    bar.inc(1);
    let on_cpu = args.device.unwrap_or_default().kind == BackendKind::Flex;
    let choice = on_cpu.then(|| choose(args.measure_again));
    bar.inc(1);
    let engine = open(args.model.as_deref(), args.device, choice.as_ref().map(|(choice, _)| choice.clone()));
    report.instructions = choice.map(|(_, instructions)| instructions);
    bar.inc(1);
    let outcome = match engine {
        Ok(engine) => {
            report.model = Some(model(&engine));
            // The progress of the self-test is that of the bar: its two parts take about as long as each other.
            report.take(self_test(&engine, &|_| bar.inc(1)));
            report.take_load(load_test(&engine, LOAD));
            bar.inc(1);
            if let Some(instructions) = &mut report.instructions {
                instructions.take(time_sets(&engine));
            }
            bar.inc(1);
            report.ok = report.failures.is_empty();
            Ok(if report.ok { DONE } else { SOME_FAILED })
        }
        Err(failure) => {
            report.failures.push(format!("the model could not be opened, exit code {}", failure.code()));
            Err(failure)
        }
    };
    bar.finish_and_clear();
    if args.json {
        json_line(&report)?;
    } else {
        write_stdout(for_people(&report).as_bytes())?;
    }
    outcome
}

/// The choice of kernels: the one that is kept, else one that is measured and kept.
fn choose(again: bool) -> (KernelChoice, Instructions) {
    let kept = if again { None } else { kernels::kept() };
    let (choice, by, kept, measured_ms) = match kept {
        Some(choice) => (choice, "measured before", true, None),
        None => {
            let started = Instant::now();
            let (choice, kept) = kernels::measure();
            (choice, "measured now", kept, Some(ms(started.elapsed())))
        }
    };
    let instructions = Instructions { chosen: choice.isa, by, kept, measured_ms, sets: Vec::new(), behind: None };
    (choice, instructions)
}

/// The times of every set that is there, in each case that the model takes.
fn time_sets(engine: &Engine) -> Vec<SetTimes> {
    let takes = engine.profile().modalities;
    let sets: Vec<Isa> = Isa::ALL.into_iter().rev().filter(|isa| isa.is_available()).collect();
    let mut found: Vec<SetTimes> =
        sets.iter().map(|&instructions| SetTimes { instructions, ms: Vec::new(), cases: Vec::new() }).collect();
    for (case, _) in CASES.into_iter().filter(|(_, modality)| takes.contains(modality)) {
        // A model that reads no text so long has no such case.
        let Ok((inputs, request)) = bench::inputs(engine, case) else { continue };
        let run = |isa| {
            Isa::force(Some(isa)).expect("it is there");
            let started = Instant::now();
            let results = engine.embed_with(&inputs, &request).ok()?;
            results.iter().all(Result::is_ok).then(|| ms(started.elapsed()))
        };
        // Whatever comes first finds parts closed and memory fresh.
        let Some(first) = sets.first().copied() else { continue };
        let Some(_) = run(first) else { continue };
        let best = best_of(&sets, run, |isa, least_ms| {
            let by_the_case_before = found.iter().filter_map(|set| Some((set.instructions, (*set.ms.first()?)?)));
            let before: Vec<(Isa, f64)> = by_the_case_before.collect();
            let least = before.iter().map(|(_, ms)| *ms).reduce(f64::min);
            let own = before.iter().find(|(of, _)| *of == isa).map(|(_, ms)| *ms);
            let times = own.zip(least).map_or(1.0, |(own, least)| own / least);
            least_ms * times <= LONGEST.as_secs_f64() * 1e3
        });
        for (set, ms) in found.iter_mut().zip(best) {
            set.ms.push(ms);
            set.cases.push(case);
        }
    }
    let _ = Isa::force(None);
    found
}

/// The best time of each set, in turns: those that are far behind in the first round run no second one, and those that
/// `worth` says no to, by the best time so far, run none.
fn best_of(sets: &[Isa], run: impl Fn(Isa) -> Option<f64>, worth: impl Fn(Isa, f64) -> bool) -> Vec<Option<f64>> {
    let begun = Instant::now();
    let mut best: Vec<Option<f64>> = vec![None; sets.len()];
    for round in 0..ROUNDS {
        if round >= 3 && begun.elapsed() > ROUNDS_TIME {
            break;
        }
        for (at, &isa) in sets.iter().enumerate() {
            let least = best.iter().flatten().copied().reduce(f64::min);
            let skipped = match (round, best[at], least) {
                (0, _, Some(least)) => !worth(isa, least),
                (0, _, None) => false,
                (_, Some(own), Some(least)) => own > HOPELESS * least,
                (_, None, _) | (_, _, None) => true,
            };
            if !skipped && let Some(ms) = run(isa) {
                best[at] = Some(best[at].map_or(ms, |own| own.min(ms)));
            }
        }
    }
    best
}

impl Instructions {
    fn take(&mut self, sets: Vec<SetTimes>) {
        let chosen = sets.iter().find(|set| set.instructions == self.chosen);
        let behind = chosen.into_iter().flat_map(|chosen| chosen.ms.iter().enumerate()).filter_map(|(case, own)| {
            let all = sets.iter().filter_map(|set| set.ms.get(case).copied().flatten());
            Some((*own)? / all.reduce(f64::min)?)
        });
        self.behind = behind.reduce(f64::max).map(|behind| (behind * 1e3).round() / 1e3);
        self.sets = sets;
    }
}

fn open(model: Option<&Path>, device: Option<BackendSpec>, kernels: Option<KernelChoice>) -> Result<Engine, Failure> {
    let device = device.unwrap_or_default();
    // Before the record, so that a device that is not there is the error.
    device.probe(tuning_folder(device).as_deref())?;
    let builder = match model {
        Some(path) => Engine::builder(checked(path)?),
        None => shipped()?,
    };
    Ok(with_kernels(with_tuning(builder, device), kernels).device(device).open()?)
}

impl Report {
    fn take(&mut self, found: SelfTest) {
        if let Some(said) = &found.kernels_failure {
            self.failures.push(format!("no operation could be examined: {said}"));
        }
        for row in found.kernels.iter().filter(|row| !row.ok) {
            let KernelRow { kernel, shape, against, largest, bound, failure, .. } = row;
            let why = match failure {
                Some(said) => format!("panicked: {said}"),
                None => format!("is {largest:.1e} from its {against}, at most {bound:.0e} is right"),
            };
            self.failures.push(format!("{kernel} ({shape}) {why}"));
        }
        for row in found.items.iter().filter(|row| !row.ok) {
            self.failures.push(item_failure(row));
        }
        self.stored_vectors = Some(match &found.stored {
            Stored::Absent => "none in this record".into(),
            Stored::Compared(count) => format!("{count} compared"),
            Stored::Refused(why) => {
                self.failures.push(format!("stored vectors refused: {why}"));
                "refused".into()
            }
        });
        if !found.ok() && self.failures.is_empty() {
            self.failures.push("nothing was examined".into());
        }
        self.kernels = found.kernels.into_iter().map(Kernel::from).collect();
        self.items = found.items.into_iter().map(Item::from).collect();
    }

    fn take_load(&mut self, found: Result<LoadReport, EngineError>) {
        match found {
            Ok(load) => self.load = Some(Load::from(load)),
            Err(e) => self.failures.push(format!("under load: {e}")),
        }
    }
}

fn item_failure(row: &ItemRow) -> String {
    let ItemRow { item, unit, batched, batched_bound, stored, failure, .. } = row;
    if let Some(said) = failure {
        return format!("{item}: {said}");
    }
    let mut parts = Vec::new();
    if batched > batched_bound {
        parts.push(format!("is {batched:.1e} another in a batch, at most {batched_bound:.0e} is right"));
    }
    if let Some(d) = stored.filter(|d| d.largest > d.bound || d.cosine < d.least_cosine) {
        let (largest, cosine) = (d.largest, d.cosine);
        parts.push(format!("is {largest:.1e} from its stored vector, at a cosine of {cosine:.6}"));
    }
    if parts.is_empty() {
        parts.push(format!("is not of unit length, by {unit:.1e}"));
    }
    format!("{item} {}", parts.join(" and "))
}

impl From<KernelRow> for Kernel {
    fn from(row: KernelRow) -> Self {
        let KernelRow { kernel, shape, against, largest, bound, ok, time, failure } = row;
        Self { kernel, shape, against, largest, bound, ok, ms: ms(time), failure }
    }
}

impl From<ItemRow> for Item {
    fn from(row: ItemRow) -> Self {
        Self {
            item: row.item,
            modality: row.modality.name(),
            tokens: row.tokens,
            unit: row.unit,
            batched: row.batched,
            batched_bound: row.batched_bound,
            stored_largest: row.stored.map(|d| d.largest),
            stored_cosine: row.stored.map(|d| d.cosine),
            ok: row.ok,
            ms: ms(row.time),
            failure: row.failure,
        }
    }
}

impl From<LoadReport> for Load {
    fn from(load: LoadReport) -> Self {
        let (queries, background) = (load.metrics.interactive, load.metrics.background);
        Self {
            seconds: load.length.as_secs_f64(),
            background_items: load.background_items,
            query_idle: load.idle.into(),
            query_loaded: load.loaded.into(),
            query_wait: queries.waits.into(),
            query_hold: queries.slices.into(),
            background_wait: background.waits.into(),
            background_hold: background.slices.into(),
        }
    }
}

impl From<DurationStats> for Times {
    fn from(stats: DurationStats) -> Self {
        let [p50_ms, p95_ms, p99_ms, max_ms] = [stats.p50, stats.p95, stats.p99, stats.max].map(ms);
        Self { count: stats.count, p50_ms, p95_ms, p99_ms, max_ms }
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What this program was built with.
fn features() -> Vec<&'static str> {
    let own = [("mini", cfg!(feature = "mini")), ("av1", cfg!(feature = "av1"))];
    let backends = BackendKind::ALL.into_iter().map(|(_, name, yes)| (name, yes));
    backends.chain(own).filter(|(_, yes)| *yes).map(|(name, _)| name).collect()
}

/// What Linux says in files; on other systems little is known, and the page says so. No crate for it: `sysinfo` was tried, and its
/// choice of features had Burn's CPU backend compiled anew.
fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let memory_bytes = kibibytes(&memory, "MemTotal");
    let limit: Option<u64> = read("/sys/fs/cgroup/memory.max").trim().parse().ok();
    Machine {
        system: system_name(&read("/etc/os-release")),
        architecture: std::env::consts::ARCH,
        processor: value(&cpus, ':', "model name").unwrap_or("unknown").to_string(),
        cores: cores(&cpus),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        instructions: instructions(&cpus),
        memory_bytes,
        available_bytes: kibibytes(&memory, "MemAvailable"),
        limit_bytes: limit.filter(|&limit| memory_bytes.is_none_or(|total| limit < total)),
    }
}

/// The first value of a name in a list with one a line.
fn value<'a>(list: &'a str, between: char, name: &str) -> Option<&'a str> {
    list.lines().filter_map(|line| line.split_once(between)).find(|(n, _)| n.trim() == name).map(|(_, v)| v.trim())
}

fn kibibytes(list: &str, name: &str) -> Option<u64> {
    let number: u64 = value(list, ':', name)?.split(' ').next()?.parse().ok()?;
    number.checked_mul(1024)
}

fn system_name(release: &str) -> String {
    let system = std::env::consts::OS;
    value(release, '=', "PRETTY_NAME").map_or(system.into(), |name| format!("{system}, {}", name.trim_matches('"')))
}

/// Physical cores: pairs of a package and a core in it, where the list names both.
fn cores(cpuinfo: &str) -> Option<usize> {
    let all = |name: &str| {
        let values = cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(n, _)| n.trim() == name);
        values.map(|(_, v)| v.trim().to_string()).collect::<Vec<_>>()
    };
    let pairs: BTreeSet<(String, String)> = all("physical id").into_iter().zip(all("core id")).collect();
    (!pairs.is_empty()).then_some(pairs.len())
}

/// The instruction sets of the first processor, as far as this system tells.
fn instructions(cpuinfo: &str) -> Vec<&'static str> {
    let linux = named(cpuinfo);
    if linux.is_empty() { by_the_processor() } else { linux }
}

/// The instruction sets that the lists of Linux name.
fn named(cpuinfo: &str) -> Vec<&'static str> {
    let list = value(cpuinfo, ':', "flags").or_else(|| value(cpuinfo, ':', "Features")).unwrap_or_default();
    let words: Vec<&str> = list.split(' ').collect();
    let has = |names: &[&str]| names.iter().any(|name| words.contains(name));
    INSTRUCTIONS.into_iter().filter(|(_, names)| has(names)).map(|(name, _)| name).collect()
}

/// The same where there are no such lists; AMX cannot be asked for in stable Rust.
fn by_the_processor() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let asked = [
            ("AVX512-BF16", std::is_x86_feature_detected!("avx512bf16")),
            ("AVX512-VNNI", std::is_x86_feature_detected!("avx512vnni")),
            ("AVX-512", std::is_x86_feature_detected!("avx512f")),
            ("AVX2", std::is_x86_feature_detected!("avx2")),
        ];
        found.extend(asked.into_iter().filter(|(_, yes)| *yes).map(|(name, _)| name));
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push("NEON");
    }
    found
}

/// The version of the FFmpeg program that videos of other codecs would go to.
fn ffmpeg() -> Option<String> {
    let output = Command::new("ffmpeg").arg("-version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.strip_prefix("ffmpeg version ")?.split_whitespace().next()?;
    output.status.success().then(|| version.to_string())
}

fn backend(spec: BackendSpec) -> Backend {
    let name = spec.kind.name();
    match spec.probe(tuning_folder(spec).as_deref()) {
        Ok(found) => Backend {
            name,
            compiled: true,
            starts: true,
            reason: None,
            dtypes: found.dtypes.iter().map(|dtype| dtype.name()).collect(),
            fast_low_precision: found.fast_low_precision,
        },
        Err(e) => {
            let compiled = !matches!(e, EngineError::BackendMissing { .. });
            let reason = compiled.then(|| e.to_string().replace('\n', " "));
            Backend { name, compiled, starts: false, reason, dtypes: Vec::new(), fast_low_precision: false }
        }
    }
}

fn model(engine: &Engine) -> Model {
    let profile = engine.profile();
    Model {
        name: profile.name,
        identity: profile.identity,
        device: profile.device,
        dtype: profile.dtype.name(),
        modalities: profile.modalities.into_iter().map(|m| m.name()).collect(),
    }
}

fn for_people(report: &Report) -> String {
    let mut text = format!("omniburn {}, built with {}\n\n", report.omniburn, report.features.join(", "));
    machine_lines(&mut text, report);
    text += "\nBackends\n";
    let rows = report.backends.iter().map(|b| {
        let state = match (&b.reason, b.compiled) {
            (Some(reason), _) => format!("does not start: {reason}"),
            (None, false) => "not in this build".into(),
            (None, true) => {
                let fast = if b.fast_low_precision { "low precision is fast" } else { "low precision is not fast" };
                format!("starts, computes in {}, {fast}", b.dtypes.join(", "))
            }
        };
        vec![b.name.to_string(), state]
    });
    text += &table(&rows.collect::<Vec<_>>());
    if let Some(model) = &report.model {
        let _ = writeln!(
            text,
            "\nModel {} on {} in {}: {}",
            model.name,
            model.device,
            model.dtype,
            model.modalities.join(", ")
        );
        let _ = writeln!(text, "  {}", model.identity);
        kernel_lines(&mut text, &report.kernels);
        item_lines(&mut text, report);
    }
    if let Some(load) = &report.load {
        load_lines(&mut text, load);
    }
    if let Some(instructions) = &report.instructions {
        instruction_lines(&mut text, instructions);
    }
    text.push('\n');
    for failure in &report.failures {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    if report.ok {
        text += "All is well.\n";
    }
    text
}

fn machine_lines(text: &mut String, report: &Report) {
    let m = &report.machine;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("system", format!("{}, {}", m.system, m.architecture));
    let cores = m.cores.map_or(String::new(), |cores| format!("{cores} cores, "));
    line("processor", format!("{}, {cores}{} threads", m.processor, m.threads));
    let lacks = INSTRUCTIONS.iter().map(|(name, _)| *name).filter(|name| !m.instructions.contains(name));
    let lacks = lacks.collect::<Vec<_>>().join(", ");
    line("", format!("has {}; has not {lacks}", m.instructions.join(", ")));
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".into(), mebibytes);
    let limit = m.limit_bytes.map_or(String::new(), |limit| format!(", limited to {}", mebibytes(limit)));
    line("memory", format!("{}, {} available{limit}", bytes(m.memory_bytes), bytes(m.available_bytes)));
    line("FFmpeg", report.ffmpeg.clone().unwrap_or_else(|| "not found: videos in HEVC and VP9 are refused".into()));
}

/// A line for each operation: its worst case of either comparison.
fn kernel_lines(text: &mut String, kernels: &[Kernel]) {
    text.push_str(
        "\nOperations: the largest difference from the portable body, from the formula, and what is allowed\n",
    );
    let mut names: Vec<&str> = Vec::new();
    for row in kernels {
        if !names.contains(&row.kernel) {
            names.push(row.kernel);
        }
    }
    let header = ["operation", "state", "cases", "portable", "formula", "allowed", "ms"].map(String::from).to_vec();
    let mut rows = vec![header];
    for name in names {
        let of: Vec<&Kernel> = kernels.iter().filter(|row| row.kernel == name).collect();
        let worst = |against: &str| {
            let of = of.iter().filter(|row| row.against == against && row.bound < 0.01);
            of.map(|row| row.largest).reduce(f32::max).map_or("-".into(), |d| format!("{d:.1e}"))
        };
        let state = if of.iter().all(|row| row.ok) { "ok" } else { "FAILED" };
        let allowed = of.iter().map(|row| row.bound).reduce(f32::min).unwrap_or_default();
        let slowest = of.iter().map(|row| row.ms).reduce(f64::max).unwrap_or_default();
        let cells =
            [worst("portable body"), worst("formula in f64"), format!("{allowed:.0e}"), format!("{slowest:.1}")];
        rows.push([vec![name.into(), state.into(), of.len().to_string()], cells.to_vec()].concat());
    }
    *text += &table(&rows);
}

fn item_lines(text: &mut String, report: &Report) {
    let stored = report.stored_vectors.as_deref().unwrap_or_default();
    let _ = writeln!(text, "\nVectors: alone against a batch, and against stored ones ({stored})");
    let header = ["item", "state", "rows", "batched", "stored", "cosine", "ms"].map(String::from).to_vec();
    let mut rows = vec![header];
    for item in &report.items {
        let difference = |d: f32| if d == 0.0 { "equal".into() } else { format!("{d:.1e}") };
        rows.push(vec![
            item.item.into(),
            if item.ok { "ok".into() } else { "FAILED".into() },
            item.tokens.to_string(),
            difference(item.batched),
            item.stored_largest.map_or("-".into(), difference),
            item.stored_cosine.map_or("-".into(), |c| format!("{c:.6}")),
            format!("{:.1}", item.ms),
        ]);
    }
    *text += &table(&rows);
}

fn load_lines(text: &mut String, load: &Load) {
    let _ =
        writeln!(text, "\nUnder load, {:.1} s, {} background items; times in ms", load.seconds, load.background_items);
    let header = ["", "", "count", "p50", "p95", "p99", "max"].map(String::from).to_vec();
    let mut rows = vec![header];
    let parts = [
        ("query", "alone", &load.query_idle),
        ("query", "under load", &load.query_loaded),
        ("query", "waits", &load.query_wait),
        ("query", "slices", &load.query_hold),
        ("background", "waits", &load.background_wait),
        ("background", "slices", &load.background_hold),
    ];
    for (class, what, t) in parts {
        let times = [t.p50_ms, t.p95_ms, t.p99_ms, t.max_ms].map(|ms| format!("{ms:.1}"));
        rows.push([vec![class.into(), what.into(), t.count.to_string()], times.to_vec()].concat());
    }
    *text += &table(&rows);
}

/// The instructions that products of affine groups take with a set; their bits are the same with all of them.
fn of_affine_groups(isa: Isa) -> &'static str {
    match isa {
        Isa::Amx | Isa::Avx512Bf16 => "AVX512-VNNI",
        Isa::Avx512 => "AVX-512",
        Isa::Avx2 => "AVX2",
        Isa::Neon | Isa::Portable => "the portable body",
    }
}

fn instruction_lines(text: &mut String, found: &Instructions) {
    let Instructions { chosen, by, kept, measured_ms, sets, behind } = found;
    let kept = if *kept { "kept for later runs" } else { "not kept: there is no cache folder that takes it" };
    let took = measured_ms.map_or(String::new(), |ms| format!(" in {ms:.0} ms"));
    let _ = writeln!(text, "\nInstructions: {chosen}, {by}{took}, {kept}; times in ms");
    let cases = sets.first().map(|set| &set.cases[..]).unwrap_or_default();
    let _ = writeln!(text, "  affine8 and affine4 by {}", of_affine_groups(*chosen));
    let mut rows = vec![["with", ""].into_iter().chain(cases.iter().copied()).map(String::from).collect::<Vec<_>>()];
    for set in sets {
        let times = set.ms.iter().map(|ms| ms.map_or("-".into(), |ms| format!("{ms:.2}")));
        let mark = if set.instructions == *chosen { "chosen" } else { "" };
        rows.push([vec![set.instructions.to_string(), mark.into()], times.collect()].concat());
    }
    *text += &table(&rows);
    match behind {
        Some(behind) if *behind > WITHIN => {
            let _ = writeln!(
                text,
                "  Another set is {behind:.2} times as fast in a case: `omniburn doctor --measure-again` while nothing else runs"
            );
        }
        Some(_) => text.push_str("  The chosen one is within 5 % of the fastest in every case.\n"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use omniburn_diagnostics::StoredDistance;

    use super::*;

    fn kernel(largest: f32) -> KernelRow {
        KernelRow {
            kernel: "attention",
            shape: "odd".into(),
            against: "portable body",
            largest,
            bound: 5e-6,
            ok: largest <= 5e-6,
            time: Duration::from_millis(2),
            failure: None,
        }
    }

    fn item(stored: f32) -> ItemRow {
        ItemRow {
            item: "a phrase",
            modality: Modality::Text,
            tokens: 7,
            unit: 0.0,
            batched: 0.0,
            batched_bound: 0.0,
            stored: Some(StoredDistance { largest: stored, bound: 1e-5, cosine: 1.0, least_cosine: 0.99 }),
            ok: stored <= 1e-5,
            time: Duration::from_millis(3),
            failure: None,
        }
    }

    fn report(kernels: Vec<KernelRow>, items: Vec<ItemRow>, stored: Stored) -> Report {
        let mut report = Report::default();
        report.take(SelfTest { kernels, kernels_failure: None, items, stored });
        report
    }

    #[test]
    fn what_failed_is_a_sentence_and_shows_on_the_page() {
        assert!(report(vec![kernel(0.0)], vec![item(0.0)], Stored::Compared(1)).failures.is_empty());
        let broken =
            report(vec![kernel(1e-3), kernel(0.0)], vec![item(3e-5)], Stored::Refused("of another record".into()));
        assert_eq!(broken.failures.len(), 3, "{:?}", broken.failures);
        for (failure, named) in broken.failures.iter().zip(["attention (odd)", "a phrase", "of another record"]) {
            assert!(failure.contains(named), "{failure}");
        }
        let page = for_people(&Report {
            model: Some(Model {
                name: "m".into(),
                identity: "i".into(),
                device: "flex".into(),
                dtype: "f32",
                modalities: vec!["text"],
            }),
            ..broken
        });
        assert!(page.contains("FAILED: attention (odd) is 1.0e-3 from its portable body"), "{page}");
        assert!(page.contains("attention  FAILED") && !page.contains("All is well"), "{page}");
        assert_eq!(report(Vec::new(), Vec::new(), Stored::Absent).failures, ["nothing was examined"]);
    }

    #[test]
    fn every_set_is_timed_in_turns_and_one_that_is_far_behind_once() {
        use std::cell::RefCell;
        let sets = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable];
        let ran = RefCell::new(Vec::new());
        let run = |isa| {
            ran.borrow_mut().push(isa);
            let slow = if ran.borrow().len() == 1 { 2.0 } else { 1.0 };
            Some(slow * [9.0, 4.0, 1.2, 1.0][sets.iter().rev().position(|set| *set == isa).unwrap()])
        };
        let best = best_of(&sets, run, |isa, first| isa != Isa::Portable || first > 5.0);
        assert_eq!(best, [Some(1.0), Some(1.2), Some(4.0), None]);
        let count = |isa| ran.borrow().iter().filter(|ran| **ran == isa).count();
        assert_eq!([count(Isa::Amx), count(Isa::Avx512), count(Isa::Avx2)], [ROUNDS, ROUNDS, 1]);
        assert_eq!(ran.borrow()[..5], [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Amx, Isa::Avx512]);
    }

    #[test]
    fn the_page_marks_the_chosen_set_and_says_when_another_is_faster() {
        let page = |chosen| {
            let (by, kept, measured_ms) = ("measured now", true, Some(31.0));
            let mut found = Instructions { chosen, by, kept, measured_ms, sets: Vec::new(), behind: None };
            let set = |instructions, ms: [Option<f64>; 2]| SetTimes {
                instructions,
                ms: ms.to_vec(),
                cases: vec!["text:1x16", "text:16x128"],
            };
            found.take(vec![
                set(Isa::Avx512Bf16, [Some(1.0), Some(160.0)]),
                set(Isa::Avx512, [Some(1.02), Some(100.0)]),
                set(Isa::Portable, [Some(9.0), None]),
            ]);
            let mut text = String::new();
            instruction_lines(&mut text, &found);
            (text, found.behind)
        };
        let (right, behind) = page(Isa::Avx512);
        assert_eq!(behind, Some(1.02));
        assert!(right.contains("Instructions: avx512, measured now in 31 ms, kept for later runs"), "{right}");
        assert!(right.contains("avx512       chosen       1.02       100.00\n"), "{right}");
        assert!(right.contains("portable") && right.contains(" -\n") && right.contains("within 5 %"), "{right}");
        let (wrong, behind) = page(Isa::Avx512Bf16);
        assert!(behind == Some(1.6) && wrong.contains("1.60 times") && !wrong.contains("within 5 %"), "{wrong}");
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_null() {
        let broken = report(vec![kernel(f32::INFINITY)], vec![item(0.0)], Stored::Absent);
        let text = serde_json::to_string(&broken).unwrap();
        assert!(text.contains("\"largest\":null"), "{text}");
    }

    #[test]
    fn what_linux_tells_is_read_and_what_it_does_not_is_nothing() {
        let cpus = "physical id\t: 0\ncore id : 0\nmodel name\t: Some CPU @ 2 GHz\nphysical id : 0\ncore id : 1\n\
                    physical id : 0\ncore id : 1\n";
        assert_eq!((cores(cpus), value(cpus, ':', "model name")), (Some(2), Some("Some CPU @ 2 GHz")));
        assert_eq!(kibibytes("MemTotal:       2048 kB\nMemAvailable: x kB\n", "MemTotal"), Some(2 << 20));
        assert_eq!(kibibytes("MemTotal:       2048 kB\nMemAvailable: x kB\n", "MemAvailable"), None);
        assert!(system_name("ID=x\nPRETTY_NAME=\"Some Linux 12\"\n").ends_with(", Some Linux 12"));
        assert_eq!((cores(""), kibibytes("", "MemTotal"), system_name("")), (None, None, std::env::consts::OS.into()));
    }

    #[test]
    fn instruction_sets_are_read_from_both_kinds_of_list() {
        let x86 = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile sse2\n";
        assert_eq!(named(x86), ["AMX", "AVX512-BF16", "AVX-512", "AVX2"]);
        assert_eq!(named("Features\t: fp asimd evtstrm aes\n"), ["NEON"]);
        assert!(named("").is_empty() && named("flags : avx22 xavx512f\n").is_empty());
    }
}
