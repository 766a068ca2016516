//! Whether a folder gives vectors or scores pairs of texts, and what its files say of the scores.
//!
//! The files say it: the list of modules, `model_type` of `config_sentence_transformers.json`, the class of `config.json`.
//! Where they leave it open, `--task embed` and `--task rerank` do; nothing is guessed without a word in the report.

use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::RerankSettings;
use serde_json::Value;

use crate::chat;
use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::files::{CONFIG_FILE, read_json, read_json_if_there};
use crate::sentence_transformers::{Modules, PROMPTS_FILE};
use crate::source::checkpoint_name;
use crate::tasks::{EMBED_TASK, RERANK_TASK, TaskChoice};
use crate::tokenizer_classes::ids_around;
use crate::tokenizer_settings::{self, SETTINGS_FILE};

/// `model_type` of a folder of sentence-transformers that scores pairs.
const CROSS_ENCODER: &str = "CrossEncoder";
const CLASSIFIER: &str = "ForSequenceClassification";
/// Classes of language models, of texts alone and with media.
const LANGUAGE_MODELS: [&str; 2] = ["ForCausalLM", "ForConditionalGeneration"];
/// The class of models that read a list of documents at once.
const LIST_MODEL: &str = "JinaForRanking";
/// The tokens behind a query and behind a document there.
const LIST_TOKENS: [&str; 2] = ["<|rerank_token|>", "<|embed_token|>"];
/// The answers that a language model is asked for.
const ANSWERS: [&str; 2] = ["yes", "no"];
/// Words of the prompt that a chat template must have for it to be the prompt that is written here: of models that read texts,
/// and of those that read media too.
const PROMPT_WORDS: [&[&str]; 2] = [
    &["Judge whether the Document meets the requirements", "<Instruct>: ", "<Query>: ", "<Document>: ", "<think>"],
    &["Judge whether the Document meets the requirements", "<Instruct>: ", "<Query>:", "<Document>:"],
];

/// A folder of a model that reads texts.
pub(crate) struct TextFolder<'a> {
    /// The folder asked for.
    pub checkpoint: &'a Path,
    /// Where configuration, weights and tokenizer lie: the same, or one inside.
    pub folder: &'a Path,
    /// Its modules, where it is a folder of sentence-transformers.
    pub modules: Option<&'a Modules>,
    /// `config.json`.
    pub config: &'a Value,
    /// Whether the family scores no pairs.
    pub vectors_only: bool,
}

/// What a folder that scores pairs says of it.
pub(crate) struct Rerank {
    pub settings: RerankSettings,
    /// The side files that were read for it.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
}

