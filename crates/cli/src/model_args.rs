//! What was typed of a model and how it computes: what every verb around one takes.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use omniburn::{BackendSpec, Dtype, Isa, Truncation};

/// Where a model computes, and with what.
#[derive(Debug, Clone, Copy, Args)]
pub struct ComputeArgs {
    /// Where to compute: flex (the CPU), wgpu, vulkan, metal, webgpu or cuda, with :N for the Nth
    #[arg(long, value_name = "NAME[:N]", default_value = "flex")]
    pub device: BackendSpec,
    /// The type to compute in [default: the best the record and the device allow]
    #[arg(long, value_parser = dtypes(&Dtype::COMPUTED))]
    pub dtype: Option<Dtype>,
    /// Memory the job may take above the opened model, decoding included, such as 512MiB or 2GiB [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub budget: Option<u64>,
    /// Threads to compute with on the CPU [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Processor instructions to compute with: portable, neon, avx2, avx512, avx512-bf16 or amx [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
}

/// Which model, what of it, and how it computes.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Record folder, made by `omniburn convert`, or the ORG/NAME that `omniburn pull` fetched [default: the model that ships]
    #[arg(long, value_name = "DIR|ORG/NAME")]
    pub model: Option<PathBuf>,
    /// A task of the record [default: the record's, retrieval where it holds it]
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// One of the record's dimensions [default: the full width]
    #[arg(long, value_name = "N")]
    pub dim: Option<usize>,
    /// What happens to a text longer than the model reads
    #[arg(long, value_enum, default_value_t = TruncateArg::Error)]
    pub truncate: TruncateArg,
    /// Frames sampled from a video, or from each of its segments [default: the record's, else 32]
    #[arg(long, value_name = "N")]
    pub frames: Option<NonZeroU32>,
    /// Where it computes, and how.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `--truncate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TruncateArg {
    /// Refuse it with both lengths.
    Error,
    /// Cut its end.
    Right,
    /// Cut its beginning.
    Left,
}

impl From<TruncateArg> for Truncation {
    fn from(truncate: TruncateArg) -> Self {
        match truncate {
            TruncateArg::Error => Truncation::Error,
            TruncateArg::Right => Truncation::Right,
            TruncateArg::Left => Truncation::Left,
        }
    }
}

pub(crate) fn dtypes(of: &[Dtype]) -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(of.iter().map(|dtype| dtype.name())).try_map(|name| name.parse::<Dtype>())
}

/// Reads a number of bytes: plain, or with KiB, MiB or GiB behind it.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of bytes: expected one such as 1073741824, 512MiB or 2GiB");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_units() {
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("2 GiB"), Ok(2 << 30));
        assert_eq!(bytes("3kib"), Ok(3 << 10));
        for wrong in ["", "GiB", "-1", "1.5GiB", "4 apples", "1e9", "99999999999GiB", "4GB", "é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
