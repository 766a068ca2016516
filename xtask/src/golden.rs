//! `golden`: remakes the stored expectations of the tests, and checks that they are the ones in the list.
//!
//! `tests/golden/DIGESTS` names every golden file with its SHA-256, in the format of `sha256sum`. A golden that changes
//! without its line, or a file nobody listed, is a mistake that a parity test alone might not notice.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{self, target_dir};

/// Where the goldens are, from the root.
const FOLDER: &str = "tests/golden";
/// The list, in that folder.
const DIGESTS: &str = "DIGESTS";

/// What a maker is given after its name, where it wants anything; the words in braces are filled in by [`Places`].
const ARGUMENTS: &[(&str, &[&str])] = &[
    ("images", &["tests/golden/media"]),
    ("jpegs", &["tests/golden/media"]),
    ("orientations", &["tests/golden/media"]),
    ("forms", &["tests/golden/media"]),
    ("tokenizers", &["{tokenizers}", "tests/golden/media"]),
    ("references", &["{fixtures}/refs", "{fixtures}/published", "tests/golden/media"]),
    ("families", &["{fixtures}", "tests/golden"]),
    ("encoders", &["tests/golden/checkpoints", "tests/golden/refs"]),
    ("animations", &["tests/golden/media"]),
    ("codecs", &["tests/golden/media"]),
    ("videos", &["tests/golden/media/videos"]),
    ("clocks", &["tests/golden/media/clocks"]),
    ("mels", &["{fixtures}", "tests/golden/media"]),
    ("audio", &["tests/golden/media"]),
    ("resampled", &["tests/golden/media"]),
    ("tiffs", &["tests/golden/media"]),
    ("streams", &["tests/golden/media"]),
    // Without the reference set's model the two of jina-embeddings-v5-omni stay as they are.
    ("fullsize", &["tests/golden"]),
];

/// What is wrong with one golden file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Listed, and not there.
    Missing(String),
    /// There, with other bytes than the list says.
    Changed(String),
    /// There, and not listed.
    Unlisted(String),
}

/// Checks every golden against the list; gives the exit code.
///
/// # Errors
/// When the list cannot be read, has a malformed line, or is empty.
pub fn check(root: &Path) -> Result<u8> {
    let folder = root.join(FOLDER);
    let list = folder.join(DIGESTS);
    let text = std::fs::read_to_string(&list);
    let text =
        text.with_context(|| format!("cannot read {FOLDER}/{DIGESTS}; `cargo xtask golden --digests` writes it"))?;
    let listed = parse(&text)?;
    ensure!(!listed.is_empty(), "{FOLDER}/{DIGESTS} lists no file, so there is nothing to check");
    let faults = faults(&listed, &digests(&folder, &files(&folder)?)?);
    for fault in &faults {
        match fault {
            Fault::Missing(path) => println!("missing   {path}"),
            Fault::Changed(path) => println!("changed   {path}"),
            Fault::Unlisted(path) => println!("unlisted  {path}"),
        }
    }
    if faults.is_empty() {
        println!("{} golden files are as listed", listed.len());
        return Ok(0);
    }
    println!(
        "\nIf the change is meant: `cargo xtask golden --digests` writes the list anew; the review is in its diff."
    );
    Ok(1)
}

/// Writes the list anew from the files that are there.
///
/// # Errors
/// When a golden cannot be read or the list cannot be written.
pub fn write_list(root: &Path) -> Result<()> {
    let folder = root.join(FOLDER);
    let found = digests(&folder, &files(&folder)?)?;
    let mut text = String::new();
    for (path, digest) in &found {
        let _ = writeln!(text, "{digest}  {path}");
    }
    std::fs::write(folder.join(DIGESTS), text).with_context(|| format!("cannot write {FOLDER}/{DIGESTS}"))?;
    println!("{FOLDER}/{DIGESTS} lists {} files", found.len());
    Ok(())
}

/// Folders outside the repository that makers read.
#[derive(Debug, Clone)]
pub struct Places {
    /// The reference set, too large for the repository; makers that need it are left out without it.
    pub fixtures: Option<PathBuf>,
    /// Where `fetch_tokenizers.sh` puts the published tokenizers.
    pub tokenizers: PathBuf,
}

impl Places {
    /// The given reference set, and the tokenizers where the script puts them by default.
    pub fn new(fixtures: Option<PathBuf>) -> Self {
        let given = std::env::var_os("OMNIBURN_TEST_TOKENIZERS").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        Self { fixtures, tokenizers: given.unwrap_or_else(|| home().join(".cache/omniburn/tokenizers")) }
    }

    /// A maker's arguments; none when they name a place that was not given.
    fn arguments(&self, maker: &str) -> Option<Vec<String>> {
        let wanted = ARGUMENTS.iter().find(|(name, _)| *name == maker).map_or(&[][..], |(_, words)| words);
        wanted.iter().map(|word| self.filled(word)).collect()
    }

