//! Freed memory that the allocator keeps, given back to the system.

/// Has the allocator keep one heap for all threads instead of one a thread, where it can be told to: for programs, which
/// call it first thing in `main`; a library does not decide such a thing for its process.
///
/// With a heap a thread, what threads leave behind in each other's heaps makes glibc grow for as long as requests of
/// varied length come: 28 MiB in 2,000 requests of all kinds, and no end in sight; with one heap none. Large blocks are
/// few here and small ones are cached by thread, so nobody waits for the one heap.
pub fn settle_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and sets a limit that the allocator reads when it next makes a heap.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives what was freed and is still held by the allocator back to the system, where the allocator can be told to:
/// glibc keeps freed blocks in an arena a thread, and the system counts them as used. Elsewhere nothing happens.
///
/// It takes 0.1 to 2 ms, by the size of the heap.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes a number, touches nothing but free blocks, and locks the arenas it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}
