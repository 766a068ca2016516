//! Rows that towers and connectors give of images, videos and audio, of models whose media stand in a sequence at positions of three
//! axes: against the reference, and packed as alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use omniburn::record::{mel_preprocess, vision_preprocess};
use omniburn::{Dtype, Features, Input, OutputKind, Request, Role};
use omniburn_convert::TaskChoice;
use omniburn_media::{AudioReader, AudioSource, LogMel, PatchGrid, image_patches, log_mel, video_patches};
use omniburn_models::batch::{Grid, MelRows, PatchRows};
use omniburn_models::capture::{Observer, observe};
use omniburn_models::family::{
    AudioEncoder, AudioForm, Connected, FamilyConfig, FeatureRows, ImageEncoder, TextModel, TowerOutput,
};
use omniburn_models::record::Preprocess;
use omniburn_models::towers::vision::{VisionFeatures, VisionTower};
use serde_json::Value;

use crate::direct::{decode, values};
use crate::faults::in_a_process_of_its_own;
use crate::support::*;

const CHECKPOINTS: [&str; 3] = ["qwen25-omni-tiny", "colqwen2-tiny", "colqwen2_5-tiny"];

/// A record without an engine.
struct Model {
    family: FamilyConfig,
    preprocess: Preprocess,
    text: Arc<dyn TextModel>,
    image: Box<VisionTower>,
    audio: Option<AudioEncoder>,
    device: Device,
}

impl Model {
    fn open(checkpoint: &Checkpoint) -> Self {
        let record = open(&record(&checkpoint.folder, Dtype::F32, TaskChoice::Default));
        let (family, device) = (record.header().family.clone(), burn_device(device()));
        let tokens = family.open_tokens(&record).unwrap();
        let task = &record.header().default_task;
        let text = family.open_text(&record, task, &tokens, Dtype::F32, &device).unwrap();
        let Some(ImageEncoder::Patches(image)) = family.open_image(&record, Dtype::F32, &device).unwrap() else {
            panic!("{} has an image tower", checkpoint.name)
        };
        let audio = family.open_audio(&record, Dtype::F32, &device).unwrap();
        Self { preprocess: record.header().preprocess.clone(), family, text, image, audio, device }
    }

    fn patches(&self, checkpoint: &Checkpoint, case: &Value) -> PatchGrid {
        let settings = |pixels: &Option<_>| vision_preprocess(pixels.as_ref().unwrap());
        match case["frames"].as_array() {
            Some(frames) => {
                let frames: Vec<_> = frames.iter().map(|file| decode(&checkpoint.media.join(str_of(file)))).collect();
                video_patches(&frames, &settings(&self.preprocess.video)).unwrap()
            }
            None => {
                let image = decode(&checkpoint.media.join(str_of(&case["file"])));
                image_patches(&image, &settings(&self.preprocess.image)).unwrap()
            }
        }
    }

    fn mel(&self, checkpoint: &Checkpoint, file: &str) -> LogMel {
        let settings = mel_preprocess(self.preprocess.audio.as_ref().unwrap());
        let source = AudioSource::file(checkpoint.media.join(file));
        let mut reader = AudioReader::open(&source, settings.sample_rate_hz).unwrap();
        log_mel(&reader.next_segment().unwrap().unwrap().samples, &settings).unwrap()
    }

    /// Feature rows of each of some images and videos that go through the tower together.
    fn images(&self, items: &[&PatchGrid]) -> Vec<Vec<f32>> {
        let grid = |item: &&PatchGrid| Grid { t: item.grid().t, h: item.grid().h, w: item.grid().w };
        let grids: Vec<Grid> = items.iter().map(grid).collect();
        let rows = items.iter().flat_map(|item| item.rows()).collect();
        let VisionFeatures { last, taps } =
            self.image.forward(PatchRows::new(rows, items[0].row_len(), grids.clone(), &self.device));
        assert!(taps.is_empty());
        let mut start = 0;
        let one = |grid: &Grid| {
            start += grid.patches();
            let last = last.clone().slice_dim(0, start - grid.patches()..start);
            self.connected(TowerOutput::Patches(VisionFeatures { last, taps: Vec::new() }))
        };
        grids.iter().map(one).collect()
    }

