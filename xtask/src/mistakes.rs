//! `mistakes` and `mutants`: whether the proofs of a crate can fail. Each mistake of its `tests/mistakes.txt` is made in a copy of the
//! crate, and the tests named beside it have to fail there. Nothing of it stands in the crate itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{self, cargo, target_dir};

/// The crate, from the root.
const CRATE: &str = "crates/scheduler";
const PACKAGE: &str = "omniburn-scheduler";
/// Its files that know no thread and no clock.
const PURE: &[&str] = &["policy.rs", "batcher.rs", "queue.rs"];

/// One mistake.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    name: String,
    /// From the crate's folder.
    file: String,
    /// Test targets of the crate, each with a test that has to fail.
    found_by: Vec<(String, String)>,
    right: String,
    wrong: String,
}

/// Makes each mistake, or those named, and gives the exit code: 0 when each was found.
///
/// # Errors
/// When the list cannot be read, a text to be changed is not there once, or a build fails.
pub fn run(root: &Path, names: &[String]) -> Result<u8> {
    let text = fs::read_to_string(root.join(CRATE).join("tests/mistakes.txt")).context("the list of mistakes")?;
    let mistakes = parse(&text)?;
    if let Some(name) = names.iter().find(|name| mistakes.iter().all(|mistake| mistake.name != **name)) {
        bail!("no mistake is called {name}");
    }
    let copy = Copy::of(root)?;
    let mut tests: Vec<&(String, String)> = mistakes.iter().flat_map(|mistake| &mistake.found_by).collect();
    tests.sort();
    tests.dedup();
    for (target, test) in tests {
        ensure!(copy.passes(target, test)?, "{test} fails without any mistake");
    }
    let mut missed = 0;
    for mistake in mistakes.iter().filter(|mistake| names.is_empty() || names.contains(&mistake.name)) {
        let path = copy.folder.join(CRATE).join(&mistake.file);
        let right = fs::read_to_string(&path).with_context(|| mistake.file.clone())?;
        fs::write(&path, changed(&right, mistake)?)?;
        for (target, test) in &mistake.found_by {
            let passed = copy.passes(target, test).with_context(|| mistake.name.clone())?;
            println!("{}: {} by {test}", mistake.name, if passed { "NOT FOUND" } else { "found" });
            missed += usize::from(passed);
        }
        fs::write(&path, right)?;
    }
    Ok(u8::from(missed > 0))
}

/// Runs cargo-mutants over the pure code of the crate, and gives its exit code.
///
/// # Errors
/// When the tool is not installed.
pub fn mutants(root: &Path) -> Result<u8> {
    let has = cargo().args(["mutants", "--version"]).output().is_ok_and(|output| output.status.success());
    ensure!(has, "`cargo mutants` is not installed: `cargo install cargo-mutants`");
    let mut command = cargo();
    command.args(["mutants", "--package", PACKAGE, "--output"]).arg(target_dir(root));
    for file in PURE {
        command.args(["--file", &format!("{CRATE}/src/{file}")]);
    }
    Ok(workspace::code(workspace::status(command.args(["--", "--release"]).current_dir(root))?))
}

/// A copy of the crate in a workspace of its own.
struct Copy {
    folder: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn of(root: &Path) -> Result<Self> {
        let place = target_dir(root).join("mistakes");
        let copy = Self { folder: place.join("copy"), target: place.join("target") };
        if copy.folder.exists() {
            fs::remove_dir_all(&copy.folder)?;
        }
        copy_folder(&root.join(CRATE), &copy.folder.join(CRATE))?;
        let whole = fs::read_to_string(root.join("Cargo.toml"))?;
        fs::write(copy.folder.join("Cargo.toml"), alone(&whole)?)?;
        for file in ["Cargo.lock", "rust-toolchain.toml"] {
            fs::copy(root.join(file), copy.folder.join(file)).with_context(|| file.to_string())?;
        }
        Ok(copy)
    }

    /// Whether a test passes here. A test that does not build, or is not there, is an error.
    fn passes(&self, target: &str, test: &str) -> Result<bool> {
        let mut build = self.cargo(target);
        let built =
            build.arg("--no-run").output().with_context(|| format!("cannot start `{}`", workspace::shown(&build)))?;
        ensure!(built.status.success(), "it does not build:\n{}", String::from_utf8_lossy(&built.stderr));
        let mut run = self.cargo(target);
        // In a process of its own: a thread that hangs in a model cannot always be unwound, and may abort.
        let ran = run.args(["--", "--exact", test]).env("RUST_BACKTRACE", "0").output()?;
        let said = String::from_utf8_lossy(&ran.stdout);
        ensure!(said.contains("running 1 test"), "{target} has no test {test}");
        Ok(ran.status.success())
    }

