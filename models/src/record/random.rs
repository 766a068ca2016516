//! A record with seeded random weights: real shapes without a checkpoint, for benches and tests.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{bf16, f16};
use omniburn_kernels::cpu::affine::AffineRows;
use omniburn_kernels::cpu::pack::{Packed, PanelFormat};

use super::header::{RECORD_FORMAT, RecordHeader};
use super::int8;
use super::spec::{TensorRole, TensorSpec};
use super::types::{
    AudioPreprocess, Dtype, LetterboxPreprocess, MediaTemplate, Modality, PixelPreprocess, Preprocess, Prompts,
    TOKENIZER_FILE, TOKENS_FILE, TOWERS_FILE, TemplateKind, text_file,
};
use super::write::{PartTensor, RecordWriter};
use crate::error::RecordError;
use crate::families::{MiniConfig, OmniConfig, Qwen3OmniEncodersConfig, qwen3_vl};
use crate::family::FamilyConfig;

/// Writes a record of one task named `random` to `out`, replacing one that is there.
///
/// Weights are uniform with the variance of a unit-gain layer, so that activations keep their size; the same `seed`
/// gives the same bytes. Images are prepared within `pixels` (least and largest area); bare templates need no ids.
///
/// # Errors
/// [`RecordError`] from writing.
pub fn write_random(
    out: &Path,
    config: &OmniConfig,
    dtype: Dtype,
    pixels: (u64, u64),
    tokenizer: &Path,
    seed: u64,
) -> Result<(), RecordError> {
    let image = config.vision.as_ref().map(|v| PixelPreprocess {
        patch_px: v.patch_px as u32,
        merge: v.merge as u32,
        temporal_patch: v.temporal_patch as u32,
        min_pixels: pixels.0,
        max_pixels: pixels.1,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
        per_frame: false,
    });
    let audio = config.audio.as_ref().map(|a| AudioPreprocess {
        sample_rate_hz: 16_000,
        fft_samples: 400,
        hop_samples: 160,
        mels: a.mels as u32,
        mirrored: false,
        whole_seconds: None,
        clip: None,
    });
    let preprocess = Preprocess {
        video_frames: image.as_ref().map(|_| 32),
        video: image.clone(),
        image,
        audio,
        ..Preprocess::default()
    };
    let bare = MediaTemplate { kind: TemplateKind::Bare, start: None, end: None };
    let prompts = Prompts { query: "Query: ".into(), document: "Document: ".into(), none: String::new() };
    let family = FamilyConfig::new(config.clone());
    write_family(out, family, dtype, (preprocess, bare, prompts), Some(tokenizer), seed)
}

/// The same for the mini family, with audio at 16 kHz and bytes of pixels brought to -1 to 1.
///
/// # Errors
/// [`RecordError`] from writing.
pub fn write_random_mini(
    out: &Path,
    config: &MiniConfig,
    dtype: Dtype,
    tokenizer: &Path,
    seed: u64,
) -> Result<(), RecordError> {
    let letterbox = config.image.as_ref().map(|p| LetterboxPreprocess {
        image_size: p.tower.image_size as u32,
        mean: 127.0,
        std: 128.0,
    });
    let audio = config.speech.as_ref().map(|s| AudioPreprocess {
        sample_rate_hz: 16_000,
        fft_samples: 400,
        hop_samples: 160,
        mels: s.tower.mels as u32,
        mirrored: false,
        whole_seconds: Some(2),
        clip: None,
    });
    let video_frames = letterbox.as_ref().map(|_| 8);
    let preprocess = Preprocess { letterbox, video_frames, audio, ..Preprocess::default() };
    let template = MediaTemplate { kind: TemplateKind::Noeos, start: Some(config.start), end: Some(config.end) };
    let prompts = Prompts::default();
    write_family(out, FamilyConfig::new(config.clone()), dtype, (preprocess, template, prompts), Some(tokenizer), seed)
}

/// As [`write_random`], of the encoders of Qwen3-Omni, which read no texts and need no tokenizer.
///
/// # Errors
/// [`RecordError`] from writing.
pub fn write_random_encoders(
    out: &Path,
    config: &Qwen3OmniEncodersConfig,
    dtype: Dtype,
    pixels: (u64, u64),
    seed: u64,
) -> Result<(), RecordError> {
    let audio = AudioPreprocess {
        sample_rate_hz: 16_000,
        fft_samples: 400,
        hop_samples: 160,
        mels: config.audio.mels as u32,
        mirrored: false,
        whole_seconds: None,
        clip: None,
    };
    let pixels = [pixels.0, pixels.1];
    let preprocess = Preprocess { audio: Some(audio), ..qwen3_vl::preprocess(&config.vision, pixels) };
    let template = MediaTemplate { kind: TemplateKind::Bare, start: None, end: None };
    let family = FamilyConfig::new(config.clone());
    write_family(out, family, dtype, (preprocess, template, Prompts::default()), None, seed)
}

