//! The units of work as steps: upload, layer after layer, read back. All of it happens on the device's thread, under a
//! permit; between two steps the permit may go to somebody else.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_media::{LogMel, PatchGrid};
use omniburn_models::Segments;
use omniburn_models::batch::{Grid, MediaRows, MelRows, PatchRows, TokenRows};
use omniburn_models::blocks::TokenTable;
use omniburn_models::family::{
    AudioEncoder, AudioEncoderPass, Connected, FeatureRows, ImageEncoder, Output, Pass, PassInput, RowsWanted,
    StepKind, TextModel, TowerOutput,
};
use omniburn_models::towers::swin::SwinPass;
use omniburn_models::towers::vision::{VisionFeatures, VisionPass};
use omniburn_models::towers::vit::VitPass;

use super::cost::{Load, Stage};
use crate::call::Features;
use crate::error::ItemError;
use crate::forms::{FittedImages, Layout, Levels, Pooled, Section, Sequence};

/// A unit of work that may be cut between its steps, so that nobody waits for all of it.
pub(crate) trait Steps: Send + 'static {
    /// What it gives.
    type Out: Send + 'static;

    /// What the next step is, and how much it has to do.
    fn next(&self) -> (Stage, Load);

    /// How many of such the next step is: the layers of one that has several.
    fn layers(&self) -> usize {
        1
    }

    /// Runs one step; the result with the last one. Whatever is kept until the next step is small: the residual stream
    /// and tables of positions, not what a layer needs while it runs.
    fn step(&mut self) -> Result<Option<Self::Out>, ItemError>;
}

/// One pooled row for each sequence of ids.
pub(crate) struct TextUnit {
    text: Arc<dyn TextModel>,
    sequences: Vec<Sequence>,
    wanted: RowsWanted,
    lengths: Vec<usize>,
    /// Chunks of each sequence that have vectors of their own.
    chunks: Vec<usize>,
    device: Device,
    load: Load,
    pass: Option<Box<dyn Pass>>,
}

/// A step of a text model as the costs know it.
fn text_stage(kind: StepKind) -> Stage {
    match kind {
        StepKind::Begin => Stage::TextBegin,
        StepKind::Layer => Stage::TextLayer,
        StepKind::End => Stage::TextEnd,
        StepKind::Encoder => Stage::Encoder,
    }
}

/// What most steps of a text are.
pub(crate) fn text_body(text: &dyn TextModel) -> Stage {
    match text.first_step() {
        StepKind::Encoder => Stage::Encoder,
        _ => Stage::TextLayer,
    }
}

/// How far a pass of a tower has come.
enum Progress<P> {
    Before,
    Layers(P),
    After(P),
    Over,
}

impl<P> Progress<P> {
    /// Takes the pass out for its next step.
    fn take(&mut self) -> Self {
        mem::replace(self, Progress::Over)
    }

    fn between(pass: P, done: bool) -> Self {
        if done { Progress::After(pass) } else { Progress::Layers(pass) }
    }

    fn stage(&self, [begin, layer, end]: [Stage; 3]) -> Stage {
        match self {
            Progress::Before => begin,
            Progress::Layers(_) => layer,
            Progress::After(_) | Progress::Over => end,
        }
    }
}

