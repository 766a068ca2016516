//! How much arithmetic a forward is, which a time is divided into to say how near it is to the limit of a machine, and how
//! many values it keeps alive.
//!
//! Counted are the products with weights, the convolutions, and both products of attention over the pairs of rows that see
//! each other, two operations a multiply-add. Not counted are norms, activations, softmax, rotary and sums: under one in a
//! hundred. Nor is the preparation of media. Blocks count themselves, from the matrices they have.

/// Operations of a multiply-add.
const MULTIPLY_ADD: u64 = 2;

/// An input as its towers and its backbone read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text {
        /// Rows that enter the backbone.
        tokens: usize,
    },
    /// An image or video as patches.
    Patches {
        /// Groups of frames, each of which attends to itself alone; one for an image.
        groups: usize,
        /// Patches of a group.
        patches: usize,
        /// Rows that enter the backbone.
        tokens: usize,
    },
    /// An image, or the frames of a video, as letterboxed images whose maps are brought to their mean.
    Pixels {
        /// Number of images.
        count: usize,
    },
    /// Audio as windows of mel frames.
    Mel {
        /// Frames of each window or clip.
        clips: Vec<usize>,
        /// Rows that enter the backbone, of all clips together.
        tokens: usize,
    },
    /// Texts and media in one sequence.
    Parts {
        /// The media, each without rows that enter the backbone.
        parts: Vec<Shape>,
        /// Rows that enter the backbone, of all of them together.
        tokens: usize,
    },
}

/// Operations of `[rows, inputs]` times `[inputs, outputs]`.
pub fn product(rows: usize, inputs: usize, outputs: usize) -> u64 {
    MULTIPLY_ADD * rows as u64 * inputs as u64 * outputs as u64
}

/// Pairs of rows of one sequence that see each other, where a row sees all, or those at most `window` away.
pub fn pairs(tokens: usize, window: Option<usize>) -> usize {
    match window {
        None => tokens * tokens,
        Some(window) => {
            // Rows of a window that lie in the sequence.
            let reach = window.min(tokens.saturating_sub(1));
            tokens + 2 * (reach * tokens - reach * (reach + 1) / 2)
        }
    }
}

/// Operations of scores and weighted sums over this many pairs of rows, all heads together `width` wide.
pub fn attention(pairs: usize, width: usize) -> u64 {
    2 * MULTIPLY_ADD * pairs as u64 * width as u64
}

/// Values alive while rows go through a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowActivations {
    /// f32 values a row in the widest step.
    pub values: usize,
    /// Heads, each with a matrix of scores.
    pub heads: usize,
}

/// f32 values alive while a unit of each form is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activations {
    /// A row of a text.
    pub text: RowActivations,
    /// A patch of a tower.
    pub patch: RowActivations,
    /// Numbers of a feature row of the image tower, those of tapped blocks with it.
    pub patch_hidden: usize,
    /// A mel frame of a tower.
    pub frame: RowActivations,
    /// Numbers of a feature row of the audio tower.
    pub frame_hidden: usize,
    /// Of a unit of mel frames once, whatever its length: what the stem keeps alive for a chunk.
    pub stem: usize,
    /// A letterboxed image.
    pub image: usize,
}
