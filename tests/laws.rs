//! The first law as a property: the same item has the same vector alone, in any batch, at any place, twice in it,
//! streamed, beside eight busy threads, after a cancelled call and after a failed one. Items are random: texts of 1 to
//! 400 tokens and more, images of odd sizes, lists of frames, audio of 0.1 to 6 s, and items that fail.
//!
//! The subjects are both checkpoints and the model that ships, on flex, where the law holds to the bit; on another device of
//! the suite it is the bound of `NUMERICS.md`. What one operation does with its rows is tested in `batching`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use omniburn::{
    BackendKind, Cancel, Dtype, Engine, Height, Input, Priority, Request, RgbImage, Role, Truncation, Width,
};
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult};

use crate::support::*;

/// Mixed batches drawn for each subject, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 6;

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| default.cases);
    ProptestConfig { cases, ..default }
}

/// A random item, small enough to print when it breaks the law.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// Words drawn with a seed.
    Text { words: usize, seed: u32 },
    /// Noise.
    Image { width: u32, height: u32, seed: u32 },
    /// Frames of noise.
    Video { frames: usize, side: u32, seed: u32 },
    /// A tone that rises, with noise.
    Audio { milliseconds: usize, rate_hz: u32, seed: u32 },
    /// Bytes that are no image.
    NoImage,
    /// An audio with a value that is not a number.
    NotANumber { milliseconds: usize },
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Text { words, seed } => write!(f, "text of {words} words, seed {seed}"),
            Item::Image { width, height, seed } => write!(f, "image {width}x{height}, seed {seed}"),
            Item::Video { frames, side, seed } => write!(f, "video of {frames} frames of {side}, seed {seed}"),
            Item::Audio { milliseconds, rate_hz, seed } => {
                write!(f, "audio of {milliseconds} ms at {rate_hz} Hz, seed {seed}")
            }
            Item::NoImage => write!(f, "bytes that are no image"),
            Item::NotANumber { milliseconds } => write!(f, "audio of {milliseconds} ms with a NaN"),
        }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn noise(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut random = Random(u64::from(seed));
    let pixels = (0..width * height * 3).map(|_| (random.next() >> 56) as u8).collect();
    RgbImage::new(Width(width), Height(height), pixels).unwrap()
}

