//! omniburn-mini: MiniLM, EfficientNet-Lite, a Whisper encoder and the trained connectors, in one folder.

use omniburn_models::FamilyConfig;
use omniburn_models::blocks::{Pooling, VectorHeadConfig};
use omniburn_models::checkpoint::layers;
use omniburn_models::families::mini::{PictureConfig, SpeechConfig};
use omniburn_models::families::{MiniConfig, bert};
use omniburn_models::record::{LetterboxPreprocess, Preprocess, Prompts, SoundPreprocess, TOKENIZER_FILE};
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::conv::{ConvConfig, ConvStage};
use serde_json::Value;

use crate::error::ConvertError;
use crate::fields::{Faults, Fields};
use crate::keymap::{KeyMap, Pattern};
use crate::side_files::added_token_id;
use crate::single::{Ends, Folder, Single};
use crate::source::CONFIG_FILE;

/// `model_type` of the configuration.
pub(crate) const MODEL_TYPE: &str = "omniburn-mini";
const TASK: &str = "retrieval";
/// Tokens whose rows open and close every sequence.
const ENDS: [&str; 2] = ["[CLS]", "[SEP]"];
/// Least seconds of audio, filled with silence.
const LEAST_SECONDS: u32 = 2;
/// Epsilon of Whisper's norms.
const SPEECH_EPS: f64 = 1e-5;

/// The names of this family.
pub(crate) const KEYS: KeyMap = KeyMap {
    renames: &[],
    endings: &[],
    drops: &[
        (Pattern::Prefix("text.pooler."), "sentence vectors are pooled from the rows, not made by the pooler"),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
        (Pattern::Exact("speech.embed_positions.weight"), "the positions are a sinusoid, which is computed"),
    ],
};

/// From the names of a record to those of the folder.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("embed_tokens.", "text.embeddings.word_embeddings."),
    ("backbone.positions.", "text.embeddings.position_embeddings."),
    ("backbone.token_types.", "text.embeddings.token_type_embeddings."),
    ("backbone.norm.", "text.embeddings.LayerNorm."),
    ("backbone.layers.", "text.encoder.layer."),
    (".attention.query.", ".attention.self.query."),
    (".attention.key.", ".attention.self.key."),
    (".attention.value.", ".attention.self.value."),
    (".attention.out.", ".attention.output.dense."),
    (".attention.norm.", ".attention.output.LayerNorm."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".mlp.norm.", ".output.LayerNorm."),
    ("speech.ln_post.", "speech.layer_norm."),
    ("classifier.", "picture.classifier."),
];

/// Reads a folder of this family.
///
/// # Errors
/// [`ConvertError::Fields`] with every field that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
pub(crate) fn read(from: &Folder<'_>, root: &Value, tensors: usize) -> Result<Single, ConvertError> {
    let tokenizer = from.folder.join(TOKENIZER_FILE);
    let mut ends = [0; 2];
    for (id, token) in ends.iter_mut().zip(ENDS) {
        *id = added_token_id(&tokenizer, token)?;
    }
    let faults = Faults::of(&from.folder.join(CONFIG_FILE));
    let root = Fields::new("", Some(root), &faults);
    let text = Fields::new("text_config.", root.get("text_config"), &faults);
    text.only_text("model_type", "bert");
    let mut preprocess = Preprocess::default();
    let picture = root.get("picture_config").map(|value| {
        let tower = Fields::new("picture_config.", Some(value), &faults);
        let connector = Fields::new("picture_connector.", root.get("picture_connector"), &faults);
        let (picture, letterbox) = picture(tower, connector, tensors);
        preprocess.letterbox = Some(letterbox);
        preprocess.video_frames = Some(root.needed_size("video_frames") as u32);
        picture
    });
    let speech = root.get("speech_config").map(|value| {
        let tower = Fields::new("speech_config.", Some(value), &faults);
        let connector = Fields::new("speech_connector.", root.get("speech_connector"), &faults);
        let (speech, sound) = speech(tower, connector, tensors);
        preprocess.audio = Some(sound);
        speech
    });
    let text = bert::read_encoder(text, tensors, VectorHeadConfig::of(Pooling::Mean));
    faults.check()?;
    let [start, end] = ends;
    Ok(Single {
        family: FamilyConfig::new(MiniConfig { text, start, end, picture, speech }),
        known_as: MODEL_TYPE,
        licence: "of its parts: Apache-2.0 and MIT, see its page",
        task: TASK,
        ends: Some(Ends { start, end }),
        preprocess,
        prompts: Prompts::default(),
        default_dim: None,
        lowercase: false,
        read: Vec::new(),
        notes: Vec::new(),
    })
}

