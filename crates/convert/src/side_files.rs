//! The files beside the weights: tokenizer, preprocessors, prompts, with the card's word where one is absent.

use std::fmt;
use std::path::{Path, PathBuf};

use omniburn_models::families::OmniConfig;
use omniburn_models::record::{PixelPreprocess, Preprocess, Prompts, SoundPreprocess, TOKENIZER_FILE};
use omniburn_models::towers::vision::VisionConfig;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::card::{Card, PixelLimits};
use crate::error::{ConvertError, IdFault};
use crate::fields::{Faults, Fields};
use crate::sentence_transformers::{PROMPTS_FILE, by_role};
use crate::source::{read_json, read_json_if_there};

const IMAGE_FILE: &str = "preprocessor_config.json";
const VIDEO_FILE: &str = "video_preprocessor_config.json";
/// Pillow's number for bicubic, the one filter pictures are resized with.
const BICUBIC: u64 = 3;

/// What the side files and the card say together.
#[derive(Debug, Clone)]
pub(crate) struct SideFiles {
    pub preprocess: Preprocess,
    pub prompts: Prompts,
    /// The side files that were there and were read.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
}

impl SideFiles {
    /// Reads the preprocessor and prompt files of a folder.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
    pub fn read(folder: &Path, card: &Card, config: &OmniConfig) -> Result<Self, ConvertError> {
        let mut side =
            Self { preprocess: Preprocess::default(), prompts: card.prompts.clone(), read: vec![], notes: vec![] };
        let image = side.json(folder, IMAGE_FILE)?;
        if let Some(vision) = &config.vision {
            side.pixels(folder, image.as_ref(), card, vision)?;
        }
        if let Some(audio) = &config.audio {
            let path = folder.join(IMAGE_FILE);
            side.preprocess.audio = Some(sound(&path, image.as_ref(), card, audio.mels)?);
        }
        side.prompts(folder)?;
        Ok(side)
    }

    fn json(&mut self, folder: &Path, file: &str) -> Result<Option<Value>, ConvertError> {
        let path = folder.join(file);
        let value = read_json_if_there(&path)?;
        if value.is_some() {
            self.read.push(path);
        }
        Ok(value)
    }

    fn pixels(
        &mut self,
        folder: &Path,
        image: Option<&Value>,
        card: &Card,
        vision: &VisionConfig,
    ) -> Result<(), ConvertError> {
        let base = PixelPreprocess {
            patch_px: vision.patch_px as u32,
            merge: vision.merge as u32,
            temporal_patch: vision.temporal_patch as u32,
            min_pixels: card.preprocess.image.min_pixels,
            max_pixels: card.preprocess.image.max_pixels,
            mean: card.preprocess.mean,
            std: card.preprocess.std,
            rescale: card.preprocess.rescale,
        };
        let pictures = match image {
            Some(value) => pixel_file(&folder.join(IMAGE_FILE), value, base, &mut self.notes)?,
            None => {
                self.notes.push(format!("no {IMAGE_FILE}: the card's limits for pictures"));
                base
            }
        };
        // Where nothing is said of film, its frames are treated as pictures.
        let film_base = match card.preprocess.video {
            Some(PixelLimits { min_pixels, max_pixels }) => {
                PixelPreprocess { min_pixels, max_pixels, ..pictures.clone() }
            }
            None => pictures.clone(),
        };
        let film = match self.json(folder, VIDEO_FILE)? {
            Some(value) => pixel_file(&folder.join(VIDEO_FILE), &value, film_base, &mut self.notes)?,
            None => {
                let whose = if card.preprocess.video.is_some() { "the card's limits for film" } else { "as pictures" };
                self.notes.push(format!("no {VIDEO_FILE}: {whose}"));
                film_base
            }
        };
        self.preprocess.image = Some(pictures);
        self.preprocess.video = Some(film);
        self.preprocess.video_frames = Some(card.preprocess.video_frames);
        Ok(())
    }

    fn prompts(&mut self, folder: &Path) -> Result<(), ConvertError> {
        let Some(value) = self.json(folder, PROMPTS_FILE)? else { return Ok(()) };
        let notes = read_prompts(&folder.join(PROMPTS_FILE), &value, &mut self.prompts)?;
        self.notes.extend(notes);
        Ok(())
    }
}

fn read_prompts(path: &Path, value: &Value, into: &mut Prompts) -> Result<Vec<String>, ConvertError> {
    let faults = Faults::of(path);
    let chosen = by_role(&Fields::new("", Some(value), &faults), into.clone());
    faults.check()?;
    *into = chosen.prompts;
    Ok(chosen.notes)
}

