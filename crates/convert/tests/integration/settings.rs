//! Settings files beside the tokenizer and the processors: ids and preprocessing are those of transformers, or the setting
//! is refused by its name. The goldens are from `tests/golden/make/settings.py`.

use std::fs;
use std::path::{Path, PathBuf};

use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use omniburn_media::{Height, TextTokenizer, VisionPreprocess, Width, image_size, video_size};
use omniburn_models::record::{Dtype, PixelPreprocess, Preprocess, RecordFolder};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::write_json;

fn golden() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../tests/golden")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), to).map(|_| ()).unwrap()
        }
    }
}

/// A checkpoint with files laid over it; `null` takes one away, and a tokenizer.json has only the parts that are other.
struct Laid(TempDir);

impl Laid {
    fn new(base: &str, files: &Map<String, Value>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("checkpoint");
        copy(&golden().join("checkpoints").join(base), &folder);
        for (name, content) in files {
            let path = folder.join(name);
            match content {
                Value::Null => fs::remove_file(&path).unwrap(),
                Value::String(text) => fs::write(&path, text).unwrap(),
                Value::Object(parts) if name == "tokenizer.json" => {
                    let mut whole = read(&path);
                    for (part, value) in parts {
                        whole[part] = value.clone();
                    }
                    write_json(&path, &whole);
                }
                content => write_json(&path, content),
            }
        }
        Self(root)
    }

    fn convert(&self) -> Result<ConvertReport, ConvertError> {
        let out = self.0.path().join("record");
        let options = ConvertOptions::new(self.0.path().join("checkpoint"), out);
        convert(&ConvertOptions { tasks: TaskChoice::Default, dtype: Dtype::F32, force: true, ..options })
    }

    fn tokenizer(&self) -> TextTokenizer {
        TextTokenizer::from_file(&self.0.path().join("record/tokenizer.json")).unwrap()
    }

    fn preprocess(&self) -> Preprocess {
        RecordFolder::open(&self.0.path().join("record")).unwrap().header().preprocess.clone()
    }
}

fn files(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

#[test]
fn ids_are_those_of_transformers_whatever_the_settings_say() {
    let golden = read(&golden().join("refs/tokenizer_settings.json"));
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let laid = Laid::new(case["base"].as_str().unwrap(), files(&case["files"]));
        let report = laid.convert().unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = laid.tokenizer();
        for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(json!(tokenizer.ids(text).unwrap()), *ids, "{name}: {text:?}: {:?}", report.notes);
        }
    }
}

#[test]
fn a_change_of_the_tokenizer_stands_in_the_report_and_its_files_in_the_record() {
    let settings = json!({"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": false}});
    let laid = Laid::new("bert-tiny", files(&settings));
    let report = laid.convert().unwrap();
    let said = |words: &str| report.notes.iter().any(|note| note.contains(words));
    assert!(said("normalizer: lowercase is false, not true"), "{:?}", report.notes);
    let record = RecordFolder::open(&laid.0.path().join("record")).unwrap();
    assert!(record.header().sources.iter().any(|source| source.file == "tokenizer_config.json"));
    let changed = read(&laid.0.path().join("record/tokenizer.json"));
    assert_eq!(changed["normalizer"]["lowercase"], json!(false));
    // Where the settings change nothing, the file is the checkpoint's, byte for byte.
    let same = json!({"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": true}});
    let laid = Laid::new("bert-tiny", files(&same));
    laid.convert().unwrap();
    let bytes = |path: &str| fs::read(laid.0.path().join(path)).unwrap();
    assert_eq!(bytes("record/tokenizer.json"), bytes("checkpoint/tokenizer.json"));
}

