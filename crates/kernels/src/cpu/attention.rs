//! Attention inside segments of packed rows, without a matrix of scores beyond a tile.
//!
//! Two passes. The first normalises, rotates and packs keys and values of every segment and head into panels. The second
//! takes a few query rows of a head at a time against 256 keys at a time, with the running maximum and sum of the online
//! softmax; a causal row goes no further than the tile it ends in, and a row with a window sees no tile outside it. Where a
//! block of rows or keys ends depends on the row's own segment alone, so a row has the same bits whatever lies beside its
//! segment.
//!
//! # Source
//! Milakov and Gimelshein 2018 (arXiv 1805.02867), online softmax; Dao et al. 2022 (arXiv 2205.14135), tiles.

use super::Isa;
use super::aligned::{Aligned, lines};
use super::linear::{Out, Target};
use super::math;
use super::parallel::{Shared, parallel};
use super::rows::sum_of_squares;
use super::scratch::{Room, with_room};
use super::simd::{LANES, Simd, Vectorized, vectorize};
use super::tile::{self, Block};

/// Query rows of a task: a multiple of the tiles' six and sixteen.
const QUERY_ROWS: usize = 48;
/// Keys of a step: with the query rows their scores take 48 KiB.
const KEYS: usize = 256;
/// What the depth of a product with bf16 values is padded to.
const DEPTH_STEP: usize = 32;

/// Sizes of the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`. Query head `j` reads key head `j / (query / key)`.
    pub key: usize,
    /// Width of a head.
    pub width: usize,
}

/// Rows of heads inside wider rows: row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// From the first row's first value on.
    pub values: &'a [f32],
    /// Values between rows.
    pub stride: usize,
}

/// What is done to the rows of queries and keys before they meet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placing<'a> {
    /// RMSNorm of each query head, gain `[width]`.
    pub query_norm: Option<&'a [f32]>,
    /// RMSNorm of each key head, gain `[width]`.
    pub key_norm: Option<&'a [f32]>,
    /// Epsilon of both.
    pub eps: f32,
    /// Cosines and sines of the rotate-half rotary, `[rows, width]` each.
    pub rotary: Option<(&'a [f32], &'a [f32])>,
}

/// Arguments of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Queries, `query` heads a row.
    pub query: Columns<'a>,
    /// Keys, `key` heads a row.
    pub key: Columns<'a>,
    /// Values, `key` heads a row.
    pub value: Columns<'a>,
    /// Sizes.
    pub heads: Heads,
    /// What happens to queries and keys first.
    pub placing: Placing<'a>,
    /// First row and length of each segment.
    pub segments: &'a [(usize, usize)],
    /// Factor of the scores.
    pub scale: f32,
    /// Whether a row sees only itself and earlier rows.
    pub causal: bool,
    /// Rows at most this far away are seen; all where absent.
    pub window: Option<usize>,
    /// What is added to the scaled scores by how far a key is from the query: for each query head as many values on both
    /// sides of the middle one, which is the row's own; later keys behind it.
    pub relative: Option<&'a [f32]>,
    /// Whether products may round queries, keys, values and weights to bf16, where the instructions multiply such.
    pub low: bool,
}

/// Where a segment's panels begin, in values, for one head.
struct Place {
    key: usize,
    value: usize,
    /// Keys with their padding.
    keys: usize,
}

/// Sizes of panels.
struct Panels {
    /// A query's and key's width with its padding.
    depth: usize,
    /// A value's width with its padding.
    width: usize,
    places: Vec<Place>,
    /// Values of all key panels of one head, and of all value panels.
    keys: usize,
    values: usize,
}

impl Panels {
    fn new(attention: &Attention, low: bool) -> Self {
        let step = if low { DEPTH_STEP } else { LANES };
        let depth = if low { attention.heads.width.next_multiple_of(step) } else { attention.heads.width };
        let width = attention.heads.width.next_multiple_of(LANES);
        let (mut key, mut value) = (0, 0);
        let places = attention.segments.iter().map(|&(_, length)| {
            let keys = length.next_multiple_of(step);
            let place = Place { key, value, keys };
            key += keys * depth;
            value += keys * width;
            place
        });
        let places = places.collect();
        Self { depth, width, places, keys: key, values: value }
    }