/// One preprocessor file over what holds without it; its sizes must be those of the tower.
fn pixel_file(
    path: &Path,
    value: &Value,
    base: PixelPreprocess,
    notes: &mut Vec<String>,
) -> Result<PixelPreprocess, ConvertError> {
    let faults = Faults::of(path);
    let root = Fields::new("", Some(value), &faults);
    let size = Fields::new("size.", root.get("size"), &faults);
    for (name, tower) in
        [("patch_size", base.patch_px), ("merge_size", base.merge), ("temporal_patch_size", base.temporal_patch)]
    {
        if root.count(name).is_some_and(|n| n != u64::from(tower)) {
            root.fault(name, format!("{tower}, as in vision_config"));
        }
    }
    if root.count("resample").is_some_and(|n| n != BICUBIC) {
        root.fault("resample", format!("{BICUBIC} (bicubic)"));
    }
    for step in ["do_resize", "do_rescale", "do_normalize"] {
        root.only_flag(step, true);
    }
    let mut limit = |name: &str, edge: &str, otherwise: u64| match (root.count(name), size.count(edge)) {
        (Some(flat), Some(nested)) if flat != nested => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{file}: {name} {flat} is taken, not size.{edge} {nested}"));
            flat
        }
        (flat, nested) => flat.or(nested).unwrap_or(otherwise),
    };
    let (min_pixels, max_pixels) =
        (limit("min_pixels", "shortest_edge", base.min_pixels), limit("max_pixels", "longest_edge", base.max_pixels));
    if min_pixels == 0 || min_pixels > max_pixels {
        faults.add("min_pixels", min_pixels.to_string(), format!("1 to max_pixels = {max_pixels}"));
    }
    let triple = |name: &str, otherwise: [f32; 3]| {
        let parse = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        match root.list(name, "three numbers", parse).map(<[f32; 3]>::try_from) {
            None => otherwise,
            Some(Ok(three)) => three,
            Some(Err(_)) => {
                root.fault(name, "three numbers");
                otherwise
            }
        }
    };
    let (mean, std) = (triple("image_mean", base.mean), triple("image_std", base.std));
    if std.iter().any(|&s| s <= 0.0) {
        root.fault("image_std", "three positive numbers");
    }
    let rescale = root.number("rescale_factor").unwrap_or(base.rescale);
    if !(rescale > 0.0 && rescale.is_finite()) {
        root.fault("rescale_factor", "a positive number");
    }
    faults.check()?;
    Ok(PixelPreprocess { min_pixels, max_pixels, mean, std, rescale, ..base })
}

fn sound(path: &Path, value: Option<&Value>, card: &Card, mels: usize) -> Result<SoundPreprocess, ConvertError> {
    let faults = Faults::of(path);
    let root = Fields::new("", value, &faults);
    let size = |name: &str, otherwise: u32| root.size(name).map_or(otherwise, |n| n as u32);
    if root.size("feature_size").is_some_and(|n| n != mels) {
        root.fault("feature_size", format!("{mels}, as audio_config.num_mel_bins"));
    }
    let preprocess = SoundPreprocess {
        sample_rate_hz: size("sampling_rate", card.audio.sample_rate_hz),
        fft_samples: size("n_fft", card.audio.fft_samples),
        hop_samples: size("hop_length", card.audio.hop_samples),
        mels: mels as u32,
        whole_seconds: None,
    };
    faults.check()?;
    Ok(preprocess)
}

/// Every id of the tokenizer that has no row in the token table; at most one for the plain vocabulary, the highest.
///
/// # Errors
/// [`ConvertError::Json`] where the file is not a tokenizer, [`ConvertError::MissingFiles`], [`ConvertError::Io`].
pub(crate) fn tokenizer_ids_beyond(path: &Path, rows: usize) -> Result<Vec<IdFault>, ConvertError> {
    let tokenizer: Tokenizer = read_json(path)?;
    let mut ids: Vec<IdFault> = tokenizer
        .added_tokens
        .into_iter()
        .map(|added| IdFault { name: format!("{TOKENIZER_FILE} {}", added.content), id: added.id })
        .collect();
    ids.extend(tokenizer.model.vocab.0.map(|id| IdFault { name: format!("{TOKENIZER_FILE} model.vocab"), id }));
    ids.retain(|fault| fault.id >= rows as u64);
    Ok(ids)
}

/// Id of a special token.
///
/// # Errors
/// [`ConvertError::Fields`] where the tokenizer has no such token, and as [`tokenizer_ids_beyond`].
pub(crate) fn added_token_id(path: &Path, token: &str) -> Result<u32, ConvertError> {
    let tokenizer: Tokenizer = read_json(path)?;
    let added = tokenizer.added_tokens.iter().find(|added| added.content == token);
    if let Some(id) = added.and_then(|added| u32::try_from(added.id).ok()) {
        return Ok(id);
    }
    let faults = Faults::of(path);
    faults.add("added_tokens", "nothing of the kind", format!("the token {token}"));
    faults.check().map(|()| unreachable!("a fault was added"))
}

/// What is read of a tokenizer.
#[derive(serde::Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(serde::Deserialize)]
struct Added {
    id: u64,
    content: String,
}

#[derive(serde::Deserialize)]
struct Model {
    vocab: HighestId,
}

/// The highest id of a vocabulary, which is an object of ids or a list in id order; nothing of it is kept.
struct HighestId(Option<u64>);

impl<'de> Deserialize<'de> for HighestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Highest;
        impl<'de> Visitor<'de> for Highest {
            type Value = HighestId;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of ids or a list of tokens")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HighestId, A::Error> {
                let mut highest = None;
                while let Some((IgnoredAny, id)) = map.next_entry::<_, u64>()? {
                    highest = highest.max(Some(id));
                }
                Ok(HighestId(highest))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HighestId, A::Error> {
                let mut tokens = 0u64;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    tokens += 1;
                }
                Ok(HighestId(tokens.checked_sub(1)))
            }
        }
        deserializer.deserialize_any(Highest)
    }
}
