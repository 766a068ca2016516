//! The reference's cases of images, video and audio, through an engine.

use omniburn::record::TemplateKind;
use omniburn::{Dtype, Engine, Input, Request};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use serde_json::Value;

use crate::parity_text::role;
use crate::support::*;

fn template(name: &str) -> TemplateKind {
    name.parse().unwrap()
}

fn input(checkpoint: &Checkpoint, case: &Value) -> Input {
    if case["kind"] == "audio" {
        return checkpoint.audio(str_of(&case["name"]));
    }
    if case["kind"] == "video" {
        return checkpoint.clip(case);
    }
    match case["file"].as_str() {
        Some(_) => checkpoint.image(case),
        None => checkpoint.image_named(str_of(&case["name"])),
    }
}

/// Every embedding of a medium's cases: name, input, request, convention, vector wanted.
fn embeddings(checkpoint: &Checkpoint, kind: &str) -> Vec<(String, Input, Request, TemplateKind, Vec<f32>, usize)> {
    // An audio that gives no row has no embedding.
    let cases = checkpoint.cases(kind).filter(|case| case["embeddings"].is_array()).flat_map(|case| {
        let rows = case["embeddings"].as_array().expect("embeddings").iter();
        rows.map(move |e| {
            let key = str_of(&e["embedding"]);
            let request = Request::new(role(e)).task(str_of(&e["task"]));
            let s = &e["sequence"];
            let around: usize = ["prefix", "open", "close", "suffix"].iter().map(|p| ids_of(&s[*p]).len()).sum();
            let tokens = around + s["n"].as_u64().unwrap() as usize;
            let kind = template(str_of(&e["convention"]));
            (
                format!("{} {key}", checkpoint.name),
                input(checkpoint, case),
                request,
                kind,
                checkpoint.tensor(key),
                tokens,
            )
        })
    });
    cases.collect()
}

/// The cases in the layout the checkpoint converts to by default.
pub fn default_layout_cases(checkpoint: &Checkpoint, kind: &str) -> Vec<(String, Input, Request, Vec<f32>)> {
    let record = open(&checkpoint.record(Dtype::F32));
    let modality = kind.parse().unwrap();
    let default = record.header().templates[&modality].kind;
    let cases = embeddings(checkpoint, kind).into_iter().filter(|c| c.3 == default);
    cases.map(|(name, input, request, _, want, _)| (name, input, request, want)).collect()
}

/// An engine whose record lays some media out as `kind`.
fn engine_for(checkpoint: &Checkpoint, media: &[&str], kind: TemplateKind) -> Engine {
    let out = scratch().join(format!("{}-{}-{:?}", checkpoint.name, kind.name(), std::thread::current().id()));
    let mut options = ConvertOptions::new(&checkpoint.folder, &out);
    options.tasks = TaskChoice::All;
    options.dtype = Dtype::F32;
    options.force = true;
    options.templates = media.iter().map(|m| (m.parse().unwrap(), kind)).collect();
    convert(&options).unwrap();
    builder(out).open().unwrap()
}

pub fn every_case_of(kind: &str) {
    // What a checkpoint names ids for differs between media.
    let media: &[&str] = if kind == "audio" { &["audio"] } else { &["image", "video"] };
    let mut worst = Worst::default();
    for checkpoint in sets().iter().flat_map(Set::checkpoints) {
        let cases = embeddings(&checkpoint, kind);
        for layout in [TemplateKind::Wrapped, TemplateKind::Bare, TemplateKind::Noeos] {
            let cases: Vec<_> = cases.iter().filter(|c| c.3 == layout).collect();
            if cases.is_empty() {
                continue;
            }
            let engine = engine_for(&checkpoint, media, layout);
            for (name, input, request, _, want, tokens) in cases {
                let embedded = engine.embed_with(std::slice::from_ref(input), request).unwrap().swap_remove(0).unwrap();
                assert_eq!(embedded.tokens, *tokens, "{name}: rows");
                worst.see(compare(name, embedded.embedding.as_slice(), want, embedding_bound()));
            }
        }
    }
    worst.report(kind);
}

/// Layout chosen by default: what a user gets who says nothing.
#[test]
fn the_default_layout_is_the_references_first() {
    for checkpoint in golden().checkpoints() {
        for kind in ["image", "video"] {
            let first = embeddings(&checkpoint, kind).remove(0).3;
            let record = open(&checkpoint.record(Dtype::F32));
            assert_eq!(record.header().templates[&kind.parse().unwrap()].kind, first, "{} {kind}", checkpoint.name);
        }
        let sound = open(&checkpoint.record(Dtype::F32)).header().templates[&"audio".parse().unwrap()].kind;
        let bidirectional = checkpoint.name.contains("nano");
        let want = if bidirectional { TemplateKind::Noeos } else { TemplateKind::Wrapped };
        assert_eq!(sound, want, "{} audio", checkpoint.name);
    }
}
