//! jina-embeddings-v5-omni: its three published layouts, as rules and recipes.
//!
//! Canonical names are those of the `mlx` layout, with the task's key where connectors come per task
//! (`mergers.{task}.`). Canonical axis orders are torch's.

use std::fmt;

use omniburn_models::FamilyConfig;
use omniburn_models::checkpoint::source_name;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::{SourceAxes, TensorSpec};
use omniburn_models::towers::audio::CONV_TAPS;
use serde::Serialize;

use crate::keymap::{Form, Input, KeyMap, Pattern, Piece, Recipe};
use crate::maps::{pieces, plain};
use crate::source::Source;

/// The names of this family.
pub(crate) const KEYS: KeyMap = KeyMap {
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

/// From the names of a record to the canonical ones.
const NAMES: &[(&str, &str)] = &[
    ("embed_tokens.", "language_model.embed_tokens."),
    ("backbone.", "language_model."),
    ("vision.patch_embed.", "vision_tower.patch_embed.proj."),
    ("vision.", "vision_tower."),
    ("audio.", "audio_tower."),
];

/// Tensors of a DeepStack tower, which this family does not have.
pub(crate) const DEEPSTACK_MARK: &str = "deepstack_merger_list";
/// The token table.
pub(crate) const TOKEN_TABLE: &str = "language_model.embed_tokens.weight";
const TOWER_PROJ: &str = "audio_tower.proj.";
const PER_TASK: [&str; 3] = ["mergers.", "audio_projectors.", "task_token_embeddings."];

/// How a checkpoint is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One set of connectors, channels-last convolutions, adapters beside them.
    Mlx,
    /// Connectors and special rows per task, torch axis order, adapters beside them.
    TorchTasks,
    /// One task with its adapter already merged, torch axis order.
    TorchMerged,
    /// The one way a family without adapters is published.
    Single,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Mlx => "mlx (one set of connectors, channels-last convolutions)",
            Layout::TorchTasks => "torch-tasks (connectors and special rows per task)",
            Layout::TorchMerged => "torch-merged (one task, adapter merged)",
            Layout::Single => "single (one set of weights, no adapters)",
        })
    }
}

impl Layout {
    /// Recognises the layout by names, then by axis orders.
    ///
    /// Connectors per task are B's alone. Otherwise every convolution whose two orders differ votes, and they agree in
    /// an audio file; where none can tell (three channels of three frames, or no tower at all), adapters beside the
    /// weights mean that nothing is merged yet.
    pub(crate) fn detect(source: &Source, config: &OmniConfig, adapters_beside: bool) -> Self {
        if PER_TASK.iter().any(|prefix| source.has_prefix(prefix)) {
            return Layout::TorchTasks;
        }
        let orders = Orders::of(config);
        let votes = orders.all().into_iter().filter_map(|(name, torch, last)| {
            let found = source.shape(name)?;
            (torch.shape != last.shape).then_some(())?;
            match found {
                found if found == last.shape => Some(true),
                found if found == torch.shape => Some(false),
                _ => None,
            }
        });
        match votes.into_iter().next() {
            Some(true) => Layout::Mlx,
            Some(false) => Layout::TorchMerged,
            None if adapters_beside => Layout::Mlx,
            None => Layout::TorchMerged,
        }
    }
}

/// Both axis orders of every convolution, with the permutation to rows of a product.
struct Orders {
    convolutions: Vec<(&'static str, Form, Form)>,
}

impl Orders {
    fn of(config: &OmniConfig) -> Self {
        let mut convolutions = Vec::new();
        if let Some(v) = &config.vision {
            let (o, c, t, p) = (v.hidden, v.channels, v.temporal_patch, v.patch_px);
            convolutions.push((
                "vision_tower.patch_embed.proj.weight",
                // Patch rows are (channel, time, row, column), which is torch's order.
                Form { shape: vec![o, c, t, p, p], order: None },
                Form { shape: vec![o, t, p, p, c], order: Some(vec![0, 4, 1, 2, 3]) },
            ));
        }
        if let Some(a) = &config.audio {
            for (name, channels) in [("audio_tower.conv1.weight", a.mels), ("audio_tower.conv2.weight", a.hidden)] {
                convolutions.push((
                    name,
                    // Rows of the product are (tap, channel), which is the channels-last order.
                    Form { shape: vec![a.hidden, channels, CONV_TAPS], order: Some(vec![0, 2, 1]) },
                    Form { shape: vec![a.hidden, CONV_TAPS, channels], order: None },
                ));
            }
        }
        Self { convolutions }
    }

