//! Embedders made of the Thinker of Qwen2.5-Omni (LCO-Embedding-Omni, e5-omni, OmniEmbed, Omni-Embed-Nemotron): texts, images,
//! videos, audio and items of several of them, in a chat prompt, at positions of three axes in which time is counted in seconds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText};
use crate::blocks::{Pooling, RotaryAxes, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TemplateRule, layers};
use crate::error::ConfigError;
use crate::families::qwen3::{Decoder, read_backbone};
use crate::families::qwen3_vl::{MOST_ROWS, MediaIds, image_form, needed_id, rope};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Family, ImageEncoder, ModelSpec, Outputs, TextModel,
    Tokens, config,
};
use crate::items::{InstructionPlace, ItemPrompt, PartOrder, PartsForm, VideoClock};
use crate::media_text::{MediaText, MediaTextConfig};
use crate::record::{AudioPreprocess, Modality, PixelPreprocess, Preprocess, TemplateKind};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::vision::{VisionConfig, VisionKind, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen2_5_omni_thinker",
    about: "Qwen2.5-Omni Thinker embedders (LCO-Embedding-Omni, e5-omni, OmniEmbed, Omni-Embed-Nemotron): text, images, \
            video, audio, and items of several of them",
    read: config::<Qwen25OmniConfig>,
    checkpoint: Some(&RULES),
};

