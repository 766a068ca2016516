//! What is served, where, and within which limits.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use omniburn::{Engine, EngineError};
use omniburn_index::{Index, IndexError};

/// Opens the engine of a model; called again after it was unloaded.
pub type OpenModel = Arc<dyn Fn() -> Result<Engine, EngineError> + Send + Sync>;

/// A model and the names that requests may call it by.
#[derive(Clone)]
pub struct ModelSource {
    /// At least one; the first is shown.
    pub names: Vec<String>,
    /// Whether it scores documents beside a query, so that a search may be reranked by it. Known before it is opened.
    pub reranks: bool,
    /// How it is opened.
    pub open: OpenModel,
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelSource").field(&self.names).finish()
    }
}

/// Opens the index, with its scores; called for each handle that it is read through.
pub type OpenIndex = Arc<dyn Fn() -> Result<Index, IndexError> + Send + Sync>;

/// An index that is searched.
#[derive(Clone)]
pub struct IndexSource {
    /// Name of the model whose vectors it holds, one of those served.
    pub model: String,
    /// How it is opened.
    pub open: OpenIndex,
    /// What `~` in a query stands for.
    pub home: Option<PathBuf>,
    /// Whether a server does not start without it. Else one of another model is left out, with a warning.
    pub required: bool,
    /// Whether its folders are looked at again while it is searched.
    pub refresh: bool,
}

impl fmt::Debug for IndexSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexSource")
            .field("model", &self.model)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The models. The first answers requests that name none.
    pub models: Vec<ModelSource>,
    /// The index that `/v1/search` and the page search.
    pub index: Option<IndexSource>,
    /// Keys, one of which each request must bring; without any no key is asked for.
    pub keys: Vec<String>,
    /// Names other than IP addresses and `localhost` that a request may give as `Host` where no key is asked for.
    pub allow_hosts: Vec<String>,
    /// Origins whose pages may call, such as `https://example.org`; pages of this server always may.
    pub allow_origins: Vec<String>,
    /// Calls in work at once, those that wait for the device included; one more is refused with status 429.
    pub max_queue: usize,
    /// A model that nobody asked for so long is unloaded.
    pub idle_unload: Option<Duration>,
    /// Bytes of a request's body at most.
    pub max_body: usize,
    /// Inputs of a request at most.
    pub max_inputs: usize,
    /// Connections at once at most.
    pub max_connections: usize,
    /// Time for the headers of a request, and between two pieces of its body.
    pub read_timeout: Duration,
    /// Time for what was accepted to be answered after a stop.
    pub drain: Duration,
}

impl Options {
    /// Models on an address, with the limits that suit most.
    #[must_use]
    pub fn new(address: SocketAddr, models: Vec<ModelSource>) -> Self {
        Self {
            address,
            models,
            index: None,
            keys: Vec::new(),
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            max_queue: 256,
            idle_unload: None,
            max_body: 64 << 20,
            max_inputs: 2048,
            max_connections: 1024,
            read_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}
