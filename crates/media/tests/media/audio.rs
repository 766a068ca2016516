//! Audio files of every format against FFmpeg's samples of them (`tests/golden/make/audio.py`).

use std::sync::Arc;

use omniburn_media::{AudioReader, AudioSource, MediaError, TrackChoice};
use safetensors::SafeTensors;

use crate::support::{golden, json};

pub fn file(name: &str) -> Vec<u8> {
    let path = golden().join("audio/files").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn bytes(name: &str, bytes: &[u8]) -> AudioSource {
    AudioSource::Bytes(Arc::from(bytes), name.to_owned())
}

/// All samples of an audio file.
pub fn decoded(source: &AudioSource, rate_hz: u32) -> Result<Vec<f32>, MediaError> {
    let mut reader = AudioReader::open(source, rate_hz)?;
    let mut samples = Vec::new();
    while let Some(segment) = reader.next_segment()? {
        samples.extend_from_slice(&segment.samples);
    }
    Ok(samples)
}

fn sixteen_bits(tensors: &SafeTensors<'_>, key: &str) -> Vec<f64> {
    let tensor = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
    let values: Vec<f64> =
        tensor.data().chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect();
    match tensor.shape() {
        [_, channels] => values.chunks_exact(*channels).map(|f| f.iter().sum::<f64>() / *channels as f64).collect(),
        _ => values,
    }
}

/// The largest difference, and where.
fn apart(got: &[f32], want: &[f64]) -> (f64, usize) {
    got.iter().zip(want).enumerate().fold((0.0, 0), |most, (at, (a, b))| {
        let now = (f64::from(*a) - b).abs();
        if now > most.0 { (now, at) } else { most }
    })
}

#[test]
fn every_format_gives_the_samples_of_ffmpeg() {
    let stored = std::fs::read(golden().join("audio/files.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&stored).unwrap();
    let listed = json(&golden().join("audio/files.json"));
    let mut wrong = Vec::new();
    for (name, about) in listed.as_object().unwrap() {
        let kind = about["kind"].as_str().unwrap();
        if kind == "refused" {
            continue;
        }
        let rate = about["rate_hz"].as_u64().unwrap() as u32;
        let got = match decoded(&AudioSource::file(golden().join("audio/files").join(name)), rate) {
            Ok(got) => got,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        // Lossless files to the bit of f32; FFmpeg's lossy samples are stored in 16 bits.
        let (want, bound) = match kind {
            "u8" => {
                let floor = |v: &f64| (v * 128.0).floor() / 128.0;
                let tensor = tensors.tensor("plain").unwrap();
                let values: Vec<f64> = tensor
                    .data()
                    .chunks_exact(2)
                    .map(|b| floor(&(f64::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)))
                    .collect();
                (values.chunks_exact(2).map(|f| (f[0] + f[1]) / 2.0).collect(), 0.0)
            }
            "coded" => (sixteen_bits(&tensors, name), 5e-5),
            kind => (sixteen_bits(&tensors, kind), 0.0),
        };
        // FFmpeg expands IMA samples by a rounded product where the standard adds shifted steps.
        let bound = if name == "ima.wav" { 6e-3 } else { bound };
        // Where FFmpeg gives another number of samples, the reason stands here; what both give is the same.
        let length = match name.as_str() {
            // The header counts the samples; FFmpeg gives the last block whole.
            "ima.wav" | "ms.wav" => 16_000,
            // The last page counts the samples; FFmpeg gives 128 fewer.
            "stereo.ogg" => 16_000,
            // Padding at the end that Matroska tells about by block, which is not read: less than a packet.
            "mp3.mkv" => want.len() + 175,
            "vorbis.webm" | "film.mkv" => want.len() + 64,
            "opus.webm" | "film.webm" => want.len() + 513,
            // The table of durations leaves out the padding; FFmpeg gives it.
            "opus.mp4" => want.len() - 513,
            _ => want.len(),
        };
        let (most, at) = apart(&got, &want);
        println!("{name}: {} samples, FFmpeg {}, within {most:.1e} (at {at})", got.len(), want.len());
        if got.len() != length || most > bound {
            wrong.push(format!("{name}: {} samples for {length}, {most:e} apart at {at}", got.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_audio_track_is_the_default_one_or_the_one_asked_for() {
    let folder = golden().join("clocks");
    let tracks = json(&folder.join("tracks.json"));
    let tones = [440.0, 880.0, 1760.0];
    for (name, entry) in tracks.as_object().expect("files by name") {
        let source = AudioSource::file(folder.join(name));
        let hear = |choice: &TrackChoice| -> Result<f64, MediaError> {
            let mut reader = AudioReader::open_track(&source, choice, 16_000)?;
            let samples = reader.next_segment()?.expect("a segment").samples;
            let crossings = samples.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            Ok(crossings as f64 * 16_000.0 / samples.len() as f64)
        };
        let is = |choice: TrackChoice, track: usize| {
            let found = hear(&choice).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!((found / tones[track] - 1.0).abs() < 0.05, "{name}, {choice:?}: {found} Hz");
        };
        is(TrackChoice::Default, entry["audio"].as_u64().expect("a place") as usize);
        if name.starts_with("video") {
            continue;
        }
        (0..3).for_each(|track| is(TrackChoice::Index(track as u32), track));
        let error = hear(&TrackChoice::Index(3)).expect_err("there are three");
        assert_eq!(error.kind(), "empty", "{error}");
        if name.starts_with("second") {
            is(TrackChoice::Language("eng".to_owned()), 0);
            is(TrackChoice::Language("deu".to_owned()), 1);
            let words = hear(&TrackChoice::Language("fra".to_owned())).expect_err("none is French").to_string();
            let codec = if name.ends_with("mkv") { "FLAC" } else { "ALAC" };
            let list = format!("0 ({codec}, eng), 1 ({codec}, deu, default), 2 ({codec})");
            assert!(
                words.contains(&format!("found no audio track of language fra, expected one of: {list}")),
                "{words}"
            );
        }
    }
    for name in ["unread.mkv", "unread.mp4"] {
        let source = AudioSource::file(folder.join(name));
        let error = AudioReader::open(&source, 16_000).expect_err("its default track is AC-3");
        assert_eq!(error.kind(), "unsupported_codec");
        let words = error.to_string();
        assert!(words.contains("AC-3") && words.contains("1 (ALAC"), "{words}");
        AudioReader::open_track(&source, &TrackChoice::Index(1), 16_000).expect("the other one is ALAC");
    }
    let wav = AudioSource::Bytes(file("f32.wav").into(), "one.wav".to_owned());
    AudioReader::open_track(&wav, &TrackChoice::Index(0), 16_000).expect("the only one");
    let error = AudioReader::open_track(&wav, &TrackChoice::Index(1), 16_000).expect_err("there is one");
    assert!(error.to_string().contains("expected one of: 0 (wav, default)"), "{error}");
}

#[test]
fn audio_of_which_a_part_is_played_has_its_length_and_several_parts_are_refused() {
    let folder = golden().join("clocks");
    let of = |name: &str| decoded(&AudioSource::file(folder.join(name)), 16_000);
    let part = of("part.m4a").expect("one part");
    assert_eq!(part.len(), 11_200);
    assert_eq!(of("part_late.m4a").expect("an empty edit before it adds no silence"), part);
    assert_eq!(of("part_twice.m4a").expect("two parts that are one"), part);
    let error = of("parts.m4a").expect_err("it plays two parts");
    assert_eq!(error.kind(), "unsupported_codec");
    assert!(error.to_string().contains("several parts of its audio"), "{error}");
}
