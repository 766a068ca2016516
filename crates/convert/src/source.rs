//! A checkpoint folder: one safetensors file or shards with an index, opened lazily and known by canonical names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use omniburn_models::record::Dtype;
use serde::de::DeserializeOwned;

use crate::error::ConvertError;
use crate::keymap::KeyMap;
use crate::safefile::{Pairs, SafeFile, StoredTensor};

/// File name of the configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";
const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The weights of a checkpoint, by canonical name.
#[derive(Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    files: Vec<SafeFile>,
    keys: BTreeMap<String, Key>,
    index: Option<PathBuf>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Key {
    file: usize,
    /// The name in the file.
    own: String,
}

impl Source {
    /// Opens the folder's weight files and reads their headers.
    pub fn open(folder: &Path, map: &KeyMap) -> Result<Self, ConvertError> {
        let mut notes = Vec::new();
        let (files, index) = open_files(folder, &mut notes)?;
        let mut keys: BTreeMap<String, Key> = BTreeMap::new();
        let mut twice = Vec::new();
        for (file, safe) in files.iter().enumerate() {
            for own in safe.tensors.keys() {
                let canonical = map.canonical(own);
                if let Some(before) = keys.get(&canonical) {
                    twice.push(format!("{} and {own}", before.own));
                } else {
                    keys.insert(canonical, Key { file, own: own.clone() });
                }
            }
        }
        if !twice.is_empty() {
            return Err(ConvertError::Duplicates { names: twice });
        }
        Ok(Self { folder: folder.to_path_buf(), files, keys, index, notes })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Canonical names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether some canonical name begins so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.keys.range(prefix.to_string()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// What the header says of a tensor.
    pub fn get(&self, canonical: &str) -> Option<&StoredTensor> {
        let key = self.keys.get(canonical)?;
        self.files[key.file].tensors.get(&key.own)
    }

    /// Shape of a tensor.
    pub fn shape(&self, canonical: &str) -> Option<&[usize]> {
        self.get(canonical).map(|t| t.shape.as_slice())
    }

    /// The name a tensor has in its file; the canonical one where there is no such tensor.
    pub fn own_name<'a>(&'a self, canonical: &'a str) -> &'a str {
        self.keys.get(canonical).map_or(canonical, |key| &key.own)
    }

    /// Bytes of a tensor with their type; NaN and infinite values are an error.
    ///
    /// # Panics
    /// If the tensor was not found to be there before.
    pub fn read(&self, canonical: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        let (file, own) = self.place(canonical);
        file.read(own)
    }

    /// Values of a tensor as f32; NaN and infinite values are an error.
    ///
    /// # Panics
    /// As [`Source::read`].
    pub fn read_f32(&self, canonical: &str) -> Result<Vec<f32>, ConvertError> {
        let (file, own) = self.place(canonical);
        file.read_f32(own)
    }

    /// Number of NaN and infinite values in a tensor.
    ///
    /// # Panics
    /// As [`Source::read`].
    pub fn non_finite(&self, canonical: &str) -> Result<usize, ConvertError> {
        let (file, own) = self.place(canonical);
        file.non_finite(own)
    }

    /// The weight files and their index, for the record's list of sources.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.index.iter().cloned().chain(self.files.iter().map(|f| f.path().to_path_buf())).collect()
    }

    fn place(&self, canonical: &str) -> (&SafeFile, &str) {
        let key = self.keys.get(canonical).unwrap_or_else(|| panic!("{canonical} was not checked to be there"));
        (&self.files[key.file], &key.own)
    }
}

type Opened = (Vec<SafeFile>, Option<PathBuf>);

fn open_files(folder: &Path, notes: &mut Vec<String>) -> Result<Opened, ConvertError> {
    let (single, index) = (folder.join(SINGLE_FILE), folder.join(INDEX_FILE));
    match (single.exists(), index.exists()) {
        (true, with_index) => {
            if with_index {
                notes.push(format!("{INDEX_FILE} is left aside, as {SINGLE_FILE} is there"));
            }
            Ok((vec![SafeFile::open(&single)?], None))
        }
        (false, true) => open_shards(folder, &index),
        (false, false) => Err(ConvertError::MissingFiles { paths: vec![single] }),
    }
}

fn open_shards(folder: &Path, index: &Path) -> Result<Opened, ConvertError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: Pairs<String>,
    }
    let Index { weight_map: Pairs(pairs) } = read_json(index)?;
    let mut shard_of = BTreeMap::new();
    for (name, shard) in pairs {
        let plain = Path::new(&shard).components().count() == 1 && Path::new(&shard).file_name().is_some();
        if !plain || Path::new(&shard).is_absolute() {
            let reason = format!("names the shard `{shard}`, which is not a file name");
            return Err(ConvertError::Corrupt { path: index.into(), tensor: Some(name), reason });
        }
        if shard_of.insert(name.clone(), shard).is_some() {
            let reason = "stands twice in the index".into();
            return Err(ConvertError::Corrupt { path: index.into(), tensor: Some(name), reason });
        }
    }
    let shards: BTreeSet<&String> = shard_of.values().collect();
    let absent: Vec<PathBuf> = shards.iter().map(|s| folder.join(s)).filter(|p| !p.is_file()).collect();
    if !absent.is_empty() {
        return Err(ConvertError::MissingFiles { paths: absent });
    }
    let mut opened = BTreeMap::new();
    for shard in shards {
        opened.insert(shard.clone(), SafeFile::open(&folder.join(shard))?);
    }
    let missing: Vec<String> = shard_of
        .iter()
        .filter(|(name, shard)| !opened[*shard].tensors.contains_key(*name))
        .map(|(name, shard)| format!("{name} ({shard})"))
        .collect();
    let extra: Vec<String> = opened
        .iter()
        .flat_map(|(shard, file)| file.tensors.keys().map(move |name| (name, shard)))
        .filter(|(name, shard)| shard_of.get(*name) != Some(*shard))
        .map(|(name, shard)| format!("{name} ({shard})"))
        .collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(ConvertError::Index { path: index.into(), missing, extra });
    }
    Ok((opened.into_values().collect(), Some(index.to_path_buf())))
}

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

