//! Bytes and files into host arrays: token ids for text, patch rows for images and frames.
//!
//! What lives here: the tokenizer ([`TextTokenizer`]), decoding of images ([`decode_image_file`]), the size rules
//! ([`image_size`], [`video_size`]), the bicubic resize of the reference ([`resize_bicubic`]), the rows that a vision tower
//! reads ([`image_patches`], [`video_patches`], [`sampled_patches`]), the mel frames that an audio tower reads
//! ([`AudioReader`], [`log_mel`]), and estimates of the memory that all of that takes, from the headers alone
//! ([`image_estimate`], [`audio_estimate`], [`video_estimate`]). What does not: tensors, devices, models, prompts and
//! priorities. Nothing here opens a connection, reads the environment or prints, and no program is started but the FFmpeg
//! that [`VideoOptions`] names.
//!
//! `container` walks boxes, elements and pages of files; `image`, `audio` and `video` decode what lies in them; `file` keeps
//! what is open, `source` is the bytes of all of them, and `label` their name in errors.
//!
//! # Errors
//!
//! Every failure is a [`MediaError`]; [`MediaError::kind`] is the word that users see.
#![forbid(unsafe_code)]

mod audio;
mod container;
mod encoding;
mod error;
mod estimate;
mod file;
mod file_kind;
mod image;
mod kind;
mod label;
mod source;
mod text;
mod tracks;
mod video;

pub use crate::audio::{
    AudioReader, AudioSegment, AudioSource, HertzRange, LogMel, MediaTag, MelPreprocess, MelScale, SEGMENT_SECONDS,
    audio_estimate, audio_track_estimate, decibel_mel, log_mel, log_mel_mirrored, log_mel_of_least, media_tags,
};
pub use crate::encoding::{NotText, TextEncoding};
pub use crate::error::MediaError;
pub use crate::estimate::{ImageSource, ImageTarget, MemoryEstimate, frames_estimate, image_estimate, mel_estimate};
pub use crate::file::{FileReader, MediaFile};
pub use crate::file_kind::FileKind;
pub use crate::image::decode::{decode_image, decode_image_file, decode_media_file};
pub use crate::image::letterbox::letterbox;
pub use crate::image::patches::{
    ClipCutter, Grid, PatchGrid, image_patches, resized_frames, resized_image, video_patches,
};
pub use crate::image::resize::{ResizeFilter, resize, resize_bicubic};
pub use crate::image::rgb::{MAX_IMAGE_PIXELS, RgbImage};
pub use crate::image::size::{Height, VisionPreprocess, Width, image_size, video_size};
pub use crate::image::square::{SquareFit, SquareTarget, patch_sides, square_image};
pub use crate::kind::{OTHER_TEXT, known_image_ending, sniff};
pub use crate::text::{PairCut, PairIds, PlacedIds, PromptPair, TextIds, TextToken, TextTokenizer, Truncation};
pub use crate::tracks::{TrackChoice, TrackInfo};
pub use crate::video::{
    Video, VideoOptions, VideoSource, has_images, is_animation, sample_times, sampled_patches, video_estimate,
};
