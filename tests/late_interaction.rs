//! Models that give a vector for each row and nothing else (ColQwen2, ColQwen2.5): rows of queries and of images against the
//! reference, scores of late interaction, the laws, and what is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use omniburn::{
    Dtype, Embedded, Embedding, Engine, EngineError, Input, ItemError, Modality, OutputKind, Priority, Request, Role,
    Truncation, max_sim,
};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_models::Segments;
use omniburn_models::batch::{Grid, MediaRows};
use omniburn_models::blocks::axis_positions;
use serde_json::{Value, json};

use crate::support::*;

const CHECKPOINTS: [&str; 2] = ["colqwen2-tiny", "colqwen2_5-tiny"];
/// Sums of the best cosines of up to 71 rows against the reference in f32.
const SCORE_BOUND: f32 = 1e-5;

fn checkpoints() -> Vec<Checkpoint> {
    let there = |set: &Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    let of = |set: &Set| {
        CHECKPOINTS.iter().filter(|name| there(set, name)).map(|name| set.checkpoint(name)).collect::<Vec<_>>()
    };
    let found: Vec<Checkpoint> = sets().iter().flat_map(of).collect();
    assert!(
        CHECKPOINTS.iter().all(|name| found.iter().any(|checkpoint| checkpoint.name == *name)),
        "a checkpoint has no golden"
    );
    found
}

fn engine_of(checkpoint: &Checkpoint) -> Engine {
    builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().expect("a fresh record opens")
}

fn inputs(checkpoint: &Checkpoint) -> Vec<(&Value, Input, Role)> {
    let queries = checkpoint.cases("query").map(|case| (case, Input::text(str_of(&case["text"])), Role::Query));
    let documents = checkpoint.cases("document").map(|case| (case, checkpoint.image(case), Role::Document));
    let found: Vec<_> = queries.chain(documents).collect();
    assert!(found.len() > 8, "{}", found.len());
    found
}

fn try_embed(engine: &Engine, input: &Input, request: &Request) -> Result<Embedded, ItemError> {
    engine.embed_with(std::slice::from_ref(input), request).unwrap().swap_remove(0)
}

fn embed(engine: &Engine, input: &Input, role: Role) -> Embedded {
    try_embed(engine, input, &Request::new(role)).unwrap()
}

fn rows(found: &Embedded) -> Vec<f32> {
    found.multi.as_ref().expect("rows are all that it gives").iter().flat_map(|row| row.as_slice().to_vec()).collect()
}

#[test]
fn rows_of_queries_and_images_equal_the_reference() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        assert_eq!(engine.profile().outputs, ["multi", "features"]);
        assert_eq!(engine.profile().modalities, [Modality::Text, Modality::Image]);
        let (mut queries, mut documents) = (Worst::default(), Worst::default());
        for (case, input, role) in inputs(&checkpoint) {
            let name = format!("{} {} {}", checkpoint.name, case["kind"], case["name"]);
            let got = embed(&engine, &input, role);
            assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
            let got_rows = got.multi.as_ref().unwrap();
            assert_eq!(got_rows.len(), got.tokens, "{name}");
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            let worst = if role == Role::Query { &mut queries } else { &mut documents };
            worst.see(compare(&name, &rows(&got), &want, embedding_bound()));
            // The vector is the unit mean of the rows.
            let width = got_rows[0].as_slice().len();
            let mean: Vec<f32> = (0..width).map(|at| got_rows.iter().map(|row| row.as_slice()[at]).sum()).collect();
            let mean = Embedding::from_raw(mean).unwrap();
            compare(&name, got.embedding.as_slice(), mean.as_slice(), embedding_bound());
        }
        queries.report(&format!("{}, queries", checkpoint.name));
        documents.report(&format!("{}, documents", checkpoint.name));
    }
}

#[test]
fn scores_of_late_interaction_and_the_best_document_are_those_of_the_reference() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let found: Vec<(&Value, Embedded)> =
            inputs(&checkpoint).into_iter().map(|(case, input, role)| (case, embed(&engine, &input, role))).collect();
        let rows_of = |kind: &str, name: &Value| -> &[Embedding] {
            let same = |(case, _): &&(&Value, Embedded)| case["kind"] == kind && case["name"] == *name;
            found.iter().find(same).unwrap().1.multi.as_deref().unwrap()
        };
        let case = checkpoint.cases("scores").next().unwrap();
        let (queries, documents) = (case["queries"].as_array().unwrap(), case["documents"].as_array().unwrap());
        let want = checkpoint.tensor(str_of(&case["scores"]));
        let mut worst = Worst::default();
        for (q, query) in queries.iter().enumerate() {
            let query_rows = rows_of("query", query);
            // The library's is the mean over the rows of a query, the reference's their sum.
            let score = |document: &Value| max_sim(query_rows, rows_of("document", document)) * query_rows.len() as f32;
            let scores: Vec<f32> = documents.iter().map(score).collect();
            let want = &want[q * documents.len()..(q + 1) * documents.len()];
            let bound = SCORE_BOUND * query_rows.len() as f32;
            worst.see(compare(&format!("{} {query}", checkpoint.name), &scores, want, bound));
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
            assert_eq!(best as u64, case["best"][q].as_u64().unwrap(), "{} {query}", checkpoint.name);
        }
        worst.report(&format!("{}, scores", checkpoint.name));
    }
}

