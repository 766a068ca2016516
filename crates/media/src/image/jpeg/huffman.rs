//! Huffman coding of coefficients: F.2.2 and G.2.

use std::sync::Arc;

use memchr::memchr;

use super::frame::{Block, Damage, ZIGZAG};

/// Bits that are looked up at once.
const QUICK_BITS: usize = 9;

/// The codes of one table. A copy is a pointer.
#[derive(Clone, Default)]
pub(super) struct HuffmanTable(Arc<Codes>);

struct Codes {
    /// Symbol and length of the code that so many bits begin with; length zero for longer codes.
    quick: [(u8, u8); 1 << QUICK_BITS],
    /// First code of each length that is beyond those of the length, in the upper bits of sixteen.
    ends: [u32; 17],
    /// What is added to a code of each length to find its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Default for Codes {
    fn default() -> Self {
        Self { quick: [(0, 0); 1 << QUICK_BITS], ends: [0; 17], offsets: [0; 17], symbols: Vec::new() }
    }
}

impl HuffmanTable {
    /// Codes of one length follow each other: C.2.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Damage> {
        let mut codes = Codes { symbols: symbols.to_vec(), ..Codes::default() };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16 {
            let count = u32::from(counts[length - 1]);
            codes.offsets[length] = index as i32 - code as i32;
            for _ in 0..count {
                if length <= QUICK_BITS && code < 1 << length {
                    let free = QUICK_BITS - length;
                    let from = (code as usize) << free;
                    codes.quick[from..from + (1 << free)].fill((symbols[index], length as u8));
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return Err("a table of codes has more codes than bits");
            }
            codes.ends[length] = code << (16 - length);
            code <<= 1;
        }
        Ok(Self(Arc::new(codes)))
    }
}

/// Coded bits. Behind the end, or the next marker, come zeros, which must not be used.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bit is the highest one.
    buffer: u64,
    /// Bits in the buffer.
    count: u32,
    /// How many of them, at its end, are not from the file.
    missing: u32,
    /// More bits were used than there are before the end of the image.
    ended: bool,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, buffer: 0, count: 0, missing: 0, ended: false }
    }

    /// Goes on with zeros where the next marker is that of the end of the image, as libjpeg does.
    fn go_on(&mut self) -> Result<(), Damage> {
        if !self.bytes[self.at.min(self.bytes.len())..].starts_with(&[0xff, 0xd9]) {
            return Err("the coded data of a scan end too early");
        }
        (self.ended, self.missing) = (true, self.count);
        Ok(())
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xff, 0x00, ..] => {
                    self.at += 2;
                    0xff
                }
                [0xff, 0xff, ..] => {
                    // Fill bytes before a marker, or before the zero that says that there is none.
                    self.at += 1;
                    continue;
                }
                [] | [0xff, ..] => {
                    self.missing += 8;
                    0
                }
                [byte, ..] => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, bits: u32) -> Result<(), Damage> {
        self.buffer <<= bits;
        self.count -= bits;
        if self.count < self.missing { self.go_on() } else { Ok(()) }
    }

    /// At most 16 bits.
    fn bits(&mut self, bits: u32) -> Result<u32, Damage> {
        if bits == 0 {
            return Ok(0);
        }
        if self.count < bits {
            self.fill();
        }
        let value = (self.buffer >> (64 - bits)) as u32;
        self.skip(bits)?;
        Ok(value)
    }

    /// A number of so many bits and its sign: F.2.2.1, Figure F.12.
    fn signed(&mut self, bits: u32) -> Result<i32, Damage> {
        let value = self.bits(bits)? as i32;
        Ok(if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value })
    }

    fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, Damage> {
        let codes = &*table.0;
        if self.count < 16 {
            self.fill();
        }
        let (symbol, length) = codes.quick[(self.buffer >> (64 - QUICK_BITS)) as usize];
        if length > 0 {
            self.skip(u32::from(length))?;
            return Ok(symbol);
        }
        let next = (self.buffer >> 48) as u32;
        for length in QUICK_BITS + 1..=16 {
            if next < codes.ends[length] {
                self.skip(length as u32)?;
                let index = (next >> (16 - length)) as i32 + codes.offsets[length];
                return codes.symbols.get(index as usize).copied().ok_or("a code is in no table");
            }
        }
        // A code that the end of the image cuts is taken as zero, and all of its bits are used.
        if self.count - self.missing < 16 && self.missing > 0 {
            self.go_on()?;
            (self.buffer, self.count, self.missing) = (0, 0, 0);
            return Ok(0);
        }
        Err("a code is in no table")
    }
}

