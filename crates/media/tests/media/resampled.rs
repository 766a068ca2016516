//! Resampling against soxr (`tests/golden/make/resampled.py`), and how audio is cut into segments.

use std::f64::consts::TAU;
use std::sync::Arc;

use omniburn_media::{AudioReader, AudioSource, SEGMENT_SECONDS, log_mel};
use safetensors::SafeTensors;

use crate::audio::decoded;
use crate::mels::{PUBLISHED, f32s, noise};
use crate::support::golden;

/// Harmonics, a sweep and noise, faded in.
fn audio(rate: u32) -> Vec<f32> {
    let n = rate as usize * 4 / 5;
    let mut x: Vec<f64> = noise(n).iter().map(|v| 0.02 * v).collect();
    let rate = f64::from(rate);
    for (i, value) in x.iter_mut().enumerate() {
        let t = i as f64 / rate;
        for k in 1..=12 {
            let k = f64::from(k);
            *value += 0.2 / k * (TAU * 170.0 * k * t + k).sin();
        }
        *value += 0.15 * (TAU * (50.0 * t + 0.45 * rate / 1.6 * t * t)).sin();
        *value *= (t / 0.005).min(1.0);
    }
    x.iter().map(|v| *v as f32).collect()
}

fn samples(values: Vec<f32>, rate: u32) -> AudioSource {
    AudioSource::Samples(Arc::from(values), rate)
}

#[test]
fn mels_after_resampling_are_those_after_soxr() {
    let stored = std::fs::read(golden().join("audio/resampled.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&stored).unwrap();
    let mut worst = 0.0f32;
    for rate in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 96_001] {
        let want = f32s(&tensors, &rate.to_string());
        let got = decoded(&samples(audio(rate), rate), 16_000).unwrap();
        assert_eq!(got.len(), want.len(), "{rate}");
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let noise = power(&mut got.iter().zip(&want).map(|(a, b)| a - b));
        let snr = 10.0 * (power(&mut want.iter().copied()) / noise).log10();
        let (got, want) = (log_mel(&got, &PUBLISHED).unwrap(), log_mel(&want, &PUBLISHED).unwrap());
        let apart = |from: usize, to: usize| {
            let rows = got.values().chunks_exact(128).zip(want.values().chunks_exact(128));
            rows.flat_map(|(a, b)| a[from..to].iter().zip(&b[from..to])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let (low, high) = (apart(0, 100), apart(100, 128));
        println!("{rate} Hz: mels 0-99 within {low:.4}, 100-127 within {high:.4}, samples {snr:.1} dB");
        worst = worst.max(low);
    }
    assert!(worst <= 0.01, "{worst}");
}

#[test]
fn long_audio_is_cut_every_four_minutes() {
    // 1 kHz keeps it quick; 10 minutes and a half.
    for (seconds, ends) in [
        (630.5, vec![240.0, 480.0, 630.5]),
        (480.0, vec![240.0, 480.0]),
        (240.0, vec![240.0]),
        // A rest of one fiftieth of a second gives two mel frames and is dropped.
        (240.02, vec![240.0]),
        (240.021, vec![240.0, 240.021]),
        (0.004, vec![0.004]),
    ] {
        let frames = (seconds * 1000.0_f64).round() as usize;
        let values: Vec<f32> = (0..frames).map(|i| (i % 997) as f32 / 997.0).collect();
        let mut reader = AudioReader::open(&samples(values.clone(), 1_000), 1_000).unwrap();
        let mut start = 0;
        for end in &ends {
            assert!(reader.has_more().unwrap());
            let segment = reader.next_segment().unwrap().unwrap();
            assert_eq!(segment.start_s, start as f64 / 1000.0);
            assert_eq!(segment.end_s, *end, "{seconds} s");
            let stop = (end * 1000.0).round() as usize;
            assert!(segment.samples == values[start..stop], "{seconds} s: up to {end} s");
            start = stop;
        }
        assert!(!reader.has_more().unwrap());
        assert!(reader.next_segment().unwrap().is_none());
        assert!(reader.next_segment().unwrap().is_none());
    }
}

#[test]
fn a_segment_is_resampled_as_if_it_were_alone() {
    let rate = 1_111;
    let values: Vec<f32> = noise(rate as usize * 250).iter().map(|v| *v as f32).collect();
    let whole = decoded(&samples(values.clone(), rate), 1_600).unwrap();
    let cut = (SEGMENT_SECONDS * f64::from(rate)) as usize;
    let mut parts = decoded(&samples(values[..cut].to_vec(), rate), 1_600).unwrap();
    parts.extend(decoded(&samples(values[cut..].to_vec(), rate), 1_600).unwrap());
    assert!(whole == parts);
}

#[test]
fn samples_that_are_no_numbers_or_none_at_all_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0.5; 300_000];
        values[250_000] = bad;
        let mut reader = AudioReader::open(&samples(values, 1_000), 16_000).unwrap();
        // The first segment is whole; the error comes with the second, and nothing after it.
        assert!(reader.next_segment().unwrap().is_some());
        let error = reader.next_segment().unwrap_err();
        assert_eq!(error.kind(), "not_finite");
        assert!(error.to_string().contains("250.000 s"), "{error}");
        assert!(reader.next_segment().unwrap().is_none());
        assert!(!reader.has_more().unwrap());
    }
    let error = decoded(&samples(Vec::new(), 16_000), 16_000).unwrap_err();
    assert_eq!(error.kind(), "empty");
    for rate in [0, 999, 768_001] {
        assert_eq!(decoded(&samples(vec![0.0; 9], rate), 16_000).unwrap_err().kind(), "unsupported_codec", "{rate}");
    }
    assert_eq!(AudioReader::open(&samples(vec![0.0; 9], 16_000), 0).unwrap_err().kind(), "corrupt");
}

#[test]
fn a_reader_can_be_sent_to_another_thread_and_printed() {
    fn takes(_: impl Send + std::fmt::Debug) {}
    let reader = AudioReader::open(&samples(vec![0.0; 9], 16_000), 16_000).unwrap();
    assert_eq!(format!("{reader:?}"), "AudioReader(audio, samples, 16000 Hz)");
    takes(reader);
}
