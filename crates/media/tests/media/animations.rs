//! Animated GIF, WebP and PNG as videos, against Pillow 13 and FFmpeg's times. Goldens: `tests/golden/make/animations.py`.

use std::sync::Arc;
use std::time::Instant;

use omniburn_media::{MediaError, RgbImage, TrackChoice, Video, VideoOptions, VideoSource, decode_image, is_animation};
use proptest::prelude::*;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::support::{assert_same, difference, golden, json, stored_image};

const NO_PROGRAM: VideoOptions = VideoOptions { ffmpeg: None, track: TrackChoice::Default };

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(golden().join("animations").join(name)).unwrap()
}

fn bytes(bytes: &[u8]) -> VideoSource {
    VideoSource::Bytes(Arc::from(bytes), "a video".to_owned())
}

fn at(source: &VideoSource, times_s: &[f64]) -> Result<Vec<RgbImage>, MediaError> {
    let mut frames = vec![None; times_s.len()];
    Video::open(source, &NO_PROGRAM)?.frames_at(times_s, &mut |place, frame| {
        frames[place] = Some(frame.clone());
        Ok(())
    })?;
    Ok(frames.into_iter().map(|frame| frame.expect("each time has a frame")).collect())
}

/// A stored video: its name, starts, end and the digest of each frame.
fn stored() -> Vec<(String, Vec<f64>, f64, Vec<String>)> {
    let listing = json(&golden().join("animations.json"));
    let videos = listing.as_object().unwrap().iter().map(|(name, video)| {
        let starts = video["starts_s"].as_array().unwrap().iter().map(|start| start.as_f64().unwrap()).collect();
        let digests =
            video["sha256"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        (name.clone(), starts, video["end_s"].as_f64().unwrap(), digests)
    });
    videos.collect()
}

/// A time within each frame.
fn middles(starts: &[f64], end: f64) -> Vec<f64> {
    starts.iter().zip(starts.iter().skip(1).chain([&end])).map(|(from, to)| (from + to) / 2.0).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_frame_is_what_pillow_gives_and_is_shown_when_ffmpeg_shows_it() {
    let mut compared = [0; 3];
    for (name, starts, end, digests) in stored() {
        let source = VideoSource::file(golden().join("animations").join(&name));
        let video = Video::open(&source, &NO_PROGRAM).unwrap();
        // FFmpeg's log has six digits.
        assert!((video.duration_s() - end).abs() < 2e-5, "{name}: {} s for {end} s", video.duration_s());
        assert_eq!(is_animation(&source).unwrap(), starts.len() > 1, "{name}");
        // The last moment before each start shows the frame before.
        let eve: Vec<f64> = starts.iter().skip(1).map(|start| start - 1e-4).collect();
        if name.starts_with("lossy") {
            continue;
        }
        let frames = at(&source, &middles(&starts, end)).unwrap();
        for (place, (frame, digest)) in frames.iter().zip(&digests).enumerate() {
            assert_eq!(&hex(&Sha256::digest(frame.pixels())), digest, "{name}: frame {place}");
        }
        for (place, frame) in at(&source, &eve).unwrap().iter().enumerate() {
            assert_same(&format!("{name}: before frame {}", place + 1), frame, &frames[place]);
        }
        let format = ["gif", "webp", "png"].iter().position(|ending| name.ends_with(ending)).unwrap();
        compared[format] += digests.len();
    }
    println!("{compared:?} frames of GIF, WebP and PNG equal");
    assert_eq!(compared, [121, 52, 23]);
}

#[test]
fn lossy_frames_are_as_near_as_still_lossy_images_are() {
    let stored_bytes = std::fs::read(golden().join("animations.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&stored_bytes).unwrap();
    let mut count = 0;
    for (name, starts, end, digests) in stored().into_iter().filter(|video| video.0.starts_with("lossy")) {
        let frames = at(&bytes(&sample(&name)), &middles(&starts, end)).unwrap();
        assert_eq!(frames.len(), digests.len());
        for (place, frame) in frames.iter().enumerate() {
            let key = format!("{name}/{place}");
            let apart = difference(&key, frame, &stored_image(&tensors, &key));
            println!("{key}: {apart:?}");
            assert_eq!(apart.max, 0, "{key}: still lossy WebP needs no tolerance");
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn the_first_frame_is_the_still_image() {
    for (name, ..) in stored().into_iter().filter(|video| video.0 != "default-apart.png") {
        let file = sample(&name);
        let first = at(&bytes(&file), &[0.0]).unwrap();
        let still = decode_image(&file, &name).unwrap();
        if name.ends_with("webp") {
            // The still image of an animated WebP is one off Pillow's where the decoder lays the first frame over an
            // empty canvas; the video copies it, as libwebp does.
            let apart = difference(&name, &first[0], &still);
            assert!(apart.max <= 1, "{name}: {apart:?}");
        } else {
            assert_same(&name, &first[0], &still);
        }
    }
    // Stills are videos of one frame.
    for name in ["transparent.gif", "part-of-screen.gif", "lossless-alpha.webp", "lossy.webp", "rgba.png", "exif-6.png"]
    {
        let file = std::fs::read(golden().join("images").join(name)).unwrap();
        assert!(!is_animation(&bytes(&file)).unwrap(), "{name}");
        let video = at(&bytes(&file), &[0.0, 0.05, 9.0]).unwrap();
        for frame in &video {
            assert_same(name, frame, &decode_image(&file, name).unwrap());
        }
    }
}

#[test]
fn frames_asked_for_again_or_backwards_are_the_same() {
    for name in ["disposal-3.gif", "soft-mixed.webp", "soft.png"] {
        let source = bytes(&sample(name));
        let mut video = Video::open(&source, &NO_PROGRAM).unwrap();
        let end = video.duration_s();
        let mut seen: Vec<Vec<RgbImage>> = Vec::new();
        for _ in 0..2 {
            let mut frames = Vec::new();
            video
                .frames_at(&[0.01, end * 0.5, end * 0.5, end - 0.01], &mut |_, frame| {
                    frames.push(frame.clone());
                    Ok(())
                })
                .unwrap();
            seen.push(frames);
        }
        assert_eq!(seen[0], seen[1], "{name}");
        assert_eq!(seen[0][1], seen[0][2], "{name}");
        assert_ne!(seen[0][0], seen[0][3], "{name}");
    }
}

#[test]
fn a_cut_animation_is_corrupt() {
    for name in ["plain.gif", "disposal-2.gif", "opaque-parts.webp", "lossy-soft.webp", "parts.png", "soft.png"] {
        let file = sample(name);
        for share in [0.3, 0.5, 0.7, 0.9, 0.999] {
            let cut = (file.len() as f64 * share) as usize;
            let error = at(&bytes(&file[..cut]), &[0.0]).unwrap_err();
            assert_eq!(error.kind(), "corrupt", "{name} cut at {cut}: {error}");
            assert!(error.to_string().contains("a video"), "{error}");
            is_animation(&bytes(&file[..cut])).unwrap();
        }
    }
}

#[test]
fn the_second_frame_is_found_without_what_follows() {
    let file = sample("plain.gif");
    let second = file.iter().enumerate().filter(|(_, byte)| **byte == 0x2c).map(|(place, _)| place).nth(1);
    // Any place behind the second frame's header will do; half of four equal frames is one.
    assert!(second.is_some());
    assert!(is_animation(&bytes(&file[..file.len() / 2])).unwrap());
    assert!(!is_animation(&bytes(&file[..file.len() / 8])).unwrap());
    assert!(!is_animation(&bytes(b"GIF89a")).unwrap());
    assert!(!is_animation(&bytes(b"no image")).unwrap());
    assert!(!is_animation(&bytes(b"")).unwrap());
    let missing = is_animation(&VideoSource::file(golden().join("animations/none.gif"))).unwrap_err();
    assert_eq!(missing.kind(), "not_found");
}

/// A GIF of black frames without a delay: the header, then the frame so many times.
fn gif(screen: [u16; 2], frame: [u16; 2], data: &[u8], times: usize) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend(screen.iter().flat_map(|side| side.to_le_bytes()));
    file.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    let mut one = vec![0x2c, 0, 0, 0, 0];
    one.extend(frame.iter().flat_map(|side| side.to_le_bytes()));
    one.push(0);
    one.extend(data);
    for _ in 0..times {
        file.extend(&one);
    }
    file.push(0x3b);
    file
}

/// One black pixel: clear, 0, end.
const ONE_PIXEL: [u8; 5] = [2, 2, 0x44, 0x01, 0];

#[test]
fn too_large_animations_are_refused_from_their_headers() {
    let mut webp = sample("plain.webp");
    webp[24..30].fill(0xff);
    let mut png = sample("plain.png");
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let cases = [
        ("a screen of 65,535 squared", gif([65_535; 2], [1; 2], &ONE_PIXEL, 2)),
        ("a frame of 65,535 squared", gif([8; 2], [65_535; 2], &ONE_PIXEL, 2)),
        ("a million frames", gif([8; 2], [1; 2], &ONE_PIXEL, 1_000_000)),
        ("a thousand frames of 13,000 squared", gif([13_000; 2], [13_000; 2], &ONE_PIXEL, 1_000)),
        ("a canvas of 2^24 squared", webp),
        ("sides of 65,536", png),
    ];
    for (what, file) in cases {
        let started = Instant::now();
        let error = at(&bytes(&file), &[0.0]).unwrap_err();
        println!("{what}: {:?}: {error}", started.elapsed());
        assert_eq!(error.kind(), "too_large", "{what}: {error}");
        assert!(started.elapsed().as_secs_f64() < 2.0, "{what}: {:?}", started.elapsed());
    }
}

#[test]
fn many_tiny_frames_take_seconds_at_most() {
    let file = gif([8; 2], [1; 2], &ONE_PIXEL, 1 << 18);
    let started = Instant::now();
    let frames = at(&bytes(&file), &[1e9]).unwrap();
    println!("2^18 frames of one pixel: {:?}", started.elapsed());
    assert_eq!(frames.len(), 1);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_frame_with_too_little_data_is_corrupt() {
    let error = at(&bytes(&gif([1_000; 2], [1_000; 2], &ONE_PIXEL, 2)), &[0.0]).unwrap_err();
    assert_eq!(error.kind(), "corrupt", "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutated_animations_give_frames_or_a_typed_error(
        which in 0_usize..8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let name = ["disposal-3.gif", "local-palettes.gif", "interlaced.gif", "soft-mixed.webp", "lossy-soft.webp",
            "opaque-parts.webp", "soft.png", "parts.png"][which];
        let mut file = sample(name);
        for (place, value) in edits {
            let place = 12 + place.index(file.len() - 12);
            file[place] = value;
        }
        let source = bytes(&file);
        let _ = is_animation(&source);
        if let Err(error) = at(&source, &[0.0, 0.1, 0.2, 10.0]) {
            let kinds = ["corrupt", "too_large", "unsupported_codec", "empty", "unknown_format"];
            prop_assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}
