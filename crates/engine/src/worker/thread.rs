//! One thread a device: it owns the stream and the memory pool, takes the scheduler's turns, and survives what panics on it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use omniburn_models::Isa;
use omniburn_scheduler::{Ask, Priority, Scheduler, SchedulerPolicy, Size, Ticket, Turn, Waiting};
use tracing::Span;

use super::slices::{Once, Out, Pace, Slices, Until};
use super::texts::{TextPass, Texts};
use super::towers::{TowerPass, Towers};
use crate::error::ItemError;

/// The thread of a device, with the queue in front of it.
///
/// One thread, because a CubeCL backend gives every thread a stream and a memory pool of its own; a pool of compute threads
/// apart, because threads that decode must not compete with a unit that somebody waits for.
#[derive(Debug)]
pub(crate) struct Worker {
    scheduler: Arc<Scheduler<Submitted, Report>>,
    device: Device,
}

/// A job with the spans of its caller's trace.
pub(crate) struct Submitted {
    job: Job,
    /// Of the unit that it is, the parent of what it computes.
    unit: Span,
    /// Ends where its first time slice begins.
    _queue: Span,
}

impl Submitted {
    fn new(job: Job, unit: Span) -> Self {
        let queue = match unit.is_disabled() {
            true => Span::none(),
            false => tracing::trace_span!(parent: &unit, "queue"),
        };
        Self { job, unit, _queue: queue }
    }
}

/// Work for the device.
pub(crate) enum Job {
    /// Of one caller.
    Alone(Box<dyn Slices>),
    /// Texts of one caller, which may be computed beside those of others.
    Texts(Box<Texts>),
    /// Pieces of media of one caller, which may go through their tower beside those of others.
    Tower(Box<Towers>),
    /// A pass that has begun.
    Begun(Box<Pass>),
}

/// A pass, from its first time slice on.
pub(crate) struct Pass {
    work: Box<dyn Slices>,
    members: Vec<(Ticket, Duration)>,
    computed: Duration,
    slices: u64,
    /// One for each member, from the begin of the first time slice to the end of the last.
    _computing: Vec<Span>,
}

/// What came of a request, beside what its work has put into its caller's hands.
#[derive(Debug)]
pub(crate) struct Report {
    pub outcome: Result<(), ItemError>,
    /// From the request to the begin of its first time slice.
    pub waited: Duration,
    /// What the pass computed in all its time slices together.
    pub computed: Duration,
    pub slices: u64,
    /// Whether the pass was shared with other requests.
    pub shared: bool,
}

impl Worker {
    /// Starts the thread; `threads` is how many the CPU backend computes with, all cores if `None`.
    pub(crate) fn start(threads: Option<usize>, policy: SchedulerPolicy, pace: Pace) -> io::Result<Self> {
        let scheduler = Arc::new(Scheduler::new(policy));
        let (taken, device) = (Closing(Arc::clone(&scheduler)), pace.device.clone());
        thread::Builder::new().name("omniburn-device".into()).spawn(move || {
            Isa::choose_for_thread(pace.isa).expect("an engine checks its choice of kernels");
            // The worker is the pool's first thread, so that a job runs here and not beside here.
            let builder = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.unwrap_or(0))
                .thread_name(|i| format!("omniburn-compute-{i}"))
                .use_current_thread();
            let run = move || taken.run(&pace);
            match builder.build() {
                Ok(pool) => pool.install(run),
                // Without a pool of our own the global one serves.
                Err(_) => run(),
            }
        })?;
        Ok(Self { scheduler, device })
    }

    /// The device that the thread owns.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Queues a job and waits for its end; what it waits and computes stands in the trace of `unit`.
    pub(crate) fn compute(&self, ask: Ask, job: Job, unit: Span) -> Result<Report, ItemError> {
        Ok(self.scheduler.submit(ask, Submitted::new(job, unit))?.wait()?)
    }

    /// Runs `work` on the thread while the caller does something else. It counts in no figure.
    pub(crate) fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Pending<'_, T> {
        let (work, out) = Once::new(work);
        let job = Submitted::new(Job::Alone(Box::new(work.uncounted())), Span::none());
        let waiting = self.scheduler.submit(Ask::alone(Priority::Interactive), job);
        Pending { waiting: waiting.map_err(ItemError::from), out }
    }

    /// The numbers of requests that wait, `(interactive, background)`.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.scheduler.waiting()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.scheduler.close();
    }
}

/// Work that was handed to the thread.
pub(crate) struct Pending<'worker, T> {
    waiting: Result<Waiting<'worker, Submitted, Report>, ItemError>,
    out: Out<T>,
}

