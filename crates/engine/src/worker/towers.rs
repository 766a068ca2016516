//! Pieces of media of one or several callers in one pass of their tower.
//!
//! Windows never see each other, so what a pass gives of a piece does not depend on the others in it.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use omniburn_models::family::{AudioEncoder, ImageEncoder};
use omniburn_scheduler::{Priority, Size};

use super::cost::{Load, Stage};
use super::forward::{AudioUnit, MelPiece, PatchPiece, Steps, TowerRows, VisionUnit};
use super::slices::{Out, Pace, Slices, Until, slice};
use crate::error::ItemError;
use crate::memory::{MAX_UNIT_FRAMES, MAX_UNIT_PATCHES, Reservation};

/// Pieces of media for a tower.
pub(crate) enum TowerPieces {
    /// Groups of frames.
    Vision(Arc<ImageEncoder>, Vec<PatchPiece>),
    /// Windows of mel frames.
    Audio(Arc<AudioEncoder>, Vec<MelPiece>),
}

impl TowerPieces {
    fn count(&self) -> usize {
        match self {
            TowerPieces::Vision(_, pieces) => pieces.len(),
            TowerPieces::Audio(_, pieces) => pieces.len(),
        }
    }

    /// Rows of the tower's layers, in windows that see themselves.
    pub(crate) fn load(&self) -> Load {
        match self {
            TowerPieces::Vision(_, pieces) => Load::of(pieces.iter().flat_map(PatchPiece::windows)),
            TowerPieces::Audio(tower, pieces) => {
                Load::of(pieces.iter().flat_map(|piece| &piece.windows).map(|&frames| tower.window_rows(frames)))
            }
        }
    }

    /// What their first step is, and what most of their steps are.
    pub(crate) fn stages(&self) -> [Stage; 2] {
        match self {
            TowerPieces::Vision(..) => [Stage::PatchBegin, Stage::PatchBlock],
            TowerPieces::Audio(..) => [Stage::MelBegin, Stage::MelLayer],
        }
    }

    /// Whoever reads the same tower may share its passes.
    pub(crate) fn form(&self) -> u64 {
        match self {
            TowerPieces::Vision(tower, _) => Arc::as_ptr(tower).cast::<()>() as u64,
            TowerPieces::Audio(tower, _) => Arc::as_ptr(tower).cast::<()>() as u64,
        }
    }

    /// Adds pieces for the same tower behind its own.
    fn append(&mut self, other: Self) {
        match (self, other) {
            (TowerPieces::Vision(_, own), TowerPieces::Vision(_, more)) => own.extend(more),
            (TowerPieces::Audio(_, own), TowerPieces::Audio(_, more)) => own.extend(more),
            (TowerPieces::Vision(..), TowerPieces::Audio(..)) | (TowerPieces::Audio(..), TowerPieces::Vision(..)) => {
                unreachable!("requests of one form are of one tower")
            }
        }
    }

    /// The unit of these pieces.
    fn unit(self, device: &Device) -> TowerUnit {
        match self {
            TowerPieces::Vision(tower, pieces) => {
                TowerUnit::Vision(Box::new(VisionUnit::new(tower, pieces, device.clone())))
            }
            TowerPieces::Audio(tower, pieces) => {
                TowerUnit::Audio(Box::new(AudioUnit::new(tower, pieces, device.clone())))
            }
        }
    }
}

/// A pass of a tower, in steps.
enum TowerUnit {
    Vision(Box<VisionUnit>),
    Audio(Box<AudioUnit>),
}

impl Steps for TowerUnit {
    type Out = Vec<TowerRows>;

    fn next(&self) -> (Stage, Load) {
        match self {
            TowerUnit::Vision(unit) => unit.next(),
            TowerUnit::Audio(unit) => unit.next(),
        }
    }

    fn step(&mut self) -> Result<Option<Self::Out>, ItemError> {
        match self {
            TowerUnit::Vision(unit) => unit.step(),
            TowerUnit::Audio(unit) => unit.step(),
        }
    }
}

/// [`TowerPieces`] of a caller on their way to the device.
pub(crate) struct Towers {
    pub pieces: TowerPieces,
    pub device: Device,
    /// What the media have reserved: kept until the pass has ended, also where their caller leaves before.
    pub reserved: Vec<Arc<Reservation>>,
    pub out: Out<Vec<TowerRows>>,
}

impl Towers {
    /// Whether a pass that begins with these pieces may take along so many that it is of this size. Its memory is no question:
    /// pieces that share a pass need no more than the sum of what their media have reserved.
    pub(crate) fn may_grow_to(&self, priority: Priority, size: Size, pace: &Pace) -> bool {
        let [_, body] = self.pieces.stages();
        let most = match self.pieces {
            TowerPieces::Vision(..) => MAX_UNIT_PATCHES,
            TowerPieces::Audio(..) => MAX_UNIT_FRAMES / 2,
        };
        pace.may_grow_to(priority, size, (body, 1, most))
    }
}

/// Pieces of one or several callers in one pass.
pub(crate) struct TowerPass {
    unit: TowerUnit,
    /// Where each caller's results go, and how many they are.
    callers: Vec<(Out<Vec<TowerRows>>, usize)>,
    _reserved: Vec<Arc<Reservation>>,
}

impl TowerPass {
    /// The pass of these pieces, which are for one tower; `None` of none.
    pub(crate) fn of(all: Vec<Towers>) -> Option<Self> {
        let (mut callers, mut reserved) = (Vec::new(), Vec::new());
        let mut together: Option<(TowerPieces, Device)> = None;
        for Towers { pieces, device, reserved: own, out } in all {
            callers.push((out, pieces.count()));
            reserved.extend(own);
            match &mut together {
                Some((all, _)) => all.append(pieces),
                None => together = Some((pieces, device)),
            }
        }
        let (pieces, device) = together?;
        Some(Self { unit: pieces.unit(&device), callers, _reserved: reserved })
    }
}

impl Slices for TowerPass {
    fn slice(&mut self, until: Until<'_>, pace: &Pace) -> Result<bool, ItemError> {
        let Some(rows) = slice(&mut self.unit, until, pace)? else { return Ok(false) };
        let (mut rows, shared) = (rows.into_iter(), self.callers.len() > 1);
        for (out, count) in &self.callers {
            let own = rows.by_ref().take(*count);
            out.put(match shared && pace.eager {
                // A part of a tensor keeps the whole, whose memory the other callers give back when they have their results.
                true => own.map(|blocks| blocks.into_iter().map(|rows| copied(rows, pace)).collect()).collect(),
                false => own.collect(),
            });
        }
        Ok(true)
    }
}

fn copied(rows: Tensor<2>, pace: &Pace) -> Tensor<2> {
    let dtype = rows.dtype();
    Tensor::from_data(rows.into_data(), (&pace.device, dtype))
}
