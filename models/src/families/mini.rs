//! The mini family: one text encoder that also reads a few rows made of a picture, a film or speech.
//!
//! ```text
//! [start, row 1 .. row k, end] as the encoder's rows; u = unit mean of what comes out
//! picture, film   k = 6: class, whole map, four quadrants     vector = unit of w . (u, s, c)
//! speech          k = rows of the connector                   vector = unit of u + s
//! ```
//! `u` comes through the encoder, `s` straight from the connector, `c` from the classes a picture is likely of.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use omniburn_kernels as kernels;
use omniburn_kernels::{Activation, Segments};
use serde::{Deserialize, Serialize};

use crate::batch::{MelRows, TokenRows, upload};
use crate::blocks::pool::means;
use crate::blocks::taps::Taps;
use crate::blocks::{GeluMlp, LayerNorm, Linear, TokenTable, Weights, unit_rows};
use crate::capture;
use crate::error::{ConfigError, RecordError};
use crate::families::bert::{BertConfig, BertEncoder};
use crate::families::{nonzero, open_tower, positive, small};
use crate::record::{Dtype, RecordFolder, TensorSpec, text_file};
use crate::record::{layer_norm, linear_bias};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::conv::{ConvConfig, ConvTower};

/// Rows a picture gives the encoder: class, whole map, four quadrants.
pub const PICTURE_ROWS: usize = 2 + QUADRANTS;
const QUADRANTS: usize = 4;
/// Cells along a side of the grid that quadrants are made of.
const GRID: usize = 3;
/// Epsilon of the speech connector's norms.
const CONNECTOR_EPS: f64 = 1e-5;

/// Configuration of the family; a tower the checkpoint lacks is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniConfig {
    /// The text encoder.
    pub text: BertConfig,
    /// Id whose row opens every sequence.
    pub start: u32,
    /// Id whose row closes every sequence.
    pub end: u32,
    /// Pictures and film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureConfig>,
    /// Speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<SpeechConfig>,
}

/// The picture tower with its connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// The tower.
    pub tower: ConvConfig,
    /// Classes of the tower's classifier.
    pub classes: usize,
    /// Inner width of the MLPs that make rows.
    pub row_inner: usize,
    /// Inner width of the MLP that makes `s`.
    pub head_inner: usize,
    /// What logits are divided by before the softmax over classes.
    pub temperature: f64,
    /// Classes that `c` is made of: the likeliest so many.
    pub top_classes: usize,
    /// Weights of `u`, `s` and `c` in the vector.
    pub weights: [f64; 3],
}

/// The speech tower with its connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechConfig {
    /// The tower, one window a clip.
    pub tower: AudioConfig,
    /// Rows of the tower in one row of the connector.
    pub mean_rows: usize,
    /// Width of the connector's trunks.
    pub inner: usize,
    /// Rows a clip gives the encoder.
    pub rows: usize,
    /// Taps of the trunks' two convolutions, odd.
    pub kernels: [usize; 2],
}

