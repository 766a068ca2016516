//! Blocks shared by towers and backbones.

pub mod act;
pub(crate) mod attention;
pub mod axes;
pub mod encoder;
pub mod head;
pub mod linear;
pub mod mlp;
pub mod norm;
pub(crate) mod padding;
pub mod pool;
pub mod pre_norm;
pub mod rope;
pub mod row_heads;
pub mod score;
pub(crate) mod taps;
pub mod tokens;
pub mod weights;

pub use act::{HIDDEN_ACTS, HiddenAct};
pub use axes::{RotaryAxes, axis_positions};
pub use encoder::{EncoderLayer, EncoderSizes};
pub use head::{DenseActivation, DenseConfig, VectorHead, VectorHeadConfig};
pub use linear::Linear;
pub use mlp::GeluMlp;
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use pool::{Pooling, normalize_l2, unit_rows};
pub use pre_norm::{PreNormLayer, PreNormMlp, PreNormSizes};
pub use rope::{Llama3Scaling, RotaryTable};
pub use row_heads::{LateInteraction, QueryExpansion, RowHeads, RowHeadsConfig};
pub use score::{AnswerHead, HeadActivation, RowVectors, ScoreHead, ScoreHeadConfig};
pub use tokens::TokenTable;
pub use weights::Weights;
