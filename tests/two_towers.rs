//! Families of two towers, texts and images in one space, against their references: ids, pixels, vectors of images, logits;
//! batches, videos, other types; mistakes that show, and fields that are refused. Vectors of texts are in `families.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::{DType, Tensor, TensorData};
use omniburn::record::Similarity;
use omniburn::{Dtype, Embedding, Engine, Input, Priority, RecordFolder, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_media::{ResizeFilter, SquareFit, SquareTarget, TextTokenizer, decode_image_file, square_image};
use omniburn_models::Segments;
use omniburn_models::batch::TokenRows;
use omniburn_models::family::TextModel;
use omniburn_models::flops::Shape;
use omniburn_models::record::{ImageFilter, ImageFit, Modality, SquarePreprocess};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::*;

const SIGLIP: &str = "siglip-tiny";
const CLIP: &str = "clip-tiny";
/// Its images keep their shape.
const SIGLIP2: &str = "siglip2-tiny";
const ALL: [&str; 3] = [SIGLIP, CLIP, SIGLIP2];

/// The models of every set; ours holds all.
fn checkpoints() -> Vec<Checkpoint> {
    let there = |set: &Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    let all = sets().into_iter().flat_map(|set| {
        let names: Vec<&str> = ALL.into_iter().filter(|name| there(&set, name)).collect();
        names.into_iter().map(move |name| set.checkpoint(name)).collect::<Vec<Checkpoint>>()
    });
    let all: Vec<Checkpoint> = all.collect();
    assert!(ALL.iter().all(|name| all.iter().any(|checkpoint| checkpoint.name == *name)));
    all
}

fn record_of(checkpoint: &Checkpoint, dtype: Dtype) -> PathBuf {
    record(&checkpoint.folder, dtype, TaskChoice::Default)
}

fn engine_of(checkpoint: &Checkpoint) -> Engine {
    builder(record_of(checkpoint, Dtype::F32)).open().expect("a fresh record opens")
}

/// As the references embed: what is too long is cut at its end.
fn request() -> Request {
    Request::new(Role::None).truncation(Truncation::Right)
}

fn embed(engine: &Engine, input: Input) -> Embedding {
    engine.embed_with(&[input], &request()).unwrap().swap_remove(0).unwrap().embedding
}

fn text_of(case: &Value) -> Input {
    Input::text(str_of(&case["text"]))
}

fn square_of(record: &RecordFolder) -> SquarePreprocess {
    record.header().preprocess.square.clone().expect("a record of two towers says how images become squares")
}

/// Levels of an image as the tower reads them, plane by plane; of one that keeps its shape patch by patch, each as (row, column,
/// channel).
fn pixels(path: &Path, how: &SquarePreprocess) -> Vec<f32> {
    let filter = match how.filter {
        ImageFilter::Bilinear => ResizeFilter::Bilinear,
        ImageFilter::Bicubic => ResizeFilter::Bicubic,
    };
    let fit = match how.fit {
        ImageFit::Stretch => SquareFit::Stretch(filter),
        ImageFit::Crop { shorter } => SquareFit::Crop { shorter, filter },
        ImageFit::Patches { patch_px, most } => SquareFit::Patches { patch: patch_px, most, filter },
    };
    let image = decode_image_file(path).unwrap();
    let image = square_image(&image, SquareTarget { side: how.image_size, fit });
    let (height, width) = (image.height().0 as usize, image.width().0 as usize);
    let levels = image.into_pixels();
    let value =
        |channel: usize, level: u8| ((f64::from(level) * how.rescale) as f32 - how.mean[channel]) / how.std[channel];
    if let ImageFit::Patches { patch_px, .. } = how.fit {
        let (side, levels) = (patch_px as usize, &levels);
        let of = |row: usize, column: usize| (0..3).map(move |c| value(c, levels[3 * (row * width + column) + c]));
        let patch = |down: usize, across: usize| {
            (0..side).flat_map(move |row| (0..side).flat_map(move |column| of(down + row, across + column)))
        };
        let downs = (0..height).step_by(side);
        return downs.flat_map(|down| (0..width).step_by(side).flat_map(move |across| patch(down, across))).collect();
    }
    (0..3).flat_map(|c| levels.iter().skip(c).step_by(3).map(move |&level| value(c, level))).collect()
}

#[test]
fn ids_are_those_of_the_reference() {
    for checkpoint in checkpoints() {
        let record = open(&record_of(&checkpoint, Dtype::F32));
        let family = &record.header().family;
        let tokenizer = TextTokenizer::from_file(&record.tokenizer_path()).unwrap();
        let end = tokenizer.trailing_specials().first().copied();
        let mut seen = 0;
        for case in checkpoint.cases("text") {
            let cut = tokenizer.text_ids("", str_of(&case["text"]), family.max_tokens(), Truncation::Right).unwrap();
            let ids = family.text_rule().apply(cut.ids, family.max_tokens(), end);
            assert_eq!(ids, ids_of(&case["input_ids"]), "{}, {}", checkpoint.name, case["name"]);
            seen += 1;
        }
        assert!(seen > 10, "{}: {seen} texts", checkpoint.name);
    }
}

#[test]
fn pixels_are_those_of_the_reference_to_the_bit() {
    for checkpoint in checkpoints() {
        let how = square_of(&open(&record_of(&checkpoint, Dtype::F32)));
        let mut seen = 0;
        for case in checkpoint.cases("image") {
            let Some(want) = case["pixel_values"].as_str() else { continue };
            let got = pixels(&checkpoint.media.join(str_of(&case["file"])), &how);
            let other = got.iter().zip(&checkpoint.tensor(want)).filter(|(got, want)| got != want).count();
            assert_eq!(other, 0, "{}, {}: of {} values", checkpoint.name, case["name"], got.len());
            seen += 1;
        }
        assert!(seen > 0, "{}: nothing was compared", checkpoint.name);
    }
}

#[test]
fn images_and_logits_equal_the_reference() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let (mut vectors, mut logits) = (Worst::default(), Worst::default());
        let mut images = Vec::new();
        for case in checkpoint.cases("image") {
            let got = engine.embed_with(&[checkpoint.image(case)], &request()).unwrap().swap_remove(0).unwrap();
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            let name = format!("{}, {}", checkpoint.name, case["name"]);
            if let Some(patches) = case["patches"].as_u64() {
                assert_eq!(got.tokens as u64, patches, "{name}");
            }
            vectors.see(compare(&name, got.embedding.as_slice(), &want, embedding_bound()));
            images.push(got.embedding);
        }
        let similarity = engine.header().family.similarity().expect("all families have one");
        let texts: Vec<Embedding> = checkpoint.cases("text").map(|case| embed(&engine, text_of(case))).collect();
        let dot = |a: &Embedding, b: &Embedding| -> f64 {
            a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let got: Vec<f32> = texts
            .iter()
            .flat_map(|text| images.iter().map(|image| similarity.logit(dot(text, image)) as f32).collect::<Vec<_>>())
            .collect();
        let tensor = checkpoint.cases("logits").next().map(|case| str_of(&case["tensor"]).to_owned()).expect("logits");
        // A cosine of unit vectors that are each within a bound, times the scale.
        let bound = similarity.logit_scale.exp() as f32 * embedding_bound();
        logits.see(compare(&format!("{}, logits", checkpoint.name), &got, &checkpoint.tensor(&tensor), bound));
        vectors.report(&format!("{}, images", checkpoint.name));
        logits.report(&format!("{}, logits (bound {bound:.1e})", checkpoint.name));
    }
}

