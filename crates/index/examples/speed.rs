//! How fast an index of many chunks is searched, and looked through when nothing changed:
//! `cargo run --release --package omniburn-index --example speed -- CHUNKS [CHUNKS_A_FILE [FOLDER IDENTITY]]`.
//!
//! With a folder and the embedding identity of a model of 384 values the index stays there, so that a program can be timed on it.
//!
//! The texts are made up and the vectors are pseudo-random, so that the search itself is what is timed. The example `nearest` times
//! the search over vectors alone, beside what this machine reads from memory.

use std::error::Error;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use omniburn_index::{
    Content, Control, Embedder, EmbedderProfile, Fault, Index, Modality, Mode, Query, Root, Rules, SearchOptions,
    Sought, Vector,
};

const DIM: usize = 384;
/// Tokens of a chunk, and words of a line: a chunk is a line.
const TOKENS: usize = 12;
const LINE_WORDS: usize = 9;
/// Words that there are; the seldom ones have the high numbers.
const WORDS: usize = 50_000;
/// The most common words are those that a query leaves out where it has others: searches are timed without these, and with them.
const STOP_WORDS: usize = 100;
/// Chunks of a file by default.
const FILE_CHUNKS: usize = 100;
const ROUNDS: usize = 31;
const LOOKS: usize = 5;

/// Pseudo-random vectors of unit length, under the name of a model.
struct Noise {
    identity: String,
}

fn noise(seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let values: Vec<f32> = (0..DIM).map(|_| random.f32() - 0.5).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

impl Embedder for Noise {
    fn profile(&self) -> EmbedderProfile {
        EmbedderProfile {
            identity: self.identity.clone(),
            model: "noise".into(),
            dim: DIM,
            max_tokens: TOKENS,
            modalities: Modality::ALL.to_vec(),
        }
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        Ok(text.split_whitespace().count() + 2)
    }

    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        for (seed, _) in contents.enumerate() {
            if take(Ok(vec![Vector { span: None, values: noise(seed as u64) }])).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn embed_query(&self, _: &str) -> Result<Vec<f32>, Fault> {
        Ok(noise(u64::MAX))
    }
}

/// A word, the common ones more often, as in texts: ranks by Zipf's law.
fn word(random: &mut fastrand::Rng) -> usize {
    (WORDS as f64).powf(random.f64()) as usize
}

fn write_files(folder: &Path, chunks: usize, in_file: usize) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    for file in 0..chunks.div_ceil(in_file) {
        let mut text = String::new();
        for _ in 0..in_file.min(chunks - file * in_file) {
            for _ in 0..LINE_WORDS {
                let _ = write!(text, "w{} ", word(&mut random));
            }
            text.push('\n');
        }
        std::fs::write(folder.join(format!("{file}.txt")), text)?;
    }
    Ok(())
}

/// The least, the median and the 95th of a hundred.
fn spread(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [0, times.len() / 2, times.len() * 95 / 100].map(|at| times[at].as_secs_f64() * 1e3)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let chunks: usize = args.next().ok_or("expected how many chunks")?.parse()?;
    let in_file: usize = args.next().map_or(Ok(FILE_CHUNKS), |count| count.parse())?;
    let scratch = tempfile::tempdir()?;
    let folder = args.next().map_or_else(|| scratch.path().to_path_buf(), PathBuf::from);
    let noise_model = Noise { identity: args.next().unwrap_or_else(|| "noise/1".into()) };
    let files = folder.join("files");
    std::fs::create_dir_all(&files)?;
    write_files(&files, chunks, in_file)?;
    // As if they had been there for a while: a file that was changed just now is read again.
    for entry in std::fs::read_dir(&files)? {
        let file = std::fs::File::options().write(true).open(entry?.path())?;
        file.set_modified(SystemTime::now() - Duration::from_secs(3600))?;
    }
    let mut index = Index::open_or_begin(&folder.join("index"), &noise_model.profile())?;
    let control = Control { interrupted: &|| false, progress: &|_| {} };
    let root = Root { path: files.canonicalize()?, rules: Rules::default() };
    let begun = Instant::now();
    index.update(&noise_model, &[root], Duration::ZERO, &control)?;
    let status = index.status()?;
    println!("{} chunks indexed in {:.1} s, {} MiB", status.chunks, begun.elapsed().as_secs_f64(), status.bytes >> 20);
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        let begun = Instant::now();
        index.update(&noise_model, &[], Duration::ZERO, &control)?;
        looks.push(begun.elapsed());
    }
    let [least, median, _] = spread(looks);
    println!("{} unchanged files looked through: least {least:.1} ms, median {median:.1}", chunks.div_ceil(in_file));

    let mut random = fastrand::Rng::with_seed(2);
    let mut search = |mode: Mode, least_word: usize| -> Result<[f64; 3], Box<dyn Error>> {
        let mut times = Vec::new();
        // The first one makes the cache.
        for round in 0..=ROUNDS {
            let words =
                [0; 3].map(|_| (0..).map(|_| word(&mut random)).find(|word| *word >= least_word).unwrap_or(WORDS));
            let query = Query::parse(&format!("w{} w{} w{}", words[0], words[1], words[2]), None, SystemTime::now())?;
            let vector = noise(u64::MAX - round as u64);
            let options = SearchOptions { mode, ..SearchOptions::default() };
            let begun = Instant::now();
            index.search(&query, Sought::Vector(&vector, Modality::Text), &options)?;
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
        Ok(spread(times))
    };
    for (name, mode, least_word) in [
        ("semantic", Mode::Semantic, STOP_WORDS),
        ("words", Mode::Words, STOP_WORDS),
        ("words, the most common ones among them", Mode::Words, 1),
        ("hybrid", Mode::Hybrid, STOP_WORDS),
    ] {
        let [least, median, p95] = search(mode, least_word)?;
        println!("{name}: least {least:.1} ms, median {median:.1}, p95 {p95:.1}");
    }
    Ok(())
}
