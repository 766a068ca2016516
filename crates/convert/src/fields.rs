//! Reading fields of published JSON strictly; see [`omniburn_models::checkpoint`].

pub(crate) use omniburn_models::checkpoint::{Faults, Fields, listed, shown};
