//! Where modules take their tensors from.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use omniburn_kernels as kernels;
use omniburn_kernels::Weight;
use omniburn_kernels::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};

use crate::batch::upload;
use crate::record::{Dtype, Part};

/// A part of a record, seen by a module that is being built on a device.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    part: &'a Part,
    compute: Dtype,
    device: &'a Device,
}

impl<'a> Weights<'a> {
    /// Tensors of `part` for `device`, with matrices in the type products are computed in.
    pub fn new(part: &'a Part, compute: Dtype, device: &'a Device) -> Self {
        Self { part, compute, device }
    }

    /// The device modules are built on.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// A matrix `[inputs, outputs]` for products in the compute type.
    ///
    /// On flex, f16, and f32 that is not stored in panels, are used as they lie, where the types agree; whatever else is brought
    /// into panels, unless it is stored so: bf16 stays bf16 even where products are in f32, and int8 becomes f32 unless products are in int8 too. Affine
    /// groups stay as they are stored, whether products are in int8 or in f32; the engine asks for no other.
    /// Elsewhere it is cast to the compute type.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn linear(&self, name: &str) -> Weight {
        let stored = self.part.dtype(name);
        if stored.is_affine() && kernels::is_flex(self.device) {
            return Weight::packed(self.part.affine(name), self.compute == Dtype::Int8);
        }
        let panels = match (stored, self.compute) {
            _ if !kernels::is_flex(self.device) => None,
            (_, Dtype::F16) | (Dtype::F16, _) => None,
            // A copy in panels would take as much memory again.
            (Dtype::F32, Dtype::F32 | Dtype::Int8) => self.part.is_in_panels(name).then_some(PanelFormat::F32),
            (Dtype::Int8, Dtype::Int8) => Some(PanelFormat::Int8),
            (_, Dtype::Bf16) | (Dtype::Bf16, _) => Some(PanelFormat::Bf16),
            (Dtype::Int8, Dtype::F32) => Some(PanelFormat::F32),
            (Dtype::Affine8 | Dtype::Affine4, _) | (_, Dtype::Affine8 | Dtype::Affine4) => None,
        };
        let Some(format) = panels else {
            // Products in whole numbers are for matrices in int8.
            let compute = if self.compute == Dtype::Int8 { Dtype::F32 } else { self.compute };
            return Weight::plain(self.tensor_in(name, compute));
        };
        let packed = self.part.packed(name, format);
        Weight::packed(packed, self.compute != Dtype::F32 && format != PanelFormat::F32)
    }

    /// A small matrix in f32 from its values on the host, `[outputs, inputs]`, for products in f32 whatever the compute type
    /// is. On flex it is brought into panels: flex's own product of a matrix this narrow gives a row other bits in
    /// other batches.
    pub fn narrow(&self, values: &[f32], inputs: usize, outputs: usize) -> Weight {
        let turned = (0..inputs * outputs).map(|at| values[at % outputs * inputs + at / outputs]);
        let turned: Vec<f32> = turned.collect(); // [inputs, outputs]
        if kernels::is_flex(self.device) {
            let layout = PanelLayout::new(PanelFormat::F32, inputs, outputs, ColumnOrder::Plain);
            return Weight::packed(Packed::from_f32(layout, &turned), false);
        }
        Weight::plain(upload(turned, [inputs, outputs], self.device))
    }

    /// A table or convolution in f32, whatever it is stored in.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn rows<const D: usize>(&self, name: &str) -> Param<Tensor<D>> {
        Param::from_tensor(self.tensor_in(name, Dtype::F32))
    }

    /// A tensor in another type than it is stored in. Off flex it is brought to it before it is uploaded: a device may have no
    /// way to read the stored type, as WGSL has none for bf16.
    fn tensor_in<const D: usize>(&self, name: &str, dtype: Dtype) -> Tensor<D> {
        if kernels::is_flex(self.device) {
            let tensor = self.part.tensor::<D>(name, self.device);
            return if tensor.dtype() == dtype.burn() { tensor } else { tensor.cast(dtype.burn()) };
        }
        self.part.tensor_in::<D>(name, dtype, self.device)
    }

    /// Values of a small tensor on the host.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn host(&self, name: &str) -> Vec<f32> {
        let bytes = self.part.bytes(name);
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
    }

    /// A small tensor, always f32.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn exact<const D: usize>(&self, name: &str) -> Param<Tensor<D>> {
        Param::from_tensor(self.part.tensor::<D>(name, self.device))
    }
}
