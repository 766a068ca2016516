//! The omni family: one backbone that reads text, image and audio rows alike.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, BackboneConfig, BackbonePass, Extras};
use crate::batch::TokenRows;
use crate::blocks::{Linear, Pooling, TokenTable};
use crate::builder::Builder;
use crate::capture;
use crate::error::{ConfigError, RecordError};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, Connected, Family, ImageEncoder, ImageForm, ModelSpec, Pass, PassInput,
    RowActivations, StepKind, TextModel, Tokens, TowerOutput, config, open_text,
};
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::{Dtype, Preprocess, RecordFolder};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::merger::Merger;
use crate::towers::vision::{VisionConfig, VisionTower};

/// The family. Its checkpoints come with cards, layouts and adapters, which `omniburn-convert` reads.
pub static FAMILY: Family = Family {
    name: "omni",
    about: "jina-embeddings-v5-omni: Qwen3 or EuroBERT text, Qwen3-VL images and video, Qwen2.5-Omni audio",
    read: config::<OmniConfig>,
    checkpoint: None,
};

/// Configuration of the family; a tower the checkpoint lacks is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmniConfig {
    /// The text backbone.
    pub text: BackboneConfig,
    /// The image tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<VisionConfig>,
    /// The audio tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioConfig>,
}

impl OmniConfig {
    /// One task's backbone and connectors, with its special rows laid over the token table.
    pub fn build(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> OmniText {
        let hidden = self.text.hidden;
        let backbone = b.at("backbone", |b| Backbone::build(&self.text, b));
        let merger = self
            .vision
            .as_ref()
            .map(|v| b.at("merger", |b| Merger::build(b, v.hidden, v.merge * v.merge, hidden, v.norm_eps)));
        let projector = self.audio.as_ref().map(|a| b.linear_biased("audio_projector", a.hidden, hidden));
        let special = tokens.special_rows();
        let rows = if special > 0 { b.host("special_rows.weight", [special, hidden]) } else { Vec::new() };
        let ids = tokens.special_ids().to_vec();
        let tokens = tokens.table(self.text.vocab, hidden).with_special_rows(&rows, &ids);
        OmniText { tokens, backbone, merger, projector }
    }

    /// Opens the image tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_vision(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<VisionTower>, RecordError> {
        Ok(match record.header().family.open_image(record, compute, device)? {
            Some(ImageEncoder::Patches(tower)) => Some(*tower),
            _ => None,
        })
    }

    /// Opens the audio tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_audio(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<AudioTower>, RecordError> {
        Ok(match record.header().family.open_audio(record, compute, device)? {
            Some(AudioEncoder::Mel(tower)) => Some(*tower),
            _ => None,
        })
    }

    /// Opens the token table, shared by all tasks, without any task's special rows.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        record.header().family.open_tokens(record)
    }

    /// Opens one task's backbone and connectors, and lays its special rows over `tokens`.
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
    ) -> Result<OmniText, RecordError> {
        open_text(record, task, &tokens, compute, device, |b, tokens| self.build(b, tokens))
    }
}

