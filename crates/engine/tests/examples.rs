//! The examples, run as a user runs them: on a record, on none, on a wrong one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use omniburn::Dtype;
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;
use omniburn_models::towers::vision::{VisionConfig, VisionKind};

/// Every example with what its output must hold.
const EXAMPLES: [(&str, &str); 5] = [
    ("embed_text_and_image", "a red square"),
    ("forms", "base64"),
    ("matryoshka", ""),
    ("priorities", ""),
    ("stream", ""),
];

fn example(name: &str, args: &[&Path]) -> Output {
    // target/<profile>/deps/this -> target/<profile>/examples/name
    let here = std::env::current_exe().unwrap();
    let folder = here.parent().and_then(Path::parent).unwrap().join("examples");
    let program = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.is_file(), "{} is not built; `cargo test -p omniburn` builds it", program.display());
    Command::new(program).args(args).output().unwrap()
}

/// A record of random weights with an image tower.
fn record(folder: &Path) -> PathBuf {
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
        max_tokens: 512,
        vocab: 500,
    };
    let vision = VisionConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        inner: 64,
        positions: 64,
        patch_px: 16,
        merge: 2,
        temporal_patch: 2,
        channels: 3,
        norm_eps: 1e-6,
        rope_theta: 1e4,
        taps: Vec::new(),
        kind: VisionKind::Table,
    };
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let tokenizer = Path::new(&manifest).join("../../tests/golden/checkpoints/omni-small-tiny/tokenizer.json");
    let out = folder.join("record");
    let config = OmniConfig { text, vision: Some(vision), audio: None };
    write_random(&out, &config, Dtype::F32, (4096, 16384), &tokenizer, 5).unwrap();
    out
}

#[test]
fn every_example_runs_on_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let record = record(folder.path());
    for (name, says) in EXAMPLES {
        let output = example(name, &[&record]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {err}");
        assert!(!out.trim().is_empty() && out.contains(says), "{name}: {out}");
    }
}

#[test]
fn every_example_says_how_it_is_used_and_refuses_what_is_not_a_record() {
    for (name, _) in EXAMPLES {
        let usage = example(name, &[]);
        assert_eq!(usage.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&usage.stderr).contains("usage:"), "{name}");
        let refused = example(name, &[Path::new("/no/such/record")]);
        assert_eq!(refused.status.code(), Some(1), "{name}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}

/// No example is left out of these tests.
#[test]
fn every_example_is_listed_here() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let mut found: Vec<String> = std::fs::read_dir(Path::new(&manifest).join("examples"))
        .unwrap()
        .flatten()
        .map(|e| e.path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, EXAMPLES.map(|(name, _)| name.to_string()));
}
