//! The one budget of bytes that all callers share, and what items and weights need of it.

mod budget;
mod copies;
mod largest;
mod pool;

pub(crate) use budget::{Budget, LEAST_UNIT_ROWS, MAX_UNIT_FRAMES, MAX_UNIT_PATCHES, MAX_UNIT_TOKENS};
pub use copies::copied_weights;
pub use largest::{LargestInput, largest_inputs};
pub(crate) use pool::{Pool, Reservation};
