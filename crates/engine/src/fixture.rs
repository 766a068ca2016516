//! What tests of this crate open.

use std::path::{Path, PathBuf};

use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::{Dtype, write_random};
use tempfile::TempDir;

/// A text-only record of random weights, in a folder that lives as long as the first result.
pub(crate) fn record() -> (TempDir, PathBuf) {
    let text = BackboneConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        inner: 48,
        norm_eps: 1e-6,
        rope_theta: 1e4,
        causal: true,
        qk_norm: true,
        max_tokens: 128,
        vocab: 500,
    };
    // Cargo runs the tests of a package in its folder.
    let tokenizer = Path::new("../../tests/golden/twins/omni-small-tiny/tokenizer.json");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("record");
    let config = OmniConfig { text, vision: None, audio: None };
    write_random(&out, &config, Dtype::F32, (1, 1), tokenizer, 3).unwrap();
    (folder, out)
}
