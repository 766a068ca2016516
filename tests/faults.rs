//! Finite, or refused: a fault at any boundary between layers costs one item its vector and nobody else anything.
//!
//! A boundary is a place that `omniburn_models::capture` names. Units run on the engine's own thread, so a fault is armed
//! in the whole process, and each of these tests runs in one of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use omniburn::{Dtype, Embedding, Engine, EngineBuilder, Input, ItemError, Priority, Request, Role};
use omniburn_convert::TaskChoice;
use omniburn_media::decode_image_file;
use omniburn_models::capture::{Observer, observe};

use crate::support::*;

/// Runs `body` in a process that runs no other test.
pub(crate) fn in_a_process_of_its_own(module: &str, test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "OMNIBURN_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = format!("{module}::{test}");
    let mut command = Command::new(std::env::current_exe().expect("a test is a program"));
    let output =
        command.args(["--exact", &name, "--nocapture", "--test-threads", "1"]).env(INSIDE, "1").output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{wrong}");
}

/// What goes wrong at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A value of the row becomes NaN.
    Nan,
    /// A value of the row becomes infinite.
    Infinity,
    /// The computation panics.
    Panic,
    /// The device fails, and says so where the unit's results are read.
    Device,
}

/// A tensor that passed a boundary. A row is known by its bits, so that one item of a packed unit is hit and its
/// neighbours are not, alone or in a batch.
struct Passed {
    boundary: String,
    rows: Vec<u64>,
}

/// Notes what passes.
#[derive(Default)]
struct Watch(Mutex<Vec<Passed>>);

impl Observer for Watch {
    fn pass(&self, name: &str, shape: &[usize], values: &dyn Fn() -> Vec<f32>) -> Option<Vec<f32>> {
        self.0.lock().unwrap().push(Passed { boundary: name.into(), rows: known_by(&values(), shape[0]) });
        None
    }
}

/// Makes one row fail at one boundary.
struct Armed {
    boundary: String,
    row: u64,
    fault: Fault,
    met: AtomicUsize,
}

