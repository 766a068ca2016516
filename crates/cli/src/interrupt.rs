//! Ctrl-C: once to stop in order, twice to stop at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::INTERRUPTED;
use crate::progress::say;

/// Calls `stop` at the first interruption and ends the process at the second.
pub fn on_interrupt(stop: impl Fn() + Send + 'static) {
    let asked = AtomicBool::new(false);
    let set = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop();
    });
    if let Err(e) = set {
        say(format_args!("warning: Ctrl-C ends this command without tidying up: {e}"));
    }
}
