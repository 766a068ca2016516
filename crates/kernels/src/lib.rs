//! Fused operations over any Burn backend, each with a portable body.
//!
//! | where | what |
//! |---|---|
//! | functions here | what models call: tensors in, tensors out |
//! | [`TowerOps`] | the door: a Burn backend extension whose default bodies work everywhere and which a backend overrides |
//! | `portable` | those default bodies, written against `Backend` |
//! | `flex`, `cube` | what a backend does differently, and why |
//! | [`cpu`] | kernels of ours for CPUs, over slices: instructions chosen at run time |
//! | [`Weight`], [`project`], [`attend`] | a product with what follows it, attention with what comes before it: one pass on flex |
//! | [`Segments`] | where each sequence begins in packed rows; there is no padding and no mask above this room |
//! | [`bucket`], [`padding`] | numbers of rows that come again, off flex |
//! | [`KernelChoice`] | which of a processor's instructions are the fastest, by a short timing |
//! | [`keep_tuning`] | where a GPU's tuning is kept, if anywhere |
//! | [`PackedTower`] | the convolution tower on flex |
//! | [`self_test`] | every operation on a device against its portable body and its formula |
//! | [`map_file`], [`static_bytes`] | a read-only file, or a part of the program, as Burn bytes |
//! | [`trim_memory`], [`settle_allocator`] | freed memory back to the system, and an allocator that does not grow |
//!
//! Heads are repeated and products are cast here and nowhere else. A function called on a backend that
//! [`TowerOps`] is not listed for panics, so every GPU feature switches on `gpu`.

mod bucket;
mod choice;
mod conv;
pub mod cpu;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
mod fused;
mod map;
mod memory;
mod ops;
mod portable;
mod rectangle;
mod segments;
mod selftest;
mod tuning;
mod weight;

pub use bucket::{bucket, padding};
pub use choice::{KernelChoice, KernelTime, Processor, TimedKernel, fastest_isa};
pub use conv::{ConvWeights, PackedBottleneck, PackedTower};
pub use cpu::isa::{Isa, IsaUnavailable};
pub use cpu::linear::Activation;
pub use fused::{After, Before, HeadSizes, attend, project};
pub use map::{map_file, static_bytes};
pub use memory::{settle_allocator, trim_memory};
pub use ops::{
    TowerOps, attention, gelu_erf, gelu_tanh, layer_norm, layer_norm_for, linear, rms_norm, rms_norm_for, rotary,
    swiglu,
};
pub use segments::Segments;
pub use selftest::{KernelRow, self_test};
pub use tuning::{keep_tuning, tuned};
pub use weight::{Bf16Product, Weight};

/// Whether tensors of a device are flex's, which are the ones that [`Weight::packed`] serves.
pub fn is_flex(_device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "flex")]
    return flex::is_flex(_device);
    #[cfg(not(feature = "flex"))]
    false
}
