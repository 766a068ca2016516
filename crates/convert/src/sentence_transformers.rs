//! The settings of sentence-transformers: which modules a folder has and where they lie, how rows are pooled, what is
//! put in front of a text and where it is cut.
//!
//! What the library computes from a setting is computed; what is not computed is refused by name; what changes no vector
//! is said in the report. As sentence-transformers 6.2.0 reads them, with the older spellings that it reads as well.

use std::path::{Component, Path, PathBuf};

use omniburn_models::blocks::{DenseActivation, DenseConfig, Pooling, VectorHeadConfig};
use omniburn_models::record::Prompts;
use serde_json::{Value, json};

use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::files::{CONFIG_FILE, MODULES_FILE, read_json_if_there};
use crate::late::{self, Expansion, Late, Lengths};
use crate::tokenizer_settings::{self, TokenizerFiles};

/// Prompts and whatever else concerns the whole model.
pub(crate) const PROMPTS_FILE: &str = "config_sentence_transformers.json";
/// Where pooling lies by custom, for folders that lack the list of modules.
const USUAL_POOLING: &str = "1_Pooling/config.json";
/// Where the first Dense module lies by custom.
const USUAL_DENSE: &str = "2_Dense/config.json";
/// The transformer's own settings, under every name they have had; the first that is there and not empty counts.
pub(crate) const TRANSFORMER_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// Modules that are computed, by the last part of their type; `BERT` is what the first releases called a transformer.
const MODULES: [(&str, Kind); 9] = [
    ("Transformer", Kind::Transformer),
    ("BERT", Kind::Transformer),
    ("StaticEmbedding", Kind::StaticEmbedding),
    ("Pooling", Kind::Pooling),
    ("Dense", Kind::Dense),
    ("Normalize", Kind::Normalize),
    ("Dropout", Kind::Dropout),
    ("LogitScore", Kind::LogitScore),
    ("MultiVectorMask", Kind::MultiVectorMask),
];
/// The Dense module of pylate, which goes over every row.
const ROW_DENSE: &str = "pylate.models.Dense.Dense";
/// The module of a model of text and images, which pools its rows itself.
const TWO_TOWERS: &str = "CLIPModel";
/// Poolings as they are called today.
const POOLINGS: [(&str, Pooling); 6] = [
    ("cls", Pooling::Cls),
    ("max", Pooling::Max),
    ("mean", Pooling::Mean),
    ("mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
    ("weightedmean", Pooling::WeightedMean),
    ("lasttoken", Pooling::LastToken),
];
/// Poolings as they were called, each a field that is true or false; in the order in which several are put together.
const FLAGS: [(&str, Pooling); 6] = [
    ("pooling_mode_cls_token", Pooling::Cls),
    ("pooling_mode_max_tokens", Pooling::Max),
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
    ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("pooling_mode_lasttoken", Pooling::LastToken),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transformer,
    /// A table of token rows, which makes a vector of them itself.
    StaticEmbedding,
    Pooling,
    Dense,
    Normalize,
    /// Computes nothing once a model is trained.
    Dropout,
    /// Of a language model that scores pairs: the difference of two logits.
    LogitScore,
    /// Which rows of a text have a vector of their own.
    MultiVectorMask,
}

/// What `modules.json` says.
#[derive(Debug, Clone)]
pub(crate) struct Modules {
    path: PathBuf,
    /// Of a folder that gives vectors; absent where the first module makes vectors by itself.
    pooling: Option<PathBuf>,
    dense: Vec<DenseFolder>,
    normalize: Vec<PathBuf>,
    /// Whether the last module is one of them.
    ends_normalized: bool,
    /// Whether they score pairs and give no vectors.
    scores: bool,
    /// Of a language model that scores pairs.
    logit_score: Option<PathBuf>,
    /// Whether they give a vector for each row.
    late: bool,
    /// Of such, which rows: where pylate saved them, the list has no such module.
    mask: Option<PathBuf>,
    notes: Vec<String>,
}

/// Where a Dense module lies.
#[derive(Debug, Clone)]
struct DenseFolder {
    path: PathBuf,
    /// Whether a Normalize stands before it.
    normalized: bool,
}

impl Modules {
    /// Folders of the Dense modules, in their order.
    pub fn dense(&self) -> impl Iterator<Item = &Path> {
        self.dense.iter().map(|dense| dense.path.as_path())
    }

    /// Reads the list of modules of a checkpoint; `None` where it has none.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every module that is not computed, or not in its place; [`ConvertError::Json`],
    /// [`ConvertError::Io`].
    pub fn read(root: &Path) -> Result<Option<Self>, ConvertError> {
        let path = root.join(MODULES_FILE);
        let Some(value) = read_json_if_there::<Value>(&path)? else { return Ok(None) };
        let faults = Faults::of(&path);
        let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
            faults.add("", shown(Some(&value)), "a list of modules");
            return Err(faults.refusal().into());
        };
        let mut notes = Vec::new();
        let mut found: Vec<(Kind, String)> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for (i, module) in list.iter().enumerate() {
            let at = format!("[{i}].");
            let fields = Fields::new(&at, Some(module), &faults);
            let name = fields.text("name");
            if name.is_some_and(|name| names.iter().any(|other| other == name)) {
                fields.fault("name", "a name that no other module has");
            }
            names.extend(name.map(str::to_string));
            let folder = fields.text("path").unwrap_or_default();
            if !is_inside(folder) {
                fields.fault("path", "a folder inside the checkpoint");
            }
            match kind_of(module.get("type")) {
                Some(kind) => found.push((kind, folder.to_string())),
                None => {
                    let kind = shown(module.get("type"));
                    let found = if folder.is_empty() { kind } else { format!("{kind} in {folder}") };
                    let computed = "a module of sentence_transformers: Transformer, StaticEmbedding, Pooling, Dense, \
                                    Normalize, Dropout, LogitScore or MultiVectorMask; or pylate's Dense";
                    faults.add(format!("{at}type"), found, computed);
                }
            }
        }
        faults.check()?;
        let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
        if kinds.contains(&Kind::Dropout) {
            notes.push(format!("{MODULES_FILE}: Dropout changes nothing once a model is trained"));
        }
        let order: Vec<Kind> = kinds.into_iter().filter(|kind| *kind != Kind::Dropout).collect();
        let scores = match order.as_slice() {
            [Kind::Transformer, Kind::LogitScore] => true,
            // Such a list is that of a cross encoder where the file of the whole model says so.
            [Kind::Transformer] => is_cross_encoder(root)?,
            _ => false,
        };
        let rest = match order.as_slice() {
            [Kind::Transformer, Kind::Pooling, rest @ ..] | [Kind::StaticEmbedding, rest @ ..] => Some(rest),
            _ => None,
        };
        let late = match order.as_slice() {
            // As pylate saves it, or whoever puts Dense over rows.
            [Kind::Transformer, dense @ ..] if !dense.is_empty() && dense.iter().all(|kind| *kind == Kind::Dense) => {
                true
            }
            [Kind::Transformer, dense @ .., Kind::MultiVectorMask, Kind::Normalize] => {
                dense.iter().all(|kind| *kind == Kind::Dense)
            }
            _ => false,
        };
        let behind = [Kind::Dense, Kind::Normalize];
        if !scores && !late && rest.is_none_or(|rest| rest.iter().any(|kind| !behind.contains(kind))) {
            let order: Vec<String> = order.iter().map(|kind| format!("{kind:?}")).collect();
            let expected = "Transformer and Pooling or StaticEmbedding, then Dense and Normalize, in this order; or for a \
                            vector a token Transformer and Dense, then MultiVectorMask and Normalize or neither";
            faults.add("type", order.join(", "), expected);
            faults.check()?;
        }
        let dense = found.iter().enumerate().filter(|(_, (kind, _))| *kind == Kind::Dense).map(|(i, (_, folder))| {
            let before = found[..i].iter().rev().map(|(kind, _)| *kind).find(|kind| *kind != Kind::Dropout);
            DenseFolder { path: root.join(folder), normalized: before == Some(Kind::Normalize) }
        });
        Ok(Some(Self {
            pooling: folders(&found, Kind::Pooling, root).pop(),
            dense: dense.collect(),
            normalize: folders(&found, Kind::Normalize, root),
            ends_normalized: order.last() == Some(&Kind::Normalize),
            scores,
            logit_score: folders(&found, Kind::LogitScore, root).pop(),
            late,
            mask: folders(&found, Kind::MultiVectorMask, root).pop(),
            notes,
            path,
        }))
    }

    /// Whether they score pairs and give no vectors.
    pub fn scores(&self) -> bool {
        self.scores
    }

    /// Folder of the module that takes the difference of two logits.
    pub fn logit_score(&self) -> Option<&Path> {
        self.logit_score.as_deref()
    }
}

