//! The tokenizer as transformers makes it of all its files: `tokenizer_config.json` (with `special_tokens_map.json` and
//! `added_tokens.json`) is laid over `tokenizer.json`, and the record gets one `tokenizer.json` with everything applied.
//!
//! Which settings count depends on the class. A class of its own takes from `tokenizer.json` the vocabulary, the merges and
//! mostly the post-processor, and builds normaliser and pre-tokenizer anew; the plain class takes all of the file and adds
//! tokens. What is computed here is transformers 5.24; where 4.57 gives other ids, a note says so.
//!
//! # Source
//! transformers 5.24, `tokenization_utils_base.py` (`_from_pretrained`), `tokenization_utils_tokenizers.py`
//! (`convert_to_native_format`, `__init__`), `tokenization_auto.py` and each class's own file; tokenizers 0.23.2,
//! `added_vocabulary.rs` (`add_tokens`).

use std::fs;
use std::path::{Path, PathBuf};

use omniburn_models::record::TOKENIZER_FILE;
use serde_json::{Map, Value, json};

use crate::error::ConvertError;
use crate::fields::{Faults, shown};
use crate::files::{CONFIG_FILE, read_json, read_json_if_there};
use crate::tokenizer_classes::{self as classes, Class};
use crate::tokenizer_tokens::{Added, Named, Settings, Vocabulary};

/// File name of the settings.
pub(crate) const SETTINGS_FILE: &str = "tokenizer_config.json";
/// File name of the special tokens by name, as older folders have it.
pub(crate) const SPECIAL_FILE: &str = "special_tokens_map.json";
const ADDED_FILE: &str = "added_tokens.json";
pub(crate) const VOCAB_FILE: &str = "vocab.txt";
/// The files beside `tokenizer.json` that a tokenizer is made of.
#[cfg(feature = "hub")]
pub(crate) const TOKENIZER_FILES: [&str; 4] = [SETTINGS_FILE, SPECIAL_FILE, ADDED_FILE, VOCAB_FILE];

/// The tokens that have a name of their own, in the library's order.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokenizer of a checkpoint with its settings applied.
#[derive(Debug, Clone)]
pub(crate) struct TokenizerFiles {
    /// `tokenizer.json` of the folder, which may be absent where the tokenizer was built from a vocabulary.
    pub path: PathBuf,
    /// The file with the settings applied; nothing where they change nothing.
    pub content: Option<Vec<u8>>,
    /// The other files that were there and were read.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
    /// Whether the token types that it gives reach a model.
    pub token_types: bool,
}

impl TokenizerFiles {
    /// A tokenizer that was made of something else, such as the metadata of the file at `path`.
    pub fn built(path: &Path, content: Vec<u8>) -> Self {
        let path = path.to_path_buf();
        Self { path, content: Some(content), read: Vec::new(), notes: Vec::new(), token_types: false }
    }
}

/// What the settings of a folder's tokenizer call a token by, such as `pad_token`, or say of it in one word.
///
/// # Errors
/// [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn named_token(folder: &Path, name: &str, read: &mut Vec<PathBuf>) -> Result<Option<String>, ConvertError> {
    for file in [SETTINGS_FILE, SPECIAL_FILE] {
        let path = folder.join(file);
        let Some(value) = read_json_if_there::<Value>(&path)? else { continue };
        let said = value.get(name).and_then(|said| said.as_str().or_else(|| said.get("content")?.as_str()));
        if let Some(said) = said {
            if !read.contains(&path) {
                read.push(path);
            }
            return Ok(Some(said.into()));
        }
    }
    Ok(None)
}

