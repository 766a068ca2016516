//! Which files lie below a folder: rules of ignore files, hidden and noise folders left out, links not followed.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ignore::overrides::{Override, OverrideBuilder};
use ignore::{DirEntry, WalkBuilder};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, IndexError};
use crate::kind::Kind;
use crate::store::{FileStat, bytes_of_path};

/// The ignore file of this program, beside `.gitignore`.
const IGNORE_FILE: &str = ".omniburnignore";
/// Folders of packages and builds: made by machines, for machines.
const NOISE: &[&str] =
    &["node_modules", "bower_components", "__pycache__", "site-packages", "venv", "DerivedData", "Pods"];
/// Begins the file that marks a folder as a cache.
///
/// # Source
/// Cache Directory Tagging Specification, bford.info/cachedir.
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What is taken of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Patterns as in `.gitignore`; with some, only what matches one is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of what is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Names of the kinds that are taken; all where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Bytes of a file at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

impl Rules {
    /// True for a kind that is taken.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind.name())
    }
}

/// A folder that is kept true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its path, absolute and without links.
    pub path: PathBuf,
    /// What is taken of it.
    pub rules: Rules,
}

impl Root {
    /// Refuses rules that cannot be read.
    ///
    /// # Errors
    /// [`IndexError::Pattern`] naming the pattern.
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        self.patterns().map(drop)
    }

    fn patterns(&self) -> Result<Override, IndexError> {
        let mut patterns = OverrideBuilder::new(&self.path);
        let excluded: Vec<String> = self.rules.exclude.iter().map(|glob| format!("!{glob}")).collect();
        for glob in self.rules.include.iter().chain(&excluded) {
            patterns.add(glob).map_err(|e| IndexError::Pattern(format!("the pattern `{glob}` cannot be read: {e}")))?;
        }
        patterns.build().map_err(|e| IndexError::Pattern(e.to_string()))
    }
}

/// True for a path below a folder that a walk leaves out whatever its rules: hidden, or in a folder of packages. What says
/// which files are left out is none of those.
pub(crate) fn is_left_out(path: &Path, root: &Path) -> bool {
    let Ok(within) = path.strip_prefix(root) else { return false };
    let speaks = path.file_name().is_some_and(|name| name == IGNORE_FILE || name == ".gitignore" || name == ".ignore");
    let mut components = within.components().map(|component| component.as_os_str().to_string_lossy());
    !speaks && components.any(|name| name.starts_with('.') || NOISE.contains(&&*name))
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Crawled {
    pub files: Vec<FileStat>,
    /// Folders that could not be looked into; nothing is said of what lies in them.
    pub blocked: Vec<(PathBuf, Fault)>,
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    }
}

/// A file as a look without opening it finds it.
pub(crate) fn stat_of(path: &Path, about: &std::fs::Metadata) -> FileStat {
    FileStat {
        path: bytes_of_path(path),
        size: i64::try_from(about.len()).unwrap_or(i64::MAX),
        mtime_ns: about.modified().map_or(0, nanoseconds),
        seen_ns: nanoseconds(SystemTime::now()),
    }
}

/// Walks a folder.
///
/// # Errors
/// [`IndexError::Pattern`] for a pattern that is none; [`IndexError::Interrupted`]. A folder that cannot be read is no error.
pub(crate) fn crawl(root: &Root, interrupted: &dyn Fn() -> bool) -> Result<Crawled, IndexError> {
    let mut walk = WalkBuilder::new(&root.path);
    walk.follow_links(false)
        .hidden(true)
        .parents(true)
        .git_ignore(true)
        .git_exclude(true)
        // What the user ignores everywhere is read from the environment, which a library does not look at.
        .git_global(false)
        .require_git(false)
        .ignore(true)
        .add_custom_ignore_filename(IGNORE_FILE)
        .overrides(root.patterns()?)
        .filter_entry(|entry| entry.depth() == 0 || !is_noise(entry));
    let mut found = Crawled::default();
    for entry in walk.build() {
        if interrupted() {
            return Err(IndexError::Interrupted);
        }
        match entry {
            Err(error) => {
                let (path, fault) = blocked(&error, &root.path);
                found.blocked.push((path, fault));
            }
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => match entry.metadata() {
                Ok(about) if root.rules.max_size.is_some_and(|most| about.len() > most) => {}
                Ok(about) => found.files.push(stat_of(entry.path(), &about)),
                // Gone since its folder was read.
                Err(error) => tracing::debug!("{}: {error}", entry.path().display()),
            },
            Ok(_) => {}
        }
    }
    Ok(found)
}

