//! How published folders of a family are read: names of tensors, fields of `config.json`, and what other files say.
//!
//! Plain data and functions over JSON: no file is opened here. `omniburn-convert` reads files, hands them over, and does the
//! steps that a family's [`CheckpointRules`](crate::family::CheckpointRules) ask for.

mod card;
mod fields;
mod folder;
mod keys;
mod spellings;
mod steps;
mod tokenizers;

pub use card::{AudioCard, Card, PixelLimits, PreprocessCard, TextCard, VisionCard};
pub use fields::{Faults, FieldFault, Fields, FileFaults, listed, shown};
pub use folder::{CheckpointFolder, FolderDetails, TemplateRule, TensorIndex, TextSettings, layers};
pub use keys::{KeyMap, Pattern, source_name};
pub(crate) use spellings::{hidden_act, spelling};
pub use steps::{Fold, OneTask, Steps, TaskRules, TextFiles};
pub use tokenizers::{is_wrongly_named, registered_tokenizer};
