//! The exact search over vectors in SQLite: the cache of pages scanned on this machine, with a bit a row for what may be found.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use omniburn_kernels::cpu::nearest::{BLOCK_ROWS, nearest};
use rusqlite::params_from_iter;
use sha2::{Digest, Sha256};

use super::Database;
use super::matrix::{Matrix, Pages};
use super::pages::{PAGE_ROWS, PageHead, bytes_of, heads};
use super::words::Where;
use crate::bits::Bits;
use crate::error::IndexError;
use crate::store::rows::{FoundRow, Place};
use crate::store::{Condition, VectorSearch};

pub(super) struct Nearest<'a> {
    db: &'a Database,
    heads: Vec<PageHead>,
    dim: usize,
    /// The rows that may be found, by modality.
    groups: [Bits; 4],
    /// Opened by the first look.
    matrix: Option<Arc<Matrix>>,
}

/// The cache's name in the folder of an index.
const CACHE: &str = "matrix.cache";

impl<'a> Nearest<'a> {
    pub fn of(db: &'a Database, condition: &Condition) -> Result<Self, IndexError> {
        let heads = heads(db)?;
        let groups = allowed(db, &heads, condition)?;
        Ok(Self { db, heads, dim: db.meta()?.dim, groups, matrix: None })
    }
}

/// What a cache must have been made from.
fn digest_of(heads: &[PageHead], dim: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update((dim as u64).to_le_bytes());
    for head in heads {
        digest.update((head.count as u64).to_le_bytes());
        digest.update(head.digest);
    }
    digest.finalize().into()
}

/// The rows that may be found, by modality.
fn allowed(db: &Database, heads: &[PageHead], condition: &Condition) -> Result<[Bits; 4], IndexError> {
    let rows = heads.iter().map(|head| head.count).sum();
    let mut groups = [0, 1, 2, 3].map(|modality| {
        let mut bits = Bits::none(0);
        heads.iter().for_each(|head| bits.extend_from_bytes(&head.alive[modality].to_bytes()));
        bits
    });
    if condition.is_open() {
        return Ok(groups);
    }
    let mut chosen = Bits::none(rows);
    let allowed = Where::of(condition);
    let sql = format!("SELECT vector FROM chunks WHERE vector IS NOT NULL AND content IN ({})", allowed.contents());
    let mut statement = db.prepare(&sql)?;
    let vectors = statement.query_map(params_from_iter(&allowed.values), |row| row.get::<_, i64>(0));
    for vector in vectors.map_err(|e| db.error(e))? {
        chosen.set(usize::try_from(vector.map_err(|e| db.error(e))?).unwrap_or(usize::MAX));
    }
    groups.iter_mut().for_each(|group| group.keep(&chosen));
    Ok(groups)
}

impl VectorSearch for Nearest<'_> {
    fn allowed(&self) -> Result<usize, IndexError> {
        Ok(self.groups.iter().map(Bits::count).sum())
    }

    fn best(&mut self, vector: &[f32], most: usize) -> Result<[Vec<FoundRow>; 4], IndexError> {
        let (db, heads, dim) = (self.db, &self.heads, self.dim);
        const { assert!(PAGE_ROWS.is_multiple_of(BLOCK_ROWS)) };
        let pages = Pages {
            digest: digest_of(heads, dim),
            rows: heads.iter().map(|head| head.count).sum(),
            dim,
            count: heads.len(),
            read: &|page| bytes_of(db, &heads[page], dim),
        };
        let path = db.folder().join(CACHE);
        let matrix = match self.matrix.take().or_else(|| db.take_matrix().filter(|kept| kept.is_of(&pages))) {
            Some(matrix) => matrix,
            None => Arc::new(Matrix::open(&path, &pages)?),
        };
        let groups: Vec<&[u64]> = self.groups.iter().map(Bits::words).collect();
        let begun = Instant::now();
        let (matrix, found) = match nearest(matrix.as_ref(), vector, &groups, most) {
            // A damaged cache is made anew.
            Err(error) if matrix.is_cached() => {
                tracing::debug!("the cache of vectors is made anew: {error}");
                drop(matrix);
                let matrix = Arc::new(Matrix::make(&path, &pages)?);
                let found = nearest(matrix.as_ref(), vector, &groups, most);
                (matrix, found)
            }
            found => (matrix, found),
        };
        tracing::debug!(rows = pages.rows, took = ?begun.elapsed(), "vectors searched");
        // What is in memory is let go with this search.
        if matrix.is_cached() && found.is_ok() {
            db.keep_matrix(Arc::clone(&matrix));
        }
        self.matrix = Some(matrix);
        let mut lists = found?.into_iter();
        Ok([0, 1, 2, 3].map(|_| lists.next().unwrap_or_default()))
    }

    fn places(&mut self, rows: &[FoundRow]) -> Result<Vec<Place>, IndexError> {
        let mut statement = self.db.prepare("SELECT id, content FROM chunks WHERE vector = ?1")?;
        let mut place = |found: &FoundRow| {
            let row =
                statement.query_row([found.row as i64], |row| Ok(Place { chunk: row.get(0)?, content: row.get(1)? }));
            row.map_err(|e| match e {
                rusqlite::Error::QueryReturnedNoRows => self.db.corrupt(format!("vector {} has no chunk", found.row)),
                e => self.db.error(e),
            })
        };
        rows.iter().map(&mut place).collect()
    }

    fn leave_out(&mut self, contents: &HashSet<i64>) -> Result<(), IndexError> {
        for content in contents {
            for row in self.db.chunks_of(*content)?.into_iter().filter_map(|(_, row)| usize::try_from(row?).ok()) {
                self.groups.iter_mut().for_each(|group| group.clear(row));
            }
        }
        Ok(())
    }
}
