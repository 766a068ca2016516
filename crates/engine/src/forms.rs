//! Forms of data between the threads that prepare inputs and the one that computes them: patches, mel frames, whole images,
//! and the ids around them. A family is known here by the form that its towers read, and by nothing else.

use std::ops::Range;
use std::sync::Arc;

use omniburn_media::{LogMel, PairCut, PatchGrid, ResizeFilter, RgbImage, SquareFit, SquareTarget, square_image};
use omniburn_models::batch::Grid;
use omniburn_models::record::{ImageFilter, ImageFit, Modality, Preprocess};

use crate::call::{Features, InputDigest, Span};

/// Tokens as they enter a pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sequence {
    pub ids: Vec<u32>,
    /// Token type of each, where the model tells several apart; empty where all are of type 0.
    pub types: Vec<u8>,
    /// Rows in front that the poolings leave out: those up to the end of a prompt, where the record says so.
    pub skipped: usize,
    /// Rows at the end that no row sees.
    pub unseen: usize,
    /// Rows of each chunk that has a vector of its own, in order; none mostly.
    pub chunks: Vec<Range<usize>>,
}

impl Sequence {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

impl From<Vec<u32>> for Sequence {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// What a pass gives for a sequence.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Pooled {
    /// Its vector, not normalised, or its logit.
    pub values: Vec<f32>,
    /// The vector of each of its chunks, not normalised, where they were wanted.
    pub chunks: Vec<Vec<f32>>,
    /// The weight of each of its rows, where that was wanted and the model gives it: `[tokens]`.
    pub weights: Vec<f32>,
    /// The vectors of its rows, not normalised, where they were wanted and the model gives them: `[tokens, width]`.
    pub rows: Vec<f32>,
    /// The rows that its media became, where they were wanted.
    pub features: Option<Features>,
}

impl From<Vec<f32>> for Pooled {
    fn from(values: Vec<f32>) -> Self {
        Self { values, ..Self::default() }
    }
}

/// An image, a clip, an audio, or several of them with texts, as what their towers read and what stands around that.
pub(crate) struct Medium {
    pub modality: Modality,
    pub rows: Rows,
    pub layout: Layout,
    /// Rows that will enter the backbone.
    pub tokens: usize,
    /// Of a query and a document, what was cut of them.
    pub pair: Option<PairCut>,
    /// Where it lies in the audio or video it was cut from.
    pub span: Option<Span>,
    /// Of the input it is of, where the call has a journal.
    pub digest: Option<InputDigest>,
}

/// What a tower reads.
#[derive(Clone)]
pub(crate) enum Rows {
    Patches(Arc<PatchGrid>),
    Mel(Arc<LogMel>),
    /// An image, or the frames of a video.
    FittedImages(Arc<FittedImages>),
    /// Speech, window by window.
    AudioWindows(Arc<Vec<LogMel>>),
    /// Several media of one sequence; none of them is several itself.
    Parts(Vec<Rows>),
}

/// Whole images: bytes of red, green and blue, row by row.
pub(crate) struct FittedImages {
    target: SquareTarget,
    /// Height and width of each; all the same where they are squares.
    pub sides: Vec<(usize, usize)>,
    pub pixels: Vec<u8>,
}

impl FittedImages {
    pub(crate) fn new(target: SquareTarget) -> Self {
        Self { target, sides: Vec::new(), pixels: Vec::new() }
    }

    pub(crate) fn push(&mut self, image: &RgbImage) {
        let image = square_image(image, self.target);
        self.sides.push((image.height().0 as usize, image.width().0 as usize));
        self.pixels.extend_from_slice(image.pixels());
    }

    pub(crate) fn count(&self) -> usize {
        self.sides.len()
    }

    /// Bytes of an image.
    pub(crate) fn pixels_of(&self, index: usize) -> &[u8] {
        let bytes = |(height, width): (usize, usize)| 3 * height * width;
        let start = self.sides[..index].iter().map(|sides| bytes(*sides)).sum();
        &self.pixels[start..start + bytes(self.sides[index])]
    }

    /// Patches of all images; `None` where they are squares.
    pub(crate) fn patches_of_all(&self) -> Option<usize> {
        (0..self.count()).map(|index| self.patches(index)).sum()
    }

