//! One budget in bytes, shared by everything an engine holds beside its opened parts.
//!
//! Whoever brings an item in reserves, before anything of it is read, what the item takes at most from its first decoded
//! byte to its vector; the reservation shrinks when it is decoded and ends with its result. So the sum of what is alive
//! stays under the budget whatever the number of callers.
//!
//! Nobody waits for memory while holding some: a caller with items in hand asks for more without waiting
//! ([`Pool::try_reserve`]), computes what it has if there is none, and waits only with empty hands. So no two callers
//! can wait for each other.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use omniburn_scheduler::{Cancel, Priority};

use crate::error::ItemError;

/// The bytes that may be alive at once.
#[derive(Debug)]
pub(crate) struct Pool {
    /// As it was given.
    budget: u64,
    /// What may be reserved.
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Taken for as long as the engine lives: copies of weights.
    kept: u64,
    /// Reserved by interactive callers.
    interactive: u64,
    /// Reserved by background callers.
    background: u64,
    /// Given back since freed memory last went back to the system.
    released: u64,
    next_ticket: u64,
    waiting: [VecDeque<u64>; 2],
    /// Interactive reservations made while a background caller waited.
    passed: u32,
}

/// Of the whole, what background work leaves to queries, so that they seldom wait for memory.
const LEFT_TO_QUERIES: u64 = 4;
/// Of the whole, what may lie freed and not yet given back to the system.
const SLACK: u64 = 8;
/// Freed bytes after which the system has them back whatever the budget: it takes about a millisecond, and what lies freed
/// in many arenas is what makes a long-running process grow.
const MOST_RELEASED: u64 = 64 << 20;
/// Interactive reservations that may pass a waiting background caller.
const MOST_PASSED: u32 = 8;
/// What no reservation speaks for: stacks of threads that wake up, tables of tokenizer and decoders, packed blocks of
/// matrices, short texts being cut into tokens.
const BASE: u64 = 8 << 20;

/// The smallest budget under which `bytes` can be reserved.
pub(crate) fn budget_for(bytes: u64) -> u64 {
    BASE + bytes + bytes.saturating_sub(1) / (SLACK - 1)
}

/// How often a waiting caller looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(10);

