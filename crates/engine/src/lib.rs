//! Any modality in, one vector out, on any Burn backend; and with a reranker, scores of documents for a query.
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
//! Tools that examine an engine (journals and their replay, a self-test, a load test, the limits of the machine) live in
//! `omniburn-diagnostics` and see no more of it than stands here; what they hook into is [`probe`].
//!
//! | room, from above to below | what |
//! |---|---|
//! | `engine` | the facade: [`Engine`], how it is opened, what it is |
//! | `session` | one open record on one device. `open`: what calls share. `stream`: a call of any length, what is prepared ahead, what is computed together. `run`: the units of a window. `plan`: which items share a unit. `parts`: towers and tasks, opened when first used. `warm`: what is paid once, paid ahead |
//! | `options` | the settings of an engine to be opened |
//! | `prepare` | on the threads of callers: `preparer` reads, decodes, tokenises; `prompt` lays prefixes, media templates, suffixes; `estimate` says from a header what an item takes; `work` counts operations |
//! | `cache` | equal inputs computed once, kept results |
//! | `worker` | one thread a device. `submit`: what callers hand to it. `thread`, `slices`, `texts`, `towers`: time slices, texts and media of several callers in one pass. `forward`: a unit in steps, upload, layer after layer, read back. `cost`, `metrics`: what steps take, learnt from those that ran; how long callers waited |
//! | `memory` | the one budget that all callers share |
//! | `device`, `backend` | a device from within, for tools; the only place that names devices |
//! | `forms` | what is handed from `prepare` to `worker`: patches, mel frames, whole images, the ids around them |
//! | `call`, `embedding`, `error` | what callers say and get: [`Input`], [`Request`], [`Embedded`], events |
//!
//! A file imports its own room and those below it, never one above: `cargo xtask ci --only rooms` holds that. What waits, and
//! what is computed next and together, is decided in `omniburn_scheduler`.
#![forbid(unsafe_code)]

mod backend;
mod cache;
mod call;
mod device;
mod embedding;
mod engine;
mod error;
mod forms;
mod memory;
mod options;
mod prepare;
mod session;
mod worker;

pub use backend::{BackendKind, BackendSpec, Capabilities};
pub use cache::{CacheStats, ResultCache};
pub use call::{
    Asked, Chunk, Embedded, Features, Input, InputDigest, OutputKind, Progress, Ranked, Request, Role, Segment, Span,
    Sparse, Timings, max_sim,
};
pub use embedding::{Embedding, EmbeddingError};
pub use engine::{Engine, EngineBuilder, Profile};
pub use error::{EngineError, ErrorKind, ItemError};
pub use omniburn_media::{Height, MediaError, PairCut, RgbImage, TextToken, TrackChoice, Truncation, Width};
pub use omniburn_models::record::{Dtype, Modality, RecordFolder};
pub use omniburn_models::{Isa, RecordError, settle_allocator};
pub use omniburn_scheduler::{Cancel, Priority, SchedulerPolicy};
pub use options::{DEFAULT_BUDGET_BYTES, DEFAULT_TIME_SLICE};
pub use session::EmbedIter;
pub use worker::{ClassStats, DurationStats, MetricsSnapshot};

/// Files before they are inputs: what kind they are of, and images as pixels.
pub mod media {
    pub use omniburn_media::{
        FileKind, NotText, OTHER_TEXT, TextEncoding, TrackInfo, VideoSource, decode_image, has_images, is_animation,
        known_image_ending, resize_bicubic, sniff,
    };
}

/// The processor's instructions that a CPU computes with, chosen by measurement.
pub mod kernels {
    pub use omniburn_models::{Isa, IsaUnavailable, KernelChoice, KernelTime, Processor, TimedKernel};
}

/// What lies in a record and what its model takes: for tools that show records, and for tests.
pub mod record {
    pub use omniburn_media::{MelPreprocess, VisionPreprocess};
    pub use omniburn_models::family::{ListPrompt, PairForm, Similarity};
    pub use omniburn_models::record::int8::is_scale;
    pub use omniburn_models::record::{RecordHeader, TemplateKind};
    pub use omniburn_models::{FAMILIES, Family, FamilyConfig};

    pub use crate::backend::default_dtype;
    pub use crate::memory::{LargestInput, copied_weights, largest_inputs};
    pub use crate::prepare::{mel_preprocess, vision_preprocess};
    pub use crate::session::VERIFY_SMALL_BYTES;
}

/// Hooks for tools that examine an engine: what happens in a call, what an input costs, the device from within.
pub mod probe {
    pub use omniburn_models::{IsaUnavailable, KernelRow};

    pub use crate::call::{Answered, CallBegun, CallEvent, ItemDone, PairDone, Sha256Digest, UnitRan};
    pub use crate::device::{DeviceProbe, Product};
    pub use crate::prepare::Work;
    pub use crate::session::WarmPass;
    pub use crate::worker::Metrics;
}

#[cfg(test)]
mod tests {
    //! What tests of this crate open.

    use std::path::{Path, PathBuf};

    use omniburn_models::backbone::BackboneConfig;
    use omniburn_models::families::OmniConfig;
    use omniburn_models::record::{Dtype, write_random};
    use tempfile::TempDir;

    /// A text-only record of random weights, in a folder that lives as long as the first result.
    pub(crate) fn record() -> (TempDir, PathBuf) {
        let text = BackboneConfig {
            hidden: 32,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            inner: 48,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            causal: true,
            qk_norm: true,
            max_tokens: 128,
            vocab: 500,
        };
        // Cargo runs the tests of a package in its folder.
        let tokenizer = Path::new("../../tests/golden/checkpoints/omni-small-tiny/tokenizer.json");
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("record");
        let config = OmniConfig { text, vision: None, audio: None };
        write_random(&out, &config, Dtype::F32, (1, 1), tokenizer, 3).unwrap();
        (folder, out)
    }
}
