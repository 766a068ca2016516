//! Units on the device's thread: in time slices no longer than they should be, texts beside those of other callers, and what
//! cannot be cut in one.

use std::cmp::Reverse;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::cost::{Load, Stage};
use crate::engine::Engine;
use crate::error::ItemError;
use crate::forward::{Steps, TextUnit, device_error};
use crate::memory::Reservation;
use crate::options::{LEAST_UNIT_ROWS, MAX_UNIT_TOKENS};
use crate::request::Request;
use crate::scheduler::{Ask, Priority, Size};
use crate::worker::{Job, Out, Pace};
use omniburn_models::family::TextModel;

/// Rows of a pass of queries at most, where they are of several callers: products of 128 rows are as wide as they need to be,
/// and a query of 16 tokens waits for little more beside 15 others than it would behind them.
const SHARED_QUERY_ROWS: u64 = 256;

/// What a request spent, beside the time of its own thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Waiting for the device.
    pub queue: Duration,
    /// Being computed.
    pub compute: Duration,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.queue += other.queue;
        self.compute += other.compute;
    }
}

/// How texts came back.
pub(crate) struct TextsBack {
    /// A pooled row each.
    pub rows: Result<Vec<Vec<f32>>, ItemError>,
    pub spent: Spent,
    /// Whether other callers' texts were in the pass, which may be why it failed.
    pub shared: bool,
}

impl Engine {
    /// Runs work that cannot be cut in one time slice.
    pub(crate) fn unit<T: Send + 'static>(
        &self,
        request: &Request,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ItemError> {
        let (work, out) = Once::new(work);
        self.inner.worker.compute(ask(request, Size::default(), None), Job::Alone(Box::new(work)))?.outcome?;
        Ok(out.take())
    }

    /// Runs a unit to its end. Background work yields the device as often as the time slice says, and goes on before any
    /// other background work; interactive work keeps it.
    pub(crate) fn steps<S: Steps>(&self, request: &Request, steps: S) -> Result<S::Out, ItemError> {
        self.timed_steps(request, steps).0
    }

    /// As [`Engine::steps`], with what it spent.
    pub(crate) fn timed_steps<S: Steps>(&self, request: &Request, steps: S) -> (Result<S::Out, ItemError>, Spent) {
        let (stage, load) = steps.next();
        let out = Out::new();
        let job = Job::Alone(Box::new(OneUnit { steps, out: out.clone() }));
        let (outcome, spent, _) = self.noted(request, (stage, load.rows), ask(request, Size::default(), None), job);
        (outcome.map(|()| out.take()), spent)
    }

    /// One pooled row for each text, beside texts of other callers where `batched` is allowed.
    pub(crate) fn texts(&self, request: &Request, texts: TextSet, batched: bool) -> TextsBack {
        let TextSet { text, sequences, skipped, stage, reserved } = texts;
        let load = Load::of(sequences.iter().map(Vec::len));
        let device = self.inner.parts.device().clone();
        let first = TextUnit::new(Arc::clone(&text), Vec::new(), device.clone()).next().0;
        // Whoever computes the same part of the record computes the same, whatever its role.
        let form = batched.then_some(Arc::as_ptr(&text).cast::<()>() as u64);
        let size = Size { rows: load.rows as u64, pairs: load.pairs as u64, bytes: 0 };
        let out = Out::new();
        let job = Texts { text, sequences, skipped, stage, device, reserved, out: out.clone() };
        let asked = ask(request, size, form);
        let (outcome, spent, shared) = self.noted(request, (first, load.rows), asked, Job::Texts(Box::new(job)));
        TextsBack { rows: outcome.map(|()| out.take()), spent, shared }
    }

