//! Requests of every kind in their thousands, and jobs at random budgets, with the operating system as the judge.
//!
//! What lives here: the inputs and how they are drawn, the samples and their fit, the two commands. What does not: how
//! memory is read ([`memory`]) and which numbers of requests and jobs are full size (`cargo xtask soak`).
//!
//! Everything is drawn from a seed, so a run is repeated by its arguments, and a single job of `budget` by its number.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use omniburn::{
    Cancel, Dtype, Embedded, Engine, EngineBuilder, Height, Input, ItemError, Request, RgbImage, Role, Truncation,
    Width,
};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};

#[path = "memory.rs"]
mod memory;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: soak requests --count N [--seed S] [--threads T] [--leak BYTES]
       soak budget --jobs N [--seed S] [--only mini|checkpoint]
       soak job --number N --budget BYTES --on mini|checkpoint [--seed S] [--pool DIR]
       soak ci

requests  N requests of varied length and kind; memory, threads and open files must not grow.
          --leak keeps so many bytes a request, to see the check fail.
budget    N jobs, each at a budget from the smallest that would do up to eight times as much, each in a process of its
          own; its memory above the opened engine must stay within the budget.
job       one of those jobs, as `budget` starts it.
ci        2,000 requests and 100 jobs.

Exit codes: 0 all held; 1 something did not; 2 wrong arguments.";

/// Runs a command line.
pub fn run(args: &[String]) -> ExitCode {
    let Some((command, flags)) = args.split_first() else { return usage("a command is missing") };
    let flags: BTreeMap<&str, &str> = match flags.chunks(2).map(pair).collect() {
        Some(flags) => flags,
        None => return usage("a flag without its value"),
    };
    let known: &[&str] = match command.as_str() {
        "requests" => &["--count", "--seed", "--threads", "--leak"],
        "budget" => &["--jobs", "--seed", "--only"],
        "job" => &["--number", "--budget", "--on", "--seed", "--pool"],
        "ci" => &[],
        other => return usage(&format!("unknown command `{other}`")),
    };
    if let Some(unknown) = flags.keys().find(|flag| !known.contains(flag)) {
        return usage(&format!("`{command}` knows no {unknown}"));
    }
    let number = |flag: &str, otherwise: Option<u64>| match flags.get(flag) {
        Some(text) => text.parse().map_err(|_| format!("{flag} {text}: expected a whole number")),
        None => otherwise.ok_or_else(|| format!("{flag} is missing")),
    };
    let result = (|| -> std::result::Result<Result<bool>, String> {
        let seed = number("--seed", Some(1))?;
        Ok(match command.as_str() {
            "requests" => requests(&Soak {
                count: number("--count", None)?.max(1),
                seed,
                threads: number("--threads", Some(1))?.clamp(1, 64),
                leak: number("--leak", Some(0))? as usize,
            }),
            "budget" => {
                let only = flags.get("--only").map(|name| which(name)).transpose()?;
                budget(number("--jobs", None)?, seed, only)
            }
            "job" => {
                let model = which(flags.get("--on").copied().unwrap_or_default())?;
                let pool = flags.get("--pool").map(PathBuf::from);
                job(number("--number", None)?, number("--budget", None)?, model, seed, pool)
            }
            _ => (|| {
                let quiet = requests(&Soak { count: 2_000, seed, threads: 2, leak: 0 })?;
                Ok(budget(100, seed, None)? && quiet)
            })(),
        })
    })();
    match result {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::from(1),
        Ok(Err(error)) => {
            eprintln!("soak: {error}");
            ExitCode::from(1)
        }
        Err(words) => usage(&words),
    }
}

fn usage(words: &str) -> ExitCode {
    eprintln!("soak: {words}\n{USAGE}");
    ExitCode::from(2)
}

