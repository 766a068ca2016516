//! Convolutions over maps whose channels lie last: dense, depthwise, and the inverted bottleneck made of both.
//!
//! A map's channels are padded with zeros to a multiple of sixteen, so that every load and store is a whole vector. Values
//! with zeros around them are read from a border that is really there: a task copies or computes its part of a map into a
//! buffer of its own with the border written, so the innermost loops know no edges.
//!
//! A value is its bias plus products in one order, from the first channel and the first tap to the last, whatever the tile and
//! the task; so neither the images beside it nor the number of threads changes its bits.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Isa;
use super::aligned::lines;
use super::math;
use super::parallel::{Shared, parallel};
use super::scratch::with_room;
use super::simd::{LANES, Simd, Vectorized, vectorize};
use super::tile::prefetch;

/// Panels of a group: what a task computes at once, and the widest tile. Every widened map of EfficientNet-Lite is a multiple
/// of 48 channels.
const GROUP: usize = 3;
/// Values of a task's buffer, bordered: 384 KiB, so that it stays in a second cache of 512 KiB or more with its matrix.
const BUFFER: usize = 96 << 10;
/// Pixels of a task of a product.
const CHUNK: usize = 196;

/// How a kernel moves over a map: its sides, its step, and the zeros in front of the map. What is behind follows from the
/// sides of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Taps down and across.
    pub kernel: usize,
    /// Step down and across.
    pub stride: usize,
}

impl Window {
    /// Side of the result and zeros in front, as TensorFlow's SAME counts them: what is odd goes behind.
    pub fn same(self, side: usize) -> (usize, usize) {
        let out = side.div_ceil(self.stride);
        let total = ((out - 1) * self.stride + self.kernel).saturating_sub(side);
        (out, total / 2)
    }

    /// What a result of `out` values reads, with zeros.
    fn reach(self, out: usize) -> usize {
        (out - 1) * self.stride + self.kernel
    }
}

/// Maps of several images of one size: `[images, height, width, channels padded to sixteen]`.
#[derive(Debug, Clone)]
pub struct Maps {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<f32>,
    /// Whether every value of an image is finite, here and in the maps that it was made from.
    finite: Vec<bool>,
}

impl Maps {
    /// From values `[images, channels, height, width]`.
    ///
    /// # Panics
    /// If there are not as many values as the sizes say, or one of them is zero.
    pub fn from_planes(values: &[f32], [images, channels, height, width]: [usize; 4]) -> Self {
        let cells = height * width;
        assert!(images * channels * cells > 0 && values.len() == images * channels * cells, "values of maps");
        let stride = channels.next_multiple_of(LANES);
        let mut out = vec![0.0_f32; images * cells * stride];
        for (planes, map) in values.chunks_exact(channels * cells).zip(out.chunks_exact_mut(cells * stride)) {
            for (channel, plane) in planes.chunks_exact(cells).enumerate() {
                for (value, cell) in plane.iter().zip(map.chunks_exact_mut(stride)) {
                    cell[channel] = *value;
                }
            }
        }
        let finite = values.chunks_exact(channels * cells).map(|planes| planes.iter().all(|v| v.is_finite())).collect();
        Self { images, height, width, channels, values: out, finite }
    }

    /// Values `[images, channels, height, width]`.
    pub fn to_planes(&self) -> Vec<f32> {
        let (cells, stride) = (self.height * self.width, self.stride());
        let mut out = Vec::with_capacity(self.images * self.channels * cells);
        for map in self.values.chunks_exact(cells * stride) {
            for channel in 0..self.channels {
                out.extend(map[channel..].iter().step_by(stride));
            }
        }
        out
    }

    /// `[images, channels, height, width]`.
    pub fn dims(&self) -> [usize; 4] {
        [self.images, self.channels, self.height, self.width]
    }

    /// Whether every value of each image was finite, here and in the maps that these were made from.
    pub fn finite(&self) -> &[bool] {
        &self.finite
    }

