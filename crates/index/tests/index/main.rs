//! Indexes of real folders, with a model that needs no weights, in each store.

mod damage;
#[cfg(feature = "postgres")]
mod equal;
mod exact;
mod finding;
mod keeping;
#[cfg(feature = "postgres")]
mod server;
mod support;
