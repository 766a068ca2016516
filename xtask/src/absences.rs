//! Rules of the house that say what is not there, read from the sources.
//!
//! They look at text, so they are rough on purpose: comments and the tests at the end of a file do not count, and what the
//! compiler can enforce is left to it. Each pattern below is written in two halves, so that this file does not match.

use std::path::Path;
use std::process::Command;

use crate::workspace;

/// Rooms that a program links: what they may not do holds wherever they are used.
const LIBRARIES: &[&str] = &[
    "crates/scheduler/src/",
    "crates/kernels/src/",
    "models/src/",
    "crates/media/src/",
    "crates/convert/src/",
    "crates/engine/src/",
    "crates/diagnostics/src/",
    "crates/index/src/",
];

const ENVIRONMENT: &[&str] = &[concat!("std::", "env"), concat!("env::", "var"), concat!("env::", "args")];
const UNSAFE: &[&str] = &[
    concat!("unsafe", " {"),
    concat!("unsafe", " fn"),
    concat!("unsafe", " impl"),
    concat!("unsafe", " trait"),
    concat!("unsafe", " extern"),
    concat!("[unsafe", "("),
];
const PRINT: &[&str] = &[concat!("print", "!("), concat!("println", "!(")];
const IGNORED: &[&str] = &[concat!("#[ign", "ore"), concat!(", ign", "ore")];
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonho", "sted.org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("debian", ".org"),
];

/// A file of the repository: its path from the root, and its text.
pub(crate) struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in_library(&self) -> bool {
        LIBRARIES.iter().any(|library| self.path.starts_with(library))
    }

    /// True where printing is the job: programs, tests, benches, examples, and build scripts, which talk to Cargo so.
    fn may_print(&self) -> bool {
        let rooms = ["crates/cli/", "xtask/", "tests/", "benches/"];
        let folders = ["/tests/", "/benches/", "/examples/"];
        rooms.iter().any(|room| self.path.starts_with(room))
            || folders.iter().any(|folder| self.path.contains(folder))
            || self.path.ends_with("build.rs")
    }

    /// Numbered lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().map(without_comment).enumerate().map(|(i, line)| (i + 1, line))
    }

    /// As [`Source::code`], up to the tests that end the file.
    pub fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let only_in_tests = |line: &str| line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test, ");
        let tests = lines.windows(2).position(|pair| only_in_tests(pair[0]) && pair[1].starts_with("mod tests {"));
        self.code().take(tests.unwrap_or(lines.len()))
    }
}

/// The line up to `//`, unless that belongs to an address.
fn without_comment(line: &str) -> &str {
    let begins = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    begins.map_or(line, |(at, _)| &line[..at])
}

fn found<'a>(
    source: &Source,
    lines: impl Iterator<Item = (usize, &'a str)>,
    patterns: &[&str],
    rule: &str,
) -> Vec<String> {
    let hits = lines.filter(|(_, line)| patterns.iter().any(|pattern| line.contains(pattern)));
    hits.map(|(number, line)| format!("{}:{number}: {rule}: {}", source.path, line.trim())).collect()
}

/// Every place in `sources` that breaks a rule.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut all = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if source.is_in_library() {
            all.extend(found(source, source.shipped_code(), ENVIRONMENT, "a library reads no environment"));
        }
        if !source.path.starts_with("crates/kernels/") {
            all.extend(found(source, source.code(), UNSAFE, "unsafe code lives in kernels"));
        }
        if !source.may_print() {
            all.extend(found(source, source.shipped_code(), PRINT, "a library prints nothing"));
        }
        all.extend(found(source, source.code(), &IGNORED[..1], "no test is switched off"));
        let cfg_ignored = source.code().filter(|(_, line)| line.contains("cfg_attr"));
        all.extend(found(source, cfg_ignored, &IGNORED[1..], "no test is switched off"));
        let is_library_root = source.is_in_library() && source.path.ends_with("src/lib.rs");
        if is_library_root && !source.path.starts_with("crates/kernels/") {
            let forbids = source.code().any(|(_, line)| line.trim() == "#![forbid(unsafe_code)]");
            if !forbids {
                all.push(format!("{}: a library other than kernels says #![forbid(unsafe_code)]", source.path));
            }
        }
    }
    // Cargo itself writes the registry into its lock files.
    for source in sources.iter().filter(|source| source.path.rsplit('/').next() != Some("Cargo.lock")) {
        for (i, line) in source.text.lines().enumerate() {
            let says = |rule: &str| format!("{}:{}: {rule}: {}", source.path, i + 1, line.trim());
            if MACHINE_PATHS.iter().any(|path| begins_a_path(line, path)) {
                all.push(says("a path of one machine"));
            }
            if REGISTRY_HOSTS.iter().any(|host| line.contains(host)) {
                all.push(says("a package registry by its host; name the package, the client knows where"));
            }
        }
    }
    all
}

