//! The proofs, in reading order.
#![allow(missing_docs)] // test names are sentences

mod direct;
mod support;

mod parity_text;
mod parity_vision;
mod layouts;
mod batching;
mod traps;
mod gate;
mod failure;
mod backends;