fn picture(tower: Fields<'_>, connector: Fields<'_>, tensors: usize) -> (PictureConfig, LetterboxPreprocess) {
    tower.only_text("model_type", "efficientnet-lite");
    let five = |value: &Value| -> Option<ConvStage> {
        let numbers: Option<Vec<usize>> = value
            .as_array()?
            .iter()
            .map(|n| n.as_u64().filter(|n| (1..=1 << 16).contains(n)).map(|n| n as usize))
            .collect();
        let [expand, channels, repeats, stride, kernel] = numbers?.try_into().ok()?;
        (repeats <= tensors).then_some(ConvStage { expand, channels, repeats, stride, kernel })
    };
    let expected = "a list of [expand, channels, repeats, stride, kernel]";
    let stages = tower.list("blocks", expected, five);
    if tower.get("blocks").is_none() {
        tower.fault("blocks", expected);
    }
    let image_size = tower.needed_size("image_size");
    let letterbox = LetterboxPreprocess {
        image_size: image_size as u32,
        mean: tower.needed_number("mean") as f32,
        std: tower.needed_number("std") as f32,
    };
    let expected = "three numbers, for u, s and c";
    let weights = connector.list("weights", expected, Value::as_f64).and_then(|w| <[f64; 3]>::try_from(w).ok());
    if weights.is_none() {
        connector.fault("weights", expected);
    }
    let config = PictureConfig {
        tower: ConvConfig {
            image_size,
            stem: tower.needed_size("stem"),
            stages: stages.unwrap_or_default(),
            head: tower.needed_size("head"),
        },
        classes: tower.needed_size("classes"),
        row_inner: connector.needed_size("row_hidden"),
        head_inner: connector.needed_size("head_hidden"),
        temperature: connector.needed_number("temperature"),
        top_classes: connector.needed_size("top_classes"),
        weights: weights.unwrap_or_default(),
    };
    (config, letterbox)
}

fn speech(tower: Fields<'_>, connector: Fields<'_>, tensors: usize) -> (SpeechConfig, SoundPreprocess) {
    tower.only_text("model_type", "whisper-encoder");
    tower.only_text("activation_function", "gelu");
    tower.only_flag("scale_embedding", false);
    let positions = tower.needed_size("max_source_positions");
    let mels = tower.needed_size("num_mel_bins");
    let kernels = connector.list("kernels", "two odd numbers", |v| v.as_u64().map(|n| n as usize));
    let kernels = kernels.and_then(|k| <[usize; 2]>::try_from(k).ok());
    if kernels.is_none() {
        connector.fault("kernels", "two odd numbers");
    }
    let sound = SoundPreprocess {
        sample_rate_hz: tower.needed_size("sampling_rate") as u32,
        fft_samples: tower.needed_size("n_fft") as u32,
        hop_samples: tower.needed_size("hop_length") as u32,
        mels: mels as u32,
        whole_seconds: Some(LEAST_SECONDS),
    };
    let config = SpeechConfig {
        tower: AudioConfig {
            hidden: tower.needed_size("d_model"),
            layers: layers(tower, "encoder_layers", tensors),
            heads: tower.needed_size("encoder_attention_heads"),
            inner: tower.needed_size("encoder_ffn_dim"),
            // A clip is one window: two frames a position.
            n_window: positions,
            mels,
            max_positions: positions,
            norm_eps: SPEECH_EPS,
        },
        mean_rows: connector.needed_size("mean_frames"),
        inner: connector.needed_size("hidden"),
        rows: connector.needed_size("rows"),
        kernels: kernels.unwrap_or_default(),
    };
    (config, sound)
}
