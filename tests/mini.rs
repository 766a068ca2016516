//! The model that ships: its bytes, its vectors against the reference of the same weights, and what it finds.

use burn::tensor::{DType, Device, Tensor, TensorData};
use omniburn::{Dtype, Embedding, Engine, Input, RecordFolder, Request, Role, Truncation};
use omniburn_media::{AudioReader, AudioSource, MelPreprocess, decode_image_file, letterbox, log_mel};
use omniburn_models::batch::MelRows;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::*;

/// What the trainer's own forward pass gave for the weights as the record rounds them.
struct Reference {
    about: Value,
    bytes: Vec<u8>,
}

impl Reference {
    fn open() -> Self {
        let at = |ending: &str| golden().refs.join(format!("mini.{ending}"));
        let about = serde_json::from_slice(&std::fs::read(at("json")).unwrap()).unwrap();
        Self { about, bytes: std::fs::read(at("safetensors")).unwrap() }
    }

    fn has(&self, key: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(key).is_ok()
    }

    fn tensor(&self, key: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        let values = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (tensor.shape().to_vec(), values)
    }
}

fn engine() -> Engine {
    Engine::mini().unwrap()
}

fn one(engine: &Engine, input: Input) -> Embedding {
    engine.embed_one(input, Role::Document).unwrap()
}

#[test]
fn every_byte_is_as_its_digest_says_and_the_folder_is_what_the_program_holds() {
    let folder = workspace().join("models/mini/record");
    RecordFolder::open(&folder).unwrap().verify(|_| {}).unwrap();
    let (inside, outside) = (engine(), Engine::open(folder).unwrap());
    assert_eq!(inside.profile(), outside.profile());
    let input = Input::text("a red bicycle");
    assert_eq!(one(&inside, input.clone()), one(&outside, input));
}

#[test]
fn every_kind_has_the_vector_of_the_reference() {
    let engine = Engine::mini_builder().dtype(Dtype::F32).open().unwrap();
    let reference = Reference::open();
    let mut worst = Worst::default();
    let mut see = |name: &str, input: Input, want: &[f32]| {
        let request = Request::new(Role::Document).truncation(Truncation::Right);
        let found = engine.embed_with(&[input], &request).unwrap().swap_remove(0).unwrap();
        worst.see(compare(name, found.embedding.as_slice(), want, 1e-5));
        found.tokens
    };
    let (_, vectors) = reference.tensor("text.vector");
    for (case, want) in reference.about["texts"].as_array().unwrap().iter().zip(vectors.chunks_exact(384)) {
        let tokens = see(str_of(&case["text"]), Input::text(str_of(&case["text"])), want);
        assert_eq!(tokens as u64, case["pieces"].as_u64().unwrap().min(256), "{}", case["text"]);
    }
    let root = workspace().join("tests/golden");
    let path = |name: &Value| root.join(str_of(name));
    for (n, case) in reference.about["pictures"].as_array().unwrap().iter().enumerate() {
        let want = reference.tensor(&format!("picture.{n}.vector")).1;
        see(str_of(&case["file"]), Input::image_file(path(&case["file"])), &want);
    }
    for case in reference.about["films"].as_array().unwrap() {
        let name = str_of(&case["name"]);
        let frames = case["frames"].as_array().unwrap().iter().map(path).collect();
        see(name, Input::video_frame_files(frames), &reference.tensor(&format!("{name}.vector")).1);
    }
    for (n, case) in reference.about["sounds"].as_array().unwrap().iter().enumerate() {
        let want = reference.tensor(&format!("sound.{n}.vector")).1;
        see(str_of(&case["file"]), Input::audio_file(path(&case["file"])), &want);
    }
    worst.report("the model that ships");
}

