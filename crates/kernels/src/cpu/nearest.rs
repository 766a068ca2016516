//! The rows with the largest products with a query, found exactly: every row is multiplied as 8-bit codes, and those that can be
//! among the best once more as they are.
//!
//! A row `x` has codes `c` and a scale `s` beside it, `x = s c + e`; a query `q` becomes whole numbers `p` of 16 bits and a
//! scale `t`, `q = t p + g`. What `s t (c p)` leaves out of the product `x q = s t (c p) + s c g + e q` is, by Cauchy and
//! Schwarz, at most `|x| |g| + |e| (|q| + |g|)`, and what f32 rounds away is bounded by the same norms. So each product has a
//! least and a greatest value, and a row whose greatest is below the k-th best least is not among the k best: the others are
//! multiplied by [`dot`], and what comes out is what a search by [`dot`] alone would give, to the bit.
//!
//! Products of codes are whole numbers without rounding, so that every set of instructions finds the same rows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::Isa;
use super::simd::{LANES, Simd, Vectorized, vectorize};

/// Rows of a block.
pub const BLOCK_ROWS: usize = 512;
/// Rows of which a word of a group tells.
const WORD_ROWS: usize = 64;
/// Codes that are multiplied together at most: a row of codes is filled up with zeros to a multiple.
const STEP: usize = 64;
/// The largest code.
const LARGEST_CODE: f32 = 127.0;
/// The largest whole number of a query.
const LARGEST_NUMBER: f64 = 32767.0;
/// What the sizes of a query's numbers may add up to, so that no product of a row exceeds 32 bits.
const LARGEST_SUM: f64 = (i32::MAX as f64) / 127.0;
/// Sizes of a query's values within which products with values of f16 keep their precision in f32.
const SIZES: std::ops::Range<f64> = 1e-20..1e20;
/// A group of so many times as many rows as are asked for is small enough to be multiplied without its codes.
const FEW: usize = 2;
/// Rows that a thread multiplies as they are before it asks for more.
const PIECE: usize = 64;

/// Bytes of a row of codes.
pub const fn row_bytes(dim: usize) -> usize {
    dim.next_multiple_of(STEP)
}

/// Bytes of a block of so many rows: a scale of f32 a row, the length of what its codes leave out of it as f32, and the rows of
/// codes; numbers with the least byte first.
pub const fn block_bytes(rows: usize, dim: usize) -> usize {
    rows * (8 + row_bytes(dim))
}

/// Adds the block of some rows; gives the largest length of a row, those with values that are not finite left out.
///
/// # Shapes
/// - `values`: `[rows, dim]`
/// - `into`: [`block_bytes`] more
/// # Numerics
/// A code is the value in units of the row's scale, rounded to the nearest; the scale is a 127th of the largest size. Lengths are
/// no less than they are, by a millionth at most.
pub fn encode(values: &[f32], dim: usize, into: &mut Vec<u8>) -> f32 {
    assert!(dim > 0 && values.len().is_multiple_of(dim), "a whole number of rows");
    let (rows, width, start) = (values.len() / dim, row_bytes(dim), into.len());
    into.resize(start + block_bytes(rows, dim), 0);
    let (heads, codes) = into[start..].split_at_mut(8 * rows);
    let (scales, lengths) = heads.split_at_mut(4 * rows);
    let mut longest = 0f64;
    let heads = scales.as_chunks_mut::<4>().0.iter_mut().zip(lengths.as_chunks_mut::<4>().0);
    for ((row, codes), (scale, length)) in values.chunks(dim).zip(codes.chunks_mut(width)).zip(heads) {
        let largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
        if !row.iter().all(|value| value.is_finite()) {
            // Nothing is known of its products.
            *length = f32::INFINITY.to_le_bytes();
            continue;
        }
        let unit = largest / LARGEST_CODE;
        let per_unit = if unit > 0.0 { 1.0 / unit } else { 0.0 };
        let per_unit = if per_unit.is_finite() { per_unit } else { 0.0 };
        let (mut left_out, mut all) = ([0f64; 8], [0f64; 8]);
        for (values, codes) in row.chunks(8).zip(codes.chunks_mut(8)) {
            for (at, (value, code)) in values.iter().zip(codes).enumerate() {
                // Adding 1.5 * 2^23 leaves no bits behind the point; the sum rounds to nearest even.
                let rounded = (value * per_unit + 12_582_912.0) - 12_582_912.0;
                let rounded = rounded.clamp(-LARGEST_CODE, LARGEST_CODE);
                *code = (rounded as i8).cast_unsigned();
                let off = f64::from(*value) - f64::from(unit) * f64::from(rounded);
                left_out[at] += off * off;
                all[at] += f64::from(*value) * f64::from(*value);
            }
        }
        *scale = unit.to_le_bytes();
        *length = above(left_out.iter().sum::<f64>().sqrt()).to_le_bytes();
        longest = longest.max(all.iter().sum::<f64>().sqrt());
    }
    above(longest)
}

