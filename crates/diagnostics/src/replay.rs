//! A journalled call done again: every item alone and in the batch it was in, compared by the digests of the vectors.
//!
//! What a journal holds is `journal`'s. Here nothing is computed in a way of its own: a replay is a row of ordinary
//! calls that take nothing from a cache, and whose units are as large as memory lets them be.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use omniburn::kernels::Isa;
use omniburn::{
    Cancel, Engine, EngineError, ErrorKind, Input, InputDigest, Priority, Progress, Request, Role, Truncation,
};
use rayon::prelude::*;

use crate::journal::{
    ItemOutcome, JOURNAL_FORMAT, JournalEntry, JournalItem, JournalOpen, JournalUnit, journal, platform,
};

/// How a replay is run; what each item is asked for stands in the journal.
#[derive(Clone, Default)]
pub struct ReplayOptions {
    /// Ends it at the next unit.
    pub cancel: Option<Cancel>,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
    /// How urgent it is; `None`: as each item's role says.
    pub priority: Option<Priority>,
    /// Called after each batch of items.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for ReplayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayOptions")
            .field("deadline", &self.deadline)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// Why a journal is not done again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The engine refused what the journal asks for, or the replay was given up: [`EngineError::Item`] has the place of the
    /// input.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is of another record.
    #[error("the journal is of `{logged}`, this engine is `{opened}`")]
    IdentityMismatch {
        /// The embedding identity in the journal.
        logged: String,
        /// That of this engine for the same task.
        opened: String,
    },
    /// It is of a layout that this version does not know.
    #[error("the journal is of format {found}, this version reads {expected}")]
    JournalFormat {
        /// The format in the journal.
        found: u32,
        /// The format known here.
        expected: u32,
    },
    /// It names a call that it does not open.
    #[error("entry {entry} of the journal is of call {call}, which no entry before it opens")]
    JournalCall {
        /// Place of the entry, from 0.
        entry: usize,
        /// The call.
        call: u64,
    },
}

/// What [`replay`] found.
#[derive(Debug, Clone, Default)]
pub struct ReplayReport {
    /// Logged items whose result is the same to the bit, alone and in every batch they were in.
    pub equal: usize,
    /// Logged items whose result is another.
    pub different: Vec<ReplayDifference>,
    /// Logged items whose input was not among those given.
    pub missing: Vec<JournalItem>,
    /// Logged items without a result of their own: unreadable then, cancelled, refused for want of memory or of a place in
    /// the queue, or lost to the device.
    pub not_compared: usize,
    /// Units of several items that were done again with the same items.
    pub batches: usize,
    /// Those of them that ran as one unit again, in the same order.
    pub whole_batches: usize,
    /// Units of several items of which some input was not given.
    pub missing_batches: usize,
    /// Inputs given that the journal does not hold.
    pub not_logged: usize,
    /// What is otherwise than it was when the journal was written, in words.
    pub environment_changes: Vec<String>,
}

impl ReplayReport {
    /// Whether nothing differs and nothing is missing.
    pub fn all_equal(&self) -> bool {
        self.different.is_empty() && self.missing.is_empty()
    }
}

/// An item whose result is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayDifference {
    /// The item as logged.
    pub item: JournalItem,
    /// How it was done again.
    pub how: Replayed,
    /// What came of it.
    pub found: ItemOutcome,
}

/// How an item was done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// With no other.
    Alone,
    /// Beside these, itself among them.
    Together(Vec<InputDigest>),
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replayed::Alone => f.write_str("alone"),
            Replayed::Together(items) => write!(f, "with {} others", items.len().saturating_sub(1)),
        }
    }
}

/// What an input was asked for, as far as its vector depends on it.
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    role: Role,
    task: String,
    dim: Option<usize>,
    truncation: Truncation,
    frames: Option<u32>,
}

/// An input with the settings it was embedded with.
struct Subject {
    digest: InputDigest,
    settings: Settings,
    /// Its place among the inputs given.
    input: Option<usize>,
    /// Whether that input was found changed when its turn came.
    changed: bool,
    /// What came of it each time.
    found: Vec<(Replayed, ItemOutcome)>,
}

/// A journal, read.
#[derive(Default)]
struct Log<'a> {
    subjects: Vec<Subject>,
    /// Every item, with its subject where there is something to compare.
    items: Vec<(&'a JournalItem, Option<usize>)>,
    /// Subjects that shared a unit, in its order.
    batches: Vec<Vec<usize>>,
    environment_changes: Vec<String>,
}

