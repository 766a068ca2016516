//! Products of rows with packed matrices, with what follows them done while a tile is at hand.

#[cfg(target_arch = "x86_64")]
use std::marker::PhantomData;
use std::mem::MaybeUninit;
#[cfg(target_arch = "x86_64")]
use std::ops::Range;

use super::Isa;
use super::affine::AffineFormat;
use super::aligned::{Aligned, OnLine};
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::math;
use super::pack::{ColumnOrder, Packed, PanelFormat};
use super::parallel::{Shared, parallel, parallel_ranges};
use super::simd::{LANES, Simd, Vectorized, to_bf16, vectorize};
use super::tile::{self, Block};
use super::whole::{self, GroupBlock};

/// Rows of a chunk: with four panels its sums take 48 KiB, and its rows stay in the second cache while they are used.
const CHUNK_ROWS: usize = 192;
/// Panels of a group.
const GROUP: usize = 4;
/// Length of a piece of the sums: four panels of bf16 take 32 KiB, which the first cache holds. Pieces of 512, 320 and 192
/// take 1.03, 1.02 and 0.99 to 1.02 times as long, once the next piece's panels are asked for.
const DEPTH: usize = 256;

/// Bytes of the rows of a chunk where tiles multiply: half of the second cache of every processor that has them.
#[cfg(target_arch = "x86_64")]
const TILE_CHUNK_BYTES: usize = 1 << 20;
/// Tasks a thread where tiles multiply.
#[cfg(target_arch = "x86_64")]
const RUNS: usize = 8;

/// What is done to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GELU by its tanh form.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// GELU by a sigmoid: `x / (1 + e^-1.702x)`.
    GeluQuick,
    /// No less than 0.
    Relu,
    /// Between 0 and 6.
    Relu6,
    /// The matrix is gate and up side by side; `silu(gate) * up`, half as wide.
    SwiGlu,
}

