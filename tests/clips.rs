//! CLAP against its reference: decibels, vectors of audio, logits; clips of a longer audio, batches, other types; mistakes that
//! show, and fields that are refused. Vectors of texts are in `families.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use omniburn::{Dtype, Embedding, Engine, Input, Priority, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_media::{HertzRange, MelPreprocess, MelScale, decibel_mel};
use omniburn_models::flops::Shape;
use omniburn_models::record::{ClipFill, Modality};
use serde_json::{Value, json};

use crate::support::*;

const NAME: &str = "clap-tiny";

fn checkpoints() -> Vec<Checkpoint> {
    let there = |set: &Set| set.refs.join(format!("{NAME}.json")).is_file();
    sets().into_iter().filter(there).map(|set| set.checkpoint(NAME)).collect()
}

fn record_of(checkpoint: &Checkpoint, dtype: Dtype) -> PathBuf {
    record(&checkpoint.folder, dtype, TaskChoice::Default)
}

fn engine_of(checkpoint: &Checkpoint) -> Engine {
    builder(record_of(checkpoint, Dtype::F32)).open().expect("a fresh record opens")
}

fn request() -> Request {
    Request::new(Role::None).truncation(Truncation::Right)
}

fn embed(engine: &Engine, input: Input) -> Embedding {
    engine.embed_with(&[input], &request()).unwrap().swap_remove(0).unwrap().embedding
}

/// Vectors of a tower with fusion: audio that is shorter than a clip, as long, and longer, where four looks at it are read.
#[test]
fn audio_of_a_tower_with_fusion_equals_the_reference() {
    let checkpoint = golden().checkpoint("clap-fused-tiny");
    let engine = engine_of(&checkpoint);
    let (mut worst, mut longer) = (Worst::default(), 0);
    let mut inputs = Vec::new();
    for case in checkpoint.cases("audio") {
        let files = case["files"].as_array().unwrap();
        let wave: Vec<f32> = files.iter().flat_map(|file| samples(&checkpoint.media.join(str_of(file)))).collect();
        let input = Input::audio_samples(wave.clone(), 48_000);
        let got = embed(&engine, input.clone());
        let want = checkpoint.tensor(str_of(&case["embedding"]));
        worst.see(compare(str_of(&case["name"]), got.as_slice(), &want, embedding_bound()));
        longer += usize::from(case["longer"] == true);
        inputs.push((input, got));
        if let Some(key) = case["mel"].as_str() {
            let settings = MelPreprocess { sample_rate_hz: 48_000, fft_samples: 1024, hop_samples: 480, mels: 64 };
            let range = HertzRange { lowest: 50, highest: 14_000, scale: MelScale::Htk };
            let looks = decibel_mel(&wave, &settings, range).unwrap().four_looks(101);
            assert_eq!(looks.frames(), 404);
            let some: Vec<f32> = looks.values().chunks_exact(64).step_by(7).flatten().copied().collect();
            compare("decibels", &some, &checkpoint.tensor(key), 5e-4);
        }
    }
    worst.report("clap-fused-tiny audio");
    assert!(longer > 3);
    // The same bits together and in short steps.
    let short = builder(record_of(&checkpoint, Dtype::F32)).time_slice(Duration::from_micros(1)).open().unwrap();
    let all: Vec<Input> = inputs.iter().map(|(input, _)| input.clone()).collect();
    for (got, (_, want)) in short.embed_with(&all, &request()).unwrap().into_iter().zip(&inputs) {
        assert_eq!(&got.unwrap().embedding, want);
    }
    assert_eq!(short.memory_in_use().1, 0);
}

