//! Products of a few rows with a few panels: the innermost loops.
//!
//! A panel is sixteen columns of the right-hand matrix, one row of them after the other ([`super::pack`]). Whatever the
//! tile, an element is the same sum in the same order, from the first row of the panel to the last: the rows beside it
//! change nothing, and neither does cutting the sum into pieces, because a piece begins with what the one before wrote.

use super::Isa;
use super::simd::{LANES, Simd, Vectorized, vectorize};

/// `c = a · b` or `c += a · b` for some rows and up to four panels.
///
/// `A` is what a row of `a` holds and `B` what a panel does; `lda` counts `A`s between rows, `panel` counts `B`s between
/// panels, `ldc` counts elements between rows of `c`.
#[derive(Debug)]
pub struct Block<A, B, C = f32> {
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// Panels of `b`.
    pub panels: usize,
    /// Length of the sums; a multiple of what the kernel takes at once.
    pub depth: usize,
    /// First value of the first row.
    pub a: *const A,
    /// Between rows.
    pub lda: usize,
    /// First value of the first panel.
    pub b: *const B,
    /// Between panels.
    pub panel: usize,
    /// Where the first sum goes.
    pub c: *mut C,
    /// Between rows.
    pub ldc: usize,
    /// Whether the sums begin with what `c` holds.
    pub accumulate: bool,
    /// Panels that are needed next, laid out like these: asked for while these are at work; null if there are
    /// none. Any address is allowed.
    pub next: *const B,
}

impl<A, B, C> Clone for Block<A, B, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, B, C> Copy for Block<A, B, C> {}

impl<A, B, C> Block<A, B, C> {
    /// Fewer rows and panels of it.
    #[inline(always)]
    pub(super) unsafe fn part(self, row: usize, rows: usize, panel: usize, panels: usize) -> Self {
        unsafe {
            Self {
                rows,
                panels,
                a: self.a.add(row * self.lda),
                b: self.b.add(panel * self.panel),
                c: self.c.add(row * self.ldc + panel * LANES),
                ..self
            }
        }
    }
}

/// Cuts a block into tiles of so many rows and panels. A macro and not a function with a closure: a closure that is not
/// inlined is compiled without the vectors around it (measured: a hundredth of the speed).
macro_rules! for_tiles {
    ($block:expr, $most_rows:expr, $most_panels:expr, |$t:ident| $tile:expr) => {{
        let block = $block;
        let (height, width) = ($most_rows, $most_panels);
        let mut panel = 0;
        while panel < block.panels {
            let panels = width.min(block.panels - panel);
            let mut row = 0;
            while row < block.rows {
                let rows = height.min(block.rows - row);
                let $t = block.part(row, rows, panel, panels);
                $tile;
                row += rows;
            }
            panel += panels;
        }
    }};
}
pub(super) use for_tiles;

/// What the panels of a matrix hold, seen by the generic kernel.
trait Panel: Copy {
    /// Rows of the panel taken at once.
    const STEP: usize;
    /// One step: each row's values times the panel's, added to the sums.
    unsafe fn step<V: Simd, const R: usize, const P: usize>(
        a: *const f32,
        lda: usize,
        b: *const Self,
        panel: usize,
        sums: &mut [[V; P]; R],
    );
}

impl Panel for f32 {
    const STEP: usize = 1;
    #[inline(always)]
    unsafe fn step<V: Simd, const R: usize, const P: usize>(
        a: *const f32,
        lda: usize,
        b: *const f32,
        panel: usize,
        sums: &mut [[V; P]; R],
    ) {
        unsafe {
            let mut columns = [V::splat(0.0); P];
            for p in 0..P {
                columns[p] = V::load(b.add(p * panel));
            }
            for r in 0..R {
                let value = V::splat(*a.add(r * lda));
                for p in 0..P {
                    sums[r][p] = value.mul_add(columns[p], sums[r][p]);
                }
            }
        }
    }
}

/// A bf16, the first or second of a pair.
pub type Bf16Bits = u16;

