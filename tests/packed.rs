//! Packed layouts by their ids in a record's header: a record from before them opens with the same vectors, another layout that
//! is known is packed anew, and one that is not known is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omniburn::record::RecordHeader;
use omniburn::{Dtype, Engine, Input, RecordFolder, Role};
use omniburn_convert::TaskChoice;
use omniburn_kernels::cpu::affine::AffineFormat;
use omniburn_kernels::cpu::pack::{ColumnOrder, PanelFormat, PanelLayout};
use omniburn_models::RecordError;
use omniburn_models::record::{PartTensor, RecordWriter, TOKENIZER_FILE, TensorEntry};

use crate::support::*;

/// Checkpoints whose matrices are packed in both types; the second has gated MLPs, whose halves alternate.
const CHECKPOINTS: [&str; 2] = ["xlm-roberta-tiny", "qwen3-embedding-tiny"];

/// A copy of a record with another header, whose digest fits.
fn changed(record: &Path, change: impl FnOnce(&mut RecordHeader)) -> PathBuf {
    let copy = scratch().join(format!("packed-{}", next()));
    copy_folder(record, &copy);
    let mut header = open(record).header().clone();
    change(&mut header);
    header.digest = header.compute_digest();
    std::fs::write(copy.join("model.json"), serde_json::to_vec_pretty(&header).unwrap()).unwrap();
    copy
}

fn entries(header: &mut RecordHeader) -> impl Iterator<Item = &mut TensorEntry> {
    header.files.values_mut().flat_map(|file| file.tensors.values_mut())
}

fn vectors(record: &Path) -> Vec<Vec<f32>> {
    let engine = builder(record.to_path_buf()).open().unwrap();
    let inputs = ["a red bicycle", "x", "the quick brown fox jumps over the lazy dog"].map(Input::text);
    engine.embed(&inputs[..], Role::None).unwrap().into_iter().map(|found| found.into_vec()).collect()
}

/// Ids of the layouts of a record.
fn ids(record: &Path) -> Vec<String> {
    let mut header = open(record).header().clone();
    let mut ids: Vec<String> = entries(&mut header).filter_map(|entry| entry.layout.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[test]
fn every_packed_matrix_of_a_new_record_names_its_layout() {
    for (dtype, rows) in [(Dtype::F32, "16x1"), (Dtype::Bf16, "16x2"), (Dtype::Int8, "16x4")] {
        for checkpoint in CHECKPOINTS {
            let found = ids(&record(&golden().checkpoint(checkpoint).folder, dtype, TaskChoice::Default));
            assert!(!found.is_empty(), "{checkpoint} in {dtype}");
            for id in &found {
                assert!(id.starts_with(&format!("panel-{rows}")) && PanelLayout::IDS.contains(&id.as_str()), "{id}");
            }
        }
    }
}

#[test]
fn a_record_without_ids_opens_with_the_same_vectors_and_is_the_same_content() {
    for dtype in [Dtype::Bf16, Dtype::Int8] {
        for checkpoint in CHECKPOINTS {
            let new = record(&golden().checkpoint(checkpoint).folder, dtype, TaskChoice::Default);
            // As the first releases wrote it.
            let old = changed(&new, |header| {
                entries(header).for_each(|entry| entry.panels = entry.layout.take().is_some());
            });
            let text = std::fs::read_to_string(old.join("model.json")).unwrap();
            assert!(text.contains("\"panels\": true") && !text.contains("panel-16"), "{checkpoint}");
            assert_eq!(vectors(&old), vectors(&new), "{checkpoint} in {dtype}");
            let digest = |path: &Path| open(path).header().content_digest();
            assert_eq!(digest(&old), digest(&new), "{checkpoint} in {dtype}");
            open(&old).verify(|_| {}).unwrap();
        }
    }
}

/// As f32 was stored before it lay in panels: multiplied as it lies, by another kernel.
#[test]
fn a_record_in_f32_without_panels_opens_and_gives_the_same_vectors_but_for_rounding() {
    for checkpoint in CHECKPOINTS {
        let new = record(&golden().checkpoint(checkpoint).folder, Dtype::F32, TaskChoice::Default);
        let old = rewritten(&new, |_| None);
        assert!(ids(&old).is_empty());
        for (old, new) in vectors(&old).iter().zip(vectors(&new)) {
            let apart = old.iter().zip(&new).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-6, "{checkpoint}: {apart}");
        }
    }
}

#[test]
fn a_layout_that_is_not_known_is_refused_by_its_id_and_its_tensor() {
    let new = record(&golden().checkpoint(CHECKPOINTS[0]).folder, Dtype::Bf16, TaskChoice::Default);
    let refusal = |id: &str| {
        let mut name = String::new();
        let copy = changed(&new, |header| {
            let (tensor, entry) = header
                .files
                .values_mut()
                .flat_map(|file| file.tensors.iter_mut())
                .find(|(_, entry)| entry.layout.is_some())
                .unwrap();
            entry.layout = Some(id.into());
            name = tensor.clone();
        });
        match RecordFolder::open(&copy) {
            Err(error @ RecordError::PackedLayout { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&name) && text.contains(id) && text.contains("panel-16x2/1"), "{text}");
                assert!(Engine::open(&copy).is_err(), "{id}");
                None
            }
            Ok(record) => {
                assert!(Engine::open(&copy).is_err(), "{id}");
                let parts = record.parts();
                let mut errors = parts.iter().filter_map(|(file, specs)| record.part(file, specs).err());
                Some(errors.next().expect("a part is refused").to_string())
            }
            Err(other) => panic!("{id}: {other}"),
        }
    };
    for id in ["panel-16x2/2", "panel-32x2/1", "panel-16x2", ""] {
        assert_eq!(refusal(id), None, "{id} is no layout of this build");
    }
    // Known, and not this tensor's.
    for id in ["panel-16x4/1", "panel-16x1/1"] {
        let text = refusal(id).unwrap_or_else(|| panic!("{id} is a layout of this build"));
        assert!(text.contains(id) && text.contains("bf16"), "{text}");
    }
    let both = changed(&new, |header| entries(header).for_each(|entry| entry.panels = entry.layout.is_some()));
    let text = RecordFolder::open(&both).unwrap_err().to_string();
    assert!(text.contains("and panels"), "{text}");
}