/// Whether the file of the whole model calls it a cross encoder.
fn is_cross_encoder(root: &Path) -> Result<bool, ConvertError> {
    let value = read_json_if_there::<Value>(&root.join(PROMPTS_FILE))?;
    Ok(value.as_ref().and_then(|value| value.get("model_type")?.as_str()) == Some("CrossEncoder"))
}

/// The folders of the modules of a kind.
fn folders(found: &[(Kind, String)], kind: Kind, root: &Path) -> Vec<PathBuf> {
    found.iter().filter(|(one, _)| *one == kind).map(|(_, folder)| root.join(folder)).collect()
}

/// Folder of the transformer, whatever family it is of: the first module's where that is inside the checkpoint.
///
/// # Errors
/// As [`Modules::read`], where neither the checkpoint nor such a folder has a configuration.
pub(crate) fn transformer_folder(root: &Path) -> Result<PathBuf, ConvertError> {
    if let Some(folder) = two_towers_folder(root)? {
        return Ok(folder);
    }
    let value = read_json_if_there::<Value>(&root.join(MODULES_FILE))?;
    let first = value.as_ref().and_then(|value| value.get(0));
    let kind = first.and_then(|first| kind_of(first.get("type")));
    let at = first.and_then(|first| first.get("path")?.as_str()).unwrap_or_default().trim_matches('/');
    if matches!(kind, Some(Kind::Transformer | Kind::StaticEmbedding)) && !at.is_empty() && is_inside(at) {
        return Ok(root.join(at));
    }
    if !root.join(CONFIG_FILE).is_file() {
        Modules::read(root)?;
    }
    Ok(root.to_path_buf())
}

