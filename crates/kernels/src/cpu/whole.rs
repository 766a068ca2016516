//! Products of rows of whole numbers with affine groups, and affine groups as f32 panels.
//!
//! The arithmetic, the same for every set of instructions and any number of rows: a row is whole numbers `x` of 15 bits and a
//! scale. With `m` half of the codes and `centre = offset + m * scale`, a group adds first `f32(Σ x (code - m)) * scale` and
//! then `f32(Σ x) * centre` to the sum of f32, each product and each sum rounded once; the row's scale comes last. The sums of
//! whole numbers are exact: 64 products of 15 bits and 8 stay below 2^30. Nothing is fused, so that the portable body gives
//! the same bits.

use std::mem::MaybeUninit;

use super::Isa;
use super::affine::AffineFormat;
use super::aligned::OnLine;
use super::pack::{HEAD, LINE};
use super::simd::{LANES, Portable, Simd};
use super::tile::{by_size, for_tiles, prefetch};

/// Sixteen whole numbers of 32 bits, and how each set of instructions multiplies pairs of 16 bits.
///
/// # Safety
/// Methods may be called only where the instructions of the implementing set are there, which [`with`] guarantees. Pointers
/// must be valid for a line; none needs alignment.
unsafe trait Whole: Copy {
    /// The same columns as f32.
    type Floats: Simd;
    /// Sixteen pairs of 16 bits: a line of codes, or one of its parts.
    type Pairs: Copy;
    /// Rows up to which codes are taken out of their lines while they are multiplied; more rows find them taken out.
    const FEW_ROWS: usize;
    /// Rows of a tile.
    const TILE_ROWS: usize;
    /// Panels of a tile.
    const TILE_PANELS: usize;

    /// All alike.
    unsafe fn splat(value: i32) -> Self;
    /// A line.
    unsafe fn load(from: *const u8) -> Self::Pairs;
    /// The same to memory.
    unsafe fn store(pairs: Self::Pairs, to: *mut u8);
    /// Every 16 bits moved down by 0, 4, 8 or 12 bits.
    unsafe fn down<const BITS: usize>(pairs: Self::Pairs) -> Self::Pairs;
    /// Every 16 bits with the bits of a mask.
    unsafe fn and(pairs: Self::Pairs, mask: i16) -> Self::Pairs;
    /// Adds the products of two numbers of a row with each pair.
    unsafe fn add_products(self, row: i32, columns: Self::Pairs) -> Self;
    /// The first of each pair, and the second.
    unsafe fn halves(pairs: Self::Pairs) -> (Self, Self);
    /// Rounded to f32, ties to even.
    unsafe fn to_f32(self) -> Self::Floats;
}

