//! The blocking shell: callers that submit and wait, and the one worker that takes turns for them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use crate::batcher::Size;
#[cfg(any(test, feature = "loom"))]
use crate::judge::Judge;
use crate::policy::{Priority, SchedulerPolicy, Ticket};
use crate::queue::{Ask, GaveUp, Gone, Queue, Refused, Taken};
use crate::sync::{self, Bell, Mutex, MutexGuard};

/// Requests of many threads for one device; shared as `Arc<Scheduler>`. `W` is what a caller gives, `R` what it gets.
///
/// A caller [submits](Self::submit) and [waits](Waiting::wait). One worker, which owns the device, takes [turns](Self::next),
/// ends each time slice by [`Turn::yield_now`] or [`Turn::finish`], and takes the next.
///
/// # Source
/// The gate of OmniKit (one lock, two classes, neither order nor aging), with order inside a class, aging, giving up, a
/// bound on what may wait and passes over callers added.
pub struct Scheduler<W, R> {
    shared: Mutex<Shared<W, R>>,
}

struct Shared<W, R> {
    queue: Queue<W>,
    /// Callers that have no answer yet, or have not fetched it.
    slots: BTreeMap<Ticket, Slot<R>>,
    /// The worker, where it sleeps.
    worker: Option<Bell>,
    closed: bool,
}

/// Where a caller finds its answer.
struct Slot<R> {
    /// The caller, where it sleeps.
    bell: Option<Bell>,
    answer: Option<Result<R, GaveUp>>,
}

impl<W, R> Scheduler<W, R> {
    /// An idle device, and nobody waiting.
    pub fn new(policy: SchedulerPolicy) -> Self {
        let shared = Shared { queue: Queue::new(policy), slots: BTreeMap::new(), worker: None, closed: false };
        Self { shared: Mutex::new(shared) }
    }

    /// Queues work, at once or not at all.
    ///
    /// # Errors
    /// [`Refused::Full`] where as many of its class wait as may; [`Refused::GaveUp`] where its handle is cancelled or its
    /// deadline has passed, and where the worker has ended.
    pub fn submit(&self, ask: Ask, work: W) -> Result<Waiting<'_, W, R>, Refused> {
        let waiting = ask.clone();
        let mut shared = self.lock();
        if shared.closed {
            return Err(Refused::GaveUp(GaveUp::Unanswered));
        }
        let submitted = shared.queue.submit(ask, work, sync::now());
        let left = shared.tell_the_gone();
        let worker = match &submitted {
            Ok(ticket) => {
                shared.slots.insert(*ticket, Slot { bell: None, answer: None });
                shared.worker.take()
            }
            Err(_) => None,
        };
        drop(shared);
        if let Some(worker) = worker {
            worker.ring();
        }
        // Callers' work is dropped outside the lock.
        drop(left);
        match submitted {
            Ok(ticket) => Ok(Waiting { scheduler: self, ticket, ask: waiting, waits: true }),
            Err((refused, _)) => Err(refused),
        }
    }

    /// The worker's next turn, waiting for one as long as it takes; `None` once closed. `fits` says whether a pass that
    /// begins with the head's work may be of a size; the head alone always may.
    ///
    /// The device is never idle while somebody waits: batch mates are whoever waits at this moment.
    ///
    /// # Panics
    /// When a turn is under way.
    pub fn next(&self, fits: impl Fn(&W, Priority, Size) -> bool) -> Option<Turn<'_, W, R>> {
        loop {
            let bell = {
                let mut shared = self.lock();
                if shared.closed {
                    return None;
                }
                let (taken, left) = shared.take(&fits);
                if taken.is_some() {
                    drop(shared);
                    drop(left);
                    return taken.map(|taken| self.turn(taken));
                }
                let bell = Bell::of_this_thread();
                shared.worker = Some(bell.clone());
                drop(shared);
                drop(left);
                bell
            };
            // A ring between the unlock and here is kept, so a wake-up cannot be lost.
            bell.wait(None);
        }
    }

    /// As [`next`](Self::next), without waiting.
    pub fn try_next(&self, fits: impl Fn(&W, Priority, Size) -> bool) -> Option<Turn<'_, W, R>> {
        let mut shared = self.lock();
        let (taken, left) = shared.take(&fits);
        drop(shared);
        drop(left);
        taken.map(|taken| self.turn(taken))
    }

    fn turn(&self, Taken { ticket: _, priority, begins, work }: Taken<W>) -> Turn<'_, W, R> {
        let (members, waits) = begins.into_iter().unzip();
        Turn { scheduler: self, priority, members, waits, work, over: false }
    }

    /// The numbers of requests that wait, `(interactive, background)`; what is computed at this moment is not counted.
    pub fn waiting(&self) -> (usize, usize) {
        self.lock().queue.waiting()
    }

    /// Ends it: the worker gets no more turns, and who waits leaves as [`GaveUp::Unanswered`].
    pub fn close(&self) {
        let mut shared = self.lock();
        shared.closed = true;
        let waiting: Vec<Ticket> = shared.slots.keys().copied().collect();
        let mut left = Vec::new();
        for ticket in waiting {
            left.extend(shared.queue.give_up(ticket));
            shared.answer(ticket, Err(GaveUp::Unanswered));
        }
        let worker = shared.worker.take();
        drop(shared);
        if let Some(worker) = worker {
            worker.ring();
        }
        drop(left);
    }

    /// A panic cannot leave the state half changed, because no caller's code runs under the lock but `fits`, and that
    /// before anything is changed; so poison says nothing here.
    fn lock(&self) -> MutexGuard<'_, Shared<W, R>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "loom"))]
