//! `omniburn completions`: what a shell needs to complete a line.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::failure::{DONE, Outcome};
use crate::output::write_stdout;

/// Prints the completions of a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "omniburn", &mut script);
    write_stdout(&script)?;
    Ok(DONE)
}
