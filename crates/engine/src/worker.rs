//! One thread a device: it owns the stream and the memory pool, and survives what panics on it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs jobs one after another, inside its own pool of compute threads.
///
/// One thread, because a CubeCL backend gives every thread a stream and a memory pool of its own; a pool apart,
/// because threads that decode must not compete with a unit that somebody waits for.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Starts the thread; `threads` is how many the CPU backend computes with, all cores if `None`.
    pub(crate) fn start(threads: Option<usize>) -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        thread::Builder::new().name("omniburn-device".into()).spawn(move || {
            // The worker is the pool's first thread, so that a job runs here and not beside here.
            let builder = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.unwrap_or(0))
                .thread_name(|i| format!("omniburn-compute-{i}"))
                .use_current_thread();
            match builder.build() {
                Ok(pool) => pool.install(move || inbox.into_iter().for_each(|job| job())),
                // Without a pool of our own the global one serves.
                Err(_) => inbox.into_iter().for_each(|job| job()),
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the thread and waits for it; a panic comes back as its message and the thread goes on.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        self.begin(work).wait()
    }

    /// Runs `work` on the thread while the caller does something else.
    pub(crate) fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
        let (reply, answer) = channel();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(panic.as_ref()));
            let _ = reply.send(result);
        });
        // Where the thread is gone, so is the other end of `answer`.
        let _ = self.jobs.send(job);
        Pending { answer }
    }
}

/// Work that was handed to the thread.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    answer: Receiver<Result<T, String>>,
}

impl<T> Pending<T> {
    /// Waits for it; a panic comes back as its message.
    pub(crate) fn wait(self) -> Result<T, String> {
        self.answer.recv().unwrap_or_else(|_| Err("the device's thread has ended".into()))
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_its_message_and_the_next_job_runs() {
        let worker = Worker::start(Some(2)).unwrap();
        let name = |worker: &Worker| worker.run(|| thread::current().name().map(str::to_string)).unwrap();
        let first = name(&worker);
        let failed: Result<(), String> = worker.run(|| panic!("shape {} is wrong", 7));
        assert_eq!(failed, Err("shape 7 is wrong".to_string()));
        assert_eq!(name(&worker), first);
        assert_eq!(first.as_deref(), Some("omniburn-device"));
    }
}
