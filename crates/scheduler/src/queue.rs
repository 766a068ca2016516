//! Requests that wait for one device, and what is computed next: turns by [`PolicyState`], batch mates by
//! [`batch_mates`](crate::batch_mates). No thread, no lock; the time is an argument.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use crate::batcher::{Candidate, Size, batch_mates};
use crate::cancel::Cancel;
use crate::policy::{PolicyState, Priority, SchedulerPolicy, Ticket};

#[cfg(any(test, feature = "loom"))]
use crate::judge::Judge;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The class.
    pub priority: Priority,
    /// How much it is.
    pub size: Size,
    /// Requests of one class and one form may share a pass; one without a form shares with none.
    pub form: Option<u64>,
    /// By which it is given up.
    pub cancel: Option<Cancel>,
    /// When it is of no use any more.
    pub deadline: Option<Instant>,
}

impl Ask {
    /// A request that shares a pass with none, and is not given up.
    pub fn alone(priority: Priority) -> Self {
        Self { priority, size: Size::default(), form: None, cancel: None, deadline: None }
    }

    /// Why its caller has given up; `None` where it has not.
    pub fn gave_up(&self, now: Instant) -> Option<GaveUp> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Some(GaveUp::Cancelled);
        }
        self.deadline.is_some_and(|at| at <= now).then_some(GaveUp::Deadline)
    }
}

/// Why a caller left without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GaveUp {
    /// Its [`Cancel`] was cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// Whoever computes has ended without answering.
    Unanswered,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Deadline => "the deadline has passed",
            Self::Unanswered => "the device's thread has ended",
        })
    }
}

impl Error for GaveUp {}

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// As many of its class wait as may.
    Full {
        /// The class.
        priority: Priority,
        /// Requests of the class that may wait.
        limit: usize,
    },
    /// Its caller had given up before.
    GaveUp(GaveUp),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { priority, limit } => write!(f, "{limit} {} requests wait already", priority.name()),
            Self::GaveUp(why) => why.fmt(f),
        }
    }
}

impl Error for Refused {}

/// Requests with their work, in two classes, and the one pass that is computed at a time.
#[derive(Debug)]
pub struct Queue<W> {
    settings: SchedulerPolicy,
    policy: PolicyState,
    /// Not begun.
    waiting: BTreeMap<Ticket, Entry<W>>,
    /// Begun, and waiting for its next time slice, by the ticket of its head.
    parked: BTreeMap<Ticket, Parked<W>>,
    running: Option<Running>,
    /// Those whose callers gave up, not yet fetched by [`gone`](Self::gone).
    gone: Vec<Gone<W>>,
}

#[derive(Debug)]
struct Entry<W> {
    ask: Ask,
    work: W,
    since: Instant,
}

#[derive(Debug)]
struct Parked<W> {
    members: Vec<Member>,
    work: Vec<W>,
}

/// The pass whose turn it is, with those in it who still want it.
#[derive(Debug)]
struct Running {
    ticket: Ticket,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    ticket: Ticket,
    ask: Ask,
}

/// A request whose caller gave up: it takes no turn any more.
#[derive(Debug)]
pub struct Gone<W> {
    /// The request.
    pub ticket: Ticket,
    /// Why.
    pub why: GaveUp,
    /// Its work; none where others still want the pass that it is part of.
    pub work: Vec<W>,
}

/// The work of a turn.
#[derive(Debug)]
pub struct Taken<W> {
    /// The head of the pass.
    pub ticket: Ticket,
    /// The class.
    pub priority: Priority,
    /// Every request of a pass that begins, the head first, with the time it waited; none for a pass that goes on.
    pub begins: Vec<(Ticket, Duration)>,
    /// What each of them gave, or what the pass was parked with.
    pub work: Vec<W>,
}

impl<W> Queue<W> {
    /// An idle device, and nobody waiting.
    pub fn new(settings: SchedulerPolicy) -> Self {
        Self {
            settings,
            policy: PolicyState::new(settings),
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            running: None,
            gone: Vec::new(),
        }
    }

    /// Puts a request at the end of its class.
    ///
    /// # Errors
    /// [`Refused`], with the work given back.
    pub fn submit(&mut self, ask: Ask, work: W, now: Instant) -> Result<Ticket, (Refused, W)> {
        if let Some(why) = ask.gave_up(now) {
            return Err((Refused::GaveUp(why), work));
        }
        let (priority, limit) = (ask.priority, self.settings.max_queue);
        if self.waiting_of(priority) >= limit {
            // Some may be gone and not yet awake to say so.
            self.drop_the_gone(now);
            if self.waiting_of(priority) >= limit {
                return Err((Refused::Full { priority, limit }, work));
            }
        }
        let ticket = self.policy.arrive(priority);
        self.waiting.insert(ticket, Entry { ask, work, since: now });
        Ok(ticket)
    }

