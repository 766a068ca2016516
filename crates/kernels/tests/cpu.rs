//! Every kernel with every set of instructions this machine has, against its formula in f64 over odd shapes; and the law
//! that a row's bits do not depend on the rows beside it, on threads, or on how sums are cut.

use omniburn_kernels::Isa;
use omniburn_kernels::cpu::affine::{AffineFormat, AffineRows, from_f16};
use omniburn_kernels::cpu::attention::{Attention, Columns, Heads, Placing, attention};
use omniburn_kernels::cpu::linear::{Activation, Epilogue, Out, Rows, linear};
use omniburn_kernels::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};
use omniburn_kernels::cpu::rows::{activate, layer_norm, rms_norm, written};
use omniburn_kernels::cpu::simd::{from_bf16, to_bf16};
use proptest::prelude::*;

/// Values from -1 to 1, the same for the same seed.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let value = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(value).collect()
}

fn packed(format: PanelFormat, inputs: usize, outputs: usize, order: ColumnOrder, seed: u32) -> Packed {
    let values = noise(inputs * outputs, seed);
    let layout = PanelLayout::new(format, inputs, outputs, order);
    match format {
        PanelFormat::Int8 => {}
        // The order of random values does not matter: these are rows of outputs.
        PanelFormat::Affine(format) => {
            return Packed::from_affine(layout, &AffineRows::quantize(&values, inputs, format));
        }
        PanelFormat::F32 | PanelFormat::Bf16 => return Packed::from_f32(layout, &values),
    }
    let codes: Vec<i8> = values.iter().map(|v| (v * 127.0).round() as i8).collect();
    let scales = noise(outputs, seed + 1).iter().map(|v| (v.abs() + 0.1) / 127.0).collect();
    Packed::from_codes(layout, &codes, scales)
}

fn gelu_erf(x: f64) -> f64 {
    // The error function by its series: exact enough in f64 for |x| below 6.
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    let erf = if z.abs() > 5.0 { z.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() };
    0.5 * x * (1.0 + erf)
}

fn after(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None | Activation::SwiGlu => x,
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::GeluErf => gelu_erf(x),
        Activation::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
    }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The formula of a product and what follows it.
#[allow(clippy::too_many_arguments)] // the arguments of the kernel, spelled out
fn want(
    x: &[f32],
    rows: usize,
    weight: &Packed,
    low: bool,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
) -> Vec<f64> {
    let PanelLayout { inputs, outputs, .. } = *weight.layout();
    let values = weight.to_f32();
    // Rows as the kernel takes them: rounded to bf16, or to whole numbers of 15 bits and a scale each.
    let taken: Vec<f64> = x
        .chunks_exact(inputs)
        .flat_map(|row| {
            let largest = row.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            let (scale, inverse) = (largest / 32_512.0, 32_512.0 / largest);
            row.iter().map(move |&x| match weight.layout().format {
                PanelFormat::Affine(_) if !low => f64::from(x),
                PanelFormat::Int8 | PanelFormat::Affine(_) => {
                    f64::from((x * inverse).round_ties_even()) * f64::from(scale)
                }
                PanelFormat::Bf16 if low => f64::from(from_bf16(to_bf16(x))),
                _ => f64::from(x),
            })
        })
        .collect();
    let product = |row: usize, column: usize| {
        let at = |k: usize| taken[row * inputs + k];
        let sum: f64 = (0..inputs).map(|k| at(k) * f64::from(values[k * outputs + column])).sum();
        sum + bias.map_or(0.0, |bias| f64::from(bias[column]))
    };
    let width = if activation == Activation::SwiGlu { outputs / 2 } else { outputs };
    let value = |i: usize| {
        let (row, column) = (i / width, i % width);
        let value = match activation {
            Activation::SwiGlu => silu(product(row, column)) * product(row, width + column),
            other => after(product(row, column), other),
        };
        value + residual.map_or(0.0, |residual| f64::from(residual[i]))
    };
    (0..rows * width).map(value).collect()
}

