//! Checkpoint folders with one damaged file, read as `convert --check` reads them: every name and shape, and no data.
//!
//! The first byte of an input chooses the folder and the file; the others are the file.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use omniburn_media::TextTokenizer;
use tempfile::TempDir;

use crate::places::{copy_tree, golden, golden_checkpoint, read, scratch};

/// A checkpoint of the goldens and the file of it that is damaged.
type Case = (&'static str, &'static str);

const CONFIGS: &[Case] = &[
    ("bert-tiny", "config.json"),
    ("mini-tiny", "config.json"),
    ("omni-nano-tiny", "config.json"),
    ("omni-nano-tiny-unified", "config.json"),
    ("omni-small-tiny", "config.json"),
];

const SIDE_FILES: &[Case] = &[
    ("omni-nano-tiny", "preprocessor_config.json"),
    ("omni-nano-tiny", "video_preprocessor_config.json"),
    ("omni-nano-tiny", "tokenizer_config.json"),
    ("omni-nano-tiny", "config_sentence_transformers.json"),
    ("bert-tiny", "1_Pooling/config.json"),
    ("bert-tiny", "sentence_bert_config.json"),
    ("bert-tiny", "modules.json"),
];

const ADAPTERS: &[Case] = &[
    ("omni-nano-tiny", "adapters/retrieval/adapter_config.json"),
    ("omni-nano-tiny", "adapters/clustering/adapter_config.json"),
    ("omni-nano-tiny", "adapters/clustering/adapter_model.safetensors"),
];

const SAFETENSORS: &[Case] = &[("bert-tiny", "model.safetensors"), ("mini-tiny", "model.safetensors")];

const SHARDS: &[Case] = &[("omni-nano-tiny-unified", "model.safetensors.index.json")];

const TOKENIZERS: &[Case] =
    &[("bert-tiny", "tokenizer.json"), ("mini-tiny", "tokenizer.json"), ("omni-nano-tiny", "tokenizer.json")];

pub fn config(data: &[u8]) {
    checked(CONFIGS, data);
}

pub fn side_files(data: &[u8]) {
    checked(SIDE_FILES, data);
}

pub fn adapter(data: &[u8]) {
    checked(ADAPTERS, data);
}

pub fn safetensors(data: &[u8]) {
    checked(SAFETENSORS, data);
}

pub fn shards(data: &[u8]) {
    checked(SHARDS, data);
}

