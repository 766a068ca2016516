//! What the fast decoder does not read rightly in a baseline image of a usual form, found in one pass over its codes.
//!
//! - Where chroma is coarse and a side ends inside a unit, the outermost column or row of the image has a neighbour in the
//!   padding of the file. libjpeg never looks at it; the fast decoder does, which shows where the padding does not repeat the
//!   edge, as in files that `jpegtran -crop` wrote: up to 49 levels.
//! - An image that ends inside its scan, with its end marker, is filled up as [`super::decode`] says.
//!
//! Both are made here, by the arithmetic of our own decoder, and put into the pixels of the fast one.

use super::decode::{codes_of, each_unit, first_scan};
use super::frame::{Damage, Frame, ScanHead, extent};
use super::huffman::Huffman;
use super::pixels::{Colours, Plane, from_differences, transformed, widened};

/// Pixels that take the place of others.
#[derive(Default)]
pub(crate) struct Border {
    /// The last column, packed RGB.
    right: Option<Vec<u8>>,
    /// The last row.
    bottom: Option<Vec<u8>>,
    end: Option<Strip>,
}

/// Rows around the unit that the image ended in. Those below are grey.
struct Strip {
    first_row: usize,
    pixels: Vec<u8>,
}

/// The samples of the last column or row, for each component.
type Edge = Vec<Vec<u8>>;

impl Border {
    /// Goes over the codes of the only scan, which has all components in their order.
    ///
    /// # Errors
    /// Damage other than an end of the image inside the scan.
    pub(crate) fn read(bytes: &[u8], frame: &Frame, colours: Colours) -> Result<Self, Damage> {
        let (scan, tables, at) = first_scan(bytes, frame)?;
        let mut coder = Huffman::new(bytes, at, codes_of(frame, &scan, &tables)?);
        let quantisers: Result<Vec<_>, _> =
            (0..frame.components.len()).map(|component| tables.quantiser(frame, component)).collect();
        let quantisers = quantisers?;
        let (wide, high) = frame.units();
        let most = frame.most();
        let ends_inside = |side: u32, factor: u8| factor == 2 && side.is_multiple_of(2) && !side.is_multiple_of(16);
        let (has_right, has_bottom) = (ends_inside(frame.width, most.0), ends_inside(frame.height, most.1));
        let lines = |units: usize, factor: fn((usize, usize)) -> usize| -> Edge {
            frame.components.iter().map(|one| vec![0; units * factor(one.factors()) * 8]).collect()
        };
        let mut right = lines(high, |factors| factors.1);
        let mut bottom = lines(wide, |factors| factors.0);
        let mut end = None;
        each_unit((wide, high), tables.interval, &mut coder, |coder, x, y| {
            let ended = coder.ended();
            let kept = (has_right && x + 1 == wide, has_bottom && y + 1 == high);
            for (slot, part) in scan.parts.iter().enumerate() {
                let index = part.component;
                let (across, down) = frame.components[index].factors();
                for (v, h) in (0..down).flat_map(|v| (0..across).map(move |h| (v, h))) {
                    if kept == (false, false) {
                        if !ended {
                            coder.pass(slot)?;
                        }
                        continue;
                    }
                    let mut block = [0; 64];
                    if !ended {
                        coder.whole(slot, &mut block)?;
                    }
                    let samples = transformed(&block, &quantisers[index]);
                    let (column, row) = (x * across + h, y * down + v);
                    let (last_x, last_y) = extent(frame, index);
                    let (last_x, last_y) = (last_x - 1, last_y - 1);
                    if kept.0 && column == last_x / 8 {
                        for (r, line) in samples.iter().enumerate() {
                            right[index][row * 8 + r] = line[last_x % 8];
                        }
                    }
                    if kept.1 && row == last_y / 8 {
                        bottom[index][column * 8..][..8].copy_from_slice(&samples[last_y % 8]);
                    }
                }
            }
            if coder.ended() {
                end.get_or_insert(y);
            }
            Ok(())
        })?;
        let end = match end {
            Some(row) => Some(Strip::read(bytes, frame, colours, row)?),
            None => None,
        };
        Ok(Self {
            right: has_right.then(|| right_pixels(frame, &right)),
            bottom: has_bottom.then(|| bottom_pixels(frame, &bottom)),
            end,
        })
    }

