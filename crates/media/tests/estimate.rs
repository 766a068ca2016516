//! The memory estimate of media, against what the operating system counts while they are prepared.
//!
//! In a program of its own with one test, because the whole process is measured. The C library keeps memory that was given
//! back and hands it out again, so what one case gave back would hide what the next one takes: the cases are run in a
//! process whose allocator is set to keep nothing, and once more as it is, for the table only.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use omniburn_media::{
    AudioReader, AudioSource, ClipCutter, ImageSource, ImageTarget, MediaError, MediaFile, MelPreprocess,
    MemoryEstimate, ResizeFilter, SquareFit, SquareTarget, TrackChoice, Video, VideoOptions, VideoSource,
    VisionPreprocess, audio_estimate, decode_image, decode_image_file, frames_estimate, image_estimate, image_patches,
    letterbox, log_mel, sample_times, sampled_patches, square_image, video_estimate,
};

#[path = "../../../tests/support/memory.rs"]
mod memory;

/// Set in the process whose allocator keeps nothing.
const CHILD: &str = "OMNIBURN_TEST_KEEPS_NOTHING";

/// Threads, pages of tables in the program itself, and rounding of the allocator and of the count.
const OVERHEAD: u64 = 2 << 20;

const PUBLISHED: VisionPreprocess = VisionPreprocess {
    patch: 16,
    merge: 2,
    temporal_patch: 2,
    min_pixels: 262_144,
    max_pixels: 12_845_056,
    mean: [0.5; 3],
    std: [0.5; 3],
    rescale: 1.0 / 255.0,
    per_frame: false,
};

const MEL: MelPreprocess = MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..")
}

fn media(name: &str) -> PathBuf {
    root().join("tests/golden/media").join(name)
}

/// What all cases of a run have in common.
struct Table {
    /// Whether the bounds are held.
    strict: bool,
    worst: (f64, String),
    cases: usize,
    failures: Vec<String>,
}

impl Table {
    /// Measures a case and compares. `open` tells the need, `work` prepares and gives back what is kept.
    fn case<T>(
        &mut self,
        name: &str,
        estimate: impl FnOnce() -> Result<MemoryEstimate, MediaError>,
        work: impl FnOnce() -> Result<T, MediaError>,
    ) {
        let started = Instant::now();
        let estimate = estimate();
        let took = started.elapsed();
        let (result, taken) = memory::peak_of(work);
        let (estimate, taken) = match (estimate, &result, taken) {
            (Ok(estimate), Ok(_), Some(taken)) => (estimate, taken),
            (Err(estimate), Err(result), _) => {
                assert_eq!(estimate.to_string(), result.to_string(), "{name}");
                println!("{name:34} both refuse: {estimate}");
                self.cases += 1;
                return;
            }
            // Computed from the header, and damaged behind it.
            (Ok(estimate), Err(error), Some(taken)) if ["corrupt", "unsupported_codec"].contains(&error.kind()) => {
                println!("{name:34} damaged behind its header: {error}");
                (estimate, taken)
            }
            (estimate, result, _) => panic!("{name}: {estimate:?}, {:?}", result.as_ref().err()),
        };
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let ratio = estimate.peak as f64 / taken.max(1) as f64;
        println!(
            "{name:34} {:9.2} MiB taken {:9.2} estimated {ratio:6.2} times, {:8.2} kept, in {:.2} ms",
            mib(taken),
            mib(estimate.peak),
            mib(estimate.kept),
            took.as_secs_f64() * 1000.0
        );
        self.cases += 1;
        if taken > estimate.peak + OVERHEAD {
            self.failures.push(format!("{name}: {:.2} MiB more than estimated", mib(taken - estimate.peak)));
        }
        if self.strict && estimate.peak > 4 * taken + (8 << 20) {
            self.failures.push(format!("{name}: {:.2} MiB estimated, {:.2} taken", mib(estimate.peak), mib(taken)));
        }
        let above = taken as f64 / estimate.peak as f64;
        if taken > 16 << 20 && above > self.worst.0 {
            self.worst = (above, name.to_owned());
        }
    }