impl MiniConfig {
    /// Checks every part.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        if !self.text.more_poolings.is_empty() || self.text.skips_prompt {
            // The connectors are trained to one vector of the encoder's width, and there is no prompt.
            return Err(ConfigError::OutOfRange {
                field: "text.pooling".into(),
                found: "several, or without the prompt".into(),
                expected: "one pooling of all rows".into(),
            });
        }
        for (field, id) in [("start", self.start), ("end", self.end)] {
            if id as usize >= self.text.vocab {
                return Err(ConfigError::OutOfRange {
                    field: field.into(),
                    found: id.to_string(),
                    expected: format!("less than text.vocab, {}", self.text.vocab),
                });
            }
        }
        self.picture.as_ref().map_or(Ok(()), PictureConfig::check)?;
        self.speech.as_ref().map_or(Ok(()), SpeechConfig::check)
    }

    /// Tensors of `tokens.bpk`: the word embeddings.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        self.text.token_tensors()
    }

    /// Tensors of `towers.bpk`.
    pub fn tower_tensors(&self) -> Vec<TensorSpec> {
        let picture = self.picture.iter().flat_map(|p| p.tower.tensors("picture"));
        let speech = self.speech.iter().flat_map(|s| s.tower.tensors("speech"));
        picture.chain(speech).collect()
    }

    /// Tensors of `text.<task>.bpk`: the encoder and the connectors.
    pub fn text_tensors(&self) -> Vec<TensorSpec> {
        let mut specs = self.text.text_tensors();
        specs.extend(self.picture.iter().flat_map(|p| p.connector_tensors(self.text.hidden)));
        specs.extend(self.speech.iter().flat_map(|s| s.connector_tensors(self.text.hidden)));
        specs
    }

    /// Opens the word embeddings.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        self.text.open_tokens(record)
    }

    /// Opens the picture tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_picture(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<ConvTower>, RecordError> {
        open_tower(self.picture.as_ref(), record, &self.tower_tensors(), compute, device, |picture, weights| {
            ConvTower::load(&picture.tower, weights, "picture")
        })
    }

    /// Opens the speech tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_speech(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<SpeechTower>, RecordError> {
        open_tower(self.speech.as_ref(), record, &self.tower_tensors(), compute, device, |speech, weights| {
            let tower = AudioTower::load(&speech.tower, weights, "speech");
            SpeechTower { tower, mean_rows: speech.mean_rows }
        })
    }

    /// Opens one task's encoder and connectors.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_text(
        &self,
        record: &RecordFolder,
        task: &str,
        tokens: TokenTable,
        compute: Dtype,
        device: &Device,
    ) -> Result<MiniText, RecordError> {
        record.check_task(task)?;
        let part = record.part(&text_file(task), &self.text_tensors())?;
        let weights = Weights::new(&part, compute, device);
        let end_row = |id: u32| {
            let mut row = Vec::new();
            tokens.gather(&[id], &mut row).expect("the configuration was checked against the table");
            upload(row, [1, 1, self.text.hidden], device)
        };
        let (start, end) = (end_row(self.start), end_row(self.end));
        Ok(MiniText {
            start,
            end,
            tokens,
            encoder: BertEncoder::load(&self.text, &weights, "backbone"),
            picture: self.picture.as_ref().map(|p| PictureConnector::load(p, &weights)),
            speech: self.speech.as_ref().map(|s| SpeechConnector::load(s, self.text.hidden, &weights)),
        })
    }
}

impl PictureConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.tower.check()?;
        nonzero(&[
            ("picture.classes", self.classes),
            ("picture.row_inner", self.row_inner),
            ("picture.head_inner", self.head_inner),
            ("picture.top_classes", self.top_classes),
        ])?;
        positive("picture.temperature", self.temperature)?;
        self.weights.iter().try_for_each(|&weight| positive("picture.weights", weight))
    }

    fn connector_tensors(&self, hidden: usize) -> Vec<TensorSpec> {
        let channels = self.tower.head;
        let mlp = |name: &str, inner| GeluMlp::tensors(&format!("picture_connector.{name}"), channels, inner, hidden);
        let mut specs = linear_bias("classifier", channels, self.classes).to_vec();
        specs.extend(mlp("global", self.row_inner));
        specs.extend(mlp("quadrant", self.row_inner));
        specs.extend(mlp("head", self.head_inner));
        specs.push(TensorSpec::rows("picture_connector.class_rows.weight", [self.classes, hidden]));
        specs.push(TensorSpec::rows("picture_connector.class_vectors.weight", [self.classes, hidden]));
        specs
    }
}

impl SpeechConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.tower.check()?;
        nonzero(&[("speech.mean_rows", self.mean_rows), ("speech.inner", self.inner), ("speech.rows", self.rows)])?;
        small(&self.kernels.map(|taps| ("speech.kernels", taps)))?;
        match self.kernels.iter().find(|&&taps| taps % 2 == 0) {
            Some(taps) => Err(ConfigError::OutOfRange {
                field: "speech.kernels".into(),
                found: taps.to_string(),
                expected: "odd numbers".into(),
            }),
            None => Ok(()),
        }
    }

    /// Mel frames that make one row of the connector, and the fewest that a clip may have.
    pub fn frames_per_row(&self) -> usize {
        2 * self.mean_rows
    }

    fn connector_tensors(&self, hidden: usize) -> Vec<TensorSpec> {
        let width = self.tower.hidden;
        let mut specs = Trunk::tensors(self, "speech_connector.a", width);
        specs.extend(linear_bias("speech_connector.a.out", self.rows * self.inner, hidden));
        specs.extend(Trunk::tensors(self, "speech_connector.b", width));
        specs.push(TensorSpec::linear("speech_connector.b.rows.weight", self.inner, hidden));
        specs.push(TensorSpec::exact("speech_connector.b.rows.bias", [self.rows, hidden]));
        specs
    }
}

