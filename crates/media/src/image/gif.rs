//! Two things about GIF that its decoder does not say: the colour of the screen where the first frame leaves it free, and
//! whether the frame fits the screen.

use std::io::{BufRead, Seek, SeekFrom};

/// What is read of a file before its decoder.
#[derive(Default)]
pub(crate) struct FirstFrame {
    /// The colour that shows beside an opaque first frame: entry 0 of its palette. `None` where the frame has a transparent
    /// colour, because then the free part of the screen is transparent too, and where the file breaks off.
    pub(crate) colour: Option<[u8; 3]>,
    /// Sides of a screen that the frame lies in as a whole; zero where there is no frame.
    pub(crate) reach: [u32; 2],
}

/// Reads up to the first frame. Leaves the source anywhere.
///
/// # Source
/// Pillow 13, `GifImagePlugin.py`, `load_prepare`; `_seek`: a screen that the frame does not fit in grows.
pub(crate) fn first_frame(source: &mut (impl BufRead + Seek + ?Sized)) -> FirstFrame {
    walk(source).unwrap_or_default()
}

fn walk(source: &mut (impl BufRead + Seek + ?Sized)) -> Option<FirstFrame> {
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
                let reach = [0, 2].map(|at| {
                    let number = |at: usize| u32::from(u16::from_le_bytes([frame[at], frame[at + 1]]));
                    number(at) + number(at + 4)
                });
                return Some(FirstFrame { colour: (!transparent).then_some(colour), reach });
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
