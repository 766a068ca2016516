//! What a run leaves behind: the record, or nothing.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use omniburn_models::RecordError;
use omniburn_models::record::Dtype;

use crate::support::*;

#[test]
fn a_check_reads_no_data_writes_nothing_and_still_reports() {
    let checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::Bf16);
    checkpoint.write();
    // Whatever data there is, a check does not see it: every byte after the headers becomes NaN.
    for file in fs::read_dir(checkpoint.folder()).unwrap().map(|e| e.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "safetensors") {
            let mut bytes = fs::read(&file).unwrap();
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[header..].fill(0xFF);
            fs::write(&file, bytes).unwrap();
        }
    }
    let mut options = checkpoint.options();
    (options.check, options.tasks) = (true, TaskChoice::All);
    let report = convert(&options).unwrap();
    checkpoint.assert_nothing_left();
    assert!(report.check && report.out.is_none() && report.digest.is_none());
    assert_eq!(report.parts.len(), 6);
    let text = report.to_string();
    assert!(text.contains("no data was read") && text.contains("special") | text.contains("adapter"), "{text}");
    assert!(report.lora.iter().flat_map(|l| l.modules.values()).all(|m| m.mean_relative_norm.is_none()));
    options.check = false;
    assert!(matches!(convert(&options).unwrap_err(), ConvertError::NonFinite { .. }));
}

#[test]
fn a_check_and_a_conversion_report_the_same_counts() {
    for layout in LAYOUTS {
        let checkpoint = Checkpoint::tiny(true, layout, Dtype::Bf16);
        checkpoint.write();
        let mut options = checkpoint.options();
        options.check = true;
        let check = convert(&options).unwrap();
        options.check = false;
        let done = convert(&options).unwrap();
        assert_eq!((check.mapped, check.merged, &check.dropped), (done.mapped, done.merged, &done.dropped));
        // A check reads no data, and so does not know how far rounding goes.
        assert!(check.parts.iter().all(|part| part.rounding.is_none()));
        assert!(done.parts.iter().any(|part| part.rounding.is_some()));
        let counts = |report: &ConvertReport| {
            let mut parts = report.parts.clone();
            parts.iter_mut().for_each(|part| part.rounding = None);
            parts
        };
        assert_eq!((check.parameters, &check.templates), (done.parameters, &done.templates));
        assert_eq!(counts(&check), counts(&done));
        let written: u64 = done.parts.iter().map(|p| p.bytes).sum();
        assert!(done.bytes_written > written, "the container and the tokenizer count too");
    }
}

#[test]
fn the_report_tells_scale_and_size_of_every_change() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let (report, _) = checkpoint.convert(TaskChoice::All, Dtype::F32);
    assert_eq!(report.merged, (7 + 7 + 2 + 7) * 2);
    for lora in &report.lora {
        let scale = f64::from(scale_of(&lora.task));
        let kinds: Vec<&str> = lora.modules.keys().map(String::as_str).collect();
        assert_eq!(kinds.len(), if lora.task == "clustering" { 2 } else { 7 }, "{kinds:?}");
        for (kind, module) in &lora.modules {
            assert_eq!((module.count, module.scale), (2, (scale, scale)), "{kind}");
            let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let ratios = (0..2).map(|i| {
                let at =
                    if ["gate_proj", "up_proj", "down_proj"].contains(&kind.as_str()) { "mlp" } else { "self_attn" };
                let name = format!("language_model.layers.{i}.{at}.{kind}.weight");
                let inputs = checkpoint.arrays[&name].shape[1];
                let plain = checkpoint.torch(&name);
                let with = merged(&checkpoint, &name, inputs, Some((&checkpoint.adapters[&lora.task], scale as f32)));
                let delta: Vec<f32> = with.iter().zip(&plain).map(|(a, b)| a - b).collect();
                norm(&delta) / norm(&plain)
            });
            let expected = ratios.sum::<f64>() / 2.0;
            let found = module.mean_relative_norm.unwrap();
            assert!((found - expected).abs() < 1e-5 * expected, "{kind}: {found} and {expected}");
        }
    }
    let text = report.to_string();
    for word in ["mlx", "retrieval", "q_proj", "digest", "parameters", "audio_bos_eos_token", "CC BY-NC 4.0"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["layout"], "mlx");
    assert_eq!(json["lora"][1]["modules"]["q_proj"]["scale"][0], 2.0);
}