/// The speech tower up to what the connector reads.
#[derive(Debug)]
pub struct SpeechTower {
    tower: AudioTower,
    mean_rows: usize,
}

impl SpeechTower {
    /// Rows of packed clips, ten a second where the tower gives fifty and the mean is of five; a rest is left out.
    ///
    /// # Shapes
    /// - `input.rows`: `[frames, mels]`, one window a clip; returns: `[rows, tower hidden]`, one segment a clip
    /// # Panics
    /// If a clip is longer than the tower's window or too short for one row.
    pub fn forward(&self, input: MelRows) -> TokenRows {
        let clips: Vec<usize> = input.windows.iter().map(|&frames| AudioConfig::window_rows(frames)).collect();
        let normed = self.tower.normed(self.tower.forward(input));
        let [_, width] = normed.dims();
        let mut start = 0;
        let mut pieces = Vec::new();
        let lengths: Vec<usize> = clips.iter().map(|rows| rows / self.mean_rows).collect();
        for (rows, len) in clips.iter().zip(&lengths) {
            assert!(*len > 0, "no mean of {} can be made of {rows} rows", self.mean_rows);
            let whole = normed.clone().slice_dim(0, start..start + len * self.mean_rows);
            pieces.push(whole.reshape([*len, self.mean_rows, width]).mean_dim(1).reshape([*len, width]));
            start += rows;
        }
        let rows = Tensor::cat(pieces, 0);
        let rows = capture::pass(|| "speech.rows".into(), rows);
        TokenRows { rows, segments: Segments::from_lengths(lengths) }
    }
}

/// One task's half of the model: word embeddings, encoder, connectors.
#[derive(Debug)]
pub struct MiniText {
    /// The word embeddings.
    pub tokens: TokenTable,
    /// The text encoder.
    pub encoder: BertEncoder,
    picture: Option<PictureConnector>,
    speech: Option<SpeechConnector>,
    start: Tensor<3>,
    end: Tensor<3>,
}

/// What a picture or film gives: unit rows, one an item, and their composition.
#[derive(Debug, Clone)]
pub struct PictureParts {
    /// Through the encoder, `[items, hidden]`.
    pub u: Tensor<2>,
    /// Straight from the connector, `[items, hidden]`.
    pub s: Tensor<2>,
    /// From the likeliest classes, `[items, hidden]`.
    pub c: Tensor<2>,
    /// The vector, `[items, hidden]`.
    pub vector: Tensor<2>,
}

/// What speech gives: unit rows, one a clip, and their composition.
#[derive(Debug, Clone)]
pub struct SpeechParts {
    /// Through the encoder, `[clips, hidden]`.
    pub u: Tensor<2>,
    /// Straight from the connector, `[clips, hidden]`.
    pub s: Tensor<2>,
    /// The vector, `[clips, hidden]`.
    pub vector: Tensor<2>,
}

impl MiniText {
    /// Unit vectors of texts; `rows` are word embeddings with both ends.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, hidden]`
    pub fn text(&self, rows: TokenRows) -> Tensor<2> {
        unit_rows(self.encoder.embed(rows))
    }

    /// Unit vectors of pictures.
    ///
    /// # Shapes
    /// - `maps`: `[pictures, channels, side, side]`, as [`ConvTower::forward`] gives them
    /// # Panics
    /// If the checkpoint has no picture tower.
    pub fn picture(&self, maps: Tensor<4>) -> PictureParts {
        let connector = self.picture.as_ref().expect("a record with a picture tower has its connector in every task");
        let seen = connector.look(maps);
        let u = unit_rows(self.encode(seen.rows));
        let [w_u, w_s, w_c] = connector.weights;
        let vector = unit_rows(u.clone() * w_u + seen.s.clone() * w_s + seen.c.clone() * w_c);
        PictureParts { u, s: seen.s, c: seen.c, vector }
    }

