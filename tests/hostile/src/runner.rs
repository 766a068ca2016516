//! The runner on the stable toolchain.
//!
//! Each target runs in a child process, so that an abort, an overflow of the stack or a hang is seen and named like any
//! other finding. An input is a function of seed, target and number alone: the child only tells which number it is at,
//! and the parent makes the same bytes again for the file that it keeps.

use std::alloc::System;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cap::Cap;
use clap::Parser;
use fastrand::Rng;

use crate::{MOST_SECONDS, Target, mutate, panics, targets};

/// The allocator that a program with this runner must have as its global one.
pub type Allocator = Cap<System>;

/// An allocator without a limit so far.
#[must_use]
pub const fn allocator() -> Allocator {
    Cap::new(System, usize::MAX)
}

/// How often the parent looks at its child.
const LOOK: Duration = Duration::from_millis(20);
/// A run that takes next to no processor time for so long waits for something that does not come.
const MOST_WAITING: Duration = Duration::from_secs(60);
/// Next to none, in seconds: a machine with much else to do gives more.
const NO_WORK: f64 = 0.05;
/// The exit code of a child that found something and has said what.
const FOUND: i32 = 86;

/// Hostile bytes for everything that reads what others wrote.
#[derive(Debug, Parser)]
#[command(
    name = "omniburn-hostile",
    after_help = "Examples:\n  \
    omniburn-hostile --list\n  \
    omniburn-hostile --seconds 10\n  \
    omniburn-hostile --target png --target gif --seconds 60 --seed 7\n  \
    omniburn-hostile --target png --replay png-7-1234.bin\n\n\
    Exit codes: 0 nothing found; 1 something found, each with a file and the command that replays it."
)]
struct Cli {
    /// How long each target runs
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Only this target; may repeat
    #[arg(long, value_name = "NAME", value_parser = known)]
    target: Vec<Target>,
    /// Another seed gives other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the targets with their limits and shares of a long run, and run none
    #[arg(long)]
    list: bool,
    /// Run one input once
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
    /// Write the valid files each target begins with to DIR/TARGET, for libFuzzer, and run none
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    write_seeds: Option<PathBuf>,
    /// Where inputs that were found are kept; the temporary folder if not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where a child tells its number
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0);
    parsed.ok_or_else(|| "expected a number of seconds above zero".into())
}

fn known(name: &str) -> Result<Target, String> {
    crate::target(name).ok_or_else(|| {
        let names: Vec<&str> = targets().iter().map(|target| target.name).collect();
        format!("no such target; there are {}", names.join(", "))
    })
}

/// The program: reads its arguments and runs.
#[must_use]
pub fn main(allocator: &'static Allocator) -> ExitCode {
    match run(&Cli::parse(), allocator) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True if nothing was found.
fn run(cli: &Cli, allocator: &'static Allocator) -> io::Result<bool> {
    let chosen = if cli.target.is_empty() { targets() } else { cli.target.clone() };
    if cli.list {
        println!("{:<12} {:>9} {:>13}", "target", "limit", "of a long run");
        for Target { name, limit_mib, share, .. } in chosen {
            println!("{name:<12} {limit_mib:>5} MiB {share:>9} ‰");
        }
        return Ok(true);
    }
    if let Some(folder) = &cli.write_seeds {
        for target in chosen {
            target.write_seeds(&folder.join(target.name))?;
        }
        return Ok(true);
    }
    if let Some(progress) = &cli.child {
        let target = chosen[0];
        let (seconds, seed) = (cli.seconds, cli.seed);
        let progress = fs::OpenOptions::new().write(true).open(progress)?;
        on_a_thread(move || child(&target, seconds, seed, progress, allocator));
        return Ok(true);
    }
    if let Some(file) = &cli.replay {
        let (target, input) = (chosen[0], fs::read(file)?);
        return Ok(on_a_thread(move || replay(&target, &input, allocator)));
    }
    let out = cli.out.clone().unwrap_or_else(|| std::env::temp_dir().join("omniburn-hostile"));
    println!("{}", Row::HEAD);
    // As many side by side as there are cores: each child is one thread, and its processor time is what counts.
    let (next, cores) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(1, usize::from));
    let take = || -> io::Result<usize> {
        let mut clean = 0;
        while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            clean += usize::from(watched(target, cli, &out)?);
        }
        Ok(clean)
    };
    let clean: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(take)).collect();
        let found = threads.into_iter().map(|thread| thread.join().expect("a thread that waits does not panic"));
        found.sum::<io::Result<usize>>()
    })?;
    println!("{clean} of {} targets found nothing; seed {}, {} s each", chosen.len(), cli.seed, cli.seconds);
    Ok(clean == chosen.len())
}