fn run(isa: Isa, x: &[f32], rows: usize, weight: &Packed, low: bool, epilogue: Epilogue) -> Vec<f32> {
    let outputs = weight.layout().outputs;
    let width = if epilogue.activation == Activation::SwiGlu { outputs / 2 } else { outputs };
    written(rows * width, |out| linear(isa, Rows::F32(x), rows, weight, low, epilogue, Out::F32(out)))
}

/// The largest difference, in units of what the sums are made of.
fn far(got: &[f32], want: &[f64], inputs: usize) -> f64 {
    assert_eq!(got.len(), want.len());
    let differences = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs());
    differences.fold(0.0, f64::max) / (inputs as f64).sqrt().max(1.0)
}

fn format() -> impl Strategy<Value = (PanelFormat, bool)> {
    prop::sample::select(vec![
        (PanelFormat::F32, false),
        (PanelFormat::Bf16, false),
        (PanelFormat::Bf16, true),
        (PanelFormat::Int8, true),
        (PanelFormat::Affine(AffineFormat::Eight64), true),
        (PanelFormat::Affine(AffineFormat::Four64), true),
        (PanelFormat::Affine(AffineFormat::Eight32), true),
        (PanelFormat::Affine(AffineFormat::Four32), true),
        (PanelFormat::Affine(AffineFormat::Eight64), false),
        (PanelFormat::Affine(AffineFormat::Four32), false),
    ])
}

fn affine() -> impl Strategy<Value = AffineFormat> {
    prop::sample::select(AffineFormat::ALL.to_vec())
}

fn activations() -> impl Strategy<Value = Activation> {
    prop::sample::select(vec![
        Activation::None,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::GeluQuick,
        Activation::Relu,
        Activation::Relu6,
        Activation::SwiGlu,
    ])
}

/// Of sums of products of numbers below one, in f32.
const BOUND: f64 = 3e-6;

