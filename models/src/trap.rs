//! Known porting mistakes, switchable one at a time: the negative controls that prove the tests can fail.
//!
//! Without the feature `traps` every switch is a constant `false` and costs nothing. With it, `with` switches one on
//! for the current thread.

/// A mistake somebody has made in a port of this model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// Rotary pairs neighbours `(2i, 2i+1)` in place of halves.
    RotaryPairsNeighbours,
    /// Rotary before the q/k norm.
    QkNormAfterRotary,
    /// No q/k norm.
    QkNormSkipped,
    /// RMSNorm epsilon of the other family (1e-5 for 1e-6 and back).
    OtherRmsEps,
    /// Query head `j` reads key head `j mod kv_heads`.
    KeyHeadsInterleaved,
    /// A causal model sees later rows, a bidirectional one does not.
    CausalFlipped,
    /// Packed sequences see each other.
    SegmentsIgnored,
    /// Positions restart at the first feature row of a medium.
    PositionsRestartAtMedia,
    /// The vector is taken before the final norm.
    PoolBeforeFinalNorm,
    /// The vector is taken from the first row.
    PoolFirstRow,
    /// The vector is the mean of all rows.
    PoolMean,
    /// Patch values multiplied in the order (time, row, column, channel).
    PatchValuesChannelsLast,
    /// The merger's norm after the 2x2 reshape (its weight repeated).
    MergerNormAfterReshape,
    /// The merger's GELU by tanh.
    MergerGeluTanh,
    /// The tower's GELU by erf.
    VisionGeluErf,
    /// Positions blended with half-pixel centres in place of aligned corners.
    PositionsHalfPixel,
    /// Positions in raster order in place of block order.
    PositionsRasterOrder,
    /// Row and column exchanged in the tower's rotary.
    VisionRotarySwapped,
    /// No rotary in the tower.
    VisionRotarySkipped,
    /// All temporal groups of a clip see each other.
    FrameGroupsIgnored,
    /// LayerNorm epsilon 1e-5 in place of 1e-6.
    LayerNormEps,
    /// Sound positions count on from window to window.
    SoundPositionsRunOn,
    /// All windows of a sound see each other.
    SoundWindowsIgnored,
    /// The frame after a short window is not silent between the convolutions.
    SoundMaskSkipped,
    /// The sound tower's last norm before the mean of pairs.
    SoundNormBeforePairs,
    /// The sound tower's GELU by tanh.
    SoundGeluTanh,
}

#[cfg(feature = "traps")]
mod switch {
    use super::Trap;
    use std::cell::Cell;

    thread_local! {
        static CURRENT: Cell<Option<Trap>> = const { Cell::new(None) };
    }

    /// Runs `work` with one mistake switched on for this thread.
    pub fn with<T>(trap: Trap, work: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                CURRENT.with(|c| c.set(None));
            }
        }
        CURRENT.with(|c| c.set(Some(trap)));
        let _reset = Reset;
        work()
    }

    pub(crate) fn on(trap: Trap) -> bool {
        CURRENT.with(Cell::get) == Some(trap)
    }

    pub(crate) fn any() -> bool {
        CURRENT.with(Cell::get).is_some()
    }
}

#[cfg(feature = "traps")]
pub use switch::with;
#[cfg(feature = "traps")]
pub(crate) use switch::{any, on};

/// Whether a mistake is switched on; always false in a build for users.
#[cfg(not(feature = "traps"))]
#[inline(always)]
pub(crate) fn on(_: Trap) -> bool {
    false
}

/// Whether any mistake is switched on: what is fused otherwise is then composed of single operations.
#[cfg(not(feature = "traps"))]
#[inline(always)]
pub(crate) fn any() -> bool {
    false
}
