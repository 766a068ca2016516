//! Negative controls: known porting mistakes, each far outside its tolerance. So the tests that hold the tolerance can
//! fail.
//!
//! A mistake is made by another configuration, by other weights (`altered`) or by other inputs. Eleven cannot be expressed
//! so, and are made in a composition of single operations that without them equals the model (`composed`):
//!
//! | mistake | golden that differs |
//! |---|---|
//! | the q/k norm after the rotary | `text`, and `hidden` of every layer in `debug` |
//! | GELU by the other formula: image tower, merger, audio tower | `features` of images and of audio |
//! | half-pixel positions; positions in raster order | `features` of images |
//! | no rotary in the image tower | `features` of images |
//! | packed images, or the frame groups of a video, that see each other | `image_batch`; `features` of videos |
//! | audio positions that count on over windows; windows that see each other | `features` of audio |

use burn::tensor::{Device, Tensor};
use omniburn::Dtype;
use omniburn_kernels::Segments;
use omniburn_media::{AudioReader, AudioSource, LogMel, PatchGrid, image_patches, log_mel, video_patches};
use omniburn_models::backbone::Extras;
use omniburn_models::batch::TokenRows;
use omniburn_models::blocks::Pooling;
use omniburn_models::families::OmniConfig;

use crate::altered::{Tensors, altered};
use crate::composed::{self, Audio, Images, gelu_erf, gelu_tanh};
use crate::direct::{Model, decode, read_rows, values};
use crate::parity_text::text;
use crate::support::*;

/// What a mistake is seen in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum In {
    /// Vectors of texts.
    Text,
    /// Vectors of two packed texts.
    PackedText,
    /// Features of an image.
    Image,
    /// Features of every image of the set, as the parity test compares them.
    EveryImage,
    /// Features of two packed images.
    PackedImages,
    /// Features of a clip.
    Clip,
    /// Vector of an image.
    ImageVector,
    /// Features of an audio of several windows, the last of them short and odd.
    Audio,
    /// Features of every audio of the set.
    EveryAudio,
}

/// The bounds of the reference backend, which the mistakes are measured in.
const EMBEDDING_FLEX: f32 = 5e-6;
const FEATURE_FLEX: f32 = 5e-5;

