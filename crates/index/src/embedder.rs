//! What an index asks of a model. The engine is one; tests have another.

use std::ops::ControlFlow;
use std::path::PathBuf;

use omniburn_media::RgbImage;

use crate::error::Fault;
use crate::kind::Modality;

/// Something to be embedded.
#[derive(Debug, Clone)]
pub enum Content {
    /// A text that is no longer than the model reads.
    Text(String),
    /// An image file.
    Image(PathBuf),
    /// An image that was drawn, such as a page.
    Pixels(RgbImage),
    /// An audio file.
    Audio(PathBuf),
    /// A video file.
    Video(PathBuf),
}

impl Content {
    /// What its vectors are made from.
    pub fn modality(&self) -> Modality {
        match self {
            Content::Text(_) => Modality::Text,
            Content::Image(_) | Content::Pixels(_) => Modality::Image,
            Content::Audio(_) => Modality::Audio,
            Content::Video(_) => Modality::Video,
        }
    }
}

/// A vector of unit length, and where in its file what it stands for lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// Where it begins and ends in audio or video, in seconds.
    pub span: Option<(f64, f64)>,
    /// `[dim]`.
    pub values: Vec<f32>,
}

/// What embeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedderProfile {
    /// Version, record digest and task; an index is of one identity.
    pub identity: String,
    /// Name of the model, for people.
    pub model: String,
    /// Values of a vector.
    pub dim: usize,
    /// Tokens of a text at most.
    pub max_tokens: usize,
    /// What it takes.
    pub modalities: Vec<Modality>,
}

/// A model that gives vectors of unit length.
pub trait Embedder: Sync {
    /// What it is.
    fn profile(&self) -> EmbedderProfile;

    /// Tokens that a text has for the model, whatever its length.
    ///
    /// # Errors
    /// [`Fault`] where the tokenizer refuses it.
    fn count_tokens(&self, text: &str) -> Result<usize, Fault>;

    /// Embeds documents in the background class and hands out the results in order: of each the vectors of its parts, one at
    /// least. Contents are taken a few ahead of the results. Stops where `take` breaks.
    ///
    /// # Errors
    /// [`Fault`] where nothing can be embedded at all.
    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault>;

    /// Embeds a query.
    ///
    /// # Errors
    /// [`Fault`] where it cannot be.
    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault>;
}
