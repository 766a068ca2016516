//! BERT and sentence-transformers of its kind: names with or without `bert.` in front.

use std::path::{Path, PathBuf};

use omniburn_models::blocks::Pooling;
use omniburn_models::families::{BertConfig, Family};
use omniburn_models::record::{Preprocess, TensorRole, TensorSpec};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::keymap::{Input, KeyMap, Pattern, Piece};
use crate::maps::plain;
use crate::side_files::prompts_of;
use crate::single::Single;
use crate::source::read_json_if_there;

/// `model_type` of the configuration.
pub(crate) const MODEL_TYPE: &str = "bert";

/// The names of this family.
pub(crate) const KEYS: KeyMap = KeyMap {
    renames: &[("bert.", "")],
    drops: &[
        (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
        (Pattern::Prefix("cls."), "an embedding takes no head"),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
    ],
};

const POOLING_FILE: &str = "1_Pooling/config.json";
const LENGTH_FILE: &str = "sentence_bert_config.json";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const MODULES_FILE: &str = "modules.json";
/// Modules of sentence-transformers that are computed.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Reads a folder of this family.
///
/// # Errors
/// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn read(folder: &Path, config: &Path, root: &Value, tensors: usize) -> Result<Single, ConvertError> {
    let mut files = Files { folder, read: Vec::new() };
    check_modules(&mut files)?;
    let pooling = pooling(&mut files)?;
    let faults = Faults::of(config);
    let fields = Fields::new("", Some(root), &faults);
    let mut text = text_config(fields, tensors, pooling);
    faults.check()?;
    text.max_tokens = max_tokens(&mut files, text.positions)?;
    let (prompts, prompts_file) = prompts_of(folder)?;
    files.read.extend(prompts_file);
    Ok(Single {
        family: Family::Bert(text),
        known_as: "a BERT encoder",
        licence: "as its own page says",
        task: crate::BASE_TASK,
        ends: None,
        preprocess: Preprocess::default(),
        prompts,
        read: files.read,
    })
}

/// What the tensors of a BERT are made from; `at` stands in front of the checkpoint's names.
pub(crate) fn pieces(spec: &TensorSpec, at: &str) -> Vec<Piece> {
    if spec.name == "embed_tokens.weight" {
        return plain(format!("{at}embeddings.word_embeddings.weight"), spec);
    }
    let rest = spec.name.strip_prefix("backbone.").unwrap_or(&spec.name);
    if let Some(layer) = rest.strip_prefix("layers.") {
        let (index, rest) = layer.split_once('.').unwrap_or((layer, ""));
        let layer = format!("{at}encoder.layer.{index}");
        if let Some(leaf) = rest.strip_prefix("attention.qkv.") {
            return fused(&format!("{layer}.attention.self"), ["query", "key", "value"], leaf, spec);
        }
        let name = match rest.rsplit_once('.') {
            Some(("attention.out", leaf)) => format!("attention.output.dense.{leaf}"),
            Some(("attention.norm", leaf)) => format!("attention.output.LayerNorm.{leaf}"),
            Some(("mlp.fc1", leaf)) => format!("intermediate.dense.{leaf}"),
            Some(("mlp.fc2", leaf)) => format!("output.dense.{leaf}"),
            Some(("mlp.norm", leaf)) => format!("output.LayerNorm.{leaf}"),
            _ => unreachable!("no rule for the record's tensor {}", spec.name),
        };
        return plain(format!("{layer}.{name}"), spec);
    }
    let name = match rest {
        "positions.weight" => "position_embeddings.weight".into(),
        "token_types.weight" => "token_type_embeddings.weight".into(),
        norm => norm.replace("norm.", "LayerNorm."),
    };
    plain(format!("{at}embeddings.{name}"), spec)
}

/// Three linears side by side, or their biases.
pub(crate) fn fused(at: &str, parts: [&str; 3], leaf: &str, spec: &TensorSpec) -> Vec<Piece> {
    let outputs = spec.row_count() / 3;
    let shape = if spec.role == TensorRole::Linear { vec![outputs, spec.shape[0]] } else { vec![outputs] };
    parts.iter().map(|part| Piece::Tensor(Input::plain(format!("{at}.{part}.{leaf}"), shape.clone()))).collect()
}

