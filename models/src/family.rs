//! What a family is: its configuration, its description of tensors, its forward passes, and how published folders of it are
//! read. A family is one file in `families` and one line of the list in [`crate::registry`].
//!
//! To add one: a file with a configuration that implements [`Architecture`], a static [`Family`] and its [`CheckpointRules`]; a
//! line in the list; a tiny checkpoint and its reference among the goldens. `tests/families.rs` then runs every proof on it.
//!
//! Nothing above this crate names a family: other crates read [`ModelSpec`], and tell inputs apart by the form of their
//! data (tokens, patches, pixels, mel frames).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::batch::{MediaRows, MelRows, TokenRows};
use crate::blocks::{LateInteraction, RowHeads, RowHeadsConfig, TokenTable, VectorHeadConfig};
use crate::builder::Builder;
use crate::checkpoint::{CheckpointFolder, KeyMap, Steps};
use crate::error::ConfigError;
use crate::flops::Shape;
use crate::items::{ItemPrompt, PartsForm};
use crate::record::{AudioPreprocess, MediaTemplate, Modality, Preprocess, TemplateKind, TensorSpec};
use crate::towers::audio::{AudioConfig, AudioPass, AudioTower};
use crate::towers::chunked::{ChunkedConfig, ChunkedPass, ChunkedTower};
use crate::towers::conv::ConvTower;
use crate::towers::speech::SpeechTower;
use crate::towers::swin::SwinTower;
use crate::towers::vision::{VisionFeatures, VisionTower};
use crate::towers::vit::VitTower;

pub use crate::flops::{Activations, RowActivations};

/// A family of models: a name, and how a configuration of it is read.
pub struct Family {
    /// Name in a record's header, such as `xlm_roberta`.
    pub name: &'static str,
    /// One sentence for people: which checkpoints it takes and what goes in.
    pub about: &'static str,
    /// Reads the configuration of a record; [`config`] is that function for a type that serde reads.
    pub read: ReadConfig,
    /// How a published folder becomes a record; `None` where none does.
    pub checkpoint: Option<&'static CheckpointRules>,
}

/// How folders of a family are recognised and read.
#[derive(Debug)]
pub struct CheckpointRules {
    /// Values of `model_type` in `config.json`; none where the cards tell such folders.
    pub model_types: &'static [&'static str],
    /// Whether a class of transformers is of this family, with whatever head.
    pub is_architecture: fn(&str) -> bool,
    /// What the report calls such a model.
    pub known_as: &'static str,
    /// From published names to one spelling, and tensors that are known to be unused.
    pub keys: KeyMap,
    /// Pieces of this family's tensor names, and what stands in a checkpoint in place of each; applied in this order.
    pub names: &'static [(&'static str, &'static str)],
    /// From `config.json` and what the other files say to a configuration. Faults are added to the fields' own list; what the
    /// file says beside sizes goes into [`CheckpointFolder::details`].
    pub read: fn(&CheckpointFolder<'_>) -> Box<dyn Architecture>,
    /// What else a conversion of such a folder does.
    pub steps: Steps,
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
    fn vector_head(&self) -> Option<&VectorHeadConfig> {
        None
    }

    /// What the ids of a text become before the model reads them.
    fn text_rule(&self) -> TextRule {
        TextRule::AsTheyAre
    }

    /// How items of several parts are written; `None` where the family takes none.
    fn parts_form(&self) -> Option<&PartsForm> {
        None
    }

    /// What stands around an item that becomes a vector; `None` where a role's prefix and a medium's template are all.
    /// Families that have it have [`Architecture::parts_form`] too.
    fn item_prompt(&self) -> Option<&ItemPrompt> {
        None
    }

    /// From the cosine of a text and an image to a logit, where the checkpoint has learnt one.
    fn similarity(&self) -> Option<Similarity> {
        None
    }

    /// Lines for people: a name and what stands behind it.
    fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)>;
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
    /// Reads squares of pixels, and gives maps that a connector reads.
    Pixels(ConvTower),
    /// Reads squares of pixels, and gives finished vectors: maps of one cell.
    Vectors(Box<VitTower>),
}

