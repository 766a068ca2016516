//! Every operation on a device, compared with its portable body on the same device and with its formula in f64 on the
//! host, over odd shapes.
//!
//! What the portable body shows is an override that is wrong; what the formula shows is a device or a driver that is.
//! Whole models and stored vectors are the engine's self-test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::backend::Dispatch;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Before, HeadSizes, Segments, attend, ops, portable};

/// Largest difference of an operation in f32 (`NUMERICS.md`, "each operation").
const OPERATION: f32 = 5e-6;
/// Largest difference of a product in bf16 of values up to 1: one step of its eight bits at 1, twice.
const BF16: f32 = 2.0 / 128.0;
/// Epsilon of both norms.
const EPS: f64 = 1e-6;
/// Scale of the scores.
const SCALE: f64 = 0.3;

/// One operation at one shape, compared with one of its definitions.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelRow {
    /// The operation.
    pub kernel: &'static str,
    /// Its shape in words.
    pub shape: String,
    /// What it was compared with: `portable body` or `formula in f64`.
    pub against: &'static str,
    /// The largest difference of a value; infinite where a value is not finite or nothing could be compared.
    pub largest: f32,
    /// What the difference may be.
    pub bound: f32,
    /// Whether it is within the bound.
    pub ok: bool,
    /// How long the operation took with its upload and the read, the first call of its shape.
    pub time: Duration,
    /// What the operation said where it panicked.
    pub failure: Option<String>,
}

/// Runs every operation on `device`. `product_bound` is for devices whose products round their operands (CUDA through
/// TF32: about 1e-3); elsewhere it is `None`.
pub fn self_test(device: &Device, product_bound: Option<f32>) -> Vec<KernelRow> {
    run(&Doors::default(), device, product_bound.unwrap_or(OPERATION))
}

/// The operations under test: a table, so that the test of this test can put a wrong one in.
struct Doors {
    linear: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>,
    rms_norm: fn(Tensor<3>, Tensor<1>, f64) -> Tensor<3>,
    layer_norm: fn(Tensor<2>, Tensor<1>, Tensor<1>, f64) -> Tensor<2>,
    rotary: fn(Tensor<3>, Tensor<2>, Tensor<2>) -> Tensor<3>,
    swiglu: fn(Tensor<2>) -> Tensor<2>,
    gelu_tanh: fn(Tensor<2>) -> Tensor<2>,
    gelu_erf: fn(Tensor<2>) -> Tensor<2>,
    attention: fn(Tensor<3>, Tensor<3>, Tensor<3>, &Segments, f64, bool) -> Tensor<3>,
    attend: fn(Tensor<2>, HeadSizes, &Segments, Before) -> Tensor<2>,
    convolution: fn(Tensor<4>, Tensor<4>, Tensor<1>, ConvOptions<2>) -> Tensor<4>,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            linear: ops::linear,
            rms_norm: ops::rms_norm,
            layer_norm: ops::layer_norm,
            rotary: ops::rotary,
            swiglu: ops::swiglu,
            gelu_tanh: ops::gelu_tanh,
            gelu_erf: ops::gelu_erf,
            attention: ops::attention,
            attend,
            convolution: |x, weight, bias, options| conv2d(x, weight, Some(bias), options).clamp(0.0, 6.0),
        }
    }
}

/// The results of one case: the operation's, the portable body's where there is one, the formula's where one applies.
struct Case {
    got: Vec<f32>,
    took: Duration,
    portable: Option<Vec<f32>>,
    formula: Option<Vec<f64>>,
}

impl Case {
    /// Runs the operation under the clock.
    fn of<const D: usize>(operation: impl FnOnce() -> Tensor<D>) -> Self {
        let started = Instant::now();
        let got = read(operation());
        Self { got, took: started.elapsed(), portable: None, formula: None }
    }

    fn portable<const D: usize>(mut self, body: Tensor<D>) -> Self {
        self.portable = Some(read(body));
        self
    }

    fn formula(mut self, values: Vec<f64>) -> Self {
        self.formula = Some(values);
        self
    }
}

/// Rows of one run, with a panic of one case kept to that case.
struct Rows(Vec<KernelRow>);

