//! What every request sees of the server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use omniburn::Cancel;
use omniburn_index::{Embedder, EngineEmbedder, IndexError};

use crate::calls::Calls;
use crate::finder::Finder;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::options::Options;

/// Shared by all requests.
pub(crate) struct State {
    pub options: Options,
    pub models: Models,
    pub calls: Calls,
    pub metrics: Metrics,
    pub finder: Option<Arc<Finder>>,
    /// Nothing new is accepted.
    pub draining: AtomicBool,
    /// Seconds since 1970.
    pub started: u64,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let models = Models::new(&options.models);
        let metrics = Metrics::new(models.clone());
        let calls = Calls::new(options.max_queue);
        let finder = options.index.clone().map(|source| Arc::new(Finder::new(source)));
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { options, models, calls, metrics, finder, draining: AtomicBool::new(false), started }
    }

    /// Leaves out an index that is not of the model that is searched with, or refuses it where the settings ask for it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn check_index(&mut self) -> Result<(), IndexError> {
        let Some(source) = &self.options.index else { return Ok(()) };
        let found = self.models.slots().iter().find(|slot| slot.name() == source.model).and_then(|slot| slot.opened());
        let Some(engine) = found else { return Ok(()) };
        let profile = EngineEmbedder::new(engine, Cancel::new()).profile();
        match (source.open)().and_then(|index| index.agree(&profile)) {
            Err(error) if source.required => return Err(error),
            Err(error) => {
                tracing::warn!("no index is searched: {error}");
                self.finder = None;
            }
            Ok(()) => {}
        }
        Ok(())
    }
}
