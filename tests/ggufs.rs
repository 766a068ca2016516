//! GGUF files in the place of folders: vectors against transformers on the values that the package `gguf` reads out of them
//! (`golden/make/ggufs.py`), and every refusal by the key or tensor that it is about.

use std::path::{Path, PathBuf};

use omniburn::{Dtype, Engine, Input, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, GivenAdapter, TaskChoice, convert};
use omniburn_models::record::TensorRole;
use serde_json::Value;

use crate::support::*;

fn file(name: &str) -> PathBuf {
    workspace().join("tests/golden/gguf").join(name)
}

/// A text, the number of its tokens, and its vector.
type Text = (String, usize, Vec<f32>);
/// A fault, and what makes it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Parts));

/// Every file with its texts: the text, its ids' number, its vector.
fn cases() -> Vec<(String, Vec<Text>)> {
    let text = std::fs::read(golden().refs.join("ggufs.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let one = |text: &Value| {
        let vector = serde_json::from_value(text["vector"].clone()).unwrap();
        (str_of(&text["text"]).to_owned(), text["tokens"].as_u64().unwrap() as usize, vector)
    };
    let of =
        |case: &Value| (str_of(&case["file"]).to_owned(), case["texts"].as_array().unwrap().iter().map(one).collect());
    cases.iter().map(of).collect()
}

fn options(path: &Path, dtype: Dtype) -> ConvertOptions {
    ConvertOptions { dtype, ..ConvertOptions::new(path, scratch().join(format!("gguf-{}", next()))) }
}

fn converted(options: &ConvertOptions) -> (Engine, ConvertReport) {
    let report = convert(options).unwrap_or_else(|error| panic!("{}: {error}", options.source.display()));
    (builder(options.out.clone()).open().unwrap(), report)
}

#[test]
fn every_file_gives_the_vectors_of_the_values_it_holds() {
    let mut worst = Worst::default();
    for (name, texts) in cases() {
        let (engine, report) = converted(&options(&file(&name), Dtype::F32));
        assert!(texts.len() >= 5, "{name}");
        for (text, tokens, want) in texts {
            let request = Request::new(Role::Query).truncation(Truncation::Right);
            let got = engine.embed_with(&[Input::text(&text)], &request).unwrap().swap_remove(0).unwrap();
            assert_eq!(got.tokens, tokens, "{name} {text:?}");
            worst.see(compare(&format!("{name} {text:?}"), got.embedding.as_slice(), &want, embedding_bound()));
        }
        assert_eq!(report.source, name);
        let header = open(&report.out.clone().unwrap());
        let sources: Vec<&str> = header.header().sources.iter().map(|source| source.file.as_str()).collect();
        assert_eq!(sources, [name.as_str()]);
        assert!(report.notes.iter().any(|note| note.contains("no prompts")), "{report}");
    }
    worst.report("gguf");
}

#[test]
fn packed_weights_are_widened_to_every_type_and_the_report_says_how_large_they_were() {
    let report = convert(&ConvertOptions { check: true, ..ConvertOptions::new(file("bert-packed.gguf"), "") }).unwrap();
    let note = report.notes.iter().find(|note| note.contains("widened")).unwrap_or_else(|| panic!("{report}"));
    assert!(["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"].iter().all(|kind| note.contains(kind)), "{note}");
    let (name, texts) = cases().into_iter().find(|case| case.0 == "qwen3-q8.gguf").unwrap();
    let mut sizes = Vec::new();
    for (dtype, far) in [(Dtype::F32, 5e-6), (Dtype::Bf16, 0.02), (Dtype::F16, 0.02), (Dtype::Int8, 0.06)] {
        let (engine, report) = converted(&options(&file(&name), dtype));
        let got = engine.embed_one(Input::text(&texts[0].0), Role::Query).unwrap();
        compare(&format!("{dtype}"), got.as_slice(), &texts[0].2, far);
        // The token table, packed in the file, is of the record's type.
        sizes.push(report.parts[0].bytes);
    }
    assert_eq!((sizes[0], sizes[1], sizes[2]), (434 * 64 * 4, 434 * 64 * 2, 434 * 64 * 2));
    assert!(sizes[3] < sizes[1]);
}

/// Q8_0, Q4_0 and Q4_1 are affine groups already: their values come through to the bit.
#[test]
fn affine_records_keep_the_groups_of_a_file_as_they_are_packed() {
    let mut found = std::collections::BTreeMap::new();
    for name in ["qwen3-q8.gguf", "bert-packed.gguf"] {
        let exact = convert(&options(&file(name), Dtype::F32)).unwrap();
        let kept = convert(&options(&file(name), Dtype::Affine8)).unwrap();
        let note = kept.notes.iter().find(|note| note.contains("kept as they are packed"));
        let note = note.unwrap_or_else(|| panic!("{kept}"));
        let (exact, kept) = (open(&exact.out.unwrap()), open(&kept.out.unwrap()));
        for (part_file, specs) in exact.parts() {
            let (a, b) = (exact.part(&part_file, &specs).unwrap(), kept.part(&part_file, &specs).unwrap());
            for spec in specs.iter().filter(|spec| spec.role == TensorRole::Linear) {
                let layout = *b.affine(&spec.name).layout();
                if layout.id().contains("-g32") {
                    assert_eq!(&*a.bytes(&spec.name), &*b.bytes(&spec.name), "{name}: {}", spec.name);
                    *found.entry(layout.id()).or_insert(0) += 1;
                }
            }
        }
        assert!(["Q8_0", "Q4_0", "Q4_1"].iter().any(|kind| note.contains(kind)), "{note}");
        // Matrices of 8 bits do not stay such where 4 are asked for.
        let four = convert(&options(&file(name), Dtype::Affine4)).unwrap();
        assert!(!four.notes.iter().any(|note| note.contains("kept") && note.contains("matrices of Q8_0")), "{four}");
    }
    assert!(
        found.keys().any(|id| id.contains("affine8")) && found.keys().any(|id| id.contains("affine4")),
        "{found:?}"
    );
}

#[test]
fn an_adapter_is_merged_into_a_file_s_weights() {
    let adapter = GivenAdapter::new(workspace().join("tests/golden/adapters/bert-list"));
    let mut options = options(&file("bert-f32.gguf"), Dtype::F32);
    options.adapters.push(adapter.clone());
    let (from_file, report) = converted(&options);
    assert_eq!(report.merged, 4);
    let checkpoint = workspace().join("tests/golden/checkpoints/bert-tiny");
    let mut options = ConvertOptions { adapters: vec![adapter], ..self::options(&checkpoint, Dtype::F32) };
    options.tasks = TaskChoice::Default;
    let (from_folder, _) = converted(&options);
    let embed = |engine: &Engine| engine.embed_one(Input::text("red car"), Role::Query).unwrap().into_vec();
    assert_eq!(embed(&from_file), embed(&from_folder));
}

// ---- refusals

/// A file taken apart: what is said, by key, with its type in front; tensors with their sizes, type and offset; the data.
#[derive(Clone)]
struct Parts {
    version: u32,
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
}

impl Parts {
    fn of(name: &str) -> Self {
        let bytes = std::fs::read(file(name)).unwrap();
        let mut at = 8;
        let u32_at = |at: &mut usize| {
            *at += 4;
            u32::from_le_bytes(bytes[*at - 4..*at].try_into().unwrap())
        };
        let u64_at = |at: &mut usize| {
            *at += 8;
            u64::from_le_bytes(bytes[*at - 8..*at].try_into().unwrap())
        };
        let text_at = |at: &mut usize| {
            let length = u64_at(at) as usize;
            *at += length;
            String::from_utf8(bytes[*at - length..*at].to_vec()).unwrap()
        };
        let (tensors, pairs) = (u64_at(&mut at), u64_at(&mut at));
        let size = |kind: u32| [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][kind as usize];
        let pairs = (0..pairs)
            .map(|_| {
                let key = text_at(&mut at);
                let start = at;
                match u32_at(&mut at) {
                    8 => _ = text_at(&mut at),
                    9 => {
                        let (kind, count) = (u32_at(&mut at), u64_at(&mut at));
                        (0..count).for_each(|_| if kind == 8 { _ = text_at(&mut at) } else { at += size(kind) });
                    }
                    kind => at += size(kind),
                }
                (key, bytes[start..at].to_vec())
            })
            .collect();
        let tensors = (0..tensors)
            .map(|_| {
                let name = text_at(&mut at);
                let axes = u32_at(&mut at);
                let sizes = (0..axes).map(|_| u64_at(&mut at)).collect();
                (name, sizes, u32_at(&mut at), u64_at(&mut at))
            })
            .collect();
        let data = bytes[at.next_multiple_of(32)..].to_vec();
        Self { version: 3, pairs, tensors, data }
    }

    fn bytes(&self) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = [b"GGUF".as_slice(), &self.version.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            bytes.extend([text(key), value.clone()].concat());
        }
        for (name, sizes, kind, offset) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        let value = [&kind.to_le_bytes()[..], value].concat();
        match self.pairs.iter_mut().find(|(own, _)| own == key) {
            Some((_, own)) => *own = value,
            None => self.pairs.push((key.into(), value)),
        }
    }

    fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, 8, &[&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat());
    }

    fn remove(&mut self, key: &str) {
        let before = self.pairs.len();
        self.pairs.retain(|(own, _)| own != key);
        assert!(self.pairs.len() < before, "{key}");
    }
}

