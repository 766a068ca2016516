//! Records of affine groups: how far each value is from its own, which types the tensors of such a record have, and that
//! their vectors depend on no batch mates.

use std::path::PathBuf;

use omniburn::{Dtype, Engine, Input, Role};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, KeepRule, TaskChoice, convert};
use omniburn_kernels::cpu::affine::{AffineFormat, from_f16};
use omniburn_kernels::cpu::pack::{ColumnOrder, PanelFormat, PanelLayout};
use omniburn_models::record::{PartTensor, RecordWriter, TOKENIZER_FILE, TensorRole};

use crate::support::*;

/// Encoders, a decoder whose gate and up alternate, a family with towers.
const CHECKPOINTS: [&str; 4] = ["xlm-roberta-tiny", "modernbert-tiny", "qwen3-embedding-tiny", "omni-small-tiny"];
const TYPES: [(Dtype, AffineFormat); 2] =
    [(Dtype::Affine8, AffineFormat::Eight64), (Dtype::Affine4, AffineFormat::Four64)];

fn kept(checkpoint: &str, dtype: Dtype, keep: &[&str]) -> (PathBuf, Result<ConvertReport, ConvertError>) {
    let out = scratch().join(format!("affine-{}", next()));
    let keep: Vec<KeepRule> = keep.iter().map(|rule| rule.parse().unwrap()).collect();
    let options = ConvertOptions { dtype, keep, ..ConvertOptions::new(golden().checkpoint(checkpoint).folder, &out) };
    (out, convert(&options))
}

fn texts() -> Vec<Input> {
    let long = "the quick brown fox jumps over the lazy dog ".repeat(5);
    ["a red bicycle", "x", "the harbour wall at dusk", long.as_str(), "x"].map(Input::text).to_vec()
}

fn vectors(engine: &Engine, inputs: &[Input]) -> Vec<Vec<f32>> {
    engine.embed(inputs, Role::None).unwrap().into_iter().map(|found| found.into_vec()).collect()
}

