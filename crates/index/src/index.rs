//! The facade: an index in a folder.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::calibration::Calibration;
use crate::crawl::{Root, Rules};
use crate::embedder::{Embedder, EmbedderProfile};
use crate::error::{Fault, IndexError, QueryError};
use crate::get::{self, About, Opened};
use crate::kind::Modality;
use crate::locator::Locator;
use crate::look::Known;
use crate::map::{self, CollectionMap};
use crate::plan::{self, Plan};
use crate::query::Query;
use crate::rerank::{self, Reranker};
use crate::search::{self, Asked, Hit, MinScore, Mode, SearchOptions};
use crate::store::{self, Status, Store, Which, WriterLock};
use crate::transfer::{self, JsonSink, JsonSource};
use crate::update::{self, Control, Report};
use crate::watch::{News, Watcher};

/// What is behind the feature `parquet`, for people.
#[cfg(not(feature = "parquet"))]
const PARQUET: &str = "an export as Parquet";

/// What is searched with.
#[derive(Debug, Clone, Copy)]
pub enum Sought<'a> {
    /// The query's own words.
    Words,
    /// A vector, and what it was made from.
    Vector(&'a [f32], Modality),
    /// A file whose likes are sought, with its vector; it is not found itself.
    Like(&'a Path, &'a [f32], Modality),
}

/// An index: files, chunks, words and vectors.
///
/// Its place is a folder, which has one SQLite file and a cache that may be thrown away; or, built with the feature `postgres`, a
/// schema of a server: `postgres://user@host/database?schema=name`, `omniburn` where none is named.
pub struct Index {
    db: Box<dyn Store>,
    calibration: Calibration,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.db.place()).finish_non_exhaustive()
    }
}

/// The path as the index knows it: absolute, links followed as far as it exists.
///
/// # Errors
/// [`IndexError::Io`] for an empty path.
pub fn canonical(path: &Path) -> Result<PathBuf, IndexError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    std::path::absolute(path).map_err(|source| IndexError::Io { path: path.into(), source })
}

impl Index {
    /// Opens the index at a place.
    ///
    /// # Errors
    /// [`IndexError::Missing`], [`IndexError::Foreign`], [`IndexError::Version`], [`IndexError::Corrupt`];
    /// [`IndexError::NotBuilt`] for a server where the feature `postgres` is off, [`IndexError::Server`] for one that refuses.
    pub fn open(place: &Path) -> Result<Self, IndexError> {
        Ok(Self { db: store::open(place)?, calibration: Calibration::default() })
    }

    /// Opens the index at a place, or begins one.
    ///
    /// # Errors
    /// As [`Index::open`], and [`IndexError::IdentityMismatch`] for an index of another model.
    pub fn open_or_begin(place: &Path, profile: &EmbedderProfile) -> Result<Self, IndexError> {
        Ok(Self { db: store::open_or_begin(place, profile)?, calibration: Calibration::default() })
    }

    /// The scores of its model, where they were measured; those of another model are not taken.
    ///
    /// # Errors
    /// [`IndexError::Calibration`] for a centre of another dimension; whatever the database gives.
    pub fn calibrate(&mut self, calibration: Calibration) -> Result<(), IndexError> {
        let meta = self.db.meta()?;
        if calibration.identity != meta.identity {
            return Ok(());
        }
        if ![0, meta.dim].contains(&calibration.centre.len()) {
            return Err(IndexError::Calibration { found: calibration.centre.len(), expected: meta.dim });
        }
        self.calibration = calibration;
        Ok(())
    }

    /// Refuses a model whose vectors are not those of the index.
    ///
    /// # Errors
    /// [`IndexError::IdentityMismatch`].
    pub fn agree(&self, profile: &EmbedderProfile) -> Result<(), IndexError> {
        self.db.agree(profile)
    }

