//! How published folders of a family are read: names of tensors, fields of `config.json`, and what other files say.
//!
//! Plain data and functions over JSON: no file is opened here. `omniburn-convert` reads files, hands them over, and does the
//! steps that a family's [`CheckpointRules`](crate::family::CheckpointRules) ask for.

mod card;
mod fields;
mod folder;
mod gguf;
mod keys;
mod spellings;
mod steps;
mod tokenizers;
mod two_towers;

pub use card::{AudioCard, Card, PixelLimits, PreprocessCard, TextCard, VisionCard};
pub use fields::{Faults, FieldFault, Fields, FileFaults, listed, shown};
pub use folder::{
    ChatFiles, CheckpointFolder, FolderDetails, HEAD_FILES, RerankSettings, TemplateRule, TensorIndex, TextSettings,
    layers,
};
pub use gguf::{GgufRules, GgufTokenizer};
pub use keys::{KeyMap, Pattern, source_name};
pub(crate) use spellings::{hidden_act, spelling};
pub use steps::{Fold, OneTask, StaticTable, Steps, TaskRules, TextFiles};
pub use tokenizers::{is_wrongly_named, registered_tokenizer};
pub use two_towers::TwoTowers;
