//! Videos against FFmpeg: every image of every kind, alone and in a row, and videos that are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_media::{
    MediaError, RgbImage, TrackChoice, Video, VideoOptions, VideoSource, sample_times, sampled_patches, video_patches,
};
use serde_json::Value;

use crate::support::{difference, golden, json, plain_png, preprocess};

fn folder() -> PathBuf {
    golden().join("videos")
}

fn open(name: &str) -> Result<Video, MediaError> {
    Video::open(&VideoSource::file(folder().join(name)), &VideoOptions { ffmpeg: None, track: TrackChoice::Default })
}

fn open_bytes(bytes: Vec<u8>) -> Result<Video, MediaError> {
    Video::open(
        &VideoSource::Bytes(Arc::from(bytes), "video".to_owned()),
        &VideoOptions { ffmpeg: None, track: TrackChoice::Default },
    )
}

/// What FFmpeg shows of one video.
struct Expected {
    name: String,
    sides: (u64, u64),
    /// Start in seconds after that of the first one, and the checksum of the pixels.
    images: Vec<(f64, u32)>,
}

fn expected() -> Vec<Expected> {
    listed(&folder().join("videos.json"))
}

fn listed(path: &Path) -> Vec<Expected> {
    let videos = json(path);
    let video = |(name, video): (&String, &Value)| {
        let number = |value: &Value| value.as_u64().expect("a number");
        let images = video["pictures"].as_array().expect("a list").iter();
        // FFmpeg gives a frame out in the order of coding, which edit lists may show in another one.
        let mut images: Vec<(i64, f64, u32)> = images
            .map(|image| {
                let start = &image[0];
                (start[0].as_i64().expect("ticks"), start[1].as_f64().expect("ticks"), number(&image[1]) as u32)
            })
            .collect();
        images.sort_by_key(|image| image.0);
        let first = images[0].0;
        let images = images.iter().map(|(start, ticks, crc)| ((start - first) as f64 / ticks, *crc)).collect();
        Expected { name: name.clone(), sides: (number(&video["width"]), number(&video["height"])), images }
    };
    videos.as_object().expect("videos by name").iter().map(video).collect()
}

/// CRC-32 as in zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })).collect();
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// Just inside an image: its start in ticks over ticks a second may differ from ours in the last bit.
const INSIDE: f64 = 1e-6;

