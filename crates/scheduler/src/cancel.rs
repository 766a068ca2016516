//! The handle by which a caller gives up a long call. It knows whom to wake, and nothing of queues.

use std::sync::{Arc, PoisonError};

use crate::sync::{AtomicBool, Bell, Mutex, MutexGuard, Ordering};

/// A handle by which a caller gives up a long call; clones share one flag, which never goes back.
///
/// A caller that waits at a [`Scheduler`](crate::Scheduler) with it wakes at once; work under way is asked between its time
/// slices, since a running one cannot be interrupted.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    inner: Arc<CancelInner>,
}

#[derive(Debug, Default)]
struct CancelInner {
    cancelled: AtomicBool,
    /// Threads to wake; each waits for no more than one answer.
    listed: Mutex<Vec<Bell>>,
}

impl Cancel {
    /// A handle that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up: sets the flag for every clone and wakes those who wait with it. A second call changes nothing.
    pub fn cancel(&self) {
        self.set();
        for bell in self.lock().iter() {
            bell.ring();
        }
    }

    /// Whether [`cancel`](Self::cancel) was called on this handle or a clone of it.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// Whether both are one handle or clones of one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The flag alone, without the wake-up.
    pub(crate) fn set(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
    }

    /// Has `bell` rung by `cancel` until the result is dropped.
    pub(crate) fn list(&self, bell: Bell) -> Listed<'_> {
        self.lock().push(bell.clone());
        Listed { cancel: self, bell }
    }

    /// How many threads it would wake.
    #[cfg(any(test, feature = "loom"))]
    pub fn listed(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Bell>> {
        self.inner.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes its bell off the list again.
pub(crate) struct Listed<'cancel> {
    cancel: &'cancel Cancel,
    bell: Bell,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut listed = self.cancel.lock();
        if let Some(place) = listed.iter().position(|bell| bell.is(&self.bell)) {
            listed.swap_remove(place);
        }
    }
}
