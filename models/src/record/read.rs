//! Reading a record folder: the header strictly, tensor files by memory map.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Bytes;
use omniburn_kernels::cpu::pack::{PanelFormat, PanelLayout};

use super::digest::{sha256_file, sha256_hex};
use super::header::{FileEntry, RECORD_FORMAT, RecordHeader, TensorEntry};
use super::part::{Part, PartEntry};
use super::spec::{TensorRole, TensorSpec};
use super::types::{Dtype, HEADER_FILE, Modality, TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, TemplateKind, text_file};
use crate::error::RecordError;

/// An opened record folder: a checked header and the paths of its files. Nothing is mapped yet.
#[derive(Debug, Clone)]
pub struct RecordFolder {
    /// Of the folder; what messages call the files of a record that lies in the program.
    path: PathBuf,
    inside: Option<&'static [InsideFile]>,
    header: RecordHeader,
}

/// A file of a record that lies in the program itself: its name and its bytes.
pub type InsideFile = (&'static str, &'static [u8]);

/// What messages call the folder of a record that lies in the program.
const INSIDE: &str = "(in the program)";

impl RecordFolder {
    /// Reads and checks `model.json`, and that every file it lists is there with its length.
    ///
    /// # Errors
    /// [`RecordError`] naming the file and field.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let file = path.join(HEADER_FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(RecordError::NotARecord { path: path.to_path_buf() });
            }
            Err(e) => return Err(RecordError::io(&file)(e)),
        };
        Self::read(path, None, &text)
    }

    /// A record whose files lie in the program.
    ///
    /// # Errors
    /// As [`RecordFolder::open`].
    pub fn inside(files: &'static [InsideFile]) -> Result<Self, RecordError> {
        let path = Path::new(INSIDE);
        match files.iter().find(|(name, _)| *name == HEADER_FILE) {
            Some((_, text)) => Self::read(path, Some(files), text),
            None => Err(RecordError::NotARecord { path: path.to_path_buf() }),
        }
    }

    fn read(path: &Path, inside: Option<&'static [InsideFile]>, text: &[u8]) -> Result<Self, RecordError> {
        let file = path.join(HEADER_FILE);
        // The number first, so that a newer format is refused by name and not by its first unknown field.
        #[derive(serde::Deserialize)]
        struct Format {
            format: u64,
        }
        let malformed = |source| RecordError::Header { path: file.clone(), source };
        let Format { format } = serde_json::from_slice(text).map_err(malformed)?;
        if format != u64::from(RECORD_FORMAT) {
            return Err(RecordError::Format { path: file, found: format, expected: RECORD_FORMAT });
        }
        let header: RecordHeader = serde_json::from_slice(text).map_err(malformed)?;
        let expected = header.compute_digest();
        if header.digest != expected {
            return Err(RecordError::HeaderDigest { path: file, found: header.digest, expected });
        }
        header.family.check().map_err(|source| RecordError::Config { path: file.clone(), source })?;
        let folder = Self { path: path.to_path_buf(), inside, header };
        folder.check_header(&file)?;
        folder.check_files()?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// Whether its files lie in the program, and not in a folder.
    pub fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    /// Path of the tokenizer; see [`RecordFolder::bytes`] for one that lies in the program.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.path.join(TOKENIZER_FILE)
    }

    /// Bytes of one file of the record, mapped where it is a file.
    ///
    /// # Errors
    /// [`RecordError::Io`], or [`RecordError::MissingFile`] for a name that the program does not hold.
    pub fn bytes(&self, file: &str) -> Result<Bytes, RecordError> {
        let path = self.path.join(file);
        match self.inside {
            None => omniburn_kernels::map_file(&path).map_err(RecordError::io(&path)),
            Some(_) => {
                self.inside_file(file).map(omniburn_kernels::static_bytes).ok_or(RecordError::MissingFile { path })
            }
        }
    }

    fn inside_file(&self, file: &str) -> Option<&'static [u8]> {
        self.inside?.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
    }

    /// Every tensor file with what it must hold.
    pub fn parts(&self) -> Vec<(String, Vec<TensorSpec>)> {
        let family = &self.header.family;
        let shared = [(TOKENS_FILE, family.token_tensors()), (TOWERS_FILE, family.tower_tensors())];
        let shared = shared.into_iter().filter(|(_, specs)| !specs.is_empty());
        let mut parts: Vec<(String, Vec<TensorSpec>)> = shared.map(|(file, specs)| (file.to_string(), specs)).collect();
        let special = self.header.special_token_ids.len();
        parts.extend(self.header.tasks.iter().map(|t| (text_file(t), family.text_tensors(special))));
        let with_scales = |(file, specs): (String, Vec<TensorSpec>)| {
            let specs = self.with_scales(&file, &specs);
            (file, specs)
        };
        parts.into_iter().map(with_scales).collect()
    }

    /// Refuses a task the record does not hold.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`].
    pub fn check_task(&self, task: &str) -> Result<(), RecordError> {
        if self.header.tasks.iter().any(|t| t == task) {
            return Ok(());
        }
        Err(RecordError::UnknownTask { asked: task.into(), held: self.header.tasks.clone() })
    }

    /// The same specs with the scales that lie beside those of a file that are stored in int8: all that may be in an int8
    /// record, and in an affine one those that the header says.
    fn with_scales(&self, file: &str, specs: &[TensorSpec]) -> Vec<TensorSpec> {
        let dtype = self.header.dtype;
        let without = specs.iter().all(|spec| spec.role != TensorRole::Scale);
        let declared = self.header.files.get(file).map(|entry| &entry.tensors);
        let is_int8 = |spec: &TensorSpec| {
            let said = declared.and_then(|tensors| tensors.get(&spec.name)).map(|tensor| tensor.dtype);
            dtype == Dtype::Int8 || dtype.is_affine() && said == Some(Dtype::Int8)
        };
        let scales =
            specs.iter().filter(|spec| without && spec.is_quantizable() && is_int8(spec)).map(TensorSpec::scale);
        specs.iter().cloned().chain(scales).collect()
    }

    /// Maps a tensor file, and checks that names, shapes and dtypes are exactly those of `specs` and of the header. In
    /// an int8 or affine record the scales are looked for too, whether `specs` name them or not.
    ///
    /// # Errors
    /// [`RecordError`] with full lists of missing and unused names.
    pub fn part(&self, file: &str, specs: &[TensorSpec]) -> Result<Part, RecordError> {
        let specs = &self.with_scales(file, specs);
        let path = self.path.join(file);
        let entry = self
            .header
            .files
            .get(file)
            .ok_or_else(|| RecordError::MissingTensors { path: path.clone(), names: vec![file.to_string()] })?;
        let bytes = self.bytes(file)?;
        if bytes.len() as u64 != entry.bytes {
            return Err(RecordError::FileLength { path, found: bytes.len() as u64, expected: entry.bytes });
        }
        let container = |e: burn_pack::Error| RecordError::Container { path: path.clone(), reason: e.to_string() };
        let tensors =
            burn_pack::Reader::from_bytes(bytes).and_then(burn_pack::Reader::into_tensors).map_err(container)?;
        let mut found: BTreeMap<String, burn_pack::Tensor> = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();

        let missing: Vec<String> =
            specs.iter().filter(|s| !found.contains_key(&s.name)).map(|s| s.name.clone()).collect();
        if !missing.is_empty() {
            return Err(RecordError::MissingTensors { path, names: missing });
        }
        let mut kept = BTreeMap::new();
        for spec in specs {
            let tensor = found.remove(&spec.name).expect("checked above");
            let shape = tensor.shape.to_vec();
            let declared = entry.tensors.get(&spec.name);
            let panels = match declared {
                Some(declared) => stored_panels(spec, declared).map_err(|expected| RecordError::PackedLayout {
                    path: path.clone(),
                    tensor: spec.name.clone(),
                    found: declared.layout.clone().unwrap_or_default(),
                    expected,
                })?,
                None => None,
            };
            let stored =
                panels.map_or_else(|| spec.shape.clone(), |panels| vec![panels.panels(), panels.panel_values()]);
            if shape != stored {
                return Err(RecordError::ShapeMismatch {
                    path,
                    tensor: spec.name.clone(),
                    found: shape,
                    expected: stored,
                });
            }
            let declared = declared.map(|t| t.dtype);
            let expected = match declared {
                Some(declared) if spec.may_be(declared, self.header.dtype) => declared,
                _ => spec.stored(self.header.dtype),
            };
            // Affine groups are read as they lie in panels alone.
            let in_panels = !expected.is_affine() || panels.is_some();
            if tensor.dtype != expected.burn() || declared != Some(expected) || !in_panels {
                return Err(RecordError::DtypeMismatch {
                    path,
                    tensor: spec.name.clone(),
                    found: format!("{:?}", tensor.dtype).to_lowercase(),
                    expected: expected.to_string(),
                });
            }
            let data = tensor.into_bytes().map_err(container)?;
            kept.insert(
                spec.name.clone(),
                PartEntry {
                    dtype: expected,
                    shape: spec.shape.clone(),
                    bytes: data,
                    role: spec.role,
                    columns: spec.columns,
                    panels,
                },
            );
        }
        if !found.is_empty() {
            return Err(RecordError::UnusedTensors { path, names: found.into_keys().collect() });
        }
        Ok(Part::new(path, kept))
    }

    /// Reads every byte of every file against the digests. `progress` hears the bytes of each file done.
    ///
    /// # Errors
    /// [`RecordError::DigestMismatch`] naming the first tensor that differs (the file, where no tensor does), or
    /// whatever reading a file gives.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), RecordError> {
        for file in self.header.files.keys() {
            self.verify_file(file)?;
            progress(self.header.files[file].bytes);
        }
        Ok(())
    }

    /// Reads every byte of one file of the record against its digest.
    ///
    /// # Errors
    /// As [`RecordFolder::verify`].
    pub fn verify_file(&self, file: &str) -> Result<(), RecordError> {
        let (path, entry) = (self.path.join(file), &self.header.files[file]);
        let (found, bytes) = match self.inside_file(file) {
            Some(bytes) => (sha256_hex(bytes), bytes.len() as u64),
            None => sha256_file(&path).map_err(RecordError::io(&path))?,
        };
        if bytes != entry.bytes {
            return Err(RecordError::FileLength { path, found: bytes, expected: entry.bytes });
        }
        if found == entry.sha256 {
            return Ok(());
        }
        // Something differs: say which tensor, if it lies in one.
        if let Some((_, specs)) = self.parts().into_iter().find(|(name, _)| name == file) {
            for (name, bytes) in self.part(file, &specs)?.stored() {
                let found = sha256_hex(bytes);
                let expected = entry.tensors[name].sha256.clone();
                if found != expected {
                    return Err(RecordError::DigestMismatch { path, tensor: name.clone(), found, expected });
                }
            }
        }
        Err(RecordError::DigestMismatch { path, tensor: file.into(), found, expected: entry.sha256.clone() })
    }

    fn check_header(&self, file: &Path) -> Result<(), RecordError> {
        let h = &self.header;
        let (hidden, vocab) = (h.family.vector(), h.family.vocab() as u64);
        let field = |field: &str, found: String, expected: String| {
            Err(RecordError::Field { path: file.to_path_buf(), field: field.into(), found, expected })
        };
        if h.tasks.is_empty() {
            return field("tasks", "none".into(), "at least one".into());
        }
        if !h.tasks.contains(&h.default_task) {
            return field("default_task", h.default_task.clone(), format!("one of {}", h.tasks.join(", ")));
        }
        if let Some(bad) = h.dims.iter().find(|&&d| d == 0 || d > hidden) {
            return field("dims", bad.to_string(), format!("1 to {hidden}"));
        }
        if h.dims.last() != Some(&hidden) || !h.dims.is_sorted() {
            return field("dims", format!("{:?}", h.dims), format!("ascending, ending in {hidden}"));
        }
        if let Some(bad) = h.default_dim.filter(|dim| !h.dims.contains(dim)) {
            return field("default_dim", bad.to_string(), format!("one of {:?}", h.dims));
        }
        for (i, &id) in h.special_token_ids.iter().enumerate() {
            if u64::from(id) >= vocab {
                return field(
                    &format!("special_token_ids[{i}]"),
                    id.to_string(),
                    format!("less than {vocab} (rows of the token table)"),
                );
            }
        }
        for (modality, template) in &h.templates {
            let ids = [("start", template.start), ("end", template.end)];
            for (end, id) in ids {
                let name = format!("templates.{modality}.{end}");
                match id {
                    Some(id) if u64::from(id) >= vocab => {
                        return field(&name, id.to_string(), format!("less than {vocab} (rows of the token table)"));
                    }
                    None if template.kind != TemplateKind::Bare => {
                        return field(
                            &name,
                            "nothing".into(),
                            format!("an id, as the template is {}", template.kind.name()),
                        );
                    }
                    _ => {}
                }
            }
        }
        self.check_layouts()?;
        if let Some((name, found, expected)) = h.family.header_fault(&h.templates, &h.preprocess) {
            return field(&name, found, expected);
        }
        let squares = h.preprocess.letterbox.is_some() || h.preprocess.square.is_some();
        for (modality, present) in [
            (Modality::Image, h.preprocess.image.is_some() || squares),
            (Modality::Video, h.preprocess.video.is_some() || squares),
            (Modality::Audio, h.preprocess.audio.is_some()),
        ] {
            let needed = h.family.takes(modality);
            if present != needed || h.templates.contains_key(&modality) != needed {
                let yes = |b| if b { "present" } else { "absent" };
                return field(
                    &format!("preprocess and templates of {modality}"),
                    yes(!needed).into(),
                    yes(needed).into(),
                );
            }
        }
        let mut expected: Vec<String> = self.parts().into_iter().map(|(file, _)| file).collect();
        if h.family.takes(Modality::Text) {
            expected.push(TOKENIZER_FILE.into());
        }
        expected.sort();
        let found: Vec<String> = h.files.keys().cloned().collect();
        if found != expected {
            return field("files", found.join(", "), expected.join(", "));
        }
        Ok(())
    }

    /// Refuses a packed layout that this build does not know, by the tensor and the layout's id: its bytes would be read
    /// wrongly. Which layout fits which tensor is checked when the part is opened.
    fn check_layouts(&self) -> Result<(), RecordError> {
        for (file, entry) in &self.header.files {
            for (tensor, stored) in &entry.tensors {
                let Some(id) = &stored.layout else { continue };
                if !PanelLayout::IDS.contains(&id.as_str()) || stored.panels {
                    return Err(RecordError::PackedLayout {
                        path: self.path.join(file),
                        tensor: tensor.clone(),
                        found: if stored.panels { format!("{id} and panels") } else { id.clone() },
                        expected: format!("one of {}", PanelLayout::IDS.join(", ")),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), RecordError> {
        for (file, FileEntry { bytes, .. }) in &self.header.files {
            let path = self.path.join(file);
            if self.inside.is_some() {
                let found = self.inside_file(file).map(|bytes| bytes.len() as u64);
                match found {
                    Some(found) if found == *bytes => continue,
                    Some(found) => return Err(RecordError::FileLength { path, found, expected: *bytes }),
                    None => return Err(RecordError::MissingFile { path }),
                }
            }
            let meta = fs::metadata(&path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => RecordError::MissingFile { path: path.clone() },
                _ => RecordError::Io { path: path.clone(), source: e },
            })?;
            if !meta.is_file() {
                return Err(RecordError::MissingFile { path });
            }
            if meta.len() != *bytes {
                return Err(RecordError::FileLength { path, found: meta.len(), expected: *bytes });
            }
        }
        Ok(())
    }
}

/// How a tensor's bytes lie in its file, as the header says; nothing where they lie row by row. In panels without an id, as
/// the first records have them, a matrix lies as its description says.
///
/// # Errors
/// What would do, for a layout that the tensor cannot have.
fn stored_panels(spec: &TensorSpec, declared: &TensorEntry) -> Result<Option<PanelLayout>, String> {
    let Some(id) = &declared.layout else {
        // The first records had no affine groups.
        return Ok(spec.panels(declared.dtype).filter(|_| declared.panels && !declared.dtype.is_affine()));
    };
    let fits = |format: PanelFormat| match (declared.dtype, format) {
        (Dtype::F32, PanelFormat::F32) | (Dtype::Bf16, PanelFormat::Bf16) | (Dtype::Int8, PanelFormat::Int8) => true,
        (Dtype::Affine8, PanelFormat::Affine(format)) => format.bits() == 8,
        (Dtype::Affine4, PanelFormat::Affine(format)) => format.bits() == 4,
        _ => false,
    };
    let (TensorRole::Linear, &[inputs, outputs]) = (spec.role, spec.shape.as_slice()) else {
        return Err("none, as it is no matrix of a product".into());
    };
    let layout = PanelLayout::of_id(id, inputs, outputs).filter(|layout| fits(layout.format));
    layout.map(Some).ok_or_else(|| format!("a layout of {} for {inputs} x {outputs}", declared.dtype))
}
