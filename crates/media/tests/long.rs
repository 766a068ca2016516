//! Hours of audio and minutes of video in little memory. In a program of its own with one test, because the most memory
//! that the whole process ever held is looked at.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use omniburn_media::{
    AudioReader, AudioSource, MelPreprocess, TrackChoice, Video, VideoOptions, VideoSource, VisionPreprocess, log_mel,
    sample_times, sampled_patches,
};

#[path = "../../../tests/support/memory.rs"]
mod memory;

/// Does work that may take so many MiB of memory.
fn within(what: &str, limit: f64, work: impl FnOnce()) {
    let ((), Some(taken)) = memory::peak_of(work) else {
        println!("{what}: not measured, this system does not tell");
        return;
    };
    let taken = taken as f64 / 1024.0 / 1024.0;
    println!("{what}: {taken:.1} MiB above the start");
    assert!(taken < limit, "{what}: {taken:.1} MiB above the start, at most {limit} allowed");
}

/// Three hours at 44.1 kHz in stereo, 1.9 GB, of which the disk holds the header.
fn three_hours(path: &Path) {
    let bytes = 3 * 3600 * 44_100 * 4u32;
    let mut file = File::create(path).unwrap();
    file.write_all(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x44\xac\0\0\x10\xb1\x02\0\x04\0\x10\0data").unwrap();
    file.write_all(&bytes.to_le_bytes()).unwrap();
    file.set_len(44 + u64::from(bytes)).unwrap();
}

#[test]
fn three_hours_of_audio_and_ten_minutes_of_video_fit_in_their_bounds() {
    within("three hours of audio", 100.0, audio);
    within("ten minutes of video", 200.0, video);
}

fn audio() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("three-hours.wav");
    three_hours(&path);
    let started = Instant::now();
    let mel = MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };
    let mut reader = AudioReader::open(&AudioSource::file(path), mel.sample_rate_hz).unwrap();
    let mut segments = 0;
    while let Some(segment) = reader.next_segment().unwrap() {
        assert_eq!(segment.start_s, 240.0 * f64::from(segments));
        // Every segment is as large; the frames of some are enough.
        if segments % 15 == 0 {
            assert_eq!(log_mel(&segment.samples, &mel).unwrap().frames(), 24_000);
        }
        segments += 1;
    }
    assert_eq!(segments, 45);
    println!("three hours of audio in {:.1} s", started.elapsed().as_secs_f64());
}

fn video() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let path = Path::new(&manifest).join("../../tests/golden/media/videos/ten_minutes.mp4");
    let started = Instant::now();
    let mut video =
        Video::open(&VideoSource::file(path), &VideoOptions { ffmpeg: None, track: TrackChoice::Default }).unwrap();
    assert!((video.duration_s() - 600.0).abs() < 0.1);
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
    // As many rows as the 32 frames of the largest video have, and a quarter of the images to decode.
    let patches =
        sampled_patches(&mut video, 0.0..240.0, 8, &VisionPreprocess { min_pixels: 12_845_056, ..preprocess });
    let patches = patches.unwrap().grid().patches();
    assert!(patches > 24_000, "{patches}");
    // A key frame stands each 250 images.
    let needed: usize = sample_times(0.0..240.0, 8).iter().map(|time| (time * 25.0) as usize % 250 + 1).sum();
    let decoded = video.images_decoded().unwrap();
    println!(
        "{decoded} images decoded of {needed} since key frames, 15000 in all, in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert!(decoded <= needed && decoded >= 8, "{decoded} of {needed}");
}
