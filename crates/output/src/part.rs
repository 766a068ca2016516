//! Names and locks of what is not complete yet.
//!
//! Beside `NAME` lies `.NAME.<pid>.part` while it is made, locked for as long as its maker lives: the operating system
//! frees the lock however the process ends, so a part whose lock is free is that of a dead process.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a run that was killed left beside its destination, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// Half-written files, or an old folder that was replaced: they are gone now.
    Removed {
        /// The file or folder.
        path: PathBuf,
    },
    /// The old folder had been set aside and nothing had taken its place: it is back.
    Restored {
        /// Where it had been set aside.
        path: PathBuf,
        /// Where it is again.
        out: PathBuf,
    },
    /// What could not be removed; the next run tries again.
    Kept {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leftover::Removed { path } => write!(f, "removed {}, left by a run that was killed", path.display()),
            Leftover::Restored { path, out } => write!(
                f,
                "put the record back to {} from {}, where a run that was killed had set it aside",
                out.display(),
                path.display()
            ),
            Leftover::Kept { path, reason } => {
                write!(f, "{} is left over and could not be removed: {reason}", path.display())
            }
        }
    }
}

/// `.NAME.<pid>.part`, or `.NAME.<pid>-<n>.part` for another in one process.
pub(crate) fn part_name(name: &OsStr, n: usize) -> OsString {
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}", std::process::id()));
    if n > 0 {
        part.push(format!("-{n}"));
    }
    part.push(".part");
    part
}

/// Whether `part` is a name that [`part_name`] gives for `name`, in whichever process.
pub(crate) fn is_part_name(part: &OsStr, name: &OsStr) -> bool {
    let middle = part
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_encoded_bytes())?.strip_prefix(b".")?.strip_suffix(b".part"));
    middle.is_some_and(|middle| {
        let mut numbers = middle.splitn(2, |&b| b == b'-');
        numbers.all(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    })
}

/// The folder that a path lies in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Makes the names in a folder last through a loss of power, where the system has a call for it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        return match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Some file systems have no such call for folders, and some users may not read theirs.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
            done => done,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_makers_of_this_destination_are_leftovers() {
        let ours = |name: &str| is_part_name(OsStr::new(name), OsStr::new("rec"));
        assert!(ours(".rec.12.part") && ours(".rec.12-3.part"));
        for n in 0..2 {
            assert!(is_part_name(&part_name(OsStr::new("rec"), n), OsStr::new("rec")));
        }
        for other in
            ["rec", ".rec.part", ".rec..part", ".rec.12", ".rec.12x.part", ".rec.json.12.part", ".recs.12.part"]
        {
            assert!(!ours(other), "{other}");
        }
        for other in [".rec.-1.part", ".rec.1-.part", ".rec.1-2-3.part", "..rec.12.part"] {
            assert!(!ours(other), "{other}");
        }
    }
}