/// How a folder scores pairs; `None` where it gives vectors.
///
/// # Errors
/// [`ConvertError::TwoReadings`] where nothing tells; [`ConvertError::Fields`] for a reranker that is not computed, by the
/// fields that say so.
pub(crate) fn find(from: &TextFolder<'_>, asked: &TaskChoice) -> Result<Option<Rerank>, ConvertError> {
    let root = from.config;
    let config = Faults::of(&from.folder.join(CONFIG_FILE));
    let fields = Fields::new("", Some(root), &config);
    let class = root.get("architectures").and_then(|list| list.get(0)?.as_str()).unwrap_or_default();
    let classifier = class.ends_with(CLASSIFIER);
    let kind = LANGUAGE_MODELS.iter().position(|end| class.ends_with(end));
    let language_model = kind.is_some();
    let labels = labels(root);
    let st: Option<Value> = read_json_if_there(&from.checkpoint.join(PROMPTS_FILE))?;
    let cross_encoder = st.as_ref().and_then(|st| st.get("model_type")?.as_str()) == Some(CROSS_ENCODER);
    let says = match from.modules {
        Some(modules) => Some(modules.scores()),
        None if cross_encoder || class == LIST_MODEL || (classifier && labels == 1) => Some(true),
        None if language_model && !from.vectors_only => None,
        None => Some(false),
    };
    let asked = match asked {
        TaskChoice::Named(task) if task == RERANK_TASK => Some(true),
        TaskChoice::Named(task) if task == EMBED_TASK => Some(false),
        _ => None,
    };
    let mut notes = Vec::new();
    let rerank = match asked.or(says) {
        Some(rerank) => rerank,
        None => told_by_tokenizer_and_name(from, &mut notes)?,
    };
    if !rerank {
        return Ok(None);
    }
    let mut read = Vec::new();
    let tokenizer = tokenizer_settings::read(from.folder, root, rows(root))?;
    let mut settings =
        RerankSettings { token_types: tokenizer.token_types, answers: None, instruction: None, list: None };
    if language_model {
        let (yes, no) = answers(from, &mut read)?;
        settings.answers = Some([yes, no]);
        notes.push(format!(
            "a reranker: the score of a pair is how much likelier `{}` (id {yes}) is than `{}` (id {no}) behind the prompt of \
             the model card",
            ANSWERS[0], ANSWERS[1]
        ));
        settings.instruction = st.as_ref().filter(|_| cross_encoder).and_then(default_prompt);
        if let (Some(_), Some(kind)) = (from.modules, kind) {
            check_template(from.folder, PROMPT_WORDS[kind], &mut read)?;
        }
    } else if classifier {
        if labels != 1 {
            let name = if root.get("id2label").is_some() { "id2label" } else { "num_labels" };
            config.add(name, labels.to_string(), "1 label: a reranker gives one score; --task embed makes vectors");
        }
        notes.push(format!("a reranker: {class} with one label"));
    } else if class == LIST_MODEL {
        let file: Value = tokenizer_settings::applied(&tokenizer)?;
        let faults = Faults::of(&tokenizer.path);
        settings.list = Some(LIST_TOKENS.map(|token| {
            let id = token_id(&file, token);
            if id.is_none() {
                faults.add("added_tokens", "no such token", format!("the token {token}, whose row makes a vector"));
            }
            (token.into(), id.unwrap_or_default())
        }));
        faults.check()?;
        notes.push(format!(
            "a reranker: {class} reads a query with a list of documents, and a score depends on the documents beside it; `logit` is the \
             cosine of both vectors, from -1 to 1, and `score` half of it and a half"
        ));
    } else {
        fields.fault(
            "architectures",
            format!("a class that ends in {CLASSIFIER} with one label, or in {}", LANGUAGE_MODELS.join(" or ")),
        );
    }
    config.check()?;
    activation(&fields, st.as_ref().filter(|_| cross_encoder), &from.checkpoint.join(PROMPTS_FILE), &mut notes)?;
    config.check()?;
    Ok(Some(Rerank { settings, read, notes }))
}

/// Rows of the token table.
pub(crate) fn rows(root: &Value) -> usize {
    let own = root.get("vocab_size").or_else(|| root.get("text_config")?.get("vocab_size"));
    own.and_then(Value::as_u64).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0)
}

/// Labels of a classifier, as transformers counts them: two where nothing says how many.
fn labels(root: &Value) -> usize {
    let listed = root.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
    let said = root.get("num_labels").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    listed.or(said).unwrap_or(2)
}

/// Whether a language model without a list of modules is a reranker. Embedders of this kind put a token behind every text,
/// whose row is their vector; a reranker puts none, knows both answers, and says in its name what it is.
fn told_by_tokenizer_and_name(from: &TextFolder<'_>, notes: &mut Vec<String>) -> Result<bool, ConvertError> {
    let root = from.config;
    let tokenizer = tokenizer_settings::read(from.folder, root, rows(root))?;
    let file: Value = tokenizer_settings::applied(&tokenizer)?;
    let ends =
        ids_around(file.get("post_processor").unwrap_or(&Value::Null)).is_some_and(|(_, behind)| !behind.is_empty());
    let answers = ANSWERS.iter().all(|answer| token_id(&file, answer).is_some());
    let name = checkpoint_name(from.checkpoint);
    let own = root.get("_name_or_path").and_then(Value::as_str).unwrap_or_default();
    let named = [name.as_str(), own].iter().any(|name| name.to_ascii_lowercase().contains(RERANK_TASK));
    match (ends, answers, named) {
        (true, _, false) | (false, false, _) => Ok(false),
        (false, true, true) => {
            notes.push(format!(
                "taken for a reranker, as `{name}` is called one, its tokenizer puts nothing behind a text, and it has no \
                 modules.json; --task {EMBED_TASK} makes vectors"
            ));
            Ok(true)
        }
        (true, _, true) | (false, true, false) => {
            let found = match ends {
                true => "is called a reranker, and its tokenizer puts a token behind every text, as embedders have it",
                false => "a language model without modules.json, whose tokenizer puts nothing behind a text",
            };
            Err(ConvertError::TwoReadings { path: from.checkpoint.to_path_buf(), found: found.into() })
        }
    }
}

