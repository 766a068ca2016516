//! One open record on one device, and what goes through it: calls of any length, window by window, unit by unit.

mod lists;
mod open;
mod parts;
mod plan;
mod run;
mod stream;
mod warm;

pub(crate) use lists::list_scores;
pub(crate) use open::{Session, Wanted};
pub use parts::VERIFY_SMALL_BYTES;
pub use stream::EmbedIter;
pub(crate) use stream::{results, scores};
pub use warm::WarmPass;
pub(crate) use warm::warm_up;
