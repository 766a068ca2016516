//! The blocking shell: threads that wait for the decision of `policy`, and the permit they get.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::PoisonError;
use std::time::Instant;

#[cfg(any(test, feature = "loom"))]
use crate::judge::Judge;
use crate::policy::{PolicyState, Ticket};
use crate::sync::{self, Bell, Mutex, MutexGuard, ThreadId};
use crate::{Cancel, Priority, SchedulerPolicy};

/// Serialises work on one device by [`Priority`]; shared as `Arc<Scheduler>`.
///
/// It is not re-entrant: a thread that holds the permit must not enter again. Nor may it wait, while it holds the
/// permit, for another thread that has yet to enter.
///
/// # Source
/// The gate of OmniKit (one lock, two classes, neither order nor aging), with order inside a class, aging, release on
/// panic and giving up added.
#[derive(Debug)]
pub struct Scheduler {
    shared: Mutex<Shared>,
}

/// What the mutex guards: the deciding state, and the threads behind its tickets.
#[derive(Debug)]
struct Shared {
    state: PolicyState,
    /// The thread of the ticket that holds the permit.
    holder_thread: Option<ThreadId>,
    /// The threads of the tickets that wait.
    sleepers: BTreeMap<Ticket, Sleeper>,
}

/// A thread that waits at the scheduler.
#[derive(Debug)]
struct Sleeper {
    thread: ThreadId,
    bell: Bell,
    cancel: Option<Cancel>,
    deadline: Option<Instant>,
}

/// Why a caller left the scheduler without a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GaveUp {
    /// Its [`Cancel`] was cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Deadline => "the deadline has passed",
        })
    }
}

impl Error for GaveUp {}

/// How long a caller is willing to wait.
#[derive(Clone, Copy)]
struct Patience<'caller> {
    cancel: Option<&'caller Cancel>,
    deadline: Option<Instant>,
}

impl Patience<'_> {
    fn check(self) -> Result<(), GaveUp> {
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(GaveUp::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| deadline <= sync::now()) {
            return Err(GaveUp::Deadline);
        }
        Ok(())
    }
}

impl Scheduler {
    /// An open scheduler with nobody waiting.
    pub fn new(policy: SchedulerPolicy) -> Self {
        Self {
            shared: Mutex::new(Shared {
                state: PolicyState::new(policy),
                holder_thread: None,
                sleepers: BTreeMap::new(),
            }),
        }
    }

