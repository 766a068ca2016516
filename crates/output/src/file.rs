//! A file that is complete or not there.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::destination::{At, Destination, keep_owner_and_mode};
use crate::error::OutputError;
use crate::part::{Leftover, is_part_name, parent, part_name, sync_folder};

/// A file that takes its place when it is complete, and leaves nothing behind otherwise. Killed, it leaves
/// `.NAME.<pid>.part`, which the next one of that name removes. A pipe, a device or a descriptor is written straight in.
///
/// A file that is replaced keeps its permissions, and its owner where this user may give it away. Of a file with several
/// names (hard links) the one that was given gets the new content and the others keep the old one: written in place,
/// a kill would leave half of it under every name, and copies made of links (backups, package caches) would change.
#[derive(Debug)]
pub struct WholeFile {
    named: PathBuf,
    writer: Option<Writer>,
}

#[derive(Debug)]
enum Writer {
    /// Bytes that will take the place of a file.
    Part(Part),
    /// A pipe, a device or a descriptor.
    Direct(Direct),
    /// Bytes for one of those that are not written in order, until they are complete.
    Spooled { to: Direct, spool: Spool },
}

#[derive(Debug)]
struct Part {
    /// Where the bytes are until they are complete.
    work: PathBuf,
    path: PathBuf,
    /// Whether a file is replaced.
    replaces: bool,
    /// Locked while this process lives, where the file system knows locks.
    file: BufWriter<File>,
}

#[derive(Debug)]
enum Direct {
    Open(File),
    Stdout,
    Stderr,
}

#[derive(Debug)]
struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
}

impl WholeFile {
    /// Starts a file, and removes what runs that were killed left of it.
    ///
    /// # Errors
    /// [`OutputError::ClosedFolder`] where the folder takes no file, [`OutputError::Io`].
    pub fn create(to: &Destination) -> Result<(Self, Vec<Leftover>), OutputError> {
        Self::start(to, None)
    }

    /// The same, for a file whose beginning is written last; of a pipe or a device the bytes wait in a file in `spool`.
    ///
    /// # Errors
    /// As [`WholeFile::create`].
    pub fn create_patched(to: &Destination, spool: &Path) -> Result<(Self, Vec<Leftover>), OutputError> {
        Self::start(to, Some(spool))
    }

    fn start(to: &Destination, spool: Option<&Path>) -> Result<(Self, Vec<Leftover>), OutputError> {
        let failed = |e| OutputError::io(&to.named)(e);
        let (direct, leftovers) = match &to.at {
            At::File { path, there } => {
                let leftovers = remove_leftovers(path);
                let writer = Writer::Part(Part::create(path, there.as_ref(), &to.named)?);
                return Ok((Self { named: to.named.clone(), writer: Some(writer) }, leftovers));
            }
            At::Stream { path } => (Direct::Open(File::options().write(true).open(path).map_err(failed)?), Vec::new()),
            // What others wrote before and will write after stays: nothing is cut, and all is added at the end.
            At::Descriptor { path } => {
                (Direct::Open(File::options().append(true).open(path).map_err(failed)?), Vec::new())
            }
            At::Stdout => (Direct::Stdout, Vec::new()),
            At::Stderr => (Direct::Stderr, Vec::new()),
        };
        let writer = match spool {
            Some(folder) => Writer::Spooled { to: direct, spool: Spool::create(folder)? },
            None => Writer::Direct(direct),
        };
        Ok((Self { named: to.named.clone(), writer: Some(writer) }, leftovers))
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("the file is open until it is finished")
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = match self.writer() {
            Writer::Part(part) => part.file.write_all(bytes),
            Writer::Direct(direct) => direct.write(bytes),
            Writer::Spooled { spool, .. } => spool.file.write_all(bytes),
        };
        written.map_err(OutputError::io(&self.named))
    }

