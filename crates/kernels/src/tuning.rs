//! Where CubeCL keeps what it found by trying kernels on a device.
//!
//! Left alone, CubeCL 0.11 reads files of the working folder and variables of the environment, and writes under the
//! `target` folder of the outermost `Cargo.toml` above, or into the user's cache. Here it reads nothing, and writes only
//! where it is given a folder.

use std::path::Path;

/// Keeps tuning, and compiled kernels where the runtime can, in a folder; with `None` nothing is written. It counts for all
/// devices of the process, and only the first call before the first device does: returns whether this one did, or asked for
/// what holds already.
///
/// A folder that cannot be written to, and a damaged file in it, cost no more than tuning anew.
pub fn keep_tuning(folder: Option<&Path>) -> bool {
    #[cfg(feature = "gpu")]
    return gpu::keep(folder);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = folder;
        true
    }
}

/// Shapes tuned so far and kept, over all runs; 0 where none are kept.
pub fn tuned() -> usize {
    #[cfg(feature = "gpu")]
    return gpu::tuned();
    #[cfg(not(feature = "gpu"))]
    0
}

#[cfg(feature = "gpu")]
mod gpu {
    use std::fs;
    use std::io::Read;
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    use burn_cubecl::cubecl::{environment, records};

    /// The database is `tuning.db` in the folder.
    const NAME: &str = "tuning";

    /// What was asked for first, and whether it is so.
    static KEPT: Mutex<Option<(Option<PathBuf>, bool)>> = Mutex::new(None);

    pub(super) fn keep(folder: Option<&Path>) -> bool {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, done)) = &*kept {
            return *done && first.as_deref() == folder;
        }
        let usable = folder.filter(|folder| opens(folder));
        let mut config = CubeClRuntimeConfig::default();
        config.autotune.disable_cache = usable.is_none();
        config.throughput.disable_cache = usable.is_none();
        config.compilation.cache = usable.is_some();
        config.environment.name = NAME.into();
        config.environment.records.level = records::RecordLevel::Off;
        // CubeCL opens its database of measured throughput even where that is switched off, in the user's cache by default
        // otherwise. Below a file there can be no folder: it fails to open, and keeps nothing.
        let nowhere = if cfg!(windows) { r"\\.\NUL\nowhere" } else { "/dev/null/nowhere" };
        config.environment.path = CacheConfig::Directory(usable.unwrap_or(Path::new(nowhere)).into());
        // A program that has set CubeCL up by itself keeps what it chose.
        let done = CubeClRuntimeConfig::try_set(config);
        *kept = Some((folder.map(Path::to_path_buf), done));
        done
    }

    /// Whether the database of a folder opens. One that is none is thrown away: it holds nothing that cannot be found anew.
    fn opens(folder: &Path) -> bool {
        let file = folder.join(environment::file_name(NAME));
        let mut head = [0u8; 16];
        let read = fs::File::open(&file).and_then(|mut file| file.read_exact(&mut head));
        if file.exists() && (read.is_err() || &head != b"SQLite format 3\0") {
            // What cannot be removed is not opened either.
            let _ = fs::remove_file(&file);
        }
        catch_unwind(|| {
            environment::activate(NAME);
            environment::set_root(folder);
            environment::namespaces();
        })
        .is_ok()
            && file.exists()
    }

    pub(super) fn tuned() -> usize {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*kept, Some((Some(_), true))) {
            return 0;
        }
        let spaces = environment::namespaces();
        spaces.iter().filter(|space| space.namespace.starts_with("autotune/")).map(|space| space.entries as usize).sum()
    }
}
