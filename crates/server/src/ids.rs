//! Numbers that name a request or a fault in the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that names a request or a fault in the log.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
