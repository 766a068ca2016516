//! Families that are published one way: one set of weights, no adapters, one task.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omniburn_models::families::Family;
use omniburn_models::record::{
    MediaTemplate, Modality, Preprocess, Prompts, RECORD_FORMAT, RecordHeader, TOKENS_FILE, TOWERS_FILE, TemplateKind,
    TensorSpec, text_file,
};
use serde_json::Value;

use crate::error::ConvertError;
use crate::keymap::{KeyMap, Piece, Recipe, settle};
use crate::maps::omni::Layout;
use crate::maps::{bert, mini};
use crate::plan::{PartPlan, Plan, report, source_files};
use crate::sentence_transformers::{self, Modules};
use crate::side_files::tokenizer_ids_beyond;
use crate::source::{CONFIG_FILE, Source, checkpoint_name};
use crate::tokenizer_settings;
use crate::{ConvertOptions, TaskChoice};

/// What a folder of such a family says.
pub(crate) struct Single {
    pub family: Family,
    /// What the report calls it.
    pub known_as: &'static str,
    pub licence: &'static str,
    /// The one task.
    pub task: &'static str,
    /// Ids that stand around the rows of a medium, where the family takes any.
    pub ends: Option<Ends>,
    pub preprocess: Preprocess,
    pub prompts: Prompts,
    /// Numbers of a vector unless another number is asked for, where that is not all of them.
    pub default_dim: Option<usize>,
    /// Whether texts are put into small letters before the tokenizer sees them.
    pub lowercase: bool,
    /// The side files that were there and were read.
    pub read: Vec<PathBuf>,
    /// What the report says of them.
    pub notes: Vec<String>,
}

/// Where the files of such a family lie.
pub(crate) struct Folder<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Path,
    /// Configuration, weights and tokenizer: the checkpoint's own folder, or one inside.
    pub folder: &'a Path,
    /// Its modules, where it is a folder of sentence-transformers.
    pub modules: Option<&'a Modules>,
}

/// Ids whose rows open and close a sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub start: u32,
    pub end: u32,
}

/// The names of the family that a configuration's `model_type` tells; nothing where that is for the cards to say.
pub(crate) fn keys_of(root: &Value) -> Option<&'static KeyMap> {
    match root.get("model_type").and_then(Value::as_str) {
        Some(mini::MODEL_TYPE) => Some(&mini::KEYS),
        Some(bert::MODEL_TYPE) => Some(&bert::KEYS),
        _ => None,
    }
}

/// Plans the conversion of such a folder.
///
/// # Errors
/// Whatever is wrong with options, configuration, names, shapes, types, ids or side files.
pub(crate) fn plan(
    options: &ConvertOptions,
    from: &Folder<'_>,
    root: &Value,
    keys: &KeyMap,
) -> Result<Plan, ConvertError> {
    let folder = from.folder;
    let config_path = folder.join(CONFIG_FILE);
    let source = Source::open(folder, keys)?;
    let tensors = source.names().count();
    let read =
        if root.get("model_type").and_then(Value::as_str) == Some(mini::MODEL_TYPE) { mini::read } else { bert::read };
    let single = read(from, root, tensors)?;
    let family = single.family.clone();
    family.check().map_err(|source| ConvertError::Config { path: config_path, source })?;
    check_choices(options, &single)?;

    let mut parts = vec![part(TOKENS_FILE.into(), None, &family, family.token_tensors())];
    if !family.tower_tensors().is_empty() {
        parts.push(part(TOWERS_FILE.into(), None, &family, family.tower_tensors()));
    }
    parts.push(part(text_file(single.task), Some(single.task.into()), &family, family.text_tensors(0)));
    let taken = settle(keys, &source, parts.iter().flat_map(|part| &part.recipes), |_| None)?;
    let mut tokenizer = tokenizer_settings::read(folder, root, family.vocab())?;
    if single.lowercase {
        sentence_transformers::lowercase(&mut tokenizer)?;
    }
    let ids = tokenizer_ids_beyond(&tokenizer, family.vocab())?;
    if !ids.is_empty() {
        return Err(ConvertError::TokenIdOutOfTable { ids, rows: family.vocab() });
    }
    let header = RecordHeader {
        format: RECORD_FORMAT,
        tool: concat!("omniburn ", env!("CARGO_PKG_VERSION")).into(),
        name: checkpoint_name(from.checkpoint),
        dtype: options.dtype,
        tasks: vec![single.task.into()],
        default_task: single.task.into(),
        dims: single.default_dim.into_iter().chain([family.hidden()]).collect(),
        default_dim: single.default_dim,
        prompts: single.prompts.clone(),
        templates: templates(&single),
        special_token_ids: Vec::new(),
        preprocess: single.preprocess.clone(),
        files: BTreeMap::new(),
        sources: Vec::new(),
        digest: String::new(),
        family,
    };
    let read = [&single.read[..], &tokenizer.read].concat();
    let source_files = source_files(from.checkpoint, folder, &source, &read, &parts);
    let known = (single.known_as, single.licence);
    let mut report = report(options, known, Layout::Single, &header, &source, &parts, &taken);
    report.notes = [&source.notes[..], &single.notes, &tokenizer.notes].concat();
    Ok(Plan { source: source.into(), parts, header, tokenizer, source_files, report })
}

fn part(file: String, task: Option<String>, family: &Family, specs: Vec<TensorSpec>) -> PartPlan {
    let recipes = specs.into_iter().map(|spec| Recipe { pieces: pieces(family, &spec), spec }).collect();
    PartPlan { file, task, recipes, adapter: None }
}

fn pieces(family: &Family, spec: &TensorSpec) -> Vec<Piece> {
    match family {
        Family::Mini(config) => mini::pieces(config, spec),
        Family::Bert(_) => bert::pieces(spec, ""),
        Family::Omni(_) => unreachable!("omni has cards, layouts and tasks"),
    }
}

/// The one layout there is, for every medium the family takes: start, rows, end.
fn templates(single: &Single) -> BTreeMap<Modality, MediaTemplate> {
    let Some(Ends { start, end }) = single.ends else { return BTreeMap::new() };
    let template = MediaTemplate { kind: TemplateKind::Noeos, start: Some(start), end: Some(end) };
    media(&single.family).map(|modality| (modality, template.clone())).collect()
}

fn media(family: &Family) -> impl Iterator<Item = Modality> {
    Modality::ALL.into_iter().filter(|&modality| modality != Modality::Text && family.takes(modality))
}

/// Refuses what this family leaves no choice in.
fn check_choices(options: &ConvertOptions, single: &Single) -> Result<(), ConvertError> {
    let family = single.family.name();
    if let TaskChoice::Named(asked) = &options.tasks
        && asked != single.task
    {
        return Err(ConvertError::UnknownTask { asked: asked.clone(), known: vec![single.task.into()] });
    }
    if options.adapter.is_some() {
        return Err(ConvertError::NoAdapters { family });
    }
    for (&modality, &kind) in &options.templates {
        if !media(&single.family).any(|m| m == modality) {
            return Err(ConvertError::TemplateModality { modality, takes: media(&single.family).collect() });
        }
        if kind != TemplateKind::Noeos {
            return Err(ConvertError::TemplateFixed { family, modality, template: TemplateKind::Noeos });
        }
    }
    Ok(())
}
