//! Towers: media in, feature rows or maps out; connectors bring features to the backbone's width.

pub mod audio;
pub mod chunked;
pub mod conv;
pub mod grid;
pub mod merger;
pub mod speech;
pub mod swin;
pub mod text;
pub mod vision;
pub mod vit;
