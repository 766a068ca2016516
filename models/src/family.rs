//! What a family is: its configuration, its description of tensors, its forward passes, and how published folders of it are
//! read. A family is one file in [`crate::families`] and one line of [`FAMILIES`].
//!
//! To add one: a file with a configuration that implements [`Architecture`], a static [`Family`] and its [`CheckpointRules`]; a
//! line in [`FAMILIES`]; a tiny checkpoint and its reference among the goldens. `tests/families.rs` then runs every proof on it.
//!
//! Nothing above this crate names a family: other crates read [`ModelSpec`], and tell inputs apart by the form of their
//! data (tokens, patches, pixels, mel frames).

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::batch::TokenRows;
use crate::blocks::{TokenTable, VectorHeadConfig, Weights};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointRules, StaticTable};
use crate::error::{ConfigError, RecordError};
use crate::families::{bert, gemma3, llama, mini, model2vec, modernbert, omni, qwen3, xlm_roberta};
use crate::flops::Shape;
use crate::record::{
    Dtype, MediaTemplate, Modality, Preprocess, RecordFolder, RecordHeader, TOWERS_FILE, TemplateKind, TensorSpec,
    text_file,
};
use crate::towers::audio::{AudioConfig, AudioTower};
use crate::towers::conv::ConvTower;
use crate::towers::speech::SpeechTower;
use crate::towers::vision::VisionTower;

/// Every family this build knows.
pub static FAMILIES: &[&Family] = &[
    &omni::FAMILY,
    &mini::FAMILY,
    &bert::FAMILY,
    &xlm_roberta::FAMILY,
    &modernbert::FAMILY,
    &qwen3::FAMILY,
    &llama::FAMILY,
    &gemma3::FAMILY,
    &model2vec::FAMILY,
];

/// A family of models: a name, and how a configuration of it is read.
pub struct Family {
    /// Name in a record's header, such as `xlm_roberta`.
    pub name: &'static str,
    /// One sentence for people: which checkpoints it takes and what goes in.
    pub about: &'static str,
    /// Reads the configuration of a record; [`config`] is that function for a type that serde reads.
    pub read: ReadConfig,
    /// How a published folder becomes a record; `None` where no folder is told by its `model_type` alone.
    pub checkpoint: Option<&'static CheckpointRules>,
}

/// Reads a configuration.
pub type ReadConfig = fn(&mut dyn erased_serde::Deserializer<'_>) -> erased_serde::Result<Box<dyn Architecture>>;

/// [`Family::read`] for a configuration that serde reads.
///
/// # Errors
/// The first field that is unknown, missing or of another type.
pub fn config<C: Architecture + DeserializeOwned>(
    from: &mut dyn erased_serde::Deserializer<'_>,
) -> erased_serde::Result<Box<dyn Architecture>> {
    Ok(Box::new(erased_serde::deserialize::<C>(from)?))
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish_non_exhaustive()
    }
}

thread_local! {
    /// Families from outside this crate that a record on this thread may be of.
    static OTHERS: RefCell<Vec<&'static Family>> = const { RefCell::new(Vec::new()) };
}

/// Every known family, those from outside last.
pub fn known() -> Vec<&'static Family> {
    OTHERS.with(|others| FAMILIES.iter().copied().chain(others.borrow().iter().copied()).collect())
}

/// Runs `work` with further families known on this thread: records of theirs can be opened in it.
///
/// # Errors
/// [`ConfigError::OutOfRange`] for a family without a name, or with one that another family has.
pub fn with_families<T>(families: &[&'static Family], work: impl FnOnce() -> T) -> Result<T, ConfigError> {
    let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    for family in families {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if family.name.is_empty() || !family.name.chars().all(plain) || names.contains(&family.name) {
            return Err(ConfigError::OutOfRange {
                field: "family.name".into(),
                found: format!("{:?}", family.name),
                expected: "a name of a-z, 0-9 and _ that no other family has".into(),
            });
        }
        names.push(family.name);
    }
    struct Restore(Vec<&'static Family>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OTHERS.with(|others| *others.borrow_mut() = std::mem::take(&mut self.0));
        }
    }
    let _restore = Restore(OTHERS.with(|others| others.replace(families.to_vec())));
    Ok(work())
}