    /// Feature rows of each of some clips that go through the tower together.
    fn clips(&self, clips: &[&LogMel]) -> Vec<Vec<f32>> {
        let (Some(AudioEncoder::Mel(tower)), Some(AudioForm::Mel(form))) = (&self.audio, &self.family.spec().audio)
        else {
            panic!("a tower of windows that are cut anywhere")
        };
        let windows: Vec<Vec<usize>> = clips.iter().map(|clip| form.windows(clip.frames())).collect();
        let mels = clips.iter().flat_map(|clip| clip.values().to_vec()).collect();
        let rows = tower.forward(MelRows::new(mels, form.mels, windows.concat(), &self.device));
        let mut start = 0;
        let one = |windows: &Vec<usize>| {
            let count: usize = windows.iter().map(|window| window.div_ceil(2)).sum();
            start += count;
            self.connected(TowerOutput::Mel(tower, rows.clone().slice_dim(0, start - count..start)))
        };
        windows.iter().map(one).collect()
    }

    fn connected(&self, output: TowerOutput<'_>) -> Vec<f32> {
        match self.text.connect(output) {
            Some(Connected::Rows(FeatureRows { rows, added })) => {
                assert!(added.is_empty());
                values(rows)
            }
            _ => panic!("media become rows"),
        }
    }
}

