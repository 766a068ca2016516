//! Many inputs through an engine: what is prepared ahead, what is computed together, results in order.
//!
//! A call goes window by window: as many items as the memory budget lets be alive at once are prepared side by side, while
//! the device computes the window before. Equal inputs of a window are computed once; so is an input that another call
//! is computing at the moment.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use omniburn_media::MediaError;
use omniburn_models::record::Modality;
use omniburn_scheduler::Priority;
use rayon::prelude::*;
use tracing::Span;

use super::open::{Session, Wanted};
use super::run::{self, Item};
use crate::cache::{Flight, Lead, Turn};
use crate::call::{
    Answer, Answered, Asked, CallEvent, Embedded, Files, Input, InputDigest, ItemDone, PairDone, Progress, Request,
    Scored,
};
use crate::error::ItemError;
use crate::memory::Reservation;
use crate::prepare::{ItemEstimate, Prepared};

/// Items of a window at most, and rows (tokens, patches or mel frames) after which it takes no more: enough to pack units
/// well, few enough that results keep flowing in a long job.
const WINDOW_ITEMS: usize = 256;
const WINDOW_ROWS: usize = 8192;
/// Items looked at side by side.
const INSPECTED_TOGETHER: usize = 8;

/// Results of [`Engine::embed_iter`](crate::Engine::embed_iter), in input order.
///
/// Inputs are taken a window at a time: as many as the memory budget lets be alive together. The next window is read and
/// decoded while the device computes the present one. Dropped, it stops at the next unit.
pub struct EmbedIter<I> {
    stream: Stream<I>,
    ready: VecDeque<Result<Embedded, ItemError>>,
}

impl<I: Iterator<Item: Into<Asked>>> EmbedIter<I> {
    pub(crate) fn new(session: Arc<Session>, inputs: I, request: Request) -> Self {
        Self { stream: Stream::new(session, inputs, request), ready: VecDeque::new() }
    }
}

impl<I: Iterator<Item: Into<Asked>>> Iterator for EmbedIter<I> {
    type Item = Result<Embedded, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.ready.extend(self.stream.window().into_iter().map(|result| result.map(Answer::into_vector)));
        }
        self.ready.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (ready, (least, most)) = (self.ready.len(), self.stream.left());
        (ready + least, most.map(|most| ready + most))
    }
}

impl<I> std::fmt::Debug for EmbedIter<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedIter").field("request", &self.stream.request).field("ready", &self.ready.len()).finish()
    }
}

/// A call of any length on its way through the engine.
pub(crate) struct Stream<I> {
    session: Arc<Session>,
    inputs: I,
    /// Of the call.
    request: Arc<Request>,
    /// Looked at, and waiting for room in a window.
    inspected: VecDeque<Inspected>,
    /// The next window, being prepared.
    ahead: Window,
    done: usize,
    /// Set when nobody wants the results any more.
    abandoned: Arc<AtomicBool>,
}

/// An input whose header was read.
struct Inspected {
    key: Option<InputDigest>,
    /// Of the content, where the call is observed.
    digest: Option<InputDigest>,
    place: Option<Place>,
    input: Input,
    request: Arc<Request>,
    what: Result<Known, ItemError>,
}

/// A file input as it stood when its digest was taken; only where results are kept.
struct Place {
    input: Input,
    place: InputDigest,
}

/// What is known of an input before it is decoded.
enum Known {
    /// A text is its tokens already, which took so long.
    Ready(Prepared, Duration),
    /// A medium with the memory it takes; it is decoded when there is room for it.
    Later(ItemEstimate),
}

/// Items that will be computed together.
#[derive(Default)]
struct Window {
    entries: Vec<Entry>,
    /// Where an input first stands in this window.
    first: HashMap<InputDigest, usize>,
    /// Digest, kind and request of each entry, where the call is observed; no kind of a pair.
    logged: Vec<(Option<InputDigest>, Option<Modality>, Arc<Request>)>,
    rows: usize,
}

