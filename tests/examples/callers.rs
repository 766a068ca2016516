//! What texts of many callers take beside one call with all of them: 16 threads with one text of 16 tokens each, one call with
//! the 16, and 16 calls one after another; and one text alone. In turns, medians of as many rounds as are asked for.
//!
//! `cargo run --release -p omniburn-tests --example callers [ROUNDS] [RECORD]`, by default 101 rounds of the model that ships.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use omniburn::{Engine, Input, Request, Role};

const CALLERS: usize = 16;

fn main() {
    omniburn::settle_allocator();
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().map_or(101, |n| n.parse().expect("a number of rounds"));
    let engine = match args.next() {
        Some(record) => Engine::open(record).expect("the record opens"),
        None => Engine::mini().expect("the model that ships opens"),
    };
    // Other texts every round, so that none is computed once for two.
    let text = |caller: usize, round: usize| {
        const LETTERS: &[u8] = b"abcdefghijklmnop";
        let letter = |n: usize| LETTERS[(n * 7 + caller + round / 16) % 16] as char;
        let words: Vec<String> = (0..13)
            .map(|n| if n == 0 { letter(round).to_string() } else { letter(n * caller + round).to_string() })
            .collect();
        Input::text(words.join(" "))
    };
    let one = |caller, round| {
        let results =
            engine.embed_with(&[text(caller, round)], &Request::new(Role::Query)).expect("the request is plain");
        results.into_iter().map(|result| result.expect("a text has a vector").tokens).sum::<usize>()
    };
    println!("{} tokens a text", one(0, 0));
    let (before, after) = (Barrier::new(CALLERS + 1), Barrier::new(CALLERS + 1));
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut passes = Vec::new();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (before, after, one) = (&before, &after, &one);
            scope.spawn(move || {
                for round in 0..rounds {
                    before.wait();
                    one(caller, round);
                    after.wait();
                }
            });
        }
        for round in 0..rounds {
            let mut timed = |place: usize, work: &dyn Fn()| {
                let begun = Instant::now();
                work();
                times[place].push(begun.elapsed());
            };
            timed(0, &|| _ = one(0, round));
            timed(1, &|| {
                let all: Vec<Input> = (0..CALLERS).map(|caller| text(caller, round)).collect();
                engine.embed(&all, Role::Query).expect("each has a vector");
            });
            timed(2, &|| (0..CALLERS).for_each(|caller| _ = one(caller, round)));
            engine.reset_metrics();
            timed(3, &|| {
                before.wait();
                after.wait();
            });
            passes.push(engine.metrics().interactive.computes.count);
        }
    });
    passes.sort_unstable();
    let names = ["one text", "one call with 16", "16 calls in turn", "16 threads with one each"];
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e3
        })
        .collect();
    for ((name, median), times) in names.iter().zip(&medians).zip(&times) {
        println!("{name:<26} median {median:8.3} ms, least {:8.3} ms", times[0].as_secs_f64() * 1e3);
    }
    println!(
        "16 threads took {:.2} times one call, in {} passes (median)",
        medians[3] / medians[1],
        passes[passes.len() / 2]
    );
}
