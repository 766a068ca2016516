//! `tokenizer.ggml.*` to a `tokenizer.json` that gives the ids of the tokenizer the file was made from.
//!
//! A file holds tokens, their kinds and merges or scores; which normaliser and which split belong to them it says with one
//! word. What it does not hold (how a token eats the spaces around it, whether a vocabulary of WordPiece is one of small
//! letters) is as most published tokenizers have it, and the report says so.
//!
//! Source: llama.cpp, `conversion/base.py` (`get_vocab_base`, `_set_vocab_*`), `conversion/bert.py` (`phantom`),
//! `src/llama-vocab.cpp`; the package `gguf` 0.19, `SpecialVocab`; transformers 5.24, `generate_merges`.

use std::collections::HashMap;

use omniburn_models::checkpoint::GgufTokenizer;
use serde_json::{Value, json};

use super::reader::{GgufFile, Meta};
use crate::fields::Faults;

const PREFIX: &str = "tokenizer.ggml.";

/// Kinds of tokens.
mod kind {
    pub const UNKNOWN: u8 = 2;
    pub const CONTROL: u8 = 3;
    pub const USER_DEFINED: u8 = 4;
    pub const UNUSED: u8 = 5;
}

/// Bytes of a piece of SentencePiece at most; published ones have less than a hundred.
const LONGEST_PIECE: usize = 512;

/// Keys that no id of a text depends on.
const NEUTRAL: [&str; 14] = [
    "token_type_count",
    "eot_token_id",
    "eom_token_id",
    "fim_pre_token_id",
    "fim_suf_token_id",
    "fim_mid_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
    "prefix_token_id",
    "suffix_token_id",
    "middle_token_id",
    // Between two texts.
    "add_sep_token",
    "padding_token_id",
];

/// Keys that are read.
const READ: [&str; 17] = [
    "model",
    "pre",
    "tokens",
    "token_type",
    "scores",
    "merges",
    "bos_token_id",
    "eos_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "cls_token_id",
    "mask_token_id",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "precompiled_charsmap",
];

/// How GPT-2 splits.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How Qwen2 splits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Llama 3 splits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Ways to split a text by their names: the names, the expression, whether digits stand alone first, whether a text is composed
/// first (NFC), whether whole pieces of the vocabulary are taken without merges.
const SPLITS: [(&[&str], &str, bool, bool, bool); 4] = [
    (&["gpt-2", "gpt2", "default", "jina-es", "jina-de", "jina-v2-code", "roberta-bpe"], GPT2, false, false, false),
    (&["qwen2"], QWEN2, false, true, false),
    (&["llama-bpe", "llama3", "llama-v3"], LLAMA3, false, false, true),
    (&["smollm"], GPT2, true, false, false),
];

/// The tokenizer of a file as `tokenizer.json`; notes say what was taken for granted. `None` after a fault.
pub(super) fn tokenizer(file: &GgufFile, faults: &Faults, notes: &mut Vec<String>) -> Option<Value> {
    let said = Said { file, faults };
    let own = file.metadata.keys().filter_map(|key| key.strip_prefix(PREFIX));
    for key in own.filter(|key| !READ.contains(key) && !NEUTRAL.contains(key)) {
        said.fault(key, "nothing: this is not computed");
    }
    let model = said.text("model")?;
    let tokens = Tokens::read(&said)?;
    match GgufTokenizer::named(model) {
        Some(GgufTokenizer::WordPiece) => word_piece(&said, &tokens, notes),
        Some(GgufTokenizer::ByteLevel) => byte_level(&said, &tokens),
        Some(GgufTokenizer::SentencePiece) => sentence_piece(&said, &tokens),
        None => {
            let names = GgufTokenizer::NAMES.map(|(name, _)| format!("\"{name}\""));
            said.fault("model", &format!("one of {}", names.join(", ")));
            None
        }
    }
}

/// What the file says.
struct Said<'a> {
    file: &'a GgufFile,
    faults: &'a Faults,
}