impl TextUnit {
    pub(crate) fn new(text: Arc<dyn TextModel>, sequences: Vec<Sequence>, device: Device) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(Sequence::len).collect();
        let chunks = sequences.iter().map(|sequence| sequence.chunks.len()).collect();
        let load = Load::of(lengths.iter().copied());
        Self { text, sequences, wanted: RowsWanted::default(), lengths, chunks, device, load, pass: None }
    }

    /// The same with what is wanted of each row.
    pub(crate) fn wanting(self, wanted: RowsWanted) -> Self {
        Self { wanted, ..self }
    }

    fn input(&mut self) -> Result<PassInput, ItemError> {
        let mut values = Vec::new();
        let (mut ids, mut types, mut skipped, mut unseen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let typed = self.sequences.iter().any(|sequence| !sequence.types.is_empty());
        let pieces = self.pieces();
        for sequence in mem::take(&mut self.sequences) {
            gather(self.text.tokens(), &sequence.ids, &mut values)?;
            if typed {
                let from = types.len();
                types.extend(sequence.types);
                types.resize(from + sequence.ids.len(), 0);
            }
            // What is pooled beside the whole of a sequence leaves nothing out.
            skipped.resize(skipped.len() + sequence.chunks.len(), 0);
            skipped.push(sequence.skipped);
            unseen.push(sequence.unseen);
            ids.push(sequence.ids);
        }
        let rows = upload(values, self.text.tokens().hidden(), &self.device);
        let segments = Segments::from_lengths(ids.iter().map(Vec::len)).with_unseen(unseen);
        let segments = match pieces {
            Some(pieces) => segments.with_pieces(pieces),
            None => segments,
        };
        let positions = self.text.positions(&ids);
        let (rows, media) = (TokenRows { rows, segments }, Vec::new());
        Ok(PassInput { rows, skipped, positions, types, wanted: self.wanted, media })
    }
}

impl TextUnit {
    /// What is pooled, where some sequence has chunks: those of each, and behind them the whole of it.
    fn pieces(&self) -> Option<Vec<(usize, usize)>> {
        if self.chunks.iter().all(|chunks| *chunks == 0) {
            return None;
        }
        let (mut pieces, mut start) = (Vec::new(), 0);
        for sequence in &self.sequences {
            pieces.extend(sequence.chunks.iter().map(|chunk| (start + chunk.start, chunk.len())));
            pieces.push((start, sequence.len() - sequence.unseen));
            start += sequence.len();
        }
        Some(pieces)
    }
}

/// What a pass over sequences of these lengths gave, sequence by sequence, each with so many chunks in front of the whole.
fn pooled(output: Output, lengths: &[usize], chunks: &[usize]) -> Result<Vec<Pooled>, ItemError> {
    let (vectors, weights, rows) = match output {
        Output::Vectors(vectors) | Output::Scores(vectors) => (vectors, None, None),
        Output::Rows { vectors, weights, rows } => (vectors, weights, rows),
    };
    let (mut weights, mut rows) = (split(weights, lengths)?, split(rows, lengths)?);
    let mut each = read_rows(vectors)?.into_iter();
    let pooled = chunks.iter().map(|chunks| Pooled {
        chunks: each.by_ref().take(*chunks).collect(),
        values: each.next().unwrap_or_default(),
        weights: weights.next().unwrap_or_default(),
        rows: rows.next().unwrap_or_default(),
        features: None,
    });
    Ok(pooled.collect())
}

/// What belongs to the rows of each sequence; nothing where nothing was wanted.
fn split(of_rows: Option<Tensor<2>>, lengths: &[usize]) -> Result<std::vec::IntoIter<Vec<f32>>, ItemError> {
    let Some(of_rows) = of_rows else { return Ok(Vec::new().into_iter()) };
    let mut rows = read_rows(of_rows)?.into_iter();
    let each = lengths.iter().map(|length| rows.by_ref().take(*length).flatten().collect());
    Ok(each.collect::<Vec<_>>().into_iter())
}

impl Steps for TextUnit {
    type Out = Vec<Pooled>;

    fn next(&self) -> (Stage, Load) {
        let kind = self.pass.as_ref().map_or_else(|| self.text.first_step(), |pass| pass.next());
        (text_stage(kind), self.load)
    }

    fn layers(&self) -> usize {
        self.pass.as_ref().map_or_else(|| self.text.step_layers(self.load.rows as usize), |pass| pass.layers())
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        if self.pass.is_none() {
            let input = self.input()?;
            self.pass = Some(Arc::clone(&self.text).begin(input));
        }
        let pass = self.pass.as_mut().expect("begun above");
        let output = pass.step();
        output.map(|output| pooled(output, &self.lengths, &self.chunks)).transpose()
    }
}