impl Rows {
    fn add(&mut self, kernel: &'static str, shape: impl Into<String>, bound: f32, case: impl FnOnce() -> Case) {
        let shape = shape.into();
        let mut row = |against, largest: f32, time, failure| {
            let (shape, ok) = (shape.clone(), largest <= bound);
            self.0.push(KernelRow { kernel, shape, against, largest, bound, ok, time, failure });
        };
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(case) => {
                if let Some(portable) = case.portable {
                    let wide: Vec<f64> = portable.into_iter().map(f64::from).collect();
                    row("portable body", largest(&case.got, &wide), case.took, None);
                }
                if let Some(formula) = case.formula {
                    row("formula in f64", largest(&case.got, &formula), case.took, None);
                }
            }
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
                let said = said.unwrap_or_else(|| "without a message".into());
                row("nothing: it panicked", f32::INFINITY, Duration::ZERO, Some(said));
            }
        }
    }
}

/// The largest difference; infinite where lengths differ or a value is not finite, so that it is within no bound.
fn largest(got: &[f32], want: &[f64]) -> f32 {
    if got.len() != want.len() || got.is_empty() {
        return f32::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(&g, &w)| (f64::from(g) - w).abs());
    differences.fold(0.0f64, |most, d| if d.is_finite() { most.max(d) } else { f64::INFINITY }) as f32
}

/// Seeded values of a shape, from `-reach` to `reach`.
#[derive(Clone)]
struct Values<const D: usize> {
    shape: [usize; D],
    values: Vec<f32>,
}

impl<const D: usize> Values<D> {
    fn new(shape: [usize; D], seed: usize, reach: f32) -> Self {
        let count = shape.iter().product();
        let value = |i: usize| ((i + seed * 7919) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32;
        Self { shape, values: (0..count).map(|i| reach * (2.0 * value(i) - 1.0)).collect() }
    }

    fn on(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape), (device, DType::F32))
    }

    fn at(&self, i: usize) -> f64 {
        f64::from(self.values[i])
    }
}

fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.cast(DType::F32).into_data().try_to_vec().expect("f32 values")
}

fn run(doors: &Doors, device: &Device, product_bound: f32) -> Vec<KernelRow> {
    let mut rows = Rows(Vec::new());
    linears(&mut rows, doors, device, product_bound);
    norms(&mut rows, doors, device);
    pointwise(&mut rows, doors, device);
    attentions(&mut rows, doors, device, product_bound);
    distances(&mut rows, doors, device, product_bound);
    convolutions(&mut rows, doors, device, product_bound);
    rows.0
}

fn linears(rows: &mut Rows, doors: &Doors, device: &Device, bound: f32) {
    // One row takes another path on flex; 1,024 is where that path was seen to differ.
    for (count, inputs, outputs) in
        [(1, 24, 40), (2, 24, 40), (7, 384, 77), (65, 100, 129), (1, 1024, 96), (3, 1024, 96)]
    {
        let x = Values::new([count, inputs], 1, 1.0);
        let weight = Values::new([inputs, outputs], 2, 1.0 / (inputs as f32).sqrt());
        let bias = Values::new([outputs], 3, 0.5);
        rows.add("linear", format!("{count} x {inputs} to {outputs}, bias"), bound, || {
            let (dx, dw, db) = (x.on(device), weight.on(device), bias.on(device));
            let case = Case::of(|| (doors.linear)(dx.clone(), dw.clone(), Some(db.clone())));
            let body = portable::linear::<Dispatch>(dx.into_dispatch(), dw.into_dispatch());
            let body = portable::add_bias::<Dispatch>(body, db.into_dispatch());
            let mut formula = Vec::with_capacity(count * outputs);
            for row in 0..count {
                for column in 0..outputs {
                    let products = (0..inputs).map(|k| x.at(row * inputs + k) * weight.at(k * outputs + column));
                    formula.push(bias.at(column) + products.sum::<f64>());
                }
            }
            case.portable(Tensor::<2>::from_dispatch(body)).formula(formula)
        });
    }
    if device.supports_dtype(DType::BF16) {
        rows.add("linear", "5 x 64 to 33, bf16", BF16, || {
            let (x, weight) = (Values::new([5, 64], 1, 1.0), Values::new([64, 33], 2, 0.125));
            let (dx, dw) = (x.on(device), weight.on(device).cast(DType::BF16));
            let case = Case::of(|| (doors.linear)(dx.clone(), dw.clone(), None));
            let body = portable::linear::<Dispatch>(dx.into_dispatch(), dw.into_dispatch());
            case.portable(Tensor::<2>::from_dispatch(body))
        });
    }
}

