//! Same item, same vector: alone, in any batch, in any order.

use omniburn::{Engine, Input, Request, Role};
use omniburn_models::capture;
use proptest::prelude::*;

use crate::direct::Model;
use crate::parity_text::text;
use crate::support::*;

/// Texts of many lengths, duplicates, images, lists of frames, audio, an animation.
fn mixed(checkpoint: &Checkpoint) -> Vec<Input> {
    let mut inputs: Vec<Input> = ["single", "plain", "long", "emoji", "plain", "medium", "german", "chinese", "single"]
        .iter()
        .map(|name| Input::text(text(checkpoint, name)))
        .collect();
    inputs.extend(["odd", "square", "wide", "tiny", "odd"].iter().map(|name| checkpoint.image_named(name)));
    inputs.extend(checkpoint.cases("video").map(|case| checkpoint.clip(case)));
    inputs.extend(["mixed", "click", "three", "half", "mixed"].iter().map(|name| checkpoint.audio(name)));
    inputs.push(checkpoint.audio("stereo44k"));
    inputs
}

fn vectors(engine: &Engine, inputs: &[Input]) -> Vec<Vec<f32>> {
    engine.embed(inputs, Role::Document).unwrap().into_iter().map(omniburn::Embedding::into_vec).collect()
}

fn alone(engine: &Engine, inputs: &[Input]) -> Vec<Vec<f32>> {
    inputs.iter().map(|input| vectors(engine, std::slice::from_ref(input)).swap_remove(0)).collect()
}

#[test]
fn an_item_has_the_same_bits_alone_and_in_company() {
    for checkpoint in golden().checkpoints() {
        let engine = checkpoint.engine();
        let inputs = mixed(&checkpoint);
        same(&checkpoint.name, &vectors(&engine, &inputs), &alone(&engine, &inputs));
    }
}

#[test]
fn equal_lengths_and_duplicates_equal_singles_to_the_bit() {
    for checkpoint in golden().checkpoints() {
        let engine = checkpoint.engine();
        let words = ["a b", "a c", "b a", "a b", "c c"];
        let inputs: Vec<Input> = words.iter().map(|w| Input::text(*w)).collect();
        let together = vectors(&engine, &inputs);
        same(&checkpoint.name, &together, &alone(&engine, &inputs));
        same("duplicates", &together[..1], &together[3..4]);
        assert_ne!(together[0], together[1], "{}: different texts, different vectors", checkpoint.name);
    }
}

/// Full-size widths, where products take the paths that tiny ones do not: the law is held there too.
#[test]
fn a_row_of_a_product_has_the_same_bits_whatever_rows_are_beside_it() {
    let device = burn::tensor::Device::flex();
    let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
    for (inputs, outputs) in [(1024, 4096), (3072, 1024), (64, 160), (96, 288)] {
        let tensor = |rows: usize, columns: usize, seed: usize| {
            let values: Vec<f32> = (0..rows * columns).map(|i| value(i + seed)).collect();
            burn::tensor::Tensor::<2>::from_data(burn::tensor::TensorData::new(values, [rows, columns]), &device)
        };
        let weight = tensor(inputs, outputs, 77);
        let all = tensor(700, inputs, 0);
        let read = |x: burn::tensor::Tensor<2>| crate::direct::values(x);
        let whole = read(omniburn_kernels::linear(all.clone(), weight.clone(), None));
        for rows in [1, 2, 3, 5, 16, 17, 64, 129, 512, 699] {
            let part = read(omniburn_kernels::linear(all.clone().slice_dim(0, 0..rows), weight.clone(), None));
            assert!(part[..] == whole[..rows * outputs], "{rows} rows of {inputs} x {outputs} differ from 700");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_company_give_the_same_bits(
        order in Just((0..22usize).collect::<Vec<_>>()).prop_shuffle(),
        taken in 1usize..22,
    ) {
        for name in ["omni-small-tiny", "omni-nano-tiny"] {
            let checkpoint = golden().checkpoint(name);
            let engine = checkpoint.engine();
            let inputs = mixed(&checkpoint);
            let want = alone(&engine, &inputs);
            let chosen: Vec<usize> = order[..taken].iter().map(|i| i % inputs.len()).collect();
            let batch: Vec<Input> = chosen.iter().map(|&i| inputs[i].clone()).collect();
            let got = vectors(&engine, &batch);
            for (slot, &i) in chosen.iter().enumerate() {
                let name = format!("{name} item {i} at {slot}");
                same(&name, std::slice::from_ref(&got[slot]), std::slice::from_ref(&want[i]));
            }
        }
    }
}

#[test]
fn streamed_results_come_in_order_and_equal_the_call() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let inputs: Vec<Input> = mixed(&checkpoint).into_iter().cycle().take(600).collect();
    let streamed: Vec<Vec<f32>> = engine
        .embed_iter(inputs.clone(), Request::new(Role::Document))
        .unwrap()
        .map(|r| r.unwrap().embedding.into_vec())
        .collect();
    same("streamed", &streamed, &vectors(&engine, &inputs));
}

#[test]
fn the_smallest_budget_that_would_do_does_and_changes_no_bit() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let inputs = mixed(&checkpoint);
    let want = vectors(&checkpoint.engine(), &inputs);
    let record = checkpoint.record(omniburn::Dtype::F32);
    let open = |bytes| builder(record.clone()).budget(bytes).open().unwrap();
    let refused = open(1).embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    let needed = refused.into_iter().map(|result| match result.unwrap_err() {
        omniburn::ItemError::OverBudget { needed, .. } => needed,
        other => panic!("{other}"),
    });
    let needed = needed.max().unwrap();
    println!("the largest of {} items needs a budget of {needed} bytes", inputs.len());
    same("budget", &vectors(&open(needed), &inputs), &want);
}

