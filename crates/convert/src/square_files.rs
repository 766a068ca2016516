//! The preprocessor file of a tower that reads whole squares: what the image processors of CLIP and SigLIP do with an image.
//!
//! Every field is read, is known to change no pixel, or is refused by name.
//!
//! # Source
//! transformers 5.24: `image_processing_pil_clip.py`, `image_processing_pil_siglip.py` (defaults),
//! `image_processing_backends.py` (fields).

use omniburn_models::record::{ImageFilter, ImageFit, SquarePreprocess};
use serde_json::Value;

use crate::fields::{Fields, listed};

/// Pillow's numbers of the filters that are computed.
const FILTERS: [(u64, ImageFilter); 2] = [(2, ImageFilter::Bilinear), (3, ImageFilter::Bicubic)];
/// Sides and shorter sides where a file is silent.
const DEFAULT_SIDE: u64 = 224;
/// Mean of each channel in CLIP's training.
pub(crate) const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of each channel in CLIP's training.
pub(crate) const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A class of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The shorter side is resized and the middle cut out.
    Clip,
    /// Both sides are resized.
    Siglip,
    /// Both sides are brought to whole patches.
    Siglip2,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Clip => "CLIPImageProcessor",
            Class::Siglip => "SiglipImageProcessor",
            Class::Siglip2 => "Siglip2ImageProcessor",
        }
    }

    /// The class that a file names; where it names none, the one whose arithmetic holds without the file.
    fn of(root: Fields<'_>, otherwise: &SquarePreprocess) -> Self {
        let own = match otherwise.fit {
            ImageFit::Crop { .. } => Class::Clip,
            ImageFit::Stretch => Class::Siglip,
            ImageFit::Patches { .. } => Class::Siglip2,
        };
        let field = ["image_processor_type", "feature_extractor_type"].into_iter().find(|f| root.get(f).is_some());
        let Some(field) = field else { return own };
        let name = root.text(field).unwrap_or_default();
        let short = name.strip_suffix("Fast").or(name.strip_suffix("Pil")).unwrap_or(name);
        let short = short.strip_suffix("ImageProcessor").or(short.strip_suffix("FeatureExtractor")).unwrap_or(short);
        let known = [("CLIP", Class::Clip), ("Siglip", Class::Siglip), ("Siglip2", Class::Siglip2)];
        let flexible = own == Class::Siglip2;
        match known.into_iter().find(|(known, class)| *known == short && (*class == Class::Siglip2) == flexible) {
            Some((_, class)) => class,
            None if flexible => {
                root.fault(field, Class::Siglip2.name());
                own
            }
            None => {
                root.fault(field, format!("{} or {}", Class::Clip.name(), Class::Siglip.name()));
                own
            }
        }
    }
}

/// A size as files write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Both sides.
    Square(u64),
    /// The shorter side.
    Shorter(u64),
}

/// How images become squares of `otherwise.image_size` pixels, as a file or a section of one says; `raw` is the same object,
/// and `file` its name. What it leaves out has the default of the class.
pub(crate) fn square(
    root: Fields<'_>,
    raw: &Value,
    file: &str,
    otherwise: &SquarePreprocess,
    notes: &mut Vec<String>,
) -> SquarePreprocess {
    let class = Class::of(root, otherwise);
    for step in ["do_resize", "do_rescale", "do_normalize"] {
        root.only_flag(step, true);
    }
    // Without a size there is none to be read as a square's.
    let sized: &[&str] = if class == Class::Siglip2 { &[] } else { &["default_to_square"] };
    for step in ["do_pad", "use_square_size"].iter().chain(sized) {
        root.only_flag(step, false);
    }
    // To the library `null` is no absence: it switches a step off, or leaves it without its numbers.
    let of_clip: &[&str] = if class == Class::Clip { &["do_center_crop", "crop_size"] } else { &[] };
    let read = if class == Class::Siglip2 { READ_IN_PATCHES } else { READ };
    for name in NOT_NULL.iter().filter(|name| class != Class::Siglip2 || **name != "size").chain(of_clip) {
        if raw.get(*name).is_some_and(Value::is_null) {
            root.fault_of(name, "null", "a value, or no such field");
        }
    }
    for (name, value) in root.present() {
        if !listed(read, name) && !listed(WITHOUT_EFFECT, name) && *value != Value::Bool(false) {
            root.fault(name, "no field of this name: nothing is computed from it");
        }
    }
    let usual = if class == Class::Siglip2 { ImageFilter::Bilinear } else { ImageFilter::Bicubic };
    let filter = match root.get("resample") {
        None => usual,
        Some(value) => match FILTERS.iter().find(|(number, _)| value.as_u64() == Some(*number)) {
            Some((_, filter)) => *filter,
            None => {
                root.fault("resample", "2 (bilinear) or 3 (bicubic)");
                usual
            }
        },
    };
    let rescale = root.number("rescale_factor").unwrap_or(otherwise.rescale);
    if !(rescale > 0.0 && rescale.is_finite()) {
        root.fault("rescale_factor", "a positive number");
    }
    let (mean, std) = match class {
        Class::Clip => (CLIP_MEAN, CLIP_STD),
        Class::Siglip | Class::Siglip2 => ([0.5; 3], [0.5; 3]),
    };
    let (mean, std) = (triple(root, "image_mean", mean), triple(root, "image_std", std));
    if std.iter().any(|&s| s <= 0.0) {
        root.fault("image_std", "three positive numbers");
    }
    let sized = if class == Class::Siglip2 { "max_num_patches" } else { "size" };
    let absent: Vec<&str> =
        [sized, "resample", "image_mean", "image_std"].into_iter().filter(|name| root.get(name).is_none()).collect();
    if !absent.is_empty() {
        notes.push(format!("{file}: no {}: the defaults of {}", absent.join(", "), class.name()));
    }
    let fit = match otherwise.fit {
        ImageFit::Patches { patch_px, .. } => in_patches(root, patch_px),
        ImageFit::Stretch | ImageFit::Crop { .. } => fit(root, class, otherwise.image_size),
    };
    SquarePreprocess { fit, filter, mean, std, rescale, ..otherwise.clone() }
}

