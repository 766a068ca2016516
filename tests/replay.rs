//! A journal of digests, the record and the inputs: everything in it comes out again with the same bits, alone and in the
//! batch it was in; and what is not the same is found.

use std::sync::{Arc, Mutex};

use omniburn::probe::Answered;
use omniburn::{
    Cancel, Dtype, Engine, EngineError, ErrorKind, Height, Input, Priority, Request, ResultCache, RgbImage, Role,
    Truncation, Width,
};
use omniburn_diagnostics::{
    ItemOutcome, JournalEntry, JournalItem, ReplayError, ReplayOptions, Replayed, VectorDigest, journal, replay,
};

use crate::support::*;

/// A journal that several calls may write.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<JournalEntry>>>);

impl Kept {
    fn of(&self, request: Request) -> Request {
        let kept = Arc::clone(&self.0);
        journal(request, move |entry| kept.lock().unwrap().push(entry.clone()))
    }

    /// The entries, through their lines of JSON.
    fn entries(&self) -> Vec<JournalEntry> {
        let entries = self.0.lock().unwrap();
        let lines: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<JournalEntry> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, *entries);
        read
    }
}

fn items(entries: &[JournalEntry]) -> Vec<&JournalItem> {
    entries.iter().filter_map(|entry| if let JournalEntry::Item(item) = entry { Some(item) } else { None }).collect()
}

fn image(width: u32, height: u32, seed: u32) -> Input {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 13) as u8;
    Input::image_pixels(
        RgbImage::new(Width(width), Height(height), (0..width * height * 3).map(value).collect()).unwrap(),
    )
}

fn frames(count: u32) -> Input {
    let frame = |seed: u32| {
        let pixels = (0..48 * 40 * 3).map(|i: u32| (i * (seed + 3) % 251) as u8).collect();
        RgbImage::new(Width(48), Height(40), pixels).unwrap()
    };
    Input::video_frames((0..count).map(frame).collect())
}

fn audio(seconds: f32, rate_hz: u32) -> Input {
    let count = (seconds * rate_hz as f32) as usize;
    let samples: Vec<f32> = (0..count).map(|i| 0.4 * (i as f32 * 0.03 * (1.0 + i as f32 * 1e-5)).sin()).collect();
    Input::audio_samples(samples, rate_hz)
}

/// Texts that share units, images from a file, from bytes and from pixels, frames, audio, duplicates and items that fail.
fn mixed() -> Vec<Input> {
    let set = golden().refs.join("media");
    let file = set.join("images/odd.png");
    let words = |n: usize| ["a", "red", "bicycle", "under", "the", "bridge"].iter().cycle().take(n).copied();
    let mut inputs: Vec<Input> =
        [3, 1, 40, 7, 90, 2].map(|n| Input::text(words(n).collect::<Vec<_>>().join(" "))).to_vec();
    inputs.extend([
        Input::image_file(&file),
        image(33, 70, 1),
        audio(1.7, 16_000),
        Input::text("a red bicycle"),
        Input::image_bytes(*b"this is no picture"),
        frames(3),
        Input::image_bytes(std::fs::read(&file).unwrap()),
        image(120, 60, 2),
        Input::audio_file(set.join("audio/nowhere.wav")),
        audio(0.6, 8000),
        Input::text(""),
    ]);
    inputs
}

fn subjects() -> Vec<(&'static str, Engine)> {
    let checkpoint = |name| builder(golden().checkpoint(name).record(Dtype::F32)).open().unwrap();
    vec![
        ("omni-small-tiny", checkpoint("omni-small-tiny")),
        ("omni-nano-tiny", checkpoint("omni-nano-tiny")),
        ("the model that ships", Engine::mini_builder().device(device()).open().unwrap()),
    ]
}

fn request() -> Request {
    Request::new(Role::Document).truncation(Truncation::Right)
}

/// On other devices than flex the law is a bound, not bits.
fn on_flex() -> bool {
    let flex = device().kind == omniburn::BackendKind::Flex;
    if !flex {
        println!("not run on {}: bits are promised on flex", device());
    }
    flex
}

