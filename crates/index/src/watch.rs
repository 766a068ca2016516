//! When an update is due: the system reports changes below folders, and those that come together count as one.
//!
//! An update looks at everything, so an event says only that something changed. A folder whose changes the system does not
//! report, such as one on a network, is looked through from time to time, and every folder now and then.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use same_file::Handle;

use crate::crawl::is_left_out;
use crate::error::IndexError;
use crate::update::Report;

/// Nothing changes for this long: what was being written is written.
const QUIET: Duration = Duration::from_millis(400);
/// A change waits no longer, however many follow it.
const LONGEST: Duration = Duration::from_secs(10);
/// How often it is asked whether to stop, and whether the folders are those that were there.
const STEP: Duration = Duration::from_millis(100);
const CHECK: Duration = Duration::from_secs(1);
/// How often everything is looked through though nothing was reported, and where nothing can be.
const REGULAR: Duration = Duration::from_secs(600);
const REGULAR_WITHOUT_EVENTS: Duration = Duration::from_secs(30);
/// An update rests for so many times as long as it took, and no longer than the limit: looking takes at most a fifth of the time.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long it waits for another process that writes.
const LOCKED: Duration = Duration::from_secs(1);

/// What is reported of an index that is kept true.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The system does not report the changes of a folder; it is looked through twice a minute.
    WithoutEvents {
        /// The folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
    /// The index was brought up to date.
    Updated(Report),
}

/// A folder whose changes are reported.
struct Watched {
    path: PathBuf,
    /// What lay under the path when it was asked to be watched.
    identity: Option<Handle>,
    reported: bool,
}

/// Watches folders.
pub(crate) struct Watcher {
    events: RecommendedWatcher,
    receive: Receiver<notify::Result<Event>>,
    folders: Vec<Watched>,
    /// The folder of the index: what is written there is no change.
    own: Option<PathBuf>,
    /// Folders that are not reported, and have not been named.
    untold: Vec<(PathBuf, String)>,
    /// When the first change came that no update has seen, and when the last.
    changed: Option<(Instant, Instant)>,
    /// When the last update began to rest, and until when no other one starts.
    updated: Instant,
    not_before: Instant,
}

impl Watcher {
    /// Watches folders from now on.
    ///
    /// # Errors
    /// [`IndexError::NoEvents`] where the system reports nothing at all.
    pub fn start(folders: &[PathBuf], own: Option<&Path>) -> Result<Self, IndexError> {
        let (send, receive) = channel();
        let events = notify::recommended_watcher(send).map_err(|e| IndexError::NoEvents { why: e.to_string() })?;
        let now = Instant::now();
        let mut watcher = Self {
            events,
            receive,
            folders: Vec::new(),
            own: own.map(Path::to_path_buf),
            untold: Vec::new(),
            changed: None,
            updated: now,
            not_before: now,
        };
        let mut folders = folders.to_vec();
        folders.sort();
        folders.dedup();
        for path in folders {
            watcher.folders.push(Watched { path, identity: None, reported: false });
        }
        for at in 0..watcher.folders.len() {
            watcher.watch(at);
        }
        Ok(watcher)
    }

    fn watch(&mut self, at: usize) {
        let folder = &mut self.folders[at];
        folder.identity = Handle::from_path(&folder.path).ok();
        match self.events.watch(&folder.path, RecursiveMode::Recursive) {
            Ok(()) => folder.reported = true,
            Err(error) => {
                // What was watched in part is looked through as a whole.
                let _ = self.events.unwatch(&folder.path);
                folder.reported = false;
                self.untold.push((folder.path.clone(), error.to_string()));
            }
        }
    }

