//! Every set of instructions this machine has, in every type products are computed in: vectors of the tiny checkpoints
//! against those of the reference, and the law that batch mates change no bit. Sets that were chosen, and sets that are forced.
//!
//! What is forced counts for the whole process, so these tests have processes of their own.

use std::sync::Arc;

use omniburn::kernels::{Isa, IsaUnavailable, KernelChoice, Processor};
use omniburn::{Dtype, Embedding, Engine, EngineError, Input, Request, ResultCache, Role};

use crate::faults::in_a_process_of_its_own;
use crate::parity_text::text;
use crate::support::*;

/// Texts, images and audio of a checkpoint.
fn inputs(checkpoint: &Checkpoint) -> Vec<Input> {
    let mut inputs: Vec<Input> = ["single", "plain", "long", "medium", "chinese"]
        .iter()
        .map(|name| Input::text(text(checkpoint, name)))
        .collect();
    inputs.extend(["odd", "wide", "tiny"].iter().map(|name| checkpoint.image_named(name)));
    inputs.extend(["mixed", "click", "three"].iter().map(|name| checkpoint.audio(name)));
    inputs
}

fn vectors(engine: &Engine, inputs: &[Input]) -> Vec<Vec<f32>> {
    engine.embed(inputs, Role::Document).unwrap().into_iter().map(Embedding::into_vec).collect()
}

fn least_cosine(got: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    assert_eq!(got.len(), want.len());
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    got.iter().zip(want).map(cosine).fold(1.0, f64::min)
}

#[test]
fn every_instruction_set_gives_the_same_vectors_in_every_type() {
    in_a_process_of_its_own("instructions", "every_instruction_set_gives_the_same_vectors_in_every_type", || {
        for checkpoint in golden().checkpoints() {
            let inputs = inputs(&checkpoint);
            // f32 on the richest set equals the reference: the parity tests hold that.
            let want = vectors(&checkpoint.engine(), &inputs);
            for isa in Isa::available() {
                Isa::force(Some(isa)).unwrap();
                for (stored, computed, bound) in [
                    (Dtype::F32, Dtype::F32, None),
                    (Dtype::Bf16, Dtype::F32, Some(0.9995)),
                    (Dtype::Bf16, Dtype::Bf16, Some(0.9995)),
                    (Dtype::F32, Dtype::Bf16, Some(0.9995)),
                    (Dtype::Int8, Dtype::Int8, Some(0.999)),
                    (Dtype::Affine8, Dtype::Int8, Some(0.999)),
                    (Dtype::Affine4, Dtype::Int8, Some(0.95)),
                ] {
                    let name = format!("{} {isa} {stored} in {computed}", checkpoint.name);
                    let engine = builder(checkpoint.record(stored)).dtype(computed).open().unwrap();
                    let got = vectors(&engine, &inputs);
                    let least = least_cosine(&got, &want);
                    match bound {
                        Some(bound) => {
                            println!("{name}: least cosine {least:.6}");
                            assert!(least >= bound, "{name}: {least}");
                        }
                        None => {
                            for (got, want) in got.iter().zip(&want) {
                                compare(&name, got, want, embedding_bound());
                            }
                        }
                    }
                    let alone: Vec<Vec<f32>> = inputs
                        .iter()
                        .map(|input| vectors(&engine, std::slice::from_ref(input)).swap_remove(0))
                        .collect();
                    same(&name, &got, &alone);
                }
            }
        }
    });
}

#[test]
fn int8_is_computed_only_where_it_is_stored() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let error = builder(checkpoint.record(Dtype::F32)).dtype(Dtype::Int8).open().unwrap_err();
    assert!(error.to_string().contains("int8"), "{error}");
}

/// A choice as plain data, whatever a measurement would say.
fn choice(isa: Isa) -> KernelChoice {
    KernelChoice { isa, processor: Processor::here(), times: Vec::new() }
}