#[test]
fn a_mixed_job_comes_out_again_to_the_bit_alone_and_in_its_company() {
    if !on_flex() {
        return;
    }
    for (name, engine) in subjects() {
        let (kept, inputs) = (Kept::default(), mixed());
        let plain = engine.embed_with(&inputs, &request()).unwrap();
        let results = engine.embed_with(&inputs, &kept.of(request())).unwrap();
        let entries = kept.entries();
        let logged = items(&entries);
        assert_eq!(logged.len(), inputs.len());
        for (i, ((item, result), plain)) in logged.iter().zip(&results).zip(&plain).enumerate() {
            assert_eq!((item.index, item.digest, item.modality), (i as u64, inputs[i].digest(), inputs[i].modality()));
            match (&item.result, result, plain) {
                (ItemOutcome::Vector(digest), Ok(found), Ok(plain)) => {
                    assert_eq!(found.embedding, plain.embedding, "{name}: a journal changes nothing");
                    assert_eq!(*digest, VectorDigest::of(&found.embedding));
                    assert_eq!(item.tokens, Some(found.tokens));
                }
                (ItemOutcome::Error(kind), Err(e), Err(_)) => assert_eq!(*kind, e.kind()),
                other => panic!("{name}: {other:?}"),
            }
        }
        // Words three long at 0 and at 9, and one file by name and by content.
        assert_eq!((logged[9].answered, logged[12].answered), (Answered::EqualTo(0), Answered::EqualTo(6)));

        let mut inputs = inputs;
        inputs.reverse();
        let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
        assert!(report.all_equal(), "{name}: {:?} {:?}", report.different, report.missing);
        // The file that is not there has no digest.
        assert_eq!((report.equal, report.not_compared, report.not_logged), (logged.len() - 1, 1, 1));
        assert_eq!(report.environment_changes, Vec::<String>::new());
        assert!(report.batches >= 1 && report.missing_batches == 0, "{name}: {report:?}");
        assert!(report.whole_batches >= 1, "{name}: {report:?}");
        println!(
            "{name}: {} items equal to the bit alone and in {} batches, {} of them as one unit again",
            report.equal, report.batches, report.whole_batches
        );
    }
}

#[test]
fn a_job_under_four_threads_in_any_order_comes_out_again() {
    if !on_flex() {
        return;
    }
    for (name, engine) in subjects() {
        let (kept, inputs) = (Kept::default(), mixed());
        let requests = [request(), request().priority(Priority::Interactive), Request::new(Role::Query), request()];
        std::thread::scope(|scope| {
            for (thread, request) in requests.iter().enumerate() {
                let (engine, request, mut inputs) = (&engine, kept.of(request.clone()), inputs.clone());
                // Each thread in an order of its own.
                let order = |i: usize| (i * 2_654_435_761 + thread * 40_503) % 1009;
                let mut keys: Vec<usize> = (0..inputs.len()).collect();
                keys.sort_by_key(|&i| order(i));
                inputs = keys.into_iter().map(|i| inputs[i].clone()).collect();
                scope.spawn(move || {
                    let count = engine.embed_iter(inputs.clone(), request).unwrap().count();
                    assert_eq!(count, inputs.len());
                });
            }
        });
        let entries = kept.entries();
        let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
        assert!(report.all_equal(), "{name}: {:?} {:?}", report.different, report.missing);
        let elsewhere = items(&entries).iter().filter(|item| item.answered == Answered::AnotherCall).count();
        assert_eq!(report.equal + report.not_compared, 4 * inputs.len());
        assert_eq!(report.not_compared, 4);
        println!("{name}: {} items of 4 threads equal, {elsewhere} of them answered by another call", report.equal);
    }
}

