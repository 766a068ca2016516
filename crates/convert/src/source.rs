//! The weights of a checkpoint, opened lazily and known by canonical names: one safetensors file or shards with an index, or
//! a GGUF file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::{HEAD_FILES, KeyMap, StaticTable, TensorIndex};
use omniburn_models::record::Dtype;
use omniburn_models::record::affine::{AffineFormat, AffineRows};

use crate::error::{ConvertError, NonFiniteFault, TensorFaults};
use crate::files::{ADAPTER_CONFIG, CONFIG_FILE, MODULES_FILE, read_json};
use crate::folded::Folded;
use crate::gguf::reader::GgufFile;
use crate::layout;
use crate::safefile::{Element, Pairs, SafeFile, StoredTensor};
use crate::weights::{RowChange, Scaled, WeightFile, from_pairs};

/// The weights, where one file holds them.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The list of tensors and the shards that hold them.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The weights of a checkpoint, by canonical name.
#[derive(Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    files: Vec<WeightFile>,
    keys: BTreeMap<String, Key>,
    index: Option<PathBuf>,
    folded: Option<Folded>,
    /// Scales of other tensors.
    beside: BTreeSet<String>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Key {
    file: usize,
    /// The name in the file.
    own: String,
    /// The name for people: with the folder in front, for a tensor of a module beside the weights.
    shown: String,
    /// What is undone as the tensor is read.
    change: Option<RowChange>,
}

impl Key {
    /// A tensor that is called in its file as people call it.
    fn of(file: usize, own: &str) -> Self {
        Self { file, own: own.into(), shown: own.into(), change: None }
    }

    fn shown(self, shown: String) -> Self {
        Self { shown, ..self }
    }
}

impl Source {
    /// Opens the folder's weight files and reads their headers.
    pub fn open(folder: &Path, map: &KeyMap) -> Result<Self, ConvertError> {
        let mut notes = Vec::new();
        let (mut files, index) = open_files(folder, &mut notes)?;
        let mut keys: BTreeMap<String, Key> = BTreeMap::new();
        let mut twice = Vec::new();
        for (file, safe) in files.iter().enumerate() {
            for own in safe.tensors.keys() {
                let canonical = map.canonical(own);
                if let Some(before) = keys.get(&canonical) {
                    twice.push(format!("{} and {own}", before.own));
                } else {
                    keys.insert(canonical, Key::of(file, own));
                }
            }
        }
        // Heads in files of their own, whose tensors have no other name than what they are.
        for name in HEAD_FILES {
            let path = folder.join(format!("{name}.safetensors"));
            if !path.is_file() {
                continue;
            }
            let safe = SafeFile::open(&path)?;
            for own in safe.tensors.keys() {
                let key = Key::of(files.len(), own).shown(format!("{name}.{own}"));
                let before = keys.insert(format!("{name}.{own}"), key);
                twice.extend(before.map(|before| format!("{} and {own} of {}", before.own, path.display())));
            }
            files.push(safe);
        }
        if !twice.is_empty() {
            return Err(ConvertError::Duplicates { names: twice });
        }
        let files = files.into_iter().map(WeightFile::Safe).collect();
        Ok(Self { folder: folder.to_path_buf(), files, keys, index, folded: None, beside: BTreeSet::new(), notes })
    }

    /// The weights of a GGUF file: `named` gives the published name of a tensor and what is undone as it is read; `aside` is
    /// read by others.
    ///
    /// # Errors
    /// [`ConvertError::Duplicates`], [`ConvertError::Corrupt`] where a tensor cannot be changed back.
    pub fn of_gguf(
        file: GgufFile,
        map: &KeyMap,
        named: impl Fn(&str) -> (String, Option<RowChange>),
        aside: &str,
    ) -> Result<Self, ConvertError> {
        let mut keys: BTreeMap<String, Key> = BTreeMap::new();
        let mut twice = Vec::new();
        for (own, tensor) in file.tensors.iter().filter(|(own, _)| *own != aside) {
            let (name, change) = named(own);
            if let Some(reason) = change.as_ref().and_then(|change| change.fault(&tensor.shape)) {
                let (path, tensor) = (file.path().to_path_buf(), Some(own.clone()));
                return Err(ConvertError::Corrupt { path, tensor, reason });
            }
            if let Some(before) = keys.insert(map.canonical(&name), Key { change, ..Key::of(0, own) }) {
                twice.push(format!("{} and {own}", before.own));
            }
        }
        if !twice.is_empty() {
            return Err(ConvertError::Duplicates { names: twice });
        }
        let (folder, files) = (file.path().to_path_buf(), vec![WeightFile::Gguf(file)]);
        Ok(Self { folder, files, keys, index: None, folded: None, beside: BTreeSet::new(), notes: Vec::new() })
    }

