//! ColQwen2 and ColQwen2.5: a vector for each row of an image or a query, compared by late interaction. The body is Qwen2-VL's or
//! Qwen2.5-VL's, read causally at positions of three axes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneConfig, BackboneOptions, BackboneText};
use crate::blocks::{Pooling, RotaryAxes, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TextFiles};
use crate::checks::nonzero;
use crate::error::ConfigError;
use crate::families::qwen3_vl::{MOST_ROWS, MediaIds, image_form};
use crate::families::qwen25_omni::{MERGER, check_untapped, plain_tower, preprocess, read_text, read_windowed};
use crate::family::{
    Architecture, CheckpointRules, Family, ImageEncoder, ModelSpec, Outputs, RowOutputs, TextModel, Tokens, config,
};
use crate::items::{InstructionPlace, ItemPrompt, PartOrder, PartsForm, TextsPrompt};
use crate::media_text::{MediaText, MediaTextConfig};
use crate::record::{Modality, Preprocess};
use crate::towers::vision::{VisionConfig, VisionKind, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "colqwen2",
    about: "ColQwen2 and ColQwen2.5: pages and photos, and text queries, a vector a row",
    read: config::<ColQwen2Config>,
    checkpoint: Some(&RULES),
};

/// The token that stands ten times behind a query.
///
/// # Source
/// transformers 5.23.0, `ColQwen2Processor.query_augmentation_token`: the tokenizer's padding.
const AUGMENTATION: &str = "<|endoftext|>";

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["colqwen2", "colqwen2_5"],
    is_architecture: |name| name.starts_with("ColQwen2"),
    known_as: "a ColQwen2 model",
    keys: KeyMap {
        renames: &[
            ("vlm.", ""),
            // Behind it, as transformers 4 and colpali_engine have them.
            ("model.language_model.", "language_model."),
            ("model.visual.", "visual."),
            ("model.lm_head.", "lm_head."),
            ("language_model.model.", "language_model."),
            ("model.", "language_model."),
            ("custom_text_proj.", "embedding_proj_layer."),
        ],
        endings: &[],
        drops: &[
            (Pattern::Prefix("lm_head."), "rows become vectors and not words"),
            (Pattern::Prefix("language_model.lm_head."), "rows become vectors and not words"),
            (Pattern::Contains("inv_freq"), "rotary frequencies are computed from the configuration"),
        ],
    },
    names: &[
        ("embed_tokens.", "language_model.embed_tokens."),
        ("backbone.", "language_model."),
        ("vision.patch_embed.", "visual.patch_embed.proj."),
        ("vision.", "visual."),
        ("head.rows.", "embedding_proj_layer."),
        MERGER[0],
        MERGER[1],
        MERGER[2],
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps {
        texts: TextFiles::Tokenizer { padded: true },
        tokens: &[AUGMENTATION],
        processors: true,
        ..Steps::TEXT
    },
};

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColQwen2Config {
    /// The backbone; queries, keys and values have biases.
    pub text: BackboneConfig,
    /// Which pairs of its heads turn with which axis.
    pub axes: RotaryAxes,
    /// The image tower.
    pub vision: VisionConfig,
    /// Numbers of a row's vector.
    pub row_vector: usize,
    /// How parts are written.
    pub parts: PartsForm,
    /// What stands around an image and a query.
    pub prompt: ItemPrompt,
}

