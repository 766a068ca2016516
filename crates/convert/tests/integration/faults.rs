//! Every refusal: the right variant, the whole list of names, nothing left behind.

use std::fs::{self, OpenOptions};
use std::path::Path;

use omniburn_convert::ConvertError;
use omniburn_convert::error::{FieldFault, IdFault, NonFiniteFault, ShapeFault, TensorFaults};
use omniburn_convert::{TaskChoice, convert};
use omniburn_models::record::Dtype;
use serde_json::{Value, json};

use crate::support::*;

fn mlx() -> Checkpoint {
    Checkpoint::tiny(true, Layout::Mlx, Dtype::F32)
}

fn tensor_faults(error: ConvertError) -> TensorFaults {
    assert_eq!(error.exit_code(), 3);
    match error {
        ConvertError::Tensors { faults, .. } => faults,
        other => panic!("{other}"),
    }
}

fn field_faults(error: ConvertError, file: &str) -> Vec<FieldFault> {
    assert_eq!(error.exit_code(), 3);
    match error {
        ConvertError::Fields { path, faults } if path.ends_with(file) => faults,
        other => panic!("{other}"),
    }
}

fn fields_of(error: ConvertError, file: &str) -> Vec<String> {
    field_faults(error, file).into_iter().map(|f| f.field).collect()
}

// ---- names, shapes, types

#[test]
fn missing_and_extra_and_mis_shaped_and_mistyped_tensors_are_all_named_at_once() {
    let mut checkpoint = mlx();
    let arrays = &mut checkpoint.arrays;
    arrays.remove("language_model.layers.1.self_attn.k_proj.weight").unwrap();
    arrays.remove("audio_tower.ln_post.bias").unwrap();
    arrays.insert("language_model.extra.weight".into(), Array::seeded(Dtype::F32, "x", &[2]));
    arrays.insert("surprise".into(), Array::seeded(Dtype::F32, "x", &[2]));
    arrays.insert("language_model.norm.weight".into(), Array::seeded(Dtype::F32, "x", &[17]));
    arrays.insert("audio_tower.conv1.weight".into(), Array::seeded(Dtype::F32, "x", &[6, 5, 4]));
    let integers = Array { dtype: "I32", shape: vec![16], bytes: vec![0; 64] };
    arrays.insert("merger.linear_fc2.bias".into(), integers);
    let faults = tensor_faults(checkpoint.refused());
    assert_eq!(faults.missing.len(), 2);
    assert!(faults.missing.contains(&"language_model.layers.1.self_attn.k_proj.weight".into()));
    assert!(faults.missing.contains(&"audio_tower.ln_post.bias".into()));
    assert_eq!(faults.unmapped, ["language_model.extra.weight", "surprise"]);
    let expected = [
        ("audio_tower.conv1.weight", vec![vec![6, 3, 5], vec![6, 5, 3]], vec![6, 5, 4]),
        ("language_model.norm.weight", vec![vec![16]], vec![17]),
    ];
    let mut found = faults.mis_shaped.clone();
    found.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    let expected = expected.map(|(tensor, expected, found)| ShapeFault { tensor: tensor.into(), expected, found });
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], expected[1]);
    assert_eq!((&found[0].tensor, &found[0].found), (&expected[0].tensor, &expected[0].found));
    assert_eq!(faults.wrong_dtype.len(), 1);
    assert_eq!(
        (faults.wrong_dtype[0].tensor.as_str(), faults.wrong_dtype[0].found.as_str()),
        ("merger.linear_fc2.bias", "I32")
    );
}

#[test]
fn connectors_missing_from_one_task_are_named_by_their_own_keys() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    checkpoint.arrays.remove("mergers.text_matching.norm.bias").unwrap();
    checkpoint.arrays.remove("task_token_embeddings.clustering").unwrap();
    let faults = tensor_faults(checkpoint.refused_with(|o| o.tasks = TaskChoice::All));
    assert_eq!(faults.missing, ["mergers.text_matching.norm.bias", "task_token_embeddings.clustering"]);
}

