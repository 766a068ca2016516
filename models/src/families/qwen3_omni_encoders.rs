//! The encoders of Qwen3-Omni without its language model: images and videos become rows with DeepStack sets, audio becomes rows, as
//! a decoder would get them.

use std::sync::Arc;

use burn::tensor::Tensor;
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::pool::means;
use crate::blocks::{TokenTable, unit_rows};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TemplateRule, TextFiles};
use crate::error::ConfigError;
use crate::families::bidirlm_omni::read_audio;
use crate::families::qwen3_vl::{image_form, preprocess, read_tower};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Connected, Family, ImageEncoder, ModelSpec, Outputs, Pass,
    PassInput, RowActivations, RowOutputs, StepKind, TextModel, Tokens, TowerOutput, config,
};
use crate::flops::Shape;
use crate::media_text::Connectors;
use crate::pass::{Layered, LayeredPass};
use crate::record::{AudioPreprocess, Modality, Preprocess, TemplateKind};
use crate::towers::chunked::{ChunkedConfig, ChunkedTower};
use crate::towers::vision::{VisionConfig, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen3_omni_encoders",
    about: "the encoders of Qwen3-Omni: images, video and audio to rows for a decoder, with DeepStack sets",
    read: config::<Qwen3OmniEncodersConfig>,
    checkpoint: Some(&RULES),
};