/// The id of a token by its whole text.
pub(crate) fn token_id(tokenizer: &Value, token: &str) -> Option<u32> {
    let added = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let added = added.filter(|added| added["content"] == token).find_map(|added| added["id"].as_u64());
    let vocab = tokenizer.get("model").and_then(|model| model.get("vocab"));
    let of_vocab = || match vocab? {
        // Pieces with their scores, in the order of their ids.
        Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == token).map(|at| at as u64),
        vocab => vocab.get(token)?.as_u64(),
    };
    let id = added.or_else(of_vocab)?;
    u32::try_from(id).ok()
}

/// Ids of both answers: those of the module that takes them, else those of the tokenizer's tokens.
fn answers(from: &TextFolder<'_>, read: &mut Vec<PathBuf>) -> Result<(u32, u32), ConvertError> {
    let root = from.config;
    let tokenizer = tokenizer_settings::read(from.folder, root, rows(root))?;
    let file: Value = tokenizer_settings::applied(&tokenizer)?;
    let own = ANSWERS.map(|answer| token_id(&file, answer));
    let Some(module) = from.modules.and_then(|modules| modules.logit_score()) else {
        let faults = Faults::of(&tokenizer.path);
        for (answer, id) in ANSWERS.iter().zip(own) {
            if id.is_none() {
                faults.add("model.vocab", "nothing of the kind", format!("the token `{answer}`, which is one answer"));
            }
        }
        faults.check()?;
        return Ok((own[0].unwrap_or_default(), own[1].unwrap_or_default()));
    };
    let path = module.join(CONFIG_FILE);
    let value: Value = read_json(&path)?;
    read.push(path.clone());
    let faults = Faults::of(&path);
    let fields = Fields::new("", Some(&value), &faults);
    for (name, _) in fields.present() {
        match name.as_str() {
            "true_token_id" | "false_token_id" => {}
            "module_input_name" => fields.only_text(name, "causal_logits"),
            _ => fields.fault(name, "no field of this name, as nothing is computed from it"),
        }
    }
    let id = |name: &str| {
        if fields.get(name).is_none() {
            fields.fault(name, "the id of an answer");
        }
        fields.id(name).unwrap_or_default()
    };
    let found = (id("true_token_id"), id("false_token_id"));
    faults.check()?;
    Ok(found)
}

/// The prompt that a file names as its default: the instruction of a language model.
fn default_prompt(st: &Value) -> Option<String> {
    let name = st.get("default_prompt_name")?.as_str()?;
    let prompt = st.get("prompts")?.get(name)?.as_str()?;
    (!prompt.is_empty()).then(|| prompt.to_string())
}

/// Refuses a chat template of a folder of modules that is not the prompt which is written here.
fn check_template(folder: &Path, words: &[&str], read: &mut Vec<PathBuf>) -> Result<(), ConvertError> {
    let (path, text) = chat::template(folder)?;
    if !path.ends_with(SETTINGS_FILE) {
        read.push(path.clone());
    }
    let text = text.unwrap_or_default();
    let missing: Vec<&str> = words.iter().copied().filter(|word| !text.contains(word)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let faults = Faults::of(&path);
    let expected = format!("the prompt of Qwen3-Reranker, with {}", missing.join(" and "));
    faults.add("chat_template", shown(Some(&Value::String(text))), expected);
    Ok(faults.check()?)
}

/// Refuses an activation behind the logit that is not computed, and says what another than the sigmoid means.
///
/// # Source
/// sentence-transformers 6.2.0, `CrossEncoder.get_default_activation_fn`.
fn activation(
    config: &Fields<'_>,
    st: Option<&Value>,
    st_path: &Path,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let st_faults = Faults::of(st_path);
    let st = Fields::new("", st, &st_faults);
    let nested = Fields::new("sentence_transformers.", config.get("sentence_transformers"), config.faults());
    let places = [(&st, "activation_fn"), (&nested, "activation_fn"), (config, "sbert_ce_default_activation_function")];
    let Some((fields, name)) = places.into_iter().find(|(fields, name)| fields.get(name).is_some()) else {
        return Ok(());
    };
    match fields.text(name) {
        Some("torch.nn.modules.activation.Sigmoid" | "torch.nn.Sigmoid") => {}
        Some("torch.nn.modules.linear.Identity" | "torch.nn.Identity") => notes.push(format!(
            "{}: sentence-transformers gives the logit as it is; here that is `logit`, and `score` is its sigmoid, from 0 to 1",
            fields.path(name)
        )),
        _ => fields.fault(name, "torch.nn.modules.activation.Sigmoid or torch.nn.modules.linear.Identity"),
    }
    Ok(st_faults.check()?)
}