/// The vector of an image, or of a video from the mean of its frames: one frame after the other, so that a video of any
/// length needs the memory of one, and so that the order of the sum is that of the frames.
pub(crate) struct FittedImagesUnit {
    tower: Arc<ImageEncoder>,
    text: Arc<dyn TextModel>,
    images: Arc<FittedImages>,
    levels: Levels,
    device: Device,
    /// Of the frame at hand, where the tower stops between its layers.
    pass: Progress<VitPass>,
    done: usize,
    sum: Option<Tensor<4>>,
}

impl FittedImagesUnit {
    pub(crate) fn new(
        (tower, text): (Arc<ImageEncoder>, Arc<dyn TextModel>),
        images: Arc<FittedImages>,
        levels: Levels,
        device: Device,
    ) -> Self {
        Self { tower, text, images, levels, device, pass: Progress::Before, done: 0, sum: None }
    }

    /// The maps of the frame at hand, after the last step of its pass; `None` before that.
    fn maps(&mut self) -> Result<Option<Tensor<4>>, ItemError> {
        let encoder = Arc::clone(&self.tower);
        let tower = match &*encoder {
            ImageEncoder::Pixels(tower) => return Ok(Some(tower.forward(self.frame(self.done)))),
            ImageEncoder::Vectors(tower) => tower,
            ImageEncoder::Patches(_) => return Err(other_form()),
        };
        let pass = match self.pass.take() {
            Progress::Before => tower.begin(self.frame(self.done)),
            Progress::Layers(pass) => tower.advance(pass),
            Progress::After(pass) => {
                self.pass = Progress::Before;
                return Ok(Some(tower.finish(pass)));
            }
            Progress::Over => panic!("a unit is not stepped after its end"),
        };
        let done = tower.is_done(&pass);
        self.pass = Progress::between(pass, done);
        Ok(None)
    }

    /// Planes of one frame's levels.
    fn frame(&self, index: usize) -> Tensor<4> {
        let (height, width) = self.images.sides[index];
        let plane = height * width;
        let pixels = self.images.pixels_of(index);
        let mut values = vec![0.0f32; pixels.len()];
        for (place, pixel) in pixels.chunks_exact(3).enumerate() {
            for (channel, level) in pixel.iter().enumerate() {
                values[channel * plane + place] = self.levels[channel][usize::from(*level)];
            }
        }
        let data = TensorData::new(values, [1, 3, height, width]);
        Tensor::from_data(data, (&self.device, burn::tensor::DType::F32))
    }
}

impl Steps for FittedImagesUnit {
    type Out = Vec<f32>;

    fn next(&self) -> (Stage, Load) {
        match &*self.tower {
            _ if self.done == self.images.count() => (Stage::FittedImageEnd, Load::of([1])),
            ImageEncoder::Vectors(tower) => {
                let stage = self.pass.stage([Stage::PatchBegin, Stage::PatchBlock, Stage::Cut]);
                let rows = self.images.patches(self.done).unwrap_or_else(|| tower.config().rows());
                (stage, Load::of([rows]))
            }
            ImageEncoder::Pixels(_) | ImageEncoder::Patches(_) => (Stage::FittedImage, Load::of([1])),
        }
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        if self.done < self.images.count() {
            let Some(maps) = self.maps()? else { return Ok(None) };
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + maps,
                None => maps,
            });
            self.done += 1;
            return Ok(None);
        }
        let sum = self.sum.take().expect("an image has pixels");
        let mean = if self.done == 1 { sum } else { sum / self.done as f32 };
        vector(&*self.text, TowerOutput::Pixels(mean)).map(Some)
    }
}

/// The vector that a connector makes of a tower's output.
fn vector(text: &dyn TextModel, output: TowerOutput<'_>) -> Result<Vec<f32>, ItemError> {
    match text.connect(output) {
        Some(Connected::Vectors(vectors)) => read_rows(vectors).map(|mut rows| rows.swap_remove(0)),
        Some(Connected::Rows(_)) | None => Err(other_form()),
    }
}