#[test]
fn items_have_the_same_bits_in_any_company_and_any_steps() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let short = builder(record_of(&checkpoint, Dtype::F32)).time_slice(Duration::from_micros(1)).open().unwrap();
        let mut inputs: Vec<Input> = Vec::new();
        for (image, text) in checkpoint.cases("image").zip(checkpoint.cases("text")) {
            inputs.push(checkpoint.image(image));
            inputs.push(text_of(text));
        }
        inputs.push(checkpoint.image_named("odd"));
        let alone: Vec<Vec<f32>> = inputs.iter().map(|input| embed(&engine, input.clone()).into_vec()).collect();
        let request = request().priority(Priority::Background);
        for engine in [&engine, &short] {
            for turn in [0, 5] {
                let mut order: Vec<usize> = (0..inputs.len()).collect();
                order.rotate_left(turn);
                let together: Vec<Input> = order.iter().map(|&at| inputs[at].clone()).collect();
                let got = engine.embed_with(&together, &request).unwrap();
                let got: Vec<Vec<f32>> = got.into_iter().map(|found| found.unwrap().embedding.into_vec()).collect();
                let want: Vec<Vec<f32>> = order.iter().map(|&at| alone[at].clone()).collect();
                same(&checkpoint.name, &got, &want);
            }
        }
    }
}

