//! One safetensors file: a header checked against the file's length, and tensors read one at a time.
//!
//! Nothing is mapped and nothing is read ahead: a full-size file with a hole for data opens in the time its header
//! takes, and the peak of a conversion is the tensor in hand.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use omniburn_models::record::Dtype;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{ConvertError, DtypeFault, NonFiniteFault};
use crate::layout;

/// Longest header read, as in the format's own library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// A float type a record can be made from.
    Float(Dtype),
    /// A type whose values are widened to f32 as they are read, by name.
    Packed(&'static str),
    /// Any other type of the format, by name.
    Other(&'static str),
}

impl Element {
    /// Its name, where it is a type that is not read as it is.
    pub fn other(self) -> Option<&'static str> {
        match self {
            Element::Other(name) => Some(name),
            Element::Float(_) | Element::Packed(_) => None,
        }
    }

    /// The type of this name, with its size in bytes.
    fn parse(name: &str) -> Option<(Self, u64)> {
        const OTHERS: [(&str, u64); 12] = [
            ("F64", 8),
            ("I64", 8),
            ("U64", 8),
            ("I32", 4),
            ("U32", 4),
            ("I16", 2),
            ("U16", 2),
            ("I8", 1),
            ("U8", 1),
            ("BOOL", 1),
            ("F8_E4M3", 1),
            ("F8_E5M2", 1),
        ];
        Some(match name {
            "F32" => (Element::Float(Dtype::F32), 4),
            "BF16" => (Element::Float(Dtype::Bf16), 2),
            "F16" => (Element::Float(Dtype::F16), 2),
            _ => OTHERS.iter().find(|(n, _)| *n == name).map(|&(n, bytes)| (Element::Other(n), bytes))?,
        })
    }
}

/// A tensor of a file: what the header says of it.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    pub element: Element,
    pub shape: Vec<usize>,
    /// Where its bytes begin and end, counted from where the data begin.
    pub begin: u64,
    pub end: u64,
}

impl StoredTensor {
    /// A tensor in f32 that no file has.
    pub fn made(shape: Vec<usize>) -> Self {
        Self { element: Element::Float(Dtype::F32), shape, begin: 0, end: 0 }
    }

    /// What is wrong with the type, if anything.
    pub fn dtype_fault(&self, name: &str) -> Option<DtypeFault> {
        match self.element {
            Element::Float(_) | Element::Packed(_) => None,
            Element::Other(found) => Some(DtypeFault { tensor: name.into(), found: found.into() }),
        }
    }
}

/// A JSON object as its pairs in order, so that a name that stands twice is seen.
#[derive(Debug)]
pub(crate) struct Pairs<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Pairs<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// An opened safetensors file with a checked header.
#[derive(Debug)]
pub(crate) struct SafeFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// A tensor of the file at `path` as it was read, where each of its values is finite.
///
/// # Errors
/// [`ConvertError::NonFinite`] with the number of those that are not.
pub(crate) fn finite(path: &Path, name: &str, read: (Dtype, Vec<u8>)) -> Result<(Dtype, Vec<u8>), ConvertError> {
    match layout::count_non_finite(read.0, &read.1) {
        0 => Ok(read),
        count => {
            let faults = vec![NonFiniteFault { tensor: name.into(), count }];
            Err(ConvertError::NonFinite { path: path.to_path_buf(), faults })
        }
    }
}