#[test]
fn segments_are_compared_one_by_one() {
    if !on_flex() {
        return;
    }
    let (engine, kept) = (golden().checkpoint("omni-small-tiny").engine(), Kept::default());
    let inputs = [audio(250.0, 1000), Input::text("a bell")];
    assert!(engine.embed_with(&inputs, &kept.of(request())).unwrap().iter().all(Result::is_ok));
    let mut entries = kept.entries();
    let mut was = Vec::new();
    for entry in &mut entries {
        if let JournalEntry::Item(JournalItem { result: ItemOutcome::Segments(all), .. }) = entry {
            was = all.clone();
            assert_eq!(all.len(), 3, "the whole and two segments");
            // The whole is as it was, and so is the first segment.
            all[2] = all[1];
        }
    }
    let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
    assert_eq!((report.equal, report.different.len()), (1, 1));
    assert_eq!(report.different[0].found, ItemOutcome::Segments(was), "what was logged comes out again");
}

/// A journal of four texts and an image on the small checkpoint.
fn small() -> (Engine, Vec<Input>, Vec<JournalEntry>) {
    let (engine, kept) = (golden().checkpoint("omni-small-tiny").engine(), Kept::default());
    let mut inputs: Vec<Input> = ["a", "red", "bicycle", "by the bridge"].map(Input::text).to_vec();
    inputs.push(image(40, 40, 3));
    assert!(engine.embed_with(&inputs, &kept.of(request())).unwrap().iter().all(Result::is_ok));
    (engine, inputs, kept.entries())
}

#[test]
fn an_input_that_has_changed_is_missing_and_so_is_its_company() {
    if !on_flex() {
        return;
    }
    let (engine, mut inputs, entries) = small();
    let whole = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
    assert!(whole.all_equal() && whole.batches == 1, "{whole:?}");
    let gone = inputs[1].digest();
    inputs[1] = Input::text("red ");
    let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
    let missing: Vec<_> = report.missing.iter().map(|item| (item.index, item.digest)).collect();
    assert_eq!(missing, [(1, gone)]);
    assert_eq!((report.equal, report.different.len(), report.not_logged), (4, 0, 1));
    assert_eq!((report.batches, report.missing_batches), (0, 1));
    assert!(!report.all_equal());
}

#[test]
fn a_vector_of_one_other_bit_is_found() {
    if !on_flex() {
        return;
    }
    let (engine, inputs, mut entries) = small();
    let last = engine.embed_with(&inputs[4..], &request()).unwrap().swap_remove(0).unwrap();
    let mut values = last.embedding.into_vec();
    values[7] = f32::from_bits(values[7].to_bits() ^ 1);
    let forged = VectorDigest::of(&omniburn::Embedding::from_unit(values).unwrap());
    for entry in &mut entries {
        if let JournalEntry::Item(item) = entry {
            match item.index {
                4 => item.result = ItemOutcome::Vector(forged),
                2 => item.result = ItemOutcome::Error(ErrorKind::Empty),
                _ => {}
            }
        }
    }
    let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
    assert_eq!((report.equal, report.missing.len()), (3, 0));
    let found: Vec<_> = report.different.iter().map(|d| (d.item.index, &d.item.result, &d.how)).collect();
    let want = [
        (2, &ItemOutcome::Error(ErrorKind::Empty), &Replayed::Alone),
        (4, &ItemOutcome::Vector(forged), &Replayed::Alone),
    ];
    assert_eq!(found, want);
    assert!(report.different.iter().all(|d| matches!(d.found, ItemOutcome::Vector(found) if found != forged)));
}

#[test]
fn settings_come_from_the_journal_and_another_role_is_another_vector() {
    if !on_flex() {
        return;
    }
    let (engine, kept) = (golden().checkpoint("omni-small-tiny").engine(), Kept::default());
    let inputs = [Input::text("something to ride"), image(64, 48, 9)];
    let dim = engine.profile().dims[0];
    let asked = Request::new(Role::Query).dim(dim).task("clustering").truncation(Truncation::Left);
    engine.embed_with(&inputs, &kept.of(asked)).unwrap();
    let mut entries = kept.entries();
    assert!(replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap().all_equal());
    for entry in &mut entries {
        if let JournalEntry::Item(item) = entry {
            assert_eq!((item.role, item.task.as_str(), item.dim), (Role::Query, "clustering", Some(dim)));
            item.role = Role::Document;
        }
    }
    assert_eq!(replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap().different.len(), 2);
}