/// The configuration of a model of some family: it checks itself, describes the model's files and builds it.
pub trait Architecture: erased_serde::Serialize + fmt::Debug + Any + Send + Sync {
    /// Its family.
    fn family(&self) -> &'static Family;

    /// Checks sizes against each other. Nothing else is called before it has passed.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    fn check(&self) -> Result<(), ConfigError>;

    /// Sizes that other crates read.
    fn spec(&self) -> ModelSpec;

    /// The image tower; `None` where the checkpoint has none.
    fn image_encoder(&self, _: &Builder<'_>) -> Option<ImageEncoder> {
        None
    }

    /// The audio tower; `None` where the checkpoint has none.
    fn audio_encoder(&self, _: &Builder<'_>) -> Option<AudioEncoder> {
        None
    }

    /// One task's layers and connectors over `tokens`, with this many special rows where the family has such.
    fn text_model(&self, b: &Builder<'_>, tokens: Tokens<'_>) -> Arc<dyn TextModel>;

    /// What makes a vector of a text's rows, where the family has poolings and Dense modules to choose. What a folder's files
    /// say of it must be here, or the folder is refused.
    fn head(&self) -> Option<&VectorHeadConfig> {
        None
    }

    /// The tensors that a table of token rows is made of, where the model is such a table and nothing else. Its texts are cut by
    /// `tokenizer.json` alone, without what other files say of it and without special tokens around a text.
    fn static_table(&self) -> Option<StaticTable> {
        None
    }

    /// Lines for people: a name and what stands behind it.
    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)>;

    /// Itself, to be told apart.
    fn as_any(&self) -> &dyn Any;
}

erased_serde::serialize_trait_object!(Architecture);

/// Token rows of a task that is built.
#[derive(Debug)]
pub enum Tokens<'a> {
    /// The shared table, and the ids whose rows the task replaces.
    Table(TokenTable, &'a [u32]),
    /// Only a description is made; the task replaces this many rows.
    Described(usize),
}

impl Tokens<'_> {
    /// Rows that the task replaces.
    pub fn special_rows(&self) -> usize {
        match self {
            Tokens::Table(_, ids) => ids.len(),
            Tokens::Described(rows) => *rows,
        }
    }

    /// Ids whose rows the task replaces; none where only a description is made.
    pub fn special_ids(&self) -> &[u32] {
        match self {
            Tokens::Table(_, ids) => ids,
            Tokens::Described(_) => &[],
        }
    }

    /// The table; where only a description is made, one of this size without rows.
    pub fn table(self, vocab: usize, hidden: usize) -> TokenTable {
        match self {
            Tokens::Table(table, _) => table,
            Tokens::Described(_) => TokenTable::described(vocab, hidden),
        }
    }
}

/// An image tower, by the form of what it reads.
#[derive(Debug)]
pub enum ImageEncoder {
    /// Reads patches.
    Patches(Box<VisionTower>),
    /// Reads letterboxed images of one size.
    Pixels(ConvTower),
}

/// An audio tower, by the form of what it reads.
#[derive(Debug)]
pub enum AudioEncoder {
    /// Reads mel frames in windows that are cut anywhere.
    Mel(Box<AudioTower>),
    /// Reads windows of speech, each for itself.
    Windows(Box<SpeechTower>),
}

/// What towers hand to a task's connector.
#[derive(Debug)]
pub enum TowerOutput<'a> {
    /// Rows of the patches of one item, `[patches, tower hidden]`.
    Patches(Tensor<2>),
    /// Rows of the mel frames of one item, `[rows, tower hidden]`, and their tower.
    Mel(&'a AudioTower, Tensor<2>),
    /// The mean map of one item, `[1, channels, side, side]`.
    Pixels(Tensor<4>),
    /// Rows of windows of speech, one segment a window.
    Windows(TokenRows),
}

/// What a connector makes of a tower's output.
#[derive(Debug)]
pub enum Connected {
    /// Rows that stand in a sequence of the text model, `[tokens, hidden]`.
    Rows(Tensor<2>),
    /// Finished vectors, `[items, vector]`.
    Vectors(Tensor<2>),
}

/// One task's half of a model: token rows, the layers that read them, connectors.
pub trait TextModel: fmt::Debug + Send + Sync {
    /// The token table.
    fn tokens(&self) -> &TokenTable;

