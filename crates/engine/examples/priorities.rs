//! A query beside background work: it waits for the unit that is running, and for nothing else.
//!
//! `cargo run --release -p omniburn --example priorities -- RECORD`

use std::error::Error;
use std::process::ExitCode;

use omniburn::{Cancel, Engine, Input, Priority, Request, Role};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(record) = std::env::args().nth(1) else {
        eprintln!("usage: priorities RECORD");
        return Ok(ExitCode::from(2));
    };
    let engine = Engine::open(record)?;
    let cancel = Cancel::new();
    let background = Request::new(Role::Document).priority(Priority::Background).cancel(cancel.clone());

    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        // An index being built: documents without end, until the queries are done.
        let indexing = scope.spawn(|| {
            let documents = (0..).map(|n| Input::text(format!("document {n}, with a few words more")));
            let results = engine.embed_iter(documents.take_while(|_| !cancel.is_cancelled()), background);
            results.map(|results| results.flatten().count())
        });
        // Queries are interactive by default.
        let queries: Result<Vec<_>, _> =
            (0..50).map(|n| engine.embed_one(Input::text(format!("query {n}")), Role::Query)).collect();
        cancel.cancel();
        queries?;
        match indexing.join() {
            Ok(documents) => println!("50 queries beside {} documents", documents?),
            Err(_) => return Err("the indexing thread panicked".into()),
        }
        Ok(())
    })?;

    let metrics = engine.metrics();
    for (class, stats) in [("interactive", metrics.interactive), ("background", metrics.background)] {
        let (waits, slices) = (stats.waits, stats.slices);
        println!(
            "{class:<12}{:>5} units, waits p50 {:?} max {:?}, slices of at most {:?}",
            waits.count, waits.p50, waits.max, slices.max
        );
    }
    Ok(ExitCode::SUCCESS)
}
