//! What flex, Burn's CPU backend, does differently: the kernels of [`crate::cpu`] over its tensors.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::{AllocationProperty, Bytes, DType, Element, FloatDType, Shape, Tensor, bf16, f16};
use burn_flex::{Flex, FlexTensor, Layout};

use crate::cpu::Isa;
use crate::cpu::aligned::Aligned;
use crate::cpu::attention::{self, Attention, Columns, Heads, Placing};
use crate::cpu::linear::{self, Activation, Epilogue, Out, Rows};
use crate::cpu::pack::ColumnOrder;
use crate::cpu::rows::{self, written};
use crate::fused::{After, Before, HeadSizes};
use crate::{Segments, TowerOps, Weight, portable};

impl TowerOps for Flex {
    /// A single row takes another path in flex's product than two or more do, and differs there by up to 6e-6
    /// (k >= 1024); from 2 rows on a row's bits do not depend on the rows beside it. So a single row gets a companion,
    /// and the same item gives the same vector alone and in a batch.
    fn tower_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let rows = x.shape()[0];
        let least = least_rows(&weight);
        if rows >= least {
            return product(x, weight);
        }
        let repeated = Self::float_cat(vec![x; least.div_ceil(rows)], 0);
        let product = product(repeated, weight);
        let width = product.shape()[1];
        Self::float_slice(product, &[(0..rows).into(), (0..width).into()])
    }

    fn tower_linear_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let product = Contiguous::new(Self::tower_linear(x, weight));
        let bias = Contiguous::new(bias);
        activated(&product, Some(bias.values()), Activation::None, None, false)
    }

    fn tower_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        norm(x, weight, None, eps, false)
    }

    fn tower_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        norm(x, weight, Some(bias), eps, false)
    }

    fn tower_swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        activated(&Contiguous::new(gate_up), None, Activation::SwiGlu, None, false)
    }

    fn tower_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        activated(&Contiguous::new(x), None, Activation::GeluTanh, None, false)
    }

    fn tower_gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        activated(&Contiguous::new(x), None, Activation::GeluErf, None, false)
    }
}

/// Rows from which on a product adds up in the order in which it does for any larger number of rows: one row goes another way,
/// and a small product is cut along its inner axis into other stretches than a large one, where that axis is longer than one.
///
/// # Source
/// gemm-common 0.19.0, `gemm.rs`, `gemm_basic_generic`: `m <= 64 && n <= 64`.
fn least_rows(weight: &FlexTensor) -> usize {
    const SMALL: usize = 64;
    const STRETCH: usize = 512;
    let [depth, outputs] = weight.layout().shape().dims::<2>();
    if outputs <= SMALL && depth > STRETCH && !depth.is_multiple_of(STRETCH) { SMALL + 1 } else { 2 }
}

/// Operations from which on flex spreads a product over the threads of the pool.
const PARALLEL_OPERATIONS: usize = 192 * 192 * 192;

/// Flex's product of rows and a matrix, rounded as [`crate::linear`] says.
///
/// Flex itself multiplies on one thread unless its feature `rayon` is on, which every operation of every type would be
/// compiled for a second time with: half of what Burn takes to build. So its call is made here.
fn product(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    match weight.dtype() {
        DType::F32 => multiplied::<f32>(&x, &weight, [0.0, 1.0]),
        DType::F16 => {
            let rounded = Flex::float_cast(x, FloatDType::F16);
            let product = multiplied::<f16>(&rounded, &weight, [f16::ZERO, f16::ONE]);
            Flex::float_cast(product, FloatDType::F32)
        }
        _ => portable::linear::<Flex>(x, weight),
    }
}

