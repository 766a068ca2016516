//! A look at folders without opening files: what is new, changed, unchanged or gone beside what an index knows.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::crawl::{Root, crawl};
use crate::error::IndexError;
use crate::store::{FailedFile, FileStat, KnownFile, Store, below, bytes_of_path};

/// A file changed this shortly before it was read may change again without another time of change.
const TIME_STEP_NS: i64 = 2_000_000_000;

/// A file that has to be read.
pub(crate) struct Task {
    pub file: FileStat,
    pub known: Option<KnownFile>,
    /// The folder whose rules count for it, by its place in the list.
    pub root: usize,
}

/// What an index knows of files.
#[derive(Default)]
pub(crate) struct Known {
    pub files: HashMap<Vec<u8>, KnownFile>,
    pub failed: HashMap<Vec<u8>, FailedFile>,
}

impl Known {
    /// Of an index.
    pub fn of(db: &dyn Store) -> Result<Self, IndexError> {
        let failed = db.failed_files()?.into_iter().map(|failed| (bytes_of_path(&failed.path), failed));
        Ok(Self { files: db.known_files()?, failed: failed.collect() })
    }
}

/// What a look found.
#[derive(Default)]
pub(crate) struct Look {
    pub tasks: Vec<Task>,
    pub unchanged: u64,
    pub passed_over: u64,
    /// Folders that could not be read, and files that could not be read before and are as they were.
    pub failed: Vec<FailedFile>,
    seen: HashSet<Vec<u8>>,
    /// Folders that could not be looked into: nothing is known of what lies in them.
    blocked: Vec<PathBuf>,
}

/// Looks at folders. Every file below a folder whose `recheck` is set is one to be read.
///
/// # Errors
/// As [`crawl`].
pub(crate) fn look(
    known: &Known,
    roots: &[Root],
    recheck: &[bool],
    interrupted: &dyn Fn() -> bool,
) -> Result<Look, IndexError> {
    let mut look = Look::default();
    for (at, root) in roots.iter().enumerate() {
        let found = crawl(root, interrupted)?;
        for (path, fault) in found.blocked {
            look.blocked.push(path.clone());
            look.failed.push(FailedFile { path, fault });
        }
        let recheck = recheck.get(at).copied().unwrap_or(false);
        for file in found.files {
            if !look.seen.insert(file.path.clone()) {
                continue;
            }
            match known.files.get(&file.path).copied() {
                Some(there) if !recheck && is_unchanged(&there, &file) => match known.failed.get(&file.path) {
                    Some(failed) => look.failed.push(failed.clone()),
                    None if there.content.is_none() => look.passed_over += 1,
                    None => look.unchanged += 1,
                },
                there => look.tasks.push(Task { file, known: there, root: at }),
            }
        }
    }
    Ok(look)
}

impl Look {
    /// Files of the index below the folders that were not found. Where a folder could not be read nothing is known of them,
    /// and a folder within (`others`) with rules of its own answers for itself.
    pub fn gone<'k>(&self, known: &'k Known, roots: &[Root], others: &[PathBuf]) -> Vec<(&'k Vec<u8>, &'k KnownFile)> {
        let is_gone = |path: &[u8]| {
            let within = roots.iter().any(|root| is_below(path, &root.path));
            within && !self.blocked.iter().chain(others).any(|folder| is_below(path, folder))
        };
        known.files.iter().filter(|(path, _)| !self.seen.contains(*path) && is_gone(path)).collect()
    }
}

/// A file that need not be read again.
fn is_unchanged(known: &KnownFile, file: &FileStat) -> bool {
    let settled = known.mtime_ns.saturating_add(TIME_STEP_NS) <= known.seen_ns || known.mtime_ns > known.seen_ns;
    known.is_as(file) && settled
}

fn is_below(path: &[u8], folder: &Path) -> bool {
    let (from, to) = below(folder);
    path == bytes_of_path(folder) || (path >= from.as_slice() && path < to.as_slice())
}
