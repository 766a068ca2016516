//! The encoders of Qwen3-Omni without its language model: rows and DeepStack sets against the reference, windows of attention, and
//! the checkpoints that they are taken out of.

use std::path::{Path, PathBuf};

use omniburn::{Dtype, Engine, Features, Input, Modality, OutputKind, Request, Role};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use omniburn_models::batch::MelRows;
use omniburn_models::family::{AudioEncoder, AudioForm};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::direct::values;
use crate::support::*;

const NAME: &str = "qwen3-omni-encoders-tiny";

/// This checkpoint of every set.
fn checkpoints() -> Vec<Checkpoint> {
    let there = |set: &&Set| set.refs.join(format!("{NAME}.json")).is_file();
    let found: Vec<Checkpoint> = sets().iter().filter(there).map(|set| set.checkpoint(NAME)).collect();
    assert!(!found.is_empty());
    found
}

fn engine_of(checkpoint: &Checkpoint) -> Engine {
    builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap()
}

/// The medium of a case with the tensor of its rows.
fn medium<'a>(checkpoint: &Checkpoint, case: &'a Value) -> Option<(Input, &'a str)> {
    let name = case["name"].as_str()?;
    let frames = |count: usize| (0..count).map(|i| checkpoint.media.join(format!("video/{name}_{i}.png"))).collect();
    Some(match str_of(&case["kind"]) {
        "image" => (checkpoint.image_named(name), str_of(&case["features"])),
        "video" => (Input::video_frame_files(frames(if name == "clip3" { 3 } else { 4 })), str_of(&case["features"])),
        "audio" => (checkpoint.audio(name), str_of(&case["alone"])),
        _ => return None,
    })
}

/// Every number of what a medium became.
fn flat(features: &Features) -> Vec<f32> {
    [features.rows.clone(), features.deepstack.concat()].concat()
}

#[test]
fn rows_and_deepstack_sets_equal_the_reference_in_any_batch() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        assert_eq!(engine.profile().outputs, ["features"]);
        assert_eq!(engine.profile().modalities, [Modality::Image, Modality::Audio, Modality::Video]);
        // What the model gives first is given unasked.
        let request = Request::new(Role::None);
        let cases: Vec<_> =
            checkpoint.cases.iter().filter_map(|case| Some((case, medium(&checkpoint, case)?))).collect();
        let inputs: Vec<Input> = cases.iter().map(|(_, (input, _))| input.clone()).collect();
        let (mut main, mut deep, mut sets) = (Worst::default(), Worst::default(), 0);
        let together = engine.embed_with(&inputs, &request).unwrap();
        for ((case, (input, key)), found) in cases.iter().zip(together) {
            let name = format!("{} {} {}", checkpoint.name, case["kind"], case["name"]);
            let found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
            let features = found.features.as_ref().expect("all that the model gives");
            assert_eq!((features.width, features.rows.len()), (80, 80 * found.tokens), "{name}");
            if let Some(rows) = case["rows"].as_u64() {
                assert_eq!(found.tokens as u64, rows, "{name}");
            }
            main.see(compare(&name, &features.rows, &checkpoint.tensor(key), feature_bound()));
            let audio = case["kind"] == "audio";
            assert_eq!(features.deepstack.len(), if audio { 0 } else { 2 }, "{name}");
            for (set, key) in features.deepstack.iter().zip(case["deepstack"].as_array().into_iter().flatten()) {
                deep.see(compare(&name, set, &checkpoint.tensor(str_of(key)), feature_bound()));
                sets += 1;
            }
            let asked = request.clone().outputs([OutputKind::Features]);
            let alone = engine.embed_with(std::slice::from_ref(input), &asked).unwrap().swap_remove(0).unwrap();
            same(&name, &[flat(features)], &[flat(alone.features.as_ref().unwrap())]);
        }
        assert_eq!(sets, 8, "sets of two images and two videos");
        main.report(&format!("{}, rows", checkpoint.name));
        deep.report(&format!("{}, DeepStack sets", checkpoint.name));
        let error = engine.embed_with(&[Input::text("a text")], &request).unwrap().swap_remove(0).unwrap_err();
        assert_eq!(error.kind().name(), "modality_absent");
        assert!(error.to_string().contains("no text model"), "{error}");
        let error = engine.embed_with(&[], &request.clone().outputs([OutputKind::Dense])).unwrap_err();
        assert!(error.to_string().contains("it gives features"), "{error}");
        assert_eq!(engine.memory_in_use().1, 0);
    }
}

