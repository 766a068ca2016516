//! The tokenizer classes of transformers that are computed, and what each builds over the vocabulary of a folder.
//!
//! # Source
//! transformers 5.24: `tokenization_auto.py` (which class), `tokenization_bert.py`, `tokenization_qwen2.py`,
//! `tokenization_llama.py`, `tokenization_gpt2.py`, `tokenization_roberta.py`, `tokenization_xlm_roberta.py`,
//! `tokenization_herbert.py`, `tokenization_clip.py`, `tokenization_gemma.py`, `tokenization_mpnet.py`.

use omniburn_models::checkpoint::{is_wrongly_named, registered_tokenizer};
use serde_json::{Map, Value, json};

use crate::fields::{listed, shown};
use crate::tokenizer_tokens::{Added, Named, Settings, Vocabulary};

/// A class of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// `TokenizersBackend`, once `PreTrainedTokenizerFast`: all of `tokenizer.json`.
    Plain,
    Bert,
    Qwen2,
    Llama,
    Gpt2,
    Roberta,
    XlmRoberta,
    Herbert,
    Clip,
    Gemma,
    Siglip2,
    Mpnet,
}

/// Names that mean the plain class.
const PLAIN: [&str; 5] =
    ["TokenizersBackend", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "PythonBackend", "BloomTokenizer"];

/// Classes of the library that build a tokenizer in a way that is not computed here, without `Tokenizer`. Any other name
/// is one the library does not know either, and means the plain class.
const OTHERS: &str = "\
    Albert Barthez Bartpho BertGeneration BertJapanese Bertweet BigBird BioGpt Blenderbot BlenderbotSmall ByT5 CTRL \
    Camembert Canine Clvp CodeGen CodeLlama Cohere ConvBert Cpm CpmAnt DPRContextEncoder DPRQuestionEncoder \
    DPRReader Deberta DebertaV2 Dia Esm Esmc FNet FSMT FastSpeech2Conformer Flaubert Funnel GPTNeoX GPTNeoXJapanese \
    GPTSw3 Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke M2M100 MBart MBart50 MLuke Marian MarkupLM Mgpstr \
    MyT5 Nllb Nougat OpenAIGPT PLBart Parakeet Pegasus Perceiver Phobert ProphetNet Qwen3_5 Rag Reformer RemBert \
    RoCBert RoFormer SeamlessM4T Siglip Speech2Text SpeechT5 Splinter T5 Tapas Tipsv2 Udop VideoPrism Vits \
    Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper XGLM XLM XLNet";

impl Class {
    /// Classes with a name that are computed.
    pub fn known() -> Vec<String> {
        let all = [
            Class::Bert,
            Class::Qwen2,
            Class::Llama,
            Class::Gpt2,
            Class::Roberta,
            Class::XlmRoberta,
            Class::Herbert,
            Class::Clip,
            Class::Gemma,
            Class::Siglip2,
            Class::Mpnet,
        ];
        all.iter().map(|class| class.name().to_string()).collect()
    }

