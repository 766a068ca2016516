//! Audio that changes in the middle or was joined, every form of plain samples, and surround Opus, against FFmpeg, sox and
//! opusdec (`tests/golden/make/streams.py`).

use omniburn_media::AudioSource;
use safetensors::{Dtype, SafeTensors};

use crate::audio::decoded;
use crate::support::{golden, json};

/// Mono samples as stored: 16-bit integers, in frames of some channels, or 32-bit floats.
fn stored(tensors: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    if tensor.dtype() == Dtype::F32 {
        return tensor
            .data()
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect();
    }
    let values = tensor.data().chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0);
    let values: Vec<f64> = values.collect();
    let channels = tensor.shape().get(1).copied().unwrap_or(1);
    values.chunks_exact(channels).map(|frame| frame.iter().sum::<f64>() / channels as f64).collect()
}

#[test]
fn streams_that_change_or_were_joined_and_plain_samples_of_every_form_are_as_the_reference_reads_them() {
    let bytes = std::fs::read(golden().join("audio/streams.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let listed = json(&golden().join("audio/streams.json"));
    let mut wrong = Vec::new();
    for (name, about) in listed.as_object().unwrap() {
        let rate = about["rate_hz"].as_u64().unwrap_or(16_000) as u32;
        let got = decoded(&AudioSource::file(golden().join("audio/streams").join(name)), rate);
        let kind = about["kind"].as_str().unwrap();
        let got = match (kind, got) {
            ("refused", Ok(samples)) => {
                wrong.push(format!("{name}: {} samples of what is to be refused", samples.len()));
                continue;
            }
            ("refused", Err(error)) => {
                let message = error.to_string();
                if !message.contains(about["word"].as_str().unwrap()) {
                    wrong.push(message);
                }
                continue;
            }
            (_, Ok(got)) => got,
            (_, Err(error)) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let resampled = tensors.tensor(name).is_ok_and(|tensor| tensor.dtype() == Dtype::F32);
        let want = stored(&tensors, about["of"].as_str().unwrap_or(if kind == "plain" { "plain" } else { name }));
        let bound = match kind {
            "plain" => 0.0,
            // The resamplers agree to 5e-5 but for the first samples of a part, where soxr is off where rates are odd.
            _ if resampled => 2e-3,
            _ => 5e-5,
        };
        // Where FFmpeg gives another number of samples, the reason stands here; what both give is the same.
        let length = match name.as_str() {
            // Matroska's padding at the end is not read: less than a packet. The table of MP4 leaves it out.
            "surround-6.mkv" | "ms.mkv" => got.len().clamp(want.len(), want.len() + 960),
            _ => want.len(),
        };
        let apart = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).enumerate();
        let (at, most) = apart.fold((0, 0.0), |most, now| if now.1 > most.1 { now } else { most });
        println!("{name}: {} samples, {} expected, within {most:.1e} (at {at})", got.len(), want.len());
        if got.len() != length || most > bound {
            wrong.push(format!("{name}: {} samples for {length}, {most:e} apart at {at}", got.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The steps of its couplings share a channel, so their order counts. Golden: `tests/golden/make/surround.py`.
#[test]
fn vorbis_of_six_channels_is_uncoupled_from_the_last_step_to_the_first() {
    let bytes = std::fs::read(golden().join("audio/surround.safetensors")).unwrap();
    let want = stored(&SafeTensors::deserialize(&bytes).unwrap(), "surround");
    let got = decoded(&AudioSource::file(golden().join("audio/surround.ogg")), 48_000).unwrap();
    assert_eq!(got.len(), want.len());
    let apart = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(apart < 5e-5, "{apart:e} apart");
}
