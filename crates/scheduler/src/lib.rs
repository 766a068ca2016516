//! The scheduler: who may run on the device next.
//!
//! A backend runs one unit of work at a time and cannot be interrupted, so what a query waits for is decided here: one
//! [`Permit`] at a time, an interactive waiter before every background waiter, first come first served inside a class,
//! and aging, so that a long indexing job keeps moving under steady queries.
//!
//! # The two laws
//!
//! Write `N` for [`SchedulerPolicy::background_every`].
//!
//! 1. **A query waits for at most one background unit, ever**: the unit that was running when it arrived, or one that
//!    was let past it by aging, never both. The reason is one comparison: when a background unit ends, every
//!    interactive caller then waiting has waited for it; until the last of them has had its turn, aging is off.
//! 2. **Background work is never starved.** Let `M` be the number of interactive callers that were waiting when the
//!    last background unit ended. Then at most `max(N, M)` interactive units start before the next background waiter
//!    does. Law 1 makes the `M` unavoidable, so no scheduler that keeps it can promise more. With at most `C` interactive
//!    callers at a time `M <= C`, and background gets at least one unit in every `max(N, C) + 1`; for `C <= N` that is
//!    one in `N + 1`. Only when queries alone exceed what the device can do does `M` grow, and the share shrinks with
//!    it; it never reaches zero.
//!
//! # Work in several units
//!
//! [`Permit::yield_now`] ends a unit and asks for the next one of the same work, which then stands first in its class. Each
//! unit counts for itself under both laws.
//!
//! - Background work carved between layers lets queries in at every cut, and no other background work before its end.
//!   A query waits for what is left of one time slice, not of the work. The share of law 2 is the share of the class; inside
//!   the class, work is finished before the next begins.
//! - Interactive work is overtaken at a cut by background work only where aging lets it by, so each of its units waits for
//!   at most one background unit, and long work meets one after every `N` of its own. Callers of its class wait until
//!   it ends. In law 2 it makes `M` a number of units instead of callers: each time one of the `M` goes on while others
//!   of them still wait adds one. So interactive work that may be long had better enter anew than yield.
//!
//! The laws are stated in units, so a wait in milliseconds is bounded only as well as a unit is: cutting work into
//! units is the planner's affair.
//!
//! # Giving up
//!
//! A caller leaves by its [`Cancel`] or at its deadline, and then at once: it takes no turn, and nobody waits for it.
//! A unit that runs is never interrupted. Where the permit was granted before and not yet picked up, it is handed
//! straight on and has counted as a turn.
//!
//! # What lives here, and what does not
//!
//! `policy` decides; it knows no thread and no clock, and is tested by random sequences and on a clock of its own
//! (`tests/simulation.rs`). `scheduler` is the thin blocking shell around it, `cancel` the handle by which callers give up,
//! `sync` the locks and the clock both stand on. With the feature `loom` these are the model checker's, which takes the
//! threads through every order (`tests/model.rs`). Measuring waits and time slices is the metrics', catching a panicking unit
//! the worker's; neither Burn nor an async runtime appears here.
#![forbid(unsafe_code)]

mod cancel;
#[cfg(any(test, feature = "loom"))]
mod judge;
#[cfg(feature = "loom")]
pub mod model;
pub mod policy;
mod scheduler;
mod sync;

pub use cancel::Cancel;
pub use policy::{Priority, SchedulerPolicy};
pub use scheduler::{GaveUp, Permit, Scheduler};
