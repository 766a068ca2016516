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
    assert!(meter.interactive.holds.count >= 41 && meter.background.holds.count >= 24, "{meter:?}");
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