    /// Puts it into packed RGB rows.
    pub(crate) fn put(&self, pixels: &mut [u8], width: usize) {
        if let Some(Strip { first_row, pixels: strip }) = &self.end {
            let (_, rest) = pixels.split_at_mut(first_row * width * 3);
            let (rows, below) = rest.split_at_mut(strip.len());
            rows.copy_from_slice(strip);
            below.fill(128);
        }
        if let Some(right) = &self.right {
            for (row, pixel) in pixels.chunks_exact_mut(width * 3).zip(right.as_chunks::<3>().0) {
                row[width * 3 - 3..].copy_from_slice(pixel);
            }
        }
        if let Some(bottom) = &self.bottom {
            let from = pixels.len() - width * 3;
            pixels[from..].copy_from_slice(bottom);
        }
    }
}

/// The last column. Chroma is half as wide, and what lies beyond its last sample is that sample.
fn right_pixels(frame: &Frame, edge: &Edge) -> Vec<u8> {
    let halved = frame.most().1 == 2;
    let chroma = |index: usize, y: usize| {
        let (line, last) = (&edge[index], extent(frame, index).1 - 1);
        if !halved {
            return line[y];
        }
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(last) };
        ((4 * (3 * u16::from(line[near]) + u16::from(line[far])) + 7) >> 4) as u8
    };
    (0..frame.height as usize).flat_map(|y| from_differences(edge[0][y], chroma(1, y), chroma(2, y))).collect()
}

/// The last row. Chroma is half as high, and what lies beyond its last sample is that sample.
fn bottom_pixels(frame: &Frame, edge: &Edge) -> Vec<u8> {
    let width = frame.width as usize;
    let chroma = |index: usize| {
        let line = &edge[index][..extent(frame, index).0];
        if frame.most().0 == 1 {
            return line.to_vec();
        }
        let sums: Vec<u16> = line.iter().map(|sample| 4 * u16::from(*sample)).collect();
        let mut out = vec![0; width];
        widened(&sums, [8, 7], 4, &mut out);
        out
    };
    let (blue, red) = (chroma(1), chroma(2));
    (0..width).flat_map(|x| from_differences(edge[0][x], blue[x], red[x])).collect()
}

impl Strip {
    /// Decodes the row of units that the image ended in, with those above and below it, whose chroma reaches into it.
    fn read(bytes: &[u8], frame: &Frame, colours: Colours, ended: usize) -> Result<Self, Damage> {
        let (scan, tables, at) = first_scan(bytes, frame)?;
        let mut coder = Huffman::new(bytes, at, codes_of(frame, &scan, &tables)?);
        let (wide, high) = frame.units();
        let unit = 8 * usize::from(frame.most().1);
        let (from, to) = (ended.saturating_sub(1), (ended + 2).min(high));
        let all_rows = frame.height as usize;
        let rows = (to * unit).min(all_rows) - from * unit;
        let part = Frame { height: rows as u32, ..frame.clone() };
        let mut planes: Vec<Plane> = (0..frame.components.len()).map(|index| Plane::new(&part, index)).collect();
        for (index, plane) in planes.iter_mut().enumerate() {
            plane.quantiser = Some(tables.quantiser(frame, index)?);
        }
        each_unit((wide, high), tables.interval, &mut coder, |coder, x, y| {
            put_unit(coder, &scan, &mut planes, x, y, from..to)
        })?;
        let pixels = colours.pixels(&part, planes);
        let first_row = (ended * unit).saturating_sub(1);
        let end_row = ((ended + 1) * unit + 1).min(all_rows);
        let row_bytes = frame.width as usize * 3;
        let at = (first_row - from * unit) * row_bytes;
        Ok(Self { first_row, pixels: pixels[at..at + (end_row - first_row) * row_bytes].to_vec() })
    }
}

/// Decodes a unit into planes that begin with the first of some rows of units; units of other rows are passed.
fn put_unit(
    coder: &mut Huffman<'_>,
    scan: &ScanHead,
    planes: &mut [Plane],
    x: usize,
    y: usize,
    rows: std::ops::Range<usize>,
) -> Result<(), Damage> {
    let ended = coder.ended();
    for (slot, part) in scan.parts.iter().enumerate() {
        let plane = &mut planes[part.component];
        let (across, down) = plane.factors;
        for (v, h) in (0..down).flat_map(|v| (0..across).map(move |h| (v, h))) {
            if !rows.contains(&y) {
                if !ended {
                    coder.pass(slot)?;
                }
                continue;
            }
            let mut block = [0; 64];
            if !ended {
                coder.whole(slot, &mut block)?;
            }
            plane.put(x * across + h, (y - rows.start) * down + v, &block);
        }
    }
    Ok(())
}