struct Subject {
    model: Model,
    tensors: Tensors,
    texts: Vec<Vec<u32>>,
    image: PatchGrid,
    other: PatchGrid,
    every: Vec<PatchGrid>,
    clip: PatchGrid,
    sounds: Vec<LogMel>,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Subject {
    fn new(name: &str) -> Self {
        let checkpoint = golden().checkpoint(name);
        let model = Model::open_on(&checkpoint.record(Dtype::F32), "retrieval", Device::flex());
        let ids = |name: &str| model.tokenizer.ids(&format!("Document: {}", text(&checkpoint, name))).unwrap();
        let image = |n: &str| {
            image_patches(&decode(&checkpoint.media.join(format!("images/{n}.png"))), &model.pixels()).unwrap()
        };
        let frames: Vec<_> = (0..4).map(|i| decode(&checkpoint.media.join(format!("video/clip4_{i}.png")))).collect();
        let mut before = model.tokenizer.ids_bare("Document: ").unwrap();
        let template = &model.header.templates[&"image".parse().unwrap()];
        before.extend(template.start);
        let mut after: Vec<u32> = template.end.into_iter().collect();
        after.extend(model.tokenizer.trailing_specials());
        Self {
            // The token whose row is a thousand times smaller makes a wrong epsilon visible.
            texts: vec![ids("single"), ids("plain"), ids("emoji")],
            image: image("odd"),
            other: image("square"),
            every: checkpoint
                .cases("image")
                .filter(|c| c["features"].is_string())
                .map(|c| image(str_of(&c["name"])))
                .collect(),
            clip: video_patches(&frames, &model.video()).unwrap(),
            sounds: ["second", "mixed", "three", "edge", "half", "short"]
                .map(|n| model.listen(&checkpoint.audio_path(n)))
                .into(),
            before,
            after,
            tensors: Tensors::of(model.record.as_path()),
            model,
        }
    }

    fn see(&self, what: In) -> Vec<f32> {
        self.see_by(&self.model, what)
    }

    /// The same of another model.
    fn see_by(&self, m: &Model, what: In) -> Vec<f32> {
        match what {
            In::Text => unit(self.texts.iter().flat_map(|t| m.text(std::slice::from_ref(t))).collect()),
            In::PackedText => unit(m.text(&self.texts)),
            In::Image => values(m.features(std::slice::from_ref(&self.image))),
            In::EveryImage => self.every.iter().flat_map(|p| values(m.features(std::slice::from_ref(p)))).collect(),
            In::PackedImages => values(m.features(&[self.image.clone(), self.other.clone()])),
            In::Clip => values(m.features(std::slice::from_ref(&self.clip))),
            In::ImageVector => {
                let features = m.features(std::slice::from_ref(&self.image));
                unit(vec![m.media(features, &self.before, &self.after)])
            }
            // 101 frames: whole windows and one frame, whose successor would not be silent without the mask.
            In::Audio => m.sound_features(&[self.sounds[0].values()]).concat(),
            In::EveryAudio => self.sounds.iter().flat_map(|s| m.sound_features(&[s.values()]).concat()).collect(),
        }
    }
}

fn unit(rows: Vec<Vec<f32>>) -> Vec<f32> {
    rows.iter().flat_map(|r| omniburn_models::blocks::normalize_l2(r).expect("a vector")).collect()
}

impl In {
    fn tolerance(self) -> f32 {
        match self {
            In::Text | In::PackedText | In::ImageVector => EMBEDDING_FLEX,
            In::Image | In::EveryImage | In::PackedImages | In::Clip | In::Audio | In::EveryAudio => FEATURE_FLEX,
        }
    }
}

/// A mistake, where it is seen, how many times the tolerance it must move that by, in which families, and what it
/// gives.
type Control = (&'static str, In, f32, &'static [&'static str], fn(&Subject) -> Vec<f32>);

const BOTH: [&str; 2] = ["omni-small-tiny", "omni-nano-tiny"];
const SMALL: [&str; 1] = ["omni-small-tiny"];
const CONTROLS: [Control; 26] = [
    ("rotary pairs of neighbours", In::Text, 10.0, &BOTH, rotary_pairs_of_neighbours),
    ("q/k norm after the rotary", In::Text, 10.0, &SMALL, |s| composed_text(s, false)),
    ("no q/k norm", In::Text, 10.0, &SMALL, no_qk_norm),
    ("the other family's epsilon", In::Text, 10.0, &BOTH, other_epsilon),
    ("key heads interleaved", In::Text, 10.0, &SMALL, key_heads_interleaved),
    ("causal flipped", In::Text, 10.0, &BOTH, |s| wrong(s, In::Text, |c, _| c.text.causal = !c.text.causal)),
    ("packed texts see each other", In::PackedText, 10.0, &BOTH, texts_as_one_segment),
    ("positions restart at an image", In::ImageVector, 10.0, &BOTH, positions_restart),
    ("pooled before the final norm", In::Text, 10.0, &BOTH, pooled_before_the_final_norm),
    ("the first row pooled", In::Text, 10.0, &BOTH, |s| pooled(s, Pooling::Cls)),
    ("the mean pooled", In::Text, 10.0, &BOTH, |s| pooled(s, Pooling::Mean)),
    ("patch values with channels last", In::Image, 10.0, &BOTH, channels_last),
    ("the merger's norm after the reshape", In::Image, 10.0, &BOTH, merger_norm_after_the_reshape),
    ("the merger's GELU by tanh", In::EveryImage, 5.0, &BOTH, |s| images(s, |i| i.merger_gelu = gelu_tanh)),
    ("the image tower's GELU by erf", In::EveryImage, 5.0, &BOTH, |s| images(s, |i| i.gelu = gelu_erf)),
    ("positions of half pixels", In::Image, 10.0, &BOTH, |s| positions(s, merge(s), half_pixel)),
    ("positions in raster order", In::Image, 10.0, &BOTH, |s| positions(s, 1, aligned)),
    ("row and column of the rotary exchanged", In::Image, 10.0, &BOTH, rotary_row_for_column),
    ("no rotary in the image tower", In::Image, 10.0, &BOTH, |s| image(s, |i| i.rotary = None)),
    ("packed images see each other", In::PackedImages, 10.0, &BOTH, packed_images_as_one_window),
    ("frame groups of a video see each other", In::Clip, 10.0, &BOTH, frame_groups_as_one_window),
    ("audio positions run on", In::EveryAudio, 10.0, &BOTH, |s| {
        sounds(s, |a| a.places = (0..a.places.len()).collect())
    }),
    ("audio windows see each other", In::EveryAudio, 10.0, &BOTH, |s| {
        sounds(s, |a| a.segments = Segments::single(a.segments.rows()))
    }),
    ("no silence after a short window", In::EveryAudio, 10.0, &BOTH, no_silence_after_a_short_window),
    ("the audio tower's norm before the pairs", In::Audio, 10.0, &BOTH, norm_before_the_pairs),
    ("the audio tower's GELU by tanh", In::EveryAudio, 5.0, &BOTH, |s| sounds(s, |a| a.gelu = gelu_tanh)),
];

#[test]
fn every_mistake_moves_a_result_far_outside_its_tolerance() {
    for name in BOTH {
        let subject = Subject::new(name);
        for (mistake, what, times, families, wrong) in CONTROLS {
            if !families.contains(&name) {
                continue;
            }
            let moved = distance(mistake, &wrong(&subject), &subject.see(what)).max_abs / what.tolerance();
            println!("{name}: {mistake}: {what:?} moves by {moved:.0} tolerances");
            assert!(moved > times, "{name}: {mistake}: {what:?} moves by {moved:.1} tolerances, expected {times}");
        }
    }
}

/// A copy that is not the model proves nothing of it: what is altered or composed without a mistake equals the model.
#[test]
fn copies_without_a_mistake_equal_the_model() {
    for name in BOTH {
        let subject = Subject::new(name);
        let same = |what: In, got: Vec<f32>| {
            let far = compare(&format!("{name} {what:?}"), &got, &subject.see(what), what.tolerance());
            println!("{name}: {what:?} of a copy differs by {far:.1e}");
        };
        same(In::Text, wrong(&subject, In::Text, |_, _| ()));
        same(In::EveryImage, wrong(&subject, In::EveryImage, |_, _| ()));
        same(In::EveryAudio, wrong(&subject, In::EveryAudio, |_, _| ()));
        same(In::Text, composed_text(&subject, true));
        same(In::EveryImage, images(&subject, |_| ()));
        same(In::Image, positions(&subject, merge(&subject), aligned));
        same(In::PackedImages, composed_images(&subject, &packed_images(&subject), |_| ()));
        same(In::Clip, composed_images(&subject, std::slice::from_ref(&subject.clip), |_| ()));
        same(In::EveryAudio, sounds(&subject, |_| ()));
        same(In::Text, pooled(&subject, Pooling::LastToken));
    }
}

/// What a copy of the record with another configuration or other tensors gives.
fn wrong(s: &Subject, what: In, change: impl FnOnce(&mut OmniConfig, &mut Tensors)) -> Vec<f32> {
    let record = altered(&s.model.record, change);
    s.see_by(&Model::open_on(&record, "retrieval", Device::flex()), what)
}

/// Columns of queries and keys moved, so that the halves that rotary turns together are neighbours of the checkpoint.
fn rotary_pairs_of_neighbours(s: &Subject) -> Vec<f32> {
    wrong(s, In::Text, |config, tensors| {
        let text = &config.text;
        let half = text.head_dim / 2;
        let within = |i: usize| 2 * (i % half) + i / half;
        for layer in 0..text.layers {
            let path = format!("backbone.layers.{layer}.self_attn");
            tensors.permute_columns(&format!("{path}.qkv_proj.weight"), |j| match j / text.head_dim {
                head if head < text.heads + text.kv_heads => head * text.head_dim + within(j % text.head_dim),
                _ => j,
            });
            for norm in ["q_norm", "k_norm"].iter().filter(|_| text.qk_norm) {
                tensors.permute_columns(&format!("{path}.{norm}.weight"), within);
            }
        }
    })
}

fn no_qk_norm(s: &Subject) -> Vec<f32> {
    wrong(s, In::Text, |config, tensors| {
        config.text.qk_norm = false;
        for layer in 0..config.text.layers {
            for norm in ["q_norm", "k_norm"] {
                tensors.remove(&format!("backbone.layers.{layer}.self_attn.{norm}.weight"));
            }
        }
    })
}

fn other_epsilon(s: &Subject) -> Vec<f32> {
    wrong(s, In::Text, |config, _| config.text.norm_eps = if config.text.norm_eps < 5e-6 { 1e-5 } else { 1e-6 })
}

/// Query heads moved, so that head `j` of the checkpoint reads the key head `j mod kv_heads`.
fn key_heads_interleaved(s: &Subject) -> Vec<f32> {
    wrong(s, In::Text, |config, tensors| {
        let text = &config.text;
        let (width, group) = (text.head_dim, text.heads / text.kv_heads);
        let from = |j: usize| match j / width {
            head if head < text.heads => ((head % group) * text.kv_heads + head / group) * width + j % width,
            _ => j,
        };
        for layer in 0..text.layers {
            let path = format!("backbone.layers.{layer}.self_attn");
            tensors.permute_columns(&format!("{path}.qkv_proj.weight"), from);
            tensors.permute_rows(&format!("{path}.o_proj.weight"), from);
        }
    })
}

/// Positions as they should be, in one segment.
fn texts_as_one_segment(s: &Subject) -> Vec<f32> {
    let backbone = &s.model.text.backbone;
    let TokenRows { rows, segments } = s.model.text_rows(&s.texts);
    let extras = Extras { rotary: Some(backbone.rotary(&segments, &s.model.device)), ..Extras::default() };
    let one = TokenRows { rows, segments: Segments::single(segments.rows()) };
    unit(read_rows(Pooling::LastToken.apply(backbone.forward_with(one, extras), &segments)))
}

fn positions_restart(s: &Subject) -> Vec<f32> {
    let features = s.model.features(std::slice::from_ref(&s.image));
    let input = s.model.media_rows(features, &s.before, &s.after);
    let (segments, start) = (input.segments.clone(), s.before.len());
    let positions: Vec<usize> = (0..segments.rows()).map(|p| p.checked_sub(start).unwrap_or(p)).collect();
    let backbone = &s.model.text.backbone;
    let extras = Extras { rotary: Some(backbone.rotary_at(&positions, &s.model.device)), ..Extras::default() };
    unit(read_rows(Pooling::LastToken.apply(backbone.forward_with(input, extras), &segments)))
}

/// A norm whose gain is one leaves a row its direction.
fn pooled_before_the_final_norm(s: &Subject) -> Vec<f32> {
    wrong(s, In::Text, |config, tensors| {
        tensors.set("backbone.norm.weight", &[config.text.hidden], &vec![1.0; config.text.hidden]);
    })
}

fn pooled(s: &Subject, pooling: Pooling) -> Vec<f32> {
    let one = |ids: &Vec<u32>| {
        let input = s.model.text_rows(std::slice::from_ref(ids));
        let segments = input.segments.clone();
        read_rows(pooling.apply(s.model.text.backbone.forward(input), &segments)).swap_remove(0)
    };
    unit(s.texts.iter().map(one).collect())
}

/// Rows of the patch product moved, as if values came in the order (time, row, column, channel).
fn channels_last(s: &Subject) -> Vec<f32> {
    wrong(s, In::Image, |config, tensors| {
        let vision = config.vision.as_ref().unwrap();
        let (channels, side) = (vision.channels, vision.patch_px);
        let plane = vision.temporal_patch * side * side;
        tensors.permute_rows("vision.patch_embed.weight", |i| (i % plane) * channels + i / plane);
    })
}

/// A merger of one patch a row, four times as wide, whose norm's gain and bias come four times.
fn merger_norm_after_the_reshape(s: &Subject) -> Vec<f32> {
    let vision = s.model.config.vision.as_ref().unwrap();
    let block = vision.merge * vision.merge;
    let path = altered(&s.model.record, |config, tensors| {
        let vision = config.vision.as_mut().unwrap();
        (vision.hidden, vision.merge) = (vision.hidden * block, 1);
        tensors.repeat("merger.norm.weight", block);
        tensors.repeat("merger.norm.bias", block);
    });
    let merger = Model::open_text_on(&path, "retrieval", Device::flex()).merger.unwrap();
    let rows = s.model.tower(std::slice::from_ref(&s.image));
    let [patches, width] = rows.dims();
    values(merger.forward(rows.reshape([patches / block, width * block])))
}

/// Quarters of queries and keys moved, so that the angles of rows turn what those of columns should.
fn rotary_row_for_column(s: &Subject) -> Vec<f32> {
    wrong(s, In::Image, |config, tensors| {
        let vision = config.vision.as_ref().unwrap();
        let half = vision.hidden / vision.heads / 2;
        let from = |j: usize| match j < 2 * vision.hidden {
            true => j / half * half + (j % half + half / 2) % half,
            false => j,
        };
        for block in 0..vision.layers {
            for name in ["weight", "bias"] {
                tensors.permute_columns(&format!("vision.blocks.{block}.attn.qkv.{name}"), from);
            }
        }
    })
}

/// A frame of zeros after a short window of an odd number of frames: the first convolution makes no zeros of it.
fn no_silence_after_a_short_window(s: &Subject) -> Vec<f32> {
    let audio = s.model.config.audio.as_ref().unwrap();
    let features = |sound: &LogMel| {
        let mut mel = sound.values().to_vec();
        if sound.frames() % audio.window_frames() % 2 == 1 {
            mel.extend(std::iter::repeat_n(0.0, audio.mels));
        }
        s.model.sound_features(&[&mel]).concat()
    };
    s.sounds.iter().flat_map(features).collect()
}

fn norm_before_the_pairs(s: &Subject) -> Vec<f32> {
    let rows = s.model.sound_rows(&[s.sounds[0].values()]).swap_remove(0);
    let normed = s.model.sound.as_ref().unwrap().normed(rows);
    let [rows, width] = normed.dims();
    let pairs = normed.slice([0..rows / 2 * 2, 0..width]).reshape([rows / 2, 2, width]);
    let means: Tensor<2> = pairs.mean_dim(1).reshape([rows / 2, width]);
    values(s.model.text.project(means))
}

fn composed_text(s: &Subject, norm_first: bool) -> Vec<f32> {
    unit(s.texts.iter().map(|ids| composed::text(&s.model, &s.tensors, ids, norm_first)).collect())
}

fn composed_images(s: &Subject, items: &[PatchGrid], change: impl FnOnce(&mut Images)) -> Vec<f32> {
    let mut images = Images::new(&s.model, items);
    change(&mut images);
    images.features(&s.model, &s.tensors)
}

fn image(s: &Subject, change: impl FnOnce(&mut Images)) -> Vec<f32> {
    composed_images(s, std::slice::from_ref(&s.image), change)
}

fn images(s: &Subject, change: impl Fn(&mut Images)) -> Vec<f32> {
    s.every.iter().flat_map(|item| composed_images(s, std::slice::from_ref(item), &change)).collect()
}

fn positions(s: &Subject, merge: usize, at: fn(usize, usize, usize) -> f32) -> Vec<f32> {
    image(s, |images| images.blend(&s.model, &s.tensors, merge, at))
}

fn merge(s: &Subject) -> usize {
    s.model.config.vision.as_ref().unwrap().merge
}

fn aligned(index: usize, size: usize, side: usize) -> f32 {
    index as f32 * (side - 1) as f32 / (size - 1).max(1) as f32
}

fn half_pixel(index: usize, size: usize, side: usize) -> f32 {
    ((index as f32 + 0.5) * side as f32 / size as f32 - 0.5).clamp(0.0, (side - 1) as f32)
}

fn packed_images(s: &Subject) -> [PatchGrid; 2] {
    [s.image.clone(), s.other.clone()]
}

fn packed_images_as_one_window(s: &Subject) -> Vec<f32> {
    composed_images(s, &packed_images(s), |images| images.segments = Segments::single(images.segments.rows()))
}

fn frame_groups_as_one_window(s: &Subject) -> Vec<f32> {
    let clip = std::slice::from_ref(&s.clip);
    composed_images(s, clip, |images| images.segments = Segments::single(images.segments.rows()))
}

fn sounds(s: &Subject, change: impl Fn(&mut Audio)) -> Vec<f32> {
    let features = |sound: &LogMel| {
        let mut audio = Audio::new(&s.model, sound.values());
        change(&mut audio);
        audio.features(&s.model, &s.tensors)
    };
    s.sounds.iter().flat_map(features).collect()
}

/// The differences that end-to-end figures cannot see are held by the operation itself.
#[test]
fn a_layer_norm_epsilon_shows_in_the_operation() {
    let device = Device::flex();
    let tensor = |v: Vec<f32>| {
        burn::tensor::Tensor::<1>::from_data(burn::tensor::TensorData::new(v.clone(), [v.len()]), &device)
    };
    // Values small enough that the variance is near the epsilon.
    let x: Vec<f32> = (0..16).map(|i| (i as f32 - 7.5) * 3e-4).collect();
    let norm = |eps: f64| {
        let x = tensor(x.clone()).unsqueeze::<2>();
        crate::direct::values(omniburn_kernels::layer_norm(x, tensor(vec![1.0; 16]), tensor(vec![0.0; 16]), eps))
    };
    let want = |eps: f64| {
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / 16.0;
        let var = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 16.0;
        x.iter().map(|v| ((f64::from(*v) - mean) / (var + eps).sqrt()) as f32).collect::<Vec<_>>()
    };
    compare("1e-6", &norm(1e-6), &want(1e-6), 2e-6);
    compare("1e-5", &norm(1e-5), &want(1e-5), 2e-6);
    assert!(distance("eps", &norm(1e-6), &norm(1e-5)).max_abs > 0.1);
}

#[test]
fn operations_equal_their_formulas_in_f64() {
    let device = Device::flex();
    let xs: Vec<f32> = (-60..=60).map(|i| i as f32 * 0.1).collect();
    let x = || burn::tensor::Tensor::<2>::from_data(burn::tensor::TensorData::new(xs.clone(), [11, 11]), &device);
    let tanh = |v: f64| 0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044_715 * v.powi(3))).tanh());
    let want: Vec<f32> = xs.iter().map(|v| tanh(f64::from(*v)) as f32).collect();
    compare("gelu_tanh", &values(omniburn_kernels::gelu_tanh(x())), &want, 1e-6);
    let want: Vec<f32> =
        xs.iter().map(|v| (0.5 * f64::from(*v) * (1.0 + erf(f64::from(*v) / 2f64.sqrt()))) as f32).collect();
    compare("gelu_erf", &values(omniburn_kernels::gelu_erf(x())), &want, 1e-6);