/// Of Omni-Embed-Nemotron, whose rows see later ones, too.
const NEMOTRON: &str = "nvomniembed";

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen2_5_omni_thinker", "qwen2_5_omni", NEMOTRON],
    is_architecture: |name| name.starts_with("Qwen2_5Omni") || name == "NVOmniEmbedModel",
    known_as: "a Qwen2.5-Omni Thinker embedder",
    keys: KeyMap {
        renames: &[
            ("thinker.", ""),
            // As transformers 5 saves them, and as they were published.
            ("model.language_model.", "language_model."),
            ("model.visual.", "visual."),
            ("model.audio_tower.", "audio_tower."),
            ("model.", "language_model."),
        ],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
            (Pattern::Prefix("talker."), "the Talker speaks; an embedding does not"),
            (Pattern::Prefix("token2wav."), "it makes sound of what the Talker says; an embedding says nothing"),
            (
                Pattern::Exact("audio_tower.audio_bos_eos_token.weight"),
                "ends of audio are rows of the token table; these are not read",
            ),
            (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
            (Pattern::Contains("rotary_pos_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
            (Pattern::Contains("positional_embedding."), "positions are computed, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "language_model.embed_tokens."),
        ("backbone.", "language_model."),
        ("vision.patch_embed.", "visual.patch_embed.proj."),
        ("vision.", "visual."),
        ("audio.", "audio_tower."),
        ("audio_projector.", "audio_tower.proj."),
        MERGER[0],
        MERGER[1],
        MERGER[2],
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { pooling: Pooling::LastToken, processors: true, chat: true, vectors_only: true, ..Steps::TEXT },
};

/// Names of the connector of Qwen2-VL and Qwen2.5 towers.
pub(crate) const MERGER: [(&str, &str); 3] = [
    ("merger.norm.", "visual.merger.ln_q."),
    ("merger.linear_fc1.", "visual.merger.mlp.0."),
    ("merger.linear_fc2.", "visual.merger.mlp.2."),
];

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen25OmniConfig {
    /// The backbone; queries, keys and values have biases.
    pub text: BackboneConfig,
    /// Which pairs of its heads turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower.
    pub vision: VisionConfig,
    /// The audio tower.
    pub audio: AudioConfig,
    /// From rows to the vector.
    pub vector_head: VectorHeadConfig,
    /// How parts are written.
    pub parts: PartsForm,
    /// What stands around an item.
    pub prompt: ItemPrompt,
}

impl Architecture for Qwen25OmniConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.axes.check(self.text.head_dim)?;
        self.vision.check()?;
        check_untapped(&self.vision)?;
        self.audio.check()?;
        self.parts.check(self.text.vocab)?;
        self.vector_head.check(self.text.hidden)
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            image: Some(image_form(&self.vision)),
            audio: Some(AudioForm::Mel(self.audio.clone())),
            outputs: Outputs::with_features(),
            ..BackboneText::spec(&self.text, &self.vector_head)
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(&self.vision, b)))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        Some(AudioEncoder::Mel(Box::new(b.at("audio", |b| AudioTower::build(&self.audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let Self { text, axes, vision, audio, vector_head, .. } = self;
        let config = MediaTextConfig {
            options: BackboneOptions { qkv_bias: true, ..BackboneOptions::default() },
            audio: Some(audio),
            ..MediaTextConfig::new(text, *axes, vision, vector_head)
        };
        Arc::new(MediaText::build(config, b, tokens))
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
            let (AudioConfig { layers, hidden, .. }, mels, rate) = (&self.audio, audio.mels, audio.sample_rate_hz);
            lines.push(("audio", format!("{layers} blocks of {hidden}, {mels} mel bands at {rate} Hz")));
        }
        lines
    }
}

/// Refuses taps of a tower whose connector reads its last block alone.
pub(crate) fn check_untapped(vision: &VisionConfig) -> Result<(), ConfigError> {
    if vision.taps.is_empty() {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        field: "vision.taps".into(),
        found: format!("{:?}", vision.taps),
        expected: "none: this connector reads the last block alone".into(),
    })
}

/// Epsilon of every LayerNorm of the audio tower, which no file states.
///
/// # Source
/// transformers 5.23.0, `Qwen2_5OmniAudioEncoderLayer`: `nn.LayerNorm` as it is made by default.
const AUDIO_EPS: f64 = 1e-5;

/// From a published folder to a configuration. The configuration of a whole Qwen2.5-Omni has the Thinker's inside.
fn read(folder: &CheckpointFolder<'_>) -> Qwen25OmniConfig {
    folder.refuse_common();
    let nemotron = folder.config.text("model_type") == Some(NEMOTRON);
    let thinker = match folder.config.get("thinker_config") {
        Some(value) => Fields::new("thinker_config.", Some(value), folder.faults),
        None => folder.config,
    };
    // The audio of a video is no part of it: processors put it between the frames only where they are told to.
    [folder.config, thinker].iter().for_each(|fields| fields.only_flag("use_audio_in_video", false));
    let folder = &CheckpointFolder { config: thinker, ..*folder };
    let (text, axes) = read_text(folder, [16, 24, 24], !nemotron);
    let positions = folder.inner("text_config", "text_config.").size("max_position_embeddings").unwrap_or(0);
    let vision = read_windowed(folder, "vision_config", text.hidden);
    let audio = read_audio(folder, text.hidden);
    let ids = MediaIds::read(folder);
    let [pad, start, end] =
        [["audio_token_id", "audio_token_index"], ["audio_start_token_id"; 2], ["audio_end_token_id"; 2]]
            .map(|names| needed_id(folder.config, names));
    let positions_per_second = folder.config.size("position_id_per_seconds").unwrap_or(25) as u32;
    let vector_head = folder.text.vector_head.clone();
    if nemotron && vector_head.pooling == Pooling::LastToken {
        folder
            .config
            .fault("model_type", "another pooling than that of the last row, which the modules of this folder say");
    }
    let prompt = prompt(folder, nemotron);
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
            mirrored: false,
            whole_seconds: None,
            clip: None,
        }),
        ..preprocess(&vision, [3_136, 12_845_056])
    };
    let mut placeholders = ids.placeholders();
    placeholders.extend(pad.1);
    let parts = PartsForm {
        order: PartOrder::AsGiven,
        nothing: None,
        stamps: None,
        clock: Some(VideoClock { positions_per_second, frames_per_second: 2 }),
        one_image: false,
        placeholders,
        max_rows: positions.min(MOST_ROWS),
    };
    Qwen25OmniConfig { text, axes, vision, audio, vector_head, parts, prompt }
}

/// The backbone of a `text_config` of Qwen2, with its three axes, each of which has its own stretch of pairs.
pub(crate) fn read_text(
    folder: &CheckpointFolder<'_>,
    sections: [usize; 3],
    causal: bool,
) -> (BackboneConfig, RotaryAxes) {
    let text = folder.inner("text_config", "text_config.");
    text.only_flag("use_sliding_window", false);
    let (rope_theta, axes) = rope(folder, text, RotaryAxes { sections, interleaved: false });
    let own = Decoder { head_dim: None, causal, qk_norm: false, rope_theta };
    (read_backbone(&CheckpointFolder { config: text, ..*folder }, &own), axes)
}

