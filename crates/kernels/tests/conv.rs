//! Convolutions over maps against the plain formula in f64, by every set of instructions that is here.

use omniburn_kernels::Isa;
use omniburn_kernels::cpu::conv::{self, Bottleneck, Dense, Depthwise, Maps, Spare, Window, stem};
use omniburn_kernels::cpu::rows::written;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Values from -1 to 1, by SplitMix64.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Weights `[outputs, inputs / groups, kernel, kernel]` that keep values about as large as they are, and biases.
struct Conv {
    weight: Vec<f32>,
    bias: Vec<f32>,
    outputs: usize,
    inputs: usize,
    window: Window,
    groups: usize,
}

impl Conv {
    fn new(outputs: usize, inputs: usize, window: Window, groups: usize, seed: u64) -> Self {
        let depth = inputs / groups * window.kernel * window.kernel;
        let scale = (3.0 / depth as f32).sqrt();
        let weight = values(outputs * depth, seed).into_iter().map(|v| v * scale).collect();
        Self { weight, bias: values(outputs, seed ^ 0xb1a5), outputs, inputs, window, groups }
    }

    fn dense(&self) -> Dense {
        Dense::new(&self.weight, &self.bias, [self.outputs, self.inputs, self.window.kernel])
    }

    fn depthwise(&self) -> Depthwise {
        Depthwise::new(&self.weight, &self.bias, self.outputs, self.window)
    }

    /// The formula: zeros around the map, as TensorFlow's SAME counts them.
    fn formula(&self, x: &Planes) -> Planes {
        let Window { kernel, stride } = self.window;
        let [images, _, height, width] = x.dims;
        let front = |side: usize| {
            let out = side.div_ceil(stride);
            (out, (((out - 1) * stride + kernel).saturating_sub(side) / 2) as isize)
        };
        let ((down, top), (across, left)) = (front(height), front(width));
        let (inputs, per_group) = (self.inputs / self.groups, self.outputs / self.groups);
        let mut out = Vec::with_capacity(images * self.outputs * down * across);
        for image in 0..images {
            for output in 0..self.outputs {
                for y in 0..down {
                    for x_out in 0..across {
                        let mut sum = f64::from(self.bias[output]);
                        for input in 0..inputs {
                            for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
                                let (row, column) =
                                    ((y * stride + i) as isize - top, (x_out * stride + j) as isize - left);
                                if row < 0 || column < 0 || row >= height as isize || column >= width as isize {
                                    continue;
                                }
                                let channel = output / per_group * inputs + input;
                                let at = ((image * self.inputs + channel) * height + row as usize) * width;
                                let weight = self.weight[((output * inputs + input) * kernel + i) * kernel + j];
                                sum += x.values[at + column as usize] * f64::from(weight);
                            }
                        }
                        out.push(sum);
                    }
                }
            }
        }
        Planes { values: out, dims: [images, self.outputs, down, across] }
    }
}

/// Values `[images, channels, height, width]`.
struct Planes {
    values: Vec<f64>,
    dims: [usize; 4],
}

impl Planes {
    fn new(values: &[f32], dims: [usize; 4]) -> Self {
        Self { values: values.iter().map(|&v| f64::from(v)).collect(), dims }
    }

    fn relu6(mut self) -> Self {
        self.values.iter_mut().for_each(|v| *v = v.clamp(0.0, 6.0));
        self
    }

    /// The largest difference.
    fn distance(&self, dims: [usize; 4], values: &[f32]) -> f64 {
        assert_eq!(dims, self.dims);
        assert_eq!(values.len(), self.values.len());
        self.values.iter().zip(values).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
    }
}

fn head(isa: Isa, maps: Maps, dense: &Dense, spare: &Spare) -> Vec<f32> {
    let [images, _, height, width] = maps.dims();
    written(images * dense.outputs() * height * width, |out| conv::head(isa, maps, dense, out, spare))
}

/// A case of the properties: `[images, height, width]`, channels, and what moves over them.
#[derive(Debug, Clone, Copy)]
struct Case {
    sizes: [usize; 3],
    inputs: usize,
    inner: Option<usize>,
    outputs: usize,
    window: Window,
    residual: bool,
    seed: u64,
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..20, select(vec![16, 24, 32, 40, 48, 49, 64, 80, 96, 97])]
}

fn sides() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..12, select(vec![7, 13, 14, 15, 21, 28, 29, 31])]
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1_usize..4, sides(), sides());
    let window = (select(vec![1_usize, 2, 3, 4, 5, 7]), 1_usize..4);
    (sizes, channels(), proptest::option::of(channels()), channels(), window, any::<bool>(), any::<u64>()).prop_map(
        |((images, height, width), inputs, inner, outputs, (kernel, stride), residual, seed)| {
            let (stride, outputs) = if residual { (1, inputs) } else { (stride, outputs) };
            let sizes = [images, height, width];
            Case { sizes, inputs, inner, outputs, window: Window { kernel, stride }, residual, seed }
        },
    )
}