    fn filled(&self, word: &str) -> Option<String> {
        let mut text = word.replace("{tokenizers}", &self.tokenizers.display().to_string());
        if text.contains("{fixtures}") {
            text = text.replace("{fixtures}", &self.fixtures.as_ref()?.display().to_string());
        }
        Some(text)
    }
}

/// Runs the makers (all, or the named ones), writes the list anew and shows what changed.
///
/// # Errors
/// When a maker is not there or fails, a named one lacks its place, or the packages cannot be installed.
pub fn make(root: &Path, named: &[String], places: &Places) -> Result<()> {
    let makers = makers(root, named)?;
    if let Some(lacking) = named.iter().find(|name| places.arguments(name).is_none()) {
        bail!("{lacking} needs --fixtures DIR");
    }
    let python = venv(root, &format!("{FOLDER}/make/requirements.txt"), "golden-venv")?;
    let folder = Path::new(FOLDER).join("make");
    run(Command::new("sh").arg(folder.join("fetch_tokenizers.sh")).current_dir(root))?;
    let mut left_out = Vec::new();
    for maker in makers {
        let Some(arguments) = places.arguments(&maker) else {
            left_out.push(maker);
            continue;
        };
        println!("== {maker}");
        run(Command::new(&python).arg(folder.join(format!("{maker}.py"))).args(arguments).current_dir(root))?;
    }
    write_list(root)?;
    run(Command::new("git").args(["status", "--short", "--", FOLDER]).current_dir(root))?;
    run(Command::new("git").args(["--no-pager", "diff", "--stat", "--", FOLDER]).current_dir(root))?;
    if !left_out.is_empty() {
        println!("not run, for they need --fixtures DIR: {}", left_out.join(", "));
    }
    Ok(())
}

/// The makers to run, by name. A script that begins with `_` is a module that makers share, not a maker.
fn makers(root: &Path, named: &[String]) -> Result<Vec<String>> {
    let folder = Path::new(FOLDER).join("make");
    let mut known = Vec::new();
    let entries = std::fs::read_dir(root.join(&folder));
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(stem) =
            name.strip_suffix(".py").filter(|stem| !stem.starts_with('_') && !stem.starts_with("sweep_"))
        {
            known.push(stem.to_string());
        }
    }
    known.sort();
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        bail!("no maker is called {unknown}; there are: {}", known.join(", "));
    }
    ensure!(!known.is_empty(), "{} holds no maker", folder.display());
    known.retain(|name| named.is_empty() || named.contains(name));
    Ok(known)
}

/// A Python with exactly the packages of a `requirements.txt`, kept with the build output under `name`; gives its
/// interpreter.
///
/// # Errors
/// When there is no Python, or a package cannot be had.
pub fn venv(root: &Path, requirements: &str, name: &str) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(root.join(requirements))
        .with_context(|| format!("cannot read {requirements}, which pins the packages"))?;
    let folder = target_dir(root).join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    // The stamp is written last, so that an interrupted installation is not taken for a whole one.
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(root.join(requirements)))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = workspace::status(command)?;
    ensure!(status.success(), "`{}` failed: {status}", workspace::shown(command));
    Ok(())
}

/// Reads lines of `HEX  PATH`.
fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut listed = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let entry = line.split_once("  ").filter(|(digest, path)| {
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) && !path.is_empty()
        });
        let Some((digest, path)) = entry else {
            bail!("{FOLDER}/{DIGESTS}:{} is not `HEX  PATH`: {line:?}", i + 1);
        };
        if listed.insert(path.to_string(), digest.to_ascii_lowercase()).is_some() {
            bail!("{FOLDER}/{DIGESTS}:{} lists {path} a second time", i + 1);
        }
    }
    Ok(listed)
}

/// Every golden below `folder`, with `/` between the parts: all but the list, the makers, and pages for people.
fn files(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, above: &str, found: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{above}{name}");
            if path == DIGESTS || path == "make" || name == "README.md" {
                continue;
            }
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}

/// The SHA-256 of each file, from the system's own tool: it saves this crate a dependency.
fn digests(folder: &Path, files: &[String]) -> Result<BTreeMap<String, String>> {
    // Neither with zero files (both would read standard input), nor with more than a command line holds.
    let mut found = BTreeMap::new();
    for some in files.chunks(500) {
        let gnu = Command::new("sha256sum").arg("--").args(some).current_dir(folder).output();
        let output = match gnu {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Command::new("shasum").args(["-a", "256", "--"]).args(some).current_dir(folder).output()
            }
            other => other,
        };
        let output = output.context("neither `sha256sum` nor `shasum` can be started")?;
        ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8(output.stdout).context("a golden's name is not UTF-8")?;
        found.extend(parse(&text).context("in what sha256sum wrote")?);
    }
    Ok(found)
}

