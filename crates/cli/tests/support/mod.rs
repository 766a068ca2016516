//! Running the program, and reading what the reference and the program wrote.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What a run of the program gave.
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Every line of standard output as JSON.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The program, in an environment of its own.
pub fn omniburn() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omniburn"));
    let cache = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"];
    let older = ["SENTENCE_TRANSFORMERS_HOME", "TRANSFORMERS_CACHE"];
    for name in ["OMNIBURN_LOG"].iter().chain(&cache).chain(&older) {
        command.env_remove(name);
    }
    // Below a file there can be no folder: what others keep is not found, and nothing is kept for others.
    let nowhere = if cfg!(windows) { r"\\.\NUL\nowhere" } else { "/dev/null/nowhere" };
    for name in ["XDG_CACHE_HOME", "LOCALAPPDATA"] {
        command.env(name, nowhere);
    }
    command
}

/// Runs to the end with nothing on standard input.
pub fn run(command: &mut Command) -> Run {
    run_with(command, b"")
}

/// Runs to the end with bytes on standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // A program that refuses its arguments does not read.
    let feeder = std::thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Run {
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The folder of stored inputs and results.
pub fn golden() -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    Path::new(&here).join("../../tests/golden").canonicalize().expect("the stored results are there")
}

/// A stored input.
pub fn media(name: &str) -> String {
    golden().join("refs/media").join(name).to_str().unwrap().to_string()
}

/// The vector of a line.
pub fn values(line: &Value) -> Vec<f32> {
    line["embedding"]
        .as_array()
        .unwrap_or_else(|| panic!("{line}"))
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect()
}

/// A line of `--items`.
pub fn item_line(id: &str, item: &Value) -> String {
    let mut item = item.clone();
    item["id"] = json!(id);
    format!("{item}\n")
}

/// One case of the reference.
pub struct Case {
    /// Its kind there.
    pub kind: String,
    /// Role by name.
    pub role: String,
    /// Task.
    pub task: String,
    /// Dimension, where it is not the full width.
    pub dim: Option<u64>,
    /// Name of the tensor with the vector.
    pub tensor: String,
    /// Rows that enter the backbone.
    pub tokens: usize,
    /// The input as a line of `--items`.
    pub item: Value,
}

/// Cases of text, images, video and audio, in the layout that a checkpoint converts to by default.
pub fn references(checkpoint: &str) -> Vec<Case> {
    let text = fs::read(golden().join("refs").join(format!("{checkpoint}.json"))).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let all = all["cases"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let text_of =
        |name: &Value| all.iter().find(|c| c["kind"] == "text" && c["name"] == *name).unwrap()["text"].clone();
    let mut cases = Vec::new();
    for case in all {
        let kind = word(&case["kind"]);
        match kind.as_str() {
            "text" | "text_task" | "text_base" | "text_bf16_merge" => cases.push(Case {
                role: word(&case["prefix"]),
                task: case.get("task").map_or("retrieval".into(), word),
                dim: case["truncate_dim"].as_u64(),
                tensor: word(&case["embedding"]),
                tokens: case["input_ids"].as_array().unwrap().len(),
                item: json!({ "text": text_of(&case["name"]) }),
                kind,
            }),
            // An audio that gives no row has no embedding.
            "audio" if case["embeddings"].is_null() => {}
            "image" | "video" | "audio" => {
                let item = match &case["frames"] {
                    Value::Array(frames) => {
                        json!({ "video": frames.iter().map(|f| media(&word(f))).collect::<Vec<_>>() })
                    }
                    _ if kind == "audio" => json!({ "audio": media(&format!("audio/{}.wav", word(&case["name"]))) }),
                    // Of another task, an image is named as it is in its first case.
                    _ => {
                        let same =
                            |c: &&Value| c["kind"] == "image" && c["name"] == case["name"] && c["file"].is_string();
                        json!({ "image": media(&word(&all.iter().find(same).unwrap()["file"])) })
                    }
                };
                let layout = if kind == "audio" && checkpoint.contains("nano") { "noeos" } else { "wrapped" };
                let rows = case["embeddings"].as_array().unwrap().iter();
                // Images are laid out in one way a checkpoint, audio of some in two.
                let rows = rows.filter(|row| kind != "audio" || row["convention"] == layout);
                cases.extend(rows.map(|embedding| {
                    let sequence = &embedding["sequence"];
                    let listed =
                        ["prefix", "open", "close", "suffix"].map(|part| sequence[part].as_array().unwrap().len());
                    Case {
                        kind: kind.clone(),
                        role: word(&embedding["prefix"]),
                        task: word(&embedding["task"]),
                        dim: None,
                        tensor: word(&embedding["embedding"]),
                        tokens: listed.iter().sum::<usize>() + sequence["n"].as_u64().unwrap() as usize,
                        item: item.clone(),
                    }
                }));
            }
            _ => {}
        }
    }
    cases
}

/// Shape and values of an array file.
pub fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + header) % 64, 0);
    let about = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert!(about.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "{about}");
    let shape = about.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let values = bytes[10 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (shape.split(", ").map(|n| n.parse().unwrap()).collect(), values)
}

/// A PNG that says how large it is, and holds nothing.
pub fn write_png_header(path: &Path, width: u32, height: u32) {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = chunk.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(chunk);
    file.extend((!crc).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    fs::write(path, file).unwrap();
}

/// A black image without compression, whose pixels lie in a hole of the file.
pub fn write_bmp(path: &Path, width: u32, height: u32) {
    let row = (width * 3).next_multiple_of(4);
    let mut header = b"BM".to_vec();
    header.extend((54 + row * height).to_le_bytes());
    header.extend([0; 4]);
    header.extend(54u32.to_le_bytes());
    header.extend(40u32.to_le_bytes());
    header.extend(width.to_le_bytes());
    header.extend(height.to_le_bytes());
    header.extend([1, 0, 24, 0]);
    header.extend([0; 24]);
    fs::write(path, header).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(u64::from(54 + row * height)).unwrap();
}

/// Copies a folder with everything below it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
