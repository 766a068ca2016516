//! Strips and tiles as they are packed in the file, into the bytes of their samples.
//!
//! Each decoder stops at the number of bytes that the sides of the image ask for, and fails where there are fewer.

use std::io::{Cursor, Read};

use flate2::{Decompress, FlushDecompress, Status};
use lzma_rust2::Lzma2Reader;
use ruzstd::decoding::StreamingDecoder;
use weezl::{BitOrder, LzwStatus};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::fault::{Fault, damaged, unsupported};
use crate::image::jpeg::{self, Colours, Refusal, Walk};

fn short(found: usize, expected: usize) -> Fault {
    damaged(format!("a strip or tile has {found} bytes, expected {expected}"))
}

/// LZW with codes from the high end of bytes, or, as of before TIFF 5, from the low one.
pub(super) fn lzw(raw: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    // The first code is the one that clears the table, 256 in nine bits: the byte that is zero shows the order.
    let old = matches!(raw, [0, second, ..] if second & 1 == 1);
    let mut decoder = if old {
        weezl::decode::Decoder::new(BitOrder::Lsb, 8)
    } else {
        weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8)
    };
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let step = decoder.decode_bytes(&raw[read..], &mut out[written..]);
        read += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) => break,
            Err(error) => return Err(damaged(format!("LZW: {error}"))),
        }
    }
    if written < out.len() { Err(short(written, out.len())) } else { Ok(()) }
}

/// Zlib.
pub(super) fn deflate(raw: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    let mut inflater = Decompress::new(true);
    loop {
        let (read, written) = (inflater.total_in() as usize, inflater.total_out() as usize);
        if written >= out.len() {
            return Ok(());
        }
        let status = inflater.decompress(&raw[read..], &mut out[written..], FlushDecompress::None);
        let status = status.map_err(|error| damaged(format!("deflate: {error}")))?;
        let after = (inflater.total_in() as usize, inflater.total_out() as usize);
        if after.1 < out.len() && (status == Status::StreamEnd || after == (read, written)) {
            return Err(short(after.1, out.len()));
        }
    }
}

/// Runs of bytes. One that is longer than what is missing is cut, as libtiff does.
pub(super) fn pack_bits(mut raw: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    let mut at = 0;
    while at < out.len() {
        let room = out.len() - at;
        match raw {
            [128, rest @ ..] => raw = rest,
            [head @ 0..=127, rest @ ..] if !rest.is_empty() => {
                let length = usize::from(*head) + 1;
                let found = &rest[..length.min(rest.len())];
                let taken = found.len().min(room);
                out[at..at + taken].copy_from_slice(&found[..taken]);
                at += taken;
                raw = &rest[found.len()..];
            }
            [head @ 129..=255, value, rest @ ..] => {
                let taken = (257 - usize::from(*head)).min(room);
                out[at..at + taken].fill(*value);
                at += taken;
                raw = rest;
            }
            _ => return Err(short(at, out.len())),
        }
    }
    Ok(())
}

/// Fills from a decoder of a whole stream.
fn fill(mut decoder: impl Read, out: &mut [u8], name: &str) -> Result<(), Fault> {
    let mut written = 0;
    while written < out.len() {
        match decoder.read(&mut out[written..]) {
            Ok(0) => return Err(short(written, out.len())),
            Ok(more) => written += more,
            Err(error) => return Err(damaged(format!("{name}: {error}"))),
        }
    }
    Ok(())
}

/// Zstandard. The window of the frame is made as small as the bytes that are wanted, since nothing reaches further
/// back: writers state up to 128 MiB for strips of some kilobytes, and it would be reserved.
pub(super) fn zstd(raw: &mut [u8], out: &mut [u8]) -> Result<(), Fault> {
    let needed = out.len().next_power_of_two().max(128 << 10);
    if let [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] = raw
        && *descriptor & 0x20 == 0
    {
        let smaller = ((needed.trailing_zeros() - 10) << 3) as u8;
        *window = smaller.min(*window);
    }
    let decoder = StreamingDecoder::new_with_max_window_size(&*raw, needed as u64);
    fill(decoder.map_err(|error| damaged(format!("Zstandard: {error}")))?, out, "Zstandard")
}

