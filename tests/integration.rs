//! The proofs, in reading order.
#![allow(missing_docs)] // test names are sentences

mod altered;
mod cases;
mod composed;
mod direct;
mod support;

mod adapters;
mod affine;
mod backends;
mod batching;
mod clips;
mod controls;
mod eights;
mod encoders;
mod failure;
mod families;
mod faults;
mod features;
mod fullsize;
mod ggufs;
mod instructions;
mod items;
mod late_chunks;
mod late_interaction;
mod laws;
mod layouts;
mod mini;
mod outputs;
mod packed;
mod parity_audio;
mod parity_mini;
mod parity_text;
mod parity_vision;
mod real_files;
mod real_models;
mod replay;
mod rerank;
mod scheduler;
mod segments;
mod st_settings;
mod stream;
mod thinker;
mod tuning;
mod two_towers;
