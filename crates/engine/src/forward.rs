//! The units of work as steps: upload, layer after layer, read back. All of it happens on the device's thread, under a
//! permit; between two steps the permit may go to somebody else.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_media::{LogMel, PatchGrid};
use omniburn_models::Segments;
use omniburn_models::batch::{Grid, MelRows, PatchRows, TokenRows};
use omniburn_models::blocks::TokenTable;
use omniburn_models::families::mini::{MiniText, SpeechTower};
use omniburn_models::families::omni::{OmniPass, OmniText};
use omniburn_models::fault;
use omniburn_models::towers::audio::{AudioConfig, AudioPass, AudioTower};
use omniburn_models::towers::conv::ConvTower;
use omniburn_models::towers::vision::{VisionPass, VisionTower};

use crate::cost::{Load, Stage};
use crate::error::ItemError;
use crate::parts::TextPart;
use crate::prepare::Squares;
use crate::prompt::Frame;

/// A unit of work that may be cut between its steps, so that nobody waits for all of it.
pub(crate) trait Steps: Send + 'static {
    /// What it gives.
    type Out: Send + 'static;

    /// What the next step is, and how much it has to do.
    fn next(&self) -> (Stage, Load);

    /// Runs one step; the result with the last one. Whatever is kept until the next step is small: the residual stream
    /// and tables of positions, not what a layer needs while it runs.
    fn step(&mut self) -> Result<Option<Self::Out>, ItemError>;
}

/// One pooled row for each sequence of ids.
pub(crate) struct TextUnit {
    text: Arc<TextPart>,
    sequences: Vec<Vec<u32>>,
    /// Rows that each sequence's poolings leave out in front.
    skipped: Vec<usize>,
    device: Device,
    load: Load,
    pass: Pass<OmniPass>,
}

/// How far a pass has come.
enum Pass<P> {
    Before,
    Layers(P),
    After(P),
    Over,
}

impl<P> Pass<P> {
    /// Takes the pass out for its next step.
    fn take(&mut self) -> Self {
        mem::replace(self, Pass::Over)
    }

    fn between(pass: P, done: bool) -> Self {
        if done { Pass::After(pass) } else { Pass::Layers(pass) }
    }

    fn stage(&self, [begin, layer, end]: [Stage; 3]) -> Stage {
        match self {
            Pass::Before => begin,
            Pass::Layers(_) => layer,
            Pass::After(_) | Pass::Over => end,
        }
    }
}

const TEXT: [Stage; 3] = [Stage::TextBegin, Stage::TextLayer, Stage::TextEnd];

impl TextUnit {
    pub(crate) fn new(text: Arc<TextPart>, sequences: Vec<Vec<u32>>, device: Device) -> Self {
        let load = Load::of(sequences.iter().map(Vec::len));
        Self { text, sequences, skipped: Vec::new(), device, load, pass: Pass::Before }
    }

    /// The same with so many rows in front of each sequence left out of the poolings.
    pub(crate) fn skipping(self, skipped: Vec<usize>) -> Self {
        Self { skipped, ..self }
    }

    fn rows(&self) -> Result<TokenRows, ItemError> {
        let mut values = Vec::new();
        for ids in &self.sequences {
            gather(self.text.tokens(), ids, &mut values)?;
        }
        let rows = upload(values, self.text.tokens().hidden(), &self.device);
        Ok(TokenRows { rows, segments: Segments::from_lengths(self.sequences.iter().map(Vec::len)) })
    }
}

impl Steps for TextUnit {
    type Out = Vec<Vec<f32>>;