/// Without the parts of longer audio a vector is another, and a preprocessor or a kind of fusion that is not the tower's is refused.
#[test]
fn mistakes_in_fusion_show_and_are_refused_by_name() {
    let checkpoint = golden().checkpoint("clap-fused-tiny");
    let case = checkpoint.cases("audio").find(|case| case["longer"] == true).unwrap();
    let files = case["files"].as_array().unwrap();
    let wave: Vec<f32> = files.iter().flat_map(|file| samples(&checkpoint.media.join(str_of(file)))).collect();
    let record = record_of(&checkpoint, Dtype::F32);
    // The first clip alone.
    let engine = builder(record).open().unwrap();
    let cut = embed(&engine, Input::audio_samples(wave[..48_000].to_vec(), 48_000));
    let far = distance("one clip", cut.as_slice(), &checkpoint.tensor(str_of(&case["embedding"]))).max_abs;
    assert!(far > 10.0 * embedding_bound(), "{far}");
    for (file, path, value, said) in [
        ("preprocessor_config.json", vec!["truncation"], json!("rand_trunc"), "truncation"),
        ("config.json", vec!["audio_config", "fusion_type"], json!("channel_map"), "fusion_type"),
        ("config.json", vec!["audio_config", "aff_block_r"], json!(64), "audio.fusion"),
        ("config.json", vec!["audio_config", "enable_fusion"], json!(false), "fusion_model"),
    ] {
        let copy = scratch().join(format!("clap-{}", next()));
        copy_folder(&checkpoint.folder, &copy);
        let at = copy.join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
        let place = path.iter().fold(&mut json, |json, name| &mut json[*name]);
        *place = value;
        std::fs::write(&at, json.to_string()).unwrap();
        let error = convert(&ConvertOptions { check: true, ..ConvertOptions::new(copy, "") }).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

/// Samples of a WAV file of sixteen bits, whatever rate it says: the reference takes them at the model's.
fn samples(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"data").expect("a chunk of samples") + 8;
    let two = |two: &[u8]| f32::from(i16::from_le_bytes([two[0], two[1]])) / 32768.0;
    bytes[at..].chunks_exact(2).map(two).collect()
}

fn audio(checkpoint: &Checkpoint, case: &Value) -> Input {
    Input::audio_samples(samples(&checkpoint.media.join(str_of(&case["file"]))), 48_000)
}

#[test]
fn decibels_equal_the_reference() {
    for checkpoint in checkpoints() {
        let record = open(&record_of(&checkpoint, Dtype::F32));
        let sound = record.header().preprocess.audio.clone().expect("audio goes in");
        let clip = sound.clip.clone().expect("in clips");
        assert_eq!(
            (clip.samples, clip.fill, clip.lowest_hz, clip.highest_hz),
            (48_000, ClipFill::RepeatPad, 50, 14_000)
        );
        let settings = MelPreprocess {
            sample_rate_hz: sound.sample_rate_hz,
            fft_samples: sound.fft_samples,
            hop_samples: sound.hop_samples,
            mels: sound.mels,
        };
        let mut worst = Worst::default();
        for case in checkpoint.cases("audio") {
            let Some(want) = case["mel"].as_str() else { continue };
            let samples = samples(&checkpoint.media.join(str_of(&case["file"])));
            let times = clip.samples as usize / samples.len();
            let mut filled = samples.repeat(times);
            filled.resize(clip.samples as usize, 0.0);
            let range = HertzRange { lowest: clip.lowest_hz, highest: clip.highest_hz, scale: MelScale::Slaney };
            let mel = decibel_mel(&filled, &settings, range).unwrap();
            assert_eq!(mel.frames() as u64, case["frames"].as_u64().unwrap());
            worst.see(compare(str_of(&case["name"]), mel.values(), &checkpoint.tensor(want), 5e-4));
        }
        worst.report("decibels");
    }
}

#[test]
fn audio_and_logits_equal_the_reference() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let mut worst = Worst::default();
        let mut vectors = Vec::new();
        for case in checkpoint.cases("audio") {
            let got = embed(&engine, audio(&checkpoint, case));
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            worst.see(compare(str_of(&case["name"]), got.as_slice(), &want, embedding_bound()));
            vectors.push(got);
        }
        worst.report("audio");
        let similarity = engine.header().family.similarity().expect("it has one");
        assert!(similarity.logit_bias.is_none());
        let texts = checkpoint.cases("text").map(|case| embed(&engine, Input::text(str_of(&case["text"]))));
        let dot = |a: &Embedding, b: &Embedding| -> f64 {
            a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let got: Vec<f32> = texts
            .flat_map(|text| vectors.iter().map(|audio| similarity.logit(dot(&text, audio)) as f32).collect::<Vec<_>>())
            .collect();
        let tensor = checkpoint.cases("logits").next().map(|case| str_of(&case["tensor"]).to_owned()).expect("logits");
        compare("logits", &got, &checkpoint.tensor(&tensor), similarity.logit_scale.exp() as f32 * embedding_bound());
    }
}