    /// What it holds.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn status(&self) -> Result<Status, IndexError> {
        self.db.status()
    }

    /// The folders that are kept true.
    ///
    /// # Errors
    /// Whatever the database gives; [`IndexError::Corrupt`] for rules that no release wrote.
    pub fn roots(&self) -> Result<Vec<Root>, IndexError> {
        let read = |(path, rules): (PathBuf, String)| {
            let rules: Rules =
                serde_json::from_str(&rules).map_err(|e| self.db.corrupt(format!("rules of a folder: {e}")))?;
            Ok(Root { path, rules })
        };
        self.db.roots()?.into_iter().map(read).collect()
    }

    /// Brings it up to date: with these folders, which are kept from now on, or with all that it keeps where there are none.
    ///
    /// # Errors
    /// [`IndexError::Locked`] where another process is at work longer than `patience`; [`IndexError::IdentityMismatch`];
    /// [`IndexError::Interrupted`] with what was finished kept.
    pub fn update(
        &mut self,
        embedder: &dyn Embedder,
        roots: &[Root],
        patience: Duration,
        control: &Control<'_>,
    ) -> Result<Report, IndexError> {
        self.db.agree(&embedder.profile())?;
        roots.iter().try_for_each(Root::check)?;
        let _lock = self.lock(patience)?;
        self.db.still_there()?;
        let kept = self.roots()?;
        for root in roots {
            let before = kept.iter().find(|there| there.path == root.path);
            if before.is_none_or(|there| there.rules != root.rules) {
                let rules = serde_json::to_string(&root.rules).expect("plain data with string keys always serialises");
                self.db.put_root(&root.path, &rules)?;
                self.db.forget_times(&root.path)?;
            }
        }
        let (chosen, others) = chosen(roots, &kept);
        let report = update::update(self.db.as_mut(), embedder, chosen, &others, control)?;
        self.db.still_there()?;
        Ok(report)
    }

    /// What [`Index::update`] would do with these folders, or with all that it keeps. Writes nothing.
    ///
    /// # Errors
    /// [`IndexError::IdentityMismatch`], [`IndexError::Interrupted`], [`IndexError::Pattern`].
    pub fn plan(
        &self,
        profile: &EmbedderProfile,
        roots: &[Root],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Plan, IndexError> {
        self.db.agree(profile)?;
        let kept = self.roots()?;
        let (chosen, others) = chosen(roots, &kept);
        // Under other rules than before every file is looked at anew.
        let rules_differ = |root: &Root| kept.iter().any(|there| there.path == root.path && there.rules != root.rules);
        let recheck: Vec<bool> = chosen.iter().map(rules_differ).collect();
        plan::plan(&Known::of(self.db.as_ref())?, profile, chosen, &others, &recheck, interrupted)
    }

    /// As [`Index::plan`], where there is no index yet.
    ///
    /// # Errors
    /// [`IndexError::Interrupted`], [`IndexError::Pattern`].
    pub fn plan_beginning(
        profile: &EmbedderProfile,
        roots: &[Root],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Plan, IndexError> {
        plan::plan(&Known::default(), profile, roots, &[], &[], interrupted)
    }

    /// Keeps the index true until it is interrupted: an update at once, then one after every change below its folders. What
    /// happens is reported as it happens.
    ///
    /// # Errors
    /// [`IndexError::Interrupted`] in the end; [`IndexError::Gone`] where the index is deleted meanwhile; as
    /// [`Index::update`], but that another process is waited for.
    pub fn keep(
        &mut self,
        embedder: &dyn Embedder,
        roots: &[Root],
        control: &Control<'_>,
        tell: &mut dyn FnMut(News) -> Result<(), IndexError>,
    ) -> Result<Infallible, IndexError> {
        self.db.agree(&embedder.profile())?;
        roots.iter().try_for_each(Root::check)?;
        // Events come from before the first look on, so that no change is between the two.
        let mut watched: Vec<PathBuf> = self.roots()?.into_iter().map(|root| root.path).collect();
        watched.extend(roots.iter().map(|root| root.path.clone()));
        let own = self.db.folder().map(canonical).transpose()?;
        let mut watcher = Watcher::start(&watched, own.as_deref())?;
        let mut given = roots;
        loop {
            for (folder, why) in watcher.unwatched() {
                tell(News::WithoutEvents { folder, why })?;
            }
            let begun = Instant::now();
            match self.update(embedder, given, Duration::ZERO, control) {
                Ok(report) => {
                    // From here on every folder that is kept.
                    given = &[];
                    watcher.rest(begun.elapsed());
                    tell(News::Updated(report))?;
                }
                Err(IndexError::Locked { .. }) => watcher.again(),
                Err(error) => return Err(error),
            }
            let db = &self.db;
            watcher.wait(control.interrupted, &|| db.still_there())?;
        }
    }

    fn lock(&self, patience: Duration) -> Result<Box<dyn WriterLock>, IndexError> {
        self.db.lock(patience)
    }

    /// Forgets a folder with its files; gives how many there were.
    ///
    /// # Errors
    /// [`IndexError::Missing`] for a folder that is not kept; [`IndexError::Locked`].
    pub fn remove(&mut self, folder: &Path, patience: Duration) -> Result<u64, IndexError> {
        let _lock = self.lock(patience)?;
        if !self.db.remove_root(folder)? {
            return Err(IndexError::Missing { path: folder.into() });
        }
        self.db.remove_below(folder)
    }

    /// Gives back the room of what was removed.
    ///
    /// # Errors
    /// [`IndexError::Locked`], and whatever the database gives; nothing is changed then.
    pub fn clean(&mut self, patience: Duration) -> Result<(), IndexError> {
        let _lock = self.lock(patience)?;
        self.db.remove_unused()?;
        self.db.compact()
    }

    /// Writes everything that lasts as lines of JSON, from which [`Index::import`] makes an equal index. The vectors stand in
    /// it as they are kept, and so does where photographs were taken.
    ///
    /// # Errors
    /// Whatever writing and the database give; a damaged page by name.
    pub fn export(&self, to: &mut dyn Write) -> Result<(), IndexError> {
        transfer::export(self.db.as_ref(), &mut JsonSink(to))
    }

    /// Makes an index at a place that has none from what [`Index::export`] wrote, be that of a folder or of a server; gives its
    /// files.
    ///
    /// # Errors
    /// [`IndexError::Exists`]; [`IndexError::Import`] naming the line; then nothing is left at the place.
    pub fn import(place: &Path, from: &mut dyn BufRead) -> Result<u64, IndexError> {
        transfer::import(place, &mut JsonSource::of(from))
    }

    /// As [`Index::export`], as one Parquet file: a row for each content, each chunk with its vector as a list of f32, and each
    /// file, joined by digest.
    ///
    /// # Errors
    /// As [`Index::export`]; [`IndexError::NotBuilt`] where the feature `parquet` is off.
    pub fn export_parquet(&self, to: &mut (dyn Write + Send)) -> Result<(), IndexError> {
        #[cfg(feature = "parquet")]
        return transfer::export(self.db.as_ref(), &mut crate::columns::ParquetSink::of(to)?);
        #[cfg(not(feature = "parquet"))]
        {
            let _ = to;
            Err(IndexError::NotBuilt { what: PARQUET, feature: "parquet" })
        }
    }

    /// As [`Index::import`], from what [`Index::export_parquet`] wrote.
    ///
    /// # Errors
    /// [`IndexError::Exists`]; [`IndexError::ImportTable`] naming the row; then nothing is left at the place.
    /// [`IndexError::NotBuilt`] where the feature `parquet` is off.
    pub fn import_parquet(place: &Path, from: File) -> Result<u64, IndexError> {
        #[cfg(feature = "parquet")]
        return transfer::import(place, &mut crate::columns::ParquetSource::of(from)?);
        #[cfg(not(feature = "parquet"))]
        {
            let _ = (place, from);
            Err(IndexError::NotBuilt { what: PARQUET, feature: "parquet" })
        }
    }

    /// Searches.
    ///
    /// # Errors
    /// [`IndexError::Query`] for a query that looks for nothing; [`IndexError::NotCalibrated`]; damage of the database by
    /// name. A damaged cache is made anew.
    pub fn search(&self, query: &Query, sought: Sought<'_>, options: &SearchOptions) -> Result<Vec<Hit>, IndexError> {
        let mut query = query.clone();
        for folder in query.filter.folders.iter_mut().chain(&mut query.filter.not_folders) {
            *folder = canonical(folder)?;
        }
        let (vector, except) = match sought {
            Sought::Words => (None, None),
            Sought::Vector(values, modality) => (Some((values, modality)), None),
            Sought::Like(path, values, modality) => (Some((values, modality)), Some(path)),
        };
        // The vector of a file says nothing of words.
        let mode = if except.is_some() { Mode::Semantic } else { options.mode };
        search::search(
            self.db.as_ref(),
            &self.calibration,
            &Asked { query: &query, vector, except },
            &SearchOptions { mode, ..options.clone() },
        )
    }

    /// Searches, and lets a reranker read the best 50 hits again, which then come first by its scores. It reads the text of a
    /// hit's place, and of what has none the image, where it takes images. [`MinScore::At`] counts for the scores that are given,
    /// [`MinScore::Auto`] for the search.
    ///
    /// # Errors
    /// As [`Index::search`]; [`QueryError::Empty`] for a query without words; [`IndexError::Embedder`] for a reranker that
    /// refuses.
    pub fn search_reranked(
        &self,
        query: &Query,
        sought: Sought<'_>,
        options: &SearchOptions,
        reranker: &dyn Reranker,
    ) -> Result<Vec<Hit>, IndexError> {
        if query.text.is_empty() {
            return Err(QueryError::Empty.into());
        }
        let min_score = if options.min_score == MinScore::Auto { MinScore::Auto } else { MinScore::Any };
        let first = SearchOptions { limit: options.limit.max(rerank::RERANKED), min_score, ..options.clone() };
        rerank::rerank(reranker, &query.text, self.search(query, sought, &first)?, options)
    }

    /// The unit mean of the stored vectors of a file, where it is in the index as it is on the disk now.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn stored_vector(&self, path: &Path) -> Result<Option<(Vec<f32>, Modality)>, IndexError> {
        let Some(file) = self.db.files(Which::Path(path))?.into_iter().next() else { return Ok(None) };
        let now = std::fs::metadata(path).map(|about| crate::crawl::stat_of(path, &about));
        if !now.is_ok_and(|now| (now.size, now.mtime_ns) == (file.size, file.mtime_ns)) {
            return Ok(None);
        }
        map::unit_mean(self.db.vector_rows()?.as_mut(), file.content, self.db.meta()?.dim)
    }

    /// The files on a plane, at most `most` of them, evenly taken from all in the order in which they were indexed; a file's
    /// vector is the unit mean of its chunks'. The same index gives the same map.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn map(&self, most: usize) -> Result<CollectionMap, IndexError> {
        map::map(self.db.as_ref(), most)
    }

    /// What changes whenever [`Index::map`] would give another one.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn map_version(&self) -> Result<[u8; 32], IndexError> {
        self.db.version()
    }

    /// The cosines of a vector with every vector of the index, by modality: what a calibration is measured on.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn cosines(&self, vector: &[f32]) -> Result<[Vec<f32>; 4], IndexError> {
        search::cosines(self.db.as_ref(), vector)
    }

    /// Opens a file by its id, or a place of it: lines or a page as text, some seconds of audio as WAV, the frame of a video as
    /// PNG, and as PNG also a page of a PDF that shows more than its text.
    ///
    /// # Errors
    /// [`IndexError::UnknownId`], [`IndexError::AmbiguousId`], [`IndexError::File`].
    pub fn get(&self, id: &str, locator: Locator) -> Result<Opened, IndexError> {
        let file = get::file_of(self.db.as_ref(), id)?;
        get::open(&file.path, file.kind, locator)
    }

    /// The image of a page of a PDF, from 1, as PNG.
    ///
    /// # Errors
    /// As [`Index::get`]; [`IndexError::File`] for a file that is no PDF, and a page that takes too much to be drawn.
    pub fn page_image(&self, id: &str, page: u32) -> Result<Opened, IndexError> {
        let file = get::file_of(self.db.as_ref(), id)?;
        get::page_image(&file.path, file.kind, page)
    }

    /// What a file says of itself as it is now; where a photograph was taken only `with_place`, and as the index keeps it, where it
    /// does.
    ///
    /// # Errors
    /// [`IndexError::UnknownId`], [`IndexError::AmbiguousId`]; whatever the database gives.
    pub fn about(&self, id: &str, with_place: bool) -> Result<About, IndexError> {
        get::about(self.db.as_ref(), get::file_of(self.db.as_ref(), id)?, with_place)
    }

    /// Reads the whole database for damage.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`], [`IndexError::PageDigest`].
    pub fn verify(&self) -> Result<(), IndexError> {
        self.db.verify()
    }
}

/// The folders that are updated, all that are kept where none is given, and the kept ones within them that have rules of their
/// own: those answer for their own files.
fn chosen<'a>(roots: &'a [Root], kept: &'a [Root]) -> (&'a [Root], Vec<PathBuf>) {
    let chosen = if roots.is_empty() { kept } else { roots };
    let others = kept
        .iter()
        .filter(|other| chosen.iter().all(|root| root.path != other.path))
        .filter(|other| chosen.iter().any(|root| other.path.starts_with(&root.path)))
        .map(|other| other.path.clone())
        .collect();
    (chosen, others)
}

/// The vector of a query's text.
///
/// # Errors
/// [`IndexError::Embedder`].
pub fn query_vector(embedder: &dyn Embedder, text: &str) -> Result<Vec<f32>, IndexError> {
    embedder.embed_query(text).map_err(|fault: Fault| IndexError::Embedder(fault))
}