    /// Takes a request out that is not being computed at this moment, and gives its work back: none where others still want
    /// the pass that it is part of. `None` where it is being computed, or known no more.
    pub fn give_up(&mut self, ticket: Ticket) -> Option<Vec<W>> {
        if let Some(entry) = self.waiting.remove(&ticket) {
            self.leave(ticket);
            return Some(vec![entry.work]);
        }
        let (&head, parked) =
            self.parked.iter_mut().find(|(_, parked)| parked.members.iter().any(|member| member.ticket == ticket))?;
        parked.members.retain(|member| member.ticket != ticket);
        if !parked.members.is_empty() {
            return Some(Vec::new());
        }
        let parked = self.parked.remove(&head).expect("it was found above");
        self.leave(head);
        Some(parked.work)
    }

    /// Takes a ticket out of its class, also where the turn was given to it and nobody has begun: it is handed straight on,
    /// and has counted.
    fn leave(&mut self, ticket: Ticket) {
        if self.running.is_none() && self.policy.holder() == Some(ticket) {
            self.policy.release(ticket);
        } else {
            self.policy.give_up(ticket);
        }
    }

    /// Begins the next turn; `None` where nobody waits. `fits` says whether a pass that begins with the head's work may be
    /// of a size; the head alone always may.
    ///
    /// # Panics
    /// When a turn is under way.
    pub fn take(&mut self, now: Instant, fits: impl Fn(&W, Priority, Size) -> bool) -> Option<Taken<W>> {
        assert!(self.running.is_none(), "one turn at a time");
        self.drop_the_gone(now);
        let ticket = self.policy.holder()?;
        if let Some(Parked { members, work }) = self.parked.remove(&ticket) {
            let priority = members[0].ask.priority;
            self.running = Some(Running { ticket, members });
            return Some(Taken { ticket, priority, begins: Vec::new(), work });
        }
        let head = &self.waiting[&ticket];
        let priority = head.ask.priority;
        let mates = match head.ask.form {
            None => Vec::new(),
            form => {
                let same = |ask: &Ask| ask.form == form && ask.priority == priority;
                let others = self.waiting.iter().filter(|(key, entry)| **key != ticket && same(&entry.ask));
                let candidates =
                    others.map(|(&key, Entry { ask, .. })| Candidate { key, size: ask.size, deadline: ask.deadline });
                let fits = |size| fits(&head.work, priority, size);
                batch_mates(head.ask.size, candidates, now, self.settings.urgent, fits)
            }
        };
        let mut taken = Taken { ticket, priority, begins: Vec::new(), work: Vec::new() };
        let mut members = Vec::new();
        for member in std::iter::once(ticket).chain(mates) {
            let Entry { ask, work, since } = self.waiting.remove(&member).expect("who begins was waiting");
            if member != ticket {
                self.policy.join(member);
            }
            taken.begins.push((member, now.saturating_duration_since(since)));
            taken.work.push(work);
            members.push(Member { ticket: member, ask });
        }
        self.running = Some(Running { ticket, members });
        Some(taken)
    }

    /// Ends the time slice of the turn under way; its pass goes on before the others of its class. Where all its callers
    /// have given up it ends, and the work comes back with the last of them by [`gone`](Self::gone).
    ///
    /// # Panics
    /// When no turn is under way.
    pub fn yield_now(&mut self, work: Vec<W>, now: Instant) {
        self.drop_the_gone(now);
        let Running { ticket, mut members } = self.running.take().expect("a turn is under way");
        let mut gone = Vec::new();
        members.retain(|member| match member.ask.gave_up(now) {
            None => true,
            Some(why) => {
                gone.push(Gone { ticket: member.ticket, why, work: Vec::new() });
                false
            }
        });
        match (members.is_empty(), gone.last_mut()) {
            (true, Some(last)) => {
                last.work = work;
                self.policy.release(ticket);
            }
            _ => {
                self.parked.insert(ticket, Parked { members, work });
                self.policy.yield_now(ticket);
            }
        }
        self.gone.extend(gone);
    }

    /// Ends the turn under way and its pass, and gives the requests in it that had not left.
    ///
    /// # Panics
    /// When no turn is under way.
    pub fn finish(&mut self, now: Instant) -> Vec<Ticket> {
        self.drop_the_gone(now);
        let Running { ticket, members } = self.running.take().expect("a turn is under way");
        self.policy.release(ticket);
        members.into_iter().map(|member| member.ticket).collect()
    }

