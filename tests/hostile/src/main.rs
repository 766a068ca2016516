//! `omniburn-hostile`: see `--help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use omniburn_hostile::runner;

#[global_allocator]
static ALLOCATOR: runner::Allocator = runner::allocator();

fn main() -> ExitCode {
    runner::main(&ALLOCATOR)
}
