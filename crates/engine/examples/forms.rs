//! One vector in every form it is handed out in, with what each costs and loses.
//!
//! `cargo run --release -p omniburn --example forms -- RECORD [TEXT]`

use std::error::Error;
use std::process::ExitCode;

use omniburn::{Embedding, Engine, Input, Role};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(record) = args.next() else {
        eprintln!("usage: forms RECORD [TEXT]");
        return Ok(ExitCode::from(2));
    };
    let text = args.next().unwrap_or_else(|| "a red bicycle".into());

    let vector = Engine::open(record)?.embed_one(Input::text(text), Role::Document)?;
    let dim = vector.dim();
    println!("f32     {:>6} bytes", 4 * dim);

    let half: Vec<f32> = vector.to_f16().into_iter().map(f32::from).collect();
    println!("f16     {:>6} bytes, cosine {:.6}", 2 * dim, vector.cosine(&Embedding::from_raw(half)?));

    // Steps of 1/127, the same for every vector: dot products of such lists can be compared.
    let steps = vector.to_int8();
    let back = Embedding::from_raw(steps.iter().map(|&step| f32::from(step)).collect())?;
    println!("int8    {:>6} bytes, cosine {:.6}", steps.len(), vector.cosine(&back));

    // One bit a value: two such lists are compared by counting the bits that differ.
    let bits = vector.to_ubinary();
    let set: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
    println!("binary  {:>6} bytes, {set} of {dim} values are positive", bits.len());

    let base64 = vector.to_base64();
    let same = Embedding::from_base64(&base64)? == vector;
    println!("base64  {:>6} bytes, reads back to the same bits: {same}", base64.len());
    Ok(ExitCode::SUCCESS)
}
