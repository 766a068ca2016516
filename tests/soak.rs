//! `examples/soak.rs` in the size of CI. A program of its own and not a test among others, because the memory, the threads
//! and the open files of the whole process are counted, and because it starts itself anew for each job.

#[path = "support/soak.rs"]
mod soak;

fn main() -> std::process::ExitCode {
    omniburn::settle_allocator();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() { soak::run(&["ci".to_owned()]) } else { soak::run(&args) }
}
