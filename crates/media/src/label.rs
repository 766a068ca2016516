//! What messages call the bytes that are read, and the errors that name them.

use crate::error::{Cause, MediaError};

/// The path, or the name of the bytes, and the format that they are read as.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) name: String,
    /// As [`crate::sniff`] names it.
    pub(crate) format: &'static str,
}

impl Label {
    /// [`MediaError::Corrupt`] of these bytes.
    pub(crate) fn corrupt(&self, why: impl Into<Cause>) -> MediaError {
        MediaError::Corrupt { name: self.name.clone(), format: self.format, source: why.into() }
    }

    /// [`MediaError::UnsupportedCodec`] of these bytes.
    pub(crate) fn unsupported(&self, detail: impl Into<String>) -> MediaError {
        MediaError::UnsupportedCodec { name: self.name.clone(), format: self.format, detail: detail.into() }
    }

    /// Something is missing at the end.
    pub(crate) fn cut_short(&self, found: u64, expected: u64, what: &str) -> MediaError {
        self.corrupt(format!("found {found} {what}, expected {expected}"))
    }

    /// [`MediaError::NoTrack`]: `found` is there instead of `expected`.
    pub(crate) fn no_track(&self, found: &str, expected: &'static str) -> MediaError {
        MediaError::NoTrack { name: self.name.clone(), found: found.to_owned(), expected }
    }
}
