//! Threads that work for the background beside those that compute and answer.

/// How far threads that read and decode for the background stand behind those that compute and answer.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 10;

/// Puts the calling thread, and those that it starts, behind the other threads where both want the same core.
pub(crate) fn stand_behind() {
    // Of a thread on Linux; elsewhere it would be of the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BEHIND) {
        tracing::debug!("a thread could not be put behind others: {error}");
    }
}
