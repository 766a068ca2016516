//! The plan of a conversion: everything that names, shapes and side files decide, before any data is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_models::FamilyConfig;
use omniburn_models::record::{
    Dtype, RECORD_FORMAT, RecordHeader, TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, TensorRole, TensorSpec, text_file,
};
use serde_json::Value;

use crate::ConvertOptions;
use crate::error::{ConvertError, IdFault, TensorFaults};
use crate::fields::Faults;
use crate::hf_config::{Facts, HfConfig, find_card};
use crate::keymap::{Input, Piece, Recipe, Taken, settle};
use crate::lora::Adapter;
use crate::maps::omni::{self, KEYS, Layout, Recipes};
use crate::report::{ConvertReport, DroppedTensor, LoraReport, ModuleDelta, Parameters, PartReport};
use crate::safefile::Element;
use crate::sentence_transformers::{MODULES_FILE, Modules, class_alone, transformer_folder};
use crate::side_files::{SideFiles, tokenizer_ids_beyond};
use crate::single;
use crate::source::{CONFIG_FILE, Source, checkpoint_name, not_a_folder, read_json_if_there};
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
        if options.source.is_file() {
            return Err(not_a_folder(&options.source));
        }
        if !options.source.is_dir() {
            return Err(ConvertError::SourceMissing { path: options.source.clone() });
        }
        let folder = transformer_folder(&options.source)?;
        let config_path = folder.join(CONFIG_FILE);
        let root: Value = match read_json_if_there(&config_path)? {
            Some(root) => root,
            None => {
                let missing = || ConvertError::MissingFiles { paths: vec![config_path.clone()] };
                class_alone(&options.source)?.ok_or_else(missing)?
            }
        };
        if let Some(rules) = single::Rules::of(&root) {
            let modules = Modules::read(&options.source)?;
            let from = single::Folder { checkpoint: &options.source, folder: &folder, modules: modules.as_ref() };
            return single::plan(options, &from, &root, rules);
        }
        let card = find_card(&config_path, &root)?;
        if folder != options.source {
            let faults = Faults::of(&options.source.join(MODULES_FILE));
            faults.add("[0].path", folder.display().to_string(), "the checkpoint's own folder, for this family");
            faults.check()?;
        }
        let source = Source::open(&options.source, &KEYS)?;
        let hf = HfConfig::read(&config_path, &root, &card, facts(&source)?)?;
        let adapters = adapters_in(&options.source)?;
        let layout = Layout::detect(&source, &hf.omni, !adapters.is_empty());
        let survey = Survey { source: &source, layout, hf: &hf, card: &card, adapters: &adapters };
        let tasks = survey.choose(&options.tasks, options.adapter.as_deref())?;

        let with_rows = tasks.plans.iter().any(|plan| plan.special_rows);
        let special_token_ids = if with_rows { special_ids(&config_path, &hf)? } else { Vec::new() };
        let parts = parts(&Recipes::new(&source, &hf.omni, layout), &tasks, special_token_ids.len())?;
        let taken = settle(&KEYS, &source, parts.iter().flat_map(|part| &part.recipes), |canonical| {
            survey
                .other_task_reason(&tasks, canonical)
                .or_else(|| omni::tower_projection_reason(&source, &hf.omni, canonical))
        })?;
        for part in &parts {
            if let Some((_, adapter)) = &part.adapter {
                adapter.check_targets(&targets(&part.recipes))?;
            }
        }
        let tokenizer = tokenizer_settings::read(&options.source, &root, hf.omni.text.vocab)?;
        check_ids(&hf, &tokenizer)?;
        let side = SideFiles::read(&options.source, &card, &hf.omni)?;
        let header = RecordHeader {
            format: RECORD_FORMAT,
            tool: concat!("omniburn ", env!("CARGO_PKG_VERSION")).into(),
            name: checkpoint_name(&options.source),
            family: FamilyConfig::new(hf.omni.clone()),
            dtype: options.dtype,
            tasks: tasks.plans.iter().map(|plan| plan.name.clone()).collect(),
            default_task: tasks.default.clone(),
            dims: hf.dims.clone(),
            default_dim: None,
            prompts: side.prompts.clone(),
            templates: templates(&hf.omni, &hf.ids, &options.templates)?,
            special_token_ids,
            preprocess: side.preprocess.clone(),
            files: BTreeMap::new(),
            sources: Vec::new(),
            digest: String::new(),
        };
        let side_read = [&side.read[..], &tokenizer.read].concat();
        let source_files = source_files(&options.source, &options.source, &source, &side_read, &parts);
        let notes = [&source.notes, &hf.notes, &tasks.notes, &side.notes, &tokenizer.notes]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let known = (card.id.as_str(), card.licence.as_str());
        let mut report = report(options, known, layout, &header, &source, &parts, &taken);
        report.notes = notes;
        Ok(Self { source: Arc::new(source), parts, header, tokenizer, source_files, report })
    }

    /// Bytes of every tensor of the record.
    pub fn tensor_bytes(&self) -> u64 {
        self.report.parts.iter().map(|part| part.bytes).sum()
    }
}

