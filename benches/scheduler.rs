//! The scheduler under load: what a query waits for while background work saturates the device, and what the queries cost
//! the background work.
//!
//! Two records: one of real shape with random weights (12 layers of 512, text only), and the model that ships, whose
//! background work is texts, images and speech. Queries are one short text each and come at random times. For each
//! record a table is printed with its judgement:
//!
//! - the p95 of a query is at most the idle p95 and one background slice, the p95 of the slices;
//! - between queries background work keeps at least 95 % of the throughput it has alone: items finished for the time
//!   that no query computed, over items finished for all the time without queries.
//!
//! Criterion's own figures are the group `scheduler under load`, ids `scheduler under load/<record>/<load>`. Each phase of the table
//! lasts `OMNIBURN_BENCH_SECONDS` (10); run as a test, phases are short and nothing is judged. Ratios count only where
//! nothing else runs on the machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use omniburn::{DEFAULT_TIME_SLICE, Dtype, Engine, Height, Input, MetricsSnapshot, RgbImage, Role, Width};
use omniburn_benches::records;
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;

/// Longest pause between two queries: half of it in the mean, so that they take a small part of the device's time.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// Queries before one is timed.
const WARM: usize = 5;
/// Share of the throughput alone that background work must keep between queries.
const KEPT: f64 = 0.95;

/// A record under test: how to open it anew, its queries, and batches of background work.
struct Subject {
    name: &'static str,
    open: Box<dyn Fn() -> Engine>,
    query: Input,
    /// A batch of equal cost for every seed, and of other inputs: equal ones might be computed once for all who ask.
    batch: Arc<dyn Fn(usize) -> Vec<Input> + Send + Sync>,
}

/// Background threads that embed one batch after another: so many, or until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    /// Each ends with the moment of its last answer.
    threads: Vec<JoinHandle<Instant>>,
}

/// Figures of one phase.
struct Phase {
    load: &'static str,
    /// Sorted.
    queries: Vec<Duration>,
    metrics: MetricsSnapshot,
    /// Background items finished a second of the time that no query computed.
    throughput: f64,
}

fn main() {
    let judged = std::env::args().any(|argument| argument == "--bench");
    let seconds = std::env::var("OMNIBURN_BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10.0);
    let length = Duration::from_secs_f64(if judged { seconds } else { 0.3 });
    let subjects = [real_shape(), shipped()];
    // Criterion first: it tells by its arguments which of them are wanted, and the tables follow.
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("scheduler under load");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(length.max(Duration::from_secs(1)));
    for subject in &subjects {
        for (load, threads) in [("idle", 0), ("1 background thread", 1), ("8 background threads", 8)] {
            let engine = (subject.open)();
            warm(&engine, subject);
            let background = Load::start(&engine, subject, threads, usize::MAX);
            let mut pauses = Pauses::new(threads as u64);
            group.bench_function(BenchmarkId::new(subject.name, load), |b| {
                b.iter_custom(|queries| (0..queries).map(|_| pauses.timed_query(&engine, &subject.query)).sum());
            });
            background.end();
        }
    }
    group.finish();
    for subject in &subjects {
        println!("\nscheduler under load: {}, times in ms", subject.name);
        println!(
            "load              queries     p50     p95     max    slices     p50     p95     max   items/s between"
        );
        let idle = idle(subject, length);
        idle.show();
        let loads =
            [(1, ["1 thread alone", "1 thread", "alone again"]), (8, ["8 threads alone", "8 threads", "alone again"])];
        let loads = loads.map(|(threads, [before, during, after])| {
            // The same work three times, so that a machine that changes its pace shows.
            [(before, false), (during, true), (after, false)].map(|(name, asks)| {
                let found = phase(subject, name, threads, asks, length);
                found.show();
                found
            })
        });
        if judged {
            judge(&idle, &loads);
        } else {
            println!("not judged: cargo bench does");
        }
    }
    criterion.final_summary();
}

impl Load {
    fn start(engine: &Engine, subject: &Subject, threads: usize, batches: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|thread| {
            let (stop, engine, batch) = (Arc::clone(&stop), engine.clone(), Arc::clone(&subject.batch));
            std::thread::spawn(move || {
                for round in 0..batches {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    engine.embed(&batch(1000 * (thread + 1) + round), Role::Document).expect("a batch embeds");
                }
                Instant::now()
            })
        });
        Self { threads: threads.collect(), stop }
    }

    fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Lets every thread end its batch, and says when the last of them did; `None` where there is none.
    fn end(self) -> Option<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("background work does not fail")).max()
    }
}

