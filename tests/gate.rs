//! The gate under a real engine: a query waits for at most one unit of background work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use omniburn::{Gate, GatePolicy, Input, Priority, Request, Role};

use crate::support::*;

/// Counts units started by background threads between a query's arrival and its start: at most one, whether it was
/// running already or not.
#[test]
fn under_eight_background_threads_a_query_waits_for_at_most_one_unit() {
    let gate = Arc::new(Gate::new(GatePolicy::default()));
    let (stop, started) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (gate, stop, started) = (Arc::clone(&gate), Arc::clone(&stop), Arc::clone(&started));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let permit = gate.enter(Priority::Background);
                    started.fetch_add(1, Ordering::SeqCst);
                    std::hint::black_box((0..2000u64).sum::<u64>());
                    drop(permit);
                }
            });
        }
        while gate.waiting().1 < 2 {
            std::thread::yield_now();
        }
        let mut most = 0;
        for _ in 0..500 {
            let before = started.load(Ordering::SeqCst);
            let permit = gate.enter(Priority::Interactive);
            // One may have started between reading the counter and arriving at the gate; one more may pass by the law.
            most = most.max(started.load(Ordering::SeqCst) - before);
            drop(permit);
        }
        stop.store(true, Ordering::Relaxed);
        println!("at most {most} background units started while a query waited");
        assert!(most <= 2, "{most}");
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
