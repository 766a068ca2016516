//! Writing a record folder: parts stream one tensor at a time into a folder beside the destination.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::tensor::Bytes;

use super::digest::{sha256_file, sha256_hex};
use super::{Dtype, FileEntry, HEADER_FILE, RecordHeader, TensorEntry};
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
        Self { name: name.into(), dtype, shape, produce: Box::new(produce) }
    }
}

/// A record folder under construction; dropped unfinished, it leaves nothing behind.
pub struct RecordWriter {
    out: PathBuf,
    work: PathBuf,
    replace: bool,
    files: BTreeMap<String, FileEntry>,
    finished: bool,
}

impl RecordWriter {
    /// Starts a record that will appear at `out`.
    ///
    /// # Errors
    /// [`RecordError::Exists`] when `out` is taken and `force` is not given; [`RecordError::NotReplaceable`] when
    /// `force` is given and what is there is neither a record folder nor an empty one; [`RecordError::Io`].
    pub fn create(out: &Path, force: bool) -> Result<Self, RecordError> {
        Self::check_destination(out, force)?;
        let replace = out.exists();
        let parent = match out.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(RecordError::io(&parent))?;
        let name = out.file_name().map_or_else(|| "record".into(), |n| n.to_string_lossy().into_owned());
        let work = parent.join(format!(".{name}.{}.part", std::process::id()));
        if work.exists() {
            fs::remove_dir_all(&work).map_err(RecordError::io(&work))?;
        }
        fs::create_dir(&work).map_err(RecordError::io(&work))?;
        Ok(Self { out: out.to_path_buf(), work, replace, files: BTreeMap::new(), finished: false })
    }

    /// Whether a record may be written at `out`, without touching anything.
    ///
    /// # Errors
    /// As [`RecordWriter::create`].
    pub fn check_destination(out: &Path, force: bool) -> Result<(), RecordError> {
        if fs::symlink_metadata(out).is_err() {
            return Ok(());
        }
        if !force {
            return Err(RecordError::Exists { path: out.to_path_buf() });
        }
        let empty = fs::read_dir(out).is_ok_and(|mut d| d.next().is_none());
        if empty || out.join(HEADER_FILE).is_file() {
            Ok(())
        } else {
            Err(RecordError::NotReplaceable { path: out.to_path_buf() })
        }
    }

    /// Writes one tensor file, hashing each tensor as it passes. `progress` hears the bytes of each tensor done.
    ///
    /// # Errors
    /// [`RecordError::Container`] with the reason a tensor could not be made or written.
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
                let bytes = t.shape.iter().product::<usize>() * t.dtype.bytes();
                let (entries, progress) = (Arc::clone(&entries), Arc::clone(&progress));
                let (name, dtype, shape) = (t.name.clone(), t.dtype, t.shape.clone());
                burn_pack::Tensor::deferred(t.name, t.dtype.burn(), t.shape, None, bytes, move || {
                    let data = (t.produce)().map_err(|e| burn_pack::Error::IoError(format!("{name}: {e}")))?;
                    let entry = TensorEntry { dtype, shape: shape.clone(), sha256: sha256_hex(&data) };
                    entries.lock().unwrap_or_else(|p| p.into_inner()).insert(name.clone(), entry);
                    progress(data.len() as u64);
                    Ok(Bytes::from_bytes_vec(data))
                })
            })
            .collect();
        burn_pack::Writer::new(packs)
            .auto_extension(false)
            .write_to_file(&path)
            .map_err(|e| RecordError::Container { path: path.clone(), reason: e.to_string() })?;
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
        let path = self.work.join(file);
        fs::copy(from, &path).map_err(RecordError::io(from))?;
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
        fs::write(&path, text + "\n").map_err(RecordError::io(&path))?;
        Ok(header)
    }

    /// Puts the sealed folder in its place; an older record there goes only now.
    ///
    /// # Errors
    /// [`RecordError::Io`]; the destination is then as it was.
    pub fn place(mut self) -> Result<(), RecordError> {
        if self.replace {
            let old = self.work.with_extension("old");
            fs::rename(&self.out, &old).map_err(RecordError::io(&self.out))?;
            if let Err(e) = fs::rename(&self.work, &self.out) {
                // Put the old record back rather than leave nothing.
                let _ = fs::rename(&old, &self.out);
                return Err(RecordError::io(&self.out)(e));
            }
            self.finished = true;
            fs::remove_dir_all(&old).map_err(RecordError::io(&old))?;
        } else {
            fs::rename(&self.work, &self.out).map_err(RecordError::io(&self.out))?;
            self.finished = true;
        }
        Ok(())
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

impl Drop for RecordWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.work);
        }
    }
}
