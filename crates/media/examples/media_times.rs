//! How long single steps of preparing media take, asked for one at a time, so that another program can be timed between
//! them.
//!
//! `cargo run --release -p omniburn-media --example media_times` reads lines from standard input, does what each says and
//! answers with milliseconds:
//! `decode FILE`, `resize FILE WIDTH HEIGHT` (the decoded image of the last such line is kept, so decoding is not in the
//! time), `rows FILE` (an image of whole patches into the numbers a tower reads), `sound FILE` (to samples at 16 kHz),
//! `mel SECONDS` (noise into 128 bands), `tokenizer FILE` (a `tokenizer.json` opened).

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use omniburn_media::{
    AudioReader, AudioSource, Height, MelPreprocess, RgbImage, TextTokenizer, VisionPreprocess, Width,
    decode_image_file, image_patches, log_mel, resize_bicubic,
};

const MEL: MelPreprocess = MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };

const PATCHES: VisionPreprocess = VisionPreprocess {
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut kept: Option<(PathBuf, RgbImage)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ms = match words[..] {
            ["decode", file] => {
                let start = Instant::now();
                let image = decode_image_file(Path::new(file))?;
                let ms = start.elapsed();
                black_box(image);
                ms
            }
            ["resize", file, width, height] => {
                let image = decoded(&mut kept, file)?;
                let (width, height) = (Width(width.parse()?), Height(height.parse()?));
                let start = Instant::now();
                black_box(resize_bicubic(image, height, width));
                start.elapsed()
            }
            ["rows", file] => {
                let image = decoded(&mut kept, file)?;
                let start = Instant::now();
                black_box(image_patches(image, &PATCHES)?.rows());
                start.elapsed()
            }
            ["sound", file] => {
                let source = AudioSource::file(file);
                let start = Instant::now();
                let mut reader = AudioReader::open(&source, MEL.sample_rate_hz)?;
                while let Some(segment) = reader.next_segment()? {
                    black_box(segment);
                }
                start.elapsed()
            }
            ["mel", seconds] => {
                let mut state = 1_u32;
                let noise = std::iter::repeat_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 24) as f32 - 0.5
                });
                let samples: Vec<f32> = noise.take(seconds.parse::<usize>()? * 16_000).collect();
                let start = Instant::now();
                black_box(log_mel(&samples, &MEL)?);
                start.elapsed()
            }
            ["tokenizer", file] => {
                let start = Instant::now();
                let opened = TextTokenizer::from_file(Path::new(file))?;
                let ms = start.elapsed();
                black_box(opened);
                ms
            }
            _ => return Err(format!("`{line}` is not understood").into()),
        };
        println!("{:.3}", ms.as_secs_f64() * 1e3);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The image of a file, decoded unless the last line named it too.
fn decoded<'a>(kept: &'a mut Option<(PathBuf, RgbImage)>, file: &str) -> Result<&'a RgbImage, Box<dyn Error>> {
    if kept.as_ref().is_none_or(|(path, _)| path != Path::new(file)) {
        *kept = Some((file.into(), decode_image_file(Path::new(file))?));
    }
    Ok(&kept.as_ref().expect("it was just put there").1)
}