    /// Values of a query's or key's row before it is rounded.
    fn row(&self) -> usize {
        self.depth.next_multiple_of(LANES)
    }
}

/// Attention of each segment's rows to the rows of the same segment.
///
/// # Shapes
/// - `out`: `[rows, query * width]`
/// # Panics
/// If a length is not what the sizes and segments say.
pub fn attention(isa: Isa, a: &Attention, out: Out) {
    let Heads { query, key, width } = a.heads;
    let rows = a.segments.last().map_or(0, |(start, length)| start + length);
    let room = out.len();
    assert!(key > 0 && query.is_multiple_of(key), "key heads divide query heads");
    assert_eq!(room, rows * query * width, "results of an attention");
    for (columns, heads) in [(a.query, query), (a.key, key), (a.value, key)] {
        let last = rows.checked_sub(1).map_or(0, |last| last * columns.stride + heads * width);
        assert!(columns.values.len() >= last, "rows of an attention");
    }
    for norm in [a.placing.query_norm, a.placing.key_norm].into_iter().flatten() {
        assert_eq!(norm.len(), width, "gain of a head");
    }
    if let Some(relative) = a.relative {
        let (columns, longest) = (relative.len() / query, a.segments.iter().map(|s| s.1).max().unwrap_or(0));
        assert!(relative.len() == query * columns && columns % 2 == 1 && longest <= columns / 2 + 1, "distances");
    }
    if let Some((cos, sin)) = a.placing.rotary {
        assert!(width.is_multiple_of(2), "rotary pairs");
        assert_eq!((cos.len(), sin.len()), (rows * width, rows * width), "rotary table");
    }
    #[cfg(target_arch = "x86_64")]
    if a.low && isa >= Isa::Avx512Bf16 {
        run::<u16>(isa, a, out);
        return;
    }
    run::<f32>(isa, a, out);
}

/// What products of scores and of values are made of.
trait Value: bytemuck::Pod + Default + Send + Sync {
    const LOW: bool;
    unsafe fn block(isa: Isa, block: Block<Self, Self>);
    /// Sixteen values, rounded.
    unsafe fn store<V: Simd>(value: V, to: *mut Self);
    /// Sixteen rows of keys, `[16][depth]`, as a panel of `depth` rows.
    unsafe fn keys(rows: *const Self, depth: usize, panel: *mut Self);
    /// Sixteen columns of a row of values and of the next one, as two rows of a panel.
    unsafe fn values<V: Simd>(row: V, next: V, panel: *mut Self);
}