    /// Writes bytes over the beginning of a file that [`WholeFile::create_patched`] started.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn write_at_start(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let file = match self.writer() {
            Writer::Part(part) => Some(&mut part.file),
            Writer::Spooled { spool, .. } => Some(&mut spool.file),
            Writer::Direct(_) => None,
        };
        let written = match file {
            Some(file) => file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)),
            None => Err(ErrorKind::NotSeekable.into()),
        };
        written.map_err(OutputError::io(&self.named))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// [`OutputError::Io`]; then what was there before is still there, and nothing else is left.
    pub fn finish(mut self) -> Result<(), OutputError> {
        let done = match self.writer.take().expect("the file is open until it is finished") {
            Writer::Part(part) => part.place(),
            Writer::Direct(_) => Ok(()),
            Writer::Spooled { mut to, mut spool } => spool.copy_to(&mut to),
        };
        done.map_err(OutputError::io(&self.named))
    }
}

impl Direct {
    /// Writes at once, so that a reader sees each line when it is there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        fn all(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
            to.write_all(bytes).and_then(|()| to.flush())
        }
        match self {
            Direct::Open(file) => all(file, bytes),
            Direct::Stdout => all(io::stdout().lock(), bytes),
            Direct::Stderr => all(io::stderr().lock(), bytes),
        }
    }
}

impl Part {
    fn create(path: &Path, there: Option<&Metadata>, named: &Path) -> Result<Self, OutputError> {
        let name = path.file_name().expect("a destination has a name");
        let folder = parent(path);
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                OutputError::ClosedFolder { path: named.to_path_buf(), folder: folder.clone(), source }
            }
            _ => OutputError::io(named)(source),
        };
        let mut options = File::options();
        options.write(true).create_new(true);
        // Until it has the permissions of the one it replaces, nobody else reads it.
        #[cfg(unix)]
        if there.is_some() {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        // Taken are the names of other files of this process, and of a dead process of the same number.
        for n in 0..1000 {
            let work = path.with_file_name(part_name(name, n));
            let file = match options.open(&work) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(failed(e)),
            };
            let held = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            // Another process that looked for leftovers before the lock was there has removed it.
            if held && work.exists() {
                if let Some(old) = there {
                    keep_owner_and_mode(&work, old);
                }
                let file = BufWriter::new(file);
                return Ok(Self { work, path: path.into(), replaces: there.is_some(), file });
            }
        }
        Err(failed(ErrorKind::AlreadyExists.into()))
    }

    /// The file stays open, and so locked, until it has its name: until then it could be taken for a leftover.
    fn place(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        match fs::rename(&self.work, &self.path) {
            // A file that is mounted of its own, or another user's in a folder where each may remove only his own: its
            // name stays with it, and it may be written (that was tried before). Complete, it is copied in.
            Err(e) if self.replaces && is_bound(&e) => {
                let mut old = File::options().write(true).truncate(true).open(&self.path)?;
                io::copy(&mut File::open(&self.work)?, &mut old)?;
                old.sync_all()
            }
            Err(e) => Err(e),
            Ok(()) => {
                // The file is in its place whatever this says; it only makes it last through a loss of power.
                let _ = sync_folder(&parent(&self.path));
                Ok(())
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it has taken its place.
        let _ = fs::remove_file(&self.work);
    }
}

fn is_bound(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::ResourceBusy | ErrorKind::PermissionDenied | ErrorKind::CrossesDevices)
}

impl Spool {
    fn create(folder: &Path) -> Result<Self, OutputError> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        for n in 0..1000 {
            let path = folder.join(part_name("omniburn".as_ref(), n));
            match options.open(&path) {
                Ok(file) => {
                    // Without a name where the system allows it, so that a kill leaves nothing.
                    if cfg!(unix) {
                        let _ = fs::remove_file(&path);
                    }
                    return Ok(Self { path, file: BufWriter::new(file) });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(OutputError::io(path)(e)),
            }
        }
        Err(OutputError::io(folder)(ErrorKind::AlreadyExists.into()))
    }

