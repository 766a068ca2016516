//! Files that people have, fetched by `tests/golden/make/fetch_samples.sh` and never committed. Without them these tests
//! say "not run", and fail where `CI=true` is set on a machine that can fetch them.

use std::path::{Path, PathBuf};

use omniburn::{Engine, Input, Request, Role};
use omniburn_media::{Video, VideoOptions, VideoSource};

use crate::support::*;

fn samples() -> Option<PathBuf> {
    let folder = match std::env::var_os("OMNIBURN_TEST_SAMPLES") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/omniburn/samples"),
    };
    if folder.join("forensics").is_dir() && folder.join("lena").is_dir() {
        return Some(folder);
    }
    let can_fetch = Path::new("/usr/bin/apt-get").exists() && std::env::var("CI").as_deref() == Ok("true");
    assert!(!can_fetch, "{} is missing; fetch_samples.sh gets it", folder.display());
    println!("not run: {} is not there", folder.display());
    None
}

/// What a file is given as.
type As = fn(PathBuf) -> Input;

/// Every file of a kind that is read.
const READ: &[(&str, As)] = &[
    ("forensics/audio1/debian.mp3", Input::audio_file),
    ("forensics/audio1/debian.ogg", Input::audio_file),
    ("forensics/audio1/debian.wav", Input::audio_file),
    ("forensics/audio2/deleted.mp3", Input::audio_file),
    ("forensics/audio2/deleted.ogg", Input::audio_file),
    ("forensics/audio2/deleted.wav", Input::audio_file),
    ("forensics/movie1/VID_20191220_170832.mp4", Input::video_file),
    ("forensics/movie1/VID_20191220_170832.mp4", Input::audio_file),
    ("forensics/movie2/movie-hello.mp4", Input::video_file),
    ("forensics/movie2/movie-hello.mp4", Input::audio_file),
    ("forensics/pic1/IMG-20191006-WA0002.jpg", Input::image_file),
    ("forensics/pic1/IMG_1054.JPG", Input::image_file),
    ("forensics/pic1/IMG_20200827_231612.jpg", Input::image_file),
    ("forensics/pic1/debian.png", Input::image_file),
    ("forensics/pic1/debian_logo.jpg", Input::image_file),
    ("forensics/pic1/debian_logo.png", Input::image_file),
    ("forensics/pic1/empty.jpg", Input::image_file),
    ("forensics/pic2/IMG_20191224_234846.jpg", Input::image_file),
    ("forensics/pic2/IMG_20200124_231153.jpg", Input::image_file),
    ("forensics/pic2/IMG_20200608_111614.jpg", Input::image_file),
    ("forensics/pic2/d-debian.jpg", Input::image_file),
    ("forensics/pic2/d-debian.png", Input::image_file),
    ("lena/lena-24.aiff", Input::audio_file),
    ("lena/lena-32.aiff", Input::audio_file),
    ("lena/lena-alaw.aiff", Input::audio_file),
    ("lena/lena-alaw.caf", Input::audio_file),
    ("lena/lena-f32.caf", Input::audio_file),
    ("lena/lena-ulaw.aiff", Input::audio_file),
    ("lena/lena-vorbis.webm", Input::audio_file),
    ("lena/lena.aac", Input::audio_file),
    ("lena/lena.aiff", Input::audio_file),
    ("lena/lena.caf", Input::audio_file),
    ("lena/lena.flac", Input::audio_file),
    ("lena/lena.m4a", Input::audio_file),
    ("lena/lena.mp3", Input::audio_file),
    ("lena/lena.ogg", Input::audio_file),
    ("lena/lena.opus", Input::audio_file),
    ("lena/lena.wav", Input::audio_file),
    ("lena/lena.webm", Input::audio_file),
    ("lena/audacity/lena-24.aiff", Input::audio_file),
    ("lena/audacity/lena-32.wav", Input::audio_file),
    ("lena/audacity/lena-64.aiff", Input::audio_file),
    ("lena/audacity/lena-a.aiff", Input::audio_file),
    ("lena/audacity/lena-u.aiff", Input::audio_file),
    ("lena/logic/lena-24.aif", Input::audio_file),
    ("lena/logic/lena-24.wav", Input::audio_file),
    ("lena/logic/lena-32.aif", Input::audio_file),
];

/// What is not read, the kind of its error, and the word that names what it is.
const REFUSED: &[(&str, As, &str, &str)] = &[
    ("forensics/movie2/movie-hello.avi", Input::video_file, "unsupported_codec", "avi"),
    ("forensics/movie2/movie-hello.mpeg", Input::video_file, "unsupported_codec", "mpeg"),
    ("forensics/movie2/movie-hello.ogg", Input::video_file, "unsupported_codec", "Theora"),
    ("forensics/pic1/debian.xcf", Input::image_file, "unsupported_codec", "xcf"),
    ("forensics/pic1/debian.ppm", Input::image_file, "unsupported_codec", "pnm"),
    ("forensics/text1/a-text.pdf", Input::image_file, "unknown_format", "pdf"),
    ("forensics/text1/a-text.docx", Input::image_file, "unknown_format", "office document"),
    ("forensics/text1/a-text.odt", Input::image_file, "unknown_format", "opendocument"),
    ("forensics/text1/a-text.pdf", Input::audio_file, "unknown_format", "pdf"),
    ("forensics/text1/a-text.pdf", Input::video_file, "unknown_format", "pdf"),
    ("forensics/pic1/debian.png", Input::audio_file, "unknown_format", "png"),
    ("forensics/pic1/debian_logo.jpg", Input::video_file, "unknown_format", "jpeg"),
    ("forensics/audio1/debian.mp3", Input::video_file, "unknown_format", "mp3"),
    ("lena/audacity/lena-gsm.aiff", Input::audio_file, "unsupported_codec", "GSM"),
    ("lena/audacity/lena-24-dwvw.aiff", Input::audio_file, "unsupported_codec", "DWVW"),
];

