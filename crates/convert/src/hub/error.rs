//! Why a checkpoint was not fetched.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint was not fetched. What was fetched by then stays in the cache, and the next call goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name or revision that no hub knows the form of.
    #[error("{what} `{found}`: expected {expected}")]
    Name {
        /// Which setting.
        what: &'static str,
        /// What was given.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The hub has no model of this name, or none that this token may see.
    #[error("{repo}: {endpoint} has no such model{}", without_token(*.with_token))]
    NotFound {
        /// `ORG/NAME`.
        repo: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The model has no such branch, tag or commit.
    #[error("{repo}: no revision `{revision}` at {endpoint}")]
    Revision {
        /// `ORG/NAME`.
        repo: String,
        /// What was asked for.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The model is given only to people who accepted its terms.
    #[error("{repo} is gated: {}", gated_way(.repo, .endpoint, *.with_token))]
    Gated {
        /// `ORG/NAME`.
        repo: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The token was refused.
    #[error("{endpoint} does not accept this token: a new one comes from {endpoint}/settings/tokens")]
    Token {
        /// The hub.
        endpoint: String,
    },
    /// A token would go over a connection that others can read.
    #[error("{endpoint}: a token is sent over https or to this machine only; leave it out, or name an https endpoint")]
    TokenInTheOpen {
        /// The hub.
        endpoint: String,
    },
    /// The hub asks to come back later, and was asked often enough.
    #[error("{url}: too many requests{}; try again later", later(*.seconds))]
    RateLimited {
        /// What was asked for.
        url: String,
        /// Seconds to wait, where the hub says so.
        seconds: Option<u64>,
    },
    /// An answer that is neither the file nor one of the refusals above.
    #[error("{url}: the server answered {status}{}", colon(.message))]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server says about it; may be empty.
        message: String,
    },
    /// No answer, or one that broke off, as often as it was tried.
    #[error("{url}: {reason}, {tries} times in a row; what came so far is kept, the next `pull` goes on from there")]
    Connection {
        /// What was asked for.
        url: String,
        /// What happened last.
        reason: String,
        /// Attempts without a byte of progress.
        tries: u32,
    },
    /// An answer of the hub that is not what its interface says.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file is not the one that the hub lists.
    #[error("{file}: SHA-256 {found}, and the hub says {expected}; the file was thrown away")]
    Digest {
        /// Path inside the model.
        file: String,
        /// As the hub lists it.
        expected: String,
        /// Of the bytes that came.
        found: String,
    },
    /// Weights in formats that are not read, and none in one that is.
    #[error("{repo}: no model.safetensors, only {}; {}", .found.join(", "), other_way(.found))]
    Weights {
        /// `ORG/NAME`.
        repo: String,
        /// Weight files that are there.
        found: Vec<String>,
    },
    /// Files without which nothing can be converted.
    #[error("{repo} at {commit}: no {}", .files.join(", no "))]
    Incomplete {
        /// `ORG/NAME`.
        repo: String,
        /// The commit.
        commit: String,
        /// What is not there.
        files: Vec<String>,
    },
    /// The model has no such GGUF file.
    #[error("{repo} at {commit}: no file {file}; {}", gguf_files(.others))]
    NoFile {
        /// `ORG/NAME`.
        repo: String,
        /// The commit.
        commit: String,
        /// What was asked for.
        file: String,
        /// The GGUF files that are there.
        others: Vec<String>,
    },
    /// What the small files say is nothing that is converted; no weights were fetched.
    #[error("{repo}: {reason}; its weights were not fetched")]
    Refused {
        /// `ORG/NAME`.
        repo: String,
        /// Why, as the conversion would say it.
        reason: String,
    },
    /// Nothing may be fetched, and the cache does not hold it all.
    #[error("{repo}: {missing} not in {}, and nothing is fetched with --offline", .cache.display())]
    Offline {
        /// `ORG/NAME`.
        repo: String,
        /// What is missing.
        missing: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A certificate file or proxy that cannot be used.
    #[error("{what}: {reason}")]
    Setting {
        /// Which setting.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The cache could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled; what came so far is kept")]
    Cancelled,
}

impl HubError {
    /// Exit code of a command that ends with this error: 2 for what was typed, 3 for a model that is refused, 1 for
    /// networks and disks, 130 when interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            HubError::Name { .. }
            | HubError::NotFound { .. }
            | HubError::Revision { .. }
            | HubError::NoFile { .. }
            | HubError::Gated { .. }
            | HubError::Token { .. }
            | HubError::TokenInTheOpen { .. }
            | HubError::Offline { .. }
            | HubError::Setting { .. } => 2,
            HubError::Digest { .. }
            | HubError::Weights { .. }
            | HubError::Incomplete { .. }
            | HubError::Refused { .. } => 3,
            HubError::Cancelled => 130,
            _ => 1,
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| HubError::Io { path, source }
    }
}

fn without_token(with_token: bool) -> &'static str {
    if with_token { ", or not for the owner of this token" } else { "; a private one needs a token: --token-file FILE" }
}

fn gated_way(repo: &str, endpoint: &str, with_token: bool) -> impl fmt::Display {
    let page = format!("accept its terms at {endpoint}/{repo}");
    if with_token {
        format!("{page} with the account that this token belongs to, which has not done so yet or was not let in")
    } else {
        format!("{page}, make a token at {endpoint}/settings/tokens, and give it with --token-file FILE or HF_TOKEN")
    }
}

fn gguf_files(others: &[String]) -> String {
    if others.is_empty() { "it has no GGUF file".into() } else { format!("it has {}", others.join(", ")) }
}

/// What to do about weights in other formats.
fn other_way(found: &[String]) -> &'static str {
    if found.iter().any(|file| file.to_ascii_lowercase().ends_with(".gguf")) {
        "--file names a GGUF file of it"
    } else {
        "a pickle is never opened: ask its authors for safetensors, or convert it with transformers"
    }
}

fn later(seconds: Option<u64>) -> String {
    seconds.map(|seconds| format!(" for the next {seconds} s")).unwrap_or_default()
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
