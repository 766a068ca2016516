//! The queue on a clock of its own: random requests of two classes, forms and sizes, with cuts, cancellations and deadlines,
//! and no thread. What [`Queue`] decides is accounted for here, beside it.
//!
//! The laws are those of `simulation`, restated for passes over callers, and: nobody is lost, order inside a class, batch mates
//! of one class and one form within its budget, nobody left behind who would have fitted, no wait for batch mates, and nothing
//! computed for whoever has left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use omniburn_scheduler::{Ask, Cancel, GaveUp, Priority, Queue, Refused, SchedulerPolicy, Size, Ticket};
use proptest::prelude::*;

use Priority::{Background, Interactive};

/// A moment or a length on the clock of the simulation, in microseconds.
type Micros = u64;

/// Rows that a pass of several may have.
const BUDGET: u64 = 64;
/// The longest time slice of background work.
const SLICE: Micros = 25_000;
/// Requests of a class that may wait.
const MAX_QUEUE: usize = 12;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A caller of the simulation.
#[derive(Clone)]
struct Caller {
    priority: Priority,
    rows: u64,
    form: Option<u64>,
    arrives: Micros,
    /// When it cancels.
    cancels: Option<Micros>,
    deadline: Option<Micros>,
}

/// What is known of a request that waits.
struct Request {
    caller: usize,
    ticket: Ticket,
    /// Background time slices that ran or began since it came.
    background: u32,
    waited_for_background: Micros,
}

struct Pass {
    members: Vec<(usize, Ticket)>,
    priority: Priority,
    /// What is left of it.
    left: Vec<Micros>,
}

#[derive(Default, Debug)]
struct Figures {
    served: usize,
    gone: usize,
    refused: usize,
    passes: usize,
    shared: usize,
    most_background: u32,
    longest_behind_background: Micros,
}

struct Simulation {
    callers: Vec<Caller>,
    handles: Vec<Cancel>,
    queue: Queue<usize>,
    start: Instant,
    now: Micros,
    /// By ticket: in order of arrival.
    waiting: BTreeMap<Ticket, Request>,
    parked: BTreeMap<Ticket, Pass>,
    running: Option<(Ticket, Pass, Micros)>,
    /// What became of each caller.
    ends: Vec<Option<&'static str>>,
    every: u64,
    /// Interactive units past a background waiter, and what law 2 allows.
    gap: u64,
    owed: u64,
    figures: Figures,
}

impl Simulation {
    fn new(callers: Vec<Caller>, every: u32) -> Self {
        let policy =
            SchedulerPolicy { background_every: every, max_queue: MAX_QUEUE, urgent: Duration::from_millis(20) };
        Self {
            handles: callers.iter().map(|_| Cancel::new()).collect(),
            ends: vec![None; callers.len()],
            callers,
            queue: Queue::new(policy),
            start: Instant::now(),
            now: 0,
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            running: None,
            every: every.into(),
            gap: 0,
            owed: 0,
            figures: Figures::default(),
        }
    }