/// The f32 next above a length in f64, and above what its sum rounded away.
fn above(length: f64) -> f32 {
    let near = (length * (1.0 + 1e-9)) as f32;
    if near == 0.0 && length == 0.0 { 0.0 } else { near.next_up() }
}

/// A row and its product with a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// From 0.
    pub row: usize,
    /// As of [`dot`].
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

/// Rows that are searched.
pub trait CodedRows: Sync {
    /// Why rows cannot be read.
    type Error: Send;
    /// Rows in all.
    fn rows(&self) -> usize;
    /// Values of a row.
    fn dim(&self) -> usize;
    /// The largest length of a row, as [`encode`] gives it.
    fn longest(&self) -> f32;
    /// A block as [`encode`] wrote it: [`BLOCK_ROWS`] rows, fewer in the last. `buffer` is the caller's, for what is read.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    fn block<'a>(&'a self, block: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Self::Error>;
    /// The values of a row: `[dim]`. `buffer` is the caller's, for what is read.
    ///
    /// # Errors
    /// As of [`CodedRows::block`].
    fn row(&self, row: usize, values: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), Self::Error>;
}

/// The best rows of each group, best first; rows with equal scores in their order.
///
/// # Shapes
/// - `query`: `[dim]`
/// - `groups`: disjoint sets of rows, a bit a row, the least first
/// - returns: at most `k` rows of each group
/// # Numerics
/// Scores are those of [`dot`], and so are the rows: the same for every set of instructions and every number of threads.
/// # Errors
/// As [`CodedRows::block`].
/// # Panics
/// If the query has another number of values, or a block is shorter than it must be.
pub fn nearest<R: CodedRows>(
    rows: &R,
    query: &[f32],
    groups: &[&[u64]],
    k: usize,
) -> Result<Vec<Vec<Scored>>, R::Error> {
    assert_eq!(query.len(), rows.dim(), "values of a query");
    if k == 0 {
        return Ok(vec![Vec::new(); groups.len()]);
    }
    let groups: Vec<Group<'_>> = groups.iter().map(|words| Group { words, rows: rows.rows() }).collect();
    let asked = Asked::of(query, rows.longest());
    let is_few = |group: &Group<'_>| asked.is_none() || group.count() <= k.saturating_mul(FEW);
    let few: Vec<bool> = groups.iter().map(is_few).collect();
    let mut lists: Vec<Vec<Candidate>> = match asked {
        Some(asked) if few.contains(&false) => candidates(rows, &asked, &groups, &few, k)?,
        _ => vec![Vec::new(); groups.len()],
    };
    for ((list, group), _) in lists.iter_mut().zip(&groups).zip(&few).filter(|(_, few)| **few) {
        list.extend(group.rows().map(|row| Candidate { row, greatest: f32::INFINITY }));
    }
    let mut best = Vec::with_capacity(groups.len());
    for mut list in lists {
        // The likeliest first: what they reach, others have to reach as well.
        let rest = if list.len() > k {
            list.select_nth_unstable_by(k - 1, |one, other| other.greatest.total_cmp(&one.greatest));
            list.split_off(k)
        } else {
            Vec::new()
        };
        let mut scored = scores(rows, query, list, k)?;
        let floor = scored.get(k - 1).map_or(f32::NEG_INFINITY, |worst| worst.score);
        let reaches = |one: &Candidate| one.greatest >= floor || floor.is_nan();
        let rest: Vec<Candidate> = rest.into_iter().filter(reaches).collect();
        if !rest.is_empty() {
            scored.extend(scores(rows, query, rest, k)?);
            scored.sort_unstable();
            scored.truncate(k);
        }
        best.push(scored);
    }
    Ok(best)
}

