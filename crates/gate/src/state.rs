//! Who comes next: the decision alone. No thread, no clock, no lock.

use std::collections::VecDeque;

#[cfg(test)]
use crate::judge::Event;

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

/// One arrival at the gate; a later arrival has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// The decision alone: who holds the permit and who comes next. No thread, no clock.
///
/// The permit is free only while nobody waits, so each change ends with the permit in the right hands.
#[derive(Debug)]
pub(crate) struct GateState {
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
    pub(crate) journal: Vec<Event>,
}

impl GateState {
    pub(crate) fn new(policy: GatePolicy) -> Self {
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
    pub(crate) fn arrive(&mut self, priority: Priority) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        #[cfg(test)]
        self.journal.push(Event::Arrive(ticket, priority));
        match priority {
            Priority::Interactive => self.interactive.push_back(ticket),
            Priority::Background => self.background.push_back(ticket),
        }
        self.grant();
        ticket
    }

    /// Takes a ticket out of its queue; nothing where it does not wait.
    pub(crate) fn give_up(&mut self, ticket: Ticket) {
        for queue in [&mut self.interactive, &mut self.background] {
            if let Ok(place) = queue.binary_search(&ticket) {
                queue.remove(place);
                #[cfg(test)]
                self.journal.push(Event::GiveUp(ticket));
            }
        }
        if self.background.is_empty() {
            self.passed = 0;
        }
    }

    /// Ends the turn of the holder and begins the next one.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        let (holder, priority) = self.holder.take().expect("a permit that is given back was held");
        assert_eq!(holder, ticket, "the permit is given back by its holder");
        #[cfg(test)]
        self.journal.push(Event::Release(ticket));
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
        self.journal.extend(granted.map(|(ticket, _)| Event::Start(ticket)));
        self.holder = granted;
    }

    fn background_comes_next(&self) -> bool {
        // Tickets are in order, so where the first has not waited for a background unit, none has.
        let none_is_owed = self.interactive.front().is_none_or(|&first| first >= self.owed_below);
        let aged = self.passed >= self.policy.background_every;
        !self.background.is_empty() && (self.interactive.is_empty() || (aged && none_is_owed))
    }

    pub(crate) fn holder(&self) -> Option<Ticket> {
        self.holder.map(|(ticket, _)| ticket)
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.interactive.len(), self.background.len())
    }

    #[cfg(test)]
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
            state.assert_idle();
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
            state.assert_idle();
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
}
