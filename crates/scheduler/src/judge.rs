//! The laws, judged from what happened at it: an account of its own, which shares nothing with the deciding
//! state but the journal that state writes.

use crate::policy::{Event, Priority, SchedulerPolicy, Ticket};

use Priority::{Background, Interactive};

/// The laws, judged from a journal alone: it counts, for every interactive waiter, the background units
/// that it has waited for, where the scheduler only compares tickets.
#[derive(Debug, Default)]
pub struct Judge {
    every: usize,
    /// Waiting, with the background units each has waited for.
    pub interactive: Vec<(Ticket, usize)>,
    /// Waiting.
    pub background: Vec<Ticket>,
    running: Option<(Ticket, Priority)>,
    /// The interactive waiter that has yielded and not yet started again.
    yielding: Option<Ticket>,
    /// Interactive units started past the waiting background units, as the policy counts them.
    passed: usize,
    /// Interactive units started since the first background waiter came to the head of its queue.
    past_the_head: usize,
    /// The interactive waiters that had already waited for a background unit when that count began.
    owed: usize,
    /// Units that work which had yielded went on with since, while some of the owed still waited.
    went_on: usize,
    /// The longest run of interactive units past a head, in units.
    pub longest: usize,
    /// Interactive units in all.
    pub interactive_starts: usize,
    /// Background units in all.
    pub background_starts: usize,
    /// Background units let past interactive waiters.
    pub aged_starts: usize,
}

impl Judge {
    /// The account of a journal.
    ///
    /// # Panics
    /// Where it breaks a law.
    pub fn of(policy: SchedulerPolicy, journal: &[Event]) -> Self {
        let mut judge = Self { every: policy.background_every as usize, ..Self::default() };
        for &event in journal {
            match event {
                Event::Arrive(ticket, priority) => judge.arrive(ticket, priority),
                Event::Start(ticket) => judge.start(ticket),
                Event::Release(ticket) => {
                    judge.end(ticket);
                }
                Event::Yield(ticket) => judge.yield_now(ticket),
                Event::GiveUp(ticket) => judge.give_up(ticket),
                Event::Join(ticket) => judge.join(ticket),
            }
        }
        judge
    }

    fn owed_now(&self) -> usize {
        self.interactive.iter().filter(|(_, waited)| *waited > 0).count()
    }

    fn new_head(&mut self) {
        self.past_the_head = 0;
        self.went_on = 0;
        self.owed = self.owed_now();
    }

    fn arrive(&mut self, ticket: Ticket, priority: Priority) {
        if self.running.is_none() {
            assert!(self.interactive.is_empty(), "the device lay idle before an interactive waiter");
            assert!(self.background.is_empty(), "the device lay idle before a background waiter");
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
        assert_eq!(self.running, None, "two turns at once");
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
            assert_eq!(self.interactive.first().map(|first| first.0), Some(ticket), "not first come first served");
            let (_, waited) = self.interactive.remove(0);
            assert!(waited <= 1, "an interactive unit waited for {waited} background units");
            let goes_on = self.yielding.take_if(|yielding| *yielding == ticket).is_some();
            if goes_on && self.owed_now() > 0 {
                self.went_on += 1;
            }
            if !self.background.is_empty() {
                assert!(self.passed < self.every || owed_now > 0, "a background unit was passed over in its time");
                self.passed += 1;
                self.past_the_head += 1;
                self.longest = self.longest.max(self.past_the_head);
                let allowed = self.every.max(self.owed + self.went_on);
                assert!(
                    self.past_the_head <= allowed,
                    "{} interactive units went ahead of a background waiter, {allowed} allowed",
                    self.past_the_head,
                );
            }
            self.interactive_starts += 1;
            self.running = Some((ticket, Interactive));
        }
    }

    fn end(&mut self, ticket: Ticket) -> Priority {
        let (running, priority) = self.running.take().expect("a release without a holder");
        assert_eq!(running, ticket, "released by another");
        if priority == Background {
            self.owed = self.owed_now();
            assert_eq!(self.owed, self.interactive.len(), "whoever waits when a background unit ends waited for it");
        }
        priority
    }

    /// Not the end of the queue, as for an arrival, but its head.
    fn yield_now(&mut self, ticket: Ticket) {
        match self.end(ticket) {
            Interactive => {
                self.interactive.insert(0, (ticket, 0));
                self.yielding = Some(ticket);
            }
            Background => {
                self.background.insert(0, ticket);
                self.new_head();
            }
        }
    }

    fn join(&mut self, ticket: Ticket) {
        let (_, running) = self.running.expect("a batch mate of nobody");
        let waited = self.interactive.iter().find(|(waiting, _)| *waiting == ticket).map(|(_, waited)| *waited);
        let class = if waited.is_some() { Interactive } else { Background };
        assert_eq!(class, running, "a batch mate of another class");
        assert!(waited.unwrap_or(0) <= 1, "an interactive request waited for {waited:?} background units");
        self.give_up(ticket);
    }

    fn give_up(&mut self, ticket: Ticket) {
        let before = self.interactive.len() + self.background.len();
        self.yielding.take_if(|yielding| *yielding == ticket);
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
