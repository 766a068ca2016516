//! The model without the engine: for captured intermediates, features and negative controls, on the calling thread.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use omniburn::Dtype;
use omniburn::record::{mel_preprocess, vision_preprocess};
use omniburn_kernels::Segments;
use omniburn_media::{AudioReader, AudioSource, LogMel, MelPreprocess, PatchGrid, RgbImage, TextTokenizer};
use omniburn_media::{VisionPreprocess, decode_image_file, log_mel};
use omniburn_models::batch::{Grid, MelRows, PatchRows, TokenRows};
use omniburn_models::families::omni::{OmniConfig, OmniText};
use omniburn_models::record::RecordHeader;
use omniburn_models::towers::audio::{AudioConfig, AudioTower};
use omniburn_models::towers::vision::VisionTower;

use crate::support::{burn_device, device, open};

/// One task of a record on a device, in f32.
pub struct Model {
    pub record: PathBuf,
    pub header: RecordHeader,
    pub config: OmniConfig,
    pub text: OmniText,
    pub tower: Option<VisionTower>,
    pub sound: Option<AudioTower>,
    pub tokenizer: TextTokenizer,
    pub device: Device,
}

impl Model {
    pub fn open(path: &Path, task: &str) -> Self {
        Self::open_on(path, task, burn_device(device()))
    }

    pub fn open_on(path: &Path, task: &str, device: Device) -> Self {
        let record = open(path);
        let config = record
            .header()
            .family
            .of::<omniburn_models::families::OmniConfig>()
            .expect("a record of this family")
            .clone();
        let tokens = config.open_tokens(&record).unwrap();
        Self {
            text: config.open_text(&record, task, tokens, Dtype::F32, &device).unwrap(),
            tower: config.open_vision(&record, Dtype::F32, &device).unwrap(),
            sound: config.open_audio(&record, Dtype::F32, &device).unwrap(),
            tokenizer: TextTokenizer::from_file(&record.tokenizer_path()).unwrap(),
            record: path.to_path_buf(),
            header: record.header().clone(),
            config,
            device,
        }
    }

    /// The text half alone, of a record whose towers are another configuration's.
    pub fn open_text_on(path: &Path, task: &str, device: Device) -> OmniText {
        let record = open(path);
        let config = record.header().family.of::<OmniConfig>().expect("a record of this family").clone();
        config.open_text(&record, task, config.open_tokens(&record).unwrap(), Dtype::F32, &device).unwrap()
    }

    /// One pooled row a sequence, not normalised.
    pub fn text(&self, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
        read_rows(self.text.embed(self.text_rows(sequences)))
    }

    /// Token rows of packed sequences.
    pub fn text_rows(&self, sequences: &[Vec<u32>]) -> TokenRows {
        let segments = Segments::from_lengths(sequences.iter().map(Vec::len));
        TokenRows { rows: self.rows(&sequences.concat()), segments }
    }

    fn rows(&self, ids: &[u32]) -> Tensor<2> {
        let mut values = Vec::new();
        self.text.tokens.gather(ids, &mut values).unwrap();
        let shape = [ids.len(), self.text.tokens.hidden()];
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), &self.device)
    }

    /// How images are prepared, as the record says.
    pub fn pixels(&self) -> VisionPreprocess {
        vision_preprocess(self.header.preprocess.image.as_ref().unwrap())
    }

    /// How video frames are prepared, as the record says.
    pub fn video(&self) -> VisionPreprocess {
        vision_preprocess(self.header.preprocess.video.as_ref().unwrap())
    }

    /// Tower rows of packed items, `[patches, hidden]`.
    pub fn tower(&self, items: &[PatchGrid]) -> Tensor<2> {
        let width = items[0].row_len();
        let values = items.iter().flat_map(PatchGrid::rows).collect();
        self.tower.as_ref().unwrap().forward(PatchRows::new(values, width, grids(items), &self.device)).last
    }

    /// Feature rows as they enter the backbone.
    pub fn features(&self, items: &[PatchGrid]) -> Tensor<2> {
        self.text.merger.as_ref().unwrap().forward(self.tower(items))
    }

    /// How audio is prepared, as the record says.
    pub fn mel(&self) -> MelPreprocess {
        mel_preprocess(self.header.preprocess.audio.as_ref().unwrap())
    }

    /// The mel frames of an audio file of one segment.
    pub fn listen(&self, path: &Path) -> LogMel {
        let source = AudioSource::file(path);
        let mut reader = AudioReader::open(&source, self.mel().sample_rate_hz).unwrap();
        log_mel(&reader.next_segment().unwrap().unwrap().samples, &self.mel()).unwrap()
    }

    /// Audio tower rows of packed clips, before pairs are made: frames of each, `[frames, mels]`.
    pub fn sound_rows(&self, clips: &[&[f32]]) -> Vec<Tensor<2>> {
        let audio = self.config.audio.as_ref().unwrap();
        let windows: Vec<Vec<usize>> = clips.iter().map(|c| audio.windows(c.len() / audio.mels)).collect();
        let input = MelRows::new(clips.concat(), audio.mels, windows.concat(), &self.device);
        let rows = self.sound.as_ref().unwrap().forward(input);
        let mut start = 0;
        let clips = windows.iter().map(|windows| {
            let count: usize = windows.iter().map(|&w| AudioConfig::window_rows(w)).sum();
            start += count;
            rows.clone().slice_dim(0, start - count..start)
        });
        clips.collect()
    }

    /// What the reference calls the audio tower's output: pairs and the last norm, of each packed clip.
    pub fn sound_pooled(&self, clips: &[&[f32]]) -> Vec<Tensor<2>> {
        self.sound_rows(clips).into_iter().map(|rows| self.sound.as_ref().unwrap().pool(rows)).collect()
    }

    /// Audio features of packed clips as they enter the backbone.
    pub fn sound_features(&self, clips: &[&[f32]]) -> Vec<Vec<f32>> {
        self.sound_pooled(clips).into_iter().map(|pooled| values(self.text.project(pooled))).collect()
    }

    /// The pooled row of features between ids.
    pub fn media(&self, features: Tensor<2>, before: &[u32], after: &[u32]) -> Vec<f32> {
        read_rows(self.text.embed(self.media_rows(features, before, after))).swap_remove(0)
    }

    /// Token rows of features between ids.
    pub fn media_rows(&self, features: Tensor<2>, before: &[u32], after: &[u32]) -> TokenRows {
        let mut pieces = vec![self.rows(before), features];
        if !after.is_empty() {
            pieces.push(self.rows(after));
        }
        let rows = Tensor::cat(pieces, 0);
        let segments = Segments::single(rows.dims()[0]);
        TokenRows { rows, segments }
    }
}

/// Grids of packed items.
pub fn grids(items: &[PatchGrid]) -> Vec<Grid> {
    items.iter().map(|p| Grid { t: p.grid().t, h: p.grid().h, w: p.grid().w }).collect()
}

pub fn decode(path: &Path) -> RgbImage {
    decode_image_file(path).unwrap()
}

pub fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub fn read_rows(tensor: Tensor<2>) -> Vec<Vec<f32>> {
    let width = tensor.dims()[1];
    values(tensor).chunks_exact(width).map(<[f32]>::to_vec).collect()
}
