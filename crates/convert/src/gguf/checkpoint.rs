//! A GGUF file as a checkpoint: the family that takes its architecture, the `config.json` that its metadata stand for, its
//! tensors under the names of published folders.

use std::collections::BTreeMap;
use std::path::Path;

use omniburn_models::blocks::{DenseActivation, DenseConfig, Pooling, VectorHeadConfig};
use omniburn_models::checkpoint::{GgufRules, source_name};
use omniburn_models::family::CheckpointRules;
use omniburn_models::registry;
use serde_json::{Map, Value, json};

#[cfg(feature = "hub")]
use super::reader::value_at_start;
use super::reader::{GgufFile, Meta};
use super::tokenizer;
use crate::error::ConvertError;
use crate::fields::Faults;
use crate::source::Source;
use crate::weights::RowChange;

const ARCHITECTURE: &str = "general.architecture";
/// The token table.
const TOKENS: &str = "token_embd.weight";
/// The output table; without it the token table is that, too.
const OUTPUT: &str = "output.weight";
/// Factors that rotary frequencies are divided by.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Keys of an architecture that are read here or change no vector.
const UNDERSTOOD: [&str; 12] = [
    "vocab_size",
    "pooling_type",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "classifier.output_labels",
    "expert_count",
    "expert_used_count",
    // Of heads that guess words.
    "final_logit_softcapping",
    "logit_scale",
    // Said with the number of layers, and where it is not one in every layer it is refused.
    "tensor_data_layout",
    "attention.scale",
];

/// What a GGUF file holds beside its weights.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    pub head: VectorHeadConfig,
    /// What the report says.
    pub notes: Vec<String>,
}

/// A GGUF file opened: the rules of its family, its `config.json`, its weights and the rest.
///
/// # Errors
/// [`ConvertError::Corrupt`] for a file that contradicts itself, [`ConvertError::Fields`] with every key of the metadata that
/// is wrong or not computed, [`ConvertError::Duplicates`].
pub(crate) fn open(path: &Path) -> Result<(&'static CheckpointRules, Value, Source, Gguf), ConvertError> {
    let file = GgufFile::open(path)?;
    let faults = Faults::of(path);
    let (rules, own) = rules_of(&file, &faults)?;
    let said = Said { file: &file, faults: &faults, architecture: architecture(&file).unwrap_or_default() };
    let mut notes = vec![
        "GGUF holds no prompts, and no settings of sentence-transformers but the pooling: roles put nothing in front"
            .into(),
    ];
    let config = said.config(own, &mut notes);
    let pooling = said.pooling();
    let tokenizer = tokenizer::tokenizer(&file, &faults, &mut notes);
    let changes = said.changes(own);
    let dense = said.dense(own);
    faults.check()?;
    let (Some(pooling), Some(tokenizer)) = (pooling, tokenizer) else {
        // Either is absent with a fault alone.
        return Err(faults.refusal().into());
    };
    let packed = packed(&file);
    if !packed.is_empty() {
        notes.push(format!("packed weights are widened, but for those that the record keeps: {packed}"));
    }
    let named = |name: &str| {
        let behind = own.dense.iter().enumerate().find_map(|(index, dense)| {
            Some(format!("dense.{index}.linear{}", name.strip_prefix(dense).filter(|rest| rest.starts_with('.'))?))
        });
        (behind.unwrap_or_else(|| source_name(own.names, name)), changes.of(name))
    };
    let source = Source::of_gguf(file, &rules.keys, named, ROPE_FACTORS)?;
    let tokenizer = serde_json::to_vec(&tokenizer).map_err(ConvertError::json(path))?;
    let head = VectorHeadConfig { pooling, more_poolings: Vec::new(), skips_prompt: false, dense };
    Ok((rules, config, source, Gguf { tokenizer, head, notes }))
}

pub(super) fn architecture(file: &GgufFile) -> Option<&str> {
    match file.metadata.get(ARCHITECTURE)? {
        Meta::Text(text) => Some(text),
        _ => None,
    }
}