impl<W, R> Scheduler<W, R> {
    /// What happened at a scheduler that nobody uses any more, if it kept the laws.
    ///
    /// # Panics
    /// Where something was left behind, or a law was broken.
    pub fn judge(&self) -> Judge {
        let shared = self.lock();
        assert!(shared.slots.is_empty(), "a slot leaked");
        shared.queue.judge()
    }
}

impl<W, R> Default for Scheduler<W, R> {
    fn default() -> Self {
        Self::new(SchedulerPolicy::default())
    }
}

impl<W, R> fmt::Debug for Scheduler<W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl<W, R> Shared<W, R> {
    /// The next turn, with the work of those who are gone.
    fn take(&mut self, fits: impl Fn(&W, Priority, Size) -> bool) -> (Option<Taken<W>>, Vec<Gone<W>>) {
        let taken = self.queue.take(sync::now(), fits);
        let left = self.tell_the_gone();
        (taken, left)
    }

    /// Gives a caller its answer, where it still wants one.
    fn answer(&mut self, ticket: Ticket, answer: Result<R, GaveUp>) {
        let Some(slot) = self.slots.get_mut(&ticket) else { return };
        if slot.answer.is_none() {
            slot.answer = Some(answer);
            if let Some(bell) = slot.bell.take() {
                bell.ring();
            }
        }
    }

    /// Tells those whom the queue has dropped. Their work comes back, to be dropped outside the lock.
    fn tell_the_gone(&mut self) -> Vec<Gone<W>> {
        let gone = self.queue.gone();
        for Gone { ticket, why, .. } in &gone {
            self.answer(*ticket, Err(*why));
        }
        gone
    }
}

/// A request that was queued. Dropped, it is given up.
#[must_use = "a request is given up as soon as this is dropped"]
pub struct Waiting<'scheduler, W, R> {
    scheduler: &'scheduler Scheduler<W, R>,
    ticket: Ticket,
    ask: Ask,
    waits: bool,
}

