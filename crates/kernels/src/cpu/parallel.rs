//! Tasks over the threads of the pool that the caller is in, or of rayon's own where it is in none.

use rayon::prelude::*;

use super::team;

/// Runs `task(0)` to `task(count - 1)`, on several threads where there are several.
pub fn parallel(count: usize, task: impl Fn(usize) + Sync + Send) {
    let threads = rayon::current_num_threads();
    if count <= 1 || threads == 1 {
        (0..count).for_each(task);
    } else if rayon::current_thread_index().is_some() {
        team::step(threads, count, &task);
    } else {
        (0..count).into_par_iter().for_each(task);
    }
}

/// Runs `task(first, end)` over ranges that cover `0..count`: one range if the work (`count` times `cost`, in values
/// touched) is not worth waking a thread, else a few for each thread.
pub fn parallel_ranges(count: usize, cost: usize, task: impl Fn(usize, usize) + Sync + Send) {
    // About 30 µs of work at a value a nanosecond; a quarter and a sixteenth of it measure the same.
    const WORTH: usize = 1 << 15;
    let threads = rayon::current_num_threads();
    let pieces = (count * cost / WORTH).min(4 * threads).min(count);
    if threads == 1 || pieces <= 1 {
        if count > 0 {
            task(0, count);
        }
        return;
    }
    let length = count.div_ceil(pieces);
    parallel(count.div_ceil(length), |i| task(i * length, ((i + 1) * length).min(count)));
}

/// A pointer that threads may share: each writes a part of its own.
#[derive(Debug)]
pub struct Shared<T>(*mut T);

// SAFETY: whoever makes one sees to it that no two threads touch one place.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}

impl<T> Shared<T> {
    /// The beginning of what is shared.
    pub fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The place `offset` values on.
    ///
    /// # Safety
    /// It lies inside what is shared.
    #[inline(always)]
    pub unsafe fn at(self, offset: usize) -> *mut T {
        unsafe { self.0.add(offset) }
    }
}
