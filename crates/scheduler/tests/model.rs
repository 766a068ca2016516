//! The scheduler's state and its shell, model-checked: each scenario runs in every order that its threads can take, and each
//! ends with the judge's verdict on the laws and with nothing left behind.
//!
//! `cargo test -p omniburn-scheduler --features loom --test model --release`
//!
//! That the check can fail is shown by `cargo xtask mistakes`: it builds the crate with one mistake of `tests/mistakes.txt` at
//! a time, and a scenario has to find it.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::thread::{JoinHandle, spawn};
use omniburn_scheduler::model::{self, Judge};
use omniburn_scheduler::{Ask, Cancel, GaveUp, Priority, Refused, Scheduler, SchedulerPolicy, Size, Ticket, Turn};

use Priority::{Background, Interactive};

const SECOND: Duration = Duration::from_secs(1);

/// What callers give and get: their name.
type Name = u32;

/// A scheduler, and the device behind it, which knows when two turns use it at once or one does not see the other's work.
/// The main thread is its worker.
#[derive(Clone)]
struct Shop {
    scheduler: Rc<Scheduler<Name, Name>>,
    device: Rc<UnsafeCell<()>>,
}

fn any(_: &Name, _: Priority, _: Size) -> bool {
    true
}

impl Shop {
    fn new(background_every: u32) -> Self {
        Self::with(SchedulerPolicy { background_every, ..SchedulerPolicy::default() })
    }

    fn with(policy: SchedulerPolicy) -> Self {
        Self { scheduler: Rc::new(Scheduler::new(policy)), device: Rc::new(UnsafeCell::new(())) }
    }

    /// A caller's whole errand. Its answer is its own.
    fn ask(&self, name: Name, ask: Ask) -> Result<(), GaveUp> {
        match self.scheduler.submit(ask, name) {
            Ok(waiting) => waiting.wait().map(|answer| assert_eq!(answer, name, "somebody else's answer")),
            Err(Refused::GaveUp(why)) => Err(why),
            Err(full) => panic!("{full}"),
        }
    }

    fn caller(&self, name: Name, ask: Ask) -> JoinHandle<Result<(), GaveUp>> {
        let shop = self.clone();
        spawn(move || shop.ask(name, ask))
    }

    /// The worker's next turn, which is there.
    fn turn(&self) -> Turn<'_, Name, Name> {
        self.scheduler.next(any).expect("it is not closed")
    }

    /// Computes a turn to its end; whom it answered.
    fn compute(&self, mut turn: Turn<'_, Name, Name>) -> Vec<Name> {
        let names = turn.take_work();
        self.device.with_mut(|_| ());
        let answers: Vec<(Ticket, Name)> = turn.members().iter().copied().zip(names.iter().copied()).collect();
        assert_eq!(answers.len(), names.len());
        turn.finish(answers);
        names
    }

    /// Computes turns until so many callers have their answers.
    fn serve(&self, count: usize) -> usize {
        let (mut answered, mut turns) = (0, 0);
        while answered < count {
            answered += self.compute(self.turn()).len();
            turns += 1;
        }
        assert_eq!(answered, count);
        turns
    }

    /// Computes turns until this caller has its answer.
    fn serve_until(&self, name: Name) {
        while !self.compute(self.turn()).contains(&name) {}
    }

    /// The verdict, once nobody was found to wait.
    fn closed(&self) -> Judge {
        assert!(self.scheduler.try_next(any).is_none(), "somebody was left");
        assert_eq!(self.scheduler.waiting(), (0, 0));
        self.scheduler.judge()
    }
}

fn alone(priority: Priority) -> Ask {
    Ask::alone(priority)
}

fn shared(priority: Priority) -> Ask {
    Ask { form: Some(7), ..Ask::alone(priority) }
}

fn cancelled_by(cancel: &Cancel, ask: Ask) -> Ask {
    Ask { cancel: Some(cancel.clone()), ..ask }
}

fn until(deadline: Instant, ask: Ask) -> Ask {
    Ask { deadline: Some(deadline), ..ask }
}

fn all_served<const N: usize>(callers: [JoinHandle<Result<(), GaveUp>>; N]) {
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Ok(()));
    }
}

/// Runs a scenario in every order of its threads; with `preemptions`, in every order with no more of them than that.
fn check(name: &str, preemptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    static ORDERS: AtomicUsize = AtomicUsize::new(0);
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ORDERS.store(0, Ordering::SeqCst);
    let begun = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(move || {
        ORDERS.fetch_add(1, Ordering::SeqCst);
        scenario();
    });
    let bound = preemptions.map_or_else(|| "all of them".into(), |n| format!("all with up to {n} preemptions"));
    println!("{name}: {} orders, {bound}, {:.1} s", ORDERS.load(Ordering::SeqCst), begun.elapsed().as_secs_f32());
}

