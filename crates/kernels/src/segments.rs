//! Where each sequence begins in packed rows.

/// Consecutive sequences in packed rows, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Row at which each segment begins, then the number of rows.
    bounds: Vec<usize>,
}

/// Consecutive segments of equal length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// First row.
    pub start: usize,
    /// Number of segments.
    pub count: usize,
    /// Rows of each.
    pub len: usize,
}

impl Segments {
    /// Segments of the given lengths, in order.
    ///
    /// # Panics
    /// If there is no segment or one is empty: a row without a visible key cannot be allowed to arise.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut bounds = vec![0];
        for length in lengths {
            assert!(length > 0, "a segment is never empty");
            bounds.push(bounds[bounds.len() - 1] + length);
        }
        assert!(bounds.len() > 1, "there is at least one segment");
        Self { bounds }
    }

    /// One segment of all `rows`.
    ///
    /// # Panics
    /// If `rows` is zero.
    pub fn single(rows: usize) -> Self {
        Self::from_lengths([rows])
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.bounds[self.bounds.len() - 1]
    }

    /// Number of segments; at least one.
    pub fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    /// First row and length of each segment.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.bounds.windows(2).map(|w| (w[0], w[1] - w[0]))
    }

    /// Last row of each segment.
    pub fn last_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.bounds[1..].iter().map(|end| end - 1)
    }

    /// Neighbours of equal length folded together, so that a backend sees few, larger rectangles.
    pub(crate) fn equal_runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (start, len) in self.iter() {
            match runs.last_mut() {
                Some(run) if run.len == len => run.count += 1,
                _ => runs.push(Run { start, count: 1, len }),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_equal_length_fold_and_others_do_not() {
        let runs = Segments::from_lengths([3, 3, 1, 3]).equal_runs();
        assert_eq!(
            runs,
            [
                Run { start: 0, count: 2, len: 3 },
                Run { start: 6, count: 1, len: 1 },
                Run { start: 7, count: 1, len: 3 }
            ]
        );
    }

    #[test]
    fn last_rows_are_where_segments_end() {
        let segments = Segments::from_lengths([2, 1, 4]);
        assert_eq!(segments.last_rows().collect::<Vec<_>>(), [1, 2, 6]);
        assert_eq!((segments.rows(), segments.count()), (7, 3));
    }

    #[test]
    #[should_panic(expected = "never empty")]
    fn an_empty_segment_is_refused() {
        Segments::from_lengths([2, 0]);
    }
}
