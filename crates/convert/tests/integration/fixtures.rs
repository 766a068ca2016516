//! The tiny checkpoints of the shared folder, where this machine has it: every one converts and verifies in every type.

use std::path::Path;

use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use omniburn_models::record::Dtype;

use crate::support::Record;

#[test]
fn every_shared_omni_checkpoint_converts_and_verifies_in_every_type() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../../shared/fixtures/checkpoints");
    let Ok(entries) = folder.read_dir() else {
        println!("not run: {} is not on this machine", folder.display());
        return;
    };
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.starts_with("omni-")).collect();
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        for dtype in Dtype::FLOATS {
            let root = tempfile::tempdir().unwrap();
            let out = root.path().join("record");
            let mut options = ConvertOptions::new(folder.join(&name), &out);
            (options.tasks, options.dtype) = (TaskChoice::All, dtype);
            let report = convert(&options).unwrap();
            assert_eq!(report.tasks, ["retrieval", "text-matching", "clustering", "classification"], "{name}");
            let scales: Vec<f64> = report.lora.iter().map(|l| l.modules["q_proj"].scale.0).collect();
            assert_eq!(scales, [1.0, 2.0, 0.5, 2.0], "{name}");
            let record = Record::open(&out);
            assert_eq!(Some(&record.folder.header().digest), report.digest.as_ref());
        }
    }
}