    /// The library's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Plain => "PreTrainedTokenizerFast",
            Class::Bert => "BertTokenizer",
            Class::Qwen2 => "Qwen2Tokenizer",
            Class::Llama => "LlamaTokenizer",
            Class::Gpt2 => "GPT2Tokenizer",
            Class::Roberta => "RobertaTokenizer",
            Class::XlmRoberta => "XLMRobertaTokenizer",
            Class::Herbert => "HerbertTokenizer",
            Class::Clip => "CLIPTokenizer",
            Class::Gemma => "GemmaTokenizer",
            Class::Siglip2 => "Siglip2Tokenizer",
            Class::Mpnet => "MPNetTokenizer",
        }
    }

    /// The class the library takes for the name that a folder says and its model type; the name, where that class is not
    /// computed here.
    pub fn choose(hub: Option<&str>, model_type: &str, byte_level: bool) -> Result<Self, String> {
        let registered = registered_tokenizer(model_type);
        let Some(hub) = hub else { return registered.map_or(Ok(Class::Plain), Class::named) };
        let short = hub.strip_suffix("Fast").unwrap_or(hub);
        let wrong = is_wrongly_named(model_type);
        if short == "LlamaTokenizer" && byte_level && !wrong {
            return Ok(Class::Plain);
        }
        match registered {
            Some(registered) if registered != short => {
                if PLAIN.contains(&registered) {
                    return Ok(Class::Plain);
                }
                Class::named(if wrong { registered } else { short })
            }
            _ => Class::named(short),
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "BertTokenizer"
            | "DistilBertTokenizer"
            | "ElectraTokenizer"
            | "LayoutLMTokenizer"
            | "LxmertTokenizer"
            | "MobileBertTokenizer"
            | "SqueezeBertTokenizer" => Class::Bert,
            "Qwen2Tokenizer" => Class::Qwen2,
            "LlamaTokenizer" => Class::Llama,
            "GPT2Tokenizer" => Class::Gpt2,
            "RobertaTokenizer" | "BartTokenizer" | "LEDTokenizer" | "LongformerTokenizer" | "MvpTokenizer" => {
                Class::Roberta
            }
            "XLMRobertaTokenizer" => Class::XlmRoberta,
            "HerbertTokenizer" => Class::Herbert,
            "CLIPTokenizer" => Class::Clip,
            "GemmaTokenizer" => Class::Gemma,
            "Siglip2Tokenizer" => Class::Siglip2,
            "MPNetTokenizer" => Class::Mpnet,
            _ if PLAIN.contains(&name) => Class::Plain,
            _ if name.strip_suffix("Tokenizer").is_some_and(|short| listed(OTHERS, short)) => {
                return Err(name.into());
            }
            _ => Class::Plain,
        })
    }

    /// Names of the tokens it puts around every text.
    pub fn ends(self) -> &'static [&'static str] {
        match self {
            Class::Bert | Class::Roberta | Class::Mpnet => &["cls_token", "sep_token"],
            Class::XlmRoberta | Class::Clip => &["bos_token", "eos_token"],
            Class::Plain
            | Class::Qwen2
            | Class::Llama
            | Class::Gpt2
            | Class::Herbert
            | Class::Gemma
            | Class::Siglip2 => &[],
        }
    }

    /// The class's own token of a name, where the settings have none.
    pub fn default_token(self, name: &str) -> Option<&'static str> {
        let tokens: &[(&str, &str)] = match self {
            Class::Plain => &[],
            Class::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Class::Qwen2 => {
                &[("unk_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")]
            }
            Class::Llama => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
            Class::Gpt2 => {
                &[("unk_token", "<|endoftext|>"), ("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>")]
            }
            Class::Roberta | Class::XlmRoberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Class::Gemma | Class::Siglip2 => &[
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Class::Herbert => &[
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
                ("sep_token", "</s>"),
            ],
            Class::Clip => &[
                ("bos_token", "<|startoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
                ("pad_token", "<|endoftext|>"),
            ],
            Class::Mpnet => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "[UNK]"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
        };
        tokens.iter().find(|(key, _)| *key == name).map(|(_, token)| *token)
    }

    /// A token of a name whose text alone is known, as the class makes it: MPNet's are normalised, and its mask takes the
    /// spaces before it.
    pub fn token_of(self, name: &str, text: &str) -> Named {
        match self {
            Class::Mpnet => {
                Named::Token(Added { lstrip: name == "mask_token", normalized: true, ..Added::special(text) })
            }
            _ => Named::Text(text.into()),
        }
    }
}

