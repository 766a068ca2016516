//! One runner for every text embedder that is recognised by `model_type`: each test goes over all checkpoints of all sets that such
//! a family reads, with what the reference computed from them. A new family adds a folder, and nothing here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use omniburn::{Dtype, Embedding, Engine, Input, Priority, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_models::FAMILIES;
use omniburn_models::checkpoint::TextFiles;
use omniburn_models::family::CheckpointRules;
use omniburn_models::flops::Shape;
use omniburn_models::record::{TensorRole, TensorSpec};
use omniburn_models::registry::rules_for;
use serde_json::Value;

use crate::support::*;

/// Texts whose ids in a manifest are those of `tokenizer.json` alone, where transformers 5 builds the tokenizer anew from its
/// class (`XLMRobertaTokenizer`), as we do: our ids for them are compared with transformers' by `tokenizer_settings`.
const OTHER_IDS: [(&str, [&str; 5]); 1] = [("bge-m3-tiny", ["space", "combining", "emoji", "code", "whitespace"])];

/// Checkpoints whose manifest has texts in a prompt of its maker and not in the family's.
const OTHER_PROMPTS: [&str; 1] = ["qwen3-vl-tiny"];

/// Matrices that rows of towers go through, by the beginning of their names.
const CONNECTORS: [&str; 3] = ["merger.", "deepstack.", "audio_projector."];

/// Matrices behind the pooling, by the beginning of their names.
const BEHIND_THE_POOLING: [&str; 3] = ["text_head.", "text_projection.", "dense."];
/// Texts that a maker cuts earlier than the folder's own files say.
const CUT_EARLIER: [(&str, &str); 1] = [("llama-bidirec-tiny", "long")];

/// A checkpoint with texts, their ids, and the vectors that the reference made of them.
struct Model {
    checkpoint: Checkpoint,
    family: &'static str,
    rules: &'static CheckpointRules,
}

impl Model {
    /// Every checkpoint of every set that a family of the list reads by its `model_type`.
    fn all() -> Vec<Self> {
        let mut found = Vec::new();
        for set in sets() {
            let mut names: Vec<String> = std::fs::read_dir(&set.checkpoints)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| set.refs.join(format!("{name}.json")).is_file())
                .filter(|name| !OTHER_PROMPTS.contains(&name.as_str()))
                .collect();
            names.sort();
            for name in names {
                let rules = config_of(&set.checkpoints.join(&name)).as_ref().and_then(rules_for);
                let Some(rules) = rules.filter(|rules| is_text_embedder(rules)) else { continue };
                let refs = read(&set.refs.join(format!("{name}.json"))).expect("a manifest is JSON");
                if !refs["cases"].as_array().is_some_and(|cases| cases.iter().any(|case| vector_of(case).is_some())) {
                    continue;
                }
                let of =
                    |family: &&&omniburn_models::Family| family.checkpoint.is_some_and(|own| std::ptr::eq(own, rules));
                let family = FAMILIES.iter().find(of).expect("rules of a family").name;
                found.push(Self { checkpoint: set.checkpoint(&name), family, rules });
            }
        }
        let mut families: Vec<&str> = found.iter().map(|model| model.family).collect();
        families.sort_unstable();
        families.dedup();
        // Whatever is read by its model_type has a golden in the project itself, `bert` in `parity_mini.rs` too, and `colqwen2`,
        // which gives no vector for a text, in `late_interaction.rs`.
        let elsewhere = ["bert", "colqwen2"];
        let want = FAMILIES.iter().filter(|family| family.checkpoint.is_some_and(is_text_embedder));
        let want = want.filter(|family| !elsewhere.contains(&family.name));
        for family in want {
            assert!(families.contains(&family.name), "{} has no golden", family.name);
        }
        found
    }

    fn record(&self, dtype: Dtype) -> PathBuf {
        record(&self.checkpoint.folder, dtype, TaskChoice::Default)
    }

    fn engine(&self) -> Engine {
        builder(self.record(Dtype::F32)).open().expect("a fresh record opens")
    }

    /// Texts with the role whose prompt the reference put in front, their ids and their vector. A prompt that no role takes
    /// is part of the text, where no role is one without a prompt.
    fn texts(&self, engine: &Engine) -> Vec<(String, Role, usize, Vec<f32>)> {
        let prompts = &engine.header().prompts;
        let other = |case: &Value| {
            let name = case["name"].as_str().unwrap_or_default();
            let is = |model: &str| model == self.checkpoint.name;
            OTHER_IDS.iter().any(|(model, names)| is(model) && names.contains(&name))
                || CUT_EARLIER.iter().any(|(model, cut)| is(model) && *cut == name)
        };
        let cases =
            self.checkpoint.cases.iter().filter(|case| !other(case)).filter_map(|case| Some((case, vector_of(case)?)));
        let text = |(case, vector): (&Value, &str)| {
            let prompt = case["prompt_text"].as_str().unwrap_or_default();
            let roles =
                [(Role::Document, &prompts.document), (Role::Query, &prompts.query), (Role::None, &prompts.none)];
            let named = || self.checkpoint.text_named(str_of(&case["items"][0][1]));
            let (text, tokens) =
                (case["text"].as_str().map_or_else(named, String::from), ids_of(&case["input_ids"]).len());
            let (role, text) = match roles.into_iter().find(|(_, own)| *own == prompt) {
                Some((role, _)) => (role, text),
                // A prompt that no role takes stands in front of the text by hand.
                None => {
                    assert_eq!(prompts.none, "", "{}", self.checkpoint.name);
                    (Role::None, format!("{prompt}{text}"))
                }
            };
            (text, role, tokens, self.checkpoint.tensor(vector))
        };
        cases.map(text).filter(|(_, _, tokens, _)| *tokens <= engine.profile().max_tokens).collect()
    }

    /// A checkpoint of the project itself.
    fn golden(name: &str) -> Self {
        let checkpoint = golden().checkpoint(name);
        let rules = config_of(&checkpoint.folder).as_ref().and_then(rules_for).expect("some family takes it");
        Self { checkpoint, family: "", rules }
    }

    /// A changed copy of the checkpoint.
    fn changed(&self, what: &str, change: impl FnOnce(&Path)) -> PathBuf {
        let copy = scratch().join(format!("family-{}-{what}-{}", self.checkpoint.name, std::process::id()));
        let _ = std::fs::remove_dir_all(&copy);
        copy_folder(&self.checkpoint.folder, &copy);
        join_shards(&copy);
        change(&copy);
        copy
    }
}