    /// The same with the weights of modules that lie in folders of their own; a tensor is called by the name of its module
    /// and its own.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn with_modules<'a>(
        mut self,
        modules: impl IntoIterator<Item = (String, &'a Path)>,
    ) -> Result<Self, ConvertError> {
        for (module, folder) in modules {
            let path = folder.join(SINGLE_FILE);
            if !path.exists() {
                let other = other_weights(folder, SAVE_MODULES);
                return Err(other.unwrap_or(ConvertError::MissingFiles { paths: vec![path] }));
            }
            let safe = SafeFile::open(&path)?;
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for own in safe.tensors.keys() {
                let key = Key::of(self.files.len(), own).shown(format!("{name}/{own}"));
                if let Some(before) = self.keys.insert(format!("{module}.{own}"), key) {
                    return Err(ConvertError::Duplicates { names: vec![format!("{} and {name}/{own}", before.shown)] });
                }
            }
            self.files.push(WeightFile::Safe(safe));
        }
        Ok(self)
    }

    /// The same with a table of token rows in place of the tensors that it is made of.
    pub fn with_table(mut self, names: StaticTable) -> Self {
        let places = [names.rows, names.mapping, names.weights]
            .map(|name| self.keys.get(name).map(|key| (key.file, key.own.as_str())));
        self.folded = Folded::of(names, &self.files, places);
        if self.folded.is_some() {
            self.keys.remove(names.mapping);
            self.keys.remove(names.weights);
        }
        self
    }

