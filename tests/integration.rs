//! The proofs, in reading order.
#![allow(missing_docs)] // test names are sentences

mod cases;
mod direct;
mod support;

mod backends;
mod batching;
mod failure;
mod faults;
mod instructions;
mod laws;
mod layouts;
mod mini;
mod parity_audio;
mod parity_mini;
mod parity_text;
mod parity_vision;
mod real_files;
mod replay;
mod scheduler;
mod segments;
mod st_settings;
mod stream;
mod traps;
mod tuning;
