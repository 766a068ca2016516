//! Families: one file each, with its configuration, its forward pass, its names in published checkpoints and how such a
//! folder is read. [`crate::registry::FAMILIES`] lists them.

pub mod bert;
pub mod bidirlm_omni;
pub mod clap;
pub mod clip;
pub mod colqwen2;
pub mod distilbert;
pub mod gemma3;
pub mod gte;
pub mod lfm2;
pub mod llama;
pub mod mini;
pub mod model2vec;
pub mod modernbert;
pub mod mpnet;
pub mod nomic_bert;
pub mod omni;
pub mod qwen25_omni;
pub mod qwen3;
pub mod qwen3_omni_encoders;
pub mod qwen3_vl;
pub mod siglip;
pub mod xlm_roberta;

pub use bert::BertConfig;
pub use bidirlm_omni::BidirLmOmniConfig;
pub use clap::ClapConfig;
pub use clip::ClipConfig;
pub use colqwen2::ColQwen2Config;
pub use distilbert::DistilBertConfig;
pub use gemma3::Gemma3Config;
pub use gte::GteConfig;
pub use lfm2::Lfm2Config;
pub use llama::LlamaConfig;
pub use mini::MiniConfig;
pub use model2vec::Model2VecConfig;
pub use modernbert::ModernBertConfig;
pub use mpnet::MpnetConfig;
pub use nomic_bert::NomicBertConfig;
pub use omni::OmniConfig;
pub use qwen3::Qwen3Config;
pub use qwen3_omni_encoders::Qwen3OmniEncodersConfig;
pub use qwen3_vl::Qwen3VlConfig;
pub use qwen25_omni::Qwen25OmniConfig;
pub use siglip::SiglipConfig;
pub use xlm_roberta::XlmRobertaConfig;
