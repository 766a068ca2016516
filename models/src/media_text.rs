//! Text models whose sequences hold rows of media at positions of three axes: a [`Backbone`] between connectors and a head, with
//! rows of tapped blocks added behind its first layers (DeepStack).

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::backbone::{Backbone, BackboneConfig, BackboneOptions, BackboneText, BackboneTextState, Extras};
use crate::batch::{MediaRows, TokenRows};
use crate::blocks::pool::means;
use crate::blocks::{
    AnswerHead, Linear, RotaryAxes, RowVectors, TokenTable, VectorHead, VectorHeadConfig, axis_positions, unit_rows,
};
use crate::builder::Builder;
use crate::capture;
use crate::family::{
    Connected, FeatureRows, Output, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens, TowerOutput,
};
use crate::flops::Shape;
use crate::pass::{Ending, Layered, LayeredPass};
use crate::towers::audio::AudioConfig;
use crate::towers::merger::Merger;
use crate::towers::vision::{VisionConfig, VisionFeatures, VisionKind};

/// What a [`MediaText`] is made of, beside its token table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaTextConfig<'a> {
    /// The backbone.
    pub text: &'a BackboneConfig,
    /// What it has beside that.
    pub options: BackboneOptions<'a>,
    /// Which pairs of a head turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower whose rows are connected.
    pub vision: &'a VisionConfig,
    /// The audio tower whose rows are connected; none where a tower gives rows of the backbone's width itself.
    pub audio: Option<&'a AudioConfig>,
    /// From rows to the vector.
    pub head: &'a VectorHeadConfig,
    /// Numbers of a row's own vector, of a model that gives nothing else.
    pub rows: Option<usize>,
}

impl<'a> MediaTextConfig<'a> {
    /// A plain backbone that gives a vector, with towers that give rows of its width or are merged into such.
    pub fn new(
        text: &'a BackboneConfig,
        axes: RotaryAxes,
        vision: &'a VisionConfig,
        head: &'a VectorHeadConfig,
    ) -> Self {
        Self { text, options: BackboneOptions::default(), axes, vision, audio: None, head, rows: None }
    }
}

/// The model, opened.
#[derive(Debug)]
pub(crate) struct MediaText {
    text: BackboneText,
    axes: RotaryAxes,
    head_dim: usize,
    rope_theta: f64,
    connectors: Connectors,
    rows: Option<RowVectors>,
}

/// From the rows of towers to rows of the width of a text model, with what is added behind its first layers.
#[derive(Debug)]
pub(crate) struct Connectors {
    merger: Merger,
    deepstack: Vec<Merger>,
    projector: Option<Linear>,
}

impl Connectors {
    /// `merger.…`, `deepstack.{i}.…` and `audio_projector.…`; without an audio tower's configuration audio is of `hidden` numbers
    /// already.
    pub fn build(vision: &VisionConfig, audio: Option<&AudioConfig>, hidden: usize, b: &Builder<'_>) -> Self {
        let (width, block, eps) = (vision.hidden, vision.merge * vision.merge, vision.norm_eps);
        let deep = |i| b.at(format!("deepstack.{i}"), |b| Merger::build_deep(b, width, block, hidden, eps));
        let merger = b.at("merger", |b| match vision.kind {
            VisionKind::Windows { .. } => Merger::build_rms(b, width, block, hidden, eps),
            VisionKind::Table | VisionKind::Rotary => Merger::build(b, width, block, hidden, eps),
        });
        let deepstack = (0..vision.taps.len()).map(deep).collect();
        let projector = audio.map(|audio| b.linear_biased("audio_projector", audio.hidden, hidden));
        Self { merger, deepstack, projector }
    }

    /// Sets of rows that are added behind layers.
    pub fn sets(&self) -> usize {
        self.deepstack.len()
    }

    /// From a tower's rows; `None` for a form that there is no connector of.
    pub fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        match output {
            TowerOutput::Patches(features) => Some(Connected::Rows(self.image_rows(features))),
            TowerOutput::Audio(rows) => Some(Connected::Rows(rows.into())),
            TowerOutput::Mel(tower, rows) => {
                let features = self.projector.as_ref()?.forward(tower.pool(rows));
                Some(Connected::Rows(capture::pass(|| "audio.features".into(), features).into()))
            }
            _ => None,
        }
    }

    /// Rows of an image or video.
    fn image_rows(&self, features: VisionFeatures) -> FeatureRows {
        let deep = self.deepstack.iter().zip(features.taps).enumerate();
        let added = deep.map(|(i, (merger, rows))| merger.forward_as(&format!("deepstack.{i}"), rows)).collect();
        FeatureRows { rows: self.merger.forward(features.last), added }
    }

    /// Operations behind towers; `None` for a form that there is no connector of.
    pub fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Patches { groups, patches, .. } => {
                let mergers = std::iter::once(&self.merger).chain(&self.deepstack);
                Some(mergers.map(|merger| merger.flops(groups * patches)).sum())
            }
            // Pairs of tower rows are projected, where their tower does not bring them to the width of the text model.
            Shape::Mel { clips, .. } => {
                let one = |projector: &Linear| {
                    clips.iter().map(|frames| projector.flops(frames.div_ceil(2) / 2)).sum::<u64>()
                };
                Some(self.projector.as_ref().map_or(0, one))
            }
            _ => None,
        }
    }
}