/// A thread with the stack that the engine's workers have.
fn on_a_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = std::thread::Builder::new().name("hostile".into()).spawn(work).expect("a thread can be started");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The input of a number: the valid files first, then changed ones.
fn input(seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    if let Some(valid) = usize::try_from(number).ok().and_then(|number| seeds.get(number)) {
        return valid.clone();
    }
    // An odd factor: neighbours in seed and number have states far apart.
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let (one, other) = (rng.usize(..seeds.len()), rng.usize(..seeds.len()));
    mutate::mutated(&seeds[one], &seeds[other], &mut rng)
}

/// One run within its limits: what was wrong, if anything.
fn once(target: &Target, input: &[u8], allocator: &Allocator) -> Result<Duration, String> {
    let limit = allocator.allocated().saturating_add(target.limit_mib << 20);
    let (before, user_before) = (processor_time(), user_time_of(std::process::id()));
    // Beyond the limit the allocator refuses, and what does not expect that ends the process: the parent sees it.
    allocator.set_limit(limit).map_err(|()| "the limit is below what is held".to_owned())?;
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.body)(input)));
    allocator.set_limit(usize::MAX).map_err(|()| "no limit is below what is held".to_owned())?;
    let took = processor_time().saturating_sub(before);
    if let Some(place) = panics::seen().ours {
        return Err(format!("a panic in our own code: {place}"));
    }
    if outcome.is_err() {
        let theirs = panics::seen().theirs;
        return Err(format!("a panic of a third party that nobody caught, one of {theirs:?}"));
    }
    if took.as_secs_f64() > MOST_SECONDS {
        // What the system did in its name, such as clearing the pages of a large canvas, depends on what else the machine
        // does, and is bounded by the memory limit.
        let worked = match (user_before, user_time_of(std::process::id())) {
            (Some(before), Some(now)) => now - before,
            _ => took.as_secs_f64(),
        };
        if worked > MOST_SECONDS {
            return Err(format!("{worked:.2} s of processor time, expected at most {MOST_SECONDS}"));
        }
    }
    Ok(took)
}

/// Runs inputs until the time is over, and prints what came of it.
fn child(target: &Target, seconds: f64, seed: u64, mut progress: File, allocator: &Allocator) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no valid file", target.name);
    panics::watch(|_| {});
    let (held, start) = (allocator.allocated(), Instant::now());
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    while start.elapsed().as_secs_f64() < seconds {
        let input = input(&seeds, seed, runs);
        progress.rewind().and_then(|()| progress.write_all(&runs.to_le_bytes())).expect("progress can be written");
        match once(target, &input, allocator) {
            Ok(took) => slowest = slowest.max(took),
            Err(why) => {
                println!("{why}");
                std::process::exit(FOUND);
            }
        }
        runs += 1;
    }
    let peak = allocator.max_allocated().saturating_sub(held);
    let theirs = panics::seen().theirs;
    let row = Row { name: target.name, runs, seconds: start.elapsed().as_secs_f64(), slowest, peak };
    println!("{}", row.line(theirs.values().sum()));
    for (place, times) in theirs {
        println!("  contained {times} times: {place}");
    }
}

struct Row {
    name: &'static str,
    runs: u64,
    seconds: f64,
    slowest: Duration,
    peak: usize,
}

impl Row {
    const HEAD: &str = "target             runs     s   runs/s  slowest s  peak MiB  contained panics";

    fn line(&self, contained: u64) -> String {
        let Row { name, runs, seconds, slowest, peak } = self;
        let (each, slowest, peak) = (*runs as f64 / seconds, slowest.as_secs_f64(), *peak as f64 / f64::from(1 << 20));
        format!("{name:<12} {runs:>10} {seconds:>5.1} {each:>8.0} {slowest:>10.3} {peak:>9.1} {contained:>17}")
    }
}