/// An audio tower, by the form of what it reads.
#[derive(Debug)]
pub enum AudioEncoder {
    /// Reads mel frames in windows that are cut anywhere.
    Mel(Box<AudioTower>),
    /// Reads mel frames of whole clips, and gives rows of the text model.
    Chunked(Box<ChunkedTower>),
    /// Reads windows of speech, each for itself.
    Windows(Box<SpeechTower>),
    /// Reads clips of one length, each for itself, and gives finished vectors.
    Spectrogram(Box<SwinTower>),
}

/// A pass of an [`AudioEncoder`] that reads packed mel frames, between two steps.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, for as long as a clip is read")]
pub enum AudioEncoderPass {
    /// Of [`AudioEncoder::Mel`].
    Mel(AudioPass),
    /// Of [`AudioEncoder::Chunked`].
    Chunked(ChunkedPass),
}

impl AudioEncoderPass {
    /// Rows of the next step, where that is of a stem which goes piece by piece.
    pub fn in_stem(&self) -> Option<usize> {
        match self {
            AudioEncoderPass::Mel(_) => None,
            AudioEncoderPass::Chunked(pass) => pass.in_stem(),
        }
    }
}

impl AudioEncoder {
    /// The first step of a pass over packed windows; `None` where each window goes through by itself.
    ///
    /// # Shapes
    /// - `input.rows`: `[frames, mels]`
    pub fn begin(&self, input: MelRows) -> Option<AudioEncoderPass> {
        match self {
            AudioEncoder::Mel(tower) => Some(AudioEncoderPass::Mel(tower.begin(input))),
            AudioEncoder::Chunked(tower) => Some(AudioEncoderPass::Chunked(tower.begin(input))),
            AudioEncoder::Windows(_) | AudioEncoder::Spectrogram(_) => None,
        }
    }

    /// Runs one more step of a pass of this encoder; `None` for a pass of another.
    pub fn advance(&self, pass: AudioEncoderPass) -> Option<AudioEncoderPass> {
        match (self, pass) {
            (AudioEncoder::Mel(tower), AudioEncoderPass::Mel(pass)) => Some(AudioEncoderPass::Mel(tower.advance(pass))),
            (AudioEncoder::Chunked(tower), AudioEncoderPass::Chunked(pass)) => {
                Some(AudioEncoderPass::Chunked(tower.advance(pass)))
            }
            _ => None,
        }
    }

    /// Whether every step of a pass but its end has run.
    pub fn is_done(&self, pass: &AudioEncoderPass) -> bool {
        match (self, pass) {
            (AudioEncoder::Mel(tower), AudioEncoderPass::Mel(pass)) => tower.is_done(pass),
            (AudioEncoder::Chunked(tower), AudioEncoderPass::Chunked(pass)) => tower.is_done(pass),
            _ => true,
        }
    }

    /// The rows of a pass, `[rows, width]`; `None` for a pass of another encoder.
    pub fn finish(&self, pass: AudioEncoderPass) -> Option<Tensor<2>> {
        match (self, pass) {
            (AudioEncoder::Mel(tower), AudioEncoderPass::Mel(pass)) => Some(tower.finish(pass)),
            (AudioEncoder::Chunked(tower), AudioEncoderPass::Chunked(pass)) => Some(tower.finish(pass)),
            _ => None,
        }
    }

    /// Rows that a window of this many frames gives.
    pub fn window_rows(&self, frames: usize) -> usize {
        match self {
            AudioEncoder::Chunked(tower) => tower.config().features(frames),
            AudioEncoder::Mel(_) | AudioEncoder::Windows(_) => AudioConfig::window_rows(frames),
            // A vector.
            AudioEncoder::Spectrogram(_) => 1,
        }
    }
}

/// What towers hand to a task's connector.
#[derive(Debug)]
pub enum TowerOutput<'a> {
    /// Rows of the patches of one item, `[patches, tower hidden]`.
    Patches(VisionFeatures),
    /// Rows of the mel frames of one item, `[rows, tower hidden]`, and their tower.
    Mel(&'a AudioTower, Tensor<2>),
    /// Rows of the mel frames of one item that are rows of the text model already, `[rows, hidden]`.
    Audio(Tensor<2>),
    /// The mean map of one item, `[1, channels, side, side]`; a vector is a map of one cell.
    Pixels(Tensor<4>),
    /// Rows of windows of speech, one segment a window.
    Windows(TokenRows),
}