fn norms(rows: &mut Rows, doors: &Doors, device: &Device) {
    for [tokens, heads, width] in [[3, 2, 8], [1, 1, 384], [5, 3, 129]] {
        let (x, gain) = (Values::new([tokens, heads, width], 4, 1.0), Values::new([width], 5, 1.0));
        rows.add("rms_norm", format!("{tokens} x {heads} x {width}"), OPERATION, || {
            let (dx, dg) = (x.on(device), gain.on(device));
            let case = Case::of(|| (doors.rms_norm)(dx.clone(), dg.clone(), EPS));
            let body = portable::rms_norm::<Dispatch>(dx.into_dispatch(), dg.into_dispatch(), EPS);
            let mut formula = Vec::new();
            for row in 0..tokens * heads {
                let row: Vec<f64> = (0..width).map(|i| x.at(row * width + i)).collect();
                let mean = row.iter().map(|v| v * v).sum::<f64>() / width as f64;
                formula.extend(row.iter().enumerate().map(|(i, v)| v / (mean + EPS).sqrt() * gain.at(i)));
            }
            case.portable(Tensor::<3>::from_dispatch(body)).formula(formula)
        });
    }
    for [tokens, width] in [[4, 12], [1, 384], [3, 1025]] {
        let (x, gain, bias) =
            (Values::new([tokens, width], 6, 1.0), Values::new([width], 7, 1.0), Values::new([width], 8, 0.5));
        rows.add("layer_norm", format!("{tokens} x {width}"), OPERATION, || {
            let (dx, dg, db) = (x.on(device), gain.on(device), bias.on(device));
            let case = Case::of(|| (doors.layer_norm)(dx.clone(), dg.clone(), db.clone(), EPS));
            let body =
                portable::layer_norm::<Dispatch>(dx.into_dispatch(), dg.into_dispatch(), db.into_dispatch(), EPS);
            let mut formula = Vec::new();
            for row in 0..tokens {
                let row: Vec<f64> = (0..width).map(|i| x.at(row * width + i)).collect();
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
                let unit = |v: f64| (v - mean) / (variance + EPS).sqrt();
                formula.extend(row.iter().enumerate().map(|(i, v)| unit(*v) * gain.at(i) + bias.at(i)));
            }
            case.portable(Tensor::<2>::from_dispatch(body)).formula(formula)
        });
    }
}