    /// The permit to run one unit, waiting for it as long as it takes.
    ///
    /// # Panics
    /// When the calling thread already holds this scheduler's permit, since it would wait for itself.
    pub fn enter(&self, priority: Priority) -> Permit<'_> {
        self.enter_until(priority, None, None).expect("only a caller with a handle or a deadline gives up")
    }

    /// The permit to run one unit, or why the caller gave up before it had it.
    ///
    /// A caller that has given up is skipped without taking a turn: [`Cancel::cancel`] wakes it at once, and so does
    /// its deadline. At an open scheduler, too, a cancelled handle or a deadline that has passed is refused. If the permit
    /// was granted before and not yet picked up, it is handed straight on and has counted as a turn.
    ///
    /// # Errors
    /// [`GaveUp::Cancelled`] once `cancel` has been cancelled, [`GaveUp::Deadline`] once `deadline` has passed; the
    /// first where both hold.
    ///
    /// # Panics
    /// When the calling thread already holds this scheduler's permit, since it would wait for itself.
    pub fn enter_until(
        &self,
        priority: Priority,
        cancel: Option<&Cancel>,
        deadline: Option<Instant>,
    ) -> Result<Permit<'_>, GaveUp> {
        let patience = Patience { cancel, deadline };
        let mut shared = self.lock();
        let nested = shared.holder_thread == Some(sync::this_thread());
        if nested {
            drop(shared);
            panic!("the scheduler is not re-entrant: this thread already holds its permit");
        }
        patience.check()?;
        let ticket = shared.state.arrive(priority);
        if shared.state.holder() == Some(ticket) {
            shared.holder_thread = Some(sync::this_thread());
            return Ok(self.permit(ticket, priority));
        }
        let bell = shared.seat(ticket, patience);
        drop(shared);
        self.wait(ticket, priority, patience, &bell)
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
        shared.holder_thread = Some(sync::this_thread());
        Some(self.permit(ticket, priority))
    }

    /// The numbers of callers waiting now, `(interactive, background)`; the one that holds the permit is not counted.
    pub fn waiting(&self) -> (usize, usize) {
        self.lock().state.waiting()
    }

    /// Waits until a seated ticket holds the permit, or its caller gives up.
    fn wait(
        &self,
        ticket: Ticket,
        priority: Priority,
        patience: Patience<'_>,
        bell: &Bell,
    ) -> Result<Permit<'_>, GaveUp> {
        // On the list of the handle before the flag is read again below, so that no cancellation can be missed.
        let _listed = patience.cancel.map(|cancel| cancel.list(bell.clone()));
        loop {
            {
                let mut shared = self.lock();
                if shared.state.holder() == Some(ticket) {
                    drop(shared);
                    let permit = self.permit(ticket, priority);
                    return patience.check().map(|()| permit);
                }
                if let Err(gave_up) = patience.check() {
                    shared.forget(ticket);
                    return Err(gave_up);
                }
            }
            // A ring between the unlock and here is kept, so a wake-up cannot be lost.
            bell.wait(patience.deadline);
        }
    }

    fn permit(&self, ticket: Ticket, priority: Priority) -> Permit<'_> {
        Permit { scheduler: self, ticket, priority, stays_on_its_thread: PhantomData }
    }

    /// A panic cannot leave the state half changed, because no caller's code runs under the lock; so poison says
    /// nothing here.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "loom"))]
impl Scheduler {
    /// What happened at a scheduler that nobody uses any more, if it kept the laws.
    ///
    /// # Panics
    /// Where something was left behind, or a law was broken.
    pub fn judge(&self) -> Judge {
        let shared = self.lock();
        assert!(shared.sleepers.is_empty(), "a sleeper leaked");
        assert_eq!(shared.holder_thread, None, "a holder leaked");
        shared.state.assert_idle();
        shared.state.judge()
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(SchedulerPolicy::default())
    }
}

impl Shared {
    /// Has the calling thread sleep on a waiting ticket.
    fn seat(&mut self, ticket: Ticket, patience: Patience<'_>) -> Bell {
        let bell = Bell::of_this_thread();
        let sleeper = Sleeper {
            thread: sync::this_thread(),
            bell: bell.clone(),
            cancel: patience.cancel.cloned(),
            deadline: patience.deadline,
        };
        self.sleepers.insert(ticket, sleeper);
        bell
    }

    /// Takes a waiting ticket out; nothing where it has left already.
    fn forget(&mut self, ticket: Ticket) {
        self.state.give_up(ticket);
        self.sleepers.remove(&ticket);
    }

    /// Forgets those who have given up but are not yet awake to say so: they must not be given the turn.
    fn forget_the_gone(&mut self) {
        let gone = |sleeper: &Sleeper| {
            Patience { cancel: sleeper.cancel.as_ref(), deadline: sleeper.deadline }.check().is_err()
        };
        let gone: Vec<Ticket> =
            self.sleepers.iter().filter(|(_, sleeper)| gone(sleeper)).map(|(&ticket, _)| ticket).collect();
        for ticket in gone {
            self.forget(ticket);
        }
    }

    /// Ends the holder's turn and returns the bell of the thread whose turn comes.
    fn release(&mut self, ticket: Ticket) -> Option<Bell> {
        self.forget_the_gone();
        self.state.release(ticket);
        self.hand_over()
    }

