//! Nothing ratchets and the budget holds: thousands of requests and random jobs against the engine's public surface, judged
//! by what the operating system counts. `cargo xtask soak` starts it in full, `cargo test --test soak` in the size of CI.

#[path = "../support/soak.rs"]
mod soak;

fn main() -> std::process::ExitCode {
    omniburn::settle_allocator();
    soak::run(&std::env::args().skip(1).collect::<Vec<_>>())
}
