//! A matrix of a product: a tensor as the record stores it, or panels that the CPU's kernels read.

use burn::tensor::{Device, Distribution, Tensor, TensorData};

use crate::cpu::Isa;
use crate::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};

/// The right-hand side of a product, `[inputs, outputs]`.
#[derive(Debug, Clone)]
pub struct Weight(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Plain(Tensor<2>),
    Packed {
        packed: Packed,
        low: bool,
    },
    /// A shape without values.
    Described([usize; 2]),
}

impl Weight {
    /// A tensor `[inputs, outputs]` in f32, bf16 or f16; its type is the type products are computed in.
    pub fn plain(tensor: Tensor<2>) -> Self {
        Self(Inner::Plain(tensor))
    }

    /// Panels, for tensors on flex. With bf16 panels, `low` rounds rows to bf16 before they are multiplied; int8 panels
    /// always take rows as whole numbers, affine groups where `low`.
    pub fn packed(packed: Packed, low: bool) -> Self {
        Self(Inner::Packed { packed, low })
    }

    /// A shape without values, for counting what a model has and does. Products with it panic.
    pub fn described(inputs: usize, outputs: usize) -> Self {
        Self(Inner::Described([inputs, outputs]))
    }

    /// `[inputs, outputs]`.
    pub fn dims(&self) -> [usize; 2] {
        match &self.0 {
            Inner::Plain(tensor) => tensor.dims(),
            Inner::Packed { packed, .. } => [packed.layout().inputs, packed.layout().outputs],
            Inner::Described(dims) => *dims,
        }
    }

    /// Whether rows that come as bf16 are taken as they are, without being rounded here again.
    pub fn takes_bf16(&self) -> bool {
        matches!(&self.0, Inner::Packed { packed, low: true } if packed.layout().format == PanelFormat::Bf16)
    }

    /// Whether attention beside it may round to bf16: products here are in a type no better.
    pub fn is_low(&self) -> bool {
        matches!(&self.0, Inner::Packed { low: true, .. })
    }

    /// The values in f32 on a device.
    ///
    /// # Panics
    /// If the matrix is a shape without values.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        match &self.0 {
            Inner::Plain(tensor) => tensor.clone(),
            Inner::Packed { packed, .. } => {
                Tensor::from_data(TensorData::new(packed.to_f32(), self.dims()), (device, burn::tensor::DType::F32))
            }
            Inner::Described(_) => panic!("{DESCRIBED}"),
        }
    }

    pub(crate) fn as_plain(&self) -> Option<&Tensor<2>> {
        match &self.0 {
            Inner::Plain(tensor) => Some(tensor),
            Inner::Packed { .. } => None,
            Inner::Described(_) => panic!("{DESCRIBED}"),
        }
    }

    pub(crate) fn as_packed(&self) -> Option<(&Packed, bool)> {
        match &self.0 {
            Inner::Plain(_) | Inner::Described(_) => None,
            Inner::Packed { packed, low } => Some((packed, *low)),
        }
    }
}

/// Why a product with a shape is a mistake.
const DESCRIBED: &str = "a model that is only described has no weights to multiply with";

/// A large product in bf16, for measuring what the machine can do at most.
#[derive(Debug)]
pub struct Bf16Product {
    rows: Tensor<2>,
    weight: Weight,
}

impl Bf16Product {
    /// `[rows, inputs]` times `[inputs, outputs]` with values from -1 to 1; `None` off flex, and where the processor has no
    /// instructions for it.
    pub fn new([rows, inputs, outputs]: [usize; 3], device: &Device) -> Option<Self> {
        if !crate::is_flex(device) || Isa::current() < Isa::Avx512Bf16 {
            return None;
        }
        let random = |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), device);
        let values = random([inputs, outputs]).into_data().try_to_vec::<f32>().ok()?;
        let layout = PanelLayout::new(PanelFormat::Bf16, inputs, outputs, ColumnOrder::Plain);
        let weight = Weight::packed(Packed::from_f32(layout, &values), true);
        Some(Self { rows: random([rows, inputs]).cast(burn::tensor::DType::BF16), weight })
    }

    /// The product once.
    ///
    /// # Shapes
    /// - returns: `[rows, outputs]`
    pub fn run(&self) -> Tensor<2> {
        crate::project(self.rows.clone(), &self.weight, crate::After::default())
    }
}