    /// The unit vector of a film: of the mean of its frames' maps.
    ///
    /// # Shapes
    /// - `maps`: `[frames, channels, side, side]`; returns: parts of one item
    /// # Panics
    /// As [`MiniText::picture`].
    pub fn film(&self, maps: Tensor<4>) -> PictureParts {
        self.picture(maps.mean_dim(0))
    }

    /// Unit vectors of speech.
    ///
    /// # Shapes
    /// - `clips.rows`: `[rows, tower hidden]`, one segment a clip, as [`SpeechTower::forward`] gives them
    /// # Panics
    /// If the checkpoint has no speech tower.
    pub fn speech(&self, clips: TokenRows) -> SpeechParts {
        let connector = self.speech.as_ref().expect("a record with a speech tower has its connector in every task");
        let s = connector.direct(&clips);
        let u = unit_rows(self.encode(connector.encoder_rows(&clips)));
        let vector = unit_rows(u.clone() + s.clone());
        SpeechParts { u, s, vector }
    }

    /// Pooled vectors of items that are `k` rows each, between the rows of both ends.
    ///
    /// # Shapes
    /// - `rows`: `[items, k, hidden]`; returns: `[items, hidden]`
    fn encode(&self, rows: Tensor<3>) -> Tensor<2> {
        let [items, k, hidden] = rows.dims();
        let (start, end) = (self.start.clone().repeat_dim(0, items), self.end.clone().repeat_dim(0, items));
        let rows = Tensor::cat(vec![start, rows, end], 1).reshape([items * (k + 2), hidden]);
        self.encoder.embed(TokenRows { rows, segments: Segments::from_lengths(vec![k + 2; items]) })
    }
}

#[derive(Module, Debug)]
struct PictureConnector {
    classifier: Linear,
    global: GeluMlp,
    quadrant: GeluMlp,
    head: GeluMlp,
    class_rows: Param<Tensor<2>>,
    class_vectors: Param<Tensor<2>>,
    temperature: f64,
    top_classes: usize,
    #[module(skip)]
    weights: [f64; 3],
}

/// What the connector makes of maps.
struct Seen {
    /// `[items, PICTURE_ROWS, hidden]`
    rows: Tensor<3>,
    s: Tensor<2>,
    c: Tensor<2>,
}

impl PictureConnector {
    fn load(config: &PictureConfig, weights: &Weights) -> Self {
        let mlp = |name: &str| GeluMlp::load(weights, &format!("picture_connector.{name}"));
        Self {
            classifier: Linear::load_biased(weights, "classifier"),
            global: mlp("global"),
            quadrant: mlp("quadrant"),
            head: mlp("head"),
            class_rows: weights.rows("picture_connector.class_rows.weight"),
            class_vectors: weights.rows("picture_connector.class_vectors.weight"),
            temperature: config.temperature,
            top_classes: config.top_classes.min(config.classes),
            weights: config.weights,
        }
    }

    fn look(&self, maps: Tensor<4>) -> Seen {
        let (whole, quadrants) = pooled_cells(maps);
        let logits = self.classifier.forward(whole.clone());
        let logits = capture::pass(|| "picture.logits".into(), logits);
        let likely = softmax(logits / self.temperature, 1); // [items, classes]
        let class = kernels::linear(likely.clone(), self.class_rows.val(), None);
        let global = self.global.forward(whole.clone());
        let quadrants = self.quadrant.forward(quadrants); // [items * 4, hidden]
        let [items, hidden] = global.dims();
        let rows = vec![
            class.reshape([items, 1, hidden]),
            global.reshape([items, 1, hidden]),
            quadrants.reshape([items, QUADRANTS, hidden]),
        ];
        let rows = Tensor::cat(rows, 1);
        let rows = capture::pass(|| "picture.rows".into(), rows);
        // Shares of the likeliest classes need not add up to one: the length goes at the end.
        let likeliest = kernels::linear(self.only_top(likely), self.class_vectors.val(), None);
        Seen { rows, s: unit_rows(self.head.forward(whole)), c: unit_rows(likeliest) }
    }