fn words(count: usize, seed: u32) -> String {
    const WORDS: [&str; 16] = [
        "a", "red", "bicycle", "under", "the", "bridge", "7", "Straße", "naïve", "猫", "is", "not", "where", "I",
        "left", "it,",
    ];
    let mut random = Random(u64::from(seed));
    (0..count).map(|_| WORDS[random.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

fn tone(milliseconds: usize, rate_hz: u32, seed: u32) -> Vec<f32> {
    let mut random = Random(u64::from(seed));
    let pitch = 0.01 + 0.0005 * (seed % 97) as f32;
    let count = milliseconds * rate_hz as usize / 1000;
    let value = |i: usize| 0.4 * (i as f32 * (pitch + i as f32 * 1e-7)).sin();
    (0..count).map(|i| value(i) + 0.1 * (random.below(1000) as f32 / 1000.0 - 0.5)).collect()
}

impl Item {
    fn input(&self) -> Input {
        match *self {
            Item::Text { words: count, seed } => Input::text(words(count, seed)),
            Item::Image { width, height, seed } => Input::image_pixels(noise(width, height, seed)),
            Item::Video { frames, side, seed } => {
                Input::video_frames((0..frames).map(|i| noise(side, side + 3, seed + i as u32)).collect())
            }
            Item::Audio { milliseconds, rate_hz, seed } => {
                Input::audio_samples(tone(milliseconds, rate_hz, seed), rate_hz)
            }
            Item::NoImage => Input::image_bytes(*b"this is no image"),
            Item::NotANumber { milliseconds } => {
                let mut samples = tone(milliseconds, 16_000, 1);
                samples[milliseconds * 8] = f32::NAN;
                Input::audio_samples(samples, 16_000)
            }
        }
    }
}

fn item() -> impl Strategy<Value = Item> {
    let seed = 0..1000u32;
    prop_oneof![
        // Few seeds, so that a batch holds texts of equal length with other words, and the same text again.
        6 => (1..240usize, 0..8u32).prop_map(|(words, seed)| Item::Text { words, seed }),
        2 => (prop_oneof![Just(1usize), Just(2), Just(5), Just(17), Just(64)], 0..8u32)
            .prop_map(|(words, seed)| Item::Text { words, seed }),
        3 => (1..320u32, 1..320u32, seed.clone())
            .prop_filter("sides of up to 1 to 200", |(w, h, _)| (*w).max(*h) < 190 * (*w).min(*h))
            .prop_map(|(width, height, seed)| Item::Image { width, height, seed }),
        1 => (1..6usize, 8..160u32, seed.clone()).prop_map(|(frames, side, seed)| Item::Video { frames, side, seed }),
        3 => (100..6000usize, prop_oneof![Just(16_000u32), Just(8000), Just(22_050), Just(44_100)], seed)
            .prop_map(|(milliseconds, rate_hz, seed)| Item::Audio { milliseconds, rate_hz, seed }),
        1 => Just(Item::NoImage),
        1 => (200..2000usize).prop_map(|milliseconds| Item::NotANumber { milliseconds }),
    ]
}

/// What an item gave: the bits of its vector, or the kind of its error.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    Vector(Vec<u32>),
    Refused(&'static str),
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Vector(bits) => write!(f, "a vector of {}", bits.len()),
            Outcome::Refused(kind) => write!(f, "refused as {kind}"),
        }
    }
}

fn outcome(result: Result<omniburn::Embedded, omniburn::ItemError>) -> Outcome {
    match result {
        Ok(found) => Outcome::Vector(found.embedding.as_slice().iter().map(|v| v.to_bits()).collect()),
        Err(e) => Outcome::Refused(e.kind().name()),
    }
}

/// Long texts are cut, so that the model that ships takes part with all of them.
fn request() -> Request {
    Request::new(Role::Document).truncation(Truncation::Right)
}

fn outcomes(engine: &Engine, items: &[Item]) -> Vec<Outcome> {
    let inputs: Vec<Input> = items.iter().map(Item::input).collect();
    engine.embed_with(&inputs, &request()).unwrap().into_iter().map(outcome).collect()
}

/// Says which item broke the law, where and by how much.
fn check(how: &str, items: &[Item], got: &[Outcome], want: impl Fn(&Item) -> Outcome) -> TestCaseResult {
    prop_assert_eq!(got.len(), items.len());
    for (place, (item, got)) in items.iter().zip(got).enumerate() {
        let want = want(item);
        let message = match (got, &want) {
            (got, want) if got == want => continue,
            (Outcome::Vector(got), Outcome::Vector(want)) => {
                let values = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>();
                let d = distance(how, &values(got), &values(want));
                if device().kind != BackendKind::Flex && d.max_abs <= COMPANY {
                    continue;
                }
                let differ = got.iter().zip(want).filter(|(g, w)| g != w).count();
                format!("{differ} of {} values differ, by {:.3e} at most, at {}", got.len(), d.max_abs, d.at)
            }
            (got, want) => format!("{got:?}, alone {want:?}"),
        };
        return Err(TestCaseError::fail(format!("{how}: {item:?} at {place} of {items:?}: {message}")));
    }
    Ok(())
}

/// Vectors of items alone, each computed once for an engine.
struct Alone<'a> {
    engine: &'a Engine,
    known: BTreeMap<Item, Outcome>,
}

impl<'a> Alone<'a> {
    fn of(engine: &'a Engine, items: &[Item]) -> Self {
        let mut alone = Self { engine, known: BTreeMap::new() };
        for item in items {
            let known = &mut alone.known;
            known.entry(item.clone()).or_insert_with(|| outcomes(engine, std::slice::from_ref(item)).swap_remove(0));
        }
        alone
    }

    fn want(&self, item: &Item) -> Outcome {
        self.known[item].clone()
    }

    fn check(&self, how: &str, items: &[Item]) -> TestCaseResult {
        check(how, items, &outcomes(self.engine, items), |item| self.want(item))
    }
}