impl TowerOutput<'_> {
    /// Finished vectors, `[items, vector]`: maps of one cell. `None` for anything else.
    pub fn vectors(self) -> Option<Tensor<2>> {
        let TowerOutput::Pixels(maps) = self else { return None };
        let [items, width, down, across] = maps.dims();
        (down == 1 && across == 1).then(|| maps.reshape([items, width]))
    }
}

/// What a connector makes of a tower's output.
#[derive(Debug)]
pub enum Connected {
    /// Rows that stand in a sequence of the text model.
    Rows(FeatureRows),
    /// Finished vectors, `[items, vector]`.
    Vectors(Tensor<2>),
}

/// Rows of a medium for a sequence of the text model.
#[derive(Debug)]
pub struct FeatureRows {
    /// The rows, `[rows, hidden]`.
    pub rows: Tensor<2>,
    /// What is added to the residual stream at their place, the first after the first layer and so on (DeepStack):
    /// `[rows, hidden]` each; mostly none.
    pub added: Vec<Tensor<2>>,
}

impl From<Tensor<2>> for FeatureRows {
    fn from(rows: Tensor<2>) -> Self {
        Self { rows, added: Vec::new() }
    }
}

/// One task's half of a model: token rows, the layers that read them, connectors.
pub trait TextModel: fmt::Debug + Send + Sync {
    /// The token table.
    fn tokens(&self) -> &TokenTable;

    /// Begins a pass over packed rows.
    ///
    /// # Shapes
    /// - `input.rows.rows`: `[tokens, hidden]`; the pass gives `[segments, vector]`, not normalised, or `[segments, 1]` of a
    ///   reranker
    fn begin(self: Arc<Self>, input: PassInput) -> Box<dyn Pass>;

    /// What a pass begins with.
    fn first_step(&self) -> StepKind;

    /// Layers of a step over so many rows at most; 1 where each layer is a step of its own.
    fn step_layers(&self, rows: usize) -> usize;

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
    /// Token type of each row, `[tokens]`, where [`PairForm::Template`] has several; empty means that all are of type 0.
    pub types: Vec<u8>,
    /// What is wanted of each row, beside what stands for the sequences.
    pub wanted: RowsWanted,
    /// Where rows of media lie, in the order of their rows; none in texts.
    pub media: Vec<MediaRows>,
}

/// What is wanted of each row of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsWanted {
    /// Its weight in a sparse vector over the vocabulary.
    pub sparse: bool,
    /// Its own vector.
    pub multi: bool,
}

impl RowsWanted {
    /// Whatever one of them wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { sparse: self.sparse || other.sparse, multi: self.multi || other.multi }
    }
}

impl From<TokenRows> for PassInput {
    fn from(rows: TokenRows) -> Self {
        Self {
            rows,
            skipped: Vec::new(),
            positions: None,
            types: Vec::new(),
            wanted: RowsWanted::default(),
            media: Vec::new(),
        }
    }
}

/// What a pass ends in.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, for as long as its rows are read")]
pub enum Output {
    /// A vector for each sequence, not normalised: `[segments, vector]`.
    Vectors(Tensor<2>),
    /// A logit for each sequence, of which a score is the sigmoid: `[segments, 1]`.
    Scores(Tensor<2>),
    /// Vectors as above, with what was wanted of each row.
    Rows {
        /// `[segments, vector]`
        vectors: Tensor<2>,
        /// Weights of the rows' tokens, none below zero: `[tokens, 1]`.
        weights: Option<Tensor<2>>,
        /// Vectors of the rows, not normalised: `[tokens, width]`.
        rows: Option<Tensor<2>>,
    },
}

impl Output {
    /// Vectors of sequences, with what `heads` give of their rows where it is wanted.
    ///
    /// # Shapes
    /// - `vectors`: `[segments, vector]`; `rows`: `[tokens, hidden]`
    pub fn with_rows(vectors: Tensor<2>, rows: &Tensor<2>, heads: &RowHeads, wanted: RowsWanted) -> Self {
        let weights = wanted.sparse.then(|| heads.weights(rows)).flatten();
        let rows = wanted.multi.then(|| heads.vectors(rows)).flatten();
        match (&weights, &rows) {
            (None, None) => Output::Vectors(vectors),
            _ => Output::Rows { vectors, weights, rows },
        }
    }

    /// What stands for each sequence, whatever it is: `[segments, n]`.
    pub fn pooled(self) -> Tensor<2> {
        match self {
            Output::Vectors(rows) | Output::Scores(rows) | Output::Rows { vectors: rows, .. } => rows,
        }
    }
}

