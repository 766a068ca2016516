//! Exponentials and activations of sixteen values.

use super::simd::Simd;

/// `e^x`: 0 below -88, 2.4e38 above 88.38, NaN for NaN; relative error under 2e-7.
///
/// # Source
/// Range reduction by Cody and Waite; the polynomial is that of Cephes `expf`.
#[inline(always)]
pub unsafe fn exp<V: Simd>(x: V) -> V {
    unsafe {
        let x = x.max(V::splat(-88.0)).min(V::splat(88.37));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, so that the product with n is exact in the first.
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut y = V::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
            y = y.mul_add(r, V::splat(c));
        }
        let y = y.mul_add(r.mul(r), r).add(V::splat(1.0));
        y.mul(n.exp2_whole())
    }
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub unsafe fn silu<V: Simd>(x: V) -> V {
    unsafe { x.div(V::splat(1.0).add(exp(V::splat(0.0).sub(x)))) }
}

/// `x / (1 + e^-2u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`, which is `0.5 x (1 + tanh u)`.
#[inline(always)]
pub unsafe fn gelu_tanh<V: Simd>(x: V) -> V {
    unsafe {
        let cube = x.mul(x).mul(x);
        let inner = cube.mul_add(V::splat(0.044_715), x);
        // -2 sqrt(2/pi)
        x.div(V::splat(1.0).add(exp(inner.mul(V::splat(-1.595_769)))))
    }
}

/// `x / (1 + e^-1.702x)`: GELU by a sigmoid.
///
/// # Source
/// Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2; the one of CLIP.
#[inline(always)]
pub unsafe fn gelu_quick<V: Simd>(x: V) -> V {
    unsafe { x.div(V::splat(1.0).add(exp(x.mul(V::splat(-1.702))))) }
}

/// `x Φ(x)` by the tail of the normal distribution: `Φ(-|x|) = e^(-x²/2) Q(t) / 2`, `t = 1 / (1 + 0.35 |x| / √2)`; absolute
/// error under 3e-7 for |x| below 9, where most of it is the rounding of the result.
///
/// # Source
/// The form of Abramowitz and Stegun 7.1.26 with seven coefficients, fitted to `scipy.special.erfcx` for the least largest
/// error of the product (6.4e-9 before rounding).
#[inline(always)]
pub unsafe fn gelu_erf<V: Simd>(x: V) -> V {
    unsafe {
        let size = x.max(V::splat(0.0).sub(x));
        let z = size.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = V::splat(1.0).div(z.mul_add(V::splat(0.35), V::splat(1.0)));
        let mut q = V::splat(-0.197_652_9);
        for c in [0.771_635_6, -0.680_870_24, 0.686_574_9, -0.010_698_331, 0.236_834_1, 0.194_176_9] {
            q = q.mul_add(t, V::splat(c));
        }
        let q = q.mul(t);
        let tail = exp(V::splat(0.0).sub(z.mul(z))).mul(q).mul(V::splat(0.5));
        x.max(V::splat(0.0)).sub(size.mul(tail))
    }
}

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub unsafe fn relu<V: Simd>(x: V) -> V {
    unsafe { x.max(V::splat(0.0)) }
}

/// `min(max(x, 0), 6)`; NaN stays NaN.
#[inline(always)]
pub unsafe fn relu6<V: Simd>(x: V) -> V {
    unsafe { x.max(V::splat(0.0)).min(V::splat(6.0)) }
}