fn pair(flag: &[String]) -> Option<(&str, &str)> {
    match flag {
        [flag, value] => Some((flag, value)),
        _ => None,
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

// ---- what is asked ----

/// The models that are asked: the tiny checkpoint of the published one, and the model that ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Model {
    Mini,
    Checkpoint,
}

fn which(name: &str) -> std::result::Result<Model, String> {
    match name {
        "mini" => Ok(Model::Mini),
        "checkpoint" => Ok(Model::Checkpoint),
        other => Err(format!("`{other}` is no model here; expected mini or checkpoint")),
    }
}

/// Numbers drawn from a seed.
struct Draw(u64);

impl Draw {
    fn of(seed: u64, number: u64) -> Self {
        let mut draw = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        draw.next();
        draw
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between two numbers, small ones as likely as large ones by their logarithm.
    fn log(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.share())
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Files to ask for, in an order that is the same in every process.
struct Pool {
    images: Vec<PathBuf>,
    large: Vec<PathBuf>,
    videos: Vec<PathBuf>,
    sounds: Vec<PathBuf>,
    long: Vec<PathBuf>,
    broken: Vec<PathBuf>,
    record: PathBuf,
}

fn workspace() -> Result<PathBuf> {
    // Asked at run time, so that a moved build looks where it runs.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Ok(Path::new(&manifest).parent().ok_or("the tests are a folder of the workspace")?.to_path_buf())
}

impl Pool {
    /// Makes what is not there yet and lists it all.
    fn at(folder: &Path) -> Result<Self> {
        let root = workspace()?;
        if !folder.join("complete").is_file() {
            Self::make(folder, &root)?;
        }
        let listed = |place: PathBuf, endings: &[&str]| -> Result<Vec<PathBuf>> {
            let mut found: Vec<PathBuf> =
                std::fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            found.retain(|path| path.extension().is_some_and(|end| endings.iter().any(|known| end == *known)));
            found.sort();
            Ok(found)
        };
        let samples = root.join("models/mini/samples");
        let golden = root.join("tests/golden/media");
        let mut images = listed(samples.clone(), &["jpg", "png", "webp", "bmp"])?;
        images.extend(listed(folder.join("pictures"), &["png", "jpg"])?);
        images.extend(listed(golden.join("images"), &["png", "jpg", "webp", "gif", "bmp", "tif"])?);
        images.retain(|path| !["float.tif", "palette.tif", "fish-swimming.webp"].iter().any(|not| path.ends_with(not)));
        let mut videos = listed(samples.clone(), &["mp4", "mkv", "gif"])?;
        let golden_films = [
            "bt601.mp4",
            "high.mp4",
            "main.mp4",
            "one.mp4",
            "fragments.mp4",
            "open.mkv",
            "turned90.mp4",
            "yuv422_10.mkv",
        ];
        videos.extend(golden_films.iter().map(|name| golden.join("videos").join(name)));
        videos.extend(["plain.gif", "plain.png", "plain.webp"].iter().map(|name| golden.join("animations").join(name)));
        let mut sounds = listed(samples, &["wav", "flac", "mp3", "ogg", "opus", "m4a"])?;
        let golden_sounds = ["f64.wav", "alac.m4a", "stereo.opus", "mono.aac", "vorbis.webm", "s24.aiff", "f32.caf"];
        sounds.extend(golden_sounds.iter().map(|name| golden.join("audio/files").join(name)));
        Ok(Self {
            images,
            large: listed(folder.join("large"), &["png", "jpg"])?,
            videos,
            sounds,
            long: listed(folder.join("long"), &["wav"])?,
            broken: listed(folder.join("broken"), &["jpg", "png", "wav", "mp4"])?,
            record: folder.join("checkpoint"),
        })
    }

    fn make(folder: &Path, root: &Path) -> Result<()> {
        let place = |name: &str| -> Result<PathBuf> {
            let place = folder.join(name);
            std::fs::create_dir_all(&place)?;
            Ok(place)
        };
        let image = |path: PathBuf, width: u32, height: u32| -> Result<()> {
            let colour = |x: u32, y: u32| image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x * y) >> 6) as u8]);
            Ok(image::RgbImage::from_fn(width, height, colour).save(path)?)
        };
        let mut draw = Draw::of(17, 0);
        let images = place("pictures")?;
        for number in 0..24 {
            let (width, height) = (draw.log(16.0, 1200.0) as u32, draw.log(16.0, 1200.0) as u32);
            let ending = if number % 2 == 0 { "png" } else { "jpg" };
            image(images.join(format!("{number}.{ending}")), width, height)?;
        }
        let large = place("large")?;
        for (width, height) in [(2000, 1500), (4000, 3000), (3000, 4000)] {
            for ending in ["png", "jpg"] {
                image(large.join(format!("{width}.{ending}")), width, height)?;
            }
        }
        let long = place("long")?;
        for (seconds, rate) in [(31u32, 48_000u32), (100, 16_000), (239, 16_000), (250, 8_000)] {
            let bytes = seconds * rate * 2;
            let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
            wav.extend_from_slice(&rate.to_le_bytes());
            wav.extend_from_slice(&(2 * rate).to_le_bytes());
            wav.extend_from_slice(b"\x02\0\x10\0data");
            wav.extend_from_slice(&bytes.to_le_bytes());
            wav.extend((0..bytes).map(|at| (at.wrapping_mul(at) >> 11) as u8));
            std::fs::write(long.join(format!("{seconds}.wav")), wav)?;
        }
        let broken = place("broken")?;
        let golden = root.join("tests/golden/media");
        for (from, to) in [
            ("images/420-q90.jpg", "cut.jpg"),
            ("images/noise.png", "cut.png"),
            ("audio/files/s16.wav", "cut.wav"),
            ("videos/bt601.mp4", "cut.mp4"),
        ] {
            let bytes = std::fs::read(golden.join(from))?;
            std::fs::write(broken.join(to), &bytes[..bytes.len() * 2 / 3])?;
        }
        for name in ["empty.jpg", "empty.wav"] {
            std::fs::write(broken.join(name), b"")?;
        }
        for name in ["words.jpg", "words.wav", "words.mp4"] {
            std::fs::write(broken.join(name), b"These are words and nothing else.")?;
        }
        let checkpoint = root.join("tests/golden/checkpoints/omni-small-tiny");
        let options = ConvertOptions {
            dtype: Dtype::F32,
            tasks: TaskChoice::All,
            ..ConvertOptions::new(checkpoint, folder.join("checkpoint"))
        };
        convert(&options)?;
        std::fs::write(folder.join("complete"), b"")?;
        Ok(())
    }

    fn builder(&self, model: Model) -> EngineBuilder {
        match model {
            Model::Mini => Engine::mini_builder(),
            Model::Checkpoint => Engine::builder(&self.record).dtype(Dtype::F32),
        }
    }
}