/// `x @ weight` as flex computes it, to the bit.
///
/// # Panics
/// If the shapes do not fit, or a tensor is of another type than `T`.
/// # Source
/// burn-flex 0.22.1, `ops/matmul.rs`, `matmul_2d_strided`.
fn multiplied<T: Element + bytemuck::Pod>(x: &FlexTensor, weight: &FlexTensor, [zero, one]: [T; 2]) -> FlexTensor {
    let sizes = |tensor: &FlexTensor| -> [usize; 2] { tensor.layout().shape().dims::<2>() };
    let ([rows, inputs], [depth, outputs]) = (sizes(x), sizes(weight));
    assert_eq!(inputs, depth, "inner axes of a product");
    let parallel = rows.saturating_mul(outputs).saturating_mul(inputs) >= PARALLEL_OPERATIONS;
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    let strides = |tensor: &FlexTensor| [tensor.layout().strides()[0], tensor.layout().strides()[1]];
    let ([x_row, x_column], [weight_row, weight_column]) = (strides(x), strides(weight));
    let (x_values, weight_values) = (x.storage::<T>(), weight.storage::<T>());
    let (x_from, weight_from) =
        (&x_values[x.layout().start_offset()..], &weight_values[weight.layout().start_offset()..]);
    let values = written::<T>(rows * outputs, |out| {
        // SAFETY: a layout's values lie within its tensor's, and `out` has a place for each result; none is read before it is
        // written.
        unsafe {
            gemm::gemm(
                rows,
                outputs,
                inputs,
                out.as_mut_ptr().cast::<T>(),
                1,
                outputs as isize,
                false,
                x_from.as_ptr(),
                x_column,
                x_row,
                weight_from.as_ptr(),
                weight_column,
                weight_row,
                zero,
                one,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from([rows, outputs])), T::dtype())
}

/// A tensor of flex whose values lie in order.
pub(crate) struct Contiguous(FlexTensor);

impl Contiguous {
    fn new(tensor: FlexTensor) -> Self {
        Self(if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() })
    }

    /// The tensor's own, if it lives on flex.
    fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        tensor.clone().try_into_primitive::<Flex>().ok().map(Self::new)
    }

    /// f32 values.
    fn values(&self) -> &[f32] {
        let (start, end) = self.0.layout().contiguous_offsets().expect("made contiguous");
        &self.0.storage::<f32>()[start..end]
    }

    fn rows(&self) -> Rows<'_> {
        let (start, end) = self.0.layout().contiguous_offsets().expect("made contiguous");
        match self.0.dtype() {
            DType::BF16 => Rows::Bf16(bytemuck::cast_slice(&self.0.storage::<bf16>()[start..end])),
            _ => Rows::F32(&self.0.storage::<f32>()[start..end]),
        }
    }

    fn last_axis(&self) -> usize {
        let shape = self.0.layout().shape();
        shape[shape.num_dims() - 1]
    }
}

/// A tensor that a kernel writes, in f32 or bf16.
fn filled(shape: Shape, low: bool, write: impl FnOnce(Out)) -> FlexTensor {
    let count = shape.num_elements();
    if low {
        // Tiles and vectors read rows of bf16 from memory that begins on a line: 512 rows of 1,024 beside 6,144 columns on AMX
        // take 4.5 ms there and 7.1 where each piece of a row lies in two lines. Nobody writes to them.
        // SAFETY: kernels write every result.
        let values = unsafe {
            Aligned::<u16>::written(count, |out| write(Out::Bf16(std::slice::from_raw_parts_mut(out.cast(), count))))
        };
        let bytes = Bytes::from_shared(bytes::Bytes::from_owner(values), AllocationProperty::Native);
        FlexTensor::new(bytes, Layout::contiguous(shape), DType::BF16)
    } else {
        let bytes = Bytes::from_elems(written::<f32>(count, |out| write(Out::F32(out))));
        FlexTensor::new(bytes, Layout::contiguous(shape), DType::F32)
    }
}

fn norm(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: Option<FloatTensor<Flex>>,
    eps: f64,
    low: bool,
) -> FloatTensor<Flex> {
    let (x, weight, bias) = (Contiguous::new(x), Contiguous::new(weight), bias.map(Contiguous::new));
    let isa = Isa::current();
    filled(x.0.layout().shape().clone(), low, |out| match &bias {
        Some(bias) => rows::layer_norm(isa, x.values(), weight.values(), bias.values(), eps as f32, out),
        None => rows::rms_norm(isa, x.values(), weight.values(), eps as f32, out),
    })
}

/// A norm whose result is rounded to bf16, where rows and tables live on flex.
pub(crate) fn low_norm(x: &Tensor<2>, weight: &Tensor<1>, bias: Option<&Tensor<1>>, eps: f64) -> Option<Tensor<2>> {
    let primitive = |x: &Tensor<1>| x.clone().try_into_primitive::<Flex>().ok();
    let bias = match bias {
        Some(bias) => Some(primitive(bias)?),
        None => None,
    };
    let x = x.clone().try_into_primitive::<Flex>().ok()?;
    Some(Tensor::from_primitive::<Flex>(norm(x, primitive(weight)?, bias, eps, true)))
}

