//! Folders of mixed files as one SQLite file or on a Postgres server, kept true, searched by words and by meaning.
//!
//! What lives here: which files of a folder are taken, their text with its places, how a text is cut, the database, the exact
//! search over vectors, the search by words, and how both become one list. What does not: models, devices and arguments. A model
//! is an [`Embedder`]; the engine is one with the feature `engine`.
//!
//! | where | what |
//! |---|---|
//! | `index` | the facade: [`Index`] |
//! | `update`, `look`, `crawl`, `extract`, `chunk` | from folders to chunks: what changed, which files, their text, its pieces |
//! | `plan`, `watch` | what an update would do, and when one is due |
//! | `store` | what lasts, in one SQLite file or on a Postgres server, and the lock of its writer |
//! | `transfer`, `lines`, `columns` | all of it as lines of JSON, or as a Parquet file |
//! | `bits` | sets of rows; the exact search over vectors is `omniburn_kernels::cpu::nearest` |
//! | `query`, `script`, `words`, `search`, `snippet`, `calibration` | what is typed, and what is found |
//! | `rerank` | the best hits read again by a reranker |
//! | `map` | the files on a plane |
//! | `get`, `part` | a hit opened, and a part of audio or video as a file of its own |
//! | `kind`, `locator`, `embedder`, `error` | what is handed between them |
//! | `feeder` | the engine as an [`Embedder`], and as a [`Reranker`] |
#![forbid(unsafe_code)]

mod bits;
mod calibration;
mod chunk;
#[cfg(feature = "parquet")]
mod columns;
mod crawl;
mod embedder;
mod error;
mod extract;
#[cfg(feature = "engine")]
mod feeder;
mod get;
mod index;
mod kind;
mod lines;
mod locator;
mod look;
mod map;
mod part;
mod plan;
mod query;
mod rerank;
mod script;
mod search;
mod snippet;
mod store;
mod transfer;
mod update;
mod watch;
mod words;

pub use calibration::{Apart, Calibration, PairCalibration};
pub use crawl::{Root, Rules};
pub use embedder::{Content, Embedder, EmbedderProfile, Vector};
pub use error::{Fault, IndexError, QueryError};
#[cfg(feature = "engine")]
pub use feeder::{EngineEmbedder, EngineReranker};
pub use get::{About, Opened, content_of_file};
pub use index::{Index, Sought, canonical, query_vector};
pub use kind::{Kind, Modality};
pub use locator::{Locator, LocatorBody};
pub use map::{CollectionMap, MapPoint};
pub use plan::Plan;
pub use query::{Filter, Query, kinds_of, time_of};
pub use rerank::Reranker;
pub use search::{Hit, HitBody, HitScores, MinScore, Mode, Reranking, SearchOptions, uri_of};
pub use snippet::Snippet;
pub use store::{FailedFile, Status, shown_place};
pub use update::{Control, Progress, Report};
pub use watch::News;
