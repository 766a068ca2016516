//! The kernels over slices under their own name, without Burn.
#[path = "../src/cpu/mod.rs"]
pub mod cpu;

pub use cpu::isa::{Isa, IsaUnavailable};
pub use cpu::linear::Activation;