fn pointwise(rows: &mut Rows, doors: &Doors, device: &Device) {
    for [tokens, heads, head_dim] in [[6, 3, 8], [1, 1, 64], [17, 2, 66]] {
        let x = Values::new([tokens, heads, head_dim], 9, 1.0);
        let (cos, sin) = (Values::new([tokens, head_dim], 10, 1.0), Values::new([tokens, head_dim], 11, 1.0));
        rows.add("rotary", format!("{tokens} x {heads} x {head_dim}"), OPERATION, || {
            let (dx, dc, ds) = (x.on(device), cos.on(device), sin.on(device));
            let case = Case::of(|| (doors.rotary)(dx.clone(), dc.clone(), ds.clone()));
            let body = portable::rotary::<Dispatch>(dx.into_dispatch(), dc.into_dispatch(), ds.into_dispatch());
            let half = head_dim / 2;
            let mut formula = Vec::new();
            for row in 0..tokens * heads {
                for i in 0..head_dim {
                    let value = |i: usize| x.at(row * head_dim + i);
                    let turned = if i < half { -value(i + half) } else { value(i - half) };
                    let table = row / heads * head_dim + i;
                    formula.push(value(i) * cos.at(table) + turned * sin.at(table));
                }
            }
            case.portable(Tensor::<3>::from_dispatch(body)).formula(formula)
        });
    }
    for [tokens, inner] in [[3, 10], [1, 129]] {
        let x = Values::new([tokens, 2 * inner], 12, 3.0);
        rows.add("swiglu", format!("{tokens} x {}", 2 * inner), OPERATION, || {
            let dx = x.on(device);
            let case = Case::of(|| (doors.swiglu)(dx.clone()));
            let body = portable::swiglu::<Dispatch>(dx.into_dispatch());
            let value = |i: usize| {
                let (gate, up) =
                    (x.at(i / inner * 2 * inner + i % inner), x.at(i / inner * 2 * inner + inner + i % inner));
                gate / (1.0 + (-gate).exp()) * up
            };
            case.portable(Tensor::<2>::from_dispatch(body)).formula((0..tokens * inner).map(value).collect())
        });
    }
    for [tokens, width] in [[3, 20], [1, 333]] {
        let x = Values::new([tokens, width], 13, 3.0);
        let shape = format!("{tokens} x {width}");
        rows.add("gelu_tanh", shape.clone(), OPERATION, || {
            let dx = x.on(device);
            let case = Case::of(|| (doors.gelu_tanh)(dx.clone()));
            let body = portable::gelu_tanh::<Dispatch>(dx.into_dispatch());
            let c = (2.0 / std::f64::consts::PI).sqrt();
            let formula = (0..tokens * width).map(|i| x.at(i));
            let formula = formula.map(|v| 0.5 * v * (1.0 + (c * (v + 0.044_715 * v.powi(3))).tanh())).collect();
            case.portable(Tensor::<2>::from_dispatch(body)).formula(formula)
        });
        rows.add("gelu_erf", shape, OPERATION, || {
            let dx = x.on(device);
            let case = Case::of(|| (doors.gelu_erf)(dx.clone()));
            let body = portable::gelu_erf::<Dispatch>(dx.into_dispatch());
            let formula = (0..tokens * width).map(|i| x.at(i));
            let formula = formula.map(|v| 0.5 * v * (1.0 + erf(v * std::f64::consts::FRAC_1_SQRT_2))).collect();
            case.portable(Tensor::<2>::from_dispatch(body)).formula(formula)
        });
    }
}

/// The error function by its power series: within 1e-12 for the arguments here, of up to 3.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn attentions(rows: &mut Rows, doors: &Doors, device: &Device, bound: f32) {
    let heads = 4;
    let shapes: [(&[usize], usize, usize); 6] = [
        (&[5, 5, 5], 2, 8),
        (&[1, 9, 3, 3], 4, 8),
        (&[16], 1, 12),
        (&[1], 4, 64),
        (&[33, 2, 33], 2, 64),
        // Beyond the length from which flex goes tile by tile.
        (&[520], 2, 16),
    ];
    for (lengths, kv_heads, head_dim) in shapes {
        let count: usize = lengths.iter().sum();
        let query = Values::new([count, heads, head_dim], 15, 1.0);
        let key = Values::new([count, kv_heads, head_dim], 16, 1.0);
        let value = Values::new([count, kv_heads, head_dim], 17, 1.0);
        for causal in [false, true] {
            let words = if causal { "causal" } else { "all rows" };
            let shape = format!("segments {lengths:?}, {heads} heads over {kv_heads} of {head_dim}, {words}");
            rows.add("attention", shape, bound, || {
                let segments = Segments::from_lengths(lengths.iter().copied());
                let (dq, dk, dv) = (query.on(device), key.on(device), value.on(device));
                let case = Case::of(|| (doors.attention)(dq.clone(), dk.clone(), dv.clone(), &segments, SCALE, causal));
                // One segment at a time, so that folding equal lengths is compared with not folding them.
                let bodies = segments.iter().map(|(start, len)| {
                    let cut = |x: &Tensor<3>| {
                        let [_, heads, head_dim] = x.dims();
                        let rows = x.clone().slice_dim(0, start..start + len);
                        rows.reshape([1, len, heads, head_dim]).swap_dims(1, 2).into_dispatch()
                    };
                    let body = portable::attention::<Dispatch>(cut(&dq), cut(&dk), cut(&dv), SCALE, causal);
                    Tensor::<4>::from_dispatch(body).swap_dims(1, 2).reshape([len, heads, head_dim])
                });
                let body: Tensor<3> = Tensor::cat(bodies.collect(), 0);
                let formula = attention_formula(&segments, (&query, &key, &value), causal);
                case.portable(body).formula(formula)
            });
        }
    }
}