#[test]
fn special_rows_of_another_count_than_the_ids_are_mis_shaped() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    let rows = Array::seeded(Dtype::F32, "x", &[3, 16]);
    checkpoint.arrays.insert("task_token_embeddings.retrieval".into(), rows);
    let faults = tensor_faults(checkpoint.refused());
    assert_eq!(
        (faults.mis_shaped[0].expected.clone(), faults.mis_shaped[0].found.clone()),
        (vec![vec![4, 16]], vec![3, 16])
    );
}

#[test]
fn q_and_k_norms_must_be_there_for_one_family_and_absent_for_the_other() {
    let mut small = mlx();
    small.arrays.retain(|name, _| !name.ends_with("q_norm.weight"));
    let faults = tensor_faults(small.refused());
    let missing: Vec<String> = (0..2).map(|i| format!("language_model.layers.{i}.self_attn.q_norm.weight")).collect();
    assert_eq!(faults.missing, missing);
    let mut nano = Checkpoint::tiny(false, Layout::Mlx, Dtype::F32);
    nano.arrays.insert(missing[1].clone(), Array::seeded(Dtype::F32, "x", &[4]));
    assert_eq!(tensor_faults(nano.refused()).unmapped, [missing[1].clone()]);
}

#[test]
fn a_checkpoint_without_a_token_table_is_refused_by_its_name() {
    let mut checkpoint = mlx();
    checkpoint.arrays.remove("language_model.embed_tokens.weight");
    assert_eq!(tensor_faults(checkpoint.refused()).missing, ["language_model.embed_tokens.weight"]);
    let flat = Array::seeded(Dtype::F32, "x", &[24 * 16]);
    checkpoint.arrays.insert("language_model.embed_tokens.weight".into(), flat);
    assert_eq!(tensor_faults(checkpoint.refused()).mis_shaped[0].found, [24 * 16]);
}

#[test]
fn two_names_for_one_tensor_are_refused() {
    let mut checkpoint = mlx();
    let array = checkpoint.arrays["language_model.norm.weight"].clone();
    checkpoint.arrays.insert("model.language_model.norm.weight".into(), array);
    let error = checkpoint.refused();
    let ConvertError::Duplicates { names } = error else { panic!("{error}") };
    assert_eq!(names, ["language_model.norm.weight and model.language_model.norm.weight"]);
}

#[test]
fn nan_and_infinite_values_are_refused_with_every_tensor_and_count() {
    let mut checkpoint = mlx();
    let poison = |array: &mut Array, at: &[usize], value: f32| {
        at.iter().for_each(|i| array.bytes[4 * i..4 * i + 4].copy_from_slice(&value.to_le_bytes()));
    };
    poison(checkpoint.arrays.get_mut("language_model.embed_tokens.weight").unwrap(), &[0, 3, 9], f32::NAN);
    poison(checkpoint.arrays.get_mut("merger.norm.bias").unwrap(), &[1], f32::INFINITY);
    let key = "base_model.model.language_model.layers.0.mlp.up_proj.lora_B.weight";
    poison(checkpoint.adapters.get_mut("retrieval").unwrap().arrays.get_mut(key).unwrap(), &[2], f32::NEG_INFINITY);
    // A tensor that is dropped may hold anything.
    poison(checkpoint.arrays.get_mut("audio_tower.audio_bos_eos_token.weight").unwrap(), &[0], f32::NAN);
    let error = checkpoint.convert_with(|_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let ConvertError::NonFinite { faults, .. } = error else { panic!("{error}") };
    let expected = [
        ("language_model.embed_tokens.weight".to_string(), 3),
        ("merger.norm.bias".to_string(), 1),
        (format!("retrieval/adapter_model.safetensors: {key}"), 1),
    ];
    assert_eq!(faults, expected.map(|(tensor, count)| NonFiniteFault { tensor, count }));
    checkpoint.assert_nothing_left();
}

#[test]
fn values_beyond_the_range_of_the_type_are_refused_not_made_infinite() {
    let mut checkpoint = mlx();
    let name = "language_model.layers.0.self_attn.o_proj.weight";
    let array = checkpoint.arrays.get_mut(name).unwrap();
    array.bytes[..4].copy_from_slice(&1.0e5f32.to_le_bytes());
    let error = checkpoint.convert_with(|o| o.dtype = Dtype::F16).unwrap_err();
    let ConvertError::BeyondRange { tensor, dtype, count } = error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), dtype, count), ("backbone.layers.0.self_attn.o_proj.weight", Dtype::F16, 1));
    checkpoint.assert_nothing_left();
    checkpoint.convert_with(|o| o.dtype = Dtype::Bf16).unwrap();
}