/// An input, and what it is in words.
struct Item {
    input: Input,
    words: String,
    fails: bool,
}

impl Item {
    fn good(input: Input, words: impl Into<String>) -> Self {
        Self { input, words: words.into(), fails: false }
    }

    fn bad(input: Input, words: impl Into<String>) -> Self {
        Self { input, words: words.into(), fails: true }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn bytes_of(path: &Path) -> Result<Arc<[u8]>> {
    Ok(std::fs::read(path)?.into())
}

fn text(draw: &mut Draw, most: usize) -> Item {
    const WORDS: [&str; 16] = [
        "a", "red", "bicycle", "beside", "the", "river", "music", "and", "bread", "in", "winter", "light", "of", "old",
        "stones", "sea",
    ];
    // A word is a token and a little, but the checkpoint, which reads more of them, knows letters and few words. Some texts come
    // out longer than is read, which is refused by name.
    // Most are short, as they are in life, so that 100,000 requests take no hour.
    let most = if draw.below(8) == 0 { most } else { most.min(120) };
    let words = draw.log(1.0, most as f64 * if most > 1000 { 0.3 } else { 0.9 }) as usize;
    let text: Vec<&str> = (0..words.max(1)).map(|_| *draw.one(&WORDS)).collect();
    Item::good(Input::text(text.join(" ")), format!("text of {words} words"))
}

fn pixels(draw: &mut Draw, low: f64, high: f64) -> Result<RgbImage> {
    let (width, height) = (draw.log(low, high) as u32, draw.log(low, high) as u32);
    let seed = draw.next();
    let bytes = (0..width * height * 3).map(|at| (u64::from(at).wrapping_mul(seed) >> 56) as u8).collect();
    Ok(RgbImage::new(Width(width), Height(height), bytes)?)
}

fn samples(draw: &mut Draw, seconds: f64) -> Item {
    let rate = *draw.one(&[8_000u32, 16_000, 22_050, 44_100]);
    let pitch = draw.log(0.01, 0.5);
    let count = (seconds * f64::from(rate)) as usize;
    let samples: Vec<f32> = (0..count).map(|at| (at as f64 * pitch).sin() as f32 * 0.5).collect();
    Item::good(Input::audio_samples(samples, rate), format!("{seconds:.2} s of samples at {rate} Hz"))
}

/// An input of a request.
fn item(draw: &mut Draw, pool: &Pool, most_tokens: usize) -> Result<Item> {
    Ok(match draw.below(200) {
        0..158 => text(draw, most_tokens),
        158..166 => {
            let path = draw.one(&pool.images);
            Item::good(Input::image_file(path), name(path))
        }
        166..168 => {
            let path = draw.one(&pool.images);
            Item::good(Input::image_bytes(bytes_of(path)?), format!("bytes of {}", name(path)))
        }
        168..173 => {
            let image = pixels(draw, 8.0, 600.0)?;
            let words = format!("{} x {} pixels", image.width().0, image.height().0);
            // A needle is refused by models that cut images into patches; none is drawn here.
            Item::good(Input::image_pixels(image), words)
        }
        173..177 => {
            let count = 1 + draw.below(6);
            let frames: Vec<RgbImage> = (0..count).map(|_| pixels(draw, 48.0, 160.0)).collect::<Result<_>>()?;
            Item::good(Input::video_frames(frames), format!("{count} frames"))
        }
        177..178 => {
            let path = draw.one(&pool.videos);
            Item::good(Input::video_file(path), name(path))
        }
        178..179 => {
            let path = draw.one(&pool.videos);
            Item::good(Input::video_bytes(bytes_of(path)?), format!("bytes of {}", name(path)))
        }
        179..184 => {
            let seconds = draw.log(0.05, 30.0);
            samples(draw, seconds)
        }
        184..186 => {
            let path = draw.one(&pool.sounds);
            Item::good(Input::audio_file(path), name(path))
        }
        186..187 => {
            let path = draw.one(&pool.sounds);
            Item::good(Input::audio_bytes(bytes_of(path)?), format!("bytes of {}", name(path)))
        }
        _ => broken(draw, pool)?,
    })
}

/// An input that cannot be embedded.
fn broken(draw: &mut Draw, pool: &Pool) -> Result<Item> {
    Ok(match draw.below(8) {
        0 => Item::bad(Input::image_file("no/such/file.png"), "a missing file"),
        1 => Item::bad(Input::audio_file(&pool.record), "a folder"),
        2 => Item::bad(Input::image_bytes(&b"words"[..]), "words for a picture"),
        3 => Item::bad(Input::audio_samples(vec![f32::NAN; 16_000], 16_000), "samples that are no numbers"),
        4 => Item::bad(Input::audio_samples(Vec::new(), 16_000), "no samples"),
        5 => Item::bad(Input::video_frames(Vec::new()), "no frames"),
        _ => {
            let path = draw.one(&pool.broken);
            let input = match path.extension().and_then(|ending| ending.to_str()) {
                Some("wav") => Input::audio_file(path),
                Some("mp4") => Input::video_file(path),
                _ => Input::image_file(path),
            };
            Item::bad(input, format!("damaged {}", name(path)))
        }
    })
}

// ---- nothing ratchets ----

struct Soak {
    count: u64,
    seed: u64,
    threads: u64,
    leak: usize,
}

/// What a process holds between two requests.
#[derive(Debug, Clone, Copy)]
struct Held {
    requests: u64,
    memory: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn now(requests: u64) -> Result<Self> {
        // A thread that was joined is listed for a moment longer; the least of a few looks leaves it out.
        let count = |place: &str| -> Result<usize> {
            let mut least = usize::MAX;
            for _ in 0..10 {
                least = least.min(std::fs::read_dir(place)?.count());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(least)
        };
        let memory = memory::held().ok_or("this system does not tell what memory a process holds")?;
        Ok(Self { requests, memory, files: count("/proc/self/fd")?, threads: count("/proc/self/task")? })
    }
}

/// A straight line through samples.
#[derive(Debug, Clone, Copy)]
struct Fit {
    /// Growth in 10,000 requests, as a share of what is held on average.
    slope: f64,
    /// Growth over the whole run.
    rise: f64,
}

/// The share of memory that may be gained in 10,000 requests.
const MOST_SLOPE: f64 = 0.01;

/// Growth over a run that is allowed after a warm-up of a tenth. In a long one that is [`MOST_SLOPE`]. In a short one the
/// largest request so far still comes now and then, and an allocator keeps what it took: measured, one such step in 2,000
/// requests is 4 to 7 %, so 10 % are allowed there, and less by the root as runs get longer. From 27,000 requests on the
/// slope is all that counts.
fn most_rise(span: f64) -> f64 {
    (MOST_SLOPE * span / 1e4).max(0.10 * (2_000.0 / span).sqrt())
}

impl Fit {
    /// Least squares.
    fn through(samples: &[(f64, f64)]) -> Self {
        let n = samples.len() as f64;
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(&|s| s.0), mean(&|s| s.1));
        let spread: f64 = samples.iter().map(|s| (s.0 - x).powi(2)).sum();
        let slope = samples.iter().map(|s| (s.0 - x) * (s.1 - y)).sum::<f64>() / spread;
        let span = samples.last().map_or(0.0, |s| s.0) - samples.first().map_or(0.0, |s| s.0);
        Self { slope: slope * 1e4 / y, rise: slope * span / y }
    }
}

/// The check itself must be able to fail.
fn check_the_check() {
    let grows = |count: u64, leak: f64| -> bool {
        let mut draw = Draw::of(5, count);
        let samples: Vec<(f64, f64)> = (0..180)
            .map(|i| i as f64 * count as f64 / 180.0)
            .map(|x| (x, 200e6 + leak * x + 2e6 * (draw.share() - 0.5)))
            .collect();
        Fit::through(&samples).rise > most_rise(count as f64)
    };
    assert!(!grows(1_800, 0.0) && !grows(90_000, 0.0), "flat memory does not grow");
    assert!(grows(1_800, 15_000.0), "15 kB a request are seen in a short run");
    assert!(grows(90_000, 250.0), "250 bytes a request are seen in a long run");
}

/// What the requests of a thread came to.
#[derive(Debug, Default)]
struct Counts {
    items: u64,
    vectors: u64,
    errors: BTreeMap<String, u64>,
    wrong: Vec<String>,
    /// Requests of one input that gave a vector, and their time, by kind.
    alone: BTreeMap<String, (u32, Duration)>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.items += other.items;
        self.vectors += other.vectors;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.wrong.extend(other.wrong);
        for (kind, (count, time)) in other.alone {
            let sum = self.alone.entry(kind).or_default();
            *sum = (sum.0 + count, sum.1 + time);
        }
    }

    fn result(&mut self, item: &Item, result: &std::result::Result<Embedded, ItemError>) {
        self.items += 1;
        match result {
            Ok(embedded) => {
                self.vectors += 1;
                let norm: f32 = embedded.embedding.as_slice().iter().map(|v| v * v).sum();
                if item.fails || !norm.is_finite() || (norm - 1.0).abs() > 1e-3 {
                    self.wrong.push(format!("{}: a vector of norm {norm}", item.words));
                }
            }
            Err(error) => {
                *self.errors.entry(error.kind().to_string()).or_default() += 1;
                // Texts are drawn up to a little more than is read, and goldens are smaller than some rules allow.
                let expected = ["cancelled", "too_long", "too_short", "too_large"].contains(&error.kind().name());
                if !item.fails && !expected {
                    self.wrong.push(format!("{}: {error}", item.words));
                }
            }
        }
    }
}

/// One request.
fn request(draw: &mut Draw, pool: &Pool, engine: &Engine, counts: &mut Counts) -> Result<()> {
    let profile = engine.profile();
    let count = if draw.below(6) == 0 { 2 + draw.below(5) } else { 1 };
    let mut items: Vec<Item> = Vec::with_capacity(count + 1);
    for _ in 0..count {
        items.push(item(draw, pool, profile.max_tokens)?);
    }
    if draw.below(8) == 0 {
        // The same once more.
        let Item { input, words, fails } = draw.one(&items);
        let again = Item { input: input.clone(), words: words.clone(), fails: *fails };
        items.push(again);
    }
    let role = *draw.one(&[Role::Query, Role::Document, Role::None]);
    let mut request = Request::new(role).frames(1 + draw.below(8) as u32);
    if draw.below(4) == 0 {
        request = request.dim(*draw.one(&profile.dims));
    }
    if draw.below(4) == 0 {
        request = request.task(draw.one(&profile.tasks));
    }
    if draw.below(4) == 0 {
        request = request.truncation(Truncation::Right);
    }
    let inputs: Vec<Input> = items.iter().map(|item| item.input.clone()).collect();
    let cancel = Cancel::new();
    let cancelled = draw.below(16) == 0;
    if cancelled {
        request = request.cancel(cancel.clone());
    }
    let after = Duration::from_micros(draw.below(5_000) as u64);
    std::thread::scope(|scope| -> Result<()> {
        if cancelled {
            scope.spawn(move || {
                std::thread::sleep(after);
                cancel.cancel();
            });
        }
        if draw.below(4) == 0 {
            // Some callers leave before the end.
            let taken = 1 + draw.below(items.len());
            for (item, result) in items.iter().zip(engine.embed_iter(inputs, request)?).take(taken) {
                counts.result(item, &result);
            }
        } else {
            let begun = Instant::now();
            let results = engine.embed_with(&inputs, &request)?;
            if let [Ok(embedded)] = &results[..] {
                let sum = counts.alone.entry(embedded.modality.to_string()).or_default();
                *sum = (sum.0 + 1, sum.1 + begun.elapsed());
            }
            if results.len() != items.len() {
                counts.wrong.push(format!("{} results for {} inputs", results.len(), items.len()));
            }
            items.iter().zip(&results).for_each(|(item, result)| counts.result(item, result));
        }
        Ok(())
    })
}

/// Requests until memory, threads and files can be judged.
fn requests(soak: &Soak) -> Result<bool> {
    check_the_check();
    let folder = tempfile::tempdir()?;
    let pool = Pool::at(folder.path())?;
    let engines = [pool.builder(Model::Mini).open()?, pool.builder(Model::Checkpoint).open()?];
    engines.iter().try_for_each(Engine::warm_up)?;
    let rounds = soak.count.min(200);
    let (mut held, mut counts, mut done) = (Vec::new(), Counts::default(), 0);
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    let started = Instant::now();
    println!("requests  seconds  anonymous MiB  open files  threads");
    for round in 0..rounds {
        let until = soak.count * (round + 1) / rounds;
        // Samples are taken when no request is under way.
        let ask = |thread: u64| -> std::result::Result<Counts, String> {
            let mut counts = Counts::default();
            for number in (done + thread..until).step_by(soak.threads as usize) {
                let mut draw = Draw::of(soak.seed, number);
                // The larger model for one in ten.
                let engine = &engines[usize::from(draw.below(10) > 0)];
                request(&mut draw, &pool, engine, &mut counts).map_err(|error| format!("request {number}: {error}"))?;
            }
            Ok(counts)
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..soak.threads).map(|thread| scope.spawn(move || ask(thread))).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a request panicked".to_owned())?).collect()
        });
        for answer in answers {
            counts.add(answer?);
        }
        leaked.extend((done..until).map(|_| vec![1; soak.leak]));
        done = until;
        held.push(Held::now(done)?);
        let now = held[held.len() - 1];
        if round % (rounds / 20).max(1) == 0 || round + 1 == rounds {
            let (seconds, memory) = (started.elapsed().as_secs_f64(), mib(now.memory));
            println!("{done:8} {seconds:8.1} {memory:14.1} {:11} {:8}", now.files, now.threads);
        }
    }
    println!("{} items, {} vectors, {:?}", counts.items, counts.vectors, counts.errors);
    let alone = |(kind, (count, time)): (&String, &(u32, Duration))| {
        format!("{kind} {:.1} ms", (*time / *count).as_secs_f64() * 1e3)
    };
    println!("a request alone takes on average: {}", counts.alone.iter().map(alone).collect::<Vec<_>>().join(", "));
    drop(leaked);
    verdict(&held, &counts)
}