/// Random pauses between queries: the same in every phase.
struct Pauses(u64);

impl Pauses {
    fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ seed)
    }

    fn next(&mut self) -> Duration {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        LONGEST_PAUSE.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Waits for a random time, asks, and says how long the answer took.
    fn timed_query(&mut self, engine: &Engine, query: &Input) -> Duration {
        std::thread::sleep(self.next());
        let asked = Instant::now();
        engine.embed_one(query.clone(), Role::Query).expect("a query embeds");
        asked.elapsed()
    }
}

fn warm(engine: &Engine, subject: &Subject) {
    engine.warm_up().expect("the towers open");
    engine.embed(&(subject.batch)(0), Role::Document).expect("a batch embeds");
    for _ in 0..WARM {
        engine.embed_one(subject.query.clone(), Role::Query).expect("a query embeds");
    }
}

/// Queries at random times and nothing beside them.
fn idle(subject: &Subject, length: Duration) -> Phase {
    let engine = (subject.open)();
    warm(&engine, subject);
    let (began, mut pauses, mut queries) = (Instant::now(), Pauses::new(7), Vec::new());
    while began.elapsed() < length {
        queries.push(pauses.timed_query(&engine, &subject.query));
    }
    queries.sort();
    Phase { load: "idle", queries, metrics: MetricsSnapshot::default(), throughput: 0.0 }
}

/// A fixed amount of background work, about as long as asked for where nothing else runs, with queries or without.
fn phase(subject: &Subject, load: &'static str, threads: usize, asks: bool, length: Duration) -> Phase {
    let engine = (subject.open)();
    warm(&engine, subject);
    let (timed, batch) = (Instant::now(), (subject.batch)(1));
    engine.embed(&batch, Role::Document).expect("a batch embeds");
    let batches = (length.as_secs_f64() / (timed.elapsed().as_secs_f64() * threads as f64)).ceil() as usize;
    engine.reset_metrics();
    let (began, mut pauses, mut queries) = (Instant::now(), Pauses::new(7), Vec::new());
    let background = Load::start(&engine, subject, threads, batches);
    while asks && !background.is_done() {
        queries.push(pauses.timed_query(&engine, &subject.query));
    }
    while !background.is_done() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = background.end().expect("a phase has background threads") - began;
    let metrics = engine.metrics();
    let left = took.saturating_sub(metrics.interactive.slices.sum).as_secs_f64();
    let items = (threads * batches * batch.len()) as f64;
    queries.sort();
    Phase { load, queries, metrics, throughput: items / left }
}

/// The nearest rank of sorted durations, zero where there are none.
fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn in_ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

impl Phase {
    /// Prints its row of the table.
    fn show(&self) {
        let (at, slices) = (|n| in_ms(percentile(&self.queries, n)), &self.metrics.background.slices);
        let (queries, load) = (self.queries.len(), self.load);
        print!("{load:<17} {queries:>7} {:>7.1} {:>7.1} {:>7.1}", at(50), at(95), at(100));
        print!(" {:>8} {:>7.1} {:>7.1} {:>7.1}", slices.count, in_ms(slices.p50), in_ms(slices.p95), in_ms(slices.max));
        println!("   {:>8.2}", self.throughput);
    }
}

