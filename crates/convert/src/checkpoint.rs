//! A checkpoint's folder: opened, and read by the rules of its family.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::{Card, CheckpointFolder, FolderDetails, TextFiles, TextSettings};
use omniburn_models::family::CheckpointRules;
use omniburn_models::record::{Prompts, TOKENIZER_FILE};
use serde_json::Value;

use crate::card::rules_of;
use crate::chat;
use crate::colbert;
use crate::error::{ConvertError, ShapeFault, TensorFaults};
use crate::fields::{Faults, Fields};
use crate::files::{ADAPTER_CONFIG, CONFIG_FILE, MODULES_FILE, read_json, read_json_if_there};
use crate::gguf::reader::is_gguf;
use crate::gguf::{self, Gguf};
use crate::quantized::Scheme;
use crate::rerank::{self, Rerank, TextFolder};
use crate::row_heads;
use crate::sentence_transformers::{MEAN, Modules, Settings, class_alone, transformer_folder, two_towers_folder};
use crate::side_files::added_token_id;
use crate::source::{Source, not_a_folder};
use crate::tasks::{RERANK_TASK, TaskChoice};
use crate::tokenizer_settings::{self, SETTINGS_FILE, named_token};

/// A checkpoint's folder with its configuration and the headers of its weights.
pub(crate) struct Checkpoint<'a> {
    /// The folder asked for.
    pub root: &'a Path,
    /// Where configuration, weights and tokenizer lie: the same, or one inside.
    pub folder: PathBuf,
    /// `config.json`.
    pub config: Value,
    pub rules: &'static CheckpointRules,
    pub card: Option<Card>,
    pub source: Source,
    /// What a GGUF file holds beside its weights, where that is the checkpoint.
    pub gguf: Option<Gguf>,
    modules: Option<Modules>,
}

/// What a checkpoint's files say of its model.
pub(crate) struct Reading {
    pub family: FamilyConfig,
    /// The task, where there is one alone.
    pub task: &'static str,
    pub details: FolderDetails,
    /// Of the files of sentence-transformers, where the family has its prompts from them.
    pub prompts: Option<Prompts>,
    /// Numbers of a vector unless another number is asked for, where that is not all of them.
    pub default_dim: Option<usize>,
    /// Whether texts are put into small letters before the tokenizer sees them.
    pub lowercase: bool,
    /// The side files that were there and were read.
    pub read: Vec<PathBuf>,
    /// What the report says of them.
    pub notes: Vec<String>,
}

/// Whether some family takes a checkpoint, as its configuration alone tells.
///
/// # Errors
/// As [`Checkpoint::open`] gives them before it opens the weights.
pub(crate) fn check_family(root: &Path) -> Result<(), ConvertError> {
    let (path, config) = configuration(root, &transformer_folder(root)?)?;
    rules_of(&path, &config).map(|_| ())
}

/// The configuration of a checkpoint, or what its first module says where it has none, and the file it would stand in.
fn configuration(root: &Path, folder: &Path) -> Result<(PathBuf, Value), ConvertError> {
    let path = folder.join(CONFIG_FILE);
    match read_json_if_there(&path)? {
        Some(config) => Ok((path, config)),
        None => match class_alone(root)? {
            Some(config) => Ok((path, config)),
            None => Err(ConvertError::MissingFiles { paths: vec![path] }),
        },
    }
}

