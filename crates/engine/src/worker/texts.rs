//! Texts of one or several callers in one pass.

use std::cmp::Reverse;
use std::sync::Arc;

use burn::tensor::Device;
use omniburn_models::family::{RowsWanted, TextModel};
use omniburn_scheduler::{Priority, Size};

use super::cost::Stage;
use super::forward::TextUnit;
use super::slices::{Out, Pace, Slices, Until, slice};
use crate::error::ItemError;
use crate::forms::{Pooled, Sequence};
use crate::memory::{MAX_UNIT_TOKENS, Reservation};

/// Texts of one call that are computed together.
pub(crate) struct TextSet {
    pub text: Arc<dyn TextModel>,
    pub sequences: Vec<Sequence>,
    /// What is wanted of each row.
    pub wanted: RowsWanted,
    /// The kind of step by whose time passes are planned.
    pub stage: Stage,
    /// What the texts have reserved: kept until the pass has ended, also where their caller leaves before.
    pub reserved: Vec<Arc<Reservation>>,
}

/// [`TextSet`] on its way to the device.
pub(crate) struct Texts {
    pub text: Arc<dyn TextModel>,
    pub sequences: Vec<Sequence>,
    pub wanted: RowsWanted,
    pub stage: Stage,
    pub device: Device,
    pub reserved: Vec<Arc<Reservation>>,
    pub out: Out<Vec<Pooled>>,
}

impl Texts {
    /// Whether a pass that begins with these texts may take along so many that it is of this size. Its memory is no
    /// question: texts that share a pass need no more than the sum of what each has reserved.
    pub(crate) fn may_grow_to(&self, priority: Priority, size: Size, pace: &Pace) -> bool {
        let layers = self.text.step_layers(usize::try_from(size.rows).unwrap_or(usize::MAX));
        pace.may_grow_to(priority, size, (self.stage, layers, MAX_UNIT_TOKENS))
    }
}

/// Texts of one or several callers in one pass.
pub(crate) struct TextPass {
    unit: TextUnit,
    /// For each sequence of the unit, whose it is and which of theirs.
    places: Vec<(usize, usize)>,
    /// Where each caller's results go, and what it wants of each row.
    callers: Vec<(Out<Vec<Pooled>>, RowsWanted)>,
    _reserved: Vec<Arc<Reservation>>,
}

impl TextPass {
    /// The pass of these texts, which are of one part of a record; `None` of none.
    pub(crate) fn of(all: Vec<Texts>) -> Option<Self> {
        let first = all.first()?;
        let (text, device, together) = (Arc::clone(&first.text), first.device.clone(), all.len() > 1);
        let (mut rows, mut callers, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        let mut wanted = RowsWanted::default();
        for (caller, texts) in all.into_iter().enumerate() {
            rows.extend(texts.sequences.into_iter().enumerate().map(|(index, ids)| ((caller, index), ids)));
            wanted = wanted.or(texts.wanted);
            callers.push((texts.out, texts.wanted));
            reserved.extend(texts.reserved);
        }
        if together {
            // As one call's are planned: longest first, so that neighbours are alike.
            rows.sort_by_key(|(_, sequence)| Reverse(sequence.len()));
        }
        let (places, sequences) = rows.into_iter().unzip();
        let unit = TextUnit::new(text, sequences, device).wanting(wanted);
        Some(Self { unit, places, callers, _reserved: reserved })
    }
}

impl Slices for TextPass {
    fn slice(&mut self, until: Until<'_>, pace: &Pace) -> Result<bool, ItemError> {
        let Some(pooled) = slice(&mut self.unit, until, pace)? else { return Ok(false) };
        let mut back: Vec<Vec<(usize, Pooled)>> = self.callers.iter().map(|_| Vec::new()).collect();
        for (&(caller, index), mut pooled) in self.places.iter().zip(pooled) {
            // What somebody else in the pass wanted of its rows is not this caller's.
            let (_, RowsWanted { sparse, multi }) = self.callers[caller];
            if !sparse {
                pooled.weights = Vec::new();
            }
            if !multi {
                pooled.rows = Vec::new();
            }
            back[caller].push((index, pooled));
        }
        for ((out, _), mut rows) in self.callers.iter().zip(back) {
            rows.sort_by_key(|(index, _)| *index);
            out.put(rows.into_iter().map(|(_, pooled)| pooled).collect());
        }
        Ok(true)
    }
}