/// Does what a journal says again, each item alone and with the items it shared a unit with, and compares vectors to the bit.
/// Inputs are matched with the journal by their digests; their order is of no account.
///
/// Another device, type or platform than the journal's is a line of the report and no refusal.
///
/// # Errors
/// [`ReplayError::IdentityMismatch`], [`ReplayError::JournalFormat`], [`ReplayError::JournalCall`],
/// [`EngineError::UnknownTask`] or [`EngineError::UnknownDim`] before anything is computed; [`EngineError::Item`] with the
/// place of the input where the replay was cancelled or its deadline passed.
pub fn replay(
    engine: &Engine,
    entries: &[JournalEntry],
    inputs: &[Input],
    options: &ReplayOptions,
) -> Result<ReplayReport, ReplayError> {
    let mut log = Log::read(engine, entries, options)?;
    let digests: Vec<Option<InputDigest>> = inputs.par_iter().map(Input::digest).collect();
    let mut places = HashMap::new();
    for (place, digest) in digests.iter().enumerate().filter_map(|(place, digest)| Some((place, (*digest)?))) {
        places.entry(digest).or_insert(place);
    }
    log.subjects.iter_mut().for_each(|subject| subject.input = places.get(&subject.digest).copied());

    let logged: HashSet<InputDigest> = log.items.iter().filter_map(|(item, _)| item.digest).collect();
    let not_logged = digests.iter().filter(|digest| digest.is_none_or(|digest| !logged.contains(&digest))).count();
    let mut report = ReplayReport {
        environment_changes: std::mem::take(&mut log.environment_changes),
        not_logged,
        ..Default::default()
    };
    let there = |log: &Log, batch: &[usize]| batch.iter().all(|&s| log.subjects[s].input.is_some());
    let batches = std::mem::take(&mut log.batches);
    let (whole, broken): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| there(&log, batch));
    report.missing_batches = broken.len();
    let alone: Vec<Vec<usize>> = (0..log.subjects.len()).map(|s| vec![s]).filter(|s| there(&log, s)).collect();
    let (mut done, total) = (0, alone.len() + whole.len());
    for batch in alone.iter().chain(&whole) {
        let units = log.run(engine, batch, inputs, options)?;
        if batch.len() > 1 {
            let digests: Vec<InputDigest> = batch.iter().map(|&s| log.subjects[s].digest).collect();
            report.batches += 1;
            report.whole_batches += usize::from(units.iter().any(|unit| unit.items == digests));
        }
        done += 1;
        if let Some(progress) = &options.progress {
            progress(Progress { done, total });
        }
    }
    log.judge(&mut report);
    Ok(report)
}

/// What is otherwise here than where a call was logged, in words.
fn environment_changes(engine: &Engine, logged: &JournalOpen) -> Vec<String> {
    let here = engine.profile();
    let threads = |threads: Option<usize>| threads.map_or("one a core".into(), |n| n.to_string());
    // Journals from before instructions were noted say nothing of them.
    let instructions = |isa: Option<Isa>| isa.map_or("none".into(), |isa| isa.to_string());
    let pairs = [
        ("version", logged.version.clone(), env!("CARGO_PKG_VERSION").to_string()),
        ("device", logged.device.clone(), here.device),
        ("type", logged.dtype.to_string(), here.dtype.to_string()),
        ("threads", threads(logged.threads), threads(here.threads)),
        ("instructions", instructions(logged.instructions.or(here.instructions)), instructions(here.instructions)),
        ("platform", logged.platform.clone(), platform()),
    ];
    let others = pairs.into_iter().filter(|(_, logged, here)| logged != here);
    others.map(|(what, logged, here)| format!("{what}: logged with {logged}, here {here}")).collect()
}

/// Whether a result depends on more than the input and the record, so that there is nothing to compare.
fn of_circumstance(result: &ItemOutcome) -> bool {
    matches!(
        result,
        ItemOutcome::Error(ErrorKind::Cancelled | ErrorKind::OverBudget | ErrorKind::Overloaded | ErrorKind::Device)
    )
}

