//! The deciding state on a clock of its own: random arrivals, lengths, cuts, cancellations and deadlines, no thread.
//!
//! It shows in milliseconds what the laws say in units: what a query waits for, and what background work gets. The
//! account is kept here, from what the state answers; nothing is taken from its journal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use omniburn_scheduler::policy::{PolicyState, Ticket};
use omniburn_scheduler::{Priority, SchedulerPolicy};
use proptest::prelude::*;

use Priority::{Background, Interactive};

/// A moment or a length on the clock of the simulation, in microseconds.
type Micros = u64;

/// SplitMix64: small, seeded, and the same everywhere.
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

/// A piece of work: units to run one after the other.
#[derive(Clone, Debug)]
struct Work {
    priority: Priority,
    units: VecDeque<Micros>,
    /// Whether it yields between its units; else it enters anew.
    yields: bool,
    /// When it is cancelled, or its deadline.
    gives_up_at: Option<Micros>,
}

/// One unit that waits for its turn.
struct Ask {
    at: Micros,
    work: Work,
    /// Whether the work has yielded.
    goes_on: bool,
    /// Background units that ran or started since.
    background_units: u32,
    background_time: Micros,
    interactive_time: Micros,
}

/// The unit that runs.
struct Running {
    ticket: Ticket,
    work: Work,
    ends: Micros,
}

enum Event {
    Arrive(Work),
    End,
    GiveUp(Ticket),
}

/// What came of it.
#[derive(Default)]
struct Figures {
    interactive_units: u64,
    background_units: u64,
    finished: u64,
    gave_up: u64,
    aged: u64,
    /// The waits of interactive units.
    waits: Vec<Micros>,
    /// The longest time that an interactive unit waited for background work.
    longest_behind_background: Micros,
    /// The most background units that an interactive unit waited for, running when it came or started since.
    most_background_units: u32,
    /// The most interactive units that started while one background unit was at the head of its queue.
    longest_gap: u64,
}

impl Figures {
    fn wait_ms(&mut self, percent: usize) -> f64 {
        self.waits.sort_unstable();
        let last = self.waits.len().saturating_sub(1);
        self.waits.get(last * percent / 100).copied().unwrap_or(0) as f64 / 1000.0
    }
}

struct Simulation {
    every: u64,
    state: PolicyState,
    now: Micros,
    /// By time, then in the order in which they were planned.
    events: BinaryHeap<Reverse<(Micros, usize)>>,
    planned: Vec<Option<Event>>,
    asks: BTreeMap<Ticket, Ask>,
    running: Option<Running>,
    /// Interactive units since the first background waiter came to its place, and what law 2 allows.
    gap: u64,
    owed: u64,
    went_on: u64,
    figures: Figures,
}

impl Simulation {
    fn new(every: u32) -> Self {
        Self {
            every: every.into(),
            state: PolicyState::new(SchedulerPolicy { background_every: every, ..SchedulerPolicy::default() }),
            now: 0,
            events: BinaryHeap::new(),
            planned: Vec::new(),
            asks: BTreeMap::new(),
            running: None,
            gap: 0,
            owed: 0,
            went_on: 0,
            figures: Figures::default(),
        }
    }

    /// What came of a run that had an end.
    fn drained(self) -> Figures {
        assert_eq!(self.state.holder(), None);
        assert_eq!(self.state.waiting(), (0, 0));
        self.figures
    }

    fn plan(&mut self, at: Micros, event: Event) {
        self.events.push(Reverse((at, self.planned.len())));
        self.planned.push(Some(event));
    }

