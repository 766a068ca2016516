//! The scheduler under the model checker `loom`: its locks, threads and time.
//!
//! Only with the feature `loom`; the scheduler then works inside a model and nowhere else. Time is the model's: it stands
//! still until [`advance`] is called, from whichever thread and at whichever moment the checker chooses.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use crate::judge::Judge;
pub use crate::policy::Event;

/// The time of the model.
pub fn now() -> Instant {
    shim::now()
}

/// Lets time pass, and wakes whoever waits for no longer than this.
pub fn advance(by: Duration) {
    let mut clock = shim::CLOCK.lock();
    clock.passed += by;
    let now = start() + clock.passed;
    for (_, bell) in clock.sleepers.iter().filter(|(deadline, _)| *deadline <= now) {
        bell.ring();
    }
}

/// When every model begins. By the machine's type of clock, so that the scheduler has one interface with and without `loom`.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(crate) mod shim {
    use std::sync::{Arc, PoisonError};
    use std::time::{Duration, Instant};

    use loom::sync::Condvar;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    loom::lazy_static! {
        pub(super) static ref CLOCK: Clock = Clock::default();
    }

    /// The time since the start of the model, and who waits for a later one.
    #[derive(Default)]
    pub(super) struct Time {
        pub(super) passed: Duration,
        pub(super) sleepers: Vec<(Instant, Bell)>,
    }

    #[derive(Default)]
    pub(super) struct Clock(Mutex<Time>);

    impl Clock {
        pub(super) fn lock(&self) -> MutexGuard<'_, Time> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) fn now() -> Instant {
        super::start() + CLOCK.lock().passed
    }

    /// A token under a lock of its own, as `park` and `unpark` have it. Not loom's `park`, because its token is lost
    /// where the thread takes a lock before it parks (0.7.2, `set_runnable` in `rt/mutex.rs`).
    #[derive(Clone, Debug)]
    pub(crate) struct Bell(Arc<Inner>);

    #[derive(Debug)]
    struct Inner {
        rung: Mutex<bool>,
        rings: Condvar,
    }

    impl Bell {
        pub(crate) fn of_this_thread() -> Self {
            Self(Arc::new(Inner { rung: Mutex::new(false), rings: Condvar::new() }))
        }

        pub(crate) fn ring(&self) {
            *self.0.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.0.rings.notify_one();
        }

        pub(crate) fn wait(&self, deadline: Option<Instant>) {
            if let Some(deadline) = deadline {
                let mut clock = CLOCK.lock();
                if deadline <= super::start() + clock.passed {
                    return;
                }
                clock.sleepers.push((deadline, self.clone()));
            }
            let mut rung = self.0.rung.lock().unwrap_or_else(PoisonError::into_inner);
            while !*rung {
                rung = self.0.rings.wait(rung).unwrap_or_else(PoisonError::into_inner);
            }
            *rung = false;
            drop(rung);
            if deadline.is_some() {
                CLOCK.lock().sleepers.retain(|(_, bell)| !bell.is(self));
            }
        }

        pub(crate) fn is(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }
}