    /// The same shares with zeros in place of all but the largest.
    fn only_top(&self, shares: Tensor<2>) -> Tensor<2> {
        let last = self.top_classes - 1;
        let least = shares.clone().topk(self.top_classes, 1).slice_dim(1, last..last + 1); // [items, 1]
        let small = shares.clone().lower(least.expand(shares.shape()));
        shares.mask_fill(small, 0.0)
    }
}

/// Means over the whole of each map, `[items, channels]`, and over its quadrants, `[items * 4, channels]`, as one
/// product.
fn pooled_cells(maps: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
    let [items, channels, height, width] = maps.dims();
    let means = 1 + QUADRANTS;
    let weights: Tensor<2> = upload(cell_weights(height, width), [height * width, means], &maps.device());
    let cells = maps.reshape([items * channels, height * width]);
    let pooled = kernels::linear(cells, weights, None).reshape([items, channels, means]).swap_dims(1, 2);
    let whole = pooled.clone().slice_dim(1, 0..1).reshape([items, channels]);
    (whole, pooled.slice_dim(1, 1..means).reshape([items * QUADRANTS, channels]))
}

/// Weight of every cell in the mean of the whole map and in each quadrant's, `[height * width, 5]`.
///
/// Quadrants are (0,0), (0,1), (1,0), (1,1): each the mean of two by two cells of a grid of three by three, whose cells
/// are means of the map's from `floor(i n / 3)` to `ceil((i + 1) n / 3)`.
fn cell_weights(height: usize, width: usize) -> Vec<f32> {
    // Share of each row (or column) of the map in each row of the grid.
    let grid = |n: usize| -> Vec<Vec<f64>> {
        let bounds = (0..GRID).map(|i| (i * n / GRID, ((i + 1) * n).div_ceil(GRID)));
        let share = |(from, to): (usize, usize)| {
            (0..n).map(|at| if (from..to).contains(&at) { 1.0 / (to - from) as f64 } else { 0.0 }).collect()
        };
        bounds.map(share).collect()
    };
    let (down, across) = (grid(height), grid(width));
    let half = |shares: &[Vec<f64>], i: usize, at: usize| (shares[i][at] + shares[i + 1][at]) / 2.0;
    let mut weights = Vec::with_capacity(height * width * (1 + QUADRANTS));
    for y in 0..height {
        for x in 0..width {
            weights.push(1.0 / (height * width) as f32);
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                weights.push((half(&down, i, y) * half(&across, j, x)) as f32);
            }
        }
    }
    weights
}

#[derive(Module, Debug)]
struct SpeechConnector {
    a: Trunk,
    out: Linear,
    b: Trunk,
    rows: Linear,
    row_biases: Param<Tensor<2>>,
    inner: usize,
}

impl SpeechConnector {
    fn load(config: &SpeechConfig, hidden: usize, weights: &Weights) -> Self {
        let row_biases = weights.exact::<2>("speech_connector.b.rows.bias");
        debug_assert_eq!(row_biases.dims(), [config.rows, hidden]);
        Self {
            a: Trunk::load(config, weights, "speech_connector.a"),
            out: Linear::load_biased(weights, "speech_connector.a.out"),
            b: Trunk::load(config, weights, "speech_connector.b"),
            rows: Linear::load(weights, "speech_connector.b.rows"),
            row_biases,
            inner: config.inner,
        }
    }

    /// `s`: the trunk that hears a clip less its own mean, `[clips, hidden]`.
    fn direct(&self, clips: &TokenRows) -> Tensor<2> {
        let means = means(clips.rows.clone(), &clips.segments);
        let spread = clips
            .segments
            .iter()
            .enumerate()
            .map(|(i, (_, len))| means.clone().slice_dim(0, i..i + 1).repeat_dim(0, len));
        let rows = clips.rows.clone() - Tensor::cat(spread.collect(), 0);
        let rows = self.a.forward(rows, &clips.segments);
        let [count, _] = rows.dims();
        let clips = clips.segments.count();
        unit_rows(self.out.forward(rows.reshape([clips, count / clips * self.inner])))
    }

