//! An index of many rows into a SQLite file, to a server and back, by export and import, compared line by line:
//! `cargo run --release --package omniburn-index --features postgres --example transfer -- ROWS postgres://HOST/DATABASE`.
//!
//! The rows are made up: a content of one chunk a file, texts of Zipf's law, pseudo-random vectors of 384 values. Then the same
//! searches are done in both, and their times stand beside each other. The schemas `transfer` must not be there before.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use omniburn_index::{Hit, Index, Modality, Mode, Query, SearchOptions, Sought};

const DIM: usize = 384;
const WORDS: usize = 50_000;
const TEXT_WORDS: usize = 60;
const ROUNDS: usize = 15;

fn noise(seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let values: Vec<f32> = (0..DIM).map(|_| random.f32() - 0.5).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

fn word(random: &mut fastrand::Rng) -> usize {
    (WORDS as f64).powf(random.f64()) as usize
}

/// What an export of so many rows is. The vectors are f16 as an index keeps them.
fn write_rows(rows: usize, to: &mut dyn Write) -> std::io::Result<()> {
    let head = format!(
        r#"{{"index":{{"format":1,"identity":"noise/1","model":"noise","dim":{DIM},"roots":[],"updated_ns":1}}}}"#
    );
    writeln!(to, "{head}")?;
    let mut random = fastrand::Rng::with_seed(1);
    for row in 0..rows {
        let mut text = String::new();
        for _ in 0..TEXT_WORDS {
            let _ = write!(text, "w{} ", word(&mut random));
        }
        let vector: Vec<f32> = noise(row as u64).into_iter().map(|value| half::f16::from_f32(value).to_f32()).collect();
        let vector = serde_json::to_string(&vector)?;
        writeln!(
            to,
            r#"{{"content":{{"digest":"{row:064x}","kind":"text","title":null,"taken_ns":null,"chunks":[{{"place":[1,1.0,2.0],"text":"{text}","modality":"text","vector":{vector}}}]}}}}"#
        )?;
        let (path, digest) = (format!("/made/up/{}/{row}.txt", row % 100), format!("{row:064x}"));
        writeln!(
            to,
            r#"{{"file":{{"path":"{path}","size":{row},"mtime_ns":{row},"seen_ns":9,"digest":"{digest}","fault":null}}}}"#
        )?;
    }
    to.flush()
}

fn export(index: &Path, to: &Path) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    Index::open(index)?.export(&mut BufWriter::with_capacity(1 << 20, std::fs::File::create(to)?))?;
    Ok(begun.elapsed().as_secs_f64())
}

fn import(index: &Path, from: &Path) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    Index::import(index, &mut BufReader::with_capacity(1 << 20, std::fs::File::open(from)?))?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The lines of two exports, where they are the same.
fn lines_of_both(one: &Path, other: &Path) -> Result<u64, Box<dyn Error>> {
    let [mut one, mut other] = [BufReader::new(std::fs::File::open(one)?), BufReader::new(std::fs::File::open(other)?)];
    let (mut lines, mut a, mut b) = (0, Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        one.read_until(b'\n', &mut a)?;
        other.read_until(b'\n', &mut b)?;
        if a != b {
            return Err(format!("line {} differs", lines + 1).into());
        }
        if a.is_empty() {
            return Ok(lines);
        }
        lines += 1;
    }
}

/// The time of a search, with what it finds.
fn search(index: &Index, round: usize, mode: Mode) -> Result<(Duration, Vec<Hit>), Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(1000 + round as u64);
    let text = format!("w{} w{} w{}", word(&mut random), word(&mut random), word(&mut random));
    let query = Query::parse(&text, None, SystemTime::now())?;
    let vector = noise(u64::MAX - round as u64);
    let options = SearchOptions { mode, ..SearchOptions::default() };
    let begun = Instant::now();
    let hits = index.search(&query, Sought::Vector(&vector, Modality::Text), &options)?;
    Ok((begun.elapsed(), hits))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().ok_or("expected how many rows")?.parse()?;
    let server = PathBuf::from(args.next().ok_or("expected the address of a server")?);
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    write_rows(rows, &mut BufWriter::with_capacity(1 << 20, std::fs::File::create(at("made"))?))?;
    println!("{rows} rows, {} MiB as lines", std::fs::metadata(at("made"))?.len() >> 20);
    println!("into SQLite: {:.1} s", import(&at("one"), &at("made"))?);
    println!("out of SQLite: {:.1} s", export(&at("one"), &at("first"))?);
    println!("into Postgres: {:.1} s", import(&server, &at("first"))?);
    println!("out of Postgres: {:.1} s", export(&server, &at("second"))?);
    println!("back into SQLite: {:.1} s", import(&at("back"), &at("second"))?);
    export(&at("back"), &at("third"))?;
    let lines = [("made", "first"), ("first", "second"), ("second", "third")]
        .map(|(one, other)| lines_of_both(&at(one), &at(other)));
    for lines in lines {
        println!("{} lines are equal", lines?);
    }
    let (one, other) = (Index::open(&at("one"))?, Index::open(&server)?);
    println!("{} MiB, {} MiB", one.status()?.bytes >> 20, other.status()?.bytes >> 20);
    for mode in [Mode::Semantic, Mode::Words, Mode::Hybrid] {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for round in 0..=ROUNDS {
            let found = [search(&one, round, mode)?, search(&other, round, mode)?];
            if found[0].1 != found[1].1 {
                return Err(format!("{mode:?}, round {round}: the hits differ").into());
            }
            // The first one makes the cache.
            for (times, (took, _)) in times.iter_mut().zip(&found).filter(|_| round > 0) {
                times.push(*took);
            }
        }
        let median = times.map(|mut times| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        });
        println!("{mode:?}: SQLite {:.1} ms, Postgres {:.1} ms, hits and scores equal", median[0], median[1]);
    }
    Ok(())
}