/// A file's header is read before there is room for its content. What is decoded then is the file that was measured: one that
/// was replaced meanwhile is measured again, and refused where it needs more than was set aside for it.
#[test]
fn a_file_that_grows_while_it_waits_takes_no_more_than_was_measured() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let folder = tempfile::tempdir().unwrap();
    let source = |name: &str| checkpoint.media.join(format!("images/{name}.png"));
    let files: Vec<_> = (0..5).map(|n| folder.path().join(format!("{n}.png"))).collect();
    for file in &files {
        std::fs::copy(source("odd"), file).unwrap();
    }
    let inputs = || files.iter().map(Input::image_file);
    let open = |bytes| builder(checkpoint.record(omniburn::Dtype::F32)).budget(bytes).open().unwrap();
    let refused = open(1).embed_with(&[Input::image_file(&files[0])], &Request::default()).unwrap();
    let Err(omniburn::ItemError::OverBudget { needed, .. }) = &refused[0] else { panic!("{refused:?}") };
    // Room for one of them at a time, so that the others wait with their headers read.
    let engine = open(*needed);
    let mut results = engine.embed_iter(inputs(), Request::new(Role::Document)).unwrap();
    let vector = |result: omniburn::Embedded| result.embedding.into_vec();
    let first = vector(results.next().unwrap().unwrap());
    for (file, name) in [(&files[2], "tiny"), (&files[3], "big")] {
        let other = folder.path().join("other");
        std::fs::copy(source(name), &other).unwrap();
        std::fs::rename(other, file).unwrap();
    }
    std::fs::copy(source("big"), &files[4]).unwrap();
    let rest: Vec<_> = results.collect();
    let whole = checkpoint.engine();
    let of = |name: &str| vectors(&whole, &[checkpoint.image_named(name)]).remove(0);
    assert_eq!(first, of("odd"));
    assert_eq!(vector(rest[0].clone().unwrap()), of("odd"));
    // A handle was kept of each: the one whose name was taken is what it was, and the one that was written to is not.
    assert_eq!(vector(rest[1].clone().unwrap()), of("odd"));
    assert_eq!(vector(rest[2].clone().unwrap()), of("odd"));
    let error = rest[3].clone().unwrap_err();
    assert_eq!(error.kind().name(), "corrupt", "{error}");
    assert!(error.to_string().contains("4.png: the file changed while it was read"), "{error}");
    // Written to, and smaller than it was.
    let mut results = engine.embed_iter(inputs().take(2), Request::new(Role::Document)).unwrap();
    assert_eq!(vector(results.next().unwrap().unwrap()), first);
    std::fs::copy(source("tiny"), &files[1]).unwrap();
    assert_eq!(vector(results.next().unwrap().unwrap()), of("tiny"));
}

/// The number of threads decides how a product is cut, and must not decide its result.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let inputs = mixed(&checkpoint);
    let with =
        |n| vectors(&Engine::builder(checkpoint.record(omniburn::Dtype::F32)).threads(n).open().unwrap(), &inputs);
    assert_eq!(with(1), with(4));
}

/// In bf16 the same law holds to the bit too.
#[test]
fn bf16_arithmetic_keeps_the_law() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let inputs = mixed(&checkpoint);
    let engine = Engine::builder(checkpoint.record(omniburn::Dtype::Bf16)).dtype(omniburn::Dtype::Bf16).open().unwrap();
    assert_eq!(vectors(&engine, &inputs), alone(&engine, &inputs));
}

/// An intermediate of a packed sequence equals that of the sequence alone, so the law holds layer by layer.
#[test]
fn layers_of_packed_sequences_equal_layers_of_single_ones() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let model = Model::open(&checkpoint.record(omniburn::Dtype::F32), "retrieval");
    let ids = |name: &str| model.tokenizer.ids(text(&checkpoint, name)).unwrap();
    let (first, second) = (ids("plain"), ids("german"));
    let (_, packed) = capture::collect(|| model.text(&[first.clone(), second.clone()]));
    let (_, single) = capture::collect(|| model.text(std::slice::from_ref(&second)));
    for (packed, single) in packed.iter().zip(&single).filter(|(p, _)| p.name != "pooled") {
        assert_eq!(packed.name, single.name);
        let width = single.shape[1];
        assert_eq!(packed.values[first.len() * width..], single.values[..], "{}", single.name);
    }
}