fn refused_bytes(bytes: &[u8]) -> ConvertError {
    let path = scratch().join(format!("refused-{}.gguf", next()));
    std::fs::write(&path, bytes).unwrap();
    let options = options(&path, Dtype::F32);
    let error = convert(&options).unwrap_err();
    assert!(error.exit_code() == 3 && !options.out.exists(), "{error}");
    // A check finds the same.
    let check = ConvertOptions { check: true, ..ConvertOptions::new(&path, "") };
    assert_eq!(convert(&check).unwrap_err().to_string(), error.to_string());
    error
}

fn refused(name: &str, change: impl FnOnce(&mut Parts)) -> ConvertError {
    let mut parts = Parts::of(name);
    assert_eq!(parts.bytes(), std::fs::read(file(name)).unwrap(), "taken apart and put together again");
    change(&mut parts);
    refused_bytes(&parts.bytes())
}

/// The fields that a refusal names.
fn fields(error: &ConvertError) -> Vec<&str> {
    match error {
        ConvertError::Fields { faults, .. } => faults.iter().map(|fault| fault.field.as_str()).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_file_says_and_is_not_computed_is_refused_by_its_key() {
    let bert = |change: &dyn Fn(&mut Parts)| refused("bert-f32.gguf", change);
    let one = 1u32.to_le_bytes();
    let cases: &[Change<'_>] = &[
        ("general.architecture", &|parts| parts.set_text("general.architecture", "mamba")),
        ("general.type", &|parts| parts.set_text("general.type", "adapter")),
        ("split.count", &|parts| parts.set("split.count", 2, &2u16.to_le_bytes())),
        ("bert.pooling_type", &|parts| parts.remove("bert.pooling_type")),
        ("bert.pooling_type", &|parts| parts.set("bert.pooling_type", 4, &0u32.to_le_bytes())),
        ("bert.pooling_type", &|parts| parts.set("bert.pooling_type", 4, &4u32.to_le_bytes())),
        ("bert.attention.max_alibi_bias", &|parts| parts.set("bert.attention.max_alibi_bias", 6, &8f32.to_le_bytes())),
        ("bert.a_key_of_next_year", &|parts| parts.set("bert.a_key_of_next_year", 4, &one)),
        ("bert.expert_count", &|parts| parts.set("bert.expert_count", 4, &8u32.to_le_bytes())),
        ("bert.vocab_size", &|parts| parts.set("bert.vocab_size", 4, &one)),
        ("bert.classifier.output_labels", &|parts| {
            parts.set("bert.classifier.output_labels", 9, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }),
        ("is_decoder", &|parts| parts.set("bert.attention.causal", 7, &[1])),
        ("hidden_size", &|parts| parts.remove("bert.embedding_length")),
        ("type_vocab_size", &|parts| parts.set("tokenizer.ggml.token_type_count", 4, &one)),
        ("tokenizer.ggml.model", &|parts| parts.set_text("tokenizer.ggml.model", "rwkv")),
        ("tokenizer.ggml.model", &|parts| parts.remove("tokenizer.ggml.model")),
        ("tokenizer.ggml.tokens", &|parts| parts.remove("tokenizer.ggml.tokens")),
        ("tokenizer.ggml.token_type", &|parts| {
            parts.set("tokenizer.ggml.token_type", 9, &[5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        }),
        ("tokenizer.ggml.unknown_token_id", &|parts| {
            parts.set("tokenizer.ggml.unknown_token_id", 4, &9999u32.to_le_bytes())
        }),
        ("tokenizer.ggml.a_normalizer", &|parts| parts.set_text("tokenizer.ggml.a_normalizer", "nfkc")),
    ];
    for (key, change) in cases {
        let error = bert(change);
        assert_eq!(fields(&error), [*key], "{error}");
    }
    let qwen3 = |change: &dyn Fn(&mut Parts)| refused("qwen3-q8.gguf", change);
    let cases: &[Change<'_>] = &[
        ("qwen3.rope.scaling.type", &|parts| parts.set_text("qwen3.rope.scaling.type", "yarn")),
        ("qwen3.attention.sliding_window", &|parts| parts.set("qwen3.attention.sliding_window", 4, &one)),
        ("qwen3.attention.value_length", &|parts| parts.set("qwen3.attention.value_length", 4, &one)),
        ("qwen3.rope.dimension_count", &|parts| parts.set("qwen3.rope.dimension_count", 4, &one)),
        ("qwen3.attention.scale", &|parts| parts.set("qwen3.attention.scale", 6, &0.5f32.to_le_bytes())),
        ("qwen3.rope.freq_base", &|parts| parts.set_text("qwen3.rope.freq_base", "high")),
        ("tokenizer.ggml.pre", &|parts| parts.set_text("tokenizer.ggml.pre", "deepseek-llm")),
        ("tokenizer.ggml.merges[0]", &|parts| {
            parts.set("tokenizer.ggml.merges", 9, &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'x'])
        }),
        ("tokenizer.ggml.eos_token_id", &|parts| parts.remove("tokenizer.ggml.eos_token_id")),
    ];
    for (key, change) in cases {
        let error = qwen3(change);
        assert_eq!(fields(&error), [*key], "{error}");
    }
    let error = bert(&|parts| parts.set_text("general.architecture", "mamba")).to_string();
    assert!(error.contains("\"bert\"") && error.contains("\"qwen3\""), "{error}");
}

#[test]
fn tensors_that_are_missing_left_over_or_of_a_type_that_is_not_read_are_named() {
    let tensors = |error: ConvertError| match error {
        ConvertError::Tensors { faults, .. } => faults,
        other => panic!("{other}"),
    };
    // A name that no rule knows: one is missing, one is left over.
    let faults = tensors(refused("bert-f32.gguf", |parts| {
        let tensor = parts.tensors.iter_mut().find(|tensor| tensor.0 == "blk.1.attn_q.weight").unwrap();
        tensor.0 = "blk.1.attn_x.weight".into();
    }));
    assert_eq!(faults.missing, ["encoder.layer.1.attention.self.query.weight"]);
    assert_eq!(faults.unmapped, ["blk.1.attn_x.weight"]);
    // IQ4_NL has the blocks of Q4_0.
    let faults = tensors(refused("bert-packed.gguf", |parts| {
        parts.tensors.iter_mut().filter(|tensor| tensor.2 == 2).for_each(|tensor| tensor.2 = 20);
    }));
    assert!(
        !faults.wrong_dtype.is_empty() && faults.wrong_dtype.iter().all(|fault| fault.found == "IQ4_NL"),
        "{faults}"
    );
    let faults = tensors(refused("bert-f32.gguf", |parts| {
        let tensor = parts.tensors.iter_mut().find(|tensor| tensor.0 == "blk.0.ffn_up.weight").unwrap();
        tensor.1.reverse();
    }));
    assert_eq!(faults.mis_shaped[0].tensor, "blk.0.ffn_up.weight");
}

#[test]
fn a_scale_that_is_not_finite_is_refused_with_its_tensor() {
    let mut parts = Parts::of("bert-packed.gguf");
    let tensor = parts.tensors.iter().find(|tensor| tensor.2 == 8).unwrap().clone();
    parts.data[tensor.3 as usize..][..2].copy_from_slice(&0x7C00u16.to_le_bytes());
    let path = scratch().join("infinite.gguf");
    std::fs::write(&path, parts.bytes()).unwrap();
    let error = convert(&options(&path, Dtype::F32)).unwrap_err();
    let ConvertError::NonFinite { faults, .. } = &error else { panic!("{error}") };
    assert_eq!((faults[0].tensor.as_str(), faults[0].count), (tensor.0.as_str(), 32), "{error}");
}

#[test]
fn files_that_contradict_themselves_are_corrupt_and_say_where() {
    let reason = |error: ConvertError| match error {
        ConvertError::Corrupt { tensor, reason, .. } => format!("{}: {reason}", tensor.unwrap_or_default()),
        other => panic!("{other}"),
    };
    let whole = std::fs::read(file("bert-f32.gguf")).unwrap();
    // Cut anywhere.
    let header = whole.len() - Parts::of("bert-f32.gguf").data.len();
    for length in [0, 3, 4, 8, 20, 24, 40, 300, header / 2, header - 40, header, header + 100, whole.len() - 64] {
        let error = reason(refused_bytes(&whole[..length]));
        assert!(["cut", "lies at", "more than"].iter().any(|word| error.contains(word)), "{length}: {error}");
    }
    let longer = [&whole[..], &[0; 64]].concat();
    assert!(reason(refused_bytes(&longer)).contains("but the tensors end at"));
    let mut other = whole.clone();
    other[..4].copy_from_slice(b"GGML");
    assert!(reason(refused_bytes(&other)).contains("does not begin with"));
    for (version, word) in [(1u32, "version 1"), (4, "version 4"), (3u32.swap_bytes(), "big-endian")] {
        assert!(reason(refused("bert-f32.gguf", |parts| parts.version = version)).contains(word));
    }
    // Counts that no file holds.
    for (at, word) in [(8, "number of tensors"), (16, "number of metadata")] {
        for count in [u64::MAX, 1 << 60, whole.len() as u64] {
            let mut other = whole.clone();
            other[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(reason(refused_bytes(&other)).contains(word), "{count}");
        }
    }
    let bert = |change: &dyn Fn(&mut Parts)| reason(refused("bert-f32.gguf", change));
    assert!(bert(&|parts| parts.pairs.push(parts.pairs[3].clone())).contains("stands twice"));
    assert!(bert(&|parts| parts.tensors[1].0 = parts.tensors[0].0.clone()).contains("stands twice"));
    assert!(bert(&|parts| parts.tensors[2].2 = 99).contains("of type 99"));
    assert!(bert(&|parts| parts.tensors[2].1 = vec![1; 5]).contains("5 axes"));
    assert!(bert(&|parts| parts.tensors[2].1 = vec![1 << 40, 1 << 40]).contains("more than any file"));
    assert!(bert(&|parts| parts.tensors[2].1 = vec![33]).contains("begins at"));
    assert!(bert(&|parts| parts.tensors[2].3 = u64::MAX - 5).contains("more than any file"));
    assert!(bert(&|parts| parts.tensors[0].3 += 32).contains("begins at"));
    assert!(bert(&|parts| parts.tensors[2].3 = parts.tensors[1].3).contains("begins at"));
    assert!(bert(&|parts| parts.set("general.alignment", 4, &33u32.to_le_bytes())).contains("general.alignment"));
    assert!(bert(&|parts| parts.set("general.name", 13, &[])).contains("type 13"));
    assert!(bert(&|parts| parts.set("general.name", 9, &[9, 0, 0, 0])).contains("list of lists"));
    assert!(
        bert(&|parts| parts.set("general.name", 9, &[8, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127]))
            .contains("general.name")
    );
    assert!(bert(&|parts| parts.set("general.name", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF])).contains("UTF-8"));
    let packed = |change: &dyn Fn(&mut Parts)| reason(refused("bert-packed.gguf", change));
    assert!(
        packed(&|parts| parts.tensors.iter_mut().find(|tensor| tensor.2 == 8).unwrap().1[0] = 31)
            .contains("blocks hold 32")
    );
}

#[test]
fn a_folder_with_a_gguf_file_alone_says_how_it_is_read() {
    let folder = scratch().join(format!("gguf-folder-{}", next()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(file("bert-f32.gguf"), folder.join("bert-f32.gguf")).unwrap();
    std::fs::copy(workspace().join("tests/golden/checkpoints/bert-tiny/config.json"), folder.join("config.json"))
        .unwrap();
    let error = convert(&options(&folder, Dtype::F32)).unwrap_err().to_string();
    assert!(error.contains("named itself"), "{error}");
}