impl Value for f32 {
    const LOW: bool = false;
    unsafe fn block(isa: Isa, block: Block<f32, f32>) {
        unsafe { tile::f32_block(isa, block) }
    }
    #[inline(always)]
    unsafe fn store<V: Simd>(value: V, to: *mut f32) {
        unsafe { value.store(to) }
    }
    #[inline(always)]
    unsafe fn keys(rows: *const f32, depth: usize, panel: *mut f32) {
        for j in 0..depth {
            for lane in 0..LANES {
                unsafe { *panel.add(j * LANES + lane) = *rows.add(lane * depth + j) };
            }
        }
    }
    #[inline(always)]
    unsafe fn values<V: Simd>(row: V, next: V, panel: *mut f32) {
        unsafe {
            row.store(panel);
            next.store(panel.add(LANES));
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Value for u16 {
    const LOW: bool = true;
    unsafe fn block(isa: Isa, block: Block<u16, u16>) {
        unsafe { tile::bf16_block(isa, block) }
    }
    #[inline(always)]
    unsafe fn store<V: Simd>(value: V, to: *mut u16) {
        unsafe { value.store_bf16(to) }
    }
    #[inline(always)]
    unsafe fn keys(rows: *const u16, depth: usize, panel: *mut u16) {
        // Two values of a key lie together: they are moved as one.
        let (rows, panel) = (rows.cast::<u32>(), panel.cast::<u32>());
        for j in 0..depth / 2 {
            for lane in 0..LANES {
                unsafe { panel.add(j * LANES + lane).write_unaligned(rows.add(lane * depth / 2 + j).read_unaligned()) };
            }
        }
    }
    #[inline(always)]
    unsafe fn values<V: Simd>(row: V, next: V, panel: *mut u16) {
        let (mut first, mut second) = ([0_u16; LANES], [0_u16; LANES]);
        unsafe {
            row.store_bf16(first.as_mut_ptr());
            next.store_bf16(second.as_mut_ptr());
            let mut pairs = [0_u32; LANES];
            for i in 0..LANES {
                pairs[i] = u32::from(first[i]) | u32::from(second[i]) << 16;
            }
            panel.cast::<[u32; LANES]>().write_unaligned(pairs);
        }
    }
}

fn run<T: Value>(isa: Isa, a: &Attention, mut out: Out) {
    let panels = Panels::new(a, T::LOW);
    let Heads { query, key, .. } = a.heads;
    let (segments, mut values) = (a.segments.len(), None);
    let pack = |keys: Shared<T>, values: Shared<T>| {
        parallel(segments * key, |i| {
            let (segment, head) = (i / key, i % key);
            let place = &panels.places[segment];
            with_room(lines::<f32>(panels.row()) + lines::<T>(LANES * panels.depth), |room| {
                // SAFETY: the set is available; each task writes the panels of its own segment and head, inside the
                // buffers.
                unsafe {
                    let keys = keys.at(head * panels.keys + place.key);
                    let values = values.at(head * panels.values + place.value);
                    vectorize(isa, Pack { a, panels: &panels, segment, head, keys, values, room });
                }
            });
        });
    };
    // SAFETY: every segment's and head's panels are written to their ends, and they are all there is.
    let keys = unsafe {
        Aligned::<T>::written(key * panels.keys, |keys| {
            values = Some(Aligned::<T>::written(key * panels.values, |values| {
                pack(Shared::new(keys), Shared::new(values));
            }));
        })
    };
    let values = values.expect("written beside the keys");
    // One task a segment, head and block of query rows.
    let blocks: Vec<(usize, usize)> = a
        .segments
        .iter()
        .enumerate()
        .flat_map(|(segment, (_, length))| (0..*length).step_by(QUERY_ROWS).map(move |first| (segment, first)))
        .collect();
    let out = Target::new(&mut out);
    parallel(blocks.len() * query, |i| {
        let (head, (segment, first)) = (i / blocks.len(), blocks[i % blocks.len()]);
        let place = &panels.places[segment];
        let group = head / (query / key);
        let keys = &keys[group * panels.keys + place.key..][..place.keys * panels.depth];
        let values = &values[group * panels.values + place.value..][..place.keys * panels.width];
        let task = Task { isa, a, panels: &panels, segment, head, first, keys, values, out };
        with_room(Task::<T>::lines(&panels), |room| task.run(room));
    });
}

/// A row of a head: normalised, then rotated.
///
/// # Safety
/// `from` and `to` hold `width` values, tables and gains as many.
#[inline(always)]
unsafe fn place_row<V: Simd>(
    from: *const f32,
    to: *mut f32,
    width: usize,
    norm: Option<&[f32]>,
    eps: f32,
    rotary: Option<(*const f32, *const f32)>,
) {
    unsafe {
        let factor = match norm {
            Some(_) => 1.0 / (sum_of_squares::<V>(from, width) / width as f32 + eps).sqrt(),
            None => 1.0,
        };
        let scaled = |i: usize, count: usize| {
            let x = V::load_part(from.add(i), count);
            match norm {
                Some(norm) => x.mul(V::splat(factor)).mul(V::load_part(norm.as_ptr().add(i), count)),
                None => x,
            }
        };
        let Some((cos, sin)) = rotary else {
            for i in (0..width).step_by(LANES) {
                let count = LANES.min(width - i);
                scaled(i, count).store_part(to.add(i), count);
            }
            return;
        };
        let half = width / 2;
        for i in (0..half).step_by(LANES) {
            let count = LANES.min(half - i);
            let table = |table: *const f32, at: usize| V::load_part(table.add(at), count);
            let (x, y) = (scaled(i, count), scaled(half + i, count));
            let low = x.mul(table(cos, i)).sub(y.mul(table(sin, i)));
            let high = y.mul(table(cos, half + i)).add(x.mul(table(sin, half + i)));
            low.store_part(to.add(i), count);
            high.store_part(to.add(half + i), count);
        }
    }
}

/// A row of `T`s from a row of f32, as long as whole vectors; what lies behind `width` in `from` is zero.
#[inline(always)]
unsafe fn round_row<V: Simd, T: Value>(from: *const f32, to: *mut T, length: usize) {
    unsafe {
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            T::store(V::load(from.add(i)), to.add(i));
        }
        if whole < length {
            let mut rest = [T::default(); LANES];
            T::store(V::load_part(from.add(whole), length - whole), rest.as_mut_ptr());
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(whole), length - whole);
        }
    }
}

/// Keys and values of a segment and head into panels.
struct Pack<'a, T> {
    a: &'a Attention<'a>,
    panels: &'a Panels,
    segment: usize,
    head: usize,
    keys: *mut T,
    values: *mut T,
    room: Room<'a>,
}