fn attention_formula(
    segments: &Segments,
    (query, key, value): (&Values<3>, &Values<3>, &Values<3>),
    causal: bool,
) -> Vec<f64> {
    let ([_, heads, head_dim], [_, kv_heads, _]) = (query.shape, key.shape);
    let mut out = vec![0.0; query.values.len()];
    for (start, len) in segments.iter() {
        for row in start..start + len {
            let last = if causal { row } else { start + len - 1 };
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                let at = |other: usize, d: usize| (other * kv_heads + kv) * head_dim + d;
                let own = (row * heads + head) * head_dim;
                let score = |other: usize| {
                    let dot: f64 = (0..head_dim).map(|d| query.at(own + d) * key.at(at(other, d))).sum();
                    (SCALE * dot).exp()
                };
                let scores: Vec<f64> = (start..=last).map(score).collect();
                let total: f64 = scores.iter().sum();
                for d in 0..head_dim {
                    let sum: f64 = scores.iter().enumerate().map(|(i, s)| s * value.at(at(start + i, d))).sum();
                    out[own + d] = sum / total;
                }
            }
        }
    }
    out
}

/// Attention with a bias by distance, from the fused projection on: lengths that fold into one rectangle, that do not, and
/// that need padding.
fn distances(rows: &mut Rows, doors: &Doors, device: &Device, bound: f32) {
    let (heads, head_dim) = (3, 8);
    for lengths in [&[7, 7][..], &[3, 20, 2], &[1], &[37]] {
        let (count, longest) = (lengths.iter().sum::<usize>(), *lengths.iter().max().expect("a segment"));
        // A table that reaches further than the longest segment.
        let columns = 2 * longest + 3;
        let qkv = Values::new([count, 3 * heads * head_dim], 23, 1.0);
        let relative = Values::new([heads, columns], 24, 2.0);
        let shape = format!("segments {lengths:?}, {heads} heads of {head_dim}");
        rows.add("attention by distance", shape, bound, || {
            let segments = Segments::from_lengths(lengths.iter().copied());
            let (dx, dr) = (qkv.on(device), relative.on(device));
            let sizes = HeadSizes { heads, kv_heads: heads, head_dim };
            let before = Before { relative: Some(dr.clone()), ..Before::default() };
            let case = Case::of(|| (doors.attend)(dx.clone(), sizes, &segments, before));
            let scale = 1.0 / (head_dim as f64).sqrt();
            let bodies = segments.iter().map(|(start, len)| {
                let cut = |part: usize| {
                    let columns = part * heads * head_dim..(part + 1) * heads * head_dim;
                    let rows = dx.clone().slice([start..start + len, columns]);
                    rows.reshape([1, len, heads, head_dim]).swap_dims(1, 2).into_dispatch()
                };
                let row = |row: usize| dr.clone().slice([0..heads, columns / 2 - row..columns / 2 - row + len]);
                let bias = Tensor::stack::<3>((0..len).map(row).collect(), 1); // [heads, len, len]
                let bias = bias.reshape([1, heads, len, len]).into_dispatch();
                let body = portable::attention_hiding::<Dispatch>(cut(0), cut(1), cut(2), bias, scale);
                Tensor::<4>::from_dispatch(body).swap_dims(1, 2).reshape([len, heads * head_dim])
            });
            let body: Tensor<2> = Tensor::cat(bodies.collect(), 0);
            case.portable(body).formula(distances_formula(&segments, heads, &qkv, &relative))
        });
    }
}