/// A pass that may stop between two steps, so that nobody waits for all of it. Whatever is kept in between is small: the
/// residual stream and tables of positions.
pub trait Pass: Send {
    /// What the next step is.
    fn next(&self) -> StepKind;

    /// Layers of the next step; 1 for a step that is none.
    fn layers(&self) -> usize;

    /// Runs one step; the result with the last one.
    ///
    /// # Panics
    /// If none is left.
    fn step(&mut self) -> Option<Output>;
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
    /// Several layers, with what is before the first and behind the last: a small encoder, in as few steps as its rows allow.
    Encoder,
}

/// Sizes of a model that the rest of the house reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Numbers of a whole vector.
    pub vector: usize,
    /// Numbers of a token row.
    pub hidden: usize,
    /// Rows of the token table; none where no text is read, and the record has neither a table nor a tokenizer.
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
    /// What comes out.
    pub outputs: Outputs,
}

/// What a model gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// A vector for each item, and what else its rows give.
    Vectors(RowOutputs),
    /// A score for each pair of a query and a document.
    Scores(PairForm),
}

impl Default for Outputs {
    fn default() -> Self {
        Outputs::Vectors(RowOutputs::default())
    }
}

/// What the rows of a model give beside the vector of their item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowOutputs {
    /// Whether the rows, or their vectors, are all that the model gives: the vector of an item is then the unit mean of the unit
    /// rows, which nobody has trained.
    pub alone: bool,
    /// Whether media become rows of a sequence, so that those rows can be given.
    pub features: bool,
    /// Of a sparse vector, the ids that have no weight in it; `None` where the model gives none.
    pub sparse: Option<Vec<u32>>,
    /// Of rows with vectors of their own, how many in front have none; `None` where the model gives none.
    pub multi: Option<usize>,
    /// How texts are laid out where the vectors of rows are what the model is for; `None` elsewhere.
    pub late: Option<LateInteraction>,
}

impl RowOutputs {
    /// What heads over rows give.
    pub fn of(heads: &RowHeadsConfig) -> Self {
        Self {
            sparse: heads.sparse.then(|| heads.unweighted.clone()),
            // The first row stands for the whole, but where every row has been trained.
            multi: heads.multi.then(|| usize::from(heads.late.is_none())),
            late: heads.late.clone(),
            ..Self::default()
        }
    }
}

impl RowOutputs {
    /// Whether the rows that media become are all that the model gives.
    pub fn only_features(&self) -> bool {
        self.alone && self.features && self.multi.is_none()
    }
}

impl Outputs {
    /// The names that people type and read, the default first.
    pub fn names(&self) -> &'static [&'static str] {
        const ALL: [&str; 4] = ["dense", "sparse", "multi", "features"];
        let Outputs::Vectors(RowOutputs { alone, features, sparse, multi, late }) = self else { return &["score"] };
        match (sparse.is_some(), multi.is_some(), features) {
            _ if late.is_some() => &["multi", "dense"],
            (_, false, _) if *alone => &ALL[3..],
            (_, true, true) if *alone => &ALL[2..],
            (_, true, false) if *alone => &ALL[2..3],
            (false, false, false) => &ALL[..1],
            (true, false, false) => &ALL[..2],
            (true, true, false) => &ALL[..3],
            (true, true, true) => &ALL,
            (false, true, false) => &["dense", "multi"],
            (false, false, true) => &["dense", "features"],
            (true, false, true) => &["dense", "sparse", "features"],
            (false, true, true) => &["dense", "multi", "features"],
        }
    }

    /// A vector for each item, and the rows that its media become.
    pub fn with_features() -> Self {
        Outputs::Vectors(RowOutputs { features: true, ..RowOutputs::default() })
    }

    /// How a query and a document become one sequence; `None` where the model scores no pairs.
    pub fn pairs(&self) -> Option<&PairForm> {
        match self {
            Outputs::Vectors(_) => None,
            Outputs::Scores(form) => Some(form),
        }
    }

    /// What rows give; nothing where the model scores pairs.
    pub fn rows(&self) -> Option<&RowOutputs> {
        match self {
            Outputs::Vectors(rows) => Some(rows),
            Outputs::Scores(_) => None,
        }
    }
}

