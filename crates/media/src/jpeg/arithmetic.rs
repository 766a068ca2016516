//! Arithmetic coding of coefficients: Annex D, F.1.4, F.2.4 and G.1.3.

use super::ScanHead;
use super::decode::{Band, Block, Damage, Entropy, ZIGZAG};
use super::huffman::pass_restart;

/// What the file says of the conditions that bits are coded under: F.1.4.4.1.2 and F.1.4.4.2.1, with their defaults.
pub(super) struct Conditioning {
    /// Differences of means up to `2^lower` count as none, and beyond `2^upper` as large.
    means: [(u8, u8); 4],
    /// The last coefficient of low frequency.
    others: [u8; 4],
}

impl Default for Conditioning {
    fn default() -> Self {
        Self { means: [(0, 1); 4], others: [5; 4] }
    }
}

impl Conditioning {
    /// The segment of B.2.4.3.
    pub(super) fn read(&mut self, body: &[u8]) -> Result<(), Damage> {
        for pair in body.chunks(2) {
            let [place, value] = *pair else { return Err("arithmetic conditioning is cut short") };
            let (class, place) = (place >> 4, usize::from(place & 15));
            let (lower, upper) = (value & 15, value >> 4);
            match class {
                0 if place < 4 && lower <= upper => self.means[place] = (lower, upper),
                1 if place < 4 && (1..64).contains(&value) => self.others[place] = value,
                _ => return Err("arithmetic conditioning has values that do not exist"),
            }
        }
        Ok(())
    }
}

/// Bins of one table of means: Table F.4.
const MEAN_BINS: usize = 49;
/// Bins of one table of other coefficients: Table F.5.
const OTHER_BINS: usize = 245;
/// The state of the bin that is always even: the last one of [`STATES`].
const EVEN: u8 = 113;

/// The registers of the decoder: D.2.1, Table D.1.
struct Registers<'a> {
    bytes: &'a [u8],
    at: usize,
    code: u32,
    /// The width of the interval.
    interval: u32,
    /// Shifts until the next byte is needed.
    shifts: u32,
}

impl<'a> Registers<'a> {
    /// D.2.7.
    fn new(bytes: &'a [u8], at: usize) -> Self {
        let mut new = Self { bytes, at, code: 0, interval: 0x1_0000, shifts: 0 };
        for _ in 0..2 {
            new.byte_in();
            new.code <<= 8;
        }
        new
    }

    /// D.2.6. The coder leaves zeros at the end of its data out, so they are put in before a marker.
    fn byte_in(&mut self) {
        // Fill bytes before a marker, or before the zero that says that there is none.
        while let Some([0xff, 0xff]) = self.bytes.get(self.at..self.at + 2) {
            self.at += 1;
        }
        let byte: u32 = match self.bytes.get(self.at..).unwrap_or_default() {
            [0xff, 0x00, ..] => {
                self.at += 2;
                0xff
            }
            [] | [0xff, ..] => 0,
            [byte, ..] => {
                self.at += 1;
                u32::from(*byte)
            }
        };
        self.code += byte << 8;
    }

    /// One bit under the condition of a bin, which holds its state and, in its highest bit, the likely value: D.2.2 to
    /// D.2.5.
    fn bit(&mut self, bin: &mut u8) -> bool {
        let (state, likely) = (*bin & 0x7f, *bin & 0x80);
        let (width, after_unlikely, after_likely, switches) = STATES[usize::from(state)];
        self.interval -= width;
        let unlikely = if self.code >> 16 < self.interval {
            if self.interval >= 0x8000 {
                return likely != 0;
            }
            self.interval < width
        } else {
            self.code -= self.interval << 16;
            let unlikely = self.interval >= width;
            self.interval = width;
            unlikely
        };
        *bin = match (unlikely, switches) {
            (false, _) => likely | after_likely,
            (true, false) => likely | after_unlikely,
            (true, true) => (likely ^ 0x80) | after_unlikely,
        };
        while self.interval < 0x8000 {
            if self.shifts == 0 {
                self.byte_in();
                self.shifts = 8;
            }
            self.interval <<= 1;
            self.code <<= 1;
            self.shifts -= 1;
        }
        (likely != 0) != unlikely
    }

