//! What comes out of an input: its vector, and what is known of how it was made.

use std::time::Duration;

use omniburn_models::record::Modality;

use crate::embedding::Embedding;

/// A vector with what is known of how it was made. Two are equal where all but their timings is.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The vector.
    pub embedding: Embedding,
    /// What it was made from.
    pub modality: Modality,
    /// Rows that entered the backbone, of all segments together.
    pub tokens: usize,
    /// Whether a text was cut.
    pub truncated: bool,
    /// What an audio or video file was cut into, 240 s each but the last; one where it is shorter, none for what has no
    /// time. With several, `embedding` is their unit mean.
    pub segments: Vec<Segment>,
    /// Where the time went.
    pub timings: Timings,
}

impl PartialEq for Embedded {
    fn eq(&self, other: &Self) -> bool {
        let Self { embedding, modality, tokens, truncated, segments, timings: _ } = self;
        (embedding, modality, tokens, truncated, segments)
            == (&other.embedding, &other.modality, &other.tokens, &other.truncated, &other.segments)
    }
}

/// Where the time of a result went. A result that was kept, or that another call computed, has the times of this call's
/// preparation or of that one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Read, decoded and cut into tokens, patches or frames, on threads of callers.
    pub tokenise: Duration,
    /// Waited for the device, for all its units together.
    pub queue: Duration,
    /// Computed by the device: the passes it was in, whole, whatever was beside it. An image, audio or video that came with
    /// others has the passes of all of them.
    pub compute: Duration,
}

/// Where a segment lies in its audio or video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
}

/// A part of a long audio or video with its own vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where it lies.
    pub span: Span,
    /// Its vector.
    pub embedding: Embedding,
    /// Rows that entered the backbone.
    pub tokens: usize,
}
