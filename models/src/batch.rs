//! What a forward eats: packed rows with where each item begins.

use burn::tensor::{Device, Tensor, TensorData};
use omniburn_kernels::Segments;

/// Packed rows of the backbone: text rows and feature rows alike.
#[derive(Debug, Clone)]
pub struct TokenRows {
    /// `[tokens, hidden]`, f32
    pub rows: Tensor<2>,
    /// One segment a sequence.
    pub segments: Segments,
}

/// Patches, or merged patches, of an image or clip along time, height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Temporal groups; 1 for an image.
    pub t: usize,
    /// Patches down.
    pub h: usize,
    /// Patches across.
    pub w: usize,
}

impl Grid {
    /// Patches in all.
    pub fn patches(self) -> usize {
        self.t * self.h * self.w
    }
}

/// Rows of a medium among packed rows of a backbone.
#[derive(Debug, Clone)]
pub struct MediaRows {
    /// Place of the first of them among the packed rows.
    pub start: usize,
    /// How many there are.
    pub rows: usize,
    /// How they lie, where they are merged patches.
    pub grid: Option<Grid>,
    /// Positions of the grid's temporal groups on the axis of time, the first at 0, ascending: `[grid.t]`; one behind the other
    /// where empty.
    pub times: Vec<usize>,
    /// Rows that are added to the residual stream at their place, the first after the first layer and so on: `[rows, hidden]`
    /// each; mostly none.
    pub added: Vec<Tensor<2>>,
}

/// Packed patch rows of one or more images or clips, each in the order
/// `(group, block row, block column, row in block, column in block)`.
#[derive(Debug, Clone)]
pub struct PatchRows {
    /// `[patches, channels * frames * patch * patch]`, f32
    pub rows: Tensor<2>,
    /// One grid an item, in the order of the rows.
    pub grids: Vec<Grid>,
}

impl PatchRows {
    /// Uploads patch rows.
    ///
    /// # Panics
    /// If the values are not `patches x width`.
    pub fn new(values: Vec<f32>, width: usize, grids: Vec<Grid>, device: &Device) -> Self {
        let patches: usize = grids.iter().map(|g| g.patches()).sum();
        assert_eq!(values.len(), patches * width, "patch rows must fill their grids");
        Self { rows: upload(values, [patches, width], device), grids }
    }
}

/// Packed log-mel frames, cut into windows that never see each other.
#[derive(Debug, Clone)]
pub struct MelRows {
    /// `[frames, mels]`, f32
    pub rows: Tensor<2>,
    /// Frames of each window, in the order of the rows.
    pub windows: Vec<usize>,
}

impl MelRows {
    /// Uploads mel frames.
    ///
    /// # Panics
    /// If the values are not `frames x mels`.
    pub fn new(values: Vec<f32>, mels: usize, windows: Vec<usize>, device: &Device) -> Self {
        let frames: usize = windows.iter().sum();
        assert_eq!(values.len(), frames * mels, "mel frames must fill their windows");
        Self { rows: upload(values, [frames, mels], device), windows }
    }
}

/// Host values to a device tensor in f32.
pub(crate) fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, burn::tensor::DType::F32))
}