/// Reads all files of a folder's tokenizer; `root` is its `config.json`, and `rows` those of the token table.
///
/// # Errors
/// [`ConvertError::Fields`] for settings that change ids in a way that is not computed, [`ConvertError::MissingFiles`]
/// without a tokenizer, [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn read(folder: &Path, root: &Value, rows: usize) -> Result<TokenizerFiles, ConvertError> {
    let path = folder.join(TOKENIZER_FILE);
    let settings_path = folder.join(SETTINGS_FILE);
    let file: Option<Value> = read_json_if_there(&path)?;
    let mut found =
        TokenizerFiles { path: path.clone(), content: None, read: Vec::new(), notes: Vec::new(), token_types: false };
    let config: Option<Value> = read_json_if_there(&settings_path)?;
    let faults = Faults::of(&settings_path);
    let fields = match config {
        None => Map::new(),
        Some(Value::Object(fields)) => {
            found.read.push(settings_path.clone());
            fields
        }
        Some(other) => {
            faults.add("the file", shown(Some(&other)), "an object");
            return Err(faults.refusal().into());
        }
    };
    let class = class_of(&fields, root, file.as_ref(), folder, &faults)?;
    found.token_types = match fields.get("model_input_names").and_then(Value::as_array) {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        // Of the classes that are computed here, one names them itself.
        None => class == Class::Bert,
    };
    let vocabulary_file = folder.join(VOCAB_FILE);
    let built = match &file {
        Some(_) => None,
        None if class == Class::Bert && vocabulary_file.is_file() => {
            found.read.push(vocabulary_file.clone());
            found.notes.push(format!("no {TOKENIZER_FILE}: the tokenizer is built from {VOCAB_FILE} as BertTokenizer"));
            Some(
                json!({"version": "1.0", "truncation": null, "padding": null, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
                "added_tokens": [], "model": {"type": "WordPiece", "vocab": words_of(&vocabulary_file)?}}),
            )
        }
        None => return Err(ConvertError::MissingFiles { paths: vec![path] }),
    };
    let whole = built.as_ref().or(file.as_ref()).expect("one of them is there");
    let Some(object) = whole.as_object() else {
        // What is no tokenizer is refused by whoever reads its ids.
        return Ok(found);
    };
    let listed: Vec<Added> = object
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|token| Added::read(token.as_object()?).ok())
        .collect();
    let settings = settings(folder, fields, &faults, file.as_ref(), &mut found)?;
    refuse_what_is_not_computed(&settings);
    let model = object.get("model");
    let mut vocabulary = Vocabulary::of(model.and_then(|model| model.get("vocab")));
    let mut before = Vocabulary::of(model.and_then(|model| model.get("vocab")));
    before.add(listed.clone());
    if class == Class::Plain {
        vocabulary.add(listed);
    }
    let mut parts = Map::new();
    let named = add_tokens(&settings, class, &mut vocabulary);
    classes::rebuild(class, &settings, &named, object, &mut vocabulary, &mut parts);
    classes::notes(class, &settings, object, built.is_some(), &mut found.notes);
    faults.check()?;

    let mut changed = object.clone();
    for (name, part) in parts {
        if let Some(said) = classes::difference(&name, object.get(&name).unwrap_or(&Value::Null), &part) {
            if built.is_none() {
                found.notes.push(format!(
                    "{SETTINGS_FILE} over {TOKENIZER_FILE}: {said}, as transformers' {} makes it",
                    class.name()
                ));
            }
            changed.insert(name, part);
        }
    }
    let (old, mut new) = (before.sorted(), vocabulary.sorted());
    let left = leave_out(class, &settings, rows, &old, &mut new);
    if !left.is_empty() {
        found.notes.push(format!(
            "{} of transformers' {} is no token here: no file names it and it has no row",
            left.join(" "),
            class.name()
        ));
    }
    if old != new {
        check_reload(&settings_path, model, &new)?;
        if built.is_none() {
            found.notes.push(added_note(&old, &new));
        }
        changed.insert("added_tokens".into(), new.iter().map(|(id, token)| token.json(*id)).collect());
    }
    if built.is_some() || changed != *object {
        found.content = Some(serde_json::to_vec(&changed).expect("a JSON value always serialises"));
    }
    Ok(found)
}

/// The tokenizer of a folder as its file alone says it, with nothing put around a text.
///
/// # Errors
/// [`ConvertError::MissingFiles`] without a tokenizer, [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn bare(folder: &Path) -> Result<TokenizerFiles, ConvertError> {
    let path = folder.join(TOKENIZER_FILE);
    let mut file: Map<String, Value> = read_json(&path)?;
    let around = file.insert("post_processor".into(), Value::Null).is_some_and(|there| !there.is_null());
    let notes = around.then(|| format!("{TOKENIZER_FILE}: no special tokens stand around a text"));
    let content = Some(serde_json::to_vec(&file).map_err(ConvertError::json(&path))?);
    Ok(TokenizerFiles { path, content, read: Vec::new(), notes: notes.into_iter().collect(), token_types: false })
}