fn judge(idle: &Phase, loads: &[[Phase; 3]]) {
    let idle_p95 = percentile(&idle.queries, 95);
    for [before, during, after] in loads {
        let (got, bound) = (percentile(&during.queries, 95), idle_p95 + during.metrics.background.slices.p95);
        let verdict = if got <= bound { "held" } else { "NOT HELD" };
        let load = during.load;
        println!(
            "{load}: p95 of a query {:.1}, idle p95 and p95 of a background slice {:.1}: {verdict}",
            in_ms(got),
            in_ms(bound)
        );
        let alone = (before.throughput + after.throughput) / 2.0;
        let kept = during.throughput / alone;
        let verdict = if kept >= KEPT { "held" } else { "NOT HELD" };
        let pace = (before.throughput - after.throughput).abs() / alone;
        let (kept, pace) = (100.0 * kept, 100.0 * pace);
        println!("{load}: background keeps {kept:.1} % of its throughput alone, which moved by {pace:.1} %: {verdict}");
    }
}

fn text(words: usize, seed: usize) -> Input {
    // The letters of the seed first, so that no two are equal.
    let letter = |i: usize| {
        let value = if i < 5 { seed / 26usize.pow(i as u32) } else { i * 7 + seed * 11 + i * seed };
        char::from(b'a' + (value % 26) as u8).to_string()
    };
    Input::text((0..words).map(letter).collect::<Vec<_>>().join(" "))
}

/// Twelve layers of 512 with random weights, 150 MB in f32 beside the build.
/// The default, or `OMNIBURN_BENCH_HOLD_MS`: a large number is the losing variant, in which nothing is cut.
fn time_slice() -> Duration {
    let asked = std::env::var("OMNIBURN_BENCH_HOLD_MS").ok().and_then(|ms| ms.parse().ok());
    asked.map_or(DEFAULT_TIME_SLICE, Duration::from_millis)
}

fn real_shape() -> Subject {
    let text_config = BackboneConfig {
        hidden: 512,
        layers: 12,
        heads: 8,
        kv_heads: 8,
        head_dim: 64,
        inner: 2048,
        norm_eps: 1e-6,
        rope_theta: 1e6,
        causal: false,
        qk_norm: false,
        max_tokens: 4096,
        vocab: 1024,
    };
    let record = records().join("scheduler-512x12-f32");
    if !record.exists() {
        let tokenizer = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("../tests/golden/checkpoints/omni-small-tiny/tokenizer.json");
        let config = OmniConfig { text: text_config, vision: None, audio: None };
        write_random(&record, &config, Dtype::F32, (4096, 16_384), &tokenizer, 1).expect("a record can be written");
    }
    Subject {
        name: "12 layers of 512",
        open: Box::new(move || Engine::builder(&record).time_slice(time_slice()).open().expect("the record opens")),
        query: text(12, 3),
        // One unit of 1,000 tokens where nothing carves it.
        batch: Arc::new(|seed| (0..8).map(|i| text(126, 8 * seed + i)).collect()),
    }
}

fn shipped() -> Subject {
    let noise = |seed: usize| {
        let pixels = (0..400 * 300 * 3u32).map(|i| ((i + seed as u32).wrapping_mul(2_654_435_761) >> 24) as u8);
        RgbImage::new(Width(400), Height(300), pixels.collect()).expect("as many pixels as its sides say")
    };
    let tone = |seed: usize| -> Vec<f32> {
        let pitch = 0.05 + 1e-4 * (seed % 1000) as f32;
        (0..32_000).map(|i| 0.5 * (i as f32 * (pitch + i as f32 * 1e-7)).sin()).collect()
    };
    let batch = move |seed: usize| {
        let mut batch: Vec<Input> = (0..24).map(|i| text(60 + 5 * i, 24 * seed + i)).collect();
        batch.extend((0..6).map(|i| Input::image_pixels(noise(6 * seed + i))));
        batch.extend((0..2).map(|i| Input::audio_samples(tone(2 * seed + i), 16_000)));
        batch
    };
    Subject {
        name: "the model that ships",
        open: Box::new(|| Engine::mini_builder().time_slice(time_slice()).open().expect("the model that ships opens")),
        query: Input::text("a red bicycle under a bridge"),
        batch: Arc::new(batch),
    }
}