    let gate_up = x().slice([0..11, 0..10]);
    let rows: Vec<f32> = values(gate_up.clone());
    let want: Vec<f32> = rows
        .chunks_exact(10)
        .flat_map(|r| {
            (0..5)
                .map(|i| (f64::from(r[i]) / (1.0 + (-f64::from(r[i])).exp()) * f64::from(r[i + 5])) as f32)
                .collect::<Vec<_>>()
        })
        .collect();
    compare("swiglu", &values(omniburn_kernels::swiglu(gate_up)), &want, 2e-6);

    let weight: Vec<f32> = (0..11).map(|i| 1.0 + 0.1 * i as f32).collect();
    let gain = burn::tensor::Tensor::<1>::from_data(burn::tensor::TensorData::new(weight.clone(), [11]), &device);
    let want: Vec<f32> = xs
        .chunks_exact(11)
        .flat_map(|r| {
            let mean = r.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 11.0;
            r.iter()
                .zip(&weight)
                .map(|(v, w)| (f64::from(*v) / (mean + 1e-6).sqrt() * f64::from(*w)) as f32)
                .collect::<Vec<_>>()
        })
        .collect();
    compare("rms_norm", &values(omniburn_kernels::rms_norm(x(), gain, 1e-6)), &want, 1e-6);
}