#[test]
fn no_value_of_a_record_is_further_than_half_a_scale_from_the_checkpoint_s() {
    for checkpoint in CHECKPOINTS {
        let folder = golden().checkpoint(checkpoint).folder;
        let exact = open(&record(&folder, Dtype::F32, TaskChoice::Default));
        for (dtype, format) in TYPES {
            let rounded = open(&record(&folder, dtype, TaskChoice::Default));
            let mut seen = 0;
            for (file, specs) in exact.parts() {
                let (a, b) = (exact.part(&file, &specs).unwrap(), rounded.part(&file, &specs).unwrap());
                for spec in specs.iter().filter(|spec| spec.role == TensorRole::Linear) {
                    let stored = b.dtype(&spec.name);
                    assert!(stored == dtype || stored == Dtype::Affine8, "{checkpoint}: {} in {stored}", spec.name);
                    let format = if stored == dtype { format } else { AffineFormat::Eight64 };
                    let packed = b.affine(&spec.name);
                    assert_eq!(packed.layout().format, PanelFormat::Affine(format));
                    let (groups, rows) = (spec.shape[0].div_ceil(64), packed.to_affine().unwrap());
                    let values: Vec<f32> =
                        a.bytes(&spec.name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    for (at, value) in values.iter().enumerate() {
                        let (input, output) = (at / spec.shape[1], at % spec.shape[1]);
                        let head = output * groups + input / 64;
                        let wide = |bits: &[u16]| f64::from(from_f16(bits[head]));
                        let (scale, offset) = (wide(&rows.scales), wide(&rows.offsets));
                        let code = f64::from(rows.codes[output * spec.shape[0] + input]);
                        let far = (f64::from(*value) - (code * scale + offset)).abs();
                        assert!(far <= scale / 2.0, "{checkpoint} {dtype} {}[{at}]: {far} of {scale}", spec.name);
                    }
                    seen += usize::from(stored == dtype);
                }
            }
            assert!(seen > 3, "{checkpoint} in {dtype}: {seen} matrices");
        }
    }
}

#[test]
fn vectors_of_affine_records_depend_on_no_company_and_are_those_of_the_rounded_weights() {
    for checkpoint in CHECKPOINTS {
        for (dtype, _) in TYPES {
            let path = record(&golden().checkpoint(checkpoint).folder, dtype, TaskChoice::Default);
            // As chosen: with rows of whole numbers.
            let engine = Engine::open(&path).unwrap();
            assert_eq!(engine.profile().dtype, Dtype::Int8, "{checkpoint} in {dtype}");
            let inputs = texts();
            let all = vectors(&engine, &inputs);
            let alone: Vec<Vec<f32>> =
                inputs.iter().map(|input| vectors(&engine, std::slice::from_ref(input)).remove(0)).collect();
            same(checkpoint, &all, &alone);
            let exact = builder(path).open().unwrap();
            same(
                checkpoint,
                &vectors(&exact, &inputs),
                &inputs.iter().map(|i| vectors(&exact, std::slice::from_ref(i)).remove(0)).collect::<Vec<_>>(),
            );
            for (got, want) in all.iter().zip(vectors(&exact, &inputs)) {
                // Attention rounds to bf16 beside whole numbers, where the processor multiplies such.
                let cosine = distance(checkpoint, got, &want).cosine;
                assert!(cosine > 0.9995, "{checkpoint} in {dtype}: {cosine}");
            }
        }
    }
}

#[test]
fn a_record_says_the_type_and_layout_of_each_tensor_and_the_report_the_size_and_distance_of_each_part() {
    let (out, report) = kept("omni-small-tiny", Dtype::Affine4, &[]);
    let report = report.unwrap();
    let folder = open(&out);
    folder.verify(|_| {}).unwrap();
    let ids: Vec<&str> =
        folder.header().files.values().flat_map(|f| f.tensors.values()).filter_map(|t| t.layout.as_deref()).collect();
    assert!(ids.contains(&"panel-16x2-affine4-g64-gate-up/1") && ids.contains(&"panel-16x2-affine8-g64/1"), "{ids:?}");
    for part in &report.parts {
        let stored: u64 = folder.header().files[&part.file].tensors.values().map(|tensor| tensor.bytes()).sum();
        assert_eq!(part.bytes, stored, "{}", part.file);
        let types: Vec<Dtype> = part.types.iter().map(|of| of.dtype).collect();
        match part.file.as_str() {
            "tokens.bpk" => assert_eq!(types, [Dtype::Int8]),
            // Convolutions over pixels and frames are in 8 bits.
            "towers.bpk" => assert_eq!(types, [Dtype::Affine8, Dtype::Affine4]),
            _ => assert!(types.contains(&Dtype::Affine4), "{types:?}"),
        }
        let rounding = part.rounding.as_ref();
        assert!(part.file == "tokens.bpk" || rounding.is_some_and(|r| r.relative > 0.0 && r.worst < 0.2), "{report}");
    }
    let text = report.to_string();
    assert!(text.contains("affine4") && text.contains("differs from f32 by"), "{text}");
}

#[test]
fn tensors_are_kept_in_other_types_by_name_and_rules_that_fit_nothing_are_refused() {
    let rules = [
        "*.down_proj.weight=affine8",
        "*.0.*.down_proj.weight=f32",
        "*qkv_proj.weight=bf16",
        "embed_tokens.weight=bf16",
    ];
    let (out, report) = kept("qwen3-embedding-tiny", Dtype::Affine4, &rules);
    report.unwrap();
    let folder = open(&out);
    let mut found = std::collections::BTreeMap::new();
    for (file, specs) in folder.parts() {
        let part = folder.part(&file, &specs).unwrap();
        found.extend(specs.iter().map(|spec| (spec.name.clone(), part.dtype(&spec.name))));
    }
    let ending = |end: &str| -> Vec<Dtype> {
        found.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, dtype)| *dtype).collect()
    };
    assert_eq!(ending("down_proj.weight")[..2], [Dtype::F32, Dtype::Affine8]);
    assert!(ending("qkv_proj.weight").iter().all(|dtype| *dtype == Dtype::Bf16));
    assert!(ending("gate_up_proj.weight").iter().all(|dtype| *dtype == Dtype::Affine4));
    assert_eq!(ending("embed_tokens.weight"), [Dtype::Bf16]);
    let engine = Engine::open(&out).unwrap();
    let (inputs, exact) = (texts(), golden().checkpoint("qwen3-embedding-tiny").folder);
    let exact = vectors(&builder(record(&exact, Dtype::F32, TaskChoice::Default)).open().unwrap(), &inputs);
    for (got, want) in vectors(&engine, &inputs).iter().zip(&exact) {
        let cosine = distance("kept", got, want).cosine;
        assert!(cosine > 0.9, "{cosine}");
    }
    for (dtype, rule, why) in [
        (Dtype::Affine4, "*.nothing=bf16", "no tensor"),
        (Dtype::Affine4, "*norm.weight=bf16", "always in f32"),
        (Dtype::Affine8, "*.down_proj.weight=f16", "may be in f32, bf16, affine8, affine4"),
        (Dtype::Affine8, "embed_tokens.weight=affine4", "may be in"),
        (Dtype::Bf16, "*.down_proj.weight=f32", "takes no exceptions"),
    ] {
        let (out, report) = kept("qwen3-embedding-tiny", dtype, &[rule]);
        let error = report.unwrap_err().to_string();
        assert!(error.contains(rule) && error.contains(why), "{error}");
        assert!(!out.exists());
    }
}

