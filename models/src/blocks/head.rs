//! From the rows of a sequence to its vector: poolings, and the Dense modules that sentence-transformers puts behind them.

use burn::module::Module;
use burn::tensor::{Tensor, activation};
use omniburn_kernels as kernels;
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use super::pool::{pooled, unit_rows};
use super::{Linear, Pooling};
use crate::builder::Builder;
use crate::error::ConfigError;

/// Poolings side by side that a configuration may ask for: each there is, twice. Published models have one or two.
const MOST_POOLINGS: usize = 12;
/// Dense modules that a configuration may ask for. Published models have one or two.
const MOST_DENSE: usize = 16;

/// What makes a vector of rows. In a record its fields stand among those of the family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorHeadConfig {
    /// Which rows make the vector.
    pub pooling: Pooling,
    /// Poolings whose vectors stand behind the first one's, in this order; mostly none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_poolings: Vec<Pooling>,
    /// Whether the rows up to the end of a prompt are left out of the poolings; the last row never is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_prompt: bool,
    /// Dense modules behind the poolings, in this order; mostly none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<DenseConfig>,
}

/// A Dense module: `activation(x @ weight + bias)`, with a residual where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseConfig {
    /// Numbers that go in.
    pub inputs: usize,
    /// Numbers that come out.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// What is done to the product.
    pub activation: DenseActivation,
    /// Whether what went in is added to what comes out; through a matrix of its own where the widths differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub residual: bool,
    /// Whether what goes in is brought to length 1 first: a Normalize module stands before this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub normalized: bool,
}

/// What a Dense module does to its product. Constants are the defaults of the class in torch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenseActivation {
    /// Nothing.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// GELU by the error function.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `max(x, 0) + 0.01 min(x, 0)`.
    LeakyRelu,
    /// `max(x, 0) + e^min(x, 0) - 1`.
    Elu,
    /// The self-normalising form of ELU.
    Selu,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `min(max(x, -1), 1)`.
    Hardtanh,
    /// `min(max(x + 3, 0), 6) / 6`.
    Hardsigmoid,
    /// `x * hardsigmoid(x)`.
    Hardswish,
    /// `x - tanh(x)`.
    Tanhshrink,
}

impl DenseActivation {
    /// Every one, with the name of its class in torch.
    pub const CLASSES: [(&'static str, Self); 17] = [
        ("Identity", Self::Identity),
        ("Tanh", Self::Tanh),
        ("ReLU", Self::Relu),
        ("ReLU6", Self::Relu6),
        ("GELU", Self::Gelu),
        ("SiLU", Self::Silu),
        ("Sigmoid", Self::Sigmoid),
        ("LeakyReLU", Self::LeakyRelu),
        ("ELU", Self::Elu),
        ("SELU", Self::Selu),
        ("Softplus", Self::Softplus),
        ("Softsign", Self::Softsign),
        ("Mish", Self::Mish),
        ("Hardtanh", Self::Hardtanh),
        ("Hardsigmoid", Self::Hardsigmoid),
        ("Hardswish", Self::Hardswish),
        ("Tanhshrink", Self::Tanhshrink),
    ];

    /// # Shapes
    /// - `x`: `[rows, width]`; returns: as `x`
    /// # Numerics
    /// f32.
    /// # Source
    /// torch 2.15.0, `torch.nn.modules.activation`.
    pub fn apply(self, x: Tensor<2>) -> Tensor<2> {
        let positive = |x: Tensor<2>| x.clamp_min(0.0);
        let negative = |x: Tensor<2>| x.clamp_max(0.0);
        // Of the smaller power, so that nothing overflows.
        let softplus = |x: Tensor<2>| positive(x.clone()) + (-x.abs()).exp().log1p();
        let hardsigmoid = |x: Tensor<2>| (x + 3.0).clamp(0.0, 6.0) / 6.0;
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => positive(x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Gelu => kernels::gelu_erf(x),
            Self::Silu => x.clone() * activation::sigmoid(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::LeakyRelu => positive(x.clone()) + negative(x) * 0.01,
            Self::Elu => positive(x.clone()) + (negative(x).exp() - 1.0),
            Self::Selu => {
                const ALPHA: f64 = 1.673_263_242_354_377_2;
                const SCALE: f64 = 1.050_700_987_355_480_5;
                (positive(x.clone()) + (negative(x).exp() - 1.0) * ALPHA) * SCALE
            }
            Self::Softplus => softplus(x),
            Self::Softsign => x.clone() / (x.abs() + 1.0),
            Self::Mish => x.clone() * softplus(x).tanh(),
            Self::Hardtanh => x.clamp(-1.0, 1.0),
            Self::Hardsigmoid => hardsigmoid(x),
            Self::Hardswish => x.clone() * hardsigmoid(x),
            Self::Tanhshrink => x.clone() - x.tanh(),
        }
    }
}

impl VectorHeadConfig {
    /// One pooling and nothing else.
    pub fn of(pooling: Pooling) -> Self {
        Self { pooling, more_poolings: Vec::new(), skips_prompt: false, dense: Vec::new() }
    }

    /// Numbers of a vector made of rows with `hidden` numbers.
    pub fn vector(&self, hidden: usize) -> usize {
        self.dense.last().map_or(self.pooled(hidden), |dense| dense.outputs)
    }

    /// Numbers behind the poolings.
    fn pooled(&self, hidden: usize) -> usize {
        hidden * (1 + self.more_poolings.len())
    }

    /// Checks sizes against each other and against `hidden`, the numbers of a row.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self, hidden: usize) -> Result<(), ConfigError> {
        at_most("text.more_poolings", self.more_poolings.len(), MOST_POOLINGS - 1)?;
        check_dense("text.dense", &self.dense, self.pooled(hidden))
    }

    /// Refuses everything but one pooling of all rows: what makes a score reads one row of the last layer.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check_alone(&self) -> Result<(), ConfigError> {
        let fault = |field: &str, found: String| {
            let expected = "none: a head that makes a score reads one row".into();
            Err(ConfigError::OutOfRange { field: field.into(), found, expected })
        };
        match self {
            Self { more_poolings, .. } if !more_poolings.is_empty() => {
                fault("text.more_poolings", more_poolings.len().to_string())
            }
            Self { dense, .. } if !dense.is_empty() => fault("text.dense", dense.len().to_string()),
            Self { skips_prompt: true, .. } => fault("text.skips_prompt", "true".into()),
            _ => Ok(()),
        }
    }
}