/// The encoder's configuration, as long as its positions; zeros where a fault was added.
pub(crate) fn text_config(text: Fields<'_>, tensors: usize, pooling: Pooling) -> BertConfig {
    text.only_text("hidden_act", "gelu");
    text.only_text("position_embedding_type", "absolute");
    text.only_flag("is_decoder", false);
    text.only_flag("add_cross_attention", false);
    if text.count("type_vocab_size").is_some_and(|n| n != 2) {
        text.fault("type_vocab_size", "2");
    }
    let positions = text.needed_size("max_position_embeddings");
    BertConfig {
        hidden: text.needed_size("hidden_size"),
        layers: layers(text, "num_hidden_layers", tensors),
        heads: text.needed_size("num_attention_heads"),
        inner: text.needed_size("intermediate_size"),
        norm_eps: text.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        max_tokens: text.size("max_seq_length").map_or(positions, |n| n.min(positions)),
        vocab: text.needed_size("vocab_size"),
        pooling,
    }
}

/// A number of layers, of which there cannot be more than tensors: a lie is refused before names are made from it.
pub(crate) fn layers(fields: Fields<'_>, name: &str, tensors: usize) -> usize {
    let layers = fields.needed_size(name);
    if layers > tensors {
        fields.fault(name, format!("at most {tensors}, the number of tensors"));
        return 0;
    }
    layers
}

/// Files beside the configuration, with those that were there.
struct Files<'a> {
    folder: &'a Path,
    read: Vec<PathBuf>,
}

impl Files<'_> {
    fn json(&mut self, file: &str) -> Result<Option<(PathBuf, Value)>, ConvertError> {
        let path = self.folder.join(file);
        let value = read_json_if_there(&path)?;
        if value.is_some() {
            self.read.push(path.clone());
        }
        Ok(value.map(|value| (path, value)))
    }
}

/// Refuses modules that would change a vector in a way that is not computed, such as `Dense`.
fn check_modules(files: &mut Files<'_>) -> Result<(), ConvertError> {
    let Some((path, value)) = files.json(MODULES_FILE)? else { return Ok(()) };
    let faults = Faults::of(&path);
    for (i, module) in value.as_array().into_iter().flatten().enumerate() {
        let kind = module.get("type");
        let last = kind.and_then(Value::as_str).and_then(|kind| kind.rsplit('.').next());
        if !last.is_some_and(|last| MODULES.contains(&last)) {
            faults.add(format!("[{i}].type"), shown(kind), format!("a module of {}", MODULES.join(", ")));
        }
    }
    faults.check()
}

/// The rows that make the vector: of the mean unless the folder says the first.
fn pooling(files: &mut Files<'_>) -> Result<Pooling, ConvertError> {
    const MODE: &str = "pooling_mode_";
    let Some((path, value)) = files.json(POOLING_FILE)? else { return Ok(Pooling::Mean) };
    let faults = Faults::of(&path);
    let fields = Fields::new("", Some(&value), &faults);
    let on: Vec<&String> = fields
        .present()
        .filter(|(name, v)| name.starts_with(MODE) && **v == Value::Bool(true))
        .map(|(n, _)| n)
        .collect();
    let pooling = match on.as_slice() {
        [only] if *only == "pooling_mode_mean_tokens" => Pooling::Mean,
        [only] if *only == "pooling_mode_cls_token" => Pooling::Cls,
        others => {
            let found: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
            let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
            faults.add("pooling_mode", found, "pooling_mode_mean_tokens or pooling_mode_cls_token, one of them");
            Pooling::Mean
        }
    };
    faults.check().map(|()| pooling)
}

/// What sentence-transformers cuts at where it says so, else what positions and tokenizer allow.
fn max_tokens(files: &mut Files<'_>, positions: usize) -> Result<usize, ConvertError> {
    if let Some((path, value)) = files.json(LENGTH_FILE)? {
        let faults = Faults::of(&path);
        let said = Fields::new("", Some(&value), &faults).size("max_seq_length");
        faults.check()?;
        if let Some(said) = said {
            return Ok(said.min(positions));
        }
    }
    // Where nothing is known, tokenizers say a number beyond any length.
    let tokenizer = files.json(TOKENIZER_CONFIG_FILE)?;
    let said = tokenizer.and_then(|(_, value)| value.get("model_max_length").and_then(Value::as_f64));
    Ok(said.filter(|&n| n >= 1.0 && n < positions as f64).map_or(positions, |n| n as usize))
}
