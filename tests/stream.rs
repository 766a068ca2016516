//! Long calls, cut units, deadlines, and work that is done once for several.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use omniburn::{Cancel, Dtype, Engine, Input, ItemError, Priority, Progress, Request, ResultCache, Role};

use crate::support::*;

fn vector(engine: &Engine, input: &Input) -> Vec<f32> {
    engine.embed_one(input.clone(), Role::Document).unwrap().into_vec()
}

/// Texts, images, frames and audio, in turn.
fn mixed(checkpoint: &Checkpoint) -> Vec<Input> {
    let mut inputs = vec![Input::text("a red bicycle"), Input::text("word ".repeat(60)), Input::text("")];
    inputs.extend(["odd", "square", "wide"].map(|name| checkpoint.image_named(name)));
    inputs.extend(["mixed", "three", "half"].map(|name| checkpoint.audio(name)));
    inputs.extend(checkpoint.cases("video").take(2).map(|case| checkpoint.clip(case)));
    inputs
}

#[test]
fn work_cut_after_every_step_keeps_its_bits_and_is_cut() {
    for checkpoint in golden().checkpoints() {
        let whole = checkpoint.engine();
        let cut = builder(checkpoint.record(Dtype::F32)).time_slice(Duration::ZERO).open().unwrap();
        for input in mixed(&checkpoint)
            .iter()
            .filter(|i| i.modality() != omniburn::Modality::Text)
            .chain([&Input::text("a b c")])
        {
            assert_eq!(vector(&cut, input), vector(&whole, input), "{}: {input:?}", checkpoint.name);
        }
        let metrics = cut.metrics().background;
        println!("{}: {} units in {} slices", checkpoint.name, metrics.computes.count, metrics.slices.count);
        assert!(metrics.slices.count >= 3 * metrics.computes.count, "{metrics:?}");
    }
}

#[test]
fn a_query_runs_between_two_holds_of_a_unit_and_both_keep_their_bits() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = builder(checkpoint.record(Dtype::F32)).time_slice(Duration::ZERO).open().unwrap();
    let clips: Vec<Input> = checkpoint.cases("video").map(|case| checkpoint.clip(case)).collect();
    let want: Vec<Vec<f32>> = clips.iter().map(|clip| vector(&checkpoint.engine(), clip)).collect();
    let query = engine.embed_one(Input::text("a"), Role::Query).unwrap();
    std::thread::scope(|scope| {
        let background = scope.spawn(|| {
            for _ in 0..4 {
                for (clip, want) in clips.iter().zip(&want) {
                    assert_eq!(&vector(&engine, clip), want);
                }
            }
        });
        while !background.is_finished() {
            assert_eq!(engine.embed_one(Input::text("a"), Role::Query).unwrap(), query);
        }
    });
}

#[test]
fn equal_inputs_of_a_call_are_computed_once() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let computed = |inputs: &[Input]| {
        let engine = checkpoint.engine();
        let vectors = engine.embed(inputs, Role::Document).unwrap();
        assert!(vectors.windows(2).all(|two| two[0] == two[1]));
        engine.metrics().background.computes.count
    };
    for input in mixed(&checkpoint).into_iter().filter(|input| input.modality() != omniburn::Modality::Text) {
        assert_eq!(computed(&vec![input.clone(); 5]), computed(std::slice::from_ref(&input)), "{input:?}");
    }
}

#[test]
fn equal_inputs_that_fail_fail_alike() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let bad = Input::image_bytes(*b"not a picture");
    let results = engine.embed_with(&[bad.clone(), Input::text("a"), bad], &Request::default()).unwrap();
    let said = |i: usize| results[i].as_ref().unwrap_err().to_string();
    assert_eq!(said(0), said(2));
    assert!(results[1].is_ok());
}

