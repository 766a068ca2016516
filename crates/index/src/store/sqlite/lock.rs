//! One writer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::IndexError;
use crate::store::WriterLock;

/// How long everybody waits: a program that is just being started has, until it runs, what its parent has, locks among it.
const LEAST: Duration = Duration::from_millis(200);

/// Held while a process writes to an index. The operating system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock, or waits for it that long.
    ///
    /// # Errors
    /// [`IndexError::Locked`] naming the process that holds it; [`IndexError::Io`].
    pub fn take(folder: &Path, patience: Duration) -> Result<Self, IndexError> {
        let path = folder.join("writer.lock");
        let wrong = |source| IndexError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
        let until = Instant::now() + patience.max(LEAST);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(wrong(source)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&mut file).take(64).read_to_string(&mut holder);
                    let id: String = holder.chars().filter(char::is_ascii_digit).collect();
                    let holder = if id.is_empty() { "another process".into() } else { format!("process {id}") };
                    return Err(IndexError::Locked { path: folder.into(), holder });
                }
            }
        }
        // Who holds it, for those who find it held; nothing depends on it.
        let note = file.seek(SeekFrom::Start(0)).and_then(|_| {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())
        });
        if let Err(error) = note {
            tracing::debug!("the note in {} could not be written: {error}", path.display());
        }
        Ok(Self { _file: file })
    }
}

impl WriterLock for FolderLock {}