impl<'a> Checkpoint<'a> {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`ConvertError`] where it is no folder, where no family takes it, and of its weights' headers.
    pub fn open(root: &'a Path) -> Result<Self, ConvertError> {
        if root.is_file() && is_gguf(root) {
            let (rules, config, source, gguf) = gguf::open(root)?;
            return Ok(Self {
                root,
                folder: root.to_path_buf(),
                config,
                rules,
                card: None,
                source,
                gguf: Some(gguf),
                modules: None,
            });
        }
        if root.is_file() {
            return Err(not_a_folder(root));
        }
        if !root.is_dir() {
            return Err(ConvertError::SourceMissing { path: root.to_path_buf() });
        }
        let folder = transformer_folder(root)?;
        if !folder.join(CONFIG_FILE).is_file() {
            refuse_adapter(&folder, "an adapter without the weights that it changes")?;
        }
        let (config_path, mut config) = configuration(root, &folder)?;
        let (rules, card) = rules_of(&config_path, &config)?;
        let scheme = Scheme::take(&config_path, &mut config)?;
        let steps = &rules.steps;
        if steps.tasks.is_some() && folder != root {
            let faults = Faults::of(&root.join(MODULES_FILE));
            faults.add("[0].path", folder.display().to_string(), "the checkpoint's own folder, for this family");
            faults.check()?;
        }
        let modules = match steps.texts {
            TextFiles::Prompts => None,
            TextFiles::Tokenizer { .. } if two_towers_folder(root)?.is_some() => None,
            _ => Modules::read(root)?,
        };
        let dense = modules.iter().flat_map(Modules::dense).enumerate();
        let mut source =
            Source::open(&folder, &rules.keys)?.with_modules(dense.map(|(i, path)| (format!("dense.{i}"), path)))?;
        if let Some(scheme) = scheme {
            scheme.apply(&mut source)?;
        }
        if let Some(table) = steps.table {
            check_table(&source, table)?;
        }
        Ok(Self { root, folder, config, rules, card, source, gguf: None, modules })
    }

    /// The same with the table of token rows in place of what it is made of, where the family is such a table.
    pub fn with_table(self) -> Self {
        match self.rules.steps.static_table {
            Some(names) => Self { source: self.source.with_table(names), ..self },
            None => self,
        }
    }

    /// Path of `config.json`, or of the file that says it all.
    pub fn config_path(&self) -> PathBuf {
        if self.gguf.is_some() { self.root.to_path_buf() } else { self.folder.join(CONFIG_FILE) }
    }

    /// Reads the configuration, and what other files say of texts; `asked` tells vectors from scores where files leave it open.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Config`], [`ConvertError::Json`],
    /// [`ConvertError::Io`], [`ConvertError::TwoReadings`], [`ConvertError::NoReranker`].
    pub fn read(&self, asked: &TaskChoice) -> Result<Reading, ConvertError> {
        let steps = &self.rules.steps;
        let path = self.config_path();
        let tokenizer = self.folder.join(TOKENIZER_FILE);
        let tokens = steps.tokens.iter().map(|token| added_token_id(&tokenizer, token));
        let token_ids: Vec<u32> = tokens.collect::<Result<_, _>>()?;
        let faults = Faults::of(&path);
        let details = RefCell::default();
        let configured = |text: &TextSettings| -> Result<FamilyConfig, ConvertError> {
            details.replace(FolderDetails::default());
            let config = (self.rules.read)(&CheckpointFolder {
                config: Fields::new("", Some(&self.config), &faults),
                faults: &faults,
                tensors: self.source.names().count(),
                index: &self.source,
                text,
                token_ids: &token_ids,
                card: self.card.as_ref(),
                details: &details,
            });
            faults.check()?;
            let family = FamilyConfig::from_box(config);
            family.check().map_err(|source| ConvertError::Config { path: path.clone(), source })?;
            Ok(family)
        };
        // The configuration first: a field of it that is wrong is the nearest reason.
        let unsaid = TextSettings {
            vector_head: MEAN,
            max_tokens: None,
            unknown: None,
            padding: None,
            rerank: None,
            row_heads: None,
            chat: None,
        };
        if let Some(gguf) = &self.gguf {
            let family = configured(&TextSettings { vector_head: gguf.head.clone(), ..unsaid })?;
            return Ok(Reading {
                family,
                task: steps.one.name,
                details: details.take(),
                prompts: Some(Prompts::default()),
                default_dim: None,
                lowercase: false,
                read: Vec::new(),
                notes: gguf.notes.clone(),
            });
        }
        let mut family = configured(&unsaid)?;
        if steps.tasks.is_none() {
            refuse_adapter(&self.folder, "an adapter beside the weights")?;
        }
        let mut settings = None;
        let mut task = steps.one.name;
        if steps.texts == TextFiles::SentenceTransformers {
            let modules = self.modules.as_ref();
            let texts = TextFolder {
                checkpoint: self.root,
                folder: &self.folder,
                modules,
                config: &self.config,
                vectors_only: steps.vectors_only,
            };
            let rerank = rerank::find(&texts, asked)?;
            let mut found = match &rerank {
                None if colbert::is_colbert(&self.folder, &self.config, modules) => {
                    colbert::settings(&self.folder, family.spec().hidden, family.max_tokens())?
                }
                None => Settings::read(self.root, &self.folder, modules, family.spec().hidden, steps.pooling)?,
                Some(Rerank { settings, read, notes }) => {
                    let asked = settings.answers.is_some();
                    Settings::of_pairs(self.root, &self.folder, modules, asked, read.clone(), notes.clone())?
                }
            };
            let (max_tokens, unknown) = match (found.max_tokens, steps.static_table) {
                (_, Some(_)) => tokenizer_settings::limit_and_unknown(&self.folder)?,
                (Some(said), None) => (Some(said), None),
                (None, None) => (tokenizer_limit(&self.folder, &mut found.read)?, None),
            };
            let rerank = rerank.map(|rerank| rerank.settings);
            let row_heads = match &found.late {
                Some(late) => {
                    let (prompts, read, notes) = (&mut found.prompts, &mut found.read, &mut found.notes);
                    Some(row_heads::of_modules(&texts, late, prompts, read, notes)?)
                }
                None => row_heads::find(&texts, &mut found.notes)?,
            };
            let chat = match steps.chat {
                true => {
                    let rows = family.vocab();
                    Some(chat::find(&self.folder, &self.config, rows, &found.prompts, &mut found.read)?)
                }
                false => None,
            };
            let vector_head = found.head.clone();
            let text = TextSettings { vector_head, max_tokens, unknown, rerank, row_heads, chat, padding: None };
            family = configured(&text)?;
            let gives_rows = family.spec().outputs.rows().is_some_and(|rows| rows.late.is_some());
            if found.late.is_some() && !gives_rows {
                let faults = Faults::of(&self.root.join(MODULES_FILE));
                let expected = format!("a pooling: the family {} gives a vector for a text", family.name());
                faults.add("type", "Dense over the rows of the transformer", expected);
                faults.check()?;
            }
            let pairs = text.rerank.is_some();
            if !pairs && found.head != MEAN && family.config().vector_head() != Some(&found.head) {
                let faults = Faults::of(&self.root.join(MODULES_FILE));
                let expected = format!("the mean of all rows, as the family is {}", family.name());
                faults.add("type", format!("{:?}", found.head), expected);
                faults.check()?;
            }
            if pairs {
                if family.spec().outputs.pairs().is_none() {
                    return Err(ConvertError::NoReranker { family: family.name() });
                }
                task = RERANK_TASK;
            }
            settings = Some(found);
        }
        let mut read = Vec::new();
        if let TextFiles::Tokenizer { padded } = steps.texts {
            self.refuse_modules()?;
            // Without modules nothing in these files may change a vector but the length of a text.
            let found = Settings::read(self.root, &self.folder, None, family.spec().hidden, steps.pooling)?;
            read = found.read;
            let max_tokens = match found.max_tokens {
                Some(said) => Some(said),
                None => tokenizer_limit(&self.folder, &mut read)?,
            };
            let padding = if padded { padding_id(&self.folder, &mut read)? } else { None };
            family = configured(&TextSettings { max_tokens, padding, ..unsaid })?;
        }
        let details = details.take();
        Ok(match settings {
            Some(found) => Reading {
                default_dim: found.truncate_dim.filter(|&dim| dim < family.vector()),
                prompts: Some(found.prompts),
                lowercase: found.lowercase,
                read: found.read,
                notes: found.notes,
                details,
                family,
                task,
            },
            None => Reading {
                default_dim: None,
                prompts: None,
                lowercase: false,
                read,
                notes: Vec::new(),
                details,
                family,
                task,
            },
        })
    }

    /// Refuses a list of modules around a model that makes its vectors itself.
    fn refuse_modules(&self) -> Result<(), ConvertError> {
        if self.modules.is_none() {
            return Ok(());
        }
        let faults = Faults::of(&self.root.join(MODULES_FILE));
        faults.add(MODULES_FILE, "a pooling of rows", "nothing: this model makes its vectors without one");
        Ok(faults.check()?)
    }
}

