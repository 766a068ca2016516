//! Indexes of real folders, with a model that needs no weights, in each store.

#[cfg(feature = "parquet")]
mod columns;
mod damage;
#[cfg(feature = "postgres")]
mod equal;
mod exact;
mod finding;
mod keeping;
mod places;
#[cfg(feature = "postgres")]
mod server;
mod support;