/// Whether folders of a family are text embedders: those of sentence-transformers, or a text tower with its tokenizer alone,
/// whose other tower has tests in `two_towers.rs`. The others have tests of their own.
fn is_text_embedder(rules: &CheckpointRules) -> bool {
    matches!(rules.steps.texts, TextFiles::SentenceTransformers | TextFiles::Tokenizer { .. })
}

/// The configuration of a folder, or what stands in for it where its first module has none.
fn config_of(folder: &Path) -> Option<Value> {
    read(&folder.join("config.json")).or_else(|| {
        let first = read(&folder.join("modules.json"))?;
        let class = first[0]["type"].as_str()?.rsplit('.').next()?.to_owned();
        Some(serde_json::json!({"model_type": class}))
    })
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path).unwrap_or_else(|| panic!("{}", path.display()));
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

/// The tensor of a text's vector in a manifest. Texts with an instruction are compared in `items.rs`.
fn vector_of(case: &Value) -> Option<&str> {
    // A manifest of items says a text by its name in the set.
    let named = case["items"].as_array().is_some_and(|items| items.len() == 1) && case["convention"] == "published";
    // Some manifests have a second prompt that another folder would say, compared in `thinker.rs`.
    let text = (case["text"].is_string() || named) && case["instruction"].is_null() && case["style"] != "e5";
    (case["kind"] == "text" && case["input_ids"].is_array() && text)
        .then(|| case["embedding"].as_str().or(case["dense"].as_str()))?
}

/// A tensor of a checkpoint: name, type, shape, bytes.
type Stored = (String, safetensors::Dtype, Vec<usize>, Vec<u8>);

