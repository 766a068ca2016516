//! The gate: who may run on the device next.
//!
//! A backend runs one unit of work at a time and cannot be interrupted, so what a query waits for is decided here: one
//! [`Permit`] at a time, an interactive waiter before every background waiter, first come first served inside a class,
//! and aging, so that a long indexing job keeps moving under steady queries.
//!
//! # The two laws
//!
//! Write `N` for [`GatePolicy::background_every`].
//!
//! 1. **A query waits for at most one background unit, ever**: the unit that was running when it arrived, or one that
//!    was let past it by aging, never both. The reason is one comparison: when a background unit ends, every
//!    interactive caller then waiting has waited for it; until the last of them has had its turn, aging is off.
//! 2. **Background work is never starved.** Let `M` be the number of interactive callers that were waiting when the
//!    last background unit ended. Then at most `max(N, M)` interactive units start before the next background waiter
//!    does. Law 1 makes the `M` unavoidable, so no gate that keeps it can promise more. With at most `C` interactive
//!    callers at a time `M <= C`, and background gets at least one unit in every `max(N, C) + 1`; for `C <= N` that is
//!    one in `N + 1`. Only when queries alone exceed what the device can do does `M` grow, and the share shrinks with
//!    it; it never reaches zero.
//!
//! Both are stated in units, so a wait in milliseconds is bounded only as well as a unit is: cutting work into units is
//! the planner's affair.
//!
//! # What lives here, and what does not
//!
//! `GateState` decides; it knows no thread and no clock, and is tested by random sequences. [`Gate`] is the thin
//! blocking shell around it, [`Cancel`] the handle by which a caller gives up. Measuring waits and holds is the
//! meter's, catching a panicking unit the worker's; neither Burn nor an async runtime appears here.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};

/// The class of a unit of work: whether somebody is looking at a screen until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Somebody waits for the answer: passes every background waiter, except where aging lets one by.
    Interactive,
    /// A long job such as indexing: runs when no interactive caller waits, and by aging when they never stop.
    Background,
}

/// How the gate shares the device between the two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatePolicy {
    /// Interactive units that pass a waiting background unit before it may go ahead of those who have not yet waited
    /// for one. 8 by default; 0 lets background pass as often as the first law of the gate allows, and `u32::MAX` is in
    /// effect strict priority.
    pub background_every: u32,
}

impl Default for GatePolicy {
    fn default() -> Self {
        Self { background_every: 8 }
    }
}

/// Serialises work on one device by [`Priority`]; shared as `Arc<Gate>`.
///
/// It is not re-entrant: a thread that holds the permit must not enter again. Nor may it wait, while it holds the
/// permit, for another thread that has yet to enter.
///
/// # Source
/// The gate of OmniKit (one lock, two classes, neither order nor aging), with order inside a class, aging, release on
/// panic and giving up added.
#[derive(Debug)]
pub struct Gate {
    shared: Mutex<Shared>,
}

/// What the mutex guards: the deciding state, and the threads behind its tickets.
#[derive(Debug)]
struct Shared {
    state: GateState,
    /// The thread of the ticket that holds the permit.
    holder_thread: Option<ThreadId>,
    /// The threads of the tickets that wait.
    sleepers: BTreeMap<Ticket, Sleeper>,
}

/// A thread parked at the gate.
#[derive(Debug)]
struct Sleeper {
    thread: Thread,
    cancel: Option<Cancel>,
}

impl Gate {
    /// An open gate with nobody waiting.
    pub fn new(policy: GatePolicy) -> Self {
        Self {
            shared: Mutex::new(Shared {
                state: GateState::new(policy),
                holder_thread: None,
                sleepers: BTreeMap::new(),
            }),
        }
    }

