//! Work on the device's thread in time slices no longer than they should be, and work that cannot be cut in one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use omniburn_models::Isa;
use omniburn_scheduler::{Priority, Size};

use super::cost::{Costs, Load, Stage};
use super::forward::{Steps, device_error};
use super::metrics::Metrics;
use crate::error::ItemError;
use crate::memory::LEAST_UNIT_ROWS;

/// How the worker paces itself.
#[derive(Debug)]
pub(crate) struct Pace {
    pub device: Device,
    /// Whether a step is computed when it returns; elsewhere launches are asynchronous.
    pub eager: bool,
    pub costs: Arc<Costs>,
    pub metrics: Arc<Metrics>,
    /// How long background work has the device at a time.
    pub time_slice: Duration,
    /// What a CPU computes with, where it was chosen; it is there.
    pub isa: Option<Isa>,
}

/// Rows of a pass of interactive requests at most, where they are of several callers: products of 128 rows are as wide as they
/// need to be, and a query of 16 tokens waits for little more beside 15 others than it would behind them.
const SHARED_INTERACTIVE_ROWS: u64 = 256;
/// Steps of a time slice at least, of a pass that takes other callers along: a query that comes waits for one of them.
const STEPS_A_SLICE: u32 = 2;

impl Pace {
    /// Whether a pass may take along requests of several callers until it is of this size: `stage` is what most of its steps are,
    /// `layers` how many of such each is then, `most` its rows at most.
    pub(crate) fn may_grow_to(
        &self,
        priority: Priority,
        size: Size,
        (stage, layers, most): (Stage, usize, usize),
    ) -> bool {
        match priority {
            // A query is not cut, so all of the pass is what its caller waits for.
            Priority::Interactive => size.rows <= SHARED_INTERACTIVE_ROWS,
            Priority::Background => {
                let load = Load { rows: size.rows as f64, pairs: size.pairs as f64 };
                let short = || {
                    self.costs
                        .expect_of(stage, load, layers)
                        .is_some_and(|time| time * STEPS_A_SLICE <= self.time_slice)
                };
                size.rows <= most as u64 && (size.rows <= LEAST_UNIT_ROWS as u64 || short())
            }
        }
    }
}

/// When a time slice ends before its work does.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    /// How long it may be; as long as the work takes where absent.
    pub target: Option<Duration>,
    /// Whether somebody waits for whom it should end after the step at hand.
    pub awaited: &'a dyn Fn() -> bool,
}

/// Work that is computed a time slice at a time.
pub(crate) trait Slices: Send {
    /// One time slice: steps until the work is done, which is `true`, until the next one would take longer than the target
    /// leaves, or until it is awaited.
    fn slice(&mut self, until: Until<'_>, pace: &Pace) -> Result<bool, ItemError>;

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
    fn slice(&mut self, _: Until<'_>, _: &Pace) -> Result<bool, ItemError> {
        let work = self.work.take().expect("it is computed once");
        self.out.put(work());
        Ok(true)
    }

    fn counts(&self) -> bool {
        self.counts
    }
}

/// A unit of one caller.
pub(crate) struct OneUnit<S: Steps> {
    pub steps: S,
    pub out: Out<S::Out>,
}

impl<S: Steps> Slices for OneUnit<S> {
    fn slice(&mut self, until: Until<'_>, pace: &Pace) -> Result<bool, ItemError> {
        let done = slice(&mut self.steps, until, pace)?;
        Ok(done.map(|out| self.out.put(out)).is_some())
    }
}

/// Where work leaves its result for its caller.
#[derive(Debug)]
pub(crate) struct Out<T>(Arc<std::sync::Mutex<Option<T>>>);

impl<T> Out<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
    }

    /// The result of work that has ended well.
    pub(crate) fn take(&self) -> T {
        let value = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        value.expect("work that ends well leaves a result")
    }
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// One time slice, on the device's thread: steps until the work is done, until the next one would take longer than the
/// target leaves, or until it is awaited. It is one step at least; of a kind of which nothing is known, one at most.
pub(crate) fn slice<S: Steps>(
    steps: &mut S,
    Until { target, awaited }: Until<'_>,
    pace: &Pace,
) -> Result<Option<S::Out>, ItemError> {
    let awaited = || target.is_some() && awaited();
    let begun = Instant::now();
    let mut ran = false;
    loop {
        let (stage, load) = steps.next();
        let expected = pace.costs.expect_of(stage, load, steps.layers());
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
        let (started, mut count, mut layers, mut done, mut cut) = (Instant::now(), 0, 0, None, false);
        while done.is_none() && !cut && count < together.max(1) && steps.next().0 == stage {
            layers += steps.layers();
            done = steps.step()?;
            count += 1;
            cut = pace.eager && awaited();
        }
        if target.is_some() && !pace.eager {
            // Launches are asynchronous: a time counts, and a slice may end, only when the work is done.
            pace.device.sync().map_err(device_error)?;
        }
        if pace.eager || target.is_some() {
            pace.costs.learn(stage, load, started.elapsed(), layers);
        }
        // Steps that were only launched are computed whoever waits.
        if done.is_some() || cut || (!pace.eager && awaited()) {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// So many steps.
    struct Counted(usize);

    impl Steps for Counted {
        type Out = ();

        fn next(&self) -> (Stage, Load) {
            (Stage::AudioWindow, Load::of([1]))
        }

        fn step(&mut self) -> Result<Option<()>, ItemError> {
            self.0 -= 1;
            Ok((self.0 == 0).then_some(()))
        }
    }

    #[test]
    fn a_slice_ends_after_the_step_at_hand_where_it_is_awaited_and_a_query_is_not_cut() {
        let pace = Pace {
            device: Device::flex(),
            eager: true,
            costs: Arc::default(),
            metrics: Arc::default(),
            time_slice: Duration::from_secs(60),
            isa: None,
        };
        // Known to be so short that all of them fit.
        pace.costs.learn(Stage::AudioWindow, Load::of([1]), Duration::from_nanos(100), 1);
        let looked = Cell::new(0);
        let third = || {
            looked.set(looked.get() + 1);
            looked.get() == 3
        };
        let mut steps = Counted(10);
        let background = Until { target: Some(pace.time_slice), awaited: &third };
        assert!(slice(&mut steps, background, &pace).unwrap().is_none());
        assert_eq!(steps.0, 7);
        assert!(slice(&mut steps, background, &pace).unwrap().is_some());
        let mut steps = Counted(10);
        let query = Until { target: None, awaited: &|| true };
        assert!(slice(&mut steps, query, &pace).unwrap().is_some());
    }
}