// ---- configuration

fn config_refusal(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut checkpoint = mlx();
    change(&mut checkpoint.config);
    fields_of(checkpoint.refused(), "config.json")
}

#[test]
fn fields_that_would_change_the_arithmetic_are_refused_by_name() {
    let cases: [(&str, Value); 15] = [
        ("/text_config/hidden_act", json!("gelu")),
        ("/text_config/attention_bias", json!(true)),
        ("/text_config/mlp_bias", json!(true)),
        ("/text_config/use_sliding_window", json!(true)),
        ("/text_config/layer_types", json!(["full_attention", "sliding_attention"])),
        ("/text_config/partial_rotary_factor", json!(0.5)),
        ("/text_config/rope_parameters/rope_type", json!("yarn")),
        ("/text_config/rope_parameters/mrope_section", json!([1, 1, 1])),
        ("/text_config/model_type", json!("bert")),
        ("/vision_config/hidden_act", json!("gelu")),
        ("/audio_config/activation_function", json!("relu")),
        ("/audio_config/scale_embedding", json!(true)),
        ("/quantization", json!({"bits": 4})),
        ("/quantization_config", json!({"bits": 4})),
        ("/special_token_ids", json!([18, 18])),
    ];
    for (pointer, value) in cases {
        let found = config_refusal(|config| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value.clone();
        });
        assert_eq!(found, [pointer[1..].replace('/', ".")]);
    }
}

#[test]
fn every_field_that_is_absent_or_of_another_kind_is_named_in_one_refusal() {
    let found = config_refusal(|config| {
        for (part, name) in [
            ("text_config", "hidden_size"),
            ("text_config", "rms_norm_eps"),
            ("text_config", "rope_parameters"),
            ("vision_config", "depth"),
            ("audio_config", "n_window"),
        ] {
            config[part].as_object_mut().unwrap().remove(name);
        }
        config["text_config"]["intermediate_size"] = json!("many");
        config["text_config"]["num_attention_heads"] = json!(0);
        config["audio_config"]["d_model"] = json!(-6);
        config["audio_token_id"] = json!(1.5);
    });
    let expected = [
        "text_config.hidden_size",
        "text_config.num_attention_heads",
        "text_config.intermediate_size",
        "text_config.rms_norm_eps",
        "text_config.rope_parameters.rope_theta",
        "vision_config.depth",
        "audio_config.d_model",
        "audio_config.n_window",
        "audio_token_id",
    ];
    for name in expected {
        assert!(found.iter().any(|f| f == name), "{name} in {found:?}");
    }
}

#[test]
fn more_layers_than_tensors_are_refused_before_names_are_made_from_them() {
    let found = config_refusal(|config| config["text_config"]["num_hidden_layers"] = json!(1_000_000));
    assert_eq!(found, ["text_config.num_hidden_layers"]);
}

#[test]
fn a_tower_whose_configuration_is_missing_is_refused_by_that_name() {
    let found = config_refusal(|config| drop(config.as_object_mut().unwrap().remove("vision_config")));
    assert_eq!(found, ["vision_config"]);
}

#[test]
fn deepstack_tensors_are_refused_by_the_field_that_announces_them() {
    let mut checkpoint = mlx();
    checkpoint.config["vision_config"]["deepstack_visual_indexes"] = json!([0]);
    let name = "vision_tower.deepstack_merger_list.0.norm.weight";
    checkpoint.arrays.insert(name.into(), Array::seeded(Dtype::F32, "x", &[8]));
    assert_eq!(fields_of(checkpoint.refused(), "config.json"), ["vision_config.deepstack_visual_indexes"]);
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let mut checkpoint = mlx();
    checkpoint.config["vision_config"]["num_heads"] = json!(3);
    let error = checkpoint.refused();
    assert!(matches!(error, ConvertError::Config { .. }) && error.to_string().contains("vision.heads"), "{error}");
}

