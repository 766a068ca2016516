//! GGUF files: one file that holds weights, sizes and tokenizer of a model, mostly packed.
//!
//! | where | what |
//! |---|---|
//! | `reader` | the header, checked against the file's length; tensors read one at a time |
//! | `blocks` | packed types widened to f32 |
//! | `tokenizer` | `tokenizer.ggml.*` to a `tokenizer.json` |
//! | `summary` | what the header says, for people |
//! | `checkpoint` | architecture, sizes and names by the rules of a family |
//!
//! The reader is our own: sizes of a header are checked against the file's length before anything is allocated, and the crate
//! that also widens packed types, `candle-core`, brings a tensor library of its own.

mod blocks;
mod checkpoint;
pub(crate) mod reader;
mod summary;
mod tokenizer;

#[cfg(feature = "hub")]
pub(crate) use checkpoint::check_start;
pub(crate) use checkpoint::{Gguf, open};
pub use reader::is_gguf;
pub use summary::{GgufSummary, GgufType, gguf_summary};
