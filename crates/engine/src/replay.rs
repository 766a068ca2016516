//! A journalled call done again: every item alone and in the company it had, compared by the digests of the vectors.
//!
//! What a journal holds is `journal`'s. Here nothing is computed in a way of its own: a replay is a row of ordinary
//! calls that take nothing from a cache, and whose units are as large as memory lets them be.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind};
use crate::journal::{ItemOutcome, JOURNAL_FORMAT, JournalEntry, JournalItem, JournalOpen, JournalUnit};
use crate::key::InputDigest;
use crate::request::{Input, Progress, Request};

/// What [`Engine::replay`] found.
#[derive(Debug, Clone, Default)]
pub struct ReplayReport {
    /// Logged items whose result is the same to the bit, alone and in every company they had.
    pub equal: usize,
    /// Logged items whose result is another.
    pub different: Vec<ReplayDifference>,
    /// Logged items whose input was not among those given.
    pub missing: Vec<JournalItem>,
    /// Logged items without a result of their own: unreadable then, cancelled, refused for want of memory or of a place in
    /// the queue, or lost to the device.
    pub not_compared: usize,
    /// Units of several items that were done again with the same items.
    pub companies: usize,
    /// Those of them that ran as one unit again, in the same order.
    pub companies_whole: usize,
    /// Units of several items of which some input was not given.
    pub companies_missing: usize,
    /// Inputs given that the journal does not hold.
    pub not_logged: usize,
    /// What is otherwise than it was when the journal was written, in words.
    pub elsewhere: Vec<String>,
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

/// An input with the settings it was embedded with.
struct Subject {
    digest: InputDigest,
    request: Request,
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
    companies: Vec<Vec<usize>>,
    elsewhere: Vec<String>,
}

impl Engine {
    /// Does what a journal says again, each item alone and with the items it shared a unit with, and compares vectors to
    /// the bit. Inputs are matched with the journal by their digests; their order is of no account.
    ///
    /// From `request` come cancel, deadline, priority and progress; role, task, dimension and the like are the journal's.
    /// Another device, type or platform than the journal's is told in the report and not refused.
    ///
    /// # Errors
    /// [`EngineError::IdentityMismatch`], [`EngineError::JournalFormat`], [`EngineError::JournalCall`],
    /// [`EngineError::UnknownTask`] or [`EngineError::UnknownDim`] before anything is computed; [`EngineError::Item`] with
    /// the place of the input where the request was cancelled or its deadline passed.
    pub fn replay(
        &self,
        entries: &[JournalEntry],
        inputs: &[Input],
        request: &Request,
    ) -> Result<ReplayReport, EngineError> {
        let mut log = Log::read(self, entries, request)?;
        let digests: Vec<Option<InputDigest>> = inputs.par_iter().map(Input::digest).collect();
        let mut places = HashMap::new();
        for (place, digest) in digests.iter().enumerate().filter_map(|(place, digest)| Some((place, (*digest)?))) {
            places.entry(digest).or_insert(place);
        }
        log.subjects.iter_mut().for_each(|subject| subject.input = places.get(&subject.digest).copied());

        let logged: HashSet<InputDigest> = log.items.iter().filter_map(|(item, _)| item.digest).collect();
        let not_logged = digests.iter().filter(|digest| digest.is_none_or(|digest| !logged.contains(&digest))).count();
        let mut report =
            ReplayReport { elsewhere: std::mem::take(&mut log.elsewhere), not_logged, ..Default::default() };
        let there = |log: &Log, company: &[usize]| company.iter().all(|&s| log.subjects[s].input.is_some());
        let companies = std::mem::take(&mut log.companies);
        let (whole, broken): (Vec<_>, Vec<_>) = companies.into_iter().partition(|company| there(&log, company));
        report.companies_missing = broken.len();
        let alone: Vec<Vec<usize>> = (0..log.subjects.len()).map(|s| vec![s]).filter(|s| there(&log, s)).collect();
        let (mut done, total) = (0, alone.len() + whole.len());
        for company in alone.iter().chain(&whole) {
            let units = log.run(self, company, inputs)?;
            if company.len() > 1 {
                let digests: Vec<InputDigest> = company.iter().map(|&s| log.subjects[s].digest).collect();
                report.companies += 1;
                report.companies_whole += usize::from(units.iter().any(|unit| unit.items == digests));
            }
            done += 1;
            if let Some(progress) = &request.progress {
                progress(Progress { done, total });
            }
        }
        log.judge(&mut report);
        Ok(report)
    }

