//! How an engine is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use omniburn_models::KernelChoice;
use omniburn_models::record::{Dtype, Modality};
use omniburn_scheduler::SchedulerPolicy;

use crate::backend::BackendSpec;
use crate::cache::ResultCache;

/// The memory budget unless another is given: 4 GiB.
pub const DEFAULT_BUDGET_BYTES: u64 = 4 << 30;

/// How long background work has the device at a time by default: 25 ms.
pub const DEFAULT_TIME_SLICE: Duration = Duration::from_millis(25);

/// Settings of an engine; [`crate::EngineBuilder`] fills them in.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// Where to compute.
    pub device: BackendSpec,
    /// The type products are computed in; `None`: the best the record and the device allow.
    pub dtype: Option<Dtype>,
    /// The task to embed for; `None`: the record's default.
    pub task: Option<String>,
    /// Bytes of anonymous memory the engine may take beside what it has when it is opened.
    pub budget_bytes: u64,
    /// The modalities whose towers may load; `None`: all the record has.
    pub modalities: Option<Vec<Modality>>,
    /// How the scheduler treats its classes of priority.
    pub scheduler: SchedulerPolicy,
    /// How long background work has the device at a time, where it can be cut that fine.
    pub time_slice: Duration,
    /// Results kept for inputs that come again.
    pub cache: Option<Arc<ResultCache>>,
    /// Threads the CPU backend computes with; `None`: one a core.
    pub threads: Option<usize>,
    /// Whether every byte of a part is read against its digest when the part is opened. Parts of up to
    /// 64 MiB always are.
    pub verify: bool,
    /// Where a device other than flex keeps what tuning found; `None`: nowhere.
    pub tuning: Option<PathBuf>,
    /// What the CPU backend computes with; `None`: what the processor's flags say.
    pub kernels: Option<KernelChoice>,
    /// The program asked to decode videos whose codec nothing here decodes (HEVC, VP9); `None`: they are refused by name.
    pub ffmpeg: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: BackendSpec::default(),
            dtype: None,
            task: None,
            budget_bytes: DEFAULT_BUDGET_BYTES,
            modalities: None,
            scheduler: SchedulerPolicy::default(),
            time_slice: DEFAULT_TIME_SLICE,
            cache: None,
            threads: None,
            verify: false,
            tuning: None,
            kernels: None,
            ffmpeg: Some("ffmpeg".into()),
        }
    }
}