/// The pattern words are split by.
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pattern of the words CLIP keeps; what lies between them is dropped.
const CLIP_PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The parts of a `tokenizer.json` that a class builds anew.
pub(crate) fn rebuild(
    class: Class,
    settings: &Settings<'_>,
    named: &[(String, Named)],
    file: &Map<String, Value>,
    vocabulary: &mut Vocabulary<'_>,
    parts: &mut Map<String, Value>,
) {
    let token = |name: &str| settings.token(name, class.default_token(name).unwrap_or_default()).to_string();
    let mut part = |name: &str, value: Value| parts.insert(name.into(), value);
    let byte_level = |prefix: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": use_regex});
    match class {
        Class::Plain => {}
        Class::Bert | Class::Mpnet => {
            let unk = token("unk_token");
            if !vocabulary.has(&unk) {
                settings.faults.add("unk_token", format!("\"{unk}\""), "a token of the vocabulary, for unknown words");
            }
            part(
                "normalizer",
                bert_normalizer(
                    settings.flag("do_lower_case", true),
                    settings.maybe_flag("strip_accents"),
                    settings.flag("tokenize_chinese_chars", true),
                ),
            );
            part("pre_tokenizer", json!({"type": "BertPreTokenizer"}));
            part(
                "model",
                model(
                    file,
                    json!({
                        "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
                        "max_input_chars_per_word": 100,
                    }),
                    false,
                ),
            );
            let (cls, sep) = (token("cls_token"), token("sep_token"));
            let post_processor = match class {
                Class::Mpnet => roberta_ends(&cls, &sep, vocabulary),
                _ => around(&cls, &sep, Between::OneTypeEach, vocabulary),
            };
            part("post_processor", post_processor);
        }
        Class::Qwen2 => {
            let prefix = settings.maybe_flag("add_prefix_space").unwrap_or(false);
            let split = json!({
                "type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": false,
            });
            part("normalizer", json!({"type": "NFC"}));
            part("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split, byte_level(prefix, false)]}));
            part("model", model(file, pairs(None, false, false, None), true));
            let mut seen: Vec<&str> = Vec::new();
            for text in named.iter().map(|(_, named)| named.text()).chain(settings.extra.iter().map(Named::text)) {
                if !seen.contains(&text) {
                    seen.push(text);
                }
            }
            vocabulary.add(seen.into_iter().map(Added::special));
        }
        Class::Llama => {
            let prefix = settings.maybe_flag("add_prefix_space").unwrap_or(true);
            let scheme = match (prefix, settings.maybe_flag("legacy").unwrap_or(false)) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            part("normalizer", Value::Null);
            part(
                "pre_tokenizer",
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false}),
            );
            part("model", model(file, pairs(None, true, true, None), true));
        }
        Class::Gemma | Class::Siglip2 => {
            let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
            let normalizer = match class {
                Class::Siglip2 => json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, spaces]}),
                _ => spaces,
            };
            part("normalizer", normalizer);
            let split =
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
            part("pre_tokenizer", split);
            part("model", model(file, pairs(Some(&token("unk_token")), true, true, None), true));
        }
        Class::Gpt2 | Class::Roberta => {
            part("normalizer", Value::Null);
            part("pre_tokenizer", byte_level(settings.flag("add_prefix_space", false), true));
            part("model", model(file, pairs(None, false, false, None), true));
            if class == Class::Roberta {
                part("post_processor", around(&token("cls_token"), &token("sep_token"), Between::Two, vocabulary));
            }
        }
        Class::XlmRoberta => {
            let scheme = if settings.flag("add_prefix_space", true) { "always" } else { "never" };
            part("normalizer", precompiled(file.get("normalizer")));
            part(
                "pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": [
                    {"type": "WhitespaceSplit"},
                    {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true},
                ]}),
            );
            part("model", model(file, json!({"type": "Unigram", "unk_id": 3, "byte_fallback": false}), false));
            part("post_processor", around(&token("bos_token"), &token("eos_token"), Between::Two, vocabulary));
        }
        Class::Herbert => {
            part("normalizer", bert_normalizer(false, Some(false), true));
            part("pre_tokenizer", json!({"type": "BertPreTokenizer"}));
            part("model", model(file, pairs(Some(&token("unk_token")), false, false, Some("</w>")), true));
            // The ids of this class stand in its code.
            let (cls, sep) = (token("cls_token"), token("sep_token"));
            part("post_processor", json!({"type": "BertProcessing", "sep": [sep, 2], "cls": [cls, 0]}));
        }
        Class::Clip => {
            let spaces = json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "});
            part(
                "normalizer",
                json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]}),
            );
            let split = json!({
                "type": "Split", "pattern": {"Regex": CLIP_PATTERN}, "behavior": "Removed", "invert": true,
            });
            part("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split, byte_level(false, true)]}));
            part("model", model(file, pairs(Some(&token("unk_token")), false, false, Some("</w>")), true));
            part("post_processor", around(&token("bos_token"), &token("eos_token"), Between::Two, vocabulary));
        }
    }
}

