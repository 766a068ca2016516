//! The one way from a folder to a record: everything that names, shapes and side files decide, before any data is read.
//!
//! A folder is opened and read by its family's rules; tasks with their adapters are chosen; each part of the record gets its
//! recipes; recipes and checkpoint are settled against each other, with nothing left over; the report says what was decided.
//! What differs between families is data in their rules: none is named here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::{FolderDetails, KeyMap};
use omniburn_models::record::{
    Dtype, RECORD_FORMAT, RecordHeader, TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, TensorRole, TensorSpec, text_file,
};

use crate::checkpoint::{Checkpoint, Reading};
use crate::error::{ConvertError, IdFault};
use crate::fields::Faults;
use crate::files::CONFIG_FILE;
use crate::lora::Adapter;
use crate::options::ConvertOptions;
use crate::recipes::{Input, Layout, Piece, Recipe, Recipes, Taken, settle};
use crate::report::{ConvertReport, DroppedTensor, LoraReport, ModuleDelta, Parameters, PartReport};
use crate::safefile::Element;
use crate::sentence_transformers;
use crate::side_files::{SideFiles, tokenizer_ids_beyond};
use crate::source::{Source, checkpoint_name};
use crate::tasks::{Survey, Tasks, adapters_in};
use crate::templates::templates;
use crate::tokenizer_settings::{self, TokenizerFiles};

/// One tensor file to write.
pub(crate) struct PartPlan {
    pub file: String,
    /// The task, for a part that is not shared.
    pub task: Option<String>,
    pub recipes: Vec<Recipe>,
    /// The adapter merged into it, with its place in the report.
    pub adapter: Option<(usize, Arc<Adapter>)>,
}

/// A file the record's list of sources names.
pub(crate) struct SourceFile {
    /// Path inside the checkpoint, for people.
    pub name: String,
    pub path: PathBuf,
}

/// Everything decided before data is read.
pub(crate) struct Plan {
    pub source: Arc<Source>,
    pub parts: Vec<PartPlan>,
    /// The header without files, sources and digest.
    pub header: RecordHeader,
    pub tokenizer: TokenizerFiles,
    pub source_files: Vec<SourceFile>,
    pub report: ConvertReport,
}