/// Folder of a model of text and images that is the one module of a checkpoint, with at most a `Normalize` behind it; `None`
/// for any other list of modules.
///
/// # Errors
/// [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn two_towers_folder(root: &Path) -> Result<Option<PathBuf>, ConvertError> {
    let value = read_json_if_there::<Value>(&root.join(MODULES_FILE))?;
    let (first, rest) = match value.as_ref().and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, rest @ ..]) => (first, rest),
        _ => return Ok(None),
    };
    let is_clip = first
        .get("type")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.starts_with("sentence_transformers.") && kind.rsplit('.').next() == Some(TWO_TOWERS));
    let is_normal = rest.len() < 2 && rest.iter().all(|module| kind_of(module.get("type")) == Some(Kind::Normalize));
    let at = first.get("path").and_then(Value::as_str).unwrap_or_default().trim_matches('/');
    Ok((is_clip && is_normal && is_inside(at)).then(|| root.join(at)))
}

/// What stands in for the configuration of a folder whose first module has none: the class of the module as `model_type`.
///
/// # Errors
/// As [`Modules::read`].
pub(crate) fn class_alone(root: &Path) -> Result<Option<Value>, ConvertError> {
    let value = read_json_if_there::<Value>(&root.join(MODULES_FILE))?;
    let first = value.as_ref().and_then(|value| value.get(0)?.get("type"));
    let found = kind_of(first) == Some(Kind::StaticEmbedding);
    Ok(found.then(|| json!({"model_type": format!("{:?}", Kind::StaticEmbedding)})))
}

/// A path below the checkpoint's folder, or that folder.
fn is_inside(path: &str) -> bool {
    !path.contains('\\') && Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// The kind that a type names: a class of sentence-transformers, under whichever of its paths it was saved.
fn kind_of(value: Option<&Value>) -> Option<Kind> {
    let value = value?.as_str()?;
    if value == ROW_DENSE {
        return Some(Kind::Dense);
    }
    let name = value.strip_prefix("sentence_transformers.")?;
    let last = name.rsplit('.').next()?;
    // Classes of the same name that are other modules.
    let others = ["sparse_encoder.", "cross_encoder.", "multi_vector_encoder."];
    let scores = name.starts_with("cross_encoder.") && ["Transformer", "LogitScore"].contains(&last);
    let masks = name.starts_with("multi_vector_encoder.") && last == "MultiVectorMask";
    if !scores && !masks && others.iter().any(|other| name.starts_with(other)) {
        return None;
    }
    MODULES.iter().find(|(module, _)| *module == last).map(|(_, kind)| *kind)
}

/// What is taken where nothing is said: the mean of all rows.
pub(crate) const MEAN: VectorHeadConfig =
    VectorHeadConfig { pooling: Pooling::Mean, more_poolings: Vec::new(), skips_prompt: false, dense: Vec::new() };

/// Everything that the files of sentence-transformers say of a text model.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub head: VectorHeadConfig,
    pub prompts: Prompts,
    /// To how many numbers vectors are cut unless said otherwise, where they are.
    pub truncate_dim: Option<usize>,
    /// Where texts are cut, where that is said.
    pub max_tokens: Option<usize>,
    /// Whether texts are put into small letters before the tokenizer sees them.
    pub lowercase: bool,
    /// Of a model that gives a vector for each row.
    pub late: Option<Late>,
    /// The files that were there and were read.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
}

impl Settings {
    /// Reads the settings of a checkpoint at `root` whose transformer lies in a folder of its own or the same, with the
    /// modules that were read of it; `hidden` is the width of a row, and `otherwise` which rows make the vector where nothing
    /// says so.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field of a file that is wrong or asks for what is not computed,
    /// [`ConvertError::MissingFiles`], [`ConvertError::Json`], [`ConvertError::Io`].
    pub fn read(
        root: &Path,
        transformer: &Path,
        modules: Option<&Modules>,
        hidden: usize,
        otherwise: Pooling,
    ) -> Result<Self, ConvertError> {
        let mut reader = Reader { read: Vec::new(), notes: Vec::new() };
        let Some(modules) = modules.filter(|modules| !modules.scores) else {
            return reader.without_modules(root, hidden, otherwise);
        };
        reader.read.push(modules.path.clone());
        reader.notes.extend(modules.notes.iter().cloned());
        if modules.late {
            return reader.late(root, transformer, modules, hidden);
        }
        let mut head = match &modules.pooling {
            Some(folder) => {
                let path = folder.join(CONFIG_FILE);
                let value = reader.json(&path)?;
                let value = value.ok_or_else(|| ConvertError::MissingFiles { paths: vec![path.clone()] })?;
                reader.poolings(&path, &value, hidden)?
            }
            None => MEAN,
        };
        for dense in &modules.dense {
            let one = reader.dense(dense, head.vector(hidden), Over::Vectors)?;
            head.dense.push(one);
        }
        for folder in &modules.normalize {
            reader.normalize(&folder.join(CONFIG_FILE), Over::Vectors)?;
        }
        if !modules.ends_normalized {
            reader.notes.push(format!(
                "{MODULES_FILE} has no Normalize{}: sentence-transformers leaves vectors at the length they have; here each \
                 has the same direction and length 1",
                if modules.normalize.is_empty() { "" } else { " at its end" }
            ));
        }
        let (prompts, truncate_dim) = reader.prompts(root, true)?;
        let Transformer { max_tokens, lowercase, .. } = reader.transformer(transformer, Form::Rows)?;
        if head.skips_prompt && prompts == Prompts::default() {
            reader.notes.push("include_prompt is false, and no role has a prompt: it changes nothing".into());
        }
        let Reader { read, notes } = reader;
        Ok(Self { head, prompts, truncate_dim, max_tokens, lowercase, late: None, read, notes })
    }