#[test]
fn a_video_is_the_mean_of_its_frames() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        assert!(engine.header().family.takes(Modality::Video));
        let names = ["odd", "square", "wide", "alpha"];
        let frames: Vec<PathBuf> =
            names.iter().map(|name| checkpoint.media.join(format!("images/{name}.png"))).collect();
        let video = embed(&engine, Input::video_frame_files(frames.clone()));
        let mut sum = vec![0.0f32; video.as_slice().len()];
        for name in names {
            let image = embed(&engine, checkpoint.image_named(name));
            sum.iter_mut().zip(image.as_slice()).for_each(|(sum, value)| *sum += value);
        }
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        let mean: Vec<f32> = sum.iter().map(|value| value / length).collect();
        compare(&checkpoint.name, video.as_slice(), &mean, 1e-6);
        // A video of one frame is that image, and frames that are held are those that are read.
        let one = embed(&engine, Input::video_frame_files(vec![frames[0].clone()]));
        assert_eq!(one, embed(&engine, checkpoint.image_named("odd")), "{}", checkpoint.name);
        let held = frames.iter().map(|path| decode_image_file(path).unwrap()).collect();
        assert_eq!(video, embed(&engine, Input::video_frames(held)), "{}", checkpoint.name);
        let audio = Input::audio_samples(vec![0.25; 16_000], 16_000);
        let refused = engine.embed_with(&[audio], &request()).unwrap().swap_remove(0).unwrap_err();
        assert_eq!(refused.kind().name(), "modality_absent", "{refused}");
    }
}

#[test]
fn images_in_other_types_are_near_the_reference() {
    for checkpoint in checkpoints() {
        for (dtype, least) in [(Dtype::Bf16, 0.999), (Dtype::Int8, 0.99)] {
            let engine = builder(record_of(&checkpoint, dtype)).open().unwrap();
            for case in checkpoint.cases("image") {
                let got = embed(&engine, checkpoint.image(case));
                let want = checkpoint.tensor(str_of(&case["embedding"]));
                let cosine = distance(&checkpoint.name, got.as_slice(), &want).cosine;
                assert!(cosine > least, "{} in {dtype}, {}: {cosine}", checkpoint.name, case["name"]);
            }
        }
    }
}