/// The part of the coefficients that a scan has, and how many low bits are left out of them.
#[derive(Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) shift: u8,
}

/// The decoder of one scan.
pub(super) struct Huffman<'a> {
    bits: Bits<'a>,
    /// Of each component of the scan: the tables of means and of the other coefficients.
    codes: Vec<(HuffmanTable, HuffmanTable)>,
    /// The mean of the block before.
    before: [i32; 4],
    /// Blocks that have no more coefficients in this band.
    empty: u32,
}

impl<'a> Huffman<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, codes: Vec<(HuffmanTable, HuffmanTable)>) -> Self {
        Self { bits: Bits::new(bytes, at), codes, before: [0; 4], empty: 0 }
    }

    /// Whether the image ended inside the scan: what is left of it has no coefficients. Known from the unit on that follows
    /// the one in which it ended, whose missing bits are zeros.
    pub(super) fn ended(&self) -> bool {
        self.bits.ended
    }

    /// The place of a coefficient, which a unit that the end of the image cuts may have put anywhere.
    fn place(&self, at: usize, last: usize, damage: Damage) -> Result<usize, Damage> {
        if at > last && !self.bits.ended {
            return Err(damage);
        }
        Ok(ZIGZAG.get(at).map_or(63, |place| usize::from(*place)))
    }

    fn next_mean(&mut self, slot: usize) -> Result<i32, Damage> {
        let bits = self.bits.symbol(&self.codes[slot].0)?;
        if bits > 15 {
            return Err("a mean has more than 15 bits");
        }
        let mean = self.before[slot].wrapping_add(self.bits.signed(u32::from(bits))?);
        self.before[slot] = mean;
        Ok(mean)
    }

    /// One more bit for a coefficient that is not zero.
    fn refine(&mut self, coefficient: &mut i16, bit: i16) -> Result<(), Damage> {
        if self.bits.bits(1)? == 1 && *coefficient & bit == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
        }
        Ok(())
    }

    /// All coefficients of a block. `slot` is the place of its component in the scan, here and below.
    pub(super) fn whole(&mut self, slot: usize, block: &mut Block) -> Result<(), Damage> {
        block[0] = self.next_mean(slot)? as i16;
        let codes = &self.codes[slot].1;
        let mut at = 1;
        while at < 64 {
            let symbol = self.bits.symbol(codes)?;
            let (zeros, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if bits == 0 {
                if zeros < 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += zeros;
            let place = self.place(at, 63, "a block has more than 64 coefficients")?;
            block[place] = self.bits.signed(bits)? as i16;
            at += 1;
        }
        Ok(())
    }

    /// Passes a block: as [`Self::whole`], without its coefficients.
    pub(super) fn pass(&mut self, slot: usize) -> Result<(), Damage> {
        self.next_mean(slot)?;
        let mut at = 1;
        while at < 64 {
            let symbol = self.bits.symbol(&self.codes[slot].1)?;
            let (zeros, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if bits == 0 && zeros < 15 {
                break;
            }
            at += zeros + 1;
            self.bits.bits(bits)?;
            if at > 64 && bits > 0 && !self.bits.ended {
                return Err("a block has more than 64 coefficients");
            }
        }
        Ok(())
    }

    /// The mean of a block for the first time.
    pub(super) fn mean(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        block[0] = (self.next_mean(slot)? << band.shift) as i16;
        Ok(())
    }

    /// One more bit of the mean.
    pub(super) fn mean_bit(&mut self, block: &mut Block, band: Band) -> Result<(), Damage> {
        if self.bits.bits(1)? == 1 {
            block[0] |= 1 << band.shift;
        }
        Ok(())
    }

    /// Other coefficients for the first time.
    pub(super) fn others(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let codes = &self.codes[slot].1;
        let mut at = band.first;
        while at <= band.last {
            let symbol = self.bits.symbol(codes)?;
            let (zeros, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if bits == 0 {
                if zeros < 15 {
                    self.empty = (1 << zeros) + self.bits.bits(zeros as u32)? - 1;
                    break;
                }
                at += 16;
                continue;
            }
            at += zeros;
            let place = self.place(at, band.last, "a block has more coefficients than its scan")?;
            block[place] = (self.bits.signed(bits)? << band.shift) as i16;
            at += 1;
        }
        Ok(())
    }

    /// One more bit of other coefficients.
    pub(super) fn others_bit(&mut self, slot: usize, block: &mut Block, band: Band) -> Result<(), Damage> {
        let bit = 1 << band.shift;
        let mut at = band.first;
        if self.empty == 0 {
            while at <= band.last {
                let symbol = self.bits.symbol(&self.codes[slot].1)?;
                let (mut zeros, bits) = (symbol >> 4, symbol & 15);
                let mut value = 0;
                match bits {
                    0 if zeros < 15 => {
                        self.empty = (1 << zeros) + self.bits.bits(u32::from(zeros))?;
                        break;
                    }
                    0 => {}
                    1 => value = if self.bits.bits(1)? == 1 { bit } else { -bit },
                    _ if !self.bits.ended => return Err("a coefficient has more than one new bit"),
                    _ => value = if self.bits.bits(1)? == 1 { bit } else { -bit },
                }
                // So many that are still zero are passed, and every one that is not has its bit here.
                while at <= band.last {
                    let coefficient = &mut block[usize::from(ZIGZAG[at])];
                    if *coefficient != 0 {
                        self.refine(coefficient, bit)?;
                    } else if zeros == 0 {
                        break;
                    } else {
                        zeros -= 1;
                    }
                    at += 1;
                }
                if value != 0 {
                    block[self.place(at, band.last, "a block has more coefficients than its scan")?] = value;
                }
                at += 1;
            }
        }
        if self.empty > 0 {
            for place in &ZIGZAG[at.min(band.last + 1)..=band.last] {
                let coefficient = &mut block[usize::from(*place)];
                if *coefficient != 0 {
                    self.refine(coefficient, bit)?;
                }
            }
            self.empty -= 1;
        }
        Ok(())
    }

    /// Passes the restart marker of this number and begins anew.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Damage> {
        if self.bits.ended {
            return Ok(());
        }
        let at = pass_restart(self.bits.bytes, self.bits.at, number)?;
        self.bits = Bits::new(self.bits.bytes, at);
        (self.before, self.empty) = ([0; 4], 0);
        Ok(())
    }

    /// Where the coded data end, at the latest.
    pub(super) fn position(&self) -> usize {
        self.bits.at
    }
}

/// The position behind the restart marker of this number, which is the next marker, or that of the end of the image.
fn pass_restart(bytes: &[u8], mut at: usize, number: u8) -> Result<usize, Damage> {
    loop {
        at += memchr(0xff, bytes.get(at..).unwrap_or_default()).ok_or("a restart marker is missing")? + 1;
        match bytes.get(at) {
            // Data that are left over, and fill bytes.
            Some(0x00) | Some(0xff) => {}
            Some(found) if *found == 0xd0 + number => return Ok(at + 1),
            Some(0xd9) => return Ok(at - 1),
            _ => return Err("a restart marker is missing"),
        }
    }
}

/// The tables for luma and chroma of K.3.3: those for means, and those for the other coefficients.
pub(super) fn default_tables() -> ([HuffmanTable; 2], [HuffmanTable; 2]) {
    let table = |counts, symbols: &[u8]| HuffmanTable::new(counts, symbols).expect("the tables of K.3.3 are whole");
    (
        [table(&LUMA_MEANS_COUNTS, &MEANS), table(&CHROMA_MEANS_COUNTS, &MEANS)],
        [table(&LUMA_OTHERS_COUNTS, &LUMA_OTHERS), table(&CHROMA_OTHERS_COUNTS, &CHROMA_OTHERS)],
    )
}

/// Codes of each length from 1 to 16 bits, then the symbols.
const LUMA_MEANS_COUNTS: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
/// Codes of each length from 1 to 16 bits, then the symbols.
const CHROMA_MEANS_COUNTS: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
/// Codes of each length from 1 to 16 bits, then the symbols.
const LUMA_OTHERS_COUNTS: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];
#[rustfmt::skip]
const LUMA_OTHERS: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];
/// Codes of each length from 1 to 16 bits, then the symbols.
const CHROMA_OTHERS_COUNTS: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119];
#[rustfmt::skip]
const CHROMA_OTHERS: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];
const MEANS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
