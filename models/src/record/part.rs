//! The tensors of one file of a record: mapped, and given in the form asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Bytes, Device, Tensor, TensorData, bf16, f16};
use omniburn_kernels::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};

use super::int8;
use super::spec::TensorRole;
use super::types::Dtype;

/// One tensor of a part.
#[derive(Debug, Clone)]
pub(super) struct PartEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Bytes,
    pub role: TensorRole,
    /// Which columns the kernels want in which panel.
    pub columns: ColumnOrder,
    /// How the bytes lie, unless row by row.
    pub panels: Option<PanelLayout>,
}

/// Bytes of a record as the kernels take them.
struct Mapped(Bytes);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The checked tensors of one file, mapped and not yet read.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    entries: BTreeMap<String, PartEntry>,
}

impl Part {
    /// Tensors of a file, each checked against its description.
    pub(super) fn new(path: PathBuf, entries: BTreeMap<String, PartEntry>) -> Self {
        Self { path, entries }
    }

    /// Every tensor with its bytes as they lie in the file.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&String, &Bytes)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.bytes))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored type of a tensor.
    ///
    /// # Panics
    /// If the part was not opened with a spec of that name: every module asks for what its own `tensors` lists.
    pub fn dtype(&self, name: &str) -> Dtype {
        self.entry(name).dtype
    }

    /// Shape of a tensor.
    ///
    /// # Panics
    /// As [`Part::dtype`].
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.entry(name).shape
    }

    /// The scales of a tensor stored in int8, one a row of the checkpoint's axis order.
    ///
    /// # Panics
    /// As [`Part::dtype`], or if it is not stored in int8.
    pub fn scales(&self, name: &str) -> Vec<f32> {
        int8::scales(&self.entry(&int8::scale_name(name)).bytes)
    }

    /// Bytes of a tensor as they lie in the file, which is what its digest is of: mapped, not copied.
    ///
    /// # Panics
    /// As [`Part::dtype`].
    pub fn stored_bytes(&self, name: &str) -> Bytes {
        self.entry(name).bytes.clone()
    }

    /// Little-endian bytes of a tensor, row by row: mapped and not copied, unless it lies in panels. Of affine groups these are
    /// the values in f32.
    ///
    /// # Panics
    /// As [`Part::dtype`].
    pub fn bytes(&self, name: &str) -> Bytes {
        match self.stored_panels(name) {
            Some(packed) => Bytes::from_bytes_vec(packed.to_rows()),
            None => self.entry(name).bytes.clone(),
        }
    }

    /// Whether a tensor is stored in panels.
    ///
    /// # Panics
    /// As [`Part::dtype`].
    pub fn is_in_panels(&self, name: &str) -> bool {
        self.entry(name).panels.is_some()
    }

    /// A matrix in panels of `format`: the mapped bytes where it is stored so, else a copy, packed anew.
    ///
    /// # Panics
    /// As [`Part::dtype`], or if it is no matrix, or for int8 panels of a matrix stored otherwise.
    pub fn packed(&self, name: &str, format: PanelFormat) -> Packed {
        let entry = self.entry(name);
        let [inputs, outputs] = entry.shape[..].try_into().expect("a matrix has two axes");
        let layout = PanelLayout::new(format, inputs, outputs, entry.columns);
        if let Some(packed) = self.stored_panels(name)
            && *packed.layout() == layout
        {
            return packed;
        }
        match (entry.dtype, format) {
            (Dtype::Int8, PanelFormat::Int8) => Packed::from_rows(layout, &self.bytes(name), self.scales(name)),
            (Dtype::Bf16, PanelFormat::Bf16) | (Dtype::F32, PanelFormat::F32) => {
                Packed::from_rows(layout, &self.bytes(name), Vec::new())
            }
            (Dtype::Int8, PanelFormat::F32 | PanelFormat::Bf16) if entry.role == TensorRole::Linear => {
                Packed::from_scaled(layout, bytemuck::cast_slice(&self.bytes(name)), &self.scales(name))
            }
            _ => Packed::from_f32(layout, &self.values(name)),
        }
    }

    /// A matrix of affine groups as it is stored: the mapped bytes, or a copy where the kernels want its columns in another
    /// order.
    ///
    /// # Panics
    /// As [`Part::dtype`], or if it is not stored in affine groups.
    pub fn affine(&self, name: &str) -> Packed {
        let packed = self.stored_panels(name).expect("a matrix of affine groups lies in panels");
        let PanelLayout { format, inputs, outputs, .. } = *packed.layout();
        let wanted = PanelLayout::new(format, inputs, outputs, self.entry(name).columns);
        if *packed.layout() == wanted {
            return packed;
        }
        Packed::from_affine(wanted, &packed.to_affine().expect("a matrix of affine groups"))
    }

    /// The values of a tensor in f32, row by row.
    fn values(&self, name: &str) -> Vec<f32> {
        let (entry, bytes) = (self.entry(name), self.bytes(name));
        let halves = || bytes.chunks_exact(2).map(|two| [two[0], two[1]]);
        match entry.dtype {
            Dtype::F32 | Dtype::Affine8 | Dtype::Affine4 => {
                let fours = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")));
                fours.collect()
            }
            Dtype::Bf16 => halves().map(|two| bf16::from_le_bytes(two).to_f32()).collect(),
            Dtype::F16 => halves().map(|two| f16::from_le_bytes(two).to_f32()).collect(),
            Dtype::Int8 => {
                let of_last_axis = entry.role == TensorRole::Linear;
                int8::expand(&bytes, &self.entry(&int8::scale_name(name)).bytes, of_last_axis)
            }
        }
    }

    /// The mapped panels of a matrix that is stored so.
    fn stored_panels(&self, name: &str) -> Option<Packed> {
        let entry = self.entry(name);
        let layout = entry.panels?;
        let scales = if entry.dtype == Dtype::Int8 { self.scales(name) } else { Vec::new() };
        Some(Packed::new(layout, Arc::new(Mapped(entry.bytes.clone())), scales))
    }

    /// A tensor as it lies in the file; on flex nothing is copied, elsewhere it is uploaded. One stored in int8 or in affine
    /// groups comes expanded to f32.
    ///
    /// # Shapes
    /// - returns: the stored shape, which must have rank `D`
    /// # Panics
    /// As [`Part::dtype`].
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let entry = self.entry(name);
        if !Dtype::FLOATS.contains(&entry.dtype) {
            return self.tensor_in(name, Dtype::F32, device);
        }
        self.tensor_in(name, entry.dtype, device)
    }

    /// A tensor in a type of floating point, converted on the host where it is stored in another.
    ///
    /// # Shapes
    /// - returns: the stored shape, which must have rank `D`
    /// # Panics
    /// As [`Part::dtype`].
    pub fn tensor_in<const D: usize>(&self, name: &str, dtype: Dtype, device: &Device) -> Tensor<D> {
        let entry = self.entry(name);
        let data = match entry.dtype {
            Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => TensorData::new(self.values(name), entry.shape.clone()),
            stored => TensorData::from_bytes(self.bytes(name), entry.shape.clone(), stored.burn()),
        };
        let data = if data.dtype() == dtype.burn() { data } else { data.convert_dtype(dtype.burn()) };
        Tensor::from_data(data, (device, dtype.burn()))
    }

    fn entry(&self, name: &str) -> &PartEntry {
        self.entries.get(name).unwrap_or_else(|| panic!("{}: no spec asked for {name}", self.path.display()))
    }
}