#[test]
fn the_logits_formula_stands_in_the_record_and_is_told() {
    for checkpoint in checkpoints() {
        let record = open(&record_of(&checkpoint, Dtype::F32));
        let header = record.header();
        let similarity: Similarity = header.family.similarity().unwrap();
        let words = header.family.words(&header.preprocess);
        let stated = words.iter().find(|(name, _)| *name == "similarity").map(|(_, words)| words.clone());
        let scale = format!("{:.4} x cosine", similarity.logit_scale.exp());
        assert!(stated.as_ref().is_some_and(|stated| stated.contains(&scale)), "{stated:?}, wanted {scale}");
        assert_eq!(similarity.logit_bias.is_some(), checkpoint.name != CLIP);
        // As the checkpoint has it.
        let bytes = std::fs::read(checkpoint.folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = file.tensor("logit_scale").unwrap();
        let value = match stored.data() {
            &[low, high] => f32::from_bits(u32::from(u16::from_le_bytes([low, high])) << 16),
            &[a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            other => panic!("{} bytes", other.len()),
        };
        assert_eq!(similarity.logit_scale, f64::from(value), "{}", checkpoint.name);
        let config = serde_json::to_value(&header.family).unwrap();
        assert!(config["config"]["similarity"]["logit_scale"].is_number(), "{config}");
    }
}

#[test]
fn operations_of_an_image_are_those_of_its_layers() {
    for checkpoint in checkpoints() {
        let record = open(&record_of(&checkpoint, Dtype::F32));
        let family = &record.header().family;
        let image = family.flops(&Shape::Pixels { count: 1 }).expect("an image goes in");
        assert_eq!(family.flops(&Shape::Pixels { count: 3 }), Some(3 * image));
        let config = serde_json::to_value(family).unwrap();
        let size = |name: &str| config["config"]["vision"][name].as_u64().unwrap();
        let (hidden, inner, layers, patch) = (size("hidden"), size("inner"), size("layers"), size("patch_px"));
        let patches = (size("image_size") / patch).pow(2);
        let rows = patches + u64::from(checkpoint.name == CLIP);
        let embedding = 2 * patches * 3 * patch * patch * hidden;
        let layer = 2 * rows * (4 * hidden * hidden + 2 * hidden * inner) + 4 * rows * rows * hidden;
        // What makes one vector of the rows is the rest.
        let most = embedding + layers * layer;
        assert!((most + 1..most * 5 / 4).contains(&image), "{}: {image}, {most} without the head", checkpoint.name);
        let alive = family.activations();
        assert_eq!((alive.image > 0, alive.patch.values > 0), (checkpoint.name != SIGLIP2, checkpoint.name == SIGLIP2));
        if checkpoint.name == SIGLIP2 {
            // An image of half as many patches is less than half of it.
            let half = Shape::Patches { groups: 1, patches: patches as usize / 2, tokens: 0 };
            assert!(family.flops(&half).unwrap() * 2 < image);
        }
    }
}

/// A changed copy of a checkpoint.
fn changed(checkpoint: &Checkpoint, what: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("towers-{}-{}-{}", checkpoint.name, what.replace([' ', '/'], "-"), next()));
    copy_folder(&checkpoint.folder, &copy);
    change(&copy);
    copy
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

fn converted(folder: &Path) -> Result<PathBuf, ConvertError> {
    let out = scratch().join(format!("{}-record", folder.file_name().unwrap().to_string_lossy()));
    convert(&ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(folder, &out) })?;
    Ok(out)
}

/// A float tensor of a checkpoint with other values.
fn with_tensor(folder: &Path, name: &str, value: impl Fn(usize, f32) -> f32) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = false;
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(own, view)| {
            let mut data = view.data().to_vec();
            if own == name {
                seen = true;
                assert_eq!(view.dtype(), safetensors::Dtype::BF16, "{name}");
                for (at, two) in data.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let old = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
                    *two = ((value(at, old).to_bits() >> 16) as u16).to_le_bytes();
                }
            }
            (own, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    assert!(seen, "{name}");
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Every mistake moves a vector by more than ten tolerances: the comparisons above can fail.
#[test]
fn mistakes_in_a_folder_show_in_its_vectors() {
    for checkpoint in ALL.map(|name| golden().checkpoint(name)) {
        let moved = |what: &str, kind: &str, folder: PathBuf| {
            let record = converted(&folder).unwrap_or_else(|error| panic!("{}, {what}: {error}", checkpoint.name));
            let engine = builder(record).open().unwrap();
            let far = checkpoint.cases(kind).map(|case| {
                let input = if kind == "text" { text_of(case) } else { checkpoint.image(case) };
                distance(what, embed(&engine, input).as_slice(), &checkpoint.tensor(str_of(&case["embedding"]))).max_abs
            });
            let far = far.fold(0.0, f32::max) / embedding_bound();
            println!("{}: {what} moves a vector by {far:.0} tolerances", checkpoint.name);
            assert!(far > 10.0, "{}: {what} moves a vector by {far:.1} tolerances", checkpoint.name);
        };
        let json = |what: &str, kind: &str, file: &str, pointer: &str, value: Value| {
            let folder = changed(&checkpoint, what, |folder| {
                edit(&folder.join(file), |json| *json.pointer_mut(pointer).expect(pointer) = value);
            });
            moved(what, kind, folder);
        };
        let tensor = |what: &str, kind: &str, name: &str, value: &dyn Fn(usize, f32) -> f32| {
            moved(what, kind, changed(&checkpoint, what, |folder| with_tensor(folder, name, value)));
        };
        let (config, processor) = ("config.json", "preprocessor_config.json");
        let act = if checkpoint.name == CLIP { "gelu" } else { "quick_gelu" };
        for (tower, kind) in [("text", "text"), ("vision", "image")] {
            let field = |name: &str| format!("/{tower}_config/{name}");
            json(&format!("another GELU, {tower}"), kind, config, &field("hidden_act"), act.into());
            json(&format!("another epsilon, {tower}"), kind, config, &field("layer_norm_eps"), 0.05.into());
            json(&format!("half the heads, {tower}"), kind, config, &field("num_attention_heads"), 2.into());
            let positions = format!("{tower}_model.embeddings.position_embedding.weight");
            tensor(&format!("no positions, {tower}"), kind, &positions, &|_, _| 0.0);
        }
        tensor("no bias of the norm behind the layers", "image", "vision_model.post_layernorm.bias", &|_, _| 0.0);
        tensor("no bias of the last norm of texts", "text", "text_model.final_layer_norm.bias", &|_, _| 0.0);
        json("another filter", "image", processor, "/resample", if checkpoint.name == SIGLIP2 { 3 } else { 2 }.into());
        json("another mean of green", "image", processor, "/image_mean/1", 0.51.into());
        json("another deviation of blue", "image", processor, "/image_std/2", 0.49.into());
        if checkpoint.name == CLIP {
            json("a longer shorter side", "image", processor, "/size/shortest_edge", 56.into());
            let folder = changed(&checkpoint, "nothing cut out", |folder| {
                edit(&folder.join(processor), |json| {
                    json["do_center_crop"] = false.into();
                    json["size"] = serde_json::json!({"height": 48, "width": 48});
                });
            });
            moved("nothing cut out", "image", folder);
            tensor("no class row", "image", "vision_model.embeddings.class_embedding", &|_, _| 0.0);
            tensor("no bias of the first norm", "image", "vision_model.pre_layrnorm.bias", &|_, _| 0.0);
        } else {
            tensor("no bias of the head's norm", "image", "vision_model.head.layernorm.bias", &|_, _| 0.0);
            let other = if checkpoint.name == SIGLIP { "</s>" } else { "<mask>" };
            json("another padding", "text", "tokenizer_config.json", "/pad_token", other.into());
        }
        if checkpoint.name == SIGLIP2 {
            json("fewer patches", "image", processor, "/max_num_patches", 16.into());
        }
    }
}

/// The vector of ids as they are, whatever the family makes of a text.
fn of_ids(record: &RecordFolder, ids: &[u32]) -> Vec<f32> {
    let (family, device) = (&record.header().family, burn_device(device()));
    let tokens = family.open_tokens(record).unwrap();
    let text: Arc<dyn TextModel> =
        family.open_text(record, &record.header().default_task, &tokens, Dtype::F32, &device).unwrap();
    let mut values = Vec::new();
    tokens.gather(ids, &mut values).unwrap();
    let data = TensorData::new(values, [ids.len(), tokens.hidden()]);
    let rows = Tensor::<2>::from_data(data, (&device, DType::F32));
    let mut pass = text.begin(TokenRows { rows, segments: Segments::single(ids.len()) }.into());
    let row = loop {
        if let Some(row) = pass.step() {
            break row;
        }
    };
    let row: Vec<f32> = row.pooled().into_data().try_to_vec().unwrap();
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter().map(|value| value / length).collect()
}

#[test]
fn the_padding_of_siglip_takes_part_and_what_stands_behind_clips_end_does_not() {
    for checkpoint in [golden().checkpoint(SIGLIP), golden().checkpoint(CLIP)] {
        let record = open(&record_of(&checkpoint, Dtype::F32));
        let longest = record.header().family.max_tokens();
        for name in ["single", "empty"] {
            let case = checkpoint.cases("text").find(|case| case["name"] == name).unwrap();
            let (ids, want) = (ids_of(&case["input_ids"]), checkpoint.tensor(str_of(&case["embedding"])));
            compare(name, &of_ids(&record, &ids), &want, embedding_bound());
            let far = |ids: &[u32]| distance(name, &of_ids(&record, ids), &want).max_abs / embedding_bound();
            if checkpoint.name == SIGLIP {
                assert_eq!(ids.len(), longest);
                let dropped = far(&ids[..ids.iter().position(|id| *id == 0).unwrap()]);
                assert!(dropped > 10.0, "{name} without its padding is {dropped} tolerances away");
            } else {
                // The row of the first token is that of a text of one.
                let first = far(&ids[..1]);
                assert!(first > 10.0, "{name} pooled at its first token is {first} tolerances away");
                // A caller who writes the end into a text ends it there.
                let engine = engine_of(&checkpoint);
                let text = format!("{}<|endoftext|> and more", str_of(&case["text"]));
                assert_eq!(embed(&engine, Input::text(text)), embed(&engine, text_of(case)), "{name}");
            }
        }
    }
}

#[test]
fn fields_that_are_not_computed_are_refused_by_name() {
    let checkpoints = [golden().checkpoint(SIGLIP), golden().checkpoint(CLIP)];
    let [siglip, clip] = &checkpoints;
    let (config, processor) = ("config.json", "preprocessor_config.json");
    let set = |pointer: &'static str, value: Value| -> Box<dyn Fn(&mut Value)> {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        Box::new(move |json| json.pointer_mut(parent).unwrap()[name] = value.clone())
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(&Checkpoint, &str, Change, &str)> = vec![
        (siglip, config, set("/text_config/hidden_act", json!("swish")), "text_config.hidden_act"),
        (siglip, config, set("/vision_config/hidden_act", json!(3)), "vision_config.hidden_act"),
        (siglip, config, set("/text_config/model_type", json!("clip_text_model")), "text_config.model_type"),
        (siglip, config, set("/vision_config/vision_use_head", json!(false)), "vision_config.vision_use_head"),
        (siglip, config, set("/text_config/projection_size", json!(40)), "text_config.projection_size"),
        (siglip, config, set("/vision_config/num_channels", json!(4)), "vision_config.num_channels"),
        (siglip, config, set("/text_config/is_decoder", json!(true)), "text_config.is_decoder"),
        (siglip, config, set("/text_config/num_attention_heads", json!(5)), "text.heads"),
        (siglip, config, set("/vision_config/patch_size", json!(57)), "vision.patch_px"),
        (siglip, config, set("/text_config/num_hidden_layers", json!(1_000_000)), "text_config.num_hidden_layers"),
        (siglip, "tokenizer_config.json", set("/pad_token", json!("<nothing>")), "<nothing>"),
        (siglip, processor, set("/do_resize", json!(false)), "do_resize"),
        (siglip, processor, set("/do_center_crop", json!(true)), "do_center_crop"),
        (siglip, processor, set("/size", json!({"shortest_edge": 56})), "size"),
        (siglip, processor, set("/size", json!({"height": 56, "width": 60})), "size"),
        (siglip, processor, set("/size/height", json!(64)), "size"),
        (siglip, processor, set("/resample", json!(1)), "resample"),
        (siglip, processor, set("/image_std", json!([0.5, 0.0, 0.5])), "image_std"),
        (siglip, processor, set("/image_mean", json!([0.5, 0.5])), "image_mean"),
        (siglip, processor, set("/do_normalize", Value::Null), "do_normalize"),
        (siglip, processor, set("/rescale_factor", json!(-1)), "rescale_factor"),
        (siglip, processor, set("/sharpen", json!(2)), "sharpen"),
        (siglip, processor, set("/image_processor_type", json!("ViTImageProcessor")), "image_processor_type"),
        (clip, config, set("/text_config/eos_token_id", json!(5)), "text_config.eos_token_id"),
        (clip, config, set("/text_config_dict", json!({"hidden_size": 48})), "text_config_dict"),
        (clip, config, set("/projection_dim", json!(41)), "text_projection"),
        (clip, processor, set("/crop_size", json!(40)), "crop_size"),
        (clip, processor, set("/size/shortest_edge", json!(40)), "size"),
        (clip, processor, set("/do_pad", json!(true)), "do_pad"),
        (clip, processor, set("/do_rescale", json!(false)), "do_rescale"),
    ];
    for (checkpoint, file, change, name) in cases {
        let folder = changed(checkpoint, "refused", |folder| edit(&folder.join(file), change));
        let error = match converted(&folder) {
            Ok(_) => panic!("{}, {file}: {name} was taken", checkpoint.name),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(name), "{}, {file}: {name} is not named in: {error}", checkpoint.name);
        std::fs::remove_dir_all(folder).unwrap();
    }
    // The numbers of the logits must be there.
    for (checkpoint, name) in [(siglip, "logit_scale"), (siglip, "logit_bias"), (clip, "logit_scale")] {
        let folder = changed(checkpoint, name, |folder| {
            let path = folder.join("model.safetensors");
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let rest = file.tensors().into_iter().filter(|(own, _)| own != name);
            std::fs::write(&path, safetensors::serialize(rest, None).unwrap()).unwrap();
        });
        let error = converted(&folder).expect_err("no formula without its numbers").to_string();
        assert!(error.contains(name), "{error}");
    }
    // Modules of sentence-transformers would change vectors.
    let folder = changed(siglip, "modules", |folder| {
        let modules = json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]);
        std::fs::write(folder.join("modules.json"), modules.to_string()).unwrap();
    });
    let error = converted(&folder).expect_err("modules").to_string();
    assert!(error.contains("modules.json"), "{error}");
}

