//! The omni family: one backbone that reads text, image and audio rows alike.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backbone::{Backbone, BackboneConfig, BackbonePass, Extras};
use crate::batch::TokenRows;
use crate::blocks::{Linear, Pooling, TokenTable};
use crate::builder::Builder;
use crate::capture;
use crate::checkpoint::{
    Card, CheckpointFolder, Fields, Fold, KeyMap, Pattern, PixelLimits, Steps, TaskRules, TemplateRule, TextFiles,
    layers, shown,
};
use crate::error::{ConfigError, RecordError};
use crate::family::{
    Architecture, AudioEncoder, AudioForm, CheckpointRules, Connected, Family, ImageEncoder, ImageForm, ModelSpec,
    Outputs, Pass, PassInput, RowActivations, StepKind, TextModel, Tokens, TowerOutput, config,
};
use crate::flops::Shape;
use crate::open::open_text;
use crate::pass::{Layered, LayeredPass};
use crate::record::{AudioPreprocess, Dtype, Modality, PixelPreprocess, Preprocess, RecordFolder, TemplateKind};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::merger::Merger;
use crate::towers::vision::{VisionConfig, VisionTower};

/// The family.
pub static FAMILY: Family = Family {
    name: "omni",
    about: "jina-embeddings-v5-omni: Qwen3 or EuroBERT text, Qwen3-VL images and video, Qwen2.5-Omni audio",
    read: config::<OmniConfig>,
    checkpoint: Some(&RULES),
};

/// Its checkpoints come in three layouts: with one set of connectors and channels-last convolutions, with connectors and special
/// rows per task, and of one task with its adapter merged. Canonical names are those of the first, with the task's key where
/// connectors come per task; canonical axis orders are torch's.
static RULES: CheckpointRules = CheckpointRules {
    // The checkpoints say what wraps them; the card is found by the text backbone.
    model_types: &[],
    is_architecture: |_| false,
    known_as: "jina-embeddings-v5-omni",
    keys: KEYS,
    names: NAMES,
    read: |folder| Box::new(Reader { folder: *folder, root: folder.config }.read()),
    steps: Steps {
        texts: TextFiles::Prompts,
        table: Some(TOKEN_TABLE),
        cards: &[
            include_str!("../../cards/jina-embeddings-v5-omni-small.toml"),
            include_str!("../../cards/jina-embeddings-v5-omni-nano.toml"),
        ],
        tasks: Some(&TaskRules {
            connectors: &[("merger", "mergers"), ("audio_projector", "audio_projectors")],
            rows: (SPECIAL_ROWS, "task_token_embeddings"),
        }),
        channels_last: true,
        // An early export has the tower's own output projection and a projector that reads what it gives.
        folds: &[Fold { outer: "audio_projector", inner: "audio_tower.proj" }],
        processors: true,
        ..Steps::TEXT
    },
};

/// The names of published checkpoints.
const KEYS: KeyMap = KeyMap {
    renames: &[
        // A `model.` in front, where an export of the whole wrapper adds it.
        ("model.language_model.", "language_model."),
        ("model.visual.", "visual."),
        ("model.vision_tower.", "vision_tower."),
        ("model.merger.", "merger."),
        ("model.mergers.", "mergers."),
        ("model.audio_tower.", "audio_tower."),
        ("model.audio_projector.", "audio_projector."),
        ("model.audio_projectors.", "audio_projectors."),
        ("model.task_token_embeddings.", "task_token_embeddings."),
        ("model.lm_head.", "lm_head."),
        // A causal-LM wrapper inside.
        ("language_model.model.", "language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("visual.", "vision_tower."),
    ],
    endings: &[],
    drops: &[
        (
            Pattern::Exact("audio_tower.audio_bos_eos_token.weight"),
            "its rows frame audio in the generating parent only",
        ),
        (Pattern::Contains("position_ids"), "positions are counted, not read"),
        (Pattern::Suffix(".rotary_emb.inv_freq"), "rotary frequencies are computed from the configuration"),
        (Pattern::Prefix("lm_head."), "an embedding takes no head"),
    ],
};

/// From the names of a record to those of a checkpoint.
const NAMES: &[(&str, &str)] = &[
    ("embed_tokens.", "language_model.embed_tokens."),
    ("backbone.", "language_model."),
    ("vision.patch_embed.", "vision_tower.patch_embed.proj."),
    ("vision.", "vision_tower."),
    ("audio.", "audio_tower."),
];

/// Tensors of a DeepStack tower, which this family does not have.
const DEEPSTACK_MARK: &str = "deepstack_merger_list";
/// The token table of a checkpoint.
const TOKEN_TABLE: &str = "language_model.embed_tokens.weight";
/// A task's own rows of the token table, in a record.
const SPECIAL_ROWS: &str = "special_rows.weight";

/// Configuration of the family; a tower the checkpoint lacks is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmniConfig {
    /// The text backbone.
    pub text: BackboneConfig,
    /// The image tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<VisionConfig>,
    /// The audio tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioConfig>,
}