/// What a checkpoint is called: its folder's name, or `ORG/NAME` for a snapshot in the Hugging Face cache.
pub(crate) fn checkpoint_name(folder: &Path) -> String {
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let name_of = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let snapshots = absolute.parent().filter(|p| name_of(p).as_deref() == Some("snapshots"));
    if let Some(cached) = snapshots.and_then(Path::parent).and_then(name_of)
        && let Some(name) = cached.strip_prefix("models--")
    {
        return name.replace("--", "/");
    }
    name_of(&absolute).unwrap_or_else(|| "checkpoint".into())
}

/// The newest snapshot of `ORG/NAME` in a Hugging Face cache, if it holds a configuration.
///
/// `cache_root` is the folder that holds `models--ORG--NAME`. The snapshot is the one `refs/main` names; without such a
/// reference, the one changed last. Nothing is downloaded.
pub fn find_in_hf_cache(cache_root: &Path, org_name: &str) -> Option<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let (org, name) = org_name.split_once('/')?;
    if !plain(org) || !plain(name) {
        return None;
    }
    let model = cache_root.join(format!("models--{org}--{name}"));
    let complete = |folder: &PathBuf| folder.join(CONFIG_FILE).is_file();
    let named = fs::read_to_string(model.join("refs").join("main")).ok();
    if let Some(revision) = named.as_deref().map(str::trim).filter(|r| plain(r)) {
        let snapshot = model.join("snapshots").join(revision);
        if complete(&snapshot) {
            return Some(snapshot);
        }
    }
    let snapshots = fs::read_dir(model.join("snapshots")).ok()?;
    let mut dated: Vec<_> = snapshots
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(complete)
        .map(|path| (fs::metadata(&path).and_then(|m| m.modified()).ok(), path))
        .collect();
    dated.sort();
    dated.pop().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(root: &Path, revision: &str) -> PathBuf {
        let folder = root.join("models--org--name").join("snapshots").join(revision);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(CONFIG_FILE), "{}").unwrap();
        folder
    }

    #[test]
    fn the_cache_gives_the_snapshot_its_main_reference_names() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_in_hf_cache(root.path(), "org/name"), None);
        let first = snapshot(root.path(), "aaa");
        snapshot(root.path(), "bbb");
        let refs = root.path().join("models--org--name").join("refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), "aaa\n").unwrap();
        assert_eq!(find_in_hf_cache(root.path(), "org/name"), Some(first.clone()));
        assert_eq!(checkpoint_name(&first), "org/name");
        fs::write(refs.join("main"), "../../../elsewhere").unwrap();
        assert!(find_in_hf_cache(root.path(), "org/name").is_some_and(|p| p.starts_with(root.path())));
    }

    #[test]
    fn names_that_are_not_org_and_name_find_nothing() {
        let root = tempfile::tempdir().unwrap();
        snapshot(root.path(), "aaa");
        for name in ["name", "org/", "/name", "org/name/more", "../org/name", "org/..", ""] {
            assert_eq!(find_in_hf_cache(root.path(), name), None, "{name}");
        }
    }
}
