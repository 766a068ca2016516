//! The mini family at its real shape with random weights, model level: what one text, image or clip costs on the CPU.
//!
//! Ids: `mini/flex-f32/<case>`. `RAYON_NUM_THREADS=1` takes one thread.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::Criterion;
use omniburn::Dtype;
use omniburn_benches::{pool, read, records};
use omniburn_models::Segments;
use omniburn_models::batch::{MelRows, TokenRows};
use omniburn_models::blocks::{HiddenAct, Pooling, VectorHeadConfig};
use omniburn_models::families::BertConfig;
use omniburn_models::families::mini::{ImageConfig, MiniConfig, SpeechConfig};
use omniburn_models::record::{RecordFolder, write_random_mini};
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::conv::{ConvConfig, ConvStage};

fn config() -> MiniConfig {
    let stage = |[expand, channels, repeats, stride, kernel]: [usize; 5]| ConvStage {
        expand,
        channels,
        repeats,
        stride,
        kernel,
    };
    let stages = [
        [1, 16, 1, 1, 3],
        [6, 24, 2, 2, 3],
        [6, 40, 2, 2, 5],
        [6, 80, 3, 2, 3],
        [6, 112, 3, 1, 5],
        [6, 192, 4, 2, 5],
        [6, 320, 1, 1, 3],
    ];
    MiniConfig {
        text: BertConfig {
            hidden: 384,
            layers: 6,
            heads: 12,
            inner: 1536,
            norm_eps: 1e-12,
            positions: 512,
            max_tokens: 256,
            // Rows are gathered on the host: their number costs disk and nothing else.
            vocab: 1024,
            act: HiddenAct::Gelu,
            vector_head: VectorHeadConfig::of(Pooling::Mean),
            head: None,
            row_heads: None,
        },
        start: 101,
        end: 102,
        image: Some(ImageConfig {
            tower: ConvConfig { image_size: 224, stem: 32, stages: stages.map(stage).to_vec(), head: 1280 },
            classes: 1000,
            row_inner: 512,
            head_inner: 1024,
            temperature: 1.5,
            top_classes: 50,
            weights: [0.4, 0.4, 0.2],
        }),
        speech: Some(SpeechConfig {
            tower: AudioConfig {
                hidden: 384,
                layers: 4,
                heads: 6,
                inner: 1536,
                n_window: 1500,
                mels: 80,
                max_positions: 1500,
                norm_eps: 1e-5,
            },
            mean_rows: 5,
            inner: 512,
            rows: 4,
            kernels: [3, 5],
        }),
    }
}

fn main() {
    // Handed over from outside, each depthwise convolution waits for a worker to wake.
    pool().install(bench);
}

fn bench() {
    let tokenizer = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../tests/golden/checkpoints/mini-tiny/tokenizer.json");
    let path = records().join("mini-f32");
    if !path.exists() {
        write_random_mini(&path, &config(), Dtype::F32, &tokenizer, 1).expect("a record can be written");
    }
    let record = RecordFolder::open(&path).expect("a fresh record opens");
    let config =
        record.header().family.of::<omniburn_models::families::MiniConfig>().expect("a record of this family").clone();
    let device = Device::flex();
    let tokens = config.open_tokens(&record).expect("tokens");
    let model = config.open_text(&record, "random", tokens, Dtype::F32, &device).expect("text");
    let tower = config.open_image(&record, Dtype::F32, &device).expect("towers").expect("an image tower");
    let speech = config.open_speech(&record, Dtype::F32, &device).expect("towers").expect("a speech tower");

    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("mini/flex-f32");
    for length in [8, 32, 256] {
        let rows = || {
            let rows = Tensor::<2>::random([length, 384], Distribution::Normal(0.0, 1.0), &device);
            TokenRows { rows, segments: Segments::single(length) }
        };
        let rows = rows();
        group.bench_function(format!("text-{length}"), |b| b.iter(|| read(model.text(rows.clone()))));
    }
    let pixels = Tensor::<4>::random([1, 3, 224, 224], Distribution::Uniform(-1.0, 1.0), &device);
    group.bench_function("image-tower", |b| b.iter(|| read(tower.forward(pixels.clone()))));
    let maps = tower.forward(pixels);
    group.bench_function("image-rest", |b| b.iter(|| read(model.image(maps.clone()).vector)));
    for seconds in [2, 4, 30] {
        let frames = 100 * seconds;
        let mel: Vec<f32> = (0..frames * 80).map(|i| (i as f32 * 0.37).sin()).collect();
        let heard = || speech.forward(MelRows::new(mel.clone(), 80, vec![frames], &device));
        group.bench_function(format!("speech-tower-{seconds}s"), |b| b.iter(|| read(heard().rows)));
        let rows = heard();
        group.bench_function(format!("speech-rest-{seconds}s"), |b| b.iter(|| read(model.speech(rows.clone()).vector)));
    }
    group.finish();
    criterion.final_summary();
}