    /// Begins a pass over packed rows.
    ///
    /// # Shapes
    /// - `input.rows.rows`: `[tokens, hidden]`; the pass gives `[segments, vector]`, not normalised
    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass>;

    /// What a pass begins with.
    fn first_step(&self) -> StepKind;

    /// Positions of each row of sequences of ids, where they are not consecutive from the first on.
    fn positions(&self, _: &[Vec<u32>]) -> Option<Vec<usize>> {
        None
    }

    /// From a tower's rows to rows of this model or to vectors; `None` for a form that the family has no tower of.
    fn connect(&self, _: TowerOutput<'_>) -> Option<Connected> {
        None
    }

    /// Operations from what towers and backbone read to a vector; `None` where the family has no such way in. Towers count
    /// for themselves.
    fn flops(&self, shape: &Shape) -> Option<u64>;

    /// f32 values alive a row of a sequence in the widest step, and the heads whose scores are alive beside them.
    fn activations(&self) -> RowActivations;
}

/// What a pass begins with.
#[derive(Debug)]
pub struct PassInput {
    /// Packed rows, one segment a sequence.
    pub rows: TokenRows,
    /// Rows in front of each sequence that its pooling leaves out; empty means none.
    pub skipped: Vec<usize>,
    /// As [`TextModel::positions`] gives them for the rows' ids.
    pub positions: Option<Vec<usize>>,
}

impl From<TokenRows> for PassInput {
    fn from(rows: TokenRows) -> Self {
        Self { rows, skipped: Vec::new(), positions: None }
    }
}

/// Values alive while rows go through a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowActivations {
    /// f32 values a row in the widest step.
    pub values: usize,
    /// Heads, each with a matrix of scores.
    pub heads: usize,
}

/// A pass that may stop between two steps, so that nobody waits for all of it. Whatever is kept in between is small: the
/// residual stream and tables of positions.
pub trait Pass: Send {
    /// What the next step is.
    fn next(&self) -> StepKind;

    /// Runs one step; the result with the last one.
    ///
    /// # Panics
    /// If none is left.
    fn step(&mut self) -> Option<Tensor<2>>;
}

/// A kind of step, which takes about the same time whenever it runs on as many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Positions are computed and rows brought to the width of a pass.
    Begin,
    /// One layer.
    Layer,
    /// Last norm and pooling.
    End,
    /// Several layers with what is before and behind them: a small encoder in one step.
    Encoder,
}

/// Sizes of a model that the rest of the house reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Numbers of a whole vector.
    pub vector: usize,
    /// Numbers of a token row.
    pub hidden: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Rows of a text at most, special tokens included.
    pub max_tokens: usize,
    /// How images and the frames of videos go in.
    pub image: Option<ImageForm>,
    /// How audio goes in.
    pub audio: Option<AudioForm>,
    /// Ids that stand around the rows of every medium and leave no choice of a template.
    pub ends: Option<[u32; 2]>,
    /// Whether poolings leave out the rows up to the end of a prompt.
    pub skips_prompt: bool,
}

impl ModelSpec {
    /// Whether there is a way in for a kind of input.
    pub fn takes(&self, modality: Modality) -> bool {
        match modality {
            Modality::Text => true,
            Modality::Image | Modality::Video => self.image.is_some(),
            Modality::Audio => self.audio.is_some(),
        }
    }
}

/// How images go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// As patches of an image that keeps its shape.
    Patches {
        /// Side of a patch in pixels.
        patch_px: usize,
        /// Patches merged along each side into one row.
        merge: usize,
        /// Frames of a patch.
        temporal_patch: usize,
        /// Values of a patch.
        patch_values: usize,
        /// Numbers of a feature row of the tower.
        hidden: usize,
    },
    /// As letterboxed images.
    Pixels {
        /// Side of the square in pixels.
        image_size: usize,
        /// Rows of the text model that an image gives.
        rows: usize,
    },
}

/// How audio goes in.
#[derive(Debug, Clone, PartialEq)]
pub enum AudioForm {
    /// As mel frames in windows that are cut anywhere.
    Mel(AudioConfig),
    /// As windows of speech.
    Windows {
        /// Mel bands.
        mels: usize,
        /// Rows of the text model that a window gives.
        rows: usize,
    },
}

