//! `sanitize`: the kernels' tests under AddressSanitizer, and under Miri where it is installed.
//!
//! Both need a nightly toolchain; the crate they build holds the kernels without Burn, so that it takes seconds.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::fuzz::nightly_host;
use crate::workspace::{scrub, shown, status};

/// What Miri interprets of the tests: properties over hundreds of shapes would take it hours.
const MIRI_TESTS: [&str; 1] = ["results_in_bf16_are_those_in_f32_rounded"];

/// Runs both, and says what was not run and why. True if nothing was found.
///
/// # Errors
/// When there is no nightly toolchain, or a program cannot be started.
pub fn run(root: &Path) -> Result<u8> {
    let folder = root.join("crates/kernels/sanitize");
    let Some(host) = nightly_host() else {
        bail!("no nightly toolchain: `rustup toolchain install nightly` gets one");
    };
    // The same versions as everything else.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).context("copying Cargo.lock")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let cargo = |words: &[&str]| {
        let mut command = Command::new("cargo");
        scrub(&mut command);
        command.arg("+nightly").args(words).current_dir(&folder).env_remove("CARGO");
        command
    };
    let mut address = cargo(&["test", "--target", &host]);
    // Leaks are looked for with a debugger's rights, which not every machine gives.
    address.env("RUSTFLAGS", "-Zsanitizer=address").env("ASAN_OPTIONS", "detect_leaks=0");
    address.env("CARGO_TARGET_DIR", target.join("sanitize"));
    let mut clean = said("AddressSanitizer", &mut address)?;

    let installed = cargo(&["miri", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if installed.is_ok_and(|status| status.success()) {
        for name in MIRI_TESTS {
            let mut miri = cargo(&["miri", "test", "--test", "cpu", "--", name]);
            miri.env("CARGO_TARGET_DIR", target.join("miri"));
            clean &= said("Miri", &mut miri)?;
        }
    } else {
        println!("Miri: not run: it is not installed; `rustup component add miri --toolchain nightly` gets it");
    }
    Ok(u8::from(!clean))
}

fn said(what: &str, command: &mut Command) -> Result<bool> {
    let passed = status(command)?.success();
    println!("{what}: {} (`{}`)", if passed { "nothing found" } else { "FOUND" }, shown(command));
    Ok(passed)
}