    /// Reads the settings of a checkpoint that scores pairs; a language model is `asked`. What was read and noted before comes
    /// first.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn of_pairs(
        root: &Path,
        transformer: &Path,
        modules: Option<&Modules>,
        asked: bool,
        read: Vec<PathBuf>,
        notes: Vec<String>,
    ) -> Result<Self, ConvertError> {
        let mut reader = Reader { read, notes };
        if let Some(modules) = modules.filter(|modules| modules.scores()) {
            reader.read.push(modules.path.clone());
            reader.notes.extend(modules.notes.iter().cloned());
        }
        let prompts = reader.pair_prompts(root, asked)?;
        let form = if asked { Form::Logits } else { Form::Scores };
        let Transformer { max_tokens, lowercase, .. } = reader.transformer(transformer, form)?;
        let Reader { read, notes } = reader;
        Ok(Self { head: MEAN, prompts, truncate_dim: None, max_tokens, lowercase, late: None, read, notes })
    }
}

/// What a Dense or Normalize module goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The vector of each text.
    Vectors,
    /// The rows of each text.
    Rows,
}

impl Over {
    /// Refuses another one in a module's settings. What pylate saves may name vectors, and goes over rows all the same.
    fn check(self, fields: &Fields<'_>, name: &str) {
        match self {
            Over::Vectors => fields.only_text(name, "sentence_embedding"),
            Over::Rows if fields.text(name) == Some("sentence_embedding") => {}
            Over::Rows => fields.only_text(name, "token_embeddings"),
        }
    }
}

/// What the transformer of a folder hands to the next module, or to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The rows of its last layer.
    Rows,
    /// The same of a model that gives a vector for each.
    LateRows,
    /// The scores of a classifier.
    Scores,
    /// The logits of a language model.
    Logits,
}

impl Form {
    /// The task, the name of what comes out, and the output of the model that it is.
    fn names(self) -> [&'static str; 3] {
        match self {
            Form::Rows | Form::LateRows => ["feature-extraction", "token_embeddings", "last_hidden_state"],
            Form::Scores => ["sequence-classification", "scores", "logits"],
            Form::Logits => ["text-generation", "causal_logits", "logits"],
        }
    }
}

#[derive(Default)]
struct Transformer {
    max_tokens: Option<usize>,
    lowercase: bool,
    /// Of a model that gives a vector for each row.
    lengths: Lengths,
    expansion: Option<Expansion>,
}

