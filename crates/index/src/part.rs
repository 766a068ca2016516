//! A part of audio or video as a file of its own.

use std::path::Path;

use omniburn_media::{AudioReader, AudioSource, MediaError, RgbImage, Video, VideoOptions, VideoSource};

use crate::error::Fault;

/// Bytes of a sample.
const SAMPLE_BYTES: u32 = 2;
/// Bytes before the samples of a WAV file, and those of them that its first size counts.
const HEADER_BYTES: u32 = 44;
const HEADER_COUNTED: u32 = HEADER_BYTES - 8;

fn fault(error: MediaError) -> Fault {
    Fault::new(error.kind(), error.to_string())
}

/// Some seconds of an audio file as WAV: mono, 16 bits, at the rate of the file. Where both ends are one, from there to the end.
///
/// # Errors
/// [`Fault`] for what cannot be decoded, a time behind the end, and more than a WAV file holds.
pub(crate) fn seconds(path: &Path, start_s: f64, end_s: f64) -> Result<Vec<u8>, Fault> {
    let end_s = if end_s > start_s { end_s } else { f64::INFINITY };
    let source = AudioSource::file(path);
    let rate_hz = AudioReader::open(&source, 16_000).map_err(fault)?.native_hz();
    let mut reader = AudioReader::open(&source, rate_hz).map_err(fault)?;
    let mut samples: Vec<u8> = Vec::new();
    let mut length_s = 0.0f64;
    while length_s < end_s {
        let Some(segment) = reader.next_segment().map_err(fault)? else { break };
        length_s = segment.end_s;
        let place = |time_s: f64| {
            let at = ((time_s - segment.start_s) * f64::from(rate_hz)).round();
            at.clamp(0.0, segment.samples.len() as f64) as usize
        };
        let taken = &segment.samples[place(start_s).min(place(end_s))..place(end_s)];
        let most = (u32::MAX - HEADER_BYTES) as usize;
        if samples.len() + taken.len() * SAMPLE_BYTES as usize > most {
            return Err(Fault::new("too_large", "found more seconds than a WAV file holds: ask for fewer"));
        }
        let level = |sample: &f32| (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
        samples.extend(taken.iter().flat_map(|sample| level(sample).to_le_bytes()));
    }
    if samples.is_empty() {
        return Err(Fault::new("not_found", format!("second {start_s} is not there: it has {length_s:.2}")));
    }
    let bytes = samples.len() as u32;
    let mut wav = Vec::with_capacity(HEADER_BYTES as usize + samples.len());
    wav.extend(b"RIFF");
    wav.extend((HEADER_COUNTED + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    // PCM, one channel.
    wav.extend([1, 0, 1, 0]);
    wav.extend(rate_hz.to_le_bytes());
    wav.extend((rate_hz * SAMPLE_BYTES).to_le_bytes());
    wav.extend((SAMPLE_BYTES as u16).to_le_bytes());
    wav.extend((8 * SAMPLE_BYTES as u16).to_le_bytes());
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    wav.extend(samples);
    Ok(wav)
}

/// The frame of a video that is shown at a time, as PNG.
///
/// # Errors
/// [`Fault`] for what cannot be decoded, and for a time behind the end.
pub(crate) fn frame(path: &Path, time_s: f64) -> Result<Vec<u8>, Fault> {
    let mut video = Video::open(&VideoSource::file(path), &VideoOptions::default()).map_err(fault)?;
    if time_s > video.duration_s() {
        let message = format!("second {time_s} is not there: it has {:.2}", video.duration_s());
        return Err(Fault::new("not_found", message));
    }
    let mut shown: Option<RgbImage> = None;
    let mut keep = |_: usize, frame: &RgbImage| {
        shown = Some(frame.clone());
        Ok(())
    };
    video.frames_at(&[time_s], &mut keep).map_err(fault)?;
    let frame = shown.ok_or_else(|| Fault::new("corrupt", "found no frame"))?;
    png_bytes(&frame)
}

/// An image as PNG.
///
/// # Errors
/// [`Fault`] where it cannot be written.
pub(crate) fn png_bytes(image: &RgbImage) -> Result<Vec<u8>, Fault> {
    png_of(image).map_err(|e| Fault::new("corrupt", format!("the image cannot be written as PNG: {e}")))
}

fn png_of(image: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width().0, image.height().0);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.pixels())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/samples").join(name)
    }

    fn decoded(wav: &[u8]) -> (u32, Vec<f32>) {
        let source = AudioSource::Bytes(wav.into(), "part".into());
        let rate_hz = AudioReader::open(&source, 16_000).unwrap().native_hz();
        let segment = AudioReader::open(&source, rate_hz).unwrap().next_segment().unwrap().unwrap();
        (rate_hz, segment.samples)
    }

    #[test]
    fn seconds_of_audio_are_those_of_the_file() {
        for name in ["speech-show-me-a-castle.wav", "speech-a-boat-on-the-sea.m4a", "speech-where-is-my-hammer.mp3"] {
            let (rate_hz, whole) = decoded(&seconds(&samples(name), 0.0, 0.0).unwrap());
            let (_, part) = decoded(&seconds(&samples(name), 0.2, 0.6).unwrap());
            let from = rate_hz as usize / 5;
            assert_eq!(part.len(), 2 * from, "{name}");
            assert_eq!(part, whole[from..from + part.len()], "{name}");
            let (_, rest) = decoded(&seconds(&samples(name), 1.0, 1.0).unwrap());
            assert_eq!(rest, whole[rate_hz as usize..], "{name}");
            assert_eq!(seconds(&samples(name), 500.0, 501.0).unwrap_err().kind, "not_found");
        }
        assert_eq!(seconds(&samples("poem.txt"), 0.0, 1.0).unwrap_err().kind, "unknown_format");
    }

    #[test]
    fn the_frame_of_a_video_is_the_one_that_is_shown_then() {
        let path = samples("boat-sailing.mp4");
        let mut video = Video::open(&VideoSource::file(&path), &VideoOptions::default()).unwrap();
        let middle = video.duration_s() / 2.0;
        let mut shown = None;
        video
            .frames_at(&[middle], &mut |_, frame| {
                shown = Some(frame.clone());
                Ok(())
            })
            .unwrap();
        let written = omniburn_media::decode_image(&frame(&path, middle).unwrap(), "frame").unwrap();
        assert_eq!(Some(written), shown);
        assert_ne!(frame(&path, 0.0).unwrap(), frame(&path, middle).unwrap());
        assert_eq!(frame(&path, 1e6).unwrap_err().kind, "not_found");
        assert!(frame(&samples("poem.txt"), 0.0).is_err());
    }
}
