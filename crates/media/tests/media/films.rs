//! Films against FFmpeg: every picture of every kind, alone and in a row, and films that are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_media::{
    Film, FilmOptions, FilmSource, MediaError, RgbImage, TrackChoice, film_patches, sample_times, video_patches,
};
use serde_json::Value;

use crate::support::{difference, golden, json, plain_png, preprocess};

fn folder() -> PathBuf {
    golden().join("films")
}

fn open(name: &str) -> Result<Film, MediaError> {
    Film::open(&FilmSource::File(folder().join(name)), &FilmOptions { ffmpeg: None, track: TrackChoice::Default })
}

fn open_bytes(bytes: Vec<u8>) -> Result<Film, MediaError> {
    Film::open(
        &FilmSource::Bytes(Arc::from(bytes), "film".to_owned()),
        &FilmOptions { ffmpeg: None, track: TrackChoice::Default },
    )
}

/// What FFmpeg shows of one film.
struct Expected {
    name: String,
    sides: (u64, u64),
    /// Start in seconds after that of the first one, and the checksum of the pixels.
    pictures: Vec<(f64, u32)>,
}

fn expected() -> Vec<Expected> {
    listed(&folder().join("films.json"))
}

fn listed(path: &Path) -> Vec<Expected> {
    let films = json(path);
    let film = |(name, film): (&String, &Value)| {
        let number = |value: &Value| value.as_u64().expect("a number");
        let pictures = film["pictures"].as_array().expect("a list").iter();
        // FFmpeg gives a frame out in the order of coding, which edit lists may show in another one.
        let mut pictures: Vec<(i64, f64, u32)> = pictures
            .map(|picture| {
                let start = &picture[0];
                (start[0].as_i64().expect("ticks"), start[1].as_f64().expect("ticks"), number(&picture[1]) as u32)
            })
            .collect();
        pictures.sort_by_key(|picture| picture.0);
        let first = pictures[0].0;
        let pictures = pictures.iter().map(|(start, ticks, crc)| ((start - first) as f64 / ticks, *crc)).collect();
        Expected { name: name.clone(), sides: (number(&film["width"]), number(&film["height"])), pictures }
    };
    films.as_object().expect("films by name").iter().map(film).collect()
}

/// CRC-32 as in zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })).collect();
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// Just inside a picture: its start in ticks over ticks a second may differ from ours in the last bit.
const INSIDE: f64 = 1e-6;

