//! From inputs to vectors on a record of real shape with random weights: text, pictures, sound and film, every compiled
//! backend.
//!
//! Shapes are those of the nano family (12 layers of 768, 12 picture blocks of 768) unless `OMNIBURN_BENCH_SHAPE=small`
//! asks for the small family (28 layers of 1024, 24 picture blocks of 1024); the sound tower has 32 layers of 1280 in
//! both, so the first run writes a record of 3 to 5 GB beside the build. Ids: `end_to_end/<device>-<dtype>/<case>`.

use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn::{BackendKind, BackendSpec, Dtype, Engine, Height, Input, RgbImage, Role, Width};
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::vision::VisionConfig;

fn config(small: bool) -> OmniConfig {
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
            // Rows are gathered on the host: their number costs disk and nothing else.
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

fn folder() -> PathBuf {
    // Beside the build, never beside sources.
    let exe = std::env::current_exe().expect("a bench runs from a file");
    exe.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_path_buf).join("bench-records")
}

fn main() {
    let small = std::env::var("OMNIBURN_BENCH_SHAPE").is_ok_and(|s| s == "small");
    let family = if small { "small" } else { "nano" };
    let tokenizer = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../tests/golden/twins/omni-small-tiny/tokenizer.json");
    let record = folder().join(format!("{family}-sound-f32"));
    if !record.exists() {
        let limits = (262_144, 1_310_720);
        write_random(&record, &config(small), Dtype::F32, limits, &tokenizer, 1).expect("a record can be written");
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let compiled =
        BackendKind::ALL.iter().filter(|(.., yes)| *yes).map(|(kind, ..)| BackendSpec { kind: *kind, index: None });
    for device in compiled {
        let engine = match Engine::builder(&record).device(device).open() {
            Ok(engine) => engine,
            Err(e) => {
                println!("not run: {e}");
                continue;
            }
        };
        engine.warm_up().expect("the tower opens");
        let mut group = criterion.benchmark_group(format!("end_to_end/{family}-{device}-{}", engine.profile().dtype));
        for (count, tokens) in [(1, 16), (1, 128), (1, 512), (16, 128)] {
            let inputs: Vec<Input> = (0..count).map(|i| Input::text(text_of(&engine, tokens, i))).collect();
            group.throughput(Throughput::Elements((count * tokens) as u64));
            group.bench_function(BenchmarkId::new("text", format!("{count}x{tokens}")), |b| {
                b.iter(|| engine.embed(&inputs, Role::None).expect("texts embed"));
            });
        }
        let picture = [Input::image_pixels(noise(512, 512))];
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("image", "512"), |b| {
            b.iter(|| engine.embed(&picture, Role::None).expect("a picture embeds"));
        });
        let tone: Vec<f32> = (0..160_000).map(|i| 0.5 * (i as f32 * (0.05 + i as f32 * 1e-7)).sin()).collect();
        let sound = [Input::audio_samples(tone, 16_000)];
        group.bench_function(BenchmarkId::new("audio", "10s"), |b| {
            b.iter(|| engine.embed(&sound, Role::None).expect("a sound embeds"));
        });
        let film = [Input::video_frames((0..8).map(|_| noise(256, 256)).collect())];
        group.bench_function(BenchmarkId::new("video", "8x256"), |b| {
            b.iter(|| engine.embed(&film, Role::None).expect("a film embeds"));
        });
        group.finish();
    }
    criterion.final_summary();
}

/// A text of exactly this many tokens: single letters and digits apart by spaces, cut to length.
fn text_of(engine: &Engine, tokens: usize, seed: usize) -> String {
    let mut text = String::new();
    for i in 0.. {
        let request = omniburn::Request::new(Role::None);
        let letter = char::from(b'a' + ((i * 7 + seed) % 26) as u8);
        text.push(letter);
        text.push(' ');
        if i + 1 < tokens / 2 {
            continue;
        }
        let embedded = count(engine, &text, &request);
        if embedded >= tokens {
            break;
        }
    }
    text
}

fn count(engine: &Engine, text: &str, request: &omniburn::Request) -> usize {
    let results = engine.embed_with(&[Input::text(text)], request).expect("a known task");
    results.into_iter().next().expect("one result").expect("a text embeds").tokens
}

fn noise(width: u32, height: u32) -> RgbImage {
    let pixels = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    RgbImage::new(Width(width), Height(height), pixels).expect("as many pixels as its sides say")
}
