//! Where modules take their tensors from.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

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

    /// A matrix `[inputs, outputs]` in the compute type. Where that is the stored type on flex, the mapped bytes are
    /// used as they lie; otherwise a copy is made.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn linear(&self, name: &str) -> Param<Tensor<2>> {
        let tensor = self.part.tensor::<2>(name, self.device);
        let tensor = if self.part.dtype(name) == self.compute { tensor } else { tensor.cast(self.compute.burn()) };
        Param::from_tensor(tensor)
    }

    /// A table or convolution in f32, whatever it is stored in.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn rows<const D: usize>(&self, name: &str) -> Param<Tensor<D>> {
        Param::from_tensor(self.part.tensor::<D>(name, self.device).cast(Dtype::F32.burn()))
    }

    /// A small tensor, always f32.
    ///
    /// # Panics
    /// If the part was opened without it.
    pub fn exact<const D: usize>(&self, name: &str) -> Param<Tensor<D>> {
        Param::from_tensor(self.part.tensor::<D>(name, self.device))
    }
}