/// Gate and up side by side where the kernels want them to alternate, and groups of 32.
#[test]
fn affine_groups_in_another_known_layout_are_read_as_they_are() {
    let name = "qwen3-embedding-tiny";
    let new = record(&golden().checkpoint(name).folder, Dtype::Affine8, TaskChoice::Default);
    let original = open(&new);
    let out = scratch().join(format!("affine-{}", next()));
    let mut writer = RecordWriter::create(&out, false).unwrap();
    let mut turned = 0;
    for (file, specs) in original.parts() {
        let part = original.part(&file, &specs).unwrap();
        let mut tensors = Vec::new();
        for spec in &specs {
            let dtype = part.dtype(&spec.name);
            if dtype.is_affine() {
                let packed = part.affine(&spec.name);
                let layout = PanelLayout { order: ColumnOrder::Plain, ..*packed.layout() };
                turned += usize::from(layout != *packed.layout());
                let rows = packed.to_affine().unwrap();
                let make = move || Ok(omniburn_kernels::cpu::pack::Packed::from_affine(layout, &rows));
                tensors.push(PartTensor::packed(&spec.name, dtype, layout, make));
            } else {
                let bytes = part.bytes(&spec.name).to_vec();
                tensors.push(PartTensor::new(&spec.name, dtype, spec.shape.clone(), move || Ok(bytes.clone())));
            }
        }
        writer.write_part(&file, tensors, |_| {}).unwrap();
    }
    writer.copy_file(TOKENIZER_FILE, &original.tokenizer_path()).unwrap();
    writer.finish(original.header().clone()).unwrap();
    assert!(turned > 0);
    let vectors = |path: &PathBuf| vectors(&Engine::open(path).unwrap(), &texts());
    assert_eq!(vectors(&out), vectors(&new));
}

#[test]
fn affine_records_are_computed_in_two_types_and_the_others_are_refused_by_name() {
    let path = record(&golden().checkpoint(CHECKPOINTS[0]).folder, Dtype::Affine4, TaskChoice::Default);
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let error = Engine::builder(path.clone()).dtype(dtype).open().unwrap_err().to_string();
        assert!(error.contains("affine4") && error.contains(dtype.name()), "{error}");
    }
}