/// The tower of a `vision_config` with windows of attention, whose connector gives rows of `hidden` numbers.
///
/// # Source
/// transformers 5.23.0, `Qwen2_5OmniVisionEncoderConfig`, `Qwen2_5_VLVisionConfig` and the constants of their classes.
pub(crate) fn read_windowed(folder: &CheckpointFolder<'_>, name: &str, hidden: usize) -> VisionConfig {
    let fields = folder.inner(name, "vision_config.");
    fields.only_text("hidden_act", "silu");
    if fields.size("out_hidden_size").is_some_and(|width| width != hidden) {
        fields.fault("out_hidden_size", format!("{hidden}, as text_config.hidden_size"));
    }
    let tower = plain_tower(folder, fields, "hidden_size");
    let unit = (tower.patch_px * tower.merge).max(1);
    let window = fields.size("window_size").unwrap_or(112);
    if window < unit {
        fields.fault("window_size", format!("{unit} pixels or more, the side of a merged patch"));
    }
    let full = fields.list("fullatt_block_indexes", "a list of blocks", Value::as_u64);
    let mut full: Vec<usize> =
        full.unwrap_or_else(|| vec![7, 15, 23, 31]).into_iter().map(|block| block as usize).collect();
    full.sort_unstable();
    full.dedup();
    VisionConfig {
        inner: fields.needed_size("intermediate_size"),
        kind: VisionKind::Windows { side: window / unit, full },
        ..tower
    }
}

/// What the towers of Qwen2-VL and Qwen2.5-VL have in common; `width` is the field of the width of their rows.
pub(crate) fn plain_tower(folder: &CheckpointFolder<'_>, fields: Fields<'_>, width: &str) -> VisionConfig {
    VisionConfig {
        hidden: fields.needed_size(width),
        layers: layers(fields, "depth", folder.tensors),
        heads: fields.needed_size("num_heads"),
        inner: 0,
        positions: 0,
        patch_px: fields.size("patch_size").unwrap_or(14),
        merge: fields.size("spatial_merge_size").unwrap_or(2),
        temporal_patch: fields.size("temporal_patch_size").unwrap_or(2),
        channels: fields.size("in_channels").unwrap_or(3),
        norm_eps: 1e-6,
        rope_theta: 10_000.0,
        taps: Vec::new(),
        kind: VisionKind::Rotary,
    }
}

/// The tower of an `audio_config`.
fn read_audio(folder: &CheckpointFolder<'_>, hidden: usize) -> AudioConfig {
    let audio = folder.inner("audio_config", "audio_config.");
    audio.only_text("activation_function", "gelu");
    audio.only_flag("scale_embedding", false);
    if audio.size("output_dim").is_some_and(|width| width != hidden) {
        audio.fault("output_dim", format!("{hidden}, as text_config.hidden_size"));
    }
    AudioConfig {
        hidden: audio.needed_size("d_model"),
        layers: layers(audio, "encoder_layers", folder.tensors),
        heads: audio.needed_size("encoder_attention_heads"),
        inner: audio.needed_size("encoder_ffn_dim"),
        n_window: audio.size("n_window").unwrap_or(100),
        mels: audio.size("num_mel_bins").unwrap_or(128),
        max_positions: audio.size("max_source_positions").unwrap_or(1500),
        norm_eps: AUDIO_EPS,
    }
}

/// How images and videos are prepared where no file says otherwise; images have these numbers of pixels, each frame of a video
/// those of its processor.
///
/// # Source
/// `preprocessor_config.json` of Qwen2.5-Omni; transformers 5.23.0, `Qwen2VLVideoProcessor`.
pub(crate) fn preprocess(vision: &VisionConfig, [min_pixels, max_pixels]: [u64; 2]) -> Preprocess {
    let image = PixelPreprocess {
        patch_px: vision.patch_px as u32,
        merge: vision.merge as u32,
        temporal_patch: vision.temporal_patch as u32,
        min_pixels,
        max_pixels,
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        rescale: 1.0 / 255.0,
        per_frame: false,
    };
    let video = PixelPreprocess { min_pixels: 100_352, max_pixels: 602_112, per_frame: true, ..image.clone() };
    Preprocess { image: Some(image), video: Some(video), video_frames: Some(32), ..Preprocess::default() }
}

/// The question behind the parts of an item, by which its chat template is recognised, too.
const SUMMARIZE: &str = "Summarize the above";
/// The token behind everything, whose row is the vector of the embedders that ask no question.
const END: &str = "<|endoftext|>";

