//! An index in a schema of a Postgres server, for those who outgrow one file: vectors as pgvector's `halfvec`, words as `tsvector`.
//!
//! Any number of programs read it, also from other machines; one writes at a time and holds an advisory lock meanwhile. The server
//! searches exactly: no index of neighbours is made, and one that somebody made is not used. Splitting into words is FTS5's, in
//! this program, so that a server needs nothing but pgvector.

mod address;
mod begin;
mod nearest;
mod read;
mod schema;
mod session;
mod split;
mod store;
mod words;
mod write;

pub(super) use begin::{import_apart, open, open_or_begin};