/// The same record with its matrices in other panels, or in none.
fn rewritten(record: &Path, mut panels: impl FnMut(PanelLayout) -> Option<PanelLayout>) -> PathBuf {
    let original = open(record);
    let out = scratch().join(format!("packed-{}", next()));
    let mut writer = RecordWriter::create(&out, false).unwrap();
    for (file, specs) in original.parts() {
        let part = original.part(&file, &specs).unwrap();
        let mut tensors = Vec::new();
        for spec in &specs {
            let (dtype, bytes) = (part.dtype(&spec.name), part.bytes(&spec.name).to_vec());
            let panels = spec.panels(dtype).and_then(&mut panels);
            let tensor = PartTensor::new(&spec.name, dtype, spec.shape.clone(), move || Ok(bytes.clone()));
            tensors.push(tensor.in_panels(panels));
        }
        writer.write_part(&file, tensors, |_| {}).unwrap();
    }
    writer.copy_file(TOKENIZER_FILE, &original.tokenizer_path()).unwrap();
    writer.finish(original.header().clone()).unwrap();
    out
}

#[test]
fn a_matrix_in_another_known_layout_is_packed_anew() {
    let mut turned = 0;
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        for name in ["modernbert-tiny", "qwen3-embedding-tiny"] {
            let new = record(&golden().checkpoint(name).folder, dtype, TaskChoice::Default);
            // Gate and up side by side, where the kernels want them to alternate.
            let out = rewritten(&new, |layout| {
                turned += usize::from(layout.order == ColumnOrder::GateUp);
                Some(PanelLayout { order: ColumnOrder::Plain, ..layout })
            });
            assert!(ids(&out).iter().all(|id| !id.contains("gate-up")), "{name}");
            assert_eq!(vectors(&out), vectors(&new), "{name} in {dtype}");
        }
    }
    assert!(turned > 0, "some matrix of these checkpoints has gate and up alternating");
}

#[test]
fn every_id_is_a_layout_and_every_layout_has_an_id_of_its_own() {
    let mut found = BTreeMap::new();
    let affine = AffineFormat::ALL.map(PanelFormat::Affine);
    for format in [PanelFormat::F32, PanelFormat::Bf16, PanelFormat::Int8].into_iter().chain(affine) {
        for order in [ColumnOrder::Plain, ColumnOrder::GateUp] {
            let layout = PanelLayout::new(format, 48, 64, order);
            assert_eq!(PanelLayout::of_id(layout.id(), 48, 64), Some(layout));
            found.insert(layout.id(), layout);
        }
    }
    assert_eq!(found.len(), PanelLayout::IDS.len());
    assert_eq!(PanelLayout::of_id("panel-16x2-gate-up/1", 48, 48), None, "halves of 24 cannot alternate");
    assert_eq!(PanelLayout::of_id("panel-16x2/0", 48, 64), None);
}
