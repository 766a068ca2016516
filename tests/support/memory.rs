//! How much anonymous memory this process holds and held at most, by the operating system's count.
//!
//! In a file of its own, because programs of several packages measure with it: `#[path]` takes it in.

/// Anonymous memory of this process: what the operating system must find room for, mapped files left out.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes now.
    pub now: u64,
    /// At most since the last [`start_peak`], or since the process began.
    pub peak: u64,
}

/// Forgets the most memory that was ever held; false where the system does not let that happen.
pub fn start_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// What is held; `None` on systems that do not tell.
///
/// The peak is of all memory; what is mapped of files now is taken off it, so files that were let go of in between count.
pub fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let (anonymous, files) = (kib("RssAnon:")?, kib("RssFile:")? + kib("RssShmem:")?);
    let peak = kib("VmHWM:")?.saturating_sub(files).max(anonymous);
    Some(Memory { now: anonymous << 10, peak: peak << 10 })
}

/// Bytes of anonymous memory that work took at most above what was held before it; `None` where nobody tells.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = start_peak().then(memory).flatten();
    let result = work();
    let taken = before.and_then(|before| Some(memory()?.peak.saturating_sub(before.now)));
    (result, taken)
}
