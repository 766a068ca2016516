//! The one error of this crate. Sentences are made here and nowhere else; variants carry what was found and expected.

use std::io;
use std::path::PathBuf;

use crate::tracks::{TrackChoice, TrackInfo};

/// The cause below an error, kept as a chain and never turned into text early.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a text, an image or a list of frames did not become numbers.
///
/// `name` is the path, or what the caller called the bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// No file lies at this path.
    #[error("{}: no such file", path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something lies at this path, but the operating system does not let it be read.
    #[error("{}: the file cannot be read: {source}", path.display())]
    Unreadable {
        /// The path that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that was written to or replaced after its header had been read, so that what is known of it is of another one.
    #[error("{}: the file changed while it was read; try again when it is complete", path.display())]
    Changed {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A folder, pipe, device or socket stands where a file was expected.
    #[error("{}: found {found}, expected a file", path.display())]
    NotAFile {
        /// The path that was asked for.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The bytes are not of the medium that was asked for.
    #[error("{name}: found {}, expected {expected}", found_words(.found))]
    UnknownFormat {
        /// The path, or the name of the bytes.
        name: String,
        /// What the first bytes say, as [`crate::sniff`] names it.
        found: Option<&'static str>,
        /// The medium, with the formats of it that are read.
        expected: &'static str,
    },
    /// An image, audio or video in a format, or in a variant of a format, that is not read here.
    #[error("{name}: {detail}; this cannot be read (format {format})")]
    UnsupportedCodec {
        /// The path, or the name of the bytes.
        name: String,
        /// The format, as [`crate::sniff`] names it.
        format: &'static str,
        /// Which part of it is not read.
        detail: String,
    },
    /// The bytes begin like their format and then break its rules, or end too early.
    #[error("{name}: the {format} data is damaged or cut short: {source}")]
    Corrupt {
        /// The path, or the name of the bytes.
        name: String,
        /// The format that was being read.
        format: &'static str,
        /// What the decoder said.
        #[source]
        source: Cause,
    },
    /// An image with more pixels than are ever decoded; decided from its header.
    #[error("{name}: found {width} x {height} pixels, expected at most {limit} pixels in all")]
    TooManyPixels {
        /// The path, or the name of the bytes.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The largest count that is decoded.
        limit: u64,
    },
    /// An animation with more to decode than any is given time for; decided from its headers.
    #[error("{name}: found more than {limit} {unit} in an animation, expected at most that")]
    AnimationTooLong {
        /// The path, or the name of the bytes.
        name: String,
        /// What there are too many of.
        unit: &'static str,
        /// The largest count.
        limit: u64,
    },
    /// A file with more bytes than any image within the pixel limit needs.
    #[error("{name}: found {bytes} bytes, expected at most {limit}")]
    TooManyBytes {
        /// The path, or the name of the bytes.
        name: String,
        /// Size of the file in bytes.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// Decoding would take more working memory than an image of this size needs.
    #[error("{name}: the {format} data asks for more than {limit} bytes of working memory")]
    DecoderMemory {
        /// The path, or the name of the bytes.
        name: String,
        /// The format that was being read.
        format: &'static str,
        /// The largest amount that is given.
        limit: u64,
    },
    /// One side is so much longer than the other that the model has no size for it.
    #[error(
        "the sides of an image of {width} x {height} pixels differ by more than {limit} times, expected at most that"
    )]
    AspectRatio {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The largest ratio of the longer to the shorter side.
        limit: u32,
    },
    /// A video whose frames have a side shorter than one merged patch.
    #[error("found frames of {width} x {height} pixels, expected at least {minimum} on each side")]
    FramesTooSmall {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The shortest side that is taken, in pixels.
        minimum: u32,
    },
    /// An error of pixels, with the file they came from.
    #[error("{name}: {source}")]
    Of {
        /// The path, or the name of the bytes.
        name: String,
        /// What is wrong with them.
        source: Box<MediaError>,
    },
    /// Nothing is there: no byte, no pixel, no frame.
    #[error("{name}: found nothing, expected at least one {expected}")]
    Empty {
        /// The path, or the name of what is empty.
        name: String,
        /// What there should be one of.
        expected: &'static str,
    },
    /// A container without the track that was asked for.
    #[error("{name}: found {found}, expected {expected}")]
    NoTrack {
        /// The path, or the name of the bytes.
        name: String,
        /// What is there instead, in words: "a video without audio".
        found: String,
        /// The track that was wanted: "an audio track", "a video track".
        expected: &'static str,
    },
    /// A container without the track that was asked for by its place or language.
    #[error("{name}: found no {kind} {wanted}, expected one of: {}", crate::tracks::list(.found))]
    NoSuchTrack {
        /// The path, or the name of the bytes.
        name: String,
        /// "audio track" or "video track".
        kind: &'static str,
        /// What was asked for.
        wanted: TrackChoice,
        /// The tracks of that kind that are there.
        found: Vec<TrackInfo>,
    },
    /// Audio that is too short for the tower to give a row.
    #[error("{name}: found {frames} mel frames, expected at least {minimum}")]
    AudioTooShort {
        /// The path, or the name of the samples.
        name: String,
        /// Mel frames found.
        frames: usize,
        /// The least number.
        minimum: usize,
    },
    /// A sample that is no number.
    #[error("{name}: the audio sample at {seconds:.3} s is not finite")]
    SampleNotFinite {
        /// The path, or the name of the samples.
        name: String,
        /// Where it stands.
        seconds: f64,
    },
    /// More channels than are ever mixed.
    #[error("{name}: found {channels} audio channels, expected at most {limit}")]
    TooManyChannels {
        /// The path, or the name of the bytes.
        name: String,
        /// Channels found.
        channels: usize,
        /// The largest number.
        limit: usize,
    },
    /// Decoded pixels whose count does not fit the given sides.
    #[error("found {found} bytes for {width} x {height} pixels, expected {expected} (three bytes a pixel)")]
    PixelBytes {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes given.
        found: usize,
        /// Bytes that the sides ask for.
        expected: u64,
    },
    /// A preprocessing value that no image can be prepared with.
    #[error("preprocessing field {field}: found {found}, expected {expected}")]
    Preprocess {
        /// Name of the field of [`crate::VisionPreprocess`].
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A tokenizer file that cannot be used.
    #[error("{name}: the tokenizer cannot be read: {source}")]
    Tokenizer {
        /// The path, or the name of the bytes.
        name: String,
        /// What was wrong with it.
        #[source]
        source: Cause,
    },
    /// The tokenizer refused a text.
    #[error("the text of {bytes} bytes cannot be turned into tokens: {source}")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the tokenizer said.
        #[source]
        source: Cause,
    },
    /// A text longer than the model reads, or than the kept parts leave room for.
    #[error("the text has {found} tokens, expected at most {limit}")]
    TooLong {
        /// Its length in tokens, special tokens included.
        found: usize,
        /// The largest length, special tokens included.
        limit: usize,
    },
    /// A query and a document that are longer together than the model reads, or than what stands around them leaves room
    /// for.
    #[error(
        "the pair has {found} tokens, {query} of the query and {document} of the document, expected at most {limit} in all"
    )]
    PairTooLong {
        /// Tokens of the query.
        query: usize,
        /// Tokens of the document.
        document: usize,
        /// Tokens of the pair, with what stands around both.
        found: usize,
        /// The largest length, with what stands around both.
        limit: usize,
    },
}