impl OmniConfig {
    /// One task's backbone and connectors, with its special rows laid over the token table.
    pub fn build(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> OmniText {
        let hidden = self.text.hidden;
        let backbone = b.at("backbone", |b| Backbone::build(&self.text, b));
        let merger = self
            .vision
            .as_ref()
            .map(|v| b.at("merger", |b| Merger::build(b, v.hidden, v.merge * v.merge, hidden, v.norm_eps)));
        let projector = self.audio.as_ref().map(|a| b.linear_biased("audio_projector", a.hidden, hidden));
        let special = tokens.special_rows();
        let rows = if special > 0 { b.host(SPECIAL_ROWS, [special, hidden]) } else { Vec::new() };
        let ids = tokens.special_ids().to_vec();
        let tokens = tokens.table(self.text.vocab, hidden).with_special_rows(&rows, &ids);
        OmniText { tokens, backbone, merger, projector }
    }

    /// Opens the image tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_vision(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<VisionTower>, RecordError> {
        Ok(match record.header().family.open_image(record, compute, device)? {
            Some(ImageEncoder::Patches(tower)) => Some(*tower),
            _ => None,
        })
    }

    /// Opens the audio tower from the shared part of a record; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_audio(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<AudioTower>, RecordError> {
        Ok(match record.header().family.open_audio(record, compute, device)? {
            Some(AudioEncoder::Mel(tower)) => Some(*tower),
            _ => None,
        })
    }

    /// Opens the token table, shared by all tasks, without any task's special rows.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        record.header().family.open_tokens(record)
    }

    /// Opens one task's backbone and connectors, and lays its special rows over `tokens`.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_text(
        &self,
        record: &RecordFolder,
        task: &str,
        tokens: TokenTable,
        compute: Dtype,
        device: &Device,
    ) -> Result<OmniText, RecordError> {
        open_text(record, task, &tokens, compute, device, |b, tokens| self.build(b, tokens))
    }
}

impl Architecture for OmniConfig {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.as_ref().map_or(Ok(()), VisionConfig::check)?;
        self.audio.as_ref().map_or(Ok(()), AudioConfig::check)
    }

    fn spec(&self) -> ModelSpec {
        let image = self.vision.as_ref().map(|v| ImageForm::Patches {
            patch_px: v.patch_px,
            merge: v.merge,
            temporal_patch: v.temporal_patch,
            patch_values: v.patch_values(),
            hidden: v.hidden,
        });
        ModelSpec {
            vector: self.text.hidden,
            hidden: self.text.hidden,
            vocab: self.text.vocab,
            max_tokens: self.text.max_tokens,
            image,
            audio: self.audio.clone().map(AudioForm::Mel),
            ends: None,
            skips_prompt: false,
            outputs: match self.vision.is_some() || self.audio.is_some() {
                true => Outputs::with_features(),
                false => Outputs::default(),
            },
        }
    }

    fn image_encoder(&self, b: &Builder<'_>) -> Option<ImageEncoder> {
        let vision = self.vision.as_ref()?;
        Some(ImageEncoder::Patches(Box::new(b.at("vision", |b| VisionTower::build(vision, b)))))
    }

    fn audio_encoder(&self, b: &Builder<'_>) -> Option<AudioEncoder> {
        let audio = self.audio.as_ref()?;
        Some(AudioEncoder::Mel(Box::new(b.at("audio", |b| AudioTower::build(audio, b)))))
    }

    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel> {
        Arc::new(self.build(b, tokens))
    }

    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        let mut lines = vec![("text", self.text.words())];
        if let (Some(v), Some(image)) = (&self.vision, &preprocess.image) {
            lines.push(("images", v.words(image)));
        }
        if let (Some(a), Some(audio)) = (&self.audio, &preprocess.audio) {
            let (mels, rate) = (audio.mels, audio.sample_rate_hz);
            lines.push(("audio", format!("{} blocks of {}, {mels} mel bands at {rate} Hz", a.layers, a.hidden)));
        }
        lines
    }
}

