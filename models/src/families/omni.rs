//! The omni family: one backbone that reads text, picture and sound rows alike.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, BackboneConfig, BackbonePass, Extras};
use crate::batch::TokenRows;
use crate::blocks::{Linear, Pooling, TokenTable, Weights};
use crate::capture;
use crate::error::{ConfigError, RecordError};
use crate::families::open_tower;
use crate::record::{Dtype, RecordFolder, TensorSpec, text_file};
use crate::record::{layer_norm, linear_bias};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::merger::Merger;
use crate::towers::vision::{VisionConfig, VisionTower};
use omniburn_kernels::Segments;

/// Configuration of the family; a tower the checkpoint lacks is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmniConfig {
    /// The text backbone.
    pub text: BackboneConfig,
    /// The picture tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<VisionConfig>,
    /// The sound tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioConfig>,
}

impl OmniConfig {
    /// Checks every part.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.as_ref().map_or(Ok(()), VisionConfig::check)?;
        self.audio.as_ref().map_or(Ok(()), AudioConfig::check)
    }

    /// Tensors of `towers.bpk`: the towers, shared by all tasks.
    pub fn tower_tensors(&self) -> Vec<TensorSpec> {
        let vision = self.vision.iter().flat_map(|v| v.tensors("vision"));
        let audio = self.audio.iter().flat_map(|a| a.tensors("audio"));
        vision.chain(audio).collect()
    }

    /// Tensors of `tokens.bpk`: the token table, shared by all tasks.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        vec![TokenTable::spec(self.text.vocab, self.text.hidden)]
    }

    /// Tensors of `text.<task>.bpk`: backbone, connectors, and `special_rows` rows laid over the token table.
    pub fn text_tensors(&self, special_rows: usize) -> Vec<TensorSpec> {
        let mut specs = self.text.tensors("backbone");
        if let Some(vision) = &self.vision {
            let wide = vision.hidden * vision.merge * vision.merge;
            specs.extend(layer_norm("merger.norm", vision.hidden));
            specs.extend(linear_bias("merger.linear_fc1", wide, wide));
            specs.extend(linear_bias("merger.linear_fc2", wide, self.text.hidden));
        }
        if let Some(audio) = &self.audio {
            specs.extend(linear_bias("audio_projector", audio.hidden, self.text.hidden));
        }
        if special_rows > 0 {
            specs.push(TensorSpec::exact("special_rows.weight", [special_rows, self.text.hidden]));
        }
        specs
    }
}

impl OmniConfig {
    /// Opens the picture tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_vision(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<VisionTower>, RecordError> {
        open_tower(self.vision.as_ref(), record, &self.tower_tensors(), compute, device, |vision, weights| {
            VisionTower::load(vision, weights, "vision")
        })
    }

    /// Opens the sound tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_audio(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<AudioTower>, RecordError> {
        open_tower(self.audio.as_ref(), record, &self.tower_tensors(), compute, device, |audio, weights| {
            AudioTower::load(audio, weights, "audio")
        })
    }

    /// Opens the token table, shared by all tasks, without any task's special rows.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        TokenTable::open(record, self.text.vocab, self.text.hidden)
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
        let header = record.header();
        record.check_task(task)?;
        let part = record.part(&text_file(task), &self.text_tensors(header.special_token_ids.len()))?;
        let weights = Weights::new(&part, compute, device);
        Ok(OmniText {
            tokens: tokens.with_special_rows(&part, &header.special_token_ids),
            backbone: Backbone::load(&self.text, &weights, "backbone"),
            merger: self.vision.as_ref().map(|v| Merger::load(&weights, "merger", v.merge * v.merge, v.norm_eps)),
            projector: self.audio.as_ref().map(|_| Linear::load_biased(&weights, "audio_projector")),
        })
    }
}

/// A pass of an [`OmniText`] between two of its layers.
#[derive(Debug)]
pub struct OmniPass {
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
    /// From picture features to backbone rows.
    pub merger: Option<Merger>,
    /// From sound features to backbone rows.
    pub projector: Option<Linear>,
}

impl OmniText {
    /// Pooled rows of the sound tower in the backbone's width.
    ///
    /// # Shapes
    /// - `pooled`: `[tokens, audio hidden]`, as [`AudioTower::pool`] gives them; returns: `[tokens, hidden]`
    /// # Panics
    /// If the checkpoint has no sound tower.
    pub fn project(&self, pooled: Tensor<2>) -> Tensor<2> {
        let projector = self.projector.as_ref().expect("a record with a sound tower has a projector in every task");
        let features = projector.forward(pooled);
        capture::pass(|| "audio.features".into(), features)
    }

    /// One vector a sequence, not normalised.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, hidden]`
    pub fn embed(&self, rows: TokenRows) -> Tensor<2> {
        let mut pass = self.begin(rows);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two layers; [`OmniText::embed`] is all of its steps.
    ///
    /// # Shapes
    /// As [`OmniText::embed`].
    pub fn begin(&self, rows: TokenRows) -> OmniPass {
        let segments = rows.segments.clone();
        OmniPass { layers: self.backbone.begin(rows, Extras::default()), segments }
    }

    /// Runs one more layer.
    ///
    /// # Panics
    /// If none is left.
    pub fn advance(&self, pass: OmniPass) -> OmniPass {
        OmniPass { layers: self.backbone.advance(pass.layers), ..pass }
    }

    /// Whether every layer has run.
    pub fn is_done(&self, pass: &OmniPass) -> bool {
        self.backbone.is_done(&pass.layers)
    }

    /// One vector a sequence, not normalised, `[segments, hidden]`.
    pub fn finish(&self, pass: OmniPass) -> Tensor<2> {
        Pooling::LastToken.apply(self.backbone.finish(pass.layers), &pass.segments)
    }
}