/// How an image comes into patches of this side.
fn in_patches(root: Fields<'_>, patch_px: u32) -> ImageFit {
    /// Patches where a file is silent.
    const MOST: u32 = 256;
    if root.size("patch_size").is_some_and(|found| found != patch_px as usize) {
        root.fault("patch_size", format!("{patch_px}, as vision_config.patch_size"));
    }
    root.only_flag("do_center_crop", false);
    let most = root.size("max_num_patches").map_or(MOST, |most| most as u32);
    ImageFit::Patches { patch_px, most }
}

/// How an image comes into a square of this side.
fn fit(root: Fields<'_>, class: Class, side: u32) -> ImageFit {
    let wanted = u64::from(side);
    let crop = match class {
        Class::Clip => root.flag("do_center_crop").unwrap_or(true),
        Class::Siglip | Class::Siglip2 => {
            root.only_flag("do_center_crop", false);
            false
        }
    };
    let silent = if class == Class::Clip { Size::Shorter(DEFAULT_SIDE) } else { Size::Square(DEFAULT_SIDE) };
    let size = size_of(root, "size", Size::Shorter, silent);
    if crop && size_of(root, "crop_size", Size::Square, Size::Square(DEFAULT_SIDE)) != Size::Square(wanted) {
        root.fault("crop_size", format!("a height and a width of {side}, the sides of the tower's images"));
    }
    match size {
        Size::Square(found) if found == wanted => ImageFit::Stretch,
        Size::Shorter(found) if crop && found >= wanted && u32::try_from(found).is_ok() => {
            ImageFit::Crop { shorter: found as u32 }
        }
        Size::Shorter(_) if !crop => {
            root.fault("size", format!("a height and a width of {side}, as nothing is cut out of the image"));
            ImageFit::Stretch
        }
        _ => {
            root.fault(
                "size",
                format!("sides of {side}, as the tower's images, or a longer shortest_edge that is cut"),
            );
            ImageFit::Stretch
        }
    }
}

/// A size; `number` is what a bare number means, and `silent` holds where there is none.
fn size_of(root: Fields<'_>, name: &str, number: impl Fn(u64) -> Size, silent: Size) -> Size {
    let Some(value) = root.get(name) else { return silent };
    if let Some(found) = value.as_u64() {
        return number(found);
    }
    let fields = value.as_object();
    let has =
        |names: &[&str]| fields.is_some_and(|f| f.len() == names.len() && names.iter().all(|n| f.contains_key(*n)));
    let at = |name: &str| value.get(name).and_then(Value::as_u64);
    if has(&["height", "width"])
        && let (Some(height), Some(width)) = (at("height"), at("width"))
        && height == width
    {
        return Size::Square(height);
    }
    if has(&["shortest_edge"])
        && let Some(found) = at("shortest_edge")
    {
        return Size::Shorter(found);
    }
    root.fault(name, "an equal height and width, or a shortest_edge");
    silent
}

/// Three numbers, or one for all three.
pub(crate) fn triple(root: Fields<'_>, name: &str, otherwise: [f32; 3]) -> [f32; 3] {
    let parse = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
    if let Some(one) = root.get(name).and_then(parse) {
        return [one; 3];
    }
    match root.list(name, "three numbers", parse).map(<[f32; 3]>::try_from) {
        None => otherwise,
        Some(Ok(three)) => three,
        Some(Err(_)) => {
            root.fault(name, "three numbers");
            otherwise
        }
    }
}

/// Fields that may be absent and not `null`.
const NOT_NULL: &[&str] =
    &["do_resize", "do_rescale", "do_normalize", "size", "resample", "rescale_factor", "image_mean", "image_std"];

/// Fields that are read.
const READ: &str = "\
    crop_size default_to_square do_center_crop do_normalize do_pad do_rescale do_resize feature_extractor_type image_mean \
    image_processor_type image_std resample rescale_factor size use_square_size";

/// Fields that are read of a class whose images come in patches; it has no size.
const READ_IN_PATCHES: &str = "\
    do_center_crop do_normalize do_pad do_rescale do_resize default_to_square feature_extractor_type image_mean \
    image_processor_type image_std max_num_patches patch_size resample rescale_factor use_square_size";

/// Fields that change no pixel of these classes.
const WITHOUT_EFFECT: &str = "\
    backend data_format device disable_grouping do_convert_rgb image_seq_length input_data_format model_input_names \
    processor_class return_tensors use_fast _processor_class _valid_processor_keys";