/// Rows, one after the other.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// f32.
    F32(&'a [f32]),
    /// bf16 bits.
    Bf16(&'a [u16]),
}

/// Where results go, one row after the other.
#[derive(Debug)]
pub enum Out<'a> {
    /// As f32.
    F32(&'a mut [MaybeUninit<f32>]),
    /// Rounded to bf16, ties to even.
    Bf16(&'a mut [MaybeUninit<u16>]),
}

impl Out<'_> {
    /// Results there is room for.
    pub(super) fn len(&self) -> usize {
        match self {
            Out::F32(out) => out.len(),
            Out::Bf16(out) => out.len(),
        }
    }
}

/// [`Out`] as threads share it: each writes results of its own.
#[derive(Clone, Copy)]
pub(super) enum Target {
    F32(Shared<f32>),
    Bf16(Shared<u16>),
}

impl Target {
    pub(super) fn new(out: &mut Out) -> Self {
        match out {
            Out::F32(out) => Target::F32(Shared::new(out.as_mut_ptr().cast())),
            Out::Bf16(out) => Target::Bf16(Shared::new(out.as_mut_ptr().cast())),
        }
    }

    /// Writes the first `count` values of a vector.
    #[inline(always)]
    pub(super) unsafe fn put<V: Simd>(self, value: V, at: usize, count: usize) {
        unsafe {
            match self {
                Target::F32(out) => value.store_part(out.at(at), count),
                Target::Bf16(out) if count == LANES => value.store_bf16(out.at(at)),
                Target::Bf16(out) => {
                    let mut rounded = [0_u16; LANES];
                    value.store_bf16(rounded.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(rounded.as_ptr(), out.at(at), count);
                }
            }
        }
    }
}

/// What follows a product, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[outputs]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// Then this.
    pub activation: Activation,
    /// As the result, added last.
    pub residual: Option<&'a [f32]>,
}

/// `activation(x @ weight + bias) + residual`.
///
/// With f32 panels the arithmetic is f32. With bf16 panels it is f32 too, unless `low` rounds the rows to bf16. With int8
/// panels each row becomes whole numbers of 15 bits and a scale, and the product is exact in them. With affine groups it
/// becomes such where `low`, and the product is exact within a group; else groups are brought to f32, a piece at a time.
///
/// # Shapes
/// - `x`: `[rows, inputs]`; `weight`: `[inputs, outputs]`; `out`, `residual`: `[rows, outputs]`, or half as wide with SwiGLU
/// # Panics
/// If a length is not what the sizes say.
pub fn linear(isa: Isa, x: Rows, rows: usize, weight: &Packed, low: bool, epilogue: Epilogue, mut out: Out) {
    let layout = *weight.layout();
    let width = match epilogue.activation {
        Activation::SwiGlu => layout.outputs / 2,
        _ => layout.outputs,
    };
    let given = match x {
        Rows::F32(x) => x.len(),
        Rows::Bf16(x) => x.len(),
    };
    let room = out.len();
    assert_eq!(given, rows * layout.inputs, "rows of a product");
    assert_eq!(room, rows * width, "results of a product");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == layout.outputs), "bias of a product");
    assert!(epilogue.residual.is_none_or(|residual| residual.len() == room), "residual of a product");
    let alternate = layout.order == ColumnOrder::GateUp;
    assert!(alternate || epilogue.activation != Activation::SwiGlu, "gate and up alternate");
    if rows == 0 {
        return;
    }
    let job = Job { isa, weight, rows, width, epilogue, out: Target::new(&mut out) };
    match layout.format {
        PanelFormat::F32 => {
            let x = x.to_f32(layout.inputs, layout.inputs, false);
            job.run(false, |block| {
                let a = &x[block.row * layout.inputs + block.start..];
                // SAFETY: sizes are checked above; the panels are as long as the layout says.
                unsafe { tile::f32_block(isa, block.of(a.as_ptr(), layout.inputs, weight.bytes().as_ptr().cast())) }
            });
        }
        PanelFormat::Bf16 => {
            let depth = layout.depth();
            #[cfg(target_arch = "x86_64")]
            if low && isa >= Isa::Avx512Bf16 {
                let x = x.to_bf16(isa, rows, layout.inputs, depth);
                if isa == Isa::Amx {
                    job.run_tiles::<_, tile::Bf16Bits, f32, 1, _>(&x, |sums, ldc| FloatSums { sums, ldc });
                    return;
                }
                job.run(false, |block| {
                    let a = &x[block.row * depth + block.start..];
                    // SAFETY: as above.
                    unsafe { tile::bf16_block(isa, block.of(a.as_ptr(), depth, weight.bytes().as_ptr().cast())) }
                });
                return;
            }
            let x = x.to_f32(layout.inputs, depth, low);
            job.run(false, |block| {
                let a = &x[block.row * depth + block.start..];
                // SAFETY: as above.
                unsafe { tile::mixed_block(isa, block.of(a.as_ptr(), depth, weight.bytes().as_ptr().cast())) }
            });
        }
        PanelFormat::Int8 => {
            let x = x.to_f32(layout.inputs, layout.inputs, false);
            job.run_bytes(&Quantized::new(isa, &x, rows, layout.inputs, layout.depth()));
        }
        PanelFormat::Affine(format) if low => {
            let x = x.to_f32(layout.inputs, layout.inputs, false);
            job.run_groups(format, &WholeRows::new(isa, &x, rows, layout.inputs, format));
        }
        PanelFormat::Affine(format) => {
            let depth = layout.depth();
            let x = x.to_f32(layout.inputs, depth, false);
            job.run(true, |piece| {
                let mut panels = OnLine([MaybeUninit::<f32>::uninit(); GROUP * DEPTH * LANES]);
                let panels = panels.0.as_mut_ptr().cast::<f32>();
                let first = piece.panel * layout.panel_values() + piece.start / format.group() * format.block_bytes();
                let sizes = [piece.panels, piece.depth / format.group()];
                let block = Block {
                    rows: piece.rows,
                    panels: piece.panels,
                    depth: piece.depth,
                    a: x[piece.row * depth + piece.start..].as_ptr(),
                    lda: depth,
                    b: panels.cast_const(),
                    panel: piece.depth * LANES,
                    c: piece.sums,
                    ldc: GROUP * LANES,
                    accumulate: piece.start > 0,
                    next: std::ptr::null(),
                };
                // SAFETY: a piece is whole groups of the matrix and no longer than there is room for; the rest as above.
                unsafe {
                    whole::expand(
                        isa,
                        format,
                        sizes,
                        (weight.bytes()[first..].as_ptr(), layout.panel_values()),
                        panels,
                    );
                    tile::f32_block(isa, block);
                }
            });
        }
    }
}

/// A piece of a block's sums.
struct Piece {
    row: usize,
    rows: usize,
    panel: usize,
    panels: usize,
    start: usize,
    depth: usize,
    panel_values: usize,
    /// Where the next piece's panels begin in the matrix.
    next: usize,
    sums: *mut f32,
}

