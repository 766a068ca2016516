//! Where things are, and how another program is run from here.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// The root of the workspace, which Cargo names when it runs us.
///
/// Asked when we run, not when we are built: two checkouts that share a target folder share the binary as well, and a
/// path from build time would send the verbs of one to the files of the other.
///
/// # Errors
/// When the program was not started by Cargo.
pub fn root() -> Result<PathBuf> {
    let given = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let given = given.filter(|folder| folder.ends_with("xtask") && folder.join("../Cargo.toml").is_file());
    let root = given.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    root.context("start it as `cargo xtask`: Cargo says which checkout is meant")
}

/// Where build output goes: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Where `.ci/run` installs programs.
pub fn tools_dir() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("omniburn/tools/bin"))
}

/// True on a build server, where nothing may be left out for want of a tool.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// The Cargo that runs us, so that a `+toolchain` on the command line is kept.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    scrub(&mut command);
    command
}

/// Takes from a command what `cargo run` put into our environment.
///
/// Some build scripts ask to run again when these variables change, so a child that inherited them would rebuild what
/// a plain `cargo test` has just built.
pub fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let envs = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut words: Vec<String> =
        envs.map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy()))).collect();
    let program = Path::new(command.get_program());
    words.push(program.file_stem().unwrap_or(command.get_program()).to_string_lossy().into_owned());
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command with our own input and output, and gives its exit status.
///
/// # Errors
/// When the program cannot be started at all.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start `{}`", shown(command)))
}

/// A child's exit code as ours; a child killed by a signal counts as a failure.
pub fn code(status: ExitStatus) -> u8 {
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

/// Runs a command and gives what it wrote to standard output.
///
/// # Errors
/// When it cannot be started, fails, or writes something other than UTF-8.
#[cfg(test)]
pub fn output(command: &mut Command) -> Result<String> {
    let found = command.stderr(Stdio::inherit()).output();
    let found = found.with_context(|| format!("cannot start `{}`", shown(command)))?;
    anyhow::ensure!(found.status.success(), "`{}` failed: {}", shown(command), found.status);
    String::from_utf8(found.stdout).with_context(|| format!("`{}` wrote something other than UTF-8", shown(command)))
}

/// Runs a command, passing its standard output on as it comes, and gives status and text.
///
/// Bytes are passed on as they arrive, not line by line: a slow test shows its name before it ends.
///
/// # Errors
/// When the program cannot be started or its output cannot be read.
pub fn tee(command: &mut Command) -> Result<(ExitStatus, String)> {
    use std::io::Write;

    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    let mut pipe = child.stdout.take().expect("standard output was piped above");
    let mut text = Vec::new();
    let mut chunk = [0; 8192];
    let read = loop {
        match pipe.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                text.extend_from_slice(&chunk[..n]);
                // Whoever reads us may have gone; the child's result still counts.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(&chunk[..n]).and_then(|()| out.flush());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let status = child.wait().context("waiting for the child")?;
    read.with_context(|| format!("reading what `{}` wrote", shown(command)))?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// A folder of its own under the system's temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a fresh folder; `label` is part of its name.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(label: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("omniburn-{label}-{}-{count}", std::process::id()));
        // A folder left by a killed process of the same number is not ours to trust.
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it being gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.args(["test", "two words", "it's"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), r"RUSTDOCFLAGS='-D warnings' cargo test 'two words' 'it'\''s'");
    }

    #[test]
    fn the_root_is_that_of_the_checkout_whose_tests_run() {
        let root = root().unwrap();
        assert_eq!(root.join("xtask"), Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()));
        assert!(root.join("deny.toml").is_file());
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = status(&mut Command::new("no-such-program-of-ours")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-of-ours"), "{error}");
    }

    #[test]
    fn tee_gives_the_text_and_the_exit_code() {
        let (status, text) = tee(Command::new("bash").args(["-c", "echo one; exit 3"])).unwrap();
        assert_eq!((code(status), text.as_str()), (3, "one\n"));
    }

    #[test]
    fn a_scratch_folder_is_gone_afterwards() {
        let scratch = Scratch::new("gone").unwrap();
        let path = scratch.path().to_path_buf();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
