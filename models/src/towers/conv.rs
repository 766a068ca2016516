//! The convolution tower: pixels in, a map of channels out.

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use omniburn_kernels::{ConvWeights, PackedBottleneck, PackedTower, is_flex};
use serde::{Deserialize, Serialize};

use crate::builder::Builder;
use crate::capture;
use crate::checks::{layer_count, nonzero, small};
use crate::error::ConfigError;
use crate::flops;

/// Side of the stem's kernel.
const STEM_KERNEL: usize = 3;
/// Stride of the stem.
const STEM_STRIDE: usize = 2;
/// Where the activation is cut.
const RELU_TOP: f64 = 6.0;
/// Red, green, blue.
const CHANNELS: usize = 3;

/// Shape of the convolution tower; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Side of the square of pixels it reads.
    pub image_size: usize,
    /// Channels after the stem.
    pub stem: usize,
    /// Stages of inverted bottlenecks, in order.
    pub stages: Vec<ConvStage>,
    /// Channels of the map.
    pub head: usize,
}

/// Equal inverted bottlenecks in a row; the first of them changes size and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvStage {
    /// Factor by which a block widens its channels; 1 has no widening convolution.
    pub expand: usize,
    /// Channels after each block.
    pub channels: usize,
    /// Number of blocks.
    pub repeats: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Side of the depthwise kernel.
    pub kernel: usize,
}

/// One inverted bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bottleneck {
    inputs: usize,
    inner: usize,
    outputs: usize,
    stride: usize,
    kernel: usize,
}

impl Bottleneck {
    fn expands(&self) -> bool {
        self.inner != self.inputs
    }
}

impl ConvConfig {
    /// Checks sizes.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        nonzero(&[
            ("picture.image_size", self.image_size),
            ("picture.stem", self.stem),
            ("picture.stages", self.stages.len()),
            ("picture.head", self.head),
        ])?;
        for stage in &self.stages {
            nonzero(&[("picture.stages.channels", stage.channels)])?;
            small(&[
                ("picture.stages.expand", stage.expand),
                ("picture.stages.stride", stage.stride),
                ("picture.stages.kernel", stage.kernel),
            ])?;
            layer_count("picture.stages.repeats", stage.repeats)?;
        }
        Ok(())
    }

    /// Operations of one image, two a multiply-add.
    pub fn flops(&self) -> u64 {
        let cells = |side: usize| side * side;
        let mut side = self.image_size.div_ceil(STEM_STRIDE);
        let mut total = flops::product(cells(side), CHANNELS * STEM_KERNEL * STEM_KERNEL, self.stem);
        let mut channels = self.stem;
        for Bottleneck { inputs, inner, outputs, stride, kernel } in self.bottlenecks() {
            if inner != inputs {
                total += flops::product(cells(side), inputs, inner);
            }
            side = side.div_ceil(stride);
            // Each channel by itself: as a product with one input.
            total += flops::product(cells(side), kernel * kernel, inner);
            total += flops::product(cells(side), inner, outputs);
            channels = outputs;
        }
        total + flops::product(cells(side), channels, self.head)
    }

    /// f32 values alive for one image: the widest step, with what goes in and what comes out.
    pub fn values_alive(&self) -> usize {
        let mut side = self.image_size.div_ceil(STEM_STRIDE);
        let mut widest = CHANNELS * self.image_size * self.image_size + side * side * self.stem;
        for Bottleneck { inputs, inner, outputs, stride, .. } in self.bottlenecks() {
            let next = side.div_ceil(stride);
            widest = widest.max(side * side * (inputs + inner) + next * next * (inner + outputs));
            side = next;
        }
        widest
    }

    /// Side of the map in cells.
    pub fn map_side(&self) -> usize {
        let strides = self.stages.iter().map(|stage| stage.stride);
        strides.fold(self.image_size.div_ceil(STEM_STRIDE), |side, stride| side.div_ceil(stride))
    }

    fn bottlenecks(&self) -> Vec<Bottleneck> {
        let mut inputs = self.stem;
        let mut blocks = Vec::new();
        for stage in &self.stages {
            for repeat in 0..stage.repeats {
                let (inner, outputs) = (inputs * stage.expand, stage.channels);
                let stride = if repeat == 0 { stage.stride } else { 1 };
                blocks.push(Bottleneck { inputs, inner, outputs, stride, kernel: stage.kernel });
                inputs = outputs;
            }
        }
        blocks
    }
}