fn bert_normalizer(lowercase: bool, strip_accents: Option<bool>, chinese: bool) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese, "strip_accents": strip_accents,
        "lowercase": lowercase,
    })
}

/// A model of byte pairs without its vocabulary.
fn pairs(unk: Option<&str>, fuse_unk: bool, byte_fallback: bool, suffix: Option<&str>) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
        "end_of_word_suffix": suffix, "fuse_unk": fuse_unk, "byte_fallback": byte_fallback, "ignore_merges": false,
    })
}

/// A model over the vocabulary of the file, and its merges where it has any.
fn model(file: &Map<String, Value>, mut fields: Value, with_merges: bool) -> Value {
    let old = file.get("model");
    let vocab = old.and_then(|model| model.get("vocab")).cloned().unwrap_or_default();
    let by_id = fields["type"] != "Unigram";
    fields["vocab"] = match vocab {
        Value::Array(list) if by_id => {
            let word = |v: &Value| v.as_str().or_else(|| v.get(0)?.as_str()).unwrap_or_default().to_string();
            Value::Object(list.iter().enumerate().map(|(id, v)| (word(v), json!(id))).collect())
        }
        other => other,
    };
    if with_merges {
        fields["merges"] = old.and_then(|model| model.get("merges")).cloned().unwrap_or_else(|| json!([]));
    }
    fields
}

/// What stands between the texts of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    /// The token behind a text; the second text and what is behind it are of token type 1, as in BERT.
    OneTypeEach,
    /// That token twice, all of one type, as in RoBERTa.
    Two,
}

/// A post-processor with one token before a text and one behind it.
fn around(first: &str, last: &str, between: Between, vocabulary: &Vocabulary<'_>) -> Value {
    let special = |token: &str| {
        let id = vocabulary.id(token).unwrap_or_default();
        json!({"id": token, "ids": [id], "tokens": [token]})
    };
    let text = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let token = |id: &str, kind: u8| json!({"SpecialToken": {"id": id, "type_id": kind}});
    let single = vec![token(first, 0), text("A", 0), token(last, 0)];
    let second = match between {
        Between::OneTypeEach => vec![text("B", 1), token(last, 1)],
        Between::Two => vec![token(last, 0), text("B", 0), token(last, 0)],
    };
    let pair = [&single[..], &second].concat();
    let mut tokens = Map::new();
    tokens.insert(first.into(), special(first));
    tokens.insert(last.into(), special(last));
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": tokens,
    })
}

/// The same where two of the last stand between the texts of a pair.
fn roberta_ends(first: &str, last: &str, vocabulary: &Vocabulary<'_>) -> Value {
    let (cls, sep) = (vocabulary.id(first).unwrap_or(0), vocabulary.id(last).unwrap_or(2));
    json!({"type": "RobertaProcessing", "sep": [last, sep], "cls": [first, cls], "trim_offsets": true, "add_prefix_space": false})
}

