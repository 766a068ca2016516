//! The command line as its users run it: the built program, on the tiny checkpoints of the tests.

mod bench;
mod doctor;
#[cfg(unix)]
mod exhaustion;
#[cfg(feature = "mini")]
mod find;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod kinds;
#[cfg(unix)]
mod outputs;
#[cfg(all(unix, feature = "postgres", feature = "serve", feature = "mini"))]
mod postgres;
#[cfg(feature = "hub")]
mod pull;
mod replay;
#[cfg(all(unix, feature = "serve", feature = "mini"))]
mod serve;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::{Case, Run, golden, item_line, media, omniburn, references, run, values, write_png_header};
use tempfile::TempDir;

const CHECKPOINTS: [&str; 2] = ["omni-small-tiny", "omni-nano-tiny-unified"];

/// A folder with a record of a checkpoint in `record`.
fn with_record(checkpoint: &str, options: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = golden().join("checkpoints").join(checkpoint);
    let convert = run(omniburn().arg("convert").arg(source).arg(folder.path().join("record")).args(options));
    assert_eq!((convert.code, convert.stderr.as_str()), (0, ""), "{}", convert.stdout);
    folder
}

fn small() -> TempDir {
    with_record("omni-small-tiny", &["--dtype", "f32"])
}

/// `omniburn VERB --model record ARGS…` in a folder.
fn verb(folder: &TempDir, verb: &str, args: &[&str]) -> Run {
    run(omniburn().current_dir(folder).args([verb, "--model", "record"]).args(args))
}

fn embed(folder: &TempDir, args: &[&str]) -> Run {
    verb(folder, "embed", args)
}

fn embed_items(folder: &TempDir, items: &str, args: &[&str]) -> Run {
    fs::write(folder.path().join("items.jsonl"), items).unwrap();
    embed(folder, &[&["--items", "items.jsonl"], args].concat())
}

fn kinds(run: &Run) -> Vec<String> {
    let kind = |line: Value| line["error"]["kind"].as_str().unwrap_or("ok").to_string();
    run.lines().into_iter().map(kind).collect()
}

/// Embeds cases of one task through `--items -` and compares them with the reference.
fn assert_cases(checkpoint: &str, folder: &TempDir, task: &str, cases: &[&Case]) {
    let tensors = fs::read(golden().join("refs").join(format!("{checkpoint}.safetensors"))).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let groups: BTreeSet<(&str, Option<u64>)> = cases.iter().map(|c| (c.role.as_str(), c.dim)).collect();
    for (role, dim) in groups {
        let cases: Vec<&&Case> = cases.iter().filter(|c| (c.role.as_str(), c.dim) == (role, dim)).collect();
        let items: String = cases.iter().map(|case| item_line(&case.tensor, &case.item)).collect();
        let mut command = omniburn();
        command.current_dir(folder).args(["embed", "--model", "record", "--items", "-", "--dtype", "f32"]);
        command.args(["--role", role, "--task", task]);
        command.args(dim.iter().flat_map(|dim| ["--dim".to_string(), dim.to_string()]));
        let found = support::run_with(&mut command, items.as_bytes());
        assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{checkpoint} {role} {task}: {}", found.stdout);
        let lines = found.lines();
        assert_eq!(lines.len(), cases.len());
        for (case, line) in cases.iter().zip(lines) {
            assert_eq!(line["id"], json!(case.tensor));
            assert_eq!(line["tokens"], json!(case.tokens), "{checkpoint} {}", case.tensor);
            let bytes = tensors.tensor(&case.tensor).unwrap().data().to_vec();
            let expected: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let found = values(&line);
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(found.len(), expected.len());
            assert!(worst <= 5e-6, "{checkpoint} {} is {worst} away", case.tensor);
        }
    }
}

#[test]
fn every_text_image_video_and_audio_of_the_reference_comes_out_as_there() {
    for checkpoint in CHECKPOINTS {
        let cases = references(checkpoint);
        let of = |kinds: &[&str], task: &str| -> Vec<&Case> {
            cases.iter().filter(|c| kinds.contains(&c.kind.as_str()) && c.task == task).collect()
        };
        let all = with_record(checkpoint, &["--dtype", "f32", "--task", "all"]);
        for task in ["retrieval", "text-matching", "clustering", "classification"] {
            let cases = of(&["text", "text_task", "image", "video", "audio"], task);
            assert!(cases.len() >= 3, "{checkpoint} {task}");
            assert!(task != "retrieval" || cases.iter().any(|c| c.kind == "audio"), "{checkpoint}");
            assert_cases(checkpoint, &all, task, &cases);
        }
        let base = with_record(checkpoint, &["--dtype", "f32", "--task", "none"]);
        assert_cases(checkpoint, &base, "base", &of(&["text_base"], "retrieval"));
        let bf16 = with_record(checkpoint, &["--dtype", "bf16"]);
        assert_cases(checkpoint, &bf16, "retrieval", &of(&["text_bf16_merge"], "retrieval"));
    }
}

/// A stored file of audio or video.
fn stored(name: &str) -> String {
    golden().join("media").join(name).to_str().unwrap().to_string()
}

#[test]
fn audio_video_animations_images_and_text_give_a_line_each_in_one_space() {
    for checkpoint in CHECKPOINTS {
        let folder = with_record(checkpoint, &["--dtype", "f32"]);
        let at = |from: &str, name: &str| fs::copy(stored(from), folder.path().join(name)).unwrap();
        at("audio/files/stereo.mp3", "talk.mp3");
        at("audio/files/stereo.m4a", "memo.m4a");
        at("videos/sound.mp4", "clip.mp4");
        moving_gif(&folder.path().join("loop.gif"));
        fs::copy(media("images/odd.png"), folder.path().join("photo.png")).unwrap();
        let args = ["talk.mp3", "memo.m4a", "clip.mp4", "loop.gif", "photo.png", "a red bicycle"];
        let found = embed(&folder, &args);
        assert_eq!((found.code, found.stderr.as_str()), (0, ""), "{checkpoint}: {}", found.stdout);
        let lines = found.lines();
        let modalities: Vec<&str> = lines.iter().map(|l| l["modality"].as_str().unwrap()).collect();
        assert_eq!(modalities, ["audio", "audio", "video", "video", "image", "text"], "{checkpoint}");
        for line in &lines {
            let values = values(line);
            assert_eq!(json!(values.len()), line["dim"]);
            let norm: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!((norm - 1.0).abs() < 1e-5, "{checkpoint}: {norm}");
            assert_eq!(line.get("segments"), None, "nothing here is long");
        }
        // The audio track of a video, and the first image of an animation, where they are asked for.
        let other = embed(&folder, &["--audio", "clip.mp4", "--image", "loop.gif", "--video", "clip.mp4"]);
        let other = other.lines();
        assert_eq!(other[0]["modality"], "audio");
        assert_eq!(other[1]["modality"], "image");
        assert_ne!(values(&other[1]), values(&lines[3]));
        assert_eq!(values(&other[2]), values(&lines[2]));
    }
}

/// An animation of two images of 32 x 32 pixels, two colours each, for half a second each.
fn moving_gif(path: &Path) {
    let mut gif = b"GIF89a\x20\0\x20\0\x80\0\0\xd0\x10\x30\x10\x40\xe0".to_vec();
    for first in [0u8, 1] {
        gif.extend(b"!\xf9\x04\0\x32\0\0\0,\0\0\0\0\x20\0\x20\0\0\x02");
        // Two bits a pixel left uncompressed: a clear code before every other pixel keeps codes at three bits.
        let mut bits: Vec<u8> = Vec::new();
        let mut push = |code: u8| bits.extend((0..3).map(|bit| code >> bit & 1));
        for pixel in 0..32 * 32u32 {
            if pixel % 2 == 0 {
                push(4);
            }
            push(if pixel / 32 < 16 { first } else { 1 - first });
        }
        push(5);
        let bytes: Vec<u8> =
            bits.chunks(8).map(|eight| eight.iter().enumerate().map(|(at, bit)| bit << at).sum()).collect();
        for block in bytes.chunks(255) {
            gif.push(block.len() as u8);
            gif.extend(block);
        }
        gif.push(0);
    }
    gif.push(b';');
    fs::write(path, gif).unwrap();
}

/// An audio of minutes in a few bytes: eight bits at the lowest rate that is read.
fn long_wav(path: &Path, seconds: usize) {
    let samples = seconds * 1000;
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\xe8\x03\0\0\xe8\x03\0\0\x01\0\x08\0data".to_vec();
    out.extend((samples as u32).to_le_bytes());
    out.extend((0..samples).map(|i| (128.0 + 90.0 * (i as f32 * (0.2 + i as f32 * 1e-6)).sin()) as u8));
    fs::write(path, out).unwrap();
}

