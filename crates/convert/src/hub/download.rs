//! One file of a model into the cache: resumed, checked, put in its place whole.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

use super::cache::{Cache, bytes_of};
use super::client::{Answer, Client, Failed};
use super::error::HubError;
use super::listing::Listed;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// Brings one file into the cache, unless it is there, and links it into the snapshot. Returns the bytes that had to be
/// fetched; `heard` hears of every byte that the file has by now, as a change (bytes that turn out wrong are taken back).
///
/// # Errors
/// [`HubError`]; what came so far is kept beside the finished files, and the next call goes on from there.
pub(super) fn fetch(
    client: &Client,
    cache: &Cache,
    commit: &str,
    file: &Listed,
    heard: &dyn Fn(i64),
) -> Result<u64, HubError> {
    let url = client.file_url(commit, &file.name);
    let file = described(client, &url, file)?;
    let etag = file.etag.as_deref().expect("a described file has a tag");
    let mut fetched = 0;
    if !cache.has(etag, file.bytes) {
        let _lock = cache.lock(etag, client)?;
        // Another program may have fetched it while this one waited.
        if !cache.has(etag, file.bytes) {
            fetched = download(client, cache, &url, &file, etag, heard)?;
        } else {
            heard(bytes_of(&cache.blob(etag))? as i64);
        }
    } else {
        heard(bytes_of(&cache.blob(etag))? as i64);
    }
    cache.link(commit, &file.name, etag)?;
    Ok(fetched)
}

/// A file with its tag, which a hub that does not list it says when it is asked for the file.
fn described(client: &Client, url: &str, file: &Listed) -> Result<Listed, HubError> {
    if file.etag.is_some() {
        return Ok(file.clone());
    }
    let answer = client.patiently(url, |_| client.open(url, None, true))?;
    let plain = |tag: &String| {
        tag.len() <= 200
            && !tag.starts_with('.')
            && !tag.is_empty()
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let Some(etag) = answer.etag.filter(plain) else {
        let reason = "the server gives no tag for this file, so it cannot be kept in a cache".into();
        return Err(HubError::Answer { url: url.into(), reason });
    };
    // Large files have their digest as a tag.
    let sha256 = (etag.len() == 64 && super::listing::is_hex(&etag)).then(|| etag.to_ascii_lowercase());
    let bytes = answer.linked_bytes.or(answer.length).or(file.bytes);
    Ok(Listed { name: file.name.clone(), bytes, etag: Some(etag), sha256: file.sha256.clone().or(sha256) })
}

fn download(
    client: &Client,
    cache: &Cache,
    url: &str,
    file: &Listed,
    etag: &str,
    heard: &dyn Fn(i64),
) -> Result<u64, HubError> {
    let path = cache.unfinished(etag);
    let mut fetched = 0;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut part = Part::open(&path, file)?;
        let resumed = part.bytes;
        heard(resumed as i64);
        // Bytes that had come before, and were thrown away in between, are no progress.
        let mut most = resumed;
        let result = client.patiently(url, |progress| {
            let result = attempt(client, url, file, &mut part, heard);
            *progress = part.bytes > most;
            most = most.max(part.bytes);
            result
        });
        fetched += part.bytes.saturating_sub(resumed);
        result?;
        let found = part.digest();
        match &file.sha256 {
            Some(expected) if found != *expected => {
                heard(-(part.bytes as i64));
                drop(part);
                fs::remove_file(&path).map_err(HubError::io(&path))?;
                // What an earlier run left may have been wrong: once more from the beginning.
                if resumed == 0 || rounds > 1 {
                    return Err(HubError::Digest { file: file.name.clone(), expected: expected.clone(), found });
                }
            }
            _ => {
                part.file.sync_all().map_err(HubError::io(&path))?;
                drop(part);
                let place = cache.blob(etag);
                fs::rename(&path, &place).map_err(HubError::io(&place))?;
                return Ok(fetched);
            }
        }
    }
}

/// What came so far of a file.
struct Part<'a> {
    path: &'a std::path::Path,
    file: File,
    bytes: u64,
    hasher: Sha256,
}

impl<'a> Part<'a> {
    /// Opens what an earlier attempt left; of a file whose digest nobody knows, nothing is kept.
    fn open(path: &'a std::path::Path, file: &Listed) -> Result<Self, HubError> {
        let failed = || HubError::io(path);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed())?;
        let mut part = Self { path, file: open, bytes: 0, hasher: Sha256::new() };
        let left = part.file.metadata().map_err(failed())?.len();
        if file.sha256.is_none() || file.bytes.is_some_and(|bytes| left > bytes) {
            part.restart()?;
            return Ok(part);
        }
        let mut piece = vec![0u8; PIECE];
        loop {
            let n = part.file.read(&mut piece).map_err(failed())?;
            if n == 0 {
                return Ok(part);
            }
            part.hasher.update(&piece[..n]);
            part.bytes += n as u64;
        }
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(HubError::io(self.path))?;
        (self.bytes, self.hasher) = (0, Sha256::new());
        Ok(())
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), HubError> {
        self.file.write_all(piece).map_err(HubError::io(self.path))?;
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    fn digest(&mut self) -> String {
        self.hasher.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One connection: from where the part ends to the end of the file, or to where the connection breaks.
fn attempt(client: &Client, url: &str, file: &Listed, part: &mut Part<'_>, heard: &dyn Fn(i64)) -> Result<(), Failed> {
    if part.bytes > 0 && file.bytes == Some(part.bytes) {
        return Ok(());
    }
    let from = (part.bytes > 0).then_some(part.bytes);
    let Answer { status, mut body, length, from: begins, .. } = client.open(url, from, false)?;
    // A server that sends another part than was asked for sends all of it next time.
    let continued = status == 206 && begins == from && from.is_some();
    if from.is_some() && !continued {
        heard(-(part.bytes as i64));
        part.restart()?;
        if status != 200 {
            return Err(Failed::Again(format!("the server answered {status} to a request for the rest of a file")));
        }
    }
    let before = part.bytes;
    let mut piece = vec![0u8; PIECE];
    loop {
        client.check_cancelled()?;
        let n = body.read(&mut piece).map_err(|e| Failed::Again(e.to_string()))?;
        if n == 0 {
            break;
        }
        part.add(&piece[..n])?;
        heard(n as i64);
        if let Some(bytes) = file.bytes.filter(|&bytes| part.bytes > bytes) {
            let reason = format!("more than the {bytes} bytes that the hub lists");
            return Err(HubError::Answer { url: url.into(), reason }.into());
        }
    }
    let expected = file.bytes.or(length.map(|length| before + length));
    match expected {
        Some(bytes) if part.bytes < bytes => {
            Err(Failed::Again(format!("broke off after {} of {bytes} bytes", part.bytes)))
        }
        _ => Ok(()),
    }
}
