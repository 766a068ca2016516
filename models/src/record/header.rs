//! `model.json`: one serde type for writer and reader, strict on both sides.

use std::collections::BTreeMap;

use omniburn_kernels::cpu::pack::PanelLayout;
use serde::{Deserialize, Serialize};

use super::digest::sha256_hex;
use super::types::{Dtype, MediaTemplate, Modality, Preprocess, Prompts};
use crate::family::FamilyConfig;

/// The format number this build writes, and the only one it reads so far.
pub const RECORD_FORMAT: u32 = 1;
/// One tensor as it lies in a file of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Whether a matrix lies in panels of sixteen columns, as products on a CPU read it, and not row by row. Only records
    /// from before `layout` have it; their panels are those of `panel-16x2/1` (bf16) and `panel-16x4/1` (int8), gate and up
    /// alternating.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panels: bool,
    /// Id of the packed layout of a matrix that does not lie row by row, one of `PanelLayout::IDS` of the kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
}

impl TensorEntry {
    /// Bytes of its values: with affine groups those of its panels, scales and offsets among them.
    pub fn bytes(&self) -> u64 {
        let layout = match (self.dtype.is_affine(), &self.layout, self.shape.as_slice()) {
            (true, Some(id), &[inputs, outputs]) => PanelLayout::of_id(id, inputs, outputs),
            _ => None,
        };
        let plain = || self.shape.iter().product::<usize>() * self.dtype.bytes();
        layout.map_or_else(plain, |layout| layout.bytes()) as u64
    }

    /// Whether a matrix lies packed, and not row by row.
    pub fn is_packed(&self) -> bool {
        self.panels || self.layout.is_some()
    }
}

/// One file of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file in hexadecimal.
    pub sha256: String,
    /// The tensors inside, by name; empty for other files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tensors: BTreeMap<String, TensorEntry>,
}

/// A file the record was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Path relative to the checkpoint's folder.
    pub file: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Everything a reader must know before it maps a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordHeader {
    /// Format number, [`RECORD_FORMAT`].
    pub format: u32,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// Name of the checkpoint, for people.
    pub name: String,
    /// Family with its strict configuration.
    pub family: FamilyConfig,
    /// Type of the matrices.
    pub dtype: Dtype,
    /// Tasks held; never empty (a checkpoint without adapters holds `base`).
    pub tasks: Vec<String>,
    /// The task used unless another is asked for.
    pub default_task: String,
    /// Matryoshka dimensions allowed, ascending; the last is the full width.
    pub dims: Vec<usize>,
    /// The dimension used unless another is asked for, one of `dims`; absent where that is the full width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_dim: Option<usize>,
    /// Prefixes by role.
    pub prompts: Prompts,
    /// Layouts by medium.
    pub templates: BTreeMap<Modality, MediaTemplate>,
    /// Ids whose rows a task may replace, in the order of `special_rows.weight`.
    #[serde(default)]
    pub special_token_ids: Vec<u32>,
    /// Preprocessing by medium.
    pub preprocess: Preprocess,
    /// Files by name, all of them except this one.
    pub files: BTreeMap<String, FileEntry>,
    /// What the record was made from.
    pub sources: Vec<SourceEntry>,
    /// Digest over everything above; see [`RecordHeader::compute_digest`].
    pub digest: String,
}

impl RecordHeader {
    /// SHA-256 over the whole header but the digest itself, in hexadecimal. Every file's and tensor's own digest is
    /// inside, so this stands for the whole record.
    pub fn compute_digest(&self) -> String {
        Self { digest: String::new(), ..self.clone() }.sha256()
    }

    /// SHA-256 over what decides a vector: the header without its digest, its name and the program that wrote it. Two
    /// conversions of one checkpoint by different releases have the same: the id of a packed layout counts as the panels
    /// that records had before it.
    pub fn content_digest(&self) -> String {
        let mut header = Self { digest: String::new(), tool: String::new(), name: String::new(), ..self.clone() };
        for tensor in header.files.values_mut().flat_map(|file| file.tensors.values_mut()) {
            tensor.panels |= tensor.layout.take().is_some();
        }
        header.sha256()
    }

    fn sha256(&self) -> String {
        let bytes = serde_json::to_vec(self).expect("a header is plain data and always serialises");
        sha256_hex(&bytes)
    }
}
