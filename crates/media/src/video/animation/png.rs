//! Animated PNG: the walk over its chunks, and its frames drawn as the PNG specification says.

use std::io::SeekFrom;

use png::{BitDepth, BlendOp, ColorType, Decoder, DisposeOp, Limits, Reader, Transformations};

use super::canvas::{Budget, Canvas, Headers, Play, Rectangle, Source, corrupt, read};
use crate::error::MediaError;
use crate::image::rgb::check_pixels;

/// How long a frame with a delay of 0 is shown.
const DEFAULT_DELAY_S: f64 = 1.0 / 15.0;

/// Working memory of the decoder beside the pixels: rows, metadata.
const DECODER_BYTES: usize = 64 << 20;

/// A frame as its headers say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    rectangle: Rectangle,
    dispose: DisposeOp,
    blend: BlendOp,
    /// Whether the image that other readers show stands before the first frame and is no frame.
    skip_first: bool,
}

/// Reads headers up to the given number of frames; none for a PNG that is no animation.
///
/// A delay of 0 counts as 1/15 s, a denominator of 0 as 100.
///
/// # Source
/// PNG, third edition, section 11.3.5; delays: FFmpeg 9.0.2, measured with 0, 5, 10, 11, 40 and 100 ms.
pub(super) fn walk(source: &mut dyn Source, most: usize, name: &str) -> Result<Headers<Frame>, MediaError> {
    let failed = |error: std::io::Error| corrupt(name, "png", error);
    let mut headers =
        Headers { width: 0, height: 0, frames: Vec::new(), delays_s: Vec::new(), longest: 0, complete: false };
    if read::<8>(source).map_err(failed)?.is_none() {
        return Ok(headers);
    }
    let mut budget = Budget::new(name);
    let (mut animated, mut skip_first, mut pixels_began) = (false, false, false);
    while headers.frames.len() < most {
        let Some([l0, l1, l2, l3, kind @ ..]) = read::<8>(source).map_err(failed)? else {
            return Ok(headers);
        };
        let mut bytes = i64::from(u32::from_be_bytes([l0, l1, l2, l3]));
        match &kind {
            b"IHDR" => {
                let Some([w0, w1, w2, w3, h0, h1, h2, h3]) = read::<8>(source).map_err(failed)? else {
                    return Ok(headers);
                };
                (headers.width, headers.height) =
                    (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
                check_pixels(name, headers.width, headers.height)?;
                bytes -= 8;
            }
            b"acTL" => animated = true,
            b"IDAT" if !animated => {
                // A still image; its own reader looks at the rest.
                headers.complete = true;
                return Ok(headers);
            }
            b"IDAT" if !pixels_began => {
                pixels_began = true;
                skip_first = headers.frames.is_empty();
            }
            b"fcTL" if animated => {
                let Some(control) = read::<26>(source).map_err(failed)? else {
                    return Ok(headers);
                };
                bytes -= 26;
                let number =
                    |at: usize| u32::from_be_bytes([control[at], control[at + 1], control[at + 2], control[at + 3]]);
                let rectangle = Rectangle { width: number(4), height: number(8), x: number(12), y: number(16) };
                let fits =
                    |at: u32, side: u32, whole: u32| side > 0 && at.checked_add(side).is_some_and(|end| end <= whole);
                let operations = DisposeOp::from_u8(control[24]).zip(BlendOp::from_u8(control[25]));
                let (true, true, Some((dispose, blend))) = (
                    fits(rectangle.x, rectangle.width, headers.width),
                    fits(rectangle.y, rectangle.height, headers.height),
                    operations,
                ) else {
                    return Err(corrupt(name, "png", "found a frame that breaks the rules"));
                };
                budget.frame(rectangle)?;
                headers.frames.push(Frame { rectangle, dispose, blend, skip_first });
                let short = |at: usize| u16::from_be_bytes([control[at], control[at + 1]]);
                headers.delays_s.push(match (short(20), short(22)) {
                    (0, _) => DEFAULT_DELAY_S,
                    (hundredths, 0) => f64::from(hundredths) / 100.0,
                    (num, den) => f64::from(num) / f64::from(den),
                });
            }
            b"IEND" => {
                headers.complete = true;
                return Ok(headers);
            }
            _ => {}
        }
        // The check value follows. A length that lies leads past the end, where the next read finds nothing.
        if bytes < 0 {
            return Err(corrupt(name, "png", "found a chunk that is too short"));
        }
        source.seek(SeekFrom::Current(bytes + 4)).map_err(failed)?;
    }
    Ok(headers)
}

/// Decodes and draws.
pub(super) struct Player {
    reader: Reader<Box<dyn Source>>,
    name: String,
    samples: Vec<u8>,
    dispose: Option<(Rectangle, Option<Vec<u8>>)>,
}

impl Player {
    pub(super) fn new(source: Box<dyn Source>, name: &str, canvas: &Canvas) -> Result<Self, MediaError> {
        let failed = |error| corrupt(name, "png", error);
        let limits = Limits { bytes: DECODER_BYTES + canvas.width as usize * 16 };
        let mut decoder = Decoder::new_with_limits(source, limits);
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let reader = decoder.read_info().map_err(failed)?;
        let bytes = reader.output_buffer_size().unwrap_or(usize::MAX);
        // Four samples of eight bits at most: the decoder was asked for no more.
        if bytes > canvas.pixels.len() {
            return Err(corrupt(name, "png", "its frames have more samples than pixels"));
        }
        Ok(Self { reader, name: name.to_owned(), samples: vec![0; bytes], dispose: None })
    }
}

impl Play for Player {
    // Samples of a frame, and what its rectangle hides.
    const HELD_BYTES: u64 = 8;
    const DECODING_BYTES: u64 = 0;
    type Frame = Frame;

    /// # Source
    /// PNG, third edition, sections 11.3.5.2 and 13.11. Pillow 13 differs in two points: it makes the background of videos
    /// without transparency black, and the result of half-transparent frames over opaque ones half transparent.
    fn draw(&mut self, place: usize, frame: Frame, canvas: &mut Canvas) -> Result<(), MediaError> {
        match self.dispose.take() {
            None => {}
            Some((rectangle, None)) => canvas.fill(rectangle, [0; 4]),
            Some((rectangle, Some(pixels))) => canvas.put(rectangle, &pixels),
        }
        let failed = |error| corrupt(&self.name, "png", error);
        if place == 0 && frame.skip_first {
            self.reader.next_frame(&mut self.samples).map_err(failed)?;
        }
        let output = self.reader.next_frame(&mut self.samples).map_err(failed)?;
        let rectangle = frame.rectangle;
        if (output.width, output.height) != (rectangle.width, rectangle.height) || output.bit_depth != BitDepth::Eight {
            return Err(corrupt(&self.name, "png", "its chunks do not follow each other"));
        }
        let channels = output.color_type.samples();
        // Interlaced rows stand as far apart as those of a frame of full size.
        let stride = if self.reader.info().interlaced { canvas.width as usize * channels } else { output.line_size };
        self.dispose = match frame.dispose {
            DisposeOp::None => None,
            DisposeOp::Previous if place > 0 => Some((rectangle, Some(canvas.copy(rectangle)))),
            // In the first frame, what was there before is nothing.
            DisposeOp::Background | DisposeOp::Previous => Some((rectangle, None)),
        };
        for (row, samples) in rectangle.rows(canvas.width).zip(self.samples.chunks(stride)) {
            let pixels = canvas.pixels[row].chunks_exact_mut(4);
            for (below, sample) in pixels.zip(samples.chunks_exact(channels)) {
                let above = match (output.color_type, sample) {
                    (ColorType::Grayscale, [grey, ..]) => [*grey, *grey, *grey, 255],
                    (ColorType::GrayscaleAlpha, [grey, alpha, ..]) => [*grey, *grey, *grey, *alpha],
                    (ColorType::Rgb, [r, g, b, ..]) => [*r, *g, *b, 255],
                    (ColorType::Rgba, [r, g, b, alpha, ..]) => [*r, *g, *b, *alpha],
                    _ => return Err(corrupt(&self.name, "png", "its palette was not applied")),
                };
                match (frame.blend, above[3]) {
                    (BlendOp::Source, _) | (BlendOp::Over, 255) => below.copy_from_slice(&above),
                    (BlendOp::Over, 0) => {}
                    (BlendOp::Over, _) => over(below, above),
                }
            }
        }
        Ok(())
    }

    fn shown(&self, canvas: &Canvas) -> Vec<u8> {
        canvas.over_white()
    }
}

/// One pixel over another, neither multiplied by its alpha; rounded to the nearest.
fn over(below: &mut [u8], above: [u8; 4]) {
    let front = u32::from(above[3]) * 255;
    let back = u32::from(below[3]) * (255 - u32::from(above[3]));
    let alpha = front + back;
    for (below, above) in below[..3].iter_mut().zip(above) {
        *below = ((u32::from(above) * front + u32::from(*below) * back + alpha / 2) / alpha) as u8;
    }
    below[3] = ((alpha + 127) / 255) as u8;
}
