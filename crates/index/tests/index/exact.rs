//! The search by meaning finds what multiplying every row of the index finds, whatever a filter leaves.

use std::collections::HashMap;
use std::time::SystemTime;

use half::f16;
use omniburn_index::{Embedder, Index, Kind, Modality, Mode, Query, SearchOptions, Sought};

use crate::support::{DIM, Place, Store, Words, name};

const QUERIES: usize = 10_000;
const FILES: usize = 1300;
const ENDINGS: [&str; 6] = ["txt", "md", "log", "rs", "py", "png"];

/// A file of the index as a plain search knows it.
struct Row {
    ending: &'static str,
    folder: usize,
    modality: Modality,
    values: Vec<f32>,
}

fn unit(random: &mut fastrand::Rng) -> Vec<f32> {
    let values: Vec<f32> = (0..DIM).map(|_| random.f32() - 0.5).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

fn library(place: &Place) -> HashMap<String, Row> {
    let mut random = fastrand::Rng::with_seed(21);
    let mut rows = HashMap::new();
    for file in 0..FILES {
        let (ending, folder) = (ENDINGS[random.usize(..ENDINGS.len())], random.usize(..4));
        // Some words that many have, and one that a single file has.
        let words = format!("shared{} common{} only{file}", random.usize(..9), random.usize(..30));
        let path = format!("{folder}/{words}.{ending}");
        let modality = if ending == "png" {
            // Equal bytes would be one content.
            place.write(&path, [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), words.as_bytes()].concat());
            Modality::Image
        } else {
            place.write(&path, &words);
            Modality::Text
        };
        let values = Words::default().embed_query(&words).unwrap();
        let values = values.into_iter().map(|value| f16::from_f32(value).to_f32()).collect();
        rows.insert(format!("{words}.{ending}"), Row { ending, folder, modality, values });
    }
    let report = place.update(&Words::default());
    assert_eq!((report.new, report.failed), (FILES as u64, vec![]));
    rows
}

/// The product in f32, a value at a time in 32 sums, halves added to halves.
fn product(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0f32; 32];
    one.iter().zip(other).enumerate().for_each(|(at, (one, other))| sums[at % 32] += one * other);
    for width in [16, 8, 4, 2, 1] {
        (0..width).for_each(|at| sums[at] += sums[at + width]);
    }
    sums[0]
}

#[test]
fn the_ten_best_of_ten_thousand_filtered_queries_are_those_of_a_plain_search() {
    let place = Place::new(Store::Sqlite);
    let rows = library(&place);
    let searched = |from: usize, step: usize| {
        let index = place.open();
        let mut through_codes = 0;
        for seed in (from..QUERIES).step_by(step) {
            through_codes += usize::from(is_exact(&index, &place, &rows, seed as u64));
        }
        through_codes
    };
    let through_codes: usize = std::thread::scope(|scope| {
        let halves = [0, 1].map(|from| scope.spawn(move || searched(from, 2)));
        halves.into_iter().map(|half| half.join().unwrap()).sum()
    });
    // What leaves fewer rows than twice those that are asked for is multiplied without codes.
    assert!(through_codes > QUERIES / 4 && through_codes < QUERIES * 9 / 10, "{through_codes}");
}

/// Compares a query; true where so many rows of text are left that they are searched through their codes.
fn is_exact(index: &Index, place: &Place, rows: &HashMap<String, Row>, seed: u64) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let vector = if random.bool() {
        unit(&mut random)
    } else {
        // Near one of the files.
        let words = format!("shared{} common{}", random.usize(..9), random.usize(..30));
        Words::default().embed_query(&words).unwrap()
    };
    let mut query = Query::parse("anything", None, SystemTime::now()).unwrap();
    query.filter.endings = ENDINGS.iter().filter(|_| random.u8(..5) > 1).map(|ending| (*ending).to_string()).collect();
    let folders: Vec<usize> = (0..4).filter(|_| random.u8(..3) == 0).collect();
    query.filter.folders = folders.iter().map(|folder| place.files.join(folder.to_string())).collect();
    if random.u8(..6) == 0 {
        query.filter.not_kinds = vec![Kind::Image];
    }
    let endings = &query.filter.endings;
    let is_left = |row: &&Row| {
        (endings.is_empty() || endings.iter().any(|ending| ending == row.ending))
            && (folders.is_empty() || folders.contains(&row.folder))
            && (query.filter.not_kinds.is_empty() || row.modality != Modality::Image)
    };
    let mut plain: Vec<f32> = rows.values().filter(is_left).map(|row| product(&vector, &row.values)).collect();
    plain.sort_by(|one, other| other.total_cmp(one));
    plain.truncate(10);
    let options = SearchOptions { mode: Mode::Semantic, ..Default::default() };
    let found = index.search(&query, Sought::Vector(&vector, Modality::Text), &options).unwrap();
    let scores: Vec<f32> = found.iter().map(|hit| hit.scores.semantic.unwrap()).collect();
    assert_eq!(scores, plain, "query {seed}: {query:?}");
    for hit in &found {
        let row = &rows[&name(&hit.path)];
        assert!(is_left(&row), "query {seed} gives {:?}", hit.path);
        assert_eq!(hit.scores.semantic, Some(product(&vector, &row.values)), "query {seed}: {:?}", hit.path);
    }
    rows.values().filter(is_left).filter(|row| row.modality == Modality::Text).count() > 400
}
