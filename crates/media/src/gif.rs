//! The one thing about GIF that its decoder does not say: the colour of the screen where the first frame leaves it free.

use std::io::{BufRead, Seek, SeekFrom};

/// The colour that shows beside an opaque first frame: entry 0 of its palette. `None` where the frame has a transparent
/// colour, because then the free part of the screen is transparent too, and where the file breaks off.
///
/// # Source
/// Pillow 13, `GifImagePlugin.py`, `load_prepare`.
pub(crate) fn screen_colour(source: &mut (impl BufRead + Seek + ?Sized)) -> Option<[u8; 3]> {
    let header: [u8; 13] = read(source)?;
    let palette_bytes = |flags: u8| 3_i64 << ((flags & 7) + 1);
    let mut colour = [0; 3];
    if header[10] & 0x80 != 0 {
        colour = read(source)?;
        source.seek(SeekFrom::Current(palette_bytes(header[10]) - 3)).ok()?;
    }
    let mut transparent = false;
    loop {
        match read(source)? {
            // An extension; the graphic control of the frame tells whether it has a transparent colour.
            [0x21] => {
                let [label]: [u8; 1] = read(source)?;
                loop {
                    let [length]: [u8; 1] = read(source)?;
                    if length == 0 {
                        break;
                    }
                    let [flags]: [u8; 1] = read(source)?;
                    if label == 0xf9 {
                        transparent = flags & 1 != 0;
                    }
                    source.seek(SeekFrom::Current(i64::from(length) - 1)).ok()?;
                }
            }
            // The frame, with a palette of its own perhaps.
            [0x2c] => {
                let frame: [u8; 9] = read(source)?;
                if frame[8] & 0x80 != 0 {
                    colour = read(source)?;
                }
                return (!transparent).then_some(colour);
            }
            _ => return None,
        }
    }
}

/// The next bytes, if there are as many.
fn read<const N: usize>(source: &mut (impl BufRead + ?Sized)) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