impl<'a> Log<'a> {
    fn read(engine: &Engine, entries: &'a [JournalEntry], options: &ReplayOptions) -> Result<Self, ReplayError> {
        let mut log = Log::default();
        // A number of a call counts from its opening to the next with the same number: journals may be put together.
        let (mut calls, mut opened) = (HashMap::new(), 0usize);
        // Those of one content, of which there are few.
        let mut subjects: HashMap<InputDigest, Vec<usize>> = HashMap::new();
        // Several where a call has one content in several roles or the like.
        let mut members: HashMap<(usize, InputDigest), Vec<usize>> = HashMap::new();
        let mut units = Vec::new();
        for (entry, event) in entries.iter().enumerate() {
            let call_of = |calls: &HashMap<u64, usize>, call: u64| {
                calls.get(&call).copied().ok_or(ReplayError::JournalCall { entry, call })
            };
            match event {
                JournalEntry::Open(open) => {
                    if open.format != JOURNAL_FORMAT {
                        return Err(ReplayError::JournalFormat { found: open.format, expected: JOURNAL_FORMAT });
                    }
                    let task = open.identity.rsplit('/').next().unwrap_or_default();
                    let here = engine.identity(task);
                    if here != open.identity {
                        return Err(ReplayError::IdentityMismatch { logged: open.identity.clone(), opened: here });
                    }
                    calls.insert(open.call, opened);
                    opened += 1;
                    for change in environment_changes(engine, open) {
                        if !log.environment_changes.contains(&change) {
                            log.environment_changes.push(change);
                        }
                    }
                }
                JournalEntry::Unit(unit) => {
                    let call = call_of(&calls, unit.call)?;
                    if unit.error.is_none() && unit.items.len() > 1 {
                        units.push((call, unit));
                    }
                }
                JournalEntry::Item(item) => {
                    let call = call_of(&calls, item.call)?;
                    let Some(digest) = item.digest.filter(|_| !of_circumstance(&item.result)) else {
                        log.items.push((item, None));
                        continue;
                    };
                    let settings = Settings::of(item);
                    // Nothing is computed, but what the record lacks is refused.
                    engine.embed_with(&[], &settings.request(options))?;
                    let of_digest = subjects.entry(digest).or_default();
                    let known = of_digest.iter().copied().find(|&s| log.subjects[s].settings == settings);
                    let subject = known.unwrap_or_else(|| {
                        let (input, changed, found) = (None, false, Vec::new());
                        log.subjects.push(Subject { digest, settings, input, changed, found });
                        of_digest.push(log.subjects.len() - 1);
                        log.subjects.len() - 1
                    });
                    let of_content = members.entry((call, digest)).or_default();
                    if !of_content.contains(&subject) {
                        of_content.push(subject);
                    }
                    log.items.push((item, Some(subject)));
                }
            }
        }
        let mut seen = HashSet::new();
        for (call, unit) in units {
            // Items without a result, such as those of a call that was given up, are nobody's batch mates. What shares a
            // unit has one request but for its content.
            let member = |digest: &InputDigest| members.get(&(call, *digest)).map_or(&[][..], Vec::as_slice);
            let settings = |&s: &usize| &log.subjects[s].settings;
            let mut batches: Vec<Vec<usize>> = Vec::new();
            for &subject in unit.items.iter().flat_map(member) {
                match batches.iter_mut().find(|batch| settings(&batch[0]) == settings(&subject)) {
                    Some(batch) => batch.push(subject),
                    None => batches.push(vec![subject]),
                }
            }
            for batch in batches {
                if batch.len() > 1 && seen.insert(batch.clone()) {
                    log.batches.push(batch);
                }
            }
        }
        Ok(log)
    }