/// An XZ stream of LZMA2, with differences of bytes where the writer wanted them.
///
/// # Source
/// The .xz file format, version 1.2.1, sections 2.1.1, 3.1 and 5.3.
pub(super) fn lzma(raw: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    let broken = || damaged("LZMA: the header of the stream is not one of XZ");
    let [0xfd, b'7', b'z', b'X', b'Z', 0, _, _, _, _, _, _, block @ ..] = raw else { return Err(broken()) };
    let size = (usize::from(*block.first().ok_or_else(broken)?) + 1) * 4;
    let (head, packed) = block.split_at_checked(size).ok_or_else(broken)?;
    let flags = *head.get(1).ok_or_else(broken)?;
    let mut fields = &head[2..];
    let number = |fields: &mut &[u8]| {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = fields.split_first()?;
            *fields = rest;
            value |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Some(value);
            }
        }
        None
    };
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut fields).ok_or_else(broken)?;
        }
    }
    let mut distance = 0;
    let mut is_lzma2 = false;
    for _ in 0..=flags & 3 {
        let (id, size) = (number(&mut fields).ok_or_else(broken)?, number(&mut fields).ok_or_else(broken)?);
        let (property, rest) = fields.split_at_checked(size as usize).ok_or_else(broken)?;
        fields = rest;
        match (id, property) {
            (3, [stored]) if distance == 0 => distance = usize::from(*stored) + 1,
            (0x21, [_]) => is_lzma2 = true,
            _ => return Err(unsupported(format!("found an XZ stream with filter {id:#x}"))),
        }
    }
    if !is_lzma2 {
        return Err(broken());
    }
    // As for Zstandard: no reference reaches further back than the bytes that are wanted.
    let dictionary = out.len().next_multiple_of(16).clamp(4096, 1 << 30) as u32;
    fill(Lzma2Reader::new(packed, dictionary, None), out, "LZMA")?;
    if distance > 0 {
        for at in distance..out.len() {
            out[at] = out[at].wrapping_add(out[at - distance]);
        }
    }
    Ok(())
}

/// WebP, of three or four samples a pixel. An image of more than `most` samples is not decoded.
pub(super) fn webp(
    raw: &[u8],
    (width, rows): (u32, usize),
    samples: usize,
    most: usize,
    out: &mut [u8],
) -> Result<(), Fault> {
    let failed = |error| damaged(format!("WebP: {error}"));
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(raw)).map_err(failed)?;
    let (found_width, found_rows) = decoder.dimensions();
    if found_width != width || (found_rows as usize) < rows || found_rows as usize * found_width as usize * 3 > most {
        return Err(damaged(format!("WebP: found {found_width} x {found_rows} pixels, expected {width} x {rows}")));
    }
    let found = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; width as usize * found_rows as usize * found];
    decoder.read_image(&mut pixels).map_err(failed)?;
    for (to, from) in out.chunks_exact_mut(samples).zip(pixels.chunks_exact(found)) {
        to[..3].copy_from_slice(&from[..3]);
        if samples == 4 {
            to[3] = from.get(3).copied().unwrap_or(255);
        }
    }
    Ok(())
}

/// A JPEG with its components as they are stored, at full size and without a change of colours. One of more than `most`
/// samples is not decoded.
///
/// # Shapes
/// - `out`: `[rows, width, components]`
pub(super) fn jpeg_stream(
    tables: &[u8],
    raw: &[u8],
    (width, rows): (u32, usize),
    components: usize,
    most: usize,
    out: &mut [u8],
) -> Result<(), Fault> {
    // Tables lie between a start and an end of their own, and come before those of the strip.
    let mut whole = Vec::new();
    let stream = match (tables, raw) {
        ([0xff, 0xd8, tables @ ..], [0xff, 0xd8, rest @ ..]) => {
            whole.reserve_exact(tables.len() + raw.len());
            whole.extend([0xff, 0xd8]);
            whole.extend(tables.strip_suffix(&[0xff, 0xd9]).unwrap_or(tables));
            whole.extend(rest);
            &whole
        }
        _ => raw,
    };
    let walk = Walk::new(stream);
    let frame = match walk.frame() {
        Err(Refusal::Form(form)) => return Err(unsupported(format!("found {form} in a strip or tile"))),
        Err(Refusal::Damaged(damage)) => return Err(damaged(format!("JPEG: {damage}"))),
        Ok(None) => return Err(damaged("JPEG: the header of a strip or tile is missing")),
        Ok(Some(frame)) => frame,
    };
    if !walk.ends {
        return Err(damaged("JPEG: the end of a strip or tile is missing"));
    }
    let (found_width, found_rows) = (frame.width as usize, frame.height as usize);
    if frame.components.len() != components {
        return Err(damaged(format!("JPEG: found {} components, expected {components}", frame.components.len())));
    }
    if found_width < width as usize || found_rows < rows || found_width * found_rows * components > most {
        return Err(damaged(format!("JPEG: found {found_width} x {found_rows} pixels, expected {width} x {rows}")));
    }
    let pixels = if walk.usual() {
        let failed = |error| damaged(format!("JPEG: {error:?}"));
        let mut decoder = JpegDecoder::new(ZCursor::new(stream));
        decoder.decode_headers().map_err(failed)?;
        let colours = decoder.input_colorspace().ok_or_else(|| damaged("JPEG: the header has no components"))?;
        decoder.set_options(DecoderOptions::default().jpeg_set_out_colorspace(colours));
        decoder.decode().map_err(failed)?
    } else {
        jpeg::decode(stream, frame, Colours::Stored).map_err(|damage| damaged(format!("JPEG: {damage}")))?
    };
    if pixels.len() != found_width * found_rows * components {
        return Err(short(pixels.len(), found_width * found_rows * components));
    }
    let from = pixels.chunks_exact(found_width * components);
    for (to, from) in out.chunks_exact_mut(width as usize * components).zip(from) {
        to.copy_from_slice(&from[..to.len()]);
    }
    Ok(())
}