    /// Those that have left since this was last called, because their callers gave up.
    pub fn gone(&mut self) -> Vec<Gone<W>> {
        std::mem::take(&mut self.gone)
    }

    /// Drops those who have given up and are not yet awake to say so: they must not be given a turn.
    fn drop_the_gone(&mut self, now: Instant) {
        let waiting = self.waiting.iter().map(|(&ticket, entry)| (ticket, &entry.ask));
        let parked = self.parked.values().flat_map(|parked| parked.members.iter().map(|m| (m.ticket, &m.ask)));
        let gave_up = |(ticket, ask): (Ticket, &Ask)| Some((ticket, ask.gave_up(now)?));
        let gone: Vec<(Ticket, GaveUp)> = waiting.chain(parked).filter_map(gave_up).collect();
        for (ticket, why) in gone {
            let work = self.give_up(ticket).expect("it waits or is parked");
            self.gone.push(Gone { ticket, why, work });
        }
    }

    fn waiting_of(&self, priority: Priority) -> usize {
        let (interactive, background) = self.waiting();
        match priority {
            Priority::Interactive => interactive,
            Priority::Background => background,
        }
    }

    /// The numbers of requests that wait, `(interactive, background)`: for their first time slice or, one for each pass, for
    /// the next. What is computed at this moment is not counted.
    pub fn waiting(&self) -> (usize, usize) {
        let (mut interactive, mut background) = self.policy.waiting();
        if self.running.is_none() {
            // Given the turn, and not begun.
            let next = self.policy.holder();
            let waiting = next.and_then(|ticket| self.waiting.get(&ticket)).map(|entry| entry.ask.priority);
            let parked = next.and_then(|ticket| self.parked.get(&ticket)).map(|parked| parked.members[0].ask.priority);
            match waiting.or(parked) {
                Some(Priority::Interactive) => interactive += 1,
                Some(Priority::Background) => background += 1,
                None => {}
            }
        }
        (interactive, background)
    }

    /// Whether the pass that is computed is of the background class, and an interactive request came since its turn began.
    pub fn is_awaited(&self) -> bool {
        self.running.is_some() && self.policy.is_awaited()
    }

    /// Whether a pass is being computed.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn judge(&self) -> Judge {
        assert!(self.waiting.is_empty() && self.parked.is_empty() && self.running.is_none(), "work was left");
        assert!(self.gone.is_empty(), "those who left were not reported");
        self.policy.assert_idle();
        let (policy, journal) = self.policy.account();
        Judge::of(policy, journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Priority::{Background, Interactive};

    fn ask(priority: Priority, rows: u64) -> Ask {
        Ask { size: Size { rows, ..Size::default() }, form: Some(1), ..Ask::alone(priority) }
    }

    fn ten(_: &&'static str, _: Priority, size: Size) -> bool {
        size.rows <= 10
    }

    fn queue(max_queue: usize) -> Queue<&'static str> {
        Queue::new(SchedulerPolicy { max_queue, ..SchedulerPolicy::default() })
    }

    #[test]
    fn what_waits_for_the_same_goes_in_one_pass_and_the_rest_keeps_its_order() {
        let (mut queue, now) = (queue(100), Instant::now());
        let other = Ask { form: Some(2), ..ask(Interactive, 1) };
        let alone = Ask { form: None, ..ask(Interactive, 1) };
        let asks = [ask(Interactive, 4), other, ask(Interactive, 5), ask(Background, 1), ask(Interactive, 3), alone];
        let names = ["head", "other", "long", "background", "short", "alone"];
        for (ask, name) in asks.into_iter().zip(names) {
            queue.submit(ask, name, now).unwrap();
        }
        assert_eq!(queue.waiting(), (5, 1));
        let mut order = Vec::new();
        while let Some(taken) = queue.take(now, ten) {
            order.push(taken.work);
            queue.finish(now);
        }
        assert_eq!(order, [vec!["head", "long"], vec!["other"], vec!["short"], vec!["alone"], vec!["background"]]);
        queue.judge();
    }

