//! The mini family: one text encoder that also reads a few rows made of an image, a video or speech.
//!
//! ```text
//! [start, row 1 .. row k, end] as the encoder's rows; u = unit mean of what comes out
//! image, video   k = 6: class, whole map, four quadrants     vector = unit of w . (u, s, c)
//! speech          k = rows of the connector                   vector = unit of u + s
//! ```
//! `u` comes through the encoder, `s` straight from the connector, `c` from the classes an image is likely of.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use omniburn_kernels as kernels;
use omniburn_kernels::{Activation, Segments};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::{TokenRows, upload};
use crate::blocks::pool::means;
use crate::blocks::taps::Taps;
use crate::blocks::{GeluMlp, LayerNorm, Linear, Pooling, TokenTable, VectorHeadConfig, unit_rows};
use crate::builder::Builder;
use crate::capture;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, OneTask, Pattern, Steps, TemplateRule, TextFiles, layers};
use crate::checks::{nonzero, positive, small};
use crate::encoder::{Encoder, EncoderState};
use crate::error::{ConfigError, RecordError};
use crate::families::bert::{self, BertConfig};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Connected, Family, ImageEncoder, ImageForm, ModelSpec,
    Pass, PassInput, RowActivations, StepKind, TextModel, Tokens, TowerOutput, config,
};
use crate::flops::{Shape, product};
use crate::open::open_text;
use crate::pass::{Layered, LayeredPass};
use crate::record::{
    AudioPreprocess, Dtype, LetterboxPreprocess, Modality, Preprocess, RecordFolder, SourceAxes, TemplateKind,
};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::conv::{ConvConfig, ConvStage, ConvTower};
pub use crate::towers::speech::SpeechTower;

/// The family. Its folder is one that `models/mini/train` writes: MiniLM, EfficientNet-Lite, a Whisper encoder and the trained
/// connectors.
pub static FAMILY: Family = Family {
    name: "mini",
    about: "omniburn-mini: MiniLM text, EfficientNet-Lite images and video, Whisper speech",
    read: config::<MiniConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["omniburn-mini"],
    is_architecture: |_| false,
    known_as: "omniburn-mini",
    keys: KEYS,
    names: NAMES,
    read: |folder| Box::new(read(folder)),
    steps: Steps {
        texts: TextFiles::None,
        // Their rows open and close every sequence.
        tokens: &["[CLS]", "[SEP]"],
        one: OneTask { name: "retrieval", licence: "of its parts: Apache-2.0 and MIT, see its page" },
        ..Steps::TEXT
    },
};

