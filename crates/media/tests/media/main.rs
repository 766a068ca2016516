//! The media crate against stored outputs of the reference: Pillow, transformers and the Python tokenizers.

mod animations;
mod audio;
mod codecs;
mod damaged;
mod forms;
mod images;
mod jpegs;
mod mels;
mod orientations;
mod references;
mod resampled;
mod streams;
mod support;
mod tiffs;
mod tokens;
mod unheard;
mod videos;
