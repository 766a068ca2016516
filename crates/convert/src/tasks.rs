//! Which tasks a checkpoint holds, which of them are converted, and where each one's own tensors are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::{Card, TaskRules};

use crate::error::ConvertError;
use crate::files::ADAPTER_CONFIG;
use crate::lora::ADAPTER_WEIGHTS;
use crate::recipes::Layout;
use crate::source::{Source, checkpoint_name};

/// Name of the task of a record made from base weights.
pub const BASE_TASK: &str = "base";
/// The task of a record that scores pairs.
pub const RERANK_TASK: &str = "rerank";
/// What asks for vectors where a folder could be read as either.
pub const EMBED_TASK: &str = "embed";
pub(crate) const ADAPTERS_FOLDER: &str = "adapters";

/// Which tasks to convert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TaskChoice {
    /// `retrieval` where the checkpoint has tasks and that is one of them, else its first task, else the base weights.
    #[default]
    Default,
    /// One task by name.
    Named(String),
    /// Every task, over shared towers and token table.
    All,
    /// The base weights, without any adapter.
    None,
}

/// An adapter given by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenAdapter {
    /// The task that it makes; of several without a name, the folder's.
    pub task: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
}

impl GivenAdapter {
    /// The adapter of a folder, for whatever task is chosen.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { task: None, folder: folder.into() }
    }

    /// The adapter of a folder, for a task.
    pub fn named(task: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self { task: Some(task.into()), folder: folder.into() }
    }
}

/// One task of the record and where its own tensors come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskPlan {
    /// Name in the record.
    pub name: String,
    /// Its name inside weight names, where connectors come per task.
    pub key: Option<String>,
    /// Folder of its adapter.
    pub adapter: Option<PathBuf>,
    /// Whether its own special rows are taken.
    pub special_rows: bool,
}

/// The tasks of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub plans: Vec<TaskPlan>,
    pub default: String,
    pub notes: Vec<String>,
}

/// The adapter folders of a checkpoint by task.
///
/// A folder counts when it holds either file of an adapter; a missing other half is an error when it is opened.
pub(crate) fn adapters_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>, ConvertError> {
    let adapters = folder.join(ADAPTERS_FOLDER);
    let entries = match fs::read_dir(&adapters) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(e) => return Err(ConvertError::io(adapters)(e)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(ConvertError::io(&adapters))?.path();
        if [ADAPTER_CONFIG, ADAPTER_WEIGHTS].iter().any(|file| path.join(file).exists()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, path);
        }
    }
    Ok(found)
}

impl Tasks {
    /// The task of a checkpoint that has one alone, or the tasks that adapters make of it: one adapter without a name is
    /// merged into the task there is, others make a task each.
    ///
    /// # Errors
    /// [`ConvertError::UnknownTask`] for another one, [`ConvertError::AdapterChoice`], [`ConvertError::AdapterTwice`],
    /// [`ConvertError::TaskName`].
    pub fn one(name: &str, choice: &TaskChoice, adapters: &[GivenAdapter]) -> Result<Self, ConvertError> {
        if *choice == TaskChoice::None && !adapters.is_empty() {
            return Err(ConvertError::AdapterChoice { choice: "no task" });
        }
        let plan =
            |(name, adapter): (String, Option<PathBuf>)| TaskPlan { name, key: None, adapter, special_rows: false };
        let mut plans: Vec<TaskPlan> = match adapters {
            [] => vec![plan((name.into(), None))],
            [GivenAdapter { task: None, folder }] => vec![plan((name.into(), Some(folder.clone())))],
            several => by_task(several)?.into_iter().map(|(name, folder)| plan((name, Some(folder)))).collect(),
        };
        if let TaskChoice::Named(asked) = choice {
            let known: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
            if known.contains(asked) {
                plans.retain(|plan| plan.name == *asked);
            } else if asked != name && (asked != EMBED_TASK || name == RERANK_TASK) {
                return Err(ConvertError::UnknownTask { asked: asked.clone(), known });
            }
        }
        Ok(Self { default: plans[0].name.clone(), plans, notes: Vec::new() })
    }
}

