//! The cache that the Hugging Face libraries share on a machine: `models--ORG--NAME` with `blobs`, `snapshots` and `refs`.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::Client;
use super::error::HubError;

/// How often a lock that somebody else holds is asked for.
const LOCK_STEP: Duration = Duration::from_millis(100);

/// The part of a cache that belongs to one model.
///
/// # Source
/// huggingface_hub 1.2, `file_download.py`: names of folders, of locks and of unfinished files.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    root: PathBuf,
    model: PathBuf,
    folder: String,
}

impl Cache {
    /// The model `ORG/NAME` in a cache; nothing is made yet.
    pub fn of(root: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self { root: root.into(), model: root.join(&folder), folder }
    }

    /// The folder of the files of a commit, named as in the model.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.model.join("snapshots").join(commit)
    }

    /// Content by its tag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.model.join("blobs").join(etag)
    }

    /// What came so far of a content.
    pub fn unfinished(&self, etag: &str) -> PathBuf {
        self.model.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The commit that a branch or tag named when it was fetched last.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.model.join("refs").join(revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| super::listing::is_commit(commit))
    }

    /// Notes which commit a branch or tag names.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.model.join("refs").join(revision);
        make_parent(&path)?;
        let work = path.with_file_name(format!(".{}.{}.part", commit, std::process::id()));
        fs::write(&work, commit).map_err(HubError::io(&work))?;
        fs::rename(&work, &path).map_err(HubError::io(&path))
    }

    /// Waits until nobody else fetches this content, and keeps others from it until the file is dropped. Where the file
    /// system knows no locks, two who fetch the same do double work.
    ///
    /// # Errors
    /// [`HubError::Io`], [`HubError::Cancelled`].
    pub fn lock(&self, etag: &str, client: &Client) -> Result<Option<File>, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        make_parent(&path)?;
        make_parent(&self.blob(etag))?;
        let file = File::options().create(true).append(true).open(&path).map_err(HubError::io(&path))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            if !std::mem::replace(&mut said, true) {
                tracing::warn!("{}: another program fetches this file; waiting for it", path.display());
            }
            client.check_cancelled()?;
            std::thread::sleep(LOCK_STEP);
        }
    }

    /// Lets a file of a commit be this content: a relative link, or a copy where links cannot be made.
    pub fn link(&self, commit: &str, name: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(name);
        make_parent(&path)?;
        let up = "../".repeat(name.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let work = path.with_file_name(format!(".{etag}.{}.part", std::process::id()));
        let _ = fs::remove_file(&work);
        let made = match symlink(&target, &work) {
            Ok(()) => Ok(()),
            Err(_) => fs::copy(self.blob(etag), &work).map(|_| ()),
        };
        made.and_then(|()| fs::rename(&work, &path)).map_err(HubError::io(&path))
    }

    /// Whether a content is there, with as many bytes as it should have.
    pub fn has(&self, etag: &str, bytes: Option<u64>) -> bool {
        fs::metadata(self.blob(etag)).is_ok_and(|meta| meta.is_file() && bytes.is_none_or(|bytes| meta.len() == bytes))
    }
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io(parent))
}

#[cfg(unix)]
fn symlink(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn symlink(target: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, at)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Bytes of a file that may be absent.
pub(super) fn bytes_of(path: &Path) -> Result<u64, HubError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(HubError::io(path)(e)),
    }
}
