//! A checkpoint from a hub into the cache that the Hugging Face libraries share on a machine. The one place of the house that
//! talks to a network, and only when it is called.
//!
//! Files that a record is made from, and no others, are fetched: several at a time, each from where an earlier run stopped,
//! each against its SHA-256 where the hub gives one. The commit is settled first and all files are of it; a branch names it
//! in the cache only when everything is there.
//!
//! | where | what |
//! |---|---|
//! | [`pull`] | the whole of it |
//! | `options` | what to fetch, from where, to where |
//! | `client` | HTTP: redirects, refusals, pauses, another try |
//! | `listing` | what a model holds, and which of it is needed |
//! | `download` | one file |
//! | `cache` | where it lies |
//! | [`error`] | why not |

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

mod cache;
mod client;
mod download;
pub mod error;
mod listing;
mod options;

pub use error::HubError;
pub use options::{Check, ENDPOINT, HubOptions, REVISION};

use cache::Cache;
use client::Client;
use listing::{Listed, Listing, Needed};

use crate::files::{CONFIG_FILE, MODULES_FILE};
use crate::gguf;
use crate::source::SINGLE_FILE;

/// Files that are fetched at a time.
const CONNECTIONS: usize = 4;
/// Bytes of a GGUF file that are looked at before the rest is fetched: its architecture stands among the first keys.
const GGUF_START: u64 = 64 << 10;

/// A checkpoint in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The checkpoint's folder, or the GGUF file that was asked for; for [`crate::convert`].
    pub folder: PathBuf,
    /// Its commit.
    pub commit: String,
    /// Its licence as its card says; `None` where it says none, or where nothing was asked of the hub.
    pub licence: Option<String>,
    /// Files of the checkpoint.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were not in the cache before.
    pub fetched: u64,
}

/// Fetches what a record needs of a checkpoint.
///
/// # Errors
/// [`HubError`]. What came so far is kept, and the next call goes on from there; a branch names a commit in the cache only
/// once all its files are there.
pub fn pull(options: &HubOptions) -> Result<Pulled, HubError> {
    check_names(options)?;
    let cache = Cache::of(&options.cache, &options.repo);
    if options.offline {
        return offline(options, &cache);
    }
    let client = Client::new(options)?;
    let url = client.model_url();
    let listing = listing::read(&url, &client.read(&url, listing::MOST_LISTING)?)?;
    let job = Job { options, client, cache, listing, known: AtomicU64::new(0), there: AtomicI64::new(0) };
    match &options.file {
        Some(file) => job.run_file(file),
        None => job.run(),
    }
}

/// Names that become parts of paths and addresses.
fn check_names(options: &HubOptions) -> Result<(), HubError> {
    let plain = |part: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && part.chars().all(inner)
            && !part.contains("..")
    };
    let parts: Vec<&str> = options.repo.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| plain(part)) || options.repo.contains("--") {
        let expected = "ORG/NAME, such as BAAI/bge-m3";
        return Err(HubError::Name { what: "model", found: options.repo.clone(), expected });
    }
    if !options.revision.split('/').all(plain) {
        let expected = "a branch, a tag or a commit, such as main";
        return Err(HubError::Name { what: "revision", found: options.revision.clone(), expected });
    }
    if let Some(file) = options.file.as_ref().filter(|file| !listing::is_inside(file) || !listing::is_gguf(file)) {
        let expected = "the path of a GGUF file in the model, such as bge-m3-Q8_0.gguf";
        return Err(HubError::Name { what: "file", found: file.clone(), expected });
    }
    Ok(())
}

/// A model that is being fetched.
struct Job<'a> {
    options: &'a HubOptions,
    client: Client,
    cache: Cache,
    listing: Listing,
    /// Bytes of all files that are known to be needed.
    known: AtomicU64,
    /// Bytes of them that are there.
    there: AtomicI64,
}

