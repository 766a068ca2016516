//! Folders of the user that the program keeps things in.

use std::path::PathBuf;

/// Where caches lie: what may be thrown away and is made anew. `None` where no home folder is known.
pub(super) fn cache() -> Option<PathBuf> {
    let base = match std::env::consts::OS {
        "windows" => named("LOCALAPPDATA"),
        "macos" => home().map(|home| home.join("Library").join("Caches")),
        _ => named("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("omniburn"))
}

/// Where records that `omniburn pull` made lie, by `ORG/NAME`. `None` where no home folder is known.
pub(super) fn records() -> Option<PathBuf> {
    Some(data()?.join("records"))
}

/// Where indexes lie, by their names. `None` where no home folder is known.
pub(super) fn indexes() -> Option<PathBuf> {
    Some(data()?.join("indexes"))
}

/// Where what the user wants to keep lies.
fn data() -> Option<PathBuf> {
    let base = match std::env::consts::OS {
        "windows" => named("LOCALAPPDATA"),
        "macos" => home().map(|home| home.join("Library").join("Application Support")),
        _ => named("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local").join("share"))),
    };
    base.map(|base| base.join("omniburn"))
}

/// A variable that holds a whole path; the standard says to pass over others.
fn named(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}