#[test]
fn rows_have_the_same_bits_alone_and_in_any_batch_and_any_steps() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let short = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default));
        let short = short.time_slice(Duration::from_micros(1)).open().unwrap();
        let inputs: Vec<Input> = inputs(&checkpoint).into_iter().map(|(_, input, _)| input).collect();
        let request = Request::new(Role::Document).priority(Priority::Background);
        let one = |input: &Input| rows(&try_embed(&engine, input, &request).unwrap());
        let alone: Vec<Vec<f32>> = inputs.iter().map(one).collect();
        let mut order: Vec<usize> = (0..inputs.len()).chain(0..4).collect();
        for engine in [&engine, &short] {
            for turn in 0..2 {
                order.rotate_left(turn * 5 + 2);
                let some: Vec<Input> = order.iter().map(|&at| inputs[at].clone()).collect();
                let together = engine.embed_with(&some, &request).unwrap();
                let got: Vec<Vec<f32>> = together.into_iter().map(|found| rows(&found.unwrap())).collect();
                let want: Vec<Vec<f32>> = order.iter().map(|&at| alone[at].clone()).collect();
                same(&checkpoint.name, &got, &want);
            }
        }
        assert_eq!(engine.memory_in_use().1, 0);
    }
}

#[test]
fn positions_of_images_are_those_of_the_reference() {
    for checkpoint in checkpoints() {
        let config: Value =
            serde_json::from_slice(&std::fs::read(checkpoint.folder.join("config.json")).unwrap()).unwrap();
        let pad = config["vlm_config"]["image_token_id"].as_u64().unwrap() as u32;
        let mut seen = 0;
        for case in checkpoint.cases("document") {
            let ids = ids_of(&case["input_ids"]);
            let start = ids.iter().position(|id| *id == pad).unwrap();
            let size: Vec<usize> =
                case["grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            let grid = Grid { t: 1, h: size[1] / 2, w: size[2] / 2 };
            let media = MediaRows { start, rows: grid.h * grid.w, grid: Some(grid), times: vec![], added: vec![] };
            let got = axis_positions(&Segments::single(ids.len()), &[media]);
            let axes: Vec<i32> = (0..3).flat_map(|axis| got.iter().map(move |at| at[axis] as i32)).collect();
            assert_eq!(axes, checkpoint.numbers(str_of(&case["position_ids"])), "{} {}", checkpoint.name, case["name"]);
            seen += 1;
        }
        assert!(seen > 3);
    }
}

#[test]
fn what_such_a_model_does_not_take_or_give_is_refused_by_name() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let plain = Request::new(Role::Document);
        let refused = |input: Input| {
            let error = try_embed(&engine, &input, &plain).expect_err("refused");
            (error.kind().name(), error.to_string())
        };
        let video = Input::video_frame_files(vec![checkpoint.media.join("video/clip1_0.png")]);
        assert_eq!(refused(video).0, "modality_absent");
        let both = Input::parts([checkpoint.image_named("odd"), Input::text("a caption")]);
        let (kind, said) = refused(both);
        assert!(kind == "modality_absent" && said.contains("one image or texts alone"), "{kind}: {said}");
        let (kind, said) = refused(Input::text("see <|image_pad|>"));
        assert!(kind == "bad_item" && said.contains("<|image_pad|>"), "{kind}: {said}");
        assert_eq!(refused(checkpoint.audio("short")).0, "modality_absent");
        for kind in [OutputKind::Dense, OutputKind::Sparse] {
            let error = engine.embed_with(&[], &plain.clone().outputs([kind])).unwrap_err();
            assert!(matches!(error, EngineError::UnknownOutput { .. }), "{error}");
            assert_eq!(
                error.to_string(),
                format!("no output `{}` of this model; it gives multi, features", kind.name())
            );
        }
        let error = engine.embed_with(&[], &plain.clone().instruction("find")).unwrap_err();
        assert!(matches!(error, EngineError::NoInstruction { .. }), "{error}");
        // A query that is cut keeps the ten tokens behind it.
        let long = "word ".repeat(engine.profile().max_tokens + 5);
        assert_eq!(refused(Input::text(&long)).0, "too_long");
        let cut = try_embed(&engine, &Input::text(&long), &plain.clone().truncation(Truncation::Right)).unwrap();
        assert!(cut.truncated && cut.tokens == engine.profile().max_tokens);
    }
}

fn changed(checkpoint: &Checkpoint, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("late-{}", next()));
    copy_folder(&checkpoint.folder, &copy);
    change(&copy);
    copy
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

fn converted(folder: &Path) -> Result<PathBuf, ConvertError> {
    let out = scratch().join(format!("late-record-{}", next()));
    convert(&ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(folder, &out) })?;
    Ok(out)
}

