//! Which store a place means: an address of Postgres is a server's, everything else the folder of a SQLite file.

use std::path::{Path, PathBuf};

use super::api::{Fill, Store};
use super::path::without_password;
#[cfg(feature = "postgres")]
use super::postgres as server;
use super::sqlite::{DATABASE, Database};
use crate::embedder::EmbedderProfile;
use crate::error::IndexError;

/// The address in a place that is one of a server.
fn address_of(place: &Path) -> Option<&str> {
    place.to_str().filter(|text| ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)))
}

/// The place of an index as it may be shown: an address of a server without the password in it.
pub fn shown_place(place: &Path) -> PathBuf {
    address_of(place).map_or_else(|| place.into(), |address| without_password(address).into())
}

/// Opens the index at a place.
///
/// # Errors
/// [`IndexError::Missing`], [`IndexError::Foreign`], [`IndexError::Version`], [`IndexError::Corrupt`];
/// [`IndexError::NotBuilt`] for a server of a kind that this build knows nothing of.
pub(crate) fn open(place: &Path) -> Result<Box<dyn Store>, IndexError> {
    match address_of(place) {
        Some(address) => server::open(address),
        None => Ok(Box::new(Database::open(place)?)),
    }
}

/// Opens the index at a place, or begins one for what embeds.
///
/// # Errors
/// As [`open`]; [`IndexError::IdentityMismatch`] for an index of another model; [`IndexError::Io`] where a folder cannot be made.
pub(crate) fn open_or_begin(place: &Path, profile: &EmbedderProfile) -> Result<Box<dyn Store>, IndexError> {
    match address_of(place) {
        Some(address) => server::open_or_begin(address, profile),
        None => Ok(Box::new(Database::open_or_begin(place, profile)?)),
    }
}

/// Lets an index be made where nobody finds it until it is complete: at `place` there is all of it, or nothing.
///
/// `fill` is given what begins the index.
///
/// # Errors
/// [`IndexError::Exists`]; whatever `fill` gives, and nothing is left then.
pub(crate) fn import_apart(place: &Path, fill: Fill<'_>) -> Result<u64, IndexError> {
    if let Some(address) = address_of(place) {
        return server::import_apart(address, fill);
    }
    if place.join(DATABASE).exists() {
        return Err(IndexError::Exists { path: place.into() });
    }
    // Under another name until it is complete.
    let there = place.exists();
    let part = place.join("import.part");
    let _ = std::fs::remove_dir_all(&part);
    let done = fill(&mut |profile| Ok(Box::new(Database::open_or_begin(&part, profile)?))).and_then(|files| {
        if place.join(DATABASE).exists() {
            return Err(IndexError::Exists { path: place.into() });
        }
        std::fs::rename(part.join(DATABASE), place.join(DATABASE))
            .map_err(|source| IndexError::Io { path: place.into(), source })?;
        Ok(files)
    });
    let _ = std::fs::remove_dir_all(&part);
    if done.is_err() && !there {
        // Only where nothing else has come into it.
        let _ = std::fs::remove_dir(place);
    }
    done
}

/// What stands for servers in a build that knows none.
#[cfg(not(feature = "postgres"))]
mod server {
    use super::{EmbedderProfile, Fill, IndexError, Store};

    fn not_built() -> IndexError {
        IndexError::NotBuilt { what: "an index in Postgres", feature: "postgres" }
    }

    pub fn open(_: &str) -> Result<Box<dyn Store>, IndexError> {
        Err(not_built())
    }

    pub fn open_or_begin(_: &str, _: &EmbedderProfile) -> Result<Box<dyn Store>, IndexError> {
        Err(not_built())
    }

    pub fn import_apart(_: &str, _: Fill<'_>) -> Result<u64, IndexError> {
        Err(not_built())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = |place: &str| shown_place(Path::new(place)).to_str().map(str::to_string);
        let address = "postgresql://me:secret@host/db?password=secret&schema=work";
        assert_eq!(shown(address).as_deref(), Some("postgresql://me@host/db?schema=work"));
        assert_eq!(shown("a/b:c@d").as_deref(), Some("a/b:c@d"));
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn a_server_is_refused_by_name_where_the_build_knows_none() {
        let error = open(Path::new("postgres://localhost/files")).map(drop).unwrap_err().to_string();
        assert!(error.contains("Postgres") && error.contains("--features postgres"), "{error}");
        let import = import_apart(Path::new("postgres://localhost/files"), &mut |_| Ok(0));
        assert!(matches!(import, Err(IndexError::NotBuilt { .. })));
        assert!(!Path::new("postgres:").exists());
    }
}
