//! Writing a record folder: parts stream one tensor at a time into a folder beside the destination.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::tensor::Bytes;

use omniburn_kernels::cpu::pack::{Packed, PanelLayout};
use omniburn_output::{Leftover, WholeFolder, folder};

use super::digest::{sha256_file, sha256_hex};
use super::header::{FileEntry, RecordHeader, TensorEntry};
use super::types::{Dtype, HEADER_FILE, TOKENIZER_FILE};
use crate::error::RecordError;

type Produce = Box<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// A tensor whose bytes are made when the writer reaches it.
pub struct PartTensor {
    /// Name in the part.
    pub name: String,
    /// Stored type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
    panels: Option<PanelLayout>,
    /// Whether `produce` makes the panels themselves.
    is_packed: bool,
    produce: Produce,
}

impl PartTensor {
    /// A tensor of little-endian `dtype` bytes, row-major, made by `produce` when the writer reaches it and dropped
    /// before the next one is asked for.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
        produce: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), dtype, shape, panels: None, is_packed: false, produce: Box::new(produce) }
    }

    /// A matrix that `produce` packs itself, such as one of affine groups.
    pub fn packed(
        name: impl Into<String>,
        dtype: Dtype,
        layout: PanelLayout,
        produce: impl Fn() -> Result<Packed, String> + Send + Sync + 'static,
    ) -> Self {
        let make = move || {
            let packed = produce()?;
            if *packed.layout() == layout { Ok(packed.bytes().to_vec()) } else { Err(OTHER_LAYOUT.into()) }
        };
        let tensor = Self::new(name, dtype, vec![layout.inputs, layout.outputs], make);
        Self { panels: Some(layout), is_packed: true, ..tensor }
    }

    /// The same, stored in panels; `produce` still makes the matrix row by row.
    #[must_use]
    pub fn in_panels(self, panels: Option<PanelLayout>) -> Self {
        Self { panels, ..self }
    }
}

const OTHER_LAYOUT: &str = "it was packed in another layout than was said";

/// A record folder under construction; dropped unfinished, it leaves nothing behind.
pub struct RecordWriter {
    out: PathBuf,
    /// The folder `new` of `place`.
    work: PathBuf,
    place: WholeFolder,
    force: bool,
    files: BTreeMap<String, FileEntry>,
}

impl RecordWriter {
    /// Starts a record that will appear at `out`; where `out` is a link, at the folder that it leads to.
    ///
    /// # Errors
    /// [`RecordError::Exists`] when `out` is taken and `force` is not given; [`RecordError::NotReplaceable`] when
    /// `force` is given and what is there is neither a record folder with nothing else in it nor an empty folder;
    /// [`RecordError::Output`] of a link in a circle; [`RecordError::Io`].
    pub fn create(out: &Path, force: bool) -> Result<Self, RecordError> {
        Self::check_destination(out, force)?;
        let place = WholeFolder::create(&folder::destination(out)?)?;
        Ok(Self { out: out.to_path_buf(), work: place.new_folder(), place, force, files: BTreeMap::new() })
    }

    /// Removes what writers of `out` that were killed left beside it, and puts an old record back that one of them had set
    /// aside. What a writer that lives is making stays.
    ///
    /// # Errors
    /// [`RecordError::Io`] where the folder of `out` cannot be listed. What cannot be removed is no error, but a
    /// [`Leftover::Kept`].
    pub fn recover(out: &Path) -> Result<Vec<Leftover>, RecordError> {
        Ok(folder::recover(&folder::destination(out)?)?)
    }

