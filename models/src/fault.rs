//! Faults at the boundaries between layers, for the tests that hold "finite, or a typed error".
//!
//! A boundary is a place that [`crate::tap`] names. Without the feature `faults` every switch is nothing and costs nothing.
//! With it, `watch` says which rows pass which boundary, and `arm` makes one of them fail. Units run on the engine's own
//! thread, so the switch is one for the whole process; a row is known by its bits, so that one item of a packed unit is hit
//! and its neighbours are not, alone or in company. Tests that use it have a process of their own.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A value of the row becomes NaN.
    Nan,
    /// A value of the row becomes infinite.
    Infinity,
    /// The computation panics.
    Panic,
    /// The device fails, and says so where the unit's results are read.
    Device,
}

#[cfg(feature = "faults")]
mod switch {
    use std::cell::RefCell;
    use std::hash::{DefaultHasher, Hasher};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use burn::tensor::{Tensor, TensorData};

    use super::Fault;

    /// A tensor that passed a boundary.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Passed {
        /// The boundary.
        pub boundary: String,
        /// What each row of the first axis is known by: equal for equal bits.
        pub rows: Vec<u64>,
    }

    /// One row at one boundary, and what happens to it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Target {
        /// The boundary.
        pub boundary: String,
        /// What the row is known by.
        pub row: u64,
        /// What goes wrong.
        pub fault: Fault,
    }

    #[derive(Default)]
    struct Switches {
        watched: Option<Vec<Passed>>,
        armed: Option<(Target, Arc<AtomicUsize>)>,
    }

    /// Whether anything is on at all: the only thing read where nothing is.
    static ON: AtomicBool = AtomicBool::new(false);
    static SWITCHES: Mutex<Switches> = Mutex::new(Switches { watched: None, armed: None });

    thread_local! {
        /// A failure of the device that waits for the next read.
        static PENDING: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    fn switches() -> MutexGuard<'static, Switches> {
        SWITCHES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(change: impl FnOnce(&mut Switches)) {
        let mut switches = switches();
        change(&mut switches);
        ON.store(switches.watched.is_some() || switches.armed.is_some(), Ordering::SeqCst);
    }

    /// Runs `work` and says what passed every boundary on any thread, in order.
    pub fn watch<T>(work: impl FnOnce() -> T) -> (T, Vec<Passed>) {
        change(|switches| switches.watched = Some(Vec::new()));
        let out = work();
        let mut passed = Vec::new();
        change(|switches| passed = switches.watched.take().unwrap_or_default());
        (out, passed)
    }

    /// Runs `work` with a fault armed in the whole process, and says how often it was met.
    pub fn arm<T>(target: Target, work: impl FnOnce() -> T) -> (T, usize) {
        struct Disarm;
        impl Drop for Disarm {
            fn drop(&mut self) {
                change(|switches| switches.armed = None);
            }
        }
        let met = Arc::new(AtomicUsize::new(0));
        change(|switches| switches.armed = Some((target, Arc::clone(&met))));
        let disarm = Disarm;
        let out = work();
        drop(disarm);
        (out, met.load(Ordering::SeqCst))
    }

    /// The failure of the device that a fault on this thread left for this read.
    ///
    /// # Errors
    /// What the device is made to say.
    pub fn read() -> Result<(), String> {
        PENDING.with(|pending| pending.borrow_mut().take()).map_or(Ok(()), Err)
    }

    pub(crate) fn listens() -> bool {
        ON.load(Ordering::SeqCst)
    }

    pub(crate) fn pass<const D: usize>(name: impl FnOnce() -> String, tensor: Tensor<D>) -> Tensor<D> {
        if !ON.load(Ordering::SeqCst) {
            return tensor;
        }
        let boundary = name();
        let mut switches = switches();
        if let Some((target, met)) = &switches.armed {
            // Nothing is read at other boundaries: a model has up to fifty of them.
            let at = (target.boundary == boundary).then(|| known_by(&tensor));
            if let Some(row) = at.and_then(|rows| rows.iter().position(|row| *row == target.row)) {
                met.fetch_add(1, Ordering::SeqCst);
                let fault = target.fault;
                drop(switches);
                return fail(fault, &boundary, row, tensor);
            }
        }
        if let Some(watched) = &mut switches.watched {
            watched.push(Passed { boundary, rows: known_by(&tensor) });
        }
        tensor
    }

    fn fail<const D: usize>(fault: Fault, boundary: &str, row: usize, tensor: Tensor<D>) -> Tensor<D> {
        let value = match fault {
            Fault::Nan => f32::NAN,
            Fault::Infinity => f32::INFINITY,
            Fault::Panic => panic!("a fault was armed at {boundary}"),
            Fault::Device => {
                let said = format!("a fault was armed at {boundary}");
                PENDING.with(|pending| *pending.borrow_mut() = Some(said));
                return tensor;
            }
        };
        let (shape, device, dtype) = (tensor.dims(), tensor.device(), tensor.dtype());
        let mut values = values(&tensor);
        let width = values.len() / shape[0];
        // In the middle of the row, so that it is neither in the first column nor in the first place of a picture.
        values[row * width + width / 2] = value;
        Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
    }

    fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
        tensor.to_data().convert::<f32>().try_to_vec().expect("converted to f32 above")
    }

    fn known_by<const D: usize>(tensor: &Tensor<D>) -> Vec<u64> {
        let (values, rows) = (values(tensor), tensor.dims()[0]);
        let known = |row: &[f32]| {
            let mut hasher = DefaultHasher::new();
            row.iter().for_each(|value| hasher.write_u32(value.to_bits()));
            hasher.finish()
        };
        if values.is_empty() { Vec::new() } else { values.chunks_exact(values.len() / rows).map(known).collect() }
    }
}

#[cfg(feature = "faults")]
pub use switch::{Passed, Target, arm, read, watch};
#[cfg(feature = "faults")]
pub(crate) use switch::{listens, pass};

/// Whether anything is watched or armed; in a build for users nothing ever is.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn listens() -> bool {
    false
}

/// Hands a tensor on; in a build for users nothing is ever armed.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn pass<const D: usize>(
    _: impl FnOnce() -> String,
    tensor: burn::tensor::Tensor<D>,
) -> burn::tensor::Tensor<D> {
    tensor
}

/// The failure of the device that a fault left for this read; none in a build for users.
///
/// # Errors
/// Never.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn read() -> Result<(), String> {
    Ok(())
}
