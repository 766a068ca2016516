//! The facade: an index in a folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OptionalExtension;

use crate::calibration::Calibration;
use crate::crawl::{Root, Rules};
use crate::embedder::{Embedder, EmbedderProfile};
use crate::error::{Fault, IndexError};
use crate::get::{self, Opened};
use crate::kind::Modality;
use crate::locator::Locator;
use crate::query::Query;
use crate::search::{self, Asked, Hit, Mode, SearchOptions};
use crate::store::{Database, Status, WriterLock, bytes_of_path, compact, heads};
use crate::update::{self, Report, Watch};

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

/// An index: one SQLite file with files, chunks, words and vectors in a folder, and a cache that may be thrown away.
pub struct Index {
    db: Database,
    calibration: Calibration,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.db.path()).finish_non_exhaustive()
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
    /// Opens the index in a folder.
    ///
    /// # Errors
    /// [`IndexError::Missing`], [`IndexError::Foreign`], [`IndexError::Version`], [`IndexError::Corrupt`].
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        Ok(Self { db: Database::open(folder)?, calibration: Calibration::default() })
    }

    /// Opens the index in a folder, or begins one.
    ///
    /// # Errors
    /// As [`Index::open`], and [`IndexError::IdentityMismatch`] for an index of another model.
    pub fn open_or_begin(folder: &Path, profile: &EmbedderProfile) -> Result<Self, IndexError> {
        Ok(Self { db: Database::open_or_begin(folder, profile)?, calibration: Calibration::default() })
    }

    /// The scores of its model, where they were measured; those of another model are not taken.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn calibrate(&mut self, calibration: Calibration) -> Result<(), IndexError> {
        if calibration.identity == self.db.meta()?.identity {
            self.calibration = calibration;
        }
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
        watch: &Watch<'_>,
    ) -> Result<Report, IndexError> {
        self.db.agree(&embedder.profile())?;
        let _lock = self.lock(patience)?;
        let kept = self.roots()?;
        for root in roots {
            let before = kept.iter().find(|there| there.path == root.path);
            if before.is_none_or(|there| there.rules != root.rules) {
                let rules = serde_json::to_string(&root.rules).expect("plain data with string keys always serialises");
                self.db.put_root(&root.path, &rules)?;
                self.db.forget_times(&root.path)?;
            }
        }
        let chosen = if roots.is_empty() { &kept } else { roots };
        // A folder within another one answers for its own files.
        let others: Vec<PathBuf> = kept
            .iter()
            .filter(|other| chosen.iter().all(|root| root.path != other.path))
            .filter(|other| chosen.iter().any(|root| other.path.starts_with(&root.path)))
            .map(|other| other.path.clone())
            .collect();
        update::update(&mut self.db, embedder, chosen, &others, watch)
    }

    fn lock(&self, patience: Duration) -> Result<WriterLock, IndexError> {
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
        compact(&mut self.db)
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
            &self.db,
            &self.calibration,
            &Asked { query: &query, vector, except },
            &SearchOptions { mode, ..options.clone() },
        )
    }

    /// The unit mean of the stored vectors of a file, where it is in the index as it is on the disk now.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn stored_vector(&self, path: &Path) -> Result<Option<(Vec<f32>, Modality)>, IndexError> {
        let bytes = bytes_of_path(path);
        let Some(file) = self.db.files_where("f.path = ?1", &[&bytes])?.into_iter().next() else { return Ok(None) };
        let now = std::fs::metadata(path).map(|about| crate::crawl::stat_of(path, &about));
        if !now.is_ok_and(|now| (now.size, now.mtime_ns) == (file.size, file.mtime_ns)) {
            return Ok(None);
        }
        let dim = self.db.meta()?.dim;
        let heads = heads(&self.db)?;
        let rows: Vec<i64> = {
            let mut statement =
                self.db.prepare("SELECT vector FROM chunks WHERE content = ?1 AND vector IS NOT NULL ORDER BY id")?;
            let rows = statement.query_map([file.content], |row| row.get(0));
            rows.and_then(Iterator::collect).map_err(|e| self.db.error(e))?
        };
        let mut sum = vec![0f64; dim];
        let mut page: Option<(i64, Vec<u8>)> = None;
        for row in rows {
            let (number, slot) =
                (row / crate::store::PAGE_ROWS as i64, (row % crate::store::PAGE_ROWS as i64) as usize);
            if page.as_ref().is_none_or(|(there, _)| *there != number) {
                let head = usize::try_from(number).ok().and_then(|number| heads.get(number));
                let head = head.ok_or_else(|| self.db.corrupt(format!("vector {row} is on no page")))?;
                page = Some((number, crate::store::bytes_of(&self.db, head, dim)?));
            }
            let bytes = page.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
            let values = bytes.get(slot * dim * 2..(slot + 1) * dim * 2);
            let values = values.ok_or_else(|| self.db.corrupt(format!("vector {row} is on no page")))?;
            for (sum, value) in sum.iter_mut().zip(values.as_chunks::<2>().0) {
                *sum += f64::from(half::f16::from_le_bytes(*value).to_f32());
            }
        }
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length == 0.0 {
            return Ok(None);
        }
        Ok(Some((sum.into_iter().map(|value| (value / length) as f32).collect(), file.kind.modality())))
    }

    /// The cosines of a vector with every vector of the index, by modality: what a calibration is measured on.
    ///
    /// # Errors
    /// Whatever the database gives.
    pub fn cosines(&self, vector: &[f32]) -> Result<[Vec<f32>; 4], IndexError> {
        search::cosines(&self.db, vector)
    }

    /// Opens a file by its id, or a place of it.
    ///
    /// # Errors
    /// [`IndexError::UnknownId`], [`IndexError::AmbiguousId`], [`IndexError::File`].
    pub fn get(&self, id: &str, locator: Locator) -> Result<Opened, IndexError> {
        let file = get::file_of(&self.db, id)?;
        get::open(&file.path, file.kind, locator)
    }

    /// Reads the whole database for damage.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`], [`IndexError::PageDigest`].
    pub fn verify(&self) -> Result<(), IndexError> {
        let wrong = |e| self.db.error(e);
        let found: Option<String> = self
            .db
            .connection()
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .optional()
            .map_err(wrong)?;
        if found.as_deref() != Some("ok") {
            return Err(self.db.corrupt(found.unwrap_or_default()));
        }
        let dim = self.db.meta()?.dim;
        for head in heads(&self.db)? {
            crate::store::bytes_of(&self.db, &head, dim)?;
        }
        Ok(())
    }
}

/// The vector of a query's text.
///
/// # Errors
/// [`IndexError::Embedder`].
pub fn query_vector(embedder: &dyn Embedder, text: &str) -> Result<Vec<f32>, IndexError> {
    embedder.embed_query(text).map_err(|fault: Fault| IndexError::Embedder(fault))
}