/// Changes the tensors of a checkpoint, given in the order of their names.
fn retensored(folder: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// As the reference embeds: what is too long is cut at its end.
fn request(role: Role) -> Request {
    Request::new(role).truncation(Truncation::Right)
}

fn converted(folder: &Path, dtype: Dtype) -> Result<PathBuf, ConvertError> {
    let out = scratch().join(format!("{}-record", folder.file_name().unwrap().to_string_lossy()));
    convert(&ConvertOptions { dtype, force: true, ..ConvertOptions::new(folder, &out) })?;
    Ok(out)
}

fn embed(engine: &Engine, text: &str, request: &Request) -> Embedding {
    engine.embed_with(&[Input::text(text)], request).unwrap().swap_remove(0).unwrap().embedding
}

#[test]
fn every_family_equals_its_reference() {
    for model in Model::all() {
        let (engine, mut worst) = (model.engine(), Worst::default());
        for (text, role, tokens, want) in model.texts(&engine) {
            let name = format!("{} ({}), {text:?}", model.checkpoint.name, model.family);
            let got = engine.embed_with(&[Input::text(&text)], &request(role)).unwrap().swap_remove(0).unwrap();
            assert_eq!(got.tokens, tokens, "{name}");
            worst.see(compare(&name, got.embedding.as_slice(), &want, embedding_bound()));
        }
        worst.report(&format!("{} ({})", model.checkpoint.name, model.family));
    }
}

#[test]
fn every_family_gives_an_item_the_same_vector_in_any_batch_and_in_any_steps() {
    for model in Model::all() {
        let engine = model.engine();
        // Cut into slices as short as they get.
        let short = builder(model.record(Dtype::F32)).time_slice(Duration::from_micros(1)).open().unwrap();
        for role in [Role::Query, Role::Document] {
            let texts: Vec<String> =
                model.texts(&engine).into_iter().filter(|text| text.1 == role).map(|text| text.0).collect();
            if texts.is_empty() {
                continue;
            }
            let request = request(role).priority(Priority::Background);
            let alone: Vec<Vec<f32>> = texts.iter().map(|text| embed(&engine, text, &request).into_vec()).collect();
            let mut order: Vec<usize> = (0..texts.len()).chain(0..texts.len().min(3)).collect();
            for engine in [&engine, &short] {
                for turn in 0..3 {
                    order.rotate_left(turn * 2 + 1);
                    let inputs: Vec<Input> = order.iter().map(|&at| Input::text(&texts[at])).collect();
                    let together = engine.embed_with(&inputs, &request).unwrap();
                    let got: Vec<Vec<f32>> =
                        together.into_iter().map(|found| found.unwrap().embedding.into_vec()).collect();
                    let want: Vec<Vec<f32>> = order.iter().map(|&at| alone[at].clone()).collect();
                    same(&model.checkpoint.name, &got, &want);
                }
            }
        }
    }
}

#[test]
fn every_family_refuses_or_cuts_a_text_that_is_too_long_and_says_so() {
    for model in Model::all() {
        let engine = model.engine();
        let limit = engine.profile().max_tokens;
        let long = "word ".repeat(limit + 5);
        let request = Request::new(Role::Document);
        let refused = engine.embed_with(&[Input::text(&long)], &request).unwrap().swap_remove(0).unwrap_err();
        assert_eq!(refused.kind().name(), "too_long", "{}: {refused}", model.checkpoint.name);
        assert!(refused.to_string().contains(&limit.to_string()), "{refused}");
        for truncation in [Truncation::Right, Truncation::Left] {
            let request = request.clone().truncation(truncation);
            let cut = engine.embed_with(&[Input::text(&long)], &request).unwrap().swap_remove(0).unwrap();
            assert!(cut.truncated && cut.tokens == limit, "{}: {} of {limit}", model.checkpoint.name, cut.tokens);
        }
        let empty = engine.embed_with(&[Input::text("")], &Request::new(Role::None)).unwrap().swap_remove(0);
        match empty {
            Ok(found) => assert!(found.tokens > 0, "{}", model.checkpoint.name),
            Err(error) => assert_eq!(error.kind().name(), "empty", "{}: {error}", model.checkpoint.name),
        }
    }
}

#[test]
fn every_family_counts_the_operations_of_its_matrices() {
    for model in Model::all() {
        let record = open(&model.record(Dtype::F32));
        let family = &record.header().family;
        let specs = family.text_tensors(0);
        // Heads over rows are computed where they are asked for.
        let linear = specs.iter().filter(|spec| spec.role == TensorRole::Linear && !spec.name.starts_with("head."));
        let linear = linear.filter(|spec| !CONNECTORS.iter().any(|name| spec.name.starts_with(name)));
        // These meet one vector a text.
        let (behind, rest): (Vec<_>, Vec<_>) =
            linear.partition(|spec| BEHIND_THE_POOLING.iter().any(|name| spec.name.starts_with(name)));
        let elements = |specs: Vec<&TensorSpec>| specs.iter().map(|spec| spec.elements() as u64).sum::<u64>();
        let (behind, matrices) = (elements(behind), elements(rest));
        let count = |tokens| family.flops(&Shape::Text { tokens }).expect("a text goes in") - 2 * behind;
        if matrices == 0 {
            // A table of token rows: nothing but their sum.
            assert!(count(1) > 0 && count(3) == 3 * count(1), "{}", model.checkpoint.name);
            continue;
        }
        // Every matrix meets each row once; attention grows with the square, and one row sees one row.
        let one = count(1) - 2 * matrices;
        assert!(one > 0 && one < count(1), "{}: {one}", model.checkpoint.name);
        assert_eq!((count(3) - 2 * 3 * matrices) % one, 0, "{}", model.checkpoint.name);
        assert!(count(4) > 2 * count(2), "{}", model.checkpoint.name);
        assert!(family.activations().text.heads > 0);
    }
}

#[test]
fn every_family_refuses_tensors_that_are_missing_left_over_or_of_another_shape() {
    for model in Model::all() {
        let refused = |what: &str, change: &dyn Fn(&mut Vec<Stored>)| {
            let copy = model.changed(what, |folder| retensored(folder, change));
            converted(&copy, Dtype::F32).expect_err(what).to_string()
        };
        let mut name = String::new();
        let bytes = std::fs::read(model.changed("whole", |_| {}).join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
        let layers = tensors.iter().any(|(tensor, _)| tensor.contains("layer"));
        for (tensor, view) in tensors {
            // The last matrix of a layer; of a model without layers, the last of all.
            if view.shape().len() == 2 && (tensor.contains("layer") || !layers) && tensor > name {
                name = tensor;
            }
        }
        let matrix = |tensors: &[Stored]| tensors.iter().position(|(tensor, ..)| *tensor == name).unwrap();
        let canonical = model.rules.keys.canonical(&name);
        let error = refused("missing", &|tensors| _ = tensors.remove(matrix(tensors)));
        assert!(error.contains("missing tensors") && error.contains(&canonical), "{}: {error}", model.checkpoint.name);
        let error = refused("extra", &|tensors| {
            let (_, dtype, shape, data) = tensors[0].clone();
            tensors.push(("an_unknown.weight".into(), dtype, shape, data));
        });
        assert!(error.contains("nothing takes") && error.contains("an_unknown.weight"), "{error}");
        let error = refused("shape", &|tensors| {
            let at = matrix(tensors);
            tensors[at].2.insert(0, 1);
        });
        assert!(error.contains("mis-shaped") && error.contains(&name), "{error}");
    }
}

#[test]
fn every_family_refuses_a_header_that_lies() {
    for model in Model::all() {
        let record = model.record(Dtype::F32);
        let header = read(&record.join("model.json")).unwrap();
        let config = header["family"]["config"].as_object().unwrap();
        let copy = scratch().join(format!("family-header-{}", model.checkpoint.name));
        let _ = std::fs::remove_dir_all(&copy);
        copy_folder(&record, &copy);
        std::fs::write(copy.join("model.json"), header_text(header.clone())).unwrap();
        omniburn::RecordFolder::open(&copy).expect("a header that says the same");
        let refused = |what: &str, change: &dyn Fn(&mut Value)| {
            let _ = std::fs::remove_dir_all(&copy);
            copy_folder(&record, &copy);
            let mut changed = header.clone();
            change(&mut changed["family"]["config"]);
            std::fs::write(copy.join("model.json"), header_text(changed)).unwrap();
            match omniburn::RecordFolder::open(&copy) {
                Err(_) => {}
                Ok(opened) => {
                    let tokens = opened.header().family.open_tokens(&opened);
                    let engine = tokens.map(|_| Engine::open(&copy));
                    assert!(!matches!(engine, Ok(Ok(_))), "{}: {what} was taken", model.checkpoint.name);
                }
            }
        };
        refused("an unknown field", &|config| config["no_such_field"] = 1.into());
        let sizes = |config: &serde_json::Map<String, Value>| -> Vec<String> {
            config.iter().filter(|(_, v)| v.is_u64()).map(|(name, _)| format!("/{name}")).collect()
        };
        let mut fields = sizes(config);
        for part in ["text", "vision"] {
            if let Some(inner) = config.get(part).and_then(Value::as_object) {
                fields.extend(sizes(inner).iter().map(|name| format!("/{part}{name}")));
            }
        }
        for (i, dense) in config.get("dense").and_then(Value::as_array).into_iter().flatten().enumerate() {
            fields.extend(sizes(dense.as_object().unwrap()).iter().map(|name| format!("/dense/{i}{name}")));
        }
        for field in fields {
            for value in [0u64, 1 << 40] {
                // What the configuration does not know of the padding or the longest text, no other part contradicts.
                let own = header["family"]["config"].pointer(&field).and_then(Value::as_u64);
                let unchecked = field.ends_with("/padding") || field.ends_with("/unknown");
                if value == 0 && unchecked || own == Some(value) {
                    continue;
                }
                let name = format!("{field} = {value}");
                refused(&name, &|config| *config.pointer_mut(&field).unwrap() = value.into());
            }
        }
    }
}

#[test]
fn every_family_opens_in_other_types_near_its_reference() {
    for model in Model::all() {
        for (dtype, least) in
            [(Dtype::Bf16, 0.999), (Dtype::Int8, 0.99), (Dtype::Affine8, 0.999), (Dtype::Affine4, 0.9)]
        {
            let engine = builder(model.record(dtype)).open().unwrap();
            let mut worst = 1.0_f64;
            for (text, role, _, want) in model.texts(&engine) {
                let got = embed(&engine, &text, &request(role));
                let cosine = distance(&text, got.as_slice(), &want).cosine;
                worst = worst.min(cosine);
                assert!(cosine > least, "{} in {dtype}, {text:?}: {cosine}", model.checkpoint.name);
            }
            println!("{} in {dtype}: least cosine {worst:.6}", model.checkpoint.name);
        }
    }
}

/// A field of a configuration that changes vectors and is not computed is refused by name, whatever the checkpoint has there.
#[test]
fn fields_that_change_vectors_are_computed_or_refused_by_name() {
    use serde_json::json;
    let llama: &[(&str, Value)] = &[
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("pooling", json!("last")),
        ("partial_rotary_factor", json!(0.5)),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_scaling", json!({"type": "linear", "factor": 4.0})),
        ("rope_scaling", json!({"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0})),
        ("rope_parameters", json!({"rope_type": "longrope"})),
        ("rope_parameters", json!({"rope_theta": 31.0, "rope_type": "default"})),
        ("quantization_config", json!({"bits": 4})),
        ("num_hidden_layers", json!(1000)),
        ("is_causal", json!("no")),
    ];
    let gemma: &[(&str, Value)] = &[
        ("hidden_activation", json!("gelu")),
        ("attention_bias", json!(true)),
        ("use_bidirectional_attention", json!(false)),
        ("use_bidirectional_attention", json!(null)),
        ("attn_logit_softcapping", json!(50.0)),
        ("layer_types", json!(["full_attention"])),
        ("layer_types", json!(["full_attention", "full_attention", "full_attention", "chunked_attention"])),
        ("sliding_window", json!(1)),
        ("query_pre_attn_scalar", json!(0)),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 8.0})),
        ("rope_parameters", json!({"full_attention": {"rope_type": "yarn"}})),
        ("rope_parameters", json!({"rope_theta": 10.0})),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"bits": 4})),
    ];
    let static_table: &[(&str, Value)] = &[("quantization_config", json!({"bits": 4})), ("max_length", json!(-1))];
    let mut seen = 0;
    for model in Model::all() {
        let fields = match model.family {
            "llama" => llama,
            "gemma3_text" => gemma,
            "model2vec" if model.checkpoint.folder.join("config.json").is_file() => static_table,
            _ => continue,
        };
        for (field, value) in fields {
            let copy = model.changed("refused", |folder| {
                edit(&folder.join("config.json"), |json| json[*field] = value.clone());
            });
            let error = converted(&copy, Dtype::F32).expect_err(field).to_string();
            // Parameters by kind of layer and those that contradict the flat ones are named by their own field.
            let named = error.contains(field) || field.starts_with("rope") && error.contains("rope");
            assert!(named && error.contains("config.json"), "{} {field} = {value}: {error}", model.checkpoint.name);
            seen += 1;
        }
    }
    assert!(seen >= 3 * llama.len() + gemma.len() + static_table.len(), "{seen}");
}