    /// Patches of an image; `None` where images are squares.
    pub(crate) fn patches(&self, index: usize) -> Option<usize> {
        let SquareFit::Patches { patch, .. } = self.target.fit else { return None };
        let (height, width) = self.sides[index];
        Some((height / patch as usize) * (width / patch as usize))
    }
}

/// The squares a record's tower reads, where it reads whole images.
pub(crate) fn square_target(preprocess: &Preprocess) -> Option<SquareTarget> {
    if let Some(letterbox) = &preprocess.letterbox {
        return Some(SquareTarget { side: letterbox.image_size, fit: SquareFit::Letterbox });
    }
    let square = preprocess.square.as_ref()?;
    let filter = match square.filter {
        ImageFilter::Bilinear => ResizeFilter::Bilinear,
        ImageFilter::Bicubic => ResizeFilter::Bicubic,
    };
    let fit = match square.fit {
        ImageFit::Stretch => SquareFit::Stretch(filter),
        ImageFit::Crop { shorter } => SquareFit::Crop { shorter, filter },
        ImageFit::Patches { patch_px, most } => SquareFit::Patches { patch: patch_px, most, filter },
    };
    Some(SquareTarget { side: square.image_size, fit })
}

/// What each level of a channel is to a tower that reads whole images: red, green, blue.
pub(crate) type Levels = [[f32; 256]; 3];

/// The levels as the record brings them to the tower's range.
pub(crate) fn levels(preprocess: &Preprocess) -> Levels {
    let mut levels = [[0.0; 256]; 3];
    for (channel, table) in levels.iter_mut().enumerate() {
        for (level, value) in (0u8..=255).zip(table) {
            *value = match (&preprocess.letterbox, &preprocess.square) {
                (Some(letterbox), _) => (f32::from(level) - letterbox.mean) / letterbox.std,
                // Rescaled in f64 and cut to f32 before the rest, as the processors of Hugging Face do.
                (None, Some(square)) => {
                    ((f64::from(level) * square.rescale) as f32 - square.mean[channel]) / square.std[channel]
                }
                (None, None) => f32::from(level),
            };
        }
    }
    levels
}

impl Rows {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Rows::Patches(patches) => patches.bytes() as u64,
            Rows::Mel(mel) => 4 * mel.values().len() as u64,
            Rows::FittedImages(images) => images.pixels.len() as u64,
            Rows::AudioWindows(windows) => windows.iter().map(|mel| 4 * mel.values().len() as u64).sum(),
            Rows::Parts(parts) => parts.iter().map(Rows::bytes).sum(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Rows::Patches(patches) => patches.grid().patches(),
            Rows::Mel(mel) => mel.frames(),
            // As many cells as the map of an image has, or as patches.
            Rows::FittedImages(images) => {
                let cells = |(height, width): &(usize, usize)| (height / 32) * (width / 32);
                images.patches_of_all().unwrap_or_else(|| images.sides.iter().map(cells).sum())
            }
            Rows::AudioWindows(windows) => windows.iter().map(LogMel::frames).sum(),
            Rows::Parts(parts) => parts.iter().map(Rows::rows).sum(),
        }
    }

    /// The media of it, one or several.
    pub(crate) fn parts(&self) -> &[Rows] {
        match self {
            Rows::Parts(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }
}

/// Ids before and after a medium's feature rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Prefix, then the opening id where the layout has one.
    pub before: Vec<u32>,
    /// The closing id and the suffix, where the layout has them.
    pub after: Vec<u32>,
}

impl Frame {
    /// Rows of the whole sequence around `features` rows.
    pub(crate) fn tokens(&self, features: usize) -> usize {
        self.before.len() + features + self.after.len()
    }
}

/// What stands in a sequence with media, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub sections: Vec<Section>,
}

/// A stretch of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Section {
    Ids(Vec<u32>),
    Features(FeatureSpan),
}

/// Feature rows of a medium that stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeatureSpan {
    /// Which medium of [`Rows::parts`].
    pub part: usize,
    /// Which of its feature rows.
    pub rows: Range<usize>,
    /// How they lie, where they are merged patches at places of their own.
    pub grid: Option<Grid>,
    /// As [`MediaRows::times`](omniburn_models::batch::MediaRows::times).
    pub times: Vec<usize>,
}

impl Layout {
    /// All feature rows of one medium inside a frame.
    pub(crate) fn framed(frame: Frame, features: usize) -> Self {
        let span = FeatureSpan { part: 0, rows: 0..features, grid: None, times: Vec::new() };
        let mut layout = Self::default();
        layout.ids(frame.before);
        layout.sections.push(Section::Features(span));
        layout.ids(frame.after);
        layout
    }

    /// Puts ids behind what is there.
    pub(crate) fn ids(&mut self, ids: Vec<u32>) {
        if !ids.is_empty() {
            self.sections.push(Section::Ids(ids));
        }
    }

    /// Rows of the whole sequence.
    pub(crate) fn tokens(&self) -> usize {
        let rows = |section: &Section| match section {
            Section::Ids(ids) => ids.len(),
            Section::Features(span) => span.rows.len(),
        };
        self.sections.iter().map(rows).sum()
    }
}
