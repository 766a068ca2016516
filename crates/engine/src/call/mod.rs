//! What callers say and get: inputs, requests, results, and what happens in a call.

mod digest;
mod event;
mod input;
mod request;
mod result;

pub(crate) use digest::Files;
pub use digest::{InputDigest, Sha256Digest};
pub use event::{Answered, CallBegun, CallEvent, ItemDone, PairDone, UnitRan};
pub(crate) use input::Source;
pub use input::{Input, Role};
pub(crate) use request::LateChunks;
pub use request::{Asked, Progress, Request};
pub(crate) use result::{Answer, Listed, Scored};
pub use result::{Chunk, Embedded, Features, OutputKind, Ranked, Segment, Span, Sparse, Timings, max_sim};
