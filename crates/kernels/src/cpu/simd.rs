//! Sixteen f32 side by side, and how each set of instructions computes with them.
//!
//! A kernel is written once against [`Simd`] and runs through [`vectorize`], which enters a function compiled for the
//! chosen instructions; everything below it must be `#[inline(always)]`, because a function of its own (a closure given
//! to another thread is one) would be compiled without them. So threads are outside, instructions inside.

use super::Isa;
use super::affine::from_f16;

/// Values in one vector of every kernel: a panel of a packed matrix is as wide.
pub const LANES: usize = 16;

/// Sixteen f32.
///
/// # Safety
/// Every method may be called only where the instructions of the implementing set are there, which [`vectorize`]
/// guarantees. Pointers must be valid for sixteen values (or as many as a method says); none needs alignment.
pub unsafe trait Simd: Copy {
    /// Rows of a tile of products.
    const TILE_ROWS: usize;
    /// Panels of sixteen columns in a tile of products.
    const TILE_PANELS: usize;

    /// All values alike.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen values.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` values, zeros behind them; reads no more.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;
    /// Writes sixteen values.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` values and no more.
    unsafe fn store_part(self, to: *mut f32, count: usize);
    /// Sixteen bf16 as f32.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Rounds to bf16, ties to even; NaN stays NaN.
    unsafe fn store_bf16(self, to: *mut u16);
    /// Sixteen pairs of bf16: the first of each pair, and the second.
    unsafe fn load_bf16_pairs(from: *const u16) -> (Self, Self);
    /// Sixteen f16 as f32.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Sixteen signed bytes as f32.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// Sixteen whole numbers less one, the differences as f32.
    unsafe fn load_i32_less(from: *const i32, less: i32) -> Self;
    /// `self * factor + addend`, rounded once where the instructions have it.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Sum.
    unsafe fn add(self, other: Self) -> Self;
    /// Difference.
    unsafe fn sub(self, other: Self) -> Self;
    /// Product.
    unsafe fn mul(self, other: Self) -> Self;
    /// Quotient.
    unsafe fn div(self, other: Self) -> Self;
    /// The larger one, NaN of `self` kept.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller one, NaN of `self` kept.
    unsafe fn min(self, other: Self) -> Self;
    /// `2^n` for whole numbers from -127 to 127 given as f32 (0 at -127).
    unsafe fn exp2_whole(self) -> Self;
    /// To the nearest whole number, ties to even, for values below 2^22.
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding 1.5 * 2^23 leaves no bits behind the point; the sum rounds to nearest even.
        unsafe {
            let shift = Self::splat(12_582_912.0);
            self.add(shift).sub(shift)
        }
    }
    /// The sum of all sixteen, in a fixed order: neighbours eight apart, four, two, one.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut values = [0.0_f32; LANES];
        unsafe { self.store(values.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                values[i] += values[i + width];
            }
            width /= 2;
        }
        values[0]
    }
    /// The largest of all sixteen; whether a NaN counts is left open.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut values = [0.0_f32; LANES];
        unsafe { self.store(values.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                values[i] = if values[i + width] > values[i] { values[i + width] } else { values[i] };
            }
            width /= 2;
        }
        values[0]
    }
}

/// Work that is compiled for each set of instructions.
pub trait Vectorized {
    /// What comes of it.
    type Output;
    /// The body; must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The instructions of `V` are there, and whatever the implementer asks of its pointers holds.
    unsafe fn run<V: Simd>(self) -> Self::Output;
}

/// Runs a kernel with the vectors of a set of instructions.
///
/// # Safety
/// The set is available on this machine, and the kernel's own conditions hold.
#[inline]
pub unsafe fn vectorize<K: Vectorized>(isa: Isa, kernel: K) -> K::Output {
    // SAFETY: the caller says the set is there.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => x86::with_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::with_avx2(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => kernel.run::<neon::Neon>(),
            _ => kernel.run::<Portable>(),
        }
    }
}

/// The plain body: an array, left to the compiler.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out)
    }
}

/// One value rounded to bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        // Quiet, with the sign kept: cutting the low half could leave an infinity.
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16) as u16
}

/// A bf16 as f32, exactly.
#[inline(always)]
pub fn from_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

