//! The door through which fused operations come, and the functions models call.

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

use crate::portable;
use crate::rectangle::Sight;
use crate::{Segments, Weight};

/// Operations of towers and backbones that a backend may fuse.
///
/// The default bodies are the portable ones and define the result; an override must agree with them within the bound
/// its tests state, and must give a row the same value whatever rows lie beside it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "gpu"),
)]
pub trait TowerOps: Backend {
    /// See [`linear`], without a bias.
    #[fusion(default)]
    fn tower_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::linear::<Self>(x, weight)
    }

    /// See [`linear`], with a bias. Its own method, because extensions route no optional tensor (burn 0.22).
    #[fusion(default)]
    fn tower_linear_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::add_bias::<Self>(Self::tower_linear(x, weight), bias)
    }

    /// See [`rms_norm`].
    #[fusion(default)]
    fn tower_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        portable::rms_norm::<Self>(x, weight, eps)
    }

    /// See [`layer_norm`].
    #[fusion(default)]
    fn tower_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        portable::layer_norm::<Self>(x, weight, bias, eps)
    }

    /// See [`rotary`].
    #[fusion(default)]
    fn tower_rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::rotary::<Self>(x, cos, sin)
    }

    /// See [`swiglu`].
    #[fusion(default)]
    fn tower_swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::swiglu::<Self>(gate_up)
    }

    /// See [`gelu_tanh`].
    #[fusion(default)]
    fn tower_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::gelu_tanh::<Self>(x)
    }

    /// See [`gelu_erf`].
    #[fusion(default)]
    fn tower_gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::gelu_erf::<Self>(x)
    }

    /// Attention of equally long sequences.
    ///
    /// # Shapes
    /// - `query`: `[batch, heads, seq, head_dim]`; `key`, `value`: `[batch, kv_heads, seq, head_dim]`
    /// - returns: as `query`
    #[fusion(default)]
    fn tower_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        scale: f64,
        causal: bool,
    ) -> FloatTensor<Self> {
        portable::attention::<Self>(query, key, value, scale, causal)
    }

    /// The same, bidirectional, with an additive mask: minus infinity where a row is hidden, a bias where one is added.
    ///
    /// # Shapes
    /// - as [`TowerOps::tower_attention`]; `hidden`: `[batch, 1, 1, seq]`, or `[batch, 1, seq, seq]` where rows differ, or
    ///   `[batch, heads, seq, seq]` where heads do
    #[fusion(default)]
    fn tower_attention_hiding(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        portable::attention_hiding::<Self>(query, key, value, hidden, scale)
    }
}

/// Product with a stored matrix: `x @ weight + bias`.
///
/// # Shapes
/// - `x`: `[rows, inputs]`, f32; `weight`: `[inputs, outputs]`, f32, bf16 or f16; `bias`: `[outputs]`, f32
/// - returns: `[rows, outputs]`, f32
/// # Numerics
/// In the weight's dtype: rows are rounded to it before the product, and the product comes back to f32 before the
/// bias. f32 weights round nothing.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::tower_linear_bias(x, weight, bias.into_dispatch()),
        None => Dispatch::tower_linear(x, weight),
    })
}

/// RMSNorm over the last axis: `x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Shapes
/// - `x`: `[.., width]`; `weight`: `[width]`; returns: as `x`
/// # Numerics
/// f32 throughout; the weight multiplies after the division.
/// # Source
/// transformers, `Qwen3RMSNorm.forward`; Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::tower_rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// [`rms_norm`] for a product with `weight`: in bf16 where that takes it.
///
/// # Shapes
/// - `x`: `[rows, width]`; returns: as `x`
pub fn rms_norm_for(x: Tensor<2>, gain: Tensor<1>, eps: f64, weight: &Weight) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if weight.takes_bf16()
        && let Some(normed) = crate::flex::low_norm(&x, &gain, None, eps)
    {
        return normed;
    }
    let _ = weight;
    rms_norm(x, gain, eps)
}

/// [`layer_norm`] for a product with `weight`: in bf16 where that takes it.
///
/// # Shapes
/// - `x`: `[rows, width]`; returns: as `x`
pub fn layer_norm_for(x: Tensor<2>, gain: Tensor<1>, bias: Tensor<1>, eps: f64, weight: &Weight) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if weight.takes_bf16()
        && let Some(normed) = crate::flex::low_norm(&x, &gain, Some(&bias), eps)
    {
        return normed;
    }
    let _ = weight;
    layer_norm(x, gain, bias, eps)
}

/// LayerNorm over the last axis with biased variance.
///
/// # Shapes
/// - `x`: `[.., width]`; `weight`, `bias`: `[width]`; returns: as `x`
/// # Numerics
/// f32 throughout.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::tower_layer_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps,
    ))
}

/// Rotate-half rotary embedding: `x * cos + rotate_half(x) * sin`, pairs `(i, i + head_dim/2)`.
///
/// # Shapes
/// - `x`: `[tokens, heads, head_dim]`; `cos`, `sin`: `[tokens, head_dim]`; returns: as `x`
/// # Source
/// Su et al. 2021 (arXiv 2104.09864); transformers, `apply_rotary_pos_emb`.
pub fn rotary(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::tower_rotary(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()))
}

/// Gate of a SwiGLU MLP: `silu(gate) * up`, where `gate` is the first half of the columns.
///
/// # Shapes
/// - `gate_up`: `[tokens, 2 * inner]`; returns: `[tokens, inner]`
/// # Source
/// Shazeer 2020 (arXiv 2002.05202).
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::tower_swiglu(gate_up.into_dispatch()))
}

/// GELU by its tanh form: `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
///
/// # Shapes
/// - `x`: any; returns: as `x`
/// # Source
/// Hendrycks and Gimpel 2016 (arXiv 1606.08415); torch `gelu(approximate="tanh")`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::tower_gelu_tanh(x.into_dispatch()))
}

/// GELU by the error function: `0.5 x (1 + erf(x / sqrt 2))`.
///
/// # Shapes
/// - `x`: any; returns: as `x`
/// # Source
/// Hendrycks and Gimpel 2016 (arXiv 1606.08415); torch `gelu()`.
pub fn gelu_erf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::tower_gelu_erf(x.into_dispatch()))
}

/// Scaled dot-product attention inside each segment of packed rows; rows of different segments never meet.
///
/// # Shapes
/// - `query`: `[tokens, heads, head_dim]`; `key`, `value`: `[tokens, kv_heads, head_dim]`
/// - returns: `[tokens, heads, head_dim]`
/// # Numerics
/// Scores and softmax in f32; `causal` hides later rows of the same segment. Query head `j` reads key head
/// `j / (heads / kv_heads)`. What comes out for padding means nothing.
/// # Panics
/// If the segments do not cover the rows.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    segments: &Segments,
    scale: f64,
    causal: bool,
) -> Tensor<3> {
    let [tokens, _, _] = query.dims();
    assert_eq!(segments.rows(), tokens, "segments must cover the rows");
    assert_eq!(query.dtype(), DType::F32, "attention computes in f32");
    #[cfg(feature = "flex")]
    if let Some(context) = crate::flex::separate(&query, &key, &value, segments, scale, causal) {
        return context;
    }
    let sight = if causal { Sight::Earlier } else { Sight::All };
    crate::rectangle::attention(&query, &key, &value, segments, scale, sight, None)
}