/// Starts a child, watches it, and keeps the input that it failed at. True if it found nothing.
fn watched(target: &Target, cli: &Cli, out: &Path) -> io::Result<bool> {
    let mut progress = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--target", target.name, "--seconds", &cli.seconds.to_string(), "--seed", &cli.seed.to_string()]);
    let mut child = command.arg("--child").arg(progress.path()).spawn()?;
    let why = match watch(&mut child, &mut progress)? {
        End::Exit(status) if status.success() => return Ok(true),
        End::Exit(status) if status.code() == Some(FOUND) => "what is said above".to_owned(),
        End::Exit(status) => format!("the process ended with {status}: memory over the limit, or the stack"),
        End::Hang(why) => why,
    };
    let number = number(&mut progress)?;
    fs::create_dir_all(out)?;
    let file = out.join(format!("{}-{}-{number}.bin", target.name, cli.seed));
    fs::write(&file, input(&(target.seeds)(), cli.seed, number))?;
    println!("FOUND  {}: {why}", target.name);
    println!("  input   {}", file.display());
    println!("  replay  cargo run -p omniburn-hostile -- --target {} --replay {}", target.name, file.display());
    Ok(false)
}

enum End {
    Exit(ExitStatus),
    Hang(String),
}

/// Waits for the end of a child, and ends it where one input takes too long.
fn watch(child: &mut Child, progress: &mut tempfile::NamedTempFile) -> io::Result<End> {
    let (mut at, mut since, mut spent) = (u64::MAX, Instant::now(), user_time_of(child.id()));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exit(status));
        }
        let now = number(progress)?;
        if now != at {
            (at, since, spent) = (now, Instant::now(), user_time_of(child.id()));
        } else if since.elapsed().as_secs_f64() > MOST_SECONDS {
            // A machine with much to do is no hang: processor time counts, where the system tells it.
            let worked = match (spent, user_time_of(child.id())) {
                (Some(before), Some(now)) => now - before,
                _ => since.elapsed().as_secs_f64(),
            };
            // The time is read in steps of 10 ms, and a little late.
            let hangs = worked > MOST_SECONDS + 0.1;
            let waits = since.elapsed() > MOST_WAITING && worked < NO_WORK;
            if hangs || waits {
                child.kill()?;
                child.wait()?;
                let waited = since.elapsed().as_secs_f64();
                return Ok(End::Hang(format!("no end after {worked:.2} s of work and {waited:.2} s of waiting")));
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// The number of the input that a child is at; zero before it begins.
fn number(progress: &mut tempfile::NamedTempFile) -> io::Result<u64> {
    let mut bytes = [0; 8];
    progress.rewind()?;
    match progress.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read.map(|()| u64::from_le_bytes(bytes)),
    }
}

fn replay(target: &Target, input: &[u8], allocator: &Allocator) -> bool {
    panics::watch(|what| eprintln!("{what}"));
    let held = allocator.allocated();
    let outcome = once(target, input, allocator);
    let peak = allocator.max_allocated().saturating_sub(held) as f64 / f64::from(1 << 20);
    match outcome {
        Ok(took) => println!("nothing found in {:.3} s, {peak:.1} MiB", took.as_secs_f64()),
        Err(why) => {
            println!("found: {why}");
            return false;
        }
    }
    for (place, times) in panics::seen().theirs {
        println!("  contained {times} times: {place}");
    }
    true
}

/// Processor time of this process.
#[cfg(unix)]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Elsewhere the clock on the wall, which is no less.
#[cfg(not(unix))]
fn processor_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Processor seconds that a process spent in its own code, where the system tells them in a file.
#[cfg(target_os = "linux")]
fn user_time_of(process: u32) -> Option<f64> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything; of what follows, user time is the twelfth field.
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()?;
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(not(target_os = "linux"))]
fn user_time_of(_: u32) -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["x", "--target", "no-such"]).is_err());
        assert!(Cli::try_parse_from(["x", "--seconds", "0"]).is_err());
    }

    #[test]
    fn an_input_is_a_function_of_seed_and_number() {
        let seeds = vec![b"one seed".to_vec(), vec![7; 40]];
        assert_eq!(input(&seeds, 3, 1), seeds[1]);
        let different = (2..400).filter(|n| input(&seeds, 3, *n) != input(&seeds, 4, *n)).count();
        assert!(different > 380, "{different}");
        assert!((2..400).all(|n| input(&seeds, 3, n) == input(&seeds, 3, n)));
    }

    #[test]
    fn shares_of_a_long_run_add_up_and_names_stand_once() {
        let all = targets();
        let names: std::collections::BTreeSet<&str> = all.iter().map(|target| target.name).collect();
        assert_eq!(names.len(), all.len());
        let with_av1 = if cfg!(feature = "av1") { 1 } else { 0 };
        assert_eq!(all.iter().map(|target| target.share).sum::<u32>(), 1000 + with_av1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processor_time_of_a_process_grows_as_it_works() {
        let before = (user_time_of(std::process::id()).unwrap(), processor_time());
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        assert!(processor_time() > before.1 && user_time_of(std::process::id()).unwrap() > before.0);
    }
}