/// Why the rest of a checkpoint is left aside.
const DECODES: &str = "a part of the decoder: this record holds the encoders, whose rows another program decodes";

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen3_omni_moe", "qwen3_omni_moe_thinker"],
    is_architecture: |name| name.starts_with("Qwen3OmniMoe"),
    known_as: "the encoders of Qwen3-Omni",
    keys: KeyMap {
        renames: &[("thinker.", "")],
        // As Qwen3-VL names them.
        endings: &[
            (".ln_q.weight", ".norm.weight"),
            (".ln_q.bias", ".norm.bias"),
            (".mlp.0.weight", ".linear_fc1.weight"),
            (".mlp.0.bias", ".linear_fc1.bias"),
            (".mlp.2.weight", ".linear_fc2.weight"),
            (".mlp.2.bias", ".linear_fc2.bias"),
        ],
        drops: &[
            (Pattern::Prefix("model."), DECODES),
            (Pattern::Prefix("lm_head."), DECODES),
            (Pattern::Prefix("talker."), DECODES),
            (Pattern::Prefix("code2wav."), DECODES),
            (Pattern::Contains("inv_freq"), "rotary frequencies are computed from the configuration"),
            (Pattern::Contains("positional_embedding."), "positions are computed, not read"),
        ],
    },
    names: &[
        ("vision.patch_embed.", "visual.patch_embed.proj."),
        ("vision.", "visual."),
        ("audio.", "audio_tower."),
        ("merger.", "visual.merger."),
        ("deepstack.", "visual.merger_list."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { texts: TextFiles::None, processors: true, vectors_only: true, ..Steps::TEXT },
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen3OmniEncodersConfig {
    /// The image tower, with the blocks that it taps.
    pub vision: VisionConfig,
    /// The audio tower.
    pub audio: ChunkedConfig,
    /// Rows of a medium at most.
    pub max_rows: usize,
}

#[cfg(any(test, feature = "random"))]
impl Qwen3OmniEncodersConfig {
    /// Sizes of Qwen3-Omni-30B-A3B.
    pub fn published() -> Self {
        Self {
            vision: VisionConfig {
                hidden: 1152,
                layers: 27,
                heads: 16,
                inner: 4304,
                positions: 2304,
                patch_px: 16,
                merge: 2,
                temporal_patch: 2,
                channels: 3,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                taps: vec![8, 16, 24],
                kind: crate::towers::vision::VisionKind::Table,
            },
            audio: ChunkedConfig {
                hidden: 1280,
                layers: 32,
                heads: 20,
                inner: 5120,
                channels: 480,
                chunk_frames: 100,
                mels: 128,
                output: 2048,
                norm_eps: 1e-5,
                window_chunks: Some(8),
            },
            max_rows: MOST_ROWS,
        }
    }
}

impl Architecture for Qwen3OmniEncodersConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.vision.check()?;
        crate::checks::nonzero(&[("max_rows", self.max_rows)])?;
        self.audio.check()
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.audio.output,
            hidden: self.audio.output,
            vocab: 0,
            max_tokens: self.max_rows,
            image: Some(image_form(&self.vision)),
            audio: Some(AudioForm::Chunked(self.audio.clone())),
            ends: None,
            skips_prompt: false,
            outputs: Outputs::Vectors(RowOutputs { alone: true, features: true, ..RowOutputs::default() }),
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(&self.vision, b)))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        Some(AudioEncoder::Chunked(Box::new(b.at("audio", |b| ChunkedTower::build(&self.audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let hidden = self.audio.output;
        Arc::new(Encoders {
            tokens: tokens.table(0, hidden),
            connectors: Connectors::build(&self.vision, None, hidden, b),
        })
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = vec![("rows", format!("of {} numbers", self.audio.output))];
        lines.extend(preprocess.image.as_ref().map(|image| ("images", self.vision.words(image))));
        if let Some(audio) = &preprocess.audio {
            lines.push(("audio", self.audio.words(audio)));
        }
        lines
    }
}

/// Connectors, and nothing behind them.
#[derive(Debug)]
struct Encoders {
    tokens: TokenTable,
    connectors: Connectors,
}

impl Layered for Encoders {
    type State = (Tensor<2>, Segments);

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> Self::State {
        (rows.rows, rows.segments)
    }

    fn enter_media(
        &self,
        rows: TokenRows,
        positions: Option<Vec<usize>>,
        _: &[u8],
        _: Vec<crate::batch::MediaRows>,
    ) -> Self::State {
        // Nothing is added between layers that are not there.
        self.enter(rows, positions)
    }

    fn layers(&self) -> usize {
        0
    }

    fn layer(&self, index: usize, _: Self::State) -> Self::State {
        panic!("there is no layer {index} of none")
    }

    fn leave(&self, (rows, segments): Self::State, _: &[usize]) -> Tensor<2> {
        means(unit_rows(rows), &segments)
    }
}

impl TextModel for Encoders {
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
        self.connectors.connect(output)
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { .. } => Some(0),
            shape => self.connectors.flops(shape),
        }
    }

    fn activations(&self) -> RowActivations {
        // The rows and their squares, and what DeepStack keeps beside them.
        RowActivations { values: (4 + self.connectors.sets()) * self.tokens.hidden(), heads: 1 }
    }
}

/// Rows of a medium at most: those of the longest context that Qwen3-Omni is published for.
const MOST_ROWS: usize = 32_768;

/// From a published folder to a configuration; that of a whole Qwen3-Omni has the Thinker's inside.
fn read(folder: &CheckpointFolder<'_>) -> Qwen3OmniEncodersConfig {
    folder.refuse_common();
    let thinker = match folder.config.get("thinker_config") {
        Some(value) => Fields::new("thinker_config.", Some(value), folder.faults),
        None => folder.config,
    };
    let folder = &CheckpointFolder { config: thinker, ..*folder };
    let fields = folder.inner("vision_config", "vision_config.");
    let hidden = fields.needed_size("out_hidden_size");
    let vision = read_tower(folder, "visual.merger_list.");
    let window = folder.inner("audio_config", "audio_config.").needed_size("n_window_infer");
    let audio = read_audio(folder, hidden, Some(window));
    let bare = |modality| TemplateRule {
        modality,
        kind: TemplateKind::Bare,
        fixed: true,
        start: ("start", None),
        end: ("end", None),
    };
    let mut details = folder.details.borrow_mut();
    details.templates = [Modality::Image, Modality::Video, Modality::Audio].map(bare).into();
    details.preprocess = Preprocess {
        audio: Some(AudioPreprocess {
            sample_rate_hz: 16_000,
            fft_samples: 400,
            hop_samples: 160,
            mels: audio.mels as u32,
            mirrored: false,
            whole_seconds: None,
            clip: None,
        }),
        ..preprocess(&vision, [65_536, 16_777_216])
    };
    Qwen3OmniEncodersConfig { vision, audio, max_rows: MOST_ROWS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FamilyConfig;
    use crate::record::TensorSpec;

    #[test]
    fn parameters_of_both_encoders_are_the_published_ones() {
        let family = FamilyConfig::new(Qwen3OmniEncodersConfig::published());
        family.check().unwrap();
        let count = |specs: Vec<TensorSpec>| -> usize { specs.iter().map(TensorSpec::elements).sum() };
        // Connectors stand in the task's part.
        let images = count(family.encoder_tensors(Modality::Image)) + count(family.text_tensors(0));
        assert_eq!(images, 538_631_408);
        assert_eq!(count(family.encoder_tensors(Modality::Audio)), 647_927_168);
        assert!(family.token_tensors().is_empty() && !family.takes(Modality::Text));
        let counts = [(1, 1), (8, 1), (9, 2), (50, 7), (99, 13), (100, 13), (101, 14), (300, 39)];
        let longer = [(312, 41), (320, 42), (999, 130), (1000, 130), (3000, 390)];
        for (frames, rows) in counts.into_iter().chain(longer) {
            assert_eq!(family.spec().audio.as_ref().unwrap().features(frames), Some(rows), "{frames}");
        }
    }
}