    fn all(&self) -> Vec<(&'static str, &Form, &Form)> {
        self.convolutions.iter().map(|(name, torch, last)| (*name, torch, last)).collect()
    }
}

/// Task keys that connectors or special rows are there for, in name order.
pub(crate) fn connector_keys(source: &Source) -> Vec<String> {
    let mut keys: Vec<String> = source
        .names()
        .filter_map(|name| PER_TASK.iter().find_map(|prefix| name.strip_prefix(prefix)))
        .map(|rest| rest.split('.').next().unwrap_or(rest).to_string())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Whether the checkpoint has special rows per task.
pub(crate) fn has_special_rows(source: &Source) -> bool {
    source.has_prefix("task_token_embeddings.")
}

/// The task key a canonical name belongs to, where it belongs to one.
pub(crate) fn task_key_of(canonical: &str) -> Option<&str> {
    PER_TASK.iter().find_map(|prefix| canonical.strip_prefix(prefix)).map(|rest| rest.split('.').next().unwrap_or(rest))
}

/// Why the audio tower's own output projection may be left aside: the projector reads the tower directly.
pub(crate) fn tower_projection_reason(source: &Source, config: &OmniConfig, canonical: &str) -> Option<String> {
    let audio = config.audio.as_ref()?;
    let middle = source.shape("audio_tower.proj.weight")?.first().copied()?;
    let unused = canonical.starts_with(TOWER_PROJ) && middle != audio.hidden;
    unused.then(|| format!("the projector reads {} values, so the tower's own {middle} are not used", audio.hidden))
}

/// Makes the recipes of one checkpoint.
pub(crate) struct Recipes<'a> {
    source: &'a Source,
    config: &'a OmniConfig,
    family: FamilyConfig,
    layout: Layout,
}

impl<'a> Recipes<'a> {
    /// Recipes for a checkpoint of this layout.
    pub fn new(source: &'a Source, config: &'a OmniConfig, layout: Layout) -> Self {
        Self { source, config, family: FamilyConfig::new(config.clone()), layout }
    }

    /// The token table.
    pub fn tokens(&self) -> Vec<Recipe> {
        self.make(self.family.token_tensors(), None)
    }

    /// The towers.
    pub fn towers(&self) -> Vec<Recipe> {
        self.make(self.family.tower_tensors(), None)
    }

    /// One task's text part; `key` is its name inside weight names, where connectors come per task.
    pub fn text(&self, key: Option<&str>, special_rows: usize) -> Vec<Recipe> {
        self.make(self.family.text_tensors(special_rows), key)
    }

    fn make(&self, specs: Vec<TensorSpec>, key: Option<&str>) -> Vec<Recipe> {
        specs.into_iter().map(|spec| Recipe { pieces: self.pieces(&spec, key), spec }).collect()
    }

    fn pieces(&self, spec: &TensorSpec, key: Option<&str>) -> Vec<Piece> {
        let (root, rest) = spec.name.split_once('.').unwrap_or((&spec.name, ""));
        match root {
            "merger" => plain(connector("merger", key, rest), spec),
            "audio_projector" => self.projector(rest, spec, key),
            "special_rows" => plain(format!("task_token_embeddings.{}", key.unwrap_or_default()), spec),
            _ if spec.axes != SourceAxes::Torch => self.convolution(&source_name(NAMES, &spec.name)),
            _ => pieces(spec, NAMES),
        }
    }

    /// The projector, with the tower's own output projection folded in where an early export kept the two apart.
    fn projector(&self, rest: &str, spec: &TensorSpec, key: Option<&str>) -> Vec<Piece> {
        let width = self.config.audio.as_ref().map_or(0, |a| a.hidden);
        let own = |leaf: &str| connector("audio_projector", key, leaf);
        let outputs = self.config.text.hidden;
        // By shape: it is folded where the projector reads what that projection gives, and not what the tower gives.
        let reads = self.source.shape(&own("weight")).and_then(|s| s.get(1).copied());
        let gives = self.source.shape("audio_tower.proj.weight").and_then(|s| s.first().copied());
        let Some(middle) = reads.filter(|&m| Some(m) == gives && m != width) else {
            return plain(own(rest), spec);
        };
        let outer = Input::plain(own("weight"), [outputs, middle]);
        vec![if rest == "weight" {
            Piece::FoldedWeight { outer, inner: Input::plain("audio_tower.proj.weight", [middle, width]) }
        } else {
            let inner = Input::plain("audio_tower.proj.bias", [middle]);
            Piece::FoldedBias { outer, inner, own: Input::plain(own("bias"), [outputs]) }
        }]
    }

    /// A convolution in either axis order; where the two cannot be told apart, the layout's own comes first.
    fn convolution(&self, name: &str) -> Vec<Piece> {
        let orders = Orders::of(self.config);
        let (_, torch, last) =
            orders.convolutions.into_iter().find(|(n, ..)| *n == name).expect("the tower is in the configuration");
        let forms = if self.layout == Layout::Mlx { vec![last, torch] } else { vec![torch, last] };
        vec![Piece::Tensor(Input { name: name.into(), forms })]
    }
}

fn connector(name: &str, key: Option<&str>, rest: &str) -> String {
    match key {
        Some(key) => format!("{name}s.{key}.{rest}"),
        None => format!("{name}.{rest}"),
    }
}
