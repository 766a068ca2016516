//! Paths as the database keeps them, and files as a look without opening finds them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file as a look without opening it finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub path: Vec<u8>,
    pub size: i64,
    pub mtime_ns: i64,
    /// When it was looked at.
    pub seen_ns: i64,
}

/// A path as the database keeps it: its bytes, where names are bytes.
pub(crate) fn bytes_of_path(path: &Path) -> Vec<u8> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        path.as_os_str().as_bytes().to_vec()
    }
    #[cfg(not(unix))]
    {
        path.to_string_lossy().into_owned().into_bytes()
    }
}

/// Bytes from the database as a path.
pub(crate) fn path_of_bytes(bytes: Vec<u8>) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        std::ffi::OsString::from_vec(bytes).into()
    }
    #[cfg(not(unix))]
    {
        String::from_utf8_lossy(&bytes).into_owned().into()
    }
}

/// The id of a file: the beginning of a digest of its path, of which people see as much as tells it from others.
pub(crate) fn short_of(path: &[u8]) -> Vec<u8> {
    Sha256::digest(path)[..8].to_vec()
}

/// The bounds of the paths below a folder.
pub(crate) fn below(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut from = bytes_of_path(folder);
    if from.last() != Some(&(std::path::MAIN_SEPARATOR as u8)) {
        from.push(std::path::MAIN_SEPARATOR as u8);
    }
    let mut to = from.clone();
    // The byte behind the separator ends the range.
    *to.last_mut().expect("it ends with a separator") += 1;
    (from, to)
}

/// An address of a server without the passwords in it.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.into() };
    let (base, settings) = rest.split_once('?').map_or((rest, None), |(base, settings)| (base, Some(settings)));
    let (authority, path) = base.split_at(base.find('/').unwrap_or(base.len()));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.into(),
    };
    let shown = |settings: &str| {
        let kept: Vec<&str> = settings.split('&').filter(|setting| !setting.starts_with("password=")).collect();
        format!("?{}", kept.join("&"))
    };
    format!("{scheme}://{authority}{path}{}", settings.map(shown).unwrap_or_default())
}