#[test]
fn a_kept_result_answers_and_a_changed_file_does_not_have_it() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.png");
    let copy = folder.path().join("copy.png");
    let source = |name: &str| checkpoint.media.join(format!("images/{name}.png"));
    std::fs::copy(source("odd"), &file).unwrap();
    std::fs::copy(source("odd"), &copy).unwrap();
    let cache = ResultCache::new(1 << 20);
    let engine = builder(checkpoint.record(Dtype::F32)).cache(Arc::clone(&cache)).open().unwrap();
    let first = vector(&engine, &Input::image_file(&file));
    let computed = engine.metrics().background.computes.count;
    assert_eq!(vector(&engine, &Input::image_file(&file)), first);
    assert_eq!(vector(&engine, &Input::image_file(&copy)), first, "a copy is the same");
    assert_eq!(engine.metrics().background.computes.count, computed, "nothing was computed");
    assert_eq!((cache.stats().hits, cache.stats().results), (2, 1));
    std::fs::copy(source("square"), &file).unwrap();
    assert_eq!(
        vector(&engine, &Input::image_file(&file)),
        vector(&checkpoint.engine(), &checkpoint.image_named("square"))
    );
    let query = engine.embed_one(Input::image_file(&copy), Role::Query).unwrap();
    assert_ne!(query.into_vec(), first, "another role is another result");
    // Another engine of the same record may use it, one of another record finds nothing there.
    let other = builder(checkpoint.record(Dtype::F32)).cache(Arc::clone(&cache)).open().unwrap();
    assert_eq!(vector(&other, &Input::image_file(&copy)), first);
    assert_eq!(other.metrics().background.computes.count, 0);
    let nano = golden().checkpoint("omni-nano-tiny");
    let nano_cached = builder(nano.record(Dtype::F32)).cache(cache).open().unwrap();
    assert_eq!(vector(&nano_cached, &Input::image_file(&copy)), vector(&nano.engine(), &Input::image_file(&copy)));
}

#[test]
fn a_cache_larger_than_the_budget_is_refused() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let open = builder(checkpoint.record(Dtype::F32)).budget(64 << 20).cache(ResultCache::new(1 << 30)).open();
    assert!(open.err().unwrap().to_string().contains("result cache of 1073741824 bytes"));
}

#[test]
fn a_deadline_that_has_passed_costs_its_items_and_nothing_else() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let inputs = mixed(&checkpoint);
    let want = engine.embed_with(&inputs, &Request::default()).unwrap();
    for result in engine.embed_with(&inputs, &Request::default().deadline(Instant::now())).unwrap() {
        let error = result.unwrap_err();
        assert!(matches!(error, ItemError::DeadlinePassed), "{error}");
        assert_eq!(error.kind().name(), "cancelled");
    }
    let later = Request::default().deadline(Instant::now() + Duration::from_secs(600));
    let got = engine.embed_with(&inputs, &later).unwrap();
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got.as_ref().ok(), want.as_ref().ok());
    }
}

#[test]
fn a_stream_keeps_the_order_names_each_failure_and_reports_its_progress() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let engine = checkpoint.engine();
    let mut inputs = mixed(&checkpoint);
    inputs.push(Input::image_bytes(*b"not a picture"));
    inputs.push(Input::audio_file("nowhere.wav"));
    let alone: Vec<_> =
        inputs.iter().map(|i| engine.embed_one(i.clone(), Role::Document).map_err(|e| e.to_string())).collect();
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let heard = Arc::clone(&seen);
    let request = Request::new(Role::Document).on_progress(move |progress| heard.lock().unwrap().push(progress));
    let many: Vec<Input> = inputs.iter().cycle().take(400).cloned().collect();
    let results: Vec<_> = engine.embed_iter(many, request).unwrap().collect();
    assert_eq!(results.len(), 400);
    for (i, result) in results.iter().enumerate() {
        match (result, &alone[i % alone.len()]) {
            (Ok(got), Ok(want)) => assert_eq!(&got.embedding, want, "item {i}"),
            (Err(got), Err(want)) => assert_eq!(&format!("input 0: {got}"), want, "item {i}"),
            (got, want) => panic!("item {i}: {got:?} for {want:?}"),
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 1 && seen.windows(2).all(|two| two[0].done < two[1].done), "{seen:?}");
    assert_eq!(seen.last().unwrap(), &Progress { done: 400, total: 400 });
}

