//! The same bodies on every compiled backend: operations, features and vectors of both families.

use burn::tensor::{Device, Tensor, TensorData};
use omniburn::{BackendKind, BackendSpec, Dtype, Engine, Input, Request, Role};
use omniburn_kernels::{self as kernels, Segments};

use crate::direct::{Model, values};
use crate::parity_text::{role, text};
use crate::support::*;

/// Between backends in f32; stated in NUMERICS.md.
const BETWEEN_EMBEDDINGS: f32 = 1e-5;

/// The backends this build has, with the reference's own first.
pub fn compiled() -> Vec<BackendSpec> {
    let on_test = [BackendKind::Flex, BackendKind::Wgpu, BackendKind::Vulkan, BackendKind::Metal, BackendKind::Cuda];
    let has = |kind: &BackendKind| BackendKind::ALL.iter().any(|(k, _, yes)| k == kind && *yes);
    on_test.into_iter().filter(has).map(|kind| BackendSpec { kind, index: None }).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let value = |i: usize| ((i + seed * 7919) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    Tensor::from_data(TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape), device)
}

fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Every operation of the door, on ragged and equal segments, grouped heads, causal and not.
fn operations(device: &Device) -> Vec<(String, Vec<f32>)> {
    let mut results = Vec::new();
    let mut put = |name: &str, values: Vec<f32>| results.push((name.to_string(), values));
    for rows in [1, 2, 7] {
        put("linear", read(kernels::linear(tensor([rows, 24], 1, device), tensor([24, 40], 2, device), None)));
    }
    let bias = tensor([40], 3, device);
    put("linear with bias", read(kernels::linear(tensor([5, 24], 1, device), tensor([24, 40], 2, device), Some(bias))));
    put("rms_norm", read(kernels::rms_norm(tensor([3, 2, 8], 4, device), tensor([8], 5, device), 1e-6)));
    let (gain, bias) = (tensor([12], 7, device), tensor([12], 8, device));
    put("layer_norm", read(kernels::layer_norm(tensor([4, 12], 6, device), gain, bias, 1e-6)));
    let (cos, sin) = (tensor([6, 8], 10, device), tensor([6, 8], 11, device));
    put("rotary", read(kernels::rotary(tensor([6, 3, 8], 9, device), cos, sin)));
    put("swiglu", read(kernels::swiglu(tensor([3, 20], 12, device))));
    put("gelu_tanh", read(kernels::gelu_tanh(tensor([3, 20], 13, device))));
    put("gelu_erf", read(kernels::gelu_erf(tensor([3, 20], 14, device))));
    for (lengths, kv_heads) in [(vec![5, 5, 5], 2), (vec![1, 9, 3, 3], 4), (vec![16], 1)] {
        for causal in [false, true] {
            let rows = lengths.iter().sum();
            let segments = Segments::from_lengths(lengths.clone());
            let (query, key) = (tensor([rows, 4, 8], 15, device), tensor([rows, kv_heads, 8], 16, device));
            let value = tensor([rows, kv_heads, 8], 17, device);
            let context = kernels::attention(query, key, value, &segments, 0.3, causal);
            put(&format!("attention {lengths:?} {kv_heads} {causal}"), read(context));
        }
    }
    results
}

#[test]
fn every_operation_agrees_between_backends() {
    let want = operations(&Device::flex());
    for spec in compiled() {
        for ((name, got), (_, want)) in operations(&burn_device(spec)).iter().zip(&want) {
            compare(&format!("{spec}: {name}"), got, want, 5e-6);
        }
    }
}

