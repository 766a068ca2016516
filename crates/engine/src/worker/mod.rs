//! One thread a device, and what it computes: units in steps, in time slices, texts of several callers in one pass; what steps
//! take, and how long callers waited.

mod cost;
mod forward;
mod metrics;
mod slices;
mod submit;
mod texts;
mod thread;

pub(crate) use cost::{Costs, Load, Stage};
pub(crate) use forward::{
    AudioUnit, ClipsUnit, Connector, MediaUnit, MediumRows, MelPiece, PatchPiece, SquaresUnit, Steps, TextUnit,
    TowerRows, VisionUnit, device_error, text_body,
};
pub use metrics::{ClassStats, DurationStats, Metrics, MetricsSnapshot};
pub(crate) use slices::Pace;
pub(crate) use submit::{Spent, TextsBack};
pub(crate) use texts::TextSet;
pub(crate) use thread::Worker;
