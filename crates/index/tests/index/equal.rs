//! Both stores give the same: hits, order, scores to the bit, and exports; and what is particular to a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use omniburn_index::{
    Calibration, Embedder, Hit, Index, IndexError, MinScore, Modality, Mode, PairCalibration, Query, Root, Rules,
    SearchOptions, Sought,
};

use crate::support::{Place, Store, Words, client, quiet, schema_of};

/// The same files in an index of each kind, `one` in SQLite and `other` on the server.
struct Twins {
    place: Place,
    one: PathBuf,
    other: PathBuf,
}

impl Twins {
    /// None where there is no server.
    fn new() -> Option<Self> {
        Store::Postgres.is_here().then(|| {
            let place = Place::new(Store::Sqlite);
            let one = Store::Sqlite.place(place.folder.path());
            let other = Store::Postgres.place(&place.files);
            Self { place, one, other }
        })
    }

    fn update(&self, words: &Words) {
        // Readers of files race, and rows get their numbers in the order of arrival: both are filled from one export.
        self.place.update(words);
        let lines = export(&self.place.index);
        for index in [&self.one, &self.other] {
            Index::import(index, &mut lines.as_slice()).unwrap();
        }
    }

    fn assert_equal(&self, queries: &[&str]) {
        let calibration = {
            let cosines: Vec<f32> = (0..2000).map(|i| (i as f32 / 2000.0 - 0.5) * 0.8).collect();
            let pair =
                |item| PairCalibration::of(Modality::Text, item, cosines.clone(), Some(cosines.clone())).unwrap();
            let centre = vec![0.01; crate::support::DIM];
            let pairs = Modality::ALL.into_iter().map(pair).collect();
            Calibration { identity: Words::default().profile().identity, centre, pairs }
        };
        let [mut one, mut other] = [&self.one, &self.other].map(|place| Index::open(place).unwrap());
        for calibrated in [false, true] {
            if calibrated {
                one.calibrate(calibration.clone()).unwrap();
                other.calibrate(calibration.clone()).unwrap();
            }
            for query in queries {
                for mode in [Mode::Hybrid, Mode::Semantic, Mode::Words] {
                    for (limit, per_file) in [(3, 1), (50, 3)] {
                        let min_score = if calibrated && limit == 50 { MinScore::Auto } else { MinScore::Any };
                        let options = SearchOptions { mode, limit, per_file, min_score };
                        let found = [&one, &other].map(|index| found(index, query, &options));
                        assert_eq!(found[0], found[1], "{query} {options:?}");
                    }
                }
            }
        }
        assert_eq!(one.status().unwrap().files, other.status().unwrap().files);
        assert_eq!(one.map(100).unwrap(), other.map(100).unwrap());
        other.verify().unwrap();
    }
}

/// Everything that a hit says, floats as their bits.
fn found(index: &Index, text: &str, options: &SearchOptions) -> Vec<String> {
    let query = Query::parse(text, None, SystemTime::now()).unwrap();
    let vector = Words::default().embed_query(&query.text).unwrap();
    let hits = index.search(&query, Sought::Vector(&vector, Modality::Text), options).unwrap();
    let said = |hit: Hit| {
        let bits = (hit.score.to_bits(), hit.scores.semantic.map(f32::to_bits), hit.scores.words.map(f64::to_bits));
        format!("{bits:?} {hit:?}")
    };
    hits.into_iter().map(said).collect()
}

fn export(index: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Index::open(index).unwrap().export(&mut bytes).unwrap();
    bytes
}

