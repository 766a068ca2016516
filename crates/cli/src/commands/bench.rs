//! `omniburn bench`: how long inputs of given sizes take on this machine, from the input to the vector, one line a case.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use omniburn::probe::Work;
use omniburn::record::{MelPreprocess, mel_preprocess};
use omniburn::{
    Cancel, Engine, ErrorKind, Height, Input, ItemError, Modality, Priority, Request, RgbImage, Role, Width,
};
use omniburn_diagnostics::peak;
use serde::Serialize;

use super::{forget_peak_memory, open_engine, peak_memory};
use crate::args::{BenchArgs, ModelArgs, TruncateArg};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::interrupt::on_interrupt;
use crate::output::{ErrorBody, json_line};
use crate::progress::items_bar;
use omniburn_cli::inputs::Fault;

/// Cases unless others are asked for; those that the model cannot take are left out.
const DEFAULT_CASES: &str = "text:1x16,text:1x128,text:1x512,text:16x128,image:512,image:1024,audio:10s,video:8x256";
/// Runs that are counted at least, however long one takes: of fewer there is no middle.
const LEAST_RUNS: usize = 3;
/// Rate of the audio that is made, in hertz, where the model does not name its own.
const DEFAULT_RATE_HZ: u32 = 16_000;
/// Sides of images, seconds of audio and numbers of items beyond which a case is a typing mistake.
const MOST: u32 = 65_536;
/// Pixels of a case, all frames together: those of the largest image that is read.
const MOST_PIXELS: u64 = 178_956_970;

/// What a case is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    Text { count: u32, tokens: u32 },
    Image { width: u32, height: u32 },
    Audio { seconds: f64 },
    Video { frames: u32, width: u32, height: u32 },
}

/// A case of `--cases`, with its name as it was typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    name: String,
    size: Size,
}

/// The line of a case; the order of the fields is the order on the line.
#[derive(Serialize)]
struct CaseLine<'a> {
    case: &'a str,
    device: &'a str,
    dtype: &'static str,
    runs: usize,
    ms_min: f64,
    ms_median: f64,
    ms_p95: f64,
    items_per_s: f64,
    tokens_per_s: f64,
    /// Billions of operations a second at the median.
    gflops: f64,
    peak_rss_mib: Option<f64>,
}

/// The line of a case that could not be run.
#[derive(Serialize)]
struct ErrorLine<'a> {
    case: &'a str,
    error: ErrorBody<'a>,
}

/// The first line with `--peak`.
#[derive(Serialize)]
struct PeakLine<'a> {
    case: &'static str,
    device: &'a str,
    matmul_f32_gflops: f64,
    matmul_bf16_gflops: Option<f64>,
    memory_read_gb_per_s: Option<f64>,
}

/// Times every case.
///
/// # Errors
/// A usage failure, a refused record, a device that cannot be used, an interruption or a closed pipe; a case that fails is
/// a line and no error.
pub fn run(args: &BenchArgs) -> Outcome {
    let asked = args.cases.as_deref().map(cases).transpose().map_err(Failure::usage)?;
    let cancel = Cancel::new();
    let stop = cancel.clone();
    on_interrupt(move || stop.cancel());
    let engine = open_engine(&model(args))?;
    // Towers are opened now, so that no case pays for it.
    engine.warm_up()?;
    let profile = engine.profile();
    let cases = asked.unwrap_or_else(|| {
        let cases = cases(DEFAULT_CASES).expect("the list was written by us");
        let fits = |case: &Case| match case.size {
            Size::Text { tokens, .. } => tokens as usize <= profile.max_tokens,
            _ => true,
        };
        cases.into_iter().filter(|case| profile.modalities.contains(&case.modality()) && fits(case)).collect()
    });
    let request = Request::new(Role::None).cancel(cancel.clone());
    let bar = items_bar(Some(cases.len() as u64), "timing", args.quiet);
    let done = time_all(&engine, args, &cases, &request, &mut |line| {
        bar.inc(1);
        bar.suspend(|| match line {
            Line::Peak(line) => json_line(&line),
            Line::Case(line) => json_line(&line),
            Line::Error(line) => json_line(&line),
        })
    });
    bar.finish_and_clear();
    let failed = done?;
    if cancel.is_cancelled() {
        return Err(Failure::Interrupted);
    }
    Ok(if failed { SOME_FAILED } else { DONE })
}

/// The inputs of a case and how they go: one as somebody who waits, several as a job.
pub(super) fn inputs(engine: &Engine, case: &str) -> Result<(Vec<Input>, Request), Fault> {
    let case: Case = case.parse().map_err(bad)?;
    let inputs = case.inputs(engine)?;
    let request = Request::new(Role::None).priority(priority(inputs.len()));
    Ok((inputs, request))
}

