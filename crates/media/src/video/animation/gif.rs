//! GIF: the walk over its blocks, and its frames drawn as Pillow draws them.

use std::io::SeekFrom;

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};

use super::canvas::{Budget, Canvas, DEFAULT_DELAY_S, Headers, Play, Rectangle, Source, corrupt, read};
use crate::error::MediaError;
use crate::image::rgb::check_pixels;

/// Working memory of the decoder beside the pixels: metadata.
const DECODER_BYTES: u64 = 64 << 20;

/// A frame as its headers say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    rectangle: Rectangle,
    /// 0 and 1: it stays; 2: its rectangle becomes background; others: what was below comes back.
    disposal: u8,
    transparent: Option<u8>,
    /// Index of the screen's background; the same in all frames.
    background: u8,
}

/// Reads headers up to the given number of frames.
///
/// The delay of a frame without a graphic control is that of the frame before; 0 counts as 10 hundredths of a second, and
/// so does a first frame without one. A disposal of 0 leaves the last one in force.
///
/// # Source
/// Delays: FFmpeg 9.0.2, measured on files with delays of 0, 1, 2, 3, 5, 10, 6,000 and 65,535 and without (1 hundredth
/// stays 1). Disposal: Pillow 13, `GifImagePlugin.py`.
pub(super) fn walk(source: &mut dyn Source, most: usize, name: &str) -> Result<Headers<Frame>, MediaError> {
    let failed = |error: std::io::Error| corrupt(name, "gif", error);
    let mut headers =
        Headers { width: 0, height: 0, frames: Vec::new(), delays_s: Vec::new(), longest: 0, complete: false };
    let Some(screen) = read::<13>(source).map_err(failed)? else {
        return Ok(headers);
    };
    headers.width = u32::from(u16::from_le_bytes([screen[6], screen[7]]));
    headers.height = u32::from(u16::from_le_bytes([screen[8], screen[9]]));
    check_pixels(name, headers.width, headers.height)?;
    let mut background = 0;
    if screen[10] & 0x80 != 0 {
        background = screen[11];
        skip_palette(source, screen[10]).map_err(failed)?;
    }
    let mut budget = Budget::new(name);
    let (mut delay_s, mut disposal, mut transparent) = (DEFAULT_DELAY_S, 0, None);
    while headers.frames.len() < most {
        let Some([kind]) = read::<1>(source).map_err(failed)? else {
            return Ok(headers);
        };
        match kind {
            0x21 => {
                let Some([label, length]) = read::<2>(source).map_err(failed)? else {
                    return Ok(headers);
                };
                if label == 0xf9 && length >= 4 {
                    let Some([flags, low, high, index]) = read::<4>(source).map_err(failed)? else {
                        return Ok(headers);
                    };
                    delay_s = match u16::from_le_bytes([low, high]) {
                        0 => DEFAULT_DELAY_S,
                        hundredths => f64::from(hundredths) / 100.0,
                    };
                    if flags >> 2 & 7 != 0 {
                        disposal = flags >> 2 & 7;
                    }
                    if flags & 1 != 0 {
                        transparent = Some(index);
                    }
                    source.seek(SeekFrom::Current(i64::from(length) - 4)).map_err(failed)?;
                } else {
                    source.seek(SeekFrom::Current(i64::from(length))).map_err(failed)?;
                }
                if length != 0 && !skip_blocks(source).map_err(failed)? {
                    return Ok(headers);
                }
            }
            0x2c => {
                let Some(place) = read::<9>(source).map_err(failed)? else {
                    return Ok(headers);
                };
                let number = |at: usize| u32::from(u16::from_le_bytes([place[at], place[at + 1]]));
                let rectangle = Rectangle { x: number(0), y: number(2), width: number(4), height: number(6) };
                budget.frame(rectangle)?;
                headers.longest = headers.longest.max(rectangle.pixels());
                if place[8] & 0x80 != 0 {
                    skip_palette(source, place[8]).map_err(failed)?;
                }
                // The second frame is enough for who asks only whether there is one.
                headers.frames.push(Frame { rectangle, disposal, transparent, background });
                headers.delays_s.push(delay_s);
                transparent = None;
                if headers.frames.len() == most {
                    return Ok(headers);
                }
                if read::<1>(source).map_err(failed)?.is_none() || !skip_blocks(source).map_err(failed)? {
                    return Ok(headers);
                }
            }
            0x3b => {
                headers.complete = true;
                return Ok(headers);
            }
            other => return Err(corrupt(name, "gif", format!("found a block of the unknown kind {other:#04x}"))),
        }
    }
    Ok(headers)
}

fn skip_palette(source: &mut dyn Source, flags: u8) -> std::io::Result<()> {
    source.seek_relative(3_i64 << ((flags & 7) + 1))
}

/// Skips sub-blocks and their end; false where the file ends first.
fn skip_blocks(source: &mut dyn Source) -> std::io::Result<bool> {
    loop {
        match read::<1>(source)? {
            None => return Ok(false),
            Some([0]) => return Ok(true),
            // Small steps stay in the buffer of a file.
            Some([length]) => skip(source, usize::from(length))?,
        }
    }
}

