//! The scheduler's state machine and its shell, model-checked: each scenario runs in every order that its threads can take,
//! and each ends with the judge's verdict on the laws and with a scheduler that is open again.
//!
//! `cargo test -p omniburn-scheduler --features loom --test model --release`
//!
//! That the check can fail is shown by `cargo xtask mistakes`: it builds the crate with one mistake of
//! `tests/mistakes.txt` at a time, and a scenario has to find it.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loom::cell::UnsafeCell;
use loom::thread::{JoinHandle, spawn};
use omniburn_scheduler::model::{self, Judge};
use omniburn_scheduler::{Cancel, GaveUp, Permit, Priority, Scheduler, SchedulerPolicy};

use Priority::{Background, Interactive};

const SECOND: Duration = Duration::from_secs(1);

/// A scheduler, and the device behind it, which knows when two units use it at once or one does not see the other's work.
#[derive(Clone)]
struct Shop {
    scheduler: Rc<Scheduler>,
    device: Rc<UnsafeCell<()>>,
}

impl Shop {
    fn new(background_every: u32) -> Self {
        let scheduler = Rc::new(Scheduler::new(SchedulerPolicy { background_every }));
        Self { scheduler, device: Rc::new(UnsafeCell::new(())) }
    }

    /// One unit on the device.
    fn work(&self, permit: &Permit<'_>) -> Priority {
        self.device.with_mut(|_| permit.priority())
    }

    fn unit(&self, priority: Priority) {
        let permit = self.scheduler.enter(priority);
        self.work(&permit);
    }

    fn unit_until(&self, priority: Priority, cancel: Option<&Cancel>, deadline: Option<Instant>) -> Result<(), GaveUp> {
        let permit = self.scheduler.enter_until(priority, cancel, deadline)?;
        self.work(&permit);
        Ok(())
    }

    /// A unit for each class named, every one the next of the same work.
    fn work_in_two(
        &self,
        priority: Priority,
        cancel: Option<&Cancel>,
        deadline: Option<Instant>,
    ) -> Result<(), GaveUp> {
        let permit = self.scheduler.enter(priority);
        self.work(&permit);
        let permit = permit.yield_now(cancel, deadline)?;
        self.work(&permit);
        Ok(())
    }

    fn spawn<T: 'static>(&self, work: impl FnOnce(&Self) -> T + 'static) -> JoinHandle<T> {
        let shop = self.clone();
        spawn(move || work(&shop))
    }

    /// The verdict, once the permit was found free.
    fn closed(&self) -> Judge {
        let permit = self.scheduler.try_enter(Background).expect("a permit leaked");
        self.work(&permit);
        drop(permit);
        self.scheduler.judge()
    }
}