impl AudioForm {
    /// Mel bands.
    pub fn mels(&self) -> usize {
        match self {
            AudioForm::Mel(config) => config.mels,
            AudioForm::Windows { mels, .. } => *mels,
        }
    }
}

/// f32 values alive while a unit of each form is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activations {
    /// A row of a text.
    pub text: RowActivations,
    /// A patch of a tower.
    pub patch: RowActivations,
    /// Numbers of a feature row of the image tower.
    pub patch_hidden: usize,
    /// A mel frame of a tower.
    pub frame: RowActivations,
    /// Numbers of a feature row of the audio tower.
    pub frame_hidden: usize,
    /// A letterboxed image.
    pub image: usize,
}

/// A family's configuration, as `model.json` holds it: `{"name": "bert", "config": {...}}`.
#[derive(Clone)]
pub struct FamilyConfig {
    config: Arc<dyn Architecture>,
    spec: OnceLock<Arc<ModelSpec>>,
}

impl FamilyConfig {
    /// A configuration of its family.
    pub fn new(config: impl Architecture) -> Self {
        Self::from_box(Box::new(config))
    }

    /// The same from a box.
    pub fn from_box(config: Box<dyn Architecture>) -> Self {
        Self { config: Arc::from(config), spec: OnceLock::new() }
    }

