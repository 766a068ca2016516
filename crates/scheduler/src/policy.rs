//! Whose turn comes next: the decision alone. No thread, no clock, no lock.
//!
//! [`Queue`](crate::Queue) adds what is asked for and what shares a turn, [`Scheduler`](crate::Scheduler) the threads. It is
//! public for simulation and for queues of another kind.

use std::collections::VecDeque;
use std::time::Duration;

/// The class of a request: whether somebody is looking at a screen until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Somebody waits for the answer: passes every background waiter, except where aging lets one by.
    Interactive,
    /// A long job such as indexing: runs when no interactive caller waits, and by aging when they never stop.
    Background,
}

impl Priority {
    /// The word for it in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Interactive => "interactive",
            Priority::Background => "background",
        }
    }
}

/// How the scheduler shares the device between the two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchedulerPolicy {
    /// Interactive units that pass a waiting background unit before it may go ahead of those who have not yet waited
    /// for one. 8 by default; 0 lets background pass as often as the first law allows, and `u32::MAX` is in
    /// effect strict priority.
    pub background_every: u32,
    /// Requests of one class that may wait; another one is refused at once. 1,024 by default.
    pub max_queue: usize,
    /// A request whose deadline is this near goes along in a pass before shorter ones. 100 ms by default.
    pub urgent: Duration,
}

impl Default for SchedulerPolicy {
    fn default() -> Self {
        Self { background_every: 8, max_queue: 1024, urgent: Duration::from_millis(100) }
    }
}

/// One arrival; a later arrival has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// The decision alone: whose turn it is and whose comes next. No thread, no clock.
///
/// Nobody has the turn only while nobody waits, so each change ends with the turn in the right hands.
#[derive(Debug)]
pub struct PolicyState {
    policy: SchedulerPolicy,
    /// The number of the next ticket or question.
    next_number: u64,
    holder: Option<(Ticket, Priority)>,
    /// Whether the holder is a background one that aging let past interactive waiters.
    aged: bool,
    /// In order of arrival.
    interactive: VecDeque<Waiter>,
    /// In order of arrival.
    background: VecDeque<Waiter>,
    /// Interactive units started while a background one waited, since the last background start; 0 while none waits.
    passed: u32,
    /// What `next_number` was when the last background unit ended: an interactive waiter that asked below it has waited
    /// for a background unit, one that asked later has not.
    owed_below: u64,
    #[cfg(any(test, feature = "loom"))]
    pub(crate) journal: Vec<Event>,
}

/// What happened, in order, written under the scheduler's lock.
#[cfg(any(test, feature = "loom"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A caller asked for its first unit.
    Arrive(Ticket, Priority),
    /// A waiter was given the turn.
    Start(Ticket),
    /// The turn ended.
    Release(Ticket),
    /// The turn ended, and its holder asked for the next one of the same work.
    Yield(Ticket),
    /// A waiter left.
    GiveUp(Ticket),
    /// A waiter went along in the turn under way.
    Join(Ticket),
}

/// A ticket in its queue.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: Ticket,
    /// The number under which it asked for its next unit: that of its ticket, or a later one where it has yielded.
    asked: u64,
}

impl PolicyState {
    /// Nobody has the turn, and nobody waits.
    pub fn new(policy: SchedulerPolicy) -> Self {
        Self {
            policy,
            next_number: 0,
            holder: None,
            aged: false,
            interactive: VecDeque::new(),
            background: VecDeque::new(),
            passed: 0,
            owed_below: 0,
            #[cfg(any(test, feature = "loom"))]
            journal: Vec::new(),
        }
    }

    /// Joins the end of its class, or takes the turn where nobody has it.
    pub fn arrive(&mut self, priority: Priority) -> Ticket {
        let asked = self.number();
        let ticket = Ticket(asked);
        #[cfg(any(test, feature = "loom"))]
        self.journal.push(Event::Arrive(ticket, priority));
        self.queue(priority).push_back(Waiter { ticket, asked });
        self.grant();
        ticket
    }

