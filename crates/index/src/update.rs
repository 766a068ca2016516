//! An update: what changed below the folders of an index is read, embedded and written, and nothing else is touched.
//!
//! A look without opening finds what is new or changed. Threads of readers take digests and text; contents go through the model
//! in one stream; a batch of finished files is one transaction. A content that is known, or is being read already, is not read
//! again: copies and renamed files cost no compute. Killed anywhere, an index has whole files and the next update goes on.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::chunk::{self, Piece};
use crate::crawl::{Root, nanoseconds, stat_of};
use crate::embedder::{Content, Embedder, EmbedderProfile, Vector};
use crate::error::{Fault, IndexError};
use crate::extract::{self, Drawing, Photograph};
use crate::kind::{Kind, Modality, SNIFF_BYTES};
use crate::locator::Locator;
use crate::look::{Known, Task, look};
use crate::store::{Batch, FailedFile, FileStat, KnownFile, NewChunk, NewContent, Put, State, Store, path_of_bytes};

/// Chunks of a transaction, and how long finished files wait for one.
const BATCH_CHUNKS: usize = 512;
const BATCH_FILES: usize = 2048;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Files that are read ahead of the model.
const READ_AHEAD: usize = 8;
/// Stack of a reader: documents nest deeply.
const READER_STACK: usize = 16 << 20;

/// How far an update has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files that are done.
    pub done: u64,
    /// Files that are new or changed.
    pub total: u64,
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Files that were not there before.
    pub new: u64,
    /// Files with another content than before.
    pub changed: u64,
    /// Files as they were.
    pub unchanged: u64,
    /// Files that are gone.
    pub removed: u64,
    /// Files with another name than before, whose vectors stayed.
    pub renamed: u64,
    /// Files of no kind that is indexed, such as programs and archives.
    pub passed_over: u64,
    /// Files and folders that could not be read, those of earlier updates included.
    pub failed: Vec<FailedFile>,
    /// Contents that went through the model.
    pub embedded: u64,
}

/// What stops an update, and what is reported of it.
pub struct Control<'a> {
    /// Asked between files; what is finished is kept.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Called as files are done.
    pub progress: &'a dyn Fn(Progress),
}

/// What a reader made of a file.
enum Outcome {
    /// Of a kind that its folder does not take.
    NotTaken,
    PassedOver,
    Failed {
        fault: Fault,
        /// Of its bytes, where they were read: other files may have the same.
        digest: Option<[u8; 32]>,
    },
    /// Bytes that another file has too.
    Same([u8; 32]),
    /// A content to be embedded.
    New {
        digest: [u8; 32],
        kind: Kind,
        title: Option<String>,
        photograph: Photograph,
        pieces: Vec<Part>,
    },
    Interrupted,
}

/// A part of a content.
struct Part {
    locator: Locator,
    /// Its words.
    text: String,
    made_of: MadeOf,
}

/// What the vector of a part is made from.
#[derive(Clone, Copy, PartialEq)]
enum MadeOf {
    /// Its words.
    Words,
    /// The image of a page.
    Page(u32),
    /// The file as a whole.
    File,
}

/// What became of a content.
#[derive(Clone)]
enum Settled {
    /// It is in the database or in the batch.
    There,
    /// Its bytes cannot be read or embedded: no file that has them can be.
    Failed(Fault),
    /// Another update has to read it: its file changed meanwhile.
    Later(Fault),
}

/// A file whose content is on its way through the model.
struct Job {
    task: usize,
    digest: [u8; 32],
    content: NewContent,
    /// Parts whose vectors are awaited.
    waiting: VecDeque<Waiting>,
    fault: Option<Fault>,
}

/// A part whose vectors are awaited.
struct Waiting {
    /// Of all parts of the update.
    number: u64,
    locator: Locator,
    text: String,
    modality: Modality,
}

/// What the model has to see of a part.
enum Source {
    Content(Content),
    /// A page that is drawn when its turn has come.
    Page(PathBuf, u32),
}

