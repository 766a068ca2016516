//! The one way from a folder to a record: everything that names, shapes and side files decide, before any data is read.
//!
//! A folder is opened and read by its family's rules; tasks with their adapters are chosen; each part of the record gets its
//! recipes; recipes and checkpoint are settled against each other, with nothing left over; the report says what was decided.
//! What differs between families is data in their rules: none is named here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::{FolderDetails, KeyMap};
use omniburn_models::record::affine::{AffineFormat, PanelFormat, PanelLayout};
use omniburn_models::record::{
    Dtype, Modality, RECORD_FORMAT, RecordHeader, TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, TensorRole, TensorSpec,
    text_file,
};

use crate::checkpoint::{Checkpoint, Reading};
use crate::error::{ConvertError, IdFault};
use crate::fields::Faults;
use crate::files::CONFIG_FILE;
use crate::keep;
use crate::lora::{Adapter, Target, Targets};
use crate::lora_config::last_word;
use crate::options::ConvertOptions;
use crate::recipes::{Layout, Piece, Recipe, Recipes, Taken, settle};
use crate::report::{ConvertReport, DroppedTensor, LoraReport, ModuleDelta, Parameters, PartReport, TypeReport};
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
    /// None where no text is read.
    pub tokenizer: Option<TokenizerFiles>,
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
            Some(survey) => survey.choose(&options.tasks, &options.adapters)?,
            None => Tasks::one(task, &options.tasks, &options.adapters)?,
        };
        let special_token_ids = special_ids(&checkpoint, &details, &tasks)?;

        let recipes = Recipes::new(source, rules, &family, layout);
        let mut parts = parts(&recipes, &family, &tasks, special_token_ids.len(), &rules.keys)?;
        let mut all: Vec<&mut Recipe> = parts.iter_mut().flat_map(|part| &mut part.recipes).collect();
        keep::apply(&options.keep, options.dtype, &mut all)?;
        let taken = settle(&rules.keys, source, parts.iter().flat_map(|part| &part.recipes), |canonical| {
            let of_another_task = survey.as_ref().and_then(|survey| survey.other_task_reason(&tasks, canonical));
            let unused = || details.unused.iter().find(|(start, _)| canonical.starts_with(start));
            of_another_task
                .or_else(|| recipes.unfolded_reason(canonical))
                .or_else(|| unused().map(|(_, reason)| reason.clone()))
        })?;
        let adapters = settle_adapters(&parts, source, &rules.keys, &taken)?;

        let mut tokenizer = match (&checkpoint.gguf, steps.static_table) {
            _ if !family.takes(Modality::Text) => None,
            (Some(gguf), _) => Some(TokenizerFiles::built(root, gguf.tokenizer.clone())),
            (None, Some(_)) => Some(tokenizer_settings::bare(folder)?),
            (None, None) => Some(tokenizer_settings::read(folder, config, family.vocab())?),
        };
        if let Some(tokenizer) = &mut tokenizer {
            if lowercase {
                sentence_transformers::lowercase(tokenizer)?;
            }
            check_ids(&details, tokenizer, family.vocab())?;
        }
        let of_card = card.as_ref().map(|card| card.prompts.clone()).unwrap_or_default();
        let mut side = SideFiles::read(folder, steps, &details.preprocess, prompts.unwrap_or(of_card))?;
        if !family.takes(Modality::Video) {
            // Files of preprocessors speak of videos whatever the model takes.
            side.preprocess.video = None;
            side.preprocess.video_frames = None;
        }

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
        let (of_tokenizer, said) =
            tokenizer.as_ref().map(|found| (found.read.clone(), found.notes.clone())).unwrap_or_default();
        read.extend(of_tokenizer);
        let source_files = source_files(root, folder, source, &read, &parts);
        let known = match card {
            Some(card) => (card.id.as_str(), card.licence.as_str()),
            None => (rules.known_as, steps.one.licence),
        };
        let mut report = report(options, known, layout, &header, source, &parts, &taken);
        for (lora, dropped) in report.lora.iter_mut().zip(adapters) {
            lora.dropped = dropped;
        }
        report.notes = [&source.notes, &details.notes, &notes, &tasks.notes, &side.notes, &said]
            .into_iter()
            .flatten()
            .cloned()
            .chain(kept_packed(&parts, source, options.dtype))
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
    let mut opened = Vec::new();
    for plan in &tasks.plans {
        opened.push(match &plan.adapter {
            Some(folder) => Some(Arc::new(Adapter::open(folder, keys)?)),
            None => None,
        });
    }
    // What several tasks share is as the checkpoint has it.
    let only = match opened.as_slice() {
        [Some(adapter)] => Some((0, Arc::clone(adapter))),
        _ => None,
    };
    let shared = |file: &str, specs: Vec<TensorSpec>| PartPlan {
        file: file.into(),
        task: None,
        recipes: recipes.of(specs, None),
        adapter: only.clone(),
    };
    let of_all = [(TOKENS_FILE, family.token_tensors()), (TOWERS_FILE, family.tower_tensors())];
    let of_all = of_all.into_iter().filter(|(_, specs)| !specs.is_empty());
    let mut parts: Vec<PartPlan> = of_all.map(|(file, specs)| shared(file, specs)).collect();
    let mut index = 0;
    for (plan, adapter) in tasks.plans.iter().zip(opened) {
        let rows = if plan.special_rows { special } else { 0 };
        let adapter = adapter.map(|adapter| (index, adapter));
        index += usize::from(adapter.is_some());
        parts.push(PartPlan {
            file: text_file(&plan.name),
            task: Some(plan.name.clone()),
            recipes: recipes.of(family.text_tensors(rows), plan.key.as_deref()),
            adapter,
        });
    }
    Ok(parts)
}

