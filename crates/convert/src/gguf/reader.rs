//! A GGUF file's header, checked against the file's length, and its tensors, read one at a time.
//!
//! Source: the format's specification (`ggml/docs/gguf.md`), versions 2 and 3, little-endian.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use omniburn_models::record::Dtype;
use omniburn_models::record::affine::{AffineFormat, AffineRows};

use super::blocks;
use crate::error::ConvertError;
use crate::fields::shown;
use crate::layout;
use crate::safefile::{Element, StoredTensor, finite, read_exact_at};

const MAGIC: [u8; 4] = *b"GGUF";
/// Axes of a tensor at most, as in the format's own library.
const MOST_AXES: u32 = 4;
/// Where tensors begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;

/// Types of the format by their number: name, values of a block, bytes of a block.
const TYPES: [(u32, &str, u64, u64); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meta {
    /// A number without a sign.
    Count(u64),
    /// A number with one.
    Signed(i64),
    /// A number; of 32 bits the shortest decimal that stands for it, as it was written.
    Number(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Any list of numbers.
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
}

/// As an error shows it.
impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meta::Count(n) => n.fmt(f),
            Meta::Signed(n) => n.fmt(f),
            Meta::Number(n) => n.fmt(f),
            Meta::Flag(flag) => flag.fmt(f),
            Meta::Text(text) => f.write_str(&shown(Some(&text.as_str().into()))),
            Meta::Texts(list) => write!(f, "a list of {} strings", list.len()),
            Meta::Numbers(list) => write!(f, "a list of {} numbers", list.len()),
            Meta::Flags(list) => write!(f, "a list of {} flags", list.len()),
        }
    }
}

/// An opened GGUF file.
#[derive(Debug)]
pub(crate) struct GgufFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    /// Version of the format.
    pub version: u32,
    /// Bytes of the file.
    pub bytes: u64,
    pub metadata: BTreeMap<String, Meta>,
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// Whether a file is a GGUF file, by its name or its first bytes.
pub fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
        return true;
    }
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
}

/// The value of a key among the first bytes of a file; `None` where they end before it or are no GGUF file's.
#[cfg(feature = "hub")]
pub(crate) fn value_at_start(bytes: &[u8], key: &str) -> Option<Meta> {
    let mut header = Header { path: Path::new(""), reader: bytes, left: bytes.len() as u64 };
    if header.array::<4>("").ok()? != MAGIC || ![2, 3].contains(&header.u32("").ok()?) {
        return None;
    }
    let _tensors = header.u64("").ok()?;
    for _ in 0..header.u64("").ok()? {
        let found = header.text("").ok()?;
        let kind = header.u32("").ok()?;
        let value = header.value(kind, &found).ok()?;
        if found == key {
            return Some(value);
        }
    }
    None
}

/// Reads what the file still holds, and knows how much that is.
struct Header<'a, R> {
    path: &'a Path,
    reader: R,
    left: u64,
}

