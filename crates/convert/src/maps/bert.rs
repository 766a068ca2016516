//! BERT and sentence-transformers of its kind: names with or without `bert.` in front.

use std::path::{Path, PathBuf};

use omniburn_models::blocks::Pooling;
use omniburn_models::families::{BertConfig, Family};
use omniburn_models::record::{Preprocess, TensorRole, TensorSpec};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields};
use crate::keymap::{Input, KeyMap, Pattern, Piece};
use crate::lora::ADAPTER_CONFIG;
use crate::maps::plain;
use crate::sentence_transformers::{Poolings, Settings};
use crate::single::{Folder, Single};
use crate::source::{CONFIG_FILE, read_json_if_there};

/// `model_type` of the configuration.
pub(crate) const MODEL_TYPE: &str = "bert";

/// Whether a class of transformers is this family with whatever head.
pub(crate) fn is_architecture(name: &str) -> bool {
    name.strip_prefix("Bert").is_some_and(|rest| rest == "Model" || rest == "LMHeadModel" || rest.starts_with("For"))
}

/// The names of this family.
pub(crate) const KEYS: KeyMap = KeyMap {
    // As wrappers save it: DataParallel, sentence-transformers' own state, a head around the encoder.
    renames: &[("module.", ""), ("0.", ""), ("auto_model.", ""), ("model.", ""), ("bert.", "")],
    // As TensorFlow called them, and so the first published checkpoints do.
    endings: &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")],
    drops: &[
        (Pattern::Prefix("pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
        (Pattern::Prefix("cls.predictions."), "an embedding takes no head: this one guesses masked words"),
        (Pattern::Prefix("cls.seq_relationship."), "an embedding takes no head: this one guesses the next sentence"),
        (Pattern::Prefix("cls."), "an embedding takes no head"),
        (Pattern::Prefix("classifier."), "an embedding takes no head: this one sorts texts or words into classes"),
        (Pattern::Prefix("qa_outputs."), "an embedding takes no head: this one finds answers"),
        (Pattern::Prefix("lm_head."), "an embedding takes no head: this one guesses words"),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
        (Pattern::Exact("embeddings.token_type_ids"), "every row of a text is of the first kind"),
    ],
};

const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Reads a folder of this family.
///
/// # Errors
/// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn read(from: &Folder<'_>, root: &Value, tensors: usize) -> Result<Single, ConvertError> {
    let config = from.folder.join(CONFIG_FILE);
    let faults = Faults::of(&config);
    let fields = Fields::new("", Some(root), &faults);
    let mut text = text_config(fields, tensors, Pooling::Mean);
    for field in ["quantization", "quantization_config"] {
        if fields.get(field).is_some() {
            fields.fault(field, "nothing: quantised weights are not read");
        }
    }
    faults.check()?;
    let adapter = from.folder.join(ADAPTER_CONFIG);
    if adapter.is_file() {
        // transformers would load it over these weights, or over others that it names.
        let faults = Faults::of(&adapter);
        let expected = "nothing: this family merges none; `merge_and_unload` of PEFT does, and saves what is read here";
        faults.add(ADAPTER_CONFIG, "an adapter beside the weights", expected);
        faults.check()?;
    }
    let mut settings = Settings::read(from.checkpoint, from.folder, from.modules, text.hidden)?;
    let Poolings { first, more, skips_prompt } = settings.poolings;
    (text.pooling, text.more_poolings, text.skips_prompt) = (first, more, skips_prompt);
    text.max_tokens = match settings.max_tokens {
        Some(said) => said.min(text.positions),
        None => max_tokens(from.folder, text.positions, &mut settings.read)?,
    };
    let (whole, default_dim) = (text.vector(), settings.truncate_dim);
    Ok(Single {
        family: Family::Bert(text),
        known_as: "a BERT encoder",
        licence: "as its own page says",
        task: crate::BASE_TASK,
        ends: None,
        preprocess: Preprocess::default(),
        prompts: settings.prompts,
        default_dim: default_dim.filter(|&dim| dim < whole),
        lowercase: settings.lowercase,
        read: settings.read,
        notes: settings.notes,
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
        more_poolings: Vec::new(),
        skips_prompt: false,
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

/// What the tokenizer's own configuration allows, where sentence-transformers says nothing.
fn max_tokens(folder: &Path, positions: usize, read: &mut Vec<PathBuf>) -> Result<usize, ConvertError> {
    // Where nothing is known, tokenizers say a number beyond any length.
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    let Some(value) = read_json_if_there::<Value>(&path)? else { return Ok(positions) };
    read.push(path);
    let said = value.get("model_max_length").and_then(Value::as_f64);
    Ok(said.filter(|&n| n >= 1.0 && n < positions as f64).map_or(positions, |n| n as usize))
}