/// Rows of a window do not depend on what is behind it, and those of another clip on nothing.
#[test]
fn rows_of_audio_see_their_window_alone() {
    for checkpoint in checkpoints() {
        let opened = open(&record(&checkpoint.folder, Dtype::F32, TaskChoice::Default));
        let (family, device) = (opened.header().family.clone(), burn_device(device()));
        let Some(AudioEncoder::Chunked(tower)) = family.open_audio(&opened, Dtype::F32, &device).unwrap() else {
            panic!("a tower of chunks")
        };
        let Some(AudioForm::Chunked(form)) = &family.spec().audio else { panic!("the form of such a tower") };
        let frames = 450;
        let mut mel: Vec<f32> = (0..frames * form.mels).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
        let rows = |mels: Vec<f32>, windows: Vec<usize>| {
            values(tower.forward(MelRows::new(mels, form.mels, windows, &device)))
        };
        let before = rows(mel.clone(), vec![frames]);
        for value in &mut mel[250 * form.mels..400 * form.mels] {
            *value = -*value + 0.25;
        }
        let behind = rows(mel.clone(), vec![frames]);
        let bits = |rows: &[f32]| -> Vec<u32> { rows.iter().map(|value| value.to_bits()).collect() };
        // Windows are of 200 frames, 26 rows: the first, those that changed, and what is behind them.
        let [first, second] = [26, 52].map(|row| row * form.output);
        assert_eq!(before.len(), 59 * form.output);
        assert_eq!(bits(&before[..first]), bits(&behind[..first]));
        assert_eq!(bits(&before[second..]), bits(&behind[second..]));
        assert_ne!(bits(&before[first..second]), bits(&behind[first..second]));
        // The same between two others.
        let others: Vec<f32> = mel[..130 * form.mels].to_vec();
        let packed = rows([others.clone(), mel.clone(), others].concat(), vec![130, frames, 130]);
        let start = form.features(130) * form.output;
        assert_eq!(bits(&packed[start..start + behind.len()]), bits(&behind));
    }
}

/// A changed copy of the checkpoint.
fn changed(checkpoint: &Checkpoint, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("encoders-{}", next()));
    copy_folder(&checkpoint.folder, &copy);
    join_shards(&copy);
    change(&copy);
    copy
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

fn converted(folder: &Path) -> Result<(PathBuf, ConvertReport), ConvertError> {
    let out = scratch().join(format!("encoders-record-{}", next()));
    let report = convert(&ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(folder, &out) })?;
    Ok((out, report))
}

/// Gives every tensor of the weights another name, or leaves it out; `more` are added with the values of any.
fn renamed(folder: &Path, name: impl Fn(&str) -> Option<String>, more: &[&str]) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors();
    let any = tensors[0].1.clone();
    let own = tensors.into_iter().filter_map(|(own, view)| Some((name(&own)?, view)));
    let more = more.iter().map(|name| (name.to_string(), any.clone()));
    let out = safetensors::serialize(own.chain(more), None).unwrap();
    std::fs::write(path, out).unwrap();
}

