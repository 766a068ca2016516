//! HTTP as the hub speaks it: redirects to other hosts without the token, pauses that the server asks for, another try where
//! a connection breaks.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use super::error::HubError;
use super::options::HubOptions;

/// Attempts without a byte of progress before a connection counts as broken.
const MOST_TRIES: u32 = 4;
/// Pauses that the server asked for, before its refusal is passed on.
const MOST_WAITS: u32 = 5;
/// Longest pause that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
const MOST_REDIRECTS: u32 = 8;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How soon a cancelled pause ends.
const CANCEL_STEP: Duration = Duration::from_millis(50);

/// Why an attempt gave nothing.
pub(super) enum Failed {
    /// Another try gives the same.
    Final(HubError),
    /// Another try may go well.
    Again(String),
    /// The server asks to come back later.
    Wait(Option<u64>),
}

impl From<HubError> for Failed {
    fn from(error: HubError) -> Self {
        Failed::Final(error)
    }
}

/// An answer with its content still to be read.
pub(super) struct Answer {
    pub status: u16,
    /// Content of the answer.
    pub body: Box<dyn Read + Send>,
    /// Bytes that `body` has, where the server says so.
    pub length: Option<u64>,
    /// Where `body` begins in the file, of a part of it.
    pub from: Option<u64>,
    /// Name of the file in caches: the digest of a large file, else the tag of its content.
    pub etag: Option<String>,
    /// Bytes of the whole file, where the hub says so beside a redirect.
    pub linked_bytes: Option<u64>,
}

/// A hub.
pub(super) struct Client {
    agent: Agent,
    repo: String,
    revision: String,
    pub endpoint: String,
    token: Option<String>,
    first_pause: Duration,
    cancel: Arc<AtomicBool>,
}

impl Client {
    /// A client for the hub of these options.
    ///
    /// # Errors
    /// [`HubError::Name`] for an endpoint that is no address, [`HubError::TokenInTheOpen`], [`HubError::Setting`] for a proxy
    /// or a file of certificates that cannot be used.
    pub fn new(options: &HubOptions) -> Result<Self, HubError> {
        let endpoint = options.endpoint.trim_end_matches('/').to_string();
        let origin = origin(&endpoint).filter(|origin| !origin.is_empty());
        let Some(origin) = origin else {
            let expected = "an address such as https://huggingface.co";
            return Err(HubError::Name { what: "endpoint", found: endpoint, expected });
        };
        if options.token.is_some() && origin.starts_with("http://") && !is_this_machine(&origin) {
            return Err(HubError::TokenInTheOpen { endpoint });
        }
        if options.token.as_ref().is_some_and(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(setting("the token", &"empty, or with characters that no token has"));
        }
        let proxy = match &options.proxy {
            None => None,
            Some(address) => Some(Proxy::new(address).map_err(|e| setting(&format!("proxy {address}"), &e))?),
        };
        let mut tls = TlsConfig::builder();
        if let Some(path) = &options.certificates {
            let pem = std::fs::read(path).map_err(HubError::io(path))?;
            let what = path.display().to_string();
            let mut roots: Vec<Certificate<'static>> = Vec::new();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|e| setting(&what, &e))? {
                    roots.push(certificate);
                }
            }
            if roots.is_empty() {
                return Err(setting(&what, &"no certificate in it"));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(tls.build())
            .user_agent(concat!("omniburn/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            repo: options.repo.clone(),
            revision: options.revision.clone(),
            endpoint,
            token: options.token.clone(),
            first_pause: options.first_pause,
            cancel: Arc::clone(&options.cancel),
        })
    }

