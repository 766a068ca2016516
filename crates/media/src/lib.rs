//! Bytes and files into host arrays: token ids for text, patch rows for pictures and frames.
//!
//! What lives here: the tokenizer ([`TextTokenizer`]), decoding of pictures ([`decode_image_file`]), the size rules
//! ([`image_size`], [`video_size`]), the bicubic resize of the reference ([`resize_bicubic`]) and the rows that a
//! vision tower reads ([`image_patches`], [`video_patches`], [`film_patches`]), and the mel frames that a sound tower reads ([`SoundReader`],
//! [`log_mel`]), and what all of that takes of memory, told beforehand ([`picture_need`], [`sound_need`], [`film_need`]). What does not: tensors, devices, models, prompts and
//! priorities. Nothing here opens a connection, reads the environment or prints, and no program is
//! started but the FFmpeg that [`FilmOptions`] names.
//!
//! # Errors
//!
//! Every failure is a [`MediaError`]; [`MediaError::kind`] is the word that users see.
#![forbid(unsafe_code)]

mod bmp;
mod encoding;
mod error;
mod exif;
mod film;
mod gif;
mod image;
mod jpeg;
mod kind;
mod letterbox;
mod need;
mod patches;
mod resize;
mod size;
mod sound;
mod text;
mod tiff;
mod tracks;
mod webp;

pub use crate::encoding::{NotText, TextEncoding};
pub use crate::error::MediaError;
pub use crate::film::{Film, FilmOptions, FilmSource, film_patches, has_pictures, is_animation, sample_times};
pub use crate::image::{MAX_IMAGE_PIXELS, RgbImage, decode_image, decode_image_file};
pub use crate::kind::{OTHER_TEXT, known_image_ending, sniff};
pub use crate::letterbox::letterbox;
pub use crate::need::{
    Need, PictureSource, PictureTarget, film_need, frames_need, mel_need, picture_need, sound_need, sound_track_need,
};
pub use crate::patches::{ClipCutter, Grid, PatchGrid, image_patches, resized_frames, resized_image, video_patches};
pub use crate::resize::resize_bicubic;
pub use crate::size::{Height, VisionPreprocess, Width, image_size, video_size};
pub use crate::sound::{LogMel, MelPreprocess, SEGMENT_SECONDS, SoundReader, SoundSegment, SoundSource, log_mel};
pub use crate::text::{TextIds, TextTokenizer, Truncation};
pub use crate::tracks::{TrackChoice, TrackInfo};
