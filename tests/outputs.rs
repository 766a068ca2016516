//! What the rows of a text give beside its vector: weights of tokens and vectors of rows, of bge-m3.

use std::path::PathBuf;

use omniburn::{
    Dtype, Embedded, Embedding, Engine, EngineError, Input, OutputKind, Priority, Request, Role, Truncation, max_sim,
};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use omniburn_media::TextTokenizer;
use serde_json::Value;

use crate::support::*;

/// Weights of tokens against the reference in f32, and sums of their products: they are not of unit length.
const WEIGHT_BOUND: f32 = 1e-5;
const NAME: &str = "bge-m3-tiny";
/// What such a model gives.
const OF_ROWS: [OutputKind; 3] = [OutputKind::Dense, OutputKind::Sparse, OutputKind::Multi];
/// Texts whose ids in a manifest are those of `tokenizer.json` alone; see `families`.
const OTHER_IDS: [&str; 5] = ["space", "combining", "emoji", "code", "whitespace"];

fn engine() -> (Checkpoint, Engine) {
    let checkpoint = golden().checkpoint(NAME);
    let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    (checkpoint, engine)
}

fn everything() -> Request {
    Request::new(Role::Document).truncation(Truncation::Right).outputs(OF_ROWS)
}

fn embed(engine: &Engine, text: &str, request: &Request) -> Embedded {
    engine.embed_with(&[Input::text(text)], request).unwrap().swap_remove(0).unwrap()
}