    /// A bit that is one as often as zero.
    fn even_bit(&mut self) -> bool {
        self.bit(&mut { EVEN })
    }

    /// The rest of a magnitude whose category is known: bits below the highest one, in the bin of the category.
    /// Figure F.24.
    fn rest(&mut self, highest: i32, bin: &mut u8) -> i32 {
        let (mut value, mut bit) = (highest, highest >> 1);
        while bit > 0 {
            if self.bit(bin) {
                value |= bit;
            }
            bit >>= 1;
        }
        value
    }
}

/// The decoder of one scan.
pub(super) struct Arithmetic<'a> {
    registers: Registers<'a>,
    means: [[u8; MEAN_BINS]; 4],
    others: [[u8; OTHER_BINS]; 4],
    /// Of each component of the scan.
    parts: Vec<Part>,
}

struct Part {
    mean_table: usize,
    others_table: usize,
    /// Differences below count as none, and beyond as large.
    lower: i32,
    upper: i32,
    low_frequencies: usize,
    /// The mean of the block before, and the bins that the difference before it leads to.
    before: i32,
    context: usize,
}

/// Larger categories do not exist.
const MOST: i32 = 0x8000;

impl<'a> Arithmetic<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, conditioning: &Conditioning, scan: &ScanHead) -> Self {
        let parts = scan.parts.iter().map(|part| {
            // `ScanHead` lets no more than four tables through.
            let (mean_table, others_table) = (usize::from(part.mean_table), usize::from(part.others_table));
            let (lower, upper) = conditioning.means[mean_table];
            let low_frequencies = usize::from(conditioning.others[others_table]);
            let (lower, upper) = ((1 << lower) >> 1, (1 << upper) >> 1);
            Part { mean_table, others_table, lower, upper, low_frequencies, before: 0, context: 0 }
        });
        Self {
            registers: Registers::new(bytes, at),
            means: [[0; MEAN_BINS]; 4],
            others: [[0; OTHER_BINS]; 4],
            parts: parts.collect(),
        }
    }

    /// F.2.4.1 and Figures F.19 to F.24.
    fn next_mean(&mut self, slot: usize) -> Result<i32, Damage> {
        let (part, registers) = (&mut self.parts[slot], &mut self.registers);
        let bins = &mut self.means[part.mean_table];
        if !registers.bit(&mut bins[part.context]) {
            part.context = 0;
            return Ok(part.before);
        }
        let negative = registers.bit(&mut bins[part.context + 1]);
        let mut highest = i32::from(registers.bit(&mut bins[part.context + 2 + usize::from(negative)]));
        // The bin of the first category, and of the magnitudes 14 further on.
        let mut bin = part.context + 2 + usize::from(negative);
        if highest > 0 {
            bin = 20;
            while registers.bit(&mut bins[bin]) {
                highest <<= 1;
                if highest == MOST {
                    return Err("a mean is too large");
                }
                bin += 1;
            }
        }
        part.context = match highest {
            small if small < part.lower => 0,
            large if large > part.upper => 12 + 4 * usize::from(negative),
            _ => 4 + 4 * usize::from(negative),
        };
        let size = 1 + if highest > 1 { registers.rest(highest, &mut bins[bin + 14]) } else { highest };
        part.before = part.before.wrapping_add(if negative { -size } else { size });
        Ok(part.before)
    }

    /// The sign and magnitude of a coefficient that is not zero: F.2.4.2.
    fn other(&mut self, slot: usize, at: usize) -> Result<i32, Damage> {
        let (part, registers) = (&self.parts[slot], &mut self.registers);
        let bins = &mut self.others[part.others_table];
        let negative = registers.even_bit();
        let mut bin = 3 * (at - 1) + 2;
        let mut highest = i32::from(registers.bit(&mut bins[bin]));
        if highest > 0 && registers.bit(&mut bins[bin]) {
            highest = 2;
            bin = if at <= part.low_frequencies { 189 } else { 217 };
            while registers.bit(&mut bins[bin]) {
                highest <<= 1;
                if highest == MOST {
                    return Err("a coefficient is too large");
                }
                bin += 1;
            }
        }
        let size = 1 + if highest > 1 { registers.rest(highest, &mut bins[bin + 14]) } else { highest };
        Ok(if negative { -size } else { size })
    }

    /// Coefficients of a band until the end of the block: Figure F.20.
    fn band(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        let table = self.parts[slot].others_table;
        let mut at = band.first;
        while at <= band.last {
            if self.registers.bit(&mut self.others[table][3 * (at - 1)]) {
                break;
            }
            while !self.registers.bit(&mut self.others[table][3 * (at - 1) + 1]) {
                at += 1;
                if at > band.last {
                    return Err("a block has more coefficients than its scan");
                }
            }
            block[usize::from(ZIGZAG[at])] = (self.other(slot, at)? << band.shift) as i16;
            at += 1;
        }
        Ok(())
    }
}

