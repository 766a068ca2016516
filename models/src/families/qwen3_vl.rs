//! Qwen3-VL embedders (Qwen3-VL-Embedding): texts, images, videos and items of several of them, in a chat prompt with an
//! instruction, read causally at positions of three axes; the last row is the vector. And rerankers (Qwen3-VL-Reranker), which
//! answer whether such a document meets such a query.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{BackboneConfig, BackboneText};
use crate::blocks::{Pooling, RotaryAxes, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TemplateRule, VisionCard, spelling};
use crate::error::ConfigError;
use crate::families::qwen3::{AnswerHeadConfig, Decoder, judge, read_backbone};
use crate::family::{
    Architecture, CheckpointRules, Family, ImageEncoder, ImageForm, ModelSpec, Outputs, PairForm, PairPrompt,
    TextModel, Tokens, config,
};
use crate::items::{InstructionPlace, ItemPrompt, PartOrder, PartsForm};
use crate::media_text::{MediaText, MediaTextConfig};
use crate::record::{Modality, PixelPreprocess, Preprocess, TemplateKind};
use crate::towers::vision::{VisionConfig, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "qwen3_vl",
    about: "Qwen3-VL embedders and rerankers (Qwen3-VL-Embedding, Qwen3-VL-Reranker): text, images, video, and items of \
            several of them",
    read: config::<Qwen3VlConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["qwen3_vl"],
    is_architecture: |name| name == "Qwen3VLModel" || name == "Qwen3VLForConditionalGeneration",
    known_as: "a Qwen3-VL model",
    keys: KeyMap {
        renames: &[("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
            (Pattern::Contains("rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[
        ("embed_tokens.", "language_model.embed_tokens."),
        ("backbone.", "language_model."),
        ("vision.patch_embed.", "visual.patch_embed.proj."),
        ("vision.", "visual."),
        ("merger.", "visual.merger."),
        ("deepstack.", "visual.deepstack_merger_list."),
        ("head.", ""),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { pooling: Pooling::LastToken, processors: true, ..Steps::TEXT },
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen3VlConfig {
    /// The backbone.
    pub text: BackboneConfig,
    /// Which pairs of its heads turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower; blocks that it taps are added behind the first layers.
    pub vision: VisionConfig,
    /// From rows to the vector.
    pub vector_head: VectorHeadConfig,
    /// How parts are written.
    pub parts: PartsForm,
    /// What stands around an item; absent in a model that gives scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<ItemPrompt>,
    /// What makes a score of the pooled row; absent in a model that gives vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AnswerHeadConfig>,
}

impl Architecture for Qwen3VlConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.axes.check(self.text.head_dim)?;
        self.vision.check()?;
        check_taps(&self.vision, &self.text)?;
        self.parts.check(self.text.vocab)?;
        self.vector_head.check(self.text.hidden)?;
        let Some(head) = &self.head else {
            let missing = || ConfigError::OutOfRange {
                field: "prompt".into(),
                found: "nothing".into(),
                expected: "the prompt of an item, in a model that gives vectors".into(),
            };
            return self.prompt.as_ref().map(|_| ()).ok_or_else(missing);
        };
        self.vector_head.check_alone()?;
        head.check(self.text.vocab)
    }

    fn spec(&self) -> ModelSpec {
        let image = Some(image_form(&self.vision));
        let spec = ModelSpec { image, ..BackboneText::spec(&self.text, &self.vector_head) };
        match &self.head {
            Some(head) => {
                ModelSpec { vector: 1, outputs: Outputs::Scores(PairForm::Prompt(head.prompt.clone())), ..spec }
            }
            None => ModelSpec { outputs: Outputs::with_features(), ..spec },
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(&self.vision, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let Self { text, axes, vision, vector_head, .. } = self;
        let answers = self.head.as_ref().map(|head| head.build(b, text));
        let config = MediaTextConfig::new(text, *axes, vision, vector_head);
        Arc::new(MediaText::build(config, b, tokens).with_answers(answers))
    }

    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        Some(&self.vector_head)
    }

    fn parts_form(&self) -> Option<&PartsForm> {
        Some(&self.parts)
    }

    fn item_prompt(&self) -> Option<&ItemPrompt> {
        self.prompt.as_ref()
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = vec![("text", self.text.words())];
        lines.extend(preprocess.image.as_ref().map(|image| ("images", self.vision.words(image))));
        lines
    }
}

/// How images go into a tower.
pub(crate) fn image_form(vision: &VisionConfig) -> ImageForm {
    ImageForm::Patches {
        patch_px: vision.patch_px,
        merge: vision.merge,
        temporal_patch: vision.temporal_patch,
        patch_values: vision.patch_values(),
        hidden: vision.hidden,
    }
}

/// Checks that each tapped block has a layer to be added behind.
pub(crate) fn check_taps(vision: &VisionConfig, text: &BackboneConfig) -> Result<(), ConfigError> {
    if vision.taps.len() <= text.layers {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        field: "vision.taps".into(),
        found: format!("{} blocks", vision.taps.len()),
        expected: format!("at most text.layers, {}", text.layers),
    })
}

/// What a `vision_config` leaves unsaid.
///
/// # Source
/// transformers 5.23.0, `Qwen3VLVisionConfig` and `Qwen3VLVisionBlock`.
pub(crate) const VISION: VisionCard =
    VisionCard { patch_px: 16, merge: 2, temporal_patch: 2, channels: 3, norm_eps: 1e-6, rope_theta: 10_000.0 };

/// Rows of a text at most, whatever the positions allow.
///
/// # Source
/// QwenLM/Qwen3-VL-Embedding, `qwen3_vl_embedding.py`: `MAX_LENGTH`.
const TEXT_TOKENS: usize = 8192;

/// Rows of a sequence with media at most, whatever the positions allow: a video of the largest published size has about half as
/// many.
pub(crate) const MOST_ROWS: usize = 32_768;

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> Qwen3VlConfig {
    folder.refuse_common();
    let (mut text, axes) = read_text(folder, true);
    let positions = folder.inner("text_config", "text_config.").size("max_position_embeddings").unwrap_or(0);
    text.max_tokens = text.max_tokens.min(TEXT_TOKENS);
    let vision = read_vision(folder, &text);
    let head = head(folder);
    let ids = MediaIds::read(folder);
    let mut details = folder.details.borrow_mut();
    details.ids = ids.all();
    details.templates = vec![ids.template(Modality::Image), ids.template(Modality::Video)];
    details.preprocess = preprocess(&vision, [4_096, 1_310_720]);
    let parts = PartsForm {
        order: PartOrder::VideosImagesTexts,
        nothing: Some("NULL".into()),
        stamps: Some(2),
        clock: None,
        one_image: false,
        placeholders: ids.placeholders(),
        max_rows: positions.min(MOST_ROWS),
    };
    let vector_head = match &head {
        Some(_) => VectorHeadConfig::of(Pooling::LastToken),
        None => folder.text.vector_head.clone(),
    };
    let prompt = head.is_none().then(prompt);
    Qwen3VlConfig { text, axes, vision, vector_head, parts, prompt, head }
}

/// The head of a reranker with its prompt.
///
/// # Source
/// QwenLM/Qwen3-VL-Embedding, `qwen3_vl_reranker.py`, `format_mm_instruction` and `get_binary_linear`.
fn head(folder: &CheckpointFolder<'_>) -> Option<AnswerHeadConfig> {
    let rerank = folder.text.rerank.as_ref()?;
    let Some(answers) = rerank.answers else {
        let expected = "Qwen3VLForConditionalGeneration: a reranker of this family answers yes or no";
        folder.config.fault("architectures", expected);
        return None;
    };
    let text = folder.inner("text_config", "text_config.");
    // The default of transformers' Qwen3VLConfig.
    let tied = folder.config.flag("tie_word_embeddings").or(text.flag("tie_word_embeddings")).unwrap_or(false);
    let prompt = PairPrompt {
        before: judge(),
        labels: ["<Instruct>: ", "<Query>:", "\n<Document>:"].map(String::from),
        behind: "<|im_end|>\n<|im_start|>assistant\n".into(),
        instruction: rerank
            .instruction
            .clone()
            .unwrap_or_else(|| "Given a search query, retrieve relevant candidates that answer the query.".into()),
    };
    Some(AnswerHeadConfig { answers, tied, prompt })
}

/// The prompt of the embedders. What the tokenizer appends stands behind it, and is pooled.
///
/// # Source
/// QwenLM/Qwen3-VL-Embedding, `qwen3_vl_embedding.py`, `format_model_input`; chat template of the checkpoint.
fn prompt() -> ItemPrompt {
    ItemPrompt {
        before: "<|im_start|>system\n".into(),
        instruction: InstructionPlace::InFront {
            default: "Represent the user's input.".into(),
            full_stop: true,
            behind: "<|im_end|>\n<|im_start|>user\n".into(),
        },
        behind: "<|im_end|>\n<|im_start|>assistant\n".into(),
        texts: None,
        keeps_end: false,
    }
}

/// The backbone of a `text_config`, with its three axes.
pub(crate) fn read_text(folder: &CheckpointFolder<'_>, causal: bool) -> (BackboneConfig, RotaryAxes) {
    let text = folder.inner("text_config", "text_config.");
    text.only_flag("attention_bias", false);
    text.only_flag("use_sliding_window", false);
    // What transformers' Qwen3VLTextRotaryEmbedding holds where nothing names them.
    let (rope_theta, axes) = rope(folder, text, RotaryAxes { sections: [24, 20, 20], interleaved: true });
    let own = Decoder { head_dim: Some(128), causal, qk_norm: true, rope_theta };
    (read_backbone(&CheckpointFolder { config: text, ..*folder }, &own), axes)
}

/// The base and the axes of the rotary positions, of whichever block names them; any scaling is refused. The sections are
/// those of `otherwise` where nothing names them.
///
/// # Source
/// transformers 5.23.0, `Qwen3VLTextRotaryEmbedding`, `Qwen2_5OmniRotaryEmbedding`, `Qwen2VLRotaryEmbedding`.
pub(crate) fn rope(folder: &CheckpointFolder<'_>, text: Fields<'_>, otherwise: RotaryAxes) -> (f64, RotaryAxes) {
    let (mut theta, mut sections): (Option<f64>, Option<Vec<usize>>) = (text.number("rope_theta"), None);
    let blocks = [
        ("text_config.rope_parameters.", text.get("rope_parameters")),
        ("text_config.rope_scaling.", text.get("rope_scaling")),
        ("rope_scaling.", folder.config.get("rope_scaling")),
    ];
    for (at, block) in blocks {
        let rope = Fields::new(at, block, folder.faults);
        for name in ["rope_type", "type"] {
            if rope.text(name).is_some_and(|kind| kind != "default" && kind != "mrope") {
                rope.fault(name, "\"default\" or \"mrope\"");
            }
        }
        rope.only_flag("mrope_interleaved", otherwise.interleaved);
        if rope.number("partial_rotary_factor").is_some_and(|factor| factor != 1.0) {
            rope.fault("partial_rotary_factor", "1.0");
        }
        let number = rope.number("rope_theta");
        if let (Some(taken), Some(other)) = (theta, number)
            && taken != other
        {
            rope.fault("rope_theta", format!("{taken}, as is said before"));
        }
        theta = theta.or(number);
        let listed = rope.list("mrope_section", "three numbers of pairs", |v| v.as_u64().map(|n| n as usize));
        if listed.as_ref().is_some_and(|listed| listed.len() != 3 || sections.as_ref().is_some_and(|s| s != listed)) {
            rope.fault("mrope_section", "three numbers of pairs, the same in every block");
        }
        sections = sections.or(listed);
    }
    if theta.is_none() {
        text.fault("rope_parameters.rope_theta", "a number, there or in rope_theta");
    }
    let sections = sections.and_then(|sections| sections.try_into().ok()).unwrap_or(otherwise.sections);
    (theta.unwrap_or(0.0), RotaryAxes { sections, ..otherwise })
}

/// The tower of a `vision_config`, with the blocks it taps. A tap behind the last block is never reached: its connector is left
/// aside.
pub(crate) fn read_vision(folder: &CheckpointFolder<'_>, text: &BackboneConfig) -> VisionConfig {
    let vision = read_tower(folder, "visual.deepstack_merger_list.");
    let fields = folder.inner("vision_config", "vision_config.");
    if fields.size("out_hidden_size").is_some_and(|width| width != text.hidden) {
        fields.fault("out_hidden_size", format!("{}, as text_config.hidden_size", text.hidden));
    }
    vision
}

/// The same with connectors of any width, whose names begin like this.
pub(crate) fn read_tower(folder: &CheckpointFolder<'_>, connectors: &str) -> VisionConfig {
    let fields = folder.inner("vision_config", "vision_config.");
    let mut vision = VisionConfig::published(fields, folder.tensors, &VISION);
    let rope = Fields::new("vision_config.rope_parameters.", fields.get("rope_parameters"), folder.faults);
    if rope.text("rope_type").is_some_and(|kind| kind != "axial" && kind != "default") {
        rope.fault("rope_type", "\"axial\" or \"default\"");
    }
    vision.rope_theta = rope.number("rope_theta").unwrap_or(vision.rope_theta);
    let listed = fields.list("deepstack_visual_indexes", "a list of blocks", Value::as_u64);
    // The default of transformers' Qwen3VLVisionConfig.
    let listed: Vec<usize> = listed.unwrap_or_else(|| vec![8, 16, 24]).into_iter().map(|tap| tap as usize).collect();
    if !listed.is_sorted_by(|one, next| one < next) {
        fields.fault("deepstack_visual_indexes", "ascending blocks, each once");
    }
    for (i, tap) in listed.iter().enumerate().filter(|(_, tap)| **tap >= vision.layers) {
        let reason = format!("block {tap} of {} is never reached, so that its rows are never made", vision.layers);
        folder.details.borrow_mut().unused.push((format!("{connectors}{i}."), reason));
    }
    vision.taps = listed.into_iter().filter(|tap| *tap < vision.layers).collect();
    vision
}

/// The id in a field of either name, which must be there, with the field.
pub(crate) fn needed_id(config: Fields<'_>, names: [&'static str; 2]) -> (&'static str, Option<u32>) {
    let name = spelling(config, names);
    if config.get(name).is_none() {
        config.fault(name, "a token id");
    }
    (name, config.id(name))
}

/// Ids of a configuration that stand for media and their ends.
pub(crate) struct MediaIds {
    image: (&'static str, Option<u32>),
    video: (&'static str, Option<u32>),
    start: (&'static str, Option<u32>),
    end: (&'static str, Option<u32>),
}

impl MediaIds {
    /// All of them must be there; those that stand for rows have an older name, too.
    pub fn read(folder: &CheckpointFolder<'_>) -> Self {
        let id = |names| needed_id(folder.config, names);
        Self {
            image: id(["image_token_id", "image_token_index"]),
            video: id(["video_token_id", "video_token_index"]),
            start: id(["vision_start_token_id"; 2]),
            end: id(["vision_end_token_id"; 2]),
        }
    }

    /// Every id with its field.
    pub fn all(&self) -> Vec<(&'static str, u32)> {
        let ids = [self.image, self.video, self.start, self.end];
        ids.into_iter().filter_map(|(name, id)| Some((name, id?))).collect()
    }

    /// Ids that stand for rows.
    pub fn placeholders(&self) -> Vec<u32> {
        [self.image.1, self.video.1].into_iter().flatten().collect()
    }

    /// Images, and groups of frames, stand between both ends.
    pub fn template(&self, modality: Modality) -> TemplateRule {
        TemplateRule { modality, kind: TemplateKind::Wrapped, fixed: true, start: self.start, end: self.end }
    }
}

/// How images and videos are prepared where no file says otherwise; images have these numbers of pixels.
///
/// # Source
/// `preprocessor_config.json` and `video_preprocessor_config.json` of the published checkpoints.
pub(crate) fn preprocess(vision: &VisionConfig, [min_pixels, max_pixels]: [u64; 2]) -> Preprocess {
    let image = PixelPreprocess {
        patch_px: vision.patch_px as u32,
        merge: vision.merge as u32,
        temporal_patch: vision.temporal_patch as u32,
        min_pixels,
        max_pixels,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
        per_frame: false,
    };
    let video = PixelPreprocess { min_pixels: 4_096, max_pixels: 25_165_824, ..image.clone() };
    Preprocess { image: Some(image), video: Some(video), video_frames: Some(32), ..Preprocess::default() }
}
