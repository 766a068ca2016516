//! Towers and backbones as Burn modules, their configurations, and the records that hold them.
//!
//! Given tensors, compute tensors. This room never decodes media, never tokenises, never blocks on another thread,
//! never reads a clock or the environment, and knows no checkpoint format: names here are module paths. Only
//! [`record`] touches files.
//!
//! | where | what |
//! |---|---|
//! | [`record`] | `model.json`, mapped tensor files, writing and verifying |
//! | [`families`] | compositions: which towers, which backbone, which connectors |
//! | [`backbone`] | the decoder-style text backbone, causal or not |
//! | [`towers`] | picture and sound towers, their connectors, index maths |
//! | [`blocks`] | linear, norms, rotary tables, attention, MLPs, pooling, token table |
//! | [`capture`] | captured intermediates, with the feature `capture` |
//! | [`flops`] | how much arithmetic a forward is, for reports |
#![forbid(unsafe_code)]

pub mod backbone;
pub mod batch;
pub mod blocks;
pub mod capture;
pub mod error;
pub mod families;
pub mod flops;
pub mod record;
#[cfg(feature = "mini")]
pub mod shipped;
pub mod towers;

pub use error::{ConfigError, RecordError};
pub use omniburn_kernels::{
    Bf16Product, Isa, IsaUnavailable, KernelRow, Segments, bucket, keep_tuning, self_test, settle_allocator,
    trim_memory,
};
