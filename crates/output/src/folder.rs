//! The folder something is made in, how it takes its place, and what is done about those whose process was killed.
//!
//! Beside `OUT` lies `.OUT.<pid>.part` while a record is made. It holds `lock`, which the maker keeps locked for as long
//! as it lives (the operating system frees it however the process ends), `new`, the folder itself, and in the fallback below
//! `old`. A whole new folder is exchanged with an old one in one step where the system can; elsewhere the old one is
//! first set aside as `old`, and whoever comes next puts it back if the maker died before the second step. What the
//! folder holds is none of this file's business.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::destination::{follow, keep_owner_and_mode};
use crate::error::OutputError;
use crate::part::{Leftover, is_part_name, parent, part_name, sync_folder};

const LOCK: &str = "lock";
const NEW: &str = "new";
const OLD: &str = "old";
/// What `old` is called while it is removed: a half-removed record must never be put back.
const GONE: &str = "gone";

/// The folder that a path means: the one that its links lead to, whether it is there or not.
///
/// # Errors
/// [`OutputError::Circle`], [`OutputError::NotAName`] of the root, [`OutputError::Io`].
pub fn destination(out: &Path) -> Result<PathBuf, OutputError> {
    let end = follow(out)?;
    if end.file_name().is_some() {
        return Ok(end);
    }
    // `.` and `..` have a name in their own parent.
    let whole = fs::canonicalize(&end).map_err(OutputError::io(out))?;
    if whole.file_name().is_none() {
        return Err(OutputError::NotAName { path: out.to_path_buf() });
    }
    Ok(whole)
}

/// The folder of one maker; dropped, it is removed with what is in it.
#[derive(Debug)]
pub struct WholeFolder {
    out: PathBuf,
    folder: PathBuf,
    /// Locked while this maker lives; none where the file system knows no locks, and then nobody removes the folder.
    lock: Option<File>,
}