fn write_family(
    out: &Path,
    family: FamilyConfig,
    dtype: Dtype,
    (preprocess, template, prompts): (Preprocess, MediaTemplate, Prompts),
    tokenizer: Option<&Path>,
    seed: u64,
) -> Result<(), RecordError> {
    let mut writer = RecordWriter::create(out, true)?;
    let task = "random".to_string();
    let parts = [
        (TOKENS_FILE.to_string(), family.token_tensors()),
        (TOWERS_FILE.to_string(), family.tower_tensors()),
        (text_file(&task), family.text_tensors(0)),
    ];
    for (file, specs) in parts {
        if !specs.is_empty() {
            writer.write_part(&file, specs.iter().flat_map(|s| tensors(s, dtype, seed)).collect(), |_| {})?;
        }
    }
    if let Some(tokenizer) = tokenizer {
        writer.copy_file(TOKENIZER_FILE, tokenizer)?;
    }
    let media = Modality::ALL.into_iter().filter(|&m| m != Modality::Text && family.takes(m));
    writer.finish(RecordHeader {
        format: RECORD_FORMAT,
        tool: "random weights".into(),
        name: "random".into(),
        dtype,
        tasks: vec![task.clone()],
        default_task: task,
        dims: vec![family.vector()],
        default_dim: None,
        prompts,
        templates: media.map(|m| (m, template.clone())).collect(),
        special_token_ids: Vec::new(),
        preprocess,
        files: BTreeMap::new(),
        sources: Vec::new(),
        digest: String::new(),
        family,
    })?;
    Ok(())
}

/// A tensor, and its scales where it is stored in int8. Affine groups run along the values as they are made, which are random
/// anyway.
fn tensors(spec: &TensorSpec, dtype: Dtype, seed: u64) -> Vec<PartTensor> {
    let dtype = spec.stored(dtype);
    if dtype.is_affine()
        && let Some(layout) = spec.panels(dtype)
        && let PanelFormat::Affine(format) = layout.format
    {
        let own = spec.clone();
        return vec![PartTensor::packed(&spec.name, dtype, layout, move || {
            let rows = AffineRows::quantize(&values(&own, seed), layout.inputs, format);
            Ok(Packed::from_affine(layout, &rows))
        })];
    }
    if dtype != Dtype::Int8 {
        return vec![tensor(spec, dtype, seed)];
    }
    let (rows, width) = (spec.row_count(), spec.elements() / spec.row_count());
    let (codes, scale) = (spec.clone(), spec.scale());
    // The rows of the checkpoint's order are made and, for a matrix, their codes turned.
    let made = move || int8::quantize(&values(&codes, seed), width);
    let (first, second, turned) = (made.clone(), made, spec.role == TensorRole::Linear);
    let turn = move |codes: Vec<u8>| -> Vec<u8> {
        (0..width).flat_map(|column| (0..rows).map(move |row| row * width + column)).map(|at| codes[at]).collect()
    };
    vec![
        PartTensor::new(&spec.name, Dtype::Int8, spec.shape.clone(), move || {
            let codes = first().codes;
            Ok(if turned { turn(codes) } else { codes })
        })
        .in_panels(spec.panels(Dtype::Int8)),
        PartTensor::new(scale.name, Dtype::F16, scale.shape, move || Ok(second().scales)),
    ]
}

fn tensor(spec: &TensorSpec, dtype: Dtype, seed: u64) -> PartTensor {
    let own = spec.clone();
    PartTensor::new(&spec.name, dtype, spec.shape.clone(), move || {
        let mut bytes = Vec::with_capacity(own.elements() * dtype.bytes());
        for value in values(&own, seed) {
            match dtype {
                Dtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
                Dtype::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
                Dtype::F16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
                Dtype::Int8 | Dtype::Affine8 | Dtype::Affine4 => unreachable!("with scales, and made above"),
            }
        }
        Ok(bytes)
    })
    .in_panels(spec.panels(dtype))
}

fn values(spec: &TensorSpec, seed: u64) -> Vec<f32> {
    let (count, inputs) = (spec.elements(), spec.shape[0]);
    // A norm's gain must be near one; matrices have variance 1/inputs; everything else is small.
    let gain = spec.shape.len() == 1 && spec.name.ends_with(".weight");
    let scale = if spec.role == TensorRole::Linear { (12.0 / inputs as f32).sqrt() } else { 0.2 };
    let mut state =
        spec.name.bytes().fold(seed ^ 0x9E37_79B9_7F4A_7C15, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    state |= 1;
    let value = |_| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        if gain { 1.0 + 0.2 * uniform } else { scale * uniform }
    };
    (0..count).map(value).collect()
}
