//! Media without a device: images decoded and resized, audio into mel frames, videos into frames, tokenizers opened.
//!
//! Beside Pillow and the extractor of transformers in one run: `crates/media/examples/media_times.rs`.

use std::path::PathBuf;

use criterion::{Criterion, Throughput};
use image::{ExtendedColorType, ImageEncoder};
use omniburn::{Height, RgbImage, Width};
use omniburn_media::{
    AudioReader, AudioSource, MelPreprocess, TextTokenizer, Video, VideoOptions, VideoSource, decode_image, log_mel,
    resize_bicubic,
};

fn stored(name: &str) -> PathBuf {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    PathBuf::from(root).join("../tests/golden/media").join(name)
}

/// Ten seconds of a tone that climbs, mono, as a decoder gives them.
fn tone(rate_hz: u32) -> AudioSource {
    let samples: Vec<f32> = (0..10 * rate_hz)
        .map(|i| {
            let t = i as f32 / rate_hz as f32;
            0.5 * (t * (900.0 + 300.0 * t)).sin()
        })
        .collect();
    AudioSource::Samples(samples.into(), rate_hz)
}

/// Slow waves with a little noise on them: about as hard to decode as a photograph.
fn scene(width: u32, height: u32) -> Vec<u8> {
    let level = |at: u32| {
        let (x, y, channel) = (at / 3 % width, at / 3 / width, at % 3);
        let wave = (x as f32 / (90.0 + 40.0 * channel as f32)).sin() * (y as f32 / 130.0).cos();
        let noise = (at.wrapping_mul(2_654_435_761) >> 24) as f32 / 16.0;
        (118.0 + 100.0 * wave + noise) as u8
    };
    (0..width * height * 3).map(level).collect()
}

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let (mut jpeg, mut png) = (Vec::new(), Vec::new());
    let photograph = scene(4000, 3000);
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90)
        .write_image(&photograph, 4000, 3000, ExtendedColorType::Rgb8)
        .expect("an image is written");
    image::codecs::png::PngEncoder::new(&mut png)
        .write_image(&photograph, 4000, 3000, ExtendedColorType::Rgb8)
        .expect("an image is written");
    drop(photograph);
    let mut group = criterion.benchmark_group("media/decode");
    group.throughput(Throughput::Elements(12_000_000));
    for (name, bytes) in [("jpeg", &jpeg), ("png", &png)] {
        group.bench_function(format!("4000x3000 {name}"), |b| {
            b.iter(|| decode_image(bytes, name).expect("it is whole"))
        });
    }
    group.finish();
    drop((jpeg, png));

    let pixels = (0..4000u32 * 3000 * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = RgbImage::new(Width(4000), Height(3000), pixels).expect("as many pixels as its sides say");
    let mut group = criterion.benchmark_group("media/resize");
    group.throughput(Throughput::Elements(12_000_000));
    group.bench_function("4000x3000 to 1152x896", |b| {
        b.iter(|| resize_bicubic(&image, Height(896), Width(1152)));
    });
    group.finish();

    let mel = MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };
    let mut group = criterion.benchmark_group("media/audio");
    for rate_hz in [16_000, 44_100, 48_000] {
        let source = tone(rate_hz);
        group.bench_function(format!("10 s at {rate_hz} Hz to mel frames"), |b| {
            b.iter(|| {
                let mut reader = AudioReader::open(&source, mel.sample_rate_hz).expect("a tone opens");
                let segment = reader.next_segment().expect("a tone is read").expect("it has a segment");
                log_mel(&segment.samples, &mel).expect("it has frames")
            });
        });
    }
    group.finish();

    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let tokenizer = std::fs::read(PathBuf::from(root).join("../models/mini/record/tokenizer.json")).expect("it ships");
    criterion.bench_function("media/tokenizer of 30,522 word pieces opened", |b| {
        b.iter(|| TextTokenizer::from_bytes(&tokenizer).expect("it is one"));
    });

    let mut group = criterion.benchmark_group("media/video");
    // 4 s into a group of ten: each frame needs the hundred images before it.
    let source = VideoSource::file(stored("videos/ten_minutes.mp4"));
    group.bench_function("one frame of 1080p H.264, 101 pictures after its key frame", |b| {
        b.iter(|| {
            let mut video =
                Video::open(&source, &VideoOptions { ffmpeg: None, ..VideoOptions::default() }).expect("a video opens");
            video.frames_at(&[304.0], &mut |_, _| Ok(())).expect("a frame decodes");
        });
    });
    group.finish();
    criterion.final_summary();
}