fn faults(listed: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Vec<Fault> {
    let from_list = listed.iter().filter_map(|(path, digest)| match found.get(path) {
        None => Some(Fault::Missing(path.clone())),
        Some(other) if other != digest => Some(Fault::Changed(path.clone())),
        Some(_) => None,
    });
    let unlisted = found.keys().filter(|path| !listed.contains_key(*path)).cloned().map(Fault::Unlisted);
    from_list.chain(unlisted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;

    /// A root with two goldens and files that are none, and the list written.
    fn listed_root() -> Scratch {
        let scratch = Scratch::new("golden").unwrap();
        let golden = scratch.path().join(FOLDER);
        std::fs::create_dir_all(golden.join("omni")).unwrap();
        std::fs::create_dir_all(golden.join("make")).unwrap();
        std::fs::write(golden.join("omni/text.safetensors"), "abc").unwrap();
        std::fs::write(golden.join("omni/picture of a cat.png"), "cat").unwrap();
        std::fs::write(golden.join("omni/README.md"), "for people").unwrap();
        std::fs::write(golden.join("make/text.py"), "pass").unwrap();
        std::fs::write(golden.join("make/_shared.py"), "pass").unwrap();
        write_list(scratch.path()).unwrap();
        scratch
    }

    fn found_faults(root: &Path) -> Vec<Fault> {
        let golden = root.join(FOLDER);
        let listed = parse(&std::fs::read_to_string(golden.join(DIGESTS)).unwrap()).unwrap();
        faults(&listed, &digests(&golden, &files(&golden).unwrap()).unwrap())
    }

    #[test]
    fn goldens_as_listed_pass_and_makers_and_pages_are_not_goldens() {
        let root = listed_root();
        assert_eq!(check(root.path()).unwrap(), 0);
        let text = std::fs::read_to_string(root.path().join(FOLDER).join(DIGESTS)).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  omni/text.safetensors";
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().any(|line| line == abc), "{text}");
    }

    #[test]
    fn a_missing_golden_is_found() {
        let root = listed_root();
        std::fs::remove_file(root.path().join(FOLDER).join("omni/text.safetensors")).unwrap();
        assert_eq!(found_faults(root.path()), [Fault::Missing("omni/text.safetensors".into())]);
        assert_eq!(check(root.path()).unwrap(), 1);
    }

    #[test]
    fn a_changed_golden_is_found() {
        let root = listed_root();
        std::fs::write(root.path().join(FOLDER).join("omni/text.safetensors"), "abd").unwrap();
        assert_eq!(found_faults(root.path()), [Fault::Changed("omni/text.safetensors".into())]);
        assert_eq!(check(root.path()).unwrap(), 1);
    }

    #[test]
    fn an_unlisted_file_is_found() {
        let root = listed_root();
        std::fs::write(root.path().join(FOLDER).join("omni/more.json"), "{}").unwrap();
        assert_eq!(found_faults(root.path()), [Fault::Unlisted("omni/more.json".into())]);
        assert_eq!(check(root.path()).unwrap(), 1);
    }

    #[test]
    fn no_list_an_empty_one_and_a_malformed_line_are_errors() {
        let root = listed_root();
        let list = root.path().join(FOLDER).join(DIGESTS);
        std::fs::write(&list, "").unwrap();
        assert!(check(root.path()).is_err());
        std::fs::write(&list, "beef  omni/text.safetensors\n").unwrap();
        assert!(check(root.path()).unwrap_err().to_string().contains("DIGESTS:1"));
        let twice = format!("{0}  a\n{0}  a\n", "0".repeat(64));
        std::fs::write(&list, twice).unwrap();
        assert!(check(root.path()).unwrap_err().to_string().contains("second time"));
        std::fs::remove_file(&list).unwrap();
        assert!(check(root.path()).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn an_unknown_maker_is_an_error_that_lists_the_known_ones() {
        let root = listed_root();
        let error = makers(root.path(), &["sound".into()]).unwrap_err().to_string();
        assert!(error.contains("sound") && error.contains("text"), "{error}");
        assert_eq!(makers(root.path(), &[]).unwrap(), ["text"]);
    }

    #[test]
    fn a_maker_gets_its_arguments_or_is_left_out_where_a_place_is_not_given() {
        let mut places = Places { fixtures: None, tokenizers: "cache/tokenizers".into() };
        assert_eq!(places.arguments("text"), Some(vec![]));
        assert_eq!(places.arguments("tokenizers").unwrap(), ["cache/tokenizers", "tests/golden/media"]);
        assert_eq!(places.arguments("references"), None);
        places.fixtures = Some("fixtures".into());
        let given = ["fixtures/refs", "fixtures/published", "tests/golden/media"];
        assert_eq!(places.arguments("references").unwrap(), given);
    }

    #[test]
    fn every_maker_that_is_given_arguments_is_there() {
        let makers = makers(&workspace::root().unwrap(), &[]).unwrap();
        for (name, _) in ARGUMENTS {
            assert!(makers.iter().any(|maker| maker == name), "{name} has arguments and no script");
        }
    }
}
