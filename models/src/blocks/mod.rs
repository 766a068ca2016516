//! Blocks shared by towers and backbones.

pub mod linear;
pub mod norm;
pub mod pool;
pub mod rope;
pub mod tokens;
pub mod weights;

pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use pool::{Pooling, normalize_l2};
pub use rope::RotaryTable;
pub use tokens::TokenTable;
pub use weights::Weights;