impl Piece {
    /// The block of it, given its first row's values and the matrix.
    unsafe fn of<A, B>(&self, a: *const A, lda: usize, b: *const B) -> Block<A, B> {
        Block {
            rows: self.rows,
            panels: self.panels,
            depth: self.depth,
            a,
            lda,
            b: unsafe { b.add(self.panel * self.panel_values + self.start * LANES) },
            panel: self.panel_values,
            c: self.sums,
            ldc: GROUP * LANES,
            accumulate: self.start > 0,
            next: b.wrapping_add(self.next),
        }
    }
}

/// Rows of a chunk: no more than `most` (at least one step), in chunks of about one size, each but the last a multiple of
/// `step`.
#[cfg(target_arch = "x86_64")]
fn even_chunk(rows: usize, most: usize, step: usize) -> usize {
    let most = (most / step).max(1) * step;
    rows.div_ceil(rows.div_ceil(most)).next_multiple_of(step)
}

struct Job<'a> {
    isa: Isa,
    weight: &'a Packed,
    rows: usize,
    width: usize,
    epilogue: Epilogue<'a>,
    out: Target,
}

impl Job<'_> {
    /// Every chunk of rows with every group of panels, each a task; neighbours share the panels.
    fn tasks(&self, chunk: usize, task: impl Fn(usize, usize, usize, usize) + Sync + Send) {
        let panels = self.weight.layout().panels();
        let (groups, chunks) = (panels.div_ceil(GROUP), self.rows.div_ceil(chunk));
        parallel(groups * chunks, |i| {
            let (panel, row) = (i / chunks * GROUP, i % chunks * chunk);
            task(row, chunk.min(self.rows - row), panel, GROUP.min(panels - panel));
        });
    }

    /// `cut` cuts the sums of few rows, too.
    fn run(&self, cut: bool, product: impl Fn(&Piece) + Sync + Send) {
        let layout = self.weight.layout();
        self.tasks(CHUNK_ROWS, |row, rows, panel, panels| {
            let mut sums = OnLine([MaybeUninit::<f32>::uninit(); CHUNK_ROWS * GROUP * LANES]);
            let sums = sums.0.as_mut_ptr().cast::<f32>();
            // Few rows read each panel once: nothing is gained by cutting the sums.
            let most = if rows <= 16 && !cut { layout.depth() } else { DEPTH };
            let mut start = 0;
            while start < layout.depth() {
                let depth = most.min(layout.depth() - start);
                let panel_values = layout.panel_values();
                let next = match start + depth < layout.depth() {
                    true => panel * panel_values + (start + depth) * LANES,
                    false => (panel + GROUP) * panel_values,
                };
                product(&Piece { row, rows, panel, panels, start, depth, panel_values, next, sums });
                start += depth;
            }
            self.finish(row, rows, panel, panels, FloatSums { sums, ldc: GROUP * LANES });
        });
    }

    fn run_bytes(&self, x: &Quantized) {
        let layout = self.weight.layout();
        let depth = layout.depth();
        let scales = self.weight.scales();
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx && amx::has_int8() {
            self.run_tiles::<_, u8, i32, PARTS, _>(&x.codes, |sums, ldc| WholeSums { sums, ldc, x, scales });
            return;
        }
        self.tasks(CHUNK_ROWS / PARTS, |row, rows, panel, panels| {
            let mut sums = OnLine([MaybeUninit::<i32>::uninit(); CHUNK_ROWS * GROUP * LANES]);
            let sums = sums.0.as_mut_ptr().cast::<i32>();
            let block = Block {
                rows: PARTS * rows,
                panels,
                depth,
                a: x.codes[PARTS * row * depth..].as_ptr(),
                lda: depth,
                b: self.weight.bytes()[panel * layout.panel_values()..].as_ptr(),
                panel: layout.panel_values(),
                c: sums,
                ldc: GROUP * LANES,
                accumulate: false,
                next: std::ptr::null(),
            };
            // SAFETY: the rows and panels are as long as the layout says, the sums as many as the chunk has.
            unsafe { tile::byte_block(self.isa, block) }
            self.finish(row, rows, panel, panels, WholeSums { sums, ldc: GROUP * LANES, x, scales });
        });
    }

    /// On AMX: a block's sums stay in tiles over the whole depth, and what follows is done to them while the next block is
    /// multiplied. Tasks are runs of groups of panels beside as many rows as the second cache holds. A row is `PARTS` of `x`.
    #[cfg(target_arch = "x86_64")]
    fn run_tiles<A, B, C, const PARTS: usize, S>(&self, x: &[A], sums: impl Fn(*const C, usize) -> S + Sync + Send)
    where
        A: Sync,
        C: Copy,
        Block<A, B, C>: amx::Product,
        S: Sums,
    {
        let layout = self.weight.layout();
        let depth = layout.depth();
        let chunk = even_chunk(self.rows, TILE_CHUNK_BYTES / (PARTS * depth * size_of::<A>()), amx::ROWS / PARTS);
        let (chunks, groups) = (self.rows.div_ceil(chunk), layout.panels().div_ceil(GROUP));
        let runs = (RUNS * rayon::current_num_threads()).div_ceil(chunks).min(groups);
        parallel(chunks * runs, |i| {
            let (start, run) = (i / runs * chunk, i % runs);
            let groups = groups * run / runs..groups * (run + 1) / runs;
            let rows = PARTS * chunk.min(self.rows - start);
            let task = TileTask::<_, B, C, PARTS, _> {
                job: self,
                x: &x[PARTS * start * depth..],
                start,
                rows,
                groups,
                sums: &sums,
                panels: PhantomData,
            };
            // SAFETY: the set is available; rows and panels are as long as the layout says, and no other task writes these
            // results.
            unsafe { vectorize(self.isa, task) }
        });
    }

    fn run_groups(&self, format: AffineFormat, x: &WholeRows) {
        let layout = self.weight.layout();
        let (depth, groups) = (layout.depth(), layout.depth() / format.group());
        self.tasks(CHUNK_ROWS, |row, rows, panel, panels| {
            let mut sums = OnLine([MaybeUninit::<f32>::uninit(); CHUNK_ROWS * GROUP * LANES]);
            let sums = sums.0.as_mut_ptr().cast::<f32>();
            let block = GroupBlock {
                format,
                rows,
                panels,
                groups,
                a: x.codes[row * depth..].as_ptr(),
                lda: depth,
                starts: x.starts[row * groups..].as_ptr(),
                sums: x.sums[row * groups..].as_ptr(),
                ldg: groups,
                b: self.weight.bytes()[panel * layout.panel_values()..].as_ptr(),
                panel: layout.panel_values(),
                c: sums,
                ldc: GROUP * LANES,
            };
            // SAFETY: the rows and panels are as long as the layout says, the sums as many as the chunk has.
            unsafe { whole::group_block(self.isa, block) }
            self.finish(row, rows, panel, panels, ScaledSums { sums, scales: &x.scales });
        });
    }

    /// First column of a panel.
    fn column(&self, panel: usize) -> usize {
        match self.weight.layout().order {
            ColumnOrder::Plain => panel * LANES,
            ColumnOrder::GateUp => panel / 2 * LANES + panel % 2 * (self.weight.layout().outputs / 2),
        }
    }

    fn finish(&self, row: usize, rows: usize, panel: usize, panels: usize, sums: impl Sums) {
        let finish = Finish { job: self, row, rows, panel, panels, sums };
        // SAFETY: the set is available; the sums are a chunk's, and no other task writes these results.
        unsafe { vectorize(self.isa, finish) }
    }
}

