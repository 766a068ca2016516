//! Texts of one or several callers in one pass.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;
use omniburn_models::family::TextModel;
use omniburn_scheduler::{Priority, Size};

use super::cost::{Load, Stage};
use super::forward::TextUnit;
use super::slices::{Out, Pace, Slices, slice};
use crate::error::ItemError;
use crate::memory::{LEAST_UNIT_ROWS, MAX_UNIT_TOKENS, Reservation};

/// Rows of a pass of queries at most, where they are of several callers: products of 128 rows are as wide as they need to be,
/// and a query of 16 tokens waits for little more beside 15 others than it would behind them.
const SHARED_QUERY_ROWS: u64 = 256;

/// Texts of one call that are computed together.
pub(crate) struct TextSet {
    pub text: Arc<dyn TextModel>,
    pub sequences: Vec<Vec<u32>>,
    /// Rows that each sequence's poolings leave out in front.
    pub skipped: Vec<usize>,
    /// The kind of step by whose time passes are planned.
    pub stage: Stage,
    /// What the texts have reserved: kept until the pass has ended, also where their caller leaves before.
    pub reserved: Vec<Arc<Reservation>>,
}

/// [`TextSet`] on its way to the device.
pub(crate) struct Texts {
    pub text: Arc<dyn TextModel>,
    pub sequences: Vec<Vec<u32>>,
    pub skipped: Vec<usize>,
    pub stage: Stage,
    pub device: Device,
    pub reserved: Vec<Arc<Reservation>>,
    pub out: Out<Vec<Vec<f32>>>,
}

impl Texts {
    /// Whether a pass that begins with these texts may take along so many that it is of this size. Its memory is no
    /// question: texts that share a pass need no more than the sum of what each has reserved.
    pub(crate) fn may_grow_to(&self, priority: Priority, size: Size, pace: &Pace) -> bool {
        match priority {
            // A query is not cut, so all of the pass is what its caller waits for.
            Priority::Interactive => size.rows <= SHARED_QUERY_ROWS,
            Priority::Background => {
                let load = Load { rows: size.rows as f64, pairs: size.pairs as f64 };
                let short = || pace.costs.expect(self.stage, load).is_some_and(|time| time <= pace.time_slice);
                size.rows <= MAX_UNIT_TOKENS as u64 && (size.rows <= LEAST_UNIT_ROWS as u64 || short())
            }
        }
    }
}

/// Texts of one or several callers in one pass.
pub(crate) struct TextPass {
    unit: TextUnit,
    /// For each sequence of the unit, whose it is and which of theirs.
    places: Vec<(usize, usize)>,
    callers: Vec<Out<Vec<Vec<f32>>>>,
    _reserved: Vec<Arc<Reservation>>,
}

impl TextPass {
    /// The pass of these texts, which are of one part of a record; `None` of none.
    pub(crate) fn of(all: Vec<Texts>) -> Option<Self> {
        let first = all.first()?;
        let (text, device, together) = (Arc::clone(&first.text), first.device.clone(), all.len() > 1);
        let (mut rows, mut callers, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for (caller, texts) in all.into_iter().enumerate() {
            let each = texts.sequences.into_iter().zip(texts.skipped).enumerate();
            rows.extend(each.map(|(index, (ids, skipped))| ((caller, index), ids, skipped)));
            callers.push(texts.out);
            reserved.extend(texts.reserved);
        }
        if together {
            // As one call's are planned: longest first, so that neighbours are alike.
            rows.sort_by_key(|(_, ids, _)| Reverse(ids.len()));
        }
        let (mut places, mut sequences, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (place, ids, left_out) in rows {
            places.push(place);
            sequences.push(ids);
            skipped.push(left_out);
        }
        let unit = TextUnit::new(text, sequences, device).skipping(skipped);
        Some(Self { unit, places, callers, _reserved: reserved })
    }
}

impl Slices for TextPass {
    fn slice(&mut self, target: Option<Duration>, pace: &Pace) -> Result<bool, ItemError> {
        let Some(pooled) = slice(&mut self.unit, target, pace)? else { return Ok(false) };
        let mut back: Vec<Vec<(usize, Vec<f32>)>> = self.callers.iter().map(|_| Vec::new()).collect();
        for (&(caller, index), values) in self.places.iter().zip(pooled) {
            back[caller].push((index, values));
        }
        for (out, mut rows) in self.callers.iter().zip(back) {
            rows.sort_by_key(|(index, _)| *index);
            out.put(rows.into_iter().map(|(_, values)| values).collect());
        }
        Ok(true)
    }
}