#[test]
fn audio_has_the_same_bits_in_any_company_and_any_steps() {
    let checkpoint = golden().checkpoint(NAME);
    let engine = engine_of(&checkpoint);
    let short = builder(record_of(&checkpoint, Dtype::F32)).time_slice(Duration::from_micros(1)).open().unwrap();
    let mut inputs: Vec<Input> = checkpoint.cases("audio").map(|case| audio(&checkpoint, case)).collect();
    inputs.extend(checkpoint.cases("text").map(|case| Input::text(str_of(&case["text"]))));
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
            same(NAME, &got, &want);
        }
    }
    assert_eq!(engine.memory_in_use().1, 0);
}

#[test]
fn audio_longer_than_a_clip_is_the_mean_direction_of_clips_over_all_of_it() {
    let checkpoint = golden().checkpoint(NAME);
    let engine = engine_of(&checkpoint);
    let clip = |phase: f32| -> Vec<f32> {
        (0..48_000).map(|at| (at as f32 * 0.02 + phase).sin() * (0.3 + 0.1 * phase)).collect()
    };
    let clips = [clip(0.0), clip(1.0), clip(2.0)];
    let whole = embed(&engine, Input::audio_samples(clips.concat(), 48_000));
    let each: Vec<Embedding> =
        clips.iter().map(|clip| embed(&engine, Input::audio_samples(clip.clone(), 48_000))).collect();
    let mut sum = vec![0.0f32; whole.as_slice().len()];
    for one in &each {
        sum.iter_mut().zip(one.as_slice()).for_each(|(sum, value)| *sum += value);
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    let mean: Vec<f32> = sum.iter().map(|value| value / length).collect();
    compare("three clips", whole.as_slice(), &mean, 1e-6);
    assert!(engine.header().family.takes(Modality::Audio) && !engine.header().family.takes(Modality::Image));
    let image = engine.embed_with(&[checkpoint.image_named("odd")], &request()).unwrap().swap_remove(0).unwrap_err();
    assert_eq!(image.kind().name(), "modality_absent", "{image}");
    let nothing = engine.embed_with(&[Input::audio_samples(Vec::new(), 48_000)], &request()).unwrap().swap_remove(0);
    assert!(nothing.is_err(), "{nothing:?}");
}

#[test]
fn audio_in_other_types_is_near_the_reference() {
    let checkpoint = golden().checkpoint(NAME);
    for (dtype, least) in [(Dtype::Bf16, 0.999), (Dtype::Int8, 0.99)] {
        let engine = builder(record_of(&checkpoint, dtype)).open().unwrap();
        for case in checkpoint.cases("audio") {
            let got = embed(&engine, audio(&checkpoint, case));
            let cosine = distance(NAME, got.as_slice(), &checkpoint.tensor(str_of(&case["embedding"]))).cosine;
            assert!(cosine > least, "{dtype}, {}: {cosine}", case["name"]);
        }
    }
    let record = open(&record_of(&checkpoint, Dtype::F32));
    let family = &record.header().family;
    let count = |clips: usize| family.flops(&Shape::Mel { clips: vec![101; clips], tokens: 1 }).unwrap();
    assert_eq!((count(3), family.activations().stem > 0), (3 * count(1), true));
}

/// A changed copy of the checkpoint.
fn changed(checkpoint: &Checkpoint, file: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let copy = scratch().join(format!("clips-{}", next()));
    copy_folder(&checkpoint.folder, &copy);
    let path = copy.join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
    copy
}

fn converted(folder: &Path) -> Result<PathBuf, ConvertError> {
    let out = scratch().join(format!("{}-record", folder.file_name().unwrap().to_string_lossy()));
    convert(&ConvertOptions { dtype: Dtype::F32, force: true, ..ConvertOptions::new(folder, &out) })?;
    Ok(out)
}

/// Every mistake moves a vector by more than ten tolerances: the comparisons above can fail.
#[test]
fn mistakes_in_a_folder_show_in_vectors_of_audio() {
    let checkpoint = golden().checkpoint(NAME);
    let (config, processor) = ("config.json", "preprocessor_config.json");
    let cases: [(&str, &str, Value); 8] = [
        (config, "/audio_config/layer_norm_eps", json!(0.05)),
        (config, "/audio_config/hidden_act", json!("gelu_new")),
        (config, "/audio_config/num_attention_heads/0", json!(4)),
        (config, "/projection_hidden_act", json!("gelu")),
        (processor, "/frequency_min", json!(0)),
        (processor, "/frequency_max", json!(12_000)),
        (processor, "/padding", json!("pad")),
        (processor, "/hop_length", json!(400)),
    ];
    for (file, pointer, value) in cases {
        // Tables of bias are as wide as there are heads: the mistake is refused.
        let refused = pointer.ends_with("num_attention_heads/0");
        let folder = changed(&checkpoint, file, |json| *json.pointer_mut(pointer).expect(pointer) = value.clone());
        let record = converted(&folder);
        if refused {
            let error = record.unwrap_err().to_string();
            assert!(error.contains("relative_position_bias_table"), "{error}");
            continue;
        }
        let engine = builder(record.unwrap_or_else(|error| panic!("{pointer}: {error}"))).open().unwrap();
        let far = checkpoint.cases("audio").map(|case| {
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            distance(pointer, embed(&engine, audio(&checkpoint, case)).as_slice(), &want).max_abs
        });
        let far = far.fold(0.0, f32::max) / embedding_bound();
        println!("{pointer} = {value} moves a vector by {far:.0} tolerances");
        assert!(far > 10.0, "{pointer} = {value} moves a vector by {far:.1} tolerances");
    }
}

#[test]
fn fields_of_audio_that_are_not_computed_are_refused_by_name() {
    let checkpoint = golden().checkpoint(NAME);
    let (config, processor) = ("config.json", "preprocessor_config.json");
    let cases: [(&str, &str, &str, Value); 16] = [
        (config, "/audio_config", "patch_stride", json!([2, 2])),
        (config, "/audio_config", "patch_size", json!([4, 2])),
        (config, "/audio_config", "flatten_patch_embeds", json!(false)),
        (config, "/audio_config", "enable_patch_layer_norm", json!(false)),
        (config, "/audio_config", "patch_embed_input_channels", json!(4)),
        (config, "/audio_config", "hidden_size", json!(64)),
        (config, "/audio_config", "depths", json!([2, "1"])),
        (config, "/audio_config", "hidden_act", json!("silu")),
        (config, "/text_config", "is_decoder", json!(true)),
        (processor, "", "truncation", json!("fusion")),
        (processor, "", "padding", json!("mirror")),
        (processor, "", "padding_value", json!(1.0)),
        (processor, "", "feature_size", json!(64)),
        (processor, "", "frequency_max", json!(40_000)),
        (processor, "", "feature_extractor_type", json!("WhisperFeatureExtractor")),
        (processor, "", "max_length_s", json!(100_000)),
    ];
    for (file, at, field, value) in cases {
        let folder = changed(&checkpoint, file, |json| json.pointer_mut(at).unwrap()[field] = value.clone());
        let error = converted(&folder).expect_err(field);
        let ConvertError::Fields { path, faults } = &error else { panic!("{field} = {value}: {error}") };
        assert!(path.ends_with(file) && faults.iter().any(|fault| fault.field.ends_with(field)), "{field}: {error}");
    }
    // A clip that the image of the tower does not hold.
    let folder = changed(&checkpoint, processor, |json| json["max_length_s"] = json!(3));
    let error = converted(&folder).unwrap_err().to_string();
    assert!(error.contains("clip.samples"), "{error}");
}
