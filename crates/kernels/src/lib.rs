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
//! | [`MappedFile`] | a read-only file as bytes |
//! | [`map_file`], [`static_bytes`] | the same, or a part of the program, as Burn bytes |
//! | [`trim_memory`], [`settle_allocator`] | freed memory back to the system, and an allocator that does not grow |
//!
//! Heads are repeated and products are cast here and nowhere else. A function called on a backend that
//! [`TowerOps`] is not listed for panics, so every GPU feature switches on `gpu`. Without the feature `tensors` there is no
//! Burn: the kernels over slices, the timing of them, and what is asked of the system.

#[cfg(feature = "tensors")]
mod bucket;
mod choice;
#[cfg(feature = "tensors")]
mod conv;
pub mod cpu;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "tensors")]
mod fused;
mod map;
mod memory;
#[cfg(feature = "tensors")]
mod ops;
#[cfg(feature = "tensors")]
mod portable;
#[cfg(feature = "tensors")]
mod rectangle;
#[cfg(feature = "tensors")]
mod segments;
#[cfg(feature = "tensors")]
mod selftest;
mod tuning;
#[cfg(feature = "tensors")]
mod weight;

#[cfg(feature = "tensors")]
pub use bucket::{bucket, padding};
pub use choice::{KernelChoice, KernelTime, Processor, TimedKernel, fastest_isa};
#[cfg(feature = "tensors")]
pub use conv::{ConvWeights, PackedBottleneck, PackedTower};
pub use cpu::isa::{Isa, IsaUnavailable};
pub use cpu::linear::Activation;
#[cfg(feature = "tensors")]
pub use fused::{After, Before, HeadSizes, attend, project};
pub use map::MappedFile;
#[cfg(feature = "tensors")]
pub use map::{map_file, static_bytes};
pub use memory::{settle_allocator, trim_memory};
#[cfg(feature = "tensors")]
pub use ops::{
    TowerOps, attention, gelu_erf, gelu_tanh, layer_norm, layer_norm_for, linear, rms_norm, rms_norm_for, rotary,
    swiglu,
};
#[cfg(feature = "tensors")]
pub use segments::Segments;
#[cfg(feature = "tensors")]
pub use selftest::{KernelRow, self_test};
pub use tuning::{keep_tuning, tuned};
#[cfg(feature = "tensors")]
pub use weight::{Bf16Product, Weight};

/// Whether tensors of a device are flex's, which are the ones that [`Weight::packed`] serves.
#[cfg(feature = "tensors")]
pub fn is_flex(_device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "flex")]
    return flex::is_flex(_device);
    #[cfg(not(feature = "flex"))]
    false
}
