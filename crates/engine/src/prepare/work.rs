//! What an input costs, counted and not timed: rows of the backbone and operations. The limits of the machine that it is held
//! against are measured elsewhere.

use omniburn_models::flops::Shape;

use super::preparer::{Prepared, Preparer};
use crate::call::{Input, Request};
use crate::error::ItemError;
use crate::forms::{Medium, Rows};

/// How much an input is for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Rows that enter the backbone, of all segments together.
    pub tokens: usize,
    /// Operations from what the towers read to the vector, two a multiply-add: products, convolutions and attention. What
    /// is done to a medium before its tower is not counted.
    pub flops: u64,
}

impl Preparer {
    /// What an input would cost.
    pub(crate) fn work(&self, input: &Input, request: &Request) -> Result<Work, ItemError> {
        let family = &self.header().family;
        let count = |tokens: usize, shape: Shape| {
            let flops = family.flops(&shape).expect("what was prepared has a way into the family");
            Work { tokens, flops }
        };
        match self.prepare(input.clone(), request)? {
            Prepared::Text { sequence, .. } => Ok(count(sequence.len(), Shape::Text { tokens: sequence.len() })),
            Prepared::Media(medium) => Ok(count(medium.tokens, shape(&medium))),
            Prepared::Long(mut long) => {
                let mut all = Work::default();
                while let Some(medium) = self.next_segment(&mut long, request)? {
                    let one = count(medium.tokens, shape(&medium));
                    all = Work { tokens: all.tokens + one.tokens, flops: all.flops + one.flops };
                }
                Ok(all)
            }
        }
    }
}

fn shape(medium: &Medium) -> Shape {
    shape_of(&medium.rows, medium.tokens)
}

fn shape_of(rows: &Rows, tokens: usize) -> Shape {
    match rows {
        Rows::Patches(patches) => {
            let grid = patches.grid();
            Shape::Patches { groups: grid.t, patches: grid.h * grid.w, tokens }
        }
        Rows::Mel(mel) => Shape::Mel { clips: vec![mel.frames()], tokens },
        Rows::AudioWindows(windows) => Shape::Mel { clips: windows.iter().map(|mel| mel.frames()).collect(), tokens },
        Rows::FittedImages(images) => match (images.count(), images.patches_of_all()) {
            (count, Some(patches)) if count > 0 => Shape::Patches { groups: count, patches: patches / count, tokens },
            (count, _) => Shape::Pixels { count },
        },
        Rows::Parts(parts) => Shape::Parts { parts: parts.iter().map(|part| shape_of(part, 0)).collect(), tokens },
    }
}
