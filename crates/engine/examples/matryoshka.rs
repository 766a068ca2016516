//! Shorter vectors from the same model: what is lost when a vector is cut and normalised again.
//!
//! `cargo run --release -p omniburn --example matryoshka -- RECORD [TEXT…]`

use std::error::Error;
use std::process::ExitCode;

use omniburn::{Embedding, EmbeddingError, Engine, Input, Role};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(record) = args.next() else {
        eprintln!("usage: matryoshka RECORD [TEXT...]");
        return Ok(ExitCode::from(2));
    };
    let mut texts: Vec<String> = args.collect();
    if texts.is_empty() {
        texts = ["a red bicycle", "two wheels and a bell", "the price of wheat"].map(String::from).to_vec();
    }

    let engine = Engine::open(record)?;
    let inputs: Vec<Input> = texts.iter().map(Input::text).collect();
    let full = engine.embed(&inputs, Role::Document)?;
    println!("cosine of `{}` with each text, by dimension", texts[0]);
    for dim in engine.profile().dims {
        let cut: Vec<Embedding> = full.iter().map(|v| v.truncated(dim)).collect::<Result<_, EmbeddingError>>()?;
        let cosines: Vec<String> = cut.iter().map(|v| format!("{:7.4}", cut[0].cosine(v))).collect();
        println!("{dim:>5}  {}", cosines.join("  "));
    }
    Ok(ExitCode::SUCCESS)
}
