//! Names and axis orders of published checkpoints, one file a family.

pub(crate) mod bert;
pub(crate) mod mini;
pub(crate) mod omni;

use omniburn_models::record::{TensorRole, TensorSpec};

use crate::keymap::{Input, Piece};

/// One source tensor: a linear lies `[outputs, inputs]` there, everything else as in the record.
pub(crate) fn plain(name: String, spec: &TensorSpec) -> Vec<Piece> {
    let mut shape = spec.shape.clone();
    if spec.role == TensorRole::Linear {
        shape.reverse();
    }
    vec![Piece::Tensor(Input::plain(name, shape))]
}