fn priority(inputs: usize) -> Priority {
    if inputs == 1 { Priority::Interactive } else { Priority::Background }
}

enum Line<'a> {
    Peak(PeakLine<'a>),
    Case(CaseLine<'a>),
    Error(ErrorLine<'a>),
}

/// Each case in turn, with its line as soon as it is there. Gives whether one failed.
fn time_all(
    engine: &Engine,
    args: &BenchArgs,
    cases: &[Case],
    request: &Request,
    write: &mut dyn FnMut(Line) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let profile = engine.profile();
    let mut failed = false;
    if args.peak {
        let peak = match peak(engine, request) {
            Err(ItemError::Cancelled) => return Ok(failed),
            Err(e) => return Err(Failure::with_code(SOME_FAILED, anyhow::anyhow!("the peaks of the machine: {e}"))),
            Ok(peak) => peak,
        };
        write(Line::Peak(PeakLine {
            case: "peak",
            device: &profile.device,
            matmul_f32_gflops: rounded(peak.matmul_f32_gflops),
            matmul_bf16_gflops: peak.matmul_bf16_gflops.map(rounded),
            memory_read_gb_per_s: peak.memory_read_gb_per_s.map(rounded),
        }))?;
    }
    for case in cases {
        match time(engine, args, case, request) {
            // What was interrupted before its first run has no line, and nothing comes after it.
            Ok(None) => break,
            Err(fault) if fault.kind == ErrorKind::Cancelled => break,
            Err(fault) => {
                failed = true;
                write(Line::Error(ErrorLine { case: &case.name, error: (&fault).into() }))?;
            }
            Ok(Some(timed)) => {
                let (least, median, p95) = timed.spread();
                let per_s = |count: f64| rounded(count * 1000.0 / median);
                write(Line::Case(CaseLine {
                    case: &case.name,
                    device: &profile.device,
                    dtype: profile.dtype.name(),
                    runs: timed.ms.len(),
                    ms_min: rounded(least),
                    ms_median: rounded(median),
                    ms_p95: rounded(p95),
                    items_per_s: per_s(timed.items as f64),
                    tokens_per_s: per_s(timed.work.tokens as f64),
                    gflops: per_s(timed.work.flops as f64 / 1e9),
                    peak_rss_mib: timed.peak_rss.map(|bytes| rounded(bytes as f64 / f64::from(1 << 20))),
                }))?;
            }
        }
    }
    Ok(failed)
}

/// The times of a case.
struct Timed {
    items: usize,
    work: Work,
    ms: Vec<f64>,
    peak_rss: Option<u64>,
}

impl Timed {
    /// Least, middle, and what nineteen of twenty runs stay within, of at least one run.
    fn spread(&self) -> (f64, f64, f64) {
        let mut ms = self.ms.clone();
        ms.sort_by(f64::total_cmp);
        let middle = ms.len() / 2;
        let median = if ms.len() % 2 == 1 { ms[middle] } else { (ms[middle - 1] + ms[middle]) / 2.0 };
        (ms[0], median, ms[(ms.len() * 95).div_ceil(100) - 1])
    }
}

/// Runs a case; nothing where it was interrupted before its first counted run.
fn time(engine: &Engine, args: &BenchArgs, case: &Case, request: &Request) -> Result<Option<Timed>, Fault> {
    let inputs = case.inputs(engine)?;
    // One item is somebody who waits; several are a job, as they are for `embed`.
    let request = request.clone().priority(priority(inputs.len()));
    let mut work = Work::default();
    for input in &inputs {
        let one = engine.work(input, &request).map_err(|e| Fault::from(&e))?;
        work = Work { tokens: work.tokens + one.tokens, flops: work.flops + one.flops };
    }
    forget_peak_memory();
    let length = Duration::from_secs_f64(args.seconds);
    let (mut ms, mut begun) = (Vec::new(), Instant::now());
    for run in 0.. {
        if run == args.warm_up {
            begun = Instant::now();
        }
        if run >= args.warm_up && ms.len() >= LEAST_RUNS && begun.elapsed() >= length {
            break;
        }
        let started = Instant::now();
        let results = engine.embed_with(&inputs, &request).expect("the request names no task and no dimension");
        let took = started.elapsed();
        for result in results {
            match result {
                Ok(_) => {}
                Err(ItemError::Cancelled) if ms.is_empty() => return Ok(None),
                Err(ItemError::Cancelled) => {
                    return Ok(Some(Timed { items: inputs.len(), work, ms, peak_rss: peak_memory() }));
                }
                Err(e) => return Err(Fault::from(&e)),
            }
        }
        if run >= args.warm_up {
            ms.push(took.as_secs_f64() * 1000.0);
        }
    }
    Ok(Some(Timed { items: inputs.len(), work, ms, peak_rss: peak_memory() }))
}

impl Case {
    fn modality(&self) -> Modality {
        match self.size {
            Size::Text { .. } => Modality::Text,
            Size::Image { .. } => Modality::Image,
            Size::Audio { .. } => Modality::Audio,
            Size::Video { .. } => Modality::Video,
        }
    }

    /// The inputs of the case, the same ones in every process.
    fn inputs(&self, engine: &Engine) -> Result<Vec<Input>, Fault> {
        match self.size {
            // No two are equal: equal ones would be computed once.
            Size::Text { count, tokens } => {
                let made: Result<Vec<String>, Fault> = (0..count).map(|n| text(engine, tokens as usize, n)).collect();
                let made = made?;
                let differ: HashSet<&String> = made.iter().collect();
                if differ.len() < made.len() {
                    let (all, differ) = (made.len(), differ.len());
                    return Err(bad(format!(
                        "of {all} texts of {tokens} tokens only {differ} could be made to differ"
                    )));
                }
                Ok(made.into_iter().map(Input::text).collect())
            }
            Size::Image { width, height } => Ok(vec![Input::image_pixels(noise(width, height, 0))]),
            Size::Audio { seconds } => {
                let settings: Option<MelPreprocess> = engine.header().preprocess.audio.as_ref().map(mel_preprocess);
                let rate = settings.map_or(DEFAULT_RATE_HZ, |settings| settings.sample_rate_hz);
                Ok(vec![Input::audio_samples(tones(seconds, rate), rate)])
            }
            Size::Video { frames, width, height } => {
                Ok(vec![Input::video_frames((0..frames).map(|n| noise(width, height, n)).collect())])
            }
        }
    }
}

/// Single letters apart by spaces, until there are as many tokens as wanted.
///
/// # Errors
/// A fault where the tokenizer cannot be brought to exactly that number, or the model reads no text so long.
fn text(engine: &Engine, tokens: usize, seed: u32) -> Result<String, Fault> {
    let request = Request::new(Role::None);
    let count = |text: &str| match engine.work(&Input::text(text), &request) {
        Ok(work) => Ok(work.tokens),
        Err(ItemError::Empty { .. }) => Ok(0),
        Err(e) => Err(Fault::from(&e)),
    };
    let words = |n: usize| {
        let mut random = Random::new(seed);
        (0..n).flat_map(|_| [char::from(b'a' + random.byte() % 26), ' ']).collect::<String>()
    };
    // As many words as stay within, by halving: each is a token or more.
    let (mut fits, mut over) = (0, tokens + 1);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        // A text that is too long to be read has too many tokens, unless as many as wanted are too many already.
        match count(&words(middle)) {
            Ok(found) if found <= tokens => fits = middle,
            Ok(_) => over = middle,
            Err(_) if middle > 1 => over = middle,
            Err(fault) => return Err(fault),
        }
    }
    let mut made = words(fits);
    let mut found = count(&made)?;
    while found < tokens {
        let longer = ["a ", "b", "7", ".", " "].map(|more| format!("{made}{more}"));
        let mut best = None;
        for text in longer {
            // What is too long to be read is left, and said below.
            let Ok(n) = count(&text) else { continue };
            if n > found && n <= tokens && best.as_ref().is_none_or(|(least, _)| n < *least) {
                best = Some((n, text));
            }
        }
        match best {
            Some((n, text)) => (found, made) = (n, text),
            None => break,
        }
    }
    if found == tokens {
        return Ok(made);
    }
    let limit = engine.profile().max_tokens;
    Err(match tokens > limit {
        true => Fault::from(&ItemError::TooLong { tokens, limit }),
        false => bad(format!("no text of exactly {tokens} tokens could be made, the nearest has {found}")),
    })
}

fn bad(message: String) -> Fault {
    Fault { kind: ErrorKind::BadItem, message }
}

/// Numbers that are the same in every process (xorshift32).
struct Random(u32);

impl Random {
    fn new(seed: u32) -> Self {
        // The state is never zero, and neighbours do not begin alike.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9) ^ 0x6A09_E667 | 1);
        for _ in 0..8 {
            random.byte();
        }
        random
    }

    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 24) as u8
    }
}