/// Without a token table of two axes nothing else can be judged.
fn check_table(source: &Source, table: &str) -> Result<(), ConvertError> {
    let mut faults = TensorFaults::default();
    match source.shape(table) {
        Some([_, _]) => return Ok(()),
        None => faults.missing.push(table.into()),
        Some(found) => faults.mis_shaped.push(ShapeFault {
            tensor: source.own_name(table).into(),
            expected: vec![vec![0, 0]],
            found: found.to_vec(),
        }),
    }
    Err(ConvertError::Tensors { path: source.folder().to_path_buf(), faults })
}

/// Refuses a folder with an adapter that transformers would load over the weights, or over others that it names.
fn refuse_adapter(folder: &Path, found: &str) -> Result<(), ConvertError> {
    let adapter = folder.join(ADAPTER_CONFIG);
    if adapter.is_file() {
        let faults = Faults::of(&adapter);
        let base = read_json::<Value>(&adapter)?;
        let base = base.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or("the weights it was made for");
        let expected =
            format!("nothing: convert a folder with {base} alone, and give this one as its adapter (--adapter)");
        faults.add(ADAPTER_CONFIG, found, expected);
        faults.check()?;
    }
    Ok(())
}

/// Id of the token that the tokenizer pads with, where its files name one.
///
/// # Errors
/// As [`added_token_id`], for a token that the tokenizer does not have.
fn padding_id(folder: &Path, read: &mut Vec<PathBuf>) -> Result<Option<u32>, ConvertError> {
    let token = named_token(folder, "pad_token", read)?;
    token.map(|token| added_token_id(&folder.join(TOKENIZER_FILE), &token)).transpose()
}

/// What the tokenizer's own configuration allows, where sentence-transformers says nothing.
fn tokenizer_limit(folder: &Path, read: &mut Vec<PathBuf>) -> Result<Option<usize>, ConvertError> {
    let path = folder.join(SETTINGS_FILE);
    let Some(value) = read_json_if_there::<Value>(&path)? else { return Ok(None) };
    read.push(path);
    // Where nothing is known, tokenizers say a number beyond any length.
    let said = value.get("model_max_length").and_then(Value::as_f64);
    Ok(said.filter(|&n| (1.0..1e9).contains(&n)).map(|n| n as usize))
}