/// Checks every adapter against what it may change, and gives what is left aside of each, in the order of the tasks.
///
/// An adapter may change its own task's part, and what all tasks share where there is one task.
fn settle_adapters(
    parts: &[PartPlan],
    source: &Source,
    keys: &KeyMap,
    taken: &Taken,
) -> Result<Vec<Vec<DroppedTensor>>, ConvertError> {
    let shared = parts.iter().filter(|part| part.task.is_none()).flat_map(|part| &part.recipes);
    let shared: BTreeSet<&str> = shared.flat_map(Recipe::inputs).map(|input| input.name.as_str()).collect();
    let unused = |name: &str| {
        let own = source.own_name(name);
        let dropped = taken.dropped.iter().find(|(dropped, _)| dropped == own).map(|(_, reason)| reason.clone());
        dropped.or_else(|| keys.drop_reason(name).filter(|_| !taken.names.contains(name)).map(str::to_string))
    };
    let mut aside = Vec::new();
    for part in parts.iter().filter(|part| part.task.is_some()) {
        let Some((index, adapter)) = &part.adapter else { continue };
        let own = parts.iter().enumerate().filter(|(_, part)| part.adapter.as_ref().is_some_and(|(of, _)| of == index));
        aside.push(adapter.check(&targets(own, source), &unused, &|name| shared.contains(name))?);
    }
    Ok(aside)
}

