//! How much anonymous memory this process holds and held at most, by the operating system's count.
//!
//! In a file of its own, because programs of several packages measure with it: `#[path]` takes it in.

/// Forgets the most memory that was ever held; false where the system does not let that happen.
pub fn start_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes of anonymous memory that this process holds: what the system must find room for, mapped files left out. `None` on
/// systems that do not tell.
pub fn held() -> Option<u64> {
    Counts::now().map(|counts| counts.anonymous)
}

/// What the system counts, in bytes.
#[derive(Debug, Clone, Copy)]
struct Counts {
    anonymous: u64,
    files: u64,
    /// Both together at most.
    most: u64,
}

impl Counts {
    fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |key: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self {
            anonymous: bytes("RssAnon:")?,
            files: bytes("RssFile:")? + bytes("RssShmem:")?,
            most: bytes("VmHWM:")?,
        })
    }
}

/// Mapped files may move by so much before they blur the peak: it is of both together.
const STILL: u64 = 1 << 20;

/// Bytes of anonymous memory that work took at most above what was held before it; `None` where nobody tells.
///
/// Where mapped files stay as they are, it is exact: the system's own peak without them. A system that takes pages of
/// files back from a running process, or brings many in, blurs that; then it is the most that was seen every 0.2 ms.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = start_peak().then(Counts::now).flatten();
    let (Some(before), Some(held)) = (before, held()) else { return (work(), None) };
    let done = std::sync::atomic::AtomicBool::new(false);
    let (result, seen) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut least, mut most, mut anonymous) = (before.files, before.files, before.anonymous);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if let Some(now) = Counts::now() {
                    least = least.min(now.files);
                    most = most.max(now.files);
                    anonymous = anonymous.max(now.anonymous);
                }
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            (least, most, anonymous)
        });
        let result = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (result, watch.join())
    });
    let taken = Counts::now().and_then(|after| {
        let (least, most, anonymous) = seen.ok()?;
        let (least, most) = (least.min(after.files), most.max(after.files));
        let still = most - least <= STILL;
        let peak = if still { after.most.saturating_sub(least).max(anonymous) } else { anonymous.max(after.anonymous) };
        Some(peak.saturating_sub(held))
    });
    (result, taken)
}