/// Read as the engine reads it, used on a few texts, and then as convert reads it.
pub fn tokenizer(data: &[u8]) {
    let Some((_, file)) = chosen(TOKENIZERS, data) else { return };
    match TextTokenizer::from_bytes(file) {
        Ok(tokenizer) => {
            for text in ["", "a red bicycle", "\u{e9}\u{1f600} 3.14\n\tWord", "[MASK] <|endoftext|> </s>"] {
                if let Ok(ids) = tokenizer.ids(text) {
                    assert!(
                        ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()),
                        "ids are below the vocabulary"
                    );
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    checked(TOKENIZERS, data);
}

/// GGUF files whose headers are damaged.
const GGUFS: [&str; 3] = ["bert-packed", "qwen3-q8", "gemma-embedding"];

/// The header of a GGUF file, with nothing behind it and then with a hole of the length that the true file has.
pub fn gguf(data: &[u8]) {
    thread_local! {
        static PLACE: TempDir = scratch();
    }
    let Some((first, file)) = data.split_first() else { return };
    let (_, data_bytes) = gguf_parts(GGUFS[usize::from(*first) % GGUFS.len()]);
    let place = PLACE.with(|folder| folder.path().join("model.gguf"));
    fs::write(&place, file).expect("a scratch file can be written");
    check(place.clone());
    let opened = fs::OpenOptions::new().write(true).open(&place);
    opened
        .and_then(|opened| opened.set_len(file.len() as u64 + data_bytes))
        .expect("a scratch file can be made longer");
    check(place);
}

/// The header of a GGUF file of the goldens up to where its data begin, and the length of its data.
fn gguf_parts(name: &str) -> (Vec<u8>, u64) {
    let mut bytes = read(&golden().join("gguf").join(format!("{name}.gguf")));
    // The name of the last tensor stands in the header alone, and its number of axes, sizes, type and offset behind it.
    let last = bytes.windows(TENSOR_END.len()).rposition(|window| window == TENSOR_END).expect("a tensor of weights");
    let axes = u32::from_le_bytes(*bytes[last + TENSOR_END.len()..].first_chunk().expect("a number of axes"));
    let end = last + TENSOR_END.len() + 4 + 8 * axes as usize + 4 + 8;
    let data = (bytes.len() - end.next_multiple_of(32)) as u64;
    bytes.truncate(end.next_multiple_of(32));
    (bytes, data)
}

/// How the name of the last tensor of those files ends.
const TENSOR_END: &[u8] = b".weight";

pub fn gguf_seeds() -> Vec<Vec<u8>> {
    let seed = |(index, name): (usize, &&str)| [vec![index as u8], gguf_parts(name).0].concat();
    GGUFS.iter().enumerate().map(seed).collect()
}

fn chosen<'a>(cases: &[Case], data: &'a [u8]) -> Option<(Case, &'a [u8])> {
    let (first, file) = data.split_first()?;
    Some((cases[usize::from(*first) % cases.len()], file))
}

/// Puts the file in its place in a copy of the checkpoint, and asks what a conversion would do.
fn checked(cases: &[Case], data: &[u8]) {
    thread_local! {
        static COPIES: RefCell<HashMap<Case, TempDir>> = RefCell::default();
    }
    let Some((case, file)) = chosen(cases, data) else { return };
    let folder = COPIES.with_borrow_mut(|copies| {
        let copy = copies.entry(case).or_insert_with(|| {
            let copy = scratch();
            copy_tree(&golden_checkpoint(case.0), copy.path());
            copy
        });
        copy.path().to_path_buf()
    });
    let place = folder.join(case.1);
    fs::write(&place, file).expect("a scratch file can be written");
    check(folder.clone());
    // A seed is the header alone; the data behind it is a hole of the length that the true file has.
    if case.1.ends_with(".safetensors") {
        let data_bytes = data_length(&read(&golden_checkpoint(case.0).join(case.1)));
        let hole = file.len() as u64 + data_bytes;
        let opened = fs::OpenOptions::new().write(true).open(&place).and_then(|file| file.set_len(hole));
        opened.expect("a scratch file can be made longer");
        check(folder);
    }
}

fn check(folder: PathBuf) {
    let mut options = ConvertOptions::new(folder, "no-such-folder/record");
    options.check = true;
    options.tasks = TaskChoice::All;
    match convert(&options) {
        Ok(report) => assert!(!report.to_string().is_empty()),
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error says what it is");
            assert!(matches!(error.exit_code(), 2 | 3), "{error}");
        }
    }
}

/// Bytes behind the header of a valid safetensors file.
fn data_length(file: &[u8]) -> u64 {
    file.len() as u64 - header_length(file)
}

fn header_length(file: &[u8]) -> u64 {
    8 + u64::from_le_bytes(*file.first_chunk().expect("a safetensors file begins with a length"))
}

fn seeds(cases: &[Case]) -> Vec<Vec<u8>> {
    let seed = |(index, (name, file)): (usize, &Case)| {
        let path = golden_checkpoint(name).join(file);
        let mut bytes = match *file {
            // No golden has this one.
            "config_sentence_transformers.json" => br#"{"prompts":{"query":"Query: ","document":"Document: "}}"#.into(),
            _ => read(&path),
        };
        if file.ends_with(".safetensors") {
            bytes.truncate(header_length(&bytes) as usize);
        }
        bytes.insert(0, index as u8);
        bytes
    };
    cases.iter().enumerate().map(seed).collect()
}

pub fn config_seeds() -> Vec<Vec<u8>> {
    seeds(CONFIGS)
}

pub fn side_file_seeds() -> Vec<Vec<u8>> {
    seeds(SIDE_FILES)
}

pub fn adapter_seeds() -> Vec<Vec<u8>> {
    seeds(ADAPTERS)
}

pub fn safetensors_seeds() -> Vec<Vec<u8>> {
    seeds(SAFETENSORS)
}

pub fn shards_seeds() -> Vec<Vec<u8>> {
    seeds(SHARDS)
}

pub fn tokenizer_seeds() -> Vec<Vec<u8>> {
    seeds(TOKENIZERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_a_gguf_file_is_accepted_as_it_is() {
        for (name, seed) in GGUFS.iter().zip(gguf_seeds()) {
            let place = scratch();
            let path = place.path().join("model.gguf");
            fs::write(&path, &seed[1..]).unwrap();
            let length = seed.len() as u64 - 1 + gguf_parts(name).1;
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let options = ConvertOptions { check: true, ..ConvertOptions::new(path, "no-such-folder/record") };
            if let Err(error) = convert(&options) {
                panic!("{name}: {error}");
            }
        }
    }

    /// A target whose valid files are refused proves nothing.
    #[test]
    fn every_seed_of_a_checkpoint_is_accepted_as_it_is() {
        for cases in [CONFIGS, SIDE_FILES, ADAPTERS, SAFETENSORS, SHARDS, TOKENIZERS] {
            for (case, seed) in cases.iter().zip(seeds(cases)) {
                let copy = scratch();
                copy_tree(&golden_checkpoint(case.0), copy.path());
                let place = copy.path().join(case.1);
                let data_bytes = if case.1.ends_with(".safetensors") { data_length(&read(&place)) } else { 0 };
                fs::write(&place, &seed[1..]).unwrap();
                let hole = seed.len() as u64 - 1 + data_bytes;
                fs::OpenOptions::new().write(true).open(&place).unwrap().set_len(hole).unwrap();
                let mut options = ConvertOptions::new(copy.path(), "no-such-folder/record");
                options.check = true;
                options.tasks = TaskChoice::All;
                if let Err(error) = convert(&options) {
                    panic!("{case:?}: {error}");
                }
            }
        }
    }
}
