//! From inputs to numbers, on the threads of callers: reading, decoding, tokenising, and what that takes of memory. It needs no
//! device.

mod chunks;
mod estimate;
mod item;
mod list;
mod preparer;
mod prompt;
mod work;

pub(crate) use estimate::{Estimator, ItemEstimate};
pub(crate) use list::ListTexts;
pub(crate) use preparer::{Long, Prepared, Preparer};
pub use preparer::{mel_preprocess, vision_preprocess};
pub use work::Work;