impl Architecture for OmniConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.as_ref().map_or(Ok(()), VisionConfig::check)?;
        self.audio.as_ref().map_or(Ok(()), AudioConfig::check)
    }

    fn spec(&self) -> ModelSpec {
        let image = self.vision.as_ref().map(|v| ImageForm::Patches {
            patch_px: v.patch_px,
            merge: v.merge,
            temporal_patch: v.temporal_patch,
            patch_values: v.patch_values(),
            hidden: v.hidden,
        });
        ModelSpec {
            vector: self.text.hidden,
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image,
            audio: self.audio.clone().map(AudioForm::Mel),
            ends: None,
            skips_prompt: false,
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        let vision = self.vision.as_ref()?;
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(vision, b)))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        let audio = self.audio.as_ref()?;
        Some(AudioEncoder::Mel(Box::new(b.at("audio", |b| AudioTower::build(audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(self.build(b, tokens))
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = vec![("text", self.text.words())];
        if let (Some(v), Some(image)) = (&self.vision, &preprocess.image) {
            let (blocks, hidden, heads, merge) = (v.layers, v.hidden, v.heads, v.merge);
            let patches = format!("patches of {} merged {merge}x{merge}", v.patch_px);
            let pixels = format!("{} to {} pixels", image.min_pixels, image.max_pixels);
            lines.push(("images", format!("{blocks} blocks of {hidden}, {heads} heads, {patches}, {pixels}")));
        }
        if let (Some(a), Some(sound)) = (&self.audio, &preprocess.audio) {
            let (mels, rate) = (sound.mels, sound.sample_rate_hz);
            lines.push(("audio", format!("{} blocks of {}, {mels} mel bands at {rate} Hz", a.layers, a.hidden)));
        }
        lines
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An [`OmniText`] between two of its layers.
#[derive(Debug)]
pub struct OmniState {
    layers: BackbonePass,
    segments: Segments,
}

/// One task's half of the model: token rows, backbone, connectors.
#[derive(Debug)]
pub struct OmniText {
    /// The token table with the task's special rows.
    pub tokens: TokenTable,
    /// The text backbone.
    pub backbone: Backbone,
    /// From image features to backbone rows.
    pub merger: Option<Merger>,
    /// From audio features to backbone rows.
    pub projector: Option<Linear>,
}

impl OmniText {
    /// Pooled rows of the audio tower in the backbone's width.
    ///
    /// # Shapes
    /// - `pooled`: `[tokens, audio hidden]`, as [`AudioTower::pool`] gives them; returns: `[tokens, hidden]`
    /// # Panics
    /// If the checkpoint has no audio tower.
    pub fn project(&self, pooled: Tensor<2>) -> Tensor<2> {
        let projector = self.projector.as_ref().expect("a record with an audio tower has a projector in every task");
        let features = projector.forward(pooled);
        capture::pass(|| "audio.features".into(), features)
    }

    /// One vector a sequence, not normalised.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, hidden]`
    pub fn embed(&self, rows: TokenRows) -> Tensor<2> {
        self.run(rows.into())
    }
}

impl Layered for OmniText {
    type State = OmniState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> OmniState {
        let segments = rows.segments.clone();
        OmniState { layers: self.backbone.begin(rows, Extras::default()), segments }
    }

    fn layers(&self) -> usize {
        self.backbone.layers()
    }

    fn layer(&self, _: usize, state: OmniState) -> OmniState {
        OmniState { layers: self.backbone.advance(state.layers), ..state }
    }

    fn leave(&self, state: OmniState, skipped: &[usize]) -> Tensor<2> {
        Pooling::LastToken.apply_after(self.backbone.finish(state.layers), &state.segments, skipped)
    }
}

impl TextModel for OmniText {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        match output {
            TowerOutput::Patches(rows) => Some(Connected::Rows(self.merger.as_ref()?.forward(rows))),
            TowerOutput::Mel(tower, rows) => {
                self.projector.as_ref()?;
                Some(Connected::Rows(self.project(tower.pool(rows))))
            }
            TowerOutput::Pixels(_) | TowerOutput::Windows(_) => None,
        }
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.backbone.flops(*tokens)),
            Shape::Patches { groups, patches, tokens } => {
                Some(self.merger.as_ref()?.flops(groups * patches) + self.backbone.flops(*tokens))
            }
            // Pairs of tower rows are projected.
            Shape::Mel { clips, tokens } => {
                let projector = self.projector.as_ref()?;
                let projected = clips.iter().map(|&frames| projector.flops(frames.div_ceil(2) / 2)).sum::<u64>();
                Some(projected + self.backbone.flops(*tokens))
            }
            Shape::Pixels { .. } => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.backbone.activations()
    }
}
