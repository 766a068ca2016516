//! The headers of an image and of a scan, and the markers between them: ITU-T T.81, B.1 and B.2.

use memchr::memchr;

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

/// A component of a frame: B.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(super) id: u8,
    /// Samples across and down, relative to the other components: 1 to 4.
    pub(super) across: u8,
    pub(super) down: u8,
    /// The place of its quantisation table.
    pub(super) quantiser: u8,
}

impl Component {
    /// Samples across and down, relative to the other components.
    pub(super) fn factors(&self) -> (usize, usize) {
        (usize::from(self.across), usize::from(self.down))
    }
}

/// The header of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) components: Vec<Component>,
    pub(crate) progressive: bool,
}

impl Frame {
    /// The largest sampling factors.
    pub(super) fn most(&self) -> (u8, u8) {
        self.components.iter().fold((1, 1), |most, one| (most.0.max(one.across), most.1.max(one.down)))
    }

    /// Units of interleaved blocks in a row, and rows of them.
    pub(super) fn units(&self) -> (usize, usize) {
        let most = self.most();
        let units = |side: u32, factor: u8| (side as usize).div_ceil(8 * usize::from(factor));
        (units(self.width, most.0), units(self.height, most.1))
    }

    /// Samples of all components in whole units.
    pub(super) fn samples(&self) -> u64 {
        let units = self.units();
        let of_unit: u64 = self.components.iter().map(|one| u64::from(one.across) * u64::from(one.down) * 64).sum();
        units.0 as u64 * units.1 as u64 * of_unit
    }
}

/// Sides of a component in samples: A.1.1.
pub(super) fn extent(frame: &Frame, index: usize) -> (usize, usize) {
    let (most, one) = (frame.most(), &frame.components[index]);
    let side = |side: u32, factor: u8, most: u8| (side as usize * usize::from(factor)).div_ceil(usize::from(most));
    (side(frame.width, one.across, most.0), side(frame.height, one.down, most.1))
}

/// A component in a scan, and the places of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanPart {
    pub(super) component: usize,
    pub(super) mean_table: u8,
    pub(super) others_table: u8,
}

/// The header of a scan: B.2.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScanHead {
    pub(super) parts: Vec<ScanPart>,
    /// First and last coefficient.
    pub(super) first: u8,
    pub(super) last: u8,
    /// The lowest bit that scans before this one gave, or zero; and the lowest bit of this one.
    pub(super) seen_bits: u8,
    pub(super) shift: u8,
}

impl ScanHead {
    pub(super) fn read(body: &[u8], frame: &Frame) -> Result<Self, Damage> {
        let (count, rest) = body.split_first().ok_or("the header of a scan is cut short")?;
        let count = usize::from(*count);
        let (Some(pairs), Some(&[first, last, bits])) = (rest.get(..2 * count), rest.get(2 * count..2 * count + 3))
        else {
            return Err("the header of a scan is cut short");
        };
        if !(1..=4).contains(&count) {
            return Err("a scan has neither one to four components");
        }
        let mut parts: Vec<ScanPart> = Vec::with_capacity(count);
        for pair in pairs.chunks_exact(2) {
            let fresh = |index: &usize| parts.iter().all(|part| part.component != *index);
            let found = (0..frame.components.len()).filter(fresh).find(|index| frame.components[*index].id == pair[0]);
            let component = found.ok_or("a scan names a component that the frame does not have")?;
            let (mean_table, others_table) = (pair[1] >> 4, pair[1] & 15);
            if mean_table > 3 || others_table > 3 {
                return Err("a scan names a table that does not exist");
            }
            parts.push(ScanPart { component, mean_table, others_table });
        }
        let blocks = |part: &ScanPart| {
            let component = &frame.components[part.component];
            u32::from(component.across) * u32::from(component.down)
        };
        if count > 1 && parts.iter().map(blocks).sum::<u32>() > 10 {
            return Err("a scan has more than ten blocks in a unit");
        }
        let (seen_bits, shift) = (bits >> 4, bits & 15);
        if frame.progressive {
            // G.1.1.1.1: means apart from other coefficients, those of one component each, and one bit after the other.
            let band = if first == 0 { last == 0 } else { first <= last && last < 64 && count == 1 };
            if !band || shift > 13 || (seen_bits > 0 && seen_bits != shift + 1) {
                return Err("a scan has a part of the coefficients that does not exist");
            }
        }
        Ok(Self { parts, first, last, seen_bits, shift })
    }
}

/// The next marker from a position on, and the position behind it. Bytes before it, and fill bytes, are passed.
pub(super) fn marker_after(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += memchr(0xff, bytes.get(at..)?)? + 1;
        match bytes.get(at)? {
            // A byte of data.
            0x00 => at += 1,
            0xff => {}
            marker => return Some((*marker, at + 1)),
        }
    }
}