    /// Computes subjects in one call, keeps what came of each, and gives the units that ran.
    fn run(
        &mut self,
        engine: &Engine,
        batch: &[usize],
        inputs: &[Input],
        options: &ReplayOptions,
    ) -> Result<Vec<JournalUnit>, ReplayError> {
        let place = |s: usize| self.subjects[s].input.expect("only what is there is run");
        let given: Vec<Input> = batch.iter().map(|&s| inputs[place(s)].clone()).collect();
        let entries: Arc<Mutex<Vec<JournalEntry>>> = Arc::default();
        let sink = Arc::clone(&entries);
        let request = journal(self.subjects[batch[0]].settings.request(options), move |entry| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        });
        let results = engine.embed_with(&given, &request)?;
        for (&subject, result) in batch.iter().zip(results) {
            if let (Err(source), Some(_)) = (result, request.over()) {
                return Err(EngineError::Item { index: place(subject), source }.into());
            }
        }
        let mut units = Vec::new();
        for entry in entries.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            match entry {
                JournalEntry::Open(_) => {}
                JournalEntry::Unit(unit) => units.push(unit),
                JournalEntry::Item(item) => {
                    let how = match batch {
                        [_] => Replayed::Alone,
                        _ => Replayed::Together(batch.iter().map(|&s| self.subjects[s].digest).collect()),
                    };
                    let subject = &mut self.subjects[batch[item.index as usize]];
                    if item.digest == Some(subject.digest) {
                        subject.found.push((how, item.result));
                    } else {
                        // A file that was written to since it was matched.
                        subject.changed = true;
                    }
                }
            }
        }
        Ok(units)
    }

    fn judge(self, report: &mut ReplayReport) {
        for (item, subject) in self.items {
            let Some(subject) = subject.map(|subject| &self.subjects[subject]) else {
                report.not_compared += 1;
                continue;
            };
            if subject.input.is_none() || subject.changed {
                report.missing.push(item.clone());
                continue;
            }
            match subject.found.iter().find(|(_, found)| *found != item.result) {
                None => report.equal += 1,
                Some((how, found)) => {
                    report.different.push(ReplayDifference {
                        item: item.clone(),
                        how: how.clone(),
                        found: found.clone(),
                    });
                }
            }
        }
    }
}

impl Settings {
    fn of(item: &JournalItem) -> Self {
        let (role, task, dim, truncation) = (item.role, item.task.clone(), item.dim, item.truncation);
        Self { role, task, dim, truncation, frames: item.frames.map(Into::into) }
    }

    /// The request of a logged item, with what is the caller's of today.
    fn request(&self, options: &ReplayOptions) -> Request {
        let mut request = Request::new(self.role).task(&self.task).truncation(self.truncation).isolated();
        if let Some(dim) = self.dim {
            request = request.dim(dim);
        }
        if let Some(frames) = self.frames {
            request = request.frames(frames);
        }
        if let Some(priority) = options.priority {
            request = request.priority(priority);
        }
        if let Some(cancel) = &options.cancel {
            request = request.cancel(cancel.clone());
        }
        if let Some(deadline) = options.deadline {
            request = request.deadline(deadline);
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use omniburn::probe::Answered;
    use omniburn::{Embedding, Modality};

    use super::*;
    use crate::journal::VectorDigest;

    #[test]
    fn an_item_that_differs_in_one_company_only_is_found_there() {
        let vector = |x| ItemOutcome::Vector(VectorDigest::of(&Embedding::from_raw(vec![x, 1.0]).unwrap()));
        let digest = Input::text("a").digest().unwrap();
        let item = |result| JournalItem {
            call: 0,
            index: 0,
            digest: Some(digest),
            modality: Modality::Text,
            role: Role::None,
            task: "base".into(),
            dim: None,
            truncation: Default::default(),
            frames: None,
            tokens: None,
            answered: Answered::Computed,
            result,
        };
        let (right, wrong) = (item(vector(1.0)), item(vector(1.0 + f32::EPSILON)));
        let batch = Replayed::Together(vec![digest, digest]);
        let found = vec![(Replayed::Alone, vector(1.0)), (batch.clone(), vector(2.0)), (Replayed::Alone, vector(1.0))];
        let subject = |input, found: &[(Replayed, ItemOutcome)]| Subject {
            digest,
            settings: Settings::of(&right),
            input,
            changed: false,
            found: found.to_vec(),
        };
        let log = Log {
            subjects: vec![subject(Some(0), &found[..1]), subject(Some(0), &found), subject(None, &[])],
            items: vec![(&right, Some(0)), (&wrong, Some(0)), (&right, Some(1)), (&right, Some(2)), (&right, None)],
            ..Log::default()
        };
        let mut report = ReplayReport::default();
        log.judge(&mut report);
        assert_eq!((report.equal, report.missing.len(), report.not_compared), (1, 1, 1));
        let different = [
            ReplayDifference { item: wrong.clone(), how: Replayed::Alone, found: vector(1.0) },
            ReplayDifference { item: right.clone(), how: batch, found: vector(2.0) },
        ];
        assert_eq!(report.different, different);
        assert!(!report.all_equal());
    }
}
