//! Writes the vectors of the self-test of a record to standard output, or those of the model that ships:
//!
//! `cargo run --release -p omniburn-tests --example selftest_vectors > selftest.json`, then move the file to
//! `models/mini/record`. A record folder named as the argument is taken in its place.

use std::error::Error;

use omniburn::{Dtype, Engine};
use omniburn_diagnostics::self_test_vectors;

fn main() -> Result<(), Box<dyn Error>> {
    let builder = std::env::args().nth(1).map_or_else(Engine::mini_builder, Engine::builder);
    print!("{}", self_test_vectors(&builder.dtype(Dtype::F32).open()?)?);
    Ok(())
}
