//! How fast the exact search over vectors is, beside what this machine reads from memory:
//! `cargo run --release --package omniburn-index --example nearest -- FOLDER ROUNDS`.
//!
//! `benches/peers/nearest.py` writes the folder, starts this and compares what it finds: `vectors.f32` and `queries.f32` (rows of
//! 384 values), and `filter-*.bits` (a bit a row, the least first). The vectors go into a mapped file as they do in an index. Each
//! line of the answer is JSON: a filter, milliseconds of every query, the ten best rows of each, and what all cores read from memory
//! between the queries, in the middle and at most.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use omniburn_kernels::cpu::nearest::{BLOCK_ROWS, CodedRows, block_bytes, encode, nearest};
use omniburn_kernels::{Isa, MappedFile};

const DIM: usize = 384;
const BEST: usize = 10;
/// Bytes that are read to learn how fast memory is.
const READ: usize = 512 << 20;

/// Vectors in a mapped file, and as they were given in another.
struct Vectors {
    codes: MappedFile,
    rows: MappedFile,
    longest: f32,
}

impl Vectors {
    fn of(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let rows = MappedFile::of(&File::open(folder.join("vectors.f32"))?)?;
        let path = folder.join("codes");
        let mut file = BufWriter::new(File::create(&path)?);
        let (mut longest, mut block) = (0f32, Vec::new());
        for bytes in rows.chunks(BLOCK_ROWS * DIM * 4) {
            let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bits| f32::from_le_bytes(*bits)).collect();
            block.clear();
            longest = longest.max(encode(&values, DIM, &mut block));
            file.write_all(&block)?;
        }
        drop(file.into_inner()?);
        Ok(Self { codes: MappedFile::of(&File::open(path)?)?, rows, longest })
    }
}

impl CodedRows for Vectors {
    type Error = std::convert::Infallible;

    fn rows(&self) -> usize {
        self.rows.len() / DIM / 4
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn longest(&self) -> f32 {
        self.longest
    }

    fn block<'a>(&'a self, block: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8], Self::Error> {
        let start = block * block_bytes(BLOCK_ROWS, DIM);
        Ok(&self.codes[start..self.codes.len().min(start + block_bytes(BLOCK_ROWS, DIM))])
    }

    fn row(&self, row: usize, values: &mut [f32], _: &mut Vec<u8>) -> Result<(), Self::Error> {
        let bytes = self.rows[row * DIM * 4..(row + 1) * DIM * 4].as_chunks::<4>().0;
        values.iter_mut().zip(bytes).for_each(|(value, bits)| *value = f32::from_le_bytes(*bits));
        Ok(())
    }
}

/// Gigabytes a second that all cores read from memory.
fn bandwidth(words: &[u64]) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let sum: u64 = std::thread::scope(|scope| {
        let parts: Vec<_> = words
            .chunks(words.len().div_ceil(threads))
            .map(|part| scope.spawn(move || part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))))
            .collect();
        parts.into_iter().map(|part| part.join().unwrap_or(0)).fold(0, u64::wrapping_add)
    });
    std::hint::black_box(sum);
    size_of_val(words) as f64 / begun.elapsed().as_secs_f64() / 1e9
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("expected a folder")?;
    let rounds: usize = args.next().ok_or("expected how many rounds")?.parse()?;
    let folder = Path::new(&folder);
    let begun = Instant::now();
    let vectors = Vectors::of(folder)?;
    let made = begun.elapsed().as_secs_f64();
    println!(r#"{{"rows": {}, "instructions": "{}", "codes_made_s": {made:.2}}}"#, vectors.rows(), Isa::current());
    let queries: Vec<f32> = std::fs::read(folder.join("queries.f32"))?
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bits| f32::from_le_bytes(*bits))
        .collect();
    let memory: Vec<u64> = (0..READ as u64 / 8).collect();
    for filter in ["all", "tenth", "hundredth"] {
        let bits = std::fs::read(folder.join(format!("filter-{filter}.bits")))?;
        let words: Vec<u64> = bits.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (mut times, mut found, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            for query in queries.chunks(DIM) {
                // In turns, so that both meet the same minutes.
                reads.push(bandwidth(&memory));
                let begun = Instant::now();
                let best = nearest(&vectors, query, &[&words], BEST)?;
                times.push(format!("{:.3}", begun.elapsed().as_secs_f64() * 1e3));
                if round == 0 {
                    let rows: Vec<String> = best[0].iter().map(|one| one.row.to_string()).collect();
                    found.push(format!("[{}]", rows.join(", ")));
                }
            }
        }
        reads.sort_by(f64::total_cmp);
        let (read, most) = (reads[reads.len() / 2], reads[reads.len() - 1]);
        println!(
            r#"{{"filter": "{filter}", "read_gb_s": {read:.2}, "most_gb_s": {most:.2}, "code_bytes": {}, "ms": [{}], "best": [{}]}}"#,
            vectors.codes.len(),
            times.join(", "),
            found.join(", ")
        );
    }
    Ok(())
}