/// The normaliser that came with a SentencePiece model, which is all that the class keeps.
fn precompiled(normalizer: Option<&Value>) -> Value {
    let list = normalizer.and_then(|n| n.get("normalizers")).and_then(Value::as_array);
    let one = normalizer.into_iter();
    let found = match list {
        Some(list) => list.iter().find(|n| n["type"] == "Precompiled"),
        None => one.clone().find(|n| n["type"] == "Precompiled"),
    };
    found.cloned().unwrap_or_default()
}

/// What differs between a part of the file and the one in its place; nothing where both give the same ids.
pub(crate) fn difference(name: &str, old: &Value, new: &Value) -> Option<String> {
    let (was, is) = (canonical(old), canonical(new));
    if was == is {
        return None;
    }
    if name == "post_processor" {
        let (was, is) = (ids_around(old), ids_around(new));
        if was.is_some() && was == is {
            return None;
        }
        let said =
            |ids: Option<(Vec<u64>, Vec<u64>)>| ids.map_or("another".into(), |(a, b)| format!("{a:?} text {b:?}"));
        return Some(format!("post_processor is {}, not {}", said(is), said(was)));
    }
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or("none").to_string();
    if let (Some(was), Some(is)) = (was.as_object(), is.as_object())
        && kind(old) == kind(new)
    {
        let other: Vec<String> = is
            .iter()
            .filter(|(key, value)| was.get(*key) != Some(value))
            .map(|(key, value)| format!("{key} is {}, not {}", shown(Some(value)), shown(was.get(key))))
            .collect();
        if !other.is_empty() {
            return Some(format!("{name}: {}", other.join(", ")));
        }
    }
    Some(format!("{name} is {}, not {}", kind(new), kind(old)))
}