/// What sentence-transformers saves of a CLIP: the model in a folder of its own, and a list of one module.
#[test]
fn folders_of_sentence_transformers_with_one_clip_module_convert() {
    let checkpoint = golden().checkpoint(CLIP);
    let normalize =
        json!({"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"});
    let root = |name: &str, kind: &str, normalized: bool, prompts: Value| {
        let root = scratch().join(format!("{name}-{}", next()));
        copy_folder(&checkpoint.folder, &root.join("0_CLIPModel"));
        let first = json!({"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind});
        let modules = if normalized { vec![first, normalize.clone()] } else { vec![first] };
        std::fs::write(root.join("modules.json"), Value::from(modules).to_string()).unwrap();
        std::fs::write(root.join("config_sentence_transformers.json"), json!({"prompts": prompts}).to_string())
            .unwrap();
        root
    };
    let own = engine_of(&checkpoint);
    for (normalized, kind) in
        [(false, "sentence_transformers.models.CLIPModel"), (true, "sentence_transformers.models.CLIPModel.CLIPModel")]
    {
        let folder = root("clip-module", kind, normalized, json!({}));
        let engine = builder(converted(&folder).unwrap_or_else(|error| panic!("{kind}: {error}"))).open().unwrap();
        for input in [Input::text("a violin"), checkpoint.image_named("odd")] {
            assert_eq!(embed(&engine, input.clone()), embed(&own, input));
        }
    }
    let prompted =
        root("clip-prompts", "sentence_transformers.models.CLIPModel", false, json!({"query": "a photo of "}));
    let error = converted(&prompted).expect_err("a prompt would be lost").to_string();
    assert!(error.contains("prompts"), "{error}");
    let other = root("clip-other", "sentence_transformers.models.WeightedLayerPooling", false, json!({}));
    assert!(converted(&other).expect_err("another module").to_string().contains("WeightedLayerPooling"));
}

#[test]
fn a_header_that_lies_about_images_is_refused_by_name() {
    let checkpoint = golden().checkpoint(CLIP);
    let record = record_of(&checkpoint, Dtype::F32);
    let header: Value = serde_json::from_slice(&std::fs::read(record.join("model.json")).unwrap()).unwrap();
    let copy = scratch().join("towers-header");
    copy_folder(&record, &copy);
    std::fs::write(copy.join("model.json"), header_text(header.clone())).unwrap();
    RecordFolder::open(&copy).expect("a header that says the same");
    for (pointer, value, name) in [
        ("/preprocess/square/image_size", json!(56), "preprocess.square.image_size"),
        ("/preprocess/square/fit/crop/shorter", json!(47), "preprocess.square.fit"),
        ("/preprocess/square/fit/crop/shorter", json!(1_000_000), "preprocess.square.fit"),
        ("/preprocess/square/std/1", json!(0.0), "preprocess.square.std"),
        ("/preprocess/square/rescale", json!(0.0), "preprocess.square.rescale"),
        ("/preprocess/square", Value::Null, "image"),
        ("/preprocess/letterbox", json!({"image_size": 48, "mean": 127.0, "std": 128.0}), "letterbox"),
        ("/templates/image/kind", json!("wrapped"), "templates.image"),
        ("/family/config/similarity/logit_scale", json!(1e9), "similarity.logit_scale"),
        ("/family/config/vision/head/class/vector", json!(39), "vision.head"),
    ] {
        let _ = std::fs::remove_dir_all(&copy);
        copy_folder(&record, &copy);
        let mut changed = header.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = changed.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} in {header}"));
        match parent {
            Value::Array(list) => list[field.parse::<usize>().unwrap()] = value,
            parent => parent[field] = value,
        }
        std::fs::write(copy.join("model.json"), header_text(changed)).unwrap();
        match RecordFolder::open(&copy) {
            Ok(_) => panic!("{pointer} was taken"),
            Err(error) => assert!(error.to_string().contains(name), "{pointer}: {error}"),
        }
    }
}