impl Pool {
    /// A pool for a budget of so many bytes.
    pub(crate) fn new(budget: u64) -> Arc<Self> {
        let rest = budget.saturating_sub(BASE);
        Arc::new(Self { budget, total: rest - rest / SLACK, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Why a reservation can never be had; `None` where it can.
    pub(crate) fn refusal(&self, bytes: u64) -> Option<ItemError> {
        let kept = self.lock().kept;
        let never = kept + bytes > self.total;
        never.then(|| ItemError::OverBudget { needed: budget_for(kept + bytes), budget: self.budget })
    }

    /// Bytes kept for good and reserved now.
    pub(crate) fn in_use(&self) -> (u64, u64) {
        let state = self.lock();
        (state.kept, state.interactive + state.background)
    }

    /// Bytes for a caller that holds none, waiting for them as long as it takes.
    ///
    /// # Errors
    /// [`ItemError::OverBudget`] where they can never be had; [`ItemError::Cancelled`], [`ItemError::DeadlinePassed`].
    pub(crate) fn reserve(
        self: &Arc<Self>,
        priority: Priority,
        bytes: u64,
        cancel: Option<&Cancel>,
        deadline: Option<Instant>,
    ) -> Result<Reservation, ItemError> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting[class(priority)].push_back(ticket);
        loop {
            let first = state.waiting[class(priority)].front() == Some(&ticket);
            if first && self.allows(&state, priority, bytes) {
                state.waiting[class(priority)].pop_front();
                state.take(priority, bytes);
                self.changed.notify_all();
                return Ok(Reservation { pool: Arc::clone(self), priority, bytes });
            }
            let gave_up = match () {
                // Also while waiting: copies of weights may have taken what was there.
                () if state.kept + bytes > self.total => {
                    Some(ItemError::OverBudget { needed: budget_for(state.kept + bytes), budget: self.budget })
                }
                () if cancel.is_some_and(Cancel::is_cancelled) => Some(ItemError::Cancelled),
                () if deadline.is_some_and(|at| at <= Instant::now()) => Some(ItemError::DeadlinePassed),
                () => None,
            };
            if let Some(error) = gave_up {
                state.waiting[class(priority)].retain(|&t| t != ticket);
                self.changed.notify_all();
                return Err(error);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes without waiting, for a caller that already holds some; `None` where they are not free, or where somebody
    /// waits for them.
    pub(crate) fn try_reserve(self: &Arc<Self>, priority: Priority, bytes: u64) -> Option<Reservation> {
        let mut state = self.lock();
        let ahead = match priority {
            Priority::Interactive => !state.waiting[0].is_empty(),
            Priority::Background => state.waiting.iter().any(|queue| !queue.is_empty()),
        };
        if ahead || !self.allows(&state, priority, bytes) {
            return None;
        }
        state.take(priority, bytes);
        Some(Reservation { pool: Arc::clone(self), priority, bytes })
    }

    fn allows(&self, state: &State, priority: Priority, bytes: u64) -> bool {
        let used = state.kept + state.interactive + state.background;
        let fits = used + bytes <= self.total;
        let aged = state.passed >= MOST_PASSED && !state.waiting[1].is_empty();
        match priority {
            Priority::Interactive => fits && !aged,
            Priority::Background => {
                let first = aged || state.waiting[0].is_empty();
                let share = self.total.saturating_sub(state.kept);
                let leaves = state.background + bytes <= share - share / LEFT_TO_QUERIES;
                // An item that needs nearly everything has it when nobody else has anything.
                let alone = state.interactive + state.background == 0;
                first && fits && (leaves || alone)
            }
        }
    }

    fn release(&self, priority: Priority, bytes: u64) {
        let mut state = self.lock();
        *state.of(priority) -= bytes;
        state.released += bytes;
        let trim = state.released > (self.total / SLACK).min(MOST_RELEASED);
        if trim {
            state.released = 0;
        }
        drop(state);
        if trim {
            // Before anybody is notified of the free bytes: freed memory counts until the system has it back.
            omniburn_models::trim_memory();
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, priority: Priority) -> &mut u64 {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }

    fn take(&mut self, priority: Priority, bytes: u64) {
        *self.of(priority) += bytes;
        self.passed = match priority {
            Priority::Interactive if !self.waiting[1].is_empty() => self.passed.saturating_add(1),
            Priority::Interactive => self.passed,
            Priority::Background => 0,
        };
    }
}

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Background => 1,
    }
}

/// Bytes that are spoken for until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    pool: Arc<Pool>,
    priority: Priority,
    bytes: u64,
}

impl Reservation {
    /// The bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.pool.release(self.priority, self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Keeps the bytes for as long as the engine lives.
    pub(crate) fn keep(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = self.pool.lock();
        *state.of(self.priority) -= bytes;
        state.kept += bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pool.release(self.priority, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Background, Interactive};

    fn pool(bytes: u64) -> Arc<Pool> {
        Pool::new(budget_for(bytes))
    }

    #[test]
    fn the_budget_for_a_need_is_the_smallest_that_allows_it() {
        for bytes in [1, 7, 8, 9, 1000, 12_345, 1 << 30] {
            let budget = budget_for(bytes);
            assert!(Pool::new(budget).refusal(bytes).is_none(), "{bytes}");
            let Some(ItemError::OverBudget { needed, budget: given }) = Pool::new(budget - 1).refusal(bytes) else {
                panic!("{bytes} of {}", budget - 1)
            };
            assert_eq!((needed, given), (budget, budget - 1));
        }
        assert!(matches!(Pool::new(0).reserve(Interactive, 1, None, None), Err(ItemError::OverBudget { .. })));
    }

    #[test]
    fn background_leaves_a_share_to_queries_unless_it_is_alone() {
        let pool = pool(700);
        let first = pool.try_reserve(Background, 500).unwrap();
        assert!(pool.try_reserve(Background, 100).is_none(), "the last quarter is for queries");
        let query = pool.try_reserve(Interactive, 200).unwrap();
        assert!(pool.try_reserve(Interactive, 1).is_none());
        drop((first, query));
        assert!(pool.try_reserve(Background, 700).is_some(), "alone it may have everything");
        assert!(pool.try_reserve(Background, 701).is_none());
        assert_eq!(pool.in_use(), (0, 0));
    }

    #[test]
    fn what_is_kept_is_gone_for_good_and_what_is_shrunk_is_free_again() {
        let pool = pool(700);
        pool.try_reserve(Interactive, 300).unwrap().keep();
        assert_eq!(pool.in_use(), (300, 0));
        assert!(pool.refusal(400).is_none() && pool.refusal(401).is_some());
        let mut some = pool.try_reserve(Interactive, 400).unwrap();
        some.shrink(100);
        some.shrink(200);
        assert_eq!((some.bytes(), pool.in_use()), (100, (300, 100)));
        assert!(pool.try_reserve(Interactive, 300).is_some());
    }

    #[test]
    fn a_waiting_caller_is_served_when_bytes_come_free_and_gives_up_when_told() {
        let pool = pool(700);
        let all = pool.try_reserve(Interactive, 700).unwrap();
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pool.reserve(Background, 600, None, None).map(|r| r.bytes()));
            let cancelled = scope.spawn(|| pool.reserve(Interactive, 600, Some(&cancel), None).map(|r| r.bytes()));
            let soon = Instant::now() + Duration::from_millis(30);
            assert!(matches!(pool.reserve(Interactive, 600, None, Some(soon)), Err(ItemError::DeadlinePassed)));
            cancel.cancel();
            assert!(matches!(cancelled.join().unwrap(), Err(ItemError::Cancelled)));
            assert!(pool.try_reserve(Background, 1).is_none(), "nobody overtakes who waits");
            drop(all);
            assert_eq!(waiter.join().unwrap().unwrap(), 600);
        });
        assert_eq!(pool.in_use(), (0, 0));
    }

    #[test]
    fn many_callers_never_exceed_the_whole_and_all_are_served() {
        let pool = pool(1 << 20);
        std::thread::scope(|scope| {
            for caller in 0..6u64 {
                let pool = &pool;
                scope.spawn(move || {
                    let priority = if caller % 2 == 0 { Interactive } else { Background };
                    for round in 0..200u64 {
                        let bytes = (caller * 7919 + round * 104_729) % 900_000 + 1;
                        let held = pool.reserve(priority, bytes, None, None).unwrap();
                        let more = pool.try_reserve(priority, bytes / 2);
                        assert!(pool.in_use().1 <= 1 << 20);
                        drop((more, held));
                    }
                });
            }
        });
        assert_eq!(pool.in_use(), (0, 0));
    }
}