#[test]
fn features_equal_the_reference_and_are_packed_as_they_are_alone() {
    let there = |set: &&Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    for name in CHECKPOINTS {
        for checkpoint in sets().iter().filter(|set| there(set, name)).map(|set| set.checkpoint(name)) {
            let model = Model::open(&checkpoint);
            let (mut images, mut clips) = (Worst::default(), Worst::default());
            let with_features = |case: &&Value| case["features"].is_string();
            let (of_audio, of_images): (Vec<&Value>, Vec<&Value>) =
                checkpoint.cases.iter().filter(with_features).partition(|case| case["kind"] == "audio");
            let patches: Vec<PatchGrid> = of_images.iter().map(|case| model.patches(&checkpoint, case)).collect();
            let alone: Vec<Vec<f32>> = patches.iter().map(|item| model.images(&[item]).swap_remove(0)).collect();
            for ((case, item), rows) in of_images.iter().zip(&patches).zip(&alone) {
                let name = format!("{} {} {}", checkpoint.name, case["kind"], case["name"]);
                let grid = [item.grid().t, item.grid().h, item.grid().w].map(|n| n as u64);
                let want: Vec<u64> = case["grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
                assert_eq!(grid.to_vec(), want, "{name}: grid");
                images.see(compare(&name, rows, &checkpoint.tensor(str_of(&case["features"])), feature_bound()));
            }
            images.report(&format!("{}, features of images and videos", checkpoint.name));
            same(&checkpoint.name, &model.images(&patches.iter().collect::<Vec<_>>()), &alone);
            let mut backwards = model.images(&patches.iter().rev().collect::<Vec<_>>());
            backwards.reverse();
            same(&checkpoint.name, &backwards, &alone);

            let single = |case: &&Value| case["files"].as_array().is_some_and(|files| files.len() == 1);
            let of_audio: Vec<&Value> = of_audio.into_iter().filter(single).collect();
            if of_audio.is_empty() {
                continue;
            }
            let mels: Vec<LogMel> =
                of_audio.iter().map(|case| model.mel(&checkpoint, str_of(&case["files"][0]))).collect();
            let alone: Vec<Vec<f32>> = mels.iter().map(|mel| model.clips(&[mel]).swap_remove(0)).collect();
            for ((case, mel), rows) in of_audio.iter().zip(&mels).zip(&alone) {
                let name = format!("{} audio {}", checkpoint.name, case["name"]);
                assert_eq!(mel.frames() as u64, case["frames"].as_u64().unwrap(), "{name}: frames");
                clips.see(compare(&name, rows, &checkpoint.tensor(str_of(&case["features"])), feature_bound()));
            }
            clips.report(&format!("{}, features of audio", checkpoint.name));
            same(&checkpoint.name, &model.clips(&mels.iter().collect::<Vec<_>>()), &alone);
        }
    }
}

/// Models whose features come out of an engine: with and without DeepStack, audio cut anywhere and in whole clips.
const ENGINES: [&str; 6] =
    ["bidirlm-omni-tiny", "qwen25-omni-tiny", "colqwen2-tiny", "colqwen2_5-tiny", "omni-small-tiny", "omni-nano-tiny"];

/// The medium of a case, where it is one file or a list of frames.
fn medium(checkpoint: &Checkpoint, case: &Value) -> Option<Input> {
    Some(match str_of(&case["kind"]) {
        "image" | "document" => checkpoint.image(case),
        "video" => checkpoint.clip(case),
        "audio" => match case["files"].as_array().map(Vec::as_slice) {
            Some([file]) => Input::audio_file(checkpoint.media.join(str_of(file))),
            Some(_) => return None,
            None => checkpoint.audio(str_of(&case["name"])),
        },
        _ => return None,
    })
}

#[test]
fn features_of_an_engine_are_the_rows_and_the_deepstack_sets_of_the_reference() {
    let there = |set: &&Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    let request = Request::new(Role::None).outputs([OutputKind::Features]);
    for name in ENGINES {
        for checkpoint in sets().iter().filter(|set| there(set, name)).map(|set| set.checkpoint(name)) {
            let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
            assert!(engine.profile().outputs.contains(&"features"), "{name}");
            let with_features = |case: &&Value| case["features"].is_string();
            let cases: Vec<(&Value, Input)> = checkpoint
                .cases
                .iter()
                .filter(with_features)
                .filter_map(|case| Some((case, medium(&checkpoint, case)?)))
                .collect();
            let inputs: Vec<Input> = cases.iter().map(|(_, input)| input.clone()).collect();
            let together = engine.embed_with(&inputs, &request).unwrap();
            let (mut rows, mut sets) = (Worst::default(), 0);
            for ((case, input), found) in cases.iter().zip(together) {
                let name = format!("{} {} {}", checkpoint.name, case["kind"], case["name"]);
                let found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
                let features = found.features.as_ref().expect("they were asked for");
                let want = checkpoint.tensor(str_of(&case["features"]));
                rows.see(compare(&name, &features.rows, &want, feature_bound()));
                assert_eq!(features.rows.len() % features.width, 0, "{name}");
                for (set, key) in features.deepstack.iter().zip(case["deepstack"].as_array().into_iter().flatten()) {
                    rows.see(compare(&name, set, &checkpoint.tensor(str_of(key)), feature_bound()));
                    sets += 1;
                }
                let alone = engine.embed_with(std::slice::from_ref(input), &request).unwrap().swap_remove(0).unwrap();
                let own = alone.features.as_ref().unwrap();
                let flat = |features: &Features| [features.rows.clone(), features.deepstack.concat()].concat();
                same(&name, &[flat(features)], &[flat(own)]);
                // What was not asked for is not given.
                let plain = engine.embed_with(std::slice::from_ref(input), &Request::new(Role::None)).unwrap();
                assert!(plain[0].as_ref().unwrap().features.is_none());
            }
            rows.report(&format!("{}, features and DeepStack sets", checkpoint.name));
            assert_eq!(sets > 0, checkpoint.name == "bidirlm-omni-tiny", "{}: {sets} sets", checkpoint.name);
            let text = engine.embed_with(&[Input::text("a text")], &request).unwrap().swap_remove(0).unwrap_err();
            assert_eq!(text.kind().name(), "modality_absent", "{text}");
            assert!(text.to_string().contains("no features"), "{text}");
            assert_eq!(engine.memory_in_use().1, 0);
        }
    }
}

/// Notes the names of what passes.
#[derive(Default)]
struct Names(Mutex<BTreeSet<String>>);

impl Observer for Names {
    fn pass(&self, name: &str, _: &[usize], _: &dyn Fn() -> Vec<f32>) -> Option<Vec<f32>> {
        self.0.lock().unwrap().insert(name.into());
        None
    }
}

#[test]
fn features_alone_run_the_encoders_and_no_layer_of_the_text_model() {
    let body = || {
        for name in ENGINES {
            let checkpoint = golden().checkpoint(name);
            let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
            let input = checkpoint.image_named("odd");
            let run = |outputs: &[OutputKind]| {
                let names = Arc::new(Names::default());
                let request = Request::new(Role::None).outputs(outputs.iter().copied());
                let inputs = std::slice::from_ref(&input);
                let found = observe(names.clone(), || engine.embed_with(inputs, &request).unwrap().swap_remove(0));
                (found.unwrap(), std::mem::take(&mut *names.0.lock().unwrap()))
            };
            let first = engine.profile().outputs[0];
            let (alone, of_alone) = run(&[OutputKind::Features]);
            let (beside, of_both) = run(&[OutputKind::Features, OutputKind::of_name(first).unwrap()]);
            let layers = |names: &BTreeSet<String>| names.iter().filter(|name| name.starts_with("backbone.")).count();
            assert!(layers(&of_alone) == 0 && layers(&of_both) > 2, "{name}: {of_alone:?} {of_both:?}");
            assert!(of_alone.iter().any(|seen| seen.starts_with("vision.blocks.")), "{name}: {of_alone:?}");
            // The rows are the same to the bit; the vector is their unit mean, and not that of the text model.
            let features = alone.features.unwrap();
            assert_eq!(Some(&features), beside.features.as_ref(), "{name}");
            let mut mean = vec![0.0f32; features.width];
            for row in features.rows.chunks_exact(features.width) {
                let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
                mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / norm);
            }
            let norm = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
            let mean: Vec<f32> = mean.into_iter().map(|value| value / norm).collect();
            compare(name, alone.embedding.as_slice(), &mean, 1e-6);
            assert!(alone.multi.is_none() && alone.sparse.is_none(), "{name}");
            assert_eq!(alone.tokens, beside.tokens, "{name}");
            assert_ne!(alone.embedding.as_slice(), beside.embedding.as_slice(), "{name}");
        }
    };
    let test = "features_alone_run_the_encoders_and_no_layer_of_the_text_model";
    in_a_process_of_its_own("features", test, body);
}