impl MediaText {
    /// `backbone.…`, `merger.…`, `deepstack.{i}.…`, `audio_projector.…`, `head.rows.…` and `dense.…`.
    pub fn build(config: MediaTextConfig<'_>, b: &Builder<'_>, tokens: Tokens<'_>) -> Self {
        let MediaTextConfig { text, options, axes, vision, audio, head, rows } = config;
        let tokens = tokens.table(text.vocab, text.hidden);
        let backbone = b.at("backbone", |b| Backbone::build_with(text, options, b));
        let connectors = Connectors::build(vision, audio, text.hidden, b);
        let rows = rows.map(|outputs| b.at("head", |b| RowVectors::build(b, text.hidden, outputs)));
        let (head_dim, rope_theta) = (text.head_dim, text.rope_theta);
        let text = BackboneText::of(tokens, backbone, VectorHead::build(head, b));
        Self { text, axes, head_dim, rope_theta, connectors, rows }
    }

    /// The same with a head that makes scores.
    pub fn with_answers(self, answers: Option<AnswerHead>) -> Self {
        Self { text: self.text.with_answers(answers), ..self }
    }

    /// The unit mean of each sequence's unit rows, before it is brought to that length, with the rows themselves.
    fn row_vectors(&self, head: &RowVectors, state: BackboneTextState) -> (Tensor<2>, Tensor<2>) {
        let (hidden, segments) = self.text.finish(state);
        let rows = head.forward(hidden);
        (means(unit_rows(rows.clone()), &segments), rows)
    }

    /// Operations behind the connectors; none where no row enters.
    fn text_flops(&self, tokens: usize) -> u64 {
        if tokens == 0 {
            return 0;
        }
        self.text.flops(&Shape::Text { tokens }).unwrap_or(0)
    }
}

/// What is added behind each of the first layers, with zeros where there is no medium: `[tokens, hidden]` each.
fn added(tokens: usize, hidden: usize, media: &[MediaRows], device: &Device) -> Vec<Tensor<2>> {
    let layers = media.iter().map(|media| media.added.len()).max().unwrap_or(0);
    let one = |layer: usize| {
        let (mut pieces, mut at) = (Vec::new(), 0);
        let zeros_to = |pieces: &mut Vec<Tensor<2>>, at: &mut usize, to: usize| {
            if to > *at {
                pieces.push(Tensor::zeros([to - *at, hidden], (device, DType::F32)));
            }
            *at = to;
        };
        for media in media {
            let Some(rows) = media.added.get(layer) else { continue };
            zeros_to(&mut pieces, &mut at, media.start);
            pieces.push(rows.clone());
            at += media.rows;
        }
        zeros_to(&mut pieces, &mut at, tokens);
        Tensor::cat(pieces, 0)
    };
    (0..layers).map(one).collect()
}

impl Layered for MediaText {
    type State = BackboneTextState;

    fn enter(&self, rows: TokenRows, positions: Option<Vec<usize>>) -> BackboneTextState {
        self.enter_media(rows, positions, &[], Vec::new())
    }

    fn enter_media(
        &self,
        rows: TokenRows,
        _: Option<Vec<usize>>,
        _: &[u8],
        media: Vec<MediaRows>,
    ) -> BackboneTextState {
        let mut extras = Extras::default();
        if !media.is_empty() {
            let ([tokens, hidden], device) = (rows.rows.dims(), rows.rows.device());
            let positions = axis_positions(&rows.segments, &media);
            extras.rotary = Some(self.axes.table(&positions, self.head_dim, self.rope_theta, &device));
            extras.add_after_layer = added(tokens, hidden, &media, &device);
        }
        self.text.enter_with(rows, extras)
    }

    fn layers(&self) -> usize {
        self.text.layers()
    }

    fn layer(&self, index: usize, state: BackboneTextState) -> BackboneTextState {
        self.text.layer(index, state)
    }

    fn leave(&self, state: BackboneTextState, skipped: &[usize]) -> Tensor<2> {
        match &self.rows {
            Some(head) => self.row_vectors(head, state).0,
            None => self.text.leave(state, skipped),
        }
    }

    fn end(&self, state: BackboneTextState, ending: &Ending) -> Output {
        let Some(head) = &self.rows else { return self.text.end(state, ending) };
        let (vectors, rows) = self.row_vectors(head, state);
        Output::Rows { vectors, weights: None, rows: ending.wanted.multi.then_some(rows) }
    }
}

impl TextModel for MediaText {
    fn tokens(&self) -> &TokenTable {
        self.text.tokens()
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
        self.connectors.connect(output)
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.text_flops(*tokens)),
            Shape::Patches { tokens, .. } | Shape::Mel { tokens, .. } => {
                Some(self.connectors.flops(shape)? + self.text_flops(*tokens))
            }
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        let RowActivations { values, heads } = self.text.activations();
        // What is added behind the first layers is there from the beginning on.
        RowActivations { values: values + self.connectors.sets() * self.tokens().hidden(), heads }
    }
}