#[test]
fn the_thinker_alone_gives_the_same_record_and_the_decoder_is_left_aside_with_the_reason() {
    let checkpoint = golden().checkpoint(NAME);
    let decoder = ["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"];
    let whole = changed(&checkpoint, |folder| {
        let thinker = decoder.map(|name| format!("thinker.{name}"));
        let more = [&thinker[0], &thinker[1], "talker.model.norm.weight", "code2wav.pre_transformer.norm.weight"];
        renamed(folder, |name| Some(name.into()), &more);
    });
    let alone = changed(&checkpoint, |folder| {
        renamed(folder, |name| name.strip_prefix("thinker.").map(String::from), &decoder);
        edit(folder, |config| {
            let thinker = config["thinker_config"].take();
            *config = thinker;
            config["model_type"] = "qwen3_omni_moe_thinker".into();
        });
    });
    let own = record(&checkpoint.folder, Dtype::F32, TaskChoice::Default);
    for (folder, dropped) in [(&whole, 4), (&alone, 2)] {
        let (out, report) = converted(folder).unwrap();
        assert_eq!(report.dropped.len(), dropped, "{:?}", report.dropped);
        assert!(report.dropped.iter().all(|dropped| dropped.reason.contains("decoder")), "{:?}", report.dropped);
        let mut files: Vec<_> = std::fs::read_dir(&out).unwrap().flatten().map(|entry| entry.file_name()).collect();
        files.sort();
        assert_eq!(files, ["model.json", "text.base.bpk", "towers.bpk"]);
        for file in &files[1..] {
            assert!(std::fs::read(own.join(file)).unwrap() == std::fs::read(out.join(file)).unwrap(), "{file:?}");
        }
    }
}

#[test]
fn what_is_missing_or_not_computed_is_refused_by_name() {
    let checkpoint = golden().checkpoint(NAME);
    let refused = |change: &dyn Fn(&Path)| converted(&changed(&checkpoint, change)).unwrap_err().to_string();
    // Connectors are named as Qwen3-VL names them.
    for (lost, known) in [
        ("thinker.visual.merger_list.1.mlp.2.bias", "visual.merger_list.1.linear_fc2.bias"),
        ("thinker.audio_tower.proj2.weight", "audio_tower.proj2.weight"),
    ] {
        let error = refused(&|folder| renamed(folder, |name| (name != lost).then(|| name.into()), &[]));
        assert!(error.contains("missing") && error.contains(known), "{error}");
    }
    let error =
        refused(&|folder| renamed(folder, |name| Some(name.into()), &["thinker.visual.merger_list.2.ln_q.bias"]));
    assert!(error.contains("nothing takes") && error.contains("merger_list.2"), "{error}");
    type Change = fn(&mut Value);
    let fields: [(&str, Change); 5] = [
        ("output_dim", |thinker| thinker["audio_config"]["output_dim"] = 64.into()),
        ("n_window_infer", |thinker| {
            thinker["audio_config"].as_object_mut().unwrap().remove("n_window_infer");
        }),
        ("audio.window_chunks", |thinker| thinker["audio_config"]["n_window_infer"] = 60.into()),
        ("hidden_act", |thinker| thinker["vision_config"]["hidden_act"] = "relu".into()),
        ("activation_function", |thinker| thinker["audio_config"]["activation_function"] = "relu".into()),
    ];
    for (field, change) in fields {
        let error = refused(&|folder| edit(folder, |config| change(&mut config["thinker_config"])));
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// A window that is ignored, and a set of another block, are more than ten tolerances away.
#[test]
fn mistakes_show_in_the_rows() {
    let checkpoint = golden().checkpoint(NAME);
    let found = |change: &dyn Fn(&mut Value), input: Input| {
        let folder = changed(&checkpoint, |folder| edit(folder, |config| change(&mut config["thinker_config"])));
        let engine = builder(converted(&folder).unwrap().0).open().unwrap();
        let found = engine.embed_with(&[input], &Request::new(Role::None)).unwrap().swap_remove(0);
        found.unwrap().features.unwrap()
    };
    let far = |what: &str, got: &[f32], key: &str| {
        let largest = distance(what, got, &checkpoint.tensor(key)).max_abs;
        assert!(largest > 10.0 * 5e-5, "{what}: {largest}");
    };
    let all = found(&|thinker| thinker["audio_config"]["n_window_infer"] = 800.into(), checkpoint.audio("three"));
    far("a window that is ignored", &all.rows, "audio/three/alone");
    let taps = found(
        &|thinker| thinker["vision_config"]["deepstack_visual_indexes"] = [0, 3].into(),
        checkpoint.image_named("odd"),
    );
    far("the first set", &taps.deepstack[0], "image/odd/deepstack_0");
    far("the second set", &taps.deepstack[1], "image/odd/deepstack_1");
    compare("the rows", &taps.rows, &checkpoint.tensor("image/odd/features"), feature_bound());
}