/// The engines whose laws are held, opened once a process.
fn subjects() -> &'static [(&'static str, Engine)] {
    static SUBJECTS: OnceLock<Vec<(&'static str, Engine)>> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let checkpoint = |name| builder(golden().checkpoint(name).record(Dtype::F32)).open().unwrap();
        vec![
            ("omni-small-tiny", checkpoint("omni-small-tiny")),
            ("omni-nano-tiny", checkpoint("omni-nano-tiny")),
            ("the model that ships", Engine::mini_builder().device(device()).open().unwrap()),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_company_any_order_twice_and_streamed_an_item_keeps_its_bits(
        items in prop::collection::vec(item(), 2..14),
        seed in any::<u64>(),
    ) {
        for (name, engine) in subjects() {
            let alone = Alone::of(engine, &items);
            alone.check(&format!("{name}, batched"), &items)?;
            let mut shuffled = items.clone();
            let mut random = Random(seed);
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, random.below(i + 1));
            }
            alone.check(&format!("{name}, shuffled"), &shuffled)?;
            let twice: Vec<Item> = shuffled.iter().chain(&items).cloned().collect();
            alone.check(&format!("{name}, duplicated"), &twice)?;
            let inputs = twice.iter().map(Item::input).collect::<Vec<_>>();
            let streamed: Vec<Outcome> = engine.embed_iter(inputs, request()).unwrap().map(outcome).collect();
            check(&format!("{name}, streamed"), &twice, &streamed, |item| alone.want(item))?;
        }
    }

    /// Equal lengths share one rectangle of attention; where its route depends on how many they are, it shows here.
    #[test]
    fn texts_of_equal_length_keep_their_bits(words in 1..400usize, count in 2..7u32) {
        let items: Vec<Item> = (0..count).map(|seed| Item::Text { words, seed }).collect();
        for (name, engine) in subjects() {
            Alone::of(engine, &items).check(&format!("{name}, equal lengths"), &items)?;
        }
    }
}

/// These letters are one token each in every tokenizer here, so these batches are rectangles, below and above the length from
/// which flex's attention goes tile by tile.
#[test]
fn rectangles_of_every_height_keep_their_bits() {
    for (name, engine) in subjects() {
        let mut compared = 0;
        for length in [1, 2, 3, 7, 8, 9, 31, 64, 127, 250, 509, 520, 700] {
            let text = |seed: usize| {
                let letter = |i: usize| char::from(b'a' + ((i * 7 + seed * 3 + i * i * seed) % 3) as u8).to_string();
                (0..length).map(letter).collect::<Vec<_>>().join(" ")
            };
            let texts: Vec<Input> = (0..5).map(|seed| Input::text(text(seed))).collect();
            let run = |inputs: &[Input]| engine.embed_with(inputs, &request()).unwrap();
            let alone: Vec<_> = texts.iter().map(|t| run(std::slice::from_ref(t)).swap_remove(0).unwrap()).collect();
            assert!(alone.iter().all(|e| e.tokens == alone[0].tokens), "{name}: letters are one token each");
            for count in 2..=5 {
                let together = run(&texts[..count]);
                for (place, (got, want)) in together.into_iter().zip(&alone).enumerate() {
                    let (got, want) = (got.unwrap().embedding.into_vec(), want.embedding.clone().into_vec());
                    same(&format!("{name}: {length} letters, {place} of {count}"), &[got], &[want]);
                    compared += 1;
                }
            }
        }
        println!("{name}: {compared} vectors of rectangles equal to those alone");
    }
}

/// A fixed mixed batch, for the laws that are about time.
fn mixture(seed: u32) -> Vec<Item> {
    let text = |words, seed| Item::Text { words, seed };
    vec![
        text(3, seed),
        text(70, seed + 1),
        Item::Image { width: 131, height: 77, seed },
        text(70, seed + 2),
        Item::Audio { milliseconds: 1300, rate_hz: 22_050, seed },
        Item::NoImage,
        Item::Video { frames: 3, side: 60, seed },
        text(1, seed),
        Item::Audio { milliseconds: 250, rate_hz: 16_000, seed },
        text(210, seed + 3),
        Item::NotANumber { milliseconds: 400 },
        Item::Image { width: 40, height: 200, seed: seed + 1 },
    ]
}

