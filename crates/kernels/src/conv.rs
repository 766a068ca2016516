//! The convolution tower's pass on flex, over packed weights; elsewhere towers compose it of Burn's convolutions.

use burn::tensor::{DType, Tensor, TensorData};

use crate::cpu::Isa;
use crate::cpu::conv::{Bottleneck, Dense, Depthwise, Maps, Spare, Window, head, stem};
use crate::cpu::rows::written;

/// Weights `[outputs, inputs / groups, kernel, kernel]` and biases `[outputs]` of a convolution on flex, and its stride.
#[derive(Debug, Clone, Copy)]
pub struct ConvWeights<'a> {
    /// The weights.
    pub weight: &'a Tensor<4>,
    /// The biases.
    pub bias: &'a Tensor<1>,
    /// The stride, down and across.
    pub stride: usize,
}

impl ConvWeights<'_> {
    fn dense(&self) -> Option<Dense> {
        let [outputs, inputs, kernel, _] = self.weight.dims();
        values(self.weight, |weight| values(self.bias, |bias| Dense::new(weight, bias, [outputs, inputs, kernel])))?
    }

    fn depthwise(&self) -> Option<Depthwise> {
        let [channels, _, kernel, _] = self.weight.dims();
        let window = Window { kernel, stride: self.stride };
        values(self.weight, |weight| values(self.bias, |bias| Depthwise::new(weight, bias, channels, window)))?
    }
}

/// An inverted bottleneck's packed weights; ReLU6 after the first two convolutions.
#[derive(Debug, Clone)]
pub struct PackedBottleneck(Bottleneck);

impl PackedBottleneck {
    /// Packs a block; `None` where its weights are not on flex.
    ///
    /// # Panics
    /// If a bias is not as long as its weights have outputs.
    pub fn new(
        expand: Option<ConvWeights>,
        depthwise: ConvWeights,
        project: ConvWeights,
        residual: bool,
    ) -> Option<Self> {
        let expand = match expand {
            Some(expand) => Some(expand.dense()?),
            None => None,
        };
        Some(Self(Bottleneck { expand, depthwise: depthwise.depthwise()?, project: project.dense()?, residual }))
    }
}

/// A stem, inverted bottlenecks and a pointwise head with packed weights, padded as TensorFlow's SAME, on flex.
#[derive(Debug)]
pub struct PackedTower {
    stem: Dense,
    stride: usize,
    blocks: Vec<Bottleneck>,
    head: Dense,
    spare: Spare,
}

impl PackedTower {
    /// Packs a stem and a head around blocks; `None` where their weights are not on flex.
    ///
    /// # Panics
    /// As [`PackedBottleneck::new`].
    pub fn new(stem: ConvWeights, blocks: Vec<PackedBottleneck>, head: ConvWeights) -> Option<Self> {
        let blocks = blocks.into_iter().map(|block| block.0).collect();
        let stride = stem.stride;
        Some(Self { stem: stem.dense()?, stride, blocks, head: head.dense()?, spare: Spare::default() })
    }

    /// Maps after the head, with ReLU6. An image with a value that is not finite after the stem or between two blocks is NaN
    /// throughout.
    ///
    /// `between` is given, by number, what leaves the stem (0) and each block, and says what goes on; without it maps never
    /// take the shape of tensors on their way.
    ///
    /// # Shapes
    /// - `pixels`: `[images, inputs, height, width]`, f32; what `between` takes and gives and what is returned:
    ///   `[images, channels, height, width]`
    /// # Numerics
    /// f32 throughout. An image's bits depend neither on the images beside it nor on the number of threads.
    /// # Panics
    /// If an image is empty or has other channels than the stem takes, or pixels are not on flex.
    pub fn forward(&self, pixels: &Tensor<4>, between: Option<&dyn Fn(usize, Tensor<4>) -> Tensor<4>>) -> Tensor<4> {
        let isa = Isa::current();
        let device = pixels.device();
        let tensor = |values, dims| Tensor::<4>::from_data(TensorData::new(values, dims), (&device, DType::F32));
        let [images, inputs, height, width] = pixels.dims();
        let steps = |pixels: &[f32], images: usize| {
            let sizes = [images, inputs, height, width];
            let mut maps = stem(isa, pixels, sizes, &self.stem, self.stride, &self.spare);
            for boundary in 0..=self.blocks.len() {
                if boundary > 0 {
                    maps = self.blocks[boundary - 1].forward(isa, maps, &self.spare);
                }
                if let Some(between) = between {
                    let passed = between(boundary, tensor(maps.to_planes(), maps.dims()));
                    let dims = passed.dims();
                    let back = values(&passed, |values| Maps::from_planes(values, dims)).expect("stays on its device");
                    maps = back.also_finite(maps.finite());
                }
            }
            maps
        };
        // A few images at a time: each has work for two threads or more, and their maps stay in caches and in spare memory.
        let at_once = if between.is_some() { images } else { rayon::current_num_threads().div_ceil(2) };
        let one = inputs * height * width;
        let (dims, planes) = values(pixels, |pixels| {
            let mut chunks = pixels.chunks(at_once.max(1) * one);
            let first = chunks.next().expect("images");
            let maps = steps(first, first.len() / one);
            let [_, _, down, across] = maps.dims();
            let dims = [images, self.head.outputs(), down, across];
            let planes = written(dims.iter().product(), |mut out| {
                let mut put = |maps: Maps| {
                    let count = maps.dims()[0] * dims[1] * dims[2] * dims[3];
                    let (now, later) = std::mem::take(&mut out).split_at_mut(count);
                    head(isa, maps, &self.head, now, &self.spare);
                    out = later;
                };
                put(maps);
                chunks.for_each(|pixels| put(steps(pixels, pixels.len() / one)));
            });
            (dims, planes)
        })
        .expect("weights are packed where pixels are on flex");
        tensor(planes, dims)
    }
}

/// Reads the f32 values of a tensor on flex; `None` elsewhere.
fn values<const D: usize, T>(_tensor: &Tensor<D>, _read: impl FnOnce(&[f32]) -> T) -> Option<T> {
    #[cfg(feature = "flex")]
    return crate::flex::values(_tensor, _read);
    #[cfg(not(feature = "flex"))]
    None
}
