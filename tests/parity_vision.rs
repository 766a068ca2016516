//! Images, and video as lists of frames, against the reference: grids, tower rows, features, vectors.

use omniburn::{BackendSpec, Dtype};
use omniburn_media::{PatchGrid, image_patches, video_patches};
use serde_json::Value;

use crate::cases::every_case_of;
use crate::direct::{Model, decode, values};
use crate::support::*;

#[test]
fn every_picture_case_equals_the_reference_in_every_layout_and_task() {
    every_case_of("image");
}

#[test]
fn every_list_of_frames_equals_the_reference() {
    every_case_of("video");
}

fn patches(checkpoint: &Checkpoint, model: &Model, case: &Value) -> PatchGrid {
    if case["kind"] == "video" {
        let frames = case["frames"].as_array().unwrap();
        let frames: Vec<_> = frames.iter().map(|f| decode(&checkpoint.media.join(str_of(f)))).collect();
        return video_patches(&frames, &model.video()).unwrap();
    }
    image_patches(&decode(&checkpoint.media.join(str_of(&case["file"]))), &model.pixels()).unwrap()
}

#[test]
fn grids_tower_rows_and_features_equal_the_references() {
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        for case in ["image", "video"].iter().flat_map(|k| checkpoint.cases(k)) {
            let Some(features) = case["features"].as_str() else { continue };
            let patches = patches(&checkpoint, &model, case);
            let grid = [patches.grid().t, patches.grid().h, patches.grid().w].map(|n| n as u64);
            let want: Vec<u64> = case["grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            assert_eq!(grid.to_vec(), want, "{} {features}: grid", checkpoint.name);

            let features_of = || values(model.features(std::slice::from_ref(&patches)));
            let (rows, captured) = omniburn_models::capture::collect(features_of);
            worst.see(compare(
                &format!("{} {features}", checkpoint.name),
                &rows,
                &checkpoint.tensor(features),
                feature_bound(),
            ));
            let at = |name: &str| captured.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no {name}"));
            if let Some(key) = case["patch_embed"].as_str() {
                worst.see(compare(key, &at("vision.patch_embed").values, &checkpoint.tensor(key), feature_bound()));
            }
            if let Some(key) = case["tower_hidden"].as_str() {
                let last = format!("vision.blocks.{}", model.config.vision.as_ref().unwrap().layers - 1);
                worst.see(compare(key, &at(&last).values, &checkpoint.tensor(key), feature_bound()));
            }
        }
    }
    worst.report("features");
}

#[test]
fn packed_pictures_have_the_features_they_have_alone() {
    let mut worst = Worst::default();
    for checkpoint in golden().checkpoints() {
        let model = Model::open(&checkpoint.record(Dtype::F32), "retrieval");
        for case in checkpoint.cases("image_batch") {
            let names: Vec<&str> = case["names"].as_array().unwrap().iter().map(str_of).collect();
            let items: Vec<_> = names
                .iter()
                .map(|n| {
                    image_patches(&decode(&checkpoint.media.join(format!("images/{n}.png"))), &model.pixels()).unwrap()
                })
                .collect();
            let packed = values(model.features(&items));
            let alone: Vec<f32> = items.iter().flat_map(|p| values(model.features(std::slice::from_ref(p)))).collect();
            if device() == BackendSpec::default() {
                assert!(packed == alone, "{}: packed pictures differ from single ones in some bit", checkpoint.name);
            } else {
                compare(&checkpoint.name, &packed, &alone, feature_bound());
            }
            let want: Vec<f32> = names.iter().flat_map(|n| checkpoint.tensor(&format!("image/{n}/features"))).collect();
            worst.see(compare(&checkpoint.name, &packed, &want, feature_bound()));
        }
    }
    worst.report("packed pictures");
}