impl Panel for Bf16Bits {
    const STEP: usize = 2;
    #[inline(always)]
    unsafe fn step<V: Simd, const R: usize, const P: usize>(
        a: *const f32,
        lda: usize,
        b: *const u16,
        panel: usize,
        sums: &mut [[V; P]; R],
    ) {
        unsafe {
            let mut columns = [(V::splat(0.0), V::splat(0.0)); P];
            for p in 0..P {
                columns[p] = V::load_bf16_pairs(b.add(p * panel));
            }
            for r in 0..R {
                let (one, two) = (V::splat(*a.add(r * lda)), V::splat(*a.add(r * lda + 1)));
                for p in 0..P {
                    sums[r][p] = one.mul_add(columns[p].0, sums[r][p]);
                    sums[r][p] = two.mul_add(columns[p].1, sums[r][p]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn float_tile<V: Simd, B: Panel, const R: usize, const P: usize>(t: Block<f32, B>) {
    unsafe {
        let mut sums = [[V::splat(0.0); P]; R];
        if t.accumulate {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = V::load(t.c.add(r * t.ldc + p * LANES));
                }
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        let mut left = t.depth;
        while left >= B::STEP {
            if P == 1 && V::TILE_PANELS > 1 {
                prefetch(b.cast::<u8>().wrapping_add(AHEAD));
            }
            B::step::<V, R, P>(a, t.lda, b, t.panel, &mut sums);
            a = a.add(B::STEP);
            b = b.add(B::STEP * LANES);
            left -= B::STEP;
        }
        for r in 0..R {
            for p in 0..P {
                sums[r][p].store(t.c.add(r * t.ldc + p * LANES));
            }
        }
    }
}

/// Calls a tile function with its number of rows and panels as constants. A column of one panel may be up to sixteen rows
/// high; heights that are not listed are made of two.
macro_rules! by_size {
    ($t:expr, $body:ident, [$($generic:tt),*], $wide:expr) => {{
        let t = $t;
        match (t.rows, t.panels) {
            (1, 1) => $body::<$($generic,)* 1, 1>(t),
            (2, 1) => $body::<$($generic,)* 2, 1>(t),
            (3, 1) => $body::<$($generic,)* 3, 1>(t),
            (4, 1) => $body::<$($generic,)* 4, 1>(t),
            (5, 1) => $body::<$($generic,)* 5, 1>(t),
            (6, 1) => $body::<$($generic,)* 6, 1>(t),
            (rows, 1) if $wide => {
                let (first, rest) = match rows {
                    16 => (16, 0),
                    12..=15 => (12, rows - 12),
                    8..=11 => (8, rows - 8),
                    _ => (6, rows - 6),
                };
                let head = t.part(0, first, 0, 1);
                match first {
                    16 => $body::<$($generic,)* 16, 1>(head),
                    12 => $body::<$($generic,)* 12, 1>(head),
                    8 => $body::<$($generic,)* 8, 1>(head),
                    _ => $body::<$($generic,)* 6, 1>(head),
                }
                let tail = t.part(first, rest, 0, 1);
                match rest {
                    0 => {}
                    1 => $body::<$($generic,)* 1, 1>(tail),
                    2 => $body::<$($generic,)* 2, 1>(tail),
                    _ => $body::<$($generic,)* 3, 1>(tail),
                }
            }
            (rows, panels) if $wide => {
                macro_rules! rows_of {
                    ($p:literal) => {
                        match rows {
                            1 => $body::<$($generic,)* 1, $p>(t),
                            2 => $body::<$($generic,)* 2, $p>(t),
                            3 => $body::<$($generic,)* 3, $p>(t),
                            4 => $body::<$($generic,)* 4, $p>(t),
                            5 => $body::<$($generic,)* 5, $p>(t),
                            _ => $body::<$($generic,)* 6, $p>(t),
                        }
                    };
                }
                match panels {
                    2 => rows_of!(2),
                    3 => rows_of!(3),
                    _ => rows_of!(4),
                }
            }
            _ => unreachable!("tiles are cut to the sizes of their instructions"),
        }
    }};
}

pub(super) use by_size;

/// Rows up to which a block is a column of single panels, so that they are read from memory once and in order, where
/// registers allow.
const FEW: usize = 16;
/// Bytes of a panel asked for before they are needed, where it is read once. Measured on Zen 5, 16 rows of bf16 from memory,
/// one thread: 9.5 GB/s without, 13 at 1 KiB, 20 at 4, 24 at 8, which is what the memory gives.
const AHEAD: usize = 8192;

/// Asks for a line of memory; any address is allowed.
#[inline(always)]
pub(super) fn prefetch(_at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches nothing, and every x86-64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(_at.cast());
    }
}

struct FloatBlock<B>(Block<f32, B>);

impl<B: Panel> Vectorized for FloatBlock<B> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        unsafe {
            if V::TILE_PANELS == 1 {
                for_tiles!(self.0, V::TILE_ROWS, 1, |t| by_size!(t, float_tile, [V, B], false));
            } else if self.0.rows <= FEW {
                for_tiles!(self.0, FEW, 1, |t| by_size!(t, float_tile, [V, B], true));
            } else {
                for_tiles!(self.0, V::TILE_ROWS, V::TILE_PANELS, |t| by_size!(t, float_tile, [V, B], true));
            }
        }
    }
}

/// f32 rows times f32 panels.
///
/// # Safety
/// `isa` is available; the block's pointers are valid for its sizes.
#[inline]
pub unsafe fn f32_block(isa: Isa, block: Block<f32, f32>) {
    unsafe { vectorize(isa, FloatBlock(block)) }
}

/// f32 rows times bf16 panels, whose values become f32 in registers; `depth` is even.
///
/// # Safety
/// As [`f32_block`].
#[inline]
pub unsafe fn mixed_block(isa: Isa, block: Block<f32, Bf16Bits>) {
    unsafe { vectorize(isa, FloatBlock(block)) }
}

/// bf16 rows times bf16 panels with f32 sums, pairs at once; `depth` is even, on AMX a multiple of 32.
///
/// # Safety
/// `isa` is [`Isa::Avx512Bf16`] or [`Isa::Amx`] and available; the block's pointers are valid for its sizes.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn bf16_block(isa: Isa, block: Block<Bf16Bits, Bf16Bits>) {
    unsafe {
        // Few rows too: the two round differently, and a row must not know how many lie beside it.
        if isa == Isa::Amx {
            super::amx::block(block);
        } else {
            pairs::block(block);
        }
    }
}

/// Signed bytes of rows times bytes of panels that stand for signed ones with 128 added, in whole numbers; `depth` is a
/// multiple of 64. Exact, and so the same everywhere.
///
/// # Safety
/// As [`f32_block`].
#[inline]
pub unsafe fn byte_block(isa: Isa, block: Block<i8, u8, i32>) {
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if super::amx::has_int8() => super::amx::block(block),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 => bytes::block(block),
            _ => vectorize(isa, PlainBytes(block)),
        }
    }
}

