//! Containers: boxes of MP4 and MOV, elements of Matroska and WebM, frames of MPEG audio, and what they say of tracks,
//! whatever the tracks hold.

pub(crate) mod matroska;
pub(crate) mod mp4;
pub(crate) mod mpeg;
pub(crate) mod tracks;