fn activated(
    x: &Contiguous,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    low: bool,
) -> FlexTensor {
    let width = x.last_axis();
    let mut shape = x.0.layout().shape().clone();
    if activation == Activation::SwiGlu {
        let last = shape.num_dims() - 1;
        shape[last] = width / 2;
    }
    let isa = Isa::current();
    filled(shape, low, |out| rows::activate(isa, x.values(), width, bias, activation, residual, out))
}

/// See [`crate::project`]; `None` where the rows are not on flex.
pub(crate) fn project(x: &Tensor<2>, weight: &Weight, after: &After) -> Option<Tensor<2>> {
    let bias = after.bias.as_ref().map(Contiguous::of::<1>);
    let residual = after.residual.as_ref().map(Contiguous::of::<2>);
    let (bias, residual) = (bias.map_or(Some(None), |b| b.map(Some))?, residual.map_or(Some(None), |r| r.map(Some))?);
    let (bias, residual) = (bias.as_ref().map(Contiguous::values), residual.as_ref().map(Contiguous::values));
    if let Some(plain) = weight.as_plain() {
        let primitive = x.clone().try_into_primitive::<Flex>().ok()?;
        let product = Flex::tower_linear(primitive, plain.clone().try_into_primitive::<Flex>().ok()?);
        if bias.is_none() && residual.is_none() && after.activation == Activation::None {
            return Some(Tensor::from_primitive::<Flex>(product));
        }
        let product = Contiguous::new(product);
        return Some(Tensor::from_primitive::<Flex>(activated(&product, bias, after.activation, residual, false)));
    }
    let (packed, low) = weight.as_packed()?;
    let x = Contiguous::of(x)?;
    let [count, _] = [x.0.layout().shape()[0], x.0.layout().shape()[1]];
    let outputs = packed.layout().outputs;
    let width = if after.activation == Activation::SwiGlu { outputs / 2 } else { outputs };
    let isa = Isa::current();
    if after.activation == Activation::SwiGlu && packed.layout().order == ColumnOrder::Plain {
        // Gate and up do not meet in a tile where their width is no multiple of a panel's.
        let product = filled(Shape::from([count, outputs]), false, |out| {
            linear::linear(isa, x.rows(), count, packed, low, Epilogue { bias, ..Epilogue::default() }, out);
        });
        let product = Contiguous::new(product);
        return Some(Tensor::from_primitive::<Flex>(activated(&product, None, after.activation, residual, after.low)));
    }
    let epilogue = Epilogue { bias, activation: after.activation, residual };
    let result = filled(Shape::from([count, width]), after.low && residual.is_none(), |out| {
        linear::linear(isa, x.rows(), count, packed, low, epilogue, out);
    });
    Some(Tensor::from_primitive::<Flex>(result))
}

/// See [`crate::attend`]; `None` where the rows are not on flex.
pub(crate) fn attend(qkv: &Tensor<2>, sizes: HeadSizes, segments: &Segments, before: &Before) -> Option<Tensor<2>> {
    let HeadSizes { heads, kv_heads, head_dim } = sizes;
    let qkv = Contiguous::of(qkv)?;
    assert_eq!(segments.padding(), 0, "flex takes any number of rows and wants no padding");
    let norms = match &before.norms {
        Some((query, key, eps)) => Some((Contiguous::of(query)?, Contiguous::of(key)?, *eps)),
        None => None,
    };
    let rotary = match &before.rotary {
        Some((cos, sin)) => Some((Contiguous::of(cos)?, Contiguous::of(sin)?)),
        None => None,
    };
    let relative = match &before.relative {
        Some(relative) => Some(Contiguous::of(relative)?),
        None => None,
    };
    let stride = (heads + 2 * kv_heads) * head_dim;
    let at = |head: usize| Columns { values: &qkv.values()[head * head_dim..], stride };
    let bounds: Vec<(usize, usize)> = segments.iter().collect();
    let attention = Attention {
        query: at(0),
        key: at(heads),
        value: at(heads + kv_heads),
        heads: Heads { query: heads, key: kv_heads, width: head_dim },
        placing: Placing {
            query_norm: norms.as_ref().map(|(query, ..)| query.values()),
            key_norm: norms.as_ref().map(|(_, key, _)| key.values()),
            eps: norms.as_ref().map_or(0.0, |(.., eps)| *eps as f32),
            rotary: rotary.as_ref().map(|(cos, sin)| (cos.values(), sin.values())),
        },
        segments: &bounds,
        scale: (1.0 / (head_dim as f64).sqrt()) as f32,
        causal: before.causal,
        window: before.window,
        relative: relative.as_ref().map(Contiguous::values),
        low: before.low,
    };
    let isa = Isa::current();
    let shape = Shape::from([segments.rows(), heads * head_dim]);
    let result = filled(shape, before.low_result, |out| attention::attention(isa, &attention, out));
    Some(Tensor::from_primitive::<Flex>(result))
}