impl<T: Value> Vectorized for Pack<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(mut self) {
        let Attention { key, value, heads, placing, segments, .. } = self.a;
        let (start, length) = segments[self.segment];
        let keys = self.panels.places[self.segment].keys;
        let (width, depth) = (heads.width, self.panels.depth);
        let row = self.room.take::<f32>(self.panels.row());
        let sixteen = self.room.take::<T>(LANES * depth);
        row.fill(0.0);
        unsafe {
            // Panels are as long as a step of the depth: what no key fills is zero.
            for first in (0..keys).step_by(LANES) {
                let count = LANES.min(length.saturating_sub(first));
                for lane in 0..count {
                    let at = start + first + lane;
                    let from = key.values.as_ptr().add(at * key.stride + self.head * width);
                    let rotary =
                        placing.rotary.map(|(cos, sin)| (cos.as_ptr().add(at * width), sin.as_ptr().add(at * width)));
                    place_row::<V>(from, row.as_mut_ptr(), width, placing.key_norm, placing.eps, rotary);
                    round_row::<V, T>(row.as_ptr(), sixteen.as_mut_ptr().add(lane * depth), depth);
                }
                sixteen[count * depth..].fill(T::default());
                T::keys(sixteen.as_ptr(), depth, self.keys.add(first * depth));
            }
            let rows = value.values.as_ptr().add(start * value.stride + self.head * width);
            for i in (0..keys).step_by(2) {
                for j in (0..width).step_by(LANES) {
                    let part = |i: usize| match i < length {
                        true => V::load_part(rows.add(i * value.stride + j), LANES.min(width - j)),
                        false => V::splat(0.0),
                    };
                    T::values(part(i), part(i + 1), self.values.add(j * keys + i * LANES));
                }
            }
        }
    }
}

struct Task<'a, T> {
    isa: Isa,
    a: &'a Attention<'a>,
    panels: &'a Panels,
    segment: usize,
    head: usize,
    first: usize,
    keys: &'a [T],
    values: &'a [T],
    out: Target,
}

/// What a block of query rows is at, one value a row.
struct Running {
    largest: [f32; QUERY_ROWS],
    sum: [f32; QUERY_ROWS],
}

