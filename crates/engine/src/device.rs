//! The device from within, for tools that examine it: its operations against their formulas, and large products to time.

use burn::tensor::{DType, Device, Distribution, Tensor};
use omniburn_models::record::Dtype;
use omniburn_models::{Bf16Product, KernelRow, linear, self_test};

use crate::error::ItemError;
use crate::worker::device_error;

/// A device, given to work that runs on its thread: [`Engine::on_device`](crate::Engine::on_device).
#[derive(Debug, Clone)]
pub struct DeviceProbe {
    device: Device,
}

impl DeviceProbe {
    pub(crate) fn new(device: Device) -> Self {
        Self { device }
    }

    /// Every operation of the kernels on this device, at odd shapes, against its portable body and its formula.
    /// `product_bound` is how far a product may be off where the device rounds operands; `None`: as far as any operation.
    pub fn kernels(&self, product_bound: Option<f32>) -> Vec<KernelRow> {
        self_test(&self.device, product_bound)
    }

    /// A product of random values from -1 to 1, ready to be computed; `None` in types other than f32 and bf16, and in bf16
    /// where nothing here multiplies that faster than f32.
    ///
    /// # Shapes
    /// - `shape`: rows, inputs and outputs of `[rows, inputs]` times `[inputs, outputs]`
    pub fn product(&self, shape: [usize; 3], dtype: Dtype) -> Option<Product> {
        let device = self.device.clone();
        match dtype {
            Dtype::F32 => {
                let [rows, inputs, outputs] = shape;
                let random =
                    |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device).cast(DType::F32);
                let (left, right) = (random([rows, inputs]), random([inputs, outputs]));
                Some(Product(Operands::F32 { left, right, device }))
            }
            Dtype::Bf16 => Bf16Product::new(shape, &device).map(|product| Product(Operands::Bf16(product))),
            _ => None,
        }
    }
}

/// A large product, for measuring what a device can do at most.
#[derive(Debug)]
pub struct Product(Operands);

#[derive(Debug)]
enum Operands {
    F32 { left: Tensor<2>, right: Tensor<2>, device: Device },
    Bf16(Bf16Product),
}

impl Product {
    /// Computes it once, and returns when the device has.
    ///
    /// # Errors
    /// [`ItemError::Device`] where the device fails.
    pub fn run(&self) -> Result<(), ItemError> {
        match &self.0 {
            Operands::F32 { left, right, device } => {
                let product = linear(left.clone(), right.clone(), None);
                device.sync().map_err(device_error)?;
                drop(product);
            }
            // On flex alone, which computes as it is called.
            Operands::Bf16(product) => drop(product.run()),
        }
        Ok(())
    }
}