/// Attention against its formula in f64: the portable body's own proof, on each backend.
#[test]
fn attention_equals_its_formula() {
    let (lengths, heads, kv_heads, head_dim, scale) = ([4usize, 1, 6], 4usize, 2usize, 8usize, 0.35f64);
    let rows: usize = lengths.iter().sum();
    for spec in compiled() {
        let device = burn_device(spec);
        let (q, k) = (tensor([rows, heads, head_dim], 1, &device), tensor([rows, kv_heads, head_dim], 2, &device));
        let v = tensor([rows, kv_heads, head_dim], 3, &device);
        let (qs, ks, vs) = (read(q.clone()), read(k.clone()), read(v.clone()));
        for causal in [false, true] {
            let segments = Segments::from_lengths(lengths);
            let got = read(kernels::attention(q.clone(), k.clone(), v.clone(), &segments, scale, causal));
            let mut want = vec![0.0f32; got.len()];
            for (start, len) in segments.iter() {
                for row in start..start + len {
                    let last = if causal { row } else { start + len - 1 };
                    for head in 0..heads {
                        let kv = head / (heads / kv_heads);
                        let at = |data: &[f32], row: usize, heads: usize, head: usize, d: usize| {
                            f64::from(data[(row * heads + head) * head_dim + d])
                        };
                        let scores: Vec<f64> = (start..=last)
                            .map(|other| {
                                let dot: f64 = (0..head_dim)
                                    .map(|d| at(&qs, row, heads, head, d) * at(&ks, other, kv_heads, kv, d))
                                    .sum();
                                (scale * dot).exp()
                            })
                            .collect();
                        let total: f64 = scores.iter().sum();
                        for d in 0..head_dim {
                            let sum: f64 =
                                scores.iter().enumerate().map(|(i, s)| s * at(&vs, start + i, kv_heads, kv, d)).sum();
                            want[(row * heads + head) * head_dim + d] = (sum / total) as f32;
                        }
                    }
                }
            }
            compare(&format!("{spec} causal {causal}"), &got, &want, 2e-6);
        }
    }
}

/// Kinds of cases and how many of each.
const ALL_MEDIA: &[(&str, usize)] = &[("image", 4), ("video", 4), ("audio", 4)];
/// A software driver tunes every shape of every type anew, seconds each.
const ONE_PICTURE: &[(&str, usize)] = &[("image", 1)];

/// Cases of all kinds through an engine: name, vector, the reference's.
fn vectors(engine: &Engine, checkpoint: &Checkpoint, media: &[(&str, usize)]) -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let embed = |input: Input, request: &Request| {
        engine.embed_with(&[input], request).unwrap().swap_remove(0).unwrap().embedding.as_slice().to_vec()
    };
    let mut all = Vec::new();
    for case in checkpoint.cases("text").filter(|c| ["plain", "emoji", "single"].contains(&str_of(&c["name"]))) {
        let mut request = Request::new(role(case));
        if let Some(dim) = case["truncate_dim"].as_u64() {
            request = request.dim(dim as usize);
        }
        let got = embed(Input::text(text(checkpoint, str_of(&case["name"]))), &request);
        let key = str_of(&case["embedding"]);
        all.push((format!("{} {key}", checkpoint.name), got, checkpoint.tensor(key)));
    }
    for (kind, most) in media {
        for (case, input, request, want) in crate::cases::default_layout_cases(checkpoint, kind).into_iter().take(*most)
        {
            all.push((case, embed(input, &request), want));
        }
    }
    all
}

#[test]
fn both_families_equal_the_reference_on_every_backend() {
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let checkpoint = golden().checkpoint(name);
        for spec in compiled() {
            let bound = if spec.kind == BackendKind::Flex { 5e-6 } else { BETWEEN_EMBEDDINGS };
            let engine = Engine::builder(checkpoint.record(Dtype::F32)).device(spec).dtype(Dtype::F32).open().unwrap();
            let mut worst = Worst::default();
            for (case, got, want) in vectors(&engine, &checkpoint, ALL_MEDIA) {
                worst.see(compare(&format!("{spec} {case}"), &got, &want, bound));
            }
            worst.report(&format!("{name} on {spec}"));
        }
    }
}

#[test]
fn a_batch_equals_its_singles_on_every_backend() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    for spec in compiled() {
        let engine = Engine::builder(checkpoint.record(Dtype::F32)).device(spec).dtype(Dtype::F32).open().unwrap();
        let inputs = [
            Input::text("one"),
            Input::text(text(&checkpoint, "plain")),
            Input::text("two"),
            checkpoint.image_named("odd"),
            checkpoint.audio("mixed"),
            checkpoint.audio("edge"),
        ];
        let together = engine.embed(&inputs, Role::Document).unwrap();
        for (input, together) in inputs.iter().zip(&together) {
            let alone = engine.embed_one(input.clone(), Role::Document).unwrap();
            compare(&format!("{spec} {input:?}"), together.as_slice(), alone.as_slice(), COMPANY);
        }
    }
}