/// Where a tokenizer's file cuts texts, and the id it gives to what it does not know.
///
/// # Source
/// model2vec 0.10.0, `_get_unk_token_id`.
/// # Errors
/// As [`bare`].
pub(crate) fn limit_and_unknown(folder: &Path) -> Result<(Option<usize>, Option<u32>), ConvertError> {
    let file: Map<String, Value> = read_json(&folder.join(TOKENIZER_FILE))?;
    let limit = file.get("truncation").and_then(|cut| cut.get("max_length")?.as_u64()).map(|limit| limit as usize);
    let model = file.get("model");
    let unknown = match model.and_then(|model| model.get("unk_token")?.as_str()) {
        Some(token) => {
            let added = file.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
            let mut added = added.filter(|listed| listed.get("content").and_then(Value::as_str) == Some(token));
            added.next().and_then(|listed| listed.get("id")).or(model.and_then(|model| model.get("vocab")?.get(token)))
        }
        None => model.and_then(|model| model.get("unk_id")),
    };
    Ok((limit, unknown.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())))
}

/// Takes out the tokens that a class has of itself, no file names and the table has no row for: the library gives them an id
/// with which its model fails, so texts that hold them have no vector to be equal to. Gives those it took out.
fn leave_out(
    class: Class,
    settings: &Settings<'_>,
    rows: usize,
    old: &[(u64, Added)],
    new: &mut Vec<(u64, Added)>,
) -> Vec<String> {
    let named = settings.named.iter().map(|(_, named)| named.text());
    let listed = settings.decoder.iter().chain(old).map(|(_, token)| token.content.as_str());
    let said: Vec<&str> = named.chain(settings.extra.iter().map(Named::text)).chain(listed).collect();
    let of_class = |content: &str| NAMES.iter().any(|name| class.default_token(name) == Some(content));
    let around = |content: &str| class.ends().iter().any(|name| class.default_token(name) == Some(content));
    let is_left = |(id, token): &(u64, Added)| {
        let content = token.content.as_str();
        *id >= rows as u64 && of_class(content) && !around(content) && !said.contains(&content)
    };
    let left = new.iter().filter(|token| is_left(token)).map(|(_, token)| token.content.clone()).collect();
    new.retain(|token| !is_left(token));
    left
}

/// The ids that a reader of the file gives to its added tokens must be those of the tokenizer it describes.
fn check_reload(path: &Path, model: Option<&Value>, tokens: &[(u64, Added)]) -> Result<(), ConvertError> {
    let mut again = Vocabulary::of(model.and_then(|model| model.get("vocab")));
    again.add(tokens.iter().map(|(_, token)| token.clone()));
    if again.sorted() == tokens {
        return Ok(());
    }
    let moved = tokens.iter().find(|(id, token)| again.id(&token.content) != Some(*id));
    let moved = moved.map_or("a token".into(), |(id, token)| format!("{} with the id {id}", token.content));
    let faults = Faults::of(path);
    faults.add("added_tokens_decoder", moved, "ids that follow those of the vocabulary without a gap");
    Ok(faults.check()?)
}

fn added_note(old: &[(u64, Added)], new: &[(u64, Added)]) -> String {
    let has = |list: &[(u64, Added)], content: &str| list.iter().any(|(_, token)| token.content == content);
    let mut said = Vec::new();
    let gained: Vec<&str> = new.iter().map(|(_, t)| t.content.as_str()).filter(|content| !has(old, content)).collect();
    let lost: Vec<&str> = old.iter().map(|(_, t)| t.content.as_str()).filter(|content| !has(new, content)).collect();
    let other: Vec<&str> = new
        .iter()
        .filter(|(id, token)| has(old, &token.content) && !old.contains(&(*id, token.clone())))
        .map(|(_, token)| token.content.as_str())
        .collect();
    for (what, tokens) in [("added", gained), ("no longer added", lost), ("with other properties", other)] {
        if !tokens.is_empty() {
            said.push(format!("{what}: {}", tokens.join(" ")));
        }
    }
    format!("{SETTINGS_FILE} over {TOKENIZER_FILE}, tokens {}", said.join("; "))
}

