//! The small model's folder at its full size: every name of its contract is taken, and its parameters add up.

use std::path::Path;

use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, convert};
use omniburn_models::record::{Dtype, Modality};
use serde_json::{Value, json};

use crate::support::*;

/// Expand, channels, repeats, stride, kernel of EfficientNet-Lite0.
const STAGES: [[usize; 5]; 7] = [
    [1, 16, 1, 1, 3],
    [6, 24, 2, 2, 3],
    [6, 40, 2, 2, 5],
    [6, 80, 3, 2, 3],
    [6, 112, 3, 1, 5],
    [6, 192, 4, 2, 5],
    [6, 320, 1, 1, 3],
];

fn config() -> Value {
    json!({
        "model_type": "omniburn-mini",
        "text_config": {
            "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 1536, "hidden_act": "gelu",
            "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "max_seq_length": 256
        },
        "picture_config": {
            "model_type": "efficientnet-lite", "image_size": 224, "mean": 127.0, "std": 128.0, "stem": 32,
            "head": 1280, "classes": 1000, "blocks": STAGES
        },
        "speech_config": {
            "model_type": "whisper-encoder", "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536, "num_mel_bins": 80, "max_source_positions": 1500, "sampling_rate": 16000,
            "n_fft": 400, "hop_length": 160
        },
        "picture_connector": {
            "row_hidden": 512, "head_hidden": 1024, "temperature": 1.5, "top_classes": 50, "weights": [0.4, 0.4, 0.2]
        },
        "speech_connector": {"hidden": 512, "rows": 4, "mean_frames": 5, "kernels": [3, 5]},
        "video_frames": 8
    })
}

/// Names and shapes as the training writes them.
#[derive(Default)]
struct Keys(Vec<(String, Vec<usize>)>);

impl Keys {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push((name.into(), shape.to_vec()));
    }

    /// A weight with a bias of its first axis.
    fn biased(&mut self, name: &str, shape: &[usize]) {
        self.add(format!("{name}.weight"), shape);
        self.add(format!("{name}.bias"), &shape[..1]);
    }

    fn contract() -> Self {
        let mut keys = Self::default();
        let at = "text.embeddings";
        for (table, rows) in [("word", 30522), ("position", 512), ("token_type", 2)] {
            keys.add(format!("{at}.{table}_embeddings.weight"), &[rows, 384]);
        }
        keys.biased(&format!("{at}.LayerNorm"), &[384]);
        for i in 0..6 {
            let at = format!("text.encoder.layer.{i}");
            for name in ["self.query", "self.key", "self.value", "output.dense"] {
                keys.biased(&format!("{at}.attention.{name}"), &[384, 384]);
            }
            keys.biased(&format!("{at}.attention.output.LayerNorm"), &[384]);
            keys.biased(&format!("{at}.intermediate.dense"), &[1536, 384]);
            keys.biased(&format!("{at}.output.dense"), &[384, 1536]);
            keys.biased(&format!("{at}.output.LayerNorm"), &[384]);
        }
        keys.biased("picture.stem", &[32, 3, 3, 3]);
        let (mut inputs, mut block) = (32, 0);
        for [expand, channels, repeats, _, kernel] in STAGES {
            for _ in 0..repeats {
                let (at, inner) = (format!("picture.blocks.{block}"), inputs * expand);
                if expand > 1 {
                    keys.biased(&format!("{at}.expand"), &[inner, inputs, 1, 1]);
                }
                keys.biased(&format!("{at}.depthwise"), &[inner, 1, kernel, kernel]);
                keys.biased(&format!("{at}.project"), &[channels, inner, 1, 1]);
                (inputs, block) = (channels, block + 1);
            }
        }
        keys.biased("picture.head", &[1280, 320, 1, 1]);
        keys.biased("picture.classifier", &[1000, 1280]);
        keys.biased("speech.conv1", &[384, 80, 3]);
        keys.biased("speech.conv2", &[384, 384, 3]);
        for i in 0..4 {
            let at = format!("speech.layers.{i}");
            for name in ["q_proj", "v_proj", "out_proj"] {
                keys.biased(&format!("{at}.self_attn.{name}"), &[384, 384]);
            }
            keys.add(format!("{at}.self_attn.k_proj.weight"), &[384, 384]);
            keys.biased(&format!("{at}.self_attn_layer_norm"), &[384]);
            keys.biased(&format!("{at}.fc1"), &[1536, 384]);
            keys.biased(&format!("{at}.fc2"), &[384, 1536]);
            keys.biased(&format!("{at}.final_layer_norm"), &[384]);
        }
        keys.biased("speech.layer_norm", &[384]);
        for (name, inner) in [("global", 512), ("quadrant", 512), ("head", 1024)] {
            keys.biased(&format!("picture_connector.{name}.0"), &[inner, 1280]);
            keys.biased(&format!("picture_connector.{name}.2"), &[384, inner]);
        }
        for table in ["class_rows", "class_vectors"] {
            keys.add(format!("picture_connector.{table}.weight"), &[1000, 384]);
        }
        for trunk in ["a", "b"] {
            let at = format!("speech_connector.{trunk}");
            keys.biased(&format!("{at}.norm1"), &[384]);
            keys.biased(&format!("{at}.conv1"), &[512, 384, 3]);
            keys.biased(&format!("{at}.conv2"), &[512, 512, 5]);
            keys.biased(&format!("{at}.norm2"), &[512]);
            keys.biased(&format!("{at}.attention"), &[4, 512]);
        }
        keys.biased("speech_connector.a.out", &[384, 2048]);
        keys.add("speech_connector.b.rows.weight", &[384, 512]);
        keys.add("speech_connector.b.rows.bias", &[4, 384]);
        keys
    }
}