/// How a query and a document become one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairForm {
    /// As the tokenizer's own template for pairs lays them.
    Template {
        /// Token types that the rows may have; with one, the types that a template gives are not read.
        types: u8,
    },
    /// As texts in one prompt.
    Prompt(PairPrompt),
    /// With other documents in one prompt: a score is the cosine of a document's vector and the query's, and depends on what is read
    /// beside it.
    List(ListPrompt),
}

/// A prompt around a query and a list of documents, each of which is read by those behind it. The vector of each is made from the row
/// of a token behind it.
///
/// # Source
/// jinaai/jina-reranker-v3, `modeling.py`: `format_docs_prompts_func`, `JinaForRanking.rerank`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPrompt {
    /// What is in front of all.
    pub before: String,
    /// What is behind all.
    pub behind: String,
    /// Tokens behind the query and behind each document, by their texts.
    pub tokens: [String; 2],
    /// Their ids.
    pub ids: [u32; 2],
    /// Tokens of a query and of a document at most.
    pub most_tokens: [usize; 2],
    /// Documents in one prompt at most.
    pub most_documents: usize,
}

impl ListPrompt {
    /// A text without the tokens that stand behind texts.
    pub fn plain(&self, text: &str) -> String {
        self.tokens.iter().fold(text.to_string(), |text, token| text.replace(token, ""))
    }

    /// The whole, of texts without such tokens.
    pub fn of(&self, query: &str, documents: &[&str], instruction: Option<&str>) -> String {
        let [behind_query, behind_document] = &self.tokens;
        let count = documents.len();
        let instruction = instruction.map_or(String::new(), |asked| format!("<instruct>\n{asked}\n</instruct>\n"));
        let passage =
            |(i, text): (usize, &&str)| format!("<passage id=\"{i}\">\n{text}{behind_document}\n</passage>\n");
        let passages: String = documents.iter().enumerate().map(passage).collect();
        let Self { before, behind, .. } = self;
        format!(
            "{before}I will provide you with {count} passages, each indicated by a numerical identifier. Rank the passages based on \
             their relevance to query: {query}\n{instruction}{passages}<query>\n{query}{behind_query}\n</query>{behind}"
        )
    }
}

/// A prompt around an instruction, a query and a document. What is in front, the middle and what is behind are cut into
/// tokens apart; where the whole is too long, the end of the middle is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairPrompt {
    /// What is in front of the middle.
    pub before: String,
    /// What is in front of the instruction, of the query, and of the document.
    pub labels: [String; 3],
    /// What is behind the middle.
    pub behind: String,
    /// The instruction, unless a caller gives another.
    pub instruction: String,
}

impl ModelSpec {
    /// Of a family that reads texts alone and gives a vector for each.
    pub fn of_texts(hidden: usize, vocab: usize, max_tokens: usize, head: &VectorHeadConfig) -> Self {
        Self {
            vector: head.vector(hidden),
            hidden,
            vocab,
            max_tokens,
            image: None,
            audio: None,
            ends: None,
            skips_prompt: head.skips_prompt,
            outputs: Outputs::default(),
        }
    }

    /// Whether there is a way in for a kind of input.
    pub fn takes(&self, modality: Modality) -> bool {
        match modality {
            Modality::Text => self.vocab > 0,
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
    /// As squares of pixels.
    Pixels {
        /// Side of the square in pixels.
        image_size: usize,
        /// Rows of the text model that an image gives; of a tower that gives vectors itself, its own.
        rows: usize,
        /// Side of a patch in pixels where images are no squares but keep their shape, in whole patches: each has as many
        /// rows as patches then.
        patch_px: Option<usize>,
    },
}

/// What the ids of a text become before the model reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextRule {
    /// They are read as they are.
    #[default]
    AsTheyAre,
    /// This id stands behind them up to the longest text, and is read like any other.
    Padded(u32),
    /// What stands behind the first id that the tokenizer puts at the end of a text is not read.
    UpToTheEnd,
}

impl TextRule {
    /// Rows of a text of this many ids at most, of a model that reads `longest`.
    pub fn rows(self, ids: usize, longest: usize) -> usize {
        match self {
            TextRule::Padded(_) => longest,
            TextRule::AsTheyAre | TextRule::UpToTheEnd => ids.min(longest),
        }
    }

