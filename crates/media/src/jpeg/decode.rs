//! A decoder for the forms of JPEG that the fast one does not read rightly: any order of scans, any sampling factors,
//! tables left out. ITU-T T.81; section numbers below are its own.
//!
//! Decoded samples are those of libjpeg-turbo's accurate integer transform with its triangle upsampling, to the bit:
//! what Pillow gives. Damaged data is an error and is never filled up, unlike there.
//!
//! # Why it exists
//! Measured in 2026-11 on 338 files of every sampling factor and order of scans that `cjpeg` writes, against `djpeg`:
//! zune-jpeg 0.5.15 reads 131 (within 9 levels) and gives 50 wrong images; jpeg-decoder 0.3.2 reads 265 and 24 wrong;
//! libjpeg-turbo-rs 0.9.0 reads 254 (equal), 21 wrong, refuses chroma finer than luma and
//! two components in a scan, and says of itself that its memory safety is not settled.

use super::huffman::{Huffman, HuffmanTable, default_tables};
use super::pixels::{Colours, Plane};
use super::{Frame, ScanHead, marker_after};

/// What is wrong with the bytes.
pub(crate) type Damage = &'static str;

/// Positions of coefficients in the order of the file: 4.3, Figure A.6.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The coefficients of a block, in rows.
pub(super) type Block = [i16; 64];

/// The part of the coefficients that a scan has, and how many low bits are left out of them.
#[derive(Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) shift: u8,
}

