//! One description of every module: names, shapes and roles of its tensors, in the order of its file.
//!
//! A module is built by one function that takes a [`Builder`]. With [`Builder::describe`] the function lists what a file
//! must hold, and its result is a model without weights that can count operations and memory; with [`Builder::load`] the
//! same function takes its tensors from an opened file. So a name is written once.

use std::cell::RefCell;
use std::fmt::Display;

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor};
use omniburn_kernels::Weight;

use crate::blocks::{LayerNorm, Linear, RmsNorm, Weights};
use crate::record::{SourceAxes, SourcePart, TensorSpec};

/// Where a module is in its model, and where its tensors come from or are listed.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    path: &'a str,
    reader: Reader<'a>,
}

#[derive(Clone, Copy)]
enum Reader<'a> {
    Describe(&'a RefCell<Vec<TensorSpec>>),
    Load(Weights<'a>),
}

/// One of several linears that lie side by side: its name in a checkpoint, its outputs, and whether it has a bias there.
#[derive(Debug, Clone, Copy)]
pub struct FusedPart {
    /// Name in a checkpoint, such as `q_proj`.
    pub name: &'static str,
    /// Outputs of this part.
    pub outputs: usize,
    /// Whether a checkpoint has a bias of it.
    pub biased: bool,
}

impl FusedPart {
    /// A part without a bias.
    pub fn plain(name: &'static str, outputs: usize) -> Self {
        Self { name, outputs, biased: false }
    }

    /// A part with a bias.
    pub fn biased(name: &'static str, outputs: usize) -> Self {
        Self { name, outputs, biased: true }
    }
}

impl Builder<'_> {
    /// What a module built under `path` must find in its file, with the module: without weights, and able to count.
    pub fn describe<T>(path: &str, build: impl FnOnce(&Builder<'_>) -> T) -> (T, Vec<TensorSpec>) {
        let specs = RefCell::default();
        let module = build(&Builder { path, reader: Reader::Describe(&specs) });
        (module, specs.into_inner())
    }

    /// A module built under `path` from the tensors of an opened file.
    ///
    /// # Panics
    /// If the file was opened without what [`Builder::describe`] lists for the same function.
    pub fn load<T>(path: &str, weights: Weights<'_>, build: impl FnOnce(&Builder<'_>) -> T) -> T {
        build(&Builder { path, reader: Reader::Load(weights) })
    }

    /// The device tensors are on; `None` where there are none.
    pub fn device(&self) -> Option<&Device> {
        match &self.reader {
            Reader::Load(weights) => Some(weights.device()),
            Reader::Describe(_) => None,
        }
    }

    /// What `build` makes one level below: `layers.3` of this path.
    pub fn at<T>(&self, name: impl Display, build: impl FnOnce(&Builder<'_>) -> T) -> T {
        let path = self.name(&name.to_string());
        build(&Builder { path: &path, reader: self.reader })
    }

    fn name(&self, name: &str) -> String {
        match (self.path, name) {
            ("", name) => name.to_string(),
            (path, "") => path.to_string(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    /// `x @ {name}.weight`, `[inputs, outputs]`.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Linear {
        self.product(name, inputs, outputs, false, |spec| spec)
    }

    /// `x @ {name}.weight + {name}.bias`.
    pub fn linear_biased(&self, name: &str, inputs: usize, outputs: usize) -> Linear {
        self.product(name, inputs, outputs, true, |spec| spec)
    }

    /// Linears of a checkpoint side by side; with a bias where one of them has one.
    pub fn fused(&self, name: &str, inputs: usize, parts: &[FusedPart]) -> Linear {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let biased = parts.iter().any(|part| part.biased);
        self.product(name, inputs, outputs, biased, |spec| with_parts(spec, parts))
    }

    /// The same of linears that a checkpoint may hold side by side already, under the record's own name.
    pub fn packed(&self, name: &str, inputs: usize, parts: &[FusedPart]) -> Linear {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let biased = parts.iter().any(|part| part.biased);
        self.product(name, inputs, outputs, biased, |spec| {
            let spec = with_parts(spec, parts);
            TensorSpec { packed: true, ..spec }
        })
    }

    /// Gate and up of a gated MLP side by side, `[inputs, 2 * inner]`, without biases.
    pub fn gate_up(&self, name: &str, inputs: usize, inner: usize, [gate, up]: [&'static str; 2]) -> Linear {
        self.product(name, inputs, 2 * inner, false, |spec| {
            let part = |name: &str| SourcePart { name: name.into(), outputs: inner, stored: true };
            TensorSpec { parts: vec![part(gate), part(up)], ..TensorSpec::gate_up(spec.name, inputs, inner) }
        })
    }

    /// [`Builder::gate_up`] with biases.
    pub fn gate_up_biased(&self, name: &str, inputs: usize, inner: usize, parts: [&'static str; 2]) -> Linear {
        let parts = parts.map(|name| FusedPart::biased(name, inner));
        self.product(name, inputs, 2 * inner, true, |spec| match spec.shape.len() {
            2 => with_parts(TensorSpec::gate_up(spec.name, inputs, inner), &parts),
            _ => with_parts(spec, &parts),
        })
    }

    /// A convolution of a checkpoint, or a matrix whose axes do not lie as PyTorch has them, as a product with a bias.
    pub fn convolution(&self, name: &str, inputs: usize, outputs: usize, axes: SourceAxes) -> Linear {
        self.product(name, inputs, outputs, true, |spec| match spec.shape.len() {
            2 => TensorSpec { axes, ..spec },
            _ => spec,
        })
    }

    /// The same without a bias.
    pub fn convolution_unbiased(&self, name: &str, inputs: usize, outputs: usize, axes: SourceAxes) -> Linear {
        self.product(name, inputs, outputs, false, |spec| TensorSpec { axes, ..spec })
    }

    /// A narrow product in f32 whatever the record's type, without a bias: `{name}.weight`, `[outputs, inputs]` as in a
    /// checkpoint.
    pub fn narrow(&self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let values = self.host(&format!("{name}.weight"), [outputs, inputs]);
        let weight = match self.reader {
            Reader::Load(weights) => weights.narrow(&values, inputs, outputs),
            Reader::Describe(_) => Weight::described(inputs, outputs),
        };
        Linear::new(weight, None)
    }

    fn product(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        biased: bool,
        change: impl Fn(TensorSpec) -> TensorSpec,
    ) -> Linear {
        let (matrix, bias) = (self.name(&format!("{name}.weight")), self.name(&format!("{name}.bias")));
        let weight = match self.reader {
            Reader::Load(weights) => weights.linear(&matrix),
            Reader::Describe(specs) => {
                specs.borrow_mut().push(change(TensorSpec::linear(matrix, inputs, outputs)));
                Weight::described(inputs, outputs)
            }
        };
        let bias =
            biased.then(|| self.param(change(TensorSpec::exact(bias, [outputs])), |weights, name| weights.exact(name)));
        Linear::new(weight, bias)
    }

    /// `{name}.weight` and `{name}.bias` of a LayerNorm.
    pub fn layer_norm(&self, name: &str, width: usize, eps: f64) -> LayerNorm {
        let weight = self.exact(&format!("{name}.weight"), [width]);
        LayerNorm::new(weight, self.exact(&format!("{name}.bias"), [width]), eps)
    }

    /// `{name}.weight` of a LayerNorm without a bias: zeros are added.
    pub fn layer_norm_unbiased(&self, name: &str, width: usize, eps: f64) -> LayerNorm {
        let zeros = self.computed([width], |device| Tensor::zeros([width], (device, DType::F32)));
        LayerNorm::new(self.exact(&format!("{name}.weight"), [width]), zeros, eps)
    }

    /// `{name}.weight` of an RMSNorm.
    pub fn rms_norm(&self, name: &str, width: usize, eps: f64) -> RmsNorm {
        RmsNorm::new(self.exact(&format!("{name}.weight"), [width]), eps)
    }

    /// A small tensor, kept in f32.
    pub fn exact<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(TensorSpec::exact(self.name(name), shape), |weights, name| weights.exact(name))
    }

    /// A table or convolution, stored in the record's type and computed in f32.
    pub fn rows<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(TensorSpec::rows(self.name(name), shape), |weights, name| weights.rows(name))
    }

    /// One row of a table of the checkpoint less another, `[width]`, kept in f32.
    pub fn row_difference(&self, name: &str, [rows, width]: [usize; 2], [plus, minus]: [u32; 2]) -> Param<Tensor<1>> {
        let axes = SourceAxes::RowDifference { rows, plus, minus };
        let spec = TensorSpec { axes, ..TensorSpec::exact(self.name(name), [width]) };
        self.param(spec, |weights, name| weights.exact(name))
    }

    /// Values of a small tensor for the host; none where only a description is made.
    pub fn host<const D: usize>(&self, name: &str, shape: [usize; D]) -> Vec<f32> {
        let spec = TensorSpec::exact(self.name(name), shape);
        match self.reader {
            Reader::Load(weights) => weights.host(&spec.name),
            Reader::Describe(specs) => {
                specs.borrow_mut().push(spec);
                Vec::new()
            }
        }
    }

    /// A tensor that no file has: made here where tensors have values.
    pub fn computed<const D: usize>(
        &self,
        shape: [usize; D],
        make: impl FnOnce(&Device) -> Tensor<D>,
    ) -> Param<Tensor<D>> {
        match self.reader {
            Reader::Load(weights) => Param::from_tensor(make(weights.device())),
            Reader::Describe(_) => placeholder(Shape::from(shape.to_vec())),
        }
    }

    fn param<const D: usize>(
        &self,
        spec: TensorSpec,
        read: impl Fn(&Weights<'_>, &str) -> Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        match self.reader {
            Reader::Load(weights) => read(&weights, &spec.name),
            Reader::Describe(specs) => {
                let shape = Shape::from(spec.shape.clone());
                specs.borrow_mut().push(spec);
                placeholder(shape)
            }
        }
    }
}

/// A matrix or a bias that is made of these parts.
fn with_parts(spec: TensorSpec, parts: &[FusedPart]) -> TensorSpec {
    let matrix = spec.shape.len() == 2;
    let part = |p: &FusedPart| SourcePart { name: p.name.into(), outputs: p.outputs, stored: matrix || p.biased };
    TensorSpec { parts: parts.iter().map(part).collect(), ..spec }
}

/// A parameter that has a shape and never a value.
fn placeholder<const D: usize>(shape: Shape) -> Param<Tensor<D>> {
    let never = |_: &Device, _| panic!("a model that is only described has no values");
    Param::uninitialized(ParamId::new(), never, any_device(), false, shape)
}

/// A device for tensors that are never made.
fn any_device() -> Device {
    #[cfg(feature = "flex")]
    return Device::flex();
    // Without the CPU backend, whichever there is; nothing is computed on it.
    #[cfg(not(feature = "flex"))]
    Device::default()
}