/// Judges the samples after the first tenth.
fn verdict(held: &[Held], counts: &Counts) -> Result<bool> {
    let settled = &held[held.len() / 10..];
    let (Some(first), Some(last)) = (settled.first(), settled.last()) else { return Err("no samples".into()) };
    if settled.len() < 10 {
        return Err(format!("{} samples after the warm-up are too few; ask for more requests", settled.len()).into());
    }
    let samples: Vec<(f64, f64)> = settled.iter().map(|held| (held.requests as f64, held.memory as f64)).collect();
    let (fit, span) = (Fit::through(&samples), (last.requests - first.requests) as f64);
    let range = |of: &dyn Fn(&Held) -> usize| {
        let (low, high) = (settled.iter().map(of).min(), settled.iter().map(of).max());
        (low.unwrap_or(0), high.unwrap_or(0))
    };
    let (files, threads) = (range(&|held| held.files), range(&|held| held.threads));
    println!(
        "memory: {:+.3} % per 10,000 requests, {:+.2} % over the run of at most {:.2} %; files {} to {}, threads {} to {}",
        100.0 * fit.slope,
        100.0 * fit.rise,
        100.0 * most_rise(span),
        files.0,
        files.1,
        threads.0,
        threads.1
    );
    let mut good = true;
    let mut say = |wrong: bool, words: String| {
        if wrong {
            println!("NOT HELD: {words}");
            good = false;
        }
    };
    say(fit.rise > most_rise(span), "memory grows".into());
    say(files.0 != files.1, format!("open files vary from {} to {}", files.0, files.1));
    say(threads.0 != threads.1, format!("threads vary from {} to {}", threads.0, threads.1));
    say(counts.vectors == 0 || counts.errors.is_empty(), "no vector, or no failing input, was asked for".into());
    let wrong: Vec<&String> = counts.wrong.iter().take(10).collect();
    say(!wrong.is_empty(), format!("{} items came out wrong: {wrong:#?}", counts.wrong.len()));
    Ok(good)
}

