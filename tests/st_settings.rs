//! Settings of sentence-transformers: the files of each case over the checkpoint give the vectors that the library gives.

use std::collections::BTreeMap;
use std::path::Path;

use omniburn::{Dtype, Input, Request, Role};
use omniburn_convert::{ConvertOptions, convert};
use serde::Deserialize;
use serde_json::Value;

use crate::support::*;

/// What `tests/golden/make/st_settings.py` wrote.
#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// The folder the transformer is moved to.
    nested: Option<String>,
    /// JSON by path, or null for what is taken away.
    files: BTreeMap<String, Value>,
    /// Tensors of Dense modules as lists, by file and name.
    #[serde(default)]
    weights: BTreeMap<String, BTreeMap<String, Value>>,
    /// Unit vectors by role, one a text.
    vectors: BTreeMap<String, Vec<Vec<f32>>>,
}

impl Case {
    fn lay(&self, folder: &Path) {
        copy_folder(&golden().checkpoints.join("bert-tiny"), folder);
        for (path, content) in &self.files {
            let place = folder.join(path);
            if content.is_null() {
                std::fs::remove_dir_all(&place).unwrap();
            } else {
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::write(&place, content.to_string()).unwrap();
            }
        }
        for (path, tensors) in &self.weights {
            std::fs::write(folder.join(path), weights(tensors)).unwrap();
        }
        if let Some(nested) = &self.nested {
            std::fs::create_dir_all(folder.join(nested)).unwrap();
            for file in ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"] {
                std::fs::rename(folder.join(file), folder.join(nested).join(file)).unwrap();
            }
        }
    }
}

/// A safetensors file of lists of numbers, or of lists of them.
fn weights(tensors: &BTreeMap<String, Value>) -> Vec<u8> {
    let numbers = |list: &Value| -> Vec<u8> {
        let number = |v: &Value| (v.as_f64().expect("a number") as f32).to_le_bytes();
        list.as_array().expect("a list").iter().flat_map(number).collect()
    };
    let tensors = tensors.iter().map(|(name, value)| {
        let rows = value.as_array().expect("a list");
        let (shape, bytes) = match rows[0].as_array() {
            Some(row) => (vec![rows.len(), row.len()], rows.iter().flat_map(numbers).collect()),
            None => (vec![rows.len()], numbers(value)),
        };
        (name.clone(), shape, bytes)
    });
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors.collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.expect("as many numbers as the shape has"))
    });
    safetensors::serialize(views, None).expect("tensors serialise")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn every_setting_gives_the_vectors_of_sentence_transformers() {
    let text = std::fs::read(golden().refs.join("st-settings.json")).unwrap();
    let stored: Golden = serde_json::from_slice(&text).unwrap();
    let inputs: Vec<Input> = stored.texts.iter().map(Input::text).collect();
    for (i, case) in stored.cases.iter().enumerate() {
        let folder = scratch().join(format!("st-settings-{i}"));
        let record = folder.with_extension("record");
        case.lay(&folder);
        let options = ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(&folder, &record) };
        convert(&options).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let engine = builder(record.clone()).open().unwrap();
        for (role, vectors) in &case.vectors {
            let role: Role = serde_json::from_value(role.clone().into()).unwrap();
            let got = engine.embed_with(&inputs, &Request::new(role)).unwrap();
            for (got, want) in got.iter().zip(vectors) {
                let got = got.as_ref().unwrap().embedding.as_slice();
                compare(&format!("{} {role:?}", case.name), got, want, embedding_bound());
            }
        }
    }
}