/// A chunk of rows beside a run of groups of panels, on AMX.
#[cfg(target_arch = "x86_64")]
struct TileTask<'a, A, B, C, const PARTS: usize, F> {
    job: &'a Job<'a>,
    /// From the chunk's first row on.
    x: &'a [A],
    /// The chunk's first row.
    start: usize,
    /// Rows of the chunk in parts.
    rows: usize,
    groups: Range<usize>,
    /// The sums at a place with so many from row to row.
    sums: &'a F,
    panels: PhantomData<(B, C)>,
}

#[cfg(target_arch = "x86_64")]
impl<A, B, C: Copy, S: Sums, F: Fn(*const C, usize) -> S, const PARTS: usize> Vectorized
    for TileTask<'_, A, B, C, PARTS, F>
where
    Block<A, B, C>: amx::Product,
{
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let layout = self.job.weight.layout();
        let (depth, panel_bytes) = (layout.depth(), layout.panel_values() * size_of::<B>());
        let bytes = self.job.weight.bytes();
        let end = (self.groups.end * GROUP).min(layout.panels());
        let mut tiles = amx::Tiles::new();
        let mut buffer = OnLine([MaybeUninit::<C>::uninit(); amx::SUMS]);
        let c = buffer.0.as_mut_ptr().cast::<C>();
        for group in self.groups.map(|group| group * GROUP) {
            let width = GROUP.min(end - group);
            for row in (0..self.rows).step_by(amx::ROWS) {
                let height = amx::ROWS.min(self.rows - row);
                let widest = amx::widest(height);
                for panel in (group..group + width).step_by(widest) {
                    let block = Block {
                        rows: height,
                        panels: widest.min(group + width - panel),
                        depth,
                        a: self.x[row * depth..].as_ptr(),
                        lda: depth,
                        b: bytes[panel * panel_bytes..].as_ptr().cast(),
                        panel: layout.panel_values(),
                        c,
                        ldc: widest * LANES,
                        accumulate: false,
                        next: std::ptr::null(),
                    };
                    unsafe { amx::tile(&mut tiles, block) }
                    let (row, rows) = (self.start + row / PARTS, height / PARTS);
                    let sums = (self.sums)(block.c, block.ldc);
                    let finish = Finish { job: self.job, row, rows, panel, panels: block.panels, sums };
                    unsafe { finish.run::<V>() }
                }
            }
        }
    }
}

