//! Any modality in, one vector out, on any Burn backend.
//!
//! ```no_run
//! use omniburn::{Engine, Input, Role};
//! # fn main() -> Result<(), omniburn::EngineError> {
//! let engine = Engine::open("records/small")?;
//! let found = engine.embed(&[Input::text("a red bicycle"), Input::image_file("bike.jpg")], Role::Document)?;
//! println!("{}", engine.embed_one(Input::text("something to ride"), Role::Query)?.cosine(&found[1]));
//! # Ok(())
//! # }
//! ```
//!
//! An [`Engine`] opens a record folder, decides what runs when, runs one bounded unit at a time, and gives back
//! [`Embedding`]s: finite and of unit length, or a typed error that names the input. It blocks, needs no async runtime,
//! reads no environment and uses no network. No Burn type stands in this surface.
//!
//! | where | what |
//! |---|---|
//! | `request` | what callers say: [`Input`], [`Role`], [`Request`] |
//! | `prompt` | prefixes, media templates, suffixes: which rows enter the backbone |
//! | `plan` | which items share a unit |
//! | `omniburn_scheduler`, `worker`, `metrics` | what waits and what is computed next, on one thread a device, with its times |
//! | `need`, `memory` | what an item takes, from its header; the one budget that all callers share |
//! | `prepare` | reading, decoding, tokenising, on the threads of callers |
//! | `stream` | a call of any length: what is prepared ahead, what is computed together |
//! | `run`, `forward` | the units of a window; a unit in steps: upload, layer after layer, read back |
//! | `unit` | a unit in time slices no longer than they should be, texts of several callers in one pass |
//! | `cost` | what steps take on this machine, learnt from those that ran |
//! | `shared`, `key` | equal inputs computed once, kept results; what makes inputs equal |
//! | `journal`, `replay` | what a call notes of itself; doing it again and comparing the bits |
//! | `parts` | towers and tasks of a record, opened when first used |
//! | `backend` | the only place that names devices |
//! | `warm` | what is paid once, paid ahead: parts opened, and off flex kernels compiled and tuned |
//! | `work`, `peak` | what an input is in operations, and what the machine can do at most |
//! | `selftest` | an engine that examines itself: operations, stored vectors, waits and time slices under a short load |
#![forbid(unsafe_code)]

mod backend;
mod cost;
mod embedding;
mod engine;
mod error;
mod forward;
mod journal;
mod key;
mod memory;
mod metrics;
mod need;
mod options;
mod parts;
mod peak;
mod plan;
mod prepare;
mod prompt;
mod replay;
mod request;
mod run;
mod selftest;
mod shared;
mod stream;
mod unit;
mod warm;
mod work;
mod worker;

use omniburn_scheduler as scheduler;

pub use backend::{BackendKind, BackendSpec, Capabilities};
pub use embedding::{Embedding, EmbeddingError};
pub use engine::{Engine, EngineBuilder, Profile};
pub use error::{EngineError, ErrorKind, ItemError};
pub use journal::{
    Answered, ItemOutcome, JOURNAL_FORMAT, JournalEntry, JournalItem, JournalOpen, JournalUnit, VectorDigest,
};
pub use key::InputDigest;
pub use metrics::{ClassStats, DurationStats, Metrics, MetricsSnapshot};
pub use omniburn_media::{
    Height, MediaError, MelPreprocess, NotText, OTHER_TEXT, RgbImage, SEGMENT_SECONDS, TextEncoding, TrackChoice,
    TrackInfo, Truncation, VideoSource, VisionPreprocess, Width, decode_image, has_images, is_animation,
    known_image_ending, resize_bicubic, sniff,
};
pub use omniburn_models::family::{AudioForm, ImageForm, ModelSpec};
pub use omniburn_models::record::int8::is_scale;
pub use omniburn_models::record::{Dtype, Modality, RecordFolder, RecordHeader, TemplateKind};
pub use omniburn_models::{FAMILIES, Family, FamilyConfig};
pub use omniburn_models::{Isa, IsaUnavailable, KernelRow, RecordError, settle_allocator};
pub use omniburn_scheduler::{Cancel, Priority, SchedulerPolicy};
pub use options::{Budget, DEFAULT_BUDGET_BYTES, DEFAULT_TIME_SLICE, EngineOptions, VERIFY_SMALL_BYTES};
pub use parts::copied_weights;
pub use peak::Peak;
pub use prepare::{mel_preprocess, vision_preprocess};
pub use replay::{ReplayDifference, ReplayReport, Replayed};
pub use request::{Asked, Embedded, Input, Progress, Request, Role, Segment, Span, Timings};
pub use selftest::{ItemRow, LoadReport, SelfTest, Stored, StoredDistance};
pub use shared::{CacheStats, ResultCache};
pub use stream::EmbedIter;
pub use warm::WarmPass;
pub use work::Work;
