//! Sizes, resized pixels, patch rows and token ids against the reference set (`tests/golden/make/references.py`), and
//! against the full set where it is.

use std::path::Path;

use omniburn_media::{
    Grid, Height, PatchGrid, RgbImage, TextTokenizer, Truncation, VisionPreprocess, Width, decode_image_file,
    image_patches, image_size, resized_frames, resized_image, video_patches, video_size,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::support::{assert_same, full_set, golden, json, plain_png, preprocess, stored_image};

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a whole number")
}

fn limits(case: &Value) -> VisionPreprocess {
    preprocess(number(&case["min_pixels"]), number(&case["max_pixels"]))
}

fn f32s(tensors: &SafeTensors<'_>, key: &str) -> Vec<f32> {
    let tensor = tensors.tensor(key).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32, "{key}");
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Decodes the files of a case and runs it: resized frames and patch rows.
fn run(case: &Value, folder: &Path) -> (Vec<RgbImage>, PatchGrid) {
    let settings = limits(case);
    let files =
        case["files"].as_array().or(case["frames"].as_array()).cloned().unwrap_or_else(|| vec![case["file"].clone()]);
    let frames: Vec<RgbImage> =
        files.iter().map(|file| decode_image_file(&folder.join(file.as_str().unwrap())).unwrap()).collect();
    if case["kind"] == "image" {
        (vec![resized_image(&frames[0], &settings).unwrap()], image_patches(&frames[0], &settings).unwrap())
    } else {
        (resized_frames(&frames, &settings).unwrap(), video_patches(&frames, &settings).unwrap())
    }
}

fn assert_grid(case: &Value, patches: &PatchGrid) {
    let want: Vec<usize> = case["grid_thw"].as_array().unwrap().iter().map(|v| number(v) as usize).collect();
    let grid = patches.grid();
    assert_eq!([grid.t, grid.h, grid.w], want[..], "{}", case["name"]);
    assert_eq!(patches.row_len(), 1536);
    assert_eq!(patches.rows().len(), grid.patches() * 1536);
}

/// Patch rows against stored ones. Videos, and single rows in the manifest, come from f32 steps in the order used here and
/// are met to the bit. Images come from the processor of transformers, which rescales in f64 first: measured 1.2e-7.
fn assert_rows(case: &Value, got: &[f32], want: &[f32]) {
    let bound = if case["kind"] == "image" && case["pixel_values"].is_string() { 1.5e-7 } else { 0.0 };
    assert_eq!(got.len(), want.len(), "{}", case["name"]);
    let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{}: patch rows within {apart:e}", case["name"]);
    assert!(apart <= bound, "{}: patch rows {apart:e} apart, expected at most {bound:e}", case["name"]);
}

#[test]
fn images_and_videos_are_resized_to_the_bit_and_cut_alike() {
    let manifest = json(&golden().join("references.json"));
    let bytes = std::fs::read(golden().join("references.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let cases = manifest["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10, "8 images and 2 videos");
    let mut rows_checked = 0;
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (resized, patches) = run(case, &golden().join("../refs/media"));
        let stored = case["resized"].as_array().unwrap();
        assert_eq!(resized.len(), stored.len());
        for (got, key) in resized.iter().zip(stored) {
            assert_same(name, got, &stored_image(&tensors, key.as_str().unwrap()));
        }
        assert_grid(case, &patches);
        if let Some(key) = case["pixel_values"].as_str() {
            let want = f32s(&tensors, key);
            for (row, want) in case["rows"].as_array().unwrap().iter().zip(want.chunks_exact(1536)) {
                let at = number(row) as usize * 1536;
                assert_rows(case, &patches.rows()[at..at + 1536], want);
                rows_checked += 1;
            }
        }
    }
    assert_eq!(rows_checked, 4);
}

