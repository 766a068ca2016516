//! What a GGUF file holds, as its header says it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use omniburn_models::record::Dtype;
use serde::Serialize;

use super::checkpoint::architecture;
use super::reader::{GgufFile, Meta};
use crate::error::ConvertError;
use crate::safefile::Element;

/// What a GGUF file holds, as its header says it; no tensor is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GgufSummary {
    /// Name of the file.
    pub file: String,
    /// Version of the format.
    pub version: u32,
    /// `general.architecture`; absent where the file names none.
    pub architecture: Option<String>,
    /// `general.name`.
    pub name: Option<String>,
    /// Keys of the metadata.
    pub metadata: usize,
    /// Tensors.
    pub tensors: usize,
    /// Values of all tensors.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Types of the tensors, the one with the most bytes first.
    pub types: Vec<GgufType>,
}

/// The tensors of a file in one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GgufType {
    /// Name of the type, as the format has it.
    pub name: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Values of them.
    pub parameters: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether `convert` reads this type.
    pub read: bool,
}

/// Reads the header of a GGUF file.
///
/// # Errors
/// [`ConvertError::Corrupt`] for a file that is cut or contradicts itself, [`ConvertError::Io`].
pub fn gguf_summary(path: &Path) -> Result<GgufSummary, ConvertError> {
    let file = GgufFile::open(path)?;
    let mut types: BTreeMap<&'static str, GgufType> = BTreeMap::new();
    for tensor in file.tensors.values() {
        let (name, read) = match tensor.element {
            Element::Float(dtype) => (float_name(dtype), true),
            Element::Packed(name) => (name, true),
            Element::Other(name) => (name, false),
        };
        let of_type = types.entry(name).or_insert(GgufType { name, tensors: 0, parameters: 0, bytes: 0, read });
        of_type.tensors += 1;
        of_type.parameters += tensor.shape.iter().map(|&axis| axis as u64).product::<u64>();
        of_type.bytes += tensor.end - tensor.begin;
    }
    let mut types: Vec<GgufType> = types.into_values().collect();
    types.sort_by_key(|of_type| std::cmp::Reverse(of_type.bytes));
    let name = match file.metadata.get("general.name") {
        Some(Meta::Text(name)) => Some(name.clone()),
        _ => None,
    };
    Ok(GgufSummary {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        version: file.version,
        architecture: architecture(&file).map(str::to_string),
        name,
        metadata: file.metadata.len(),
        tensors: file.tensors.len(),
        parameters: types.iter().map(|of_type| of_type.parameters).sum(),
        bytes: file.bytes,
        types,
    })
}

fn float_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        _ => "F32",
    }
}

impl fmt::Display for GgufSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let millions = |n: u64| n as f64 / 1e6;
        writeln!(f, "{}: GGUF, version {}, {:.1} MiB", self.file, self.version, mebibytes(self.bytes))?;
        let name = self.name.as_ref().map(|name| format!(" ({name:?})")).unwrap_or_default();
        writeln!(f, "architecture {}{name}", self.architecture.as_deref().unwrap_or("not named"))?;
        writeln!(f, "metadata     {} keys", self.metadata)?;
        write!(f, "parameters   {:.1} M in {} tensors", millions(self.parameters), self.tensors)?;
        for GgufType { name, tensors, parameters, bytes, read } in &self.types {
            let how = if *read { "" } else { ", which is not read" };
            let (millions, mebibytes) = (millions(*parameters), mebibytes(*bytes));
            write!(f, "\n  {name:<8} {tensors:>5} tensors, {millions:.1} M, {mebibytes:.1} MiB{how}")?;
        }
        Ok(())
    }
}
