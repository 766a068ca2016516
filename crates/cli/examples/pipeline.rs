//! Files a second of an index by kind, beside the engine alone on the same inputs:
//! `cargo run --release --package omniburn-cli --example pipeline -- FOLDER [ROUNDS]`.
//!
//! The engine is that of the model that ships. What an index hands to it for the files of a kind (pieces of texts, drawn pages, paths
//! of media) is noted in a first run, which also warms it up, and handed to it again without an index. Both are done in turns, and
//! the least time of each counts.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use omniburn::{Cancel, Engine};
use omniburn_index::{
    Content, Control, Embedder, EmbedderProfile, EngineEmbedder, Fault, Index, Report, Root, Rules, Vector, canonical,
};

const ROUNDS: usize = 5;

/// An embedder that notes what it is given.
struct Noting<'a> {
    engine: &'a EngineEmbedder,
    contents: Mutex<Vec<Content>>,
}

impl Embedder for Noting<'_> {
    fn profile(&self) -> EmbedderProfile {
        self.engine.profile()
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        self.engine.count_tokens(text)
    }

    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let mut noted = Vec::new();
        let done = self.engine.embed(&mut contents.inspect(|content| noted.push(content.clone())), take);
        self.contents.lock().map_err(|_| Fault::new("panicked", "a run before this one"))?.extend(noted);
        done
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault> {
        self.engine.embed_query(text)
    }
}

/// Indexes the files of a kind into a new index.
fn index(embedder: &dyn Embedder, files: &Path, kind: &str) -> Result<(Duration, Report), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut index = Index::open_or_begin(&folder.path().join("index"), &embedder.profile())?;
    let rules = Rules { kinds: vec![kind.into()], ..Rules::default() };
    let root = Root { path: files.into(), rules };
    let control = Control { interrupted: &|| false, progress: &|_| {} };
    let begun = Instant::now();
    let report = index.update(embedder, &[root], Duration::ZERO, &control)?;
    Ok((begun.elapsed(), report))
}

/// Gives contents to the engine alone.
fn alone(engine: &EngineEmbedder, contents: &[Content]) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let mut vectors = 0;
    let mut take = |result: Result<Vec<Vector>, Fault>| {
        vectors += result.map_or(0, |vectors| vectors.len());
        ControlFlow::Continue(())
    };
    engine.embed(&mut contents.iter().cloned(), &mut take).map_err(|fault| fault.to_string())?;
    if vectors == 0 { Err("no vector came of it".into()) } else { Ok(begun.elapsed()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let files = canonical(&PathBuf::from(args.next().ok_or("expected a folder")?))?;
    let rounds = args.next().map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let engine = EngineEmbedder::new(Engine::mini()?, Cancel::new());
    println!("kind      files  inputs   index, files/s   engine, files/s   index/engine");
    for kind in ["text", "code", "document", "pdf", "image", "audio", "video"] {
        let noting = Noting { engine: &engine, contents: Mutex::default() };
        let (_, report) = index(&noting, &files, kind)?;
        let contents = noting.contents.into_inner().map_err(|_| "a run panicked")?;
        if report.embedded == 0 {
            continue;
        }
        let (mut indexed, mut embedded) = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds {
            indexed = indexed.min(index(&engine, &files, kind)?.0);
            embedded = embedded.min(alone(&engine, &contents)?);
        }
        let rate = |took: Duration| report.embedded as f64 / took.as_secs_f64();
        println!(
            "{kind:<9} {:>5}  {:>6}   {:>14.1}   {:>15.1}   {:>12.3}",
            report.embedded,
            contents.len(),
            rate(indexed),
            rate(embedded),
            rate(indexed) / rate(embedded)
        );
    }
    Ok(())
}