impl<'a> Said<'a> {
    fn get(&self, key: &str) -> Option<&'a Meta> {
        self.file.metadata.get(&format!("{PREFIX}{key}"))
    }

    fn fault(&self, key: &str, expected: &str) {
        let found = self.get(key).map_or_else(|| "nothing".into(), ToString::to_string);
        self.faults.add(format!("{PREFIX}{key}"), found, expected);
    }

    fn read<T>(&self, key: &str, expected: &str, parse: impl Fn(&'a Meta) -> Option<T>) -> Option<T> {
        let parsed = parse(self.get(key)?);
        if parsed.is_none() {
            self.fault(key, expected);
        }
        parsed
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        if self.get(key).is_none() {
            self.fault(key, "a string");
        }
        self.read(key, "a string", |meta| if let Meta::Text(text) = meta { Some(text.as_str()) } else { None })
    }

    fn texts(&self, key: &str) -> Option<&'a [String]> {
        if self.get(key).is_none() {
            self.fault(key, "a list of strings");
        }
        self.read(key, "a list of strings", |meta| if let Meta::Texts(texts) = meta { Some(&texts[..]) } else { None })
    }

    fn numbers(&self, key: &str) -> Option<&'a [f64]> {
        self.read(key, "a list of numbers", |meta| match meta {
            Meta::Numbers(numbers) => Some(&numbers[..]),
            _ => None,
        })
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.read(key, "true or false", |meta| if let Meta::Flag(flag) = meta { Some(*flag) } else { None })
    }

    /// An id, which must name a token.
    fn id(&self, key: &str, tokens: &Tokens<'_>) -> Option<usize> {
        let expected = format!("an id below {}", tokens.texts.len());
        self.read(key, &expected, |meta| {
            let id = match meta {
                Meta::Count(id) => usize::try_from(*id).ok()?,
                Meta::Signed(id) => usize::try_from(*id).ok()?,
                _ => return None,
            };
            (id < tokens.texts.len()).then_some(id)
        })
    }
}

/// The tokens by id.
struct Tokens<'a> {
    texts: Vec<String>,
    kinds: Vec<u8>,
    scores: Option<&'a [f64]>,
}

impl<'a> Tokens<'a> {
    fn read(said: &Said<'a>) -> Option<Self> {
        let texts = said.texts("tokens")?.to_vec();
        let of_length = |key: &str, found: Option<usize>| {
            let right = found.is_none_or(|found| found == texts.len());
            if !right {
                said.fault(key, &format!("{} of them, as there are tokens", texts.len()));
            }
            right
        };
        let (kinds, scores) = (said.numbers("token_type"), said.numbers("scores"));
        if !(of_length("token_type", kinds.map(<[f64]>::len)) & of_length("scores", scores.map(<[f64]>::len))) {
            return None;
        }
        let kinds = match kinds {
            Some(kinds) => kinds.iter().map(|&kind| kind as u8).collect(),
            None => vec![1; texts.len()],
        };
        Some(Self { texts, kinds, scores })
    }

    /// The vocabulary: every token that may come up, by its text.
    fn vocabulary(&self, said: &Said<'_>) -> Option<HashMap<&str, usize>> {
        let mut found = HashMap::with_capacity(self.texts.len());
        let mut twice = Vec::new();
        for (id, text) in self.texts.iter().enumerate().filter(|(id, _)| self.kinds[*id] != kind::UNUSED) {
            if let Some(before) = found.insert(text.as_str(), id) {
                twice.push(format!("{before} and {id}"));
            }
        }
        if twice.is_empty() {
            return Some(found);
        }
        said.fault("tokens", &format!("each token once: {} are the same", twice.join(", ")));
        None
    }

    /// Tokens that are found in a text before it is split.
    fn added(&self) -> Vec<Value> {
        let of_kind = |kind: u8| [kind::CONTROL, kind::USER_DEFINED, kind::UNKNOWN].contains(&kind);
        let token = |(id, text): (usize, &String)| {
            let special = self.kinds[id] != kind::USER_DEFINED;
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": special})
        };
        // Nothing is found by an empty text.
        let all = self.texts.iter().enumerate().filter(|(id, text)| of_kind(self.kinds[*id]) && !text.is_empty());
        all.map(token).collect()
    }
}