/// An image of noise, by its size and number.
fn noise(width: u32, height: u32, number: u32) -> RgbImage {
    let mut random = Random::new(number);
    let pixels = (0..u64::from(width) * u64::from(height) * 3).map(|_| random.byte());
    RgbImage::new(Width(width), Height(height), pixels.collect()).expect("as many values as the sides say")
}

/// Two tones, one of which rises and falls.
fn tones(seconds: f64, rate_hz: u32) -> Vec<f32> {
    let turns = |t: f64| 0.4 * (t * 2764.6).sin() + 0.2 * (t * 1382.3 + 40.0 * (t * 1.7).sin()).sin();
    let count = (seconds * f64::from(rate_hz)).round() as usize;
    (0..count).map(|i| turns(i as f64 / f64::from(rate_hz)) as f32).collect()
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |why: &dyn fmt::Display| {
            format!(
                "case `{text}`: {why}; expected one such as text:16x128 (texts x tokens), image:512 or image:640x480, \
                 audio:10s, video:8x256 (frames x side)"
            )
        };
        let (kind, size) = text.split_once(':').ok_or_else(|| wrong(&"no size"))?;
        let number = |word: &str| match word.parse::<u32>() {
            Ok(n) if (1..=MOST).contains(&n) => Ok(n),
            _ => Err(wrong(&format_args!("`{word}` is not a number from 1 to {MOST}"))),
        };
        let numbers = size.split('x').map(number);
        let size = match kind {
            "text" => match numbers.collect::<Result<Vec<_>, _>>()?[..] {
                [count, tokens] => Size::Text { count, tokens },
                _ => return Err(wrong(&"a text has two numbers")),
            },
            "image" => match numbers.collect::<Result<Vec<_>, _>>()?[..] {
                [side] => Size::Image { width: side, height: side },
                [width, height] => Size::Image { width, height },
                _ => return Err(wrong(&"an image has one or two numbers")),
            },
            "video" => match numbers.collect::<Result<Vec<_>, _>>()?[..] {
                [frames, side] => Size::Video { frames, width: side, height: side },
                [frames, width, height] => Size::Video { frames, width, height },
                _ => return Err(wrong(&"a video has two or three numbers")),
            },
            "audio" => {
                let seconds = size.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
                match seconds {
                    Some(seconds) if seconds > 0.0 && seconds <= f64::from(MOST) => Size::Audio { seconds },
                    _ => return Err(wrong(&format_args!("`{size}` is not a number of seconds"))),
                }
            }
            _ => return Err(wrong(&format_args!("no input is called `{kind}`"))),
        };
        let pixels = match size {
            Size::Image { width, height } => u64::from(width) * u64::from(height),
            Size::Video { frames, width, height } => u64::from(frames) * u64::from(width) * u64::from(height),
            Size::Text { .. } | Size::Audio { .. } => 0,
        };
        if pixels > MOST_PIXELS {
            return Err(wrong(&format_args!("{pixels} pixels are more than {MOST_PIXELS}")));
        }
        Ok(Case { name: text.to_string(), size })
    }
}

