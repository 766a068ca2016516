//! Log-mel frames against the feature extractor of transformers (`tests/golden/make/mels.py`).

use std::f64::consts::TAU;
use std::path::Path;

use omniburn_media::{MelPreprocess, log_mel};
use safetensors::{Dtype, SafeTensors};

use crate::support::{full_set, golden, json};

/// The published settings.
pub const PUBLISHED: MelPreprocess =
    MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };

/// The extractor computes in f32; its own noise floor was measured as 8e-5.
const BOUND: f32 = 1e-4;

pub fn f32s(tensors: &SafeTensors<'_>, key: &str) -> Vec<f32> {
    let tensor = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert_eq!(tensor.dtype(), Dtype::F32, "{key}");
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub fn numbers(tensors: &SafeTensors<'_>, key: &str) -> Vec<usize> {
    let tensor = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert_eq!(tensor.dtype(), Dtype::I64, "{key}");
    tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
}

/// Uniform in -1..1: the upper half of a 32-bit linear congruential generator.
pub fn noise(n: usize) -> Vec<f64> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 16) / 32768.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Ten harmonics that glide and swell, and a little noise.
fn voice(n: usize) -> Vec<f32> {
    let mut x: Vec<f64> = noise(n).iter().map(|v| 0.01 * v).collect();
    for k in 1..=10 {
        let k = f64::from(k);
        for (i, value) in x.iter_mut().enumerate() {
            let t = i as f64 / 16000.0;
            let phase = TAU * k * (140.0 * t + 8.0 * (2.5 * t).sin());
            *value += 0.3 / k * phase.sin() * (0.55 + 0.45 * (3.1 * t + k).sin());
        }
    }
    x.iter().map(|v| *v as f32).collect()
}

fn click(n: usize, at: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    x[at] = 1.0;
    x
}

/// The clip that `mels.py` made under a name.
fn clip(name: &str) -> Vec<f32> {
    let square = || (0..5000).map(|i| if i / 40 % 2 == 0 { 1.0 } else { -1.0 });
    match name {
        "silence/4000" => vec![0.0; 4000],
        "click/first" => click(3000, 0),
        "click/middle" => click(3000, 1500),
        "click/last" => click(3036, 3035),
        "noise/8000" => noise(8000).iter().map(|v| *v as f32).collect(),
        "square/5000" => square().collect(),
        "loud/5000" => square().map(|v: f32| 30.0 * v).collect(),
        _ => voice(name.strip_prefix("voice/").expect("a known clip").parse().unwrap()),
    }
}

/// Compares the stored frames and gives the largest difference.
fn compare(tensors: &SafeTensors<'_>, name: &str, samples: &[f32]) -> f32 {
    let got = log_mel(samples, &PUBLISHED).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(got.frames(), numbers(tensors, &format!("{name}/count"))[0], "{name}: frames");
    assert_eq!(got.mels(), 128);
    assert_eq!(got.values().len(), got.frames() * 128);
    let at = numbers(tensors, &format!("{name}/at"));
    let want = f32s(tensors, &format!("{name}/mel"));
    assert_eq!(want.len(), at.len() * 128);
    let mut apart = 0.0f32;
    for (row, frame) in want.chunks_exact(128).zip(&at) {
        for (a, b) in got.values()[frame * 128..][..128].iter().zip(row) {
            apart = apart.max((a - b).abs());
        }
    }
    println!("{name}: {} of {} frames within {apart:.1e}", at.len(), got.frames());
    apart
}

fn goldens() -> Vec<u8> {
    std::fs::read(golden().join("audio/mels.safetensors")).unwrap()
}

#[test]
fn mels_of_clips_of_any_length_are_those_of_the_extractor() {
    let bytes = goldens();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> =
        tensors.names().iter().filter_map(|name| name.strip_suffix("/samples")).map(str::to_owned).collect();
    names.sort();
    assert_eq!(names.len(), 20);
    for name in names {
        let samples = clip(&name);
        assert_eq!(samples.len(), numbers(&tensors, &format!("{name}/samples"))[0], "{name}");
        if samples.len() <= 320 {
            let error = log_mel(&samples, &PUBLISHED).unwrap_err();
            assert_eq!(error.kind(), "too_short");
            assert_eq!(error.to_string(), "audio: found 2 mel frames, expected at least 3");
            continue;
        }
        let apart = compare(&tensors, &name, &samples);
        assert!(apart <= BOUND, "{name}: {apart:e}");
    }
}

