//! Heads over rows that lie beside the weights, in files of their own: of bge-m3 the weights of tokens, and vectors of rows.

use omniburn_models::blocks::RowHeadsConfig;
use omniburn_models::checkpoint::HEAD_FILES;
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::Faults;
use crate::files::read_json_if_there;
use crate::rerank::{TextFolder, rows, token_id};
use crate::tokenizer_settings::{self, SETTINGS_FILE};

/// Tokens that have no weight in a sparse vector, by the names of `tokenizer_config.json`, and as the class has them where that
/// says nothing.
///
/// # Source
/// FlagEmbedding, `M3Embedder._process_token_weights`.
const UNWEIGHTED: [(&str, &str); 4] =
    [("cls_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>")];

/// Which heads lie in a folder, with the ids that have no weight; `None` where there is none. Pickles are named in the notes.
///
/// # Errors
/// [`ConvertError::Fields`] for a token without a weight that the settings or the vocabulary do not name.
pub(crate) fn find(from: &TextFolder<'_>, notes: &mut Vec<String>) -> Result<Option<RowHeadsConfig>, ConvertError> {
    let there = HEAD_FILES.map(|name| from.folder.join(format!("{name}.safetensors")).is_file());
    for (name, there) in HEAD_FILES.iter().zip(there) {
        if !there && from.folder.join(format!("{name}.pt")).is_file() {
            notes.push(format!(
                "{name}.pt is a pickle and is not opened: what it gives is left out; saved as {name}.safetensors, with the \
                 tensors weight and bias, it is read"
            ));
        }
    }
    let [sparse, multi] = there;
    if !sparse && !multi {
        return Ok(None);
    }
    let mut unweighted = Vec::new();
    if sparse {
        let tokenizer = tokenizer_settings::read(from.folder, from.config, rows(from.config))?;
        let file: Value = tokenizer_settings::applied(&tokenizer)?;
        let path = from.folder.join(SETTINGS_FILE);
        let settings: Value = read_json_if_there(&path)?.unwrap_or_default();
        let faults = Faults::of(&path);
        for (name, usual) in UNWEIGHTED {
            let Some(said) = settings.get(name).filter(|said| !said.is_null()) else {
                unweighted.extend(token_id(&file, usual));
                continue;
            };
            let token = said.as_str().or_else(|| said.get("content")?.as_str());
            match token.and_then(|token| token_id(&file, token)) {
                Some(id) => unweighted.push(id),
                None => {
                    let expected = "a token of the vocabulary, which has no weight in sparse vectors";
                    faults.add(name, said.to_string(), expected);
                }
            }
        }
        faults.check()?;
        unweighted.sort_unstable();
        unweighted.dedup();
    }
    Ok(Some(RowHeadsConfig { sparse, multi, unweighted }))
}
