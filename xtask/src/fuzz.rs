//! `fuzz`: the long run over hostile bytes, with libFuzzer and AddressSanitizer on a nightly toolchain.
//!
//! The bodies and their valid files are those of `omniburn-hostile`, which runs them on stable, too; here they are built
//! once and run one after the other, each with its share of the runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{scrub, shown, status, tools_dir};

/// A target with its limit in MiB and its thousandths of all runs.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    limit_mib: u64,
    share: u64,
}

/// Builds the fuzz binary, and runs every target (or the one of a name) for its share of `runs`.
///
/// # Errors
/// When the nightly toolchain or cargo-fuzz is missing, with how to get it, or the build fails.
pub fn run(root: &Path, runs: u64, only: &[String]) -> Result<u8> {
    let folder = root.join("tests/hostile/fuzz");
    let Some(host) = nightly_host() else {
        bail!("no nightly toolchain: `rustup toolchain install nightly` gets one");
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).chain(tools_dir()).collect();
    if !places.iter().any(|dir| dir.join("cargo-fuzz").is_file()) {
        bail!("cargo-fuzz is not installed: `cargo install cargo-fuzz` gets it; it needs a C++ compiler, too");
    }
    // The same versions as everything else; what is missing there is added to the copy.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).context("copying Cargo.lock")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), |dir| root.join(dir));
    let mut build = Command::new("cargo");
    scrub(&mut build);
    build.args(["+nightly", "fuzz", "build", "hostile", "--fuzz-dir", ".", "--target", &host]).current_dir(&folder);
    build.env("PATH", std::env::join_paths(&places)?).env("CARGO_TARGET_DIR", &target).env_remove("CARGO");
    build.env("RUSTC_WRAPPER", folder.join("plain.sh"));
    ensure!(status(&mut build)?.success(), "`{}` failed", shown(&build));
    let binary = target.join(&host).join("release/hostile");

    let corpus = folder.join("corpus");
    fs::create_dir_all(&corpus)?;
    let mut seeds = Command::new(&binary);
    seeds.env("OMNIBURN_HOSTILE_SEEDS", &corpus).stderr(Stdio::null());
    ensure!(status(&mut seeds)?.success(), "`{}` failed", shown(&seeds));
    let rows = rows(&fs::read_to_string(corpus.join("targets.txt"))?)?;
    if let Some(unknown) = only.iter().find(|name| rows.iter().all(|row| row.name != **name)) {
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        bail!("no target is called {unknown}; there are {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for row in rows.iter().filter(|row| only.is_empty() || only.contains(&row.name)) {
        let runs = if only.is_empty() { (runs * row.share).div_ceil(1000) } else { runs };
        if !one(&binary, &folder, row, runs)? {
            failed.push(row.name.as_str());
        }
    }
    println!("{}", if failed.is_empty() { "nothing found".into() } else { format!("FOUND in {}", failed.join(", ")) });
    Ok(u8::from(!failed.is_empty()))
}

/// What the nightly toolchain builds for, if there is one.
pub(crate) fn nightly_host() -> Option<String> {
    let said = Command::new("rustc").args(["+nightly", "-vV"]).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Runs one target; false if it ended with a finding.
fn one(binary: &Path, folder: &Path, row: &Row, runs: u64) -> Result<bool> {
    let (corpus, artifacts) = (folder.join("corpus").join(&row.name), folder.join("artifacts").join(&row.name));
    // The valid files stay apart from what libFuzzer finds on its way.
    let found = folder.join("corpus").join(format!("{}-found", row.name));
    for dir in [&artifacts, &found] {
        fs::create_dir_all(dir)?;
    }
    let mut command = Command::new(binary);
    command.env("OMNIBURN_HOSTILE_TARGET", &row.name);
    // Leaks are looked for with a debugger's rights, which not every machine gives; memory held is bounded anyway.
    command.env("ASAN_OPTIONS", "detect_leaks=0:detect_odr_violation=0:allocator_may_return_null=1");
    command.args(["-print_final_stats=1", "-max_len=32768", "-timeout=60", "-verbosity=0"]);
    command.arg(format!("-runs={runs}"));
    // Twice the limit of the bodies: the sanitizer keeps freed memory for a while.
    command.arg(format!("-rss_limit_mb={}", 2 * row.limit_mib + 1024));
    command.arg(format!("-malloc_limit_mb={}", row.limit_mib));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(&found).arg(&corpus).stdout(Stdio::null());
    let start = Instant::now();
    let passed = status(&mut command)?.success();
    println!(
        "{:<12} {runs:>9} runs {:>8.1} s  {}",
        row.name,
        start.elapsed().as_secs_f64(),
        ["FOUND", "clean"][usize::from(passed)]
    );
    Ok(passed)
}

fn rows(text: &str) -> Result<Vec<Row>> {
    text.lines()
        .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, limit_mib, share] => {
                Ok(Row { name: name.to_owned(), limit_mib: limit_mib.parse()?, share: share.parse()? })
            }
            _ => bail!("`{line}` is no target with its limit and share"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_targets_is_read_and_a_wrong_line_is_named() {
        let row = Row { name: "png".into(), limit_mib: 2560, share: 40 };
        assert_eq!(rows("png 2560 40\n").unwrap(), [row]);
        assert!(rows("png 2560").unwrap_err().to_string().contains("png 2560"));
        assert!(rows("png much 40").is_err());
    }
}