/// What a chunk's tiles left behind.
trait Sums {
    /// Sixteen products: row `r` and panel `p` of the chunk, which are row `row` and the columns from `column` on, of which
    /// `count` exist.
    unsafe fn get<V: Simd>(&self, r: usize, p: usize, row: usize, column: usize, count: usize) -> V;
}

/// The products themselves.
struct FloatSums {
    sums: *const f32,
    /// Between rows.
    ldc: usize,
}

impl Sums for FloatSums {
    #[inline(always)]
    unsafe fn get<V: Simd>(&self, r: usize, p: usize, _row: usize, _column: usize, _count: usize) -> V {
        unsafe { V::load(self.sums.add(r * self.ldc + p * LANES)) }
    }
}

/// Whole numbers in two parts, to be put together and scaled.
struct WholeSums<'a> {
    sums: *const i32,
    /// Between parts of rows.
    ldc: usize,
    x: &'a Quantized,
    /// Of columns.
    scales: &'a [f32],
}

impl WholeSums<'_> {
    #[inline(always)]
    unsafe fn part<V: Simd>(&self, i: usize, r: usize, p: usize, row: usize) -> V {
        unsafe {
            let from = self.sums.add((PARTS * r + i) * self.ldc + p * LANES);
            // 128 was added to every value of the matrix.
            V::load_i32_less(from, 128 * *self.x.sums.get_unchecked(PARTS * row + i))
        }
    }
}

impl Sums for WholeSums<'_> {
    #[inline(always)]
    unsafe fn get<V: Simd>(&self, r: usize, p: usize, row: usize, column: usize, count: usize) -> V {
        unsafe {
            let columns = V::load_part(self.scales.as_ptr().add(column), count);
            let whole = self.part::<V>(0, r, p, row).mul_add(V::splat(256.0), self.part::<V>(1, r, p, row));
            whole.mul(V::splat(*self.x.scales.get_unchecked(row)).mul(columns))
        }
    }
}

/// Products whose row's scale is missing.
struct ScaledSums<'a> {
    sums: *const f32,
    scales: &'a [f32],
}

impl Sums for ScaledSums<'_> {
    #[inline(always)]
    unsafe fn get<V: Simd>(&self, r: usize, p: usize, row: usize, _column: usize, _count: usize) -> V {
        unsafe { V::load(self.sums.add(r * GROUP * LANES + p * LANES)).mul(V::splat(*self.scales.get_unchecked(row))) }
    }
}

/// What follows a product, on a chunk of sums.
struct Finish<'a, S> {
    job: &'a Job<'a>,
    row: usize,
    rows: usize,
    panel: usize,
    panels: usize,
    sums: S,
}

