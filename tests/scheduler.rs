//! The scheduler under a real engine: texts of many callers in few passes, classes, times. Its laws are proved where it
//! lives, `crates/scheduler`.

use std::sync::{Arc, Barrier};

use omniburn::{Height, Input, Priority, Request, ResultCache, RgbImage, Role, Timings, Width};

use crate::support::*;

/// Whoever finds the device busy is computed together with the others who do.
#[test]
fn one_text_from_each_of_sixteen_threads_runs_as_few_passes() {
    const ROUNDS: usize = 20;
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let text = |thread: usize, round: usize| Input::text(format!("thread {thread} in round {round}"));
    let want: Vec<Vec<_>> = (0..16)
        .map(|thread| (0..ROUNDS).map(|round| engine.embed_one(text(thread, round), Role::Query).unwrap()).collect())
        .collect();
    engine.reset_metrics();
    let together = Barrier::new(16);
    std::thread::scope(|scope| {
        for (thread, want) in want.iter().enumerate() {
            let (engine, together) = (&engine, &together);
            scope.spawn(move || {
                for (round, want) in want.iter().enumerate() {
                    together.wait();
                    assert_eq!(&engine.embed_one(text(thread, round), Role::Query).unwrap(), want);
                }
            });
        }
    });
    let metrics = engine.metrics().interactive;
    println!("{} texts of 16 threads in {} passes", metrics.waits.count, metrics.computes.count);
    assert_eq!(metrics.waits.count, 16 * ROUNDS as u64);
    assert!(metrics.computes.count < 12 * ROUNDS as u64, "{metrics:?}");
}

/// Media of callers who find the device busy go through their tower together, and each is what it is alone, to the bit.
#[test]
fn media_of_sixteen_threads_share_passes_of_their_towers() {
    const ROUNDS: usize = 8;
    for name in ["omni-small-tiny", "qwen3-omni-encoders-tiny"] {
        let checkpoint = golden().checkpoint(name);
        let engine = checkpoint.engine();
        // Another one for each: equal inputs would be computed once for all who ask.
        let inputs: Vec<Input> = (0..16u32)
            .map(|thread| match thread % 2 {
                0 => {
                    let gain = 1.0 / (2.0 + thread as f32);
                    let wave = |at: u32| gain * (at as f32 * 0.173).sin();
                    Input::audio_samples((0..4000 + 160 * thread).map(wave).collect::<Vec<f32>>(), 16_000)
                }
                _ => {
                    let (width, height) = (40 + thread, 56);
                    let pixels = (0..3 * width * height).map(|at| (at * (thread + 7) % 251) as u8).collect();
                    Input::image_pixels(RgbImage::new(Width(width), Height(height), pixels).unwrap())
                }
            })
            .collect();
        let ask = |input: &Input| {
            let request = Request::new(Role::Document);
            engine.embed_with(std::slice::from_ref(input), &request).unwrap().remove(0).unwrap()
        };
        let want: Vec<_> = inputs.iter().map(ask).collect();
        engine.reset_metrics();
        let together = Barrier::new(16);
        std::thread::scope(|scope| {
            for (input, want) in inputs.iter().zip(&want) {
                let (ask, together) = (&ask, &together);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        together.wait();
                        assert_eq!(&ask(input), want, "{name}, {input:?}");
                    }
                });
            }
        });
        let metrics = engine.metrics().background;
        println!("{name}: {} requests of 16 threads in {} passes", metrics.waits.count, metrics.computes.count);
        assert!(metrics.computes.count < metrics.waits.count, "{metrics:?}");
    }
}

#[test]
fn a_result_says_where_its_time_went() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let cache = ResultCache::new(1 << 20);
    let engine = builder(checkpoint.record(omniburn::Dtype::F32)).cache(cache).open().unwrap();
    let inputs = [Input::text("a red bicycle"), checkpoint.image_named("odd")];
    let ask = || engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    let first: Vec<_> = ask().into_iter().map(Result::unwrap).collect();
    for found in &first {
        let Timings { tokenise, queue: _, compute } = found.timings;
        assert!(!tokenise.is_zero() && !compute.is_zero(), "{:?}", found.timings);
    }
    // What was kept was neither queued nor computed, and is the same result.
    for (again, first) in ask().into_iter().map(Result::unwrap).zip(&first) {
        assert_eq!(&again, first);
        assert!(again.timings.queue.is_zero() && again.timings.compute.is_zero(), "{:?}", again.timings);
    }
}

