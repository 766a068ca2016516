//! What flex, Burn's CPU backend, does differently.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::ops::AttentionModuleOptions;
use burn_flex::Flex;

use crate::{TowerOps, portable};

impl TowerOps for Flex {
    /// A single row takes another path in flex's product than two or more do, and differs there by up to 6e-6
    /// (k >= 1024); from 2 rows on a row's bits do not depend on the rows beside it. So a single row gets a companion,
    /// and the same item gives the same vector alone and in a batch.
    fn tower_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.shape()[0] != 1 {
            return portable::linear::<Self>(x, weight);
        }
        let pair = Self::float_cat(vec![x.clone(), x], 0);
        let product = portable::linear::<Self>(pair, weight);
        let width = product.shape()[1];
        Self::float_slice(product, &[(0..1).into(), (0..width).into()])
    }

    /// Flex takes fewer key heads than query heads as they are.
    fn tower_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        scale: f64,
        causal: bool,
    ) -> FloatTensor<Self> {
        let options = AttentionModuleOptions { scale: Some(scale), softcap: None, is_causal: causal };
        <Self as ModuleOps<Self>>::attention(query, key, value, None, None, options)
    }
}