impl<T: Value> Task<'_, T> {
    /// What [`Self::run`] works in.
    fn lines(panels: &Panels) -> usize {
        lines::<f32>(panels.row())
            + lines::<T>(QUERY_ROWS * panels.depth)
            + lines::<f32>(QUERY_ROWS * KEYS)
            + lines::<T>(QUERY_ROWS * KEYS)
            + lines::<f32>(QUERY_ROWS * panels.width)
    }

    fn run(self, mut room: Room) {
        let (_, length) = self.a.segments[self.segment];
        let rows = QUERY_ROWS.min(length - self.first);
        let Panels { depth, width, .. } = *self.panels;
        // Tiles may read whole ones of sixteen rows: those beyond `rows` are whatever was there, and nobody reads what
        // comes of them.
        let row = room.take::<f32>(self.panels.row());
        let query = room.take::<T>(QUERY_ROWS * depth);
        let scores = room.take::<f32>(QUERY_ROWS * KEYS);
        let weights = room.take::<T>(QUERY_ROWS * KEYS);
        let context = room.take::<f32>(QUERY_ROWS * width);
        let mut running = Running { largest: [f32::NEG_INFINITY; QUERY_ROWS], sum: [0.0; QUERY_ROWS] };
        let place = &self.panels.places[self.segment];
        let window = self.a.window.unwrap_or(length);
        // Panels can be entered at a whole step of the depth.
        let begin = self.first.saturating_sub(window) / DEPTH_STEP * DEPTH_STEP;
        let last = (self.first + rows).saturating_add(window).min(length);
        let end = if self.a.causal { self.first + rows } else { last };
        // SAFETY: the set is available; every buffer is as large as the blocks say.
        unsafe {
            vectorize(self.isa, Queries { task: &self, rows, row, to: query });
            for start in (begin..end).step_by(KEYS) {
                let keys = KEYS.min(end - start);
                let padded = keys.next_multiple_of(if T::LOW { DEPTH_STEP } else { LANES });
                T::block(
                    self.isa,
                    Block {
                        rows,
                        panels: padded / LANES,
                        depth,
                        a: query.as_ptr(),
                        lda: depth,
                        b: self.keys[start * depth..].as_ptr(),
                        panel: LANES * depth,
                        c: scores.as_mut_ptr(),
                        ldc: KEYS,
                        accumulate: false,
                        next: std::ptr::null(),
                    },
                );
                let (begins, running) = (start == begin, &mut running);
                let softmax =
                    Softmax { task: &self, rows, start, begins, keys, padded, scores, weights, context, running };
                vectorize(self.isa, softmax);
                T::block(
                    self.isa,
                    Block {
                        rows,
                        panels: width / LANES,
                        // Padding of the values is zero, and so are the weights there.
                        depth: padded,
                        a: weights.as_ptr(),
                        lda: KEYS,
                        b: self.values[start * LANES..].as_ptr(),
                        panel: LANES * place.keys,
                        c: context.as_mut_ptr(),
                        ldc: width,
                        accumulate: start > begin,
                        next: std::ptr::null(),
                    },
                );
            }
            vectorize(self.isa, Finish { task: &self, rows, context, running: &running });
        }
    }
}

/// The query rows of a task, normalised and rotated.
struct Queries<'a, T> {
    task: &'a Task<'a, T>,
    rows: usize,
    /// Values of a row before it is rounded.
    row: &'a mut [f32],
    to: &'a mut [T],
}

impl<T: Value> Vectorized for Queries<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Task { a, panels, segment, head, first, .. } = self.task;
        let width = a.heads.width;
        let row = self.row;
        // What lies behind a head's width stays zero.
        row.fill(0.0);
        for r in 0..self.rows {
            let at = a.segments[*segment].0 + first + r;
            unsafe {
                let from = a.query.values.as_ptr().add(at * a.query.stride + head * width);
                let rotary =
                    a.placing.rotary.map(|(cos, sin)| (cos.as_ptr().add(at * width), sin.as_ptr().add(at * width)));
                place_row::<V>(from, row.as_mut_ptr(), width, a.placing.query_norm, a.placing.eps, rotary);
                round_row::<V, T>(row.as_ptr(), self.to.as_mut_ptr().add(r * panels.depth), panels.depth);
            }
        }
    }
}

/// Scores of a step become weights; what was summed before is scaled to the new maximum.
struct Softmax<'a, T> {
    task: &'a Task<'a, T>,
    rows: usize,
    start: usize,
    /// Whether this is the first step of its rows.
    begins: bool,
    keys: usize,
    padded: usize,
    scores: &'a mut [f32],
    weights: &'a mut [T],
    context: &'a mut [f32],
    running: &'a mut Running,
}