fn at(video: &mut Video, times: &[f64]) -> Result<Vec<(u32, RgbImage)>, MediaError> {
    let mut found = Vec::new();
    video.frames_at(times, &mut |index, frame| {
        assert_eq!(index, found.len(), "frames come in the order of the times");
        found.push((crc32(frame.pixels()), frame.clone()));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn every_image_of_every_video_is_ffmpegs() {
    let mut count = 0;
    for video in expected() {
        let mut opened = open(&video.name).unwrap_or_else(|error| panic!("{error}"));
        let times: Vec<f64> = video.images.iter().map(|(start, _)| start + INSIDE).collect();
        let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{error}"));
        for (index, ((crc, frame), (start, wanted))) in found.iter().zip(&video.images).enumerate() {
            let sides = (u64::from(frame.width().0), u64::from(frame.height().0));
            assert_eq!(sides, video.sides, "{}", video.name);
            assert_eq!(crc, wanted, "{}: image {index} at {start} s", video.name);
            count += 1;
        }
    }
    println!("{count} images, every byte of their RGB is the reference's");
}

#[test]
fn an_image_is_the_same_alone_as_in_a_row() {
    let mut count = 0;
    for video in expected() {
        for (start, wanted) in &video.images {
            let mut opened = open(&video.name).expect("opens");
            let found = at(&mut opened, &[start + INSIDE]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found[0].0, *wanted, "{}: the image at {start} s alone", video.name);
            count += 1;
        }
    }
    println!("{count} images, each of a video opened anew");
}

#[test]
fn a_video_can_be_asked_again_and_in_any_strides() {
    for video in expected() {
        let mut opened = open(&video.name).expect("opens");
        for stride in [1, 2, 3, 5, 7, 11] {
            for first in 0..2 {
                let chosen: Vec<_> = video.images.iter().skip(first).step_by(stride).collect();
                let times: Vec<f64> = chosen.iter().map(|(start, _)| start + INSIDE).collect();
                let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{error}"));
                for ((crc, _), (start, wanted)) in found.iter().zip(chosen) {
                    assert_eq!(crc, wanted, "{}: at {start} s in strides of {stride} from {first}", video.name);
                }
            }
        }
    }
}

#[test]
fn starts_are_ffmpegs_to_a_microsecond() {
    for video in expected() {
        let mut opened = open(&video.name).expect("opens");
        for pair in video.images.windows(2) {
            let found = at(&mut opened, &[pair[1].0 - INSIDE, pair[1].0 + INSIDE]).expect("decodes");
            assert_eq!((found[0].0, found[1].0), (pair[0].1, pair[1].1), "{}: at {} s", video.name, pair[1].0);
        }
    }
}

#[test]
fn times_before_between_and_after_the_images_show_what_a_viewer_sees() {
    let video = expected().into_iter().find(|video| video.name == "late.mp4").expect("a golden");
    let (first, last) = (video.images[0], video.images[video.images.len() - 1]);
    let mut opened = open(&video.name).expect("opens");
    let end = opened.duration_s();
    assert!((end - last.0 - 0.04).abs() < 1e-9, "{end}");
    assert!((end - 1.6).abs() < 1e-9, "the empty edit before the first image does not count: {end}");
    let second = video.images[1];
    let times = [-1.0, 0.0, second.0 / 2.0, second.0 + 0.01, second.0 + 0.039, end, end + 100.0, f64::INFINITY];
    let found = at(&mut opened, &times).expect("decodes");
    let wanted = [first.1, first.1, first.1, second.1, second.1, last.1, last.1, last.1];
    assert_eq!(found.iter().map(|(crc, _)| *crc).collect::<Vec<_>>(), wanted);
}

fn clocks() -> PathBuf {
    golden().join("clocks")
}

fn open_clock(name: &str) -> Result<Video, MediaError> {
    let options = VideoOptions { ffmpeg: None, track: TrackChoice::Default };
    Video::open(&VideoSource::file(clocks().join(name)), &options)
}

#[test]
fn every_video_that_begins_late_or_was_cut_shows_ffmpegs_images_from_zero() {
    let mut count = 0;
    for video in listed(&clocks().join("clocks.json")) {
        let mut opened = open_clock(&video.name).unwrap_or_else(|error| panic!("{error}"));
        let times: Vec<f64> = video.images.iter().map(|(start, _)| start + INSIDE).collect();
        let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{}: {error}", video.name));
        for (index, ((crc, _), (start, wanted))) in found.iter().zip(&video.images).enumerate() {
            assert_eq!(crc, wanted, "{}: image {index} at {start} s", video.name);
            // Alone as in a row.
            let alone = at(&mut open_clock(&video.name).expect("opens"), &[start + INSIDE]).expect("decodes");
            assert_eq!(alone[0].0, *wanted, "{}: image {index} at {start} s alone", video.name);
            count += 1;
        }
        let end = video.images.last().expect("pictures").0 + 0.04;
        assert!((opened.duration_s() - end).abs() < 0.0011, "{}: {} s", video.name, opened.duration_s());
    }
    println!("{count} images");
}

#[test]
fn a_video_that_begins_at_a_thousand_seconds_is_the_one_from_zero() {
    let (mut late, mut own) = (open_clock("late.mkv").expect("opens"), open("high.mp4").expect("opens"));
    assert_eq!(late.duration_s(), own.duration_s());
    for frames in [1, 8, 32] {
        let times = sample_times(0.0..own.duration_s(), frames);
        let [late, own] = [&mut late, &mut own].map(|video| at(video, &times).expect("decodes"));
        assert!(late.iter().zip(&own).all(|(late, own)| late.0 == own.0), "{frames} frames");
    }
}

#[test]
fn the_video_track_is_the_default_one_or_the_one_asked_for() {
    let tracks = json(&clocks().join("tracks.json"));
    for name in ["video.mkv", "video.mp4"] {
        assert_eq!(tracks[name]["video"], 1, "FFmpeg takes the second");
        let crc = |track: TrackChoice| {
            let options = VideoOptions { ffmpeg: None, track };
            let mut video = Video::open(&VideoSource::file(clocks().join(name)), &options)?;
            at(&mut video, &[0.0]).map(|found| found[0].0)
        };
        let [first, second] = ["one.mp4", "bt709.mp4"]
            .map(|name| expected().into_iter().find(|video| video.name == name).expect("a golden").images[0].1);
        let found = |track| crc(track).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found(TrackChoice::Default), second, "{name}");
        assert_eq!(found(TrackChoice::Index(0)), first, "{name}");
        assert_eq!(found(TrackChoice::Index(1)), second, "{name}");
        let error = crc(TrackChoice::Index(2)).expect_err("there are two");
        let words = error.to_string();
        assert_eq!(error.kind(), "empty");
        assert!(words.contains("found no video track 2, expected one of: 0 (H.264), 1 (H.264, default)"), "{words}");
    }
}

#[test]
fn an_edit_list_that_cuts_the_head_begins_with_an_image_in_the_middle() {
    let videos = expected();
    let by_name = |name: &str| videos.iter().find(|video| video.name == name).expect("a golden");
    let (whole, cut) = (by_name("high.mp4"), by_name("cut.mp4"));
    let shown: Vec<u32> = cut.images.iter().map(|image| image.1).collect();
    let tail: Vec<u32> = whole.images[whole.images.len() - shown.len()..].iter().map(|image| image.1).collect();
    assert_eq!(shown, tail);
    assert!((open("cut.mp4").expect("opens").duration_s() - 0.88).abs() < 0.002);
}

#[test]
fn lengths_end_with_the_last_shown_image() {
    // The fragmented video has no edit list, so the container's clock says 0.08 s where its first image begins.
    for (name, seconds) in [("high.mp4", 1.6), ("one.mp4", 0.04), ("sound.mkv", 1.04), ("fragments.mp4", 1.6)] {
        let found = open(name).expect("opens").duration_s();
        assert!((found - seconds).abs() < 0.0011, "{name}: {found}");
    }
}

#[test]
fn colours_are_within_two_levels_of_ffmpegs_own_scaler() {
    let wanted = plain_png(&std::fs::read(folder().join("scaled.png")).expect("a golden"));
    let found = at(&mut open("high.mp4").expect("opens"), &[0.0]).expect("decodes");
    let apart = difference("scaled.png", &found[0].1, &wanted);
    println!("against FFmpeg's scaler with bilinear chroma: {apart:?}");
    assert!(apart.max <= 2, "{apart:?}");
}

#[test]
fn a_frame_that_is_shown_twice_stands_twice_in_the_patch_rows() {
    let preprocess = preprocess(4096, 262_144);
    // 0.1 s hold two and a half images; ten times fall on three of them.
    let times = sample_times(0.0..0.1, 10);
    let mut video = open("high.mp4").expect("opens");
    let frames: Vec<RgbImage> = at(&mut video, &times).expect("decodes").into_iter().map(|found| found.1).collect();
    let distinct: std::collections::BTreeSet<&[u8]> = frames.iter().map(RgbImage::pixels).collect();
    assert_eq!(distinct.len(), 3);
    let rows = sampled_patches(&mut video, 0.0..0.1, 10, &preprocess).expect("cuts");
    assert!(rows == video_patches(&frames, &preprocess).expect("cuts"));
}

#[test]
fn what_each_returns_as_an_error_ends_the_reading() {
    let mut calls = 0;
    let error = open("high.mp4").expect("opens").frames_at(&[0.0, 0.5, 1.0], &mut |_, _| {
        calls += 1;
        Err(MediaError::Empty { name: "test".to_owned(), expected: "end" })
    });
    assert_eq!((calls, error.map_err(|error| error.kind())), (1, Err("empty")));
}

/// Kind and words of the error that opening or reading gives.
fn refusal(video: Result<Video, MediaError>) -> (&'static str, String) {
    let error = video.and_then(|mut video| at(&mut video, &[0.0, 1e9]).map(|_| ())).expect_err("it is refused");
    (error.kind(), error.to_string())
}

#[test]
fn videos_that_are_not_read_are_refused_by_name() {
    for (name, kind, words) in [
        ("yuv444.mp4", "unsupported_codec", "4:4:4"),
        ("two_sizes.mp4", "unsupported_codec", "96 x 64 pixels and then of 112 x 64"),
        ("sound_only.m4a", "empty", "found a video without images, expected a video track"),
        ("sound_only.mkv", "empty", "found a video without images, expected a video track"),
        ("absent.mp4", "not_found", "no such file"),
        (
            "videos.json",
            "unknown_format",
            "found text data, expected video (MP4, MOV, MKV, WebM, animated GIF, WebP or PNG)",
        ),
    ] {
        let found = refusal(open(name));
        println!("{}", found.1);
        assert!(found.0 == kind && found.1.contains(words), "{name}: {found:?}");
    }
    for (bytes, kind, words) in [
        (&b"%PDF-1.7 and more"[..], "unknown_format", "found pdf data, expected video"),
        (b"ID3\x04\0\0\0\0\0\0", "unknown_format", "found mp3 data, expected video"),
        (b"RIFF\x10\0\0\0AVI LIST", "unsupported_codec", "AVI"),
        (b"OggS\0\x02 and \x80theora\x03\x02", "unsupported_codec", "Theora"),
        (b"OggS\0\x02 and \x01vorbis", "unknown_format", "found ogg data, expected video"),
        (b"FLV\x01\x05\0\0\0\x09", "unsupported_codec", "FLV"),
        (b"", "empty", "byte"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42", "corrupt", "moov"),
        (b"\x1aE\xdf\xa3\x80", "empty", "without images"),
    ] {
        let found = refusal(open_bytes(bytes.to_vec()));
        assert!(found.0 == kind && found.1.contains(words), "{bytes:?}: {found:?}");
    }
    let mut packets = vec![0xffu8; 188 * 6];
    packets.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
    let found = refusal(open_bytes(packets));
    assert!(found.0 == "unsupported_codec" && found.1.contains("MPEG-TS"), "{found:?}");
}

/// The video with bytes replaced behind the last place where `mark` stands.
fn changed(name: &str, mark: &[u8], behind: usize, bytes: &[u8]) -> Vec<u8> {
    let mut video = std::fs::read(folder().join(name)).expect("a golden");
    let at = video.windows(mark.len()).rposition(|window| window == mark).expect("the mark is there") + mark.len();
    video[at + behind..at + behind + bytes.len()].copy_from_slice(bytes);
    video
}

#[test]
fn headers_that_cannot_be_are_refused_in_words() {
    let max = [0xff; 4];
    for (video, kind, words) in [
        (changed("high.mp4", b"mdhd", 12, &[0; 4]), "corrupt", "zero ticks a second"),
        // 2^31 images of one byte each.
        (changed("high.mp4", b"stsz", 4, &[0, 0, 0, 1, 0x80, 0, 0, 0]), "corrupt", "claims 2147483648 images"),
        (changed("high.mp4", b"stsz", 8, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"stts", 4, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"ctts", 4, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"stco", 8, &max), "corrupt", "the video ends at"),
        (changed("high.mp4", b"avc1", 78, &[0, 0, 0, 8]), "corrupt", ""),
        (changed("fragments.mp4", b"trun", 4, &max), "corrupt", "claims 4294967295 entries"),
    ] {
        let found = refusal(open_bytes(video));
        println!("{}", found.1);
        assert!(found.0 == kind && found.1.contains(words), "{words}: {found:?}");
    }
    let video = changed("high.mp4", b"stsd\0\0\0\0\0\0\0\x01\0\0", 2, b"encv");
    let found = refusal(open_bytes(video));
    assert!(found.0 == "unsupported_codec" && found.1.contains("encrypted"), "{found:?}");
    let video = changed("high.mp4", b"stsd\0\0\0\0\0\0\0\x01\0\0", 2, b"ap4h");
    let found = refusal(open_bytes(video));
    assert!(found.0 == "unsupported_codec" && found.1.contains("ap4h"), "{found:?}");
}

#[test]
fn a_wrong_list_of_key_frames_does_no_harm() {
    let wanted: Vec<(f64, u32)> =
        expected().into_iter().find(|video| video.name == "high.mp4").expect("a golden").images;
    let whole = std::fs::read(folder().join("high.mp4")).expect("a golden");
    let at_list = whole.windows(4).rposition(|window| window == b"stss").expect("a list of key frames");
    // Empty; none at all, which says that every image is one; and one that names the wrong images.
    let mut empty = whole.clone();
    empty[at_list + 4 + 4..at_list + 4 + 8].fill(0);
    let mut absent = whole.clone();
    absent[at_list..at_list + 4].copy_from_slice(b"free");
    let mut wrong = whole;
    wrong[at_list + 4 + 8 + 3] = 3;
    for (name, bytes) in [("empty", empty), ("absent", absent), ("wrong", wrong)] {
        for (start, crc) in wanted.iter().step_by(3) {
            let mut video = open_bytes(bytes.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let found = at(&mut video, &[start + INSIDE]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found[0].0, *crc, "{name} list, at {start} s");
        }
    }
}

/// A small generator with a fixed seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// Opens and reads four frames; a typed error is as good as an answer, a panic or a long wait is not.
fn survives(what: &str, bytes: Vec<u8>, tally: &mut [usize; 2]) {
    let start = std::time::Instant::now();
    let read = open_bytes(bytes).and_then(|mut video| {
        let times = sample_times(0.0..video.duration_s().clamp(0.0, 1e6), 4);
        at(&mut video, &times)
    });
    tally[usize::from(read.is_err())] += 1;
    if let Err(error) = read {
        assert!(
            ["corrupt", "unsupported_codec", "empty", "unknown_format", "too_large"].contains(&error.kind()),
            "{error}"
        );
    }
    assert!(start.elapsed().as_secs_f64() < 20.0, "{what} took {:?}", start.elapsed());
}

#[test]
fn videos_cut_short_and_videos_with_wrong_bytes_give_an_answer_or_a_typed_error() {
    for name in ["high.mp4", "main.mp4", "fragments.mp4", "sound.mkv", "piped.mkv"] {
        let whole = std::fs::read(folder().join(name)).expect("a golden");
        let mut cut = [0, 0];
        for step in 0..40 {
            survives(&format!("{name} cut at {step}/40"), whole[..whole.len() * step / 40].to_vec(), &mut cut);
        }
        let mut dice = Dice(7);
        let mut changed = [0, 0];
        for round in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..1 + dice.roll(8) {
                // Half of the changes hit the headers, which are at the end or at the beginning.
                let at = match dice.roll(4) {
                    0 => dice.roll(bytes.len().min(1500)),
                    1 => bytes.len() - 1 - dice.roll(bytes.len().min(1500)),
                    _ => dice.roll(bytes.len()),
                };
                bytes[at] = dice.roll(256) as u8;
            }
            survives(&format!("{name}, round {round}"), bytes, &mut changed);
        }
        println!("{name}: [answers, errors] cut short {cut:?}, changed {changed:?}");
    }
}