/// An [`OmniText`] between two of its layers.
#[derive(Debug)]
pub struct OmniState {
    layers: BackbonePass,
    segments: Segments,
}

/// One task's half of the model: token rows, backbone, connectors.
#[derive(Debug)]
pub struct OmniText {
    /// The token table with the task's special rows.
    pub tokens: TokenTable,
    /// The text backbone.
    pub backbone: Backbone,
    /// From image features to backbone rows.
    pub merger: Option<Merger>,
    /// From audio features to backbone rows.
    pub projector: Option<Linear>,
}

impl OmniText {
    /// Pooled rows of the audio tower in the backbone's width.
    ///
    /// # Shapes
    /// - `pooled`: `[tokens, audio hidden]`, as [`AudioTower::pool`] gives them; returns: `[tokens, hidden]`
    /// # Panics
    /// If the checkpoint has no audio tower.
    pub fn project(&self, pooled: Tensor<2>) -> Tensor<2> {
        let projector = self.projector.as_ref().expect("a record with an audio tower has a projector in every task");
        let features = projector.forward(pooled);
        capture::pass(|| "audio.features".into(), features)
    }

    /// One vector a sequence, not normalised.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; returns: `[segments, hidden]`
    pub fn embed(&self, rows: TokenRows) -> Tensor<2> {
        self.run(rows.into())
    }
}

impl Layered for OmniText {
    type State = OmniState;

    fn enter(&self, rows: TokenRows, _: Option<Vec<usize>>) -> OmniState {
        let segments = rows.segments.clone();
        OmniState { layers: self.backbone.begin(rows, Extras::default()), segments }
    }

    fn layers(&self) -> usize {
        self.backbone.layers()
    }

    fn layer(&self, _: usize, state: OmniState) -> OmniState {
        OmniState { layers: self.backbone.advance(state.layers), ..state }
    }

    fn leave(&self, state: OmniState, skipped: &[usize]) -> Tensor<2> {
        Pooling::LastToken.apply_after(self.backbone.finish(state.layers), &state.segments, skipped)
    }
}

impl TextModel for OmniText {
    fn tokens(&self) -> &TokenTable {
        &self.tokens
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

    fn connect(&self, output: TowerOutput<'_>) -> Option<Connected> {
        match output {
            TowerOutput::Patches(rows) => Some(Connected::Rows(self.merger.as_ref()?.forward(rows.last).into())),
            TowerOutput::Mel(tower, rows) => {
                self.projector.as_ref()?;
                Some(Connected::Rows(self.project(tower.pool(rows)).into()))
            }
            TowerOutput::Audio(_) | TowerOutput::Pixels(_) | TowerOutput::Windows(_) => None,
        }
    }

    fn flops(&self, shape: &Shape) -> Option<u64> {
        match shape {
            Shape::Text { tokens } => Some(self.backbone.flops(*tokens)),
            Shape::Patches { groups, patches, tokens } => {
                Some(self.merger.as_ref()?.flops(groups * patches) + self.backbone.flops(*tokens))
            }
            // Pairs of tower rows are projected.
            Shape::Mel { clips, tokens } => {
                let projector = self.projector.as_ref()?;
                let projected = clips.iter().map(|&frames| projector.flops(frames.div_ceil(2) / 2)).sum::<u64>();
                Some(projected + self.backbone.flops(*tokens))
            }
            Shape::Pixels { .. } | Shape::Parts { .. } => None,
        }
    }

    fn activations(&self) -> RowActivations {
        self.backbone.activations()
    }
}

/// Reads `config.json` as it is published, with its quirks. Absent fields take the defaults of their published model classes
/// where those are facts of the architecture, the card's value where no file states it, and are refused by name otherwise. A
/// value that would change the arithmetic in a way that is not computed is refused by name too.
struct Reader<'a> {
    folder: CheckpointFolder<'a>,
    root: Fields<'a>,
}

