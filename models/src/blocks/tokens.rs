//! The token table: rows gathered on the host from the mapped file.

use std::collections::HashMap;

use burn::tensor::{Bytes, bf16, f16};

use crate::record::{Dtype, Part, TensorSpec, int8};

/// The table's name in its part, `[vocab, hidden]`.
const WEIGHT: &str = "embed_tokens.weight";

/// Rows of token ids, with a task's own special rows laid over the shared table.
///
/// On the host, because only touched pages of the map become resident and because some adapters refuse a buffer as
/// large as the table (burn-notes: 128 MiB on software Vulkan).
#[derive(Debug, Clone)]
pub struct TokenTable {
    bytes: Bytes,
    /// One scale a row, where rows are stored in int8.
    scales: Option<Bytes>,
    dtype: Dtype,
    vocab: usize,
    hidden: usize,
    special: HashMap<u32, Vec<f32>>,
}

impl TokenTable {
    /// A table without rows, of a model that is only described or reads no text.
    pub fn described(vocab: usize, hidden: usize) -> Self {
        let (bytes, dtype) = (Bytes::from_bytes_vec(Vec::new()), Dtype::F32);
        Self { bytes, scales: None, dtype, vocab, hidden, special: HashMap::new() }
    }

    /// The only tensor of `tokens.bpk`.
    pub fn spec(vocab: usize, hidden: usize) -> TensorSpec {
        TensorSpec::tokens(WEIGHT, vocab, hidden)
    }

    /// The table of an opened part.
    pub(crate) fn load(tokens: &Part, vocab: usize, hidden: usize) -> Self {
        let name = WEIGHT;
        let dtype = tokens.dtype(name);
        let scales = (dtype == Dtype::Int8).then(|| tokens.bytes(&int8::scale_name(name)));
        Self { bytes: tokens.bytes(name), scales, dtype, vocab, hidden, special: HashMap::new() }
    }

    /// The same table with row `ids[i]` replaced by row `i` of `rows`, `[ids, hidden]`.
    ///
    /// # Source
    /// jina-embeddings-v5-omni: `task_token_embeddings` overwrite the rows of `special_token_ids` when a task is
    /// chosen.
    #[must_use]
    pub fn with_special_rows(mut self, rows: &[f32], ids: &[u32]) -> Self {
        self.special = ids.iter().copied().zip(rows.chunks_exact(self.hidden).map(<[f32]>::to_vec)).collect();
        self
    }

    /// Rows in the table.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Width of a row.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Appends the row of each id to `out`; `Err` names the first id outside the table, with `out` unchanged.
    ///
    /// # Shapes
    /// - appended: `[ids, hidden]`, f32
    /// # Errors
    /// The id.
    pub fn gather(&self, ids: &[u32], out: &mut Vec<f32>) -> Result<(), u32> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(id);
        }
        let width = self.hidden * self.dtype.bytes();
        for id in ids {
            match self.special.get(id) {
                Some(row) => out.extend_from_slice(row),
                None => {
                    let start = *id as usize * width;
                    let row = &self.bytes[start..start + width];
                    match &self.scales {
                        Some(scales) => {
                            let scale = int8::scale_of(scales, *id as usize);
                            out.extend(row.iter().map(|&code| f32::from(code as i8) * scale));
                        }
                        None => out.extend(decode(row, self.dtype)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Little-endian floats as f32.
fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => unreachable!("int8 rows have scales, and no table has groups"),
    }
}
