//! The mini and bert families against the reference: towers, parts and vectors; batches; records in int8.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, Tensor, TensorData};
use omniburn::{Dtype, Engine, Height, Input, RecordFolder, Request, RgbImage, Role, Width};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_models::batch::{MelRows, TokenRows};
use omniburn_models::blocks::{Pooling, TokenTable, normalize_l2};
use omniburn_models::families::bert::BertText;
use omniburn_models::families::mini::{ImageParts, MiniText, SpeechParts, SpeechTower};
use omniburn_models::families::{BertConfig, MiniConfig};
use omniburn_models::record::{Modality, Part, TemplateKind, TensorRole, TensorSpec, int8};
use omniburn_models::towers::conv::ConvTower;
use omniburn_models::{RecordError, Segments};
use safetensors::{Dtype as StDtype, SafeTensors};
use serde_json::Value;

use crate::support::*;

const MINI: &str = "mini-tiny";
const BERT: &str = "bert-tiny";

/// What the reference stored of one checkpoint.
struct Refs {
    manifest: Value,
    bytes: Vec<u8>,
}

impl Refs {
    fn of(name: &str) -> Self {
        Self::in_set(&golden(), name)
    }

    fn in_set(set: &Set, name: &str) -> Self {
        let refs = &set.refs;
        let manifest = std::fs::read(refs.join(format!("{name}.json"))).unwrap();
        let bytes = std::fs::read(refs.join(format!("{name}.safetensors"))).unwrap();
        Self { manifest: serde_json::from_slice(&manifest).unwrap(), bytes }
    }