/// Every family's rules that take GGUF files.
fn of_format() -> impl Iterator<Item = (&'static CheckpointRules, &'static GgufRules)> {
    registry::rules().into_iter().flat_map(|rules| rules.steps.gguf.iter().map(move |own| (rules, own)))
}

/// The architectures that are converted, in words.
fn known_architectures() -> String {
    let names: Vec<String> =
        of_format().flat_map(|(_, own)| own.architectures).map(|name| format!("\"{name}\"")).collect();
    format!("one of {}", names.join(", "))
}

/// Why a file that begins with these bytes would not be converted, where its architecture tells.
///
/// # Errors
/// The refusal in words. Bytes that end before the architecture are no reason.
#[cfg(feature = "hub")]
pub(crate) fn check_start(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() >= 4 && !bytes.starts_with(b"GGUF") {
        return Err("not a GGUF file: it does not begin with `GGUF`".into());
    }
    let Some(found) = value_at_start(bytes, ARCHITECTURE) else { return Ok(()) };
    let known = |name: &String| of_format().any(|(_, own)| own.architectures.contains(&name.as_str()));
    match &found {
        Meta::Text(name) if known(name) => Ok(()),
        found => Err(format!("{ARCHITECTURE} is {found}, expected {}", known_architectures())),
    }
}

/// The rules for a file's architecture, its family's and those of the format.
fn rules_of(file: &GgufFile, faults: &Faults) -> Result<(&'static CheckpointRules, &'static GgufRules), ConvertError> {
    let found = |key: &str| file.metadata.get(key).map_or_else(|| "nothing".into(), ToString::to_string);
    if file.metadata.get("general.type").is_some_and(|kind| *kind != Meta::Text("model".into())) {
        faults.add("general.type", found("general.type"), "\"model\"");
    }
    if file.metadata.get("split.count").is_some_and(|count| *count != Meta::Count(1)) {
        faults.add("split.count", found("split.count"), "1: `llama-gguf-split --merge` makes one file of several");
    }
    let known = architecture(file).and_then(|name| of_format().find(|(_, own)| own.architectures.contains(&name)));
    if known.is_none() {
        faults.add(ARCHITECTURE, found(ARCHITECTURE), known_architectures());
    }
    faults.check()?;
    known.ok_or_else(|| faults.refusal().into())
}

/// What the file says of its model.
struct Said<'a> {
    file: &'a GgufFile,
    faults: &'a Faults,
    architecture: &'a str,
}