impl<T> Pending<'_, T> {
    /// Waits for it; a panic comes back as its error.
    pub(crate) fn wait(self) -> Result<T, ItemError> {
        self.waiting?.wait()?.outcome?;
        Ok(self.out.take())
    }
}

/// Closes the queue when the thread ends, so that nobody waits for it.
struct Closing(Arc<Scheduler<Submitted, Report>>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Closing {
    fn run(&self, pace: &Pace) {
        let fits = |head: &Submitted, priority: Priority, size: Size| match &head.job {
            Job::Texts(head) => head.may_grow_to(priority, size, pace),
            Job::Tower(head) => head.may_grow_to(priority, size, pace),
            Job::Alone(_) | Job::Begun(_) => false,
        };
        while let Some(turn) = self.0.next(fits) {
            time_slice(turn, pace);
        }
    }
}

/// One time slice of a turn.
fn time_slice(mut turn: Turn<'_, Submitted, Report>, pace: &Pace) {
    let priority = turn.priority();
    let members = turn.members().iter().copied().zip(turn.waits().iter().copied()).collect();
    let Some(mut pass) = Pass::of(turn.take_work(), members) else { return };
    let counted = pass.work.counts();
    if pass.slices == 0 && counted {
        pass.members.iter().for_each(|(_, waited)| pace.metrics.record_wait(priority, *waited));
    }
    let target = (priority == Priority::Background).then_some(pace.time_slice);
    let started = Instant::now();
    let until = Until { target, awaited: &|| turn.is_awaited() };
    let ran = catch_unwind(AssertUnwindSafe(|| pass.work.slice(until, pace)));
    let time = started.elapsed();
    pass.computed += time;
    pass.slices += 1;
    if counted {
        pace.metrics.record_slice(priority, time);
    }
    let outcome = match ran {
        Ok(Ok(false)) => return turn.yield_now(vec![Submitted::new(Job::Begun(pass), Span::none())]),
        Ok(Ok(true)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(ItemError::panicked(panic.as_ref())),
    };
    let Pass { work, members, computed, slices, _computing } = *pass;
    if counted {
        pace.metrics.record_compute(priority, computed);
    }
    // Before anybody is notified, so that its memory is free and its spans have ended by then.
    drop((work, _computing));
    let shared = members.len() > 1;
    let report = |(ticket, waited)| (ticket, Report { outcome: outcome.clone(), waited, computed, slices, shared });
    turn.finish(members.into_iter().map(report).collect());
}

impl Pass {
    /// The pass of a turn that begins or goes on; `None` for no work.
    fn of(jobs: Vec<Submitted>, members: Vec<(Ticket, Duration)>) -> Option<Box<Self>> {
        let (mut texts, mut pieces) = (Vec::new(), Vec::new());
        let computing = computing(&jobs);
        let new = |work| {
            let (computed, slices) = (Duration::ZERO, 0);
            Some(Box::new(Self { work, members, computed, slices, _computing: computing }))
        };
        for Submitted { job, .. } in jobs {
            match job {
                Job::Begun(pass) => return Some(pass),
                Job::Alone(work) => return new(work),
                Job::Texts(one) => texts.push(*one),
                Job::Tower(one) => pieces.push(*one),
            }
        }
        match TextPass::of(texts) {
            Some(pass) => new(Box::new(pass)),
            None => new(Box::new(TowerPass::of(pieces)?)),
        }
    }
}

/// The spans of what is computed, one in the trace of each caller; none where nobody traces.
fn computing(jobs: &[Submitted]) -> Vec<Span> {
    let traced = jobs.iter().filter(|submitted| !submitted.unit.is_disabled());
    traced.map(|Submitted { unit, .. }| tracing::trace_span!(parent: unit, "compute", callers = jobs.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_its_message_and_the_next_job_runs() {
        let pace = Pace {
            device: Device::flex(),
            eager: true,
            costs: Arc::default(),
            metrics: Arc::default(),
            time_slice: Duration::ZERO,
            isa: None,
        };
        let worker = Worker::start(Some(2), SchedulerPolicy::default(), pace).unwrap();
        let name = |worker: &Worker| worker.begin(|| thread::current().name().map(str::to_string)).wait().unwrap();
        let first = name(&worker);
        let failed: Result<(), ItemError> = worker.begin(|| panic!("shape {} is wrong", 7)).wait();
        assert!(matches!(failed, Err(ItemError::Panicked { message }) if message == "shape 7 is wrong"));
        assert_eq!(name(&worker), first);
        assert_eq!(first.as_deref(), Some("omniburn-device"));
    }
}
