//! Words of a header that need no family: names of files, element types, modalities, templates, prompts, preprocessing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// File name of the header inside a record folder.
pub const HEADER_FILE: &str = "model.json";
/// File with the towers, shared by all tasks.
pub const TOWERS_FILE: &str = "towers.bpk";
/// File with the token table, shared by all tasks.
pub const TOKENS_FILE: &str = "tokens.bpk";
/// File name of the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// File with one task's backbone, connectors and special rows.
pub fn text_file(task: &str) -> String {
    format!("text.{task}.bpk")
}

/// Types a record stores matrices in, and types an engine computes products in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// bfloat16: the range of f32, 8 bits of mantissa.
    Bf16,
    /// IEEE binary16.
    F16,
    /// Whole numbers with one f16 scale a row.
    Int8,
    /// Whole numbers of 8 bits with an f16 scale and offset for each group of 64 along the inputs. Matrices of products alone;
    /// the tables and convolutions of such a record are in int8.
    Affine8,
    /// The same with 4 bits.
    Affine4,
}

impl Dtype {
    /// Every type, in the order help texts list them.
    pub const ALL: [Dtype; 6] = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::Int8, Dtype::Affine8, Dtype::Affine4];
    /// Those that products are computed in; with int8, rows are whole numbers.
    pub const COMPUTED: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::Int8];
    /// Those of floating point.
    pub const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

    /// Bytes of one element; of affine groups, which lie in panels, bytes are counted by their layout, and this is 1.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => 1,
        }
    }

    /// Whether it is of affine groups.
    pub fn is_affine(self) -> bool {
        matches!(self, Dtype::Affine8 | Dtype::Affine4)
    }

    /// The name users type.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
            Dtype::Int8 => "int8",
            Dtype::Affine8 => "affine8",
            Dtype::Affine4 => "affine4",
        }
    }

    /// Burn's name for it.
    pub fn burn(self) -> burn::tensor::DType {
        match self {
            Dtype::F32 => burn::tensor::DType::F32,
            Dtype::Bf16 => burn::tensor::DType::BF16,
            Dtype::F16 => burn::tensor::DType::F16,
            Dtype::Int8 => burn::tensor::DType::I8,
            Dtype::Affine8 | Dtype::Affine4 => burn::tensor::DType::U8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Dtype::ALL
            .into_iter()
            .find(|d| d.name() == text)
            .ok_or_else(|| format!("unknown dtype `{text}`: expected f32, bf16, f16, int8, affine8 or affine4"))
    }
}

/// The kinds of input a model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// A string.
    Text,
    /// A still image.
    Image,
    /// Audio.
    Audio,
    /// Video: frames in time.
    Video,
}

impl Modality {
    /// Every modality.
    pub const ALL: [Modality; 4] = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];

    /// The name users type and read.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::Audio => "audio",
            Modality::Video => "video",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Modality {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Modality::ALL
            .into_iter()
            .find(|m| m.name() == text)
            .ok_or_else(|| format!("unknown modality `{text}`: expected text, image, audio or video"))
    }
}

/// How a medium's rows are laid between the role prefix and the trailing special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// prefix, start, features, end, suffix
    Wrapped,
    /// prefix, features, suffix
    Bare,
    /// prefix, start, features, end
    Noeos,
}

impl TemplateKind {
    /// The name users type.
    pub fn name(self) -> &'static str {
        match self {
            TemplateKind::Wrapped => "wrapped",
            TemplateKind::Bare => "bare",
            TemplateKind::Noeos => "noeos",
        }
    }
}

impl FromStr for TemplateKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [TemplateKind::Wrapped, TemplateKind::Bare, TemplateKind::Noeos]
            .into_iter()
            .find(|t| t.name() == text)
            .ok_or_else(|| format!("unknown template `{text}`: expected wrapped, bare or noeos"))
    }
}

/// A medium's layout with the ids it needs, all of them checked against the rows of the token table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaTemplate {
    /// The layout.
    pub kind: TemplateKind,
    /// Id whose row opens the medium; present unless the layout is bare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// Id whose row closes the medium; present unless the layout is bare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u32>,
}

/// What stands in front of every input of a role, in every modality.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Prefix of queries, such as `Query: `.
    pub query: String,
    /// Prefix of documents, such as `Document: `.
    pub document: String,
    /// Prefix of inputs without a role: mostly none. Checkpoints whose `default_prompt_name` names a prompt have one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub none: String,
}

/// How images (or video frames) become patch rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelPreprocess {
    /// Side of a patch in pixels.
    pub patch_px: u32,
    /// Patches merged along each side into one row of the backbone.
    pub merge: u32,
    /// Frames in one patch along time.
    pub temporal_patch: u32,
    /// Least number of pixels after resizing.
    pub min_pixels: u64,
    /// Largest number of pixels after resizing.
    pub max_pixels: u64,
    /// Mean of each channel after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation of each channel after rescaling.
    pub std: [f32; 3],
    /// Factor from a byte to the range of `mean` and `std`: 1/255.
    pub rescale: f64,
    /// Whether the numbers of pixels are those of one frame of a video, and not of all frames together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_frame: bool,
}

/// How images (or video frames) become a square of pixels: upright, transparency over white, the longer side brought to
/// the square's with Pillow's bicubic filter, centred on white.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterboxPreprocess {
    /// Side of the square in pixels.
    pub image_size: u32,
    /// What is subtracted from a byte.
    pub mean: f32,
    /// What the difference is divided by.
    pub std: f32,
}

