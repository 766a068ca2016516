//! Connections: how many, how long they may take to say what they want, and the orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::options::Options;
use crate::routes;
use crate::state::State;
use crate::threads::stand_behind;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address could not be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// No threads for the runtime.
    #[error("no threads to serve with: {0}")]
    Runtime(#[source] io::Error),
    /// A model could not be opened.
    #[error(transparent)]
    Model(#[from] omniburn::EngineError),
    /// The index could not be opened, or is of another model.
    #[error(transparent)]
    Index(#[from] omniburn_index::IndexError),
    /// The settings name no model, or a model without a name.
    #[error("nothing to serve: no model was named")]
    NoModel,
}

/// Stops a server from another thread. Clones stop the same server.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A handle of a server that is yet to be started.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Nothing new is accepted from here on; what was accepted is answered.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Opens the first model and serves until stopped. `listening` is called with the address once requests are accepted.
///
/// # Errors
/// [`ServeError`] before the first request; none after it.
pub fn serve(options: Options, stop: &Stop, listening: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let runtime = runtime(&options)?;
    let served = runtime.block_on(run(options, stop, listening));
    // A call that outlived the drain is left behind.
    runtime.shutdown_timeout(Duration::from_millis(500));
    served
}

/// Opens the first model and answers the Model Context Protocol on standard input and output, until the input ends or it is
/// stopped.
///
/// # Errors
/// As [`serve`], but for the address, which is not listened on.
pub fn serve_stdio(options: Options, stop: &Stop) -> Result<(), ServeError> {
    let runtime = runtime(&options)?;
    let served = runtime.block_on(async {
        let state = opened(options).await?;
        let mut stopped = stop.0.subscribe();
        tokio::select! {
            () = crate::mcp::over_stdio(&state) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        if let Some(finder) = &state.finder {
            finder.stop();
        }
        Ok(())
    });
    // Standard input is read by a thread that nothing wakes.
    runtime.shutdown_timeout(Duration::from_millis(500));
    served
}

/// Threads for what a server does beside computing.
fn runtime(options: &Options) -> Result<Runtime, ServeError> {
    if options.models.is_empty() || options.models.iter().any(|model| model.names.is_empty()) {
        return Err(ServeError::NoModel);
    }
    let decoding = rayon::ThreadPoolBuilder::new().start_handler(|_| stand_behind());
    if let Err(error) = decoding.thread_name(|i| format!("omniburn-decode-{i}")).build_global() {
        tracing::debug!("threads that decode stay where they are: {error}");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(options.max_queue + 16).thread_name("http").enable_all();
    builder.build().map_err(ServeError::Runtime)
}

/// The server's state, with its first model open and its index looked at.
async fn opened(options: Options) -> Result<Arc<State>, ServeError> {
    let mut state = State::new(options);
    state.models.open_first().await?;
    // An index on a server of databases is asked over a connection that blocks.
    let checked = tokio::task::spawn_blocking(move || state.check_index().map(|()| state)).await;
    Ok(Arc::new(checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?))
}

async fn run(options: Options, stop: &Stop, listening: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let address = options.address;
    let refused = |source| ServeError::Address { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let state = opened(options).await?;
    let router = routes::router(Arc::clone(&state));
    if let Some(idle) = state.options.idle_unload {
        tokio::spawn(unload_idle(Arc::clone(&state), idle));
    }
    listening(bound);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(state.options.max_connections));
    let mut stopped = stop.0.subscribe();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most often: those in use will be given back.
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are short; a lost race for it changes nothing but a delay.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(state.options.read_timeout)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    state.draining.store(true, Ordering::SeqCst);
    if let Some(finder) = &state.finder {
        finder.stop();
    }
    drop(listener);
    if tokio::time::timeout(state.options.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("{} calls were not done after {} s", state.calls.in_work(), state.options.drain.as_secs());
    }
    Ok(())
}

async fn unload_idle(state: Arc<State>, idle: Duration) {
    let mut tick = tokio::time::interval((idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(30)));
    loop {
        tick.tick().await;
        let models = state.models.clone();
        let closed = tokio::task::spawn_blocking(move || models.unload_idle(idle)).await;
        if let Err(error) = closed {
            tracing::error!("unloading: {error}");
        }
    }
}