#[test]
fn a_configuration_that_counts_more_rows_than_the_table_is_refused_and_fewer_is_noted() {
    assert_eq!(config_refusal(|config| config["text_config"]["vocab_size"] = json!(25)), ["text_config.vocab_size"]);
    let mut checkpoint = mlx();
    checkpoint.config["text_config"]["vocab_size"] = json!(20);
    let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    assert!(report.notes.iter().any(|n| n.contains("24 rows") && n.contains("20")), "{:?}", report.notes);
}

#[test]
fn ids_beyond_the_table_are_refused_with_all_their_names() {
    let mut checkpoint = mlx();
    checkpoint.config["image_token_id"] = json!(24);
    checkpoint.config["audio_end_token_id"] = json!(151_671);
    checkpoint.config["special_token_ids"] = json!([1, 30]);
    checkpoint.tokenizer = tokenizer(26);
    let error = checkpoint.refused();
    assert_eq!(error.exit_code(), 3);
    let ConvertError::TokenIdOutOfTable { ids, rows } = error else { panic!("{error}") };
    let expected = [
        ("image_token_id", 24),
        ("audio_end_token_id", 151_671),
        ("special_token_ids[1]", 30),
        ("tokenizer.json <last>", 25),
        ("tokenizer.json model.vocab", 24),
    ];
    assert_eq!(ids, expected.map(|(name, id)| IdFault { name: name.into(), id }));
    assert_eq!(rows, 24);
}

#[test]
fn special_rows_without_special_ids_are_refused() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    checkpoint.config.as_object_mut().unwrap().remove("special_token_ids");
    assert_eq!(fields_of(checkpoint.refused(), "config.json"), ["special_token_ids"]);
}

#[test]
fn dimensions_beyond_the_width_are_refused() {
    assert_eq!(config_refusal(|c| c["matryoshka_dimensions"] = json!([8, 17])), ["matryoshka_dimensions"]);
}

#[test]
fn task_names_that_cannot_be_file_names_are_refused() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Merged, Dtype::F32);
    for name in ["../outside", "", ".hidden", "a b"] {
        checkpoint.config["task_names"] = json!([name]);
        let error = checkpoint.refused();
        assert!(matches!(&error, ConvertError::TaskName { name: n } if n == name), "{error}");
    }
}

#[test]
fn preprocessor_files_that_ask_for_another_arithmetic_are_refused_by_field() {
    let cases = [
        ("resample", json!(2)),
        ("patch_size", json!(14)),
        ("merge_size", json!(4)),
        ("temporal_patch_size", json!(1)),
        ("do_normalize", json!(false)),
        ("image_mean", json!([0.5, 0.5])),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("rescale_factor", json!(-1.0)),
        ("min_pixels", json!(9_999_999)),
    ];
    for file in ["preprocessor_config.json", "video_preprocessor_config.json"] {
        for (field, value) in &cases {
            let checkpoint = mlx();
            let limit = if *field == "min_pixels" { 9 } else { 99_999_999 };
            write_json(&checkpoint.folder().join(file), &json!({ *field: value, "max_pixels": limit }));
            assert_eq!(fields_of(checkpoint.refused(), file), [*field], "{file}");
        }
    }
    let checkpoint = mlx();
    write_json(&checkpoint.folder().join("preprocessor_config.json"), &json!({"feature_size": 80}));
    assert_eq!(fields_of(checkpoint.refused(), "preprocessor_config.json"), ["feature_size"]);
}

// ---- files

#[test]
fn files_that_are_missing_or_malformed_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let checkpoint = mlx();
        checkpoint.write();
        fs::remove_file(checkpoint.folder().join(file)).unwrap();
        let error = checkpoint.refused_as_written(|_| {});
        let ConvertError::MissingFiles { paths } = &error else { panic!("{error}") };
        assert_eq!(paths, &[checkpoint.folder().join(file)]);
        assert_eq!(error.exit_code(), 3);
    }
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json", "config_sentence_transformers.json"] {
        let checkpoint = mlx();
        checkpoint.write();
        fs::write(checkpoint.folder().join(file), "{\"model\": ").unwrap();
        let error = checkpoint.refused_as_written(|_| {});
        assert!(matches!(&error, ConvertError::Json { path, .. } if path.ends_with(file)), "{error}");
    }
    for text in
        ["[]", "{\"model\": {\"vocab\": {\"a\": -1}}}", "{\"added_tokens\": [{\"id\": 1}], \"model\": {\"vocab\": {}}}"]
    {
        let checkpoint = mlx();
        checkpoint.write();
        fs::write(checkpoint.folder().join("tokenizer.json"), text).unwrap();
        let error = checkpoint.refused_as_written(|_| {});
        assert!(matches!(&error, ConvertError::Json { path, .. } if path.ends_with("tokenizer.json")), "{error}");
    }
}

