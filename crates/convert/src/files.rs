//! JSON files of a folder, and the names of those that several readers look for.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::ConvertError;

/// The configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// The configuration of an adapter.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The list of modules, without which a folder is not one of sentence-transformers.
pub(crate) const MODULES_FILE: &str = "modules.json";

/// Reads a JSON file that must be there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConvertError> {
    read_json_if_there(path)?.ok_or_else(|| ConvertError::MissingFiles { paths: vec![path.to_path_buf()] })
}

/// Reads a JSON file that may be absent.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConvertError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ConvertError::io(path)(e)),
    }
    let text = fs::read(path).map_err(ConvertError::io(path))?;
    serde_json::from_slice(&text).map(Some).map_err(ConvertError::json(path))
}