/// A mistake in the configuration, the pooling or the prompt moves vectors by more than ten tolerances: the comparison above
/// can fail.
#[test]
fn mistakes_in_a_familys_folder_show_in_its_vectors() {
    for model in Model::all() {
        let right = model.engine();
        let texts = model.texts(&right);
        let moved = |what: &str, folder: PathBuf| {
            let engine =
                builder(converted(&folder, Dtype::F32).unwrap_or_else(|e| panic!("{what}: {e}"))).open().unwrap();
            let far = texts.iter().map(|(text, role, _, want)| {
                let got = embed(&engine, text, &request(*role));
                distance(what, got.as_slice(), want).max_abs
            });
            let far = far.fold(0.0, f32::max) / embedding_bound();
            println!("{}: {what} moves a vector by {far:.0} tolerances", model.checkpoint.name);
            assert!(far > 10.0, "{}: {what} moves a vector by {far:.1} tolerances", model.checkpoint.name);
        };
        let own = config_of(&model.checkpoint.folder).unwrap();
        // Every name that a field has in this folder.
        let config = |what: &str, fields: &[&str], value: Value| {
            let there: Vec<&&str> = fields.iter().filter(|field| !own[**field].is_null()).collect();
            // Of a configuration whose texts have one of their own, in `items.rs`.
            if there.is_empty() || own["text_config"].is_object() {
                return;
            }
            let copy = model.changed(what, |folder| {
                edit(&folder.join("config.json"), |json| {
                    for field in there {
                        json[*field] = value.clone();
                    }
                    if what == "twice the heads" {
                        json.as_object_mut().unwrap().remove("head_dim");
                    }
                });
            });
            moved(what, copy);
        };
        config("another epsilon", &["layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_eps"], 0.05.into());
        // The others have tensors as wide as their heads are many.
        let as_many = model.family != "mpnet" && own["num_key_value_heads"].is_null();
        if as_many && (own["head_dim"].is_null() || model.family == "nomic_bert") {
            config("twice the heads", &["num_attention_heads", "n_head", "n_heads"], 8.into());
        }
        config("a window half as wide", &["local_attention"], 8.into());
        config("every layer over all rows", &["global_attn_every_n_layers"], 1.into());
        config("another rotary base of window layers", &["local_rope_theta", "rope_local_base_freq"], 10.0.into());
        if own["rope_parameters"].is_null() {
            config("another rotary base", &["rope_theta", "global_rope_theta", "rotary_emb_base"], 100.0.into());
        }
        config("positions that are not stretched", &["rope_scaling"], Value::Null);
        config("scores divided by another number", &["query_pre_attn_scalar"], 16.into());
        if own["layer_types"].as_array().is_some_and(|kinds| kinds.contains(&"sliding_attention".into())) {
            config("a narrower window", &["sliding_window"], 6.into());
            config("every layer over a window", &["layer_types"], vec!["sliding_attention"; 4].into());
        }
        match model.family {
            "xlm_roberta" => config("padding elsewhere", &["pad_token_id"], 5.into()),
            "nomic_bert" => config("fewer experts", &["moe_top_k"], 1.into()),
            "distilbert" => config("another activation", &["activation"], "relu".into()),
            "mpnet" => {
                config("another activation", &["hidden_act"], "relu".into());
                let copy = model.changed("distances turned around", |folder| {
                    retensored(folder, |tensors| {
                        let bias =
                            tensors.iter_mut().find(|tensor| tensor.0.contains("relative_attention_bias")).unwrap();
                        // Earlier and later keys change places.
                        let half = bias.3.len() / 2;
                        bias.3.rotate_left(half);
                    });
                });
                moved("distances turned around", copy);
            }
            _ => {}
        }
        if matches!(model.family, "qwen3" | "llama") {
            let (what, causal) = match own["is_causal"].as_bool().unwrap_or(own["model_type"] != "llama_bidirec") {
                true => ("rows that see later ones", false),
                false => ("rows that see only earlier ones", true),
            };
            let copy = model.changed(what, |folder| {
                edit(&folder.join("config.json"), |json| json["is_causal"] = causal.into());
            });
            moved(what, copy);
        }
        let modules = model.checkpoint.folder.join("modules.json");
        // Without one, nothing makes a vector a token.
        let of_vectors = |list: &str| list.contains("Dense") && list.contains("Pooling");
        if read(&modules).is_some_and(|list| of_vectors(&list.to_string())) {
            let copy = model.changed("a Dense module less", |folder| {
                edit(&folder.join("modules.json"), |list| {
                    list.as_array_mut().unwrap().retain(|module| !module.to_string().contains("Dense"));
                });
            });
            moved("no Dense modules", copy);
        }
        let pooling = model.checkpoint.folder.join("1_Pooling/config.json");
        if pooling.is_file() {
            let copy = model.changed("another pooling", |folder| {
                let other = serde_json::json!({"pooling_mode_max_tokens": true});
                std::fs::write(folder.join("1_Pooling/config.json"), other.to_string()).unwrap();
            });
            moved("another pooling", copy);
        }
        if !model.checkpoint.folder.join("modules.json").is_file() {
            // A tower of two: what else may go wrong is in `two_towers.rs`.
            continue;
        }
        let copy = model.changed("a prompt", |folder| {
            let path = folder.join("config_sentence_transformers.json");
            let mut file = read(&path).unwrap_or_else(|| serde_json::json!({}));
            file["prompts"] = serde_json::json!({"query": "x ", "document": "y "});
            file["default_prompt_name"] = "query".into();
            std::fs::write(&path, file.to_string()).unwrap();
        });
        moved("another prompt", copy);
    }
}

