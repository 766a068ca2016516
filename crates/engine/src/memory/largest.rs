//! What the largest inputs that a record takes need, computed from its header alone.

use omniburn_media::SEGMENT_SECONDS;
use omniburn_models::family::{AudioForm, ImageForm};
use omniburn_models::record::{Dtype, ImageFit, Modality, RecordFolder};

use super::budget::Budget;
use super::copies::copied_weights;
use super::pool::budget_for;

/// The largest input of a kind that a record takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargestInput {
    /// In words.
    pub input: &'static str,
    /// Rows that enter the backbone.
    pub rows: usize,
    /// The smallest memory budget under which it is embedded.
    pub bytes: u64,
}

/// What the longest text, the largest image and video and the longest segment of audio need beside what their decoders
/// take: the smallest budget under which each is embedded, copied weights of its tower included.
pub fn largest_inputs(record: &RecordFolder, compute: Dtype) -> Vec<LargestInput> {
    let header = record.header();
    let estimate = Budget::new(&header.family);
    let copies = |modality| copied_weights(record, None, Some(modality), compute);
    let row = |input, rows, bytes| LargestInput { input, rows, bytes: budget_for(bytes) };
    let longest = header.family.max_tokens();
    let mut found = Vec::new();
    if header.family.takes(Modality::Text) {
        found.push(row("longest text", longest, estimate.text_item(longest)));
    }
    let (spec, preprocess) = (header.family.spec(), &header.preprocess);
    let ends = estimate.text_unit(&[64]);
    match spec.image {
        Some(ImageForm::Pixels { image_size, .. }) => {
            let frames = preprocess.video_frames.unwrap_or(8) as usize;
            let fit = preprocess.square.as_ref().map(|square| square.fit);
            let (square, unit) = match fit {
                Some(ImageFit::Patches { patch_px, most }) => {
                    let pixels = u64::from(most) * u64::from(patch_px).pow(2);
                    (3 * pixels, estimate.patches_item(most as usize, 1, 64))
                }
                _ => (3 * (image_size as u64).pow(2), estimate.square_unit(1) + ends),
            };
            found.push(row("image", 1, unit + square + copies(Modality::Image)));
            let video = unit + frames as u64 * square;
            found.push(row("video, frames", frames, video + copies(Modality::Image)));
        }
        Some(ImageForm::Patches { patch_px, merge, patch_values, .. }) => {
            if let Some(image) = &preprocess.image {
                let patches = (image.max_pixels / (patch_px * patch_px).max(1) as u64) as usize;
                let rows = patches / (merge * merge).max(1);
                let kept = (patches * patch_values) as u64;
                let share = estimate.patches_item(patches, 1, rows);
                found.push(row("largest image", rows, kept + share + copies(Modality::Image)));
            }
            if let Some(video) = &preprocess.video {
                // The tower takes a video a group of frames at a time; the backbone takes it whole.
                let groups =
                    preprocess.video_frames.unwrap_or(32).div_ceil(video.temporal_patch.max(1)).max(1) as usize;
                let pixels = u64::from(video.patch_px).pow(2).max(1) * u64::from(video.temporal_patch).max(1);
                let patches = (video.max_pixels / pixels) as usize;
                let rows = patches / (merge * merge).max(1);
                let kept = (patches * patch_values) as u64;
                let video = estimate.patches_item(patches / groups, groups, rows);
                found.push(row("largest video", rows, kept + video + copies(Modality::Image)));
            }
        }
        None => {}
    }
    match (&spec.audio, &preprocess.audio) {
        (Some(AudioForm::Windows { .. }), Some(mel)) => {
            let frames = 4 * (mel.sample_rate_hz / mel.hop_samples.max(1)) as usize;
            found.push(row("speech, frames", frames, estimate.audio_unit(&[frames]) + ends + copies(Modality::Audio)));
        }
        (Some(AudioForm::Spectrogram { mels, .. }), Some(sound)) => {
            let frames = sound.clip_frames().unwrap_or(1);
            let clips = (SEGMENT_SECONDS * f64::from(sound.sample_rate_hz)) as usize
                / sound.clip.as_ref().map_or(1, |clip| clip.samples.max(1) as usize);
            let kept = (4 * frames * mels * (clips + 1)) as u64;
            let unit = estimate.audio_unit(&[frames]) + ends;
            found.push(row("longest segment of audio, frames", frames, kept + unit + copies(Modality::Audio)));
        }
        (Some(audio @ (AudioForm::Mel(_) | AudioForm::Chunked(_))), Some(mel)) => {
            let frames = SEGMENT_SECONDS * f64::from(mel.sample_rate_hz) / f64::from(mel.hop_samples.max(1));
            let rows = audio.features(frames as usize).unwrap_or(0);
            let windows = audio.windows(frames as usize).unwrap_or_default();
            let window = windows.first().copied().unwrap_or(1);
            let kept = 4 * frames as u64 * u64::from(mel.mels);
            let share = estimate.frames_item(window, frames as usize, rows);
            found.push(row("longest segment of audio", rows, kept + share + copies(Modality::Audio)));
        }
        _ => {}
    }
    found
}
