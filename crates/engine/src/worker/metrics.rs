//! How long callers waited for the device, how long its time slices were, and what units computed, by class.
//!
//! Durations go into histograms whose buckets grow with the value, so that memory is fixed and no sample is kept.
//! Reading a clock is left to the worker, which knows where a wait ends and a time slice begins; what a unit costs by its
//! size, rates over time and the text form of the figures live elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omniburn_scheduler::Priority;

/// Counts waits, slices and compute times by [`Priority`]; every method takes `&self`.
///
/// # Numerics
/// Kept in whole nanoseconds, in buckets 1/32 to 1/16 as wide as the values in them (3 to 6 %); counts, sums and the
/// greatest value are exact.
#[derive(Debug, Default)]
pub struct Metrics {
    classes: Mutex<Classes>,
}

#[derive(Debug, Default)]
struct Classes {
    interactive: Class,
    background: Class,
}

#[derive(Debug, Default)]
struct Class {
    waits: Histogram,
    slices: Histogram,
    computes: Histogram,
}

/// What a [`Metrics`] has counted up to one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// The interactive class.
    pub interactive: ClassStats,
    /// The background class.
    pub background: ClassStats,
    /// Time in which the device computed, for either class: the sum of all slices.
    pub busy: Duration,
}

/// The figures of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// From a request to the begin of its first time slice; each caller of a pass counts.
    pub waits: DurationStats,
    /// Of a time slice; a background unit is cut into several.
    pub slices: DurationStats,
    /// What a pass computed in all its slices together; one of several callers counts once.
    pub computes: DurationStats,
}

/// A distribution of durations.
///
/// # Numerics
/// A percentile is of nearest rank: the smallest duration that at least so many per cent do not exceed. It is given as
/// the upper edge of its bucket, so it is never less than the true one and at most 1/16 more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationStats {
    /// How many were recorded.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// Half are no longer than this.
    pub p50: Duration,
    /// 95 in 100 are no longer than this.
    pub p95: Duration,
    /// 99 in 100 are no longer than this.
    pub p99: Duration,
    /// The longest, exactly.
    pub max: Duration,
}

impl Metrics {
    /// A metrics that has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one caller that waited this long for the device; a caller that gave up is not one.
    pub fn record_wait(&self, priority: Priority, wait: Duration) {
        self.lock().of(priority).waits.record(wait);
    }

    /// Counts one time slice of this length.
    pub fn record_slice(&self, priority: Priority, slice: Duration) {
        self.lock().of(priority).slices.record(slice);
    }

    /// Counts one pass that computed this long in all its slices together.
    pub fn record_compute(&self, priority: Priority, compute: Duration) {
        self.lock().of(priority).computes.record(compute);
    }

    /// Forgets everything counted so far.
    pub fn reset(&self) {
        *self.lock() = Classes::default();
    }

    /// The figures so far, all of one moment.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let classes = self.lock();
        let [interactive, background] = [&classes.interactive, &classes.background].map(|class| ClassStats {
            waits: class.waits.stats(),
            slices: class.slices.stats(),
            computes: class.computes.stats(),
        });
        let busy = interactive.slices.sum.saturating_add(background.slices.sum);
        MetricsSnapshot { interactive, background, busy }
    }

    /// A count is whole before and after every call, so poison says nothing here.
    fn lock(&self) -> MutexGuard<'_, Classes> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DurationStats {
    /// The arithmetic mean, zero where nothing was recorded.
    pub fn mean(&self) -> Duration {
        match self.count {
            0 => Duration::ZERO,
            count => Duration::from_nanos_u128(self.sum.as_nanos() / u128::from(count)),
        }
    }
}

impl Classes {
    fn of(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }
}

/// Buckets in each doubling of the value; below this many nanoseconds every value has its own.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 4;
const BUCKETS: usize = (u64::BITS - STEP_BITS + 1) as usize * STEPS;

#[derive(Debug)]
struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: Duration,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, sum: Duration::ZERO, max_ns: 0 }
    }
}