/// The prompt: a chat turn, in which LCO-Embedding-Omni asks for a summary in one word, and e5-omni and OmniEmbed put the prompt of
/// the role in front of each text and [`END`] behind everything. The chat template says which where it has one of both, else
/// prompts by role and a tokenizer that ends every text are those of the latter.
///
/// # Source
/// Model cards of LCO-Embedding-Omni-3B, e5-omni-3B and OmniEmbed-v0.1; chat template of Qwen2.5-Omni.
fn prompt(folder: &CheckpointFolder<'_>, nemotron: bool) -> ItemPrompt {
    let files = folder.text.chat.clone().unwrap_or_default();
    let template = files.template.unwrap_or_default();
    let asks =
        !nemotron && (template.contains(SUMMARIZE) || !(template.contains(END) || files.prompts || files.ends_texts));
    let ends = !nemotron && !asks && !files.ends_texts;
    let (instruction, how) = match asks {
        true => {
            let default = format!("{SUMMARIZE} {{kind}} in one word:");
            let instruction = InstructionPlace::Behind { before: "\n".into(), default };
            (instruction, "asks for a summary in one word behind the parts, as LCO-Embedding-Omni")
        }
        false => {
            let instruction = InstructionPlace::EachText { before: String::new(), behind: String::new() };
            (instruction, "has the prompt of the role in front of each text and asks for nothing")
        }
    };
    if folder.text.chat.is_some() {
        let end = if ends { ", with <|endoftext|> behind everything, as e5-omni and OmniEmbed" } else { "" };
        folder.note(format!("prompt: a chat turn that {how}{end}"));
    }
    let turn = "<|im_end|>\n<|im_start|>assistant\n";
    ItemPrompt {
        before: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n".into(),
        instruction,
        behind: if ends { format!("{turn}{END}") } else { turn.into() },
        texts: None,
        keeps_end: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FamilyConfig;

    /// The published sizes: layers, width, key heads, MLP width and rows of the table.
    fn published([layers, hidden, heads, kv_heads, inner, vocab]: [usize; 6]) -> Qwen25OmniConfig {
        Qwen25OmniConfig {
            text: BackboneConfig {
                hidden,
                layers,
                heads,
                kv_heads,
                head_dim: 128,
                inner,
                norm_eps: 1e-6,
                rope_theta: 1e6,
                causal: true,
                qk_norm: false,
                max_tokens: 32_768,
                vocab,
            },
            axes: RotaryAxes { sections: [16, 24, 24], interleaved: false },
            vision: VisionConfig {
                hidden: 1280,
                layers: 32,
                heads: 16,
                inner: 3420,
                positions: 0,
                patch_px: 14,
                merge: 2,
                temporal_patch: 2,
                channels: 3,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                taps: Vec::new(),
                kind: VisionKind::Windows { side: 4, full: vec![7, 15, 23, 31] },
            },
            audio: AudioConfig {
                hidden: 1280,
                layers: 32,
                heads: 20,
                inner: 5120,
                n_window: 100,
                mels: 128,
                max_positions: 1500,
                norm_eps: AUDIO_EPS,
            },
            vector_head: VectorHeadConfig::of(Pooling::LastToken),
            parts: PartsForm {
                order: PartOrder::AsGiven,
                nothing: None,
                stamps: None,
                clock: Some(VideoClock { positions_per_second: 25, frames_per_second: 2 }),
                one_image: false,
                placeholders: vec![151_646, 151_655, 151_656],
                max_rows: 32_768,
            },
            prompt: ItemPrompt {
                before: String::new(),
                instruction: InstructionPlace::Nowhere,
                behind: String::new(),
                texts: None,
                keeps_end: true,
            },
        }
    }

    /// Of the published counts 311,164,928 and 544,997,376 are the head's, which an embedder does not take.
    #[test]
    fn parameters_of_both_sizes_are_the_published_ones() {
        for (sizes, published_count, head) in [
            ([36, 2048, 16, 2, 11_008, 151_936], 4_703_464_448, 311_164_928),
            ([28, 3584, 28, 4, 18_944, 152_064], 8_931_813_888u64, 544_997_376),
        ] {
            let config = published(sizes);
            config.check().unwrap();
            let family = FamilyConfig::new(config);
            let specs = [family.token_tensors(), family.tower_tensors(), family.text_tensors(0)].concat();
            let own: u64 = specs.iter().map(|spec| spec.elements() as u64).sum();
            // Zeros for the keys of audio, which have no bias; rows that stand for ends of audio and are not read.
            let (zeros, ends) = (32 * 1280, 2 * sizes[1] as u64);
            assert_eq!(own - zeros + ends + head, published_count);
        }
    }

    #[test]
    fn groups_of_frames_lie_at_whole_positions_of_f32() {
        let clock = VideoClock { positions_per_second: 25, frames_per_second: 2 };
        assert_eq!(clock.times(4, 1.0), [0, 25, 50, 75]);
        assert_eq!(clock.times(3, 2.0 / 3.0), [0, 16, 33]);
        assert_eq!(clock.times(0, 1.0), [0; 0]);
    }
}