const POINT: Window = Window { kernel: 1, stride: 1 };

struct Parts {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    residual: bool,
}

impl Parts {
    fn new(case: &Case) -> Self {
        let wide = case.inner.unwrap_or(case.inputs);
        Self {
            expand: case.inner.map(|inner| Conv::new(inner, case.inputs, POINT, 1, case.seed ^ 1)),
            depthwise: Conv::new(wide, wide, case.window, wide, case.seed ^ 2),
            project: Conv::new(case.outputs, wide, POINT, 1, case.seed ^ 3),
            residual: case.residual,
        }
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            expand: self.expand.as_ref().map(Conv::dense),
            depthwise: self.depthwise.depthwise(),
            project: self.project.dense(),
            residual: self.residual,
        }
    }

    fn formula(&self, x: &Planes) -> Planes {
        let wide = match &self.expand {
            Some(expand) => self.depthwise.formula(&expand.formula(x).relu6()),
            None => self.depthwise.formula(x),
        };
        let mut narrow = self.project.formula(&wide.relu6());
        if self.residual {
            narrow.values.iter_mut().zip(&x.values).for_each(|(sum, value)| *sum += value);
        }
        narrow
    }
}

/// Up to this a result may differ from the formula: values are about one, sums of up to a hundred products, three in a row.
const BOUND: f64 = 4e-6;

fn property<S: Strategy>(strategy: S, cases: u32, test: impl Fn(S::Value) -> f64) {
    // No file of failures: the seed is printed, and cases that failed become tests by name.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let worst = std::cell::Cell::new(0.0_f64);
    TestRunner::new(config)
        .run(&strategy, |case| {
            let distance = test(case);
            worst.set(worst.get().max(distance));
            prop_assert!(distance <= BOUND, "{distance:e}");
            Ok(())
        })
        .unwrap();
    println!("largest distance to the formula {:.1e}", worst.get());
}

#[test]
fn a_bottleneck_is_the_formula_at_any_shape() {
    for isa in Isa::available() {
        println!("{isa}");
        let spare = Spare::default();
        property(cases(), 64, |case| {
            let [images, height, width] = case.sizes;
            let dims = [images, case.inputs, height, width];
            let x = values(dims.iter().product(), case.seed);
            let parts = Parts::new(&case);
            let maps = parts.bottleneck().forward(isa, Maps::from_planes(&x, dims), &spare);
            assert_eq!(maps.finite(), vec![true; images]);
            parts.formula(&Planes::new(&x, dims)).distance(maps.dims(), &maps.to_planes())
        });
    }
}

#[test]
fn the_stem_is_the_formula_at_any_shape() {
    for isa in Isa::available() {
        println!("{isa}");
        let spare = Spare::default();
        property(cases(), 64, |case| {
            let [images, height, width] = case.sizes;
            let inputs = case.inputs.min(5);
            let dims = [images, inputs, height, width];
            let x = values(dims.iter().product(), case.seed);
            let conv = Conv::new(case.outputs, inputs, case.window, 1, case.seed ^ 4);
            let maps = stem(isa, &x, dims, &conv.dense(), case.window.stride, &spare);
            conv.formula(&Planes::new(&x, dims)).relu6().distance(maps.dims(), &maps.to_planes())
        });
    }
}

#[test]
fn the_head_is_the_formula_at_any_shape() {
    for isa in Isa::available() {
        println!("{isa}");
        let spare = Spare::default();
        property(cases(), 64, |case| {
            let [images, height, width] = case.sizes;
            let dims = [images, case.inputs, height, width];
            let x = values(dims.iter().product(), case.seed);
            let conv = Conv::new(case.outputs, case.inputs, POINT, 1, case.seed ^ 5);
            let planes = head(isa, Maps::from_planes(&x, dims), &conv.dense(), &spare);
            let formula = conv.formula(&Planes::new(&x, dims)).relu6();
            formula.distance([images, case.outputs, height, width], &planes)
        });
    }
}

/// A small tower whose parts are cut into several bands, groups and chunks.
struct Tower {
    stem: Dense,
    blocks: Vec<Bottleneck>,
    head: Dense,
    spare: Spare,
}

const SIDE: usize = 225;

impl Tower {
    fn new() -> Self {
        let case = |inputs, inner, outputs, kernel, stride, residual| {
            let window = Window { kernel, stride };
            Parts::new(&Case { sizes: [0; 3], inputs, inner, outputs, window, residual, seed: 17 }).bottleneck()
        };
        Self {
            stem: Conv::new(24, 3, Window { kernel: 3, stride: 2 }, 1, 11).dense(),
            blocks: vec![
                case(24, None, 16, 3, 1, false),
                case(16, Some(96), 16, 5, 1, true),
                case(16, Some(112), 40, 5, 3, false),
                case(40, Some(240), 40, 3, 1, true),
            ],
            head: Conv::new(100, 40, POINT, 1, 12).dense(),
            spare: Spare::default(),
        }
    }