#[test]
fn beside_eight_busy_threads_an_item_keeps_its_bits() {
    for (name, engine) in subjects() {
        let batches: Vec<Vec<Item>> = (0..8).map(|thread| mixture(10 * thread)).collect();
        let all: Vec<Item> = batches.concat();
        let alone = Alone::of(engine, &all);
        let (stop, compared) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for (thread, batch) in batches.iter().enumerate() {
                let (alone, stop, compared) = (&alone, &stop, &compared);
                scope.spawn(move || {
                    let mut batch = batch.clone();
                    while !stop.load(Ordering::Relaxed) {
                        batch.rotate_left(1 + thread % 3);
                        alone.check(&format!("{name}, thread {thread} of 8"), &batch).unwrap();
                        compared.fetch_add(batch.len(), Ordering::Relaxed);
                    }
                });
            }
            // Queries among them, one at a time.
            for round in 0..3 {
                for item in &all[..24] {
                    let asked = request().priority(Priority::Interactive);
                    let got = outcome(engine.embed_with(&[item.input()], &asked).unwrap().swap_remove(0));
                    let stopped =
                        check(&format!("{name}, query {round}"), std::slice::from_ref(item), &[got], |i| alone.want(i));
                    if stopped.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    stopped.unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        println!("{name}: {} items of background threads and 72 queries", compared.load(Ordering::Relaxed));
    }
}

/// Sixteen callers at once, each with requests of one to three items of all kinds, roles and classes: texts of one class share
/// passes with whatever waits beside them, and no bit moves.
#[test]
fn sixteen_callers_of_mixed_requests_get_what_each_has_alone() {
    const CALLERS: usize = 16;
    let items: Vec<Item> = (0..40)
        .map(|i| Item::Text { words: 1 + [0, 2, 5, 9, 14, 30, 77][i % 7], seed: i as u32 })
        .chain((0..2).map(|seed| Item::Image { width: 61 + seed, height: 40, seed }))
        .chain([Item::Audio { milliseconds: 400, rate_hz: 16_000, seed: 5 }, Item::NoImage])
        .collect();
    let roles = [Role::Query, Role::Document, Role::None];
    let asked = |role: Role| Request::new(role).truncation(Truncation::Right);
    for (name, subject) in subjects() {
        // An engine of its own, whose figures are those of this test.
        let engine = match *name {
            "the model that ships" => Engine::mini_builder().device(device()).open().unwrap(),
            name => builder(golden().checkpoint(name).record(Dtype::F32)).open().unwrap(),
        };
        // Full-size widths and media take a hundred times as long.
        let requests = if *name == "the model that ships" { 40 } else { 200 };
        let alone: Vec<Vec<Outcome>> = roles
            .iter()
            .map(|&role| {
                let one = |item: &Item| subject.embed_with(&[item.input()], &asked(role)).unwrap().swap_remove(0);
                items.iter().map(|item| outcome(one(item))).collect()
            })
            .collect();
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (engine, items, alone) = (&engine, &items, &alone);
                scope.spawn(move || {
                    let mut random = Random(caller as u64);
                    for round in 0..requests {
                        let role = random.below(3);
                        let mut request = asked(roles[role]);
                        if random.below(3) == 0 {
                            request = request.priority([Priority::Interactive, Priority::Background][random.below(2)]);
                        }
                        // Mostly texts: a medium one time in ten.
                        let one = |random: &mut Random| match random.below(10) {
                            0 => 40 + random.below(4),
                            _ => random.below(40),
                        };
                        let chosen: Vec<usize> = (0..1 + random.below(3)).map(|_| one(&mut random)).collect();
                        let inputs: Vec<Input> = chosen.iter().map(|&i| items[i].input()).collect();
                        let got = engine.embed_with(&inputs, &request).unwrap().into_iter().map(outcome);
                        let batch: Vec<Item> = chosen.iter().map(|&i| items[i].clone()).collect();
                        let want = |item: &Item| {
                            let at = items.iter().position(|other| other == item).expect("it was chosen of them");
                            alone[role][at].clone()
                        };
                        let how = format!("{name}, caller {caller}, request {round}");
                        check(&how, &batch, &got.collect::<Vec<_>>(), want).unwrap();
                    }
                });
            }
        });
        let metrics = engine.metrics();
        let counts = |class: &omniburn::ClassStats| (class.waits.count, class.computes.count);
        let (queries, background) = (counts(&metrics.interactive), counts(&metrics.background));
        println!("{name}: units asked for and passes, interactive {queries:?}, background {background:?}");
        assert!(queries.0 > queries.1 && background.0 > background.1, "{name}: nothing shared a pass");
        assert_eq!(engine.memory_in_use().1, 0);
    }
}