// ---- the budget holds ----

/// The items of a job: one to six, larger than those of a request, all of them good.
fn job_items(draw: &mut Draw, pool: &Pool, most_tokens: usize) -> Result<Vec<Item>> {
    let count = 1 + draw.below(6);
    let mut items = Vec::with_capacity(count);
    while items.len() < count {
        let next = match draw.below(20) {
            0 | 1 => {
                let path = draw.one(&pool.large);
                Item::good(Input::image_file(path), format!("large {}", name(path)))
            }
            2 => {
                let path = draw.one(&pool.large);
                Item::good(Input::image_bytes(bytes_of(path)?), format!("bytes of large {}", name(path)))
            }
            3 => {
                let path = draw.one(&pool.long);
                Item::good(Input::audio_file(path), format!("{} s of sound", name(path)))
            }
            4 => {
                let image = pixels(draw, 300.0, 2500.0)?;
                let words = format!("{} x {} pixels", image.width().0, image.height().0);
                Item::good(Input::image_pixels(image), words)
            }
            5 => {
                let count = 1 + draw.below(12);
                let paths: Vec<PathBuf> = (0..count).map(|_| draw.one(&pool.large).clone()).collect();
                Item::good(Input::video_frame_files(paths), format!("{count} large frames"))
            }
            _ => {
                // Media are rarer among requests than they should be here.
                let first = item(draw, pool, most_tokens)?;
                if first.words.starts_with("text") && draw.below(3) > 0 {
                    item(draw, pool, most_tokens)?
                } else {
                    first
                }
            }
        };
        if !next.fails {
            items.push(next);
        }
    }
    Ok(items)
}