    /// The folder, or the file where there is one alone.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Canonical names, sorted, without those of scales.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str).filter(|name| !self.beside.contains(*name))
    }

    /// Whether some canonical name begins so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.keys.range(prefix.to_string()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// What the header says of a tensor.
    pub fn get(&self, canonical: &str) -> Option<&StoredTensor> {
        if let Some(folded) = self.table(canonical) {
            return Some(&folded.tensor);
        }
        let key = self.keys.get(canonical)?;
        self.files[key.file].tensors().get(&key.own)
    }

    /// Shape of a tensor.
    pub fn shape(&self, canonical: &str) -> Option<&[usize]> {
        self.get(canonical).map(|t| t.shape.as_slice())
    }

    /// The name a tensor has in its file; the canonical one where there is no such tensor.
    pub fn own_name<'a>(&'a self, canonical: &'a str) -> &'a str {
        self.keys.get(canonical).map_or(canonical, |key| &key.shown)
    }

    /// Bytes of a tensor with their type; NaN and infinite values are an error.
    ///
    /// # Panics
    /// If the tensor was not found to be there before.
    pub fn read(&self, canonical: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        if self.table(canonical).is_some() {
            return Ok((Dtype::F32, layout::narrow(Dtype::F32, &self.read_f32(canonical)?)));
        }
        let (file, key) = self.place(canonical);
        let wide = || file.read(&key.own).map(|(dtype, bytes)| layout::widen(dtype, &bytes));
        let values = match &key.change {
            None => return file.read(&key.own),
            Some(RowChange::FromPairs { heads }) => from_pairs(&wide()?, file.tensors()[&key.own].shape[0], *heads),
            Some(RowChange::LessOne) => wide()?.into_iter().map(|value| value - 1.0).collect(),
            Some(RowChange::Scaled(scaled)) => {
                let values = self.scaled(file.safe(), key, scaled)?;
                let count = values.iter().filter(|value| !value.is_finite()).count();
                if count > 0 {
                    let faults = vec![NonFiniteFault { tensor: key.own.clone(), count }];
                    return Err(ConvertError::NonFinite { path: file.path().to_path_buf(), faults });
                }
                values
            }
        };
        Ok((Dtype::F32, layout::narrow(Dtype::F32, &values)))
    }

    /// Values of 8 bits times their scales.
    fn scaled(&self, file: &SafeFile, key: &Key, scaled: &Scaled) -> Result<Vec<f32>, ConvertError> {
        let scales = self.read_f32(&scaled.scale)?;
        let zeros = scaled.zero.as_ref().map(|zero| self.whole_numbers(zero)).transpose()?;
        let columns = file.tensors[&key.own].shape[1];
        Ok(scaled.values(&file.read_any(&key.own)?.1, columns, &scales, zeros.as_deref()))
    }

    /// A tensor of floats, or of whole numbers of 8 bits.
    fn whole_numbers(&self, canonical: &str) -> Result<Vec<f32>, ConvertError> {
        let (file, key) = self.place(canonical);
        match file.safe().read_any(&key.own)? {
            (Element::Other("I8"), bytes) => Ok(bytes.into_iter().map(|byte| f32::from(byte as i8)).collect()),
            _ => self.read_f32(canonical),
        }
    }

    /// Takes a weight of 8 bits for one with scales, which stand for nothing else then.
    ///
    /// # Errors
    /// [`ConvertError::Tensors`] where its scales are no floats.
    pub fn scale(&mut self, canonical: &str, scaled: Scaled) -> Result<(), ConvertError> {
        let mut faults = TensorFaults::default();
        let fault = |name: &str| self.get(name).and_then(|tensor| tensor.dtype_fault(self.own_name(name)));
        faults.wrong_dtype.extend(fault(&scaled.scale));
        faults.wrong_dtype.extend(scaled.zero.as_deref().and_then(fault).filter(|fault| fault.found != "I8"));
        if !faults.is_empty() {
            return Err(ConvertError::Tensors { path: self.folder.clone(), faults });
        }
        let of_inputs = canonical.strip_suffix("weight").map(|module| format!("{module}input_scale"));
        self.beside.extend([Some(scaled.scale.clone()), scaled.zero.clone(), of_inputs].into_iter().flatten());
        let Some(key) = self.keys.get_mut(canonical) else { return Ok(()) };
        if let Some(tensor) = self.files[key.file].tensors_mut().get_mut(&key.own) {
            tensor.element = Element::Packed(scaled.eight.name());
        }
        key.change = Some(RowChange::Scaled(scaled));
        Ok(())
    }

    /// Values of a tensor as f32; NaN and infinite values are an error.
    ///
    /// # Panics
    /// As [`Source::read`].
    pub fn read_f32(&self, canonical: &str) -> Result<Vec<f32>, ConvertError> {
        if let Some(folded) = self.table(canonical) {
            return folded.values(self.files[folded.file].safe());
        }
        self.read(canonical).map(|(dtype, bytes)| layout::widen(dtype, &bytes))
    }

    /// The affine groups that a tensor is packed in, and what its type is called in its file; `None` where it has none, or is
    /// changed as it is read in other ways than by the order of its rows.
    pub fn affine_format(&self, canonical: &str) -> Option<(AffineFormat, &'static str)> {
        let key = self.keys.get(canonical)?;
        match (&self.files[key.file], &key.change) {
            (WeightFile::Gguf(file), None | Some(RowChange::FromPairs { .. })) => file.affine_format(&key.own),
            _ => None,
        }
    }

    /// A tensor as the affine groups it is packed in.
    ///
    /// # Panics
    /// If it has none ([`Source::affine_format`]).
    pub fn affine(&self, canonical: &str) -> Result<AffineRows, ConvertError> {
        let (file, key) = self.place(canonical);
        let WeightFile::Gguf(file) = file else { panic!("{canonical} has no groups") };
        let rows = file.affine(&key.own)?;
        let Some(RowChange::FromPairs { heads }) = key.change else { return Ok(rows) };
        let count = file.tensors[&key.own].shape[0];
        let order = from_pairs(&(0..count).map(|row| row as f32).collect::<Vec<_>>(), count, heads);
        let order: Vec<usize> = order.into_iter().map(|row| row as usize).collect();
        Ok(AffineRows {
            codes: in_order(&rows.codes, &order),
            scales: in_order(&rows.scales, &order),
            offsets: in_order(&rows.offsets, &order),
        })
    }

    /// Number of NaN and infinite values in a tensor.
    ///
    /// # Panics
    /// As [`Source::read`].
    pub fn non_finite(&self, canonical: &str) -> Result<usize, ConvertError> {
        if self.table(canonical).is_some() {
            return Ok(layout::count_non_finite(Dtype::F32, &self.read(canonical)?.1));
        }
        let (file, key) = self.place(canonical);
        let Some(RowChange::Scaled(scaled)) = &key.change else { return file.non_finite(&key.own) };
        let of_scales = self.non_finite(&scaled.scale)?;
        if of_scales > 0 {
            return Ok(of_scales);
        }
        Ok(self.scaled(file.safe(), key, scaled)?.iter().filter(|value| !value.is_finite()).count())
    }

    /// The weight files and their index, for the record's list of sources.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.index.iter().cloned().chain(self.files.iter().map(|f| f.path().to_path_buf())).collect()
    }

    fn table(&self, canonical: &str) -> Option<&Folded> {
        self.folded.as_ref().filter(|folded| folded.name == canonical)
    }

    fn place(&self, canonical: &str) -> (&WeightFile, &Key) {
        let key = self.keys.get(canonical).unwrap_or_else(|| panic!("{canonical} was not checked to be there"));
        (&self.files[key.file], key)
    }
}