    fn copy_to(&mut self, to: &mut Direct) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => to.write(&buffer[..read])?,
            }
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what processes that were killed left of a file of this name. What cannot be removed is no reason to stop.
fn remove_leftovers(path: &Path) -> Vec<Leftover> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent(path)).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_part_name(&entry.file_name(), name) {
            continue;
        }
        let path = path.with_file_name(entry.file_name());
        // A lock that is free is that of a dead process.
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        found.push(match fs::remove_file(&path) {
            Ok(()) => Leftover::Removed { path },
            Err(e) => Leftover::Kept { path, reason: e.to_string() },
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, content: &str) -> Result<Vec<Leftover>, OutputError> {
        let (mut file, leftovers) = WholeFile::create(&Destination::of(path)?)?;
        file.write(content.as_bytes())?;
        file.finish()?;
        Ok(leftovers)
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_complete_and_leaves_nothing_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (mut file, _) = WholeFile::create(&Destination::of(&path).unwrap()).unwrap();
        file.write(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(folder.path()), [""; 0]);
        write(&path, "whole").unwrap();
        assert_eq!((read(&path).as_str(), names(folder.path())), ("whole", vec!["out".to_string()]));
    }

    #[test]
    fn what_a_killed_run_left_of_a_file_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let others = [".out.12.part", ".out.npy.12x.part", "out.npy.12.part", ".out.npy.part"];
        let dead = [".out.npy.12.part", ".out.npy.7-1.part"];
        for name in others.iter().chain(&dead) {
            fs::write(at(name), "half").unwrap();
        }
        let to = Destination::of(&at("out.npy")).unwrap();
        let (first, leftovers) = WholeFile::create(&to).unwrap();
        assert_eq!(leftovers.len(), 2);
        let (second, leftovers) = WholeFile::create(&to).unwrap();
        assert_eq!(leftovers, []);
        assert!(others.iter().all(|name| at(name).exists()) && !dead.iter().any(|name| at(name).exists()));
        assert_eq!(names(folder.path()).len(), others.len() + 2);
        first.finish().unwrap();
        second.finish().unwrap();
        assert_eq!(names(folder.path()).len(), others.len() + 1);
    }

    #[test]
    fn folders_and_names_in_folders_that_are_not_there_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| Destination::of(&folder.path().join(name)).unwrap_err();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for name in ["sub", "sub/", "new/", ".", ".."] {
            assert!(matches!(of(name), OutputError::Folder { .. }), "{name}: {}", of(name));
        }
        assert!(matches!(of("none/out"), OutputError::NoFolder { .. }), "{}", of("none/out"));
        assert!(matches!(of("file/out"), OutputError::Io { .. }), "{}", of("file/out"));
        assert!(matches!(Destination::of(Path::new("")).unwrap_err(), OutputError::NotAName { .. }));
    }

    #[test]
    fn a_file_that_nobody_may_write_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "kept").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        assert!(matches!(write(&path, "new").unwrap_err(), OutputError::ReadOnly { .. }));
        assert_eq!((read(&path).as_str(), names(folder.path()).len()), ("kept", 1));
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        use std::process::Command;

        use super::*;

        #[test]
        fn links_are_followed_to_the_file_that_they_name_and_stay() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir_all(at("a/b")).unwrap();
            fs::write(at("a/target"), "old").unwrap();
            symlink("a/target", at("one")).unwrap();
            symlink("one", at("two")).unwrap();
            symlink(at("two"), at("a/b/three")).unwrap();
            symlink("a/new", at("dangling")).unwrap();
            symlink("a", at("folder")).unwrap();
            for (name, target) in [
                ("one", "a/target"),
                ("two", "a/target"),
                ("a/b/three", "a/target"),
                ("dangling", "a/new"),
                ("folder/target", "a/target"),
            ] {
                write(&at(name), name).unwrap();
                assert_eq!(read(&at(target)), name);
                assert!(!at(target).is_symlink());
            }
            for link in ["one", "two", "a/b/three", "dangling", "folder"] {
                assert!(at(link).is_symlink(), "{link}");
            }
            assert_eq!(
                (names(folder.path()).len(), names(&at("a"))),
                (5, vec!["b".into(), "new".into(), "target".into()])
            );
            let same = |a: &str, b: &str| Destination::of(&at(a)).unwrap().is_same(&Destination::of(&at(b)).unwrap());
            assert!(same("one", "a/target") && same("folder/fresh", "a/fresh") && !same("one", "dangling"));
            assert!(!same("folder/fresh", "a/other"));
        }

        #[test]
        fn links_in_a_circle_and_into_nothing_are_refused() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            symlink("b", at("a")).unwrap();
            symlink("a", at("b")).unwrap();
            symlink("none/out", at("lost")).unwrap();
            symlink(".", at("here")).unwrap();
            assert!(matches!(write(&at("a"), "x").unwrap_err(), OutputError::Circle { .. }));
            assert!(matches!(write(&at("lost"), "x").unwrap_err(), OutputError::NoFolder { .. }));
            assert!(matches!(write(&at("here"), "x").unwrap_err(), OutputError::Folder { .. }));
            assert_eq!(names(folder.path()), ["a", "b", "here", "lost"]);
        }

        #[test]
        fn a_replaced_file_keeps_permissions_and_owner_and_other_names_keep_the_old_content() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            for mode in [0o600, 0o640, 0o666, 0o755] {
                fs::write(&path, "old").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                // Only root may give a file away.
                let _ = std::os::unix::fs::chown(&path, Some(12_345), Some(54_321));
                let before = fs::metadata(&path).unwrap();
                write(&path, "new").unwrap();
                let after = fs::metadata(&path).unwrap();
                assert_eq!(after.mode() & 0o7777, mode);
                assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
            }
            let other = folder.path().join("other");
            fs::hard_link(&path, &other).unwrap();
            write(&path, "newer").unwrap();
            assert_eq!((read(&path).as_str(), read(&other).as_str()), ("newer", "new"));
        }

        #[test]
        fn pipes_and_devices_are_written_straight_in_and_stay() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let makes = |args: &[&str]| {
                Command::new("mknod").arg(at(args[0])).args(&args[1..]).output().is_ok_and(|ran| ran.status.success())
            };
            if makes(&["pipe", "p"]) {
                symlink("pipe", at("link")).unwrap();
                for name in ["pipe", "link"] {
                    let pipe = at("pipe");
                    let reader = std::thread::spawn(move || read(&pipe));
                    write(&at(name), "through").unwrap();
                    assert_eq!(reader.join().unwrap(), "through");
                }
                // What is written last stands first, and a pipe cannot go back.
                let pipe = at("pipe");
                let reader = std::thread::spawn(move || read(&pipe));
                let to = Destination::of(&at("pipe")).unwrap();
                let (mut file, _) = WholeFile::create_patched(&to, folder.path()).unwrap();
                file.write(b"?body").unwrap();
                file.write_at_start(b"!").unwrap();
                file.finish().unwrap();
                assert_eq!(reader.join().unwrap(), "!body");
                assert!(to.is_same(&Destination::of(&at("link")).unwrap()));
                assert_eq!(names(folder.path()), ["link", "pipe"]);
            }
            // Devices of this folder's own, which root may make: a mistake must not cost the machine its own ones.
            if makes(&["null", "c", "1", "3"]) && makes(&["full", "c", "1", "7"]) && makes(&["disk", "b", "250", "250"])
            {
                write(&at("null"), "gone").unwrap();
                let error = write(&at("full"), "no room").unwrap_err();
                assert!(matches!(&error, OutputError::Io { source, .. } if source.kind() == ErrorKind::StorageFull));
                let error = write(&at("disk"), "never").unwrap_err();
                assert!(matches!(error, OutputError::NotWritable { .. }), "{error}");
                let null = Destination::of(&at("null")).unwrap();
                assert!(!null.is_same(&null), "it takes any number of writers");
                assert!(!fs::metadata(at("null")).unwrap().is_file() && !fs::metadata(at("full")).unwrap().is_file());
            }
            let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
            assert!(write(&at("socket"), "x").unwrap_err().to_string().contains("a socket"));
        }

        #[test]
        #[cfg(target_os = "linux")]
        fn an_open_descriptor_gets_the_bytes_after_what_it_has() {
            use std::os::fd::AsRawFd;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let mut open = File::create(&path).unwrap();
            open.write_all(b"before ").unwrap();
            let link = folder.path().join("link");
            symlink(format!("/proc/self/fd/{}", open.as_raw_fd()), &link).unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            write(&link, "after").unwrap();
            assert_eq!((read(&path).as_str(), fs::metadata(&path).unwrap().ino()), ("before after", inode));
            assert!(link.is_symlink());
            assert_eq!(Destination::of(&link).unwrap().id(), Destination::of(&path).unwrap().id());
        }
    }
}