fn distances_formula(segments: &Segments, heads: usize, qkv: &Values<2>, relative: &Values<2>) -> Vec<f64> {
    let ([count, width], [_, columns]) = (qkv.shape, relative.shape);
    let head_dim = width / heads / 3;
    let at =
        |row: usize, part: usize, head: usize, d: usize| qkv.at(row * width + (part * heads + head) * head_dim + d);
    let mut out = vec![0.0; count * heads * head_dim];
    for (start, len) in segments.iter() {
        for (row, head) in (0..len).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let weight = |key: usize| {
                let dot: f64 = (0..head_dim).map(|d| at(start + row, 0, head, d) * at(start + key, 1, head, d)).sum();
                let bias = relative.at(head * columns + columns / 2 + key - row);
                (dot / (head_dim as f64).sqrt() + bias).exp()
            };
            let weights: Vec<f64> = (0..len).map(weight).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_dim {
                let sum: f64 = weights.iter().enumerate().map(|(key, w)| w * at(start + key, 2, head, d)).sum();
                out[((start + row) * heads + head) * head_dim + d] = sum / total;
            }
        }
    }
    out
}

/// The convolution path of the image tower: a stem, depthwise kernels of 3 and 5, products of one pixel, ReLU6, what is
/// odd of the padding at the bottom and right. No body of ours stands in it, so it is compared with its formula alone.
fn convolutions(rows: &mut Rows, doors: &Doors, device: &Device, bound: f32) {
    // Inputs, outputs, groups, kernel, stride, side.
    let shapes: [[usize; 6]; 5] =
        [[3, 8, 1, 3, 2, 15], [12, 12, 12, 3, 1, 9], [12, 12, 12, 5, 2, 13], [24, 7, 1, 1, 1, 5], [9, 9, 9, 3, 2, 8]];
    for [inputs, outputs, groups, kernel, stride, side] in shapes {
        let out_side = side.div_ceil(stride);
        let padding = ((out_side - 1) * stride + kernel).saturating_sub(side);
        let (before, after) = (padding / 2, padding - padding / 2);
        let within = inputs / groups;
        let x = Values::new([2, inputs, side, side], 20, 1.0);
        let weight =
            Values::new([outputs, within, kernel, kernel], 21, 1.0 / ((within * kernel * kernel) as f32).sqrt());
        let bias = Values::new([outputs], 22, 0.5);
        let shape =
            format!("2 x {inputs} x {side} x {side} to {outputs}, {groups} groups, kernel {kernel}, stride {stride}");
        rows.add("convolution", shape, bound, || {
            let options = ConvOptions::new_with_padding([stride; 2], [(before, after); 2], [1, 1], groups);
            let case =
                Case::of(|| (doors.convolution)(x.on(device), weight.on(device), bias.on(device), options.clone()));
            let mut formula = Vec::new();
            for (image, output, row, column) in cells(2, outputs, out_side) {
                let mut sum = bias.at(output);
                let first = output / (outputs / groups) * within;
                for (input, down, across) in taps(within, kernel) {
                    let (y, z) =
                        ((row * stride + down).wrapping_sub(before), (column * stride + across).wrapping_sub(before));
                    if y < side && z < side {
                        let pixel = ((image * inputs + first + input) * side + y) * side + z;
                        sum += x.at(pixel) * weight.at(((output * within + input) * kernel + down) * kernel + across);
                    }
                }
                formula.push(sum.clamp(0.0, 6.0));
            }
            case.formula(formula)
        });
    }
}

fn cells(images: usize, outputs: usize, side: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let count = images * outputs * side * side;
    (0..count).map(move |i| (i / side / side / outputs, i / side / side % outputs, i / side % side, i % side))
}