impl<T: Value> Vectorized for Softmax<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Attention { causal, window, relative, heads, .. } = *self.task.a;
        let width = self.task.panels.width;
        // A bias is added to scores that are scaled.
        let scale = if relative.is_some() { 1.0 } else { self.task.a.scale };
        unsafe {
            for r in 0..self.rows {
                let position = self.task.first + r;
                let within = |end: usize| self.keys.min(end.saturating_sub(self.start));
                let seen = if causal { within(position + 1) } else { self.keys };
                let (hidden, seen) = match window {
                    Some(window) => {
                        (within(position.saturating_sub(window)), seen.min(within(position.saturating_add(window + 1))))
                    }
                    None => (0, seen),
                };
                let scores = self.scores.as_mut_ptr().add(r * KEYS);
                let weights = self.weights.as_mut_ptr().add(r * KEYS);
                if seen <= hidden {
                    for i in (0..self.padded).step_by(LANES) {
                        T::store(V::splat(0.0), weights.add(i));
                    }
                    continue;
                }
                if let Some(relative) = relative {
                    let columns = relative.len() / heads.query;
                    let bias = relative[self.task.head * columns..][..columns].as_ptr();
                    // The column of the first key of this step, counted from the row's own in the middle.
                    let first = (columns / 2 + self.start).wrapping_sub(position);
                    for i in (hidden..seen).step_by(LANES) {
                        let count = LANES.min(seen - i);
                        let score = V::load_part(scores.add(i), count).mul(V::splat(self.task.a.scale));
                        let bias = V::load_part(bias.wrapping_add(first.wrapping_add(i)), count);
                        score.add(bias).store_part(scores.add(i), count);
                    }
                }
                for i in (0..hidden).chain(seen..self.padded) {
                    *scores.add(i) = f32::NEG_INFINITY;
                }
                let visible = seen.next_multiple_of(LANES);
                let mut most = V::splat(f32::NEG_INFINITY);
                for i in (0..visible).step_by(LANES) {
                    most = V::load(scores.add(i)).max(most);
                }
                let before = self.running.largest[r];
                // A score that is NaN makes its weight NaN whatever the maximum is.
                let largest = before.max(most.largest());
                let (factor, shift) = (V::splat(scale), V::splat(-largest * scale));
                let mut sum = V::splat(0.0);
                for i in (0..visible).step_by(LANES) {
                    let weight = math::exp(V::load(scores.add(i)).mul_add(factor, shift));
                    sum = sum.add(weight);
                    T::store(weight, weights.add(i));
                }
                for i in (visible..self.padded).step_by(LANES) {
                    T::store(V::splat(0.0), weights.add(i));
                }
                let sum = sum.sum();
                self.running.largest[r] = largest;
                if self.begins {
                    self.running.sum[r] = sum;
                    continue;
                }
                // Where the maximum stays, the factor is one exactly.
                if before != largest {
                    let mut fade = [0.0_f32; LANES];
                    math::exp(V::splat((before - largest) * scale)).store(fade.as_mut_ptr());
                    self.running.sum[r] *= fade[0];
                    let context = self.context.as_mut_ptr().add(r * width);
                    for i in (0..width).step_by(LANES) {
                        V::load(context.add(i)).mul(V::splat(fade[0])).store(context.add(i));
                    }
                }
                self.running.sum[r] += sum;
            }
        }
    }
}

/// Sums divided by the sum of their weights, to where they belong.
struct Finish<'a, T> {
    task: &'a Task<'a, T>,
    rows: usize,
    context: &'a [f32],
    running: &'a Running,
}

impl<T: Value> Vectorized for Finish<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Task { a, panels, segment, head, first, out, .. } = self.task;
        let width = a.heads.width;
        for r in 0..self.rows {
            let at = (a.segments[*segment].0 + first + r) * a.heads.query * width + head * width;
            let from = &self.context[r * panels.width..][..panels.width];
            unsafe {
                let factor = V::splat(1.0 / self.running.sum[r]);
                for (i, from) in from.chunks_exact(LANES).enumerate() {
                    let (value, count) = (V::load(from.as_ptr()).mul(factor), LANES.min(width - i * LANES));
                    out.put(value, at + i * LANES, count);
                }
            }
        }
    }
}
