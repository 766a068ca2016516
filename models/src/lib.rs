//! Towers and backbones as Burn modules, their configurations, and the records that hold them.
//!
//! Given tensors, compute tensors. This room never decodes media, never tokenises, never blocks on another thread,
//! never reads a clock or the environment. Names are module paths; a family says what they are called in checkpoints. Only
//! [`record`] touches files.
//!
//! | where | what |
//! |---|---|
//! | [`record`] | `model.json`, mapped tensor files, writing and verifying |
//! | [`family`] | what a family is |
//! | [`items`] | how an item of texts and media becomes one sequence |
//! | [`registry`] | the list of families, and what is found by name |
//! | [`open`] | parts of a record as modules of its family |
//! | [`families`] | one file a family: configuration, forward pass, names in checkpoints |
//! | [`builder`] | one description of a module: names, shapes, tensors, counts |
//! | [`checkpoint`] | how published folders of a family are read |
//! | [`mod@pass`] | passes in steps |
//! | [`encoder`] | post-norm text encoders with learned positions |
//! | [`rotary_encoder`] | post-norm text encoders with rotary positions and a gated MLP |
//! | [`backbone`] | the decoder-style text backbone, causal or not |
//! | `media_text` | a backbone whose sequences hold rows of media, with three-axis positions and DeepStack |
//! | [`towers`] | image and audio towers, their connectors, index maths |
//! | [`blocks`] | linear, norms, rotary tables, attention, MLPs, pooling, token table |
//! | [`capture`] | captured intermediates, with the feature `capture` |
//! | [`flops`] | how much arithmetic a forward is, for reports |
#![forbid(unsafe_code)]

pub mod backbone;
pub mod batch;
pub mod blocks;
pub mod builder;
pub mod capture;
pub mod checkpoint;
mod checks;
pub mod encoder;
pub mod error;
pub mod families;
pub mod family;
pub mod flops;
pub mod items;
mod media_text;
pub mod open;
pub mod pass;
pub mod record;
pub mod registry;
pub mod rotary_encoder;
#[cfg(feature = "mini")]
pub mod shipped;
pub mod towers;

pub use error::{ConfigError, RecordError};
pub use family::{Family, FamilyConfig};
pub use omniburn_kernels::{
    Bf16Product, Isa, IsaUnavailable, KernelChoice, KernelRow, KernelTime, Processor, Segments, TimedKernel, bucket,
    keep_tuning, linear, self_test, settle_allocator, trim_memory,
};
pub use registry::FAMILIES;