#[test]
fn a_line_of_items_may_have_a_role_and_a_task_of_its_own() {
    let folder = with_record("omni-small-tiny", &["--dtype", "f32", "--task", "all"]);
    let text = "\"text\":\"a red bicycle\"";
    let items = format!(
        "{{{text}}}\n{{{text},\"role\":\"query\"}}\n{{{text},\"role\":\"none\",\"task\":\"clustering\"}}\n\
         {{{text},\"task\":\"juggling\"}}\n{{{text},\"role\":\"quarry\"}}\n{{{text},\"task\":null}}\n\
         {{{text},\"task\":\"clustering\"}}\n"
    );
    let found = embed_items(&folder, &items, &["--journal", "journal.jsonl"]);
    assert_eq!(
        (found.code, kinds(&found)),
        (1, ["ok", "ok", "ok", "bad_item", "bad_item", "bad_item", "ok"].map(String::from).to_vec())
    );
    let lines = found.lines();
    let alone = |args: &[&str]| values(&embed(&folder, &[&["a red bicycle"], args].concat()).lines()[0]);
    assert_eq!(values(&lines[0]), alone(&[]));
    assert_eq!(values(&lines[1]), alone(&["--role", "query"]));
    assert_eq!(values(&lines[2]), alone(&["--role", "none", "--task", "clustering"]));
    assert_eq!(values(&lines[6]), alone(&["--task", "clustering"]));
    assert_ne!(values(&lines[0]), values(&lines[1]));
    assert_ne!(values(&lines[0]), values(&lines[6]));
    let said = |i: usize| lines[i]["error"]["message"].as_str().unwrap().to_string();
    assert!(said(3).contains("no task `juggling` in this record"), "{}", said(3));
    assert!(said(4).contains("expected one of `query`, `document`, `none`"), "{}", said(4));
    let again = verb(&folder, "replay", &["journal.jsonl", "--items", "items.jsonl"]);
    assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);
}