    fn clock(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn gave_up(&self, caller: usize) -> bool {
        // A slice that ends in the microsecond of a cancellation ends before it.
        self.handles[caller].is_cancelled() || self.callers[caller].deadline.is_some_and(|at| at <= self.now)
    }

    fn run(mut self) -> Figures {
        // What happens, in order of time; ends of time slices are found as they come.
        let mut moments: Vec<(Micros, u8, usize)> = Vec::new();
        for (caller, c) in self.callers.iter().enumerate() {
            moments.push((c.arrives, 1, caller));
            moments.extend(c.cancels.map(|at| (at, 0, caller)));
            moments.extend(c.deadline.map(|at| (at, 2, caller)));
        }
        moments.sort_unstable();
        let mut moments = moments.into_iter().peekable();
        loop {
            let end = self.running.as_ref().map(|(_, _, ends)| *ends);
            let next = moments.peek().map(|(at, ..)| *at);
            match (end, next) {
                (None, None) => break,
                (Some(end), next) if next.is_none_or(|next| end <= next) => {
                    self.now = end;
                    self.end();
                }
                _ => {
                    let (at, what, caller) = moments.next().expect("it was peeked at");
                    self.now = at;
                    match what {
                        1 => self.arrive(caller),
                        what => {
                            if what == 0 {
                                self.handles[caller].cancel();
                            }
                            self.leave(caller);
                        }
                    }
                }
            }
            self.tell();
            self.begin();
            assert!(
                self.running.is_some() || (self.waiting.is_empty() && self.parked.is_empty()),
                "the device is idle"
            );
        }
        assert!(self.ends.iter().all(Option::is_some), "somebody was forgotten");
        assert_eq!(self.figures.served + self.figures.gone + self.figures.refused, self.callers.len());
        self.figures
    }

    fn end_of(&mut self, caller: usize, end: &'static str) {
        assert_eq!(self.ends[caller], None, "answered twice");
        self.ends[caller] = Some(end);
        match end {
            "served" => self.figures.served += 1,
            "refused" => self.figures.refused += 1,
            _ => self.figures.gone += 1,
        }
    }

    fn of_class(&self, priority: Priority) -> usize {
        let waiting = self.waiting.values().filter(|r| self.callers[r.caller].priority == priority).count();
        waiting + self.parked.values().filter(|pass| pass.priority == priority).count()
    }

    /// Without those who have given up and have not yet said so.
    fn wanted_of_class(&self, priority: Priority) -> usize {
        let of_class = |r: &&Request| self.callers[r.caller].priority == priority && !self.gave_up(r.caller);
        let wanted = |pass: &&Pass| pass.priority == priority && pass.members.iter().any(|m| !self.gave_up(m.0));
        self.waiting.values().filter(of_class).count() + self.parked.values().filter(wanted).count()
    }

    fn arrive(&mut self, caller: usize) {
        let c = self.callers[caller].clone();
        let ask = Ask {
            priority: c.priority,
            size: Size { rows: c.rows, ..Size::default() },
            form: c.form,
            cancel: Some(self.handles[caller].clone()),
            deadline: c.deadline.map(|at| self.start + Duration::from_micros(at)),
        };
        let full = self.wanted_of_class(c.priority) >= MAX_QUEUE;
        match self.queue.submit(ask, caller, self.clock()) {
            Ok(ticket) => {
                assert!(!full && !self.gave_up(caller));
                let behind = self.running.as_ref().filter(|(_, pass, _)| pass.priority == Background);
                let request = Request {
                    caller,
                    ticket,
                    background: behind.map_or(0, |_| 1),
                    waited_for_background: behind.map_or(0, |(_, _, ends)| ends - self.now),
                };
                let first = c.priority == Background && self.of_class(Background) == 0;
                self.waiting.insert(ticket, request);
                if first {
                    self.new_head();
                }
            }
            Err((refused, work)) => {
                assert_eq!(work, caller);
                match refused {
                    Refused::Full { .. } => assert!(full, "a queue that is not full refused"),
                    Refused::GaveUp(_) => assert!(self.gave_up(caller)),
                }
                self.end_of(caller, "refused");
            }
        }
    }

    /// A caller wakes and leaves, where its work is not computed at the moment. Every third does not wake in time: the queue
    /// finds that it has given up.
    fn leave(&mut self, caller: usize) {
        if caller.is_multiple_of(3) {
            return;
        }
        let waiting = self.waiting.values().find(|r| r.caller == caller).map(|r| r.ticket);
        let parked = self.parked.values().flat_map(|pass| &pass.members).find(|m| m.0 == caller).map(|m| m.1);
        let Some(ticket) = waiting.or(parked) else { return };
        let work = self.queue.give_up(ticket).expect("it is not computed at the moment");
        self.gone(ticket, caller, !work.is_empty());
    }

    fn gone(&mut self, ticket: Ticket, caller: usize, with_work: bool) {
        self.end_of(caller, "gone");
        let first = self.first_background();
        if self.waiting.remove(&ticket).is_some() {
            assert!(with_work);
        }
        let mut empty = None;
        for (head, pass) in &mut self.parked {
            pass.members.retain(|m| m.0 != caller);
            if pass.members.is_empty() {
                empty = Some(*head);
            }
        }
        if let Some(head) = empty {
            assert!(with_work, "the last of a pass takes its work along");
            self.parked.remove(&head);
        }
        if first != self.first_background() {
            self.new_head();
        }
    }

    /// Who was dropped by the queue.
    fn tell(&mut self) {
        for gone in self.queue.gone() {
            let known = self.waiting.get(&gone.ticket).map(|r| r.caller);
            let parked = self.parked.values().flat_map(|p| &p.members).find(|m| m.1 == gone.ticket).map(|m| m.0);
            let caller = known.or(parked).expect("only who waits is dropped");
            assert!(self.gave_up(caller) && gone.why != GaveUp::Unanswered);
            self.gone(gone.ticket, caller, !gone.work.is_empty());
        }
    }

    fn first_background(&self) -> Option<Ticket> {
        let waiting = self.waiting.values().find(|r| self.callers[r.caller].priority == Background).map(|r| r.ticket);
        let parked = self.parked.iter().find(|(_, pass)| pass.priority == Background).map(|(head, _)| *head);
        parked.or(waiting)
    }

    fn new_head(&mut self) {
        self.gap = 0;
        self.owed = self
            .waiting
            .values()
            .filter(|r| self.callers[r.caller].priority == Interactive && r.background > 0)
            .count() as u64;
    }

    fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        let gave_up: Vec<usize> = (0..self.callers.len()).filter(|&caller| self.gave_up(caller)).collect();
        let taken = self.queue.take(self.clock(), |_, _, size| size.rows <= BUDGET);
        self.tell();
        let Some(taken) = taken else { return };
        let priority = taken.priority;
        let goes_on = taken.begins.is_empty();
        let pass = if goes_on {
            let pass = self.parked.remove(&taken.ticket).expect("what goes on was parked");
            assert_eq!(pass.priority, priority);
            pass
        } else {
            self.first_of_its_class(taken.ticket);
            self.begins(&taken.begins, &taken.work, priority, &gave_up)
        };
        for (caller, _) in &pass.members {
            assert!(!gave_up.contains(caller), "a slice for caller {caller}, who has left");
        }
        if priority == Interactive && self.first_background().is_some() {
            self.gap += 1;
            let allowed = self.every.max(self.owed);
            assert!(self.gap <= allowed, "{} passes went before a background one, {allowed} allowed", self.gap);
        }
        let length = pass.left[0];
        if priority == Background {
            for request in self.waiting.values_mut() {
                request.background += 1;
                request.waited_for_background += length;
            }
            self.new_head();
        }
        self.running = Some((taken.ticket, pass, self.now + length));
    }

