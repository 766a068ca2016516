//! The encoders of Qwen3-Omni at full size under concurrent requests: each request alone, one after the other, as a wrapper
//! calls them, against requests that share passes; transformers' own encoders beside both, in turns.
//!
//! Weights are random in bf16; images are noise and audio is tones, another one for each request; rows come back to the host
//! with the DeepStack sets, as a decoder would get them. A round is every arm once, and what is printed is the least of all
//! rounds. `OMNIBURN_BENCH_PYTHON` names a Python with torch and transformers for the other arms, `OMNIBURN_BENCH_ROUNDS`
//! the number of rounds up to 8 requests (2; above it is one). Run as a test it opens nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use omniburn::{Dtype, Engine, Input, OutputKind, Priority, RecordFolder, Request, Role};
use omniburn_benches::{noise, records, tones};
use omniburn_models::FamilyConfig;
use omniburn_models::families::Qwen3OmniEncodersConfig;
use omniburn_models::record::write_random_encoders;

/// Requests at once.
const CONCURRENT: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// What each of them holds.
const CASES: [&str; 3] = ["audio:1s", "audio:5s", "image:256"];
/// Least and largest area of an image, as published.
const PIXELS: (u64, u64) = (65_536, 16_777_216);

fn record() -> PathBuf {
    let path = records().join("qwen3-omni-encoders-bf16");
    let same = |record: RecordFolder| record.header().family == FamilyConfig::new(Qwen3OmniEncodersConfig::published());
    if !RecordFolder::open(&path).is_ok_and(same) {
        write_random_encoders(&path, &Qwen3OmniEncodersConfig::published(), Dtype::Bf16, PIXELS, 1)
            .expect("a record can be written");
    }
    path
}

/// A request's input; another `seed` gives another one of the same size.
fn input(case: &str, seed: usize) -> Input {
    let (kind, size) = case.split_once(':').expect("a kind and a size");
    match kind {
        "audio" => {
            let seconds: f64 = size.trim_end_matches('s').parse().expect("seconds");
            let gain = 1.0 / (1.0 + seed as f32);
            let samples: Vec<f32> = tones(seconds).into_iter().map(|sample| gain * sample).collect();
            Input::audio_samples(samples, 16_000)
        }
        _ => {
            let side = size.parse().expect("pixels");
            Input::image_pixels(noise(side, side, seed as u32))
        }
    }
}

/// Milliseconds until every request has its rows; all are there at once.
fn ours(engine: &Engine, case: &str, count: usize, shared: bool) -> f64 {
    let inputs: Vec<Input> = (0..count).map(|seed| input(case, seed)).collect();
    let request = Request::new(Role::None).outputs([OutputKind::Features]).priority(Priority::Background);
    let request = if shared { request } else { request.isolated() };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for input in &inputs {
            scope.spawn(|| {
                let results =
                    engine.embed_with(std::slice::from_ref(input), &request).expect("a request that is taken");
                let features = results[0].as_ref().expect("rows").features.as_ref().expect("asked for");
                assert!(!features.rows.is_empty());
            });
        }
    });
    started.elapsed().as_secs_f64() * 1e3
}

/// Transformers' own encoders, in a process of their own.
struct Peer {
    process: Child,
    hears: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/encoders.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the Python that was named");
        let (hears, says) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let mut peer = Self { process, hears, says: BufReader::new(says) };
        println!("beside {}", peer.line()["ready"]);
        peer
    }

    fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the peer answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the peer said {line:?}"))
    }

    /// Milliseconds of a case.
    fn time(&mut self, case: &str, count: usize, mode: &str) -> f64 {
        let asked = serde_json::json!({ "case": format!("{case}:{count}:{mode}"), "runs": 1 });
        writeln!(self.hears, "{asked}").expect("the peer listens");
        let answer = self.line();
        answer["ms"][0].as_f64().unwrap_or_else(|| panic!("{answer}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds: usize = std::env::var("OMNIBURN_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let engine = Engine::builder(record()).dtype(Dtype::Bf16).budget(12 << 30).open().expect("a fresh record opens");
    let mut peer = std::env::var("OMNIBURN_BENCH_PYTHON").ok().map(|python| Peer::start(&python));
    println!(
        "{:10} {:>4} {:>10} {:>10} {:>7}   {:>12} {:>12}",
        "case", "n", "alone ms", "shared ms", "ratio", "torch alone", "torch batch"
    );
    for case in CASES {
        // Costs are learnt, so that passes are as large as they will be.
        for count in [1, 8, 8] {
            ours(&engine, case, count, true);
        }
        for count in CONCURRENT {
            let mut least = [f64::INFINITY; 4];
            // Many requests are a mean already.
            for _ in 0..if count > 8 { 1 } else { rounds } {
                let mut found = vec![ours(&engine, case, count, false), ours(&engine, case, count, true)];
                if let Some(peer) = &mut peer {
                    found.extend(["alone", "batch"].map(|mode| peer.time(case, count, mode)));
                }
                least.iter_mut().zip(found).for_each(|(least, ms)| *least = least.min(ms));
            }
            let [alone, shared, torch, batch] = least;
            println!(
                "{case:10} {count:>4} {alone:>10.1} {shared:>10.1} {:>7.2}   {torch:>12.1} {batch:>12.1}",
                alone / shared
            );
        }
    }
}