impl Entropy for Arithmetic<'_> {
    fn whole(&mut self, slot: usize, block: &mut Block) -> Result<(), Damage> {
        block[0] = self.next_mean(slot)? as i16;
        self.band(slot, block, Band { first: 1, last: 63, shift: 0 })
    }

    fn mean(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        block[0] = (self.next_mean(slot)? << band.shift) as i16;
        Ok(())
    }

    fn mean_bit(&mut self, block: &mut Block, band: Band) -> Result<(), Damage> {
        if self.registers.even_bit() {
            block[0] |= 1 << band.shift;
        }
        Ok(())
    }

    fn others(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        self.band(slot, block, band)
    }

    /// G.1.3.3, Figures G.10 and G.11.
    fn others_bit(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        let (registers, bins) = (&mut self.registers, &mut self.others[self.parts[slot].others_table]);
        let bit = 1i16 << band.shift;
        // Where the block ended in the scans before: until there nothing says whether it ends.
        let known = (band.first..=band.last).rev().find(|at| block[usize::from(ZIGZAG[*at])] != 0).unwrap_or(0);
        let mut at = band.first;
        while at <= band.last {
            if at > known && registers.bit(&mut bins[3 * (at - 1)]) {
                break;
            }
            loop {
                let (coefficient, bin) = (&mut block[usize::from(ZIGZAG[at])], 3 * (at - 1));
                if *coefficient != 0 {
                    if registers.bit(&mut bins[bin + 2]) {
                        *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
                    }
                    break;
                }
                if registers.bit(&mut bins[bin + 1]) {
                    *coefficient = if registers.even_bit() { -bit } else { bit };
                    break;
                }
                at += 1;
                if at > band.last {
                    return Err("a block has more coefficients than its scan");
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn restart(&mut self, number: u8) -> Result<(), Damage> {
        let at = pass_restart(self.registers.bytes, self.registers.at, number)?;
        self.registers = Registers::new(self.registers.bytes, at);
        (self.means, self.others) = ([[0; MEAN_BINS]; 4], [[0; OTHER_BINS]; 4]);
        for part in &mut self.parts {
            (part.before, part.context) = (0, 0);
        }
        Ok(())
    }

    fn position(&self) -> usize {
        self.registers.at
    }
}

/// Width of the unlikely part, the states after the unlikely and after the likely bit, and whether the unlikely bit becomes
/// the likely one: Table D.3. The last one is that of [`EVEN`].
#[rustfmt::skip]
const STATES: [(u32, u8, u8, bool); 114] = [
    (0x5a1d, 1, 1, true), (0x2586, 14, 2, false), (0x1114, 16, 3, false), (0x080b, 18, 4, false),
    (0x03d8, 20, 5, false), (0x01da, 23, 6, false), (0x00e5, 25, 7, false), (0x006f, 28, 8, false),
    (0x0036, 30, 9, false), (0x001a, 33, 10, false), (0x000d, 35, 11, false), (0x0006, 9, 12, false),
    (0x0003, 10, 13, false), (0x0001, 12, 13, false), (0x5a7f, 15, 15, true), (0x3f25, 36, 16, false),
    (0x2cf2, 38, 17, false), (0x207c, 39, 18, false), (0x17b9, 40, 19, false), (0x1182, 42, 20, false),
    (0x0cef, 43, 21, false), (0x09a1, 45, 22, false), (0x072f, 46, 23, false), (0x055c, 48, 24, false),
    (0x0406, 49, 25, false), (0x0303, 51, 26, false), (0x0240, 52, 27, false), (0x01b1, 54, 28, false),
    (0x0144, 56, 29, false), (0x00f5, 57, 30, false), (0x00b7, 59, 31, false), (0x008a, 60, 32, false),
    (0x0068, 62, 33, false), (0x004e, 63, 34, false), (0x003b, 32, 35, false), (0x002c, 33, 9, false),
    (0x5ae1, 37, 37, true), (0x484c, 64, 38, false), (0x3a0d, 65, 39, false), (0x2ef1, 67, 40, false),
    (0x261f, 68, 41, false), (0x1f33, 69, 42, false), (0x19a8, 70, 43, false), (0x1518, 72, 44, false),
    (0x1177, 73, 45, false), (0x0e74, 74, 46, false), (0x0bfb, 75, 47, false), (0x09f8, 77, 48, false),
    (0x0861, 78, 49, false), (0x0706, 79, 50, false), (0x05cd, 48, 51, false), (0x04de, 50, 52, false),
    (0x040f, 50, 53, false), (0x0363, 51, 54, false), (0x02d4, 52, 55, false), (0x025c, 53, 56, false),
    (0x01f8, 54, 57, false), (0x01a4, 55, 58, false), (0x0160, 56, 59, false), (0x0125, 57, 60, false),
    (0x00f6, 58, 61, false), (0x00cb, 59, 62, false), (0x00ab, 61, 63, false), (0x008f, 61, 32, false),
    (0x5b12, 65, 65, true), (0x4d04, 80, 66, false), (0x412c, 81, 67, false), (0x37d8, 82, 68, false),
    (0x2fe8, 83, 69, false), (0x293c, 84, 70, false), (0x2379, 86, 71, false), (0x1edf, 87, 72, false),
    (0x1aa9, 87, 73, false), (0x174e, 72, 74, false), (0x1424, 72, 75, false), (0x119c, 74, 76, false),
    (0x0f6b, 74, 77, false), (0x0d51, 75, 78, false), (0x0bb6, 77, 79, false), (0x0a40, 77, 48, false),
    (0x5832, 80, 81, true), (0x4d1c, 88, 82, false), (0x438e, 89, 83, false), (0x3bdd, 90, 84, false),
    (0x34ee, 91, 85, false), (0x2eae, 92, 86, false), (0x299a, 93, 87, false), (0x2516, 86, 71, false),
    (0x5570, 88, 89, true), (0x4ca9, 95, 90, false), (0x44d9, 96, 91, false), (0x3e22, 97, 92, false),
    (0x3824, 99, 93, false), (0x32b4, 99, 94, false), (0x2e17, 93, 86, false), (0x56a8, 95, 96, true),
    (0x4f46, 101, 97, false), (0x47e5, 102, 98, false), (0x41cf, 103, 99, false), (0x3c3d, 104, 100, false),
    (0x375e, 99, 93, false), (0x5231, 105, 102, false), (0x4c0f, 106, 103, false), (0x4639, 107, 104, false),
    (0x415e, 103, 99, false), (0x5627, 105, 106, true), (0x50e7, 108, 107, false), (0x4b85, 109, 103, false),
    (0x5597, 110, 109, false), (0x504f, 111, 107, false), (0x5a10, 110, 111, true), (0x5522, 112, 109, false),
    (0x59eb, 112, 111, true), (0x5a1d, 113, 113, false),
];
