//! A hub on this machine: its interface as far as `pull` speaks it, on two ports, since the real one keeps large files on
//! another host; and every mishap that a network has, on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The commit that `main` names.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The model.
pub const REPO: &str = "org/name";

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether it came to the host of large files.
    pub cdn: bool,
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
}

/// What goes wrong.
#[derive(Default)]
pub struct Mishaps {
    /// Answers in place of the right ones, for paths that hold a word: `(word, how often, status, headers)`.
    pub refusals: Vec<(&'static str, usize, u16, String)>,
    /// Connections that break after so many bytes, for paths that hold a word: `(word, how often, bytes)`.
    pub cuts: Vec<(&'static str, usize, usize)>,
    /// Content in place of the right one.
    pub altered: BTreeMap<String, Vec<u8>>,
    /// Ranges are not known, and all is sent.
    pub no_ranges: bool,
    /// Sizes, tags and digests are not listed.
    pub bare_listing: bool,
    /// Files that are listed beside those that are there.
    pub listed: Vec<Value>,
    /// Where redirects to large files lead, in place of the other port.
    pub redirect: Option<String>,
    /// After the first bytes of a large file, nothing more comes until [`Hub::release`].
    pub stall: bool,
}

/// The hub.
pub struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    pub mishaps: Mutex<Mishaps>,
    log: Mutex<Vec<Request>>,
    /// Bytes of large files that were sent.
    pub sent: AtomicU64,
    ports: [u16; 2],
    released: (Mutex<bool>, Condvar),
}

impl Hub {
    /// A hub with one model, whose files above 2,000 bytes are large ones.
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Arc<Self> {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [0, 1].map(|i| listeners[i].local_addr().unwrap().port());
        let hub = Arc::new(Self {
            files,
            mishaps: Mutex::default(),
            log: Mutex::default(),
            sent: AtomicU64::new(0),
            ports,
            released: (Mutex::new(false), Condvar::new()),
        });
        for (cdn, listener) in [false, true].into_iter().zip(listeners) {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let hub = Arc::clone(&hub);
                    std::thread::spawn(move || hub.serve(cdn, stream));
                }
            });
        }
        hub
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
        self.sent.store(0, Ordering::SeqCst);
    }

    /// Lets stalled answers go on.
    pub fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }

    fn serve(&self, cdn: bool, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace().map(String::from);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (mut token, mut range) = (None, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap();
            match name.to_lowercase().as_str() {
                "authorization" => token = Some(value.trim().to_string()),
                "range" => range = Some(value.trim().to_string()),
                _ => {}
            }
        }
        let request = Request { cdn, method, path, token, range };
        self.log.lock().unwrap().push(request.clone());
        let _ = self.answer(&request, &mut stream);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let refusal = {
            let mut mishaps = self.mishaps.lock().unwrap();
            let found = mishaps.refusals.iter_mut().find(|(word, left, ..)| request.path.contains(word) && *left > 0);
            found.map(|(_, left, status, headers)| {
                *left -= 1;
                (*status, headers.clone())
            })
        };
        if let Some((status, headers)) = refusal {
            return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n");
        }
        if request.cdn {
            return self.large(request, stream);
        }
        let path = request.path.split('?').next().unwrap();
        if let Some(revision) = path.strip_prefix(&format!("/api/models/{REPO}/revision/")) {
            if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
                return not_found(stream, "RevisionNotFound");
            }
            return content(stream, request, self.listing().to_string().as_bytes(), "");
        }
        let Some(name) = path.strip_prefix(&format!("/{REPO}/resolve/{COMMIT}/")) else {
            return not_found(stream, "RepoNotFound");
        };
        let Some(bytes) = self.files.get(name) else { return not_found(stream, "EntryNotFound") };
        if !is_large(bytes) {
            let altered = self.mishaps.lock().unwrap().altered.get(name).cloned();
            let tag = format!("ETag: \"{}\"\r\n", small_tag(bytes));
            return content(stream, request, altered.as_deref().unwrap_or(bytes), &tag);
        }
        let (digest, size) = (sha256(bytes), bytes.len());
        let elsewhere = format!("http://127.0.0.1:{}/{name}?signature=x", self.ports[1]);
        let to = self.mishaps.lock().unwrap().redirect.clone().unwrap_or(elsewhere);
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nX-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: {size}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }

    fn large(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let name = request.path.split('?').next().unwrap().trim_start_matches('/');
        let (bytes, cut, ranges, stall) = {
            let mut mishaps = self.mishaps.lock().unwrap();
            let bytes = mishaps.altered.get(name).or(self.files.get(name)).cloned().unwrap_or_default();
            let found = mishaps.cuts.iter_mut().find(|(word, left, _)| request.path.contains(word) && *left > 0);
            let cut = found.map(|(_, left, bytes)| {
                *left -= 1;
                *bytes
            });
            (bytes, cut, !mishaps.no_ranges, mishaps.stall)
        };
        let asked = request.range.as_deref().filter(|_| ranges);
        let from = asked.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        if from.is_some_and(|from| from >= bytes.len()) {
            return write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let part = &bytes[from.unwrap_or(0)..];
        let status = match from {
            Some(from) => {
                format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len())
            }
            None => "200 OK".into(),
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let part = &part[..cut.unwrap_or(part.len()).min(part.len())];
        let first = if stall { part.len().min(1000) } else { part.len() };
        stream.write_all(&part[..first])?;
        stream.flush()?;
        self.sent.fetch_add(first as u64, Ordering::SeqCst);
        if stall {
            let released = self.released.0.lock().unwrap();
            drop(self.released.1.wait_while(released, |released| !*released).unwrap());
            stream.write_all(&part[first..])?;
            self.sent.fetch_add((part.len() - first) as u64, Ordering::SeqCst);
        }
        Ok(())
    }

    fn listing(&self) -> Value {
        let mishaps = self.mishaps.lock().unwrap();
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            let mut file = json!({ "rfilename": name });
            if mishaps.bare_listing {
                return file;
            }
            file["size"] = json!(bytes.len());
            file["blobId"] = json!(small_tag(bytes));
            if is_large(bytes) {
                file["lfs"] = json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
            }
            file
        };
        let siblings: Vec<Value> = self.files.iter().map(file).chain(mishaps.listed.iter().cloned()).collect();
        json!({ "id": REPO, "sha": COMMIT, "siblings": siblings, "gated": false, "cardData": { "license": "apache-2.0" } })
    }
}

fn is_large(bytes: &[u8]) -> bool {
    bytes.len() > 2000
}

/// What a small file is known by; on the real hub git's id of it.
pub fn small_tag(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_string()
}

fn not_found(stream: &mut TcpStream, code: &str) -> std::io::Result<()> {
    let headers = format!("X-Error-Code: {code}\r\nContent-Length: 0\r\nConnection: close\r\n");
    write!(stream, "HTTP/1.1 404 Not Found\r\n{headers}\r\n")
}

fn content(stream: &mut TcpStream, request: &Request, bytes: &[u8], headers: &str) -> std::io::Result<()> {
    let length = bytes.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    if request.method == "HEAD" { Ok(()) } else { stream.write_all(bytes) }
}

/// Files below a folder by their paths.
pub fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}
