//! Where each sequence begins in packed rows.

/// Consecutive sequences in packed rows, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Row at which each segment begins, then the number of rows in segments.
    bounds: Vec<usize>,
    /// Rows after the last segment that belong to nobody.
    padding: usize,
    /// Rows at the end of each segment that no row sees; empty where there are none.
    unseen: Vec<usize>,
    /// First row and number of rows of what is pooled, where that is not each segment.
    pieces: Vec<(usize, usize)>,
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
        Self { bounds, padding: 0, unseen: Vec::new(), pieces: Vec::new() }
    }

    /// The same with rows behind the last segment that belong to nobody: no row of a segment sees them, and what is computed
    /// for them means nothing. They bring the number of rows to one that comes again, for backends that compile and tune
    /// by shape.
    #[must_use]
    pub fn with_padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// The same with so many rows at the end of each segment that no row sees, and that see all others of their segment.
    ///
    /// # Panics
    /// If there is not one number a segment, or one leaves no row to be seen.
    #[must_use]
    pub fn with_unseen(self, unseen: Vec<usize>) -> Self {
        assert_eq!(unseen.len(), self.count(), "one number a segment");
        let hidden = unseen.iter().any(|rows| *rows > 0);
        assert!(self.iter().zip(&unseen).all(|((_, len), rows)| *rows < len), "a row of each segment is seen");
        Self { unseen: if hidden { unseen } else { Vec::new() }, ..self }
    }

    /// Whether some rows are seen by none.
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// First row of each segment, and the number of its rows that are seen.
    pub fn seen(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let unseen = self.unseen.iter().copied().chain(std::iter::repeat(0));
        self.iter().zip(unseen).map(|((start, len), unseen)| (start, len - unseen))
    }

    /// The same with other pieces whose rows are pooled, each by its first row and its number of rows; they may overlap, and
    /// attention does not see them.
    ///
    /// # Panics
    /// If there is none, or one is empty or reaches beyond the rows of segments.
    #[must_use]
    pub fn with_pieces(self, pieces: Vec<(usize, usize)>) -> Self {
        let rows = self.bounds[self.bounds.len() - 1];
        assert!(!pieces.is_empty(), "something is pooled");
        assert!(pieces.iter().all(|(start, len)| *len > 0 && start + len <= rows), "a piece has rows of segments");
        Self { pieces, ..self }
    }

    /// First row of what is pooled, and the number of its rows: each segment without the rows that none sees, unless pieces were
    /// given.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let whole = self.seen().take(if self.pieces.is_empty() { usize::MAX } else { 0 });
        whole.chain(self.pieces.iter().copied())
    }

    /// One segment of all `rows`.
    ///
    /// # Panics
    /// If `rows` is zero.
    pub fn single(rows: usize) -> Self {
        Self::from_lengths([rows])
    }

    /// Number of rows, padding and all.
    pub fn rows(&self) -> usize {
        self.bounds[self.bounds.len() - 1] + self.padding
    }

    /// Rows after the last segment that belong to nobody.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// The place of each row in its segment, from zero; zero for padding.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter().flat_map(|(_, len)| 0..len).chain(std::iter::repeat_n(0, self.padding))
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
    fn padding_counts_as_rows_and_as_nothing_else() {
        let segments = Segments::from_lengths([2, 3]).with_padding(3);
        assert_eq!((segments.rows(), segments.count(), segments.padding()), (8, 2, 3));
        assert_eq!(segments.last_rows().collect::<Vec<_>>(), [1, 4]);
        assert_eq!(segments.positions().collect::<Vec<_>>(), [0, 1, 0, 1, 2, 0, 0, 0]);
    }

    #[test]
    fn rows_that_none_sees_are_counted_at_the_end_of_their_segment() {
        let segments = Segments::from_lengths([4, 2]);
        assert!(!segments.clone().with_unseen(vec![0, 0]).has_unseen());
        let segments = segments.with_unseen(vec![3, 0]).with_padding(2);
        assert_eq!(segments.seen().collect::<Vec<_>>(), [(0, 1), (4, 2)]);
        assert_eq!(segments.iter().collect::<Vec<_>>(), [(0, 4), (4, 2)]);
    }

    #[test]
    #[should_panic(expected = "never empty")]
    fn an_empty_segment_is_refused() {
        Segments::from_lengths([2, 0]);
    }
}