/// The tokens in front of a text and behind it.
fn template(said: &Said<'_>, tokens: &Tokens<'_>, unless_said: bool, keys: [&[&str]; 2]) -> Option<Value> {
    let mut around = [None, None];
    for ((end, switch), keys) in around.iter_mut().zip(["add_bos_token", "add_eos_token"]).zip(keys) {
        if said.flag(switch).unwrap_or(unless_said) {
            let id = keys.iter().find_map(|key| said.id(key, tokens));
            if id.is_none() {
                said.fault(keys[0], &format!("the id of the token that {switch} puts there"));
                return None;
            }
            *end = id;
        }
    }
    let [front, behind] = around;
    let piece = |id: usize| json!({"SpecialToken": {"id": tokens.texts[id], "type_id": 0}});
    let ends = front.into_iter().chain(behind);
    let special: serde_json::Map<String, Value> = ends
        .map(|id| {
            let text = &tokens.texts[id];
            (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}))
        })
        .collect();
    let single: Vec<Value> = front
        .map(piece)
        .into_iter()
        .chain([json!({"Sequence": {"id": "A", "type_id": 0}})])
        .chain(behind.map(piece))
        .collect();
    let second: Vec<Value> =
        [json!({"Sequence": {"id": "B", "type_id": 1}})].into_iter().chain(behind.map(piece)).collect();
    let pair = [single.clone(), second].concat();
    Some(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
}

fn file(tokens: &Tokens<'_>, parts: [Value; 5]) -> Value {
    let [normalizer, pre_tokenizer, post_processor, decoder, model] = parts;
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens.added(), "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model})
}

/// WordPiece of BERT, whose words begin with `▁` in a file, and whose endings have nothing in front.
fn word_piece(said: &Said<'_>, tokens: &Tokens<'_>, notes: &mut Vec<String>) -> Option<Value> {
    let texts = tokens.texts.iter().zip(&tokens.kinds).map(|(text, kind)| match (kind, text.strip_prefix('▁')) {
        (&kind::CONTROL | &kind::UNKNOWN, _) => text.clone(),
        (_, Some(word)) => word.into(),
        (_, None) => format!("##{text}"),
    });
    let tokens = Tokens { texts: texts.collect(), kinds: tokens.kinds.clone(), scores: None };
    let vocabulary = tokens.vocabulary(said)?;
    let plain =
        |id: &usize| ![kind::CONTROL, kind::UNKNOWN, kind::USER_DEFINED, kind::UNUSED].contains(&tokens.kinds[*id]);
    // What brackets hold is no word of a text.
    let capital = |(text, id): (&&str, &usize)| {
        plain(id) && !text.starts_with('[') && text.chars().any(|c| c.is_ascii_uppercase())
    };
    let lowercase = !vocabulary.iter().any(capital);
    let letters = if lowercase {
        "no word of the vocabulary has a capital letter: texts are put into small ones"
    } else {
        "words of the vocabulary have capital letters: texts keep theirs"
    };
    notes.push(format!("GGUF does not say how letters are read; {letters}"));
    let unknown = said.id("unknown_token_id", &tokens).map_or("[UNK]", |id| &tokens.texts[id]);
    let template =
        template(said, &tokens, true, [&["cls_token_id", "bos_token_id"], &["seperator_token_id", "eos_token_id"]])?;
    let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": lowercase});
    let model = json!({"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocabulary});
    let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    Some(file(&tokens, [normalizer, json!({"type": "BertPreTokenizer"}), template, decoder, model]))
}

/// Byte-level BPE of GPT-2 and its kin.
fn byte_level(said: &Said<'_>, tokens: &Tokens<'_>) -> Option<Value> {
    let pre = said.text("pre")?;
    let Some((_, pattern, digits, composed, whole)) = SPLITS.iter().find(|(names, ..)| names.contains(&pre)) else {
        let known: Vec<String> =
            SPLITS.iter().flat_map(|(names, ..)| *names).map(|name| format!("\"{name}\"")).collect();
        said.fault("pre", &format!("one of {}", known.join(", ")));
        return None;
    };
    let vocabulary = tokens.vocabulary(said)?;
    let mut merges = Vec::new();
    for (index, merge) in said.texts("merges")?.iter().enumerate() {
        // A space inside a part is written as the sign of the byte.
        match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                merges.push([left, right])
            }
            _ => {
                said.faults.add(
                    format!("{PREFIX}merges[{index}]"),
                    format!("{merge:?}"),
                    "two parts and a space between them",
                );
                return None;
            }
        }
    }
    let template = template(said, tokens, false, [&["bos_token_id"], &["eos_token_id"]])?;
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut steps = vec![split, bytes(false)];
    if *digits {
        steps.insert(0, json!({"type": "Digits", "individual_digits": true}));
    }
    let normalizer = if *composed { json!({"type": "NFC"}) } else { Value::Null };
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole, "vocab": vocabulary,
        "merges": merges});
    let after = json!({"type": "Sequence", "processors": [bytes(false), template]});
    Some(file(tokens, [normalizer, json!({"type": "Sequence", "pretokenizers": steps}), after, bytes(true), model]))
}

