//! The preprocessor file of a tower that reads audio in clips of one length: what the feature extractor of CLAP does with samples.
//!
//! Every field is read, is known to change no value, or is refused by name.
//!
//! # Source
//! transformers 5.23.0: `feature_extraction_clap.py`.

use omniburn_models::record::{AudioPreprocess, ClipFill, ClipPreprocess};

use crate::fields::{Fields, listed};

/// The class whose arithmetic is computed.
const CLASS: &str = "ClapFeatureExtractor";
/// How audio that is shorter than a clip fills it, by the names of the file.
const FILLS: [(&str, ClipFill); 3] =
    [("repeatpad", ClipFill::RepeatPad), ("repeat", ClipFill::Repeat), ("pad", ClipFill::Pad)];
/// Fields that are read here, that are computed from others, or that change no value.
const KNOWN: &str = "\
    feature_extractor_type processor_class feature_size sampling_rate hop_length max_length_s fft_window_size \
    padding_value frequency_min frequency_max truncation padding nb_max_samples n_fft nb_frequency_bins nb_max_frames \
    chunk_length_s padding_side return_attention_mask return_tensors top_db _processor_class auto_map";

/// How audio becomes clips, as a file or a section of one says. What it leaves out has the default of the class.
pub(crate) fn clips(
    root: Fields<'_>,
    otherwise: (&AudioPreprocess, &ClipPreprocess),
    file: &str,
    notes: &mut Vec<String>,
) -> AudioPreprocess {
    let (sound, clip) = otherwise;
    root.only_text("feature_extractor_type", CLASS);
    if root.size("feature_size").is_some_and(|n| n != sound.mels as usize) {
        root.fault("feature_size", format!("{}, as audio_config.num_mel_bins", sound.mels));
    }
    if root.number("padding_value").is_some_and(|n| n != 0.0) {
        root.fault("padding_value", "0.0: silence");
    }
    // Where the file is silent the class fuses four crops.
    match (clip.fused, root.text("truncation")) {
        (false, Some("rand_trunc")) | (true, None | Some("fusion")) => {}
        (false, _) => root.fault("truncation", "\"rand_trunc\": one crop for a tower without fusion"),
        (true, _) => root.fault("truncation", "\"fusion\": four looks for a tower with fusion"),
    }
    let fill = match root.text("padding") {
        None => clip.fill,
        Some(name) => match FILLS.iter().find(|(known, _)| *known == name) {
            Some((_, fill)) => *fill,
            None => {
                root.fault("padding", "\"repeatpad\", \"repeat\" or \"pad\"");
                clip.fill
            }
        },
    };
    let size = |name: &str, otherwise: u32| root.size(name).map_or(otherwise, |n| n as u32);
    let sample_rate_hz = size("sampling_rate", 48_000);
    let fft_samples = size("fft_window_size", 1024);
    if root.size("n_fft").is_some_and(|n| n != fft_samples as usize) {
        root.fault("n_fft", format!("{fft_samples}, as fft_window_size"));
    }
    let samples = u64::from(size("max_length_s", 10)) * u64::from(sample_rate_hz);
    let samples = u32::try_from(samples).ok().filter(|samples| *samples <= LONGEST).unwrap_or_else(|| {
        root.fault("max_length_s", format!("a length of at most {LONGEST} samples"));
        clip.samples
    });
    let frequency = |name: &str, otherwise: u32| match root.number(name) {
        None => otherwise,
        Some(n) if n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0 => n as u32,
        Some(_) => {
            root.fault(name, "a whole number of hertz");
            otherwise
        }
    };
    let (lowest_hz, highest_hz) = (frequency("frequency_min", 0), frequency("frequency_max", 14_000));
    if lowest_hz >= highest_hz || highest_hz > sample_rate_hz / 2 {
        let range = format!("more than frequency_min, {lowest_hz}, and at most half the rate, {}", sample_rate_hz / 2);
        root.fault("frequency_max", range);
    }
    for (name, _) in root.present().filter(|(name, _)| !listed(KNOWN, name)) {
        notes.push(format!("{file}: {} has no effect on {CLASS}", root.path(name)));
    }
    let seconds = f64::from(samples) / f64::from(sample_rate_hz);
    notes.push(match clip.fused {
        false => format!(
            "{file}: of audio longer than {seconds:.1} s the library takes a clip by chance; here the mean direction of clips over \
             all of it is taken"
        ),
        true => format!(
            "{file}: of audio longer than {seconds:.1} s the library takes three clips by chance beside the whole; here each is the \
             middle of a third of the places. Of a batch of shorter ones it takes one for longer by chance; here none is"
        ),
    });
    AudioPreprocess {
        sample_rate_hz,
        fft_samples,
        hop_samples: size("hop_length", 480),
        clip: Some(ClipPreprocess { samples, fill, lowest_hz, highest_hz, fused: clip.fused }),
        ..sound.clone()
    }
}

/// Samples of a clip at most: a minute at 192 kHz. Published models have ten seconds at 48 kHz.
const LONGEST: u32 = 60 * 192_000;
