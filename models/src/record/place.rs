//! The folder a record is made in, how it takes its place, and what is done about those whose process was killed.
//!
//! Beside `OUT` lies `.OUT.<pid>.part` while a record is made. It holds `lock`, which the maker keeps locked for as long
//! as it lives (the operating system frees it however the process ends), `new`, the record, and in the fallback below
//! `old`. A whole new folder is exchanged with an old one in one step where the system can; elsewhere the old one is
//! first set aside as `old`, and whoever comes next puts it back if the maker died before the second step. What a record
//! holds is none of this file's business.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::RecordError;

const LOCK: &str = "lock";
const NEW: &str = "new";
const OLD: &str = "old";
/// What `old` is called while it is removed: a half-removed record must never be put back.
const GONE: &str = "gone";

/// What a conversion that was killed left beside its destination, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A folder of half-written files, or an old record that was replaced: it is gone now.
    Removed {
        /// The folder.
        path: PathBuf,
    },
    /// The old record had been set aside and nothing had taken its place: it is back.
    Restored {
        /// Where it had been set aside.
        path: PathBuf,
        /// Where it is again.
        out: PathBuf,
    },
    /// A folder that could not be removed; the next run tries again.
    Kept {
        /// The folder.
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

/// The folder of one maker; dropped, it is removed with what is in it.
#[derive(Debug)]
pub(super) struct Work {
    out: PathBuf,
    folder: PathBuf,
    /// Locked while this maker lives; none where the file system knows no locks, and then nobody removes the folder.
    lock: Option<File>,
}

impl Work {
    /// A new folder beside `out`, with an empty `new` in it.
    pub fn create(out: &Path) -> Result<Self, RecordError> {
        let parent = parent(out);
        fs::create_dir_all(&parent).map_err(RecordError::io(&parent))?;
        // Taken are the names of this process's other threads, and of a dead process of the same number.
        for n in 0..1000 {
            let folder = parent.join(work_name(out, n));
            match Self::start(out, &folder) {
                Ok(Some(work)) => return Ok(work),
                Ok(None) => {}
                Err(e) => {
                    // Nothing but an empty `lock` and an empty `new` can be in it.
                    let _ = fs::remove_dir(folder.join(NEW));
                    let _ = fs::remove_file(folder.join(LOCK));
                    let _ = fs::remove_dir(&folder);
                    return Err(RecordError::io(&folder)(e));
                }
            }
        }
        Err(RecordError::io(parent.join(work_name(out, 0)))(ErrorKind::AlreadyExists.into()))
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
    pub fn place(
        self,
        force: bool,
        check: impl Fn() -> Result<(), RecordError>,
    ) -> Result<Option<Leftover>, RecordError> {
        sync_folder(&self.new_folder()).map_err(RecordError::io(self.new_folder()))?;
        // Again where somebody else made or removed `out` between the look and the step.
        for _ in 0..100 {
            let taken = is_taken(&self.out).map_err(RecordError::io(&self.out))?;
            if taken && !force {
                return Err(RecordError::Exists { path: self.out.clone() });
            }
            let placed = if taken {
                check()?;
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
                Err(e) => return Err(RecordError::io(&self.out)(e)),
            }
        }
        Err(RecordError::io(&self.out)(ErrorKind::ResourceBusy.into()))
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

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.clean_up();
        // Last: nobody takes the folder for a dead one while it is removed.
        drop(self.lock.take());
    }
}

/// Removes what killed makers of `out` left, and puts an old record back that was set aside with nothing in its place. A
/// folder whose maker lives is left alone. Ordered by name.
pub(super) fn recover(out: &Path) -> Result<Vec<Leftover>, RecordError> {
    let parent = parent(out);
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(RecordError::io(&parent)(e)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RecordError::io(&parent))?;
        if is_work_name(&entry.file_name(), &file_name(out)) && entry.file_type().is_ok_and(|t| t.is_dir()) {
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

/// Makes the names in a folder last through a loss of power, where the system has a call for it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        return match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Some file systems have no such call for folders, and some users may not read theirs.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
            done => done,
        };
    }
    Ok(())
}

fn parent(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn file_name(out: &Path) -> OsString {
    out.file_name().map_or_else(|| "record".into(), OsStr::to_os_string)
}

/// `.OUT.<pid>.part`, or `.OUT.<pid>-<n>.part` for another in one process.
fn work_name(out: &Path, n: usize) -> OsString {
    let mut name = OsString::from(".");
    name.push(file_name(out));
    name.push(format!(".{}", std::process::id()));
    if n > 0 {
        name.push(format!("-{n}"));
    }
    name.push(".part");
    name
}

fn is_work_name(name: &OsStr, out_name: &OsStr) -> bool {
    let middle = name
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(out_name.as_encoded_bytes())?.strip_prefix(b".")?.strip_suffix(b".part"));
    middle.is_some_and(|middle| {
        let mut numbers = middle.splitn(2, |&b| b == b'-');
        numbers.all(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    })
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
    fn killed(mut work: Work) -> PathBuf {
        drop(work.lock.take());
        let folder = work.folder.clone();
        std::mem::forget(work);
        folder
    }

    fn no_exchange(_: &Path, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    #[test]
    fn only_names_of_makers_of_this_destination_are_leftovers() {
        let ours = |name: &str| is_work_name(OsStr::new(name), OsStr::new("rec"));
        assert!(ours(".rec.12.part") && ours(".rec.12-3.part"));
        for other in
            ["rec", ".rec.part", ".rec..part", ".rec.12", ".rec.12x.part", ".rec.json.12.part", ".recs.12.part"]
        {
            assert!(!ours(other), "{other}");
        }
        for other in [".rec.-1.part", ".rec.1-.part", ".rec.1-2-3.part", "..rec.12.part"] {
            assert!(!ours(other), "{other}");
        }
    }

    #[test]
    fn the_old_one_is_exchanged_for_the_new_one_and_removed_with_and_without_the_one_step() {
        for step in [exchange as fn(&Path, &Path) -> io::Result<bool>, no_exchange] {
            let root = tempfile::tempdir().unwrap();
            let out = root.path().join("rec");
            record(&out, "old");
            let work = Work::create(&out).unwrap();
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
        let work = Work::create(&out).unwrap();
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
        let work = Work::create(&out).unwrap();
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
        let work = Work::create(&out).unwrap();
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
        let work = Work::create(&out).unwrap();
        fs::remove_dir(work.new_folder()).unwrap();
        assert_eq!(work.replace(no_exchange).unwrap_err().kind(), ErrorKind::NotFound);
        drop(work);
        assert_eq!((what(&out).as_deref(), names(root.path())), (Some("old"), vec!["rec".to_string()]));
    }

    #[test]
    fn a_maker_that_lives_keeps_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("rec");
        let (first, second) = (Work::create(&out).unwrap(), Work::create(&out).unwrap());
        record(&first.new_folder(), "first");
        record(&second.new_folder(), "second");
        assert_eq!(recover(&out).unwrap(), []);
        let dead = killed(first);
        assert_eq!(recover(&out).unwrap(), [Leftover::Removed { path: dead }]);
        assert_eq!(second.place(false, || Ok(())).unwrap(), None);
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
            let work = Work::create(&out).unwrap();
            record(&work.new_folder(), "new");
            record(&out, "theirs");
            let placed = work.place(force, || Ok(()));
            assert_eq!(placed.is_ok(), force);
            assert_eq!(what(&out).as_deref(), Some(if force { "new" } else { "theirs" }));
            assert_eq!(names(root.path()), ["rec"]);
        }
    }
}
