//! Where valid files are, and folders to put damaged ones into.

use std::fs;
use std::path::{Path, PathBuf};

/// The stored expectations of the tests, which are valid files for the most part.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

/// The samples of the model that ships.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/samples")
}

/// A checkpoint of the goldens.
pub fn golden_checkpoint(name: &str) -> PathBuf {
    golden().join("checkpoints").join(name)
}

/// A file that must be there.
///
/// # Panics
/// If it is not: a target without its seeds proves nothing.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of a folder with one of the endings and at most `most` bytes, by name; never none.
///
/// # Panics
/// If there is none.
pub fn with_endings(folder: &Path, endings: &[&str], most: u64) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= most);
    let wanted = |path: &PathBuf| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
    let found: Vec<Vec<u8>> = paths.iter().filter(|path| wanted(path) && small(path)).map(|path| read(path)).collect();
    assert!(!found.is_empty(), "{} holds no {endings:?}", folder.display());
    found
}

/// Copies every file below a folder.
///
/// # Panics
/// If it cannot.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Folders for damaged files are small and written over and over: in memory where the system offers that.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { None };
    in_memory.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder can be made"))
}
