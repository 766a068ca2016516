//! `config.json` as it is published, with its quirks, to the strict configuration of a record.
//!
//! Absent fields take the defaults of their published model classes where those are facts of the architecture, the
//! card's value where no file states it, and are refused by name otherwise. A value that would change the arithmetic in
//! a way the model code does not compute is refused by name too.

use std::path::Path;

use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::family::Architecture;
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::vision::VisionConfig;
use serde_json::Value;

use crate::card::Card;
use crate::error::ConvertError;
use crate::fields::{Faults, Fields, shown};
use crate::maps::mini;

/// What the tensors say that a configuration may contradict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Rows of the token table.
    pub vocab: usize,
    /// Whether there are tensors of an image tower or of its connectors.
    pub vision: bool,
    /// Whether there are tensors of an audio tower or of its connectors.
    pub audio: bool,
    /// Whether there are tensors of a DeepStack tower.
    pub deepstack: bool,
    /// Number of tensors.
    pub tensors: usize,
}

/// Ids the configuration names, each with the field it stands in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub image: Option<(&'static str, u32)>,
    pub video: Option<(&'static str, u32)>,
    pub vision_start: Option<(&'static str, u32)>,
    pub vision_end: Option<(&'static str, u32)>,
    pub audio: Option<(&'static str, u32)>,
    pub audio_start: Option<(&'static str, u32)>,
    pub audio_end: Option<(&'static str, u32)>,
}

impl Ids {
    fn read(root: Fields<'_>) -> Self {
        // Published files name the image's id one way or the other.
        let either = |a: &'static str, b: &'static str| root.id(a).map(|id| (a, id)).or(root.id(b).map(|id| (b, id)));
        let one = |name: &'static str| root.id(name).map(|id| (name, id));
        Self {
            image: either("image_token_id", "image_token_index"),
            video: either("video_token_id", "video_token_index"),
            vision_start: one("vision_start_token_id"),
            vision_end: one("vision_end_token_id"),
            audio: either("audio_token_id", "audio_token_index"),
            audio_start: one("audio_start_token_id"),
            audio_end: one("audio_end_token_id"),
        }
    }

    /// Every id with its field.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let ids =
            [self.image, self.video, self.vision_start, self.vision_end, self.audio, self.audio_start, self.audio_end];
        ids.into_iter().flatten()
    }
}

/// Everything convert needs from `config.json`.
#[derive(Debug, Clone)]
pub(crate) struct HfConfig {
    pub omni: OmniConfig,
    pub ids: Ids,
    pub special_token_ids: Vec<u32>,
    pub task_names: Vec<String>,
    pub dims: Vec<usize>,
    pub notes: Vec<String>,
}

/// The card that knows the configuration's text backbone.
///
/// # Errors
/// [`ConvertError::Fields`] naming the model types and architectures found and those known.
pub(crate) fn find_card(path: &Path, root: &Value) -> Result<Card, ConvertError> {
    let model_type = root.get("text_config").and_then(|t| t.get("model_type"));
    if let Some(card) = model_type.and_then(Value::as_str).and_then(Card::for_text_model_type) {
        return Ok(card);
    }
    let faults = Faults::of(path);
    let known = Card::text_model_types().join(", ");
    let (own, architectures) = (root.get("model_type"), root.get("architectures"));
    let rules: Vec<_> = omniburn_models::family::known().into_iter().filter_map(|family| family.checkpoint).collect();
    let types: Vec<String> =
        rules.iter().flat_map(|rules| rules.model_types).map(|name| format!("\"{name}\"")).collect();
    let mut expected =
        format!("{}, \"{}\", or a text_config whose model_type is one of {known}", types.join(", "), mini::MODEL_TYPE);
    let names: Vec<&str> =
        architectures.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if own.is_none_or(Value::is_null)
        && let Some(rules) = rules.iter().find(|rules| names.iter().any(|name| (rules.is_architecture)(name)))
    {
        let (known_as, name) = (rules.known_as, rules.model_types[0]);
        expected += &format!(
            "; its architectures are those of {known_as}, so `\"model_type\": \"{name}\"` in this file would do"
        );
    }
    let found = format!("{}, with architectures {}", shown(own), shown(architectures));
    if root.get("text_config").is_some() {
        let found = format!("{}, in a checkpoint of model_type {found}", shown(model_type));
        faults.add("text_config.model_type", found, format!("one of {known}"));
    } else {
        faults.add("model_type", found, expected);
    }
    Err(faults.refusal().into())
}

impl HfConfig {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field that is wrong; [`ConvertError::Config`] where sizes contradict each
    /// other.
    pub fn read(path: &Path, root: &Value, card: &Card, facts: Facts) -> Result<Self, ConvertError> {
        let faults = Faults::of(path);
        let mut reader =
            Reader { root: Fields::new("", Some(root), &faults), card, facts, faults: &faults, notes: vec![] };
        let omni = OmniConfig {
            text: reader.text(root.get("text_config")),
            vision: reader.vision(root.get("vision_config")),
            audio: reader.audio(root.get("audio_config")),
        };
        for field in ["quantization", "quantization_config"] {
            if reader.root.get(field).is_some() {
                reader.root.fault(field, "nothing: quantised weights are not read");
            }
        }
        let config = Self {
            dims: reader.dims(omni.text.hidden),
            ids: Ids::read(reader.root),
            special_token_ids: reader.special_token_ids(),
            task_names: reader.root.texts("task_names"),
            notes: reader.notes,
            omni,
        };
        faults.check()?;
        config.omni.check().map_err(|source| ConvertError::Config { path: path.to_path_buf(), source })?;
        Ok(config)
    }
}

struct Reader<'a> {
    root: Fields<'a>,
    card: &'a Card,
    facts: Facts,
    faults: &'a Faults,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, value: Option<&Value>) -> BackboneConfig {
        let text = Fields::new("text_config.", value, self.faults);
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
            layers: self.layers(text, "num_hidden_layers"),
            heads,
            kv_heads: text.size("num_key_value_heads").unwrap_or(heads),
            head_dim: text.size("head_dim").unwrap_or_else(|| hidden.checked_div(heads).unwrap_or(0)),
            inner: text.needed_size("intermediate_size"),
            norm_eps: text.needed_number("rms_norm_eps"),
            rope_theta: self.rope_theta(text, model_type),
            causal: self.causal(text, model_type),
            // Which tensors there are is checked by name against this, so a contradiction lists them.
            qk_norm: self.card.text.qk_norm,
            max_tokens: text.needed_size("max_position_embeddings"),
            vocab: self.vocab(text),
        }
    }

    /// A number of layers, of which there cannot be more than tensors: a lie is refused before names are made from it.
    fn layers(&self, fields: Fields<'_>, name: &str) -> usize {
        let layers = fields.needed_size(name);
        if layers > self.facts.tensors {
            fields.fault(name, format!("at most {}, the number of tensors", self.facts.tensors));
            return 0;
        }
        layers
    }

    /// The base of plain rotary positions; any scaling is refused.
    fn rope_theta(&mut self, text: Fields<'_>, model_type: &str) -> f64 {
        let mut nested = None;
        for (block, at) in
            [("rope_parameters", "text_config.rope_parameters."), ("rope_scaling", "text_config.rope_scaling.")]
        {
            let rope = Fields::new(at, text.get(block), self.faults);
            let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            // With three equal position rows, which is how this family counts, sections change nothing.
            let sections = model_type == "qwen3_vl_text";
            if kind != "default" && !(sections && kind == "mrope") {
                rope.fault(if rope.get("rope_type").is_some() { "rope_type" } else { "type" }, "\"default\"");
            }
            if rope.get("mrope_section").is_some() {
                if sections {
                    self.notes.push(format!("{at}mrope_section has no effect: all three position rows are equal"));
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
            self.notes.push(format!("{taken}, not the {flat} beside it"));
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
    fn causal(&mut self, text: Fields<'_>, model_type: &str) -> bool {
        if let Some(causal) = text.flag("is_causal").or(self.root.flag("is_causal")) {
            return causal;
        }
        let card = self.card.text.causal;
        let Some(marks) = self.card.text.marks.get(model_type) else { return card };
        let mut said = self.root.texts("architectures");
        said.extend(self.root.text("model_type").map(str::to_string));
        let marked = said.iter().map(|s| s.to_lowercase()).any(|s| marks.iter().any(|mark| s.contains(mark.as_str())));
        let causal = if marked { card } else { !card };
        let kind = if causal { "causal" } else { "bidirectional" };
        self.notes
            .push(format!("text_config has no is_causal: a `{model_type}` in this checkpoint is taken as {kind}"));
        causal
    }

    fn vocab(&mut self, text: Fields<'_>) -> usize {
        let rows = self.facts.vocab;
        match text.size("vocab_size") {
            Some(said) if said > rows => {
                text.fault("vocab_size", format!("at most {rows}, the rows of the token table"));
            }
            Some(said) if said < rows => {
                self.notes
                    .push(format!("the token table has {rows} rows, config.json counts {said}; all rows are kept"));
            }
            _ => {}
        }
        rows
    }

    fn vision(&mut self, value: Option<&Value>) -> Option<VisionConfig> {
        if !self.tower("vision_config", "image", value, self.facts.vision)? {
            return None;
        }
        let vision = Fields::new("vision_config.", value, self.faults);
        vision.only_text("hidden_act", "gelu_pytorch_tanh");
        let indexes = vision.list("deepstack_visual_indexes", "a list of layers", Value::as_u64).unwrap_or_default();
        if self.facts.deepstack {
            vision.fault("deepstack_visual_indexes", "no DeepStack tensors: this family has none");
        } else if !indexes.is_empty() {
            let cleared = "no DeepStack tensors are there, so nothing is tapped";
            self.notes.push(format!("vision_config.deepstack_visual_indexes is {indexes:?}; {cleared}"));
        }
        let card = &self.card.vision;
        Some(VisionConfig {
            hidden: vision.needed_size("hidden_size"),
            layers: self.layers(vision, "depth"),
            heads: vision.needed_size("num_heads"),
            inner: vision.needed_size("intermediate_size"),
            positions: vision.needed_size("num_position_embeddings"),
            patch_px: vision.size("patch_size").unwrap_or(card.patch_px),
            merge: vision.size("spatial_merge_size").unwrap_or(card.merge),
            temporal_patch: vision.size("temporal_patch_size").unwrap_or(card.temporal_patch),
            channels: vision.size("in_channels").unwrap_or(card.channels),
            norm_eps: vision.number("layer_norm_eps").or(vision.number("norm_eps")).unwrap_or(card.norm_eps),
            rope_theta: card.rope_theta,
            taps: Vec::new(),
        })
    }

    fn audio(&mut self, value: Option<&Value>) -> Option<AudioConfig> {
        if !self.tower("audio_config", "audio", value, self.facts.audio)? {
            return None;
        }
        let audio = Fields::new("audio_config.", value, self.faults);
        audio.only_text("activation_function", "gelu");
        audio.only_flag("scale_embedding", false);
        Some(AudioConfig {
            hidden: audio.needed_size("d_model"),
            layers: self.layers(audio, "encoder_layers"),
            heads: audio.needed_size("encoder_attention_heads"),
            inner: audio.needed_size("encoder_ffn_dim"),
            n_window: audio.needed_size("n_window"),
            mels: audio.needed_size("num_mel_bins"),
            max_positions: audio.needed_size("max_source_positions"),
            norm_eps: audio.number("layer_norm_eps").unwrap_or(self.card.audio.norm_eps),
        })
    }

    /// Whether a tower is there: both its configuration and its tensors. Tensors alone are a fault, a configuration
    /// alone is a checkpoint published without that tower.
    fn tower(&mut self, field: &str, medium: &str, value: Option<&Value>, tensors: bool) -> Option<bool> {
        match (value.is_some_and(Value::is_object), tensors) {
            (true, false) => {
                self.notes.push(format!("{field} is there but no tensor of it: no {medium} tower"));
                Some(false)
            }
            (false, true) => {
                self.faults.add(field, shown(value), format!("an object, as there are tensors of an {medium} tower"));
                None
            }
            (present, _) => Some(present),
        }
    }

    fn special_token_ids(&mut self) -> Vec<u32> {
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
    fn dims(&mut self, hidden: usize) -> Vec<usize> {
        let parse = |v: &Value| v.as_u64().map(|n| n as usize).filter(|n| (1..=hidden).contains(n));
        let expected = format!("a list of numbers from 1 to {hidden}");
        let said = self.root.list("matryoshka_dimensions", &expected, parse);
        let mut dims = said.unwrap_or_else(|| self.card.dims.iter().copied().filter(|&d| d <= hidden).collect());
        dims.push(hidden);
        dims.sort_unstable();
        dims.dedup();
        dims
    }
}