    /// Folders whose changes are not reported, each once, with the reason.
    pub fn unwatched(&mut self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.untold)
    }

    /// An update was done, and took so long.
    pub fn rest(&mut self, took: Duration) {
        self.updated = Instant::now();
        self.not_before = self.updated + (took * REST).min(LONGEST_REST);
    }

    /// An update could not be done, and is due again.
    pub fn again(&mut self) {
        let now = Instant::now();
        self.changed = Some((now, now));
        self.not_before = now + LOCKED;
    }

    /// Waits until an update is due.
    ///
    /// # Errors
    /// [`IndexError::Interrupted`]; what `check` gives, which is asked every second; [`IndexError::NoEvents`] where the
    /// system has stopped reporting.
    pub fn wait(
        &mut self,
        interrupted: &dyn Fn() -> bool,
        check: &dyn Fn() -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut checked = Instant::now();
        loop {
            if interrupted() {
                return Err(IndexError::Interrupted);
            }
            let now = Instant::now();
            if now.duration_since(checked) >= CHECK {
                check()?;
                self.look_after_folders();
                checked = now;
            }
            if self.is_due(now) {
                self.changed = None;
                return Ok(());
            }
            match self.receive.recv_timeout(STEP) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(IndexError::NoEvents { why: "the watcher ended".into() });
                }
                Ok(event) => {
                    // All that have come, in one go: a copied folder is thousands.
                    let events = std::iter::once(event).chain(std::iter::from_fn(|| self.receive.try_recv().ok()));
                    if events.filter(|event| self.counts(event)).count() > 0 {
                        let now = Instant::now();
                        let first = self.changed.map_or(now, |(first, _)| first);
                        self.changed = Some((first, now));
                    }
                }
            }
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let reported = self.folders.iter().all(|folder| folder.reported);
        let regular = if reported { REGULAR } else { REGULAR_WITHOUT_EVENTS };
        let changed = self
            .changed
            .is_some_and(|(first, last)| now.duration_since(last) >= QUIET || now.duration_since(first) >= LONGEST);
        now >= self.not_before && (changed || now.duration_since(self.updated) >= regular)
    }

    /// Whether an event may be of a file that an update would take, or leave.
    fn counts(&self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else { return true };
        let written = AccessKind::Close(AccessMode::Write);
        let reads = matches!(event.kind, EventKind::Access(access) if access != written);
        if reads {
            return false;
        }
        let of_index = |path: &Path| self.own.as_ref().is_some_and(|own| path.starts_with(own));
        let left_out = |path: &Path| {
            let mut within = self.folders.iter().filter(|folder| path.starts_with(&folder.path)).peekable();
            within.peek().is_some() && within.all(|folder| is_left_out(path, &folder.path))
        };
        event.need_rescan() || event.paths.iter().any(|path| !of_index(path) && !left_out(path))
    }

    /// A folder that was put in the place of a watched one is watched from now on.
    fn look_after_folders(&mut self) {
        for at in 0..self.folders.len() {
            let folder = &self.folders[at];
            let now = Handle::from_path(&folder.path).ok();
            if now != folder.identity {
                let _ = self.events.unwatch(&folder.path);
                if now.is_some() {
                    self.watch(at);
                } else {
                    self.folders[at].identity = None;
                }
                let now = Instant::now();
                self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    /// Waits for an update that is due, for so long at most.
    fn due(watcher: &mut Watcher, most: Duration) -> bool {
        let until = Instant::now() + most;
        watcher.wait(&|| Instant::now() > until, &|| Ok(())).is_ok()
    }

    #[test]
    fn changes_that_count_make_an_update_due_and_reading_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/.hidden")).unwrap();
        fs::create_dir(root.join("index")).unwrap();
        fs::write(root.join("a/b.txt"), "one").unwrap();
        let mut watcher = Watcher::start(&[root.clone(), root.clone()], Some(&root.join("index"))).unwrap();
        assert_eq!(watcher.unwatched(), []);
        let (short, long) = (Duration::from_millis(1200), Duration::from_secs(20));

        fs::read(root.join("a/b.txt")).unwrap();
        fs::read_dir(root.join("a")).unwrap().count();
        fs::write(root.join("a/.hidden/x"), "x").unwrap();
        fs::write(root.join("index/index.db"), "x").unwrap();
        assert!(!due(&mut watcher, short), "nothing of it is a change");
        fs::write(root.join("a/b.txt"), "two").unwrap();
        assert!(due(&mut watcher, long));
        for i in 0..100 {
            fs::create_dir_all(root.join(format!("new/{i}"))).unwrap();
            fs::write(root.join(format!("new/{i}/x.txt")), "x").unwrap();
        }
        assert!(due(&mut watcher, long));
        assert!(!due(&mut watcher, short), "what came together is one");
        fs::rename(root.join("new/7/x.txt"), root.join("new/7/y.txt")).unwrap();
        assert!(due(&mut watcher, long));
        fs::remove_file(root.join("new/7/y.txt")).unwrap();
        assert!(due(&mut watcher, long));

        // A rest is kept, and what came meanwhile is due after it.
        watcher.rest(Duration::from_millis(300));
        fs::write(root.join("a/c.txt"), "x").unwrap();
        let begun = Instant::now();
        assert!(due(&mut watcher, long) && begun.elapsed() > Duration::from_secs(1));
        watcher.again();
        assert!(due(&mut watcher, long));
        assert!(matches!(watcher.wait(&|| true, &|| Ok(())), Err(IndexError::Interrupted)));
    }

    #[test]
    fn a_folder_that_is_put_in_the_place_of_another_is_watched_and_a_check_that_fails_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("files");
        fs::create_dir(&root).unwrap();
        let mut watcher = Watcher::start(std::slice::from_ref(&root), Some(Path::new("/nowhere"))).unwrap();
        fs::rename(&root, root.with_file_name("old")).unwrap();
        fs::create_dir(&root).unwrap();
        assert!(due(&mut watcher, Duration::from_secs(20)));
        while due(&mut watcher, Duration::from_millis(1500)) {}
        fs::write(root.join("x.txt"), "x").unwrap();
        assert!(due(&mut watcher, Duration::from_secs(20)));
        let asked = Cell::new(false);
        let gone = || {
            asked.set(true);
            Err(IndexError::Gone { path: root.clone() })
        };
        assert!(matches!(watcher.wait(&|| false, &gone), Err(IndexError::Gone { .. })));
        assert!(asked.get());
    }

    #[test]
    fn a_folder_that_cannot_be_watched_is_named() {
        let nowhere = PathBuf::from("/nowhere/at/all");
        let mut watcher = Watcher::start(std::slice::from_ref(&nowhere), Some(Path::new("/elsewhere"))).unwrap();
        let unwatched = watcher.unwatched();
        assert_eq!(unwatched.len(), 1);
        assert_eq!(unwatched[0].0, nowhere);
        assert!(watcher.unwatched().is_empty());
    }
}