/// A family whose towers and connectors contradict its own description.
fn other_form() -> ItemError {
    ItemError::Panicked { message: "the family has no connector for what its tower gives".into() }
}

/// The vector of speech: the mean direction of its windows, one a step. Each then has the bits it has alone, and two
/// seconds fill a processor.
pub(crate) struct AudioWindowsUnit {
    pub tower: Arc<AudioEncoder>,
    pub text: Arc<dyn TextModel>,
    pub windows: Arc<Vec<LogMel>>,
    pub device: Device,
    /// Of the clip at hand, where the tower stops between its blocks.
    pub pass: Option<SwinPass>,
    pub done: usize,
    pub sum: Vec<f32>,
}

impl AudioWindowsUnit {
    /// What the tower gives of the clip at hand, after the last step of its pass; `None` before that.
    fn rows(&mut self) -> Result<Option<TowerOutput<'static>>, ItemError> {
        let clip = &self.windows[self.done];
        let rows = || MelRows::new(clip.values().to_vec(), clip.mels(), vec![clip.frames()], &self.device);
        let tower = match &*self.tower {
            AudioEncoder::Windows(tower) => return Ok(Some(TowerOutput::Windows(tower.forward(rows())))),
            AudioEncoder::Spectrogram(tower) => tower,
            AudioEncoder::Mel(_) | AudioEncoder::Chunked(_) => return Err(other_form()),
        };
        let pass = match self.pass.take() {
            None => tower.begin(rows().rows),
            Some(pass) if tower.is_done(&pass) => return Ok(Some(TowerOutput::Pixels(tower.finish(pass)))),
            Some(pass) => tower.advance(pass),
        };
        self.pass = Some(pass);
        Ok(None)
    }
}

impl Steps for AudioWindowsUnit {
    type Out = Vec<f32>;

    fn next(&self) -> (Stage, Load) {
        (Stage::AudioWindow, Load::of([self.windows[self.done].frames()]))
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let Some(rows) = self.rows()? else { return Ok(None) };
        let vector = vector(&*self.text, rows)?;
        self.sum.resize(vector.len(), 0.0);
        self.sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v);
        self.done += 1;
        Ok((self.done == self.windows.len()).then(|| mem::take(&mut self.sum)))
    }
}

/// Groups of frames of an image or clip.
pub(crate) struct PatchPiece {
    pub patches: Arc<PatchGrid>,
    pub groups: Range<usize>,
}

impl PatchPiece {
    /// Patches of each group.
    pub(crate) fn windows(&self) -> Vec<usize> {
        vec![self.patches.grid().h * self.patches.grid().w; self.groups.len()]
    }
}

/// Windows of an audio: the frames they cover, and the length of each.
pub(crate) struct MelPiece {
    pub mel: Arc<LogMel>,
    pub frames: Range<usize>,
    pub windows: Vec<usize>,
}

/// Rows that a tower gave of a piece, one entry for its last block and one for each block it taps: `[rows, hidden]` each.
pub(crate) type TowerRows = Vec<Tensor<2>>;

/// Tower features of each packed piece, finished on the device.
pub(crate) struct VisionUnit {
    tower: Arc<ImageEncoder>,
    pieces: Vec<PatchPiece>,
    grids: Vec<Grid>,
    device: Device,
    load: Load,
    pass: Progress<VisionPass>,
}

impl VisionUnit {
    pub(crate) fn new(tower: Arc<ImageEncoder>, pieces: Vec<PatchPiece>, device: Device) -> Self {
        let grid = |p: &PatchPiece| Grid { t: p.groups.len(), h: p.patches.grid().h, w: p.patches.grid().w };
        let grids: Vec<Grid> = pieces.iter().map(grid).collect();
        let load = Load::of(grids.iter().flat_map(|g| vec![g.h * g.w; g.t]));
        Self { tower, pieces, grids, device, load, pass: Progress::Before }
    }