/// Rows in another order.
fn in_order<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    let width = values.len() / order.len();
    order.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
}

impl TensorIndex for Source {
    fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.shape(name)
    }

    fn begins(&self, prefix: &str) -> bool {
        self.has_prefix(prefix)
    }

    fn contains(&self, part: &str) -> bool {
        self.names().any(|name| name.contains(part))
    }

    fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.get(name)?;
        let is_one = tensor.shape.iter().product::<usize>() == 1 && tensor.dtype_fault(name).is_none();
        if !is_one {
            return None;
        }
        self.read_f32(name).ok()?.first().copied()
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
        (false, false) => {
            Err(other_weights(folder, SAVE).unwrap_or(ConvertError::MissingFiles { paths: vec![single] }))
        }
    }
}

/// Formats that weights come in and that are not read, by the end of the name.
const OTHER_FORMATS: [(&str, &str); 16] = [
    (".safetensors", "safetensors under another name"),
    (".safetensors.index.json", "the index of safetensors under another name"),
    (".bin", "a pickle of PyTorch"),
    (".bin.index.json", "the index of pickles of PyTorch"),
    (".pt", "a pickle of PyTorch"),
    (".pth", "a pickle of PyTorch"),
    (".ckpt", "a pickle of PyTorch"),
    (".pkl", "a pickle"),
    (".onnx", "ONNX"),
    (".gguf", "GGUF"),
    (".ggml", "GGML"),
    (".h5", "TensorFlow"),
    (".ckpt.index", "TensorFlow"),
    (".msgpack", "Flax"),
    (".npz", "NumPy"),
    (".mlmodel", "Core ML"),
];
/// Folders that exports for other programs lie in.
const EXPORTS: [(&str, &str); 4] =
    [("onnx", "ONNX"), ("openvino", "OpenVINO"), ("coreml", "Core ML"), ("gguf", "GGUF")];
/// How PyTorch's weights become what is read.
const SAVE: &str =
    "save it as safetensors, with `AutoModel.from_pretrained(FOLDER).save_pretrained(OUT)` of transformers";

/// How the modules of sentence-transformers do.
const SAVE_MODULES: &str = "save it as safetensors, with `SentenceTransformer(FOLDER).save_pretrained(OUT)`";

/// The format of a weight file that is not read.
fn other_format(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    if name.starts_with("openvino_") {
        return Some("OpenVINO");
    }
    if name == "training_args.bin" || name == "optimizer.pt" || name == "scheduler.pt" || name.starts_with("adapter_") {
        return None;
    }
    OTHER_FORMATS.iter().rev().find(|(end, _)| name.ends_with(end)).map(|(_, format)| *format)
}

/// A refusal that names the weights a folder has in place of those that are read; `None` where it has none.
fn other_weights(folder: &Path, save: &str) -> Option<ConvertError> {
    let entries = fs::read_dir(folder).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
    paths.sort();
    let mut found = Vec::new();
    let mut safetensors = false;
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(format) = other_format(path).filter(|_| path.is_file()) {
            safetensors |= format.contains("safetensors");
            found.push(format!("{name} ({format})"));
        } else if let Some((_, format)) = EXPORTS.iter().find(|(export, _)| *export == name.to_lowercase())
            && path.is_dir()
        {
            found.push(format!("{name}/ ({format})"));
        }
    }
    let way = if found.iter().any(|file| file.ends_with(".gguf (GGUF)")) {
        format!("{SINGLE_FILE} would do, and a GGUF file is read where it is named itself")
    } else if safetensors {
        format!("{SINGLE_FILE}, or shards with {INDEX_FILE}, would do")
    } else {
        format!("{SINGLE_FILE} would do, which opens without running anything: {save}")
    };
    (!found.is_empty()).then(|| ConvertError::OtherWeights { path: folder.into(), found, way })
}

