//! Published layouts that no fixture has: made here from one that has.

use std::collections::BTreeMap;
use std::path::Path;

use omniburn::{Dtype, Engine, Input, Request, Role};
use omniburn_convert::{ConvertOptions, convert};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as StDtype, SafeTensors};
use serde_json::Value;

use crate::parity_text::text;
use crate::support::*;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(path: &Path, into: &mut Tensors) {
    let bytes = std::fs::read(path).unwrap();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let values = match tensor.dtype() {
            StDtype::F32 => {
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            StDtype::BF16 => {
                tensor.data().chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => panic!("{name}: {other:?}"),
        };
        into.insert(name, (tensor.shape().to_vec(), values));
    }
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(n, (shape, v))| (n.clone(), shape.clone(), v.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(StDtype::F32, s.clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Layout C of one task, in f32: the adapter merged, connectors in the singular, special rows in their places.
fn merged(checkpoint: &Checkpoint, task: &str, out: &Path) {
    let key = task.replace('-', "_");
    let mut tensors = Tensors::new();
    for file in std::fs::read_dir(&checkpoint.folder).unwrap().flatten() {
        if file.path().extension().is_some_and(|e| e == "safetensors") {
            read(&file.path(), &mut tensors);
        }
    }
    let config: Value = serde_json::from_slice(&std::fs::read(checkpoint.folder.join("config.json")).unwrap()).unwrap();
    let rows = tensors[&format!("task_token_embeddings.{key}")].1.clone();
    let (shape, table) = tensors.get_mut("language_model.embed_tokens.weight").unwrap();
    let width = shape[1];
    for (row, id) in rows.chunks_exact(width).zip(ids_of(&config["special_token_ids"])) {
        table[id as usize * width..][..width].copy_from_slice(row);
    }
    for (plural, singular) in [("mergers", "merger"), ("audio_projectors", "audio_projector")] {
        let prefix = format!("{plural}.{key}.");
        let names: Vec<String> = tensors.keys().filter(|n| n.starts_with(&prefix)).cloned().collect();
        for name in names {
            let tensor = tensors[&name].clone();
            tensors.insert(format!("{singular}.{}", &name[prefix.len()..]), tensor);
        }
    }
    tensors
        .retain(|n, _| !["mergers.", "audio_projectors.", "task_token_embeddings."].iter().any(|p| n.starts_with(p)));

    let folder = checkpoint.folder.join("adapters").join(task);
    let mut adapter = Tensors::new();
    read(&folder.join("adapter_model.safetensors"), &mut adapter);
    let settings: Value = serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    let (rank, alpha) = (settings["r"].as_f64().unwrap(), settings["lora_alpha"].as_f64().unwrap());
    let scale = if settings["use_rslora"] == true { alpha / rank.sqrt() } else { alpha / rank } as f32;
    for (name, (a_shape, a)) in adapter.iter().filter(|(n, _)| n.contains(".lora_A.")) {
        let b = &adapter[&name.replace(".lora_A.", ".lora_B.")].1;
        let target = name.trim_start_matches("base_model.model.").replace(".lora_A.weight", ".weight");
        let weight = &mut tensors.get_mut(&target).unwrap().1;
        let (rank, inputs) = (a_shape[0], a_shape[1]);
        for (i, w) in weight.iter_mut().enumerate() {
            let (o, i) = (i / inputs, i % inputs);
            *w += scale * (0..rank).fold(0.0f32, |sum, k| b[o * rank + k].mul_add(a[k * inputs + i], sum));
        }
    }
    std::fs::create_dir_all(out).unwrap();
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json", "video_preprocessor_config.json"] {
        std::fs::copy(checkpoint.folder.join(file), out.join(file)).unwrap();
    }
    write(&out.join("model.safetensors"), &tensors);
}

#[test]
fn a_merged_single_task_checkpoint_gives_the_vectors_of_the_one_it_was_merged_from() {
    for name in ["omni-small-tiny-unified", "omni-nano-tiny-unified"] {
        let checkpoint = golden().checkpoint(name);
        for task in ["retrieval", "text-matching", "classification"] {
            let source = scratch().join(format!("{name}-{task}"));
            merged(&checkpoint, task, &source);
            let out = scratch().join(format!("{name}-{task}-record"));
            let report = convert(&ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(&source, &out) }).unwrap();
            let inputs = [
                Input::text(text(&checkpoint, "plain")),
                Input::text(text(&checkpoint, "special_like")),
                checkpoint.image_named("odd"),
            ];
            let from_c = Engine::open(&out).unwrap().embed(&inputs, Role::Query).unwrap();
            let request = Request::new(Role::Query).task(task);
            let from_b = checkpoint.engine().embed_with(&inputs, &request).unwrap();
            for (c, b) in from_c.iter().zip(from_b) {
                assert_eq!(c, &b.unwrap().embedding, "{name} {task} ({report})");
            }
        }
    }
}

/// Both layouts of one family describe the same retrieval model, and a task's own rows matter.
#[test]
fn the_published_layouts_agree_and_tasks_differ() {
    for (a, b) in [("omni-small-tiny", "omni-small-tiny-unified"), ("omni-nano-tiny", "omni-nano-tiny-unified")] {
        let (a, b) = (golden().checkpoint(a), golden().checkpoint(b));
        let input = [Input::text(text(&a, "plain"))];
        let vector = |checkpoint: &Checkpoint, task: &str| {
            let request = Request::new(Role::Document).task(task);
            checkpoint.engine().embed_with(&input, &request).unwrap().swap_remove(0).unwrap().embedding
        };
        assert_eq!(vector(&a, "retrieval"), vector(&b, "retrieval"), "{} and {}", a.name, b.name);
        for task in ["text-matching", "clustering", "classification"] {
            let cosine = vector(&a, "retrieval").cosine(&vector(&a, task));
            assert!(cosine < 0.999, "{task} equals retrieval: {cosine}");
        }
    }
}

/// Without a task's special rows, media of the unified layout would be wrong: the control that they are used.
#[test]
fn a_tasks_special_rows_reach_the_backbone() {
    let checkpoint = golden().checkpoint("omni-small-tiny-unified");
    let record = checkpoint.record(Dtype::F32);
    let model = crate::direct::Model::open(&record, "retrieval");
    let opened = open(&record);
    let config = opened.header().family.of::<omniburn_models::families::OmniConfig>().expect("a record of this family");
    let bare = config.open_tokens(&opened).unwrap();
    let ids = &model.header.special_token_ids;
    assert!(!ids.is_empty());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    model.text.tokens.gather(ids, &mut with).unwrap();
    bare.gather(ids, &mut without).unwrap();
    assert!(distance("special rows", &with, &without).max_abs > 0.5);
}
