//! An engine examined: operations on its device, and fixed items against stored vectors and against themselves in a batch.
//!
//! Stored vectors lie in a record as `selftest.json`; those of the model that ships were written by
//! `cargo run --release -p omniburn-tests --example selftest_vectors` and are held to the reference by the tests.
//! Printing is the caller's.

use std::time::{Duration, Instant};

use omniburn::probe::KernelRow;
use omniburn::{
    BackendKind, Dtype, Embedded, Embedding, Engine, EngineError, Input, ItemError, Modality, Request, Role,
};
use serde::{Deserialize, Serialize};

use crate::device::backend;
use crate::items::items;

/// Name of the stored vectors in a record.
const STORED_FILE: &str = "selftest.json";
/// Vectors in f32 against stored ones, whatever the processor or backend (`NUMERICS.md`).
const STORED: f32 = 1e-5;
/// The same where products round their operands (CUDA through TF32), and its operations.
const ROUNDED: f32 = 1e-3;
/// An item in a batch on backends that choose kernels by shape; on flex it is bit-equal.
const BATCHED: f32 = 1e-6;
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
    pub batched: f32,
    /// What that may be: 0 on flex.
    pub batched_bound: f32,
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

/// Examines operations, vectors and the law that batch mates change nothing; `progress` gets the name of what comes next.
///
/// It opens every tower the model has and takes a few seconds; failures are rows, never errors.
pub fn self_test(engine: &Engine, progress: &dyn Fn(&'static str)) -> SelfTest {
    let subject = Subject(engine);
    progress("operations");
    let product_bound = subject.rounded().then_some(ROUNDED);
    let ran = engine.on_device(&Request::default(), move |device| device.kernels(product_bound));
    let (kernels, kernels_failure) = match ran {
        Ok(rows) => (rows, None),
        Err(e) => (Vec::new(), Some(e.to_string())),
    };
    progress("vectors");
    let (vectors, mut stored) = match subject.stored() {
        Ok(Some(vectors)) => (vectors, Stored::Compared(0)),
        Ok(None) => (Vec::new(), Stored::Absent),
        Err(why) => (Vec::new(), Stored::Refused(why)),
    };
    let items = subject.item_rows(&vectors);
    if let Stored::Compared(count) = &mut stored {
        *count = items.iter().filter(|row| row.stored.is_some()).count();
        if *count == 0 {
            stored = Stored::Refused(format!("{STORED_FILE} holds no vector of an item that was computed"));
        }
    }
    SelfTest { kernels, kernels_failure, items, stored }
}

/// The vectors of every item as `selftest.json` keeps them, for a record to bring along.
///
/// # Errors
/// [`EngineError::Item`] for the first item without a vector.
pub fn self_test_vectors(engine: &Engine) -> Result<String, EngineError> {
    let subject = Subject(engine);
    let items = items(&engine.profile().modalities);
    let vector = |(index, (item, input)): (usize, (&'static str, Input))| {
        let found = subject.alone(&input).map_err(|source| EngineError::Item { index, source })?;
        Ok(StoredVector { item: item.into(), embedding: found.embedding.to_base64() })
    };
    let vectors: Result<Vec<_>, EngineError> = items.into_iter().enumerate().map(vector).collect();
    let stored =
        StoredVectors { record: engine.header().content_digest(), task: engine.profile().task, vectors: vectors? };
    Ok(serde_json::to_string_pretty(&stored).expect("plain data always serialises") + "\n")
}

/// An engine under examination.
struct Subject<'a>(&'a Engine);

impl Subject<'_> {
    /// Whether products round their operands on this device, whatever type was asked for.
    fn rounded(&self) -> bool {
        backend(self.0) == BackendKind::Cuda
    }

    /// The record's stored vectors, by item.
    fn stored(&self) -> Result<Option<Vec<(String, Embedding)>>, String> {
        let record = self.0.record();
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
        let digest = self.0.header().content_digest();
        if found.record != digest {
            return Err(format!("{STORED_FILE} is of the record {}, this one is {digest}", found.record));
        }
        let task = self.0.profile().task;
        if found.task != task {
            return Err(format!("{STORED_FILE} is of the task {}, the engine's is {task}", found.task));
        }
        let vector = |v: StoredVector| match Embedding::from_base64(&v.embedding) {
            Ok(embedding) => Ok((named_now(v.item), embedding)),
            Err(e) => Err(format!("{STORED_FILE}: {}: {e}", v.item)),
        };
        found.vectors.into_iter().map(vector).collect()
    }

    fn alone(&self, input: &Input) -> Result<Embedded, ItemError> {
        self.together(std::slice::from_ref(input)).swap_remove(0)
    }

    fn together(&self, inputs: &[Input]) -> Vec<Result<Embedded, ItemError>> {
        self.0.embed_with(inputs, &Request::new(Role::Document)).expect("the engine's own task and full width")
    }

    fn item_rows(&self, stored: &[(String, Embedding)]) -> Vec<ItemRow> {
        let items = items(&self.0.profile().modalities);
        let alone: Vec<_> = items
            .iter()
            .map(|(_, input)| {
                let started = Instant::now();
                let found = self.alone(input);
                (found, started.elapsed())
            })
            .collect();
        // Each twice, and in the other order.
        let batched: Vec<Input> = items.iter().chain(&items).rev().map(|(_, input)| input.clone()).collect();
        let mut batched = self.together(&batched);
        batched.reverse();
        let (first, second) = batched.split_at(items.len());
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
        batched: [&Result<Embedded, ItemError>; 2],
        stored: Option<&Embedding>,
    ) -> ItemRow {
        let batched_bound = if backend(self.0) == BackendKind::Flex { 0.0 } else { BATCHED };
        let mut row = ItemRow {
            item,
            modality,
            tokens: 0,
            unit: f32::INFINITY,
            batched: f32::INFINITY,
            batched_bound,
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
        row.batched = 0.0;
        for other in batched {
            match other {
                Ok(other) => row.batched = row.batched.max(largest(values, other.embedding.as_slice())),
                Err(e) => {
                    row.batched = f32::INFINITY;
                    row.failure = Some(format!("in a batch: {e}"));
                }
            }
        }
        row.stored = stored.map(|stored| self.distance(&alone.embedding, stored));
        let stored_ok = row.stored.is_none_or(|d| d.ok());
        row.ok = row.failure.is_none() && row.unit <= UNIT && row.batched <= batched_bound && stored_ok;
        row
    }

    fn distance(&self, got: &Embedding, want: &Embedding) -> StoredDistance {
        // Bounds of NUMERICS.md for what is computed in; low precision is judged by its cosine.
        let (bound, least_cosine) = match self.0.profile().dtype {
            Dtype::Bf16 => (f32::INFINITY, 0.9995),
            Dtype::F16 => (f32::INFINITY, 0.999_99),
            _ if self.rounded() => (ROUNDED, 0.999_99),
            _ => (STORED, 0.999_99),
        };
        let same = got.dim() == want.dim();
        let cosine = if same { got.cosine(want) } else { 0.0 };
        StoredDistance { largest: largest(got.as_slice(), want.as_slice()), bound, cosine, least_cosine }
    }
}

/// The name of an item that a stored file of before calls otherwise.
fn named_now(item: String) -> String {
    match item.as_str() {
        "a picture" => "an image".into(),
        "a film" => "a video".into(),
        "a sound" => "audio".into(),
        _ => item,
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
    use omniburn::Dtype;

    use super::*;

    /// The model that ships in the type that its stored vectors are of.
    fn engine() -> Engine {
        Engine::mini_builder().dtype(Dtype::F32).open().unwrap()
    }

    #[test]
    fn everything_passes_and_every_item_has_a_stored_vector() {
        let engine = engine();
        let found = self_test(&engine, &|_| {});
        for row in &found.items {
            println!("{}: unit {:.1e}, batched {:.1e}, {:?}", row.item, row.unit, row.batched, row.stored);
        }
        assert!(found.ok(), "{found:?}");
        assert_eq!(found.stored, Stored::Compared(7));
        assert!(found.items.iter().all(|row| row.stored.unwrap().largest <= 2e-6), "of this engine's own");
    }

    #[test]
    fn the_stored_file_is_what_its_command_writes() {
        let engine = engine();
        let (fresh, kept) = (self_test_vectors(&engine).unwrap(), Subject(&engine).stored().unwrap().unwrap());
        let fresh = Subject(&engine).read_stored(fresh.as_bytes()).unwrap();
        assert_eq!(fresh.len(), kept.len());
        for ((name, fresh), (item, kept)) in fresh.iter().zip(&kept) {
            assert_eq!(name, item);
            assert!(largest(fresh.as_slice(), kept.as_slice()) <= STORED, "{item}");
        }
    }

    #[test]
    fn a_changed_stored_vector_fails_its_item_alone() {
        let engine = engine();
        let mut stored = Subject(&engine).stored().unwrap().unwrap();
        let mut values = stored[4].1.clone().into_vec();
        values[17] += 3e-5;
        stored[4].1 = Embedding::from_unit(values).unwrap();
        let rows = Subject(&engine).item_rows(&stored);
        let failed: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.item).collect();
        assert_eq!(failed, ["an image"]);
        let shorter = Embedding::from_raw(vec![1.0; 12]).unwrap();
        assert!(!Subject(&engine).distance(&stored[0].1, &shorter).ok());
    }

    #[test]
    fn an_item_that_is_another_in_a_batch_fails() {
        let engine = engine();
        let (one, other) = (Subject(&engine).alone(&Input::text("a")), Subject(&engine).alone(&Input::text("b")));
        let again = Subject(&engine).alone(&Input::text("a"));
        let row = |batched| {
            Subject(&engine).item_row(
                "one word",
                Modality::Text,
                (Subject(&engine).alone(&Input::text("a")), Duration::ZERO),
                batched,
                None,
            )
        };
        assert!(row([&one, &again]).ok);
        let changed = row([&one, &other]);
        assert!(!changed.ok && changed.batched > 1e-3, "{changed:?}");
        let cut = row([&one, &Err(ItemError::Cancelled)]);
        assert!(!cut.ok && cut.failure.unwrap().contains("cancelled"));
        let failed = Subject(&engine).item_row(
            "x",
            Modality::Text,
            (Err(ItemError::Cancelled), Duration::ZERO),
            [&one, &one],
            None,
        );
        assert!(!failed.ok && failed.failure.is_some());
    }

    #[test]
    fn stored_vectors_of_another_record_or_damaged_are_refused_by_name() {
        let engine = engine();
        let text = self_test_vectors(&engine).unwrap();
        let refused = |text: &str| Subject(&engine).read_stored(text.as_bytes()).unwrap_err();
        let digest = engine.header().content_digest();
        assert!(refused(&text.replace(&digest, "0123")).contains("0123"));
        assert!(refused(&text.replace("\"retrieval\"", "\"clustering\"")).contains("clustering"));
        assert!(refused(&text.replace("\"vectors\"", "\"vector\"")).contains(STORED_FILE));
        assert!(refused(&text[..text.len() / 2]).contains(STORED_FILE));
        let test = SelfTest { kernels: Vec::new(), kernels_failure: None, items: Vec::new(), stored: Stored::Absent };
        assert!(!test.ok(), "what was not examined is not well");
    }
}