// Methods and not closures, which would be compiled without the vectors around them where they are not inlined.
impl<S: Sums> Finish<'_, S> {
    /// Every row of every panel, after an activation.
    #[inline(always)]
    unsafe fn each<V: Simd, A: After>(&self) {
        let Epilogue { bias, residual, .. } = self.job.epilogue;
        let outputs = self.job.weight.layout().outputs;
        unsafe {
            for p in (0..self.panels).step_by(A::PANELS) {
                // What comes of two panels is as wide as one; their columns lie half of the matrix apart.
                let column = self.job.column(self.panel + p);
                let count = LANES.min(outputs - column);
                let second = (outputs / 2 + column) * (A::PANELS - 1);
                let (first, second) = (part::<V>(bias, column, count), part::<V>(bias, second, count));
                let place = match A::PANELS {
                    1 => column,
                    _ => (self.panel + p) / 2 * LANES,
                };
                for r in 0..self.rows {
                    let row = self.row + r;
                    let sum = self.sums.get::<V>(r, p, row, column, count);
                    let sum = added(sum, first);
                    let value = match A::PANELS {
                        1 => A::one(sum),
                        _ => A::two(sum, added(self.sums.get::<V>(r, p + 1, row, outputs / 2 + column, count), second)),
                    };
                    let at = row * self.job.width + place;
                    let value = match residual {
                        Some(residual) => value.add(V::load_part(residual.as_ptr().add(at), count)),
                        None => value,
                    };
                    self.job.out.put(value, at, count);
                }
            }
        }
    }
}

/// `count` values from a column on.
#[inline(always)]
unsafe fn part<V: Simd>(values: Option<&[f32]>, column: usize, count: usize) -> Option<V> {
    let values = values?;
    Some(unsafe { V::load_part(values.as_ptr().add(column), count) })
}

#[inline(always)]
unsafe fn added<V: Simd>(value: V, bias: Option<V>) -> V {
    match bias {
        Some(bias) => unsafe { value.add(bias) },
        None => value,
    }
}

/// An activation of one panel or of two.
trait After {
    const PANELS: usize = 1;
    #[inline(always)]
    unsafe fn one<V: Simd>(value: V) -> V {
        value
    }
    #[inline(always)]
    unsafe fn two<V: Simd>(first: V, _second: V) -> V {
        first
    }
}

struct Nothing;
impl After for Nothing {}

struct SwiGlu;
impl After for SwiGlu {
    const PANELS: usize = 2;
    #[inline(always)]
    unsafe fn two<V: Simd>(gate: V, up: V) -> V {
        unsafe { math::silu(gate).mul(up) }
    }
}

macro_rules! after {
    ($($name:ident, $function:ident;)*) => {
        $(struct $name;
        impl After for $name {
            #[inline(always)]
            unsafe fn one<V: Simd>(value: V) -> V {
                unsafe { math::$function(value) }
            }
        })*
    };
}

after! { GeluTanh, gelu_tanh; GeluErf, gelu_erf; GeluQuick, gelu_quick; Relu, relu; Relu6, relu6; }

impl<S: Sums> Vectorized for Finish<'_, S> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        unsafe {
            match self.job.epilogue.activation {
                Activation::None => self.each::<V, Nothing>(),
                Activation::GeluTanh => self.each::<V, GeluTanh>(),
                Activation::GeluErf => self.each::<V, GeluErf>(),
                Activation::GeluQuick => self.each::<V, GeluQuick>(),
                Activation::Relu => self.each::<V, Relu>(),
                Activation::Relu6 => self.each::<V, Relu6>(),
                Activation::SwiGlu => self.each::<V, SwiGlu>(),
            }
        }
    }
}

impl<'a> Rows<'a> {
    /// As f32 with rows padded by zeros, rounded to bf16 if asked.
    fn to_f32(self, inputs: usize, depth: usize, rounded: bool) -> std::borrow::Cow<'a, [f32]> {
        let pad = |values: Vec<f32>| {
            if inputs == depth {
                return values;
            }
            let mut padded = Vec::with_capacity(values.len() / inputs * depth);
            for row in values.chunks_exact(inputs) {
                padded.extend_from_slice(row);
                padded.resize(padded.len() + depth - inputs, 0.0);
            }
            padded
        };
        let from = super::simd::from_bf16;
        match self {
            Rows::F32(x) if inputs == depth && !rounded => x.into(),
            Rows::F32(x) if rounded => pad(x.iter().map(|&value| from(to_bf16(value))).collect()).into(),
            Rows::F32(x) => pad(x.to_vec()).into(),
            Rows::Bf16(x) => pad(x.iter().map(|&value| from(value)).collect()).into(),
        }
    }

    /// As bf16 with rows padded by zeros.
    #[cfg(target_arch = "x86_64")]
    fn to_bf16(self, isa: Isa, rows: usize, inputs: usize, depth: usize) -> Held<'a> {
        if let Rows::Bf16(x) = self
            && inputs == depth
        {
            return Held::Given(x);
        }
        // SAFETY: each row is written to its end by one task.
        Held::Own(unsafe {
            Aligned::<u16>::written(rows * depth, |to| {
                let to = Shared::new(to);
                parallel_ranges(rows, inputs, |first, end| {
                    for row in first..end {
                        let from = row * inputs;
                        match self {
                            Rows::Bf16(x) => {
                                let row = std::slice::from_raw_parts_mut(to.at(row * depth), depth);
                                row[..inputs].copy_from_slice(&x[from..from + inputs]);
                                row[inputs..].fill(0);
                            }
                            Rows::F32(x) => {
                                let (from, to) = (x[from..].as_ptr(), to.at(row * depth));
                                vectorize(isa, Round { from, to, inputs, depth });
                            }
                        }
                    }
                });
            })
        })
    }
}