    /// The same with images marked that were found not to be finite elsewhere.
    ///
    /// # Panics
    /// If there is not one mark an image.
    pub fn also_finite(mut self, finite: &[bool]) -> Self {
        assert_eq!(finite.len(), self.images, "marks of maps");
        self.finite.iter_mut().zip(finite).for_each(|(own, other)| *own &= other);
        self
    }

    fn stride(&self) -> usize {
        self.channels.next_multiple_of(LANES)
    }
}

/// Memory of maps that are done with, for the next ones: fresh memory costs a page fault each 4 KiB (measured: 1.5 of 6.9 ms
/// of an image on one thread).
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Vec<f32>>>);

impl Spare {
    /// Values kept, 8 MiB: an image of 224 pixels takes 5.
    const MOST: usize = 2 << 20;

    /// `count` values that `write` writes.
    fn written(&self, count: usize, write: impl FnOnce(Shared<f32>)) -> Vec<f32> {
        let mut values = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = kept.iter().enumerate().filter(|(_, values)| values.capacity() >= count);
            let best = fits.min_by_key(|(_, values)| values.capacity()).map(|(i, _)| i);
            best.map_or_else(Vec::new, |i| kept.swap_remove(i))
        };
        values.clear();
        values.reserve_exact(count);
        write(Shared::new(values.as_mut_ptr()));
        // SAFETY: they are reserved, and the kernels here write every one.
        unsafe { values.set_len(count) };
        values
    }

    /// Takes memory back.
    fn put(&self, values: Vec<f32>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().map(Vec::capacity).sum::<usize>() + values.capacity() <= Self::MOST {
            kept.push(values);
        }
    }
}

/// A dense convolution's weights in panels of sixteen outputs with their biases; a pointwise one has one tap.
#[derive(Debug, Clone)]
pub struct Dense {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    /// `[panels][inputs][kernel][kernel][16]`.
    panels: Vec<f32>,
    /// Padded with zeros.
    bias: Vec<f32>,
}

impl Dense {
    /// From weights `[outputs, inputs, kernel, kernel]` and biases `[outputs]`.
    ///
    /// # Panics
    /// If there are not as many values as the sizes say, or one of them is zero.
    pub fn new(weight: &[f32], bias: &[f32], [outputs, inputs, kernel]: [usize; 3]) -> Self {
        let depth = inputs * kernel * kernel;
        assert!(depth * outputs > 0 && weight.len() == outputs * depth, "weights of a convolution");
        Self { inputs, outputs, kernel, panels: panels(weight, depth, outputs), bias: padded(bias, outputs) }
    }

    /// Channels of what comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    fn depth(&self) -> usize {
        self.inputs * self.kernel * self.kernel
    }

    fn panel_count(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }
}

/// A depthwise convolution's weights in panels of sixteen channels with their biases.
#[derive(Debug, Clone)]
pub struct Depthwise {
    channels: usize,
    window: Window,
    /// `[panels][kernel][kernel][16]`.
    panels: Vec<f32>,
    /// Padded with zeros.
    bias: Vec<f32>,
}

impl Depthwise {
    /// From weights `[channels, 1, kernel, kernel]` and biases `[channels]`.
    ///
    /// # Panics
    /// If there are not as many values as the sizes say, or one of them is zero.
    pub fn new(weight: &[f32], bias: &[f32], channels: usize, window: Window) -> Self {
        let taps = window.kernel * window.kernel;
        assert!(taps * channels * window.stride > 0 && weight.len() == channels * taps, "weights of a convolution");
        Self { channels, window, panels: panels(weight, taps, channels), bias: padded(bias, channels) }
    }
}