/// A set of rows.
struct Group<'a> {
    words: &'a [u64],
    /// Bits from here on count for nothing.
    rows: usize,
}

impl Group<'_> {
    /// The rows from 64 times `at` on.
    fn word(&self, at: usize) -> u64 {
        let word = self.words.get(at).copied().unwrap_or(0);
        match self.rows.saturating_sub(at * WORD_ROWS) {
            0 => 0,
            rows @ 1..WORD_ROWS => word & ((1 << rows) - 1),
            _ => word,
        }
    }

    fn count(&self) -> usize {
        (0..self.words.len()).map(|at| self.word(at).count_ones() as usize).sum()
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.words.len()).flat_map(|at| bits(self.word(at)).map(move |bit| at * WORD_ROWS + bit))
    }
}

/// The places of bits, the least first.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    let mut left = word;
    std::iter::from_fn(move || {
        let at = left.trailing_zeros() as usize;
        (left != 0).then(|| {
            left &= left - 1;
            at
        })
    })
}

/// A query as whole numbers, with how far its products with codes may be off those of [`dot`].
struct Asked {
    /// `[row_bytes(dim)]`, zeros behind `dim`.
    numbers: Vec<i16>,
    scale: f32,
    /// What the length that a row's codes leave out is worth.
    per_length: f32,
    /// What is open for every row.
    beside: f32,
}

impl Asked {
    /// `None` for a query whose products have no bounds, or none in f32.
    fn of(query: &[f32], longest: f32) -> Option<Self> {
        let sizes = || query.iter().map(|value| f64::from(value.abs()));
        let largest = sizes().fold(0f64, f64::max);
        if !SIZES.contains(&largest) || !query.iter().all(|value| value.is_finite()) || !longest.is_finite() {
            return None;
        }
        let values = query.len() as f64;
        let least = (largest / LARGEST_NUMBER).max(sizes().sum::<f64>() / (LARGEST_SUM - values));
        let scale = (least as f32).next_up();
        let mut numbers = vec![0i16; row_bytes(query.len())];
        let (mut left_out, mut all) = (0f64, 0f64);
        for (number, value) in numbers.iter_mut().zip(query) {
            let rounded = (f64::from(*value) / f64::from(scale)).round();
            *number = rounded as i16;
            left_out += (f64::from(*value) - f64::from(scale) * rounded).powi(2);
            all += f64::from(*value).powi(2);
        }
        let more = 1.0 + 1e-9;
        let (left_out, all) = (left_out.sqrt() * more, all.sqrt() * more);
        // Roundings in a row of `dot`: of a product, of the sums of a lane, of lanes, and of what is behind the last 32.
        let unit = f64::from(f32::EPSILON) / 2.0;
        let roundings = (values / 32.0 + 39.0) * unit;
        let roundings = roundings / (1.0 - roundings);
        // The roundings of the bounds themselves: fewer than 16 units of each of their parts.
        let own = 32.0 * unit;
        let per_length = (left_out + all) * (1.0 + 256.0 * unit);
        let beside = f64::from(longest) * (left_out + (roundings + own) * (left_out + all));
        Some(Self { numbers, scale, per_length: above(per_length), beside: above(beside) })
    }
}