impl<W, R> Waiting<'_, W, R> {
    /// Waits for the answer.
    ///
    /// A caller that has given up leaves at once where its work is not being computed at the moment: its
    /// [`Cancel`](crate::Cancel) wakes it, and so does its deadline. Where it is, it leaves at the end of the time slice.
    ///
    /// # Errors
    /// [`GaveUp::Cancelled`] or [`GaveUp::Deadline`] where it has left; [`GaveUp::Unanswered`] where the worker ended.
    pub fn wait(mut self) -> Result<R, GaveUp> {
        let bell = Bell::of_this_thread();
        // On the list of the handle before the flag is read below, so that no cancellation can be missed.
        let cancel = self.ask.cancel.clone();
        let _listed = cancel.as_ref().map(|cancel| cancel.list(bell.clone()));
        loop {
            let deadline = {
                let mut shared = self.scheduler.lock();
                let slot = shared.slots.get_mut(&self.ticket).expect("a caller that waits has a slot");
                if let Some(answer) = slot.answer.take() {
                    shared.slots.remove(&self.ticket);
                    self.waits = false;
                    return answer;
                }
                slot.bell = Some(bell.clone());
                match self.ask.gave_up(sync::now()) {
                    None => self.ask.deadline,
                    Some(why) => match shared.queue.give_up(self.ticket) {
                        Some(work) => {
                            shared.slots.remove(&self.ticket);
                            self.waits = false;
                            drop(shared);
                            drop(work);
                            return Err(why);
                        }
                        // It is being computed: the end of the time slice is its end.
                        None => None,
                    },
                }
            };
            bell.wait(deadline);
        }
    }
}

impl<W, R> Drop for Waiting<'_, W, R> {
    fn drop(&mut self) {
        if self.waits {
            let mut shared = self.scheduler.lock();
            let work = shared.queue.give_up(self.ticket);
            // Where it is being computed, the answer finds nobody.
            let slot = shared.slots.remove(&self.ticket);
            drop(shared);
            drop((work, slot));
        }
    }
}

/// The worker's turn: a pass that begins or goes on. Dropped without an end, also while unwinding, it is over, and its
/// callers leave as [`GaveUp::Unanswered`].
#[must_use = "the turn is over as soon as this is dropped"]
pub struct Turn<'scheduler, W, R> {
    scheduler: &'scheduler Scheduler<W, R>,
    priority: Priority,
    members: Vec<Ticket>,
    waits: Vec<Duration>,
    work: Vec<W>,
    over: bool,
}

impl<W, R> Turn<'_, W, R> {
    /// The class.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The requests of a pass that begins, the head first: to be kept for [`finish`](Self::finish). None for one that goes
    /// on.
    pub fn members(&self) -> &[Ticket] {
        &self.members
    }

    /// How long each of them waited.
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// What each of them gave, or what the pass was parked with.
    pub fn take_work(&mut self) -> Vec<W> {
        std::mem::take(&mut self.work)
    }

    /// Whether an interactive request waits for the end of this time slice, of a background pass: a worker that can cut it
    /// earlier does. A pass that was let past interactive requests by aging keeps its whole time slice.
    pub fn is_awaited(&self) -> bool {
        self.scheduler.lock().queue.is_awaited()
    }

    /// Ends the time slice. The pass is parked with `work`, and goes on in a later turn, before the others of its class; or
    /// it ends here, where all its callers have given up.
    pub fn yield_now(mut self, work: Vec<W>) {
        self.over = true;
        let mut shared = self.scheduler.lock();
        shared.queue.yield_now(work, sync::now());
        let left = shared.tell_the_gone();
        drop(shared);
        drop(left);
    }

    /// Ends the pass with an answer for each of its requests. Those who have left get none; those without an answer leave as
    /// [`GaveUp::Unanswered`].
    pub fn finish(mut self, answers: Vec<(Ticket, R)>) {
        self.end(answers);
    }

    fn end(&mut self, answers: Vec<(Ticket, R)>) {
        self.over = true;
        let mut shared = self.scheduler.lock();
        let members = shared.queue.finish(sync::now());
        for (ticket, answer) in answers {
            shared.answer(ticket, Ok(answer));
        }
        for ticket in members {
            shared.answer(ticket, Err(GaveUp::Unanswered));
        }
        let left = shared.tell_the_gone();
        drop(shared);
        drop(left);
    }
}