/// EfficientNet-Lite without its classifier: a stem, inverted bottlenecks, a head, no squeeze and excitation.
///
/// # Source
/// Tan and Le 2019 (arXiv 1905.11946); the Lite variant of the TensorFlow TPU release: ReLU6 everywhere, stem and head
/// of fixed width, SAME padding as TensorFlow counts it.
#[derive(Debug)]
pub struct ConvTower {
    inner: Inner,
    config: ConvConfig,
}

#[derive(Debug)]
enum Inner {
    /// On flex: kernels of ours over packed weights.
    Packed(Box<PackedTower>),
    /// Elsewhere: Burn's convolutions.
    Composed(Box<Composed>),
}

#[derive(Debug)]
struct Composed {
    stem: Conv,
    blocks: Vec<ConvBlock>,
    head: Conv,
}

#[derive(Debug)]
struct ConvBlock {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    residual: bool,
}

#[derive(Debug)]
struct Conv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    groups: usize,
}

/// A convolution's weights as kernels take them.
struct Views {
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
}

impl Views {
    fn view(&self) -> ConvWeights<'_> {
        ConvWeights { weight: &self.weight, bias: &self.bias, stride: self.stride }
    }
}

impl ConvTower {
    /// The tower: kernels `[outputs, inputs / groups, down, across]`, with batch norm folded in.
    pub fn build(config: &ConvConfig, b: &Builder<'_>) -> Self {
        let bottlenecks = config.bottlenecks();
        let channels = bottlenecks.last().map_or(config.stem, |block| block.outputs);
        let stem = Conv::build(b, "stem", [config.stem, CHANNELS, STEM_KERNEL], STEM_STRIDE);
        let blocks = bottlenecks.into_iter().enumerate();
        let blocks = blocks.map(|(i, block)| b.at(format!("blocks.{i}"), |b| ConvBlock::build(b, &block)));
        let head = || Conv::build(b, "head", [config.head, channels, 1], 1);
        if !b.device().is_some_and(is_flex) {
            let blocks = blocks.collect();
            let composed = Composed { stem, blocks, head: head() };
            return Self { inner: Inner::Composed(Box::new(composed)), config: config.clone() };
        }
        // One block at a time, so that each one's tensors are gone before the next one's come.
        let blocks: Option<Vec<_>> = blocks.map(|block| block.packed()).collect();
        let tower = blocks.and_then(|blocks| PackedTower::new(stem.values().view(), blocks, head().values().view()));
        let inner = Inner::Packed(Box::new(tower.expect("the device is flex")));
        Self { inner, config: config.clone() }
    }

    /// Operations of one image.
    pub fn flops(&self) -> u64 {
        self.config.flops()
    }

    /// f32 values alive for one image.
    pub fn values_alive(&self) -> usize {
        self.config.values_alive()
    }

    /// Maps of images, or of the frames of a video; images never see each other.
    ///
    /// # Shapes
    /// - `pixels`: `[images, 3, image_size, image_size]`, red, green, blue, brought to the tower's range
    /// - returns: `[images, head, side, side]`, see [`ConvConfig::map_side`]
    /// # Numerics
    /// f32, whatever the record stores. An infinite value between two blocks would be 6 after the next ReLU6 and the
    /// vector a wrong one: it makes the image's whole map NaN, which whoever reads vectors refuses.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let map = match &self.inner {
            // Maps become tensors on their way only where someone looks at them.
            Inner::Packed(tower) => tower.forward(&pixels, capture::listens().then_some(&pass_boundary)),
            Inner::Composed(tower) => tower.forward(pixels),
        };
        capture::pass(|| "picture.map".into(), map)
    }
}

