//! Video and images that move.

use std::sync::Arc;

use omniburn_media::{Video, VideoOptions, VideoSource, has_images, is_animation, sample_times};

use crate::image::{check, with_png_sums};
use crate::places::{golden, with_endings};

/// Frames that are asked for.
const FRAMES: usize = 4;

/// Opens, and decodes a few frames spread over the video. No program is started.
pub fn body(data: &[u8]) {
    let source = VideoSource::Bytes(Arc::from(data), "hostile".to_owned());
    for looked in [has_images(&source), is_animation(&source)] {
        if let Err(error) = looked {
            check(&error);
        }
    }
    let mut video = match Video::open(&source, &VideoOptions { ffmpeg: None, ..VideoOptions::default() }) {
        Ok(video) => video,
        Err(error) => return check(&error),
    };
    let length = video.duration_s();
    assert!(length.is_finite() && length >= 0.0, "a video of {length} s");
    let mut seen = 0;
    let read = video.frames_at(&sample_times(0.0..length, FRAMES), &mut |index, frame| {
        assert_eq!(index, seen, "frames come in order");
        assert_eq!(frame.pixels().len(), frame.width().0 as usize * frame.height().0 as usize * 3);
        seen += 1;
        Ok(())
    });
    match read {
        Ok(()) => assert_eq!(seen, FRAMES, "a video that is read gives every frame asked for"),
        Err(error) => check(&error),
    }
}

/// [`body`], for PNG with sums mended as well.
pub fn animation(data: &[u8]) {
    body(data);
    if let Some(mended) = with_png_sums(data) {
        body(&mended);
    }
}

fn videos(endings: &[&str]) -> Vec<Vec<u8>> {
    with_endings(&golden().join("media/videos"), endings, 16_000)
}

pub fn mp4_seeds() -> Vec<Vec<u8>> {
    videos(&["mp4", "mov"])
}

pub fn mkv_seeds() -> Vec<Vec<u8>> {
    videos(&["mkv"])
}

pub fn animation_seeds() -> Vec<Vec<u8>> {
    with_endings(&golden().join("media/animations"), &["gif", "webp", "png"], 4000)
}

pub fn av1_seeds() -> Vec<Vec<u8>> {
    with_endings(&golden().join("media/codecs"), &["mp4", "mkv", "webm"], 16_000)
        .into_iter()
        .filter(|file| file.windows(4).any(|tag| tag == b"av01" || tag == b"_AV1"))
        .collect()
}
