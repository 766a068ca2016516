//! What the scheduler needs of threads and of time: the standard library's, or with the feature `loom` the model checker's.

#[cfg(feature = "loom")]
pub(crate) use crate::model::shim::*;
#[cfg(not(feature = "loom"))]
pub(crate) use real::*;

#[cfg(not(feature = "loom"))]
mod real {
    use std::thread::{self, Thread};
    use std::time::Instant;

    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Wakes one thread, the one it was made on. A ring is kept until the next wait, so none is lost; a wait may also
    /// end without one.
    #[derive(Clone, Debug)]
    pub(crate) struct Bell(Thread);

    impl Bell {
        pub(crate) fn of_this_thread() -> Self {
            Self(thread::current())
        }

        pub(crate) fn ring(&self) {
            self.0.unpark();
        }

        /// Waits for a ring, but not past `deadline`.
        pub(crate) fn wait(&self, deadline: Option<Instant>) {
            match deadline {
                None => thread::park(),
                Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(now())),
            }
        }

        pub(crate) fn is(&self, other: &Self) -> bool {
            self.0.id() == other.0.id()
        }
    }
}
