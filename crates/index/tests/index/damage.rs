//! Bytes that are not what was written: a cache is made anew, a database is refused by name, and no hit is ever wrong.

use std::fs;

use omniburn_index::{Embedder, Index, IndexError, Mode, SearchOptions};

use crate::support::{Place, Store, Words, hits, name};

/// Every query with its hits.
type Answers = Vec<Vec<(String, f32)>>;

fn library() -> Place {
    library_of(40)
}

fn library_of(files: usize) -> Place {
    let (place, words) = (Place::new(Store::Sqlite), Words::default());
    for i in 0..files {
        place.write(&format!("{i}.txt"), format!("word{} word{} word{}", i % 7, i % 5, i));
    }
    place.update(&words);
    // The write-ahead log goes into the file when the last connection closes.
    drop(place.open());
    place
}

fn answers(index: &Index) -> Result<Answers, IndexError> {
    answers_of(index, &[Mode::Semantic, Mode::Words, Mode::Hybrid])
}

fn answers_of(index: &Index, modes: &[Mode]) -> Result<Answers, IndexError> {
    let mut all = Vec::new();
    for mode in modes.iter().copied() {
        for query in ["word3 word1", "word6", "word39"] {
            let found = hits(index, query, &SearchOptions { mode, limit: 40, ..Default::default() })?;
            all.push(found.iter().map(|hit| (name(&hit.path), hit.scores.semantic.unwrap_or(9.0))).collect());
        }
    }
    Ok(all)
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let place = library();
    let whole = answers(&place.open()).unwrap();
    let cache = place.index.join("matrix.cache");
    let bytes = fs::read(&cache).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..60 {
        let mut damaged = bytes.clone();
        let flipped = match random.usize(..4) {
            0 => {
                damaged.truncate(random.usize(..bytes.len()));
                None
            }
            1 => {
                damaged.extend_from_slice(b"more");
                None
            }
            _ => {
                let at = random.usize(..bytes.len());
                damaged[at] ^= 1 << random.u8(..8);
                Some(at)
            }
        };
        fs::write(&cache, &damaged).unwrap();
        assert_eq!(answers(&place.open()).unwrap(), whole);
        // So few rows are not searched through their codes: those are not read.
        if flipped.is_none_or(|at| !(HEAD..HEAD + 40 * CODED).contains(&at)) {
            assert_eq!(fs::read(&cache).unwrap(), bytes);
        }
    }
    fs::remove_file(&cache).unwrap();
    assert_eq!(answers(&place.open()).unwrap(), whole);
    // Where it cannot be written, everything stays in memory.
    fs::remove_file(&cache).unwrap();
    fs::create_dir(&cache).unwrap();
    assert_eq!(answers(&place.open()).unwrap(), whole);
}

/// What a cache of up to 14 blocks begins with.
const HEAD: usize = 128;
/// Bytes of a row: its codes, their scale and what they leave out; and as it is in the database, with a checksum.
const CODED: usize = 64 + 8;
const WHOLE: usize = 2 * 64 + 4;

#[test]
fn damaged_codes_scales_and_rows_of_a_cache_are_never_searched() {
    let (files, place) = (700, library_of(700));
    let index = place.open();
    let by_meaning = |index: &Index| answers_of(index, &[Mode::Semantic]).unwrap();
    let whole = by_meaning(&index);
    let cache = place.index.join("matrix.cache");
    let bytes = fs::read(&cache).unwrap();
    assert_eq!(bytes.len(), HEAD + files * (CODED + WHOLE));
    // One that is open keeps what it has mapped, even where another takes its place.
    fs::write(place.index.join("other"), "of something else").unwrap();
    fs::rename(place.index.join("other"), &cache).unwrap();
    assert_eq!(by_meaning(&index), whole);
    let second = HEAD + 512 * CODED;
    let rows = HEAD + files * CODED;
    let mut random = fastrand::Rng::with_seed(13);
    for region in [
        0..HEAD,
        HEAD..HEAD + 2048,
        HEAD + 2048..HEAD + 4096,
        HEAD + 4096..second,
        second..second + 8 * 188,
        second..rows,
    ] {
        for _ in 0..6 {
            let mut damaged = bytes.clone();
            damaged[random.usize(region.clone())] ^= 1 << random.u8(..8);
            fs::write(&cache, damaged).unwrap();
            assert_eq!(by_meaning(&place.open()), whole, "{region:?}");
            assert!(fs::read(&cache).unwrap() == bytes, "{region:?}: the cache is whole again");
        }
    }
    // Of the rows as they are, those that can be among the best are read.
    for _ in 0..6 {
        let mut damaged = bytes.clone();
        damaged[rows..].chunks_mut(WHOLE).for_each(|row| row[random.usize(..WHOLE)] ^= 1 << random.u8(..8));
        fs::write(&cache, damaged).unwrap();
        assert_eq!(by_meaning(&place.open()), whole);
        assert!(fs::read(&cache).unwrap() == bytes, "the cache is whole again");
    }
}

