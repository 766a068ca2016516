//! What happens in a call, for whoever observes it: the hook that journals are written by.

use std::fmt;
use std::sync::Arc;

use omniburn_media::Truncation;
use omniburn_models::Isa;
use omniburn_models::record::{Dtype, Modality};
use omniburn_scheduler::Priority;
use serde::{Deserialize, Serialize};

use super::digest::InputDigest;
use super::input::Role;
use super::result::Embedded;
use crate::error::ItemError;

/// What happens in a call, reported to [`Request::on_event`](crate::Request::on_event).
///
/// [`CallBegun`] comes first, then, window by window, each [`UnitRan`] and each [`ItemDone`] in input order. Calls of one
/// request that run side by side mix their events; `call` tells them apart.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// A call has begun.
    Begun(CallBegun<'a>),
    /// A unit has run.
    Unit(UnitRan<'a>),
    /// An item has its result.
    Item(ItemDone<'a>),
    /// A pair of a query and a document has its score.
    Pair(PairDone<'a>),
}

/// What a call that has begun is computed with.
#[derive(Debug, Clone, Copy)]
pub struct CallBegun<'a> {
    /// Which of the engine's observed calls it is, from 0.
    pub call: u64,
    /// The embedding identity: record and task.
    pub identity: &'a str,
    /// Where it computes.
    pub device: &'a str,
    /// The type it computes products in.
    pub dtype: Dtype,
    /// Threads the CPU backend computes with; `None` where it is one a core.
    pub threads: Option<usize>,
    /// The processor's instructions it computes with; none on a device that is no CPU.
    pub instructions: Option<Isa>,
}

/// A unit of work as it ran.
#[derive(Debug, Clone, Copy)]
pub struct UnitRan<'a> {
    /// The call it belongs to.
    pub call: u64,
    /// Its class of priority.
    pub class: Priority,
    /// What it computes: `text`, `patches`, `mel`, `backbone` (of a medium), `images` or `speech`.
    pub stage: &'static str,
    /// The items computed together, in their order; an item longer than a unit stands in several.
    pub items: &'a [InputDigest],
    /// Tokens, patches or frames it begins with: those of all items, but for `images` and `speech`, which are computed
    /// one image or window after the other.
    pub rows: u64,
    /// Why it gave nothing; its items are then tried alone.
    pub error: Option<&'a ItemError>,
}

/// An item with its result.
#[derive(Debug, Clone, Copy)]
pub struct ItemDone<'a> {
    /// The call it belongs to.
    pub call: u64,
    /// Its place among the inputs of the call.
    pub index: usize,
    /// What [`Input::digest`](crate::Input::digest) gives; `None` for a file that could not be read.
    pub digest: Option<InputDigest>,
    /// What kind of input it is.
    pub modality: Modality,
    /// What it is for.
    pub role: Role,
    /// The task it was embedded for.
    pub task: &'a str,
    /// The dimension asked for; `None` for the full width.
    pub dim: Option<usize>,
    /// What was to happen to a text that is too long.
    pub truncation: Truncation,
    /// Frames asked for; `None` for the record's own number.
    pub frames: Option<u32>,
    /// Who computed it.
    pub answered: Answered,
    /// What came of it.
    pub result: &'a Result<Embedded, ItemError>,
}

/// A pair of a query and a document with its score.
#[derive(Debug, Clone, Copy)]
pub struct PairDone<'a> {
    /// The call it belongs to.
    pub call: u64,
    /// Place of the document.
    pub index: usize,
    /// Of query and document together; `None` where one could not be read.
    pub digest: Option<InputDigest>,
    /// The task it was scored for.
    pub task: &'a str,
    /// Who computed it.
    pub answered: Answered,
    /// The logit, or why there is none.
    pub result: Result<f32, &'a ItemError>,
}

/// Who computed the result of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// This call, for this item; or it failed before.
    Computed,
    /// This call, for the item at this place, which is the same.
    EqualTo(u64),
    /// An earlier call: it was in the result cache.
    Cached,
    /// Another call at the same time.
    AnotherCall,
}

/// Whoever observes the calls of a request.
#[derive(Clone)]
pub(crate) struct Observer {
    tell: Arc<dyn Fn(&CallEvent<'_>) + Send + Sync>,
    /// The call that events belong to.
    pub call: u64,
}

impl Observer {
    pub(crate) fn new(tell: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), call: 0 }
    }

    pub(crate) fn tell(&self, event: &CallEvent<'_>) {
        (self.tell)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("call", &self.call).finish_non_exhaustive()
    }
}