/// `[outputs, depth]` as `[panels][depth][16]`, padded with zeros.
fn panels(weight: &[f32], depth: usize, outputs: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; outputs.div_ceil(LANES) * depth * LANES];
    for (rows, panel) in weight.chunks(LANES * depth).zip(out.chunks_exact_mut(depth * LANES)) {
        for (column, row) in rows.chunks_exact(depth).enumerate() {
            for (value, line) in row.iter().zip(panel.chunks_exact_mut(LANES)) {
                line[column] = *value;
            }
        }
    }
    out
}

fn padded(bias: &[f32], outputs: usize) -> Vec<f32> {
    assert_eq!(bias.len(), outputs, "biases of a convolution");
    let mut out = bias.to_vec();
    out.resize(outputs.next_multiple_of(LANES), 0.0);
    out
}

/// An inverted bottleneck: wider by a product, each channel through its own window, narrower by a product; ReLU6 after the
/// first two.
#[derive(Debug, Clone)]
pub struct Bottleneck {
    /// What widens; none where the map is wide enough as it is.
    pub expand: Option<Dense>,
    /// What moves over the wide map.
    pub depthwise: Depthwise,
    /// What narrows.
    pub project: Dense,
    /// Whether the result is added to what came in.
    pub residual: bool,
}

/// The first convolution, from planes of pixels to maps, with ReLU6.
///
/// # Shapes
/// - `pixels`: `[images, inputs, height, width]`, which `sizes` says
/// # Panics
/// If there are not as many values as the sizes say, or one of them is zero.
pub fn stem(isa: Isa, pixels: &[f32], sizes: [usize; 4], dense: &Dense, stride: usize, spare: &Spare) -> Maps {
    let [images, inputs, height, width] = sizes;
    let window = Window { kernel: dense.kernel, stride };
    assert!(images * height * width * stride > 0 && inputs == dense.inputs, "sizes of a convolution");
    assert_eq!(pixels.len(), images * inputs * height * width, "pixels of a convolution");
    let ((down, top), (across, left)) = (window.same(height), window.same(width));
    let line = (left + width).max(window.reach(across));
    let rows_at_once = (BUFFER / (inputs * line)).saturating_sub(window.kernel).div_ceil(stride).clamp(1, CHUNK);
    let bands = down.div_ceil(rows_at_once).max(even(down, across * dense.depth() * dense.outputs));
    let out_stride = dense.outputs.next_multiple_of(LANES);
    let cells = down * across;
    let marks = Marks::new(images, &[]);
    let values = spare.written(images * cells * out_stride, |out| {
        parallel(images * bands, |i| {
            let image = i / bands;
            let (first, end) = share(down, bands, i % bands);
            let lines = window.reach(end - first);
            let plane = lines * line;
            with_buffer(inputs * plane, |buffer| {
                buffer.fill(0.0);
                for (input, plane) in buffer.chunks_exact_mut(plane).enumerate() {
                    for (i, to) in plane.chunks_exact_mut(line).enumerate() {
                        let Some(y) = (first * stride + i).checked_sub(top).filter(|&y| y < height) else {
                            continue;
                        };
                        let from = ((image * inputs + input) * height + y) * width;
                        to[left..left + width].copy_from_slice(&pixels[from..from + width]);
                    }
                }
                let runs: Vec<usize> = (0..inputs * window.kernel)
                    .map(|run| run / window.kernel * plane + run % window.kernel * line)
                    .collect();
                for y in first..end {
                    let product = Product {
                        a: buffer[(y - first) * stride * line..].as_ptr(),
                        lda: stride,
                        rows: across,
                        runs: &runs,
                        run: window.kernel,
                        dense,
                        panel: 0,
                        panels: dense.panel_count(),
                        relu6: true,
                        marked: true,
                        residual: None,
                        // SAFETY: the row is inside the maps.
                        out: unsafe { out.at((image * cells + y * across) * out_stride) },
                        ldo: out_stride,
                        plane: LANES,
                    };
                    // SAFETY: the set is available; runs, rows and results are inside what was allocated.
                    marks.and(image, unsafe { vectorize(isa, product) });
                }
            });
        });
    });
    Maps { images, height: down, width: across, channels: dense.outputs, values, finite: marks.take() }
}