enum Entry {
    /// Failed before anything was computed, or found in the cache.
    Known(Box<Result<Answer, ItemError>>),
    /// The same as an earlier entry.
    Duplicate(usize),
    /// Being prepared.
    Item { slot: Arc<Slot>, request: Arc<Request>, key: Option<InputDigest>, place: Option<Place> },
}

/// A place where a prepared item arrives.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    arrived: Condvar,
}

#[derive(Default)]
enum SlotState {
    /// Nobody has begun.
    Waiting(Box<dyn FnOnce() -> Arrived + Send>),
    /// Somebody is at it.
    #[default]
    Begun,
    Arrived(Arrived),
}

/// An item, how long it took, and its memory.
type Arrived = (Result<Prepared, ItemError>, Duration, Reservation);

impl Slot {
    fn new(work: impl FnOnce() -> Arrived + Send + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(SlotState::Waiting(Box::new(work))), arrived: Condvar::new() })
    }

    /// Prepares the item here if nobody has begun.
    fn run(&self) {
        let state = std::mem::take(&mut *self.lock());
        let arrived = match state {
            SlotState::Waiting(work) => work(),
            SlotState::Arrived(arrived) => arrived,
            SlotState::Begun => return,
        };
        *self.lock() = SlotState::Arrived(arrived);
        self.arrived.notify_all();
    }

    /// The item, prepared here where nobody has begun.
    fn take(&self) -> Arrived {
        self.run();
        let mut state = self.lock();
        loop {
            match std::mem::take(&mut *state) {
                SlotState::Arrived(arrived) => return arrived,
                _ => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Drop for Stream<I> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl<I> Stream<I> {
    fn wanted(&self) -> bool {
        self.request.over().is_none()
    }
}

impl<I: Iterator<Item: Into<Asked>>> Stream<I> {
    pub(crate) fn new(session: Arc<Session>, inputs: I, mut request: Request) -> Self {
        session.begin_call(&mut request);
        let (inspected, ahead, abandoned) = (VecDeque::new(), Window::default(), Arc::default());
        Self { session, inputs, request: Arc::new(request), inspected, ahead, done: 0, abandoned }
    }

    /// How many results are still to come, as far as the inputs tell.
    fn left(&self) -> (usize, Option<usize>) {
        let taken = self.inspected.len() + self.ahead.entries.len();
        let (least, most) = self.inputs.size_hint();
        (least + taken, most.map(|most| most + taken))
    }

    /// The results of the next window, in order; none when the inputs have ended.
    pub(crate) fn window(&mut self) -> Vec<Result<Answer, ItemError>> {
        let mut window = std::mem::take(&mut self.ahead);
        if window.entries.is_empty() {
            window = self.fill(true);
        }
        if window.entries.is_empty() {
            return Vec::new();
        }
        // A single query has nothing behind it, and its inputs are not asked for more.
        let more = self.wanted() && (!self.inspected.is_empty() || self.inputs.size_hint().1 != Some(0));
        if more {
            window.start(0);
            self.ahead = self.fill(false);
            self.ahead.start(0);
        }
        let results = self.compute(window);
        self.done += results.len();
        if let Some(progress) = &self.request.progress {
            let total = self.done + self.left().0;
            progress(Progress { done: self.done, total });
        }
        results
    }

    /// Takes inputs while there is room for them. With empty hands the first of them is waited for; a caller that holds
    /// something takes what is free.
    fn fill(&mut self, empty_handed: bool) -> Window {
        let mut window = Window::default();
        let mut begun = 0;
        while window.entries.len() < WINDOW_ITEMS && window.rows < WINDOW_ROWS {
            if self.inspected.is_empty() {
                self.inspect_next();
            }
            let Some(inspected) = self.inspected.pop_front() else { break };
            let wait = empty_handed && window.holds_nothing();
            let modality = (!inspected.input.is_pair()).then(|| inspected.input.modality());
            let about = (inspected.digest, modality, Arc::clone(&inspected.request));
            let admitted = self.admit(inspected, &mut window, wait);
            if admitted.is_none() && self.request.observer.is_some() {
                window.logged.push(about);
            }
            match admitted {
                // From the second item on they are prepared side by side.
                None if window.entries.len() > 1 => {
                    window.start(begun);
                    begun = window.entries.len();
                }
                None => {}
                Some(inspected) => {
                    self.inspected.push_front(inspected);
                    break;
                }
            }
        }
        window
    }

    /// Reads the headers of the next inputs, side by side.
    fn inspect_next(&mut self) {
        let call = &self.request;
        let of_call = |Asked { input, own }| match own {
            None => (input, Arc::clone(call)),
            Some(own) => (input, Arc::new(call.with_own(own))),
        };
        let asked = self.inputs.by_ref().take(INSPECTED_TOGETHER).map(Into::into);
        let asked: Vec<(Input, Arc<Request>)> = asked.map(of_call).collect();
        let session = &self.session;
        match asked.len() {
            0 => {}
            1 => self.inspected.extend(asked.into_iter().map(|asked| inspect(session, asked))),
            _ => {
                let traced = Span::current();
                let inspect = |asked| traced.in_scope(|| inspect(session, asked));
                let inspected: Vec<Inspected> = asked.into_par_iter().map(inspect).collect();
                self.inspected.extend(inspected);
            }
        }
    }

    /// Puts an input into the window; gives it back where there is no room and the caller must not wait.
    fn admit(&self, inspected: Inspected, window: &mut Window, wait: bool) -> Option<Inspected> {
        let Inspected { key, digest, place, input, request, what } = inspected;
        let known = match what {
            Ok(known) => known,
            Err(e) => {
                window.entries.push(Entry::Known(Box::new(Err(e))));
                return None;
            }
        };
        if let Some(key) = &key {
            if let Some(&first) = window.first.get(key) {
                window.entries.push(Entry::Duplicate(first));
                return None;
            }
            if let Some(mut found) = self.session.cached(key) {
                if let Known::Ready(_, took) = known {
                    found.timings_mut().tokenise = took;
                }
                window.entries.push(Entry::Known(Box::new(Ok(found))));
                return None;
            }
        }
        let reserved =
            match self.session.make_room(&input.modalities(), &known.estimate(&self.session, &request), &request, wait)
            {
                Ok(Some(reserved)) => reserved,
                Ok(None) => return Some(Inspected { key, digest, place, input, request, what: Ok(known) }),
                Err(e) => {
                    window.entries.push(Entry::Known(Box::new(Err(e))));
                    return None;
                }
            };
        if let Some(key) = key {
            window.first.insert(key, window.entries.len());
        }
        let slot = match known {
            Known::Ready(prepared, took) => {
                window.rows += prepared.rows();
                Slot::new(move || (Ok(prepared), took, reserved))
            }
            Known::Later(estimate) => {
                window.rows += estimate.rows;
                let (session, request) = (Arc::clone(&self.session), Arc::clone(&request));
                let (abandoned, traced) = (Arc::clone(&self.abandoned), Span::current());
                Slot::new(move || {
                    let _decoding = traced.in_scope(|| tracing::trace_span!("decode")).entered();
                    let (mut reserved, begun) = (reserved, Instant::now());
                    let prepared = match abandoned.load(Ordering::Relaxed) {
                        true => Err(ItemError::Cancelled),
                        false => prepare_measured(&session, input, &estimate, &request),
                    };
                    reserved
                        .shrink(prepared.as_ref().map_or(0, |p| session.estimator.bytes_of(p, &estimate, &request)));
                    (prepared, begun.elapsed(), reserved)
                })
            }
        };
        window.entries.push(Entry::Item { slot, request, key, place });
        None
    }

    fn compute(&self, window: Window) -> Vec<Result<Answer, ItemError>> {
        let mut results: Vec<Option<Result<Answer, ItemError>>> = Vec::new();
        let (mut groups, mut duplicates): (Vec<(Arc<Request>, Vec<Item>)>, _) = (Vec::new(), Vec::new());
        let mut leads: Vec<(usize, InputDigest, Lead, Option<Place>)> = Vec::new();
        let mut follows: Vec<(Arc<Flight>, Arc<Request>, Item)> = Vec::new();
        let mut answered = vec![Answered::Computed; window.entries.len()];
        let digest_of = |index: usize| window.logged.get(index).and_then(|(digest, ..)| *digest);
        for (index, entry) in window.entries.into_iter().enumerate() {
            results.push(None);
            match entry {
                Entry::Known(result) => {
                    if result.is_ok() {
                        answered[index] = Answered::Cached;
                    }
                    results[index] = Some(*result);
                }
                Entry::Duplicate(first) => {
                    answered[index] = Answered::EqualTo((self.done + first) as u64);
                    duplicates.push((index, first));
                }
                Entry::Item { slot, request, key, place } => {
                    let priority = request.resolved_priority();
                    let (prepared, prepared_in, reserved) = slot.take();
                    let digest = digest_of(index);
                    match (key.map(|key| (key, self.session.flights.turn(key, priority))), prepared) {
                        (_, Err(e)) => results[index] = Some(Err(e)),
                        (Some((_, Turn::Follow(flight))), Ok(prepared)) => {
                            follows.push((flight, request, Item { index, digest, prepared, prepared_in, reserved }))
                        }
                        (lead, Ok(prepared)) => {
                            if let Some((key, Turn::Lead(lead))) = lead {
                                leads.push((index, key, lead, place));
                            }
                            let item = Item { index, digest, prepared, prepared_in, reserved };
                            match groups.iter_mut().find(|(of, _)| of.same_units(&request)) {
                                Some((_, group)) => group.push(item),
                                None => groups.push((request, vec![item])),
                            }
                        }
                    }
                }
            }
        }
        // The urgent ones first; within a class in the order they came.
        groups.sort_by_key(|(request, _)| request.resolved_priority() != Priority::Interactive);
        for (request, items) in groups {
            for (index, result) in run::compute(&self.session, items, &request) {
                results[index] = Some(result);
            }
        }
        for (index, key, lead, place) in leads {
            let result = results[index].as_ref().expect("every item was computed or failed");
            // A file that changed after its digest was taken may have been decoded as something else.
            let same = place.is_none_or(|was| was.input.key(Files::ByPlace) == Some(was.place));
            if let (Ok(embedded), Some(cache), true) = (result, &self.session.cache, same) {
                cache.keep(key, embedded);
            }
            lead.land(result);
        }
        // Whoever leads has all it needs in hand, so to wait for it with memory in hand stops nobody.
        for (flight, request, item) in follows {
            let index = item.index;
            results[index] = Some(match flight.wait(request.cancel.as_ref(), request.deadline) {
                Ok(Some(embedded)) => {
                    answered[index] = Answered::AnotherCall;
                    Ok(embedded)
                }
                Ok(None) => run::compute(&self.session, vec![item], &request).swap_remove(0).1,
                Err(e) => Err(e),
            });
        }
        for (index, first) in duplicates {
            results[index] = results[first].clone();
        }
        let results: Vec<_> = results.into_iter().map(|r| r.expect("every entry has its result")).collect();
        if let Some(observer) = &self.request.observer {
            let about = window.logged.into_iter().zip(answered).zip(&results).enumerate();
            about.for_each(|(index, (((digest, modality, request), answered), result))| {
                let (call, index, task) = (observer.call, self.done + index, self.session.task_of(&request));
                let Some(modality) = modality else {
                    let result = result.as_ref().map(|answer| answer.clone().into_score().logit);
                    return observer.tell(&CallEvent::Pair(PairDone { call, index, digest, task, answered, result }));
                };
                observer.tell(&CallEvent::Item(ItemDone {
                    call,
                    index,
                    digest,
                    modality,
                    role: request.role,
                    task,
                    dim: request.dim,
                    truncation: request.truncation,
                    frames: request.frames,
                    answered,
                    result: &result.clone().map(Answer::into_vector),
                }));
            });
        }
        results
    }
}

impl Window {
    fn holds_nothing(&self) -> bool {
        self.entries.iter().all(|entry| !matches!(entry, Entry::Item { .. }))
    }

    /// Has the items from one on prepared by the threads that decode.
    fn start(&self, from: usize) {
        for entry in &self.entries[from..] {
            let Entry::Item { slot, .. } = entry else { continue };
            if matches!(*slot.lock(), SlotState::Waiting(_)) {
                let slot = Arc::clone(slot);
                rayon::spawn(move || slot.run());
            }
        }
    }
}

impl Known {
    fn estimate(&self, session: &Session, request: &Request) -> ItemEstimate {
        match self {
            Known::Ready(prepared, _) => session.estimator.text_estimate(prepared, request),
            Known::Later(estimate) => *estimate,
        }
    }
}

/// What can be said of an input without decoding it.
fn inspect(session: &Session, (mut input, request): (Input, Arc<Request>)) -> Inspected {
    let wanted = if input.is_pair() { Wanted::Scores } else { Wanted::Vectors };
    if let Err(e) = session.check(&request, wanted) {
        let what = Err(ItemError::Request { reason: e.to_string() });
        return Inspected { key: None, digest: None, place: None, input, request, what };
    }
    let logged = request.observer.is_some();
    let files = if logged || session.cache.is_some() { Files::ByContent } else { Files::ByPlace };
    // Before its content is read, so that a change while it is read is seen.
    let place = session.cache.as_ref().filter(|_| !input.files().is_empty());
    let place = place.and_then(|_| Some(Place { place: input.key(Files::ByPlace)?, input: input.clone() }));
    input = input.kept();
    let content = input.key(files);
    let digest = content.filter(|_| logged);
    // Without a key it is neither found in a cache nor left to another call.
    let key = content.filter(|_| !request.isolated).map(|key| request.key_of(key, &session.result_identity(&request)));
    let begun = Instant::now();
    let reading = input.text_bytes().map(|_| tracing::trace_span!("tokenise").entered());
    let read = session.estimator.read_text(&input, &request);
    drop(reading);
    let what = match read {
        Some(prepared) => prepared.map(|prepared| Known::Ready(prepared, begun.elapsed())),
        None => session.estimator.estimate(&input, &request).map(Known::Later),
    };
    Inspected { key, digest, place, input, request, what }
}

/// Prepares an input that was measured by its header. A file that was written to or replaced since is measured again, and
/// taken if it needs no more than there is room for.
fn prepare_measured(
    session: &Session,
    input: Input,
    estimate: &ItemEstimate,
    request: &Request,
) -> Result<Prepared, ItemError> {
    let again = input.kept();
    let changed = match session.preparer.prepare(input, request) {
        Err(ItemError::Media(changed)) if matches!(*changed, MediaError::Changed { .. }) => changed,
        prepared => return prepared,
    };
    match session.estimator.estimate(&again, request)?.bytes() <= estimate.bytes() {
        true => session.preparer.prepare(again, request),
        false => Err(ItemError::Media(changed)),
    }
}

/// One vector an input, in order.
pub(crate) fn results<I: Into<Asked>>(
    session: &Arc<Session>,
    inputs: impl ExactSizeIterator<Item = I>,
    request: Request,
) -> Vec<Result<Embedded, ItemError>> {
    answers(session, inputs, request).map(|result| result.map(Answer::into_vector)).collect()
}

/// One score a pair, in order.
pub(crate) fn scores(
    session: &Arc<Session>,
    pairs: impl ExactSizeIterator<Item = Input>,
    request: Request,
) -> Vec<Result<Scored, ItemError>> {
    answers(session, pairs, request).map(|result| result.map(Answer::into_score)).collect()
}

/// One answer an input, in order.
pub(super) fn answers<I: Into<Asked>>(
    session: &Arc<Session>,
    inputs: impl ExactSizeIterator<Item = I>,
    request: Request,
) -> impl Iterator<Item = Result<Answer, ItemError>> {
    let count = inputs.len();
    let mut stream = Stream::new(Arc::clone(session), inputs, request);
    let mut results = Vec::with_capacity(count);
    while results.len() < count {
        results.extend(stream.window());
    }
    results.into_iter()
}