/// Gathers which files were read, and what is to be said of them.
struct Reader {
    read: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Reader {
    /// The settings of a model that gives a vector for each row, as pylate and sentence-transformers save them.
    ///
    /// # Source
    /// sentence-transformers 6.2.0, `MultiVectorEncoder._parse_model_config`; lightonai/pylate, `ColBERT.__init__`.
    fn late(
        mut self,
        root: &Path,
        transformer: &Path,
        modules: &Modules,
        hidden: usize,
    ) -> Result<Settings, ConvertError> {
        let mut dense = Vec::new();
        for folder in &modules.dense {
            let width = dense.last().map_or(hidden, |dense: &DenseConfig| dense.outputs);
            let one = self.dense(folder, width, Over::Rows)?;
            dense.push(one);
        }
        for folder in &modules.normalize {
            self.normalize(&folder.join(CONFIG_FILE), Over::Rows)?;
        }
        let of_mask = match &modules.mask {
            Some(folder) => Some(self.late_mask(&folder.join(CONFIG_FILE))?),
            None => None,
        };
        let Transformer { max_tokens, lowercase, lengths, expansion } =
            self.transformer(transformer, Form::LateRows)?;
        let path = root.join(PROMPTS_FILE);
        let value = self.json(&path)?;
        let faults = Faults::of(&path);
        let fields = Fields::new("", value.as_ref(), &faults);
        let late::OfModel { markers, skiplist, lengths: of_model, expansion: said, notes } =
            late::of_model(&fields, of_mask.is_none());
        let chosen = by_role(&fields, Prompts::default());
        faults.check()?;
        self.notes.extend(notes.into_iter().map(|note| format!("{PROMPTS_FILE}: {note}")));
        self.notes.extend(chosen.notes);
        let lengths = lengths.or(of_model);
        let expansion = expansion.or(said);
        if let (Some(length), None) = (lengths.query, &expansion) {
            self.notes.push(format!(
                "query_length: the library cuts a query at {length} tokens; here it is read like any text, and none is cut \
                 without --truncate"
            ));
        }
        // What pylate saves says how long a text is at most; modules say it beside what the model reads.
        let (max_tokens, document_tokens) = match &of_mask {
            None => (lengths.document.or(max_tokens), None),
            Some(_) => (max_tokens, lengths.document),
        };
        let late = Late {
            dense,
            markers,
            skiplist: of_mask.unwrap_or(skiplist),
            document_tokens,
            expansion,
            ids_alone: false,
        };
        let Self { read, notes } = self;
        Ok(Settings {
            head: MEAN,
            prompts: chosen.prompts,
            truncate_dim: None,
            max_tokens,
            lowercase,
            late: Some(late),
            read,
            notes,
        })
    }

    /// Words whose rows in a document have no vector.
    fn late_mask(&mut self, path: &Path) -> Result<Vec<String>, ConvertError> {
        let Some(value) = self.json(path)? else { return Err(ConvertError::MissingFiles { paths: vec![path.into()] }) };
        let faults = Faults::of(path);
        let words = late::of_mask(&Fields::new("", Some(&value), &faults));
        faults.check()?;
        Ok(words)
    }
}

impl Reader {
    fn json(&mut self, path: &Path) -> Result<Option<Value>, ConvertError> {
        let value = read_json_if_there(path)?;
        if value.is_some() {
            self.read.push(path.to_path_buf());
        }
        Ok(value)
    }

    /// A folder without a list of modules: sentence-transformers takes the mean of all rows there, unless the family has
    /// another pooling of its own, and no prompts, and does not see the files that say otherwise. Files that do are a
    /// contradiction, and are refused.
    fn without_modules(mut self, root: &Path, hidden: usize, otherwise: Pooling) -> Result<Settings, ConvertError> {
        let mut said = Vec::new();
        let path = root.join(USUAL_POOLING);
        let head = VectorHeadConfig::of(otherwise);
        let words = if otherwise == Pooling::Mean { "the mean" } else { "that of the family" };
        if let Some(value) = self.json(&path)?
            && self.poolings(&path, &value, hidden)? != head
        {
            said.push(format!("{USUAL_POOLING} asks for another pooling than {words}"));
        }
        if self.prompts(root, false)? != (Prompts::default(), None) {
            said.push(format!("{PROMPTS_FILE} has prompts or a truncate_dim"));
        }
        let Transformer { max_tokens, lowercase, .. } = self.transformer(root, Form::Rows)?;
        if lowercase {
            said.push("do_lower_case is set".into());
        }
        if root.join(USUAL_DENSE).is_file() {
            said.push(format!("{USUAL_DENSE} is there"));
        }
        if !said.is_empty() {
            let faults = Faults::of(&root.join(MODULES_FILE));
            let because = said.join(", and ");
            let expected = format!("the list of modules, as {because}; sentence-transformers reads neither without it");
            faults.add(MODULES_FILE, "nothing", expected);
            faults.check()?;
        }
        self.notes.push(match otherwise {
            Pooling::Mean => format!("no {MODULES_FILE}: the mean of all rows, as sentence-transformers takes it then"),
            _ => format!("no {MODULES_FILE}: pooled as models of this family are ({otherwise:?})"),
        });
        let Self { read, notes } = self;
        let prompts = Prompts::default();
        Ok(Settings { head, prompts, truncate_dim: None, max_tokens, lowercase, late: None, read, notes })
    }

    fn poolings(&mut self, path: &Path, value: &Value, hidden: usize) -> Result<VectorHeadConfig, ConvertError> {
        let faults = Faults::of(path);
        let fields = Fields::new("", Some(value), &faults);
        for (name, _) in fields.present() {
            let known = ["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"];
            if !known.contains(&name.as_str()) && !FLAGS.iter().any(|(flag, _)| flag == name) {
                fields.fault(name, "no field of this name, as nothing is computed from it");
            }
        }
        let width = fields.count("embedding_dimension").or(fields.count("word_embedding_dimension"));
        if width.is_some_and(|width| width != hidden as u64) {
            self.notes.push(format!("{}: rows have {hidden} numbers, whatever it says", short(path)));
        }
        let modes = match fields.get("pooling_mode") {
            Some(mode) => modes(&fields, mode),
            None => {
                let on = FLAGS.iter().filter(|(flag, _)| fields.flag(flag) == Some(true));
                on.map(|(_, pooling)| *pooling).collect()
            }
        };
        let skips_prompt = fields.flag("include_prompt") == Some(false);
        faults.check()?;
        let mut modes = modes.into_iter();
        let pooling = modes.next().unwrap_or_else(|| {
            self.notes.push(format!("{}: no pooling is chosen, so the mean of all rows is taken", short(path)));
            Pooling::Mean
        });
        Ok(VectorHeadConfig { pooling, more_poolings: modes.collect(), skips_prompt, dense: Vec::new() })
    }

