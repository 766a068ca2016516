//! What every request sees of the server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::calls::Calls;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::options::Options;

/// Shared by all requests.
pub(crate) struct State {
    pub options: Options,
    pub models: Models,
    pub calls: Calls,
    pub metrics: Metrics,
    /// Nothing new is accepted.
    pub draining: AtomicBool,
    /// Seconds since 1970.
    pub started: u64,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let models = Models::new(&options.models);
        let metrics = Metrics::new(models.clone());
        let calls = Calls::new(options.max_queue);
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { options, models, calls, metrics, draining: AtomicBool::new(false), started }
    }
}

/// A number that names a request or a fault in the log.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