/// Every set of this machine forced, chosen for one of several engines that are open at once, and chosen against what is
/// forced.
#[test]
fn chosen_instructions_give_the_bits_of_the_forced_ones_and_each_engine_keeps_its_own() {
    let name = "chosen_instructions_give_the_bits_of_the_forced_ones_and_each_engine_keeps_its_own";
    in_a_process_of_its_own("instructions", name, || {
        let checkpoint = golden().checkpoint("omni-nano-tiny");
        let inputs = inputs(&checkpoint);
        let open = |stored, kernels: Option<Isa>| {
            let builder = Engine::builder(checkpoint.record(stored)).dtype(stored);
            kernels.into_iter().fold(builder, |builder, isa| builder.kernels(choice(isa))).open().unwrap()
        };
        for stored in [Dtype::Bf16, Dtype::Int8] {
            let forced: Vec<Vec<Vec<f32>>> = Isa::available()
                .map(|isa| {
                    Isa::force(Some(isa)).unwrap();
                    let engine = open(stored, None);
                    assert_eq!(engine.profile().instructions, Some(isa));
                    vectors(&engine, &inputs)
                })
                .collect();
            Isa::force(None).unwrap();
            assert!(forced.len() == 1 || forced.first() != forced.last(), "sets of the same bits prove nothing");
            let engines: Vec<Engine> = Isa::available().map(|isa| open(stored, Some(isa))).collect();
            for ((engine, isa), forced) in engines.iter().zip(Isa::available()).zip(&forced) {
                assert_eq!(engine.profile().instructions, Some(isa));
                assert!(vectors(engine, &inputs) == *forced, "{isa} chosen, {stored}");
                // Beside the others, all at once.
                std::thread::scope(|scope| {
                    for other in &engines {
                        scope.spawn(|| vectors(other, &inputs));
                    }
                    assert!(vectors(engine, &inputs) == *forced, "{isa} beside others, {stored}");
                });
            }
            let by_flags = Isa::available().position(|isa| isa == Isa::by_flags()).unwrap();
            assert!(vectors(&open(stored, None), &inputs) == forced[by_flags], "without a choice, {stored}");
            Isa::force(Some(Isa::Portable)).unwrap();
            assert!(engines.iter().all(|engine| vectors(engine, &inputs) == forced[0]), "what is forced wins");
            assert_eq!(engines.last().unwrap().profile().instructions, Some(Isa::Portable));
            Isa::force(None).unwrap();
        }
    });
}

#[test]
fn results_kept_for_engines_with_other_instructions_do_not_mix() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let cache = ResultCache::new(1 << 20);
    let open = |isa| {
        let builder = Engine::builder(checkpoint.record(Dtype::Bf16)).dtype(Dtype::Bf16).cache(Arc::clone(&cache));
        builder.kernels(choice(isa)).open().unwrap()
    };
    let input = [Input::text(text(&checkpoint, "plain"))];
    let richest = Isa::available().last().unwrap();
    let (plain, rich) = (vectors(&open(Isa::Portable), &input), vectors(&open(richest), &input));
    assert!(richest == Isa::Portable || plain != rich, "{richest} gives the bits of the portable set");
    let hits = cache.stats().hits;
    assert_eq!(vectors(&open(Isa::Portable), &input), plain);
    assert_eq!(cache.stats().hits, hits + 1, "what the same instructions computed is found");
}

#[test]
fn a_choice_of_another_processor_is_refused_by_name() {
    let absent = Isa::ALL.into_iter().find(|isa| !isa.is_available()).expect("no machine has them all");
    let record = golden().checkpoint("omni-small-tiny").record(Dtype::F32);
    let error = Engine::builder(record).kernels(choice(absent)).open().unwrap_err();
    assert!(matches!(error, EngineError::Instructions(IsaUnavailable(isa)) if isa == absent), "{error}");
    assert!(error.to_string().contains(absent.name()), "{error}");
}

#[test]
fn an_engine_computes_in_the_type_that_is_said_beforehand() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    for stored in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        let record = open(&checkpoint.record(stored));
        for isa in Isa::available() {
            let engine = Engine::builder(record.path()).kernels(choice(isa)).open().unwrap();
            let said = omniburn::record::default_dtype(record.header(), Some(&choice(isa)));
            assert_eq!(engine.profile().dtype, said, "{stored} with {isa}");
        }
    }
    let shipped = Engine::mini().unwrap();
    assert_eq!(shipped.profile().dtype, omniburn::record::default_dtype(shipped.record().header(), None));
    let request = Request::new(Role::None);
    assert!(shipped.embed_with(&[Input::text("a")], &request).unwrap()[0].is_ok());
}