impl Reader<'_> {
    /// The whole configuration; what it says beside sizes goes into the folder's details.
    fn read(&self) -> OmniConfig {
        let root = self.root;
        let config = OmniConfig {
            text: self.text(root.get("text_config")),
            vision: self.vision(root.get("vision_config")),
            audio: self.audio(root.get("audio_config")),
        };
        self.folder.refuse_common();
        let ids = Ids::read(root);
        let dims = self.dims(config.text.hidden);
        let special_token_ids = self.special_token_ids();
        let mut details = self.folder.details.borrow_mut();
        details.dims = dims;
        details.ids = ids.all();
        details.special_token_ids = special_token_ids;
        details.task_names = root.texts("task_names");
        details.templates = ids.templates(&config);
        details.preprocess = self.preprocess(&config);
        config
    }

    fn text(&self, value: Option<&Value>) -> BackboneConfig {
        let text = Fields::new("text_config.", value, self.folder.faults);
        text.only_text("hidden_act", "silu");
        text.only_flag("attention_bias", false);
        text.only_flag("mlp_bias", false);
        text.only_flag("use_sliding_window", false);
        if let Some(kinds) = text.list("layer_types", "a list of strings", Value::as_str)
            && kinds.iter().any(|kind| *kind != "full_attention")
        {
            text.fault("layer_types", "\"full_attention\" in every layer");
        }
        let (hidden, heads) = (text.needed_size("hidden_size"), text.needed_size("num_attention_heads"));
        let model_type = text.text("model_type").unwrap_or_default();
        BackboneConfig {
            hidden,
            layers: layers(text, "num_hidden_layers", self.folder.tensors),
            heads,
            kv_heads: text.size("num_key_value_heads").unwrap_or(heads),
            head_dim: text.size("head_dim").unwrap_or_else(|| hidden.checked_div(heads).unwrap_or(0)),
            inner: text.needed_size("intermediate_size"),
            norm_eps: text.needed_number("rms_norm_eps"),
            rope_theta: self.rope_theta(text, model_type),
            causal: self.causal(text, model_type),
            // Which tensors there are is checked by name against this, so a contradiction lists them.
            qk_norm: self.card().text.qk_norm,
            max_tokens: text.needed_size("max_position_embeddings"),
            vocab: self.vocab(text),
        }
    }

    /// The base of plain rotary positions; any scaling is refused.
    fn rope_theta(&self, text: Fields<'_>, model_type: &str) -> f64 {
        let mut nested = None;
        for (block, at) in
            [("rope_parameters", "text_config.rope_parameters."), ("rope_scaling", "text_config.rope_scaling.")]
        {
            let rope = Fields::new(at, text.get(block), self.folder.faults);
            let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            // With three equal position rows, which is how this family counts, sections change nothing.
            let sections = model_type == "qwen3_vl_text";
            if kind != "default" && !(sections && kind == "mrope") {
                rope.fault(if rope.get("rope_type").is_some() { "rope_type" } else { "type" }, "\"default\"");
            }
            if rope.get("mrope_section").is_some() {
                if sections {
                    self.folder.note(format!("{at}mrope_section has no effect: all three position rows are equal"));
                } else {
                    rope.fault("mrope_section", "nothing, as positions have one axis");
                }
            }
            if rope.number("partial_rotary_factor").is_some_and(|f| f != 1.0) {
                rope.fault("partial_rotary_factor", "1.0");
            }
            nested = nested.or(rope.number("rope_theta"));
        }
        if text.number("partial_rotary_factor").is_some_and(|f| f != 1.0) {
            text.fault("partial_rotary_factor", "1.0");
        }
        let flat = text.number("rope_theta");
        if let (Some(nested), Some(flat)) = (nested, flat)
            && nested != flat
        {
            let taken = format!("rope_theta {nested} of text_config.rope_parameters is taken");
            self.folder.note(format!("{taken}, not the {flat} beside it"));
        }
        nested.or(flat).unwrap_or_else(|| {
            text.fault("rope_parameters.rope_theta", "a number, there or in rope_theta");
            0.0
        })
    }

    /// Whether rows see only earlier rows: the configuration's word, else the card's.
    ///
    /// `qwen3` and `qwen3_vl_text` are decoders and `eurobert` is an encoder, whoever uses them. A `llama` is a decoder
    /// unless the checkpoint as a whole is the one that is published as a `llama` with causality switched off, which
    /// its own model type or architectures tell.
    fn causal(&self, text: Fields<'_>, model_type: &str) -> bool {
        if let Some(causal) = text.flag("is_causal").or(self.root.flag("is_causal")) {
            return causal;
        }
        let card = self.card().text.causal;
        let Some(marks) = self.card().text.marks.get(model_type) else { return card };
        let mut said = self.root.texts("architectures");
        said.extend(self.root.text("model_type").map(str::to_string));
        let marked = said.iter().map(|s| s.to_lowercase()).any(|s| marks.iter().any(|mark| s.contains(mark.as_str())));
        let causal = if marked { card } else { !card };
        let kind = if causal { "causal" } else { "bidirectional" };
        self.folder
            .note(format!("text_config has no is_causal: a `{model_type}` in this checkpoint is taken as {kind}"));
        causal
    }

    fn vocab(&self, text: Fields<'_>) -> usize {
        // That the table is there, with two axes, is checked before anything is read.
        let rows = self.folder.index.shape_of(TOKEN_TABLE).map_or(0, |shape| shape[0]);
        match text.size("vocab_size") {
            Some(said) if said > rows => {
                text.fault("vocab_size", format!("at most {rows}, the rows of the token table"));
            }
            Some(said) if said < rows => {
                self.folder
                    .note(format!("the token table has {rows} rows, config.json counts {said}; all rows are kept"));
            }
            _ => {}
        }
        rows
    }

    fn vision(&self, value: Option<&Value>) -> Option<VisionConfig> {
        if !self.tower("vision_config", "image", value, self.begins(&["vision_tower.", "merger.", "mergers."]))? {
            return None;
        }
        let vision = Fields::new("vision_config.", value, self.folder.faults);
        let indexes = vision.list("deepstack_visual_indexes", "a list of layers", Value::as_u64).unwrap_or_default();
        if self.folder.index.contains(DEEPSTACK_MARK) {
            vision.fault("deepstack_visual_indexes", "no DeepStack tensors: this family has none");
        } else if !indexes.is_empty() {
            let cleared = "no DeepStack tensors are there, so nothing is tapped";
            self.folder.note(format!("vision_config.deepstack_visual_indexes is {indexes:?}; {cleared}"));
        }
        Some(VisionConfig::published(vision, self.folder.tensors, &self.card().vision))
    }

    fn audio(&self, value: Option<&Value>) -> Option<AudioConfig> {
        if !self.tower(
            "audio_config",
            "audio",
            value,
            self.begins(&["audio_tower.", "audio_projector.", "audio_projectors."]),
        )? {
            return None;
        }
        let audio = Fields::new("audio_config.", value, self.folder.faults);
        audio.only_text("activation_function", "gelu");
        audio.only_flag("scale_embedding", false);
        Some(AudioConfig {
            hidden: audio.needed_size("d_model"),
            layers: layers(audio, "encoder_layers", self.folder.tensors),
            heads: audio.needed_size("encoder_attention_heads"),
            inner: audio.needed_size("encoder_ffn_dim"),
            n_window: audio.needed_size("n_window"),
            mels: audio.needed_size("num_mel_bins"),
            max_positions: audio.needed_size("max_source_positions"),
            norm_eps: audio.number("layer_norm_eps").unwrap_or(self.card().audio.norm_eps),
        })
    }

    /// Whether a tower is there: both its configuration and its tensors. Tensors alone are a fault, a configuration
    /// alone is a checkpoint published without that tower.
    fn tower(&self, field: &str, medium: &str, value: Option<&Value>, tensors: bool) -> Option<bool> {
        match (value.is_some_and(Value::is_object), tensors) {
            (true, false) => {
                self.folder.note(format!("{field} is there but no tensor of it: no {medium} tower"));
                Some(false)
            }
            (false, true) => {
                self.folder.faults.add(
                    field,
                    shown(value),
                    format!("an object, as there are tensors of an {medium} tower"),
                );
                None
            }
            (present, _) => Some(present),
        }
    }

    fn special_token_ids(&self) -> Vec<u32> {
        let parse = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = self.root.list("special_token_ids", "a list of token ids", parse).unwrap_or_default();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != ids.len() {
            self.root.fault("special_token_ids", "each id once");
        }
        ids
    }

    /// Matryoshka dimensions, ascending, the full width always among them.
    fn dims(&self, hidden: usize) -> Vec<usize> {
        let parse = |v: &Value| v.as_u64().map(|n| n as usize).filter(|n| (1..=hidden).contains(n));
        let expected = format!("a list of numbers from 1 to {hidden}");
        let said = self.root.list("matryoshka_dimensions", &expected, parse);
        let mut dims = said.unwrap_or_else(|| self.card().dims.iter().copied().filter(|&d| d <= hidden).collect());
        dims.push(hidden);
        dims.sort_unstable();
        dims.dedup();
        dims
    }

    /// How media are preprocessed where no file says otherwise: as the card has it.
    fn preprocess(&self, config: &OmniConfig) -> Preprocess {
        let card = self.card();
        let image = config.vision.as_ref().map(|vision| PixelPreprocess {
            patch_px: vision.patch_px as u32,
            merge: vision.merge as u32,
            temporal_patch: vision.temporal_patch as u32,
            min_pixels: card.preprocess.image.min_pixels,
            max_pixels: card.preprocess.image.max_pixels,
            mean: card.preprocess.mean,
            std: card.preprocess.std,
            rescale: card.preprocess.rescale,
            per_frame: false,
        });
        let limits = image.clone().zip(card.preprocess.video);
        let video = limits.map(|(image, PixelLimits { min_pixels, max_pixels })| PixelPreprocess {
            min_pixels,
            max_pixels,
            ..image
        });
        let audio = config.audio.as_ref().map(|audio| AudioPreprocess {
            sample_rate_hz: card.audio.sample_rate_hz,
            fft_samples: card.audio.fft_samples,
            hop_samples: card.audio.hop_samples,
            mels: audio.mels as u32,
            mirrored: false,
            whole_seconds: None,
            clip: None,
        });
        let video_frames = image.is_some().then_some(card.preprocess.video_frames);
        Preprocess { image, video, video_frames, audio, ..Preprocess::default() }
    }

    fn card(&self) -> &Card {
        self.folder.card.expect("a folder of this family is recognised by its card")
    }

    fn begins(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.folder.index.begins(prefix))
    }
}