impl Job<'_> {
    fn run(&self) -> Result<Pulled, HubError> {
        let modules = self.listing.files.iter().find(|file| file.name == MODULES_FILE).cloned();
        let mut fetched = 0;
        let modules = match modules {
            None => None,
            Some(file) => {
                fetched += self.fetch(std::slice::from_ref(&file))?;
                Some(self.json(&file)?)
            }
        };
        let mut needed = Needed::of(&self.listing, &self.options.repo, modules.as_ref())?;
        let (repo, commit) = (self.options.repo.clone(), self.listing.commit.clone());
        if needed.lacks_tokenizer_alone() {
            let config = needed.side.iter().filter(|file| file.name == CONFIG_FILE).cloned().collect::<Vec<_>>();
            fetched += self.fetch(&config)?;
            needed.ask_less(config.first().map(|file| self.json(file)).transpose()?.as_ref());
        }
        // A model that is kept as GGUF alone has neither configuration nor tokenizer beside it.
        let packed = self.listing.gguf_files();
        if !needed.missing.is_empty() && !needed.has_weights() && !packed.is_empty() {
            return Err(HubError::Weights { repo, found: packed });
        }
        if !needed.missing.is_empty() {
            return Err(HubError::Incomplete { repo, commit, files: needed.missing });
        }
        if !needed.other.is_empty() {
            return Err(HubError::Weights { repo, found: needed.other });
        }
        if !needed.has_weights() {
            return Err(HubError::Incomplete { repo, commit, files: vec![SINGLE_FILE.into()] });
        }
        fetched += self.fetch(&needed.side)?;
        if let Some(check) = &self.options.check {
            check(&self.cache.snapshot(&commit)).map_err(|reason| HubError::Refused { repo, reason })?;
        }
        let mut large = needed.large(&self.listing, |index| self.json(index))?;
        // The largest first, so that no thread is left with it at the end.
        large.sort_by_key(|file| std::cmp::Reverse(file.bytes.unwrap_or(0)));
        fetched += self.fetch(&large)?;
        let files = [needed.side, large].concat();
        if self.options.revision != commit {
            self.cache.set_commit(&self.options.revision, &commit)?;
        }
        let folder = self.cache.snapshot(&commit);
        let bytes = files.iter().map(|file| cache::bytes_of(&folder.join(&file.name))).sum::<Result<u64, _>>()?;
        let licence = self.listing.licence.clone();
        Ok(Pulled { folder, commit, licence, files: files.len(), bytes, fetched })
    }

    /// One GGUF file, refused by what it begins with before the rest of it is fetched.
    fn run_file(&self, name: &str) -> Result<Pulled, HubError> {
        let (repo, commit) = (self.options.repo.clone(), self.listing.commit.clone());
        let Some(file) = self.listing.file(name) else {
            return Err(HubError::NoFile { repo, commit, file: name.into(), others: self.listing.gguf_files() });
        };
        if listing::is_split(name) {
            let reason = format!("{name} is one of several files: `llama-gguf-split --merge` makes one of them");
            return Err(HubError::Refused { repo, reason });
        }
        let path = self.cache.snapshot(&commit).join(name);
        if !path.is_file() {
            let start = self.client.start(&self.client.file_url(&commit, name), GGUF_START)?;
            let reason = |reason: String| HubError::Refused { repo, reason: format!("{name}: {reason}") };
            gguf::check_start(&start).map_err(reason)?;
        }
        let fetched = self.fetch(std::slice::from_ref(file))?;
        if self.options.revision != commit {
            self.cache.set_commit(&self.options.revision, &commit)?;
        }
        let (bytes, licence) = (cache::bytes_of(&path)?, self.listing.licence.clone());
        Ok(Pulled { folder: path, commit, licence, files: 1, bytes, fetched })
    }

    /// A JSON file that was fetched.
    fn json(&self, file: &Listed) -> Result<Value, HubError> {
        json(&self.cache.snapshot(&self.listing.commit), file)
    }

    /// Fetches files, several at a time. The first error ends all; bytes that came stay. Returns the bytes fetched.
    fn fetch(&self, files: &[Listed]) -> Result<u64, HubError> {
        self.known.fetch_add(files.iter().filter_map(|file| file.bytes).sum(), Ordering::Relaxed);
        let queue: Mutex<VecDeque<&Listed>> = Mutex::new(files.iter().collect());
        let failed: Mutex<Option<HubError>> = Mutex::new(None);
        let fetched = AtomicU64::new(0);
        let heard = |change: i64| {
            let there = self.there.fetch_add(change, Ordering::Relaxed) + change;
            if let Some(progress) = &self.options.progress {
                let there = there.max(0) as u64;
                progress(there, self.known.load(Ordering::Relaxed).max(there));
            }
        };
        let lock = |failed: &Mutex<Option<HubError>>| failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let work = || {
            while !lock(&failed) {
                let Some(file) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
                match download::fetch(&self.client, &self.cache, &self.listing.commit, file, &heard) {
                    Ok(bytes) => {
                        fetched.fetch_add(bytes, Ordering::Relaxed);
                    }
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(files.len()) {
                scope.spawn(work);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(fetched.into_inner()),
        }
    }
}

/// A checkpoint that the cache holds already.
fn offline(options: &HubOptions, cache: &Cache) -> Result<Pulled, HubError> {
    let missing =
        |missing: String| HubError::Offline { repo: options.repo.clone(), missing, cache: options.cache.clone() };
    let commit = if listing::is_commit(&options.revision) {
        options.revision.clone()
    } else {
        cache.commit_of(&options.revision).ok_or_else(|| missing(format!("revision `{}` is", options.revision)))?
    };
    let folder = cache.snapshot(&commit);
    if let Some(name) = &options.file {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(missing(format!("{name} of commit {commit} is")));
        }
        let bytes = cache::bytes_of(&path)?;
        return Ok(Pulled { folder: path, commit, licence: None, files: 1, bytes, fetched: 0 });
    }
    let mut files = Vec::new();
    list(&folder, String::new(), &mut files)?;
    let listing = Listing { commit: commit.clone(), files, licence: None };
    let modules = fs::read(folder.join(MODULES_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut needed = Needed::of(&listing, &options.repo, modules.as_ref())?;
    let config = fs::read(folder.join(CONFIG_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    needed.ask_less(config.as_ref());
    let mut lacking = std::mem::take(&mut needed.missing);
    if !needed.has_weights() {
        lacking.push(SINGLE_FILE.into());
    }
    if !lacking.is_empty() {
        return Err(missing(format!(
            "{} of commit {commit} {}",
            lacking.join(", "),
            if lacking.len() > 1 { "are" } else { "is" }
        )));
    }
    let large = needed.large(&listing, |index| json(&folder, index))?;
    let files = [needed.side, large].concat();
    let bytes = files.iter().filter_map(|file| file.bytes).sum();
    Ok(Pulled { folder, commit, licence: None, files: files.len(), bytes, fetched: 0 })
}

/// A JSON file of a checkpoint in the cache.
fn json(folder: &Path, file: &Listed) -> Result<Value, HubError> {
    let path = folder.join(&file.name);
    if cache::bytes_of(&path)? > listing::MOST_JSON {
        return Err(HubError::Answer { url: file.name.clone(), reason: "too large for a JSON file".into() });
    }
    let text = fs::read(&path).map_err(HubError::io(&path))?;
    let wrong = |e: serde_json::Error| HubError::Answer { url: file.name.clone(), reason: e.to_string() };
    serde_json::from_slice(&text).map_err(wrong)
}

/// Files below a folder, links followed; none where there is no such folder.
fn list(folder: &Path, prefix: String, found: &mut Vec<Listed>) -> Result<(), HubError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(HubError::io(folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{name}");
        // A link whose content is gone is no file.
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if meta.is_dir() && prefix.matches('/').count() < 4 {
            list(&entry.path(), format!("{name}/"), found)?;
        } else if meta.is_file() {
            found.push(Listed { name, bytes: Some(meta.len()), etag: None, sha256: None });
        }
    }
    Ok(())
}