/// Fields of a golden checkpoint's `config.json` that change what is computed and are not computed, each with the name that the
/// refusal gives.
#[test]
fn a_setting_that_is_not_computed_is_refused_by_name() {
    /// A field, its value, and the name in the refusal.
    type Setting<'a> = (&'a str, Value, &'a str);
    let cases: &[(&str, &[Setting<'_>])] = &[
        (
            "nomic-bert-tiny",
            &[
                ("activation_function", "geglu".into(), "activation_function"),
                ("hidden_act", "gelu".into(), "hidden_act"),
                ("prenorm", true.into(), "prenorm"),
                ("parallel_block", true.into(), "parallel_block"),
                ("use_rms_norm", true.into(), "use_rms_norm"),
                ("causal", true.into(), "causal"),
                ("qkv_proj_bias", true.into(), "qkv_proj_bias"),
                ("mlp_fc1_bias", true.into(), "mlp_fc1_bias"),
                ("mlp_fc2_bias", true.into(), "mlp_fc2_bias"),
                ("rotary_emb_interleaved", true.into(), "rotary_emb_interleaved"),
                ("rotary_emb_fraction", 0.5.into(), "rotary_emb_fraction"),
                ("rotary_emb_scale_base", 512.into(), "rotary_emb_scale_base"),
                ("rotary_scaling_factor", 2.into(), "rotary_scaling_factor"),
                ("scale_attn_weights", false.into(), "scale_attn_weights"),
                ("scale_attn_by_inverse_layer_idx", true.into(), "scale_attn_by_inverse_layer_idx"),
                ("moe_every_n_layers", 2.into(), "moe_every_n_layers"),
                ("head_dim", 8.into(), "head_dim"),
                ("num_heads_kv", 2.into(), "num_heads_kv"),
                ("rope_scaling", serde_json::json!({"rope_type": "dynamic", "factor": 2.0}), "rope_scaling.rope_type"),
                ("rope_parameters", serde_json::json!({"rope_theta": 5.0}), "rotary_emb_base"),
                // Both names of a field are there and differ.
                ("n_inner", 80.into(), "intermediate_size"),
                ("rotary_emb_base", 500.into(), "rope_theta"),
                ("layer_norm_epsilon", 1e-5.into(), "layer_norm_eps"),
            ],
        ),
        (
            "nomic-moe-tiny",
            &[
                ("activation_function", "glu".into(), "activation_function"),
                ("num_experts", 0.into(), "num_experts"),
                ("num_shared_experts", 1.into(), "num_shared_experts"),
                ("ffn_div", 2.into(), "ffn_div"),
                ("moe_top_k", Value::Null, "moe_top_k"),
                ("moe_normalize_expert_weights", true.into(), "moe_normalize_expert_weights"),
                ("expert_choice_router", true.into(), "expert_choice_router"),
                ("mlp_fc1_bias", false.into(), "mlp_fc1_bias"),
            ],
        ),
        (
            "distilbert-tiny",
            &[
                ("activation", "silu".into(), "activation"),
                ("sinusoidal_pos_embds", "yes".into(), "sinusoidal_pos_embds"),
                ("is_decoder", true.into(), "is_decoder"),
                ("hidden_size", 32.into(), "hidden_size"),
                ("quantization_config", serde_json::json!({"bits": 4}), "quantization_config"),
            ],
        ),
        (
            "mpnet-tiny",
            &[
                ("hidden_act", "silu".into(), "hidden_act"),
                ("relative_attention_num_buckets", 64.into(), "relative_attention_num_buckets"),
                ("max_position_embeddings", 2.into(), "max_position_embeddings"),
                ("add_cross_attention", true.into(), "add_cross_attention"),
            ],
        ),
        (
            "gte-tiny",
            &[
                ("hidden_act", "relu".into(), "hidden_act"),
                ("layer_norm_type", "rms_norm".into(), "layer_norm_type"),
                ("position_embedding_type", "absolute".into(), "position_embedding_type"),
                ("logn_attention_scale", true.into(), "logn_attention_scale"),
                ("rope_scaling", serde_json::json!({"type": "dynamic", "factor": 2.0}), "rope_scaling.type"),
                (
                    "rope_scaling",
                    serde_json::json!({"type": "ntk", "factor": 2.0, "mixed_b": 0.9}),
                    "rope_scaling.mixed_b",
                ),
                ("rope_scaling", serde_json::json!({"type": "ntk"}), "rope_scaling.factor"),
                ("rope_scaling", serde_json::json!({"type": "ntk", "factor": 0.5}), "rope_scaling.factor"),
                ("rope_scaling", serde_json::json!({"factor": 2.0}), "rope_scaling.type"),
                ("rope_parameters", serde_json::json!({"rope_type": "yarn"}), "rope_parameters.rope_type"),
                ("rope_parameters", serde_json::json!({"rope_theta": 5.0}), "rope_theta"),
            ],
        ),
    ];
    for (name, fields) in cases {
        let model = Model::golden(name);
        for (field, value, want) in *fields {
            let copy = model.changed("refused", |folder| {
                edit(&folder.join("config.json"), |json| json[*field] = value.clone());
            });
            let error = converted(&copy, Dtype::F32).expect_err(&format!("{name}: {field} = {value}"));
            let ConvertError::Fields { path, faults } = &error else { panic!("{name}: {field} = {value}: {error}") };
            assert!(path.ends_with("config.json"), "{error}");
            assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), [*want], "{name}: {error}");
        }
    }
}

