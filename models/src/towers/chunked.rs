//! The audio tower with a stem over the plane of time and mel bands: chunks of frames in, one row for each eight of them out, at
//! the width of the text model.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use super::audio::{AudioLayer, AudioLayerSizes, GELU, positions};
use crate::batch::MelRows;
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{LayerNorm, Linear};
use crate::builder::Builder;
use crate::capture;
use crate::checks::{layer_count, multiple, nonzero, positive};
use crate::error::ConfigError;
use crate::record::{AudioPreprocess, SourceAxes};

/// Taps of a stem convolution along each axis.
const TAPS: usize = 3;
/// Convolutions of the stem, each of which halves time and mel bands.
const CONVOLUTIONS: usize = 3;
/// The largest chunk that is computed: what the stem keeps alive grows with it.
const MOST_CHUNK_FRAMES: usize = 4096;

/// Shape and constants of a [`ChunkedTower`]; plain data without defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkedConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Channels of the stem.
    pub channels: usize,
    /// Mel frames of a chunk: each goes through the stem by itself, and positions begin anew in each.
    pub chunk_frames: usize,
    /// Mel bands.
    pub mels: usize,
    /// Width of the rows that come out.
    pub output: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Chunks whose rows see each other, from the first of a clip on; absent where every row of a clip sees every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_chunks: Option<usize>,
}

/// What is left of a number of frames or bands behind the stem.
fn behind_stem(size: usize) -> usize {
    (0..CONVOLUTIONS).fold(size, |size, _| size.div_ceil(2))
}

impl ChunkedConfig {
    /// Lengths in frames of the chunks of a clip.
    fn chunks(&self, frames: usize) -> impl Iterator<Item = usize> {
        let rest = frames % self.chunk_frames;
        std::iter::repeat_n(self.chunk_frames, frames / self.chunk_frames).chain((rest > 0).then_some(rest))
    }

    /// Rows that a clip gives.
    pub fn features(&self, frames: usize) -> usize {
        self.chunks(frames).map(behind_stem).sum()
    }

    /// Rows of each window of attention of a clip.
    fn windows(&self, frames: usize) -> Vec<usize> {
        let rows = self.features(frames);
        let Some(chunks) = self.window_chunks else { return vec![rows] };
        let window = behind_stem(frames.min(self.chunk_frames)) * chunks;
        let rest = rows % window;
        std::iter::repeat_n(window, rows / window).chain((rest > 0).then_some(rest)).collect()
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        layer_count("audio.layers", self.layers)?;
        nonzero(&[
            ("audio.hidden", self.hidden),
            ("audio.heads", self.heads),
            ("audio.inner", self.inner),
            ("audio.channels", self.channels),
            ("audio.chunk_frames", self.chunk_frames),
            ("audio.mels", self.mels),
            ("audio.output", self.output),
        ])?;
        if let Some(chunks) = self.window_chunks {
            nonzero(&[("audio.window_chunks", chunks)])?;
        }
        multiple("audio.hidden", self.hidden, "audio.heads", self.heads)?;
        multiple("audio.hidden", self.hidden, "sine and cosine halves", 2)?;
        let out_of_range = |field: &str, found: usize, expected: String| {
            Err(ConfigError::OutOfRange { field: field.into(), found: found.to_string(), expected })
        };
        if self.hidden < 4 {
            // The frequencies are spread over one less than half the width.
            return out_of_range("audio.hidden", self.hidden, "4 or more".into());
        }
        if self.chunk_frames > MOST_CHUNK_FRAMES {
            return out_of_range("audio.chunk_frames", self.chunk_frames, format!("at most {MOST_CHUNK_FRAMES}"));
        }
        positive("audio.norm_eps", self.norm_eps)
    }

    /// The tower for people, with what it hears.
    pub(crate) fn words(&self, audio: &AudioPreprocess) -> String {
        let Self { layers, hidden, chunk_frames, .. } = self;
        let (mels, rate) = (audio.mels, audio.sample_rate_hz);
        let windows = self.window_chunks.map(|chunks| format!(", {chunks} of which see each other"));
        let windows = windows.unwrap_or_default();
        format!("{layers} blocks of {hidden}, chunks of {chunk_frames} frames{windows}, {mels} mel bands at {rate} Hz")
    }
}

