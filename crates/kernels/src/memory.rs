//! Freed memory that the allocator keeps, given back to the system.

/// Has the allocator keep one heap for all threads instead of one a thread, and reuse what is freed in it, where it can be
/// set so: for programs, which call it first thing in `main`; a library does not decide such a thing for its process.
///
/// With a heap a thread, what threads leave behind in each other's heaps makes glibc grow for as long as requests of
/// varied length come: 28 MiB in 2,000 requests of all kinds, and no end in sight; with one heap none. Tasks on threads ask
/// for nothing ([`crate::cpu::scratch`]), so nobody waits for the one heap.
///
/// Left to itself, glibc maps large blocks and unmaps them, or cuts the heap's end off, at limits that it moves as it goes:
/// activations of a pass then cost a page fault each 4 KiB in every step (sixteen texts of 128 tokens through the model that
/// ships, in int8: 79 ms; with fixed limits 75). What is held goes back by [`trim_memory`], as the engine's budget says.
///
/// The heap begins with 128 MiB that are asked for in pages of 2 MiB, which Linux gives where they are asked for before they are
/// touched: a model that opens then has a tenth of the page faults, which are half of its time on a virtual machine. Until they
/// are touched they take no memory.
pub fn settle_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and sets a limit that the allocator reads when it next makes a heap. What is allocated is
    // freed unused; `sbrk(0)` says where the heap ends, and `madvise` is advice about its pages that changes none of their bytes.
    unsafe {
        /// The most that glibc takes on 64 bits; larger blocks are mapped.
        const MAPPED_FROM: libc::c_int = 32 << 20;
        /// Freed bytes at the heap's end that go back at once.
        const MOST_AT_END: libc::c_int = 512 << 20;
        /// What the heap grows by.
        const GROWTH: libc::c_int = 16 << 20;
        /// More than a heap has at first, so that it grows.
        const MORE: usize = 1 << 20;
        /// What it grows by the first time.
        const AT_ONCE: libc::c_int = 128 << 20;
        const LARGE_PAGE: usize = 2 << 20;
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_AT_END);
        libc::mallopt(libc::M_TOP_PAD, AT_ONCE);
        // Seen from outside, so that the compiler does not leave both calls out.
        libc::free(std::hint::black_box(libc::malloc(MORE)));
        libc::mallopt(libc::M_TOP_PAD, GROWTH);
        let end = libc::sbrk(0);
        let begin = (end.addr() - AT_ONCE as usize).next_multiple_of(LARGE_PAGE);
        libc::madvise(end.with_addr(begin), end.addr() - begin, libc::MADV_HUGEPAGE);
    }
}

/// Gives what was freed and is still held by the allocator back to the system, where the allocator can be asked to:
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