impl Architecture for ColQwen2Config {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.axes.check(self.text.head_dim)?;
        self.vision.check()?;
        check_untapped(&self.vision)?;
        nonzero(&[("row_vector", self.row_vector)])?;
        self.parts.check(self.text.vocab)
    }

    fn spec(&self) -> ModelSpec {
        let rows = RowOutputs { alone: true, features: true, sparse: None, multi: Some(0), late: None };
        ModelSpec {
            vector: self.row_vector,
            image: Some(image_form(&self.vision)),
            outputs: Outputs::Vectors(rows),
            ..BackboneText::spec(&self.text, &unused_head())
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(&self.vision, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let Self { text, axes, vision, row_vector, .. } = self;
        let head = unused_head();
        let config = MediaTextConfig {
            options: BackboneOptions { qkv_bias: true, ..BackboneOptions::default() },
            rows: Some(*row_vector),
            ..MediaTextConfig::new(text, *axes, vision, &head)
        };
        Arc::new(MediaText::build(config, b, tokens))
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
        lines
    }
}

/// Rows are not pooled: the head over them is all there is.
fn unused_head() -> VectorHeadConfig {
    VectorHeadConfig::of(Pooling::Mean)
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> ColQwen2Config {
    folder.refuse_common();
    let row_vector = folder.config.size("embedding_dim").unwrap_or(128);
    if let (Some(padding), [augmentation]) = (folder.text.padding, folder.token_ids)
        && padding != *augmentation
    {
        let expected = format!("{AUGMENTATION} (id {augmentation}), which stands behind every query");
        folder.faults.add("tokenizer_config.json pad_token", format!("id {padding}"), expected);
    }
    let body = match folder.config.get("vlm_config") {
        Some(value) => Fields::new("vlm_config.", Some(value), folder.faults),
        None => folder.config,
    };
    let folder = &CheckpointFolder { config: body, ..*folder };
    let (text, axes) = read_text(folder, [16, 24, 24], true);
    let positions = folder.inner("text_config", "text_config.").size("max_position_embeddings").unwrap_or(0);
    let vision = read_vision(folder, &text);
    let ids = MediaIds::read(folder);
    let mut details = folder.details.borrow_mut();
    details.ids = ids.all();
    details.templates = vec![ids.template(Modality::Image)];
    details.preprocess = preprocess(&vision, [3_136, 1_003_520]);
    details.notes.push(
        "texts are queries whatever the role, as ColQwen2Processor reads them: \"Query: \" in front, ten times \
         <|endoftext|> and a line break behind"
            .into(),
    );
    let parts = PartsForm {
        order: PartOrder::AsGiven,
        nothing: None,
        stamps: None,
        clock: None,
        one_image: true,
        placeholders: ids.placeholders(),
        max_rows: positions.min(MOST_ROWS),
    };
    ColQwen2Config { text, axes, vision, row_vector, parts, prompt: prompt() }
}

/// The tower of Qwen2-VL or of Qwen2.5-VL, whichever the configuration is of.
///
/// # Source
/// transformers 5.23.0, `Qwen2VLVisionConfig`.
fn read_vision(folder: &CheckpointFolder<'_>, text: &BackboneConfig) -> VisionConfig {
    let fields = folder.inner("vision_config", "vision_config.");
    match folder.config.text("model_type") {
        Some("qwen2_5_vl") => return read_windowed(folder, "vision_config", text.hidden),
        Some("qwen2_vl") => {}
        _ => folder.config.fault("model_type", "\"qwen2_vl\" or \"qwen2_5_vl\""),
    }
    fields.only_text("hidden_act", "quick_gelu");
    if fields.size("hidden_size").is_some_and(|width| width != text.hidden) {
        fields.fault("hidden_size", format!("{}, as text_config.hidden_size", text.hidden));
    }
    let tower = plain_tower(folder, fields, "embed_dim");
    let ratio = fields.size("mlp_ratio").unwrap_or(4);
    VisionConfig { inner: ratio.saturating_mul(tower.hidden), kind: VisionKind::Rotary, ..tower }
}

/// What stands around an image, and around a query.
///
/// # Source
/// transformers 5.23.0, `ColQwen2Processor`: `visual_prompt_prefix`, `query_prefix`, `query_augmentation_token`.
fn prompt() -> ItemPrompt {
    ItemPrompt {
        before: "<|im_start|>user\n".into(),
        instruction: InstructionPlace::Nowhere,
        behind: "Describe the image.<|im_end|><|endoftext|>".into(),
        texts: Some(TextsPrompt { before: "Query: ".into(), behind: format!("{}\n", AUGMENTATION.repeat(10)) }),
        keeps_end: true,
    }
}