/// What leaves the stem (0) or a block.
fn pass_boundary(boundary: usize, hidden: Tensor<4>) -> Tensor<4> {
    let name = || match boundary.checked_sub(1) {
        None => "picture.stem".into(),
        Some(block) => format!("picture.blocks.{block}"),
    };
    capture::pass(name, hidden)
}

impl Composed {
    fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut hidden = pass_boundary(0, relu6(self.stem.forward(pixels)));
        let mut mark = nan_unless_finite(&hidden);
        for (i, block) in self.blocks.iter().enumerate() {
            hidden = pass_boundary(i + 1, block.forward(hidden));
            mark = mark + nan_unless_finite(&hidden);
        }
        relu6(self.head.forward(hidden)) + mark
    }
}

impl ConvBlock {
    fn build(b: &Builder<'_>, block: &Bottleneck) -> Self {
        let Bottleneck { inputs, inner, outputs, stride, kernel } = *block;
        Self {
            expand: block.expands().then(|| Conv::build(b, "expand", [inner, inputs, 1], 1)),
            depthwise: Conv::build_depthwise(b, "depthwise", inner, kernel, stride),
            project: Conv::build(b, "project", [outputs, inner, 1], 1),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn packed(&self) -> Option<PackedBottleneck> {
        let expand = self.expand.as_ref().map(Conv::values);
        let (depthwise, project) = (self.depthwise.values(), self.project.values());
        PackedBottleneck::new(expand.as_ref().map(Views::view), depthwise.view(), project.view(), self.residual)
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let wide = match &self.expand {
            Some(expand) => relu6(expand.forward(input.clone())),
            None => input.clone(),
        };
        let narrow = self.project.forward(relu6(self.depthwise.forward(wide)));
        if self.residual { input + narrow } else { narrow }
    }
}

impl Conv {
    fn build(b: &Builder<'_>, name: &str, [outputs, inputs, kernel]: [usize; 3], stride: usize) -> Self {
        let weight = b.rows(&format!("{name}.weight"), [outputs, inputs, kernel, kernel]);
        Self { weight, bias: b.exact(&format!("{name}.bias"), [outputs]), stride, groups: 1 }
    }

    /// Nine or twenty-five values a row, kept in f32: int8 costs most here (of the loss of an image's vector, half) and saves
    /// least.
    fn build_depthwise(b: &Builder<'_>, name: &str, channels: usize, kernel: usize, stride: usize) -> Self {
        let weight = b.exact(&format!("{name}.weight"), [channels, 1, kernel, kernel]);
        Self { weight, bias: b.exact(&format!("{name}.bias"), [channels]), stride, groups: channels }
    }

    fn values(&self) -> Views {
        Views { weight: self.weight.val(), bias: self.bias.val(), stride: self.stride }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let ([_, _, height, width], [_, _, kernel, _]) = (x.dims(), weight.dims());
        let padding = [height, width].map(|side| same_padding(side, kernel, self.stride));
        let options = ConvOptions::new_with_padding([self.stride; 2], padding, [1, 1], self.groups);
        conv2d(x, weight, Some(self.bias.val()), options)
    }
}

/// Zeros before and after, as TensorFlow's SAME counts them: what is odd goes behind.
fn same_padding(side: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
    (total / 2, total - total / 2)
}

/// Zero for an image whose values are all finite, else NaN, `[images, 1, 1, 1]`. Measured on two cores with AVX-512: 0.06 ms
/// for all blocks of the tower that ships, whose pass takes 20 ms and more.
fn nan_unless_finite(maps: &Tensor<4>) -> Tensor<4> {
    let [images, channels, height, width] = maps.dims();
    let sums = maps.clone().reshape([images, channels * height * width]).sum_dim(1);
    (sums * 0.0).reshape([images, 1, 1, 1])
}

fn relu6(x: Tensor<4>) -> Tensor<4> {
    x.clamp(0.0, RELU_TOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_keeps_the_size_and_puts_what_is_odd_behind() {
        assert_eq!(same_padding(224, 3, 2), (0, 1));
        assert_eq!(same_padding(224, 3, 1), (1, 1));
        assert_eq!(same_padding(56, 5, 2), (1, 2));
        assert_eq!(same_padding(7, 5, 2), (2, 2));
        assert_eq!(same_padding(9, 1, 3), (0, 0));
    }

    #[test]
    fn stages_unroll_into_blocks() {
        let stage = |expand, channels, repeats, stride, kernel| ConvStage { expand, channels, repeats, stride, kernel };
        let stages = vec![stage(1, 16, 1, 1, 3), stage(6, 24, 2, 2, 5)];
        let config = ConvConfig { image_size: 64, stem: 8, stages, head: 24 };
        assert_eq!(config.map_side(), 16);
        let block = |inputs, inner, outputs, stride, kernel| Bottleneck { inputs, inner, outputs, stride, kernel };
        assert_eq!(config.bottlenecks(), [block(8, 8, 16, 1, 3), block(16, 96, 24, 2, 5), block(24, 144, 24, 1, 5)]);
        let (_, specs) = Builder::describe("picture", |b| ConvTower::build(&config, b));
        let names: Vec<String> = specs.into_iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), 2 * (1 + 2 + 3 + 3 + 1));
        assert!(!names.contains(&"picture.blocks.0.expand.weight".to_string()));
    }
}

#[cfg(all(test, feature = "flex"))]
mod packed_tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Values about one, by a sine that repeats late.
    fn values(count: usize, scale: f32, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) as f32 * 0.618).sin() * scale).collect()
    }

    fn conv(outputs: usize, inputs: usize, kernel: usize, stride: usize, groups: usize) -> Conv {
        let device = Device::flex();
        let depth = inputs / groups * kernel * kernel;
        let scale = (2.0 / depth as f32).sqrt();
        let weight = values(outputs * depth, scale, outputs + inputs);
        let weight = TensorData::new(weight, [outputs, inputs / groups, kernel, kernel]);
        let bias = TensorData::new(values(outputs, 0.5, kernel), [outputs]);
        let (weight, bias) = (Tensor::from_data(weight, &device), Tensor::from_data(bias, &device));
        Conv { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias), stride, groups }
    }

    fn block(inputs: usize, inner: usize, outputs: usize, kernel: usize, stride: usize) -> ConvBlock {
        ConvBlock {
            expand: (inner != inputs).then(|| conv(inner, inputs, 1, 1, 1)),
            depthwise: conv(inner, inner, kernel, stride, inner),
            project: conv(outputs, inner, 1, 1, 1),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn planes(map: Tensor<4>) -> Vec<f32> {
        map.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn the_packed_tower_is_the_composed_one() {
        let blocks = vec![block(24, 24, 16, 3, 1), block(16, 96, 40, 5, 2), block(40, 240, 40, 3, 1)];
        let composed = Composed { stem: conv(24, 3, 3, 2, 1), blocks, head: conv(100, 40, 1, 1, 1) };
        let blocks = composed.blocks.iter().map(|block| block.packed().expect("flex")).collect();
        let (stem, head) = (composed.stem.values(), composed.head.values());
        let packed = PackedTower::new(stem.view(), blocks, head.view()).expect("flex");
        let pixels = TensorData::new(values(5 * 3 * 45 * 45, 1.0, 3), [5, 3, 45, 45]);
        let pixels = Tensor::<4>::from_data(pixels, &Device::flex());
        let map = packed.forward(&pixels, None);
        assert_eq!(map.dims(), [5, 100, 12, 12]);
        let (map, looked_at) = (planes(map), planes(packed.forward(&pixels, Some(&|_, hidden| hidden))));
        assert!(map.iter().zip(&looked_at).all(|(a, b)| a.to_bits() == b.to_bits()), "looking changes a map");
        let far = planes(composed.forward(pixels)).iter().zip(&map).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("largest distance of the packed tower to the composed one {far:.1e}");
        assert!(far < 1e-5 && map.iter().any(|v| *v > 0.0 && *v < 6.0), "{far:e}");
    }
}