/// An image, audio and a text in one item: the rows of both media, with zeros where the second adds nothing.
#[test]
fn features_of_an_item_of_several_are_those_of_its_media_one_behind_the_other() {
    let checkpoint = golden().checkpoint("bidirlm-omni-tiny");
    let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    let request = Request::new(Role::None).outputs([OutputKind::Features]);
    let features = |input: Input| {
        engine.embed_with(&[input], &request).unwrap().swap_remove(0).unwrap().features.expect("they were asked for")
    };
    let (image, audio) = (checkpoint.image_named("odd"), checkpoint.audio("short"));
    let both = features(Input::parts([image.clone(), Input::text("a caption"), audio.clone()]));
    let (image, audio) = (features(image), features(audio));
    assert_eq!(both.rows, [image.rows.clone(), audio.rows.clone()].concat());
    assert!(image.deepstack.len() == 2 && audio.deepstack.is_empty() && both.deepstack.len() == 2);
    for (set, own) in both.deepstack.iter().zip(&image.deepstack) {
        assert_eq!(set, &[own.clone(), vec![0.0; audio.rows.len()]].concat());
    }
    // A model of texts, and one whose towers give vectors, have none.
    for name in ["bert-tiny", "clip-tiny"] {
        let engine =
            builder(record(&golden().checkpoint(name).folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
        let error = engine.embed_with(&[], &request).unwrap_err().to_string();
        assert!(error.contains("no output `features`"), "{name}: {error}");
    }
}
