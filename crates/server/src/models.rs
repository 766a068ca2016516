//! The engines by name: opened when first asked for, once however many ask, and unloaded when nobody asked for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use omniburn::{Engine, EngineError};

use crate::error::ApiError;
use crate::options::{ModelSource, OpenModel};

/// Every model served.
#[derive(Clone)]
pub(crate) struct Models(Arc<[Arc<Slot>]>);

/// One model.
pub(crate) struct Slot {
    names: Vec<String>,
    reranks: bool,
    open: OpenModel,
    /// Held while it is opened, so that it is opened once.
    opening: tokio::sync::Mutex<()>,
    engine: Mutex<Option<Engine>>,
    used: Mutex<Instant>,
    leases: AtomicUsize,
}

/// An engine that is not unloaded while this is held.
pub(crate) struct Lease {
    engine: Engine,
    slot: Arc<Slot>,
    /// Whether somebody asked for the model: only then its idle time begins anew when this goes.
    asked: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The name that is shown.
    pub(crate) fn name(&self) -> &str {
        self.slot.name()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.asked {
            *locked(&self.slot.used) = Instant::now();
        }
        self.slot.leases.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slot {
    pub(crate) fn name(&self) -> &str {
        &self.names[0]
    }

    /// The engine, where it is open.
    pub(crate) fn opened(&self) -> Option<Engine> {
        locked(&self.engine).clone()
    }

    /// Counts the lease before the engine is looked at, so that it is not unloaded in between.
    fn lease(self: &Arc<Self>, asked: bool) -> Option<Lease> {
        let engine = locked(&self.engine);
        let engine = engine.clone()?;
        self.leases.fetch_add(1, Ordering::SeqCst);
        Some(Lease { engine, slot: Arc::clone(self), asked })
    }

    async fn get(self: &Arc<Self>) -> Result<Lease, ApiError> {
        if let Some(lease) = self.lease(true) {
            return Ok(lease);
        }
        let _opening = self.opening.lock().await;
        if let Some(lease) = self.lease(true) {
            return Ok(lease);
        }
        let (open, begun) = (Arc::clone(&self.open), Instant::now());
        let opened = tokio::task::spawn_blocking(move || open()).await.map_err(|error| ApiError::internal(&error))?;
        let engine = opened.map_err(|error| {
            tracing::error!(model = self.name(), "{error}");
            let message = format!("the model `{}` could not be opened: {error}", self.name());
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "model_unavailable", message).of("model")
        })?;
        tracing::info!(model = self.name(), ms = begun.elapsed().as_millis() as u64, "opened");
        *locked(&self.engine) = Some(engine);
        self.lease(true).ok_or_else(|| ApiError::internal(&"a model was unloaded as it was opened"))
    }

    /// Gives back the engine to be dropped, if nobody uses it or has for so long.
    fn unload(&self, idle: Duration) -> Option<Engine> {
        let mut engine = locked(&self.engine);
        let unused = self.leases.load(Ordering::SeqCst) == 0 && locked(&self.used).elapsed() >= idle;
        if unused { engine.take() } else { None }
    }
}

impl Models {
    pub(crate) fn new(sources: &[ModelSource]) -> Self {
        let slot = |source: &ModelSource| {
            Arc::new(Slot {
                names: source.names.clone(),
                reranks: source.reranks,
                open: Arc::clone(&source.open),
                opening: tokio::sync::Mutex::default(),
                engine: Mutex::default(),
                used: Mutex::new(Instant::now()),
                leases: AtomicUsize::new(0),
            })
        };
        Self(sources.iter().map(slot).collect())
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.0
    }

    /// The model of a name, or the first one; opened if it is not.
    ///
    /// # Errors
    /// 404 with the names there are; 503 if it cannot be opened.
    pub(crate) async fn get(&self, name: Option<&str>) -> Result<Lease, ApiError> {
        match name {
            None => self.0.first().ok_or_else(|| self.absent(""))?.get().await,
            Some(name) => self.find(name)?.get().await,
        }
    }

    /// The model that reranks: the one of a name, or the only one that can.
    ///
    /// # Errors
    /// 404 where none is served, 400 where several are and none is named, and as [`Models::get`].
    pub(crate) async fn reranker(&self, name: Option<&str>) -> Result<Lease, ApiError> {
        if name.is_some() {
            return self.get(name).await;
        }
        let able: Vec<&Arc<Slot>> = self.0.iter().filter(|slot| slot.reranks).collect();
        match able[..] {
            [one] => one.get().await,
            [] => {
                let message =
                    "no reranker is served: `omniburn serve --model MODEL --model rank=DIR` serves one beside";
                Err(ApiError::new(StatusCode::NOT_FOUND, "no_reranker", message))
            }
            _ => {
                let names: Vec<&str> = able.iter().map(|slot| slot.name()).collect();
                let message = format!("several rerankers are served, name one: {}", names.join(", "));
                Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message))
            }
        }
    }

    /// The model of a name where it is open. What is done with it does not count as a use: it is unloaded as if nobody had
    /// asked.
    pub(crate) fn opened(&self, name: &str) -> Option<Lease> {
        self.find(name).ok()?.lease(false)
    }

    /// The model of a name, open or not.
    ///
    /// # Errors
    /// 404 with the names there are.
    pub(crate) fn find(&self, name: &str) -> Result<&Arc<Slot>, ApiError> {
        let found = self.0.iter().find(|slot| slot.names.iter().any(|known| known == name));
        found.ok_or_else(|| self.absent(name))
    }

    fn absent(&self, name: &str) -> ApiError {
        let known: Vec<&str> = self.0.iter().map(|slot| slot.name()).collect();
        let message = format!("no model `{name}`; served are: {}", known.join(", "));
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).of("model")
    }

    /// Opens the first model, as a start does.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) async fn open_first(&self) -> Result<(), EngineError> {
        let Some(slot) = self.0.first() else { return Ok(()) };
        let open = Arc::clone(&slot.open);
        // A panic while a model opens is a bug that ends the start.
        let engine = tokio::task::spawn_blocking(move || open()).await.unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic.into_panic());
        })?;
        *locked(&slot.engine) = Some(engine);
        *locked(&slot.used) = Instant::now();
        Ok(())
    }

    /// Unloads what was not used for so long. Blocks while engines close.
    pub(crate) fn unload_idle(&self, idle: Duration) {
        for slot in self.slots() {
            if let Some(engine) = slot.unload(idle) {
                tracing::info!(model = slot.name(), "unloaded: not used for {} s", idle.as_secs());
                drop(engine);
            }
        }
    }
}