fn at(film: &mut Film, times: &[f64]) -> Result<Vec<(u32, RgbImage)>, MediaError> {
    let mut found = Vec::new();
    film.frames_at(times, &mut |index, frame| {
        assert_eq!(index, found.len(), "frames come in the order of the times");
        found.push((crc32(frame.pixels()), frame.clone()));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn every_picture_of_every_film_is_ffmpegs() {
    let mut count = 0;
    for film in expected() {
        let mut opened = open(&film.name).unwrap_or_else(|error| panic!("{error}"));
        let times: Vec<f64> = film.pictures.iter().map(|(start, _)| start + INSIDE).collect();
        let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{error}"));
        for (index, ((crc, frame), (start, wanted))) in found.iter().zip(&film.pictures).enumerate() {
            let sides = (u64::from(frame.width().0), u64::from(frame.height().0));
            assert_eq!(sides, film.sides, "{}", film.name);
            assert_eq!(crc, wanted, "{}: picture {index} at {start} s", film.name);
            count += 1;
        }
    }
    println!("{count} pictures, every byte of their RGB is the reference's");
}

#[test]
fn a_picture_is_the_same_alone_as_in_a_row() {
    let mut count = 0;
    for film in expected() {
        for (start, wanted) in &film.pictures {
            let mut opened = open(&film.name).expect("opens");
            let found = at(&mut opened, &[start + INSIDE]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found[0].0, *wanted, "{}: the picture at {start} s alone", film.name);
            count += 1;
        }
    }
    println!("{count} pictures, each of a film opened anew");
}

#[test]
fn a_film_can_be_asked_again_and_in_any_strides() {
    for film in expected() {
        let mut opened = open(&film.name).expect("opens");
        for stride in [1, 2, 3, 5, 7, 11] {
            for first in 0..2 {
                let chosen: Vec<_> = film.pictures.iter().skip(first).step_by(stride).collect();
                let times: Vec<f64> = chosen.iter().map(|(start, _)| start + INSIDE).collect();
                let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{error}"));
                for ((crc, _), (start, wanted)) in found.iter().zip(chosen) {
                    assert_eq!(crc, wanted, "{}: at {start} s in strides of {stride} from {first}", film.name);
                }
            }
        }
    }
}

#[test]
fn starts_are_ffmpegs_to_a_microsecond() {
    for film in expected() {
        let mut opened = open(&film.name).expect("opens");
        for pair in film.pictures.windows(2) {
            let found = at(&mut opened, &[pair[1].0 - INSIDE, pair[1].0 + INSIDE]).expect("decodes");
            assert_eq!((found[0].0, found[1].0), (pair[0].1, pair[1].1), "{}: at {} s", film.name, pair[1].0);
        }
    }
}

#[test]
fn times_before_between_and_after_the_pictures_show_what_a_viewer_sees() {
    let film = expected().into_iter().find(|film| film.name == "late.mp4").expect("a golden");
    let (first, last) = (film.pictures[0], film.pictures[film.pictures.len() - 1]);
    let mut opened = open(&film.name).expect("opens");
    let end = opened.duration_s();
    assert!((end - last.0 - 0.04).abs() < 1e-9, "{end}");
    assert!((end - 1.6).abs() < 1e-9, "the empty edit before the first picture does not count: {end}");
    let second = film.pictures[1];
    let times = [-1.0, 0.0, second.0 / 2.0, second.0 + 0.01, second.0 + 0.039, end, end + 100.0, f64::INFINITY];
    let found = at(&mut opened, &times).expect("decodes");
    let wanted = [first.1, first.1, first.1, second.1, second.1, last.1, last.1, last.1];
    assert_eq!(found.iter().map(|(crc, _)| *crc).collect::<Vec<_>>(), wanted);
}

fn clocks() -> PathBuf {
    golden().join("clocks")
}

fn open_clock(name: &str) -> Result<Film, MediaError> {
    let options = FilmOptions { ffmpeg: None, track: TrackChoice::Default };
    Film::open(&FilmSource::File(clocks().join(name)), &options)
}

#[test]
fn every_film_that_begins_late_or_was_cut_shows_ffmpegs_pictures_from_zero() {
    let mut count = 0;
    for film in listed(&clocks().join("clocks.json")) {
        let mut opened = open_clock(&film.name).unwrap_or_else(|error| panic!("{error}"));
        let times: Vec<f64> = film.pictures.iter().map(|(start, _)| start + INSIDE).collect();
        let found = at(&mut opened, &times).unwrap_or_else(|error| panic!("{}: {error}", film.name));
        for (index, ((crc, _), (start, wanted))) in found.iter().zip(&film.pictures).enumerate() {
            assert_eq!(crc, wanted, "{}: picture {index} at {start} s", film.name);
            // Alone as in a row.
            let alone = at(&mut open_clock(&film.name).expect("opens"), &[start + INSIDE]).expect("decodes");
            assert_eq!(alone[0].0, *wanted, "{}: picture {index} at {start} s alone", film.name);
            count += 1;
        }
        let end = film.pictures.last().expect("pictures").0 + 0.04;
        assert!((opened.duration_s() - end).abs() < 0.0011, "{}: {} s", film.name, opened.duration_s());
    }
    println!("{count} pictures");
}

#[test]
fn a_film_that_begins_at_a_thousand_seconds_is_the_one_from_zero() {
    let (mut late, mut own) = (open_clock("late.mkv").expect("opens"), open("high.mp4").expect("opens"));
    assert_eq!(late.duration_s(), own.duration_s());
    for frames in [1, 8, 32] {
        let times = sample_times(0.0..own.duration_s(), frames);
        let [late, own] = [&mut late, &mut own].map(|film| at(film, &times).expect("decodes"));
        assert!(late.iter().zip(&own).all(|(late, own)| late.0 == own.0), "{frames} frames");
    }
}

#[test]
fn the_video_track_is_the_default_one_or_the_one_asked_for() {
    let tracks = json(&clocks().join("tracks.json"));
    for name in ["video.mkv", "video.mp4"] {
        assert_eq!(tracks[name]["video"], 1, "FFmpeg takes the second");
        let crc = |track: TrackChoice| {
            let options = FilmOptions { ffmpeg: None, track };
            let mut film = Film::open(&FilmSource::File(clocks().join(name)), &options)?;
            at(&mut film, &[0.0]).map(|found| found[0].0)
        };
        let [first, second] = ["one.mp4", "bt709.mp4"]
            .map(|name| expected().into_iter().find(|film| film.name == name).expect("a golden").pictures[0].1);
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
fn an_edit_list_that_cuts_the_head_begins_with_a_picture_in_the_middle() {
    let films = expected();
    let by_name = |name: &str| films.iter().find(|film| film.name == name).expect("a golden");
    let (whole, cut) = (by_name("high.mp4"), by_name("cut.mp4"));
    let shown: Vec<u32> = cut.pictures.iter().map(|picture| picture.1).collect();
    let tail: Vec<u32> = whole.pictures[whole.pictures.len() - shown.len()..].iter().map(|picture| picture.1).collect();
    assert_eq!(shown, tail);
    assert!((open("cut.mp4").expect("opens").duration_s() - 0.88).abs() < 0.002);
}

#[test]
fn lengths_end_with_the_last_shown_picture() {
    // The fragmented film has no edit list, so the container's clock says 0.08 s where its first picture begins.
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
    // 0.1 s hold two and a half pictures; ten times fall on three of them.
    let times = sample_times(0.0..0.1, 10);
    let mut film = open("high.mp4").expect("opens");
    let frames: Vec<RgbImage> = at(&mut film, &times).expect("decodes").into_iter().map(|found| found.1).collect();
    let distinct: std::collections::BTreeSet<&[u8]> = frames.iter().map(RgbImage::pixels).collect();
    assert_eq!(distinct.len(), 3);
    let rows = film_patches(&mut film, 0.0..0.1, 10, &preprocess).expect("cuts");
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
fn refusal(film: Result<Film, MediaError>) -> (&'static str, String) {
    let error = film.and_then(|mut film| at(&mut film, &[0.0, 1e9]).map(|_| ())).expect_err("it is refused");
    (error.kind(), error.to_string())
}

#[test]
fn films_that_are_not_read_are_refused_by_name() {
    for (name, kind, words) in [
        ("yuv444.mp4", "unsupported_codec", "4:4:4"),
        ("two_sizes.mp4", "unsupported_codec", "96 x 64 pixels and then of 112 x 64"),
        ("sound_only.m4a", "empty", "found a film without pictures, expected a picture track"),
        ("sound_only.mkv", "empty", "found a film without pictures, expected a picture track"),
        ("absent.mp4", "not_found", "no such file"),
        (
            "films.json",
            "unknown_format",
            "found text data, expected film (MP4, MOV, MKV, WebM, animated GIF, WebP or PNG)",
        ),
    ] {
        let found = refusal(open(name));
        println!("{}", found.1);
        assert!(found.0 == kind && found.1.contains(words), "{name}: {found:?}");
    }
    for (bytes, kind, words) in [
        (&b"%PDF-1.7 and more"[..], "unknown_format", "found pdf data, expected film"),
        (b"ID3\x04\0\0\0\0\0\0", "unknown_format", "found mp3 data, expected film"),
        (b"RIFF\x10\0\0\0AVI LIST", "unsupported_codec", "AVI"),
        (b"OggS\0\x02 and \x80theora\x03\x02", "unsupported_codec", "Theora"),
        (b"OggS\0\x02 and \x01vorbis", "unknown_format", "found ogg data, expected film"),
        (b"FLV\x01\x05\0\0\0\x09", "unsupported_codec", "FLV"),
        (b"", "empty", "byte"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42", "corrupt", "moov"),
        (b"\x1aE\xdf\xa3\x80", "empty", "without pictures"),
    ] {
        let found = refusal(open_bytes(bytes.to_vec()));
        assert!(found.0 == kind && found.1.contains(words), "{bytes:?}: {found:?}");
    }
    let mut packets = vec![0xffu8; 188 * 6];
    packets.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
    let found = refusal(open_bytes(packets));
    assert!(found.0 == "unsupported_codec" && found.1.contains("MPEG-TS"), "{found:?}");
}

/// The film with bytes replaced behind the last place where `mark` stands.
fn changed(name: &str, mark: &[u8], behind: usize, bytes: &[u8]) -> Vec<u8> {
    let mut film = std::fs::read(folder().join(name)).expect("a golden");
    let at = film.windows(mark.len()).rposition(|window| window == mark).expect("the mark is there") + mark.len();
    film[at + behind..at + behind + bytes.len()].copy_from_slice(bytes);
    film
}

#[test]
fn headers_that_cannot_be_are_refused_in_words() {
    let max = [0xff; 4];
    for (film, kind, words) in [
        (changed("high.mp4", b"mdhd", 12, &[0; 4]), "corrupt", "zero ticks a second"),
        // 2^31 pictures of one byte each.
        (changed("high.mp4", b"stsz", 4, &[0, 0, 0, 1, 0x80, 0, 0, 0]), "corrupt", "claims 2147483648 pictures"),
        (changed("high.mp4", b"stsz", 8, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"stts", 4, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"ctts", 4, &max), "corrupt", "claims 4294967295 entries"),
        (changed("high.mp4", b"stco", 8, &max), "corrupt", "the film ends at"),
        (changed("high.mp4", b"avc1", 78, &[0, 0, 0, 8]), "corrupt", ""),
        (changed("fragments.mp4", b"trun", 4, &max), "corrupt", "claims 4294967295 entries"),
    ] {
        let found = refusal(open_bytes(film));
        println!("{}", found.1);
        assert!(found.0 == kind && found.1.contains(words), "{words}: {found:?}");
    }
    let film = changed("high.mp4", b"stsd\0\0\0\0\0\0\0\x01\0\0", 2, b"encv");
    let found = refusal(open_bytes(film));
    assert!(found.0 == "unsupported_codec" && found.1.contains("encrypted"), "{found:?}");
    let film = changed("high.mp4", b"stsd\0\0\0\0\0\0\0\x01\0\0", 2, b"ap4h");
    let found = refusal(open_bytes(film));
    assert!(found.0 == "unsupported_codec" && found.1.contains("ap4h"), "{found:?}");
}

#[test]
fn a_wrong_list_of_key_frames_does_no_harm() {
    let wanted: Vec<(f64, u32)> =
        expected().into_iter().find(|film| film.name == "high.mp4").expect("a golden").pictures;
    let whole = std::fs::read(folder().join("high.mp4")).expect("a golden");
    let at_list = whole.windows(4).rposition(|window| window == b"stss").expect("a list of key frames");
    // Empty; none at all, which says that every picture is one; and one that names the wrong pictures.
    let mut empty = whole.clone();
    empty[at_list + 4 + 4..at_list + 4 + 8].fill(0);
    let mut absent = whole.clone();
    absent[at_list..at_list + 4].copy_from_slice(b"free");
    let mut wrong = whole;
    wrong[at_list + 4 + 8 + 3] = 3;
    for (name, bytes) in [("empty", empty), ("absent", absent), ("wrong", wrong)] {
        for (start, crc) in wanted.iter().step_by(3) {
            let mut film = open_bytes(bytes.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let found = at(&mut film, &[start + INSIDE]).unwrap_or_else(|error| panic!("{name}: {error}"));
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
    let read = open_bytes(bytes).and_then(|mut film| {
        let times = sample_times(0.0..film.duration_s().clamp(0.0, 1e6), 4);
        at(&mut film, &times)
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
fn films_cut_short_and_films_with_wrong_bytes_give_an_answer_or_a_typed_error() {
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
