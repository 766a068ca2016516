//! The scheduler: bounded queues, passes over callers, and what one device computes next.
//!
//! A device computes one pass at a time and cannot be interrupted, so what a query waits for is decided here. Callers
//! submit requests; the one worker that owns the device takes turns. An interactive request goes before every background
//! one, first come first served inside a class, with aging, so that a long indexing job keeps moving under steady queries.
//! A turn is a pass: the head whose turn it is, with whoever waits for the same. A pass may be computed in several time
//! slices.
//!
//! # The two laws
//!
//! Write `N` for [`SchedulerPolicy::background_every`]. A unit is one time slice.
//!
//! 1. **A query waits for at most one background unit, ever**: the unit that was running when it arrived, or one that
//!    was let past it by aging, never both. The reason is one comparison: when a background unit ends, every
//!    interactive caller then waiting has waited for it; until the last of them has had its turn, aging is off.
//! 2. **Background work is never starved.** Let `M` be the number of interactive callers that were waiting when the
//!    last background unit ended. Then at most `max(N, M)` interactive units start before the next background waiter
//!    does. Law 1 makes the `M` unavoidable, so no scheduler that keeps it can promise more. With at most `C` interactive
//!    callers at a time `M <= C`, and background gets at least one unit in every `max(N, C) + 1`; for `C <= N` that is
//!    one in `N + 1`. Only when queries alone exceed what the device can do does `M` grow, and the share shrinks with
//!    it; it never reaches zero. Queries that share a pass are one unit, which only adds to the share.
//!
//! # Company
//!
//! Requests of one class and one form (the same task, the same kind of data) may share a pass. The head is whoever comes
//! next by the laws; batch mates are chosen among those who wait at that moment by [`batch_mates`]: urgent deadlines, then the
//! oldest, as far as the budget goes. So
//!
//! - nobody waits for batch mates, and the device is never idle while somebody waits;
//! - batch mates leave their queue earlier than by their own turn, and who is left behind keeps its place, so that order inside a
//!   class stays: a request is overtaken only by what goes along with those before it;
//! - a pass is of one class: background rows would make a query wait for them, which law 1 counts.
//!
//! What shares a pass changes no result: that is the law of whoever computes.
//!
//! # Bounds
//!
//! [`SchedulerPolicy::max_queue`] requests of a class wait; the next one is refused at once ([`Refused::Full`]), which a
//! server answers with status 429.
//!
//! # Time slices
//!
//! [`Turn::yield_now`] ends a time slice and parks the pass, which then stands first in its class.
//!
//! - Background work cut between layers lets queries in at every cut, and no other background work before its end.
//!   A query waits for what is left of one time slice, not of the work, and where the worker looks at [`Turn::is_awaited`]
//!   between its steps only for the step at hand. A slice that aging let past queries is not cut for those that come
//!   meanwhile, so that the share of law 2 is one of time, too. That share is the share of the class;
//!   inside the class, work is finished before the next begins.
//! - Interactive work is overtaken at a cut by background work only where aging lets it by, so each of its units waits for
//!   at most one background unit, and long work meets one after every `N` of its own. Callers of its class wait until
//!   it ends. In law 2 it makes `M` a number of units instead of callers: each time one of the `M` goes on while others
//!   of them still wait adds one. So interactive work that may be long had better be submitted anew than yield.
//!
//! The laws are stated in units, so a wait in milliseconds is bounded only as well as a unit is: cutting work into
//! units is the planner's affair.
//!
//! # Giving up
//!
//! A caller leaves by its [`Cancel`] or at its deadline, and then at once: it takes no turn, and nobody waits for it. A time
//! slice that runs is never interrupted; at its end those who have given up leave the pass, and the last of them ends it.
//! A turn that was given and not yet begun is handed straight on, and has counted.
//!
//! # What lives here, and what does not
//!
//! `policy` and `batcher` decide, `queue` joins them; they know no thread and no clock, and are tested by random sequences
//! and on a clock of their own (`tests/simulation.rs`, `tests/batches.rs`). `scheduler` is the thin blocking shell around
//! them, `cancel` the handle by which callers give up, `sync` the locks and the clock both stand on. With the feature
//! `loom` these are the model checker's, which takes the threads through every order (`tests/model.rs`). Measuring and
//! catching panics is the worker's, which lives with the device; neither Burn nor an async runtime appears here.
#![forbid(unsafe_code)]

mod batcher;
mod cancel;
#[cfg(any(test, feature = "loom"))]
mod judge;
#[cfg(feature = "loom")]
pub mod model;
pub mod policy;
mod queue;
mod scheduler;
mod sync;

pub use batcher::{Candidate, Size, batch_mates};
pub use cancel::Cancel;
pub use policy::{Priority, SchedulerPolicy, Ticket};
pub use queue::{Ask, GaveUp, Gone, Queue, Refused, Taken};
pub use scheduler::{Scheduler, Turn, Waiting};
