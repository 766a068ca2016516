//! TIFF: the first image of a file, in every layout of strips, tiles and planes, as eight bits of red, green and blue.
//!
//! What lives here: which layouts and samples are read, where strips and tiles lie, the walk over them. What does not:
//! directories (`tiff/tags.rs`), packing (`tiff/codecs.rs`, `tiff/fax.rs`), colours (`tiff/colour.rs`).
//!
//! The result is what Pillow gives, save that samples of 16 bits give their high byte, and where a sentence here says
//! otherwise. What Pillow has no fixed white for (floats, and whole numbers of 32 bits or with a sign) is refused.
//!
//! # Source
//! TIFF 6.0 (1992), its supplements 1 and 2, the BigTIFF design; Pillow 13 and its libtiff 4.7 where these leave a choice.

use std::io::SeekFrom;

use image::metadata::Orientation;

use crate::error::MediaError;

use super::exif;
use super::rgb::{DECODER_BYTES, Header, ReadSeek, RgbImage, check_pixels};
use super::size::{Height, Width};

mod codecs;
mod colour;
mod fault;
mod fax;
mod tags;

use colour::{Alpha, Chroma, Colour, Converter, Samples, photometric_name};
use fault::{FORMAT, Fault, damaged, unsupported};
use fax::Coding;
use tags::{Directory, tag};

/// How strips and tiles are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Fax(Coding),
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Lzma,
    Zstd,
    WebP,
}

/// Words for the compressions that are not read.
fn compression_name(number: u64) -> &'static str {
    match number {
        6 => "JPEG of before 1995, \"old-style\"",
        9 => "JBIG of TIFF-FX",
        10 => "JBIG in colour of TIFF-FX",
        262 => "Kodak 262",
        32766 => "NeXT 2-bit runs",
        32769 => "packed samples of CCITT",
        32809 => "ThunderScan",
        32895..=32898 => "IT8",
        32908 => "Pixar video",
        32909 => "Pixar logarithms",
        32947 => "Kodak DCS",
        33003 | 33004 | 33005 | 34712 => "JPEG 2000",
        34661 => "JBIG",
        34676 => "SGI LogLuv",
        34677 => "SGI LogLuv of 24 bits",
        34713 => "Nikon NEF",
        34715 => "JBIG2",
        34718..=34720 => "Microsoft document imaging",
        34887 => "LERC",
        34892 => "lossy JPEG of DNG",
        34933 | 34934 => "PNG or JPEG XR of a microscope",
        50002 | 52546 => "JPEG XL",
        _ => "unknown",
    }
}

/// What the directory says, checked.
struct Layout {
    width: u32,
    height: u32,
    orientation: Orientation,
    packing: Packing,
    /// Bits of each sample.
    bits: u32,
    /// Samples of a pixel, those included that are not shown.
    samples: usize,
    /// Whether each of them lies in strips or tiles of its own.
    planar: bool,
    big_endian: bool,
    /// Bits of bytes from the low end.
    reversed: bool,
    /// Differences of neighbouring samples.
    predicted: bool,
    colour: Colour,
    alpha: Option<(Alpha, usize)>,
    /// Chroma has a sample for so many pixels across and down; ones save for YCbCr that is not JPEG.
    subsampling: (usize, usize),
    jpeg_tables: Vec<u8>,
    /// Sides of strips or tiles, and how many of them there are.
    chunk_width: u32,
    chunk_height: u32,
    across: usize,
    down: usize,
    /// Where they lie and how many bytes they have.
    chunks: Vec<(u64, u64)>,
}

