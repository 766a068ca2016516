//! Folders of sentence-transformers and BERT as they are published: what is kept of their settings, what is refused by
//! name, and which names of tensors and files are known. Vectors are compared in the workspace's own tests.

use std::fs;
use std::path::{Path, PathBuf};

use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, convert};
use omniburn_models::blocks::{DenseActivation, Pooling};
use omniburn_models::families::BertConfig;
use omniburn_models::record::{Dtype, RecordHeader};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const POOLING: &str = "1_Pooling/config.json";
const SETTINGS: &str = "config_sentence_transformers.json";

/// The checkpoint, copied so that a test may change it.
struct Bert {
    root: TempDir,
}

impl Bert {
    fn new() -> Self {
        let bert = Self { root: tempfile::tempdir().unwrap() };
        let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        copy(&Path::new(&manifest).join("../../tests/golden/checkpoints/bert-tiny"), &bert.folder());
        bert
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("checkpoint")
    }

    fn with(self, file: &str, value: Value) -> Self {
        let path = self.folder().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_json(&path, &value);
        self
    }

    fn without(self, file: &str) -> Self {
        let path = self.folder().join(file);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        self
    }

    fn change(self, file: &str, change: impl Fn(&mut Value)) -> Self {
        let mut value: Value = serde_json::from_slice(&fs::read(self.folder().join(file)).unwrap()).unwrap();
        change(&mut value);
        self.with(file, value)
    }

