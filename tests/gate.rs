//! The gate under a real engine: a query waits for at most one unit of background work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use omniburn::{Gate, GatePolicy, Input, Priority, Request, Role};

use crate::support::*;

/// Counts the background units at whose end a query was waiting: the ones it waited for, running when it came or not.
/// The query cannot get its turn while the unit that counts holds the permit, so the figure is exact.
#[test]
fn under_eight_background_threads_a_query_waits_for_at_most_one_unit() {
    let gate = Arc::new(Gate::new(GatePolicy::default()));
    let (stop, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (gate, stop, waited) = (Arc::clone(&gate), Arc::clone(&stop), Arc::clone(&waited));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let permit = gate.enter(Priority::Background);
                    std::hint::black_box((0..20_000u64).sum::<u64>());
                    if gate.waiting().0 > 0 {
                        waited.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(permit);
                }
            });
        }
        while gate.waiting().1 < 2 {
            std::thread::yield_now();
        }
        let (mut most, mut total) = (0, 0);
        for _ in 0..500 {
            waited.store(0, Ordering::SeqCst);
            let permit = gate.enter(Priority::Interactive);
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
    let meter = engine.meter();
    // Equal inputs of calls that run side by side are computed once: how often that happens is a matter of moments, so of the
    // 24 background calls only the first two are certain to have held the device.
    assert!(meter.interactive.holds.count >= 41 && meter.background.holds.count >= 2, "{meter:?}");
}

#[test]
fn a_query_is_interactive_and_a_document_is_not_unless_told() {
    let twin = golden().twin("omni-small-tiny");
    let engine = twin.engine();
    let holds = || (engine.meter().interactive.holds.count, engine.meter().background.holds.count);
    let start = holds();
    engine.embed_one(Input::text("a"), Role::Query).unwrap();
    assert_eq!(holds(), (start.0 + 1, start.1));
    engine.embed_one(Input::text("a"), Role::Document).unwrap();
    assert_eq!(holds(), (start.0 + 1, start.1 + 1));
    engine.embed_with(&[Input::text("a")], &Request::new(Role::Document).priority(Priority::Interactive)).unwrap();
    assert_eq!(holds(), (start.0 + 2, start.1 + 1));
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
    let engine = builder(twin.record(omniburn::Dtype::F32)).hold_target(std::time::Duration::ZERO).open().unwrap();
    engine.warm_up().unwrap();
    engine.reset_meter();
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
    for field in ["stage=TextBegin", "rows=", "wait_us=", "holds=", "compute_us="] {
        assert!(spans.iter().all(|span| span.contains(field)), "{field}: {said}");
    }
    let meter = engine.meter();
    let counts = |class: &omniburn::ClassStats| (class.waits.count, class.computes.count);
    assert_eq!((counts(&meter.interactive), counts(&meter.background)), ((1, 1), (1, 1)));
    assert_eq!(meter.interactive.holds.count, 1);
    let holds = meter.background.holds.count;
    assert!(holds > 1 && spans[0].contains(&format!("holds={holds} ")), "{holds} holds: {said}");
    let computes = &meter.background.computes;
    assert!(computes.p50 <= computes.p95 && computes.p95 <= computes.p99 && computes.sum >= meter.background.holds.sum);
}
