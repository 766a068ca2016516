//! An engine examined from outside: what its calls note of themselves and whether they can be done again, whether its
//! operations and vectors are right, what queries wait for under load, and what the machine can do at most.
//!
//! Everything here stands on the public surface of `omniburn`, most of it on its hooks in [`omniburn::probe`]; nothing sees a
//! tensor. Nothing prints.
//!
//! | where | what |
//! |---|---|
//! | `journal` | what calls note of themselves: [`journal()`] |
//! | `replay` | a journal done again and compared to the bit: [`replay()`] |
//! | `selftest` | operations, stored vectors, and the law that batch mates change nothing: [`self_test`] |
//! | `load` | what queries wait for beside background work: [`load_test`] |
//! | `peak` | the limits of the machine that times are held against: [`peak()`] |
//! | `items` | what the self-test and the load test embed |
#![forbid(unsafe_code)]

mod device;
mod items;
mod journal;
mod load;
mod peak;
mod replay;
mod selftest;

pub use journal::{
    ItemOutcome, JOURNAL_FORMAT, JournalEntry, JournalItem, JournalOpen, JournalUnit, VectorDigest, journal,
};
pub use load::{LoadReport, load_test};
pub use peak::{Peak, peak};
pub use replay::{ReplayDifference, ReplayError, ReplayOptions, ReplayReport, Replayed, replay};
pub use selftest::{ItemRow, SelfTest, Stored, StoredDistance, self_test, self_test_vectors};