    /// A Dense module that takes `width` numbers.
    fn dense(&mut self, dense: &DenseFolder, width: usize, over: Over) -> Result<DenseConfig, ConvertError> {
        let path = dense.path.join(CONFIG_FILE);
        let Some(value) = self.json(&path)? else { return Err(ConvertError::MissingFiles { paths: vec![path] }) };
        let faults = Faults::of(&path);
        let fields = Fields::new("", Some(&value), &faults);
        for (name, _) in fields.present() {
            match name.as_str() {
                "in_features" | "out_features" | "bias" | "use_residual" | "activation_function" => {}
                "module_input_name" | "module_output_name" => over.check(&fields, name),
                _ => fields.fault(name, "no field of this name, as nothing is computed from it"),
            }
        }
        let inputs = fields.needed_size("in_features");
        if inputs != 0 && inputs != width {
            fields.fault("in_features", format!("{width}, the numbers that go in"));
        }
        let found = DenseConfig {
            inputs,
            outputs: fields.needed_size("out_features"),
            bias: fields.flag("bias").unwrap_or(true),
            activation: activation(&fields, &value),
            residual: fields.flag("use_residual").unwrap_or(false),
            normalized: dense.normalized,
        };
        faults.check()?;
        Ok(found)
    }

    /// A module without settings, or with the usual ones.
    fn normalize(&mut self, path: &Path, over: Over) -> Result<(), ConvertError> {
        let Some(value) = self.json(path)? else { return Ok(()) };
        let faults = Faults::of(path);
        let fields = Fields::new("", Some(&value), &faults);
        for (name, _) in fields.present() {
            match name.as_str() {
                "module_input_name" | "module_output_name" => over.check(&fields, name),
                _ => fields.fault(name, "no field of this name, as nothing is computed from it"),
            }
        }
        Ok(faults.check()?)
    }

    /// Prompts by role; `said` is whether the report is to name them.
    fn prompts(&mut self, root: &Path, said: bool) -> Result<(Prompts, Option<usize>), ConvertError> {
        let path = root.join(PROMPTS_FILE);
        let Some(value) = self.json(&path)? else { return Ok((Prompts::default(), None)) };
        let faults = Faults::of(&path);
        let fields = Fields::new("", Some(&value), &faults);
        fields.only_text("model_type", "SentenceTransformer");
        match fields.get("similarity_fn_name").map(Value::as_str) {
            None | Some(Some("cosine")) => {}
            Some(Some(name @ ("dot" | "dot_score" | "euclidean" | "manhattan"))) => {
                let note = "changes no vector; all have length 1 here, so that the dot product is the cosine";
                self.notes.extend(said.then(|| format!("similarity_fn_name `{name}` {note}")));
            }
            Some(_) => fields.fault("similarity_fn_name", "cosine, dot, euclidean or manhattan: one vector for a text"),
        }
        for (name, _) in fields.present() {
            const KNOWN: [&str; 7] = [
                "prompts",
                "default_prompt_name",
                "similarity_fn_name",
                "model_type",
                "truncate_dim",
                "requirements",
                "__version__",
            ];
            if !KNOWN.contains(&name.as_str()) && said {
                self.notes.push(format!("{PROMPTS_FILE}: {name} is not used"));
            }
        }
        let chosen = by_role(&fields, Prompts::default());
        let truncate_dim = fields.size("truncate_dim");
        faults.check()?;
        if said {
            self.notes.extend(chosen.notes);
            self.notes.extend(truncate_dim.map(|dim| {
                format!("truncate_dim: the first {dim} numbers, brought to length 1, unless --dim asks for more")
            }));
        }
        Ok((chosen.prompts, truncate_dim))
    }

    /// What is put in front of the query of a pair: the default prompt, except where it is the instruction of a language
    /// model.
    fn pair_prompts(&mut self, root: &Path, asked: bool) -> Result<Prompts, ConvertError> {
        let path = root.join(PROMPTS_FILE);
        if !is_cross_encoder(root)? {
            return Ok(Prompts::default());
        }
        let Some(value) = self.json(&path)? else { return Ok(Prompts::default()) };
        let faults = Faults::of(&path);
        let fields = Fields::new("", Some(&value), &faults);
        for (name, _) in fields.present() {
            const KNOWN: [&str; 7] = [
                "prompts",
                "default_prompt_name",
                "model_type",
                "activation_fn",
                "keep_in_fp32_modules",
                "requirements",
                "__version__",
            ];
            if !KNOWN.contains(&name.as_str()) {
                self.notes.push(format!("{PROMPTS_FILE}: {name} is not used"));
            }
        }
        let chosen = by_role(&fields, Prompts::default());
        faults.check()?;
        let default = chosen.prompts.none;
        if default.is_empty() || asked {
            return Ok(Prompts::default());
        }
        self.notes.push(format!("default_prompt_name: {default:?} stands in front of every query"));
        Ok(Prompts { query: default, ..Prompts::default() })
    }

