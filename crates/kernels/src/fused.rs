//! Operations that do on flex in one pass what is several operations elsewhere: a product with what follows it, and
//! attention with what comes before it.
//!
//! They are functions over tensors and not methods of [`crate::TowerOps`], because a packed matrix is no tensor and
//! extensions route no optional ones; off flex they are composed of that trait's operations.

use std::ops::Range;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::cpu::linear::Activation;
use crate::rectangle::Sight;
use crate::{Segments, Weight, attention, gelu_erf, gelu_tanh, linear, rms_norm, rotary, swiglu};

/// What follows a product, in this order.
#[derive(Debug, Clone, Default)]
pub struct After {
    /// `[outputs]`, added to every row.
    pub bias: Option<Tensor<1>>,
    /// Then this.
    pub activation: Activation,
    /// As the result, f32, added last.
    pub residual: Option<Tensor<2>>,
    /// Whether the result may come in bf16: whoever takes it rounds it to that anyway ([`Weight::takes_bf16`]).
    pub low: bool,
}

/// `activation(x @ weight + bias) + residual`.
///
/// # Shapes
/// - `x`: `[rows, inputs]`, f32, or bf16 where the weight takes it; `weight`: `[inputs, outputs]`
/// - returns: `[rows, outputs]`, or `[rows, outputs / 2]` with SwiGLU
/// # Numerics
/// Sums are f32 (whole numbers with int8 panels). A row's bits do not depend on the rows beside it on flex.
pub fn project(x: Tensor<2>, weight: &Weight, after: After) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(result) = crate::flex::project(&x, weight, &after) {
        return result;
    }
    let device = x.device();
    let tensor = weight.as_plain().cloned().unwrap_or_else(|| weight.to_tensor(&device));
    let product = linear(x.cast(DType::F32), tensor, after.bias);
    let result = match after.activation {
        Activation::None => product,
        Activation::GeluTanh => gelu_tanh(product),
        Activation::GeluErf => gelu_erf(product),
        Activation::GeluQuick => product.clone() * sigmoid(product * 1.702),
        Activation::Relu => product.clamp_min(0.0),
        Activation::Relu6 => product.clamp(0.0, 6.0),
        Activation::SwiGlu => swiglu(product),
    };
    match after.residual {
        Some(residual) => result + residual,
        None => result,
    }
}

/// Sizes of the heads in a row of `[queries, keys, values]` side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// What comes before the scores, and how they are made.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// RMSNorm of each query head and of each key head, gains `[head_dim]`, and their epsilon.
    pub norms: Option<(Tensor<1>, Tensor<1>, f64)>,
    /// Cosines and sines of the rotate-half rotary, `[tokens, head_dim]` each.
    pub rotary: Option<(Tensor<2>, Tensor<2>)>,
    /// Whether a row sees only itself and earlier rows of its segment.
    pub causal: bool,
    /// Rows at most this far away in their segment are seen; all where absent.
    pub window: Option<usize>,
    /// What is added to the scaled scores by how far a key is from the query, `[heads, 2 * reach + 1]`: column
    /// `reach + key - query`. No segment is longer than `reach + 1`.
    pub relative: Option<Tensor<2>>,
    /// Whether products may round to bf16 on the way ([`Weight::is_low`]).
    pub low: bool,
    /// Whether the result may come in bf16.
    pub low_result: bool,
}

/// Attention of each segment's rows to themselves, from the product of the fused projection on. Scores are scaled by
/// `head_dim^-0.5`. Rows that none sees ([`Segments::with_unseen`]) see those of their segment that are seen, and change no bit
/// of what those come to.
///
/// # Shapes
/// - `qkv`: `[tokens, (heads + 2 kv_heads) * head_dim]`; returns: `[tokens, heads * head_dim]`
/// # Numerics
/// Norms, rotary and softmax in f32; products too unless `low`.
/// # Panics
/// If the segments do not cover the rows, or one is longer than `relative` reaches.
pub fn attend(qkv: Tensor<2>, sizes: HeadSizes, segments: &Segments, before: Before) -> Tensor<2> {
    let [tokens, _] = qkv.dims();
    assert_eq!(segments.rows(), tokens, "segments must cover the rows");
    if segments.has_unseen() {
        return attend_partly(qkv, sizes, segments, before);
    }
    if let Some(relative) = &before.relative {
        let ([_, columns], longest) = (relative.dims(), segments.iter().map(|(_, len)| len).max().unwrap_or(0));
        assert!(columns % 2 == 1 && longest <= columns / 2 + 1, "{longest} rows, {columns} distances");
        assert!(!before.causal, "distances are on both sides");
    }
    #[cfg(feature = "flex")]
    if let Some(result) = crate::flex::attend(&qkv, sizes, segments, &before) {
        return result;
    }
    let HeadSizes { heads, kv_heads, head_dim } = sizes;
    let cut = |from: usize, count: usize| {
        let columns = qkv.clone().slice([0..tokens, from * head_dim..(from + count) * head_dim]);
        columns.reshape([tokens, count, head_dim]) // [tokens, heads, head_dim]
    };
    let place = |x: Tensor<3>, norm: Option<(&Tensor<1>, f64)>| {
        let x = match norm {
            Some((gain, eps)) => rms_norm(x, gain.clone(), eps),
            None => x,
        };
        match &before.rotary {
            Some((cos, sin)) => rotary(x, cos.clone(), sin.clone()),
            None => x,
        }
    };
    let norms = before.norms.as_ref();
    let query = place(cut(0, heads), norms.map(|(query, _, eps)| (query, *eps)));
    let key = place(cut(heads, kv_heads), norms.map(|(_, key, eps)| (key, *eps)));
    let value = cut(heads + kv_heads, kv_heads);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let context = match (before.window, &before.relative) {
        (None, None) => attention(query, key, value, segments, scale, before.causal),
        (window, relative) => {
            assert!(!before.causal, "a window is on both sides");
            let sight = window.map_or(Sight::All, Sight::Window);
            crate::rectangle::attention(&query, &key, &value, segments, scale, sight, relative.as_ref())
        }
    };
    context.reshape([tokens, heads * head_dim])
}