/// Steps over bytes without giving the buffer up. Past the end nothing is read, and the next read says so.
fn skip(source: &mut dyn Source, mut bytes: usize) -> std::io::Result<()> {
    while bytes > 0 {
        let here = source.fill_buf()?.len().min(bytes);
        if here == 0 {
            return Ok(());
        }
        source.consume(here);
        bytes -= here;
    }
    Ok(())
}

/// What happens to the rectangle of a frame before the next one.
enum Dispose {
    Nothing,
    Fill(Rectangle, [u8; 4]),
    PutBack(Rectangle, Vec<u8>),
}

/// Decodes and draws.
pub(super) struct Player {
    decoder: Decoder<Box<dyn Source>>,
    name: String,
    indices: Vec<u8>,
    dispose: Dispose,
    /// Whether the video has no transparency; decided by the first frame.
    opaque: bool,
}

impl Player {
    pub(super) fn new(source: Box<dyn Source>, name: &str, _canvas: &Canvas) -> Result<Self, MediaError> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        options.set_memory_limit(DECODER_BYTES.try_into().map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
        let decoder = options.read_info(source).map_err(|error| corrupt(name, "gif", error))?;
        Ok(Self { decoder, name: name.to_owned(), indices: Vec::new(), dispose: Dispose::Nothing, opaque: true })
    }
}

impl Play for Player {
    // What the rectangle of a frame hides; indices are counted by the frame.
    const HELD_BYTES: u64 = 4;
    const DECODING_BYTES: u64 = 0;
    type Frame = Frame;

    /// # Source
    /// Pillow 13, `GifImagePlugin.py`, `_seek`, `load_prepare` and `load_end`: a background is transparent where the
    /// frame has a transparent colour and the screen's background colour where it has none, and a video whose first frame
    /// has none is opaque throughout.
    fn draw(&mut self, place: usize, frame: Frame, canvas: &mut Canvas) -> Result<(), MediaError> {
        match std::mem::replace(&mut self.dispose, Dispose::Nothing) {
            Dispose::Nothing => {}
            Dispose::Fill(rectangle, colour) => canvas.fill(rectangle, colour),
            Dispose::PutBack(rectangle, pixels) => canvas.put(rectangle, &pixels),
        }
        let failed = |error| corrupt(&self.name, "gif", error);
        let full = frame.rectangle;
        match self.decoder.next_frame_info().map_err(failed)? {
            Some(found) if (u32::from(found.width), u32::from(found.height)) == (full.width, full.height) => {}
            _ => return Err(corrupt(&self.name, "gif", "its blocks do not follow each other")),
        }
        self.indices.clear();
        self.indices.resize(full.pixels() as usize, 0);
        if !self.indices.is_empty() {
            self.decoder.read_into_buffer(&mut self.indices).map_err(failed)?;
        }
        let palette = self.decoder.palette().map_err(failed)?;
        let entry = |index: u8| {
            let at = usize::from(index) * 3;
            palette.get(at..at + 3).map(|colour| [colour[0], colour[1], colour[2]])
        };
        let with_alpha = |[r, g, b]: [u8; 3], alpha| [r, g, b, alpha];
        let below = frame.transparent.map(|index| with_alpha(entry(index).unwrap_or([index; 3]), 0));
        if place == 0 {
            self.opaque = frame.transparent.is_none();
            let whole = Rectangle { x: 0, y: 0, width: canvas.width, height: canvas.height };
            canvas.fill(whole, below.unwrap_or_else(|| with_alpha(entry(0).unwrap_or_default(), 255)));
        }
        let rectangle = full.on(canvas.width, canvas.height);
        self.dispose = match frame.disposal {
            0 | 1 => Dispose::Nothing,
            2 => {
                let background = || {
                    // In the first frame Pillow still holds indices, and one without a palette entry is its own grey.
                    let missing = || if place == 0 { [frame.background; 3] } else { entry(0).unwrap_or_default() };
                    with_alpha(entry(frame.background).unwrap_or_else(missing), 255)
                };
                Dispose::Fill(rectangle, below.unwrap_or_else(background))
            }
            _ if place > 0 => Dispose::PutBack(rectangle, canvas.copy(rectangle)),
            _ => below.map_or(Dispose::Nothing, |colour| Dispose::Fill(rectangle, colour)),
        };
        let columns = rectangle.width as usize;
        for (row, indices) in rectangle.rows(canvas.width).zip(self.indices.chunks_exact(full.width.max(1) as usize)) {
            for (pixel, index) in canvas.pixels[row].chunks_exact_mut(4).zip(&indices[..columns]) {
                // An index without a palette entry draws nothing, as in still images.
                if let Some(colour) = entry(*index).filter(|_| frame.transparent != Some(*index)) {
                    pixel.copy_from_slice(&with_alpha(colour, 255));
                }
            }
        }
        Ok(())
    }

    fn shown(&self, canvas: &Canvas) -> Vec<u8> {
        if self.opaque { canvas.without_alpha() } else { canvas.over_white() }
    }
}
