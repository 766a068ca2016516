//! What is paid once, paid ahead: parts opened and, off flex, kernels compiled and tuned.

use std::sync::Arc;

use omniburn_media::{Height, RgbImage, Width};
use omniburn_models::bucket;
use omniburn_models::family::ImageForm;
use omniburn_models::record::Modality;

use crate::backend::BackendKind;
use crate::engine::Engine;
use crate::error::{EngineError, ItemError};
use crate::forward::TextUnit;
use crate::options::{MAX_UNIT_FRAMES, MAX_UNIT_PATCHES, MAX_UNIT_TOKENS};
use crate::request::{Input, Request, Role};
use crate::scheduler::Priority;

/// One pass of a warm-up: rows of a bucket, for a kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmPass {
    /// What goes in.
    pub modality: Modality,
    /// Rows of the text backbone, patches of an image, or pairs of mel frames of an audio.
    pub rows: usize,
}

impl Engine {
    /// Opens whatever is not open yet, so that no later call pays for it. On flex that is all; elsewhere every number of rows
    /// that a pass is brought to is computed once for each kind of input, so that later calls of these sizes find kernels
    /// compiled and tuned; a layout of several inputs that none of these passes had may still tune. That takes minutes where
    /// nothing of it was kept ([`crate::EngineBuilder::tuning`]).
    ///
    /// # Errors
    /// [`EngineError`] if a part is refused, if its copied weights do not fit into the budget, or if the device fails.
    pub fn warm_up(&self) -> Result<(), EngineError> {
        self.warm_up_to(usize::MAX, |_| {})
    }

    /// As [`Engine::warm_up`], with passes of `most` rows at most, though one for each kind of input at least; each is told
    /// before it begins.
    ///
    /// # Errors
    /// As [`Engine::warm_up`].
    pub fn warm_up_to(&self, most: usize, mut tell: impl FnMut(WarmPass)) -> Result<(), EngineError> {
        self.open_all()?;
        if self.spec().kind == BackendKind::Flex {
            return Ok(());
        }
        for modality in Modality::ALL.into_iter().filter(|m| self.refusal(*m).is_none()) {
            for rows in self.buckets(modality, most) {
                tell(WarmPass { modality, rows });
                match self.warm_pass(modality, rows) {
                    // Nor will a later input of this size be taken.
                    Err(ItemError::OverBudget { .. }) => break,
                    Err(source) => return Err(EngineError::Item { index: 0, source }),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    /// Opens every part that the engine may.
    pub(crate) fn open_all(&self) -> Result<(), EngineError> {
        let request = Request::default();
        for modality in Modality::ALL.into_iter().filter(|m| self.refusal(*m).is_none()) {
            self.open_parts(modality, 0, &request).map_err(|source| match source {
                ItemError::OverBudget { .. } => EngineError::WarmUp { modality, source },
                source => EngineError::Item { index: 0, source },
            })?;
        }
        Ok(())
    }

    /// Numbers of rows that passes for a kind of input come in, the largest first: it needs the most memory, which the
    /// smaller ones then find.
    fn buckets(&self, modality: Modality, most: usize) -> Vec<usize> {
        let whole = matches!(self.header().family.spec().image, Some(ImageForm::Pixels { .. }));
        let (least, largest) = match modality {
            Modality::Text => (1, self.header().family.max_tokens().min(MAX_UNIT_TOKENS)),
            // A video goes through as images do.
            Modality::Video => return Vec::new(),
            // Whole images are all of one size.
            Modality::Image if whole => (1, 1),
            Modality::Image => {
                let pixels = self.header().preprocess.image.as_ref();
                let patches = |area: u64, p: u32| (area / (u64::from(p) * u64::from(p))) as usize;
                pixels.map_or((1, 1), |p| (patches(p.min_pixels, p.patch_px), patches(p.max_pixels, p.patch_px)))
            }
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

    fn warm_pass(&self, modality: Modality, rows: usize) -> Result<(), ItemError> {
        let request = Request::new(Role::None).priority(Priority::Interactive);
        match modality {
            Modality::Text => {
                let text = self.text_part(&request)?;
                // One text with filler behind it, and several of unlike lengths: these are laid out in other ways.
                let most = self.header().family.max_tokens();
                for lengths in [vec![(rows - 1).min(most)], vec![rows / 2 - 1, rows / 4 - 1, rows / 4 - 1]] {
                    let sequences = lengths.into_iter().map(|length| vec![0; length]).collect();
                    let device = self.inner.parts.device().clone();
                    self.steps(&request, TextUnit::new(Arc::clone(&text), sequences, device))?;
                }
                Ok(())
            }
            Modality::Image | Modality::Video => self.warm_input(Input::image_pixels(self.picture_of(rows)), &request),
            Modality::Audio => {
                let Some(sound) = &self.header().preprocess.audio else { return Ok(()) };
                let samples = 2 * rows * sound.hop_samples as usize;
                // Not silent: what is all zeros has no direction.
                let samples: Vec<f32> = (0..samples).map(|i| (i as f32 * 0.3).sin() * 0.25).collect();
                self.warm_input(Input::audio_samples(samples, sound.sample_rate_hz), &request)
            }
        }
    }

    fn warm_input(&self, input: Input, request: &Request) -> Result<(), ItemError> {
        match self.embed_with(&[input], request) {
            Ok(mut results) => results.swap_remove(0).map(|_| ()),
            Err(error) => unreachable!("a plain request is not refused: {error}"),
        }
    }

    /// An image of as many patches as fit into a bucket.
    fn picture_of(&self, rows: usize) -> RgbImage {
        let (patch, merge) = match &self.header().preprocess.image {
            Some(pixels) => (pixels.patch_px, pixels.merge),
            None => (1, 16),
        };
        let squares = (rows as u32 / (merge * merge)).max(1);
        let down = squares.isqrt().max(1);
        let (height, width) = (down * merge * patch, squares / down * merge * patch);
        let levels = (0..3 * height * width).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        RgbImage::new(Width(width), Height(height), levels).expect("as many levels as pixels")
    }
}
