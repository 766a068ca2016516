//! How an item of texts and media becomes one sequence, for families whose published prompt says so.
//!
//! Plain data: the strings are put together and cut into tokens by whoever prepares inputs.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// How the parts of an item are written, one behind the other. Each medium stands between the ends of its template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsForm {
    /// In which order.
    pub order: PartOrder,
    /// What is written in place of no part at all; where absent, such an item is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// Where each group of frames of a video stands between ends of its own, behind the time it is shown at (`<1.5 seconds>`):
    /// as how many a second the frames of a list count. Where absent, the rows of a video stand together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamps: Option<u32>,
    /// How far apart the groups of frames of a video lie on the axis of time; one position each where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<VideoClock>,
    /// Whether an item is one image or texts alone: videos, and images beside other parts, are not taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_image: bool,
    /// Ids that stand for rows of media in published prompts. A text that has one of them is refused.
    pub placeholders: Vec<u32>,
    /// Rows of a sequence with media at most.
    pub max_rows: usize,
}

impl PartsForm {
    /// Checks ids against the rows of the token table.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self, vocab: usize) -> Result<(), ConfigError> {
        crate::checks::nonzero(&[("parts.max_rows", self.max_rows)])?;
        if let Some(per_second) = self.stamps {
            crate::checks::small(&[("parts.stamps", per_second as usize)])?;
        }
        if let Some(VideoClock { positions_per_second, frames_per_second }) = self.clock {
            crate::checks::small(&[
                ("parts.clock.positions_per_second", positions_per_second as usize),
                ("parts.clock.frames_per_second", frames_per_second as usize),
            ])?;
        }
        match self.placeholders.iter().find(|id| **id as usize >= vocab) {
            None => Ok(()),
            Some(id) => Err(ConfigError::OutOfRange {
                field: "parts.placeholders".into(),
                found: id.to_string(),
                expected: format!("less than text.vocab, {vocab}"),
            }),
        }
    }
}

/// How seconds of a video become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoClock {
    /// Positions in a second.
    pub positions_per_second: u32,
    /// As how many a second the frames of a list count, where their caller says nothing of it.
    pub frames_per_second: u32,
}

impl VideoClock {
    /// Positions of `groups` groups of frames, each of which lasts `seconds`, the first at 0.
    ///
    /// # Numerics
    /// f32, cut to whole positions.
    /// # Source
    /// transformers 5.23.0, `Qwen2_5OmniPreTrainedModelForConditionalGeneration.get_rope_index`.
    pub fn times(&self, groups: usize, seconds: f64) -> Vec<usize> {
        let time = |group: usize| group as f32 * seconds as f32 * self.positions_per_second as f32;
        (0..groups).map(|group| time(group) as usize).collect()
    }
}

/// The order of the parts of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartOrder {
    /// As the caller gives them.
    AsGiven,
    /// Videos, then images, then texts, each kind as the caller gives it.
    VideosImagesTexts,
}

/// What stands around the parts of an item that becomes a vector: the turns of a chat template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemPrompt {
    /// In front of everything.
    pub before: String,
    /// Where an instruction stands.
    pub instruction: InstructionPlace,
    /// Behind the last part.
    pub behind: String,
    /// What stands around an item of texts alone, where that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<TextsPrompt>,
    /// Whether what stands behind a text is kept where the end of the text is cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_end: bool,
}

/// What stands around texts without media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextsPrompt {
    /// In front of the first.
    pub before: String,
    /// Behind the last.
    pub behind: String,
}

/// Where the instruction of an item stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InstructionPlace {
    /// In front of the parts, always.
    InFront {
        /// The instruction unless a caller or a prompt of the checkpoint gives another.
        default: String,
        /// Whether white space around a caller's is left out, and a full stop put behind it where it does not end in
        /// punctuation.
        full_stop: bool,
        /// Between the instruction and the parts.
        behind: String,
    },
    /// In front of each text, where there is one; media have none.
    EachText {
        /// In front of the instruction.
        before: String,
        /// Between the instruction and the text.
        behind: String,
    },
    /// Behind the parts, always: what is asked of them.
    Behind {
        /// In front of the instruction.
        before: String,
        /// The instruction unless a caller gives another. `{kind}` in it stands for the kind of the item: audio where it has
        /// some, else its first medium, else text.
        default: String,
    },
    /// Nowhere: none is taken.
    Nowhere,
}