/// Attention over tensors of their own; `None` where they are not on flex.
///
/// # Shapes
/// As [`crate::attention`].
pub(crate) fn separate(
    query: &Tensor<3>,
    key: &Tensor<3>,
    value: &Tensor<3>,
    segments: &Segments,
    scale: f64,
    causal: bool,
) -> Option<Tensor<3>> {
    let ([_, heads, head_dim], [_, kv_heads, _]) = (query.dims(), key.dims());
    let (query, key, value) = (Contiguous::of(query)?, Contiguous::of(key)?, Contiguous::of(value)?);
    assert_eq!(segments.padding(), 0, "flex takes any number of rows and wants no padding");
    let bounds: Vec<(usize, usize)> = segments.iter().collect();
    let attention = Attention {
        query: Columns { values: query.values(), stride: heads * head_dim },
        key: Columns { values: key.values(), stride: kv_heads * head_dim },
        value: Columns { values: value.values(), stride: kv_heads * head_dim },
        heads: Heads { query: heads, key: kv_heads, width: head_dim },
        placing: Placing::default(),
        segments: &bounds,
        scale: scale as f32,
        causal,
        window: None,
        relative: None,
        low: false,
    };
    let isa = Isa::current();
    let shape = Shape::from([segments.rows(), heads, head_dim]);
    Some(Tensor::from_primitive::<Flex>(filled(shape, false, |out| attention::attention(isa, &attention, out))))
}

/// Whether tensors of a device are flex's.
pub(crate) fn is_flex(device: &burn::tensor::Device) -> bool {
    Tensor::<1>::zeros([1], device).try_into_primitive::<Flex>().is_ok()
}

/// Reads the f32 values of a tensor that lives on flex.
pub(crate) fn values<const D: usize, T>(tensor: &Tensor<D>, read: impl FnOnce(&[f32]) -> T) -> Option<T> {
    Contiguous::of(tensor).map(|tensor| read(tensor.values()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn a_row_of_a_product_has_the_same_bits_among_any_number_of_rows() {
        let device = Device::flex();
        for [inputs, outputs] in [[1176, 48], [588, 64], [1536, 32], [300, 17]] {
            let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
            let (rows, weight) = (random([200, inputs]), random([inputs, outputs]));
            let bits = |count: usize| -> Vec<u32> {
                let product = crate::linear(rows.clone().slice([0..count, 0..inputs]), weight.clone(), None);
                product.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            let all = bits(200);
            for count in [1, 2, 3, 16, 63, 64, 65, 66, 128] {
                assert!(bits(count) == all[..count * outputs], "{count} of 200 rows x {inputs} x {outputs}");
            }
        }
    }

    /// Flex's own product runs on one thread here, ours on several from a size on.
    #[test]
    fn products_have_the_bits_of_flexs_own_however_the_matrix_lies() {
        let device = Device::flex();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
        for [rows, inputs, outputs] in [[2, 5, 3], [7, 64, 33], [37, 300, 700], [208, 200, 192]] {
            let wide = random([inputs, outputs + 3]).slice([0..inputs, 2..outputs + 2]);
            for weight in [random([inputs, outputs]), random([outputs, inputs]).transpose(), wide] {
                for dtype in [DType::F32, DType::F16] {
                    let x = random([rows, inputs]).cast(DType::F32).try_into_primitive::<Flex>().unwrap();
                    let weight = weight.clone().cast(dtype).try_into_primitive::<Flex>().unwrap();
                    let bits = |tensor: FlexTensor| -> Vec<u32> {
                        Contiguous::new(tensor).values().iter().map(|value| value.to_bits()).collect()
                    };
                    let own = portable::linear::<Flex>(x.clone(), weight.clone());
                    assert_eq!(bits(product(x, weight)), bits(own), "{rows} x {inputs} x {outputs}, {dtype:?}");
                }
            }
        }
    }
}
