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
}