#[test]
fn two_conversions_of_one_checkpoint_have_one_digest_and_another_type_another() {
    let checkpoint = Checkpoint::tiny(false, Layout::Tasks, Dtype::Bf16);
    let digest = |dtype| {
        let report = checkpoint.convert_with(|o| (o.dtype, o.force, o.tasks) = (dtype, true, TaskChoice::All));
        report.unwrap().digest.unwrap()
    };
    assert_eq!(digest(Dtype::Bf16), digest(Dtype::Bf16));
    assert_ne!(digest(Dtype::Bf16), digest(Dtype::F16));
}

#[test]
fn an_existing_destination_is_refused_without_force_and_early() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    fs::create_dir(checkpoint.out()).unwrap();
    // Early: nothing of the checkpoint is looked at, which is not even written yet.
    let error = convert(&checkpoint.options()).unwrap_err();
    assert!(matches!(error, ConvertError::Record(RecordError::Exists { .. })) && error.exit_code() == 2);
    let error = checkpoint.convert_with(|_| {}).unwrap_err();
    assert!(matches!(error, ConvertError::Record(RecordError::Exists { .. })));
    assert_eq!(fs::read_dir(checkpoint.out()).unwrap().count(), 0);
}

#[test]
fn force_replaces_a_record_and_nothing_else() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    fs::create_dir(checkpoint.out()).unwrap();
    fs::write(checkpoint.out().join("thesis.txt"), "years of work").unwrap();
    let error = checkpoint.convert_with(|o| o.force = true).unwrap_err();
    assert!(matches!(error, ConvertError::Record(RecordError::NotReplaceable { .. })) && error.exit_code() == 2);
    assert_eq!(fs::read_to_string(checkpoint.out().join("thesis.txt")).unwrap(), "years of work");
    fs::remove_dir_all(checkpoint.out()).unwrap();

    checkpoint.convert_with(|_| {}).unwrap();
    let before = Record::open(&checkpoint.out()).folder.header().digest.clone();
    let report = checkpoint.convert_with(|o| (o.force, o.dtype) = (true, Dtype::Bf16)).unwrap();
    assert_ne!(report.digest.as_ref(), Some(&before));
    assert_eq!(Record::open(&checkpoint.out()).folder.header().dtype, Dtype::Bf16);
    assert_eq!(fs::read_dir(checkpoint.root.path()).unwrap().count(), 2);

    // What somebody put into a record would be lost with it.
    fs::write(checkpoint.out().join("thesis.txt"), "years of work").unwrap();
    let error = checkpoint.convert_with(|o| o.force = true).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("thesis.txt, which would be lost"), "{error}");
    fs::remove_file(checkpoint.out().join("thesis.txt")).unwrap();
    fs::write(checkpoint.out().join("model.json"), "{\"modelTopology\": {}}").unwrap();
    let error = checkpoint.convert_with(|o| o.force = true).unwrap_err();
    assert!(error.to_string().contains("its model.json is not a record's"), "{error}");
    // A damaged record is one.
    fs::write(checkpoint.out().join("model.json"), "{\"format\": ").unwrap();
    checkpoint.convert_with(|o| o.force = true).unwrap();
}

#[test]
fn a_record_is_never_put_over_its_checkpoint_or_around_it() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let source = checkpoint.options().source;
    for out in [source.clone(), source.join("."), source.join(".."), source.join("adapters/new")] {
        let error = checkpoint.convert_with(|o| (o.out, o.force) = (out.clone(), true)).unwrap_err();
        assert!(matches!(error, ConvertError::Overlap { .. }) && error.exit_code() == 2, "{}: {error}", out.display());
    }
    checkpoint.convert_with(|o| o.out = source.join("record")).unwrap();
}