    fn rows(&self) -> PatchRows {
        let values = self.pieces.iter().flat_map(|p| {
            let group = p.patches.grid().h * p.patches.grid().w;
            p.patches.rows_of(p.groups.start * group..p.groups.end * group)
        });
        PatchRows::new(values.collect(), self.pieces[0].patches.row_len(), self.grids.clone(), &self.device)
    }
}

impl Steps for VisionUnit {
    type Out = Vec<TowerRows>;

    fn next(&self) -> (Stage, Load) {
        (self.pass.stage([Stage::PatchBegin, Stage::PatchBlock, Stage::Cut]), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let tower = Arc::clone(&self.tower);
        let ImageEncoder::Patches(tower) = &*tower else { return Err(other_form()) };
        let pass = match self.pass.take() {
            Progress::Before => tower.begin(self.rows()),
            Progress::Layers(pass) => tower.advance(pass),
            Progress::After(pass) => {
                let VisionFeatures { last, taps } = tower.finish(pass);
                let features = std::iter::once(last).chain(taps).collect();
                return cut(features, self.grids.iter().map(|g| g.patches()), &self.device).map(Some);
            }
            Progress::Over => panic!("a unit is not stepped after its end"),
        };
        let done = tower.is_done(&pass);
        self.pass = Progress::between(pass, done);
        Ok(None)
    }
}

/// Tower rows of each packed piece, finished on the device.
pub(crate) struct AudioUnit {
    tower: Arc<AudioEncoder>,
    pieces: Vec<MelPiece>,
    device: Device,
    load: Load,
    pass: Progress<AudioEncoderPass>,
}

impl AudioUnit {
    pub(crate) fn new(tower: Arc<AudioEncoder>, pieces: Vec<MelPiece>, device: Device) -> Self {
        let windows = pieces.iter().flat_map(|p| &p.windows);
        let load = Load::of(windows.map(|&w| tower.window_rows(w)));
        Self { tower, pieces, device, load, pass: Progress::Before }
    }

    fn rows(&self) -> MelRows {
        let mels = self.pieces[0].mel.mels();
        let values = self.pieces.iter().flat_map(|p| &p.mel.values()[p.frames.start * mels..p.frames.end * mels]);
        let windows = self.pieces.iter().flat_map(|p| p.windows.iter().copied()).collect();
        MelRows::new(values.copied().collect(), mels, windows, &self.device)
    }
}

impl Steps for AudioUnit {
    type Out = Vec<TowerRows>;

