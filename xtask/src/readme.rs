//! The README's main command: found in its text and run as it stands, so that the first thing a reader types works.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, Scratch};

/// The lines of the README's first `sh` block that begins with `cargo run --release`; a line that ends in `\` goes on.
///
/// # Errors
/// When the README cannot be read or holds no such block.
pub fn readme_main_command(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    match main_block(&text) {
        Some(lines) => Ok(lines),
        None => bail!("README.md has no `sh` block that begins with `cargo run --release`"),
    }
}

/// Runs the main command line by line from the root, records going to a temporary folder; gives the failing line.
///
/// # Errors
/// As [`readme_main_command`], or when `bash` cannot be started.
pub fn run(root: &Path) -> Result<Option<String>> {
    let scratch = Scratch::new("readme")?;
    for line in readme_main_command(root)? {
        let line = with_records_in(&line, &scratch.path().display().to_string());
        println!("$ {line}");
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &line]).current_dir(root);
        workspace::scrub(&mut bash);
        if !workspace::status(&mut bash)?.success() {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn main_block(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        if info.trim() != "sh" {
            continue;
        }
        let commands = join_continued(&block);
        if commands.first().is_some_and(|first| first.starts_with("cargo run --release")) {
            return Some(commands);
        }
    }
    None
}

/// Commands without blank lines and comments, each on one line.
fn join_continued(block: &[&str]) -> Vec<String> {
    let mut commands = Vec::new();
    let mut begun = String::new();
    for line in block.iter().map(|line| line.trim()) {
        if begun.is_empty() && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => begun.push_str(part),
            None => commands.push(std::mem::take(&mut begun) + line),
        }
    }
    if !begun.is_empty() {
        commands.push(begun);
    }
    commands
}

/// Puts `folder/` before each word that begins with `records/`, where the README has records go.
fn with_records_in(line: &str, folder: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut word_begins = true;
    for (at, c) in line.char_indices() {
        if word_begins && line[at..].starts_with("records/") {
            text.push_str(folder);
            text.push('/');
        }
        text.push(c);
        word_begins = c.is_whitespace() || matches!(c, '"' | '\'' | '=');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "
# omniburn

```rust
cargo run --release is not a shell command here
```
```sh
cargo install nothing
```
   ```sh
   # first a record, then two vectors
   cargo run --release -- convert tests/golden/x records/tiny --task all   # a tiny one

   cargo run --release -- embed --model=records/tiny \\
     photo.jpg \"a red bicycle\"
   ```
```sh
cargo run --release -- a later block
```
";

    #[test]
    fn the_first_block_that_begins_with_a_release_run_is_the_main_command() {
        let lines = main_block(README).unwrap();
        assert_eq!(
            lines,
            [
                "cargo run --release -- convert tests/golden/x records/tiny --task all   # a tiny one",
                "cargo run --release -- embed --model=records/tiny photo.jpg \"a red bicycle\"",
            ]
        );
    }

    #[test]
    fn a_readme_without_such_a_block_is_an_error() {
        assert_eq!(main_block("```sh\ncargo test\n```\n"), None);
        assert_eq!(main_block("no block at all, cargo run --release"), None);
        let scratch = Scratch::new("readme").unwrap();
        assert!(run(scratch.path()).is_err(), "no README at all");
    }

    #[test]
    fn records_go_to_the_folder_given_and_nothing_else_moves() {
        let line = r#"x convert my-records/a records/b --model=records/b "records/c" tests/records/d"#;
        let moved = r#"x convert my-records/a TMP/records/b --model=TMP/records/b "TMP/records/c" tests/records/d"#;
        assert_eq!(with_records_in(line, "TMP"), moved);
    }

    #[test]
    fn the_line_that_fails_is_named() {
        let scratch = Scratch::new("readme").unwrap();
        let readme = "```sh\ncargo run --release --manifest-path nowhere/Cargo.toml 2> /dev/null\ntrue\n```\n";
        std::fs::write(scratch.path().join("README.md"), readme).unwrap();
        assert!(run(scratch.path()).unwrap().unwrap().contains("nowhere"));
    }
}