    /// Whoever begins a pass is the first of its class; only what was chosen to go along with others has gone before.
    fn first_of_its_class(&self, ticket: Ticket) {
        let priority = self.callers[self.waiting[&ticket].caller].priority;
        assert!(self.parked.values().all(|pass| pass.priority != priority), "what has begun goes first");
        let first = self.waiting.values().find(|r| self.callers[r.caller].priority == priority).map(|r| r.ticket);
        assert_eq!(first, Some(ticket), "not first come first served");
    }

    fn begins(&mut self, begins: &[(Ticket, Duration)], work: &[usize], priority: Priority, gave_up: &[usize]) -> Pass {
        let head = &self.callers[work[0]];
        let form = head.form;
        let rows: u64 = work.iter().map(|&caller| self.callers[caller].rows).sum();
        assert!(rows <= BUDGET || work.len() == 1, "{rows} rows in a pass");
        let mut members = Vec::new();
        for (&(ticket, waited), &caller) in begins.iter().zip(work) {
            let request = self.waiting.remove(&ticket).expect("who begins has waited");
            let c = &self.callers[caller];
            assert_eq!(request.caller, caller, "somebody else's work");
            assert!(work.len() == 1 || (c.form == form && form.is_some()), "a batch mate of another form");
            assert_eq!(c.priority, priority, "a batch mate of another class");
            assert_eq!(waited, Duration::from_micros(self.now - c.arrives));
            if priority == Interactive {
                assert!(request.background <= 1, "a query waited for {} background slices", request.background);
                let figures = &mut self.figures;
                figures.most_background = figures.most_background.max(request.background);
                figures.longest_behind_background =
                    figures.longest_behind_background.max(request.waited_for_background);
            }
            members.push((caller, ticket));
        }
        for request in self.waiting.values().filter(|r| !gave_up.contains(&r.caller)) {
            let c = &self.callers[request.caller];
            let same = c.form == form && form.is_some() && c.priority == priority;
            assert!(!same || rows + c.rows > BUDGET, "one of {} rows was left beside {rows}", c.rows);
        }
        self.figures.passes += 1;
        self.figures.shared += usize::from(members.len() > 1);
        let slices = match priority {
            Interactive => 1,
            Background => 1 + rows / 24,
        };
        let each = (100 + 200 * rows / slices).min(SLICE);
        Pass { members, priority, left: vec![each; slices as usize] }
    }