impl Histogram {
    fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(duration);
        self.max_ns = self.max_ns.max(ns);
    }

    fn stats(&self) -> DurationStats {
        DurationStats {
            count: self.count,
            sum: self.sum,
            p50: self.percentile(50),
            p95: self.percentile(95),
            p99: self.percentile(99),
            max: Duration::from_nanos(self.max_ns),
        }
    }

    fn percentile(&self, per_cent: u64) -> Duration {
        let rank = (u128::from(self.count) * u128::from(per_cent)).div_ceil(100);
        let mut seen = 0u128;
        for (bucket, &n) in self.buckets.iter().enumerate() {
            seen += u128::from(n);
            if n > 0 && seen >= rank {
                return Duration::from_nanos(last_ns_of(bucket).min(self.max_ns));
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a value: its highest set bit gives the doubling, the four bits below it the step in it.
fn bucket_of(ns: u64) -> usize {
    match ns.checked_ilog2() {
        Some(doubling) if doubling >= STEP_BITS => {
            let shift = doubling - STEP_BITS;
            let step = (ns >> shift) as usize - STEPS;
            (shift as usize + 1) * STEPS + step
        }
        _ => ns as usize,
    }
}

/// The greatest value of a bucket.
fn last_ns_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = (bucket / STEPS - 1) as u32;
    let first = ((bucket % STEPS + STEPS) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    use Priority::{Background, Interactive};

    /// `got` is `exact` or at most one bucket above it.
    fn assert_close(got: Duration, exact: Duration) {
        assert!(got >= exact, "{got:?} is below {exact:?}");
        assert!(got <= exact + exact / 16, "{got:?} is more than a bucket above {exact:?}");
    }

    #[test]
    fn an_unused_meter_reads_zero_throughout() {
        assert_eq!(Metrics::new().snapshot(), MetricsSnapshot::default());
        assert_eq!(DurationStats::default().mean(), Duration::ZERO);
    }

    #[test]
    fn a_meter_that_was_reset_has_counted_nothing() {
        let metrics = Metrics::new();
        metrics.record_wait(Background, Duration::from_millis(3));
        metrics.record_slice(Interactive, Duration::from_millis(4));
        assert_ne!(metrics.snapshot(), MetricsSnapshot::default());
        metrics.reset();
        assert_eq!(metrics.snapshot(), MetricsSnapshot::default());
    }

    #[test]
    fn one_value_is_every_percentile_of_itself() {
        let metrics = Metrics::new();
        let wait = Duration::from_nanos(123_456_789);
        metrics.record_wait(Interactive, wait);
        let expected = DurationStats { count: 1, sum: wait, p50: wait, p95: wait, p99: wait, max: wait };
        assert_eq!(metrics.snapshot().interactive.waits, expected);
        assert_eq!(expected.mean(), wait);
    }

    #[test]
    fn a_uniform_distribution_has_its_known_percentiles() {
        let metrics = Metrics::new();
        for ms in (1..=1000).rev() {
            metrics.record_slice(Background, Duration::from_millis(ms));
        }
        let slices = metrics.snapshot().background.slices;
        assert_eq!(slices.count, 1000);
        assert_eq!(slices.sum, Duration::from_millis(500_500));
        assert_eq!(slices.mean(), Duration::from_micros(500_500));
        assert_eq!(slices.max, Duration::from_millis(1000));
        assert_close(slices.p50, Duration::from_millis(500));
        assert_close(slices.p95, Duration::from_millis(950));
        assert_close(slices.p99, Duration::from_millis(990));
    }

    #[test]
    fn a_rare_long_wait_shows_in_the_tail_alone() {
        let metrics = Metrics::new();
        for n in 0..1000 {
            let ms = if n < 985 { 2 } else { 300 };
            metrics.record_wait(Interactive, Duration::from_millis(ms));
        }
        let waits = metrics.snapshot().interactive.waits;
        assert_close(waits.p50, Duration::from_millis(2));
        assert_close(waits.p95, Duration::from_millis(2));
        assert_close(waits.p99, Duration::from_millis(300));
    }

    #[test]
    fn classes_and_kinds_are_counted_apart_and_busy_is_the_sum_of_holds() {
        let metrics = Metrics::new();
        metrics.record_wait(Interactive, Duration::from_millis(1));
        metrics.record_slice(Interactive, Duration::from_millis(10));
        metrics.record_wait(Background, Duration::from_millis(100));
        metrics.record_slice(Background, Duration::from_millis(1000));
        metrics.record_slice(Background, Duration::from_millis(1000));
        let snapshot = metrics.snapshot();
        let sums = |class: &ClassStats| [class.waits.sum, class.slices.sum].map(|sum| sum.as_millis());
        assert_eq!(sums(&snapshot.interactive), [1, 10]);
        assert_eq!(sums(&snapshot.background), [100, 2000]);
        assert_eq!(snapshot.background.slices.count, 2);
        assert_eq!(snapshot.busy, Duration::from_millis(2010));
    }

    #[test]
    fn the_longest_duration_there_is_is_counted() {
        let metrics = Metrics::new();
        metrics.record_slice(Background, Duration::MAX);
        metrics.record_slice(Background, Duration::MAX);
        let slices = metrics.snapshot().background.slices;
        assert_eq!((slices.count, slices.sum), (2, Duration::MAX));
        assert_eq!(slices.max, Duration::from_nanos(u64::MAX));
        assert_eq!(slices.p99, slices.max);
    }

    #[test]
    fn counts_of_several_threads_all_arrive() {
        let metrics = Metrics::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|n| metrics.record_wait(Background, Duration::from_micros(n))));
            }
        });
        let waits = metrics.snapshot().background.waits;
        assert_eq!((waits.count, waits.sum), (4000, Duration::from_micros(4 * 999 * 500)));
    }

    #[test]
    fn buckets_follow_each_other_without_a_hole() {
        for bucket in 0..BUCKETS - 1 {
            let last = last_ns_of(bucket);
            assert_eq!(bucket_of(last), bucket);
            assert_eq!(bucket_of(last + 1), bucket + 1);
        }
        assert_eq!(last_ns_of(BUCKETS - 1), u64::MAX);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_list_to_a_bucket(
            durations in proptest::collection::vec((0u32..50, any::<u64>()), 1..300)
        ) {
            let mut exact: Vec<u64> =
                durations.iter().map(|&(shift, n)| (n >> 14) >> shift).collect();
            let metrics = Metrics::new();
            for &ns in &exact {
                metrics.record_wait(Interactive, Duration::from_nanos(ns));
            }
            exact.sort_unstable();
            let waits = metrics.snapshot().interactive.waits;
            let got = [(50, waits.p50), (95, waits.p95), (99, waits.p99), (100, waits.max)];
            for (per_cent, got) in got {
                let rank = (exact.len() * per_cent).div_ceil(100);
                assert_close(got, Duration::from_nanos(exact[rank - 1]));
            }
            let sum: Duration = exact.iter().map(|&ns| Duration::from_nanos(ns)).sum();
            prop_assert_eq!(waits.sum, sum);
            prop_assert!(waits.p50 <= waits.p95 && waits.p95 <= waits.p99);
            prop_assert!(waits.p99 <= waits.max);
        }
    }
}