#[test]
fn both_stores_give_the_same_hits_in_the_same_order_with_the_same_scores() {
    let Some(twins) = Twins::new() else { return };
    let (place, words) = (&twins.place, Words::default());
    let mut random = fastrand::Rng::with_seed(23);
    let word = |random: &mut fastrand::Rng| format!("w{}", (300f64.powf(random.f64())) as usize);
    for file in 0..120 {
        let mut text = String::new();
        for _ in 0..random.usize(1..200) {
            text += &word(&mut random);
            text.push(if random.u8(..9) == 0 { '\n' } else { ' ' });
        }
        place.write(&format!("{}/{file} {}.txt", file % 5, word(&mut random)), text);
    }
    place.write("café/menü.md", "Le café est fermé. Naïve façade, foo-bar foo-bar it's 100% \"quoted\" C:\\path");
    place.write("tokyo.txt", "東京タワーは赤い。日本の塔です。東京東京東京");
    place.write("aaa.txt", "aaaaaaa aaaa banana bananana");
    // More of one word in a text than a tsvector holds, and a word that is longer than its lexemes are.
    place.write("many.txt", "again-".repeat(700) + " end w3");
    place.write("long.txt", "x".repeat(3000) + " w5 w7");
    for copy in 0..300 {
        place.write(&format!("copies/{copy}.txt"), format!("the very same words w1 w2{}", " ".repeat(copy)));
    }
    place.write("red bicycle.png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
    place.write("rain song.wav", b"RIFF\x24\0\0\0WAVEfmt ");
    twins.update(&words);
    let long = "x".repeat(3000);
    let folder = format!("w1 w2 in:{}", place.files.join("3").display());
    let queries = [
        "w1 w2 w17",
        "w250",
        "w1 w1 w9 -w3",
        "\"w2 w1\"",
        "w40 -\"w1 w2\" ext:txt",
        "ext:md,png w1 bicycle",
        "type:image red",
        &folder,
        "cafe facade",
        "foo-bar",
        "it's \\ 100%",
        "\"c:\\path\" le",
        "東京タワー",
        "東京東",
        "日本",
        "-東京タワー 塔です",
        "anana",
        "aaa",
        "aaaaa nothing",
        "again-again w3",
        "\"again end\"",
        "again -end",
        &long,
        "the very same words",
        "ä\u{301} ! ?",
        "w12 after:2d",
        "w12 before:2d",
    ];
    twins.assert_equal(&queries);
    // What is gone counts no more.
    for file in 0..40 {
        let _ = fs::remove_file(
            fs::read_dir(place.files.join("1"))
                .unwrap()
                .next()
                .map_or_else(|| place.files.join(format!("copies/{file}.txt")), |entry| entry.unwrap().path()),
        );
    }
    fs::remove_file(place.files.join("many.txt")).unwrap();
    let updated = |index: &Path| {
        let mut index = Index::open_or_begin(index, &words.profile()).unwrap();
        index.update(&words, &[place.root()], Duration::ZERO, &quiet()).unwrap()
    };
    assert_eq!(updated(&twins.one), updated(&twins.other));
    twins.assert_equal(&queries);
}

#[test]
fn an_index_moves_to_a_server_and_back_row_for_row() {
    let Some(twins) = Twins::new() else { return };
    let (place, words) = (&twins.place, Words::default());
    for i in 0..300 {
        place.write(&format!("{i}.txt"), format!("line {i} of many\n").repeat(1 + i % 30));
    }
    place.write("zero.html", "<title>a\u{1A}b</title><p>one\u{1A}0 two</p>");
    place.write("copy.txt", "line 7 of many\n".repeat(8));
    place.write("broken.pdf", "%PDF-1.7\nthis is no PDF");
    place.write("program.bin", [0u8, 159, 146, 150, 0, 0, 1, 2]);
    place.update(&words);
    let first = export(&place.index);
    // A text with a zero, as an export may hold it.
    let first = String::from_utf8(first).unwrap().replacen("line 7 of many", "line\\u0000seven", 1).into_bytes();
    let files = Index::import(&twins.other, &mut first.as_slice()).unwrap();
    assert!(matches!(Index::import(&twins.other, &mut first.as_slice()), Err(IndexError::Exists { .. })));
    let there = export(&twins.other);
    assert!(first == there, "an export of the server differs from what was imported");
    let back = place.folder.path().join("back");
    assert_eq!(Index::import(&back, &mut there.as_slice()).unwrap(), files);
    assert!(export(&back) == first);
    Index::open(&twins.other).unwrap().verify().unwrap();
    // A broken one leaves nothing.
    let cut = &first[..first.len() * 2 / 3];
    let nowhere = Store::Postgres.place(&place.files);
    assert!(matches!(Index::import(&nowhere, &mut &cut[..]), Err(IndexError::Import { .. })));
    assert!(matches!(Index::open(&nowhere), Err(IndexError::Missing { .. })));
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE $1";
    let left: i64 = client().query_one(sql, &[&format!("{}%", schema_of(&nowhere))]).unwrap().get(0);
    assert_eq!(left, 0);
}

#[test]
fn an_index_of_neighbours_that_somebody_made_changes_nothing() {
    let Some(twins) = Twins::new() else { return };
    let words = Words::default();
    for i in 0..400 {
        twins.place.write(&format!("{i}.txt"), format!("word{} word{} word{}", i % 70, i % 50, i));
    }
    twins.update(&words);
    let schema = schema_of(&twins.other);
    let sql = format!(
        "SET search_path TO {schema}, public; SET maintenance_work_mem = '32MB';
         CREATE INDEX ON vectors_0 USING hnsw (vector halfvec_ip_ops) WITH (m = 2, ef_construction = 4); ANALYZE vectors"
    );
    client().batch_execute(&sql).unwrap();
    twins.assert_equal(&["word3 word1", "word69", "word399 word49"]);
}

/// An index on the server of forty files.
fn small() -> Option<Place> {
    if !Store::Postgres.is_here() {
        return None;
    }
    let place = Place::new(Store::Postgres);
    for i in 0..40 {
        place.write(&format!("{i}.txt"), format!("word{} word{} word{}", i % 7, i % 5, i));
    }
    place.update(&Words::default());
    Some(place)
}

#[test]
fn damage_on_a_server_is_refused_by_name() {
    let Some(place) = small() else { return };
    let whole = export(&place.index);
    let refused = |sql: &str| {
        let copy = Store::Postgres.place(&place.files);
        Index::import(&copy, &mut whole.as_slice()).unwrap();
        client().batch_execute(&format!("SET search_path TO {}, public; {sql}", schema_of(&copy))).unwrap();
        let outcome = Index::open(&copy).and_then(|index| {
            let found = index.search(
                &Query::parse("word3", None, SystemTime::now()).unwrap(),
                Sought::Vector(&Words::default().embed_query("word3").unwrap(), Modality::Text),
                &SearchOptions { limit: 40, ..Default::default() },
            );
            found.and_then(|_| index.verify())
        });
        outcome.expect_err(sql)
    };
    for sql in [
        "DELETE FROM meta WHERE key = 'identity'",
        "UPDATE meta SET value = 'many' WHERE key = 'dim'",
        "DROP TABLE chunks",
        "DELETE FROM chunks",
        "DELETE FROM vectors",
        "UPDATE contents SET kind = 'poem'",
        "UPDATE chunks SET place = 9",
        "UPDATE chunks SET text = text || '.'",
        "UPDATE files SET size = size + 1",
        "UPDATE vectors SET vector = (SELECT vector FROM vectors LIMIT 1)",
        "UPDATE counters SET text_words = text_words + 1",
        "ALTER TABLE files ALTER COLUMN size TYPE text",
    ] {
        let error = refused(sql);
        assert!(matches!(error, IndexError::Corrupt { .. }), "{sql}: {error:?}");
    }
    assert!(matches!(
        refused("UPDATE meta SET value = '9' WHERE key = 'layout'"),
        IndexError::Version { found: 9, expected: 2, .. }
    ));
    assert!(matches!(refused("DELETE FROM meta WHERE key = 'application'"), IndexError::Unsuitable { .. }));
}

#[test]
fn a_schema_or_a_database_of_somebody_else_is_refused_and_left_alone() {
    if !Store::Postgres.is_here() {
        return;
    }
    let place = Place::new(Store::Postgres);
    let profile = Words::default().profile();
    assert!(matches!(Index::open(&place.index), Err(IndexError::Missing { .. })));
    client()
        .batch_execute(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.own (x int)", schema_of(&place.index)))
        .unwrap();
    let why = |index: &Path| Index::open_or_begin(index, &profile).unwrap_err().to_string();
    assert!(why(&place.index).contains("another program"), "{}", why(&place.index));
    client().batch_execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0").unwrap();
    let bytes = place.index.to_str().unwrap().replace("/postgres?", "/bytes?");
    assert!(why(Path::new(&bytes)).contains("UTF8"), "{}", why(Path::new(&bytes)));
    let nowhere = why(Path::new("postgres://me:secret@127.0.0.1:1/files"));
    assert!(nowhere.contains("postgres://me@127.0.0.1:1/files") && !nowhere.contains("secret"), "{nowhere}");
    let wide = omniburn_index::EmbedderProfile { dim: 16_001, ..profile.clone() };
    let index = Store::Postgres.place(&place.files);
    assert!(matches!(Index::open_or_begin(&index, &wide), Err(IndexError::Unsuitable { .. })));
    let narrow = omniburn_index::EmbedderProfile { dim: 16_000, ..profile };
    Index::open_or_begin(&index, &narrow).unwrap();
}

#[test]
fn a_connection_that_ends_leaves_whole_files_and_a_deleted_index_is_said() {
    let Some(place) = small() else { return };
    let words = Words::default();
    let open = || Index::open(&place.index).unwrap();
    let mut index = open();
    place.write("new.txt", "entirely new words");
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%' AND pid <> pg_backend_pid()
                  AND application_name = $1 AND pid IN (SELECT pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2)";
    let name = format!("omniburn {}", std::process::id());
    // Ended from within the update, while its transaction is open.
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let schema = schema_of(&place.index);
    let mut blocker = client();
    let mut begun = blocker.transaction().unwrap();
    begun.batch_execute(&format!("LOCK TABLE {schema}.files IN SHARE MODE")).unwrap();
    let ended = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut client = client();
            for _ in 0..400 {
                if !client.query(others, &[&name, &schema]).unwrap().is_empty() {
                    calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    return;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        let ended = index.update(&words, &[place.root()], Duration::ZERO, &quiet());
        killer.join().unwrap();
        ended
    });
    begun.rollback().unwrap();
    assert_eq!(calls.into_inner(), 1);
    assert!(matches!(ended, Err(IndexError::Server { .. })), "{ended:?}");
    assert_eq!(open().status().unwrap().vectors, 40);
    open().verify().unwrap();
    assert_eq!(place.update(&words).new, 1);
    let mut index = open();
    client().batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).unwrap();
    let root = Root { path: place.files.clone(), rules: Rules::default() };
    let gone = index.update(&words, &[root], Duration::ZERO, &quiet());
    assert!(matches!(gone, Err(IndexError::Gone { .. })), "{gone:?}");
    // Another one in its place is not written to, either.
    let mut index = {
        place.update(&words);
        open()
    };
    client().batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).unwrap();
    place.update(&words);
    place.write("later.txt", "later words");
    let gone = index.update(&words, &[place.root()], Duration::ZERO, &quiet());
    assert!(matches!(gone, Err(IndexError::Gone { .. })), "{gone:?}");
}