#[test]
fn towers_and_connectors_equal_the_reference() {
    let reference = Reference::open();
    let record = open(&workspace().join("models/mini/record"));
    let config = record.header().family.of::<omniburn_models::families::MiniConfig>().expect("a record of this family");
    let device = Device::flex();
    let tokens = config.open_tokens(&record).unwrap();
    let text = config.open_text(&record, &record.header().default_task, tokens, Dtype::F32, &device).unwrap();
    let (mut towers, mut parts) = (Worst::default(), Worst::default());
    let see = |worst: &mut Worst, name: &str, got: Tensor<2>, bound: f32| {
        let got: Vec<f32> = got.into_data().try_to_vec().unwrap();
        worst.see(compare(name, &got, &reference.tensor(name).1, bound));
    };
    let root = workspace().join("tests/golden");

    let tower = config.open_image(&record, Dtype::F32, &device).unwrap().unwrap();
    for (n, case) in reference.about["pictures"].as_array().unwrap().iter().enumerate() {
        let image = decode_image_file(&root.join(str_of(&case["file"]))).unwrap();
        let pixels = letterbox(&image, 224).into_pixels();
        let planes = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|v| (f32::from(*v) - 127.0) / 128.0));
        let data = TensorData::new(planes.collect::<Vec<f32>>(), [1, 3, 224, 224]);
        let maps = tower.forward(Tensor::<4>::from_data(data, (&device, DType::F32)));
        let [_, channels, height, width] = maps.dims();
        let means = maps.clone().reshape([channels, height * width]).mean_dim(1).reshape([1, channels]);
        see(&mut towers, &format!("picture.{n}.g"), means, feature_bound());
        let seen = text.image(maps);
        for (part, rows) in [("u", seen.u), ("s", seen.s), ("c", seen.c), ("vector", seen.vector)] {
            see(&mut parts, &format!("picture.{n}.{part}"), rows, 1e-5);
        }
    }

    let tower = config.open_speech(&record, Dtype::F32, &device).unwrap().unwrap();
    let mel = MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 80 };
    for (n, case) in reference.about["sounds"].as_array().unwrap().iter().enumerate() {
        let file = AudioSource::file(root.join(str_of(&case["file"])));
        let mut samples = AudioReader::open(&file, 16_000).unwrap().next_segment().unwrap().unwrap().samples;
        samples.resize(samples.len().div_ceil(16_000).max(2) * 16_000, 0.0);
        let mel = log_mel(&samples, &mel).unwrap();
        let rows = tower.forward(MelRows::new(mel.values().to_vec(), 80, vec![mel.frames()], &device));
        if reference.has(&format!("sound.{n}.x")) {
            see(&mut towers, &format!("sound.{n}.x"), rows.rows.clone(), feature_bound());
        }
        let heard = text.speech(rows);
        for (part, rows) in [("u", heard.u), ("s", heard.s), ("vector", heard.vector)] {
            see(&mut parts, &format!("sound.{n}.{part}"), rows, 1e-5);
        }
    }
    towers.report("towers of the model that ships");
    parts.report("connectors of the model that ships");
}

/// Names of samples, best first.
fn ranked(engine: &Engine, query: &Embedding, names: &[&str]) -> Vec<String> {
    let folder = workspace().join("models/mini/samples");
    let mut found: Vec<(f32, String)> = names
        .iter()
        .map(|name| {
            let path = folder.join(name);
            let input = match path.extension().and_then(|ending| ending.to_str()).unwrap() {
                "wav" | "mp3" | "flac" | "ogg" | "opus" | "m4a" => Input::audio_file(path),
                "mp4" | "mkv" => Input::video_file(path),
                _ => Input::image_file(path),
            };
            (query.cosine(&one(engine, input)), (*name).to_string())
        })
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn sentences_speech_and_pictures_find_what_they_should() {
    let engine = engine();
    let images = ["cat.jpg", "electric-guitar.jpg", "coffee.jpg", "rocket.jpg", "castle.webp", "bee.jpg", "car.png"];
    for (text, best) in [
        ("a musical instrument", "electric-guitar.jpg"),
        ("an animal that purrs", "cat.jpg"),
        ("a drink for breakfast", "coffee.jpg"),
        ("a spacecraft", "rocket.jpg"),
        ("an insect on a flower", "bee.jpg"),
    ] {
        assert_eq!(ranked(&engine, &one(&engine, Input::text(text)), &images)[0], best, "{text}");
    }
    let samples = workspace().join("models/mini/samples");
    for (clip, best) in [
        ("speech-where-is-the-guitar.wav", "electric-guitar.jpg"),
        ("speech-a-cup-of-hot-coffee.flac", "coffee.jpg"),
        ("speech-show-me-a-castle.wav", "castle.webp"),
    ] {
        let query = one(&engine, Input::audio_file(samples.join(clip)));
        assert!(ranked(&engine, &query, &images)[..2].contains(&best.to_string()), "{clip}");
    }
    let cat = one(&engine, Input::image_file(samples.join("cat.jpg")));
    assert_eq!(ranked(&engine, &cat, &["kitten.webp", "car.png", "rocket.jpg", "boat-sailing.mp4"])[0], "kitten.webp");
}

#[test]
fn odd_inputs_have_a_vector_or_a_typed_error() {
    let engine = engine();
    let long = "harbour ".repeat(400);
    let refused = engine.embed_with(&[Input::text(&long)], &Request::new(Role::Query)).unwrap().swap_remove(0);
    assert_eq!(refused.unwrap_err().kind().name(), "too_long");
    for truncation in [Truncation::Left, Truncation::Right] {
        let request = Request::new(Role::Query).truncation(truncation);
        let cut = engine.embed_with(&[Input::text(&long)], &request).unwrap().swap_remove(0).unwrap();
        assert!(cut.truncated && cut.tokens == 256);
    }
    // Languages it does not know, silence, an image of one colour: no error, and the card says what they are worth.
    one(&engine, Input::text("Ein rotes Fahrrad lehnt an der Mauer. 自転車"));
    one(&engine, Input::audio_samples(vec![0.0; 16_000], 16_000));
    let white = omniburn::RgbImage::new(omniburn::Width(40), omniburn::Height(40), vec![255; 4800]).unwrap();
    let still = one(&engine, Input::image_pixels(white.clone()));
    let video = one(&engine, Input::video_frames(vec![white]));
    assert_eq!(still, video, "a video of one frame is its image");
}
