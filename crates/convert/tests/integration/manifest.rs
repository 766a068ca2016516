//! The published checkpoints by names and shapes: full-size files whose data is a hole pass a check in every layout with
//! zero left over, and their parameters add up to the published sums.

use std::fs;

use omniburn_convert::{ConvertOptions, ConvertReport, TaskChoice, convert};
use serde_json::{Value, json};

use crate::support::*;

/// Writes the folder and checks it; sharded in the layout that is published so.
fn check(small: bool, layout: Layout, tasks: TaskChoice, change: impl Fn(&mut Value)) -> ConvertReport {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("checkpoint");
    let dims = Dims::full(small);
    let mut config = dims.config(layout);
    change(&mut config);
    write_json(&folder.join("config.json"), &config);
    write_json(&folder.join("tokenizer.json"), &tokenizer(dims.vocab));
    let keys = dims.files(layout);
    if layout == Layout::Tasks {
        let (mut weight_map, half) = (serde_json::Map::new(), keys.len() / 2);
        for (file, part) in [("a.safetensors", &keys[..half]), ("b.safetensors", &keys[half..])] {
            write_sparse(&folder.join(file), part);
            weight_map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
        }
        write_json(&folder.join("model.safetensors.index.json"), &json!({"weight_map": weight_map}));
    } else {
        write_sparse(&folder.join("model.safetensors"), &keys);
    }
    if layout != Layout::Merged {
        for task in TASKS {
            let lora = full_adapter(&dims);
            let at = folder.join("adapters").join(task);
            fs::create_dir_all(&at).unwrap();
            write_json(&at.join("adapter_config.json"), &json!({"peft_type": "LORA", "r": 32, "lora_alpha": 32}));
            write_sparse(&at.join("adapter_model.safetensors"), &lora);
        }
    }
    let mut options = ConvertOptions::new(&folder, root.path().join("out"));
    (options.check, options.tasks) = (true, tasks);
    let report = convert(&options).unwrap();
    assert!(!root.path().join("out").exists());
    report
}

/// Rank 32 on all seven linears of every layer.
fn full_adapter(dims: &Dims) -> Vec<(String, Vec<usize>)> {
    let layers = dims.shared().into_iter().filter(|(name, shape)| name.contains(".layers.") && shape.len() == 2);
    let text = layers.filter(|(name, _)| name.starts_with("language_model."));
    text.flat_map(|(name, shape)| {
        let at = format!("base_model.model.{}", name.trim_end_matches(".weight"));
        [(format!("{at}.lora_A.weight"), vec![32, shape[1]]), (format!("{at}.lora_B.weight"), vec![shape[0], 32])]
    })
    .collect()
}

/// Millions with one decimal, as the published sums are given.
fn tenths(n: u64) -> u64 {
    (n as f64 / 1e5).round() as u64
}

#[test]
fn full_size_key_lists_of_every_layout_pass_with_zero_left_over_and_the_published_sums() {
    for small in [true, false] {
        for layout in LAYOUTS {
            let report = check(small, layout, TaskChoice::All, |_| {});
            let files = Dims::full(small).files(layout).len();
            assert_eq!(report.mapped + report.dropped.len(), files);
            let dropped: Vec<&str> = report.dropped.iter().map(|d| d.name.as_str()).collect();
            assert_eq!(dropped, ["audio_tower.audio_bos_eos_token.weight"]);

            let p = &report.parameters;
            let found = [p.text, p.vision, p.merger, p.audio, p.projector].map(tenths);
            // Tenths of a million, as published.
            let published = if small { [5957, 3062, 210, 6351, 13] } else { [2117, 880, 118, 6351, 10] };
            for (found, published) in found.iter().zip(published) {
                // The published figures are rounded or cut; a tenth of a million either way is the same figure.
                assert!(found.abs_diff(published) <= 1, "{found:?} and {published:?} in {p:?}");
            }
            assert_eq!((p.total() as f64 / 1e6).round() as u64, if small { 1559 } else { 948 }, "{p:?}");

            let tasks = if layout == Layout::Merged { 1 } else { 4 };
            assert_eq!(report.tasks.len(), tasks);
            let merged = if layout == Layout::Merged { 0 } else { 4 * 7 * if small { 28 } else { 12 } };
            assert_eq!(report.merged, merged);
            assert_eq!(report.parts.len(), 2 + tasks);
            assert!(report.check && report.digest.is_none() && report.bytes_written == 0);
        }
    }
}

#[test]
fn published_configurations_are_read_with_their_quirks() {
    // small, torch: the Qwen3-VL text type with position sections that have no effect, DeepStack indexes of the parent.
    let report = check(true, Layout::Tasks, TaskChoice::Default, |config| {
        config["text_config"]["model_type"] = json!("qwen3_vl_text");
        config["text_config"]["rope_parameters"]["mrope_section"] = json!([24, 20, 20]);
        config["text_config"]["rope_parameters"]["mrope_interleaved"] = json!(true);
        config["vision_config"]["deepstack_visual_indexes"] = json!([5, 11, 17]);
        config["text_config"].as_object_mut().unwrap().remove("is_causal");
    });
    assert!(report.card.ends_with("small"));
    assert!(report.notes.iter().any(|n| n.contains("mrope_section has no effect")), "{report}");
    assert!(report.notes.iter().any(|n| n.contains("deepstack_visual_indexes")), "{report}");

    // nano, merged: a llama with causality switched off, the image's id under its other name, no start and end.
    let report = check(false, Layout::Merged, TaskChoice::Default, |config| {
        config["text_config"]["model_type"] = json!("llama");
        config["text_config"]["mlp_bias"] = json!(false);
        config["architectures"] = json!(["LlavaEuroBertAudioForEmbedding"]);
        config["model_type"] = json!("llava_eurobert_audio");
        let id = config.as_object_mut().unwrap().remove("image_token_id").unwrap();
        config["image_token_index"] = id;
        // A flat base beside no nested block.
        config["text_config"].as_object_mut().unwrap().remove("rope_parameters");
        config["text_config"]["rope_theta"] = json!(1e6);
    });
    assert!(report.card.ends_with("nano"));
    assert!(report.notes.iter().any(|n| n.contains("taken as bidirectional")), "{report}");
    let templates: Vec<&str> = report.templates.values().map(|t| t.name()).collect();
    assert_eq!(templates, ["bare", "noeos", "bare"]);
}
