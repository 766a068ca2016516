//! Indexes of real folders, with a model that needs no weights.

mod damage;
mod finding;
mod keeping;
mod support;