    /// The family's name.
    pub fn name(&self) -> &'static str {
        self.config.family().name
    }

    /// The configuration, if it is of this type.
    pub fn of<C: Architecture>(&self) -> Option<&C> {
        self.config.as_any().downcast_ref()
    }

    /// The configuration.
    pub fn config(&self) -> &dyn Architecture {
        &*self.config
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.config.check()
    }

    /// Sizes that other crates read; of a configuration that was checked.
    pub fn spec(&self) -> &ModelSpec {
        self.spec.get_or_init(|| Arc::new(self.config.spec()))
    }

    /// Numbers of a whole vector.
    pub fn vector(&self) -> usize {
        self.spec().vector
    }

    /// Rows of the token table.
    pub fn vocab(&self) -> usize {
        self.spec().vocab
    }

    /// Rows of a text at most, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.spec().max_tokens
    }

    /// Whether there is a way in for a kind of input.
    pub fn takes(&self, modality: Modality) -> bool {
        self.spec().takes(modality)
    }

    /// Tensors of `tokens.bpk`.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        vec![TokenTable::spec(self.spec().vocab, self.spec().hidden)]
    }

    /// Tensors of `towers.bpk`; none where the family has no tower.
    pub fn tower_tensors(&self) -> Vec<TensorSpec> {
        Builder::describe("", |b| (self.config.image_encoder(b), self.config.audio_encoder(b))).1
    }

    /// Tensors of the tower that reads a kind of input; none for text.
    pub fn encoder_tensors(&self, modality: Modality) -> Vec<TensorSpec> {
        match modality {
            Modality::Text => Vec::new(),
            Modality::Audio => Builder::describe("", |b| self.config.audio_encoder(b)).1,
            Modality::Image | Modality::Video => Builder::describe("", |b| self.config.image_encoder(b)).1,
        }
    }

    /// Tensors of `text.<task>.bpk`, with this many special rows where the family has such.
    pub fn text_tensors(&self, special_rows: usize) -> Vec<TensorSpec> {
        Builder::describe("", |b| self.config.text_model(b, Tokens::Described(special_rows))).1
    }

    /// Opens the token table, shared by all tasks, without any task's special rows.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_tokens(&self, record: &RecordFolder) -> Result<TokenTable, RecordError> {
        TokenTable::open(record, self.spec().vocab, self.spec().hidden)
    }

    /// Opens one task's text model.
    ///
    /// # Errors
    /// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_text(
        &self,
        record: &RecordFolder,
        task: &str,
        tokens: &TokenTable,
        compute: Dtype,
        device: &Device,
    ) -> Result<Arc<dyn TextModel>, RecordError> {
        open_text(record, task, tokens, compute, device, |b, tokens| self.config.text_model(b, tokens))
    }

    /// Opens the image tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_image(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<ImageEncoder>, RecordError> {
        self.open_tower(record, compute, device, |b| self.config.image_encoder(b))
    }

    /// Opens the audio tower; `None` where the checkpoint has none.
    ///
    /// # Errors
    /// [`RecordError`] if the part is not what the configuration asks for.
    pub fn open_audio(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
    ) -> Result<Option<AudioEncoder>, RecordError> {
        self.open_tower(record, compute, device, |b| self.config.audio_encoder(b))
    }

    fn open_tower<T>(
        &self,
        record: &RecordFolder,
        compute: Dtype,
        device: &Device,
        build: impl Fn(&Builder<'_>) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        if Builder::describe("", &build).0.is_none() {
            return Ok(None);
        }
        // The file holds every tower, and is checked as a whole.
        let part = record.part(TOWERS_FILE, &self.tower_tensors())?;
        Ok(Builder::load("", Weights::new(&part, compute, device), build))
    }

    /// Operations from what towers and backbone read to a vector; `None` where the family has no such way in.
    pub fn flops(&self, shape: &Shape) -> Option<u64> {
        let text = Builder::describe("", |b| self.config.text_model(b, Tokens::Described(0))).0;
        let (image, audio) = Builder::describe("", |b| (self.config.image_encoder(b), self.config.audio_encoder(b))).0;
        let tower = match (shape, image, audio) {
            (Shape::Text { .. }, ..) => 0,
            (Shape::Patches { groups, patches, .. }, Some(ImageEncoder::Patches(tower)), _) => {
                tower.flops(*groups, *patches)
            }
            (Shape::Pixels { count }, Some(ImageEncoder::Pixels(tower)), _) => *count as u64 * tower.flops(),
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Mel(tower))) => {
                clips.iter().map(|&frames| tower.flops(frames)).sum()
            }
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Windows(tower))) => {
                clips.iter().map(|&frames| tower.flops(frames)).sum()
            }
            _ => return None,
        };
        Some(tower + text.flops(shape)?)
    }

    /// f32 values alive while inputs are computed, counted by the blocks.
    pub fn activations(&self) -> Activations {
        let text = Builder::describe("", |b| self.config.text_model(b, Tokens::Described(0))).0;
        let (image, audio) = Builder::describe("", |b| (self.config.image_encoder(b), self.config.audio_encoder(b))).0;
        let mut found = Activations { text: text.activations(), ..Activations::default() };
        match image {
            Some(ImageEncoder::Patches(tower)) => {
                let config = tower.config();
                found.patch = RowActivations { values: tower.patch_values_alive(), heads: config.heads };
                found.patch_hidden = config.hidden;
            }
            Some(ImageEncoder::Pixels(tower)) => found.image = tower.values_alive(),
            None => {}
        }
        match audio {
            Some(AudioEncoder::Mel(tower)) => {
                found.frame = RowActivations { values: tower.frame_values(), heads: tower.config().heads };
                found.frame_hidden = tower.config().hidden;
            }
            Some(AudioEncoder::Windows(tower)) => found.frame = tower.activations(),
            None => {}
        }
        found
    }

    /// Lines for people: a name and what stands behind it.
    pub fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        self.config.words(preprocess)
    }

    /// What in a record's header contradicts the configuration: the field, what was found, what was expected.
    pub(crate) fn header_fault(&self, header: &RecordHeader) -> Option<(String, String, String)> {
        let spec = self.spec();
        if let Some([start, end]) = spec.ends {
            // Media stand between the ends a text has.
            let only = MediaTemplate { kind: TemplateKind::Noeos, start: Some(start), end: Some(end) };
            if let Some((modality, found)) = header.templates.iter().find(|(_, template)| **template != only) {
                return Some((format!("templates.{modality}"), format!("{found:?}"), format!("{only:?}")));
            }
        }
        self.preprocess_fault(&header.preprocess)
    }

    /// A size of the preprocessing that is not the tower's.
    fn preprocess_fault(&self, preprocess: &Preprocess) -> Option<(String, String, String)> {
        let spec = self.spec();
        let (patches, pixels) = match spec.image {
            Some(ImageForm::Patches { .. }) => (true, false),
            Some(ImageForm::Pixels { .. }) => (false, true),
            None => (false, false),
        };
        // A tower reads one form of images only.
        let forms = [
            ("preprocess.image", preprocess.image.is_some(), patches),
            ("preprocess.video", preprocess.video.is_some(), patches),
            ("preprocess.letterbox", preprocess.letterbox.is_some(), pixels),
        ];
        if let Some((name, ..)) = forms.iter().find(|(_, there, may)| *there && !may) {
            return Some(((*name).into(), "present".into(), format!("absent, as the family is {}", self.name())));
        }
        let mut sizes: Vec<(String, usize, usize)> = Vec::new();
        if let Some(ImageForm::Patches { patch_px, merge, temporal_patch, .. }) = spec.image {
            for (modality, p) in [(Modality::Image, &preprocess.image), (Modality::Video, &preprocess.video)] {
                let Some(p) = p else { continue };
                let at = |name: &str| format!("preprocess.{modality}.{name}");
                sizes.push((at("patch_px"), p.patch_px as usize, patch_px));
                sizes.push((at("merge"), p.merge as usize, merge));
                sizes.push((at("temporal_patch"), p.temporal_patch as usize, temporal_patch));
            }
        }
        if let (Some(ImageForm::Pixels { image_size, .. }), Some(p)) = (spec.image, &preprocess.letterbox) {
            sizes.push(("preprocess.letterbox.image_size".into(), p.image_size as usize, image_size));
        }
        if let (Some(AudioForm::Windows { mels, .. }), Some(p)) = (&spec.audio, &preprocess.audio) {
            sizes.push(("preprocess.audio.mels".into(), p.mels as usize, *mels));
        }
        let (name, found, expected) = sizes.into_iter().find(|(_, found, expected)| found != expected)?;
        Some((name, found.to_string(), expected.to_string()))
    }
}