impl MediaError {
    /// The same error with the name of the file, where it is one of pixels, which do not know where they came from.
    #[must_use]
    pub fn of(self, name: impl Into<String>) -> Self {
        match self {
            Self::AspectRatio { .. } | Self::FramesTooSmall { .. } => {
                Self::Of { name: name.into(), source: Box::new(self) }
            }
            named => named,
        }
    }

    /// The word for this failure in results and responses; one of the fixed error kinds.
    ///
    /// A file that exists but may not be read counts as `not_found`, and a file that changed while it was read, a broken
    /// setting or tokenizer as `corrupt`:
    /// the list of kinds has no nearer word, and the message says what happened.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Of { source, .. } => source.kind(),
            Self::NotFound { .. } | Self::Unreadable { .. } => "not_found",
            Self::NotAFile { .. } => "not_a_file",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::UnsupportedCodec { .. } => "unsupported_codec",
            Self::Corrupt { .. }
            | Self::Changed { .. }
            | Self::PixelBytes { .. }
            | Self::Preprocess { .. }
            | Self::Tokenizer { .. }
            | Self::Encode { .. } => "corrupt",
            Self::TooManyPixels { .. }
            | Self::AnimationTooLong { .. }
            | Self::TooManyBytes { .. }
            | Self::DecoderMemory { .. }
            | Self::TooManyChannels { .. }
            | Self::AspectRatio { .. } => "too_large",
            Self::FramesTooSmall { .. } | Self::AudioTooShort { .. } => "too_short",
            Self::SampleNotFinite { .. } => "not_finite",
            Self::TooLong { .. } | Self::PairTooLong { .. } => "too_long",
            Self::Empty { .. } | Self::NoTrack { .. } | Self::NoSuchTrack { .. } => "empty",
        }
    }
}

/// `found` of [`MediaError::UnknownFormat`] as words in a sentence.
fn found_words(found: &Option<&'static str>) -> String {
    match found {
        // The name says already that it is text.
        Some(name) if name.contains("text ") || name.ends_with(" text") => (*name).to_owned(),
        Some(name) => format!("{name} data"),
        None => "no known format".to_owned(),
    }
}
