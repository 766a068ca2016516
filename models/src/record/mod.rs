//! The record folder: `model.json`, mapped tensor files, a tokenizer.
//!
//! A folder is written beside its place and renamed when complete, and read strictly: a wrong format number, family,
//! count, shape or dtype, and any missing or unused tensor, is refused with the full list of names.

pub mod digest;
mod header;
pub mod int8;
#[cfg(feature = "random")]
mod random;
mod read;
mod spec;
mod write;

pub use header::*;
pub use omniburn_output::Leftover;
#[cfg(feature = "random")]
pub use random::{write_random, write_random_mini};
pub use read::{InsideFile, Part, RecordFolder};
pub use spec::{SourceAxes, SourcePart, TensorRole, TensorSpec};
pub use write::{PartTensor, RecordWriter};
