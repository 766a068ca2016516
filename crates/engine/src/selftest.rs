//! An engine that examines itself: operations on its device, fixed items against stored vectors and against themselves
//! in company, and what queries wait for under a short load.
//!
//! The items are texts and media made by whole-number arithmetic, so that every machine sees the same ones. Stored
//! vectors lie in a record as `selftest.json`; those of the model that ships were written by
//! `cargo run --release -p omniburn-tests --example selftest_vectors` and are held to the reference by the tests.
//! Printing is the caller's.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omniburn_media::{Height, RgbImage, Width};
use omniburn_models::record::{Dtype, Modality};
use omniburn_models::{KernelRow, self_test};
use serde::{Deserialize, Serialize};

use crate::backend::BackendKind;
use crate::embedding::Embedding;
use crate::engine::Engine;
use crate::error::{EngineError, ItemError};
use crate::metrics::{DurationStats, Metrics, MetricsSnapshot};
use crate::request::{Embedded, Input, Request, Role};
use crate::scheduler::{Cancel, Priority};

/// Name of the stored vectors in a record.
const STORED_FILE: &str = "selftest.json";
/// Vectors in f32 against stored ones, whatever the processor or backend (`NUMERICS.md`).
const STORED: f32 = 1e-5;
/// The same where products round their operands (CUDA through TF32), and its operations.
const ROUNDED: f32 = 1e-3;
/// An item in company on backends that choose kernels by shape; on flex it is bit-equal.
const COMPANY: f32 = 1e-6;
/// How far the length of a vector may be from 1: a few roundings to f32.
const UNIT: f32 = 1e-6;

/// What an engine found when it examined itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// Every operation on the device, at odd shapes; empty where the device failed as a whole.
    pub kernels: Vec<KernelRow>,
    /// Why no operation could be examined.
    pub kernels_failure: Option<String>,
    /// Every item of the modalities that the model takes.
    pub items: Vec<ItemRow>,
    /// What became of the record's stored vectors.
    pub stored: Stored,
}

/// The stored vectors of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The record brings none.
    Absent,
    /// So many items were compared with them.
    Compared(usize),
    /// They could not be used: damaged, or of another record or task.
    Refused(String),
}

/// One item of the self-test.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemRow {
    /// What it is.
    pub item: &'static str,
    /// Its kind.
    pub modality: Modality,
    /// Rows that entered the backbone.
    pub tokens: usize,
    /// How far the length of its vector is from 1.
    pub unit: f32,
    /// The largest difference of a value alone and in a batch of all items twice.
    pub company: f32,
    /// What that may be: 0 on flex.
    pub company_bound: f32,
    /// The distance to the stored vector, where there is one.
    pub stored: Option<StoredDistance>,
    /// Whether everything is within its bound.
    pub ok: bool,
    /// How long it took alone, what is opened for it included.
    pub time: Duration,
    /// What went wrong in place of a vector.
    pub failure: Option<String>,
}

/// A vector beside the stored one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredDistance {
    /// The largest difference of a value.
    pub largest: f32,
    /// What that may be; infinite in low precision, where the cosine decides.
    pub bound: f32,
    /// Cosine of both.
    pub cosine: f32,
    /// The least cosine allowed.
    pub least_cosine: f32,
}

/// What queries and background work did beside each other for a short while.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// How long it lasted.
    pub length: Duration,
    /// From question to answer with nothing beside.
    pub idle: DurationStats,
    /// From question to answer with the background saturated.
    pub loaded: DurationStats,
    /// Waits and time slices of the loaded time.
    pub metrics: MetricsSnapshot,
    /// Items that background work finished.
    pub background_items: u64,
}

impl SelfTest {
    /// Whether every check passed, and at least one was made of each kind.
    pub fn ok(&self) -> bool {
        let kernels = !self.kernels.is_empty() && self.kernels.iter().all(|row| row.ok);
        let items = !self.items.is_empty() && self.items.iter().all(|row| row.ok);
        kernels && items && self.kernels_failure.is_none() && !matches!(self.stored, Stored::Refused(_))
    }
}