/// Rows of bf16 as they came, or made of them.
#[cfg(target_arch = "x86_64")]
enum Held<'a> {
    Given(&'a [u16]),
    Own(Aligned<u16>),
}

#[cfg(target_arch = "x86_64")]
impl std::ops::Deref for Held<'_> {
    type Target = [u16];
    fn deref(&self) -> &[u16] {
        match self {
            Held::Given(x) => x,
            Held::Own(x) => x,
        }
    }
}

/// A row rounded to bf16.
#[cfg(target_arch = "x86_64")]
struct Round {
    from: *const f32,
    to: *mut u16,
    inputs: usize,
    depth: usize,
}

#[cfg(target_arch = "x86_64")]
impl Vectorized for Round {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        unsafe {
            let whole = self.inputs / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                V::load(self.from.add(i)).store_bf16(self.to.add(i));
            }
            for i in whole..self.inputs {
                *self.to.add(i) = to_bf16(*self.from.add(i));
            }
            for i in self.inputs..self.depth {
                *self.to.add(i) = 0;
            }
        }
    }
}

/// Parts that a row's whole numbers are given in: 256 times the first and the second.
///
/// One part of 8 bits takes half the instructions (the model that ships, 16 texts of 128 tokens: 115 ms became 65). It was
/// dropped, with a scale a row and with one for 32 or 64 values: benches/LEDGER.md says what it cost.
const PARTS: usize = 2;

/// Rows as whole numbers of 15 bits and a scale each, in two parts of eight bits.
struct Quantized {
    /// `[rows * PARTS, depth]`.
    codes: Aligned<i8>,
    /// The sum of each part.
    sums: Vec<i32>,
    scales: Vec<f32>,
}

impl Quantized {
    fn new(isa: Isa, x: &[f32], rows: usize, inputs: usize, depth: usize) -> Self {
        let (mut sums, mut scales) = (vec![0_i32; rows * PARTS], vec![0.0_f32; rows]);
        let (sums_at, scales_at) = (Shared::new(sums.as_mut_ptr()), Shared::new(scales.as_mut_ptr()));
        // SAFETY: each row is written to its end by one task, inside what was allocated.
        let codes = unsafe {
            Aligned::<i8>::written(rows * PARTS * depth, |codes| {
                let codes_at = Shared::new(codes);
                parallel_ranges(rows, 4 * inputs, |first, end| {
                    for row in first..end {
                        let codes = std::slice::from_raw_parts_mut(codes_at.at(row * PARTS * depth), PARTS * depth);
                        let sums = &mut *sums_at.at(row * PARTS).cast::<[i32; PARTS]>();
                        let values = &x[row * inputs..(row + 1) * inputs];
                        *scales_at.at(row) = vectorize(isa, QuantizeRow { values, codes, sums, depth });
                    }
                });
            })
        };
        Self { codes, sums, scales }
    }
}

struct QuantizeRow<'a> {
    values: &'a [f32],
    codes: &'a mut [i8],
    sums: &'a mut [i32; PARTS],
    depth: usize,
}

/// The largest whole number of a row: its first part is at most 127 and its second within -128 to 127.
const LARGEST_CODE: f32 = 32_512.0;

