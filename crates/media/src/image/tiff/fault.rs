//! Why a TIFF is not read.

use std::io;

use crate::error::MediaError;
use crate::image::rgb::DECODER_BYTES;

/// The word for this format in errors.
pub(super) const FORMAT: &str = "tiff";

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It breaks the rules of the format.
    Damaged(String),
    /// It is of a kind that is not read.
    Unsupported(String),
    /// A strip or tile takes more memory than images of this size do.
    Memory,
    /// Any other of the errors of media.
    Media(MediaError),
}

impl Fault {
    pub(super) fn named(self, name: &str) -> MediaError {
        let name = name.to_owned();
        match self {
            Self::Damaged(what) => MediaError::Corrupt { name, format: FORMAT, source: what.into() },
            Self::Unsupported(detail) => MediaError::UnsupportedCodec { name, format: FORMAT, detail },
            Self::Memory => MediaError::DecoderMemory { name, format: FORMAT, limit: DECODER_BYTES },
            Self::Media(error) => error,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

pub(super) fn damaged(what: impl Into<String>) -> Fault {
    Fault::Damaged(what.into())
}

pub(super) fn unsupported(what: impl Into<String>) -> Fault {
    Fault::Unsupported(what.into())
}
