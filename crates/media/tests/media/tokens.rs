//! Token ids of the real tokenizers. Their files are fetched by `tests/golden/make/fetch_tokenizers.sh` and never
//! committed; without them these tests say "not run", and fail where `CI=true` is set.

use std::path::PathBuf;
use std::sync::OnceLock;

use omniburn_media::{TextTokenizer, Truncation};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{golden, json};

/// What the published nano checkpoint puts behind every text; the public Llama-3 file does not.
const NANO_END: u32 = 128_001;

fn folder() -> PathBuf {
    match std::env::var_os("OMNIBURN_TEST_TOKENIZERS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/omniburn/tokenizers"),
    }
}

fn open(name: &str) -> Option<TextTokenizer> {
    let file = folder().join(name).join("tokenizer.json");
    if file.is_file() {
        return Some(TextTokenizer::from_file(&file).unwrap());
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing; fetch_tokenizers.sh gets it", file.display());
    println!("not run: {} is not there", file.display());
    None
}

fn qwen3() -> Option<&'static TextTokenizer> {
    static OPENED: OnceLock<Option<TextTokenizer>> = OnceLock::new();
    OPENED.get_or_init(|| open("qwen3")).as_ref()
}

fn llama3() -> Option<&'static TextTokenizer> {
    static OPENED: OnceLock<Option<TextTokenizer>> = OnceLock::new();
    OPENED.get_or_init(|| open("llama3")).as_ref()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_published_ids_are_met() {
    let stored = json(&golden().join("published_ids.json"));
    for (name, tokenizer) in [("qwen3", qwen3()), ("llama3", llama3())] {
        let rows = stored[name].as_array().unwrap();
        assert_eq!(rows.len(), 8);
        let Some(tokenizer) = tokenizer else { continue };
        for row in rows {
            let text = row["text"].as_str().unwrap();
            for (prefix, key) in [("Query: ", "query"), ("Document: ", "passage")] {
                let got = if name == "qwen3" {
                    tokenizer.text_ids(prefix, text, 32_768, Truncation::Error).unwrap().ids
                } else {
                    let mut bare = tokenizer.ids_bare(&format!("{prefix}{text}")).unwrap();
                    bare.push(NANO_END);
                    bare
                };
                assert_eq!(got, ids(&row[key]), "{name} {prefix}{text}");
            }
        }
    }
}

#[test]
fn awkward_strings_give_the_ids_of_the_python_package() {
    let stored = json(&golden().join("awkward_ids.json"));
    let rows = stored.as_array().unwrap();
    assert!(rows.len() >= 40, "{} strings", rows.len());
    for row in rows {
        let text = row["text"].as_str().unwrap();
        if let Some(qwen3) = qwen3() {
            assert_eq!(qwen3.ids(text).unwrap(), ids(&row["qwen3"]), "{text:?}");
        }
        if let Some(llama3) = llama3() {
            assert_eq!(llama3.ids_bare(text).unwrap(), ids(&row["llama3"]), "{text:?}");
        }
    }
}

#[test]
fn neither_file_puts_anything_around_a_text() {
    for tokenizer in [qwen3(), llama3()].into_iter().flatten() {
        assert!(tokenizer.trailing_specials().is_empty());
        assert!(tokenizer.ids("").unwrap().is_empty());
    }
}

#[test]
fn vocabularies_count_added_tokens() {
    if let Some(qwen3) = qwen3() {
        assert_eq!(qwen3.vocab_size(), 151_669);
        assert_eq!(qwen3.token_id("<|vision_start|>"), Some(151_652));
        assert_eq!(qwen3.token_id("<|nothing|>"), None);
    }
    if let Some(llama3) = llama3() {
        assert_eq!(llama3.vocab_size(), 128_256);
        assert_eq!(llama3.token_id("<|end_of_text|>"), Some(NANO_END));
    }
}

#[test]
fn the_space_of_the_prefix_merges_with_the_first_word() {
    let Some(qwen3) = qwen3() else { return };
    let one = qwen3.text_ids("Query: ", "What", 8, Truncation::Error).unwrap();
    assert_eq!(one.ids, [2859, 25, 3555]);
    assert_eq!(qwen3.ids_bare("Query: ").unwrap(), [2859, 25, 220]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_ids_inside_the_vocabulary(text in any::<String>(), limit in 4_usize..20) {
        let tiny = |family: &str| {
            static OPENED: OnceLock<[TextTokenizer; 2]> = OnceLock::new();
            let both = OPENED.get_or_init(|| {
                ["omni-small-tiny", "omni-nano-tiny"]
                    .map(|name| TextTokenizer::from_file(&golden().join(format!("../checkpoints/{name}/tokenizer.json"))).unwrap())
            });
            if family == "small" { &both[0] } else { &both[1] }
        };
        for family in ["small", "nano"] {
            let tokenizer = tiny(family);
            let ids = tokenizer.ids(&text).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            prop_assert!(ids.ends_with(tokenizer.trailing_specials()));
            for side in [Truncation::Right, Truncation::Left] {
                let cut = tokenizer.text_ids("", &text, limit, side).unwrap();
                prop_assert!(cut.ids.len() <= limit);
                prop_assert_eq!(cut.truncated, ids.len() > limit);
            }
        }
    }
}
