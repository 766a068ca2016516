//! The record folder: `model.json`, mapped tensor files, a tokenizer.
//!
//! A folder is written beside its place and renamed when complete, and read strictly: a wrong format number, family,
//! count, shape or dtype, and any missing or unused tensor, is refused with the full list of names.

/// Matrices in affine groups, as conversion packs them.
pub mod affine {
    pub use omniburn_kernels::cpu::affine::{AffineFormat, AffineRows};
    pub use omniburn_kernels::cpu::pack::{Packed, PanelFormat, PanelLayout};
}
pub mod digest;
mod header;
pub mod int8;
mod part;
#[cfg(feature = "random")]
mod random;
mod read;
mod spec;
mod types;
mod write;

pub use header::{FileEntry, RECORD_FORMAT, RecordHeader, SourceEntry, TensorEntry};
pub use omniburn_output::Leftover;
pub use part::Part;
#[cfg(feature = "random")]
pub use random::{write_random, write_random_encoders, write_random_mini};
pub use read::{InsideFile, RecordFolder};
pub use spec::{SourceAxes, SourcePart, TensorRole, TensorSpec};
pub use types::{
    AudioPreprocess, ClipFill, ClipPreprocess, Dtype, HEADER_FILE, ImageFilter, ImageFit, LetterboxPreprocess,
    MediaTemplate, Modality, PixelPreprocess, Preprocess, Prompts, SquarePreprocess, TOKENIZER_FILE, TOKENS_FILE,
    TOWERS_FILE, TemplateKind, text_file,
};
pub use write::{PartTensor, RecordWriter};