    fn next(&self) -> (Stage, Load) {
        if let Progress::Layers(pass) = &self.pass
            && let Some(rows) = pass.in_stem()
        {
            return (Stage::MelBegin, Load::of([rows]));
        }
        (self.pass.stage([Stage::MelBegin, Stage::MelLayer, Stage::Cut]), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let tower = Arc::clone(&self.tower);
        let pass = match self.pass.take() {
            Progress::Before => tower.begin(self.rows()),
            Progress::Layers(pass) => tower.advance(pass),
            Progress::After(pass) => {
                let rows = |p: &MelPiece| p.windows.iter().map(|&w| tower.window_rows(w)).sum();
                let finished = tower.finish(pass).ok_or_else(other_form)?;
                return cut(vec![finished], self.pieces.iter().map(rows), &self.device).map(Some);
            }
            Progress::Over => panic!("a unit is not stepped after its end"),
        };
        let pass = pass.ok_or_else(other_form)?;
        let done = tower.is_done(&pass);
        self.pass = Progress::between(pass, done);
        Ok(None)
    }
}

/// Packed rows of each block as rows a piece, once they are there.
fn cut(
    blocks: Vec<Tensor<2>>,
    lengths: impl Iterator<Item = usize>,
    device: &Device,
) -> Result<Vec<TowerRows>, ItemError> {
    let mut start = 0;
    let pieces = lengths.map(|length| {
        let piece = blocks.iter().map(|rows| rows.clone().slice_dim(0, start..start + length)).collect();
        start += length;
        piece
    });
    let pieces = pieces.collect();
    // Launches are asynchronous on GPUs: the permit may end only when the work has.
    device.sync().map_err(device_error)?;
    #[cfg(feature = "capture")]
    omniburn_models::capture::read().map_err(device_error)?;
    Ok(pieces)
}

/// The tower whose rows a medium is made of.
#[derive(Clone)]
pub(crate) enum Connector {
    Image,
    Audio(Arc<AudioEncoder>),
}

impl Connector {
    /// Rows of the text model, of what a tower gave of all pieces of a medium in order.
    fn features(&self, text: &dyn TextModel, pieces: Vec<TowerRows>) -> Result<FeatureRows, ItemError> {
        let blocks = pieces.first().map_or(0, Vec::len);
        let mut joined =
            (0..blocks).map(|block| Tensor::cat(pieces.iter().map(|piece| piece[block].clone()).collect(), 0));
        let last = joined.next().ok_or_else(other_form)?;
        let output = match self {
            Connector::Image => TowerOutput::Patches(VisionFeatures { last, taps: joined.collect() }),
            Connector::Audio(tower) => match &**tower {
                AudioEncoder::Mel(tower) => TowerOutput::Mel(tower, last),
                AudioEncoder::Chunked(_) => TowerOutput::Audio(last),
                AudioEncoder::Windows(_) | AudioEncoder::Spectrogram(_) => return Err(other_form()),
            },
        };
        match text.connect(output) {
            Some(Connected::Rows(rows)) => Ok(rows),
            Some(Connected::Vectors(_)) | None => Err(other_form()),
        }
    }
}

/// What towers gave of a medium: all its pieces in order, and what makes rows of a sequence of them.
pub(crate) struct MediumRows {
    pub pieces: Vec<TowerRows>,
    pub connector: Connector,
}

/// What a pass gives for one sequence of ids and rows of media.
pub(crate) struct MediaUnit {
    text: Arc<dyn TextModel>,
    /// Each medium that the layout speaks of.
    media: Vec<MediumRows>,
    layout: Layout,
    wanted: RowsWanted,
    /// Whether what the media became is given, and what that is from the first step on.
    features: (bool, Vec<FeatureRows>),
    /// Whether nothing else is wanted: the backbone does not run.
    features_alone: bool,
    device: Device,
    load: Load,
    pass: Option<Box<dyn Pass>>,
}

impl MediaUnit {
    pub(crate) fn new(text: Arc<dyn TextModel>, media: Vec<MediumRows>, layout: Layout, device: Device) -> Self {
        let load = Load::of([layout.tokens()]);
        let (wanted, features) = (RowsWanted::default(), (false, Vec::new()));
        Self { text, media, layout, wanted, features, features_alone: false, device, load, pass: None }
    }

    /// The same with what is wanted of each row, and whether what the media became is given.
    pub(crate) fn wanting(self, wanted: RowsWanted, features: bool) -> Self {
        Self { wanted, features: (features, Vec::new()), ..self }
    }

    /// The same without a backbone: what the media became is all that is wanted.
    pub(crate) fn features_alone(self, alone: bool) -> Self {
        Self { features_alone: alone, ..self }
    }

    fn connected(&mut self) -> Result<Vec<FeatureRows>, ItemError> {
        let text = &*self.text;
        mem::take(&mut self.media).into_iter().map(|one| one.connector.features(text, one.pieces)).collect()
    }

