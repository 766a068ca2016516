//! Tracks of a container, and which of them is meant.

use std::fmt;

/// Which track of its kind (audio or video) is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrackChoice {
    /// The one that players choose: enabled, then marked as default, then not made for listeners or viewers with an
    /// impairment and no commentary, then the first in the file.
    #[default]
    Default,
    /// By its place among the tracks of its kind, counted from 0.
    Index(u32),
    /// The first of this language, in the order of [`TrackChoice::Default`]: the code that the container holds (`eng`, or
    /// `en-GB` where Matroska keeps BCP 47), compared without case.
    Language(String),
}

impl fmt::Display for TrackChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "the default one"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Language(language) => write!(f, "of language {language}"),
        }
    }
}

/// A track as its container describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackInfo {
    /// Place among the tracks of its kind, from 0.
    pub index: u32,
    /// Its codec, as messages name it.
    pub codec: String,
    /// Its language, where the container says one: ISO 639-2 or BCP 47.
    pub language: Option<String>,
    /// Whether the container marks it as one to be played by default: `FlagDefault` of Matroska (absent: it is), the
    /// enabled flag of an MP4 track header.
    pub default: bool,
    /// Whether it may be played at all: `FlagEnabled` of Matroska; always in MP4, whose enabled flag is `default`.
    pub enabled: bool,
    /// Commentary, descriptions, or made for listeners or viewers with an impairment.
    pub special: bool,
}

impl fmt::Display for TrackInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.index, self.codec)?;
        if let Some(language) = &self.language {
            write!(f, ", {language}")?;
        }
        if self.default {
            write!(f, ", default")?;
        }
        if !self.enabled {
            write!(f, ", disabled")?;
        }
        write!(f, ")")
    }
}

/// The tracks as one line of a message.
pub(crate) fn list(tracks: &[TrackInfo]) -> String {
    let words: Vec<String> = tracks.iter().map(ToString::to_string).collect();
    words.join(", ")
}