#[test]
fn long_sound_is_one_line_with_its_number_of_segments_or_a_line_each_with_times() {
    let folder = small();
    long_wav(&folder.path().join("talk.wav"), 250);
    let items = "{\"text\":\"before\"}\n{\"id\":\"t\",\"audio\":\"talk.wav\"}\n{\"audio\":\"none.wav\"}\n";
    let whole = embed_items(&folder, items, &[]);
    assert_eq!(kinds(&whole), ["ok", "ok", "not_found"]);
    let whole = whole.lines();
    assert_eq!(whole[1]["segments"], json!(2));
    assert_eq!((whole[1].get("start_s"), whole[0].get("segments")), (None, None));

    let pieces = embed_items(&folder, items, &["--segments"]);
    assert_eq!(pieces.code, 1);
    let order: Vec<&str> =
        pieces.stdout.lines().map(|line| line.split_once("\"dim\"").unwrap_or((line, "")).0).collect();
    assert_eq!(order.len(), 4);
    assert!(order[0].starts_with("{\"index\":0,\"modality\":\"text\""), "{}", order[0]);
    for (line, times) in [(1, "\"start_s\":0.0,\"end_s\":240.0,"), (2, "\"start_s\":240.0,\"end_s\":250.0,")] {
        assert!(order[line].starts_with("{\"index\":1,\"id\":\"t\",\"modality\":\"audio\""), "{}", order[line]);
        assert!(order[line].ends_with(times), "{}", order[line]);
    }
    assert!(order[3].contains("\"index\":2,\"error\""), "{}", order[3]);
    let pieces = pieces.lines();
    let tokens = |line: &Value| line["tokens"].as_u64().unwrap();
    assert_eq!(tokens(&whole[1]), tokens(&pieces[1]) + tokens(&pieces[2]));
    let mean: Vec<f64> =
        values(&pieces[1]).iter().zip(values(&pieces[2])).map(|(a, b)| f64::from(*a) + f64::from(b)).collect();
    let norm = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
    for (mean, whole) in mean.iter().zip(values(&whole[1])) {
        assert!((mean / norm - f64::from(whole)).abs() < 1e-6);
    }
    // Rows of an array have no place for times.
    let refused = embed(&folder, &["--segments", "--format", "npy", "--out", "o.npy", "talk.wav"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("--segments"), "{}", refused.stderr);
}

#[test]
fn frames_of_a_video_are_as_many_as_asked_for() {
    let folder = small();
    let video = stored("videos/high.mp4");
    let tokens =
        |args: &[&str]| embed(&folder, &[args, &[video.as_str()]].concat()).lines()[0]["tokens"].as_u64().unwrap();
    let [default, two, all] = [&[][..], &["--frames", "2"], &["--frames", "32"]].map(tokens);
    assert_eq!(default, all);
    assert_ne!(default, two);
    // A video smaller than a patch, as the published processor refuses it.
    let small = embed(&folder, &[&stored("animations/parts.gif")]);
    let message = small.lines()[0]["error"]["message"].to_string();
    assert_eq!(kinds(&small), ["too_short"]);
    assert!(message.contains("parts.gif: found frames of 40 x 30 pixels, expected at least 32"), "{message}");
    for bad in ["0", "-1", "many"] {
        assert_eq!(embed(&folder, &["--frames", bad, &video]).code, 2, "{bad}");
    }
    let many = embed(&folder, &["--frames", "4000000000", &video]);
    assert_eq!((many.code, kinds(&many)), (1, vec!["too_long".to_string()]), "{}", many.stdout);
}

#[test]
fn films_that_are_not_read_are_named_and_cost_nothing_else() {
    let folder = small();
    let (hevc, turned) = (stored("codecs/hevc.mp4"), stored("videos/turned90.mp4"));
    // No FFmpeg program is found on an empty path.
    let mut command = omniburn();
    command.current_dir(&folder).env("PATH", "").args(["embed", "--model", "record", "--frames", "4", &hevc, &turned]);
    let found = run(&mut command);
    assert_eq!((found.code, kinds(&found)), (1, vec!["unsupported_codec".into(), "ok".into()]));
    assert!(found.lines()[0]["error"]["message"].as_str().unwrap().contains("HEVC"), "{}", found.stdout);
}

#[test]
fn lines_have_the_promised_fields_in_order_and_numbers_read_back_to_the_same_f32() {
    let folder = small();
    let found = embed_items(&folder, "{\"id\":\"x\",\"text\":\"a red bicycle\"}\n{\"text\":\"another\"}\n", &[]);
    let lines: Vec<&str> = found.stdout.lines().collect();
    let start =
        "{\"index\":0,\"id\":\"x\",\"modality\":\"text\",\"tokens\":18,\"truncated\":false,\"dim\":64,\"embedding\":[";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    assert!(lines[1].starts_with("{\"index\":1,\"modality\":\"text\",\"tokens\":"), "{}", lines[1]);
    assert!(lines[0].ends_with("]}"));
    // The array has the bits; the JSON must give the same ones.
    let array = embed_items(
        &folder,
        "{\"text\":\"a red bicycle\"}\n{\"text\":\"another\"}\n",
        &["--format", "npy", "--out", "o.npy"],
    );
    assert_eq!((array.code, array.stdout.as_str()), (0, ""));
    let (shape, stored) = support::read_npy(&folder.path().join("o.npy"));
    assert_eq!(shape, [2, 64]);
    let read: Vec<u32> = found.lines().iter().flat_map(values).map(f32::to_bits).collect();
    assert_eq!(read, stored.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    // The shortest form of an f32 has at most nine digits.
    let digits = |n: &str| n.split('e').next().unwrap().trim_start_matches(['-', '0', '.']).replace('.', "").len();
    let numbers = lines[0].split_once("\"embedding\":[").unwrap().1.trim_end_matches("]}");
    assert!(numbers.split(',').all(|n| digits(n) <= 9), "{numbers}");
}

#[test]
fn inputs_keep_the_order_in_which_they_were_typed() {
    let folder = small();
    let image = media("images/odd.png");
    let text_file = folder.path().join("note.txt");
    fs::write(&text_file, "a red bicycle\n").unwrap();
    let args = ["a red bicycle", "--image", &image, "--text", &image, &image, "note.txt", "bicycle"];
    let found = embed(&folder, &args);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let lines = found.lines();
    let modalities: Vec<&str> = lines.iter().map(|l| l["modality"].as_str().unwrap()).collect();
    assert_eq!(modalities, ["text", "image", "text", "image", "text", "text"]);
    assert_eq!(values(&lines[1]), values(&lines[3]));
    assert_eq!(values(&lines[0]), values(&lines[4]));
    assert_ne!(values(&lines[0]), values(&lines[5]));
}

#[test]
fn a_failed_input_costs_its_own_line_and_no_bit_of_the_others() {
    let folder = small();
    let image = media("images/wide.png");
    let good = format!("{{\"text\":\"one\"}}\n{{\"image\":\"{image}\"}}\n{{\"text\":\"two two\"}}\n");
    let alone = embed_items(&folder, &good, &[]);
    fs::write(folder.path().join("broken.png"), &fs::read(&image).unwrap()[..60]).unwrap();
    let mixed = format!(
        "{{\"text\":\"one\"}}\n{{oops\n{{\"image\":\"{image}\"}}\n{{\"image\":\"broken.png\"}}\n\n{{\"text\":\"two two\"}}\n"
    );
    let beside = embed_items(&folder, &mixed, &[]);
    assert_eq!((alone.code, beside.code), (0, 1));
    assert_eq!(kinds(&beside), ["ok", "bad_item", "ok", "corrupt", "ok"]);
    let (alone, beside) = (alone.lines(), beside.lines());
    for (a, b) in [(0, 0), (1, 2), (2, 4)] {
        assert_eq!(beside[b]["index"], json!(b));
        assert_eq!(values(&alone[a]), values(&beside[b]));
    }
    let order: Vec<Value> = beside.iter().map(|l| l["index"].clone()).collect();
    assert_eq!(order, [json!(0), json!(1), json!(2), json!(3), json!(4)]);
}

#[test]
fn every_bad_file_has_its_kind_and_names_itself() {
    let folder = small();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("photos")).unwrap();
    fs::write(at("noise.png"), [7u8; 300]).unwrap();
    fs::write(at("noise"), [7u8; 300]).unwrap();
    fs::write(at("words.png"), "these are words").unwrap();
    fs::write(at("phone.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs::write(at("phone.avif"), b"\0\0\0\x18ftypavif\0\0\0\0mif1avif").unwrap();
    fs::write(at("cut.png"), &fs::read(media("images/square.png")).unwrap()[..70]).unwrap();
    fs::write(at("empty.png"), "").unwrap();
    fs::write(at("report.pdf"), "%PDF-1.7 and so on").unwrap();
    write_png_header(&at("vast.png"), 60_000, 60_000);
    let cases = [
        ("missing.png", "not_found", "no such file"),
        ("missing/folder", "not_found", "no such file"),
        ("photos", "not_a_file", "index"),
        ("noise.png", "unknown_format", "expected an image"),
        ("noise", "unknown_format", "expected an image"),
        ("words.png", "unknown_format", "text"),
        ("phone.heic", "unsupported_codec", "heic"),
        ("phone.avif", "unsupported_codec", "avif"),
        ("cut.png", "corrupt", "png"),
        ("empty.png", "empty", "found nothing"),
        ("report.pdf", "unknown_format", "pdf"),
        ("vast.png", "too_large", "60000 x 60000"),
    ];
    let names: Vec<&str> = cases.iter().map(|c| c.0).collect();
    let typed = embed(&folder, &names);
    let items: String = names.iter().map(|name| item_line(name, &json!({ "image": name }))).collect();
    let items = embed_items(&folder, &items, &[]);
    for found in [&typed, &items] {
        assert_eq!(found.code, 1);
        for (line, (name, kind, said)) in found.lines().iter().zip(cases) {
            assert_eq!(line["error"]["kind"], kind, "{name}: {line}");
            let message = line["error"]["message"].as_str().unwrap();
            assert!(message.contains(name) && message.contains(said), "{name}: {message}");
            assert!(!line.as_object().unwrap().contains_key("embedding"));
        }
    }
    assert_eq!(items.lines()[0]["id"], "missing.png");
}

#[test]
fn malformed_items_fail_one_by_one() {
    let folder = small();
    let items = b"\xef\xbb\xbf{\"text\":\"a\"}\r\n\r\n{\"text\":\"a\",\"image\":\"b\"}\n{\"id\":5,\"texts\":\"a\"}\n{\"text\":7}\n\
        {}\nnull\n{\"text\":\"\xff\"}\n{\"text\":\"a\",\"id\":12345678901234567890123}\n{\"id\":[],\"text\":\"a\"}";
    fs::write(folder.path().join("items.jsonl"), items).unwrap();
    let found = embed(&folder, &["--items", "items.jsonl"]);
    assert_eq!(found.code, 1);
    let bad = "bad_item";
    assert_eq!(kinds(&found), ["ok", bad, bad, bad, bad, bad, bad, "ok", bad]);
    assert_eq!(found.lines()[2]["id"], 5);
    assert!(found.stdout.contains("{\"index\":7,\"id\":12345678901234567890123,\"modality\""));
    assert!(found.lines()[1]["error"]["message"].as_str().unwrap().starts_with("items.jsonl line 3: "));
}

#[test]
fn a_video_is_a_list_of_frames_and_its_items_lie_beside_the_items_file() {
    let folder = small();
    fs::create_dir_all(folder.path().join("clips")).unwrap();
    for n in 0..3 {
        fs::copy(media(&format!("video/clip3_{n}.png")), folder.path().join(format!("clips/{n}.png"))).unwrap();
    }
    let items = "{\"video\":[\"0.png\",\"1.png\",\"2.png\"]}\n{\"video\":[]}\n{\"video\":[\"0.png\",\"9.png\"]}\n\
                 {\"audio\":\"0.png\"}\n";
    fs::write(folder.path().join("clips/items.jsonl"), items).unwrap();
    let found = embed(&folder, &["--items", "clips/items.jsonl"]);
    assert_eq!(kinds(&found), ["ok", "empty", "not_found", "unknown_format"]);
    assert_eq!(found.lines()[0]["modality"], "video");
    assert_eq!(found.code, 1);
}

#[test]
fn a_text_too_long_is_refused_with_both_lengths_or_cut_as_asked() {
    let folder = small();
    let long = "word ".repeat(5000);
    fs::write(folder.path().join("long.txt"), &long).unwrap();
    let refused = embed(&folder, &["long.txt", "short"]);
    assert_eq!(kinds(&refused), ["too_long", "ok"]);
    assert!(refused.stdout.contains("4096"));
    let mut cut = Vec::new();
    for side in ["right", "left"] {
        let found = embed(&folder, &["--truncate", side, "long.txt"]);
        assert_eq!(found.code, 0);
        assert_eq!((&found.lines()[0]["truncated"], &found.lines()[0]["tokens"]), (&json!(true), &json!(4096)));
        cut.push(values(&found.lines()[0]));
    }
    assert_ne!(cut[0], cut[1]);
}

#[test]
fn usage_mistakes_end_with_two_and_say_what_there_is() {
    let folder = small();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let model = ["--model", "record", "a"];
    let cases: &[(&[&str], &str)] = &[
        (&["embed", "--model", "nowhere", "a"], "omniburn convert"),
        (&["embed", "--model", "record"], "nothing to embed"),
        (&["embed", "--task", "poetry", model[0], model[1], model[2]], "retrieval"),
        (&["embed", "--dim", "7", model[0], model[1], model[2]], "8, 16, 32, 64"),
        (&["embed", "--device", "abacus", model[0], model[1], model[2]], "flex"),
        (&["embed", "--budget", "lots", model[0], model[1], model[2]], "512MiB"),
        (&["embed", "--threads", "0", model[0], model[1], model[2]], "threads"),
        (&["embed", "--truncate", "both", model[0], model[1], model[2]], "right"),
        (&["embed", "--role", "king", model[0], model[1], model[2]], "document"),
        (&["embed", "--format", "npy", model[0], model[1], model[2]], "--out"),
        (&["embed", "--out", "sub", model[0], model[1], model[2]], "folder"),
        (&["embed", "--out", "none/x", model[0], model[1], model[2]], "none/x"),
        (&["embed", "--items", "nowhere.jsonl", model[0], model[1]], "nowhere.jsonl"),
        (&["embed", "--items", "sub", model[0], model[1]], "folder"),
        (&["embed", "--items", "-", "--lines", model[0], model[1]], "standard input"),
        (&["compare", model[0], model[1], model[2]], "at least one B"),
        (&["convert", "nowhere", "out"], "no such folder"),
        (&["convert", "record"], "OUT"),
        (&["convert", "record", "out", "--template", "image"], "MODALITY=NAME"),
        (&["inspect", "nowhere"], "no such folder"),
        (&["models", "--records", "nowhere"], "no such folder"),
        (&["dance"], "dance"),
        (&["embed", "--log", "a=b=c", "--model", "record", "a"], "log level"),
    ];
    for (args, said) in cases {
        let found = run(omniburn().current_dir(&folder).args(*args));
        assert_eq!(found.code, 2, "{args:?}: {} {}", found.stdout, found.stderr);
        assert!(found.stderr.contains(said), "{args:?}: {}", found.stderr);
        assert_eq!(found.stdout, "", "{args:?}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn flex_touches_no_cache_folder() {
    assert!(!embeds_and_keeps_tuning(&small(), "flex"));
}

#[test]
#[cfg(feature = "wgpu")]
fn tuning_is_kept_in_the_users_cache() {
    assert!(embeds_and_keeps_tuning(&small(), "wgpu"));
}

/// Runs `embed` where everything that names a user's folders points into an absent one; whether tuning is kept there then.
fn embeds_and_keeps_tuning(folder: &TempDir, device: &str) -> bool {
    let cache = folder.path().join("cache");
    let mut command = omniburn();
    command.current_dir(folder).args(["embed", "--model", "record", "--dtype", "f32", "--device", device, "a"]);
    for name in ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"] {
        command.env(name, &cache);
    }
    let found = run(command.env("MESA_SHADER_CACHE_DISABLE", "true"));
    assert_eq!(found.code, 0, "{}", found.stderr);
    let kept = if cfg!(target_os = "macos") { cache.join("Library/Caches") } else { cache.clone() };
    let kept = kept.join("omniburn/tuning/tuning.db").is_file();
    assert_eq!(kept, cache.exists(), "nothing else is written there");
    kept
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_is_not_compiled_in_ends_with_four() {
    let folder = small();
    let found = embed(&folder, &["--device", "cuda:1", "a"]);
    assert_eq!((found.code, found.stdout.as_str()), (4, ""));
    assert!(found.stderr.contains("--features cuda"), "{}", found.stderr);
}

#[test]
fn a_record_altered_by_one_byte_or_cut_is_refused_by_every_verb() {
    let folder = small();
    let record = folder.path().join("record");
    let image = media("images/square.png");
    let mut files: Vec<_> = fs::read_dir(&record).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 5);
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_string();
        let whole = fs::read(&file).unwrap();
        let mut altered = whole.clone();
        let at = whole.len() * 2 / 3;
        altered[at] ^= 1;
        for content in [&altered[..], &whole[..whole.len() - 1]] {
            // The last byte of the header is a line break, which means nothing.
            if name == "model.json" && content.len() < whole.len() {
                continue;
            }
            fs::write(&file, content).unwrap();
            let runs = [
                embed(&folder, &["a", &image]),
                verb(&folder, "compare", &["a", &image]),
                run(omniburn().current_dir(&folder).args(["inspect", "record", "--verify"])),
            ];
            for found in runs {
                assert_eq!((found.code, found.stdout.as_str()), (3, ""), "{name}: {}", found.stderr);
                assert!(found.stderr.contains(&name), "{name}: {}", found.stderr);
            }
        }
        fs::write(&file, whole).unwrap();
    }
    assert_eq!(embed(&folder, &["a", &image]).code, 0);
}

#[test]
fn verify_names_the_tensor_that_was_altered() {
    let folder = small();
    let towers = folder.path().join("record/towers.bpk");
    let mut bytes = fs::read(&towers).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 0x80;
    fs::write(&towers, bytes).unwrap();
    let found = run(omniburn().current_dir(&folder).args(["inspect", "record", "--verify"]));
    assert_eq!(found.code, 3);
    assert!(
        found.stderr.contains("towers.bpk: vision.") || found.stderr.contains("towers.bpk: audio."),
        "{}",
        found.stderr
    );
}

#[test]
fn what_is_no_record_is_refused_with_three() {
    let folder = small();
    fs::create_dir(folder.path().join("nothing")).unwrap();
    let checkpoint = golden().join("checkpoints/omni-small-tiny");
    let checkpoint = checkpoint.to_str().unwrap();
    for (args, said) in [
        (["embed", "--model", "nothing", "a"], "not a record folder"),
        (["embed", "--model", checkpoint, "a"], "omniburn convert"),
        (["inspect", "nothing", "--log", "warn"], "neither a record"),
        (["convert", "nothing", "out", "--check"], "config.json"),
    ] {
        let found = run(omniburn().current_dir(&folder).args(args));
        assert_eq!(found.code, 3, "{args:?}: {}", found.stderr);
        assert!(found.stderr.contains(said), "{args:?}: {}", found.stderr);
    }
}

#[test]
fn an_existing_record_is_replaced_only_when_forced_and_a_refused_one_leaves_it() {
    let folder = small();
    let checkpoint = golden().join("checkpoints/omni-small-tiny");
    let convert = |source: &Path, options: &[&str]| {
        run(omniburn().current_dir(&folder).arg("convert").arg(source).arg("record").args(options))
    };
    let digest = || {
        let header = fs::read(folder.path().join("record/model.json")).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["digest"].clone()
    };
    let before = digest();
    let refused = convert(&checkpoint, &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("already exists"), "{}", refused.stderr);
    let broken = folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        fs::copy(checkpoint.join(file), broken.join(file)).unwrap();
    }
    let weights = fs::read(checkpoint.join("model.safetensors")).unwrap();
    fs::write(broken.join("model.safetensors"), &weights[..weights.len() - 10]).unwrap();
    assert_eq!(convert(&broken, &["--force"]).code, 3);
    assert_eq!(digest(), before);
    assert_eq!(convert(&checkpoint, &["--force"]).code, 0);
    assert_ne!(digest(), before);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn convert_reports_to_people_and_to_a_file_and_a_check_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = golden().join("checkpoints/omni-small-tiny");
    let found =
        run(omniburn().current_dir(&folder).arg("convert").arg(&checkpoint).args(["out/r", "--report", "r.json"]));
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
    for said in ["tensors", "parameters", "digest", "peak memory", "written to  out/r"] {
        assert!(found.stdout.contains(said), "{said}: {}", found.stdout);
    }
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("r.json")).unwrap()).unwrap();
    assert_eq!(report["tasks"], json!(["retrieval"]));
    if cfg!(target_os = "linux") {
        assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
    let check = run(omniburn().current_dir(&folder).arg("convert").arg(&checkpoint).args(["--check", "--task", "all"]));
    assert_eq!(check.code, 0);
    assert!(check.stdout.contains("nothing was written"));
    let unknown = run(omniburn().current_dir(&folder).arg("convert").arg(&checkpoint).args(["x", "--task", "poetry"]));
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("retrieval"));
    assert!(!folder.path().join("x").exists());
}

