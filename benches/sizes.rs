//! The sizes of jina-embeddings-v5-omni, and records of them with random weights.

use std::path::{Path, PathBuf};

use omniburn::record::FamilyConfig;
use omniburn::{Dtype, Engine, RecordFolder};
use omniburn_models::backbone::BackboneConfig;
use omniburn_models::families::OmniConfig;
use omniburn_models::record::write_random;
use omniburn_models::towers::audio::AudioConfig;
use omniburn_models::towers::vision::{VisionConfig, VisionKind};

use crate::records;

/// Least and largest area of an image in the records made here. The largest is that of 2,048 x 2,048, above the published
/// 1,310,720, so that growth can be seen further; images between are taken as they are.
pub const PIXELS: (u64, u64) = (262_144, 4_194_304);

/// A published model whose sizes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// `jina-embeddings-v5-omni-small`.
    Small,
    /// `jina-embeddings-v5-omni-nano`.
    Nano,
}

impl Size {
    /// Both.
    pub const ALL: [Size; 2] = [Size::Small, Size::Nano];

    /// The name in ids and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Size::Small => "small",
            Size::Nano => "nano",
        }
    }

    /// The configuration, but for the rows of the token table: they are gathered on the host, so their number costs disk and
    /// nothing else.
    pub fn config(self) -> OmniConfig {
        let small = self == Size::Small;
        let (hidden, layers, heads, kv_heads, head_dim) =
            if small { (1024, 28, 16, 8, 128) } else { (768, 12, 12, 12, 64) };
        OmniConfig {
            text: BackboneConfig {
                hidden,
                layers,
                heads,
                kv_heads,
                head_dim,
                inner: 3072,
                norm_eps: if small { 1e-6 } else { 1e-5 },
                rope_theta: if small { 3.5e6 } else { 1e6 },
                causal: small,
                qk_norm: small,
                max_tokens: 8192,
                vocab: 1024,
            },
            vision: Some(VisionConfig {
                hidden,
                layers: if small { 24 } else { 12 },
                heads: hidden / 64,
                inner: 4 * hidden,
                positions: 2304,
                patch_px: 16,
                merge: 2,
                temporal_patch: 2,
                channels: 3,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                taps: Vec::new(),
                kind: VisionKind::Table,
            }),
            audio: Some(AudioConfig {
                hidden: 1280,
                layers: 32,
                heads: 20,
                inner: 5120,
                n_window: 100,
                mels: 128,
                max_positions: 1500,
                norm_eps: 1e-5,
            }),
        }
    }

    /// A record of this size with random weights, made beside the build at first use: 1 to 6 GB by size and dtype.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn record(self, dtype: Dtype) -> PathBuf {
        let path = records().join(format!("{}-{dtype}", self.name()));
        // One of another format or shape, or one that is not whole, is made anew.
        let same = |record: RecordFolder| {
            record.header().dtype == dtype && record.header().family == FamilyConfig::new(self.config())
        };
        let good = RecordFolder::open(&path).is_ok_and(same);
        if !good {
            write_random(&path, &self.config(), dtype, PIXELS, &tokenizer(), 1).expect("a record can be written");
        }
        path
    }
}

/// The records to measure, from `OMNIBURN_BENCH_RECORDS`: sizes with dtypes, such as `nano-f32,small-bf16`; the smallest of
/// the full size unless it is set.
///
/// # Panics
/// At a name of no record.
pub fn wanted() -> Vec<(Size, Dtype)> {
    let named = std::env::var("OMNIBURN_BENCH_RECORDS").unwrap_or_else(|_| "nano-f32".into());
    let record = |name: &str| {
        let (size, dtype) = name.trim().split_once('-')?;
        Some((Size::ALL.into_iter().find(|s| s.name() == size)?, dtype.parse().ok()?))
    };
    named.split(',').map(|name| record(name).unwrap_or_else(|| panic!("`{name}` names no record"))).collect()
}

/// The type such a record is computed in on the CPU: its own where the engine takes it, else what the engine chooses.
///
/// # Panics
/// If it does not open.
pub fn compute(size: Size, stored: Dtype) -> Dtype {
    let open = |asked: Option<Dtype>| {
        let builder = Engine::builder(size.record(stored));
        asked.map_or(builder.clone(), |dtype| builder.dtype(dtype)).open()
    };
    open(Some(stored)).or_else(|_| open(None)).expect("a fresh record opens").profile().dtype
}

/// A tokenizer of a few hundred pieces, that of the tiny checkpoint.
fn tokenizer() -> PathBuf {
    // Known at run time under Cargo; a program that was built by Cargo and started by another knows its sources from then.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("../tests/golden/checkpoints/omni-small-tiny/tokenizer.json")
}
