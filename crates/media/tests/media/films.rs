//! Films against FFmpeg: every picture of every kind, alone and in a row, and films that are refused.

use std::path::PathBuf;
use std::sync::Arc;

use omniburn_media::{Film, FilmOptions, FilmSource, MediaError, RgbImage};
use serde_json::Value;

use crate::support::{golden, json};

pub fn folder() -> PathBuf {
    golden().join("films")
}

pub fn open(name: &str) -> Result<Film, MediaError> {
    Film::open(&FilmSource::File(folder().join(name)), &FilmOptions { ffmpeg: None })
}

fn open_bytes(bytes: Vec<u8>) -> Result<Film, MediaError> {
    Film::open(&FilmSource::Bytes(Arc::from(bytes), "film".to_owned()), &FilmOptions { ffmpeg: None })
}

/// What FFmpeg shows of one film.
pub struct Expected {
    pub name: String,
    sides: (u64, u64),
    /// Start in seconds and the checksum of the pixels.
    pub pictures: Vec<(f64, u32)>,
}

pub fn expected() -> Vec<Expected> {
    let films = json(&folder().join("films.json"));
    let film = |(name, film): (&String, &Value)| {
        let number = |value: &Value| value.as_u64().expect("a number");
        let pictures = film["pictures"].as_array().expect("a list").iter();
        let pictures = pictures
            .map(|picture| {
                let start = &picture[0];
                (start[0].as_f64().expect("ticks") / start[1].as_f64().expect("ticks"), number(&picture[1]) as u32)
            })
            .collect();
        Expected { name: name.clone(), sides: (number(&film["width"]), number(&film["height"])), pictures }
    };
    films.as_object().expect("films by name").iter().map(film).collect()
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })).collect();
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// Just inside a picture: its start in ticks over ticks a second may differ from ours in the last bit.
const INSIDE: f64 = 1e-6;

pub fn at(film: &mut Film, times: &[f64]) -> Result<Vec<(u32, RgbImage)>, MediaError> {
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
