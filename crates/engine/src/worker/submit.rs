//! What callers have computed: handed to the device's thread, waited for, and noted with its times.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use omniburn_scheduler::{Ask, Size};
use tracing::Span;

use super::cost::{Load, Stage};
use super::forward::{Steps, TextUnit, TowerRows};
use super::slices::{Once, OneUnit, Out};
use super::texts::{TextSet, Texts};
use super::thread::{Job, Worker};
use super::towers::{TowerPieces, Towers};
use crate::call::Request;
use crate::error::ItemError;
use crate::forms::{Pooled, Sequence};
use crate::memory::Reservation;

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

/// What came back of a pass that may have been shared.
pub(crate) struct Back<T> {
    /// What the pass gave for each text, or for each piece of a medium.
    pub rows: Result<Vec<T>, ItemError>,
    pub spent: Spent,
    /// Whether other callers' were in the pass, which may be why it failed.
    pub shared: bool,
}

impl Worker {
    /// Runs work that cannot be cut in one time slice.
    pub(crate) fn unit<T: Send + 'static>(
        &self,
        request: &Request,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ItemError> {
        let (work, out) = Once::new(work);
        self.compute(ask(request, Size::default(), None), Job::Alone(Box::new(work)), Span::none())?.outcome?;
        Ok(out.take())
    }

    /// Runs a unit to its end. Background work yields the device as often as the time slice says, and goes on before any
    /// other background work; interactive work keeps it.
    pub(crate) fn steps<S: Steps>(&self, request: &Request, steps: S) -> Result<S::Out, ItemError> {
        self.timed_steps(request, steps).0
    }

    /// As [`Worker::steps`], with what it spent.
    pub(crate) fn timed_steps<S: Steps>(&self, request: &Request, steps: S) -> (Result<S::Out, ItemError>, Spent) {
        let (stage, load) = steps.next();
        let out = Out::new();
        let job = Job::Alone(Box::new(OneUnit { steps, out: out.clone() }));
        let (outcome, spent, _) = self.noted(request, (stage, load.rows), ask(request, Size::default(), None), job);
        (outcome.map(|()| out.take()), spent)
    }

    /// One pooled row for each text, beside texts of other callers where `batched` is allowed.
    pub(crate) fn texts(&self, request: &Request, texts: TextSet, batched: bool) -> Back<Pooled> {
        let TextSet { text, sequences, wanted, stage, reserved } = texts;
        let load = Load::of(sequences.iter().map(Sequence::len));
        let device = self.device().clone();
        let first = TextUnit::new(Arc::clone(&text), Vec::new(), device.clone()).next().0;
        // Whoever computes the same part of the record computes the same, whatever its role.
        let form = batched.then_some(Arc::as_ptr(&text).cast::<()>() as u64);
        let size = Size { rows: load.rows as u64, pairs: load.pairs as u64, bytes: 0 };
        let out = Out::new();
        let job = Texts { text, sequences, wanted, stage, device, reserved, out: out.clone() };
        let asked = ask(request, size, form);
        let (outcome, spent, shared) = self.noted(request, (first, load.rows), asked, Job::Texts(Box::new(job)));
        Back { rows: outcome.map(|()| out.take()), spent, shared }
    }

    /// What a tower gives of each piece of media, beside pieces of other callers where `batched` is allowed.
    pub(crate) fn tower(
        &self,
        request: &Request,
        pieces: TowerPieces,
        reserved: Vec<Arc<Reservation>>,
        batched: bool,
    ) -> Back<TowerRows> {
        let (load, [first, _]) = (pieces.load(), pieces.stages());
        let form = batched.then(|| pieces.form());
        let size = Size { rows: load.rows as u64, pairs: load.pairs as u64, bytes: 0 };
        let out = Out::new();
        let job = Towers { pieces, device: self.device().clone(), reserved, out: out.clone() };
        let asked = ask(request, size, form);
        let (outcome, spent, shared) = self.noted(request, (first, load.rows), asked, Job::Tower(Box::new(job)));
        Back { rows: outcome.map(|()| out.take()), spent, shared }
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
        let report = match self.compute(ask, job, span.clone()) {
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