    fn run(&self, isa: Isa, pixels: &[f32]) -> Vec<f32> {
        let images = pixels.len() / (3 * SIDE * SIDE);
        let mut maps = stem(isa, pixels, [images, 3, SIDE, SIDE], &self.stem, 2, &self.spare);
        for block in &self.blocks {
            maps = block.forward(isa, maps, &self.spare);
        }
        head(isa, maps, &self.head, &self.spare)
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn images_have_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads() {
    let pixels = values(3 * 3 * SIDE * SIDE, 5);
    let tower = Tower::new();
    for isa in Isa::available() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool(1).install(|| tower.run(isa, &pixels));
        assert!(together.iter().all(|v| v.is_finite()) && together.iter().any(|v| *v > 0.0));
        for threads in [2, 3, 7] {
            assert_eq!(bits(&pool(threads).install(|| tower.run(isa, &pixels))), bits(&together), "{isa} {threads}");
        }
        let alone: Vec<f32> = pixels.chunks(3 * SIDE * SIDE).flat_map(|one| tower.run(isa, one)).collect();
        assert_eq!(bits(&alone), bits(&together), "{isa}");
    }
}

#[test]
fn an_image_that_is_not_finite_on_its_way_is_nan_and_its_neighbours_keep_their_bits() {
    let dims = [3, 24, 20, 20];
    let one = dims[1] * dims[2] * dims[3];
    let x = values(3 * one, 3);
    let tower = Tower::new();
    for isa in Isa::available() {
        let run = |x: &[f32]| {
            let maps = Maps::from_planes(x, dims);
            head(
                isa,
                tower.blocks.iter().fold(maps, |maps, b| b.forward(isa, maps, &tower.spare)),
                &tower.head,
                &tower.spare,
            )
        };
        let good = run(&x);
        let width = good.len() / 3;
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = x.clone();
            x[one + one / 2] = bad;
            let got = run(&x);
            assert!(got[width..2 * width].iter().all(|v| v.is_nan()), "{isa} {bad}");
            for image in [0, 2] {
                let part = image * width..(image + 1) * width;
                assert_eq!(bits(&got[part.clone()]), bits(&good[part]), "{isa} {bad}");
            }
        }
    }
}

#[test]
fn a_sum_that_overflows_inside_the_tower_marks_its_image() {
    for isa in Isa::available() {
        let spare = Spare::default();
        let block = |factor: f32| Bottleneck {
            expand: None,
            depthwise: Depthwise::new(&[1.0], &[0.0], 1, POINT),
            project: Dense::new(&[factor], &[0.0], [1, 1, 1]),
            residual: true,
        };
        let maps = Maps::from_planes(&[1.0, 6.0], [2, 1, 1, 1]);
        // Six times 8e37 is more than f32 holds.
        let maps = block(8e37).forward(isa, maps, &spare);
        assert_eq!(maps.finite(), [true, false], "{isa}");
        let planes = head(isa, maps, &Dense::new(&[1.0], &[0.0], [1, 1, 1]), &spare);
        assert!(planes[0] == 6.0 && planes[1].is_nan(), "{isa} {planes:?}");
    }
}

#[test]
fn maps_go_to_planes_and_back() {
    let dims = [2, 37, 3, 5];
    let x = values(dims.iter().product(), 9);
    let maps = Maps::from_planes(&x, dims);
    assert_eq!(maps.dims(), dims);
    assert_eq!(maps.to_planes(), x);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let refused = |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    let spare = Spare::default();
    let maps = || Maps::from_planes(&[1.0; 12], [1, 3, 2, 2]);
    let dense = |outputs, inputs| Conv::new(outputs, inputs, POINT, 1, 1).dense();
    let block = |inputs, wide, channels, outputs, residual| Bottleneck {
        expand: Some(dense(wide, inputs)),
        depthwise: Conv::new(channels, channels, Window { kernel: 3, stride: 1 }, channels, 2).depthwise(),
        project: dense(outputs, channels),
        residual,
    };
    let run = |block: Bottleneck| refused(&|| drop(block.forward(Isa::Portable, maps(), &spare)));
    assert!(!run(block(3, 20, 20, 3, true)));
    assert!(run(block(4, 20, 20, 3, true)) && run(block(3, 20, 19, 3, true)) && run(block(3, 20, 20, 4, true)));
    assert!(refused(&|| drop(head(Isa::Portable, maps(), &dense(5, 4), &spare))));
    assert!(refused(&|| drop(stem(Isa::Portable, &[0.0; 11], [1, 3, 2, 2], &dense(5, 3), 1, &spare))));
    assert!(refused(&|| drop(stem(Isa::Portable, &[0.0; 12], [1, 3, 2, 2], &dense(5, 3), 0, &spare))));
    assert!(refused(&|| drop(Maps::from_planes(&[], [0, 3, 2, 2]))));
    assert!(refused(&|| drop(Dense::new(&[1.0; 6], &[1.0; 3], [2, 3, 1]))));
}