impl WholeFolder {
    /// A new folder beside `out`, with an empty `new` in it. `out` is what [`destination`] gives.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn create(out: &Path) -> Result<Self, OutputError> {
        let parent = parent(out);
        fs::create_dir_all(&parent).map_err(OutputError::io(&parent))?;
        // Taken are the names of this process's other threads, and of a dead process of the same number.
        for n in 0..1000 {
            let folder = parent.join(part_name(&file_name(out), n));
            match Self::start(out, &folder) {
                Ok(Some(work)) => return Ok(work),
                Ok(None) => {}
                Err(e) => {
                    // Nothing but an empty `lock` and an empty `new` can be in it.
                    let _ = fs::remove_dir(folder.join(NEW));
                    let _ = fs::remove_file(folder.join(LOCK));
                    let _ = fs::remove_dir(&folder);
                    return Err(OutputError::io(&folder)(e));
                }
            }
        }
        Err(OutputError::io(parent.join(part_name(&file_name(out), 0)))(ErrorKind::AlreadyExists.into()))
    }

    /// `None` where the name is taken, or a cleaner took the folder before it was locked.
    fn start(out: &Path, folder: &Path) -> io::Result<Option<Self>> {
        let taken = |e: io::Error| match e.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound => Ok(None),
            _ => Err(e),
        };
        if let Err(e) = fs::create_dir(folder) {
            return if e.kind() == ErrorKind::AlreadyExists { Ok(None) } else { Err(e) };
        }
        let lock = match File::create_new(folder.join(LOCK)) {
            Ok(lock) => lock,
            Err(e) => return taken(e),
        };
        let lock = match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(_)) => None,
        };
        // A cleaner that came before the lock has removed the file, and then this lock is of no use.
        if !folder.join(LOCK).exists() {
            return Ok(None);
        }
        match fs::create_dir(folder.join(NEW)) {
            Ok(()) => Ok(Some(Self { out: out.to_path_buf(), folder: folder.to_path_buf(), lock })),
            Err(e) => taken(e),
        }
    }

    /// Where the new record is made.
    pub fn new_folder(&self) -> PathBuf {
        self.folder.join(NEW)
    }

    /// Puts the new folder where `out` is: an older record there is whole until then, and the new one from then on.
    /// Gives what could not be removed of the old one.
    ///
    /// # Errors
    /// [`OutputError::Exists`] where something has come there and `force` is not given; what `check` says of what would be
    /// replaced; [`OutputError::Io`]. The destination is then as it was.
    pub fn place<E: From<OutputError>>(
        self,
        force: bool,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<Option<Leftover>, E> {
        sync_folder(&self.new_folder()).map_err(OutputError::io(self.new_folder()))?;
        // Again where somebody else made or removed `out` between the look and the step.
        for _ in 0..100 {
            let taken = is_taken(&self.out).map_err(OutputError::io(&self.out))?;
            if taken && !force {
                return Err(OutputError::Exists { path: self.out.clone() }.into());
            }
            let placed = if taken {
                check()?;
                if let Ok(old) = fs::metadata(&self.out) {
                    keep_owner_and_mode(&self.new_folder(), &old);
                }
                self.replace(exchange)
            } else {
                fs::rename(self.new_folder(), &self.out)
            };
            match placed {
                Ok(()) => {
                    // The record is in its place whatever these say; they only make it last through a loss of power.
                    let _ = sync_folder(&self.folder);
                    let _ = sync_folder(&parent(&self.out));
                    return Ok(self
                        .clean_up()
                        .err()
                        .map(|reason| Leftover::Kept { path: self.folder.clone(), reason }));
                }
                Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) && !taken => {}
                Err(e) if e.kind() == ErrorKind::NotFound && taken => {}
                Err(e) => return Err(OutputError::io(&self.out)(e).into()),
            }
        }
        Err(OutputError::io(&self.out)(ErrorKind::ResourceBusy.into()).into())
    }

    /// Exchanges `new` and `out` in one step, or in two with the old record set aside where the system has no such step.
    fn replace(&self, exchange: fn(&Path, &Path) -> io::Result<bool>) -> io::Result<()> {
        if exchange(&self.new_folder(), &self.out)? {
            return Ok(());
        }
        let old = self.folder.join(OLD);
        fs::rename(&self.out, &old)?;
        fs::rename(self.new_folder(), &self.out).inspect_err(|_| {
            // Where this fails too, it stays set aside, and `clean_up` and the next run try again.
            let _ = fs::rename(&old, &self.out);
        })
    }

    fn clean_up(&self) -> Result<(), String> {
        clean(&self.out, &self.folder).map(|_| ()).map_err(|e| e.to_string())
    }
}

impl Drop for WholeFolder {
    fn drop(&mut self) {
        let _ = self.clean_up();
        // Last: nobody takes the folder for a dead one while it is removed.
        drop(self.lock.take());
    }
}

/// Removes what killed makers of `out` left, and puts an old folder back that was set aside with nothing in its place. A
/// folder whose maker lives is left alone. Ordered by name.
///
/// # Errors
/// [`OutputError::Io`] where the folder of `out` cannot be listed.
pub fn recover(out: &Path) -> Result<Vec<Leftover>, OutputError> {
    let parent = parent(out);
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(OutputError::io(&parent)(e)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(OutputError::io(&parent))?;
        if is_part_name(&entry.file_name(), &file_name(out)) && entry.file_type().is_ok_and(|t| t.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders.into_iter().filter_map(|folder| recover_one(out, folder)).collect())
}

fn recover_one(out: &Path, path: PathBuf) -> Option<Leftover> {
    let kept = |reason: String| Some(Leftover::Kept { path: path.clone(), reason });
    // Held to the end of this function, so that two cleaners do not meet.
    let _lock = match File::options().read(true).write(true).open(path.join(LOCK)) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(e)) => return kept(format!("whether its maker lives is not known: {e}")),
        },
        // Without a lock in it, it has just been made (and is empty), or is nearly removed: `lock` goes last.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return match fs::remove_dir(&path) {
                Ok(()) => Some(Leftover::Removed { path }),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                // Its maker has made `lock` in between, or it holds what no maker puts there.
                Err(_) if path.join(LOCK).exists() => None,
                Err(e) => kept(e.to_string()),
            };
        }
        Err(e) => return kept(e.to_string()),
    };
    match clean(out, &path) {
        Ok(true) => Some(Leftover::Restored { path, out: out.to_path_buf() }),
        Ok(false) => Some(Leftover::Removed { path }),
        Err(e) => kept(e.to_string()),
    }
}

