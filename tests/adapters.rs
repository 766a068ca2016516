//! Adapters of PEFT around every kind of family, against PEFT itself (`golden/make/adapters.py`); several as tasks of one
//! record; and what is refused, by name.

use std::path::{Path, PathBuf};

use omniburn::{Dtype, Engine, Input, Request, Role};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, GivenAdapter, TaskChoice, convert};
use safetensors::{Dtype as StDtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::support::*;

/// Logits against the reference in f32, as in `rerank`.
const LOGIT_BOUND: f32 = 1e-5;

fn checkpoint(name: &str) -> PathBuf {
    workspace().join("tests/golden/checkpoints").join(name)
}

fn adapter(name: &str) -> PathBuf {
    workspace().join("tests/golden/adapters").join(name)
}

/// The cases: a name, the checkpoint, and what PEFT gives.
fn cases() -> Vec<(String, String, Vec<Value>)> {
    let text = std::fs::read(workspace().join("tests/golden/refs/adapters.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    assert!(cases.len() >= 10);
    let outputs = |case: &Value| case["outputs"].as_array().unwrap().clone();
    cases.iter().map(|case| (str_of(&case["name"]).into(), str_of(&case["checkpoint"]).into(), outputs(case))).collect()
}

fn options(checkpoint_name: &str, adapters: Vec<GivenAdapter>) -> ConvertOptions {
    let out = scratch().join(format!("adapted-{}", next()));
    ConvertOptions { dtype: Dtype::F32, adapters, ..ConvertOptions::new(checkpoint(checkpoint_name), out) }
}

fn converted(options: &ConvertOptions) -> (Engine, ConvertReport) {
    let report = convert(options).unwrap_or_else(|error| panic!("{:?}: {error}", options.adapters));
    (builder(options.out.clone()).open().unwrap(), report)
}

/// What an engine gives for an output's input: a vector, or a logit.
fn given(engine: &Engine, output: &Value, request: &Request) -> Vec<f32> {
    if let Some(query) = output["query"].as_str() {
        return vec![
            engine.rerank_with(query, &[str_of(&output["document"])], request).unwrap().remove(0).unwrap().logit,
        ];
    }
    let input = match output["image"].as_str() {
        Some(name) => Input::image_file(golden().refs.join(format!("media/images/{name}.png"))),
        None => Input::text(str_of(&output["text"])),
    };
    engine.embed_with(&[input], request).unwrap().swap_remove(0).unwrap().embedding.into_vec()
}

fn wanted(output: &Value) -> Vec<f32> {
    match &output["vector"] {
        Value::Null => vec![output["logit"].as_f64().unwrap() as f32],
        vector => serde_json::from_value(vector.clone()).unwrap(),
    }
}

fn request() -> Request {
    Request::new(Role::None).truncation(omniburn::Truncation::Right)
}

#[test]
fn every_adapter_gives_what_peft_gives_with_it() {
    let mut worst = Worst::default();
    for (name, checkpoint_name, outputs) in cases() {
        let (engine, report) = converted(&options(&checkpoint_name, vec![GivenAdapter::new(adapter(&name))]));
        let (plain, _) = converted(&options(&checkpoint_name, Vec::new()));
        for output in &outputs {
            let bound = if output["query"].is_string() { LOGIT_BOUND } else { embedding_bound() };
            worst.see(compare(&name, &given(&engine, output, &request()), &wanted(output), bound));
            let apart = distance(&name, &given(&plain, output, &request()), &wanted(output)).max_abs;
            assert!(apart > 10.0 * bound, "{name}: the checkpoint alone is {apart:.1e} away");
        }
        assert_eq!(report.lora.len(), 1, "{name}");
        assert!(
            report.merged > 0 && report.lora[0].modules.values().all(|module| module.mean_relative_norm > Some(0.0))
        );
    }
    worst.report("adapters");
}

#[test]
fn the_report_says_what_an_adapter_brings_and_what_no_vector_depends_on() {
    let (_, report) = converted(&options("bert-tiny", vec![GivenAdapter::new(adapter("bert-everything"))]));
    let lora = &report.lora[0];
    assert!(lora.replaced.contains(&"encoder.layer.0.attention.self.query.bias".into()), "{:?}", lora.replaced);
    let dropped: Vec<&str> = lora.dropped.iter().map(|d| d.name.as_str()).collect();
    let pooler = ["lora_A.weight", "lora_B.weight", "base_layer.bias"];
    assert_eq!(dropped, pooler.map(|end| format!("base_model.model.pooler.dense.{end}")));
    let text = report.to_string();
    assert!(text.contains("not made by the pooler") && text.contains("brings whole"), "{text}");
    let (_, report) = converted(&options("qwen3-embedding-tiny", vec![GivenAdapter::new(adapter("qwen3-table"))]));
    assert!(report.lora[0].magnitudes && report.to_string().contains("DoRA"), "{report}");
    assert!(report.lora[0].modules.contains_key("embed_tokens"), "{report}");
}

#[test]
fn several_adapters_are_tasks_of_one_record_and_each_gives_what_it_gives_alone() {
    let both = vec![GivenAdapter::named("one", adapter("bert-list")), GivenAdapter::new(adapter("bert-pattern"))];
    let (engine, report) = converted(&options("bert-tiny", both.clone()));
    assert_eq!((report.tasks, report.default_task.as_str()), (vec!["one".to_string(), "bert-pattern".into()], "one"));
    for (task, name) in [("one", "bert-list"), ("bert-pattern", "bert-pattern")] {
        let (alone, _) = converted(&options("bert-tiny", vec![GivenAdapter::new(adapter(name))]));
        let (_, _, outputs) = cases().into_iter().find(|case| case.0 == name).unwrap();
        for output in &outputs {
            let among = given(&engine, output, &request().task(task));
            assert_eq!(among, given(&alone, output, &request()), "{task}");
        }
    }
    let mut chosen = options("bert-tiny", both.clone());
    chosen.tasks = TaskChoice::Named("bert-pattern".into());
    assert_eq!(converted(&chosen).1.tasks, ["bert-pattern"]);
    let refused = |tasks: TaskChoice, adapters: Vec<GivenAdapter>| {
        let mut options = options("bert-tiny", adapters);
        options.tasks = tasks;
        let error = convert(&options).unwrap_err();
        assert!(error.exit_code() == 2 && !options.out.exists(), "{error}");
        error
    };
    let error = refused(TaskChoice::Named("poetry".into()), both.clone());
    assert!(matches!(&error, ConvertError::UnknownTask { known, .. } if known == &["one", "bert-pattern"]), "{error}");
    assert!(matches!(refused(TaskChoice::None, both), ConvertError::AdapterChoice { .. }));
    let twice = vec![GivenAdapter::named("a", adapter("bert-list")), GivenAdapter::named("a", adapter("bert-pattern"))];
    assert!(matches!(refused(TaskChoice::All, twice), ConvertError::AdapterTwice { task } if task == "a"));
    let odd = vec![GivenAdapter::named("../a", adapter("bert-list"))];
    assert!(matches!(refused(TaskChoice::All, odd), ConvertError::TaskName { .. }));
}

/// A table that an adapter changed is rounded once, to the record's type, and in f32 not at all.
#[test]
fn a_changed_table_is_stored_in_every_type() {
    for (dtype, far) in [(Dtype::F32, 5e-6), (Dtype::Bf16, 0.02), (Dtype::F16, 0.02), (Dtype::Int8, 0.06)] {
        let (_, checkpoint_name, outputs) = cases().into_iter().find(|case| case.0 == "qwen3-plain-table").unwrap();
        let mut options = options(&checkpoint_name, vec![GivenAdapter::new(adapter("qwen3-plain-table"))]);
        options.dtype = dtype;
        let (engine, _) = converted(&options);
        for output in &outputs {
            compare(&format!("{dtype}"), &given(&engine, output, &request()), &wanted(output), far);
        }
    }
}

/// Tensors of an adapter: name, shape, values.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// An adapter of the goldens with its files changed.
fn altered(name: &str, change: impl FnOnce(&mut Value, &mut Tensors)) -> PathBuf {
    let folder = scratch().join(format!("altered-{}", next()));
    copy_folder(&adapter(name), &folder);
    let (config_file, tensor_file) = (folder.join("adapter_config.json"), folder.join("adapter_model.safetensors"));
    let mut config: Value = serde_json::from_slice(&std::fs::read(&config_file).unwrap()).unwrap();
    let bytes = std::fs::read(&tensor_file).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            (name, view.shape().to_vec(), values)
        })
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    change(&mut config, &mut tensors);
    std::fs::write(&config_file, config.to_string()).unwrap();
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
        .collect();
    let views =
        bytes.iter().map(|(name, shape, b)| (*name, TensorView::new(StDtype::F32, (*shape).clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, &tensor_file).unwrap();
    folder
}

fn refused(checkpoint_name: &str, adapters: &[&Path]) -> ConvertError {
    let options = options(checkpoint_name, adapters.iter().map(|folder| GivenAdapter::new(*folder)).collect());
    let error = convert(&options).unwrap_err();
    assert!(!options.out.exists() && !error.to_string().is_empty());
    error
}

#[test]
fn an_adapter_of_another_base_is_refused_with_what_it_was_made_for() {
    for (checkpoint_name, name) in
        [("bert-tiny", "qwen3-table"), ("qwen3-embedding-tiny", "modernbert-linears"), ("modernbert-tiny", "bert-list")]
    {
        let error = refused(checkpoint_name, &[&adapter(name)]);
        let ConvertError::LoraTargetMissing { keys, base: Some(base), .. } = &error else { panic!("{error}") };
        assert!(error.exit_code() == 3 && keys.len() >= 4 && error.to_string().contains(base), "{error}");
    }
    // The same names and other sizes.
    let error = refused("xlm-roberta-tiny", &[&adapter("bert-list")]);
    let ConvertError::LoraShape { faults, .. } = &error else { panic!("{error}") };
    assert!(faults.len() == 8 && error.to_string().contains("made for bert-tiny"), "{error}");
}

#[test]
fn tensors_and_configuration_must_name_the_same_modules() {
    let query = "base_model.model.encoder.layer.1.attention.self.query.";
    let error =
        refused("bert-tiny", &[&altered("bert-list", |_, tensors| tensors.retain(|t| !t.0.starts_with(query)))]);
    let ConvertError::LoraFactorsMissing { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(missing, &["encoder.layer.1.attention.self.query.weight (target_modules)"]);

    let error = refused("bert-tiny", &[&altered("bert-list", |config, _| config["target_modules"] = json!(["value"]))]);
    let ConvertError::LoraNotTargeted { keys, .. } = &error else { panic!("{error}") };
    assert!(keys.len() == 4 && keys.iter().all(|key| key.contains("query")), "{error}");

    let bias = "base_model.model.encoder.layer.0.attention.self.key.base_layer.bias";
    let error = refused("bert-tiny", &[&altered("bert-pattern", |_, tensors| tensors.retain(|t| t.0 != bias))]);
    assert!(
        matches!(&error, ConvertError::LoraFactorsMissing { missing, .. } if missing == &["encoder.layer.0.attention.self.key.bias (bias)"]),
        "{error}"
    );
    let norm = "base_model.model.encoder.layer.1.output.LayerNorm.bias";
    let error = refused("bert-tiny", &[&altered("bert-everything", |_, tensors| tensors.retain(|t| t.0 != norm))]);
    assert!(
        matches!(&error, ConvertError::LoraFactorsMissing { missing, .. } if missing == &["encoder.layer.1.output.LayerNorm.bias (bias)"]),
        "{error}"
    );
    // A bias outside `base_layer` is one that PEFT does not find.
    let moved = altered("bert-pattern", |_, tensors| {
        let tensor = tensors.iter_mut().find(|t| t.0 == bias).unwrap();
        tensor.0 = bias.replace("base_layer.", "");
    });
    let error = refused("bert-tiny", &[&moved]);
    assert!(
        matches!(&error, ConvertError::LoraTargetMissing { keys, .. } if keys == &[bias.replace("base_layer.", "")]),
        "{error}"
    );

    let error = refused(
        "xlm-roberta-tiny",
        &[&altered("roberta-layers", |_, tensors| tensors.retain(|t| !t.0.contains("LayerNorm")))],
    );
    let ConvertError::LoraFactorsMissing { missing, .. } = &error else { panic!("{error}") };
    assert!(missing.contains(&"embeddings.LayerNorm.weight (modules_to_save)".into()), "{error}");
    let error = refused(
        "bert-tiny",
        &[&altered("bert-list", |config, _| config["modules_to_save"] = json!(["classifier", "nowhere"]))],
    );
    assert!(
        matches!(&error, ConvertError::LoraFactorsMissing { missing, .. } if missing == &["nowhere (modules_to_save)"]),
        "{error}"
    );

    // A switch and its tensors.
    let error = refused("bert-tiny", &[&altered("bert-list", |config, _| config["use_dora"] = json!(true))]);
    assert!(matches!(&error, ConvertError::LoraOrphans { keys, .. } if keys.len() == 8), "{error}");
    let error =
        refused("modernbert-tiny", &[&altered("modernbert-linears", |config, _| config["use_dora"] = json!(false))]);
    assert!(
        matches!(&error, ConvertError::LoraTargetMissing { keys, .. } if keys.iter().all(|key| key.ends_with("lora_magnitude_vector"))),
        "{error}"
    );
    let error = refused("bert-tiny", &[&altered("bert-factor-bias", |config, _| config["lora_bias"] = json!(false))]);
    assert!(
        matches!(&error, ConvertError::LoraTargetMissing { keys, .. } if keys.iter().all(|key| key.ends_with("lora_B.bias"))),
        "{error}"
    );

    // A tensor that fits nothing, and one of another size.
    let error = refused(
        "bert-tiny",
        &[&altered("bert-list", |_, tensors| tensors.push(("base_model.model.a.b".into(), vec![1], vec![1.0])))],
    );
    assert!(
        matches!(&error, ConvertError::LoraTargetMissing { keys, .. } if keys == &["base_model.model.a.b"]),
        "{error}"
    );
    let word = "base_model.model.embeddings.word_embeddings.weight";
    let error = refused(
        "bert-tiny",
        &[&altered("bert-list", |_, tensors| tensors.push((word.into(), vec![2, 32], vec![1.0; 64])))],
    );
    assert!(matches!(&error, ConvertError::LoraShape { faults, .. } if faults[0].tensor == word), "{error}");
}

#[test]
fn magnitudes_and_biases_are_read_for_what_they_are() {
    // A magnitude of ones brings every row to the length one: another model.
    let ones = altered("qwen3-table", |_, tensors| {
        let magnitudes = tensors.iter_mut().filter(|t| t.0.ends_with("lora_magnitude_vector"));
        magnitudes.for_each(|t| t.2.fill(1.0));
    });
    let (_, _, outputs) = cases().into_iter().find(|case| case.0 == "qwen3-table").unwrap();
    let (engine, _) = converted(&options("qwen3-embedding-tiny", vec![GivenAdapter::new(&ones)]));
    assert!(distance("ones", &given(&engine, &outputs[0], &request()), &wanted(&outputs[0])).max_abs > 1e-3);
    // The name of the parameter before PEFT 0.12.
    let renamed = altered("qwen3-table", |_, tensors| {
        let magnitudes = tensors.iter_mut().filter(|t| t.0.ends_with("lora_magnitude_vector"));
        magnitudes.for_each(|t| t.0.push_str(".weight"));
    });
    let (engine, _) = converted(&options("qwen3-embedding-tiny", vec![GivenAdapter::new(&renamed)]));
    compare("renamed", &given(&engine, &outputs[0], &request()), &wanted(&outputs[0]), embedding_bound());
    let bad = altered("qwen3-table", |_, tensors| {
        tensors.iter_mut().find(|t| t.0.contains("magnitude")).unwrap().2[3] = f32::NAN
    });
    let error = refused("qwen3-embedding-tiny", &[&bad]);
    assert!(
        matches!(&error, ConvertError::NonFinite { faults, .. } if faults.len() == 1 && faults[0].tensor.contains("lora_magnitude_vector")),
        "{error}"
    );
}

#[test]
fn what_several_tasks_share_and_what_a_head_shares_is_not_changed() {
    let error = refused("qwen3-embedding-tiny", &[&adapter("qwen3-table"), &adapter("qwen3-plain-table")]);
    assert!(
        matches!(&error, ConvertError::AdapterShared { tensors, .. } if tensors.contains(&"embed_tokens.weight".into())),
        "{error}"
    );
    let of_head = altered("qwen3-plain-table", |config, tensors| {
        config["target_modules"] = json!(["embed_tokens"]);
        tensors.retain(|t| t.0.contains("lora_embedding"));
    });
    let error = refused("qwen3-reranker-tiny", &[&of_head]);
    assert!(
        matches!(&error, ConvertError::AdapterTied { tensors, .. } if tensors == &["embed_tokens.weight"]),
        "{error}"
    );
}

#[test]
fn an_adapter_s_folder_without_its_base_or_without_safetensors_is_refused_with_the_way_out() {
    let options = ConvertOptions::new(adapter("bert-list"), scratch().join("no-record"));
    let error = convert(&options).unwrap_err().to_string();
    assert!(
        error.contains("without the weights") && error.contains("bert-tiny") && error.contains("--adapter"),
        "{error}"
    );
    let pickled = scratch().join(format!("pickled-{}", next()));
    copy_folder(&adapter("bert-list"), &pickled);
    std::fs::rename(pickled.join("adapter_model.safetensors"), pickled.join("adapter_model.bin")).unwrap();
    let error = refused("bert-tiny", &[&pickled]);
    assert!(matches!(&error, ConvertError::OtherWeights { found, .. } if found[0].contains("pickle")), "{error}");
    assert!(
        matches!(refused("bert-tiny", &[Path::new("no-such-folder")]), ConvertError::MissingFiles { paths } if paths.len() == 2)
    );
}
