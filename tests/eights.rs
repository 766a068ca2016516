//! Checkpoints whose weights are stored in 8 bits with scales beside them, against transformers on the widened values
//! (`golden/make/eights.py`); other ways to quantise are refused by their names.

use std::path::{Path, PathBuf};

use omniburn::{Dtype, Input, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, convert};
use serde_json::{Value, json};

use crate::support::*;

/// Name, checkpoint, texts with their vectors.
type Case = (String, String, Vec<(String, Vec<f32>)>);
/// A field, and what changes it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));

fn cases() -> Vec<Case> {
    let text = std::fs::read(golden().refs.join("eights.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let one = |text: &Value| (str_of(&text["text"]).into(), serde_json::from_value(text["vector"].clone()).unwrap());
    let of = |case: &Value| {
        let texts = case["texts"].as_array().unwrap().iter().map(one).collect();
        (str_of(&case["name"]).into(), str_of(&case["checkpoint"]).into(), texts)
    };
    cases.iter().map(of).collect()
}

/// The folder of a case: the checkpoint's files with the case's own over them.
fn folder(name: &str) -> PathBuf {
    let (_, checkpoint, _) = cases().into_iter().find(|case| case.0 == name).unwrap();
    let folder = scratch().join(format!("eights-{name}-{}", next()));
    copy_folder(&workspace().join("tests/golden/checkpoints").join(checkpoint), &folder);
    copy_folder(&workspace().join("tests/golden/eights").join(name), &folder);
    folder
}

fn options(folder: &Path) -> ConvertOptions {
    ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(folder, folder.with_extension("record")) }
}

#[test]
fn weights_of_eight_bits_give_the_vectors_of_what_they_stand_for() {
    let mut worst = Worst::default();
    for (name, _, texts) in cases() {
        let options = options(&folder(&name));
        let report = convert(&options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let engine = builder(options.out.clone()).open().unwrap();
        for (text, want) in texts {
            let request = Request::new(Role::None).truncation(Truncation::Right);
            let got = engine.embed_with(&[Input::text(&text)], &request).unwrap().swap_remove(0).unwrap();
            worst.see(compare(&format!("{name} {text:?}"), got.embedding.as_slice(), &want, embedding_bound()));
        }
        let kind = if name.contains("int8") { "of I8" } else { "of F8_E4M3" };
        assert!(report.notes.iter().any(|note| note.contains("widened") && note.contains(kind)), "{report}");
        assert!(report.dropped.iter().all(|dropped| !dropped.name.contains("scale")), "{report}");
    }
    worst.report("8 bits");
}

fn refused(name: &str, change: impl FnOnce(&mut Value)) -> ConvertError {
    let folder = folder(name);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config["quantization_config"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let error = convert(&options(&folder)).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    error
}

fn field(error: &ConvertError) -> &str {
    match error {
        ConvertError::Fields { faults, .. } if faults.len() == 1 => &faults[0].field,
        other => panic!("{other}"),
    }
}

#[test]
fn other_ways_to_quantise_are_refused_by_name() {
    for method in ["gptq", "awq", "bitsandbytes", "mxfp4", "hqq", "torchao"] {
        let error = refused("bert-int8-groups", |said| said["quant_method"] = json!(method));
        assert_eq!(field(&error), "quantization_config.quant_method");
        assert!(error.to_string().contains(method), "{error}");
    }
    let weights = "quantization_config.config_groups.group_0.weights";
    let cases: &[Change<'_>] = &[
        ("quantization_config.format", &|said| said["format"] = json!("pack-quantized")),
        ("quantization_config.config_groups", &|said| said["config_groups"] = json!(null)),
        ("quantization_config.sparsity_config", &|said| {
            said["sparsity_config"] = json!({"format": "sparse-24-bitmask"})
        }),
        ("quantization_config.a_field_of_next_year", &|said| said["a_field_of_next_year"] = json!(3)),
        (".num_bits", &|said| said["config_groups"]["group_0"]["weights"]["num_bits"] = json!(4)),
        (".actorder", &|said| said["config_groups"]["group_0"]["weights"]["actorder"] = json!("group")),
        (".strategy", &|said| said["config_groups"]["group_0"]["weights"]["strategy"] = json!("attn_head")),
        (".dynamic", &|said| said["config_groups"]["group_0"]["weights"]["dynamic"] = json!(true)),
    ];
    for (name, change) in cases {
        let error = refused("bert-int8-groups", change);
        let name = if name.starts_with('.') { format!("{weights}{name}") } else { (*name).to_string() };
        assert_eq!(field(&error), name, "{error}");
    }
    let error = refused("qwen3-fp8-blocks", |said| said["fmt"] = json!("e5m2"));
    assert_eq!(field(&error), "quantization_config.fmt");
    let error = refused("qwen3-fp8-blocks", |said| said["weight_block_size"] = json!([48]));
    assert_eq!(field(&error), "quantization_config.weight_block_size");
    // Without a word of the method the family refuses it; without any, a tensor of a type that is not read.
    let error = refused("bert-fp8-tensor", |said| *said = json!({"bits": 8}));
    assert_eq!(field(&error), "quantization_config");
    let error = refused("bert-fp8-tensor", |said| *said = Value::Null);
    let ConvertError::Tensors { faults, .. } = &error else { panic!("{error}") };
    assert!(faults.wrong_dtype.len() == 12 && faults.wrong_dtype[0].found == "F8_E4M3", "{error}");
}

/// The header of a safetensors file changed as text of the same length.
fn renamed(folder: &Path, from: &str, to: &str) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn scales_that_are_missing_of_another_shape_or_not_finite_are_refused_by_name() {
    let at = "layers.1.self_attn.q_proj.weight_scale";
    let scales = folder("qwen3-int8-rows");
    renamed(&scales, at, "layers.1.self_attn.q_proj.weight_scole");
    let error = convert(&options(&scales)).unwrap_err();
    let ConvertError::Tensors { faults, .. } = &error else { panic!("{error}") };
    assert_eq!(faults.missing, [at]);
    let error = refused("qwen3-fp8-blocks", |said| said["weight_block_size"] = json!([32, 48]));
    let ConvertError::Tensors { faults, .. } = &error else { panic!("{error}") };
    assert!(faults.mis_shaped.iter().all(|fault| fault.tensor.ends_with("weight_scale_inv")), "{error}");
    // The byte of NaN, at the beginning of a weight.
    let nan = folder("bert-fp8-tensor");
    let path = nan.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let name = "encoder.layer.0.intermediate.dense.weight";
    let begin = header + said[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[begin] = 0x7F;
    std::fs::write(&path, bytes).unwrap();
    let error = convert(&options(&nan)).unwrap_err();
    let ConvertError::NonFinite { faults, .. } = &error else { panic!("{error}") };
    assert_eq!((faults.len(), faults[0].tensor.as_str(), faults[0].count), (1, name, 1), "{error}");
}
