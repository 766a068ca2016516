//! What is paid once, paid ahead: parts opened and, off flex, kernels compiled and tuned.

use std::sync::Arc;

use omniburn_media::{Height, RgbImage, Width};
use omniburn_models::bucket;
use omniburn_models::family::{AudioForm, ImageForm};
use omniburn_models::record::{Modality, RecordHeader};
use omniburn_scheduler::Priority;

use super::open::Session;
use super::stream::results;
use crate::backend::BackendKind;
use crate::call::{Input, Request, Role};
use crate::error::{EngineError, ItemError};
use crate::memory::{MAX_UNIT_FRAMES, MAX_UNIT_PATCHES, MAX_UNIT_TOKENS};
use crate::worker::TextUnit;

/// One pass of a warm-up: rows of a bucket, for a kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmPass {
    /// What goes in.
    pub modality: Modality,
    /// Rows of the text backbone, patches of an image, or pairs of mel frames of an audio.
    pub rows: usize,
}

/// Opens every part, and off flex computes passes of `most` rows at most, though one for each kind of input at least; each is
/// reported before it begins.
pub(crate) fn warm_up(
    session: &Arc<Session>,
    most: usize,
    mut report: impl FnMut(WarmPass),
) -> Result<(), EngineError> {
    session.open_all()?;
    if session.spec.kind == BackendKind::Flex {
        return Ok(());
    }
    for modality in session.modalities() {
        for rows in buckets(session.header(), modality, most) {
            report(WarmPass { modality, rows });
            match pass(session, modality, rows) {
                // Nor will a later input of this size be taken.
                Err(ItemError::OverBudget { .. }) => break,
                Err(source) => return Err(EngineError::Item { index: 0, source }),
                Ok(()) => {}
            }
        }
    }
    Ok(())
}

/// Numbers of rows that passes for a kind of input come in, the largest first: it needs the most memory, which the
/// smaller ones then find.
fn buckets(header: &RecordHeader, modality: Modality, most: usize) -> Vec<usize> {
    let whole = matches!(header.family.spec().image, Some(ImageForm::Pixels { .. }));
    let (least, largest) = match modality {
        Modality::Text => (1, header.family.max_tokens().min(MAX_UNIT_TOKENS)),
        // A video goes through as images do.
        Modality::Video => return Vec::new(),
        // Whole images are all of one size.
        Modality::Image if whole => (1, 1),
        Modality::Image => {
            let pixels = header.preprocess.image.as_ref();
            let patches = |area: u64, p: u32| (area / (u64::from(p) * u64::from(p))) as usize;
            pixels.map_or((1, 1), |p| (patches(p.min_pixels, p.patch_px), patches(p.max_pixels, p.patch_px)))
        }
        // Clips are all of one length.
        Modality::Audio if matches!(header.family.spec().audio, Some(AudioForm::Spectrogram { .. })) => (1, 1),
        Modality::Audio => (1, MAX_UNIT_FRAMES / 2),
    };
    let largest = largest.min(match modality {
        Modality::Image => MAX_UNIT_PATCHES.min(most),
        _ => most,
    });
    let mut buckets = Vec::new();
    let mut next = bucket(least);
    while next <= largest || buckets.is_empty() {
        buckets.push(next);
        next = bucket(next + 1);
    }
    buckets.reverse();
    buckets
}

fn pass(session: &Arc<Session>, modality: Modality, rows: usize) -> Result<(), ItemError> {
    let request = Request::new(Role::None).priority(Priority::Interactive);
    let embed = |input: Input| results(session, [input].into_iter(), request.clone()).swap_remove(0).map(|_| ());
    match modality {
        Modality::Text => {
            let text = session.text_part(&request)?;
            // One text with padding behind it, and several of unlike lengths: these are laid out in other ways.
            let most = session.header().family.max_tokens();
            for lengths in [vec![(rows - 1).min(most)], vec![rows / 2 - 1, rows / 4 - 1, rows / 4 - 1]] {
                let sequences = lengths.into_iter().map(|length| vec![0; length].into()).collect();
                let device = session.worker.device().clone();
                session.worker.steps(&request, TextUnit::new(Arc::clone(&text), sequences, device))?;
            }
            Ok(())
        }
        Modality::Image | Modality::Video => embed(Input::image_pixels(image_of(session.header(), rows))),
        Modality::Audio => {
            let Some(audio) = &session.header().preprocess.audio else { return Ok(()) };
            let clip = audio.clip.as_ref().map(|clip| clip.samples as usize);
            let samples = clip.unwrap_or(2 * rows * audio.hop_samples as usize);
            // Not silent: what is all zeros has no direction.
            let samples: Vec<f32> = (0..samples).map(|i| (i as f32 * 0.3).sin() * 0.25).collect();
            embed(Input::audio_samples(samples, audio.sample_rate_hz))
        }
    }
}

/// An image of as many patches as fit into a bucket.
fn image_of(header: &RecordHeader, rows: usize) -> RgbImage {
    let (patch, merge) = match &header.preprocess.image {
        Some(pixels) => (pixels.patch_px, pixels.merge),
        None => (1, 16),
    };
    let squares = (rows as u32 / (merge * merge)).max(1);
    let down = squares.isqrt().max(1);
    let (height, width) = (down * merge * patch, squares / down * merge * patch);
    let levels = (0..3 * height * width).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    RgbImage::new(Width(width), Height(height), levels).expect("as many levels as pixels")
}