/// Removes a folder whose lock the caller holds; says whether it put an old record back first.
fn clean(out: &Path, folder: &Path) -> io::Result<bool> {
    let old = folder.join(OLD);
    let mut restored = false;
    if is_taken(&old)? {
        if is_taken(out)? {
            fs::rename(&old, folder.join(GONE))?;
        } else {
            fs::rename(&old, out)?;
            sync_folder(&parent(out))?;
            restored = true;
        }
    }
    for name in [NEW, GONE] {
        // After an exchange `new` is what `out` was, which may be a link; only the link is removed then.
        absent_is_fine(fs::remove_dir_all(folder.join(name)))?;
    }
    absent_is_fine(fs::remove_file(folder.join(LOCK)))?;
    absent_is_fine(fs::remove_dir(folder))?;
    Ok(restored)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Whether anything is there, a dangling link included.
fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Exchanges two names in one step; false where the system or this file system has none.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(e) if [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP].contains(&e) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

fn file_name(out: &Path) -> OsString {
    out.file_name().map_or_else(|| "record".into(), OsStr::to_os_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &Path, what: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("what"), what).unwrap();
    }

    fn what(path: &Path) -> Option<String> {
        fs::read_to_string(path.join("what")).ok()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// As a kill leaves it: nothing is removed, and the lock is free.
    fn killed(mut work: WholeFolder) -> PathBuf {
        drop(work.lock.take());
        let folder = work.folder.clone();
        std::mem::forget(work);
        folder
    }

    fn no_exchange(_: &Path, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    #[test]
    fn the_old_one_is_exchanged_for_the_new_one_and_removed_with_and_without_the_one_step() {
        for step in [exchange as fn(&Path, &Path) -> io::Result<bool>, no_exchange] {
            let root = tempfile::tempdir().unwrap();
            let out = root.path().join("rec");
            record(&out, "old");
            let work = WholeFolder::create(&out).unwrap();
            record(&work.new_folder(), "new");
            work.replace(step).unwrap();
            assert_eq!(what(&out).as_deref(), Some("new"));
            assert_eq!(names(root.path()).len(), 2);
            drop(work);
            assert_eq!((what(&out).as_deref(), names(root.path())), (Some("new"), vec!["rec".to_string()]));
        }
    }

    #[test]
    fn killed_between_two_renames_the_old_one_is_put_back_by_whoever_comes_next() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let work = WholeFolder::create(&out).unwrap();
        record(&work.new_folder(), "new");
        record(&work.folder.join(OLD), "old");
        let path = killed(work);
        assert_eq!(recover(&out).unwrap(), [Leftover::Restored { path, out: out.clone() }]);
        assert_eq!((what(&out).as_deref(), names(root.path())), (Some("old"), vec!["rec".to_string()]));
        assert_eq!(recover(&out).unwrap(), []);
    }

    #[test]
    fn killed_after_both_renames_the_new_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        record(&out, "new");
        let work = WholeFolder::create(&out).unwrap();
        fs::remove_dir(work.new_folder()).unwrap();
        record(&work.folder.join(OLD), "old");
        let path = killed(work);
        assert_eq!(recover(&out).unwrap(), [Leftover::Removed { path }]);
        assert_eq!((what(&out).as_deref(), names(root.path())), (Some("new"), vec!["rec".to_string()]));
    }

    #[test]
    fn a_half_removed_old_one_is_never_put_back() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let work = WholeFolder::create(&out).unwrap();
        record(&work.folder.join(GONE), "half");
        let path = killed(work);
        assert_eq!(recover(&out).unwrap(), [Leftover::Removed { path }]);
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn a_second_rename_that_fails_puts_the_old_one_back() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        record(&out, "old");
        let work = WholeFolder::create(&out).unwrap();
        fs::remove_dir(work.new_folder()).unwrap();
        assert_eq!(work.replace(no_exchange).unwrap_err().kind(), ErrorKind::NotFound);
        drop(work);
        assert_eq!((what(&out).as_deref(), names(root.path())), (Some("old"), vec!["rec".to_string()]));
    }

    #[test]
    fn a_maker_that_lives_keeps_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let (first, second) = (WholeFolder::create(&out).unwrap(), WholeFolder::create(&out).unwrap());
        record(&first.new_folder(), "first");
        record(&second.new_folder(), "second");
        assert_eq!(recover(&out).unwrap(), []);
        let dead = killed(first);
        assert_eq!(recover(&out).unwrap(), [Leftover::Removed { path: dead }]);
        assert_eq!(second.place::<OutputError>(false, || Ok(())).unwrap(), None);
        assert_eq!((what(&out).as_deref(), names(root.path())), (Some("second"), vec!["rec".to_string()]));
    }

    #[test]
    fn killed_before_or_after_its_lock_a_maker_leaves_what_the_next_run_removes() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let folder = root.path().join(".rec.1.part");
        for steps in 0..3 {
            fs::create_dir(&folder).unwrap();
            if steps > 0 {
                fs::write(folder.join(LOCK), "").unwrap();
            }
            if steps > 1 {
                fs::create_dir(folder.join(NEW)).unwrap();
            }
            assert_eq!(recover(&out).unwrap(), [Leftover::Removed { path: folder.clone() }], "{steps}");
            assert_eq!(names(root.path()), [""; 0]);
        }
    }

    #[test]
    fn a_folder_of_that_name_with_other_things_in_it_is_named_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let folder = root.path().join(".rec.1.part");
        record(&folder, "a thesis");
        assert!(matches!(&recover(&out).unwrap()[..], [Leftover::Kept { path, .. }] if path == &folder));
        assert_eq!(what(&folder).as_deref(), Some("a thesis"));
        // A maker's, with somebody's file beside its own: that file stays.
        fs::write(folder.join(LOCK), "").unwrap();
        assert!(matches!(&recover(&out).unwrap()[..], [Leftover::Kept { path, .. }] if path == &folder));
        assert_eq!(what(&folder).as_deref(), Some("a thesis"));
    }

    #[test]
    fn a_destination_that_appears_meanwhile_is_replaced_only_by_force() {
        for force in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let out = root.path().join("rec");
            let work = WholeFolder::create(&out).unwrap();
            record(&work.new_folder(), "new");
            record(&out, "theirs");
            let placed = work.place::<OutputError>(force, || Ok(()));
            assert_eq!(placed.is_ok(), force);
            assert_eq!(what(&out).as_deref(), Some(if force { "new" } else { "theirs" }));
            assert_eq!(names(root.path()), ["rec"]);
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_destination_is_what_its_links_lead_to_and_has_a_name() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("real")).unwrap();
        for (to, link) in [("real", "link"), ("link", "chain"), ("none", "dangling"), ("circle", "circle")] {
            symlink(to, at(link)).unwrap();
        }
        let real = fs::canonicalize(at("real")).unwrap();
        for (name, end) in [("real", at("real")), ("link", at("real")), ("chain", at("real")), ("dangling", at("none"))]
        {
            assert_eq!(destination(&at(name)).unwrap(), end, "{name}");
        }
        assert_eq!(destination(&at("real/..")).unwrap(), real.parent().unwrap());
        assert!(matches!(destination(&at("circle")), Err(OutputError::Circle { .. })));
        assert!(matches!(destination(Path::new("/")), Err(OutputError::NotAName { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_that_is_replaced_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        record(&out, "old");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o710)).unwrap();
        let work = WholeFolder::create(&out).unwrap();
        record(&work.new_folder(), "new");
        work.place::<OutputError>(true, || Ok(())).unwrap();
        assert_eq!(what(&out).as_deref(), Some("new"));
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o710);
    }
}
