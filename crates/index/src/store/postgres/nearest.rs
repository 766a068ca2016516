//! The exact search over vectors on a server.
//!
//! The server orders all that are allowed by its product with the query rounded to f16, without an index of neighbours. What it
//! gives may be off by a bound that is known, so that every row which can be among the best is fetched, and its product computed
//! here from the stored f16 and the query's f32: the same bits as of a SQLite file.

use std::collections::{HashMap, HashSet};

use half::f16;
use half::slice::HalfFloatSliceExt;
use omniburn_kernels::cpu::nearest::dot;
use pgvector::HalfVector;

use super::session::Server;
use super::words::Values;
use crate::error::IndexError;
use crate::kind::Modality;
use crate::store::rows::{FoundRow, Place};
use crate::store::{Condition, VectorSearch};

/// Rows that are fetched beyond those that are asked for: most of what the bound leaves open is among them.
const BEYOND: usize = 200;
/// The length of a stored vector at most; an import takes no longer one.
const LONGEST: f64 = 1.1;

pub(super) struct Nearest<'a> {
    server: &'a Server,
    /// The contents that are allowed, as a list for `IN` with its values; none where all are.
    allowed: Option<Condition>,
    left_out: Vec<i64>,
    places: HashMap<usize, Place>,
}

/// How much a product of the server may be off that of [`dot`], for a query and what it is rounded to.
fn most_off(query: &[f32], rounded: &[f16]) -> f64 {
    let off = |(value, rounded): (&f32, &f16)| (f64::from(*value) - f64::from(rounded.to_f32())).powi(2);
    let rounding = query.iter().zip(rounded).map(off).sum::<f64>().sqrt();
    let length = query.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    // Sums of n products in f32 in any order, here and there: n roundings each.
    let sums = 2.0 * (query.len() as f64 + 2.0) * f64::from(f32::EPSILON) * (length + rounding);
    LONGEST * (rounding + sums)
}

impl<'a> Nearest<'a> {
    pub fn of(server: &'a Server, condition: &Condition) -> Self {
        let allowed = Some(condition.clone()).filter(|condition| !condition.is_open());
        Self { server, allowed, left_out: Vec::new(), places: HashMap::new() }
    }

    /// What is allowed of `vectors v`.
    fn condition(&self, values: &mut Values) -> Result<String, IndexError> {
        let mut sql = match &self.allowed {
            None => "true".to_string(),
            Some(condition) => format!("v.content IN ({})", self.server.allowed(condition, values)?),
        };
        if !self.left_out.is_empty() {
            sql += &format!(" AND v.content <> ALL({})", values.add(self.left_out.clone()));
        }
        Ok(sql)
    }

    /// The best rows of one modality.
    fn best_of(&mut self, query: &[f32], modality: Modality, most: usize) -> Result<Vec<FoundRow>, IndexError> {
        let mut rounded = vec![f16::ZERO; query.len()];
        rounded.convert_from_f32_slice(query);
        let margin = 2.0 * most_off(query, &rounded);
        let wide = most.saturating_add(BEYOND);
        let mut values = Values::default();
        let condition = self.condition(&mut values)?;
        let (sought, of) = (values.add(HalfVector::from(rounded)), values.add(modality as i16));
        let columns = "v.id, v.chunk, v.content, v.modality, v.sum, v.vector";
        let product = format!("(-(v.vector <#> {sought}))");
        let from = format!("FROM vectors v WHERE v.modality = {of} AND {condition}");
        let limit = values.add(i64::try_from(wide).unwrap_or(i64::MAX));
        let sql = format!("SELECT {columns}, {product} {from} ORDER BY {product} DESC LIMIT {limit}");
        let mut rows = self.server.query(&sql, &values.all())?;
        if rows.len() == wide {
            let product_of = |at: usize| self.server.value::<f64>(&rows[at], 6);
            let least = product_of(most.saturating_sub(1))? - margin;
            if product_of(wide - 1)? >= least {
                // More of them are as near as the bound can tell.
                values.pop();
                let least = values.add(least);
                let sql = format!("SELECT {columns}, {product} {from} AND {product} >= {least}");
                rows = self.server.query(&sql, &values.all())?;
            }
        }
        let mut found = Vec::with_capacity(rows.len());
        let mut wide_row = vec![0f32; query.len()];
        for row in &rows {
            let vector = self.server.vector(row)?;
            let number = usize::try_from(vector.id).ok().filter(|_| vector.values.len() == query.len());
            let row = number.ok_or_else(|| self.server.corrupt("a vector with a number or a length that none has"))?;
            vector.values.convert_to_f32_slice(&mut wide_row);
            self.places.insert(row, Place { chunk: vector.chunk, content: vector.content });
            found.push(FoundRow { row, score: dot(query, &wide_row) });
        }
        found.sort();
        found.truncate(most);
        Ok(found)
    }
}

impl VectorSearch for Nearest<'_> {
    fn allowed(&self) -> Result<usize, IndexError> {
        let mut values = Values::default();
        let condition = self.condition(&mut values)?;
        self.server.count(&format!("SELECT count(*) FROM vectors v WHERE {condition}"), &values.all())
    }

    fn best(&mut self, vector: &[f32], most: usize) -> Result<[Vec<FoundRow>; 4], IndexError> {
        let mut best: [Vec<FoundRow>; 4] = Default::default();
        for (modality, best) in Modality::ALL.into_iter().zip(&mut best).filter(|_| most > 0) {
            *best = self.best_of(vector, modality, most)?;
        }
        Ok(best)
    }

    fn places(&mut self, rows: &[FoundRow]) -> Result<Vec<Place>, IndexError> {
        Ok(rows.iter().map(|found| self.places[&found.row]).collect())
    }

    fn leave_out(&mut self, contents: &HashSet<i64>) -> Result<(), IndexError> {
        self.left_out.extend(contents);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_for_what_is_computed_in_any_order() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut unit = |dim: usize| {
            let values: Vec<f32> = (0..dim).map(|_| random.f32() - 0.5).collect();
            let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.into_iter().map(|value| value / length).collect::<Vec<f32>>()
        };
        for dim in [1, 64, 384, 1024] {
            for _ in 0..50 {
                let (query, row) = (unit(dim), unit(dim));
                let halves =
                    |values: &[f32]| -> Vec<f16> { values.iter().map(|value| f16::from_f32(*value)).collect() };
                let (rounded, row) = (halves(&query), halves(&row));
                let there: f32 = rounded.iter().zip(&row).rev().map(|(a, b)| a.to_f32() * b.to_f32()).sum();
                let wide: Vec<f32> = row.iter().map(|value| value.to_f32()).collect();
                let off = f64::from((there - dot(&query, &wide)).abs());
                assert!(off <= most_off(&query, &rounded), "{dim}: {off}");
            }
        }
    }
}
