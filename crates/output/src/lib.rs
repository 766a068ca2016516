//! Every file and folder that the program writes: which file a path means, and how it gets its content.
//!
//! A plain file is written beside its destination and takes its place in one step, so that whoever looks, or is left
//! after a kill, finds the old content or the new one, whole. A symbolic link is followed: the file that it names is
//! written and the link stays. A pipe, a character device, standard output and every other open descriptor are written
//! straight in and never replaced: a file renamed over `/dev/null` would take its place for the whole machine.
//!
//! | where | what |
//! |---|---|
//! | [`destination`] | which file a path means, and what may be written there |
//! | [`mod@file`] | a file that is complete or not there |
//! | [`folder`] | a folder that is complete or not there |
//! | `part` | names and locks of what is not complete yet |
//! | [`identity`] | whether two paths are one file |
//!
//! What is written is none of this crate's business, and nothing here reads the environment or prints.
#![forbid(unsafe_code)]

pub mod destination;
pub mod error;
pub mod file;
pub mod folder;
pub mod identity;
mod part;

pub use destination::Destination;
pub use error::OutputError;
pub use file::WholeFile;
pub use folder::WholeFolder;
pub use identity::FileId;
pub use part::Leftover;