thread_local! {
    /// A failure of the device that waits for the next read of this thread.
    static PENDING: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Observer for Armed {
    fn pass(&self, name: &str, shape: &[usize], values: &dyn Fn() -> Vec<f32>) -> Option<Vec<f32>> {
        // Nothing is read at other boundaries: a model has up to fifty of them.
        if name != self.boundary {
            return None;
        }
        let mut values = values();
        let row = known_by(&values, shape[0]).iter().position(|row| *row == self.row)?;
        self.met.fetch_add(1, Ordering::SeqCst);
        let value = match self.fault {
            Fault::Nan => f32::NAN,
            Fault::Infinity => f32::INFINITY,
            Fault::Panic => panic!("a fault was armed at {name}"),
            Fault::Device => {
                PENDING.set(Some(format!("a fault was armed at {name}")));
                return None;
            }
        };
        let width = values.len() / shape[0];
        // In the middle of the row, so that it is neither in the first column nor in the first place of an image.
        values[row * width + width / 2] = value;
        Some(values)
    }

    fn read(&self) -> Result<(), String> {
        PENDING.take().map_or(Ok(()), Err)
    }
}

/// What each row of the first axis is known by: equal for equal bits.
fn known_by(values: &[f32], rows: usize) -> Vec<u64> {
    let known = |row: &[f32]| {
        let mut hasher = DefaultHasher::new();
        row.iter().for_each(|value| hasher.write_u32(value.to_bits()));
        hasher.finish()
    };
    if values.is_empty() { Vec::new() } else { values.chunks_exact(values.len() / rows).map(known).collect() }
}

/// What passes every boundary on any thread, in order.
fn watch(work: impl FnOnce()) -> Vec<Passed> {
    let watch = Arc::new(Watch::default());
    observe(watch.clone(), work);
    std::mem::take(&mut watch.0.lock().unwrap())
}

/// An item that is hit, and one that shares its units where its family packs items.
struct Case {
    what: &'static str,
    hit: Input,
    neighbour: Input,
}

fn pixels(path: PathBuf) -> Input {
    Input::image_pixels(decode_image_file(&path).unwrap())
}

fn frames(paths: &[PathBuf]) -> Input {
    Input::video_frames(paths.iter().map(|path| decode_image_file(path).unwrap()).collect())
}

fn texts() -> Case {
    let [hit, neighbour] = ["a purple heron by the weir", "seven small boats at dusk"].map(Input::text);
    Case { what: "text", hit, neighbour }
}

fn omni_cases(checkpoint: &Checkpoint) -> Vec<Case> {
    let image = |name: &str| checkpoint.media.join(format!("images/{name}.png"));
    let clip: Vec<PathBuf> = (0..4).map(|i| checkpoint.media.join(format!("video/clip4_{i}.png"))).collect();
    vec![
        texts(),
        Case { what: "picture", hit: pixels(image("odd")), neighbour: pixels(image("wide")) },
        // Of another size, as the positions of a video are those of every video of its size.
        Case { what: "film", hit: frames(&clip), neighbour: frames(&[image("square"), image("square")]) },
        Case { what: "sound", hit: checkpoint.audio("mixed"), neighbour: checkpoint.audio("three") },
    ]
}

fn mini_cases() -> Vec<Case> {
    let sample = |name: &str| workspace().join("models/mini/samples").join(name);
    vec![
        texts(),
        // Media of this family share no unit, so whoever is beside them need not be one.
        Case { what: "picture", hit: pixels(sample("cat.jpg")), neighbour: Input::text("a kitten") },
        Case { what: "film", hit: frames(&["bee.jpg", "car.png"].map(sample)), neighbour: Input::text("a bee") },
        Case {
            what: "sound",
            hit: Input::audio_file(sample("speech-where-is-the-guitar.wav")),
            neighbour: Input::text("a guitar"),
        },
    ]
}

fn vectors(engine: &Engine, inputs: &[Input]) -> Vec<Result<Embedding, ItemError>> {
    let results = engine.embed_with(inputs, &Request::new(Role::Document)).unwrap();
    results.into_iter().map(|result| result.map(|embedded| embedded.embedding)).collect()
}

/// Rows of the item alone at each boundary, in forward order, that pass there for no other input.
fn own_rows(alone: Vec<Passed>, others: &[Passed]) -> Vec<(String, Vec<u64>)> {
    let mut seen: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for passed in others {
        seen.entry(&passed.boundary).or_default().extend(&passed.rows);
    }
    let mut own: Vec<(String, Vec<u64>)> = Vec::new();
    for Passed { boundary, rows } in alone {
        let theirs = seen.get(&*boundary);
        let rows = rows.into_iter().filter(|row| !theirs.is_some_and(|theirs| theirs.contains(row)));
        match own.iter_mut().find(|(name, _)| *name == boundary) {
            Some((_, all)) => all.extend(rows),
            None => own.push((boundary, rows.collect())),
        }
    }
    own
}

const FAULTS: [Fault; 4] = [Fault::Nan, Fault::Infinity, Fault::Panic, Fault::Device];

/// Every boundary that each kind of input passes, with every fault. Gives how many faults were met.
fn every_boundary(name: &str, engine: &Engine, cases: &[Case]) -> usize {
    let bystander = Input::text("the harbour wall");
    let (mut met_in_all, mut boundaries, mut silent) = (0, BTreeSet::new(), Vec::new());
    for Case { what, hit, neighbour } in cases {
        let mates = [neighbour.clone(), hit.clone(), bystander.clone()];
        let want: Vec<Embedding> = vectors(engine, &mates).into_iter().map(Result::unwrap).collect();
        let alone = watch(|| drop(vectors(engine, std::slice::from_ref(hit))));
        let others = watch(|| drop(vectors(engine, &[neighbour.clone(), bystander.clone()])));
        assert!(!alone.is_empty(), "{name} {what}: nothing passed a boundary");
        for (boundary, rows) in own_rows(alone, &others) {
            boundaries.insert(boundary.clone());
            for fault in FAULTS {
                let at = format!("{name}, {what}, {fault:?} at {boundary}");
                // From the end: where the vector is made of the last row, the others matter no more after the last layer.
                // A row of which nothing is made leaves the vector as it was, to the bit, and proves nothing.
                let mut tried = 0;
                let failed = rows.iter().rev().take(8).any(|&row| {
                    tried += 1;
                    let armed = Arc::new(Armed { boundary: boundary.clone(), row, fault, met: AtomicUsize::new(0) });
                    let mut got = observe(armed.clone(), || vectors(engine, &mates));
                    let met = armed.met.load(Ordering::SeqCst);
                    assert!(met > 0, "{at}: not met");
                    met_in_all += met;
                    let it = got.remove(1);
                    for (got, want) in got.into_iter().zip([&want[0], &want[2]]) {
                        assert!(got.unwrap() == *want, "{at}: a neighbour has other bits");
                    }
                    // The device, the scheduler and the thread serve whoever comes next, of either class.
                    for priority in [Priority::Interactive, Priority::Background] {
                        let request = Request::new(Role::Document).priority(priority);
                        let next =
                            engine.embed_with(std::slice::from_ref(&bystander), &request).unwrap().swap_remove(0);
                        assert!(next.unwrap().embedding == want[2], "{at}: the next request");
                    }
                    match it {
                        Err(error) => {
                            let kind = match fault {
                                Fault::Nan | Fault::Infinity => "not_finite",
                                Fault::Panic => "panicked",
                                Fault::Device => "device",
                            };
                            let message = error.to_string();
                            assert_eq!(error.kind().name(), kind, "{at}: {message}");
                            assert!(kind == "not_finite" || message.contains(&boundary), "{at}: {message}");
                            true
                        }
                        Ok(vector) if vector == want[1] => false,
                        Ok(_) => {
                            silent.push(at.clone());
                            true
                        }
                    }
                });
                assert!(failed, "{at}: of {} rows of its own, none of {tried} matters", rows.len());
            }
        }
        let after: Vec<Embedding> = vectors(engine, &mates).into_iter().map(Result::unwrap).collect();
        assert!(after == want, "{name} {what}: after all faults");
    }
    assert!(silent.is_empty(), "a vector that is not the item's, and no error:\n{}", silent.join("\n"));
    println!("{name}: {} boundaries, {} faults each, met {met_in_all} times", boundaries.len(), FAULTS.len());
    boundaries.len()
}

fn of_checkpoint(name: &str) -> Engine {
    opening(record(&golden().checkpoints.join(name), Dtype::F32, TaskChoice::Default)).open().unwrap()
}

/// On flex, whatever the suite runs on: a row is known by its bits, and other backends keep them in no batch.
fn opening(record: PathBuf) -> EngineBuilder {
    Engine::builder(record).dtype(Dtype::F32)
}

#[test]
fn a_fault_between_any_two_layers_of_the_omni_checkpoints_costs_one_item_its_vector() {
    in_a_process_of_its_own(
        "faults",
        "a_fault_between_any_two_layers_of_the_omni_checkpoints_costs_one_item_its_vector",
        || {
            for name in ["omni-small-tiny", "omni-nano-tiny"] {
                let checkpoint = golden().checkpoint(name);
                let boundaries = every_boundary(name, &of_checkpoint(name), &omni_cases(&checkpoint));
                assert!(boundaries >= 24, "only {boundaries}");
            }
        },
    );
}

#[test]
fn a_fault_between_any_two_layers_of_the_other_checkpoints_costs_one_item_its_vector() {
    in_a_process_of_its_own(
        "faults",
        "a_fault_between_any_two_layers_of_the_other_checkpoints_costs_one_item_its_vector",
        || {
            assert!(every_boundary("bert-tiny", &of_checkpoint("bert-tiny"), &[texts()]) >= 6);
            assert!(every_boundary("mini-tiny", &of_checkpoint("mini-tiny"), &mini_cases()) >= 20);
        },
    );
}

#[test]
fn a_fault_between_any_two_layers_of_the_model_that_ships_costs_one_item_its_vector() {
    in_a_process_of_its_own(
        "faults",
        "a_fault_between_any_two_layers_of_the_model_that_ships_costs_one_item_its_vector",
        || {
            let engine = Engine::mini().unwrap();
            // A video passes what an image passes, at a second a fault.
            let cases: Vec<Case> = mini_cases().into_iter().filter(|case| case.what != "film").collect();
            assert!(every_boundary("the model that ships", &engine, &cases) >= 40);
        },
    );
}

/// Too long and too large, then over the budget, each between items that are none of these.
#[test]
fn what_our_own_limits_refuse_costs_nobody_else_anything() {
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let checkpoint = golden().checkpoint(name);
        let record = record(&checkpoint.folder, Dtype::F32, TaskChoice::Default);
        let engine = opening(record.clone()).open().unwrap();
        let limit = engine.profile().max_tokens.to_string();
        let good = [Input::text("a red bicycle"), checkpoint.image_named("tiny"), checkpoint.audio("half")];
        let want: Vec<Embedding> = vectors(&engine, &good).into_iter().map(Result::unwrap).collect();
        let refused = |engine: &Engine, bad: &[(&Input, &str, &str)]| {
            let mates: Vec<Input> = good
                .iter()
                .zip(bad.iter().cycle())
                .flat_map(|(good, (bad, ..))| [good.clone(), (*bad).clone()])
                .collect();
            // Twice: the second call finds scheduler, thread and budget as the first did.
            for _ in 0..2 {
                let got = vectors(engine, &mates);
                for (place, pair) in got.chunks(2).enumerate() {
                    let (_, kind, named) = bad[place % bad.len()];
                    let error = pair[1].as_ref().unwrap_err();
                    assert_eq!(error.kind().name(), kind, "{name}: {error}");
                    assert!(error.to_string().contains(named), "{name}: {error}");
                    assert!(
                        *pair[0].as_ref().unwrap() == want[place],
                        "{name}: beside {kind} item {place} has other bits"
                    );
                }
            }
        };
        let long = Input::text("word ".repeat(9000));
        let large = Input::image_bytes(png_of(60_000, 60_000));
        refused(&engine, &[(&long, "too_long", &limit), (&large, "too_large", "60000")]);

        // Enough for each good item, and not for the heavy one.
        let heavy = Input::text("word ".repeat(3000));
        let needed = |input: &Input| {
            let tight = opening(record.clone()).budget(1).open().unwrap();
            match vectors(&tight, std::slice::from_ref(input)).swap_remove(0) {
                Err(ItemError::OverBudget { needed, .. }) => needed,
                other => panic!("{name}: {other:?}"),
            }
        };
        let budget = good.iter().map(needed).max().unwrap();
        assert!(needed(&heavy) > budget, "{name}: {} and {budget}", needed(&heavy));
        let tight = opening(record.clone()).budget(budget).open().unwrap();
        refused(&tight, &[(&heavy, "over_budget", &budget.to_string())]);
    }
}

/// The head of a PNG of any size, with nothing behind it.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = chunk.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    [b"\x89PNG\r\n\x1a\n".as_slice(), &13u32.to_be_bytes(), &chunk, &(!crc).to_be_bytes()].concat()
}
