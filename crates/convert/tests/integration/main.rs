//! Checkpoints made here, in every published layout, converted and compared with a plain recomputation.

mod faults;
mod fixtures;
mod layouts;
mod manifest;
mod runs;
mod sentence_transformers;
mod settings;
mod single;
mod support;
mod tasks;
