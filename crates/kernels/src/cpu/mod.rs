//! Kernels of ours for CPUs: plain slices in, plain slices out, no Burn.
//!
//! | file | what |
//! |---|---|
//! | [`isa`] | which instructions; found once, forced in tests |
//! | [`simd`] | sixteen f32 side by side, for each set of instructions |
//! | [`tile`], `amx` | the innermost loops of products |
//! | [`pack`] | matrices in panels |
//! | [`affine`] | whole numbers of 8 or 4 bits in groups with scales and offsets |
//! | `whole` | products of rows and affine groups |
//! | [`linear`] | rows times packed matrices, with bias, activation and residual |
//! | [`attention`] | segments of packed rows, online softmax |
//! | [`conv`] | maps with channels last: dense, depthwise, inverted bottlenecks |
//! | [`rows`] | norms and activations |
//! | [`nearest`] | the rows with the largest products with a query |
//! | [`math`] | exponentials and activations |
//! | [`parallel`], `team` | tasks over the pool's threads, which stay awake between steps |
//! | [`aligned`] | memory that begins on a cache line |
//! | [`scratch`] | memory of a thread's own for its tasks |

// Nearly every line below is unsafe for one of two reasons, which stand at the traits: the instructions are there (whoever
// calls `vectorize` says so), and pointers are valid for the sizes beside them (the public functions check lengths first).
#![allow(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
// Tiles are loops over constants that the compiler unrolls.
#![allow(clippy::needless_range_loop)]

pub mod affine;
pub mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod conv;
pub mod isa;
pub mod linear;
pub mod math;
pub mod nearest;
pub mod pack;
pub mod parallel;
pub mod rows;
pub mod scratch;
pub mod simd;
mod team;
pub mod tile;
mod whole;

pub use isa::Isa;
