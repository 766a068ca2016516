//! Names and axis orders of published checkpoints whose folders are not told by `model_type` alone, and the rule that gives
//! every tensor of a record its pieces.

pub(crate) mod mini;
pub(crate) mod omni;

use omniburn_models::checkpoint::source_name;
use omniburn_models::record::{SourceAxes, SourcePart, TensorRole, TensorSpec};

use crate::keymap::{Form, Input, Piece};

/// One source tensor: a linear lies `[outputs, inputs]` there, everything else as in the record.
pub(crate) fn plain(name: String, spec: &TensorSpec) -> Vec<Piece> {
    let mut shape = spec.shape.clone();
    if spec.role == TensorRole::Linear {
        shape.reverse();
    }
    vec![Piece::Tensor(Input::plain(name, shape))]
}

/// What a tensor of the record is made from, as its description says; `names` are the family's, from a record's to a
/// checkpoint's.
pub(crate) fn pieces(spec: &TensorSpec, names: &[(&str, &str)]) -> Vec<Piece> {
    if !spec.parts.is_empty() {
        return fused(spec, names);
    }
    let name = source_name(names, &spec.name);
    match (spec.axes, spec.shape.as_slice()) {
        (SourceAxes::Convolution { taps }, &[inputs, outputs]) => {
            let form = Form { shape: vec![outputs, inputs / taps, taps], order: Some(vec![0, 2, 1]) };
            vec![Piece::Tensor(Input { name, forms: vec![form] })]
        }
        (SourceAxes::Patches { channels, frames, side }, &[_, outputs]) => {
            // Patch rows are (channel, time, row, column), which is torch's order.
            let form = Form { shape: vec![outputs, channels, frames, side, side], order: None };
            vec![Piece::Tensor(Input { name, forms: vec![form] })]
        }
        _ => plain(name, spec),
    }
}

/// Parts side by side: `path.fused.leaf` of the record is `path.part.leaf` of a checkpoint for each part.
fn fused(spec: &TensorSpec, names: &[(&str, &str)]) -> Vec<Piece> {
    let (path, leaf) = spec.name.rsplit_once('.').unwrap_or(("", &spec.name));
    let path = path.rsplit_once('.').map_or("", |(path, _)| path);
    let piece = |part: &SourcePart| {
        if !part.stored {
            return Piece::Zeros(part.outputs);
        }
        let name = source_name(names, &format!("{path}.{}.{leaf}", part.name));
        let shape = match spec.role {
            TensorRole::Linear => vec![part.outputs, spec.shape[0]],
            _ => vec![part.outputs],
        };
        Piece::Tensor(Input::plain(name, shape))
    };
    spec.parts.iter().map(piece).collect()
}
