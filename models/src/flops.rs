//! How much arithmetic a forward is, counted from configurations: what a time is divided into to say how near it is to the
//! limit of a machine.
//!
//! Counted are the products with weights, the convolutions, and both products of attention over the pairs of rows that see
//! each other, two operations a multiply-add. Not counted are norms, activations, softmax, rotary and sums: under one in a
//! hundred. Nor is the preparation of media.

use crate::backbone::BackboneConfig;
use crate::families::mini::{PICTURE_ROWS, PictureConfig, SpeechConfig};
use crate::families::{BertConfig, Family, MiniConfig, OmniConfig};
use crate::towers::audio::{AudioConfig, CONV_TAPS};
use crate::towers::conv::ConvConfig;
use crate::towers::vision::VisionConfig;

/// Operations of a multiply-add.
const MULTIPLY_ADD: u64 = 2;

/// An input as its towers and its backbone read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A text of so many rows.
    Text {
        /// Rows that enter the backbone.
        tokens: usize,
    },
    /// A picture or film as patches.
    Patches {
        /// Groups of frames, each of which attends to itself alone; one for a picture.
        groups: usize,
        /// Patches of a group.
        patches: usize,
        /// Rows that enter the backbone.
        tokens: usize,
    },
    /// A picture, or the frames of a film, as squares of pixels whose maps are brought to their mean.
    Squares {
        /// How many.
        count: usize,
    },
    /// Sound as clips of mel frames.
    Sound {
        /// Frames of each clip.
        clips: Vec<usize>,
        /// Rows that enter the backbone, of all clips together.
        tokens: usize,
    },
}

impl Family {
    /// Operations from what towers and backbone read to a vector; `None` where the family has no such way in.
    pub fn flops(&self, shape: &Shape) -> Option<u64> {
        match self {
            Family::Omni(config) => config.flops(shape),
            Family::Mini(config) => config.flops(shape),
            Family::Bert(config) => match shape {
                Shape::Text { tokens } => Some(config.flops(*tokens)),
                _ => None,
            },
        }
    }
}

impl OmniConfig {
    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.text.flops(*tokens)),
            Shape::Patches { groups, patches, tokens } => {
                let vision = self.vision.as_ref()?;
                let (all, wide) = (groups * patches, vision.hidden * vision.merge * vision.merge);
                let merged = all / (vision.merge * vision.merge);
                let merger = product(merged, wide, wide) + product(merged, wide, self.text.hidden);
                Some(vision.flops(*groups, *patches) + merger + self.text.flops(*tokens))
            }
            Shape::Squares { .. } => None,
            Shape::Sound { clips, tokens } => {
                let audio = self.audio.as_ref()?;
                let heard = |&frames: &usize| {
                    audio.flops(frames) + product(audio.features(frames), audio.hidden, self.text.hidden)
                };
                Some(clips.iter().map(heard).sum::<u64>() + self.text.flops(*tokens))
            }
        }
    }
}

impl MiniConfig {
    fn flops(&self, shape: &Shape) -> Option<u64> {
        // Rows of a medium stand between those of both ends.
        let encoded = |rows: usize| self.text.flops(rows + 2);
        match shape {
            Shape::Text { tokens } => Some(self.text.flops(*tokens)),
            Shape::Patches { .. } => None,
            Shape::Squares { count } => {
                let picture = self.picture.as_ref()?;
                let tower = *count as u64 * picture.tower.flops();
                Some(tower + picture.connector_flops(self.text.hidden) + encoded(PICTURE_ROWS))
            }
            Shape::Sound { clips, .. } => {
                let speech = self.speech.as_ref()?;
                let heard = |&frames: &usize| {
                    speech.tower.flops(frames) + speech.connector_flops(frames, self.text.hidden) + encoded(speech.rows)
                };
                Some(clips.iter().map(heard).sum())
            }
        }
    }
}

impl BackboneConfig {
    fn flops(&self, tokens: usize) -> u64 {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let pairs = if self.causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
        let layer = product(tokens, self.hidden, q + 2 * kv)
            + product(tokens, q, self.hidden)
            + product(tokens, self.hidden, 2 * self.inner)
            + product(tokens, self.inner, self.hidden)
            + attention(pairs, q);
        self.layers as u64 * layer
    }
}