    /// Runs until `units` have started or nothing is left to do; `finished` is called with each work that is done or gone,
    /// and may send another.
    fn run(&mut self, units: u64, mut finished: impl FnMut(Priority, Micros) -> Option<Work>) {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            let gone = match self.planned[event].take().expect("an event comes once") {
                Event::Arrive(work) => {
                    self.arrive(work);
                    None
                }
                Event::End => self.end(),
                Event::GiveUp(ticket) => self.give_up(ticket),
            };
            if let Some(next) = gone.and_then(|priority| finished(priority, self.now)) {
                self.arrive(next);
            }
            let waiting = |class| self.asks.values().filter(|ask| ask.work.priority == class).count();
            assert_eq!(self.state.waiting(), (waiting(Interactive), waiting(Background)));
            if self.figures.interactive_units + self.figures.background_units >= units {
                return;
            }
        }
    }

    fn background_waits(&self) -> bool {
        self.state.waiting().1 > 0
    }

    fn owed_now(&self) -> u64 {
        let owed = |ask: &&Ask| ask.work.priority == Interactive && ask.background_units > 0;
        self.asks.values().filter(owed).count() as u64
    }

    /// Another background waiter is first.
    fn new_head(&mut self) {
        (self.gap, self.went_on, self.owed) = (0, 0, self.owed_now());
    }

    fn arrive(&mut self, work: Work) {
        let priority = work.priority;
        let first = !self.background_waits();
        let ticket = self.state.arrive(priority);
        if let Some(at) = work.gives_up_at {
            self.plan(at, Event::GiveUp(ticket));
        }
        self.ask(ticket, work, false);
        if priority == Background && first {
            self.new_head();
        }
        self.start_next();
    }

    fn ask(&mut self, ticket: Ticket, work: Work, goes_on: bool) {
        let rest = |class| {
            let running = self.running.as_ref().filter(|running| running.work.priority == class);
            running.map(|running| running.ends - self.now)
        };
        let ask = Ask {
            at: self.now,
            goes_on,
            background_units: rest(Background).map_or(0, |_| 1),
            background_time: rest(Background).unwrap_or(0),
            interactive_time: rest(Interactive).unwrap_or(0),
            work,
        };
        self.asks.insert(ticket, ask);
    }

    fn end(&mut self) -> Option<Priority> {
        let Running { ticket, mut work, .. } = self.running.take().expect("a unit that ends was running");
        let priority = work.priority;
        work.units.pop_front();
        let patient = work.gives_up_at.is_none_or(|at| at > self.now);
        let more = !work.units.is_empty();
        if more && patient && work.yields {
            self.ask(ticket, work.clone(), true);
            self.state.yield_now(ticket);
        } else {
            self.state.release(ticket);
        }
        if priority == Background {
            self.new_head();
            let waiting = self.asks.values().filter(|ask| ask.work.priority == Interactive).count();
            assert_eq!(self.owed, waiting as u64, "whoever waits when a background unit ends has waited for it");
        }
        self.start_next();
        if more && patient && !work.yields {
            self.arrive(work);
            return None;
        }
        if more && patient {
            return None;
        }
        match more {
            false => self.figures.finished += 1,
            true => self.figures.gave_up += 1,
        }
        Some(priority)
    }

    fn give_up(&mut self, ticket: Ticket) -> Option<Priority> {
        // Work that runs gives up at its next cut.
        let work = self.asks.remove(&ticket)?.work;
        let head = self.asks.range(..ticket).all(|(_, ask)| ask.work.priority != Background);
        self.state.give_up(ticket);
        if work.priority == Background && head {
            self.new_head();
        }
        self.figures.gave_up += 1;
        Some(work.priority)
    }

    fn start_next(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(ticket) = self.state.holder() else {
            assert!(self.asks.is_empty(), "the device is idle and somebody waits");
            return;
        };
        let ask = self.asks.remove(&ticket).expect("the permit goes to one that waits");
        let length = ask.work.units[0];
        let priority = ask.work.priority;
        for (earlier, other) in &self.asks {
            assert!(other.work.priority != priority || *earlier > ticket, "{earlier:?} was overtaken by {ticket:?}");
        }
        let wait = self.now - ask.at;
        assert_eq!(wait, ask.background_time + ask.interactive_time, "the device was idle while {ticket:?} waited");
        match priority {
            Interactive => {
                assert!(ask.background_units <= 1, "a query waited for {} background units", ask.background_units);
                if self.background_waits() {
                    self.gap += 1;
                    self.went_on += u64::from(ask.goes_on && self.owed_now() > 0);
                    let allowed = self.every.max(self.owed + self.went_on);
                    assert!(self.gap <= allowed, "{} units passed a background waiter, {allowed} allowed", self.gap);
                    self.figures.longest_gap = self.figures.longest_gap.max(self.gap);
                }
                let figures = &mut self.figures;
                figures.interactive_units += 1;
                figures.waits.push(wait);
                figures.longest_behind_background = figures.longest_behind_background.max(ask.background_time);
                figures.most_background_units = figures.most_background_units.max(ask.background_units);
            }
            Background => {
                self.figures.background_units += 1;
                self.figures.aged += u64::from(self.state.waiting().0 > 0);
            }
        }
        for other in self.asks.values_mut() {
            match priority {
                Interactive => other.interactive_time += length,
                Background => {
                    other.background_units += 1;
                    other.background_time += length;
                }
            }
        }
        if priority == Background {
            self.new_head();
        }
        let ends = self.now + length;
        self.plan(ends, Event::End);
        self.running = Some(Running { ticket, work: ask.work, ends });
    }
}

/// The longest time slice of background work, in microseconds: the target of the planner.
const LONGEST_SLICE: Micros = 25_000;

/// Work as the engine cuts it: queries short and mostly whole, background work in several time slices.
fn random_work(random: &mut Random, priority: Priority, now: Micros) -> Work {
    let (units, longest) = match priority {
        Interactive => (if random.one_in(4) { random.between(2, 5) } else { 1 }, 12_000),
        Background => (random.between(1, 8), LONGEST_SLICE),
    };
    Work {
        priority,
        units: (0..units).map(|_| random.between(1, longest)).collect(),
        yields: random.one_in(2),
        gives_up_at: random.one_in(5).then(|| now + random.between(0, 60_000)),
    }
}