impl SafeFile {
    /// Opens a file and checks that its header describes exactly its bytes.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let corrupt = |reason: String| ConvertError::Corrupt { path: path.to_path_buf(), tensor: None, reason };
        // A folder, a pipe or a dangling link of that name is no file; opening a pipe would wait for ever.
        let length = match fs::metadata(path) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => return Err(ConvertError::MissingFiles { paths: vec![path.to_path_buf()] }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ConvertError::MissingFiles { paths: vec![path.to_path_buf()] });
            }
            Err(e) => return Err(ConvertError::io(path)(e)),
        };
        let mut file = File::open(path).map_err(ConvertError::io(path))?;
        if length < 8 {
            return Err(corrupt(format!("{length} bytes, too short for the length of a header")));
        }
        let mut prefix = [0u8; 8];
        file.read_exact(&mut prefix).map_err(ConvertError::io(path))?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(corrupt(format!("a header of {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read")));
        }
        if header_bytes > length - 8 {
            return Err(corrupt(format!("a header of {header_bytes} bytes in a file of {length}")));
        }
        let mut header = vec![0u8; header_bytes as usize];
        file.read_exact(&mut header).map_err(ConvertError::io(path))?;
        let data_start = 8 + header_bytes;
        let tensors = parse_header(path, &header, length - data_start)?;
        Ok(Self { path: path.to_path_buf(), file, data_start, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a tensor with its float type; NaN and infinite values are an error.
    ///
    /// # Panics
    /// If the tensor is not in the file or is not a float: names and types are checked before anything is read.
    pub fn read(&self, name: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        finite(&self.path, name, self.read_unchecked(name)?)
    }

    /// Values of a tensor as f32; NaN and infinite values are an error.
    ///
    /// # Panics
    /// As [`SafeFile::read`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ConvertError> {
        self.read(name).map(|(dtype, bytes)| layout::widen(dtype, &bytes))
    }

    /// Number of NaN and infinite values in a tensor.
    ///
    /// # Panics
    /// As [`SafeFile::read`].
    pub fn non_finite(&self, name: &str) -> Result<usize, ConvertError> {
        self.read_unchecked(name).map(|(dtype, bytes)| layout::count_non_finite(dtype, &bytes))
    }

    fn read_unchecked(&self, name: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        match self.read_any(name)? {
            (Element::Float(dtype), bytes) => Ok((dtype, bytes)),
            _ => panic!("{}: the type of {name} was not checked", self.path.display()),
        }
    }

    /// Bytes of a tensor of whatever type.
    ///
    /// # Panics
    /// If the tensor is not in the file.
    pub fn read_any(&self, name: &str) -> Result<(Element, Vec<u8>), ConvertError> {
        let tensor =
            self.tensors.get(name).unwrap_or_else(|| panic!("{}: {name} was not checked", self.path.display()));
        let mut bytes = vec![0u8; (tensor.end - tensor.begin) as usize];
        read_exact_at(&self.file, &mut bytes, self.data_start + tensor.begin).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => ConvertError::Corrupt {
                path: self.path.clone(),
                tensor: Some(name.into()),
                reason: "the file was cut while it was read".into(),
            },
            _ => ConvertError::io(&self.path)(e),
        })?;
        Ok((tensor.element, bytes))
    }
}

fn parse_header(path: &Path, header: &[u8], data_bytes: u64) -> Result<BTreeMap<String, StoredTensor>, ConvertError> {
    let corrupt = |tensor: Option<&str>, reason: String| ConvertError::Corrupt {
        path: path.to_path_buf(),
        tensor: tensor.map(str::to_string),
        reason,
    };
    let Pairs(pairs) = serde_json::from_slice::<Pairs<serde_json::Value>>(header).map_err(ConvertError::json(path))?;
    let mut tensors = BTreeMap::new();
    for (name, value) in pairs {
        if name == "__metadata__" {
            continue;
        }
        let raw: RawEntry =
            serde_json::from_value(value).map_err(|e| corrupt(Some(&name), format!("malformed entry: {e}")))?;
        let (element, element_bytes) = Element::parse(&raw.dtype)
            .ok_or_else(|| corrupt(Some(&name), format!("unknown element type {}", raw.dtype)))?;
        let (begin, end) = raw.data_offsets;
        if begin > end || end > data_bytes {
            let reason = format!("lies at bytes {begin} to {end} of {data_bytes} bytes of data");
            return Err(corrupt(Some(&name), reason));
        }
        let needed = raw.shape.iter().try_fold(element_bytes, |n, &d| n.checked_mul(d));
        if needed != Some(end - begin) {
            let reason = format!(
                "{} bytes, but shape {:?} of {} takes {}",
                end - begin,
                raw.shape,
                raw.dtype,
                needed.map_or_else(|| "more than any file".into(), |n| n.to_string())
            );
            return Err(corrupt(Some(&name), reason));
        }
        let shape = raw.shape.iter().map(|&d| d as usize).collect();
        if tensors.insert(name.clone(), StoredTensor { element, shape, begin, end }).is_some() {
            return Err(corrupt(Some(&name), "stands twice in the header".into()));
        }
    }
    check_coverage(&tensors, data_bytes).map_err(|(name, reason)| corrupt(name.as_deref(), reason))?;
    Ok(tensors)
}

/// Tensors must follow each other without overlap or gap and end where the file does, as the format demands.
fn check_coverage(tensors: &BTreeMap<String, StoredTensor>, data_bytes: u64) -> Result<(), (Option<String>, String)> {
    let mut in_order: Vec<(&String, &StoredTensor)> = tensors.iter().collect();
    in_order.sort_by_key(|(_, t)| (t.begin, t.end));
    let (mut reached, mut before) = (0, "the header");
    for (name, tensor) in in_order {
        if tensor.begin < reached {
            let reason = format!("begins at byte {}, inside {before}, which ends at {reached}", tensor.begin);
            return Err((Some(name.clone()), reason));
        }
        if tensor.begin > reached {
            let reason = format!("begins at byte {}, but {before} ends at {reached}", tensor.begin);
            return Err((Some(name.clone()), reason));
        }
        (reached, before) = (tensor.end, name);
    }
    if reached != data_bytes {
        return Err((None, format!("{data_bytes} bytes of data, but the tensors end at {reached}")));
    }
    Ok(())
}

/// Reads bytes from a place in a file.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads bytes from a place in a file.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
