//! Which file a path means, and what may be written there.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::OutputError;
use crate::identity::{FileId, resolved};
use crate::part::parent;

/// As many links one after another as Linux follows.
const MOST_LINKS: usize = 40;

/// Where a file goes.
#[derive(Debug, Clone)]
pub struct Destination {
    /// As it was given.
    pub(crate) named: PathBuf,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) enum At {
    /// A plain file, there or not: the path that the links lead to.
    File { path: PathBuf, there: Option<Metadata> },
    /// A pipe or a character device.
    Stream { path: PathBuf },
    /// A descriptor that some process holds open, such as `/dev/fd/3`: its file is neither replaced nor cut.
    Descriptor { path: PathBuf },
    /// This process's standard output.
    Stdout,
    /// This process's standard error.
    Stderr,
}

impl Destination {
    /// Finds what a path leads to, and touches nothing.
    ///
    /// # Errors
    /// [`OutputError`] for what can never be written as a file or a stream: a folder, a block device, a socket, links in a
    /// circle, a name in a folder that is not there; and for a file that is read-only or that this user may not write.
    pub fn of(path: &Path) -> Result<Self, OutputError> {
        let named = path.to_path_buf();
        let folder = || OutputError::Folder { path: named.clone() };
        if path.as_os_str().as_encoded_bytes().last().is_some_and(|&last| std::path::is_separator(char::from(last))) {
            return Err(folder());
        }
        if is_reserved_name(path) {
            return Ok(Self { at: At::Stream { path: named.clone() }, named });
        }
        let end = follow(path)?;
        if end.file_name().is_none() {
            return Err(if end.is_dir() { folder() } else { OutputError::NotAName { path: named } });
        }
        let at = match fs::metadata(&end) {
            Ok(about) if about.is_dir() => return Err(folder()),
            Ok(about) => match (descriptor(&end), stream(&about)) {
                (Some(Descriptor { own: true, number: 1 }), _) => At::Stdout,
                (Some(Descriptor { own: true, number: 2 }), _) => At::Stderr,
                (_, Some(Err(found))) => return Err(OutputError::NotWritable { path: named, found }),
                (Some(_), _) => At::Descriptor { path: end },
                (None, Some(Ok(()))) => At::Stream { path: end },
                (None, None) => {
                    may_be_written(&end, &about, &named)?;
                    At::File { path: end, there: Some(about) }
                }
            },
            Err(e) if e.kind() == ErrorKind::NotFound && descriptor(&end).is_none() => {
                let folder = parent(&end);
                if !folder.is_dir() {
                    return Err(OutputError::NoFolder { path: named, folder });
                }
                At::File { path: end, there: None }
            }
            Err(e) => return Err(OutputError::io(named)(e)),
        };
        Ok(Self { named, at })
    }

    /// The path as it was given.
    #[must_use]
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// The plain file that is there; `None` for one that is not there yet, and for pipes and devices.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        match &self.at {
            At::File { path, there } => there.as_ref().and_then(|about| FileId::of_metadata(about, path)),
            At::Stream { path } | At::Descriptor { path } => FileId::of(path),
            At::Stdout => standard_file(&io::stdout()),
            At::Stderr => standard_file(&io::stderr()),
        }
    }

    /// The folder that the file lies in, links resolved; `None` for what is no plain file.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.at {
            At::File { path, .. } => Some(resolved(&parent(path))),
            _ => None,
        }
    }

    /// Where the file lies, links resolved; `None` for what is no plain file.
    #[must_use]
    pub fn resolved(&self) -> Option<PathBuf> {
        match &self.at {
            At::File { path, .. } => Some(self.folder()?.join(path.file_name()?)),
            _ => None,
        }
    }

    /// Whether what is written here goes to this process's standard output, by whichever name.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self.at, At::Stdout) || self.id().is_some_and(|id| standard_file(&io::stdout()) == Some(id))
    }

    /// Whether two destinations are one file or one pipe, so that one would overwrite or break into the other. Character
    /// devices, such as `/dev/null`, take any number of writers.
    #[must_use]
    pub fn is_same(&self, other: &Destination) -> bool {
        match (&self.at, &other.at) {
            (At::Stdout, At::Stdout) | (At::Stderr, At::Stderr) => true,
            (At::Stream { path: a }, At::Stream { path: b }) => is_pipe(a) && resolved(a) == resolved(b),
            (At::File { there: None, .. }, At::File { there: None, .. }) => self.resolved() == other.resolved(),
            _ => self.id().is_some() && self.id() == other.id(),
        }
    }

    /// Whether it is written straight in, and so holds half of its content while that is made.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        !matches!(self.at, At::File { .. })
    }
}