/// A pointwise convolution with ReLU6, to planes. An image that was not finite on its way here is NaN throughout.
///
/// # Shapes
/// - `out`: `[images, outputs, height, width]`; every value is written
/// # Panics
/// If the convolution is not pointwise or takes other channels, or there is not room for as many values.
pub fn head(isa: Isa, maps: Maps, dense: &Dense, out: &mut [MaybeUninit<f32>], spare: &Spare) {
    assert!(dense.kernel == 1 && dense.inputs == maps.channels, "sizes of a convolution");
    let cells = maps.height * maps.width;
    let chunks = cells.div_ceil(CHUNK);
    let groups = dense.panel_count().div_ceil(GROUP);
    let stride = maps.stride();
    assert_eq!(out.len(), maps.images * dense.outputs * cells, "results of a convolution");
    let out = Shared::new(out.as_mut_ptr().cast::<f32>());
    parallel(maps.images * groups * chunks, |i| {
        let (image, group, chunk) = (i / (groups * chunks), i / chunks % groups, i % chunks);
        let (first, end) = share_of_tiles(cells, chunks, chunk);
        let (panel, last) = share(dense.panel_count(), groups, group);
        with_buffer((end - first) * GROUP * LANES, |buffer| {
            let product = Product {
                a: maps.values[(image * cells + first) * stride..].as_ptr(),
                lda: stride,
                rows: end - first,
                runs: &[0],
                run: dense.inputs,
                dense,
                panel,
                panels: last - panel,
                relu6: true,
                marked: false,
                residual: None,
                out: buffer.as_mut_ptr(),
                ldo: GROUP * LANES,
                plane: LANES,
            };
            // SAFETY: the set is available; rows and results are inside the maps and the buffer.
            unsafe { vectorize(isa, product) };
            let finite = maps.finite[image];
            for channel in panel * LANES..(last * LANES).min(dense.outputs) {
                let column = buffer[channel - panel * LANES..].iter().step_by(GROUP * LANES);
                let at = (image * dense.outputs + channel) * cells + first;
                for (i, value) in column.enumerate().take(end - first) {
                    // SAFETY: inside the result; no other task writes these cells of this channel.
                    unsafe { *out.at(at + i) = if finite { *value } else { f32::NAN } };
                }
            }
        });
    });
    spare.put(maps.values);
}

impl Bottleneck {
    /// The block's maps.
    ///
    /// # Panics
    /// If the parts do not fit each other or the maps.
    pub fn forward(&self, isa: Isa, maps: Maps, spare: &Spare) -> Maps {
        let Self { expand, depthwise, project, residual } = self;
        let inner = expand.as_ref().map_or(maps.channels, |expand| expand.outputs);
        assert!(expand.as_ref().is_none_or(|e| e.kernel == 1 && e.inputs == maps.channels), "what widens fits");
        assert!(depthwise.channels == inner, "channels of a depthwise convolution");
        assert!(project.kernel == 1 && project.inputs == inner, "what narrows fits");
        let ((down, _), (across, _)) = (depthwise.window.same(maps.height), depthwise.window.same(maps.width));
        let same = (down, across, project.outputs) == (maps.height, maps.width, maps.channels);
        assert!(same || !residual, "what is added fits");
        let wide = self.widen(isa, &maps, down, across, spare);
        let narrow = self.narrow(isa, &maps, &wide, down, across, spare);
        spare.put(wide);
        spare.put(maps.values);
        narrow
    }

