//! Fused operations over any Burn backend, each with a portable body.
//!
//! | where | what |
//! |---|---|
//! | functions here | what models call: tensors in, tensors out |
//! | [`TowerOps`] | the door: a Burn backend extension whose default bodies work everywhere and which a backend overrides |
//! | `portable` | those default bodies, written against `Backend` |
//! | `flex`, `cube` | what a backend does differently, and why |
//! | [`Segments`] | where each sequence begins in packed rows; there is no padding and no mask above this room |
//! | [`self_test`] | every operation on a device against its portable body and its formula |
//! | [`map_file`], [`static_bytes`] | a read-only file, or a part of the program, as Burn bytes |
//! | [`trim_memory`], [`settle_allocator`] | freed memory back to the system, and an allocator that does not grow |
//!
//! Heads are repeated and products are cast here and nowhere else. A function called on a backend that
//! [`TowerOps`] is not listed for panics, so every GPU feature switches on `gpu`.

#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
mod map;
mod memory;
mod ops;
mod portable;
mod segments;
mod selftest;

pub use map::{map_file, static_bytes};
pub use memory::{settle_allocator, trim_memory};
pub use ops::{TowerOps, attention, gelu_erf, gelu_tanh, layer_norm, linear, rms_norm, rotary, swiglu};
pub use segments::Segments;
pub use selftest::{KernelRow, self_test};
