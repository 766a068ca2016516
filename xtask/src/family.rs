//! `new-family`: the files a new model family begins with, and the list of places that must learn of it.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Checks a family's name: a Rust module name in snake case, which is also the `model_type` of its checkpoints.
///
/// # Errors
/// A sentence on what is wrong.
pub fn checked_name(name: &str) -> Result<String, String> {
    let shape = "lower-case letters, digits and single underscores, a letter first, as in qwen3_vl";
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain)
        && !name.contains("__")
        && !name.ends_with('_');
    if !well_formed {
        return Err(format!("a family's name is made of {shape}"));
    }
    if KEYWORDS.contains(&name) {
        return Err(format!("`{name}` cannot be the name of a Rust module"));
    }
    Ok(name.into())
}

/// Keywords made of lower-case letters, and `mod`, whose file would be the folder's own.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Writes the files and prints what comes next.
///
/// # Errors
/// When one of the files is there already (then none is written), or cannot be written.
pub fn run(root: &Path, name: &str) -> Result<()> {
    let files = files(name);
    if let Some((path, _)) = files.iter().find(|(path, _)| root.join(path).exists()) {
        bail!("{path} is there already; nothing was written");
    }
    for (path, text) in &files {
        let path = root.join(path);
        let folder = path.parent().expect("every path below has a folder");
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("written:");
    for (path, _) in &files {
        println!("  {path}");
    }
    print!("{}", filled(NEXT, name));
    Ok(())
}

/// The files of a family, from the root.
fn files(name: &str) -> [(String, String); 4] {
    [
        (format!("models/src/families/{name}.rs"), filled(MODEL, name)),
        (format!("crates/convert/src/maps/{name}.rs"), filled(MAP, name)),
        (format!("tests/golden/{name}/README.md"), filled(GOLDEN, name)),
        (format!("tests/parity_{name}.rs"), filled(TEST, name)),
    ]
}

fn filled(template: &str, name: &str) -> String {
    template.replace("NAME", name).replace("TYPE", &camel(name))
}

/// `qwen3_vl` as `Qwen3Vl`.
fn camel(name: &str) -> String {
    let capital = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('_').filter(|part| !part.is_empty()).map(capital).collect()
}

const MODEL: &str = r#"//! The NAME family: which parts it is made of, and the tensors each part holds.

use serde::{Deserialize, Serialize};

use crate::backbone::BackboneConfig;
use crate::error::ConfigError;
use crate::record::TensorSpec;

/// Configuration of the family, as `model.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TYPEConfig {
    /// The text backbone.
    pub text: BackboneConfig,
}

impl TYPEConfig {
    /// Checks every part.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text.check()
    }

    /// Tensors of `text.<task>.bpk`: the backbone.
    pub fn text_tensors(&self) -> Vec<TensorSpec> {
        self.text.tensors("backbone")
    }
}
"#;

const MAP: &str = r#"//! Key names of the NAME family as published, and where each tensor goes.
//!
//! A key that no rule takes is an error. What is left behind is left behind by a rule that says why.

use crate::keymap::KeyMap;

/// The names of this family: each list holds what its published layouts need, and nothing in case.
pub(crate) const KEYS: KeyMap = KeyMap { renames: &[], drops: &[] };
"#;

const GOLDEN: &str = "\
# NAME

A twin of the NAME family: the real code path at a small size, seeded random weights, with the reference's outputs.

| file | what it holds |
|---|---|

Made by `tests/golden/make/NAME.py`; `cargo xtask golden NAME` runs it and lists the files in `tests/golden/DIGESTS`.
";

const TEST: &str = r#"//! The NAME family against its reference, and the laws that hold for every family.

#[test]
fn NAME_agrees_with_its_reference_at_every_intermediate() {
    panic!("to do: the golden maker, then each intermediate and the vector against what it wrote");
}

#[test]
fn NAME_gives_the_same_vector_alone_and_in_a_batch() {
    panic!("to do: shorter, longer, equal and repeated neighbours, in any order");
}

