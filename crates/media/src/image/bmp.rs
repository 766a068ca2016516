//! BMP files of 16 bits a pixel, whose five and six bits Pillow widens in its own way.
//!
//! All others are left to `image`, whose result for them is Pillow's.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// The header of such a file.
pub(crate) struct Words {
    pub(crate) width: u32,
    pub(crate) height: u32,
    top_down: bool,
    /// Where the rows begin.
    begin: u32,
    /// Bits of green; red and blue have five.
    green_bits: u32,
}

/// The header of a file of 16 bits a pixel with five or six bits of green; `None` for any other. Leaves the source
/// anywhere.
///
/// # Source
/// Pillow 13, `BmpImagePlugin.py`, `_bitmap`: a mask of alpha is not obeyed there.
pub(crate) fn words(source: &mut (impl BufRead + Seek + ?Sized)) -> io::Result<Option<Words>> {
    let mut head = Vec::new();
    source.seek(SeekFrom::Start(0))?;
    source.take(66).read_to_end(&mut head)?;
    let number = |at: usize| head.get(at..at + 4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
    let (Some(begin), Some(size), Some(width), Some(height), Some(form), Some(packing)) =
        (number(10), number(14), number(18), number(22), number(26), number(30))
    else {
        return Ok(None);
    };
    // One plane, 16 bits.
    if !matches!(size, 40 | 52 | 56 | 108 | 124) || form != 0x0010_0001 {
        return Ok(None);
    }
    let masks = [number(54), number(58), number(62)];
    let green_bits = match (packing, masks) {
        (0, _) => 5,
        (3, [Some(0x7c00), Some(0x03e0), Some(0x001f)]) => 5,
        (3, [Some(0xf800), Some(0x07e0), Some(0x001f)]) => 6,
        _ => return Ok(None),
    };
    let begin = match begin {
        // Masks of the shortest header stand behind it.
        0 => 14 + size + if size == 40 && packing == 3 { 12 } else { 0 },
        begin => begin,
    };
    let top_down = (height as i32) < 0;
    Ok(Some(Words { width, height: (height as i32).unsigned_abs(), top_down, begin, green_bits }))
}

impl Words {
    /// Packed red, green and blue. The sides are the caller's to check.
    ///
    /// # Numerics
    /// Times 255 and divided by 31 or 63, cut: Pillow 13, `Unpack.c`, `BGR;15` and `BGR;16`.
    pub(crate) fn pixels(&self, source: &mut (impl BufRead + Seek + ?Sized)) -> io::Result<Vec<u8>> {
        let row_bytes = self.width as usize * 3;
        let mut pixels = vec![0; row_bytes * self.height as usize];
        // Rows are filled up to four bytes.
        let mut row = vec![0; (self.width as usize * 2).next_multiple_of(4)];
        source.seek(SeekFrom::Start(u64::from(self.begin)))?;
        let most_green = (1 << self.green_bits) - 1;
        for y in 0..self.height as usize {
            source.read_exact(&mut row)?;
            let y = if self.top_down { y } else { self.height as usize - 1 - y };
            let out = pixels[y * row_bytes..][..row_bytes].as_chunks_mut::<3>().0;
            for (out, word) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                let word = u32::from(u16::from_le_bytes(*word));
                let (blue, green, red) = (word & 31, (word >> 5) & most_green, (word >> (5 + self.green_bits)) & 31);
                *out = [red * 255 / 31, green * 255 / most_green, blue * 255 / 31].map(|sample| sample as u8);
            }
        }
        Ok(pixels)
    }
}
