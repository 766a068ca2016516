//! Frames of many video files as checksums, for comparisons with a reference decoder.
//!
//! `cargo run --release -p omniburn-media --example video_sweep < LIST` reads lines of a path, a tab and times in seconds
//! with commas between them, and prints for each the path, the length in seconds, the CRC-32 of the RGB shown at each time,
//! and those of 8 and of 5 evenly spaced frames, with tabs between; or the path, `error`, its kind and its words.
//! `tests/golden/make/sweep_videos.py` is what asks.

use std::error::Error;
use std::io::{BufRead, stdin};

use omniburn_media::{MediaError, TrackChoice, Video, VideoOptions, VideoSource, sample_times};

fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })).collect();
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

fn shown(path: &str, times: &[f64]) -> Result<(f64, Vec<Vec<u32>>), MediaError> {
    let options = VideoOptions { ffmpeg: None, track: TrackChoice::Default };
    let mut video = Video::open(&VideoSource::file(path), &options)?;
    let length = video.duration_s();
    let mut found = Vec::new();
    for times in [times.to_vec(), sample_times(0.0..length, 8), sample_times(0.0..length, 5)] {
        let mut sums = Vec::new();
        video.frames_at(&times, &mut |_, frame| {
            sums.push(crc32(frame.pixels()));
            Ok(())
        })?;
        found.push(sums);
    }
    Ok((length, found))
}

fn main() -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let line = line?;
        let (path, times) = line.split_once('\t').ok_or("expected a path, a tab and times")?;
        let times: Result<Vec<f64>, _> = times.split(',').filter(|time| !time.is_empty()).map(str::parse).collect();
        match shown(path, &times?) {
            Ok((length, found)) => {
                let words = |sums: &Vec<u32>| sums.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
                let found: Vec<String> = found.iter().map(words).collect();
                println!("{path}\t{length}\t{}", found.join("\t"));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                println!("{path}\terror\t{}\t{error} {cause}", error.kind());
            }
        }
    }
    Ok(())
}
