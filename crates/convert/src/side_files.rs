//! The files beside the weights: preprocessors and prompts, with the configuration's or the card's word where one is absent;
//! ids of the tokenizer.

use std::fmt;
use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::{Steps, TextFiles};
use omniburn_models::record::{Preprocess, Prompts, TOKENIZER_FILE};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::{ConvertError, IdFault};
use crate::fields::{Faults, Fields};
use crate::files::{read_json, read_json_if_there};
use crate::processor_files::ProcessorFiles;
use crate::sentence_transformers::{PROMPTS_FILE, by_role};
use crate::tokenizer_settings::{self, TokenizerFiles};

/// What the side files say over what holds without them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SideFiles {
    pub preprocess: Preprocess,
    pub prompts: Prompts,
    /// The side files that were there and were read.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
}

impl SideFiles {
    /// Reads the preprocessor and prompt files of a folder, those that a family's steps ask for.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
    pub fn read(folder: &Path, steps: &Steps, preprocess: &Preprocess, prompts: Prompts) -> Result<Self, ConvertError> {
        let mut side = Self { preprocess: preprocess.clone(), prompts, ..Self::default() };
        if steps.processors {
            let ProcessorFiles { preprocess, read, notes } = ProcessorFiles::read(folder, preprocess)?;
            side = Self { preprocess, read, notes, ..side };
        }
        if steps.texts == TextFiles::Prompts {
            side.read_prompts(folder)?;
        }
        Ok(side)
    }

    fn read_prompts(&mut self, folder: &Path) -> Result<(), ConvertError> {
        let path = folder.join(PROMPTS_FILE);
        let Some(value) = read_json_if_there::<Value>(&path)? else { return Ok(()) };
        let faults = Faults::of(&path);
        let chosen = by_role(&Fields::new("", Some(&value), &faults), self.prompts.clone());
        faults.check()?;
        self.read.push(path);
        self.prompts = chosen.prompts;
        self.notes.extend(chosen.notes);
        Ok(())
    }
}

/// Every id of the tokenizer that has no row in the token table; at most one for the plain vocabulary, the highest.
///
/// # Errors
/// [`ConvertError::Json`] where the file is not a tokenizer, [`ConvertError::MissingFiles`], [`ConvertError::Io`].
pub(crate) fn tokenizer_ids_beyond(files: &TokenizerFiles, rows: usize) -> Result<Vec<IdFault>, ConvertError> {
    let tokenizer: Tokenizer = tokenizer_settings::applied(files)?;
    let mut ids: Vec<IdFault> = tokenizer
        .added_tokens
        .into_iter()
        .map(|added| IdFault { name: format!("{TOKENIZER_FILE} {}", added.content), id: added.id })
        .collect();
    ids.extend(tokenizer.model.vocab.0.map(|id| IdFault { name: format!("{TOKENIZER_FILE} model.vocab"), id }));
    ids.retain(|fault| fault.id >= rows as u64);
    Ok(ids)
}

/// Id of a special token.
///
/// # Errors
/// [`ConvertError::Fields`] where the tokenizer has no such token, and as [`tokenizer_ids_beyond`].
pub(crate) fn added_token_id(path: &Path, token: &str) -> Result<u32, ConvertError> {
    let tokenizer: Tokenizer = read_json(path)?;
    let added = tokenizer.added_tokens.iter().find(|added| added.content == token);
    if let Some(id) = added.and_then(|added| u32::try_from(added.id).ok()) {
        return Ok(id);
    }
    let faults = Faults::of(path);
    faults.add("added_tokens", "nothing of the kind", format!("the token {token}"));
    Err(faults.refusal().into())
}

/// What is read of a tokenizer.
#[derive(serde::Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(serde::Deserialize)]
struct Added {
    id: u64,
    content: String,
}

#[derive(serde::Deserialize)]
struct Model {
    vocab: HighestId,
}

/// The highest id of a vocabulary, which is an object of ids or a list in id order; nothing of it is kept.
struct HighestId(Option<u64>);

impl<'de> Deserialize<'de> for HighestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Highest;
        impl<'de> Visitor<'de> for Highest {
            type Value = HighestId;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of ids or a list of tokens")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HighestId, A::Error> {
                let mut highest = None;
                while let Some((IgnoredAny, id)) = map.next_entry::<_, u64>()? {
                    highest = highest.max(Some(id));
                }
                Ok(HighestId(highest))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HighestId, A::Error> {
                let mut tokens = 0u64;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    tokens += 1;
                }
                Ok(HighestId(tokens.checked_sub(1)))
            }
        }
        deserializer.deserialize_any(Highest)
    }
}
