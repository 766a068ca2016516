//! A set of rows.

/// Bits by row number, 64 a word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// None of so many rows.
    pub fn none(rows: usize) -> Self {
        Self(vec![0; rows.div_ceil(64)])
    }

    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Adds a row; one beyond the end is left out.
    pub fn set(&mut self, row: usize) {
        if let Some(word) = self.0.get_mut(row / 64) {
            *word |= 1 << (row % 64);
        }
    }

    /// Whether a row is among them.
    pub fn has(&self, row: usize) -> bool {
        self.0.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Takes a row out.
    pub fn clear(&mut self, row: usize) {
        if let Some(word) = self.0.get_mut(row / 64) {
            *word &= !(1 << (row % 64));
        }
    }

    /// Keeps what is in both.
    pub fn keep(&mut self, other: &Self) {
        for (at, word) in self.0.iter_mut().enumerate() {
            *word &= other.0.get(at).copied().unwrap_or(0);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// From little-endian bytes, eight a word.
    pub fn extend_from_bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
    }

    /// As little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}
