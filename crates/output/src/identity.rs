//! Whether two paths are one file, whatever links and names lead to it.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// A file as the operating system tells it from others: device and inode on Unix, the resolved path elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileId(Id);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Id {
    #[cfg_attr(not(unix), expect(dead_code, reason = "the standard library has no stable file index there"))]
    Inode(u64, u64),
    #[cfg_attr(unix, expect(dead_code, reason = "inodes know hard links, too"))]
    Path(PathBuf),
}

impl FileId {
    /// The plain file that a path leads to, through links; `None` for anything else and for what cannot be seen.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok().filter(Metadata::is_file)?;
        Self::of_metadata(&about, path)
    }

    /// The plain file that an open stream, such as standard output, leads to.
    #[must_use]
    pub fn of_open(file: &fs::File) -> Option<Self> {
        let about = file.metadata().ok().filter(Metadata::is_file)?;
        #[cfg(unix)]
        return Self::of_metadata(&about, Path::new(""));
        // Without a path there is nothing to compare.
        #[cfg(not(unix))]
        {
            let _ = about;
            None
        }
    }

    #[cfg(unix)]
    pub(crate) fn of_metadata(about: &Metadata, _: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self(Id::Inode(about.dev(), about.ino())))
    }

    #[cfg(not(unix))]
    pub(crate) fn of_metadata(_: &Metadata, path: &Path) -> Option<Self> {
        fs::canonicalize(path).ok().map(|path| Self(Id::Path(path)))
    }
}

/// A path with all links on the way resolved, also where its last parts are not there yet.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for ancestor in absolute.ancestors() {
        if let Ok(real) = fs::canonicalize(ancestor) {
            let rest = absolute.strip_prefix(ancestor).expect("an ancestor is a prefix");
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_every_name_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "x").unwrap();
        fs::write(at("b"), "x").unwrap();
        assert_eq!(FileId::of(&at("a")), FileId::of(&at("./a")));
        assert_ne!(FileId::of(&at("a")), FileId::of(&at("b")));
        assert_eq!((FileId::of(&at("none")), FileId::of(folder.path())), (None, None));
        #[cfg(unix)]
        {
            fs::hard_link(at("a"), at("hard")).unwrap();
            std::os::unix::fs::symlink("a", at("soft")).unwrap();
            assert_eq!(FileId::of(&at("hard")), FileId::of(&at("a")));
            assert_eq!(FileId::of(&at("soft")), FileId::of(&at("a")));
            assert_eq!(FileId::of_open(&fs::File::open(at("a")).unwrap()), FileId::of(&at("a")));
        }
    }

    #[test]
    fn links_on_the_way_to_what_is_not_there_yet_are_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(resolved(&folder.path().join("new/one")), real.join("new/one"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(".", folder.path().join("here")).unwrap();
            assert_eq!(resolved(&folder.path().join("here/new")), real.join("new"));
        }
    }
}