/// The tone of the published fixtures: four sines, 50 ms raised-cosine fades, peak 0.9.
fn tone() -> Vec<f64> {
    let parts = [(0.45, 220.0, 0.0), (0.30, 440.0, 0.5), (0.20, 660.0, 1.0), (0.10, 110.0, 0.25)];
    let fade = |i: usize| if i < 800 { 0.5 * (1.0 - (TAU / 2.0 * i as f64 / 800.0).cos()) } else { 1.0 };
    let at = |i: usize| {
        let t = i as f64 / 16000.0;
        let sum: f64 = parts.iter().map(|(a, hz, phase)| a * (TAU * hz * t + phase).sin()).sum();
        sum * fade(i) * fade(47_999 - i)
    };
    let x: Vec<f64> = (0..48_000).map(at).collect();
    let peak = x.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    x.iter().map(|v| v / peak * 0.9).collect()
}

#[test]
fn mels_of_the_published_tone_are_met_from_floats_and_from_sixteen_bits() {
    let bytes = goldens();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats: Vec<f32> = tone().iter().map(|v| *v as f32).collect();
    let apart = compare(&tensors, "published/tone", &floats);
    assert!(apart <= 5e-4, "{apart:e}");
    let rounded: Vec<f32> = tone().iter().map(|v| ((v * 32767.0).round() / 32768.0) as f32).collect();
    let apart = compare(&tensors, "published/tone", &rounded);
    assert!(apart <= 1e-2, "{apart:e}");
}

/// Samples of a plain 16-bit WAV of one channel. Read here without the code under test.
fn plain_wav(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[36..40], b"data");
    bytes[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect()
}

#[test]
fn mels_of_the_reference_media_are_met() {
    let bytes = goldens();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let folder = golden().join("../refs/media/audio");
    let mut seen = 0;
    for name in ["click", "short", "half", "edge", "second", "mixed", "three", "silence"] {
        let apart = compare(&tensors, &format!("media/{name}"), &plain_wav(&folder.join(format!("{name}.wav"))));
        assert!(apart <= BOUND, "{name}: {apart:e}");
        seen += 1;
    }
    assert_eq!(seen, 8);
    let blip = log_mel(&plain_wav(&folder.join("blip.wav")), &PUBLISHED).unwrap_err();
    assert_eq!(blip.kind(), "too_short");
}

#[test]
fn mels_of_the_full_reference_set_are_met() {
    let Some(folder) = full_set() else { return };
    let folder = folder.join("refs");
    let bytes = std::fs::read(folder.join("preprocess.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for case in json(&folder.join("preprocess.json"))["cases"].as_array().unwrap() {
        if case["kind"] != "audio" || case["frames"].as_u64().unwrap() < 3 {
            continue;
        }
        let got = log_mel(&plain_wav(&folder.join("media").join(case["file"].as_str().unwrap())), &PUBLISHED).unwrap();
        let want = f32s(&tensors, case["mel"].as_str().unwrap());
        let frames = got.frames();
        assert_eq!(frames as u64, case["frames"].as_u64().unwrap(), "{}", case["name"]);
        // Stored mel-major.
        let apart =
            (0..want.len()).map(|i| (want[i] - got.values()[i % frames * 128 + i / frames]).abs()).fold(0.0, f32::max);
        println!("{}: all {frames} frames within {apart:.1e}", case["name"]);
        assert!(apart <= BOUND, "{}: {apart:e}", case["name"]);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn a_sample_that_is_no_number_is_named_by_its_time() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = vec![0.1; 16_000];
        samples[8_000] = bad;
        let error = log_mel(&samples, &PUBLISHED).unwrap_err();
        assert_eq!(error.kind(), "not_finite");
        assert!(error.to_string().contains("0.500 s"), "{error}");
    }
}

#[test]
fn samples_at_the_ends_of_their_range_give_finite_frames() {
    for value in [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45] {
        let mel = log_mel(&vec![value; 2_000], &PUBLISHED).unwrap();
        assert!(mel.values().iter().all(|v| v.is_finite()), "{value}");
    }
}

#[test]
fn other_windows_rates_and_band_counts_give_frames_too() {
    let settings = MelPreprocess { sample_rate_hz: 8_000, fft_samples: 257, hop_samples: 100, mels: 40 };
    let mel = log_mel(&voice(1_001), &settings).unwrap();
    assert_eq!((mel.frames(), mel.mels()), (11, 40));
    for field in 0..4 {
        let mut zero = PUBLISHED;
        *[&mut zero.sample_rate_hz, &mut zero.fft_samples, &mut zero.hop_samples, &mut zero.mels][field] = 0;
        assert_eq!(log_mel(&voice(1_000), &zero).unwrap_err().kind(), "corrupt");
    }
}

#[test]
fn nothing_is_too_short() {
    for n in [0, 1, 160, 320] {
        assert_eq!(log_mel(&vec![0.0; n], &PUBLISHED).unwrap_err().kind(), "too_short", "{n}");
    }
    assert_eq!(log_mel(&[0.0; 321], &PUBLISHED).unwrap().frames(), 3);
}