impl Plan {
    /// Reads what is needed to decide, and decides.
    ///
    /// # Errors
    /// Whatever is wrong with options, configuration, names, shapes, types, ids, side files or adapters.
    pub fn make(options: &ConvertOptions) -> Result<Self, ConvertError> {
        let checkpoint = Checkpoint::open(&options.source)?;
        let Reading { family, task, details, prompts, default_dim, lowercase, mut read, notes } =
            checkpoint.read(&options.tasks)?;
        let checkpoint = checkpoint.with_table();
        let Checkpoint { root, ref folder, ref config, rules, ref card, ref source, .. } = checkpoint;
        let steps = &rules.steps;

        let adapters = if steps.tasks.is_some() { adapters_in(root)? } else { BTreeMap::new() };
        let layout = Layout::detect(source, rules, &family.tower_tensors(), !adapters.is_empty());
        let survey = steps.tasks.map(|rules| Survey {
            source,
            layout,
            rules,
            named: &details.task_names,
            card: card.as_ref(),
            adapters: &adapters,
        });
        let tasks = match &survey {
            Some(survey) => survey.choose(&options.tasks, options.adapter.as_deref())?,
            None => Tasks::one(task, family.name(), &options.tasks, options.adapter.as_deref())?,
        };
        let special_token_ids = special_ids(&checkpoint, &details, &tasks)?;

        let recipes = Recipes::new(source, rules, &family, layout);
        let parts = parts(&recipes, &family, &tasks, special_token_ids.len(), &rules.keys)?;
        let taken = settle(&rules.keys, source, parts.iter().flat_map(|part| &part.recipes), |canonical| {
            let of_another_task = survey.as_ref().and_then(|survey| survey.other_task_reason(&tasks, canonical));
            let unused = || details.unused.iter().find(|(start, _)| canonical.starts_with(start));
            of_another_task
                .or_else(|| recipes.unfolded_reason(canonical))
                .or_else(|| unused().map(|(_, reason)| reason.clone()))
        })?;
        for part in &parts {
            if let Some((_, adapter)) = &part.adapter {
                adapter.check_targets(&targets(&part.recipes))?;
            }
        }

        let mut tokenizer = match steps.static_table {
            Some(_) => tokenizer_settings::bare(folder)?,
            None => tokenizer_settings::read(folder, config, family.vocab())?,
        };
        if lowercase {
            sentence_transformers::lowercase(&mut tokenizer)?;
        }
        check_ids(&details, &tokenizer, family.vocab())?;
        let of_card = card.as_ref().map(|card| card.prompts.clone()).unwrap_or_default();
        let side = SideFiles::read(folder, steps, &details.preprocess, prompts.unwrap_or(of_card))?;

        let header = RecordHeader {
            format: RECORD_FORMAT,
            tool: concat!("omniburn ", env!("CARGO_PKG_VERSION")).into(),
            name: checkpoint_name(root),
            dtype: options.dtype,
            tasks: tasks.plans.iter().map(|plan| plan.name.clone()).collect(),
            default_task: tasks.default.clone(),
            dims: dims(&details, default_dim, family.vector()),
            default_dim,
            prompts: side.prompts,
            templates: templates(&details.templates, &options.templates, family.name())?,
            special_token_ids,
            preprocess: side.preprocess,
            files: BTreeMap::new(),
            sources: Vec::new(),
            digest: String::new(),
            family,
        };
        read.extend(side.read);
        read.extend(tokenizer.read.iter().cloned());
        let source_files = source_files(root, folder, source, &read, &parts);
        let known = match card {
            Some(card) => (card.id.as_str(), card.licence.as_str()),
            None => (rules.known_as, steps.one.licence),
        };
        let mut report = report(options, known, layout, &header, source, &parts, &taken);
        report.notes = [&source.notes, &details.notes, &notes, &tasks.notes, &side.notes, &tokenizer.notes]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        Ok(Self { source: Arc::new(checkpoint.source), parts, header, tokenizer, source_files, report })
    }

