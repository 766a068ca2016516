//! CLIP in OpenAI's layout: a text tower and an image tower whose vectors lie in one space.
//!
//! Rows of a text see only earlier ones, and the first end token makes the vector: what would stand behind it changes nothing
//! and is not read.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::batch::TokenRows;
use crate::blocks::{HiddenAct, Linear, TokenTable};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, Fields, KeyMap, Pattern, Steps, TextFiles, TwoTowers};
use crate::checks::nonzero;
use crate::error::ConfigError;
use crate::family::{
    Architecture, CheckpointRules, Connected, Family, ImageEncoder, ImageForm, ModelSpec, Outputs, Pass, PassInput,
    RowActivations, Similarity, StepKind, TextModel, TextRule, Tokens, TowerOutput, config,
};
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::{ImageFilter, ImageFit, Preprocess, SquarePreprocess};
use crate::towers::text::{TextTower, TextTowerConfig, TextTowerState};
use crate::towers::vit::{VitConfig, VitHead, VitTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "clip",
    about: "CLIP in OpenAI's layout: text, images and video in one space",
    read: config::<ClipConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["clip"],
    is_architecture: |name| name == "CLIPModel",
    known_as: "a CLIP model",
    keys: KeyMap {
        renames: &[("module.", ""), ("0.model.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Exact(LOGIT_SCALE), "its value stands in the configuration"),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
        ],
    },
    names: &[
        ("embed_tokens.", "text_model.embeddings.token_embedding."),
        ("backbone.position_embedding.", "text_model.embeddings.position_embedding."),
        ("backbone.layers.", "text_model.encoder.layers."),
        ("backbone.final_layer_norm.", "text_model.final_layer_norm."),
        ("vision.projection.", "visual_projection."),
        ("vision.class_embedding", "vision_model.embeddings.class_embedding"),
        ("vision.patch_embedding.", "vision_model.embeddings.patch_embedding."),
        ("vision.position_embedding.", "vision_model.embeddings.position_embedding."),
        ("vision.layers.", "vision_model.encoder.layers."),
        ("vision.pre_layrnorm.", "vision_model.pre_layrnorm."),
        ("vision.post_layernorm.", "vision_model.post_layernorm."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { texts: TextFiles::Tokenizer { padded: false }, tokens: &[END], processors: true, ..Steps::TEXT },
};

/// The token whose row makes a text's vector.
const END: &str = "<|endoftext|>";
/// A tensor of one number.
const LOGIT_SCALE: &str = "logit_scale";
/// `eos_token_id` where a file has none.
const DEFAULT_EOS: u32 = 49_407;
/// `eos_token_id` of the first configurations, which named another token: the highest id of a text is taken then.
const FIRST_EOS: u32 = 2;

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// The text tower.
    pub text: TextTowerConfig,
    /// The image tower.
    pub vision: VitConfig,
    /// Numbers of a vector.
    pub vector: usize,
    /// From a cosine to a logit.
    pub similarity: Similarity,
}

impl Architecture for ClipConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.check()?;
        nonzero(&[("vector", self.vector)])?;
        if self.vision.head != (VitHead::Class { vector: self.vector }) {
            return Err(ConfigError::OutOfRange {
                field: "vision.head".into(),
                found: format!("{:?}", self.vision.head),
                expected: format!("a class row whose vector has {} numbers, as a text's", self.vector),
            });
        }
        self.similarity.check()
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.vector,
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image: Some(ImageForm::Pixels {
                image_size: self.vision.image_size,
                rows: self.vision.rows(),
                patch_px: None,
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
        let hidden = self.text.hidden;
        Arc::new(TowerText {
            tokens: tokens.table(self.text.vocab, hidden),
            tower: b.at("backbone", |b| TextTower::build(&self.text, true, b)),
            projection: b.linear("text_projection", hidden, self.vector),
        })
    }

    fn text_rule(&self) -> TextRule {
        TextRule::UpToTheEnd
    }

    fn similarity(&self) -> Option<Similarity> {
        Some(self.similarity)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let text = format!("{}, causal", self.text.words());
        vec![("text", text), ("images", self.vision.words()), ("similarity", self.similarity.words())]
    }
}

/// The text half of a model of two towers opened: token rows on the host, the tower and what brings its last row into the
/// common space on their device.
#[derive(Debug)]
pub(crate) struct TowerText {
    pub tokens: TokenTable,
    pub tower: TextTower,
    pub projection: Linear,
}

impl Layered for TowerText {
    type State = TextTowerState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> TextTowerState {
        self.tower.enter(rows)
    }

    fn layers(&self) -> usize {
        self.tower.layers()
    }

    fn layer(&self, index: usize, state: TextTowerState) -> TextTowerState {
        self.tower.layer(index, state)
    }

    fn leave(&self, state: TextTowerState, _: &[usize]) -> Tensor<2> {
        self.projection.forward(self.tower.last_rows(state))
    }

    fn grouped(&self) -> Option<usize> {
        Some(self.tower.layer_parameters())
    }
}

impl TextModel for TowerText {
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
        output.vectors().map(Connected::Vectors)
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.tower.flops(*tokens) + self.projection.flops(1)),
            // The image tower gives finished vectors.
            Shape::Pixels { .. } | Shape::Patches { .. } => Some(0),
            Shape::Mel { .. } | Shape::Parts { .. } => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.tower.activations()
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> ClipConfig {
    folder.refuse_common();
    let vector = folder.config.size("projection_dim").unwrap_or(512);
    let towers = TwoTowers {
        act: HiddenAct::GeluQuick,
        norm_eps: 1e-5,
        text: [512, 12, 8, 2048],
        positions: 77,
        vocab: 49_408,
        vision: [768, 12, 12, 3072],
        patch_px: 32,
    };
    let text_of = |fields: Fields<'_>| {
        fields.only_text("model_type", "clip_text_model");
        towers.text(folder, fields)
    };
    let vision_of = |fields: Fields<'_>| {
        fields.only_text("model_type", "clip_vision_model");
        towers.vision(folder, fields, VitHead::Class { vector })
    };
    let text = text_of(folder.inner("text_config", "text_config."));
    let vision = vision_of(folder.inner("vision_config", "vision_config."));
    // Older files say the same twice, and the library takes the second.
    for (name, at) in [("text_config_dict", "text_config_dict."), ("vision_config_dict", "vision_config_dict.")] {
        if folder.config.get(name).is_none() {
            continue;
        }
        let fields = folder.inner(name, at);
        let same = if name.starts_with("text") { text_of(fields) == text } else { vision_of(fields) == vision };
        if !same {
            let first = name.trim_end_matches("_dict");
            folder
                .config
                .fault(name, format!("the same sizes as {first}, with the defaults of its class where it is silent"));
        }
    }
    check_end(folder, folder.inner("text_config", "text_config."), text.vocab);
    towers.say(
        folder,
        SquarePreprocess {
            image_size: vision.image_size as u32,
            fit: ImageFit::Crop { shorter: vision.image_size as u32 },
            filter: ImageFilter::Bicubic,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            rescale: 1.0 / 255.0,
        },
    );
    ClipConfig {
        text,
        vision,
        vector,
        similarity: Similarity { logit_scale: folder.number(LOGIT_SCALE), logit_bias: None },
    }
}

/// The end token's row is the one that the library pools.
fn check_end(folder: &CheckpointFolder<'_>, text: Fields<'_>, vocab: usize) {
    let &[end] = folder.token_ids else { panic!("the token of the steps is looked up before") };
    match text.id("eos_token_id") {
        // The highest id of a text.
        Some(FIRST_EOS) if end as usize + 1 == vocab => {}
        Some(FIRST_EOS) => text.fault("eos_token_id", format!("the id of {END}, {end}, as the table has {vocab} rows")),
        said if said.unwrap_or(DEFAULT_EOS) == end => {}
        _ => text.fault("eos_token_id", format!("the id of {END} in the tokenizer, {end}")),
    }
}