/// Names of tensors as another library writes them, and matrices that lie apart there: the record is the same, byte for byte.
#[test]
fn other_spellings_of_a_checkpoint_give_the_same_record() {
    // A matrix or bias in several of equal height, with their names.
    fn apart(tensors: &mut Vec<Stored>, name: &str, names: &[&str]) {
        let found = tensors.extract_if(.., |tensor| tensor.0.contains(name)).collect::<Vec<_>>();
        for (own, dtype, mut shape, data) in found {
            shape[0] /= names.len();
            let parts = names.iter().zip(data.chunks_exact(data.len() / names.len()));
            tensors.extend(parts.map(|(part, data)| (own.replace(name, part), dtype, shape.clone(), data.to_vec())));
        }
    }
    fn renamed(tensors: &mut [Stored], prefix: &str, names: &[(&str, &str)]) {
        for tensor in tensors {
            let name = names.iter().fold(tensor.0.clone(), |name, (from, to)| name.replace(from, to));
            tensor.0 = format!("{prefix}{name}");
        }
    }
    let nomic = |tensors: &mut Vec<Stored>| {
        apart(tensors, "attn.Wqkv", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]);
        renamed(
            tensors,
            "nomic_bert.",
            &[
                ("encoder.layers", "layers"),
                ("emb_ln", "embeddings.LayerNorm"),
                (".attn.out_proj", ".self_attn.o_proj"),
                ("fc11", "up_proj"),
                ("fc12", "gate_proj"),
                ("fc2", "down_proj"),
                ("norm1", "post_attention_layernorm"),
                ("norm2", "post_mlp_layernorm"),
            ],
        );
    };
    let gte = |tensors: &mut Vec<Stored>| {
        apart(tensors, "attention.qkv_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]);
        apart(tensors, "up_gate_proj", &["up_proj", "gate_proj"]);
        let names = [
            ("encoder.layer", "layers"),
            ("attention.o_proj", "self_attn.o_proj"),
            ("attn_ln", "post_attention_layernorm"),
            ("mlp_ln", "post_mlp_layernorm"),
        ];
        renamed(tensors, "gte.", &names);
    };
    let new = |tensors: &mut Vec<Stored>| {
        apart(tensors, "qkv_proj", &["q_proj", "k_proj", "v_proj"]);
        renamed(tensors, "new.", &[]);
    };
    let older = |prefix: &'static str| {
        move |tensors: &mut Vec<Stored>| {
            renamed(tensors, prefix, &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]);
            let (_, dtype, ..) = tensors[0];
            tensors.push(("classifier.weight".into(), dtype, vec![0], Vec::new()));
        }
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<Stored>);
    let (bert, roberta) = (older("bert."), older("roberta."));
    let (distilbert, mpnet) = (older("distilbert."), older("mpnet."));
    let cases: [(&str, Change<'_>); 7] = [
        ("nomic-bert-tiny", &nomic),
        ("gte-tiny", &gte),
        ("gte-tiny", &new),
        ("bert-tiny", &bert),
        ("xlm-roberta-tiny", &roberta),
        ("distilbert-tiny", &distilbert),
        ("mpnet-tiny", &mpnet),
    ];
    for (name, change) in cases {
        let model = Model::golden(name);
        let copy = model.changed("spelled", |folder| retensored(folder, change));
        let (own, other) = (model.record(Dtype::F32), converted(&copy, Dtype::F32).unwrap());
        let mut parts = 0;
        for entry in std::fs::read_dir(&own).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "bpk") {
                let same =
                    std::fs::read(entry.path()).unwrap() == std::fs::read(other.join(entry.file_name())).unwrap();
                assert!(same, "{name}: {}", entry.path().display());
                parts += 1;
            }
        }
        assert!(parts >= 2, "{name}: {parts} parts");
    }
}

