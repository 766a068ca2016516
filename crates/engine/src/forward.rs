//! Run one unit: upload, compute, read back. All of it happens on the device's thread, under one permit.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_media::{LogMel, PatchGrid};
use omniburn_models::batch::{Grid, MelRows, PatchRows, TokenRows};
use omniburn_models::blocks::TokenTable;
use omniburn_models::families::mini::{MiniText, SpeechTower};
use omniburn_models::families::omni::OmniText;
use omniburn_models::fault;
use omniburn_models::towers::audio::{AudioConfig, AudioTower};
use omniburn_models::towers::conv::ConvTower;
use omniburn_models::towers::vision::VisionTower;

use crate::error::ItemError;
use crate::parts::TextPart;
use crate::prepare::Squares;
use crate::prompt::Frame;

/// One pooled row for each sequence of ids.
pub(crate) fn text_unit(text: &TextPart, sequences: &[Vec<u32>], device: &Device) -> Result<Vec<Vec<f32>>, ItemError> {
    let mut values = Vec::new();
    for ids in sequences {
        gather(text.tokens(), ids, &mut values)?;
    }
    let rows = upload(values, text.tokens().hidden(), device);
    let segments = omniburn_models::Segments::from_lengths(sequences.iter().map(Vec::len));
    read_rows(text.embed(TokenRows { rows, segments }))
}

/// The vector of a picture, or of a film from the mean of its frames.
///
/// Frames go through the tower a few at a time, so that a film of any length needs little memory.
pub(crate) fn squares_unit(
    tower: &ConvTower,
    text: &MiniText,
    squares: &Squares,
    scale: (f32, f32),
    device: &Device,
) -> Result<Vec<f32>, ItemError> {
    let side = squares.side as usize;
    let plane = side * side;
    let mut sum: Option<Tensor<4>> = None;
    for frames in squares.pixels.chunks(SQUARES_TOGETHER * 3 * plane) {
        let count = frames.len() / (3 * plane);
        let mut values = vec![0.0f32; frames.len()];
        for (frame, planes) in frames.chunks_exact(3 * plane).zip(values.chunks_exact_mut(3 * plane)) {
            for (place, pixel) in frame.chunks_exact(3).enumerate() {
                for (channel, level) in pixel.iter().enumerate() {
                    planes[channel * plane + place] = (f32::from(*level) - scale.0) / scale.1;
                }
            }
        }
        let data = TensorData::new(values, [count, 3, side, side]);
        let maps = tower.forward(Tensor::from_data(data, (device, burn::tensor::DType::F32)));
        let part = if count == 1 { maps } else { maps.sum_dim(0) };
        sum = Some(match sum {
            Some(sum) => sum + part,
            None => part,
        });
    }
    let sum = sum.expect("a picture has pixels");
    let mean = if squares.count == 1 { sum } else { sum / squares.count as f32 };
    read_rows(text.picture(mean).vector).map(|mut rows| rows.swap_remove(0))
}

/// Frames that go through a convolution tower together.
pub(crate) const SQUARES_TOGETHER: usize = 8;

/// The vector of speech: the mean direction of its windows.
pub(crate) fn clips_unit(
    tower: &SpeechTower,
    text: &MiniText,
    clips: &[LogMel],
    device: &Device,
) -> Result<Vec<f32>, ItemError> {
    let mut sum = Vec::new();
    // One window at a time: each then has the bits it has alone, and two seconds fill a processor.
    for clip in clips {
        let rows = MelRows::new(clip.values().to_vec(), clip.mels(), vec![clip.frames()], device);
        let vector = read_rows(text.speech(tower.forward(rows)).vector)?.swap_remove(0);
        sum.resize(vector.len(), 0.0);
        sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v);
    }
    Ok(sum)
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
pub(crate) fn vision_unit(
    tower: &VisionTower,
    pieces: &[PatchPiece],
    device: &Device,
) -> Result<Vec<Tensor<2>>, ItemError> {
    let grids = pieces.iter().map(|p| Grid { t: p.groups.len(), h: p.patches.grid().h, w: p.patches.grid().w });
    let grids: Vec<Grid> = grids.collect();
    let values = pieces.iter().flat_map(|p| {
        let group = p.patches.grid().h * p.patches.grid().w;
        p.patches.rows_of(p.groups.start * group..p.groups.end * group)
    });
    let width = pieces[0].patches.row_len();
    let features = tower.forward(PatchRows::new(values.collect(), width, grids.clone(), device)).last;
    cut(features, grids.iter().map(|g| g.patches()), device)
}

/// Tower rows of each packed piece, `[rows, hidden]`, finished on the device.
pub(crate) fn audio_unit(
    tower: &AudioTower,
    pieces: &[MelPiece],
    device: &Device,
) -> Result<Vec<Tensor<2>>, ItemError> {
    let mels = pieces[0].mel.mels();
    let values = pieces.iter().flat_map(|p| &p.mel.values()[p.frames.start * mels..p.frames.end * mels]);
    let windows = pieces.iter().flat_map(|p| p.windows.iter().copied()).collect();
    let rows = tower.forward(MelRows::new(values.copied().collect(), mels, windows, device));
    cut(rows, pieces.iter().map(|p| p.windows.iter().map(|&w| AudioConfig::window_rows(w)).sum()), device)
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
pub(crate) fn media_unit(
    text: &OmniText,
    rows: Vec<Tensor<2>>,
    connector: &Connector,
    frame: &Frame,
    device: &Device,
) -> Result<Vec<f32>, ItemError> {
    let features = connector.features(text, Tensor::cat(rows, 0));
    let [count, _] = features.dims();
    let mut pieces = Vec::with_capacity(3);
    for ids in [&frame.before, &frame.after] {
        let mut values = Vec::new();
        gather(&text.tokens, ids, &mut values)?;
        if !ids.is_empty() {
            pieces.push(upload(values, text.tokens.hidden(), device));
        }
        if std::ptr::eq(ids, &frame.before) {
            pieces.push(features.clone());
        }
    }
    let rows = Tensor::cat(pieces, 0); // [tokens, hidden]
    let [tokens, _] = rows.dims();
    let segments = omniburn_models::Segments::single(tokens);
    let media = frame.before.len()..frame.before.len() + count;
    let pooled = text.embed(TokenRows { rows, segments }, std::slice::from_ref(&media));
    read_rows(pooled).map(|mut rows| rows.swap_remove(0))
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

fn device_error(error: impl std::fmt::Debug) -> ItemError {
    ItemError::Device { message: format!("{error:?}") }
}
