//! Progress on standard error, where that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Says something on standard error. A closed standard error is no reason to stop.
pub fn say(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// A bar over bytes.
pub fn bytes_bar(total: u64, what: &'static str) -> ProgressBar {
    bar(Some(total), what, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}", false)
}

/// A bar over bytes that come from elsewhere, with their rate and the time left.
#[cfg(feature = "hub")]
pub fn transfer_bar(what: &'static str, quiet: bool) -> ProgressBar {
    bar(Some(0), what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}", quiet)
}

/// A bar over items, or their number where nobody knows how many will come.
pub fn items_bar(total: Option<u64>, what: &'static str, quiet: bool) -> ProgressBar {
    let template = if total.is_some() { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{msg} {pos} in {elapsed}" };
    bar(total, what, template, quiet)
}

fn bar(total: Option<u64>, what: &'static str, template: &str, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
