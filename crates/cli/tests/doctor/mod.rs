//! `omniburn doctor` as its users run it.

use std::fs;

use serde_json::Value;

use crate::support::{copy_folder, golden, omniburn, run};

fn report(args: &[&str]) -> (i32, Value, String) {
    let found = run(omniburn().arg("doctor").arg("--json").args(args));
    let lines = found.lines();
    assert_eq!(lines.len(), 1, "{}", found.stderr);
    (found.code, lines[0].clone(), found.stderr)
}

/// Nothing that tells whose machine it is.
fn assert_private(page: &str) {
    let home = std::env::home_dir().map(|home| home.display().to_string()).filter(|home| home.len() > 1);
    let here = golden().ancestors().nth(2).unwrap().display().to_string();
    let user = std::env::var("USER").ok().filter(|user| user.len() > 4);
    for secret in [home, Some(here), user].into_iter().flatten() {
        assert!(!page.contains(&secret), "{secret} is on the page: {page}");
    }
}

#[test]
fn the_model_that_ships_is_well_and_the_page_says_what_was_examined() {
    let found = run(omniburn().arg("doctor"));
    assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{}", found.stdout);
    assert_private(&found.stdout);
    for part in ["omniburn 0.", "processor", "memory", "FFmpeg", "Backends", "flex", "cuda", "attention", "convolution"]
    {
        assert!(found.stdout.contains(part), "{part} is missing: {}", found.stdout);
    }
    for part in ["a picture", "a sound", "7 compared", "Under load", "background", "All is well."] {
        assert!(found.stdout.contains(part), "{part} is missing: {}", found.stdout);
    }
    println!("{}", found.stdout);
}

#[test]
fn any_record_is_examined_and_a_stored_vector_of_its_own_counts() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let source = golden().join("twins/omni-nano-tiny");
    let made = run(omniburn().arg("convert").arg(source).arg(&record).args(["--dtype", "f32"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let path = record.to_str().unwrap();
    let (code, found, stderr) = report(&["--model", path]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{found}");
    assert_private(&found.to_string());
    assert!(!found.to_string().contains(folder.path().to_str().unwrap()), "{found}");
    assert_eq!((found["ok"].clone(), found["stored_vectors"].clone()), (true.into(), "none in this record".into()));
    assert_eq!(found["items"].as_array().unwrap().len(), 7);
    assert!(found["items"].as_array().unwrap().iter().all(|item| item["company"] == 0.0 && item["ok"] == true));
    assert!(found["kernels"].as_array().unwrap().len() > 50);
    assert!(found["load"]["query_loaded"]["count"].as_u64().unwrap() >= 5);
    assert!(found["load"]["background_hold"]["count"].as_u64().unwrap() > 0);
    let backends = found["backends"].as_array().unwrap();
    assert!(backends.iter().any(|b| b["name"] == "flex" && b["starts"] == true));
    assert_eq!(backends.len(), 6);

    fs::write(record.join("selftest.json"), r#"{"record": "0123", "task": "retrieval", "vectors": []}"#).unwrap();
    let (code, found, _) = report(&["--model", path]);
    assert_eq!(code, 1, "{found}");
    assert!(found["failures"][0].as_str().unwrap().contains("0123"), "{found}");
}

#[test]
fn a_changed_stored_vector_is_a_failed_check() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    copy_folder(&golden().join("../../models/mini/record"), &record);
    let file = record.join("selftest.json");
    let mut stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let vectors = stored["vectors"].as_array_mut().unwrap();
    let other = vectors[1]["embedding"].clone();
    vectors[0]["embedding"] = other;
    fs::write(&file, stored.to_string()).unwrap();
    let found = run(omniburn().args(["doctor", "--model", record.to_str().unwrap()]));
    assert_eq!((found.code, found.stderr.as_str()), (1, ""), "{}", found.stdout);
    assert!(found.stdout.contains("FAILED: one word is "), "{}", found.stdout);
    assert_eq!(found.stdout.matches("FAILED:").count(), 1, "{}", found.stdout);
}

#[test]
fn a_device_that_is_not_there_is_a_row_unless_it_is_asked_for() {
    // No build of the tests has this one.
    let (code, found, stderr) = report(&["--device", "metal"]);
    assert_eq!(code, 4, "{found}");
    assert!(stderr.contains("metal") && found["model"].is_null() && found["ok"] == false, "{stderr}");
    assert!(found["backends"].as_array().unwrap().iter().any(|b| b["name"] == "metal" && b["starts"] == false));
    let unknown = run(omniburn().args(["doctor", "--device", "abacus"]));
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    let nowhere = run(omniburn().args(["doctor", "--model", "no/such/record"]));
    assert_eq!(nowhere.code, 2, "{}", nowhere.stderr);
    let (code, ..) = report(&["--model", golden().to_str().unwrap()]);
    assert_eq!(code, 3);
}