    /// The permit to run one unit, waiting for it as long as it takes.
    ///
    /// # Panics
    /// When the calling thread already holds this gate's permit, since it would wait for itself.
    pub fn enter(&self, priority: Priority) -> Permit<'_> {
        self.wait(priority, None).expect("only a cancelled caller leaves the gate without a permit")
    }

    /// The permit to run one unit, or `None` once `cancel` has been cancelled.
    ///
    /// A caller that has given up is skipped without taking a turn, and [`Cancel::cancel`] wakes it at once. If the
    /// permit was granted before the cancellation and not yet picked up, it is handed straight on and has counted as a
    /// turn.
    ///
    /// # Panics
    /// When the calling thread already holds this gate's permit, since it would wait for itself.
    pub fn enter_cancellable(&self, priority: Priority, cancel: &Cancel) -> Option<Permit<'_>> {
        self.wait(priority, Some(cancel))
    }

    /// The permit if it is free at this moment, without waiting; `None` too for the thread that holds it already.
    ///
    /// It never overtakes: the permit is free only while nobody waits.
    pub fn try_enter(&self, priority: Priority) -> Option<Permit<'_>> {
        let mut shared = self.lock();
        if shared.state.holder().is_some() {
            return None;
        }
        let ticket = shared.state.arrive(priority);
        shared.holder_thread = Some(thread::current().id());
        Some(self.permit(ticket, priority))
    }

    /// The numbers of callers waiting now, `(interactive, background)`; the one that holds the permit is not counted.
    pub fn waiting(&self) -> (usize, usize) {
        self.lock().state.waiting()
    }

    fn wait(&self, priority: Priority, cancel: Option<&Cancel>) -> Option<Permit<'_>> {
        let gave_up = || cancel.is_some_and(Cancel::is_cancelled);
        let this_thread = thread::current();
        let ticket = {
            let mut shared = self.lock();
            let nested = shared.holder_thread == Some(this_thread.id());
            if nested {
                drop(shared);
                panic!("the gate is not re-entrant: this thread already holds its permit");
            }
            if gave_up() {
                return None;
            }
            let ticket = shared.state.arrive(priority);
            if shared.state.holder() == Some(ticket) {
                shared.holder_thread = Some(this_thread.id());
                return Some(self.permit(ticket, priority));
            }
            let sleeper = Sleeper { thread: this_thread.clone(), cancel: cancel.cloned() };
            shared.sleepers.insert(ticket, sleeper);
            ticket
        };
        // On the list of the handle before the flag is read again below, so that no cancellation can be missed.
        let _listed = cancel.map(|cancel| cancel.list(this_thread));
        loop {
            {
                let mut shared = self.lock();
                if shared.state.holder() == Some(ticket) {
                    drop(shared);
                    let permit = self.permit(ticket, priority);
                    return (!gave_up()).then_some(permit);
                }
                if gave_up() {
                    shared.forget(ticket);
                    return None;
                }
            }
            // An unpark between the unlock and here is kept by the thread, so a wake-up cannot be lost.
            thread::park();
        }
    }

    fn permit(&self, ticket: Ticket, priority: Priority) -> Permit<'_> {
        Permit { gate: self, ticket, priority, stays_on_its_thread: PhantomData }
    }

    /// A panic cannot leave the state half changed, because no caller's code runs under the lock; so poison says
    /// nothing here.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(GatePolicy::default())
    }
}

impl Shared {
    /// Takes a waiting ticket out; nothing where it has left already.
    fn forget(&mut self, ticket: Ticket) {
        self.state.give_up(ticket);
        self.sleepers.remove(&ticket);
    }

    /// Ends the holder's turn and returns the thread whose turn comes.
    fn release(&mut self, ticket: Ticket) -> Option<Thread> {
        // Those who have given up but are not yet awake to say so: they must not be given the turn.
        let gone: Vec<Ticket> = self
            .sleepers
            .iter()
            .filter(|(_, sleeper)| sleeper.cancel.as_ref().is_some_and(Cancel::is_cancelled))
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in gone {
            self.forget(ticket);
        }
        self.state.release(ticket);
        let next = self.state.holder().and_then(|next| self.sleepers.remove(&next));
        self.holder_thread = next.as_ref().map(|sleeper| sleeper.thread.id());
        next.map(|sleeper| sleeper.thread)
    }
}

/// The right to run one unit on the device; dropping it, also while unwinding, lets the next caller in.
///
/// It stays on the thread that entered, but may be borrowed by others.
#[must_use = "the permit is given back as soon as it is dropped"]
#[derive(Debug)]
pub struct Permit<'gate> {
    gate: &'gate Gate,
    ticket: Ticket,
    priority: Priority,
    /// A mutex guard may be borrowed by another thread but not moved to one, and so may this.
    stays_on_its_thread: PhantomData<MutexGuard<'static, ()>>,
}

impl Permit<'_> {
    /// The class under which the permit was given.
    pub fn priority(&self) -> Priority {
        self.priority
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let next = self.gate.lock().release(self.ticket);
        if let Some(thread) = next {
            thread.unpark();
        }
    }
}

/// A handle by which a caller gives up a long call; clones share one flag, which never goes back.
///
/// A caller that waits at a [`Gate`] with it wakes at once; work under way looks at
/// [`is_cancelled`](Self::is_cancelled) between its units, since a running unit cannot be interrupted.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    inner: Arc<CancelInner>,
}

#[derive(Debug, Default)]
struct CancelInner {
    cancelled: AtomicBool,
    /// Threads to wake; each waits at no more than one gate.
    listed: Mutex<Vec<Thread>>,
}

