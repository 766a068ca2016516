//! Videos in codecs that an FFmpeg program or the feature `av1` decodes. Goldens: `tests/golden/make/codecs.py`.

use std::path::PathBuf;
use std::sync::Arc;

use omniburn_media::{TrackChoice, Video, VideoOptions, VideoSource};

use crate::support::{golden, json};

/// Name, codec, starts, sides as shown.
fn stored() -> Vec<(String, String, Vec<f64>, [u32; 2])> {
    let listing = json(&golden().join("codecs.json"));
    let videos = listing.as_object().unwrap().iter().map(|(name, video)| {
        let starts = video["starts_s"].as_array().unwrap().iter().map(|start| start.as_f64().unwrap()).collect();
        let sides = ["width", "height"].map(|side| video[side].as_u64().unwrap() as u32);
        (name.clone(), video["codec"].as_str().unwrap().to_owned(), starts, sides)
    });
    videos.collect()
}

fn path(name: &str) -> PathBuf {
    golden().join("codecs").join(name)
}

#[test]
fn the_default_program_is_called_ffmpeg() {
    assert_eq!(VideoOptions::default().ffmpeg, Some(PathBuf::from("ffmpeg")));
}

#[test]
fn codecs_that_nothing_here_decodes_are_refused_by_name() {
    let missing = VideoOptions { ffmpeg: Some(PathBuf::from("/no/such/program")), track: TrackChoice::Default };
    let mut refused = 0;
    for (name, codec, ..) in stored() {
        if cfg!(feature = "av1") && codec == "AV1" {
            continue;
        }
        let file = VideoSource::file(path(&name));
        let bytes = VideoSource::Bytes(Arc::from(std::fs::read(path(&name)).unwrap()), "a video".to_owned());
        for (source, options) in [
            (&file, &VideoOptions { ffmpeg: None, track: TrackChoice::Default }),
            (&file, &missing),
            (&bytes, &missing),
        ] {
            let error = Video::open(source, options).unwrap_err();
            assert_eq!(error.kind(), "unsupported_codec", "{name}: {error}");
            assert!(error.to_string().contains(&codec), "{name}: {error}");
            refused += 1;
        }
    }
    println!("{refused} refused");
    assert!(refused >= 15);
}

#[test]
#[cfg(feature = "av1")]
fn av1_videos_show_an_image_for_each_start() {
    let options = VideoOptions { ffmpeg: None, track: TrackChoice::Default };
    for (name, _, starts, sides) in stored().into_iter().filter(|video| video.1 == "AV1") {
        let mut video = Video::open(&VideoSource::file(path(&name)), &options).unwrap();
        let times: Vec<f64> = starts.iter().map(|start| start + 0.01).collect();
        let mut seen = Vec::new();
        video
            .frames_at(&times, &mut |_, frame| {
                assert_eq!([frame.width().0, frame.height().0], sides, "{name}");
                seen.push(frame.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen.len(), starts.len());
        // The scene moves from image to image.
        assert!(seen.windows(2).all(|two| two[0] != two[1]), "{name}");
    }
}

/// Through containers, times and turns of our own and the images of FFmpeg.
#[test]
fn videos_are_shown_by_a_real_program() {
    let Some(program) = std::env::var_os("OMNIBURN_TEST_FFMPEG").map(PathBuf::from) else {
        println!("not run: OMNIBURN_TEST_FFMPEG names no FFmpeg program");
        return;
    };
    // What `av1` decodes is compared plane by plane where it lives.
    for (name, _, starts, sides) in stored().into_iter().filter(|video| !cfg!(feature = "av1") || video.1 != "AV1") {
        let options = VideoOptions { ffmpeg: Some(program.clone()), track: TrackChoice::Default };
        let mut video = Video::open(&VideoSource::file(path(&name)), &options).unwrap();
        // Each image alone, in the middle of its time, against all of them in one decode.
        let whole = std::process::Command::new(&program)
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(path(&name))
            .args(["-fps_mode", "passthrough", "-vf"])
            .arg("scale=flags=bilinear+accurate_rnd+full_chroma_int+bitexact,format=rgb24")
            .args(["-f", "rawvideo", "pipe:1"])
            .output()
            .unwrap();
        let bytes = (sides[0] * sides[1] * 3) as usize;
        assert_eq!(whole.stdout.len(), bytes * starts.len(), "{name}");
        let times: Vec<f64> = starts.iter().map(|start| start + 0.01).collect();
        video
            .frames_at(&times, &mut |place, frame| {
                assert!(frame.pixels() == &whole.stdout[place * bytes..][..bytes], "{name}: image {place}");
                Ok(())
            })
            .unwrap();
        println!("{name}: {} images equal", starts.len());
    }
}
