//! Vectors as pages of 4,096 rows of f16, with a digest a page and a bit a row for each modality.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use half::slice::HalfFloatSliceExt;
use rusqlite::{Transaction, params};
use sha2::{Digest, Sha256};

use super::Database;
use crate::bits::Bits;
use crate::error::IndexError;
use crate::kind::Modality;
use crate::store::sums;

/// Rows of a page.
pub(super) const PAGE_ROWS: usize = 4096;
/// Bytes of the bits of one modality in a page.
const BITS_BYTES: usize = PAGE_ROWS / 8;

/// What is known of a page without its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PageHead {
    pub page: i64,
    /// Rows written, dead ones included.
    pub count: usize,
    /// Rows that stand for something, by modality.
    pub alive: [Bits; 4],
    pub digest: [u8; 32],
}

impl PageHead {
    /// What the vector of a row was made from, by its place in [`Modality::ALL`]; `None` where it stands for nothing.
    pub fn modality(&self, slot: usize) -> Option<usize> {
        self.alive.iter().position(|bits| bits.has(slot))
    }
}

/// The digest of a page's bytes and of how many rows they are.
fn digest_of(bytes: &[u8], dim: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"omniburn vectors 1\0");
    digest.update((dim as u64).to_le_bytes());
    digest.update(bytes);
    digest.finalize().into()
}

/// The heads of all pages, in order: every page but the last is full.
pub(super) fn heads(db: &Database) -> Result<Vec<PageHead>, IndexError> {
    let mut statement = db.prepare("SELECT page, count, alive, digest, sum FROM vector_pages ORDER BY page")?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, Vec<u8>>(2)?,
            row.get::<_, Vec<u8>>(3)?,
            row.get::<_, i64>(4)?,
        ))
    });
    let rows: Vec<_> = rows.and_then(Iterator::collect).map_err(|e| db.error(e))?;
    let last = rows.len().saturating_sub(1);
    let mut heads = Vec::with_capacity(rows.len());
    for (at, (page, count, alive, digest, sum)) in rows.into_iter().enumerate() {
        let whole =
            |count: i64| if at == last { (1..=PAGE_ROWS as i64).contains(&count) } else { count == PAGE_ROWS as i64 };
        if sum != sums::page(page, count, &alive, &digest) {
            return Err(db.corrupt(format!("what is known of page {page} of the vectors differs from its checksum")));
        }
        let digest: [u8; 32] = digest.try_into().map_err(|_| db.corrupt("the digest of a page is not 32 bytes"))?;
        if page != at as i64 || !whole(count) || alive.len() != 4 * BITS_BYTES {
            return Err(db.corrupt(format!("page {page} of the vectors has {count} rows or is out of order")));
        }
        let alive = [0, 1, 2, 3].map(|modality| {
            let mut bits = Bits::none(0);
            bits.extend_from_bytes(&alive[modality * BITS_BYTES..(modality + 1) * BITS_BYTES]);
            bits
        });
        heads.push(PageHead { page, count: count as usize, alive, digest });
    }
    Ok(heads)
}

/// The rows of a page, checked against its digest: `[count, dim]` f16, little-endian.
pub(super) fn bytes_of(db: &Database, head: &PageHead, dim: usize) -> Result<Vec<u8>, IndexError> {
    let bytes = db
        .connection()
        .query_row("SELECT bytes FROM vector_bytes WHERE page = ?1", [head.page], |row| row.get::<_, Vec<u8>>(0))
        .map_err(|e| match e {
            rusqlite::Error::QueryReturnedNoRows => db.corrupt(format!("page {} of the vectors is missing", head.page)),
            e => db.error(e),
        })?;
    if bytes.len() != head.count * dim * 2 || digest_of(&bytes, dim) != head.digest {
        return Err(IndexError::PageDigest { path: db.path().into(), page: head.page });
    }
    Ok(bytes)
}

/// Vectors by their rows, a few pages at a time: what belongs together mostly lies together.
pub(super) struct Rows<'a> {
    db: &'a Database,
    heads: Vec<PageHead>,
    dim: usize,
    pages: Vec<(usize, Vec<u8>)>,
}

impl<'a> Rows<'a> {
    /// Pages that are held in memory.
    const HELD: usize = 4;

    pub fn of(db: &'a Database) -> Result<Self, IndexError> {
        Ok(Self { db, heads: heads(db)?, dim: db.meta()?.dim, pages: Vec::new() })
    }

    /// A vector that stands for something: `[dim]`, and what it was made from.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for a row that is on no page, [`IndexError::PageDigest`].
    pub fn get(&mut self, row: i64) -> Result<(Vec<f32>, Modality), IndexError> {
        let lost = || self.db.corrupt(format!("vector {row} is on no page"));
        let row = usize::try_from(row).map_err(|_| lost())?;
        let (page, slot) = (row / PAGE_ROWS, row % PAGE_ROWS);
        let head = self.heads.get(page).filter(|head| slot < head.count).ok_or_else(lost)?;
        let modality = Modality::ALL[head.modality(slot).ok_or_else(lost)?];
        if self.pages.iter().all(|(there, _)| *there != page) {
            self.pages.truncate(Self::HELD - 1);
            self.pages.insert(0, (page, bytes_of(self.db, head, self.dim)?));
        }
        let (_, bytes) = self.pages.iter().find(|(there, _)| *there == page).expect("read above");
        let values = bytes[slot * self.dim * 2..(slot + 1) * self.dim * 2].as_chunks::<2>().0;
        Ok((values.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(), modality))
    }
}