impl StoredDistance {
    fn ok(&self) -> bool {
        self.largest <= self.bound && self.cosine >= self.least_cosine
    }
}

/// `selftest.json` of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVectors {
    /// Digest of what decides the vectors, as in the identity.
    record: String,
    task: String,
    vectors: Vec<StoredVector>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVector {
    item: String,
    /// Little-endian f32 in base64.
    embedding: String,
}

/// A triangle between -32,768 and 32,767 of a phase that turns once in 65,536.
fn triangle(phase: u32) -> i32 {
    let at = (phase & 0xFFFF) as i32;
    if at < 0x8000 { 2 * at - 0x8000 } else { 0x17FFF - 2 * at }
}

/// Stripes, a gradient and a square: edges and colours from whole numbers alone.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut pixels = Vec::with_capacity((3 * width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let inside = x > width / 3 && x < 2 * width / 3 && y > height / 4 && y < height / 2;
            let stripe = if ((x + y + seed) / 7).is_multiple_of(2) { 200 } else { 40 };
            let [red, green] = [x * 255 / width, y * 255 / height];
            let value = if inside { [250, 30 + seed % 50, 20] } else { [red, green, stripe] };
            pixels.extend(value.map(|v| v as u8));
        }
    }
    RgbImage::new(Width(width), Height(height), pixels).expect("as many pixels as its sides say")
}

/// A tone that rises, with a second one above it, at 16 kHz.
fn sound(samples: u32) -> Vec<f32> {
    let mut phases = (0u32, 0u32);
    let value = |i: u32| {
        phases = (phases.0.wrapping_add(700 + i / 40), phases.1.wrapping_add(2900));
        (triangle(phases.0) + triangle(phases.1) / 3) as f32 / 131_072.0
    };
    (0..samples).map(value).collect()
}

const LONG: &str = "The keeper of the lighthouse wrote down the weather every evening: a falling glass, a swell from the \
west, gulls inland. In forty years he had missed three entries, each for a reason he could still name. When the \
light was made to run by itself, he kept on writing, because somebody had to know what the sea was like before the \
machines came to measure it.";

/// The items of the modalities that a model takes.
fn items(takes: &[Modality]) -> Vec<(&'static str, Input)> {
    let all = [
        ("one word", Input::text("bicycle")),
        ("a phrase", Input::text("a red bicycle under the bridge")),
        ("other scripts", Input::text("Straße, naïve, 猫: 7 × 6 = 42")),
        ("a paragraph", Input::text(LONG)),
        ("a picture", Input::image_pixels(picture(96, 64, 0))),
        ("a film", Input::video_frames((0..3).map(|i| picture(64, 48, 5 * i)).collect())),
        ("a sound", Input::audio_samples(sound(19_200), 16_000)),
    ];
    all.into_iter().filter(|(_, input)| takes.contains(&input.modality())).collect()
}