// SAFETY: no instructions are asked for; pointers are used as the trait says.
unsafe impl Simd for Portable {
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut out = [0.0; LANES];
        for (i, value) in out.iter_mut().enumerate().take(count) {
            *value = unsafe { from.add(i).read_unaligned() };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for (i, value) in self.0.into_iter().enumerate().take(count) {
            unsafe { to.add(i).write_unaligned(value) };
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(from_bf16))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(self.0.map(to_bf16)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(from: *const u16) -> (Self, Self) {
        let pairs = unsafe { from.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        (Self(pairs.map(|[first, _]| from_bf16(first))), Self(pairs.map(|[_, second]| from_bf16(second))))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        Self(unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(|bits| from_f16(u16::from_le(bits))))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        Self(unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn load_i32_less(from: *const i32, less: i32) -> Self {
        Self(unsafe { from.cast::<[i32; LANES]>().read_unaligned() }.map(|value| (value - less) as f32))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a call for each value.
        let mut out = addend.0;
        for ((sum, a), b) in out.iter_mut().zip(self.0).zip(factor.0) {
            *sum += a * b;
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32)))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd, Vectorized};

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn with_avx512<K: Vectorized>(kernel: K) -> K::Output {
        unsafe { kernel.run::<Avx512>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2<K: Vectorized>(kernel: K) -> K::Output {
        unsafe { kernel.run::<Avx2>() }
    }

    /// One vector of 512 bits.
    #[derive(Clone, Copy)]
    pub struct Avx512(pub(crate) __m512);

    #[inline(always)]
    pub(crate) fn mask(count: usize) -> __mmask16 {
        ((1_u32 << count.min(LANES)) - 1) as __mmask16
    }

    // SAFETY: called only inside `with_avx512`.
    unsafe impl Simd for Avx512 {
        // Twenty-four sums, four columns and a row's value in 32 registers; ten loads feed 24 products.
        const TILE_ROWS: usize = 6;
        const TILE_PANELS: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Self {
            if count == LANES {
                return unsafe { Self::load(from) };
            }
            Self(unsafe { _mm512_maskz_loadu_ps(mask(count), from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_part(self, to: *mut f32, count: usize) {
            // A masked store is not forwarded to the load after it (measured on Zen 5: three quarters of a short attention
            // went there).
            if count == LANES {
                return unsafe { self.store(to) };
            }
            unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
            }
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
                let chosen = _mm512_mask_blend_epi32(nan, rounded, quiet);
                _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(chosen)));
            }
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(from: *const u16) -> (Self, Self) {
            unsafe {
                let pairs = _mm512_loadu_si512(from.cast());
                let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                (Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))), Self(_mm512_castsi512_ps(second)))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
        }
        #[inline(always)]
        unsafe fn load_i32_less(from: *const i32, less: i32) -> Self {
            unsafe {
                let values = _mm512_loadu_si512(from.cast());
                Self(_mm512_cvtepi32_ps(_mm512_sub_epi32(values, _mm512_set1_epi32(less))))
            }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // The instruction returns its second operand where one is NaN.
            Self(unsafe { _mm512_max_ps(other.0, self.0) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(other.0, self.0) })
        }
        #[inline(always)]
        unsafe fn exp2_whole(self) -> Self {
            unsafe {
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
            }
        }
    }

    /// Two vectors of 256 bits.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    impl Avx2 {
        #[inline(always)]
        unsafe fn each(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
            Self(f(self.0, other.0), f(self.1, other.1))
        }

        /// Of its two vectors.
        #[inline(always)]
        pub(crate) fn from_parts(first: __m256, second: __m256) -> Self {
            Self(first, second)
        }
    }

    // SAFETY: called only inside `with_avx2`.
    unsafe impl Simd for Avx2 {
        // Twelve sums of eight, two columns and a row's value in 16 registers.
        const TILE_ROWS: usize = 6;
        const TILE_PANELS: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Self {
            if count == LANES {
                return unsafe { Self::load(from) };
            }
            let mut values = [0.0_f32; LANES];
            for (i, value) in values.iter_mut().enumerate().take(count) {
                *value = unsafe { from.add(i).read_unaligned() };
            }
            unsafe { Self::load(values.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn store_part(self, to: *mut f32, count: usize) {
            if count == LANES {
                return unsafe { self.store(to) };
            }
            let mut values = [0.0_f32; LANES];
            unsafe { self.store(values.as_mut_ptr()) };
            for (i, value) in values.into_iter().enumerate().take(count) {
                unsafe { to.add(i).write_unaligned(value) };
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let half = |at: *const u16| {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                };
                Self(half(from), half(from.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            unsafe {
                let half = |x: __m256| {
                    let bits = _mm256_castps_si256(x);
                    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
                    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
                    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
                    _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
                };
                // Packing works inside each half of 128 bits: the middle quarters are exchanged afterwards.
                let packed = _mm256_packus_epi32(half(self.0), half(self.1));
                _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
            }
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(from: *const u16) -> (Self, Self) {
            unsafe {
                let (one, two) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast()));
                let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                let first = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
                let second = |x| _mm256_castsi256_ps(_mm256_and_si256(x, high));
                (Self(first(one), first(two)), Self(second(one), second(two)))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            unsafe {
                // Finite ones alone, which is all that records hold: the exponent's bias is 112 less than that of f32. Not by
                // F16C, which is an instruction set of its own.
                let half = |at: *const u16| {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                    let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(wide, _mm256_set1_epi32(0x8000)));
                    let size = _mm256_slli_epi32::<13>(_mm256_and_si256(wide, _mm256_set1_epi32(0x7fff)));
                    let size = _mm256_mul_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(f32::from_bits(239 << 23)));
                    _mm256_or_ps(size, _mm256_castsi256_ps(sign))
                };
                Self(half(from), half(from.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            unsafe {
                let half = |at: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())));
                Self(half(from), half(from.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn load_i32_less(from: *const i32, less: i32) -> Self {
            unsafe {
                let half = |at: *const i32| {
                    let values = _mm256_loadu_si256(at.cast());
                    _mm256_cvtepi32_ps(_mm256_sub_epi32(values, _mm256_set1_epi32(less)))
                };
                Self(half(from), half(from.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_add_ps(a, b)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_sub_ps(a, b)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_mul_ps(a, b)) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_div_ps(a, b)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_max_ps(b, a)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { self.each(other, |a, b| _mm256_min_ps(b, a)) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(self) -> Self {
            unsafe {
                let half = |x| {
                    let n = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
                };
                Self(half(self.0), half(self.1))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use std::arch::aarch64::*;

    use super::{LANES, Simd, from_bf16, to_bf16};

    /// Four vectors of 128 bits.
    #[derive(Clone, Copy)]
    pub struct Neon([float32x4_t; 4]);

    impl Neon {
        #[inline(always)]
        fn each(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
            Self([0, 1, 2, 3].map(|i| f(self.0[i], other.0[i])))
        }
    }

    // SAFETY: every aarch64 target of Rust has these instructions.
    unsafe impl Simd for Neon {
        // Twenty-four sums of four, four columns and a row's value in 32 registers.
        const TILE_ROWS: usize = 6;
        const TILE_PANELS: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self([unsafe { vdupq_n_f32(value) }; 4])
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self([0, 4, 8, 12].map(|i| unsafe { vld1q_f32(from.add(i)) }))
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Self {
            if count == LANES {
                return unsafe { Self::load(from) };
            }
            let mut values = [0.0_f32; LANES];
            for (i, value) in values.iter_mut().enumerate().take(count) {
                *value = unsafe { from.add(i).read_unaligned() };
            }
            unsafe { Self::load(values.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            for (i, part) in self.0.into_iter().enumerate() {
                unsafe { vst1q_f32(to.add(4 * i), part) };
            }
        }
        #[inline(always)]
        unsafe fn store_part(self, to: *mut f32, count: usize) {
            if count == LANES {
                return unsafe { self.store(to) };
            }
            let mut values = [0.0_f32; LANES];
            unsafe { self.store(values.as_mut_ptr()) };
            for (i, value) in values.into_iter().enumerate().take(count) {
                unsafe { to.add(i).write_unaligned(value) };
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            Self([0, 4, 8, 12].map(|i| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.add(i)))) }))
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            let mut values = [0.0_f32; LANES];
            unsafe {
                self.store(values.as_mut_ptr());
                to.cast::<[u16; LANES]>().write_unaligned(values.map(to_bf16));
            }
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(from: *const u16) -> (Self, Self) {
            let pairs = [0, 8, 16, 24].map(|i| unsafe { vreinterpretq_u32_u16(vld1q_u16(from.add(i))) });
            let first = pairs.map(|x| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(x)) });
            let second = pairs.map(|x| unsafe { vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff_0000))) });
            (Self(first), Self(second))
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            let values = unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(super::from_f16);
            unsafe { Self::load(values.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            let values = unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from);
            unsafe { Self::load(values.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn load_i32_less(from: *const i32, less: i32) -> Self {
            let values = [0, 4, 8, 12].map(|i| unsafe { vsubq_s32(vld1q_s32(from.add(i)), vdupq_n_s32(less)) });
            Self(values.map(|x| unsafe { vcvtq_f32_s32(x) }))
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self([0, 1, 2, 3].map(|i| unsafe { vfmaq_f32(addend.0[i], self.0[i], factor.0[i]) }))
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vaddq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vsubq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vmulq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vdivq_f32(a, b) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(b, a), b, a) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            self.each(other, |a, b| unsafe { vbslq_f32(vcltq_f32(b, a), b, a) })
        }
        #[inline(always)]
        unsafe fn exp2_whole(self) -> Self {
            Self(self.0.map(|x| unsafe {
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(x), vdupq_n_s32(127))))
            }))
        }
    }

    const _: fn(u16) -> f32 = from_bf16;
}
