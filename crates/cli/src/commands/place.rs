//! What `index`, `search` and `get` share: where an index lies, the model behind it, progress, paths for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use omniburn::Cancel;
use omniburn_index::{Calibration, Control, EngineEmbedder, Index, IndexError, Progress};

use super::{open_engine, user_folders};
use crate::failure::{Failure, REFUSED};
use crate::find_args::FeederArgs;
use crate::interrupt::on_interrupt;
use crate::progress::items_bar;

/// What `omniburn calibrate` measured of the model that ships, with the queries of `models/mini/unrelated.txt` on the samples
/// and the texts of this repository.
#[cfg(feature = "mini")]
const SHIPPED: &str = include_str!("../../../../models/mini/calibration.json");

/// The index that is meant where none is named.
const DEFAULT: &str = "default";

/// What stops a verb.
#[derive(Clone)]
pub struct Stop {
    pub cancel: Cancel,
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// At the first Ctrl-C.
    pub fn at_interrupt() -> Self {
        let stop = Self { cancel: Cancel::new(), asked: Arc::new(AtomicBool::new(false)) };
        let (cancel, asked) = (stop.cancel.clone(), Arc::clone(&stop.asked));
        on_interrupt(move || {
            asked.store(true, Ordering::SeqCst);
            cancel.cancel();
        });
        stop
    }

    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The place of an index: the address of a server, what is a path is that folder, else a name in the user's data folder.
///
/// # Errors
/// A usage failure where no data folder is known.
pub fn folder_of(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let named = named.unwrap_or(Path::new(DEFAULT));
    let plain = named.components().count() == 1
        && matches!(named.components().next(), Some(std::path::Component::Normal(_)))
        && !named.to_string_lossy().contains(std::path::is_separator);
    if !plain {
        return Ok(named.to_path_buf());
    }
    let indexes = user_folders::indexes();
    let indexes =
        indexes.ok_or_else(|| Failure::usage("no folder of the user is known: name a folder with --index ./DIR"))?;
    Ok(indexes.join(named))
}

/// The model behind an index.
///
/// # Errors
/// As opening a model gives.
pub fn embedder(feeder: &FeederArgs, stop: &Stop) -> Result<EngineEmbedder, Failure> {
    let engine = open_engine(&feeder.model_args())?;
    let profile = engine.profile();
    if !profile.outputs.contains(&"dense") {
        return Err(Failure::usage(format!("{} gives no vectors, and an index is made of them", profile.name)));
    }
    Ok(EngineEmbedder::new(engine, stop.cancel.clone()))
}

/// Gives an index the scores of its model, where they were measured.
///
/// # Errors
/// As [`calibrations`].
pub fn calibrate(index: &mut Index, model: Option<&EngineEmbedder>) -> Result<(), Failure> {
    let measured = calibrations(model.map(|model| model.engine().record().path()))?;
    Ok(measured.into_iter().try_for_each(|one| index.calibrate(one))?)
}

/// Scores that were measured: inside the program for the model that ships, in `calibration.json` of a record's folder.
///
/// # Errors
/// A refused record for a `calibration.json` that cannot be read.
pub fn calibrations(record: Option<&Path>) -> Result<Vec<Calibration>, Failure> {
    let mut all = Vec::new();
    #[cfg(feature = "mini")]
    all.push(serde_json::from_str(SHIPPED).expect("a test reads it"));
    let Some(record) = record else { return Ok(all) };
    let path = record.join("calibration.json");
    let refused = |why: String| Failure::with_code(REFUSED, anyhow::anyhow!("{}: {why}", shown(&path)));
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(all),
        Err(e) => Err(refused(e.to_string())),
        Ok(bytes) => {
            all.push(serde_json::from_slice(&bytes).map_err(|e| refused(e.to_string()))?);
            Ok(all)
        }
    }
}

/// Runs an update with a bar on standard error.
///
/// # Errors
/// Whatever the update gives.
pub fn with_progress<T>(
    quiet: bool,
    stop: &Stop,
    update: impl FnOnce(&Control<'_>) -> Result<T, IndexError>,
) -> Result<T, IndexError> {
    let bar: ProgressBar = items_bar(Some(0), "indexing", quiet);
    let progress = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let interrupted = || stop.is_asked();
    let done = update(&Control { interrupted: &interrupted, progress: &progress });
    bar.finish_and_clear();
    done
}

/// A path for people: whatever would move a cursor or is no character is escaped.
pub fn shown(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let _ = write!(shown, "{}", c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        use crate::failure::{SOME_FAILED, USAGE};
        let code = match &error {
            IndexError::Interrupted => return Failure::Interrupted,
            IndexError::Embedder(fault) if fault.kind == "cancelled" => return Failure::Interrupted,
            IndexError::Missing { .. }
            | IndexError::Query(_)
            | IndexError::NotCalibrated { .. }
            | IndexError::UnknownId { .. }
            | IndexError::AmbiguousId { .. }
            | IndexError::Exists { .. }
            | IndexError::NotBuilt { .. }
            | IndexError::Unsuitable { .. }
            | IndexError::Pattern(_) => USAGE,
            IndexError::Foreign { .. }
            | IndexError::Version { .. }
            | IndexError::Corrupt { .. }
            | IndexError::PageDigest { .. }
            | IndexError::Import { .. }
            | IndexError::ImportTable { .. }
            | IndexError::Calibration { .. }
            | IndexError::IdentityMismatch { .. } => REFUSED,
            _ => SOME_FAILED,
        };
        Failure::with_code(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_in_the_data_folder_and_paths_where_they_say() {
        assert_eq!(folder_of(Some(Path::new("./x"))).unwrap(), Path::new("./x"));
        assert_eq!(folder_of(Some(Path::new("a/b"))).unwrap(), Path::new("a/b"));
        assert_eq!(folder_of(Some(Path::new(".."))).unwrap(), Path::new(".."));
        let server = Path::new("postgres://localhost/files");
        assert_eq!(folder_of(Some(server)).unwrap().to_str(), server.to_str());
        if let Some(indexes) = user_folders::indexes() {
            assert_eq!(folder_of(Some(Path::new("code"))).unwrap(), indexes.join("code"));
            assert_eq!(folder_of(None).unwrap(), indexes.join("default"));
        }
    }

    #[cfg(feature = "mini")]
    #[test]
    fn the_model_that_ships_is_calibrated_for_every_modality() {
        let shipped: Calibration = serde_json::from_str(SHIPPED).unwrap();
        assert_eq!(shipped.identity, omniburn::Engine::mini().unwrap().profile().identity);
        let items: Vec<&str> = shipped.pairs.iter().map(|pair| pair.item.as_str()).collect();
        assert_eq!(items, ["text", "image", "audio", "video"]);
        for pair in &shipped.pairs {
            let levels = [Some(pair.above), pair.above_apart];
            let rising = levels.iter().all(|levels| levels.is_some_and(|levels| levels.is_sorted()));
            assert!(pair.pairs >= 1000 && rising, "{pair:?}");
        }
    }

    #[test]
    fn paths_are_shown_without_what_moves_a_cursor() {
        assert_eq!(shown(Path::new("a\u{1b}[31m\nb/é")), "a\\u{1b}[31m\\nb/é");
    }
}
