//! Engines behind HTTP: one process that the usual embedding clients speak to.
//!
//! [`serve`] blocks until [`Stop::stop`] is called and what was accepted is answered. It owns its runtime, so a program needs
//! none of its own; compute stays on the threads of the engines.
//!
//! | room | what |
//! |---|---|
//! | `options` | what is served, where, and the limits |
//! | `accept` | connections: limits, time limits, the orderly end |
//! | `guard` | who may ask: `Host`, `Origin`, key; the access log |
//! | `routes` | one file an interface: OpenAI and Jina, text-embeddings-inference, rerank, search, the map, and what the server says of itself |
//! | `item`, `body`, `vector` | JSON into inputs, bodies within their limits, vectors into JSON |
//! | `finder` | the index: searched, opened by id, kept true |
//! | `models` | the engines by name: opened once, unloaded when idle |
//! | `calls` | how many calls are in work, and what happens to one whose client went away |
//! | `mcp` | tools for agents, by the Model Context Protocol |
//! | `metrics` | counts and durations for Prometheus |
//! | `traces` | the span of a request, the parent of what engines do for it |
//! | `error`, `ids` | the error a client gets, and the numbers that name it in the log |
//!
//! Nothing here opens a connection, reads the environment, or reads a file that a client names.
#![forbid(unsafe_code)]

mod accept;
mod body;
mod calls;
mod error;
mod finder;
mod guard;
mod ids;
mod item;
mod mcp;
mod metrics;
mod models;
mod options;
mod routes;
mod state;
mod threads;
mod traces;
mod vector;

pub use accept::{ServeError, Stop, serve, serve_stdio};
pub use options::{IndexSource, ModelSource, OpenIndex, OpenModel, Options};
