//! Hostile bytes: a plain function for everything that reads what others wrote, and what drives those functions.
//!
//! | where | what |
//! |---|---|
//! | [`targets`] | the table: a name, a body, valid files to begin with, a limit of memory |
//! | `image`, `audio`, `video` | media, through the functions that the engine calls |
//! | `checkpoint`, `record`, `items` | JSON, safetensors, record folders, lines of `--items` |
//! | `places` | where valid files are, and folders to put damaged ones into |
//! | [`mutate`] | a valid file into a damaged one |
//! | [`panics`] | whose panic it was: one of ours fails, one of a third party must come back as a typed error |
//! | [`runner`] | the program on the stable toolchain: seeds, limits, a watchdog, replay |
//!
//! The bodies assert by themselves, so libFuzzer drives the same ones (`fuzz/`). What does not live here: the decoders and
//! parsers, and the regression inputs of what was found, which stand in the tests of the crate that was at fault.
#![forbid(unsafe_code)]

use std::path::Path;
use std::{fs, io};

mod audio;
mod checkpoint;
mod image;
mod items;
pub mod mutate;
pub mod panics;
mod places;
mod record;
pub mod runner;
mod video;

/// A thing that reads what others wrote.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads the bytes and asserts what must hold; panics where it does not.
    pub body: fn(&[u8]),
    /// Valid inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The most memory that one run may hold at a time, in MiB, beside what was held before.
    pub limit_mib: usize,
    /// Its part of a long run, in thousandths of all runs: cheap ones run more often.
    pub share: u32,
}

impl Target {
    /// Writes the valid inputs into a folder, one file each.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write_seeds(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let seeds = (self.seeds)();
        seeds.iter().enumerate().try_for_each(|(index, seed)| fs::write(folder.join(format!("seed-{index:03}")), seed))
    }
}

/// The most processor time of one run, in seconds.
pub const MOST_SECONDS: f64 = 2.0;

/// Every target, by name.
#[must_use]
pub fn targets() -> Vec<Target> {
    let target = |name, body, seeds, limit_mib, share| Target { name, body, seeds, limit_mib, share };
    let mut all = vec![
        target("items", items::body, items::seeds, 64, 286),
        target("config", checkpoint::config, checkpoint::config_seeds, 64, 20),
        target("side-files", checkpoint::side_files, checkpoint::side_file_seeds, 64, 4),
        target("adapter", checkpoint::adapter, checkpoint::adapter_seeds, 64, 4),
        target("safetensors", checkpoint::safetensors, checkpoint::safetensors_seeds, 64, 10),
        target("gguf", checkpoint::gguf, checkpoint::gguf_seeds, 64, 10),
        target("shards", checkpoint::shards, checkpoint::shards_seeds, 64, 10),
        target("tokenizer", checkpoint::tokenizer, checkpoint::tokenizer_seeds, 256, 2),
        target("record", record::header, record::header_seeds, 64, 10),
        target("parts", record::parts, record::part_seeds, 64, 3),
        target("png", image::png, image::png_seeds, IMAGE_MIB, 40),
        target("jpeg", image::body, image::jpeg_seeds, IMAGE_MIB, 40),
        target("webp", image::body, image::webp_seeds, IMAGE_MIB, 15),
        target("gif", image::body, image::gif_seeds, IMAGE_MIB, 40),
        target("bmp", image::body, image::bmp_seeds, IMAGE_MIB, 200),
        target("tiff", image::body, image::tiff_seeds, IMAGE_MIB, 200),
        target("pcm", audio::body, audio::pcm_seeds, AUDIO_MIB, 4),
        target("flac", audio::body, audio::flac_seeds, AUDIO_MIB, 80),
        target("mpeg", audio::body, audio::mpeg_seeds, AUDIO_MIB, 4),
        target("ogg", audio::ogg, audio::ogg_seeds, AUDIO_MIB, 4),
        target("mp4-audio", audio::body, audio::mp4_seeds, AUDIO_MIB, 3),
        target("mkv-audio", audio::body, audio::mkv_seeds, AUDIO_MIB, 4),
        target("mp4-video", video::body, video::mp4_seeds, VIDEO_MIB, 1),
        target("mkv-video", video::body, video::mkv_seeds, VIDEO_MIB, 1),
        target("animation", video::animation, video::animation_seeds, VIDEO_MIB, 5),
    ];
    if cfg!(feature = "av1") {
        all.push(target("av1-video", video::body, video::av1_seeds, VIDEO_MIB, 1));
    }
    all
}

/// 178,956,970 pixels of 8 bytes as decoded, the same at 3 bytes, and what a decoder holds beside them.
const IMAGE_MIB: usize = 2560;
/// A segment of 240 s at the highest rate that is read, 768 kHz, as f32, doubled where a vector grows.
const AUDIO_MIB: usize = 1536;
/// Reference images of the largest H.264 level; an animation holds two canvases.
const VIDEO_MIB: usize = 2560;

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    targets().into_iter().find(|target| target.name == name)
}