/// A part without what has no effect on ids, and with defaults written out; of a model, without vocabulary and merges.
fn canonical(part: &Value) -> Value {
    match part {
        Value::Array(list) => list.iter().map(canonical).collect(),
        Value::Object(map) => {
            let mut out: Map<String, Value> = Map::new();
            for (key, value) in map {
                if !matches!(key.as_str(), "vocab" | "merges" | "trim_offsets") {
                    out.insert(key.clone(), canonical(value));
                }
            }
            if !out.contains_key("type") && map.contains_key("vocab") {
                let kind = match map {
                    _ if map.contains_key("merges") => "BPE",
                    _ if map.contains_key("unk_id") => "Unigram",
                    _ => "WordPiece",
                };
                out.insert("type".into(), kind.into());
            }
            let defaults: &[(&str, Value)] = match out.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => &[("add_prefix_space", Value::Bool(true)), ("use_regex", Value::Bool(true))],
                Some("BPE") => &[
                    ("dropout", Value::Null),
                    ("unk_token", Value::Null),
                    ("continuing_subword_prefix", Value::Null),
                    ("end_of_word_suffix", Value::Null),
                    ("fuse_unk", Value::Bool(false)),
                    ("byte_fallback", Value::Bool(false)),
                    ("ignore_merges", Value::Bool(false)),
                ],
                Some("Unigram") => &[("byte_fallback", Value::Bool(false))],
                Some("Metaspace") => {
                    out.remove("str_rep");
                    if let Some(prefix) = out.remove("add_prefix_space") {
                        let scheme = if prefix == Value::Bool(true) { "always" } else { "never" };
                        out.entry("prepend_scheme").or_insert(scheme.into());
                    }
                    &[("split", Value::Bool(true))]
                }
                _ => &[],
            };
            for (key, value) in defaults {
                out.entry(*key).or_insert_with(|| value.clone());
            }
            for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
                if out.get(key).and_then(Value::as_str) == Some("") {
                    out.insert(key.into(), Value::Null);
                }
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// Ids before and behind a text, where the post-processor is of a kind that is understood.
pub(crate) fn ids_around(part: &Value) -> Option<(Vec<u64>, Vec<u64>)> {
    match part.get("type").and_then(Value::as_str) {
        None if part.is_null() => Some((vec![], vec![])),
        Some("ByteLevel") => Some((vec![], vec![])),
        Some("BertProcessing" | "RobertaProcessing") => {
            Some((vec![part["cls"][1].as_u64()?], vec![part["sep"][1].as_u64()?]))
        }
        Some("TemplateProcessing") => {
            let (mut before, mut behind, mut seen) = (vec![], vec![], false);
            for piece in part["single"].as_array()? {
                if let Some(sequence) = piece.get("Sequence") {
                    seen |= sequence["type_id"] == 0;
                } else {
                    let token = piece["SpecialToken"]["id"].as_str()?;
                    let ids = part["special_tokens"][token]["ids"].as_array()?;
                    let ids = ids.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()?;
                    if seen { &mut behind } else { &mut before }.extend(ids);
                }
            }
            seen.then_some((before, behind))
        }
        Some("Sequence") => {
            let found: Option<Vec<_>> = part["processors"].as_array()?.iter().map(ids_around).collect();
            let (mut before, mut behind) = (vec![], vec![]);
            for (a, b) in found? {
                before.splice(0..0, a);
                behind.extend(b);
            }
            Some((before, behind))
        }
        _ => None,
    }
}

/// Settings that no tokenizer class reads for ids, or that are read elsewhere.
const WITHOUT_EFFECT: &str = "\
    added_tokens_decoder additional_special_tokens auto_map backend bos_token chat_template \
    clean_up_tokenization_spaces cls_token eos_token errors extra_special_tokens fast_tokenizer_files from_slow \
    init_inputs is_local legacy local_files_only mask_token max_len max_length model_input_names model_max_length \
    name_or_path pad_to_multiple_of pad_token pad_token_type_id padding padding_side processor_class \
    return_token_type_ids sep_token special_tokens_map_file split_special_tokens stride tokenizer_class \
    tokenizer_file truncation_side truncation_strategy unk_token use_fast verbose";

/// What a reader of the report should know of settings that have no effect.
pub(crate) fn notes(
    class: Class,
    settings: &Settings<'_>,
    file: &Map<String, Value>,
    built: bool,
    notes: &mut Vec<String>,
) {
    let mut unread = Vec::new();
    for (key, value) in settings.all() {
        let read = match class {
            Class::Bert | Class::Mpnet => ["do_lower_case", "strip_accents", "tokenize_chinese_chars"].as_slice(),
            Class::Qwen2 | Class::Llama | Class::Gpt2 | Class::Roberta | Class::XlmRoberta => &["add_prefix_space"],
            Class::Plain | Class::Herbert | Class::Clip | Class::Gemma | Class::Siglip2 => &[],
        };
        if read.contains(&key.as_str())
            || listed(WITHOUT_EFFECT, key)
            || key.ends_with("_token") && !key.starts_with("add_")
        {
            continue;
        }
        match key.as_str() {
            "add_bos_token" | "add_eos_token" if !built && *value == Value::Bool(true) => notes.push(format!(
                "tokenizer_config.json: {key} true has no effect where tokenizer.json has a post-processor \
                 (transformers 5; some classes of 4 add the token)"
            )),
            "add_bos_token" | "add_eos_token" => {}
            "add_prefix_space" => {
                let there = file.get("pre_tokenizer").and_then(|part| part.get("add_prefix_space"));
                if there.is_some_and(|there| there != value) {
                    notes.push(format!(
                        "tokenizer_config.json: add_prefix_space {value} has no effect, tokenizer.json has {} \
                         (transformers 5; 4 takes the setting)",
                        shown(there)
                    ));
                }
            }
            _ if value.is_null() => {}
            _ => unread.push(format!("{key} {}", shown(Some(value)))),
        }
    }
    if !unread.is_empty() {
        notes.push(format!(
            "tokenizer_config.json: {} has no effect on transformers' {}",
            unread.join(", "),
            class.name()
        ));
    }
}
