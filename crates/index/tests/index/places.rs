//! Where photographs were taken: kept, carried by an export, and shown to nobody who does not ask.

use std::fs;
use std::path::{Path, PathBuf};

use omniburn_index::{Index, IndexError, Mode, SearchOptions};

use crate::support::{Place, Store, Words, photograph};

crate::support::on_both_stores! {
    coordinates_are_kept_and_told_when_asked_for_and_at_no_other_time;
    coordinates_go_with_their_photograph;
    an_index_of_the_layout_before_is_read_and_gets_coordinates_by_its_first_change;
    coordinates_that_differ_from_their_checksum_are_refused;
}

const THERE: Option<(f64, f64)> = Some((-53.5, 9.01));

fn lines(index: &Path) -> String {
    let mut lines = Vec::new();
    Index::open(index).unwrap().export(&mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

fn id(place: &Place, words: &str) -> String {
    place.hits(words, &SearchOptions { mode: Mode::Words, ..Default::default() }).remove(0).id
}

fn path_of(place: &Place, id: &str) -> PathBuf {
    place.open().about(id, false).unwrap().path
}

fn coordinates_are_kept_and_told_when_asked_for_and_at_no_other_time(store: Store) {
    let place = Place::new(store);
    place.write("red boat.jpg", photograph("one"));
    place.write("note.txt", "A note about a boat");
    place.update(&Words::default());
    let (index, id) = (place.open(), id(&place, "red"));
    assert_eq!((index.about(&id, true).unwrap().place, index.about(&id, false).unwrap().place), (THERE, None));
    // The file itself is not needed.
    fs::remove_file(path_of(&place, &id)).unwrap();
    assert_eq!((index.about(&id, true).unwrap().place, index.about(&id, false).unwrap().place), (THERE, None));
    let hits = place.hits("a red boat", &SearchOptions::default());
    assert_eq!(hits.len(), 2);
    for hit in &hits {
        let shown =
            format!("{hit:?} {} {:?}", serde_json::to_string(&hit.body()).unwrap(), index.about(&hit.id, false));
        assert!(!shown.contains("53.5") && !shown.contains("9.01"), "{shown}");
    }
    // An export carries them, and an import keeps them.
    let exported = lines(&place.index);
    assert!(exported.contains(r#""coordinates":[-53.5,9.01]"#), "{exported}");
    let copy = store.place(&place.files);
    Index::import(&copy, &mut exported.as_bytes()).unwrap();
    assert_eq!((lines(&copy), Index::open(&copy).unwrap().about(&id, true).unwrap().place), (exported.clone(), THERE));
    #[cfg(feature = "parquet")]
    {
        let path = place.folder.path().join("export.parquet");
        index.export_parquet(&mut fs::File::create(&path).unwrap()).unwrap();
        let other = store.place(&place.files);
        Index::import_parquet(&other, fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(lines(&other), exported);
    }
    let nowhere = exported.replace("[-53.5,9.01]", "[-93.5,9.01]");
    let refused = Index::import(&store.place(&place.files), &mut nowhere.as_bytes());
    assert!(matches!(&refused, Err(IndexError::Import { what, .. }) if what.contains("-93.5")), "{refused:?}");
}

fn coordinates_go_with_their_photograph(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("boat.jpg", photograph("one"));
    place.update(&words);
    // The file without them: what was kept of it goes.
    place.write("boat.jpg", [&photograph("one")[..2], &b"\xff\xfe\0\x06none\xff\xd9"[..]].concat());
    place.update(&words);
    assert!(!lines(&place.index).contains("coordinates"));
    assert_eq!(place.open().about(&id(&place, "boat"), true).unwrap().place, None);
    // Nor does another content take them up.
    place.write("other.jpg", b"\xff\xd8\xff\xfe\0\x07other\xff\xd9");
    place.update(&words);
    assert_eq!(place.open().about(&id(&place, "other"), true).unwrap().place, None);
}

/// Runs SQL in the database of an index.
fn sql(place: &Place, store: Store, sqlite: &str, _postgres: &str) {
    match store {
        Store::Sqlite => {
            rusqlite::Connection::open(place.index.join("index.db")).unwrap().execute_batch(sqlite).unwrap();
        }
        #[cfg(feature = "postgres")]
        Store::Postgres => {
            let schema = crate::support::schema_of(&place.index);
            crate::support::client().batch_execute(&format!("SET search_path TO {schema}; {_postgres}")).unwrap();
        }
    }
}

fn an_index_of_the_layout_before_is_read_and_gets_coordinates_by_its_first_change(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("boat.jpg", photograph("one"));
    place.update(&words);
    sql(
        &place,
        store,
        "DROP TABLE coordinates; PRAGMA user_version = 2",
        "DROP TABLE coordinates; UPDATE meta SET value = '1' WHERE key = 'layout'",
    );
    // Read as it is: what it does not keep the file says.
    assert!(!lines(&place.index).contains("coordinates"));
    let boat = id(&place, "boat");
    assert_eq!(place.open().about(&boat, true).unwrap().place, THERE);
    assert_eq!(place.update(&words).unchanged, 1);
    place.write("ship.jpg", photograph("two"));
    assert_eq!(place.update(&words).new, 1);
    let ship = id(&place, "ship");
    fs::remove_file(path_of(&place, &ship)).unwrap();
    assert_eq!(place.open().about(&ship, true).unwrap().place, THERE);
    assert_eq!(lines(&place.index).matches("coordinates").count(), 1);
    place.open().verify().unwrap();
}

fn coordinates_that_differ_from_their_checksum_are_refused(store: Store) {
    let place = Place::new(store);
    place.write("boat.jpg", photograph("one"));
    place.update(&Words::default());
    let boat = id(&place, "boat");
    let moved = "UPDATE coordinates SET latitude = latitude + 1";
    sql(&place, store, moved, moved);
    assert!(matches!(place.open().about(&boat, true), Err(IndexError::Corrupt { .. })));
    assert!(matches!(place.open().export(&mut Vec::new()), Err(IndexError::Corrupt { .. })));
    // A search has nothing to do with them.
    assert_eq!(id(&place, "boat"), boat);
}
