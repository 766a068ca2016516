//! Captured intermediates: named results between layers, for bisecting a mismatch and for the tests.
//!
//! Names follow the module path: `vision.blocks.3.context`. Without the feature `capture` nothing is named or read. With
//! it the forward computes the same bits: a tensor is converted where it is captured, and only while somebody collects
//! on this thread or observes the process.
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
//! | `deepstack.{i}.norm`, `deepstack.{i}.features` | `[rows, 4 hidden]`, `[rows, hidden]` | connectors of tapped blocks |
//! | `audio.conv2d1` to `audio.conv2d3` | `[frames * bands, channels]` of a chunk | after each convolution's GELU |
//! | `audio.conv1`, `audio.conv2` | `[frames, hidden]`, `[rows, hidden]` | after each convolution's GELU |
//! | `audio.stem` | `[rows, hidden]` | with positions |
//! | `audio.layers.{i}`, `.context` | `[rows, hidden]` | residual stream and attention's result |
//! | `audio.ln_post`, `audio.features` | `[rows / 2, hidden]` | means of pairs after the last norm; the connector |
//! | `picture.stem`, `picture.blocks.{i}`, `picture.map` | `[pictures, channels, side, side]` | the convolution tower |
//! | `picture.logits`, `picture.rows` | `[items, classes]`, `[items, 6, hidden]` | mini: classes; rows for the encoder |
//! | `speech.rows`, `speech.encoder_rows` | `[rows, width]`, `[clips, rows, hidden]` | mini: means of tower rows; rows for the encoder |

#[cfg(feature = "capture")]
mod hook {
    use std::cell::RefCell;
    use std::sync::{Arc, PoisonError, RwLock};

    use burn::tensor::{Tensor, TensorData};

    /// A captured intermediate.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Captured {
        /// Module path.
        pub name: String,
        /// Row-major shape.
        pub shape: Vec<usize>,
        /// Values in row-major order.
        pub values: Vec<f32>,
    }

    /// Sees the intermediates of every thread.
    pub trait Observer: Send + Sync {
        /// Values in place of those of the intermediate `name`; `None` leaves them. `values` reads the tensor.
        fn pass(&self, name: &str, shape: &[usize], values: &dyn Fn() -> Vec<f32>) -> Option<Vec<f32>>;

        /// What the device reports where the results of a unit of work are read.
        ///
        /// # Errors
        /// The message of a device that failed.
        fn read(&self) -> Result<(), String> {
            Ok(())
        }
    }

    thread_local! {
        static CAPTURED: RefCell<Option<Vec<Captured>>> = const { RefCell::new(None) };
    }

    static OBSERVER: RwLock<Option<Arc<dyn Observer>>> = RwLock::new(None);

    /// Runs `work` on this thread and returns every intermediate of it, in forward order.
    pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Vec<Captured>) {
        CAPTURED.with(|captured| *captured.borrow_mut() = Some(Vec::new()));
        let out = work();
        (out, CAPTURED.with(|captured| captured.borrow_mut().take()).unwrap_or_default())
    }

    /// Runs `work` with an observer of the whole process: for tests that have a process of their own.
    pub fn observe<T>(observer: Arc<dyn Observer>, work: impl FnOnce() -> T) -> T {
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                set(None);
            }
        }
        set(Some(observer));
        let _end = End;
        work()
    }

    fn set(observer: Option<Arc<dyn Observer>>) {
        *OBSERVER.write().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    fn observer() -> Option<Arc<dyn Observer>> {
        OBSERVER.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the observer says in the device's place where the results of a unit of work are read.
    ///
    /// # Errors
    /// As [`Observer::read`].
    pub fn read() -> Result<(), String> {
        observer().map_or(Ok(()), |observer| observer.read())
    }

    pub(crate) fn listens() -> bool {
        CAPTURED.with(|captured| captured.borrow().is_some()) || observer().is_some()
    }

    pub(crate) fn pass<const D: usize>(name: impl FnOnce() -> String, tensor: Tensor<D>) -> Tensor<D> {
        if !listens() {
            return tensor;
        }
        let (name, shape) = (name(), tensor.dims());
        let values = || tensor.to_data().convert::<f32>().try_to_vec().expect("converted to f32 above");
        CAPTURED.with(|captured| {
            if let Some(captured) = captured.borrow_mut().as_mut() {
                captured.push(Captured { name: name.clone(), shape: shape.to_vec(), values: values() });
            }
        });
        match observer().and_then(|observer| observer.pass(&name, &shape, &values)) {
            Some(other) => Tensor::from_data(TensorData::new(other, shape), (&tensor.device(), tensor.dtype())),
            None => tensor,
        }
    }
}

#[cfg(feature = "capture")]
pub use hook::{Captured, Observer, collect, observe, read};
#[cfg(feature = "capture")]
pub(crate) use hook::{listens, pass};

/// Whether an intermediate that is passed would be captured: a tower that keeps its maps in a form of its own makes
/// tensors of them only then.
#[cfg(not(feature = "capture"))]
#[inline(always)]
pub(crate) fn listens() -> bool {
    false
}

/// Hands a tensor on.
#[cfg(not(feature = "capture"))]
#[inline(always)]
pub(crate) fn pass<const D: usize>(
    _: impl FnOnce() -> String,
    tensor: burn::tensor::Tensor<D>,
) -> burn::tensor::Tensor<D> {
    tensor
}
