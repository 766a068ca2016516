//! Models of late interaction as colbert-ai saves them: an encoder with one product over its rows beside it, and
//! `artifact.metadata`, which says markers, lengths and skipped words.

use std::path::Path;

use omniburn_models::blocks::{DenseActivation, DenseConfig};
use omniburn_models::record::Prompts;
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields, listed};
use crate::files::read_json_if_there;
use crate::late::{Expansion, Late, PUNCTUATION};
use crate::sentence_transformers::{MEAN, Modules, Settings};

/// What colbert-ai writes beside the weights.
pub(crate) const METADATA_FILE: &str = "artifact.metadata";
/// Its class, in `architectures`.
const CLASS: &str = "HF_ColBERT";
/// Fields that say how a model was trained, and how an index is made or searched.
const OF_RUNS: &str = "ncells centroid_score_threshold ndocs load_index_with_mmap index_path index_bsize nbits kmeans_niters resume \
                       pool_factor clustering_mode protected_tokens bsize accumsteps lr maxsteps save_every warmup warmup_bert nway \
                       use_ib_negatives reranker distillation_alpha ignore_scores model_name query_token doc_token checkpoint \
                       triples collection queries index_name overwrite root experiment index_root name rank nranks amp gpus \
                       avoid_fork_if_possible meta total_visible_gpus";
/// Fields that say what is computed.
const COMPUTED: &str = "query_token_id doc_token_id query_maxlen doc_maxlen dim mask_punctuation attend_to_mask_tokens similarity \
                        interaction relu";

/// Whether colbert-ai saved a folder. One with a list of modules is read as that says.
pub(crate) fn is_colbert(folder: &Path, config: &Value, modules: Option<&Modules>) -> bool {
    let class = config.get("architectures").and_then(|list| list.get(0)?.as_str());
    modules.is_none() && (class == Some(CLASS) || folder.join(METADATA_FILE).is_file())
}

/// The settings of such a folder, of a model with rows of this width that reads so many tokens.
///
/// # Source
/// colbert-ai 0.2.22, `infra/config/settings.py`, `modeling/tokenization`, `ColBERT.query`, `ColBERT.doc`.
/// # Errors
/// [`ConvertError::Fields`] with every field that asks for what is not computed; [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn settings(folder: &Path, hidden: usize, positions: usize) -> Result<Settings, ConvertError> {
    let path = folder.join(METADATA_FILE);
    let value: Option<Value> = read_json_if_there(&path)?;
    let mut notes = vec![format!("{CLASS} of colbert-ai: a vector for each row")];
    if value.is_none() {
        notes.push(format!("no {METADATA_FILE}: markers, lengths and skipped words as colbert-ai has them then"));
    }
    let faults = Faults::of(&path);
    let root = value.as_ref().map(|root| root.get("config").filter(|inner| inner.is_object()).unwrap_or(root));
    let fields = Fields::new("", root, &faults);
    for (name, _) in fields.present() {
        if !listed(OF_RUNS, name) && !listed(COMPUTED, name) {
            fields.fault(name, "no field of this name, as nothing is computed from it");
        }
    }
    match fields.text("similarity") {
        None | Some("cosine") => {}
        Some("l2") => notes.push(format!(
            "{METADATA_FILE}: similarity `l2` orders unit vectors as the cosine does, and the cosine is what is computed"
        )),
        Some(_) => fields.fault("similarity", "cosine or l2"),
    }
    fields.only_text("interaction", "colbert");
    fields.only_flag("relu", false);
    let marker = |name: &str, usual: &str| match fields.get(name) {
        Some(_) => fields.text(name).unwrap_or_default().to_string(),
        None => usual.into(),
    };
    let skips = fields.flag("mask_punctuation").unwrap_or(true);
    let length = fields.size("query_maxlen").unwrap_or(32);
    let attended = fields.flag("attend_to_mask_tokens").unwrap_or(false);
    let dense = DenseConfig {
        inputs: hidden,
        outputs: fields.size("dim").unwrap_or(128),
        bias: false,
        activation: DenseActivation::Identity,
        residual: false,
        normalized: false,
    };
    let late = Late {
        dense: vec![dense],
        markers: [marker("query_token_id", "[unused0]"), marker("doc_token_id", "[unused1]")],
        skiplist: if skips { PUNCTUATION.chars().map(String::from).collect() } else { Vec::new() },
        document_tokens: Some(fields.size("doc_maxlen").unwrap_or(220).min(positions)),
        expansion: Some(Expansion { token: None, length, attended, fixed: true }),
        ids_alone: true,
    };
    faults.check()?;
    Ok(Settings {
        head: MEAN,
        prompts: Prompts::default(),
        truncate_dim: None,
        max_tokens: None,
        lowercase: false,
        late: Some(late),
        read: if value.is_some() { vec![path] } else { Vec::new() },
        notes,
    })
}
