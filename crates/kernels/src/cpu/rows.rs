//! Norms, rotary and activations: one pass over rows.

use std::mem::MaybeUninit;

use super::Isa;
use super::linear::{Activation, Out, Target};
use super::math;
use super::parallel::parallel_ranges;
use super::simd::{LANES, Simd, Vectorized, vectorize};

/// The sum of squares of `count` values.
///
/// # Safety
/// `from` holds as many.
#[inline(always)]
pub unsafe fn sum_of_squares<V: Simd>(from: *const f32, count: usize) -> f32 {
    unsafe {
        let mut sum = V::splat(0.0);
        for i in (0..count).step_by(LANES) {
            let x = V::load_part(from.add(i), LANES.min(count - i));
            sum = x.mul_add(x, sum);
        }
        sum.sum()
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` of each row.
///
/// # Panics
/// If a length is not what the others say.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, mut out: Out) {
    norm(isa, x, weight, None, eps, &mut out);
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` of each row, biased variance.
///
/// # Panics
/// If a length is not what the others say.
pub fn layer_norm(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, mut out: Out) {
    assert_eq!(bias.len(), weight.len(), "bias of a norm");
    norm(isa, x, weight, Some(bias), eps, &mut out);
}

fn norm(isa: Isa, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut Out) {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width) && x.len() == out.len(), "rows of a norm");
    let out = Target::new(out);
    parallel_ranges(x.len() / width, width, |first, end| {
        // SAFETY: the set is available; each task writes rows of its own, inside what was checked.
        unsafe { vectorize(isa, Norm { x, weight, bias, eps, out, first, end }) }
    });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    out: Target,
    first: usize,
    end: usize,
}

impl Vectorized for Norm<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let width = self.weight.len();
        for row in self.first..self.end {
            unsafe {
                let from = self.x.as_ptr().add(row * width);
                let part = |i: usize| V::load_part(from.add(i), LANES.min(width - i));
                let Some(bias) = self.bias else {
                    let factor = V::splat(1.0 / (sum_of_squares::<V>(from, width) / width as f32 + self.eps).sqrt());
                    for i in (0..width).step_by(LANES) {
                        let count = LANES.min(width - i);
                        let gain = V::load_part(self.weight.as_ptr().add(i), count);
                        self.out.put(part(i).mul(factor).mul(gain), row * width + i, count);
                    }
                    continue;
                };
                let mut sum = V::splat(0.0);
                for i in (0..width).step_by(LANES) {
                    sum = sum.add(part(i));
                }
                let mean = sum.sum() / width as f32;
                let mut squares = V::splat(0.0);
                for i in (0..width).step_by(LANES) {
                    let count = LANES.min(width - i);
                    // Behind the row's end the difference must be zero too.
                    let mut means = [mean; LANES];
                    means[count..].fill(0.0);
                    let x = part(i).sub(V::load(means.as_ptr()));
                    squares = x.mul_add(x, squares);
                }
                let factor = V::splat(1.0 / (squares.sum() / width as f32 + self.eps).sqrt());
                for i in (0..width).step_by(LANES) {
                    let count = LANES.min(width - i);
                    let gain = V::load_part(self.weight.as_ptr().add(i), count);
                    let shift = V::load_part(bias.as_ptr().add(i), count);
                    let x = part(i).sub(V::splat(mean)).mul(factor);
                    self.out.put(x.mul_add(gain, shift), row * width + i, count);
                }
            }
        }
    }
}

/// `activation(x + bias) + residual` of each row, where there is no packed product to do it after.
///
/// # Shapes
/// - `x`: `[rows, width]`; `bias`: `[width]`; `out`, `residual`: as `x`, or half as wide with SwiGLU
/// # Panics
/// If a length is not what the others say.
pub fn activate(
    isa: Isa,
    x: &[f32],
    width: usize,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    mut out: Out,
) {
    let narrow = if activation == Activation::SwiGlu { width / 2 } else { width };
    assert!(x.len().is_multiple_of(width) && x.len() / width * narrow == out.len(), "rows of an activation");
    assert!(bias.is_none_or(|bias| bias.len() == width), "bias of an activation");
    assert!(residual.is_none_or(|residual| residual.len() == out.len()), "residual of an activation");
    let out = Target::new(&mut out);
    // A row may be short and rows many, or the other way round: what is next to what does not matter here.
    parallel_ranges(x.len() / width, width, |first, end| {
        // SAFETY: the set is available; each task writes rows of its own, inside what was checked.
        unsafe { vectorize(isa, Activate { x, width, narrow, bias, activation, residual, out, first, end }) }
    });
}

struct Activate<'a> {
    x: &'a [f32],
    width: usize,
    narrow: usize,
    bias: Option<&'a [f32]>,
    activation: Activation,
    residual: Option<&'a [f32]>,
    out: Target,
    first: usize,
    end: usize,
}

impl Vectorized for Activate<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        for row in self.first..self.end {
            for i in (0..self.narrow).step_by(LANES) {
                let count = LANES.min(self.narrow - i);
                unsafe {
                    let part = |column: usize| {
                        let x = V::load_part(self.x.as_ptr().add(row * self.width + column), count);
                        match self.bias {
                            Some(bias) => x.add(V::load_part(bias.as_ptr().add(column), count)),
                            None => x,
                        }
                    };
                    let value = match self.activation {
                        Activation::None => part(i),
                        Activation::GeluTanh => math::gelu_tanh(part(i)),
                        Activation::GeluErf => math::gelu_erf(part(i)),
                        Activation::GeluQuick => math::gelu_quick(part(i)),
                        Activation::Relu => math::relu(part(i)),
                        Activation::Relu6 => math::relu6(part(i)),
                        Activation::SwiGlu => math::silu(part(i)).mul(part(self.narrow + i)),
                    };
                    let at = row * self.narrow + i;
                    let value = match self.residual {
                        Some(residual) => value.add(V::load_part(residual.as_ptr().add(at), count)),
                        None => value,
                    };
                    self.out.put(value, at, count);
                }
            }
        }
    }
}

/// Results of a kernel that writes every place of them.
pub fn written<T: Copy>(count: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(count);
    write(&mut out.spare_capacity_mut()[..count]);
    // SAFETY: kernels write every result.
    unsafe { out.set_len(count) };
    out
}