    /// The ids that are read, of a text with the tokenizer's own around it; `end` is the first that stands behind every text.
    pub fn apply(self, mut ids: Vec<u32>, longest: usize, end: Option<u32>) -> Vec<u32> {
        match self {
            TextRule::AsTheyAre => {}
            TextRule::Padded(padding) => ids.resize(longest.max(ids.len()), padding),
            TextRule::UpToTheEnd => {
                let at = ids.iter().position(|id| Some(*id) == end);
                ids.truncate(at.map_or(ids.len(), |at| at + 1));
            }
        }
        ids
    }
}

/// From the cosine of a text and an image to a logit.
///
/// # Source
/// transformers, `CLIPModel.forward` and `SiglipModel.forward`, revision 5.23.0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Similarity {
    /// Natural logarithm of what the cosine is multiplied by, as a checkpoint has it.
    pub logit_scale: f64,
    /// What is added then. Where it is there, a logit stands for itself and its probability is its sigmoid; where it is not,
    /// logits of several texts are weighed against each other by a softmax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<f64>,
}

impl Similarity {
    /// Largest logarithm whose power is a number of f32.
    const LARGEST: f64 = 88.0;

    /// Checks that logits are finite.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, found: f64, expected: String| {
            Err(ConfigError::OutOfRange { field: format!("similarity.{field}"), found: found.to_string(), expected })
        };
        let most = Self::LARGEST;
        if !(-most..=most).contains(&self.logit_scale) {
            return wrong("logit_scale", self.logit_scale, format!("a number from -{most} to {most}"));
        }
        match self.logit_bias {
            Some(bias) if !bias.is_finite() => wrong("logit_bias", bias, "a finite number".into()),
            _ => Ok(()),
        }
    }

    /// The logit of a cosine.
    pub fn logit(&self, cosine: f64) -> f64 {
        self.logit_scale.exp() * cosine + self.logit_bias.unwrap_or(0.0)
    }

    /// The formula for people.
    pub fn words(&self) -> String {
        let scale = self.logit_scale.exp();
        match self.logit_bias {
            Some(bias) => format!("logit = {scale:.4} x cosine + ({bias:.4}), a probability by the sigmoid"),
            None => format!("logit = {scale:.4} x cosine, probabilities of several texts by the softmax"),
        }
    }
}

/// How audio goes in.
#[derive(Debug, Clone, PartialEq)]
pub enum AudioForm {
    /// As mel frames in windows that are cut anywhere.
    Mel(AudioConfig),
    /// As mel frames of whole clips, each of which is one window.
    Chunked(ChunkedConfig),
    /// As windows of speech.
    Windows {
        /// Mel bands.
        mels: usize,
        /// Rows of the text model that a window gives.
        rows: usize,
    },
    /// As clips of one length, in decibels.
    Spectrogram {
        /// Mel bands.
        mels: usize,
        /// Mel frames of a clip at most.
        most_frames: usize,
        /// Whether four looks at longer audio are read together.
        fused: bool,
    },
}

impl AudioForm {
    /// Mel bands.
    pub fn mels(&self) -> usize {
        match self {
            AudioForm::Mel(config) => config.mels,
            AudioForm::Chunked(config) => config.mels,
            AudioForm::Windows { mels, .. } | AudioForm::Spectrogram { mels, .. } => *mels,
        }
    }

    /// Lengths in frames of the windows of a clip, none of which sees another; `None` where clips come cut already.
    pub fn windows(&self, frames: usize) -> Option<Vec<usize>> {
        match self {
            AudioForm::Mel(config) => Some(config.windows(frames)),
            AudioForm::Chunked(_) => Some(vec![frames]),
            AudioForm::Windows { .. } | AudioForm::Spectrogram { .. } => None,
        }
    }