/// Tensors of some parts that an adapter may change.
fn targets<'a>(parts: impl Iterator<Item = (usize, &'a PartPlan)>, source: &Source) -> Targets {
    let mut targets = Targets::new();
    let mut output_tables = BTreeSet::new();
    for (part, plan) in parts {
        for recipe in &plan.recipes {
            for piece in &recipe.pieces {
                if let Piece::RowDifference { table, .. } = piece {
                    output_tables.insert(table.name.clone());
                }
                for input in piece.inputs() {
                    let Some(shape) = source.shape(&input.name) else { continue };
                    let linear = recipe.spec.role == TensorRole::Linear && shape.len() == 2;
                    let torch = input.form(shape).is_some_and(|form| form.torch);
                    let new = Target { shape: shape.to_vec(), part, linear, torch, tied: false };
                    let target = targets.entry(input.name.clone()).or_insert(new);
                    target.tied |= recipe.spec.role == TensorRole::Tokens;
                }
            }
        }
    }
    for (name, target) in &mut targets {
        target.tied &= output_tables.contains(name);
    }
    targets
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
    // A tokenizer that was built from a vocabulary has no such file, a table of token rows no configuration, and a GGUF file
    // none of them.
    let mut paths: Vec<PathBuf> =
        [CONFIG_FILE, TOKENIZER_FILE].map(|file| folder.join(file)).into_iter().filter(|path| path.is_file()).collect();
    for path in side {
        // Two readers may have read the same file.
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    let adapters = parts.iter().filter(|part| part.task.is_some()).filter_map(|part| part.adapter.as_ref());
    paths.extend(adapters.flat_map(|(_, adapter)| adapter.paths()));
    paths.extend(source.paths());
    let name = |path: &Path| match path.strip_prefix(checkpoint) {
        Ok(inside) if inside.as_os_str().is_empty() => {
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        Ok(inside) => inside.to_string_lossy().replace('\\', "/"),
        // An adapter from elsewhere: its own folder is name enough.
        Err(_) => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{}/{}", path.parent().map(name).unwrap_or_default(), name(path))
        }
    };
    paths.into_iter().map(|path| SourceFile { name: name(&path), path }).collect()
}

/// The affine groups that a matrix keeps as its file packs them, in a record that has such, and what their type is called
/// there: nothing is rounded then. A matrix of 8 bits does not stay one where 4 are asked for.
pub(crate) fn packed_groups(
    recipe: &Recipe,
    source: &Source,
    adapter: Option<&Adapter>,
    dtype: Dtype,
) -> Option<(AffineFormat, &'static str)> {
    if !dtype.is_affine() || recipe.spec.role != TensorRole::Linear || recipe.kept.is_some_and(|kept| !kept.is_affine())
    {
        return None;
    }
    let group = |piece: &Piece| {
        let Piece::Tensor(input) = piece else { return None };
        let as_it_lies = source.shape(&input.name).and_then(|shape| input.form(shape))?.order.is_none();
        let changed = adapter.is_some_and(|adapter| adapter.changes(&input.name));
        source.affine_format(&input.name).filter(|_| as_it_lies && !changed)
    };
    let (first, rest) = recipe.pieces.split_first()?;
    let (format, kind) = group(first)?;
    let alike = rest.iter().all(|piece| group(piece).is_some_and(|(other, _)| other == format));
    let asked = recipe.kept.unwrap_or(recipe.spec.stored(dtype));
    (alike && (format.bits() == 4 || asked == Dtype::Affine8)).then_some((format, kind))
}

/// How a matrix lies in the record's file, where it lies in panels.
pub(crate) fn stored_panels(
    recipe: &Recipe,
    source: &Source,
    adapter: Option<&Adapter>,
    dtype: Dtype,
) -> Option<PanelLayout> {
    let layout = recipe.spec.panels(stored_dtype(recipe, source, adapter, dtype))?;
    let format = packed_groups(recipe, source, adapter, dtype);
    Some(format.map_or(layout, |(format, _)| PanelLayout { format: PanelFormat::Affine(format), ..layout }))
}

/// Type a tensor of a record is stored in.
pub(crate) fn stored_dtype(recipe: &Recipe, source: &Source, adapter: Option<&Adapter>, dtype: Dtype) -> Dtype {
    // A table that was changed is no longer what its type held exactly.
    let changed = || recipe.inputs().any(|input| adapter.is_some_and(|adapter| adapter.changes(&input.name)));
    if let Some((format, _)) = packed_groups(recipe, source, adapter, dtype) {
        return if format.bits() == 8 { Dtype::Affine8 } else { Dtype::Affine4 };
    }
    if let Some(kept) = recipe.kept {
        return kept;
    }
    let usual = recipe.spec.stored(dtype);
    match recipe.spec.role {
        TensorRole::Linear | TensorRole::Rows | TensorRole::Exact | TensorRole::Scale => usual,
        TensorRole::Tokens if usual == Dtype::Int8 || dtype == Dtype::F32 && changed() => usual,
        TensorRole::Tokens => recipe
            .inputs()
            .find_map(|input| match source.get(&input.name)?.element {
                Element::Float(own) => Some(own),
                Element::Packed(_) => Some(dtype),
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

/// What stays as its file packs it, in words.
fn kept_packed(parts: &[PartPlan], source: &Source, dtype: Dtype) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for part in parts {
        let adapter = part.adapter.as_ref().map(|(_, adapter)| &**adapter);
        for recipe in &part.recipes {
            if let Some((_, kind)) = packed_groups(recipe, source, adapter, dtype) {
                *kinds.entry(kind).or_default() += 1;
            }
        }
    }
    let words: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} matrices of {kind}")).collect();
    (!words.is_empty()).then(|| format!("kept as they are packed, without rounding: {}", words.join(", ")))
}

fn part_report(part: &PartPlan, source: &Source, dtype: Dtype) -> PartReport {
    let elements = |recipe: &Recipe| recipe.spec.elements() as u64;
    let adapter = part.adapter.as_ref().map(|(_, adapter)| &**adapter);
    let stored = |recipe: &Recipe| stored_dtype(recipe, source, adapter, dtype);
    let bytes = |recipe: &Recipe| {
        let stored = stored(recipe);
        let scales = if stored == Dtype::Int8 { recipe.spec.scale().elements() * Dtype::F16.bytes() } else { 0 };
        // Panels are padded.
        let matrix = stored_panels(recipe, source, adapter, dtype)
            .map_or(recipe.spec.elements() * stored.bytes(), |panels| panels.bytes());
        (matrix + scales) as u64
    };
    let mut types: BTreeMap<Dtype, (usize, u64)> = BTreeMap::new();
    for recipe in part.recipes.iter().filter(|recipe| recipe.spec.is_quantizable()) {
        let (count, sum) = types.entry(stored(recipe)).or_default();
        (*count, *sum) = (*count + 1, *sum + bytes(recipe));
    }
    PartReport {
        file: part.file.clone(),
        tensors: part.recipes.len(),
        elements: part.recipes.iter().map(elements).sum(),
        bytes: part.recipes.iter().map(bytes).sum(),
        types: types.into_iter().map(|(dtype, (tensors, bytes))| TypeReport { dtype, tensors, bytes }).collect(),
        rounding: None,
    }
}

/// The kind of module a weight belongs to: the last word before `.weight`.
pub(crate) fn module_kind(name: &str) -> &str {
    last_word(name.trim_end_matches(".weight"))
}

fn lora_report(task: &str, adapter: &Adapter) -> LoraReport {
    let mut modules: BTreeMap<String, ModuleDelta> = BTreeMap::new();
    for (name, scale) in adapter.factors() {
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
        rank: adapter.config.rank,
        alpha: adapter.config.alpha,
        rank_stabilised: adapter.config.rank_stabilised,
        magnitudes: adapter.config.magnitudes,
        modules,
        replaced: adapter.replaced().map(str::to_string).collect(),
        dropped: Vec::new(),
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