    /// An image as squares of each kind and as patches.
    fn image(&mut self, path: &Path, name: &str) {
        self.image_as(path, name, true);
    }

    fn image_as(&mut self, path: &Path, name: &str, as_all: bool) {
        let filter = ResizeFilter::Bicubic;
        let fitted = |fit| ImageTarget::Fitted(SquareTarget { side: 224, fit });
        let targets = [
            ("square", ImageTarget::Square(224)),
            ("stretched", fitted(SquareFit::Stretch(filter))),
            ("cropped", fitted(SquareFit::Crop { shorter: 256, filter })),
            ("patches", ImageTarget::Patches(&PUBLISHED)),
        ];
        for (words, target) in targets {
            if words != "square" && !as_all {
                continue;
            }
            let named = |error: MediaError| error.of(path.display().to_string());
            let prepared = || decode_image_file(path).and_then(|image| prepare(&image, &target).map_err(named));
            self.case(
                &format!("{name}, {words}"),
                || image_estimate(ImageSource::File(&MediaFile::new(path)), &target),
                prepared,
            );
        }
    }

    fn audio(&mut self, source: &AudioSource, name: &str) {
        let prepared = || -> Result<_, MediaError> {
            let mut reader = AudioReader::open(source, MEL.sample_rate_hz)?;
            let segment = reader.next_segment()?.expect("an audio file has a segment");
            let mel = log_mel(&segment.samples, &MEL)?;
            reader.has_more()?;
            Ok(mel)
        };
        self.case(name, || audio_estimate(source, &MEL), prepared);
    }

    fn video(&mut self, path: &Path, name: &str, frames: usize) {
        let (source, options) =
            (VideoSource::file(path.to_owned()), VideoOptions { ffmpeg: None, track: TrackChoice::Default });
        let patches = ImageTarget::Patches(&PUBLISHED);
        let prepared = || -> Result<_, MediaError> {
            let mut video = Video::open(&source, &options)?;
            let end = video.duration_s().min(240.0);
            sampled_patches(&mut video, 0.0..end, frames, &PUBLISHED)
        };
        self.case(&format!("{name}, patches"), || video_estimate(&source, &options, frames, &patches), prepared);
        let prepared = || -> Result<_, MediaError> {
            let mut video = Video::open(&source, &options)?;
            let end = video.duration_s().min(240.0);
            let mut squares = Vec::new();
            video.frames_at(&sample_times(0.0..end, frames), &mut |_, frame| {
                squares.extend_from_slice(letterbox(frame, 224).pixels());
                Ok(())
            })?;
            Ok(squares)
        };
        let square = ImageTarget::Square(224);
        self.case(&format!("{name}, squares"), || video_estimate(&source, &options, frames, &square), prepared);
    }
}

/// A decoded image as the engine keeps it.
fn prepare(image: &omniburn_media::RgbImage, target: &ImageTarget<'_>) -> Result<Vec<u8>, MediaError> {
    Ok(match target {
        ImageTarget::Square(side) => {
            let mut kept = Vec::new();
            kept.extend_from_slice(letterbox(image, *side).pixels());
            kept
        }
        ImageTarget::Fitted(target) => {
            let mut kept = Vec::new();
            kept.extend_from_slice(square_image(image, *target).pixels());
            kept
        }
        ImageTarget::Patches(preprocess) => {
            // Kept beside the image, as the engine holds both for a moment.
            let patches = image_patches(image, preprocess)?;
            vec![0; patches.grid().patches().min(1)]
        }
    })
}

/// Samples that do not pack to nothing, of so many bytes.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut out = Vec::with_capacity(bytes);
    for _ in 0..bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly smooth, with a little noise.
        out.push(96 + (state >> 29) as u8);
    }
    out
}

