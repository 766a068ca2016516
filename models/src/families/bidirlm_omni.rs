//! BidirLM-Omni: texts, images, videos, audio and items of several of them, in one user turn that is read in both directions at
//! positions of three axes; the mean of all rows is the vector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneConfig, BackboneText};
use crate::blocks::{RotaryAxes, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Pattern, Steps, TemplateRule, layers};
use crate::error::ConfigError;
use crate::families::qwen3_vl::{
    MOST_ROWS, MediaIds, check_taps, image_form, needed_id, preprocess, read_text, read_vision,
};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Family, ImageEncoder, ModelSpec, Outputs, TextModel,
    Tokens, config,
};
use crate::items::{InstructionPlace, ItemPrompt, PartOrder, PartsForm};
use crate::media_text::{MediaText, MediaTextConfig};
use crate::record::{AudioPreprocess, Modality, Preprocess, TemplateKind};
use crate::towers::chunked::{ChunkedConfig, ChunkedTower};
use crate::towers::vision::{VisionConfig, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "bidirlm_omni",
    about: "BidirLM-Omni-Embedding: text, images, video, audio, and items of several of them",
    read: config::<BidirLmOmniConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["bidirlm_omni"],
    is_architecture: |name| name == "BidirLMOmniModel",
    known_as: "BidirLM-Omni-Embedding",
    keys: KeyMap {
        renames: &[("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "an embedding takes no head"),
            (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
            (Pattern::Contains("positional_embedding."), "positions are computed, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "language_model.embed_tokens."),
        ("backbone.", "language_model."),
        ("vision.patch_embed.", "visual.patch_embed.proj."),
        ("vision.", "visual."),
        ("audio.", "audio_tower."),
        ("merger.", "visual.merger."),
        ("deepstack.", "visual.deepstack_merger_list."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { processors: true, ..Steps::TEXT },
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BidirLmOmniConfig {
    /// The backbone.
    pub text: BackboneConfig,
    /// Which pairs of its heads turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower; blocks that it taps are added behind the first layers.
    pub vision: VisionConfig,
    /// The audio tower.
    pub audio: ChunkedConfig,
    /// From rows to the vector.
    pub vector_head: VectorHeadConfig,
    /// How parts are written.
    pub parts: PartsForm,
    /// What stands around an item.
    pub prompt: ItemPrompt,
}

impl Architecture for BidirLmOmniConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.axes.check(self.text.head_dim)?;
        self.vision.check()?;
        check_taps(&self.vision, &self.text)?;
        self.audio.check()?;
        if self.audio.output != self.text.hidden {
            return Err(ConfigError::OutOfRange {
                field: "audio.output".into(),
                found: self.audio.output.to_string(),
                expected: format!("{}, as text.hidden", self.text.hidden),
            });
        }
        self.parts.check(self.text.vocab)?;
        self.vector_head.check(self.text.hidden)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            image: Some(image_form(&self.vision)),
            audio: Some(AudioForm::Chunked(self.audio.clone())),
            outputs: Outputs::with_features(),
            ..BackboneText::spec(&self.text, &self.vector_head)
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(&self.vision, b)))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        Some(AudioEncoder::Chunked(Box::new(b.at("audio", |b| ChunkedTower::build(&self.audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let Self { text, axes, vision, vector_head, .. } = self;
        Arc::new(MediaText::build(MediaTextConfig::new(text, *axes, vision, vector_head), b, tokens))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn parts_form(&self) -> Option<&PartsForm> {
        Some(&self.parts)
    }

    fn item_prompt(&self) -> Option<&ItemPrompt> {
        Some(&self.prompt)
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = vec![("text", self.text.words())];
        lines.extend(preprocess.image.as_ref().map(|image| ("images", self.vision.words(image))));
        if let Some(audio) = &preprocess.audio {
            lines.push(("audio", self.audio.words(audio)));
        }
        lines
    }
}

/// Epsilon of every LayerNorm of the audio tower, which no file states.
///
/// # Source
/// transformers 5.23.0, `Qwen3OmniMoeAudioEncoderLayer`: `nn.LayerNorm` as it is made by default.
const AUDIO_EPS: f64 = 1e-5;

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> BidirLmOmniConfig {
    folder.refuse_common();
    let (text, axes) = read_text(folder, false);
    let positions = folder.inner("text_config", "text_config.").size("max_position_embeddings").unwrap_or(0);
    let vision = read_vision(folder, &text);
    let audio = read_audio(folder, text.hidden, None);
    if let Some(frames) = folder.inner("audio_config", "audio_config.").size("n_window_infer") {
        folder.note(format!(
            "audio_config.n_window_infer {frames} has no effect: the published code computes windows of attention and does \
             not use them, so every row of a clip sees every other"
        ));
    }
    if let Some(length) = folder.config.count("max_sequence_length") {
        folder.note(format!("max_sequence_length {length} is not read: texts are taken as long as the tokenizer says"));
    }
    let ids = MediaIds::read(folder);
    let id = |name| needed_id(folder.config, [name; 2]);
    let (pad, start, end) = (id("audio_token_id"), id("audio_start_token_id"), id("audio_end_token_id"));
    let mut details = folder.details.borrow_mut();
    details.ids = ids.all();
    details.ids.extend([pad, start, end].into_iter().filter_map(|(name, id)| Some((name, id?))));
    let of_audio = TemplateRule { modality: Modality::Audio, kind: TemplateKind::Wrapped, fixed: true, start, end };
    details.templates = vec![ids.template(Modality::Image), ids.template(Modality::Video), of_audio];
    details.preprocess = Preprocess {
        audio: Some(AudioPreprocess {
            sample_rate_hz: 16_000,
            fft_samples: 400,
            hop_samples: 160,
            mels: audio.mels as u32,
            mirrored: true,
            whole_seconds: None,
            clip: None,
        }),
        ..preprocess(&vision, [65_536, 1_048_576])
    };
    let mut placeholders = ids.placeholders();
    placeholders.extend(pad.1);
    let parts = PartsForm {
        order: PartOrder::AsGiven,
        nothing: None,
        stamps: Some(2),
        clock: None,
        one_image: false,
        placeholders,
        max_rows: positions.min(MOST_ROWS),
    };
    let vector_head = folder.text.vector_head.clone();
    BidirLmOmniConfig { text, axes, vision, audio, vector_head, parts, prompt: prompt() }
}

/// One user turn; an instruction stands in front of texts alone.
///
/// # Source
/// Chat template of BidirLM-Omni-2.5B-Embedding.
fn prompt() -> ItemPrompt {
    ItemPrompt {
        before: "<|im_start|>user\n".into(),
        instruction: InstructionPlace::EachText { before: "Instruct: ".into(), behind: "\nQuery: ".into() },
        behind: "<|im_end|>\n".into(),
        texts: None,
        keeps_end: false,
    }
}

/// The tower of an `audio_config`, with windows of so many frames where it has some.
pub(crate) fn read_audio(folder: &CheckpointFolder<'_>, hidden: usize, window: Option<usize>) -> ChunkedConfig {
    let audio = folder.inner("audio_config", "audio_config.");
    audio.only_text("activation_function", "gelu");
    audio.only_flag("scale_embedding", false);
    if audio.size("output_dim").is_some_and(|width| width != hidden) {
        audio.fault("output_dim", format!("{hidden}, as the rows of images"));
    }
    let half = audio.needed_size("n_window");
    ChunkedConfig {
        hidden: audio.needed_size("d_model"),
        layers: layers(audio, "encoder_layers", folder.tensors),
        heads: audio.needed_size("encoder_attention_heads"),
        inner: audio.needed_size("encoder_ffn_dim"),
        channels: audio.needed_size("downsample_hidden_size"),
        chunk_frames: 2 * half,
        mels: audio.needed_size("num_mel_bins"),
        output: hidden,
        norm_eps: audio.number("layer_norm_eps").unwrap_or(AUDIO_EPS),
        window_chunks: window.map(|frames| frames / (2 * half).max(1)),
    }
}
