//! Audio against the reference: mel frames, tower rows, features, vectors.

use omniburn::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::cases::every_case_of;
use crate::direct::{Model, values};
use crate::support::*;

#[test]
fn every_sound_case_equals_the_reference_in_every_layout_and_task() {
    every_case_of("audio");
}

#[test]
fn a_sound_of_two_frames_gives_no_row_and_is_refused() {
    for checkpoint in golden().checkpoints() {
        let blip = checkpoint.cases("audio").find(|c| c["features_rows"] == 0).expect("a sound without a row");
        let error =
            checkpoint.engine().embed_with(&[checkpoint.audio(str_of(&blip["name"]))], &omniburn::Request::default());
        let error = error.unwrap().swap_remove(0).unwrap_err();
        assert_eq!(error.kind().name(), "too_short");
        assert!(error.to_string().contains("found 2 mel frames, expected at least 3"), "{error}");
    }
}

fn with_features(checkpoint: &Checkpoint) -> Vec<&Value> {
    checkpoint.cases("audio").filter(|c| c["features"].is_string()).collect()
}

#[test]
fn frame_counts_tower_rows_and_features_equal_the_references() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        for case in with_features(&checkpoint) {
            let name = format!("{} {}", checkpoint.name, str_of(&case["name"]));
            let mel = model.listen(&checkpoint.audio_path(str_of(&case["name"])));
            assert_eq!(mel.frames() as u64, case["frames"].as_u64().unwrap(), "{name}: frames");
            let features = model.sound_features(&[mel.values()]).swap_remove(0);
            worst.see(compare(&name, &features, &checkpoint.tensor(str_of(&case["features"])), feature_bound()));
            if let Some(key) = case["tower_hidden"].as_str() {
                let pooled = values(model.sound_pooled(&[mel.values()]).swap_remove(0));
                worst.see(compare(key, &pooled, &checkpoint.tensor(key), feature_bound()));
            }
        }
    }
    worst.report("sound features");
}

/// The tower apart from our own mel frames, where a set brings the reference's.
#[test]
fn features_of_the_references_own_mel_frames_are_met() {
    let mut worst = Worst::default();
    for set in sets().iter().filter(|s| s.refs.join("preprocess.json").is_file()) {
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(set.refs.join("preprocess.json")).unwrap()).unwrap();
        let bytes = std::fs::read(set.refs.join("preprocess.safetensors")).unwrap();
        let mels = SafeTensors::deserialize(&bytes).unwrap();
        for checkpoint in set.checkpoints() {
            let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
            for case in with_features(&checkpoint) {
                let listed = manifest["cases"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|c| c["mel"].is_string() && c["name"] == case["name"]);
                let mel = mels.tensor(str_of(&listed.unwrap()["mel"])).unwrap();
                let (bands, frames) = (mel.shape()[0], mel.shape()[1]);
                let at = |i: usize| f32::from_le_bytes(mel.data()[4 * i..4 * i + 4].try_into().unwrap());
                let rows: Vec<f32> = (0..frames).flat_map(|f| (0..bands).map(move |b| at(b * frames + f))).collect();
                let features = model.sound_features(&[&rows]).swap_remove(0);
                let name = format!("{} {}", checkpoint.name, str_of(&case["name"]));
                worst.see(compare(&name, &features, &checkpoint.tensor(str_of(&case["features"])), feature_bound()));
            }
        }
    }
    if worst.1 == 0 {
        println!("not run: no set with the reference's mel frames is on this machine");
    } else {
        worst.report("features of reference mels");
    }
}

#[test]
fn packed_sounds_have_the_features_they_have_alone() {
    let mut worst = Worst::default();
    for checkpoint in golden().checkpoints() {
        let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        for case in checkpoint.cases("audio_batch") {
            let names: Vec<&str> = case["names"].as_array().unwrap().iter().map(str_of).collect();
            let mels: Vec<_> = names.iter().map(|n| model.listen(&checkpoint.audio_path(n))).collect();
            let packed = model.sound_features(&mels.iter().map(|m| m.values()).collect::<Vec<_>>());
            for ((name, mel), packed) in names.iter().zip(&mels).zip(packed) {
                same(name, std::slice::from_ref(&packed), &model.sound_features(&[mel.values()]));
                let want = checkpoint.tensor(&format!("audio/{name}/features"));
                worst.see(compare(name, &packed, &want, feature_bound()));
            }
        }
    }
    worst.report("packed sounds");
}

/// A thousand frames of which the last 150 are others: what the tower says of earlier windows is the same to the bit.
#[test]
fn a_window_knows_nothing_of_later_ones() {
    for checkpoint in golden().checkpoints() {
        let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        let audio = model.config.audio.clone().unwrap();
        let wave = |i: usize| ((i as f32 * 0.37).sin() + (i as f32 * 0.011).cos()) * 0.6;
        let right: Vec<f32> = (0..1000 * audio.mels).map(wave).collect();
        let changed: Vec<f32> =
            right.iter().enumerate().map(|(i, v)| if i >= 850 * audio.mels { 0.3 - v } else { *v }).collect();
        let rows = |mel: &[f32]| values(model.sound_rows(&[mel]).swap_remove(0));
        let (right, changed) = (rows(&right), rows(&changed));
        let untouched = 850 / audio.window_frames() * audio.window_frames() / 2 * audio.hidden;
        assert!(untouched > 0 && right[..untouched] == changed[..untouched], "{}", checkpoint.name);
        assert!(distance("later", &right[untouched..], &changed[untouched..]).max_abs > 1e-3, "{}", checkpoint.name);
    }
}