/// Cases with commas between.
fn cases(list: &str) -> Result<Vec<Case>, String> {
    list.split(',').map(str::parse).collect()
}

fn model(args: &BenchArgs) -> ModelArgs {
    ModelArgs {
        model: args.model.clone(),
        task: None,
        dim: None,
        compute: args.compute,
        truncate: TruncateArg::Error,
        frames: None,
    }
}

/// Three places after the point: a line is for people, too.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_as_users_write_them() {
        let sizes = |list: &str| cases(list).unwrap().into_iter().map(|case| case.size).collect::<Vec<_>>();
        assert_eq!(
            sizes("text:16x128, image:512,image:640x480,audio:0.5s,video:8x256,video:2x64x32"),
            [
                Size::Text { count: 16, tokens: 128 },
                Size::Image { width: 512, height: 512 },
                Size::Image { width: 640, height: 480 },
                Size::Audio { seconds: 0.5 },
                Size::Video { frames: 8, width: 256, height: 256 },
                Size::Video { frames: 2, width: 64, height: 32 },
            ]
        );
        assert_eq!(cases(DEFAULT_CASES).unwrap().len(), 8);
    }

    #[test]
    fn a_case_that_is_none_is_refused_with_its_name_and_an_example() {
        let wrong = [
            "",
            "text",
            "text:16",
            "text:1x2x3",
            "text:0x16",
            "text:ax16",
            "text:-1x16",
            "image:",
            "image:1x2x3",
            "image:65537",
            "image:65536x65536",
            "audio:10",
            "audio:s",
            "audio:0s",
            "audio:-1s",
            "audio:NaNs",
            "audio:infs",
            "video:8",
            "video:1000x4096",
            "smell:1",
            "text:1x16,",
            "TEXT:1x16",
        ];
        for list in wrong {
            let said = cases(list).expect_err(list);
            assert!(said.contains("expected one such as text:16x128"), "{list}: {said}");
        }
    }

    #[test]
    fn the_spread_of_times_is_by_rank() {
        let timed = |ms: Vec<f64>| Timed { items: 1, work: Work::default(), ms, peak_rss: None }.spread();
        assert_eq!(timed(vec![5.0]), (5.0, 5.0, 5.0));
        assert_eq!(timed(vec![4.0, 1.0]), (1.0, 2.5, 4.0));
        assert_eq!(timed((1..=100).rev().map(f64::from).collect()), (1.0, 50.5, 95.0));
    }
}