    /// Whether a record may be written at `out`, without touching anything.
    ///
    /// # Errors
    /// As [`RecordWriter::create`].
    pub fn check_destination(out: &Path, force: bool) -> Result<(), RecordError> {
        let end = folder::destination(out)?;
        match fs::symlink_metadata(&end) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(RecordError::io(out)(e)),
            Ok(_) if !force => return Err(RecordError::Exists { path: out.to_path_buf() }),
            Ok(_) => {}
        }
        let path = out.to_path_buf();
        let Some(names) = names_in(&end) else {
            return Err(RecordError::NotReplaceable { path, why: NO_FOLDER.into() });
        };
        if names.is_empty() {
            return Ok(());
        }
        let header = end.join(HEADER_FILE);
        if !header.is_file() {
            let why = format!("it holds no {HEADER_FILE}, but {}", some_of(&names));
            return Err(RecordError::NotReplaceable { path, why });
        }
        let listed = match fs::read(&header).map(|text| serde_json::from_slice::<serde_json::Value>(&text)) {
            // An older or newer record is one, too.
            Ok(Ok(header)) if header["format"].is_u64() && header["files"].is_object() => header["files"].clone(),
            Ok(Ok(_)) => {
                return Err(RecordError::NotReplaceable { path, why: format!("its {HEADER_FILE} is not a record's") });
            }
            // A damaged record: then the names say what belongs to one.
            _ => serde_json::Value::Null,
        };
        let other: Vec<String> =
            names.into_iter().filter(|name| !is_of_a_record(name) && listed.get(name).is_none()).collect();
        if other.is_empty() {
            return Ok(());
        }
        let why = format!("it also holds {}, which would be lost: move that away", some_of(&other));
        Err(RecordError::NotReplaceable { path, why })
    }

    /// Writes one tensor file, hashing each tensor as it passes. `progress` hears the bytes of each tensor done.
    ///
    /// # Errors
    /// [`RecordError::NotWritten`] with the reason a tensor could not be made or written.
    pub fn write_part(
        &mut self,
        file: &str,
        tensors: Vec<PartTensor>,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), RecordError> {
        let path = self.work.join(file);
        let entries: Arc<Mutex<BTreeMap<String, TensorEntry>>> = Arc::default();
        let progress = Arc::new(progress);
        let packs = tensors
            .into_iter()
            .map(|t| {
                let (panels, is_packed) = (t.panels, t.is_packed);
                let stored =
                    panels.map_or_else(|| t.shape.clone(), |panels| vec![panels.panels(), panels.panel_values()]);
                let bytes = stored.iter().product::<usize>() * t.dtype.bytes();
                let (entries, progress) = (Arc::clone(&entries), Arc::clone(&progress));
                let (name, dtype, shape) = (t.name.clone(), t.dtype, t.shape.clone());
                burn_pack::Tensor::deferred(t.name, t.dtype.burn(), stored, None, bytes, move || {
                    let data = (t.produce)().map_err(|e| burn_pack::Error::IoError(format!("{name}: {e}")))?;
                    let data = match panels {
                        Some(layout) if !is_packed => {
                            Packed::from_rows(layout, &data, vec![1.0; layout.outputs]).bytes().to_vec()
                        }
                        _ => data,
                    };
                    let sha256 = sha256_hex(&data);
                    let layout = panels.map(|layout| layout.id().to_string());
                    let entry = TensorEntry { dtype, shape: shape.clone(), sha256, panels: false, layout };
                    entries.lock().unwrap_or_else(|p| p.into_inner()).insert(name.clone(), entry);
                    progress(data.len() as u64);
                    Ok(Bytes::from_bytes_vec(data))
                })
            })
            .collect();
        burn_pack::Writer::new(packs)
            .auto_extension(false)
            .write_to_file(&path)
            .map_err(|e| RecordError::NotWritten { path: path.clone(), reason: e.to_string() })?;
        // Over the whole file, so that a byte altered between two tensors shows too.
        let (sha256, bytes) = sha256_file(&path).map_err(RecordError::io(&path))?;
        let tensors = std::mem::take(&mut *entries.lock().unwrap_or_else(|p| p.into_inner()));
        self.files.insert(file.into(), FileEntry { bytes, sha256, tensors });
        Ok(())
    }

    /// Copies a file into the record as it is.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn copy_file(&mut self, file: &str, from: &Path) -> Result<(), RecordError> {
        // In two steps, so that the error names the file it is about.
        let content = fs::read(from).map_err(RecordError::io(from))?;
        self.write_file(file, &content)
    }

    /// Writes a file of the record.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn write_file(&mut self, file: &str, content: &[u8]) -> Result<(), RecordError> {
        let path = self.work.join(file);
        write_to_disk(&path, content)?;
        let (sha256, bytes) = sha256_file(&path).map_err(RecordError::io(&path))?;
        self.files.insert(file.into(), FileEntry { bytes, sha256, tensors: BTreeMap::new() });
        Ok(())
    }

    /// Folder the parts lie in until [`RecordWriter::finish`].
    pub fn work_folder(&self) -> &Path {
        &self.work
    }

    /// Writes the header, after which the work folder is a whole record that can be opened and checked before it
    /// takes its place.
    ///
    /// `header.files` and `header.digest` are filled in here.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn seal(&mut self, mut header: RecordHeader) -> Result<RecordHeader, RecordError> {
        header.files = self.files.clone();
        header.digest = header.compute_digest();
        let path = self.work.join(HEADER_FILE);
        let text = serde_json::to_string_pretty(&header).expect("a header is plain data and always serialises");
        write_to_disk(&path, (text + "\n").as_bytes())?;
        Ok(header)
    }

    /// Puts the sealed folder in its place. Whoever looks, or is left after a kill, finds the old record or the new one,
    /// whole; where the system cannot exchange two folders in one step, a kill between two steps leaves the old one set
    /// aside until [`RecordWriter::recover`].
    ///
    /// Gives what could not be removed of the old record, if that failed.
    ///
    /// # Errors
    /// [`RecordError::Io`], or as [`RecordWriter::create`] where somebody else has put something there meanwhile; the
    /// destination is then as it was.
    pub fn place(self) -> Result<Option<Leftover>, RecordError> {
        let Self { out, place, force, .. } = self;
        place.place(force, || Self::check_destination(&out, force))
    }

    /// [`RecordWriter::seal`] and [`RecordWriter::place`] in one.
    ///
    /// # Errors
    /// As those two.
    pub fn finish(mut self, header: RecordHeader) -> Result<RecordHeader, RecordError> {
        let header = self.seal(header)?;
        self.place()?;
        Ok(header)
    }
}

const NO_FOLDER: &str = "it is no folder";

/// Names in a folder, in order; `None` for what is no folder or cannot be listed.
fn names_in(folder: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(folder).ok()?;
    let mut names: Vec<String> = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .ok()?;
    names.sort();
    Some(names)
}

/// Names that are always a record's, and those that systems put into any folder.
fn is_of_a_record(name: &str) -> bool {
    [HEADER_FILE, TOKENIZER_FILE, "selftest.json", ".DS_Store", "Thumbs.db", "desktop.ini"].contains(&name)
        || name.ends_with(".bpk")
}

/// The first few of some names.
fn some_of(names: &[String]) -> String {
    const MOST: usize = 5;
    let more = names.len().saturating_sub(MOST);
    let first = names[..names.len() - more].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// Writes a file that lasts through a loss of power; a full disk may show only when it is flushed.
fn write_to_disk(path: &Path, content: &[u8]) -> Result<(), RecordError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(RecordError::io(path))
}