// SAFETY: no instructions are asked for; pointers are used as the trait says.
unsafe impl Whole for [i32; LANES] {
    type Floats = Portable;
    type Pairs = [[i16; 2]; LANES];
    const FEW_ROWS: usize = 4;
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Pairs {
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }.map(|pair| pair.map(i16::from_le))
    }
    #[inline(always)]
    unsafe fn store(pairs: Self::Pairs, to: *mut u8) {
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs.map(|pair| pair.map(i16::to_le))) }
    }
    #[inline(always)]
    unsafe fn down<const BITS: usize>(pairs: Self::Pairs) -> Self::Pairs {
        pairs.map(|pair| pair.map(|value| (value as u16 >> BITS) as i16))
    }
    #[inline(always)]
    unsafe fn and(pairs: Self::Pairs, mask: i16) -> Self::Pairs {
        pairs.map(|pair| pair.map(|value| value & mask))
    }
    #[inline(always)]
    unsafe fn add_products(self, row: i32, columns: Self::Pairs) -> Self {
        let (one, two) = (i32::from(row as i16), row >> 16);
        let mut out = self;
        for (sum, [first, second]) in out.iter_mut().zip(columns) {
            *sum += one * i32::from(first) + two * i32::from(second);
        }
        out
    }
    #[inline(always)]
    unsafe fn halves(pairs: Self::Pairs) -> (Self, Self) {
        (pairs.map(|[first, _]| i32::from(first as u16)), pairs.map(|[_, second]| i32::from(second as u16)))
    }
    #[inline(always)]
    unsafe fn to_f32(self) -> Portable {
        unsafe { Portable::load_i32_less(self.as_ptr(), 0) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Whole};
    use crate::cpu::simd::x86::{Avx2, Avx512};

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2<K: Kernel>(kernel: K) {
        unsafe { kernel.run::<Two>() }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn with_avx512<K: Kernel>(kernel: K) {
        unsafe { kernel.run::<One<false>>() }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn with_vnni<K: Kernel>(kernel: K) {
        unsafe { kernel.run::<One<true>>() }
    }

    /// One vector of 512 bits; with VNNI where `VNNI`.
    #[derive(Clone, Copy)]
    pub(super) struct One<const VNNI: bool>(__m512i);

    // SAFETY: called only inside `with_avx512` and `with_vnni`.
    unsafe impl<const VNNI: bool> Whole for One<VNNI> {
        type Floats = Avx512;
        type Pairs = __m512i;
        const FEW_ROWS: usize = 16;
        const TILE_ROWS: usize = 6;
        const TILE_PANELS: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: i32) -> Self {
            Self(unsafe { _mm512_set1_epi32(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(pairs: __m512i, to: *mut u8) {
            unsafe { _mm512_storeu_si512(to.cast(), pairs) }
        }
        #[inline(always)]
        unsafe fn down<const BITS: usize>(pairs: __m512i) -> __m512i {
            unsafe {
                match BITS {
                    0 => pairs,
                    4 => _mm512_srli_epi16::<4>(pairs),
                    8 => _mm512_srli_epi16::<8>(pairs),
                    _ => _mm512_srli_epi16::<12>(pairs),
                }
            }
        }
        #[inline(always)]
        unsafe fn and(pairs: __m512i, mask: i16) -> __m512i {
            unsafe { _mm512_and_si512(pairs, _mm512_set1_epi16(mask)) }
        }
        #[inline(always)]
        unsafe fn add_products(self, row: i32, columns: __m512i) -> Self {
            unsafe {
                let row = _mm512_set1_epi32(row);
                if VNNI {
                    return Self(_mm512_dpwssd_epi32(self.0, row, columns));
                }
                Self(_mm512_add_epi32(self.0, _mm512_madd_epi16(row, columns)))
            }
        }
        #[inline(always)]
        unsafe fn halves(pairs: __m512i) -> (Self, Self) {
            unsafe {
                let first = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff));
                (Self(first), Self(_mm512_srli_epi32::<16>(pairs)))
            }
        }
        #[inline(always)]
        unsafe fn to_f32(self) -> Avx512 {
            unsafe { Avx512(_mm512_cvtepi32_ps(self.0)) }
        }
    }

    /// Two vectors of 256 bits.
    #[derive(Clone, Copy)]
    pub(super) struct Two(__m256i, __m256i);

    // SAFETY: called only inside `with_avx2`.
    unsafe impl Whole for Two {
        type Floats = Avx2;
        type Pairs = (__m256i, __m256i);
        // Eight sums, two columns, two products and a row's pair in 16 registers.
        const FEW_ROWS: usize = 4;
        const TILE_ROWS: usize = 4;
        const TILE_PANELS: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: i32) -> Self {
            unsafe { Self(_mm256_set1_epi32(value), _mm256_set1_epi32(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u8) -> Self::Pairs {
            unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
        }
        #[inline(always)]
        unsafe fn store(pairs: Self::Pairs, to: *mut u8) {
            unsafe {
                _mm256_storeu_si256(to.cast(), pairs.0);
                _mm256_storeu_si256(to.add(32).cast(), pairs.1);
            }
        }
        #[inline(always)]
        unsafe fn down<const BITS: usize>(pairs: Self::Pairs) -> Self::Pairs {
            unsafe {
                match BITS {
                    0 => pairs,
                    4 => (_mm256_srli_epi16::<4>(pairs.0), _mm256_srli_epi16::<4>(pairs.1)),
                    8 => (_mm256_srli_epi16::<8>(pairs.0), _mm256_srli_epi16::<8>(pairs.1)),
                    _ => (_mm256_srli_epi16::<12>(pairs.0), _mm256_srli_epi16::<12>(pairs.1)),
                }
            }
        }
        #[inline(always)]
        unsafe fn and(pairs: Self::Pairs, mask: i16) -> Self::Pairs {
            unsafe {
                let mask = _mm256_set1_epi16(mask);
                (_mm256_and_si256(pairs.0, mask), _mm256_and_si256(pairs.1, mask))
            }
        }
        #[inline(always)]
        unsafe fn add_products(self, row: i32, columns: Self::Pairs) -> Self {
            unsafe {
                let row = _mm256_set1_epi32(row);
                Self(
                    _mm256_add_epi32(self.0, _mm256_madd_epi16(row, columns.0)),
                    _mm256_add_epi32(self.1, _mm256_madd_epi16(row, columns.1)),
                )
            }
        }
        #[inline(always)]
        unsafe fn halves(pairs: Self::Pairs) -> (Self, Self) {
            unsafe {
                let low = _mm256_set1_epi32(0xffff);
                let first = Self(_mm256_and_si256(pairs.0, low), _mm256_and_si256(pairs.1, low));
                (first, Self(_mm256_srli_epi32::<16>(pairs.0), _mm256_srli_epi32::<16>(pairs.1)))
            }
        }
        #[inline(always)]
        unsafe fn to_f32(self) -> Avx2 {
            unsafe { Avx2::from_parts(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
        }
    }
}

/// Work that is compiled for each set of instructions.
trait Kernel {
    /// The body; must be `#[inline(always)]`.
    unsafe fn run<W: Whole>(self);
}

/// Runs a kernel with a set's whole numbers. NEON takes the portable body, AMX that of AVX512-VNNI.
///
/// # Safety
/// The set is available, and the kernel's own conditions hold.
#[inline]
unsafe fn with(isa: Isa, kernel: impl Kernel) {
    // SAFETY: the caller says the set is there.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 => x86::with_vnni(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::with_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::with_avx2(kernel),
            _ => kernel.run::<[i32; LANES]>(),
        }
    }
}

/// Rows of whole numbers times panels of affine groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupBlock {
    /// What the panels hold.
    pub format: AffineFormat,
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// Panels.
    pub panels: usize,
    /// Groups of a column.
    pub groups: usize,
    /// First number of the first row.
    pub a: *const i16,
    /// Between rows.
    pub lda: usize,
    /// What each group of a row begins with, less the middle code times the group's sum.
    pub starts: *const i32,
    /// The sum of each group of a row, as f32.
    pub sums: *const f32,
    /// Between rows of both.
    pub ldg: usize,
    /// First byte of the first panel.
    pub b: *const u8,
    /// Bytes between panels.
    pub panel: usize,
    /// Where the first result goes.
    pub c: *mut f32,
    /// Between rows.
    pub ldc: usize,
}

impl GroupBlock {
    /// Fewer rows and panels of it.
    #[inline(always)]
    unsafe fn part(self, row: usize, rows: usize, panel: usize, panels: usize) -> Self {
        unsafe {
            Self {
                rows,
                panels,
                a: self.a.add(row * self.lda),
                starts: self.starts.add(row * self.ldg),
                sums: self.sums.add(row * self.ldg),
                b: self.b.add(panel * self.panel),
                c: self.c.add(row * self.ldc + panel * LANES),
                ..self
            }
        }
    }

    /// Groups from `first` on.
    #[inline(always)]
    unsafe fn skip_groups(self, first: usize, groups: usize) -> Self {
        unsafe {
            Self {
                groups,
                a: self.a.add(first * self.format.group()),
                starts: self.starts.add(first),
                sums: self.sums.add(first),
                b: self.b.add(first * self.format.block_bytes()),
                ..self
            }
        }
    }
}

/// Bytes of a panel asked for before they are needed, where it is read once.
const AHEAD: usize = 4096;
/// Rows of a matrix whose codes are taken out at once.
const DEPTH: usize = 256;
/// Panels taken out at once.
const PANELS: usize = 4;
/// The smallest group.
const LEAST_GROUP: usize = 32;

/// `c` = rows times panels, without the rows' scales.
///
/// # Safety
/// `isa` is available; the pointers are valid for the sizes, `c` for each row's and panel's sixteen results.
pub(super) unsafe fn group_block(isa: Isa, block: GroupBlock) {
    unsafe {
        match block.format.bits() {
            8 => with(isa, Groups::<8>(block)),
            _ => with(isa, Groups::<4>(block)),
        }
    }
}

struct Groups<const BITS: usize>(GroupBlock);

impl<const BITS: usize> Kernel for Groups<BITS> {
    #[inline(always)]
    unsafe fn run<W: Whole>(self) {
        let block = self.0;
        unsafe {
            if block.rows <= W::FEW_ROWS {
                for_tiles!(block, W::FEW_ROWS, 1, |t| by_size!(t, few_tile, [W, BITS], true));
                return;
            }
            let mut codes = OnLine([MaybeUninit::<u8>::uninit(); PANELS * DEPTH * LANES * 2]);
            let mut heads = OnLine([MaybeUninit::<f32>::uninit(); PANELS * DEPTH / LEAST_GROUP * 2 * LANES]);
            let (codes, heads) = (codes.0.as_mut_ptr().cast::<u8>(), heads.0.as_mut_ptr().cast::<f32>());
            let most = DEPTH / block.format.group();
            let mut panel = 0;
            while panel < block.panels {
                let panels = PANELS.min(block.panels - panel);
                let mut first = 0;
                while first < block.groups {
                    let groups = most.min(block.groups - first);
                    let part = block.part(0, block.rows, panel, panels).skip_groups(first, groups);
                    take_out::<W, BITS>(&part, codes, heads);
                    let panel = groups * block.format.group() * LANES * 2;
                    let taken = Taken { block: GroupBlock { b: codes, panel, ..part }, heads, accumulate: first > 0 };
                    if W::TILE_PANELS == 1 {
                        for_tiles!(taken, W::TILE_ROWS, 1, |t| by_size!(t, taken_tile, [W], false));
                    } else {
                        for_tiles!(taken, W::TILE_ROWS, W::TILE_PANELS, |t| by_size!(t, taken_tile, [W], true));
                    }
                    first += groups;
                }
                panel += panels;
            }
        }
    }
}

/// Scales and centres of a group's columns.
#[inline(always)]
unsafe fn head<F: Simd>(block: *const u8, format: AffineFormat) -> (F, F) {
    unsafe {
        let scale = F::load_f16(block.cast());
        let offset = F::load_f16(block.add(2 * LANES).cast());
        (scale, offset.add(scale.mul(F::splat(format.middle() as f32))))
    }
}

/// The codes of a part of a line.
#[inline(always)]
unsafe fn codes<W: Whole, const BITS: usize, const PART: usize>(line: W::Pairs) -> W::Pairs {
    unsafe {
        if BITS == 8 {
            return if PART == 0 { W::and(line, 0xff) } else { W::down::<8>(line) };
        }
        match PART {
            0 => W::and(line, 0xf),
            1 => W::and(W::down::<4>(line), 0xf),
            2 => W::and(W::down::<8>(line), 0xf),
            _ => W::down::<12>(line),
        }
    }
}

/// Two numbers of a row.
#[inline(always)]
unsafe fn pair(a: *const i16) -> i32 {
    unsafe { a.cast::<i32>().read_unaligned() }
}

/// Adds a group's sums to a row's result.
#[inline(always)]
unsafe fn add_group<W: Whole>(c: *mut f32, first: bool, whole: W, sum: f32, (scale, centre): (W::Floats, W::Floats)) {
    unsafe {
        let before = if first { W::Floats::splat(0.0) } else { W::Floats::load(c) };
        let first = before.add(whole.to_f32().mul(scale));
        first.add(W::Floats::splat(sum).mul(centre)).store(c);
    }
}

/// A few rows times one panel, its codes taken out of their lines on the way.
#[inline(always)]
unsafe fn few_tile<W: Whole, const BITS: usize, const R: usize, const P: usize>(t: GroupBlock) {
    unsafe {
        let line_rows = t.format.line_rows();
        let lines = t.format.group() / line_rows;
        let (mut a, mut b) = (t.a, t.b);
        for group in 0..t.groups {
            let head = head::<W::Floats>(b, t.format);
            let mut sums = [W::splat(0); R];
            for r in 0..R {
                sums[r] = W::splat(*t.starts.add(r * t.ldg + group));
            }
            b = b.add(HEAD);
            for _ in 0..lines {
                prefetch(b.wrapping_add(AHEAD));
                let line = W::load(b);
                let part = codes::<W, BITS, 0>(line);
                for r in 0..R {
                    sums[r] = sums[r].add_products(pair(a.add(r * t.lda)), part);
                }
                let part = codes::<W, BITS, 1>(line);
                for r in 0..R {
                    sums[r] = sums[r].add_products(pair(a.add(r * t.lda + 2)), part);
                }
                if BITS == 4 {
                    let part = codes::<W, BITS, 2>(line);
                    for r in 0..R {
                        sums[r] = sums[r].add_products(pair(a.add(r * t.lda + 4)), part);
                    }
                    let part = codes::<W, BITS, 3>(line);
                    for r in 0..R {
                        sums[r] = sums[r].add_products(pair(a.add(r * t.lda + 6)), part);
                    }
                }
                a = a.add(line_rows);
                b = b.add(LINE);
            }
            for r in 0..R {
                add_group(t.c.add(r * t.ldc), group == 0, sums[r], *t.sums.add(r * t.ldg + group), head);
            }
        }
    }
}

/// Codes as pairs of 16 bits, a pair of rows a line, and scales and centres as f32.
#[inline(always)]
unsafe fn take_out<W: Whole, const BITS: usize>(t: &GroupBlock, codes_to: *mut u8, heads_to: *mut f32) {
    unsafe {
        let lines = t.format.group() / t.format.line_rows();
        let (mut to, mut heads) = (codes_to, heads_to);
        for panel in 0..t.panels {
            let mut b = t.b.add(panel * t.panel);
            for _ in 0..t.groups {
                let (scale, centre) = head::<W::Floats>(b, t.format);
                scale.store(heads);
                centre.store(heads.add(LANES));
                heads = heads.add(2 * LANES);
                b = b.add(HEAD);
                for _ in 0..lines {
                    prefetch(b.wrapping_add(AHEAD));
                    let line = W::load(b);
                    W::store(codes::<W, BITS, 0>(line), to);
                    W::store(codes::<W, BITS, 1>(line), to.add(LINE));
                    to = to.add(2 * LINE);
                    if BITS == 4 {
                        W::store(codes::<W, BITS, 2>(line), to);
                        W::store(codes::<W, BITS, 3>(line), to.add(LINE));
                        to = to.add(2 * LINE);
                    }
                    b = b.add(LINE);
                }
            }
        }
    }
}

/// A block whose codes are taken out.
#[derive(Clone, Copy)]
struct Taken {
    block: GroupBlock,
    /// Scales and centres, `[panels, groups, 2, 16]`.
    heads: *const f32,
    /// Whether the sums begin with what `c` holds.
    accumulate: bool,
}

impl std::ops::Deref for Taken {
    type Target = GroupBlock;
    fn deref(&self) -> &GroupBlock {
        &self.block
    }
}

impl Taken {
    #[inline(always)]
    unsafe fn part(self, row: usize, rows: usize, panel: usize, panels: usize) -> Self {
        unsafe {
            let heads = self.heads.add(panel * self.block.groups * 2 * LANES);
            Self { block: self.block.part(row, rows, panel, panels), heads, ..self }
        }
    }
}

/// Some rows times some panels whose codes are taken out.
#[inline(always)]
unsafe fn taken_tile<W: Whole, const R: usize, const P: usize>(t: Taken) {
    unsafe {
        let GroupBlock { format, groups, lda, starts, sums: group_sums, ldg, panel, c, ldc, .. } = t.block;
        let (mut a, mut b) = (t.block.a, t.block.b);
        for group in 0..groups {
            let mut sums = [[W::splat(0); P]; R];
            for r in 0..R {
                sums[r] = [W::splat(*starts.add(r * ldg + group)); P];
            }
            for _ in 0..format.group() / 2 {
                let mut columns = [W::load(b); P];
                for p in 1..P {
                    columns[p] = W::load(b.add(p * panel));
                }
                for r in 0..R {
                    let pair = pair(a.add(r * lda));
                    for p in 0..P {
                        sums[r][p] = sums[r][p].add_products(pair, columns[p]);
                    }
                }
                a = a.add(2);
                b = b.add(LINE);
            }
            for p in 0..P {
                let head = t.heads.add((p * groups + group) * 2 * LANES);
                let head = (W::Floats::load(head), W::Floats::load(head.add(LANES)));
                for r in 0..R {
                    let first = group == 0 && !t.accumulate;
                    let sum = *group_sums.add(r * ldg + group);
                    add_group(c.add(r * ldc + p * LANES), first, sums[r][p], sum, head);
                }
            }
        }
    }
}

/// Panels of affine groups as panels of f32, `[groups * group, 16]` each.
///
/// # Numerics
/// `code * scale + offset`, rounded once: the product is exact.
/// # Safety
/// `isa` is available; `from` is valid for `panels` panels that lie `panel` bytes apart, `to` for their values.
pub(super) unsafe fn expand(
    isa: Isa,
    format: AffineFormat,
    [panels, groups]: [usize; 2],
    (from, panel): (*const u8, usize),
    to: *mut f32,
) {
    unsafe {
        match format.bits() {
            8 => with(isa, Expand::<8> { format, panels, groups, from, panel, to }),
            _ => with(isa, Expand::<4> { format, panels, groups, from, panel, to }),
        }
    }
}

struct Expand<const BITS: usize> {
    format: AffineFormat,
    panels: usize,
    groups: usize,
    from: *const u8,
    panel: usize,
    to: *mut f32,
}

impl<const BITS: usize> Kernel for Expand<BITS> {
    #[inline(always)]
    unsafe fn run<W: Whole>(self) {
        unsafe {
            let lines = self.format.group() / self.format.line_rows();
            let mut to = self.to;
            for panel in 0..self.panels {
                let mut b = self.from.add(panel * self.panel);
                for _ in 0..self.groups {
                    let scale = W::Floats::load_f16(b.cast());
                    let offset = W::Floats::load_f16(b.add(2 * LANES).cast());
                    b = b.add(HEAD);
                    for _ in 0..lines {
                        let line = W::load(b);
                        put_pair::<W>(codes::<W, BITS, 0>(line), scale, offset, to);
                        put_pair::<W>(codes::<W, BITS, 1>(line), scale, offset, to.add(2 * LANES));
                        to = to.add(4 * LANES);
                        if BITS == 4 {
                            put_pair::<W>(codes::<W, BITS, 2>(line), scale, offset, to);
                            put_pair::<W>(codes::<W, BITS, 3>(line), scale, offset, to.add(2 * LANES));
                            to = to.add(4 * LANES);
                        }
                        b = b.add(LINE);
                    }
                }
            }
        }
    }
}

/// Two rows of sixteen values.
#[inline(always)]
unsafe fn put_pair<W: Whole>(codes: W::Pairs, scale: W::Floats, offset: W::Floats, to: *mut f32) {
    unsafe {
        let (first, second) = W::halves(codes);
        first.to_f32().mul(scale).add(offset).store(to);
        second.to_f32().mul(scale).add(offset).store(to.add(LANES));
    }
}
