//! Work under a permit: a unit in slices no longer than they should be, and what cannot be cut in one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::backend::BackendKind;
use crate::cost::Costs;
use crate::engine::Engine;
use crate::error::ItemError;
use crate::forward::{Steps, device_error};
use crate::request::Request;
use crate::scheduler::Priority;

impl Engine {
    /// Runs work that cannot be cut under one permit, and frees it whatever happens.
    pub(crate) fn unit<T: Send + 'static>(
        &self,
        request: &Request,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ItemError> {
        let priority = request.resolved_priority();
        let arrived = Instant::now();
        let permit = self.inner.scheduler.enter_until(priority, request.cancel.as_ref(), request.deadline)?;
        let started = Instant::now();
        self.inner.metrics.record_wait(priority, started - arrived);
        let result = self.inner.worker.run(work);
        drop(permit);
        let held = started.elapsed();
        self.inner.metrics.record_slice(priority, held);
        self.inner.metrics.record_compute(priority, held);
        result.map_err(|message| ItemError::Panicked { message })
    }

    /// Runs a unit to its end. Background work gives the permit up as often as the time slice says, and takes it again
    /// before any other background work; interactive work keeps it.
    pub(crate) fn steps<S: Steps>(&self, request: &Request, steps: S) -> Result<S::Out, ItemError> {
        let inner = &self.inner;
        let (priority, cancel, deadline) = (request.resolved_priority(), request.cancel.as_ref(), request.deadline);
        let target = (priority == Priority::Background).then_some(inner.time_slice);
        let (stage, load) = steps.next();
        let span = tracing::debug_span!(
            "unit",
            class = priority.name(),
            stage = ?stage,
            rows = load.rows,
            wait_us = tracing::field::Empty,
            slices = tracing::field::Empty,
            compute_us = tracing::field::Empty,
        );
        let _entered = span.enter();
        let arrived = Instant::now();
        let mut permit = inner.scheduler.enter_until(priority, cancel, deadline)?;
        let waited = arrived.elapsed();
        inner.metrics.record_wait(priority, waited);
        let (mut steps, mut slices, mut computed) = (steps, 0u64, Duration::ZERO);
        let result = loop {
            let (costs, device) = (Arc::clone(&inner.costs), inner.parts.device().clone());
            let eager = inner.spec.kind == BackendKind::Flex;
            let started = Instant::now();
            let ran = inner.worker.run(move || slice(steps, target, eager, &costs, &device));
            let time = started.elapsed();
            inner.metrics.record_slice(priority, time);
            slices += 1;
            computed += time;
            match ran {
                Err(message) => break Err(ItemError::Panicked { message }),
                Ok(Err(e)) => break Err(e),
                Ok(Ok(Slice::Done(out))) => break Ok(out),
                Ok(Ok(Slice::Cut(rest))) => {
                    steps = rest;
                    permit = permit.yield_now(cancel, deadline)?;
                }
            }
        };
        drop(permit);
        inner.metrics.record_compute(priority, computed);
        span.record("wait_us", waited.as_micros() as u64);
        span.record("slices", slices);
        span.record("compute_us", computed.as_micros() as u64);
        result
    }
}

/// How a time slice ended.
enum Slice<S: Steps> {
    Done(S::Out),
    /// Cut, with the rest of the work.
    Cut(S),
}

/// One time slice of the device, on its thread: steps until the work is done, or until the next one would take longer than
/// `target` leaves. It is one step at least; of a kind of which nothing is known, one at most.
fn slice<S: Steps>(
    mut steps: S,
    target: Option<Duration>,
    eager: bool,
    costs: &Costs,
    device: &Device,
) -> Result<Slice<S>, ItemError> {
    let begun = Instant::now();
    let mut ran = false;
    loop {
        let (stage, load) = steps.next();
        let expected = costs.expect(stage, load);
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
            return Ok(Slice::Cut(steps));
        }
        ran = true;
        let (started, mut count, mut done) = (Instant::now(), 0, None);
        while done.is_none() && count < together.max(1) && steps.next().0 == stage {
            done = steps.step()?;
            count += 1;
        }
        if target.is_some() && !eager {
            // Launches are asynchronous: a time counts, and a permit may end, only when the work is done.
            device.sync().map_err(device_error)?;
        }
        if eager || target.is_some() {
            costs.learn(stage, load, started.elapsed(), count);
        }
        if let Some(out) = done {
            return Ok(Slice::Done(out));
        }
    }
}