#[test]
#[cfg(unix)]
fn a_link_to_a_record_or_to_nothing_stays_and_its_folder_is_written() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let (real, link) = (checkpoint.root.path().join("real"), checkpoint.out());
    std::os::unix::fs::symlink("real", &link).unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        checkpoint.convert_with(|o| (o.force, o.dtype) = (dtype != Dtype::F32, dtype)).unwrap();
        assert!(link.is_symlink() && !real.is_symlink());
        assert_eq!(Record::open(&real).folder.header().dtype, dtype);
    }
    assert_eq!(fs::read_dir(checkpoint.root.path()).unwrap().count(), 3);
}

#[test]
fn a_failed_replacement_leaves_the_old_record_as_it_was() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    checkpoint.convert_with(|_| {}).unwrap();
    let before = Record::open(&checkpoint.out()).folder.header().clone();
    let array = checkpoint.arrays.get_mut("audio_tower.ln_post.weight").unwrap();
    array.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(checkpoint.convert_with(|o| o.force = true).is_err());
    assert_eq!(Record::open(&checkpoint.out()).folder.header(), &before);
    assert_eq!(fs::read_dir(checkpoint.root.path()).unwrap().count(), 2);
}

#[test]
fn a_cancelled_run_leaves_nothing_wherever_it_is() {
    let checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    checkpoint.write();
    // In the middle of writing, in the middle of checking, and before anything.
    for share in [0.25, 0.75, 0.0] {
        let mut options = checkpoint.options();
        options.tasks = TaskChoice::All;
        let cancel = Arc::clone(&options.cancel);
        if share == 0.0 {
            cancel.store(true, Ordering::Relaxed);
        }
        options.progress = Some(Arc::new(move |done, total| {
            if done as f64 > share * total as f64 {
                cancel.store(true, Ordering::Relaxed);
            }
        }));
        let error = convert(&options).unwrap_err();
        assert!(matches!(error, ConvertError::Cancelled), "{error}");
        assert_eq!(error.exit_code(), 130);
        checkpoint.assert_nothing_left();
    }
}

#[test]
fn progress_ends_at_the_total_it_announced() {
    let checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    let (highest, totals) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (h, t) = (Arc::clone(&highest), Arc::clone(&totals));
    let report = checkpoint.convert_with(move |o: &mut ConvertOptions| {
        let (h, t) = (Arc::clone(&h), Arc::clone(&t));
        o.progress = Some(Arc::new(move |done, total| {
            h.fetch_max(done, Ordering::Relaxed);
            t.lock().unwrap().push(total);
        }));
    });
    let totals = totals.lock().unwrap();
    assert!(totals.len() > 20 && totals.iter().all(|t| t == &totals[0]));
    assert_eq!(highest.load(Ordering::Relaxed), totals[0]);
    assert_eq!(totals[0], 2 * report.unwrap().parts.iter().map(|p| p.bytes).sum::<u64>());
}

#[test]
fn a_missing_source_is_a_usage_error_that_names_it() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let error = convert(&checkpoint.options()).unwrap_err();
    assert!(matches!(&error, ConvertError::SourceMissing { path } if path.ends_with("checkpoint")), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_byte_that_changes_on_its_way_to_disk_is_found_before_the_record_takes_its_place() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let mut options = checkpoint.write().options();
    let root = checkpoint.root.path().to_path_buf();
    let once = AtomicBool::new(false);
    options.progress = Some(Arc::new(move |done, total| {
        // Everything is written once the first byte is checked; the table comes first, so the towers are still to come.
        if done > total / 2 && !once.swap(true, Ordering::Relaxed) {
            let folders = fs::read_dir(&root).unwrap().map(|e| e.unwrap().path());
            let work = folders.map(|p| p.join("new")).find(|p| p.join("towers.bpk").is_file()).unwrap();
            let mut file = fs::OpenOptions::new().read(true).write(true).open(work.join("towers.bpk")).unwrap();
            let mut last = [0];
            file.seek(SeekFrom::End(-1)).unwrap();
            file.read_exact(&mut last).unwrap();
            file.seek(SeekFrom::End(-1)).unwrap();
            file.write_all(&[last[0] ^ 1]).unwrap();
        }
    }));
    let error = convert(&options).unwrap_err();
    assert!(matches!(&error, ConvertError::Record(RecordError::DigestMismatch { .. })), "{error}");
    checkpoint.assert_nothing_left();
}