fn vector(engine: &Engine, input: Input) -> Vec<f32> {
    engine.embed_one(input, Role::Document).unwrap().into_vec()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    distance("cosine", a, b).cosine
}

#[test]
fn every_file_of_a_kind_that_is_read_gives_a_vector() {
    let Some(folder) = samples() else { return };
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let inputs: Vec<Input> = READ.iter().map(|(file, of)| of(folder.join(file))).collect();
    let results = engine.embed_with(&inputs, &Request::new(Role::Document).frames(4)).unwrap();
    let failed: Vec<String> = READ
        .iter()
        .zip(&results)
        .filter_map(|((file, _), result)| result.as_ref().err().map(|e| format!("{file}: {}: {e}", e.kind())))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for (index, vector) in results.iter().flatten().enumerate() {
        let norm: f64 = vector.embedding.as_slice().iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{}", READ[index].0);
    }
}

#[test]
fn every_other_file_is_refused_by_name() {
    let Some(folder) = samples() else { return };
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let inputs: Vec<Input> = REFUSED.iter().map(|(file, of, ..)| of(folder.join(file))).collect();
    let results = engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    for ((file, _, kind, named), result) in REFUSED.iter().zip(results) {
        let error = result.expect_err(file);
        let message = error.to_string();
        assert_eq!(error.kind().name(), *kind, "{file}: {message}");
        assert!(message.to_lowercase().contains(&named.to_lowercase()), "{file}: {message} does not name {named}");
    }
}

#[test]
fn the_same_sound_in_every_format_has_nearly_the_same_vector() {
    let Some(folder) = samples() else { return };
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let engine = golden().checkpoint(name).engine();
        let of = |file: &str| vector(&engine, Input::audio_file(folder.join("lena").join(file)));
        let wav = of("lena.wav");
        for file in [
            "lena.mp3",
            "lena.flac",
            "lena.ogg",
            "lena.opus",
            "lena.m4a",
            "lena.aac",
            "lena.aiff",
            "lena.caf",
            "lena-f32.caf",
            "lena.webm",
            "lena-vorbis.webm",
        ] {
            let cosine = cosine(&of(file), &wav);
            println!("{name}: {file} beside lena.wav: {cosine:.5}");
            assert!(cosine >= 0.98, "{name}: {file}: {cosine}");
        }
        let forensics = |file: &str| vector(&engine, Input::audio_file(folder.join("forensics/audio1").join(file)));
        let wav = forensics("debian.wav");
        for file in ["debian.mp3", "debian.ogg"] {
            let cosine = cosine(&forensics(file), &wav);
            println!("{name}: {file} beside debian.wav: {cosine:.5}");
            assert!(cosine >= 0.98, "{name}: {file}: {cosine}");
        }
    }
}

#[test]
fn the_same_video_as_a_file_and_as_its_frames_has_nearly_the_same_vector() {
    // Frames as FFmpeg lists them, with its own conversion to RGB.
    let videos = workspace().join("tests/golden/media/videos");
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let engine = golden().checkpoint(name).engine();
        let four = Request::new(Role::Document).frames(4);
        let file =
            engine.embed_with(&[Input::video_file(videos.join("high.mp4"))], &four).unwrap().swap_remove(0).unwrap();
        let list = Input::video_frame_files((0..4).map(|n| videos.join(format!("listed-{n}.png"))).collect());
        let cosine = cosine(file.embedding.as_slice(), &vector(&engine, list));
        println!("{name}: high.mp4 beside its frames: {cosine:.6}");
        assert!(cosine >= 0.999, "{name}: {cosine}");
        // Another choice of frames is another video.
        let other = engine.embed_with(&[Input::video_file(videos.join("high.mp4"))], &four.clone().frames(2)).unwrap();
        assert_ne!(other[0].as_ref().unwrap().embedding, file.embedding);
    }
    // A video of a phone, and the frames that the media crate shows at the same times.
    let Some(folder) = samples() else { return };
    let path = folder.join("forensics/movie1/VID_20191220_170832.mp4");
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let eight = Request::new(Role::Document).frames(8);
    let file = engine.embed_with(&[Input::video_file(&path)], &eight).unwrap().swap_remove(0).unwrap();
    let mut video =
        Video::open(&VideoSource::file(path), &VideoOptions { ffmpeg: None, ..VideoOptions::default() }).unwrap();
    let times: Vec<f64> = (0..8).map(|i| video.duration_s() * (f64::from(i) + 0.5) / 8.0).collect();
    let mut frames = Vec::new();
    video
        .frames_at(&times, &mut |_, frame| {
            frames.push(frame.clone());
            Ok(())
        })
        .unwrap();
    let list = vector(&engine, Input::video_frames(frames));
    let cosine = cosine(file.embedding.as_slice(), &list);
    println!("a phone's video beside its frames: {cosine:.6}");
    assert!(cosine >= 0.999, "{cosine}");
}
