//! CLAP without fusion: a text tower (RoBERTa) and an audio tower whose vectors lie in one space.
//!
//! Audio goes in as windows of one length. A shorter one is filled up as the processor does; of a longer one the library takes a
//! window by chance, and here the mean direction of windows over all of it is taken.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::TokenRows;
use crate::blocks::{HiddenAct, Linear, Pooling, RowHeads, TokenTable, VectorHead, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{
    CheckpointFolder, Fields, KeyMap, Pattern, Steps, TemplateRule, TextFiles, hidden_act, layers,
};
use crate::checks::nonzero;
use crate::encoder::{Encoder, EncoderShape, EncoderState};
use crate::error::ConfigError;
use crate::families::bert::{BertText, check_encoder, encoder_words, refuse_decoder};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Connected, Family, ModelSpec, Outputs, Pass, PassInput,
    RowActivations, Similarity, StepKind, TextModel, Tokens, TowerOutput, config,
};
use crate::flops::Shape;
use crate::pass::{Layered, LayeredPass};
use crate::record::{AudioPreprocess, ClipFill, ClipPreprocess, Modality, Preprocess, TemplateKind};
use crate::towers::swin::{SwinConfig, SwinTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "clap",
    about: "CLAP with fusion or without: text and audio in one space",
    read: config::<ClapConfig>,
    checkpoint: Some(&RULES),
};

static RULES: CheckpointRules = CheckpointRules {
    model_types: &["clap"],
    is_architecture: |name| name == "ClapModel",
    known_as: "a CLAP model",
    keys: KeyMap {
        renames: &[("module.", ""), ("model.", "")],
        endings: &[],
        drops: &[
            (Pattern::Exact(TEXT_SCALE), "its value stands in the configuration"),
            (
                Pattern::Exact(AUDIO_SCALE),
                "its value stands in the report: what a cosine is multiplied by is the texts'",
            ),
            (Pattern::Contains("position_ids"), "positions are counted, not read"),
            (Pattern::Contains("token_type_ids"), "every row of a text is of the first kind"),
            (Pattern::Contains("relative_position_index"), "places in a window are counted, not read"),
            (Pattern::Contains("num_batches_tracked"), "how long a model was trained changes no vector"),
        ],
    },
    names: &[
        ("embed_tokens.", "text_model.embeddings.word_embeddings."),
        ("backbone.positions.", "text_model.embeddings.position_embeddings."),
        ("backbone.token_types.", "text_model.embeddings.token_type_embeddings."),
        ("backbone.norm.", "text_model.embeddings.LayerNorm."),
        ("backbone.layers.", "text_model.encoder.layer."),
        (".attention.query.", ".attention.self.query."),
        (".attention.key.", ".attention.self.key."),
        (".attention.value.", ".attention.self.value."),
        (".attention.out.", ".attention.output.dense."),
        (".attention.norm.", ".attention.output.LayerNorm."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
        (".mlp.norm.", ".output.LayerNorm."),
        ("text_projection.pooler.", "text_model.pooler.dense."),
        ("audio.projection.", "audio_projection."),
        ("audio.", "audio_model.audio_encoder."),
    ],
    read: |folder| Box::new(read(folder)),
    steps: Steps { texts: TextFiles::Tokenizer { padded: false }, processors: true, ..Steps::TEXT },
};

/// Tensors of one number each.
const TEXT_SCALE: &str = "logit_scale_t";
const AUDIO_SCALE: &str = "logit_scale_a";

/// Configuration of the family; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClapConfig {
    /// The text tower.
    pub text: ClapTextConfig,
    /// The audio tower.
    pub audio: SwinConfig,
    /// From a cosine to a logit.
    pub similarity: Similarity,
}

/// The text tower of [`ClapConfig`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClapTextConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Rows of the learned position table.
    pub positions: usize,
    /// Id of the padding, whose row of the position table the padding takes: a sequence begins behind it.
    pub padding: u32,
    /// Token types; the rows of a text are of the first.
    pub token_types: usize,
    /// Longest sequence, both ends included.
    pub max_tokens: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Activation of the MLPs.
    pub act: HiddenAct,
    /// Activation between the two products behind the pooler.
    pub projection_act: HiddenAct,
}

impl ClapTextConfig {
    fn shape(&self) -> EncoderShape {
        let Self { hidden, layers, heads, inner, norm_eps, positions, padding, token_types, act, .. } = *self;
        let first_position = padding as usize + 1;
        EncoderShape {
            hidden,
            layers,
            heads,
            inner,
            norm_eps,
            positions,
            first_position,
            token_types,
            used_types: 1,
            act,
            buckets: None,
        }
    }
}

