//! Text models whose sequences hold rows of media at positions of three axes: a [`Backbone`] between connectors and a head, with
//! rows of tapped blocks added behind its first layers (DeepStack).

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::backbone::{Backbone, BackboneConfig, BackboneText, BackboneTextState, Extras};
use crate::batch::{MediaRows, TokenRows};
use crate::blocks::{AnswerHead, RotaryAxes, TokenTable, VectorHead, VectorHeadConfig, axis_positions};
use crate::builder::Builder;
use crate::family::{
    Connected, FeatureRows, Output, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens, TowerOutput,
};
use crate::flops::Shape;
use crate::pass::{Ending, Layered, LayeredPass};
use crate::towers::merger::Merger;
use crate::towers::vision::{VisionConfig, VisionFeatures};

/// What a [`MediaText`] is made of, beside its token table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaTextConfig<'a> {
    /// The backbone.
    pub text: &'a BackboneConfig,
    /// Which pairs of a head turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower whose rows are connected.
    pub vision: &'a VisionConfig,
    /// From rows to the vector.
    pub head: &'a VectorHeadConfig,
}

/// The model, opened.
#[derive(Debug)]
pub(crate) struct MediaText {
    text: BackboneText,
    axes: RotaryAxes,
    head_dim: usize,
    rope_theta: f64,
    merger: Merger,
    deepstack: Vec<Merger>,
}

impl MediaText {
    /// `backbone.…`, `merger.…`, `deepstack.{i}.…` and `dense.…`.
    pub fn build(config: MediaTextConfig<'_>, b: &Builder<'_>, tokens: Tokens<'_>) -> Self {
        let MediaTextConfig { text, axes, vision, head } = config;
        let (width, block, eps) = (vision.hidden, vision.merge * vision.merge, vision.norm_eps);
        let deep = |i| b.at(format!("deepstack.{i}"), |b| Merger::build_deep(b, width, block, text.hidden, eps));
        let tokens = tokens.table(text.vocab, text.hidden);
        let backbone = b.at("backbone", |b| Backbone::build(text, b));
        let merger = b.at("merger", |b| Merger::build(b, width, block, text.hidden, eps));
        let deepstack = (0..vision.taps.len()).map(deep).collect();
        let (head_dim, rope_theta) = (text.head_dim, text.rope_theta);
        let text = BackboneText::of(tokens, backbone, VectorHead::build(head, b));
        Self { text, axes, head_dim, rope_theta, merger, deepstack }
    }

    /// The same with a head that makes scores.
    pub fn with_answers(self, answers: Option<AnswerHead>) -> Self {
        Self { text: self.text.with_answers(answers), ..self }
    }

    /// Rows of an image or video for a sequence.
    fn image_rows(&self, features: VisionFeatures) -> FeatureRows {
        let deep = self.deepstack.iter().zip(features.taps).enumerate();
        let added = deep.map(|(i, (merger, rows))| merger.forward_as(&format!("deepstack.{i}"), rows)).collect();
        FeatureRows { rows: self.merger.forward(features.last), added }
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
        self.text.leave(state, skipped)
    }

    fn end(&self, state: BackboneTextState, ending: &Ending) -> Output {
        self.text.end(state, ending)
    }
}

impl TextModel for MediaText {
    fn tokens(&self) -> &TokenTable {
        self.text.tokens()
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        match output {
            TowerOutput::Patches(features) => Some(Connected::Rows(self.image_rows(features))),
            TowerOutput::Audio(rows) => Some(Connected::Rows(rows.into())),
            _ => None,
        }
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.text_flops(*tokens)),
            Shape::Patches { groups, patches, tokens } => {
                let mergers = std::iter::once(&self.merger).chain(&self.deepstack);
                let connected: u64 = mergers.map(|merger| merger.flops(groups * patches)).sum();
                Some(connected + self.text_flops(*tokens))
            }
            // Their tower brings them to the width of the backbone.
            Shape::Mel { tokens, .. } => Some(self.text_flops(*tokens)),
            _ => None,
        }
    }

    fn activations(&self) -> RowActivations {
        let RowActivations { values, heads } = self.text.activations();
        // What is added behind the first layers is there from the beginning on.
        RowActivations { values: values + self.deepstack.len() * self.tokens().hidden(), heads }
    }
}