    /// Up to the depthwise convolution's end, `[images, down, across, inner]`: a task computes a band of rows of a few
    /// panels, whose widened part stays in its buffer.
    fn widen(&self, isa: Isa, maps: &Maps, down: usize, across: usize, spare: &Spare) -> Vec<f32> {
        let Self { expand, depthwise, .. } = self;
        let window = depthwise.window;
        let ((_, top), (_, left)) = (window.same(maps.height), window.same(maps.width));
        let line = (left + maps.width).max(window.reach(across));
        let cells = maps.height * maps.width;
        let panels = depthwise.channels.div_ceil(LANES);
        let lines = (BUFFER / (line * GROUP * LANES)).max(window.kernel);
        let bands = down.div_ceil((lines - window.kernel) / window.stride + 1);
        // Narrower groups rather than more bands: the lines that two bands share are computed twice.
        let cost = expand.as_ref().map_or(0, |e| e.inputs * cells) + window.kernel * window.kernel * down * across;
        let groups = (even(panels, cost * LANES) / bands).min(panels.div_ceil(2)).max(panels.div_ceil(GROUP));
        let (stride, out_stride) = (maps.stride(), panels * LANES);
        spare.written(maps.images * down * across * out_stride, |out| {
            parallel(maps.images * groups * bands, |i| {
                let (image, group, band) = (i / (groups * bands), i / bands % groups, i % bands);
                let (panel, last) = share(panels, groups, group);
                let (first, end) = share(down, bands, band);
                let lines = window.reach(end - first);
                let (line, plane) = (line * LANES, lines * line * LANES);
                with_buffer((last - panel) * plane, |buffer| {
                    for i in 0..lines {
                        let y = (first * window.stride + i).checked_sub(top).filter(|&y| y < maps.height);
                        for plane in buffer.chunks_exact_mut(plane) {
                            let to = &mut plane[i * line..(i + 1) * line];
                            match y {
                                None => to.fill(0.0),
                                Some(_) => {
                                    to[..left * LANES].fill(0.0);
                                    to[(left + maps.width) * LANES..].fill(0.0);
                                }
                            }
                        }
                        let Some(y) = y else { continue };
                        let from = &maps.values[(image * cells + y * maps.width) * stride..][..maps.width * stride];
                        let Some(expand) = expand else {
                            for (panel, plane) in (panel..last).zip(buffer.chunks_exact_mut(plane)) {
                                let to = &mut plane[i * line + left * LANES..][..maps.width * LANES];
                                for (to, from) in to.chunks_exact_mut(LANES).zip(from.chunks_exact(stride)) {
                                    to.copy_from_slice(&from[panel * LANES..(panel + 1) * LANES]);
                                }
                            }
                            continue;
                        };
                        let product = Product {
                            a: from.as_ptr(),
                            lda: stride,
                            rows: maps.width,
                            runs: &[0],
                            run: expand.inputs,
                            dense: expand,
                            panel,
                            panels: last - panel,
                            relu6: true,
                            marked: false,
                            residual: None,
                            out: buffer[i * line + left * LANES..].as_mut_ptr(),
                            ldo: LANES,
                            plane,
                        };
                        // SAFETY: the set is available; rows and results are inside the maps and the buffer.
                        unsafe { vectorize(isa, product) };
                    }
                    let at = (image * down + first) * across * out_stride + panel * LANES;
                    let band = Band {
                        from: buffer.as_ptr(),
                        line,
                        plane,
                        window,
                        weight: depthwise.panels[panel * LANES * window.kernel * window.kernel..].as_ptr(),
                        bias: depthwise.bias[panel * LANES..].as_ptr(),
                        panels: last - panel,
                        down: end - first,
                        across,
                        // SAFETY: inside the result.
                        out: unsafe { out.at(at) },
                        ldo: out_stride,
                    };
                    // SAFETY: the set is available; the buffer holds all that the band reads.
                    unsafe { vectorize(isa, band) };
                });
            });
        })
    }

