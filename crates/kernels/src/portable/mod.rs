//! The portable bodies: generic over any backend, and the definition every override is held to.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, FloatDType, Shape, Slice};

/// `x @ weight + bias` in the weight's dtype, see [`crate::linear`].
pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    match weight.dtype() {
        DType::F32 => B::float_matmul(x, weight),
        low => {
            let rounded = B::float_cast(x, FloatDType::from(low));
            B::float_cast(B::float_matmul(rounded, weight), FloatDType::F32)
        }
    }
}

/// Adds a bias to every row, see [`crate::linear`].
pub fn add_bias<B: Backend>(product: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(product, as_row::<B>(bias, 2))
}

/// See [`crate::rms_norm`].
pub fn rms_norm<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let rank = x.shape().num_dims();
    let square = B::float_mul(x.clone(), x.clone());
    let mean = B::float_mean_dim(square, rank - 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    B::float_mul(B::float_mul(x, scale), as_row::<B>(weight, rank))
}

/// See [`crate::layer_norm`].
pub fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    B::layer_norm(x, weight, Some(bias), eps)
}

/// See [`crate::rotary`].
pub fn rotary<B: Backend>(x: FloatTensor<B>, cos: FloatTensor<B>, sin: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let (tokens, head_dim) = (shape[0], shape[2]);
    let table = |t: FloatTensor<B>| B::float_reshape(t, Shape::from([tokens, 1, head_dim]));
    let (low, high) = halves::<B>(x.clone());
    let rotated = B::float_cat(vec![B::float_neg(high), low], 2);
    B::float_add(B::float_mul(x, table(cos)), B::float_mul(rotated, table(sin)))
}

/// See [`crate::swiglu`].
pub fn swiglu<B: Backend>(gate_up: FloatTensor<B>) -> FloatTensor<B> {
    let (gate, up) = halves::<B>(gate_up);
    B::float_mul(B::float_mul(gate.clone(), B::sigmoid(gate)), up)
}

/// See [`crate::gelu_tanh`].
pub fn gelu_tanh<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let cube = B::float_mul(B::float_mul(x.clone(), x.clone()), x.clone());
    let inner = B::float_add(x.clone(), B::float_mul_scalar(cube, 0.044_715.into()));
    let sqrt_2_over_pi = core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
    let tanh = B::float_tanh(B::float_mul_scalar(inner, sqrt_2_over_pi.into()));
    B::float_mul(B::float_mul_scalar(x, 0.5.into()), B::float_add_scalar(tanh, 1.0.into()))
}

/// See [`crate::gelu_erf`].
pub fn gelu_erf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x.clone(), core::f64::consts::FRAC_1_SQRT_2.into()));
    B::float_mul(B::float_mul_scalar(x, 0.5.into()), B::float_add_scalar(erf, 1.0.into()))
}

/// See [`crate::TowerOps::tower_attention`]; keys and values are repeated here, because only flex takes fewer of them
/// (burn 0.22: CubeCL's fallback panics, its flash kernels read the wrong heads).
///
/// The scale is always given, which on CubeCL selects the composed route: the fused one may compute f32 through f16
/// fragments.
pub fn attention<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    scale: f64,
    causal: bool,
) -> FloatTensor<B> {
    let heads = query.shape()[1];
    let options = AttentionModuleOptions { scale: Some(scale), softcap: None, is_causal: causal };
    B::attention(query, repeat_heads::<B>(key, heads), repeat_heads::<B>(value, heads), None, None, options)
}

/// See [`crate::TowerOps::tower_attention_hiding`].
pub fn attention_hiding<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    hidden: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let heads = query.shape()[1];
    let options = AttentionModuleOptions { scale: Some(scale), softcap: None, is_causal: false };
    B::attention(query, repeat_heads::<B>(key, heads), repeat_heads::<B>(value, heads), None, Some(hidden), options)
}

fn repeat_heads<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let (batch, kv_heads, seq, head_dim) = (shape[0], shape[1], shape[2], shape[3]);
    if kv_heads == heads {
        return x;
    }
    let group = heads / kv_heads;
    let x = B::float_reshape(x, Shape::from([batch, kv_heads, 1, seq, head_dim]));
    let x = B::float_expand(x, Shape::from([batch, kv_heads, group, seq, head_dim]));
    B::float_reshape(x, Shape::from([batch, heads, seq, head_dim]))
}

/// `[width]` as `[1, .., width]`, ready to broadcast over `rank` axes.
fn as_row<B: Backend>(x: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let width = x.shape()[0];
    let mut shape = vec![1; rank];
    shape[rank - 1] = width;
    B::float_reshape(x, Shape::from(shape))
}

/// The two halves of the last axis.
fn halves<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let rank = shape.num_dims();
    let half = shape[rank - 1] / 2;
    let cut = |from: usize, to: usize| {
        let mut slices: Vec<Slice> = (0..rank).map(|_| Slice::from(..)).collect();
        slices[rank - 1] = Slice::from(from..to);
        slices
    };
    (B::float_slice(x.clone(), &cut(0, half)), B::float_slice(x, &cut(half, 2 * half)))
}