/// Codes with scales give the panels of f32 and bf16 that their values give, whatever the sizes and the order of columns.
#[test]
fn panels_of_codes_are_those_of_their_values() {
    for (inputs, outputs, order) in [
        (1, 1, ColumnOrder::Plain),
        (7, 16, ColumnOrder::Plain),
        (64, 33, ColumnOrder::Plain),
        (130, 96, ColumnOrder::GateUp),
    ] {
        let codes: Vec<i8> = (0..inputs * outputs).map(|at| (at * 37 % 255) as u8 as i8).collect();
        let scales: Vec<f32> = (0..outputs).map(|column| 0.013 * (column + 1) as f32).collect();
        let values: Vec<f32> =
            codes.iter().enumerate().map(|(at, &code)| f32::from(code) * scales[at % outputs]).collect();
        let layout = |format| PanelLayout::new(format, inputs, outputs, order);
        for format in [PanelFormat::F32, PanelFormat::Bf16] {
            let found = Packed::from_scaled(layout(format), &codes, &scales);
            assert!(
                found.bytes() == Packed::from_f32(layout(format), &values).bytes(),
                "{inputs} x {outputs}, {format:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn products_equal_their_formula(
        rows in 1_usize..40, inputs in 1_usize..200, outputs in 1_usize..150, (format, low) in format(),
        activation in activations(), with_bias: bool, with_residual: bool, seed in 0_u32..1000,
    ) {
        let gated = activation == Activation::SwiGlu;
        let outputs = if gated { outputs.next_multiple_of(32) } else { outputs };
        let order = if gated { ColumnOrder::GateUp } else { ColumnOrder::Plain };
        let weight = packed(format, inputs, outputs, order, seed);
        let x = noise(rows * inputs, seed + 2);
        let width = if gated { outputs / 2 } else { outputs };
        let (bias, residual) = (noise(outputs, seed + 3), noise(rows * width, seed + 4));
        let (bias, residual) = (with_bias.then_some(&bias[..]), with_residual.then_some(&residual[..]));
        let want = want(&x, rows, &weight, low, bias, activation, residual);
        for isa in Isa::available() {
            let got = run(isa, &x, rows, &weight, low, Epilogue { bias, activation, residual });
            // A gate multiplies two sums.
            let scale = if gated { (inputs as f64).sqrt().max(1.0) } else { 1.0 };
            let far = far(&got, &want, inputs) / scale;
            prop_assert!(far < BOUND, "{isa}: {far:e}");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_company(
        rows in 2_usize..300, inputs in 1_usize..700, (format, low) in format(), seed in 0_u32..1000, from in 0_usize..300,
        count in 1_usize..40,
    ) {
        let outputs = 70;
        let weight = packed(format, inputs, outputs, ColumnOrder::Plain, seed);
        let x = noise(rows * inputs, seed + 2);
        let first = from % rows;
        let count = count.min(rows - first);
        for isa in Isa::available() {
            let all = run(isa, &x, rows, &weight, low, Epilogue::default());
            let part = &x[first * inputs..(first + count) * inputs];
            let part = run(isa, part, count, &weight, low, Epilogue::default());
            prop_assert!(part == all[first * outputs..(first + count) * outputs], "{isa}: rows {first} and {count} on");
        }
    }

    #[test]
    fn int8_is_the_same_with_all_instructions(
        rows in 1_usize..40, inputs in 1_usize..300, outputs in 1_usize..80, seed in 0_u32..1000,
    ) {
        let weight = packed(PanelFormat::Int8, inputs, outputs, ColumnOrder::Plain, seed);
        let x = noise(rows * inputs, seed);
        let plain = run(Isa::Portable, &x, rows, &weight, true, Epilogue::default());
        for isa in Isa::available() {
            let got = run(isa, &x, rows, &weight, true, Epilogue::default());
            // Whole numbers are exact; the scaling of them is rounded once or twice.
            for (got, want) in got.iter().zip(&plain) {
                prop_assert!((got - want).abs() <= want.abs() * 3e-7, "{isa}: {got} for {want}");
            }
        }
    }

    /// Exact within a group, and each step behind it rounded by itself: nothing is left to instructions.
    #[test]
    fn affine_groups_give_the_same_bits_with_all_instructions(
        rows in 1_usize..40, inputs in 1_usize..600, outputs in 1_usize..80, format in affine(), seed in 0_u32..1000,
        low: bool,
    ) {
        let weight = packed(PanelFormat::Affine(format), inputs, outputs, ColumnOrder::Plain, seed);
        let x = noise(rows * inputs, seed);
        let bias = noise(outputs, seed + 1);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        let plain = run(Isa::Portable, &x, rows, &weight, low, epilogue);
        for isa in Isa::available() {
            let got = run(isa, &x, rows, &weight, low, epilogue);
            if low {
                prop_assert!(got == plain, "{isa}");
            }
            for (got, want) in got.iter().zip(&plain) {
                prop_assert!((got - want).abs() <= 1e-5 * (inputs as f32).sqrt(), "{isa}: {got} for {want}");
            }
        }
    }

    /// The bound of `affine.rs`, in f64, where grids of f16 and whole numbers are exact.
    #[test]
    fn no_value_is_further_than_half_a_step_from_its_affine_code(
        rows in 1_usize..4, width in 1_usize..200, format in affine(), seed in 0_u32..1000, power in -30_i32..16,
        shift in -3.0_f32..3.0,
    ) {
        let size = 2f32.powi(power);
        let values: Vec<f32> = noise(rows * width, seed).iter().map(|v| (v + shift) * size).collect();
        let found = AffineRows::quantize(&values, width, format);
        let groups = width.div_ceil(format.group());
        prop_assert_eq!(found.scales.len(), rows * groups);
        for (i, (value, code)) in values.iter().zip(&found.codes).enumerate() {
            let head = i / width * groups + i % width / format.group();
            let wide = |bits: &[u16]| f64::from(from_f16(bits[head]));
            let (scale, offset) = (wide(&found.scales), wide(&found.offsets));
            if scale.is_finite() && offset.is_finite() {
                let far = (f64::from(*value) - (f64::from(*code) * scale + offset)).abs();
                prop_assert!(far <= scale / 2.0, "{i}: {value}, code {code} of {scale} from {offset}: {far}");
                prop_assert!(*code <= format.largest());
                // What comes back is that, rounded to f32 once.
                let back = found.to_f32(width, format)[i];
                prop_assert_eq!(back, (f64::from(*code) * scale + offset) as f32);
            } else {
                prop_assert!(value.abs() + size * 4.0 > 30_000.0 && found.non_finite() > 0, "{value}");
            }
        }
    }

    #[test]
    fn packing_keeps_every_affine_group(
        inputs in 1_usize..300, outputs in 1_usize..90, gated: bool, format in affine(), seed in 0_u32..1000,
    ) {
        let order = if gated { ColumnOrder::GateUp } else { ColumnOrder::Plain };
        let layout = PanelLayout::new(PanelFormat::Affine(format), inputs, outputs, order);
        let rows = AffineRows::quantize(&noise(inputs * outputs, seed), inputs, format);
        let packed = Packed::from_affine(layout, &rows);
        prop_assert_eq!(packed.bytes().len(), layout.bytes());
        prop_assert_eq!(packed.to_affine(), Some(rows.clone()));
        let values = rows.to_f32(inputs, format);
        let turned: Vec<f32> = (0..inputs * outputs).map(|i| values[i % outputs * inputs + i / outputs]).collect();
        prop_assert_eq!(packed.to_f32(), turned);
    }

    #[test]
    fn packing_keeps_every_value(
        inputs in 1_usize..150, outputs in 1_usize..90, gated: bool, seed in 0_u32..1000,
    ) {
        let order = if gated { ColumnOrder::GateUp } else { ColumnOrder::Plain };
        let values = noise(inputs * outputs, seed);
        let layout = |format| PanelLayout::new(format, inputs, outputs, order);
        prop_assert_eq!(&Packed::from_f32(layout(PanelFormat::F32), &values).to_f32(), &values);
        let rounded: Vec<f32> = values.iter().map(|&v| from_bf16(to_bf16(v))).collect();
        let bf16 = Packed::from_f32(layout(PanelFormat::Bf16), &values);
        prop_assert_eq!(&bf16.to_f32(), &rounded);
        let bytes = bf16.to_rows();
        let again = Packed::from_rows(layout(PanelFormat::Bf16), &bytes, Vec::new());
        prop_assert_eq!(again.bytes(), bf16.bytes());
        let codes: Vec<u8> = values.iter().map(|v| (v * 127.0) as i8 as u8).collect();
        let int8 = Packed::from_rows(layout(PanelFormat::Int8), &codes, vec![1.0; outputs]);
        prop_assert_eq!(int8.to_rows(), codes);
    }

    #[test]
    fn norms_and_activations_equal_their_formulas(
        rows in 1_usize..20, width in 1_usize..200, activation in activations(), seed in 0_u32..1000,
    ) {
        let width = if activation == Activation::SwiGlu { 2 * width } else { width };
        let x: Vec<f32> = noise(rows * width, seed).iter().map(|v| 4.0 * v).collect();
        let (gain, bias) = (noise(width, seed + 1), noise(width, seed + 2));
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let mut want = (Vec::new(), Vec::new(), Vec::new());
        for row in wide(&x).chunks_exact(width) {
            let n = width as f64;
            let square = row.iter().map(|v| v * v).sum::<f64>() / n;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            for (i, v) in row.iter().enumerate() {
                want.0.push(v / (square + 1e-6).sqrt() * f64::from(gain[i]));
                want.1.push((v - mean) / (variance + 1e-5).sqrt() * f64::from(gain[i]) + f64::from(bias[i]));
            }
            let biased = |i: usize| row[i] + f64::from(bias[i]);
            match activation {
                Activation::SwiGlu => {
                    want.2.extend((0..width / 2).map(|i| silu(biased(i)) * biased(width / 2 + i)));
                }
                other => want.2.extend((0..width).map(|i| after(biased(i), other))),
            }
        }
        for isa in Isa::available() {
            let rms = written(x.len(), |out| rms_norm(isa, &x, &gain, 1e-6, Out::F32(out)));
            prop_assert!(far(&rms, &want.0, 1) < 3e-6, "{isa}: RMSNorm");
            let layer = written(x.len(), |out| layer_norm(isa, &x, &gain, &bias, 1e-5, Out::F32(out)));
            // A narrow row may have next to no variance, which its norm divides by.
            prop_assert!(far(&layer, &want.1, 1) < if width < 8 { 1e-3 } else { 1e-5 }, "{isa}: LayerNorm");
            let activated = written(want.2.len(), |out| {
                activate(isa, &x, width, Some(&bias), activation, None, Out::F32(out));
            });
            // Values reach 25 where a gate multiplies, so the last place is counted and not the size.
            let off = activated.iter().zip(&want.2).map(|(got, want)| (f64::from(*got) - want).abs() / want.abs().max(1.0));
            prop_assert!(off.fold(0.0, f64::max) < 1e-6, "{isa}: {activation:?}");
        }
    }

    #[test]
    fn attention_equals_its_formula_and_segments_do_not_meet(
        lengths in prop::collection::vec(1_usize..70, 1..4), group in 1_usize..4, kv_heads in 1_usize..3,
        half in 1_usize..20, causal: bool, normed: bool, rotated: bool, seed in 0_u32..1000,
        window in prop::option::of(0_usize..40), beyond in prop::option::of(0_usize..5),
    ) {
        let (width, heads) = (2 * half, group * kv_heads);
        let rows: usize = lengths.iter().sum();
        let stride = (heads + 2 * kv_heads) * width;
        let qkv: Vec<f32> = noise(rows * stride, seed).iter().map(|v| 2.0 * v).collect();
        let (gain, cos, sin) = (noise(width, seed + 1), noise(rows * width, seed + 2), noise(rows * width, seed + 3));
        let mut start = 0;
        let segments: Vec<(usize, usize)> = lengths.iter().map(|&len| { start += len; (start - len, len) }).collect();
        let placing = Placing {
            query_norm: normed.then_some(&gain[..]),
            key_norm: normed.then_some(&gain[..]),
            eps: 1e-6,
            rotary: rotated.then_some((&cos[..], &sin[..])),
        };
        let heads_of = Heads { query: heads, key: kv_heads, width };
        // A table of distances that reaches as far as the longest segment, or further.
        let columns = |beyond: usize| 2 * (lengths.iter().max().unwrap() - 1 + beyond) + 1;
        let relative = beyond.map(|beyond| noise(heads * columns(beyond), seed + 4));
        let relative = relative.as_deref();
        let job = |qkv| Attention { window, relative, ..attended(qkv, stride, heads_of, placing, &segments, causal) };
        let want = formula(&job(&qkv), heads, kv_heads, width);
        for isa in Isa::available() {
            let out = |low| written(rows * heads * width, |out| attention(isa, &Attention { low, ..job(&qkv) }, Out::F32(out)));
            let exact = far(&out(false), &want, 1);
            prop_assert!(exact < 4e-6, "{isa}: {exact:e}");
            let low = far(&out(true), &want, 1);
            prop_assert!(low < 4e-2, "{isa}, rounded: {low:e}");
        }
        // The first segment alone, where nothing else is.
        let (_, first) = segments[0];
        let alone = [(0, first)];
        for isa in Isa::available() {
            for low in [false, true] {
                let all = written(rows * heads * width, |out| attention(isa, &Attention { low, ..job(&qkv) }, Out::F32(out)));
                let placing = Placing { rotary: rotated.then_some((&cos[..first * width], &sin[..first * width])), ..placing };
                let one = Attention { low, placing, segments: &alone, ..job(&qkv[..first * stride]) };
                let one = written(first * heads * width, |out| attention(isa, &one, Out::F32(out)));
                prop_assert!(one[..] == all[..one.len()], "{isa}: a segment knows its neighbours");
            }
        }
    }
}

fn attended<'a>(
    qkv: &'a [f32],
    stride: usize,
    heads: Heads,
    placing: Placing<'a>,
    segments: &'a [(usize, usize)],
    causal: bool,
) -> Attention<'a> {
    let at = |head: usize| Columns { values: &qkv[head * heads.width..], stride };
    let (key, value) = (at(heads.query), at(heads.query + heads.key));
    let query = at(0);
    Attention {
        query,
        key,
        value,
        heads,
        placing,
        segments,
        scale: 0.3,
        causal,
        window: None,
        relative: None,
        low: false,
    }
}

fn formula(a: &Attention, heads: usize, kv_heads: usize, width: usize) -> Vec<f64> {
    let place = |columns: &Columns, head: usize, row: usize, gain: Option<&[f32]>| -> Vec<f64> {
        let from = &columns.values[row * columns.stride + head * width..][..width];
        let mut x: Vec<f64> = from.iter().map(|&v| f64::from(v)).collect();
        if let Some(gain) = gain {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / width as f64;
            for (x, gain) in x.iter_mut().zip(gain) {
                *x *= f64::from(*gain) / (mean + f64::from(a.placing.eps)).sqrt();
            }
        }
        let Some((cos, sin)) = a.placing.rotary else { return x };
        let half = width / 2;
        let turned = |i: usize| if i < half { -x[half + i] } else { x[i - half] };
        let at = |table: &[f32], i: usize| f64::from(table[row * width + i]);
        (0..width).map(|i| x[i] * at(cos, i) + turned(i) * at(sin, i)).collect()
    };
    let rows = a.segments.iter().map(|(_, len)| len).sum::<usize>();
    let mut out = vec![0.0; rows * heads * width];
    for &(start, len) in a.segments {
        for head in 0..heads {
            let group = head / (heads / kv_heads);
            let keys: Vec<Vec<f64>> = (0..len).map(|i| place(&a.key, group, start + i, a.placing.key_norm)).collect();
            for row in 0..len {
                let query = place(&a.query, head, start + row, a.placing.query_norm);
                let window = a.window.unwrap_or(len);
                let (hidden, seen) = (row.saturating_sub(window), len.min(row + window + 1));
                let seen = if a.causal { row + 1 } else { seen };
                let by_distance = |key: usize| {
                    let at = |table: &[f32]| {
                        let columns = table.len() / heads;
                        f64::from(table[head * columns + columns / 2 + key - row])
                    };
                    a.relative.map_or(0.0, at)
                };
                let score = |key: usize| {
                    let product: f64 = keys[key].iter().zip(&query).map(|(k, q)| k * q).sum();
                    f64::from(a.scale) * product + by_distance(key)
                };
                let scores: Vec<f64> = (hidden..seen).map(score).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..width {
                    let value =
                        |key: usize| f64::from(a.value.values[(start + key) * a.value.stride + group * width + i]);
                    let sum: f64 = weights.iter().enumerate().map(|(key, weight)| weight * value(hidden + key)).sum();
                    out[((start + row) * heads + head) * width + i] = sum / total;
                }
            }
        }
    }
    out
}

/// Full-size widths: more than one chunk of rows and more than one piece of the sums, more than one step of keys.
#[test]
fn long_sums_and_many_rows_equal_their_formula() {
    let affine = AffineFormat::ALL.map(PanelFormat::Affine);
    let affine = affine.into_iter().flat_map(|format| [(format, true), (format, false)]);
    let others = [(PanelFormat::F32, false), (PanelFormat::Bf16, true), (PanelFormat::Int8, true)];
    for (format, low) in others.into_iter().chain(affine) {
        let (rows, inputs, outputs) = (201, 1100, 80);
        let weight = packed(format, inputs, outputs, ColumnOrder::Plain, 7);
        let x = noise(rows * inputs, 8);
        let want = want(&x, rows, &weight, low, None, Activation::None, None);
        for isa in Isa::available() {
            let far = far(&run(isa, &x, rows, &weight, low, Epilogue::default()), &want, inputs);
            println!("{isa} {format:?}: {far:.2e}");
            assert!(far < BOUND, "{isa} {format:?}: {far:e}");
        }
    }
    let (len, heads, width) = (700, 2, 64);
    let (stride, segments) = (3 * heads * width, [(0, len)]);
    let qkv = noise(len * stride, 9);
    let distances = noise(heads * (2 * len - 1), 10);
    for (causal, window, relative) in [
        (false, None, None),
        (true, None, None),
        (false, Some(64), None),
        (false, Some(300), None),
        (true, Some(7), None),
        (false, None, Some(&distances[..])),
        (false, Some(300), Some(&distances[..])),
    ] {
        let heads = Heads { query: heads, key: heads, width };
        let job =
            Attention { window, relative, ..attended(&qkv, stride, heads, Placing::default(), &segments, causal) };
        let want = formula(&job, 2, 2, width);
        for isa in Isa::available() {
            let got = written(len * 2 * width, |out| attention(isa, &job, Out::F32(out)));
            let far = far(&got, &want, 1);
            assert!(far < 2e-6, "{isa}: {far:e}");
        }
    }
}

/// Results in bf16 are those in f32, rounded once: who takes them gets what it would have made itself.
#[test]
fn results_in_bf16_are_those_in_f32_rounded() {
    let round = |values: Vec<f32>| -> Vec<u16> { values.into_iter().map(to_bf16).collect() };
    let (rows, inputs, outputs) = (19, 70, 64);
    let weight = packed(PanelFormat::Bf16, inputs, outputs, ColumnOrder::GateUp, 5);
    let x = noise(rows * inputs, 6);
    let (gain, qkv) = (noise(inputs, 7), noise(rows * 60, 8));
    let (heads, segments) = (Heads { query: 2, key: 2, width: 10 }, [(0, 7), (7, 12)]);
    for isa in Isa::available() {
        for activation in [Activation::None, Activation::SwiGlu, Activation::GeluErf, Activation::Relu] {
            let epilogue = Epilogue { activation, ..Epilogue::default() };
            let wide = run(isa, &x, rows, &weight, true, epilogue);
            let low: Vec<u16> =
                written(wide.len(), |out| linear(isa, Rows::F32(&x), rows, &weight, true, epilogue, Out::Bf16(out)));
            assert_eq!(low, round(wide), "{isa} {activation:?}");
        }
        let low: Vec<u16> = written(x.len(), |out| rms_norm(isa, &x, &gain, 1e-6, Out::Bf16(out)));
        assert_eq!(low, round(written(x.len(), |out| rms_norm(isa, &x, &gain, 1e-6, Out::F32(out)))), "{isa}");
        // Rows that come in bf16 are those that would have been rounded.
        let taken: Vec<f32> = written(rows * outputs, |out| {
            linear(isa, Rows::Bf16(&low), rows, &weight, true, Epilogue::default(), Out::F32(out));
        });
        let wide: Vec<f32> = written(x.len(), |out| rms_norm(isa, &x, &gain, 1e-6, Out::F32(out)));
        assert_eq!(taken, run(isa, &wide, rows, &weight, true, Epilogue::default()), "{isa}");
        let job = attended(&qkv, 60, heads, Placing::default(), &segments, false);
        let low: Vec<u16> = written(rows * 20, |out| attention(isa, &job, Out::Bf16(out)));
        assert_eq!(low, round(written(rows * 20, |out| attention(isa, &job, Out::F32(out)))), "{isa}");
    }
}

/// What is not finite in a row must be seen in its result, and only there.
#[test]
fn a_value_that_is_not_finite_shows_in_its_own_row_alone() {
    let four = PanelFormat::Affine(AffineFormat::Four64);
    let others = [(PanelFormat::F32, false), (PanelFormat::Bf16, true), (PanelFormat::Int8, true)];
    for (format, low) in others.into_iter().chain([(four, true), (four, false)]) {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let weight = packed(format, 40, 33, ColumnOrder::Plain, 3);
            let clean = noise(5 * 40, 4);
            let mut x = clean.clone();
            x[2 * 40 + 7] = value;
            for isa in Isa::available() {
                let (got, want) = (
                    run(isa, &x, 5, &weight, low, Epilogue::default()),
                    run(isa, &clean, 5, &weight, low, Epilogue::default()),
                );
                for row in 0..5 {
                    let (got, want) = (&got[row * 33..][..33], &want[row * 33..][..33]);
                    if row == 2 {
                        assert!(got.iter().all(|v| !v.is_finite()), "{isa} {format:?} {value}");
                    } else {
                        assert_eq!(got, want, "{isa} {format:?} {value}: row {row}");
                    }
                }
            }
        }
    }
}
