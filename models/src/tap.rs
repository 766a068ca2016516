//! Named intermediate results, for bisecting a mismatch.
//!
//! Names follow the module path: `vision.blocks.3.context`. Without the feature `tap` nothing is named or read.
//!
//! | name | shape | what |
//! |---|---|---|
//! | `backbone.rows` | `[tokens, hidden]` | rows as they enter the backbone |
//! | `backbone.layers.{i}` | `[tokens, hidden]` | residual stream after layer `i` |
//! | `backbone.layers.{i}.context` | `[tokens, heads * head_dim]` | attention's result before `o_proj` |
//! | `backbone.norm` | `[tokens, hidden]` | after the final norm |
//! | `pooled` | `[segments, hidden]` | one row a sequence |
//! | `vision.patch_embed` | `[patches, hidden]` | before positions are added |
//! | `vision.positions` | `[patches, hidden]` | the blended position rows |
//! | `vision.blocks.{i}`, `.context` | `[patches, hidden]` | residual stream and attention's result |
//! | `merger.norm`, `merger.features` | `[patches, hidden]`, `[rows, hidden]` | the connector |
//! | `audio.conv1`, `audio.conv2` | `[frames, hidden]`, `[rows, hidden]` | after each convolution's GELU |
//! | `audio.stem` | `[rows, hidden]` | with positions |
//! | `audio.layers.{i}`, `.context` | `[rows, hidden]` | residual stream and attention's result |
//! | `audio.ln_post`, `audio.features` | `[rows / 2, hidden]` | means of pairs after the last norm; the connector |
//! | `picture.stem`, `picture.blocks.{i}`, `picture.map` | `[pictures, channels, side, side]` | the convolution tower |
//! | `picture.logits`, `picture.rows` | `[items, classes]`, `[items, 6, hidden]` | mini: classes; rows for the encoder |
//! | `speech.rows`, `speech.encoder_rows` | `[rows, width]`, `[clips, rows, hidden]` | mini: means of tower rows; rows for the encoder |

#[cfg(feature = "tap")]
mod collect {
    use std::cell::RefCell;

    use burn::tensor::Tensor;

    /// A named result: name, shape, values in row-major order.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Tap {
        /// Module path.
        pub name: String,
        /// Row-major shape.
        pub shape: Vec<usize>,
        /// Values.
        pub values: Vec<f32>,
    }

    thread_local! {
        static TAPS: RefCell<Option<Vec<Tap>>> = const { RefCell::new(None) };
    }

    /// Runs `work` on this thread and returns every tap it passed, in forward order.
    pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Vec<Tap>) {
        TAPS.with(|t| *t.borrow_mut() = Some(Vec::new()));
        let out = work();
        (out, TAPS.with(|t| t.borrow_mut().take()).unwrap_or_default())
    }

    pub(super) fn collects() -> bool {
        TAPS.with(|taps| taps.borrow().is_some())
    }

    pub(super) fn record<const D: usize>(name: impl FnOnce() -> String, tensor: &Tensor<D>) {
        TAPS.with(|taps| {
            if let Some(taps) = taps.borrow_mut().as_mut() {
                let values = tensor.to_data().convert::<f32>().try_to_vec().expect("converted to f32 above");
                taps.push(Tap { name: name(), shape: tensor.dims().to_vec(), values });
            }
        });
    }
}

#[cfg(feature = "tap")]
pub use collect::{Tap, collect};

/// Whether anyone on this thread would see what is passed, or change it: a tower that keeps its maps in a form of its own
/// makes tensors of them only then.
pub(crate) fn listens() -> bool {
    #[cfg(feature = "tap")]
    if collect::collects() {
        return true;
    }
    crate::fault::listens()
}

/// Whether nobody can look at results between layers: only then may they come in another type than f32.
pub(crate) const ARE_OFF: bool = !cfg!(any(feature = "tap", feature = "faults"));

/// Hands a tensor to whoever collects taps on this thread, and on: as it came, unless a [`crate::fault`] is armed here.
#[inline(always)]
pub(crate) fn pass<const D: usize>(
    name: impl Fn() -> String,
    tensor: burn::tensor::Tensor<D>,
) -> burn::tensor::Tensor<D> {
    #[cfg(feature = "tap")]
    collect::record(&name, &tensor);
    crate::fault::pass(name, tensor)
}