impl BertConfig {
    fn flops(&self, tokens: usize) -> u64 {
        self.layers as u64 * encoder_layer(tokens, tokens * tokens, self.hidden, self.inner)
    }
}

impl VisionConfig {
    fn flops(&self, groups: usize, patches: usize) -> u64 {
        let all = groups * patches;
        let block = encoder_layer(all, groups * patches * patches, self.hidden, self.inner);
        product(all, self.patch_values(), self.hidden) + self.layers as u64 * block
    }
}

impl AudioConfig {
    fn flops(&self, frames: usize) -> u64 {
        let windows: Vec<usize> = self.windows(frames).into_iter().map(Self::window_rows).collect();
        let rows = windows.iter().sum();
        let pairs = windows.iter().map(|&rows| rows * rows).sum();
        let stem =
            product(frames, CONV_TAPS * self.mels, self.hidden) + product(rows, CONV_TAPS * self.hidden, self.hidden);
        stem + self.layers as u64 * encoder_layer(rows, pairs, self.hidden, self.inner)
    }
}

impl ConvConfig {
    /// Operations of one square of pixels.
    fn flops(&self) -> u64 {
        let cells = |side: usize| side * side;
        let mut side = self.image_size.div_ceil(2);
        let mut total = product(cells(side), 3 * 9, self.stem);
        let mut channels = self.stem;
        for stage in &self.stages {
            for repeat in 0..stage.repeats {
                let inner = channels * stage.expand;
                if inner != channels {
                    total += product(cells(side), channels, inner);
                }
                side = if repeat == 0 { side.div_ceil(stage.stride) } else { side };
                // Each channel by itself: as a product with one input.
                total += product(cells(side), stage.kernel * stage.kernel, inner);
                total += product(cells(side), inner, stage.channels);
                channels = stage.channels;
            }
        }
        total + product(cells(side), channels, self.head)
    }
}

impl PictureConfig {
    fn connector_flops(&self, hidden: usize) -> u64 {
        let (channels, cells) = (self.tower.head, self.tower.map_side() * self.tower.map_side());
        let mlp = |rows, inner| product(rows, channels, inner) + product(rows, inner, hidden);
        let quadrants = PICTURE_ROWS - 2;
        product(channels, cells, 1 + quadrants)
            + product(1, channels, self.classes)
            + 2 * product(1, self.classes, hidden)
            + mlp(1 + quadrants, self.row_inner)
            + mlp(1, self.head_inner)
    }
}

impl SpeechConfig {
    fn connector_flops(&self, frames: usize, hidden: usize) -> u64 {
        let (rows, width) = (AudioConfig::window_rows(frames) / self.mean_rows, self.tower.hidden);
        let [taps1, taps2] = self.kernels;
        let trunk = product(rows, taps1 * width, self.inner)
            + product(rows, taps2 * self.inner, self.inner)
            + 2 * product(rows, self.inner, self.rows);
        2 * trunk + product(1, self.rows * self.inner, hidden) + product(self.rows, self.inner, hidden)
    }
}

/// `[rows, inputs]` times `[inputs, outputs]`.
fn product(rows: usize, inputs: usize, outputs: usize) -> u64 {
    MULTIPLY_ADD * rows as u64 * inputs as u64 * outputs as u64
}

/// Scores and their sums of values over so many pairs of rows, all heads together `width` wide.
fn attention(pairs: usize, width: usize) -> u64 {
    2 * MULTIPLY_ADD * pairs as u64 * width as u64
}