#[test]
fn queries_and_background_work_share_an_engine_and_each_keeps_its_bits() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let query = engine.embed_one(Input::text("a red bicycle"), Role::Query).unwrap();
    let documents: Vec<Input> = (0..40).map(|i| Input::text(format!("document {i} {}", "word ".repeat(i)))).collect();
    let want = engine.embed(&documents, Role::Document).unwrap();
    let image = engine.embed_one(checkpoint.image_named("odd"), Role::Document).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(engine.embed(&documents, Role::Document).unwrap(), want);
                    assert_eq!(engine.embed_one(checkpoint.image_named("odd"), Role::Document).unwrap(), image);
                }
            });
        }
        for _ in 0..40 {
            assert_eq!(engine.embed_one(Input::text("a red bicycle"), Role::Query).unwrap(), query);
        }
    });
    let metrics = engine.metrics();
    // Equal inputs of calls that run side by side are computed once: how often that happens is a matter of moments, so of the
    // 24 background calls only the first two are certain to have computed.
    assert!(metrics.interactive.slices.count >= 41 && metrics.background.slices.count >= 2, "{metrics:?}");
}

#[test]
fn a_query_is_interactive_and_a_document_is_not_unless_told() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let slices = || (engine.metrics().interactive.slices.count, engine.metrics().background.slices.count);
    let start = slices();
    engine.embed_one(Input::text("a"), Role::Query).unwrap();
    assert_eq!(slices(), (start.0 + 1, start.1));
    engine.embed_one(Input::text("a"), Role::Document).unwrap();
    assert_eq!(slices(), (start.0 + 1, start.1 + 1));
    engine.embed_with(&[Input::text("a")], &Request::new(Role::Document).priority(Priority::Interactive)).unwrap();
    assert_eq!(slices(), (start.0 + 2, start.1 + 1));
}

/// A writer into memory, for what `tracing` says.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_times_of_a_unit_stand_in_the_meter_and_in_its_span() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = builder(checkpoint.record(omniburn::Dtype::F32)).time_slice(std::time::Duration::ZERO).open().unwrap();
    engine.warm_up().unwrap();
    // Whether a place is listened to is decided for the whole process: another test that begins or ends to listen at that
    // moment may hide a line here, so it is asked a few times.
    let mut said = String::new();
    for _ in 0..5 {
        engine.reset_metrics();
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
            .with_ansi(false)
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            // What other tests say meanwhile may have been decided on while nobody listened.
            tracing::callsite::rebuild_interest_cache();
            engine.embed_one(Input::text("a b c"), Role::Document).unwrap();
            engine.embed_one(Input::text("a"), Role::Query).unwrap();
        });
        said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        if said.lines().filter(|line| line.contains("unit{")).count() == 2 {
            break;
        }
    }
    let spans: Vec<&str> = said.lines().filter(|line| line.contains("unit{")).collect();
    assert_eq!(spans.len(), 2, "{said}");
    assert!(spans[0].contains("class=\"background\"") && spans[1].contains("class=\"interactive\""), "{said}");
    for field in ["stage=TextBegin", "rows=", "wait_us=", "slices=", "compute_us="] {
        assert!(spans.iter().all(|span| span.contains(field)), "{field}: {said}");
    }
    let metrics = engine.metrics();
    let counts = |class: &omniburn::ClassStats| (class.waits.count, class.computes.count);
    assert_eq!((counts(&metrics.interactive), counts(&metrics.background)), ((1, 1), (1, 1)));
    assert_eq!(metrics.interactive.slices.count, 1);
    let slices = metrics.background.slices.count;
    assert!(slices > 1 && spans[0].contains(&format!("slices={slices} ")), "{slices} slices: {said}");
    let computes = &metrics.background.computes;
    assert!(
        computes.p50 <= computes.p95 && computes.p95 <= computes.p99 && computes.sum >= metrics.background.slices.sum
    );
}
