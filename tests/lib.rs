//! Empty: the proofs are in `integration.rs`.