    fn narrow(&self, isa: Isa, maps: &Maps, wide: &[f32], down: usize, across: usize, spare: &Spare) -> Maps {
        let project = &self.project;
        let cells = down * across;
        let panels = project.panel_count();
        let (stride, out_stride) = (project.inputs.next_multiple_of(LANES), panels * LANES);
        let groups = panels.div_ceil(GROUP);
        let chunks = cells.div_ceil(CHUNK).max(even(cells, project.inputs * project.outputs).div_ceil(groups));
        let marks = Marks::new(maps.images, &maps.finite);
        let values = spare.written(maps.images * cells * out_stride, |out| {
            parallel(maps.images * groups * chunks, |i| {
                let (image, group, chunk) = (i / (groups * chunks), i / chunks % groups, i % chunks);
                let (panel, last) = share(panels, groups, group);
                let (first, end) = share_of_tiles(cells, chunks, chunk);
                let at = (image * cells + first) * out_stride + panel * LANES;
                let product = Product {
                    a: wide[(image * cells + first) * stride..].as_ptr(),
                    lda: stride,
                    rows: end - first,
                    runs: &[0],
                    run: project.inputs,
                    dense: project,
                    panel,
                    panels: last - panel,
                    relu6: false,
                    marked: true,
                    residual: self.residual.then(|| maps.values[at..].as_ptr()),
                    // SAFETY: inside the result.
                    out: unsafe { out.at(at) },
                    ldo: out_stride,
                    plane: LANES,
                };
                // SAFETY: the set is available; rows and results are inside the maps.
                marks.and(image, unsafe { vectorize(isa, product) });
            });
        });
        let finite = marks.take();
        Maps { images: maps.images, height: down, width: across, channels: project.outputs, values, finite }
    }
}

/// The `i`-th of `parts` shares of `count`, as even as they can be.
fn share(count: usize, parts: usize, i: usize) -> (usize, usize) {
    (count * i / parts, count * (i + 1) / parts)
}

/// The same of rows, in whole tiles.
fn share_of_tiles(rows: usize, parts: usize, i: usize) -> (usize, usize) {
    let (first, end) = share(rows.div_ceil(WIDE_ROWS), parts, i);
    ((first * WIDE_ROWS).min(rows), (end * WIDE_ROWS).min(rows))
}

/// Parts that `count` rows of `cost` products each are cut into for the threads: four a thread, but none so small that
/// handing it over costs as much.
fn even(count: usize, cost: usize) -> usize {
    // 10 µs at 100 products a nanosecond.
    const WORTH: usize = 1 << 20;
    (count * cost / WORTH).min(4 * rayon::current_num_threads()).clamp(1, count)
}

/// Values of this thread's memory, with whatever is in them.
fn with_buffer(count: usize, work: impl FnOnce(&mut [f32])) {
    with_room(lines::<f32>(count), |mut room| work(room.take(count)));
}

/// Whether each image is finite, said by tasks.
struct Marks(Vec<AtomicBool>);

impl Marks {
    fn new(images: usize, before: &[bool]) -> Self {
        Self((0..images).map(|i| AtomicBool::new(before.get(i).is_none_or(|finite| *finite))).collect())
    }

    fn and(&self, image: usize, finite: bool) {
        if !finite {
            self.0[image].store(false, Ordering::Relaxed);
        }
    }

    fn take(self) -> Vec<bool> {
        self.0.into_iter().map(AtomicBool::into_inner).collect()
    }
}

/// Rows times some panels, with what follows.
#[derive(Clone, Copy)]
struct Product<'a> {
    a: *const f32,
    /// Between rows.
    lda: usize,
    rows: usize,
    /// Where the pieces of a row begin, each `run` long.
    runs: &'a [usize],
    run: usize,
    dense: &'a Dense,
    panel: usize,
    panels: usize,
    relu6: bool,
    /// Whether it is said if every result is finite.
    marked: bool,
    /// As `out`.
    residual: Option<*const f32>,
    out: *mut f32,
    /// Between rows of the result.
    ldo: usize,
    /// Between its panels.
    plane: usize,
}

