//! Families: one file each, with its configuration, its forward pass, its names in published checkpoints and how such a
//! folder is read. [`crate::registry::FAMILIES`] lists them.

pub mod bert;
pub mod distilbert;
pub mod gte;
pub mod mini;
pub mod modernbert;
pub mod mpnet;
pub mod nomic_bert;
pub mod omni;
pub mod qwen3;
pub mod xlm_roberta;

pub use bert::BertConfig;
pub use distilbert::DistilBertConfig;
pub use gte::GteConfig;
pub use mini::MiniConfig;
pub use modernbert::ModernBertConfig;
pub use mpnet::MpnetConfig;
pub use nomic_bert::NomicBertConfig;
pub use omni::OmniConfig;
pub use qwen3::Qwen3Config;
pub use xlm_roberta::XlmRobertaConfig;
