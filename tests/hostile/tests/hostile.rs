//! The runner as a test target: so it is built from the same crates as the other tests, and not once more.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use omniburn_hostile::runner;

#[global_allocator]
static ALLOCATOR: runner::Allocator = runner::allocator();

fn main() -> ExitCode {
    runner::main(&ALLOCATOR)
}