#[test]
fn after_a_cancelled_call_an_item_keeps_its_bits() {
    for (name, engine) in subjects() {
        let items = mixture(3);
        let alone = Alone::of(engine, &items);
        let many: Vec<Input> = items.iter().cycle().take(120).map(Item::input).collect();
        let (mut cut, mut whole) = (0, 0);
        for round in 0..6u64 {
            let cancel = Cancel::new();
            let results = std::thread::scope(|scope| {
                let call = scope.spawn(|| engine.embed_with(&many, &request().cancel(cancel.clone())).unwrap());
                std::thread::sleep(std::time::Duration::from_millis(5 + 17 * round));
                cancel.cancel();
                call.join().unwrap()
            });
            // What was done before the cancellation is right, and the rest says what it is.
            for (item, got) in items.iter().cycle().zip(results.into_iter().map(outcome)) {
                if got == Outcome::Refused("cancelled") {
                    cut += 1;
                } else {
                    whole += 1;
                    check(&format!("{name}, cancelled"), std::slice::from_ref(item), &[got], |i| alone.want(i))
                        .unwrap();
                }
            }
            alone.check(&format!("{name}, after a cancel"), &items).unwrap();
        }
        println!("{name}: 6 cancelled calls, {cut} items cut off and {whole} done before");
        assert!(cut > 0, "{name}: nothing was cancelled");
    }
}

#[test]
fn after_failed_items_an_item_keeps_its_bits() {
    for (name, engine) in subjects() {
        let items = mixture(5);
        let alone = Alone::of(engine, &items);
        let bad = [Item::NoImage, Item::NotANumber { milliseconds: 300 }];
        for _ in 0..3 {
            let got = outcomes(engine, &bad);
            assert!(got.iter().all(|o| matches!(o, Outcome::Refused(_))), "{name}: {got:?}");
            // A text too long is refused by name where it may not be cut.
            let long = engine.embed_with(&[Input::text("word ".repeat(6000))], &Request::new(Role::Document)).unwrap();
            assert_eq!(long[0].as_ref().unwrap_err().kind().name(), "too_long", "{name}");
            alone.check(&format!("{name}, after failures"), &items).unwrap();
        }
    }
}

/// Checkpoints are so narrow that products and attention take the paths of small shapes; this record has widths of a real one.
#[test]
fn at_real_widths_an_item_keeps_its_bits() {
    let config = OmniConfig {
        text: BackboneConfig {
            hidden: 512,
            layers: 2,
            heads: 8,
            kv_heads: 4,
            head_dim: 64,
            inner: 2048,
            norm_eps: 1e-6,
            rope_theta: 1e6,
            causal: true,
            qk_norm: true,
            max_tokens: 4096,
            vocab: 1024,
        },
        vision: None,
        audio: None,
    };
    let tokenizer = golden().checkpoint("omni-small-tiny").folder.join("tokenizer.json");
    let record = scratch().join("laws-real-widths");
    write_random(&record, &config, Dtype::F32, (4096, 16_384), &tokenizer, 7).unwrap();
    let engine = builder(record).open().unwrap();
    let mut items: Vec<Item> = (0..24).map(|i| Item::Text { words: 1 + 17 * i % 230, seed: i as u32 % 5 }).collect();
    items.extend((0..6).map(|seed| Item::Text { words: 64, seed }));
    let alone = Alone::of(&engine, &items);
    alone.check("real widths, batched", &items).unwrap();
    items.reverse();
    alone.check("real widths, reversed", &items).unwrap();
    let threes: Vec<Outcome> = items.chunks(3).flat_map(|three| outcomes(&engine, three)).collect();
    check("real widths, in threes", &items, &threes, |item| alone.want(item)).unwrap();
    println!("{} texts at a width of 512: alone, in threes, together, reversed", items.len());
}

/// The comparison can fail: one bit is enough, and the item is named.
#[test]
fn one_bit_is_seen() {
    let items = [Item::Text { words: 2, seed: 1 }, Item::NoImage];
    let want = [Outcome::Vector(vec![1.0f32.to_bits(), 0]), Outcome::Refused("unknown_format")];
    let alone = |item: &Item| want[usize::from(*item == Item::NoImage)].clone();
    check("control", &items, &want, alone).unwrap();
    let mut got = want.clone();
    // As far as the bound between backends is from a bit, so that the control holds on every device.
    got[0] = Outcome::Vector(vec![(1.0f32 + 4.0 * COMPANY).to_bits(), 0]);
    let message = check("control", &items, &got, alone).unwrap_err().to_string();
    assert!(message.contains("text of 2 words, seed 1 at 0") && message.contains("1 of 2 values differ"), "{message}");
    let swapped = [want[0].clone(), Outcome::Refused("corrupt")];
    assert!(check("control", &items, &swapped, alone).unwrap_err().to_string().contains("no image"));
}