/// Three convolutions over time and mel bands, pre-norm blocks in which rows of a clip see those of their window, and a projection.
///
/// A clip's last chunk has zeros behind it up to the length of the others; a clip shorter than a chunk is its own. Nothing of a
/// clip depends on what else is in the pass.
///
/// # Source
/// transformers 5.23.0, `Qwen3OmniMoeAudioEncoder` for one clip; BidirLM-Omni's own code (`modeling_bidirlm_omni.py`), in which
/// windows of attention never act.
#[derive(Module, Debug)]
pub struct ChunkedTower {
    convolutions: Vec<Linear>,
    conv_out: Linear,
    layers: Vec<AudioLayer>,
    ln_post: LayerNorm,
    proj1: Linear,
    proj2: Linear,
    positions: Param<Tensor<2>>,
    #[module(skip)]
    config: ChunkedConfig,
}

/// A chunk of a clip that waits for the stem.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    /// Its first frame among the packed ones.
    start: usize,
    frames: usize,
    /// Frames with the zeros behind them.
    padded: usize,
}

/// A pass of a [`ChunkedTower`] between two steps: chunks go through the stem one by one, then all rows through each layer.
#[derive(Debug)]
pub struct ChunkedPass {
    mel: Tensor<2>,
    /// Those that wait for the stem, the next one last.
    chunks: Vec<Chunk>,
    stemmed: Vec<Tensor<2>>,
    /// Rows of each window of attention of each clip.
    lengths: Vec<usize>,
    body: Option<(Tensor<2>, Segments)>,
    next: usize,
}

impl ChunkedPass {
    /// Rows of the next chunk where the stem has not ended.
    pub fn in_stem(&self) -> Option<usize> {
        self.chunks.last().map(|chunk| behind_stem(chunk.frames))
    }
}

