//! The exact search over rows of f16: products with a query, the best of each group, on every core.
//!
//! Rows come a block at a time from whoever has them, so that memory stays at one block a thread however large the matrix is.
//! A block in which nothing is allowed is not read.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;

use crate::bits::Bits;
use crate::error::IndexError;

/// Rows read together: 384 KiB of 384 values, which stay in a core's cache.
pub(crate) const BLOCK_ROWS: usize = 512;

/// Rows of f16, by block.
pub(crate) trait Blocks: Sync {
    /// Rows in all.
    fn rows(&self) -> usize;
    /// Values of a row.
    fn dim(&self) -> usize;
    /// Reads a block: `[BLOCK_ROWS, dim]`, fewer rows in the last.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    fn read(&self, block: usize, into: &mut Vec<f16>) -> Result<(), IndexError>;
}

/// A row and its product with the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    pub row: usize,
    pub score: f32,
}

impl Eq for Scored {}

impl Ord for Scored {
    /// The best is the least: a heap then gives the worst first. Equal scores are ordered by row.
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best rows of each group, best first; rows with equal scores in their order.
///
/// # Shapes
/// - `query`: `[dim]`
/// - `groups`: disjoint sets of rows
/// - returns: at most `k` rows of each group
/// # Numerics
/// f32 products of the f16 values, added in 32 partial sums by position: the same bits on every processor and for every
/// number of threads.
/// # Errors
/// As [`Blocks::read`].
pub(crate) fn best(
    blocks: &dyn Blocks,
    query: &[f32],
    groups: &[Bits],
    k: usize,
) -> Result<Vec<Vec<Scored>>, IndexError> {
    assert_eq!(query.len(), blocks.dim(), "the caller has checked the identity of the query's model");
    let count = blocks.rows().div_ceil(BLOCK_ROWS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count.max(1));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let merged = Mutex::new((vec![BinaryHeap::new(); groups.len()], None));
    let work = || {
        let mut heaps: Vec<BinaryHeap<Scored>> = vec![BinaryHeap::new(); groups.len()];
        let (mut rows, mut row) = (Vec::new(), vec![0f32; query.len()]);
        let mut error = None;
        loop {
            let block = next.fetch_add(1, Relaxed);
            if block >= count || failed.load(Relaxed) {
                break;
            }
            let words = block * BLOCK_ROWS / 64..((block + 1) * BLOCK_ROWS).div_ceil(64);
            let of = |group: &Bits| {
                group.words().get(words.clone()).map_or_else(|| tail(group, words.start), <[u64]>::to_vec)
            };
            let allowed: Vec<Vec<u64>> = groups.iter().map(of).collect();
            if allowed.iter().flatten().all(|word| *word == 0) {
                continue;
            }
            if let Err(e) = blocks.read(block, &mut rows) {
                failed.store(true, Relaxed);
                error = Some(e);
                break;
            }
            for (heap, allowed) in heaps.iter_mut().zip(&allowed) {
                for (at, word) in allowed.iter().enumerate() {
                    let mut left = *word;
                    while left != 0 {
                        let within = at * 64 + left.trailing_zeros() as usize;
                        left &= left - 1;
                        let Some(values) = rows.get(within * query.len()..(within + 1) * query.len()) else { break };
                        values.convert_to_f32_slice(&mut row);
                        let scored = Scored { row: block * BLOCK_ROWS + within, score: dot(query, &row) };
                        push(heap, scored, k);
                    }
                }
            }
        }
        let mut merged = merged.lock().expect("no thread of a scan panics with the lock");
        for (all, own) in merged.0.iter_mut().zip(heaps) {
            own.into_iter().for_each(|scored| push(all, scored, k));
        }
        merged.1 = merged.1.take().or(error);
    };
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    let (heaps, error) = merged.into_inner().expect("no thread of a scan panics with the lock");
    match error {
        Some(error) => Err(error),
        None => Ok(heaps.into_iter().map(BinaryHeap::into_sorted_vec).collect()),
    }
}

/// The words of a group from one on, where it ends within the block.
fn tail(group: &Bits, from: usize) -> Vec<u64> {
    group.words().get(from..).unwrap_or_default().to_vec()
}

fn push(heap: &mut BinaryHeap<Scored>, scored: Scored, k: usize) {
    if heap.len() < k {
        heap.push(scored);
    } else if heap.peek().is_some_and(|worst| scored < *worst) {
        heap.pop();
        heap.push(scored);
    }
}

/// The product of two rows.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn dot(one: &[f32], other: &[f32]) -> f32 {
    let ((one, one_rest), (other, other_rest)) = (one.as_chunks::<32>(), other.as_chunks::<32>());
    let mut sums = [0f32; 32];
    for (one, other) in one.iter().zip(other) {
        for i in 0..32 {
            sums[i] += one[i] * other[i];
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    // Halves added to halves, as vector registers are.
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Held {
        dim: usize,
        values: Vec<f16>,
    }

    impl Blocks for Held {
        fn rows(&self) -> usize {
            self.values.len() / self.dim
        }
        fn dim(&self) -> usize {
            self.dim
        }
        fn read(&self, block: usize, into: &mut Vec<f16>) -> Result<(), IndexError> {
            let rows = block * BLOCK_ROWS..((block + 1) * BLOCK_ROWS).min(self.rows());
            into.clear();
            into.extend_from_slice(&self.values[rows.start * self.dim..rows.end * self.dim]);
            Ok(())
        }
    }

    fn values(count: usize, random: &mut fastrand::Rng) -> Vec<f32> {
        (0..count).map(|_| random.f32() - 0.5).collect()
    }

    #[test]
    fn the_best_rows_are_those_of_a_plain_search_whatever_is_allowed() {
        let mut random = fastrand::Rng::with_seed(7);
        for (rows, dim) in [(1, 1), (63, 33), (512, 64), (1500, 384), (2049, 31)] {
            let held = Held { dim, values: values(rows * dim, &mut random).into_iter().map(f16::from_f32).collect() };
            for round in 0..40 {
                let query = values(dim, &mut random);
                let share = [0.0, 0.01, 0.5, 1.0][round % 4];
                let mut groups = vec![Bits::none(rows), Bits::none(rows)];
                for row in 0..rows {
                    if random.f64() < share {
                        groups[random.usize(..2)].set(row);
                    }
                }
                let k = 1 + random.usize(..20);
                let found = best(&held, &query, &groups, k).unwrap();
                for (group, found) in groups.iter().zip(found) {
                    let allowed = (0..rows).filter(|row| group.words()[row / 64] >> (row % 64) & 1 == 1);
                    let mut plain: Vec<Scored> = allowed
                        .map(|row| {
                            let values: Vec<f32> =
                                held.values[row * dim..(row + 1) * dim].iter().map(|v| v.to_f32()).collect();
                            Scored { row, score: dot(&query, &values) }
                        })
                        .collect();
                    plain.sort();
                    plain.truncate(k);
                    assert_eq!(found, plain, "{rows} x {dim}, {k} of {}", group.count());
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_f64_to_the_precision_of_f32() {
        let mut random = fastrand::Rng::with_seed(1);
        for dim in [0, 1, 31, 32, 33, 384, 1024] {
            let (one, other) = (values(dim, &mut random), values(dim, &mut random));
            let exact: f64 = one.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&one, &other)) - exact).abs() < 1e-5, "{dim}");
        }
    }
}
