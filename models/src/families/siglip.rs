//! SigLIP of one resolution, SigLIP 2 where it is published in the same layout, and SigLIP 2 of any shape (NaFlex): a text tower
//! and an image tower whose vectors lie in one space.
//!
//! Texts are padded to the longest one and read without a mask, as they were in training: the padding takes part. The last
//! row, mostly padding, makes the vector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocks::HiddenAct;
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TextFiles, TwoTowers};
use crate::error::ConfigError;
use crate::families::clip::TowerText;
use crate::family::{
    Architecture, CheckpointRules, Family, ImageEncoder, ImageForm, ModelSpec, Outputs, Similarity, TextModel,
    TextRule, Tokens, config,
};
use crate::record::{ImageFilter, ImageFit, Preprocess, SquarePreprocess};
use crate::towers::text::{TextTower, TextTowerConfig};
use crate::towers::vit::{VitConfig, VitHead, VitTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "siglip",
    about: "SigLIP, SigLIP 2 of one resolution and of any (NaFlex): text, images and video in one space",
    read: config::<SiglipConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["siglip", FLEXIBLE],
    is_architecture: |name| name == "SiglipModel" || name == "Siglip2Model",
    known_as: "a SigLIP model",
    keys: KeyMap {
        renames: &[("module.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Exact(LOGIT_SCALE), "its value stands in the configuration"),
            (Pattern::Exact(LOGIT_BIAS), "its value stands in the configuration"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "text_model.embeddings.token_embedding."),
        ("backbone.position_embedding.", "text_model.embeddings.position_embedding."),
        ("backbone.layers.", "text_model.encoder.layers."),
        ("backbone.final_layer_norm.", "text_model.final_layer_norm."),
        ("text_head.", "text_model.head."),
        ("vision.patch_embedding.", "vision_model.embeddings.patch_embedding."),
        ("vision.position_embedding.", "vision_model.embeddings.position_embedding."),
        ("vision.layers.", "vision_model.encoder.layers."),
        ("vision.post_layernorm.", "vision_model.post_layernorm."),
        ("vision.head.", "vision_model.head."),
        // As torch's own attention calls them.
        (".attention.in_proj.", ".attention.in_proj_"),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { texts: TextFiles::Tokenizer { padded: true }, processors: true, ..Steps::TEXT },
};

/// `model_type` of a model whose images keep their shape.
const FLEXIBLE: &str = "siglip2";
/// Tensors of one number each.
const LOGIT_SCALE: &str = "logit_scale";
const LOGIT_BIAS: &str = "logit_bias";

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiglipConfig {
    /// The text tower.
    pub text: TextTowerConfig,
    /// The image tower.
    pub vision: VitConfig,
    /// Id that texts are padded with, up to `text.max_tokens`.
    pub padding: u32,
    /// From a cosine to a logit.
    pub similarity: Similarity,
}

impl Architecture for SiglipConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.check()?;
        if self.padding as usize >= self.text.vocab {
            return Err(ConfigError::OutOfRange {
                field: "padding".into(),
                found: self.padding.to_string(),
                expected: format!("less than text.vocab, {}", self.text.vocab),
            });
        }
        self.similarity.check()
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.vision.vector(),
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image: Some(ImageForm::Pixels {
                image_size: self.vision.image_size,
                rows: self.vision.rows(),
                patch_px: self.vision.flexible_patch(),
            }),
            audio: None,
            ends: None,
            skips_prompt: false,
            outputs: Outputs::default(),
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        Some(ImageEncoder::Vectors(Box::new(b.at("vision", |b| VitTower::build(&self.vision, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let (hidden, vector) = (self.text.hidden, self.vision.vector());
        Arc::new(TowerText {
            tokens: tokens.table(self.text.vocab, hidden),
            tower: b.at("backbone", |b| TextTower::build(&self.text, false, b)),
            projection: b.linear_biased("text_head", hidden, vector),
        })
    }

    fn text_rule(&self) -> TextRule {
        TextRule::Padded(self.padding)
    }

    fn similarity(&self) -> Option<Similarity> {
        Some(self.similarity)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let text = format!("{}, each padded to that with id {}", self.text.words(), self.padding);
        vec![("text", text), ("images", self.vision.words()), ("similarity", self.similarity.words())]
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> SiglipConfig {
    folder.refuse_common();
    let (text, vision) = (folder.inner("text_config", "text_config."), folder.inner("vision_config", "vision_config."));
    let flexible = folder.config.text("model_type") == Some(FLEXIBLE);
    let name = if flexible { "siglip2" } else { "siglip" };
    text.only_text("model_type", &format!("{name}_text_model"));
    vision.only_text("model_type", &format!("{name}_vision_model"));
    vision.only_flag("vision_use_head", true);
    let towers = TwoTowers {
        act: HiddenAct::GeluTanh,
        norm_eps: 1e-6,
        text: [768, 12, 12, 3072],
        positions: 64,
        vocab: 32_000,
        vision: [768, 12, 12, 3072],
        patch_px: 16,
    };
    let text_tower = towers.text(folder, text);
    let image_tower = match flexible {
        true => flexible_tower(towers.vision(folder, vision, VitHead::Probe), vision),
        false => towers.vision(folder, vision, VitHead::Probe),
    };
    let projected = text.size("projection_size").unwrap_or(text_tower.hidden);
    if projected != image_tower.hidden {
        text.fault("projection_size", format!("vision_config.hidden_size, {}: both are one space", image_tower.hidden));
    }
    // The tokenizer pads: what its files name counts, and not the configuration's default.
    let padding = folder.text.padding.unwrap_or_else(|| text.id("pad_token_id").unwrap_or(1));
    if padding as usize >= text_tower.vocab {
        text.fault(
            "pad_token_id",
            format!("an id of the table's {} rows, and the tokenizer names {padding}", text_tower.vocab),
        );
    }
    towers.say(
        folder,
        SquarePreprocess {
            image_size: image_tower.image_size as u32,
            fit: match image_tower.flexible_patch() {
                Some(patch_px) => ImageFit::Patches { patch_px: patch_px as u32, most: MOST_PATCHES },
                None => ImageFit::Stretch,
            },
            filter: if flexible { ImageFilter::Bilinear } else { ImageFilter::Bicubic },
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        },
    );
    SiglipConfig {
        text: text_tower,
        vision: image_tower,
        padding,
        similarity: Similarity { logit_scale: folder.number(LOGIT_SCALE), logit_bias: Some(folder.number(LOGIT_BIAS)) },
    }
}

/// Patches of an image at most, where no file says so.
const MOST_PATCHES: u32 = 256;

/// The tower with the position table that its configuration lays out: as many positions as a square number says.
fn flexible_tower(tower: VitConfig, fields: Fields<'_>) -> VitConfig {
    let positions = fields.size("num_patches").unwrap_or(MOST_PATCHES as usize);
    let side = positions.isqrt();
    if side * side != positions {
        fields.fault("num_patches", "a square number: a table of as many rows as columns");
    }
    VitConfig { image_size: side * tower.patch_px, flexible: true, ..tower }
}
