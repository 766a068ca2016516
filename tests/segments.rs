//! Long audio and video: cut into segments, each with its vector and its place, and one vector for the whole.

use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, RgbaImage};
use omniburn::{Embedded, Engine, Height, Input, Request, RgbImage, Role, Width};

use crate::support::*;

/// Enough of a rate for a test, so that minutes of audio are few samples.
const RATE: u32 = 1000;

fn tune(seconds: usize) -> Vec<f32> {
    let sample = |i: usize| {
        let t = i as f32 / RATE as f32;
        // A tone that climbs for minutes, so that no two segments audio alike.
        0.4 * (t * (300.0 + t)).sin() + 0.2 * (t * 71.0).sin()
    };
    (0..seconds * RATE as usize).map(sample).collect()
}

fn embed(engine: &Engine, input: Input) -> Embedded {
    engine.embed_with(&[input], &Request::new(Role::Document)).unwrap().swap_remove(0).unwrap()
}

/// The unit mean of vectors, in f64.
fn unit_mean(vectors: &[&[f32]]) -> Vec<f32> {
    let mean: Vec<f64> = (0..vectors[0].len()).map(|i| vectors.iter().map(|v| f64::from(v[i])).sum::<f64>()).collect();
    let norm = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
    mean.iter().map(|v| (v / norm) as f32).collect()
}

fn assert_whole(embedded: &Embedded) {
    let vectors: Vec<&[f32]> = embedded.segments.iter().map(|s| s.embedding.as_slice()).collect();
    compare("the whole", embedded.embedding.as_slice(), &unit_mean(&vectors), 1e-6);
    assert_eq!(embedded.tokens, embedded.segments.iter().map(|s| s.tokens).sum::<usize>());
}

#[test]
fn a_long_sound_is_cut_every_240_seconds_and_each_piece_is_what_it_is_alone() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let samples = tune(490);
    let whole = embed(&engine, Input::audio_samples(samples.clone(), RATE));
    let spans: Vec<(f64, f64)> = whole.segments.iter().map(|s| (s.span.start_s, s.span.end_s)).collect();
    assert_eq!(spans, [(0.0, 240.0), (240.0, 480.0), (480.0, 490.0)]);
    assert_whole(&whole);
    for (segment, piece) in whole.segments.iter().zip(samples.chunks(240 * RATE as usize)).skip(1) {
        let alone = embed(&engine, Input::audio_samples(piece.to_vec(), RATE));
        same("alone", &[segment.embedding.as_slice().to_vec()], &[alone.embedding.into_vec()]);
        assert_eq!(segment.tokens, alone.tokens);
        assert_eq!(alone.segments.len(), 1);
    }
    assert_ne!(whole.segments[0].embedding, whole.segments[1].embedding);
}

#[test]
fn a_tail_without_a_mel_frame_is_no_segment() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    for (extra, count) in [(1, 1), (200, 2)] {
        let mut samples = tune(240);
        samples.extend(tune(1).into_iter().take(extra));
        let embedded = embed(&engine, Input::audio_samples(samples, RATE));
        assert_eq!(embedded.segments.len(), count, "240 s and {extra} samples");
        assert_whole(&embedded);
    }
}

#[test]
fn a_long_sound_keeps_its_bits_and_those_of_its_neighbours() {
    let engine = golden().checkpoint("omni-nano-tiny").engine();
    let inputs = [
        Input::text("a red bicycle"),
        Input::audio_samples(tune(250), RATE),
        golden().checkpoint("omni-nano-tiny").audio("mixed"),
    ];
    let together = engine.embed(&inputs, Role::Document).unwrap();
    for (input, together) in inputs.iter().zip(&together) {
        let alone = engine.embed_one(input.clone(), Role::Document).unwrap();
        same("alone", &[together.as_slice().to_vec()], &[alone.into_vec()]);
    }
}

#[test]
fn a_sound_that_breaks_in_a_later_segment_has_no_vector_and_costs_no_other() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let mut broken = tune(300);
    broken[290 * RATE as usize] = f32::NAN;
    let inputs = [Input::text("before"), Input::audio_samples(broken, RATE), Input::text("after")];
    let results = engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind().name(), "not_finite");
    assert!(error.to_string().contains("290.000 s"), "{error}");
}

/// An image with a gradient, so that nothing is the same in two of them.
fn image(seed: u8) -> RgbaImage {
    RgbaImage::from_fn(64, 48, |x, y| {
        let level = |k: u32| ((x * k + y * 3 + u32::from(seed) * 40) % 256) as u8;
        // Few colours, so that a palette holds them all.
        image::Rgba([level(4) & 0xE0, level(2) & 0xE0, level(1) & 0xC0, 255])
    })
}

/// A video of one image after the other, each shown for some seconds.
fn animation(images: &[RgbaImage], seconds: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 1);
    for image in images {
        let delay = Delay::from_saturating_duration(std::time::Duration::from_secs(seconds));
        encoder.encode_frame(Frame::from_parts(image.clone(), 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}

#[test]
fn a_long_video_is_cut_the_same_way_and_shows_what_is_seen_at_each_time() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let images: Vec<RgbaImage> = (0..3).map(image).collect();
    let video = Input::video_bytes(animation(&images, 100));
    let request = Request::new(Role::Document).frames(4);
    let whole = engine.embed_with(&[video], &request).unwrap().swap_remove(0).unwrap();
    let spans: Vec<(f64, f64)> = whole.segments.iter().map(|s| (s.span.start_s, s.span.end_s)).collect();
    assert_eq!(spans, [(0.0, 240.0), (240.0, 300.0)]);
    assert_whole(&whole);

    // Seen at 30, 90, 150 and 210 s; then at 247.5 s and later, when the last image stands still.
    let rgb = |i: usize| {
        let pixels = images[i].pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect();
        RgbImage::new(Width(64), Height(48), pixels).unwrap()
    };
    for (segment, seen) in whole.segments.iter().zip([[0, 0, 1, 2], [2, 2, 2, 2]]) {
        let list = embed(&engine, Input::video_frames(seen.map(rgb).into()));
        same("frames", &[segment.embedding.as_slice().to_vec()], &[list.embedding.into_vec()]);
        assert!(list.segments.is_empty(), "a list of frames has no time");
    }
}

#[test]
fn the_number_of_frames_is_the_requests_then_the_records() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let images: Vec<RgbaImage> = (0..4).map(image).collect();
    let video = Input::video_bytes(animation(&images, 1));
    let tokens = |request: Request| {
        engine.embed_with(std::slice::from_ref(&video), &request).unwrap().swap_remove(0).unwrap().tokens
    };
    let stated = engine.header().preprocess.video_frames.unwrap_or(32);
    assert_eq!(tokens(Request::new(Role::Document)), tokens(Request::new(Role::Document).frames(stated)));
    assert_ne!(tokens(Request::new(Role::Document).frames(2)), tokens(Request::new(Role::Document).frames(8)));
    let error = engine.embed_with(std::slice::from_ref(&video), &Request::new(Role::Document).frames(1_000_000));
    assert_eq!(error.unwrap().swap_remove(0).unwrap_err().kind().name(), "too_long");
}