    fn stored(&self, key: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        let values = match tensor.dtype() {
            StDtype::F32 => tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            StDtype::F16 => {
                tensor.data().as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
            }
            StDtype::U8 => tensor.data().iter().map(|&b| f32::from(b)).collect(),
            other => panic!("{key}: {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    fn tensor(&self, key: &str) -> Vec<f32> {
        self.stored(key).1
    }

    fn texts(&self) -> Vec<Vec<u32>> {
        self.manifest["texts"].as_array().unwrap().iter().map(|text| ids_of(&text["ids"])).collect()
    }
}

fn checkpoint_folder(name: &str) -> PathBuf {
    golden().checkpoints.join(name)
}

/// Every set with a mini model: ours, and those that `OMNIBURN_TEST_SETS` names, the shipped model's among them.
fn mini_sets() -> Vec<Set> {
    sets().into_iter().filter(|set| set.refs.join(format!("{MINI}.json")).is_file()).collect()
}

fn opened(name: &str, dtype: Dtype) -> RecordFolder {
    open(&record(&checkpoint_folder(name), dtype, TaskChoice::Default))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn on_device<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

fn word_rows(tokens: &TokenTable, texts: &[Vec<u32>], device: &Device) -> TokenRows {
    let mut rows = Vec::new();
    texts.iter().for_each(|ids| tokens.gather(ids, &mut rows).unwrap());
    let segments = Segments::from_lengths(texts.iter().map(Vec::len));
    TokenRows { rows: on_device(rows, [segments.rows(), tokens.hidden()], device), segments }
}

/// The whole mini model.
struct Mini {
    config: MiniConfig,
    text: MiniText,
    image: ConvTower,
    speech: SpeechTower,
    device: Device,
}

impl Mini {
    fn open(set: &Set, dtype: Dtype) -> Self {
        let folder = record(&set.checkpoints.join(MINI), dtype, TaskChoice::Default);
        let (record, device) = (open(&folder), burn_device(device()));
        let config = record
            .header()
            .family
            .of::<omniburn_models::families::MiniConfig>()
            .expect("a record of this family")
            .clone();
        let tokens = config.open_tokens(&record).unwrap();
        let task = &record.header().default_task;
        Self {
            text: config.open_text(&record, task, tokens, Dtype::F32, &device).unwrap(),
            image: config.open_image(&record, Dtype::F32, &device).unwrap().unwrap(),
            speech: config.open_speech(&record, Dtype::F32, &device).unwrap().unwrap(),
            config,
            device,
        }
    }

    fn texts(&self, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
        rows_of(self.text.text(word_rows(&self.text.tokens, texts, &self.device)))
    }

    /// Maps of images that the reference stored as bytes.
    fn maps(&self, refs: &Refs, keys: &[String]) -> Tensor<4> {
        let size = self.config.image.as_ref().unwrap().tower.image_size;
        let mut pixels = Vec::new();
        for key in keys {
            let bytes = refs.tensor(key);
            // Stored by pixel, read by channel.
            for channel in 0..3 {
                pixels.extend(bytes.iter().skip(channel).step_by(3).map(|v| (v - 127.0) / 128.0));
            }
        }
        self.image.forward(on_device(pixels, [keys.len(), 3, size, size], &self.device))
    }

    fn listen(&self, refs: &Refs, clips: &[usize]) -> TokenRows {
        let mels: Vec<Vec<f32>> = clips.iter().map(|i| refs.tensor(&format!("speech/{i}/mel"))).collect();
        let bands = self.config.speech.as_ref().unwrap().tower.mels;
        let windows = mels.iter().map(|mel| mel.len() / bands).collect();
        self.speech.forward(MelRows::new(mels.concat(), bands, windows, &self.device))
    }
}

fn rows_of(tensor: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = tensor.dims();
    values(tensor).chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn keys(kind: &str) -> Vec<String> {
    (0..3).map(|i| format!("{kind}/{i}/pixels")).collect()
}

fn image_parts(parts: ImageParts) -> [(&'static str, Vec<Vec<f32>>); 4] {
    [("u", rows_of(parts.u)), ("s", rows_of(parts.s)), ("c", rows_of(parts.c)), ("vector", rows_of(parts.vector))]
}

fn speech_parts(parts: SpeechParts) -> [(&'static str, Vec<Vec<f32>>); 3] {
    [("u", rows_of(parts.u)), ("s", rows_of(parts.s)), ("vector", rows_of(parts.vector))]
}

/// Vectors of the mini family against the reference in f32, whose sums over towers and connectors are longer than a
/// text's.
const VECTOR: f32 = 1e-5;

#[test]
fn texts_equal_the_reference() {
    for set in mini_sets() {
        let (refs, model) = (Refs::in_set(&set, MINI), Mini::open(&set, Dtype::F32));
        let mut worst = Worst::default();
        for (i, got) in model.texts(&refs.texts()).iter().enumerate() {
            worst.see(compare(&format!("text/{i}"), got, &refs.tensor(&format!("text/{i}")), embedding_bound()));
        }
        worst.report("mini texts");
    }
}

#[test]
fn maps_parts_and_vectors_of_pictures_equal_the_reference() {
    for set in mini_sets() {
        let (refs, model) = (Refs::in_set(&set, MINI), Mini::open(&set, Dtype::F32));
        let (mut towers, mut vectors) = (Worst::default(), Worst::default());
        let maps = model.maps(&refs, &keys("picture"));
        let [count, channels, height, width] = maps.dims();
        let side = model.config.image.as_ref().unwrap().tower.map_side();
        assert_eq!([count, height, width], [3, side, side]);
        for (i, map) in values(maps.clone()).chunks_exact(channels * side * side).enumerate() {
            towers.see(compare("map", map, &refs.tensor(&format!("picture/{i}/map")), feature_bound()));
        }
        for (name, rows) in image_parts(model.text.image(maps)) {
            for (i, got) in rows.iter().enumerate() {
                let key = format!("picture/{i}/{name}");
                vectors.see(compare(&key, got, &refs.tensor(&key), VECTOR));
            }
        }
        towers.report("mini maps");
        vectors.report("mini picture parts");
    }
}

#[test]
fn a_video_is_the_mean_of_its_maps() {
    for set in mini_sets() {
        let (refs, model) = (Refs::in_set(&set, MINI), Mini::open(&set, Dtype::F32));
        let mut worst = Worst::default();
        for (name, rows) in image_parts(model.text.video(model.maps(&refs, &keys("frame")))) {
            assert_eq!(rows.len(), 1);
            let key = format!("film/{name}");
            worst.see(compare(&key, &rows[0], &refs.tensor(&key), VECTOR));
        }
        worst.report("mini video parts");
    }
}

#[test]
fn rows_parts_and_vectors_of_speech_equal_the_reference() {
    for set in mini_sets() {
        let (refs, model) = (Refs::in_set(&set, MINI), Mini::open(&set, Dtype::F32));
        let (mut towers, mut vectors) = (Worst::default(), Worst::default());
        let heard = model.listen(&refs, &[0, 1, 2]);
        let all = values(heard.rows.clone());
        let width = heard.rows.dims()[1];
        for (i, (start, len)) in heard.segments.iter().enumerate() {
            let want = refs.tensor(&format!("speech/{i}/rows"));
            towers.see(compare("rows", &all[start * width..(start + len) * width], &want, feature_bound()));
        }
        for (name, rows) in speech_parts(model.text.speech(heard)) {
            for (i, got) in rows.iter().enumerate() {
                let key = format!("speech/{i}/{name}");
                vectors.see(compare(&key, got, &refs.tensor(&key), VECTOR));
            }
        }
        towers.report("mini speech rows");
        vectors.report("mini speech parts");
    }
}

#[test]
fn every_kind_in_a_batch_has_the_vector_it_has_alone() {
    let (refs, model) = (Refs::of(MINI), Mini::open(&golden(), Dtype::F32));
    let texts = refs.texts();
    let alone: Vec<Vec<f32>> = texts.iter().map(|ids| model.texts(std::slice::from_ref(ids)).swap_remove(0)).collect();
    same("texts", &model.texts(&texts), &alone);
    let image = |keys: &[String]| rows_of(model.text.image(model.maps(&refs, keys)).vector);
    let alone: Vec<Vec<f32>> = keys("picture").chunks(1).map(|key| image(key).swap_remove(0)).collect();
    same("pictures", &image(&keys("picture")), &alone);
    let speech = |clips: &[usize]| rows_of(model.text.speech(model.listen(&refs, clips)).vector);
    let alone: Vec<Vec<f32>> = (0..3).map(|i| speech(&[i]).swap_remove(0)).collect();
    same("speech", &speech(&[0, 1, 2]), &alone);
}

#[test]
fn the_header_of_a_mini_record_says_how_everything_is_prepared() {
    let record = opened(MINI, Dtype::F32);
    let header = record.header();
    assert_eq!((header.tasks.as_slice(), header.dims.as_slice()), (&["retrieval".to_string()][..], &[32][..]));
    let p = &header.preprocess;
    let square = p.letterbox.as_ref().unwrap();
    assert_eq!((square.image_size, square.mean, square.std, p.video_frames), (64, 127.0, 128.0, Some(8)));
    assert!(p.image.is_none() && p.video.is_none());
    let sound = p.audio.as_ref().unwrap();
    assert_eq!((sound.sample_rate_hz, sound.mels, sound.whole_seconds), (16_000, 80, Some(2)));
    for modality in [Modality::Image, Modality::Audio, Modality::Video] {
        let template = &header.templates[&modality];
        assert_eq!((template.kind, template.start, template.end), (TemplateKind::Noeos, Some(2), Some(3)));
    }
    let config = header.family.of::<omniburn_models::families::MiniConfig>().expect("a record of this family");
    assert_eq!(config.text.max_tokens, 64);
}

struct Bert {
    config: BertConfig,
    text: BertText,
    device: Device,
}

impl Bert {
    fn open(record: &Path) -> Self {
        let (record, device) = (open(record), burn_device(device()));
        let config = record
            .header()
            .family
            .of::<omniburn_models::families::BertConfig>()
            .expect("a record of this family")
            .clone();
        let tokens = config.open_tokens(&record).unwrap();
        let text = config.open_text(&record, "base", tokens, Dtype::F32, &device).unwrap();
        Self { config, text, device }
    }

    fn embed(&self, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
        rows_of(self.text.embed(word_rows(&self.text.tokens, texts, &self.device)))
    }
}

#[test]
fn bert_equals_the_reference_in_hidden_rows_and_in_either_pooling() {
    let refs = Refs::of(BERT);
    let texts = refs.texts();
    let model = Bert::open(&record(&checkpoint_folder(BERT), Dtype::F32, TaskChoice::Default));
    assert_eq!((model.config.max_tokens, model.config.vector_head.pooling), (80, Pooling::Mean));
    let hidden = model.text.encoder.forward(word_rows(&model.text.tokens, &texts[2..3], &model.device));
    compare("hidden", &values(hidden), &refs.tensor("text/2/hidden"), feature_bound());

    let copy = Copy::of(BERT);
    copy.change("1_Pooling/config.json", |json| {
        json["pooling_mode_mean_tokens"] = false.into();
        json["pooling_mode_cls_token"] = true.into();
    });
    let first = Bert::open(&copy.convert().unwrap());
    let mut worst = Worst::default();
    for (model, pooling) in [(model, "mean"), (first, "cls")] {
        for (i, got) in model.embed(&texts).iter().enumerate() {
            let unit = |v: &[f32]| normalize_l2(v).unwrap();
            let want = unit(&refs.tensor(&format!("text/{i}/{pooling}")));
            worst.see(compare(pooling, &unit(got), &want, embedding_bound()));
        }
    }
    worst.report("bert texts");
}

#[test]
fn what_a_bert_folder_may_say_is_computed_or_refused_by_name() {
    let copy = Copy::of(BERT);
    copy.change("1_Pooling/config.json", |json| {
        json["pooling_mode_mean_tokens"] = false.into();
        json["pooling_mode_attention_tokens"] = true.into();
    });
    let error = copy.convert().unwrap_err().to_string();
    assert!(error.contains("pooling_mode_attention_tokens"), "{error}");

    let copy = Copy::of(BERT);
    copy.change("modules.json", |json| json[2]["type"] = "sentence_transformers.models.LSTM".into());
    let error = copy.convert().unwrap_err().to_string();
    assert!(error.contains("[2].type") && error.contains("LSTM"), "{error}");
    copy.change("modules.json", |json| json[2]["type"] = "sentence_transformers.models.Dense".into());
    let error = copy.convert().unwrap_err().to_string();
    assert!(error.contains("missing files") && error.contains("2_Normalize"), "{error}");

    let copy = Copy::of(BERT);
    copy.change("config.json", |json| json["hidden_act"] = "silu".into());
    assert!(copy.convert().unwrap_err().to_string().contains("hidden_act"));

    // Names with the wrapper's prefix, no side files, a length from the tokenizer's own configuration.
    let copy = Copy::of(BERT);
    for file in ["1_Pooling/config.json", "sentence_bert_config.json", "modules.json"] {
        std::fs::remove_file(copy.folder.join(file)).unwrap();
    }
    std::fs::write(copy.folder.join("tokenizer_config.json"), r#"{"model_max_length": 50}"#).unwrap();
    copy.rename(|name| format!("bert.{name}"));
    let model = Bert::open(&copy.convert().unwrap());
    assert_eq!((model.config.max_tokens, model.config.vector_head.pooling), (50, Pooling::Mean));
    let refs = Refs::of(BERT);
    let unit = |v: &[f32]| normalize_l2(v).unwrap();
    compare("prefixed", &unit(&model.embed(&refs.texts())[1]), &unit(&refs.tensor("text/1/mean")), embedding_bound());

    let options = ConvertOptions { check: true, ..ConvertOptions::new(checkpoint_folder(BERT), "") };
    let report = convert(&options).unwrap();
    let dropped: Vec<&str> = report.dropped.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(dropped, ["embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"]);
    assert!(report.to_string().contains("not made by the pooler"), "{report}");
}

#[test]
fn choices_that_these_families_do_not_have_are_refused() {
    let options = || ConvertOptions { check: true, ..ConvertOptions::new(checkpoint_folder(MINI), "") };
    let mut asked = options();
    asked.tasks = TaskChoice::Named("poetry".into());
    assert!(matches!(convert(&asked), Err(ConvertError::UnknownTask { known, .. }) if known == ["retrieval"]));
    let mut asked = options();
    asked.adapters = vec![omniburn_convert::GivenAdapter::new("adapter")];
    assert!(
        matches!(convert(&asked), Err(ConvertError::MissingFiles { paths }) if paths[0].ends_with("adapter_config.json"))
    );
    let mut asked = options();
    asked.templates = BTreeMap::from([(Modality::Image, TemplateKind::Bare)]);
    assert!(matches!(convert(&asked), Err(ConvertError::TemplateFixed { modality: Modality::Image, .. })));
    let mut asked = ConvertOptions { check: true, ..ConvertOptions::new(checkpoint_folder(BERT), "") };
    asked.templates = BTreeMap::from([(Modality::Image, TemplateKind::Noeos)]);
    assert!(matches!(convert(&asked), Err(ConvertError::TemplateModality { .. })));

    // An image tower left out is a checkpoint without one; one of its tensors left out is not.
    let copy = Copy::of(MINI);
    copy.change("config.json", |json| _ = json.as_object_mut().unwrap().remove("picture_config"));
    let error = copy.convert().unwrap_err().to_string();
    assert!(error.contains("tensors that nothing takes") && error.contains("picture.stem.weight"), "{error}");
    copy.keep(|name| !name.starts_with("picture"));
    let record = open(&copy.convert().unwrap());
    assert!(!record.header().family.takes(Modality::Video) && record.header().family.takes(Modality::Audio));
    copy.keep(|name| name != "speech.conv2.bias");
    assert!(copy.convert().unwrap_err().to_string().contains("missing tensors: speech.conv2.bias"));
}

/// Every weight of an int8 record is within half a step of its row in the f32 record; biases and norms are the same.
#[test]
fn int8_records_hold_every_value_within_half_a_step_of_its_row() {
    for name in [MINI, BERT, "omni-small-tiny", "omni-nano-tiny"] {
        let (exact, rough) = (opened(name, Dtype::F32), opened(name, Dtype::Int8));
        rough.verify(|_| {}).unwrap();
        let mut quantized = 0;
        for (file, specs) in exact.parts() {
            let (a, b) = (exact.part(&file, &specs).unwrap(), rough.part(&file, &specs).unwrap());
            for spec in &specs {
                let (want, got) = (stored_values(&a, spec), stored_values(&b, spec));
                if !spec.is_quantizable() {
                    assert_eq!(want, got, "{name}: {}", spec.name);
                    continue;
                }
                quantized += 1;
                let scales = b.bytes(&int8::scale_name(&spec.name));
                let steps: Vec<f32> =
                    scales.as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect();
                let (rows, width) = (spec.row_count(), spec.elements() / spec.row_count());
                assert_eq!(steps.len(), rows);
                for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                    let step = steps[if spec.role == TensorRole::Linear { i % rows } else { i / width }];
                    assert!((want - got).abs() <= 0.501 * step, "{name}: {}[{i}]: {got} for {want}", spec.name);
                }
            }
        }
        assert!(quantized > 5, "{name}");
        let bytes = |record: &RecordFolder| record.header().files.values().map(|file| file.bytes).sum::<u64>();
        println!("{name}: {} bytes in f32, {} in int8", bytes(&exact), bytes(&rough));
    }
}

fn stored_values(part: &Part, spec: &TensorSpec) -> Vec<f32> {
    fn flat<const D: usize>(part: &Part, name: &str) -> Vec<f32> {
        part.tensor::<D>(name, &Device::flex()).into_data().convert::<f32>().try_to_vec().unwrap()
    }
    match spec.shape.len() {
        1 => flat::<1>(part, &spec.name),
        2 => flat::<2>(part, &spec.name),
        4 => flat::<4>(part, &spec.name),
        rank => panic!("{}: rank {rank}", spec.name),
    }
}

#[test]
fn vectors_of_int8_records_point_where_those_of_f32_do() {
    for (i, set) in mini_sets().into_iter().enumerate() {
        // Depth tells: seventeen blocks of a convolution tower lose more than the five of our own checkpoint.
        let bound = if i == 0 { 0.998 } else { 0.97 };
        let refs = Refs::in_set(&set, MINI);
        let (exact, rough) = (Mini::open(&set, Dtype::F32), Mini::open(&set, Dtype::Int8));
        let vectors = |model: &Mini| {
            let images = rows_of(model.text.image(model.maps(&refs, &keys("picture"))).vector);
            let speech = rows_of(model.text.speech(model.listen(&refs, &[0, 1, 2])).vector);
            [("texts", model.texts(&refs.texts())), ("pictures", images), ("speech", speech)]
        };
        for ((kind, want), (_, got)) in vectors(&exact).into_iter().zip(vectors(&rough)) {
            let cosines: Vec<f64> = want.iter().zip(&got).map(|(w, g)| distance(kind, g, w).cosine).collect();
            let least = cosines.iter().copied().fold(1.0, f64::min);
            println!("int8 {kind}: least cosine {least:.6}");
            assert!(least > bound && least < 1.0, "{kind}: {cosines:?}");
        }
    }
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let embed = |dtype| {
            let engine = builder(record(&checkpoint_folder(name), dtype, TaskChoice::Default)).open().unwrap();
            engine.embed_one(Input::text("a red car"), Role::Document).unwrap().as_slice().to_vec()
        };
        let cosine = distance(name, &embed(Dtype::Int8), &embed(Dtype::F32)).cosine;
        println!("int8 {name}: cosine {cosine:.6}");
        assert!(cosine > 0.995 && cosine < 1.0, "{name}: {cosine}");
    }
}

#[test]
fn a_flipped_byte_in_a_scale_is_found_and_named() {
    let source = record(&checkpoint_folder(MINI), Dtype::Int8, TaskChoice::Default);
    let copy = scratch().join("flipped-scale");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(&source).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let (file, name) = ("tokens.bpk", int8::scale_name("embed_tokens.weight"));
    let opened = open(&copy);
    let (_, specs) = opened.parts().into_iter().find(|(f, _)| f == file).unwrap();
    let scales = opened.part(file, &specs).unwrap().bytes(&name).to_vec();
    let mut bytes = std::fs::read(copy.join(file)).unwrap();
    let at = bytes.windows(scales.len()).position(|window| window == scales).unwrap();
    bytes[at] ^= 1;
    // By renaming, as the file is mapped.
    std::fs::write(copy.join("new"), bytes).unwrap();
    std::fs::rename(copy.join("new"), copy.join(file)).unwrap();
    match open(&copy).verify(|_| {}) {
        Err(RecordError::DigestMismatch { tensor, .. }) => assert_eq!(tensor, name),
        other => panic!("{other:?}"),
    }
}

fn stored_image(refs: &Refs, key: &str) -> RgbImage {
    let (shape, values) = refs.stored(key);
    let pixels = values.into_iter().map(|v| v as u8).collect();
    RgbImage::new(Width(shape[1] as u32), Height(shape[0] as u32), pixels).unwrap()
}

#[test]
fn through_the_engine_texts_pictures_and_films_equal_the_reference() {
    let mut worst = Worst::default();
    for (checkpoint, bound) in [(MINI, VECTOR), (BERT, embedding_bound())] {
        let engine = builder(record(&checkpoint_folder(checkpoint), Dtype::F32, TaskChoice::Default)).open().unwrap();
        let refs = Refs::of(checkpoint);
        let texts = refs.manifest["texts"].as_array().unwrap();
        let mut cases: Vec<(Input, String, usize)> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let key = if checkpoint == MINI { format!("text/{i}") } else { format!("text/{i}/mean") };
                (Input::text(str_of(&text["text"])), key, ids_of(&text["ids"]).len())
            })
            .collect();
        if checkpoint == MINI {
            // As large as the tower's square, so nothing is resized.
            let image = |kind: &str, i: usize| stored_image(&refs, &format!("{kind}/{i}/pixels"));
            cases.extend((0..3).map(|i| (Input::image_pixels(image("picture", i)), format!("picture/{i}/vector"), 8)));
            let frames = (0..3).map(|i| image("frame", i)).collect();
            cases.push((Input::video_frames(frames), "film/vector".into(), 8));
        }
        let inputs: Vec<Input> = cases.iter().map(|case| case.0.clone()).collect();
        // Neither family has prefixes.
        for role in [Role::Query, Role::Document, Role::None] {
            let results = engine.embed_with(&inputs, &Request::new(role)).unwrap();
            for ((_, key, tokens), result) in cases.iter().zip(results) {
                let found = result.unwrap();
                assert_eq!(found.tokens, *tokens, "{checkpoint} {key}");
                let want = normalize_l2(&refs.tensor(key)).unwrap();
                worst.see(compare(&format!("{checkpoint} {key}"), found.embedding.as_slice(), &want, bound));
            }
        }
    }
    worst.report("mini and bert through the engine");
}

fn tone(rate: u32, seconds: f32) -> Input {
    let count = (rate as f32 * seconds) as usize;
    let samples: Vec<f32> = (0..count).map(|i| 0.3 * (i as f32 * (0.06 + i as f32 * 2e-7)).sin()).collect();
    Input::audio_samples(samples, rate)
}

#[test]
fn through_the_engine_every_kind_keeps_its_bits_in_any_company_and_odd_inputs_have_a_vector() {
    for dtype in [Dtype::F32, Dtype::Int8] {
        let engine = builder(record(&checkpoint_folder(MINI), dtype, TaskChoice::Default)).open().unwrap();
        assert_eq!(engine.profile().modalities, Modality::ALL);
        let one_colour = RgbImage::new(Width(300), Height(20), vec![200; 18_000]).unwrap();
        let golden = golden().refs.join("media");
        let inputs = [
            Input::text("red car"),
            Input::image_pixels(one_colour.clone()),
            tone(16_000, 0.4),
            Input::video_frames(vec![one_colour]),
            tone(44_100, 7.3),
            Input::audio_samples(vec![0.0; 8000], 16_000),
            Input::image_file(golden.join("images/odd.png")),
            Input::video_file(workspace().join("tests/golden/media/videos/high.mp4")),
            Input::video_frame_files((0..40).map(|_| golden.join("images/odd.png")).collect()),
            Input::text("two dogs, one cat and 17 birds!"),
        ];
        let together = engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
        let tokens: Vec<usize> = together.iter().map(|r| r.as_ref().unwrap().tokens).collect();
        // Six rows and both ends; four rows and both ends a window of speech, two of them in 7.3 s.
        let rows = engine_speech_rows(&engine) + 2;
        assert_eq!(tokens[1..9], [8, rows, 8, 2 * rows, rows, 8, 8, 8]);
        for (input, together) in inputs.iter().zip(&together) {
            let alone = engine.embed_one(input.clone(), Role::Document).unwrap();
            same("alone", &[together.as_ref().unwrap().embedding.as_slice().to_vec()], &[alone.into_vec()]);
        }
        // The same frame forty times is the image itself, but for the sum of its maps.
        let image = together[6].as_ref().unwrap().embedding.clone();
        assert!(image.cosine(&together[8].as_ref().unwrap().embedding) > 0.999_99);
    }
}

fn engine_speech_rows(engine: &Engine) -> usize {
    match &engine.header().family.spec().audio {
        Some(omniburn_models::family::AudioForm::Windows { rows, .. }) => *rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_family_names_what_it_does_not_read() {
    let engine = builder(record(&checkpoint_folder(BERT), Dtype::F32, TaskChoice::Default)).open().unwrap();
    assert_eq!(engine.profile().modalities, [Modality::Text]);
    let inputs = [
        tone(16_000, 1.0),
        Input::image_file(golden().refs.join("media").join("images/odd.png")),
        Input::text("red car"),
    ];
    let results = engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().map_or_else(|e| e.kind().name(), |_| "ok")).collect();
    assert_eq!(kinds, ["modality_absent", "modality_absent", "ok"]);
}

#[test]
fn a_budget_too_small_for_a_picture_or_for_speech_is_refused() {
    let record = record(&checkpoint_folder(MINI), Dtype::F32, TaskChoice::Default);
    let inputs = [Input::image_file(golden().refs.join("media").join("images/odd.png")), tone(16_000, 1.0)];
    for input in inputs {
        let tight = builder(record.clone()).budget(1000).open().unwrap();
        let error = tight.embed_with(std::slice::from_ref(&input), &Request::default()).unwrap().swap_remove(0);
        let error = error.unwrap_err();
        let omniburn::ItemError::OverBudget { needed, .. } = error else { panic!("{error}") };
        let enough = builder(record.clone()).budget(needed).open().unwrap();
        assert!(enough.embed_one(input, Role::Document).is_ok());
    }
}

/// A checkpoint that a test changes.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn of(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let folder = scratch().join(format!("changed-{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)));
        copy_tree(&checkpoint_folder(name), &folder);
        Self { folder }
    }

    fn change(&self, file: &str, change: impl Fn(&mut Value)) {
        let path = self.folder.join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    }

    fn rename(&self, name: impl Fn(&str) -> String) {
        self.rewrite(|old| Some(name(old)));
    }

    fn keep(&self, keep: impl Fn(&str) -> bool) {
        self.rewrite(|name| keep(name).then(|| name.into()));
    }

    fn rewrite(&self, name: impl Fn(&str) -> Option<String>) {
        let path = self.folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let kept = file.tensors().into_iter().filter_map(|(old, view)| Some((name(&old)?, view)));
        std::fs::write(path, safetensors::serialize(kept, None).unwrap()).unwrap();
    }

    fn convert(&self) -> Result<PathBuf, ConvertError> {
        let out = self.folder.with_extension("record");
        let options = ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(&self.folder, &out) };
        convert(&options).map(|_| out)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