    /// Takes a ticket out of its queue; nothing where it does not wait.
    pub fn give_up(&mut self, ticket: Ticket) {
        for queue in [&mut self.interactive, &mut self.background] {
            if let Ok(place) = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
                queue.remove(place);
                #[cfg(any(test, feature = "loom"))]
                self.journal.push(Event::GiveUp(ticket));
            }
        }
        if self.background.is_empty() {
            self.passed = 0;
        }
    }

    /// Takes a waiter of the holder's class along in the turn that begins: it gets none of its own. Nothing where it does
    /// not wait.
    ///
    /// # Panics
    /// When nobody has the turn, or when the waiter is of the other class.
    pub fn join(&mut self, ticket: Ticket) {
        let (_, priority) = self.holder.expect("a turn that is shared has begun");
        let queue = self.queue(priority);
        let Ok(place) = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket) else {
            let other = [&self.interactive, &self.background];
            let waits = other.iter().any(|queue| queue.iter().any(|waiter| waiter.ticket == ticket));
            assert!(!waits, "a turn is shared inside a class");
            return;
        };
        queue.remove(place);
        #[cfg(any(test, feature = "loom"))]
        self.journal.push(Event::Join(ticket));
        if self.background.is_empty() {
            self.passed = 0;
        }
    }

    /// Ends the turn of the holder and begins the next one.
    ///
    /// # Panics
    /// When it is not the turn of `ticket`.
    pub fn release(&mut self, ticket: Ticket) {
        self.end(ticket);
        #[cfg(any(test, feature = "loom"))]
        self.journal.push(Event::Release(ticket));
        self.grant();
    }

    /// Ends the turn of the holder, which stands first in its class for the next one, and begins the next one.
    ///
    /// # Panics
    /// When it is not the turn of `ticket`.
    pub fn yield_now(&mut self, ticket: Ticket) {
        let priority = self.end(ticket);
        #[cfg(any(test, feature = "loom"))]
        self.journal.push(Event::Yield(ticket));
        // It was first when it was let in, and whoever came since has a higher ticket: the queue stays in order.
        let asked = self.number();
        self.queue(priority).push_front(Waiter { ticket, asked });
        self.grant();
    }

    fn end(&mut self, ticket: Ticket) -> Priority {
        let (holder, priority) = self.holder.take().expect("a turn that ends was somebody's");
        assert_eq!(holder, ticket, "a turn is ended by whose it is");
        if priority == Priority::Background {
            self.owed_below = self.next_number;
        }
        priority
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn queue(&mut self, priority: Priority) -> &mut VecDeque<Waiter> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }

    /// Gives the turn, where it is free, to whoever comes next.
    fn grant(&mut self) {
        if self.holder.is_some() {
            return;
        }
        let background = self.background_comes_next();
        self.aged = background && !self.interactive.is_empty();
        let granted = if background {
            self.passed = 0;
            self.background.pop_front().map(|waiter| (waiter.ticket, Priority::Background))
        } else {
            if !self.background.is_empty() {
                self.passed = self.passed.saturating_add(1);
            }
            self.interactive.pop_front().map(|waiter| (waiter.ticket, Priority::Interactive))
        };
        #[cfg(any(test, feature = "loom"))]
        self.journal.extend(granted.map(|(ticket, _)| Event::Start(ticket)));
        self.holder = granted;
    }

    fn background_comes_next(&self) -> bool {
        // Behind the first, which may have yielded, all asked in order: where the second has not waited for a background
        // unit, none behind it has.
        let none_is_owed = self.interactive.iter().take(2).all(|waiter| waiter.asked >= self.owed_below);
        let aged = self.passed >= self.policy.background_every;
        !self.background.is_empty() && (self.interactive.is_empty() || (aged && none_is_owed))
    }

    /// The ticket whose turn it is.
    pub fn holder(&self) -> Option<Ticket> {
        self.holder.map(|(ticket, _)| ticket)
    }

    /// Whether a background unit has the turn and an interactive waiter came since: the unit may end early for it. One that
    /// aging let past those who waited keeps its whole time slice, which is the share of its class.
    pub fn is_awaited(&self) -> bool {
        matches!(self.holder, Some((_, Priority::Background))) && !self.aged && !self.interactive.is_empty()
    }

    /// The numbers of tickets waiting, `(interactive, background)`.
    pub fn waiting(&self) -> (usize, usize) {
        (self.interactive.len(), self.background.len())
    }

    /// The limits it was given, and what happened at it since.
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn account(&self) -> (SchedulerPolicy, &[Event]) {
        (self.policy, &self.journal)
    }

    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn assert_idle(&self) {
        assert_eq!(self.holder, None);
        assert_eq!(self.waiting(), (0, 0));
        assert_eq!(self.passed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judge;
    use proptest::prelude::*;

    use Priority::{Background, Interactive};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive(Priority),
        Release,
        Yield,
        /// One of those waiting, by a number taken modulo how many there are.
        GiveUp(usize),
        /// One of those waiting in the class whose turn it is, likewise.
        Join(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Arrivals outnumber releases in some runs and not in others, so that queues grow, shrink and empty.
        let weights = (1u32..6, 1u32..6, 1u32..8, 1u32..8, 1u32..4, 1u32..6);
        weights.prop_flat_map(|(interactive, background, release, yields, give_up, join)| {
            let step = prop_oneof![
                interactive => Just(Step::Arrive(Interactive)),
                background => Just(Step::Arrive(Background)),
                release => Just(Step::Release),
                yields - 1 => Just(Step::Yield),
                give_up - 1 => any::<usize>().prop_map(Step::GiveUp),
                join - 1 => any::<usize>().prop_map(Step::Join),
            ];
            proptest::collection::vec(step, 0..400)
        })
    }

    fn take(state: &mut PolicyState, step: Step) {
        match step {
            Step::Arrive(priority) => {
                state.arrive(priority);
            }
            Step::Release => {
                if let Some(holder) = state.holder() {
                    state.release(holder);
                }
            }
            Step::Yield => {
                if let Some(holder) = state.holder() {
                    state.yield_now(holder);
                }
            }
            Step::Join(n) => {
                let Some((_, priority)) = state.holder else { return };
                let waiting: Vec<Ticket> = state.queue(priority).iter().map(|waiter| waiter.ticket).collect();
                if !waiting.is_empty() {
                    state.join(waiting[n % waiting.len()]);
                }
            }
            Step::GiveUp(n) => {
                let waiting: Vec<Ticket> =
                    state.interactive.iter().chain(&state.background).map(|waiter| waiter.ticket).collect();
                if !waiting.is_empty() {
                    state.give_up(waiting[n % waiting.len()]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_random_sequence_keeps_the_laws(every in 0u32..7, steps in steps()) {
            let policy = SchedulerPolicy { background_every: every, ..SchedulerPolicy::default() };
            let mut state = PolicyState::new(policy);
            for &step in &steps {
                take(&mut state, step);
                prop_assert!(state.holder().is_some() || state.waiting() == (0, 0));
            }
            let judge = Judge::of(policy, &state.journal);
            prop_assert_eq!((judge.interactive.len(), judge.background.len()), state.waiting());
        }

        #[test]
        fn nobody_waits_for_ever_once_arrivals_stop(every in 0u32..7, steps in steps()) {
            let policy = SchedulerPolicy { background_every: every, ..SchedulerPolicy::default() };
            let mut state = PolicyState::new(policy);
            for &step in &steps {
                take(&mut state, step);
            }
            let (interactive, background) = state.waiting();
            let left = interactive + background + usize::from(state.holder().is_some());
            for _ in 0..left {
                take(&mut state, Step::Release);
            }
            state.assert_idle();
            Judge::of(policy, &state.journal);
        }

        #[test]
        fn nothing_is_left_of_those_who_gave_up(
            every in 0u32..7,
            steps in steps(),
            order in any::<usize>(),
        ) {
            let policy = SchedulerPolicy { background_every: every, ..SchedulerPolicy::default() };
            let mut state = PolicyState::new(policy);
            for &step in &steps {
                take(&mut state, step);
            }
            while state.waiting() != (0, 0) {
                take(&mut state, Step::GiveUp(order));
            }
            take(&mut state, Step::Release);
            state.assert_idle();
            Judge::of(policy, &state.journal);
        }

        #[test]
        fn giving_up_twice_or_while_running_changes_nothing(
            priority in prop_oneof![Just(Interactive), Just(Background)],
        ) {
            let mut state = PolicyState::new(SchedulerPolicy::default());
            let running = state.arrive(priority);
            let waiting = state.arrive(priority);
            state.give_up(running);
            prop_assert_eq!(state.holder(), Some(running));
            state.give_up(waiting);
            state.give_up(waiting);
            prop_assert_eq!(state.waiting(), (0, 0));
            Judge::of(SchedulerPolicy::default(), &state.journal);
        }
    }

    /// Runs `units` units with `callers` interactive callers that come back as soon as they are served and background
    /// work without end.
    fn closed_loop(policy: SchedulerPolicy, callers: usize, units: usize) -> Judge {
        let mut state = PolicyState::new(policy);
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
            let policy = SchedulerPolicy { background_every: every as u32, ..SchedulerPolicy::default() };
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
        let policy = SchedulerPolicy { background_every: 4, ..SchedulerPolicy::default() };
        let mut state = PolicyState::new(policy);
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
        let mut state = PolicyState::new(SchedulerPolicy { background_every: 0, ..SchedulerPolicy::default() });
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
        let mut state = PolicyState::new(SchedulerPolicy { background_every: 1, ..SchedulerPolicy::default() });
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
    fn background_work_that_yields_lets_queries_in_and_no_other_background_work() {
        let mut state = PolicyState::new(SchedulerPolicy::default());
        let carved = state.arrive(Background);
        let other = state.arrive(Background);
        state.yield_now(carved);
        assert_eq!(state.holder(), Some(carved), "nobody has precedence");
        let queries = [state.arrive(Interactive), state.arrive(Interactive)];
        state.yield_now(carved);
        for query in queries {
            assert_eq!(state.holder(), Some(query));
            state.release(query);
        }
        assert_eq!(state.holder(), Some(carved));
        state.release(carved);
        assert_eq!(state.holder(), Some(other));
        Judge::of(SchedulerPolicy::default(), &state.journal);
    }

    #[test]
    fn a_query_that_yields_goes_on_before_its_class_until_aging_lets_a_background_unit_by() {
        let policy = SchedulerPolicy { background_every: 2, ..SchedulerPolicy::default() };
        let mut state = PolicyState::new(policy);
        let long = state.arrive(Interactive);
        let other = state.arrive(Interactive);
        let aged = state.arrive(Background);
        for _ in 0..2 {
            state.yield_now(long);
            assert_eq!(state.holder(), Some(long));
        }
        state.yield_now(long);
        assert_eq!(state.holder(), Some(aged));
        let aged_too = state.arrive(Background);
        state.release(aged);
        // Both have waited for a background unit. The long one goes on as long as it yields, and the other still waits,
        // so aging is off.
        for _ in 0..5 {
            assert_eq!(state.holder(), Some(long));
            state.yield_now(long);
        }
        state.release(long);
        assert_eq!(state.holder(), Some(other));
        state.yield_now(other);
        assert_eq!(state.holder(), Some(aged_too));
        Judge::of(policy, &state.journal);
    }

    #[test]
    fn company_takes_no_turn_and_the_count_of_aging_goes_on() {
        let policy = SchedulerPolicy { background_every: 2, ..SchedulerPolicy::default() };
        let mut state = PolicyState::new(policy);
        let head = state.arrive(Interactive);
        let aged = state.arrive(Background);
        let mates: Vec<Ticket> = (0..5).map(|_| state.arrive(Interactive)).collect();
        for &ticket in &mates[..3] {
            state.join(ticket);
        }
        state.join(mates[0]);
        assert_eq!(state.waiting(), (2, 1));
        state.release(head);
        assert_eq!(state.holder(), Some(mates[3]));
        state.release(mates[3]);
        assert_eq!(state.holder(), Some(mates[4]));
        state.release(mates[4]);
        assert_eq!(state.holder(), Some(aged));
        Judge::of(policy, &state.journal);
    }

    #[test]
    #[should_panic(expected = "a turn is shared inside a class")]
    fn company_of_another_class_is_a_broken_invariant() {
        let mut state = PolicyState::new(SchedulerPolicy::default());
        state.arrive(Background);
        let query = state.arrive(Interactive);
        state.join(query);
    }

    /// Runs a journal that breaks a law, which the judge must say.
    fn refused(every: u32, events: &[Event]) -> String {
        let judged = std::panic::catch_unwind(|| {
            Judge::of(SchedulerPolicy { background_every: every, ..SchedulerPolicy::default() }, events).longest
        });
        let panic = judged.expect_err("the judge must refuse it");
        let message = panic.downcast_ref::<String>().cloned();
        message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).expect("a message")
    }

    #[test]
    fn the_judge_refuses_what_breaks_a_law() {
        use Event::{Arrive, Join, Release, Start, Yield};
        let [a, b, c] = [Ticket(0), Ticket(1), Ticket(2)];
        let two = [Arrive(a, Background), Start(a), Arrive(b, Interactive), Start(b)];
        assert!(refused(8, &two).contains("two turns"));
        let overtaken = [Arrive(a, Interactive), Start(a), Arrive(b, Interactive), Arrive(c, Interactive), Release(a)];
        assert!(refused(8, &[&overtaken[..], &[Start(c)]].concat()).contains("first come"));
        let yielded = [Arrive(a, Background), Start(a), Arrive(b, Background), Yield(a), Start(b)];
        assert!(refused(8, &yielded).contains("first come"));
        let twice = [Arrive(a, Background), Start(a), Arrive(b, Interactive), Yield(a), Start(a)];
        assert!(refused(0, &twice).contains("second background unit"));
        assert!(refused(8, &twice).contains("before its time"));
        let starved = [Arrive(a, Interactive), Start(a), Arrive(b, Background), Yield(a), Start(a), Yield(a), Start(a)];
        assert!(refused(1, &starved).contains("passed over in its time"));
        let strange = [Arrive(a, Background), Start(a), Arrive(b, Interactive), Join(b)];
        assert!(refused(8, &strange).contains("of another class"));
        let twice_served = [Arrive(a, Background), Start(a), Arrive(b, Background), Join(b), Release(a), Start(b)];
        assert!(refused(8, &twice_served).contains("first come"));
        let idle = [Arrive(a, Background), Start(a), Arrive(b, Background), Release(a), Arrive(c, Background)];
        assert!(refused(8, &idle).contains("lay idle"));
    }

    #[test]
    fn the_default_lets_one_background_unit_by_after_eight() {
        let mut state = PolicyState::new(SchedulerPolicy::default());
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
}