/// What a job in its own process said.
struct Answer {
    taken: u64,
    kept: u64,
    vectors: usize,
    over: usize,
    /// The largest budget that a refused item asked for.
    needed: u64,
    words: String,
}

/// One job at a budget, in this process, with a fresh engine: by one caller, or by two or three at once who ask for the
/// same inputs in different roles.
fn job(number: u64, budget: u64, model: Model, seed: u64, pool: Option<PathBuf>) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let pool = Pool::at(pool.as_deref().unwrap_or(folder.path()))?;
    let engine = pool.builder(model).budget(budget).open()?;
    let mut draw = Draw::of(seed, number);
    let items = job_items(&mut draw, &pool, engine.profile().max_tokens)?;
    let inputs: Vec<Input> = items.iter().map(|item| item.input.clone()).collect();
    let before = memory::held().ok_or("this system does not tell what memory a process holds")?;
    let roles = [Role::Document, Role::Query, Role::None];
    let callers = &roles[..1 + (number / 2 % 3) as usize];
    let (results, taken) = memory::peak_of(|| {
        std::thread::scope(|scope| {
            let call = |role| engine.embed_with(&inputs, &Request::new(role));
            let calls: Vec<_> = callers.iter().map(|&role| scope.spawn(move || call(role))).collect();
            let results = calls.into_iter().map(|call| call.join().expect("a caller does not panic"));
            results.collect::<std::result::Result<Vec<_>, _>>()
        })
    });
    let taken = taken.ok_or("this system does not let the peak be measured")?;
    let kept = memory::held().map_or(0, |now| now.saturating_sub(before));
    let results: Vec<_> = results?.into_iter().flatten().collect();
    let words: Vec<String> = items
        .iter()
        .zip(&results)
        .map(|(item, result)| match result {
            Ok(_) => item.words.clone(),
            Err(error) => format!("{} ({})", item.words, error.kind()),
        })
        .collect();
    let vectors = results.iter().filter(|result| result.is_ok()).count();
    let refused = results.iter().filter_map(|result| match result {
        Err(ItemError::OverBudget { needed, .. }) => Some(*needed),
        _ => None,
    });
    let (over, needed) = (refused.clone().count(), refused.max().unwrap_or(0));
    println!("JOB {taken} {kept} {vectors} {over} {needed} {} callers: {}", callers.len(), words.join("; "));
    Ok(taken <= budget && over == 0)
}