#[test]
fn a_cache_of_before_is_not_believed() {
    let place = library();
    answers(&place.open()).unwrap();
    let old = fs::read(place.index.join("matrix.cache")).unwrap();
    place.write("new.txt", "entirely new words");
    fs::remove_file(place.files.join("3.txt")).unwrap();
    place.update(&Words::default());
    fs::write(place.index.join("matrix.cache"), old).unwrap();
    assert_eq!(place.found("entirely new words")[0], "new.txt");
    assert!(!place.found("word3").contains(&"3.txt".into()));
}

#[test]
fn flipped_bits_of_the_vectors_are_found_by_their_digest() {
    let place = library();
    let whole = answers(&place.open()).unwrap();
    let _ = fs::remove_file(place.index.join("matrix.cache"));
    let connection = rusqlite::Connection::open(place.index.join("index.db")).unwrap();
    connection.execute("UPDATE vector_bytes SET bytes = zeroblob(length(bytes))", []).unwrap();
    drop(connection);
    let error = answers(&place.open()).unwrap_err();
    assert!(matches!(error, IndexError::PageDigest { page: 0, .. }), "{error}");
    assert!(place.open().verify().is_err());
    assert!(!whole.is_empty());
}

#[test]
fn what_is_no_index_is_refused_by_name() {
    let place = library();
    let database = place.index.join("index.db");
    let bytes = fs::read(&database).unwrap();
    let open = |bytes: &[u8]| {
        fs::write(&database, bytes).unwrap();
        Index::open(&place.index).map(drop).unwrap_err()
    };
    assert!(matches!(
        open(b"not a database at all, but long enough to be one, with more than a hundred bytes of text in it ......"),
        IndexError::Corrupt { .. }
    ));
    assert!(matches!(open(b""), IndexError::Foreign { found: 0, .. }));
    let with = |sql: &str| {
        fs::write(&database, &bytes).unwrap();
        let _ = fs::remove_file(place.index.join("matrix.cache"));
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        Index::open(&place.index).map(|index| answers(&index).map(drop))
    };
    assert!(matches!(with("PRAGMA application_id = 77"), Err(IndexError::Foreign { found: 77, .. })));
    assert!(matches!(with("PRAGMA user_version = 9"), Err(IndexError::Version { found: 9, expected: 3, .. })));
    assert!(matches!(with("DELETE FROM meta WHERE key = 'identity'"), Err(IndexError::Corrupt { .. })));
    assert!(matches!(with("UPDATE meta SET value = 'many' WHERE key = 'dim'"), Err(IndexError::Corrupt { .. })));
    assert!(matches!(with("DROP TABLE chunks"), Ok(Err(IndexError::Corrupt { .. }))));
    assert!(matches!(with("DELETE FROM chunks"), Ok(Err(IndexError::Corrupt { .. }))));
    assert!(matches!(with("UPDATE vector_pages SET count = 4097"), Ok(Err(IndexError::Corrupt { .. }))));
    assert!(matches!(with("DELETE FROM vector_bytes"), Ok(Err(IndexError::Corrupt { .. }))));
    assert!(matches!(with("UPDATE contents SET kind = 'poem'"), Ok(Err(IndexError::Corrupt { .. }))));
    assert!(matches!(with("UPDATE chunks SET place = 9"), Ok(Err(IndexError::Corrupt { .. }))));
    fs::remove_file(&database).unwrap();
    assert!(matches!(Index::open(&place.index), Err(IndexError::Missing { .. })));
}

#[test]
fn a_database_with_flipped_or_missing_bytes_gives_right_answers_or_a_named_error() {
    let place = library();
    // The index of words has no checksums of its own: what damage makes of it is not judged here.
    let whole = answers_of(&place.open(), &[Mode::Semantic]).unwrap();
    let database = place.index.join("index.db");
    let bytes = fs::read(&database).unwrap();
    let mut random = fastrand::Rng::with_seed(17);
    let (mut refused, mut right) = (0, 0);
    for round in 0..300 {
        let mut damaged = bytes.clone();
        if round % 4 == 0 {
            damaged.truncate(random.usize(..bytes.len()));
        } else {
            let at = random.usize(..bytes.len());
            damaged[at..].iter_mut().take(1 + random.usize(..8)).for_each(|byte| *byte ^= random.u8(1..));
        }
        for file in ["index.db-wal", "index.db-shm", "matrix.cache"] {
            let _ = fs::remove_file(place.index.join(file));
        }
        fs::write(&database, damaged).unwrap();
        match Index::open(&place.index).and_then(|index| answers_of(&index, &[Mode::Semantic])) {
            Err(_) => refused += 1,
            // Damage that no search meets, such as in free pages. A row that cannot be reached may be missing; none is wrong.
            Ok(found) => {
                for (found, whole) in found.iter().zip(&whole) {
                    let wrong: Vec<_> = found.iter().filter(|hit| !whole.contains(hit)).collect();
                    assert!(wrong.is_empty(), "round {round}: {wrong:?}");
                }
                right += usize::from(found == whole);
            }
        }
    }
    assert!(refused > 60 && right > 10, "{refused} {right}");
    let _ = Words::default().profile();
}