impl<W, R> Drop for Turn<'_, W, R> {
    fn drop(&mut self) {
        if !self.over {
            self.end(Vec::new());
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use std::collections::HashMap;
    use std::panic::resume_unwind;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use Priority::{Background, Interactive};

    // Below: real threads. Nothing sleeps: what must come about is polled for.

    /// Callers give and get a number.
    type Numbers = Scheduler<usize, usize>;

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

    fn eight(_: &usize, _: Priority, size: Size) -> bool {
        size.rows <= 8
    }

    fn ask(priority: Priority, form: u64) -> Ask {
        Ask { size: Size { rows: 1, ..Size::default() }, form: Some(form), ..Ask::alone(priority) }
    }

    /// The worker's loop, every background pass in three time slices; how many requests each pass had.
    fn work(scheduler: &Numbers) -> Vec<usize> {
        let mut begun: HashMap<Vec<usize>, (Vec<Ticket>, usize)> = HashMap::new();
        let mut passes = Vec::new();
        while let Some(mut turn) = scheduler.next(eight) {
            let (numbers, members) = (turn.take_work(), turn.members().to_vec());
            if !members.is_empty() {
                assert_eq!(members.len(), numbers.len());
                passes.push(members.len());
                begun.insert(numbers.clone(), (members, 0));
            }
            let (members, slices) = begun.get_mut(&numbers).expect("what goes on has begun");
            *slices += 1;
            if turn.priority() == Background && *slices < 3 {
                turn.yield_now(numbers);
                continue;
            }
            let answers = members.iter().copied().zip(numbers.iter().map(|n| n + 1)).collect();
            begun.remove(&numbers);
            turn.finish(answers);
        }
        passes
    }

    /// Runs callers beside a worker, and gives its passes when they have ended.
    fn beside_a_worker(scheduler: &Numbers, callers: impl FnOnce()) -> Vec<usize> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| work(scheduler));
            callers();
            scheduler.close();
            worker.join().expect("the worker ends well")
        })
    }

    #[test]
    fn scheduler_and_handle_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Numbers>();
        shared::<Cancel>();
    }

    #[test]
    fn under_eight_background_threads_a_query_waits_for_at_most_one_time_slice() {
        watched(|| {
            for background_every in [0, 1, 8] {
                let scheduler = Numbers::new(SchedulerPolicy { background_every, ..SchedulerPolicy::default() });
                let stop = AtomicBool::new(false);
                let asked = |priority, n: usize| {
                    // Some share a pass and some do not.
                    let answer = scheduler.submit(ask(priority, n as u64 % 2), n).unwrap().wait();
                    assert_eq!(answer, Ok(n + 1));
                };
                beside_a_worker(&scheduler, || {
                    thread::scope(|scope| {
                        for thread in 0..8 {
                            let (asked, stop) = (&asked, &stop);
                            scope.spawn(move || {
                                // As long as there are queries, but not for ever where these never come by.
                                let units = (0..20_000).take_while(|_| !stop.load(Ordering::SeqCst));
                                units.for_each(|n| asked(Background, 100_000 * thread + n));
                            });
                        }
                        let queries: Vec<_> = (0..3)
                            .map(|thread| {
                                let asked = &asked;
                                scope.spawn(move || {
                                    (0..100).for_each(|n| asked(Interactive, 1_000_000 * (thread + 1) + n));
                                })
                            })
                            .collect();
                        for thread in queries {
                            thread.join().expect("a query thread ends well");
                        }
                        stop.store(true, Ordering::SeqCst);
                    });
                });
                // The judge counts the background units that each query waited for.
                let judge = scheduler.judge();
                assert!(judge.interactive_starts <= 300 && judge.interactive_starts >= 100);
            }
        });
    }

    #[test]
    fn sixteen_callers_of_one_form_are_few_passes_and_each_has_its_own_answer() {
        watched(|| {
            let scheduler = Numbers::default();
            let passes = thread::scope(|scope| {
                let callers: Vec<_> = (0..16)
                    .map(|n| {
                        let scheduler = &scheduler;
                        scope.spawn(move || scheduler.submit(ask(Interactive, 1), n).unwrap().wait())
                    })
                    .collect();
                until(|| scheduler.waiting() == (16, 0));
                let worker = scope.spawn(|| work(&scheduler));
                for (n, caller) in callers.into_iter().enumerate() {
                    assert_eq!(caller.join().unwrap(), Ok(n + 1));
                }
                scheduler.close();
                worker.join().unwrap()
            });
            assert_eq!(passes, [8, 8]);
            scheduler.judge();
        });
    }

    #[test]
    fn a_lone_request_begins_at_once() {
        watched(|| {
            let scheduler = Numbers::default();
            let passes = beside_a_worker(&scheduler, || {
                for n in 0..100 {
                    assert_eq!(scheduler.submit(ask(Interactive, 1), n).unwrap().wait(), Ok(n + 1));
                }
            });
            assert_eq!(passes, [1; 100]);
            scheduler.judge();
        });
    }

    #[test]
    fn a_deadline_wakes_its_caller_while_another_is_computed() {
        watched(|| {
            let scheduler = Numbers::default();
            let own = scheduler.submit(ask(Background, 1), 1).unwrap();
            let turn = scheduler.try_next(eight).unwrap();
            thread::scope(|scope| {
                let callers = [(Interactive, 5), (Background, 1), (Interactive, 20)].map(|(priority, ms)| {
                    let deadline = Some(Instant::now() + Duration::from_millis(ms));
                    let asked = Ask { deadline, ..ask(priority, 2) };
                    scope.spawn(|| match scheduler.submit(asked, 2) {
                        Ok(waiting) => waiting.wait(),
                        Err(Refused::GaveUp(why)) => Err(why),
                        Err(full) => panic!("{full}"),
                    })
                });
                for caller in callers {
                    assert_eq!(caller.join().unwrap(), Err(GaveUp::Deadline));
                }
            });
            assert_eq!(scheduler.waiting(), (0, 0));
            turn.finish(Vec::new());
            assert_eq!(own.wait(), Err(GaveUp::Unanswered));
            scheduler.judge();
        });
    }

    #[test]
    fn who_has_given_up_before_is_refused_and_costs_nothing() {
        let scheduler = Numbers::default();
        let (now, cancel) = (Instant::now(), Cancel::new());
        let refused = |ask: Ask| scheduler.submit(ask, 1).err();
        let late = Ask { deadline: Some(now), ..ask(Interactive, 1) };
        assert_eq!(refused(late.clone()), Some(Refused::GaveUp(GaveUp::Deadline)));
        cancel.cancel();
        assert_eq!(refused(Ask { cancel: Some(cancel), ..late }), Some(Refused::GaveUp(GaveUp::Cancelled)));
        assert_eq!(GaveUp::Deadline.to_string(), "the deadline has passed");
        assert!(scheduler.try_next(eight).is_none());
        scheduler.judge();
    }

    #[test]
    fn cancelling_under_load_leaves_nothing_behind_and_keeps_the_laws() {
        watched(|| {
            let scheduler = Numbers::new(SchedulerPolicy { background_every: 2, ..SchedulerPolicy::default() });
            let (served, gave_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
            beside_a_worker(&scheduler, || {
                thread::scope(|scope| {
                    for caller in 0..6 {
                        let (scheduler, served, gave_up) = (&scheduler, &served, &gave_up);
                        scope.spawn(move || {
                            let priority = [Interactive, Background][caller % 2];
                            for round in 0..100 {
                                let cancel = Cancel::new();
                                thread::scope(|inner| {
                                    inner.spawn(|| cancel.cancel());
                                    let asked = Ask { cancel: Some(cancel.clone()), ..ask(priority, round % 3) };
                                    let number = 1000 * caller + round as usize;
                                    let answer = scheduler.submit(asked, number).map(Waiting::wait);
                                    match answer {
                                        Ok(Ok(answer)) => {
                                            assert_eq!(answer, number + 1);
                                            served.fetch_add(1, Ordering::SeqCst)
                                        }
                                        _ => gave_up.fetch_add(1, Ordering::SeqCst),
                                    };
                                });
                                assert_eq!(cancel.listed(), 0);
                            }
                        });
                    }
                });
            });
            assert_eq!(served.into_inner() + gave_up.into_inner(), 600);
            scheduler.judge();
        });
    }
}
