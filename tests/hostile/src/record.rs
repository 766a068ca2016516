//! Record folders with a damaged header or a damaged file of tensors.
//!
//! The first byte of an input chooses the record; the others are the file.

use std::fs;
use std::path::Path;

use omniburn_convert::{ConvertOptions, convert};
use omniburn_models::record::digest::sha256_hex;
use omniburn_models::record::{HEADER_FILE, RecordFolder, RecordHeader, TOKENS_FILE, TOWERS_FILE, text_file};
use tempfile::TempDir;

use crate::places::{golden_checkpoint, read, scratch};

const CHECKPOINTS: [&str; 3] = ["bert-tiny", "mini-tiny", "omni-nano-tiny-unified"];

/// Records made from the checkpoints of the goldens, one a thread; inputs are put into them.
fn with_records<R>(work: impl FnOnce(&[(TempDir, RecordHeader)]) -> R) -> R {
    thread_local! {
        static RECORDS: Vec<(TempDir, RecordHeader)> = CHECKPOINTS.iter().map(|name| made(name)).collect();
    }
    RECORDS.with(|records| work(records))
}

fn made(name: &str) -> (TempDir, RecordHeader) {
    let folder = scratch();
    convert(&ConvertOptions::new(golden_checkpoint(name), folder.path().join("record"))).expect("a golden converts");
    let header =
        serde_json::from_slice(&read(&folder.path().join("record").join(HEADER_FILE))).expect("a valid header");
    (folder, header)
}

/// `model.json` as it is, and with a right digest: else nearly every change would end at the digest.
pub fn header(data: &[u8]) {
    let Some((first, file)) = data.split_first() else { return };
    with_records(|records| {
        let (folder, header) = &records[usize::from(*first) % records.len()];
        let folder = folder.path().join("record");
        fs::write(folder.join(HEADER_FILE), file).expect("a scratch file can be written");
        open(&folder);
        if let Ok(mut damaged) = serde_json::from_slice::<RecordHeader>(file) {
            damaged.digest = damaged.compute_digest();
            write_header(&folder, &damaged);
            open(&folder);
        }
        write_header(&folder, header);
    });
}

/// A file of tensors, with the length and the digest that the header must then have.
pub fn parts(data: &[u8]) {
    let [first, second, file @ ..] = data else { return };
    with_records(|records| {
        let (folder, header) = &records[usize::from(*first) % records.len()];
        let folder = folder.path().join("record");
        let names: Vec<&String> = header.files.keys().filter(|name| name.ends_with(".bpk")).collect();
        let name = names[usize::from(*second) % names.len()];
        let valid = read(&folder.join(name));
        let mut damaged = header.clone();
        let entry = damaged.files.get_mut(name).expect("a name of the header");
        (entry.bytes, entry.sha256) = (file.len() as u64, sha256_hex(file));
        damaged.digest = damaged.compute_digest();
        write_header(&folder, &damaged);
        fs::write(folder.join(name), file).expect("a scratch file can be written");
        open(&folder);
        fs::write(folder.join(name), valid).expect("a scratch file can be written");
        write_header(&folder, header);
    });
}

fn write_header(folder: &Path, header: &RecordHeader) {
    let text = serde_json::to_vec(header).expect("a header is plain data");
    fs::write(folder.join(HEADER_FILE), text).expect("a scratch file can be written");
}

/// Opens the record and every part, looks at each tensor, and reads all of it against its digests.
fn open(folder: &Path) {
    let record = match RecordFolder::open(folder) {
        Ok(record) => record,
        Err(error) => return assert!(!error.to_string().is_empty(), "an error says what it is"),
    };
    for (file, specs) in record.parts() {
        match record.part(&file, &specs) {
            Ok(part) => {
                for spec in &specs {
                    // Affine groups come as their values in f32.
                    let dtype = part.dtype(&spec.name);
                    let size = if dtype.is_affine() { 4 } else { dtype.bytes() };
                    let bytes = spec.shape.iter().product::<usize>() * size;
                    assert_eq!(part.bytes(&spec.name).len(), bytes, "{} is as long as its shape says", spec.name);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty(), "an error says what it is"),
        }
    }
    if let Err(error) = record.verify(|_| {}) {
        assert!(!error.to_string().is_empty(), "an error says what it is");
    }
}

pub fn header_seeds() -> Vec<Vec<u8>> {
    let seed = |(index, name): (usize, &&str)| {
        let (folder, _) = made(name);
        let mut seed = read(&folder.path().join("record").join(HEADER_FILE));
        seed.insert(0, index as u8);
        seed
    };
    CHECKPOINTS.iter().enumerate().map(seed).collect()
}

pub fn part_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (index, name) in CHECKPOINTS.iter().enumerate() {
        let (folder, header) = made(name);
        let names = header.files.keys().filter(|name| name.ends_with(".bpk"));
        for (place, file) in names.enumerate() {
            let known = [TOKENS_FILE.to_owned(), TOWERS_FILE.to_owned(), text_file(&header.default_task)];
            assert!(known.contains(file), "{file} is a file of tensors");
            let seed = read(&folder.path().join("record").join(file));
            seeds.push([&[index as u8, place as u8], seed.as_slice()].concat());
        }
    }
    seeds
}