/// One of the two ways that coefficients are coded; `slot` is the place of the component in its scan.
pub(super) trait Entropy {
    /// All coefficients of a block.
    fn whole(&mut self, slot: usize, block: &mut Block) -> Result<(), Damage>;
    /// The mean of a block for the first time.
    fn mean(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage>;
    /// One more bit of the mean.
    fn mean_bit(&mut self, block: &mut Block, band: Band) -> Result<(), Damage>;
    /// Other coefficients for the first time.
    fn others(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage>;
    /// One more bit of other coefficients.
    fn others_bit(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage>;
    /// Passes the restart marker of this number and begins anew.
    fn restart(&mut self, number: u8) -> Result<(), Damage>;
    /// Where the coded data end, at the latest.
    fn position(&self) -> usize;
}

/// Tables as they stand when a scan begins.
struct Tables {
    quantisers: [Option<[u16; 64]>; 4],
    means: [Option<HuffmanTable>; 4],
    others: [Option<HuffmanTable>; 4],
    /// Units between two restart markers; zero for none.
    interval: u32,
}

/// Decodes an image whose frame was checked by [`super::Walk`], to packed RGB.
pub(crate) fn decode(bytes: &[u8], frame: &Frame, colours: Colours) -> Result<Vec<u8>, Damage> {
    let mut planes: Vec<Plane> = (0..frame.components.len()).map(|index| Plane::new(frame, index)).collect();
    let mut tables =
        Tables { quantisers: [None; 4], means: Default::default(), others: Default::default(), interval: 0 };
    let mut at = 2;
    loop {
        let (marker, after) = marker_after(bytes, at).ok_or("the end of the image is missing")?;
        at = after;
        match marker {
            0xd9 => break,
            0xd8 => return Err("a second image begins inside the first"),
            0x01 | 0xd0..=0xd7 => continue,
            _ => {}
        }
        let length = match bytes.get(at..at + 2) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => return Err("a segment is cut short"),
        };
        let body = bytes.get(at + 2..at + length.max(2)).ok_or("a segment is cut short")?;
        at += length.max(2);
        match marker {
            0xdb => read_quantisers(body, &mut tables.quantisers)?,
            0xc4 => read_codes(body, &mut tables)?,
            0xdd => match body {
                [high, low] => tables.interval = u32::from(u16::from_be_bytes([*high, *low])),
                _ => return Err("the restart interval is cut short"),
            },
            0xda => {
                let scan = ScanHead::read(body, frame)?;
                at = read_scan(bytes, at, frame, &scan, &tables, &mut planes)?;
            }
            _ => {}
        }
    }
    if planes.iter().any(|plane| !plane.seen) {
        return Err("a component has no scan");
    }
    Ok(colours.pixels(frame, planes))
}

/// Quantisation tables: B.2.4.1.
fn read_quantisers(mut body: &[u8], quantisers: &mut [Option<[u16; 64]>; 4]) -> Result<(), Damage> {
    while let [head, rest @ ..] = body {
        let (wide, place) = (head >> 4, usize::from(head & 15));
        let bytes = match wide {
            0 => 64,
            1 => 128,
            _ => return Err("a quantisation table is neither of 8 nor of 16 bits"),
        };
        let (Some(values), Some(quantiser)) = (rest.get(..bytes), quantisers.get_mut(place)) else {
            return Err("a quantisation table is cut short");
        };
        let mut table = [0; 64];
        for (index, value) in values.chunks_exact(bytes / 64).enumerate() {
            table[usize::from(ZIGZAG[index])] = value.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
        }
        *quantiser = Some(table);
        body = &rest[bytes..];
    }
    Ok(())
}

/// Huffman tables: B.2.4.2.
fn read_codes(mut body: &[u8], tables: &mut Tables) -> Result<(), Damage> {
    while let [head, rest @ ..] = body {
        let kind = match head >> 4 {
            0 => &mut tables.means,
            1 => &mut tables.others,
            _ => return Err("a table of codes is of no kind that exists"),
        };
        let counts = rest.first_chunk::<16>().ok_or("a table of codes is cut short")?;
        let sum = counts.iter().map(|count| usize::from(*count)).sum::<usize>();
        let (Some(symbols), Some(table)) = (rest.get(16..16 + sum), kind.get_mut(usize::from(head & 15))) else {
            return Err("a table of codes is cut short");
        };
        *table = Some(HuffmanTable::new(counts, symbols)?);
        body = &rest[16 + sum..];
    }
    Ok(())
}

/// Decodes the coded data of a scan and gives the position behind them.
fn read_scan(
    bytes: &[u8],
    at: usize,
    frame: &Frame,
    scan: &ScanHead,
    tables: &Tables,
    planes: &mut [Plane],
) -> Result<usize, Damage> {
    for part in &scan.parts {
        let plane = &mut planes[part.component];
        if plane.seen && !frame.progressive {
            return Err("a component has two scans");
        }
        plane.seen = true;
        // The table of a component is the one that stands when its first scan begins.
        if plane.quantiser.is_none() {
            let place = usize::from(frame.components[part.component].quantiser);
            plane.quantiser = *tables.quantisers.get(place).ok_or("a component names no quantisation table")?;
            if plane.quantiser.is_none() {
                return Err("a quantisation table is missing");
            }
        }
    }
    // Frames of Motion JPEG leave the tables of K.3 out.
    let defaults = default_tables();
    let pick = |kind: &[Option<HuffmanTable>; 4], defaults: &[HuffmanTable; 2], place: u8| {
        let place = usize::from(place);
        let default = if frame.progressive { None } else { defaults.get(place) };
        kind.get(place).and_then(Option::as_ref).or(default).cloned()
    };
    let mut codes = Vec::with_capacity(scan.parts.len());
    for part in &scan.parts {
        let mean = pick(&tables.means, &defaults.0, part.mean_table);
        let others = pick(&tables.others, &defaults.1, part.others_table);
        // A scan of a progressive image needs one of the two, or none.
        let needs_mean = !frame.progressive || (scan.first == 0 && scan.seen_bits == 0);
        let needs_others = !frame.progressive || scan.first > 0;
        if (needs_mean && mean.is_none()) || (needs_others && others.is_none()) {
            return Err("a table of codes is missing");
        }
        codes.push((mean.unwrap_or_default(), others.unwrap_or_default()));
    }
    let mut coder = Huffman::new(bytes, at, codes);
    read_units(frame, scan, tables.interval, planes, &mut coder)
}

/// Every unit of a scan: the blocks of one component, or interleaved those of several (A.2).
fn read_units<E: Entropy>(
    frame: &Frame,
    scan: &ScanHead,
    interval: u32,
    planes: &mut [Plane],
    coder: &mut E,
) -> Result<usize, Damage> {
    let interleaved = scan.parts.len() > 1;
    let (wide, high) = if interleaved { frame.units() } else { planes[scan.parts[0].component].blocks };
    let band = Band { first: usize::from(scan.first), last: usize::from(scan.last), shift: scan.shift };
    let (mut left, mut number) = (interval, 0);
    for y in 0..high {
        for x in 0..wide {
            if interval > 0 {
                if left == 0 {
                    coder.restart(number)?;
                    number = (number + 1) & 7;
                    left = interval;
                }
                left -= 1;
            }
            for (slot, part) in scan.parts.iter().enumerate() {
                let plane = &mut planes[part.component];
                let (across, down) = if interleaved { plane.factors } else { (1, 1) };
                for (v, h) in (0..down).flat_map(|v| (0..across).map(move |h| (v, h))) {
                    let (column, row) = (x * across + h, y * down + v);
                    if !frame.progressive {
                        let mut block = [0; 64];
                        coder.whole(slot, &mut block)?;
                        plane.put(column, row, &block);
                        continue;
                    }
                    let block = plane.block(column, row);
                    match (scan.first, scan.seen_bits) {
                        (0, 0) => coder.mean(slot, block, band)?,
                        (0, _) => coder.mean_bit(block, band)?,
                        (_, 0) => coder.others(slot, block, band)?,
                        _ => coder.others_bit(slot, block, band)?,
                    }
                }
            }
        }
    }
    Ok(coder.position())
}
