//! `omniburn bench` as its users run it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Run, golden, omniburn, run};

/// Fields of a line, in their order.
const FIELDS: [&str; 11] = [
    "case",
    "device",
    "dtype",
    "runs",
    "ms_min",
    "ms_median",
    "ms_p95",
    "items_per_s",
    "tokens_per_s",
    "gflops",
    "peak_rss_mib",
];

fn record(checkpoint: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = golden().join("checkpoints").join(checkpoint);
    let made = run(omniburn().arg("convert").arg(source).arg(folder.path().join("record")).args(["--dtype", "f32"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    folder
}

fn bench(folder: &TempDir, args: &[&str]) -> Run {
    run(omniburn().current_dir(folder).args(["bench", "--model", "record", "--seconds", "0.05"]).args(args))
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} of {line}"))
}

#[test]
fn each_case_is_a_line_of_the_promised_fields_whose_numbers_agree() {
    for checkpoint in ["omni-small-tiny", "omni-nano-tiny"] {
        let folder = record(checkpoint);
        let cases = "text:1x16,text:3x20,image:64,image:96x64,audio:1.5s,video:4x64";
        let found = bench(&folder, &["--cases", cases, "--warm-up", "1", "--threads", "1"]);
        assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{checkpoint}: {}", found.stdout);
        println!("{}", found.stdout);
        let lines = found.lines();
        let names: Vec<&str> = lines.iter().map(|line| line["case"].as_str().unwrap()).collect();
        assert_eq!(names.join(","), cases);
        let items = [1.0, 3.0, 1.0, 1.0, 1.0, 1.0];
        for ((line, text), items) in lines.iter().zip(found.stdout.lines()).zip(items) {
            let places: Vec<usize> = FIELDS.iter().map(|f| text.find(&format!("\"{f}\":")).expect(f)).collect();
            assert!(places.is_sorted() && line.as_object().unwrap().len() == FIELDS.len(), "{line}");
            assert_eq!((&line["device"], &line["dtype"]), (&"flex".into(), &"f32".into()));
            assert!(number(line, "runs") >= 3.0);
            let [least, median, p95] = ["ms_min", "ms_median", "ms_p95"].map(|field| number(line, field));
            assert!(least > 0.0 && least <= median && median <= p95, "{line}");
            // Both were rounded to a thousandth.
            let close = (number(line, "items_per_s") * median / 1000.0 - items).abs() / items;
            assert!(close < 0.01, "{line}");
            assert!(number(line, "gflops") > 0.0, "{line}");
            if cfg!(target_os = "linux") {
                assert!(number(line, "peak_rss_mib") > 1.0, "{line}");
            }
        }
        // Tokens are exactly those asked for.
        for (line, tokens) in lines.iter().zip([16.0, 60.0]) {
            let found = number(line, "tokens_per_s") * number(line, "ms_median") / 1000.0;
            assert!((found - tokens).abs() < 0.5, "{line}");
        }
    }
}

#[test]
fn without_cases_the_model_that_ships_is_timed_on_what_it_takes() {
    let found = run(omniburn().args(["bench", "--seconds", "0", "--warm-up", "0"]));
    assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{}", found.stdout);
    let names: Vec<String> = found.lines().iter().map(|line| line["case"].as_str().unwrap().to_string()).collect();
    // It reads 256 tokens at most.
    assert_eq!(names.join(" "), "text:1x16 text:1x128 text:16x128 image:512 image:1024 audio:10s video:8x256");
}

#[test]
fn a_case_that_the_model_cannot_take_is_a_line_with_an_error_and_the_others_are_timed() {
    let folder = record("bert-tiny");
    let found = bench(&folder, &["--cases", "image:64,text:1x8,text:1x60000,text:1x1,text:2000x4"]);
    assert_eq!(found.code, 1, "{} {}", found.stdout, found.stderr);
    println!("{}", found.stdout);
    let kinds: Vec<Value> = found.lines().iter().map(|line| line["error"]["kind"].clone()).collect();
    assert_eq!(kinds[0], "modality_absent");
    assert_eq!(kinds[1], Value::Null);
    assert_eq!(kinds[2], "too_long");
    assert_eq!(kinds.len(), 5);
    // No text is shorter than its two ends.
    assert_eq!(kinds[3], "bad_item");
    let without = bench(&folder, &["--warm-up", "0"]);
    assert_eq!(without.code, 0, "{}", without.stderr);
    assert!(without.lines().iter().all(|line| line["case"].as_str().unwrap().starts_with("text:")));
}

#[test]
fn the_peaks_of_the_machine_come_first() {
    let folder = record("omni-small-tiny");
    let found = bench(&folder, &["--peak", "--cases", "text:1x8"]);
    assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{}", found.stdout);
    println!("{}", found.stdout);
    let lines = found.lines();
    assert_eq!((lines.len(), &lines[0]["case"]), (2, &"peak".into()));
    assert!(number(&lines[0], "matmul_f32_gflops") > number(&lines[1], "gflops"));
    assert!(number(&lines[0], "memory_read_gb_per_s") > 0.1);
}

#[test]
fn what_is_typed_wrong_ends_with_2_and_a_missing_device_with_4() {
    let folder = record("omni-small-tiny");
    for wrong in [["--cases", "text:16"], ["--cases", "smell:3"], ["--seconds", "-1"], ["--threads", "0"]] {
        let found = bench(&folder, &wrong);
        assert_eq!((found.code, found.stdout.as_str()), (2, ""), "{wrong:?}: {}", found.stderr);
    }
    // No build of the tests has this one.
    assert_eq!(bench(&folder, &["--device", "metal"]).code, 4);
    assert_eq!(run(omniburn().args(["bench", "--model", "no/such/record"])).code, 2);
    assert_eq!(run(omniburn().arg("bench").arg("--model").arg(golden())).code, 3);
}

#[test]
#[cfg(unix)]
fn an_interrupted_bench_leaves_the_lines_of_what_is_done() {
    let folder = record("omni-small-tiny");
    let mut command = omniburn();
    command.current_dir(&folder).args(["bench", "--model", "record", "--cases", "text:1x8,text:1x16,text:1x9"]);
    let mut child = command.args(["--seconds", "0.2"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["case"], "text:1x8");
    // The case that was running has a line of the runs it had, if it had any; the last one has none.
    assert!(rest.len() <= 1 && rest.iter().all(|line| line["case"] == "text:1x16"), "{rest:?}");
}