    /// Where the hub describes the model at the revision.
    pub fn model_url(&self) -> String {
        format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint, self.repo, escaped(&self.revision, true))
    }

    /// Where a file of the model lies.
    pub fn file_url(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, self.repo, escaped(name, false))
    }

    /// All of a short answer.
    ///
    /// # Errors
    /// As [`Client::patiently`]; [`HubError::Answer`] for one above `most` bytes.
    pub fn read(&self, url: &str, most: u64) -> Result<Vec<u8>, HubError> {
        self.patiently(url, |_| {
            let answer = self.open(url, None, false)?;
            let mut text = Vec::new();
            answer.body.take(most + 1).read_to_end(&mut text).map_err(|e| Failed::Again(e.to_string()))?;
            if answer.length.is_some_and(|length| (text.len() as u64) < length.min(most + 1)) {
                return Err(Failed::Again("the answer broke off".into()));
            }
            if text.len() as u64 > most {
                let reason = format!("more than {most} bytes");
                return Err(HubError::Answer { url: url.into(), reason }.into());
            }
            Ok(text)
        })
    }

    /// The first bytes of a file, `most` of them at most; the rest is not asked for.
    ///
    /// # Errors
    /// As [`Client::patiently`].
    pub fn start(&self, url: &str, most: u64) -> Result<Vec<u8>, HubError> {
        self.patiently(url, |_| {
            let answer = self.open(url, None, false)?;
            let mut bytes = Vec::new();
            answer.body.take(most).read_to_end(&mut bytes).map_err(|e| Failed::Again(e.to_string()))?;
            Ok(bytes)
        })
    }

    /// Tries until it goes well, until the same happens every time, or until the server was asked to wait too often. An
    /// attempt says by its argument that bytes came, which begins the count anew.
    ///
    /// # Errors
    /// What the attempt gives as final; [`HubError::Connection`], [`HubError::RateLimited`], [`HubError::Cancelled`].
    pub fn patiently<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut(&mut bool) -> Result<T, Failed>,
    ) -> Result<T, HubError> {
        let (mut tries, mut waits) = (0, 0);
        loop {
            self.check_cancelled()?;
            let mut progress = false;
            let failed = match attempt(&mut progress) {
                Ok(found) => return Ok(found),
                Err(failed) => failed,
            };
            if progress {
                (tries, waits) = (0, 0);
            }
            match failed {
                Failed::Final(error) => return Err(error),
                Failed::Again(reason) => {
                    tries += 1;
                    if tries >= MOST_TRIES {
                        return Err(HubError::Connection { url: url.into(), reason, tries });
                    }
                    tracing::info!("{url}: {reason}; trying again");
                    self.pause(self.first_pause * 2u32.pow(tries - 1))?;
                }
                Failed::Wait(seconds) => {
                    waits += 1;
                    let asked = seconds.map(Duration::from_secs);
                    let pause = asked.unwrap_or(self.first_pause * 2u32.pow(waits));
                    if waits > MOST_WAITS || pause > LONGEST_WAIT {
                        return Err(HubError::RateLimited { url: url.into(), seconds });
                    }
                    tracing::warn!("{url}: too many requests, waiting {:.0} s", pause.as_secs_f64());
                    self.pause(pause)?;
                }
            }
        }
    }

    /// Asks for a file, from a byte on where `from` says so, or only for what describes it.
    pub fn open(&self, url: &str, from: Option<u64>, describe: bool) -> Result<Answer, Failed> {
        let home = origin(&self.endpoint);
        let mut at = url.to_string();
        let (mut etag, mut linked_bytes) = (None, None);
        for _ in 0..=MOST_REDIRECTS {
            let mut request = if describe { self.agent.head(&at) } else { self.agent.get(&at) };
            // The token is for the hub alone: whoever keeps its large files gets addresses that need none.
            if let Some(token) = self.token.as_deref().filter(|_| origin(&at) == home) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some(from) = from {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|e| Failed::Again(reason(&e)))?;
            let status = response.status().as_u16();
            let headers = response.headers();
            etag = word(headers, "x-linked-etag").map(|tag| plain_tag(&tag)).or(etag);
            linked_bytes = word(headers, "x-linked-size").and_then(|size| size.parse().ok()).or(linked_bytes);
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let location = word(headers, "location").unwrap_or_default();
                let next = joined(&at, &location);
                let next =
                    next.ok_or_else(|| answer(url, format!("a redirect to {location:?}, which is no address")))?;
                // What describes a large file stands beside the redirect to it.
                if describe && etag.is_some() && origin(&next) != home {
                    let body = Box::new(std::io::empty());
                    return Ok(Answer { status: 200, body, length: None, from: None, etag, linked_bytes });
                }
                if at.starts_with("https://") && next.starts_with("http://") {
                    return Err(answer(url, format!("a redirect from https to {next}")));
                }
                at = next;
                continue;
            }
            self.refusal(url, status, headers)?;
            let etag = etag.or_else(|| word(headers, "etag").map(|tag| plain_tag(&tag)));
            let length = word(headers, "content-length").and_then(|length| length.parse().ok());
            let from = word(headers, "content-range")
                .and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
            let body = Box::new(response.into_body().into_with_config().limit(u64::MAX).reader());
            return Ok(Answer { status, body, length, from, etag, linked_bytes });
        }
        Err(answer(url, format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// What an answer refuses, if it does.
    ///
    /// # Source
    /// huggingface_hub 1.2, `utils/_http.py`, `hf_raise_for_status`: the header `X-Error-Code`.
    fn refusal(&self, url: &str, status: u16, headers: &HeaderMap) -> Result<(), Failed> {
        let code = word(headers, "x-error-code").unwrap_or_default();
        let message: String = word(headers, "x-error-message").unwrap_or_default().chars().take(300).collect();
        let (repo, endpoint, with_token) = (self.repo.clone(), self.endpoint.clone(), self.token.is_some());
        let error = match (status, code.as_str()) {
            // 416: the part that is asked for lies behind the end.
            (200..=299 | 416, _) => return Ok(()),
            (429, _) => return Err(Failed::Wait(seconds_to_wait(headers))),
            (_, "GatedRepo") => HubError::Gated { repo, endpoint, with_token },
            (_, "RepoNotFound") => HubError::NotFound { repo, endpoint, with_token },
            (_, "RevisionNotFound") => HubError::Revision { repo, revision: self.revision.clone(), endpoint },
            (_, "EntryNotFound") => return Err(answer(url, "the hub lists this file and does not have it".into())),
            (401, _) if with_token => HubError::Token { endpoint },
            (403, _) => HubError::Gated { repo, endpoint, with_token },
            (401 | 404, _) => HubError::NotFound { repo, endpoint, with_token },
            (408 | 500..=599, _) => return Err(Failed::Again(format!("the server answered {status}"))),
            _ => HubError::Status { url: url.into(), status, message },
        };
        Err(error.into())
    }

    /// Whether the caller asked to stop.
    ///
    /// # Errors
    /// [`HubError::Cancelled`] if so.
    pub fn check_cancelled(&self) -> Result<(), HubError> {
        if self.cancel.load(Ordering::Relaxed) { Err(HubError::Cancelled) } else { Ok(()) }
    }

    fn pause(&self, pause: Duration) -> Result<(), HubError> {
        let until = Instant::now() + pause;
        loop {
            self.check_cancelled()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(CANCEL_STEP));
        }
    }
}