/// A row that may be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    row: usize,
    /// What its product is at most.
    greatest: f32,
}

/// A value in its total order.
#[derive(Debug, Clone, Copy)]
struct Total(f32);

impl Ord for Total {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Total {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Total {}

/// What a thread knows of a group.
#[derive(Default)]
struct Found {
    /// The k best of the least values of products, the worst first.
    least: BinaryHeap<Reverse<Total>>,
    /// The worst of k, from which on a row may be among the best.
    floor: Option<f32>,
    rows: Vec<Candidate>,
    /// Rows from which on those below the floor are taken out.
    most: usize,
}

impl Found {
    fn push_least(&mut self, least: f32, k: usize) {
        if self.least.len() < k {
            self.least.push(Reverse(Total(least)));
        } else if self.least.peek().is_some_and(|Reverse(worst)| Total(least) > *worst) {
            self.least.pop();
            self.least.push(Reverse(Total(least)));
        }
        if self.least.len() == k {
            self.floor = self.least.peek().map(|Reverse(worst)| worst.0);
        }
    }

    fn reaches(&self, greatest: f32) -> bool {
        self.floor.is_none_or(|floor| greatest >= floor)
    }

    fn push(&mut self, row: usize, product: f32, open: f32, k: usize) {
        let greatest = product + open;
        if !self.reaches(greatest) {
            return;
        }
        self.push_least(product - open, k);
        self.rows.push(Candidate { row, greatest });
        if self.rows.len() >= self.most {
            let floor = self.floor.unwrap_or(f32::NEG_INFINITY);
            self.rows.retain(|one| one.greatest >= floor);
            self.most = (2 * self.rows.len()).max(8 * k + 1024);
        }
    }