/// So that the figures of one scenario are its own.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

macro_rules! scenarios {
    ($($(#[$meta:meta])* $name:ident($preemptions:expr) $body:block)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            check(stringify!($name), $preemptions, || $body);
        }
    )*};
}

scenarios! {
    three_callers_of_two_classes_are_all_served(Some(2)) {
        let shop = Shop::new(1);
        let callers = [(2, Background), (3, Interactive)].map(|(n, class)| shop.caller(n, alone(class)));
        let own = shop.scheduler.submit(alone(Interactive), 1).unwrap();
        assert_eq!(shop.serve(3), 3);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (2, 1));
    }

    three_queries_are_served_in_order_of_arrival(Some(3)) {
        let shop = Shop::new(1);
        let own = shop.scheduler.submit(alone(Interactive), 1).unwrap();
        let running = shop.turn();
        let callers = [2, 3].map(|n| shop.caller(n, alone(Interactive)));
        shop.compute(running);
        shop.serve(2);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        assert_eq!(shop.closed().interactive_starts, 3);
    }

    aging_makes_no_query_wait_for_a_second_background_unit(Some(3)) {
        let shop = Shop::new(0);
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let callers = [(2, Interactive), (3, Background)].map(|(n, class)| shop.caller(n, alone(class)));
        shop.compute(running);
        shop.serve(2);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        shop.closed();
    }

    a_turn_that_panics_ends_and_its_caller_is_told(Some(3)) {
        let shop = Shop::new(1);
        let lost = shop.caller(1, alone(Interactive));
        let turn = shop.turn();
        let next = shop.caller(2, alone(Background));
        let unit = std::panic::AssertUnwindSafe(move || {
            let _turn = turn;
            // Without the hook, which would print a trace for every order.
            std::panic::resume_unwind(Box::new("a unit failed"));
        });
        assert!(std::panic::catch_unwind(unit).is_err());
        assert_eq!(lost.join().unwrap(), Err(GaveUp::Unanswered));
        shop.serve(1);
        all_served([next]);
        shop.closed();
    }

    a_cancelled_caller_leaves_while_another_is_computed(None) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let caller = shop.caller(2, cancelled_by(&cancel, alone(Interactive)));
        cancel.cancel();
        assert_eq!(caller.join().unwrap(), Err(GaveUp::Cancelled));
        assert_eq!(cancel.listed(), 0);
        assert_eq!(shop.scheduler.waiting(), (0, 0));
        shop.compute(running);
        assert_eq!(own.wait(), Ok(1));
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    two_callers_with_one_handle_both_leave(Some(3)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let callers = [(2, Interactive), (3, Background)]
            .map(|(n, class)| shop.caller(n, cancelled_by(&cancel, alone(class))));
        cancel.cancel();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Err(GaveUp::Cancelled));
        }
        assert_eq!(cancel.listed(), 0);
        shop.compute(running);
        assert_eq!(own.wait(), Ok(1));
        shop.closed();
    }

    who_is_cancelled_before_its_turn_takes_none(None) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let caller = shop.caller(2, cancelled_by(&cancel, alone(Interactive)));
        cancel.cancel();
        shop.compute(running);
        assert!(shop.scheduler.try_next(any).is_none(), "it was given a turn");
        assert_eq!(caller.join().unwrap(), Err(GaveUp::Cancelled));
        assert_eq!(own.wait(), Ok(1));
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    /// Before it asks, while it waits, as it is given the turn, while it is computed, after.
    a_cancellation_at_any_moment_leaves_nothing(Some(2)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let caller = shop.caller(1, cancelled_by(&cancel, alone(Interactive)));
        let next = shop.caller(2, alone(Interactive));
        let canceller = spawn({
            let cancel = cancel.clone();
            move || cancel.cancel()
        });
        shop.serve_until(2);
        canceller.join().unwrap();
        // It was computed, or leaves by itself.
        let served = caller.join().unwrap().is_ok();
        all_served([next]);
        assert_eq!(cancel.listed(), 0);
        assert!(shop.closed().interactive_starts > usize::from(served));
    }

    who_gives_up_while_it_is_computed_leaves_at_the_end_of_the_time_slice(Some(3)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let computing = Rc::new(AtomicBool::new(false));
        let caller = spawn({
            let (shop, cancel, computing) = (shop.clone(), cancel.clone(), Rc::clone(&computing));
            move || {
                let answer = shop.ask(1, cancelled_by(&cancel, alone(Interactive)));
                assert!(!computing.load(Ordering::SeqCst), "it left while it was computed");
                answer
            }
        });
        let turn = shop.turn();
        computing.store(true, Ordering::SeqCst);
        cancel.cancel();
        computing.store(false, Ordering::SeqCst);
        shop.compute(turn);
        assert_eq!(caller.join().unwrap(), Ok(()));
        shop.closed();
    }

    a_caller_past_its_deadline_leaves_while_another_is_computed(None) {
        let shop = Shop::new(1);
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let caller = shop.caller(2, until(model::now() + SECOND, alone(Interactive)));
        model::advance(SECOND);
        assert_eq!(caller.join().unwrap(), Err(GaveUp::Deadline));
        assert_eq!(shop.scheduler.waiting(), (0, 0));
        shop.compute(running);
        assert_eq!(own.wait(), Ok(1));
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    who_is_past_its_deadline_before_its_turn_takes_none(None) {
        let shop = Shop::new(1);
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let running = shop.turn();
        let caller = shop.caller(2, until(model::now() + SECOND, alone(Interactive)));
        model::advance(SECOND);
        shop.compute(running);
        assert!(shop.scheduler.try_next(any).is_none(), "it was given a turn");
        assert_eq!(caller.join().unwrap(), Err(GaveUp::Deadline));
        assert_eq!(own.wait(), Ok(1));
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    a_deadline_that_does_not_come_is_no_hindrance(None) {
        let shop = Shop::new(1);
        let caller = shop.caller(1, until(model::now() + 2 * SECOND, alone(Interactive)));
        model::advance(SECOND);
        shop.serve(1);
        all_served([caller]);
        assert_eq!(shop.closed().interactive_starts, 1);
    }

    a_deadline_at_any_moment_leaves_nothing(Some(2)) {
        let shop = Shop::new(1);
        let caller = shop.caller(1, until(model::now() + SECOND, alone(Interactive)));
        let next = shop.caller(2, alone(Interactive));
        let clock = spawn(|| model::advance(SECOND));
        shop.serve_until(2);
        clock.join().unwrap();
        let served = caller.join().unwrap().is_ok();
        all_served([next]);
        assert!(shop.closed().interactive_starts > usize::from(served));
    }

    work_that_yields_lets_the_query_in_and_no_background_work(Some(3)) {
        let shop = Shop::new(8);
        let own = shop.scheduler.submit(alone(Background), 1).unwrap();
        let mut turn = shop.turn();
        let ticket = turn.members()[0];
        let callers = [(2, Interactive), (3, Background)].map(|(n, class)| shop.caller(n, alone(class)));
        let work = turn.take_work();
        turn.yield_now(work);
        // The query, where it is there by now, and then the rest of what has begun.
        let mut answered = 0;
        loop {
            let turn = shop.turn();
            if turn.members().is_empty() {
                turn.finish(vec![(ticket, 1)]);
                break;
            }
            assert_eq!(shop.compute(turn), [2], "background work went between");
            answered += 1;
        }
        shop.serve(2 - answered);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (1, 3));
    }

    a_query_that_yields_lets_in_only_what_aging_lets_by(Some(3)) {
        let shop = Shop::new(0);
        let own = shop.scheduler.submit(alone(Interactive), 1).unwrap();
        let mut turn = shop.turn();
        let ticket = turn.members()[0];
        let callers = [(2, Interactive), (3, Background)].map(|(n, class)| shop.caller(n, alone(class)));
        let work = turn.take_work();
        turn.yield_now(work);
        let mut answered = 0;
        loop {
            let turn = shop.turn();
            if turn.members().is_empty() {
                turn.finish(vec![(ticket, 1)]);
                break;
            }
            assert_eq!(shop.compute(turn), [3], "its own class went between");
            answered += 1;
        }
        shop.serve(2 - answered);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        shop.closed();
    }

    /// The caller leaves at once while its work is parked, and at the end of the time slice while it is computed.
    a_cancellation_of_work_in_slices_leaves_nothing(Some(2)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let caller = shop.caller(1, cancelled_by(&cancel, alone(Background)));
        let query = shop.caller(2, alone(Interactive));
        let canceller = spawn({
            let cancel = cancel.clone();
            move || cancel.cancel()
        });
        let mut begun = None;
        loop {
            let mut turn = shop.turn();
            match (turn.members().first().copied(), turn.priority()) {
                (_, Interactive) => {
                    shop.compute(turn);
                    break;
                }
                (Some(ticket), Background) => {
                    begun = Some(ticket);
                    let work = turn.take_work();
                    turn.yield_now(work);
                }
                (None, Background) => {
                    turn.finish(vec![(begun.expect("it began"), 1)]);
                }
            }
        }
        canceller.join().unwrap();
        // What is left of it, where it has not left.
        while let Some(turn) = shop.scheduler.try_next(any) {
            let members = turn.members().to_vec();
            turn.finish(members.into_iter().chain(begun).map(|ticket| (ticket, 1)).collect());
        }
        assert!(matches!(caller.join().unwrap(), Ok(()) | Err(GaveUp::Cancelled)));
        all_served([query]);
        assert_eq!(cancel.listed(), 0);
        shop.closed();
    }

    requests_of_one_form_share_a_turn_and_each_has_its_own_answer(Some(2)) {
        let shop = Shop::new(1);
        let callers = [2, 3].map(|n| shop.caller(n, shared(Interactive)));
        let own = shop.scheduler.submit(shared(Interactive), 1).unwrap();
        let turns = shop.serve(3);
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        let judge = shop.closed();
        assert!(judge.interactive_starts == turns && turns <= 3);
    }

    company_of_a_running_turn_waits_for_it_and_then_shares_one(Some(3)) {
        let shop = Shop::new(1);
        let own = shop.scheduler.submit(shared(Background), 1).unwrap();
        let running = shop.turn();
        assert_eq!(running.members().len(), 1);
        let callers = [2, 3].map(|n| shop.caller(n, shared(Background)));
        // Until both wait; the model has it wait as long as it takes.
        while shop.scheduler.waiting() != (0, 2) {
            loom::thread::yield_now();
        }
        shop.compute(running);
        assert_eq!(shop.serve(2), 1, "two turns for two of one form");
        assert_eq!(own.wait(), Ok(1));
        all_served(callers);
        assert_eq!(shop.closed().background_starts, 2);
    }

    one_of_a_shared_turn_that_gives_up_takes_nothing_from_the_other(Some(3)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let gone = shop.scheduler.submit(cancelled_by(&cancel, shared(Background)), 1).unwrap();
        let stays = shop.scheduler.submit(shared(Background), 2).unwrap();
        let mut turn = shop.turn();
        let tickets = turn.members().to_vec();
        assert_eq!(tickets.len(), 2);
        let canceller = spawn({
            let cancel = cancel.clone();
            move || cancel.cancel()
        });
        let work = turn.take_work();
        turn.yield_now(work);
        let turn = shop.turn();
        turn.finish(tickets.into_iter().zip([1, 2]).collect());
        assert_eq!(stays.wait(), Ok(2));
        assert!(matches!(gone.wait(), Ok(1) | Err(GaveUp::Cancelled)));
        canceller.join().unwrap();
        assert_eq!(cancel.listed(), 0);
        shop.closed();
    }

    a_request_that_is_dropped_is_given_up(Some(3)) {
        let shop = Shop::new(1);
        let other = shop.caller(1, alone(Background));
        let dropped = spawn({
            let shop = shop.clone();
            move || drop(shop.scheduler.submit(alone(Interactive), 2).unwrap())
        });
        shop.serve_until(1);
        dropped.join().unwrap();
        all_served([other]);
        assert!(shop.scheduler.try_next(any).is_none());
        shop.closed();
    }

    whoever_waits_as_it_closes_is_told(Some(2)) {
        let shop = Shop::new(1);
        let callers = [1, 2].map(|n| shop.caller(n, shared(Interactive)));
        let worker = spawn({
            let shop = shop.clone();
            move || {
                while let Some(turn) = shop.scheduler.next(any) {
                    shop.compute(turn);
                }
            }
        });
        shop.scheduler.close();
        for caller in callers {
            assert!(matches!(caller.join().unwrap(), Ok(()) | Err(GaveUp::Unanswered)));
        }
        worker.join().unwrap();
        assert_eq!(shop.ask(3, alone(Interactive)), Err(GaveUp::Unanswered));
        shop.scheduler.judge();
    }

    a_full_queue_refuses_and_forgets(Some(3)) {
        let shop = Shop::with(SchedulerPolicy { max_queue: 1, ..SchedulerPolicy::default() });
        let first = shop.scheduler.submit(alone(Interactive), 1).unwrap();
        let third = shop.caller(3, alone(Background));
        let second = spawn({
            let shop = shop.clone();
            move || shop.scheduler.submit(alone(Interactive), 2).err()
        });
        assert_eq!(second.join().unwrap(), Some(Refused::Full { priority: Interactive, limit: 1 }));
        shop.serve(2);
        assert_eq!(first.wait(), Ok(1));
        all_served([third]);
        let again = shop.scheduler.submit(alone(Interactive), 2).unwrap();
        shop.serve(1);
        assert_eq!(again.wait(), Ok(2));
        shop.closed();
    }
}