    /// Rows for the encoder, `[clips, rows, hidden]`.
    fn encoder_rows(&self, clips: &TokenRows) -> Tensor<3> {
        let rows = self.rows.forward(self.b.forward(clips.rows.clone(), &clips.segments));
        let ([_, hidden], [each, _]) = (rows.dims(), self.row_biases.dims());
        let rows = rows.reshape([clips.segments.count(), each, hidden]);
        let rows = rows + self.row_biases.val().reshape([1, each, hidden]);
        capture::pass(|| "speech.encoder_rows".into(), rows)
    }
}

/// Two convolutions over time, then a few rows, each a mean over time with weights of its own.
#[derive(Module, Debug)]
struct Trunk {
    norm1: LayerNorm,
    conv1: Linear,
    conv2: Linear,
    norm2: LayerNorm,
    attention: Linear,
    #[module(skip)]
    kernels: [usize; 2],
}

impl Trunk {
    fn tensors(config: &SpeechConfig, path: &str, width: usize) -> Vec<TensorSpec> {
        let (inner, [taps1, taps2]) = (config.inner, config.kernels);
        let mut specs = layer_norm(&format!("{path}.norm1"), width).to_vec();
        specs.extend(linear_bias(&format!("{path}.conv1"), taps1 * width, inner));
        specs.extend(linear_bias(&format!("{path}.conv2"), taps2 * inner, inner));
        specs.extend(layer_norm(&format!("{path}.norm2"), inner));
        specs.extend(linear_bias(&format!("{path}.attention"), inner, config.rows));
        specs
    }

    fn load(config: &SpeechConfig, weights: &Weights, path: &str) -> Self {
        let norm = |name: &str| LayerNorm::load(weights, &format!("{path}.{name}"), CONNECTOR_EPS);
        let linear = |name: &str| Linear::load_biased(weights, &format!("{path}.{name}"));
        Self {
            norm1: norm("norm1"),
            conv1: linear("conv1"),
            conv2: linear("conv2"),
            norm2: norm("norm2"),
            attention: linear("attention"),
            kernels: config.kernels,
        }
    }

    /// # Shapes
    /// - `x`: `[rows, width]`; returns: `[clips * pooled rows, inner]`, the rows of a clip together
    fn forward(&self, x: Tensor<2>, segments: &Segments) -> Tensor<2> {
        let same = |taps, rows| {
            let mut at = Taps::new(taps);
            segments.iter().for_each(|(start, len)| at.window(start, len, len, 1));
            at.gather(rows)
        };
        let hidden = self.conv1.activated(same(self.kernels[0], self.norm1.forward(x)), Activation::GeluErf);
        let hidden = hidden.clone() + self.conv2.activated(same(self.kernels[1], hidden), Activation::GeluErf);
        let hidden = self.norm2.forward(hidden);
        let scores = self.attention.forward(hidden.clone()); // [rows, pooled rows]
        let pooled = segments.iter().map(|(start, len)| {
            let weights = softmax(scores.clone().slice_dim(0, start..start + len), 0);
            weights.transpose().matmul(hidden.clone().slice_dim(0, start..start + len)) // [pooled rows, inner]
        });
        Tensor::cat(pooled.collect(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_cells_add_up_to_one_and_quadrants_look_where_they_should() {
        for (height, width) in [(7, 7), (2, 2), (1, 1), (5, 8)] {
            let weights = cell_weights(height, width);
            for mean in 0..1 + QUADRANTS {
                let sum: f32 = weights.iter().skip(mean).step_by(1 + QUADRANTS).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{height}x{width}, mean {mean}: {sum}");
            }
        }
        let weights = cell_weights(7, 7);
        let at = |y: usize, x: usize, mean: usize| weights[(y * 7 + x) * (1 + QUADRANTS) + mean];
        assert!(at(0, 0, 1) > 0.0 && at(4, 4, 1) > 0.0 && at(5, 0, 1) == 0.0 && at(0, 5, 1) == 0.0);
        assert!(at(0, 6, 2) > 0.0 && at(0, 1, 2) == 0.0);
        assert!(at(6, 6, 4) > 0.0 && at(1, 6, 4) == 0.0);
        // Row 2 lies in the first two cells of the grid, rows 0 and 1 in the first alone; each cell is three rows.
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-7, "{a} for {b}");
        near(at(2, 2, 1), 1.0 / 9.0);
        near(at(0, 0, 1), 1.0 / 36.0);
    }
}
