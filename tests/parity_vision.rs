//! Pictures, and film as lists of frames, against the reference: grids, tower rows, features, vectors.

use omniburn::{BackendSpec, Dtype, Engine, Input, Request, TemplateKind};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use omniburn_media::{PatchGrid, image_patches, video_patches};
use serde_json::Value;

use crate::direct::{Model, decode, values};
use crate::parity_text::role;
use crate::support::*;

fn template(name: &str) -> TemplateKind {
    name.parse().unwrap()
}

fn input(twin: &Twin, case: &Value) -> Input {
    if case["kind"] == "video" {
        return twin.clip(case);
    }
    match case["file"].as_str() {
        Some(_) => twin.image(case),
        None => twin.image_named(str_of(&case["name"])),
    }
}

/// Every embedding of a medium's cases: name, input, request, convention, vector wanted.
fn embeddings(twin: &Twin, kind: &str) -> Vec<(String, Input, Request, TemplateKind, Vec<f32>, usize)> {
    let cases = twin.cases(kind).flat_map(|case| {
        let rows = case["embeddings"].as_array().expect("embeddings").iter();
        rows.map(move |e| {
            let key = str_of(&e["embedding"]);
            let request = Request::new(role(e)).task(str_of(&e["task"]));
            let s = &e["sequence"];
            let around: usize = ["prefix", "open", "close", "suffix"].iter().map(|p| ids_of(&s[*p]).len()).sum();
            let tokens = around + s["n"].as_u64().unwrap() as usize;
            let kind = template(str_of(&e["convention"]));
            (format!("{} {key}", twin.name), input(twin, case), request, kind, twin.tensor(key), tokens)
        })
    });
    cases.collect()
}

/// The cases in the layout the checkpoint converts to by default.
pub fn default_layout_cases(twin: &Twin, kind: &str) -> Vec<(String, Input, Request, Vec<f32>)> {
    let record = open(&twin.record(Dtype::F32));
    let modality = kind.parse().unwrap();
    let default = record.header().templates[&modality].kind;
    let cases = embeddings(twin, kind).into_iter().filter(|c| c.3 == default);
    cases.map(|(name, input, request, _, want, _)| (name, input, request, want)).collect()
}

/// An engine whose record lays pictures and film out as `kind`.
fn engine_for(twin: &Twin, kind: TemplateKind) -> Engine {
    let out = scratch().join(format!("{}-{}-{:?}", twin.name, kind.name(), std::thread::current().id()));
    let mut options = ConvertOptions::new(&twin.folder, &out);
    options.tasks = TaskChoice::All;
    options.dtype = Dtype::F32;
    options.force = true;
    options.templates = [("image", kind), ("video", kind)].map(|(m, k)| (m.parse().unwrap(), k)).into();
    convert(&options).unwrap();
    builder(out).open().unwrap()
}

fn every_case_of(kind: &str) {
    let mut worst = Worst::default();
    for twin in sets().iter().flat_map(Set::twins) {
        let cases = embeddings(&twin, kind);
        for layout in [TemplateKind::Wrapped, TemplateKind::Bare, TemplateKind::Noeos] {
            let cases: Vec<_> = cases.iter().filter(|c| c.3 == layout).collect();
            if cases.is_empty() {
                continue;
            }
            let engine = engine_for(&twin, layout);
            for (name, input, request, _, want, tokens) in cases {
                let embedded = engine.embed_with(std::slice::from_ref(input), request).unwrap().swap_remove(0).unwrap();
                assert_eq!(embedded.tokens, *tokens, "{name}: rows");
                worst.see(compare(name, embedded.embedding.as_slice(), want, embedding_bound()));
            }
        }
    }
    worst.report(kind);
}

#[test]
fn every_picture_case_equals_the_reference_in_every_layout_and_task() {
    every_case_of("image");
}

#[test]
fn every_list_of_frames_equals_the_reference() {
    every_case_of("video");
}

/// Layout chosen by default: what a user gets who says nothing.
#[test]
fn the_default_layout_is_the_references_first() {
    for twin in golden().twins() {
        for kind in ["image", "video"] {
            let first = embeddings(&twin, kind).remove(0).3;
            let record = open(&twin.record(Dtype::F32));
            assert_eq!(record.header().templates[&kind.parse().unwrap()].kind, first, "{} {kind}", twin.name);
        }
    }
}

fn patches(twin: &Twin, model: &Model, case: &Value) -> PatchGrid {
    if case["kind"] == "video" {
        let frames = case["frames"].as_array().unwrap();
        let frames: Vec<_> = frames.iter().map(|f| decode(&twin.media.join(str_of(f)))).collect();
        return video_patches(&frames, &model.film()).unwrap();
    }
    image_patches(&decode(&twin.media.join(str_of(&case["file"]))), &model.pixels()).unwrap()
}

#[test]
fn grids_tower_rows_and_features_equal_the_references() {
    let mut worst = Worst::default();
    for twin in sets().iter().flat_map(Set::twins) {
        let model = Model::open(&twin.record(Dtype::F32), "retrieval");
        for case in ["image", "video"].iter().flat_map(|k| twin.cases(k)) {
            let Some(features) = case["features"].as_str() else { continue };
            let patches = patches(&twin, &model, case);
            let grid = [patches.grid().t, patches.grid().h, patches.grid().w].map(|n| n as u64);
            let want: Vec<u64> = case["grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            assert_eq!(grid.to_vec(), want, "{} {features}: grid", twin.name);

            let (rows, taps) = omniburn_models::tap::collect(|| values(model.features(std::slice::from_ref(&patches))));
            worst.see(compare(&format!("{} {features}", twin.name), &rows, &twin.tensor(features), feature_bound()));
            let tap = |name: &str| taps.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no tap {name}"));
            if let Some(key) = case["patch_embed"].as_str() {
                worst.see(compare(key, &tap("vision.patch_embed").values, &twin.tensor(key), feature_bound()));
            }
            if let Some(key) = case["tower_hidden"].as_str() {
                let last = format!("vision.blocks.{}", model.config.vision.as_ref().unwrap().layers - 1);
                worst.see(compare(key, &tap(&last).values, &twin.tensor(key), feature_bound()));
            }
        }
    }
    worst.report("features");
}

#[test]
fn packed_pictures_have_the_features_they_have_alone() {
    let mut worst = Worst::default();
    for twin in golden().twins() {
        let model = Model::open(&twin.record(Dtype::F32), "retrieval");
        for case in twin.cases("image_batch") {
            let names: Vec<&str> = case["names"].as_array().unwrap().iter().map(str_of).collect();
            let items: Vec<_> = names
                .iter()
                .map(|n| image_patches(&decode(&twin.media.join(format!("images/{n}.png"))), &model.pixels()).unwrap())
                .collect();
            let packed = values(model.features(&items));
            let alone: Vec<f32> = items.iter().flat_map(|p| values(model.features(std::slice::from_ref(p)))).collect();
            if device() == BackendSpec::default() {
                assert!(packed == alone, "{}: packed pictures differ from single ones in some bit", twin.name);
            } else {
                compare(&twin.name, &packed, &alone, feature_bound());
            }
            let want: Vec<f32> = names.iter().flat_map(|n| twin.tensor(&format!("image/{n}/features"))).collect();
            worst.see(compare(&twin.name, &packed, &want, feature_bound()));
        }
    }
    worst.report("packed pictures");
}
