//! Chunks of a text that is read whole, against the reference; and models that have none.

use std::num::NonZeroUsize;

use omniburn::{Dtype, Embedded, Engine, EngineError, Input, Priority, Request, Role, Truncation};
use omniburn_convert::TaskChoice;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::*;

fn engine(name: &str) -> Engine {
    builder(record(&golden().checkpoint(name).folder, Dtype::F32, TaskChoice::Default)).open().unwrap()
}

fn request(most: usize) -> Request {
    Request::new(Role::None).late_chunks(NonZeroUsize::new(most).unwrap())
}

fn embed(engine: &Engine, text: &str, request: &Request) -> Embedded {
    engine.embed_with(&[Input::text(text)], request).unwrap().swap_remove(0).unwrap()
}

struct Case {
    engine: Engine,
    text: String,
    most: usize,
    rows: Vec<[usize; 2]>,
    chunks: Vec<Vec<f32>>,
    whole: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let refs = golden().refs;
    let manifest: Value = serde_json::from_slice(&std::fs::read(refs.join("late-chunks.json")).unwrap()).unwrap();
    let bytes = std::fs::read(refs.join("late-chunks.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |key: &Value| -> Vec<f32> {
        let data = file.tensor(str_of(key)).unwrap();
        data.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let of = |case: &Value| {
        let whole = tensor(&case["whole"]);
        Case {
            engine: engine(str_of(&case["model"])),
            text: str_of(&case["text"]).into(),
            most: case["most"].as_u64().unwrap() as usize,
            rows: serde_json::from_value(case["rows"].clone()).unwrap(),
            chunks: tensor(&case["chunks"]).chunks_exact(whole.len()).map(<[f32]>::to_vec).collect(),
            whole,
        }
    };
    manifest["cases"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn chunks_equal_the_reference() {
    let mut worst = Worst::default();
    for Case { engine, text, most, rows, chunks, whole } in cases() {
        let got = embed(&engine, &text, &request(most));
        let tokens: Vec<usize> = got.chunks.iter().map(|chunk| chunk.tokens).collect();
        assert_eq!(tokens, rows.iter().map(|[from, to]| to - from).collect::<Vec<_>>());
        assert_eq!(tokens.iter().sum::<usize>(), got.tokens);
        for (chunk, want) in got.chunks.iter().zip(&chunks) {
            worst.see(compare(&text[chunk.bytes.clone()], chunk.embedding.as_slice(), want, embedding_bound()));
        }
        compare("whole", got.embedding.as_slice(), &whole, embedding_bound());
        // Its bytes, one chunk after the other, are the text.
        let texts: Vec<&str> = got.chunks.iter().map(|chunk| &text[chunk.bytes.clone()]).collect();
        assert_eq!(texts.concat(), text);
        // The vector of all of it has the bits it has without chunks, and no chunk those it has alone: rows know of all others.
        let plain = embed(&engine, &text, &Request::new(Role::None));
        assert_eq!((plain.embedding, plain.chunks.len()), (got.embedding.clone(), 0));
        for chunk in &got.chunks {
            let alone = embed(&engine, text[chunk.bytes.clone()].trim(), &Request::new(Role::None));
            let far = distance("alone", alone.embedding.as_slice(), chunk.embedding.as_slice()).max_abs;
            assert!(far > 10.0 * embedding_bound(), "{far}");
        }
        // One chunk that holds all of it is the text.
        let one = embed(&engine, &text, &request(10_000));
        assert_eq!((one.chunks.len(), &one.chunks[0].embedding), (1, &got.embedding));
    }
    worst.report("late chunks");
}

#[test]
fn chunks_have_the_same_bits_in_any_company() {
    for Case { engine, text, most, .. } in cases() {
        let alone = embed(&engine, &text, &request(most));
        let plain = embed(&engine, "a text without chunks", &Request::new(Role::None));
        let other = embed(&engine, &text, &request(most * 3));
        let engine = &engine;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                for (text, request, want) in [
                    (text.as_str(), request(most), &alone),
                    ("a text without chunks", Request::new(Role::None), &plain),
                    (text.as_str(), request(most * 3), &other),
                ] {
                    scope.spawn(move || {
                        let request = request.priority(Priority::Background);
                        assert_eq!(&embed(engine, text, &request), want);
                    });
                }
            }
        });
    }
}

#[test]
fn chunks_that_begin_at_given_places_have_the_bits_of_those_that_were_found_there() {
    for Case { engine, text, most, .. } in cases() {
        let found = embed(&engine, &text, &request(most));
        let starts: Vec<usize> = found.chunks.iter().map(|chunk| chunk.bytes.start).collect();
        let at = |starts: Vec<usize>| Request::new(Role::None).late_chunks_at(starts);
        assert_eq!(embed(&engine, &text, &at(starts.clone())), found);
        let error = engine.embed_with(&[Input::text(&text)], &at([starts, vec![text.len()]].concat())).unwrap();
        let error = error.into_iter().next().unwrap().unwrap_err();
        assert!(error.to_string().contains(&format!("chunk {}", found.chunks.len())), "{error}");
    }
}

#[test]
fn chunks_are_refused_where_a_vector_is_no_mean_of_rows_with_the_reason() {
    let refused = |name: &str, reason: &str| {
        let error = engine(name).embed_with(&[], &request(64)).unwrap_err();
        assert!(matches!(error, EngineError::NoLateChunks { .. }), "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
    };
    refused("qwen3-embedding-tiny", "the last token");
    refused("xlm-roberta-tiny", "the first token");
    refused("siglip-tiny", "makes the vector of a text itself");
    refused("omni-small-tiny", "makes the vector of a text itself");
}

#[test]
fn texts_that_are_too_long_are_refused_or_cut_at_their_end() {
    let engine = engine("modernbert-tiny");
    let limit = engine.profile().max_tokens;
    let long = "One more sentence of words. ".repeat(limit);
    let error = engine.embed_with(&[Input::text(&long)], &request(64)).unwrap().swap_remove(0).unwrap_err();
    assert_eq!(error.kind().name(), "too_long", "{error}");
    let cut = embed(&engine, &long, &request(64).truncation(Truncation::Right));
    assert!(cut.truncated && cut.tokens == limit && cut.chunks.len() > 2, "{}", cut.tokens);
    assert!(cut.chunks.iter().all(|chunk| chunk.tokens <= 64 + 2));
    let plain = embed(&engine, &long, &Request::new(Role::None).truncation(Truncation::Right));
    assert_eq!(plain.embedding, cut.embedding);
    let left = request(64).truncation(Truncation::Left);
    let error = engine.embed_with(&[Input::text(&long)], &left).unwrap().swap_remove(0).unwrap_err();
    assert_eq!(error.kind().name(), "too_long", "{error}");
    let empty = engine.embed_with(&[Input::text("  ")], &request(64)).unwrap().swap_remove(0);
    match empty {
        Ok(found) => assert!(!found.chunks.is_empty()),
        Err(error) => assert_eq!(error.kind().name(), "empty", "{error}"),
    }
}
