//! Checksums of rows: SQLite finds damage of its structure, and not of what stands in a row.

use crc32fast::Hasher;

/// Of a file.
pub(super) fn file(path: &[u8], size: i64, content: Option<i64>) -> i64 {
    let mut sum = Hasher::new();
    sum.update(path);
    sum.update(&size.to_le_bytes());
    sum.update(&content.unwrap_or(-1).to_le_bytes());
    sum.finalize().into()
}

/// Of a content.
pub(super) fn content(id: i64, kind: &str, title: Option<&str>, taken_ns: Option<i64>) -> i64 {
    let mut sum = Hasher::new();
    sum.update(&id.to_le_bytes());
    sum.update(kind.as_bytes());
    sum.update(b"\0");
    sum.update(title.unwrap_or_default().as_bytes());
    sum.update(b"\0");
    sum.update(&taken_ns.unwrap_or(i64::MIN).to_le_bytes());
    sum.finalize().into()
}

/// Of where a photograph was taken.
pub(super) fn coordinates(content: i64, (latitude, longitude): (f64, f64)) -> i64 {
    let mut sum = Hasher::new();
    sum.update(&content.to_le_bytes());
    sum.update(&latitude.to_bits().to_le_bytes());
    sum.update(&longitude.to_bits().to_le_bytes());
    sum.finalize().into()
}

/// Of a chunk.
pub(super) fn chunk(content: i64, place: (i64, f64, f64), vector: Option<i64>, text: &str) -> i64 {
    let mut sum = Hasher::new();
    sum.update(&content.to_le_bytes());
    sum.update(&place.0.to_le_bytes());
    sum.update(&place.1.to_bits().to_le_bytes());
    sum.update(&place.2.to_bits().to_le_bytes());
    sum.update(&vector.unwrap_or(-1).to_le_bytes());
    sum.update(text.as_bytes());
    sum.finalize().into()
}

/// Of what is known of a page of vectors.
pub(super) fn page(page: i64, count: i64, alive: &[u8], digest: &[u8]) -> i64 {
    let mut sum = Hasher::new();
    sum.update(&page.to_le_bytes());
    sum.update(&count.to_le_bytes());
    sum.update(alive);
    sum.update(digest);
    sum.finalize().into()
}

/// Of a vector: `[dim]` f16, little-endian.
#[cfg(feature = "postgres")]
pub(super) fn vector(id: i64, modality: i16, bytes: &[u8]) -> i64 {
    let mut sum = Hasher::new();
    sum.update(&id.to_le_bytes());
    sum.update(&modality.to_le_bytes());
    sum.update(bytes);
    sum.finalize().into()
}