    /// Tensors under other names.
    fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        let path = self.folder().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let renamed: serde_json::Map<String, Value> = header.into_iter().map(|(old, v)| (name(&old), v)).collect();
        let text = Value::from(renamed).to_string();
        fs::write(path, safetensors(&text, &bytes[8 + length..])).unwrap();
        self
    }

    fn check(&self) -> Result<ConvertReport, ConvertError> {
        convert(&ConvertOptions { check: true, ..ConvertOptions::new(self.folder(), "") })
    }

    fn header(&self) -> (RecordHeader, ConvertReport) {
        let out = self.root.path().join("record");
        let options = ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(self.folder(), &out) };
        let report = convert(&options).unwrap();
        (Record::open(&out).folder.header().clone(), report)
    }

    fn refused(&self, names: &[&str]) {
        let error = self.check().unwrap_err().to_string();
        for name in names {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn bert(header: &RecordHeader) -> &BertConfig {
    header.family.of::<BertConfig>().expect("a record of this family")
}

fn modules(listed: &[(&str, &str)]) -> Value {
    let module = |(i, (kind, path)): (usize, &(&str, &str))| json!({"idx": i, "name": i.to_string(), "path": path, "type": kind});
    Value::Array(listed.iter().enumerate().map(module).collect())
}

#[test]
fn every_spelling_of_pooling_is_read() {
    let one = |value: Value| {
        let (header, _) = Bert::new().with(POOLING, value).header();
        let config = bert(&header).clone();
        let head = config.vector_head;
        (std::iter::once(head.pooling).chain(head.more_poolings).collect::<Vec<_>>(), head.skips_prompt)
    };
    assert_eq!(
        one(json!({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": true})),
        (vec![Pooling::Cls], false)
    );
    assert_eq!(one(json!({"pooling_mode": ["lasttoken"]})), (vec![Pooling::LastToken], false));
    assert_eq!(
        one(json!({"pooling_mode": ["weightedmean", "max"], "include_prompt": false})),
        (vec![Pooling::WeightedMean, Pooling::Max], true)
    );
    // As flags, the order is the library's own and not the file's.
    assert_eq!(
        one(json!({"pooling_mode_mean_sqrt_len_tokens": true, "pooling_mode_max_tokens": true, "pooling_mode_cls_token": true})).0,
        [Pooling::Cls, Pooling::Max, Pooling::MeanSqrtLen]
    );
    assert_eq!(one(json!({"pooling_mode_cls_token": false})).0, [Pooling::Mean]);
    assert_eq!(one(json!({"pooling_mode_cls_token": true, "pooling_mode": "mean"})).0, [Pooling::Mean]);
    let (header, _) = Bert::new().with(POOLING, json!({"pooling_mode": ["cls", "mean"]})).header();
    assert_eq!(header.dims, [64]);
    Bert::new().with(POOLING, json!({"pooling_mode": "middle"})).refused(&[
        POOLING,
        "pooling_mode",
        "middle",
        "weightedmean",
    ]);
    Bert::new().with(POOLING, json!({"pooling_mode": []})).refused(&["pooling_mode"]);
    Bert::new().with(POOLING, json!({"pooling_mode_attention": true})).refused(&["pooling_mode_attention"]);
    Bert::new().with(POOLING, json!({"include_prompt": "no"})).refused(&["include_prompt", "true or false"]);
}

#[test]
fn modules_lie_where_their_list_says_or_are_refused_by_name() {
    let old = |name: &str| format!("sentence_transformers.models.{name}");
    let (transformer, pooling) = (old("Transformer"), old("Pooling"));
    let moved = Bert::new().without("1_Pooling").with("rows/config.json", json!({"pooling_mode": "cls"})).with(
        "modules.json",
        modules(&[(&transformer, ""), ("sentence_transformers.sentence_transformer.modules.pooling.Pooling", "rows")]),
    );
    let (header, report) = moved.header();
    assert_eq!(bert(&header).vector_head.pooling, Pooling::Cls);
    assert!(header.sources.iter().any(|source| source.file == "rows/config.json"), "{:?}", header.sources);
    assert!(report.to_string().contains("no Normalize"), "{report}");
    moved.without("rows").refused(&["missing files", "rows"]);

    let nested = Bert::new().with("modules.json", modules(&[(&transformer, "0_Transformer"), (&pooling, "1_Pooling")]));
    fs::create_dir(nested.folder().join("0_Transformer")).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"] {
        fs::rename(nested.folder().join(file), nested.folder().join("0_Transformer").join(file)).unwrap();
    }
    let (header, _) = nested.header();
    assert_eq!((bert(&header).max_tokens, header.name.as_str()), (80, "checkpoint"));
    assert!(header.sources.iter().any(|source| source.file == "0_Transformer/config.json"), "{:?}", header.sources);

    let dense = old("Dense");
    for (listed, names) in [
        (
            vec![(transformer.as_str(), ""), (&pooling, "1_Pooling"), (&dense, "2_Dense")],
            vec!["missing files", "2_Dense/model.safetensors"],
        ),
        (
            vec![(&transformer, ""), (&dense, "2_Dense"), (&pooling, "1_Pooling")],
            vec!["type", "Transformer, Dense, Pooling"],
        ),
        (
            vec![
                (&transformer, ""),
                (&pooling, "1_Pooling"),
                ("sentence_transformers.models.LayerNorm", "2_LayerNorm"),
            ],
            vec!["[2].type", "models.LayerNorm\" in 2_LayerNorm"],
        ),
        (vec![(&transformer, ""), ("mine.Pooling", "1_Pooling")], vec!["[1].type", "mine.Pooling"]),
        (vec![(&transformer, ""), (&pooling, "../elsewhere")], vec!["[1].path", "../elsewhere"]),
        (vec![(&transformer, "")], vec!["type", "Pooling"]),
        (vec![(&pooling, "1_Pooling"), (&transformer, "")], vec!["type", "Pooling, Transformer"]),
        (
            vec![("sentence_transformers.models.WordEmbeddings", "0_WordEmbeddings"), (&pooling, "1_Pooling")],
            vec!["WordEmbeddings"],
        ),
        (
            vec![("sentence_transformers.sparse_encoder.models.Transformer", ""), (&pooling, "1_Pooling")],
            vec!["sparse_encoder"],
        ),
    ] {
        Bert::new().with("modules.json", modules(&listed)).refused(&names);
    }
    Bert::new()
        .with("2_Normalize/config.json", json!({"module_input_name": "token_embeddings"}))
        .refused(&["module_input_name"]);
    Bert::new()
        .without("modules.json")
        .with(POOLING, json!({"pooling_mode": "cls"}))
        .refused(&["modules.json", "1_Pooling"]);
    let plain = Bert::new().without("modules.json").check().unwrap();
    assert!(plain.to_string().contains("no modules.json"), "{plain}");
}

/// The configuration of a Dense module, and its tensors with their shapes.
type Dense<'a> = (Value, &'a [(&'a str, &'a [usize])]);

/// The checkpoint with Dense modules behind its pooling.
fn with_dense(modules_behind: &[Dense<'_>]) -> Bert {
    let old = |name: &str| format!("sentence_transformers.models.{name}");
    let mut listed = vec![(old("Transformer"), String::new()), (old("Pooling"), "1_Pooling".into())];
    let mut bert = Bert::new();
    for (i, (config, tensors)) in modules_behind.iter().enumerate() {
        let name = format!("{}_Dense", i + 2);
        bert = bert.with(&format!("{name}/config.json"), config.clone());
        let (mut header, mut bytes) = (serde_json::Map::new(), 0);
        for (name, shape) in *tensors {
            let end = bytes + 4 * shape.iter().product::<usize>();
            header.insert((*name).into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [bytes, end]}));
            bytes = end;
        }
        let file = safetensors(&Value::from(header).to_string(), &vec![0; bytes]);
        fs::write(bert.folder().join(&name).join("model.safetensors"), file).unwrap();
        listed.push((old("Dense"), name));
    }
    let listed: Vec<(&str, &str)> = listed.iter().map(|(kind, path)| (kind.as_str(), path.as_str())).collect();
    bert.with("modules.json", modules(&listed))
}

#[test]
fn dense_modules_are_read_or_refused_by_name() {
    let config = |inputs: usize, outputs: usize| json!({"in_features": inputs, "out_features": outputs, "bias": false, "activation_function": "torch.nn.modules.linear.Identity"});
    let weight: (&str, &[usize]) = ("linear.weight", &[8, 32]);
    let bert_with = |config: Value| with_dense(&[(config, &[weight])]);
    let (header, report) = bert_with(config(32, 8)).header();
    assert_eq!((header.dims.as_slice(), bert(&header).vector_head.dense.len()), (&[8][..], 1));
    assert!(header.sources.iter().any(|source| source.file == "2_Dense/model.safetensors"), "{:?}", header.sources);
    assert!(header.sources.iter().any(|source| source.file == "2_Dense/config.json"), "{:?}", header.sources);
    assert!(report.to_string().contains("no Normalize"), "{report}");
    let two: [Dense<'_>; 2] = [(config(32, 8), &[weight]), (config(8, 4), &[("linear.weight", &[4, 8])])];
    let (header, _) = with_dense(&two).header();
    assert_eq!(header.dims, [4]);

    // Without a name the activation is tanh, without a word there is a bias.
    let bare = json!({"in_features": 32, "out_features": 8});
    let (header, _) = with_dense(&[(bare.clone(), &[weight, ("linear.bias", &[8])])]).header();
    let dense = &bert(&header).vector_head.dense[0];
    assert_eq!((dense.activation, dense.bias, dense.residual), (DenseActivation::Tanh, true, false));
    bert_with(bare).refused(&["missing tensors", "dense.0.linear.bias"]);
    let with = |field: &str, value: Value| {
        let mut config = config(32, 8);
        config[field] = value;
        config
    };
    for class in ["PReLU", "Softmax", "GLU", "Threshold"] {
        let name = format!("torch.nn.modules.activation.{class}");
        bert_with(with("activation_function", name.into())).refused(&["2_Dense", "activation_function", class, "Tanh"]);
    }
    for other in [json!("mine.Tanh"), json!(null), json!("torch.tanh"), json!(3)] {
        bert_with(with("activation_function", other)).refused(&["activation_function", "a class of torch.nn"]);
    }
    bert_with(with("module_input_name", "token_embeddings".into())).refused(&["module_input_name", "token_embeddings"]);
    bert_with(with("in_features", 31.into())).refused(&["in_features", "31", "32, the numbers that go in"]);
    bert_with(with("out_features", 0.into())).refused(&["out_features"]);
    bert_with(with("dropout", 0.1.into())).refused(&["2_Dense", "dropout"]);
    bert_with(with("out_features", 9.into())).refused(&["mis-shaped", "2_Dense/linear.weight", "[9, 32]"]);
    bert_with(with("use_residual", true.into())).refused(&["missing tensors", "dense.0.residual.weight"]);
    let left = with_dense(&[(config(32, 8), &[weight, ("linear.bias", &[8])])]);
    left.refused(&["nothing takes", "2_Dense/linear.bias"]);
    let pickled = bert_with(config(32, 8)).without("2_Dense/model.safetensors");
    fs::write(pickled.folder().join("2_Dense/pytorch_model.bin"), [0; 16]).unwrap();
    pickled.refused(&["pytorch_model.bin", "a pickle of PyTorch", "SentenceTransformer(FOLDER).save_pretrained"]);
    // Without the list of modules the library does not see them.
    bert_with(config(32, 8)).without("modules.json").refused(&["modules.json", "2_Dense/config.json is there"]);
}

#[test]
fn prompts_go_to_the_roles_that_the_library_gives_them() {
    let prompts = |value: Value| {
        let (header, report) = Bert::new().with(SETTINGS, value).header();
        (header.prompts, report.to_string())
    };
    let (found, report) =
        prompts(json!({"prompts": {"query": "q: ", "document": "d: ", "passage": "p: ", "sts": "s: "}}));
    assert_eq!((found.query.as_str(), found.document.as_str(), found.none.as_str()), ("q: ", "d: ", ""));
    assert!(report.contains("--role query: \"q: \"") && report.contains("no role takes: passage, sts"), "{report}");
    let (found, _) = prompts(json!({"prompts": {"corpus": "c: ", "passage": "p: "}}));
    assert_eq!((found.query.as_str(), found.document.as_str()), ("", "p: "));
    let (found, report) = prompts(json!({"prompts": {"query": "", "x": "x: "}, "default_prompt_name": "x"}));
    assert_eq!((found.query.as_str(), found.document.as_str(), found.none.as_str()), ("", "x: ", "x: "));
    assert!(report.contains("default_prompt_name"), "{report}");
    Bert::new()
        .with(SETTINGS, json!({"prompts": {"a": "b"}, "default_prompt_name": "c"}))
        .refused(&["default_prompt_name", "there are a"]);
    Bert::new().with(SETTINGS, json!({"prompts": {"query": 3}})).refused(&["prompts.query", "a string"]);
    Bert::new().with(SETTINGS, json!({"model_type": "SparseEncoder"})).refused(&["model_type", "SparseEncoder"]);
    Bert::new().with(SETTINGS, json!({"similarity_fn_name": "MaxSim"})).refused(&["similarity_fn_name", "MaxSim"]);
    let (header, report) = Bert::new().with(SETTINGS, json!({"truncate_dim": 8, "similarity_fn_name": "dot"})).header();
    assert_eq!((header.dims.as_slice(), header.default_dim), (&[8, 32][..], Some(8)));
    assert!(report.to_string().contains("similarity_fn_name `dot`"), "{report}");
}

#[test]
fn settings_of_the_transformer_are_computed_or_refused_by_name() {
    const FILE: &str = "sentence_bert_config.json";
    for file in ["sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlnet_config.json"] {
        let (header, _) = Bert::new().without(FILE).with(file, json!({"max_seq_length": 20})).header();
        assert_eq!(bert(&header).max_tokens, 20, "{file}");
    }
    let today = json!({
        "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    });
    let (header, _) = Bert::new().with(FILE, today).header();
    assert_eq!(bert(&header).max_tokens, 96);
    for (value, names) in [
        (json!({"transformer_task": "fill-mask"}), ["transformer_task", "fill-mask"]),
        (
            json!({"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}),
            ["method_output_name", "pooler_output"],
        ),
        (json!({"query_length": 32}), ["query_length", "32"]),
        (json!({"config_args": {"num_hidden_layers": 1}}), ["config_args.num_hidden_layers", "1"]),
        (json!({"processing_kwargs": {"text": {"max_length": 5}}}), ["processing_kwargs.text", "5"]),
    ] {
        Bert::new().with(FILE, value).refused(&names);
    }
    let cased = Bert::new().change("tokenizer.json", |json| json["normalizer"]["lowercase"] = false.into());
    let (_, report) = cased.with(FILE, json!({"do_lower_case": true})).header();
    assert!(report.to_string().contains("do_lower_case"), "{report}");
}

#[test]
fn names_of_every_wrapper_and_age_are_known() {
    let before = Bert::new().check().unwrap();
    for prefix in ["bert.", "model.", "module.", "module.bert.", "0.auto_model.", "model.bert.", "auto_model."] {
        let report = Bert::new().renamed(|name| format!("{prefix}{name}")).check().unwrap();
        assert_eq!((report.mapped, report.dropped.len()), (before.mapped, before.dropped.len()), "{prefix}");
    }
    let old =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let report = Bert::new().renamed(|name| format!("bert.{}", old(name))).check().unwrap();
    assert_eq!(report.mapped, before.mapped);
    let head = Bert::new().renamed(|name| match name {
        "pooler.dense.weight" => "cls.predictions.transform.dense.weight".into(),
        "pooler.dense.bias" => "cls.seq_relationship.bias".into(),
        name => format!("bert.{name}"),
    });
    let report = head.check().unwrap().to_string();
    assert!(report.contains("masked words: cls.predictions") && report.contains("next sentence: cls.seq"), "{report}");
    Bert::new()
        .with("adapter_config.json", json!({"peft_type": "LORA"}))
        .refused(&["adapter_config.json", "--adapter"]);
    Bert::new()
        .change("config.json", |json| json["quantization_config"] = json!({"bits": 4}))
        .refused(&["quantization_config"]);
}

#[test]
fn what_no_family_takes_is_refused_with_what_it_is_and_what_would_do() {
    let other = Bert::new().change("config.json", |json| {
        json["model_type"] = "deberta-v2".into();
        json["architectures"] = json!(["DebertaV2Model"]);
    });
    other.refused(&["model_type", "deberta-v2", "DebertaV2Model", "\"bert\"", "omniburn-mini", "qwen3"]);
    let nameless = Bert::new().change("config.json", |json| {
        json.as_object_mut().unwrap().remove("model_type");
        json["architectures"] = json!(["BertForMaskedLM"]);
    });
    nameless.refused(&[
        "model_type: found nothing",
        "BertForMaskedLM",
        "`\"model_type\": \"bert\"` in this file would do",
    ]);
    for (file, format) in [
        ("pytorch_model.bin", "pickle"),
        ("pytorch_model.bin.index.json", "pickle"),
        ("model.pt", "pickle"),
        ("model.onnx", "ONNX"),
        ("model.gguf", "GGUF"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("openvino_model.bin", "OpenVINO"),
        ("model.fp16.safetensors", "another name"),
        ("onnx/model.onnx", "ONNX"),
    ] {
        let folder = Bert::new().without("model.safetensors").with(file, json!(1));
        folder.refused(&[file.split('/').next().unwrap(), format, "model.safetensors"]);
    }
    Bert::new().without("model.safetensors").refused(&["missing files", "model.safetensors"]);
    let bert = Bert::new().with("model.gguf", json!(1));
    let error = convert(&ConvertOptions { check: true, ..ConvertOptions::new(bert.folder().join("model.gguf"), "") });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.gguf: corrupt: cut"), "{error}");
    let bert = Bert::new().with("model.onnx", json!(1));
    let error = convert(&ConvertOptions { check: true, ..ConvertOptions::new(bert.folder().join("model.onnx"), "") });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ONNX") && error.contains("a folder with config.json"), "{error}");
}
