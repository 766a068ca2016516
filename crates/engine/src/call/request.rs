//! How a call, or an input of it, is treated.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use omniburn_media::Truncation;
use omniburn_models::family::RowsWanted;
use omniburn_scheduler::{Cancel, Priority};

use super::digest::{InputDigest, Pieces};
use super::event::{CallEvent, Observer};
use super::input::{Input, Role};
use super::result::OutputKind;
use crate::error::ItemError;

/// How far a long call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Items finished, failed ones included.
    pub done: usize,
    /// Items in all.
    pub total: usize,
}

/// Called after each window of items of a long call.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// An input of a call, and how it is treated where that is not as the rest of the call.
///
/// Made from an [`Input`], which is treated as its call says, or from `(Input, Request)`. Role, task, dimension,
/// truncation, frames and priority are then the input's own; so are cancel and deadline, those of the call where it has
/// none, and it is isolated where either is. Progress and events are always the call's.
#[derive(Debug, Clone)]
pub struct Asked {
    pub(crate) input: Input,
    pub(crate) own: Option<Request>,
}

impl From<Input> for Asked {
    fn from(input: Input) -> Self {
        Self { input, own: None }
    }
}

impl From<(Input, Request)> for Asked {
    fn from((input, request): (Input, Request)) -> Self {
        Self { input, own: Some(request) }
    }
}

/// Where the chunks of a text begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LateChunks {
    /// At sentences or words, so that each has so many tokens at most.
    Most(NonZeroUsize),
    /// At these bytes.
    At(Vec<usize>),
}

/// How a call, or an input of it, should be treated. One path serves every verb.
#[derive(Clone, Default)]
pub struct Request {
    pub(crate) role: Role,
    pub(crate) task: Option<String>,
    pub(crate) priority: Option<Priority>,
    pub(crate) dim: Option<usize>,
    pub(crate) truncation: Truncation,
    pub(crate) frames: Option<u32>,
    pub(crate) instruction: Option<String>,
    /// Whether the vector was asked for by name.
    pub(crate) dense: bool,
    /// Whether the rows that media become are wanted.
    pub(crate) features: bool,
    /// What is wanted beside the vector.
    pub(crate) rows: RowsWanted,
    /// How a text is cut whose chunks have vectors of their own.
    pub(crate) late_chunks: Option<LateChunks>,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) progress: Option<OnProgress>,
    pub(crate) observer: Option<Observer>,
    pub(crate) isolated: bool,
}

impl Request {
    /// A request in a role; queries are interactive and everything else is background by default.
    pub fn new(role: Role) -> Self {
        Self { role, ..Self::default() }
    }

    /// What the input is for.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// A task of the record other than the engine's own.
    #[must_use]
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// One of the record's Matryoshka dimensions in place of the full width.
    #[must_use]
    pub fn dim(mut self, dim: usize) -> Self {
        self.dim = Some(dim);
        self
    }

    /// What happens to a text longer than the model reads; refused unless said otherwise.
    #[must_use]
    pub fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// Frames sampled from a video file, or from each of its segments; by default what the record says, else 32. A list of
    /// frames is taken whole.
    ///
    /// # Panics
    /// At zero.
    #[must_use]
    pub fn frames(mut self, frames: u32) -> Self {
        assert!(frames > 0, "a video is seen in at least one frame");
        self.frames = Some(frames);
        self
    }

    /// What is wanted of an item: its vector in any case, and what else the model gives of its tokens. Unless something is
    /// asked for, what the model gives first. Where [`OutputKind::Features`] alone is wanted, towers and connectors run and
    /// nothing behind them: the vector is then the unit mean of those rows.
    #[must_use]
    pub fn outputs(mut self, outputs: impl IntoIterator<Item = OutputKind>) -> Self {
        (self.dense, self.features, self.rows) = (false, false, RowsWanted::default());
        for output in outputs {
            match output {
                OutputKind::Dense => self.dense = true,
                OutputKind::Sparse => self.rows.sparse = true,
                OutputKind::Multi => self.rows.multi = true,
                OutputKind::Features => self.features = true,
            }
        }
        self
    }

    /// A vector for each chunk of a text beside that of all of it: the whole text is read in one pass, so that every row knows
    /// of all others, and the rows of each chunk are pooled for themselves. A chunk has whole sentences of so many tokens at
    /// most; a longer sentence is cut between words. Only for models whose vector is the mean of a text's rows.
    #[must_use]
    pub fn late_chunks(mut self, tokens: NonZeroUsize) -> Self {
        self.late_chunks = Some(LateChunks::Most(tokens));
        self
    }

    /// As [`Request::late_chunks`], with chunks that begin at these bytes of the text: the first is 0, each is greater than the
    /// one before it. A token that reaches over such a place belongs to the chunk behind it; a chunk without a token is
    /// refused.
    #[must_use]
    pub fn late_chunks_at(mut self, starts: impl Into<Vec<usize>>) -> Self {
        self.late_chunks = Some(LateChunks::At(starts.into()));
        self
    }

