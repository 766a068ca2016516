//! What several benches share: configurations of the published sizes, records of them with random weights, and inputs of
//! given sizes. What is measured stands in the targets beside this file.
#![forbid(unsafe_code)]

#[cfg(feature = "random")]
mod sizes;

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use omniburn::{Engine, Height, Input, Request, RgbImage, Role, Width};
#[cfg(feature = "random")]
pub use sizes::{PIXELS, Size, compute, wanted};

/// A pool to run in, as units of the engine do: work that is handed over from outside waits for a thread to wake.
///
/// # Panics
/// If the system has no threads left.
pub fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().build().expect("a pool")
}

/// Waits for a result, so that work and not its order is timed.
///
/// # Panics
/// If a value is not finite.
pub fn read<const D: usize>(tensor: Tensor<D>) -> f32 {
    let values: Vec<f32> = tensor.into_data().convert::<f32>().try_to_vec().expect("f32");
    assert!(values.iter().all(|v| v.is_finite()));
    values[0]
}

/// Where records are kept: beside the build, never beside sources.
///
/// # Panics
/// Outside a program.
pub fn records() -> PathBuf {
    let exe = std::env::current_exe().expect("a bench runs from a file");
    exe.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_path_buf).join("bench-records")
}

/// A text of exactly so many tokens, all included: single letters apart by spaces. Another `seed` gives another text.
///
/// # Panics
/// If no such text can be made.
pub fn text(engine: &Engine, tokens: usize, seed: u32) -> String {
    let request = Request::new(Role::None);
    let count = |text: &str| engine.work(&Input::text(text), &request).map_or(usize::MAX, |work| work.tokens);
    let words = |n: usize| {
        let mut random = Random::new(seed);
        (0..n).flat_map(|_| [char::from(b'a' + random.byte() % 26), ' ']).collect::<String>()
    };
    let (mut fits, mut over) = (0, tokens + 1);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        if count(&words(middle)) <= tokens { fits = middle } else { over = middle }
    }
    let mut made = words(fits);
    while count(&made) != tokens {
        let longer = ["a ", "b", "7", ".", " "].map(|more| format!("{made}{more}"));
        let found = count(&made);
        let next = longer.into_iter().filter(|text| (found + 1..=tokens).contains(&count(text)));
        made = next.min_by_key(|text| count(text)).expect("letters, digits and points are tokens");
    }
    made
}

/// An image of noise; another `seed` gives another one.
///
/// # Panics
/// At a side of zero.
pub fn noise(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut random = Random::new(seed);
    let pixels = (0..width * height * 3).map(|_| random.byte()).collect();
    RgbImage::new(Width(width), Height(height), pixels).expect("as many pixels as its sides say")
}

/// Two tones at 16 kHz, one of which rises and falls.
pub fn tones(seconds: f64) -> Vec<f32> {
    let turns = |t: f64| 0.4 * (t * 2764.6).sin() + 0.2 * (t * 1382.3 + 40.0 * (t * 1.7).sin()).sin();
    (0..(seconds * 16_000.0) as usize).map(|i| turns(i as f64 / 16_000.0) as f32).collect()
}

/// The texts of a case such as `text:16x128`; none of another kind.
///
/// # Errors
/// A sentence where it is none.
pub fn texts(engine: &Engine, case: &str) -> Result<Vec<String>, String> {
    let Some(size) = case.strip_prefix("text:") else { return Ok(Vec::new()) };
    let numbers = size.split_once('x').and_then(|(count, tokens)| Some((count.parse().ok()?, tokens.parse().ok()?)));
    let (count, tokens) = numbers.ok_or_else(|| format!("`{case}` is no case"))?;
    Ok((0..count).map(|seed| text(engine, tokens, seed)).collect())
}

/// The inputs of a case such as `text:16x128`, `image:512`, `image:640x480`, `images:8x224`, `audio:10s` or `video:8x256`.
///
/// # Errors
/// A sentence where it is none.
pub fn inputs(engine: &Engine, case: &str) -> Result<Vec<Input>, String> {
    let wrong = || format!("`{case}` is no case");
    let (kind, size) = case.split_once(':').ok_or_else(wrong)?;
    if kind == "audio" {
        let seconds = size.strip_suffix('s').and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
        return Ok(vec![Input::audio_samples(tones(seconds), 16_000)]);
    }
    if kind == "text" {
        return Ok(texts(engine, case)?.into_iter().map(Input::text).collect());
    }
    let numbers: Vec<u32> = size.split('x').map(|n| n.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match (kind, &numbers[..]) {
        ("image", &[side]) => Ok(vec![Input::image_pixels(noise(side, side, 0))]),
        ("image", &[width, height]) => Ok(vec![Input::image_pixels(noise(width, height, 0))]),
        ("images", &[count, side]) => Ok((0..count).map(|n| Input::image_pixels(noise(side, side, n))).collect()),
        ("video", &[frames, side]) => {
            Ok(vec![Input::video_frames((0..frames).map(|n| noise(side, side, n)).collect())])
        }
        _ => Err(wrong()),
    }
}

/// Numbers that are the same in every process (xorshift32).
struct Random(u32);

impl Random {
    fn new(seed: u32) -> Self {
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