/// BPE of SentencePiece, whose merges follow from the scores.
fn sentence_piece(said: &Said<'_>, tokens: &Tokens<'_>) -> Option<Value> {
    for key in ["remove_extra_whitespaces", "precompiled_charsmap"] {
        if said.get(key).is_some_and(|meta| *meta != Meta::Flag(false)) {
            said.fault(key, "nothing, for this kind of tokenizer");
            return None;
        }
    }
    let Some(scores) = tokens.scores else {
        said.fault("scores", "a list of numbers");
        return None;
    };
    // Every way to part a piece is looked up.
    if tokens.texts.iter().any(|text| text.len() > LONGEST_PIECE) {
        said.fault("tokens", &format!("pieces of at most {LONGEST_PIECE} bytes"));
        return None;
    }
    let vocabulary = tokens.vocabulary(said)?;
    let template = template(said, tokens, true, [&["bos_token_id"], &["eos_token_id"]])
        .filter(|_| said.get("add_eos_token").is_some());
    let Some(template) = template else {
        said.fault("add_eos_token", "true or false");
        return None;
    };
    let unknown = said.id("unknown_token_id", tokens).map(|id| &tokens.texts[id]);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match said.flag("add_space_prefix") {
        Some(false) => replace,
        _ => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}),
    };
    let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary,
        "merges": merges(tokens, scores, &vocabulary)});
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]});
    Some(file(tokens, [normalizer, Value::Null, template, decoder, model]))
}

/// Every way to make a token of two others, the best score first; of those that make tokens of one score, long parts first.
fn merges<'a>(tokens: &'a Tokens<'_>, scores: &[f64], vocabulary: &HashMap<&str, usize>) -> Vec<[&'a str; 2]> {
    let mut found = Vec::new();
    for (id, text) in tokens.texts.iter().enumerate().filter(|(id, _)| tokens.kinds[*id] != kind::UNUSED) {
        let mut local: Vec<(usize, usize, [&str; 2])> = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = text.split_at(at);
                Some((*vocabulary.get(left)?, *vocabulary.get(right)?, [left, right]))
            })
            .collect();
        local.sort_unstable();
        found.extend(local.into_iter().map(|(_, _, parts)| (scores[id], parts)));
    }
    let length = |text: &str| text.chars().count();
    found.sort_by(|(a, [al, ar]), (b, [bl, br])| {
        b.total_cmp(a).then_with(|| length(bl).cmp(&length(al))).then_with(|| length(br).cmp(&length(ar)))
    });
    found.into_iter().map(|(_, parts)| parts).collect()
}
