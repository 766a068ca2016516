//! What an update would do: no file is read but for the bytes that tell its kind, and nothing is written.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::crawl::Root;
use crate::embedder::EmbedderProfile;
use crate::error::{Fault, IndexError};
use crate::kind::{Kind, SNIFF_BYTES};
use crate::look::{Known, Task, look};
use crate::store::{FailedFile, path_of_bytes};

/// What an update would do. A renamed file is one that is new and one that is gone: only its content tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Files that are not in the index.
    pub new: Vec<PathBuf>,
    /// Files with another size or time of change than in the index.
    pub changed: Vec<PathBuf>,
    /// Files of the index that are gone, or that the rules do not take any more.
    pub removed: Vec<PathBuf>,
    /// Files as they were.
    pub unchanged: u64,
    /// Files of no kind that is indexed.
    pub passed_over: u64,
    /// Files and folders that cannot be read.
    pub failed: Vec<FailedFile>,
}

/// What an update of these folders would do.
///
/// # Errors
/// As an update's look: a pattern that is none, an interruption.
pub(crate) fn plan(
    known: &Known,
    profile: &EmbedderProfile,
    roots: &[Root],
    others: &[PathBuf],
    recheck: &[bool],
    interrupted: &dyn Fn() -> bool,
) -> Result<Plan, IndexError> {
    let look = look(known, roots, recheck, interrupted)?;
    let mut plan = Plan::default();
    for Task { file, known, root } in &look.tasks {
        if interrupted() {
            return Err(IndexError::Interrupted);
        }
        let path = path_of_bytes(file.path.clone());
        let kind = match kind_of(&path) {
            Ok(kind) => kind.filter(|kind| profile.modalities.contains(&kind.modality())),
            Err(fault) => {
                plan.failed.push(FailedFile { path, fault });
                continue;
            }
        };
        let before = known.filter(|known| known.content.is_some());
        match (kind, before) {
            (Some(kind), Some(before)) if roots[*root].rules.takes(kind) => {
                if before.is_as(file) {
                    plan.unchanged += 1;
                } else {
                    plan.changed.push(path);
                }
            }
            (Some(kind), None) if roots[*root].rules.takes(kind) => plan.new.push(path),
            (_, Some(_)) => plan.removed.push(path),
            (None, None) => plan.passed_over += 1,
            (Some(_), None) => {}
        }
    }
    let gone = look.gone(known, roots, others);
    plan.removed
        .extend(gone.iter().filter(|(_, file)| file.content.is_some()).map(|(path, _)| path_of_bytes((*path).clone())));
    plan.unchanged += look.unchanged;
    plan.passed_over += look.passed_over;
    plan.failed.extend(look.failed);
    for paths in [&mut plan.new, &mut plan.changed, &mut plan.removed] {
        paths.sort();
    }
    plan.failed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(plan)
}

/// The kind of a file by its first bytes and its name.
fn kind_of(path: &Path) -> Result<Option<Kind>, Fault> {
    let mut head = Vec::new();
    let open = std::fs::File::open(path).map_err(|e| Fault::of_io(&e))?;
    open.take(SNIFF_BYTES).read_to_end(&mut head).map_err(|e| Fault::of_io(&e))?;
    Ok(Kind::of(path, omniburn_media::sniff(&head)))
}
