//! The frames that a video shows at evenly spaced times, as a model sees them.
//!
//! `cargo run --release -p omniburn-media --example video_frames -- VIDEO [FRAMES]` prints the time and the size of each
//! frame, then cuts the same frames into patch rows and prints how long both took and the most memory held so far.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use omniburn_media::{TrackChoice, Video, VideoOptions, VideoSource, VisionPreprocess, sample_times, sampled_patches};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("expected the path of a video")?);
    let count = arguments.next().map_or(Ok(32), |count| count.to_string_lossy().parse::<usize>())?;
    let before = peak_mib();

    let start = Instant::now();
    let mut video = Video::open(&VideoSource::file(path), &VideoOptions { ffmpeg: None, track: TrackChoice::Default })?;
    println!("{video:?}, {:.3} s long, opened in {:.3} s", video.duration_s(), start.elapsed().as_secs_f64());

    let range = 0.0..video.duration_s();
    let times = sample_times(range.clone(), count);
    let start = Instant::now();
    video.frames_at(&times, &mut |index, frame| {
        println!("frame {index} at {:.3} s: {} x {}", times[index], frame.width().0, frame.height().0);
        Ok(())
    })?;
    println!("frames in {:.3} s", start.elapsed().as_secs_f64());

    let preprocess = VisionPreprocess {
        patch: 16,
        merge: 2,
        temporal_patch: 2,
        min_pixels: 262_144,
        max_pixels: 12_845_056,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
        per_frame: false,
    };
    let start = Instant::now();
    let patches = sampled_patches(&mut video, range, count, &preprocess)?;
    println!("patch rows {:?} in {:.3} s", patches.grid(), start.elapsed().as_secs_f64());
    if let (Some(before), Some(after)) = (before, peak_mib()) {
        println!("most memory held: {:.1} MiB more than at the start", after - before);
    }
    Ok(())
}

/// The most memory that this process ever held, where the system says it.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