/// Ids the configuration names, each with the field it stands in.
struct Ids {
    image: Option<(&'static str, u32)>,
    video: Option<(&'static str, u32)>,
    vision_start: Option<u32>,
    vision_end: Option<u32>,
    audio: Option<(&'static str, u32)>,
    audio_start: Option<u32>,
    audio_end: Option<u32>,
}

const VISION_START: &str = "vision_start_token_id";
const VISION_END: &str = "vision_end_token_id";
const AUDIO_START: &str = "audio_start_token_id";
const AUDIO_END: &str = "audio_end_token_id";

impl Ids {
    fn read(root: Fields<'_>) -> Self {
        // Published files name the image's id one way or the other.
        let either = |a: &'static str, b: &'static str| root.id(a).map(|id| (a, id)).or(root.id(b).map(|id| (b, id)));
        Self {
            image: either("image_token_id", "image_token_index"),
            video: either("video_token_id", "video_token_index"),
            vision_start: root.id(VISION_START),
            vision_end: root.id(VISION_END),
            audio: either("audio_token_id", "audio_token_index"),
            audio_start: root.id(AUDIO_START),
            audio_end: root.id(AUDIO_END),
        }
    }

    /// Every id with its field.
    fn all(&self) -> Vec<(&'static str, u32)> {
        let named = |field: &'static str, id: Option<u32>| id.map(|id| (field, id));
        let ids = [
            self.image,
            self.video,
            named(VISION_START, self.vision_start),
            named(VISION_END, self.vision_end),
            self.audio,
            named(AUDIO_START, self.audio_start),
            named(AUDIO_END, self.audio_end),
        ];
        ids.into_iter().flatten().collect()
    }

    /// Images and video are wrapped where the configuration names the start and end ids and bare elsewhere; audio is wrapped,
    /// and has no suffix where the backbone is bidirectional.
    fn templates(&self, config: &OmniConfig) -> Vec<TemplateRule> {
        let vision_kind = match (self.vision_start, self.vision_end) {
            (Some(_), Some(_)) => TemplateKind::Wrapped,
            _ => TemplateKind::Bare,
        };
        let audio_kind = if config.text.causal { TemplateKind::Wrapped } else { TemplateKind::Noeos };
        let vision = |modality| TemplateRule {
            modality,
            kind: vision_kind,
            fixed: false,
            start: (VISION_START, self.vision_start),
            end: (VISION_END, self.vision_end),
        };
        let audio = TemplateRule {
            modality: Modality::Audio,
            kind: audio_kind,
            fixed: false,
            start: (AUDIO_START, self.audio_start),
            end: (AUDIO_END, self.audio_end),
        };
        let media = [
            config.vision.is_some().then(|| vision(Modality::Image)),
            config.audio.is_some().then_some(audio),
            config.vision.is_some().then(|| vision(Modality::Video)),
        ];
        media.into_iter().flatten().collect()
    }
}
