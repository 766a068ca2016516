//! The media crate against stored outputs of the reference: Pillow, transformers and the Python tokenizers.

mod animations;
mod codecs;
mod damaged;
mod films;
mod forms;
mod jpegs;
mod mels;
mod orientations;
mod pictures;
mod references;
mod resampled;
mod sounds;
mod streams;
mod support;
mod tiffs;
mod tokens;
mod unheard;