#[test]
fn a_journal_of_another_record_another_format_or_no_call_is_refused_by_name() {
    let (engine, inputs, entries) = small();
    let other = golden().checkpoint("omni-nano-tiny").engine();
    let refused = replay(&other, &entries, &inputs, &ReplayOptions::default()).unwrap_err();
    let ReplayError::IdentityMismatch { logged, opened } = &refused else { panic!("{refused}") };
    assert_eq!((logged, opened), (&engine.profile().identity, &other.profile().identity));
    assert!(refused.to_string().contains(logged.as_str()) && refused.to_string().contains(opened.as_str()));

    let mut newer = entries.clone();
    let JournalEntry::Open(open) = &mut newer[0] else { panic!("a journal begins with its call") };
    open.format = 2;
    let refused = replay(&engine, &newer, &inputs, &ReplayOptions::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the journal is of format 2, this version reads 1");
    let refused = replay(&engine, &entries[1..], &inputs, &ReplayOptions::default()).unwrap_err();
    assert!(matches!(refused, ReplayError::JournalCall { entry: 0, call: 0 }), "{refused}");
}

#[test]
fn another_machine_is_told_in_words_and_not_refused() {
    let (engine, inputs, mut entries) = small();
    let JournalEntry::Open(open) = &mut entries[0] else { panic!("a journal begins with its call") };
    open.device = "cuda:3".into();
    open.threads = Some(64);
    let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
    let want =
        [format!("device: logged with cuda:3, here {}", device()), "threads: logged with 64, here one a core".into()];
    assert_eq!(report.environment_changes, want);
    assert_eq!(report.equal + report.different.len(), inputs.len());
}

#[test]
fn a_cached_result_is_logged_as_such_and_a_replay_computes_it_anew() {
    if !on_flex() {
        return;
    }
    let cache = ResultCache::new(1 << 20);
    let record = golden().checkpoint("omni-small-tiny").record(Dtype::F32);
    let engine = builder(record).cache(Arc::clone(&cache)).open().unwrap();
    let (kept, inputs) = (Kept::default(), [Input::text("a red bicycle"), image(50, 50, 4)]);
    let request = kept.of(request());
    engine.embed_with(&inputs, &request).unwrap();
    engine.embed_with(&inputs[..1], &request).unwrap();
    let entries = kept.entries();
    let how: Vec<(u64, Answered)> = items(&entries).iter().map(|item| (item.call, item.answered)).collect();
    assert_eq!(how, [(0, Answered::Computed), (0, Answered::Computed), (1, Answered::Cached)]);
    let before = cache.stats();
    assert!(replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap().all_equal());
    assert_eq!(cache.stats(), before, "nothing was looked for and nothing kept");
}

#[test]
fn a_replay_can_be_given_up() {
    let (engine, inputs, entries) = small();
    let cancel = Cancel::new();
    cancel.cancel();
    let options = ReplayOptions { cancel: Some(cancel), ..ReplayOptions::default() };
    let given_up = replay(&engine, &entries, &inputs, &options).unwrap_err();
    assert!(
        matches!(&given_up, ReplayError::Engine(EngineError::Item { source, .. }) if source.kind() == ErrorKind::Cancelled),
        "{given_up}"
    );
}

#[test]
fn inputs_with_requests_of_their_own_are_as_in_calls_of_their_own_and_come_out_again() {
    if !on_flex() {
        return;
    }
    for (name, engine) in subjects() {
        let profile = engine.profile();
        let dim = *profile.dims.first().unwrap();
        let role = |i: usize| [Role::Query, Role::Document, Role::None][i % 3];
        let own = |i: usize| {
            let request = Request::new(role(i)).truncation(Truncation::Right);
            let task = profile.tasks[i % profile.tasks.len()].clone();
            let request = if i.is_multiple_of(2) { request.task(task) } else { request };
            if i.is_multiple_of(5) { request.dim(dim) } else { request }
        };
        // Each input three times, in every role.
        let asked: Vec<(Input, Request)> =
            mixed().into_iter().flat_map(|input| [0, 1, 2].map(|_| input.clone())).zip((0..).map(own)).collect();
        let apart: Vec<_> = asked
            .iter()
            .map(|(input, request)| engine.embed_with(std::slice::from_ref(input), request).unwrap().remove(0))
            .collect();
        let (kept, inputs) = (Kept::default(), asked.iter().map(|(input, _)| input.clone()).collect::<Vec<_>>());
        let together: Vec<_> = engine.embed_iter(asked.clone(), kept.of(Request::default())).unwrap().collect();
        for (results, how) in [(&together, "streamed"), (&engine.embed_each(&asked), "each")] {
            for ((one, other), (input, request)) in results.iter().zip(&apart).zip(&asked) {
                match (one, other) {
                    (Ok(one), Ok(other)) => assert_eq!(one, other, "{name}, {how}: {input:?} {request:?}"),
                    (Err(one), Err(other)) => assert_eq!(one.kind(), other.kind(), "{name}, {how}: {input:?}"),
                    other => panic!("{name}, {how}: {input:?} {request:?}: {other:?}"),
                }
            }
        }
        let entries = kept.entries();
        for (i, item) in items(&entries).into_iter().enumerate() {
            assert_eq!((item.index, item.role), (i as u64, role(i)));
            assert_eq!((item.dim, i.is_multiple_of(5)), (i.is_multiple_of(5).then_some(dim), item.dim.is_some()));
        }
        let report = replay(&engine, &entries, &inputs, &ReplayOptions::default()).unwrap();
        assert!(report.all_equal(), "{name}: {:?} {:?}", report.different, report.missing);
        assert!(report.batches > 1 && report.missing_batches == 0, "{name}: {report:?}");
        assert_eq!((report.equal, report.not_compared), (asked.len() - 3, 3), "{name}: the file that is not there");
    }
}

#[test]
fn a_wrong_request_of_one_input_costs_its_place_and_a_cancel_of_its_own_stops_it_alone() {
    let engine = golden().checkpoint("omni-small-tiny").engine();
    let text = || Input::text("a red bicycle");
    let want = engine.embed_one(text(), Role::Query).unwrap();
    let gone = Cancel::new();
    gone.cancel();
    let query = || Request::new(Role::Query);
    let asked = [
        (text(), query()),
        (text(), query().task("juggling")),
        (text(), query().dim(7)),
        (Input::text("another"), query().cancel(gone)),
        (text(), query().deadline(std::time::Instant::now())),
        (text(), query()),
    ];
    let results = engine.embed_each(&asked);
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().err().map(omniburn::ItemError::kind)).collect();
    let (bad, over) = (Some(ErrorKind::BadItem), Some(ErrorKind::Cancelled));
    assert_eq!(kinds, [None, bad, bad, over, over, None]);
    let said = |i: usize| results[i].as_ref().unwrap_err().to_string();
    assert!(said(1).contains("no task `juggling` in this record"), "{}", said(1));
    assert!(said(2).starts_with("dimension 7 is not one of this record's"), "{}", said(2));
    assert_eq!(results[0].as_ref().unwrap().embedding, want);
    assert_eq!(results[5].as_ref().unwrap().embedding, want);
    assert_eq!(engine.memory_in_use(), (0, 0));

    // What the call says holds for an input that does not say it.
    let stop = Cancel::new();
    stop.cancel();
    let call = Request::new(Role::Document).cancel(stop);
    let stopped: Vec<_> = engine.embed_iter([(text(), query())], call).unwrap().collect();
    assert_eq!(stopped[0].as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
}