#[test]
fn a_unigram_vocabulary_counts_by_its_length() {
    let mut checkpoint = mlx();
    checkpoint.tokenizer = json!({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}});
    checkpoint.convert_with(|o| o.check = true).unwrap();
    let vocab: Vec<Value> = (0..25).map(|i| json!([format!("t{i}"), -1.0])).collect();
    checkpoint.tokenizer = json!({"model": {"vocab": vocab}});
    assert!(matches!(checkpoint.refused(), ConvertError::TokenIdOutOfTable { ids, .. } if ids[0].id == 24));
}

/// What a safetensors file of this content is refused for.
fn corrupt(bytes: &[u8]) -> (Option<String>, String) {
    let checkpoint = mlx();
    checkpoint.write();
    fs::write(checkpoint.folder().join("model.safetensors"), bytes).unwrap();
    match checkpoint.refused_as_written(|_| {}) {
        ConvertError::Corrupt { path, tensor, reason } => {
            assert!(path.ends_with("model.safetensors"));
            (tensor, reason)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn lying_headers_are_refused_with_file_and_tensor() {
    let entry = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let file = |entries: &[String], data: usize| safetensors(&format!("{{{}}}", entries.join(",")), &vec![0; data]);
    let a = entry("a", "F32", "[2]", 0, 8);
    let cases = [
        (file(&[entry("b", "F32", "[2]", 8, 0)], 8), Some("b"), "lies at bytes 8 to 0"),
        (file(&[entry("b", "F32", "[2]", 0, 8)], 4), Some("b"), "of 4 bytes of data"),
        (file(&[entry("b", "F32", "[3]", 0, 8)], 8), Some("b"), "takes 12"),
        (file(&[entry("b", "F32", "[4611686018427387904,4]", 0, 8)], 8), Some("b"), "more than any file"),
        (file(&[entry("b", "F99", "[2]", 0, 8)], 8), Some("b"), "unknown element type F99"),
        (file(&[entry("b", "F32", "[-2]", 0, 8)], 8), Some("b"), "malformed entry"),
        (file(&[a.clone(), entry("b", "F32", "[2]", 4, 12)], 12), Some("b"), "inside a"),
        (file(&[a.clone(), entry("b", "F32", "[1]", 12, 16)], 16), Some("b"), "but a ends at 8"),
        (file(&[a.clone(), a.clone()], 8), Some("a"), "stands twice"),
        (file(std::slice::from_ref(&a), 12), None, "12 bytes of data, but the tensors end at 8"),
        (vec![1, 2, 3], None, "too short"),
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), None, "at most"),
        ([&100_000_000u64.to_le_bytes()[..], b"{}"].concat(), None, "in a file of 10"),
    ];
    for (bytes, name, words) in cases {
        let (tensor, reason) = corrupt(&bytes);
        assert_eq!(tensor.as_deref(), name, "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_truncated_weight_file_is_refused_wherever_it_is_cut() {
    let checkpoint = mlx();
    checkpoint.write();
    let path = checkpoint.folder().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for keep in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).unwrap();
        let error = checkpoint.refused_as_written(|_| {});
        assert!(matches!(error, ConvertError::Corrupt { .. }), "{keep}: {error}");
    }
}

#[test]
fn a_header_that_is_not_json_is_refused() {
    let checkpoint = mlx();
    checkpoint.write();
    for header in ["{", "[]", "{\"a\": 1} x"] {
        fs::write(checkpoint.folder().join("model.safetensors"), safetensors(header, &[])).unwrap();
        let error = checkpoint.refused_as_written(|_| {});
        assert!(matches!(error, ConvertError::Json { .. }), "{header}: {error}");
    }
}

#[test]
fn weights_that_are_no_regular_file_are_missing_not_waited_for() {
    let checkpoint = mlx();
    checkpoint.write();
    let path = checkpoint.folder().join("model.safetensors");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = checkpoint.refused_as_written(|_| {});
    assert!(matches!(error, ConvertError::MissingFiles { .. }), "{error}");
}

fn change_json(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    write_json(path, &value);
}

#[test]
fn an_index_that_does_not_agree_with_its_shards_is_refused_with_all_names() {
    let checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    let index = checkpoint.folder().join("model.safetensors.index.json");

    // A shard that is not there.
    checkpoint.write();
    let shard = checkpoint.folder().join("model-00002-of-00002.safetensors");
    fs::remove_file(&shard).unwrap();
    let error = checkpoint.refused_as_written(|_| {});
    assert!(matches!(&error, ConvertError::MissingFiles { paths } if paths == std::slice::from_ref(&shard)), "{error}");

    // A tensor the shard lacks, and one the index lacks.
    checkpoint.write();
    change_json(&index, |v| {
        let map = v["weight_map"].as_object_mut().unwrap();
        map.remove("language_model.norm.weight").unwrap();
        map.insert("language_model.ghost".into(), json!("model-00001-of-00002.safetensors"));
    });
    let error = checkpoint.refused_as_written(|_| {});
    let ConvertError::Index { missing, extra, .. } = error else { panic!("{error}") };
    assert_eq!(missing, ["language_model.ghost (model-00001-of-00002.safetensors)"]);
    assert_eq!(extra.len(), 1);
    assert!(extra[0].starts_with("language_model.norm.weight ("), "{extra:?}");

    // The same tensor in both shards.
    checkpoint.write();
    let first: Arrays = checkpoint.arrays.iter().step_by(2).map(|(k, v)| (k.clone(), v.clone())).collect();
    let second = checkpoint.arrays.iter().skip(1).step_by(2).map(|(k, v)| (k.clone(), v.clone()));
    let twice = first.keys().next().unwrap().clone();
    let second: Arrays = second.chain([(twice.clone(), first[&twice].clone())]).collect();
    write_arrays(&shard, &second);
    let error = checkpoint.refused_as_written(|_| {});
    let ConvertError::Index { extra, .. } = error else { panic!("{error}") };
    assert_eq!(extra, [format!("{twice} (model-00002-of-00002.safetensors)")]);

    // A shard outside the folder.
    for outside in ["../model-00001-of-00002.safetensors", "/etc/passwd", "", "..", "a/b"] {
        checkpoint.write();
        change_json(&index, |v| v["weight_map"]["language_model.norm.weight"] = json!(outside));
        let error = checkpoint.refused_as_written(|_| {});
        let ConvertError::Corrupt { tensor, .. } = &error else { panic!("{outside}: {error}") };
        assert_eq!(tensor.as_deref(), Some("language_model.norm.weight"));
    }

    // A name twice.
    checkpoint.write();
    fs::write(&index, r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#).unwrap();
    let error = checkpoint.refused_as_written(|_| {});
    assert!(matches!(&error, ConvertError::Corrupt { tensor, .. } if tensor.as_deref() == Some("a")), "{error}");
}

#[test]
fn a_file_cut_between_header_and_data_is_refused_and_leaves_nothing() {
    // The header is read when the file is opened; the cut comes after, as when a download is still being written.
    let checkpoint = mlx();
    let mut options = checkpoint.write().options();
    let path = checkpoint.folder().join("model.safetensors");
    options.progress = Some(std::sync::Arc::new(move |_, _| {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    }));
    let error = convert(&options).unwrap_err();
    assert!(matches!(&error, ConvertError::Corrupt { tensor: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("cut while it was read"), "{error}");
    checkpoint.assert_nothing_left();
}

// ---- adapters

const Q_A: &str = "base_model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
const Q_B: &str = "base_model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight";

fn lora_refusal(change: impl Fn(&mut Lora)) -> ConvertError {
    let mut checkpoint = mlx();
    change(checkpoint.adapters.get_mut("retrieval").unwrap());
    let error = checkpoint.refused();
    assert_eq!(error.exit_code(), 3);
    error
}

#[test]
fn adapter_halves_without_each_other_are_refused_by_name() {
    for gone in [Q_A, Q_B] {
        let left = if gone == Q_A { Q_B } else { Q_A };
        let error = lora_refusal(|lora| drop(lora.arrays.remove(gone)));
        assert!(matches!(&error, ConvertError::LoraOrphans { keys, .. } if keys == &[left]), "{error}");
    }
}

#[test]
fn adapter_tensors_without_a_target_are_refused_by_name() {
    for other in [
        "base_model.model.language_model.layers.9.self_attn.q_proj",
        "base_model.model.language_model.layers.0.self_attn.qkv_proj",
        "base_model.model.vision_tower.blocks.9.attn.proj",
        // A convolution whose channels lie last is none that PEFT was trained around.
        "base_model.model.audio_tower.conv1",
    ] {
        let error = lora_refusal(|lora| {
            lora.config["target_modules"] = json!([&[other.rsplit('.').next().unwrap()][..], &ALL_KINDS].concat());
            for (half, key) in [("lora_A", Q_A), ("lora_B", Q_B)] {
                let array = lora.arrays[key].clone();
                lora.arrays.insert(format!("{other}.{half}.weight"), array);
            }
        });
        let ConvertError::LoraTargetMissing { keys, adapter, .. } = error else { panic!("{error}") };
        assert_eq!(keys, [format!("{other}.lora_A.weight"), format!("{other}.lora_B.weight")]);
        assert!(adapter.ends_with("adapters/retrieval/adapter_model.safetensors"));
    }
    let stranger = "base_model.model.language_model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    let error = lora_refusal(|lora| {
        let array = lora.arrays[Q_A].clone();
        lora.arrays.insert(stranger.into(), array.clone());
        lora.arrays.insert("unwrapped.lora_A.weight".into(), array);
    });
    let ConvertError::LoraTargetMissing { keys, .. } = error else { panic!("{error}") };
    assert_eq!(keys, [stranger, "unwrapped.lora_A.weight"]);
}

#[test]
fn adapter_tensors_of_a_wrong_rank_width_or_type_are_refused_by_name() {
    let put = |key: &'static str, shape: &'static [usize]| {
        lora_refusal(move |lora| drop(lora.arrays.insert(key.into(), Array::seeded(Dtype::F32, "x", shape))))
    };
    // Rank 3, 16 inputs, 12 outputs.
    for (key, shape, expected) in [
        (Q_A, &[4, 16][..], vec![3, 16]),
        (Q_B, &[12, 2][..], vec![12, 3]),
        (Q_A, &[3, 15][..], vec![3, 16]),
        (Q_B, &[13, 3][..], vec![12, 3]),
    ] {
        let error = put(key, shape);
        let ConvertError::LoraShape { faults, .. } = error else { panic!("{error}") };
        assert_eq!(faults, [ShapeFault { tensor: key.into(), expected: vec![expected], found: shape.to_vec() }]);
    }
    let error = put(Q_A, &[48]);
    assert!(matches!(error, ConvertError::LoraShape { .. }), "{error}");
    let integers = Array { dtype: "I8", shape: vec![3, 16], bytes: vec![0; 48] };
    let error = lora_refusal(|lora| drop(lora.arrays.insert(Q_A.into(), integers.clone())));
    let ConvertError::LoraDtype { faults, .. } = error else { panic!("{error}") };
    assert_eq!((faults[0].tensor.as_str(), faults[0].found.as_str()), (Q_A, "I8"));
}

#[test]
fn two_adapter_keys_for_one_weight_are_refused() {
    let error = lora_refusal(|lora| {
        for key in [Q_A, Q_B] {
            let array = lora.arrays[key].clone();
            lora.arrays.insert(key.replace("language_model.", "model.language_model."), array);
        }
    });
    assert!(matches!(&error, ConvertError::Duplicates { names } if names.len() == 1), "{error}");
}

#[test]
fn every_variant_of_lora_that_is_not_plain_is_refused_by_its_field() {
    let cases = [
        ("peft_type", json!("LOHA")),
        ("bias", json!("some")),
        ("target_modules", json!(7)),
        ("target_modules", json!("(")),
        ("exclude_modules", json!(7)),
        ("layers_to_transform", json!("first")),
        ("modules_to_save", json!("embed_tokens")),
        ("kasa_config", json!({"beta": 1})),
        ("arrow_config", json!({"top_k": 3})),
        ("layer_replication", json!([[0, 2]])),
        ("use_qalora", json!(true)),
        ("alora_invocation_tokens", json!([1])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("megatron_config", json!({"x": 1})),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("a_field_of_next_year", json!(0.5)),
        ("r", json!(0)),
        ("lora_alpha", json!("8")),
        ("rank_pattern.q_proj", json!(null)),
    ];
    for (field, value) in cases {
        let error = lora_refusal(|lora| match field.split_once('.') {
            Some((block, name)) => lora.config[block] = json!({ name: "three" }),
            None => lora.config[field] = value.clone(),
        });
        assert_eq!(fields_of(error, "adapter_config.json"), [field]);
    }
    let error = lora_refusal(|lora| lora.config["alpha_pattern"] = json!({"[q_proj": 4}));
    assert_eq!(fields_of(error, "adapter_config.json"), ["alpha_pattern.[q_proj"]);
    let error = lora_refusal(|lora| {
        (lora.config["target_modules"], lora.config["layers_to_transform"]) = (json!(".*_proj"), json!([0]));
    });
    assert_eq!(fields_of(error, "adapter_config.json"), ["layers_to_transform"]);
    let error = lora_refusal(|lora| drop(lora.config.as_object_mut().unwrap().remove("r")));
    assert_eq!(fields_of(error, "adapter_config.json"), ["r"]);
}

#[test]
fn rank_and_alpha_patterns_are_honoured() {
    let mut checkpoint = mlx();
    let dims = checkpoint.dims.clone();
    let lora = checkpoint.adapters.get_mut("retrieval").unwrap();
    // Rank 3 and alpha 3 everywhere, but rank 2 on every down_proj, and alpha 12 on layer 1's.
    let other = Lora::new(&dims, "other", Dtype::F32, 2, 3.0, &["down_proj"]);
    lora.arrays.extend(other.arrays);
    lora.config["rank_pattern"] = json!({"down_proj": 2});
    lora.config["alpha_pattern"] = json!({"layers.1.mlp.down_proj": 12});
    let lora = lora.clone();
    let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    let found = record.tensors("text.retrieval.bpk");
    for (layer, scale) in [(0, 1.5f32), (1, 6.0)] {
        let name = format!("language_model.layers.{layer}.mlp.down_proj.weight");
        let expected = transposed(&merged(&checkpoint, &name, dims.inner, Some((&lora, scale))), dims.inner);
        assert_eq!(found[&format!("backbone.layers.{layer}.mlp.down_proj.weight")].2, expected);
    }
    assert_eq!(report.lora[0].modules["down_proj"].scale, (1.5, 6.0));
    assert_eq!(report.lora[0].modules["q_proj"].scale, (1.0, 1.0));
}

#[test]
fn an_adapter_with_half_of_its_files_is_refused_by_the_missing_one() {
    for (gone, kept) in
        [("adapter_config.json", "adapter_model.safetensors"), ("adapter_model.safetensors", "adapter_config.json")]
    {
        let checkpoint = mlx();
        checkpoint.write();
        let folder = checkpoint.folder().join("adapters").join("retrieval");
        fs::remove_file(folder.join(gone)).unwrap();
        assert!(folder.join(kept).is_file());
        let error = checkpoint.refused_as_written(|_| {});
        assert!(matches!(&error, ConvertError::MissingFiles { paths } if paths == &[folder.join(gone)]), "{error}");
    }
}

#[test]
fn a_corrupt_adapter_is_refused_with_its_file() {
    let checkpoint = mlx();
    checkpoint.write();
    let path = checkpoint.folder().join("adapters").join("retrieval").join("adapter_model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let error = checkpoint.refused_as_written(|_| {});
    assert!(matches!(&error, ConvertError::Corrupt { path: p, .. } if *p == path), "{error}");
}