#[test]
fn settings_that_are_not_computed_are_refused_by_name() {
    let cases = [
        (json!({"tokenizer_class": "BertJapaneseTokenizer"}), "tokenizer_class"),
        (json!({"tokenizer_class": "AlbertTokenizerFast"}), "tokenizer_class"),
        (json!({"tokenizer_class": "BertTokenizer", "do_lower_case": "yes"}), "do_lower_case"),
        (json!({"tokenizer_class": "BertTokenizer", "do_lower_case": null}), "do_lower_case"),
        (json!({"tokenizer_class": "BertTokenizer", "strip_accents": 1}), "strip_accents"),
        (json!({"tokenizer_class": "BertTokenizer", "cls_token": null}), "cls_token"),
        (json!({"split_special_tokens": true}), "split_special_tokens"),
        (json!({"auto_map": {"AutoTokenizer": ["own.Own", null]}}), "auto_map"),
        (json!({"init_inputs": ["vocab.txt"]}), "init_inputs"),
        (json!({"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.0.json"]}), "fast_tokenizer_files"),
        (json!({"sep_token": {"content": "[SEP]"}}), "sep_token"),
        (json!({"sep_token": 3}), "sep_token"),
        (json!({"added_tokens_decoder": [1]}), "added_tokens_decoder"),
        (json!({"added_tokens_decoder": {"x": {"content": "a"}}}), "added_tokens_decoder"),
        (json!({"added_tokens_decoder": {"4": {"content": "[MASK]", "lstrip": "no"}}}), "added_tokens_decoder.4"),
        (json!({"extra_special_tokens": 7}), "extra_special_tokens"),
    ];
    for (settings, field) in cases {
        let laid = Laid::new("bert-tiny", files(&json!({"tokenizer_config.json": settings})));
        let error = laid.convert().unwrap_err();
        let ConvertError::Fields { path, faults } = &error else { panic!("{settings}: {error}") };
        assert!(path.ends_with("tokenizer_config.json"), "{error}");
        assert_eq!(faults[0].field, field, "{error}");
    }
    // An added token without a row, of the settings alone.
    let new = json!({"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "extra_special_tokens": ["<new>"]}});
    let rows = read(&golden().join("checkpoints/bert-tiny/config.json"))["vocab_size"].as_u64().unwrap();
    let found = Laid::new("bert-tiny", files(&new)).convert();
    match found {
        Err(ConvertError::TokenIdOutOfTable { ids, .. }) => assert!(ids[0].name.contains("<new>") && ids[0].id >= rows),
        other => assert!(other.unwrap().notes.iter().any(|note| note.contains("added: <new>"))),
    }
    // A file that is no object of settings, and one that is no JSON.
    let list = Laid::new("bert-tiny", files(&json!({"tokenizer_config.json": [1]}))).convert().unwrap_err();
    assert!(list.to_string().contains("tokenizer_config.json: the file: found [1]"), "{list}");
    let broken = Laid::new("bert-tiny", files(&json!({"tokenizer_config.json": "{"}))).convert().unwrap_err();
    assert!(matches!(broken, ConvertError::Json { .. }), "{broken}");
}

fn vision(p: &PixelPreprocess) -> VisionPreprocess {
    VisionPreprocess {
        patch: p.patch_px,
        merge: p.merge,
        temporal_patch: p.temporal_patch,
        min_pixels: p.min_pixels,
        max_pixels: p.max_pixels,
        mean: p.mean,
        std: p.std,
        rescale: p.rescale,
        per_frame: p.per_frame,
    }
}

#[test]
fn preprocessing_is_that_of_transformers_in_whatever_file_it_stands() {
    let golden = read(&golden().join("refs/processor_settings.json"));
    let frames = golden["frames"].as_u64().unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let laid = Laid::new("omni-small-tiny", files(&case["files"]));
        let report = laid.convert().unwrap_or_else(|error| panic!("{name}: {error}"));
        let preprocess = laid.preprocess();
        let media = [("image", preprocess.image.unwrap()), ("video", preprocess.video.unwrap())];
        for (medium, found) in media {
            let expected = &case[medium];
            let notes = &report.notes;
            assert_eq!(json!(found.min_pixels), expected["min_pixels"], "{name}: {medium}: {notes:?}");
            assert_eq!(json!(found.max_pixels), expected["max_pixels"], "{name}: {medium}: {notes:?}");
            for (i, (mean, std)) in found.mean.iter().zip(found.std).enumerate() {
                assert_eq!(f64::from(*mean) as f32, expected["mean"][i].as_f64().unwrap() as f32, "{name}: {medium}");
                assert_eq!(std, expected["std"][i].as_f64().unwrap() as f32, "{name}: {medium}");
            }
            assert_eq!(found.rescale, expected["rescale"].as_f64().unwrap(), "{name}: {medium}");
            for (sides, grid) in golden["sides"].as_array().unwrap().iter().zip(expected["grids"].as_array().unwrap()) {
                let (h, w) = (sides[0].as_u64().unwrap() as u32, sides[1].as_u64().unwrap() as u32);
                let settings = vision(&found);
                let (height, width) = if medium == "image" {
                    image_size(Height(h), Width(w), &settings).unwrap()
                } else {
                    video_size(frames as usize, Height(h), Width(w), &settings).unwrap()
                };
                let times = if medium == "image" { 1 } else { frames / 2 };
                assert_eq!(json!([times, height.0 / 16, width.0 / 16]), *grid, "{name}: {medium} of {h} by {w}");
            }
        }
        let audio = preprocess.audio.unwrap();
        let found = json!({
            "sample_rate_hz": audio.sample_rate_hz, "fft_samples": audio.fft_samples, "hop_samples": audio.hop_samples,
            "mels": audio.mels,
        });
        assert_eq!(found, case["audio"], "{name}");
    }
}

