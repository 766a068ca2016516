//! What items of a model need of the memory budget, and how large a unit may be.

use omniburn_models::FamilyConfig;
use omniburn_models::family::Activations;

/// What items of a model need of the memory budget.
///
/// A need counts the f32 activations alive at once in the widest step of a layer, doubled for what allocators and copies
/// add; `cargo xtask soak` holds it against what the operating system counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    token_bytes: u64,
    text_heads: u64,
    patch_bytes: u64,
    patch_hidden: u64,
    vision_heads: u64,
    frame_bytes: u64,
    frame_hidden: u64,
    audio_heads: u64,
    /// Of a unit of mel frames once.
    stem_bytes: u64,
    square_bytes: u64,
}

/// Rows of a text unit at most, whatever the budget: larger products are not faster on the CPU, and a query would wait
/// for longer.
pub(crate) const MAX_UNIT_TOKENS: usize = 4096;
/// Patches of a tower unit at most, whatever the budget; the reference's first value.
pub(crate) const MAX_UNIT_PATCHES: usize = 8192;

/// Rows below which a product is not cut, however long it takes: narrower ones use less of a processor.
pub(crate) const LEAST_UNIT_ROWS: usize = 128;

/// Mel frames of a tower unit at most, whatever the budget: the tower's blocks see half as many rows.
pub(crate) const MAX_UNIT_FRAMES: usize = 8192;

/// Scores are held whole up to this many a head (flex's own threshold); beyond it they go tile by tile.
const WHOLE_SCORES: u64 = 512 * 512;

impl Budget {
    /// Of a model.
    pub(crate) fn new(family: &FamilyConfig) -> Self {
        let Activations { text, patch, patch_hidden, frame, frame_hidden, stem, image } = family.activations();
        // f32 values, doubled.
        let doubled = |values: usize| 8 * values as u64;
        Self {
            token_bytes: doubled(text.values),
            text_heads: text.heads as u64,
            patch_bytes: doubled(patch.values),
            patch_hidden: patch_hidden as u64,
            vision_heads: patch.heads as u64,
            frame_bytes: doubled(frame.values),
            frame_hidden: frame_hidden as u64,
            audio_heads: frame.heads as u64,
            stem_bytes: doubled(stem),
            square_bytes: doubled(image),
        }
    }

    /// Bytes a backbone unit of sequences with these lengths needs.
    pub(crate) fn text_unit(&self, lengths: &[usize]) -> u64 {
        let rows: u64 = lengths.iter().map(|&l| l as u64).sum();
        let scores: u64 = lengths.iter().map(|&l| ((l * l) as u64).min(WHOLE_SCORES)).sum();
        rows * self.token_bytes + 8 * self.text_heads * scores
    }

    /// Bytes a tower unit needs for attention windows of these lengths, in patches.
    pub(crate) fn vision_unit(&self, windows: &[usize]) -> u64 {
        let rows: u64 = windows.iter().map(|&w| w as u64).sum();
        let scores: u64 = windows.iter().map(|&w| ((w * w) as u64).min(WHOLE_SCORES)).sum();
        rows * self.patch_bytes + 8 * self.vision_heads * scores
    }

    /// Bytes a unit needs for images of pixels that go through the convolution tower together.
    pub(crate) fn square_unit(&self, images: usize) -> u64 {
        images as u64 * self.square_bytes
    }

    /// Bytes a tower unit needs for windows of these lengths, in mel frames.
    pub(crate) fn audio_unit(&self, windows: &[usize]) -> u64 {
        let frames: u64 = windows.iter().map(|&w| w as u64).sum();
        let scores: u64 = windows.iter().map(|&w| (w.div_ceil(2).pow(2) as u64).min(WHOLE_SCORES)).sum();
        self.stem_bytes + frames * self.frame_bytes + 8 * self.audio_heads * scores
    }

    /// Bytes a text of so many tokens needs from its tokens to its vector.
    pub(crate) fn text_item(&self, tokens: usize) -> u64 {
        self.text_unit(&[tokens]) + 4 * tokens as u64
    }

    /// Bytes an image or clip needs beside its patches: the features of its windows, kept until the last of them is
    /// there, and the widest of its units. `window` is in patches, `tokens` what enters the backbone.
    pub(crate) fn patches_item(&self, window: usize, windows: usize, tokens: usize) -> u64 {
        let features = 4 * self.patch_hidden * (window * windows) as u64;
        // Small windows go through together until products are as wide as they need to be.
        let together = vec![window; (LEAST_UNIT_ROWS / window.max(1)).clamp(1, windows.max(1))];
        2 * features + self.vision_unit(&together).max(self.text_unit(&[tokens]))
    }

    /// Bytes an audio needs beside its frames, counted as [`Budget::patches_item`] does.
    pub(crate) fn frames_item(&self, window: usize, frames: usize, tokens: usize) -> u64 {
        let features = 4 * self.frame_hidden * frames.div_ceil(2) as u64;
        let windows = frames.div_ceil(window.max(1)).max(1);
        let together = vec![window.min(frames); (2 * LEAST_UNIT_ROWS / window.max(1)).clamp(1, windows)];
        2 * features + self.audio_unit(&together).max(self.text_unit(&[tokens]))
    }
}