#[test]
fn the_next_window_is_read_while_the_first_is_computed_and_no_further() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let inputs = (0..5000).map(move |i| {
        count.fetch_add(1, Ordering::Relaxed);
        Input::text(format!("document {i}"))
    });
    let mut results = checkpoint.engine().embed_iter(inputs, Request::default()).unwrap();
    results.next().unwrap().unwrap();
    let after_one = taken.load(Ordering::Relaxed);
    assert!((257..=1024).contains(&after_one), "{after_one} inputs were taken for the first result");
    assert_eq!(results.filter(|result| result.is_ok()).count(), 4999);
}

#[test]
fn a_cancelled_stream_ends_soon_and_keeps_what_was_done() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let cancel = Cancel::new();
    let inputs = (0..100_000).map(|i| Input::text(format!("document {i}")));
    let request = Request::default().cancel(cancel.clone());
    let (mut done, mut cancelled) = (0, 0);
    let mut stopped = None;
    for result in engine.embed_iter(inputs, request).unwrap().take(2000) {
        match result {
            Ok(_) => done += 1,
            Err(ItemError::Cancelled) => cancelled += 1,
            Err(other) => panic!("{other}"),
        }
        if done == 10 && stopped.is_none() {
            cancel.cancel();
            stopped = Some(Instant::now());
        }
    }
    assert!(done >= 10 && cancelled > 0 && done + cancelled == 2000, "{done} done, {cancelled} cancelled");
    assert!(stopped.unwrap().elapsed() < Duration::from_secs(20));
    assert_eq!(engine.memory_in_use().1, 0, "nothing is spoken for any more");
    engine.embed_one(Input::text("a"), Role::Query).unwrap();
}

#[test]
fn a_dropped_stream_gives_its_memory_back() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let inputs: Vec<Input> = mixed(&checkpoint).into_iter().cycle().take(2000).collect();
    let mut results = engine.embed_iter(inputs, Request::default()).unwrap();
    results.next();
    drop(results);
    let begun = Instant::now();
    while engine.memory_in_use().1 > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", engine.memory_in_use());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn callers_of_both_classes_share_a_tight_budget_and_all_are_served() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let record = checkpoint.record(Dtype::F32);
    let inputs: Vec<Input> =
        mixed(&checkpoint).into_iter().filter(|input| input.digest() != Input::text("").digest()).collect();
    let whole = checkpoint.engine();
    let want = whole.embed(&inputs, Role::Document).unwrap();
    let refused = builder(record.clone()).budget(1).open().unwrap().embed_with(&inputs, &Request::default()).unwrap();
    let needed = refused.into_iter().map(|result| match result.unwrap_err() {
        ItemError::OverBudget { needed, .. } => needed,
        other => panic!("{other}"),
    });
    let engine = builder(record).budget(needed.max().unwrap()).open().unwrap();
    std::thread::scope(|scope| {
        for caller in 0..6 {
            let (engine, inputs, want) = (&engine, &inputs, &want);
            scope.spawn(move || {
                let priority = if caller % 2 == 0 { Priority::Background } else { Priority::Interactive };
                let request = Request::new(Role::Document).priority(priority);
                for _ in 0..3 {
                    let got = engine.embed_with(inputs, &request).unwrap();
                    let got: Vec<_> = got.into_iter().map(|result| result.unwrap().embedding).collect();
                    assert_eq!(&got, want);
                }
            });
        }
    });
    assert_eq!(engine.memory_in_use().1, 0);
}