#[test]
fn a_checkpoint_is_found_by_name_in_the_cache_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("home/hub/models--org--tiny/snapshots/abc");
    support::copy_folder(&golden().join("checkpoints/omni-small-tiny"), &snapshot);
    for (name, value) in [("HF_HUB_CACHE", "home/hub"), ("HUGGINGFACE_HUB_CACHE", "home/hub"), ("HF_HOME", "home")] {
        let found = run(omniburn().current_dir(&folder).env(name, value).args(["inspect", "org/tiny"]));
        assert_eq!(found.code, 0, "{name}: {}", found.stderr);
        assert!(found.stdout.contains("org/tiny"), "{}", found.stdout);
    }
    let found = run(omniburn().current_dir(&folder).env("HF_HOME", "home").args(["convert", "org/other", "x"]));
    assert_eq!(found.code, 2);
    assert!(found.stderr.contains("home/hub") && found.stderr.contains("nothing is downloaded"), "{}", found.stderr);
}

#[test]
fn a_budget_too_small_names_the_smallest_that_does() {
    let folder = small();
    for input in ["a red bicycle", &media("images/wide.png"), &media("images/big.png")] {
        let refused = embed(&folder, &["--budget", "1000", input]);
        assert_eq!((refused.code, kinds(&refused)), (1, vec!["over_budget".to_string()]));
        let message = refused.lines()[0]["error"]["message"].as_str().unwrap().to_string();
        let smallest: u64 = message.rsplit(' ').next().unwrap().parse().unwrap();
        let enough = embed(&folder, &["--budget", &smallest.to_string(), input]);
        assert_eq!(enough.code, 0, "{message}: {}", enough.stdout);
        assert_eq!(embed(&folder, &["--budget", &(smallest - 1).to_string(), input]).code, 1);
    }
}

#[test]
fn dim_cuts_and_normalises_again() {
    let folder = small();
    let full = values(&embed(&folder, &["a red bicycle"]).lines()[0]);
    let short = embed(&folder, &["--dim", "16", "a red bicycle"]);
    assert_eq!(short.lines()[0]["dim"], 16);
    let norm = full[..16].iter().map(|v| v * v).sum::<f32>().sqrt();
    for (short, full) in values(&short.lines()[0]).iter().zip(&full) {
        assert!((short - full / norm).abs() < 1e-6);
    }
}

