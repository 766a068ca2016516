//! Matroska and WebM files into a picture track.

use crate::error::MediaError;
use crate::film::packets::PictureTrack;
use crate::film::source::Source;

/// The film's picture track.
pub(crate) fn open(source: Source) -> Result<PictureTrack, MediaError> {
    Err(source.unsupported("not yet"))
}