/// Brings an index up to date with folders.
///
/// # Errors
/// [`IndexError::Interrupted`], [`IndexError::Embedder`], and whatever the database gives. What was finished before is kept.
pub(crate) fn update(
    db: &mut dyn Store,
    embedder: &dyn Embedder,
    roots: &[Root],
    others: &[PathBuf],
    control: &Control<'_>,
) -> Result<Report, IndexError> {
    let known = Known::of(db)?;
    let mut look = look(&known, roots, &[], control.interrupted)?;
    let report = Report {
        unchanged: look.unchanged,
        passed_over: look.passed_over,
        failed: std::mem::take(&mut look.failed),
        ..Report::default()
    };
    let mut tasks = std::mem::take(&mut look.tasks);
    mix_kinds(&mut tasks);
    let run = Run::new(db, embedder.profile(), tasks, roots, report)?;
    let (run, outcome) = run.through(embedder, control);
    let Run { db, tasks, mut report, dropped, .. } = run;
    outcome?;

    let mut gone: Vec<Vec<u8>> = dropped;
    for (path, about) in look.gone(&known, roots, others) {
        gone.push(path.clone());
        report.removed += u64::from(about.content.is_some());
    }
    count_renamed(db, &tasks, &known.files, &gone, &mut report)?;
    for paths in gone.chunks(BATCH_FILES) {
        db.apply(&Batch { puts: Vec::new(), removes: paths.to_vec() })?;
    }
    db.remove_unused()?;
    db.put_updated(nanoseconds(SystemTime::now()))?;
    report.failed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(report)
}

/// Kinds take turns, so that some of each can be found soon.
fn mix_kinds(tasks: &mut Vec<Task>) {
    let class = |task: &Task| {
        let path = path_of_bytes(task.file.path.clone());
        omniburn_media::FileKind::of_ending(&path).map_or(0, |kind| kind as usize + 1)
    };
    let mut turns: HashMap<usize, usize> = HashMap::new();
    let mut keyed: Vec<(usize, usize, Task)> = tasks
        .drain(..)
        .map(|task| {
            let class = class(&task);
            let turn = turns.entry(class).or_default();
            *turn += 1;
            (*turn, class, task)
        })
        .collect();
    keyed.sort_by_key(|(turn, class, _)| (*turn, *class));
    tasks.extend(keyed.into_iter().map(|(_, _, task)| task));
}

/// New files whose content a file that is gone had are renamed ones.
fn count_renamed(
    db: &dyn Store,
    tasks: &[Task],
    known: &HashMap<Vec<u8>, KnownFile>,
    gone: &[Vec<u8>],
    report: &mut Report,
) -> Result<(), IndexError> {
    let mut left: HashMap<i64, u64> = HashMap::new();
    for content in gone.iter().filter_map(|path| known.get(path)?.content) {
        *left.entry(content).or_default() += 1;
    }
    if left.is_empty() {
        return Ok(());
    }
    for task in tasks.iter().filter(|task| task.known.is_none()) {
        if let Some(content) = db.content_of_path(&task.file.path)?
            && let Some(count) = left.get_mut(&content).filter(|count| **count > 0)
        {
            *count -= 1;
            report.renamed += 1;
            report.removed -= 1;
            report.new -= 1;
        }
    }
    Ok(())
}

/// The part of an update that reads, embeds and writes.
struct Run<'a> {
    db: &'a mut dyn Store,
    profile: EmbedderProfile,
    tasks: Vec<Task>,
    roots: &'a [Root],
    report: Report,
    jobs: VecDeque<Job>,
    batch: Batch,
    begun: Instant,
    /// What became of contents.
    settled: HashMap<[u8; 32], Settled>,
    /// Files whose content was on its way when they were read.
    deferred: Vec<(usize, [u8; 32])>,
    /// Files that are known and are not taken any more.
    dropped: Vec<Vec<u8>>,
    /// Parts so far.
    parts: u64,
    done: u64,
    interrupted: bool,
    error: Option<IndexError>,
}