    fn join(&mut self, other: Found, k: usize) {
        other.least.into_iter().for_each(|Reverse(least)| self.push_least(least.0, k));
        self.rows.extend(other.rows);
    }
}

/// Rows of each group that may be among its best; none of the groups that are few.
fn candidates<R: CodedRows>(
    rows: &R,
    asked: &Asked,
    groups: &[Group<'_>],
    few: &[bool],
    k: usize,
) -> Result<Vec<Vec<Candidate>>, R::Error> {
    let (isa, dim, count) = (Isa::current(), rows.dim(), rows.rows().div_ceil(BLOCK_ROWS));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut found: Vec<Found> = groups.iter().map(|_| Found { most: 8 * k + 1024, ..Found::default() }).collect();
        let mut buffer = Vec::new();
        let mut word = Word::new();
        while !failed.load(Relaxed) {
            let block = next.fetch_add(1, Relaxed);
            if block >= count {
                break;
            }
            let in_block = (rows.rows() - block * BLOCK_ROWS).min(BLOCK_ROWS);
            let words = block * (BLOCK_ROWS / WORD_ROWS)..(block * BLOCK_ROWS + in_block).div_ceil(WORD_ROWS);
            let many = || groups.iter().zip(few).filter(|(_, few)| !**few).map(|(group, _)| group);
            let union = |at: usize| many().fold(0, |all, group| all | group.word(at));
            if words.clone().all(|at| union(at) == 0) {
                continue;
            }
            let bytes = rows.block(block, &mut buffer).inspect_err(|_| failed.store(true, Relaxed))?;
            assert_eq!(bytes.len(), block_bytes(in_block, dim), "bytes of a block");
            let codes = Codes::of(bytes, in_block, dim);
            for at in words.clone() {
                let all = union(at);
                if all == 0 {
                    continue;
                }
                let first = (at - words.start) * WORD_ROWS;
                word.multiply(isa, &codes, asked, first, all);
                for ((group, found), _) in groups.iter().zip(&mut found).zip(few).filter(|(_, few)| !**few) {
                    if !found.reaches(word.greatest) {
                        continue;
                    }
                    for bit in bits(group.word(at)) {
                        found.push(at * WORD_ROWS + bit, word.products[bit], word.open[bit], k);
                    }
                }
            }
        }
        Ok(found)
    };
    let mut all: Vec<Found> = groups.iter().map(|_| Found::default()).collect();
    for found in on_every_core(count, work) {
        all.iter_mut().zip(found?).for_each(|(all, found)| all.join(found, k));
    }
    let reaching = |all: Found| {
        let floor = all.floor.unwrap_or(f32::NEG_INFINITY);
        all.rows.into_iter().filter(|one| one.greatest >= floor).collect()
    };
    Ok(all.into_iter().map(reaching).collect())
}

/// The best of some rows by [`dot`], at most `k`.
fn scores<R: CodedRows>(
    rows: &R,
    query: &[f32],
    mut candidates: Vec<Candidate>,
    k: usize,
) -> Result<Vec<Scored>, R::Error> {
    candidates.sort_unstable_by_key(|one| one.row);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut best: BinaryHeap<Scored> = BinaryHeap::new();
        let (mut values, mut buffer) = (vec![0f32; query.len()], Vec::new());
        while !failed.load(Relaxed) {
            let Some(piece) = candidates.chunks(PIECE).nth(next.fetch_add(1, Relaxed)) else { break };
            for one in piece {
                rows.row(one.row, &mut values, &mut buffer).inspect_err(|_| failed.store(true, Relaxed))?;
                let scored = Scored { row: one.row, score: dot(query, &values) };
                if best.len() < k {
                    best.push(scored);
                } else if best.peek().is_some_and(|worst| scored < *worst) {
                    best.pop();
                    best.push(scored);
                }
            }
        }
        Ok(best.into_vec())
    };
    let mut all = Vec::new();
    for best in on_every_core(candidates.len().div_ceil(4 * PIECE), work) {
        all.extend(best?);
    }
    all.sort_unstable();
    all.truncate(k);
    Ok(all)
}

/// Runs the same work on as many threads as there are cores, but no more than are worth it. Threads of their own: those of the
/// pool may be at a long piece of somebody else's.
fn on_every_core<T: Send>(worth: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(worth);
    if threads <= 1 {
        return vec![work()];
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut all = vec![work()];
        for other in others {
            match other.join() {
                Ok(done) => all.push(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// A block of rows.
struct Codes<'a> {
    /// `[rows]`
    scales: &'a [[u8; 4]],
    /// `[rows]`
    lengths: &'a [[u8; 4]],
    /// `[rows, row_bytes]`
    codes: &'a [u8],
    row_bytes: usize,
}

impl<'a> Codes<'a> {
    fn of(bytes: &'a [u8], rows: usize, dim: usize) -> Self {
        let (heads, codes) = bytes.split_at(8 * rows);
        let (scales, lengths) = heads.as_chunks::<4>().0.split_at(rows);
        Self { scales, lengths, codes, row_bytes: row_bytes(dim) }
    }
}

/// The products of up to 64 rows.
struct Word {
    sums: [i32; WORD_ROWS],
    products: [f32; WORD_ROWS],
    /// How far a product may be off.
    open: [f32; WORD_ROWS],
    /// The greatest value of all products.
    greatest: f32,
}

impl Word {
    fn new() -> Self {
        Self { sums: [0; WORD_ROWS], products: [0.0; WORD_ROWS], open: [0.0; WORD_ROWS], greatest: 0.0 }
    }

    /// Multiplies those of a block's rows from `first` on that have a bit.
    fn multiply(&mut self, isa: Isa, codes: &Codes<'_>, asked: &Asked, first: usize, rows: u64) {
        /// From so many on, all 64 side by side take less time than each by itself.
        const MANY: u32 = 16;
        let there = (codes.scales.len() - first).min(WORD_ROWS);
        products(isa, &codes.codes[first * codes.row_bytes..], &asked.numbers, rows, &mut self.sums);
        let (scales, lengths) = (&codes.scales[first..first + there], &codes.lengths[first..first + there]);
        let bound = |sum: i32, scale: [u8; 4], length: [u8; 4]| {
            let product = (f32::from_le_bytes(scale) * asked.scale) * sum as f32;
            (product, f32::from_le_bytes(length) * asked.per_length + asked.beside)
        };
        self.greatest = f32::NEG_INFINITY;
        if rows.count_ones() < MANY {
            for at in bits(rows) {
                let (product, open) = bound(self.sums[at], scales[at], lengths[at]);
                (self.products[at], self.open[at]) = (product, open);
                self.greatest = self.greatest.max(product + open);
            }
            return;
        }
        let outs = self.sums.iter().zip(self.products.iter_mut().zip(&mut self.open));
        for ((scale, length), (sum, (product, open))) in scales.iter().zip(lengths).zip(outs) {
            (*product, *open) = bound(*sum, *scale, *length);
            let greatest = *product + *open;
            self.greatest = if greatest > self.greatest { greatest } else { self.greatest };
        }
    }
}

/// Products of rows of codes with whole numbers of 16 bits.
///
/// # Shapes
/// - `codes`: `[rows, numbers]`, signed bytes
/// - `numbers`: `[numbers]`, a multiple of 64; their sizes add up to (2^31 - 1) / 127 at most
/// - `rows`: the rows that are multiplied, a bit each
/// - `sums`: theirs are written
/// # Panics
/// If there are fewer rows than bits say, or the numbers are no multiple of 64.
pub fn products(isa: Isa, codes: &[u8], numbers: &[i16], rows: u64, sums: &mut [i32; 64]) {
    assert!(numbers.len().is_multiple_of(STEP), "numbers of a query");
    let needed = WORD_ROWS - rows.leading_zeros() as usize;
    assert!(codes.len() >= needed * numbers.len(), "{needed} rows of {} codes", numbers.len());
    let mut left = rows;
    while left != 0 {
        // Four rows at once; the last one stands in for those that are missing.
        let mut four = [0usize; 4];
        let mut last = 0;
        for place in &mut four {
            if left != 0 {
                last = left.trailing_zeros() as usize;
                left &= left - 1;
            }
            *place = last;
        }
        let begin = four.map(|row| codes[row * numbers.len()..].as_ptr().cast::<i8>());
        // Rows that follow each other, as others after them will.
        let ahead = four[3] == four[0] + 3;
        // SAFETY: each row is there, as are the numbers; `Isa` is one that this machine has.
        let four_sums = unsafe { four_products(isa, begin, numbers.as_ptr(), numbers.len(), ahead) };
        for (row, sum) in four.into_iter().zip(four_sums) {
            sums[row] = sum;
        }
    }
}

/// # Safety
/// The set is available; pointers are valid for `count` values, a multiple of [`STEP`].
#[inline(always)]
unsafe fn four_products(isa: Isa, rows: [*const i8; 4], numbers: *const i16, count: usize, ahead: bool) -> [i32; 4] {
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if ahead && isa >= Isa::Avx2 {
            x86::ask_ahead(rows[0], 4 * count);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = ahead;
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 => x86::vnni(rows, numbers, count),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512(rows, numbers, count),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(rows, numbers, count),
            // NEON is what the compiler makes of this on aarch64.
            _ => rows
                .map(|row| plain(std::slice::from_raw_parts(row, count), std::slice::from_raw_parts(numbers, count))),
        }
    }
}

/// The product of two rows of whole numbers.
fn plain(codes: &[i8], numbers: &[i16]) -> i32 {
    let mut sums = [0i32; LANES];
    for (codes, numbers) in codes.as_chunks::<LANES>().0.iter().zip(numbers.as_chunks::<LANES>().0) {
        for at in 0..LANES {
            sums[at] += i32::from(codes[at]) * i32::from(numbers[at]);
        }
    }
    sums.into_iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::STEP;

    /// How far ahead memory is asked for: what is read in order the processor asks for itself, but not beyond a page. Measured on
    /// Zen 3 with 384 MB in a mapped file, two threads: 45 ms without, 37 with.
    const AHEAD: usize = 8 << 10;

    /// Asks for what lies behind so many bytes.
    #[inline(always)]
    pub(super) unsafe fn ask_ahead(from: *const i8, bytes: usize) {
        for line in (0..bytes).step_by(64) {
            // An address at which nothing lies is not asked for.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line)) };
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(rows: [*const i8; 4], numbers: *const i16, count: usize) -> [i32; 4] {
        unsafe {
            let mut sums = [_mm256_setzero_si256(); 4];
            let mut at = 0;
            while at < count {
                let first = _mm256_loadu_si256(numbers.add(at).cast());
                let second = _mm256_loadu_si256(numbers.add(at + 16).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(row.add(at).cast()));
                    let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(row.add(at + 16).cast()));
                    let both = _mm256_add_epi32(_mm256_madd_epi16(low, first), _mm256_madd_epi16(high, second));
                    *sum = _mm256_add_epi32(*sum, both);
                }
                at += STEP / 2;
            }
            let pairs = [_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3])];
            let four = _mm256_hadd_epi32(pairs[0], pairs[1]);
            let four = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
            let mut out = [0; 4];
            _mm_storeu_si128(out.as_mut_ptr().cast(), four);
            out
        }
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn avx512(rows: [*const i8; 4], numbers: *const i16, count: usize) -> [i32; 4] {
        unsafe {
            let mut sums = [_mm512_setzero_si512(); 4];
            let mut at = 0;
            while at < count {
                let number = _mm512_loadu_si512(numbers.add(at).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let codes = _mm512_cvtepi8_epi16(_mm256_loadu_si256(row.add(at).cast()));
                    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(codes, number));
                }
                at += STEP / 2;
            }
            sums.map(|sum| _mm512_reduce_add_epi32(sum))
        }
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn vnni(rows: [*const i8; 4], numbers: *const i16, count: usize) -> [i32; 4] {
        unsafe {
            let mut sums = [_mm512_setzero_si512(); 4];
            let mut at = 0;
            while at < count {
                let number = _mm512_loadu_si512(numbers.add(at).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let codes = _mm512_cvtepi8_epi16(_mm256_loadu_si256(row.add(at).cast()));
                    *sum = _mm512_dpwssd_epi32(*sum, codes, number);
                }
                at += STEP / 2;
            }
            sums.map(|sum| _mm512_reduce_add_epi32(sum))
        }
    }
}

/// The product of two rows.
///
/// # Numerics
/// f32 products, added in 32 partial sums by position, halves of these added to halves: the same bits for every set of
/// instructions.
/// # Panics
/// If one has more values.
pub fn dot(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len(), "values of two rows");
    let whole = one.len() - one.len() % (2 * LANES);
    let (one, one_rest) = one.split_at(whole);
    let (other, other_rest) = other.split_at(whole);
    // SAFETY: the set is one that this machine has, and both rows have as many values.
    let sum = unsafe { vectorize(Isa::current(), Dot { one: one.as_ptr(), other: other.as_ptr(), count: whole }) };
    sum + one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum::<f32>()
}

/// The product of two rows of a multiple of 32 values.
struct Dot {
    one: *const f32,
    other: *const f32,
    count: usize,
}

impl Vectorized for Dot {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<V: Simd>(self) -> f32 {
        unsafe {
            let mut sums = [V::splat(0.0); 2];
            let mut at = 0;
            while at < self.count {
                for (half, sum) in sums.iter_mut().enumerate() {
                    let from = at + half * LANES;
                    // Not in one rounding, which not every set has.
                    *sum = sum.add(V::load(self.one.add(from)).mul(V::load(self.other.add(from))));
                }
                at += 2 * LANES;
            }
            sums[0].add(sums[1]).sum()
        }
    }
}
