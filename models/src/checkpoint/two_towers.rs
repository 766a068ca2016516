//! Configurations of two towers, a text's and an image's, as transformers writes them for CLIP and its descendants.

use super::fields::Fields;
use super::folder::{CheckpointFolder, TemplateRule};
use crate::blocks::{HIDDEN_ACTS, HiddenAct};
use crate::record::{Modality, Preprocess, SquarePreprocess, TemplateKind};
use crate::towers::text::TextTowerConfig;
use crate::towers::vit::{VitConfig, VitHead};

/// What the classes of a configuration hold where a file is silent.
#[derive(Debug, Clone, Copy)]
pub struct TwoTowers {
    /// Activation of the MLPs.
    pub act: HiddenAct,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Width, layers, heads and MLP width of the text tower.
    pub text: [usize; 4],
    /// Positions of a text.
    pub positions: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Width, layers, heads and MLP width of the image tower.
    pub vision: [usize; 4],
    /// Side of a patch in pixels.
    pub patch_px: usize,
}

/// Side of an image where a file is silent.
const IMAGE_SIZE: usize = 224;
/// Frames of a video, each of which costs as much as an image; their mean is taken.
const VIDEO_FRAMES: u32 = 8;

impl TwoTowers {
    /// The text tower that `fields` describe.
    pub fn text(&self, folder: &CheckpointFolder<'_>, fields: Fields<'_>) -> TextTowerConfig {
        refuse_decoder(fields);
        let [hidden, layers, heads, inner] = self.text;
        let positions = fields.size("max_position_embeddings").unwrap_or(self.positions);
        TextTowerConfig {
            hidden: fields.size("hidden_size").unwrap_or(hidden),
            layers: layer_count(folder, fields, layers),
            heads: fields.size("num_attention_heads").unwrap_or(heads),
            inner: fields.size("intermediate_size").unwrap_or(inner),
            norm_eps: fields.number("layer_norm_eps").unwrap_or(self.norm_eps),
            act: self.act(fields),
            positions,
            max_tokens: folder.text.limit(positions),
            vocab: fields.size("vocab_size").unwrap_or(self.vocab),
        }
    }

    /// The image tower that `fields` describe.
    pub fn vision(&self, folder: &CheckpointFolder<'_>, fields: Fields<'_>, head: VitHead) -> VitConfig {
        refuse_decoder(fields);
        if fields.get("num_channels").is_some_and(|channels| channels.as_u64() != Some(3)) {
            fields.fault("num_channels", "3: red, green, blue");
        }
        let [hidden, layers, heads, inner] = self.vision;
        VitConfig {
            image_size: fields.size("image_size").unwrap_or(IMAGE_SIZE),
            patch_px: fields.size("patch_size").unwrap_or(self.patch_px),
            hidden: fields.size("hidden_size").unwrap_or(hidden),
            layers: layer_count(folder, fields, layers),
            heads: fields.size("num_attention_heads").unwrap_or(heads),
            inner: fields.size("intermediate_size").unwrap_or(inner),
            norm_eps: fields.number("layer_norm_eps").unwrap_or(self.norm_eps),
            act: self.act(fields),
            head,
            flexible: false,
        }
    }

    /// Says how images and videos go in: `square` is what holds where no file of a preprocessor says otherwise.
    pub fn say(&self, folder: &CheckpointFolder<'_>, square: SquarePreprocess) {
        // They stand in no sequence, so nothing stands around them.
        let template = |modality| TemplateRule {
            modality,
            kind: TemplateKind::Bare,
            fixed: true,
            start: ("start", None),
            end: ("end", None),
        };
        let mut details = folder.details.borrow_mut();
        details.templates = [Modality::Image, Modality::Video].map(template).into();
        details.preprocess =
            Preprocess { square: Some(square), video_frames: Some(VIDEO_FRAMES), ..Preprocess::default() };
    }

    fn act(&self, fields: Fields<'_>) -> HiddenAct {
        let Some(found) = fields.get("hidden_act") else { return self.act };
        let known = HIDDEN_ACTS.iter().find(|(name, _)| found.as_str() == Some(*name));
        known.map_or_else(
            || {
                let names: Vec<String> = HIDDEN_ACTS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                fields.fault("hidden_act", format!("one of {}", names.join(", ")));
                self.act
            },
            |(_, act)| *act,
        )
    }
}

/// A number of layers, of which there cannot be more than tensors.
fn layer_count(folder: &CheckpointFolder<'_>, fields: Fields<'_>, otherwise: usize) -> usize {
    if fields.get("num_hidden_layers").is_none() {
        return otherwise;
    }
    super::folder::layers(fields, "num_hidden_layers", folder.tensors)
}

/// Refuses what no tower of the kind computes.
fn refuse_decoder(fields: Fields<'_>) {
    for flag in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        fields.only_flag(flag, false);
    }
}