/// How images (or video frames) become a square of pixels for a tower that reads whole ones: upright, transparency over white,
/// resized as Pillow does, each channel brought to the tower's range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquarePreprocess {
    /// Side of the square in pixels.
    pub image_size: u32,
    /// How an image comes into it.
    pub fit: ImageFit,
    /// The filter of the resize.
    pub filter: ImageFilter,
    /// Mean of each channel after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation of each channel after rescaling.
    pub std: [f32; 3],
    /// Factor from a byte to the range of `mean` and `std`: 1/255.
    pub rescale: f64,
}

/// How an image comes into a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageFit {
    /// Both sides are brought to the square's, whatever the shape was.
    Stretch,
    /// The shorter side is brought to a length, and the middle is cut out.
    Crop {
        /// Pixels of the shorter side, at least those of the square.
        shorter: u32,
    },
    /// No square: both sides are brought to whole patches, as many as there may be, and the shape is kept as well as that goes.
    Patches {
        /// Side of a patch in pixels.
        patch_px: u32,
        /// Patches of an image at most.
        most: u32,
    },
}

/// Filters of a resize, antialiased where an image shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFilter {
    /// A triangle over two pixels.
    Bilinear,
    /// A cubic convolution over four pixels.
    Bicubic,
}

/// Patches of an image at most that a file may ask for; published models have 256 to 1,024.
const MOST_PATCHES: u32 = 16_384;
/// Pixels of the shorter side that a crop may be made of: four times the widest square of any tower.
const LARGEST_CROP: u32 = 4096;

impl SquarePreprocess {
    /// What is wrong with it for a tower that reads squares of this side, or images in patches of `patch` pixels over a table
    /// of it: the field, what was found, what was expected.
    pub(crate) fn fault(&self, side: usize, patch: Option<usize>) -> Option<(String, String, String)> {
        let fault = |field: &str, found: String, expected: String| {
            Some((format!("preprocess.square.{field}"), found, expected))
        };
        if self.image_size as usize != side {
            return fault("image_size", self.image_size.to_string(), side.to_string());
        }
        match (self.fit, patch) {
            (ImageFit::Patches { patch_px, most }, Some(patch)) => {
                if patch_px as usize != patch {
                    return fault("fit.patches.patch_px", patch_px.to_string(), patch.to_string());
                }
                if !(1..=MOST_PATCHES).contains(&most) {
                    return fault("fit.patches.most", most.to_string(), format!("1 to {MOST_PATCHES}"));
                }
            }
            (ImageFit::Patches { .. }, None) => {
                return fault("fit", "patches".into(), "a square: the tower reads no other shape".into());
            }
            (ImageFit::Stretch | ImageFit::Crop { .. }, Some(_)) => {
                return fault("fit", format!("{:?}", self.fit), "patches: the tower reads any shape".into());
            }
            (ImageFit::Stretch | ImageFit::Crop { .. }, None) => {}
        }
        if let ImageFit::Crop { shorter } = self.fit
            && !(self.image_size..=LARGEST_CROP).contains(&shorter)
        {
            return fault("fit.crop.shorter", shorter.to_string(), format!("{side} to {LARGEST_CROP}"));
        }
        if self.mean.iter().any(|mean| !mean.is_finite()) {
            return fault("mean", format!("{:?}", self.mean), "finite numbers".into());
        }
        if self.std.iter().any(|std| !std.is_finite() || *std <= 0.0) {
            return fault("std", format!("{:?}", self.std), "positive numbers".into());
        }
        if !(self.rescale.is_finite() && self.rescale > 0.0) {
            return fault("rescale", self.rescale.to_string(), "a positive number".into());
        }
        None
    }
}

/// How audio becomes mel frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioPreprocess {
    /// Rate the model listens at, in hertz.
    pub sample_rate_hz: u32,
    /// Samples of one transform window.
    pub fft_samples: u32,
    /// Samples between windows.
    pub hop_samples: u32,
    /// Mel bands.
    pub mels: u32,
    /// Whether a clip is mirrored behind its end, and a rest of less than a step left out, and silence does not follow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// Zeros are added up to whole seconds, at least so many; absent where audio is taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_seconds: Option<u32>,
    /// Audio is brought to clips of one length, in decibels and not in the logarithms of speech; absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipPreprocess>,
}

impl AudioPreprocess {
    /// Mel frames of a clip, where audio is brought to clips of one length.
    pub fn clip_frames(&self) -> Option<usize> {
        self.clip.as_ref().map(|clip| (clip.samples / self.hop_samples.max(1)) as usize + 1)
    }
}

/// How audio is brought to clips of one length for a tower that reads those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipPreprocess {
    /// Samples of a clip.
    pub samples: u32,
    /// How shorter audio fills it.
    pub fill: ClipFill,
    /// Where the lowest mel band begins, in hertz.
    pub lowest_hz: u32,
    /// Where the highest mel band ends, in hertz.
    pub highest_hz: u32,
    /// Whether longer audio is one clip of four looks at it, and mel bands are those of HTK; otherwise it is several clips.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fused: bool,
}

/// How audio that is shorter than a clip fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipFill {
    /// Repeated as often as it fits whole, then silence.
    RepeatPad,
    /// Repeated to the end.
    Repeat,
    /// Once, then silence.
    Pad,
}

/// Preprocessing by medium; a medium the checkpoint has no tower for is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Still images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PixelPreprocess>,
    /// Video frames; `max_pixels` counts all frames of a clip together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<PixelPreprocess>,
    /// Still images and video frames of a tower that reads whole squares, in place of `image` and `video`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letterbox: Option<LetterboxPreprocess>,
    /// The same by another rule, in place of `letterbox`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub square: Option<SquarePreprocess>,
    /// Frames sampled from a video unless the caller says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_frames: Option<u32>,
    /// Audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioPreprocess>,
}
