//! `omniburn doctor` as its users run it.

use std::fs;
use std::path::{Path, PathBuf};

use omniburn::kernels::{Isa, KernelChoice, KernelTime, Processor, TimedKernel};
use serde_json::Value;

use crate::support::{copy_folder, golden, omniburn, run, values};

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
    for part in ["an image", "audio ", "7 compared", "Under load", "background", "Instructions", "All is well."] {
        assert!(found.stdout.contains(part), "{part} is missing: {}", found.stdout);
    }
    println!("{}", found.stdout);
}

#[test]
fn any_record_is_examined_and_a_stored_vector_of_its_own_counts() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let source = golden().join("checkpoints/omni-nano-tiny");
    let made = run(omniburn().arg("convert").arg(source).arg(&record).args(["--dtype", "f32"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let path = record.to_str().unwrap();
    let (code, found, stderr) = report(&["--model", path]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{found}");
    assert_private(&found.to_string());
    assert!(!found.to_string().contains(folder.path().to_str().unwrap()), "{found}");
    assert_eq!((found["ok"].clone(), found["stored_vectors"].clone()), (true.into(), "none in this record".into()));
    assert_eq!(found["items"].as_array().unwrap().len(), 7);
    assert!(found["items"].as_array().unwrap().iter().all(|item| item["batched"] == 0.0 && item["ok"] == true));
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

/// The files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_choice_of_instructions_is_kept_until_it_is_asked_for_anew_and_what_is_damaged_is_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let source = golden().join("checkpoints/omni-nano-tiny");
    let made = run(omniburn().arg("convert").arg(source).arg(at("record")).args(["--dtype", "bf16"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let in_folder = |args: &[&str]| {
        let mut command = omniburn();
        command.current_dir(&folder).args(args);
        for name in ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"] {
            command.env(name, at("cache"));
        }
        run(&mut command)
    };
    let doctor = |args: &[&str]| {
        let found = in_folder(&[&["doctor", "--json", "--model", "record"], args].concat());
        assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{}", found.stdout);
        found.lines()[0]["instructions"].clone()
    };
    let cache = if cfg!(target_os = "macos") { at("cache/Library/Caches") } else { at("cache") };
    let kernels = cache.join("omniburn/kernels");
    let first = doctor(&[]);
    assert_eq!((&first["by"], &first["kept"]), (&"measured now".into(), &true.into()), "{first}");
    let sets = first["sets"].as_array().unwrap();
    assert_eq!(sets.len(), Isa::available().count());
    assert!(sets.iter().all(|set| set["ms"][0].as_f64() > Some(0.0) && set["cases"][0] == "text:1x16"), "{first}");
    assert!(sets.iter().any(|set| set["instructions"] == first["chosen"]) && first["behind"].as_f64() >= Some(1.0));
    let [file] = &files(&kernels)[..] else { panic!("one file of this processor: {:?}", files(&kernels)) };
    let again = doctor(&[]);
    assert_eq!((&again["by"], &again["chosen"]), (&"measured before".into(), &first["chosen"]), "{again}");
    assert_eq!(doctor(&["--measure-again"])["by"], "measured now");
    fs::write(file, "{}").unwrap();
    assert_eq!(doctor(&[])["by"], "measured now");
    assert_eq!(doctor(&[])["by"], "measured before");

    // Whatever is kept is used, and noted in journals; what is forced wins.
    let times = vec![KernelTime { isa: Isa::Portable, kernel: TimedKernel::F32Few, seconds: 1e-3 }];
    let choice = KernelChoice { isa: Isa::Portable, processor: Processor::here(), times };
    fs::write(file, serde_json::to_string(&choice).unwrap()).unwrap();
    let embed = |args: &[&str]| {
        let found = in_folder(&[&["embed", "--model", "record", "a red bicycle"], args].concat());
        assert_eq!((found.code, found.stderr.as_str()), (0, ""));
        values(&found.lines()[0])
    };
    let richest = Isa::available().last().unwrap().name();
    let kept = embed(&["--journal", "journal.jsonl"]);
    assert_eq!(kept, embed(&["--isa", "portable"]));
    let journal = fs::read_to_string(at("journal.jsonl")).unwrap();
    assert!(journal.contains("\"instructions\":\"portable\""), "{journal}");
    let forced = embed(&["--isa", richest]);
    assert!(richest == "portable" || forced != kept, "{richest} gives the bits of the portable set");
    assert_eq!(in_folder(&["inspect", "record", "--json"]).lines()[0]["computes"]["instructions"], "portable");
    // A journal is done again with its instructions, whatever is kept by then.
    fs::remove_file(file).unwrap();
    assert_eq!(embed(&[]), embed(&["--isa", Isa::by_flags().name()]));
    assert!(files(&kernels).is_empty(), "a single input measures nothing");
    let replayed = in_folder(&["replay", "journal.jsonl", "--model", "record", "a red bicycle"]);
    assert!(replayed.code == 0 && replayed.stderr.starts_with("1 equal, "), "{}", replayed.stderr);
    // A journal from before instructions were noted was computed with what the processor's flags say.
    embed(&["--journal", "old.jsonl"]);
    let old = fs::read_to_string(at("old.jsonl")).unwrap();
    let noted = format!(",\"instructions\":\"{}\"", Isa::by_flags());
    assert!(old.contains(&noted), "{old}");
    fs::write(at("old.jsonl"), old.replace(&noted, "")).unwrap();
    fs::write(file, serde_json::to_string(&choice).unwrap()).unwrap();
    let replayed = in_folder(&["replay", "old.jsonl", "--model", "record", "a red bicycle"]);
    assert!(replayed.code == 0 && replayed.stderr.starts_with("1 equal, "), "{}", replayed.stderr);
    fs::remove_file(file).unwrap();
    // A job of many inputs measures where there is something to choose.
    fs::write(at("items.jsonl"), "{\"text\":\"a\"}\n").unwrap();
    assert_eq!(in_folder(&["embed", "--model", "record", "--items", "items.jsonl"]).code, 0);
    assert_eq!(files(&kernels).len(), usize::from(Processor::here().has_choice()));
    // Where nothing can be kept, a job uses what the flags say, as every run after it will.
    let nowhere = run(omniburn().current_dir(&folder).args(["embed", "--model", "record", "--items", "items.jsonl"]));
    let flags = ["embed", "--model", "record", "--isa", Isa::by_flags().name(), "a"];
    assert_eq!(values(&nowhere.lines()[0]), values(&in_folder(&flags).lines()[0]));
}
