//! Towers: media rows in, feature rows out; connectors bring features to the backbone's width.

pub mod audio;
pub mod grid;
pub mod merger;
pub mod vision;