/// A number of arrivals for each class, a random time apart of so much on average, and everything served to the end.
fn open_run(seed: u64, every: u32, queries: (u64, Micros), background: (u64, Micros)) -> Figures {
    let mut random = Random(seed);
    let mut simulation = Simulation::new(every);
    for (priority, (count, gap)) in [(Interactive, queries), (Background, background)] {
        let mut at = 0;
        for _ in 0..count {
            at += random.between(0, 2 * gap);
            let work = random_work(&mut random, priority, at);
            simulation.plan(at, Event::Arrive(work));
        }
    }
    simulation.run(u64::MAX, |_, _| None);
    let figures = simulation.drained();
    assert_eq!(figures.finished + figures.gave_up, queries.0 + background.0, "somebody was forgotten");
    figures
}

/// Queries a random time apart of so much on average, beside some background jobs, each followed by the next until the
/// last query is answered.
fn saturated_run(seed: u64, every: u32, queries: u64, gap: Micros, jobs: usize) -> Figures {
    let mut random = Random(seed);
    let mut simulation = Simulation::new(every);
    let mut at = 0;
    for _ in 0..queries {
        at += random.between(0, 2 * gap);
        let work = random_work(&mut random, Interactive, at);
        simulation.plan(at, Event::Arrive(work));
    }
    for _ in 0..jobs {
        simulation.plan(0, Event::Arrive(random_work(&mut random, Background, 0)));
    }
    let mut left = queries;
    simulation.run(u64::MAX, |priority, now| {
        left -= u64::from(priority == Interactive);
        (priority == Background && left > 0).then(|| random_work(&mut random, Background, now))
    });
    simulation.drained()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_arrivals_cuts_cancels_and_deadlines_keep_the_laws(
        seed in any::<u64>(),
        every in 0u32..10,
        queries in (0u64..120, 100u64..40_000),
        background in (0u64..60, 100u64..200_000),
    ) {
        let figures = open_run(seed, every, queries, background);
        prop_assert!(figures.most_background_units <= 1);
        prop_assert!(figures.longest_behind_background <= LONGEST_SLICE);
    }
}

#[test]
fn a_query_waits_for_at_most_one_background_slice_and_the_queries_before_it() {
    println!("queries a second | units of both classes | wait, ms: p50, p95, p99; idle p95 | most behind background");
    for queries_a_second in [1, 10, 40, 80] {
        let gap = 1_000_000 / queries_a_second;
        let idle = saturated_run(7, 8, 20_000, gap, 0).wait_ms(95);
        let mut figures = saturated_run(7, 8, 20_000, gap, 4);
        let [p50, p95, p99] = [50, 95, 99].map(|percent| figures.wait_ms(percent));
        println!(
            "{queries_a_second:>3} | {:>6} {:>7} | {p50:>5.1} {p95:>6.1} {p99:>6.1}; {idle:>6.1} | {} unit, {:.1} ms",
            figures.interactive_units,
            figures.background_units,
            figures.most_background_units,
            figures.longest_behind_background as f64 / 1000.0,
        );
        assert_eq!(figures.most_background_units, 1, "background work was never in the way, which proves nothing");
        assert!(figures.longest_behind_background <= LONGEST_SLICE);
        // For a query alone this is the law. Where queries fill most of the device alone, at 80 a second three
        // quarters of it, each delay is handed on to the queries behind, and the 95th of a hundred is later than that.
        if queries_a_second <= 40 {
            assert!(p95 <= idle + LONGEST_SLICE as f64 / 1000.0, "{p95} ms, idle {idle} ms");
        }
    }
}

#[test]
fn under_endless_queries_background_gets_its_share() {
    println!("N | callers | units | background: units, share | guaranteed | longest gap");
    for every in [0, 1, 2, 8] {
        for callers in [1, 2, 4, 8, 16] {
            let mut random = Random(u64::from(every) << 8 | callers);
            let mut simulation = Simulation::new(every);
            let mut next = |priority, _| {
                let (units, longest) = match priority {
                    Interactive => (1, 12_000),
                    Background => (random.between(1, 8), LONGEST_SLICE),
                };
                let units = (0..units).map(|_| random.between(1, longest)).collect();
                Some(Work { priority, units, yields: priority == Background, gives_up_at: None })
            };
            for priority in std::iter::repeat_n(Background, 2).chain((0..callers).map(|_| Interactive)) {
                let work = next(priority, 0).expect("it always sends another");
                simulation.plan(0, Event::Arrive(work));
            }
            // Each caller comes back as soon as it is served, and so do two background jobs, which yield at their cuts.
            let units = 20_000;
            simulation.run(units, next);
            let figures = simulation.figures;
            let guaranteed = 1.0 / (u64::from(every).max(callers) + 1) as f64;
            let share = figures.background_units as f64 / units as f64;
            println!(
                "{every} | {callers:>2} | {units} | {:>5} {share:.4} | {guaranteed:.4} | {}",
                figures.background_units, figures.longest_gap
            );
            assert!(figures.background_units >= (units as f64 * guaranteed) as u64, "{share} of {guaranteed}");
            assert!(figures.most_background_units <= 1);
            assert!(callers < 2 || figures.aged + figures.longest_gap > 0, "the queries were not endless");
        }
    }
}