    /// Bytes of every tensor of the record.
    pub fn tensor_bytes(&self) -> u64 {
        self.report.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Dimensions that vectors may be cut to, the whole last.
fn dims(details: &FolderDetails, default_dim: Option<usize>, whole: usize) -> Vec<usize> {
    if details.dims.is_empty() { default_dim.into_iter().chain([whole]).collect() } else { details.dims.clone() }
}

/// The ids whose rows tasks replace, which the configuration must list; none where no task of the record has such rows.
fn special_ids(checkpoint: &Checkpoint<'_>, details: &FolderDetails, tasks: &Tasks) -> Result<Vec<u32>, ConvertError> {
    let Some(rules) = checkpoint.rules.steps.tasks.filter(|_| tasks.plans.iter().any(|plan| plan.special_rows)) else {
        return Ok(Vec::new());
    };
    if details.special_token_ids.is_empty() {
        let faults = Faults::of(&checkpoint.config_path());
        faults.add("special_token_ids", "nothing", format!("the ids of the rows in {}", rules.rows.1));
        faults.check()?;
    }
    Ok(details.special_token_ids.clone())
}

fn parts(
    recipes: &Recipes<'_>,
    family: &FamilyConfig,
    tasks: &Tasks,
    special: usize,
    keys: &KeyMap,
) -> Result<Vec<PartPlan>, ConvertError> {
    let shared = |file: &str, specs: Vec<TensorSpec>| PartPlan {
        file: file.into(),
        task: None,
        recipes: recipes.of(specs, None),
        adapter: None,
    };
    let mut parts = vec![shared(TOKENS_FILE, family.token_tensors())];
    let towers = family.tower_tensors();
    if !towers.is_empty() {
        parts.push(shared(TOWERS_FILE, towers));
    }
    let mut opened = 0;
    for plan in &tasks.plans {
        let adapter = match &plan.adapter {
            Some(folder) => {
                opened += 1;
                Some((opened - 1, Arc::new(Adapter::open(folder, keys)?)))
            }
            None => None,
        };
        let rows = if plan.special_rows { special } else { 0 };
        parts.push(PartPlan {
            file: text_file(&plan.name),
            task: Some(plan.name.clone()),
            recipes: recipes.of(family.text_tensors(rows), plan.key.as_deref()),
            adapter,
        });
    }
    Ok(parts)
}

/// Weights an adapter may change: the matrices of a task's own part, by name to `[outputs, inputs]`.
fn targets(recipes: &[Recipe]) -> BTreeMap<&str, &[usize]> {
    let linear = recipes.iter().filter(|recipe| recipe.spec.role == TensorRole::Linear);
    let tensors = linear.flat_map(|recipe| &recipe.pieces).filter_map(|piece| match piece {
        Piece::Tensor(Input { name, forms }) => Some((name.as_str(), forms[0].shape.as_slice())),
        _ => None,
    });
    tensors.collect()
}

/// Every id that will be looked up must have a row.
fn check_ids(details: &FolderDetails, tokenizer: &TokenizerFiles, rows: usize) -> Result<(), ConvertError> {
    let named = details.ids.iter().map(|(name, id)| (name.to_string(), *id));
    let special = details.special_token_ids.iter().enumerate().map(|(i, &id)| (format!("special_token_ids[{i}]"), id));
    let mut ids: Vec<IdFault> = named
        .chain(special)
        .filter(|(_, id)| *id as usize >= rows)
        .map(|(name, id)| IdFault { name, id: id.into() })
        .collect();
    ids.extend(tokenizer_ids_beyond(tokenizer, rows)?);
    if ids.is_empty() { Ok(()) } else { Err(ConvertError::TokenIdOutOfTable { ids, rows }) }
}

/// The files a record is made from, named from `checkpoint`; configuration and tokenizer lie in `folder`.
fn source_files(
    checkpoint: &Path,
    folder: &Path,
    source: &Source,
    side: &[PathBuf],
    parts: &[PartPlan],
) -> Vec<SourceFile> {
    // A tokenizer that was built from a vocabulary has no such file, a table of token rows no configuration.
    let mut paths: Vec<PathBuf> =
        [CONFIG_FILE, TOKENIZER_FILE].map(|file| folder.join(file)).into_iter().filter(|path| path.is_file()).collect();
    for path in side {
        // Two readers may have read the same file.
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    paths.extend(parts.iter().filter_map(|part| part.adapter.as_ref()).flat_map(|(_, adapter)| adapter.paths()));
    paths.extend(source.paths());
    let name = |path: &Path| match path.strip_prefix(checkpoint) {
        Ok(inside) => inside.to_string_lossy().replace('\\', "/"),
        // An adapter from elsewhere: its own folder is name enough.
        Err(_) => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{}/{}", path.parent().map(name).unwrap_or_default(), name(path))
        }
    };
    paths.into_iter().map(|path| SourceFile { name: name(&path), path }).collect()
}

/// Type a tensor of a record is stored in.
pub(crate) fn stored_dtype(spec: &TensorSpec, source: &Source, recipe: &Recipe, dtype: Dtype) -> Dtype {
    match spec.role {
        TensorRole::Linear | TensorRole::Rows => dtype,
        TensorRole::Exact => Dtype::F32,
        TensorRole::Scale => Dtype::F16,
        TensorRole::Tokens if dtype == Dtype::Int8 => dtype,
        TensorRole::Tokens => recipe
            .inputs()
            .find_map(|input| match source.get(&input.name)?.element {
                Element::Float(dtype) => Some(dtype),
                Element::Other(_) => None,
            })
            .expect("the table's type was checked"),
    }
}

/// The report of a plan; `known` is what the checkpoint is known as, and the licence of its weights.
fn report(
    options: &ConvertOptions,
    known: (&str, &str),
    layout: Layout,
    header: &RecordHeader,
    source: &Source,
    parts: &[PartPlan],
    taken: &Taken,
) -> ConvertReport {
    let lora: Vec<LoraReport> =
        parts.iter().filter_map(|part| Some(lora_report(part.task.as_ref()?, &part.adapter.as_ref()?.1))).collect();
    ConvertReport {
        source: header.name.clone(),
        out: (!options.check).then(|| options.out.clone()),
        check: options.check,
        layout,
        card: known.0.into(),
        licence: known.1.into(),
        family: header.family.name().into(),
        tasks: header.tasks.clone(),
        default_task: header.default_task.clone(),
        dtype: header.dtype,
        dims: header.dims.clone(),
        templates: header.templates.iter().map(|(modality, template)| (*modality, template.kind)).collect(),
        mapped: taken.names.len(),
        merged: lora.iter().flat_map(|l| l.modules.values()).map(|m| m.count).sum(),
        dropped: taken
            .dropped
            .iter()
            .map(|(name, reason)| DroppedTensor { name: name.clone(), reason: reason.clone() })
            .collect(),
        lora,
        parameters: parameters(parts),
        parts: parts.iter().map(|part| part_report(part, source, header.dtype)).collect(),
        rounding: None,
        bytes_written: 0,
        digest: None,
        seconds: 0.0,
        peak_memory_bytes: None,
        notes: Vec::new(),
    }
}

fn part_report(part: &PartPlan, source: &Source, dtype: Dtype) -> PartReport {
    let elements = |recipe: &Recipe| recipe.spec.elements() as u64;
    let bytes = |recipe: &Recipe| {
        let stored = stored_dtype(&recipe.spec, source, recipe, dtype);
        let scales = if stored == Dtype::Int8 { recipe.spec.scale().elements() * Dtype::F16.bytes() } else { 0 };
        // Panels are padded.
        let matrix =
            recipe.spec.panels(stored).map_or(recipe.spec.elements() * stored.bytes(), |panels| panels.bytes());
        (matrix + scales) as u64
    };
    PartReport {
        file: part.file.clone(),
        tensors: part.recipes.len(),
        elements: part.recipes.iter().map(elements).sum(),
        bytes: part.recipes.iter().map(bytes).sum(),
    }
}

/// The kind of module a weight belongs to: the last word before `.weight`.
pub(crate) fn module_kind(name: &str) -> &str {
    name.trim_end_matches(".weight").rsplit('.').next().unwrap_or(name)
}

fn lora_report(task: &str, adapter: &Adapter) -> LoraReport {
    let mut modules: BTreeMap<String, ModuleDelta> = BTreeMap::new();
    for (name, scale) in adapter.targets() {
        let module = modules.entry(module_kind(name).into()).or_insert(ModuleDelta {
            count: 0,
            scale: (scale, scale),
            mean_relative_norm: None,
        });
        module.count += 1;
        module.scale = (module.scale.0.min(scale), module.scale.1.max(scale));
    }
    LoraReport {
        task: task.into(),
        rank: adapter.rank,
        alpha: adapter.alpha,
        rank_stabilised: adapter.rank_stabilised,
        modules,
    }
}

/// Parameters of one task's model, without the zeros a fused bias adds and without special rows, which only replace.
fn parameters(parts: &[PartPlan]) -> Parameters {
    let shared = parts.iter().filter(|part| part.task.is_none());
    let text = parts.iter().find(|part| part.task.is_some());
    let mut p = Parameters::default();
    for recipe in shared.chain(text).flat_map(|part| &part.recipes) {
        let name = recipe.spec.name.as_str();
        let zeros: usize = recipe.pieces.iter().map(|piece| if let Piece::Zeros(n) = piece { *n } else { 0 }).sum();
        let elements = (recipe.spec.elements() - zeros) as u64;
        let root = name.split('.').next().unwrap_or(name);
        let module = match root {
            "vision" | "picture" => &mut p.vision,
            "merger" | "classifier" | "picture_connector" => &mut p.merger,
            "audio" | "speech" => &mut p.audio,
            "audio_projector" | "speech_connector" => &mut p.projector,
            "special_rows" => continue,
            _ => &mut p.text,
        };
        *module += elements;
    }
    p
}