#[test]
fn an_array_has_a_row_an_input_and_failed_rows_are_nan_and_listed() {
    let folder = small();
    let found = embed(&folder, &["one", "missing.png", "two", "--format", "npy", "--out", "o.npy", "--dim", "32"]);
    assert_eq!((found.code, found.stdout.as_str()), (1, ""));
    assert!(found.stderr.contains("input 1: not_found: missing.png"), "{}", found.stderr);
    let (shape, stored) = support::read_npy(&folder.path().join("o.npy"));
    assert_eq!(shape, [3, 32]);
    assert!(stored[32..64].iter().all(|v| v.is_nan()));
    assert_eq!(stored[..32], values(&embed(&folder, &["one", "--dim", "32"]).lines()[0]));
    let lines = embed(&folder, &["one", "--out", "o.jsonl"]);
    assert_eq!((lines.code, lines.stdout.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(folder.path().join("o.jsonl")).unwrap(), embed(&folder, &["one"]).stdout);
}

#[test]
fn compare_is_symmetric_one_with_itself_and_goes_on_after_a_failure() {
    let folder = small();
    let image = media("images/square.png");
    let there = verb(&folder, "compare", &["--json", "a red bicycle", &image, "a red bicycle"]);
    let back = verb(&folder, "compare", &["--json", &image, "a red bicycle"]);
    assert_eq!((there.code, back.code), (0, 0), "{}", there.stderr);
    let (there, back) = (there.lines(), back.lines());
    assert_eq!(there[0]["cosine"], back[0]["cosine"]);
    assert_eq!((&there[0]["a"], &there[0]["b"]), (&json!("a red bicycle"), &json!(image)));
    assert!((there[1]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    let query = verb(&folder, "compare", &["--json", "--role", "query", "a red bicycle", "a red bicycle"]);
    assert!(query.lines()[0]["cosine"].as_f64().unwrap() < 0.999);
    let people = verb(&folder, "compare", &["a red bicycle", "missing.png", "a red bicycle"]);
    assert_eq!(people.code, 1);
    assert_eq!(people.stdout.lines().nth(1), Some(" 1.0000  a red bicycle"));
    assert!(people.stdout.starts_with(" failed  missing.png: "), "{}", people.stdout);
    let failed = verb(&folder, "compare", &["missing.png", "a"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""));
    assert!(failed.stderr.contains("missing.png"));
}

#[test]
fn inspect_tells_of_records_and_of_checkpoints() {
    let folder = small();
    let people = run(omniburn().current_dir(&folder).args(["inspect", "record", "--verify"]));
    assert_eq!((people.code, people.stderr.as_str()), (0, ""));
    for said in ["omni-small-tiny", "retrieval", "backbone", "vision", "embed_tokens", "memory", "digest", "every byte"]
    {
        assert!(people.stdout.contains(said), "{said}: {}", people.stdout);
    }
    let json = run(omniburn().current_dir(&folder).args(["inspect", "record", "--json", "--budget", "1MiB"]));
    let view = &json.lines()[0];
    assert_eq!((&view["kind"], &view["verified"], &view["budget"]), (&json!("record"), &json!(false), &json!(1 << 20)));
    assert_eq!(view["needs"][0]["fits"], false);
    let checkpoint = golden().join("checkpoints/omni-nano-tiny-unified");
    let inspected = run(omniburn().arg("inspect").arg(&checkpoint).arg("--json"));
    assert_eq!(inspected.lines()[0]["tasks"].as_array().unwrap().len(), 4);
    assert_eq!(run(omniburn().arg("inspect").arg(&checkpoint).arg("--verify")).code, 2);
}

#[test]
fn records_of_other_families_and_in_int8_are_converted_and_inspected() {
    let folder = TempDir::new().unwrap();
    let run_in = |args: &[&str]| run(omniburn().current_dir(&folder).args(args));
    let checkpoint = |name: &str| golden().join("checkpoints").join(name).to_str().unwrap().to_string();
    let made = run_in(&["convert", &checkpoint("mini-tiny"), "mini", "--dtype", "int8"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{}", made.stdout);
    assert!(made.stdout.contains("family      mini, matrices in int8"), "{}", made.stdout);
    let people = run_in(&["inspect", "mini", "--verify"]);
    assert_eq!(people.code, 0);
    for said in ["convolutions over 64x64 pixels to 4x4 cells of 24", "80 mel bands", "image noeos", "verified"] {
        assert!(people.stdout.contains(said), "{said}: {}", people.stdout);
    }
    assert_eq!(run_in(&["convert", &checkpoint("mini-tiny"), "exact", "--dtype", "f32"]).code, 0);
    let parts = |path: &str| run_in(&["inspect", path, "--json"]).lines().remove(0);
    let (exact, rough) = (parts("exact"), parts("mini"));
    // Scales are bytes and no parameters.
    assert_eq!(exact["parameters_for_one_task"], rough["parameters_for_one_task"]);
    let tokens = |view: &Value| {
        let mut rows = view["modules"].as_array().unwrap().iter();
        rows.find(|row| row["file"] == "tokens.bpk").unwrap().clone()
    };
    let vocab = tokens(&exact)["parameters"].as_u64().unwrap() / 32;
    assert_eq!(tokens(&exact)["bytes"], 4 * 32 * vocab);
    assert_eq!(tokens(&rough)["bytes"], (32 + 2) * vocab);

    let report = run_in(&["inspect", &checkpoint("bert-tiny")]);
    assert!(report.stdout.contains("not made by the pooler"), "{}", report.stdout);
    assert_eq!(run_in(&["convert", &checkpoint("bert-tiny"), "bert"]).code, 0);
    assert!(run_in(&["inspect", "bert"]).stdout.contains("2 encoder layers of 32, 4 heads, 80 tokens at most"));
    let listed = run_in(&["models", "--records", ".", "--json"]).lines().remove(0);
    let families = listed["families"].as_array().unwrap();
    assert_eq!(families.len(), omniburn::record::FAMILIES.len());
    for family in families {
        let first = &family["published"][0];
        assert!(["parity", "written"].contains(&family["status"].as_str().unwrap()), "{family}");
        assert!(first["licence"].is_string() && !first["outputs"].as_array().unwrap().is_empty(), "{family}");
    }
    let shown = run_in(&["models", "--records", "."]).stdout;
    assert!(
        shown.contains("in parity") && shown.contains("BAAI/bge-m3") && shown.contains("dense, sparse, multi"),
        "{shown}"
    );
    assert_eq!(listed["records"].as_array().unwrap().len(), 3);

    let omni = run_in(&["convert", &checkpoint("omni-nano-tiny"), "omni", "--dtype", "int8"]);
    assert_eq!(omni.code, 0, "{}", omni.stderr);
    let line = run_in(&["embed", "--model", "omni", "a red bicycle"]).lines().remove(0);
    assert_eq!(values(&line).len(), 48);
    // In whole numbers, where the record is stored so and only there.
    let whole = run_in(&["embed", "--model", "omni", "--dtype", "int8", "a red bicycle"]).lines().remove(0);
    let cosine: f64 = values(&line).iter().zip(values(&whole)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
    assert!(cosine > 0.999 && values(&line) != values(&whole), "{cosine}");
    let refused = run_in(&["embed", "--model", "exact", "--dtype", "int8", "a"]);
    assert!(refused.code == 4 && refused.stderr.contains("stored in int8"), "{}", refused.stderr);
    let portable =
        run_in(&["embed", "--model", "omni", "--dtype", "f32", "--isa", "portable", "a red bicycle"]).lines().remove(0);
    let line = run_in(&["embed", "--model", "omni", "--dtype", "f32", "a red bicycle"]).lines().remove(0);
    let cosine: f64 = values(&line).iter().zip(values(&portable)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
    assert!(cosine > 0.999_999, "{cosine}");
    let isa = run_in(&["embed", "--model", "omni", "--isa", "mmx", "a"]);
    assert!(isa.code == 2 && isa.stderr.contains("avx2"), "{}", isa.stderr);
}

#[test]
fn models_lists_families_checkpoints_and_records_and_names_broken_ones() {
    let folder = small();
    let none = run(omniburn().current_dir(&folder).arg("models"));
    assert_eq!(none.code, 0);
    assert!(none.stdout.contains("No records below records"), "{}", none.stdout);
    fs::create_dir_all(folder.path().join("records/old/broken")).unwrap();
    fs::rename(folder.path().join("record"), folder.path().join("records/small")).unwrap();
    fs::write(folder.path().join("records/old/broken/model.json"), "{}").unwrap();
    let people = run(omniburn().current_dir(&folder).arg("models"));
    assert_eq!(people.code, 0);
    assert!(people.stdout.contains("omni-small-tiny") && people.stdout.contains("refused"), "{}", people.stdout);
    let json = run(omniburn().current_dir(&folder).args(["models", "--json", "--records", "records"]));
    let listing = &json.lines()[0];
    assert_eq!(listing["families"][0]["name"], "omni");
    assert_eq!(listing["checkpoints"].as_array().unwrap().len(), 2);
    assert!(listing["records"][0]["error"].is_string());
    assert_eq!((&listing["records"][1]["dim"], &listing["records"][1]["dtype"]), (&json!(64), &json!("f32")));
}

#[test]
fn the_demo_needs_nothing_and_finds_what_a_sensible_person_would() {
    let folder = TempDir::new().unwrap();
    let start = || {
        let mut command = omniburn();
        command.current_dir(&folder).env("PATH", "").env("HOME", "/none").arg("demo");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Twice at once.
    let runs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let searches = fs::read(golden().join("../../models/mini/samples/searches.json")).unwrap();
    let searches: Vec<Value> = serde_json::from_slice(&searches).unwrap();
    let texts = runs.map(|run| {
        assert!(run.status.success() && run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    });
    let found = |text: &str| -> Vec<String> { text.split("\n\n").map(str::to_owned).collect() };
    let blocks = found(&texts[0]);
    assert_eq!(blocks.len(), searches.len() + 2, "{}", texts[0]);
    assert!(blocks[0].starts_with("69 files in "), "{}", blocks[0]);
    for (block, search) in blocks[1..].iter().zip(&searches) {
        let first = block.lines().nth(1).unwrap();
        let expected = search["expect"].as_array().unwrap();
        assert!(expected.iter().any(|name| first.contains(name.as_str().unwrap())), "{block}");
    }
    // The same lines both times, times of day apart.
    assert_eq!(found(&texts[1])[1..=searches.len()], blocks[1..=searches.len()]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn without_a_model_the_one_that_ships_embeds() {
    let folder = TempDir::new().unwrap();
    let found = run(omniburn().current_dir(&folder).args(["embed", "a red bicycle", &media("images/odd.png")]));
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
    let lines = found.lines();
    assert_eq!(
        (&lines[0]["dim"], &lines[0]["tokens"], &lines[1]["modality"]),
        (&json!(384), &json!(5), &json!("image"))
    );
}

#[test]
fn help_version_and_completions_go_to_standard_output() {
    let verbs = [
        "demo",
        "convert",
        "embed",
        "compare",
        "index",
        "search",
        "get",
        "serve",
        "mcp",
        "calibrate",
        "inspect",
        "models",
        "doctor",
        "bench",
        "completions",
    ];
    for verb in verbs {
        let help = run(omniburn().args([verb, "--help"]));
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{verb}");
        assert!(help.stdout.contains("Examples:"), "{verb}");
    }
    let version = run(omniburn().arg("--version"));
    assert_eq!(version.stdout, format!("omniburn {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(omniburn().arg("--help")).stdout;
    for not_built in ["generate", "transcribe"] {
        assert!(!help.contains(&format!("  {not_built} ")), "{not_built}");
    }
    let embed = run(omniburn().args(["embed", "--help"])).stdout;
    assert!(embed.contains("--frames") && embed.contains("--segments") && embed.contains("int8"));
    assert!(embed.contains("--isa") && embed.contains("avx512-bf16"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(omniburn().args(["completions", shell])).stdout.contains("omniburn"), "{shell}");
    }
}

fn start(folder: &TempDir, args: &[&str]) -> Child {
    let mut command = omniburn();
    command.current_dir(folder).args(["embed", "--model", "record"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn lines_are_answered_while_standard_input_stays_open() {
    let folder = small();
    let mut child = start(&folder, &["--lines"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for text in ["one", "", "three"] {
        stdin.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("\"embedding\""), "{line}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_ends_the_job_quietly() {
    let folder = small();
    let mut child = start(&folder, &["--lines"]);
    let mut stdin = child.stdin.take().unwrap();
    // Ends when the program is gone.
    let feeder = std::thread::spawn(move || while stdin.write_all(b"a red bicycle\n").is_ok() {});
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let ended = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
#[cfg(unix)]
fn an_interrupted_job_ends_with_130_and_whole_lines() {
    let folder = small();
    for feed_on in [true, false] {
        let mut child = start(&folder, &["--lines"]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"a red bicycle\n").unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        stdout.read_line(&mut text).unwrap();
        // A job in full run, and one that waits for its input.
        let feeder = std::thread::spawn(move || {
            while feed_on && stdin.write_all(b"something to ride\n").is_ok() {}
            stdin
        });
        let reader = std::thread::spawn(move || {
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let ended = child.wait_with_output().unwrap();
        drop(feeder.join().unwrap());
        let text = reader.join().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(text.ends_with('\n'));
        for (index, line) in text.lines().enumerate() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["index"], json!(index));
            assert!(line["embedding"].is_array(), "{line}");
        }
    }
}

#[test]
fn a_long_stream_keeps_its_order_and_its_bits() {
    let folder = small();
    let texts: Vec<String> = (0..700).map(|n| format!("number {n} {}", "and more ".repeat(n % 9))).collect();
    let mut command = omniburn();
    command.current_dir(&folder).args(["embed", "--model", "record", "--lines"]);
    let found = support::run_with(&mut command, (texts.join("\r\n") + "\r\n").as_bytes());
    let lines = found.lines();
    assert_eq!((found.code, lines.len()), (0, 700));
    assert!(lines.iter().enumerate().all(|(n, line)| line["index"] == json!(n)));
    for n in [0, 255, 256, 699] {
        assert_eq!(values(&embed(&folder, &["--text", &texts[n]]).lines()[0]), values(&lines[n]), "{n}");
    }
}

#[test]
fn two_processes_read_one_record_at_once() {
    let folder = small();
    let alone = embed(&folder, &["a red bicycle"]).stdout;
    let together: Vec<Child> = (0..2).map(|_| start(&folder, &["a red bicycle"])).collect();
    for child in together {
        assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout), alone);
    }
}

fn reranker(name: &str) -> TempDir {
    with_record(name, &["--dtype", "f32"])
}

fn rerank(folder: &TempDir, args: &[&str]) -> Run {
    verb(folder, "rerank", args)
}

#[test]
fn documents_are_ranked_best_first_as_the_reference_scores_them() {
    for name in ["bge-reranker-tiny", "modernbert-reranker-tiny", "qwen3-reranker-tiny"] {
        let folder = reranker(name);
        let refs: Value =
            serde_json::from_slice(&fs::read(golden().join("refs").join(format!("{name}.json"))).unwrap()).unwrap();
        let case = &refs["cases"][0];
        let (query, document) = (case["query_text"].as_str().unwrap(), case["document_text"].as_str().unwrap());
        let run = rerank(&folder, &[query, document, "something else", document]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        let lines = run.lines();
        let best = run.stdout.lines().next().unwrap();
        let keys = ["{\"index\":", "\"score\":", "\"logit\":", "\"document\":"].map(|key| best.find(key).unwrap());
        assert!(keys.is_sorted() && keys[0] == 0 && lines[0].as_object().unwrap().len() == 4, "{best}");
        let scores: Vec<f64> = lines.iter().map(|line| line["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| (0.0..=1.0).contains(score)));
        let first = lines.iter().find(|line| line["index"] == 0).unwrap();
        let want = case["logit_value"].as_f64().map(|logit| 1.0 / (1.0 + (-logit).exp()));
        let want = want.or(case["score_value"].as_f64()).unwrap();
        assert!((first["score"].as_f64().unwrap() - want).abs() < 2e-5, "{name}: {first} {want}");
        assert_eq!(first["document"], document);
        let places: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
        let at = |index: u64| places.iter().position(|place| *place == index).unwrap();
        assert_eq!(at(2), at(0) + 1, "equal documents keep their order: {places:?}");
        let best = rerank(&folder, &["--top", "1", "--quiet", query, document, "something else"]);
        assert_eq!(best.lines().len(), 1);
        assert!(best.lines()[0].get("document").is_none());
    }
}

#[test]
fn documents_come_from_items_and_failed_ones_are_lines_behind_the_others() {
    let folder = reranker("bge-reranker-tiny");
    let items = [
        json!({"id": 7, "text": "a bear of China"}),
        json!({"id": "long", "text": "word ".repeat(600)}),
        json!({"image": "missing.png"}),
        json!({"text": "a city", "role": "query"}),
        json!({"text": "a city", "instruction": "find"}),
        json!({"parts": [{"text": "a"}, {"text": "b"}]}),
    ];
    fs::write(folder.path().join("items.jsonl"), items.map(|item| item.to_string()).join("\n")).unwrap();
    let run = rerank(&folder, &["--items", "items.jsonl", "a bear", "typed first"]);
    assert_eq!(run.code, 1);
    let lines = run.lines();
    let places: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(places[2..], [2, 3, 4, 5, 6]);
    assert_eq!(kinds(&run), ["ok", "ok", "too_long", "modality_absent", "bad_item", "bad_item", "modality_absent"]);
    assert_eq!((&lines[2]["id"], lines.iter().any(|line| line["id"] == 7)), (&json!("long"), true));
    assert!(lines[2]["error"]["message"].as_str().unwrap().contains("expected at most 512"), "{}", lines[2]);
    // Cut, it is there, and says what of it was cut.
    let run = rerank(&folder, &["--items", "items.jsonl", "--truncate", "right", "a bear", "typed first"]);
    let cut = run.lines().into_iter().find(|line| line["id"] == "long").unwrap();
    assert_eq!(cut["truncated"], "document");
    let piped = omniburn()
        .current_dir(&folder)
        .args(["rerank", "--model", "record", "--items", "-", "a bear"])
        .stdin(fs::File::open(folder.path().join("items.jsonl")).unwrap())
        .output()
        .unwrap();
    assert_eq!(piped.status.code(), Some(1));
    assert_eq!(String::from_utf8(piped.stdout).unwrap().lines().count(), 6);
}

#[test]
fn images_are_ranked_beside_texts_and_embedded_with_their_captions() {
    let folder = reranker("qwen3-vl-rerank-tiny");
    let refs: Value =
        serde_json::from_slice(&fs::read(golden().join("refs/qwen3-vl-rerank-tiny.json")).unwrap()).unwrap();
    let given: Value = serde_json::from_slice(&fs::read(golden().join("refs/media/media.json")).unwrap()).unwrap();
    let plain = given["texts"].as_array().unwrap().iter().find(|text| text["name"] == "plain").unwrap();
    let run = rerank(&folder, &[plain["text"].as_str().unwrap(), &media("images/odd.png"), "a text", "none.png"]);
    assert_eq!((run.code, kinds(&run)), (1, ["ok", "ok", "not_found"].map(String::from).to_vec()), "{}", run.stdout);
    let image = run.lines().into_iter().find(|line| line["index"] == 0).unwrap();
    let case =
        refs["cases"].as_array().unwrap().iter().find(|case| case["document"] == json!([["image", "odd"]])).unwrap();
    let file = fs::read(golden().join("refs/qwen3-vl-rerank-tiny.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let want = tensors.tensor(case["margin"].as_str().unwrap()).unwrap().data().to_vec();
    let want = f32::from_le_bytes([want[0], want[1], want[2], want[3]]);
    assert!((image["logit"].as_f64().unwrap() as f32 - want).abs() < 1e-5, "{image} {want}");

    let folder = reranker("qwen3-vl-embed-tiny");
    let items = [
        json!({"id": 1, "parts": [{"text": "a caption"}, {"image": media("images/odd.png")}]}),
        json!({"id": 2, "parts": [{"image": media("images/odd.png")}, {"text": "a caption"}]}),
        json!({"id": 3, "text": "a caption", "instruction": "Find the image"}),
        json!({"id": 4, "text": "a caption"}),
        json!({"id": 5, "parts": [{"audio": "a.wav"}, {"text": "a caption"}]}),
    ];
    fs::write(folder.path().join("items.jsonl"), items.map(|item| item.to_string()).join("\n")).unwrap();
    let run = verb(&folder, "embed", &["--items", "items.jsonl"]);
    assert_eq!(kinds(&run), ["ok", "ok", "ok", "ok", "modality_absent"], "{}", run.stdout);
    let lines = run.lines();
    // Images are read before texts, in whatever order they come.
    assert_eq!(lines[0]["embedding"], lines[1]["embedding"]);
    assert_eq!((&lines[0]["modality"], &lines[3]["modality"]), (&json!("image"), &json!("text")));
    assert_ne!(lines[2]["embedding"], lines[3]["embedding"]);
}

#[test]
fn a_verb_that_a_model_cannot_do_says_what_it_can() {
    let folder = reranker("qwen3-reranker-tiny");
    let run = embed(&folder, &["a text"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("gives no vectors") && run.stderr.contains("`rerank`"), "{}", run.stderr);
    let run = rerank(&folder, &["a query"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("give a DOC or --items"), "{}", run.stderr);
    let run = run_without_model(&["rerank", "a query", "a document"]);
    assert!(run.code == 2 && run.stderr.contains("--model"), "{}", run.stderr);
    // An instruction is another score.
    let score = |args: &[&str]| {
        let run = rerank(&folder, &[args, &["a query", "a document"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.lines()[0]["logit"].as_f64().unwrap()
    };
    assert_ne!(score(&[]), score(&["--instruction", "Find a sentence with the same meaning"]));
    let run = run_with_model(&folder, &["inspect", "record"]);
    assert!(run.stdout.contains("outputs     the score of a query and a document"), "{}", run.stdout);
    assert!(run.stdout.contains("instruction \"Given a web search query"), "{}", run.stdout);
    let run = run_with_model(&folder, &["models", "--records", ".", "--json"]);
    assert_eq!(run.lines()[0]["records"][0]["outputs"], json!(["score"]));

    let folder = small();
    let run = rerank(&folder, &["a query", "a document"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("gives no scores") && run.stderr.contains("`embed`"), "{}", run.stderr);
    let run = embed(&folder, &["--instruction", "find", "a text"]);
    assert!(run.code == 2 && run.stderr.contains("takes no instruction"), "{}", run.stderr);
    let run = embed_items(&folder, &json!({"text": "a", "instruction": "find"}).to_string(), &[]);
    assert_eq!((run.code, kinds(&run)), (1, vec!["bad_item".to_string()]));
}

fn run_without_model(args: &[&str]) -> Run {
    run(omniburn().args(args))
}

fn run_with_model(folder: &TempDir, args: &[&str]) -> Run {
    run(omniburn().current_dir(folder).args(args))
}

#[test]
fn an_item_of_parts_is_read_and_refused_by_families_that_take_none() {
    let folder = small();
    fs::write(folder.path().join("p.png"), fs::read(media("images/odd.png")).unwrap()).unwrap();
    let items = [
        json!({"id": 1, "parts": [{"image": "p.png"}, {"text": "a caption"}]}),
        json!({"id": 2, "parts": []}),
        json!({"id": 3, "parts": [{"image": "p.png", "text": "both"}]}),
        json!({"id": 4, "parts": [{"text": "a"}], "text": "and a text"}),
        json!({"id": 5, "parts": [{"text": "a", "role": "query"}]}),
        json!({"id": 6, "text": "alone"}),
    ];
    let run = embed_items(&folder, &items.map(|item| item.to_string()).join("\n"), &[]);
    assert_eq!(run.code, 1);
    assert_eq!(kinds(&run), ["modality_absent", "bad_item", "bad_item", "bad_item", "bad_item", "ok"]);
    let said = |at: usize| run.lines()[at]["error"]["message"].as_str().unwrap().to_string();
    assert!(said(0).contains("the family `omni` takes no item made of several parts"), "{}", said(0));
    assert!(said(1).contains("expected at least one"), "{}", said(1));
    assert!(said(2).contains("parts[0]: found 2 of text"), "{}", said(2));
}

#[test]
fn a_folder_that_could_be_either_is_refused_until_the_task_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a-language-model");
    fs::create_dir(&source).unwrap();
    for entry in fs::read_dir(golden().join("checkpoints/qwen3-reranker-tiny")).unwrap().flatten() {
        fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
    }
    let convert = |args: &[&str]| run(omniburn().current_dir(&folder).args(["convert", "a-language-model"]).args(args));
    let refused = convert(&["--check"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--task embed") && refused.stderr.contains("--task rerank"), "{}", refused.stderr);
    let reranker = convert(&["--check", "--task", "rerank"]);
    assert!(reranker.code == 0 && reranker.stdout.contains("tasks       rerank"), "{}", reranker.stdout);
    let embedder = convert(&["--check", "--task", "embed"]);
    assert!(embedder.code == 0 && embedder.stdout.contains("tasks       base"), "{}", embedder.stdout);
}

#[test]
fn adapters_given_by_name_are_tasks_of_the_record_and_a_gguf_file_is_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (base, file) = (golden().join("checkpoints/bert-tiny"), golden().join("gguf/bert-f32.gguf"));
    let convert = |source: &Path, out: &str, more: &[String]| {
        let source = [source.as_os_str(), out.as_ref()];
        run(omniburn().current_dir(&folder).arg("convert").args(source).args(["--dtype", "f32"]).args(more))
    };
    let adapter =
        |name: &str, given: &str| format!("--adapter={name}{}", golden().join("adapters").join(given).display());
    let two = [adapter("first=", "bert-list"), adapter("", "bert-pattern")];
    for (source, out) in [(&base, "folder"), (&file, "file")] {
        let done = convert(source, out, &two);
        assert!(
            done.code == 0 && done.stdout.contains("tasks       first, bert-pattern (default first)"),
            "{} {}",
            done.stdout,
            done.stderr
        );
    }
    let vector = |model: &str, task: &str| {
        let run = run(omniburn().current_dir(&folder).args(["embed", "--model", model, "--task", task, "red car"]));
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.lines()[0]["embedding"].clone()
    };
    assert_eq!(vector("folder", "first"), vector("file", "first"));
    assert_ne!(vector("folder", "first"), vector("folder", "bert-pattern"));
    let twice = convert(&base, "more", &[adapter("a=", "bert-list"), adapter("a=", "bert-pattern")]);
    assert!(twice.code == 2 && twice.stderr.contains("two adapters for task `a`"), "{}", twice.stderr);
    let other = convert(&base, "more", &[adapter("", "qwen3-table")]);
    assert!(other.code == 3 && other.stderr.contains("made for qwen3-embedding-tiny"), "{}", other.stderr);
    let cut = folder.path().join("cut.gguf");
    fs::write(&cut, &fs::read(&file).unwrap()[..5000]).unwrap();
    let cut = convert(&cut, "more", &[]);
    assert!(cut.code == 3 && cut.stderr.contains("cut.gguf: corrupt"), "{}", cut.stderr);
    assert!(!folder.path().join("more").exists());
}

#[test]
fn sparse_and_multi_outputs_are_lines_and_compare_by_them() {
    let folder = with_record("bge-m3-tiny", &["--dtype", "f32"]);
    let run = embed(&folder, &["--output", "sparse,multi", "a bear of China"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let line = &run.lines()[0];
    assert!(line.get("embedding").is_none() && line.get("dim").is_none(), "{line}");
    let ids: Vec<u64> = line["sparse"]["indices"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    assert!(ids.is_sorted() && ids.len() == line["sparse"]["values"].as_array().unwrap().len());
    let tokens = line["tokens"].as_u64().unwrap() as usize;
    assert_eq!(line["multi"].as_array().unwrap().len(), tokens - 1);
    assert_eq!(line["multi"][0].as_array().unwrap().len(), 64);
    let all = embed(&folder, &["--output", "dense,sparse", "a bear of China"]);
    let all = &all.lines()[0];
    assert_eq!((&all["sparse"], all["dim"].as_u64(), all.get("multi")), (&line["sparse"], Some(64), None));
    let plain = embed(&folder, &["a bear of China"]);
    assert!(plain.lines()[0].get("sparse").is_none());
    assert_eq!(plain.lines()[0]["embedding"], all["embedding"]);
    for (output, key) in [("dense", "cosine"), ("sparse", "sparse"), ("multi", "multi")] {
        let run = verb(&folder, "compare", &["--json", "--output", output, "a bear", "a bear", "France"]);
        let scores: Vec<f64> = run.lines().iter().map(|line| line[key].as_f64().unwrap()).collect();
        // Sums of weights of common tokens have no length of 1: a longer text may score above an equal one.
        let least = if output == "sparse" { 0.0 } else { scores[1] };
        assert!(scores[0] > least && scores[1].is_finite(), "{output}: {scores:?}");
    }
    let npy = embed(&folder, &["--output", "multi", "--format", "npy", "--out", "x.npy", "a"]);
    assert!(
        npy.code == 2 && npy.stderr.contains("--output sparse, multi and features are written as lines"),
        "{}",
        npy.stderr
    );
    let small = small();
    for args in [&["embed", "--output", "sparse", "a"][..], &["compare", "--output", "multi", "a", "b"]] {
        let run = verb(&small, args[0], &args[1..]);
        assert!(run.code == 2 && run.stderr.contains("it gives dense"), "{}", run.stderr);
    }
    let unknown = embed(&small, &["--output", "tokens", "a"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("sparse"), "{}", unknown.stderr);
    let inspect = run_with_model(&folder, &["inspect", "record", "--json"]);
    assert_eq!(inspect.lines()[0]["outputs"], json!(["dense", "sparse", "multi"]));
}

#[test]
fn features_are_rows_and_deepstack_sets_on_the_line_of_an_image() {
    let folder = with_record("bidirlm-omni-tiny", &["--dtype", "f32"]);
    let image = golden().join("refs/media/images/odd.png");
    let image = image.to_str().unwrap();
    let run = embed(&folder, &["--output", "features", "--image", image, "--text", "a text"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let lines = run.lines();
    let line = &lines[0];
    assert!(line.get("embedding").is_none() && line.get("dim").is_none(), "{line}");
    let (rows, sets) =
        (line["features"]["rows"].as_array().unwrap(), line["features"]["deepstack"].as_array().unwrap());
    assert_eq!((rows.len(), sets.len()), (6, 2), "{line}");
    let width = rows[0].as_array().unwrap().len();
    assert!(sets.iter().all(|set| set.as_array().unwrap().len() == rows.len()));
    assert!(sets.iter().all(|set| set[0].as_array().unwrap().len() == width));
    assert_eq!(lines[1]["error"]["kind"], "modality_absent");
    let both = embed(&folder, &["--output", "dense,features", "--image", image]);
    let both = &both.lines()[0];
    assert_eq!((both["dim"].as_u64(), &both["features"]), (Some(64), &line["features"]));
    for args in [
        &["embed", "--output", "features", "--segments", "--image", image][..],
        &["embed", "--output", "features", "--format", "npy", "--out", "x.npy", "--image", image],
        &["embed", "--output", "features", "--journal", "j.jsonl", "--image", image],
        &["compare", "--output", "features", "a", "b"],
    ] {
        let run = verb(&folder, args[0], &args[1..]);
        assert!(run.code == 2 && run.stderr.contains("features"), "{args:?}: {}", run.stderr);
    }
}

/// Encoders without a language model: rows unasked, no text, and a doctor that asks with images.
#[test]
fn encoders_without_a_text_model_give_rows_and_are_examined_with_images() {
    let folder = with_record("qwen3-omni-encoders-tiny", &["--dtype", "f32"]);
    let media = |file: &str| golden().join("refs/media").join(file).to_str().unwrap().to_string();
    let (image, audio) = (media("images/odd.png"), media("audio/three.wav"));
    let found = embed(&folder, &["--image", &image, "--audio", &audio, "--text", "a text"]);
    assert_eq!(found.code, 1, "{}", found.stderr);
    let lines = found.lines();
    let count = |line: &Value, name: &str| line["features"][name].as_array().unwrap().len();
    assert_eq!((count(&lines[0], "rows"), count(&lines[0], "deepstack")), (6, 2));
    assert_eq!((count(&lines[1], "rows"), count(&lines[1], "deepstack")), (40, 0));
    assert_eq!(lines[2]["error"]["kind"], "modality_absent");
    let shown = run(omniburn().current_dir(&folder).args(["inspect", "record"]));
    assert!(shown.stdout.contains("modalities  image, audio, video"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("longest text"), "{}", shown.stdout);
    let compared = verb(&folder, "compare", &["--image", &image, "--image", &image]);
    assert!(compared.code == 2 && compared.stderr.contains("features"), "{}", compared.stderr);
    let examined = verb(&folder, "doctor", &[]);
    assert_eq!(examined.code, 0, "{}{}", examined.stdout, examined.stderr);
}

/// A model that gives a vector a row and nothing else: that is what its lines have unasked, and what it is compared by.
#[test]
fn a_model_of_late_interaction_gives_rows_unasked_and_is_compared_by_them() {
    let folder = with_record("colqwen2_5-tiny", &["--dtype", "f32"]);
    let image = golden().join("refs/media/images/odd.png");
    let image = image.to_str().unwrap();
    let run = embed(&folder, &["--image", image, "--text", "a violin"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for line in run.lines() {
        let rows = line["multi"].as_array().unwrap();
        assert_eq!((rows.len() as u64, rows[0].as_array().unwrap().len()), (line["tokens"].as_u64().unwrap(), 128));
        assert!(line.get("embedding").is_none(), "{line}");
    }
    let run = verb(&folder, "compare", &["--json", "--role", "query", "a violin", image, "a violin"]);
    let scores: Vec<f64> = run.lines().iter().map(|line| line["multi"].as_f64().unwrap()).collect();
    assert!(scores[1] > 0.999 && scores[0] < scores[1], "{scores:?}");
    for args in [&["--output", "dense", "a"][..], &["--format", "npy", "--out", "x.npy", "a"]] {
        let run = embed(&folder, args);
        assert!(run.code == 2 && !run.stderr.is_empty(), "{args:?}: {}", run.stderr);
    }
    let index = verb(&folder, "index", &["--index", "./kept", "."]);
    assert!(index.code == 2 && index.stderr.contains("gives no vectors"), "{}", index.stderr);
}
