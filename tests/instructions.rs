//! Every set of instructions this machine has, in every type products are computed in: vectors of the tiny checkpoints
//! against those of the reference, and the law that company changes no bit.
//!
//! The choice is the whole process's, so this test has a process of its own.

use omniburn::{Dtype, Embedding, Engine, Input, Isa, Role};

use crate::faults::in_a_process_of_its_own;
use crate::parity_text::text;
use crate::support::*;

/// Texts, images and audio of a twin.
fn inputs(twin: &Twin) -> Vec<Input> {
    let mut inputs: Vec<Input> =
        ["single", "plain", "long", "medium", "chinese"].iter().map(|name| Input::text(text(twin, name))).collect();
    inputs.extend(["odd", "wide", "tiny"].iter().map(|name| twin.image_named(name)));
    inputs.extend(["mixed", "click", "three"].iter().map(|name| twin.sound(name)));
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
        for twin in golden().twins() {
            let inputs = inputs(&twin);
            // f32 on the richest set equals the reference: the parity tests hold that.
            let want = vectors(&twin.engine(), &inputs);
            for isa in Isa::available() {
                Isa::force(Some(isa)).unwrap();
                for (stored, computed, bound) in [
                    (Dtype::F32, Dtype::F32, None),
                    (Dtype::Bf16, Dtype::F32, Some(0.9995)),
                    (Dtype::Bf16, Dtype::Bf16, Some(0.9995)),
                    (Dtype::F32, Dtype::Bf16, Some(0.9995)),
                    (Dtype::Int8, Dtype::Int8, Some(0.999)),
                ] {
                    let name = format!("{} {isa} {stored} in {computed}", twin.name);
                    let engine = builder(twin.record(stored)).dtype(computed).open().unwrap();
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
    let twin = golden().twin("omni-small-tiny");
    let error = builder(twin.record(Dtype::F32)).dtype(Dtype::Int8).open().unwrap_err();
    assert!(error.to_string().contains("int8"), "{error}");
}
