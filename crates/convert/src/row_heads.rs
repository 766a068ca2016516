//! Heads over rows: those that lie beside the weights, in files of their own, of bge-m3 the weights of tokens and vectors of
//! rows; and those of late interaction, with the ids of what its files name.

use std::path::PathBuf;

use omniburn_models::blocks::{LateInteraction, QueryExpansion, RowHeadsConfig};
use omniburn_models::checkpoint::HEAD_FILES;
use omniburn_models::record::Prompts;
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::files::read_json_if_there;
use crate::late::{Expansion, Late};
use crate::rerank::{TextFolder, rows, token_id};
use crate::tokenizer_settings::{self, SETTINGS_FILE, named_token};

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
    Ok(Some(RowHeadsConfig { sparse, multi, unweighted, late: None }))
}

/// The heads over rows with the ids of what the files name. A marker that is no token of the vocabulary is text, and comes in
/// front of the role's prompt.
///
/// # Errors
/// [`ConvertError::Fields`] for an expansion without a token; [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn of_modules(
    from: &TextFolder<'_>,
    late: &Late,
    prompts: &mut Prompts,
    read: &mut Vec<PathBuf>,
    notes: &mut Vec<String>,
) -> Result<RowHeadsConfig, ConvertError> {
    let tokenizer = tokenizer_settings::read(from.folder, from.config, rows(from.config))?;
    let file: Value = tokenizer_settings::applied(&tokenizer)?;
    let faults = Faults::of(&tokenizer.path);
    if late.ids_alone && file.get("model").and_then(|model| model.get("type")?.as_str()) != Some("WordPiece") {
        // In the others a mark that is looked up alone may be another token than in a text.
        faults.add(
            "model.type",
            shown(file.get("model").and_then(|model| model.get("type"))),
            "WordPiece, of a colbert-ai model",
        );
    }
    let mut ids = [None, None];
    let places = [("query", &mut prompts.query), ("document", &mut prompts.document)];
    for ((marker, id), (role, prompt)) in late.markers.iter().zip(&mut ids).zip(places) {
        if marker.is_empty() {
            continue;
        }
        *id = token_id(&file, marker);
        notes.push(match *id {
            Some(id) => format!("the token {marker:?} (id {id}) stands in the second place of every {role}"),
            None if late.ids_alone => {
                faults.add("model.vocab", "no such token", format!("the marker {marker:?} of every {role}"));
                continue;
            }
            None => {
                *prompt = [marker.as_str(), prompt].concat();
                format!("{marker:?} is no token of the vocabulary: it stands in front of every {role} as text")
            }
        });
    }
    faults.check()?;
    let unknown = match late.ids_alone {
        true => file.get("model").and_then(|model| token_id(&file, model.get("unk_token")?.as_str()?)),
        false => None,
    };
    let mut found: Vec<Option<u32>> = late.skiplist.iter().map(|word| token_id(&file, word).or(unknown)).collect();
    let unknown = late.skiplist.iter().zip(&found).filter(|(_, id)| id.is_none()).map(|(word, _)| word.as_str());
    let unknown: Vec<&str> = unknown.collect();
    if !unknown.is_empty() {
        notes.push(format!("words of the skip list that are no tokens, and skip none: {}", unknown.join(" ")));
    }
    if late.ids_alone
        && let Some(padding) = named_token(from.folder, "pad_token", read)?
    {
        found.push(token_id(&file, &padding));
    }
    let mut skiplist: Vec<u32> = found.into_iter().flatten().collect();
    skiplist.sort_unstable();
    skiplist.dedup();
    let expansion = match &late.expansion {
        None => None,
        Some(expansion) => {
            let Expansion { token, length, attended, fixed } = expansion.clone();
            let faults = Faults::of(&from.folder.join(SETTINGS_FILE));
            let fields = Fields::new("", None, &faults);
            let mut of = |name: &str| named_token(from.folder, name, read);
            let token = match token {
                Some(token) => Some(token),
                None => of("mask_token")?.or(token_id(&file, "[MASK]").map(|_| "[MASK]".into())).or(of("eos_token")?),
            };
            if of("padding_side")?.is_some_and(|side| side != "right") {
                fields.fault("padding_side", "\"right\": what stands behind a query stands at its end");
            }
            let id = token.as_ref().and_then(|token| token_id(&file, token));
            if id.is_none() {
                let found = token.map_or("nothing".into(), |token| format!("{token:?}"));
                fields.fault_of("mask_token", &found, "a token of the vocabulary, which stands behind queries");
            }
            faults.check()?;
            id.map(|id| QueryExpansion { id, length, attended, fixed })
        }
    };
    let [query_marker, document_marker] = ids;
    let (dense, document_tokens) = (late.dense.clone(), late.document_tokens);
    let late = LateInteraction { dense, query_marker, document_marker, skiplist, document_tokens, expansion };
    Ok(RowHeadsConfig { sparse: false, multi: true, unweighted: Vec::new(), late: Some(late) })
}