fn png(path: &Path, width: u32, height: u32, color: png::ColorType, depth: png::BitDepth) {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path).unwrap()), width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fastest);
    let bytes =
        width as usize * height as usize * color.samples() * if depth == png::BitDepth::Sixteen { 2 } else { 1 };
    encoder.write_header().unwrap().write_image_data(&noise(bytes)).unwrap();
}

/// Eight bits of grey, interlaced, all black.
fn interlaced_png(path: &Path, width: u32, height: u32) {
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for (x, y, across, down) in
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    {
        let columns = (width - x.min(width)).div_ceil(across) as usize;
        for _ in 0..if columns > 0 { (height - y.min(height)).div_ceil(down) } else { 0 } {
            rows.write_all(&vec![0; 1 + 3 * columns]).unwrap();
        }
    }
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(body);
        out.extend_from_slice(kind);
        out.extend_from_slice(body);
        out.extend_from_slice(&sum.sum().to_be_bytes());
    };
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 1]].concat());
    chunk(b"IDAT", &rows.finish().unwrap());
    chunk(b"IEND", b"");
    std::fs::write(path, out).unwrap();
}

fn jpeg(path: &Path, width: u32, height: u32, exif: Option<Vec<u8>>) {
    let mut encoder = JpegEncoder::new_with_quality(BufWriter::new(File::create(path).unwrap()), 85);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).unwrap();
    }
    let samples = noise(width as usize * height as usize * 3);
    encoder.write_image(&samples, width, height, ExtendedColorType::Rgb8).unwrap();
}

/// A JPEG of four components, each in a scan of its own: the one scan of a grey JPEG four times.
fn jpeg_in_scans(path: &Path, width: u32, height: u32) {
    let mut grey = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut grey, 85);
    encoder.write_image(&noise(width as usize * height as usize), width, height, ExtendedColorType::L8).unwrap();
    let marker = |wanted: u8| grey.windows(2).position(|pair| pair == [0xff, wanted]).unwrap();
    let (frame, scan) = (marker(0xc0), marker(0xda));
    let mut file = grey[..frame].to_vec();
    file.extend([0xff, 0xc0, 0, 20]);
    file.extend(&grey[frame + 4..frame + 9]);
    file.push(4);
    for id in 1..=4 {
        file.extend([id, 0x11, grey[frame + 12]]);
    }
    // Tables that stand between the frame and its scan.
    file.extend(&grey[frame + 13..scan]);
    let coded = &grey[scan + 10..grey.len() - 2];
    for id in 1..=4 {
        file.extend([0xff, 0xda, 0, 8, 1, id, grey[scan + 6], 0, 63, 0]);
        file.extend(coded);
    }
    file.extend([0xff, 0xd9]);
    std::fs::write(path, file).unwrap();
}

/// A JPEG of the goldens that says it is larger than it is: what is missing is decoded as grey.
fn enlarged_jpeg(path: &Path, golden: &str, marker: u8, width: u16, height: u16) {
    let mut bytes = std::fs::read(media("images").join(golden)).unwrap();
    let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
    bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// Progressive, 4:2:0, grey: a scan of DC values and one of AC values a component, each block in each of them the code of
/// one bit for no difference or no value.
fn progressive_jpeg(path: &Path, width: u16, height: u16) {
    let segment = |marker: u8, body: &[u8]| {
        let length = (body.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], &length[..], body].concat()
    };
    let ([h1, h2], [w1, w2]) = (height.to_be_bytes(), width.to_be_bytes());
    let table = |class: u8| {
        let mut body = vec![class << 4, 1];
        body.resize(1 + 16 + 1, 0);
        segment(0xc4, &body)
    };
    let blocks = |size: u16| usize::from(width).div_ceil(size.into()) * usize::from(height).div_ceil(size.into());
    let coded = |blocks: usize| vec![0; blocks.div_ceil(8)];
    let values = |component: u8, blocks: usize| [segment(0xda, &[1, component, 0, 1, 63, 0]), coded(blocks)].concat();
    let bytes = [
        b"\xff\xd8".to_vec(),
        segment(0xdb, &[[0].as_slice(), &[16; 64]].concat()),
        segment(0xc2, &[8, h1, h2, w1, w2, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]),
        [table(0), table(1)].concat(),
        segment(0xda, &[3, 1, 0, 2, 0, 3, 0, 0, 0, 0]),
        coded(6 * blocks(16)),
        values(1, blocks(8)),
        values(2, blocks(16)),
        values(3, blocks(16)),
        b"\xff\xd9".to_vec(),
    ];
    std::fs::write(path, bytes.concat()).unwrap();
}

