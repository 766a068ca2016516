//! Whose panic it was.
//!
//! A panic of a third-party decoder is caught by our code and becomes a typed error: it is counted here. One that begins
//! in our own code is a bug, caught or not.

use std::collections::BTreeMap;
use std::panic::{Location, set_hook};
use std::sync::{Mutex, PoisonError};

/// Panics seen since [`watch`].
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Place and message of the first one in our own code.
    pub ours: Option<String>,
    /// Times that third-party code panicked, by place.
    pub theirs: BTreeMap<String, u64>,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { ours: None, theirs: BTreeMap::new() });

/// Takes note of every panic from now on, and prints none. `on_ours` hears of the first in our own code as it happens.
pub fn watch(on_ours: fn(&str)) {
    set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), Location::to_string);
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if is_third_party(&place) {
            *seen.theirs.entry(short(&place)).or_default() += 1;
        } else if seen.ours.is_none() {
            let what = format!("{place}: {}", panic.payload_as_str().unwrap_or("no message"));
            on_ours(&what);
            seen.ours = Some(what);
        }
    }));
}

/// What was seen so far.
#[must_use]
pub fn seen() -> Seen {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Crates of a registry lie below `registry/src`, the standard library below `/rustc/` or `library/`.
fn is_third_party(place: &str) -> bool {
    ["/registry/src/", "/git/checkouts/", "/rustc/", "/library/", "\\registry\\src\\"]
        .iter()
        .any(|part| place.contains(part))
}

/// From the name of the crate on.
fn short(place: &str) -> String {
    let after = |mark: &str| place.split_once(mark).map(|(_, rest)| rest);
    let rest = after("/registry/src/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
    rest.unwrap_or(place).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_tells_whose_code_it_is() {
        let theirs = "anywhere/registry/src/a-registry-1949cf8c/png-0.18.1/src/lib.rs:3:5";
        assert!(is_third_party(theirs) && is_third_party("/rustc/abc/library/core/src/slice.rs:1:2"));
        assert!(!is_third_party("crates/media/src/image.rs:10:5"));
        assert_eq!(short(theirs), "png-0.18.1/src/lib.rs:3:5");
    }
}
