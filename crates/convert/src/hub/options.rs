//! What to fetch, from where, to where.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::options::Progress;

/// The public hub.
pub const ENDPOINT: &str = "https://huggingface.co";
/// The revision that is fetched unless another is named.
pub const REVISION: &str = "main";
/// The first pause before another try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Looks at a checkpoint's small files before its weights are fetched, and says why it would not be converted.
pub type Check = Arc<dyn Fn(&Path) -> Result<(), String> + Send + Sync>;

/// What to fetch, from where, to where.
#[derive(Clone)]
pub struct HubOptions {
    /// `ORG/NAME`, or the `NAME` of one of the first models, which have no organisation.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// A GGUF file of the model, by its path there, in place of its folder.
    pub file: Option<String>,
    /// The hub; a mirror, or a server for tests.
    pub endpoint: String,
    /// A token for models that are private or gated.
    pub token: Option<String>,
    /// The cache: the folder that holds `models--ORG--NAME`.
    pub cache: PathBuf,
    /// Fetch nothing: only what the cache holds.
    pub offline: bool,
    /// A proxy's address.
    pub proxy: Option<String>,
    /// Certificates in PEM form that count in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// The first pause before another try.
    pub first_pause: Duration,
    /// Looks at the small files before the weights are fetched.
    pub check: Option<Check>,
    /// Set from another thread to stop; the call then gives [`Cancelled`](super::HubError::Cancelled).
    pub cancel: Arc<AtomicBool>,
    /// Hears bytes that are there and bytes in all, from any thread.
    pub progress: Option<Progress>,
}

impl HubOptions {
    /// The main branch of a model of the public hub, into a cache.
    pub fn new(repo: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            repo: repo.into(),
            revision: REVISION.into(),
            file: None,
            endpoint: ENDPOINT.into(),
            token: None,
            cache: cache.into(),
            offline: false,
            proxy: None,
            certificates: None,
            first_pause: FIRST_PAUSE,
            check: None,
            cancel: Arc::default(),
            progress: None,
        }
    }
}