    /// Runs a job to its end, in a span with its times.
    fn noted(
        &self,
        request: &Request,
        (stage, rows): (Stage, f64),
        ask: Ask,
        job: Job,
    ) -> (Result<(), ItemError>, Spent, bool) {
        let span = tracing::debug_span!(
            "unit",
            class = request.resolved_priority().name(),
            stage = ?stage,
            rows = rows,
            wait_us = tracing::field::Empty,
            slices = tracing::field::Empty,
            compute_us = tracing::field::Empty,
        );
        let _entered = span.enter();
        let report = match self.inner.worker.compute(ask, job) {
            Ok(report) => report,
            Err(error) => return (Err(error), Spent::default(), false),
        };
        span.record("wait_us", report.waited.as_micros() as u64);
        span.record("slices", report.slices);
        span.record("compute_us", report.computed.as_micros() as u64);
        (report.outcome, Spent { queue: report.waited, compute: report.computed }, report.shared)
    }
}

/// What a request asks of the scheduler.
fn ask(request: &Request, size: Size, form: Option<u64>) -> Ask {
    let (priority, cancel, deadline) = (request.resolved_priority(), request.cancel.clone(), request.deadline);
    Ask { priority, size, form, cancel, deadline }
}

/// Work that is computed a time slice at a time.
pub(crate) trait Slices: Send {
    /// One time slice: steps until the work is done, which is `true`, or until the next one would take longer than `target`
    /// leaves.
    fn slice(&mut self, target: Option<Duration>, pace: &Pace) -> Result<bool, ItemError>;

    /// Whether its times count in the figures of the engine.
    fn counts(&self) -> bool {
        true
    }
}

/// Work in one piece.
pub(crate) struct Once<T> {
    work: Option<Box<dyn FnOnce() -> T + Send>>,
    out: Out<T>,
    counts: bool,
}

impl<T> Once<T> {
    pub(crate) fn new(work: impl FnOnce() -> T + Send + 'static) -> (Self, Out<T>) {
        let out = Out::new();
        (Self { work: Some(Box::new(work)), out: out.clone(), counts: true }, out)
    }

    pub(crate) fn uncounted(self) -> Self {
        Self { counts: false, ..self }
    }
}

impl<T: Send> Slices for Once<T> {
    fn slice(&mut self, _: Option<Duration>, _: &Pace) -> Result<bool, ItemError> {
        let work = self.work.take().expect("it is computed once");
        self.out.put(work());
        Ok(true)
    }

    fn counts(&self) -> bool {
        self.counts
    }
}

/// A unit of one caller.
struct OneUnit<S: Steps> {
    steps: S,
    out: Out<S::Out>,
}

impl<S: Steps> Slices for OneUnit<S> {
    fn slice(&mut self, target: Option<Duration>, pace: &Pace) -> Result<bool, ItemError> {
        let done = slice(&mut self.steps, target, pace)?;
        Ok(done.map(|out| self.out.put(out)).is_some())
    }
}

/// Texts of one call that are computed together.
pub(crate) struct TextSet {
    pub text: Arc<dyn TextModel>,
    pub sequences: Vec<Vec<u32>>,
    /// Rows that each sequence's poolings leave out in front.
    pub skipped: Vec<usize>,
    /// The kind of step by whose time passes are planned.
    pub stage: Stage,
    /// What the texts have reserved: kept until the pass has ended, also where their caller leaves before.
    pub reserved: Vec<Arc<Reservation>>,
}

/// [`TextSet`] on its way to the device.
pub(crate) struct Texts {
    text: Arc<dyn TextModel>,
    sequences: Vec<Vec<u32>>,
    skipped: Vec<usize>,
    stage: Stage,
    device: Device,
    reserved: Vec<Arc<Reservation>>,
    out: Out<Vec<Vec<f32>>>,
}

impl Texts {
    /// Whether a pass that begins with these texts may take along so many that it is of this size. Its memory is no
    /// question: texts that share a pass need no more than the sum of what each has reserved.
    pub(crate) fn may_grow_to(&self, priority: Priority, size: Size, pace: &Pace) -> bool {
        match priority {
            // A query is not cut, so all of the pass is what its caller waits for.
            Priority::Interactive => size.rows <= SHARED_QUERY_ROWS,
            Priority::Background => {
                let load = Load { rows: size.rows as f64, pairs: size.pairs as f64 };
                let short = || pace.costs.expect(self.stage, load).is_some_and(|time| time <= pace.time_slice);
                size.rows <= MAX_UNIT_TOKENS as u64 && (size.rows <= LEAST_UNIT_ROWS as u64 || short())
            }
        }
    }
}