fn taps(inputs: usize, kernel: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..inputs * kernel * kernel).map(move |i| (i / kernel / kernel, i / kernel % kernel, i % kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(doors: &Doors) -> Vec<(&'static str, &'static str)> {
        let rows = run(doors, &Device::flex(), OPERATION);
        let mut failed: Vec<_> = rows.iter().filter(|r| !r.ok).map(|r| (r.kernel, r.against)).collect();
        failed.dedup();
        failed
    }

    #[test]
    fn every_operation_passes_on_flex() {
        let rows = self_test(&Device::flex(), None);
        for row in &rows {
            println!("{} {} against {}: {:.1e}", row.kernel, row.shape, row.against, row.largest);
            assert!(row.ok, "{row:?}");
        }
        let kernels = ["linear", "rms_norm", "layer_norm", "rotary", "swiglu", "gelu_tanh", "gelu_erf", "attention"];
        for kernel in kernels.into_iter().chain(["attention by distance"]) {
            assert!(rows.iter().any(|r| r.kernel == kernel && r.against == "portable body"), "{kernel}");
            assert!(rows.iter().any(|r| r.kernel == kernel && r.against == "formula in f64"), "{kernel}");
        }
        assert!(rows.iter().filter(|r| r.kernel == "convolution").count() >= 5);
    }

    #[test]
    fn a_wrong_operation_fails_and_the_others_pass() {
        let both = |kernel| vec![(kernel, "portable body"), (kernel, "formula in f64")];
        let seen = |doors: Doors| {
            let mut seen = failed(&doors);
            seen.sort_unstable();
            seen.dedup();
            seen.reverse();
            seen
        };
        let right = Doors::default;
        // A hundredth of a per cent, a mask ignored, heads in the wrong order, one gelu for the other.
        assert_eq!(seen(Doors { linear: |x, w, b| ops::linear(x, w, b) * 1.0001, ..right() }), both("linear"));
        let blind = |q, k, v, s: &Segments, scale, _| ops::attention(q, k, v, s, scale, false);
        assert_eq!(seen(Doors { attention: blind, ..right() }), both("attention"));
        let one = |q: Tensor<3>, k, v, _: &Segments, scale, causal| {
            let rows = q.dims()[0];
            ops::attention(q, k, v, &Segments::single(rows), scale, causal)
        };
        assert_eq!(seen(Doors { attention: one, ..right() }), both("attention"));
        let turned = |x: Tensor<2>, sizes, s: &Segments, before: Before| {
            let relative = before.relative.clone().map(|table| table.flip([1]));
            attend(x, sizes, s, Before { relative, ..before })
        };
        assert_eq!(seen(Doors { attend: turned, ..right() }), both("attention by distance"));
        assert_eq!(seen(Doors { gelu_erf: ops::gelu_tanh, ..right() }), both("gelu_erf"));
        assert_eq!(seen(Doors { gelu_tanh: ops::gelu_erf, ..right() }), both("gelu_tanh"));
        assert_eq!(seen(Doors { rms_norm: |x, w, _| ops::rms_norm(x, w, 1e-3), ..right() }), both("rms_norm"));
        assert_eq!(
            seen(Doors { layer_norm: |x, w, b, _| ops::layer_norm(x, w, b, 1e-3), ..right() }),
            both("layer_norm")
        );
        assert_eq!(seen(Doors { rotary: |x, cos, sin| ops::rotary(x, sin, cos), ..right() }), both("rotary"));
        assert_eq!(seen(Doors { swiglu: |x| ops::swiglu(x) * f32::NAN, ..right() }), both("swiglu"));
        let uncut = |x, w, b, o| conv2d(x, w, Some(b), o);
        assert_eq!(seen(Doors { convolution: uncut, ..right() }), [("convolution", "formula in f64")]);
    }

    #[test]
    fn an_operation_that_panics_is_a_row_that_says_so() {
        let rows = run(&Doors { swiglu: |_| panic!("no such shader"), ..Doors::default() }, &Device::flex(), OPERATION);
        let broken: Vec<_> = rows.iter().filter(|r| !r.ok).collect();
        assert!(broken.iter().all(|r| r.kernel == "swiglu" && r.failure.as_deref() == Some("no such shader")));
        assert_eq!(broken.len(), 2);
        assert!(rows.iter().any(|r| r.kernel == "attention" && r.ok), "the others ran");
    }

    #[test]
    fn what_is_not_finite_or_not_there_is_within_no_bound() {
        assert_eq!(largest(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
        for (got, want) in
            [(&[f32::NAN][..], &[0.0][..]), (&[1.0], &[f64::INFINITY]), (&[1.0], &[1.0, 1.0]), (&[], &[])]
        {
            assert_eq!(largest(got, want), f32::INFINITY);
        }
    }

    #[test]
    fn the_series_of_the_error_function_is_right() {
        // Digital Library of Mathematical Functions, table 7.23.
        for (x, want) in
            [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9), (2.5, 0.999_593_047_982_555)]
        {
            assert!((erf(x) - want).abs() < 1e-12, "{x}: {}", erf(x));
            assert!((erf(-x) + want).abs() < 1e-12);
        }
    }
}