    fn cargo(&self, target: &str) -> Command {
        let mut command = cargo();
        command.args(["test", "--quiet", "--release", "--package", PACKAGE, "--test", target]);
        // With it the crate's locks work inside a model only.
        if target == "model" {
            command.args(["--features", "loom"]);
        }
        // A mistake may leave something unused.
        command.env("RUSTFLAGS", "--cap-lints=warn").env("CARGO_TARGET_DIR", &self.target).current_dir(&self.folder);
        command
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &place)?;
        } else {
            fs::copy(&path, &place)?;
        }
    }
    Ok(())
}

/// The workspace's manifest with one member.
fn alone(manifest: &str) -> Result<String> {
    let mut lines = Vec::new();
    for line in manifest.lines() {
        match line.split(" = ").next() {
            Some("members") => lines.push(format!("members = [\"{CRATE}\"]")),
            Some("default-members" | "exclude") => {}
            // Profiles of packages that are not here.
            _ if line.starts_with("[profile.") => break,
            _ => lines.push(line.into()),
        }
    }
    ensure!(lines.iter().any(|line| line.contains(CRATE) && line.starts_with("members")), "no members in the manifest");
    Ok(lines.join("\n") + "\n")
}

fn changed(text: &str, mistake: &Mistake) -> Result<String> {
    let count = text.matches(&mistake.right).count();
    ensure!(count == 1, "{}: the text to be changed stands in {} {count} times", mistake.name, mistake.file);
    Ok(text.replacen(&mistake.right, &mistake.wrong, 1))
}

fn parse(text: &str) -> Result<Vec<Mistake>> {
    let mut mistakes = Vec::new();
    for block in text.split("\n== ").skip(1) {
        let (head, rest) = block.split_once("\n-- right\n").context("a mistake without `-- right`")?;
        let (right, wrong) = rest.split_once("\n-- wrong\n").context("a mistake without `-- wrong`")?;
        let mut lines = head.lines();
        let name = lines.next().and_then(|line| line.split_once(": ")).context("a mistake without a name")?.0;
        let (mut file, mut found_by) = (None, Vec::new());
        for line in lines {
            match (line.strip_prefix("file "), line.strip_prefix("found by ").and_then(|by| by.split_once(' '))) {
                (Some(path), _) => file = Some(path.to_string()),
                (_, Some((target, test))) => found_by.push((target.to_string(), test.to_string())),
                _ => bail!("{name}: what is `{line}`?"),
            }
        }
        ensure!(!found_by.is_empty(), "{name}: nothing has to find it");
        mistakes.push(Mistake {
            name: name.into(),
            file: file.with_context(|| format!("{name}: in which file?"))?,
            found_by,
            right: right.trim_end().into(),
            wrong: wrong.trim_end().into(),
        });
    }
    ensure!(!mistakes.is_empty(), "the list holds no mistake");
    Ok(mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_the_list_can_be_made_and_is_one() {
        let root = workspace::root().unwrap();
        let text = fs::read_to_string(root.join(CRATE).join("tests/mistakes.txt")).unwrap();
        for mistake in parse(&text).unwrap() {
            let right = fs::read_to_string(root.join(CRATE).join(&mistake.file)).unwrap();
            assert_ne!(changed(&right, &mistake).unwrap(), right, "{}", mistake.name);
            for (target, test) in &mistake.found_by {
                let tests = fs::read_to_string(root.join(CRATE).join(format!("tests/{target}.rs"))).unwrap();
                assert!(tests.contains(&format!("{test}(")), "{}: {target} has no test {test}", mistake.name);
            }
        }
    }

    #[test]
    fn a_list_that_says_too_little_is_refused() {
        let whole = "words\n\n== A: why\nfile src/a.rs\nfound by model b\n-- right\n1\n-- wrong\n2\n";
        let found = parse(whole).unwrap();
        assert_eq!((found[0].right.as_str(), found[0].wrong.as_str()), ("1", "2"));
        for part in ["file src/a.rs\n", "found by model b\n", "\n-- wrong\n2", "== A: why\n"] {
            assert!(parse(&whole.replacen(part, "", 1)).is_err(), "{part}");
        }
    }

    #[test]
    fn a_text_that_is_not_there_once_is_refused() {
        let mistake = parse("\n== A: why\nfile a\nfound by b c\n-- right\n1\n-- wrong\n2").unwrap().remove(0);
        assert_eq!(changed("010", &mistake).unwrap(), "020");
        assert!(changed("11", &mistake).is_err() && changed("0", &mistake).is_err());
    }

    #[test]
    fn the_copy_has_one_member() {
        let root = workspace::root().unwrap();
        let manifest = alone(&fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
        assert_eq!(manifest.lines().filter(|line| line.starts_with("members")).count(), 1);
        assert!(!manifest.contains("default-members") && manifest.contains("[workspace.dependencies]"));
    }
}