fn setting(what: &str, reason: &dyn std::fmt::Display) -> HubError {
    HubError::Setting { what: what.into(), reason: reason.to_string() }
}

fn answer(url: &str, reason: String) -> Failed {
    HubError::Answer { url: url.into(), reason }.into()
}

/// Scheme and host of an address; `None` for what is no address of the web.
pub(super) fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let host = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    (matches!(scheme.as_str(), "http" | "https") && !host.is_empty() && !host.contains(['@', ' ', '\\']))
        .then(|| format!("{scheme}://{host}"))
}

/// Whether an origin is this machine.
fn is_this_machine(origin: &str) -> bool {
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where a redirect leads.
fn joined(from: &str, to: &str) -> Option<String> {
    if to.contains("://") {
        return origin(to).map(|_| to.into());
    }
    let base = origin(from)?;
    match to.strip_prefix("//") {
        Some(rest) => joined(from, &format!("{}://{rest}", base.split_once("://")?.0)),
        None if to.starts_with('/') => Some(format!("{base}{to}")),
        None => None,
    }
}

/// A header's value.
fn word(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.trim().to_string())
}

/// A tag without its quotes and without the mark of a weak one.
fn plain_tag(tag: &str) -> String {
    tag.trim().trim_start_matches("W/").trim_matches('"').to_string()
}

/// Seconds that a server asks to wait: `Retry-After`, or `t` of the newer `RateLimit`.
fn seconds_to_wait(headers: &HeaderMap) -> Option<u64> {
    if let Some(seconds) = word(headers, "retry-after").and_then(|text| text.parse().ok()) {
        return Some(seconds);
    }
    let limit = word(headers, "ratelimit")?;
    limit.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
}

/// What went wrong, in a few words.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host".into(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => format!("no answer within {} s", SILENCE.as_secs()),
        other => other.to_string(),
    }
}

/// A path in an address: what is not plain in its parts becomes `%XX`; slashes too, if `slashes` says so.
fn escaped(path: &str, slashes: bool) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
            b'/' if !slashes => text.push('/'),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_and_told_apart() {
        let at = "https://hub.example/org/name/resolve/main/a.json?x=1";
        assert_eq!(origin(at).as_deref(), Some("https://hub.example"));
        assert_eq!(joined(at, "/other/a.json").as_deref(), Some("https://hub.example/other/a.json"));
        assert_eq!(joined(at, "//cdn.example/a").as_deref(), Some("https://cdn.example/a"));
        assert_eq!(joined(at, "https://cdn.example/a").as_deref(), Some("https://cdn.example/a"));
        for wrong in ["ftp://x/a", "a.json", "file:///etc/passwd", "", "https://u:p@host/a"] {
            assert_eq!(joined(at, wrong), None, "{wrong}");
        }
        for here in ["http://localhost:80", "http://127.0.0.1:9", "http://[::1]:9", "http://127.1.2.3"] {
            assert!(is_this_machine(here), "{here}");
        }
        assert!(!is_this_machine("http://10.0.0.1") && !is_this_machine("http://localhost.example"));
    }

    #[test]
    fn headers_are_read_as_the_hub_writes_them() {
        assert_eq!(plain_tag("\"abc\""), "abc");
        assert_eq!(plain_tag("W/\"abc\""), "abc");
        let mut headers = HeaderMap::new();
        assert_eq!(seconds_to_wait(&headers), None);
        headers.insert("ratelimit", "\"api\";r=0;t=55".parse().unwrap());
        assert_eq!(seconds_to_wait(&headers), Some(55));
        headers.insert("retry-after", "3".parse().unwrap());
        assert_eq!(seconds_to_wait(&headers), Some(3));
        assert_eq!(escaped("refs/pr/1", true), "refs%2Fpr%2F1");
        assert_eq!(escaped("a b/ü.json", false), "a%20b/%C3%BC.json");
    }
}