impl<'a> Run<'a> {
    fn new(
        db: &'a mut dyn Store,
        profile: EmbedderProfile,
        tasks: Vec<Task>,
        roots: &'a [Root],
        report: Report,
    ) -> Result<Self, IndexError> {
        let settled = db.known_digests()?.into_iter().map(|digest| (digest, Settled::There)).collect();
        Ok(Self {
            db,
            profile,
            tasks,
            roots,
            report,
            jobs: VecDeque::new(),
            batch: Batch::default(),
            begun: Instant::now(),
            settled,
            deferred: Vec::new(),
            dropped: Vec::new(),
            parts: 0,
            done: 0,
            interrupted: false,
            error: None,
        })
    }

    /// Everything through the readers, the model and the database.
    fn through(self, embedder: &dyn Embedder, control: &Control<'_>) -> (Self, Result<(), IndexError>) {
        if self.tasks.is_empty() {
            return (self, Ok(()));
        }
        let claimed = Mutex::new(self.settled.keys().copied().collect::<HashSet<[u8; 32]>>());
        let next = Mutex::new(0usize);
        let profile = self.profile.clone();
        let rules: Vec<crate::crawl::Rules> = self.roots.iter().map(|root| root.rules.clone()).collect();
        let files: Vec<(PathBuf, FileStat, usize)> = self
            .tasks
            .iter()
            .map(|task| (path_of_bytes(task.file.path.clone()), task.file.clone(), task.root))
            .collect();
        let (send, receive) = sync_channel(READ_AHEAD);
        let readers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let interrupted = control.interrupted;
        let read_all = |send: SyncSender<(usize, FileStat, Outcome)>| {
            loop {
                let at = {
                    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                    *next += 1;
                    *next - 1
                };
                let Some((path, file, of)) = files.get(at) else { return };
                let mut file = file.clone();
                let read = match interrupted() {
                    true => Outcome::Interrupted,
                    false => read(path, &mut file, &rules[*of], embedder, &profile, &claimed),
                };
                let stop = matches!(read, Outcome::Interrupted);
                // Nobody waits for it where the model gave up.
                if send.send((at, file, read)).is_err() || stop {
                    return;
                }
            }
        };
        let run = RefCell::new(self);
        let outcome = std::thread::scope(|scope| {
            for _ in 0..readers {
                let (send, read_all) = (send.clone(), &read_all);
                let spawned = std::thread::Builder::new()
                    .name("omniburn-read".into())
                    .stack_size(READER_STACK)
                    .spawn_scoped(scope, move || read_all(send));
                if let Err(error) = spawned {
                    tracing::warn!("a thread could not be started: {error}");
                }
            }
            drop(send);
            let mut contents = Contents { run: &run, receive, ready: VecDeque::new(), drawing: None, control };
            let outcome = embedder.embed(&mut contents, &mut |vectors| {
                let mut run = run.borrow_mut();
                run.take(vectors, control);
                if run.error.is_some() || run.interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            // Readers that wait for room end when nobody receives.
            drop(contents);
            outcome
        });
        let mut run = run.into_inner();
        if let Some(error) = run.error.take() {
            return (run, Err(error));
        }
        if let Err(fault) = outcome {
            let flushed = run.flush();
            return (run, flushed.and(Err(IndexError::Embedder(fault))));
        }
        run.settle_deferred();
        let flushed = run.flush();
        let ended = flushed.and(if run.interrupted { Err(IndexError::Interrupted) } else { Ok(()) });
        (run, ended)
    }

    /// A file as a reader found it; gives what the model has to see, with the numbers of the parts.
    fn read(&mut self, at: usize, file: FileStat, read: Outcome) -> Vec<(u64, Source)> {
        self.tasks[at].file = file;
        match read {
            Outcome::Interrupted => self.interrupted = true,
            Outcome::NotTaken => {
                let task = &self.tasks[at];
                if let Some(known) = task.known {
                    self.report.removed += u64::from(known.content.is_some());
                    self.dropped.push(task.file.path.clone());
                }
                self.done += 1;
            }
            Outcome::PassedOver => {
                self.report.passed_over += 1;
                self.put(at, State::PassedOver);
            }
            Outcome::Failed { fault, digest } => {
                if let Some(digest) = digest {
                    self.settled.insert(digest, Settled::Failed(fault.clone()));
                }
                self.fail(at, fault);
            }
            Outcome::Same(digest) => self.same(at, digest),
            Outcome::New { digest, kind, title, photograph, pieces } => {
                let Photograph { taken_ns, coordinates } = photograph;
                let content = NewContent { kind, title, taken_ns, coordinates, chunks: Vec::new() };
                let path = path_of_bytes(self.tasks[at].file.path.clone());
                let (mut contents, mut waiting) = (Vec::new(), VecDeque::new());
                for Part { locator, text, made_of } in pieces {
                    let (modality, source) = match made_of {
                        MadeOf::Words => (Modality::Text, Source::Content(Content::Text(text.clone()))),
                        MadeOf::Page(page) => (Modality::Image, Source::Page(path.clone(), page)),
                        MadeOf::File => (kind.modality(), Source::Content(whole(kind, &path))),
                    };
                    waiting.push_back(Waiting { number: self.parts, locator, text, modality });
                    contents.push((self.parts, source));
                    self.parts += 1;
                }
                self.report.embedded += u64::from(!contents.is_empty());
                let job = Job { task: at, digest, content, waiting, fault: None };
                if contents.is_empty() && self.jobs.is_empty() {
                    self.finish(job);
                } else {
                    self.jobs.push_back(job);
                }
                return contents;
            }
        }
        Vec::new()
    }

    /// Goes without a part that the model will not see.
    fn leave_out(&mut self, number: u64) {
        for job in &mut self.jobs {
            job.waiting.retain(|part| part.number != number);
        }
        self.finish_empty();
    }

    /// The vectors of the oldest content that is on its way.
    fn take(&mut self, vectors: Result<Vec<Vector>, Fault>, control: &Control<'_>) {
        self.finish_empty();
        let Some(job) = self.jobs.front_mut() else {
            unreachable!("a model gives one result a content");
        };
        if vectors.as_ref().is_err_and(|fault| fault.kind == "cancelled") {
            // What waits is not finished, however little of it is left.
            self.jobs.clear();
            self.interrupted = true;
            return;
        }
        let part = job.waiting.pop_front().expect("a job that waits has a part");
        let Waiting { locator, mut text, modality, .. } = part;
        match vectors {
            Err(fault) => job.fault = job.fault.take().or(Some(fault)),
            Ok(vectors) => {
                for vector in vectors {
                    let locator = match vector.span {
                        Some((start_s, end_s)) => Locator::Time { start_s, end_s },
                        None => locator,
                    };
                    // Where several vectors stand for a part, its words are said once.
                    let text = std::mem::take(&mut text);
                    let chunk = NewChunk { locator, text, modality, vector: Some(vector.values) };
                    job.content.chunks.push(chunk);
                }
            }
        }
        if job.waiting.is_empty() {
            let job = self.jobs.pop_front().expect("it is the first");
            self.finish(job);
            self.finish_empty();
        }
        self.flush_if_due(control);
    }

    /// Contents without anything to embed, whose turn has come.
    fn finish_empty(&mut self) {
        while self.jobs.front().is_some_and(|job| job.waiting.is_empty()) {
            let job = self.jobs.pop_front().expect("there is one");
            self.finish(job);
        }
    }

    fn finish(&mut self, job: Job) {
        let Job { task: at, digest, content, fault, .. } = job;
        let file = &self.tasks[at].file;
        if let Some(fault) = fault {
            self.settled.insert(digest, Settled::Failed(fault.clone()));
            self.fail(at, fault);
            return;
        }
        // What was embedded must be what the digest is of.
        let now = std::fs::metadata(path_of_bytes(file.path.clone()));
        let same = now.is_ok_and(|about| {
            let now = stat_of(Path::new(""), &about);
            (now.size, now.mtime_ns) == (file.size, file.mtime_ns)
        });
        if !same {
            let fault = Fault::new("not_found", "the file changed while it was read; the next update reads it again");
            self.settled.insert(digest, Settled::Later(fault.clone()));
            self.put_off(at, fault);
            return;
        }
        self.count(at, None);
        self.settled.insert(digest, Settled::There);
        self.put(at, State::Indexed { digest, new: Some(content) });
    }

    fn same(&mut self, at: usize, digest: [u8; 32]) {
        match self.settled.get(&digest).cloned() {
            Some(Settled::There) => {
                self.count(at, Some(digest));
                self.put(at, State::Indexed { digest, new: None });
            }
            Some(Settled::Failed(fault)) => self.fail(at, fault),
            Some(Settled::Later(fault)) => self.put_off(at, fault),
            None => self.deferred.push((at, digest)),
        }
    }

    fn settle_deferred(&mut self) {
        self.finish_empty();
        for (at, digest) in std::mem::take(&mut self.deferred) {
            // On its way when the user interrupted: the next update reads it.
            if self.settled.contains_key(&digest) {
                self.same(at, digest);
            }
        }
    }

    /// Counts a file as new, changed or, where its bytes are those of before, unchanged.
    fn count(&mut self, at: usize, there: Option<[u8; 32]>) {
        let same_as_before = |content| {
            let found = there.map(|digest| self.db.content_of_digest(&digest)).transpose();
            found.map(|found| found.flatten() == Some(content))
        };
        match self.tasks[at].known.and_then(|known| known.content).map(same_as_before) {
            None => self.report.new += 1,
            Some(Ok(true)) => self.report.unchanged += 1,
            Some(Ok(false)) => self.report.changed += 1,
            Some(Err(error)) => self.error = self.error.take().or(Some(error)),
        }
    }

    fn fail(&mut self, at: usize, fault: Fault) {
        let path = path_of_bytes(self.tasks[at].file.path.clone());
        self.report.failed.push(FailedFile { path, fault: fault.clone() });
        self.put(at, State::Failed(fault));
    }

    /// Leaves a file to the next update: nothing is remembered of it.
    fn put_off(&mut self, at: usize, fault: Fault) {
        let path = path_of_bytes(self.tasks[at].file.path.clone());
        self.report.failed.push(FailedFile { path, fault });
        self.done += 1;
    }

    fn put(&mut self, at: usize, state: State) {
        if self.batch.is_empty() {
            self.begun = Instant::now();
        }
        self.batch.puts.push(Put { file: self.tasks[at].file.clone(), state });
        self.done += 1;
    }

    fn flush_if_due(&mut self, control: &Control<'_>) {
        let full = self.batch.chunks() >= BATCH_CHUNKS || self.batch.puts.len() >= BATCH_FILES;
        if (full || self.begun.elapsed() > BATCH_WAIT)
            && let Err(error) = self.flush()
        {
            self.error = self.error.take().or(Some(error));
        }
        (control.progress)(Progress { done: self.done, total: self.tasks.len() as u64 });
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        let batch = std::mem::take(&mut self.batch);
        self.begun = Instant::now();
        self.db.apply(&batch)
    }
}

/// What the model has to see, as readers bring it.
struct Contents<'a, 'b> {
    run: &'a RefCell<Run<'b>>,
    receive: Receiver<(usize, FileStat, Outcome)>,
    ready: VecDeque<(u64, Source)>,
    /// The PDF whose pages are being drawn.
    drawing: Option<(PathBuf, Result<Drawing, Fault>)>,
    control: &'a Control<'a>,
}

impl Contents<'_, '_> {
    /// The image of a page.
    fn page(&mut self, path: PathBuf, page: u32) -> Result<Content, Fault> {
        if self.drawing.as_ref().is_none_or(|(open, _)| *open != path) {
            let drawing = Drawing::open(&path);
            self.drawing = Some((path, drawing));
        }
        match &self.drawing {
            Some((_, Ok(drawing))) => drawing.page(page).map(Content::Pixels),
            Some((_, Err(fault))) => Err(fault.clone()),
            None => unreachable!("opened above"),
        }
    }
}

impl Iterator for Contents<'_, '_> {
    type Item = Content;

    fn next(&mut self) -> Option<Content> {
        loop {
            match self.ready.pop_front() {
                Some((_, Source::Content(content))) => return Some(content),
                Some((number, Source::Page(path, page))) => match self.page(path, page) {
                    Ok(content) => return Some(content),
                    // Its text, and the other pages, count all the same.
                    Err(fault) => {
                        tracing::debug!("page {page} is left out: {fault}");
                        self.run.borrow_mut().leave_out(number);
                        continue;
                    }
                },
                None => self.drawing = None,
            }
            if self.run.borrow().error.is_some() || self.run.borrow().interrupted {
                return None;
            }
            let (at, file, read) = self.receive.recv().ok()?;
            let mut run = self.run.borrow_mut();
            self.ready.extend(run.read(at, file, read));
            run.flush_if_due(self.control);
        }
    }
}

/// A file that the model takes whole.
fn whole(kind: Kind, path: &Path) -> Content {
    match kind.modality() {
        Modality::Audio => Content::Audio(path.into()),
        Modality::Video => Content::Video(path.into()),
        Modality::Image | Modality::Text => Content::Image(path.into()),
    }
}

/// Reads a file as far as the model needs it.
fn read(
    path: &Path,
    file: &mut FileStat,
    rules: &crate::crawl::Rules,
    embedder: &dyn Embedder,
    profile: &EmbedderProfile,
    claimed: &Mutex<HashSet<[u8; 32]>>,
) -> Outcome {
    let opened = File::open(path).and_then(|mut open| {
        let about = open.metadata()?;
        let mut head = Vec::new();
        (&mut open).take(SNIFF_BYTES).read_to_end(&mut head)?;
        Ok((open, about, head))
    });
    let (mut open, about, head) = match opened {
        Ok(opened) => opened,
        Err(error) => return Outcome::Failed { fault: Fault::of_io(&error), digest: None },
    };
    // As it is now: what is read is what the file is remembered by.
    *file = stat_of(path, &about);
    let Some(kind) = Kind::of(path, omniburn_media::sniff(&head)) else { return Outcome::PassedOver };
    if !rules.takes(kind) {
        return Outcome::NotTaken;
    }
    if !profile.modalities.contains(&kind.modality()) {
        return Outcome::PassedOver;
    }
    let mut digest = Sha256::new();
    digest.update(format!("{} {} {}\0", kind.name(), extract::VERSION, head.len()));
    digest.update(&head);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match open.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => digest.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Outcome::Failed { fault: Fault::of_io(&error), digest: None },
        }
    }
    let digest: [u8; 32] = digest.finalize().into();
    if !claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
        return Outcome::Same(digest);
    }
    if kind.modality() != Modality::Text {
        let photograph = if kind == Kind::Image { extract::photograph(path) } else { Photograph::default() };
        let (title, text) = if kind == Kind::Image { Default::default() } else { extract::tags_of(path) };
        let pieces = vec![Part { locator: Locator::Whole, text, made_of: MadeOf::File }];
        return Outcome::New { digest, kind, title, photograph, pieces };
    }
    let with_images = profile.modalities.contains(&Modality::Image);
    let count = |text: &str| embedder.count_tokens(text);
    let cut = extract::text_of(path, kind).and_then(|text| {
        let mut pieces = Vec::new();
        for section in &text.sections {
            for piece in chunk::pieces(&section.text, kind == Kind::Code, profile.max_tokens, &count)? {
                let Piece { first_line, last_line, text } = piece;
                let locator = match section.page {
                    Some(page) => Locator::Page(page),
                    None => Locator::Lines { first: first_line, last: last_line },
                };
                pieces.push(Part { locator, text, made_of: MadeOf::Words });
            }
            if let Some(page) = section.page.filter(|_| section.image && with_images) {
                let locator = Locator::Page(page);
                pieces.push(Part { locator, text: String::new(), made_of: MadeOf::Page(page) });
            }
        }
        Ok((text.title, pieces))
    });
    match cut {
        Ok((title, pieces)) => Outcome::New { digest, kind, title, photograph: Photograph::default(), pieces },
        Err(fault) => Outcome::Failed { fault, digest: Some(digest) },
    }
}