fn gif(path: &Path, width: u16, height: u16, frames: u16) {
    let palette: Vec<u8> = (0..=255).flat_map(|level| [level, 255 - level, 7]).collect();
    let mut encoder = gif::Encoder::new(BufWriter::new(File::create(path).unwrap()), width, height, &palette).unwrap();
    for number in 0..frames {
        let mut frame =
            gif::Frame { width, height, delay: 10, dispose: gif::DisposalMethod::Previous, ..Default::default() };
        let mut indices = noise(usize::from(width) * usize::from(height));
        indices[0] = number as u8;
        frame.buffer = indices.into();
        encoder.write_frame(&frame).unwrap();
    }
}

/// Sixteen-bit WAV.
fn wav(path: &Path, rate: u32, channels: u16, seconds: f64) {
    let frames = (seconds * f64::from(rate)) as u32;
    let bytes = frames * u32::from(channels) * 2;
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0".to_vec();
    head.extend_from_slice(&channels.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    head.extend_from_slice(&(rate * u32::from(channels) * 2).to_le_bytes());
    head.extend_from_slice(&(channels * 2).to_le_bytes());
    head.extend_from_slice(b"\x10\0data");
    head.extend_from_slice(&bytes.to_le_bytes());
    file.write_all(&head).unwrap();
    let samples = noise(1 << 16);
    let mut left = bytes as usize;
    while left > 0 {
        let now = left.min(samples.len());
        file.write_all(&samples[..now]).unwrap();
        left -= now;
    }
}

/// Exif with an orientation that turns by a quarter.
fn turned() -> Vec<u8> {
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec()
}

fn images(table: &mut Table, folder: &Path) {
    use png::{BitDepth, ColorType};
    const SIDES: [(u32, u32); 3] = [(128, 80), (1000, 1000), (3000, 2000)];
    let path = folder.join("picture");
    for (width, height) in SIDES {
        // Resized to as many pixels as the tower takes, the larger ones are all alike.
        let small = width * height < 2_000_000;
        let megapixels = f64::from(width) * f64::from(height) / 1e6;
        for (name, color, depth) in [
            ("PNG RGB", ColorType::Rgb, BitDepth::Eight),
            ("PNG grey", ColorType::Grayscale, BitDepth::Eight),
            ("PNG grey and alpha", ColorType::GrayscaleAlpha, BitDepth::Eight),
            ("PNG RGBA", ColorType::Rgba, BitDepth::Eight),
            ("PNG RGB 16", ColorType::Rgb, BitDepth::Sixteen),
            ("PNG RGBA 16", ColorType::Rgba, BitDepth::Sixteen),
        ] {
            png(&path, width, height, color, depth);
            table.image_as(&path, &format!("{name} {megapixels} MP"), small);
        }
        interlaced_png(&path, width, height);
        table.image_as(&path, &format!("PNG interlaced {megapixels} MP"), small);
        jpeg(&path, width, height, None);
        table.image_as(&path, &format!("JPEG {megapixels} MP"), small);
        jpeg(&path, width, height, Some(turned()));
        table.image_as(&path, &format!("JPEG turned {megapixels} MP"), small);
        progressive_jpeg(&path, width as u16, height as u16);
        table.image_as(&path, &format!("JPEG progressive {megapixels} MP"), small);
        enlarged_jpeg(&path, "grey-q90.jpg", 0xc0, width as u16, height as u16);
        table.image_as(&path, &format!("JPEG grey {megapixels} MP"), small);
        jpeg_in_scans(&path, width, height);
        table.image_as(&path, &format!("JPEG CMYK {megapixels} MP"), small);
        for alpha in [false, true] {
            let samples = noise((width * height * if alpha { 4 } else { 3 }) as usize);
            let color = if alpha { ExtendedColorType::Rgba8 } else { ExtendedColorType::Rgb8 };
            let name = if alpha { "with alpha " } else { "" };
            let file = || BufWriter::new(File::create(&path).unwrap());
            let webp = image::codecs::webp::WebPEncoder::new_lossless(file());
            webp.write_image(&samples, width, height, color).unwrap();
            table.image_as(&path, &format!("WebP lossless {name}{megapixels} MP"), small);
            let mut bmp = file();
            image::codecs::bmp::BmpEncoder::new(&mut bmp).write_image(&samples, width, height, color).unwrap();
            bmp.flush().unwrap();
            table.image_as(&path, &format!("BMP {name}{megapixels} MP"), small);
            let tiff = image::codecs::tiff::TiffEncoder::new(file());
            tiff.write_image(&samples, width, height, color).unwrap();
            table.image_as(&path, &format!("TIFF {name}{megapixels} MP"), small);
        }
        gif(&path, width as u16, height as u16, 1);
        table.image_as(&path, &format!("GIF {megapixels} MP"), small);
    }
    png(&path, 8660, 5774, ColorType::Rgb, BitDepth::Eight);
    table.image(&path, "PNG RGB 50 MP");
    jpeg(&path, 8660, 5774, None);
    table.image(&path, "JPEG 50 MP");
    progressive_jpeg(&path, 8660, 5774);
    table.image(&path, "JPEG progressive 50 MP");
    png(&path, 16_000, 40, ColorType::Rgb, BitDepth::Eight);
    table.image(&path, "PNG 400 times as wide as high");
    for file in ["kitten.webp", "castle.webp", "fish-swimming.webp", "key.bmp", "star.gif"] {
        table.image(&root().join("models/mini/samples").join(file), file);
    }
    let mut goldens: Vec<PathBuf> =
        std::fs::read_dir(media("images")).unwrap().map(|entry| entry.unwrap().path()).collect();
    goldens.sort();
    for golden in goldens {
        table.image(&golden, &golden.file_name().unwrap().to_string_lossy());
    }
    let bytes = std::fs::read(media("images/420-q90.jpg")).unwrap();
    let target = ImageTarget::Square(224);
    let prepared = || decode_image(&bytes, "picture").and_then(|image| prepare(&image, &target));
    table.case("bytes in memory", || image_estimate(ImageSource::Bytes(&bytes), &target), prepared);
    let image = decode_image(&bytes, "picture").unwrap();
    let estimate = || image_estimate(ImageSource::Pixels(&image), &target);
    table.case("pixels in memory", estimate, || prepare(&image, &target));
    // A list of frames.
    let names: Vec<PathBuf> = (0..9).map(|number| folder.join(format!("{number}.png"))).collect();
    for name in &names {
        png(name, 1280, 720, ColorType::Rgb, BitDepth::Eight);
    }
    let files: Vec<MediaFile> = names.iter().map(MediaFile::new).collect();
    let sources: Vec<ImageSource<'_>> = files.iter().map(ImageSource::File).collect();
    let target = ImageTarget::Patches(&PUBLISHED);
    let cut = || -> Result<_, MediaError> {
        let mut clip = ClipCutter::new(names.len(), &PUBLISHED)?;
        names.iter().try_for_each(|name| clip.push(&decode_image_file(name)?))?;
        Ok(clip.finish())
    };
    table.case("nine frames, patches", || frames_estimate(&sources, &target), cut);
    let target = ImageTarget::Square(224);
    let squares = || -> Result<_, MediaError> {
        let mut squares = Vec::new();
        for name in &names {
            squares.extend_from_slice(letterbox(&decode_image_file(name)?, 224).pixels());
        }
        Ok(squares)
    };
    table.case("nine frames, squares", || frames_estimate(&sources, &target), squares);
    table.case(
        "no frames",
        || frames_estimate(&[], &target),
        || Err::<(), _>(MediaError::Empty { name: "video".into(), expected: "frame" }),
    );
}

fn sounds(table: &mut Table, folder: &Path) {
    let mut goldens: Vec<PathBuf> =
        std::fs::read_dir(media("audio/files")).unwrap().map(|entry| entry.unwrap().path()).collect();
    goldens.sort();
    for golden in goldens {
        table.audio(&AudioSource::file(golden.clone()), &golden.file_name().unwrap().to_string_lossy());
    }
    for name in [
        "speech-a-cup-of-hot-coffee.flac",
        "speech-a-boat-on-the-sea.m4a",
        "speech-slices-of-orange-and-lemon.ogg",
        "speech-the-bridge-at-night.opus",
        "speech-the-cat-has-green-eyes.mp3",
        "speech-where-is-the-guitar.wav",
    ] {
        table.audio(&AudioSource::file(root().join("models/mini/samples").join(name)), name);
    }
    let path = folder.join("sound");
    for (rate, channels, seconds) in [
        (16_000, 1, 0.05),
        (8_000, 1, 3.0),
        (44_100, 2, 30.0),
        (48_000, 6, 240.0),
        (16_000, 1, 239.9),
        (96_000, 2, 400.0),
    ] {
        wav(&path, rate, channels, seconds);
        table.audio(&AudioSource::file(path.clone()), &format!("WAV {rate} Hz, {channels} channels, {seconds} s"));
    }
    let samples: std::sync::Arc<[f32]> = vec![0.25f32; 44_100 * 60].into();
    table.audio(&AudioSource::Samples(samples, 44_100), "samples, 60 s");
}

fn videos(table: &mut Table, folder: &Path) {
    for golden in ["videos", "animations", "codecs"] {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(media(golden)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|name| name.extension().is_some_and(|ending| ending != "json"));
        names.sort();
        for name in names {
            table.video(&name, &name.file_name().unwrap().to_string_lossy(), 8);
        }
    }
    for name in ["aqueduct-pan.mp4", "boat-sailing.mp4", "car-driving.mkv", "balloon-rising.gif", "fish-swimming.webp"]
    {
        table.video(&root().join("models/mini/samples").join(name), name, 32);
    }
    let path = folder.join("film");
    gif(&path, 1280, 720, 12);
    table.video(&path, "GIF of 1280 x 720", 12);
}

#[test]
fn no_medium_takes_more_memory_than_was_told() {
    if !memory::start_peak() || memory::held().is_none() {
        println!("not measured: this system does not tell the most memory held");
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let table = all_cases(true);
        assert!(table.failures.is_empty(), "{:#?}", table.failures);
        return;
    }
    all_cases(false);
    // Blocks from 64 KiB on are given back at once, and the heap's end as well.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_medium_takes_more_memory_than_was_told", "--nocapture"])
        .env(CHILD, "1")
        .env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All cases in a table, with what is not within its bounds.
fn all_cases(strict: bool) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table { strict, worst: (0.0, String::new()), cases: 0, failures: Vec::new() };
    let begun = memory::held().unwrap();
    images(&mut table, folder.path());
    sounds(&mut table, folder.path());
    videos(&mut table, folder.path());
    let kept = memory::held().unwrap().saturating_sub(begun) as f64 / 1024.0 / 1024.0;
    println!(
        "{} cases, allocator {}: at most {:.2} of the estimate ({}), {kept:.2} MiB kept at the end",
        table.cases,
        if strict { "that keeps nothing" } else { "as it is" },
        table.worst.0,
        table.worst.1,
    );
    for failure in &table.failures {
        println!("{}: {failure}", if strict { "NOT WITHIN" } else { "as it is" });
    }
    table
}