/// What the tensors say before the configuration is read.
fn facts(source: &Source) -> Result<Facts, ConvertError> {
    let Some(&[vocab, _]) = source.shape(omni::TOKEN_TABLE) else {
        // Without a table of two axes nothing else can be judged.
        let mut faults = TensorFaults::default();
        match source.shape(omni::TOKEN_TABLE) {
            None => faults.missing.push(omni::TOKEN_TABLE.into()),
            Some(found) => faults.mis_shaped.push(crate::error::ShapeFault {
                tensor: source.own_name(omni::TOKEN_TABLE).into(),
                expected: vec![vec![0, 0]],
                found: found.to_vec(),
            }),
        }
        return Err(ConvertError::Tensors { path: source.folder().to_path_buf(), faults });
    };
    Ok(Facts {
        vocab,
        vision: ["vision_tower.", "merger.", "mergers."].iter().any(|prefix| source.has_prefix(prefix)),
        audio: ["audio_tower.", "audio_projector.", "audio_projectors."].iter().any(|p| source.has_prefix(p)),
        deepstack: source.names().any(|name| name.contains(omni::DEEPSTACK_MARK)),
        tensors: source.names().count(),
    })
}

/// The ids whose rows tasks replace, which the configuration must list.
fn special_ids(config: &Path, hf: &HfConfig) -> Result<Vec<u32>, ConvertError> {
    if hf.special_token_ids.is_empty() {
        let faults = Faults::of(config);
        faults.add("special_token_ids", "nothing", "the ids of the rows in task_token_embeddings");
        faults.check()?;
    }
    Ok(hf.special_token_ids.clone())
}

fn parts(recipes: &Recipes<'_>, tasks: &Tasks, special: usize) -> Result<Vec<PartPlan>, ConvertError> {
    let shared = |file: &str, recipes| PartPlan { file: file.into(), task: None, recipes, adapter: None };
    let mut parts = vec![shared(TOKENS_FILE, recipes.tokens())];
    let towers = recipes.towers();
    if !towers.is_empty() {
        parts.push(shared(TOWERS_FILE, towers));
    }
    let mut opened = 0;
    for plan in &tasks.plans {
        let adapter = match &plan.adapter {
            Some(folder) => {
                opened += 1;
                Some((opened - 1, Arc::new(Adapter::open(folder, &KEYS)?)))
            }
            None => None,
        };
        let rows = if plan.special_rows { special } else { 0 };
        parts.push(PartPlan {
            file: text_file(&plan.name),
            task: Some(plan.name.clone()),
            recipes: recipes.text(plan.key.as_deref(), rows),
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
fn check_ids(hf: &HfConfig, tokenizer: &TokenizerFiles) -> Result<(), ConvertError> {
    let rows = hf.omni.text.vocab;
    let named = hf.ids.all().map(|(name, id)| (name.to_string(), id));
    let special = hf.special_token_ids.iter().enumerate().map(|(i, &id)| (format!("special_token_ids[{i}]"), id));
    let mut ids: Vec<IdFault> = named
        .chain(special)
        .filter(|(_, id)| *id as usize >= rows)
        .map(|(name, id)| IdFault { name, id: id.into() })
        .collect();
    ids.extend(tokenizer_ids_beyond(tokenizer, rows)?);
    if ids.is_empty() { Ok(()) } else { Err(ConvertError::TokenIdOutOfTable { ids, rows }) }
}

/// The files a record is made from, named from `checkpoint`; configuration and tokenizer lie in `folder`.
pub(crate) fn source_files(
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
pub(crate) fn report(
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
