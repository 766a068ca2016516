//! Families that are published one way: one set of weights, no adapters, one task.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::{CheckpointFolder, CheckpointRules, TextSettings, rules_for};
use omniburn_models::record::{
    MediaTemplate, Modality, Preprocess, Prompts, RECORD_FORMAT, RecordHeader, TOKENS_FILE, TOWERS_FILE, TemplateKind,
    TensorSpec, text_file,
};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields};
use crate::keymap::{KeyMap, Recipe, settle};
use crate::lora::ADAPTER_CONFIG;
use crate::maps::omni::Layout;
use crate::maps::{mini, pieces};
use crate::plan::{PartPlan, Plan, report, source_files};
use crate::sentence_transformers::{self, MEAN, MODULES_FILE, Modules, Settings};
use crate::side_files::tokenizer_ids_beyond;
use crate::source::{CONFIG_FILE, Source, checkpoint_name, read_json_if_there};
use crate::tokenizer_settings;
use crate::{ConvertOptions, TaskChoice};

const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// What a folder of such a family says.
pub(crate) struct Single {
    pub family: FamilyConfig,
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

/// Shapes of tensors by canonical name.
type Shapes = BTreeMap<String, Vec<usize>>;

/// How the folder of a configuration is read, as its `model_type` tells; nothing where that is for the cards to say.
#[derive(Clone, Copy)]
pub(crate) enum Rules {
    /// A family's own.
    Family(&'static CheckpointRules),
    /// Those of the folder that the model which ships is made from.
    Mini,
}

impl Rules {
    /// The rules for a folder with this `config.json`.
    pub fn of(root: &Value) -> Option<Self> {
        match root.get("model_type").and_then(Value::as_str) {
            Some(mini::MODEL_TYPE) => Some(Rules::Mini),
            _ => rules_for(root).map(Rules::Family),
        }
    }

    fn keys(self) -> &'static KeyMap {
        match self {
            Rules::Family(rules) => &rules.keys,
            Rules::Mini => &mini::KEYS,
        }
    }

    fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Rules::Family(rules) => rules.names,
            Rules::Mini => mini::NAMES,
        }
    }

    fn read(self, from: &Folder<'_>, root: &Value, shapes: &Shapes) -> Result<Single, ConvertError> {
        match self {
            Rules::Family(rules) => read(rules, from, root, shapes),
            Rules::Mini => mini::read(from, root, shapes.len()),
        }
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
    rules: Rules,
) -> Result<Plan, ConvertError> {
    let folder = from.folder;
    let config_path = folder.join(CONFIG_FILE);
    let dense = from.modules.into_iter().flat_map(Modules::dense).enumerate();
    let source =
        Source::open(folder, rules.keys())?.with_modules(dense.map(|(i, path)| (format!("dense.{i}"), path)))?;
    let single = rules.read(from, root, &source.shapes())?;
    let family = single.family.clone();
    let table = family.config().static_table();
    let source = match table {
        Some(names) => source.with_table(names),
        None => source,
    };
    family.check().map_err(|source| ConvertError::Config { path: config_path, source })?;
    check_choices(options, &single)?;

    let part = |file: String, task: Option<String>, specs: Vec<TensorSpec>| {
        let recipe = |spec: TensorSpec| Recipe { pieces: pieces(&spec, rules.names()), spec };
        PartPlan { file, task, recipes: specs.into_iter().map(recipe).collect(), adapter: None }
    };
    let mut parts = vec![part(TOKENS_FILE.into(), None, family.token_tensors())];
    let towers = family.tower_tensors();
    if !towers.is_empty() {
        parts.push(part(TOWERS_FILE.into(), None, towers));
    }
    parts.push(part(text_file(single.task), Some(single.task.into()), family.text_tensors(0)));
    let taken = settle(rules.keys(), &source, parts.iter().flat_map(|part| &part.recipes), |_| None)?;
    let mut tokenizer = match table {
        Some(_) => tokenizer_settings::bare(folder)?,
        None => tokenizer_settings::read(folder, root, family.vocab())?,
    };
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
        dims: single.default_dim.into_iter().chain([family.vector()]).collect(),
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

/// Reads the folder of a family that its own rules tell.
///
/// # Errors
/// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
fn read(rules: &CheckpointRules, from: &Folder<'_>, root: &Value, shapes: &Shapes) -> Result<Single, ConvertError> {
    let config = from.folder.join(CONFIG_FILE);
    let faults = Faults::of(&config);
    let fields = Fields::new("", Some(root), &faults);
    // The configuration first: a field of it that is wrong is the nearest reason.
    let unsaid = TextSettings { head: MEAN, max_tokens: None, unknown: None };
    let told = |text: &TextSettings| {
        FamilyConfig::from_box((rules.read)(&CheckpointFolder {
            config: fields,
            faults: &faults,
            tensors: shapes.len(),
            shapes,
            text,
        }))
    };
    let first = told(&unsaid);
    faults.check()?;
    first.check().map_err(|source| ConvertError::Config { path: config.clone(), source })?;
    let adapter = from.folder.join(ADAPTER_CONFIG);
    if adapter.is_file() {
        // transformers would load it over these weights, or over others that it names.
        let faults = Faults::of(&adapter);
        let expected = "nothing: this family merges none; `merge_and_unload` of PEFT does, and saves what is read here";
        faults.add(ADAPTER_CONFIG, "an adapter beside the weights", expected);
        faults.check()?;
    }
    let hidden = first.spec().hidden;
    let mut settings = Settings::read(from.checkpoint, from.folder, from.modules, hidden)?;
    let (max_tokens, unknown) = match (settings.max_tokens, first.config().static_table()) {
        (_, Some(_)) => tokenizer_settings::limit_and_unknown(from.folder)?,
        (Some(said), None) => (Some(said), None),
        (None, None) => (tokenizer_limit(from.folder, &mut settings.read)?, None),
    };
    let text = TextSettings { head: settings.head, max_tokens, unknown };
    let family = told(&text);
    faults.check()?;
    family.check().map_err(|source| ConvertError::Config { path: config, source })?;
    if family.config().head() != Some(&text.head) && text.head != MEAN {
        let faults = Faults::of(&from.checkpoint.join(MODULES_FILE));
        let expected = format!("the mean of all rows, as the family is {}", family.name());
        faults.add("type", format!("{:?}", text.head), expected);
        faults.check()?;
    }
    let (whole, default_dim) = (family.vector(), settings.truncate_dim);
    Ok(Single {
        family,
        known_as: rules.known_as,
        licence: "as its own page says",
        task: crate::BASE_TASK,
        ends: None,
        preprocess: Preprocess::default(),
        prompts: settings.prompts,
        default_dim: default_dim.filter(|&dim| dim < whole),
        lowercase: settings.lowercase,
        read: settings.read,
        notes: settings.notes,
    })
}

/// What the tokenizer's own configuration allows, where sentence-transformers says nothing.
fn tokenizer_limit(folder: &Path, read: &mut Vec<PathBuf>) -> Result<Option<usize>, ConvertError> {
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    let Some(value) = read_json_if_there::<Value>(&path)? else { return Ok(None) };
    read.push(path);
    // Where nothing is known, tokenizers say a number beyond any length.
    let said = value.get("model_max_length").and_then(Value::as_f64);
    Ok(said.filter(|&n| (1.0..1e9).contains(&n)).map(|n| n as usize))
}

/// The one layout there is, for every medium the family takes: start, rows, end.
fn templates(single: &Single) -> BTreeMap<Modality, MediaTemplate> {
    let Some(Ends { start, end }) = single.ends else { return BTreeMap::new() };
    let template = MediaTemplate { kind: TemplateKind::Noeos, start: Some(start), end: Some(end) };
    media(&single.family).map(|modality| (modality, template.clone())).collect()
}

fn media(family: &FamilyConfig) -> impl Iterator<Item = Modality> {
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