fn rows_of(values: &[f32], width: usize) -> Vec<Vec<f32>> {
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn texts(checkpoint: &Checkpoint) -> Vec<&Value> {
    checkpoint.cases("text").filter(|case| !OTHER_IDS.contains(&str_of(&case["name"]))).collect()
}

#[test]
fn weights_of_tokens_and_vectors_of_rows_equal_the_reference() {
    let (checkpoint, engine) = engine();
    assert_eq!(engine.profile().outputs, ["dense", "sparse", "multi"]);
    let (mut dense, mut sparse, mut multi) = (Worst::default(), Worst::default(), Worst::default());
    for case in texts(&checkpoint) {
        let name = str_of(&case["name"]);
        let got = embed(&engine, str_of(&case["text"]), &everything());
        assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
        let want = checkpoint.tensor(str_of(&case["dense"]));
        dense.see(compare(name, got.embedding.as_slice(), &want, embedding_bound()));
        let weights = got.sparse.as_ref().expect("they were asked for");
        assert_eq!(weights.indices, ids_of(&case["sparse_ids"]), "{name}");
        if !weights.indices.is_empty() {
            let want = checkpoint.tensor(str_of(&case["sparse_weights"]));
            sparse.see(compare(name, &weights.values, &want, WEIGHT_BOUND));
        }
        let rows = got.multi.as_ref().expect("they were asked for");
        assert_eq!(rows.len(), got.tokens - 1, "{name}: the first row has none");
        if let Some(key) = case["colbert"].as_str() {
            let got: Vec<f32> = rows.iter().flat_map(|row| row.as_slice().to_vec()).collect();
            multi.see(compare(name, &got, &checkpoint.tensor(key), embedding_bound()));
        }
    }
    dense.report("dense");
    sparse.report("sparse");
    multi.report("multi");
    // Without being asked for, they are not computed.
    let plain = embed(&engine, "a text", &Request::default());
    assert_eq!((plain.sparse, plain.multi), (None, None));
}

#[test]
fn texts_are_compared_by_their_rows_and_their_weights_as_the_reference_does() {
    let (checkpoint, engine) = engine();
    let case = checkpoint.cases("scores").next().unwrap();
    let names = |key: &str| -> Vec<String> {
        case[key].as_array().unwrap().iter().map(|name| str_of(name).to_string()).collect()
    };
    let (queries, documents) = (names("queries"), names("documents"));
    let text = |name: &str| -> Embedded {
        let case = checkpoint.cases("text").find(|case| case["name"] == name).unwrap();
        embed(&engine, str_of(&case["text"]), &everything())
    };
    let width = documents.len();
    let wanted = |key: &str| rows_of(&checkpoint.tensor(str_of(&case[key])), width);
    let (sparse, colbert) = (wanted("sparse"), wanted("colbert"));
    let mut compared = 0;
    for (q, query) in queries.iter().enumerate().filter(|(_, name)| !OTHER_IDS.contains(&name.as_str())) {
        for (d, document) in documents.iter().enumerate() {
            let (one, other) = (text(query), text(document));
            let weights = one.sparse.as_ref().unwrap().dot(other.sparse.as_ref().unwrap());
            compare(&format!("{query} {document}"), &[weights], &[sparse[q][d]], 2e-5);
            let rows = max_sim(one.multi.as_ref().unwrap(), other.multi.as_ref().unwrap());
            compare(&format!("{query} {document}"), &[rows], &[colbert[q][d]], embedding_bound());
            compared += 1;
        }
    }
    assert!(compared >= 8, "{compared}");
    assert_eq!(max_sim(&[], &[Embedding::from_raw(vec![1.0]).unwrap()]), 0.0);
}

#[test]
fn outputs_have_the_same_bits_alone_in_any_batch_and_beside_others_that_want_less() {
    let (checkpoint, engine) = engine();
    let texts: Vec<&str> = texts(&checkpoint).into_iter().map(|case| str_of(&case["text"])).collect();
    let alone: Vec<Embedded> = texts.iter().map(|text| embed(&engine, text, &everything())).collect();
    let inputs: Vec<Input> = texts.iter().map(|text| Input::text(*text)).collect();
    let together = engine.embed_with(&inputs, &everything()).unwrap();
    for (got, want) in together.into_iter().zip(&alone) {
        assert_eq!(&got.unwrap(), want);
    }
    let kinds = [vec![OutputKind::Dense], vec![OutputKind::Sparse], vec![OutputKind::Multi], OF_ROWS.to_vec()];
    let engine = &engine;
    std::thread::scope(|scope| {
        for kinds in &kinds {
            for (input, want) in inputs.iter().zip(&alone) {
                scope.spawn(move || {
                    let request = everything().outputs(kinds.iter().copied());
                    let got = engine.embed_with(std::slice::from_ref(input), &request).unwrap().swap_remove(0).unwrap();
                    assert_eq!(got.embedding, want.embedding);
                    assert_eq!(got.sparse, want.sparse.clone().filter(|_| kinds.contains(&OutputKind::Sparse)));
                    assert_eq!(got.multi, want.multi.clone().filter(|_| kinds.contains(&OutputKind::Multi)));
                });
            }
        }
    });
    assert_eq!(engine.memory_in_use().1, 0);
}

#[test]
fn an_output_that_a_model_has_not_is_refused_with_those_it_has() {
    let checkpoint = golden().checkpoint("xlm-roberta-tiny");
    let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    for kind in [OutputKind::Sparse, OutputKind::Multi] {
        let error = engine.embed_with(&[], &Request::default().outputs([kind])).unwrap_err();
        assert!(matches!(error, EngineError::UnknownOutput { .. }), "{error}");
        assert_eq!(error.to_string(), format!("no output `{}` of this model; it gives dense", kind.name()));
    }
}

/// A copy of the checkpoint without some of its files.
fn without(files: &[&str]) -> PathBuf {
    let copy = scratch().join(format!("outputs-{}", next()));
    copy_folder(&golden().checkpoint(NAME).folder, &copy);
    files.iter().for_each(|file| std::fs::remove_file(copy.join(file)).unwrap());
    copy
}

#[test]
fn heads_are_read_from_safetensors_and_pickles_are_named_and_left_alone() {
    let check = |folder: PathBuf| convert(&ConvertOptions { check: true, ..ConvertOptions::new(folder, "") });
    let gives = |folder: PathBuf| {
        let engine = builder(record(&folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
        engine.profile().outputs
    };
    assert_eq!(gives(without(&["sparse_linear.safetensors"])), ["dense", "multi"]);
    assert_eq!(gives(without(&["colbert_linear.safetensors", "colbert_linear.pt"])), ["dense", "sparse"]);
    let pickles = without(&["sparse_linear.safetensors", "colbert_linear.safetensors"]);
    let report = check(pickles.clone()).unwrap();
    let said: Vec<&String> =
        report.notes.iter().filter(|note| note.contains("is a pickle and is not opened")).collect();
    assert_eq!(said.len(), 2, "{:?}", report.notes);
    assert_eq!(gives(pickles), ["dense"]);
    // A family that has no such heads takes no such files.
    let other = scratch().join(format!("outputs-{}", next()));
    copy_folder(&golden().checkpoint("modernbert-tiny").folder, &other);
    std::fs::copy(
        golden().checkpoint(NAME).folder.join("sparse_linear.safetensors"),
        other.join("sparse_linear.safetensors"),
    )
    .unwrap();
    let error = check(other).unwrap_err().to_string();
    assert!(error.contains("nothing takes"), "{error}");
}

/// Mistakes move what rows give by more than ten tolerances: the comparisons above can fail.
#[test]
fn mistakes_in_heads_over_rows_show() {
    let (checkpoint, engine) = engine();
    let (case, request) = (checkpoint.cases("text").find(|case| case["name"] == "plain").unwrap(), everything());
    let right = embed(&engine, str_of(&case["text"]), &request);
    // Weights as the model gives them, before the largest of each token is taken, have more of them.
    let weights = checkpoint.tensor(str_of(&case["token_weights"]));
    let tokenizer = TextTokenizer::from_file(&checkpoint.folder.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.ids(str_of(&case["text"])).unwrap().len(), weights.len());
    assert!(weights.iter().filter(|weight| **weight > 0.0).count() > right.sparse.as_ref().unwrap().indices.len());
    // Another head: its bias is taken away.
    let copy = without(&[]);
    for (file, what) in [("colbert_linear", "multi"), ("sparse_linear", "sparse")] {
        let path = copy.join(format!("{file}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let zeros = vec![0u8; stored.tensor("bias").unwrap().data().len()];
        let views = stored.tensors().into_iter().map(|(name, view)| {
            let data = if name == "bias" { &zeros[..] } else { view.data() };
            let changed = safetensors::tensor::TensorView::new(view.dtype(), view.shape().to_vec(), data).unwrap();
            (name, changed)
        });
        std::fs::write(&path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
        println!("{what} without its bias");
    }
    let wrong = builder(record(&copy, Dtype::F32, TaskChoice::Default)).open().unwrap();
    let wrong = embed(&wrong, str_of(&case["text"]), &request);
    let far = |a: &[Embedding], b: &[Embedding]| {
        let each = a.iter().zip(b).flat_map(|(a, b)| a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs()));
        each.fold(0.0, f32::max)
    };
    let moved = far(right.multi.as_ref().unwrap(), wrong.multi.as_ref().unwrap()) / embedding_bound();
    assert!(moved > 10.0, "{moved}");
    assert_ne!(right.sparse, wrong.sparse);
    assert_eq!(right.embedding, wrong.embedding, "the vector has no part in it");
}

/// What colbert-ai writes beside the weights.
const METADATA: &str = "artifact.metadata";

/// Late models of every set: a vector a row.
fn late() -> Vec<Checkpoint> {
    let names = ["lfm2-tiny", "bert-colbert-tiny", "bert-colbert-ai-tiny", "modernbert-colbert-tiny"];
    let there = |set: &Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    let of = |set: Set| {
        names.into_iter().filter(|name| there(&set, name)).map(|name| set.checkpoint(name)).collect::<Vec<_>>()
    };
    let found: Vec<Checkpoint> = sets().into_iter().flat_map(of).collect();
    assert!(names.iter().all(|name| found.iter().any(|checkpoint| checkpoint.name == *name)));
    found
}

fn late_engine(checkpoint: &Checkpoint) -> Engine {
    builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap()
}

fn role_name(role: Role) -> &'static str {
    if role == Role::Query { "query" } else { "document" }
}

fn prefix_of(role: Role) -> &'static str {
    if role == Role::Query { "[Q] " } else { "[D] " }
}

/// The text and the role of a case of rows.
fn late_case(checkpoint: &Checkpoint, case: &Value) -> (String, Request) {
    let role = match (case["role"].as_str(), case["prefix"].as_str()) {
        (Some("query"), _) | (None, Some("[Q] ")) => Role::Query,
        (Some("document"), _) | (None, Some("[D] ")) => Role::Document,
        other => panic!("{other:?}"),
    };
    let text = case["text"].as_str().map_or_else(|| checkpoint.text_named(str_of(&case["name"])), String::from);
    (text, Request::new(role).truncation(Truncation::Right).outputs([OutputKind::Multi]))
}

#[test]
fn rows_of_late_models_equal_the_reference() {
    for checkpoint in late() {
        let engine = late_engine(&checkpoint);
        assert_eq!(engine.profile().outputs, ["multi", "dense"], "{}", checkpoint.name);
        let mut worst = Worst::default();
        for case in checkpoint.cases("tokens") {
            let (text, request) = late_case(&checkpoint, case);
            let name = format!("{}, {}, {}", checkpoint.name, case["name"], case["role"]);
            let got = embed(&engine, &text, &request);
            assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
            let rows = got.multi.expect("they were asked for");
            let got: Vec<f32> = rows.iter().flat_map(|row| row.as_slice().to_vec()).collect();
            worst.see(compare(&name, &got, &checkpoint.tensor(str_of(&case["embedding"])), embedding_bound()));
        }
        worst.report(&format!("{}, rows", checkpoint.name));
    }
}

#[test]
fn late_models_score_as_the_reference_does() {
    for checkpoint in late() {
        let engine = late_engine(&checkpoint);
        let case = checkpoint.cases("scores").next().expect("scores");
        let rows = |name: &Value, role: &str| {
            let is_role = |case: &&Value| {
                let is = if role == "query" { Role::Query } else { Role::Document };
                case["role"] == role || case["prefix"] == prefix_of(is)
            };
            let case = checkpoint.cases("tokens").filter(is_role).find(|case| case["name"] == *name).unwrap();
            let (text, request) = late_case(&checkpoint, case);
            embed(&engine, &text, &request).multi.unwrap()
        };
        let names = |key: &str| case[key].as_array().unwrap().clone();
        let mut got = Vec::new();
        for query in names("queries") {
            let query = rows(&query, "query");
            for document in names("documents") {
                // The library sums, and here the mean over the rows of the query is taken.
                got.push(max_sim(&query, &rows(&document, "document")) * query.len() as f32);
            }
        }
        let want = checkpoint.tensor(str_of(&case["scores"]));
        compare(&checkpoint.name, &got, &want, 64.0 * embedding_bound());
    }
}

/// Expansions that the folder does not ask for itself, each against the reference.
#[test]
fn every_expansion_of_queries_equals_the_reference() {
    let mut seen = 0;
    for checkpoint in late() {
        let mut engines: Vec<(Value, Engine)> = Vec::new();
        let mut worst = Worst::default();
        for case in checkpoint.cases("changed") {
            let change = &case["change"];
            if !engines.iter().any(|(of, _)| of == change) {
                let copy = scratch().join(format!("late-{}", next()));
                copy_folder(&checkpoint.folder, &copy);
                let metadata = copy.join(METADATA);
                let own = metadata.is_file();
                let path = if own { metadata } else { copy.join("sentence_bert_config.json") };
                let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                match change.as_object().filter(|_| own) {
                    Some(change) => json.as_object_mut().unwrap().extend(change.clone()),
                    None => json["query_expansion"] = change.clone(),
                }
                std::fs::write(&path, json.to_string()).unwrap();
                let engine = builder(record(&copy, Dtype::F32, TaskChoice::Default)).open().unwrap();
                engines.push((change.clone(), engine));
            }
            let engine = &engines.iter().find(|(of, _)| of == change).unwrap().1;
            let (text, request) = late_case(&checkpoint, case);
            let name = format!("{}, {}, {}, {change}", checkpoint.name, case["name"], case["role"]);
            let got = embed(engine, &text, &request);
            assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
            let got: Vec<f32> = got.multi.unwrap().iter().flat_map(|row| row.as_slice().to_vec()).collect();
            worst.see(compare(&name, &got, &checkpoint.tensor(str_of(&case["embedding"])), embedding_bound()));
            seen += 1;
        }
        if !engines.is_empty() {
            worst.report(&format!("{}, other expansions", checkpoint.name));
        }
    }
    assert!(seen >= 38, "{seen}");
}

/// Expanded queries beside documents and plain texts, in any order: rows that none sees change nobody's bits, and nobody theirs.
#[test]
fn rows_of_late_models_have_the_same_bits_in_any_company() {
    for checkpoint in late() {
        let engine = late_engine(&checkpoint);
        let cases: Vec<(String, Request)> =
            checkpoint.cases("tokens").map(|case| late_case(&checkpoint, case)).collect();
        let alone: Vec<Embedded> = cases.iter().map(|(text, request)| embed(&engine, text, request)).collect();
        let engine = &engine;
        std::thread::scope(|scope| {
            for ((text, request), want) in cases.iter().zip(&alone) {
                scope.spawn(move || {
                    let got = embed(engine, text, &request.clone().priority(Priority::Background));
                    assert_eq!(&got, want, "{text}");
                });
            }
        });
        // In one call, too.
        for role in [Role::Query, Role::Document] {
            let of: Vec<usize> = checkpoint
                .cases("tokens")
                .enumerate()
                .filter(|(_, case)| case["role"] == role_name(role) || case["prefix"] == prefix_of(role))
                .map(|(at, _)| at)
                .collect();
            let Some(&first) = of.first() else { continue };
            let inputs: Vec<Input> = of.iter().rev().map(|&at| Input::text(&cases[at].0)).collect();
            let together = engine.embed_with(&inputs, &cases[first].1).unwrap();
            for (got, &at) in together.into_iter().zip(of.iter().rev()) {
                assert_eq!(got.unwrap(), alone[at], "{}: {}", checkpoint.name, cases[at].0);
            }
        }
    }
}

/// A setting of a late model that is not computed, or that contradicts itself, is refused by name.
#[test]
fn settings_of_late_models_that_are_not_computed_are_refused_by_name() {
    use serde_json::json;
    let settings = "config_sentence_transformers.json";
    let cases: [(&str, &str, &str, Value); 13] = [
        ("bert-colbert-ai-tiny", METADATA, "interaction", json!("flipr")),
        ("bert-colbert-ai-tiny", METADATA, "similarity", json!("hamming")),
        ("bert-colbert-ai-tiny", METADATA, "relu", json!(true)),
        ("bert-colbert-ai-tiny", METADATA, "linear.weight", json!(1)),
        ("bert-colbert-ai-tiny", METADATA, "query_maxlen", json!(0)),
        ("bert-colbert-ai-tiny", METADATA, "[unused7]", json!("")),
        ("lfm2-tiny", settings, "similarity_fn_name", json!("cosine")),
        ("lfm2-tiny", settings, "query_length", json!("32")),
        ("lfm2-tiny", settings, "truncate_dim", json!(64)),
        ("lfm2-tiny", settings, "model_type", json!("CrossEncoder")),
        ("lfm2-tiny", "1_Dense/config.json", "activation_function", json!("my.Own")),
        ("lfm2-tiny", "1_Dense/config.json", "in_features", json!(32)),
        ("lfm2-tiny", "config.json", "layer_types", json!(["conv"])),
    ];
    for (name, file, field, value) in cases {
        let copy = scratch().join(format!("late-{}", next()));
        copy_folder(&golden().checkpoint(name).folder, &copy);
        let path = copy.join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        match field {
            // Widths of a product, and a marker, that the folder does not have.
            "linear.weight" => json["dim"] = 24.into(),
            "[unused7]" => json["doc_token_id"] = field.into(),
            _ => json[field] = value.clone(),
        }
        std::fs::write(&path, json.to_string()).unwrap();
        let error = convert(&ConvertOptions { check: true, ..ConvertOptions::new(copy, "") }).unwrap_err().to_string();
        assert!(error.contains(field), "{name} {field} = {value}: {error}");
    }
    // A family without rows gives no vector for each.
    let copy = scratch().join(format!("late-{}", next()));
    copy_folder(&golden().checkpoint("nomic-bert-tiny").folder, &copy);
    let _ = std::fs::remove_dir_all(copy.join("1_Pooling"));
    let dense = golden().checkpoint("lfm2-tiny").folder;
    copy_folder(&dense.join("1_Dense"), &copy.join("1_Dense"));
    std::fs::copy(dense.join("modules.json"), copy.join("modules.json")).unwrap();
    std::fs::copy(dense.join(settings), copy.join(settings)).unwrap();
    let error = convert(&ConvertOptions { check: true, ..ConvertOptions::new(copy, "") }).unwrap_err().to_string();
    assert!(error.contains("modules.json") || error.contains("in_features"), "{error}");
}