    /// Takes the ticket that now holds the permit from among the sleepers, and returns the bell that wakes it.
    fn hand_over(&mut self) -> Option<Bell> {
        let next = self.state.holder().and_then(|next| self.sleepers.remove(&next));
        self.holder_thread = next.as_ref().map(|sleeper| sleeper.thread);
        next.map(|sleeper| sleeper.bell)
    }
}

/// The right to run one unit on the device; dropping it, also while unwinding, lets the next caller in.
///
/// It stays on the thread that entered, but may be borrowed by others.
#[must_use = "the permit is given back as soon as it is dropped"]
#[derive(Debug)]
pub struct Permit<'scheduler> {
    scheduler: &'scheduler Scheduler,
    ticket: Ticket,
    priority: Priority,
    /// A mutex guard may be borrowed by another thread but not moved to one, and so may this.
    stays_on_its_thread: PhantomData<std::sync::MutexGuard<'static, ()>>,
}

impl Permit<'_> {
    /// The class under which the permit was given.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Ends this unit and begins the next one of the same work: the permit again, or why the caller gave up.
    ///
    /// It lets in whoever has precedence and then goes on before the rest of its class, where an
    /// [`enter`](Scheduler::enter) would come last; where nobody has precedence it returns at once. Background work lets in
    /// interactive callers, interactive work only what aging lets by.
    ///
    /// # Errors
    /// As [`Scheduler::enter_until`]; the permit is then given back.
    pub fn yield_now(self, cancel: Option<&Cancel>, deadline: Option<Instant>) -> Result<Self, GaveUp> {
        let patience = Patience { cancel, deadline };
        patience.check()?;
        let (scheduler, ticket, priority) = (self.scheduler, self.ticket, self.priority);
        let mut shared = scheduler.lock();
        shared.forget_the_gone();
        shared.state.yield_now(ticket);
        if shared.state.holder() == Some(ticket) {
            drop(shared);
            return Ok(self);
        }
        // The turn has ended, so nothing is left to give back.
        mem::forget(self);
        let bell = shared.seat(ticket, patience);
        let next = shared.hand_over();
        drop(shared);
        if let Some(next) = next {
            next.ring();
        }
        scheduler.wait(ticket, priority, patience, &bell)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let next = self.scheduler.lock().release(self.ticket);
        if let Some(bell) = next {
            bell.ring();
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::judge::Event;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

    use Priority::{Background, Interactive};

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

    #[test]
    fn scheduler_and_handle_are_shared_between_threads_and_a_permit_is_lent() {
        fn shared<T: Send + Sync>() {}
        fn lent<T: Sync>() {}
        shared::<Scheduler>();
        shared::<Cancel>();
        lent::<Permit<'static>>();
    }

    #[test]
    fn a_query_waits_for_at_most_one_unit_of_eight_hammering_threads() {
        watched(|| {
            for every in [0, 1, 8] {
                let policy = SchedulerPolicy { background_every: every };
                let scheduler = Scheduler::new(policy);
                let (stop, inside) = (AtomicBool::new(false), AtomicUsize::new(0));
                // Work in two units, one after the other.
                let unit = |priority| {
                    let mut permit = scheduler.enter(priority);
                    for last in [false, true] {
                        assert_eq!(permit.priority(), priority);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two units at once");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if !last {
                            permit = permit.yield_now(None, None).expect("nothing makes it give up");
                        }
                    }
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
                scheduler.judge();
            }
        });
    }

    #[test]
    fn a_query_that_arrives_behind_a_background_unit_is_next_past_eight_waiters() {
        watched(|| {
            let policy = SchedulerPolicy::default();
            let scheduler = Scheduler::new(policy);
            let started = Mutex::new(Vec::new());
            let unit = |priority| {
                let _permit = scheduler.enter(priority);
                started.lock().unwrap().push(priority);
            };
            for _ in 0..20 {
                let running = scheduler.enter(Background);
                thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| unit(Background));
                    }
                    until(|| scheduler.waiting() == (0, 8));
                    scope.spawn(|| unit(Interactive));
                    until(|| scheduler.waiting() == (1, 8));
                    drop(running);
                });
                let started = std::mem::take(&mut *started.lock().unwrap());
                assert_eq!(started.len(), 9);
                assert_eq!(started[0], Interactive);
            }
            scheduler.judge();
        });
    }

    #[test]
    fn a_waiting_background_unit_passes_eight_queries_and_no_more() {
        watched(|| {
            let policy = SchedulerPolicy::default();
            let scheduler = Scheduler::new(policy);
            let started = Mutex::new(Vec::new());
            let unit = |priority| {
                let _permit = scheduler.enter(priority);
                started.lock().unwrap().push(priority);
            };
            let running = scheduler.enter(Interactive);
            thread::scope(|scope| {
                scope.spawn(|| unit(Background));
                for _ in 0..12 {
                    scope.spawn(|| unit(Interactive));
                }
                until(|| scheduler.waiting() == (12, 1));
                drop(running);
            });
            assert_eq!(started.lock().unwrap().iter().position(|&priority| priority == Background), Some(8));
            assert_eq!(scheduler.judge().aged_starts, 1);
        });
    }

    #[test]
    fn threads_of_one_class_are_served_in_order_of_arrival() {
        watched(|| {
            for priority in [Interactive, Background] {
                let scheduler = Scheduler::default();
                let served = Mutex::new(Vec::new());
                let running = scheduler.enter(priority);
                thread::scope(|scope| {
                    for place in 0..10 {
                        let (scheduler, served) = (&scheduler, &served);
                        scope.spawn(move || {
                            let _permit = scheduler.enter(priority);
                            served.lock().unwrap().push(place);
                        });
                        until(|| {
                            let (interactive, background) = scheduler.waiting();
                            interactive + background == place + 1
                        });
                    }
                    drop(running);
                });
                assert_eq!(*served.lock().unwrap(), (0..10).collect::<Vec<_>>());
                scheduler.judge();
            }
        });
    }

    #[test]
    fn a_unit_that_panics_gives_its_permit_back() {
        watched(|| {
            let scheduler = Scheduler::default();
            thread::scope(|scope| {
                let (waits, may_panic) = mpsc::channel();
                let (holds, is_held) = mpsc::channel();
                let panicking = scope.spawn({
                    let scheduler = &scheduler;
                    move || {
                        let _permit = scheduler.enter(Background);
                        holds.send(()).unwrap();
                        may_panic.recv().unwrap();
                        resume_unwind(Box::new("a unit failed"));
                    }
                });
                is_held.recv().unwrap();
                let next = scope.spawn(|| drop(scheduler.enter(Interactive)));
                until(|| scheduler.waiting() == (1, 0));
                waits.send(()).unwrap();
                assert!(panicking.join().is_err());
                next.join().expect("the next unit runs");
            });
            drop(scheduler.enter(Background));
            scheduler.judge();
        });
    }

    #[test]
    fn cancelling_wakes_a_waiter_while_the_permit_is_held() {
        watched(|| {
            let scheduler = Scheduler::default();
            let cancel = Cancel::new();
            let running = scheduler.enter(Background);
            thread::scope(|scope| {
                let waiters = [Interactive, Background, Interactive].map(|priority| {
                    scope.spawn({
                        let (scheduler, cancel) = (&scheduler, &cancel);
                        move || scheduler.enter_until(priority, Some(cancel), None).is_err()
                    })
                });
                until(|| scheduler.waiting() == (2, 1));
                cancel.cancel();
                for waiter in waiters {
                    assert!(waiter.join().expect("a cancelled waiter returns"));
                }
                assert_eq!(scheduler.waiting(), (0, 0));
            });
            assert_eq!(cancel.listed(), 0, "a thread stayed on the list of the handle");
            drop(running);
            scheduler.judge();
        });
    }

    #[test]
    fn a_caller_that_gave_up_takes_no_turn_even_before_it_wakes() {
        watched(|| {
            let scheduler = Scheduler::default();
            let cancel = Cancel::new();
            let running = scheduler.enter(Interactive);
            thread::scope(|scope| {
                let gone = scope.spawn(|| scheduler.enter_until(Interactive, Some(&cancel), None).is_err());
                until(|| scheduler.waiting() == (1, 0));
                let next = scope.spawn(|| drop(scheduler.enter(Background)));
                until(|| scheduler.waiting() == (1, 1));
                // The flag alone, without the wake-up that `cancel` sends: the thread still sleeps when its turn would
                // come.
                cancel.set();
                drop(running);
                next.join().expect("the next caller is let in");
                cancel.cancel();
                assert!(gone.join().expect("the caller that gave up returns"));
            });
            let journal = &scheduler.lock().state.journal.clone();
            assert!(journal.contains(&Event::GiveUp(Ticket(1))));
            assert!(!journal.contains(&Event::Start(Ticket(1))));
            scheduler.judge();
        });
    }

    #[test]
    fn a_permit_granted_to_a_caller_that_gave_up_before_it_woke_is_handed_on() {
        watched(|| {
            let scheduler = Scheduler::default();
            let cancel = Cancel::new();
            let running = scheduler.enter(Interactive);
            thread::scope(|scope| {
                let gone = scope.spawn(|| scheduler.enter_until(Interactive, Some(&cancel), None).is_err());
                until(|| scheduler.waiting() == (1, 0));
                let next = scope.spawn(|| drop(scheduler.enter(Background)));
                until(|| scheduler.waiting() == (1, 1));
                // The turn is given without the wake-up that a dropped permit sends; then the caller gives up.
                let granted = scheduler.lock().release(running.ticket);
                std::mem::forget(running);
                assert!(granted.is_some());
                assert_eq!(scheduler.lock().holder_thread, Some(gone.thread().id()));
                cancel.cancel();
                assert!(gone.join().expect("the caller that gave up returns"));
                next.join().expect("the next caller is let in");
            });
            scheduler.judge();
        });
    }

    #[test]
    fn a_cancelled_handle_is_refused_at_an_idle_device() {
        let scheduler = Scheduler::default();
        let cancel = Cancel::new();
        assert!(scheduler.enter_until(Interactive, Some(&cancel), None).is_ok());
        cancel.clone().cancel();
        assert!(cancel.is_cancelled());
        assert!(scheduler.enter_until(Interactive, Some(&cancel), None).is_err());
        assert!(scheduler.enter_until(Background, Some(&Cancel::new()), None).is_ok());
        scheduler.judge();
    }

    #[test]
    fn a_deadline_wakes_its_waiter_while_the_permit_is_held() {
        watched(|| {
            let scheduler = Scheduler::default();
            let cancel = Cancel::new();
            let running = scheduler.enter(Background);
            thread::scope(|scope| {
                let waiters = [(Interactive, 5), (Background, 1), (Interactive, 20)].map(|(priority, ms)| {
                    let (scheduler, cancel) = (&scheduler, &cancel);
                    scope.spawn(move || {
                        let deadline = Instant::now() + Duration::from_millis(ms);
                        let gave_up = scheduler.enter_until(priority, Some(cancel), Some(deadline)).err();
                        (gave_up, Instant::now().checked_duration_since(deadline))
                    })
                });
                for waiter in waiters {
                    let (gave_up, late) = waiter.join().expect("a waiter past its deadline returns");
                    assert_eq!(gave_up, Some(GaveUp::Deadline));
                    println!("left {:?} after its deadline", late.expect("it waits until its deadline"));
                }
                assert_eq!(scheduler.waiting(), (0, 0));
            });
            assert_eq!(cancel.listed(), 0, "a thread stayed on the list of the handle");
            drop(running);
            scheduler.judge();
        });
    }

    #[test]
    fn a_caller_past_its_deadline_takes_no_turn_even_before_it_wakes() {
        watched(|| {
            let scheduler = Scheduler::default();
            let running = scheduler.enter(Interactive);
            // A caller that has not woken: its place alone, with a deadline that has passed.
            let patience = Patience { cancel: None, deadline: Some(Instant::now()) };
            let gone = {
                let mut shared = scheduler.lock();
                let ticket = shared.state.arrive(Interactive);
                shared.seat(ticket, patience);
                ticket
            };
            thread::scope(|scope| {
                let next = scope.spawn(|| drop(scheduler.enter(Background)));
                until(|| scheduler.waiting() == (1, 1));
                drop(running);
                next.join().expect("the next caller is let in");
            });
            let journal = &scheduler.lock().state.journal.clone();
            assert!(journal.contains(&Event::GiveUp(gone)));
            assert!(!journal.contains(&Event::Start(gone)));
            scheduler.judge();
        });
    }

    #[test]
    fn a_deadline_that_has_passed_is_refused_at_an_idle_device_and_a_later_one_is_not() {
        let scheduler = Scheduler::default();
        let (now, cancel) = (Instant::now(), Cancel::new());
        assert_eq!(scheduler.enter_until(Interactive, None, Some(now)).err(), Some(GaveUp::Deadline));
        assert!(scheduler.enter_until(Interactive, Some(&cancel), Some(now + Duration::from_secs(3600))).is_ok());
        cancel.cancel();
        assert_eq!(scheduler.enter_until(Interactive, Some(&cancel), Some(now)).err(), Some(GaveUp::Cancelled));
        assert_eq!(GaveUp::Deadline.to_string(), "the deadline has passed");
        scheduler.judge();
    }

    #[test]
    fn a_waiter_with_a_late_deadline_gets_its_turn() {
        watched(|| {
            let scheduler = Scheduler::default();
            let running = scheduler.enter(Background);
            let deadline = Instant::now() + Duration::from_secs(3600);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| scheduler.enter_until(Interactive, None, Some(deadline)).is_ok());
                until(|| scheduler.waiting() == (1, 0));
                drop(running);
                assert!(waiter.join().expect("the waiter is let in"));
            });
            scheduler.judge();
        });
    }

    #[test]
    fn work_that_yields_lets_the_query_in_and_goes_on_before_other_background_work() {
        watched(|| {
            let scheduler = Scheduler::default();
            let order = Mutex::new(Vec::new());
            let running = scheduler.enter(Background);
            thread::scope(|scope| {
                for (name, priority) in [("other", Background), ("query", Interactive)] {
                    let (scheduler, order) = (&scheduler, &order);
                    scope.spawn(move || {
                        let _permit = scheduler.enter(priority);
                        order.lock().unwrap().push(name);
                    });
                }
                until(|| scheduler.waiting() == (1, 1));
                let running = running.yield_now(None, None).expect("nothing makes it give up");
                assert_eq!(running.priority(), Background);
                order.lock().unwrap().push("carved");
                assert_eq!(scheduler.waiting(), (0, 1));
                drop(running);
            });
            assert_eq!(*order.lock().unwrap(), ["query", "carved", "other"]);
            scheduler.judge();
        });
    }

    #[test]
    fn work_that_yields_goes_on_at_once_where_nobody_has_precedence() {
        for priority in [Interactive, Background] {
            let scheduler = Scheduler::default();
            let mut permit = scheduler.enter(priority);
            for _ in 0..3 {
                permit = permit.yield_now(None, None).expect("nothing makes it give up");
            }
            assert_eq!(scheduler.lock().holder_thread, Some(thread::current().id()));
            drop(permit);
            scheduler.judge();
        }
    }

    #[test]
    fn work_that_gives_up_as_it_yields_gives_its_permit_back() {
        watched(|| {
            let scheduler = Scheduler::default();
            let cancel = Cancel::new();
            cancel.cancel();
            let gave_up = scheduler.enter(Background).yield_now(Some(&cancel), None).err();
            assert_eq!(gave_up, Some(GaveUp::Cancelled));
            let gave_up = scheduler.enter(Interactive).yield_now(None, Some(Instant::now())).err();
            assert_eq!(gave_up, Some(GaveUp::Deadline));
            scheduler.judge();

            let cancel = Cancel::new();
            let running = scheduler.enter(Background);
            thread::scope(|scope| {
                let (holds, is_held) = mpsc::channel();
                let (done, may_end) = mpsc::channel::<()>();
                scope.spawn({
                    let scheduler = &scheduler;
                    move || {
                        let _permit = scheduler.enter(Interactive);
                        holds.send(()).unwrap();
                        may_end.recv().unwrap();
                    }
                });
                until(|| scheduler.waiting() == (1, 0));
                scope.spawn({
                    let cancel = &cancel;
                    move || {
                        is_held.recv().unwrap();
                        cancel.cancel();
                    }
                });
                // It waits behind a query that does not end, and leaves all the same.
                assert_eq!(running.yield_now(Some(&cancel), None).err(), Some(GaveUp::Cancelled));
                assert_eq!(scheduler.waiting(), (0, 0));
                done.send(()).unwrap();
            });
            assert_eq!(cancel.listed(), 0);
            scheduler.judge();
        });
    }

    #[test]
    fn cancelling_under_load_leaves_nothing_behind_and_keeps_the_laws() {
        watched(|| {
            let policy = SchedulerPolicy { background_every: 2 };
            let scheduler = Scheduler::new(policy);
            let (served, gave_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
            thread::scope(|scope| {
                for caller in 0..6 {
                    let (scheduler, served, gave_up) = (&scheduler, &served, &gave_up);
                    scope.spawn(move || {
                        let priority = if caller % 2 == 0 { Interactive } else { Background };
                        for _ in 0..100 {
                            let cancel = Cancel::new();
                            thread::scope(|inner| {
                                inner.spawn(|| cancel.cancel());
                                match scheduler.enter_until(priority, Some(&cancel), None) {
                                    Ok(_permit) => served.fetch_add(1, Ordering::SeqCst),
                                    Err(_) => gave_up.fetch_add(1, Ordering::SeqCst),
                                };
                            });
                            assert_eq!(cancel.listed(), 0);
                        }
                    });
                }
            });
            assert_eq!(served.into_inner() + gave_up.into_inner(), 600);
            scheduler.judge();
        });
    }

    #[test]
    fn entering_twice_on_one_thread_panics_with_the_invariant_and_harms_nothing() {
        watched(|| {
            let scheduler = Scheduler::default();
            let permit = scheduler.enter(Interactive);
            let nested = catch_unwind(AssertUnwindSafe(|| drop(scheduler.enter(Background))));
            let message =
                *nested.expect_err("it must not wait for itself").downcast::<&str>().expect("a plain message");
            assert!(message.contains("not re-entrant"), "{message}");
            assert!(scheduler.try_enter(Interactive).is_none());
            drop(permit);
            drop(scheduler.enter(Background));
            scheduler.judge();
        });
    }

    #[test]
    fn trying_takes_a_free_permit_and_never_waits() {
        let scheduler = Scheduler::default();
        let permit = scheduler.try_enter(Background).expect("the scheduler is open");
        thread::scope(|scope| {
            let other = scope.spawn(|| scheduler.try_enter(Interactive).is_none());
            assert!(other.join().expect("the other thread ends"));
        });
        drop(permit);
        assert!(scheduler.try_enter(Interactive).is_some());
        scheduler.judge();
    }
}