impl Architecture for ClapConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        nonzero(&[("text.token_types", self.text.token_types)])?;
        check_encoder(&self.text.shape(), self.text.max_tokens, self.text.vocab)?;
        self.audio.check()?;
        self.similarity.check()
    }

    fn spec(&self) -> ModelSpec {
        ModelSpec {
            vector: self.audio.vector,
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image: None,
            audio: Some(AudioForm::Spectrogram {
                mels: self.audio.mels,
                most_frames: self.audio.spread_frames(),
                fused: self.audio.fusion.is_some(),
            }),
            ends: None,
            skips_prompt: false,
            outputs: Outputs::default(),
        }
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        Some(AudioEncoder::Spectrogram(Box::new(b.at("audio", |b| SwinTower::build(&self.audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        let (shape, vector) = (self.text.shape(), self.audio.vector);
        let pooling = VectorHeadConfig::of(Pooling::Cls);
        Arc::new(ClapText {
            text: BertText {
                tokens: tokens.table(self.text.vocab, shape.hidden),
                encoder: b.at("backbone", |b| Encoder::build(&shape, b)),
                vector_head: VectorHead::build(&pooling, b),
                padding: Some(self.text.padding),
                head: None,
                row_heads: RowHeads::default(),
            },
            pooler: b.linear_biased("text_projection.pooler", shape.hidden, shape.hidden),
            projection: [
                b.linear_biased("text_projection.linear1", shape.hidden, vector),
                b.linear_biased("text_projection.linear2", vector, vector),
            ],
            act: self.text.projection_act,
        })
    }

    fn similarity(&self) -> Option<Similarity> {
        Some(self.similarity)
    }

    fn words(&self, _: &Preprocess) -> Vec<(&'static str, String)> {
        let text = encoder_words(&self.text.shape(), self.text.max_tokens, self.text.vocab);
        vec![("text", text), ("audio", self.audio.words()), ("similarity", self.similarity.words())]
    }
}

/// The text half opened: an encoder, and what brings its first row into the common space.
#[derive(Debug)]
struct ClapText {
    text: BertText,
    pooler: Linear,
    projection: [Linear; 2],
    act: HiddenAct,
}

impl Layered for ClapText {
    type State = EncoderState;

    fn enter(&self, rows: TokenRows, positions: Option<Vec<usize>>) -> EncoderState {
        self.text.enter(rows, positions)
    }

    fn layers(&self) -> usize {
        self.text.layers()
    }

    fn layer(&self, index: usize, state: EncoderState) -> EncoderState {
        self.text.layer(index, state)
    }

    fn leave(&self, state: EncoderState, skipped: &[usize]) -> Tensor<2> {
        let pooled = self.pooler.forward(self.text.leave(state, skipped)).tanh();
        let [first, last] = &self.projection;
        last.forward(first.activated(pooled, self.act.activation()))
    }

    fn grouped(&self) -> Option<usize> {
        self.text.grouped()
    }
}

impl TextModel for ClapText {
    fn tokens(&self) -> &TokenTable {
        &self.text.tokens
    }

    fn first_step(&self) -> StepKind {
        Layered::first_step(self)
    }

    fn step_layers(&self, rows: usize) -> usize {
        Layered::step_layers(self, rows)
    }

    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass> {
        Box::new(LayeredPass::new(self, input))
    }

    fn positions(&self, sequences: &[Vec<u32>]) -> Option<Vec<usize>> {
        self.text.positions(sequences)
    }

    fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        output.vectors().map(Connected::Vectors)
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { .. } => {
                let behind = self.projection.iter().chain([&self.pooler]).map(|linear| linear.flops(1)).sum::<u64>();
                Some(self.text.flops(shape)? + behind)
            }
            // The audio tower gives finished vectors.
            Shape::Mel { .. } => Some(0),
            Shape::Patches { .. } | Shape::Pixels { .. } | Shape::Parts { .. } => None,
        }
    }

    fn activations(&self) -> RowActivations {
        TextModel::activations(&self.text)
    }
}

/// From a published folder to a configuration.
fn read(folder: &CheckpointFolder<'_>) -> ClapConfig {
    folder.refuse_common();
    let root = folder.config;
    let vector = root.size("projection_dim").unwrap_or(512);
    let projection_act = match root.get("projection_hidden_act") {
        None => HiddenAct::Relu,
        Some(_) => hidden_act(root, "projection_hidden_act"),
    };
    let (text, audio) = (text(folder, projection_act), audio(folder, vector, projection_act));
    say(folder, audio.mels, audio.fusion.is_some());
    let logit_scale = folder.number(TEXT_SCALE);
    folder.note(format!(
        "a logit is a cosine times e^{TEXT_SCALE}, {:.4}; for audios against a text the library takes e^{AUDIO_SCALE}, {:.4}",
        logit_scale.exp(),
        folder.number(AUDIO_SCALE).exp()
    ));
    ClapConfig { text, audio, similarity: Similarity { logit_scale, logit_bias: None } }
}

/// Says how audio goes in: as the class of the processor has it, where no file says otherwise.
fn say(folder: &CheckpointFolder<'_>, mels: usize, fused: bool) {
    let audio = AudioPreprocess {
        sample_rate_hz: 48_000,
        fft_samples: 1024,
        hop_samples: 480,
        mels: mels as u32,
        mirrored: true,
        whole_seconds: None,
        clip: Some(ClipPreprocess {
            samples: 480_000,
            fill: ClipFill::RepeatPad,
            lowest_hz: 0,
            highest_hz: 14_000,
            fused,
        }),
    };
    let mut details = folder.details.borrow_mut();
    // It stands in no sequence, so nothing stands around it.
    details.templates = vec![TemplateRule {
        modality: Modality::Audio,
        kind: TemplateKind::Bare,
        fixed: true,
        start: ("start", None),
        end: ("end", None),
    }];
    details.preprocess = Preprocess { audio: Some(audio), ..Preprocess::default() };
}

fn text(folder: &CheckpointFolder<'_>, projection_act: HiddenAct) -> ClapTextConfig {
    let fields = folder.inner("text_config", "text_config.");
    fields.only_text("model_type", "clap_text_model");
    refuse_decoder(fields);
    let positions = fields.size("max_position_embeddings").unwrap_or(514);
    let padding = fields.id("pad_token_id").unwrap_or(1);
    if padding as usize + 1 >= positions {
        fields.fault("pad_token_id", "an id whose position leaves others behind it");
    }
    ClapTextConfig {
        hidden: fields.size("hidden_size").unwrap_or(768),
        layers: match fields.get("num_hidden_layers") {
            Some(_) => layers(fields, "num_hidden_layers", folder.tensors),
            None => 12,
        },
        heads: fields.size("num_attention_heads").unwrap_or(12),
        inner: fields.size("intermediate_size").unwrap_or(3072),
        norm_eps: fields.number("layer_norm_eps").unwrap_or(1e-12),
        positions,
        padding,
        token_types: fields.size("type_vocab_size").unwrap_or(1),
        max_tokens: folder.text.limit(positions.saturating_sub(padding as usize + 1)),
        vocab: fields.size("vocab_size").unwrap_or(50_265),
        act: hidden_act(fields, "hidden_act"),
        projection_act,
    }
}

fn audio(folder: &CheckpointFolder<'_>, vector: usize, projection_act: HiddenAct) -> SwinConfig {
    let fields = folder.inner("audio_config", "audio_config.");
    fields.only_text("model_type", "clap_audio_model");
    let fused = fields.flag("enable_fusion").unwrap_or(false);
    // Of the kinds that the first library has, the published model's, which transformers computes whatever is said.
    if fused && fields.get("fusion_type").is_some_and(|kind| kind != "aff_2d") {
        fields.fault("fusion_type", "\"aff_2d\", or nothing");
    }
    for (flag, only) in [("flatten_patch_embeds", true), ("enable_patch_layer_norm", true)] {
        fields.only_flag(flag, only);
    }
    if fields.count("patch_embed_input_channels").is_some_and(|channels| channels != 1) {
        fields.fault("patch_embed_input_channels", "1: a spectrogram");
    }
    let pair = |name: &str, otherwise: usize| side(fields, name).unwrap_or(otherwise);
    let patch = pair("patch_size", 4);
    if pair("patch_stride", 4) != patch {
        fields.fault("patch_stride", format!("{patch}, as patch_size: patches lie side by side"));
    }
    let sizes = |name: &str, otherwise: [usize; 4]| {
        let whole = |v: &Value| v.as_u64().filter(|n| (1..=1 << 20).contains(n)).map(|n| n as usize);
        fields.list(name, "a list of whole numbers from 1", whole).unwrap_or_else(|| otherwise.to_vec())
    };
    let (depths, heads) = (sizes("depths", [2, 2, 6, 2]), sizes("num_attention_heads", [4, 8, 16, 32]));
    if depths.iter().sum::<usize>() > folder.tensors {
        fields.fault("depths", format!("at most {} blocks, the number of tensors", folder.tensors));
    }
    let hidden = fields.size("patch_embeds_hidden_size").unwrap_or(96);
    let last = hidden << depths.len().saturating_sub(1).min(16);
    if fields.size("hidden_size").unwrap_or(768) != last {
        fields.fault("hidden_size", format!("{last}, the width of the last stage"));
    }
    SwinConfig {
        mels: fields.size("num_mel_bins").unwrap_or(64),
        image_size: fields.size("spec_size").unwrap_or(256),
        patch,
        hidden,
        depths,
        heads,
        window: fields.size("window_size").unwrap_or(8),
        mlp_ratio: fields.number("mlp_ratio").unwrap_or(4.0),
        norm_eps: fields.number("layer_norm_eps").unwrap_or(1e-5),
        act: hidden_act(fields, "hidden_act"),
        qkv_bias: fields.flag("qkv_bias").unwrap_or(true),
        vector,
        projection_act,
        fusion: fused.then(|| hidden / fields.size("aff_block_r").unwrap_or(4)),
    }
}

/// The side of a square, which files write as a number or as two.
fn side(fields: Fields<'_>, name: &str) -> Option<usize> {
    let value = fields.get(name)?;
    let of = |value: &Value| value.as_u64().filter(|n| (1..=1024).contains(n)).map(|n| n as usize);
    let found = match value {
        Value::Array(two) => match two.as_slice() {
            [a, b] if a == b => of(a),
            _ => None,
        },
        one => of(one),
    };
    if found.is_none() {
        fields.fault(name, "a whole number from 1 to 1024, or the same one twice");
    }
    found
}
