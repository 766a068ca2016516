//! Which steps of `ci` were green on this machine, and with which inputs.
//!
//! A mark is a file beside the build output. Its key is the digest of what decides the result: the tracked files under the
//! step's inputs as Git lists them, the compiler, and the processor, by which kernels are chosen. A tree with changes that
//! are not committed has no key, so its steps run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::workspace::target_dir;

/// A step with given inputs on this machine.
#[derive(Debug)]
pub struct Mark {
    file: PathBuf,
    key: String,
}

impl Mark {
    /// The mark of a step whose result depends on the tracked files under `inputs` (Git's path patterns from the root).
    ///
    /// `None` where there are no inputs, the tree has changes under them, or Git cannot tell.
    pub fn of(root: &Path, step: &str, inputs: &[&str]) -> Option<Self> {
        if inputs.is_empty() {
            return None;
        }
        let git = |words: &[&str]| said(Command::new("git").args(words).arg("--").args(inputs).current_dir(root));
        if !git(&["status", "--porcelain", "--untracked-files=all"])?.is_empty() {
            return None;
        }
        let files = git(&["ls-files", "--stage"])?;
        if files.is_empty() {
            return None;
        }
        let compiler = said(Command::new("rustc").arg("-vV").current_dir(root))?;
        let text = format!("{step}\n{compiler}\n{}\n{files}", processor());
        let key = digest(root, &text)?;
        Some(Self { file: target_dir(root).join("green").join(step), key })
    }

    /// When the step was last green with these inputs, as the words of a sentence.
    pub fn last(&self) -> Option<String> {
        let found = std::fs::read_to_string(&self.file).ok()?;
        if found.trim() != self.key {
            return None;
        }
        let age = SystemTime::now().duration_since(std::fs::metadata(&self.file).ok()?.modified().ok()?).ok()?;
        Some(match age.as_secs() / 60 {
            minutes @ 0..120 => format!("{minutes} minutes ago"),
            minutes if minutes < 48 * 60 => format!("{} hours ago", minutes / 60),
            minutes => format!("{} days ago", minutes / (24 * 60)),
        })
    }

    /// Notes that the step is green with these inputs. Where the file cannot be written the step runs again next time.
    pub fn keep(&self) {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&self.file, &self.key));
    }
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The name and instruction sets of the processor, where the system says them.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    [first("model name"), first("flags"), first("Features")].join("\n")
}

/// The digest of a text, by Git.
fn digest(root: &Path, text: &str) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["hash-object", "--stdin"]).current_dir(root).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = git.stderr(Stdio::null()).spawn().ok()?;
    child.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;

    /// A repository with one committed file in each of two folders.
    fn repository(label: &str) -> Scratch {
        let scratch = Scratch::new(label).unwrap();
        for folder in ["a", "b"] {
            std::fs::create_dir(scratch.path().join(folder)).unwrap();
            std::fs::write(scratch.path().join(folder).join("file"), "one").unwrap();
        }
        git(&scratch, "init --quiet");
        commit(&scratch);
        scratch
    }

    fn git(scratch: &Scratch, words: &str) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(words.split(' '));
        assert!(git.current_dir(scratch.path()).stdout(Stdio::null()).status().unwrap().success(), "{words}");
    }

    fn commit(scratch: &Scratch) {
        git(scratch, "add -A");
        git(scratch, "commit --quiet -m x");
    }

    fn mark(scratch: &Scratch, step: &str) -> Option<Mark> {
        let mut mark = Mark::of(scratch.path(), step, &["a"])?;
        // Not in the build folder of the tests.
        mark.file = scratch.path().join("green").join(step);
        Some(mark)
    }

    #[test]
    fn a_step_is_green_until_one_of_its_inputs_changes() {
        let scratch = repository("green");
        assert!(mark(&scratch, "s").unwrap().last().is_none(), "never run");
        mark(&scratch, "s").unwrap().keep();
        assert!(mark(&scratch, "s").unwrap().last().is_some());
        std::fs::write(scratch.path().join("b/file"), "two").unwrap();
        commit(&scratch);
        assert!(mark(&scratch, "s").unwrap().last().is_some(), "not one of its inputs");
        std::fs::write(scratch.path().join("a/file"), "two").unwrap();
        commit(&scratch);
        assert!(mark(&scratch, "s").unwrap().last().is_none(), "one of its inputs");
    }

    #[test]
    fn a_tree_with_changes_has_no_mark() {
        let scratch = repository("green-dirty");
        std::fs::write(scratch.path().join("a/more"), "untracked").unwrap();
        assert!(mark(&scratch, "s").is_none());
    }

    #[test]
    fn a_step_without_inputs_and_a_folder_without_git_have_no_mark() {
        let scratch = Scratch::new("green-none").unwrap();
        assert!(Mark::of(scratch.path(), "s", &[]).is_none());
        assert!(mark(&scratch, "s").is_none());
    }
}