    fn end(&mut self) {
        let (ticket, mut pass, _) = self.running.take().expect("a time slice ends");
        pass.left.remove(0);
        let priority = pass.priority;
        if pass.left.is_empty() {
            self.queue.finish(self.clock());
            for (caller, _) in pass.members {
                self.end_of(caller, "served");
            }
        } else {
            // The work of a pass that has begun is its first caller's name.
            let work = vec![pass.members[0].0];
            self.parked.insert(ticket, pass);
            self.queue.yield_now(work, self.clock());
        }
        self.tell();
        if priority == Background {
            self.new_head();
            let waiting = self.of_class(Interactive) as u64;
            assert_eq!(self.owed, waiting, "whoever waits when a background slice ends has waited for it");
        }
    }
}

fn callers(seed: u64, count: usize, gap: Micros, patient: bool) -> Vec<Caller> {
    let mut random = Random(seed);
    let mut at = 0;
    let mut all = Vec::new();
    for _ in 0..count {
        at += random.between(0, 2 * gap);
        let priority = if random.one_in(2) { Interactive } else { Background };
        let longest = if random.one_in(6) { 90 } else { 20 };
        let leaves = |random: &mut Random| (!patient && random.one_in(5)).then(|| at + random.between(0, 80_000));
        all.push(Caller {
            priority,
            rows: random.between(1, longest),
            form: (!random.one_in(8)).then(|| random.between(1, 2)),
            arrives: at,
            cancels: leaves(&mut random),
            deadline: leaves(&mut random),
        });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_requests_keep_the_laws(
        seed in any::<u64>(),
        every in 0u32..10,
        count in 0usize..200,
        gap in 50u64..20_000,
    ) {
        let figures = Simulation::new(callers(seed, count, gap, false), every).run();
        prop_assert!(figures.most_background <= 1 && figures.longest_behind_background <= SLICE);
    }
}

/// A cancellation in the microsecond in which a slice ends.
#[test]
fn a_slice_that_ends_as_a_caller_cancels_ends_first() {
    Simulation::new(callers(4_817_018_943_826_589_570, 24, 5407, false), 0).run();
}

#[test]
fn the_more_come_at_once_the_more_share_a_pass() {
    println!("gap us | served | refused | passes | shared | most behind background, us");
    let mut before = usize::MAX;
    for gap in [20_000, 2_000, 1_000] {
        let figures = Simulation::new(callers(3, 2_000, gap, true), 8).run();
        println!(
            "{gap} | {} | {} | {} | {} | {}",
            figures.served, figures.refused, figures.passes, figures.shared, figures.longest_behind_background
        );
        assert!(figures.passes < before, "{figures:?}");
        assert_eq!(figures.served + figures.refused, 2_000, "everybody was patient");
        before = figures.passes;
    }
    assert!(before < 1_500, "{before} passes");
}