/// A layer whose queries, keys and values are as wide as its rows, with an MLP of two products.
fn encoder_layer(rows: usize, pairs: usize, hidden: usize, inner: usize) -> u64 {
    product(rows, hidden, 4 * hidden) + 2 * product(rows, hidden, inner) + attention(pairs, hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TensorRole;
    use crate::towers::conv::ConvStage;

    fn omni() -> OmniConfig {
        OmniConfig {
            text: BackboneConfig {
                hidden: 16,
                layers: 3,
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                inner: 24,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                causal: true,
                qk_norm: true,
                max_tokens: 64,
                vocab: 10,
            },
            vision: Some(VisionConfig {
                hidden: 16,
                layers: 2,
                heads: 2,
                inner: 40,
                positions: 16,
                patch_px: 4,
                merge: 2,
                temporal_patch: 2,
                channels: 3,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                taps: Vec::new(),
            }),
            audio: Some(AudioConfig {
                hidden: 16,
                layers: 2,
                heads: 2,
                inner: 40,
                n_window: 10,
                mels: 8,
                max_positions: 20,
                norm_eps: 1e-5,
            }),
        }
    }

    /// Values of every matrix under a prefix: each is multiplied with each row once.
    fn weights(specs: Vec<crate::record::TensorSpec>) -> u64 {
        specs.iter().filter(|s| s.role == TensorRole::Linear).map(|s| s.elements() as u64).sum()
    }

    #[test]
    fn every_matrix_of_a_record_counts_once_a_row() {
        let config = omni();
        let text = weights(config.text.tensors("x"));
        let family = Family::Omni(config.clone());
        // 5 rows see 15 pairs; queries of all heads are 32 wide.
        assert_eq!(family.flops(&Shape::Text { tokens: 5 }), Some(2 * 5 * text + 3 * 4 * 15 * 32));

        let vision = weights(config.vision.as_ref().unwrap().tensors("x"));
        let merger = 64 * 64 + 64 * 16;
        let one = family.flops(&Shape::Patches { groups: 1, patches: 8, tokens: 2 }).unwrap();
        let backbone = family.flops(&Shape::Text { tokens: 2 }).unwrap();
        assert_eq!(one, 2 * 8 * vision + 2 * 4 * 64 * 16 + 2 * 2 * merger + backbone);
        // Groups do not see each other: what grows with the square of the patches does not grow with the groups.
        let tower = |groups| config.vision.as_ref().unwrap().flops(groups, 8);
        assert_eq!(tower(3), 3 * tower(1));

        let audio = config.audio.as_ref().unwrap();
        let layers = weights(audio.tensors("x")) - (3 * 8 * 16 + 3 * 16 * 16);
        // 30 frames are windows of 20 and 10: 10 and 5 rows, 7 features.
        let stem = 2 * (30 * 3 * 8 * 16 + 15 * 3 * 16 * 16);
        assert_eq!(audio.flops(30), stem + 2 * 15 * layers + 2 * 4 * (100 + 25) * 16);
        let heard = family.flops(&Shape::Sound { clips: vec![30], tokens: 7 }).unwrap();
        assert_eq!(heard, audio.flops(30) + 2 * 7 * 16 * 16 + family.flops(&Shape::Text { tokens: 7 }).unwrap());
    }

    #[test]
    fn a_way_in_that_a_family_lacks_has_no_count() {
        let family = Family::Omni(OmniConfig { vision: None, audio: None, ..omni() });
        assert_eq!(family.flops(&Shape::Patches { groups: 1, patches: 4, tokens: 1 }), None);
        assert_eq!(family.flops(&Shape::Sound { clips: vec![3], tokens: 1 }), None);
        assert_eq!(family.flops(&Shape::Squares { count: 1 }), None);
    }

    #[test]
    fn the_published_efficientnet_lite_is_as_many_operations_as_its_authors_say() {
        let stage = |[expand, channels, repeats, stride, kernel]: [usize; 5]| ConvStage {
            expand,
            channels,
            repeats,
            stride,
            kernel,
        };
        let stages = [
            [1, 16, 1, 1, 3],
            [6, 24, 2, 2, 3],
            [6, 40, 2, 2, 5],
            [6, 80, 3, 2, 3],
            [6, 112, 3, 1, 5],
            [6, 192, 4, 2, 5],
            [6, 320, 1, 1, 3],
        ];
        let tower = ConvConfig { image_size: 224, stem: 32, stages: stages.map(stage).to_vec(), head: 1280 };
        // Lite0 is published with 407 million multiply-adds, its classifier of 1,000 among them; how norms and sums were
        // counted there is not said.
        let multiply_adds = tower.flops() / 2 + 1280 * 1000;
        println!("{multiply_adds} multiply-adds");
        assert!(multiply_adds.abs_diff(407_000_000) < 25_000_000, "{multiply_adds}");
    }
}