/// Writes a page as it is.
pub(super) fn put_page(
    db: &Database,
    tx: &Transaction<'_>,
    page: i64,
    count: i64,
    alive: &[Bits; 4],
    bytes: &[u8],
    dim: usize,
) -> Result<(), IndexError> {
    put_bytes(db, tx, page, bytes)?;
    put_head(db, tx, page, count, alive, &digest_of(bytes, dim))
}

fn put_bytes(db: &Database, tx: &Transaction<'_>, page: i64, bytes: &[u8]) -> Result<(), IndexError> {
    let sql = "INSERT INTO vector_bytes (page, bytes) VALUES (?1, ?2) ON CONFLICT (page) DO UPDATE SET bytes = ?2";
    tx.prepare_cached(sql).and_then(|mut put| put.execute(params![page, bytes])).map_err(|e| db.error(e))?;
    Ok(())
}

fn put_head(
    db: &Database,
    tx: &Transaction<'_>,
    page: i64,
    count: i64,
    alive: &[Bits; 4],
    digest: &[u8; 32],
) -> Result<(), IndexError> {
    let sql = "INSERT INTO vector_pages (page, count, alive, digest, sum) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (page) DO UPDATE SET count = ?2, alive = ?3, digest = ?4, sum = ?5";
    let alive: Vec<u8> = alive.iter().flat_map(Bits::to_bytes).collect();
    tx.prepare_cached(sql)
        .and_then(|mut put| {
            put.execute(params![page, count, alive, digest.as_slice(), sums::page(page, count, &alive, digest)])
        })
        .map_err(|e| db.error(e))?;
    Ok(())
}

/// Changes to vectors inside one transaction.
pub(super) struct Pages {
    dim: usize,
    heads: BTreeMap<i64, PageHead>,
    /// Pages whose head changed.
    touched: BTreeSet<i64>,
    /// The last page with its rows, where something is added.
    tail: Option<(i64, Vec<u8>)>,
    count: i64,
}

impl Pages {
    pub fn begin(db: &Database, dim: usize) -> Result<Self, IndexError> {
        let heads = heads(db)?;
        Ok(Self {
            dim,
            count: heads.len() as i64,
            heads: heads.into_iter().map(|head| (head.page, head)).collect(),
            tail: None,
            touched: BTreeSet::new(),
        })
    }

    /// Adds a vector of unit length and gives its row.
    pub fn add(
        &mut self,
        db: &Database,
        tx: &Transaction<'_>,
        values: &[f32],
        modality: Modality,
    ) -> Result<i64, IndexError> {
        assert_eq!(values.len(), self.dim, "an index is of one identity");
        if self.tail.is_none() {
            self.tail = match self.heads.get(&(self.count - 1)).filter(|head| head.count < PAGE_ROWS) {
                Some(head) => Some((head.page, bytes_of(db, head, self.dim)?)),
                None => Some(self.new_page()),
            };
        }
        if self.tail.as_ref().is_some_and(|(_, bytes)| bytes.len() == PAGE_ROWS * self.dim * 2) {
            self.write_tail(db, tx)?;
            self.tail = Some(self.new_page());
        }
        let (page, bytes) = self.tail.as_mut().expect("made above");
        let mut row = vec![f16::ZERO; values.len()];
        row.convert_from_f32_slice(values);
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        let head = self.heads.get_mut(page).expect("a tail has a head");
        let slot = head.count;
        head.count += 1;
        head.alive[modality as usize].set(slot);
        self.touched.insert(*page);
        Ok(*page * PAGE_ROWS as i64 + slot as i64)
    }

    fn new_page(&mut self) -> (i64, Vec<u8>) {
        let page = self.count;
        self.count += 1;
        let alive = [0, 1, 2, 3].map(|_| Bits::none(PAGE_ROWS));
        self.heads.insert(page, PageHead { page, count: 0, alive, digest: [0; 32] });
        (page, Vec::new())
    }

    /// Lets a row stand for nothing any more.
    pub fn remove(&mut self, row: i64) {
        let (page, slot) = (row / PAGE_ROWS as i64, (row % PAGE_ROWS as i64) as usize);
        if let Some(head) = self.heads.get_mut(&page) {
            head.alive.iter_mut().for_each(|bits| bits.clear(slot));
            self.touched.insert(page);
        }
    }

    fn write_tail(&mut self, db: &Database, tx: &Transaction<'_>) -> Result<(), IndexError> {
        let Some((page, bytes)) = self.tail.take() else { return Ok(()) };
        self.heads.get_mut(&page).expect("a tail has a head").digest = digest_of(&bytes, self.dim);
        put_bytes(db, tx, page, &bytes)
    }

    /// Writes what changed; true where something did.
    pub fn finish(mut self, db: &Database, tx: &Transaction<'_>) -> Result<bool, IndexError> {
        self.write_tail(db, tx)?;
        for head in self.touched.iter().filter_map(|page| self.heads.get(page)) {
            put_head(db, tx, head.page, head.count as i64, &head.alive, &head.digest)?;
        }
        Ok(!self.touched.is_empty())
    }
}
