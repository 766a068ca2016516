//! Chat templates, and what else files say of how an item is written.

use std::path::{Path, PathBuf};

use omniburn_models::checkpoint::ChatFiles;
use omniburn_models::record::Prompts;
use serde_json::Value;

use crate::error::ConvertError;
use crate::files::read_json_if_there;
use crate::tokenizer_classes::ids_around;
use crate::tokenizer_settings::{self, SETTINGS_FILE};

/// A chat template in a file of its own.
pub(crate) const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The same as JSON, as older releases of transformers wrote it.
const TEMPLATE_JSON: &str = "chat_template.json";
/// The template among several that sentence-transformers takes.
const NAMED: &str = "sentence_transformers";

/// What the files of a folder with this configuration say; `rows` are those of the token table.
///
/// # Errors
/// [`ConvertError::Json`], [`ConvertError::Io`], and whatever is wrong with the tokenizer's files.
pub(crate) fn find(
    folder: &Path,
    config: &Value,
    rows: usize,
    prompts: &Prompts,
    read: &mut Vec<PathBuf>,
) -> Result<ChatFiles, ConvertError> {
    let (path, template) = template(folder)?;
    if template.is_some() && !read.contains(&path) {
        read.push(path);
    }
    let tokenizer = tokenizer_settings::read(folder, config, rows)?;
    let file: Value = tokenizer_settings::applied(&tokenizer)?;
    let around = ids_around(file.get("post_processor").unwrap_or(&Value::Null));
    Ok(ChatFiles {
        template,
        prompts: *prompts != Prompts::default(),
        ends_texts: around.is_some_and(|(_, behind)| !behind.is_empty()),
    })
}

/// The chat template of a folder with the file it stands in, or where it would stand.
///
/// # Errors
/// [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn template(folder: &Path) -> Result<(PathBuf, Option<String>), ConvertError> {
    let named = folder.join("additional_chat_templates").join(format!("{NAMED}.jinja"));
    for path in [named, folder.join(TEMPLATE_FILE)] {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok((path, Some(text))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(ConvertError::io(path)(e)),
        }
    }
    for file in [TEMPLATE_JSON, SETTINGS_FILE] {
        let path = folder.join(file);
        let value: Option<Value> = read_json_if_there(&path)?;
        let text = value.as_ref().and_then(|value| one_of(value.get("chat_template")?));
        if text.is_some() || file == SETTINGS_FILE {
            return Ok((path, text.map(String::from)));
        }
    }
    Ok((folder.join(TEMPLATE_FILE), None))
}

/// The template, or of a list of named ones that of sentence-transformers, else the default.
fn one_of(value: &Value) -> Option<&str> {
    let named = |name: &str| value.as_array()?.iter().find(|one| one["name"] == name)?["template"].as_str();
    value.as_str().or_else(|| named(NAMED)).or_else(|| named("default"))
}
