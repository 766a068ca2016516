//! WebP: the walk over its chunks, and its frames drawn as libwebp draws them.

use std::io::{Cursor, Read, SeekFrom};

use image_webp::WebPDecoder;

use super::canvas::{Budget, Canvas, DEFAULT_DELAY_S, Headers, Play, Rectangle, Source, bytes_left, corrupt, read};
use crate::error::MediaError;
use crate::image::rgb::check_pixels;

/// Bytes of an `ANMF` chunk before the frame's own chunks.
const FRAME_HEADER: u64 = 16;

/// A frame as its headers say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    rectangle: Rectangle,
    /// Laid over what is there; else put in its place.
    blend: bool,
    /// Its rectangle becomes transparent before the next frame.
    clear: bool,
    /// Where its own chunks lie in the file.
    start: u64,
    bytes: u64,
    /// Whether the video has transparency; the same in all frames.
    clip_alpha: bool,
}

/// Reads headers up to the given number of frames; none for a WebP that is no animation.
///
/// Delays of 10 ms and less count as 100 ms.
///
/// # Source
/// Delays: FFmpeg 9.0.2, measured with 0, 5, 10, 11, 40 and 100 ms; browsers do the same.
pub(super) fn walk(source: &mut dyn Source, most: usize, name: &str) -> Result<Headers<Frame>, MediaError> {
    let failed = |error: std::io::Error| corrupt(name, "webp", error);
    let mut headers =
        Headers { width: 0, height: 0, frames: Vec::new(), delays_s: Vec::new(), longest: 0, complete: false };
    let length = bytes_left(source).map_err(failed)?;
    let Some(riff) = read::<12>(source).map_err(failed)? else {
        return Ok(headers);
    };
    let end = 8 + u64::from(u32::from_le_bytes([riff[4], riff[5], riff[6], riff[7]]));
    headers.complete = end <= length;
    let Some(chunk) = read::<18>(source).map_err(failed)?.filter(|chunk| &chunk[..4] == b"VP8X") else {
        return Ok(headers);
    };
    let three = |bytes: &[u8]| u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16;
    let (animated, clip_alpha) = (chunk[8] & 0x02 != 0, chunk[8] & 0x10 != 0);
    headers.width = three(&chunk[12..]) + 1;
    headers.height = three(&chunk[15..]) + 1;
    if !animated {
        return Ok(headers);
    }
    check_pixels(name, headers.width, headers.height)?;
    let padded = |bytes: u64| bytes + (bytes & 1);
    let mut budget = Budget::new(name);
    let mut at = 20 + padded(u64::from(u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]])));
    while at + 8 <= end.min(length) && headers.frames.len() < most {
        source.seek(SeekFrom::Start(at)).map_err(failed)?;
        let Some(head) = read::<8>(source).map_err(failed)? else {
            break;
        };
        let bytes = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        if &head[..4] == b"ANMF" {
            if bytes < FRAME_HEADER {
                return Err(corrupt(name, "webp", "found a frame without a header"));
            }
            let Some(frame) = read::<16>(source).map_err(failed)? else {
                break;
            };
            let rectangle = Rectangle {
                x: three(&frame[0..]) * 2,
                y: three(&frame[3..]) * 2,
                width: three(&frame[6..]) + 1,
                height: three(&frame[9..]) + 1,
            };
            if rectangle.on(headers.width, headers.height) != rectangle {
                return Err(corrupt(name, "webp", "found a frame outside the canvas"));
            }
            budget.frame(rectangle)?;
            // The chunks, the same as a file of its own, and the partitions inside.
            headers.longest = headers.longest.max(4 * bytes.min(length));
            headers.frames.push(Frame {
                rectangle,
                blend: frame[15] & 2 == 0,
                clear: frame[15] & 1 != 0,
                start: at + 8 + FRAME_HEADER,
                bytes: bytes - FRAME_HEADER,
                clip_alpha,
            });
            headers.delays_s.push(match three(&frame[12..]) {
                0..=10 => DEFAULT_DELAY_S,
                milliseconds => f64::from(milliseconds) / 1000.0,
            });
            headers.complete &= at + 8 + bytes <= length;
        }
        at += 8 + padded(bytes);
    }
    Ok(headers)
}

/// Decodes and draws.
pub(super) struct Player {
    source: Box<dyn Source>,
    name: String,
    clip_alpha: bool,
    /// The frame before, and whether it was drawn on an empty canvas.
    before: Option<(Frame, bool)>,
}

impl Player {
    pub(super) fn new(source: Box<dyn Source>, name: &str, _canvas: &Canvas) -> Result<Self, MediaError> {
        Ok(Self { source, name: name.to_owned(), clip_alpha: true, before: None })
    }