/// The plain file behind one of this process's own streams, where it is one.
#[cfg(unix)]
pub fn standard_file(stream: &impl std::os::fd::AsFd) -> Option<FileId> {
    FileId::of_open(&stream.as_fd().try_clone_to_owned().ok()?.into())
}

/// The plain file behind one of this process's own streams: not known here.
#[cfg(not(unix))]
pub fn standard_file<T>(_: &T) -> Option<FileId> {
    None
}

/// The end of a chain of links, whether anything is there or not; stops at a descriptor, whose link is not one of names.
pub(crate) fn follow(path: &Path) -> Result<PathBuf, OutputError> {
    let mut at = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if !at.is_symlink() || descriptor(&at).is_some() {
            return Ok(at);
        }
        let to = fs::read_link(&at).map_err(OutputError::io(path))?;
        at = at.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(OutputError::Circle { path: path.to_path_buf() })
}

/// An entry of a folder of open descriptors.
struct Descriptor {
    /// Whether it is one of this process.
    own: bool,
    number: u32,
}

/// `/proc/<pid>/fd/N` by any name, `/dev/fd/N` where it is no link to there.
fn descriptor(path: &Path) -> Option<Descriptor> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = fs::canonicalize(parent(path)).ok()?;
    if folder == Path::new("/dev/fd") {
        return Some(Descriptor { own: true, number });
    }
    let parts: Vec<&str> = folder.to_str()?.split('/').collect();
    match parts[..] {
        ["", "proc", pid, "fd"] | ["", "proc", pid, "task", _, "fd"] => {
            Some(Descriptor { own: pid.parse() == Ok(std::process::id()), number })
        }
        _ => None,
    }
}

/// For what is no plain file: whether bytes can be written straight in, or what it is.
#[cfg(unix)]
fn stream(about: &Metadata) -> Option<Result<(), &'static str>> {
    use std::os::unix::fs::FileTypeExt;
    let kind = about.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_fifo() || kind.is_char_device() => Some(Ok(())),
        () if kind.is_block_device() => Some(Err("a block device (a disk)")),
        () if kind.is_socket() => Some(Err("a socket")),
        () => Some(Err("no file")),
    }
}

#[cfg(not(unix))]
fn stream(about: &Metadata) -> Option<Result<(), &'static str>> {
    (!about.is_file()).then_some(Ok(()))
}

#[cfg(unix)]
fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_pipe(_: &Path) -> bool {
    false
}

/// Names that are devices in every folder of Windows.
fn is_reserved_name(path: &Path) -> bool {
    const NAMES: [&str; 4] = ["CON", "NUL", "PRN", "AUX"];
    cfg!(windows) && path.to_str().is_some_and(|path| NAMES.iter().any(|name| name.eq_ignore_ascii_case(path)))
}

/// Refuses a file that nobody may write, though its folder would let it be replaced: root, too, means a read-only file to
/// stay. And one that this user may not write.
fn may_be_written(path: &Path, about: &Metadata, named: &Path) -> Result<(), OutputError> {
    if about.permissions().readonly() {
        return Err(OutputError::ReadOnly { path: named.to_path_buf(), mode: mode(about) });
    }
    File::options().write(true).open(path).map(drop).map_err(OutputError::io(named))
}

#[cfg(unix)]
fn mode(about: &Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0o444
}

/// Gives a new file or folder the owner, as far as this user may, and the permissions of the one it will replace. Where
/// the group cannot be kept, the new one's group may do no more than anybody.
#[cfg(unix)]
pub(crate) fn keep_owner_and_mode(new: &Path, old: &Metadata) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let Ok(about) = fs::metadata(new) else { return };
    let mut bits = mode(old) & if old.is_dir() { 0o7777 } else { 0o777 };
    if (about.uid(), about.gid()) != (old.uid(), old.gid()) && chown(new, Some(old.uid()), Some(old.gid())).is_err() {
        // Somebody else's file in a group of this user's.
        let group_kept = about.gid() == old.gid() || chown(new, None, Some(old.gid())).is_ok();
        if !group_kept {
            bits = bits & !0o070 | (bits & 0o007) << 3 & bits;
        }
    }
    // What cannot be kept is no reason to lose the results.
    let _ = fs::set_permissions(new, fs::Permissions::from_mode(bits));
}

#[cfg(not(unix))]
pub(crate) fn keep_owner_and_mode(_: &Path, _: &Metadata) {}