#[test]
fn the_full_reference_set_of_images_and_videos_is_met() {
    let Some(shared) = full_set() else { return };
    let refs = shared.join("refs");
    let manifest = json(&refs.join("preprocess.json"));
    let bytes = std::fs::read(refs.join("preprocess.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        if case["kind"] == "audio" {
            continue;
        }
        let name = case["name"].as_str().unwrap();
        let (resized, patches) = run(case, &refs.join("media"));
        assert_grid(case, &patches);
        if let Some(key) = case["resized"].as_str() {
            let want = tensors.tensor(key).unwrap();
            let got: Vec<u8> = resized.iter().flat_map(|f| f.pixels().to_vec()).collect();
            assert_eq!(want.shape(), [resized.len(), resized[0].height().0 as usize, resized[0].width().0 as usize, 3]);
            assert!(got == want.data(), "{name}: resized bytes differ");
        }
        if let Some(file) = case["resized_png"].as_str() {
            assert_same(name, &resized[0], &plain_png(&std::fs::read(refs.join(file)).unwrap()));
            let want: Vec<f32> =
                case["row_100"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let at = 100 * 1536;
            assert_rows(case, &patches.rows()[at..at + want.len()], &want);
        }
        if let Some(key) = case["pixel_values"].as_str() {
            assert_rows(case, &patches.rows(), &f32s(&tensors, key));
        }
        ran += 1;
    }
    assert!(ran >= 13, "{ran} cases of images and videos");
    check_size_tables(&manifest["image_size_table"]["rows"], &manifest["video_size_table"]["rows"]);
}

fn check_size_tables(images: &Value, videos: &Value) {
    let sides = |h: &Value, w: &Value| (Height(number(h) as u32), Width(number(w) as u32));
    for row in images.as_array().unwrap() {
        let (h, w) = sides(&row[0], &row[1]);
        let settings = preprocess(number(&row[2]), number(&row[3]));
        assert_eq!(image_size(h, w, &settings).unwrap(), sides(&row[4], &row[5]), "image {row}");
    }
    for row in videos.as_array().unwrap() {
        let (h, w) = sides(&row[1], &row[2]);
        let settings = preprocess(number(&row[3]), number(&row[4]));
        assert_eq!(
            video_size(number(&row[0]) as usize, h, w, &settings).unwrap(),
            sides(&row[5], &row[6]),
            "video {row}"
        );
    }
}

#[test]
fn both_size_tables_are_met() {
    let manifest = json(&golden().join("references.json"));
    let (images, videos) = (&manifest["image_size_table"], &manifest["video_size_table"]);
    assert_eq!(images.as_array().unwrap().len(), 80);
    assert_eq!(videos.as_array().unwrap().len(), 120);
    check_size_tables(images, videos);
}

#[test]
fn halves_are_rounded_to_even() {
    // 720 is 22.5 x 32 and goes to 22 x 32; rounding halves up would give 736.
    let published = preprocess(262_144, 1_310_720);
    assert_eq!(image_size(Height(720), Width(1280), &published).unwrap(), (Height(704), Width(1280)));
    // Five frames count as four here; rounding up would count six.
    let tight = preprocess(4_096, 4 * 512 * 512);
    assert_eq!(video_size(5, Height(512), Width(512), &tight).unwrap(), (Height(512), Width(512)));
}

#[test]
fn needles_and_nothing_have_no_size() {
    let published = preprocess(262_144, 1_310_720);
    let kind = |h, w| image_size(Height(h), Width(w), &published).unwrap_err().kind();
    assert_eq!(kind(1, 201), "too_large");
    assert_eq!(kind(201, 1), "too_large");
    assert_eq!(kind(0, 5), "empty");
    assert!(image_size(Height(1), Width(200), &published).is_ok());
    let video = |n, h, w| video_size(n, Height(h), Width(w), &published).unwrap_err().kind();
    assert_eq!(video(0, 64, 64), "empty");
    assert_eq!(video(2, 31, 64), "too_short");
    assert_eq!(video(2, 32, 32 * 201), "too_large");
    assert_eq!(video_patches(&[], &published).unwrap_err().kind(), "empty");
    assert_eq!(resized_frames(&[], &published).unwrap_err().kind(), "empty");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let good = preprocess(4_096, 16_384);
    let bad: [(&str, VisionPreprocess); 8] = [
        ("patch", VisionPreprocess { patch: 0, ..good.clone() }),
        ("merge", VisionPreprocess { merge: 0, ..good.clone() }),
        ("temporal_patch", VisionPreprocess { temporal_patch: 0, ..good.clone() }),
        ("min_pixels", VisionPreprocess { min_pixels: 0, ..good.clone() }),
        ("max_pixels", VisionPreprocess { max_pixels: 4_095, ..good.clone() }),
        ("mean", VisionPreprocess { mean: [0.5, f32::NAN, 0.5], ..good.clone() }),
        ("std", VisionPreprocess { std: [0.5, 0.0, 0.5], ..good.clone() }),
        ("rescale", VisionPreprocess { rescale: f64::INFINITY, ..good.clone() }),
    ];
    good.check().unwrap();
    for (field, settings) in bad {
        let error = image_size(Height(64), Width(64), &settings).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn one_frame_is_a_group_of_two_and_an_odd_video_repeats_its_last() {
    let settings = preprocess(4_096, 65_536);
    let frame = |level: u8| RgbImage::new(Width(64), Height(64), vec![level; 64 * 64 * 3]).unwrap();
    let videos: [&[u8]; 3] = [&[10], &[10, 200, 90], &[10, 200, 90, 90]];
    let rows: Vec<PatchGrid> = videos
        .iter()
        .map(|video| {
            let frames: Vec<RgbImage> = video.iter().map(|level| frame(*level)).collect();
            video_patches(&frames, &settings).unwrap()
        })
        .collect();
    assert_eq!(rows[0].grid(), Grid { t: 1, h: 4, w: 4 });
    assert_eq!(rows[0], image_patches(&frame(10), &settings).unwrap());
    assert_eq!(rows[1].grid(), Grid { t: 2, h: 4, w: 4 });
    assert_eq!(rows[1], rows[2]);
    // Inside a row: channel, frame, pixel. The second frame begins after 16 x 16 values.
    let first_row = &rows[1].rows()[..512];
    let value = |level: f32| (level * (1.0 / 255.0) as f32 - 0.5) / 0.5;
    assert!(first_row[..256].iter().all(|v| *v == value(10.0)));
    assert!(first_row[256..].iter().all(|v| *v == value(200.0)));
}

#[test]
fn frames_of_other_sizes_follow_the_first() {
    let settings = preprocess(4_096, 65_536);
    let frame = |w: u32, h: u32| RgbImage::new(Width(w), Height(h), vec![77; (w * h * 3) as usize]).unwrap();
    let resized = resized_frames(&[frame(96, 64), frame(33, 190)], &settings).unwrap();
    for frame in resized {
        assert_eq!((frame.height(), frame.width()), (Height(64), Width(96)));
    }
}

#[test]
fn mean_and_deviation_belong_to_their_channels() {
    let settings = VisionPreprocess { mean: [0.0, 0.25, 0.5], std: [1.0, 0.5, 0.25], ..preprocess(1_024, 1_024) };
    let pixels: Vec<u8> = [51, 102, 153].repeat(32 * 32);
    let image = RgbImage::new(Width(32), Height(32), pixels).unwrap();
    let patches = image_patches(&image, &settings).unwrap();
    let row = &patches.rows()[..1536];
    for (channel, want) in [0.2_f32, 0.3, 0.4].into_iter().enumerate() {
        for value in &row[channel * 512..(channel + 1) * 512] {
            assert!((value - want).abs() < 1e-6, "channel {channel}: {value}");
        }
    }
}

/// Texts of a reference set: `[name, prefix, ids]` rows against one tokenizer.
fn check_text_ids(tokenizer: &TextTokenizer, texts: &Value, cases: &[(String, String, Value)]) {
    for (name, role, ids) in cases {
        let prefix = match role.as_str() {
            "query" => "Query: ",
            "document" => "Document: ",
            _ => "",
        };
        let text = texts[name.as_str()].as_str().unwrap();
        let want: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        let got = tokenizer.text_ids(prefix, text, 100_000, Truncation::Error).unwrap();
        assert_eq!(got.ids, want, "{role} {name}");
        assert!(!got.truncated);
        assert!(want.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        // Cut to fewer ids: the ends stay, the length is the limit.
        let keep = tokenizer.ids_bare(prefix).unwrap().len() + tokenizer.trailing_specials().len();
        if want.len() > keep + 1 {
            for side in [Truncation::Right, Truncation::Left] {
                let cut = tokenizer.text_ids(prefix, text, keep + 1, side).unwrap();
                assert!(cut.truncated && cut.ids.len() == keep + 1);
                assert!(cut.ids.ends_with(tokenizer.trailing_specials()));
            }
            let left = tokenizer.text_ids(prefix, text, keep + 1, Truncation::Left).unwrap();
            assert!(left.ids.starts_with(&tokenizer.ids_bare(prefix).unwrap()));
        }
    }
}

#[test]
fn the_tiny_tokenizers_give_the_stored_ids() {
    let manifest = json(&golden().join("references.json"));
    for (family, number_of_cases) in [("omni-small-tiny", 34), ("omni-nano-tiny", 33)] {
        let file = golden().join(format!("../checkpoints/{family}/tokenizer.json"));
        let tokenizer = TextTokenizer::from_file(&file).unwrap();
        let stored = &manifest["text_ids"][family];
        let suffix: Vec<u32> = serde_json::from_value(stored["suffix_ids"].clone()).unwrap();
        assert_eq!(tokenizer.trailing_specials(), suffix, "{family}");
        let cases: Vec<(String, String, Value)> = serde_json::from_value(stored["cases"].clone()).unwrap();
        assert_eq!(cases.len(), number_of_cases, "{family}");
        check_text_ids(&tokenizer, &manifest["texts"], &cases);
    }
}

#[test]
fn the_full_reference_set_of_texts_is_met() {
    let Some(shared) = full_set() else { return };
    let media = json(&shared.join("refs/media/media.json"));
    let texts: Value = media["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap().to_owned(), row["text"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for family in [
        "omni-small-tiny",
        "omni-small-tiny-f32",
        "omni-small-tiny-unified",
        "omni-nano-tiny",
        "omni-nano-tiny-unified",
    ] {
        let model = json(&shared.join(format!("refs/{family}.json")));
        let file = shared.join(format!("checkpoints/{family}/tokenizer.json"));
        let tokenizer = TextTokenizer::from_file(&file).unwrap();
        let suffix: Vec<u32> = serde_json::from_value(model["suffix_ids"].clone()).unwrap();
        assert_eq!(tokenizer.trailing_specials(), suffix, "{family}");
        let cases: Vec<(String, String, Value)> = model["cases"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|case| case["kind"] == "text")
            .map(|case| {
                let word = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
                (word("name"), word("prefix"), case["input_ids"].clone())
            })
            .collect();
        assert!(cases.len() >= 35, "{family}");
        check_text_ids(&tokenizer, &texts, &cases);
    }
}

#[test]
fn other_families_of_tokenizers_open_and_show_their_last_token() {
    let Some(shared) = full_set() else { return };
    for (name, last) in [
        ("bert-tiny", Some("[SEP]")),
        ("modernbert-tiny", Some("[SEP]")),
        ("xlm-roberta-tiny", Some("</s>")),
        ("siglip-tiny", Some("</s>")),
    ] {
        let file = shared.join(format!("checkpoints/{name}/tokenizer.json"));
        let tokenizer = TextTokenizer::from_file(&file).unwrap();
        let want: Vec<u32> = last.map(|token| tokenizer.token_id(token).unwrap()).into_iter().collect();
        assert_eq!(tokenizer.trailing_specials(), want, "{name}");
    }
}