/// Starts a job in a process of its own, so that nothing an allocator kept of another hides or adds to its memory.
fn start(number: u64, budget: u64, model: Model, seed: u64, pool: &Path) -> Result<Answer> {
    let on = if model == Model::Mini { "mini" } else { "checkpoint" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["job", "--number", &number.to_string(), "--budget", &budget.to_string()]);
    command.args(["--on", on, "--seed", &seed.to_string(), "--pool"]).arg(pool);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("JOB "));
    let Some(line) = line else {
        return Err(
            format!("job {number} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    };
    let mut parts = line.splitn(6, ' ');
    let mut next = || parts.next().ok_or("a job says six things");
    Ok(Answer {
        taken: next()?.parse()?,
        kept: next()?.parse()?,
        vectors: next()?.parse()?,
        over: next()?.parse()?,
        needed: next()?.parse()?,
        words: next()?.to_owned(),
    })
}

/// Jobs at budgets from the smallest that would do.
fn budget(jobs: u64, seed: u64, only: Option<Model>) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let pool = Pool::at(folder.path())?;
    // One byte is too little for anything: the refusals tell the smallest budget that would do.
    let stingy = [Model::Mini, Model::Checkpoint].map(|model| pool.builder(model).budget(1).open());
    let [mini, checkpoint] = stingy;
    let stingy = BTreeMap::from([(Model::Mini, mini?), (Model::Checkpoint, checkpoint?)]);
    let started = Instant::now();
    let mut rows: Vec<(f64, u64, String)> = Vec::new();
    let (mut above, mut unrefused, mut refused, mut raised, mut vectors) = (0, 0, 0, 0, 0);
    for number in 0..jobs {
        let mut draw = Draw::of(seed, number);
        let model = only.unwrap_or(if number % 2 == 0 { Model::Mini } else { Model::Checkpoint });
        let engine = &stingy[&model];
        let items = job_items(&mut draw, &pool, engine.profile().max_tokens)?;
        let (mut needed, mut free) = (0, Vec::new());
        for item in &items {
            match &engine.embed_with(std::slice::from_ref(&item.input), &Request::new(Role::Document))?[0] {
                Err(ItemError::OverBudget { needed: one, .. }) => needed = needed.max(*one),
                Ok(_) => free.push(item.words.as_str()),
                Err(_) => {}
            }
        }
        if !free.is_empty() {
            unrefused += 1;
            if unrefused <= 5 {
                println!("job {number} on {model:?}: not refused at a budget of one byte: {}", free.join("; "));
            }
        }
        // A third at exactly what was asked for; one that nothing was refused of is run in a megabyte.
        let times = if number % 3 == 0 { 1.0 } else { Draw::of(seed ^ 0xb0d9e7, number).log(1.0, 8.0) };
        let mut budget = if needed == 0 { 1 << 20 } else { (needed as f64 * times).ceil() as u64 };
        let mut answer = start(number, budget, model, seed, folder.path())?;
        // What each item needs alone may be less than what it needs beside the copied weights of the others' towers: the
        // refusal says how much that is, and it is taken at its word.
        while answer.over > 0 && answer.needed > budget {
            above += u64::from(answer.taken > budget);
            raised += 1;
            budget = answer.needed;
            answer = start(number, budget, model, seed, folder.path())?;
        }
        let ratio = answer.taken as f64 / budget as f64;
        vectors += answer.vectors;
        above += u64::from(answer.taken > budget);
        refused += u64::from(answer.over > 0 && needed > 0);
        rows.push((
            ratio,
            number,
            format!(
                "{ratio:7.3} of {:9.2} MiB ({times:.2} x {:.2} needed) on {model:?}, {:.2} MiB taken, {:.2} kept: {}",
                mib(budget),
                mib(needed),
                mib(answer.taken),
                mib(answer.kept),
                answer.words
            ),
        ));
        if (number + 1) % 100 == 0 {
            println!("{} jobs in {:.0} s, {above} above their budget", number + 1, started.elapsed().as_secs_f64());
        }
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("the jobs nearest to their budget or above it:");
    for (_, number, words) in rows.iter().take(15) {
        println!("job {number:5} {words}");
    }
    let median = rows.get(rows.len() / 2).map_or(0.0, |row| row.0);
    println!(
        "{jobs} jobs, {vectors} vectors in {:.0} s: {above} above their budget, worst {:.3} of it, median {median:.3}; \
         {unrefused} with items that one byte was enough for; {raised} asked for more beside the others; {refused} refused at the \
         budget that was asked for",
        started.elapsed().as_secs_f64(),
        rows.first().map_or(0.0, |row| row.0),
    );
    let held = above == 0 && unrefused == 0 && refused == 0 && vectors > 0;
    if !held {
        println!("NOT HELD");
    }
    Ok(held)
}