fn at_most(field: &str, found: usize, most: usize) -> Result<(), ConfigError> {
    match found <= most {
        true => Ok(()),
        false => Err(ConfigError::OutOfRange {
            field: field.into(),
            found: found.to_string(),
            expected: format!("at most {most}"),
        }),
    }
}

/// Checks Dense modules, `field` of a configuration, against each other and against the numbers that go into the first.
///
/// # Errors
/// [`ConfigError`] naming the first field that is wrong.
pub(crate) fn check_dense(field: &str, modules: &[DenseConfig], mut width: usize) -> Result<(), ConfigError> {
    at_most(field, modules.len(), MOST_DENSE)?;
    for (i, dense) in modules.iter().enumerate() {
        let (inputs, outputs) = (format!("{field}[{i}].inputs"), format!("{field}[{i}].outputs"));
        crate::checks::nonzero(&[(inputs.as_str(), dense.inputs), (outputs.as_str(), dense.outputs)])?;
        if dense.inputs != width {
            return Err(ConfigError::OutOfRange {
                field: inputs,
                found: dense.inputs.to_string(),
                expected: format!("{width}, the numbers that go in"),
            });
        }
        width = dense.outputs;
    }
    Ok(())
}

/// Poolings and Dense modules, opened.
#[derive(Module, Debug)]
pub struct VectorHead {
    #[module(skip)]
    config: VectorHeadConfig,
    dense: Vec<Dense>,
}

/// A Dense module, opened.
#[derive(Module, Debug)]
pub(crate) struct Dense {
    linear: Linear,
    residual: Option<Linear>,
    #[module(skip)]
    config: DenseConfig,
}

impl VectorHead {
    /// The head; Dense modules are `dense.{index}.linear` and `dense.{index}.residual`.
    pub fn build(config: &VectorHeadConfig, b: &Builder<'_>) -> Self {
        let one = |(i, dense): (usize, &DenseConfig)| b.at(format!("dense.{i}"), |b| Dense::build(dense, b));
        Self { dense: config.dense.iter().enumerate().map(one).collect(), config: config.clone() }
    }

    /// One vector a sequence, not normalised, made without the first `skipped` rows of each.
    ///
    /// # Shapes
    /// - `rows`: `[tokens, hidden]`; `skipped`: `[segments]` or empty; returns: `[segments, vector]`
    /// # Numerics
    /// Poolings and activations are f32; products are in the weights' type.
    /// # Source
    /// sentence-transformers 6.2.0, `Pooling`, `Dense`, `Normalize`.
    /// # Panics
    /// If a segment is left without a row.
    pub fn forward(&self, rows: Tensor<2>, segments: &Segments, skipped: &[usize]) -> Tensor<2> {
        let VectorHeadConfig { pooling, more_poolings, .. } = &self.config;
        let vectors = pooled(*pooling, more_poolings, rows, segments, skipped);
        self.dense.iter().fold(vectors, |vectors, dense| dense.forward(vectors))
    }

    /// Operations on one sequence.
    pub fn flops(&self) -> u64 {
        let products = self.dense.iter().flat_map(|dense| std::iter::once(&dense.linear).chain(&dense.residual));
        products.map(|linear| linear.flops(1)).sum()
    }
}

