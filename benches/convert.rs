//! A checkpoint to a record: a BERT of the base size (12 layers of 768, 86 million parameters in f16) with made weights, into
//! each type of matrices, and the check alone. On a disk, with the sync at the end that makes a record whole.
//!
//! Ids: `convert/<dtype>`, `convert/check`; bytes are those read.

use std::fs;
use std::path::Path;

use criterion::{Criterion, Throughput};
use omniburn::Dtype;
use omniburn_convert::{ConvertOptions, convert};
use safetensors::tensor::TensorView;

const HIDDEN: usize = 768;
const INNER: usize = 3072;
const LAYERS: usize = 12;
const POSITIONS: usize = 512;
/// That of the checkpoint whose tokenizer it borrows.
const VOCAB: usize = 111;

fn main() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let source = folder.path().join("checkpoint");
    let bytes = checkpoint(&source);
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("convert");
    group.throughput(Throughput::Bytes(bytes));
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        let mut options = ConvertOptions::new(&source, folder.path().join(format!("record-{dtype}")));
        (options.dtype, options.force) = (dtype, true);
        group.bench_function(dtype.name(), |b| b.iter(|| convert(&options).expect("it converts")));
    }
    group.finish();
    // It reads no data, so it has no bytes a second.
    let mut options = ConvertOptions::new(&source, "");
    options.check = true;
    criterion.bench_function("convert/check", |b| b.iter(|| convert(&options).expect("it maps")));
    criterion.final_summary();
}

/// Writes the checkpoint, and gives its bytes.
fn checkpoint(folder: &Path) -> u64 {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let checkpoint = Path::new(&here).join("../tests/golden/checkpoints/bert-tiny");
    fs::create_dir_all(folder.join("1_Pooling")).expect("a folder");
    for name in ["tokenizer.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"] {
        fs::copy(checkpoint.join(name), folder.join(name)).expect("the checkpoint is there");
    }
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN / 64, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![VOCAB, HIDDEN]),
        ("embeddings.position_embeddings.weight".into(), vec![POSITIONS, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, HIDDEN]),
    ];
    let mut pair = |name: String, shape: Vec<usize>| {
        tensors.push((format!("{name}.bias"), vec![shape[0]]));
        tensors.push((format!("{name}.weight"), shape));
    };
    pair("embeddings.LayerNorm".into(), vec![HIDDEN]);
    for layer in 0..LAYERS {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            pair(at(name), vec![HIDDEN, HIDDEN]);
        }
        pair(at("attention.output.LayerNorm"), vec![HIDDEN]);
        pair(at("intermediate.dense"), vec![INNER, HIDDEN]);
        pair(at("output.dense"), vec![HIDDEN, INNER]);
        pair(at("output.LayerNorm"), vec![HIDDEN]);
    }
    // f16 values near one: what they are does not matter here, that they are finite and differ does.
    let largest = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).max().unwrap_or_default();
    let values: Vec<u8> = (0..largest).flat_map(|i| (0x3800 + (i % 1021) as u16).to_le_bytes()).collect();
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &values[..2 * shape.iter().product::<usize>()];
        let view =
            TensorView::new(safetensors::Dtype::F16, shape.clone(), bytes).expect("as many bytes as the shape says");
        (name.as_str(), view)
    });
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("a file");
    fs::metadata(&path).expect("it was written").len()
}