/// The words of a vocabulary, one a line; the id is the line's number.
fn words_of(path: &Path) -> Result<Map<String, Value>, ConvertError> {
    let text = fs::read_to_string(path).map_err(ConvertError::io(path))?;
    Ok(text.lines().enumerate().map(|(id, word)| (word.trim_end().to_string(), json!(id))).collect())
}

/// The class that transformers loads for a folder.
fn class_of(
    fields: &Map<String, Value>,
    root: &Value,
    file: Option<&Value>,
    folder: &Path,
    faults: &Faults,
) -> Result<Class, ConvertError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_string);
    let said = text(fields.get("tokenizer_class"));
    let (hub, file_says) = match &said {
        Some(_) => (said.clone(), SETTINGS_FILE),
        None => (text(root.get("tokenizer_class")), CONFIG_FILE),
    };
    let model_type = root.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let byte_level = file.is_some_and(|file| file.to_string().contains("\"ByteLevel\""));
    match Class::choose(hub.as_deref(), model_type, byte_level) {
        Ok(class) => Ok(class),
        Err(name) => {
            let expected = format!(
                "a class whose tokenizer is computed here: {}; with \"PreTrainedTokenizerFast\" {TOKENIZER_FILE} is \
                 taken as it is",
                Class::known().join(", ")
            );
            let of_config = Faults::of(&folder.join(CONFIG_FILE));
            let faults = if file_says == CONFIG_FILE { &of_config } else { faults };
            faults.add("tokenizer_class", format!("\"{name}\""), expected);
            Err(faults.refusal().into())
        }
    }
}

/// Refuses settings that change ids in a way that is not computed here.
fn refuse_what_is_not_computed(settings: &Settings<'_>) {
    let faults = settings.faults;
    match settings.get("split_special_tokens") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        found => faults.add("split_special_tokens", shown(found), "false: special tokens in a text are one token"),
    }
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if let Some(inputs) = settings.get("init_inputs").filter(|value| !empty(value)) {
        faults.add("init_inputs", shown(Some(inputs)), "nothing, as settings go by name");
    }
    let custom = settings.get("auto_map").filter(|map| map.is_array() || map.get("AutoTokenizer").is_some());
    if let Some(custom) = custom {
        faults.add("auto_map", shown(Some(custom)), "no tokenizer with code of its own, which is not run");
    }
    let others = settings.get("fast_tokenizer_files").and_then(Value::as_array).into_iter().flatten();
    let other = others.filter_map(Value::as_str).find(|name| *name != TOKENIZER_FILE);
    if let Some(other) = other {
        faults.add("fast_tokenizer_files", format!("\"{other}\""), format!("{TOKENIZER_FILE} alone"));
    }
}