impl Cancel {
    /// A handle that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up: sets the flag for every clone and wakes those who wait with it. A second call changes nothing.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        for thread in self.lock().iter() {
            thread.unpark();
        }
    }

    /// Whether [`cancel`](Self::cancel) was called on this handle or a clone of it.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// Has `thread` woken by `cancel` until the result is dropped.
    fn list(&self, thread: Thread) -> Listed<'_> {
        let id = thread.id();
        self.lock().push(thread);
        Listed { cancel: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.inner.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes its thread off the list again.
struct Listed<'cancel> {
    cancel: &'cancel Cancel,
    id: ThreadId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut listed = self.cancel.lock();
        if let Some(place) = listed.iter().position(|thread| thread.id() == self.id) {
            listed.swap_remove(place);
        }
    }
}

/// One arrival at the gate; a later arrival has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket(u64);

/// The decision alone: who holds the permit and who comes next. No thread, no clock.
///
/// The permit is free only while nobody waits, so each change ends with the permit in the right hands.
#[derive(Debug)]
struct GateState {
    policy: GatePolicy,
    next_ticket: u64,
    holder: Option<(Ticket, Priority)>,
    /// Waiting, in order of arrival.
    interactive: VecDeque<Ticket>,
    /// Waiting, in order of arrival.
    background: VecDeque<Ticket>,
    /// Interactive units started while a background one waited, since the last background start; 0 while none waits.
    passed: u32,
    /// What `next_ticket` was when the last background unit ended: an interactive waiter with a lower ticket has waited
    /// for a background unit, one with this ticket or a higher has not.
    owed_below: Ticket,
    #[cfg(test)]
    journal: Vec<tests::Event>,
}

impl GateState {
    fn new(policy: GatePolicy) -> Self {
        Self {
            policy,
            next_ticket: 0,
            holder: None,
            interactive: VecDeque::new(),
            background: VecDeque::new(),
            passed: 0,
            owed_below: Ticket(0),
            #[cfg(test)]
            journal: Vec::new(),
        }
    }