/// The names of its folder.
const KEYS: KeyMap = KeyMap {
    renames: &[],
    endings: &[],
    drops: &[
        (Pattern::Prefix("text.pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
        (Pattern::Exact("speech.embed_positions.weight"), "the positions are a sinusoid, which is computed"),
    ],
};

/// From the names of a record to those of the folder.
const NAMES: &[(&str, &str)] = &[
    ("embed_tokens.", "text.embeddings.word_embeddings."),
    ("backbone.positions.", "text.embeddings.position_embeddings."),
    ("backbone.token_types.", "text.embeddings.token_type_embeddings."),
    ("backbone.norm.", "text.embeddings.LayerNorm."),
    ("backbone.layers.", "text.encoder.layer."),
    (".attention.query.", ".attention.self.query."),
    (".attention.key.", ".attention.self.key."),
    (".attention.value.", ".attention.self.value."),
    (".attention.out.", ".attention.output.dense."),
    (".attention.norm.", ".attention.output.LayerNorm."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".mlp.norm.", ".output.LayerNorm."),
    ("speech.ln_post.", "speech.layer_norm."),
    ("classifier.", "picture.classifier."),
];

/// Least seconds of audio, filled with silence.
const LEAST_SECONDS: u32 = 2;
/// Epsilon of Whisper's norms.
const SPEECH_EPS: f64 = 1e-5;

/// Rows an image gives the encoder: class, whole map, four quadrants.
pub const IMAGE_ROWS: usize = 2 + QUADRANTS;
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
    /// Images and video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "picture")]
    pub image: Option<ImageConfig>,
    /// Speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<SpeechConfig>,
}

/// The image tower with its connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
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
    /// One task's encoder and connectors.
    pub fn build(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> MiniText {
        let hidden = self.text.hidden;
        let tokens = tokens.table(self.text.vocab, hidden);
        let encoder = b.at("backbone", |b| Encoder::build(&self.text.shape(), b));
        let image = self.image.as_ref().map(|p| ImageConnector::build(p, hidden, b));
        let speech = self.speech.as_ref().map(|s| b.at("speech_connector", |b| SpeechConnector::build(s, hidden, b)));
        let end_row = |id: u32| {
            b.computed([1, 1, hidden], |device| {
                let mut row = Vec::new();
                tokens.gather(&[id], &mut row).expect("the configuration was checked against the table");
                upload(row, [1, 1, hidden], device)
            })
        };
        let (start, end) = (end_row(self.start), end_row(self.end));
        MiniText { start, end, encoder, image, speech, tokens, pooling: self.text.vector_head.pooling }
    }

    /// Opens the word embeddings.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        self.text.open_tokens(record)
    }

    /// Opens the image tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_image(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<ConvTower>, RecordError> {
        Ok(match record.header().family.open_image(record, compute, device)? {
            Some(ImageEncoder::Pixels(tower)) => Some(tower),
            _ => None,
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
        Ok(match record.header().family.open_audio(record, compute, device)? {
            Some(AudioEncoder::Windows(tower)) => Some(*tower),
            _ => None,
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
        open_text(record, task, &tokens, compute, device, |b, tokens| self.build(b, tokens))
    }
}

impl Architecture for MiniConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        let one = VectorHeadConfig::of(self.text.vector_head.pooling);
        if self.text.vector_head != one || self.text.head.is_some() {
            // The connectors are trained to one vector of the encoder's width, and there is no prompt.
            return Err(ConfigError::OutOfRange {
                field: "text.pooling".into(),
                found: "several, or without the prompt, or with Dense modules or a head behind it".into(),
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
        self.image.as_ref().map_or(Ok(()), ImageConfig::check)?;
        self.speech.as_ref().map_or(Ok(()), SpeechConfig::check)
    }

    fn spec(&self) -> ModelSpec {
        let image = self.image.as_ref().map(|p| ImageForm::Pixels {
            image_size: p.tower.image_size,
            rows: IMAGE_ROWS,
            patch_px: None,
        });
        let audio = self.speech.as_ref().map(|s| AudioForm::Windows { mels: s.tower.mels, rows: s.rows });
        ModelSpec { image, audio, ends: Some([self.start, self.end]), ..self.text.spec() }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        let image = self.image.as_ref()?;
        Some(ImageEncoder::Pixels(b.at("picture", |b| ConvTower::build(&image.tower, b))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        let speech = self.speech.as_ref()?;
        let tower = b.at("speech", |b| AudioTower::build(&speech.tower, b));
        let trunks = speech.kernels.iter().sum::<usize>() * speech.inner / (2 * speech.mean_rows);
        Some(AudioEncoder::Windows(Box::new(SpeechTower::new(tower, speech.mean_rows, trunks))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(self.build(b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.text.vector_head)
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = self.text.words(preprocess);
        if let Some(p) = &self.image {
            let (size, side) = (p.tower.image_size, p.tower.map_side());
            let words = format!("convolutions over {size}x{size} pixels to {side}x{side} cells of {}", p.tower.head);
            lines.push(("images", format!("{words}, {} classes", p.classes)));
        }
        if let (Some(s), Some(audio)) = (&self.speech, &preprocess.audio) {
            let (mels, rate) = (audio.mels, audio.sample_rate_hz);
            let words = format!("{} blocks of {}, {mels} mel bands at {rate} Hz", s.tower.layers, s.tower.hidden);
            lines.push(("speech", format!("{words}, {} rows a clip", s.rows)));
        }
        lines
    }
}

impl ImageConfig {
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
}

/// One task's half of the model: word embeddings, encoder, connectors.
#[derive(Debug)]
pub struct MiniText {
    /// The word embeddings.
    pub tokens: TokenTable,
    /// The text encoder.
    pub encoder: Encoder,
    image: Option<ImageConnector>,
    speech: Option<SpeechConnector>,
    start: Param<Tensor<3>>,
    end: Param<Tensor<3>>,
    pooling: Pooling,
}

/// What an image or video gives: unit rows, one an item, and their composition.
#[derive(Debug, Clone)]
pub struct ImageParts {
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
        self.run(rows.into())
    }

    /// Unit vectors of images.
    ///
    /// # Shapes
    /// - `maps`: `[images, channels, side, side]`, as [`ConvTower::forward`] gives them
    /// # Panics
    /// If the checkpoint has no image tower.
    pub fn image(&self, maps: Tensor<4>) -> ImageParts {
        let connector = self.image.as_ref().expect("a record with an image tower has its connector in every task");
        let seen = connector.look(maps);
        let u = unit_rows(self.encode(seen.rows));
        let [w_u, w_s, w_c] = connector.weights;
        let vector = unit_rows(u.clone() * w_u + seen.s.clone() * w_s + seen.c.clone() * w_c);
        ImageParts { u, s: seen.s, c: seen.c, vector }
    }

    /// The unit vector of a video: of the mean of its frames' maps.
    ///
    /// # Shapes
    /// - `maps`: `[frames, channels, side, side]`; returns: parts of one item
    /// # Panics
    /// As [`MiniText::image`].
    pub fn video(&self, maps: Tensor<4>) -> ImageParts {
        self.image(maps.mean_dim(0))
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
        let (start, end) = (self.start.val().repeat_dim(0, items), self.end.val().repeat_dim(0, items));
        let rows = Tensor::cat(vec![start, rows, end], 1).reshape([items * (k + 2), hidden]);
        let segments = Segments::from_lengths(vec![k + 2; items]);
        self.pooling.apply(self.encoder.forward(TokenRows { rows, segments: segments.clone() }), &segments)
    }
}

impl Layered for MiniText {
    type State = EncoderState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> EncoderState {
        self.encoder.enter(rows, None, &[])
    }

    fn layers(&self) -> usize {
        self.encoder.layers()
    }

    fn layer(&self, index: usize, state: EncoderState) -> EncoderState {
        self.encoder.layer(index, state)
    }

    fn leave(&self, state: EncoderState, skipped: &[usize]) -> Tensor<2> {
        let (rows, segments) = Encoder::leave(state);
        unit_rows(self.pooling.apply_after(rows, &segments, skipped))
    }

    fn grouped(&self) -> Option<usize> {
        Some(self.encoder.layer_parameters())
    }
}

impl TextModel for MiniText {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn step_layers(&self, rows: usize) -> usize {
        Layered::step_layers(self, rows)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        match output {
            TowerOutput::Pixels(maps) => {
                self.image.as_ref()?;
                Some(Connected::Vectors(self.image(maps).vector))
            }
            TowerOutput::Windows(rows) => {
                self.speech.as_ref()?;
                Some(Connected::Vectors(self.speech(rows).vector))
            }
            TowerOutput::Patches(_) | TowerOutput::Mel(..) | TowerOutput::Audio(_) => None,
        }
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        // Rows of a medium stand between those of both ends.
        let encoded = |rows: usize| self.encoder.flops(rows + 2);
        match shape {
            Shape::Text { tokens } => Some(self.encoder.flops(*tokens)),
            Shape::Patches { .. } | Shape::Parts { .. } => None,
            Shape::Pixels { .. } => Some(self.image.as_ref()?.flops() + encoded(IMAGE_ROWS)),
            Shape::Mel { clips, .. } => {
                let speech = self.speech.as_ref()?;
                Some(clips.iter().map(|&frames| speech.flops(frames) + encoded(speech.rows())).sum())
            }
        }
    }

    fn activations(&self) -> RowActivations {
        self.encoder.activations()
    }
}

#[derive(Module, Debug)]
struct ImageConnector {
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
    /// Cells of a map.
    cells: usize,
}

/// What the connector makes of maps.
struct Seen {
    /// `[items, IMAGE_ROWS, hidden]`
    rows: Tensor<3>,
    s: Tensor<2>,
    c: Tensor<2>,
}

impl ImageConnector {
    fn build(config: &ImageConfig, hidden: usize, b: &Builder<'_>) -> Self {
        let ImageConfig { classes, row_inner, head_inner, .. } = *config;
        let channels = config.tower.head;
        let mlp = |name: &str, inner| {
            b.at(format!("picture_connector.{name}"), |b| GeluMlp::build(b, channels, inner, hidden))
        };
        Self {
            classifier: b.linear_biased("classifier", channels, classes),
            global: mlp("global", row_inner),
            quadrant: mlp("quadrant", row_inner),
            head: mlp("head", head_inner),
            class_rows: b.rows("picture_connector.class_rows.weight", [classes, hidden]),
            class_vectors: b.rows("picture_connector.class_vectors.weight", [classes, hidden]),
            temperature: config.temperature,
            top_classes: config.top_classes.min(classes),
            weights: config.weights,
            cells: config.tower.map_side() * config.tower.map_side(),
        }
    }

    /// Operations of one image.
    fn flops(&self) -> u64 {
        let (channels, hidden) = (self.classifier.inputs(), self.head.outputs());
        product(channels, self.cells, 1 + QUADRANTS)
            + self.classifier.flops(1)
            + 2 * product(1, self.classifier.outputs(), hidden)
            + self.global.flops(1)
            + self.quadrant.flops(QUADRANTS)
            + self.head.flops(1)
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
    /// Rows of the tower in one row of the connector.
    mean_rows: usize,
}

impl SpeechConnector {
    fn build(config: &SpeechConfig, hidden: usize, b: &Builder<'_>) -> Self {
        let SpeechConfig { rows, inner, .. } = *config;
        Self {
            a: b.at("a", |b| Trunk::build(config, b)),
            out: b.linear_biased("a.out", rows * inner, hidden),
            b: b.at("b", |b| Trunk::build(config, b)),
            rows: b.linear("b.rows", inner, hidden),
            row_biases: b.exact("b.rows.bias", [rows, hidden]),
            inner,
            mean_rows: config.mean_rows,
        }
    }

    /// Rows that a window gives the encoder.
    fn rows(&self) -> usize {
        self.row_biases.lazy_shape()[0]
    }

    /// Operations on one window of this many mel frames.
    fn flops(&self, frames: usize) -> u64 {
        let rows = AudioConfig::window_rows(frames) / self.mean_rows;
        self.a.flops(rows) + self.b.flops(rows) + self.out.flops(1) + self.rows.flops(self.rows())
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
    fn build(config: &SpeechConfig, b: &Builder<'_>) -> Self {
        let (width, inner, [taps1, taps2]) = (config.tower.hidden, config.inner, config.kernels);
        let convolution =
            |name, taps, channels| b.convolution(name, taps * channels, inner, SourceAxes::Convolution { taps });
        Self {
            norm1: b.layer_norm("norm1", width, CONNECTOR_EPS),
            conv1: convolution("conv1", taps1, width),
            conv2: convolution("conv2", taps2, inner),
            norm2: b.layer_norm("norm2", inner, CONNECTOR_EPS),
            attention: b.linear_biased("attention", inner, config.rows),
            kernels: config.kernels,
        }
    }

    /// Operations on this many rows of the connector.
    fn flops(&self, rows: usize) -> u64 {
        let products = [&self.conv1, &self.conv2, &self.attention];
        // The scores weigh the rows in another product as large as theirs.
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + self.attention.flops(rows)
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

/// From its folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> MiniConfig {
    let (root, tensors) = (folder.config, folder.tensors);
    let text = folder.inner("text_config", "text_config.");
    text.only_text("model_type", "bert");
    let mut preprocess = Preprocess::default();
    let image = root.get("picture_config").map(|_| {
        let tower = folder.inner("picture_config", "picture_config.");
        let connector = folder.inner("picture_connector", "picture_connector.");
        let (image, letterbox) = read_image(tower, connector, tensors);
        preprocess.letterbox = Some(letterbox);
        preprocess.video_frames = Some(root.needed_size("video_frames") as u32);
        image
    });
    let speech = root.get("speech_config").map(|_| {
        let tower = folder.inner("speech_config", "speech_config.");
        let connector = folder.inner("speech_connector", "speech_connector.");
        let (speech, audio) = read_speech(tower, connector, tensors);
        preprocess.audio = Some(audio);
        speech
    });
    let text = bert::read_encoder(text, tensors, VectorHeadConfig::of(Pooling::Mean));
    let &[start, end] = folder.token_ids else { panic!("the two tokens of the steps are looked up before") };
    let media =
        [(Modality::Image, image.is_some()), (Modality::Audio, speech.is_some()), (Modality::Video, image.is_some())];
    // Rows stand between the ends a text has, and no other way.
    let template = |modality| TemplateRule {
        modality,
        kind: TemplateKind::Noeos,
        fixed: true,
        start: ("start", Some(start)),
        end: ("end", Some(end)),
    };
    let mut details = folder.details.borrow_mut();
    details.templates = media.into_iter().filter(|(_, there)| *there).map(|(modality, _)| template(modality)).collect();
    details.preprocess = preprocess;
    MiniConfig { text, start, end, image, speech }
}

fn read_image(tower: Fields<'_>, connector: Fields<'_>, tensors: usize) -> (ImageConfig, LetterboxPreprocess) {
    tower.only_text("model_type", "efficientnet-lite");
    let five = |value: &Value| -> Option<ConvStage> {
        let numbers: Option<Vec<usize>> = value
            .as_array()?
            .iter()
            .map(|n| n.as_u64().filter(|n| (1..=1 << 16).contains(n)).map(|n| n as usize))
            .collect();
        let [expand, channels, repeats, stride, kernel] = numbers?.try_into().ok()?;
        (repeats <= tensors).then_some(ConvStage { expand, channels, repeats, stride, kernel })
    };
    let expected = "a list of [expand, channels, repeats, stride, kernel]";
    let stages = tower.list("blocks", expected, five);
    if tower.get("blocks").is_none() {
        tower.fault("blocks", expected);
    }
    let image_size = tower.needed_size("image_size");
    let letterbox = LetterboxPreprocess {
        image_size: image_size as u32,
        mean: tower.needed_number("mean") as f32,
        std: tower.needed_number("std") as f32,
    };
    let expected = "three numbers, for u, s and c";
    let weights = connector.list("weights", expected, Value::as_f64).and_then(|w| <[f64; 3]>::try_from(w).ok());
    if weights.is_none() {
        connector.fault("weights", expected);
    }
    let config = ImageConfig {
        tower: ConvConfig {
            image_size,
            stem: tower.needed_size("stem"),
            stages: stages.unwrap_or_default(),
            head: tower.needed_size("head"),
        },
        classes: tower.needed_size("classes"),
        row_inner: connector.needed_size("row_hidden"),
        head_inner: connector.needed_size("head_hidden"),
        temperature: connector.needed_number("temperature"),
        top_classes: connector.needed_size("top_classes"),
        weights: weights.unwrap_or_default(),
    };
    (config, letterbox)
}

fn read_speech(tower: Fields<'_>, connector: Fields<'_>, tensors: usize) -> (SpeechConfig, AudioPreprocess) {
    tower.only_text("model_type", "whisper-encoder");
    tower.only_text("activation_function", "gelu");
    tower.only_flag("scale_embedding", false);
    let positions = tower.needed_size("max_source_positions");
    let mels = tower.needed_size("num_mel_bins");
    let kernels = connector.list("kernels", "two odd numbers", |v| v.as_u64().map(|n| n as usize));
    let kernels = kernels.and_then(|k| <[usize; 2]>::try_from(k).ok());
    if kernels.is_none() {
        connector.fault("kernels", "two odd numbers");
    }
    let audio = AudioPreprocess {
        sample_rate_hz: tower.needed_size("sampling_rate") as u32,
        fft_samples: tower.needed_size("n_fft") as u32,
        hop_samples: tower.needed_size("hop_length") as u32,
        mels: mels as u32,
        mirrored: false,
        whole_seconds: Some(LEAST_SECONDS),
        clip: None,
    };
    let config = SpeechConfig {
        tower: AudioConfig {
            hidden: tower.needed_size("d_model"),
            layers: layers(tower, "encoder_layers", tensors),
            heads: tower.needed_size("encoder_attention_heads"),
            inner: tower.needed_size("encoder_ffn_dim"),
            // A clip is one window: two frames a position.
            n_window: positions,
            mels,
            max_positions: positions,
            norm_eps: SPEECH_EPS,
        },
        mean_rows: connector.needed_size("mean_frames"),
        inner: connector.needed_size("hidden"),
        rows: connector.needed_size("rows"),
        kernels: kernels.unwrap_or_default(),
    };
    (config, audio)
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