impl Engine {
    /// Examines operations, vectors and the law that company changes nothing; `progress` is told what comes next.
    ///
    /// It opens every tower the model has and takes a few seconds; failures are rows, never errors.
    pub fn self_test(&self, progress: &dyn Fn(&'static str)) -> SelfTest {
        progress("operations");
        let (device, product_bound) = (self.inner.parts.device().clone(), self.rounded().then_some(ROUNDED));
        let ran = self.unit(&Request::default(), move || self_test(&device, product_bound));
        let (kernels, kernels_failure) = match ran {
            Ok(rows) => (rows, None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        progress("vectors");
        let (vectors, mut stored) = match self.stored() {
            Ok(Some(vectors)) => (vectors, Stored::Compared(0)),
            Ok(None) => (Vec::new(), Stored::Absent),
            Err(why) => (Vec::new(), Stored::Refused(why)),
        };
        let items = self.item_rows(&vectors);
        if let Stored::Compared(count) = &mut stored {
            *count = items.iter().filter(|row| row.stored.is_some()).count();
            if *count == 0 {
                stored = Stored::Refused(format!("{STORED_FILE} holds no vector of an item that was computed"));
            }
        }
        SelfTest { kernels, kernels_failure, items, stored }
    }

    /// Whether products round their operands on this device, whatever type was asked for.
    fn rounded(&self) -> bool {
        self.spec().kind == BackendKind::Cuda
    }

    /// The record's stored vectors, by item.
    fn stored(&self) -> Result<Option<Vec<(String, Embedding)>>, String> {
        let record = self.inner.parts.record();
        let is_there = match record.is_inside() {
            true => record.bytes(STORED_FILE).is_ok(),
            false => record.path().join(STORED_FILE).is_file(),
        };
        if !is_there {
            return Ok(None);
        }
        let bytes = record.bytes(STORED_FILE).map_err(|_| format!("{STORED_FILE} could not be read"))?;
        self.read_stored(&bytes).map(Some)
    }

    fn read_stored(&self, bytes: &[u8]) -> Result<Vec<(String, Embedding)>, String> {
        let found: StoredVectors = serde_json::from_slice(bytes).map_err(|e| format!("{STORED_FILE}: {e}"))?;
        let digest = self.header().content_digest();
        if found.record != digest {
            return Err(format!("{STORED_FILE} is of the record {}, this one is {digest}", found.record));
        }
        let task = self.profile().task;
        if found.task != task {
            return Err(format!("{STORED_FILE} is of the task {}, the engine's is {task}", found.task));
        }
        let vector = |v: StoredVector| match Embedding::from_base64(&v.embedding) {
            Ok(embedding) => Ok((v.item, embedding)),
            Err(e) => Err(format!("{STORED_FILE}: {}: {e}", v.item)),
        };
        found.vectors.into_iter().map(vector).collect()
    }

    /// The vectors of every item as `selftest.json` keeps them, for a record to bring along.
    ///
    /// # Errors
    /// [`EngineError::Item`] for the first item without a vector.
    pub fn self_test_vectors(&self) -> Result<String, EngineError> {
        let items = items(&self.profile().modalities);
        let vector = |(index, (item, input)): (usize, (&'static str, Input))| {
            let found = self.alone(&input).map_err(|source| EngineError::Item { index, source })?;
            Ok(StoredVector { item: item.into(), embedding: found.embedding.to_base64() })
        };
        let vectors: Result<Vec<_>, EngineError> = items.into_iter().enumerate().map(vector).collect();
        let stored =
            StoredVectors { record: self.header().content_digest(), task: self.profile().task, vectors: vectors? };
        Ok(serde_json::to_string_pretty(&stored).expect("plain data always serialises") + "\n")
    }

    fn alone(&self, input: &Input) -> Result<Embedded, ItemError> {
        self.together(std::slice::from_ref(input)).swap_remove(0)
    }

    fn together(&self, inputs: &[Input]) -> Vec<Result<Embedded, ItemError>> {
        self.embed_with(inputs, &Request::new(Role::Document)).expect("the engine's own task and full width")
    }

    fn item_rows(&self, stored: &[(String, Embedding)]) -> Vec<ItemRow> {
        let items = items(&self.profile().modalities);
        let alone: Vec<_> = items
            .iter()
            .map(|(_, input)| {
                let started = Instant::now();
                let found = self.alone(input);
                (found, started.elapsed())
            })
            .collect();
        // Each twice, and in the other order.
        let company: Vec<Input> = items.iter().chain(&items).rev().map(|(_, input)| input.clone()).collect();
        let mut company = self.together(&company);
        company.reverse();
        let (first, second) = company.split_at(items.len());
        let rows = items.iter().zip(alone).zip(first.iter().zip(second));
        rows.map(|(((item, input), (alone, time)), (first, second))| {
            let stored = stored.iter().find(|(name, _)| name == item).map(|(_, vector)| vector);
            self.item_row(item, input.modality(), (alone, time), [first, second], stored)
        })
        .collect()
    }

    fn item_row(
        &self,
        item: &'static str,
        modality: Modality,
        (alone, time): (Result<Embedded, ItemError>, Duration),
        company: [&Result<Embedded, ItemError>; 2],
        stored: Option<&Embedding>,
    ) -> ItemRow {
        let company_bound = if self.spec().kind == BackendKind::Flex { 0.0 } else { COMPANY };
        let mut row = ItemRow {
            item,
            modality,
            tokens: 0,
            unit: f32::INFINITY,
            company: f32::INFINITY,
            company_bound,
            stored: None,
            ok: false,
            time,
            failure: None,
        };
        let alone = match alone {
            Ok(alone) => alone,
            Err(e) => {
                row.failure = Some(e.to_string());
                return row;
            }
        };
        row.tokens = alone.tokens;
        let values = alone.embedding.as_slice();
        let length = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        row.unit = if length.is_finite() { (length - 1.0).abs() as f32 } else { f32::INFINITY };
        row.company = 0.0;
        for other in company {
            match other {
                Ok(other) => row.company = row.company.max(largest(values, other.embedding.as_slice())),
                Err(e) => {
                    row.company = f32::INFINITY;
                    row.failure = Some(format!("in company: {e}"));
                }
            }
        }
        row.stored = stored.map(|stored| self.distance(&alone.embedding, stored));
        let stored_ok = row.stored.is_none_or(|d| d.ok());
        row.ok = row.failure.is_none() && row.unit <= UNIT && row.company <= company_bound && stored_ok;
        row
    }

    fn distance(&self, got: &Embedding, want: &Embedding) -> StoredDistance {
        // Bounds of NUMERICS.md for what is computed in; low precision is judged by its cosine.
        let (bound, least_cosine) = match self.profile().dtype {
            Dtype::Bf16 => (f32::INFINITY, 0.9995),
            Dtype::F16 => (f32::INFINITY, 0.999_99),
            _ if self.rounded() => (ROUNDED, 0.999_99),
            _ => (STORED, 0.999_99),
        };
        let same = got.dim() == want.dim();
        let cosine = if same { got.cosine(want) } else { 0.0 };
        StoredDistance { largest: largest(got.as_slice(), want.as_slice()), bound, cosine, least_cosine }
    }

    /// Asks at random times for `length`, with two background threads that always have work, and says what the waits and
    /// time slices were. The counters of [`Engine::metrics`] begin at zero with it.
    ///
    /// # Errors
    /// [`EngineError::Item`] for the first query or background item that failed.
    pub fn load_test(&self, length: Duration) -> Result<LoadReport, EngineError> {
        self.open_all()?;
        let takes = self.profile().modalities;
        let query = || self.embed_one(Input::text("a red bicycle under the bridge"), Role::Query);
        self.embed(&background(&takes, 0), Role::Document)?;
        query()?;

        let watch = Metrics::new();
        let mut pauses = Pauses(1);
        // The metrics's histogram serves for answers too: idle ones as one class, loaded ones as the other.
        let mut timed = |class: Priority, longest: Duration| {
            std::thread::sleep(pauses.next(longest));
            let asked = Instant::now();
            query().map(|_| watch.record_wait(class, asked.elapsed()))
        };
        for _ in 0..IDLE_QUERIES {
            timed(Priority::Background, Duration::from_millis(20))?;
        }
        self.reset_metrics();
        let (stop, items) = (Cancel::new(), AtomicU64::new(0));
        let (failed, rounds, began) = (AtomicBool::new(false), AtomicU32::new(1), Instant::now());
        let outcome = std::thread::scope(|scope| {
            let work = || -> Result<(), EngineError> {
                let request = Request::new(Role::Document).cancel(stop.clone());
                while !stop.is_cancelled() {
                    let batch = background(&takes, rounds.fetch_add(1, Ordering::Relaxed));
                    for (index, result) in self.embed_with(&batch, &request)?.into_iter().enumerate() {
                        match result {
                            Ok(_) => _ = items.fetch_add(1, Ordering::Relaxed),
                            Err(ItemError::Cancelled) => {}
                            Err(source) => {
                                failed.store(true, Ordering::Relaxed);
                                return Err(EngineError::Item { index, source });
                            }
                        }
                    }
                }
                Ok(())
            };
            let threads: Vec<_> = (0..BACKGROUND_THREADS).map(|_| scope.spawn(work)).collect();
            let mut asked = 0;
            let mut queries = Ok(());
            while queries.is_ok()
                && !failed.load(Ordering::Relaxed)
                && (began.elapsed() < length || asked < LEAST_QUERIES)
            {
                queries = timed(Priority::Interactive, Duration::from_millis(80));
                asked += 1;
            }
            // Before the threads are told to stop, so that no wait of the end is among the figures.
            let (took, metrics) = (began.elapsed(), self.metrics());
            stop.cancel();
            let work = threads.into_iter().map(|t| t.join().expect("the threads of a load test do not panic"));
            let work: Result<(), EngineError> = work.collect();
            queries.and(work).map(|()| (took, metrics))
        });
        let (took, metrics) = outcome?;
        let answers = watch.snapshot();
        Ok(LoadReport {
            length: took,
            idle: answers.background.waits,
            loaded: answers.interactive.waits,
            metrics,
            background_items: items.into_inner(),
        })
    }
}

/// A batch of background work: other inputs every round, because equal ones might be computed once.
fn background(takes: &[Modality], round: u32) -> Vec<Input> {
    let texts = (0..8).map(|i| Input::text(format!("{round}. {}", &LONG[..LONG.floor_char_boundary(120 + 20 * i)])));
    let media = [
        Input::image_pixels(picture(96, 64, round)),
        Input::video_frames((0..3).map(|i| picture(64, 48, 3 * round + i)).collect()),
        Input::audio_samples(sound(19_200 - 160 * (round % 60)), 16_000),
    ];
    texts.chain(media.into_iter().filter(|input| takes.contains(&input.modality()))).collect()
}

/// Queries with nothing beside them.
const IDLE_QUERIES: usize = 15;
/// Queries under load at least, however slow the model.
const LEAST_QUERIES: usize = 5;
/// One that computes and one that waits.
const BACKGROUND_THREADS: usize = 2;

/// Pauses that look random and are the same every time.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self, longest: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        longest.mul_f64(((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// The largest difference; infinite where lengths differ or a value is not finite.
fn largest(got: &[f32], want: &[f32]) -> f32 {
    if got.len() != want.len() {
        return f32::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, |most, d| if d.is_finite() { d.max(most) } else { f32::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_are_the_same_on_every_machine() {
        let sum = |bytes: &[u8]| bytes.iter().fold(0u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        assert_eq!(triangle(0), -0x8000);
        assert_eq!((triangle(0x7FFF), triangle(0x8000), triangle(0xFFFF)), (0x7FFE, 0x7FFF, -0x7FFF));
        let bytes: Vec<u8> = sound(19_200).iter().flat_map(|v| v.to_le_bytes()).collect();
        // Digests of the first machine: a change here needs new stored vectors.
        assert_eq!(sum(picture(96, 64, 0).pixels()), 0x2b45_7e43_902a_3b32);
        assert_eq!(sum(&bytes), 0x0dd7_a1b6_cc3a_f922);
        assert!(sound(19_200).iter().all(|v| v.abs() <= 0.34 && v.is_finite()));
        assert_eq!(items(&Modality::ALL).len(), 7);
        assert_eq!(items(&[Modality::Text]).len(), 4);
    }

    #[cfg(all(feature = "mini", feature = "flex"))]
    mod of_the_model_that_ships {
        use super::*;

        #[test]
        fn everything_passes_and_every_item_has_a_stored_vector() {
            let engine = Engine::mini().unwrap();
            let found = engine.self_test(&|_| {});
            for row in &found.items {
                println!("{}: unit {:.1e}, company {:.1e}, {:?}", row.item, row.unit, row.company, row.stored);
            }
            assert!(found.ok(), "{found:?}");
            assert_eq!(found.stored, Stored::Compared(7));
            assert!(found.items.iter().all(|row| row.stored.unwrap().largest <= 2e-6), "of this engine's own");
        }

        #[test]
        fn the_stored_file_is_what_its_command_writes() {
            let engine = Engine::mini().unwrap();
            let (fresh, kept) = (engine.self_test_vectors().unwrap(), engine.stored().unwrap().unwrap());
            let fresh = engine.read_stored(fresh.as_bytes()).unwrap();
            assert_eq!(fresh.len(), kept.len());
            for ((name, fresh), (item, kept)) in fresh.iter().zip(&kept) {
                assert_eq!(name, item);
                assert!(largest(fresh.as_slice(), kept.as_slice()) <= STORED, "{item}");
            }
        }

        #[test]
        fn a_changed_stored_vector_fails_its_item_alone() {
            let engine = Engine::mini().unwrap();
            let mut stored = engine.stored().unwrap().unwrap();
            let mut values = stored[4].1.clone().into_vec();
            values[17] += 3e-5;
            stored[4].1 = Embedding::from_unit(values).unwrap();
            let rows = engine.item_rows(&stored);
            let failed: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.item).collect();
            assert_eq!(failed, ["a picture"]);
            let shorter = Embedding::from_raw(vec![1.0; 12]).unwrap();
            assert!(!engine.distance(&stored[0].1, &shorter).ok());
        }

        #[test]
        fn an_item_that_is_another_in_company_fails() {
            let engine = Engine::mini().unwrap();
            let (one, other) = (engine.alone(&Input::text("a")), engine.alone(&Input::text("b")));
            let again = engine.alone(&Input::text("a"));
            let row = |company| {
                engine.item_row(
                    "one word",
                    Modality::Text,
                    (engine.alone(&Input::text("a")), Duration::ZERO),
                    company,
                    None,
                )
            };
            assert!(row([&one, &again]).ok);
            let changed = row([&one, &other]);
            assert!(!changed.ok && changed.company > 1e-3, "{changed:?}");
            let cut = row([&one, &Err(ItemError::Cancelled)]);
            assert!(!cut.ok && cut.failure.unwrap().contains("cancelled"));
            let failed =
                engine.item_row("x", Modality::Text, (Err(ItemError::Cancelled), Duration::ZERO), [&one, &one], None);
            assert!(!failed.ok && failed.failure.is_some());
        }

        #[test]
        fn stored_vectors_of_another_record_or_damaged_are_refused_by_name() {
            let engine = Engine::mini().unwrap();
            let text = engine.self_test_vectors().unwrap();
            let refused = |text: &str| engine.read_stored(text.as_bytes()).unwrap_err();
            let digest = engine.header().content_digest();
            assert!(refused(&text.replace(&digest, "0123")).contains("0123"));
            assert!(refused(&text.replace("\"retrieval\"", "\"clustering\"")).contains("clustering"));
            assert!(refused(&text.replace("\"vectors\"", "\"vector\"")).contains(STORED_FILE));
            assert!(refused(&text[..text.len() / 2]).contains(STORED_FILE));
            let test =
                SelfTest { kernels: Vec::new(), kernels_failure: None, items: Vec::new(), stored: Stored::Absent };
            assert!(!test.ok(), "what was not examined is not well");
        }

        #[test]
        fn a_short_load_is_measured() {
            let engine = Engine::mini().unwrap();
            let load = engine.load_test(Duration::from_millis(400)).unwrap();
            println!("{load:#?}");
            assert_eq!(load.idle.count, IDLE_QUERIES as u64);
            assert!(load.loaded.count >= LEAST_QUERIES as u64);
            assert_eq!(load.metrics.interactive.slices.count, load.loaded.count, "one unit a query");
            assert!(load.metrics.background.slices.count > 0 && load.background_items > 0);
        }
    }
}