/// Vectors of encoders under each activation that is computed, by the reference.
#[test]
fn activations_of_an_encoder_equal_the_reference() {
    let golden = golden();
    let refs = read(&golden.refs.join("activations.json")).unwrap();
    let bytes = std::fs::read(golden.refs.join("activations.safetensors")).unwrap();
    let vectors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut worst, mut seen) = (Worst::default(), 0);
    for case in refs["cases"].as_array().unwrap() {
        let (name, act) = (str_of(&case["model"]), str_of(&case["act"]));
        let copy = Model::golden(name).changed("activation", |folder| {
            edit(&folder.join("config.json"), |json| json[str_of(&case["field"])] = act.into());
        });
        let engine = builder(converted(&copy, Dtype::F32).unwrap()).open().unwrap();
        let got =
            engine.embed_with(&[Input::text(str_of(&case["text"]))], &request(Role::None)).unwrap().swap_remove(0);
        let got = got.unwrap();
        assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}, {act}");
        let want = vectors.tensor(str_of(&case["embedding"])).unwrap();
        let want: Vec<f32> =
            want.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        worst.see(compare(&format!("{name}, {act}"), got.embedding.as_slice(), &want, embedding_bound()));
        seen += 1;
    }
    assert!(seen >= 28, "{seen} cases");
    worst.report("activations");
}

/// Crates above the models tell inputs apart by the form of their data, and read folders as their families' rules say.
#[test]
fn no_crate_above_the_models_names_a_family() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).unwrap().flatten() {
        sources(&entry.path().join("src"), &mut files);
    }
    assert!(files.len() > 70, "{} files", files.len());
    let converts = |file: &Path| file.starts_with(workspace().join("crates/convert"));
    assert!(files.iter().any(|file| converts(file)), "convert is among them");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // What tests of a crate are made of is no knowledge of it.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!text.contains("families::"), "{}: a path into a family", file.display());
        // `mini` is also what the model that ships is called, and a feature of the program; `clap` reads the program's
        // arguments. Convert knows neither.
        let others = ["mini", "clap"];
        for family in FAMILIES.iter().filter(|family| !others.contains(&family.name) || converts(&file)) {
            assert!(!text.contains(&format!("{:?}", family.name)), "{}: names {}", file.display(), family.name);
            let module = format!("{}::", family.name);
            let named = text
                .match_indices(&module)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
            assert!(!named, "{}: a path into {}", file.display(), family.name);
        }
    }
}
