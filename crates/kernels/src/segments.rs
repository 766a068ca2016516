//! Where each sequence begins in packed rows.

/// Consecutive sequences in packed rows, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Row at which each segment begins, then the number of rows in segments.
    bounds: Vec<usize>,
    /// Rows after the last segment that belong to nobody.
    filler: usize,
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
        Self { bounds, filler: 0 }
    }

    /// The same with rows behind the last segment that belong to nobody: no row of a segment sees them, and what is computed
    /// for them means nothing. They bring the number of rows to one that comes again, for backends that compile and tune
    /// by shape.
    #[must_use]
    pub fn with_filler(self, filler: usize) -> Self {
        Self { filler, ..self }
    }

    /// One segment of all `rows`.
    ///
    /// # Panics
    /// If `rows` is zero.
    pub fn single(rows: usize) -> Self {
        Self::from_lengths([rows])
    }

    /// Number of rows, filler and all.
    pub fn rows(&self) -> usize {
        self.bounds[self.bounds.len() - 1] + self.filler
    }

    /// Rows after the last segment that belong to nobody.
    pub fn filler(&self) -> usize {
        self.filler
    }

    /// The place of each row in its segment, from zero; zero for filler.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter().flat_map(|(_, len)| 0..len).chain(std::iter::repeat_n(0, self.filler))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_rows_are_where_segments_end() {
        let segments = Segments::from_lengths([2, 1, 4]);
        assert_eq!(segments.last_rows().collect::<Vec<_>>(), [1, 2, 6]);
        assert_eq!((segments.rows(), segments.count()), (7, 3));
    }

    #[test]
    fn filler_counts_as_rows_and_as_nothing_else() {
        let segments = Segments::from_lengths([2, 3]).with_filler(3);
        assert_eq!((segments.rows(), segments.count(), segments.filler()), (8, 2, 3));
        assert_eq!(segments.last_rows().collect::<Vec<_>>(), [1, 4]);
        assert_eq!(segments.positions().collect::<Vec<_>>(), [0, 1, 0, 1, 2, 0, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "never empty")]
    fn an_empty_segment_is_refused() {
        Segments::from_lengths([2, 0]);
    }
}
