//! A long job with bounded memory: results come in order, and one bad input costs only its own place.
//!
//! `cargo run --release -p omniburn --example stream -- RECORD [FILE OF LINES]`

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

use omniburn::{Cancel, Engine, Input, Request, Role};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(record) = args.next() else {
        eprintln!("usage: stream RECORD [FILE]");
        return Ok(ExitCode::from(2));
    };
    // Inputs are taken as they are needed, so this may be as long as it likes.
    let inputs: Box<dyn Iterator<Item = Input>> = match args.next() {
        Some(path) => Box::new(BufReader::new(File::open(path)?).lines().map_while(Result::ok).map(Input::text)),
        None => Box::new((0..1000).map(|n| match n {
            13 => Input::image_file("no such picture.png"),
            n => Input::text(format!("sentence number {n}")),
        })),
    };

    let engine = Engine::open(record)?;
    // Another thread may keep a clone and call `cancel()` on it.
    let cancel = Cancel::new();
    let request = Request::new(Role::Document).cancel(cancel.clone());
    let (mut done, mut failed) = (0, 0);
    for (index, result) in engine.embed_iter(inputs, request)?.enumerate() {
        done += 1;
        if let Err(e) = result {
            failed += 1;
            println!("input {index}: {}: {e}", e.kind());
        }
        if done % 250 == 0 {
            eprint!("\r{done} done");
            std::io::stderr().flush()?;
        }
    }
    eprintln!();
    println!("{done} inputs, {failed} failed");
    Ok(ExitCode::SUCCESS)
}