impl Said<'_> {
    fn get(&self, key: &str) -> Option<&Meta> {
        self.file.metadata.get(&format!("{}.{key}", self.architecture))
    }

    fn fault(&self, key: &str, expected: impl Into<String>) {
        let found = self.get(key).map_or_else(|| "nothing".into(), ToString::to_string);
        self.faults.add(format!("{}.{key}", self.architecture), found, expected);
    }

    fn count(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Meta::Count(n) => Some(*n),
            Meta::Signed(n) => u64::try_from(*n).ok(),
            // One a layer, all the same.
            Meta::Numbers(list) => list.first().filter(|first| list.iter().all(|n| n == *first)).map(|n| *n as u64),
            _ => None,
        }
    }

    /// Numbers of a head.
    fn head(&self) -> Option<u64> {
        let whole = || Some(self.count("embedding_length")? / self.count("attention.head_count")?.max(1));
        self.count("attention.key_length").or_else(whole)
    }

    /// The `config.json` that the metadata stand for.
    fn config(&self, own: &GgufRules, notes: &mut Vec<String>) -> Value {
        let mut config = Map::new();
        for (name, text) in own.constants {
            config.insert((*name).into(), serde_json::from_str(text).unwrap_or(Value::Null));
        }
        config.insert("model_type".into(), own.model_type.into());
        for (key, field) in own.fields {
            let value = match self.get(key) {
                None => continue,
                Some(Meta::Number(number)) => json!(number),
                Some(Meta::Flag(flag)) => json!(flag),
                // A pattern of layers one by one: whether each sees a window.
                Some(Meta::Flags(windows)) => {
                    let kind = |window: &bool| if *window { "sliding_attention" } else { "full_attention" };
                    let kinds: Vec<&str> = windows.iter().map(kind).collect();
                    config.insert("layer_types".into(), json!(kinds));
                    continue;
                }
                Some(_) => match self.count(key) {
                    Some(count) => json!(count),
                    None => {
                        self.fault(key, "one number");
                        continue;
                    }
                },
            };
            config.insert((*field).into(), value);
        }
        if let Some(table) = self.file.tensors.get(TOKENS) {
            config.insert("vocab_size".into(), table.shape.first().copied().unwrap_or(0).into());
        }
        if let Some(types) = self.file.metadata.get("tokenizer.ggml.token_type_count") {
            config.insert(
                "type_vocab_size".into(),
                if let Meta::Count(n) = types { json!(n) } else { json!(types.to_string()) },
            );
        }
        config.insert("tie_word_embeddings".into(), (!self.file.tensors.contains_key(OUTPUT)).into());
        self.check(own);
        if let Some(scaling) = self.rope_scaling(notes) {
            config.insert("rope_scaling".into(), scaling);
        }
        Value::Object(config)
    }

    /// Refuses keys of the architecture that say what is not computed, known or not.
    fn check(&self, own: &GgufRules) {
        let prefix = format!("{}.", self.architecture);
        for key in self.file.metadata.keys().filter_map(|key| key.strip_prefix(&prefix)) {
            let of_dense = own
                .dense
                .iter()
                .any(|name| key.strip_prefix(name).is_some_and(|rest| rest == "_feat_in" || rest == "_feat_out"));
            if !of_dense && !UNDERSTOOD.contains(&key) && !own.fields.iter().any(|(read, _)| *read == key) {
                self.fault(key, "nothing: this is not computed");
            }
        }
        let head = self.head();
        for key in ["attention.value_length", "rope.dimension_count"] {
            if self.get(key).is_some() && self.count(key) != head {
                self.fault(key, format!("{}, the numbers of a head", head.unwrap_or(0)));
            }
        }
        if let Some(scale) = self.get("attention.scale") {
            let plain = head.map(|head| 1.0 / (head as f64).sqrt());
            if !matches!((scale, plain), (Meta::Number(said), Some(plain)) if (said - plain).abs() < 1e-6 * plain) {
                self.fault("attention.scale", "1 by the square root of a head's numbers");
            }
        }
        let rows = self.file.tensors.get(TOKENS).and_then(|table| table.shape.first().copied());
        if self.get("vocab_size").is_some() && self.count("vocab_size") != rows.map(|rows| rows as u64) {
            self.fault("vocab_size", format!("{}, the rows of {TOKENS}", rows.unwrap_or(0)));
        }
        if self.get("rope.scaling.type").is_some_and(|kind| *kind != Meta::Text("none".into())) {
            self.fault("rope.scaling.type", "\"none\"");
        }
        if self.get("tensor_data_layout").is_some_and(|layout| *layout != Meta::Text("reference".into())) {
            self.fault("tensor_data_layout", "\"reference\"");
        }
        for key in ["expert_count", "expert_used_count"] {
            if self.get(key).is_some() && self.count(key) != Some(0) {
                self.fault(key, "0: experts are not computed");
            }
        }
        if self.get("classifier.output_labels").is_some() {
            self.fault(
                "classifier.output_labels",
                "nothing: rerankers and classifiers are converted from their folder",
            );
        }
    }

    fn pooling(&self) -> Option<Pooling> {
        match self.count("pooling_type") {
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::LastToken),
            Some(4) => {
                self.fault(
                    "pooling_type",
                    "1 (mean), 2 (first) or 3 (last): rerankers are converted from their folder",
                );
                None
            }
            _ => {
                self.fault("pooling_type", "1 (mean), 2 (first) or 3 (last): a file without one is no embedder's");
                None
            }
        }
    }

    /// The `rope_scaling` of Llama 3 whose factors the file holds.
    fn rope_scaling(&self, notes: &mut Vec<String>) -> Option<Value> {
        let tensor = self.file.tensors.get(ROPE_FACTORS)?;
        let refuse = || self.faults.add(ROPE_FACTORS, "factors", "those of Llama 3 (low 1, high 4), or none");
        let (Some(head), Some(Meta::Number(theta))) = (self.head(), self.get("rope.freq_base")) else {
            refuse();
            return None;
        };
        if tensor.dtype_fault(ROPE_FACTORS).is_some() || tensor.shape != [head as usize / 2] {
            refuse();
            return None;
        }
        let Ok((dtype, bytes)) = self.file.read(ROPE_FACTORS) else {
            refuse();
            return None;
        };
        let factors = crate::layout::widen(dtype, &bytes);
        if factors.iter().all(|factor| *factor == 1.0) {
            return None;
        }
        let factor = f64::from(factors.iter().fold(0.0f32, |most, factor| most.max(*factor)));
        let fits = |length: &f64| {
            let wanted = (0..factors.len()).map(|i| {
                let wave = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head as f64);
                let smooth = ((length / wave - 1.0) / 3.0).clamp(0.0, 1.0);
                1.0 / ((1.0 - smooth) / factor + smooth)
            });
            wanted.zip(&factors).all(|(wanted, found)| (wanted - f64::from(*found)).abs() <= 1e-4 * wanted)
        };
        let lengths = (4..=24).map(|bits| f64::from(1 << bits));
        let Some(length) = lengths.clone().find(fits) else {
            refuse();
            return None;
        };
        notes.push(format!("{ROPE_FACTORS} are those of Llama 3 with factor {factor} and {length} positions at first"));
        Some(json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": length as u64}))
    }

    /// Matrices behind the pooling, of which either all or none are there.
    fn dense(&self, own: &GgufRules) -> Vec<DenseConfig> {
        let tensor = |name: &&str| self.file.tensors.get(&format!("{name}.weight"));
        own.dense
            .iter()
            .filter_map(|name| {
                let &[outputs, inputs] = tensor(name)?.shape.as_slice() else { return None };
                let said = |end: &str| self.count(&format!("{name}_feat_{end}"));
                for (end, size) in [("in", inputs), ("out", outputs)] {
                    if said(end).is_some_and(|said| said != size as u64) {
                        self.fault(&format!("{name}_feat_{end}"), format!("{size}, as {name}.weight has"));
                    }
                }
                let activation = DenseActivation::Identity;
                Some(DenseConfig { inputs, outputs, bias: false, activation, residual: false, normalized: false })
            })
            .collect()
    }

    fn changes(&self, own: &GgufRules) -> Changes {
        let heads = |key: &str| self.count(key).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let query = heads("attention.head_count");
        Changes {
            pairs: own.rotary_pairs.then(|| [query, heads("attention.head_count_kv").or(query)]),
            norms: own.norms_from_zero,
        }
    }
}

/// What was done to tensors when the file was written, and is undone.
struct Changes {
    /// Heads of queries and of keys, whose rows lie in pairs.
    pairs: Option<[Option<usize>; 2]>,
    norms: bool,
}

impl Changes {
    fn of(&self, name: &str) -> Option<RowChange> {
        let stem = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        let last = stem.rsplit('.').next().unwrap_or(stem);
        if let Some([query, key]) = self.pairs {
            match last {
                "attn_q" => return query.map(|heads| RowChange::FromPairs { heads }),
                "attn_k" => return key.map(|heads| RowChange::FromPairs { heads }),
                _ => {}
            }
        }
        (self.norms && last.ends_with("norm")).then_some(RowChange::LessOne)
    }
}

/// The packed types of a file with their bytes, in words.
fn packed(file: &GgufFile) -> String {
    let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for tensor in file.tensors.values() {
        if let crate::safefile::Element::Packed(kind) = tensor.element {
            let (count, bytes) = kinds.entry(kind).or_default();
            *count += 1;
            *bytes += tensor.end - tensor.begin;
        }
    }
    let words = kinds.iter().map(|(kind, (count, bytes))| format!("{count} tensors of {kind} ({bytes} bytes)"));
    words.collect::<Vec<_>>().join(", ")
}