/// A refusal of a file that was given for a checkpoint's folder.
pub(crate) fn not_a_folder(path: &Path) -> ConvertError {
    let format = other_format(path).unwrap_or("a file");
    let way = match format {
        "safetensors under another name" => {
            "name the folder it lies in, with config.json and tokenizer.json".to_string()
        }
        _ => format!("a folder with config.json, tokenizer.json and {SINGLE_FILE} would do: the one it was made from"),
    };
    ConvertError::OtherWeights { path: path.into(), found: vec![format.into()], way }
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

/// What a checkpoint is called: its folder's name, or `ORG/NAME` for a snapshot in the Hugging Face cache.
pub(crate) fn checkpoint_name(folder: &Path) -> String {
    // A file of such a snapshot is a link to one that is called by its digest.
    let at = if folder.is_file() { folder.parent().unwrap_or(folder) } else { folder };
    let absolute = at.canonicalize().unwrap_or_else(|_| at.to_path_buf());
    let name_of = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let snapshots = absolute.parent().filter(|p| name_of(p).as_deref() == Some("snapshots"));
    if let Some(cached) = snapshots.and_then(Path::parent).and_then(name_of)
        && let Some(name) = cached.strip_prefix("models--")
    {
        let inside = if folder.is_file() { name_of(folder) } else { None };
        let model = name.replace("--", "/");
        return inside.map_or(model.clone(), |file| format!("{model}/{file}"));
    }
    if folder.is_file() {
        return name_of(folder).unwrap_or_else(|| "checkpoint".into());
    }
    name_of(&absolute).unwrap_or_else(|| "checkpoint".into())
}

/// The newest snapshot of `ORG/NAME`, or of a `NAME` without an organisation, in a Hugging Face cache, if it holds the
/// configuration of a checkpoint or of an adapter.
///
/// `cache_root` is the folder that holds `models--ORG--NAME`. The snapshot is the one `refs/main` names; without such a
/// reference, the one changed last. Nothing is downloaded.
pub fn find_in_hf_cache(cache_root: &Path, org_name: &str) -> Option<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = org_name.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| plain(part)) {
        return None;
    }
    let model = cache_root.join(format!("models--{}", parts.join("--")));
    // A model of sentence-transformers may have its configuration in a folder inside.
    let files = [CONFIG_FILE, MODULES_FILE, ADAPTER_CONFIG];
    let complete = |folder: &PathBuf| files.iter().any(|file| folder.join(file).is_file());
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

/// What the report says of a snapshot in a Hugging Face cache: its revision, and where `refs/main` names another.
pub(crate) fn snapshot_note(folder: &Path) -> Option<String> {
    let absolute = folder.canonicalize().ok()?;
    let snapshots = absolute.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let model = snapshots
        .parent()
        .filter(|model| model.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--")))?;
    let revision = absolute.file_name()?.to_string_lossy().into_owned();
    let others = fs::read_dir(snapshots).ok()?.filter_map(Result::ok).count().saturating_sub(1);
    Some(match fs::read_to_string(model.join("refs").join("main")) {
        Ok(main) if main.trim() == revision => format!("revision {revision}, which refs/main names"),
        Ok(main) => format!("revision {revision}, although refs/main names {}", main.trim()),
        Err(_) if others > 0 => {
            format!("revision {revision}, changed last of {} that are there; no refs/main", others + 1)
        }
        Err(_) => format!("revision {revision}, the only one that is there; no refs/main"),
    })
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
    fn a_name_without_an_organisation_and_a_configuration_further_inside_are_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("models--bert-base").join("snapshots").join("aaa");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(find_in_hf_cache(root.path(), "bert-base"), None);
        fs::write(folder.join(MODULES_FILE), "[]").unwrap();
        assert_eq!(find_in_hf_cache(root.path(), "bert-base"), Some(folder.clone()));
        assert_eq!(checkpoint_name(&folder), "bert-base");
        let note = |folder: &Path| snapshot_note(folder).unwrap();
        assert!(note(&folder).contains("aaa, the only one"), "{}", note(&folder));
        let other = root.path().join("models--bert-base").join("snapshots").join("bbb");
        fs::create_dir_all(&other).unwrap();
        assert!(note(&folder).contains("changed last of 2"), "{}", note(&folder));
        fs::create_dir_all(root.path().join("models--bert-base").join("refs")).unwrap();
        fs::write(root.path().join("models--bert-base").join("refs").join("main"), "bbb").unwrap();
        assert!(note(&folder).contains("although refs/main names bbb"), "{}", note(&folder));
        assert!(note(&other).contains("which refs/main names"), "{}", note(&other));
        assert_eq!(snapshot_note(root.path()), None);
    }

    #[test]
    fn names_that_are_not_org_and_name_find_nothing() {
        let root = tempfile::tempdir().unwrap();
        snapshot(root.path(), "aaa");
        for name in ["nowhere", "org/", "/name", "org/name/more", "../org/name", "org/..", ""] {
            assert_eq!(find_in_hf_cache(root.path(), name), None, "{name}");
        }
    }
}