impl<R: Read> Header<'_, R> {
    fn corrupt(&self, tensor: Option<&str>, reason: impl Into<String>) -> ConvertError {
        ConvertError::Corrupt {
            path: self.path.to_path_buf(),
            tensor: tensor.map(str::to_string),
            reason: reason.into(),
        }
    }

    /// The next bytes, which must be there: no memory is asked for before.
    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>, ConvertError> {
        if count > self.left {
            return Err(self.corrupt(None, format!("cut: {what} takes {count} bytes, {} are left", self.left)));
        }
        let mut bytes = vec![0; count as usize];
        self.reader.read_exact(&mut bytes).map_err(ConvertError::io(self.path))?;
        self.left -= count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ConvertError> {
        if N as u64 > self.left {
            return Err(self.corrupt(None, format!("cut: {what} takes {N} bytes, {} are left", self.left)));
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(ConvertError::io(self.path))?;
        self.left -= N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ConvertError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ConvertError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things of which each takes so many bytes at least.
    fn count(&mut self, what: &str, least: u64) -> Result<u64, ConvertError> {
        let count = self.u64(what)?;
        match count.checked_mul(least) {
            Some(needed) if needed <= self.left => Ok(count),
            _ => Err(self.corrupt(None, format!("{what}: {count}, more than the {} bytes left hold", self.left))),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, ConvertError> {
        let length = self.u64(what)?;
        let bytes = self.bytes(length, what)?;
        String::from_utf8(bytes).map_err(|_| self.corrupt(None, format!("{what}: not UTF-8")))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Meta, ConvertError> {
        Ok(match kind {
            0 => Meta::Count(u64::from(u8::from_le_bytes(self.array(key)?))),
            1 => Meta::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => Meta::Count(u64::from(u16::from_le_bytes(self.array(key)?))),
            3 => Meta::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => Meta::Count(u64::from(self.u32(key)?)),
            5 => Meta::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => Meta::Number(as_written(f32::from_le_bytes(self.array(key)?))),
            7 => Meta::Flag(self.array::<1>(key)? != [0]),
            8 => Meta::Text(self.text(key)?),
            9 => self.list(key)?,
            10 => Meta::Count(self.u64(key)?),
            11 => Meta::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Meta::Number(f64::from_le_bytes(self.array(key)?)),
            other => return Err(self.corrupt(None, format!("{key}: a value of type {other}, which is not known"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Meta, ConvertError> {
        let kind = self.u32(key)?;
        if kind == 8 {
            let count = self.count(key, 8)?;
            let texts: Result<Vec<String>, _> = (0..count).map(|_| self.text(key)).collect();
            return texts.map(Meta::Texts);
        }
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            9 => return Err(self.corrupt(None, format!("{key}: a list of lists"))),
            other => return Err(self.corrupt(None, format!("{key}: a list of type {other}, which is not known"))),
        };
        let count = self.count(key, size)?;
        let bytes = self.bytes(count * size, key)?;
        let values = bytes.chunks_exact(size as usize);
        if kind == 7 {
            return Ok(Meta::Flags(values.map(|b| b[0] != 0).collect()));
        }
        let number = |b: &[u8]| {
            let wide = |fill: u8| {
                let mut wide = [fill; 8];
                wide[..b.len()].copy_from_slice(b);
                wide
            };
            let negative = b.last().is_some_and(|last| last & 0x80 != 0);
            match kind {
                0 | 2 | 4 | 10 => u64::from_le_bytes(wide(0)) as f64,
                6 => as_written(f32::from_bits(u64::from_le_bytes(wide(0)) as u32)),
                12 => f64::from_le_bytes(wide(0)),
                _ => i64::from_le_bytes(wide(if negative { 0xFF } else { 0 })) as f64,
            }
        };
        Ok(Meta::Numbers(values.map(number).collect()))
    }
}

/// The shortest decimal that an f32 stands for: `1e-5` was written as 9.9999997e-6.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl GgufFile {
    /// Opens a file, reads its header and checks that its tensors lie in it, one behind the other.
    ///
    /// # Errors
    /// [`ConvertError::Corrupt`] with what is wrong and where, [`ConvertError::Io`].
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let file = File::open(path).map_err(ConvertError::io(path))?;
        let length = fs::metadata(path).map_err(ConvertError::io(path))?.len();
        let mut header = Header { path, reader: BufReader::new(&file), left: length };
        if header.array::<4>("the first bytes")? != MAGIC {
            return Err(header.corrupt(None, "not a GGUF file: it does not begin with `GGUF`"));
        }
        let version = header.u32("the version")?;
        match version {
            2 | 3 => {}
            1 => return Err(header.corrupt(None, "version 1 of the format, of 2023: 2 and 3 are read")),
            big if (1..=3).contains(&big.swap_bytes()) => {
                return Err(header.corrupt(None, "big-endian, which is not read"));
            }
            other => return Err(header.corrupt(None, format!("version {other} of the format: 2 and 3 are read"))),
        }
        // A name, a number of axes, a type and an offset; a key, a type and a value.
        let tensors = header.count("the number of tensors", 8 + 4 + 4 + 8)?;
        let pairs = header.count("the number of metadata", 8 + 4 + 1)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let key = header.text("a key of the metadata")?;
            let kind = header.u32(&key)?;
            let value = header.value(kind, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(header.corrupt(None, format!("the key {key} stands twice")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(Meta::Count(said)) if said.is_power_of_two() && (8..=1 << 20).contains(said) => *said,
            Some(other) => {
                return Err(
                    header.corrupt(None, format!("general.alignment: {other:?}, expected a power of 2 from 8 on"))
                );
            }
        };
        let mut found = BTreeMap::new();
        for _ in 0..tensors {
            let (name, tensor) = header.tensor()?;
            if found.insert(name.clone(), tensor).is_some() {
                return Err(header.corrupt(Some(&name), "stands twice in the header"));
            }
        }
        let data_start = (length - header.left).next_multiple_of(alignment);
        let data = length.saturating_sub(data_start);
        check_places(&found, alignment, data).map_err(|(name, reason)| header.corrupt(name.as_deref(), reason))?;
        Ok(Self { path: path.to_path_buf(), file, data_start, version, bytes: length, metadata, tensors: found })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a tensor with their type, f32 of a packed one; NaN and infinite values are an error.
    ///
    /// # Panics
    /// If the tensor is not in the file or its type is not read: names and types are checked before anything is read.
    pub fn read(&self, name: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        finite(&self.path, name, self.read_unchecked(name)?)
    }

    /// Number of NaN and infinite values in a tensor.
    ///
    /// # Panics
    /// As [`GgufFile::read`].
    pub fn non_finite(&self, name: &str) -> Result<usize, ConvertError> {
        self.read_unchecked(name).map(|(dtype, bytes)| layout::count_non_finite(dtype, &bytes))
    }

    /// The affine groups that a tensor is packed in, and what its type is called; `None` where it has none.
    pub fn affine_format(&self, name: &str) -> Option<(AffineFormat, &'static str)> {
        match self.tensors.get(name)?.element {
            Element::Packed(kind) => blocks::affine_format(kind).map(|format| (format, kind)),
            Element::Float(_) | Element::Other(_) => None,
        }
    }

    /// A tensor as the affine groups it is packed in.
    ///
    /// # Panics
    /// If it has none ([`GgufFile::affine_format`]).
    pub fn affine(&self, name: &str) -> Result<AffineRows, ConvertError> {
        let (tensor, bytes) = self.bytes_of(name)?;
        match tensor.element {
            Element::Packed(kind) => Ok(blocks::affine(kind, &bytes)),
            Element::Float(_) | Element::Other(_) => panic!("{}: {name} has no groups", self.path.display()),
        }
    }

    fn read_unchecked(&self, name: &str) -> Result<(Dtype, Vec<u8>), ConvertError> {
        let (tensor, bytes) = self.bytes_of(name)?;
        match tensor.element {
            Element::Float(dtype) => Ok((dtype, bytes)),
            Element::Packed(kind) => Ok((Dtype::F32, layout::narrow(Dtype::F32, &blocks::widen(kind, &bytes)))),
            Element::Other(_) => panic!("{}: the type of {name} was not checked", self.path.display()),
        }
    }

    fn bytes_of(&self, name: &str) -> Result<(&StoredTensor, Vec<u8>), ConvertError> {
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
        Ok((tensor, bytes))
    }
}

impl<R: Read> Header<'_, R> {
    fn tensor(&mut self) -> Result<(String, StoredTensor), ConvertError> {
        let name = self.text("a tensor's name")?;
        let axes = self.u32(&name)?;
        if axes > MOST_AXES {
            return Err(self.corrupt(Some(&name), format!("{axes} axes, at most {MOST_AXES} are known")));
        }
        let sizes: Vec<u64> = (0..axes).map(|_| self.u64(&name)).collect::<Result<_, _>>()?;
        let kind = self.u32(&name)?;
        let begin = self.u64(&name)?;
        let Some(&(_, kind, values, bytes)) = TYPES.iter().find(|(number, ..)| *number == kind) else {
            return Err(self.corrupt(Some(&name), format!("of type {kind}, which is not known")));
        };
        let row = sizes.first().copied().unwrap_or(1);
        if row % values != 0 {
            let reason = format!("rows of {row} values in {kind}, whose blocks hold {values}");
            return Err(self.corrupt(Some(&name), reason));
        }
        let elements = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(size));
        let length = elements.and_then(|n| (n / values).checked_mul(bytes));
        let end = length.and_then(|length| begin.checked_add(length));
        let (Some(end), true) = (end, sizes.iter().all(|&size| usize::try_from(size).is_ok())) else {
            return Err(self.corrupt(Some(&name), format!("of sizes {sizes:?} in {kind} takes more than any file")));
        };
        let element = match kind {
            "F32" => Element::Float(Dtype::F32),
            "F16" => Element::Float(Dtype::F16),
            "BF16" => Element::Float(Dtype::Bf16),
            kind if blocks::is_read(kind) => Element::Packed(kind),
            kind => Element::Other(kind),
        };
        // The fastest axis comes first in the file.
        let shape = sizes.iter().rev().map(|&size| size as usize).collect();
        Ok((name, StoredTensor { element, shape, begin, end }))
    }
}

/// Tensors follow each other, each where the alignment puts it, and end where the file does.
fn check_places(
    tensors: &BTreeMap<String, StoredTensor>,
    alignment: u64,
    data: u64,
) -> Result<(), (Option<String>, String)> {
    let mut in_order: Vec<(&String, &StoredTensor)> = tensors.iter().collect();
    in_order.sort_by_key(|(_, t)| (t.begin, t.end));
    let mut reached = 0u64;
    for (name, tensor) in in_order {
        let expected = reached.checked_next_multiple_of(alignment);
        if expected != Some(tensor.begin) {
            let expected = expected.unwrap_or(reached);
            return Err((
                Some(name.clone()),
                format!("begins at byte {} of the data, expected {expected}", tensor.begin),
            ));
        }
        if tensor.end > data {
            let reason = format!("lies at bytes {} to {} of {data} bytes of data", tensor.begin, tensor.end);
            return Err((Some(name.clone()), reason));
        }
        reached = tensor.end;
    }
    if data > reached.next_multiple_of(alignment) {
        return Err((None, format!("{data} bytes of data, but the tensors end at {reached}")));
    }
    Ok(())
}