/// Types below f32 in which a device computes, against the reference in f32.
#[test]
fn bf16_and_f16_arithmetic_stay_near_the_reference_on_every_backend_that_has_them() {
    for spec in compiled() {
        let has = spec.probe(None).unwrap().dtypes;
        for dtype in [Dtype::Bf16, Dtype::F16].into_iter().filter(|dtype| has.contains(dtype)) {
            let (mut least, mut count) = (1.0f64, 0);
            for name in ["omni-small-tiny", "omni-nano-tiny"] {
                let checkpoint = golden().checkpoint(name);
                let engine = Engine::builder(checkpoint.record(dtype)).device(spec).dtype(dtype).open().unwrap();
                assert_eq!(engine.profile().dtype, dtype);
                for (case, got, want) in vectors(&engine, &checkpoint, ONE_PICTURE) {
                    let cosine = distance(&case, &got, &want).cosine;
                    assert!(cosine >= 0.9995, "{spec} {case} in {dtype}: cosine {cosine}");
                    (least, count) = (least.min(cosine), count + 1);
                }
            }
            println!("{dtype} arithmetic on {spec}: {count} vectors, least cosine {least:.6}");
        }
    }
}

/// A bf16 record where bf16 has no arithmetic: f32 unless f16 is asked for, because activations may pass f16's range.
#[test]
fn a_bf16_record_computes_in_f32_where_bf16_has_no_arithmetic() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let record = checkpoint.record(Dtype::Bf16);
    let flex = Engine::builder(&record).dtype(Dtype::F32).open().unwrap();
    for spec in compiled() {
        let engine = Engine::builder(&record).device(spec).open().unwrap();
        let has = &engine.capabilities().dtypes;
        let (fast, has_f16) = (engine.capabilities().fast_low_precision, has.contains(&Dtype::F16));
        if fast && has.contains(&Dtype::Bf16) {
            assert_eq!(engine.profile().dtype, Dtype::Bf16, "{spec}");
            continue;
        }
        assert_eq!(engine.profile().dtype, Dtype::F32, "{spec}");
        for ((case, got, _), (_, want, _)) in
            vectors(&engine, &checkpoint, &[]).iter().zip(&vectors(&flex, &checkpoint, &[]))
        {
            compare(&format!("{spec} {case}"), got, want, BETWEEN_EMBEDDINGS);
        }
        if has_f16 {
            let asked = Engine::builder(&record).device(spec).dtype(Dtype::F16).open().unwrap();
            for (case, got, want) in vectors(&asked, &checkpoint, &[]) {
                let cosine = distance(&case, &got, &want).cosine;
                assert!(cosine >= 0.9995, "{spec} {case} in f16 from bf16: cosine {cosine}");
            }
        }
    }
}

/// Padding never shows: where intermediates are captured there is none, so the same rows go through with and without it.
#[test]
fn vectors_are_the_same_with_padding_and_without() {
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let checkpoint = golden().checkpoint(name);
        for spec in compiled() {
            let model = Model::open_on(&checkpoint.record(Dtype::F32), "retrieval", burn_device(spec));
            let sequences: Vec<Vec<u32>> = [5, 23, 1, 5, 40, 17].iter().map(|&n| (7..7 + n).collect()).collect();
            let texts = [vec![sequences[1].clone()], sequences];
            let through = || texts.iter().flat_map(|text| model.text(text)).collect::<Vec<_>>();
            let (without, captured) = omniburn_models::capture::collect(through);
            for (got, want) in through().iter().zip(&without) {
                compare(&format!("{spec} {name}"), &unit(got), &unit(want), COMPANY);
            }
            let rows = |name: &str| captured.iter().find(|c| c.name == name).unwrap().shape[0];
            assert_eq!(rows("backbone.layers.0"), 23, "no padding where intermediates are captured");
            assert_eq!(kernels::padding(23, &model.device), usize::from(spec.kind != BackendKind::Flex));
        }
    }
}

fn unit(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    row.iter().map(|v| (f64::from(*v) / length) as f32).collect()
}

#[test]
fn flex_is_always_among_the_backends() {
    assert_eq!(compiled()[0], BackendSpec::default());
    let _ = values(tensor([1, 2], 0, &Device::flex()));
}
