//! The part of the command line that reads what others wrote, reachable without a process around it.
//!
//! What lives here: [`inputs`], which turns arguments, lines of `--items` and lines of standard input into inputs or
//! faults. What does not: the verbs, their arguments and their output, which are in the program.
#![forbid(unsafe_code)]

pub mod inputs;