    /// Rows of the text model that a clip of this many frames gives; `None` where clips come cut already.
    pub fn features(&self, frames: usize) -> Option<usize> {
        match self {
            AudioForm::Mel(config) => Some(config.features(frames)),
            AudioForm::Chunked(config) => Some(config.features(frames)),
            AudioForm::Windows { .. } | AudioForm::Spectrogram { .. } => None,
        }
    }
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
        let config: &dyn Any = &*self.config;
        config.downcast_ref()
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
        let stills = modality == Modality::Video && self.parts_form().is_some_and(|form| form.one_image);
        self.spec().takes(modality) && !stills
    }

    /// What the ids of a text become before the model reads them.
    pub fn text_rule(&self) -> TextRule {
        self.config.text_rule()
    }

    /// From the cosine of a text and an image to a logit, where the checkpoint has learnt one.
    pub fn similarity(&self) -> Option<Similarity> {
        self.config.similarity()
    }

    /// Tensors of `tokens.bpk`; none where no text is read.
    pub fn token_tensors(&self) -> Vec<TensorSpec> {
        let ModelSpec { vocab, hidden, .. } = *self.spec();
        if vocab == 0 { Vec::new() } else { vec![TokenTable::spec(vocab, hidden)] }
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

    /// How items of several parts are written; `None` where the family takes none.
    pub fn parts_form(&self) -> Option<&PartsForm> {
        self.config.parts_form()
    }

    /// What stands around an item that becomes a vector, where the family has a prompt for it.
    pub fn item_prompt(&self) -> Option<&ItemPrompt> {
        self.config.item_prompt()
    }

    /// Operations from what towers and backbone read to a vector; `None` where the family has no such way in.
    pub fn flops(&self, shape: &Shape) -> Option<u64> {
        if let Shape::Parts { parts, tokens } = shape {
            let parts = parts.iter().map(|part| self.flops(part)).sum::<Option<u64>>()?;
            return Some(parts + self.flops(&Shape::Text { tokens: *tokens })?);
        }
        let text = Builder::describe("", |b| self.config.text_model(b, Tokens::Described(0))).0;
        let (image, audio) = Builder::describe("", |b| (self.config.image_encoder(b), self.config.audio_encoder(b))).0;
        let tower = match (shape, image, audio) {
            (Shape::Text { .. }, ..) => 0,
            (Shape::Patches { groups, patches, .. }, Some(ImageEncoder::Patches(tower)), _) => {
                tower.flops(*groups, *patches)
            }
            (Shape::Pixels { count }, Some(ImageEncoder::Pixels(tower)), _) => *count as u64 * tower.flops(),
            (Shape::Pixels { count }, Some(ImageEncoder::Vectors(tower)), _) => *count as u64 * tower.flops(),
            (Shape::Patches { groups, patches, .. }, Some(ImageEncoder::Vectors(tower)), _) => {
                *groups as u64 * tower.flops_of(*patches)
            }
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Mel(tower))) => {
                clips.iter().map(|&frames| tower.flops(frames)).sum()
            }
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Chunked(tower))) => {
                clips.iter().map(|&frames| tower.flops(frames)).sum()
            }
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Windows(tower))) => {
                clips.iter().map(|&frames| tower.flops(frames)).sum()
            }
            (Shape::Mel { clips, .. }, _, Some(AudioEncoder::Spectrogram(tower))) => clips.len() as u64 * tower.flops(),
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
                found.patch_hidden = config.hidden * (1 + config.taps.len());
            }
            Some(ImageEncoder::Pixels(tower)) => found.image = tower.values_alive(),
            Some(ImageEncoder::Vectors(tower)) if tower.config().flexible => {
                found.patch = RowActivations { values: tower.patch_values_alive(), heads: tower.config().heads };
            }
            Some(ImageEncoder::Vectors(tower)) => found.image = tower.values_alive(),
            None => {}
        }
        match audio {
            Some(AudioEncoder::Mel(tower)) => {
                found.frame = RowActivations { values: tower.frame_values(), heads: tower.config().heads };
                found.frame_hidden = tower.config().hidden;
            }
            Some(AudioEncoder::Chunked(tower)) => {
                found.frame = RowActivations { values: tower.frame_values(), heads: tower.config().heads };
                found.frame_hidden = tower.config().output;
                found.stem = tower.chunk_values();
            }
            Some(AudioEncoder::Windows(tower)) => found.frame = tower.activations(),
            Some(AudioEncoder::Spectrogram(tower)) => found.stem = tower.values_alive(),
            None => {}
        }
        found
    }

    /// Lines for people: a name and what stands behind it.
    pub fn words(&self, preprocess: &Preprocess) -> Vec<(&'static str, String)> {
        self.config.words(preprocess)
    }

    /// What in a record's header contradicts the configuration: the field, what was found, what was expected.
    pub(crate) fn header_fault(
        &self,
        templates: &BTreeMap<Modality, MediaTemplate>,
        preprocess: &Preprocess,
    ) -> Option<(String, String, String)> {
        let spec = self.spec();
        if let Some([start, end]) = spec.ends {
            // Media stand between the ends a text has.
            let only = MediaTemplate { kind: TemplateKind::Noeos, start: Some(start), end: Some(end) };
            if let Some((modality, found)) = templates.iter().find(|(_, template)| **template != only) {
                return Some((format!("templates.{modality}"), format!("{found:?}"), format!("{only:?}")));
            }
        } else if self.parts_form().is_some() {
            // Media stand between ends wherever they stand.
            let open = |template: &MediaTemplate| {
                template.kind != TemplateKind::Wrapped || template.start.is_none() || template.end.is_none()
            };
            if let Some((modality, found)) = templates.iter().find(|(_, template)| open(template)) {
                let expected = "wrapped, with the ids of both ends".into();
                return Some((format!("templates.{modality}"), format!("{found:?}"), expected));
            }
        } else {
            // A whole image or a clip without ends of its own stands in no sequence.
            let only = MediaTemplate { kind: TemplateKind::Bare, start: None, end: None };
            let media: &[Modality] = match (spec.image, &spec.audio) {
                (Some(ImageForm::Pixels { .. }), _) => &[Modality::Image, Modality::Video],
                (_, Some(AudioForm::Spectrogram { .. })) => &[Modality::Audio],
                _ => &[],
            };
            let other = |(modality, found): &(&Modality, &MediaTemplate)| media.contains(modality) && **found != only;
            if let Some((modality, found)) = templates.iter().find(other) {
                return Some((format!("templates.{modality}"), format!("{found:?}"), format!("{only:?}")));
            }
        }
        self.preprocess_fault(preprocess)
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
            ("preprocess.letterbox", preprocess.letterbox.is_some(), pixels && preprocess.square.is_none()),
            ("preprocess.square", preprocess.square.is_some(), pixels),
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
        if let (
            Some(
                AudioForm::Windows { mels, .. }
                | AudioForm::Chunked(ChunkedConfig { mels, .. })
                | AudioForm::Spectrogram { mels, .. },
            ),
            Some(p),
        ) = (&spec.audio, &preprocess.audio)
        {
            sizes.push(("preprocess.audio.mels".into(), p.mels as usize, *mels));
        }
        if let Some(p) = &preprocess.audio
            && let Some(fault) = clip_fault(spec.audio.as_ref(), p)
        {
            return Some(fault);
        }
        if let (Some(ImageForm::Pixels { image_size, patch_px, .. }), Some(p)) = (spec.image, &preprocess.square)
            && let Some(fault) = p.fault(image_size, patch_px)
        {
            return Some(fault);
        }
        let (name, found, expected) = sizes.into_iter().find(|(_, found, expected)| found != expected)?;
        Some((name, found.to_string(), expected.to_string()))
    }
}