fn added(tokens: &[(&str, u32)]) -> Value {
    let added: Vec<Value> = tokens.iter().map(|(content, id)| json!({"id": id, "content": content})).collect();
    json!({"added_tokens": added, "model": {"type": "WordPiece", "vocab": {"a": 30521}}})
}

fn write(folder: &Path, config: &Value, tokenizer: &Value) {
    std::fs::create_dir_all(folder).unwrap();
    write_json(&folder.join("config.json"), config);
    write_json(&folder.join("tokenizer.json"), tokenizer);
    write_sparse(&folder.join("model.safetensors"), &Keys::contract().0);
}

fn check(folder: &Path, dtype: Dtype) -> Result<ConvertReport, ConvertError> {
    convert(&ConvertOptions { check: true, dtype, ..ConvertOptions::new(folder, "") })
}

#[test]
fn every_name_of_the_small_model_is_taken_and_its_parameters_add_up() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &config(), &added(&[("[CLS]", 101), ("[SEP]", 102)]));
    let report = check(root.path(), Dtype::Int8).unwrap();
    assert_eq!((report.mapped, report.dropped.len()), (Keys::contract().0.len(), 0));
    let p = report.parameters;
    let connector = 2_089_728 + 1_705_344;
    assert_eq!(p.text, 22_565_376);
    // As published, without the positions, which are computed.
    assert_eq!(p.audio, 8_208_384 - 1500 * 384);
    assert_eq!(p.projector, 2_692_228 + 2_103_940 - 384, "one bias is folded into the four of the rows");
    assert_eq!(p.merger, 1_281_000 + connector + 384_000);
    assert!((3_340_000..3_400_000).contains(&p.vision), "{p:?}");
    let media: Vec<Modality> = report.templates.keys().copied().collect();
    assert_eq!(media, [Modality::Image, Modality::Audio, Modality::Video]);
    // A quarter of the bytes, and a little for scales and vectors; the token table is bf16 in the f32 record.
    let bytes = |report: &ConvertReport| report.parts[1..].iter().map(|part| part.bytes).sum::<u64>();
    let exact = bytes(&check(root.path(), Dtype::F32).unwrap());
    let share = bytes(&report) as f64 / exact as f64;
    assert!((0.25..0.27).contains(&share), "{share}");
}

#[test]
fn every_wrong_field_of_the_small_model_is_named() {
    let root = tempfile::tempdir().unwrap();
    let ends = added(&[("[CLS]", 101), ("[SEP]", 102)]);
    let mut config = config();
    config["text_config"]["hidden_act"] = json!("silu");
    config["picture_config"]["blocks"][2] = json!([6, 40, 2, 2]);
    config["picture_connector"]["weights"] = json!([0.5, 0.5]);
    config["speech_config"]["encoder_layers"] = json!(100_000);
    config["speech_connector"].as_object_mut().unwrap().remove("kernels");
    write(root.path(), &config, &ends);
    let error = check(root.path(), Dtype::F32).unwrap_err().to_string();
    for field in [
        "text_config.hidden_act",
        "picture_config.blocks",
        "picture_connector.weights",
        "speech_config.encoder_layers",
        "speech_connector.kernels",
    ] {
        assert!(error.contains(field), "{field}: {error}");
    }
    write(root.path(), &self::config(), &added(&[("[CLS]", 101)]));
    let error = check(root.path(), Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("added_tokens") && error.contains("[SEP]"), "{error}");
    let mut config = self::config();
    config["speech_connector"]["kernels"] = json!([3, 4]);
    write(root.path(), &config, &ends);
    assert!(check(root.path(), Dtype::F32).unwrap_err().to_string().contains("speech.kernels = 4"));
    config["speech_connector"]["kernels"] = json!([3, 3]);
    write(root.path(), &config, &ends);
    let error = check(root.path(), Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("speech_connector.a.conv2.weight: shape [512, 512, 5], expected [512, 512, 3]"), "{error}");
}