/// Adapters given by hand with the task of each, in their order.
///
/// # Errors
/// [`ConvertError::AdapterTwice`], [`ConvertError::TaskName`].
fn by_task(adapters: &[GivenAdapter]) -> Result<Vec<(String, PathBuf)>, ConvertError> {
    let mut named: Vec<(String, PathBuf)> = Vec::new();
    for GivenAdapter { task, folder } in adapters {
        let task = task.clone().unwrap_or_else(|| folder_name(folder));
        check_name(&task)?;
        if named.iter().any(|(before, _)| *before == task) {
            return Err(ConvertError::AdapterTwice { task });
        }
        named.push((task, folder.clone()));
    }
    Ok(named)
}

/// Everything the choice of tasks depends on.
pub(crate) struct Survey<'a> {
    pub source: &'a Source,
    pub layout: Layout,
    pub rules: &'a TaskRules,
    /// Tasks that the configuration names.
    pub named: &'a [String],
    pub card: Option<&'a Card>,
    pub adapters: &'a BTreeMap<String, PathBuf>,
}

impl Survey<'_> {
    /// Tasks that the checkpoint is published for.
    fn published(&self) -> &[String] {
        self.card.map_or(&[], |card| &card.tasks)
    }

    /// Whether the checkpoint has special rows per task.
    fn has_special_rows(&self) -> bool {
        self.source.has_prefix(&format!("{}.", self.rules.rows.1))
    }

    /// Task keys that connectors or special rows are there for, in name order.
    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.source.names().filter_map(|name| self.rules.key_of(name)).map(str::to_string).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Decides what is converted.
    ///
    /// # Errors
    /// [`ConvertError::UnknownTask`], [`ConvertError::AdapterChoice`], [`ConvertError::AdapterMissing`],
    /// [`ConvertError::AdaptersBesideMerged`], [`ConvertError::TaskName`], [`ConvertError::AdapterTwice`].
    pub fn choose(&self, choice: &TaskChoice, given: &[GivenAdapter]) -> Result<Tasks, ConvertError> {
        let adapter = match given {
            [] => None,
            [GivenAdapter { task: None, folder }] => Some(folder.as_path()),
            several => return self.named(choice, by_task(several)?),
        };
        match (choice, adapter) {
            (TaskChoice::All, Some(_)) => return Err(ConvertError::AdapterChoice { choice: "all tasks" }),
            (TaskChoice::None, Some(_)) => return Err(ConvertError::AdapterChoice { choice: "no task" }),
            _ => {}
        }
        let tasks = match (self.layout, choice) {
            (Layout::TorchMerged, _) => self.merged(choice, adapter)?,
            (_, TaskChoice::None) => self.base("as chosen: the base weights, no adapter"),
            _ => self.with_adapters(choice, adapter)?,
        };
        for plan in &tasks.plans {
            check_name(&plan.name)?;
        }
        Ok(tasks)
    }

    /// Adapters given for tasks by name, in place of the checkpoint's own or beside them: they alone, unless all tasks or
    /// another one is chosen.
    fn named(&self, choice: &TaskChoice, given: Vec<(String, PathBuf)>) -> Result<Tasks, ConvertError> {
        match (self.layout, choice) {
            (_, TaskChoice::None) => return Err(ConvertError::AdapterChoice { choice: "no task" }),
            (Layout::TorchMerged, _) => {
                return Err(ConvertError::AdapterChoice { choice: "tasks by name, as these weights are of one task" });
            }
            _ => {}
        }
        let mut adapters = self.adapters.clone();
        adapters.extend(given.iter().cloned());
        let with = Survey { adapters: &adapters, ..*self };
        let mut tasks = match choice {
            TaskChoice::Default => {
                let mut plans = Vec::new();
                let mut notes = Vec::new();
                for (name, _) in &given {
                    let one = with.choose(&TaskChoice::Named(name.clone()), &[])?;
                    plans.extend(one.plans);
                    notes = one.notes;
                }
                Tasks { default: plans[0].name.clone(), plans, notes }
            }
            chosen => with.choose(chosen, &[])?,
        };
        tasks.notes.extend(
            given.iter().map(|(task, folder)| format!("task `{task}`: the adapter given, {}", folder_name(folder))),
        );
        Ok(tasks)
    }

    /// A merged checkpoint holds one task, whose name no weight tells.
    fn merged(&self, choice: &TaskChoice, adapter: Option<&Path>) -> Result<Tasks, ConvertError> {
        if !self.adapters.is_empty() && adapter.is_none() && *choice != TaskChoice::None {
            let tasks = self.adapters.keys().cloned().collect();
            return Err(ConvertError::AdaptersBesideMerged { path: self.source.folder().to_path_buf(), tasks });
        }
        let mut notes = Vec::new();
        let stated = self.merged_task();
        let name = match (choice, stated) {
            (TaskChoice::None, _) => {
                notes.push("as chosen: the weights as they are; this layout has its adapter merged already".into());
                BASE_TASK.to_string()
            }
            (TaskChoice::Named(asked), Some(stated)) if *asked != stated && adapter.is_none() => {
                return Err(ConvertError::UnknownTask { asked: asked.clone(), known: vec![stated] });
            }
            (TaskChoice::Named(asked), None) => {
                notes.push(format!("nothing in the checkpoint tells its task; it is taken to be `{asked}`, as asked"));
                asked.clone()
            }
            (TaskChoice::Named(asked), Some(_)) => asked.clone(),
            (_, Some(stated)) => stated,
            (_, None) => {
                notes.push(format!("nothing in the checkpoint tells its task; the record calls it `{BASE_TASK}`"));
                BASE_TASK.to_string()
            }
        };
        if adapter.is_some() {
            notes.push("an adapter is merged into weights that are laid out as merged already, as asked".into());
        }
        let plan = TaskPlan { name, key: None, adapter: adapter.map(Path::to_path_buf), special_rows: false };
        Ok(Tasks { default: plan.name.clone(), plans: vec![plan], notes })
    }

    /// The task of a merged checkpoint: the only one its configuration names, else the end of its name.
    fn merged_task(&self) -> Option<String> {
        if let [only] = self.named {
            return Some(only.clone());
        }
        let name = checkpoint_name(self.source.folder());
        self.published().iter().find(|task| name.ends_with(&format!("-{task}"))).cloned()
    }

    fn with_adapters(&self, choice: &TaskChoice, adapter: Option<&Path>) -> Result<Tasks, ConvertError> {
        let known = self.known(adapter.is_some());
        if known.is_empty() && adapter.is_none() {
            return match choice {
                TaskChoice::Named(asked) if asked != BASE_TASK => {
                    // Connectors without any adapter: the task is there in part, which is worth another sentence.
                    if self.keyed_tasks().iter().any(|(name, _)| name == asked) {
                        return Err(self.adapter_missing(asked));
                    }
                    Err(ConvertError::UnknownTask { asked: asked.clone(), known: vec![BASE_TASK.into()] })
                }
                _ => Ok(self.base("no adapters folder: the base weights")),
            };
        }
        let mut notes = Vec::new();
        let chosen = match choice {
            TaskChoice::All => known.clone(),
            TaskChoice::Named(asked) => vec![asked.clone()],
            _ => vec![self.default_of(&known, adapter)],
        };
        if let Some(adapter) = adapter {
            notes.push(format!("task `{}`: the adapter given, {}", chosen[0], folder_name(adapter)));
        }
        let keyed = self.keyed_tasks();
        let mut plans = Vec::new();
        for name in chosen {
            let key = keyed.iter().find(|(task, _)| *task == name).map(|(_, key)| key.clone());
            let folder = adapter.map(Path::to_path_buf).or_else(|| self.adapters.get(&name).cloned());
            let has_place = if self.layout == Layout::TorchTasks { key.is_some() } else { folder.is_some() };
            if !has_place {
                return Err(ConvertError::UnknownTask { asked: name, known });
            }
            let Some(folder) = folder else { return Err(self.adapter_missing(&name)) };
            plans.push(TaskPlan { name, key, adapter: Some(folder), special_rows: self.has_special_rows() });
        }
        let unheard = |name: &&String| !known.contains(name);
        for name in self.named.iter().filter(unheard) {
            notes.push(format!("config.json names task `{name}`, for which there is no adapter; it is not held"));
        }
        for name in self.adapters.keys().filter(unheard) {
            notes.push(format!("adapters/{name} is left aside: the checkpoint has no connectors for such a task"));
        }
        let names: Vec<String> = plans.iter().map(|p| p.name.clone()).collect();
        Ok(Tasks { default: self.default_of(&names, None), plans, notes })
    }

    /// Tasks that can be converted: in the configuration's order, then by name.
    fn known(&self, adapter_given: bool) -> Vec<String> {
        let keyed = self.keyed_tasks();
        let there: Vec<&String> = match self.layout {
            // Connectors decide; an adapter that is missing is an error of its own when that task is asked for.
            Layout::TorchTasks if adapter_given || !self.adapters.is_empty() => {
                keyed.iter().map(|(name, _)| name).collect()
            }
            Layout::TorchTasks => Vec::new(),
            _ => self.adapters.keys().collect(),
        };
        let named = self.named.iter().filter(|name| there.contains(name));
        let others = there.iter().copied().filter(|name| !self.named.contains(name));
        named.chain(others).cloned().collect()
    }

    /// Names and keys of the tasks that have connectors or special rows of their own: `text-matching` is
    /// `text_matching` inside weight names.
    fn keyed_tasks(&self) -> Vec<(String, String)> {
        let names: Vec<&String> = self.named.iter().chain(self.adapters.keys()).chain(self.published()).collect();
        let name_of = |key: &String| {
            names.iter().find(|name| name.replace('-', "_") == *key).map_or_else(|| key.clone(), |n| (*n).clone())
        };
        self.keys().into_iter().map(|key| (name_of(&key), key)).collect()
    }

    fn default_of(&self, tasks: &[String], adapter: Option<&Path>) -> String {
        // An adapter given by hand says its task by its folder's name, where that is a task of the checkpoint.
        let given = adapter.map(folder_name).filter(|name| tasks.contains(name) || self.published().contains(name));
        let preferred = self.card.map_or_else(|| BASE_TASK.into(), |card| card.default_task.clone());
        given.unwrap_or_else(|| match tasks.first() {
            Some(first) if !tasks.contains(&preferred) => first.clone(),
            _ => preferred,
        })
    }

    /// Base weights; where connectors come per task, those of the default task.
    fn base(&self, why: &str) -> Tasks {
        let keyed = self.keyed_tasks();
        let names: Vec<String> = keyed.iter().map(|(name, _)| name.clone()).collect();
        let mut notes = vec![why.to_string()];
        let key = if keyed.is_empty() {
            None
        } else {
            let default = self.default_of(&names, None);
            notes.push(format!("merger and projector are those of task `{default}`; base rows for special tokens"));
            keyed.into_iter().find(|(name, _)| *name == default).map(|(_, key)| key)
        };
        let plan = TaskPlan { name: BASE_TASK.into(), key, adapter: None, special_rows: false };
        Tasks { plans: vec![plan], default: BASE_TASK.into(), notes }
    }

    fn adapter_missing(&self, task: &str) -> ConvertError {
        let path = self.source.folder().join(ADAPTERS_FOLDER).join(task);
        ConvertError::AdapterMissing { task: task.into(), path }
    }

    /// Why a tensor of a task that is not converted is left aside.
    pub fn other_task_reason(&self, tasks: &Tasks, canonical: &str) -> Option<String> {
        let key = self.rules.key_of(canonical)?;
        let (name, _) = self.keyed_tasks().into_iter().find(|(_, k)| k == key)?;
        let Some(plan) = tasks.plans.iter().find(|plan| plan.key.as_deref() == Some(key)) else {
            return Some(format!("belongs to task `{name}`, which is not converted"));
        };
        let of_rows = canonical.strip_prefix(self.rules.rows.1).is_some_and(|rest| rest.starts_with('.'));
        let rows_kept = !plan.special_rows && of_rows;
        rows_kept.then(|| format!("special rows of task `{name}`; the base rows are kept"))
    }
}

fn folder_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Task names become file names.
fn check_name(name: &str) -> Result<(), ConvertError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(ConvertError::TaskName { name: name.into() })
    }
}