/// True where `path` stands at the beginning of a path, not in the middle of another.
fn begins_a_path(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "._-}~*)".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside))
}

/// Every file of the repository that is text: tracked ones, and new ones that are not ignored.
pub(crate) fn repository() -> Vec<Source> {
    let root = workspace::root().unwrap();
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let listed = workspace::output(&mut git).unwrap();
    listed.split_terminator('\0').filter_map(|path| read(&root, path)).collect()
}

/// A text file; none when it is binary, or was deleted and still is in the index.
fn read(root: &Path, path: &str) -> Option<Source> {
    let text = String::from_utf8(std::fs::read(root.join(path)).ok()?).ok()?;
    (!text.contains('\0')).then(|| Source { path: path.into(), text })
}

mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> usize {
        violations(&[Source { path: path.into(), text: text.into() }]).len()
    }

    #[test]
    fn the_sources_keep_the_rules_of_the_house() {
        let sources = repository();
        assert!(sources.iter().any(|source| source.path == "Cargo.toml"), "the list of files is empty or elsewhere");
        let found = violations(&sources);
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }

    #[test]
    fn a_library_that_reads_the_environment_is_found() {
        let text = format!("let home = {}::var(\"HOME\");", ENVIRONMENT[0]);
        assert_eq!(broken("crates/engine/src/options.rs", &text), 1);
        assert_eq!(broken("crates/cli/src/main.rs", &text), 0, "the command line may");
        assert_eq!(broken("models/src/capture.rs", &format!("/// Never `{}`.", ENVIRONMENT[0])), 0, "a comment may");
        assert_eq!(
            broken("models/src/capture.rs", &format!("#[cfg(test)]\nmod tests {{\n{text}\n}}")),
            0,
            "a test may"
        );
        let narrower = format!("#[cfg(all(test, unix))]\nmod tests {{\n{text}\n}}");
        assert_eq!(broken("models/src/capture.rs", &narrower), 0, "a test of some builds may");
        let others = format!("#[cfg(unix)]\nmod tests {{\n{text}\n}}");
        assert_eq!(broken("models/src/capture.rs", &others), 1, "what is built without tests may not");
    }

    #[test]
    fn unsafe_code_outside_kernels_is_found_in_tests_too() {
        let text = format!("#[cfg(test)]\nmod tests {{\n{} }}\n}}", UNSAFE[0]);
        assert_eq!(broken("crates/media/src/resize.rs", &text), 1);
        assert_eq!(broken("tests/support/mod.rs", &text), 1);
        assert_eq!(broken("crates/kernels/src/map.rs", &text), 0);
    }

    #[test]
    fn a_library_root_that_does_not_forbid_unsafe_code_is_found() {
        assert_eq!(broken("models/src/lib.rs", "//! Docs.\n"), 1);
        assert_eq!(broken("models/src/lib.rs", "//! Docs.\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(broken("crates/kernels/src/lib.rs", "//! Docs.\n"), 0);
    }

    #[test]
    fn a_library_that_prints_is_found() {
        let text = format!("{}\"here\");", PRINT[1]);
        for path in ["models/src/backbone.rs", "crates/scheduler/src/policy.rs"] {
            assert_eq!(broken(path, &text), 1, "{path}");
            assert_eq!(broken(path, &format!("e{text}")), 1, "{path}, on standard error");
        }
        for path in
            ["crates/cli/src/main.rs", "tests/integration.rs", "crates/engine/examples/embed.rs", "xtask/src/ci.rs"]
        {
            assert_eq!(broken(path, &text), 0, "{path}");
        }
    }

    #[test]
    fn a_test_that_is_switched_off_is_found() {
        assert_eq!(broken("tests/scheduler.rs", &format!("{}]\nfn slow() {{}}", IGNORED[0])), 1);
        assert_eq!(broken("tests/scheduler.rs", &format!("{} = \"slow\"]\nfn slow() {{}}", IGNORED[0])), 1);
        assert_eq!(broken("tests/scheduler.rs", &format!("#[cfg_attr(windows{})]", IGNORED[1])), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_kind_of_file() {
        for path in MACHINE_PATHS {
            assert_eq!(broken("README.md", &format!("see {path}notes")), 1, "{path}");
            assert_eq!(broken("tests/golden/make/text.py", &format!("open(\"{path}x\")")), 1, "{path}");
            assert_eq!(broken("README.md", &format!("see design{path}notes")), 0, "inside another path: {path}");
        }
    }

    #[test]
    fn a_registry_host_is_found_except_in_the_lock_file() {
        for host in REGISTRY_HOSTS {
            assert_eq!(broken("deny.toml", &format!("allow = [\"{host}\"]")), 1, "{host}");
            assert_eq!(broken("Cargo.lock", &format!("source = \"{host}\"")), 0, "{host}");
            assert_eq!(broken("benches/peers/candle/Cargo.lock", &format!("source = \"{host}\"")), 0, "{host}");
        }
    }
}
