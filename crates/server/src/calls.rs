//! Calls to engines from requests: how many at once, and what happens to one whose client went away.

use std::sync::Arc;
use std::time::Duration;

use omniburn::{Cancel, MetricsSnapshot, Priority};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::error::ApiError;
use crate::models::Lease;

/// Places for calls.
pub(crate) struct Calls {
    places: Arc<Semaphore>,
    limit: usize,
}

/// Cancels a call when the future that waits for it is dropped: its client has gone away.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Calls {
    pub(crate) fn new(limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Calls in work now.
    pub(crate) fn in_work(&self) -> usize {
        self.limit - self.places.available_permits()
    }

    /// Runs a call of an engine on a thread that may block. The call is asked to stop at its next unit if the caller's future is
    /// dropped; its place is free when it has ended.
    ///
    /// # Errors
    /// 429 at once where no place is free; 500 if the call panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lease: Lease,
        call: impl FnOnce(&Lease, Cancel) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                let wait = expected_wait(&lease.engine().metrics(), Priority::Background);
                return Err(ApiError::overloaded(format!("{} calls are in work, as many as may", self.limit), wait));
            }
        };
        let cancel = Cancel::new();
        let _gone = CancelOnDrop(cancel.clone());
        // Of the request, so that what the call does stands in its trace.
        let traced = tracing::Span::current();
        let running = tokio::task::spawn_blocking(move || {
            let result = traced.in_scope(|| call(&lease, cancel));
            drop((lease, place));
            result
        });
        running.await.map_err(|error| ApiError::internal(&error))
    }
}

/// How long a caller of a class is likely to wait for the device, by what those before it waited.
pub(crate) fn expected_wait(metrics: &MetricsSnapshot, priority: Priority) -> Duration {
    let class = match priority {
        Priority::Interactive => &metrics.interactive,
        Priority::Background => &metrics.background,
    };
    class.waits.p95
}
