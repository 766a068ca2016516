//! What convert makes of the settings of many folders: for the sweeps in `tests/golden/make/sweep_*.py`.
//!
//! `settings < LINES`: each line is `{"source": FOLDER, "texts": […]}`, and gives one line back: `{"ids": [[…], …],
//! "preprocess": {…}, "notes": […]}` of the record, or `{"error": "…"}`.

use std::io::{BufRead, Write};
use std::path::Path;

use omniburn_convert::{ConvertOptions, convert};
use omniburn_media::TextTokenizer;
use omniburn_models::record::{Dtype, TOKENIZER_FILE};
use serde_json::{Value, json};

fn made(line: &Value, out: &Path) -> Result<Value, String> {
    let source = line["source"].as_str().ok_or("a source")?;
    let options = ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(source, out) };
    let report = convert(&options).map_err(|error| error.to_string())?;
    let header: Value = std::fs::read(out.join("model.json"))
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))?;
    let tokenizer = TextTokenizer::from_file(&out.join(TOKENIZER_FILE)).map_err(|error| error.to_string())?;
    let texts = line["texts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<Value> = texts
        .iter()
        .map(|text| match tokenizer.ids(text.as_str().unwrap_or_default()) {
            Ok(ids) => json!(ids),
            Err(error) => json!(error.to_string()),
        })
        .collect();
    Ok(json!({"ids": ids, "preprocess": header["preprocess"], "notes": report.notes}))
}

fn main() {
    let folder = std::env::temp_dir().join(format!("omniburn-settings-{}", std::process::id()));
    let out = folder.join("record");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    for line in std::io::stdin().lock().lines() {
        let line: Value = serde_json::from_str(&line.expect("lines of text")).expect("lines of JSON");
        let answer = made(&line, &out).unwrap_or_else(|error| json!({"error": error}));
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}").and_then(|()| stdout.flush()).expect("somebody reads");
    }
    std::fs::remove_dir_all(&folder).expect("the temporary folder can be removed");
}
