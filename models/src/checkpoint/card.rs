//! What is known of a published checkpoint and stands in none of its files.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::record::Prompts;

/// What the files of a checkpoint leave unsaid.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The checkpoint's name where it is published.
    pub id: String,
    /// Which revisions the card speaks of.
    pub revision: String,
    /// Licence of the weights.
    pub licence: String,
    /// Family of `omniburn-models` that computes it.
    pub family: String,
    /// Layouts it is published in.
    pub layouts: Vec<String>,
    /// Tasks it is published for.
    pub tasks: Vec<String>,
    /// The task used unless another is asked for.
    pub default_task: String,
    /// Matryoshka dimensions, where the configuration lists none.
    pub dims: Vec<usize>,
    /// The text backbone.
    pub text: TextCard,
    /// The image tower.
    pub vision: VisionCard,
    /// The audio tower.
    pub audio: AudioCard,
    /// Prefixes, where the checkpoint ships none.
    pub prompts: Prompts,
    /// Preprocessing, where the checkpoint ships none.
    pub preprocess: PreprocessCard,
}

/// Facts of the text backbone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCard {
    /// Values of `text_config.model_type` by which the card is found.
    pub model_types: Vec<String>,
    /// Whether rows see only earlier rows, where the configuration has no `is_causal`.
    pub causal: bool,
    /// Whether queries and keys are normalised per head.
    pub qk_norm: bool,
    /// For a model type that says nothing of direction: words in the checkpoint's own model type or architectures by
    /// which `causal` holds; without one of them, its opposite does.
    #[serde(default)]
    pub marks: BTreeMap<String, Vec<String>>,
}

/// Facts of the image tower.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionCard {
    /// Side of a patch, where the configuration names none.
    pub patch_px: usize,
    /// Patches merged along each side, where the configuration names none.
    pub merge: usize,
    /// Frames in a patch, where the configuration names none.
    pub temporal_patch: usize,
    /// Colour channels, where the configuration names none.
    pub channels: usize,
    /// Epsilon of every LayerNorm, where the configuration names none.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// Facts of the audio tower and of how it listens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioCard {
    /// Epsilon of every LayerNorm, where the configuration names none.
    pub norm_eps: f64,
    /// Sampling rate, where no preprocessor file names one.
    pub sample_rate_hz: u32,
    /// Transform window, where no preprocessor file names one.
    pub fft_samples: u32,
    /// Samples between windows, where no preprocessor file names one.
    pub hop_samples: u32,
}

/// Preprocessing of pixels.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessCard {
    /// Mean of each channel.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// Factor from a byte to the range of `mean` and `std`.
    pub rescale: f64,
    /// Frames sampled from a video.
    pub video_frames: u32,
    /// Limits for images.
    pub image: PixelLimits,
    /// Limits for video; those of images where absent.
    pub video: Option<PixelLimits>,
}

/// Least and largest number of pixels after resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelLimits {
    /// Least number of pixels.
    pub min_pixels: u64,
    /// Largest number of pixels.
    pub max_pixels: u64,
}