/// Abramowitz and Stegun's series and continued fraction, to 1e-15 where they meet.
fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    } else {
        let mut fraction = 0.0;
        for k in (1..60).rev() {
            fraction = f64::from(k) / 2.0 / (x.abs() + fraction);
        }
        x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + fraction))
    }
}

/// Mistakes of preparing an image: each changes the features of an image it concerns.
#[test]
fn mistakes_of_preparing_pictures_show_in_the_features() {
    for name in BOTH {
        let checkpoint = golden().checkpoint(name);
        let model = Model::open_on(&checkpoint.record(Dtype::F32), "retrieval", Device::flex());
        let image = |n: &str| decode(&checkpoint.media.join(format!("images/{n}.png")));
        let features = |p: &PatchGrid| values(model.features(std::slice::from_ref(p)));
        let moved = |what: &str, wrong: &PatchGrid, right: &PatchGrid| {
            assert_eq!(wrong.grid(), right.grid());
            let by = distance(what, &features(wrong), &features(right)).max_abs / FEATURE_FLEX;
            println!("{name}: {what} moves features by {by:.0} tolerances");
            assert!(by > 10.0, "{name}: {what}: {by}");
        };
        let pixels = model.pixels();
        // Width and height exchanged, channels exchanged, another mean, another kernel (the nearest pixel).
        let big = image("big");
        let right = image_patches(&big, &pixels).unwrap();
        let resized = omniburn_media::resized_image(&big, &pixels).unwrap();
        let swapped: Vec<u8> = resized.pixels().chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        let swapped = omniburn_media::RgbImage::new(resized.width(), resized.height(), swapped).unwrap();
        moved("BGR for RGB", &image_patches(&swapped, &pixels).unwrap(), &right);
        let (w, h) = (big.width().0 as usize, big.height().0 as usize);
        let (rw, rh) = (resized.width().0 as usize, resized.height().0 as usize);
        let nearest: Vec<u8> = (0..rh)
            .flat_map(|y| (0..rw).map(move |x| (y * h / rh) * w + x * w / rw))
            .flat_map(|at| big.pixels()[3 * at..3 * at + 3].to_vec())
            .collect();
        let nearest = omniburn_media::RgbImage::new(resized.width(), resized.height(), nearest).unwrap();
        moved("the nearest pixel for bicubic", &image_patches(&nearest, &pixels).unwrap(), &right);
        let mut other = pixels.clone();
        (other.mean, other.std) = ([0.481, 0.457, 0.408], [0.268, 0.261, 0.275]);
        moved("CLIP's mean and deviation", &image_patches(&big, &other).unwrap(), &right);
        // Alpha dropped in place of composited over white.
        let alpha = image("alpha");
        let raw = image::open(checkpoint.media.join("images/alpha.png")).unwrap().to_rgba8();
        let dropped: Vec<u8> = raw.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect();
        let dropped = omniburn_media::RgbImage::new(alpha.width(), alpha.height(), dropped).unwrap();
        moved("alpha dropped", &image_patches(&dropped, &pixels).unwrap(), &image_patches(&alpha, &pixels).unwrap());
    }
}