    fn transformer(&mut self, folder: &Path, form: Form) -> Result<Transformer, ConvertError> {
        let mut settings = Transformer::default();
        for file in TRANSFORMER_FILES {
            let path = folder.join(file);
            let Some(value) = self.json(&path)? else { continue };
            if value.as_object().is_some_and(serde_json::Map::is_empty) {
                continue;
            }
            let faults = Faults::of(&path);
            let fields = Fields::new("", Some(&value), &faults);
            self.transformer_fields(&fields, &faults, &mut settings, form);
            faults.check()?;
            break;
        }
        Ok(settings)
    }

    fn transformer_fields(&mut self, fields: &Fields<'_>, faults: &Faults, settings: &mut Transformer, form: Form) {
        let [task, output, row] = form.names();
        settings.max_tokens = fields.size("max_seq_length");
        settings.lowercase = fields.flag("do_lower_case") == Some(true);
        fields.only_text("transformer_task", task);
        fields.only_text("module_output_name", output);
        // A language model is given a pair as a message, in a prompt.
        let (medium, at) = match form {
            Form::Logits => ("message", "modality_config.message."),
            Form::Rows | Form::LateRows | Form::Scores => ("text", "modality_config.text."),
        };
        let text = fields.get("modality_config").and_then(|config| config.get(medium));
        if fields.get("modality_config").is_some() {
            let text = Fields::new(at, text, faults);
            let output = text.get("method_output_name");
            let listed = output.and_then(Value::as_array).is_some_and(|list| list.len() == 1 && list[0] == row);
            if output.and_then(Value::as_str) != Some(row) && !listed {
                let rows = matches!(form, Form::Rows | Form::LateRows);
                let what = if rows { "the rows of the last layer" } else { "the model's logits" };
                text.fault("method_output_name", format!("\"{row}\": {what}"));
            }
            if text.get("method").and_then(Value::as_str) != Some("forward") {
                text.fault("method", "\"forward\"");
            }
        }
        for (name, value) in fields.present() {
            match name.as_str() {
                "max_seq_length" | "do_lower_case" | "transformer_task" | "module_output_name" | "modality_config" => {}
                // How a batch is laid out: padding is never seen. How a message is written: its template is looked at.
                "unpad_inputs" => {}
                "message_format" if form == Form::Logits => {}
                "query_length" if form == Form::LateRows => settings.lengths.query = fields.size(name),
                "document_length" if form == Form::LateRows => settings.lengths.document = fields.size(name),
                "query_expansion" if form == Form::LateRows => {
                    let inner = Fields::new("query_expansion.", Some(value), faults);
                    settings.expansion = Expansion::read(&inner);
                }
                "model_args" | "model_kwargs" | "config_args" | "config_kwargs" | "tokenizer_args"
                | "processor_kwargs" | "processing_kwargs" => self.nested(name, value, faults, settings),
                _ => fields.fault(name, "nothing, as it is not computed"),
            }
        }
    }