/// What is wrong with how audio is brought to clips: the field, what was found, what was expected.
fn clip_fault(form: Option<&AudioForm>, p: &AudioPreprocess) -> Option<(String, String, String)> {
    let fault =
        |field: &str, found: String, expected: String| Some((format!("preprocess.audio.{field}"), found, expected));
    match (form, &p.clip) {
        (Some(AudioForm::Spectrogram { most_frames, fused, .. }), Some(clip)) => {
            if clip.fused != *fused {
                return fault("clip.fused", clip.fused.to_string(), format!("{fused}, as the tower is"));
            }
            let (frames, half) = (p.clip_frames().unwrap_or(0), p.fft_samples / 2);
            let highest = p.sample_rate_hz / 2;
            if frames > *most_frames {
                return fault("clip.samples", format!("{frames} frames"), format!("at most {most_frames} frames"));
            }
            if clip.samples <= half {
                return fault("clip.samples", clip.samples.to_string(), format!("more than {half}, half a window"));
            }
            if clip.lowest_hz >= clip.highest_hz || clip.highest_hz > highest {
                let found = format!("{} to {}", clip.lowest_hz, clip.highest_hz);
                return fault("clip.highest_hz", found, format!("a range up to {highest}"));
            }
            None
        }
        (Some(AudioForm::Spectrogram { .. }), None) => fault("clip", "absent".into(), "the length of a clip".into()),
        (_, Some(_)) => fault("clip", "present".into(), "absent: the tower reads audio of any length".into()),
        _ => None,
    }
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