/// Mistakes of the prompt and of the import: each moves a vector by more than ten times its tolerance.
#[test]
fn mistakes_of_the_prompt_and_of_the_import_show_in_the_vectors() {
    use omniburn_convert::{ConvertOptions, TaskChoice, convert};
    let unit = |row: &[f32]| omniburn_models::blocks::normalize_l2(row).expect("a vector");
    let moved = |what: &str, wrong: &[f32], right: &[f32]| {
        let by = distance(what, &unit(wrong), &unit(right)).max_abs / EMBEDDING_FLEX;
        println!("{what} moves a vector by {by:.0} tolerances");
        assert!(by > 10.0, "{what}: {by}");
    };
    for name in BOTH {
        let subject = Subject::new(name);
        let (m, suffix) = (&subject.model, subject.model.tokenizer.trailing_specials().to_vec());
        let features = || m.features(std::slice::from_ref(&subject.image));
        let right = m.media(features(), &subject.before, &subject.after);
        if !suffix.is_empty() {
            let without = &subject.after[..subject.after.len() - suffix.len()];
            moved(
                &format!("{name}: no suffix after a picture"),
                &m.media(features(), &subject.before, without),
                &right,
            );
        }
        moved(
            &format!("{name}: no prefix before a picture"),
            &m.media(features(), &subject.before[..1], &subject.after),
            &right,
        );
        // Text: the prefix and the text are one string, so that the space merges with the first word.
        let checkpoint = golden().checkpoint(name);
        let apart = |text: &str| {
            let mut ids = m.tokenizer.ids_bare("Query: ").unwrap();
            ids.extend(m.tokenizer.ids(text).unwrap());
            ids
        };
        let together = |text: &str| m.tokenizer.ids(&format!("Query: {text}")).unwrap();
        let sentence = checkpoint.cases("text").filter_map(|c| c["text"].as_str()).find(|t| apart(t) != together(t));
        let sentence = sentence.expect("a first word that merges with the space before it");
        let (one, two) = (together(sentence), apart(sentence));
        let text = |ids: &Vec<u32>| m.text(std::slice::from_ref(ids)).swap_remove(0);
        moved(&format!("{name}: prefix tokenised apart from the text"), &text(&two), &text(&one));

        // The rank-stabilised scale taken for the plain one, and the adapter of another task.
        let copy = scratch().join(format!("{name}-scale"));
        copy_folder(&checkpoint.folder, &copy);
        let settings = copy.join("adapters/classification/adapter_config.json");
        let text_of = std::fs::read_to_string(&settings).unwrap();
        assert!(text_of.contains("\"use_rslora\": true"));
        std::fs::write(&settings, text_of.replace("\"use_rslora\": true", "\"use_rslora\": false")).unwrap();
        let out = scratch().join(format!("{name}-scale-record"));
        let tasks = TaskChoice::Named("classification".into());
        convert(&ConvertOptions { dtype: Dtype::F32, tasks, ..ConvertOptions::new(&copy, &out) }).unwrap();
        let open = |path: &std::path::Path| Model::open_on(path, "classification", Device::flex());
        let (wrong, right) = (open(&out), open(&checkpoint.record(Dtype::F32)));
        let of = |m: &Model| m.text(std::slice::from_ref(&one)).swap_remove(0);
        moved(&format!("{name}: rank-stabilised scale ignored"), &of(&wrong), &of(&right));
        moved(&format!("{name}: another task's adapter"), &text(&one), &of(&right));
    }
    // Unified layout: the base table's own rows in place of the task's.
    for name in ["omni-small-tiny-unified", "omni-nano-tiny-unified"] {
        let checkpoint = golden().checkpoint(name);
        let record = crate::support::open(&checkpoint.record(Dtype::F32));
        let model = Model::open_on(record.path(), "retrieval", Device::flex());
        let ids = model.header.special_token_ids.clone();
        let right = model.text(std::slice::from_ref(&ids)).swap_remove(0);
        let mut bare = Model::open_on(record.path(), "retrieval", Device::flex());
        bare.text.tokens = bare.config.open_tokens(&record).unwrap();
        let wrong = bare.text(std::slice::from_ref(&ids)).swap_remove(0);
        moved(&format!("{name}: special rows of the base table"), &wrong, &right);
    }
}