    fn next(&self) -> (Stage, Load) {
        let stage = match *self.text {
            TextPart::Omni(_) => self.pass.stage(TEXT),
            TextPart::Mini(_) | TextPart::Bert(_) => Stage::Encoder,
        };
        (stage, self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let model = Arc::clone(&self.text);
        let omni = match &*model {
            TextPart::Omni(omni) => omni,
            // Six layers of 384 take less than a time slice: 2 ms for a query of the model that ships.
            TextPart::Mini(mini) => return read_rows(mini.text(self.rows()?)).map(Some),
            TextPart::Bert(bert) => return read_rows(bert.embed_after(self.rows()?, &self.skipped)).map(Some),
        };
        let pass = match self.pass.take() {
            Pass::Before => omni.begin(self.rows()?, &[]),
            Pass::Layers(pass) => omni.advance(pass),
            Pass::After(pass) => return read_rows(omni.finish(pass)).map(Some),
            Pass::Over => unreachable!("a unit is not stepped after its end"),
        };
        self.pass = Pass::between_of(omni, pass);
        Ok(None)
    }
}

impl Pass<OmniPass> {
    fn between_of(omni: &OmniText, pass: OmniPass) -> Self {
        let done = omni.is_done(&pass);
        Self::between(pass, done)
    }
}

/// The vector of a picture, or of a film from the mean of its frames: a frame a step, so that a film of any length needs
/// the memory of one, and so that the order of the sum is that of the frames.
pub(crate) struct SquaresUnit {
    pub tower: Arc<ConvTower>,
    pub text: Arc<TextPart>,
    pub squares: Arc<Squares>,
    /// What is taken from a level, and what the rest is divided by.
    pub scale: (f32, f32),
    pub device: Device,
    pub done: usize,
    pub sum: Option<Tensor<4>>,
}

impl SquaresUnit {
    /// Planes of one frame's levels.
    fn frame(&self, index: usize) -> Tensor<4> {
        let side = self.squares.side as usize;
        let plane = side * side;
        let pixels = &self.squares.pixels[index * 3 * plane..(index + 1) * 3 * plane];
        let mut values = vec![0.0f32; pixels.len()];
        for (place, pixel) in pixels.chunks_exact(3).enumerate() {
            for (channel, level) in pixel.iter().enumerate() {
                values[channel * plane + place] = (f32::from(*level) - self.scale.0) / self.scale.1;
            }
        }
        let data = TensorData::new(values, [1, 3, side, side]);
        Tensor::from_data(data, (&self.device, burn::tensor::DType::F32))
    }
}

impl Steps for SquaresUnit {
    type Out = Vec<f32>;

    fn next(&self) -> (Stage, Load) {
        let stage = if self.done < self.squares.count { Stage::Square } else { Stage::SquareEnd };
        (stage, Load::of([1]))
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        if self.done < self.squares.count {
            let maps = self.tower.forward(self.frame(self.done));
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + maps,
                None => maps,
            });
            self.done += 1;
            return Ok(None);
        }
        let sum = self.sum.take().expect("a picture has pixels");
        let mean = if self.done == 1 { sum } else { sum / self.done as f32 };
        let picture = mini(&self.text).picture(mean);
        read_rows(picture.vector).map(|mut rows| Some(rows.swap_remove(0)))
    }
}

fn mini(text: &TextPart) -> &MiniText {
    let TextPart::Mini(text) = text else { unreachable!("rows are made for the family that reads them") };
    text
}

/// The vector of speech: the mean direction of its windows, one a step. Each then has the bits it has alone, and two
/// seconds fill a processor.
pub(crate) struct ClipsUnit {
    pub tower: Arc<SpeechTower>,
    pub text: Arc<TextPart>,
    pub clips: Arc<Vec<LogMel>>,
    pub device: Device,
    pub done: usize,
    pub sum: Vec<f32>,
}

impl Steps for ClipsUnit {
    type Out = Vec<f32>;

    fn next(&self) -> (Stage, Load) {
        (Stage::Clip, Load::of([self.clips[self.done].frames()]))
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let clip = &self.clips[self.done];
        let rows = MelRows::new(clip.values().to_vec(), clip.mels(), vec![clip.frames()], &self.device);
        let vector = read_rows(mini(&self.text).speech(self.tower.forward(rows)).vector)?.swap_remove(0);
        self.sum.resize(vector.len(), 0.0);
        self.sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v);
        self.done += 1;
        Ok((self.done == self.clips.len()).then(|| mem::take(&mut self.sum)))
    }
}