    fn input(&mut self) -> Result<PassInput, ItemError> {
        let features = self.connected()?;
        let text = &*self.text;
        let (mut pieces, mut media, mut start) = (Vec::new(), Vec::new(), 0);
        for section in &self.layout.sections {
            match section {
                Section::Ids(ids) => {
                    let mut values = Vec::new();
                    gather(text.tokens(), ids, &mut values)?;
                    pieces.push(upload(values, text.tokens().hidden(), &self.device));
                    start += ids.len();
                }
                Section::Features(span) => {
                    let FeatureRows { rows, added } = &features[span.part];
                    let of = |rows: &Tensor<2>| rows.clone().slice_dim(0, span.rows.clone());
                    pieces.push(of(rows));
                    let (rows, added) = (span.rows.len(), added.iter().map(of).collect());
                    media.push(MediaRows { start, rows, grid: span.grid, times: span.times.clone(), added });
                    start += rows;
                }
            }
        }
        let rows = TokenRows { rows: Tensor::cat(pieces, 0), segments: Segments::single(start) };
        if self.features.0 {
            self.features.1 = features;
        }
        Ok(PassInput { media, wanted: self.wanted, ..rows.into() })
    }
}

impl Steps for MediaUnit {
    type Out = Pooled;

    fn next(&self) -> (Stage, Load) {
        (self.pass.as_ref().map_or(Stage::Connect, |pass| text_stage(pass.next())), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        if self.features_alone {
            let features = read_features(self.connected()?)?;
            let values = unit_mean(&features);
            let (chunks, weights, rows, features) = (Vec::new(), Vec::new(), Vec::new(), Some(features));
            return Ok(Some(Pooled { chunks, values, weights, rows, features }));
        }
        if self.pass.is_none() {
            let input = self.input()?;
            self.pass = Some(Arc::clone(&self.text).begin(input));
        }
        let pass = self.pass.as_mut().expect("begun above");
        let Some(output) = pass.step() else { return Ok(None) };
        let mut pooled = pooled(output, &[self.layout.tokens()], &[0])?.swap_remove(0);
        let (wanted, features) = mem::take(&mut self.features);
        pooled.features = wanted.then(|| read_features(features)).transpose()?;
        Ok(Some(pooled))
    }
}

/// Rows of several media, one behind the other.
fn read_features(media: Vec<FeatureRows>) -> Result<Features, ItemError> {
    let mut all = Features::default();
    for FeatureRows { rows, added } in media {
        let [_, width] = rows.dims();
        let values = |rows: Tensor<2>| Ok::<_, ItemError>(read_rows(rows)?.concat());
        let deepstack = added.into_iter().map(values).collect::<Result<_, _>>()?;
        all.append(Features { width, rows: values(rows)?, deepstack });
    }
    Ok(all)
}

/// The mean of the rows, each of which counts alike whatever its length.
fn unit_mean(features: &Features) -> Vec<f32> {
    let mut sum = vec![0.0f64; features.width];
    for row in features.rows.chunks_exact(features.width.max(1)) {
        let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / norm.max(f64::MIN_POSITIVE));
    }
    let rows = (features.rows.len() / features.width.max(1)).max(1) as f64;
    sum.into_iter().map(|value| (value / rows) as f32).collect()
}

fn gather(tokens: &TokenTable, ids: &[u32], out: &mut Vec<f32>) -> Result<(), ItemError> {
    let rows = tokens.vocab();
    tokens.gather(ids, out).map_err(|id| ItemError::TokenIdOutOfTable { id, rows })
}

fn upload(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values, shape), (device, burn::tensor::DType::F32))
}

fn read_rows(pooled: Tensor<2>) -> Result<Vec<Vec<f32>>, ItemError> {
    let [_, width] = pooled.dims();
    // Failures of asynchronous launches appear at the read, so the read is the kind that returns them.
    let data = pooled.try_into_data().map_err(device_error)?;
    #[cfg(feature = "capture")]
    omniburn_models::capture::read().map_err(device_error)?;
    let values: Vec<f32> = data.try_to_vec().map_err(|e| ItemError::Device { message: format!("{e:?}") })?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

pub(crate) fn device_error(error: impl std::fmt::Debug) -> ItemError {
    ItemError::Device { message: format!("{error:?}") }
}