/// Mistakes of preparing an audio: each changes its vector.
#[test]
fn mistakes_of_preparing_sounds_show_in_the_vector() {
    for name in BOTH {
        let subject = Subject::new(name);
        let (checkpoint, m) = (golden().checkpoint(name), &subject.model);
        let (before, after) = (&subject.before, &subject.after);
        let unit = |row: Vec<f32>| omniburn_models::blocks::normalize_l2(&row).expect("a vector");
        let vector = |mel: &[f32]| {
            let pooled = m.sound_pooled(&[mel]).swap_remove(0);
            unit(m.media(m.text.project(pooled), before, after))
        };
        let settings = m.mel();
        let source = AudioSource::file(checkpoint.audio_path("mixed"));
        let mut reader = AudioReader::open(&source, settings.sample_rate_hz).unwrap();
        let samples = reader.next_segment().unwrap().unwrap().samples;
        let mel = log_mel(&samples, &settings).unwrap();
        let right = vector(mel.values());
        let moved = |what: &str, wrong: &[f32]| {
            let by = distance(what, wrong, &right).max_abs / EMBEDDING_FLEX;
            println!("{name}: {what} moves the vector by {by:.0} tolerances");
            assert!(by > 10.0, "{name}: {what}: {by}");
        };
        // One more row of silence than the audio has: four frames at the lowest level.
        let silent = mel.values().iter().copied().fold(f32::INFINITY, f32::min);
        moved("one more silent row", &vector(&[mel.values(), &vec![silent; 4 * mel.mels()]].concat()));
        // The extractor's own 30 s, not cropped by its mask.
        let mut padded = samples.clone();
        padded.resize(30 * settings.sample_rate_hz as usize, 0.0);
        moved("the mel of the padded 30 s", &vector(log_mel(&padded, &settings).unwrap().values()));
        // Mel-major values taken for frame-major ones.
        let (frames, mels) = (mel.frames(), mel.mels());
        let transposed: Vec<f32> =
            (0..mels).flat_map(|b| (0..frames).map(move |f| f * mels + b)).map(|at| mel.values()[at]).collect();
        moved("mel-major values", &vector(&transposed));
        // Without the clip's own floor eight decades below its maximum: quiet bins keep their level.
        let quiet: Vec<f32> = mel.values().iter().map(|v| if *v <= silent { -1.5 } else { *v }).collect();
        if quiet != mel.values() {
            moved("no floor below the maximum", &vector(&quiet));
        }
        // The last frame, which begins inside the clip and ends past it, dropped: a row less where it counts.
        moved("two frames fewer", &vector(&mel.values()[..(frames - 2) * mels]));
        // Recorded at another rate and taken as it lies.
        let slow: Vec<f32> = samples.iter().step_by(2).copied().collect();
        moved("half the rate unnoticed", &vector(log_mel(&slow, &settings).unwrap().values()));
        // No start and end around the features.
        let features = m.text.project(m.sound_pooled(&[mel.values()]).swap_remove(0));
        moved("no wrapper", &unit(m.media(features, &before[..before.len() - 1], &after[after.len().min(1)..])));
    }
}