impl Dense {
    /// The module, `linear` and `residual`.
    pub fn build(config: &DenseConfig, b: &Builder<'_>) -> Self {
        let DenseConfig { inputs, outputs, bias, residual, .. } = *config;
        Self {
            linear: match bias {
                true => b.linear_biased("linear", inputs, outputs),
                false => b.linear("linear", inputs, outputs),
            },
            residual: (residual && inputs != outputs).then(|| b.linear("residual", inputs, outputs)),
            config: config.clone(),
        }
    }

    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = if self.config.normalized { unit_rows(x) } else { x };
        let activated = self.config.activation.apply(self.linear.forward(x.clone()));
        match (&self.residual, self.config.residual) {
            (Some(residual), _) => residual.forward_onto(x, activated),
            (None, true) => activated + x,
            (None, false) => activated,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    fn tensor(values: &[f32], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, values.len()]), (device, DType::F32))
    }

    /// Against the formulas in f64, and the same bits wherever a value stands.
    #[test]
    fn activations_equal_their_formulas() {
        let formula = |activation: DenseActivation, x: f64| {
            let softplus = |x: f64| if x > 20.0 { x } else { x.exp().ln_1p() };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let hardsigmoid = |x: f64| (x + 3.0).clamp(0.0, 6.0) / 6.0;
            let elu = |x: f64, alpha: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
            match activation {
                DenseActivation::Identity => x,
                DenseActivation::Tanh => x.tanh(),
                DenseActivation::Relu => x.max(0.0),
                DenseActivation::Relu6 => x.clamp(0.0, 6.0),
                // By the series of the error function, as far as it can be summed in f64.
                DenseActivation::Gelu if x.abs() > 5.0 => x.max(0.0),
                DenseActivation::Gelu => {
                    let z = x / 2f64.sqrt();
                    let (mut term, mut sum) = (z, z);
                    for n in 1..200 {
                        term *= -z * z / f64::from(n);
                        sum += term / f64::from(2 * n + 1);
                    }
                    0.5 * x * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
                }
                DenseActivation::Silu => x * sigmoid(x),
                DenseActivation::Sigmoid => sigmoid(x),
                DenseActivation::LeakyRelu => {
                    if x > 0.0 {
                        x
                    } else {
                        0.01 * x
                    }
                }
                DenseActivation::Elu => elu(x, 1.0),
                DenseActivation::Selu => 1.050_700_987_355_480_5 * elu(x, 1.673_263_242_354_377_2),
                DenseActivation::Softplus => softplus(x),
                DenseActivation::Softsign => x / (1.0 + x.abs()),
                DenseActivation::Mish => x * softplus(x).tanh(),
                DenseActivation::Hardtanh => x.clamp(-1.0, 1.0),
                DenseActivation::Hardsigmoid => hardsigmoid(x),
                DenseActivation::Hardswish => x * hardsigmoid(x),
                DenseActivation::Tanhshrink => x - x.tanh(),
            }
        };
        let device = Device::flex();
        let values: Vec<f32> = (-45..=45).map(|i| i as f32 * 0.1).chain([-30.0, 25.0, 0.01, -0.01]).collect();
        for (name, activation) in DenseActivation::CLASSES {
            let read = |x: Tensor<2>| activation.apply(x).into_data().try_to_vec::<f32>().unwrap();
            let got = read(tensor(&values, &device));
            for (i, (&x, &got)) in values.iter().zip(&got).enumerate() {
                let want = formula(activation, f64::from(x));
                let far = (f64::from(got) - want).abs();
                assert!(far <= 4e-7 * want.abs().max(1.0), "{name}({x}) = {got}, {want}");
                let alone = read(tensor(&values[i..=i], &device))[0];
                assert_eq!(alone.to_bits(), got.to_bits(), "{name}({x}) at place {i}");
            }
        }
    }

    #[test]
    fn a_head_whose_widths_do_not_meet_is_refused_by_name() {
        let dense = |inputs, outputs| DenseConfig {
            inputs,
            outputs,
            bias: false,
            activation: DenseActivation::Tanh,
            residual: false,
            normalized: false,
        };
        let head = |dense: Vec<DenseConfig>| VectorHeadConfig { dense, ..VectorHeadConfig::of(Pooling::Mean) };
        let good = head(vec![dense(8, 32), dense(32, 4)]);
        assert!(good.check(8).is_ok() && good.vector(8) == 4 && head(Vec::new()).vector(8) == 8);
        let refused = |head: VectorHeadConfig| head.check(8).unwrap_err().to_string();
        assert_eq!(
            refused(head(vec![dense(8, 32), dense(31, 4)])),
            "text.dense[1].inputs = 31, expected 32, the numbers that go in"
        );
        assert_eq!(refused(head(vec![dense(8, 0)])), "text.dense[0].outputs is zero");
        assert!(refused(head(vec![dense(8, 8); 17])).contains("text.dense = 17"));
        let many = VectorHeadConfig { more_poolings: vec![Pooling::Max; 12], ..VectorHeadConfig::of(Pooling::Cls) };
        assert!(refused(many).contains("text.more_poolings = 12"));
    }

    /// A record of before has no more than its pooling, and is written as it was.
    #[test]
    fn records_of_before_are_read_and_written_as_they_were() {
        for text in [r#"{"pooling":"mean"}"#, r#"{"pooling":"cls","more_poolings":["max"],"skips_prompt":true}"#] {
            let head: VectorHeadConfig = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&head).unwrap(), text);
        }
    }
}