#[test]
fn every_published_key_of_NAME_is_mapped_with_none_left_over() {
    panic!("to do: the full-size key list of each published layout through `convert --check`");
}
"#;

const NEXT: &str = "
not yet part of any crate; the compiler takes over from the second line on:
  models/src/families/mod.rs       `pub mod NAME;` and `pub use NAME::TYPEConfig;`
                                   a variant `TYPE` of `Family`, and its line in `Family::ALL`
                                   then every `match` on a family: its name, its check, its tensors
  models/src/record/               reading and checking a record of the family
  crates/convert/src/maps/mod.rs   `pub(crate) mod NAME;`
  crates/convert/src/hf_config.rs  the published config, known by its `model_type`, to the strict one
  crates/convert/src/plan.rs       which map and which recipes it takes; single.rs where it has no adapters
  crates/engine/src/               whatever matches on the family: parts, prompts, profile
  tests/integration.rs             `mod parity_NAME;`: three tests that fail until they are written
and by hand:
  tests/golden/make/               the maker NAME.py; then `cargo xtask golden NAME`
  models/cards/, models/NUMERICS.md, README.md, CHANGELOG.md
then module by module until `cargo xtask diff` shows no divergence
";

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::workspace::{self, Scratch};

    #[test]
    fn a_family_gets_four_files_that_name_it() {
        let scratch = Scratch::new("family").unwrap();
        run(scratch.path(), "qwen3_vl").unwrap();
        for (path, _) in files("qwen3_vl") {
            let text = std::fs::read_to_string(scratch.path().join(&path)).unwrap();
            assert!(text.contains("qwen3_vl") && !text.contains("NAME") && !text.contains("TYPE"), "{path}: {text}");
        }
        let model = std::fs::read_to_string(scratch.path().join("models/src/families/qwen3_vl.rs")).unwrap();
        assert!(model.contains("pub struct Qwen3VlConfig"));
    }

    #[test]
    fn the_rust_files_are_formatted_as_the_house_formats() {
        let scratch = Scratch::new("family").unwrap();
        run(scratch.path(), "a_family_with_quite_a_long_name").unwrap();
        for (path, _) in files("a_family_with_quite_a_long_name").iter().filter(|(path, _)| path.ends_with(".rs")) {
            let mut rustfmt = Command::new("rustfmt");
            rustfmt.args(["--check", "--config-path"]).arg(workspace::root().unwrap().join("rustfmt.toml"));
            let status = rustfmt.arg(scratch.path().join(path)).stdin(Stdio::null()).status().unwrap();
            assert!(status.success(), "{path}");
        }
    }

    #[test]
    fn its_tests_fail_until_they_are_written() {
        let test = filled(TEST, "bert");
        assert_eq!(test.matches("#[test]").count(), test.matches("panic!(").count());
        assert!(test.contains("#[test]"));
    }

    #[test]
    fn an_existing_family_is_refused_and_nothing_is_written() {
        let scratch = Scratch::new("family").unwrap();
        let (last, _) = &files("bert")[3];
        std::fs::create_dir_all(scratch.path().join("tests")).unwrap();
        std::fs::write(scratch.path().join(last), "mine").unwrap();
        let error = run(scratch.path(), "bert").unwrap_err().to_string();
        assert!(error.contains(last), "{error}");
        assert!(!scratch.path().join("models").exists());
        assert_eq!(std::fs::read_to_string(scratch.path().join(last)).unwrap(), "mine");
    }

    #[test]
    fn ill_formed_names_are_refused() {
        for name in
            ["", "Bert", "3d", "bert-large", "bert__large", "bert_", "_bert", "../bert", "ümlaut", "type", "mod"]
        {
            assert!(checked_name(name).is_err(), "{name:?}");
        }
        for name in ["bert", "qwen3_vl", "lfm2"] {
            assert_eq!(checked_name(name).as_deref(), Ok(name));
        }
    }
}