    /// Joins the end of its class, or takes the permit where it is free.
    fn arrive(&mut self, priority: Priority) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        #[cfg(test)]
        self.journal.push(tests::Event::Arrive(ticket, priority));
        match priority {
            Priority::Interactive => self.interactive.push_back(ticket),
            Priority::Background => self.background.push_back(ticket),
        }
        self.grant();
        ticket
    }

    /// Takes a ticket out of its queue; nothing where it does not wait.
    fn give_up(&mut self, ticket: Ticket) {
        for queue in [&mut self.interactive, &mut self.background] {
            if let Ok(place) = queue.binary_search(&ticket) {
                queue.remove(place);
                #[cfg(test)]
                self.journal.push(tests::Event::GiveUp(ticket));
            }
        }
        if self.background.is_empty() {
            self.passed = 0;
        }
    }

    /// Ends the turn of the holder and begins the next one.
    fn release(&mut self, ticket: Ticket) {
        let (holder, priority) = self.holder.take().expect("a permit that is given back was held");
        assert_eq!(holder, ticket, "the permit is given back by its holder");
        #[cfg(test)]
        self.journal.push(tests::Event::Release(ticket));
        if priority == Priority::Background {
            self.owed_below = Ticket(self.next_ticket);
        }
        self.grant();
    }

    /// Gives a free permit to whoever comes next.
    fn grant(&mut self) {
        if self.holder.is_some() {
            return;
        }
        let granted = if self.background_comes_next() {
            self.passed = 0;
            self.background.pop_front().map(|ticket| (ticket, Priority::Background))
        } else {
            if !self.background.is_empty() {
                self.passed = self.passed.saturating_add(1);
            }
            self.interactive.pop_front().map(|ticket| (ticket, Priority::Interactive))
        };
        #[cfg(test)]
        self.journal.extend(granted.map(|(ticket, _)| tests::Event::Start(ticket)));
        self.holder = granted;
    }

    fn background_comes_next(&self) -> bool {
        // Tickets are in order, so where the first has not waited for a background unit, none has.
        let none_is_owed = self.interactive.front().is_none_or(|&first| first >= self.owed_below);
        let aged = self.passed >= self.policy.background_every;
        !self.background.is_empty() && (self.interactive.is_empty() || (aged && none_is_owed))
    }

    fn holder(&self) -> Option<Ticket> {
        self.holder.map(|(ticket, _)| ticket)
    }

    fn waiting(&self) -> (usize, usize) {
        (self.interactive.len(), self.background.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::Duration;

    use Priority::{Background, Interactive};

    /// What happened at the gate, in order, written under its lock.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) enum Event {
        Arrive(Ticket, Priority),
        Start(Ticket),
        Release(Ticket),
        GiveUp(Ticket),
    }

    /// The laws of the gate, judged from a journal alone: it counts, for every interactive waiter, the background units
    /// that it has waited for, where the gate only compares tickets.
    #[derive(Default)]
    struct Judge {
        every: usize,
        /// Waiting, with the background units each has waited for.
        interactive: Vec<(Ticket, usize)>,
        background: Vec<Ticket>,
        running: Option<(Ticket, Priority)>,
        /// Interactive units started past the waiting background units, as the policy counts them.
        passed: usize,
        /// Interactive units started since the first background waiter came to the head of its queue.
        past_the_head: usize,
        /// The interactive waiters that had already waited for a background unit when that count began.
        owed: usize,
        /// The longest run of interactive units past a head, in units.
        longest: usize,
        background_starts: usize,
        aged_starts: usize,
    }

    impl Judge {
        fn of(policy: GatePolicy, journal: &[Event]) -> Self {
            let mut judge = Self { every: policy.background_every as usize, ..Self::default() };
            for &event in journal {
                match event {
                    Event::Arrive(ticket, priority) => judge.arrive(ticket, priority),
                    Event::Start(ticket) => judge.start(ticket),
                    Event::Release(ticket) => judge.release(ticket),
                    Event::GiveUp(ticket) => judge.give_up(ticket),
                }
            }
            judge
        }

        fn owed_now(&self) -> usize {
            self.interactive.iter().filter(|(_, waited)| *waited > 0).count()
        }

        fn new_head(&mut self) {
            self.past_the_head = 0;
            self.owed = self.owed_now();
        }

        fn arrive(&mut self, ticket: Ticket, priority: Priority) {
            if self.running.is_none() {
                assert!(self.interactive.is_empty(), "the permit lay idle before an interactive waiter");
                assert!(self.background.is_empty(), "the permit lay idle before a background waiter");
            }
            match priority {
                Interactive => {
                    let behind_one = matches!(self.running, Some((_, Background)));
                    self.interactive.push((ticket, usize::from(behind_one)));
                }
                Background => {
                    self.background.push(ticket);
                    if self.background.len() == 1 {
                        self.new_head();
                    }
                }
            }
        }

        fn start(&mut self, ticket: Ticket) {
            assert_eq!(self.running, None, "two permits at once");
            let owed_now = self.owed_now();
            if self.background.first() == Some(&ticket) {
                self.background.remove(0);
                if !self.interactive.is_empty() {
                    assert!(self.passed >= self.every, "a background unit passed before its time");
                    assert_eq!(owed_now, 0, "a query was made to wait for a second background unit");
                    self.aged_starts += 1;
                }
                for (_, waited) in &mut self.interactive {
                    *waited += 1;
                }
                self.passed = 0;
                self.background_starts += 1;
                self.new_head();
                self.running = Some((ticket, Background));
            } else {
                let (first, waited) = self.interactive.remove(0);
                assert_eq!(first, ticket, "not first come first served");
                assert!(waited <= 1, "an interactive unit waited for {waited} background units");
                if !self.background.is_empty() {
                    assert!(self.passed < self.every || owed_now > 0, "a background unit was passed over in its time");
                    self.passed += 1;
                    self.past_the_head += 1;
                    self.longest = self.longest.max(self.past_the_head);
                    assert!(
                        self.past_the_head <= self.every.max(self.owed),
                        "{} interactive units went ahead of a background waiter, {} allowed",
                        self.past_the_head,
                        self.every.max(self.owed)
                    );
                }
                self.running = Some((ticket, Interactive));
            }
        }

        fn release(&mut self, ticket: Ticket) {
            let (running, priority) = self.running.take().expect("a release without a holder");
            assert_eq!(running, ticket, "released by another");
            if priority == Background {
                self.owed = self.owed_now();
                assert_eq!(
                    self.owed,
                    self.interactive.len(),
                    "whoever waits when a background unit ends waited for it"
                );
            }
        }

        fn give_up(&mut self, ticket: Ticket) {
            let before = self.interactive.len() + self.background.len();
            let was_head = self.background.first() == Some(&ticket);
            self.interactive.retain(|(waiting, _)| *waiting != ticket);
            self.background.retain(|waiting| *waiting != ticket);
            assert_eq!(self.interactive.len() + self.background.len() + 1, before, "gave up without waiting");
            if was_head {
                self.new_head();
            }
            if self.background.is_empty() {
                self.passed = 0;
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive(Priority),
        Release,
        /// One of those waiting, by a number taken modulo how many there are.
        GiveUp(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Arrivals outnumber releases in some runs and not in others, so that queues grow, shrink and empty.
        let weights = (1u32..6, 1u32..6, 1u32..8, 1u32..4);
        weights.prop_flat_map(|(interactive, background, release, give_up)| {
            let step = prop_oneof![
                interactive => Just(Step::Arrive(Interactive)),
                background => Just(Step::Arrive(Background)),
                release => Just(Step::Release),
                give_up - 1 => any::<usize>().prop_map(Step::GiveUp),
            ];
            proptest::collection::vec(step, 0..400)
        })
    }

    fn take(state: &mut GateState, step: Step) {
        match step {
            Step::Arrive(priority) => {
                state.arrive(priority);
            }
            Step::Release => {
                if let Some(holder) = state.holder() {
                    state.release(holder);
                }
            }
            Step::GiveUp(n) => {
                let waiting: Vec<Ticket> = state.interactive.iter().chain(&state.background).copied().collect();
                if !waiting.is_empty() {
                    state.give_up(waiting[n % waiting.len()]);
                }
            }
        }
    }

    fn assert_idle(state: &GateState) {
        assert_eq!(state.holder, None);
        assert_eq!(state.waiting(), (0, 0));
        assert_eq!(state.passed, 0);
    }

    proptest! {
        #[test]
        fn every_random_sequence_keeps_the_laws(every in 0u32..7, steps in steps()) {
            let policy = GatePolicy { background_every: every };
            let mut state = GateState::new(policy);
            for &step in &steps {
                take(&mut state, step);
                prop_assert!(state.holder().is_some() || state.waiting() == (0, 0));
            }
            let judge = Judge::of(policy, &state.journal);
            prop_assert_eq!((judge.interactive.len(), judge.background.len()), state.waiting());
        }

        #[test]
        fn nobody_waits_for_ever_once_arrivals_stop(every in 0u32..7, steps in steps()) {
            let policy = GatePolicy { background_every: every };
            let mut state = GateState::new(policy);
            for &step in &steps {
                take(&mut state, step);
            }
            let (interactive, background) = state.waiting();
            let left = interactive + background + usize::from(state.holder().is_some());
            for _ in 0..left {
                take(&mut state, Step::Release);
            }
            assert_idle(&state);
            Judge::of(policy, &state.journal);
        }

        #[test]
        fn nothing_is_left_of_those_who_gave_up(
            every in 0u32..7,
            steps in steps(),
            order in any::<usize>(),
        ) {
            let policy = GatePolicy { background_every: every };
            let mut state = GateState::new(policy);
            for &step in &steps {
                take(&mut state, step);
            }
            while state.waiting() != (0, 0) {
                take(&mut state, Step::GiveUp(order));
            }
            take(&mut state, Step::Release);
            assert_idle(&state);
            Judge::of(policy, &state.journal);
        }

        #[test]
        fn giving_up_twice_or_while_running_changes_nothing(
            priority in prop_oneof![Just(Interactive), Just(Background)],
        ) {
            let mut state = GateState::new(GatePolicy::default());
            let running = state.arrive(priority);
            let waiting = state.arrive(priority);
            state.give_up(running);
            prop_assert_eq!(state.holder(), Some(running));
            state.give_up(waiting);
            state.give_up(waiting);
            prop_assert_eq!(state.waiting(), (0, 0));
            Judge::of(GatePolicy::default(), &state.journal);
        }
    }

    /// Runs `units` units with `callers` interactive callers that come back as soon as they are served and background
    /// work without end.
    fn closed_loop(policy: GatePolicy, callers: usize, units: usize) -> Judge {
        let mut state = GateState::new(policy);
        let first = state.arrive(Background);
        state.arrive(Background);
        for _ in 0..callers {
            state.arrive(Interactive);
        }
        assert_eq!(state.holder(), Some(first));
        for _ in 0..units {
            let (ticket, priority) = state.holder.expect("somebody always waits");
            state.release(ticket);
            state.arrive(priority);
        }
        Judge::of(policy, &state.journal)
    }

    #[test]
    fn background_gets_one_unit_in_every_max_of_policy_and_callers_plus_one() {
        for every in 0..12usize {
            let policy = GatePolicy { background_every: every as u32 };
            for callers in 0..12usize {
                let judge = closed_loop(policy, callers, 1000);
                // One caller alone is away when its unit ends, and then nobody is passed.
                let longest = if callers < 2 { callers } else { every.max(callers) };
                assert_eq!(judge.longest, longest, "every {every}, callers {callers}");
                let share = 1000 / (longest + 1);
                assert!(judge.background_starts >= share, "{} of {share}", judge.background_starts);
                assert!(judge.background_starts <= share + 2, "{} of {share}", judge.background_starts);
            }
        }
    }

    #[test]
    fn background_moves_even_while_queries_outrun_the_device() {
        // Two arrivals a unit: the queue only grows, and the gap grows with it, but each gap ends.
        let policy = GatePolicy { background_every: 4 };
        let mut state = GateState::new(policy);
        state.arrive(Interactive);
        state.arrive(Background);
        for _ in 0..2000 {
            state.arrive(Interactive);
            state.arrive(Interactive);
            let (ticket, priority) = state.holder.expect("the queue only grows");
            state.release(ticket);
            if priority == Background {
                state.arrive(Background);
            }
        }
        let judge = Judge::of(policy, &state.journal);
        assert!(judge.aged_starts >= 6, "{} background units in 2000", judge.aged_starts);
    }

    #[test]
    fn a_background_unit_running_at_arrival_is_the_only_one_a_query_waits_for() {
        let mut state = GateState::new(GatePolicy { background_every: 0 });
        let running = state.arrive(Background);
        let second = state.arrive(Background);
        let query = state.arrive(Interactive);
        state.release(running);
        assert_eq!(state.holder(), Some(query));
        // A query that comes now has waited for none, so the policy of 0 lets the second background unit by.
        let later = state.arrive(Interactive);
        state.release(query);
        assert_eq!(state.holder(), Some(second));
        state.release(second);
        assert_eq!(state.holder(), Some(later));
    }

    #[test]
    fn aging_waits_for_the_last_query_that_has_waited_already() {
        let mut state = GateState::new(GatePolicy { background_every: 1 });
        let running = state.arrive(Background);
        let queries: Vec<Ticket> = (0..3).map(|_| state.arrive(Interactive)).collect();
        let aged = state.arrive(Background);
        state.release(running);
        state.arrive(Interactive);
        for query in queries {
            assert_eq!(state.holder(), Some(query));
            state.release(query);
        }
        assert_eq!(state.holder(), Some(aged));
    }

    #[test]
    fn the_default_lets_one_background_unit_by_after_eight() {
        let mut state = GateState::new(GatePolicy::default());
        let mut running = state.arrive(Interactive);
        let aged = state.arrive(Background);
        for _ in 0..8 {
            let next = state.arrive(Interactive);
            state.arrive(Interactive);
            state.release(running);
            running = state.holder().expect("queries wait");
            assert_ne!(running, aged);
            assert!(running <= next);
        }
        state.release(running);
        assert_eq!(state.holder(), Some(aged));
    }

    // Below: real threads. Nothing sleeps: what must come about is polled for.

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    /// Runs a test of threads, and fails it where they wait for each other for ever.
    fn watched(test: impl FnOnce() + Send + 'static) {
        let (ends, ended) = mpsc::channel::<()>();
        let test = thread::spawn(move || {
            let _ends = ends;
            test();
        });
        let end = ended.recv_timeout(Duration::from_secs(60));
        assert_ne!(end, Err(mpsc::RecvTimeoutError::Timeout), "the threads hang");
        if let Err(panic) = test.join() {
            resume_unwind(panic);
        }
    }

    fn judge(gate: &Gate, policy: GatePolicy) -> Judge {
        let shared = gate.lock();
        assert!(shared.sleepers.is_empty(), "a sleeper leaked");
        assert_eq!(shared.holder_thread, None, "a holder leaked");
        assert_idle(&shared.state);
        Judge::of(policy, &shared.state.journal)
    }

    #[test]
    fn gate_and_handle_are_shared_between_threads_and_a_permit_is_lent() {
        fn shared<T: Send + Sync>() {}
        fn lent<T: Sync>() {}
        shared::<Gate>();
        shared::<Cancel>();
        lent::<Permit<'static>>();
    }

    #[test]
    fn a_query_waits_for_at_most_one_unit_of_eight_hammering_threads() {
        watched(|| {
            for every in [0, 1, 8] {
                let policy = GatePolicy { background_every: every };
                let gate = Gate::new(policy);
                let (stop, inside) = (AtomicBool::new(false), AtomicUsize::new(0));
                let unit = |priority| {
                    let permit = gate.enter(priority);
                    assert_eq!(permit.priority(), priority);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two units at once");
                    inside.fetch_sub(1, Ordering::SeqCst);
                };
                thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| {
                            // As long as there are queries, but not for ever where these never come by.
                            let units = (0..20_000).take_while(|_| !stop.load(Ordering::SeqCst));
                            units.for_each(|_| unit(Background));
                        });
                    }
                    let queries: Vec<_> =
                        (0..3).map(|_| scope.spawn(|| (0..100).for_each(|_| unit(Interactive)))).collect();
                    for thread in queries {
                        thread.join().expect("a query thread ends well");
                    }
                    stop.store(true, Ordering::SeqCst);
                });
                judge(&gate, policy);
            }
        });
    }

    #[test]
    fn a_query_that_arrives_behind_a_background_unit_is_next_past_eight_waiters() {
        watched(|| {
            let policy = GatePolicy::default();
            let gate = Gate::new(policy);
            let started = Mutex::new(Vec::new());
            let unit = |priority| {
                let _permit = gate.enter(priority);
                started.lock().unwrap().push(priority);
            };
            for _ in 0..20 {
                let running = gate.enter(Background);
                thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| unit(Background));
                    }
                    until(|| gate.waiting() == (0, 8));
                    scope.spawn(|| unit(Interactive));
                    until(|| gate.waiting() == (1, 8));
                    drop(running);
                });
                let started = std::mem::take(&mut *started.lock().unwrap());
                assert_eq!(started.len(), 9);
                assert_eq!(started[0], Interactive);
            }
            judge(&gate, policy);
        });
    }

    #[test]
    fn a_waiting_background_unit_passes_eight_queries_and_no_more() {
        watched(|| {
            let policy = GatePolicy::default();
            let gate = Gate::new(policy);
            let started = Mutex::new(Vec::new());
            let unit = |priority| {
                let _permit = gate.enter(priority);
                started.lock().unwrap().push(priority);
            };
            let running = gate.enter(Interactive);
            thread::scope(|scope| {
                scope.spawn(|| unit(Background));
                for _ in 0..12 {
                    scope.spawn(|| unit(Interactive));
                }
                until(|| gate.waiting() == (12, 1));
                drop(running);
            });
            assert_eq!(started.lock().unwrap().iter().position(|&priority| priority == Background), Some(8));
            assert_eq!(judge(&gate, policy).aged_starts, 1);
        });
    }

    #[test]
    fn threads_of_one_class_are_served_in_order_of_arrival() {
        watched(|| {
            for priority in [Interactive, Background] {
                let gate = Gate::default();
                let served = Mutex::new(Vec::new());
                let running = gate.enter(priority);
                thread::scope(|scope| {
                    for place in 0..10 {
                        let (gate, served) = (&gate, &served);
                        scope.spawn(move || {
                            let _permit = gate.enter(priority);
                            served.lock().unwrap().push(place);
                        });
                        until(|| {
                            let (interactive, background) = gate.waiting();
                            interactive + background == place + 1
                        });
                    }
                    drop(running);
                });
                assert_eq!(*served.lock().unwrap(), (0..10).collect::<Vec<_>>());
                judge(&gate, GatePolicy::default());
            }
        });
    }

    #[test]
    fn a_unit_that_panics_gives_its_permit_back() {
        watched(|| {
            let gate = Gate::default();
            thread::scope(|scope| {
                let (waits, may_panic) = mpsc::channel();
                let (holds, is_held) = mpsc::channel();
                let panicking = scope.spawn({
                    let gate = &gate;
                    move || {
                        let _permit = gate.enter(Background);
                        holds.send(()).unwrap();
                        may_panic.recv().unwrap();
                        resume_unwind(Box::new("a unit failed"));
                    }
                });
                is_held.recv().unwrap();
                let next = scope.spawn(|| drop(gate.enter(Interactive)));
                until(|| gate.waiting() == (1, 0));
                waits.send(()).unwrap();
                assert!(panicking.join().is_err());
                next.join().expect("the next unit runs");
            });
            drop(gate.enter(Background));
            judge(&gate, GatePolicy::default());
        });
    }

    #[test]
    fn cancelling_wakes_a_waiter_while_the_permit_is_held() {
        watched(|| {
            let gate = Gate::default();
            let cancel = Cancel::new();
            let running = gate.enter(Background);
            thread::scope(|scope| {
                let waiters = [Interactive, Background, Interactive].map(|priority| {
                    scope.spawn({
                        let (gate, cancel) = (&gate, &cancel);
                        move || gate.enter_cancellable(priority, cancel).is_none()
                    })
                });
                until(|| gate.waiting() == (2, 1));
                cancel.cancel();
                for waiter in waiters {
                    assert!(waiter.join().expect("a cancelled waiter returns"));
                }
                assert_eq!(gate.waiting(), (0, 0));
            });
            assert!(cancel.lock().is_empty(), "a thread stayed on the list of the handle");
            drop(running);
            judge(&gate, GatePolicy::default());
        });
    }

    #[test]
    fn a_caller_that_gave_up_takes_no_turn_even_before_it_wakes() {
        watched(|| {
            let gate = Gate::default();
            let cancel = Cancel::new();
            let running = gate.enter(Interactive);
            thread::scope(|scope| {
                let gone = scope.spawn(|| gate.enter_cancellable(Interactive, &cancel).is_none());
                until(|| gate.waiting() == (1, 0));
                let next = scope.spawn(|| drop(gate.enter(Background)));
                until(|| gate.waiting() == (1, 1));
                // The flag alone, without the wake-up that `cancel` sends: the thread still sleeps when its turn would
                // come.
                cancel.inner.cancelled.store(true, Ordering::SeqCst);
                drop(running);
                next.join().expect("the next caller is let in");
                cancel.cancel();
                assert!(gone.join().expect("the caller that gave up returns"));
            });
            let journal = &gate.lock().state.journal.clone();
            assert!(journal.contains(&Event::GiveUp(Ticket(1))));
            assert!(!journal.contains(&Event::Start(Ticket(1))));
            judge(&gate, GatePolicy::default());
        });
    }

    #[test]
    fn a_permit_granted_to_a_caller_that_gave_up_before_it_woke_is_handed_on() {
        watched(|| {
            let gate = Gate::default();
            let cancel = Cancel::new();
            let running = gate.enter(Interactive);
            thread::scope(|scope| {
                let gone = scope.spawn(|| gate.enter_cancellable(Interactive, &cancel).is_none());
                until(|| gate.waiting() == (1, 0));
                let next = scope.spawn(|| drop(gate.enter(Background)));
                until(|| gate.waiting() == (1, 1));
                // The turn is given without the wake-up that a dropped permit sends; then the caller gives up.
                let granted = gate.lock().release(running.ticket);
                std::mem::forget(running);
                assert_eq!(granted.map(|thread| thread.id()), Some(gone.thread().id()));
                cancel.cancel();
                assert!(gone.join().expect("the caller that gave up returns"));
                next.join().expect("the next caller is let in");
            });
            judge(&gate, GatePolicy::default());
        });
    }

    #[test]
    fn a_cancelled_handle_is_refused_at_an_open_gate() {
        let gate = Gate::default();
        let cancel = Cancel::new();
        assert!(gate.enter_cancellable(Interactive, &cancel).is_some());
        cancel.clone().cancel();
        assert!(cancel.is_cancelled());
        assert!(gate.enter_cancellable(Interactive, &cancel).is_none());
        assert!(gate.enter_cancellable(Background, &Cancel::new()).is_some());
        judge(&gate, GatePolicy::default());
    }

    #[test]
    fn cancelling_under_load_leaves_nothing_behind_and_keeps_the_laws() {
        watched(|| {
            let policy = GatePolicy { background_every: 2 };
            let gate = Gate::new(policy);
            let (served, gave_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
            thread::scope(|scope| {
                for caller in 0..6 {
                    let (gate, served, gave_up) = (&gate, &served, &gave_up);
                    scope.spawn(move || {
                        let priority = if caller % 2 == 0 { Interactive } else { Background };
                        for _ in 0..100 {
                            let cancel = Cancel::new();
                            thread::scope(|inner| {
                                inner.spawn(|| cancel.cancel());
                                match gate.enter_cancellable(priority, &cancel) {
                                    Some(_permit) => served.fetch_add(1, Ordering::SeqCst),
                                    None => gave_up.fetch_add(1, Ordering::SeqCst),
                                };
                            });
                            assert!(cancel.lock().is_empty());
                        }
                    });
                }
            });
            assert_eq!(served.into_inner() + gave_up.into_inner(), 600);
            judge(&gate, policy);
        });
    }

    #[test]
    fn entering_twice_on_one_thread_panics_with_the_invariant_and_harms_nothing() {
        watched(|| {
            let gate = Gate::default();
            let permit = gate.enter(Interactive);
            let nested = catch_unwind(AssertUnwindSafe(|| drop(gate.enter(Background))));
            let message =
                *nested.expect_err("it must not wait for itself").downcast::<&str>().expect("a plain message");
            assert!(message.contains("not re-entrant"), "{message}");
            assert!(gate.try_enter(Interactive).is_none());
            drop(permit);
            drop(gate.enter(Background));
            judge(&gate, GatePolicy::default());
        });
    }

    #[test]
    fn trying_takes_a_free_permit_and_never_waits() {
        let gate = Gate::default();
        let permit = gate.try_enter(Background).expect("the gate is open");
        thread::scope(|scope| {
            let other = scope.spawn(|| gate.try_enter(Interactive).is_none());
            assert!(other.join().expect("the other thread ends"));
        });
        drop(permit);
        assert!(gate.try_enter(Interactive).is_some());
        judge(&gate, GatePolicy::default());
    }
}