/// Texts of one or several callers in one pass.
pub(crate) struct TextPass {
    unit: TextUnit,
    /// For each sequence of the unit, whose it is and which of theirs.
    places: Vec<(usize, usize)>,
    callers: Vec<Out<Vec<Vec<f32>>>>,
    _reserved: Vec<Arc<Reservation>>,
}

impl TextPass {
    /// The pass of these texts, which are of one part of a record; `None` of none.
    pub(crate) fn of(all: Vec<Texts>) -> Option<Self> {
        let first = all.first()?;
        let (text, device, together) = (Arc::clone(&first.text), first.device.clone(), all.len() > 1);
        let (mut rows, mut callers, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for (caller, texts) in all.into_iter().enumerate() {
            let each = texts.sequences.into_iter().zip(texts.skipped).enumerate();
            rows.extend(each.map(|(index, (ids, skipped))| ((caller, index), ids, skipped)));
            callers.push(texts.out);
            reserved.extend(texts.reserved);
        }
        if together {
            // As one call's are planned: longest first, so that neighbours are alike.
            rows.sort_by_key(|(_, ids, _)| Reverse(ids.len()));
        }
        let (mut places, mut sequences, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (place, ids, left_out) in rows {
            places.push(place);
            sequences.push(ids);
            skipped.push(left_out);
        }
        let unit = TextUnit::new(text, sequences, device).skipping(skipped);
        Some(Self { unit, places, callers, _reserved: reserved })
    }
}

impl Slices for TextPass {
    fn slice(&mut self, target: Option<Duration>, pace: &Pace) -> Result<bool, ItemError> {
        let Some(pooled) = slice(&mut self.unit, target, pace)? else { return Ok(false) };
        let mut back: Vec<Vec<(usize, Vec<f32>)>> = self.callers.iter().map(|_| Vec::new()).collect();
        for (&(caller, index), values) in self.places.iter().zip(pooled) {
            back[caller].push((index, values));
        }
        for (out, mut rows) in self.callers.iter().zip(back) {
            rows.sort_by_key(|(index, _)| *index);
            out.put(rows.into_iter().map(|(_, values)| values).collect());
        }
        Ok(true)
    }
}

/// One time slice, on the device's thread: steps until the work is done, or until the next one would take longer than
/// `target` leaves. It is one step at least; of a kind of which nothing is known, one at most.
fn slice<S: Steps>(steps: &mut S, target: Option<Duration>, pace: &Pace) -> Result<Option<S::Out>, ItemError> {
    let begun = Instant::now();
    let mut ran = false;
    loop {
        let (stage, load) = steps.next();
        let expected = pace.costs.expect(stage, load);
        let together = match (target, expected) {
            (None, _) => usize::MAX,
            // Nothing is known of it: alone in its slice where it is not the first.
            (Some(_), None) => 0,
            (Some(target), Some(each)) => {
                let left = target.saturating_sub(begun.elapsed());
                (left.as_nanos() / each.as_nanos().max(1)).min(1 << 20) as usize
            }
        };
        if ran && together == 0 {
            return Ok(None);
        }
        ran = true;
        let (started, mut count, mut done) = (Instant::now(), 0, None);
        while done.is_none() && count < together.max(1) && steps.next().0 == stage {
            done = steps.step()?;
            count += 1;
        }
        if target.is_some() && !pace.eager {
            // Launches are asynchronous: a time counts, and a slice may end, only when the work is done.
            pace.device.sync().map_err(device_error)?;
        }
        if pace.eager || target.is_some() {
            pace.costs.learn(stage, load, started.elapsed(), count);
        }
        if done.is_some() {
            return Ok(done);
        }
    }
}