/// The tensors of a folder under other names; those for which there is none are left out.
fn renamed(folder: &Path, name: impl Fn(&str) -> Option<String>, zero: impl Fn(&str) -> bool) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .filter_map(|(own, view)| {
            let data = if zero(&own) { vec![0; view.data().len()] } else { view.data().to_vec() };
            Some((name(&own)?, view.dtype(), view.shape().to_vec(), data))
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// As colpali_engine names the head and as older releases of transformers name the body: the record is the same.
#[test]
fn other_spellings_of_a_checkpoint_give_the_same_record() {
    for checkpoint in CHECKPOINTS.map(|name| golden().checkpoint(name)) {
        let copy = changed(&checkpoint, |folder| {
            let name = |own: &str| {
                let own = own.replace("vlm.language_model.", "vlm.model.").replace("vlm.visual.", "vlm.model.visual.");
                Some(own.replace("embedding_proj_layer.", "custom_text_proj."))
            };
            renamed(folder, name, |_| false);
        });
        let (own, other) = (record(&checkpoint.folder, Dtype::F32, TaskChoice::Default), converted(&copy).unwrap());
        let mut parts = 0;
        for entry in std::fs::read_dir(&own).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "bpk") {
                let same =
                    std::fs::read(entry.path()).unwrap() == std::fs::read(other.join(entry.file_name())).unwrap();
                assert!(same, "{}: {}", checkpoint.name, entry.path().display());
                parts += 1;
            }
        }
        assert_eq!(parts, 3, "{}", checkpoint.name);
    }
}

/// A name, the tower it is of where it is of one, and the change.
type Mistake = (&'static str, Option<&'static str>, fn(&Path));

#[test]
fn mistakes_show_in_the_rows_of_an_image() {
    const MISTAKES: &[Mistake] = &[
        ("the head's bias left out", None, |folder| {
            renamed(folder, |own| Some(own.into()), |own| own == "embedding_proj_layer.bias");
        }),
        ("biases of values left out", None, |folder| {
            renamed(folder, |own| Some(own.into()), |own| own.ends_with("v_proj.bias"));
        }),
        ("one axis for all pairs", None, |folder| {
            edit(folder, "config.json", |config| {
                config["vlm_config"]["text_config"]["rope_scaling"]["mrope_section"] = json!([8, 0, 0]);
            });
        }),
        ("every block over all patches", Some("colqwen2_5-tiny"), |folder| {
            edit(folder, "config.json", |config| {
                config["vlm_config"]["vision_config"]["fullatt_block_indexes"] = json!([0, 1, 2]);
            });
        }),
        ("another epsilon", None, |folder| {
            edit(folder, "config.json", |config| config["vlm_config"]["text_config"]["rms_norm_eps"] = 0.05.into());
        }),
    ];
    for checkpoint in CHECKPOINTS.map(|name| golden().checkpoint(name)) {
        for (what, only, change) in MISTAKES {
            if only.is_some_and(|only| only != checkpoint.name) {
                continue;
            }
            let wrong = builder(converted(&changed(&checkpoint, change)).unwrap_or_else(|e| panic!("{what}: {e}")));
            let wrong = wrong.open().unwrap();
            let case = checkpoint.cases("document").find(|case| case["name"] == "odd").unwrap();
            let got = rows(&embed(&wrong, &checkpoint.image(case), Role::Document));
            let far = distance(what, &got, &checkpoint.tensor(str_of(&case["embedding"]))).max_abs / embedding_bound();
            println!("{}: {what} moves a row by {far:.0} tolerances", checkpoint.name);
            assert!(far > 10.0, "{}: {what} moves a row by {far:.1} tolerances", checkpoint.name);
        }
    }
}

#[test]
fn fields_that_are_not_computed_are_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, &str, &str, Change); 6] = [
        ("colqwen2-tiny", "config.json", "hidden_act", |c| {
            c["vlm_config"]["vision_config"]["hidden_act"] = "gelu".into()
        }),
        ("colqwen2-tiny", "config.json", "model_type", |c| c["vlm_config"]["model_type"] = "qwen9_vl".into()),
        ("colqwen2-tiny", "config.json", "hidden_size", |c| {
            c["vlm_config"]["vision_config"]["hidden_size"] = 32.into()
        }),
        ("colqwen2-tiny", "tokenizer_config.json", "pad_token", |c| c["pad_token"] = "<|im_end|>".into()),
        ("colqwen2_5-tiny", "config.json", "out_hidden_size", |c| {
            c["vlm_config"]["vision_config"]["out_hidden_size"] = 32.into();
        }),
        ("colqwen2_5-tiny", "config.json", "mrope_section", |c| {
            c["vlm_config"]["text_config"]["rope_scaling"]["mrope_section"] = json!([4, 4]);
        }),
    ];
    for (name, file, field, change) in cases {
        let checkpoint = golden().checkpoint(name);
        let copy = changed(&checkpoint, |folder| edit(folder, file, change));
        let error = converted(&copy).expect_err(field).to_string();
        assert!(error.contains(field), "{name}: {field}: {error}");
    }
}
