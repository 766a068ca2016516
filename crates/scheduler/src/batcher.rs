//! What shares a pass: the choice alone, from sizes and deadlines.

use std::ops::{Add, AddAssign};
use std::time::{Duration, Instant};

/// How much a request is, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows that are computed: tokens, patches or frames.
    pub rows: u64,
    /// Pairs of rows that see each other: the sum of the squares of the lengths of sequences.
    pub pairs: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            pairs: self.pairs.saturating_add(other.pairs),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// One that might go along.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<K> {
    /// What it is known by.
    pub key: K,
    /// How much it is.
    pub size: Size,
    /// When it is of no use any more.
    pub deadline: Option<Instant>,
}

/// Those that go along with a pass of size `head`, in the order in which they were chosen.
///
/// Urgent ones first, the nearest deadline before the others; then in the order given, which is that of arrival, whatever their
/// length: with the shortest first, long requests were left for whole seconds while short ones kept coming. A deadline is urgent
/// where it is no further from `now` than `urgent`. One that does not fit is left, and those after it are still looked at, so
/// nobody stays behind who would have fitted.
///
/// The head itself is not asked whether it fits: it has the turn.
pub fn batch_mates<K: Copy>(
    head: Size,
    candidates: impl IntoIterator<Item = Candidate<K>>,
    now: Instant,
    urgent: Duration,
    mut fits: impl FnMut(Size) -> bool,
) -> Vec<K> {
    let mut candidates: Vec<Candidate<K>> = candidates.into_iter().collect();
    // Stable, so that equals stay in order.
    candidates.sort_by_key(|candidate| {
        let pressing = candidate.deadline.filter(|at| at.saturating_duration_since(now) <= urgent);
        (pressing.is_none(), pressing)
    });
    let mut sum = head;
    let mut mates = Vec::new();
    for Candidate { key, size, .. } in candidates {
        if fits(sum + size) {
            sum += size;
            mates.push(key);
        }
    }
    mates
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const URGENT: Duration = Duration::from_millis(100);

    fn rows(rows: u64) -> Size {
        Size { rows, pairs: rows * rows, bytes: 8 * rows }
    }

    /// The mates of a head of one row, by their places, with room for `most` rows.
    fn mates(sizes: &[(u64, Option<u64>)], most: u64) -> Vec<usize> {
        let now = Instant::now();
        let candidates = sizes.iter().enumerate().map(|(key, &(size, deadline_ms))| Candidate {
            key,
            size: rows(size),
            deadline: deadline_ms.map(|ms| now + Duration::from_millis(ms)),
        });
        batch_mates(rows(1), candidates, now, URGENT, |size| size.rows <= most)
    }

    #[test]
    fn the_oldest_go_first_whatever_their_length_and_room_that_is_left_is_filled() {
        assert_eq!(mates(&[(9, None), (3, None), (5, None), (3, None)], 100), [0, 1, 2, 3]);
        assert_eq!(mates(&[(9, None), (3, None), (5, None), (2, None)], 13), [0, 1]);
        assert_eq!(mates(&[(9, None), (30, None), (5, None), (2, None)], 13), [0, 3]);
    }

    #[test]
    fn a_near_deadline_goes_before_older_ones_and_a_far_one_does_not() {
        assert_eq!(mates(&[(2, None), (9, Some(50)), (5, Some(10)), (4, Some(5000))], 100), [2, 1, 0, 3]);
        assert_eq!(mates(&[(2, None), (9, Some(50)), (5, Some(10)), (4, Some(5000))], 12), [2, 0, 3]);
    }

    #[test]
    fn one_that_does_not_fit_does_not_keep_out_the_next() {
        assert_eq!(mates(&[(50, Some(1)), (4, None), (60, None)], 10), [1]);
        assert!(mates(&[(50, None)], 10).is_empty());
    }

    #[test]
    fn sizes_do_not_overflow() {
        let most = Size { rows: u64::MAX, pairs: u64::MAX, bytes: 1 };
        assert_eq!(most + rows(1), Size { rows: u64::MAX, pairs: u64::MAX, bytes: 9 });
    }

    proptest! {
        #[test]
        fn company_fits_each_stands_once_and_nobody_who_fits_is_left(
            sizes in proptest::collection::vec((1u64..60, proptest::option::of(0u64..300)), 0..40),
            most in 1u64..200,
        ) {
            let chosen = mates(&sizes, most);
            let sum = 1 + chosen.iter().map(|&i| sizes[i].0).sum::<u64>();
            prop_assert!(sum <= most || chosen.is_empty());
            let mut seen = chosen.clone();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), chosen.len());
            for (i, &(size, _)) in sizes.iter().enumerate() {
                prop_assert!(chosen.contains(&i) || sum + size > most, "{} of {} rows was left", i, size);
            }
        }
    }
}
