//! Every layout of both families gives exactly the tensors of a plain recomputation, with nothing left over.

use omniburn_convert::TaskChoice;
use omniburn_models::record::Dtype;
use serde_json::json;

use crate::support::*;

fn key_of(layout: Layout, task: &str) -> Option<String> {
    (layout == Layout::Tasks).then(|| task.replace('-', "_"))
}

fn assert_task(checkpoint: &Checkpoint, record: &Record, task: &str) {
    let lora = checkpoint.adapters.get(task).map(|lora| (lora, scale_of(task)));
    let key = key_of(checkpoint.layout, task);
    let rows = checkpoint.layout == Layout::Tasks;
    assert_part(record, &format!("text.{task}.bpk"), &expected_text(checkpoint, key.as_deref(), lora, rows));
}

#[test]
fn f32_records_of_every_layout_and_family_equal_the_plain_recomputation_to_the_bit() {
    for small in [true, false] {
        for layout in LAYOUTS {
            let checkpoint = Checkpoint::tiny(small, layout, Dtype::F32);
            let (report, record) = checkpoint.convert(TaskChoice::All, Dtype::F32);
            let tasks: &[&str] = if layout == Layout::Merged { &["clustering"] } else { &TASKS };
            assert_eq!(report.tasks, tasks);
            assert_part(&record, "towers.bpk", &expected_towers(&checkpoint));
            tasks.iter().for_each(|task| assert_task(&checkpoint, &record, task));
            let taken = checkpoint.arrays.len() - 1;
            assert_eq!((report.mapped, report.dropped.len()), (taken, 1), "{report}");
            assert!(report.dropped[0].name.contains("audio_bos_eos_token"));
            checkpoint.assert_header(&record);
        }
    }
}

#[test]
fn low_precision_records_round_each_value_of_the_f32_merge_once() {
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for stored in Dtype::FLOATS {
            let checkpoint = Checkpoint::tiny(true, Layout::Tasks, stored);
            let (_, record) = checkpoint.convert(TaskChoice::All, dtype);
            assert_part(&record, "towers.bpk", &expected_towers(&checkpoint));
            TASKS.iter().for_each(|task| assert_task(&checkpoint, &record, task));
        }
    }
}