/// The plain body of whole numbers, compiled with the vectors of each set.
struct PlainBytes(Block<i8, u8, i32>);

impl Vectorized for PlainBytes {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let t = self.0;
        unsafe {
            for p in 0..t.panels {
                for r in 0..t.rows {
                    let c = t.c.add(r * t.ldc + p * LANES);
                    let mut sums = if t.accumulate { c.cast::<[i32; LANES]>().read_unaligned() } else { [0; LANES] };
                    for k in (0..t.depth).step_by(4) {
                        let x = t.a.add(r * t.lda + k).cast::<[i8; 4]>().read_unaligned().map(i32::from);
                        let w = t.b.add(p * t.panel + k * LANES).cast::<[[u8; 4]; LANES]>().read_unaligned();
                        for (sum, w) in sums.iter_mut().zip(w) {
                            for i in 0..4 {
                                *sum += x[i] * i32::from(w[i]);
                            }
                        }
                    }
                    c.cast::<[i32; LANES]>().write_unaligned(sums);
                }
            }
        }
    }
}

/// AVX512-BF16.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::*;

    use super::{AHEAD, Bf16Bits, Block, FEW, LANES, prefetch};

    /// How far ahead each panel is asked for.
    trait Ahead {
        const BYTES: usize;
    }

    /// One panel, read once.
    struct Column;
    impl Ahead for Column {
        const BYTES: usize = AHEAD;
    }

    /// Four panels, read a few times. 16 to 32 rows of the small family take 0.90 to 0.92 of the time that they take
    /// without; 64 rows would take 1.2 times as long, because what is asked for drives out what is used again.
    struct Few;
    impl Ahead for Few {
        const BYTES: usize = AHEAD / 4;
    }

    /// Panels that mostly lie in the caches.
    struct Many;
    impl Ahead for Many {
        const BYTES: usize = 0;
    }

    #[inline(always)]
    unsafe fn tile<A: Ahead, const R: usize, const P: usize>(t: Block<Bf16Bits, Bf16Bits>) {
        unsafe { asking_tile::<A, R, P>(t, 0) }
    }

    /// A tile that asks for so many lines of each of the next panels, from `t.next` on.
    #[inline(always)]
    unsafe fn asking_tile<A: Ahead, const R: usize, const P: usize>(t: Block<Bf16Bits, Bf16Bits>, lines: usize) {
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); P]; R];
            if t.accumulate {
                for r in 0..R {
                    for p in 0..P {
                        sums[r][p] = _mm512_loadu_ps(t.c.add(r * t.ldc + p * LANES));
                    }
                }
            }
            let (mut a, mut b) = (t.a, t.b);
            for step in 0..t.depth / 2 {
                let mut columns = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    columns[p] = _mm512_loadu_si512(b.add(p * t.panel).cast());
                }
                if step < lines {
                    for p in 0..P {
                        _mm_prefetch::<_MM_HINT_T1>(t.next.wrapping_add(p * t.panel + step * 2 * LANES).cast());
                    }
                }
                if A::BYTES > 0 {
                    for p in 0..P {
                        prefetch(b.add(p * t.panel).cast::<u8>().wrapping_add(A::BYTES));
                    }
                }
                for r in 0..R {
                    let pair = _mm512_set1_epi32(a.add(r * t.lda).cast::<i32>().read_unaligned());
                    let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
                    for p in 0..P {
                        let column = std::mem::transmute::<__m512i, __m512bh>(columns[p]);
                        sums[r][p] = _mm512_dpbf16_ps(sums[r][p], pair, column);
                    }
                }
                a = a.add(2);
                b = b.add(2 * LANES);
            }
            for r in 0..R {
                for p in 0..P {
                    _mm512_storeu_ps(t.c.add(r * t.ldc + p * LANES), sums[r][p]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn block(block: Block<Bf16Bits, Bf16Bits>) {
        unsafe {
            if block.rows <= FEW {
                for_tiles!(block, FEW, 1, |t| by_size!(t, tile, [Column], true));
            } else if block.rows <= 2 * FEW {
                for_tiles!(block, 6, 4, |t| by_size!(t, tile, [Few], true));
            } else {
                let tiles = block.rows.div_ceil(6);
                let mut i = 0;
                for_tiles!(block, 6, 4, |t| {
                    if (t.rows, t.panels) == (6, 4) && !t.next.is_null() {
                        let steps = t.depth / 2;
                        let (first, end) = (steps * i / tiles, steps * (i + 1) / tiles);
                        let t = Block { next: t.next.wrapping_add(first * 2 * LANES), ..t };
                        asking_tile::<Many, 6, 4>(t, end - first);
                    } else {
                        by_size!(t, tile, [Many], true);
                    }
                    i += 1;
                });
            }
        }
    }
}

/// AVX512-VNNI.
#[cfg(target_arch = "x86_64")]
mod bytes {
    use std::arch::x86_64::*;

    use super::{AHEAD, Block, FEW, LANES, prefetch};

    #[inline(always)]
    unsafe fn tile<const R: usize, const P: usize>(t: Block<i8, u8, i32>) {
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); P]; R];
            if t.accumulate {
                for r in 0..R {
                    for p in 0..P {
                        sums[r][p] = _mm512_loadu_si512(t.c.add(r * t.ldc + p * LANES).cast());
                    }
                }
            }
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.depth / 4 {
                let mut columns = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    columns[p] = _mm512_loadu_si512(b.add(p * t.panel).cast());
                }
                if P == 1 {
                    prefetch(b.cast::<u8>().wrapping_add(AHEAD));
                }
                for r in 0..R {
                    let four = _mm512_set1_epi32(a.add(r * t.lda).cast::<i32>().read_unaligned());
                    for p in 0..P {
                        sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], columns[p], four);
                    }
                }
                a = a.add(4);
                b = b.add(4 * LANES);
            }
            for r in 0..R {
                for p in 0..P {
                    _mm512_storeu_si512(t.c.add(r * t.ldc + p * LANES).cast(), sums[r][p]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn block(block: Block<i8, u8, i32>) {
        unsafe {
            // Two parts a row: up to 32 rows. Each column but the first finds its panel in the first cache; 20 and 32 rows
            // of the small family take 0.85 and 0.92 of the time that tiles take.
            if block.rows <= 4 * FEW {
                for_tiles!(block, FEW, 1, |t| by_size!(t, tile, [], true));
            } else {
                for_tiles!(block, 6, 4, |t| by_size!(t, tile, [], true));
            }
        }
    }
}