/// Reads what the settings files say of tokens.
fn settings<'a>(
    folder: &Path,
    mut fields: Map<String, Value>,
    faults: &'a Faults,
    file: Option<&Value>,
    found: &mut TokenizerFiles,
) -> Result<Settings<'a>, ConvertError> {
    let truthy = |value: Option<&Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    if !truthy(fields.get("extra_special_tokens"))
        && let Some(additional) = fields.remove("additional_special_tokens")
    {
        fields.insert("extra_special_tokens".into(), additional);
    }
    // Tokens with a name that is the model's own, such as `image_token`.
    let mut own: Vec<(String, Named)> = Vec::new();
    let is_own = |key: &str| key.ends_with("_token") && !NAMES.contains(&key);
    let keys: Vec<String> = fields.keys().filter(|key| is_own(key)).cloned().collect();
    for key in keys {
        if let Some(text) = fields[&key].as_str().map(str::to_string) {
            fields.remove(&key);
            own.push((key, Named::Text(text)));
        }
    }
    own_of_dictionary(&mut fields, &mut own, faults);

    let mut decoder: Vec<(u64, Added)> = Vec::new();
    if let Some(value) = fields.get("added_tokens_decoder") {
        let Some(map) = value.as_object() else {
            faults.add("added_tokens_decoder", shown(Some(value)), "an object of tokens by id");
            return Err(faults.refusal().into());
        };
        for (id, token) in map {
            let read = token.as_object().ok_or("a token with its properties").and_then(Added::read);
            match (id.trim().parse::<u64>(), read) {
                (Ok(id), Ok(token)) => decoder.push((id, token)),
                (Err(_), _) => faults.add("added_tokens_decoder", format!("\"{id}\""), "ids, whole numbers"),
                (_, Err(expected)) => faults.add(format!("added_tokens_decoder.{id}"), shown(Some(token)), expected),
            }
        }
    } else {
        legacy(folder, &mut fields, &mut own, &mut decoder, file, faults, found)?;
    }
    decoder.sort_by_key(|(id, _)| *id);

    let mut settings =
        Settings { faults, named: Vec::new(), nulls: Vec::new(), extra: Vec::new(), decoder, fields: Map::new() };
    for name in NAMES {
        match fields.get(name) {
            None => {}
            Some(Value::Null) => settings.nulls.push(name.into()),
            Some(value) => {
                let Some(named) = token(name, value, faults) else { continue };
                let known = settings.decoder.iter().find(|(_, token)| token.content == named.text());
                let named = known.map_or(named, |(_, token)| Named::Token(token.clone()));
                settings.named.push((name.into(), named));
            }
        }
    }
    // With their properties they come through by the name alone.
    let with_properties = fields.iter().filter(|(key, value)| is_own(key) && is_token(value));
    let mut all_own: Vec<(String, Named)> =
        with_properties.filter_map(|(key, value)| Some((key.clone(), token(key, value, faults)?))).collect();
    all_own.extend(own);
    settings.named.extend(all_own);
    if !fields.contains_key("extra_special_tokens")
        && let Some(additional) = fields.remove("additional_special_tokens")
    {
        fields.insert("extra_special_tokens".into(), additional);
    }
    match fields.get("extra_special_tokens") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for (i, value) in list.iter().enumerate() {
                settings.extra.extend(token(&format!("extra_special_tokens[{i}]"), value, faults));
            }
        }
        found => faults.add("extra_special_tokens", shown(found), "a list of tokens or an object of tokens by name"),
    }
    settings.fields = fields;
    Ok(settings)
}

/// `extra_special_tokens` as an object: tokens with names.
fn own_of_dictionary(fields: &mut Map<String, Value>, own: &mut Vec<(String, Named)>, faults: &Faults) {
    if fields.get("extra_special_tokens").is_some_and(Value::is_object)
        && let Some(Value::Object(map)) = fields.remove("extra_special_tokens")
    {
        for (name, value) in map {
            if let Some(named) = token(&format!("extra_special_tokens.{name}"), &value, faults) {
                own.retain(|(key, _)| *key != name);
                own.push((name, named));
            }
        }
    }
}

fn is_token(value: &Value) -> bool {
    value.get("__type").and_then(Value::as_str) == Some("AddedToken")
}

/// A special token as a settings file writes it.
fn token(field: &str, value: &Value, faults: &Faults) -> Option<Named> {
    match value {
        Value::String(text) => Some(Named::Text(text.clone())),
        Value::Object(map) if is_token(value) => match Added::read(map) {
            Ok(token) => Some(Named::Token(token)),
            Err(expected) => {
                faults.add(field, shown(Some(value)), expected);
                None
            }
        },
        _ => {
            faults.add(field, shown(Some(value)), "a string, or an object with \"__type\": \"AddedToken\"");
            None
        }
    }
}

