//! Run one unit: upload, compute, read back. All of it happens on the device's thread, under one permit.

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_models::batch::{Grid, PatchRows, TokenRows};
use omniburn_models::families::omni::OmniText;
use omniburn_models::towers::vision::VisionTower;

use crate::error::ItemError;
use crate::prompt::Frame;

/// One pooled row for each sequence of ids.
pub(crate) fn text_unit(text: &OmniText, sequences: &[Vec<u32>], device: &Device) -> Result<Vec<Vec<f32>>, ItemError> {
    let mut values = Vec::new();
    for ids in sequences {
        gather(text, ids, &mut values)?;
    }
    let rows = upload(values, text.tokens.hidden(), device);
    let segments = omniburn_models::Segments::from_lengths(sequences.iter().map(Vec::len));
    read_rows(text.embed(TokenRows { rows, segments }, &[]))
}

/// Tower features of each packed item, `[patches, hidden]`, finished on the device.
pub(crate) fn tower_unit(
    tower: &VisionTower,
    items: Vec<(Vec<f32>, Grid)>,
    device: &Device,
) -> Result<Vec<Tensor<2>>, ItemError> {
    let grids: Vec<Grid> = items.iter().map(|(_, grid)| *grid).collect();
    let patches: usize = grids.iter().map(|g| g.patches()).sum();
    let values: Vec<f32> = items.into_iter().flat_map(|(values, _)| values).collect();
    let width = values.len() / patches;
    let features = tower.forward(PatchRows::new(values, width, grids.clone(), device)).last;
    let [_, hidden] = features.dims();
    let mut start = 0;
    let items = grids.iter().map(|grid| {
        let rows = start..start + grid.patches();
        start = rows.end;
        features.clone().slice([rows, 0..hidden])
    });
    let items = items.collect();
    // Launches are asynchronous on GPUs: the permit may end only when the work has.
    device.sync().map_err(device_error)?;
    Ok(items)
}

/// The pooled row of one medium between its frame's rows.
pub(crate) fn media_unit(
    text: &OmniText,
    features: Tensor<2>,
    frame: &Frame,
    device: &Device,
) -> Result<Vec<f32>, ItemError> {
    let merger = text.merger.as_ref().expect("a record with a picture tower has a merger in every task");
    let features = merger.forward(features);
    let [count, _] = features.dims();
    let mut pieces = Vec::with_capacity(3);
    for ids in [&frame.before, &frame.after] {
        let mut values = Vec::new();
        gather(text, ids, &mut values)?;
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

fn gather(text: &OmniText, ids: &[u32], out: &mut Vec<f32>) -> Result<(), ItemError> {
    let rows = text.tokens.vocab();
    text.tokens.gather(ids, out).map_err(|id| ItemError::TokenIdOutOfTable { id, rows })
}

fn upload(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values, shape), (device, burn::tensor::DType::F32))
}

fn read_rows(pooled: Tensor<2>) -> Result<Vec<Vec<f32>>, ItemError> {
    let [_, width] = pooled.dims();
    // Failures of asynchronous launches appear at the read, so the read is the kind that returns them.
    let data = pooled.try_into_data().map_err(device_error)?;
    let values: Vec<f32> = data.try_to_vec().map_err(|e| ItemError::Device { message: format!("{e:?}") })?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

fn device_error(error: impl std::fmt::Debug) -> ItemError {
    ItemError::Device { message: format!("{error:?}") }
}