/// [`attend`] where some rows are seen by none: the others go through as segments of their own, and these one segment after
/// another.
///
/// # Panics
/// With distances, and where a window leaves a row nothing to see.
fn attend_partly(qkv: Tensor<2>, sizes: HeadSizes, segments: &Segments, before: Before) -> Tensor<2> {
    assert!(before.relative.is_none(), "rows that none sees have no place in a table of distances");
    let HeadSizes { heads, kv_heads, head_dim } = sizes;
    let lengths = segments.iter().zip(segments.seen()).flat_map(|((_, len), (_, seen))| [seen, len - seen]);
    let apart = Segments::from_lengths(lengths.filter(|len| *len > 0)).with_padding(segments.padding());
    let before = Before { low_result: false, ..before };
    let whole = attend(qkv.clone(), sizes, &apart, before.clone());
    // Heads of some rows, normalised and turned: `[heads, rows, head_dim]`.
    let cut = |rows: Range<usize>, from: usize, count: usize| {
        let columns = qkv.clone().slice([rows.clone(), from * head_dim..(from + count) * head_dim]);
        columns.reshape([rows.len(), count, head_dim]) // [rows, heads, head_dim]
    };
    let place = |x: Tensor<3>, rows: Range<usize>, norm: Option<(&Tensor<1>, f64)>| {
        let x = match norm {
            Some((gain, eps)) => rms_norm(x, gain.clone(), eps),
            None => x,
        };
        let x = match &before.rotary {
            Some((cos, sin)) => rotary(x, cos.clone().slice_dim(0, rows.clone()), sin.clone().slice_dim(0, rows)),
            None => x,
        };
        x.swap_dims(0, 1)
    };
    // Each head of keys and values, as often as heads of queries share it.
    let shared = |x: Tensor<3>| {
        let [_, rows, _] = x.dims();
        let x = x.reshape([kv_heads, 1, rows, head_dim]).repeat_dim(1, heads / kv_heads);
        x.reshape([heads, rows, head_dim])
    };
    let norms = before.norms.as_ref();
    let (mut parts, mut done) = (Vec::new(), 0);
    for ((start, len), (_, seen)) in segments.iter().zip(segments.seen()) {
        let (keys, queries) = (start..start + seen, start + seen..start + len);
        if queries.is_empty() {
            continue;
        }
        let query = cut(queries.clone(), 0, heads);
        let query = place(query, queries.clone(), norms.map(|(query, _, eps)| (query, *eps)));
        let key = cut(keys.clone(), heads, kv_heads);
        let key = shared(place(key, keys.clone(), norms.map(|(_, key, eps)| (key, *eps))));
        let value = shared(cut(keys.clone(), heads + kv_heads, kv_heads).swap_dims(0, 1));
        let scores = query.matmul(key.swap_dims(1, 2)) / (head_dim as f64).sqrt(); // [heads, queries, keys]
        let scores = match before.window {
            Some(window) => scores + beyond(queries.clone(), keys, window, &qkv.device()),
            None => scores,
        };
        let context = softmax(scores, 2).matmul(value); // [heads, queries, head_dim]
        parts.push(whole.clone().slice_dim(0, done..queries.start));
        parts.push(context.swap_dims(0, 1).reshape([queries.len(), heads * head_dim]));
        done = queries.end;
    }
    if done < segments.rows() {
        parts.push(whole.slice_dim(0, done..segments.rows()));
    }
    Tensor::cat(parts, 0)
}

/// What is added to scores so that no query sees a key further away than `window`, `[1, queries, keys]`.
///
/// # Panics
/// Where a query sees none.
fn beyond(queries: Range<usize>, keys: Range<usize>, window: usize, device: &Device) -> Tensor<3> {
    let shape = [1, queries.len(), keys.len()];
    assert!(queries.end - keys.end <= window, "every row sees a key");
    let far = |query: usize, key: usize| if query - key > window { f32::NEG_INFINITY } else { 0.0 };
    let values = queries.flat_map(|query| keys.clone().map(move |key| far(query, key))).collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}