fn join_all<const N: usize>(threads: [JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
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
    three_callers_of_two_classes_are_all_served(None) {
        let shop = Shop::new(1);
        let others = [Interactive, Background].map(|priority| shop.spawn(move |shop| shop.unit(priority)));
        shop.unit(Interactive);
        join_all(others);
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (2, 2));
    }

    three_queries_are_served_in_order_of_arrival(None) {
        let shop = Shop::new(1);
        let running = shop.scheduler.enter(Interactive);
        let others = [(); 2].map(|()| shop.spawn(|shop| shop.unit(Interactive)));
        shop.work(&running);
        drop(running);
        join_all(others);
        assert_eq!(shop.closed().interactive_starts, 3);
    }

    aging_makes_no_query_wait_for_a_second_background_unit(None) {
        let shop = Shop::new(0);
        let running = shop.scheduler.enter(Background);
        let others = [Interactive, Background].map(|priority| shop.spawn(move |shop| shop.unit(priority)));
        shop.work(&running);
        drop(running);
        join_all(others);
        shop.closed();
    }

    a_unit_that_panics_gives_its_permit_back(None) {
        let shop = Shop::new(1);
        let panicking = shop.spawn(|shop| {
            let unit = std::panic::AssertUnwindSafe(|| {
                let _permit = shop.scheduler.enter(Background);
                // Without the hook, which would print a trace for every order.
                std::panic::resume_unwind(Box::new("a unit failed"));
            });
            assert!(std::panic::catch_unwind(unit).is_err());
        });
        let query = shop.spawn(|shop| shop.unit(Interactive));
        panicking.join().unwrap();
        query.join().unwrap();
        shop.closed();
    }

    a_cancelled_waiter_leaves_while_the_permit_is_held(None) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let running = shop.scheduler.enter(Background);
        let waiter = shop.spawn({
            let cancel = cancel.clone();
            move |shop| shop.unit_until(Interactive, Some(&cancel), None)
        });
        cancel.cancel();
        assert_eq!(waiter.join().unwrap(), Err(GaveUp::Cancelled));
        assert_eq!(cancel.listed(), 0);
        assert_eq!(shop.scheduler.waiting(), (0, 0));
        shop.work(&running);
        drop(running);
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    two_waiters_with_one_handle_both_leave(Some(5)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let running = shop.scheduler.enter(Background);
        let waiters = [Interactive, Background].map(|priority| {
            let cancel = cancel.clone();
            shop.spawn(move |shop| shop.unit_until(priority, Some(&cancel), None))
        });
        cancel.cancel();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(GaveUp::Cancelled));
        }
        assert_eq!(cancel.listed(), 0);
        drop(running);
        shop.closed();
    }

    who_is_cancelled_before_the_permit_is_free_takes_no_turn(None) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let running = shop.scheduler.enter(Background);
        let waiter = shop.spawn({
            let cancel = cancel.clone();
            move |shop| shop.unit_until(Interactive, Some(&cancel), None)
        });
        cancel.cancel();
        drop(running);
        assert_eq!(waiter.join().unwrap(), Err(GaveUp::Cancelled));
        assert_eq!(cancel.listed(), 0);
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    /// Before it arrives, while it waits, as it is granted, after it began.
    a_cancellation_at_any_moment_leaks_no_permit(Some(3)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let running = shop.scheduler.enter(Background);
        let waiter = shop.spawn({
            let cancel = cancel.clone();
            move |shop| shop.unit_until(Interactive, Some(&cancel), None)
        });
        let next = shop.spawn(|shop| shop.unit(Interactive));
        let canceller = spawn(move || cancel.cancel());
        shop.work(&running);
        drop(running);
        canceller.join().unwrap();
        let served = waiter.join().unwrap().is_ok();
        next.join().unwrap();
        let judge = shop.closed();
        assert!(judge.interactive_starts > usize::from(served));
    }

    a_waiter_past_its_deadline_leaves_while_the_permit_is_held(None) {
        let shop = Shop::new(1);
        let running = shop.scheduler.enter(Background);
        let deadline = model::now() + SECOND;
        let waiter = shop.spawn(move |shop| shop.unit_until(Interactive, None, Some(deadline)));
        model::advance(SECOND);
        assert_eq!(waiter.join().unwrap(), Err(GaveUp::Deadline));
        assert_eq!(shop.scheduler.waiting(), (0, 0));
        drop(running);
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    who_is_past_its_deadline_before_the_permit_is_free_takes_no_turn(None) {
        let shop = Shop::new(1);
        let running = shop.scheduler.enter(Background);
        let deadline = model::now() + SECOND;
        let waiter = shop.spawn(move |shop| shop.unit_until(Interactive, None, Some(deadline)));
        model::advance(SECOND);
        drop(running);
        assert_eq!(waiter.join().unwrap(), Err(GaveUp::Deadline));
        assert_eq!(shop.closed().interactive_starts, 0);
    }

    a_deadline_that_does_not_come_is_no_hindrance(None) {
        let shop = Shop::new(1);
        let running = shop.scheduler.enter(Background);
        let deadline = model::now() + 2 * SECOND;
        let waiter = shop.spawn(move |shop| shop.unit_until(Interactive, None, Some(deadline)));
        model::advance(SECOND);
        drop(running);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        assert_eq!(shop.closed().interactive_starts, 1);
    }

    a_deadline_at_any_moment_leaks_no_permit(Some(3)) {
        let shop = Shop::new(1);
        let running = shop.scheduler.enter(Background);
        let deadline = model::now() + SECOND;
        let waiter = shop.spawn(move |shop| shop.unit_until(Interactive, None, Some(deadline)));
        let next = shop.spawn(|shop| shop.unit(Interactive));
        let clock = spawn(|| model::advance(SECOND));
        shop.work(&running);
        drop(running);
        clock.join().unwrap();
        let served = waiter.join().unwrap().is_ok();
        next.join().unwrap();
        let judge = shop.closed();
        assert!(judge.interactive_starts > usize::from(served));
    }

    work_that_yields_lets_the_query_in_and_no_background_work(Some(5)) {
        let shop = Shop::new(8);
        let others = [Interactive, Background].map(|priority| shop.spawn(move |shop| shop.unit(priority)));
        shop.work_in_two(Background, None, None).unwrap();
        join_all(others);
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (1, 4));
    }

    a_query_that_yields_lets_in_only_what_aging_lets_by(Some(5)) {
        let shop = Shop::new(0);
        let others = [Interactive, Background].map(|priority| shop.spawn(move |shop| shop.unit(priority)));
        shop.work_in_two(Interactive, None, None).unwrap();
        join_all(others);
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (3, 2));
    }

    two_that_yield_take_turns_and_both_end(None) {
        let shop = Shop::new(1);
        let other = shop.spawn(|shop| shop.work_in_two(Interactive, None, None));
        shop.work_in_two(Background, None, None).unwrap();
        other.join().unwrap().unwrap();
        let judge = shop.closed();
        assert_eq!((judge.interactive_starts, judge.background_starts), (2, 3));
    }

    a_cancellation_of_work_that_yields_leaks_no_permit(Some(5)) {
        let shop = Shop::new(1);
        let cancel = Cancel::new();
        let query = shop.spawn(|shop| shop.unit(Interactive));
        let canceller = spawn({
            let cancel = cancel.clone();
            move || cancel.cancel()
        });
        let yielded = shop.work_in_two(Background, Some(&cancel), None);
        assert!(matches!(yielded, Ok(()) | Err(GaveUp::Cancelled)));
        query.join().unwrap();
        canceller.join().unwrap();
        assert_eq!(shop.closed().interactive_starts, 1);
    }

    a_deadline_of_work_that_yields_leaks_no_permit(Some(5)) {
        let shop = Shop::new(1);
        let deadline = model::now() + SECOND;
        let query = shop.spawn(|shop| shop.unit(Interactive));
        let clock = spawn(|| model::advance(SECOND));
        let yielded = shop.work_in_two(Background, None, Some(deadline));
        assert!(matches!(yielded, Ok(()) | Err(GaveUp::Deadline)));
        query.join().unwrap();
        clock.join().unwrap();
        assert_eq!(shop.closed().interactive_starts, 1);
    }

    trying_never_overtakes_and_never_leaks(None) {
        let shop = Shop::new(1);
        let others = [Interactive, Background].map(|priority| shop.spawn(move |shop| shop.unit(priority)));
        if let Some(permit) = shop.scheduler.try_enter(Interactive) {
            shop.work(&permit);
        }
        join_all(others);
        shop.closed();
    }
}