/// Groups of frames of a picture or clip.
pub(crate) struct PatchPiece {
    pub patches: Arc<PatchGrid>,
    pub groups: Range<usize>,
}

/// Windows of a sound: the frames they cover, and the length of each.
pub(crate) struct MelPiece {
    pub mel: Arc<LogMel>,
    pub frames: Range<usize>,
    pub windows: Vec<usize>,
}

/// Tower features of each packed piece, `[patches, hidden]`, finished on the device.
pub(crate) struct VisionUnit {
    tower: Arc<VisionTower>,
    pieces: Vec<PatchPiece>,
    grids: Vec<Grid>,
    device: Device,
    load: Load,
    pass: Pass<VisionPass>,
}

impl VisionUnit {
    pub(crate) fn new(tower: Arc<VisionTower>, pieces: Vec<PatchPiece>, device: Device) -> Self {
        let grid = |p: &PatchPiece| Grid { t: p.groups.len(), h: p.patches.grid().h, w: p.patches.grid().w };
        let grids: Vec<Grid> = pieces.iter().map(grid).collect();
        let load = Load::of(grids.iter().flat_map(|g| vec![g.h * g.w; g.t]));
        Self { tower, pieces, grids, device, load, pass: Pass::Before }
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
    type Out = Vec<Tensor<2>>;

    fn next(&self) -> (Stage, Load) {
        (self.pass.stage([Stage::PatchBegin, Stage::PatchBlock, Stage::Cut]), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let pass = match self.pass.take() {
            Pass::Before => self.tower.begin(self.rows()),
            Pass::Layers(pass) => self.tower.advance(pass),
            Pass::After(pass) => {
                let features = self.tower.finish(pass).last;
                return cut(features, self.grids.iter().map(|g| g.patches()), &self.device).map(Some);
            }
            Pass::Over => unreachable!("a unit is not stepped after its end"),
        };
        let done = self.tower.is_done(&pass);
        self.pass = Pass::between(pass, done);
        Ok(None)
    }
}

/// Tower rows of each packed piece, `[rows, hidden]`, finished on the device.
pub(crate) struct AudioUnit {
    tower: Arc<AudioTower>,
    pieces: Vec<MelPiece>,
    device: Device,
    load: Load,
    pass: Pass<AudioPass>,
}

impl AudioUnit {
    pub(crate) fn new(tower: Arc<AudioTower>, pieces: Vec<MelPiece>, device: Device) -> Self {
        let windows = pieces.iter().flat_map(|p| &p.windows);
        let load = Load::of(windows.map(|&w| AudioConfig::window_rows(w)));
        Self { tower, pieces, device, load, pass: Pass::Before }
    }

    fn rows(&self) -> MelRows {
        let mels = self.pieces[0].mel.mels();
        let values = self.pieces.iter().flat_map(|p| &p.mel.values()[p.frames.start * mels..p.frames.end * mels]);
        let windows = self.pieces.iter().flat_map(|p| p.windows.iter().copied()).collect();
        MelRows::new(values.copied().collect(), mels, windows, &self.device)
    }
}

impl Steps for AudioUnit {
    type Out = Vec<Tensor<2>>;

    fn next(&self) -> (Stage, Load) {
        (self.pass.stage([Stage::MelBegin, Stage::MelLayer, Stage::Cut]), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let pass = match self.pass.take() {
            Pass::Before => self.tower.begin(self.rows()),
            Pass::Layers(pass) => self.tower.advance(pass),
            Pass::After(pass) => {
                let rows = |p: &MelPiece| p.windows.iter().map(|&w| AudioConfig::window_rows(w)).sum();
                return cut(self.tower.finish(pass), self.pieces.iter().map(rows), &self.device).map(Some);
            }
            Pass::Over => unreachable!("a unit is not stepped after its end"),
        };
        let done = self.tower.is_done(&pass);
        self.pass = Pass::between(pass, done);
        Ok(None)
    }
}

/// Packed rows as one tensor a piece, once they are there.
fn cut(rows: Tensor<2>, lengths: impl Iterator<Item = usize>, device: &Device) -> Result<Vec<Tensor<2>>, ItemError> {
    let mut start = 0;
    let pieces = lengths.map(|length| {
        let piece = rows.clone().slice_dim(0, start..start + length);
        start += length;
        piece
    });
    let pieces = pieces.collect();
    // Launches are asynchronous on GPUs: the permit may end only when the work has.
    device.sync().map_err(device_error)?;
    fault::read().map_err(device_error)?;
    Ok(pieces)
}

/// From the rows of a tower to rows of the backbone.
#[derive(Clone)]
pub(crate) enum Connector {
    Merger,
    Sound(Arc<AudioTower>),
}

impl Connector {
    fn features(&self, text: &OmniText, rows: Tensor<2>) -> Tensor<2> {
        match self {
            Connector::Merger => {
                text.merger.as_ref().expect("a record with a picture tower has a merger in every task").forward(rows)
            }
            Connector::Sound(tower) => text.project(tower.pool(rows)),
        }
    }
}

/// The pooled row of one medium between its frame's rows; `rows` are all its pieces in order.
pub(crate) struct MediaUnit {
    text: Arc<TextPart>,
    rows: Vec<Tensor<2>>,
    connector: Connector,
    frame: Frame,
    device: Device,
    load: Load,
    pass: Pass<OmniPass>,
}

impl MediaUnit {
    /// `tokens` is how many rows will enter the backbone.
    pub(crate) fn new(
        text: Arc<TextPart>,
        rows: Vec<Tensor<2>>,
        connector: Connector,
        frame: Frame,
        tokens: usize,
        device: Device,
    ) -> Self {
        Self { text, rows, connector, frame, device, load: Load::of([tokens]), pass: Pass::Before }
    }

    fn begin(&mut self, text: &OmniText) -> Result<OmniPass, ItemError> {
        let features = self.connector.features(text, Tensor::cat(mem::take(&mut self.rows), 0));
        let [count, _] = features.dims();
        let mut pieces = Vec::with_capacity(3);
        for ids in [&self.frame.before, &self.frame.after] {
            let mut values = Vec::new();
            gather(&text.tokens, ids, &mut values)?;
            if !ids.is_empty() {
                pieces.push(upload(values, text.tokens.hidden(), &self.device));
            }
            if std::ptr::eq(ids, &self.frame.before) {
                pieces.push(features.clone());
            }
        }
        let rows = Tensor::cat(pieces, 0); // [tokens, hidden]
        let [tokens, _] = rows.dims();
        let media = self.frame.before.len()..self.frame.before.len() + count;
        Ok(text.begin(TokenRows { rows, segments: Segments::single(tokens) }, std::slice::from_ref(&media)))
    }
}

impl Steps for MediaUnit {
    type Out = Vec<f32>;

    fn next(&self) -> (Stage, Load) {
        (self.pass.stage([Stage::Connect, Stage::TextLayer, Stage::TextEnd]), self.load)
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        let model = Arc::clone(&self.text);
        let TextPart::Omni(omni) = &*model else { unreachable!("other families go through in one unit") };
        let pass = match self.pass.take() {
            Pass::Before => self.begin(omni)?,
            Pass::Layers(pass) => omni.advance(pass),
            Pass::After(pass) => return read_rows(omni.finish(pass)).map(|mut rows| Some(rows.swap_remove(0))),
            Pass::Over => unreachable!("a unit is not stepped after its end"),
        };
        self.pass = Pass::between_of(omni, pass);
        Ok(None)
    }
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
    fault::read().map_err(device_error)?;
    let values: Vec<f32> = data.try_to_vec().map_err(|e| ItemError::Device { message: format!("{e:?}") })?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

pub(crate) fn device_error(error: impl std::fmt::Debug) -> ItemError {
    ItemError::Device { message: format!("{error:?}") }
}
