//! Text against the reference: ids, vectors, dimensions, batches, tasks, merges, hidden rows.

use omniburn::{Dtype, Engine, Input, Request, Role};
use omniburn_convert::TaskChoice;
use serde_json::Value;

use crate::support::*;

pub fn role(case: &Value) -> Role {
    match str_of(&case["prefix"]) {
        "query" => Role::Query,
        "document" => Role::Document,
        other => panic!("prefix {other}"),
    }
}

fn vector(engine: &Engine, text: &str, request: &Request) -> Vec<f32> {
    let mut results = engine.embed_with(&[Input::text(text)], request).unwrap();
    results.swap_remove(0).unwrap().embedding.into_vec()
}

#[test]
fn every_text_case_equals_the_reference() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let engine = checkpoint.engine();
        for case in checkpoint.cases("text") {
            let mut request = Request::new(role(case));
            if let Some(dim) = case["truncate_dim"].as_u64() {
                request = request.dim(dim as usize);
            }
            let name = format!("{} {}", checkpoint.name, case["embedding"]);
            let ids = ids_of(&case["input_ids"]);
            let results = engine.embed_with(&[Input::text(text(&checkpoint, str_of(&case["name"])))], &request);
            if ids.is_empty() {
                assert_eq!(results.unwrap()[0].as_ref().unwrap_err().kind().name(), "empty", "{name}");
                continue;
            }
            let embedded = results.unwrap().swap_remove(0).unwrap();
            assert_eq!(embedded.tokens, ids.len(), "{name}: tokens");
            assert!(!embedded.truncated);
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            worst.see(compare(&name, embedded.embedding.as_slice(), &want, embedding_bound()));
        }
    }
    worst.report("text");
}

#[test]
fn token_ids_are_exactly_the_references() {
    let mut count = 0;
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let tokenizer = omniburn_media::TextTokenizer::from_file(&checkpoint.folder.join("tokenizer.json")).unwrap();
        assert_eq!(tokenizer.trailing_specials(), ids_of(&checkpoint.manifest["suffix_ids"]), "{}", checkpoint.name);
        for case in checkpoint.cases("text").filter(|c| c["truncate_dim"].is_null()) {
            let prefix = if role(case) == Role::Query { "Query: " } else { "Document: " };
            let ids = tokenizer.ids(&format!("{prefix}{}", text(&checkpoint, str_of(&case["name"])))).unwrap();
            assert_eq!(ids, ids_of(&case["input_ids"]), "{} {}", checkpoint.name, case["embedding"]);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn a_batch_of_texts_equals_the_references_batch() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let engine = checkpoint.engine();
        for case in checkpoint.cases("text_batch") {
            let texts: Vec<Input> =
                case["names"].as_array().unwrap().iter().map(|n| Input::text(text(&checkpoint, str_of(n)))).collect();
            let got = engine.embed_with(&texts, &Request::new(role(case))).unwrap();
            let got: Vec<f32> = got.into_iter().flat_map(|r| r.unwrap().embedding.into_vec()).collect();
            worst.see(compare(
                &checkpoint.name,
                &got,
                &checkpoint.tensor(str_of(&case["embedding"])),
                embedding_bound(),
            ));
        }
    }
    worst.report("text batches");
}

/// The text of a name in a checkpoint's manifest.
pub fn text<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a str {
    str_of(
        &checkpoint
            .cases("text")
            .find(|c| c["name"] == name && c["text"].is_string())
            .unwrap_or_else(|| panic!("no text {name}"))["text"],
    )
}

#[test]
fn every_task_equals_the_reference() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let engine = checkpoint.engine();
        for case in checkpoint.cases("text_task") {
            let request = Request::new(role(case)).task(str_of(&case["task"]));
            let got = vector(&engine, text(&checkpoint, str_of(&case["name"])), &request);
            let name = format!("{} {}", checkpoint.name, case["embedding"]);
            worst.see(compare(&name, &got, &checkpoint.tensor(str_of(&case["embedding"])), embedding_bound()));
        }
    }
    worst.report("tasks");
}

#[test]
fn without_an_adapter_the_base_weights_are_used() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::None)).open().unwrap();
        for case in checkpoint.cases("text_base") {
            let got = vector(&engine, text(&checkpoint, str_of(&case["name"])), &Request::new(role(case)));
            let name = format!("{} {}", checkpoint.name, case["embedding"]);
            worst.see(compare(&name, &got, &checkpoint.tensor(str_of(&case["embedding"])), embedding_bound()));
        }
    }
    worst.report("base weights");
}

#[test]
fn a_bf16_record_computed_in_f32_equals_the_references_bf16_merge() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let engine = builder(checkpoint.record(Dtype::Bf16)).open().unwrap();
        for case in checkpoint.cases("text_bf16_merge") {
            let got = vector(&engine, text(&checkpoint, str_of(&case["name"])), &Request::new(role(case)));
            let name = format!("{} {}", checkpoint.name, case["embedding"]);
            worst.see(compare(&name, &got, &checkpoint.tensor(str_of(&case["embedding"])), embedding_bound()));
        }
    }
    worst.report("bf16 merge");
}

#[test]
fn bf16_and_f16_arithmetic_stay_near_the_reference() {
    for (dtype, bound) in [(Dtype::Bf16, 0.9995), (Dtype::F16, 0.99999)] {
        let (mut least, mut count) = (1.0f64, 0);
        for checkpoint in sets().iter().flat_map(Set::checkpoints) {
            let engine = Engine::builder(checkpoint.record(dtype)).dtype(dtype).open().unwrap();
            let mut see = |name: &str, got: &[f32], want: &[f32]| {
                let cosine = distance(name, got, want).cosine;
                assert!(cosine >= bound, "{name} in {dtype}: cosine {cosine}");
                (least, count) = (least.min(cosine), count + 1);
            };
            for case in checkpoint.cases("text").filter(|c| c["truncate_dim"].is_null()) {
                if ids_of(&case["input_ids"]).is_empty() {
                    continue;
                }
                let got = vector(&engine, text(&checkpoint, str_of(&case["name"])), &Request::new(role(case)));
                let key = str_of(&case["embedding"]);
                see(&format!("{} {key}", checkpoint.name), &got, &checkpoint.tensor(key));
            }
            for (name, input, request, want) in crate::cases::default_layout_cases(&checkpoint, "image") {
                let result = engine.embed_with(&[input], &request).unwrap().swap_remove(0).unwrap();
                see(&name, result.embedding.as_slice(), &want);
            }
        }
        println!("{dtype} arithmetic: {count} vectors, least cosine {least:.6}");
    }
}

#[test]
fn hidden_rows_of_every_layer_equal_the_references() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let model = crate::direct::Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        for case in checkpoint.cases("debug") {
            let ids = ids_of(&case["input_ids"]);
            let ((), captured) = omniburn_models::capture::collect(|| {
                model.text(std::slice::from_ref(&ids));
            });
            let keys: Vec<&str> = case["hidden"].as_array().unwrap().iter().map(str_of).collect();
            let layers = keys.len() - 1;
            for (i, key) in keys.iter().enumerate() {
                let name = match i {
                    0 => "backbone.rows".to_string(),
                    i if i == layers => "backbone.norm".to_string(),
                    i => format!("backbone.layers.{}", i - 1),
                };
                let got = captured.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no {name}"));
                let what = format!("{} {key} as {name}", checkpoint.name);
                worst.see(compare(&what, &got.values, &checkpoint.tensor(key), feature_bound()));
            }
        }
    }
    worst.report("hidden rows");
}
