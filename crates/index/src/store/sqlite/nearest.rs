//! The exact search over vectors in SQLite: the cache of pages scanned on this machine, with a bit a row for what may be found.

use std::collections::HashSet;

use rusqlite::params_from_iter;

use super::Database;
use super::matrix::Matrix;
use super::pages::{PageHead, heads};
use super::words::Where;
use crate::bits::Bits;
use crate::error::IndexError;
use crate::scan;
use crate::store::rows::{FoundRow, Place};
use crate::store::{Condition, VectorSearch};

pub(super) struct Nearest<'a> {
    db: &'a Database,
    heads: Vec<PageHead>,
    dim: usize,
    /// The rows that may be found, by modality.
    groups: [Bits; 4],
    /// Opened by the first look.
    matrix: Option<Matrix>,
}

impl<'a> Nearest<'a> {
    pub fn of(db: &'a Database, condition: &Condition) -> Result<Self, IndexError> {
        let heads = heads(db)?;
        let groups = allowed(db, &heads, condition)?;
        Ok(Self { db, heads, dim: db.meta()?.dim, groups, matrix: None })
    }
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
        let mut matrix = match self.matrix.take() {
            Some(matrix) => matrix,
            None => Matrix::open(self.db, &self.heads, self.dim)?,
        };
        let found = match scan::best(&matrix, vector, &self.groups, most) {
            // A damaged cache is made anew.
            Err(error) if matrix.is_cached() => {
                tracing::debug!("the cache of vectors is made anew: {error}");
                matrix = Matrix::again(self.db, &self.heads, self.dim)?;
                scan::best(&matrix, vector, &self.groups, most)
            }
            found => found,
        };
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
