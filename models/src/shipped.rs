//! The record that ships: its files as bytes of the program.

use crate::record::InsideFile;

/// Bytes that begin where values of any type may begin, so that tensors are read where they lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! record {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, {
            static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!("../mini/record/", $name)));
            &FILE.0
        })),+]
    };
}

/// Files of `mini/record`, as `omniburn convert --dtype int8` wrote them, and the vectors of the self-test.
pub const MINI: &[InsideFile] =
    record!["model.json", "tokenizer.json", "tokens.bpk", "towers.bpk", "text.retrieval.bpk", "selftest.json"];
