//! What several benches share: configurations of the published sizes, records of them with random weights, and inputs of
//! given sizes. What is measured stands in the targets beside this file.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use omniburn::record::FamilyConfig;
use omniburn::{Dtype, Engine, Height, Input, RecordFolder, Request, RgbImage, Role, Width};
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::vision::{VisionConfig, VisionKind};

/// Least and largest area of an image in the records made here. The largest is that of 2,048 x 2,048, above the published
/// 1,310,720, so that growth can be seen further; images between are taken as they are.
pub const PIXELS: (u64, u64) = (262_144, 4_194_304);

/// A published model whose sizes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// `jina-embeddings-v5-omni-small`.
    Small,
    /// `jina-embeddings-v5-omni-nano`.
    Nano,
}

impl Size {
    /// Both.
    pub const ALL: [Size; 2] = [Size::Small, Size::Nano];

    /// The name in ids and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Size::Small => "small",
            Size::Nano => "nano",
        }
    }

    /// The configuration, but for the rows of the token table: they are gathered on the host, so their number costs disk and
    /// nothing else.
    pub fn config(self) -> OmniConfig {
        let small = self == Size::Small;
        let (hidden, layers, heads, kv_heads, head_dim) =
            if small { (1024, 28, 16, 8, 128) } else { (768, 12, 12, 12, 64) };
        OmniConfig {
            text: BackboneConfig {
                hidden,
                layers,
                heads,
                kv_heads,
                head_dim,
                inner: 3072,
                norm_eps: if small { 1e-6 } else { 1e-5 },
                rope_theta: if small { 3.5e6 } else { 1e6 },
                causal: small,
                qk_norm: small,
                max_tokens: 8192,
                vocab: 1024,
            },
            vision: Some(VisionConfig {
                hidden,
                layers: if small { 24 } else { 12 },
                heads: hidden / 64,
                inner: 4 * hidden,
                positions: 2304,
                patch_px: 16,
                merge: 2,
                temporal_patch: 2,
                channels: 3,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                taps: Vec::new(),
                kind: VisionKind::Table,
            }),
            audio: Some(AudioConfig {
                hidden: 1280,
                layers: 32,
                heads: 20,
                inner: 5120,
                n_window: 100,
                mels: 128,
                max_positions: 1500,
                norm_eps: 1e-5,
            }),
        }
    }

    /// A record of this size with random weights, made beside the build at first use: 1 to 6 GB by size and dtype.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn record(self, dtype: Dtype) -> PathBuf {
        let path = records().join(format!("{}-{dtype}", self.name()));
        // One of another format or shape, or one that is not whole, is made anew.
        let same = |record: RecordFolder| {
            record.header().dtype == dtype && record.header().family == FamilyConfig::new(self.config())
        };
        let good = RecordFolder::open(&path).is_ok_and(same);
        if !good {
            write_random(&path, &self.config(), dtype, PIXELS, &tokenizer(), 1).expect("a record can be written");
        }
        path
    }
}

/// The records to measure, from `OMNIBURN_BENCH_RECORDS`: sizes with dtypes, such as `nano-f32,small-bf16`; the smallest of
/// the full size unless it is set.
///
/// # Panics
/// At a name of no record.
pub fn wanted() -> Vec<(Size, Dtype)> {
    let named = std::env::var("OMNIBURN_BENCH_RECORDS").unwrap_or_else(|_| "nano-f32".into());
    let record = |name: &str| {
        let (size, dtype) = name.trim().split_once('-')?;
        Some((Size::ALL.into_iter().find(|s| s.name() == size)?, dtype.parse().ok()?))
    };
    named.split(',').map(|name| record(name).unwrap_or_else(|| panic!("`{name}` names no record"))).collect()
}

/// The type such a record is computed in on the CPU: its own where the engine takes it, else what the engine chooses.
///
/// # Panics
/// If it does not open.
pub fn compute(size: Size, stored: Dtype) -> Dtype {
    let open = |asked: Option<Dtype>| {
        let builder = Engine::builder(size.record(stored));
        asked.map_or(builder.clone(), |dtype| builder.dtype(dtype)).open()
    };
    open(Some(stored)).or_else(|_| open(None)).expect("a fresh record opens").profile().dtype
}

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

/// A tokenizer of a few hundred pieces, that of the tiny checkpoint.
fn tokenizer() -> PathBuf {
    // Known at run time under Cargo; a program that was built by Cargo and started by another knows its sources from then.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("../tests/golden/checkpoints/omni-small-tiny/tokenizer.json")
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

/// The inputs of a case such as `text:16x128`, `image:512`, `image:640x480`, `audio:10s` or `video:8x256`.
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
    let numbers: Vec<u32> = size.split('x').map(|n| n.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match (kind, &numbers[..]) {
        ("text", &[count, tokens]) => {
            Ok((0..count).map(|seed| Input::text(text(engine, tokens as usize, seed))).collect())
        }
        ("image", &[side]) => Ok(vec![Input::image_pixels(noise(side, side, 0))]),
        ("image", &[width, height]) => Ok(vec![Input::image_pixels(noise(width, height, 0))]),
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