    /// What a document is wanted for, in place of the model's own instruction; only for models that are given one.
    #[must_use]
    pub fn instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = Some(instruction.into());
        self
    }

    /// A handle that stops the call at the next unit; items not done by then fail as cancelled.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// When an answer is of no use any more: items not done by then fail as cancelled, at the next unit.
    #[must_use]
    pub fn deadline(mut self, at: Instant) -> Self {
        self.deadline = Some(at);
        self
    }

    /// Called after each window of items.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Called with what happens in each call of this request: that it has begun, each unit as it has run, each item with its
    /// result. Off by default. With it every input is read once more for its digest.
    ///
    /// It is called on the thread of the caller, and waited for.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer::new(tell));
        self
    }

    /// Computed anew and apart from other calls: nothing kept is given, nothing that another call computes is waited for,
    /// no text of another caller is in a pass, and units are as large as memory lets them be, whatever the class. For
    /// measurements, and for doing a call again exactly.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Why nobody wants the result any more: [`ItemError::Cancelled`] or [`ItemError::DeadlinePassed`]; `None` where somebody
    /// does.
    pub fn over(&self) -> Option<ItemError> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Some(ItemError::Cancelled);
        }
        self.deadline.is_some_and(|at| at <= Instant::now()).then_some(ItemError::DeadlinePassed)
    }

    /// The request of one input of this call that brings its own.
    pub(crate) fn with_own(&self, own: Request) -> Self {
        Self {
            cancel: own.cancel.or_else(|| self.cancel.clone()),
            deadline: own.deadline.or(self.deadline),
            progress: self.progress.clone(),
            observer: self.observer.clone(),
            isolated: self.isolated || own.isolated,
            ..own
        }
    }

    /// Whether an input has one result under both.
    pub(crate) fn same_result(&self, other: &Self) -> bool {
        let result = |r: &Self| (r.role, r.dim, r.truncation, r.frames);
        let texts = |r: &Self| (r.rows, r.late_chunks.clone(), r.task.clone(), r.instruction.clone());
        let features = |r: &Self| (r.features, r.only_features());
        result(self) == result(other) && texts(self) == texts(other) && features(self) == features(other)
    }

    /// Whether the rows that media become are all that is wanted.
    pub(crate) fn only_features(&self) -> bool {
        self.features && !self.dense && self.rows == RowsWanted::default()
    }

    /// Whether inputs of both, within one call, may be computed as one.
    pub(crate) fn same_units(&self, other: &Self) -> bool {
        let cancel = match (&self.cancel, &other.cancel) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let when = |r: &Self| (r.resolved_priority(), r.deadline, r.isolated);
        cancel && when(self) == when(other) && self.same_result(other)
    }

    pub(crate) fn resolved_priority(&self) -> Priority {
        self.priority.unwrap_or(match self.role {
            Role::Query => Priority::Interactive,
            Role::Document | Role::None => Priority::Background,
        })
    }

    /// Digest of an input together with everything in the request that its vector depends on.
    pub(crate) fn key_of(&self, input: InputDigest, identity: &str) -> InputDigest {
        let mut pieces = Pieces::new("request");
        pieces.add(input.as_bytes());
        pieces.add(identity.as_bytes());
        pieces.number(match self.role {
            Role::Query => 0,
            Role::Document => 1,
            Role::None => 2,
        });
        pieces.number(self.dim.map_or(0, |dim| dim as u64));
        pieces.add(format!("{:?}", self.truncation).as_bytes());
        pieces.number(self.frames.unwrap_or(0).into());
        if let Some(instruction) = &self.instruction {
            pieces.add(b"instruction");
            pieces.add(instruction.as_bytes());
        }
        if self.rows != RowsWanted::default() {
            pieces.add(format!("{:?}", self.rows).as_bytes());
        }
        if let Some(tokens) = &self.late_chunks {
            pieces.add(b"late chunks");
            match tokens {
                LateChunks::Most(tokens) => pieces.number(tokens.get() as u64),
                LateChunks::At(starts) => {
                    pieces.add(b"at");
                    pieces.number(starts.len() as u64);
                    starts.iter().for_each(|start| pieces.number(*start as u64));
                }
            }
        }
        if self.features {
            pieces.add(b"features");
            if self.only_features() {
                pieces.add(b"alone");
            }
        }
        pieces.finish()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("role", &self.role)
            .field("task", &self.task)
            .field("priority", &self.resolved_priority())
            .field("dim", &self.dim)
            .field("truncation", &self.truncation)
            .field("frames", &self.frames)
            .field("instruction", &self.instruction)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_where_the_vector_depends_on_it() {
        let input = Input::text("a").digest().unwrap();
        let base = Request::new(Role::Document);
        let key = |request: &Request| request.key_of(input, "identity");
        let others = [
            Request::new(Role::Query),
            base.clone().dim(64),
            base.clone().truncation(Truncation::Left),
            base.clone().frames(8),
            base.clone().instruction(""),
            base.clone().instruction("find"),
            base.clone().outputs([OutputKind::Sparse]),
            base.clone().outputs([OutputKind::Dense, OutputKind::Multi]),
            base.clone().outputs([OutputKind::Features]),
            base.clone().outputs([OutputKind::Features, OutputKind::Dense]),
        ];
        assert!(others.iter().all(|other| key(other) != key(&base)));
        let [alone, beside] = [key(&others[8]), key(&others[9])];
        assert_ne!(alone, beside);
        assert!(!others[8].same_result(&others[9]) && others[8].only_features() && !others[9].only_features());
        assert_ne!(base.key_of(input, "another"), key(&base));
        assert_eq!(key(&base.clone().priority(Priority::Interactive)), key(&base));
    }
}