/// What counts only where the settings list no added tokens: `special_tokens_map.json`, `added_tokens.json`, and the
/// added tokens of `tokenizer.json`.
fn legacy(
    folder: &Path,
    fields: &mut Map<String, Value>,
    own: &mut Vec<(String, Named)>,
    decoder: &mut Vec<(u64, Added)>,
    file: Option<&Value>,
    faults: &Faults,
    found: &mut TokenizerFiles,
) -> Result<(), ConvertError> {
    let special_path = folder.join(SPECIAL_FILE);
    if let Some(map) = read_json_if_there::<Map<String, Value>>(&special_path)? {
        found.read.push(special_path.clone());
        let special_faults = Faults::of(&special_path);
        let as_special = |value: &Value| match value {
            Value::Object(map) => {
                let mut map = map.clone();
                map.insert("special".into(), Value::Bool(true));
                map.insert("__type".into(), json!("AddedToken"));
                Value::Object(map)
            }
            other => other.clone(),
        };
        for (key, value) in map {
            let value = if key == "extra_special_tokens" {
                match (&value, fields.get(&key)) {
                    (Value::Array(list), there) => {
                        let mut all: Vec<Value> =
                            there.and_then(Value::as_array).into_iter().flatten().cloned().collect();
                        for token in list.iter().map(as_special) {
                            if !all.contains(&token) {
                                all.push(token);
                            }
                        }
                        Value::Array(all)
                    }
                    _ => value,
                }
            } else {
                as_special(&value)
            };
            if NAMES.contains(&key.as_str()) && !value.is_null() {
                token(&key, &value, &special_faults);
            }
            fields.insert(key, value);
        }
        special_faults.check()?;
        own_of_dictionary(fields, own, faults);
    }
    let added_path = folder.join(ADDED_FILE);
    if let Some(map) = read_json_if_there::<Map<String, Value>>(&added_path)? {
        found.read.push(added_path.clone());
        let added_faults = Faults::of(&added_path);
        let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string);
        let mut special: Vec<String> = NAMES.iter().filter_map(|name| text(fields.get(*name)?)).collect();
        let extra = fields.get("extra_special_tokens").and_then(Value::as_array).into_iter().flatten();
        special.extend(extra.filter_map(text));
        for (content, id) in map {
            let Some(id) = id.as_u64() else {
                added_faults.add(content, shown(Some(&id)), "an id, a whole number");
                continue;
            };
            let is_special = special.contains(&content);
            let token = Added { normalized: !is_special, special: is_special, ..Added::special(&content) };
            decoder.retain(|(there, _)| *there != id);
            decoder.push((id, token));
        }
        added_faults.check()?;
    }
    for listed in file.and_then(|file| file.get("added_tokens")?.as_array()).into_iter().flatten() {
        let read = listed.as_object().and_then(|map| Some((map.get("id")?.as_u64()?, Added::read(map).ok()?)));
        if let Some((id, token)) = read {
            decoder.retain(|(there, _)| *there != id);
            decoder.push((id, token));
        }
    }
    Ok(())
}

/// Adds the tokens of the settings to those there are, in the library's order, and gives the special tokens by name.
fn add_tokens(settings: &Settings<'_>, class: Class, vocabulary: &mut Vocabulary<'_>) -> Vec<(String, Named)> {
    let mut named: Vec<(String, Named)> = Vec::new();
    for name in NAMES {
        let there = settings.named.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let is_null = settings.nulls.iter().any(|null| null == name);
        let default = class.default_token(name).filter(|_| !is_null).map(|text| Named::Text(text.into()));
        if let Some(value) = there.or(default) {
            let value = match value {
                Named::Text(text) => class.token_of(name, &text),
                token => token,
            };
            named.push((name.into(), value));
        }
    }
    named.extend(settings.named.iter().filter(|(key, _)| !NAMES.contains(&key.as_str())).cloned());
    let mut known: Vec<&str> = vocabulary.added.iter().map(|(_, token)| token.content.as_str()).collect();
    let mut to_add: Vec<Named> = Vec::new();
    for (_, token) in &settings.decoder {
        known.push(&token.content);
        to_add.push(Named::Token(token.clone()));
    }
    for value in named.iter().map(|(_, value)| value).chain(&settings.extra) {
        if !known.contains(&value.text()) && !to_add.contains(value) {
            to_add.push(value.clone());
        }
    }
    let tokens: Vec<Added> = to_add
        .into_iter()
        .map(|value| match value {
            Named::Text(text) => Added::special(&text),
            Named::Token(mut token) => {
                token.special |= named.iter().any(|(_, value)| value.text() == token.content);
                token
            }
        })
        .collect();
    vocabulary.add(tokens);
    named
}

/// The applied tokenizer, or the file as it is.
pub(crate) fn applied<T: serde::de::DeserializeOwned>(files: &TokenizerFiles) -> Result<T, ConvertError> {
    match &files.content {
        Some(content) => serde_json::from_slice(content).map_err(ConvertError::json(&files.path)),
        None => read_json(&files.path),
    }
}
