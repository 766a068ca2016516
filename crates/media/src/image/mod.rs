//! Image files into packed RGB pixels, and those into the sizes and patch rows that vision towers read.
//!
//! What lives here: the decoders of all formats, the orientation of the metadata, the size rules, the resize of the
//! reference, and the cut into patches, which video shares. What does not: containers, and the choice of frames.

pub(crate) mod decode;
pub(crate) mod exif;
pub(crate) mod letterbox;
pub(crate) mod patches;
pub(crate) mod resize;
pub(crate) mod rgb;
pub(crate) mod size;
pub(crate) mod square;

mod bmp;
mod gif;
mod jpeg;
mod tiff;
mod webp;