/// Decodes the first image of a file.
pub(crate) fn decode(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<RgbImage, MediaError> {
    let decoded = Layout::read(source, bytes, name).and_then(|layout| {
        let pixels = layout.pixels(source)?;
        Ok(exif::upright(RgbImage::from_parts(Width(layout.width), Height(layout.height), pixels), layout.orientation))
    });
    decoded.map_err(|fault| fault.named(name))
}

/// Reads what the directory says of the memory that decoding takes.
pub(crate) fn header(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<Header, MediaError> {
    let layout = Layout::read(source, bytes, name).map_err(|fault| fault.named(name))?;
    let samples = 3 * u64::from(layout.width) * u64::from(layout.height);
    let (width, height, orientation) = (layout.width, layout.height, layout.orientation);
    Ok(Header { width, height, orientation, samples, beside: layout.beside() })
}

impl Layout {
    fn read(source: &mut dyn ReadSeek, bytes: u64, name: &str) -> Result<Self, Fault> {
        let directory = Directory::read(source, bytes)?;
        let side = |source: &mut dyn ReadSeek, tag| -> Result<u32, Fault> {
            directory.one_u32(source, tag)?.ok_or_else(|| damaged("the sides of the image are missing"))
        };
        let (width, height) = (side(source, tag::IMAGE_WIDTH)?, side(source, tag::IMAGE_LENGTH)?);
        check_pixels(name, width, height).map_err(Fault::Media)?;
        if directory.has(tag::DNG_VERSION) && directory.one(source, tag::NEW_SUBFILE_TYPE)?.unwrap_or(0) & 1 == 1 {
            return Err(unsupported("found a raw photograph (DNG), of which only the preview is an ordinary image"));
        }
        let compression = directory.one(source, tag::COMPRESSION)?.unwrap_or(1);
        let photometric = directory.one(source, tag::PHOTOMETRIC)?.unwrap_or(0);
        let packing = packing(&directory, source, compression)?;
        let planar = match directory.one(source, tag::PLANAR_CONFIGURATION)?.unwrap_or(1) {
            1 => false,
            2 => true,
            other => return Err(damaged(format!("the planar configuration is {other}, expected 1 or 2"))),
        };
        let reversed = match directory.one(source, tag::FILL_ORDER)?.unwrap_or(1) {
            1 => false,
            2 => packing != Packing::Jpeg,
            other => return Err(damaged(format!("the fill order is {other}, expected 1 or 2"))),
        };

        let samples = directory.one(source, tag::SAMPLES_PER_PIXEL)?.unwrap_or(1);
        if samples == 0 || samples > MOST_SAMPLES {
            return Err(unsupported(format!("found {samples} samples a pixel, expected at most {MOST_SAMPLES}")));
        }
        let all_bits = directory.numbers(source, tag::BITS_PER_SAMPLE, samples)?.unwrap_or_else(|| vec![1]);
        let bits = all_bits[0];
        if all_bits.iter().any(|one| *one != bits) {
            return Err(unsupported(format!("found samples of different sizes, {all_bits:?} bits")));
        }
        // One number stands for all of them; any other count that is too small says that one of the tags is wrong.
        if all_bits.len() > 1 && (all_bits.len() as u64) < samples {
            return Err(damaged(format!("{samples} samples a pixel have {} sizes", all_bits.len())));
        }
        let formats = directory.numbers(source, tag::SAMPLE_FORMAT, samples)?.unwrap_or_else(|| vec![1]);
        if formats.iter().any(|format| *format != formats[0]) {
            return Err(unsupported(format!("found samples of different formats, {formats:?}")));
        }
        match (formats[0], bits) {
            (1, 1..=16) => {}
            // Pillow shows grey of eight bits as if it had no sign.
            (2, 8) if photometric == 1 && samples == 1 => {}
            (1 | 2, bits) => {
                let kind = if formats[0] == 2 { "signed" } else { "unsigned" };
                return Err(unsupported(format!(
                    "found {kind} whole numbers of {bits} bits, expected unsigned ones of at most 16"
                )));
            }
            (3, bits) => {
                let what = format!("found samples of type {bits}-bit float, expected 8 or 16 bit integers");
                return Err(unsupported(what));
            }
            (5 | 6, _) => return Err(unsupported("found complex numbers as samples")),
            (format, _) => return Err(unsupported(format!("found samples of format {format}, expected 1 (unsigned)"))),
        }
        let bits = bits as u32;
        let samples = samples as usize;
        let extra = directory.numbers(source, tag::EXTRA_SAMPLES, samples as u64)?.unwrap_or_default();

        let found = Samples { photometric, samples, bits, extra };
        let alpha = found.alpha()?;
        let subsampling = match packing {
            _ if photometric != 6 || samples == 1 || matches!(packing, Packing::Jpeg | Packing::WebP) => (1, 1),
            _ => match directory.numbers(source, tag::YCBCR_SUBSAMPLING, 2)?.as_deref() {
                Some([across @ (1 | 2 | 4), down @ (1 | 2 | 4)]) => (*across as usize, *down as usize),
                Some(other) => return Err(damaged(format!("chroma is stored for each {other:?} pixels"))),
                // The default is 2 and 2, but writers that store all of it leave the tag out, too.
                None if packing == Packing::None && full_chroma(&directory, source, width, height)? => (1, 1),
                None => (2, 2),
            },
        };
        if subsampling != (1, 1) && planar {
            return Err(unsupported("found YCbCr with less chroma than luma in planes"));
        }
        let chroma = match packing {
            Packing::Jpeg if !planar => Chroma::Jpeg,
            Packing::None if subsampling == (1, 1) => Chroma::Pillow,
            _ => Chroma::LibTiff,
        };
        let colour = found.colour(&directory, source, alpha.map(|(kind, _)| kind), chroma)?;
        let predicted = packing.takes_predictor()
            && match directory.one(source, tag::PREDICTOR)?.unwrap_or(1) {
                1 => false,
                2 if (bits == 8 || bits == 16) && subsampling == (1, 1) => true,
                2 => return Err(unsupported(format!("found differences (predictor 2) of samples of {bits} bits"))),
                other => return Err(unsupported(format!("found predictor {other}, expected 1 or 2"))),
            };
        match packing {
            Packing::Fax(_) if bits != 1 || (samples != 1 && !planar) => {
                let what = format!("found CCITT rows of {samples} samples of {bits} bits, expected one of 1 bit");
                return Err(unsupported(what));
            }
            Packing::Jpeg | Packing::WebP if bits != 8 => {
                let name = if packing == Packing::Jpeg { "JPEG" } else { "WebP" };
                return Err(unsupported(format!("found {name} of samples of {bits} bits, expected 8")));
            }
            Packing::Jpeg if photometric == 3 => {
                return Err(unsupported("found a palette whose indices are packed as JPEG, which changes them"));
            }
            Packing::WebP if planar || photometric != 2 || !matches!(samples, 3 | 4) => {
                let words = photometric_name(photometric);
                let planes = if planar { " in planes" } else { "" };
                let what = format!("found WebP of {samples} samples ({words}){planes}, expected 3 or 4 of RGB");
                return Err(unsupported(what));
            }
            _ => {}
        }
        let orientation = exif::metadata(source, bytes, FORMAT).orientation();
        let jpeg_tables = match packing {
            Packing::Jpeg => directory.raw(source, tag::JPEG_TABLES)?.unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut layout = Self {
            width,
            height,
            orientation,
            packing,
            bits,
            samples,
            planar,
            big_endian: directory.big_endian,
            reversed,
            predicted,
            colour,
            alpha,
            subsampling,
            jpeg_tables,
            chunk_width: width,
            chunk_height: height,
            across: 1,
            down: 1,
            chunks: Vec::new(),
        };
        layout.find_chunks(&directory, source)?;
        let pixels = u64::from(width) * u64::from(height);
        if layout.decoded_bytes(layout.held_rows()) > 8 * pixels + DECODER_BYTES {
            return Err(Fault::Memory);
        }
        Ok(layout)
    }

    /// Where strips or tiles lie.
    fn find_chunks(&mut self, directory: &Directory, source: &mut dyn ReadSeek) -> Result<(), Fault> {
        let tiled = directory.has(tag::TILE_WIDTH) && directory.has(tag::TILE_LENGTH);
        if directory.has(tag::STRIP_OFFSETS) && directory.has(tag::TILE_OFFSETS) {
            return Err(damaged("the image is stored both in strips and in tiles"));
        }
        if tiled {
            self.chunk_width = directory.one_u32(source, tag::TILE_WIDTH)?.unwrap_or(0);
            self.chunk_height = directory.one_u32(source, tag::TILE_LENGTH)?.unwrap_or(0);
        } else {
            // An absent number, and one that is larger than the image, stand for all rows.
            let rows = directory.one(source, tag::ROWS_PER_STRIP)?.unwrap_or(u64::MAX);
            self.chunk_height = rows.min(u64::from(self.height)) as u32;
        }
        if self.chunk_width == 0 || self.chunk_height == 0 {
            return Err(damaged("strips or tiles have no pixels"));
        }
        self.across = self.width.div_ceil(self.chunk_width) as usize;
        self.down = self.height.div_ceil(self.chunk_height) as usize;
        let planes = if self.planar { self.samples as u64 } else { 1 };
        let count = self.across as u64 * self.down as u64 * planes;
        let (offsets, counts) = if directory.has(tag::TILE_OFFSETS) {
            (tag::TILE_OFFSETS, tag::TILE_BYTE_COUNTS)
        } else {
            (tag::STRIP_OFFSETS, tag::STRIP_BYTE_COUNTS)
        };
        // Looked at before the list is read, because it may be short and the image large.
        if directory.count(offsets) < count {
            let found = directory.count(offsets);
            return Err(damaged(format!("{found} strips or tiles are there, expected {count}")));
        }
        let offsets = directory.numbers(source, offsets, count)?.unwrap_or_default();
        let stated = directory.numbers(source, counts, count)?.unwrap_or_default();
        let end = directory.file_bytes;
        let mut sorted = Vec::new();
        self.chunks.reserve_exact(offsets.len());
        for (index, at) in offsets.iter().enumerate() {
            // Pillow reads samples that are not packed without a view to their stated count.
            let bytes = if self.packing == Packing::None {
                let down = index / self.across % self.down;
                self.stored_bytes(self.used_rows(down))
            } else {
                match stated.get(index) {
                    Some(bytes) if *bytes > 0 => *bytes,
                    // Up to where the next one begins, or the file ends.
                    _ => {
                        if sorted.is_empty() {
                            sorted = offsets.clone();
                            sorted.sort_unstable();
                        }
                        let next = sorted.partition_point(|other| other <= at);
                        sorted.get(next).copied().unwrap_or(end).saturating_sub(*at)
                    }
                }
            };
            self.chunks.push((*at, bytes));
        }
        Ok(())
    }

    /// Rows of the image in a row of strips or tiles.
    fn used_rows(&self, down: usize) -> u32 {
        self.chunk_height.min(self.height - down as u32 * self.chunk_height)
    }

    /// Bytes of so many rows of one strip or tile, of one plane where there are several.
    fn stored_bytes(&self, rows: u32) -> u64 {
        let (across, down) = self.subsampling;
        if self.subsampling != (1, 1) {
            let unit = (across * down + 2) as u64 * u64::from(self.bits) / 8;
            return u64::from(self.chunk_width).div_ceil(across as u64) * u64::from(rows).div_ceil(down as u64) * unit;
        }
        self.row_bytes() * u64::from(rows)
    }

    /// Bytes of one row of a strip or tile.
    fn row_bytes(&self) -> u64 {
        let samples = if self.planar { 1 } else { self.samples as u64 };
        (u64::from(self.chunk_width) * samples * u64::from(self.bits)).div_ceil(8)
    }

    /// Planes that are shown, by their numbers.
    fn planes(&self) -> Vec<usize> {
        if !self.planar {
            return vec![0];
        }
        (0..self.colour.samples()).chain(self.alpha.map(|(_, at)| at)).collect()
    }

    /// Bytes of so many rows of a strip or tile in all planes that are shown.
    fn decoded_bytes(&self, rows: u32) -> u64 {
        self.stored_bytes(rows) * self.planes().len() as u64
    }

    /// Rows that are read at once: what is not packed goes through a small window.
    fn rows_at_once(&self) -> u32 {
        if self.packing != Packing::None || self.chunk_width != self.width {
            return self.chunk_height;
        }
        let units = self.subsampling.1 as u32;
        let fitting = (WINDOW_BYTES / self.row_bytes().max(1)).clamp(1, u64::from(self.chunk_height)) as u32;
        fitting.next_multiple_of(units).min(self.chunk_height)
    }

    /// Rows of a strip or tile that are held at once: of tiles that go on below the image, some packings give all.
    fn held_rows(&self) -> u32 {
        match self.packing {
            Packing::Jpeg | Packing::WebP => self.chunk_height,
            _ => self.rows_at_once().min(self.height),
        }
    }

    /// Packed bytes of a strip or tile that are looked at. No packing makes rows this much longer; without the limit a
    /// file could name all of itself as each of many strips.
    fn packed_bytes(&self, bytes: u64) -> u64 {
        bytes.min(16 * self.stored_bytes(self.chunk_height) + (1 << 20))
    }

    /// Bytes that are held beside the pixels of the result.
    fn beside(&self) -> u64 {
        let decoded = self.decoded_bytes(self.held_rows());
        let packed = self.chunks.iter().map(|(_, bytes)| self.packed_bytes(*bytes)).max().unwrap_or(0);
        let chunk = u64::from(self.chunk_width) * u64::from(self.held_rows());
        let codec = match self.packing {
            // The samples before they are cut to size, coefficients, and the stream with its tables.
            Packing::Jpeg => decoded + 12 * chunk + 2 * packed + self.jpeg_tables.len() as u64,
            // As for a WebP file with alpha.
            Packing::WebP => 12 * chunk + (2600 * 6144).min(packed * 128) + packed,
            // The window, which grows by doubling, and blocks.
            Packing::Zstd => 3 * decoded.next_power_of_two().max(128 << 10) + (1 << 20),
            Packing::Lzma => decoded + (1 << 20),
            _ => 0,
        };
        let packed = if self.packing == Packing::None { 0 } else { packed };
        let codec = codec + if matches!(self.colour, Colour::Lab(_)) { colour::LabCube::BYTES } else { 0 };
        // Offsets and counts as they are read, sorted and kept; rows of single samples.
        let tables = 64 * self.chunks.len() as u64 + 8 * u64::from(self.chunk_width);
        decoded + packed + codec + tables
    }

    /// Decodes into packed RGB.
    fn pixels(&self, source: &mut dyn ReadSeek) -> Result<Vec<u8>, Fault> {
        let file_bytes = source.seek(SeekFrom::End(0))?;
        // Before room is made for the image.
        for (at, bytes) in &self.chunks {
            if at.checked_add(*bytes).is_none_or(|end| end > file_bytes) {
                return Err(damaged(format!(
                    "a strip or tile of {bytes} bytes at {at} lies behind the end of the file"
                )));
            }
        }
        let (width, step) = (self.width as usize, self.rows_at_once());
        let planes = self.planes();
        let mut pixels = vec![0; width * self.height as usize * 3];
        let mut converter = Converter::new(&self.colour, self.alpha.map(|(kind, _)| kind), self.bits, self.big_endian);
        let (mut raw, mut decoded) = (Vec::new(), vec![Vec::new(); planes.len()]);
        for down in 0..self.down {
            for across in 0..self.across {
                let used = self.used_rows(down);
                let left = across * self.chunk_width as usize;
                let columns = (self.chunk_width as usize).min(width - left);
                for first in (0..used).step_by(step as usize) {
                    let rows = step.min(used - first);
                    for (plane, decoded) in planes.iter().zip(&mut decoded) {
                        let index = (plane * self.down + down) * self.across + across;
                        self.unpack(source, index, first, rows, &mut raw, decoded)?;
                    }
                    let top = down * self.chunk_height as usize + first as usize;
                    for row in 0..rows as usize {
                        let from = ((top + row) * width + left) * 3;
                        self.show(&mut converter, &decoded, row, &mut pixels[from..from + columns * 3]);
                    }
                }
            }
        }
        Ok(pixels)
    }

    /// Rows of one strip or tile as samples.
    fn unpack(
        &self,
        source: &mut dyn ReadSeek,
        index: usize,
        first: u32,
        rows: u32,
        raw: &mut Vec<u8>,
        decoded: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let (at, bytes) = self.chunks[index];
        let expected = self.stored_bytes(rows) as usize;
        let read = |source: &mut dyn ReadSeek, at: u64, bytes: u64, into: &mut Vec<u8>| -> Result<(), Fault> {
            into.resize(bytes as usize, 0);
            source.seek(SeekFrom::Start(at))?;
            source.read_exact(into)?;
            if self.reversed {
                into.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
            Ok(())
        };
        if self.packing == Packing::None {
            return read(source, at + self.stored_bytes(first), expected as u64, decoded);
        }
        read(source, at, self.packed_bytes(bytes), raw)?;
        if let Packing::Fax(coding) = self.packing {
            return fax::decode(raw, coding, self.chunk_width, rows as usize, decoded);
        }
        decoded.resize(expected, 0);
        let (width, height) = (self.chunk_width, rows as usize);
        // What one strip or tile may hold where it says so itself.
        let most = 4 * (self.stored_bytes(self.held_rows()) as usize + 65_536);
        let samples = if self.planar { 1 } else { self.samples };
        match self.packing {
            Packing::Lzw => codecs::lzw(raw, decoded)?,
            Packing::Deflate => codecs::deflate(raw, decoded)?,
            Packing::PackBits => codecs::pack_bits(raw, decoded)?,
            Packing::Zstd => codecs::zstd(raw, decoded)?,
            Packing::Lzma => codecs::lzma(raw, decoded)?,
            Packing::WebP => codecs::webp(raw, (width, height), samples, most, decoded)?,
            Packing::Jpeg => {
                codecs::jpeg_stream(&self.jpeg_tables, raw, (width, height), samples, most, decoded)?;
            }
            Packing::None | Packing::Fax(_) => unreachable!("handled above"),
        }
        if self.predicted {
            for row in decoded.chunks_exact_mut(self.row_bytes() as usize) {
                self.add_up(row, samples);
            }
        }
        Ok(())
    }

    /// Differences of neighbours back into samples.
    fn add_up(&self, row: &mut [u8], samples: usize) {
        if self.bits == 8 {
            for at in samples..row.len() {
                row[at] = row[at].wrapping_add(row[at - samples]);
            }
            return;
        }
        let from = |pair: [u8; 2]| if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
        let to = |sum: u16| if self.big_endian { sum.to_be_bytes() } else { sum.to_le_bytes() };
        for at in (2 * samples..row.len()).step_by(2) {
            let before = from([row[at - 2 * samples], row[at - 2 * samples + 1]]);
            let sum = from([row[at], row[at + 1]]).wrapping_add(before);
            row[at..at + 2].copy_from_slice(&to(sum));
        }
    }

    /// One row of a band of decoded rows into pixels.
    fn show(&self, converter: &mut Converter<'_>, decoded: &[Vec<u8>], row: usize, out: &mut [u8]) {
        let columns = out.len() / 3;
        if self.subsampling != (1, 1) {
            return converter.subsampled(&decoded[0], self.chunk_width as usize, self.subsampling, row, out);
        }
        let bytes = self.row_bytes() as usize;
        let line = |plane: &'_ [u8]| -> std::ops::Range<usize> { row * bytes..((row + 1) * bytes).min(plane.len()) };
        if self.planar {
            for (channel, plane) in decoded.iter().enumerate() {
                converter.take(channel, &plane[line(plane)], 1, 0, columns);
            }
        } else {
            let line = &decoded[0][line(&decoded[0])];
            if converter.copies(self.samples) {
                out.copy_from_slice(&line[..out.len()]);
                return;
            }
            for channel in 0..self.colour.samples() {
                converter.take(channel, line, self.samples, channel, columns);
            }
            if let Some((_, at)) = self.alpha {
                converter.take(self.colour.samples(), line, self.samples, at, columns);
            }
        }
        converter.mix(out);
    }
}

/// Finds the decoder of strips and tiles.
fn packing(directory: &Directory, source: &mut dyn ReadSeek, compression: u64) -> Result<Packing, Fault> {
    Ok(match compression {
        1 => Packing::None,
        2 => Packing::Fax(Coding::Runs),
        3 => {
            let options = directory.one(source, tag::T4_OPTIONS)?.unwrap_or(0);
            Packing::Fax(Coding::T4 { two_dimensional: options & 1 == 1 })
        }
        4 => Packing::Fax(Coding::T6),
        5 => Packing::Lzw,
        7 => Packing::Jpeg,
        8 | 32946 => Packing::Deflate,
        32771 => Packing::Fax(Coding::WordRuns),
        32773 => Packing::PackBits,
        34925 => Packing::Lzma,
        50000 => Packing::Zstd,
        50001 => Packing::WebP,
        other => return Err(unsupported(format!("found compression {other} ({})", compression_name(other)))),
    })
}

impl Packing {
    /// Whether samples may be stored as differences; elsewhere the tag is without meaning, as in libtiff.
    fn takes_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Lzma | Self::Zstd)
    }
}

/// Whether there are bytes for as many samples of chroma as of luma.
fn full_chroma(directory: &Directory, source: &mut dyn ReadSeek, width: u32, height: u32) -> Result<bool, Fault> {
    let counts = if directory.has(tag::TILE_BYTE_COUNTS) { tag::TILE_BYTE_COUNTS } else { tag::STRIP_BYTE_COUNTS };
    let counts = directory.numbers(source, counts, directory.file_bytes)?.unwrap_or_default();
    Ok(counts.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes)) >= 3 * u64::from(width) * u64::from(height))
}

/// Samples that a pixel has at most; Pillow takes six.
const MOST_SAMPLES: u64 = 32;

/// Bytes that are read at once where nothing is packed.
const WINDOW_BYTES: u64 = 1 << 20;