/// Rows and panels of a tile: 21 sums, three columns and a row's value in 32 registers, and sides that divide 7, 14, 28, 56 and
/// 112 as well as 48 channels.
const WIDE_ROWS: usize = 7;

impl Vectorized for Product<'_> {
    /// Whether every result is finite, or nobody asks.
    type Output = bool;
    #[inline(always)]
    unsafe fn run<V: Simd>(self) -> bool {
        // SAFETY: whoever made the product says that its rows, runs and results are there.
        unsafe {
            let mut mark = V::splat(0.0);
            let most = if V::TILE_PANELS > 1 { WIDE_ROWS } else { V::TILE_ROWS };
            let mut panel = 0;
            while panel < self.panels {
                let panels = if V::TILE_PANELS > 1 { GROUP.min(self.panels - panel) } else { 1 };
                let tiles = self.rows.div_ceil(most);
                let mut row = 0;
                for i in 0..tiles {
                    let rows = self.rows * (i + 1) / tiles - row;
                    // While the first rows read these panels, the next ones are asked for.
                    let ahead = if i < panels { panels + i } else { 0 };
                    let tile = Tile { product: &self, row, panel, ahead };
                    macro_rules! by_rows {
                        ($p:literal) => {
                            match rows {
                                1 => tile.run::<V, 1, $p>(&mut mark),
                                2 => tile.run::<V, 2, $p>(&mut mark),
                                3 => tile.run::<V, 3, $p>(&mut mark),
                                4 => tile.run::<V, 4, $p>(&mut mark),
                                5 => tile.run::<V, 5, $p>(&mut mark),
                                6 => tile.run::<V, 6, $p>(&mut mark),
                                _ => tile.run::<V, 7, $p>(&mut mark),
                            }
                        };
                    }
                    match panels {
                        1 => by_rows!(1),
                        2 => by_rows!(2),
                        _ => by_rows!(3),
                    }
                    row += rows;
                }
                panel += panels;
            }
            // Zero times what is not finite is NaN, and so is the sum.
            mark.sum() == 0.0
        }
    }
}

#[derive(Clone, Copy)]
struct Tile<'a> {
    product: &'a Product<'a>,
    row: usize,
    panel: usize,
    /// How many panels ahead one is asked for; none where it is 0.
    ahead: usize,
}

impl Tile<'_> {
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "rows and panels of a tile are numbers, and the sums stay in registers"
    )]
    unsafe fn run<V: Simd, const R: usize, const P: usize>(self, mark: &mut V) {
        let Product { a, lda, runs, run, dense, relu6, marked, residual, out, ldo, plane, .. } = *self.product;
        let depth = dense.depth();
        let panel = self.product.panel + self.panel;
        // SAFETY: as the product's; the panels are as long as `Dense` makes them.
        unsafe {
            let mut b = dense.panels.as_ptr().add(panel * depth * LANES);
            let mut sums = [[V::splat(0.0); P]; R];
            for p in 0..P {
                let bias = V::load(dense.bias.as_ptr().add((panel + p) * LANES));
                for r in 0..R {
                    sums[r][p] = bias;
                }
            }
            for at in runs {
                let mut a = a.add(self.row * lda + at);
                for _ in 0..run {
                    // Matrices of late blocks come from the third cache: 12 to 27 % of those blocks' time, measured.
                    prefetch(b.wrapping_add(self.ahead * depth * LANES).cast());
                    let mut columns = [V::splat(0.0); P];
                    for p in 0..P {
                        columns[p] = V::load(b.add(p * depth * LANES));
                    }
                    for r in 0..R {
                        let value = V::splat(*a.add(r * lda));
                        for p in 0..P {
                            sums[r][p] = value.mul_add(columns[p], sums[r][p]);
                        }
                    }
                    a = a.add(1);
                    b = b.add(LANES);
                }
            }
            // One short loop after the other: a long one is not unrolled, and then the sums lie in memory all the way (measured:
            // a third of the speed).
            if relu6 {
                for r in 0..R {
                    for p in 0..P {
                        sums[r][p] = math::relu6(sums[r][p]);
                    }
                }
            }
            if let Some(residual) = residual {
                for r in 0..R {
                    let residual = residual.add((self.row + r) * ldo + self.panel * plane);
                    for p in 0..P {
                        sums[r][p] = sums[r][p].add(V::load(residual.add(p * plane)));
                    }
                }
            }
            if marked {
                for r in 0..R {
                    for p in 0..P {
                        *mark = sums[r][p].mul_add(V::splat(0.0), *mark);
                    }
                }
            }
            for r in 0..R {
                let out = out.add((self.row + r) * ldo + self.panel * plane);
                for p in 0..P {
                    sums[r][p].store(out.add(p * plane));
                }
            }
        }
    }
}