#[test]
fn fields_of_processors_that_are_not_computed_are_refused_by_name_in_any_file() {
    let cases = [
        ("image_processor", json!({"size": {"height": 64, "width": 64}}), "size.height"),
        ("image_processor", json!({"size": 64}), "size"),
        ("image_processor", json!({"size": {"shortest_edge": 64}}), "size.longest_edge"),
        ("image_processor", json!({"size": {"shortest_edge": "64", "longest_edge": 65}}), "size.shortest_edge"),
        ("image_processor", json!({"resample": 2}), "resample"),
        ("image_processor", json!({"resample": "bicubic"}), "resample"),
        ("image_processor", json!({"do_resize": false}), "do_resize"),
        ("image_processor", json!({"do_rescale": null}), "do_rescale"),
        ("image_processor", json!({"do_normalize": null}), "do_normalize"),
        ("image_processor", json!({"image_mean": null}), "image_mean"),
        ("image_processor", json!({"patch_size": 14}), "patch_size"),
        ("image_processor", json!({"image_processor_type": "CLIPImageProcessor"}), "image_processor_type"),
        ("video_processor", json!({"video_processor_type": "InternVLVideoProcessor"}), "video_processor_type"),
        ("video_processor", json!({"cap_pixels_per_frame": true}), "cap_pixels_per_frame"),
        ("video_processor", json!({"video_processor_type": "Qwen3VLVideoProcessor", "size": null}), "size"),
        ("feature_extractor", json!({"feature_size": 80}), "feature_size"),
        ("feature_extractor", json!({"dither": 0.1}), "dither"),
        ("feature_extractor", json!({"padding_value": 1.0}), "padding_value"),
        ("feature_extractor", json!({"hop_length": 0}), "hop_length"),
        ("feature_extractor", json!({"feature_extractor_type": "ClapFeatureExtractor"}), "feature_extractor_type"),
    ];
    for (section, value, field) in cases {
        let nested = json!({"processor_config.json": {section: value}});
        let error = Laid::new("omni-small-tiny", files(&nested)).convert().unwrap_err();
        let ConvertError::Fields { path, faults } = &error else { panic!("{section} {value}: {error}") };
        assert!(path.ends_with("processor_config.json"), "{error}");
        assert!(faults.iter().any(|fault| fault.field == format!("{section}.{field}")), "{section} {value}: {error}");
    }
    let nested = json!({"processor_config.json": {"image_processor": [1]}});
    let error = Laid::new("omni-small-tiny", files(&nested)).convert().unwrap_err();
    assert!(error.to_string().contains("image_processor: found [1], expected an object"), "{error}");
}