impl ChunkedTower {
    /// The tower with its projection. Convolutions lie as products over rows `(band, frame, channel)` of their taps.
    pub fn build(config: &ChunkedConfig, b: &Builder<'_>) -> Self {
        let ChunkedConfig { hidden, heads, inner, channels, mels, output, norm_eps, .. } = *config;
        let convolution = |i: usize| {
            let from = if i == 0 { 1 } else { channels };
            let axes = SourceAxes::Plane { taps: TAPS };
            b.convolution(&format!("conv2d{}", i + 1), TAPS * TAPS * from, channels, axes)
        };
        let sizes = AudioLayerSizes { hidden, heads, inner, norm_eps, key_bias: true };
        let rows = behind_stem(config.chunk_frames);
        Self {
            convolutions: (0..CONVOLUTIONS).map(convolution).collect(),
            conv_out: b.linear("conv_out", channels * behind_stem(mels), hidden),
            layers: (0..config.layers).map(|i| b.at(format!("layers.{i}"), |b| AudioLayer::build(sizes, b))).collect(),
            ln_post: b.layer_norm("ln_post", hidden, norm_eps),
            proj1: b.linear_biased("proj1", hidden, hidden),
            proj2: b.linear_biased("proj2", hidden, output),
            positions: b.computed([rows, hidden], |device| positions(rows, hidden, device)),
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &ChunkedConfig {
        &self.config
    }

    /// Operations on one clip of this many mel frames.
    pub fn flops(&self, frames: usize) -> u64 {
        let whole = frames.min(self.config.chunk_frames);
        let of_chunk = |chunk: usize| {
            let (mut frames, mut bands, mut sum) = (whole, self.config.mels, 0);
            for convolution in &self.convolutions {
                (frames, bands) = (frames.div_ceil(2), bands.div_ceil(2));
                sum += convolution.flops(frames * bands);
            }
            sum + self.conv_out.flops(behind_stem(chunk))
        };
        let rows = self.config.features(frames);
        let pairs = self.config.windows(frames).into_iter().map(|rows| rows * rows).sum();
        let stem: u64 = self.config.chunks(frames).map(of_chunk).sum();
        let layers: u64 = self.layers.iter().map(|layer| layer.flops(rows, pairs)).sum();
        stem + layers + self.proj1.flops(rows) + self.proj2.flops(rows)
    }

    /// f32 values alive a mel frame in the widest step behind the stem, with the frame itself.
    pub fn frame_values(&self) -> usize {
        let ChunkedConfig { mels, hidden, inner, output, .. } = self.config;
        mels + (6 * hidden + (9 * hidden).max(4 * inner) + output).div_ceil(8)
    }

    /// f32 values alive while a chunk goes through the stem.
    pub fn chunk_values(&self) -> usize {
        let ChunkedConfig { channels, mels, chunk_frames, .. } = self.config;
        // Places of each map; the gathered taps of the second are the most.
        let places = |halvings: u32| chunk_frames.div_ceil(1 << halvings) * mels.div_ceil(1 << halvings);
        let gathered = places(2) * TAPS * TAPS * channels;
        2 * places(1) * channels + gathered + places(2) * channels
    }

    /// Rows of packed clips.
    ///
    /// # Shapes
    /// - `input.rows`: `[frames, mels]`, one window a clip; returns: `[rows, output]`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(&self, input: MelRows) -> Tensor<2> {
        let mut pass = self.begin(input);
        while !self.is_done(&pass) {
            pass = self.advance(pass);
        }
        self.finish(pass)
    }

    /// The first step of a pass that may stop between two others; [`ChunkedTower::forward`] is all of its steps.
    ///
    /// # Shapes
    /// As [`ChunkedTower::forward`].
    pub fn begin(&self, input: MelRows) -> ChunkedPass {
        let MelRows { rows, windows } = input;
        let (mut chunks, mut start) = (Vec::new(), 0);
        for &clip in &windows {
            let longest = clip.min(self.config.chunk_frames);
            for frames in self.config.chunks(clip) {
                chunks.push(Chunk { start, frames, padded: longest });
                start += frames;
            }
        }
        chunks.reverse();
        let lengths = windows.iter().flat_map(|&clip| self.config.windows(clip)).collect();
        ChunkedPass { mel: rows, chunks, stemmed: Vec::new(), lengths, body: None, next: 0 }
    }

    /// Brings one more chunk through the stem or, behind the last of them, all rows through one more layer.
    ///
    /// # Panics
    /// If no layer is left.
    pub fn advance(&self, pass: ChunkedPass) -> ChunkedPass {
        let ChunkedPass { mel, mut chunks, mut stemmed, lengths, body, next } = pass;
        if let Some(chunk) = chunks.pop() {
            stemmed.push(self.stem(&mel, chunk));
            let body = chunks.is_empty().then(|| {
                let hidden = Tensor::cat(std::mem::take(&mut stemmed), 0);
                let hidden = capture::pass(|| "audio.stem".into(), hidden);
                with_padding(hidden, Segments::from_lengths(lengths.iter().copied()))
            });
            return ChunkedPass { mel, chunks, stemmed, lengths, body, next };
        }
        let (hidden, segments) = body.expect("the last chunk of the stem makes the rows");
        let hidden = self.layers[next].forward(hidden, &segments, next);
        let hidden = capture::pass(|| format!("audio.layers.{next}"), hidden);
        ChunkedPass { mel, chunks, stemmed, lengths, body: Some((hidden, segments)), next: next + 1 }
    }

    /// Whether every layer has run.
    pub fn is_done(&self, pass: &ChunkedPass) -> bool {
        pass.chunks.is_empty() && pass.next == self.layers.len()
    }

    /// The rows of a pass whose layers have all run.
    ///
    /// # Shapes
    /// As [`ChunkedTower::forward`].
    pub fn finish(&self, pass: ChunkedPass) -> Tensor<2> {
        let (hidden, segments) = pass.body.expect("a pass has chunks");
        let normed = self.ln_post.forward(without_padding(hidden, &segments));
        let normed = capture::pass(|| "audio.ln_post".into(), normed);
        let features = self.proj2.forward(self.proj1.forward_into(normed, GELU, &self.proj2));
        capture::pass(|| "audio.features".into(), features)
    }

    /// Rows of one chunk, `[rows, hidden]`, with their positions.
    fn stem(&self, mel: &Tensor<2>, chunk: Chunk) -> Tensor<2> {
        let Chunk { start, frames, padded } = chunk;
        let mut maps = mel.clone().slice_dim(0, start..start + frames); // [frames, mels]
        if padded > frames {
            let zeros = Tensor::zeros([padded - frames, self.config.mels], (&mel.device(), burn::tensor::DType::F32));
            maps = Tensor::cat(vec![maps, zeros], 0);
        }
        let (mut time, mut bands) = (padded, self.config.mels);
        let mut maps = maps.reshape([time * bands, 1]); // [time * bands, channels]
        for (i, convolution) in self.convolutions.iter().enumerate() {
            maps = convolution.activated(gather(maps, time, bands), GELU);
            (time, bands) = (time.div_ceil(2), bands.div_ceil(2));
            maps = capture::pass(|| format!("audio.conv2d{}", i + 1), maps);
        }
        let rows = behind_stem(frames);
        let channels = self.config.channels;
        // What is made of zeros behind the clip is left out; the projection reads channel by channel.
        let maps = maps.slice_dim(0, 0..rows * bands).reshape([rows, bands, channels]).swap_dims(1, 2);
        let projected = self.conv_out.forward(maps.reshape([rows, channels * bands]));
        projected + self.positions.val().slice_dim(0, 0..rows)
    }
}

/// Taps of a convolution of stride 2 with zeros all around, place by place of its result.
///
/// # Shapes
/// - `maps`: `[time * bands, channels]`; returns: `[time / 2 * bands / 2, taps * channels]`, halves rounded up, the taps of each
///   band from its first frame on
fn gather(maps: Tensor<2>, time: usize, bands: usize) -> Tensor<2> {
    let ([count, channels], device) = (maps.dims(), maps.device());
    let silent = Tensor::zeros([1, channels], (&device, burn::tensor::DType::F32));
    let padded = Tensor::cat(vec![maps, silent], 0);
    let inside = |at: usize, tap: usize, size: usize| (2 * at + tap).checked_sub(1).filter(|&at| at < size);
    let taps = (0..TAPS * TAPS).map(|tap| {
        let (band_tap, time_tap) = (tap / TAPS, tap % TAPS);
        let places = (0..time.div_ceil(2)).flat_map(|t| {
            (0..bands.div_ceil(2)).map(move |band| {
                let place = inside(t, time_tap, time).zip(inside(band, band_tap, bands));
                place.map_or(count, |(t, band)| t * bands + band) as i32
            })
        });
        let places: Vec<i32> = places.collect();
        let shape = [places.len()];
        padded.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(places, shape), &device))
    });
    Tensor::cat(taps.collect(), 1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn config() -> ChunkedConfig {
        ChunkedConfig {
            hidden: 8,
            layers: 1,
            heads: 2,
            inner: 8,
            channels: 2,
            chunk_frames: 200,
            mels: 128,
            output: 4,
            norm_eps: 1e-5,
            window_chunks: None,
        }
    }

    #[test]
    fn rows_are_those_of_each_chunk() {
        let config = config();
        let counts = [(200, 25), (201, 26), (300, 38), (4500, 563), (1, 1), (8, 1), (9, 2), (199, 25), (400, 50)];
        for (frames, rows) in counts {
            assert_eq!(config.features(frames), rows, "{frames}");
        }
        assert_eq!(ChunkedConfig { chunk_frames: 100, ..config }.features(300), 39);
    }

    #[test]
    fn windows_are_of_whole_chunks_and_a_clip_shorter_than_one_is_its_own() {
        let all = config();
        assert_eq!(all.windows(4500), [563]);
        let config = ChunkedConfig { chunk_frames: 100, window_chunks: Some(8), ..all };
        assert_eq!(config.windows(2100), [104, 104, 65]);
        assert_eq!(config.windows(800), [104]);
        assert_eq!(config.windows(801), [104, 1]);
        assert_eq!(config.windows(9), [2]);
        let error = ChunkedConfig { window_chunks: Some(0), ..config }.check().unwrap_err().to_string();
        assert!(error.contains("audio.window_chunks"), "{error}");
    }

    #[test]
    fn taps_lie_around_every_second_place_and_are_silent_outside() {
        // Three frames of two bands: 1 2, 3 4, 5 6.
        let maps = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 2., 3., 4., 5., 6.], [6, 1]), &Device::flex());
        let taps: Vec<f32> = gather(maps, 3, 2).into_data().try_to_vec().unwrap();
        // Rows of taps: the band before, the band, the band behind; columns: the frame before, the frame, the one behind.
        assert_eq!(taps[..9], [0., 0., 0., 0., 1., 3., 0., 2., 4.]);
        assert_eq!(taps[9..], [0., 0., 0., 3., 5., 0., 4., 6., 0.]);
    }

    #[test]
    fn sizes_that_contradict_are_refused_by_name() {
        let refused = |config: ChunkedConfig| config.check().unwrap_err().to_string();
        assert!(config().check().is_ok());
        assert!(refused(ChunkedConfig { heads: 3, ..config() }).contains("audio.hidden"));
        assert!(refused(ChunkedConfig { chunk_frames: 5000, ..config() }).contains("audio.chunk_frames"));
        assert!(refused(ChunkedConfig { output: 0, ..config() }).contains("audio.output"));
    }
}