/// A depthwise convolution of some rows and panels, with ReLU6; its border is in what it reads.
#[derive(Clone, Copy)]
struct Band {
    from: *const f32,
    /// Between lines.
    line: usize,
    /// Between panels.
    plane: usize,
    window: Window,
    weight: *const f32,
    bias: *const f32,
    panels: usize,
    down: usize,
    across: usize,
    out: *mut f32,
    /// Between cells of the result.
    ldo: usize,
}

impl Vectorized for Band {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        // SAFETY: whoever made the band says that what it reads and writes is there.
        unsafe {
            // A stride that is known makes every address a number beside one register.
            match self.window.stride {
                1 => self.rows::<V, 1>(),
                2 => self.rows::<V, 2>(),
                _ => self.rows::<V, 0>(),
            }
        }
    }
}

impl Band {
    /// Every row, by a stride of `S`, or any where it is 0.
    #[inline(always)]
    unsafe fn rows<V: Simd, const S: usize>(&self) {
        // SAFETY: as the band's.
        unsafe {
            for panel in 0..self.panels {
                for y in 0..self.down {
                    let mut x = 0;
                    while x < self.across {
                        let left = self.across - x;
                        // Sums that registers hold: fourteen of 32, seven of two halves in 16, or what a compiler makes of it.
                        x += if V::TILE_PANELS > 1 && left >= 14 {
                            self.cells::<V, S, 14>(panel, y, x)
                        } else if V::TILE_ROWS > 4 && left >= 7 {
                            self.cells::<V, S, 7>(panel, y, x)
                        } else if left >= 3 {
                            self.cells::<V, S, 3>(panel, y, x)
                        } else {
                            self.cells::<V, S, 1>(panel, y, x)
                        };
                    }
                }
            }
        }
    }

    /// `N` cells of a row; returns `N`.
    #[inline(always)]
    unsafe fn cells<V: Simd, const S: usize, const N: usize>(&self, panel: usize, y: usize, x: usize) -> usize {
        let kernel = self.window.kernel;
        let stride = if S > 0 { S } else { self.window.stride };
        // SAFETY: as the band's; a cell reads as far as the window reaches.
        unsafe {
            let mut weight = self.weight.add(panel * kernel * kernel * LANES);
            let mut sums = [V::load(self.bias.add(panel * LANES)); N];
            let from = self.from.add(panel * self.plane + y * stride * self.line + x * stride * LANES);
            for down in 0..kernel {
                let mut from = from.add(down * self.line);
                for _ in 0..kernel {
                    let tap = V::load(weight);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(from.add(i * stride * LANES)).mul_add(tap, *sum);
                    }
                    weight = weight.add(LANES);
                    from = from.add(LANES);
                }
            }
            let out = self.out.add((y * self.across + x) * self.ldo + panel * LANES);
            for (i, sum) in sums.into_iter().enumerate() {
                math::relu6(sum).store(out.add(i * self.ldo));
            }
        }
        N
    }
}
