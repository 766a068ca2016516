//! Names and axis orders of published checkpoints, one file a family.

pub(crate) mod omni;
