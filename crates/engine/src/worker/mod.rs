//! One thread a device, and what it computes: units in steps, in time slices, texts and media of several callers in one pass; what steps
//! take, and how long callers waited.

mod cost;
mod forward;
mod metrics;
mod slices;
mod submit;
mod texts;
mod thread;
mod towers;

pub(crate) use cost::{Costs, Load, Stage};
pub(crate) use forward::{
    AudioWindowsUnit, Connector, FittedImagesUnit, MediaUnit, MediumRows, MelPiece, PatchPiece, Steps, TextUnit,
    TowerRows, device_error, text_body,
};
pub use metrics::{ClassStats, DurationStats, Metrics, MetricsSnapshot};
pub(crate) use slices::Pace;
pub(crate) use submit::{Back, Spent};
pub(crate) use texts::TextSet;
pub(crate) use thread::Worker;
pub(crate) use towers::TowerPieces;