#[test]
fn the_token_table_keeps_the_bytes_and_the_type_of_the_checkpoint() {
    for stored in Dtype::FLOATS {
        let checkpoint = Checkpoint::tiny(false, Layout::Mlx, stored);
        let (_, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        let table = &record.tensors("tokens.bpk")["embed_tokens.weight"];
        let expected = decode(stored, &checkpoint.arrays["language_model.embed_tokens.weight"].bytes);
        assert_eq!(table, &(stored, vec![checkpoint.dims.vocab, checkpoint.dims.hidden], expected));
    }
}

#[test]
fn a_merge_is_rounded_once_where_rounding_the_change_first_would_give_another_value() {
    // 1 + 2^-8 is the tie between 1 and the next bf16, 1 + 2^-7. The change lies a little above 2^-8, so the sum lies
    // above the tie; the change rounded first is 2^-8, and the tie goes to the even 1.
    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let (h, q) = (checkpoint.dims.hidden, checkpoint.dims.heads * checkpoint.dims.head_dim);
    let name = "language_model.layers.0.self_attn.q_proj";
    let (w, a, b) = (1.0f32, 1.0f32, 2f32.powi(-8) + 2f32.powi(-20));
    let once = through(Dtype::Bf16, w + b);
    let twice = through(Dtype::Bf16, through(Dtype::Bf16, w) + through(Dtype::Bf16, b));
    assert_ne!(once, twice, "the case tells the two apart");
    checkpoint.arrays.insert(format!("{name}.weight"), Array::new(Dtype::F32, &[q, h], &vec![w; q * h]));
    let lora = checkpoint.adapters.get_mut("retrieval").unwrap();
    let mut first = vec![0.0; 3 * h];
    first[..h].fill(a);
    let key = |half: &str| format!("base_model.model.{name}.{half}.weight");
    lora.arrays.insert(key("lora_A"), Array::new(Dtype::F32, &[3, h], &first));
    lora.arrays.insert(key("lora_B"), Array::new(Dtype::F32, &[q, 3], &vec![b; 3 * q]));
    let (_, record) = checkpoint.convert(TaskChoice::Default, Dtype::Bf16);
    let (_, shape, values) = &record.tensors("text.retrieval.bpk")["backbone.layers.0.self_attn.qkv_proj.weight"];
    for row in values.chunks_exact(shape[1]) {
        assert!(row[..q].iter().all(|&v| v == once), "{:?}", &row[..q]);
    }
}

#[test]
fn a_merged_checkpoint_gives_the_tensors_of_the_task_it_was_merged_from() {
    for small in [true, false] {
        let tasks = Checkpoint::tiny(small, Layout::Tasks, Dtype::F32);
        let mut merged_one = Checkpoint::tiny(small, Layout::Merged, Dtype::F32);
        let lora = &tasks.adapters["text-matching"];
        for (name, array) in merged_one.arrays.clone() {
            if name.starts_with("language_model.layers.") && array.shape.len() == 2 {
                let weight = merged(&tasks, &name, array.shape[1], Some((lora, 2.0)));
                merged_one.arrays.insert(name, Array::new(Dtype::F32, &array.shape, &weight));
            } else if name.starts_with("merger.") || name.starts_with("audio_projector.") {
                merged_one.arrays.insert(name.clone(), tasks.arrays[&per_task(&name, "text_matching")].clone());
            }
        }
        merged_one.config["task_names"] = json!(["text-matching"]);
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let force = |o: &mut omniburn_convert::ConvertOptions| {
                (o.dtype, o.force, o.tasks) = (dtype, true, TaskChoice::Named("text-matching".into()));
            };
            tasks.convert_with(force).unwrap();
            merged_one.convert_with(force).unwrap();
            let file = "text.text-matching.bpk";
            let (mut b, c) = (Record::open(&tasks.out()).tensors(file), Record::open(&merged_one.out()).tensors(file));
            assert!(b.remove("special_rows.weight").is_some());
            assert_eq!(b, c);
        }
    }
}

#[test]
fn prefixes_of_wrapping_exports_are_stripped() {
    for (from, to) in [("", "model."), ("language_model.", "language_model.model."), ("visual.", "model.visual.")] {
        let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
        let renamed = checkpoint.arrays.clone().into_iter().map(|(name, array)| match name.strip_prefix(from) {
            Some(rest) => (format!("{to}{rest}"), array),
            None => (name, array),
        });
        checkpoint.arrays = renamed.collect();
        let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        assert_eq!(report.dropped.len(), 1 + 3 * 9, "{report}");
        assert_part(&record, "towers.bpk", &expected_towers(&checkpoint));
        assert_task(&checkpoint, &record, "retrieval");
    }
}

#[test]
fn tensors_known_to_be_unused_are_dropped_each_with_its_reason() {
    let mut checkpoint = Checkpoint::tiny(false, Layout::Merged, Dtype::F32);
    let extra = [
        "lm_head.weight",
        "language_model.rotary_emb.inv_freq",
        "vision_tower.embeddings.position_ids",
        "language_model.embeddings.position_ids",
    ];
    for name in extra {
        let ids = Array { dtype: "I64", shape: vec![2], bytes: vec![0; 16] };
        checkpoint.arrays.insert(name.into(), ids);
    }
    let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    let mut names: Vec<&str> = report.dropped.iter().map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    let mut expected = [&extra[..], &["audio_tower.audio_bos_eos_token.weight"]].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let reason = |name: &str| report.dropped.iter().find(|d| d.name == name).unwrap().reason.clone();
    assert!(reason("lm_head.weight").contains("no head"));
    assert!(reason("language_model.rotary_emb.inv_freq").contains("computed"));
}