/// The folder that an error of the walk is about.
fn blocked(error: &ignore::Error, root: &Path) -> (PathBuf, Fault) {
    fn path_of(error: &ignore::Error) -> Option<PathBuf> {
        match error {
            ignore::Error::WithPath { path, .. } => Some(path.clone()),
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
            ignore::Error::Loop { child, .. } => Some(child.clone()),
            ignore::Error::Partial(errors) => errors.iter().find_map(path_of),
            _ => None,
        }
    }
    let fault = Fault::new("not_found", format!("the folder cannot be read: {error}"));
    (path_of(error).unwrap_or_else(|| root.to_path_buf()), fault)
}

fn is_noise(entry: &DirEntry) -> bool {
    if !entry.file_type().is_some_and(|kind| kind.is_dir()) {
        return false;
    }
    let name = entry.file_name().to_string_lossy();
    NOISE.contains(&&*name) || has_cache_tag(entry.path())
}

fn has_cache_tag(folder: &Path) -> bool {
    let mut head = [0; CACHE_TAG.len()];
    let read = std::fs::File::open(folder.join("CACHEDIR.TAG"))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head == CACHE_TAG
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(root: &Path, rules: Rules) -> Vec<String> {
        let found = crawl(&Root { path: root.into(), rules }, &|| false).unwrap();
        let mut names: Vec<String> = found
            .files
            .iter()
            .map(|file| String::from_utf8_lossy(&file.path[root.as_os_str().len() + 1..]).into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn ignored_hidden_and_noise_files_are_left_out_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [
            "a.txt",
            "b/c.txt",
            "b/.hidden",
            ".git/config",
            "node_modules/x.js",
            "out/y.txt",
            "cache/z.txt",
            "b/big.bin",
            "secret/k.txt",
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        fs::write(root.join(".gitignore"), "out/\n").unwrap();
        fs::write(root.join(".omniburnignore"), "secret\n").unwrap();
        fs::write(root.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&root, root.join("b/loop")).unwrap();
        assert_eq!(names(&root, Rules::default()), ["a.txt", "b/big.bin", "b/c.txt"]);
        let only = Rules { include: vec!["*.txt".into()], exclude: vec!["b/c.*".into()], ..Rules::default() };
        assert_eq!(names(&root, only), ["a.txt"]);
        assert_eq!(names(&root, Rules { max_size: Some(5), ..Rules::default() }), ["a.txt"]);
    }

    #[test]
    fn changes_of_what_is_left_out_do_not_count_and_those_of_ignore_files_do() {
        let root = Path::new("/files/.u");
        let out = |path: &str| is_left_out(&root.join(path), root);
        assert!(out(".cache/x") && out("a/.x") && out("a/node_modules/b/c.js"));
        assert!(!out("a/b.txt") && !out("") && !out(".gitignore") && !out("a/.omniburnignore"));
        assert!(!is_left_out(Path::new("/elsewhere/.x"), root));
    }

    #[test]
    fn a_pattern_that_is_none_is_named_and_a_walk_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let root = |include: &str| Root {
            path: folder.path().into(),
            rules: Rules { include: vec![include.into()], ..Rules::default() },
        };
        let error = crawl(&root("a{b"), &|| false).unwrap_err();
        assert!(error.to_string().contains("a{b"), "{error}");
        assert!(matches!(crawl(&root("*"), &|| true), Err(IndexError::Interrupted)));
    }
}