    /// The pixels of a frame, RGBA, and whether its data has transparency.
    fn decode(&mut self, frame: Frame) -> Result<(Vec<u8>, bool), MediaError> {
        let failed = |what: Box<dyn std::error::Error + Send + Sync>| corrupt(&self.name, "webp", what);
        self.source.seek(SeekFrom::Start(frame.start)).map_err(|error| failed(error.into()))?;
        let mut data = Vec::new();
        // The walk saw that the file has these bytes.
        (&mut self.source).take(frame.bytes).read_to_end(&mut data).map_err(|error| failed(error.into()))?;
        let still = still(&data, frame.rectangle).ok_or_else(|| failed("found a frame without an image".into()))?;
        let mut decoder = WebPDecoder::new(Cursor::new(still)).map_err(|error| failed(error.into()))?;
        let sides = (frame.rectangle.width, frame.rectangle.height);
        if decoder.dimensions() != sides {
            let (width, height) = decoder.dimensions();
            let what = format!("found {width} x {height} pixels in a frame of {} x {}", sides.0, sides.1);
            return Err(failed(what.into()));
        }
        let alpha = decoder.has_alpha();
        let pixels = frame.rectangle.pixels() as usize;
        let mut samples = vec![0; pixels * if alpha { 4 } else { 3 }];
        decoder.read_image(&mut samples).map_err(|error| failed(error.into()))?;
        if !alpha {
            samples = samples.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
        }
        Ok((samples, alpha))
    }
}

/// The chunks of a frame as a file of its own.
fn still(data: &[u8], sides: Rectangle) -> Option<Vec<u8>> {
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    let mut rest = data;
    loop {
        let head = rest.get(..8)?;
        let bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = rest[8..].get(..bytes)?;
        let kind = &head[..4];
        if kind == b"ALPH" && file.len() == 12 {
            file.extend_from_slice(b"VP8X\x0a\0\0\0\x10\0\0\0");
            file.extend_from_slice(&(sides.width - 1).to_le_bytes()[..3]);
            file.extend_from_slice(&(sides.height - 1).to_le_bytes()[..3]);
        }
        let image = kind == b"VP8 " || kind == b"VP8L";
        if image || kind == b"ALPH" {
            file.extend_from_slice(head);
            file.extend_from_slice(body);
            file.resize(file.len() + bytes % 2, 0);
        }
        if image {
            let length = file.len() as u32 - 8;
            file[4..8].copy_from_slice(&length.to_le_bytes());
            return Some(file);
        }
        rest = rest.get(8 + bytes + bytes % 2..)?;
    }
}

impl Play for Player {
    // A frame in RGBA twice, or planes and a transparency that is an image of its own.
    const HELD_BYTES: u64 = 0;
    const DECODING_BYTES: u64 = 16;
    type Frame = Frame;

    /// # Numerics
    /// Integers, equal to libwebp's: a frame on an empty canvas is copied and not blended, which its rounding would show.
    /// # Source
    /// libwebp 1.6, `src/demux/anim_decode.c`, as Pillow 13 uses it.
    fn draw(&mut self, _place: usize, frame: Frame, canvas: &mut Canvas) -> Result<(), MediaError> {
        let (samples, alpha) = self.decode(frame)?;
        self.clip_alpha = frame.clip_alpha;
        let whole = Rectangle { x: 0, y: 0, width: canvas.width, height: canvas.height };
        let empty = match self.before {
            None => true,
            Some((before, was_empty)) => {
                ((!alpha || !frame.blend) && frame.rectangle == whole)
                    || (before.clear && (before.rectangle == whole || was_empty))
            }
        };
        let cleared = self.before.filter(|(before, _)| before.clear).map(|(before, _)| before.rectangle);
        if empty {
            canvas.pixels.fill(0);
        } else if let Some(rectangle) = cleared {
            canvas.fill(rectangle, [0; 4]);
        }
        let blend = frame.blend && !empty;
        let columns = frame.rectangle.width as usize * 4;
        let rows = frame.rectangle.rows(canvas.width).zip(samples.chunks_exact(columns));
        for (y, (row, samples)) in (frame.rectangle.y..).zip(rows) {
            let row = &mut canvas.pixels[row];
            if !blend {
                row.copy_from_slice(samples);
                continue;
            }
            for (x, (below, above)) in (frame.rectangle.x..).zip(row.chunks_exact_mut(4).zip(samples.chunks_exact(4))) {
                if above[3] == 255 || cleared.is_some_and(|rectangle| rectangle.contains(x, y)) {
                    below.copy_from_slice(above);
                } else if above[3] != 0 {
                    blend_pixel(below, above);
                }
            }
        }
        self.before = Some((frame, empty));
        Ok(())
    }

    fn shown(&self, canvas: &Canvas) -> Vec<u8> {
        if self.clip_alpha { canvas.over_white() } else { canvas.without_alpha() }
    }
}

/// One pixel over another, neither multiplied by its alpha.
///
/// # Source
/// libwebp 1.6, `src/demux/anim_decode.c`, `BlendPixelNonPremult`.
fn blend_pixel(below: &mut [u8], above: &[u8]) {
    let front = u32::from(above[3]);
    let back = (u32::from(below[3]) * (256 - front)) >> 8;
    let alpha = front + back;
    let scale = (1 << 24) / alpha;
    for (below, above) in below[..3].iter_mut().zip(above) {
        *below = (((u32::from(*above) * front + u32::from(*below) * back) * scale) >> 24) as u8;
    }
    below[3] = alpha as u8;
}