    /// What is otherwise here than where a call was logged, in words.
    fn elsewhere(&self, logged: &JournalOpen) -> Vec<String> {
        let here = self.journal_open(logged.call, "");
        let threads = |open: &JournalOpen| open.threads.map_or("one a core".into(), |n| n.to_string());
        let pairs = [
            ("version", logged.version.clone(), here.version.clone()),
            ("device", logged.device.clone(), here.device.clone()),
            ("type", logged.dtype.to_string(), here.dtype.to_string()),
            ("threads", threads(logged), threads(&here)),
            ("platform", logged.platform.clone(), here.platform.clone()),
        ];
        let others = pairs.into_iter().filter(|(_, logged, here)| logged != here);
        others.map(|(what, logged, here)| format!("{what}: logged with {logged}, here {here}")).collect()
    }
}

/// Whether a result depends on more than the input and the record, so that there is nothing to compare.
fn of_circumstance(result: &ItemOutcome) -> bool {
    matches!(
        result,
        ItemOutcome::Error(ErrorKind::Cancelled | ErrorKind::OverBudget | ErrorKind::Overloaded | ErrorKind::Device)
    )
}

impl<'a> Log<'a> {
    fn read(engine: &Engine, entries: &'a [JournalEntry], request: &Request) -> Result<Self, EngineError> {
        let mut log = Log::default();
        // A number of a call counts from its opening to the next with the same number: journals may be put together.
        let (mut calls, mut opened) = (HashMap::new(), 0usize);
        let mut subjects: HashMap<InputDigest, usize> = HashMap::new();
        let mut members: HashMap<(usize, InputDigest), usize> = HashMap::new();
        let mut units = Vec::new();
        for (entry, event) in entries.iter().enumerate() {
            let call_of = |calls: &HashMap<u64, usize>, call: u64| {
                calls.get(&call).copied().ok_or(EngineError::JournalCall { entry, call })
            };
            match event {
                JournalEntry::Open(open) => {
                    if open.format != JOURNAL_FORMAT {
                        return Err(EngineError::JournalFormat { found: open.format, expected: JOURNAL_FORMAT });
                    }
                    let task = open.identity.rsplit('/').next().unwrap_or_default();
                    let here = engine.identity(task);
                    if here != open.identity {
                        return Err(EngineError::IdentityMismatch { logged: open.identity.clone(), opened: here });
                    }
                    calls.insert(open.call, opened);
                    opened += 1;
                    for told in engine.elsewhere(open) {
                        if !log.elsewhere.contains(&told) {
                            log.elsewhere.push(told);
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
                    let asked = as_logged(item, request);
                    engine.check(&asked)?;
                    let subject = *subjects.entry(asked.key_of(digest, &item.task)).or_insert_with(|| {
                        log.subjects.push(Subject {
                            digest,
                            request: asked,
                            input: None,
                            changed: false,
                            found: Vec::new(),
                        });
                        log.subjects.len() - 1
                    });
                    members.insert((call, digest), subject);
                    log.items.push((item, Some(subject)));
                }
            }
        }
        let mut seen = HashSet::new();
        for (call, unit) in units {
            // Items without a result, such as those of a call that was given up, are no company for others.
            let member = |digest: &InputDigest| members.get(&(call, *digest)).copied();
            let company: Vec<usize> = unit.items.iter().filter_map(member).collect();
            if company.len() > 1 && seen.insert(company.clone()) {
                log.companies.push(company);
            }
        }
        Ok(log)
    }

    /// Computes subjects in one call, keeps what came of each, and gives the units that ran.
    fn run(&mut self, engine: &Engine, company: &[usize], inputs: &[Input]) -> Result<Vec<JournalUnit>, EngineError> {
        let place = |s: usize| self.subjects[s].input.expect("only what is there is run");
        let given: Vec<Input> = company.iter().map(|&s| inputs[place(s)].clone()).collect();
        let entries: Arc<Mutex<Vec<JournalEntry>>> = Arc::default();
        let sink = Arc::clone(&entries);
        let request = self.subjects[company[0]].request.clone().journal(move |entry| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        });
        let results = engine.embed_with(&given, &request)?;
        for (&subject, result) in company.iter().zip(results) {
            if let (Err(source), Some(_)) = (result, request.over()) {
                return Err(EngineError::Item { index: place(subject), source });
            }
        }
        let mut units = Vec::new();
        for entry in entries.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            match entry {
                JournalEntry::Open(_) => {}
                JournalEntry::Unit(unit) => units.push(unit),
                JournalEntry::Item(item) => {
                    let how = match company {
                        [_] => Replayed::Alone,
                        _ => Replayed::Together(company.iter().map(|&s| self.subjects[s].digest).collect()),
                    };
                    let subject = &mut self.subjects[company[item.index as usize]];
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

/// The request of a logged item, with what is the caller's of today.
fn as_logged(item: &JournalItem, request: &Request) -> Request {
    Request {
        role: item.role,
        task: Some(item.task.clone()),
        dim: item.dim,
        truncation: item.truncation,
        frames: item.frames.map(Into::into),
        priority: request.priority,
        cancel: request.cancel.clone(),
        deadline: request.deadline,
        progress: None,
        journal: None,
        replay: true,
    }
}

#[cfg(test)]
mod tests {
    use omniburn_models::record::Modality;

    use super::*;
    use crate::embedding::Embedding;
    use crate::journal::{Answered, VectorDigest};
    use crate::request::Role;

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
        let company = Replayed::Together(vec![digest, digest]);
        let found =
            vec![(Replayed::Alone, vector(1.0)), (company.clone(), vector(2.0)), (Replayed::Alone, vector(1.0))];
        let subject = |input, found: &[(Replayed, ItemOutcome)]| Subject {
            digest,
            request: Request::default(),
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
            ReplayDifference { item: right.clone(), how: company, found: vector(2.0) },
        ];
        assert_eq!(report.different, different);
        assert!(!report.all_equal());
    }
}