#[test]
fn an_early_export_with_two_projections_for_sound_is_folded_into_one() {
    for layout in [Layout::Merged, Layout::Tasks] {
        let mut checkpoint = Checkpoint::tiny(false, layout, Dtype::F32);
        let (d, a, middle) = (checkpoint.dims.hidden, checkpoint.dims.audio, 11);
        let own = if layout == Layout::Merged { "audio_projector" } else { "audio_projectors.retrieval" };
        let inner = values("inner", middle * a);
        let inner_bias = values("inner bias", middle);
        checkpoint.arrays.insert("audio_tower.proj.weight".into(), Array::new(Dtype::F32, &[middle, a], &inner));
        checkpoint.arrays.insert("audio_tower.proj.bias".into(), Array::new(Dtype::F32, &[middle], &inner_bias));
        let outer = values("outer", d * middle);
        checkpoint.arrays.insert(format!("{own}.weight"), Array::new(Dtype::F32, &[d, middle], &outer));
        let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        let task = report.default_task;
        let found = record.tensors(&format!("text.{task}.bpk"));
        let own_bias = checkpoint.torch(&format!("{own}.bias"));
        for o in 0..d {
            let mut bias = 0.0f32;
            for k in 0..middle {
                bias = outer[o * middle + k].mul_add(inner_bias[k], bias);
            }
            assert_eq!(found["audio_projector.bias"].2[o], bias + own_bias[o]);
            for i in 0..a {
                let mut sum = 0.0f32;
                for k in 0..middle {
                    sum = outer[o * middle + k].mul_add(inner[k * a + i], sum);
                }
                assert_eq!(found["audio_projector.weight"].2[i * d + o], sum);
            }
        }
    }
}

#[test]
fn a_projection_of_the_sound_tower_that_the_projector_does_not_read_is_dropped() {
    let mut checkpoint = Checkpoint::tiny(false, Layout::Merged, Dtype::F32);
    let a = checkpoint.dims.audio;
    checkpoint.arrays.insert("audio_tower.proj.weight".into(), Array::seeded(Dtype::F32, "p", &[11, a]));
    checkpoint.arrays.insert("audio_tower.proj.bias".into(), Array::seeded(Dtype::F32, "p", &[11]));
    let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    let dropped: Vec<&str> = report.dropped.iter().map(|d| d.name.as_str()).collect();
    assert!(dropped.contains(&"audio_tower.proj.weight") && dropped.contains(&"audio_tower.proj.bias"), "{report}");
}

#[test]
fn a_convolution_whose_two_orders_look_alike_is_read_as_the_rest_of_the_layout() {
    // With three mel bands conv1 has the same shape in both orders; the patch embedding has not, and decides.
    for layout in LAYOUTS {
        let mut checkpoint = Checkpoint::tiny(true, layout, Dtype::F32);
        let mut dims = checkpoint.dims.clone();
        dims.mels = 3;
        checkpoint.resize(dims);
        let (_, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        assert_part(&record, "towers.bpk", &expected_towers(&checkpoint));
    }
}

#[test]
fn where_no_convolution_tells_the_layout_adapters_beside_the_weights_do() {
    for (adapters, layout) in [(true, omniburn_convert::Layout::Mlx), (false, omniburn_convert::Layout::TorchMerged)] {
        let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
        checkpoint.arrays.retain(|name, _| name.starts_with("language_model."));
        if !adapters {
            checkpoint.adapters.clear();
        }
        assert_eq!(checkpoint.convert(TaskChoice::Default, Dtype::F32).0.layout, layout);
    }
}

#[test]
fn a_checkpoint_without_a_tower_gives_a_record_without_it() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    checkpoint.arrays.retain(|name, _| name.starts_with("language_model."));
    let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    assert!(report.notes.iter().any(|n| n.contains("no image tower")), "{report}");
    assert!(report.notes.iter().any(|n| n.contains("no audio tower")), "{report}");
    assert!(report.templates.is_empty());
    let config =
        record.folder.header().family.of::<omniburn_models::families::OmniConfig>().expect("a record of this family");
    assert!(config.vision.is_none() && config.audio.is_none());
    assert!(!record.folder.header().files.contains_key("towers.bpk"));

    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    checkpoint.arrays.retain(|name, _| !name.starts_with("audio_"));
    checkpoint.config.as_object_mut().unwrap().remove("audio_config");
    let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    assert_eq!(report.parameters.audio + report.parameters.projector, 0);
    assert_eq!(report.templates.len(), 2);
}