    #[test]
    fn a_background_pass_is_awaited_by_queries_that_came_since_and_not_where_aging_let_it_by() {
        let now = Instant::now();
        let mut queue = Queue::new(SchedulerPolicy { background_every: 1, ..SchedulerPolicy::default() });
        assert!(!queue.is_awaited());
        for name in ["background", "behind it"] {
            queue.submit(Ask { form: None, ..ask(Background, 1) }, name, now).unwrap();
        }
        assert_eq!(queue.take(now, ten).unwrap().work, ["background"]);
        assert!(!queue.is_awaited(), "nobody waits but its own class");
        queue.submit(Ask::alone(Interactive), "first", now).unwrap();
        assert!(queue.is_awaited());
        queue.yield_now(vec!["background"], now);
        assert!(!queue.is_awaited(), "nothing is computed");
        assert_eq!(queue.take(now, ten).unwrap().work, ["first"]);
        queue.submit(Ask::alone(Interactive), "second", now).unwrap();
        assert!(!queue.is_awaited(), "it is a query that is computed");
        queue.finish(now);
        assert_eq!(queue.take(now, ten).unwrap().work, ["background"]);
        queue.submit(Ask::alone(Interactive), "third", now).unwrap();
        assert!(!queue.is_awaited(), "aging let it by, and it keeps its time slice");
        queue.finish(now);
        let mut rest = Vec::new();
        while let Some(taken) = queue.take(now, ten) {
            rest.extend(taken.work);
            queue.finish(now);
        }
        assert_eq!(rest, ["second", "third", "behind it"]);
        queue.judge();
    }

    #[test]
    fn a_full_class_refuses_and_the_other_does_not() {
        let (mut queue, now) = (queue(2), Instant::now());
        queue.submit(ask(Background, 1), "runs", now).unwrap();
        queue.take(now, ten).unwrap();
        let cancel = Cancel::new();
        queue.submit(Ask { cancel: Some(cancel.clone()), ..ask(Background, 1) }, "first", now).unwrap();
        queue.submit(ask(Background, 1), "second", now).unwrap();
        let (refused, work) = queue.submit(ask(Background, 1), "third", now).unwrap_err();
        assert_eq!((refused, work), (Refused::Full { priority: Background, limit: 2 }, "third"));
        assert_eq!(refused.to_string(), "2 background requests wait already");
        queue.submit(ask(Interactive, 1), "query", now).unwrap();
        cancel.cancel();
        queue.submit(ask(Background, 1), "third", now).unwrap();
        assert_eq!(queue.gone().len(), 1);
        queue.finish(now);
        while queue.take(now, ten).is_some() {
            queue.finish(now);
        }
        queue.judge();
    }

    #[test]
    fn who_gives_up_in_a_parked_pass_takes_the_work_only_as_the_last() {
        let (mut queue, now) = (queue(9), Instant::now());
        let first = queue.submit(ask(Background, 1), "first", now).unwrap();
        let second = queue.submit(ask(Background, 1), "second", now).unwrap();
        let taken = queue.take(now, ten).unwrap();
        assert_eq!(taken.begins.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [first, second]);
        assert!(queue.give_up(first).is_none(), "it is being computed");
        queue.yield_now(vec!["both"], now);
        assert_eq!(queue.give_up(first), Some(vec![]));
        assert_eq!(queue.give_up(second), Some(vec!["both"]));
        assert!(queue.give_up(second).is_none());
        assert!(queue.take(now, ten).is_none());
        queue.judge();
    }

    #[test]
    fn a_pass_that_nobody_wants_any_more_ends_where_it_yields() {
        let (mut queue, now) = (queue(9), Instant::now());
        let later = now + Duration::from_secs(1);
        let cancel = Cancel::new();
        queue.submit(Ask { cancel: Some(cancel.clone()), ..ask(Background, 1) }, "a", now).unwrap();
        queue.submit(Ask { deadline: Some(later), ..ask(Background, 1) }, "b", now).unwrap();
        queue.take(now, ten).unwrap();
        cancel.cancel();
        queue.yield_now(vec!["both"], now);
        let gone = queue.gone();
        assert_eq!((gone.len(), gone[0].why, gone[0].work.len()), (1, GaveUp::Cancelled, 0));
        let goes_on = queue.take(now, ten).unwrap();
        assert!(goes_on.begins.is_empty());
        queue.yield_now(goes_on.work, later);
        let gone = queue.gone();
        assert_eq!((gone[0].why, gone[0].work.as_slice()), (GaveUp::Deadline, &["both"][..]));
        assert!(queue.take(later, ten).is_none());
        queue.judge();
    }

    #[test]
    fn a_turn_that_was_given_and_not_begun_is_handed_on() {
        let (mut queue, now) = (queue(9), Instant::now());
        let first = queue.submit(ask(Interactive, 1), "first", now).unwrap();
        queue.submit(ask(Background, 1), "second", now).unwrap();
        assert_eq!(queue.give_up(first), Some(vec!["first"]));
        assert_eq!(queue.waiting(), (0, 1));
        assert_eq!(queue.take(now, ten).unwrap().work, ["second"]);
        queue.finish(now);
        queue.judge();
    }
}