impl Vectorized for QuantizeRow<'_> {
    /// The scale: NaN if a value is not finite, so that the products are.
    type Output = f32;
    #[inline(always)]
    unsafe fn run<V: Simd>(self) -> f32 {
        let largest = largest_size(self.values);
        let Some(largest) = largest.filter(|largest| *largest > 0.0) else {
            self.codes.fill(0);
            return largest.unwrap_or(f32::NAN);
        };
        let inverse = LARGEST_CODE / largest;
        let (first, second) = self.codes.split_at_mut(self.depth);
        let mut sums = [0_i32; PARTS];
        for ((value, first), second) in self.values.iter().zip(first).zip(second) {
            let code = whole(*value, inverse);
            let high = (code + 128) >> 8;
            let low = code - (high << 8);
            sums[0] += high;
            sums[1] += low;
            *first = high as i8;
            *second = low as i8;
        }
        for part in self.codes.chunks_exact_mut(self.depth) {
            part[self.values.len()..].fill(0);
        }
        *self.sums = sums;
        largest / LARGEST_CODE
    }
}

/// Rows as whole numbers of 15 bits and a scale each, with sums of groups.
struct WholeRows {
    /// `[rows, depth]`.
    codes: Vec<i16>,
    /// `[rows, groups]`: less the middle code times the group's sum.
    starts: Vec<i32>,
    /// `[rows, groups]`: the group's sum, exactly.
    sums: Vec<f32>,
    scales: Vec<f32>,
}

impl WholeRows {
    fn new(isa: Isa, x: &[f32], rows: usize, inputs: usize, format: AffineFormat) -> Self {
        let groups = inputs.div_ceil(format.group());
        let depth = groups * format.group();
        let mut codes = vec![0_i16; rows * depth];
        let (mut starts, mut sums) = (vec![0_i32; rows * groups], vec![0.0_f32; rows * groups]);
        let mut scales = vec![0.0_f32; rows];
        let (codes_at, starts_at) = (Shared::new(codes.as_mut_ptr()), Shared::new(starts.as_mut_ptr()));
        let (sums_at, scales_at) = (Shared::new(sums.as_mut_ptr()), Shared::new(scales.as_mut_ptr()));
        parallel_ranges(rows, 4 * inputs, |first, end| {
            for row in first..end {
                // SAFETY: each row is written by one task, inside what was allocated.
                unsafe {
                    let codes = std::slice::from_raw_parts_mut(codes_at.at(row * depth), depth);
                    let starts = std::slice::from_raw_parts_mut(starts_at.at(row * groups), groups);
                    let sums = std::slice::from_raw_parts_mut(sums_at.at(row * groups), groups);
                    let values = &x[row * inputs..(row + 1) * inputs];
                    *scales_at.at(row) = vectorize(isa, WholeRow { values, codes, starts, sums, format });
                }
            }
        });
        Self { codes, starts, sums, scales }
    }
}

struct WholeRow<'a> {
    values: &'a [f32],
    codes: &'a mut [i16],
    starts: &'a mut [i32],
    sums: &'a mut [f32],
    format: AffineFormat,
}

impl Vectorized for WholeRow<'_> {
    /// The scale: NaN if a value is not finite, so that the products are.
    type Output = f32;
    #[inline(always)]
    unsafe fn run<V: Simd>(self) -> f32 {
        let Some(largest) = largest_size(self.values) else { return f32::NAN };
        if largest == 0.0 {
            return 0.0;
        }
        let inverse = LARGEST_CODE / largest;
        for (code, value) in self.codes.iter_mut().zip(self.values) {
            *code = whole(*value, inverse) as i16;
        }
        let groups = self.codes.chunks_exact(self.format.group());
        for ((codes, start), sum) in groups.zip(self.starts).zip(self.sums) {
            let mut total = 0_i32;
            for &code in codes {
                total += i32::from(code);
            }
            *start = -self.format.middle() * total;
            *sum = total as f32;
        }
        largest / LARGEST_CODE
    }
}

/// The size of a row's largest value; `None` if a value is not finite.
#[inline(always)]
fn largest_size(values: &[f32]) -> Option<f32> {
    // Sixteen maxima side by side, for which there are vectors; zero times what is not finite is NaN.
    let (mut most, mut rest) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for values in values.chunks(LANES) {
        for (i, value) in values.iter().enumerate() {
            let size = value.abs();
            most[i] = if size > most[i] { size } else { most[i] };
            rest[i] += value * 0.0;
        }
    }
    if rest.into_iter().any(f32::is_nan) {
        return None;
    }
    Some(most.into_iter().fold(0.0_f32, f32::max))
}

/// A value times a factor as a whole number, ties to even.
#[inline(always)]
fn whole(value: f32, factor: f32) -> i32 {
    // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even, and leaves it in the low bits.
    (value * factor + 12_582_912.0).to_bits().wrapping_sub(12_582_912.0_f32.to_bits()) as i32
}