/// A task's part of a record, built.
///
/// # Errors
/// [`RecordError::UnknownTask`], or [`RecordError`] if the part is not what `build` describes.
pub(crate) fn open_text<T>(
    record: &RecordFolder,
    task: &str,
    tokens: &TokenTable,
    compute: Dtype,
    device: &Device,
    build: impl Fn(&Builder<'_>, Tokens<'_>) -> T,
) -> Result<T, RecordError> {
    record.check_task(task)?;
    let ids = &record.header().special_token_ids;
    let (_, specs) = Builder::describe("", |b| build(b, Tokens::Described(ids.len())));
    let part = record.part(&text_file(task), &specs)?;
    let weights = Weights::new(&part, compute, device);
    Ok(Builder::load("", weights, |b| build(b, Tokens::Table(tokens.clone(), ids))))
}

impl fmt::Debug for FamilyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl PartialEq for FamilyConfig {
    fn eq(&self, other: &Self) -> bool {
        let text = |config: &Self| serde_json::to_string(&*config.config).ok();
        self.name() == other.name() && text(self) == text(other)
    }
}

impl Serialize for FamilyConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("FamilyConfig", 2)?;
        fields.serialize_field("name", self.name())?;
        fields.serialize_field("config", &*self.config)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for FamilyConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FamilyConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a family: its name, then its configuration")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FamilyConfig, A::Error> {
                let (mut family, mut config) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match (key.as_str(), family) {
                        ("name", None) => family = Some(named(&map.next_value::<String>()?).map_err(A::Error::custom)?),
                        ("config", Some(family)) if config.is_none() => {
                            config = Some(map.next_value_seed(Config(family))?)
                        }
                        ("config", None) => return Err(A::Error::custom("the family's name comes before its config")),
                        ("name" | "config", _) => return Err(A::Error::custom(format!("duplicate field `{key}`"))),
                        _ => return Err(A::Error::unknown_field(&key, &["name", "config"])),
                    }
                }
                match (family, config) {
                    (None, _) => Err(A::Error::missing_field("name")),
                    (_, None) => Err(A::Error::missing_field("config")),
                    (Some(_), Some(config)) => Ok(FamilyConfig::from_box(config)),
                }
            }
        }
        from.deserialize_struct("FamilyConfig", &["name", "config"], Fields)
    }
}

/// The family of a name.
fn named(name: &str) -> Result<&'static Family, String> {
    let known = known();
    known.iter().copied().find(|family| family.name == name).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|family| format!("`{}`", family.name)).collect();
        format!("unknown family `{name}`, expected one of {}", names.join(", "))
    })
}

/// Reads the configuration of a family.
struct Config(&'static Family);

impl<'de> DeserializeSeed<'de> for Config {
    type Value = Box<dyn Architecture>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let mut from = <dyn erased_serde::Deserializer<'_>>::erase(from);
        (self.0.read)(&mut from).map_err(D::Error::custom)
    }
}
