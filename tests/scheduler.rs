//! The scheduler under a real engine: a query waits for at most one unit of background work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use omniburn::{Input, Priority, Request, Role, Scheduler, SchedulerPolicy};

use crate::support::*;

/// Counts the background units at whose end a query was waiting: the ones it waited for, running when it came or not.
/// The query cannot get its turn while the unit that counts slices the permit, so the figure is exact.
#[test]
fn under_eight_background_threads_a_query_waits_for_at_most_one_unit() {
    let scheduler = Arc::new(Scheduler::new(SchedulerPolicy::default()));
    let (stop, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (scheduler, stop, waited) = (Arc::clone(&scheduler), Arc::clone(&stop), Arc::clone(&waited));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let permit = scheduler.enter(Priority::Background);
                    std::hint::black_box((0..20_000u64).sum::<u64>());
                    if scheduler.waiting().0 > 0 {
                        waited.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(permit);
                }
            });
        }
        while scheduler.waiting().1 < 2 {
            std::thread::yield_now();
        }
        let (mut most, mut total) = (0, 0);
        for _ in 0..500 {
            waited.store(0, Ordering::SeqCst);
            let permit = scheduler.enter(Priority::Interactive);
            let units = waited.load(Ordering::SeqCst);
            (most, total) = (most.max(units), total + units);
            drop(permit);
        }
        stop.store(true, Ordering::Relaxed);
        println!("500 queries waited for {total} background units, none for more than {most}");
        assert!(most <= 1, "a query waited for {most} background units");
    });
}

#[test]
fn queries_and_background_work_share_an_engine_and_each_keeps_its_bits() {
    let twin = golden().twin("omni-small-tiny");
    let engine = twin.engine();
    let query = engine.embed_one(Input::text("a red bicycle"), Role::Query).unwrap();
    let documents: Vec<Input> = (0..40).map(|i| Input::text(format!("document {i} {}", "word ".repeat(i)))).collect();
    let want = engine.embed(&documents, Role::Document).unwrap();
    let picture = engine.embed_one(twin.image_named("odd"), Role::Document).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(engine.embed(&documents, Role::Document).unwrap(), want);
                    assert_eq!(engine.embed_one(twin.image_named("odd"), Role::Document).unwrap(), picture);
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
    let twin = golden().twin("omni-small-tiny");
    let engine = twin.engine();
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
    let twin = golden().twin("omni-small-tiny");
    let engine = builder(twin.record(omniburn::Dtype::F32)).time_slice(std::time::Duration::ZERO).open().unwrap();
    engine.warm_up().unwrap();
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
        engine.embed_one(Input::text("a b c"), Role::Document).unwrap();
        engine.embed_one(Input::text("a"), Role::Query).unwrap();
    });
    let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
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