    /// Arguments of the classes that read model and tokenizer.
    fn nested(&mut self, block: &str, value: &Value, faults: &Faults, settings: &mut Transformer) {
        const UNSEEN: [&str; 14] = [
            "torch_dtype",
            "dtype",
            "attn_implementation",
            "device_map",
            "low_cpu_mem_usage",
            "trust_remote_code",
            "use_fast",
            "use_safetensors",
            "add_pooling_layer",
            "padding_side",
            "use_cache",
            "use_memory_efficient_attention",
            "unpad_inputs",
            "cache_dir",
        ];
        let at = format!("{block}.");
        let fields = Fields::new(&at, Some(value), faults);
        for (name, value) in fields.present() {
            match name.as_str() {
                "model_max_length" => settings.max_tokens = fields.size(name),
                name if UNSEEN.contains(&name) => {
                    let how = "is not used: it is how a program computes";
                    self.notes.push(format!("{at}{name} {} {how}", shown(Some(value))));
                }
                _ if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                _ => fields.fault(name, "nothing, as it is not computed"),
            }
        }
    }
}

/// The activation that a Dense module names: a class of torch, made without arguments. Where none is named it is tanh, and so
/// it is for the library where a class is not torch's and the folder is not trusted: that is refused here.
fn activation(fields: &Fields<'_>, file: &Value) -> DenseActivation {
    let Some(value) = file.get("activation_function") else { return DenseActivation::Tanh };
    let name = value.as_str().and_then(|name| name.strip_prefix("torch.nn.")).unwrap_or_default();
    let class = name.rsplit('.').next().unwrap_or_default();
    match DenseActivation::CLASSES.iter().find(|(known, _)| *known == class) {
        Some((_, activation)) => *activation,
        None => {
            let known: Vec<&str> = DenseActivation::CLASSES.iter().map(|(name, _)| *name).collect();
            fields.fault_at("activation_function", value, format!("a class of torch.nn: {}", known.join(", ")));
            DenseActivation::Identity
        }
    }
}

/// The poolings that today's field names: one word, or a list of them.
fn modes(fields: &Fields<'_>, value: &Value) -> Vec<Pooling> {
    let names = match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let pooling = |name: &Value| {
        let found = POOLINGS.iter().find(|(known, _)| name.as_str() == Some(*known));
        found.map(|(_, pooling)| *pooling)
    };
    let found: Option<Vec<Pooling>> = names.into_iter().map(pooling).collect();
    match found {
        Some(poolings) if !poolings.is_empty() => poolings,
        _ => {
            let known: Vec<&str> = POOLINGS.iter().map(|(name, _)| *name).collect();
            fields.fault("pooling_mode", format!("one or several of {}", known.join(", ")));
            Vec::new()
        }
    }
}

/// Prompts by role, and what the report says of them.
pub(crate) struct ByRole {
    pub prompts: Prompts,
    pub notes: Vec<String>,
}

/// The prompts of a file by role, over those that hold without it.
///
/// sentence-transformers' `encode_query` takes `query`; `encode_document` the first there is of `document`, `passage` and
/// `corpus`; `encode` the one that `default_prompt_name` names, and so do they where a checkpoint has none of theirs.
pub(crate) fn by_role(file: &Fields<'_>, otherwise: Prompts) -> ByRole {
    let mut prompts = otherwise;
    let mut notes = Vec::new();
    let value = file.get("prompts");
    if value.is_some_and(|value| !value.is_object()) {
        file.fault("prompts", "an object of prompts by name");
    }
    let all: Vec<(&str, &str)> = value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, prompt)| match prompt {
            Value::String(prompt) => Some((name.as_str(), prompt.as_str())),
            Value::Null => Some((name.as_str(), "")),
            other => {
                file.fault_at(&format!("prompts.{name}"), other, "a string");
                None
            }
        })
        .collect();
    let of = |names: &[&str]| names.iter().find_map(|name| all.iter().find(|(known, _)| known == name)).copied();
    let default = match file.text("default_prompt_name") {
        None => None,
        Some(name) => match of(&[name]) {
            Some(found) => Some(found),
            // These two are always there, empty where nothing is said.
            None if matches!(name, "query" | "document") => Some((name, "")),
            None => {
                let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
                let names = if names.is_empty() { "none at all".into() } else { names.join(", ") };
                file.fault("default_prompt_name", format!("the name of a prompt; there are {names}"));
                None
            }
        },
    };
    let (query, document) = (of(&["query"]).or(default), of(&["document", "passage", "corpus"]).or(default));
    let mut used = Vec::new();
    for (role, found, place) in [
        ("query", query, &mut prompts.query),
        ("document", document, &mut prompts.document),
        ("none", default, &mut prompts.none),
    ] {
        let Some((name, prompt)) = found else { continue };
        used.push(name);
        *place = prompt.into();
        if !prompt.is_empty() {
            let by = if default == Some((name, prompt)) { " (default_prompt_name)" } else { "" };
            notes.push(format!("prompt `{name}`{by} stands in front with --role {role}: {prompt:?}"));
        }
    }
    let unused: Vec<&str> =
        all.iter().filter(|(name, prompt)| !prompt.is_empty() && !used.contains(name)).map(|(name, _)| *name).collect();
    if !unused.is_empty() {
        notes.push(format!("prompts that no role takes: {}", unused.join(", ")));
    }
    ByRole { prompts, notes }
}

/// Lets a tokenizer put texts into small letters before anything else, as `do_lower_case` asks for it.
///
/// # Source
/// sentence-transformers 6.2.0, `Transformer.__init__`.
/// # Errors
/// As the tokenizer's file gives them.
pub(crate) fn lowercase(tokenizer: &mut TokenizerFiles) -> Result<(), ConvertError> {
    let mut file: Value = tokenizer_settings::applied(tokenizer)?;
    let before = file.get("normalizer").cloned().unwrap_or(Value::Null);
    let mut steps = match before {
        Value::Null => Vec::new(),
        one if one.get("type").and_then(Value::as_str) == Some("Sequence") => {
            one.get("normalizers").and_then(Value::as_array).cloned().unwrap_or_default()
        }
        one => vec![one],
    };
    if steps.iter().any(|step| step.get("type").and_then(Value::as_str) == Some("Lowercase")) {
        return Ok(());
    }
    steps.insert(0, json!({"type": "Lowercase"}));
    if let Some(file) = file.as_object_mut() {
        file.insert("normalizer".into(), json!({"type": "Sequence", "normalizers": steps}));
    }
    tokenizer.content = Some(serde_json::to_vec(&file).map_err(ConvertError::json(&tokenizer.path))?);
    tokenizer.notes.push("do_lower_case: texts are put into small letters before the tokenizer".into());
    Ok(())
}

/// The last folder and the name of a file.
fn short(path: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{}/{}", path.parent().map(name).unwrap_or_default(), name(path))
}
